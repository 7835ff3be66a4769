//! A tile of a matrix product: the batch-reduce leaf over one loop, with a right operand that is not packed for the tile.

use super::asm::mem;
use super::brgemm::{ARGS, BatchReduceGemm, Input, Leaf, Tiles};
use super::{Isa, LeafError, slots};
use iced_x86::Register;

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
    /// Whether each step's vectors are stored as well, packed for this tile, at the last argument. One tile only.
    pub packs: bool,
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
        if self.right.packs && (s.tiles != Tiles::Fixed(1) || self.right.compact) {
            return Err(LeafError::Unsupported("packing by several tiles, or from compact weights"));
        }
        s.emit_with(isa, self.right, &[])
    }
}

/// Where vectors are packed.
pub(super) const TARGET: Register = Register::R15;

impl Leaf<'_> {
    /// Loads the address where vectors are packed, behind so many operands and what is prefetched.
    pub(super) fn load_target(&mut self, operands: usize) {
        if self.right.packs {
            let before = operands + usize::from(self.prefetch.is_some());
            self.asm.load64(TARGET, mem(ARGS, slots::OPERANDS + 8 * before as i64));
        }
    }

    /// Stores the vectors of the step that is so many ahead.
    pub(super) fn pack_step(&mut self, ahead: i64) {
        if self.right.packs {
            let (blocks, vector) = (i64::from(self.s.blocks), self.isa.bytes() as i64);
            for n in 0..blocks {
                self.asm.store(mem(TARGET, (ahead * blocks + n) * vector), self.weight(n as u32), None);
            }
        }
    }

    pub(super) fn advance_target(&mut self, steps: i64) {
        if self.right.packs {
            self.asm.add_imm(TARGET, steps * i64::from(self.s.blocks) * self.isa.bytes() as i64);
        }
    }
}
