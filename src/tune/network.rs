//! Compiles variants of a network in this process, and runs them in turn.

use super::{Bench, Pair};
use crate::profiled::Profiled;
use crate::{CompileError, CompileOptions};
use lehr_codegen::lower::{LowerOptions, lower_owned};
use lehr_codegen::program::Program;
use lehr_codegen::strategy::{Decision, Tuned};
use lehr_ir::Diag;
use lehr_ir::graph::Graph;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs of a pair at least, at most, and how long they may take between the two.
const MIN_RUNS: usize = 7;
const MAX_RUNS: usize = 200;
const TIME: Duration = Duration::from_millis(1200);

/// A network after the passes.
pub struct Network {
    graph: Graph,
    options: CompileOptions,
    threads: u32,
    end: Instant,
    /// The program that most pairs have in common.
    base: Option<(Tuned, Vec<Decision>, Profiled)>,
}

impl Network {
    /// `graph` with numbers for dimensions. Tuning ends after so many seconds, and a little.
    pub fn new(graph: Graph, options: &CompileOptions, threads: u32, seconds: f64) -> Network {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        Network { graph, options: options.clone(), threads, end, base: None }
    }

    fn lower(&self, tuned: &Tuned) -> Result<Program, CompileError> {
        let options = LowerOptions { tuned: Arc::new(tuned.clone()), ..self.options.lowering() };
        lower_owned(self.graph.clone(), &options).map_err(CompileError)
    }

    fn program(&self, tuned: &Tuned) -> Result<(Vec<Decision>, Profiled), CompileError> {
        let mut program = self.lower(tuned)?;
        let decisions = std::mem::take(&mut program.decisions);
        let profiled = Profiled::new(program, &self.options.codegen("{}".into()), self.threads);
        Ok((decisions, profiled.map_err(failed)?))
    }
}

impl Bench for Network {
    fn decide(&mut self, tuned: &Tuned) -> Result<Vec<Decision>, CompileError> {
        Ok(self.lower(tuned)?.decisions)
    }

    fn pair(&mut self, base: &Tuned, other: &Tuned) -> Result<Pair, CompileError> {
        // The times of earlier pairs are gone with their program.
        let ours = self.base.take().filter(|(tuned, ..)| tuned == base);
        let (tuned, base_decisions, mut a) = match ours {
            Some(known) => known,
            None => {
                let (decisions, program) = self.program(base)?;
                (base.clone(), decisions, program)
            }
        };
        a.forget();
        let (other_decisions, mut b) = self.program(other)?;
        let started = Instant::now();
        while b.runs() < MIN_RUNS || (started.elapsed() < TIME && b.runs() < MAX_RUNS) {
            a.run().and_then(|()| b.run()).map_err(failed)?;
        }
        let base = times(&a, &base_decisions).map_err(failed)?;
        let other = times(&b, &other_decisions).map_err(failed)?;
        self.base = Some((tuned, base_decisions, a));
        Ok(Pair { base, other })
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.end
    }
}

/// A measurement that cannot be made.
fn failed(why: String) -> CompileError {
    Diag::new("compile.tune", why).into()
}

/// Times by signature.
fn times(program: &Profiled, decisions: &[Decision]) -> Result<BTreeMap<String, Vec<f64>>, String> {
    let nodes = program.nodes()?;
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for d in decisions {
        let Some(times) = nodes.get(&d.node) else { continue };
        let sums = all.entry(d.signature.clone()).or_insert_with(|| vec![0.0; times.len()]);
        sums.iter_mut().zip(times).for_each(|(sum, t)| *sum += t);
    }
    Ok(all)
}
