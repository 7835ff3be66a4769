//! Pools: windows over an operand, the last spatial axis vectorised on CPUs.

use super::blocked::mean::MAX_SUM;
use super::cx::{KernelCx, NodeCx};
use super::memory::{Axis, Windows, check_axes};
use crate::kernel::{BinOp, Blocks, CmpOp, Expr, LoopKind, UnOp, Var, computing_type};
use lehr_ir::ops::{AvgPool, LpPool, MaxPool};
use lehr_ir::{DType, Diag, Tensor};

/// Windows of more taps are added up in pieces of so many, so that errors stay small: see the leaves' [`MAX_SUM`].
const PIECE: usize = 1 << 7;

macro_rules! axes {
    ($op:expr, $cx:expr) => {{
        let (x, y) = ($cx.in_shape(0), $cx.out_shape(0));
        let axis = |a: usize| Axis {
            size: x[2 + a],
            kernel: $op.kernel[a],
            stride: $op.strides[a],
            begin: $op.pads[a],
            dilation: $op.dilations[a],
            out: y[2 + a],
        };
        (0..$op.kernel.len()).map(axis).collect::<Vec<Axis>>()
    }};
}

pub fn max_pool(op: &MaxPool, cx: &mut NodeCx) -> Result<(), Diag> {
    let axes = axes!(op, cx);
    check_axes(cx, &axes)?;
    let t = computing_type(cx.in_dtype(0));
    let lowest = match t {
        DType::I8 => Expr::Int(t, i64::from(i8::MIN)),
        DType::U8 => Expr::Int(t, 0),
        _ => Expr::number(t, f64::NEG_INFINITY),
    };
    if cx.used(1) {
        return max_pool_with_indices(op, cx, &axes, lowest);
    }
    fold(cx, &axes, lowest.clone(), lowest, BinOp::Max, |v| v, |_, _, v| v);
    Ok(())
}

pub fn avg_pool(op: &AvgPool, cx: &mut NodeCx) -> Result<(), Diag> {
    let axes = axes!(op, cx);
    check_axes(cx, &axes)?;
    let t = computing_type(cx.in_dtype(0));
    let n = axes.len();
    // How many elements, along each axis, the divisor counts for each output.
    let counts: Vec<Vec<usize>> = axes
        .iter()
        .enumerate()
        .map(|(a, axis)| (0..axis.out).map(|o| counted(axis, o, op.count_include_pad, op.pads[n + a])).collect())
        .collect();
    let zero = || Expr::number(t, 0.0);
    let same = counts.iter().all(|c| c.iter().all(|v| *v == c[0]));
    if same {
        let divisor: f64 = counts.iter().map(|c| c[0] as f64).product();
        fold(cx, &axes, zero(), zero(), BinOp::Add, |v| v, |_, _, v| v / Expr::number(t, divisor));
        return Ok(());
    }
    let tables: Vec<_> = counts
        .iter()
        .map(|c| {
            let table = Tensor::from_f64(t, vec![c.len()], c.iter().map(|&v| v as f64));
            super::view::View::dense(cx.table(&table), t, vec![c.len()])
        })
        .collect();
    fold(
        cx,
        &axes,
        zero(),
        zero(),
        BinOp::Add,
        |v| v,
        |k, at, v| {
            let divisors = tables.iter().zip(&at[2..]).map(|(table, o)| k.load_view(table, std::slice::from_ref(o)));
            let divisor = divisors.reduce(|a, b| a * b).unwrap_or(Expr::number(t, 1.0));
            v / divisor
        },
    );
    Ok(())
}

fn counted(axis: &Axis, o: usize, include_pad: bool, end: usize) -> usize {
    let first = o * axis.stride;
    // Taps before a position; of any window, since kernels may be as long as pads are.
    let before = |p: usize| p.saturating_sub(first).div_ceil(axis.dilation).min(axis.kernel);
    match include_pad {
        true => before(axis.begin + axis.size + end),
        false => before(axis.begin + axis.size) - before(axis.begin),
    }
}

pub fn lp_pool(op: &LpPool, cx: &mut NodeCx) -> Result<(), Diag> {
    let axes = axes!(op, cx);
    check_axes(cx, &axes)?;
    let t = computing_type(cx.in_dtype(0));
    let zero = || Expr::number(t, 0.0);
    let p = op.p as f64;
    let power = |v: Expr| match op.p {
        1 => Expr::unary(UnOp::Abs, v),
        2 => v.clone() * v,
        _ => Expr::binary(BinOp::Pow, Expr::unary(UnOp::Abs, v), Expr::number(t, p)),
    };
    fold(cx, &axes, zero(), zero(), BinOp::Add, power, |_, _, v| match op.p {
        1 => v,
        2 => Expr::unary(UnOp::Sqrt, v),
        _ => Expr::binary(BinOp::Pow, v, Expr::number(t, 1.0 / p)),
    });
    Ok(())
}

/// `y = finish(start op each(x) op ...)` over every window, outside of which x is `fill`.
fn fold(
    cx: &mut NodeCx,
    axes: &[Axis],
    fill: Expr,
    start: Expr,
    op: BinOp,
    each: impl Fn(Expr) -> Expr,
    finish: impl FnOnce(&mut KernelCx, &[Expr], Expr) -> Expr,
) {
    let input = Windows::new(cx, axes, fill);
    let y = cx.out_shape(0);
    let window: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let cost = window.iter().product::<usize>() as i64;
    // A global pool has nothing to vectorise but its window.
    let over_window = y.last() == Some(&1);
    // Neighbouring windows are for neighbouring threads of a GPU, not for the lanes of one.
    let kind = if over_window || cx.low.gpu.is_some() { LoopKind::Serial } else { LoopKind::Vector };
    // The lanes of a vector, and the threads of a GPU, have pieces already.
    let in_pieces = op == BinOp::Add && cost > MAX_SUM as i64 && !over_window && cx.low.gpu.is_none();
    let mut k = cx.kernel("");
    k.nest(&y, cost, kind, |k, at| {
        let acc = k.mutable(start.clone());
        let into = |k: &mut KernelCx, acc: Var, tap: &[Expr]| {
            let v = input.load(k, at, tap);
            let v = k.let_(v);
            k.set(acc, Expr::binary(op, Expr::Var(acc), each(v)));
        };
        if in_pieces {
            let (&len, lines) = window.split_last().expect("there is a spatial axis");
            k.loops(&[lines, &[len.div_ceil(PIECE)]].concat(), |k, at| {
                let (piece, line) = at.split_last().expect("pieces are an axis");
                let part = k.mutable(start.clone());
                let first = k.let_(piece.clone() * PIECE as i64);
                let end = k.let_((first.clone() + PIECE as i64).min(Expr::i64(len as i64)));
                k.for_(LoopKind::Serial, first, end, 1, |k, i| into(k, part, &[line, &[i]].concat()));
                k.set(acc, Expr::binary(op, Expr::Var(acc), Expr::Var(part)));
            });
        } else if over_window {
            k.vector_loops(&window, |k, tap| into(k, acc, tap))
        } else {
            k.loops(&window, |k, tap| into(k, acc, tap))
        }
        let value = finish(k, at, Expr::Var(acc));
        k.store(0, at, value);
    });
    k.finish();
}

/// The first of the largest elements, and its position; elements are read where they are, since the border has none.
fn max_pool_with_indices(op: &MaxPool, cx: &mut NodeCx, axes: &[Axis], lowest: Expr) -> Result<(), Diag> {
    let (x, y) = (cx.in_shape(0), cx.out_shape(0));
    let input = cx.materialized(0);
    if input.is_empty() {
        // Windows that hold padding alone.
        let mut k = cx.kernel("");
        k.nest(&y, 1, LoopKind::Vector, |k, at| {
            k.store(0, at, lowest);
            k.store(1, at, Expr::i64(-1));
        });
        k.finish();
        return Ok(());
    }
    let float = cx.in_dtype(0).is_float();
    let plane: usize = x[2..].iter().product();
    let window: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let mut k = cx.kernel("");
    k.nest(&y, 4 * window.iter().product::<usize>() as i64, LoopKind::Serial, |k, at| {
        let best = k.mutable(lowest);
        let index = k.mutable(Expr::i64(-1));
        k.loops(&window, |k, tap| {
            let mut coords = at[..2].to_vec();
            let mut inside = Expr::Int(DType::Bool, 1);
            for (a, axis) in axes.iter().enumerate() {
                let p = k.let_(axis.at(&at[2 + a], &tap[a]) - axis.begin as i64);
                inside = inside & super::conv::in_range(&p, axis.size);
                coords.push(p);
            }
            k.if_(inside, |k| {
                let v = k.load_view(&input, &coords);
                let v = k.let_(v);
                let first = Expr::compare(CmpOp::Lt, Expr::Var(index), Expr::i64(0));
                let mut better = Expr::compare(CmpOp::Gt, v.clone(), Expr::Var(best)) | first;
                if float {
                    let is_nan = |e: Expr| Expr::compare(CmpOp::Ne, e.clone(), e);
                    let was = Expr::compare(CmpOp::Eq, Expr::Var(best), Expr::Var(best));
                    better = better | (is_nan(v.clone()) & was);
                }
                k.if_(better, |k| {
                    k.set(best, v);
                    let mut within = Expr::i64(0);
                    let order: Vec<usize> =
                        if op.column_major { (0..axes.len()).rev().collect() } else { (0..axes.len()).collect() };
                    for a in order {
                        within = within * axes[a].size as i64 + coords[2 + a].clone();
                    }
                    let channel = coords[0].clone() * x[1] as i64 + coords[1].clone();
                    k.set(index, channel * plane as i64 + within);
                });
            });
        });
        k.store(0, at, Expr::Var(best));
        k.store(1, at, Expr::Var(index));
    });
    k.finish();
    Ok(())
}
