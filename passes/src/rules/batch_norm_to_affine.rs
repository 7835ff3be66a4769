//! batch_norm(x; g, h, m, v)  ==  x*s + t      s = g / sqrt(v + eps), t = h - m*s, per channel
//! Runs when nothing could take the normalisation into its weights: as a product and a sum it joins the elementwise work
//! before and behind it.
//! Needs: constant statistics; f32 or f64 (in narrower types the product in between would be rounded coarsely); s and t in their
//! type's range.
//! Exactness: Rounding.

use super::fold_batch_norm::scale_and_shift;
use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use crate::weights::vector;
use lehr_ir::ops::{Binary, BinaryFn};
use lehr_ir::{DType, NodeId, Op, Tensor};

pub const BATCH_NORM_TO_AFFINE: Rule = Rule {
    name: "batch-norm-to-affine",
    equation: "batch_norm(x; g, h, m, v) == x*s + t",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let Op::BatchNorm(_) = cx.op(id) else { return Err(Decline::NoMatch) };
    let (scale, shift) = scale_and_shift(cx, id)?;
    let x = cx.x(id, 0);
    let ty = cx.ty(x).clone();
    if !matches!(ty.dtype, DType::F32 | DType::F64) {
        declined!("{} would be rounded between product and sum", ty.dtype);
    }
    // [C, 1, 1, ...] broadcasts along the channels.
    let mut shape = vec![scale.len()];
    shape.resize(ty.rank().saturating_sub(1).max(1), 1);
    let along_channels = |t: Tensor| t.reshaped(shape.clone()).expect("as many elements");
    let scale = along_channels(vector("scale", ty.dtype, &scale)?);
    let shift = along_channels(vector("shift", ty.dtype, &shift)?);
    let (scale, shift) = (cx.add_tensor(scale), cx.add_tensor(shift));
    let origins = cx.origins(&[id]);
    let product = cx.add(Binary { f: BinaryFn::Mul }, &[Some(x), Some(scale)], origins.clone())?;
    let sum = cx.add(Binary { f: BinaryFn::Add }, &[Some(product.out(0)), Some(shift)], origins)?;
    replace(id.out(0), sum.out(0))
}
