//! Convolutions through tables of their input channels: groups that do not fall into whole blocks, and inputs of which other
//! values' channels lie between.
//!
//! ```text
//! parallel for image, chunk of the plane
//!     for tile of output blocks                       1 to 4 blocks, with the groups that have channels in them
//!         for row in chunk                            or the chunk itself, where planes have no borders
//!             leaf: tiles of pixels, all taps and groups, the epilogue
//! ```
//!
//! A group reads its own channels alone, wherever they are, and writes its own lanes alone, so no arithmetic is spent on zeros
//! between groups but for the lanes of blocks that two share.

use super::conv::bordered;
use super::operands::{Feed, Fused, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::order::Order;
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::x86::{
    BatchReduceGemm, Broadcast, GatherGemm, Init, Input, Isa, LeafError, LeafSpec, MAX_MASKS, Prefetch, Reduce,
    Segment, Tiles, shapes, split_evenly,
};
use lehr_ir::ops::Conv;
use lehr_ir::{DType, Diag, Op};
use std::collections::HashMap;

/// Chunks of an image that threads share out.
const CHUNKS: usize = 16;
/// Pixels of a chunk at least, so that its arithmetic outweighs streaming the weights once more.
const MIN_PIXELS: usize = 48;

/// Whether every block of the result belongs to few enough groups for a leaf.
pub fn fits(order: &Order, groups: usize, isa: Isa) -> bool {
    let grouping = Grouping { order, outputs: order.channels() / groups, lanes: isa.lanes() };
    (0..order.blocks()).all(|b| grouping.groups(b, 1).len() <= MAX_MASKS)
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let Op::Conv(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let x = cx.view(0).expect("the input is in a buffer");
    let x = if x.block().is_none() { bordered(cx, &x, &op.pads) } else { x };
    let conv = Grouped::new(cx, &op, x);
    conv.emit(cx).map_err(|e| leaf_diag(cx, &e))
}

/// Which group the channels of a result belong to.
struct Grouping<'o> {
    order: &'o Order,
    /// Output channels of a group.
    outputs: usize,
    lanes: usize,
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

/// Tiles of output blocks that one leaf computes: alike, one behind the other.
struct Run {
    first: usize,
    /// Blocks of a tile, and how many tiles.
    blocks: usize,
    count: usize,
    segments: Vec<Segment>,
    /// Pixels of a leaf's tile at most.
    pixels: usize,
    /// Where the first tile's weights and table are, and from each tile to the next.
    weights: (usize, usize),
    table: (usize, usize),
}

/// A tile before it is packed.
struct BlockTile {
    first: usize,
    blocks: usize,
    pixels: usize,
    segments: Vec<(Segment, usize)>,
}

struct Grouped {
    x: View,
    y: View,
    xs: Lattice,
    ys: Lattice,
    strides: Vec<i64>,
    pads: Vec<i64>,
    dilations: Vec<i64>,
    kernel: Vec<usize>,
    lanes: usize,
    /// The plane is one row.
    flat: bool,
    row_pixels: usize,
    rows: usize,
    runs: Vec<Run>,
    fused: Fused,
    weights: BufferId,
    table: BufferId,
    bias: Option<BufferId>,
    /// Operations of an image.
    work: usize,
}

struct Params {
    x: Param,
    w: Param,
    y: Param,
    table: Param,
    bias: Option<Param>,
}

impl Grouped {
    fn new(cx: &mut NodeCx, op: &Conv, x: View) -> Grouped {
        let isa = cx.low.isa();
        let lanes = isa.lanes();
        let w = cx.constant(1).expect("the weights are constant");
        let bias = cx.constant(2).map(|b| b.to_f32());
        let y = cx.outputs[0].1.clone();
        let order = y.order().expect("the result is in blocks").clone();
        let (xs, ys) = (x.lattice(), y.lattice());
        let n = op.strides.len();
        let kernel = w.shape()[2..].to_vec();
        let pointwise = kernel.iter().chain(&op.strides).all(|&k| k == 1) && op.pads.iter().all(|&p| p == 0);
        let spatial = &y.shape[2..];
        let mut flat = pointwise && xs.is_flat(&x.shape[2..]) && ys.is_flat(spatial);
        let start = cx.anchor_id().out(0);
        let fused = fused(cx, start, None, &mut |feed| match feed {
            Feed::Same(view) => {
                let lattice = view.lattice();
                flat &= lattice.is_flat(&view.shape[2..]);
                crate::x86::Access::Strided {
                    pixel: bytes(lattice.spatial[view.shape.len() - 3]),
                    block: bytes(lattice.channel),
                }
            }
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let plane: usize = spatial.iter().product();
        let row_pixels = if flat { plane } else { spatial[n - 1] };
        let (outputs, inputs, taps) = (w.shape()[0], w.shape()[1], kernel.iter().product());
        let grouping = Grouping { order: &order, outputs: outputs / op.groups, lanes };
        let chunk = if flat { plane.div_ceil(chunks(plane)) } else { row_pixels };
        let tiles = choose_tiles(&grouping, isa, chunk, inputs, taps);
        let packing = Packing { w: &w.to_f32(), inputs, taps, grouping, x: &x };
        let (runs, weights, table) = packing.pack(tiles);
        let weights_bytes: Vec<u8> = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        let table_bytes: Vec<u8> = table.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bias = bias.map(|b| channel_table(cx, &y.spread(b, 1, 0.0), lanes, 0.0));
        Grouped {
            strides: op.strides.iter().map(|&s| s as i64).collect(),
            pads: op.pads[..n].iter().map(|&p| p as i64).collect(),
            dilations: op.dilations.iter().map(|&d| d as i64).collect(),
            weights: cx.low.add_weights(DType::F32, weights.len(), weights_bytes.into()),
            table: cx.low.add_weights(DType::I32, table.len(), table_bytes.into()),
            rows: plane / row_pixels,
            work: 2 * outputs * inputs * taps * plane,
            kernel,
            lanes,
            flat,
            row_pixels,
            runs,
            fused,
            bias,
            x,
            y,
            xs,
            ys,
        }
    }

    fn leaf(&self, run: &Run, pixels: usize, count: usize) -> LeafSpec {
        let n = self.strides.len();
        let tap =
            |d: usize| Reduce { trip: self.kernel[d] as u32, stride: bytes(self.dilations[d] * self.xs.spatial[d]) };
        let tile = BatchReduceGemm {
            pixels: pixels as u32,
            blocks: run.blocks as u32,
            input: Input::Element,
            broadcast: if run.blocks == 1 { Broadcast::PerFma } else { Broadcast::PerPixel },
            pixel_stride: bytes(self.strides[n - 1] * self.xs.spatial[n - 1]),
            reduce: (0..n).map(tap).collect(),
            init: if self.bias.is_some() { Init::Bias } else { Init::Zero },
            epilogue: self.fused.program.clone(),
            out_pixel_stride: bytes(self.ys.spatial[n - 1]),
            out_block_stride: bytes(self.ys.channel),
            last_lanes: None,
            tiles: Tiles::Fixed(count as u32),
            prefetch: Prefetch::None,
        };
        LeafSpec::Gather(GatherGemm { tile, segments: run.segments.clone() })
    }

    fn emit(&self, cx: &mut NodeCx) -> Result<(), LeafError> {
        let plane = self.rows * self.row_pixels;
        let parts = match self.flat {
            true => Parts::of(plane, plane.div_ceil(chunks(plane))),
            false => Parts::of(self.rows, self.rows.div_ceil(chunks(plane).min(self.rows))),
        };
        // Assembled before the kernel that calls them is open.
        let widths = if self.flat { parts.sizes() } else { vec![(self.row_pixels, 1)] };
        let mut leaves = HashMap::new();
        for (at, run) in self.runs.iter().enumerate() {
            for &(width, _) in &widths {
                for (pixels, count) in Parts::of(width, run.pixels).sizes() {
                    let leaf = cx.low.leaf(&self.leaf(run, pixels, count))?;
                    leaves.insert((at, pixels, count), leaf);
                }
            }
        }
        let (images, chunks) = (self.y.shape[0], parts.total());
        let mut k = cx.kernel("");
        let p = k.parallel((images * chunks) as i64, (self.work / chunks) as i64);
        let params = Params {
            x: k.param_for(self.x.buf, Access::Read),
            w: k.param_for(self.weights, Access::Read),
            y: k.param_for(self.y.buf, Access::Write),
            table: k.param_for(self.table, Access::Read),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
        };
        let at = unflatten(&mut k, p, &[images, chunks]);
        let calls = Calls { conv: self, leaves: &leaves, params: &params, image: at[0].clone() };
        let chunk = at[1].clone();
        let start = |size: usize| match size {
            0 => chunk.clone() * parts.size as i64,
            _ => (chunk.clone() - parts.count as i64) * (parts.size as i64 - 1) + (parts.count * parts.size) as i64,
        };
        let one = |k: &mut KernelCx, size: usize| {
            let first = k.let_(start(size));
            calls.chunk(k, first, parts.size - size);
        };
        if parts.smaller == 0 {
            one(&mut k, 0);
        } else {
            let is_larger = Expr::compare(CmpOp::Lt, chunk.clone(), Expr::i64(parts.count as i64));
            k.if_else(is_larger, |k| one(k, 0), |k| one(k, 1));
        }
        k.finish();
        Ok(())
    }
}

/// Into how many chunks a plane of so many pixels is cut: an even number, so that two threads get as much.
fn chunks(plane: usize) -> usize {
    let most = (plane / MIN_PIXELS).clamp(1, CHUNKS);
    // A plane too small for that is still shared by two.
    if most == 1 { plane.min(2) } else { most / 2 * 2 }
}

/// Leaf calls of a kernel.
struct Calls<'c> {
    conv: &'c Grouped,
    /// By run, pixels and number of tiles.
    leaves: &'c HashMap<(usize, usize, usize), u32>,
    params: &'c Params,
    image: Expr,
}

impl Calls<'_> {
    /// So many pixels of a flat plane, or rows, from `first` on.
    fn chunk(&self, k: &mut KernelCx, first: Expr, size: usize) {
        let c = self.conv;
        let axes = c.y.shape.len() - 2;
        for (at, run) in c.runs.iter().enumerate() {
            k.serial(run.count, |k, tile| {
                let tile = k.let_(tile);
                if c.flat {
                    return self.line(k, (at, run), &tile, size, &vec![Expr::i64(0); axes], &first);
                }
                k.for_(LoopKind::Serial, first.clone(), first.clone() + size as i64, 1, |k, row| {
                    let mut place = unflatten(k, row, &c.y.shape[2..1 + axes]);
                    place.push(Expr::i64(0));
                    self.line(k, (at, run), &tile, c.row_pixels, &place, &Expr::i64(0));
                });
            });
        }
    }

    /// Pixels side by side, `from` pixels behind `place`.
    fn line(&self, k: &mut KernelCx, (at, run): (usize, &Run), tile: &Expr, width: usize, place: &[Expr], from: &Expr) {
        let c = self.conv;
        let mut done = 0;
        for (pixels, count) in Parts::of(width, run.pixels).sizes() {
            let offset = k.let_(from.clone() + done as i64);
            done += pixels * count;
            let block = k.let_(tile.clone() * run.blocks as i64 + run.first as i64);
            let spot = Place { image: &self.image, block: block.clone(), spatial: place, pixels: offset.clone() };
            let mut source: Vec<Expr> =
                (0..place.len()).map(|d| place[d].clone() * c.strides[d] + Expr::i64(-c.pads[d])).collect();
            let last = source.len() - 1;
            source[last] = source[last].clone() + offset * c.strides[last];
            let address = |buf: Param, index: Expr| LeafArg::Address { buf, index };
            let packed = |(first, step): (usize, usize)| tile.clone() * step as i64 + first as i64;
            let bias = match self.params.bias {
                Some(bias) => address(bias, block * c.lanes as i64),
                None => LeafArg::Int(Expr::i64(0)),
            };
            let mut args = vec![
                address(self.params.x, c.xs.at(&self.image, Expr::i64(0), &source)),
                address(self.params.w, packed(run.weights)),
                address(self.params.y, spot.position(&c.ys)),
                bias,
                // The number of tiles is the leaf's own.
                LeafArg::Int(Expr::i64(0)),
            ];
            args.extend(addresses(k, &c.fused.feeds, None, c.lanes, &spot));
            args.push(address(self.params.table, packed(run.table)));
            k.leaf(self.leaves[&(at, pixels, count)], args);
        }
    }
}

/// Cuts the blocks of a result into tiles, of least cost for lines of so many pixels.
fn choose_tiles(grouping: &Grouping, isa: Isa, width: usize, inputs: usize, taps: usize) -> Vec<BlockTile> {
    let blocks = grouping.order.blocks();
    // The cost of the first blocks, and the last tile among them.
    let mut best: Vec<(f64, Option<BlockTile>)> = vec![(0.0, None)];
    for end in 1..=blocks {
        let tiles = shapes(isa).iter().filter_map(|&(pixels, most)| {
            let (pixels, most) = (pixels as usize, most as usize);
            let first = end.checked_sub(most)?;
            let segments = grouping.segments(first, most, inputs);
            let plain: Vec<Segment> = segments.iter().map(|(s, _)| s.clone()).collect();
            let cost = best[first].0 + tile_cost(&plain, pixels, most, width, taps);
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

/// What goes among the weights.
struct Packing<'w> {
    /// `[outputs, inputs of a group, taps]`.
    w: &'w [f32],
    inputs: usize,
    taps: usize,
    grouping: Grouping<'w>,
    x: &'w View,
}

impl Packing<'_> {
    /// Runs of tiles with their weights, and their tables in bytes of offset.
    fn pack(&self, tiles: Vec<BlockTile>) -> (Vec<Run>, Vec<f32>, Vec<i32>) {
        let (mut runs, mut weights, mut table): (Vec<Run>, Vec<f32>, Vec<i32>) = (vec![], vec![], vec![]);
        for tile in tiles {
            let at = (weights.len(), table.len());
            for (segment, group) in &tile.segments {
                self.segment(tile.first, segment, *group, &mut weights);
                table.extend((0..self.inputs).map(|i| self.offset(group * self.inputs + i)));
            }
            let sizes = (weights.len() - at.0, table.len() - at.1);
            let segments: Vec<Segment> = tile.segments.into_iter().map(|(s, _)| s).collect();
            match runs.last_mut() {
                Some(run) if (run.blocks, &run.segments) == (tile.blocks, &segments) => run.count += 1,
                _ => runs.push(Run {
                    first: tile.first,
                    blocks: tile.blocks,
                    count: 1,
                    segments,
                    pixels: tile.pixels,
                    weights: (at.0, sizes.0),
                    table: (at.1, sizes.1),
                }),
            }
        }
        (runs, weights, table)
    }

    fn segment(&self, first: usize, s: &Segment, group: usize, out: &mut Vec<f32>) {
        let Grouping { order, outputs, lanes } = self.grouping;
        let from = (first + s.first as usize) * lanes;
        let channels = &order.by_slot()[from..from + s.blocks as usize * lanes];
        for (tap, i) in (0..self.taps).flat_map(|tap| (0..self.inputs).map(move |i| (tap, i))) {
            out.extend(channels.iter().map(|channel| match channel {
                Some(c) if c / outputs == group => self.w[(c * self.inputs + i) * self.taps + tap],
                _ => 0.0,
            }));
        }
    }

    /// Bytes from the input's first channel to this one.
    fn offset(&self, channel: usize) -> i32 {
        let lattice = self.x.lattice();
        bytes(match self.x.order() {
            Some(order) => {
                let (slot, lanes) = (order.slot(channel), self.grouping.lanes);
                (slot / lanes) as i64 * lattice.channel + (slot % lanes) as i64
            }
            None => channel as i64 * lattice.channel,
        })
    }
}
