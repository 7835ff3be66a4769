//! PTX modules as files: the text, its launch plan in json, and the weights.

use crate::compile::{CompileError, CompileOptions, lower};
use lehr_codegen::plan::plan;
use lehr_codegen::program::{IoInfo, Place, Program};
use lehr_codegen::ptx::{self, Gpu, LaunchPlan, Module};
use lehr_ir::graph::Graph;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Figures of a module that was written.
#[derive(Clone, Debug)]
pub struct PtxFiles {
    pub plan: PathBuf,
    pub weights: PathBuf,
    pub kernels: usize,
    pub launches: usize,
    pub text_bytes: usize,
    pub weights_bytes: u64,
    pub arena_bytes: u64,
}

/// A model's PTX, and the program that it computes.
pub fn compile_ptx(graph: Graph, options: &CompileOptions, gpu: Gpu) -> Result<(Program, Module), CompileError> {
    let options = CompileOptions { gpu: Some(gpu), ..options.clone() };
    let mut program = lower(graph, &options)?;
    if let Some(name) = &options.prefix {
        program.name = name.clone();
    }
    plan(&mut program);
    let module = ptx::emit(&program, gpu);
    Ok((program, module))
}

/// Writes the text to `path`, and beside it the launch plan (`.json`) and the weights (`.weights`).
pub fn write_ptx(program: &Program, module: &Module, path: &Path) -> io::Result<PtxFiles> {
    let (plan, weights) = (path.with_extension("json"), path.with_extension("weights"));
    std::fs::write(path, &module.text)?;
    let text = serde_json::to_string_pretty(&launch_plan(program, &module.plan))?;
    std::fs::write(&plan, text + "\n")?;
    let mut out = BufWriter::new(File::create(&weights)?);
    let mut at = 0u64;
    for w in &program.weights {
        out.write_all(&vec![0; (w.offset - at) as usize])?;
        out.write_all(&w.data)?;
        at = w.offset + w.data.len() as u64;
    }
    out.flush()?;
    Ok(PtxFiles {
        plan,
        weights,
        kernels: module.plan.kernels.len(),
        launches: module.plan.steps.len(),
        text_bytes: module.text.len(),
        weights_bytes: program.weights_bytes,
        arena_bytes: program.arena_bytes,
    })
}

/// What a host needs to run the module: `tests/gpu/README.md` says how.
pub fn launch_plan(program: &Program, plan: &LaunchPlan) -> Value {
    let io = |list: &[IoInfo]| -> Vec<Value> {
        list.iter().map(|i| json!({ "name": i.name, "dtype": i.dtype.to_string(), "dims": i.dims })).collect()
    };
    let kernels: Vec<Value> = plan
        .kernels
        .iter()
        .map(|k| {
            json!({
                "name": k.name, "grid": k.grid, "threads": k.threads, "shared_bytes": k.shared_bytes,
                "takes_fault": k.has_faults, "schedule": k.schedule,
            })
        })
        .collect();
    let buffers: Vec<Value> = plan
        .buffers
        .iter()
        .map(|b| {
            let (memory, at) = match b.place {
                Place::Input(i) => ("input", i as u64),
                Place::Output(i) => ("output", i as u64),
                Place::Weights(at) => ("weights", at),
                Place::Arena(at) => ("arena", at),
            };
            json!({ "memory": memory, "at": at, "dtype": b.dtype.to_string(), "len": b.len, "name": b.name })
        })
        .collect();
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|s| json!({ "kernel": s.kernel, "buffers": s.buffers, "first_fault": s.first_fault }))
        .collect();
    let (major, minor) = plan.gpu.sm.ptx_version();
    json!({
        "model": program.name,
        "target": plan.gpu.sm.name(),
        "precision": plan.gpu.precision.name(),
        "ptx_version": format!("{major}.{minor}"),
        "weights_bytes": plan.weights_bytes,
        "arena_bytes": plan.arena_bytes,
        "inputs": io(&plan.inputs),
        "outputs": io(&plan.outputs),
        "kernels": kernels,
        "buffers": buffers,
        "steps": steps,
        "faults": plan.faults,
    })
}
