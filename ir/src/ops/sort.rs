//! Sorting and selection.

use super::Domain;
use super::lines::{Lines, total_order};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::infer::{require_axis, require_dtype};
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use std::cmp::Ordering;

op! {
    /// The k largest (or smallest) along an axis and their i64 indices, sorted; of equals the lower index first. NaN is larger
    /// than any number. Unsorted requests are answered sorted. Source: ONNX TopK.
    pub struct TopK = "top_k" (x: One) -> (values, indices) {
        axis: usize,
        k: Dim,
        largest: bool = true,
    }
}

impl OpDef for TopK {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // top_k.c1: x holds numbers
        require_dtype("top_k.c1", x.dtype, Domain::Number)?;
        // top_k.c2: the axis is one of x
        require_axis("top_k.c2", self.axis, x)?;
        // top_k.c3: k is not negative, and the axis has as many elements
        let short = (&x.shape[self.axis] - &self.k).as_const().is_some_and(|rest| rest < 0);
        if short || self.k.as_const().is_some_and(|k| k < 0) {
            let message = format!("there are no {} elements along axis {} of {x}", self.k, self.axis);
            return Err(Diag::new("top_k.c3", message));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = self.k.clone();
        let indices = TensorType { dtype: DType::I64, shape: shape.clone() };
        Ok(vec![TensorType { dtype: x.dtype, shape }, indices])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let from = Lines::new(x.shape(), self.axis);
        if shape[self.axis] > from.n {
            return Err(format!("top_k asks for {} of {} elements", shape[self.axis], from.n));
        }
        let indices = if x.dtype().is_float() {
            self.select(&x.to_f64(), &from, &shape, total_order)
        } else {
            self.select(&x.to_i128(), &from, &shape, |a, b| a.cmp(&b))
        };
        let to = Lines::new(&shape, self.axis);
        let size = x.dtype().size();
        // Bytes are moved, so that NaN payloads survive.
        let mut data = vec![0; indices.len() * size];
        for line in 0..to.count {
            for k in 0..to.n {
                let at = to.at(line, k);
                let source = from.at(line, indices[at]);
                data[at * size..][..size].copy_from_slice(&x.bytes()[source * size..][..size]);
            }
        }
        let values = Tensor::new(x.dtype(), shape.clone(), data.into())?;
        Ok(vec![values, Tensor::from_i128(DType::I64, shape, indices.into_iter().map(|i| i as i128))])
    }

    /// A comparison per element and level of a tree of k.
    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        let levels = self.k.as_const().map_or(8, |k| i64::from(k.max(1).ilog2()) + 1);
        &t.get(0).elements() * levels
    }
}

impl TopK {
    /// Positions along the axis, laid out as the result.
    fn select<T: Copy>(&self, x: &[T], from: &Lines, shape: &[usize], order: impl Fn(T, T) -> Ordering) -> Vec<usize> {
        let to = Lines::new(shape, self.axis);
        let mut result = vec![0; shape.iter().product()];
        let mut ranked: Vec<usize> = vec![];
        for line in 0..to.count {
            ranked.clear();
            ranked.extend(0..from.n);
            // The sort is stable: equals stay in the order of their indices.
            ranked.sort_by(|&i, &j| {
                let order = order(x[from.at(line, i)], x[from.at(line, j)]);
                if self.largest { order.reverse() } else { order }
            });
            ranked[..to.n].iter().enumerate().for_each(|(k, &i)| result[to.at(line, k)] = i);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lines::tests::run;

    fn top(k: i64, axis: usize, largest: bool, x: &Tensor) -> (Vec<f64>, Vec<i64>) {
        let ys = run(TopK { axis, k: Dim::Const(k), largest }, &[x]).unwrap();
        (ys[0].to_f64(), ys[1].to_i64())
    }

    #[test]
    fn equals_come_in_index_order() {
        let x = Tensor::from_f64(DType::F32, vec![5], [1.0, 3.0, 3.0, -1.0, 1.0]);
        assert_eq!(top(3, 0, true, &x), (vec![3.0, 3.0, 1.0], vec![1, 2, 0]));
        assert_eq!(top(3, 0, false, &x), (vec![-1.0, 1.0, 1.0], vec![3, 0, 4]));
        let x = Tensor::from_f64(DType::F32, vec![2, 2], [1.0, 4.0, 3.0, 2.0]);
        assert_eq!(top(1, 0, true, &x), (vec![3.0, 4.0], vec![1, 0]));
    }

    #[test]
    fn nan_is_the_largest() {
        let x = Tensor::from_f64(DType::F32, vec![3], [1.0, f64::NAN, f64::INFINITY]);
        assert_eq!(top(3, 0, true, &x).1, [1, 2, 0]);
        assert_eq!(top(3, 0, false, &x).1, [0, 2, 1]);
    }

    #[test]
    fn large_integers_do_not_collapse() {
        let big = i64::MAX as i128;
        let x = Tensor::from_i128(DType::U64, vec![3], [2 * big, 2 * big + 1, 2 * big - 1]);
        assert_eq!(top(3, 0, true, &x).1, [1, 0, 2]);
    }

    #[test]
    fn awkward_sizes() {
        let x = Tensor::from_f64(DType::F32, vec![2, 3], [0.0; 6]);
        assert_eq!(top(0, 1, true, &x), (vec![], vec![]));
        let none = Tensor::from_f64(DType::F32, vec![0, 3], []);
        assert_eq!(top(2, 1, true, &none), (vec![], vec![]));
        let top = |axis, k| TopK { axis, k: Dim::Const(k), largest: true };
        assert_eq!(run(top(1, 4), &[&x]).unwrap_err().code, "top_k.c3");
        assert_eq!(run(top(1, -1), &[&x]).unwrap_err().code, "top_k.c3");
        assert_eq!(run(top(2, 1), &[&x]).unwrap_err().code, "top_k.c2");
        let bits = Tensor::from_i128(DType::Bool, vec![1], [1]);
        assert_eq!(run(top(0, 1), &[&bits]).unwrap_err().code, "top_k.c1");
    }
}
