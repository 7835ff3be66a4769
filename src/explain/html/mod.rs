//! An explanation as a page that needs nothing but itself: no request leaves it (its content policy forbids them), and it reads
//! without its script too, which only sorts, zooms and links. Every text of the model goes through [`escape`].

mod escape;
mod picture;
mod plot;
mod table;

use super::Explanation;
use super::units::{amount, count, ms, size};
use escape::escape;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub fn render(e: &Explanation) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = page(&mut out, e);
    out
}

fn page(out: &mut String, e: &Explanation) -> std::fmt::Result {
    let title = escape(&e.model);
    writeln!(out, "<!DOCTYPE html>")?;
    writeln!(out, "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>")?;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\"/>")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>")?;
    writeln!(out, "<meta name=\"color-scheme\" content=\"light dark\"/>")?;
    writeln!(out, "<title>{title} explained by lehr</title>")?;
    writeln!(out, "<style>\n{STYLE}</style>\n</head>\n<body>")?;
    header(out, e)?;
    picture::section(out, e)?;
    table::section(out, e)?;
    passes(out, e)?;
    elsewhere(out, e)?;
    writeln!(out, "<script>\n//<![CDATA[\n{SCRIPT}//]]>\n</script>\n</body>\n</html>")
}

fn header(out: &mut String, e: &Explanation) -> std::fmt::Result {
    let t = &e.totals;
    writeln!(out, "<header>\n<h1>{}</h1>", escape(&e.model))?;
    let node = e.node.as_ref().map(|n| format!(", layers from <code>{}</code>", escape(n))).unwrap_or_default();
    writeln!(out, "<p class=\"sub\">compiled at -{} for {}{node}</p>", escape(&e.level), escape(&e.cpu))?;
    writeln!(out, "<dl class=\"tiles\">")?;
    let mut tile = |name: &str, value: String, note: String| {
        writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd><dd class=\"note\">{note}</dd></div>")
    };
    let imported = |same: bool, before: String| if same { String::new() } else { format!("{before} as imported") };
    let same = t.operators_before == t.operators_after;
    tile("operators", t.operators_after.to_string(), imported(same, t.operators_before.to_string()))?;
    tile("parameters", count(t.params), imported(count(t.params) == count(t.params_before), count(t.params_before)))?;
    let (flops, before) = (escape(&amount(&t.flops)), escape(&amount(&t.flops_before)));
    tile("FLOPs", flops.clone(), imported(flops == before, before))?;
    if let (Some(arena), Some(weights), Some(kernels)) = (t.arena_bytes, t.weights_bytes, t.kernels) {
        tile("arena", size(arena), "peak of one run".into())?;
        tile("weights", size(weights), format!("packed, for {kernels} kernels"))?;
    }
    if let Some(time) = &e.timing {
        let threads = if time.threads == 1 { "1 thread".into() } else { format!("{} threads", time.threads) };
        tile("time", ms(time.run_ms), format!("median of {} runs, {threads}", time.runs))?;
        if let (Some(flops), Some(peak)) = (t.flops.number(), time.peak_gflops) {
            let gflops = flops as f64 / 1e6 / time.run_ms;
            tile("speed", format!("{gflops:.0} GFLOP/s"), format!("{:.0} % of the FMA peak", 100.0 * gflops / peak))?;
        }
    }
    writeln!(out, "</dl>")?;
    if !t.taken_as_1.is_empty() {
        let symbols = escape(&t.taken_as_1.join(" = "));
        writeln!(out, "<p>Layouts, kernels, memory and times are for {symbols} = 1.</p>")?;
    }
    for problem in &e.problems {
        writeln!(out, "<p class=\"problem\">No code: {}</p>", escape(problem))?;
    }
    writeln!(out, "</header>")
}

fn passes(out: &mut String, e: &Explanation) -> std::fmt::Result {
    writeln!(out, "<section id=\"passes\">\n<h2>Passes</h2>\n<div class=\"scroll\"><table>")?;
    writeln!(out, "<thead><tr><th>pass</th><th class=\"n\">nodes before</th><th class=\"n\">after</th>")?;
    writeln!(
        out,
        "<th class=\"n\">fired</th><th class=\"n\">declined</th><th>what it does</th></tr></thead>\n<tbody>"
    )?;
    for p in &e.passes {
        writeln!(
            out,
            "<tr><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&p.name),
            p.nodes_before,
            p.nodes_after,
            p.fired,
            p.declined,
            escape(&p.doc)
        )?;
    }
    writeln!(out, "</tbody>\n</table></div>\n</section>")
}

fn elsewhere(out: &mut String, e: &Explanation) -> std::fmt::Result {
    if e.elsewhere.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id=\"elsewhere\">\n<h2>At nodes that are gone</h2>")?;
    writeln!(out, "<p>They were removed, merged with others, or folded into constants.</p>")?;
    table::events(out, &e.elsewhere)?;
    writeln!(out, "</section>")
}
