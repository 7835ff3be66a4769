//! Selection, conversion and clamping.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::infer::{broadcast, require_dtype, same_dtype};
use crate::op::{In, OpDef, op};
use crate::ops::Domain;
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::spread;

op! {
    /// `cond ? x : y`, all three broadcast. cond is bool; x and y share a type. Source: ONNX Where, opsets 9+.
    pub struct Where = "where" (cond: One, x: One, y: One) -> (z) {}
}

op! {
    /// Conversion to `to`. Float to integer truncates towards zero and out-of-range wraps as two's complement; to bool: `!= 0`;
    /// float to narrower float rounds to nearest even. Source: ONNX Cast and CastLike, opsets 6+.
    pub struct Cast = "cast" (x: One) -> (y) { to: DType }
}

op! {
    /// `min(max(x, lo), hi)`; lo and hi are scalars of x's type; NaN stays. Source: ONNX Clip, opsets 6+.
    pub struct Clip = "clip" (x: One, lo: Opt, hi: Opt) -> (y) {}
}

impl OpDef for Where {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (cond, x, y) = (t.get(0), t.get(1), t.get(2));
        // where.c1: cond is bool
        require_dtype("where.c1", cond.dtype, Domain::Bool)?;
        // where.c2: x and y are of one computable type
        require_dtype("where.c2", x.dtype, Domain::Any)?;
        same_dtype("where.c2", [x, y])?;
        Ok(vec![TensorType { dtype: x.dtype, shape: broadcast([&cond.shape, &x.shape, &y.shape])? }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (cond, x, y) = (v.get(0), v.get(1), v.get(2));
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let size = x.dtype().size();
        let positions = |t: &Tensor| spread((0..t.len()).collect(), t.shape(), &shape);
        let choices = spread(cond.to_i128(), cond.shape(), &shape);
        let mut data = Vec::with_capacity(choices.len() * size);
        for ((c, i), j) in choices.into_iter().zip(positions(x)).zip(positions(y)) {
            // Bytes are moved, so that NaN payloads survive.
            let (from, at) = if c != 0 { (x, i) } else { (y, j) };
            data.extend_from_slice(&from.bytes()[at * size..][..size]);
        }
        Ok(vec![Tensor::new(x.dtype(), shape, data.into())?])
    }
}

impl OpDef for Cast {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // cast.c1: both types are computable
        require_dtype("cast.c1", x.dtype, Domain::Any)?;
        require_dtype("cast.c1", self.to, Domain::Any)?;
        Ok(vec![TensorType { dtype: self.to, shape: x.shape.clone() }])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = x.shape().to_vec();
        Ok(vec![match (x.dtype().is_float(), self.to) {
            (true, to) if to.is_int() => Tensor::from_i128(to, shape, x.to_f64().into_iter().map(|x| truncate(x, to))),
            (true, to) => Tensor::from_f64(to, shape, x.to_f64()),
            // Straight to f32: by way of f64 a large integer would be rounded twice.
            (false, DType::F32) => {
                Tensor::from_f64(DType::F32, shape, x.to_i128().into_iter().map(|x| f64::from(x as f32)))
            }
            (false, to) => Tensor::from_i128(to, shape, x.to_i128()),
        }])
    }
}

/// Towards zero. What i64 (for u64: u64 too) cannot hold, NaN included, becomes `i64::MIN`; the caller wraps.
fn truncate(x: f64, to: DType) -> i128 {
    let limit = if to == DType::U64 { 2f64.powi(64) } else { 2f64.powi(63) };
    if x >= -(2f64.powi(63)) && x < limit { x as i128 } else { i128::from(i64::MIN) }
}

impl OpDef for Clip {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // clip.c1: x holds numbers
        require_dtype("clip.c1", x.dtype, Domain::Number)?;
        for bound in [t.opt(1), t.opt(2)].into_iter().flatten() {
            // clip.c2: the bounds are of x's type
            same_dtype("clip.c2", [x, bound])?;
            // clip.c3: the bounds are scalars
            if bound.elements().as_const().is_some_and(|n| n != 1) || bound.rank() > 1 {
                return Err(Diag::new("clip.c3", format!("a bound is a scalar, not {bound}")));
            }
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = x.shape().to_vec();
        if x.dtype().is_float() {
            let bound = |i: usize| v.opt(i).and_then(|t| t.to_f64().first().copied());
            let (lo, hi) = (bound(1), bound(2));
            // Comparisons that NaN fails, so that it stays.
            let raise = |x: f64| lo.filter(|&lo| x < lo).unwrap_or(x);
            let lower = |x: f64| hi.filter(|&hi| x > hi).unwrap_or(x);
            return Ok(vec![Tensor::from_f64(x.dtype(), shape, x.to_f64().into_iter().map(|x| lower(raise(x))))]);
        }
        let bound = |i: usize| v.opt(i).and_then(|t| t.to_i128().first().copied());
        let (lo, hi) = (bound(1).unwrap_or(i128::MIN), bound(2).unwrap_or(i128::MAX));
        Ok(vec![Tensor::from_i128(x.dtype(), shape, x.to_i128().into_iter().map(|x| x.max(lo).min(hi)))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_at_the_edges() {
        let cast = |from: DType, to: DType, x: f64| {
            let x = Tensor::scalar_f64(from, x);
            Cast { to }.eval(In(&[Some(&x)]), &[]).unwrap().remove(0)
        };
        assert_eq!(cast(DType::F32, DType::I32, -1.9).to_i64(), [-1]);
        assert_eq!(cast(DType::F32, DType::U8, 257.0).to_i64(), [1]);
        assert_eq!(cast(DType::F64, DType::U64, 2f64.powi(63)).to_i128(), [1 << 63]);
        assert_eq!(cast(DType::F32, DType::I64, f64::NAN).to_i64(), [i64::MIN]);
        assert_eq!(cast(DType::F32, DType::Bool, f64::NAN).to_i64(), [1]);
        assert_eq!(cast(DType::F32, DType::F16, 1e6).to_f64(), [f64::INFINITY]);
    }

    #[test]
    fn clip_lets_the_upper_bound_win() {
        let t = |v: &[f64]| Tensor::from_f64(DType::F32, if v.len() == 1 { vec![] } else { vec![v.len()] }, v.to_vec());
        let (x, lo, hi) = (t(&[-5.0, 0.0, f64::NAN]), t(&[2.0]), t(&[1.0]));
        let y = Clip {}.eval(In(&[Some(&x), Some(&lo), Some(&hi)]), &[]).unwrap().remove(0).to_f64();
        assert_eq!((y[0], y[1]), (1.0, 1.0));
        assert!(y[2].is_nan());
    }
}
