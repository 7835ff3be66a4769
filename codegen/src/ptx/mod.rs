//! The back end for NVIDIA GPUs: a planned program of kernel IR becomes one PTX module and a launch plan.
//!
//! ```text
//! Program --schedule--> threads of each kernel --emit--> Func (typed PTX) --print--> text
//!         --------------------------------------plan--> launches: kernel, grid, buffers
//! ```
//!
//! Nothing of NVIDIA's is needed for that: the text is assembled by ptxas or by the driver that loads it. `reg`, `func` and `inst` are the
//! typed form; `emit`, `expr`, `index`, `lanes` and `math` lower kernel IR to it; `contract` builds tiled products.

mod contract;
mod copy;
mod emit;
mod expr;
mod func;
mod halves;
mod index;
mod inst;
mod lanes;
mod math;
mod memory;
mod numbering;
mod occupancy;
mod plan;
mod reg;
mod schedule;
mod value;

pub use occupancy::side_by_side;
pub use plan::{BufferPlan, KernelPlan, LaunchPlan, Step};
pub use schedule::{Group, Schedule};

use crate::program::Program;
use lehr_ir::DType;
use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Write};

/// A GPU to generate code for, by the oldest that can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sm {
    /// A100 and later.
    Sm80,
    /// H100 and later.
    Sm90,
}

impl Sm {
    pub const ALL: [Sm; 2] = [Sm::Sm80, Sm::Sm90];

    pub fn name(self) -> &'static str {
        match self {
            Sm::Sm80 => "sm_80",
            Sm::Sm90 => "sm_90",
        }
    }

    /// The compute capability as ten times a version: 80, 90.
    pub fn capability(self) -> u32 {
        match self {
            Sm::Sm80 => 80,
            Sm::Sm90 => 90,
        }
    }

    /// The oldest PTX version that has the target, so that drivers from its time on load the module.
    pub fn ptx_version(self) -> (u32, u32) {
        match self {
            Sm::Sm80 => (7, 1),
            Sm::Sm90 => (7, 8),
        }
    }

    /// The oldest driver that a model needs, by the CUDA version that it is for (1000 * major + 10 * minor): that of the PTX version, and
    /// 11.4 at least, which brought `cuGraphInstantiateWithFlags`.
    pub fn driver_version(self) -> u32 {
        match self {
            Sm::Sm80 => 11040,
            Sm::Sm90 => 11080,
        }
    }

    /// Multiprocessors of the smallest card of its generation that servers have.
    pub fn multiprocessors(self) -> usize {
        match self {
            Sm::Sm80 => 108,
            Sm::Sm90 => 132,
        }
    }
}

impl std::str::FromStr for Sm {
    type Err = String;
    fn from_str(s: &str) -> Result<Sm, String> {
        let known = || Sm::ALL.map(Sm::name).join(", ");
        Sm::ALL.into_iter().find(|t| t.name() == s).ok_or_else(|| format!("'{s}' is no target; there are {}", known()))
    }
}

/// What matrix products of f32 are computed with. Sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Fused multiply-adds of f32.
    #[default]
    Fp32,
    /// Tensor cores, factors rounded to 11 bits.
    Tf32,
    /// Tensor cores, factors rounded to f16.
    F16,
    /// Tensor cores, factors rounded to bf16.
    Bf16,
}

impl Precision {
    pub const ALL: [Precision; 4] = [Precision::Fp32, Precision::Tf32, Precision::F16, Precision::Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }

    /// What factors are rounded to, where they are in memory already.
    pub fn factor_type(self) -> Option<DType> {
        match self {
            Precision::Fp32 | Precision::Tf32 => None,
            Precision::F16 => Some(DType::F16),
            Precision::Bf16 => Some(DType::BF16),
        }
    }

    /// Largest error of one layer's results, relative to the sum of the absolute values of the products.
    pub fn error(self) -> f64 {
        match self {
            Precision::Fp32 => 1e-6,
            Precision::Tf32 => 2f64.powi(-10),
            Precision::F16 => 2f64.powi(-10),
            Precision::Bf16 => 2f64.powi(-7),
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;
    fn from_str(s: &str) -> Result<Precision, String> {
        let known = || Precision::ALL.map(Precision::name).join(", ");
        let found = Precision::ALL.into_iter().find(|p| p.name() == s);
        found.ok_or_else(|| format!("'{s}' is no precision; there are {}", known()))
    }
}

/// What code is generated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gpu {
    pub sm: Sm,
    pub precision: Precision,
}

/// Names are at most so long, without the number in front.
const MAX_NAME: usize = 60;

/// A program as PTX.
pub struct Module {
    pub text: String,
    pub plan: LaunchPlan,
}

/// Emits a program whose buffers have places ([`plan`](crate::plan::plan)).
pub fn emit(program: &Program, gpu: Gpu) -> Module {
    let mut kernels = vec![];
    let mut bodies = String::new();
    let mut tables = HashSet::new();
    for (i, k) in program.kernels.iter().enumerate() {
        let name = format!("k{i}_{}", identifier(&k.name));
        let schedule = Schedule::of(k);
        let mut e = emit::Emit::new(k, name.clone(), schedule, gpu.precision);
        e.f.heading = heading(program, i, &schedule, gpu);
        e.kernel();
        // Writing to a string cannot fail.
        let _ = writeln!(bodies, "\n{}", e.f);
        tables.extend(e.tables);
        kernels.push(KernelPlan {
            name,
            grid: schedule.grid,
            threads: schedule.threads,
            shared_bytes: e.f.shared.iter().map(|a| a.bytes).sum(),
            has_faults: !k.faults.is_empty(),
            group: schedule.group,
            schedule: schedule.describe(gpu),
        });
    }
    let plan = LaunchPlan::new(program, gpu, kernels);
    let mut text = String::new();
    let _ = write_head(&mut text, program, gpu, &plan);
    for name in BTreeSet::from_iter(tables) {
        let values: Vec<String> = math::table(name).iter().map(|v| format!("0x{v:016X}")).collect();
        let _ =
            writeln!(text, "\n.const .align 8 .b64 {name}[{}] = {{\n    {}\n}};", values.len(), values.join(",\n    "));
    }
    text += &bodies;
    Module { text, plan }
}

fn write_head(text: &mut String, program: &Program, gpu: Gpu, plan: &LaunchPlan) -> fmt::Result {
    let (major, minor) = gpu.sm.ptx_version();
    writeln!(
        text,
        "// {}: {} kernels, {} launches a run",
        comment(&program.name),
        plan.kernels.len(),
        plan.steps.len()
    )?;
    writeln!(text, "// weights {} bytes, arena {} bytes", plan.weights_bytes, plan.arena_bytes)?;
    writeln!(text, "//\n// The launches of a run, in order:")?;
    for (i, step) in plan.steps.iter().enumerate() {
        let kernel = &plan.kernels[step.kernel];
        let args: Vec<String> = step.buffers.iter().map(|&b| plan.buffers[b].to_string()).collect();
        let [x, y, z] = kernel.grid;
        writeln!(text, "// {i:>4}  {} <<<{x}x{y}x{z}, {}>>> ({})", kernel.name, kernel.threads, args.join(", "))?;
    }
    writeln!(text, "\n.version {major}.{minor}\n.target {}\n.address_size 64", gpu.sm.name())
}

/// The nodes of every step that runs the kernel, and how it runs.
fn heading(program: &Program, kernel: usize, schedule: &Schedule, gpu: Gpu) -> Vec<String> {
    let mut lines = vec![];
    for step in program.steps.iter().filter(|s| s.kernel == kernel) {
        for o in &step.origins {
            let line = match o.index {
                Some(i) => format!("node {i} '{}' ({})", o.name, o.op),
                None => format!("node '{}' ({})", o.name, o.op),
            };
            let line = comment(&line);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.push(schedule.describe(gpu));
    lines
}

/// A text for a line of comment: a name may hold what would end it, and ptxas takes ASCII alone, even there.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c.to_string() } else { c.escape_default().to_string() })
        .collect()
}

/// A name that PTX takes as (the end of) an identifier.
fn identifier(name: &str) -> String {
    let clean = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    clean.take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::comment;

    #[test]
    fn names_neither_end_their_comment_nor_leave_ascii() {
        assert_eq!(comment("g\n.version 1.0"), "g\\n.version 1.0");
        assert_eq!(comment("n\u{e4}me \u{2603}"), "n\\u{e4}me \\u{2603}");
    }
}
