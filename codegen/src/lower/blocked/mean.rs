//! Means over all spatial axes of a value in blocks, into a row-major result.
//!
//! ```text
//! parallel for image, block
//!     for line                  of vectors one behind the other
//!         partial[..] = sums of the line's pieces        leaf, pieces side by side in registers
//!     while partial sums are many
//!         partial[..] = sums of pieces of those          leaf
//!     mean = the sum of those / pixels                   leaf
//! ```
//!
//! Planes of [`MAX_SUM`] pixels and less go to the last leaf as they are.

use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Expr, LeafArg};
use crate::lower::cx::NodeCx;
use crate::lower::nest::unflatten;
use crate::program::BufferId;
use crate::x86::{BatchReduceGemm, Broadcast, Init, Input, LeafError, LeafSpec, Prefetch, Reduce, Tiles, VProg};
use lehr_ir::{DType, Diag};

/// So many numbers are added up one after the other, at most. Each addition rounds to the size of the sum: those of equal numbers
/// lose 1e-8 of it each time, always to the same side.
pub const MAX_SUM: usize = 1 << 9;
/// Vectors of a piece.
const MAX_PIECE: usize = 1 << 7;
const MIN_PIECE: usize = 1 << 3;
/// Pieces side by side: an accumulator each.
const PIECES: usize = 12;

/// A leaf that sums pieces of a line: from the line's vector `from` on, into partial sums from `to` on.
struct Call {
    leaf: u32,
    from: usize,
    to: usize,
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let x = cx.view(0).expect("the input is in a buffer");
    let y = cx.outputs[0].1.clone();
    let (xs, spatial) = (x.lattice(), x.shape[2..].to_vec());
    let pixels: usize = spatial.iter().product();
    let (images, blocks) = (x.shape[0], x.shape[1] / lanes);
    let step = lanes as i64;
    let axes = merged(&spatial, &xs.spatial);
    let failed = |cx: &NodeCx, e: LeafError| leaf_diag(cx, &e);

    let (&(len, stride), lines) = axes.split_last().expect("a vector is an axis");
    let sizes: Vec<usize> = lines.iter().map(|l| l.0).collect();
    let mut stages: Vec<(Vec<Call>, BufferId, usize)> = vec![];
    let (mut left, mut last) = (pixels, axes.clone());
    while left > if stages.is_empty() { MAX_SUM } else { MAX_PIECE } {
        let first = stages.is_empty();
        let (len, stride, times) = if first { (len, stride, sizes.iter().product()) } else { (left, step, 1) };
        let (calls, sums) = pieces(cx, len, stride, lanes).map_err(|e| failed(cx, e))?;
        left = sums * times;
        last = vec![(left, step)];
        stages.push((calls, cx.scratch(DType::F32, images * blocks * left * lanes), left));
    }
    let reduce = last.iter().map(|&(n, stride)| Reduce { trip: n as u32, stride: bytes(stride) }).collect();
    let over_pixels = VProg::build(|p, sum| {
        let n = p.constant(pixels as f32);
        p.div(sum, n)
    });
    let mean = cx.low.leaf(&sum(1, 1, 0, reduce, over_pixels, lanes)).map_err(|e| failed(cx, e))?;

    let mut k = cx.kernel("");
    let p = k.parallel((images * blocks) as i64, (pixels * lanes) as i64);
    let at = unflatten(&mut k, p.clone(), &[images, blocks]);
    let start = vec![Expr::i64(0); spatial.len()];
    let mut from = (x.buf, k.let_(xs.at(&at[0], at[1].clone(), &start)));
    for (i, (calls, to, sums)) in stages.iter().enumerate() {
        let to = (*to, k.let_(p.clone() * (sums * lanes) as i64));
        let (read, write) = (k.param_for(from.0, Access::Read), k.param_for(to.0, Access::Write));
        let (sizes, stride) = if i == 0 { (&sizes[..], stride) } else { (&[][..], step) };
        let per_line = (sums / sizes.iter().product::<usize>()) as i64;
        k.loops(sizes, |k, line| {
            let number = line.iter().zip(sizes).fold(Expr::i64(0), |n, (i, &size)| n * size as i64 + i.clone());
            let offset = line.iter().zip(lines).fold(Expr::i64(0), |o, (i, l)| o + i.clone() * l.1);
            for call in calls {
                let input = from.1.clone() + offset.clone() + call.from as i64 * stride;
                let output = to.1.clone() + (number.clone() * per_line + call.to as i64) * step;
                k.leaf(call.leaf, arguments((read, input), (write, output)));
            }
        });
        from = to;
    }
    let (read, write) = (k.param_for(from.0, Access::Read), k.param_for(y.buf, Access::Write));
    k.leaf(mean, arguments((read, from.1), (write, p * step)));
    k.finish();
    Ok(())
}

/// Axes as sizes and strides without those of one element, and with those merged that continue each other.
fn merged(sizes: &[usize], strides: &[i64]) -> Vec<(usize, i64)> {
    let mut axes: Vec<(usize, i64)> = vec![];
    for (&size, &stride) in sizes.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match axes.last_mut() {
            Some(outer) if outer.1 == stride * size as i64 => *outer = (outer.0 * size, stride),
            _ => axes.push((size, stride)),
        }
    }
    if axes.is_empty() { vec![(1, 0)] } else { axes }
}

/// Leaves for the pieces of a line, and how many pieces there are.
fn pieces(cx: &mut NodeCx, len: usize, stride: i64, lanes: usize) -> Result<(Vec<Call>, usize), LeafError> {
    let (mut calls, mut from, mut to) = (vec![], 0, 0);
    for (size, count) in Parts::of(len, len.div_ceil(PIECES).clamp(MIN_PIECE, MAX_PIECE)).sizes() {
        for (pixels, tiles) in Parts::of(count, PIECES).sizes() {
            let reduce = vec![Reduce { trip: size as u32, stride: bytes(stride) }];
            let pixel_stride = bytes(size as i64 * stride);
            let leaf = cx.low.leaf(&sum(pixels, tiles, pixel_stride, reduce, VProg::identity(), lanes))?;
            calls.push(Call { leaf, from, to });
            (from, to) = (from + pixels * tiles * size, to + pixels * tiles);
        }
    }
    Ok((calls, to))
}

/// Sums of vectors, `pixels` at a time and `pixel_stride` bytes from one to the next.
fn sum(pixels: usize, tiles: usize, pixel_stride: i32, reduce: Vec<Reduce>, epilogue: VProg, lanes: usize) -> LeafSpec {
    LeafSpec::Gemm(BatchReduceGemm {
        pixels: pixels as u32,
        blocks: 1,
        input: Input::Sum,
        broadcast: Broadcast::PerFma,
        pixel_stride,
        reduce,
        init: Init::Zero,
        epilogue,
        out_pixel_stride: bytes(lanes as i64),
        out_block_stride: 0,
        last_lanes: None,
        tiles: Tiles::Fixed(tiles as u32),
        prefetch: Prefetch::None,
    })
}

/// There are neither weights nor a bias, and the number of tiles is the leaf's own.
fn arguments(from: (u32, Expr), to: (u32, Expr)) -> Vec<LeafArg> {
    let address = |(buf, index)| LeafArg::Address { buf, index };
    let none = || LeafArg::Int(Expr::i64(0));
    vec![address(from), none(), address(to), none(), none()]
}
