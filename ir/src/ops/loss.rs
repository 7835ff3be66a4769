//! Losses over class scores [N, C, d...] and labels [N, d...].

use crate::op::{keyword, op};

keyword! {
    pub enum LossReduction { None = "none", Sum = "sum", Mean = "mean" }
}

op! {
    /// `-w[t] * x[n, t, ...]`; mean divides by the sum of the weights used; `ignore_index` contributes nothing. Source: ONNX NegativeLogLikelihoodLoss.
    pub struct NllLoss = "nll_loss" (x: One, target: One, weight: Opt) -> (y) {
        reduction: LossReduction = LossReduction::Mean,
        ignore_index: Option<i64> = None,
    }
}

op! {
    /// `nll_loss(log_softmax(x, axis 1), labels, weight)`, and the log-softmax. Source: ONNX SoftmaxCrossEntropyLoss.
    pub struct SoftmaxCrossEntropy = "softmax_cross_entropy" (x: One, labels: One, weight: Opt) -> (y, log_prob) {
        reduction: LossReduction = LossReduction::Mean,
        ignore_index: Option<i64> = None,
    }
}

impl crate::op::OpDef for NllLoss {}
impl crate::op::OpDef for SoftmaxCrossEntropy {}
