//! `lehr inspect` of a compiled library: its interface, its sizes, what it needs, and what would run it here.

use super::args::{Format, InspectArgs};
use super::{CliResult, Failure, refuse_for_library, say};
use crate::explain::units::size;
use crate::runner::dtype_of;
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
        ("--format dot", args.format == Format::Dot),
    ];
    refuse_for_library(&args.model, &args.code, &args.gpu, &others)?;
    let artefact = Artefact::open(Path::new(&args.model.model)).map_err(|e| Failure::usage(e.to_string()))?;
    // One thread: what runs is not a question of their number.
    let runs_on = Session::new(&artefact, 1).map(|session| session.runs_on()).map_err(|e| e.to_string());
    match args.format {
        Format::Json => say(json_text(&artefact, &runs_on)?),
        Format::Text | Format::Dot => say(text(&artefact, &runs_on)),
    }
}

fn text(artefact: &Artefact, runs_on: &Result<String, String>) -> String {
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
    text += &format!("compiled {}\n", artefact.metadata());
    text + &match runs_on {
        Ok(on) => format!("here     it runs on {on}"),
        Err(why) => format!("here     it does not run: {why}"),
    }
}

fn json_text(artefact: &Artefact, runs_on: &Result<String, String>) -> Result<String, Failure> {
    let io = |specs: &[IoSpec]| -> Vec<_> { specs.iter().map(|s| json!({ "name": s.name, "type": ty(s) })).collect() };
    let gpu = artefact.gpu().map(|gpu| {
        let ((cuda, cuda_minor), (ptx, ptx_minor)) = (gpu.driver_version, gpu.ptx_version);
        json!({
            "capability": gpu.capability, "driver_version": format!("{cuda}.{cuda_minor}"), "ptx_version": format!("{ptx}.{ptx_minor}"),
            "kernels": gpu.kernels, "launches": gpu.launches, "ptx_bytes": gpu.ptx_bytes, "weights_bytes": gpu.weights_bytes,
            "arena_bytes": gpu.arena_bytes, "device_bytes": gpu.device_bytes, "cpu_fallback": gpu.cpu_fallback,
        })
    });
    let metadata: serde_json::Value = serde_json::from_str(artefact.metadata()).unwrap_or_default();
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
        "runs_on": runs_on.as_ref().ok(),
        "why_not": runs_on.as_ref().err(),
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
