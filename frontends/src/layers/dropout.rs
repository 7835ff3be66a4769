//! Dropout in training, whose randomness is a function of a seed alone: evaluator, compiled code and any number of threads drop
//! the same elements. In inference dropout is the operator `dropout`, which passes x on.

use super::{Layer, Result};
use lehr_ir::ops::{BinaryFn, Cast, Range, Reshape, Where};
use lehr_ir::{DType, Tensor, ValueId};

/// What dropout gives.
#[derive(Clone, Copy, Debug)]
pub struct Dropped {
    pub y: ValueId,
    /// True where x was kept.
    pub mask: ValueId,
}

/// Each element is 0 with probability `p`, and `x/(1 - p)` otherwise, so that the mean stays. `seed` is an integer scalar: a constant
/// drops the same elements in every run, an input leaves that to the caller. Probabilities are rounded to multiples of 2^-24.
///
/// Element i is kept if the top 24 bits of the i-th number of SplitMix64 started from the seed are below `(1 - p)*2^24`. Source: Srivastava
/// et al. (2014), scaled in training as in torch and ONNX; Steele, Lea and Flood (2014) for the generator.
pub fn dropout(l: &mut Layer, x: ValueId, p: f64, seed: ValueId) -> Result<Dropped> {
    l.require_floats(x)?;
    if !(0.0..=1.0).contains(&p) {
        return Err(l.error("dropout.c2", format!("a probability lies between 0 and 1, {p} does not")));
    }
    if !l.ty(seed).dtype.is_int() || l.ty(seed).rank() != 0 {
        return Err(l.error("dropout.c3", format!("the seed is an integer scalar, not {}", l.ty(seed))));
    }
    let ty = l.ty(x).clone();
    let word = |l: &mut Layer, v: u64| l.constant(Tensor::from_i128(DType::U64, vec![], [v.into()]));
    let gamma = word(l, 0x9e37_79b9_7f4a_7c15);
    let steps = l.op(Range { len: ty.elements() }, &[gamma, gamma])?;
    let seed = l.op(Cast { to: DType::U64 }, &[seed])?;
    let mut z = l.binary(BinaryFn::Add, steps, seed)?;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
        z = xor_shifted(l, z, shift)?;
        let factor = word(l, factor);
        z = l.binary(BinaryFn::Mul, z, factor)?;
    }
    z = xor_shifted(l, z, 31)?;
    let forty = word(l, 40);
    let top = l.binary(BinaryFn::ShiftRight, z, forty)?;
    let limit = word(l, ((1.0 - p) * f64::from(1 << 24)).round() as u64);
    let mask = l.binary(BinaryFn::Less, top, limit)?;
    let mask = l.op(Reshape { shape: ty.shape }, &[mask])?;
    // Where all is dropped there is nothing to scale.
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let scaled = l.with(BinaryFn::Mul, x, scale)?;
    let zero = l.number(0.0, x);
    let y = l.op(Where {}, &[mask, scaled, zero])?;
    Ok(Dropped { y, mask })
}

/// `z ^ (z >> shift)`
fn xor_shifted(l: &mut Layer, z: ValueId, shift: u64) -> Result {
    let shift = l.constant(Tensor::from_i128(DType::U64, vec![], [shift.into()]));
    let moved = l.binary(BinaryFn::ShiftRight, z, shift)?;
    l.binary(BinaryFn::BitXor, z, moved)
}
