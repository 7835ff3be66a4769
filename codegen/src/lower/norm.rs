//! Normalisations. Statistics take two passes (mean, then variance), so that a large mean costs no precision.

use super::cells::{Cell, cells, to, walked_shape};
use super::cx::{KernelCx, NodeCx};
use super::view::{View, broadcast_coords};
use crate::kernel::{BinOp, Blocks, Expr, LoopKind, UnOp, computing_type};
use lehr_ir::Diag;
use lehr_ir::ops::{BatchNorm, BatchNormTrain, GroupNorm, InstanceNorm, LayerNorm, Lrn};

/// Operand `i` at the coordinates, in the computing type of operand 0.
fn parameter(k: &mut KernelCx, i: usize, c: &[Expr]) -> Expr {
    let t = computing_type(k.cx.in_dtype(0));
    let e = k.load(i, c);
    let e = to(k, t, e);
    k.let_(e)
}

/// Mean and population variance of a cell of `n` elements; `at` gives x's coordinates from the cell's.
fn statistics(k: &mut KernelCx, cell: &Cell, n: usize, at: impl Fn(&[Expr]) -> Vec<Expr>) -> (Expr, Expr) {
    let t = k.cx.in_dtype(0);
    let (zero, n) = (Expr::number(t, 0.0), Expr::number(t, n as f64));
    let sum = cell.fold(k, BinOp::Add, zero.clone(), |k, c| k.load(0, &at(c)));
    let mean = k.let_(sum / n.clone());
    let squares = cell.fold(k, BinOp::Add, zero, |k, c| {
        let x = k.load(0, &at(c));
        let d = k.let_(x - mean.clone());
        d.clone() * d
    });
    let var = k.let_(squares / n);
    (mean, var)
}

/// `1/sqrt(var + eps)`
fn inverse_deviation(k: &KernelCx, var: Expr, eps: f32) -> Expr {
    let t = k.type_of(&var);
    Expr::number(t, 1.0) / Expr::unary(UnOp::Sqrt, var + Expr::number(t, f64::from(eps)))
}

/// `(x - mean) * scale/sqrt(var + eps) + bias` for a cell that lies in one channel.
fn normalise(k: &mut KernelCx, cell: &Cell, channel: &[Expr], (mean, var): (Expr, Expr), eps: f32) {
    let factor = parameter(k, 1, channel) * inverse_deviation(k, var, eps);
    let factor = k.let_(factor);
    let bias = parameter(k, 2, channel);
    cell.each(k, |k, c| {
        let x = k.load(0, c);
        k.store(0, c, (x - mean) * factor + bias);
    });
}

/// Axis 1; a vector is one channel.
fn channel(c: &[Expr]) -> Expr {
    c.get(1).cloned().unwrap_or(Expr::i64(0))
}

/// On CPUs the factors `scale/sqrt(var + eps)` come first, in a kernel of their own: a root and a division per channel. On GPUs every
/// group of threads computes its own, which is less than a launch.
pub fn batch_norm(op: &BatchNorm, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, 2);
    let channels = cx.in_shape(1)[0];
    let t = computing_type(cx.in_dtype(0));
    let factor_of = |k: &mut KernelCx, c: &[Expr]| {
        let (scale, var) = (parameter(k, 1, c), parameter(k, 4, c));
        scale * inverse_deviation(k, var, op.eps)
    };
    let factors = match cx.low.gpu {
        Some(_) => None,
        None => {
            let factors = View::dense(cx.scratch(t, channels), t, vec![channels]);
            let mut k = cx.kernel("_factors");
            k.nest(&[channels], 20, LoopKind::Vector, |k, c| {
                let factor = factor_of(k, c);
                k.store_view(&factors, c, factor);
            });
            k.finish();
            Some(factors)
        }
    };
    let mut k = cx.kernel("");
    // What is walked within a cell shares its channel.
    let axes: Vec<usize> = (2..dims.len()).collect();
    cells(&mut k, &dims, &axes, 3, |k, cell| {
        let c = [channel(&cell.at)];
        let factor = match &factors {
            Some(factors) => k.load_view(factors, &c),
            None => factor_of(k, &c),
        };
        let factor = k.let_(factor);
        let (bias, mean) = (parameter(k, 2, &c), parameter(k, 3, &c));
        cell.each(k, |k, c| {
            let x = k.load(0, c);
            k.store(0, c, (x - mean) * factor + bias);
        });
    });
    k.finish();
    Ok(())
}

/// The running mean and variance of a channel, from those before and those of the batch.
pub fn keep_running(k: &mut KernelCx, channel: &[Expr], momentum: f32, of_batch: [&Expr; 2]) {
    for (port, new) in (1u32..).zip(of_batch) {
        let old = k.load(port as usize + 2, channel);
        let t = k.type_of(&old);
        let momentum = f64::from(momentum);
        let y = old * Expr::number(t, momentum) + to(k, t, new.clone()) * Expr::number(t, 1.0 - momentum);
        k.store(port, channel, y);
    }
}

pub fn batch_norm_train(op: &BatchNormTrain, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    let dims = walked_shape(cx, 2);
    let axes: Vec<usize> = (0..dims.len()).filter(|&d| d != 1).collect();
    let n: usize = axes.iter().map(|&d| shape[d]).product();
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &axes, 6, |k, cell| {
        let channel = [channel(&cell.at)];
        let (mean, var) = statistics(k, cell, n, <[Expr]>::to_vec);
        keep_running(k, &channel, op.momentum, [&mean, &var]);
        normalise(k, cell, &channel, (mean, var), op.eps);
    });
    k.finish();
    Ok(())
}

pub fn instance_norm(op: &InstanceNorm, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    let dims = walked_shape(cx, 2);
    let axes: Vec<usize> = (2..dims.len()).collect();
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &axes, 6, |k, cell| {
        let (mean, var) = statistics(k, cell, shape[2..].iter().product(), <[Expr]>::to_vec);
        let channel = [channel(&cell.at)];
        normalise(k, cell, &channel, (mean, var), op.eps);
    });
    k.finish();
    Ok(())
}

pub fn layer_norm(op: &LayerNorm, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    // The normalised axes are walked as one if scale and bias have all of them, or are single numbers.
    let follows = |i: usize| {
        let p = cx.in_shape(i);
        p.iter().all(|&n| n == 1) || (p == shape[op.axis..] && cx.is_flat(i))
    };
    let together = follows(1) && (!cx.has(2) || follows(2));
    let dims = if together { walked_shape(cx, op.axis) } else { shape.clone() };
    let axes: Vec<usize> = (op.axis..dims.len()).collect();
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &axes, 6, |k, cell| {
        let (mean, var) = statistics(k, cell, shape[op.axis..].iter().product(), <[Expr]>::to_vec);
        let inverse = inverse_deviation(k, var, op.eps);
        let inverse = k.let_(inverse);
        k.store(1, &cell.at, mean.clone());
        k.store(2, &cell.at, inverse.clone());
        if !k.cx.used(0) {
            return;
        }
        cell.each(k, |k, c| {
            let x = k.load(0, c);
            let at = |k: &KernelCx, i: usize| broadcast_coords(&k.cx.in_shape(i), c);
            let scale = k.load(1, &at(k, 1));
            let mut y = (x - mean) * inverse * scale;
            if k.cx.has(2) {
                y = y + k.load(2, &at(k, 2));
            }
            k.store(0, c, y);
        });
    });
    k.finish();
    Ok(())
}

pub fn group_norm(op: &GroupNorm, cx: &mut NodeCx) -> Result<(), Diag> {
    // x with its channels as groups and channels of a group; coordinates go back to x's by `at`.
    let spatial = walked_shape(cx, 2);
    let per_group = spatial[1] / op.groups;
    let mut dims = vec![spatial[0], op.groups, per_group];
    dims.extend(&spatial[2..]);
    let axes: Vec<usize> = (2..dims.len()).collect();
    let n: usize = dims[2..].iter().product();
    let at = |c: &[Expr]| {
        let channel = c[1].clone() * per_group as i64 + c[2].clone();
        let mut at = vec![c[0].clone(), channel];
        at.extend_from_slice(&c[3..]);
        at
    };
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &axes, 6, |k, cell| {
        let (mean, var) = statistics(k, cell, n, at);
        let inverse = inverse_deviation(k, var, op.eps);
        let inverse = k.let_(inverse);
        cell.each(k, |k, c| {
            let c = at(c);
            let channel = [c[1].clone()];
            let (scale, bias) = (parameter(k, 1, &channel), parameter(k, 2, &channel));
            let x = k.load(0, &c);
            k.store(0, &c, (x - mean) * inverse * scale + bias);
        });
    });
    k.finish();
    Ok(())
}

/// Vectors run along the spatial axes; the window of channels is a serial loop.
pub fn lrn(op: &Lrn, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, 2);
    let t = cx.in_dtype(0);
    let channels = dims[1];
    let (before, after) = (((op.size - 1) / 2).min(channels) as i64, (op.size / 2).min(channels) as i64);
    let window = (before + after + 1).min(channels as i64);
    let cost = 2 * window + 10;
    let mut k = cx.kernel("");
    let body = |k: &mut KernelCx, c: &[Expr]| {
        let first = (c[1].clone() - before).max(Expr::i64(0));
        let end = (c[1].clone() + (after + 1)).min(Expr::i64(channels as i64));
        let sum = k.mutable(Expr::number(t, 0.0));
        k.for_(LoopKind::Serial, first, end, 1, |k, i| {
            let mut at = c.to_vec();
            at[1] = i;
            let x = k.load(0, &at);
            let x = k.let_(x);
            k.set(sum, Expr::Var(sum) + x.clone() * x);
        });
        let factor = Expr::number(t, f64::from(op.alpha) / op.size as f64);
        let base = k.let_(Expr::number(t, f64::from(op.bias)) + factor * Expr::Var(sum));
        let root = |e: &Expr| Expr::unary(UnOp::Sqrt, e.clone());
        let power = match op.beta {
            1.0 => base,
            0.5 => root(&base),
            0.75 => {
                let half = k.let_(root(&base));
                half.clone() * root(&half)
            }
            beta => Expr::binary(BinOp::Pow, base, Expr::number(t, f64::from(beta))),
        };
        let x = k.load(0, c);
        k.store(0, c, x / power);
    };
    if dims[2..].iter().all(|&n| n == 1) {
        // The innermost loop is over channels then, and the window's bounds are not the same for all lanes.
        k.nest(&dims, cost, LoopKind::Serial, body);
    } else {
        cells(&mut k, &dims, &[], cost, |k, cell| body(k, &cell.at));
    }
    k.finish();
    Ok(())
}
