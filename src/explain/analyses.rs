//! The passes' analyses of convolutions, in words and curves, and the time of what they propose.

use super::units::{count, ms};
use super::{Analysis, Curve, Point};
use lehr_ir::graph::{Graph, NodeId};
use lehr_passes::analysis::{
    Candidate, ChainCost, ConvLayer, Factorization, Options, OutputError, Point as Sample, Separability, Separation,
    StageCost,
};
use lehr_passes::{Decline, Judge, Timing};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// All analyses of some nodes, in order. What declines says so in a finding; what does not apply is left out. With a judge, what
/// they propose is measured.
pub fn analyses(
    graph: &Graph,
    ids: &[NodeId],
    options: &Options,
    mut judge: Option<&mut dyn Judge>,
) -> Vec<(NodeId, Vec<Analysis>)> {
    // Layers are independent, and each takes up to seconds.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(ids.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![]);
    let work = || {
        while let Some(&id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = Found::of(graph, id, options);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|found| found.id);
    // One after the other: here is measured.
    let mut in_words = |found: Found| {
        let mut times = |layer: &ConvLayer, c: &Candidate| {
            let judge = judge.as_deref_mut()?;
            Some(times(lehr_passes::time(judge, layer, &c.stages)))
        };
        (found.id, found.in_words(graph, options, &mut times))
    };
    done.into_iter().map(&mut in_words).collect()
}

/// The times of a layer and a candidate in words, if they are wanted.
type Times<'t> = &'t mut dyn FnMut(&ConvLayer, &Candidate) -> Option<String>;

/// The same for a layer that is known.
type OwnTimes<'t> = &'t mut dyn FnMut(&Candidate) -> Option<String>;

/// What the analyses say of a node.
struct Found {
    id: NodeId,
    layer: Result<ConvLayer, Decline>,
    factorization: Result<Factorization, Decline>,
    separability: Result<Separability, Decline>,
}

impl Found {
    fn of(graph: &Graph, id: NodeId, options: &Options) -> Found {
        let layer = ConvLayer::at(graph, id);
        let known = layer.as_ref().map_err(|_| Decline::NoMatch);
        let factorization = known.clone().and_then(|layer| Factorization::new(layer, options));
        let separability = known.and_then(|layer| Separability::new(layer, options));
        Found { id, layer, factorization, separability }
    }

    fn in_words(self, graph: &Graph, options: &Options, times: Times) -> Vec<Analysis> {
        let says = |name: &str, decline| declined(name, graph, self.id, decline);
        let layer = match self.layer {
            Ok(layer) => layer,
            Err(decline) => return says("analysis", decline).into_iter().collect(),
        };
        let mut times = |c: &Candidate| times(&layer, c);
        let factorization = match &self.factorization {
            Ok(found) => Some(of_factorization(found, options, &mut times)),
            Err(decline) => says("factorization", decline.clone()),
        };
        let separability = match &self.separability {
            Ok(found) => Some(of_separability(found, options, &mut times)),
            Err(decline) => says("separability", decline.clone()),
        };
        factorization.into_iter().chain(separability).collect()
    }
}

fn times(measured: Result<Timing, String>) -> String {
    match measured {
        Ok(t) => {
            let [before, after] = [t.before, t.after].map(|t| ms(t.as_secs_f64() * 1e3));
            format!(
                "measured alone, on one thread: {before} as it is, {after} replaced, {:.2} times as fast",
                t.speedup()
            )
        }
        Err(why) => format!("not measured: {why}"),
    }
}

fn declined(name: &str, graph: &Graph, id: NodeId, decline: Decline) -> Option<Analysis> {
    let Decline::Reason(why) = decline else { return None };
    // A node that no ONNX node stands behind has no name.
    let node = super::layers::node_names(graph, id).into_iter().next().unwrap_or_default();
    Some(Analysis { name: name.into(), node, findings: vec![format!("declined: {why}")], curves: vec![] })
}

fn of_factorization(f: &Factorization, options: &Options, times: OwnTimes) -> Analysis {
    let k = f.kernel;
    let parts: Vec<String> = f.parts.iter().map(|p| format!("{p}x{p}")).collect();
    let title = format!("{k}x{k} as {}", parts.join(", "));
    let mut findings = vec![
        format!("{title}, nothing in between; {}", fields(&f.before, &f.chosen.cost)),
        format!("before: {}", cost(&f.before)),
        compared_on(&f.chosen),
    ];
    findings.extend(f.capped.clone());
    let mut of_chosen = candidate(&f.chosen, &f.before, "channels in between", f.break_even, options);
    if let Some(spread) = &f.spread_padding {
        of_chosen
            .push(format!("error with the padding spread over the stack, not all in front: {}", on_outputs(spread)));
    }
    of_chosen.extend(times(&f.chosen));
    let curve = curve(title, "channels in between", &f.curve, &f.before, f.chosen.width, of_chosen);
    Analysis { name: "factorization".into(), node: f.layer.clone(), findings, curves: vec![curve] }
}

fn of_separability(s: &Separability, options: &Options, times: OwnTimes) -> Analysis {
    let [high, wide] = s.kernel;
    let errors: Vec<String> =
        s.pairs.errors.iter().enumerate().skip(1).map(|(rank, e)| format!("{} at rank {rank}", error(*e))).collect();
    let mut findings = vec![
        format!("{high}x{wide}; before: {}", cost(&s.before)),
        format!(
            "each channel pair by itself: {:.1} % are of rank one within {}; error {}",
            100.0 * s.pairs.rank_one,
            options.tolerance,
            errors.join(", ")
        ),
    ];
    findings.extend(s.schemes.first().map(|s| compared_on(&s.chosen)));
    findings.extend(s.capped.clone());
    let mut of_scheme = |found: &Separation| {
        let mut lines = candidate(&found.chosen, &s.before, "rank", found.break_even, options);
        lines.extend(times(&found.chosen));
        curve(found.scheme.to_string(), "rank", &found.curve, &s.before, found.chosen.width, lines)
    };
    let curves = s.schemes.iter().map(&mut of_scheme).collect();
    Analysis { name: "separability".into(), node: s.layer.clone(), findings, curves }
}

fn compared_on(c: &Candidate) -> String {
    format!("outputs are compared on {}", c.error_on_outputs.inputs)
}

fn curve(
    title: String,
    axis: &str,
    samples: &[Sample],
    before: &ChainCost,
    chosen: usize,
    findings: Vec<String>,
) -> Curve {
    let point = |p: &Sample| Point {
        at: p.width,
        error: p.error_on_weights,
        parameters: p.parameters,
        multiply_adds: p.multiply_adds,
    };
    let points = samples.iter().map(point).collect();
    Curve { title, axis: axis.into(), multiply_adds: before.multiply_adds, points, chosen, findings }
}

/// What would be taken, at what cost, and whether it is near enough.
fn candidate(c: &Candidate, before: &ChainCost, axis: &str, break_even: usize, options: &Options) -> Vec<String> {
    if break_even == 0 {
        return vec![format!("even {axis} {} takes no fewer multiply-adds: {}", c.width, cost(&c.cost))];
    }
    let share = share(c, before);
    let limit = format!("{axis} {} ({break_even} is the most that costs less)", c.width);
    let verdict = match c.error_on_weights <= options.tolerance {
        true => format!("within the tolerance of {}", options.tolerance),
        false => format!("above the tolerance of {}", options.tolerance),
    };
    vec![
        format!("{limit}: {}, {share:.2} of before", cost(&c.cost)),
        format!("error {} on weights, {verdict}; {}", error(c.error_on_weights), on_outputs(&c.error_on_outputs)),
    ]
}

fn share(c: &Candidate, before: &ChainCost) -> f64 {
    c.cost.multiply_adds as f64 / before.multiply_adds.max(1) as f64
}

fn on_outputs(e: &OutputError) -> String {
    let part = |what: &str, e: Option<f64>| e.map(|e| format!(", {} {what}", error(e))).unwrap_or_default();
    let (inside, border) = (part("inside", e.interior), part("at the border", e.border));
    format!("{} on outputs{inside}{border}", error(e.all))
}

/// Three digits.
pub fn error(e: f64) -> String {
    if e >= 1e-3 || e == 0.0 { format!("{e:.3}") } else { format!("{e:.1e}") }
}

fn fields(before: &ChainCost, after: &ChainCost) -> String {
    let [h, w] = before.receptive_field;
    match before.receptive_field == after.receptive_field {
        true => format!("receptive field {h}x{w}, unchanged"),
        false => format!("receptive field {h}x{w} -> {}x{}", after.receptive_field[0], after.receptive_field[1]),
    }
}

/// `12.8 k parameters; 5*5*16*32*27*27 = 9.33 M multiply-adds`
fn cost(c: &ChainCost) -> String {
    let terms: Vec<String> = c.stages.iter().map(stage).collect();
    format!("{} parameters; {} = {} multiply-adds", count(c.parameters), terms.join(" + "), count(c.multiply_adds))
}

/// Kernel, channels in and out, output size.
fn stage(s: &StageCost) -> String {
    let [[kh, kw], [oh, ow]] = [s.kernel, s.output];
    format!("{kh}*{kw}*{}*{}*{oh}*{ow}", s.channels_in / s.groups.max(1), s.channels_out)
}
