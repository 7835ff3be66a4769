//! batch_norm(linear(x, w, b); g, h, m, v)  ==  linear(x, w*s, b*s + h - m*s)      s = g / sqrt(v + eps), per output channel
//! linear: conv, conv_transpose, gemm, matmul of matrices.
//! Needs: constant weights, bias and statistics (not the batch's own); a result of linear that is used once; new weights and bias in
//! their type's range. Exactness: Rounding.

use super::affine::{channel_axis, fold, linear_producer};
use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined};
use lehr_ir::{NodeId, Op};

pub const FOLD_BATCH_NORM: Rule = Rule {
    name: "fold-batch-norm",
    equation: "batch_norm(linear(x, w, b); g, h, m, v) == linear(x, w*s, b*s + h - m*s)",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let own_statistics = match cx.op(id) {
        Op::BatchNorm(_) => false,
        Op::BatchNormTrain(_) => true,
        _ => return Err(Decline::NoMatch),
    };
    let Some(linear) = linear_producer(cx, cx.x(id, 0)) else { return Err(Decline::NoMatch) };
    if own_statistics {
        declined!("it normalises by the batch's own statistics, which are known only when it runs");
    }
    channel_axis(cx, linear)?;
    let (scale, shift) = scale_and_shift(cx, id)?;
    fold(cx, id, linear, Some(&scale), &shift)
}

/// A batch_norm as `x*scale + shift` per channel.
pub(super) fn scale_and_shift(cx: &Cx, id: NodeId) -> Result<(Vec<f64>, Vec<f64>), Decline> {
    let Op::BatchNorm(bn) = cx.op(id) else { return Err(Decline::NoMatch) };
    let mut statistics = vec![];
    for (i, name) in ["scale", "bias", "mean", "variance"].into_iter().enumerate() {
        let Some(t) = cx.constant(cx.x(id, i + 1)) else { declined!("the {name} is not constant") };
        statistics.push(t.to_f64());
    }
    let [g, h, m, v] = &statistics[..] else { return Err(Decline::NoMatch) };
    let scale: Vec<f64> = g.iter().zip(v).map(|(g, v)| g / (v + bn.eps as f64).sqrt()).collect();
    if scale.iter().any(|s| !s.is_finite()) {
        declined!("a variance is so small or negative that the scale is not finite");
    }
    let shift = scale.iter().zip(h).zip(m).map(|((s, h), m)| h - m * s).collect();
    Ok((scale, shift))
}
