//! Losses that compare scores or embeddings with one another. Definitions are torch's.

use super::loss::{Reduction, reduced};
use super::{Layer, Result};
use lehr_ir::ValueId;
use lehr_ir::ops::{BinaryFn, ReduceFn, UnaryFn, Where};

/// `max(0, margin - y*(x1 - x2))`: y is 1 where x1 should be the larger, -1 where x2 should.
pub fn margin(l: &mut Layer, [x1, x2]: [ValueId; 2], y: ValueId, margin: f64, reduction: Reduction) -> Result {
    l.require_one_type(x1, x2)?;
    l.require_one_type(x1, y)?;
    let d = l.binary(BinaryFn::Sub, x1, x2)?;
    let gain = l.binary(BinaryFn::Mul, y, d)?;
    let losses = short_of(l, margin, gain)?;
    reduced(l, losses, reduction)
}

/// The norm that distances are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    One,
    Two,
    Infinity,
}

/// How a triplet is judged.
#[derive(Clone, Copy, Debug)]
pub struct Triplet {
    pub margin: f64,
    pub norm: Norm,
    /// Added to every difference.
    pub eps: f64,
    /// The negative's distance is the smaller of those to the anchor and to the positive.
    pub swap: bool,
}

impl Default for Triplet {
    /// As in torch.
    fn default() -> Triplet {
        Triplet { margin: 1.0, norm: Norm::Two, eps: 1e-6, swap: false }
    }
}

/// `max(0, |anchor - positive| - |anchor - negative| + margin)`, distances along the last axis.
/// Source: torch's TripletMarginLoss; Balntas et al. (2016) for `swap`.
pub fn triplet(
    l: &mut Layer,
    [anchor, positive, negative]: [ValueId; 3],
    options: Triplet,
    reduction: Reduction,
) -> Result {
    l.require_one_type(anchor, positive)?;
    l.require_one_type(anchor, negative)?;
    let near = distance(l, anchor, positive, options)?;
    let mut far = distance(l, anchor, negative, options)?;
    if options.swap {
        let other = distance(l, positive, negative, options)?;
        far = l.binary(BinaryFn::Min, far, other)?;
    }
    let gain = l.binary(BinaryFn::Sub, far, near)?;
    let losses = short_of(l, options.margin, gain)?;
    reduced(l, losses, reduction)
}

/// `y = 1: 1 - cos(x1, x2)`; `y = -1: max(0, cos(x1, x2) - margin)`; any other y: 0. x1 and x2 are [..., features], y is [...]. The
/// squares of both lengths get 1e-12 more, so that a vector of zeros has cosine 0 (in f16, which has no such number, NaN). Source: torch's CosineEmbeddingLoss.
pub fn cosine_embedding(
    l: &mut Layer,
    [x1, x2]: [ValueId; 2],
    y: ValueId,
    margin: f64,
    reduction: Reduction,
) -> Result {
    l.require_one_type(x1, x2)?;
    let axis = features(l, x1)?;
    let dot = l.binary(BinaryFn::Mul, x1, x2)?;
    let dot = l.reduce(ReduceFn::Sum, dot, vec![axis])?;
    l.require_one_type(dot, y)?;
    // By one length after the other: their product, squared, would overflow much earlier.
    let mut cos = dot;
    for x in [x1, x2] {
        let square = l.reduce(ReduceFn::SumSquare, x, vec![axis])?;
        let square = l.with(BinaryFn::Add, square, 1e-12)?;
        let length = l.unary(UnaryFn::Sqrt, square)?;
        cos = l.binary(BinaryFn::Div, cos, length)?;
    }
    let one = l.number(1.0, cos);
    let apart = l.binary(BinaryFn::Sub, one, cos)?;
    let together = l.with(BinaryFn::Sub, cos, margin)?;
    let together = l.unary(UnaryFn::Relu, together)?;
    let zero = l.number(0.0, cos);
    let (alike, unlike) = (l.with(BinaryFn::Equal, y, 1.0)?, l.with(BinaryFn::Equal, y, -1.0)?);
    let other = l.op(Where {}, &[unlike, together, zero])?;
    let losses = l.op(Where {}, &[alike, apart, other])?;
    reduced(l, losses, reduction)
}

/// `max(0, margin - gain)`
fn short_of(l: &mut Layer, margin: f64, gain: ValueId) -> Result {
    let margin = l.number(margin, gain);
    let rest = l.binary(BinaryFn::Sub, margin, gain)?;
    l.unary(UnaryFn::Relu, rest)
}

fn features(l: &Layer, x: ValueId) -> Result<usize> {
    match l.ty(x).rank().checked_sub(1) {
        Some(axis) => Ok(axis),
        None => Err(l.error("ranking.c1", "a scalar is no vector of features".into())),
    }
}

fn distance(l: &mut Layer, x: ValueId, y: ValueId, options: Triplet) -> Result {
    let axis = features(l, x)?;
    let d = l.binary(BinaryFn::Sub, x, y)?;
    let d = l.with(BinaryFn::Add, d, options.eps)?;
    match options.norm {
        Norm::One => l.reduce(ReduceFn::L1, d, vec![axis]),
        Norm::Two => l.reduce(ReduceFn::L2, d, vec![axis]),
        Norm::Infinity => {
            let d = l.unary(UnaryFn::Abs, d)?;
            l.reduce(ReduceFn::Max, d, vec![axis])
        }
    }
}
