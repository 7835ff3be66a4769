//! Operators that move elements: a nest over the result (or, for concat, over each operand) whose loads are
//! elsewhere.

use super::cx::{KernelCx, NodeCx};
use super::nest::unflatten;
use super::placement;
use super::view::{View, broadcast_coords, row_major};
use crate::kernel::{BinOp, Blocks, CmpOp, Expr, LoopKind, computing_type};
use lehr_ir::ops::{
    Concat, DepthOrder, DepthToSpace, Expand, Pad, PadMode, Reshape, Slice, SpaceToDepth, Tile, Transpose, Trilu,
};
use lehr_ir::{Diag, Dim};

/// `y[at] = x[source(at)]`
fn gathered(cx: &mut NodeCx, kind: LoopKind, source: impl FnOnce(&mut KernelCx, &[Expr]) -> Vec<Expr>) {
    let y = cx.out_shape(0);
    let mut k = cx.kernel("");
    k.nest(&y, 1, kind, |k, at| {
        let from = source(k, at);
        let x = k.load(0, &from);
        k.store(0, at, x);
    });
    k.finish();
}

fn constants(dims: &[Dim], what: &str, cx: &NodeCx) -> Result<Vec<i64>, Diag> {
    let known: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
    known.ok_or_else(|| cx.diag("lower.unbound", format!("the {what} are not numbers")))
}

/// One kernel per operand, each writing its part of the result.
pub fn concat(op: &Concat, cx: &mut NodeCx) -> Result<(), Diag> {
    let mut offset = 0;
    for i in 0..cx.operands() {
        let shape = cx.in_shape(i);
        let first = offset as i64;
        offset += shape[op.axis];
        if shape.contains(&0) || placement::is_placed(cx, op, i, offset - shape[op.axis]) {
            continue;
        }
        if let Some((from, to)) = rows(cx, i, op.axis) {
            copy_rows(cx, i, &from, &to, first * row_major(&shape)[op.axis]);
            continue;
        }
        let mut k = cx.kernel(&format!("_{i}"));
        k.nest(&shape, 1, LoopKind::Vector, |k, at| {
            let mut to = at.to_vec();
            to[op.axis] = to[op.axis].clone() + first;
            let x = k.load(i, at);
            k.store(0, &to, x);
        });
        k.finish();
    }
    Ok(())
}

/// Operand `i` and the result as rows that start at `axis`, where both lie densely and nothing is fused.
fn rows(cx: &mut NodeCx, i: usize, axis: usize) -> Option<(View, View)> {
    let (from, to) = (cx.view(i)?, cx.out_view(0)?);
    let as_rows = |v: &View| {
        let (outer, inner) = v.shape.split_at(axis);
        View::dense(v.buf, v.dtype, vec![outer.iter().product(), inner.iter().product()])
    };
    (from.is_dense() && to.is_dense()).then(|| (as_rows(&from), as_rows(&to)))
}

fn copy_rows(cx: &mut NodeCx, i: usize, from: &View, to: &View, first: i64) {
    let mut k = cx.kernel(&format!("_{i}"));
    k.nest(&from.shape, 1, LoopKind::Vector, |k, at| {
        let x = k.load_view(from, at);
        k.store_view(to, &[at[0].clone(), at[1].clone() + first], x);
    });
    k.finish();
}

pub fn slice(op: &Slice, cx: &mut NodeCx) -> Result<(), Diag> {
    let starts = constants(&op.starts, "starts", cx)?;
    gathered(cx, LoopKind::Vector, |_, at| {
        let place = |(a, i): (usize, &Expr)| i.clone() * op.steps[a] + starts[a];
        at.iter().enumerate().map(place).collect()
    });
    Ok(())
}

/// A reshape that cannot be a view.
pub fn reshape(_: &Reshape, cx: &mut NodeCx) -> Result<(), Diag> {
    let (x, y) = (cx.in_shape(0), cx.out_shape(0));
    gathered(cx, LoopKind::Vector, |k, at| {
        let strides = row_major(&y);
        let flat = at.iter().zip(strides).fold(Expr::i64(0), |sum, (i, s)| sum + i.clone() * s);
        let flat = k.let_(flat);
        unflatten(k, flat, &x)
    });
    Ok(())
}

pub fn transpose(op: &Transpose, cx: &mut NodeCx) -> Result<(), Diag> {
    gathered(cx, LoopKind::Vector, |_, at| {
        let mut from = vec![Expr::i64(0); at.len()];
        for (i, &a) in at.iter().zip(&op.perm) {
            from[a] = i.clone();
        }
        from
    });
    Ok(())
}

pub fn expand(_: &Expand, cx: &mut NodeCx) -> Result<(), Diag> {
    let x = cx.in_shape(0);
    gathered(cx, LoopKind::Vector, |_, at| broadcast_coords(&x, at));
    Ok(())
}

// The last axis is looped over as (repeat, element), so that the inner loop is contiguous on both sides.
pub fn tile(_: &Tile, cx: &mut NodeCx) -> Result<(), Diag> {
    let (x, y) = (cx.in_shape(0), cx.out_shape(0));
    let (Some(&inner), Some((&last, outer))) = (x.last(), y.split_last()) else {
        gathered(cx, LoopKind::Vector, |_, at| at.to_vec());
        return Ok(());
    };
    let dims = [outer, &[last / inner, inner]].concat();
    let mut k = cx.kernel("");
    k.nest(&dims, 1, LoopKind::Vector, |k, at| {
        let (outer, inner_at) = at.split_at(outer.len());
        let mut from: Vec<Expr> = outer.iter().zip(&x).map(|(i, &d)| i.clone() % d as i64).collect();
        from.push(inner_at[1].clone());
        let mut to = outer.to_vec();
        to.push(inner_at[0].clone() * inner as i64 + inner_at[1].clone());
        let v = k.load(0, &from);
        k.store(0, &to, v);
    });
    k.finish();
    Ok(())
}

pub fn trilu(op: &Trilu, cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.out_shape(0);
    let t = computing_type(cx.in_dtype(0));
    let rank = y.len();
    let mut k = cx.kernel("");
    k.nest(&y, 2, LoopKind::Vector, |k, at| {
        let diagonal = at[rank - 1].clone() - at[rank - 2].clone();
        let compare = if op.upper { CmpOp::Ge } else { CmpOp::Le };
        let kept = Expr::compare(compare, diagonal, Expr::i64(op.k));
        let x = k.load(0, at);
        k.store(0, at, Expr::select(kept, x, Expr::number(t, 0.0)));
    });
    k.finish();
    Ok(())
}

pub fn depth_to_space(op: &DepthToSpace, cx: &mut NodeCx) -> Result<(), Diag> {
    let channels = cx.out_shape(0)[1] as i64;
    let b = op.block as i64;
    gathered(cx, LoopKind::Vector, |_, at| {
        let within = (at[2].clone() % b) * b + at[3].clone() % b;
        let channel = match op.order {
            DepthOrder::Dcr => within * channels + at[1].clone(),
            DepthOrder::Crd => at[1].clone() * (b * b) + within,
        };
        vec![at[0].clone(), channel, at[2].clone() / b, at[3].clone() / b]
    });
    Ok(())
}

pub fn space_to_depth(op: &SpaceToDepth, cx: &mut NodeCx) -> Result<(), Diag> {
    let channels = cx.in_shape(0)[1] as i64;
    let b = op.block as i64;
    gathered(cx, LoopKind::Vector, |_, at| {
        let within = at[1].clone() / channels;
        let (row, column) = (within.clone() / b, within % b);
        vec![at[0].clone(), at[1].clone() % channels, at[2].clone() * b + row, at[3].clone() * b + column]
    });
    Ok(())
}

pub fn pad(op: &Pad, cx: &mut NodeCx) -> Result<(), Diag> {
    let x = cx.in_shape(0);
    // What is left of each axis after the negative pads: its first element and its length.
    let kept = |a: usize| {
        let (front, back) = (op.before[a].min(0), op.after[a].min(0));
        (-front, x[a] as i64 + front + back)
    };
    let kept: Vec<(i64, i64)> = (0..x.len()).map(kept).collect();
    if op.mode == PadMode::Constant {
        pad_constant(op, cx, &kept);
        return Ok(());
    }
    gathered(cx, LoopKind::Serial, |k, at| {
        let place = |(a, i): (usize, &Expr)| {
            let (front, len) = kept[a];
            let i = k.let_(i.clone() - op.before[a].max(0));
            let place = match op.mode {
                PadMode::Constant | PadMode::Edge => i.max(Expr::i64(0)).min(Expr::i64(len - 1)),
                PadMode::Wrap => modulo(k, i, len, op.before[a]),
                PadMode::Reflect if len == 1 => Expr::i64(0),
                PadMode::Reflect => {
                    let period = 2 * (len - 1);
                    let i = modulo(k, i, period, op.before[a]);
                    i.clone().min(Expr::i64(period) - i)
                }
            };
            k.let_(place + front)
        };
        at.iter().enumerate().map(place).collect()
    });
    Ok(())
}

/// `i mod n`, not negative, for `i >= -below`.
fn modulo(k: &mut KernelCx, i: Expr, n: i64, below: i64) -> Expr {
    let lift = (below.max(0) + n - 1) / n * n;
    k.let_((i + lift) % n)
}

/// Row by row: the constant, the operand, the constant.
fn pad_constant(op: &Pad, cx: &mut NodeCx, kept: &[(i64, i64)]) {
    let y = cx.out_shape(0);
    let t = computing_type(cx.in_dtype(0));
    let has_value = cx.has(1);
    let Some((&width, outer)) = y.split_last() else {
        return gathered(cx, LoopKind::Vector, |_, at| at.to_vec());
    };
    let before: Vec<i64> = op.before.iter().map(|b| (*b).max(0)).collect();
    let (&from, &(front, len)) = (&before[outer.len()], &kept[outer.len()]);
    let (from, to) = (from as usize, (from + len) as usize);
    let dims = [outer, &[1]].concat();
    let mut k = cx.kernel("");
    k.nest(&dims, width as i64, LoopKind::Serial, |k, at| {
        let row = at[..outer.len()].to_vec();
        let value = if has_value { k.load(1, &[]) } else { Expr::number(t, 0.0) };
        let value = k.let_(value);
        let at_column = |i: Expr| -> Vec<Expr> { row.iter().cloned().chain([i]).collect() };
        let blank = |k: &mut KernelCx, from, to| k.span(from, to, |k, i| k.store(0, &at_column(i), value.clone()));
        let copy = |k: &mut KernelCx| {
            k.span(from, to, |k, i| {
                let source = row.iter().enumerate().map(|(a, p)| p.clone() + (kept[a].0 - before[a]));
                let coords: Vec<Expr> = source.chain([i.clone() + (front - from as i64)]).collect();
                let x = k.load(0, &coords);
                k.store(0, &at_column(i), x);
            });
        };
        blank(k, 0, from);
        blank(k, to, width);
        let padded = |a: usize| (before[a], kept[a].1) != (0, y[a] as i64);
        let bounds = (0..outer.len()).filter(|&a| padded(a)).map(|a| {
            let after = Expr::compare(CmpOp::Ge, row[a].clone(), Expr::i64(before[a]));
            after & Expr::compare(CmpOp::Lt, row[a].clone(), Expr::i64(before[a] + kept[a].1))
        });
        match bounds.reduce(|a, b| Expr::binary(BinOp::And, a, b)) {
            Some(inside) => k.if_else(inside, copy, |k| blank(k, from, to)),
            None => copy(k),
        }
    });
    k.finish();
}
