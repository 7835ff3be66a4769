//! Convolutions by batch-reduce leaves.
//!
//! ```text
//! parallel for image, chunk of rows                   or, where weights weigh most: oc-group, image, chunk (merged)
//!     for oc-group                                    1 to 4 blocks of output channels
//!         for chunk of input channels                 partial sums wait in the output
//!             for row in chunk
//!                 leaf: tiles of pixels, all taps, the epilogue behind the last input channel
//! ```
//!
//! A map that only a 1x1 convolution reads is its prologue: each chunk first computes its pixels of the map's result, for all input
//! channels, into scratch of the thread. A 1x1 convolution on planes without borders takes the whole plane as one row, and its chunks
//! are ranges of tiles. Chunks of a group of output channels that one thread has are merged: it goes over the group's weights once.
//! The input is blocked with a border that covers the padding, or row-major (a stem), and is then copied into a bordered buffer if it is
//! padded.

use super::frame::Frame;
use super::map::Prologue;
use super::operands::{Place, addresses, channel_table};
use super::{Parts, bytes, direct, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::Lowering;
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View, row_major};
use crate::strategy::{Direct, Share};
use crate::x86::{
    BatchReduceGemm, Broadcast, ConvWeights, Init, Input, InputLayout, LeafError, LeafSpec, Map, Prefetch, Reduce,
    Tiles, VProg, pack_conv_weights, split_evenly,
};
use bytes::Bytes;
use lehr_ir::ops::Conv;
use lehr_ir::{DType, Diag, Op};

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let Op::Conv(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let kernel = ConvKernel::new(cx, &op);
    kernel.emit(cx).map_err(|e| leaf_diag(cx, &e))
}

struct ConvKernel {
    /// Its input is not in memory where there is a prologue.
    frame: Frame,
    prologue: Option<Prologue>,
    conv_groups: usize,
    /// Blocks of input and output channels of a group of the convolution; input channels where they are row-major.
    in_blocks: usize,
    out_blocks: usize,
    strategy: Direct,
    broadcast: Broadcast,
    /// Tiles of a row, and groups of output blocks.
    tiles: Parts,
    groups: Parts,
    /// First block of input channels, and number.
    phases: Vec<(usize, usize)>,
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
    /// Rows of an image, or tiles of a flat plane.
    units: usize,
    /// Into how many chunks they are cut, of sizes as equal as can be.
    chunks: usize,
}

impl Split {
    /// Rows or tiles of a chunk at most.
    fn per_chunk(&self) -> usize {
        self.units.div_ceil(self.chunks)
    }

    /// Where a chunk starts.
    fn start(&self, chunk: Expr) -> Expr {
        chunk * self.units as i64 / self.chunks as i64
    }
}

impl ConvKernel {
    fn new(cx: &mut NodeCx, op: &Conv) -> ConvKernel {
        let frame = Frame::of(cx, op);
        let prologue = cx.low.prologues.remove(&frame.x.buf);
        let w = cx.constant(1).expect("the weights are constant");
        let bias = cx.constant(2).map(|b| frame.y.spread(b.to_f32(), 1, 0.0));
        let (lanes, shape) = (frame.lanes, [w.shape()[0], w.shape()[1], frame.taps()]);
        let (weights, [outputs, inputs]) = ordered_weights(w.to_f32(), shape, &frame.x, &frame.y);
        let shape = direct::Shape {
            isa: cx.low.isa(),
            images: frame.images(),
            conv_groups: op.groups,
            rows: frame.rows,
            row_pixels: frame.row_pixels,
            flat: frame.flat,
            is_blocked: frame.is_blocked(),
            prologue: prologue.as_ref().map(|p| p.fused.program.operations()),
            in_order: frame.is_in_order(),
            in_blocks: if frame.is_blocked() { inputs.div_ceil(lanes) } else { inputs },
            out_blocks: (outputs / op.groups).div_ceil(lanes),
            taps: frame.taps(),
        };
        let strategy = cx.decide(op, &shape);
        let per_phase = if shape.is_blocked { (strategy.channels / lanes).max(1) } else { shape.in_blocks };
        let mut phases = vec![];
        for count in split_evenly(shape.in_blocks as u32, per_phase as u32) {
            let first = phases.last().map_or(0, |(first, count)| first + count);
            phases.push((first, count as usize));
        }
        ConvKernel {
            conv_groups: op.groups,
            in_blocks: shape.in_blocks,
            out_blocks: shape.out_blocks,
            broadcast: shape.broadcast(strategy.tile).expect("the strategy fits"),
            tiles: Parts::of(frame.row_pixels, strategy.tile.pixels),
            groups: Parts::of(shape.out_blocks, strategy.tile.blocks),
            frame,
            prologue,
            strategy,
            phases,
            weights,
            outputs,
            inputs,
            bias,
        }
    }

    /// Elements of packed weights for each block of output channels.
    fn weights_per_block(&self) -> usize {
        let per_input = if self.frame.is_blocked() { self.frame.lanes } else { 1 };
        self.in_blocks * per_input * self.frame.taps() * self.frame.lanes
    }

    /// Bytes of the weights that a group of output channels takes in a phase.
    fn weights_of_phase(&self, blocks: usize, phase: usize) -> usize {
        4 * self.weights_per_block() / self.in_blocks * self.phases[phase].1 * blocks
    }

    /// Bytes of the weights of the next phase or group, which lie behind, that each tile brings nearer. A thread that has a part of a group's
    /// chunks brings a part of them.
    fn next_weights(&self, split: &Split, blocks: usize, phase: usize) -> usize {
        let units = if split.by_channels { split.units } else { split.per_chunk() };
        let tiles = if self.frame.flat { units } else { units * self.tiles.total() };
        if self.strategy.prefetch { self.weights_of_phase(blocks, phase) / tiles } else { 0 }
    }

    fn pack(&self) -> Vec<u8> {
        let frame = &self.frame;
        let shape = ConvWeights {
            outputs: self.outputs,
            inputs: self.inputs,
            conv_groups: self.conv_groups,
            kh: frame.taps() / frame.kernel.last().copied().unwrap_or(1),
            kw: frame.kernel.last().copied().unwrap_or(1),
        };
        let input = if frame.is_blocked() { InputLayout::Blocked } else { InputLayout::Plain };
        let most = self.groups.size as u32;
        pack_conv_weights(&self.weights, shape, input, frame.lanes, &split_evenly(self.out_blocks as u32, most))
    }

    fn split(&self) -> Split {
        let units = if self.frame.flat { self.tiles.total() } else { self.frame.rows };
        let (by_channels, chunks) = match self.strategy.share {
            Share::Rows(chunks) => (false, chunks),
            Share::Channels(chunks) => (true, chunks),
        };
        Split { by_channels, units, chunks }
    }

    fn emit(&self, cx: &mut NodeCx) -> Result<(), LeafError> {
        let packed = self.pack();
        let weights = cx.low.add_weights(DType::F32, packed.len() / 4, Bytes::from(packed));
        let bias = self.bias.as_ref().map(|b| channel_table(cx, b, self.frame.lanes, 0.0));
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
        let images = self.frame.images();
        let before = match &self.prologue {
            Some(p) => {
                let leaf = cx.low.leaf(&LeafSpec::Map(Map { program: p.fused.program.clone(), past_caches: false }))?;
                let elements = images * split.chunks * self.scratch(&split);
                Some((leaf, cx.scratch(DType::F32, elements)))
            }
            None => None,
        };
        let mut k = cx.kernel("");
        let groups = if split.by_channels { self.groups.total() } else { 1 };
        let extent = images * split.chunks * groups;
        let work = 2 * self.weights_per_block() * self.out_blocks * self.conv_groups * self.frame.plane();
        let p = k.parallel(extent as i64, (work * images / extent) as i64);
        let params = Params {
            x: match before {
                Some((_, scratch)) => k.param_for(scratch, Access::ReadWrite),
                None => k.param_for(self.frame.x.buf, Access::Read),
            },
            w: k.param_for(weights, Access::Read),
            y: k.param_for(self.frame.y.buf, Access::Write),
            bias: bias.map(|b| k.param_for(b, Access::Read)),
        };
        let run = if split.by_channels { k.merge(split.chunks as i64) } else { Expr::i64(1) };
        let at = unflatten(&mut k, p, &[groups, images, split.chunks]);
        let (group, image, chunk) = (at[0].clone(), at[1].clone(), at[2].clone());
        let first = k.let_(split.start(chunk.clone()));
        let end = k.let_(split.start(chunk + run));
        let shift = match before {
            Some((leaf, _)) => self.prologue_of_chunk(&mut k, leaf, &split, params.x, &image, [&first, &end]),
            None => Expr::i64(0),
        };
        let body = ChunkCx { conv: self, split: &split, leaves: &leaves, params: &params, image, first, end, shift };
        if split.by_channels {
            body.group(&mut k, &Expr::i64(0), &group);
        } else {
            k.serial(self.conv_groups, |k, cg| {
                k.serial(self.groups.total(), |k, group| body.group(k, &cg, &group));
            });
        }
        k.finish();
        Ok(())
    }

    /// Pixels of a chunk at most.
    fn chunk_pixels(&self, split: &Split) -> usize {
        split.per_chunk() * if self.frame.flat { self.tiles.size } else { self.frame.row_pixels }
    }

    /// Elements that a chunk's prologue computes.
    fn scratch(&self, split: &Split) -> usize {
        self.in_blocks * self.chunk_pixels(split) * self.frame.lanes
    }

    /// How the input lies: as the tensor does, or by chunks in scratch.
    fn input(&self, split: &Split) -> Lattice {
        if self.prologue.is_none() {
            return self.frame.xs.clone();
        }
        let channel = (self.chunk_pixels(split) * self.frame.lanes) as i64;
        let spatial = row_major(&self.frame.x.shape[2..]).iter().map(|s| s * self.frame.lanes as i64).collect();
        Lattice { origin: 0, image: 0, channel, spatial }
    }

    /// Where a row, or a tile of a flat plane, begins in its plane.
    fn first_pixel(&self, unit: &Expr) -> Expr {
        match self.frame.flat {
            true => self.tiles.start_of_any(unit.clone()),
            false => unit.clone() * self.frame.row_pixels as i64,
        }
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
        let count = k.let_((self.first_pixel(end) - from.clone()) * self.frame.lanes as i64);
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
            args.extend(addresses(k, &p.fused.feeds, None, self.frame.lanes, &at));
            k.leaf(leaf, args);
        });
        k.let_(own - from * self.frame.lanes as i64)
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
        let (frame, last_phase) = (&self.frame, self.phases.len() - 1);
        let mut reduce = vec![Reduce { trip: self.phases[phase].1 as u32, stride: bytes(input.channel) }];
        reduce.extend(frame.window(input));
        if frame.is_blocked() {
            reduce.push(Reduce { trip: frame.lanes as u32, stride: 4 });
        }
        let spec = BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: self.broadcast,
            pixel_stride: frame.pixel_stride(input),
            reduce,
            init: match (phase, &self.bias) {
                (0, Some(_)) => Init::Bias,
                (0, None) => Init::Zero,
                _ => Init::Output,
            },
            epilogue: if phase == last_phase { frame.fused.program.clone() } else { VProg::identity() },
            out_pixel_stride: bytes(frame.ys.spatial[frame.ys.spatial.len() - 1]),
            out_block_stride: bytes(frame.ys.channel),
            last_lanes: None,
            tiles: if self.frame.flat { Tiles::Runtime } else { Tiles::Fixed(count as u32) },
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
    fn group(&self, k: &mut KernelCx, cg: &Expr, group: &Expr) {
        self.conv.groups.each_size(k, group, |k, size| self.blocks(k, cg.clone(), group.clone(), size));
    }

    /// `size` says which of the two sizes of groups this is.
    fn blocks(&self, k: &mut KernelCx, cg: Expr, group: Expr, size: usize) {
        let c = self.conv;
        let block = k.let_(cg.clone() * c.out_blocks as i64 + c.groups.start(size, group));
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
            if c.frame.flat {
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
        let place = c.frame.row(k, row.clone());
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
        let place = vec![Expr::i64(0); c.frame.y.shape.len() - 2];
        let (first, end) = (&self.chunk.first, &self.chunk.end);
        let count = c.tiles.count as i64;
        if c.tiles.smaller == 0 {
            return self.leaf(k, 0, &place, c.tiles.start(0, first.clone()), end.clone() - first.clone(), Expr::i64(0));
        }
        let bound = |e: &Expr| (e.clone().min(Expr::i64(count)), e.clone().max(Expr::i64(count)));
        let ((first_a, first_b), (end_a, end_b)) = (bound(first), bound(end));
        let (first_a, first_b) = (k.let_(first_a), k.let_(first_b));
        let before = k.let_(first_b.clone() - first.clone());
        self.leaf(k, 0, &place, c.tiles.start(0, first_a.clone()), end_a - first_a, Expr::i64(0));
        self.leaf(k, 1, &place, c.tiles.start(1, first_b.clone()), end_b - first_b, before);
    }

    /// `pixels` further along the row than `place`, when the chunk has `done` so many tiles.
    fn leaf(&self, k: &mut KernelCx, part: usize, place: &[Expr], pixels: Expr, tiles: Expr, done: Expr) {
        let c = self.chunk.conv;
        let (params, image) = (self.chunk.params, &self.chunk.image);
        let pixels = k.let_(pixels);
        let at = Place { image, block: self.block.clone(), spatial: place, pixels: pixels.clone() };
        let source = c.frame.source(place, pixels);
        let input = c.input(self.chunk.split).at(image, self.in_block.clone(), &source) + self.chunk.shift.clone();
        let address = |buf: Param, index: Expr| LeafArg::Address { buf, index };
        let bias = match params.bias {
            Some(bias) => address(bias, self.block.clone() * c.frame.lanes as i64),
            None => LeafArg::Int(Expr::i64(0)),
        };
        let mut args = vec![
            address(params.x, input),
            address(params.w, self.w.clone()),
            address(params.y, at.position(&c.frame.ys)),
            bias,
            LeafArg::Int(tiles),
        ];
        if self.phase + 1 == c.phases.len() {
            args.extend(addresses(k, &c.frame.fused.feeds, None, c.frame.lanes, &at));
        }
        let (next, per_tile) = self.next;
        if per_tile > 0 {
            args.push(LeafArg::Int(done * per_tile as i64 + next as i64));
        }
        k.leaf(self.leaves[part], args);
    }
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
