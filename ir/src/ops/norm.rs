//! Normalisations over channels or axes, and the softmax family.

use crate::op::op;

op! {
    /// `(x - mean)/sqrt(var + eps)*scale + bias` per channel (axis 1), statistics given. Source: ONNX BatchNormalization, inference form.
    pub struct BatchNorm = "batch_norm" (x: One, scale: One, bias: One, mean: One, var: One) -> (y) { eps: f32 = 1e-5 }
}

op! {
    /// Normalises by the batch's own mean and population variance over all axes but 1, and gives the running statistics
    /// `momentum*old + (1 - momentum)*batch`. Source: ONNX BatchNormalization with training_mode=1, opset 14+.
    pub struct BatchNormTrain = "batch_norm_train" (x: One, scale: One, bias: One, mean: One, var: One) -> (y, running_mean, running_var) {
        eps: f32 = 1e-5,
        momentum: f32 = 0.9,
    }
}

op! {
    /// Normalises each (n, c) over its spatial axes, then scale and bias per channel. Source: ONNX InstanceNormalization.
    pub struct InstanceNorm = "instance_norm" (x: One, scale: One, bias: One) -> (y) { eps: f32 = 1e-5 }
}

op! {
    /// Normalises over axes `axis..rank`; scale and bias broadcast to x. Also gives the mean and 1/sqrt(var + eps), with the
    /// normalised axes kept as 1, in f32 (f64 for f64). Source: ONNX LayerNormalization, opset 17+.
    pub struct LayerNorm = "layer_norm" (x: One, scale: One, bias: Opt) -> (y, mean, inv_std_dev) {
        /// Resolved: not negative.
        axis: usize,
        eps: f32 = 1e-5,
    }
}

op! {
    /// Normalises groups of channels over (channels of the group, spatial); scale and bias per channel. Source: ONNX
    /// GroupNormalization, opset 21+ (opset 18's per-group scale is expanded at import).
    pub struct GroupNorm = "group_norm" (x: One, scale: One, bias: One) -> (y) {
        groups: usize,
        eps: f32 = 1e-5,
    }
}

op! {
    /// Local response normalisation across channels: `x / (bias + alpha/size * sum of squares over the window)^beta`, the
    /// window being channels `c - floor((size-1)/2) ..= c + ceil((size-1)/2)`. Source: ONNX LRN.
    pub struct Lrn = "lrn" (x: One) -> (y) {
        size: usize,
        alpha: f32 = 0.0001,
        beta: f32 = 0.75,
        bias: f32 = 1.0,
    }
}

op! {
    /// `e^(x - max) / sum` along one axis. Source: ONNX Softmax, opset 13+ (earlier opsets are flattened at import).
    pub struct Softmax = "softmax" (x: One) -> (y) { axis: usize }
}

op! {
    /// `x - max - ln(sum e^(x - max))` along one axis. Source: ONNX LogSoftmax, opset 13+.
    pub struct LogSoftmax = "log_softmax" (x: One) -> (y) { axis: usize }
}

op! {
    /// 1 at the first maximum along one axis, 0 elsewhere. Source: ONNX Hardmax, opset 13+.
    pub struct Hardmax = "hardmax" (x: One) -> (y) { axis: usize }
}

impl crate::op::OpDef for BatchNorm {}
impl crate::op::OpDef for BatchNormTrain {}
impl crate::op::OpDef for InstanceNorm {}
impl crate::op::OpDef for LayerNorm {}
impl crate::op::OpDef for GroupNorm {}
impl crate::op::OpDef for Lrn {}
impl crate::op::OpDef for Softmax {}
impl crate::op::OpDef for LogSoftmax {}
impl crate::op::OpDef for Hardmax {}
