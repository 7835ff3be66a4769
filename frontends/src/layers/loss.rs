//! Losses of predictions and targets of one shape, and of class scores and labels. Every one takes what becomes of the
//! losses of single elements: all of them, their sum, or their mean. Definitions are torch's; forms are those that stay exact
//! where the textbook's overflow or cancel.

use super::{Layer, Result};
pub use lehr_ir::ops::LossReduction as Reduction;
use lehr_ir::ops::{Binary, BinaryFn, NllLoss, ReduceFn, SoftmaxCrossEntropy, UnaryFn, Where};
use lehr_ir::{Tensor, ValueId};

/// `(x - y)^2`
pub fn l2(l: &mut Layer, x: ValueId, y: ValueId, reduction: Reduction) -> Result {
    let d = difference(l, x, y)?;
    let losses = l.binary(BinaryFn::Mul, d, d)?;
    reduced(l, losses, reduction)
}

/// `|x - y|`
pub fn l1(l: &mut Layer, x: ValueId, y: ValueId, reduction: Reduction) -> Result {
    let d = difference(l, x, y)?;
    let losses = l.unary(UnaryFn::Abs, d)?;
    reduced(l, losses, reduction)
}

/// `d = |x - y|; d < beta ? d^2/(2*beta) : d - beta/2`, as `m*(d - m/2)/beta` with `m = min(d, beta)`. With `beta` 0 it is [`l1`].
pub fn smooth_l1(l: &mut Layer, x: ValueId, y: ValueId, beta: f64, reduction: Reduction) -> Result {
    if !(beta >= 0.0 && beta.is_finite()) {
        return Err(l.error("smooth_l1.c1", format!("beta is finite and not negative, {beta} is not")));
    }
    if beta == 0.0 {
        return l1(l, x, y, reduction);
    }
    let d = difference(l, x, y)?;
    let d = l.unary(UnaryFn::Abs, d)?;
    let m = l.with(BinaryFn::Min, d, beta)?;
    let half = l.with(BinaryFn::Mul, m, 0.5)?;
    let rest = l.binary(BinaryFn::Sub, d, half)?;
    // Divided first: m/beta is at most 1.
    let m = l.with(BinaryFn::Div, m, beta)?;
    let losses = l.binary(BinaryFn::Mul, m, rest)?;
    reduced(l, losses, reduction)
}

/// What losses of labels weigh and leave out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes {
    /// One number per class. The mean divides by the sum of those used.
    pub weights: Option<ValueId>,
    /// The label of elements that do not count.
    pub ignore_index: Option<i64>,
}

/// `-w[t] * x[n, t, ...]` for logarithms of probabilities x [N, C, d...] and labels t [N, d...].
pub fn negative_log_likelihood(
    l: &mut Layer,
    x: ValueId,
    labels: ValueId,
    classes: &Classes,
    reduction: Reduction,
) -> Result {
    let op = NllLoss { reduction, ignore_index: classes.ignore_index };
    Ok(l.node(op, &[Some(x), Some(labels), classes.weights])?.out(0))
}

/// [`negative_log_likelihood`] of `log_softmax(x)`, in one operator.
pub fn cross_entropy(l: &mut Layer, x: ValueId, labels: ValueId, classes: &Classes, reduction: Reduction) -> Result {
    let op = SoftmaxCrossEntropy { reduction, ignore_index: classes.ignore_index };
    Ok(l.node(op, &[Some(x), Some(labels), classes.weights])?.out(0))
}

/// `-w*(t*ln(p) + (1 - t)*ln(1 - p))` for probabilities p and targets t in [0, 1]; the logarithms end at -100, so that a wrong
/// certainty costs 100 and no infinity. `weights` broadcast to the losses. Source: torch's BCELoss.
pub fn binary_cross_entropy(
    l: &mut Layer,
    p: ValueId,
    t: ValueId,
    weights: Option<ValueId>,
    reduction: Reduction,
) -> Result {
    l.require_one_type(p, t)?;
    let ln_p = l.unary(UnaryFn::Log, p)?;
    let ln_p = l.with(BinaryFn::Max, ln_p, -100.0)?;
    let minus = l.unary(UnaryFn::Neg, p)?;
    let ln_q = l.unary(UnaryFn::Log1p, minus)?;
    let ln_q = l.with(BinaryFn::Max, ln_q, -100.0)?;
    let yes = l.binary(BinaryFn::Mul, t, ln_p)?;
    let rest = one_minus(l, t)?;
    let no = l.binary(BinaryFn::Mul, rest, ln_q)?;
    let sum = l.binary(BinaryFn::Add, yes, no)?;
    let losses = l.unary(UnaryFn::Neg, sum)?;
    let losses = weighted(l, losses, weights)?;
    reduced(l, losses, reduction)
}

/// Weights of [`binary_cross_entropy_with_logits`]; both broadcast to the losses.
#[derive(Clone, Copy, Debug, Default)]
pub struct BinaryWeights {
    pub losses: Option<ValueId>,
    /// Of the term for positive targets.
    pub positives: Option<ValueId>,
}

/// [`binary_cross_entropy`] of `sigmoid(x)`, as `w*(v*t*softplus(-x) + (1 - t)*softplus(x))`: no term is negative, so nothing cancels, and
/// no logarithm meets 0. Source: torch's BCEWithLogitsLoss.
pub fn binary_cross_entropy_with_logits(
    l: &mut Layer,
    x: ValueId,
    t: ValueId,
    weights: BinaryWeights,
    reduction: Reduction,
) -> Result {
    l.require_one_type(x, t)?;
    let minus = l.unary(UnaryFn::Neg, x)?;
    let yes = l.unary(UnaryFn::Softplus, minus)?;
    let yes = l.binary(BinaryFn::Mul, t, yes)?;
    let yes = weighted(l, yes, weights.positives)?;
    let no = l.unary(UnaryFn::Softplus, x)?;
    let rest = one_minus(l, t)?;
    let no = l.binary(BinaryFn::Mul, rest, no)?;
    let losses = l.binary(BinaryFn::Add, yes, no)?;
    let losses = weighted(l, losses, weights.losses)?;
    reduced(l, losses, reduction)
}

/// What the targets of a divergence are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    Probabilities,
    Logarithms,
}

/// `t*(ln(t) - x)` for logarithms of probabilities x: the divergence of Kullback and Leibler from the prediction to the target. Where t is 0
/// it is 0, whatever x. Torch's `batchmean` is [`batch_mean`] of the unreduced losses.
pub fn kullback_leibler(l: &mut Layer, x: ValueId, t: ValueId, targets: Targets, reduction: Reduction) -> Result {
    l.require_one_type(x, t)?;
    let (p, ln_p, nothing) = match targets {
        Targets::Probabilities => (t, l.unary(UnaryFn::Log, t)?, 0.0),
        Targets::Logarithms => (l.unary(UnaryFn::Exp, t)?, t, f64::NEG_INFINITY),
    };
    let d = l.binary(BinaryFn::Sub, ln_p, x)?;
    let losses = l.binary(BinaryFn::Mul, p, d)?;
    let absent = l.with(BinaryFn::Equal, t, nothing)?;
    let zero = l.number(0.0, x);
    let losses = l.op(Where {}, &[absent, zero, losses])?;
    reduced(l, losses, reduction)
}

/// The sum of all but the first axis, then the mean over that.
pub fn batch_mean(l: &mut Layer, losses: ValueId) -> Result {
    let rank = l.ty(losses).rank();
    if rank == 0 {
        return Err(l.error("loss.c4", "a scalar has no batch".into()));
    }
    let sums = l.reduce(ReduceFn::Sum, losses, (1..rank).collect())?;
    l.reduce(ReduceFn::Mean, sums, vec![0])
}

/// All losses, their sum or their mean.
pub(super) fn reduced(l: &mut Layer, losses: ValueId, reduction: Reduction) -> Result {
    let f = match reduction {
        Reduction::None => return Ok(losses),
        Reduction::Sum => ReduceFn::Sum,
        Reduction::Mean => ReduceFn::Mean,
    };
    let axes = (0..l.ty(losses).rank()).collect();
    l.reduce(f, losses, axes)
}

fn difference(l: &mut Layer, x: ValueId, y: ValueId) -> Result {
    l.require_one_type(x, y)?;
    l.binary(BinaryFn::Sub, x, y)
}

fn one_minus(l: &mut Layer, t: ValueId) -> Result {
    let one = Tensor::scalar_f64(l.ty(t).dtype, 1.0);
    let one = l.constant(one);
    l.op(Binary { f: BinaryFn::Sub }, &[one, t])
}

/// Weights may be of fewer axes than the losses, never of more.
fn weighted(l: &mut Layer, losses: ValueId, weights: Option<ValueId>) -> Result {
    let Some(w) = weights else { return Ok(losses) };
    let y = l.binary(BinaryFn::Mul, losses, w)?;
    if l.ty(y) != l.ty(losses) {
        let message = format!("weights {} do not broadcast to losses {}", l.ty(w), l.ty(losses));
        return Err(l.error("loss.c3", message));
    }
    Ok(y)
}
