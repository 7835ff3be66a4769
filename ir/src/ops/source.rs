//! Tensors made from nothing but numbers.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// `start + i*delta`; both scalars of the result's type. Source: ONNX Range.
    pub struct Range = "range" (start: One, delta: One) -> (y) { len: Dim }
}

op! {
    /// Ones on the k-th diagonal of a matrix. Source: ONNX EyeLike.
    pub struct Eye = "eye" () -> (y) { dtype: DType, rows: Dim, cols: Dim, k: i64 = 0 }
}

impl OpDef for Range {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (start, delta) = (t.get(0), t.get(1));
        // range.c1: start and delta are scalars of one number type
        let number = start.dtype.is_computable() && start.dtype != DType::Bool;
        if start != delta || start.rank() != 0 || !number {
            return Err(Diag::new(
                "range.c1",
                format!("start and delta must be scalars of one number type: {start}, {delta}"),
            ));
        }
        // range.c2: len is not negative
        if self.len.as_const().is_some_and(|n| n < 0) {
            return Err(Diag::new("range.c2", format!("a range of {} elements", self.len)));
        }
        Ok(vec![TensorType { dtype: start.dtype, shape: vec![self.len.clone()] }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let n = out[0].shape[0].as_const().ok_or("the output's shape is not known")?;
        let (start, delta) = (v.get(0), v.get(1));
        let (dtype, shape) = (start.dtype(), vec![n as usize]);
        if dtype.is_float() {
            let (start, delta) = (start.to_f64()[0], delta.to_f64()[0]);
            return Ok(vec![Tensor::from_f64(dtype, shape, (0..n).map(|i| start + i as f64 * delta))]);
        }
        let (start, delta) = (start.to_i128()[0], delta.to_i128()[0]);
        Ok(vec![Tensor::from_i128(dtype, shape, (0..n).map(|i| start + i as i128 * delta))])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 2
    }
}

impl OpDef for Eye {
    fn infer(&self, _: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        // eye.c1: the element type is one that is computed with, and the sizes are not negative
        let negative = |d: &Dim| d.as_const().is_some_and(|n| n < 0);
        if !self.dtype.is_computable() || negative(&self.rows) || negative(&self.cols) {
            return Err(Diag::new("eye.c1", format!("a {} by {} identity of {}", self.rows, self.cols, self.dtype)));
        }
        Ok(vec![TensorType { dtype: self.dtype, shape: vec![self.rows.clone(), self.cols.clone()] }])
    }

    fn eval(&self, _: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let (rows, cols) = (shape[0] as i64, shape[1] as i64);
        let ones = (0..rows).flat_map(|r| (0..cols).map(move |c| (c - r == self.k) as i128));
        Ok(vec![Tensor::from_i128(self.dtype, shape, ones)])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let run = |dtype, start, delta, n| {
            let (start, delta) = (Tensor::scalar_f64(dtype, start), Tensor::scalar_f64(dtype, delta));
            let op = Range { len: Dim::Const(n) };
            let out = op.infer(In(&[Some(&start.ty()), Some(&delta.ty())]))?;
            Ok::<_, Diag>(op.eval(In(&[Some(&start), Some(&delta)]), &out).unwrap()[0].to_f64())
        };
        assert_eq!(run(DType::I32, 10.0, -3.0, 3).unwrap(), [10.0, 7.0, 4.0]);
        assert_eq!(run(DType::F32, 1.0, 2.0, 2).unwrap(), [1.0, 3.0]);
        assert_eq!(run(DType::I8, 100.0, 100.0, 2).unwrap(), [100.0, -56.0]);
        assert!(run(DType::F64, 1.0, 2.0, 0).unwrap().is_empty());
        assert_eq!(run(DType::F64, 1.0, 2.0, -1).unwrap_err().code, "range.c2");
        assert_eq!(run(DType::Bool, 1.0, 1.0, 1).unwrap_err().code, "range.c1");
    }

    #[test]
    fn eyes() {
        let op = |k, rows, cols| Eye { dtype: DType::F16, rows: Dim::Const(rows), cols: Dim::Const(cols), k };
        let run = |op: Eye| op.eval(In(&[]), &op.infer(In(&[])).unwrap()).unwrap()[0].to_f64();
        assert_eq!(run(op(1, 2, 3)), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(run(op(-1, 2, 2)), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(run(op(i64::MIN, 1, 1)), [0.0]);
        assert_eq!(op(0, -1, 1).infer(In(&[])).unwrap_err().code, "eye.c1");
    }
}
