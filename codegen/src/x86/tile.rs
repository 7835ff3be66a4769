//! How a row of pixels and a stack of channel blocks are cut into register tiles.

use super::{Broadcast, Isa};

/// A register tile: pixels x blocks of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub pixels: u32,
    pub blocks: u32,
    /// One register per pixel where there are blocks to share it: an FMA that reads memory costs a load, and cores with two
    /// 512-bit FMA pipes load no more than two vectors a cycle (Zen 5: 14x2 reaches 99 % of the peak so, and 90 % otherwise).
    pub broadcast: Broadcast,
}

/// The largest tiles that reach the FMA peak, best first where the cost is equal.
pub(crate) const fn shapes(isa: Isa) -> &'static [(u32, u32)] {
    match isa {
        Isa::Avx512 => &[(14, 2), (9, 3), (6, 4), (28, 1)],
        Isa::Avx2 => &[(6, 2), (4, 3), (12, 1)],
    }
}

/// `total` as the fewest parts of at most `most`, as equal as can be, larger ones first: 55 by 14 is 14, 14, 14, 13.
pub fn split_evenly(total: u32, most: u32) -> Vec<u32> {
    let parts = total.div_ceil(most.max(1));
    (0..parts).map(|i| total / parts + u32::from(i < total % parts)).collect()
}

/// The tile for rows of this many pixels and this many blocks of output channels. Its `pixels` and `blocks` are the largest
/// parts of [`split_evenly`]; the row's and the stack's other parts are one smaller.
pub fn choose_tile(isa: Isa, pixels_per_row: u32, oc_blocks: u32) -> Tile {
    choose_tile_within(isa, u32::MAX, pixels_per_row, oc_blocks)
}

/// Likewise with at most so many pixels.
pub fn choose_tile_within(isa: Isa, most: u32, pixels_per_row: u32, oc_blocks: u32) -> Tile {
    let largest = |total: u32, most: u32| split_evenly(total.max(1), most).first().copied().unwrap_or(1);
    let shapes = shapes(isa).iter().filter(|(p, _)| *p <= most);
    let tiles = shapes.map(|(p, b)| (largest(pixels_per_row, *p), largest(oc_blocks, *b)));
    let best = tiles.min_by_key(|(p, b)| row_cost(isa, *p, *b, pixels_per_row, oc_blocks));
    let (pixels, blocks) = best.unwrap_or((1, 1));
    let broadcast = if blocks == 1 { Broadcast::PerFma } else { Broadcast::PerPixel };
    Tile { pixels, blocks, broadcast }
}

/// Half cycles of a reduction step over a row: an FMA of 512 bits issues each cycle, two of 256 bits; latency keeps a tile from
/// finishing in under four cycles, and the L2 cache delivers 32 bytes of weights a cycle; loops and stores add a little for each.
fn row_cost(isa: Isa, tile_pixels: u32, tile_blocks: u32, pixels: u32, blocks: u32) -> u32 {
    let (per_fma, per_load) = match isa {
        Isa::Avx512 => (2, 4),
        Isa::Avx2 => (1, 2),
    };
    let of = |p: u32, b: u32| (p * b * per_fma).max(8).max(b * per_load) + 3;
    let columns = split_evenly(blocks, tile_blocks);
    split_evenly(pixels, tile_pixels).iter().map(|p| columns.iter().map(|b| of(*p, *b)).sum::<u32>()).sum()
}
