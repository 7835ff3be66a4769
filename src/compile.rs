//! Passes, lowering and code generation in one place, with the options that steer them.

use crate::stopwatch::Stopwatch;
use crate::tune::Records;
use lehr_codegen::artefact::{Artefact, Linker, SoOptions};
use lehr_codegen::compile::{self as code, GpuReport};
use lehr_codegen::lower::{LowerOptions, lower_owned};
use lehr_codegen::machine::Caches;
use lehr_codegen::program::Program;
use lehr_codegen::ptx::Gpu;
use lehr_codegen::strategy::Decision;
use lehr_ir::graph::Graph;
use lehr_ir::{Diag, Dim};
pub use lehr_passes::OptLevel;
use lehr_passes::analysis::Options;
use lehr_passes::{Approximation, Manager, Pass, Report, approximate_pipeline, pipeline};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How results may be rounded.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// Also algorithms with fewer operations and a few times larger rounding errors, Winograd's for convolutions, and 25 bits of the
    /// weights of products that wait for memory.
    #[default]
    Fast,
    /// Sums of products of the model's numbers, in any order.
    Strict,
}

impl Numerics {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Numerics::Fast => "fast",
            Numerics::Strict => "strict",
        }
    }
}

/// How a graph is compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    pub level: OptLevel,
    pub numerics: Numerics,
    /// `native`, or a name like `x86-64-v3`.
    pub cpu: String,
    /// Name of the model in the descriptor symbol; from the output file's name if `None`.
    pub prefix: Option<String>,
    pub linker: Linker,
    /// Sizes of caches to choose algorithms for, instead of this machine's or, for a CPU by name, typical ones.
    pub caches: Option<Caches>,
    /// Strategies of layers that were measured, instead of the cost model's; kept in the artefact's metadata.
    pub tuned: Option<Arc<Records>>,
    /// The GPU to generate code for, instead of a CPU.
    pub gpu: Option<Gpu>,
    /// With a GPU: also generate code for the CPU, which runs where there is no GPU that can.
    pub cpu_fallback: bool,
    /// Relative error up to which a convolution may be replaced by smaller ones, where that is measured to be faster here.
    pub approximate: Option<f64>,
}

impl Default for CompileOptions {
    fn default() -> CompileOptions {
        CompileOptions {
            level: OptLevel::O2,
            numerics: Numerics::Fast,
            cpu: "native".into(),
            prefix: None,
            linker: Linker::Builtin,
            caches: None,
            tuned: None,
            gpu: None,
            cpu_fallback: false,
            approximate: None,
        }
    }
}

/// What went wrong between graph and code.
#[derive(Clone, Debug)]
pub struct CompileError(pub Vec<Diag>);

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

impl From<Diag> for CompileError {
    fn from(d: Diag) -> CompileError {
        CompileError(vec![d])
    }
}

/// Figures of a finished compilation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Operators after the passes.
    pub operators: usize,
    pub kernels: usize,
    pub weights_bytes: u64,
    pub arena_bytes: u64,
    pub file_bytes: u64,
    /// The exported descriptor.
    pub symbol: String,
    /// Seconds by stage, in order.
    pub timings: Vec<(&'static str, Duration)>,
    /// What a library for a GPU holds; its arena and weights are on the device, too.
    pub gpu: Option<GpuReport>,
    /// What the options ask for and cannot be done: tuned strategies that are not used.
    pub warnings: Vec<Diag>,
}

/// Runs the pipeline of a level.
pub fn optimize(graph: Graph, level: OptLevel) -> Result<(Graph, Report), CompileError> {
    let manager = Manager::default();
    let mut graph = graph;
    let report = manager.run(&mut graph, pipeline(level)).map_err(CompileError)?;
    Ok((graph, report))
}

/// Runs the pipeline that the options ask for, approximations included.
pub fn optimize_with(mut graph: Graph, options: &CompileOptions) -> Result<(Graph, Report), CompileError> {
    let manager = Manager::default();
    let passes = options.passes();
    let mut leave = options.approximation();
    let report = manager.run_approximate(&mut graph, &passes, leave.as_mut(), &mut |_| {}).map_err(CompileError)?;
    Ok((graph, report))
}

/// Passes and lowering.
pub fn lower(graph: Graph, options: &CompileOptions) -> Result<Program, CompileError> {
    let (graph, _) = optimize_with(graph, options)?;
    lower_owned(graph, &options.lowering()).map_err(CompileError)
}

/// Compiles in this process, for its CPU or for a GPU.
pub fn compile_jit(graph: Graph, options: &CompileOptions) -> Result<Artefact, CompileError> {
    let metadata = metadata(&graph, options);
    if let Some(gpu) = options.gpu {
        let (graph, _) = optimize_with(graph, options)?;
        let (mut program, mut cpu) = lower_for_gpu(graph, options)?;
        return Ok(code::gpu(&mut program, gpu, cpu.as_mut(), &options.codegen(metadata))?);
    }
    let mut program = lower(graph, options)?;
    let (artefact, _) = code::jit(&mut program, &options.codegen(metadata))?;
    Ok(artefact)
}

/// Writes a shared library, for a CPU or for a GPU.
pub fn compile_so(graph: Graph, options: &CompileOptions, path: &Path) -> Result<Compiled, CompileError> {
    let mut clock = Clock::new();
    let metadata = metadata(&graph, options);
    let (graph, _) = optimize_with(graph, options)?;
    clock.lap("passes");
    let operators = graph.ids().filter(|&id| !graph.node(id).op.is_source()).count();
    let name = options.prefix.clone().or_else(|| stem(path));
    let so = SoOptions { linker: options.linker.clone(), ..SoOptions::default() };
    let codegen = options.codegen(metadata);
    let (program, written, report, gpu) = if let Some(gpu) = options.gpu {
        let (mut program, mut cpu) = lower_for_gpu(graph, options)?;
        clock.lap("lower");
        for p in [Some(&mut program), cpu.as_mut()].into_iter().flatten() {
            p.name = name.clone().unwrap_or_else(|| p.name.clone());
        }
        let (written, report) = code::write_gpu_so(&mut program, gpu, cpu.as_mut(), &codegen, &so, path)?;
        // Without code for CPUs nothing was decided.
        program.decisions = cpu.map(|c| c.decisions).unwrap_or_default();
        (program, written, report.report, Some(report))
    } else {
        let mut program = lower_owned(graph, &options.lowering()).map_err(CompileError)?;
        clock.lap("lower");
        program.name = name.unwrap_or(program.name);
        let (written, report) = code::write_so(&mut program, &codegen, &so, path)?;
        (program, written, report, None)
    };
    clock.laps.extend([("plan", report.plan), ("codegen", report.codegen), ("link", report.link)]);
    Ok(Compiled {
        operators,
        kernels: program.kernels.len(),
        weights_bytes: report.weights_bytes,
        arena_bytes: report.arena_bytes,
        file_bytes: written.file_bytes,
        symbol: written.symbol,
        timings: clock.laps,
        gpu,
        // Without records there is nothing to depart from.
        warnings: options.tuned.as_ref().map(|r| not_as_tuned(r, &program.decisions)).unwrap_or_default(),
    })
}

/// Layers that are computed otherwise than was measured to be the fastest.
fn not_as_tuned(records: &Records, decisions: &[Decision]) -> Vec<Diag> {
    let unfit = |d: &Decision| {
        let u = d.unfit.as_ref()?;
        Some(format!("{}: the tuned '{}' is not used: {}", d.signature, u.strategy, u.why))
    };
    let mut messages: BTreeSet<String> = decisions.iter().filter_map(unfit).collect();
    let kinds: BTreeSet<&str> = decisions.iter().map(|d| d.signature.as_str()).collect();
    let known: BTreeSet<&str> = records.layers.iter().map(|r| r.signature.as_str()).collect();
    let unknown = kinds.difference(&known).count();
    if unknown > 0 {
        messages.insert(format!("{unknown} of {} kinds of convolutions were not tuned", kinds.len()));
    }
    let diag = |m| Diag::new("compile.tuned", m).note("the cost model chooses there; inspect --table shows what");
    messages.into_iter().map(diag).collect()
}

/// The program for the GPU, and the one for the CPU that is to stand in.
fn lower_for_gpu(graph: Graph, options: &CompileOptions) -> Result<(Program, Option<Program>), CompileError> {
    let cpu = match options.cpu_fallback {
        true => {
            let cpu = CompileOptions { gpu: None, ..options.clone() };
            Some(lower_owned(graph.clone(), &cpu.lowering()).map_err(CompileError)?)
        }
        false => None,
    };
    Ok((lower_owned(graph, &options.lowering()).map_err(CompileError)?, cpu))
}

/// What the artefact says of itself, in json: the work of one run, and how it was compiled.
fn metadata(graph: &Graph, options: &CompileOptions) -> String {
    let (flops, level) = (total_flops(graph), options.level.to_string());
    let mut all = match options.gpu {
        None => json!({ "flops": flops, "level": level, "cpu": options.cpu }),
        Some(gpu) => {
            let cpu = options.cpu_fallback.then_some(&options.cpu);
            json!({
                "flops": flops, "level": level, "target": gpu.sm.name(), "precision": gpu.precision.name(), "cpu_fallback": cpu,
            })
        }
    };
    if let Some(records) = &options.tuned {
        all["tuned"] = json!(**records);
    }
    all.to_string()
}

/// Arithmetic operations of one run of the graph as it is; `None` while dimensions are open.
pub fn total_flops(graph: &Graph) -> Option<i64> {
    graph.ids().fold(Dim::ZERO, |sum, id| &sum + &graph.flops(id)).as_const()
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|s| s.to_string_lossy().into_owned())
}

impl CompileOptions {
    pub fn codegen(&self, metadata: String) -> code::CompileOptions {
        code::CompileOptions { cpu: self.cpu.clone(), metadata, ..code::CompileOptions::default() }
    }

    /// The passes of the level, and `approximate` if it is asked for.
    pub fn passes(&self) -> Vec<Pass> {
        match self.approximate {
            None => pipeline(self.level).to_vec(),
            Some(_) => approximate_pipeline(self.level),
        }
    }

    /// Leave for the approximate rules, which measure code that is made as these options say.
    pub fn approximation(&self) -> Option<Approximation> {
        let tolerance = self.approximate?;
        // Times are those of this machine's CPU.
        let exact = CompileOptions { approximate: None, gpu: None, ..self.clone() };
        Some(Approximation::new(Options { tolerance, ..Options::default() }, Stopwatch::new(exact)))
    }

    /// Machine-code leaves are an optimisation: level 0 does without, and keeps every intermediate value row-major.
    pub fn lowering(&self) -> LowerOptions {
        if let Some(gpu) = self.gpu {
            return LowerOptions::for_gpu(gpu);
        }
        if self.level == OptLevel::O0 {
            return LowerOptions::default();
        }
        let mut options = LowerOptions::for_cpu(&self.cpu);
        options.winograd = self.level == OptLevel::O2 && self.numerics == Numerics::Fast;
        options.compact = matches!(self.level, OptLevel::O2 | OptLevel::Os) && self.numerics == Numerics::Fast;
        if let Some(caches) = self.caches {
            options.machine.caches = caches;
        }
        if let Some(records) = &self.tuned {
            options.tuned = Arc::new(records.tuned());
        }
        options
    }
}

struct Clock {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn new() -> Clock {
        Clock { last: Instant::now(), laps: vec![] }
    }

    fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.last.elapsed()));
        self.last = Instant::now();
    }
}
