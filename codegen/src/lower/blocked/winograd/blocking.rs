//! How a convolution by Winograd's algorithm is cut: bands of tiles, and register tiles of the products.

use super::{Parts, Shape};
use crate::machine::{Machine, OVERHEAD};
use crate::strategy::{ByWinograd, Cut};
use crate::x86::{Isa, Winograd, choose_tile, shapes, split_evenly};

/// Tiles of a band at least, where the image has them: each weight that is read serves so many.
const MIN_TILES: usize = 14;
/// Vectors are loaded and stored twice by each transform, at addresses far apart, which costs as much as so many FMAs a point.
const TRANSFORM: usize = 12;
/// A product of few channels spends as long on starting and storing its accumulators.
const START: usize = 12;
/// Likewise for images that have fewer than that in all bands, where output channels are not enough to share out.
const FEW_TILES: usize = 12;
/// Blocks of output channels that are enough.
const MIN_SHARED: usize = 8;
/// Pixels of a tile of a single block at least: it reads a vector of weights for each.
const MIN_SINGLE: usize = 18;
/// Bands of an image at least, for threads to share out.
const MIN_BANDS: usize = 4;

/// The work of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    pub isa: Isa,
    pub kind: Winograd,
    pub shape: Shape,
    pub images: usize,
    pub tiles_high: usize,
    pub tiles_wide: usize,
}

impl Tiling {
    /// For so many images, rows and columns of output.
    pub fn new(isa: Isa, kind: Winograd, shape: Shape, [images, high, wide]: [usize; 3]) -> Tiling {
        let m = kind.outputs();
        Tiling { isa, kind, shape, images, tiles_high: high.div_ceil(m), tiles_wide: wide.div_ceil(m) }
    }

    fn points(&self) -> usize {
        self.kind.points() * self.kind.points()
    }

    /// Bytes of V for each tile.
    fn per_tile(&self) -> usize {
        4 * self.points() * self.shape.conv_groups * self.shape.in_blocks * self.isa.lanes()
    }

    /// Bytes of the transformed weights.
    pub fn weights(&self) -> usize {
        let Shape { conv_groups, channels, out_blocks, .. } = self.shape;
        let sets = self.kind.sets() * self.kind.sets();
        4 * sets * conv_groups * channels * out_blocks * self.isa.lanes()
    }

    /// Bytes of scratch for the whole image.
    pub fn scratch(&self) -> usize {
        let Shape { conv_groups, in_blocks, out_blocks, .. } = self.shape;
        let tiles = self.tiles_high * self.tiles_wide;
        4 * self.points() * tiles * conv_groups * (in_blocks + out_blocks) * self.isa.lanes()
    }

    /// Predicted.
    pub fn cycles(&self, w: &ByWinograd, machine: &Machine) -> f64 {
        let Shape { conv_groups, channels, in_blocks, out_blocks, .. } = self.shape;
        let parts = |total: usize, most: usize| split_evenly(total as u32, most as u32).into_iter().map(|n| n as usize);
        let fmas = machine.fmas(self.isa);
        let tile = |tile: Cut| {
            let loads = if tile.blocks == 1 { tile.pixels + 1 } else { tile.pixels + tile.blocks };
            (channels + START) as f64 * machine.step(self.isa, tile, loads)
        };
        let band = |rows: usize| {
            let tiles = rows * self.tiles_wide;
            let group =
                |blocks: usize| -> f64 { parts(tiles, w.tile.pixels).map(|pixels| tile(Cut { pixels, blocks })).sum() };
            let products: f64 = parts(out_blocks, w.tile.blocks).map(group).sum();
            let transforms = (TRANSFORM * tiles * (in_blocks + out_blocks)) as f64 / fmas;
            // V comes from beyond the second-level cache for every group of output channels.
            let v = tiles * self.per_tile() / conv_groups;
            let again = if v > machine.caches.l2 * 3 / 4 { v * out_blocks.div_ceil(w.tile.blocks) } else { 0 };
            self.points() as f64 * (products + transforms) + again as f64 / (2.0 * machine.memory)
        };
        let bands = self.bands(w.band);
        let count = bands.total();
        let all: f64 = bands.list().into_iter().map(|rows| band(rows as usize)).sum();
        let work = OVERHEAD * (self.images * conv_groups) as f64 * all;
        // Bands behind the first find the weights in a cache.
        let warm = if self.weights() <= machine.caches.l2 * 3 / 5 { 5.0 } else { 2.0 };
        let again = (count - 1) as f64 / warm;
        machine.together(work, (self.images * self.weights()) as f64 * (1.0 + again))
    }

    /// Whether there are output channels enough for threads to share out.
    fn is_shareable(&self) -> bool {
        self.images * self.shape.conv_groups * self.shape.out_blocks >= MIN_SHARED
    }

    pub fn propose(&self, machine: &Machine) -> ByWinograd {
        let l2 = machine.caches.l2;
        let tiles = self.tiles_high * self.tiles_wide;
        // Weights far larger than the cache are streamed once, for the whole image, unless V would be so too.
        let large = self.weights() >= 4 * l2;
        let small = tiles < MIN_TILES * MIN_BANDS;
        let whole = (large && tiles * self.per_tile() <= 4 * l2) || (small && self.is_shareable());
        // Small weights stay in the cache from band to band, and small bands leave them room.
        let (least, v) = if self.weights() <= l2 * 3 / 5 { (MIN_TILES, l2 / 8) } else { (2 * MIN_TILES, l2 / 2) };
        let rows = least.div_ceil(self.tiles_wide).max(v / (self.per_tile() * self.tiles_wide));
        let band = match (whole, small) {
            (true, _) => None,
            (false, true) => Some(FEW_TILES.div_ceil(self.tiles_wide).min(self.tiles_high.div_ceil(2))),
            (false, false) => Some(rows.min(self.tiles_high.div_ceil(MIN_BANDS))),
        };
        ByWinograd { kind: self.kind, tile: self.tile(band, machine), band }
    }

    /// The rows of tiles, in bands of so many at most; the image is one if there is no band.
    pub(super) fn bands(&self, band: Option<usize>) -> Parts {
        match band {
            Some(rows) => Parts::even(self.tiles_high, rows, self.images),
            None => Parts::of(self.tiles_high, self.tiles_high),
        }
    }

    /// Rows of tiles in the larger bands.
    fn band_rows(&self, band: Option<usize>) -> usize {
        self.bands(band).size
    }

    fn tile(&self, band: Option<usize>, machine: &Machine) -> Cut {
        let tiles = self.band_rows(band) * self.tiles_wide;
        let cut = |pixels: u32, blocks: u32| {
            let largest = |total: usize, most: u32| split_evenly(total as u32, most)[0] as usize;
            Cut { pixels: largest(tiles, pixels), blocks: largest(self.shape.out_blocks, blocks) }
        };
        let tile = choose_tile(self.isa, tiles as u32, self.shape.out_blocks as u32);
        let tile = Cut { pixels: tile.pixels as usize, blocks: tile.blocks as usize };
        let Machine { caches, .. } = machine;
        let m = 4 * self.points() * tiles * self.isa.lanes();
        let single = cut(28, 1);
        let few = self.shape.out_blocks <= 2 || m * tile.blocks > caches.l1 * 21 / 10;
        match (self.isa, tiles * self.per_tile() / self.shape.conv_groups) {
            // V is read for every group: as few as there can be.
            (Isa::Avx512, v) if v > caches.l2 * 3 / 4 => cut(6, 4),
            // M of a single block stays in the first level.
            (Isa::Avx512, _) if few && m <= caches.l1 * 11 / 10 && single.pixels >= MIN_SINGLE => single,
            (Isa::Avx512 | Isa::Avx2, _) => tile,
        }
    }

    /// The strategy, if it can be used for this layer.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, w: ByWinograd) -> Result<ByWinograd, String> {
        let Cut { pixels, blocks } = w.tile;
        let (needed, registers) = (pixels * blocks + blocks + 1, self.isa.registers() as usize);
        if w.kind != self.kind {
            return Err(format!("the layer is computed by {}", self.kind.name()));
        }
        match needed <= registers {
            true => Ok(w),
            false => Err(format!("a tile of {} needs {needed} of {registers} registers", w.tile)),
        }
    }

    /// Strategies that differ from this one in one respect.
    pub fn neighbours(&self, w: ByWinograd, machine: &Machine) -> Vec<ByWinograd> {
        let pixels = self.band_rows(w.band) * self.tiles_wide;
        let mut all = vec![];
        for &(p, b) in shapes(self.isa) {
            let largest = |total: usize, most: u32| split_evenly(total as u32, most)[0] as usize;
            let tile = Cut { pixels: largest(pixels, p), blocks: largest(self.shape.out_blocks, b) };
            all.push(ByWinograd { tile, ..w });
        }
        let mut bands = vec![];
        if self.is_shareable() || w.band.is_none() {
            bands.push(None);
        }
        let most = self.tiles_high.div_ceil(MIN_BANDS);
        let rows = self.band_rows(w.band).min(most);
        bands.extend([rows.div_ceil(4), rows.div_ceil(2), rows, 2 * rows, 4 * rows].map(|r| Some(r.min(most))));
        all.extend(bands.into_iter().map(|band| ByWinograd { tile: self.tile(band, machine), band, ..w }));
        let mut distinct: Vec<ByWinograd> = vec![];
        for other in all {
            if other != w && !distinct.contains(&other) && self.fit(other).is_ok() {
                distinct.push(other);
            }
        }
        distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Caches;

    fn tiling(kind: Winograd, channels: usize, outputs: usize, size: usize) -> Tiling {
        let shape = Shape {
            stride: kind.stride(),
            taps: kind.taps(),
            conv_groups: 1,
            channels,
            in_blocks: channels / 16,
            out_blocks: outputs / 16,
        };
        Tiling::new(Isa::Avx512, kind, shape, [1, size, size])
    }

    fn machine() -> Machine {
        Machine { caches: Caches { l1: 48 << 10, l2: 2 << 20, l3: 32 << 20 }, ..Machine::typical() }
    }

    fn text(t: &Tiling) -> String {
        crate::strategy::Strategy::Winograd(t.propose(&machine())).to_string()
    }

    #[test]
    fn small_weights_go_with_small_bands() {
        assert_eq!(text(&tiling(Winograd::F4x3, 128, 32, 56)), "F(4x4,3x3) tile=14x2 band=1");
        // 2.4 MB of weights are read by every band: as many tiles as have room for them.
        assert_eq!(text(&tiling(Winograd::F4x3, 128, 128, 112)), "F(4x4,3x3) tile=14x2 band=2");
        assert_eq!(text(&tiling(Winograd::F4x3, 512, 512, 28)), "F(4x4,3x3) tile=6x4 band=all");
    }

    #[test]
    fn products_of_a_single_tap_share_weights() {
        let weights = |kind| tiling(kind, 128, 128, 28).weights() / (4 * 128 * 128);
        let kinds = [Winograd::F4x3, Winograd::F4x3By2, Winograd::F2x3By2, Winograd::F4x5By2];
        assert_eq!(kinds.map(weights), [36, 36, 16, 121]);
    }

    #[test]
    fn products_of_one_block_stay_in_the_first_level() {
        assert_eq!(text(&tiling(Winograd::F2x3, 384, 384, 12)), "F(2x2,3x3) tile=18x1 band=all");
        assert_eq!(text(&tiling(Winograd::F2x3, 512, 512, 12)), "F(2x2,3x3) tile=18x1 band=all");
        assert_eq!(text(&tiling(Winograd::F4x3, 64, 192, 14)), "F(4x4,3x3) tile=8x3 band=all");
    }

    #[test]
    fn threads_share_out_rows_where_there_are_few_output_channels() {
        assert_eq!(text(&tiling(Winograd::F2x3, 128, 32, 14)), "F(2x2,3x3) tile=14x2 band=2");
        let batch = Tiling { images: 8, ..tiling(Winograd::F2x3, 128, 32, 14) };
        assert_eq!(text(&batch), "F(2x2,3x3) tile=25x1 band=all");
        let alone = tiling(Winograd::F2x3, 128, 32, 14);
        assert!(alone.neighbours(alone.propose(&machine()), &machine()).iter().all(|w| w.band.is_some()));
    }

    #[test]
    fn what_is_proposed_and_what_is_next_to_it_fits() {
        for kind in Winograd::ALL {
            for (channels, outputs, size) in [(16, 16, 1), (64, 64, 56), (512, 512, 7), (96, 256, 113)] {
                for isa in [Isa::Avx512, Isa::Avx2] {
                    let t = Tiling { isa, ..tiling(kind, channels, outputs, size) };
                    let w = t.propose(&machine());
                    assert_eq!(t.fit(w), Ok(w), "{t:?}");
                    for other in t.neighbours(w, &machine()) {
                        assert!(other != w && t.fit(other).is_ok(), "{t:?}: {other:?}");
                        assert!(t.cycles(&other, &machine()) > 0.0);
                    }
                }
            }
        }
        let t = tiling(Winograd::F4x3, 64, 64, 56);
        let w = t.propose(&machine());
        assert_eq!(t.fit(ByWinograd { kind: Winograd::F2x3, ..w }), Err("the layer is computed by F(4x4,3x3)".into()));
        let large = ByWinograd { tile: Cut { pixels: 28, blocks: 2 }, ..w };
        assert_eq!(t.fit(large), Err("a tile of 28x2 needs 59 of 32 registers".into()));
    }
}
