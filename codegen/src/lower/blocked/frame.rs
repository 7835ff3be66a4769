//! What convolutions by leaves start from: the tensors and how they lie, the window, and the rows of pixels that tiles are cut of.

use super::operands::{Feed, Fused, fused};
use super::{SHARES, bytes};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, Layout, View, row_major};
use crate::x86::Reduce;
use lehr_ir::DType;
use lehr_ir::ops::Conv;

pub struct Frame {
    /// In blocks with a border that covers the padding, or row-major, bordered as well.
    pub x: View,
    pub y: View,
    pub xs: Lattice,
    pub ys: Lattice,
    pub strides: Vec<i64>,
    pub pads: Vec<i64>,
    pub dilations: Vec<i64>,
    pub kernel: Vec<usize>,
    pub lanes: usize,
    /// The whole plane is one row: a 1x1 kernel goes over planes without borders.
    pub flat: bool,
    /// Rows of an image, and their pixels.
    pub rows: usize,
    pub row_pixels: usize,
    /// What is fused behind.
    pub fused: Fused,
}

impl Frame {
    /// Of the convolution that is being lowered, whose weights are constant.
    pub fn of(cx: &mut NodeCx, op: &Conv) -> Frame {
        let x = cx.view(0).expect("the input is in a buffer");
        let x = if x.block().is_none() { bordered(cx, &x, &op.pads) } else { x };
        let y = cx.outputs[0].1.clone();
        let (xs, ys) = (x.lattice(), y.lattice());
        let kernel = cx.in_shape(1)[2..].to_vec();
        let n = kernel.len();
        let pointwise = kernel.iter().chain(&op.strides).all(|&k| k == 1) && op.pads.iter().all(|&p| p == 0);
        let spatial = &y.shape[2..];
        let mut flat = pointwise && xs.is_flat(&x.shape[2..]) && ys.is_flat(spatial);
        let fused = fused(cx, cx.anchor_id().out(0), None, &mut |feed| match feed {
            Feed::Same(view) => {
                let lattice = view.lattice();
                flat &= lattice.is_flat(&view.shape[2..]);
                crate::x86::Access::Strided { pixel: bytes(lattice.spatial[n - 1]), block: bytes(lattice.channel) }
            }
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let plane: usize = spatial.iter().product();
        let row_pixels = if flat { plane } else { spatial[n - 1] };
        let signed = |list: &[usize]| list.iter().map(|&n| n as i64).collect();
        Frame {
            strides: signed(&op.strides),
            pads: signed(&op.pads[..n]),
            dilations: signed(&op.dilations),
            lanes: cx.low.isa().lanes(),
            rows: plane / row_pixels,
            kernel,
            flat,
            row_pixels,
            fused,
            x,
            y,
            xs,
            ys,
        }
    }

    pub fn images(&self) -> usize {
        self.y.shape[0]
    }

    /// Pixels of an image of the result.
    pub fn plane(&self) -> usize {
        self.rows * self.row_pixels
    }

    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether the input is in blocks of channels.
    pub fn is_blocked(&self) -> bool {
        self.x.block().is_some()
    }

    /// Whether channels are in order wherever they are in blocks.
    pub fn is_in_order(&self) -> bool {
        [&self.x, &self.y].iter().all(|v| v.order().is_none_or(|o| o.is_plain()))
    }

    /// Where a row of the result begins.
    pub fn row(&self, k: &mut KernelCx, row: Expr) -> Vec<Expr> {
        let mut place = unflatten(k, row, &self.y.shape[2..self.y.shape.len() - 1]);
        place.push(Expr::i64(0));
        place
    }

    /// Where the window of the pixel that is so many behind a place of the result begins in the input.
    pub fn source(&self, place: &[Expr], pixels: Expr) -> Vec<Expr> {
        let start = |d: usize| place[d].clone() * self.strides[d] + Expr::i64(-self.pads[d]);
        let mut source: Vec<Expr> = (0..place.len()).map(start).collect();
        let last = source.len() - 1;
        source[last] = source[last].clone() + pixels * self.strides[last];
        source
    }

    /// Bytes from pixel to pixel of an input that lies so.
    pub fn pixel_stride(&self, input: &Lattice) -> i32 {
        let last = self.strides.len() - 1;
        bytes(self.strides[last] * input.spatial[last])
    }

    /// The sums over the window in an input that lies so.
    pub fn window<'f>(&'f self, input: &'f Lattice) -> impl Iterator<Item = Reduce> + 'f {
        let axes = self.kernel.iter().zip(&self.dilations).zip(&input.spatial);
        axes.map(|((&taps, dilation), step)| Reduce { trip: taps as u32, stride: bytes(dilation * step) })
    }
}

/// A row-major input with its padding around it: itself if there is none, else a copy.
fn bordered(cx: &mut NodeCx, x: &View, pads: &[usize]) -> View {
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
    // Images have few planes: threads share out their lines, too.
    let first_lines = lines.first().copied().unwrap_or(1);
    let chunks = (2 * SHARES).div_ceil(planes).min(first_lines);
    let mut k = cx.kernel("_pad");
    let p = k.parallel((planes * chunks) as i64, (size / chunks) as i64);
    let from = k.param_for(x.buf, Access::Read);
    let to = k.param_for(buf, Access::Write);
    let at = unflatten(&mut k, p.clone(), &[shape[0], shape[1], chunks]);
    let start = k.let_(p / chunks as i64 * size as i64);
    let is_first = Expr::compare(CmpOp::Eq, at[2].clone(), Expr::i64(0));
    let zero = |k: &mut KernelCx| super::convert::zero_axis(k, to, start.clone(), &padded, &border, 1);
    k.if_(is_first, zero);
    let (xs, ys) = (x.lattice(), inside.lattice());
    let bound = |chunk: Expr| chunk * first_lines as i64 / chunks as i64;
    let (low, high) = (k.let_(bound(at[2].clone())), k.let_(bound(at[2].clone() + 1)));
    let copy = |k: &mut KernelCx, line: &[Expr]| {
        let mut place = line.to_vec();
        place.push(Expr::i64(0));
        let source = k.let_(xs.at(&at[0], at[1].clone(), &place));
        let target = k.let_(ys.at(&at[0], at[1].clone(), &place));
        k.vector(*width, |k, w| {
            let value = k.builder().load(from, source.clone() + w.clone() * xs.spatial[n - 1]);
            k.builder().store(to, target.clone() + w, value);
        });
    };
    match lines {
        [] => copy(&mut k, &[]),
        [_, inner @ ..] => k.for_(LoopKind::Serial, low, high, 1, |k, first| {
            k.loops(inner, |k, rest| copy(k, &[std::slice::from_ref(&first), rest].concat()));
        }),
    }
    k.finish();
    inside
}
