//! Measures two graphs beside each other, for the rules that fire only where it is faster.

use crate::compile::CompileOptions;
use crate::runner::{Feeds, Runner};
use lehr_ir::graph::Graph;
use lehr_ir::tensor::seeded;
use lehr_passes::{Judge, Timing};
use std::time::{Duration, Instant};

/// Runs before any counts: caches, clock frequency, threads.
const WARM_UP: usize = 3;
/// Pairs of runs: at least so many, then until the time is over.
const MIN_PAIRS: usize = 9;
const MAX_PAIRS: usize = 400;
const TIME: Duration = Duration::from_millis(150);

/// Compiles as the options say, and runs on one thread and random inputs.
pub struct Stopwatch {
    options: CompileOptions,
}

struct Subject {
    runner: Runner,
    feeds: Feeds,
    times: Vec<Duration>,
}

impl Stopwatch {
    pub fn new(options: CompileOptions) -> Stopwatch {
        Stopwatch { options }
    }

    fn subject(&self, graph: &Graph) -> Result<Subject, String> {
        let shapes = graph.inputs().iter().map(|&v| (graph.ty(v).dtype, graph.ty(v).const_shape()));
        let inputs = shapes.map(|(dtype, shape)| Some(seeded(dtype, shape?, 1))).collect::<Option<Vec<_>>>();
        let inputs = inputs.ok_or("its inputs' sizes are not known")?;
        let runner = Runner::jit(graph.clone(), &self.options, 1)?;
        let artefact = runner.artefact().ok_or("only compiled code is measured")?;
        let feeds = Feeds::new(artefact, &inputs)?;
        Ok(Subject { runner, feeds, times: vec![] })
    }
}

impl Subject {
    fn run(&mut self) -> Result<Duration, String> {
        let session = self.runner.session().ok_or("only compiled code is measured")?;
        let started = Instant::now();
        self.feeds.run(session)?;
        Ok(started.elapsed())
    }

    fn median(mut self) -> Duration {
        self.times.sort();
        self.times[self.times.len() / 2]
    }
}

impl Judge for Stopwatch {
    /// Medians of runs in turn, so that what else the machine does meets both.
    fn time(&mut self, before: &Graph, after: &Graph) -> Result<Timing, String> {
        let (mut a, mut b) = (self.subject(before)?, self.subject(after)?);
        for _ in 0..WARM_UP {
            a.run()?;
            b.run()?;
        }
        let started = Instant::now();
        while a.times.len() < MIN_PAIRS || (started.elapsed() < TIME && a.times.len() < MAX_PAIRS) {
            let time = a.run()?;
            a.times.push(time);
            let time = b.run()?;
            b.times.push(time);
        }
        Ok(Timing { before: a.median(), after: b.median() })
    }
}
