//! What both ways of running a model share: its interface, its memory and its weights, without its code.

use bytes::Bytes;

use super::ArtefactError;
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
