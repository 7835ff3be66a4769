//! Matrix products with constant weights by batch-reduce leaves: a row of the left operand is a pixel, its elements are input
//! channels.
//!
//! ```text
//! parallel for group of column blocks, or chunk of rows
//!     for group                    weights of a group are one sequential stream
//!         leaf: tiles of rows, all of K, the epilogue
//! ```

use super::operands::{Feed, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LeafArg};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::Lattice;
use crate::x86::{
    BatchReduceGemm, Broadcast, Init, Input, LeafSpec, MatrixLayout, Reduce, Tile, Tiles, choose_tile, pack_gemm_b,
};
use lehr_ir::{DType, Diag, Op};

/// Blocks of columns that a single row takes at once.
const VECTOR_BLOCKS: usize = 8;
/// More rows than these are shared out among threads; otherwise columns are.
const MANY_ROWS: usize = 112;
/// Chunks of rows that threads share out.
const CHUNKS: usize = 16;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
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
    let n = y.shape.last().copied().expect("products have columns");
    let k_len = b.len() / n;
    let rows = a.len() / k_len;
    let blocks = n.div_ceil(lanes);
    let tile = match rows {
        1 => Tile { pixels: 1, blocks: blocks.min(VECTOR_BLOCKS) as u32, broadcast: Broadcast::PerPixel },
        _ => choose_tile(isa, rows as u32, blocks as u32),
    };
    let (groups, tiles) = (Parts::of(blocks, tile.blocks as usize), Parts::of(rows, tile.pixels as usize));
    let weights = {
        let layout = if trans_b { MatrixLayout::Nk } else { MatrixLayout::Kn };
        let mut values = b.to_f32();
        if alpha != 1.0 {
            values.iter_mut().for_each(|v| *v *= alpha);
        }
        let cut = crate::x86::split_evenly(blocks as u32, tile.blocks);
        let packed = pack_gemm_b(&values, k_len, n, layout, lanes, &cut);
        cx.low.add_weights(DType::F32, packed.len() / 4, packed.into())
    };
    let bias = match (&op, cx.operands() > 2 && cx.has(2)) {
        (Op::Gemm(_), true) => {
            let c = cx.constant(2).expect("the layout pass takes constant biases only").to_f32();
            let c: Vec<f32> = c.iter().cycle().take(n).map(|v| v * beta).collect();
            Some(channel_table(cx, &c, lanes, 0.0))
        }
        _ => None,
    };
    let start = cx.anchor_id().out(0);
    let fused = fused(cx, start, None, &mut |feed| match feed {
        Feed::Same(_) => crate::x86::Access::Same,
        Feed::Channel { .. } => crate::x86::Access::Channel,
        Feed::Splat(_) => crate::x86::Access::Splat,
    });
    let leaf = |blocks: usize, pixels: usize, partial: bool| {
        LeafSpec::Gemm(BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: tile.broadcast,
            pixel_stride: bytes(k_len as i64),
            reduce: vec![Reduce { trip: k_len as u32, stride: 4 }],
            init: if bias.is_some() { Init::Bias } else { Init::Zero },
            epilogue: fused.program.clone(),
            out_pixel_stride: bytes(n as i64),
            out_block_stride: bytes(lanes as i64),
            last_lanes: (partial && !n.is_multiple_of(lanes)).then_some((n % lanes) as u32),
            tiles: Tiles::Runtime,
            prefetch: None,
        })
    };
    // For each size of group, with and without the last column, and each size of tile.
    let mut leaves = vec![];
    for (blocks, _) in groups.sizes() {
        for partial in [false, true] {
            for (pixels, _) in tiles.sizes() {
                leaves.push(cx.low.leaf(&leaf(blocks, pixels, partial)).map_err(|e| leaf_diag(cx, &e))?);
            }
        }
    }
    let by_rows = rows > MANY_ROWS;
    let chunk = if by_rows { tiles.total().div_ceil(CHUNKS) } else { tiles.total() };
    let chunks = tiles.total().div_ceil(chunk);
    let lattice = Lattice { origin: 0, image: 0, channel: lanes as i64, spatial: vec![n as i64] };
    let mut k = cx.kernel("");
    let extent = if by_rows { chunks } else { groups.total() };
    let p = k.parallel(extent as i64, (2 * rows * n * k_len / extent) as i64);
    let from = k.param_for(a.buf, Access::Read);
    let w = k.param_for(weights, Access::Read);
    let to = k.param_for(y.buf, Access::Write);
    let bias = bias.map(|b| k.param_for(b, Access::Read));
    let at = unflatten(&mut k, p, if by_rows { [1, chunks] } else { [extent, 1] }.as_slice());
    let first = k.let_(at[1].clone() * chunk as i64);
    let end = k.let_((first.clone() + chunk as i64).min(Expr::i64(tiles.total() as i64)));
    let per_block = (k_len * lanes) as i64;
    k.serial(if by_rows { groups.total() } else { 1 }, |k, inner| {
        let group = k.let_(if by_rows { inner } else { at[0].clone() });
        let body = |k: &mut KernelCx, size: usize, partial: bool| {
            let (blocks, _) = groups.sizes()[size];
            let skipped = (groups.count * groups.size) as i64;
            let own = match size {
                0 => group.clone() * blocks as i64,
                _ => (group.clone() - groups.count as i64) * blocks as i64 + skipped,
            };
            let block = k.let_(own);
            for (part, (pixels, _)) in tiles.sizes().into_iter().enumerate() {
                let boundary = tiles.count as i64;
                let clamp = |e: &Expr| match (part, tiles.smaller) {
                    (_, 0) => e.clone(),
                    (0, _) => e.clone().min(Expr::i64(boundary)),
                    _ => e.clone().max(Expr::i64(boundary)),
                };
                let (t0, t1) = (k.let_(clamp(&first)), k.let_(clamp(&end)));
                let before = (tiles.count * tiles.size) as i64;
                let row = match part {
                    0 => t0.clone() * pixels as i64,
                    _ => (t0.clone() - boundary) * pixels as i64 + before,
                };
                let row = k.let_(row);
                let place =
                    Place { image: &Expr::i64(0), block: block.clone(), spatial: &[row.clone()], pixels: Expr::i64(0) };
                let address = |buf, index| LeafArg::Address { buf, index };
                let mut args = vec![
                    address(from, row.clone() * k_len as i64),
                    address(w, block.clone() * per_block),
                    address(to, place.position(&lattice)),
                    match bias {
                        Some(bias) => address(bias, block.clone() * lanes as i64),
                        None => LeafArg::Int(Expr::i64(0)),
                    },
                    LeafArg::Int(t1 - t0),
                ];
                args.extend(addresses(k, &fused.feeds, Some(&lattice), lanes, &place));
                let which = (size * 2 + usize::from(partial)) * tiles.sizes().len() + part;
                k.leaf(leaves[which], args);
            }
        };
        // The last group may end inside a block, and has leaves of its own.
        let (last, sizes) = (groups.total() as i64 - 1, groups.sizes().len());
        let below = |bound: i64| Expr::compare(CmpOp::Lt, group.clone(), Expr::i64(bound));
        let tail = |k: &mut KernelCx| match last {
            0 => body(k, 0, true),
            _ => k.if_else(below(last), |k| body(k, sizes - 1, false), |k| body(k, sizes - 1, true)),
        };
        match sizes {
            1 => tail(k),
            _ => k.if_else(below(groups.count as i64), |k| body(k, 0, false), tail),
        }
    });
    k.finish();
    Ok(())
}
