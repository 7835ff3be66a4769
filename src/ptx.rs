//! PTX modules as files: the text, its launch plan in json, and the weights. Each is written under another name first, and takes its
//! place when all are there; a plan or weights that lehr did not write stay.

use crate::compile::{CompileError, CompileOptions, lower};
use lehr_codegen::plan::plan;
use lehr_codegen::program::{IoInfo, Place, Program};
use lehr_codegen::ptx::{self, Gpu, LaunchPlan, Module};
use lehr_ir::graph::Graph;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
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

/// What a plan of ours says that it was written by, up to the version.
const PRODUCER: &str = "lehr ";

/// Where a module's files are: only the first has a name that the user gave.
#[derive(Clone, Debug)]
pub struct PtxPaths {
    pub text: PathBuf,
    pub plan: PathBuf,
    pub weights: PathBuf,
}

impl PtxPaths {
    pub fn of(text: &Path) -> PtxPaths {
        PtxPaths {
            text: text.to_path_buf(),
            plan: text.with_extension("json"),
            weights: text.with_extension("weights"),
        }
    }

    /// Whether the plan and the weights may be written: nothing else has their names.
    ///
    /// # Errors
    /// A file that is no plan of lehr's, or weights without such a plan, each by name.
    pub fn check(&self) -> io::Result<()> {
        let foreign = |path: &Path, what: &str| {
            let advice = "it would be overwritten; move it, or give another -o FILE.ptx";
            io::Error::new(ErrorKind::AlreadyExists, format!("{}: {what}; {advice}", path.display()))
        };
        let plan = match std::fs::read_to_string(&self.plan) {
            Ok(text) => Some(text),
            // Text that is none is no plan either.
            Err(e) if e.kind() == ErrorKind::InvalidData => Some(String::new()),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(about(&self.plan, &e)),
        };
        match plan {
            Some(text) if !is_plan(&text) => Err(foreign(&self.plan, "it is no launch plan of lehr's")),
            None if self.weights.try_exists()? => {
                Err(foreign(&self.weights, "there is no launch plan of lehr's beside it"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn is_plan(text: &str) -> bool {
    let plan: Option<Value> = serde_json::from_str(text).ok();
    plan.is_some_and(|p| {
        p["ptx_version"].is_string() && p["producer"].as_str().is_some_and(|s| s.starts_with(PRODUCER))
    })
}

fn about(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
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
///
/// # Errors
/// A file that cannot be written, by name; what [`PtxPaths::check`] finds. No file has changed then, unless one could be written and not
/// renamed.
pub fn write_ptx(program: &Program, module: &Module, path: &Path) -> io::Result<PtxFiles> {
    let paths = PtxPaths::of(path);
    paths.check()?;
    let plan = serde_json::to_string_pretty(&launch_plan(program, &module.plan))?;
    let parts = [
        Part::write(&paths.text, |out| out.write_all(module.text.as_bytes()))?,
        Part::write(&paths.weights, |out| write_weights(program, out))?,
        Part::write(&paths.plan, |out| writeln!(out, "{plan}"))?,
    ];
    parts.into_iter().try_for_each(Part::finish)?;
    Ok(PtxFiles {
        plan: paths.plan,
        weights: paths.weights,
        kernels: module.plan.kernels.len(),
        launches: module.plan.steps.len(),
        text_bytes: module.text.len(),
        weights_bytes: program.weights_bytes,
        arena_bytes: program.arena_bytes,
    })
}

fn write_weights(program: &Program, out: &mut dyn Write) -> io::Result<()> {
    let mut at = 0u64;
    for w in &program.weights {
        out.write_all(&vec![0; (w.offset - at) as usize])?;
        out.write_all(&w.data)?;
        at = w.offset + w.data.len() as u64;
    }
    Ok(())
}

/// A file under its temporary name, in the same folder so that renaming cannot cross file systems.
struct Part<'p> {
    path: &'p Path,
    temporary: PathBuf,
}

impl<'p> Part<'p> {
    fn write(path: &'p Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Part<'p>> {
        let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(format!(".{}.partial", std::process::id()));
        let part = Part { path, temporary: path.with_file_name(name) };
        let write = || -> io::Result<()> {
            let mut out = BufWriter::new(File::create(&part.temporary)?);
            content(&mut out)?;
            out.flush()
        };
        write().map_err(|e| about(path, &e))?;
        Ok(part)
    }

    fn finish(self) -> io::Result<()> {
        std::fs::rename(&self.temporary, self.path).map_err(|e| about(self.path, &e))
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // After a success there is nothing under this name; after a failure nobody can do more about it.
        let _ = std::fs::remove_file(&self.temporary);
    }
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
                "takes_fault": k.has_faults, "group": k.group.name(), "schedule": k.schedule,
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
        "producer": format!("{PRODUCER}{}", env!("CARGO_PKG_VERSION")),
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
