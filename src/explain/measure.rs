//! Times by layer, on random inputs. Each run of the program notes the CPU's time stamp counter between its steps (see
//! [`lehr_codegen::profile`]); the rate of that counter is found from a clock over all runs together.

use super::{Measure, Timing};
use crate::Feeds;
use lehr_codegen::artefact::Session;
use lehr_codegen::compile::{CompileOptions, jit};
use lehr_codegen::program::Program;
use lehr_codegen::{peak, profile, runtime};
use lehr_ir::{NodeId, tensor};
use std::collections::HashMap;
use std::time::Instant;

/// Seed of the random inputs.
const SEED: u64 = 1;
const MIN_RUNS: usize = 5;
/// More add nothing to a median.
const MAX_RUNS: usize = 10_000;

/// Milliseconds of every node that takes any, and of the whole.
pub fn measure(
    mut program: Program,
    options: &CompileOptions,
    how: Measure,
) -> Result<(Timing, HashMap<NodeId, f64>), String> {
    let seeds = program.inputs.iter().enumerate();
    let inputs: Vec<_> =
        seeds.map(|(k, io)| tensor::seeded(io.dtype, io.dims.clone(), SEED.wrapping_add(k as u64))).collect();
    let spans = profile::instrument(&mut program).map_err(|d| d.to_string())?;
    let (artefact, _) = jit(&mut program, options).map_err(|d| d.to_string())?;
    drop(program);
    let mut session = Session::new(&artefact, how.threads).map_err(|e| e.to_string())?;
    let mut feeds = Feeds::new(&artefact, &inputs)?;
    let mut ticks = vec![];
    // Twice without looking: pages, caches and threads wake up.
    feeds.run(&mut session)?;
    feeds.run(&mut session)?;
    let started = Instant::now();
    while ticks.len() < MIN_RUNS || (started.elapsed().as_secs_f64() < how.seconds && ticks.len() < MAX_RUNS) {
        feeds.run(&mut session)?;
        ticks.push(stamps(&feeds));
    }
    let seconds = started.elapsed().as_secs_f64();
    let (Some(first), Some(last)) = (ticks[0].first(), ticks[ticks.len() - 1].last()) else {
        return Err("the program has no steps to measure".into());
    };
    let ms_per_tick = seconds * 1e3 / last.wrapping_sub(*first).max(1) as f64;
    let between = |from: usize, to: usize| {
        let each = ticks.iter().map(|run| run[to].wrapping_sub(run[from])).collect();
        median(each) * ms_per_tick
    };
    let nodes: HashMap<NodeId, f64> = spans.iter().map(|(id, span)| (*id, between(span.start, span.end))).collect();
    // Copies to outputs are the steps behind those of the last node.
    let end = spans.last().map_or(0, |(_, span)| span.end);
    let threads = match how.threads {
        0 => runtime::cpu::default_threads(),
        n => n,
    };
    let other_ms = between(end, ticks[0].len() - 1);
    let timing = Timing {
        threads,
        runs: ticks.len(),
        run_ms: between(0, ticks[0].len() - 1),
        other_ms,
        sum_ms: nodes.values().sum::<f64>() + other_ms,
        peak_gflops: peak::fma_peak().map(|flops| flops / 1e9 * f64::from(threads)),
    };
    Ok((timing, nodes))
}

/// The stamps of the last run: the model's last output.
fn stamps(feeds: &Feeds) -> Vec<u64> {
    let bytes = feeds.last_output();
    bytes.chunks_exact(8).map(|c| u64::from_ne_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]])).collect()
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64
}
