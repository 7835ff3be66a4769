//! The descriptor and what it points to, as bytes with pointers still to be filled in: by our linker, by `cc`, or in memory for the JIT.

use std::collections::HashMap;
use std::mem::{offset_of, size_of};

use super::image::{GpuImage, IoSpec, ModelImage};
use crate::program::Place;
use crate::ptx::KernelPlan;
use crate::runtime::abi::{
    ABI_VERSION, GpuBuffer, GpuKernel, GpuPlan, GpuStep, GpuUpload, LehrModel, MAGIC, MAIN_SYMBOL, TensorSpec, memory,
};

// Tables of these are written as words.
const _: () = assert!(size_of::<GpuStep>() == 16 && size_of::<GpuBuffer>() == 16 && size_of::<GpuUpload>() == 24);

/// Two blocks of bytes, 8-byte aligned: constants, and data that is constant once its pointers are known.
pub(super) struct Tables {
    pub rodata: Vec<u8>,
    pub relro: Vec<u8>,
    /// In the order of their places in `relro`.
    pub pointers: Vec<Pointer>,
    /// Offset of the descriptor in `relro`.
    pub descriptor: u64,
}

/// A 64-bit address to be written at `relro[at..]`.
pub(super) struct Pointer {
    pub at: u64,
    pub to: To,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    Rodata(u64),
    Relro(u64),
    Symbol(&'static str),
    Weights,
}

const PRODUCER: &str = concat!("lehr ", env!("CARGO_PKG_VERSION"));
/// The descriptor's functions and the symbols that they are, for the CPU and for GPUs.
const FUNCTIONS: [(usize, [&str; 2]); 10] = [
    (offset_of!(LehrModel, workspace_bytes), ["lehr_rt_workspace_bytes"; 2]),
    (offset_of!(LehrModel, open), ["lehr_rt_open", "lehr_gpu_open"]),
    (offset_of!(LehrModel, run), ["lehr_rt_run", "lehr_gpu_run"]),
    (offset_of!(LehrModel, close), ["lehr_rt_close", "lehr_gpu_close"]),
    (offset_of!(LehrModel, last_error), ["lehr_rt_last_error"; 2]),
    (offset_of!(LehrModel, status_text), ["lehr_rt_status_text"; 2]),
    (offset_of!(LehrModel, run_on), ["lehr_rt_run_on", "lehr_gpu_run_on"]),
    (offset_of!(LehrModel, wait), ["lehr_rt_wait", "lehr_gpu_wait"]),
    (offset_of!(LehrModel, runs_on), ["lehr_rt_runs_on", "lehr_gpu_runs_on"]),
    (offset_of!(LehrModel, device), ["lehr_rt_device", "lehr_gpu_device"]),
];

impl Tables {
    /// For an image that was checked.
    pub fn new(image: &ModelImage) -> Tables {
        let mut builder = Builder::default();
        let inputs = builder.specs(&image.inputs);
        let outputs = builder.specs(&image.outputs);
        let faults = builder.faults(&image.faults);

        let at = builder.reserve(size_of::<LehrModel>());
        let name = builder.string(&image.name);
        let producer = builder.string(PRODUCER);
        let target = builder.string(&image.target);
        let metadata = builder.string(&image.metadata);
        let field = |offset: usize| at + offset as u64;
        builder.u64(field(offset_of!(LehrModel, magic)), MAGIC);
        builder.u32(field(offset_of!(LehrModel, abi_version)), ABI_VERSION);
        builder.u32(field(offset_of!(LehrModel, struct_bytes)), size_of::<LehrModel>() as u32);
        builder.u32(field(offset_of!(LehrModel, n_inputs)), image.inputs.len() as u32);
        builder.u32(field(offset_of!(LehrModel, n_outputs)), image.outputs.len() as u32);
        builder.u64(field(offset_of!(LehrModel, arena_bytes)), image.arena_bytes);
        builder.u64(field(offset_of!(LehrModel, weights_bytes)), image.weights_bytes);
        builder.u64(field(offset_of!(LehrModel, isa_required)), image.isa);
        builder.u32(field(offset_of!(LehrModel, n_faults)), image.faults.len() as u32);
        builder.u64(field(offset_of!(LehrModel, metadata_bytes)), escaped(&image.metadata).len() as u64);

        builder.point(field(offset_of!(LehrModel, name)), name);
        builder.point(field(offset_of!(LehrModel, producer)), producer);
        builder.point(field(offset_of!(LehrModel, target)), target);
        builder.point(field(offset_of!(LehrModel, inputs)), inputs);
        builder.point(field(offset_of!(LehrModel, outputs)), outputs);
        builder.point(field(offset_of!(LehrModel, faults)), faults);
        builder.point(field(offset_of!(LehrModel, metadata)), metadata);
        if image.weights_bytes > 0 {
            builder.point(field(offset_of!(LehrModel, weights)), To::Weights);
        }
        for (offset, [cpu, gpu]) in FUNCTIONS {
            builder.point(field(offset), To::Symbol(if image.gpu.is_some() { gpu } else { cpu }));
        }
        if image.has_cpu_code() {
            builder.point(field(offset_of!(LehrModel, main)), To::Symbol(MAIN_SYMBOL));
        }
        if let Some(gpu) = &image.gpu {
            let plan = builder.gpu(gpu);
            builder.point(field(offset_of!(LehrModel, gpu)), plan);
        }
        builder.pointers.sort_by_key(|pointer| pointer.at);
        Tables { rodata: builder.rodata, relro: builder.relro, pointers: builder.pointers, descriptor: at }
    }
}

#[derive(Default)]
struct Builder {
    rodata: Vec<u8>,
    relro: Vec<u8>,
    pointers: Vec<Pointer>,
    strings: HashMap<String, u64>,
}

impl Builder {
    fn reserve(&mut self, bytes: usize) -> u64 {
        let at = self.relro.len();
        self.relro.resize((at + bytes).next_multiple_of(8), 0);
        at as u64
    }

    fn u32(&mut self, at: u64, value: u32) {
        self.relro[at as usize..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, at: u64, value: u64) {
        self.relro[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    fn point(&mut self, at: u64, to: To) {
        self.pointers.push(Pointer { at, to });
    }

    /// A zero-terminated string; equal ones are shared.
    fn string(&mut self, text: &str) -> To {
        if let Some(&at) = self.strings.get(text) {
            return To::Rodata(at);
        }
        let at = self.rodata.len() as u64;
        self.rodata.extend_from_slice(escaped(text).as_bytes());
        self.rodata.push(0);
        self.strings.insert(text.to_owned(), at);
        To::Rodata(at)
    }

    fn specs(&mut self, specs: &[IoSpec]) -> To {
        let base = self.reserve(specs.len() * size_of::<TensorSpec>());
        for (index, spec) in specs.iter().enumerate() {
            let at = base + (index * size_of::<TensorSpec>()) as u64;
            let name = self.string(&spec.name);
            let dims = self.dims(&spec.dims);
            self.point(at + offset_of!(TensorSpec, name) as u64, name);
            self.u32(at + offset_of!(TensorSpec, dtype) as u64, spec.dtype);
            self.u32(at + offset_of!(TensorSpec, rank) as u64, spec.dims.len() as u32);
            self.point(at + offset_of!(TensorSpec, dims) as u64, dims);
            self.u64(at + offset_of!(TensorSpec, bytes) as u64, spec.bytes);
        }
        To::Relro(base)
    }

    fn dims(&mut self, dims: &[i64]) -> To {
        self.words(dims.iter().map(|&dim| dim as u64))
    }

    /// Constants of 64 bits.
    fn words(&mut self, words: impl Iterator<Item = u64>) -> To {
        let aligned = self.rodata.len().next_multiple_of(8);
        self.rodata.resize(aligned, 0);
        self.rodata.extend(words.flat_map(u64::to_le_bytes));
        To::Rodata(aligned as u64)
    }

    fn faults(&mut self, faults: &[String]) -> To {
        let base = self.reserve(faults.len() * 8);
        for (index, fault) in faults.iter().enumerate() {
            let text = self.string(fault);
            self.point(base + 8 * index as u64, text);
        }
        To::Relro(base)
    }

    fn gpu(&mut self, image: &GpuImage) -> To {
        let plan = &image.plan;
        let (major, minor) = plan.gpu.sm.ptx_version();
        let at = self.reserve(size_of::<GpuPlan>());
        let field = |offset: usize| at + offset as u64;
        self.u64(field(offset_of!(GpuPlan, ptx_bytes)), escaped(&image.ptx).len() as u64);
        self.u64(field(offset_of!(GpuPlan, weights_bytes)), plan.weights_bytes);
        self.u64(field(offset_of!(GpuPlan, arena_bytes)), plan.arena_bytes);
        self.u32(field(offset_of!(GpuPlan, capability)), plan.gpu.sm.capability());
        self.u32(field(offset_of!(GpuPlan, ptx_version)), 10 * major + minor);
        self.u32(field(offset_of!(GpuPlan, driver_version)), plan.gpu.sm.driver_version());
        self.u32(field(offset_of!(GpuPlan, n_kernels)), plan.kernels.len() as u32);
        self.u32(field(offset_of!(GpuPlan, n_steps)), plan.steps.len() as u32);
        self.u32(field(offset_of!(GpuPlan, most_args)), image.most_args());
        self.u32(field(offset_of!(GpuPlan, n_uploads)), image.uploads.len() as u32);
        self.u32(field(offset_of!(GpuPlan, n_faults)), plan.faults.len() as u32);

        let ptx = self.string(&image.ptx);
        let kernels = self.gpu_kernels(&plan.kernels);
        let both = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        let mut first = 0;
        let steps: Vec<u64> = plan
            .steps
            .iter()
            .flat_map(|step| {
                let count = step.buffers.len() as u32;
                first += count;
                [both(step.kernel as u32, step.first_fault), both(first - count, count)]
            })
            .collect();
        let buffer = |&index: &usize| match plan.buffers[index].place {
            Place::Weights(at) => [memory::WEIGHTS as u64, at],
            Place::Arena(at) => [memory::ARENA as u64, at],
            Place::Input(at) => [memory::INPUT as u64, at as u64],
            Place::Output(at) => [memory::OUTPUT as u64, at as u64],
        };
        let args: Vec<u64> = plan.steps.iter().flat_map(|step| &step.buffers).flat_map(buffer).collect();
        let uploads: Vec<u64> = image.uploads.iter().flat_map(|u| [u.from, u.to, u.bytes]).collect();
        let steps = self.words(steps.into_iter());
        let args = self.words(args.into_iter());
        let uploads = self.words(uploads.into_iter());
        let faults = self.faults(&plan.faults);
        self.point(field(offset_of!(GpuPlan, ptx)), ptx);
        self.point(field(offset_of!(GpuPlan, kernels)), kernels);
        self.point(field(offset_of!(GpuPlan, steps)), steps);
        self.point(field(offset_of!(GpuPlan, args)), args);
        self.point(field(offset_of!(GpuPlan, uploads)), uploads);
        self.point(field(offset_of!(GpuPlan, faults)), faults);
        To::Relro(at)
    }

    fn gpu_kernels(&mut self, kernels: &[KernelPlan]) -> To {
        let base = self.reserve(kernels.len() * size_of::<GpuKernel>());
        for (index, kernel) in kernels.iter().enumerate() {
            let at = base + (index * size_of::<GpuKernel>()) as u64;
            let name = self.string(&kernel.name);
            self.point(at + offset_of!(GpuKernel, name) as u64, name);
            for (axis, blocks) in kernel.grid.into_iter().enumerate() {
                self.u32(at + (offset_of!(GpuKernel, grid) + 4 * axis) as u64, blocks);
            }
            self.u32(at + offset_of!(GpuKernel, threads) as u64, kernel.threads);
            self.u32(at + offset_of!(GpuKernel, takes_fault) as u64, kernel.has_faults as u32);
        }
        To::Relro(base)
    }
}

/// Names in ONNX files may hold any character; a zero would end a C string.
fn escaped(text: &str) -> String {
    text.replace('\0', "\\0")
}
