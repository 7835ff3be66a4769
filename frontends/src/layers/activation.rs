//! Activations that are compositions. Those that are one operator ([`UnaryFn`]) need no function of their own.

use super::{Layer, Result};
use lehr_ir::ops::{BinaryFn, Clip, Reshape, Softmax, UnaryFn};
use lehr_ir::{Dim, ValueId};

/// `ln(1 + e^(beta*x))/beta`, as `max(x, 0) + softplus(-beta*|x|)/beta`: nothing overflows, and it tends to ReLU as beta grows.
/// `beta` is positive and finite. Source: torch's Softplus (whose `threshold` only spares it an overflow).
pub fn softplus(l: &mut Layer, x: ValueId, beta: f64) -> Result {
    if !(beta > 0.0 && beta.is_finite()) {
        return Err(l.error("softplus.c1", format!("beta is positive and finite, not {beta}")));
    }
    if beta == 1.0 {
        return l.unary(UnaryFn::Softplus, x);
    }
    let magnitude = l.unary(UnaryFn::Abs, x)?;
    let decay = l.with(BinaryFn::Mul, magnitude, -beta)?;
    let curve = l.unary(UnaryFn::Softplus, decay)?;
    let curve = l.with(BinaryFn::Div, curve, beta)?;
    let ramp = l.unary(UnaryFn::Relu, x)?;
    l.binary(BinaryFn::Add, ramp, curve)
}

/// `ln(sigmoid(x))`, as `-softplus(-x)`: finite wherever x is.
pub fn log_sigmoid(l: &mut Layer, x: ValueId) -> Result {
    let x = l.unary(UnaryFn::Neg, x)?;
    let y = l.unary(UnaryFn::Softplus, x)?;
    l.unary(UnaryFn::Neg, y)
}

/// `e^-x / sum e^-x` along an axis, as softmax of `-x`.
pub fn softmin(l: &mut Layer, x: ValueId, axis: usize) -> Result {
    let x = l.unary(UnaryFn::Neg, x)?;
    l.op(Softmax { axis }, &[x])
}

/// `min(max(x, 0), 6)`.
pub fn relu6(l: &mut Layer, x: ValueId) -> Result {
    let (lo, hi) = (l.number(0.0, x), l.number(6.0, x));
    l.op(Clip {}, &[x, lo, hi])
}

/// `sin(frequency*x)`: a layer of a sinusoidal representation network. Source: Sitzmann et al. (2020), whose frequency is 30.
pub fn sine(l: &mut Layer, x: ValueId, frequency: f64) -> Result {
    let x = if frequency == 1.0 { x } else { l.with(BinaryFn::Mul, x, frequency)? };
    l.unary(UnaryFn::Sin, x)
}

/// `x < 0 ? slope*x : x`; the slope is a vector of one number, or of one per channel (axis 1 of x).
pub fn prelu(l: &mut Layer, x: ValueId, slope: ValueId) -> Result {
    let (rank, slopes) = (l.ty(x).rank(), l.ty(slope));
    if slopes.rank() != 1 {
        return Err(l.error("prelu.c1", format!("slopes are a vector, not {slopes}")));
    }
    // A trailing axis for each spatial one.
    let mut shape = slopes.shape.clone();
    shape.extend((2..rank).map(|_| Dim::ONE));
    let slope = if shape.len() > 1 { l.op(Reshape { shape }, &[slope])? } else { slope };
    l.binary(BinaryFn::Prelu, x, slope)
}
