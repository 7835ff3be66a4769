//! The softmax family: distributions along one axis.

use super::Domain;
use super::lines::{Lines, total_order};
use super::reduce::larger;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::infer::{require_axis, require_dtype};
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use std::cmp::Ordering;

op! {
    /// `e^(x - max) / sum` along one axis. Source: ONNX Softmax, opset 13+ (earlier opsets are flattened at import).
    pub struct Softmax = "softmax" (x: One) -> (y) { axis: usize }
}

op! {
    /// `x - max - ln(sum e^(x - max))` along one axis. Source: ONNX LogSoftmax, opset 13+.
    pub struct LogSoftmax = "log_softmax" (x: One) -> (y) { axis: usize }
}

op! {
    /// 1 at the first maximum along one axis, 0 elsewhere; NaN is larger than any number. Source: ONNX Hardmax, opset 13+.
    pub struct Hardmax = "hardmax" (x: One) -> (y) { axis: usize }
}

// softmax.c1: x is a float
// softmax.c2: the axis is one of x
fn infer(axis: usize, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
    let x = t.get(0);
    require_dtype("softmax.c1", x.dtype, Domain::Float)?;
    require_axis("softmax.c2", axis, x)?;
    Ok(vec![x.clone()])
}

/// Replaces every line by `f` of it; `f` gets the elements in order.
fn lines(x: &Tensor, axis: usize, mut f: impl FnMut(&mut [f64])) -> Tensor {
    let lines = Lines::new(x.shape(), axis);
    let mut values = x.to_f64();
    let mut line = vec![0.0; lines.n];
    for l in 0..lines.count {
        line.iter_mut().enumerate().for_each(|(k, v)| *v = values[lines.at(l, k)]);
        f(&mut line);
        line.iter().enumerate().for_each(|(k, v)| values[lines.at(l, k)] = *v);
    }
    Tensor::from_f64(x.dtype(), x.shape().to_vec(), values)
}

/// In place. An infinite maximum makes everything NaN, as the formula does.
pub(super) fn log_softmax(line: &mut [f64]) {
    let max = line.iter().copied().fold(f64::NEG_INFINITY, larger);
    let sum: f64 = line.iter().map(|x| (x - max).exp()).sum();
    line.iter_mut().for_each(|x| *x = *x - max - sum.ln());
}

impl OpDef for Softmax {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        infer(self.axis, t)
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![lines(v.get(0), self.axis, |line| {
            let max = line.iter().copied().fold(f64::NEG_INFINITY, larger);
            let sum: f64 = line.iter().map(|x| (x - max).exp()).sum();
            line.iter_mut().for_each(|x| *x = (*x - max).exp() / sum);
        })])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 5
    }
}

impl OpDef for LogSoftmax {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        infer(self.axis, t)
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![lines(v.get(0), self.axis, log_softmax)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 5
    }
}

impl OpDef for Hardmax {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        infer(self.axis, t)
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![lines(v.get(0), self.axis, |line| {
            let mut best = 0;
            for k in 1..line.len() {
                if total_order(line[k], line[best]) == Ordering::Greater {
                    best = k;
                }
            }
            line.iter_mut().enumerate().for_each(|(k, x)| *x = f64::from(u8::from(k == best)));
        })])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::lines::tests::run;

    fn t(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(DType::F64, shape.to_vec(), values.iter().copied())
    }

    #[test]
    fn softmax_is_stable() {
        let y = run(Softmax { axis: 0 }, &[&t(&[2], &[1e4, 1e4])]).unwrap();
        assert_eq!(y[0].to_f64(), [0.5, 0.5]);
        let y = run(Softmax { axis: 0 }, &[&t(&[2, 2], &[0.0, f64::NEG_INFINITY, 0.0, 7.0])]).unwrap();
        assert_eq!(y[0].to_f64(), [0.5, 0.0, 0.5, 1.0]);
        let y = run(LogSoftmax { axis: 0 }, &[&t(&[2], &[0.0, -1e4])]).unwrap();
        assert_eq!(y[0].to_f64(), [0.0, -1e4]);
    }

    #[test]
    fn lines_without_a_finite_maximum_are_nan() {
        for bad in [f64::NAN, f64::INFINITY] {
            let y = run(Softmax { axis: 0 }, &[&t(&[2], &[bad, 0.0])]).unwrap()[0].to_f64();
            assert!(y[0].is_nan());
        }
        let none = t(&[2], &[f64::NEG_INFINITY; 2]);
        assert!(run(LogSoftmax { axis: 0 }, &[&none]).unwrap()[0].to_f64().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn hardmax_takes_the_first() {
        let y = run(Hardmax { axis: 1 }, &[&t(&[2, 3], &[1.0, 3.0, 3.0, 2.0, f64::NAN, 9.0])]).unwrap();
        assert_eq!(y[0].to_f64(), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn empty_lines_and_hostile_axes() {
        assert!(run(Softmax { axis: 1 }, &[&t(&[2, 0], &[])]).unwrap()[0].is_empty());
        assert!(run(Hardmax { axis: 0 }, &[&t(&[2, 0], &[])]).unwrap()[0].is_empty());
        assert_eq!(run(Softmax { axis: 0 }, &[&t(&[], &[1.0])]).unwrap_err().code, "softmax.c2");
        let ints = Tensor::i64s(&[1]);
        assert_eq!(run(LogSoftmax { axis: 0 }, &[&ints]).unwrap_err().code, "softmax.c1");
    }
}
