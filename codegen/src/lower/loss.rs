//! Losses: one element per label, and their sum or mean in f64. A label that is no class is a fault of the data.

use super::cells::{cells, to};
use super::cx::{KernelCx, NodeCx};
use super::nest::unflatten;
use super::softmax::{log_softmax_of, shifted_sum};
use super::view::View;
use crate::kernel::{BinOp, Blocks, CmpOp, Expr, LoopKind, UnOp, computing_type};
use lehr_ir::ops::{LossReduction, NllLoss, SoftmaxCrossEntropy};
use lehr_ir::{DType, Diag};

const FAULT: &str = "a label is not one of the classes";

pub fn nll(op: &NllLoss, cx: &mut NodeCx) -> Result<(), Diag> {
    loss(cx, op.reduction, op.ignore_index, |k, c, _| k.load(0, c));
    Ok(())
}

/// The maxima and logarithms of sums are kept for the loss, which needs one logarithm of a probability per label.
pub fn cross_entropy(op: &SoftmaxCrossEntropy, cx: &mut NodeCx) -> Result<(), Diag> {
    let shape = cx.in_shape(0);
    let t = computing_type(cx.in_dtype(0));
    let mut lines = shape.clone();
    lines.remove(1);
    let count: usize = lines.iter().product();
    let [max_of, ln_of] = [0, 1].map(|_| View::dense(cx.scratch(t, count), t, lines.clone()));
    // No scores: there are no lines, or no classes.
    if !shape.contains(&0) {
        let mut k = cx.kernel("_log_softmax");
        cells(&mut k, &shape, &[1], 20, |k, cell| {
            let (max, sum) = shifted_sum(k, cell, |_, _, _| {});
            let ln_sum = k.let_(Expr::unary(UnOp::Log, sum));
            let mut line = cell.at.clone();
            line.remove(1);
            k.store_view(&max_of, &line, max.clone());
            k.store_view(&ln_of, &line, ln_sum.clone());
            if k.cx.used(1) {
                cell.each(k, |k, c| {
                    let y = log_softmax_of(k, c, &max, &ln_sum);
                    k.store(1, c, y);
                });
            }
        });
        k.finish();
    }
    if cx.used(0) {
        loss(cx, op.reduction, op.ignore_index, |k, c, line| {
            let (max, ln_sum) = (k.load_view(&max_of, line), k.load_view(&ln_of, line));
            log_softmax_of(k, c, &max, &ln_sum)
        });
    }
    Ok(())
}

/// The kernel of the loss; `score` gives the logarithm of a probability at x's coordinates and those of its line.
fn loss(
    cx: &mut NodeCx,
    reduction: LossReduction,
    ignore: Option<i64>,
    score: impl FnOnce(&mut KernelCx, &[Expr], &[Expr]) -> Expr,
) {
    let lines = cx.in_shape(1);
    let mut k = cx.kernel("");
    if reduction == LossReduction::None {
        // Serial: a fault may stop no neighbour.
        k.nest(&lines, 10, LoopKind::Serial, |k, line| {
            let (loss, _) = one(k, ignore, line, score);
            let t = k.cx.out_dtype(0);
            let loss = to(k, computing_type(t), loss);
            k.store(0, line, loss);
        });
        return k.finish();
    }
    let zero = Expr::number(DType::F64, 0.0);
    let (sum, total) = (k.mutable(zero.clone()), k.mutable(zero));
    let add = |k: &mut KernelCx, line: &[Expr]| {
        let (loss, weight) = one(k, ignore, line, score);
        k.set(sum, Expr::Var(sum) + loss);
        k.set(total, Expr::Var(total) + weight);
    };
    if k.cx.low.gpu.is_some() {
        // The labels are shared by the threads of a block.
        k.vector(lines.iter().product(), |k, i| {
            let line = unflatten(k, i, &lines);
            add(k, &line);
        });
    } else {
        k.loops(&lines, add);
    }
    let y = match reduction {
        LossReduction::Mean => Expr::Var(sum) / Expr::Var(total),
        LossReduction::Sum | LossReduction::None => Expr::Var(sum),
    };
    let t = k.cx.out_dtype(0);
    let y = to(&k, computing_type(t), y);
    k.store(0, &[], y);
    k.finish();
}

/// Loss and weight of one label in f64; both 0 where it is ignored or at fault.
fn one(
    k: &mut KernelCx,
    ignore: Option<i64>,
    line: &[Expr],
    score: impl FnOnce(&mut KernelCx, &[Expr], &[Expr]) -> Expr,
) -> (Expr, Expr) {
    let classes = k.cx.in_shape(0)[1] as i64;
    let label = k.load(1, line);
    let label = to(k, DType::I64, label);
    let label = k.let_(label);
    let wanted = match ignore {
        Some(n) => Expr::compare(CmpOp::Ne, label.clone(), Expr::i64(n)),
        None => Expr::Int(DType::Bool, 1),
    };
    let below = Expr::compare(CmpOp::Lt, label.clone(), Expr::i64(classes));
    let inside = Expr::binary(BinOp::And, Expr::compare(CmpOp::Ge, label.clone(), Expr::i64(0)), below);
    let wanted = k.let_(wanted);
    let inside = k.let_(inside);
    k.fault_if(Expr::binary(BinOp::And, wanted.clone(), Expr::unary(UnOp::Not, inside.clone())), FAULT);
    let zero = Expr::number(DType::F64, 0.0);
    let (loss, weight) = (k.mutable(zero.clone()), k.mutable(zero));
    k.if_(Expr::binary(BinOp::And, wanted, inside), |k| {
        let mut c = line.to_vec();
        c.insert(1, label.clone());
        let x = score(k, &c, line);
        let x = to(k, DType::F64, x);
        let w = if k.cx.has(2) { k.load(2, &[label]) } else { Expr::number(DType::F64, 1.0) };
        let w = to(k, DType::F64, w);
        k.set(weight, w);
        k.set(loss, Expr::unary(UnOp::Neg, Expr::Var(weight)) * x);
    });
    (Expr::Var(loss), Expr::Var(weight))
}
