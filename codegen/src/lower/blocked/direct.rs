//! How a direct convolution is cut: register tiles, chunks of input channels, shares of threads.

use super::{MIN_ITERATIONS, SHARES};
use crate::machine::{Machine, OVERHEAD};
use crate::strategy::{Cut, Direct, Share};
use crate::x86::{Broadcast, Isa, choose_tile, shapes, split_evenly};

/// Input channels of a call at least, where there are so many.
const MIN_CHANNELS: usize = 32;
/// What a tile costs more whose weights come from the second-level cache.
const FROM_L2: f64 = 1.08;
/// Pixels of a chunk at least, so that its arithmetic outweighs streaming the weights once more.
const MIN_PIXELS: usize = 112;
/// Pixels of a plane whose chunks may have a prologue: smaller ones give threads groups of output channels, and each group would compute
/// the map again. From here to twice [`MIN_PIXELS`] such groups would be the shares of a convolution by itself; chunks of rows with a
/// prologue are faster than those behind a map (densenet121 by 1 % with one thread, by 2 % with two).
const MIN_PROLOGUE_PLANE: usize = 64;
/// Chunks of a plane where threads share out groups of output channels: those of a group that one thread has are merged, so that chunks
/// cost nothing and only even out what threads have.
const MERGED: usize = 4;
/// Cycles of a prologue for a vector that it loads and stores, beside its operations.
const LOAD_AND_STORE: f64 = 2.0;
/// Weights beyond this many bytes come from memory, however large the caches are: the other layers' have been there since.
const COLD_WEIGHTS: usize = 96 << 10;

/// A convolution as its tiles see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub isa: Isa,
    pub images: usize,
    pub conv_groups: usize,
    /// Rows of an image, and their pixels; the whole plane is one row if it is flat.
    pub rows: usize,
    pub row_pixels: usize,
    pub flat: bool,
    /// Whether the input is in blocks of channels.
    pub is_blocked: bool,
    /// Operations, for each vector, of the map that each chunk of rows computes first.
    pub prologue: Option<usize>,
    /// Whether channels are in order, in the input and in the result.
    pub in_order: bool,
    /// Blocks of input and output channels of a group of the convolution; input channels where they are row-major.
    pub in_blocks: usize,
    pub out_blocks: usize,
    pub taps: usize,
}

impl Shape {
    /// A 1x1 convolution of blocks in planes without borders, and without a prologue yet.
    pub fn pointwise(isa: Isa, images: usize, plane: usize, [in_blocks, out_blocks]: [usize; 2]) -> Shape {
        Shape {
            isa,
            images,
            conv_groups: 1,
            rows: 1,
            row_pixels: plane,
            flat: true,
            is_blocked: true,
            prologue: None,
            in_order: true,
            in_blocks,
            out_blocks,
            taps: 1,
        }
    }

    /// Whether the convolution is to compute the map that it reads, chunk by chunk of rows, if it can: not where it is better shared out
    /// by groups of output channels.
    pub fn takes_prologue(&self, machine: &Machine) -> bool {
        self.plane() >= MIN_PROLOGUE_PLANE && !self.streams_weights(machine)
    }

    /// Whether the weights are better read once, by threads that share out output channels: the second-level cache has no room for
    /// them, and there are few pixels for each.
    fn streams_weights(&self, machine: &Machine) -> bool {
        self.weights() >= machine.caches.l2 && self.plane() <= 4 * MIN_PIXELS
    }

    /// Groups of output channels are no shares: the convolution has groups of its own, or each would compute the prologue.
    fn is_by_rows(&self) -> bool {
        self.conv_groups > 1 || self.prologue.is_some()
    }

    /// Pixels of an image.
    fn plane(&self) -> usize {
        self.rows * self.row_pixels
    }

    /// Bytes of all weights.
    fn weights(&self) -> usize {
        4 * self.channels() * self.taps * self.out_blocks * self.conv_groups * self.isa.lanes()
    }

    /// What rows are cut into: rows, or tiles of a flat plane; and the pixels of each.
    pub fn units(&self, tile: Cut) -> (usize, usize) {
        match self.flat {
            true => {
                let tiles = split_evenly(self.row_pixels as u32, tile.pixels as u32);
                (tiles.len(), tiles[0] as usize)
            }
            false => (self.rows, self.row_pixels),
        }
    }

    fn groups(&self, tile: Cut) -> usize {
        self.out_blocks.div_ceil(tile.blocks)
    }

    pub fn propose(&self, machine: &Machine) -> Direct {
        let widest = choose_tile(self.isa, self.row_pixels as u32, self.out_blocks as u32);
        let mut tile = Cut { pixels: widest.pixels as usize, blocks: widest.blocks as usize };
        let mut share = self.share(tile, machine);
        // Smaller groups of output channels are better for threads than chunks of rows, which all read the weights.
        let smaller = Cut { blocks: self.out_blocks.div_ceil(MIN_ITERATIONS), ..tile };
        let few = self.groups(tile) * self.images < MIN_ITERATIONS;
        if few && matches!(share, Share::Channels(_)) && smaller.blocks > 1 && smaller.blocks < tile.blocks {
            tile = smaller;
            share = self.share(tile, machine);
        }
        let channels = self.chunk(tile, share, machine);
        Direct { tile, channels, share, prefetch: self.weights() > COLD_WEIGHTS }
    }

    /// Predicted.
    pub fn cycles(&self, d: &Direct, machine: &Machine) -> f64 {
        let parts = |total: usize, most: usize| split_evenly(total as u32, most as u32).into_iter().map(|n| n as usize);
        let phases = self.channels().div_ceil(d.channels.max(1));
        let tile = |tile: Cut| {
            let loads = match self.broadcast(tile) {
                Some(Broadcast::PerPixel) => tile.pixels + tile.blocks,
                Some(Broadcast::PerFma) | None => tile.pixels * tile.blocks + tile.blocks,
            };
            let sums = tile.pixels * tile.blocks;
            (self.taps * self.channels()) as f64 * machine.step(self.isa, tile, loads) + (phases * 2 * sums) as f64
        };
        let row = |blocks: usize| -> f64 {
            parts(self.row_pixels, d.tile.pixels).map(|pixels| tile(Cut { pixels, blocks })).sum()
        };
        let rows: f64 = parts(self.out_blocks, d.tile.blocks).map(row).sum();
        let mut work = OVERHEAD * (self.images * self.conv_groups * self.rows) as f64 * rows;
        let of_phase =
            self.weights() / self.channels() * d.channels.min(self.channels()) * d.tile.blocks / self.out_blocks;
        if matches!(d.share, Share::Channels(_)) && of_phase > machine.caches.l1 {
            work *= FROM_L2;
        }
        if let Some(operations) = self.prologue {
            let vectors = (self.images * self.in_blocks * self.plane()) as f64;
            work += vectors * (operations as f64 / machine.fmas(self.isa) + LOAD_AND_STORE);
        }
        let bytes = (self.images * self.weights()) as f64;
        match d.prefetch || self.weights() < COLD_WEIGHTS {
            true => machine.together(work, bytes),
            false => work + bytes / machine.memory,
        }
    }

    /// Input channels of a group of the convolution.
    fn channels(&self) -> usize {
        self.in_blocks * if self.is_blocked { self.isa.lanes() } else { 1 }
    }

    /// Input channels of a call. Where each group of output channels goes over the whole plane, its weights are used by every row: they
    /// take half of the first-level cache then. Elsewhere, in 1x1 kernels, starting again costs more than it brings.
    fn chunk(&self, tile: Cut, share: Share, machine: &Machine) -> usize {
        let all = self.channels();
        if !self.is_blocked || (self.taps == 1 && matches!(share, Share::Rows(_))) {
            return all;
        }
        let lanes = self.isa.lanes();
        let of_channel = 4 * self.taps * tile.blocks * lanes;
        (machine.caches.l1 / 2 / of_channel / lanes * lanes).max(MIN_CHANNELS).min(all)
    }

    fn share(&self, tile: Cut, machine: &Machine) -> Share {
        let (groups, (units, unit_pixels)) = (self.groups(tile), self.units(tile));
        let few = units * unit_pixels < 2 * MIN_PIXELS;
        if !self.is_by_rows() && groups > 1 && (few || self.streams_weights(machine)) {
            return Share::Channels(MERGED.min(units));
        }
        let pixels = if self.weights() < machine.caches.l2 / 4 { MIN_PIXELS / 4 } else { MIN_PIXELS };
        let per_chunk = units.div_ceil(SHARES).max(pixels.div_ceil(unit_pixels)).min(units);
        let chunks = units.div_ceil(per_chunk);
        // An even number, so that two threads get as much.
        let uneven = chunks % 2 == 1 && self.images % 2 == 1 && units > chunks;
        Share::Rows(chunks + usize::from(uneven))
    }

    /// The strategy, if it can be used for this layer.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, d: Direct) -> Result<Direct, String> {
        if self.broadcast(d.tile).is_none() {
            return Err(format!("a tile of {} needs more than the {} registers", d.tile, self.isa.registers()));
        }
        let (Share::Rows(chunks) | Share::Channels(chunks)) = d.share;
        let (units, _) = self.units(d.tile);
        if chunks > units {
            return Err(format!("an image has {units} rows or tiles, which are no {chunks} chunks"));
        }
        match d.share {
            Share::Channels(_) if self.conv_groups > 1 => Err("a convolution of groups is shared out by rows".into()),
            Share::Channels(_) if self.prologue.is_some() => {
                Err("each group of output channels would compute the map before it".into())
            }
            Share::Channels(_) | Share::Rows(_) => Ok(d),
        }
    }

    /// How the tile's elements reach its FMAs: `None` if it has too many registers.
    pub fn broadcast(&self, tile: Cut) -> Option<Broadcast> {
        let fits = |b: Broadcast| registers(tile, b) <= self.isa.registers() as usize;
        let per_pixel = tile.blocks > 1 || self.isa == Isa::Avx2;
        let preferred = if per_pixel { Broadcast::PerPixel } else { Broadcast::PerFma };
        [preferred, Broadcast::PerFma].into_iter().find(|&b| (b == preferred || self.isa == Isa::Avx512) && fits(b))
    }

    /// Strategies that differ from this one in one respect.
    pub fn neighbours(&self, d: Direct) -> Vec<Direct> {
        let lanes = self.isa.lanes();
        let mut all = vec![];
        for &(pixels, blocks) in shapes(self.isa) {
            let largest = |total: usize, most: u32| split_evenly(total as u32, most)[0] as usize;
            let tile = Cut { pixels: largest(self.row_pixels, pixels), blocks: largest(self.out_blocks, blocks) };
            let share = self.with_tile(d.share, tile);
            all.push(Direct { tile, share, ..d });
        }
        if self.is_blocked {
            let whole = self.in_blocks * lanes;
            let chunks = [2, 4, 8, 16, 32].map(|blocks| blocks * lanes);
            all.extend(
                chunks.into_iter().filter(|&c| c < whole).chain([whole]).map(|channels| Direct { channels, ..d }),
            );
        }
        let (units, groups) = (self.units(d.tile).0, self.groups(d.tile));
        let shares = [1, 2, 4, 8, 16, 32].map(Share::Rows).into_iter().chain([1, 2, 4].map(Share::Channels));
        let iterations = |share: &Share| match share {
            Share::Rows(n) => self.images * n,
            Share::Channels(n) => self.images * groups * n,
        };
        let enough = iterations(&d.share).min(MIN_ITERATIONS);
        let shared = |share: &Share| match share {
            Share::Rows(n) => *n <= units && iterations(share) >= enough,
            Share::Channels(n) => !self.is_by_rows() && groups > 1 && *n <= units && iterations(share) >= enough,
        };
        all.extend(shares.filter(shared).map(|share| Direct { share, ..d }));
        all.push(Direct { prefetch: !d.prefetch, ..d });
        all.retain(|other| *other != d && self.fit(*other).is_ok());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The same share with other tiles, which may be fewer.
    fn with_tile(&self, share: Share, tile: Cut) -> Share {
        let (units, _) = self.units(tile);
        match share {
            Share::Rows(n) => Share::Rows(n.min(units)),
            Share::Channels(n) => Share::Channels(n.min(units)),
        }
    }
}

fn registers(tile: Cut, broadcast: Broadcast) -> usize {
    tile.pixels * tile.blocks + tile.blocks + usize::from(broadcast == Broadcast::PerPixel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Caches;

    fn shape(channels: usize, outputs: usize, size: usize, taps: usize) -> Shape {
        Shape {
            isa: Isa::Avx512,
            images: 1,
            conv_groups: 1,
            rows: size,
            row_pixels: size,
            flat: false,
            is_blocked: true,
            prologue: None,
            in_order: true,
            in_blocks: channels / 16,
            out_blocks: outputs / 16,
            taps,
        }
    }

    fn machine(l1: usize, l2: usize) -> Machine {
        Machine { caches: Caches { l1, l2, l3: 32 << 20 }, ..Machine::typical() }
    }

    /// Shapes of real networks and awkward ones.
    fn shapes() -> Vec<Shape> {
        let mut all = vec![];
        for (channels, outputs) in [(16, 16), (64, 256), (512, 512), (2048, 512), (128, 32)] {
            for (size, taps) in [(1, 1), (7, 9), (14, 1), (56, 9), (113, 25)] {
                all.push(shape(channels, outputs, size, taps));
                all.push(Shape { flat: true, rows: 1, row_pixels: size * size, ..shape(channels, outputs, size, 1) });
                all.push(Shape { isa: Isa::Avx2, images: 3, ..shape(channels, outputs, size, taps) });
                all.push(Shape {
                    is_blocked: false,
                    in_blocks: 3,
                    conv_groups: 2,
                    ..shape(channels, outputs, size, taps)
                });
            }
        }
        all
    }

    #[test]
    fn what_is_proposed_and_what_is_next_to_it_fits() {
        for shape in shapes() {
            let d = shape.propose(&Machine::typical());
            assert_eq!(shape.fit(d), Ok(d), "{shape:?}");
            for other in shape.neighbours(d) {
                assert!(other != d && shape.fit(other).is_ok(), "{shape:?}: {other:?}");
                assert!(shape.cycles(&other, &Machine::typical()) > 0.0);
            }
        }
    }

    #[test]
    fn rows_that_share_weights_take_them_from_the_first_level() {
        // 2048 -> 512 at 7x7: 7x3 tiles, 192 bytes of weights a channel.
        let of = |l1: usize| shape(2048, 512, 7, 1).propose(&machine(l1, 2 << 20));
        assert_eq!(
            of(48 << 10),
            Direct { tile: Cut { pixels: 7, blocks: 3 }, channels: 128, share: Share::Channels(4), prefetch: true }
        );
        assert_eq!(of(96 << 10).channels, 256);
        // A chunk of rows goes over the weights a few times only.
        let wide = shape(512, 128, 28, 1).propose(&machine(48 << 10, 2 << 20));
        assert_eq!((wide.channels, matches!(wide.share, Share::Rows(_))), (512, true));
    }

    #[test]
    fn small_groups_of_channels_go_before_chunks_that_read_weights_again() {
        let d = shape(960, 128, 7, 1).propose(&machine(48 << 10, 2 << 20));
        assert_eq!((d.tile, d.share), (Cut { pixels: 7, blocks: 2 }, Share::Channels(4)));
    }

    #[test]
    fn threads_get_as_much() {
        let m = machine(48 << 10, 2 << 20);
        // Five groups of output channels, in quarters; 13 tiles in an even number of chunks.
        let groups = Shape::pointwise(Isa::Avx512, 1, 13 * 13, [32, 10]).propose(&m);
        assert_eq!((groups.tile.blocks, groups.share), (2, Share::Channels(4)));
        let rows = Shape::pointwise(Isa::Avx512, 1, 13 * 13, [32, 2]).propose(&m);
        assert!(matches!(rows.share, Share::Rows(n) if n % 2 == 0), "{rows:?}");
    }

    #[test]
    fn tiles_with_too_many_registers_do_not_fit() {
        let shape = shape(64, 64, 56, 9);
        let with = |pixels, blocks| Direct { tile: Cut { pixels, blocks }, ..shape.propose(&Machine::typical()) };
        assert!(shape.fit(with(14, 2)).is_ok() && shape.fit(with(7, 4)).is_ok());
        assert!(shape.fit(with(8, 4)).is_err());
        assert_eq!(shape.fit(with(16, 2)), Err("a tile of 16x2 needs more than the 32 registers".into()));
        assert!(Shape { isa: Isa::Avx2, ..shape }.fit(with(14, 2)).is_err());
        let chunks = Direct { share: Share::Rows(57), ..with(14, 2) };
        assert_eq!(shape.fit(chunks), Err("an image has 56 rows or tiles, which are no 57 chunks".into()));
    }

    #[test]
    fn a_prologue_has_its_price_and_goes_with_rows() {
        let m = machine(48 << 10, 2 << 20);
        // A layer of densenet121: by itself threads share out its output channels.
        let alone = Shape::pointwise(Isa::Avx512, 1, 14 * 14, [32, 8]);
        assert!(alone.takes_prologue(&m) && matches!(alone.propose(&m).share, Share::Channels(4)));
        let with = Shape { prologue: Some(4), ..alone };
        let d = with.propose(&m);
        assert!(matches!(d.share, Share::Rows(2..)), "{d:?}");
        let (cost, more) = (with.cycles(&d, &m), Shape { prologue: Some(40), ..alone }.cycles(&d, &m));
        assert!(alone.cycles(&d, &m) < cost && cost < more);
        // 6272 vectors, two operations in a cycle.
        assert!((more - cost - 6272.0 * 18.0).abs() < 0.1 * (more - cost), "{cost} {more}");
        assert!(with.fit(alone.propose(&m)).unwrap_err().contains("the map before it"));
        // Weights that the cache has no room for, and planes that are too small to be cut.
        assert!(!Shape::pointwise(Isa::Avx512, 1, 14 * 14, [64, 32]).takes_prologue(&m));
        assert!(!Shape::pointwise(Isa::Avx512, 1, 7 * 7, [32, 8]).takes_prologue(&m));
    }

    #[test]
    fn less_work_and_less_memory_are_cheaper() {
        let m = Machine::typical();
        let cost = |s: &Shape| s.cycles(&s.propose(&m), &m);
        assert!(cost(&shape(64, 64, 56, 9)) > cost(&shape(64, 64, 28, 9)));
        assert!(cost(&shape(512, 512, 7, 9)) > cost(&shape(512, 512, 7, 1)));
        let slow = Machine { memory: 1.0, ..m };
        let s = shape(512, 512, 7, 9);
        assert!(s.cycles(&s.propose(&m), &slow) > cost(&s));
    }
}
