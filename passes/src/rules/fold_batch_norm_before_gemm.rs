//! gemm(batch_norm(x; g, h, m, v), w, b)  ==  gemm(x, w*s, b + alpha*sum(w*t))
//!     s = g / sqrt(v + eps), t = h - m*s, per column of x; the sum is over these columns. matmul of matrices likewise
//! Needs: constant, finite weights; constant bias and statistics; a normalised matrix that is used once, as the first operand, not
//! transposed; new weights and bias in their type's range. Exactness: Rounding.

use super::affine::old_bias;
use super::fold_batch_norm::scale_and_shift;
use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use crate::weights::{require_finite, scaled, vector};
use lehr_ir::ops::Gemm;
use lehr_ir::{NodeId, Op};

pub const FOLD_BATCH_NORM_BEFORE_GEMM: Rule = Rule {
    name: "fold-batch-norm-before-gemm",
    equation: "gemm(batch_norm(x; g, h, m, v), w, b) == gemm(x, w*s, b + alpha*sum(w*t))",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let gemm = match cx.op(id) {
        Op::Gemm(g) => g.clone(),
        Op::MatMul(_) => Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false },
        _ => return Err(Decline::NoMatch),
    };
    let bn = cx.x(id, 0).node;
    let Op::BatchNorm(_) = cx.op(bn) else { return Err(Decline::NoMatch) };
    if cx.ty(bn.out(0)).rank() != 2 || cx.ty(cx.x(id, 1)).rank() != 2 {
        declined!("the product is not of two matrices");
    }
    if gemm.trans_a {
        declined!("the normalised matrix is transposed: its channels are rows of the product");
    }
    let (scale, shift) = scale_and_shift(cx, bn)?;
    if !cx.used_once(bn.out(0)) {
        declined!("the result of {} has other uses", cx.name(bn));
    }
    let Some(w) = cx.constant(cx.x(id, 1)) else { declined!("the weights of {} are not constant", cx.name(id)) };
    let bias = old_bias(cx, id)?;
    let (inner, columns) = if gemm.trans_b { (1, w.shape()[0]) } else { (0, w.shape()[1]) };
    let mut new_bias: Vec<f64> = (0..columns).map(|c| bias.get(c).copied().unwrap_or(0.0)).collect();
    let values = w.to_f64();
    require_finite(&values)?;
    for (at, value) in values.into_iter().enumerate() {
        let (row, column) = (at / w.shape()[1], at % w.shape()[1]);
        let (k, c) = if gemm.trans_b { (column, row) } else { (row, column) };
        new_bias[c] += gemm.alpha as f64 * value * shift[k];
    }
    let weights = scaled(&w, inner, None, |k, _| scale[k])?;
    let has_bias = cx.operand(id, 2).is_some() || new_bias.iter().any(|&b| b != 0.0);
    let new_bias = if has_bias { Some(vector("bias", w.dtype(), &new_bias)?) } else { None };
    let mut inputs = vec![cx.operand(bn, 0), Some(cx.add_tensor(weights))];
    inputs.extend(new_bias.map(|b| Some(cx.add_tensor(b))));
    let origins = cx.origins(&[bn, id]);
    let new = cx.add(Gemm { beta: 1.0, ..gemm }, &inputs, origins)?;
    replace(id.out(0), new.out(0))
}
