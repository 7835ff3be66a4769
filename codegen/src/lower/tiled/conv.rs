//! Convolutions as products: implicit GEMM.

use super::{Size, Weights, coordinates, product};
use crate::kernel::{Access, Bound, Expr, Factor, Split, computing_type};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::memory::Axis;
use crate::lower::view::Layout;
use crate::ptx::Gpu;

/// What a convolution is made of; weights are [out channels, channels of a group, taps...].
pub struct Convolution<'a> {
    pub x: &'a [usize],
    pub w: &'a [usize],
    pub y: &'a [usize],
    pub axes: &'a [Axis],
    pub groups: usize,
}

/// A convolution in tiles; false if it is none for them.
pub fn convolution(cx: &mut NodeCx, gpu: Gpu, c: &Convolution) -> bool {
    let (group_out, channels) = (c.w[0] / c.groups, c.w[1]);
    let taps: Vec<usize> = c.axes.iter().map(|a| a.kernel).collect();
    let plane: usize = c.y[2..].iter().product();
    let size = Size {
        batch: c.groups,
        rows: group_out,
        columns: c.y[0] * plane,
        depth: channels * taps.iter().product::<usize>(),
    };
    if !size.is_tiled(computing_type(cx.out_dtype(0))) || plane == 0 || c.x.contains(&0) {
        return false;
    }
    let input = cx.materialized(0);
    let Layout::Strided { strides, offset } = input.layout.clone() else { return false };
    // Steps go through the channels of one tap after another: what depends on the tap alone changes seldom.
    let count: usize = taps.iter().product();
    let constant = cx.constant(1).map(|t| {
        let shape = [c.groups, group_out, size.depth];
        Weights::pack(cx, gpu, &t, shape, |g, row, step| {
            ((g * group_out + row) * channels + step % channels) * count + step / channels
        })
    });
    let weights = if constant.is_none() { Some(cx.materialized(1)) } else { None };
    if weights.as_ref().is_some_and(|w| !w.is_dense()) {
        return false;
    }
    // Taps of one pixel each at the pixel itself: the plane is one axis.
    let pointwise = c.axes.iter().all(|a| a.kernel == 1 && a.stride == 1 && !a.has_border());
    let dense_plane = (3..strides.len()).all(|d| strides[d - 1] == strides[d] * c.x[d] as i64);
    let left = |k: &mut KernelCx, group: &Expr, row: &Expr, step: &Expr| {
        if let Some(weights) = &constant {
            return weights.factor(k, group, row, step);
        }
        let weights = weights.as_ref().expect("weights are constant or computed");
        let first = group.clone() * group_out as i64 + row.clone();
        let (tap, channel) = (step.clone() / channels as i64, step.clone() % channels as i64);
        let at = Split { outer: first * size.depth as i64, inner: channel * count as i64 + tap };
        Factor { buf: k.param_for(weights.buf, Access::Read), at, bounds: vec![], padded: false }
    };
    let right = |k: &mut KernelCx, group: &Expr, column: &Expr, step: &Expr| {
        let image = column.clone() / plane as i64;
        let image = if c.y[0] == 1 { Expr::i64(0) } else { image };
        let pixel = if c.y[0] == 1 { column.clone() } else { column.clone() % plane as i64 };
        let first = group.clone() * channels as i64;
        let mut outer = Expr::i64(offset) + image * strides[0] + first * strides[1];
        if pointwise && dense_plane {
            let last = *strides.last().expect("convolutions have a spatial axis");
            let at = Split { outer: outer + pixel * last, inner: step.clone() * strides[1] };
            return Factor { buf: k.param_for(input.buf, Access::Read), at, bounds: vec![], padded: false };
        }
        let place = coordinates(pixel, &c.y[2..]);
        let mut tap = coordinates(step.clone(), &[&taps[..], &[channels]].concat());
        let channel = tap.pop().expect("the channel is the last");
        let mut inner = channel * strides[1];
        let mut bounds = vec![];
        for (a, axis) in c.axes.iter().enumerate() {
            let from = place[a].clone() * axis.stride as i64 - axis.begin as i64;
            let by = tap[a].clone() * axis.dilation as i64;
            outer = outer + from.clone() * strides[2 + a];
            inner = inner + by.clone() * strides[2 + a];
            if axis.has_border() {
                bounds.push(Bound { at: Split { outer: from, inner: by }, size: axis.size as i64 });
            }
        }
        Factor { buf: k.param_for(input.buf, Access::Read), at: Split { outer, inner }, bounds, padded: false }
    };
    let has_bias = cx.has(2);
    let flat = cx.is_flat_behind(2);
    let store = |k: &mut KernelCx, group: &Expr, row: &Expr, column: &Expr, sum: Expr| {
        let channel = k.let_(group.clone() * group_out as i64 + row.clone());
        let one = c.y[0] == 1;
        let image = if one { Expr::i64(0) } else { k.let_(column.clone() / plane as i64) };
        let pixel = if one { column.clone() } else { k.let_(column.clone() % plane as i64) };
        let mut at = vec![image, channel.clone()];
        match flat {
            true => {
                at.extend((3..c.y.len()).map(|_| Expr::i64(0)));
                at.push(pixel);
            }
            false => {
                for e in coordinates(pixel, &c.y[2..]) {
                    at.push(k.let_(e));
                }
            }
        }
        let sum = if has_bias { sum + k.load(2, &[channel]) } else { sum };
        k.store(0, &at, sum);
    };
    product(cx, gpu, size, &left, &right, &store);
    true
}
