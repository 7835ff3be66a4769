//! What both ways of running a model share: its interface, its memory and its weights, without its code.

use bytes::Bytes;

/// A compiled model without its machine code. `weights` are sorted by offset, do not overlap and end at or before
/// `weights_bytes`; gaps read as zero. [`ModelImage::check`] says what does not hold.
#[derive(Clone, Debug, Default)]
pub struct ModelImage {
    /// The model's name as the user knows it; made a C identifier where one is needed.
    pub name: String,
    /// Target triple.
    pub target: String,
    /// Bits of [`crate::runtime::abi::isa`] that the code needs.
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
    /// A code of [`crate::runtime::abi::dtype`].
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
