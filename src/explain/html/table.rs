//! The table of layers, and under it what concerns each.

use super::escape::escape;
use super::plot;
use crate::explain::units::{amount, amount_of_bytes, count, ms};
use crate::explain::{Amount, Explanation, Layer, LayerReport, PassEvent};
use std::fmt::{Result, Write};

pub fn section(out: &mut String, e: &Explanation) -> Result {
    writeln!(out, "<section id=\"layers\">\n<h2>Layers</h2>")?;
    writeln!(out, "<p>In the order in which they run; a heading sorts.")?;
    writeln!(out, "Bytes are those of operands, weights included, and of results.")?;
    if e.timing.is_some() {
        writeln!(
            out,
            "Times are medians; shares are of their sum. GFLOP/s count the operations of direct convolution,"
        )?;
        writeln!(out, "of which Winograd's algorithm does a part.")?;
    }
    writeln!(out, "</p>")?;
    writeln!(out, "<div class=\"scroll\"><table class=\"sortable\">\n<thead><tr>")?;
    writeln!(out, "<th class=\"n\">#</th><th>layer</th><th>from</th><th>result</th>")?;
    writeln!(out, "<th class=\"n\">parameters</th><th class=\"n\">FLOPs</th>")?;
    writeln!(out, "<th class=\"n\">read</th><th class=\"n\">written</th><th>computed by</th>")?;
    if e.timing.is_some() {
        writeln!(out, "<th class=\"n\">ms</th><th class=\"n\">of the run</th><th class=\"n\">GFLOP/s</th>")?;
    }
    writeln!(out, "<th class=\"n\">fired</th><th class=\"n\">declined</th></tr></thead>\n<tbody>")?;
    let most = e.layers.iter().filter_map(|l| e.share(l)).fold(0.0, f64::max);
    e.layers.iter().try_for_each(|l| row(out, e, l, most))?;
    writeln!(out, "</tbody>\n</table></div>\n</section>")?;
    writeln!(out, "<section id=\"details\">\n<h2>Layer by layer</h2>")?;
    e.layers.iter().try_for_each(|l| details(out, e, l))?;
    writeln!(out, "</section>")
}

/// A cell of a number; `sort` is what the script sorts by.
fn number(out: &mut String, sort: f64, text: &str) -> Result {
    write!(out, "<td class=\"n\" data-sort=\"{sort}\">{}</td>", escape(text))
}

fn value(a: &Amount) -> f64 {
    a.number().map_or(-1.0, |n| n as f64)
}

/// `most` is the largest share of the run's time.
fn row(out: &mut String, e: &Explanation, l: &LayerReport, most: f64) -> Result {
    let f = &l.figures;
    write!(out, "<tr data-layers=\"{}\"><td class=\"n\" data-sort=\"{0}\">{0}</td>", l.index)?;
    write!(out, "<td><a href=\"#layer-{}\">{}</a></td>", l.index, escape(&f.op))?;
    write!(out, "<td class=\"names\">{}</td>", names(&f.nodes))?;
    write!(out, "<td class=\"type\">{}</td>", escape(&f.result))?;
    number(out, f.params as f64, &count(f.params))?;
    number(out, value(&f.flops), &amount(&f.flops))?;
    number(out, value(&l.operand_bytes), &amount_of_bytes(&l.operand_bytes))?;
    number(out, value(&f.activation_bytes), &amount_of_bytes(&f.activation_bytes))?;
    write!(out, "<td class=\"how\">{}</td>", how(f))?;
    if e.timing.is_some() {
        match (l.figures.ms, e.share(l)) {
            (Some(time), Some(share)) => {
                number(out, time, &format!("{time:.3}"))?;
                let percent = share * 100.0;
                write!(
                    out,
                    "<td class=\"n share\" data-sort=\"{share}\"><i style=\"width:{:.1}%\"></i>",
                    100.0 * share / most
                )?;
                write!(out, "<span>{percent:.1} %</span></td>")?;
            }
            _ => write!(out, "<td class=\"n\" data-sort=\"-1\">–</td><td class=\"n\" data-sort=\"-1\">–</td>")?,
        }
        match l.figures.gflops() {
            Some(gflops) => number(out, gflops, &format!("{gflops:.1}"))?,
            None => write!(out, "<td class=\"n\" data-sort=\"-1\">–</td>")?,
        }
    }
    let fired = l.events.iter().filter(|e| e.fired).count();
    number(out, fired as f64, &fired.to_string())?;
    number(out, (l.events.len() - fired) as f64, &(l.events.len() - fired).to_string())?;
    writeln!(out, "</tr>")
}

/// The algorithm and layouts, with arrows.
fn how(f: &Layer) -> String {
    escape(&f.layout.replace(" -> ", " → "))
}

/// ONNX names.
fn names(nodes: &[String]) -> String {
    let each: Vec<String> = nodes.iter().map(|n| format!("<code>{}</code>", escape(n))).collect();
    each.join(" + ")
}

fn details(out: &mut String, e: &Explanation, l: &LayerReport) -> Result {
    let f = &l.figures;
    let open = if e.node.is_some() { " open=\"open\"" } else { "" };
    writeln!(out, "<details id=\"layer-{}\" data-layers=\"{0}\"{open}>", l.index)?;
    let first = f.nodes.first().map_or("", String::as_str);
    let fired = l.events.iter().filter(|e| e.fired).count();
    let mut tail = format!("{fired} fired, {} declined", l.events.len() - fired);
    if let Some(time) = l.figures.ms {
        tail = format!("{}, {tail}", ms(time));
    }
    writeln!(
        out,
        "<summary><b>{} {}</b> <code>{}</code> <span class=\"type\">{}</span> <span class=\"tail\">{tail}</span></summary>",
        l.index,
        escape(&f.op),
        escape(first),
        escape(&f.result)
    )?;
    writeln!(out, "<dl class=\"facts\">")?;
    writeln!(out, "<dt>from</dt><dd>{}</dd>", names(&f.nodes))?;
    let b = &l.before;
    let was = |now: String, before: String| if now == before { now } else { format!("{now} (imported: {before})") };
    writeln!(out, "<dt>parameters</dt><dd>{}</dd>", was(count(f.params), count(b.params)))?;
    writeln!(out, "<dt>FLOPs</dt><dd>{}</dd>", escape(&was(amount(&f.flops), amount(&b.flops))))?;
    let leaves =
        if f.leaves.is_empty() { String::new() } else { format!("<br/><code>{}</code>", escape(&f.leaves.join(", "))) };
    writeln!(out, "<dt>computed by</dt><dd>{}{leaves}</dd>", how(f))?;
    if let (Some(choice), Some(predicted)) = (&f.choice, f.predicted_ms) {
        writeln!(out, "<dt>chosen</dt><dd>{}, predicted {}", escape(&choice.strategy), ms(predicted))?;
        if let Some(unfit) = &choice.unfit {
            writeln!(out, "<br/>not as tuned, {}", escape(unfit))?;
        }
        for r in &choice.rejected {
            let (strategy, reason) = (escape(&r.strategy), escape(&r.reason));
            writeln!(out, "<br/>not {strategy}: {}, {reason}", ms(r.predicted_ms))?;
        }
        writeln!(out, "</dd>")?;
    }
    writeln!(out, "</dl>")?;
    events(out, &l.events)?;
    for a in &l.analyses {
        writeln!(out, "<h3>{} of <code>{}</code></h3>\n<ul>", escape(&a.name), escape(&a.node))?;
        for finding in &a.findings {
            writeln!(out, "<li>{}</li>", escape(finding))?;
        }
        writeln!(out, "</ul>\n<div class=\"plots\">")?;
        a.curves.iter().try_for_each(|c| plot::figure(out, c))?;
        writeln!(out, "</div>")?;
    }
    writeln!(out, "</details>")
}

/// Events as a list; nothing for none.
pub fn events(out: &mut String, events: &[PassEvent]) -> Result {
    if events.is_empty() {
        return Ok(());
    }
    writeln!(out, "<ul class=\"events\">")?;
    for event in events {
        let (class, word) = if event.fired { ("fired", "fired") } else { ("declined", "declined") };
        writeln!(
            out,
            "<li class=\"{class}\"><b>{word}</b> <span>{} at <code>{}</code>: {}</span></li>",
            escape(&event.rule),
            escape(&event.node),
            escape(&event.detail)
        )?;
    }
    writeln!(out, "</ul>")
}
