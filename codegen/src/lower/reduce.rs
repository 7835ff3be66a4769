//! Reductions, positions of extremes, running sums. f32 is summed in f32 by parts; products, norms and what integers need floats for
//! in f64.

use super::cells::{Cell, cells, flattened, to, walked_shape};
use super::cx::{KernelCx, NodeCx};
use super::nest::unflatten;
use crate::kernel::{BinOp, CmpOp, Expr, UnOp, computing_type};
use lehr_ir::dtype::Kind;
use lehr_ir::ops::{ArgExtreme, ArgReduce, CumSum, Reduce, ReduceFn};
use lehr_ir::{DType, Diag};

pub fn reduce(op: &Reduce, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    // First of the trailing axes that are all reduced: those are walked as one.
    let trailing = (0..shape.len()).rfind(|d| !op.axes.contains(d)).map_or(0, |d| d + 1);
    let dims = if cx.is_flat(0) { flattened(&shape, trailing) } else { shape.clone() };
    if in_two(op, cx, trailing) {
        return Ok(());
    }
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

/// A reduction as one fold, and what is folded.
struct Folding {
    acc: DType,
    op: BinOp,
    init: Expr,
    term: Term,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Term {
    Itself,
    Size,
    Square,
}

/// What the elements are summed in.
fn accumulator(f: ReduceFn, dtype: DType) -> DType {
    let own = computing_type(dtype);
    match (f, dtype.is_float()) {
        (ReduceFn::Prod | ReduceFn::L2, true) => DType::F64,
        (_, true) => own,
        (ReduceFn::Mean, false) if dtype == DType::U64 => DType::U64,
        (ReduceFn::Mean, false) => DType::I64,
        (ReduceFn::L2 | ReduceFn::LogSum | ReduceFn::LogSumExp, false) => DType::F64,
        (_, false) => own,
    }
}

impl Folding {
    /// `None` for what takes more than one fold.
    fn of(f: ReduceFn, dtype: DType) -> Option<Folding> {
        let acc = accumulator(f, dtype);
        let sum = |term| Folding { acc, op: BinOp::Add, init: Expr::number(acc, 0.0), term };
        Some(match f {
            ReduceFn::Sum | ReduceFn::Mean | ReduceFn::LogSum => sum(Term::Itself),
            ReduceFn::L1 => sum(if dtype.is_signed() { Term::Size } else { Term::Itself }),
            ReduceFn::L2 | ReduceFn::SumSquare => sum(Term::Square),
            ReduceFn::Prod => Folding { acc, op: BinOp::Mul, init: Expr::number(acc, 1.0), term: Term::Itself },
            ReduceFn::Max | ReduceFn::Min => {
                let (op, init) = extreme_of(dtype, f == ReduceFn::Max);
                Folding { acc, op, init, term: Term::Itself }
            }
            ReduceFn::LogSumExp => return None,
        })
    }

    /// What operand 0 adds at the coordinates.
    fn term(&self, k: &mut KernelCx, c: &[Expr]) -> Expr {
        let e = k.load(0, c);
        let e = to(k, self.acc, e);
        match self.term {
            Term::Itself => e,
            Term::Size => Expr::unary(UnOp::Abs, e),
            Term::Square => {
                let e = k.let_(e);
                e.clone() * e
            }
        }
    }

    fn finish(&self, f: ReduceFn, dtype: DType, n: usize, folded: Expr) -> Expr {
        match f {
            ReduceFn::Mean if n == 0 && !dtype.is_float() => Expr::number(self.acc, 0.0),
            ReduceFn::Mean => folded / Expr::number(self.acc, n as f64),
            ReduceFn::L2 => Expr::unary(UnOp::Sqrt, folded),
            ReduceFn::LogSum => Expr::unary(UnOp::Log, folded),
            ReduceFn::Sum
            | ReduceFn::L1
            | ReduceFn::SumSquare
            | ReduceFn::Prod
            | ReduceFn::Max
            | ReduceFn::Min
            | ReduceFn::LogSumExp => folded,
        }
    }
}

/// The value of one cell, in the computing type of the result.
fn reduced(f: ReduceFn, k: &mut KernelCx, cell: &Cell, axes: &[usize]) -> Expr {
    let dtype = k.cx.in_dtype(0);
    let own = computing_type(dtype);
    if let Some(fold) = Folding::of(f, dtype) {
        let n: usize = axes.iter().map(|&d| k.cx.in_shape(0)[d]).product();
        let folded = cell.fold(k, fold.op, fold.init.clone(), |k, c| fold.term(k, c));
        let y = fold.finish(f, dtype, n, folded);
        return to(k, own, y);
    }
    let acc = accumulator(f, dtype);
    let number = |v: f64| Expr::number(acc, v);
    let load = |k: &mut KernelCx, c: &[Expr]| {
        let e = k.load(0, c);
        to(k, acc, e)
    };
    let max = cell.fold(k, BinOp::Max, number(f64::NEG_INFINITY), load);
    // Infinities need no shift, and inf - inf would be NaN.
    let finite = Expr::compare(CmpOp::Lt, Expr::unary(UnOp::Abs, max.clone()), number(f64::INFINITY));
    let shift = k.let_(Expr::select(finite, max, number(0.0)));
    let sum = cell.fold(k, BinOp::Add, number(0.0), |k, c| Expr::unary(UnOp::Exp, load(k, c) - shift.clone()));
    let y = Expr::unary(UnOp::Log, sum) + shift;
    to(k, own, y)
}

/// A GPU's blocks share cells from so many elements on, where there are at most so many cells.
const LONG_CELL: usize = 1 << 15;
const FEW_CELLS: usize = 32;
/// Blocks that fill a GPU, and the least that one of them folds.
const BLOCKS: usize = 256;
const LEAST: usize = 1 << 12;

/// Few, long cells on a GPU, in two kernels: parts of cells, and then what is folded of the parts. False if that is not it.
fn in_two(op: &Reduce, cx: &mut NodeCx, trailing: usize) -> bool {
    let (shape, dtype) = (cx.in_shape(0), cx.in_dtype(0));
    let (kept, walked) = shape.split_at(trailing);
    let (cells_in_all, n) = (kept.iter().product::<usize>(), walked.iter().product::<usize>());
    let whole = op.axes.len() == walked.len() && cx.is_flat(0);
    let Some(fold) = Folding::of(op.f, dtype).filter(|_| cx.low.gpu.is_some() && whole) else { return false };
    if cells_in_all == 0 || cells_in_all > FEW_CELLS || n < LONG_CELL {
        return false;
    }
    let most = (BLOCKS / cells_in_all).min(n / LEAST);
    // A number of parts that leaves no rest, if there is one.
    let parts = (most.div_ceil(2)..=most).rev().find(|p| n.is_multiple_of(4 * p)).unwrap_or(most);
    let each = n.div_ceil(parts);
    let partial = cx.scratch_view(fold.acc, vec![cells_in_all, parts]);
    let mut k = cx.kernel("_parts");
    cells(&mut k, &[cells_in_all, parts, each], &[2], 2, |k, cell| {
        let mut at = unflatten(k, cell.at[0].clone(), kept);
        let folded = cell.fold(k, fold.op, fold.init.clone(), |k, c| {
            let place = k.let_(c[1].clone() * each as i64 + c[2].clone());
            let past = Expr::compare(CmpOp::Ge, place.clone(), Expr::i64(n as i64));
            let inside = if each * parts == n { place } else { k.let_(place.min(Expr::i64(n as i64 - 1))) };
            // The walked axes lie as one: the last that is not 1 has its stride.
            let last = walked.iter().rposition(|&d| d != 1).expect("a long cell has elements");
            at.extend((0..walked.len()).map(|d| if d == last { inside.clone() } else { Expr::i64(0) }));
            let term = fold.term(k, &at);
            if each * parts == n { term } else { Expr::select(past, fold.init.clone(), term) }
        });
        k.store_view(&partial, &cell.at[..2], folded);
    });
    k.finish();
    let mut k = cx.kernel("");
    cells(&mut k, &[cells_in_all, parts], &[1], 2, |k, cell| {
        let folded = cell.fold(k, fold.op, fold.init.clone(), |k, c| k.load_view(&partial, c));
        let y = fold.finish(op.f, dtype, n, folded);
        let y = to(k, computing_type(dtype), y);
        let mut at = unflatten(k, cell.at[0].clone(), kept);
        at.extend(walked.iter().filter(|_| op.keepdims).map(|_| Expr::i64(0)));
        k.store(0, &at, y);
    });
    k.finish();
    true
}

/// The fold that finds the maximum or minimum of numbers of a type; NaN if there is one.
fn extreme_of(dtype: DType, max: bool) -> (BinOp, Expr) {
    match (dtype.kind(), max) {
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
    }
}

/// The maximum or minimum of operand 0 over a cell.
fn extreme(k: &mut KernelCx, cell: &Cell, max: bool) -> Expr {
    let (op, init) = extreme_of(k.cx.in_dtype(0), max);
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
