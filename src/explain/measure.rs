//! Times by layer, on random inputs: medians over runs of the instrumented program.

use super::{Measure, Timing};
use crate::profiled::{Profiled, median};
use lehr_codegen::compile::CompileOptions;
use lehr_codegen::program::Program;
use lehr_codegen::{peak, runtime};
use lehr_ir::NodeId;
use std::collections::HashMap;
use std::time::Instant;

const MIN_RUNS: usize = 5;
/// More add nothing to a median.
const MAX_RUNS: usize = 10_000;

/// Milliseconds of every node that takes any, and of the whole.
pub fn measure(
    program: Program,
    options: &CompileOptions,
    how: Measure,
) -> Result<(Timing, HashMap<NodeId, f64>), String> {
    let mut profiled = Profiled::new(program, options, how.threads)?;
    let started = Instant::now();
    while profiled.runs() < MIN_RUNS || (started.elapsed().as_secs_f64() < how.seconds && profiled.runs() < MAX_RUNS) {
        profiled.run()?;
    }
    let nodes: HashMap<NodeId, f64> = profiled.nodes()?.into_iter().map(|(id, ms)| (id, median(ms))).collect();
    let threads = match how.threads {
        0 => runtime::cpu::default_threads(),
        n => n,
    };
    let (whole, other) = profiled.whole()?;
    let other_ms = median(other);
    let timing = Timing {
        threads,
        runs: profiled.runs(),
        run_ms: median(whole),
        other_ms,
        sum_ms: nodes.values().sum::<f64>() + other_ms,
        peak_gflops: peak::fma_peak().map(|flops| flops / 1e9 * f64::from(threads)),
    };
    Ok((timing, nodes))
}
