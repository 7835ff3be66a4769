//! `lehr inspect` of a compiled library: its interface, its sizes, what it needs, and what would run it here. What is written in it is
//! read without a GPU; only `--open` tries one.

use super::args::{Format, InspectArgs};
use super::{CliResult, Failure, metadata, refuse_for_library, say};
use crate::explain::units::{ms, size};
use crate::runner::dtype_of;
use crate::tune::Records;
use lehr_codegen::artefact::{Artefact, IoSpec, Session};
use lehr_codegen::runtime::abi::isa;
use lehr_ir::TensorType;
use serde_json::json;
use std::path::Path;

pub fn inspect(args: &InspectArgs) -> CliResult {
    let others = [
        ("--after", args.after.is_some()),
        ("--print-changed", args.print_changed),
        ("--stop-after", args.stop_after.is_some()),
        ("--filter", args.filter.is_some()),
        ("--format dot", args.format() == Format::Dot),
        ("--table", args.table),
        ("--measure", args.measure),
    ];
    refuse_for_library(&args.model, &args.code, &args.gpu, &others)?;
    let artefact = Artefact::open(Path::new(&args.model.model)).map_err(|e| Failure::usage(e.to_string()))?;
    let here = Here::of(&artefact, args.open);
    match args.format() {
        Format::Json => say(json_text(&artefact, &here)?),
        Format::Text | Format::Dot => say(text(&artefact, &here)?),
    }
}

/// What would run a library on this machine.
enum Here {
    RunsOn(String),
    DoesNot(String),
    /// Opening it would take a GPU's memory and upload its weights.
    NotTried,
}

impl Here {
    fn of(artefact: &Artefact, open: bool) -> Here {
        if artefact.gpu().is_some() && !open {
            return Here::NotTried;
        }
        // One thread: what runs is not a question of their number.
        match Session::new(artefact, 1) {
            Ok(session) => Here::RunsOn(session.runs_on()),
            Err(why) => Here::DoesNot(why.to_string()),
        }
    }
}

fn text(artefact: &Artefact, here: &Here) -> Result<String, Failure> {
    let mut text = format!("model {} for {}\n", artefact.name(), artefact.target());
    for (side, specs) in [("input", artefact.inputs()), ("output", artefact.outputs())] {
        for spec in specs {
            text += &format!("{side:<8} {}: {}\n", spec.name, ty(spec));
        }
    }
    text += &format!("weights  {}\n", size(artefact.weights_bytes()));
    if let Some(gpu) = artefact.gpu() {
        let ((cuda, cuda_minor), (ptx, ptx_minor)) = (gpu.driver_version, gpu.ptx_version);
        text += &format!(
            "GPU      sm_{} or later, a driver for CUDA {cuda}.{cuda_minor} or later; PTX {ptx}.{ptx_minor}, {}\n",
            gpu.capability,
            size(gpu.ptx_bytes)
        );
        text += &format!(
            "         {} kernels, {} launches a run; memory {} (weights {}, intermediate values {})\n",
            gpu.kernels,
            gpu.launches,
            size(gpu.device_bytes),
            size(gpu.weights_bytes),
            size(gpu.arena_bytes)
        );
    }
    if artefact.gpu().is_none_or(|gpu| gpu.cpu_fallback) {
        text += &format!("CPU      {}; arena {}\n", features(artefact.isa()).join(", "), size(artefact.arena_bytes()));
    }
    let mut metadata = metadata(artefact)?;
    let is_tuned = metadata.as_object_mut().is_some_and(|m| m.remove("tuned").is_some());
    text += &format!("compiled {metadata}\n");
    if is_tuned {
        text += &tuned(&Records::parse(artefact.metadata()).map_err(Failure::model)?);
    }
    text += &match here {
        Here::RunsOn(on) => format!("here     it runs on {on}"),
        Here::DoesNot(why) => format!("here     it does not run: {why}"),
        Here::NotTried => {
            "here     not tried; --open opens it on the GPU, if there is one, and says what runs it".into()
        }
    };
    Ok(text)
}

/// What was measured when compiling, a line for each kind of convolution.
fn tuned(records: &Records) -> String {
    let (proposed, best) = records.total();
    let (cpu, threads) = (&records.cpu, records.threads);
    let mut text = format!(
        "tuned    on {cpu}, {threads} thread: all convolutions {}, {} by the cost model, whose choice is in brackets\n",
        ms(best),
        ms(proposed)
    );
    for r in &records.layers {
        let was = match r.strategy == r.proposed {
            true => String::new(),
            false => format!(" [{}: {}]", r.proposed, ms(r.proposed_ms)),
        };
        text += &format!("  {:>11}  {} x {}: {}{was}\n", ms(r.ms), r.layers, r.signature, r.strategy);
    }
    text
}

fn json_text(artefact: &Artefact, here: &Here) -> Result<String, Failure> {
    let io = |specs: &[IoSpec]| -> Vec<_> { specs.iter().map(|s| json!({ "name": s.name, "type": ty(s) })).collect() };
    let gpu = artefact.gpu().map(|gpu| {
        let ((cuda, cuda_minor), (ptx, ptx_minor)) = (gpu.driver_version, gpu.ptx_version);
        json!({
            "capability": gpu.capability, "driver_version": format!("{cuda}.{cuda_minor}"), "ptx_version": format!("{ptx}.{ptx_minor}"),
            "kernels": gpu.kernels, "launches": gpu.launches, "ptx_bytes": gpu.ptx_bytes, "weights_bytes": gpu.weights_bytes,
            "arena_bytes": gpu.arena_bytes, "device_bytes": gpu.device_bytes, "cpu_fallback": gpu.cpu_fallback,
        })
    });
    let metadata = metadata(artefact)?;
    let (runs_on, why_not) = match here {
        Here::RunsOn(on) => (Some(on), None),
        Here::DoesNot(why) => (None, Some(why)),
        Here::NotTried => (None, None),
    };
    let value = json!({
        "name": artefact.name(),
        "target": artefact.target(),
        "inputs": io(artefact.inputs()),
        "outputs": io(artefact.outputs()),
        "weights_bytes": artefact.weights_bytes(),
        "arena_bytes": artefact.arena_bytes(),
        "cpu_features": features(artefact.isa()),
        "gpu": gpu,
        "compiled": metadata,
        "tried": !matches!(here, Here::NotTried),
        "runs_on": runs_on,
        "why_not": why_not,
    });
    serde_json::to_string_pretty(&value).map_err(|e| Failure::usage(e.to_string()))
}

fn ty(spec: &IoSpec) -> String {
    match dtype_of(spec.dtype) {
        Some(dtype) => TensorType::new(dtype, spec.dims.iter().copied()).to_string(),
        None => format!("dtype {} of {:?}", spec.dtype, spec.dims),
    }
}

/// Instruction sets by name.
fn features(bits: u64) -> Vec<&'static str> {
    let named = isa::NAMES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name);
    named.chain((bits & isa::NEON != 0).then_some("NEON")).collect()
}
