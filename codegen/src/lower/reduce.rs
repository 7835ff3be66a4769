//! Reductions, positions of extremes, running sums. f32 is summed in f32 by parts; products, norms and what integers need floats for
//! in f64.

use super::cells::{Cell, cells, flattened, to, walked_shape};
use super::cx::{KernelCx, NodeCx};
use crate::kernel::{BinOp, CmpOp, Expr, UnOp, computing_type};
use lehr_ir::dtype::Kind;
use lehr_ir::ops::{ArgExtreme, ArgReduce, CumSum, Reduce, ReduceFn};
use lehr_ir::{DType, Diag};

pub fn reduce(op: &Reduce, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    // First of the trailing axes that are all reduced: those are walked as one.
    let trailing = (0..shape.len()).rfind(|d| !op.axes.contains(d)).map_or(0, |d| d + 1);
    let dims = if cx.is_flat(0) { flattened(&shape, trailing) } else { shape.clone() };
    let cost = match op.f {
        ReduceFn::LogSumExp => 24,
        _ => 1,
    };
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &op.axes, cost, |k, cell| {
        let y = reduced(op.f, k, cell, &op.axes);
        let kept = |d: usize| op.keepdims || !op.axes.contains(&d);
        let at: Vec<Expr> = (0..shape.len()).filter(|&d| kept(d)).map(|d| cell.at[d].clone()).collect();
        k.store(0, &at, y);
    });
    k.finish();
    Ok(())
}

/// The value of one cell, in the computing type of the result.
fn reduced(f: ReduceFn, k: &mut KernelCx, cell: &Cell, axes: &[usize]) -> Expr {
    let dtype = k.cx.in_dtype(0);
    let own = computing_type(dtype);
    let n: usize = axes.iter().map(|&d| k.cx.in_shape(0)[d]).product();
    let acc = match (f, dtype.is_float()) {
        (ReduceFn::Prod | ReduceFn::L2, true) => DType::F64,
        (_, true) => own,
        (ReduceFn::Mean, false) if dtype == DType::U64 => DType::U64,
        (ReduceFn::Mean, false) => DType::I64,
        (ReduceFn::L2 | ReduceFn::LogSum | ReduceFn::LogSumExp, false) => DType::F64,
        (_, false) => own,
    };
    let number = |v: f64| Expr::number(acc, v);
    let load = |k: &mut KernelCx, c: &[Expr]| {
        let e = k.load(0, c);
        to(k, acc, e)
    };
    let square = |k: &mut KernelCx, c: &[Expr]| {
        let e = load(k, c);
        let e = k.let_(e);
        e.clone() * e
    };
    let y = match f {
        ReduceFn::Sum => cell.fold(k, BinOp::Add, number(0.0), load),
        ReduceFn::Mean => match cell.fold(k, BinOp::Add, number(0.0), load) {
            _ if n == 0 && !dtype.is_float() => number(0.0),
            sum => sum / number(n as f64),
        },
        ReduceFn::Prod => cell.fold(k, BinOp::Mul, number(1.0), load),
        ReduceFn::Max | ReduceFn::Min => extreme(k, cell, f == ReduceFn::Max),
        ReduceFn::L1 => cell.fold(k, BinOp::Add, number(0.0), |k, c| match load(k, c) {
            e if dtype.is_signed() => Expr::unary(UnOp::Abs, e),
            e => e,
        }),
        ReduceFn::L2 => Expr::unary(UnOp::Sqrt, cell.fold(k, BinOp::Add, number(0.0), square)),
        ReduceFn::SumSquare => cell.fold(k, BinOp::Add, number(0.0), square),
        ReduceFn::LogSum => Expr::unary(UnOp::Log, cell.fold(k, BinOp::Add, number(0.0), load)),
        ReduceFn::LogSumExp => {
            let max = cell.fold(k, BinOp::Max, number(f64::NEG_INFINITY), load);
            // Infinities need no shift, and inf - inf would be NaN.
            let finite = Expr::compare(CmpOp::Lt, Expr::unary(UnOp::Abs, max.clone()), number(f64::INFINITY));
            let shift = k.let_(Expr::select(finite, max, number(0.0)));
            let sum = cell.fold(k, BinOp::Add, number(0.0), |k, c| Expr::unary(UnOp::Exp, load(k, c) - shift.clone()));
            Expr::unary(UnOp::Log, sum) + shift
        }
    };
    to(k, own, y)
}

/// The maximum or minimum of operand 0 over a cell; NaN if there is one.
fn extreme(k: &mut KernelCx, cell: &Cell, max: bool) -> Expr {
    let dtype = k.cx.in_dtype(0);
    let (op, init) = match (dtype.kind(), max) {
        (Kind::Bool, true) => (BinOp::Or, Expr::Int(dtype, 0)),
        (Kind::Bool, false) => (BinOp::And, Expr::Int(dtype, 1)),
        (Kind::Float, true) => (BinOp::Max, Expr::number(dtype, f64::NEG_INFINITY)),
        (Kind::Float, false) => (BinOp::Min, Expr::number(dtype, f64::INFINITY)),
        (Kind::Signed, true) => (BinOp::Max, Expr::Int(dtype, i64::MIN >> (64 - dtype.bits()))),
        (Kind::Signed, false) => (BinOp::Min, Expr::Int(dtype, i64::MAX >> (64 - dtype.bits()))),
        (Kind::Unsigned, true) => (BinOp::Max, Expr::Int(dtype, 0)),
        // u64 by its bits.
        (Kind::Unsigned, false) => (BinOp::Min, Expr::Int(dtype, (u64::MAX >> (64 - dtype.bits())) as i64)),
        (Kind::String, _) => unreachable!("strings are not reduced"),
    };
    cell.fold(k, op, init, |k, c| k.load(0, c))
}

/// Position along `axis` of the cell's extreme element: of the first or the last that equals it. NaN is extreme.
pub(super) fn position(k: &mut KernelCx, cell: &Cell, axis: usize, max: bool, last: bool) -> Expr {
    let best = extreme(k, cell, max);
    let n = k.cx.in_shape(0)[axis] as i64;
    let (op, none) = if last { (BinOp::Max, Expr::i64(-1)) } else { (BinOp::Min, Expr::i64(n)) };
    cell.fold(k, op, none.clone(), |k, c| {
        let x = k.load(0, c);
        let x = k.let_(x);
        let mut hit = Expr::compare(CmpOp::Eq, x.clone(), best);
        if k.cx.in_dtype(0).is_float() {
            // If there is a NaN, the extreme is NaN and equals nothing.
            hit = Expr::binary(BinOp::Or, hit, Expr::compare(CmpOp::Ne, x.clone(), x));
        }
        Expr::select(hit, c[axis].clone(), none)
    })
}

pub fn arg_reduce(op: &ArgReduce, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, op.axis + 1);
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &[op.axis], 4, |k, cell| {
        let y = position(k, cell, op.axis, op.f == ArgExtreme::Max, op.select_last);
        let mut at = cell.at.clone();
        if !op.keepdims {
            at.remove(op.axis);
        }
        k.store(0, &at, y);
    });
    k.finish();
    Ok(())
}

/// Sums are sequential: vectors run over the other axes, where the contiguous one is among them.
pub fn cum_sum(op: &CumSum, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, op.axis + 1);
    let own = computing_type(cx.in_dtype(0));
    let acc = if own.is_float() { DType::F64 } else { own };
    let last = dims[op.axis] as i64 - 1;
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &[op.axis], 4, |k, cell| {
        let sum = k.mutable(Expr::number(acc, 0.0));
        cell.in_order(k, |k, c| {
            let mut at = c.to_vec();
            if op.reverse {
                at[op.axis] = Expr::i64(last) - c[op.axis].clone();
            }
            let x = k.load(0, &at);
            let x = k.let_(x);
            let next = Expr::Var(sum) + to(k, acc, x);
            if !op.exclusive {
                k.set(sum, next.clone());
            }
            let y = to(k, own, Expr::Var(sum));
            k.store(0, &at, y);
            if op.exclusive {
                k.set(sum, next);
            }
        });
    });
    k.finish();
    Ok(())
}
