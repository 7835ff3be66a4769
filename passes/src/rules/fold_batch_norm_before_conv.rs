//! conv(batch_norm(x; g, h, m, v), w, b)  ==  conv(x, w*s, b + sum(w*t))
//!     s = g / sqrt(v + eps), t = h - m*s, per input channel; the sum is over input channels and window
//! Needs: constant, finite weights; constant bias and statistics; a normalised value that is used once; no padding, unless every t
//! is 0: the convolution pads the normalised value with 0, which is t in terms of x; new weights and bias in their type's range.
//! Exactness: Rounding.

use super::fold_batch_norm::scale_and_shift;
use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use crate::weights::{require_finite, scaled, vector};
use lehr_ir::{NodeId, Op};

pub const FOLD_BATCH_NORM_BEFORE_CONV: Rule = Rule {
    name: "fold-batch-norm-before-conv",
    equation: "conv(batch_norm(x; g, h, m, v), w, b) == conv(x, w*s, b + sum(w*t))",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let Op::Conv(conv) = cx.op(id).clone() else { return Err(Decline::NoMatch) };
    let bn = cx.x(id, 0).node;
    let Op::BatchNorm(_) = cx.op(bn) else { return Err(Decline::NoMatch) };
    let (scale, shift) = scale_and_shift(cx, bn)?;
    if conv.pads.iter().any(|&p| p != 0) && shift.iter().any(|&t| t != 0.0) {
        declined!("{} pads with 0, which is not 0 before the normalisation", cx.name(id));
    }
    if !cx.used_once(bn.out(0)) {
        declined!("the result of {} has other uses", cx.name(bn));
    }
    let Some(w) = cx.constant(cx.x(id, 1)) else { declined!("the weights of {} are not constant", cx.name(id)) };
    let bias = match cx.operand(id, 2) {
        None => None,
        Some(b) => match cx.constant(b) {
            Some(b) => Some(b.to_f64()),
            None => declined!("the bias of {} is not constant", cx.name(id)),
        },
    };
    // Input channel of weight (o, i): each group of outputs sees its own inputs.
    let (outputs, inputs) = (w.shape()[0], w.shape()[1]);
    let outputs_per_group = (outputs / conv.groups.max(1)).max(1);
    let channel = |o: usize, i: usize| o / outputs_per_group * inputs + i;
    let window: usize = w.shape()[2..].iter().product();
    let values = w.to_f64();
    require_finite(&values)?;
    let new_bias: Vec<f64> = (0..outputs)
        .map(|o| {
            let taps = |i: usize| &values[(o * inputs + i) * window..(o * inputs + i + 1) * window];
            let shifted = (0..inputs).map(|i| taps(i).iter().sum::<f64>() * shift[channel(o, i)]);
            bias.as_ref().map_or(0.0, |b| b[o]) + shifted.sum::<f64>()
        })
        .collect();
    let new_w = scaled(&w, 0, Some(1), |o, i| scale[channel(o, i)])?;
    let has_bias = bias.is_some() || new_bias.iter().any(|&b| b != 0.0);
    let new_bias = if has_bias { Some(vector("bias", w.dtype(), &new_bias)?) } else { None };
    let mut inputs = vec![cx.operand(bn, 0), Some(cx.add_tensor(new_w))];
    inputs.extend(new_bias.map(|b| Some(cx.add_tensor(b))));
    let origins = cx.origins(&[bn, id]);
    let new = cx.add(conv, &inputs, origins)?;
    replace(id.out(0), new.out(0))
}
