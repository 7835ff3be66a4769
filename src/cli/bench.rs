//! `lehr bench`: latency on random inputs, of one model or of two variants in turn.

use super::args::BenchArgs;
use super::inputs::{Given, bind_open_dims};
use super::progress::Progress;
use super::{CliResult, Failure, compile_options, metadata, note_stand_in, refuse_for_library, say, warn};
use crate::explain::units::ms;
use crate::runner::dtype_of;
use crate::{Feeds, Runner, compile_jit, load, total_flops};
use lehr_ir::graph::Graph;
use lehr_ir::{Dim, tensor};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Seed of the random inputs.
const SEED: u64 = 1;
/// At least so many runs are timed, however long one takes.
const MIN_RUNS: usize = 5;

#[derive(Serialize)]
struct Figures {
    variant: String,
    threads: u32,
    median_ms: f64,
    p95_ms: f64,
    min_ms: f64,
    runs: usize,
    /// Opening the library and its first answer, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflop: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
    /// Of a model for GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_on: Option<String>,
}

#[derive(Serialize)]
struct Comparison {
    threads: u32,
    variants: Vec<Figures>,
    /// Median of the first variant over that of the second.
    ratio: f64,
}

struct Candidate {
    name: String,
    runner: Runner,
    feeds: Feeds,
    flops: Option<f64>,
    first: Option<Duration>,
    times: Vec<Duration>,
}

pub fn run(args: &BenchArgs) -> CliResult {
    let progress = Progress::start("compiling");
    let mut candidates = candidates(args)?;
    drop(progress);
    if let Some(session) = candidates[0].runner.session() {
        note_stand_in(session);
    }
    measure(&mut candidates, args.seconds)?;
    let peak = lehr_codegen::peak::fma_peak();
    let threads = match args.threads {
        0 => lehr_codegen::runtime::cpu::default_threads(),
        n => n,
    };
    let peak = peak.map(|p| p / 1e9 * f64::from(threads));
    let figures: Vec<Figures> = candidates.iter_mut().map(|c| figures(c, threads, peak)).collect();
    print(args, figures, threads)
}

fn candidates(args: &BenchArgs) -> Result<Vec<Candidate>, Failure> {
    if args.model.is_library() {
        let others = [("--compare", !args.compare.is_empty()), ("--batch", args.batch.is_some())];
        refuse_for_library(&args.model, &args.code, &args.device.gpu, &others)?;
        return Ok(vec![library(args)?]);
    }
    let levels: Vec<&str> = match &args.compare[..] {
        [] => vec![args.code.level()],
        [_, _] if args.code.opt.is_some() => {
            return Err(Failure::usage("--compare says both levels; leave -O away"));
        }
        pair @ [_, _] if pair.iter().any(|p| p == "approximate") && args.code.approximate.is_none() => {
            return Err(Failure::usage("--compare approximate: say how far with --approximate TOL"));
        }
        [a, b] => vec![level(a)?, level(b)?],
        _ => return Err(Failure::usage("--compare takes two variants, like O0,O2")),
    };
    let graph = graph(args)?;
    let inputs = Given::parse(&[format!("random:{SEED}")])?.for_graph(&graph)?;
    let flops = total_flops(&graph).map(|n| n as f64);
    let names = if args.compare.is_empty() { vec![format!("O{}", args.code.level())] } else { args.compare.clone() };
    let candidate = |(level, name): (&str, String)| {
        let mut options = args.device.apply(compile_options(level, &args.code)?, &args.code)?;
        if name == "exact" {
            options.approximate = None;
        }
        let artefact = compile_jit(graph.clone(), &options)?;
        let runner = Runner::of(&artefact, args.threads).map_err(Failure::usage)?;
        let feeds = Feeds::new(&artefact, &inputs)?;
        Ok(Candidate { name, runner, feeds, flops, first: None, times: vec![] })
    };
    levels.into_iter().zip(names).map(candidate).collect()
}

/// `unfused` is what -O1 gives: everything but fusion; `exact` is -O2 without approximations.
fn level(word: &str) -> Result<&'static str, Failure> {
    match word {
        "O0" => Ok("0"),
        "O1" | "unfused" => Ok("1"),
        "O2" | "fused" | "exact" | "approximate" => Ok("2"),
        other => {
            let words = "O0, O1, O2, unfused, fused, exact, approximate";
            Err(Failure::usage(format!("--compare: '{other}' is none of {words}")))
        }
    }
}

fn graph(args: &BenchArgs) -> Result<Graph, Failure> {
    let mut loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let Some(batch) = args.batch else {
        bind_open_dims(&mut loaded)?;
        return Ok(loaded.graph);
    };
    let graph = &loaded.graph;
    let first = |&v| graph.ty(v).shape.first().filter(|d| d.as_const().is_none()).map(Dim::to_string);
    let symbols: Vec<String> = graph.inputs().iter().filter_map(first).collect();
    if symbols.is_empty() {
        return Err(Failure::usage("--batch: no input leaves its first dimension open; the model's batch is fixed"));
    }
    let bound = graph.bind(&|s| symbols.iter().any(|n| n == s).then_some(Dim::Const(batch)));
    loaded.graph = bound.map_err(|d| Failure::model(d.to_string()))?;
    bind_open_dims(&mut loaded)?;
    Ok(loaded.graph)
}

fn library(args: &BenchArgs) -> Result<Candidate, Failure> {
    let started = Instant::now();
    let mut runner = Runner::open(Path::new(&args.model.model), args.threads).map_err(Failure::usage)?;
    let opened = started.elapsed();
    let artefact = runner.artefact().ok_or_else(|| Failure::usage("only compiled models are measured"))?;
    let input = |(k, s): (usize, &lehr_codegen::artefact::IoSpec)| {
        let dtype =
            dtype_of(s.dtype).ok_or_else(|| Failure::model(format!("input '{}' has an unknown dtype", s.name)))?;
        Ok(tensor::seeded(dtype, s.dims.iter().map(|&d| d as usize).collect(), SEED + k as u64))
    };
    let inputs = artefact.inputs().iter().enumerate().map(input).collect::<Result<Vec<_>, Failure>>()?;
    let mut feeds = Feeds::new(artefact, &inputs)?;
    let flops = metadata(artefact)?["flops"].as_f64();
    let started = Instant::now();
    if let Some(session) = runner.session() {
        feeds.run(session)?;
    }
    let first = Some(opened + started.elapsed());
    Ok(Candidate { name: "so".into(), runner, feeds, flops, first, times: vec![] })
}

/// Warms up, then runs the candidates in turn until the time is over.
fn measure(candidates: &mut [Candidate], seconds: f64) -> CliResult {
    let once = |c: &mut Candidate| {
        let session = c.runner.session().ok_or_else(|| Failure::usage("only compiled models are measured"))?;
        let started = Instant::now();
        c.feeds.run(session)?;
        Ok::<_, Failure>(started.elapsed())
    };
    for c in candidates.iter_mut() {
        once(c)?;
        once(c)?;
    }
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < seconds || candidates[0].times.len() < MIN_RUNS {
        for c in candidates.iter_mut() {
            let time = once(c)?;
            c.times.push(time);
        }
    }
    Ok(())
}

/// `peak` is in GFLOP/s, of all threads together.
fn figures(c: &mut Candidate, threads: u32, peak: Option<f64>) -> Figures {
    let mut ms: Vec<f64> = c.times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
    let median_ms = at(0.5);
    let gflops = c.flops.map(|f| f / 1e6 / median_ms);
    let session = c.runner.session();
    let on_cpu = session.as_ref().is_none_or(|s| s.is_on_cpu());
    let runs_on = session.filter(|s| s.artefact().gpu().is_some()).map(|s| s.runs_on());
    Figures {
        variant: c.name.clone(),
        threads,
        median_ms,
        p95_ms: at(0.95),
        min_ms: ms[0],
        runs: ms.len(),
        first_ms: c.first.map(|t| t.as_secs_f64() * 1e3),
        gflop: c.flops.map(|f| f / 1e9),
        gflops,
        share_of_peak: gflops.zip(peak.filter(|_| on_cpu)).map(|(g, p)| g / p),
        runs_on,
    }
}

fn print(args: &BenchArgs, figures: Vec<Figures>, threads: u32) -> CliResult {
    if let [a, b] = &figures[..] {
        let ratio = a.median_ms / b.median_ms;
        if args.json {
            return say(json(&Comparison { threads, variants: figures, ratio }));
        }
        for f in &figures {
            say(line(f))?;
        }
        let place = b.place();
        return say(format!("{} takes {ratio:.2} times as long as {} ({place})", a.variant, b.variant));
    }
    for f in &figures {
        say(if args.json { json(f) } else { format!("{}, {}", line(f), f.place()) })?;
    }
    Ok(())
}

impl Figures {
    /// `2 threads`, or what stands for a GPU.
    fn place(&self) -> String {
        let threads = self.threads;
        let plural = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
        self.runs_on.as_ref().map_or(plural, |on| format!("on {on}"))
    }
}

/// Operations of one run, in a unit that leaves digits to see.
fn work(gflop: f64) -> String {
    if gflop < 0.1 { format!("{:.3} MFLOP", gflop * 1e3) } else { format!("{gflop:.2} GFLOP") }
}

fn json(v: &impl Serialize) -> String {
    serde_json::to_string(v).expect("plain numbers and names serialise")
}

fn line(f: &Figures) -> String {
    let mut line = format!(
        "{:<8} median {}  p95 {}  min {}  ({} runs)",
        f.variant,
        ms(f.median_ms),
        ms(f.p95_ms),
        ms(f.min_ms),
        f.runs
    );
    if let Some(first) = f.first_ms {
        line += &format!("  opened and first run {first:.3} ms");
    }
    if let (Some(gflop), Some(gflops)) = (f.gflop, f.gflops) {
        line += &format!("  {} at {gflops:.1} GFLOP/s", work(gflop));
    }
    if let Some(share) = f.share_of_peak {
        line += &format!(", {:.1} % of the FMA peak", share * 100.0);
    }
    line
}
