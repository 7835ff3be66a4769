//! From a lowered program to something that runs: memory plan, machine code, artefact.

use crate::artefact::{self, Artefact, ArtefactError, IoSpec, ModelImage, SoOptions, SoReport, WeightBlob};
use crate::clif::{self, Relocation, Sizes, Target};
use crate::plan::plan;
use crate::program::{IoInfo, Program};
use crate::runtime::abi;
use lehr_ir::{DType, Diag};
use std::path::Path;
use std::time::{Duration, Instant};

mod gpu;

pub use gpu::{GpuReport, gpu, write_gpu_so};

/// How a lowered program becomes machine code.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// See [`Target::new`].
    pub cpu: String,
    /// Threads of the compiler, not of the model. The output does not depend on it.
    pub threads: usize,
    /// JSON about the model, stored in the artefact.
    pub metadata: String,
}

impl Default for CompileOptions {
    fn default() -> CompileOptions {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        CompileOptions { cpu: "native".into(), threads, metadata: "{}".into() }
    }
}

/// What compiling took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub plan: Duration,
    pub codegen: Duration,
    /// Making the artefact of code, tables and weights.
    pub link: Duration,
    pub sizes: Sizes,
    pub arena_bytes: u64,
    pub weights_bytes: u64,
}

/// A model that runs in this process.
pub fn jit(program: &mut Program, options: &CompileOptions) -> Result<(Artefact, Report), Diag> {
    let target = Target::new(&options.cpu, Relocation::Fixed)?;
    let mut report = planned(program);
    let start = Instant::now();
    let code = clif::jit(program, &target, options.threads)?;
    report.codegen = start.elapsed();
    report.sizes = code.sizes;
    let start = Instant::now();
    let artefact =
        Artefact::from_jit(image(program, &target, options), code.main, code.owner).map_err(artefact_diag)?;
    report.link = start.elapsed();
    Ok((artefact, report))
}

/// An ELF object that defines [`abi::MAIN_SYMBOL`], and what belongs around it.
pub fn object(program: &mut Program, options: &CompileOptions) -> Result<(Vec<u8>, ModelImage, Report), Diag> {
    let target = Target::new(&options.cpu, Relocation::Pic)?;
    let mut report = planned(program);
    let start = Instant::now();
    let object = clif::object(program, &target, options.threads)?;
    report.codegen = start.elapsed();
    report.sizes = object.sizes;
    Ok((object.bytes, image(program, &target, options), report))
}

/// A shared library at `path`.
pub fn write_so(
    program: &mut Program,
    options: &CompileOptions,
    so: &SoOptions,
    path: &Path,
) -> Result<(SoReport, Report), Diag> {
    let (object, image, mut report) = object(program, options)?;
    let start = Instant::now();
    let written = artefact::write_so(&image, &[object], so, path).map_err(artefact_diag)?;
    report.link = start.elapsed();
    Ok((written, report))
}

/// CLIF of what Cranelift compiles, and assembly of that and the leaves.
pub fn listing(program: &mut Program, options: &CompileOptions) -> Result<(String, String), Diag> {
    let target = Target::new(&options.cpu, Relocation::Pic)?;
    plan(program);
    clif::listing(program, &target, options.threads)
}

fn planned(program: &mut Program) -> Report {
    let start = Instant::now();
    plan(program);
    Report {
        plan: start.elapsed(),
        arena_bytes: program.arena_bytes,
        weights_bytes: program.weights_bytes,
        ..Report::default()
    }
}

/// The model without its code. Weights are shared, not copied.
fn image(program: &Program, target: &Target, options: &CompileOptions) -> ModelImage {
    ModelImage {
        name: program.name.clone(),
        target: target.triple(),
        isa: target.features | program.leaf_features,
        inputs: program.inputs.iter().map(io_spec).collect(),
        outputs: program.outputs.iter().map(io_spec).collect(),
        arena_bytes: program.arena_bytes,
        faults: program.faults.clone(),
        metadata: options.metadata.clone(),
        weights: program.weights.iter().map(|w| WeightBlob { offset: w.offset, data: w.data.clone() }).collect(),
        weights_bytes: program.weights_bytes,
        gpu: None,
        device_bytes: 0,
    }
}

fn io_spec(io: &IoInfo) -> IoSpec {
    let elements: usize = io.dims.iter().product();
    IoSpec {
        name: io.name.clone(),
        dtype: dtype_code(io.dtype),
        dims: io.dims.iter().map(|&d| d as i64).collect(),
        bytes: elements as u64 * io.dtype.size() as u64,
    }
}

/// The artefact's code of an element type that models can have.
pub fn dtype_code(t: DType) -> u32 {
    use abi::dtype;
    match t {
        DType::F64 => dtype::F64,
        DType::F32 => dtype::F32,
        DType::F16 => dtype::F16,
        DType::BF16 => dtype::BF16,
        DType::I8 => dtype::I8,
        DType::I16 => dtype::I16,
        DType::I32 => dtype::I32,
        DType::I64 => dtype::I64,
        DType::U8 => dtype::U8,
        DType::U16 => dtype::U16,
        DType::U32 => dtype::U32,
        DType::U64 => dtype::U64,
        DType::Bool => dtype::BOOL,
        other => unreachable!("{other} is refused before lowering"),
    }
}

fn artefact_diag(error: ArtefactError) -> Diag {
    Diag::new("compile.artefact", error.to_string())
}
