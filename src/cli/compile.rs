//! `lehr compile`: a library, or any stage on the way to it.

use super::args::{CompileArgs, Emit, Linker};
use super::progress::Progress;
use super::{CliResult, Failure, say, warn};
use crate::explain::units::{ms, size};
use crate::tune::{Records, tune_model};
use crate::{
    CompileError, CompileOptions, Compiled, PtxFiles, PtxPaths, compile_ptx, compile_so, load, lower, optimize_with,
    write_ptx,
};
use lehr_codegen::artefact;
use lehr_codegen::compile::{self as code, GpuReport};
use lehr_codegen::program::{BufferId, Program};
use lehr_ir::graph::Graph;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn run(args: &CompileArgs) -> CliResult {
    check_args(args)?;
    let started = Instant::now();
    let progress = Progress::start(format!("compiling {}", args.model.model));
    let loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let mut options = args.device.apply(args.code.options()?, &args.code)?;
    options.prefix = args.prefix.clone();
    options.linker = match args.linker {
        Linker::Builtin => artefact::Linker::Builtin,
        Linker::Cc => artefact::Linker::Cc("cc".into()),
    };
    let mut tuned = None;
    let codegen = options.codegen("{}".into());
    let text = match args.emit {
        Emit::So if let Some(gpu) = options.gpu.filter(|_| !is_so(args)) => {
            let (program, module) = compile_ptx(loaded.graph, &options, gpu)?;
            if args.output.as_os_str() != "-" {
                let files = write_ptx(&program, &module, &args.output).map_err(|e| Failure::usage(e.to_string()))?;
                drop(progress);
                return if args.quiet { Ok(()) } else { say(ptx_summary(&args.output, &files, started.elapsed())) };
            }
            module.text
        }
        Emit::So => {
            let import = started.elapsed();
            if args.tune {
                let records = tune_model(loaded.graph.clone(), &options, args.tune_seconds)?;
                tuned = Some(tune_summary(&records));
                options.tuned = Some(Arc::new(records));
            }
            let mut done = compile_so(loaded.graph, &options, &args.output)?;
            done.timings.insert(0, ("import", import));
            if let Some(header) = &args.header {
                write_header(&args.output, header)?;
            }
            drop(progress);
            warn(&done.warnings);
            if !args.quiet {
                tuned.map_or(Ok(()), say)?;
                say(summary(&args.output, &done, started.elapsed().as_secs_f64()))?;
                if let Some(gpu) = &done.gpu {
                    say(gpu_summary(gpu, &options))?;
                }
            }
            if args.timings {
                for (stage, time) in &done.timings {
                    say(format!("  {stage:<12} {:8.3} s", time.as_secs_f64()))?;
                }
            }
            return Ok(());
        }
        Emit::Ir => {
            lehr_ir::text::print(&optimize_with(loaded.graph, &options)?.0, &lehr_ir::text::PrintOptions::default())
        }
        Emit::Kernels => kernels(&lower(loaded.graph, &options)?),
        Emit::Clif => listing(loaded.graph, &options)?.0,
        Emit::Asm => listing(loaded.graph, &options)?.1,
        Emit::Obj => {
            let mut program = lower(loaded.graph, &options)?;
            let (object, _, _) = code::object(&mut program, &codegen).map_err(CompileError::from)?;
            return write(&args.output, &object);
        }
    };
    drop(progress);
    if args.output.as_os_str() == "-" {
        return say(text.trim_end());
    }
    write(&args.output, text.as_bytes())
}

fn listing(graph: Graph, options: &CompileOptions) -> Result<(String, String), CompileError> {
    Ok(code::listing(&mut lower(graph, options)?, &options.codegen("{}".into()))?)
}

/// Every kernel, then what their leaves are and the steps of a run, with the buffers that they get for `b0`, `b1`, ...
fn kernels(program: &Program) -> String {
    let mut text: String = program.kernels.iter().map(|k| format!("{k}\n")).collect();
    for (k, leaf) in program.leaves.iter().enumerate() {
        text += &format!("; leaf {k}: {}, {} bytes of code\n", leaf.name, leaf.code.len());
    }
    for (k, step) in program.steps.iter().enumerate() {
        let buffer = |b: &BufferId| {
            let name = program.buffers[b.0 as usize].name.as_deref();
            name.map_or_else(|| format!("buffer {}", b.0), str::to_string)
        };
        let args: Vec<String> = step.args.iter().map(buffer).collect();
        text += &format!("; step {k}: {} ({})\n", program.kernels[step.kernel].name, args.join(", "));
    }
    text
}

/// Whether a library is written. With --target, the file's name says so.
fn is_so(args: &CompileArgs) -> bool {
    let for_cpu = args.device.gpu.target.is_none();
    args.emit == Emit::So && (for_cpu || args.output.extension().is_some_and(|e| e == "so"))
}

fn is_ptx(output: &Path) -> bool {
    output.as_os_str() == "-" || output.extension().is_some_and(|e| e == "ptx")
}

/// What can be seen to be wrong before the work.
fn check_args(args: &CompileArgs) -> CliResult {
    let is_so = is_so(args);
    if args.device.gpu.target.is_some() && args.emit == Emit::So && !is_so && !is_ptx(&args.output) {
        return Err(Failure::usage(
            "--target writes a library (-o FILE.so) or PTX (-o FILE.ptx, or -o - for the text alone): name one of these",
        ));
    }
    if args.device.cpu_fallback && !is_so {
        return Err(Failure::usage("--cpu-fallback is for libraries: give -o FILE.so"));
    }
    if args.device.gpu.target.is_some() && matches!(args.emit, Emit::Clif | Emit::Asm | Emit::Obj) {
        return Err(Failure::usage("--emit clif, asm and obj are for CPUs; with --target, leave --emit away for PTX"));
    }
    let ignored = [
        ("--header", args.header.is_some()),
        ("--linker", args.linker == Linker::Cc),
        ("--timings", args.timings),
        ("--tune", args.tune),
    ];
    if let Some((flag, _)) = ignored.iter().find(|(_, given)| *given && !is_so) {
        return Err(Failure::usage(format!("{flag} is for libraries: give -o FILE.so, and leave --emit away")));
    }
    if args.output.as_os_str() == "-" && (is_so || args.emit == Emit::Obj) {
        return Err(Failure::usage("a library or object is not written to standard output; give -o FILE"));
    }
    let is_ptx = args.device.gpu.target.is_some() && args.emit == Emit::So && !is_so;
    check_output(&args.output, is_so || is_ptx)?;
    if is_ptx && args.output.as_os_str() != "-" {
        let paths = PtxPaths::of(&args.output);
        check_output(&paths.plan, true)?;
        check_output(&paths.weights, true)?;
        paths.check().map_err(|e| Failure::usage(e.to_string()))?;
    }
    args.header.as_ref().map_or(Ok(()), |header| check_output(header, is_so))
}

/// Whether a file can be written there, before the work. What takes a file's place must not take that of a device or pipe.
pub fn check_output(path: &Path, takes_place: bool) -> CliResult {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    if path.is_dir() {
        return Err(Failure::usage(format!("{}: it is a folder; give the name of a file", path.display())));
    }
    if takes_place && path.exists() && !path.is_file() {
        return Err(Failure::usage(format!("{}: it is no regular file", path.display())));
    }
    match folder.filter(|f| !f.is_dir()) {
        Some(folder) => Err(Failure::usage(format!("{}: there is no folder {}", path.display(), folder.display()))),
        None => Ok(()),
    }
}

pub fn write(path: &Path, bytes: &[u8]) -> CliResult {
    std::fs::write(path, bytes).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// The header describes the library as it was written: it is made from the library's own descriptor.
fn write_header(library: &Path, header: &Path) -> CliResult {
    // dlopen looks for a bare file name in the system's folders.
    let library = std::path::absolute(library).map_err(|e| Failure::usage(e.to_string()))?;
    let artefact = artefact::Artefact::open(&library).map_err(|e| Failure::model(e.to_string()))?;
    write(header, artefact::c_header(&artefact.image(), &artefact::SoOptions::default()).as_bytes())
}

fn summary(path: &Path, done: &Compiled, seconds: f64) -> String {
    format!(
        "{}: {} operators in {} kernels, weights {}, arena {}, file {}, {seconds:.2} s",
        path.display(),
        done.operators,
        done.kernels,
        size(done.weights_bytes),
        size(done.arena_bytes),
        size(done.file_bytes),
    )
}

/// A second line for a library for GPUs.
fn gpu_summary(gpu: &GpuReport, options: &CompileOptions) -> String {
    let (kernels, launches) = (gpu.kernels, gpu.launches);
    let mut text = format!(
        "  PTX {}: {kernels} kernels, {launches} launches; memory of the GPU {}",
        size(gpu.ptx_bytes),
        size(gpu.device_bytes)
    );
    if options.cpu_fallback {
        text += &format!(
            "\n  with code for the CPU; weights that both use {}, stored beside the CPU's packed ones {}",
            size(gpu.shared_bytes),
            size(gpu.own_bytes)
        );
    }
    text
}

fn tune_summary(records: &Records) -> String {
    let (proposed, tuned) = records.total();
    let changed = records.layers.iter().filter(|r| r.strategy != r.proposed).count();
    format!(
        "tuned: {changed} of {} kinds of convolutions are computed otherwise than proposed; all together {} instead of {}",
        records.layers.len(),
        ms(tuned),
        ms(proposed),
    )
}

fn ptx_summary(path: &Path, files: &PtxFiles, time: Duration) -> String {
    format!(
        "{}: {} kernels, {} launches, text {}; {}; {}: {}; arena {}, {:.2} s",
        path.display(),
        files.kernels,
        files.launches,
        size(files.text_bytes as u64),
        files.plan.display(),
        files.weights.display(),
        size(files.weights_bytes),
        size(files.arena_bytes),
        time.as_secs_f64(),
    )
}
