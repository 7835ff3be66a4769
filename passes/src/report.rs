//! What the passes did, for the user: who fired where, and who declined and why.

use crate::pipeline::rule;
use crate::rule::Exactness;
use std::fmt;
use std::time::Duration;

/// A rule fired or declined at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub rule: &'static str,
    /// The ONNX node's name, where it has one.
    pub node: String,
    /// The equation applied, or the reason to decline.
    pub detail: String,
}

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassReport {
    pub pass: &'static str,
    pub fired: Vec<Event>,
    pub declined: Vec<Event>,
    pub time: Duration,
    pub nodes_before: usize,
    pub nodes_after: usize,
}

/// One entry per pass that ran, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passes: Vec<PassReport>,
}

impl Report {
    /// How many rewrites were made in all.
    pub fn rewrites(&self) -> usize {
        self.passes.iter().map(|p| p.fired.len()).sum()
    }

    /// All declines that concern a node whose name contains `name`.
    pub fn declined<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r Event> {
        self.passes.iter().flat_map(|p| &p.declined).filter(move |e| e.node.contains(name))
    }
}

impl fmt::Display for PassReport {
    /// Without the time, so that equal runs print equally.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} -> {} nodes", self.pass, self.nodes_before, self.nodes_after)?;
        for e in &self.fired {
            // Whole-graph passes and most rules say always the same of their rewrites.
            match rule(e.rule).filter(|r| r.exactness == Exactness::Approximate) {
                Some(_) => writeln!(f, "  {} at {}: {}", e.rule, e.node, e.detail)?,
                None => writeln!(f, "  {} at {}", e.rule, e.node)?,
            }
        }
        for e in &self.declined {
            writeln!(f, "  {} declined at {}: {}", e.rule, e.node, e.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.passes.iter().try_for_each(|p| write!(f, "{p}"))
    }
}

/// A relative error in two digits: `0.13`, `4.2e-3`. What rounding makes is not told apart: it depends on the machine.
pub(crate) fn short(error: f64) -> String {
    match error {
        e if e < 1e-6 => "below 1e-6".into(),
        e if (0.01..10.0).contains(&e) => format!("{e:.2}"),
        e => format!("{e:.1e}"),
    }
}

/// `1 channel`, `2 channels`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
