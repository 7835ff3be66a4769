//! How a row of pixels and a stack of channel blocks are cut into register tiles.

use super::Isa;

/// A register tile: pixels x blocks of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub pixels: u32,
    pub blocks: u32,
}

/// The largest tiles that reach the FMA peak, best first where the cost is equal: 14x2 reads least per FMA, 7x4 suits rows of 7
/// and cold weights.
const fn shapes(isa: Isa) -> &'static [Tile] {
    match isa {
        Isa::Avx512 => &[
            Tile { pixels: 14, blocks: 2 },
            Tile { pixels: 7, blocks: 4 },
            Tile { pixels: 9, blocks: 3 },
            Tile { pixels: 28, blocks: 1 },
        ],
        Isa::Avx2 => &[Tile { pixels: 6, blocks: 2 }, Tile { pixels: 4, blocks: 3 }, Tile { pixels: 12, blocks: 1 }],
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
    let (pixels_per_row, oc_blocks) = (pixels_per_row.max(1), oc_blocks.max(1));
    let tile = |shape: &Tile| {
        let largest = |total, most| split_evenly(total, most).first().copied().unwrap_or(1);
        let pixels = largest(pixels_per_row, shape.pixels);
        Tile { pixels, blocks: largest(oc_blocks, shape.blocks) }
    };
    let tiles = shapes(isa).iter().map(tile);
    tiles.min_by_key(|t| row_cost(isa, *t, pixels_per_row, oc_blocks)).unwrap_or(Tile { pixels: 1, blocks: 1 })
}

/// Half cycles of a reduction step over a row: an FMA of 512 bits issues each cycle, two of 256 bits; latency keeps a tile from
/// finishing in under four cycles; loops and stores add a little for each tile.
fn row_cost(isa: Isa, tile: Tile, pixels: u32, blocks: u32) -> u32 {
    let per_fma = match isa {
        Isa::Avx512 => 2,
        Isa::Avx2 => 1,
    };
    let of = |p: u32, b: u32| (p * b * per_fma).max(8) + 3;
    let columns = split_evenly(blocks, tile.blocks);
    split_evenly(pixels, tile.pixels).iter().map(|p| columns.iter().map(|b| of(*p, *b)).sum::<u32>()).sum()
}
