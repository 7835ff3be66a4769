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

use super::frame::Frame;
use super::gather::{BlockTile, Gathering, Grouping};
use super::operands::{Place, addresses, channel_table};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::View;
use crate::program::BufferId;
use crate::strategy::Gathered;
use crate::x86::{BatchReduceGemm, Broadcast, GatherGemm, Init, Input, LeafError, LeafSpec, Prefetch, Segment, Tiles};
use lehr_ir::ops::Conv;
use lehr_ir::{DType, Diag, Op};
use std::collections::HashMap;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let Op::Conv(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let conv = Grouped::new(cx, &op);
    conv.emit(cx).map_err(|e| leaf_diag(cx, &e))
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

struct Grouped {
    frame: Frame,
    strategy: Gathered,
    runs: Vec<Run>,
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
    fn new(cx: &mut NodeCx, op: &Conv) -> Grouped {
        let frame = Frame::of(cx, op);
        let w = cx.constant(1).expect("the weights are constant");
        let bias = cx.constant(2).map(|b| b.to_f32());
        let order = frame.y.order().expect("the result is in blocks").clone();
        let (outputs, inputs, taps) = (w.shape()[0], w.shape()[1], frame.taps());
        let gathering = Gathering {
            grouping: Grouping { order: &order, outputs: outputs / op.groups, lanes: frame.lanes },
            isa: cx.low.isa(),
            images: frame.images(),
            rows: frame.rows,
            row_pixels: frame.row_pixels,
            flat: frame.flat,
            is_blocked: frame.is_blocked(),
            inputs,
            taps,
        };
        let strategy = cx.decide(op, &gathering);
        let packing = Packing { w: &w.to_f32(), inputs, taps, grouping: gathering.grouping, x: &frame.x };
        let (runs, weights, table) = packing.pack(gathering.tiles(strategy));
        let weights_bytes: Vec<u8> = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        let table_bytes: Vec<u8> = table.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bias = bias.map(|b| channel_table(cx, &frame.y.spread(b, 1, 0.0), frame.lanes, 0.0));
        Grouped {
            weights: cx.low.add_weights(DType::F32, weights.len(), weights_bytes.into()),
            table: cx.low.add_weights(DType::I32, table.len(), table_bytes.into()),
            work: 2 * outputs * inputs * taps * frame.plane(),
            frame,
            strategy,
            runs,
            bias,
        }
    }

    fn leaf(&self, run: &Run, pixels: usize, count: usize) -> LeafSpec {
        let frame = &self.frame;
        let tile = BatchReduceGemm {
            pixels: pixels as u32,
            blocks: run.blocks as u32,
            input: Input::Element,
            broadcast: if run.blocks == 1 { Broadcast::PerFma } else { Broadcast::PerPixel },
            pixel_stride: frame.pixel_stride(&frame.xs),
            reduce: frame.window(&frame.xs).collect(),
            init: if self.bias.is_some() { Init::Bias } else { Init::Zero },
            epilogue: frame.fused.program.clone(),
            out_pixel_stride: bytes(frame.ys.spatial[frame.ys.spatial.len() - 1]),
            out_block_stride: bytes(frame.ys.channel),
            last_lanes: None,
            tiles: Tiles::Fixed(count as u32),
            prefetch: Prefetch::None,
        };
        LeafSpec::Gather(GatherGemm { tile, segments: run.segments.clone() })
    }

    fn emit(&self, cx: &mut NodeCx) -> Result<(), LeafError> {
        let units = if self.frame.flat { self.frame.row_pixels } else { self.frame.rows };
        let parts = Parts::of(units, units.div_ceil(self.strategy.chunks));
        // Assembled before the kernel that calls them is open.
        let widths = if self.frame.flat { parts.sizes() } else { vec![(self.frame.row_pixels, 1)] };
        let mut leaves = HashMap::new();
        for (at, run) in self.runs.iter().enumerate() {
            for &(width, _) in &widths {
                for (pixels, count) in Parts::of(width, run.pixels).sizes() {
                    let leaf = cx.low.leaf(&self.leaf(run, pixels, count))?;
                    leaves.insert((at, pixels, count), leaf);
                }
            }
        }
        let (images, chunks) = (self.frame.images(), parts.total());
        let mut k = cx.kernel("");
        let p = k.parallel((images * chunks) as i64, (self.work / chunks) as i64);
        let params = Params {
            x: k.param_for(self.frame.x.buf, Access::Read),
            w: k.param_for(self.weights, Access::Read),
            y: k.param_for(self.frame.y.buf, Access::Write),
            table: k.param_for(self.table, Access::Read),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
        };
        let at = unflatten(&mut k, p, &[images, chunks]);
        let calls = Calls { conv: self, leaves: &leaves, params: &params, image: at[0].clone() };
        let chunk = at[1].clone();
        parts.each_size(&mut k, &chunk, |k, size| {
            let first = k.let_(parts.start(size, chunk.clone()));
            calls.chunk(k, first, parts.size - size);
        });
        k.finish();
        Ok(())
    }
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
        let axes = c.frame.y.shape.len() - 2;
        for (at, run) in c.runs.iter().enumerate() {
            k.serial(run.count, |k, tile| {
                let tile = k.let_(tile);
                if c.frame.flat {
                    return self.line(k, (at, run), &tile, size, &vec![Expr::i64(0); axes], &first);
                }
                k.for_(LoopKind::Serial, first.clone(), first.clone() + size as i64, 1, |k, row| {
                    let place = c.frame.row(k, row);
                    self.line(k, (at, run), &tile, c.frame.row_pixels, &place, &Expr::i64(0));
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
            let source = c.frame.source(place, offset);
            let address = |buf: Param, index: Expr| LeafArg::Address { buf, index };
            let packed = |(first, step): (usize, usize)| tile.clone() * step as i64 + first as i64;
            let bias = match self.params.bias {
                Some(bias) => address(bias, block * c.frame.lanes as i64),
                None => LeafArg::Int(Expr::i64(0)),
            };
            let mut args = vec![
                address(self.params.x, c.frame.xs.at(&self.image, Expr::i64(0), &source)),
                address(self.params.w, packed(run.weights)),
                address(self.params.y, spot.position(&c.frame.ys)),
                bias,
                // The number of tiles is the leaf's own.
                LeafArg::Int(Expr::i64(0)),
            ];
            args.extend(addresses(k, &c.frame.fused.feeds, None, c.frame.lanes, &spot));
            args.push(address(self.params.table, packed(run.table)));
            k.leaf(self.leaves[&(at, pixels, count)], args);
        }
    }
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
