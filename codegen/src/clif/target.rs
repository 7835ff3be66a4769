//! The instruction set that code is generated for, by the name on the command line.

use crate::runtime::required_isa;
use cranelift::codegen::isa::{Builder, OwnedTargetIsa, TargetIsa};
use cranelift::codegen::settings::{self, Configurable, SetError};
use lehr_ir::Diag;

/// A configured back end and what the lowering asks of it.
#[derive(Clone)]
pub struct Target {
    pub isa: OwnedTargetIsa,
    /// Bits of [`crate::runtime::abi::isa`] that the code may use.
    pub features: u64,
    /// 128-bit vectors of all element types are usable: on x86 from SSE4.1 on, below which Cranelift lacks too much.
    pub simd: bool,
    /// Fused multiply-add is an instruction, not a library call.
    pub fma: bool,
    /// Compares of vectors may be given a vector straight from memory. Cranelift 0.135 folds such a load into cmpps and cmppd without
    /// minding that these need it aligned; AVX's forms do not.
    pub compares_memory: bool,
    /// Rounding to integers is an instruction, not a library call.
    pub round: bool,
}

/// Whether code may be loaded at any address (a library) or is placed in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relocation {
    Pic,
    Fixed,
}

/// The psABI's levels, cumulative. Cranelift's presets of these names leave out AVX itself.
const LEVELS: [(&str, &[&str]); 4] = [
    ("x86-64", &[]),
    ("x86-64-v2", &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"]),
    ("x86-64-v3", &["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"]),
    ("x86-64-v4", &["has_avx512f", "has_avx512dq", "has_avx512vl"]),
];

impl Target {
    /// `cpu` is `native`, `x86-64` (also `x86-64-v1`, `baseline`), `x86-64-v2` to `-v4`, or a preset of Cranelift (`skylake`, `zen3`).
    pub fn new(cpu: &str, relocation: Relocation) -> Result<Target, Diag> {
        let flags = shared_flags(relocation).map_err(|e| internal(&e))?;
        let mut builder = cranelift_native::builder_with_options(cpu == "native").map_err(|e| internal(&e))?;
        if cpu != "native" {
            enable(&mut builder, cpu)?;
        }
        let isa = builder.finish(settings::Flags::new(flags)).map_err(|e| internal(&e))?;
        Ok(Target::of(isa))
    }

    fn of(isa: OwnedTargetIsa) -> Target {
        let on = |name: &str| isa.isa_flags().iter().any(|v| v.name == name && v.as_bool() == Some(true));
        let (x86, features) = (isa.name() == "x64", required_isa(&*isa));
        let (simd, fma) = (!x86 || on("has_sse41") && on("has_ssse3"), !x86 || on("has_avx") && on("has_fma"));
        Target { features, simd, fma, compares_memory: !x86 || on("has_avx"), round: simd, isa }
    }

    pub fn triple(&self) -> String {
        self.isa.triple().to_string()
    }

    pub fn isa(&self) -> &dyn TargetIsa {
        &*self.isa
    }
}

fn enable(builder: &mut Builder, cpu: &str) -> Result<(), Diag> {
    let level = match cpu {
        "baseline" | "x86-64-v1" => "x86-64",
        other => other,
    };
    if let Some(top) = LEVELS.iter().position(|(name, _)| *name == level) {
        for flag in LEVELS[..=top].iter().flat_map(|(_, flags)| *flags) {
            builder.enable(flag).map_err(|_| unknown(cpu))?;
        }
        return Ok(());
    }
    builder.enable(cpu).map_err(|_| unknown(cpu))
}

fn unknown(cpu: &str) -> Diag {
    let levels: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
    Diag::new("compile.cpu", format!("'{cpu}' is not a CPU of this machine's architecture"))
        .note(format!("use native, {} or a name such as skylake, icelake-server, znver3", levels.join(", ")))
}

fn shared_flags(relocation: Relocation) -> Result<settings::Builder, SetError> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed")?;
    flags.set("is_pic", if relocation == Relocation::Pic { "true" } else { "false" })?;
    flags.set("use_colocated_libcalls", "false")?;
    flags.set("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" })?;
    // Frames are small, and nothing unwinds through kernels.
    flags.set("enable_probestack", "false")?;
    flags.set("unwind_info", "false")?;
    Ok(flags)
}

fn internal(error: &dyn std::fmt::Display) -> Diag {
    Diag::new("compile.target", format!("no code can be generated for this machine: {error}"))
}
