//! Matrix products with constant weights by batch-reduce leaves: a row of the left operand is a pixel, its elements are input
//! channels.
//!
//! ```text
//! parallel for group of column blocks, or chunk of rows
//!     for group                    weights of a group are one sequential stream
//!         leaf: tiles of rows, all of K, the epilogue
//! ```

use super::operands::{Feed, Fused, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LeafArg, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::x86::{
    BatchReduceGemm, Broadcast, Init, Input, Isa, LeafError, LeafSpec, MatrixLayout, Prefetch, Reduce, Tile, Tiles,
    choose_tile, pack_gemm_b, split_evenly,
};
use lehr_ir::{DType, Diag, Op};

/// Blocks of columns that a single row takes at once: an accumulator and a vector of weights for each, and the element.
fn vector_blocks(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 8,
        Isa::Avx2 => 7,
    }
}
/// More rows than these are shared out among threads; otherwise columns are.
const MANY_ROWS: usize = 112;
/// Chunks of rows that threads share out.
const CHUNKS: usize = 16;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let product = Product::new(cx);
    let leaves = product.leaves(cx).map_err(|e| leaf_diag(cx, &e))?;
    product.emit(cx, &leaves);
    Ok(())
}

struct Product {
    a: View,
    y: View,
    rows: usize,
    inner: usize,
    columns: usize,
    lanes: usize,
    tile: Tile,
    /// Groups of blocks of columns, and tiles of rows.
    groups: Parts,
    tiles: Parts,
    weights: BufferId,
    bias: Option<BufferId>,
    fused: Fused,
    /// The result as one image of rows.
    lattice: Lattice,
}

impl Product {
    fn new(cx: &mut NodeCx) -> Product {
        let op = cx.graph.node(cx.anchor_id()).op.clone();
        let (trans_b, alpha, beta) = match &op {
            Op::Gemm(g) => (g.trans_b, g.alpha, g.beta),
            _ => (false, 1.0, 1.0),
        };
        let isa = cx.low.isa();
        let lanes = isa.lanes();
        let a = cx.view(0).expect("the left operand is in a buffer");
        let b = cx.constant(1).expect("the right operand is constant");
        let y = cx.outputs[0].1.clone();
        let columns = y.shape.last().copied().expect("products have columns");
        let inner = b.len() / columns;
        let rows = a.len() / inner;
        let blocks = columns.div_ceil(lanes);
        let tile = match rows {
            1 => Tile { pixels: 1, blocks: blocks.min(vector_blocks(isa)) as u32, broadcast: Broadcast::PerPixel },
            _ => choose_tile(isa, rows as u32, blocks as u32),
        };
        let layout = if trans_b { MatrixLayout::Nk } else { MatrixLayout::Kn };
        let values: Vec<f32> = b.to_f32().iter().map(|v| v * alpha).collect();
        let packed = pack_gemm_b(&values, inner, columns, layout, lanes, &split_evenly(blocks as u32, tile.blocks));
        let weights = cx.low.add_weights(DType::F32, packed.len() / 4, packed.into());
        let bias = matches!(op, Op::Gemm(_)).then(|| cx.constant(2)).flatten().map(|c| {
            // One number for all columns, or one for each.
            let c: Vec<f32> = c.to_f32().iter().cycle().take(columns).map(|v| v * beta).collect();
            channel_table(cx, &c, lanes, 0.0)
        });
        let start = cx.anchor_id().out(0);
        let fused = fused(cx, start, None, &mut |feed| match feed {
            Feed::Same(_) => crate::x86::Access::Same,
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let lattice = Lattice { origin: 0, image: 0, channel: lanes as i64, spatial: vec![columns as i64] };
        let (groups, tiles) = (Parts::of(blocks, tile.blocks as usize), Parts::of(rows, tile.pixels as usize));
        Product { a, y, rows, inner, columns, lanes, tile, groups, tiles, weights, bias, fused, lattice }
    }

    /// For each size of group, without and with the last column, and each size of tile.
    fn leaves(&self, cx: &mut NodeCx) -> Result<Vec<u32>, LeafError> {
        let mut leaves = vec![];
        for (blocks, _) in self.groups.sizes() {
            for partial in [false, true] {
                for (pixels, _) in self.tiles.sizes() {
                    leaves.push(cx.low.leaf(&self.leaf(blocks, pixels, partial))?);
                }
            }
        }
        Ok(leaves)
    }

    fn leaf(&self, blocks: usize, pixels: usize, partial: bool) -> LeafSpec {
        let beyond = self.columns % self.lanes;
        LeafSpec::Gemm(BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: self.tile.broadcast,
            pixel_stride: bytes(self.inner as i64),
            reduce: vec![Reduce { trip: self.inner as u32, stride: 4 }],
            init: if self.bias.is_some() { Init::Bias } else { Init::Zero },
            epilogue: self.fused.program.clone(),
            out_pixel_stride: bytes(self.columns as i64),
            out_block_stride: bytes(self.lanes as i64),
            last_lanes: (partial && beyond != 0).then_some(beyond as u32),
            tiles: Tiles::Runtime,
            prefetch: Prefetch::None,
        })
    }

    fn emit(&self, cx: &mut NodeCx, leaves: &[u32]) {
        let by_rows = self.rows > MANY_ROWS;
        let (groups, tiles) = (self.groups.total(), self.tiles.total());
        let chunk = if by_rows { tiles.div_ceil(CHUNKS) } else { tiles };
        let chunks = tiles.div_ceil(chunk);
        let extent = if by_rows { chunks } else { groups };
        let mut k = cx.kernel("");
        let p = k.parallel(extent as i64, (2 * self.rows * self.columns * self.inner / extent) as i64);
        let calls = Calls {
            product: self,
            leaves,
            from: k.param_for(self.a.buf, Access::Read),
            weights: k.param_for(self.weights, Access::Read),
            to: k.param_for(self.y.buf, Access::Write),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
        };
        if by_rows {
            let first = k.let_(p * chunk as i64);
            let end = k.let_((first.clone() + chunk as i64).min(Expr::i64(tiles as i64)));
            k.serial(groups, |k, group| calls.group(k, group, &first, &end));
        } else {
            calls.group(&mut k, p, &Expr::i64(0), &Expr::i64(tiles as i64));
        }
        k.finish();
    }
}

/// Leaf calls of a kernel.
struct Calls<'p> {
    product: &'p Product,
    leaves: &'p [u32],
    from: Param,
    weights: Param,
    to: Param,
    bias: Option<Param>,
}

impl Calls<'_> {
    /// A group of columns, tiles `first..end`. The last group may end inside a block, and has leaves of its own.
    fn group(&self, k: &mut KernelCx, group: Expr, first: &Expr, end: &Expr) {
        let groups = &self.product.groups;
        let (last, sizes) = (groups.total() as i64 - 1, groups.sizes().len());
        let below = |bound: i64| Expr::compare(CmpOp::Lt, group.clone(), Expr::i64(bound));
        let blocks = |k: &mut KernelCx, size: usize, partial: bool| {
            self.blocks(k, group.clone(), (size, partial), first, end);
        };
        let tail = |k: &mut KernelCx| match last {
            0 => blocks(k, 0, true),
            _ => k.if_else(below(last), |k| blocks(k, sizes - 1, false), |k| blocks(k, sizes - 1, true)),
        };
        match sizes {
            1 => tail(k),
            _ => k.if_else(below(groups.count as i64), |k| blocks(k, 0, false), tail),
        }
    }

    /// `kind` says which size of group this is, and whether it is the last.
    fn blocks(&self, k: &mut KernelCx, group: Expr, kind: (usize, bool), first: &Expr, end: &Expr) {
        let Product { groups, tiles, .. } = self.product;
        let (size, partial) = kind;
        let block = k.let_(group_start(groups, size, group));
        for (part, (pixels, _)) in tiles.sizes().into_iter().enumerate() {
            // Larger tiles come first, smaller ones behind `count`.
            let clamp = |e: &Expr| match (part, tiles.smaller) {
                (_, 0) => e.clone(),
                (0, _) => e.clone().min(Expr::i64(tiles.count as i64)),
                _ => e.clone().max(Expr::i64(tiles.count as i64)),
            };
            let (from, to) = (k.let_(clamp(first)), k.let_(clamp(end)));
            let before = (part * tiles.count * (tiles.size - pixels)) as i64;
            let row = k.let_(from.clone() * pixels as i64 + before);
            let which = (size * 2 + usize::from(partial)) * tiles.sizes().len() + part;
            self.leaf(k, self.leaves[which], &block, row, to - from);
        }
    }

    fn leaf(&self, k: &mut KernelCx, leaf: u32, block: &Expr, row: Expr, tiles: Expr) {
        let p = self.product;
        let address = |buf, index| LeafArg::Address { buf, index };
        let spatial = [row.clone()];
        let place = Place { image: &Expr::i64(0), block: block.clone(), spatial: &spatial, pixels: Expr::i64(0) };
        let mut args = vec![
            address(self.from, row * p.inner as i64),
            address(self.weights, block.clone() * (p.inner * p.lanes) as i64),
            address(self.to, place.position(&p.lattice)),
            match self.bias {
                Some(bias) => address(bias, block.clone() * p.lanes as i64),
                None => LeafArg::Int(Expr::i64(0)),
            },
            LeafArg::Int(tiles),
        ];
        args.extend(addresses(k, &p.fused.feeds, Some(&p.lattice), p.lanes, &place));
        k.leaf(leaf, args);
    }
}

/// The first block of a group of the larger (0) or smaller (1) size.
fn group_start(groups: &Parts, size: usize, group: Expr) -> Expr {
    match size {
        0 => group * groups.size as i64,
        _ => group * (groups.size as i64 - 1) + groups.count as i64,
    }
}
