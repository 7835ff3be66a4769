//! Matrix products by leaves: a row of the left operand is a pixel, its elements are input channels.
//!
//! ```text
//! pack the right operand                        if it is no constant, is large, and there are rows enough to make up for it
//! parallel for matrix, chunk of rows, chunk of columns
//!     for phase of the inner axis               so long that the chunk of the left operand stays in the L2 cache
//!         for group of column blocks
//!             leaf: tiles of rows               the first phase starts from the bias, the last one has the epilogue;
//!                                               each brings a part of the next group's vectors to the L2 cache
//! ```
//!
//! A right operand of up to half the L2 cache is packed by the tiles themselves: the first one of a group reads it as it lies and stores
//! its vectors into a panel of the thread, where the others read them. That spares a pass over memory before all else, and no core reads
//! what another has packed. Larger ones would be packed anew for every chunk of rows, and their lines fall into too few sets of the cache.
//!
//! With few rows the weights' streams must not be broken off, and the two inner loops change places.

use super::operands::{Feed, Fused, Place, addresses, channel_table, try_fused};
use super::right_operand::{Form, Right};
use super::{Parts, SHARES, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx, shape_of};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::x86::{
    BatchReduceGemm, Broadcast, COMPACT_STEPS, Init, Input, Isa, LeafError, LeafSpec, MatrixLayout, MatrixTile,
    Prefetch, Reduce, Tile, Tiles, VProg, choose_tile_within,
};
use lehr_ir::{DType, Diag, Op};

/// Up to so many rows a product is bound by memory.
const FEW_ROWS: usize = 16;
/// Blocks of the right operand that are far apart are brought to the L1 cache so many bytes ahead.
const AHEAD: u32 = 2048;
/// Elements of the left operand that a chunk of rows has in a phase, about: a quarter of the L2 cache.
const CHUNK: usize = 1 << 17;
/// Rows that a chunk keeps for each reading of the right operand.
const LEAST_ROWS: usize = 64;
/// Steps of the inner axis that a tile sums at once: the result is read and written once for so many.
const MAX_PHASE: usize = 1024;
/// The same where weights are compact, which have scales for every phase.
const COMPACT_PHASE: usize = 512;
/// Rows whose distance is a multiple of this fall into two sets of the L1 cache or one, which have room for so many lines of them beside
/// the columns' stream.
const ALIAS: usize = 2048;
const MAX_ALIASES: u32 = 9;
/// A right operand that is no constant is left as it lies up to this size, or for up to so many rows: packing would cost more.
const IN_PLACE: usize = 1 << 17;
const IN_PLACE_ROWS: usize = 32;
/// Operations of an element of what is fused behind, where that is no program: as of a function.
const REST_COST: i64 = 32;
/// Steps of the inner axis where rows of a large right operand are read as they lie: as many streams.
const IN_PLACE_PHASE: usize = 32;

/// Rows of a tile, and accumulators of it, where weights are compact. With more rows a product waits for arithmetic, not for weights.
fn compact_tile(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Avx512 => (8, 24),
        Isa::Avx2 => (4, 9),
    }
}

/// Blocks of columns that a single row takes at once: an accumulator and a vector of weights for each, and the element.
fn vector_blocks(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 8,
        Isa::Avx2 => 7,
    }
}

/// The sizes of a product, as the layout pass and the lowering see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Matrices of the result, and of either operand: as many or 1.
    pub matrices: usize,
    left: usize,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

impl Sizes {
    /// `None` if only some of the axes before the last two broadcast, or there are none to be had.
    pub fn of(op: &Op, left: &[usize], right: &[usize]) -> Option<Sizes> {
        if let Op::Gemm(g) = op {
            let (rows, inner) = if g.trans_a { (left[1], left[0]) } else { (left[0], left[1]) };
            let columns = if g.trans_b { right[0] } else { right[1] };
            return Some(Sizes { matrices: 1, left: 1, rows, inner, columns });
        }
        let (&inner, before) = left.split_last()?;
        let [right_batch @ .., _, columns] = right else { return None };
        let columns = *columns;
        let count = |batch: &[usize]| batch.iter().product::<usize>();
        if count(right_batch) == 1 {
            return Some(Sizes { matrices: 1, left: 1, rows: count(before), inner, columns });
        }
        let (&rows, left_batch) = before.split_last()?;
        // Axes of size 1 in front say nothing.
        let trimmed = |batch: &[usize]| batch[batch.iter().take_while(|&&n| n == 1).count()..].to_vec();
        let same = trimmed(left_batch) == trimmed(right_batch);
        let matrices = count(right_batch);
        (same || count(left_batch) == 1).then(|| Sizes { matrices, left: count(left_batch), rows, inner, columns })
    }
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let product = Product::new(cx)?;
    let leaves = product.leaves(cx).map_err(|e| leaf_diag(cx, &e))?;
    product.emit(cx, leaves);
    if product.apart {
        product.emit_rest(cx);
    }
    Ok(())
}

/// A part of the inner axis.
#[derive(Clone, Copy)]
struct Phase {
    len: usize,
    first: bool,
    last: bool,
}

struct Product {
    a: View,
    y: View,
    sizes: Sizes,
    trans_a: bool,
    lanes: usize,
    tile: Tile,
    /// Groups of blocks of columns, and tiles of rows.
    groups: Parts,
    tiles: Parts,
    /// Steps of a phase but the last, and what there are: the only one; or first and last; or first, middle and last.
    phase: usize,
    phases: Vec<Phase>,
    /// Tiles of rows of a chunk.
    row_chunk: usize,
    right: Right,
    /// Whether tiles bring the next group's vectors nearer, which would else come from beyond the L2 cache.
    prefetch: bool,
    bias: Option<BufferId>,
    fused: Fused,
    /// What is fused behind cannot be written as a program for vectors (a power, say): the product goes to scratch, and a plain kernel
    /// does the rest.
    apart: bool,
    /// The result as images of rows.
    lattice: Lattice,
}

impl Product {
    fn new(cx: &mut NodeCx) -> Result<Product, Diag> {
        let op = cx.graph.node(cx.anchor_id()).op.clone();
        let (trans_a, trans_b, alpha, beta) = match &op {
            Op::Gemm(g) => (g.trans_a, g.trans_b, g.alpha, g.beta),
            _ => (false, false, 1.0, 1.0),
        };
        let isa = cx.low.isa();
        let lanes = isa.lanes();
        let a = cx.view(0).expect("the left operand is in a buffer");
        let mut y = cx.outputs[0].1.clone();
        let sizes = Sizes::of(&op, &a.shape, &cx.in_shape(1)).expect("the layout pass has asked");
        let Sizes { rows, inner, columns, .. } = sizes;
        let blocks = columns.div_ceil(lanes);
        let aliases = !trans_a && (4 * inner).is_multiple_of(ALIAS);
        let most = if aliases { MAX_ALIASES } else { u32::MAX };
        let tile = match rows {
            1 => Tile { pixels: 1, blocks: blocks.min(vector_blocks(isa)) as u32, broadcast: Broadcast::PerPixel },
            _ => choose_tile_within(isa, most, rows as u32, blocks as u32),
        };
        let shape = (inner, columns);
        let large = 4 * inner * columns > IN_PLACE;
        let l2 = cx.low.machine.caches.l2;
        // The L2 cache has room for little else.
        let streams = 4 * inner * columns > l2 / 2;
        let layout = if trans_b { MatrixLayout::Nk } else { MatrixLayout::Kn };
        let values: Option<Vec<f32>> = cx.constant(1).map(|b| b.to_f32().iter().map(|v| v * alpha).collect());
        // Weights that the L2 cache holds from run to run are read faster than they are unpacked.
        let (most_rows, accumulators) = compact_tile(isa);
        let streamed = rows <= most_rows && 4 * inner * columns > l2;
        let compact_phase = phase_of(inner, COMPACT_PHASE).next_multiple_of(COMPACT_STEPS);
        let compact = match &values {
            Some(values) if streamed && cx.low.compact => Right::compact(cx, values, layout, shape, compact_phase),
            _ => None,
        };
        let tile = match &compact {
            Some(_) => {
                let most = (accumulators / rows).min(vector_blocks(isa));
                Tile { pixels: rows as u32, blocks: blocks.min(most) as u32, broadcast: Broadcast::PerPixel }
            }
            None => tile,
        };
        let (groups, tiles) = (Parts::of(blocks, tile.blocks as usize), Parts::of(rows, tile.pixels as usize));
        let right = match (compact, values) {
            (Some(right), _) => {
                cx.low.note_compact();
                right
            }
            (None, Some(values)) => Right::constant(cx, &values, layout, shape, &groups, rows <= FEW_ROWS),
            (None, None) => {
                let b = cx.view(1).expect("the right operand is in a buffer");
                // With AVX2, the mask of a last block in place takes a register of its own.
                let fits = isa == Isa::Avx512 || columns.is_multiple_of(lanes);
                match !trans_b && fits {
                    true if !large || rows <= IN_PLACE_ROWS => Right::in_place(cx, &b, shape),
                    true if !streams => Right::panels(cx, &b, shape),
                    _ => Right::packed(cx, &b, trans_b, shape, &groups)?,
                }
            }
        };
        let most = match (right.form, rows <= IN_PLACE_ROWS) {
            (Form::InPlace, true) if large => IN_PLACE_PHASE,
            _ => MAX_PHASE,
        };
        let phase = match right.form {
            Form::Compact(_) => compact_phase,
            // A multiple of the steps of a loop's body.
            _ => phase_of(inner, most).next_multiple_of(8),
        };
        // Of few columns and steps there are more chunks, for all threads to have some.
        let shares = SHARES.div_ceil(sizes.matrices * groups.total()).min(rows.div_ceil(LEAST_ROWS));
        let row_chunk = tiles.total().div_ceil(rows.div_ceil((CHUNK / phase).max(1)).max(shares));
        let prefetch = right.form == Form::Together && streams;
        let bias = matches!(op, Op::Gemm(_)) && cx.has(2) && beta != 0.0;
        let bias = bias.then(|| match cx.constant(2) {
            // One number for all columns, or one for each.
            Some(c) => {
                let c: Vec<f32> = c.to_f32().iter().cycle().take(columns).map(|v| v * beta).collect();
                channel_table(cx, &c, lanes, 0.0)
            }
            None => cx.view(2).expect("the bias is in a buffer").dense_buffer(),
        });
        let start = cx.anchor_id().out(0);
        let fused = try_fused(cx, start, None, &mut |feed| match feed {
            Feed::Same(_) => crate::x86::Access::Same,
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let apart = fused.is_none();
        let fused = fused.unwrap_or_else(|| {
            let shape = shape_of(cx.graph, start);
            y = View::dense(cx.scratch(DType::F32, shape.iter().product()), DType::F32, shape);
            Fused { program: VProg::identity(), feeds: vec![] }
        });
        let image = (rows * columns) as i64;
        let lattice = Lattice { origin: 0, image, channel: lanes as i64, spatial: vec![columns as i64] };
        let phases = phases(inner, phase);
        Ok(Product {
            a,
            y,
            sizes,
            trans_a,
            lanes,
            tile,
            groups,
            tiles,
            phase,
            phases,
            row_chunk,
            right,
            prefetch,
            bias,
            fused,
            apart,
            lattice,
        })
    }

    /// For each phase and size of group, without and with the last column, and each size of tile.
    fn leaves(&self, cx: &mut NodeCx) -> Result<Leaves, LeafError> {
        let mut leaves = Leaves { tiles: vec![], packing: vec![] };
        for phase in &self.phases {
            for (blocks, _) in self.groups.sizes() {
                for partial in [false, true] {
                    for (pixels, _) in self.tiles.sizes() {
                        let strides = self.right.strides(blocks);
                        if strides.packs {
                            let tile =
                                BatchReduceGemm { tiles: Tiles::Fixed(1), ..self.tile(phase, blocks, pixels, partial) };
                            let spec = LeafSpec::Matrix(MatrixTile { tile, right: strides });
                            leaves.packing.push(cx.low.leaf(&spec)?);
                        }
                        let right = if strides.packs { self.right.panel_strides(blocks) } else { strides };
                        let tile = self.tile(phase, blocks, pixels, partial);
                        leaves.tiles.push(cx.low.leaf(&LeafSpec::Matrix(MatrixTile { tile, right }))?);
                    }
                }
            }
        }
        Ok(leaves)
    }

    /// Elements of the left operand from row to row, and from step to step.
    fn left_strides(&self) -> (usize, usize) {
        if self.trans_a { (1, self.sizes.rows) } else { (self.sizes.inner, 1) }
    }

    fn tile(&self, phase: &Phase, blocks: usize, pixels: usize, partial: bool) -> BatchReduceGemm {
        let beyond = self.sizes.columns % self.lanes;
        let (row, step) = self.left_strides();
        BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: self.tile.broadcast,
            pixel_stride: bytes(row as i64),
            reduce: vec![Reduce { trip: phase.len as u32, stride: bytes(step as i64) }],
            init: match (phase.first, self.bias) {
                (false, _) => Init::Output,
                (true, Some(_)) => Init::Bias,
                (true, None) => Init::Zero,
            },
            epilogue: if phase.last { self.fused.program.clone() } else { VProg::identity() },
            out_pixel_stride: bytes(self.sizes.columns as i64),
            out_block_stride: bytes(self.lanes as i64),
            last_lanes: (partial && beyond != 0).then_some(beyond as u32),
            tiles: Tiles::Runtime,
            prefetch: match self.right.form {
                Form::Apart | Form::Compact(_) => Prefetch::Ahead(AHEAD),
                Form::Together if self.prefetch => Prefetch::Next(self.next_bytes(phase, blocks) as u32),
                Form::Together | Form::InPlace | Form::Panels => Prefetch::None,
            },
        }
    }

    /// Bytes of the next group's vectors in the same phase that a tile brings.
    fn next_bytes(&self, phase: &Phase, blocks: usize) -> usize {
        // In lines, for the last tiles to bring nothing rather than for all to leave something.
        (4 * phase.len * blocks * self.lanes / self.row_chunk).next_multiple_of(64)
    }

    /// What is fused behind, from the product in scratch.
    fn emit_rest(&self, cx: &mut NodeCx) {
        let mut k = cx.kernel("_rest");
        k.nest(&self.y.shape, REST_COST, LoopKind::Vector, |k, at| {
            let value = k.load_view(&self.y, at);
            k.store(0, at, value);
        });
        k.finish();
    }

    fn emit(&self, cx: &mut NodeCx, leaves: Leaves) {
        let Sizes { matrices, rows, inner, columns, .. } = self.sizes;
        let row_chunk = self.row_chunk;
        let row_chunks = self.tiles.total().div_ceil(row_chunk);
        let wanted = SHARES.div_ceil(matrices * row_chunks).min(self.groups.total());
        let column_chunk = self.groups.total().div_ceil(wanted);
        let column_chunks = self.groups.total().div_ceil(column_chunk);
        let extent = matrices * row_chunks * column_chunks;
        let panel = self.phase * self.tile.blocks as usize * self.lanes;
        let panels = (self.right.form == Form::Panels).then(|| cx.scratch(DType::F32, extent * panel));
        let mut k = cx.kernel("");
        let p = k.parallel(extent as i64, (2 * matrices * rows * columns * inner / extent) as i64);
        let at = unflatten(&mut k, p, &[matrices, row_chunks, column_chunks]);
        let mut range = |at: &Expr, chunk: usize, total: usize| {
            let first = k.let_(at.clone() * chunk as i64);
            let end = k.let_((first.clone() + chunk as i64).min(Expr::i64(total as i64)));
            (first, end)
        };
        let tiles = range(&at[1], row_chunk, self.tiles.total());
        let groups = range(&at[2], column_chunk, self.groups.total());
        let calls = Calls {
            product: self,
            leaves,
            matrix: at[0].clone(),
            tiles,
            groups,
            from: k.param_for(self.a.dense_buffer(), Access::Read),
            right: k.param_for(self.right.buf, Access::Read),
            // Phases behind the first go on from what lies there.
            to: k.param_for(
                self.y.dense_buffer(),
                if self.phases.len() > 1 { Access::ReadWrite } else { Access::Write },
            ),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
            panel: panels.map(|panels| {
                let own = k.range_start() * panel as i64;
                let own = k.let_(own);
                LeafArg::Address { buf: k.param_for(panels, Access::ReadWrite), index: own }
            }),
        };
        let (first, end) = (calls.groups.0.clone(), calls.groups.1.clone());
        match self.right.form {
            Form::Apart | Form::Compact(_) => k.for_(LoopKind::Serial, first, end, 1, |k, group| {
                self.each_phase(k, |k, kind, inner| calls.group(k, kind, &group, inner));
            }),
            Form::Together | Form::InPlace | Form::Panels => self.each_phase(&mut k, |k, kind, inner| {
                let (first, end) = (first.clone(), end.clone());
                k.for_(LoopKind::Serial, first, end, 1, |k, group| calls.group(k, kind, &group, inner));
            }),
        }
        k.finish();
    }

    /// Code for every phase: `f` gets its kind and its first step.
    fn each_phase(&self, k: &mut KernelCx, f: impl Fn(&mut KernelCx, usize, &Expr)) {
        f(k, 0, &Expr::i64(0));
        let before_last = ((self.sizes.inner - 1) / self.phase) as i64;
        if self.phases.len() == 3 {
            k.for_(LoopKind::Serial, Expr::i64(1), Expr::i64(before_last), 1, |k, n| {
                let inner = k.let_(n * self.phase as i64);
                f(k, 1, &inner);
            });
        }
        if self.phases.len() > 1 {
            f(k, self.phases.len() - 1, &Expr::i64(before_last * self.phase as i64));
        }
    }
}

/// The steps of a phase, of `most` at most and all as long as can be.
fn phase_of(inner: usize, most: usize) -> usize {
    inner.div_ceil(inner.div_ceil(most))
}

/// The kinds of phases of `inner` steps, all of `len` but the last.
fn phases(inner: usize, len: usize) -> Vec<Phase> {
    let last = inner - (inner - 1) / len * len;
    match inner.div_ceil(len) {
        // All there is may be less than a phase.
        1 => vec![Phase { len: inner, first: true, last: true }],
        n => {
            let middle = (n > 2).then_some(Phase { len, first: false, last: false });
            let first = Phase { len, first: true, last: false };
            [first].into_iter().chain(middle).chain([Phase { len: last, first: false, last: true }]).collect()
        }
    }
}

/// Leaves of each kind of tile. Those that pack are there where the right operand is packed by tiles.
struct Leaves {
    tiles: Vec<u32>,
    packing: Vec<u32>,
}

/// Leaf calls of a kernel.
struct Calls<'p> {
    product: &'p Product,
    leaves: Leaves,
    matrix: Expr,
    /// First and end of the chunk.
    tiles: (Expr, Expr),
    groups: (Expr, Expr),
    from: Param,
    right: Param,
    to: Param,
    bias: Option<Param>,
    /// The thread's panel.
    panel: Option<LeafArg>,
}

impl Calls<'_> {
    /// A group of columns in a phase of this kind, from step `inner` on.
    fn group(&self, k: &mut KernelCx, phase: usize, group: &Expr, inner: &Expr) {
        let groups = &self.product.groups;
        groups.each_kind(k, group, |k, size, last| {
            let block = k.let_(groups.start(size, group.clone()));
            self.tiles(k, phase, (size, last), &block, inner);
        });
    }

    /// Its tiles; `size` says which size it is, and whether it is the last.
    fn tiles(&self, k: &mut KernelCx, phase: usize, (size, partial): (usize, bool), block: &Expr, inner: &Expr) {
        let Product { groups, tiles, .. } = self.product;
        let (first, end) = &self.tiles;
        let kinds = (groups.sizes().len(), tiles.sizes().len());
        let blocks = groups.sizes()[size].0;
        let which = |part: usize| ((phase * kinds.0 + size) * 2 + usize::from(partial)) * kinds.1 + part;
        let mut first = first.clone();
        if self.panel.is_some() {
            tiles.each_size(k, &first, |k, part| {
                let row = k.let_(tiles.start(part, first.clone()));
                self.leaf(k, (self.leaves.packing[which(part)], phase), (block, blocks), inner, row, None);
            });
            first = k.let_(first + 1);
        }
        for (part, (pixels, _)) in tiles.sizes().into_iter().enumerate() {
            // Larger tiles come first, smaller ones behind `count`.
            let clamp = |e: &Expr| match (part, tiles.smaller) {
                (_, 0) => e.clone(),
                (0, _) => e.clone().min(Expr::i64(tiles.count as i64)),
                _ => e.clone().max(Expr::i64(tiles.count as i64)),
            };
            let (from, to) = (k.let_(clamp(&first)), k.let_(clamp(end)));
            let before = (part * tiles.count * (tiles.size - pixels)) as i64;
            let row = k.let_(from.clone() * pixels as i64 + before);
            let done = from.clone() - first.clone();
            self.leaf(k, (self.leaves.tiles[which(part)], phase), (block, blocks), inner, row, Some((to - from, done)));
        }
    }

    /// So many tiles from `row` on, with what the chunk has done before them; or one that packs.
    fn leaf(
        &self,
        k: &mut KernelCx,
        (leaf, phase): (u32, usize),
        (block, blocks): (&Expr, usize),
        inner: &Expr,
        row: Expr,
        tiles: Option<(Expr, Expr)>,
    ) {
        let p = self.product;
        let address = |buf, index| LeafArg::Address { buf, index };
        let spatial = [row.clone()];
        let place = Place { image: &self.matrix, block: block.clone(), spatial: &spatial, pixels: Expr::i64(0) };
        let (per_row, per_step) = p.left_strides();
        let left = if p.sizes.left == 1 { 0 } else { p.sizes.rows * p.sizes.inner };
        let left = self.matrix.clone() * left as i64 + row * per_row as i64 + inner.clone() * per_step as i64;
        let right = match (&self.panel, &tiles) {
            (Some(panel), Some(_)) => panel.clone(),
            _ => address(self.right, p.right.position(&self.matrix, block, blocks, inner)),
        };
        let count = tiles.as_ref().map_or(Expr::i64(1), |(count, _)| count.clone());
        let mut args = vec![
            address(self.from, left),
            right,
            address(self.to, place.position(&p.lattice)),
            match self.bias {
                Some(bias) => address(bias, block.clone() * p.lanes as i64),
                None => LeafArg::Int(Expr::i64(0)),
            },
            LeafArg::Int(count),
        ];
        if p.phases[phase].last {
            args.extend(addresses(k, &p.fused.feeds, Some(&p.lattice), p.lanes, &place));
        }
        match tiles {
            None => args.extend(self.panel.clone()),
            Some((_, done)) if p.prefetch => {
                let group = (4 * p.sizes.inner * blocks * p.lanes) as i64;
                let done = done * p.next_bytes(&p.phases[phase], blocks) as i64;
                args.push(LeafArg::Int(done + group));
            }
            Some(_) => {}
        }
        k.leaf(leaf, args);
    }
}
