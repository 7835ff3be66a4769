//! Batch normalisation by the batch's own statistics, with the update of the running ones.

use super::{Layer, Result};
use lehr_ir::ops::{BatchNormTrain, BinaryFn, Cast, SizeOf};
use lehr_ir::{DType, Dim, Tensor, ValueId};

/// Which variance the running update takes in. The batch itself is always normalised by the population variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunningVariance {
    /// Divided by n: ONNX, TensorFlow.
    Population,
    /// Divided by n - 1: torch.
    Unbiased,
}

/// How statistics are used and kept.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormOptions {
    pub eps: f32,
    /// What is kept of the old running statistics: ONNX's momentum, and 1 minus torch's.
    pub momentum: f64,
    pub running: RunningVariance,
}

impl Default for BatchNormOptions {
    /// As torch does by default.
    fn default() -> BatchNormOptions {
        BatchNormOptions { eps: 1e-5, momentum: 0.9, running: RunningVariance::Unbiased }
    }
}

/// A mean and a variance per channel.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    pub mean: ValueId,
    pub var: ValueId,
}

/// What batch normalisation in batch-statistics form gives.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormed {
    pub y: ValueId,
    /// Of the batch, population variance.
    pub batch: Statistics,
    /// After the update.
    pub running: Statistics,
}

/// `(x - mean)/sqrt(var + eps)*scale + bias` per channel (axis 1), mean and variance being those of x over all other axes, and
/// `momentum*old + (1 - momentum)*batch` for the running statistics. Source: Ioffe and Szegedy (2015).
pub fn batch_norm(
    l: &mut Layer,
    x: ValueId,
    (scale, bias): (ValueId, ValueId),
    old: Statistics,
    options: BatchNormOptions,
) -> Result<BatchNormed> {
    l.require_floats(x)?;
    let Some(channels) = l.ty(x).shape.get(1).and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok()) else {
        return Err(l.error("batch_norm.c1", format!("the number of channels must be known, x is {}", l.ty(x))));
    };
    // With no momentum the operator's update forgets the old statistics: what it gives are those of the batch.
    let dtype = l.ty(x).dtype;
    let none = l.constant(Tensor::from_f64(dtype, vec![channels], vec![0.0; channels]));
    let op = BatchNormTrain { eps: options.eps, momentum: 0.0 };
    let id = l.node(op, &[Some(x), Some(scale), Some(bias), Some(none), Some(none)])?;
    let batch = Statistics { mean: id.out(1), var: id.out(2) };
    let taken_in = match options.running {
        RunningVariance::Population => batch.var,
        RunningVariance::Unbiased => unbiased(l, x, batch.var, channels)?,
    };
    let running = Statistics {
        mean: update(l, old.mean, batch.mean, options.momentum)?,
        var: update(l, old.var, taken_in, options.momentum)?,
    };
    Ok(BatchNormed { y: id.out(0), batch, running })
}

/// `var * n/(n - 1)`; n, the elements per channel, may depend on the batch.
fn unbiased(l: &mut Layer, x: ValueId, var: ValueId, channels: usize) -> Result {
    let size = l.op(SizeOf {}, &[x])?;
    let channels = l.constant(Tensor::from_i128(DType::I64, vec![], [channels as i128]));
    let n = l.binary(BinaryFn::Div, size, channels)?;
    let to = l.ty(var).dtype;
    let n = l.op(Cast { to }, &[n])?;
    let less = l.with(BinaryFn::Sub, n, 1.0)?;
    let ratio = l.binary(BinaryFn::Div, n, less)?;
    l.binary(BinaryFn::Mul, var, ratio)
}

fn update(l: &mut Layer, old: ValueId, new: ValueId, momentum: f64) -> Result {
    let kept = l.with(BinaryFn::Mul, old, momentum)?;
    let added = l.with(BinaryFn::Mul, new, 1.0 - momentum)?;
    l.binary(BinaryFn::Add, kept, added)
}
