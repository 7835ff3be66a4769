//! A tile of a matrix product: the batch-reduce leaf over one loop, with a right operand that is not packed for the tile.

use super::brgemm::{BatchReduceGemm, Input};
use super::{Isa, LeafError};

/// Where the right operand's vectors lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RightStrides {
    /// From step to step of the reduction, which is one loop.
    pub step: i32,
    /// From block to block. Blocks far apart are streams of their own, which a memory-bound product reads faster.
    pub block: i32,
    /// Whether the lanes of the last block that do not exist must not be read: the operand lies as it is, not packed.
    pub exact: bool,
    /// Whether weights are [compact](super::CompactForm); then the steps' distance is not looked at.
    pub compact: bool,
}

/// A tile of a matrix product whose right operand (the weights) lies by its own strides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatrixTile {
    pub tile: BatchReduceGemm,
    pub right: RightStrides,
}

impl MatrixTile {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let s = &self.tile;
        if s.input != Input::Element || s.reduce.len() != 1 {
            return Err(LeafError::Unsupported("a matrix product that is none"));
        }
        s.emit_with(isa, self.right, &[])
    }
}
