//! Shapes as values. They become constants as soon as the dimensions are known.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// The dimensions `start..end` of x, i64. Source: ONNX Shape.
    pub struct ShapeOf = "shape_of" (x: One) -> (y) { start: usize = 0, end: usize }
}

op! {
    /// The number of elements of x, i64 scalar. Source: ONNX Size.
    pub struct SizeOf = "size_of" (x: One) -> (y) {}
}

impl OpDef for ShapeOf {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // shape_of.c1: start <= end <= rank
        if self.start > self.end || self.end > x.rank() {
            return Err(Diag::new("shape_of.c1", format!("dimensions {}..{} of {x}", self.start, self.end)));
        }
        Ok(vec![TensorType::new(DType::I64, [(self.end - self.start) as i64])])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let dims: Vec<i64> = v.get(0).shape()[self.start..self.end].iter().map(|&d| d as i64).collect();
        Ok(vec![Tensor::i64s(&dims)])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for SizeOf {
    fn infer(&self, _: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![TensorType::scalar(DType::I64)])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![Tensor::from_i128(DType::I64, vec![], [v.get(0).len() as i128])])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_sizes() {
        let x = Tensor::from_f64(DType::F32, vec![2, 0, 3], []);
        let run = |op: &dyn Fn(In<Tensor>) -> Vec<Tensor>| op(In(&[Some(&x)])).remove(0).to_i64();
        assert_eq!(run(&|v| ShapeOf { start: 1, end: 3 }.eval(v, &[]).unwrap()), [0, 3]);
        assert_eq!(run(&|v| SizeOf {}.eval(v, &[]).unwrap()), [0]);
        let infer = |start, end| ShapeOf { start, end }.infer(In(&[Some(&x.ty())]));
        assert_eq!(infer(1, 3).unwrap()[0].to_string(), "i64[2]");
        assert_eq!(infer(0, 4).unwrap_err().code, "shape_of.c1");
        assert_eq!(infer(2, 1).unwrap_err().code, "shape_of.c1");
    }
}
