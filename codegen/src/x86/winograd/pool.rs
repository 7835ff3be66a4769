//! Pools of the output's transform: 2x2 windows of stride 2, side by side in a tile, so that what they are made of is not stored.
//!
//! Results come row by row. What has been seen of a window waits in a register while the next row is transformed; the order is that
//! of a pool's leaf, and so are the instructions, for a pool of its own to give the same bits.

use super::super::asm::{Asm, Bin, Mem, Src, VReg};
use super::super::fold::{Fold, fold_into};

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The largest; NaN if there is one.
    Max,
    Mean,
}

/// The windows of a tile of so many rows and columns.
pub(super) struct Windows {
    pub pool: Pool,
    pub rows: usize,
    pub cols: usize,
    /// The first register behind those that the windows may have.
    pub top: VReg,
}

/// Windows side by side, at most: a tile has four columns.
const ACROSS: VReg = 2;

impl Windows {
    /// The first of the windows' registers: this one is free between results.
    pub fn first(&self) -> VReg {
        self.top - ACROSS - 1
    }

    /// Takes the result of a row and column in, and stores at `to` what the window is complete with.
    pub fn take(&self, asm: &mut Asm, (row, col): (usize, usize), result: VReg, to: Mem) {
        let seen = self.top - ACROSS + (col / 2) as VReg;
        let is_first = row % 2 == 0 && col % 2 == 0;
        match self.pool {
            Pool::Max if is_first => asm.copy(seen, result),
            Pool::Max => fold_into(asm, Fold::Largest, seen, result, self.first()),
            // A sum of negative zeros is positive if it starts with zero.
            Pool::Mean if is_first => asm.bin(Bin::Add, seen, result, Src::Const(0)),
            Pool::Mean => asm.bin(Bin::Add, seen, seen, Src::Reg(result)),
        }
        let ends = |at: usize, of: usize| at % 2 == 1 || at + 1 == of;
        if !ends(row, self.rows) || !ends(col, self.cols) {
            return;
        }
        let elements = (row % 2 + 1) * (col % 2 + 1);
        if self.pool == Pool::Mean && elements > 1 {
            // Powers of two: as exact as to divide.
            asm.bin(Bin::Mul, seen, seen, Src::Const((1.0 / elements as f32).to_bits()));
        }
        asm.store(to, seen, None);
    }
}
