//! `lehr bench`: latency on random inputs, of one model or of two variants in turn.

use super::args::BenchArgs;
use super::inputs::{Given, bind_open_dims};
use super::progress::Progress;
use super::{CliResult, Failure, warn};
use crate::runner::dtype_of;
use crate::{CompileOptions, Feeds, Runner, load, total_flops};
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
    measure(&mut candidates, args.seconds)?;
    let peak = lehr_codegen::peak::fma_peak();
    let threads = match args.threads {
        0 => lehr_codegen::runtime::cpu::default_threads(),
        n => n,
    };
    let figures: Vec<Figures> =
        candidates.iter().map(|c| figures(c, peak.map(|p| p / 1e9 * f64::from(threads)))).collect();
    print(args, figures, threads)
}

fn candidates(args: &BenchArgs) -> Result<Vec<Candidate>, Failure> {
    let is_library = Path::new(&args.model.model).extension().is_some_and(|e| e == "so");
    if is_library {
        if !args.compare.is_empty() {
            return Err(Failure::usage("--compare needs a model, not a compiled library"));
        }
        return Ok(vec![library(args)?]);
    }
    let graph = graph(args)?;
    let levels: Vec<&str> = match &args.compare[..] {
        [] => vec![&args.code.opt],
        [a, b] => vec![level(a)?, level(b)?],
        _ => return Err(Failure::usage("--compare takes two variants, like O0,O2")),
    };
    let inputs = Given::parse(&[format!("random:{SEED}")])?.for_graph(&graph)?;
    let flops = total_flops(&graph).map(|n| n as f64);
    let names = if args.compare.is_empty() { vec![format!("O{}", args.code.opt)] } else { args.compare.clone() };
    let candidate = |(level, name): (&str, String)| {
        let options = CompileOptions::new(level, &args.code.target_cpu)?;
        let runner = Runner::jit(graph.clone(), &options, args.threads)?;
        let artefact = runner.artefact().ok_or_else(|| Failure::usage("only compiled models are measured"))?;
        let feeds = Feeds::new(artefact, &inputs)?;
        Ok(Candidate { name, runner, feeds, flops, first: None, times: vec![] })
    };
    levels.into_iter().zip(names).map(candidate).collect()
}

/// `unfused` is what -O1 gives: everything but fusion.
fn level(word: &str) -> Result<&'static str, Failure> {
    match word {
        "O0" => Ok("0"),
        "O1" | "unfused" => Ok("1"),
        "O2" | "fused" => Ok("2"),
        other => Err(Failure::usage(format!("--compare: '{other}' is none of O0, O1, O2, unfused, fused"))),
    }
}

fn graph(args: &BenchArgs) -> Result<Graph, Failure> {
    let mut loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let Some(batch) = args.batch else {
        bind_open_dims(&mut loaded, &[])?;
        return Ok(loaded.graph);
    };
    let graph = &loaded.graph;
    let first = |&v| graph.ty(v).shape.first().filter(|d| d.as_const().is_none()).map(Dim::to_string);
    let symbols: Vec<String> = graph.inputs().iter().filter_map(first).collect();
    if symbols.is_empty() {
        return Err(Failure::usage("--batch: no input leaves its first dimension open"));
    }
    let bound = graph.bind(&|s| symbols.iter().any(|n| n == s).then_some(Dim::Const(batch)));
    bound.map_err(|d| Failure::model(d.to_string()))
}

fn library(args: &BenchArgs) -> Result<Candidate, Failure> {
    let started = Instant::now();
    let mut runner = Runner::open(Path::new(&args.model.model), args.threads)?;
    let opened = started.elapsed();
    let artefact = runner.artefact().ok_or_else(|| Failure::usage("only compiled models are measured"))?;
    let input = |(k, s): (usize, &lehr_codegen::artefact::IoSpec)| {
        let dtype =
            dtype_of(s.dtype).ok_or_else(|| Failure::model(format!("input '{}' has an unknown dtype", s.name)))?;
        Ok(tensor::seeded(dtype, s.dims.iter().map(|&d| d as usize).collect(), SEED + k as u64))
    };
    let inputs = artefact.inputs().iter().enumerate().map(input).collect::<Result<Vec<_>, Failure>>()?;
    let mut feeds = Feeds::new(artefact, &inputs)?;
    let metadata: serde_json::Value = serde_json::from_str(artefact.metadata()).unwrap_or_default();
    let flops = metadata["flops"].as_f64();
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
fn figures(c: &Candidate, peak: Option<f64>) -> Figures {
    let mut ms: Vec<f64> = c.times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
    let median_ms = at(0.5);
    let gflops = c.flops.map(|f| f / 1e6 / median_ms);
    Figures {
        variant: c.name.clone(),
        median_ms,
        p95_ms: at(0.95),
        min_ms: ms[0],
        runs: ms.len(),
        first_ms: c.first.map(|t| t.as_secs_f64() * 1e3),
        gflop: c.flops.map(|f| f / 1e9),
        gflops,
        share_of_peak: gflops.zip(peak).map(|(g, p)| g / p),
    }
}

fn print(args: &BenchArgs, figures: Vec<Figures>, threads: u32) -> CliResult {
    if let [a, b] = &figures[..] {
        let ratio = a.median_ms / b.median_ms;
        if args.json {
            println!("{}", json(&Comparison { threads, variants: figures, ratio }));
            return Ok(());
        }
        for f in &figures {
            println!("{}", line(f));
        }
        println!("{} takes {ratio:.2} times as long as {} ({threads} threads)", a.variant, b.variant);
        return Ok(());
    }
    for f in &figures {
        println!("{}", if args.json { json(f) } else { format!("{}, {threads} threads", line(f)) });
    }
    Ok(())
}

fn json(v: &impl Serialize) -> String {
    serde_json::to_string(v).expect("plain numbers and names serialise")
}

fn line(f: &Figures) -> String {
    let mut line = format!(
        "{:<8} median {:.3} ms  p95 {:.3} ms  min {:.3} ms  ({} runs)",
        f.variant, f.median_ms, f.p95_ms, f.min_ms, f.runs
    );
    if let Some(first) = f.first_ms {
        line += &format!("  opened and first run {first:.3} ms");
    }
    if let (Some(gflop), Some(gflops)) = (f.gflop, f.gflops) {
        line += &format!("  {gflop:.2} GFLOP at {gflops:.1} GFLOP/s");
    }
    if let Some(share) = f.share_of_peak {
        line += &format!(", {:.0} % of the FMA peak", share * 100.0);
    }
    line
}
