//! Models for GPUs, as libraries and in this process: PTX with its launches, and code for the CPU if that is to stand in.

use super::{CompileOptions, Report, artefact_diag, io_spec, object, planned};
use crate::artefact::{self, Artefact, GpuImage, ModelImage, SoOptions, SoReport, Upload, WeightBlob};
use crate::clif::{self, Relocation, Target};
use crate::lower::ALIGN;
use crate::program::Program;
use crate::ptx::{self, Gpu};
use lehr_ir::Diag;
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

/// What a library for GPUs holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct GpuReport {
    pub report: Report,
    pub kernels: usize,
    pub launches: usize,
    pub ptx_bytes: u64,
    pub device_bytes: u64,
    /// Weights of the GPU that code for the CPU uses as they are, and those that are stored beside the CPU's.
    pub shared_bytes: u64,
    pub own_bytes: u64,
}

/// A model that runs on a GPU from this process; on the CPU where there is none, if it is given the same model's program for that.
pub fn gpu(
    program: &mut Program,
    gpu: Gpu,
    cpu: Option<&mut Program>,
    options: &CompileOptions,
) -> Result<Artefact, Diag> {
    planned(program);
    let image = gpu_image(program, gpu, options)?;
    let Some(cpu) = cpu else { return Artefact::for_gpu(image).map_err(artefact_diag) };
    let target = Target::new(&options.cpu, Relocation::Fixed)?;
    planned(cpu);
    let code = clif::jit(cpu, &target, options.threads)?;
    let (image, _) = with_fallback(image, super::image(cpu, &target, options))?;
    Artefact::from_jit(image, code.main, code.owner).map_err(artefact_diag)
}

/// A shared library at `path`: the program for the GPU, and the same model's for the CPU, if that is to stand in.
pub fn write_gpu_so(
    program: &mut Program,
    gpu: Gpu,
    cpu: Option<&mut Program>,
    options: &CompileOptions,
    so: &SoOptions,
    path: &Path,
) -> Result<(SoReport, GpuReport), Diag> {
    let mut report = planned(program);
    let start = Instant::now();
    let mut image = gpu_image(program, gpu, options)?;
    report.codegen = start.elapsed();
    let mut objects = vec![];
    let (mut shared_bytes, mut own_bytes) = (0, image.weights_bytes);
    if let Some(cpu) = cpu {
        let (code, cpu_image, cpu_report) = object(cpu, options)?;
        report.codegen += cpu_report.codegen;
        report.plan += cpu_report.plan;
        let cpu_bytes = cpu_image.weights_bytes;
        (image, shared_bytes) = with_fallback(image, cpu_image)?;
        own_bytes = image.weights_bytes - cpu_bytes;
        objects.push(code);
    }
    let start = Instant::now();
    let written = artefact::write_so(&image, &objects, so, path).map_err(artefact_diag)?;
    report.link = start.elapsed();
    report.weights_bytes = image.weights_bytes;
    let (plan, ptx_bytes) = image.gpu.as_ref().map(|g| (&g.plan, g.ptx.len() as u64)).expect("made with one above");
    let (kernels, launches, device_bytes) = (plan.kernels.len(), plan.steps.len(), image.device_bytes);
    Ok((written, GpuReport { report, kernels, launches, ptx_bytes, device_bytes, shared_bytes, own_bytes }))
}

/// The model without code for the CPU. Weights are shared, not copied.
fn gpu_image(program: &Program, gpu: Gpu, options: &CompileOptions) -> Result<ModelImage, Diag> {
    let ptx::Module { text, plan } = ptx::emit(program, gpu);
    let host = Target::new("native", Relocation::Pic)?.triple();
    let whole = Upload { from: 0, to: 0, bytes: program.weights_bytes };
    let mut image = ModelImage {
        name: program.name.clone(),
        target: format!("{} with {} from {host}", gpu.sm.name(), gpu.precision.name()),
        inputs: program.inputs.iter().map(io_spec).collect(),
        outputs: program.outputs.iter().map(io_spec).collect(),
        metadata: options.metadata.clone(),
        weights: program.weights.iter().map(|w| WeightBlob { offset: w.offset, data: w.data.clone() }).collect(),
        weights_bytes: program.weights_bytes,
        ..ModelImage::default()
    };
    let io: u64 = image.inputs.iter().chain(&image.outputs).map(|spec| spec.bytes).sum();
    image.device_bytes = plan.weights_bytes + plan.arena_bytes + io;
    let uploads = if whole.bytes > 0 { vec![whole] } else { vec![] };
    image.gpu = Some(GpuImage { ptx: text, plan, uploads, cpu_fallback: false });
    Ok(image)
}

/// One model of both images; the bytes of weights that are stored once for both. The CPU packs many for its own kernels, and those
/// are stored in both forms.
fn with_fallback(gpu: ModelImage, cpu: ModelImage) -> Result<(ModelImage, u64), Diag> {
    if (&gpu.inputs, &gpu.outputs) != (&cpu.inputs, &cpu.outputs) {
        return Err(Diag::new(
            "compile.artefact",
            "the model for the GPU and the one for the CPU differ in their interface",
        ));
    }
    let mut by_size: HashMap<usize, Vec<&WeightBlob>> = HashMap::new();
    for blob in &cpu.weights {
        by_size.entry(blob.data.len()).or_default().push(blob);
    }
    let (mut weights, mut end, mut shared) = (cpu.weights.clone(), cpu.weights_bytes, 0);
    let mut uploads: Vec<Upload> = vec![];
    for blob in &gpu.weights {
        let bytes = blob.data.len() as u64;
        let same = by_size.get(&blob.data.len()).and_then(|blobs| blobs.iter().find(|b| b.data == blob.data));
        let from = match same {
            Some(same) => {
                shared += bytes;
                same.offset
            }
            None => {
                let offset = end.next_multiple_of(ALIGN);
                weights.push(WeightBlob { offset, data: blob.data.clone() });
                end = offset + bytes;
                offset
            }
        };
        match uploads.last_mut() {
            // The gaps between weights are the same on both sides, so one copy does.
            Some(last) if from >= last.from && from - last.from == blob.offset - last.to => {
                last.bytes = from - last.from + bytes;
            }
            Some(_) | None => uploads.push(Upload { from, to: blob.offset, bytes }),
        }
    }
    let target = format!("{} or for {}", gpu.target, cpu.target);
    let plan = gpu.gpu.map(|g| GpuImage { uploads, cpu_fallback: true, ..g });
    let image = ModelImage { target, weights, weights_bytes: end, gpu: plan, device_bytes: gpu.device_bytes, ..cpu };
    Ok((image, shared))
}
