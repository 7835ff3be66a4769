//! Softmax, its logarithm, and hardmax: three passes over a line (maximum, sum, result), all of them vector loops.

use super::cells::{Cell, cells, walked_shape};
use super::cx::{KernelCx, NodeCx};
use super::reduce::position;
use crate::kernel::{BinOp, CmpOp, Expr, UnOp, computing_type};
use lehr_ir::{DType, Diag};

/// Maximum and the sum of `e^(x - max)` of a cell. `note` gets every term.
pub(super) fn shifted_sum(
    k: &mut KernelCx,
    cell: &Cell,
    note: impl FnOnce(&mut KernelCx, &[Expr], Expr),
) -> (Expr, Expr) {
    let t = k.cx.in_dtype(0);
    let max = cell.fold(k, BinOp::Max, Expr::number(t, f64::NEG_INFINITY), |k, c| k.load(0, c));
    let sum = cell.fold(k, BinOp::Add, Expr::number(t, 0.0), |k, c| {
        let x = k.load(0, c);
        let e = k.let_(Expr::unary(UnOp::Exp, x - max.clone()));
        note(k, c, e.clone());
        e
    });
    (max, sum)
}

/// `x - max - ln(sum)` for a cell with these two.
pub(super) fn log_softmax_of(k: &mut KernelCx, c: &[Expr], max: &Expr, ln_sum: &Expr) -> Expr {
    k.load(0, c) - max.clone() - ln_sum.clone()
}

pub fn softmax(axis: usize, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, axis + 1);
    // The terms wait in the result, if it holds them exactly.
    let exact = matches!(cx.out_dtype(0), DType::F32 | DType::F64);
    let waiting = cx.out_view(0).filter(|_| exact);
    let t = computing_type(cx.in_dtype(0));
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &[axis], 30, |k, cell| {
        let (max, sum) = shifted_sum(k, cell, |k, c, e| {
            if exact {
                k.store(0, c, e);
            }
        });
        let scale = k.let_(Expr::number(t, 1.0) / sum);
        cell.each(k, |k, c| {
            let e = match &waiting {
                Some(view) => k.load_view(view, c),
                None => Expr::unary(UnOp::Exp, k.load(0, c) - max),
            };
            k.store(0, c, e * scale);
        });
    });
    k.finish();
    Ok(())
}

pub fn log_softmax(axis: usize, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, axis + 1);
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &[axis], 20, |k, cell| {
        let (max, sum) = shifted_sum(k, cell, |_, _, _| {});
        let ln_sum = k.let_(Expr::unary(UnOp::Log, sum));
        cell.each(k, |k, c| {
            let y = log_softmax_of(k, c, &max, &ln_sum);
            k.store(0, c, y);
        });
    });
    k.finish();
    Ok(())
}

pub fn hardmax(axis: usize, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = walked_shape(cx, axis + 1);
    let t = cx.out_dtype(0);
    let mut k = cx.kernel("");
    cells(&mut k, &dims, &[axis], 5, |k, cell| {
        let at = position(k, cell, axis, true, false);
        cell.each(k, |k, c| {
            let hit = Expr::compare(CmpOp::Eq, c[axis].clone(), at);
            k.store(0, c, Expr::select(hit, Expr::number(t, 1.0), Expr::number(t, 0.0)));
        });
    });
    k.finish();
    Ok(())
}
