//! The graph before and after the passes, side by side; nodes that belong together carry the same layer numbers.

use super::escape::{ending, escape, shortened};
use crate::explain::layered::{Drawing, Edge, Sizes, layered};
use crate::explain::units::{amount, count, ms};
use crate::explain::{Explanation, Kind, LayerReport, View, ViewNode};
use std::collections::HashMap;
use std::fmt::{Result, Write};

const SIZES: Sizes = Sizes { node_height: 36.0, gap: 14.0, row_gap: 20.0 };
/// Around the drawing.
const MARGIN: f64 = 8.0;
/// Of the font in a box, about.
const CHAR_WIDTH: f64 = 6.6;
const MIN_WIDTH: f64 = 104.0;
const MAX_CHARS: usize = 30;

pub fn section(out: &mut String, e: &Explanation) -> Result {
    writeln!(out, "<section id=\"graph\">\n<h2>The graph before and after the passes</h2>")?;
    legend(out, e)?;
    let operators = |view: &View| view.nodes.iter().filter(|n| !matches!(n.kind, Kind::Input | Kind::Output)).count();
    writeln!(out, "<div class=\"panes\">")?;
    let before = format!("As imported: {} operators", operators(&e.before));
    Pane::new(e, "before", &e.before).write(out, &before)?;
    let after = format!("After -{}: {} layers", e.level, operators(&e.after));
    Pane::new(e, "after", &e.after).write(out, &after)?;
    writeln!(out, "</div>\n</section>")
}

fn legend(out: &mut String, e: &Explanation) -> Result {
    let used = |kind: Kind| e.before.nodes.iter().chain(&e.after.nodes).any(|n| n.kind == kind);
    writeln!(out, "<ul class=\"legend\">")?;
    // Inputs and outputs look the same.
    writeln!(out, "<li><span class=\"swatch k-io\"></span>input, output</li>")?;
    let families = Kind::ALL.into_iter().filter(|k| !matches!(k, Kind::Input | Kind::Output));
    for kind in families.filter(|&k| used(k)) {
        writeln!(out, "<li><span class=\"swatch {}\"></span>{}</li>", class(kind), kind.name())?;
    }
    let what = if e.timing.is_some() { "time" } else { "FLOPs" };
    writeln!(out, "<li><span class=\"meter\"></span>share of the model's {what}, the largest is full</li>\n</ul>")
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Input | Kind::Output => "k-io",
        Kind::Convolution => "k-conv",
        Kind::Product => "k-product",
        Kind::Pooling => "k-pool",
        Kind::Normalisation => "k-norm",
        Kind::Elementwise => "k-map",
        Kind::Reduction => "k-reduce",
        Kind::Movement => "k-move",
    }
}

/// One of the two pictures.
struct Pane<'e> {
    e: &'e Explanation,
    id: &'static str,
    view: &'e View,
    /// By [`LayerReport::index`].
    reports: HashMap<usize, &'e LayerReport>,
    /// The largest time, or number of FLOPs, of a layer.
    most: f64,
}

/// Milliseconds where they were measured, else FLOPs.
fn work(l: &LayerReport) -> f64 {
    l.figures.ms.or(l.figures.flops.number().map(|n| n as f64)).unwrap_or(0.0)
}

impl<'e> Pane<'e> {
    fn new(e: &'e Explanation, id: &'static str, view: &'e View) -> Pane<'e> {
        let reports = e.layers.iter().map(|l| (l.index, l)).collect();
        Pane { e, id, view, reports, most: e.layers.iter().map(work).fold(0.0, f64::max) }
    }

    fn write(&self, out: &mut String, title: &str) -> Result {
        writeln!(out, "<figure class=\"pane\" id=\"{}\">\n<figcaption>{title}", self.id)?;
        writeln!(out, "<span class=\"zoom\"><button type=\"button\" data-zoom=\"out\">−</button>")?;
        writeln!(out, "<button type=\"button\" data-zoom=\"in\">+</button>")?;
        writeln!(out, "<button type=\"button\" data-zoom=\"fit\">fit</button>")?;
        writeln!(out, "<button type=\"button\" data-zoom=\"one\">1:1</button></span></figcaption>")?;
        let labels: Vec<Label> = self.view.nodes.iter().map(Label::of).collect();
        let widths: Vec<f64> = labels.iter().map(Label::width).collect();
        match layered(&widths, &self.view.edges, SIZES) {
            Some(drawing) => self.svg(out, &labels, &widths, &drawing)?,
            None => writeln!(out, "<p>The graph is too large to be drawn.</p>")?,
        }
        writeln!(out, "</figure>")
    }

    fn svg(&self, out: &mut String, labels: &[Label], widths: &[f64], drawing: &Drawing) -> Result {
        let (width, height, id) = (drawing.width + 2.0 * MARGIN, drawing.height + 2.0 * MARGIN, self.id);
        writeln!(out, "<div class=\"canvas\"><svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\"")?;
        writeln!(out, " aria-label=\"the graph\" width=\"{width:.0}\" height=\"{height:.0}\"")?;
        writeln!(out, " viewBox=\"0 0 {width:.1} {height:.1}\">")?;
        writeln!(out, "<defs><marker id=\"{id}-tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\"")?;
        writeln!(
            out,
            " markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" d=\"M0 0.5 L8 4 L0 7.5 z\"/></marker></defs>"
        )?;
        writeln!(out, "<g transform=\"translate({MARGIN} {MARGIN})\">")?;
        for edge in &drawing.edges {
            writeln!(out, "<path class=\"edge\" marker-end=\"url(#{id}-tip)\" d=\"{}\"/>", path(edge))?;
        }
        for (at, node) in self.view.nodes.iter().enumerate() {
            self.node(out, node, &labels[at], widths[at], drawing.nodes[at])?;
        }
        writeln!(out, "</g>\n</svg></div>")
    }

    fn node(&self, out: &mut String, node: &ViewNode, label: &Label, width: f64, centre: (f64, f64)) -> Result {
        let report = node.layers.iter().find_map(|l| self.reports.get(l)).copied();
        let mark = match report {
            _ if is_gone(node) => " gone",
            Some(_) if self.e.node.is_some() => " asked",
            _ => "",
        };
        let layers: Vec<String> = node.layers.iter().map(usize::to_string).collect();
        let link = report.map(|l| format!("<a href=\"#layer-{}\">", l.index)).unwrap_or_default();
        let (class, layers) = (class(node.kind), layers.join(" "));
        write!(out, "{link}<g class=\"node {class}{mark}\" data-layers=\"{layers}\"")?;
        let height = SIZES.node_height;
        writeln!(out, " transform=\"translate({:.1} {:.1})\">", centre.0 - width / 2.0, centre.1 - height / 2.0)?;
        // A layer's figures are those after the passes.
        let figures = report.filter(|_| std::ptr::eq(self.view, &self.e.after));
        writeln!(out, "<title>{}</title>", escape(&tooltip(node, figures)))?;
        writeln!(out, "<rect width=\"{width:.1}\" height=\"{height}\" rx=\"5\"/>")?;
        if let Some(share) = figures.filter(|_| self.most > 0.0).map(|l| work(l) / self.most) {
            let (y, bar) = (height - 4.0, (width - 2.0) * share);
            writeln!(out, "<rect class=\"bar\" x=\"1\" y=\"{y}\" width=\"{bar:.1}\" height=\"3\"/>")?;
        }
        writeln!(out, "<text x=\"8\" y=\"14\" class=\"op\">{}</text>", escape(&label.op))?;
        writeln!(out, "<text x=\"{:.1}\" y=\"14\" class=\"shape\">{}</text>", width - 8.0, escape(&label.shape))?;
        writeln!(out, "<text x=\"8\" y=\"28\" class=\"name\">{}</text>", escape(&label.name))?;
        writeln!(out, "</g>{}", if report.is_some() { "</a>" } else { "" })
    }
}

/// An operator that no layer computes any more.
fn is_gone(node: &ViewNode) -> bool {
    node.layers.is_empty() && !matches!(node.kind, Kind::Input | Kind::Output)
}

/// What a box says.
struct Label {
    op: String,
    shape: String,
    name: String,
}

impl Label {
    fn of(node: &ViewNode) -> Label {
        let name = match &node.names[..] {
            [] => String::new(),
            names if names.iter().map(|n| n.chars().count() + 3).sum::<usize>() <= MAX_CHARS + 3 => names.join(" + "),
            [one] => ending(one, MAX_CHARS),
            [first, rest @ ..] => format!("{} +{}", ending(first, MAX_CHARS - 3), rest.len()),
        };
        // `f32[1,64,56,56]` as 1×64×56×56; other types say so.
        let dims = node.result.split_once('[').map(|(dtype, dims)| (dtype, dims.trim_end_matches(']')));
        let shape = match dims {
            Some(("f32", dims)) => dims.replace(',', "×"),
            Some((dtype, dims)) => format!("{dtype} {}", dims.replace(',', "×")),
            None => node.result.clone(),
        };
        Label { op: shortened(&node.op, MAX_CHARS), shape: shortened(&shape, MAX_CHARS), name }
    }

    fn width(&self) -> f64 {
        let chars = |s: &str| s.chars().count() as f64;
        let line = (chars(&self.op) * 1.08 + chars(&self.shape) + 2.0).max(chars(&self.name));
        (line * CHAR_WIDTH + 16.0).max(MIN_WIDTH)
    }
}

fn tooltip(node: &ViewNode, report: Option<&LayerReport>) -> String {
    let mut text = format!("{} -> {}\n{}", node.op, node.result, node.names.join("\n"));
    if let Some(l) = report {
        text += &format!("\n{} parameters, {} FLOPs", count(l.figures.params), amount(&l.figures.flops));
        text += &format!("\n{}", l.figures.layout);
        if let Some(time) = l.figures.ms {
            text += &format!("\n{}", ms(time));
        }
    }
    if is_gone(node) {
        text += "\nremoved by the passes";
    }
    text
}

/// A smooth line through an edge's points; vertical at each of them.
fn path(edge: &Edge) -> String {
    let mut points = edge.points.iter();
    let Some(&(mut x, mut y)) = points.next() else { return String::new() };
    let mut d = format!("M{x:.1} {y:.1}");
    for &(to_x, to_y) in points {
        let middle = (y + to_y) / 2.0;
        if (to_x - x).abs() < 0.05 {
            d += &format!("V{to_y:.1}");
        } else {
            d += &format!("C{x:.1} {middle:.1} {to_x:.1} {middle:.1} {to_x:.1} {to_y:.1}");
        }
        (x, y) = (to_x, to_y);
    }
    d
}
