//! How a convolution that gathers its channels is cut: tiles of output blocks, by which groups have channels in them, and chunks that
//! threads share out.

use super::{MIN_ITERATIONS, SHARES};
use crate::lower::order::Order;
use crate::machine::{Machine, OVERHEAD};
use crate::strategy::Gathered;
use crate::x86::{GatherGemm, Isa, MAX_MASKS, Segment, shapes, split_evenly};

/// Pixels of a chunk at least. Fewer than of other convolutions' ([`MIN_PIXELS`](super::direct)): the weights that a chunk streams once
/// more are those of groups, a few kilobytes.
const MIN_PIXELS: usize = 48;

/// Whether every block of the result belongs to few enough groups for a leaf.
pub fn fits(order: &Order, groups: usize, isa: Isa) -> bool {
    let grouping = Grouping { order, outputs: order.channels() / groups, lanes: isa.lanes() };
    (0..order.blocks()).all(|b| grouping.groups(b, 1).len() <= MAX_MASKS)
}

/// Which group the channels of a result belong to.
#[derive(Clone, Copy, Debug)]
pub struct Grouping<'o> {
    pub order: &'o Order,
    /// Output channels of a group.
    pub outputs: usize,
    pub lanes: usize,
}

impl Grouping<'_> {
    /// Groups with channels in these blocks, ascending.
    fn groups(&self, first: usize, blocks: usize) -> Vec<usize> {
        let channels = self.order.by_slot();
        let mut groups: Vec<usize> =
            channels[first * self.lanes..][..blocks * self.lanes].iter().flatten().map(|c| c / self.outputs).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The segments of a tile, and the group of each.
    fn segments(&self, first: usize, blocks: usize, inputs: usize) -> Vec<(Segment, usize)> {
        let channels = self.order.by_slot();
        let lanes_of = |block: usize, group: usize| {
            let own = &channels[(first + block) * self.lanes..][..self.lanes];
            let others = own.iter().flatten().any(|c| c / self.outputs != group);
            let bits = (0..self.lanes).filter(|&l| own[l].is_some_and(|c| c / self.outputs == group));
            let mask = bits.fold(0, |mask: u16, l| mask | 1 << l);
            // Lanes without a channel may be written along.
            if mask != 0 && !others { u16::MAX } else { mask }
        };
        let segment = |group: usize| {
            let all: Vec<u16> = (0..blocks).map(|b| lanes_of(b, group)).collect();
            let begin = all.iter().position(|&m| m != 0).unwrap_or(0);
            let end = all.iter().rposition(|&m| m != 0).map_or(begin, |e| e + 1);
            let lanes = all[begin..end].to_vec();
            (Segment { inputs: inputs as u32, first: begin as u32, blocks: (end - begin) as u32, lanes }, group)
        };
        self.groups(first, blocks).into_iter().map(segment).collect()
    }
}

/// Output blocks that a leaf computes together.
pub struct BlockTile {
    pub first: usize,
    pub blocks: usize,
    /// Pixels of a register tile at most.
    pub pixels: usize,
    pub segments: Vec<(Segment, usize)>,
}

/// The work, as tiles see it.
#[derive(Clone, Copy, Debug)]
pub struct Gathering<'o> {
    pub grouping: Grouping<'o>,
    pub isa: Isa,
    pub images: usize,
    /// Rows of an image, and their pixels; the whole plane is one row if it is flat.
    pub rows: usize,
    pub row_pixels: usize,
    pub flat: bool,
    /// Whether the input is in blocks of channels.
    pub is_blocked: bool,
    /// Input channels of a group.
    pub inputs: usize,
    pub taps: usize,
}

impl Gathering<'_> {
    /// What chunks are cut of: rows, or pixels of a flat plane.
    pub fn units(&self) -> usize {
        if self.flat { self.row_pixels } else { self.rows }
    }

    /// An even number of chunks, so that two threads get as much.
    pub fn propose(&self) -> Gathered {
        let plane = self.rows * self.row_pixels;
        let most = (plane / MIN_PIXELS).clamp(1, SHARES);
        // A plane too small for that is still shared by two.
        let chunks = if most == 1 { plane.min(2) } else { most / 2 * 2 };
        Gathered { chunks: chunks.min(self.units()) }
    }

    /// The strategy, if it can be used for this layer.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, g: Gathered) -> Result<Gathered, String> {
        let units = self.units();
        match g.chunks <= units {
            true => Ok(g),
            false => Err(format!("an image has {units} rows or pixels, which are no {} chunks", g.chunks)),
        }
    }

    /// Strategies that differ from this one.
    pub fn neighbours(&self, g: Gathered) -> Vec<Gathered> {
        let enough = (self.images * g.chunks).min(MIN_ITERATIONS);
        let all = [1, 2, 4, 8, 16, 32].map(|chunks| Gathered { chunks }).into_iter();
        all.filter(|o| *o != g && self.images * o.chunks >= enough && self.fit(*o).is_ok()).collect()
    }

    /// Predicted.
    pub fn cycles(&self, g: &Gathered, machine: &Machine) -> f64 {
        let width = self.width(*g);
        let tile = |t: &BlockTile| {
            let segments: Vec<Segment> = t.segments.iter().map(|(s, _)| s.clone()).collect();
            tile_cost(&segments, t.pixels, t.blocks, width, self.taps) / 2.0
        };
        let line: f64 = self.tiles(*g).iter().map(tile).sum();
        let lines = self.images as f64 * (self.rows * self.row_pixels) as f64 / width as f64;
        let weights = 4 * self.inputs * self.taps * self.grouping.order.slots();
        machine.together(OVERHEAD * lines * line, (self.images * weights) as f64)
    }

    /// Pixels side by side: of a row, or of a chunk of a flat plane.
    fn width(&self, g: Gathered) -> usize {
        if self.flat { self.row_pixels.div_ceil(g.chunks) } else { self.row_pixels }
    }

    /// The blocks of the result in tiles of least cost.
    pub fn tiles(&self, g: Gathered) -> Vec<BlockTile> {
        let (grouping, width) = (&self.grouping, self.width(g));
        let blocks = grouping.order.blocks();
        // The cost of the first blocks, and the last tile among them.
        let mut best: Vec<(f64, Option<BlockTile>)> = vec![(0.0, None)];
        for end in 1..=blocks {
            let tiles = shapes(self.isa).iter().filter_map(|&(pixels, most)| {
                let (pixels, most) = (pixels as usize, most as usize);
                let first = end.checked_sub(most)?;
                let segments = grouping.segments(first, most, self.inputs);
                let plain: Vec<Segment> = segments.iter().map(|(s, _)| s.clone()).collect();
                let cost = best[first].0 + tile_cost(&plain, pixels, most, width, self.taps);
                let fits = GatherGemm::masks(&plain) <= MAX_MASKS;
                fits.then_some((cost, Some(BlockTile { first, blocks: most, pixels, segments })))
            });
            let cheapest = tiles.min_by(|a, b| a.0.total_cmp(&b.0)).expect("a tile of one block fits");
            best.push(cheapest);
        }
        let mut tiles = vec![];
        let mut end = blocks;
        while let Some(tile) = best[end].1.take() {
            end = tile.first;
            tiles.push(tile);
        }
        tiles.reverse();
        tiles
    }
}

/// Half cycles for a line: two FMAs a cycle and two loads; latency keeps a step above four cycles. Each step looks up an address,
/// each tile is started and stored.
fn tile_cost(segments: &[Segment], pixels: usize, blocks: usize, width: usize, taps: usize) -> f64 {
    let step = |p: usize, active: usize| (p * active).max(8).max(p + active) + 2;
    let of = |p: usize| {
        let steps: usize = segments.iter().map(|s| taps * s.inputs as usize * step(p, s.blocks as usize)).sum();
        steps + 4 * p * blocks + 20
    };
    split_evenly(width as u32, pixels as u32).into_iter().map(|p| of(p as usize) as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 1x1 kernels with as many outputs as inputs in 4 groups.
    fn check(channels: usize, rows: usize, row_pixels: usize, f: impl Fn(&Gathering)) {
        for isa in [Isa::Avx512, Isa::Avx2] {
            let order = Order::plain(channels, isa.lanes());
            let grouping = Grouping { order: &order, outputs: channels / 4, lanes: isa.lanes() };
            let inputs = channels / 4;
            let flat = rows == 1;
            f(&Gathering { grouping, isa, images: 1, rows, row_pixels, flat, is_blocked: true, inputs, taps: 1 });
        }
    }

    #[test]
    fn what_is_proposed_and_what_is_next_to_it_fits() {
        for (channels, rows, row_pixels) in [(136, 28, 28), (272, 1, 196), (40, 1, 1), (60, 3, 7)] {
            check(channels, rows, row_pixels, |g| {
                let proposed = g.propose();
                assert_eq!(g.fit(proposed), Ok(proposed), "{g:?}");
                for other in g.neighbours(proposed) {
                    assert!(other != proposed && g.fit(other).is_ok(), "{g:?}: {other:?}");
                    assert!(g.cycles(&other, &Machine::typical()) > 0.0);
                }
                let blocks: usize = g.tiles(proposed).iter().map(|t| t.blocks).sum();
                assert_eq!(blocks, g.grouping.order.blocks());
                let far = Gathered { chunks: g.units() + 1 };
                assert!(g.fit(far).unwrap_err().contains("rows or pixels"));
            });
        }
    }

    #[test]
    fn threads_get_as_many_chunks() {
        let chunks = |rows, row_pixels, expected| {
            check(136, rows, row_pixels, |g| assert_eq!(g.propose(), Gathered { chunks: expected }, "{g:?}"));
        };
        chunks(28, 28, 16);
        chunks(1, 196, 4);
        chunks(1, 49, 2);
        chunks(1, 1, 1);
        chunks(1, 30 * 30, 16);
    }

    #[test]
    fn more_channels_and_more_pixels_take_longer() {
        let m = Machine::typical();
        let cost = |channels, pixels| {
            let least = std::cell::Cell::new(f64::MAX);
            check(channels, 1, pixels, |g| least.set(least.get().min(g.cycles(&g.propose(), &m))));
            least.get()
        };
        assert!(cost(136, 784) > 1.8 * cost(136, 392) && cost(272, 784) > 3.0 * cost(136, 784));
    }
}
