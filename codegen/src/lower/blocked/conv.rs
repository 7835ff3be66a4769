//! Convolutions by batch-reduce leaves.
//!
//! ```text
//! parallel for image, chunk of rows                   or, where weights weigh most: oc-group, image, chunk
//!     for oc-group                                    1 to 4 blocks of output channels
//!         for chunk of input channels                 partial sums wait in the output
//!             for row in chunk
//!                 leaf: tiles of pixels, all taps, the epilogue behind the last input channel
//! ```
//!
//! A map that only a 1x1 convolution reads is its prologue: each chunk first computes its pixels of the map's result, for all input
//! channels, into scratch of the thread. A 1x1 convolution on planes without borders takes the whole plane as one row, and its chunks are ranges of tiles. The input is
//! blocked with a border that covers the padding, or row-major (a stem), and is then copied into a bordered buffer if it is padded.

use super::map::Prologue;
use super::operands::{Feed, Fused, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::Lowering;
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, Layout, View, row_major};
use crate::x86::{
    BatchReduceGemm, Broadcast, ConvWeights, Init, Input, InputLayout, LeafError, LeafSpec, Map, Prefetch, Reduce,
    Tiles, VProg, choose_tile, pack_conv_weights, split_evenly,
};
use bytes::Bytes;
use lehr_ir::ops::Conv;
use lehr_ir::{DType, Diag, Op};

/// Input channels of a call, for kernels beyond 1x1: the weights of a chunk stay in the L2 cache while rows go by.
const CHANNEL_CHUNK: usize = 256;
/// Chunks of an image that threads share out.
const CHUNKS: usize = 16;
/// Pixels of a chunk at least, so that its arithmetic outweighs streaming the weights once more.
const MIN_PIXELS: usize = 112;
/// Weights beyond this many bytes do not stay in the L2 cache.
const LARGE_WEIGHTS: usize = 1 << 20;
/// Weights beyond this many bytes have left the cache since the last run.
const COLD_WEIGHTS: usize = 1 << 18;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let Op::Conv(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let x = cx.view(0).expect("the input is in a buffer");
    let x = if x.block().is_none() { bordered(cx, &x, &op.pads) } else { x };
    let kernel = ConvKernel::new(cx, &op, x);
    kernel.emit(cx).map_err(|e| leaf_diag(cx, &e))
}

struct ConvKernel {
    /// Not in memory where there is a prologue.
    x: View,
    prologue: Option<Prologue>,
    y: View,
    xs: Lattice,
    ys: Lattice,
    strides: Vec<i64>,
    pads: Vec<i64>,
    kernel: Vec<usize>,
    dilations: Vec<i64>,
    conv_groups: usize,
    lanes: usize,
    /// Blocks of input and output channels of a group of the convolution; input channels where they are row-major.
    in_blocks: usize,
    out_blocks: usize,
    /// The whole plane is one row.
    flat: bool,
    /// Tiles of a row, and groups of output blocks.
    broadcast: Broadcast,
    tiles: Parts,
    groups: Parts,
    /// Rows of an image.
    rows: usize,
    row_pixels: usize,
    /// First block of input channels, and number.
    phases: Vec<(usize, usize)>,
    fused: Fused,
    weights: Vec<f32>,
    outputs: usize,
    inputs: usize,
    bias: Option<Vec<f32>>,
}

/// Buffers of the kernel.
struct Params {
    x: Param,
    w: Param,
    y: Param,
    bias: Option<Param>,
}

/// How the work is shared out.
struct Split {
    /// Parallel over groups of output channels first, then images and chunks.
    by_channels: bool,
    /// Chunks of an image, and rows (or tiles of a flat plane) of each.
    chunks: usize,
    per_chunk: usize,
}

impl ConvKernel {
    fn new(cx: &mut NodeCx, op: &Conv, x: View) -> ConvKernel {
        let isa = cx.low.isa();
        let lanes = isa.lanes();
        let w = cx.constant(1).expect("the weights are constant");
        let bias = cx.constant(2).map(|b| b.to_f32());
        let y = cx.outputs[0].1.clone();
        let (xs, ys) = (x.lattice(), y.lattice());
        let prologue = cx.low.prologues.remove(&x.buf);
        let n = op.strides.len();
        let pointwise = w.shape()[2..].iter().all(|&k| k == 1)
            && op.strides.iter().all(|&s| s == 1)
            && op.pads.iter().all(|&p| p == 0);
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
        let (conv_groups, taps) = (op.groups, w.shape()[2..].iter().product());
        let (weights, [outputs, inputs]) = ordered_weights(w.to_f32(), [w.shape()[0], w.shape()[1], taps], &x, &y);
        let bias = bias.map(|b| y.spread(b, 1, 0.0));
        let out_blocks = (outputs / conv_groups).div_ceil(lanes);
        let in_blocks = if x.block().is_some() { inputs.div_ceil(lanes) } else { inputs };
        let tile = choose_tile(isa, row_pixels as u32, out_blocks as u32);
        let chunk = if x.block().is_some() && taps > 1 { CHANNEL_CHUNK / lanes } else { in_blocks };
        let mut phases = vec![];
        for count in split_evenly(in_blocks as u32, chunk as u32) {
            let first = phases.last().map_or(0, |(first, count)| first + count);
            phases.push((first, count as usize));
        }
        ConvKernel {
            strides: op.strides.iter().map(|&s| s as i64).collect(),
            pads: op.pads[..n].iter().map(|&p| p as i64).collect(),
            kernel: w.shape()[2..].to_vec(),
            dilations: op.dilations.iter().map(|&d| d as i64).collect(),
            conv_groups,
            lanes,
            in_blocks,
            out_blocks,
            flat,
            broadcast: tile.broadcast,
            tiles: Parts::of(row_pixels, tile.pixels as usize),
            groups: Parts::of(out_blocks, tile.blocks as usize),
            rows: plane / row_pixels,
            row_pixels,
            phases,
            fused,
            weights,
            outputs,
            inputs,
            bias,
            x,
            prologue,
            y,
            xs,
            ys,
        }
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Elements of packed weights for each block of output channels.
    fn weights_per_block(&self) -> usize {
        let per_input = if self.x.block().is_some() { self.lanes } else { 1 };
        self.in_blocks * per_input * self.taps() * self.lanes
    }

    /// Bytes of the weights that a group of output channels takes in a phase.
    fn weights_of_phase(&self, blocks: usize, phase: usize) -> usize {
        4 * self.weights_per_block() / self.in_blocks * self.phases[phase].1 * blocks
    }

    /// Bytes of the weights of the next phase or group, which lie behind, that each tile brings nearer.
    fn next_weights(&self, split: &Split, blocks: usize, phase: usize) -> usize {
        let tiles = if self.flat { split.per_chunk } else { split.per_chunk * self.tiles.total() };
        let all = 4 * self.weights_per_block() * self.out_blocks * self.conv_groups;
        if all > COLD_WEIGHTS { self.weights_of_phase(blocks, phase) / tiles } else { 0 }
    }

    fn pack(&self) -> Vec<u8> {
        let shape = ConvWeights {
            outputs: self.outputs,
            inputs: self.inputs,
            conv_groups: self.conv_groups,
            kh: self.taps() / self.kernel.last().copied().unwrap_or(1),
            kw: self.kernel.last().copied().unwrap_or(1),
        };
        let input = if self.x.block().is_some() { InputLayout::Blocked } else { InputLayout::Plain };
        let most = self.groups.size as u32;
        pack_conv_weights(&self.weights, shape, input, self.lanes, &split_evenly(self.out_blocks as u32, most))
    }

    fn split(&self) -> Split {
        let images = self.y.shape[0];
        let groups = self.groups.total();
        let units = if self.flat { self.tiles.total() } else { self.rows };
        let unit_pixels = if self.flat { self.tiles.size } else { self.row_pixels };
        let weights = 4 * self.weights_per_block() * self.out_blocks * self.conv_groups;
        let plane = self.rows * self.row_pixels;
        let large = weights >= LARGE_WEIGHTS && plane <= 4 * MIN_PIXELS;
        let few = units * unit_pixels < 2 * MIN_PIXELS;
        if self.prologue.is_none() && self.conv_groups == 1 && groups > 1 && (large || few) {
            let chunks = if groups * images >= 4 { 1 } else { (4usize).div_ceil(groups * images).min(units) };
            let per_chunk = units.div_ceil(chunks);
            return Split { by_channels: true, chunks: units.div_ceil(per_chunk), per_chunk };
        }
        let least = (if weights < LARGE_WEIGHTS / 4 { MIN_PIXELS / 4 } else { MIN_PIXELS }).div_ceil(unit_pixels);
        let mut per_chunk = units.div_ceil(CHUNKS).max(least).min(units);
        // An even number, so that two threads get as much.
        let chunks = units.div_ceil(per_chunk);
        if chunks % 2 == 1 && images % 2 == 1 && units > chunks {
            per_chunk = units.div_ceil(chunks + 1);
        }
        Split { by_channels: false, chunks: units.div_ceil(per_chunk), per_chunk }
    }

    fn emit(&self, cx: &mut NodeCx) -> Result<(), LeafError> {
        let packed = self.pack();
        let weights = cx.low.add_weights(DType::F32, packed.len() / 4, Bytes::from(packed));
        let bias = self.bias.as_ref().map(|b| channel_table(cx, b, self.lanes, 0.0));
        let split = self.split();
        // Assembled before the kernel that calls them is open.
        let (mut leaves, input) = (vec![], self.input(&split));
        for (blocks, _) in self.groups.sizes() {
            for phase in 0..self.phases.len() {
                for (pixels, tiles) in self.tiles.sizes() {
                    let next = self.next_weights(&split, blocks, phase);
                    leaves.push(self.leaf(&mut *cx.low, &input, blocks, phase, (pixels, tiles), next)?);
                }
            }
        }
        let images = self.y.shape[0];
        let before = match &self.prologue {
            Some(p) => {
                let leaf = cx.low.leaf(&LeafSpec::Map(Map { program: p.fused.program.clone() }))?;
                let elements = images * split.chunks * self.scratch(&split);
                Some((leaf, cx.scratch(DType::F32, elements)))
            }
            None => None,
        };
        let mut k = cx.kernel("");
        let groups = if split.by_channels { self.groups.total() } else { 1 };
        let extent = images * split.chunks * groups;
        let work = 2 * self.weights_per_block() * self.out_blocks * self.conv_groups * self.rows * self.row_pixels;
        let p = k.parallel(extent as i64, (work * images / extent) as i64);
        let params = Params {
            x: match before {
                Some((_, scratch)) => k.param_for(scratch, Access::ReadWrite),
                None => k.param_for(self.x.buf, Access::Read),
            },
            w: k.param_for(weights, Access::Read),
            y: k.param_for(self.y.buf, Access::Write),
            bias: bias.map(|b| k.param_for(b, Access::Read)),
        };
        let at = unflatten(&mut k, p, &[groups, images, split.chunks]);
        let (group, image, chunk) = (at[0].clone(), at[1].clone(), at[2].clone());
        let units = if self.flat { self.tiles.total() } else { self.rows };
        let first = k.let_(chunk * split.per_chunk as i64);
        let end = k.let_((first.clone() + split.per_chunk as i64).min(Expr::i64(units as i64)));
        let shift = match before {
            Some((leaf, _)) => self.prologue_of_chunk(&mut k, leaf, &split, params.x, &image, [&first, &end]),
            None => Expr::i64(0),
        };
        let body = ChunkCx { conv: self, split: &split, leaves: &leaves, params: &params, image, first, end, shift };
        if split.by_channels {
            body.group(&mut k, Expr::i64(0), group);
        } else {
            k.serial(self.conv_groups, |k, cg| {
                k.serial(self.groups.total(), |k, group| body.group(k, cg, group));
            });
        }
        k.finish();
        Ok(())
    }

    /// Pixels of a chunk at most.
    fn chunk_pixels(&self, split: &Split) -> usize {
        split.per_chunk * if self.flat { self.tiles.size } else { self.row_pixels }
    }

    /// Elements that a chunk's prologue computes.
    fn scratch(&self, split: &Split) -> usize {
        self.in_blocks * self.chunk_pixels(split) * self.lanes
    }

    /// How the input lies: as the tensor does, or by chunks in scratch.
    fn input(&self, split: &Split) -> Lattice {
        if self.prologue.is_none() {
            return self.xs.clone();
        }
        let channel = (self.chunk_pixels(split) * self.lanes) as i64;
        let spatial = row_major(&self.x.shape[2..]).iter().map(|s| s * self.lanes as i64).collect();
        Lattice { origin: 0, image: 0, channel, spatial }
    }

    /// Where a row, or a tile of a flat plane, begins in its plane.
    fn first_pixel(&self, unit: &Expr) -> Expr {
        if !self.flat {
            return unit.clone() * self.row_pixels as i64;
        }
        // What is not among the larger tiles is one pixel shorter.
        let (size, count) = (self.tiles.size as i64, self.tiles.count as i64);
        unit.clone() * size - (unit.clone() - count).max(Expr::i64(0))
    }

    /// Computes rows or tiles `first..end` of the input, and gives what must be added to positions in its lattice.
    fn prologue_of_chunk(
        &self,
        k: &mut KernelCx,
        leaf: u32,
        split: &Split,
        scratch: Param,
        image: &Expr,
        [first, end]: [&Expr; 2],
    ) -> Expr {
        let p = self.prologue.as_ref().expect("there is a prologue");
        let own = k.range_start();
        let own = k.let_(own * self.scratch(split) as i64);
        let from = k.let_(self.first_pixel(first));
        let count = k.let_((self.first_pixel(end) - from.clone()) * self.lanes as i64);
        let x = k.param_for(p.x.buf, Access::Read);
        let (lattice, step) = (p.x.lattice(), self.input(split).channel);
        let corner = vec![Expr::i64(0); p.x.shape.len() - 2];
        k.serial(self.in_blocks, |k, block| {
            let at = Place { image, block: block.clone(), spatial: &corner, pixels: from.clone() };
            let mut args = vec![
                LeafArg::Address { buf: x, index: at.position(&lattice) },
                LeafArg::Address { buf: scratch, index: own.clone() + block * step },
                LeafArg::Int(count.clone()),
            ];
            args.extend(addresses(k, &p.fused.feeds, None, self.lanes, &at));
            k.leaf(leaf, args);
        });
        k.let_(own - from * self.lanes as i64)
    }

    fn leaf(
        &self,
        low: &mut Lowering,
        input: &Lattice,
        blocks: usize,
        phase: usize,
        (pixels, count): (usize, usize),
        next: usize,
    ) -> Result<u32, LeafError> {
        let (n, last_phase) = (self.strides.len(), self.phases.len() - 1);
        let mut reduce = vec![Reduce { trip: self.phases[phase].1 as u32, stride: bytes(input.channel) }];
        for d in 0..n {
            reduce.push(Reduce { trip: self.kernel[d] as u32, stride: bytes(self.dilations[d] * input.spatial[d]) });
        }
        if self.x.block().is_some() {
            reduce.push(Reduce { trip: self.lanes as u32, stride: 4 });
        }
        let spec = BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: self.broadcast,
            pixel_stride: bytes(self.strides[n - 1] * input.spatial[n - 1]),
            reduce,
            init: match (phase, &self.bias) {
                (0, Some(_)) => Init::Bias,
                (0, None) => Init::Zero,
                _ => Init::Output,
            },
            epilogue: if phase == last_phase { self.fused.program.clone() } else { VProg::identity() },
            out_pixel_stride: bytes(self.ys.spatial[n - 1]),
            out_block_stride: bytes(self.ys.channel),
            last_lanes: None,
            tiles: if self.flat { Tiles::Runtime } else { Tiles::Fixed(count as u32) },
            prefetch: if next > 0 { Prefetch::Next(next as u32) } else { Prefetch::None },
        };
        low.leaf(&LeafSpec::Gemm(spec))
    }
}

/// Inside a parallel iteration: rows `first..end` of an image, or tiles of a flat plane.
struct ChunkCx<'c> {
    conv: &'c ConvKernel,
    split: &'c Split,
    leaves: &'c [u32],
    params: &'c Params,
    image: Expr,
    first: Expr,
    end: Expr,
    /// What is added to positions of the input.
    shift: Expr,
}

impl ChunkCx<'_> {
    /// A group of output channels; `cg` is the group of the convolution.
    fn group(&self, k: &mut KernelCx, cg: Expr, group: Expr) {
        let g = self.conv.groups;
        if g.smaller == 0 {
            return self.blocks(k, cg, group, 0);
        }
        let is_larger = Expr::compare(crate::kernel::CmpOp::Lt, group.clone(), Expr::i64(g.count as i64));
        let (a, b) = ((cg.clone(), group.clone()), (cg, group));
        k.if_else(is_larger, |k| self.blocks(k, a.0, a.1, 0), |k| self.blocks(k, b.0, b.1, 1));
    }

    /// `size` says which of the two sizes of groups this is.
    fn blocks(&self, k: &mut KernelCx, cg: Expr, group: Expr, size: usize) {
        let c = self.conv;
        let larger = (c.groups.count * c.groups.size) as i64;
        let own = match size {
            0 => group * c.groups.size as i64,
            _ => (group - c.groups.count as i64) * (c.groups.size as i64 - 1) + larger,
        };
        let block = k.let_(cg.clone() * c.out_blocks as i64 + own);
        let in_block = k.let_(cg * c.in_blocks as i64);
        for (phase, &(first_block, _)) in c.phases.iter().enumerate() {
            let blocks = c.groups.sizes()[size].0;
            // Packed as [group][input block]..: a phase begins inside the group.
            let skipped = first_block * c.weights_per_block() / c.in_blocks * blocks;
            let w = k.let_(block.clone() * c.weights_per_block() as i64 + skipped as i64);
            let call = Call {
                chunk: self,
                leaves: &self.leaves[(size * c.phases.len() + phase) * c.tiles.sizes().len()..],
                block: block.clone(),
                in_block: in_block.clone() + first_block as i64,
                w,
                phase,
                next: (c.weights_of_phase(blocks, phase), c.next_weights(self.split, blocks, phase)),
            };
            if c.flat {
                call.flat(k);
            } else {
                k.for_(LoopKind::Serial, self.first.clone(), self.end.clone(), 1, |k, row| call.row(k, row));
            }
        }
    }
}

/// Leaf calls for a group of output channels and a chunk of input channels.
struct Call<'c> {
    chunk: &'c ChunkCx<'c>,
    /// One for each size of tile.
    leaves: &'c [u32],
    block: Expr,
    in_block: Expr,
    w: Expr,
    phase: usize,
    /// Bytes from these weights to the next ones, and bytes of those that a tile brings nearer.
    next: (usize, usize),
}

impl Call<'_> {
    fn row(&self, k: &mut KernelCx, row: Expr) {
        let c = self.chunk.conv;
        let outer = &c.y.shape[2..c.y.shape.len() - 1];
        let mut place = unflatten(k, row.clone(), outer);
        place.push(Expr::i64(0));
        let done = k.let_((row - self.chunk.first.clone()) * c.tiles.total() as i64);
        self.leaf(k, 0, &place, Expr::i64(0), Expr::i64(0), done.clone());
        if c.tiles.smaller > 0 {
            let pixels = Expr::i64((c.tiles.count * c.tiles.size) as i64);
            self.leaf(k, 1, &place, pixels, Expr::i64(0), done + c.tiles.count as i64);
        }
    }

    /// Tiles `first..end` of the plane: the larger ones among them, then the smaller ones.
    fn flat(&self, k: &mut KernelCx) {
        let c = self.chunk.conv;
        let place = vec![Expr::i64(0); c.y.shape.len() - 2];
        let (first, end) = (&self.chunk.first, &self.chunk.end);
        let (count, size) = (c.tiles.count as i64, c.tiles.size as i64);
        if c.tiles.smaller == 0 {
            return self.leaf(k, 0, &place, first.clone() * size, end.clone() - first.clone(), Expr::i64(0));
        }
        let bound = |e: &Expr| (e.clone().min(Expr::i64(count)), e.clone().max(Expr::i64(count)));
        let ((first_a, first_b), (end_a, end_b)) = (bound(first), bound(end));
        let (first_a, first_b) = (k.let_(first_a), k.let_(first_b));
        let before = k.let_(first_b.clone() - first.clone());
        self.leaf(k, 0, &place, first_a.clone() * size, end_a - first_a, Expr::i64(0));
        self.leaf(k, 1, &place, (first_b.clone() - count) * (size - 1) + count * size, end_b - first_b, before);
    }

    /// `pixels` further along the row than `place`, when the chunk has `done` so many tiles.
    fn leaf(&self, k: &mut KernelCx, part: usize, place: &[Expr], pixels: Expr, tiles: Expr, done: Expr) {
        let c = self.chunk.conv;
        let (params, image) = (self.chunk.params, &self.chunk.image);
        let pixels = k.let_(pixels);
        let at = Place { image, block: self.block.clone(), spatial: place, pixels: pixels.clone() };
        let mut source: Vec<Expr> =
            (0..place.len()).map(|d| place[d].clone() * c.strides[d] + Expr::i64(-c.pads[d])).collect();
        let last = source.len() - 1;
        source[last] = source[last].clone() + pixels * c.strides[last];
        let input = c.input(self.chunk.split).at(image, self.in_block.clone(), &source) + self.chunk.shift.clone();
        let address = |buf: Param, index: Expr| LeafArg::Address { buf, index };
        let bias = match params.bias {
            Some(bias) => address(bias, self.block.clone() * c.lanes as i64),
            None => LeafArg::Int(Expr::i64(0)),
        };
        let mut args = vec![
            address(params.x, input),
            address(params.w, self.w.clone()),
            address(params.y, at.position(&c.ys)),
            bias,
            LeafArg::Int(tiles),
        ];
        if self.phase + 1 == c.phases.len() {
            args.extend(addresses(k, &c.fused.feeds, None, c.lanes, &at));
        }
        let (next, per_tile) = self.next;
        if per_tile > 0 {
            args.push(LeafArg::Int(done * per_tile as i64 + next as i64));
        }
        k.leaf(self.leaves[part], args);
    }
}

/// Whether so many weights of a 1x1 convolution are streamed once, for output channels that threads share out.
pub fn streams_weights(weights: usize, plane: usize) -> bool {
    4 * weights >= LARGE_WEIGHTS && plane <= 4 * MIN_PIXELS
}

/// The weights, `[outputs, inputs, taps]`, by the slots of the input's channels and the result's; zero where there is no channel.
fn ordered_weights(w: Vec<f32>, shape: [usize; 3], x: &View, y: &View) -> (Vec<f32>, [usize; 2]) {
    let [outputs, mut inputs, taps] = shape;
    let mut w = w;
    if let Some(order) = x.order().filter(|o| !o.is_plain()) {
        w = w.chunks(inputs * taps).flat_map(|row| order.spread(row, taps, 0.0)).collect();
        inputs = order.slots();
    }
    match y.order().filter(|o| !o.is_plain()) {
        Some(order) => (order.spread(&w, inputs * taps, 0.0), [order.slots(), inputs]),
        None => (w, [outputs, inputs]),
    }
}

/// A row-major input with its padding around it: itself if there is none, else a copy.
pub(super) fn bordered(cx: &mut NodeCx, x: &View, pads: &[usize]) -> View {
    if pads.iter().all(|&p| p == 0) {
        return x.clone();
    }
    let n = x.shape.len() - 2;
    let mut shape = x.shape.clone();
    (0..n).for_each(|d| shape[2 + d] += pads[d] + pads[n + d]);
    let buf = cx.scratch(DType::F32, shape.iter().product());
    let strides = row_major(&shape);
    let offset = (0..n).map(|d| pads[d] as i64 * strides[2 + d]).sum();
    let inside = View { buf, dtype: DType::F32, shape: x.shape.clone(), layout: Layout::Strided { strides, offset } };
    let (planes, padded) = (shape[0] * shape[1], shape[2..].to_vec());
    let size: usize = padded.iter().product();
    let border: Vec<(usize, usize)> = (0..n).map(|d| (pads[d], pads[n + d])).collect();
    let (width, lines) = x.shape[2..].split_last().expect("there is a spatial axis");
    let mut k = cx.kernel("_pad");
    let p = k.parallel(planes as i64, size as i64);
    let from = k.param_for(x.buf, Access::Read);
    let to = k.param_for(buf, Access::Write);
    let at = unflatten(&mut k, p.clone(), &shape[..2]);
    let start = k.let_(p * size as i64);
    super::convert::zero_axis(&mut k, to, start, &padded, &border, 1);
    let (xs, ys) = (x.lattice(), inside.lattice());
    k.loops(lines, |k, line| {
        let mut place = line.to_vec();
        place.push(Expr::i64(0));
        let source = k.let_(xs.at(&at[0], at[1].clone(), &place));
        let target = k.let_(ys.at(&at[0], at[1].clone(), &place));
        k.vector(*width, |k, w| {
            let value = k.builder().load(from, source.clone() + w.clone() * xs.spatial[n - 1]);
            k.builder().store(to, target.clone() + w, value);
        });
    });
    k.finish();
    inside
}
