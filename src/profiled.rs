//! A program that is run and notes the time of each of its layers; see [`lehr_codegen::profile`].

use crate::Feeds;
use lehr_codegen::artefact::Session;
use lehr_codegen::compile::{CompileOptions, jit};
use lehr_codegen::profile;
use lehr_codegen::program::Program;
use lehr_ir::{NodeId, tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

/// Seed of the random inputs.
const SEED: u64 = 1;

/// Compiled in this process, with stamps between its steps, and with random inputs.
pub struct Profiled {
    session: Session,
    feeds: Feeds,
    /// The intervals between stamps that belong to each node.
    spans: Vec<(NodeId, Range<usize>)>,
    /// The stamps of each run that counts.
    runs: Vec<Vec<u64>>,
    seconds: f64,
}

impl Profiled {
    /// Runs twice without looking: pages, caches and threads wake up.
    pub fn new(mut program: Program, options: &CompileOptions, threads: u32) -> Result<Profiled, String> {
        let seeds = program.inputs.iter().enumerate();
        let inputs: Vec<_> =
            seeds.map(|(k, io)| tensor::seeded(io.dtype, io.dims.clone(), SEED.wrapping_add(k as u64))).collect();
        let spans = profile::instrument(&mut program).map_err(|d| d.to_string())?;
        let (artefact, _) = jit(&mut program, options).map_err(|d| d.to_string())?;
        drop(program);
        let mut session = Session::new(&artefact, threads).map_err(|e| e.to_string())?;
        let mut feeds = Feeds::new(&artefact, &inputs)?;
        feeds.run(&mut session)?;
        feeds.run(&mut session)?;
        Ok(Profiled { session, feeds, spans, runs: vec![], seconds: 0.0 })
    }

    /// One run that counts.
    pub fn run(&mut self) -> Result<(), String> {
        let started = Instant::now();
        self.feeds.run(&mut self.session)?;
        self.seconds += started.elapsed().as_secs_f64();
        let bytes = self.feeds.last_output();
        let stamp = |c: &[u8]| u64::from_ne_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
        self.runs.push(bytes.chunks_exact(8).map(stamp).collect());
        Ok(())
    }

    /// Forgets the runs so far.
    pub fn forget(&mut self) {
        self.runs.clear();
        self.seconds = 0.0;
    }

    /// Runs that count.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Milliseconds of a tick, by the clock over all runs together.
    fn tick(&self) -> Result<f64, String> {
        let span = |run: &Vec<u64>| run.last()?.checked_sub(*run.first()?);
        let ticks: Option<u64> = self.runs.iter().map(span).sum();
        match ticks.filter(|&t| t > 0) {
            Some(ticks) => Ok(self.seconds * 1e3 / ticks as f64),
            None => Err("the program has no steps to measure".into()),
        }
    }

    /// Milliseconds of every node that takes any, in each run.
    pub fn nodes(&self) -> Result<HashMap<NodeId, Vec<f64>>, String> {
        let tick = self.tick()?;
        let between = |span: &Range<usize>| self.runs.iter().map(|run| time(run, span.clone()) * tick).collect();
        Ok(self.spans.iter().map(|(id, span)| (*id, between(span))).collect())
    }

    /// Milliseconds of the whole, in each run, and of the steps behind those of the last node: copies to outputs.
    pub fn whole(&self) -> Result<(Vec<f64>, Vec<f64>), String> {
        let tick = self.tick()?;
        let end = self.spans.last().map_or(0, |(_, span)| span.end);
        let all = |from: usize| self.runs.iter().map(|run| time(run, from..run.len() - 1) * tick).collect();
        Ok((all(0), all(end)))
    }
}

fn time(run: &[u64], span: Range<usize>) -> f64 {
    run[span.end].wrapping_sub(run[span.start]) as f64
}

/// The middle one, 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
