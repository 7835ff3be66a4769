//! Convolutions by plain loops, for every type, rank and attribute; wide machine-code kernels take over where they can.

use super::cx::{KernelCx, NodeCx};
use super::memory::{Axis, Windows, check_axes};
use super::view::View;
use super::{phases, tiled};
use crate::kernel::{Blocks, Expr, LoopKind, computing_type};
use lehr_ir::Diag;
use lehr_ir::ops::{Conv, ConvTranspose};

// for n, block of BLOCK output channels, outer spatial output axes: vector for ow
//   acc[BLOCK] = bias; for c, k...: v = x[n, c, o*stride + k*dilation]; acc[b] += v * w[b, c, k...]
pub fn conv(op: &Conv, cx: &mut NodeCx) -> Result<(), Diag> {
    let (x, w, y) = (cx.in_shape(0), cx.in_shape(1), cx.out_shape(0));
    let axes: Vec<Axis> = (0..x.len() - 2)
        .map(|a| Axis {
            size: x[2 + a],
            kernel: w[2 + a],
            stride: op.strides[a],
            begin: op.pads[a],
            dilation: op.dilations[a],
            out: y[2 + a],
        })
        .collect();
    check_axes(cx, &axes)?;
    if let Some(gpu) = cx.low.gpu
        && tiled::convolution(cx, gpu, &tiled::Convolution { x: &x, w: &w, y: &y, axes: &axes, groups: op.groups })
    {
        return Ok(());
    }
    let t = computing_type(cx.out_dtype(0));
    let input = Windows::new(cx, &axes, Expr::number(t, 0.0));
    let weights = cx.materialized(1);
    let group_out = w[0] / op.groups;
    let block = channel_block(group_out);
    let kernel: Vec<usize> = w[2..].to_vec();
    let cost = 2 * (block * w[1] * kernel.iter().product::<usize>()) as i64;
    // A pointwise convolution runs over the whole plane at once; only when the result's coordinates are of no interest.
    let flat = plane_view(cx, &axes, input.view(), &y);
    let plane_axes;
    let (axes, input, target, dims) = match flat {
        Some((input, target, plane)) => {
            plane_axes = [Axis { size: plane, kernel: 1, stride: 1, begin: 0, dilation: 1, out: plane }];
            let input = Windows::inside(input, &plane_axes);
            (&plane_axes[..], input, Some(target), vec![y[0], y[1] / block, plane])
        }
        None => (&axes[..], input, None, [&[y[0], y[1] / block], &y[2..]].concat()),
    };
    // Neighbouring windows are for neighbouring threads of a GPU, not for the lanes of one.
    let kind = if cx.low.gpu.is_some() && target.is_none() { LoopKind::Serial } else { LoopKind::Vector };
    let has_bias = cx.has(2);
    let mut k = cx.kernel("");
    k.nest(&dims, cost, kind, |k, at| {
        let (n, first, spatial) = (&at[0], k.let_(at[1].clone() * block as i64), &at[2..]);
        let channel = |b: usize| first.clone() + b as i64;
        let group = if op.groups == 1 { Expr::i64(0) } else { k.let_(first.clone() / group_out as i64) };
        let sums: Vec<_> = (0..block)
            .map(|b| {
                let start = if has_bias { k.load(2, &[channel(b)]) } else { Expr::number(t, 0.0) };
                k.mutable(start)
            })
            .collect();
        let taps: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
        k.serial(w[1], |k, c| {
            let from = k.let_(group * w[1] as i64 + c.clone());
            k.loops(&taps, |k, tap| {
                let window: Vec<Expr> = [n.clone(), from].iter().chain(spatial).cloned().collect();
                let v = input.load(k, &window, tap);
                let v = k.let_(v);
                for (b, &sum) in sums.iter().enumerate() {
                    let mut coords = vec![channel(b), c.clone()];
                    coords.extend((0..kernel.len()).map(|a| tap.get(a).cloned().unwrap_or(Expr::i64(0))));
                    let weight = k.load_view(&weights, &coords);
                    k.set(sum, Expr::Var(sum) + v.clone() * weight);
                }
            });
        });
        for (b, &sum) in sums.iter().enumerate() {
            let coords: Vec<Expr> = [n.clone(), channel(b)].iter().chain(spatial).cloned().collect();
            match &target {
                Some(target) => k.store_view(target, &coords, Expr::Var(sum)),
                None => k.store(0, &coords, Expr::Var(sum)),
            }
        }
    });
    k.finish();
    Ok(())
}

/// Accumulators that share a load of the input: as many as leave registers for it.
fn channel_block(channels: usize) -> usize {
    [4, 2].into_iter().find(|b| channels.is_multiple_of(*b)).unwrap_or(1)
}

/// Input and result with their spatial axes as one, if the convolution is pointwise and nothing is fused behind it.
fn plane_view(cx: &NodeCx, axes: &[Axis], input: &View, y: &[usize]) -> Option<(View, View, usize)> {
    let pointwise = axes.iter().all(|a| a.kernel == 1 && a.stride == 1 && a.out == a.size);
    let target = cx.out_view(0)?;
    if !pointwise || !input.is_dense() || !target.is_dense() || axes.len() == 1 {
        return None;
    }
    let plane = y[2..].iter().product();
    let source = View::dense(input.buf, input.dtype, vec![input.shape[0], input.shape[1], plane]);
    Some((source, View::dense(target.buf, target.dtype, vec![y[0], y[1], plane]), plane))
}

// parallel for n, o: plane = bias; for c, i (but the last axis), k:
//   vector for the last axis of i, where its target is inside: plane[i*stride + k*dilation - pad] += x[n, c, i] * w[c, o, k]
pub fn conv_transpose(op: &ConvTranspose, cx: &mut NodeCx) -> Result<(), Diag> {
    let (x, w, y) = (cx.in_shape(0), cx.in_shape(1), cx.out_shape(0));
    if let Some(gpu) = cx.low.gpu.filter(|_| !x.contains(&0) && !w.contains(&0) && phases::has_few(op, &y)) {
        phases::conv_transpose(op, cx, gpu);
        return Ok(());
    }
    let t = computing_type(cx.out_dtype(0));
    let direct = cx.out_view(0).filter(|v| v.dtype == t);
    let target = match &direct {
        Some(view) => view.clone(),
        None => cx.scratch_view(t, y.clone()),
    };
    let input = cx.materialized(0);
    let weights = cx.materialized(1);
    let (group_in, group_out) = (x[1] / op.groups, w[1]);
    let n = x.len() - 2;
    let has_bias = cx.has(2);
    let (outer_in, outer_taps) = (&x[2..n + 1], &w[2..n + 1]);
    let cost = 2 * (x[2..].iter().product::<usize>() * w[2..].iter().product::<usize>() * group_in) as i64;
    let mut k = cx.kernel("");
    k.nest(&[y[0], y[1], 1], cost, LoopKind::Serial, |k, at| {
        let (image, o) = (at[0].clone(), at[1].clone());
        let start = if has_bias { k.load(2, std::slice::from_ref(&o)) } else { Expr::number(t, 0.0) };
        let start = k.let_(start);
        k.vector_loops(&y[2..], |k, p| {
            let coords: Vec<Expr> = [&image, &o].into_iter().chain(p).cloned().collect();
            k.store_view(&target, &coords, start);
        });
        let group = k.let_(o.clone() / group_out as i64);
        let within = k.let_(o.clone() % group_out as i64);
        k.serial(group_in, |k, c| {
            let c = k.let_(group * group_in as i64 + c);
            let dims: Vec<usize> = outer_in.iter().chain(&w[2..]).copied().collect();
            k.loops(&dims, |k, p| {
                let (i, tap) = p.split_at(n - 1);
                let weight_at: Vec<Expr> = [&c, &within].into_iter().chain(tap).cloned().collect();
                let weight = k.load_view(&weights, &weight_at);
                let weight = k.let_(weight);
                let mut to = vec![image.clone(), o.clone()];
                let mut inside: Option<Expr> = None;
                for a in 0..outer_taps.len() {
                    let place = k.let_(reached(op, a, &i[a], &tap[a]));
                    let both = in_range(&place, y[2 + a]);
                    inside = Some(inside.map_or(both.clone(), |e| e & both));
                    to.push(place);
                }
                let row = |k: &mut KernelCx| {
                    let a = n - 1;
                    // The inputs whose target lies in the row.
                    let shift = op.pads[a];
                    let stride = op.strides[a] as i64;
                    let offset = k.let_(Expr::i64(shift) - tap[a].clone() * op.dilations[a] as i64);
                    let from = (offset.clone() + (stride - 1)).max(Expr::i64(0)) / stride;
                    let past = (offset + (y[2 + a] as i64 - 1 + stride)).max(Expr::i64(0)) / stride;
                    let (from, past) = (k.let_(from), k.let_(past.min(Expr::i64(x[2 + a] as i64))));
                    k.for_(LoopKind::Vector, from, past, 1, |k, j| {
                        let source: Vec<Expr> = [&image, &c].into_iter().chain(i).chain([&j]).cloned().collect();
                        let mut to = to;
                        to.push(reached(op, a, &j, &tap[a]));
                        let v = k.load_view(&input, &source);
                        let sum = k.load_view(&target, &to);
                        k.store_view(&target, &to, sum + v * weight);
                    });
                };
                match inside {
                    Some(inside) => k.if_(inside, row),
                    None => row(k),
                }
            });
        });
    });
    k.finish();
    if direct.is_none() {
        store_result(cx, &target);
    }
    Ok(())
}

/// The target, on axis `a`, of input `i` through tap `k`.
fn reached(op: &ConvTranspose, a: usize, i: &Expr, k: &Expr) -> Expr {
    i.clone() * op.strides[a] as i64 + k.clone() * op.dilations[a] as i64 - op.pads[a]
}

/// `0 <= place < size`
pub fn in_range(place: &Expr, size: usize) -> Expr {
    use crate::kernel::CmpOp;
    let after = Expr::compare(CmpOp::Ge, place.clone(), Expr::i64(0));
    after & Expr::compare(CmpOp::Lt, place.clone(), Expr::i64(size as i64))
}

/// Copies a result that was built up in scratch to where it belongs, through whatever is fused behind.
pub fn store_result(cx: &mut NodeCx, from: &View) {
    let shape = cx.out_shape(0);
    let mut k = cx.kernel("_result");
    k.nest(&shape, 4, LoopKind::Vector, |k, at| {
        let v = k.load_view(from, at);
        k.store(0, at, v);
    });
    k.finish();
}
