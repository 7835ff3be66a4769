//! Transposed convolutions for GPUs, as what each result gathers.
//!
//! ```text
//! y[o, p] = sum over c, k:  x[c, i] * w[c, o, k]   where  i * stride + k * dilation = p + pad
//! ```
//!
//! Results at `p + pad = stride * q + r` of one *phase* r see the same taps, every `stride / gcd(stride, dilation)`th: a phase is a
//! convolution of stride 1, a product like any other, and no two threads add to one result.

use super::cx::{KernelCx, NodeCx};
use super::tiled::{self, Size, Weights, coordinates};
use crate::kernel::{Access, Bound, Expr, Factor, LoopKind, Split, computing_type};
use crate::ptx::Gpu;
use lehr_ir::ops::ConvTranspose;

/// One axis of a phase: result `p = first + stride * n` for n below `count`; tap t is `k = tap + tap_step * t` and reads
/// `i = n + shift - back * t`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    first: usize,
    stride: usize,
    count: usize,
    taps: usize,
    tap: usize,
    tap_step: usize,
    shift: i64,
    back: i64,
    /// Of the input.
    size: usize,
}

/// The phases of one axis that have results.
fn phases(op: &ConvTranspose, a: usize, size: usize, kernel: usize, out: usize) -> Vec<Axis> {
    let (stride, dilation) = (op.strides[a], op.dilations[a]);
    let common = gcd(stride, dilation);
    let tap_step = stride / common;
    let of = |first: usize| {
        // Wide: attributes may be absurd as long as the result's size is not.
        let from_tap = |k: usize| first as i128 + op.pads[a] as i128 - k as i128 * dilation as i128;
        // Taps of the phase are an arithmetic progression; none if k * dilation never has its remainder.
        let tap = (0..kernel.min(tap_step)).find(|&k| from_tap(k) % stride as i128 == 0);
        let taps = tap.map_or(0, |tap| (kernel - tap).div_ceil(tap_step));
        let tap = tap.unwrap_or(0);
        let far = 1i128 << 40;
        Axis {
            first,
            stride,
            count: (out - first).div_ceil(stride),
            taps,
            tap,
            tap_step,
            shift: from_tap(tap).div_euclid(stride as i128).clamp(-far, far) as i64,
            back: ((dilation / common) as i128).min(far) as i64,
            size,
        }
    };
    (0..stride.min(out)).map(of).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The whole of one phase: shapes, and what its axes are.
struct Phase<'a> {
    x: &'a [usize],
    w: &'a [usize],
    groups: usize,
    axes: Vec<Axis>,
}

/// Phases beyond this are too many kernels.
const MOST: usize = 64;

/// Whether a transposed convolution has few phases.
pub fn has_few(op: &ConvTranspose, y: &[usize]) -> bool {
    let axes = op.strides.iter().zip(&y[2..]);
    axes.fold(1usize, |n, (&stride, &out)| n.saturating_mul(stride.min(out))) <= MOST
}

pub fn conv_transpose(op: &ConvTranspose, cx: &mut NodeCx, gpu: Gpu) {
    let (x, w, y) = (cx.in_shape(0), cx.in_shape(1), cx.out_shape(0));
    let choices: Vec<Vec<Axis>> = (0..x.len() - 2).map(|a| phases(op, a, x[2 + a], w[2 + a], y[2 + a])).collect();
    let sizes: Vec<usize> = choices.iter().map(Vec::len).collect();
    for n in 0..sizes.iter().product() {
        let mut rest = n;
        let axes = choices.iter().map(|c| {
            let axis = c[rest % c.len()];
            rest /= c.len();
            axis
        });
        let phase = Phase { x: &x, w: &w, groups: op.groups, axes: axes.collect() };
        if !phase.as_product(cx, gpu) {
            phase.plain(cx);
        }
    }
}

impl Phase<'_> {
    fn counts(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.count).collect()
    }

    fn taps(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.taps).collect()
    }

    /// Channels of a group: of the input, and of the result.
    fn channels(&self) -> (usize, usize) {
        (self.x[1] / self.groups, self.w[1])
    }

    /// The result's place along each axis.
    fn place(&self, at: &[Expr]) -> Vec<Expr> {
        self.axes.iter().zip(at).map(|(a, n)| n.clone() * a.stride as i64 + a.first as i64).collect()
    }

    /// The weight's place along each axis.
    fn tap(&self, at: &[Expr]) -> Vec<Expr> {
        self.axes.iter().zip(at).map(|(a, t)| t.clone() * a.tap_step as i64 + a.tap as i64).collect()
    }

    /// Result channels as rows, results of the phase as columns, channels of the taps as steps; false if that is no product for tiles.
    fn as_product(&self, cx: &mut NodeCx, gpu: Gpu) -> bool {
        let (counts, taps) = (self.counts(), self.taps());
        let (group_in, group_out) = self.channels();
        let (plane, count) = (counts.iter().product::<usize>(), taps.iter().product::<usize>());
        let size = Size { batch: self.groups, rows: group_out, columns: self.x[0] * plane, depth: group_in * count };
        if !size.is_tiled(computing_type(cx.out_dtype(0))) {
            return false;
        }
        let input = cx.materialized(0);
        let kernel: usize = self.w[2..].iter().product();
        // The position of a tap in the weights' last axes.
        let flat_tap = |t: usize| {
            let (mut rest, mut at, mut inner) = (t, 0, 1);
            for d in (0..taps.len()).rev() {
                at += (self.axes[d].tap + self.axes[d].tap_step * (rest % taps[d])) * inner;
                rest /= taps[d];
                inner *= self.w[2 + d];
            }
            at
        };
        let Some(constant) = cx.constant(1) else { return false };
        let weights = Weights::pack(cx, gpu, &constant, [self.groups, group_out, size.depth], |g, row, step| {
            ((g * group_in + step % group_in) * group_out + row) * kernel + flat_tap(step / group_in)
        });
        let left = |k: &mut KernelCx, group: &Expr, row: &Expr, step: &Expr| weights.factor(k, group, row, step);
        let right = |k: &mut KernelCx, group: &Expr, column: &Expr, step: &Expr| {
            let strides = input.strides();
            let (image, pixel) = self.image_and_pixel(column.clone(), plane);
            let at = coordinates(pixel, &counts);
            let mut tap = coordinates(step.clone(), &[&taps[..], &[group_in]].concat());
            let channel = tap.pop().expect("the channel is the last");
            let mut outer = image * strides[0] + group.clone() * (group_in as i64 * strides[1]) + input.offset();
            let mut inner = channel * strides[1];
            let mut bounds = vec![];
            for (d, axis) in self.axes.iter().enumerate() {
                let from = at[d].clone() + axis.shift;
                let by = tap[d].clone() * -axis.back;
                outer = outer + from.clone() * strides[2 + d];
                inner = inner + by.clone() * strides[2 + d];
                bounds.push(Bound { at: Split { outer: from, inner: by }, size: axis.size as i64 });
            }
            Factor { buf: k.param_for(input.buf, Access::Read), at: Split { outer, inner }, bounds, padded: false }
        };
        let has_bias = cx.has(2);
        tiled::product(cx, gpu, size, &left, &right, &|k, group, row, column, sum| {
            let channel = k.let_(group.clone() * group_out as i64 + row.clone());
            let (image, pixel) = self.image_and_pixel(column.clone(), plane);
            let mut at = vec![k.let_(image), channel.clone()];
            let pixel = k.let_(pixel);
            at.extend(self.place(&coordinates(pixel, &counts)).into_iter().map(|e| k.let_(e)));
            let sum = if has_bias { sum + k.load(2, &[channel]) } else { sum };
            k.store(0, &at, sum);
        });
        true
    }

    fn image_and_pixel(&self, column: Expr, plane: usize) -> (Expr, Expr) {
        match self.x[0] {
            1 => (Expr::i64(0), column),
            _ => (column.clone() / plane as i64, column % plane as i64),
        }
    }

    /// A thread for each result.
    fn plain(&self, cx: &mut NodeCx) {
        let (counts, taps) = (self.counts(), self.taps());
        let (group_in, group_out) = self.channels();
        let t = computing_type(cx.out_dtype(0));
        let (input, weights) = (cx.materialized(0), cx.materialized(1));
        let has_bias = cx.has(2);
        let dims = [&[self.x[0], group_out * self.groups], &counts[..]].concat();
        let cost = 2 * (group_in * taps.iter().product::<usize>()) as i64;
        let mut k = cx.kernel("");
        k.nest(&dims, cost, LoopKind::Serial, |k, at| {
            let (image, o, at) = (&at[0], &at[1], &at[2..]);
            let start = if has_bias { k.load(2, std::slice::from_ref(o)) } else { Expr::number(t, 0.0) };
            let sum = k.mutable(start);
            let first = k.let_(o.clone() / group_out as i64 * group_in as i64);
            let within = k.let_(o.clone() % group_out as i64);
            let dims = [&[group_in], &taps[..]].concat();
            k.loops(&dims, |k, p| {
                let (c, tap) = (k.let_(first + p[0].clone()), &p[1..]);
                let mut from = vec![image.clone(), c.clone()];
                let mut inside = Expr::Int(lehr_ir::DType::Bool, 1);
                for (axis, (n, t)) in self.axes.iter().zip(at.iter().zip(tap)) {
                    let i = k.let_(n.clone() + axis.shift - t.clone() * axis.back);
                    inside = inside & super::conv::in_range(&i, axis.size);
                    // An element that is there is read instead of one that is not.
                    from.push(k.let_(i.max(Expr::i64(0)).min(Expr::i64(axis.size as i64 - 1))));
                }
                let weight_at = [&[c, within.clone()], &self.tap(tap)[..]].concat();
                let (v, weight) = (k.load_view(&input, &from), k.load_view(&weights, &weight_at));
                let v = k.let_(Expr::select(inside, v, Expr::number(t, 0.0)));
                k.set(sum, Expr::Var(sum) + v * weight);
            });
            let y = [&[image.clone(), o.clone()], &self.place(at)[..]].concat();
            k.store(0, &y, Expr::Var(sum));
        });
        k.finish();
    }
}
