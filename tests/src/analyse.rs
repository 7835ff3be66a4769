//! What file tests show of the analyses, and a judge whose times are the same on every machine.

use lehr_ir::{Dim, Graph};
use lehr_passes::analysis::{Candidate, ChainCost, ConvLayer, Factorization, Options, Point, Separability};
use lehr_passes::{Decline, Judge, Timing};
use std::fmt::Write;
use std::time::Duration;

/// How a judge of the tests decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeJudge {
    /// An operation takes a microsecond.
    Work,
    /// What comes after always takes a quarter longer.
    Slow,
    /// It cannot measure anything.
    Broken,
}

impl Judge for FakeJudge {
    fn time(&mut self, before: &Graph, after: &Graph) -> Result<Timing, String> {
        let work = |g: &Graph| {
            let flops = g.ids().fold(Dim::ZERO, |sum, id| &sum + &g.flops(id)).as_const();
            Ok::<_, String>(Duration::from_micros(flops.ok_or("open dimensions")? as u64))
        };
        match self {
            FakeJudge::Work => Ok(Timing { before: work(before)?, after: work(after)? }),
            FakeJudge::Slow => Ok(Timing { before: work(before)?, after: work(before)? * 5 / 4 }),
            FakeJudge::Broken => Err("the clock is broken".into()),
        }
    }
}

/// An analysis of every convolution, by name, in text.
pub fn analyse(graph: &Graph, analysis: &str, options: &Options) -> Result<String, String> {
    let mut text = String::new();
    for id in graph.order() {
        let found = ConvLayer::at(graph, id).and_then(|layer| match analysis {
            "factorization" => Factorization::new(&layer, options).map(|f| factorization(&f)),
            "separability" => Separability::new(&layer, options).map(|s| separability(&s)),
            other => Err(Decline::Reason(format!("there is no analysis {other}"))),
        });
        let name = graph.node(id).origins.first().map(|o| o.name.to_string()).unwrap_or_default();
        match found {
            Ok(lines) => text += &lines,
            Err(Decline::NoMatch) => {}
            Err(Decline::Reason(why)) => text += &format!("{name}: {why}\n"),
        }
    }
    Ok(text)
}

fn factorization(f: &Factorization) -> String {
    let mut text = format!("{}: {1}x{1} as {2:?}\n  before    {3}\n", f.layer, f.kernel, f.parts, cost(&f.before));
    text += &chosen(&f.chosen, f.break_even);
    if let Some(spread) = &f.spread_padding {
        let (inside, border) =
            (spread.interior.map_or("none".into(), error), spread.border.map_or("none".into(), error));
        let _ = writeln!(text, "  padding spread over the stack: interior {inside}, border {border}");
    }
    text += &curve(&f.curve);
    text + &f.capped.iter().map(|c| format!("  capped: {c}\n")).collect::<String>()
}

fn separability(s: &Separability) -> String {
    let errors: Vec<String> = s.pairs.errors.iter().map(|&e| error(e)).collect();
    let mut text = format!("{}: {}x{}\n  before    {}\n", s.layer, s.kernel[0], s.kernel[1], cost(&s.before));
    let (of, share) = (s.pairs.pairs, s.pairs.rank_one);
    let _ = writeln!(text, "  pairs     {:?} looked at, rank one {share:.2}, errors by rank {}", of, errors.join(" "));
    for scheme in &s.schemes {
        let _ = writeln!(text, "  {}", scheme.scheme);
        text += &chosen(&scheme.chosen, scheme.break_even);
        text += &curve(&scheme.curve);
    }
    text + &s.capped.iter().map(|c| format!("  capped: {c}\n")).collect::<String>()
}

fn chosen(c: &Candidate, break_even: usize) -> String {
    let outputs = &c.error_on_outputs;
    let part = |e: Option<f64>| e.map_or("none".into(), error);
    format!(
        "  width {} (break-even {break_even})\n    {}\n    error {} on weights, {} on outputs (interior {}, border {}; {})\n",
        c.width,
        cost(&c.cost),
        error(c.error_on_weights),
        error(outputs.all),
        part(outputs.interior),
        part(outputs.border),
        outputs.inputs
    )
}

fn cost(c: &ChainCost) -> String {
    let stage = |s: &lehr_passes::analysis::StageCost| {
        format!(
            "{}x{} {}->{}/{} at {}x{}",
            s.kernel[0], s.kernel[1], s.channels_in, s.channels_out, s.groups, s.output[0], s.output[1]
        )
    };
    let stages: Vec<String> = c.stages.iter().map(stage).collect();
    let [h, w] = c.receptive_field;
    format!("{}: sees {h}x{w}, {} parameters, {} multiply-adds", stages.join(", "), c.parameters, c.multiply_adds)
}

fn curve(points: &[Point]) -> String {
    let point = |p: &Point| {
        format!("    {:>3}: {:>7} at {} multiply-adds\n", p.width, error(p.error_on_weights), p.multiply_adds)
    };
    points.iter().map(point).collect()
}

/// Two digits; what is rounding only is called exact, because its size depends on the machine.
fn error(e: f64) -> String {
    if e < 2e-6 { "exact".into() } else { format!("{e:.1e}") }
}
