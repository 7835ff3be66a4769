//! Indexed reads and writes. An index out of range is recorded as a fault, and replaced by one in range: the run
//! goes on to its end before it fails.

use super::conv::{in_range, store_result};
use super::cx::{KernelCx, NodeCx};
use super::view::View;
use crate::kernel::{BinOp, Blocks, CmpOp, Expr, LoopKind, UnOp, computing_type};
use lehr_ir::ops::{Gather, GatherElements, GatherNd, OneHot, ScatterElements, ScatterNd, ScatterReduction};
use lehr_ir::{DType, Diag};

/// The place that index `i` means in an axis of `len` elements.
fn place(k: &mut KernelCx, i: Expr, len: usize) -> Expr {
    let i = k.let_(Expr::cast(DType::I64, i));
    let n = Expr::i64(len as i64);
    let from_end = Expr::compare(CmpOp::Lt, i.clone(), Expr::i64(0));
    let i = k.let_(Expr::select(from_end, i.clone() + n, i));
    let inside = in_range(&i, len);
    let outside = Expr::unary(UnOp::Not, inside);
    k.fault_if(outside, &format!("an index is outside an axis of {len} elements"));
    k.let_(i.max(Expr::i64(0)).min(Expr::i64(len as i64 - 1)))
}

/// Indexing an operand without elements is a fault whatever the index; nothing may be read then.
fn indexes_nothing(cx: &mut NodeCx) -> bool {
    if !cx.in_shape(0).contains(&0) {
        return false;
    }
    let mut k = cx.kernel("");
    k.fault_if(Expr::Int(DType::Bool, 1), "an index into a tensor without elements");
    k.finish();
    true
}

fn joined(parts: &[&[Expr]]) -> Vec<Expr> {
    parts.iter().flat_map(|p| p.iter().cloned()).collect()
}

/// A nest whose points are slices: `body` gets their coordinates.
fn over_slices(cx: &mut NodeCx, dims: &[usize], cost: usize, body: impl FnOnce(&mut KernelCx, &[Expr])) {
    let mut k = cx.kernel("");
    k.nest(&[dims, &[1]].concat(), cost as i64, LoopKind::Serial, |k, at| body(k, &at[..dims.len()]));
    k.finish();
}

pub fn gather(op: &Gather, cx: &mut NodeCx) -> Result<(), Diag> {
    if indexes_nothing(cx) {
        return Ok(());
    }
    let (x, i) = (cx.in_shape(0), cx.in_shape(1));
    let (outer, inner) = (&x[..op.axis], &x[op.axis + 1..]);
    let dims = [outer, &i].concat();
    over_slices(cx, &dims, inner.iter().product::<usize>() + 4, |k, at| {
        let (outer, index_at) = at.split_at(op.axis);
        let index = k.load(1, index_at);
        let p = place(k, index, x[op.axis]);
        k.vector_loops(inner, |k, rest| {
            let v = k.load(0, &joined(&[outer, &[p], rest]));
            k.store(0, &joined(&[at, rest]), v);
        });
    });
    Ok(())
}

pub fn gather_elements(op: &GatherElements, cx: &mut NodeCx) -> Result<(), Diag> {
    if indexes_nothing(cx) {
        return Ok(());
    }
    let (x, i) = (cx.in_shape(0), cx.in_shape(1));
    over_slices(cx, &i, 6, |k, at| {
        let index = k.load(1, at);
        let mut from = at.to_vec();
        from[op.axis] = place(k, index, x[op.axis]);
        let v = k.load(0, &from);
        k.store(0, at, v);
    });
    Ok(())
}

/// The places that the index tuple at `at` means in the axes of `x` from `batch` on.
fn tuple(k: &mut KernelCx, at: &[Expr], n: usize, x: &[usize], batch: usize) -> Vec<Expr> {
    (0..n)
        .map(|j| {
            let index = k.load(1, &joined(&[at, &[Expr::i64(j as i64)]]));
            place(k, index, x[batch + j])
        })
        .collect()
}

pub fn gather_nd(op: &GatherNd, cx: &mut NodeCx) -> Result<(), Diag> {
    if indexes_nothing(cx) {
        return Ok(());
    }
    let (x, i) = (cx.in_shape(0), cx.in_shape(1));
    let (&n, outer) = i.split_last().expect("inference gave indices an axis");
    let inner = &x[op.batch_dims + n..];
    over_slices(cx, outer, inner.iter().product::<usize>() + 4 * n, |k, at| {
        let places = tuple(k, at, n, &x, op.batch_dims);
        k.vector_loops(inner, |k, rest| {
            let v = k.load(0, &joined(&[&at[..op.batch_dims], &places, rest]));
            k.store(0, &joined(&[at, rest]), v);
        });
    });
    Ok(())
}

pub fn scatter_elements(op: &ScatterElements, cx: &mut NodeCx) -> Result<(), Diag> {
    let i = cx.in_shape(1);
    scatter(cx, op.reduction, &i, |k, x, combine| {
        let update = |k: &mut KernelCx, at: &[Expr]| {
            let index = k.load(1, at);
            let mut to = at.to_vec();
            to[op.axis] = place(k, index, x[op.axis]);
            let u = k.load(2, at);
            combine(k, &to, u);
        };
        if k.cx.low.gpu.is_none() {
            return k.loops(&i, update);
        }
        // Updates meet where they differ along the axis alone: those are one thread's, in order.
        let mut others = i.clone();
        others[op.axis] = 1;
        k.nest(&others, 8 * i[op.axis] as i64, LoopKind::Serial, |k, rest| {
            k.serial(i[op.axis], |k, n| {
                let mut at = rest.to_vec();
                at[op.axis] = n;
                update(k, &at);
            });
        });
    })
}

pub fn scatter_nd(op: &ScatterNd, cx: &mut NodeCx) -> Result<(), Diag> {
    let i = cx.in_shape(1);
    let (&n, outer) = i.split_last().expect("inference gave indices an axis");
    scatter(cx, op.reduction, &i, |k, x, combine| {
        let update = |k: &mut KernelCx, at: &[Expr], places: &[Expr], rest: &[Expr]| {
            let u = k.load(2, &joined(&[at, rest]));
            combine(k, &joined(&[places, rest]), u);
        };
        if k.cx.low.gpu.is_none() {
            return k.loops(outer, |k, at| {
                let places = tuple(k, at, n, x, 0);
                k.vector_loops(&x[n..], |k, rest| update(k, at, &places, rest));
            });
        }
        // A place in the slices is one thread's, which takes the updates in order.
        let slices: usize = outer.iter().product();
        k.nest(&[&x[n..], &[1]].concat(), 8 * slices as i64, LoopKind::Serial, |k, rest| {
            k.loops(outer, |k, at| {
                let places = tuple(k, at, n, x, 0);
                update(k, at, &places, &rest[..x.len() - n]);
            });
        });
    })
}

/// Replaces an element of the result by, or combines it with, an update.
type Combine<'f> = dyn Fn(&mut KernelCx, &[Expr], Expr) + 'f;

/// Copies x, then lets `updates` run, those of one element in order: later ones must see earlier ones. On CPUs one thread does them all.
fn scatter(
    cx: &mut NodeCx,
    reduction: ScatterReduction,
    indices: &[usize],
    updates: impl FnOnce(&mut KernelCx, &[usize], &Combine),
) -> Result<(), Diag> {
    let x = cx.in_shape(0);
    // f16 and bf16 are summed in f32, and rounded once.
    let t = computing_type(cx.in_dtype(0));
    let direct = cx.out_view(0).filter(|v| v.dtype == t);
    let y = match &direct {
        Some(view) => view.clone(),
        None => cx.scratch_view(t, x.clone()),
    };
    let mut k = cx.kernel("_copy");
    k.nest(&x, 1, LoopKind::Vector, |k, at| {
        let v = k.load(0, at);
        k.store_view(&y, at, v);
    });
    k.finish();
    if !indices.contains(&0) {
        let mut k = cx.kernel("");
        let combine = |k: &mut KernelCx, at: &[Expr], u: Expr| combine(k, reduction, &y, at, u);
        updates(&mut k, &x, &combine);
        k.finish();
    }
    if direct.is_none() {
        store_result(cx, &y);
    }
    Ok(())
}

fn combine(k: &mut KernelCx, reduction: ScatterReduction, y: &View, at: &[Expr], u: Expr) {
    let logic = y.dtype == DType::Bool;
    let op = match reduction {
        ScatterReduction::None => return k.store_view(y, at, u),
        ScatterReduction::Add | ScatterReduction::Max if logic => BinOp::Or,
        ScatterReduction::Mul | ScatterReduction::Min if logic => BinOp::And,
        ScatterReduction::Add => BinOp::Add,
        ScatterReduction::Mul => BinOp::Mul,
        ScatterReduction::Max => BinOp::Max,
        ScatterReduction::Min => BinOp::Min,
    };
    let old = k.load_view(y, at);
    k.store_view(y, at, Expr::binary(op, old, u));
}

pub fn one_hot(op: &OneHot, cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.out_shape(0);
    let dtype = cx.in_dtype(0);
    let depth = y[op.axis] as i64;
    let mut k = cx.kernel("");
    k.nest(&y, 4, LoopKind::Vector, |k, at| {
        let index_at = joined(&[&at[..op.axis], &at[op.axis + 1..]]);
        let index = k.load(0, &index_at);
        let mut index = k.let_(Expr::cast(DType::I64, index));
        // An unsigned index that looks negative is far outside instead.
        if dtype.is_signed() {
            let from_end = Expr::compare(CmpOp::Lt, index.clone(), Expr::i64(0));
            index = Expr::select(from_end, index.clone() + depth, index);
        }
        let hit = Expr::compare(CmpOp::Eq, index, at[op.axis].clone());
        let (off, on) = (k.load(1, &[Expr::i64(0)]), k.load(1, &[Expr::i64(1)]));
        k.store(0, at, Expr::select(hit, on, off));
    });
    k.finish();
    Ok(())
}
