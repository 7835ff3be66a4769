//! An explanation as text for a terminal.

use super::analyses::error;
use super::table::rejections;
use super::units::{amount, amount_of_bytes, count, ms, size};
use super::{Analysis, Explanation, LayerReport, PassEvent};
use std::fmt::Write;

/// Points of a curve that are written out: ends, and what lies evenly between.
const CURVE_POINTS: usize = 8;

/// The whole explanation, ending with a newline.
pub fn render(e: &Explanation) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut out, e);
    let _ = e.layers.iter().try_for_each(|l| layer(&mut out, e, l));
    let _ = elsewhere(&mut out, &e.elsewhere);
    out
}

fn head(out: &mut String, e: &Explanation) -> std::fmt::Result {
    let t = &e.totals;
    writeln!(out, "{} at -{} for {}", plain(&e.model), e.level, plain(&e.cpu))?;
    writeln!(out, "  operators   {} -> {}", t.operators_before, t.operators_after)?;
    writeln!(out, "  parameters  {} -> {}", count(t.params_before), count(t.params))?;
    writeln!(out, "  FLOPs       {} -> {}", amount(&t.flops_before), amount(&t.flops))?;
    if let (Some(kernels), Some(arena), Some(weights)) = (t.kernels, t.arena_bytes, t.weights_bytes) {
        writeln!(out, "  kernels     {kernels}; arena {}, weights {}", size(arena), size(weights))?;
    }
    if !t.taken_as_1.is_empty() {
        let symbols = t.taken_as_1.join(" = ");
        writeln!(out, "  layouts, kernels, memory and times are for {symbols} = 1 (--dim sets it)")?;
    }
    if let Some(timing) = &e.timing {
        let threads = if timing.threads == 1 { "1 thread".into() } else { format!("{} threads", timing.threads) };
        let copies = match timing.other_ms {
            0.0 => String::new(),
            other => format!(", {} of it in copies to outputs", ms(other)),
        };
        writeln!(
            out,
            "  time        {} a run{copies}; median of {} runs on {threads}",
            ms(timing.run_ms),
            timing.runs
        )?;
    }
    for problem in &e.problems {
        let lines: Vec<String> = problem.lines().map(plain).collect();
        writeln!(out, "  no code     {}", lines.join("\n              "))?;
    }
    writeln!(out, "\n{:<20} {:>16} {:>6} {:>9}", "pass", "nodes", "fired", "declined")?;
    for p in &e.passes {
        let nodes = format!("{} -> {}", p.nodes_before, p.nodes_after);
        writeln!(out, "{:<20} {nodes:>16} {:>6} {:>9}", p.name, p.fired, p.declined)?;
    }
    Ok(())
}

fn layer(out: &mut String, e: &Explanation, l: &LayerReport) -> std::fmt::Result {
    let f = &l.figures;
    writeln!(out, "\nlayer {}: {} -> {}", l.index, f.op, f.result)?;
    writeln!(out, "  from      {}", plain(&f.nodes.join(" + ")))?;
    let b = &l.before;
    let was = |now: String, before: String| if now == before { now } else { format!("{now} (imported: {before})") };
    writeln!(
        out,
        "  costs     {} parameters, {} FLOPs; reads {}, writes {}",
        was(count(f.params), count(b.params)),
        was(amount(&f.flops), amount(&b.flops)),
        amount_of_bytes(&l.operand_bytes),
        amount_of_bytes(&f.activation_bytes)
    )?;
    let leaves = if f.leaves.is_empty() { String::new() } else { format!("; {}", f.leaves.join(", ")) };
    writeln!(out, "  computed  {}{leaves}", f.layout)?;
    if let (Some(choice), Some(predicted)) = (&f.choice, f.predicted_ms) {
        writeln!(out, "  chosen    {}, predicted {}", choice.strategy, ms(predicted))?;
        for line in rejections(choice) {
            writeln!(out, "            {line}")?;
        }
    }
    if let (Some(time), Some(share)) = (l.figures.ms, e.share(l)) {
        write!(out, "  time      {}, {:.1} % of the run", ms(time), share * 100.0)?;
        if let Some(gflops) = l.figures.gflops() {
            write!(out, "; {gflops:.1} GFLOP/s")?;
            if let Some(peak) = e.timing.as_ref().and_then(|t| t.peak_gflops) {
                write!(out, ", {:.0} % of the FMA peak", gflops / peak * 100.0)?;
            }
        }
        writeln!(out)?;
    }
    l.events.iter().try_for_each(|event| write_event(out, event))?;
    l.analyses.iter().try_for_each(|a| analysis(out, a))
}

fn write_event(out: &mut String, event: &PassEvent) -> std::fmt::Result {
    let what = if event.fired { "fired" } else { "declined" };
    writeln!(out, "  {what:<9} {} at {}: {}", event.rule, plain(&event.node), plain(&event.detail))
}

fn analysis(out: &mut String, a: &Analysis) -> std::fmt::Result {
    writeln!(out, "  {} of {}", a.name, plain(&a.node))?;
    for finding in &a.findings {
        writeln!(out, "    {}", plain(finding))?;
    }
    for c in &a.curves {
        writeln!(out, "    {}", c.title)?;
        for finding in &c.findings {
            writeln!(out, "      {}", plain(finding))?;
        }
        for p in thinned(&c.points, CURVE_POINTS) {
            let error = error(p.error);
            writeln!(out, "      {} {:>5}  error {error:<8} {:.2} of the multiply-adds", c.axis, p.at, c.cost(p))?;
        }
    }
    Ok(())
}

/// Text of a model on one line, without what would steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// At most `most` of some points, the first and the last among them.
fn thinned<T>(points: &[T], most: usize) -> impl Iterator<Item = &T> {
    let n = points.len();
    let shown = n.min(most);
    (0..shown).map(move |k| &points[if shown < 2 { k } else { k * (n - 1) / (shown - 1) }])
}

fn elsewhere(out: &mut String, events: &[PassEvent]) -> std::fmt::Result {
    if events.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nat nodes that are gone: removed, merged, or folded into constants")?;
    events.iter().try_for_each(|event| write_event(out, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_ends() {
        let all: Vec<usize> = (0..100).collect();
        let some: Vec<usize> = thinned(&all, 8).copied().collect();
        assert_eq!((some.len(), some[0], some[7]), (8, 0, 99));
        assert_eq!(thinned(&all[..1], 8).count(), 1);
        assert_eq!(thinned(&all[..0], 8).count(), 0);
        assert_eq!(thinned(&all[..3], 8).count(), 3);
    }
}
