//! Passes and the manager that runs a list of them.

use crate::approximate::Approximation;
use crate::report::{Event, PassReport, Report};
use crate::rewrite::{Applied, apply_rules};
use crate::rule::Rule;
use lehr_ir::{Diag, Graph, verify};
use std::time::Instant;

/// A named step of a pipeline.
#[derive(Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Rules(&'static [&'static Rule]),
    /// Gives one event per rewrite, and makes at most as many as the budget says.
    Graph(fn(&mut Graph, &mut Option<usize>) -> GraphChanges),
}

/// What a whole-graph pass did and what it left, with reasons.
#[derive(Default)]
pub(crate) struct GraphChanges {
    pub fired: Vec<Event>,
    pub declined: Vec<Event>,
}

impl Pass {
    /// The rules it applies; none for a pass over the whole graph.
    pub fn rules(&self) -> &'static [&'static Rule] {
        match self.kind {
            Kind::Rules(rules) => rules,
            Kind::Graph(_) => &[],
        }
    }
}

/// How to run passes.
#[derive(Clone, Debug)]
pub struct Manager {
    /// Verify the graph before the first and after every pass.
    pub verify_each: bool,
    /// Make at most so many rewrites in all: bisection finds the one that goes wrong.
    pub stop_after: Option<usize>,
}

// Without debug assertions the values are those that a derived default has.
#[cfg_attr(not(debug_assertions), allow(clippy::derivable_impls))]
impl Default for Manager {
    fn default() -> Manager {
        Manager { verify_each: cfg!(debug_assertions), stop_after: None }
    }
}

/// What [`Manager::run_with`] tells after each pass.
pub struct After<'a> {
    pub pass: &'a Pass,
    pub report: &'a PassReport,
    pub graph: &'a Graph,
}

impl Manager {
    /// # Errors
    /// What the verifier finds, with the name of the pass after which it found it.
    pub fn run(&self, graph: &mut Graph, passes: &[Pass]) -> Result<Report, Vec<Diag>> {
        self.run_with(graph, passes, &mut |_| {})
    }

    /// Like [`Manager::run`]; `after` sees the graph after every pass.
    pub fn run_with(
        &self,
        graph: &mut Graph,
        passes: &[Pass],
        after: &mut dyn FnMut(After),
    ) -> Result<Report, Vec<Diag>> {
        self.run_approximate(graph, passes, None, after)
    }

    /// Like [`Manager::run_with`]; the approximate rules among the passes fire only with leave to.
    pub fn run_approximate(
        &self,
        graph: &mut Graph,
        passes: &[Pass],
        mut approximation: Option<&mut Approximation>,
        after: &mut dyn FnMut(After),
    ) -> Result<Report, Vec<Diag>> {
        let mut report = Report::default();
        let mut budget = self.stop_after;
        if self.verify_each {
            self.verify(graph, "before the first pass")?;
        }
        for pass in passes {
            let start = Instant::now();
            let nodes_before = graph.ids().count();
            let (fired, declined) = match pass.kind {
                Kind::Rules(rules) => {
                    let leave = approximation.as_deref_mut();
                    let Applied { fired, declined } = apply_rules(graph, rules, &mut budget, leave);
                    (fired, declined)
                }
                Kind::Graph(run) => {
                    let GraphChanges { fired, declined } = run(graph, &mut budget);
                    (fired, declined)
                }
            };
            let nodes_after = graph.ids().count();
            let time = start.elapsed();
            report.passes.push(PassReport { pass: pass.name, fired, declined, time, nodes_before, nodes_after });
            if self.verify_each {
                self.verify(graph, &format!("after the pass {}", pass.name))?;
            }
            if let Some(last) = report.passes.last() {
                after(After { pass, report: last, graph });
            }
        }
        Ok(report)
    }

    /// Applies one rule wherever it holds, and nothing else.
    ///
    /// # Errors
    /// What the verifier finds afterwards.
    pub fn run_rule(
        &self,
        graph: &mut Graph,
        rule: &Rule,
        approximation: Option<&mut Approximation>,
    ) -> Result<PassReport, Vec<Diag>> {
        let start = Instant::now();
        let nodes_before = graph.ids().count();
        let Applied { fired, declined } = apply_rules(graph, &[rule], &mut self.stop_after.clone(), approximation);
        let nodes_after = graph.ids().count();
        if self.verify_each {
            self.verify(graph, &format!("after the rule {}", rule.name))?;
        }
        Ok(PassReport { pass: rule.name, fired, declined, time: start.elapsed(), nodes_before, nodes_after })
    }

    fn verify(&self, graph: &Graph, when: &str) -> Result<(), Vec<Diag>> {
        let diags = verify(graph);
        if diags.is_empty() {
            return Ok(());
        }
        Err(diags.into_iter().map(|d| d.note(when)).collect())
    }
}
