//! What both ways of running a model share: its interface, its memory and its weights, without its code.

use bytes::Bytes;

use super::ArtefactError;
use crate::program::Place;
use crate::ptx::{LaunchPlan, Step};
use crate::runtime::abi;

/// A compiled model without its machine code. `weights` are sorted by offset, do not overlap and end at or before
/// `weights_bytes`; gaps read as zero. [`ModelImage::check`] says what does not hold.
#[derive(Clone, Debug, Default)]
pub struct ModelImage {
    /// The model's name as the user knows it; made a C identifier where one is needed.
    pub name: String,
    /// Target triple.
    pub target: String,
    /// Bits of [`abi::isa`] that the code needs.
    pub isa: u64,
    pub inputs: Vec<IoSpec>,
    pub outputs: Vec<IoSpec>,
    /// Bytes of scratch memory, 64-byte aligned.
    pub arena_bytes: u64,
    /// Texts of data-dependent errors; kernels store index + 1.
    pub faults: Vec<String>,
    /// JSON about the model; not interpreted here.
    pub metadata: String,
    pub weights: Vec<WeightBlob>,
    pub weights_bytes: u64,
    /// The model on a GPU. `isa`, `arena_bytes` and `faults` are those of its code for the CPU, if it has any.
    pub gpu: Option<GpuImage>,
    /// Memory of the GPU that an open workspace holds.
    pub device_bytes: u64,
}

/// A model for GPUs.
#[derive(Clone, Debug)]
pub struct GpuImage {
    pub ptx: String,
    pub plan: LaunchPlan,
    /// What the device's weights are made of.
    pub uploads: Vec<Upload>,
    /// Whether the model has code for the CPU, too, which runs where there is no GPU for it.
    pub cpu_fallback: bool,
}

/// A range of [`ModelImage::weights`] and where it goes in the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    pub from: u64,
    pub to: u64,
    pub bytes: u64,
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoSpec {
    pub name: String,
    /// A code of [`abi::dtype`].
    pub dtype: u32,
    pub dims: Vec<i64>,
    pub bytes: u64,
}

/// Constant bytes at an offset of the weights; shared, not copied.
#[derive(Clone, Debug)]
pub struct WeightBlob {
    pub offset: u64,
    pub data: Bytes,
}

impl ModelImage {
    /// Checks what the rest relies on. A violation is a mistake of the compiler that made the image, or a model larger than memory.
    pub fn check(&self) -> Result<(), ArtefactError> {
        for (side, specs) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (index, spec) in specs.iter().enumerate() {
                spec.check().map_err(|why| ArtefactError::new(format!("{side} {index} '{}': {why}", spec.name)))?;
            }
        }
        let limit = i64::MAX as u64;
        if self.arena_bytes > limit || self.weights_bytes > limit {
            return Err(ArtefactError::new("the arena or the weights are larger than the address space"));
        }
        let mut end = 0;
        for blob in &self.weights {
            if blob.offset < end {
                return Err(ArtefactError::new(format!("the weights at {} overlap those before", blob.offset)));
            }
            end = blob.offset.saturating_add(blob.data.len() as u64);
        }
        if end > self.weights_bytes {
            return Err(ArtefactError::new(format!(
                "the weights end at {end}, after their {} bytes",
                self.weights_bytes
            )));
        }
        match &self.gpu {
            Some(gpu) => gpu.check(self),
            None => Ok(()),
        }
    }

    /// Whether [`abi::MAIN_SYMBOL`] is part of the model.
    pub fn has_cpu_code(&self) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.cpu_fallback)
    }
}

impl GpuImage {
    /// The most arguments of a launch, the fault word's two included.
    pub(super) fn most_args(&self) -> u32 {
        let plan = &self.plan;
        let count = |step: &Step| step.buffers.len() + 2 * usize::from(plan.kernels[step.kernel].has_faults);
        plan.steps.iter().map(count).max().unwrap_or(0) as u32
    }

    fn check(&self, image: &ModelImage) -> Result<(), ArtefactError> {
        let plan = &self.plan;
        let wrong = |what: &str| Err(ArtefactError::new(format!("the launch plan is wrong: {what}")));
        let exists = |step: &Step| {
            step.kernel < plan.kernels.len() && step.buffers.iter().all(|&buffer| buffer < plan.buffers.len())
        };
        if !plan.steps.iter().all(exists) {
            return wrong("a launch refers to a kernel or buffer that does not exist");
        }
        let fits = |place: Place, bytes: u64| match place {
            Place::Input(at) => image.inputs.get(at).is_some_and(|spec| bytes <= spec.bytes),
            Place::Output(at) => image.outputs.get(at).is_some_and(|spec| bytes <= spec.bytes),
            Place::Weights(at) => at.checked_add(bytes).is_some_and(|end| end <= plan.weights_bytes),
            Place::Arena(at) => at.checked_add(bytes).is_some_and(|end| end <= plan.arena_bytes),
        };
        if !plan.buffers.iter().all(|buffer| fits(buffer.place, (buffer.len * buffer.dtype.size()) as u64)) {
            return wrong("a buffer lies outside of its memory");
        }
        let within = |start: u64, bytes: u64, all: u64| start.checked_add(bytes).is_some_and(|end| end <= all);
        let inside =
            |u: &Upload| within(u.from, u.bytes, image.weights_bytes) && within(u.to, u.bytes, plan.weights_bytes);
        if !self.uploads.iter().all(inside) {
            return wrong("an upload lies outside of the weights");
        }
        Ok(())
    }
}

impl IoSpec {
    fn check(&self) -> Result<(), String> {
        let Some((_, element)) = abi::dtype_info(self.dtype) else {
            return Err(format!("{} is not a dtype code", self.dtype));
        };
        let mut bytes = element;
        for &dim in &self.dims {
            let dim = u64::try_from(dim).map_err(|_| format!("the dimension {dim} is negative"))?;
            bytes = bytes.checked_mul(dim).ok_or("its size overflows 64 bits")?;
        }
        if bytes != self.bytes {
            return Err(format!("its dims make {bytes} bytes, not {}", self.bytes));
        }
        Ok(())
    }
}
