//! The cost model of products: which tile, and how many blocks share the steps of one.

use super::Size;
use crate::kernel::Tile;
use crate::ptx::{Gpu, Precision, Sm, side_by_side};

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub tile: Tile,
    /// Blocks that share the steps of a tile.
    pub splits: usize,
}

const fn tile(rows: u32, columns: u32, depth: u32, part_rows: u32, part_columns: u32) -> Tile {
    Tile { rows, columns, depth, part_rows, part_columns, tensor: false }
}

const fn tensor(rows: u32, columns: u32, part_rows: u32, part_columns: u32) -> Tile {
    Tile { rows, columns, depth: 16, part_rows, part_columns, tensor: true }
}

/// Steps of a slice where factors have 16 bits: 64 bytes of each row.
const HALVES: u32 = 32;

/// Tiles for fused multiply-adds: large ones load less for each sum, small ones fit small products.
const TILES: [Tile; 8] = [
    tile(128, 128, 8, 8, 8),
    tile(128, 64, 8, 8, 8),
    tile(64, 128, 8, 8, 8),
    tile(64, 64, 16, 8, 4),
    tile(64, 32, 16, 4, 4),
    tile(32, 64, 16, 4, 4),
    tile(32, 32, 16, 4, 4),
    tile(16, 64, 16, 4, 4),
];
/// Tiles for tensor cores.
const TENSOR_TILES: [Tile; 6] = [
    tensor(128, 128, 64, 32),
    tensor(128, 64, 32, 32),
    tensor(64, 128, 32, 32),
    tensor(64, 64, 32, 32),
    tensor(32, 64, 16, 32),
    tensor(16, 64, 16, 16),
];
/// Warps that keep a multiprocessor busy.
const BUSY_WARPS: f64 = 8.0;
/// Cycles from asking for a slice to its arrival that are not hidden, and those of starting and ending a block.
const SLICE_CYCLES: f64 = 60.0;
const BLOCK_CYCLES: f64 = 1500.0;
/// Bytes that a multiprocessor has of global memory and L2 in a cycle.
const BYTES_PER_CYCLE: f64 = 20.0;
const LAUNCH_CYCLES: f64 = 3000.0;

impl Cut {
    /// The cut with the least estimated time.
    ///
    /// A multiprocessor of sm_80 multiplies and adds 64 pairs a cycle with fp32, 512 and 1024 on tensor cores with tf32 and
    /// 16 bits, one of sm_90 twice as many, but by `mma.sync` not on tensor cores; with few warps less. It has as many blocks, one after the other or side by side, as there are blocks for each
    /// multiprocessor, rounded up: that is what makes small tiles and splits win on small products. As many run side by side as
    /// registers and shared memory allow, and hide each other's waiting.
    pub fn choose(gpu: Gpu, size: Size) -> Cut {
        let tiles: &[Tile] = if gpu.precision == Precision::Fp32 { &TILES } else { &TENSOR_TILES };
        let mut best: Option<(f64, Cut)> = None;
        for &tile in tiles {
            let depth = if gpu.precision.factor_type().is_some() { HALVES } else { tile.depth };
            let tile = Tile { depth, ..tile };
            // A block has four slices at least.
            let most = size.depth.div_ceil(4 * tile.depth as usize).clamp(1, 32);
            for splits in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32].into_iter().filter(|&s| s <= most) {
                let cut = Cut { tile, splits: whole_splits(size.depth, splits, tile.depth as usize) };
                let cycles = cut.cycles(gpu, size);
                if best.is_none_or(|(least, _)| cycles < least) {
                    best = Some((cycles, cut));
                }
            }
        }
        best.expect("there are tiles").1
    }

    /// Blocks of threads, those of all splits.
    pub fn blocks(&self, size: Size) -> usize {
        let across = |n: usize, by: u32| n.div_ceil(by as usize);
        across(size.rows, self.tile.rows) * across(size.columns, self.tile.columns) * size.batch * self.splits
    }

    /// Estimated cycles of the whole product.
    pub fn cycles(&self, gpu: Gpu, size: Size) -> f64 {
        let Tile { rows, columns, depth, .. } = self.tile;
        let blocks = self.blocks(size) as f64;
        let slices = (size.depth as f64 / self.splits as f64 / depth as f64).ceil();
        let peak = match (gpu.precision, gpu.sm) {
            (Precision::Fp32, Sm::Sm80) => 64.0,
            (Precision::Fp32, Sm::Sm90) => 128.0,
            (Precision::Tf32, Sm::Sm80) => 512.0,
            (Precision::Tf32, Sm::Sm90) => 640.0,
            (Precision::F16 | Precision::Bf16, Sm::Sm80) => 1024.0,
            (Precision::F16 | Precision::Bf16, Sm::Sm90) => 1280.0,
        };
        // Bytes of an element where it is read: weights have 16 bits then, activations 32.
        let factor = if gpu.precision.factor_type().is_some() { 3.0 } else { 4.0 };
        let sums = (rows * columns * depth) as f64;
        // Loads from shared memory for each step of a part, against what is computed with them.
        let parts = (self.tile.part_rows + self.tile.part_columns) as f64
            / (self.tile.part_rows * self.tile.part_columns) as f64;
        let shared = 1.0 + if self.tile.tensor { 4.0 * parts } else { 0.5 * parts };
        let per_processor = (blocks / gpu.sm.multiprocessors() as f64).ceil();
        let together = per_processor.min(side_by_side(&self.tile, gpu.precision, gpu.sm) as f64);
        let warps = self.tile.threads() as f64 / 32.0 * together;
        let busy = (warps / BUSY_WARPS).min(1.0);
        let arithmetic = sums * shared / (peak * busy);
        let bytes = factor * ((rows + columns) * depth) as f64;
        let slice = arithmetic.max(bytes / BYTES_PER_CYCLE) + SLICE_CYCLES / together;
        let mut cycles = per_processor * (slices * slice + BLOCK_CYCLES / together);
        if self.splits > 1 {
            let partial = (size.batch * size.rows * size.columns) as f64 * 4.0 * (2 * self.splits) as f64;
            cycles += LAUNCH_CYCLES + partial / (BYTES_PER_CYCLE * gpu.sm.multiprocessors() as f64);
        }
        cycles
    }
}

/// As many splits as are not empty when each has whole slices.
fn whole_splits(depth: usize, splits: usize, slice: usize) -> usize {
    let each = depth.div_ceil(splits).next_multiple_of(slice);
    depth.div_ceil(each)
}

#[cfg(test)]
mod tests {
    use super::*;
    const GPU: Gpu = Gpu { sm: Sm::Sm80, precision: Precision::Fp32 };

    #[test]
    fn deep_and_narrow_products_are_split_and_large_ones_are_not() {
        // The last stage of resnet50 at batch 1, and vgg19's second layer.
        let deep = Cut::choose(GPU, Size { batch: 1, rows: 512, columns: 49, depth: 4608 });
        assert!(deep.splits > 1, "{deep:?}");
        let large = Cut::choose(GPU, Size { batch: 1, rows: 64, columns: 50_176, depth: 576 });
        assert_eq!(large.splits, 1, "{large:?}");
        assert!(large.tile.rows * large.tile.columns >= 64 * 64, "{large:?}");
    }

    /// Layers of resnet50, vgg19 and inception_v1 for one image: rows, columns, depth.
    const LAYERS: [[usize; 3]; 19] = [
        [64, 12544, 147],
        [64, 3136, 64],
        [64, 3136, 576],
        [256, 3136, 64],
        [128, 784, 1152],
        [512, 784, 128],
        [256, 196, 2304],
        [1024, 196, 256],
        [512, 49, 4608],
        [2048, 49, 512],
        [64, 50176, 27],
        [64, 50176, 576],
        [128, 12544, 1152],
        [256, 3136, 2304],
        [512, 784, 4608],
        [512, 196, 4608],
        [192, 3136, 576],
        [128, 784, 864],
        [384, 49, 1728],
    ];

    #[test]
    fn layers_for_one_image_have_blocks_for_most_multiprocessors() {
        for sm in Sm::ALL {
            for precision in Precision::ALL {
                for [rows, columns, depth] in LAYERS {
                    let size = Size { batch: 1, rows, columns, depth };
                    let cut = Cut::choose(Gpu { sm, precision }, size);
                    let (blocks, all) = (cut.blocks(size), sm.multiprocessors());
                    let worth = rows * columns * depth >= 1 << 26;
                    assert!(!worth || 10 * blocks >= 6 * all, "{rows}x{columns}x{depth} has {blocks} blocks: {cut:?}");
                }
            }
        }
    }

    #[test]
    fn no_split_is_empty() {
        for (depth, splits, slice) in [(100, 8, 16), (4608, 32, 8), (17, 2, 16), (64, 3, 16)] {
            let n = whole_splits(depth, splits, slice);
            let each = depth.div_ceil(n).next_multiple_of(slice);
            assert!((n - 1) * each < depth && n * each >= depth, "{depth} in {n}");
        }
    }

    #[test]
    fn tiles_fit_their_threads() {
        for t in TILES.iter().chain(&TENSOR_TILES) {
            assert!(t.threads() >= 64 && t.threads() <= 256 && t.threads().is_power_of_two(), "{t:?}");
            assert_eq!((t.rows % t.part_rows, t.columns % t.part_columns), (0, 0), "{t:?}");
        }
    }
}
