//! What a block of a product takes of a multiprocessor, and so how many run on one side by side.

use super::{Precision, Sm};
use crate::kernel::Tile;

/// Slices of both factors in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Words from step to step beyond the rows of a tile, so that what a warp reads lies in 32 banks; of factors of 16 bits, none.
    pub pad: u32,
    /// Bytes of a slice of the left factor, and of both.
    pub left: u32,
    pub stage: u32,
    /// Slices in flight.
    pub stages: u32,
}

/// Shared memory that a block may declare.
const DECLARED: u32 = 48 << 10;
/// Most slices of f32 in flight.
const STAGES: u32 = 3;

impl Slices {
    pub fn of(tile: &Tile, precision: Precision) -> Slices {
        if precision.factor_type().is_some() {
            let left = 2 * tile.depth * tile.rows;
            return Slices { pad: 0, left, stage: 2 * tile.depth * (tile.rows + tile.columns), stages: 2 };
        }
        let pad = if tile.tensor { 8 } else { 4 };
        let left = 4 * tile.depth * (tile.rows + pad);
        let stage = left + 4 * tile.depth * (tile.columns + pad);
        Slices { pad, left, stage, stages: STAGES.min(DECLARED / stage) }
    }
}

/// Registers of a thread, as ptxas counts them in the kernels of nine networks (tests/gpu/REGISTERS.md): the sums, what is multiplied at a
/// time, and addresses.
fn registers(tile: &Tile, precision: Precision) -> u32 {
    let (rows, columns) = (tile.part_rows, tile.part_columns);
    if !tile.tensor {
        return rows * columns + rows + columns + 44;
    }
    let fragments = rows * columns / 32 + rows / 4 + columns / 4;
    fragments + if precision.factor_type().is_some() { 64 } else { 32 }
}

/// Blocks of a product that a multiprocessor has room for.
pub fn side_by_side(tile: &Tile, precision: Precision, sm: Sm) -> u32 {
    let shared_memory = match sm {
        Sm::Sm80 => 164 << 10,
        Sm::Sm90 => 228 << 10,
    };
    let slices = Slices::of(tile, precision);
    // The system takes a kilobyte of each block's; registers are given by eights.
    let by_memory = shared_memory / (slices.stages * slices.stage + (1 << 10));
    let by_registers = (64 << 10) / (registers(tile, precision).next_multiple_of(8) * tile.threads());
    let by_threads = 2048 / tile.threads();
    by_memory.min(by_registers).min(by_threads).clamp(1, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiprocessor_has_registers_for_two_large_tiles_and_threads_for_many_small_ones() {
        let tile =
            |rows, columns, part| Tile { rows, columns, depth: 8, part_rows: part, part_columns: part, tensor: false };
        assert_eq!(side_by_side(&tile(128, 128, 8), Precision::Fp32, Sm::Sm80), 2);
        assert!(side_by_side(&tile(32, 32, 4), Precision::Fp32, Sm::Sm90) >= 8);
    }
}
