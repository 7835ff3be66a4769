//! Shared by the rules that fold `y*scale + shift`, per output channel, into the weights of what computes y: the
//! linear operators, their channel axis, and their rewritten forms.
//!
//! conv, conv_transpose:  axis 1      gemm, matmul of matrices:  the last axis

use crate::rule::{Decline, declined};
use crate::weights::{per_channel, scaled, vector};
use crate::{Cx, rule::Outcome, rule::replace};
use lehr_ir::ops::{Gemm, MatMul};
use lehr_ir::{NodeId, Op, ValueId};

/// Whether `id` is an operator that [`fold`] knows.
pub(super) fn is_linear(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_) | Op::MatMul(_))
}

/// The axis of the result along which weights have their own numbers.
pub(super) fn channel_axis(cx: &Cx, linear: NodeId) -> Result<usize, Decline> {
    match cx.op(linear) {
        Op::MatMul(_) => {
            if cx.ty(cx.x(linear, 0)).rank() != 2 || cx.ty(cx.x(linear, 1)).rank() != 2 {
                declined!("the product is not of two matrices");
            }
            Ok(1)
        }
        _ => Ok(1),
    }
}

/// Replaces `id`, which computes `y*scale[c] + shift[c]` from the result y of `linear`, by `linear` with other weights.
/// `None` for scale means 1. Declines where the new weights or the bias do not fit into their type.
pub(super) fn fold(cx: &mut Cx, id: NodeId, linear: NodeId, scale: Option<&[f64]>, shift: &[f64]) -> Outcome {
    let y = linear.out(0);
    if !cx.used_once(y) {
        declined!("the result of {} has other uses", cx.name(linear));
    }
    let dtype = cx.ty(y).dtype;
    let (op, w_operand) = (cx.op(linear).clone(), cx.x(linear, 1));
    let factor = |c: usize| scale.map_or(1.0, |s| s[c]);
    let bias = old_bias(cx, linear)?;
    let new_bias: Vec<f64> =
        shift.iter().enumerate().map(|(c, t)| bias.get(c).unwrap_or(&0.0) * factor(c) + t).collect();
    let has_bias = cx.operand(linear, 2).is_some() || shift.iter().any(|&t| t != 0.0);
    let new_bias = if has_bias { Some(vector("bias", dtype, &new_bias)?) } else { None };
    let w = match scale {
        None => w_operand,
        Some(_) => {
            let Some(w) = cx.constant(w_operand) else {
                declined!("the weights of {} are not constant", cx.name(linear))
            };
            let new_w = match &op {
                Op::Conv(_) => scaled(&w, 0, None, |o, _| factor(o)),
                Op::ConvTranspose(t) => {
                    let (per_group_in, per_group_out) = (w.shape()[0] / t.groups.max(1), w.shape()[1]);
                    scaled(&w, 0, Some(1), |i, o| factor(i / per_group_in.max(1) * per_group_out + o))
                }
                Op::Gemm(g) => scaled(&w, if g.trans_b { 0 } else { 1 }, None, |o, _| factor(o)),
                Op::MatMul(_) => scaled(&w, 1, None, |o, _| factor(o)),
                _ => return Err(Decline::NoMatch),
            };
            cx.add_tensor(new_w?)
        }
    };
    let op: Op = match op {
        Op::Gemm(g) => Gemm { beta: 1.0, ..g }.into(),
        Op::MatMul(MatMul {}) => Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }.into(),
        other => other,
    };
    let mut inputs = vec![Some(cx.x(linear, 0)), Some(w)];
    inputs.extend(new_bias.map(|b| Some(cx.add_tensor(b))));
    let origins = cx.origins(&[linear, id]);
    let new = cx.add(op, &inputs, origins)?;
    replace(id.out(0), new.out(0))
}

/// The bias per channel as it is added now; empty if there is none.
pub(super) fn old_bias(cx: &Cx, linear: NodeId) -> Result<Vec<f64>, Decline> {
    let Some(b) = cx.operand(linear, 2) else { return Ok(vec![]) };
    let Some(bias) = cx.constant(b) else { declined!("the bias of {} is not constant", cx.name(linear)) };
    let beta = match cx.op(linear) {
        Op::Gemm(g) => g.beta as f64,
        _ => return Ok(bias.to_f64()),
    };
    let Some(bias) = per_channel(&bias, cx.ty(linear.out(0)), 1) else {
        declined!("the bias of {} is not one number per column", cx.name(linear));
    };
    Ok(bias.into_iter().map(|b| b * beta).collect())
}

/// `op` at `v`, if a linear operator computes it.
pub(super) fn linear_producer(cx: &Cx, v: ValueId) -> Option<NodeId> {
    is_linear(cx.op(v.node)).then_some(v.node)
}
