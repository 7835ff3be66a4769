//! Reductions along axes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::infer::{require_axis, require_dtype};
use crate::op::{In, OpDef, keyword, op};
use crate::ops::Domain;
use crate::tensor::Tensor;
use crate::types::{Shape, TensorType};
use crate::walk::{for_each_line, rows};

keyword! {
    /// What a reduction computes. On an empty set: 0, 1 for prod, -inf/lowest for max, +inf/highest for min, and for
    /// mean NaN (of integers: a fault). NaN wins in max and min. What an integer type cannot hold of mean, l2, log_sum and
    /// log_sum_exp is cut off towards zero.
    pub enum ReduceFn {
        Sum = "sum",
        Mean = "mean",
        Prod = "prod",
        Max = "max",
        Min = "min",
        /// sum |x|
        L1 = "l1",
        /// sqrt(sum x^2)
        L2 = "l2",
        SumSquare = "sum_square",
        LogSum = "log_sum",
        /// stable: max + ln(sum e^(x - max))
        LogSumExp = "log_sum_exp",
    }
}

op! {
    /// Reduces over `axes` (sorted, resolved, not repeated). Source: ONNX ReduceSum, ReduceMean, ..., and the Global pools.
    pub struct Reduce = "reduce" (x: One) -> (y) {
        f: ReduceFn,
        axes: Vec<usize>,
        keepdims: bool = true,
    }
}

keyword! {
    pub enum ArgExtreme { Max = "max", Min = "min" }
}

op! {
    /// Index of the extreme element along an axis, i64; the first of equals, or the last. Source: ONNX ArgMax and ArgMin.
    pub struct ArgReduce = "arg_reduce" (x: One) -> (y) {
        f: ArgExtreme,
        axis: usize,
        keepdims: bool = true,
        select_last: bool = false,
    }
}

op! {
    /// Running sum along an axis. Source: ONNX CumSum, opset 11+.
    pub struct CumSum = "cum_sum" (x: One) -> (y) {
        axis: usize,
        exclusive: bool = false,
        reverse: bool = false,
    }
}

impl OpDef for Reduce {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // reduce.c1: x holds numbers; max and min take booleans too
        let domain = if matches!(self.f, ReduceFn::Max | ReduceFn::Min) { Domain::Any } else { Domain::Number };
        require_dtype("reduce.c1", x.dtype, domain)?;
        // reduce.c2: the axes are axes of x
        for &axis in &self.axes {
            require_axis("reduce.c2", axis, x)?;
        }
        // reduce.c3: they ascend, none is there twice
        if !self.axes.is_sorted_by(|a, b| a < b) {
            return Err(Diag::new("reduce.c3", format!("the axes {:?} do not ascend", self.axes)));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: without(&x.shape, &self.axes, self.keepdims) }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let dtype = x.dtype();
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let count: usize = shape.iter().product();
        Ok(vec![if dtype.is_float() {
            let (values, n) = rows(&x.to_f64(), x.shape(), &self.axes);
            let results = (0..count).map(|r| self.f.of_floats(&values[r * n..][..n]));
            Tensor::from_f64(dtype, shape, results)
        } else {
            let (values, n) = rows(&x.to_i128(), x.shape(), &self.axes);
            let results: Result<Vec<i128>, String> =
                (0..count).map(|r| self.f.of_ints(&values[r * n..][..n], dtype)).collect();
            Tensor::from_i128(dtype, shape, results?)
        }])
    }

    /// One per element of x.
    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        t.get(0).elements()
    }
}

impl ReduceFn {
    fn of_floats(self, x: &[f64]) -> f64 {
        let sum = |f: fn(f64) -> f64| x.iter().fold(0.0, |s, &v| s + f(v));
        match self {
            ReduceFn::Sum => sum(|v| v),
            ReduceFn::Mean => sum(|v| v) / x.len() as f64,
            ReduceFn::Prod => x.iter().product(),
            ReduceFn::Max => largest(x),
            ReduceFn::Min => -largest(&x.iter().map(|v| -v).collect::<Vec<_>>()),
            ReduceFn::L1 => sum(f64::abs),
            ReduceFn::L2 => sum(|v| v * v).sqrt(),
            ReduceFn::SumSquare => sum(|v| v * v),
            ReduceFn::LogSum => sum(|v| v).ln(),
            ReduceFn::LogSumExp => {
                let max = largest(x);
                // An infinite maximum is the result: subtracting it from itself would make NaN.
                if max.is_infinite() { max } else { max + x.iter().fold(0.0, |s, v| s + (v - max).exp()).ln() }
            }
        }
    }

    /// On integers and booleans; the caller wraps.
    fn of_ints(self, x: &[i128], dtype: DType) -> Result<i128, String> {
        // At most 2^40 elements of 64 bits: a sum of them is exact, but squares and products must wrap.
        let wrap = |f: fn(i128) -> i128| x.iter().fold(0i128, |s, &v| s.wrapping_add(f(v)));
        let (lowest, highest) = bounds(dtype);
        let floats = || x.iter().map(|&v| v as f64).collect::<Vec<_>>();
        Ok(match self {
            ReduceFn::Sum => wrap(|v| v),
            ReduceFn::Mean if x.is_empty() => return Err("the mean of no integers is not a number".into()),
            ReduceFn::Mean => wrap(|v| v) / x.len() as i128,
            ReduceFn::Prod => x.iter().fold(1i128, |p, &v| p.wrapping_mul(v)),
            ReduceFn::Max => x.iter().copied().max().unwrap_or(lowest),
            ReduceFn::Min => x.iter().copied().min().unwrap_or(highest),
            ReduceFn::L1 => wrap(i128::abs),
            ReduceFn::SumSquare => wrap(|v| v.wrapping_mul(v)),
            ReduceFn::L2 | ReduceFn::LogSum | ReduceFn::LogSumExp => integer(self.of_floats(&floats())),
        })
    }
}

/// A float result in an integer type, as `cast` converts it.
fn integer(v: f64) -> i128 {
    if v.abs() < 2f64.powi(63) { v as i128 } else { i128::from(i64::MIN) }
}

fn bounds(dtype: DType) -> (i128, i128) {
    match (dtype, dtype.is_signed()) {
        (DType::Bool, _) => (0, 1),
        (_, true) => (-(1 << (dtype.bits() - 1)), (1 << (dtype.bits() - 1)) - 1),
        (_, false) => (0, (1 << dtype.bits()) - 1),
    }
}

/// The maximum; NaN if there is one, -inf of nothing.
pub(super) fn largest(x: &[f64]) -> f64 {
    x.iter().fold(f64::NEG_INFINITY, |m, &v| if v > m || v.is_nan() { v } else { m })
}

/// `shape` with `axes` dropped, or kept as 1.
fn without(shape: &Shape, axes: &[usize], keepdims: bool) -> Shape {
    let dim = |(a, d): (usize, &Dim)| match (axes.contains(&a), keepdims) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::ONE),
        (true, false) => None,
    };
    shape.iter().enumerate().filter_map(dim).collect()
}

impl OpDef for ArgReduce {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // arg_reduce.c1: x holds numbers
        require_dtype("arg_reduce.c1", x.dtype, Domain::Number)?;
        // arg_reduce.c2: the axis is one of x's
        require_axis("arg_reduce.c2", self.axis, x)?;
        Ok(vec![TensorType { dtype: DType::I64, shape: without(&x.shape, &[self.axis], self.keepdims) }])
    }

    /// NaN counts as the extreme.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        if x.shape()[self.axis] == 0 && !shape.contains(&0) {
            return Err(format!("axis {} is empty: it has no extreme element", self.axis));
        }
        let indices = if x.dtype().is_float() {
            let values = x.to_f64();
            let better = |a: f64, b: f64| a.is_nan() || self.f.beats(a, b);
            self.positions(
                &values,
                x.shape(),
                |a, b| !b.is_nan() && better(a, b),
                |a, b| a == b || (a.is_nan() && b.is_nan()),
            )
        } else {
            self.positions(&x.to_i128(), x.shape(), |a, b| self.f.beats(a, b), |a, b| a == b)
        };
        Ok(vec![Tensor::from_i128(DType::I64, shape, indices)])
    }

    /// A comparison per element of x.
    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        t.get(0).elements()
    }
}

impl ArgExtreme {
    fn beats<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            ArgExtreme::Max => a > b,
            ArgExtreme::Min => a < b,
        }
    }
}

impl ArgReduce {
    fn positions<T: Copy>(
        &self,
        values: &[T],
        shape: &[usize],
        better: impl Fn(T, T) -> bool,
        equal: impl Fn(T, T) -> bool,
    ) -> Vec<i128> {
        let mut indices = vec![];
        for_each_line(shape, self.axis, |line| {
            let mut best = 0;
            for k in 1..line.len() {
                let (a, b) = (values[line[k]], values[line[best]]);
                if better(a, b) || (self.select_last && equal(a, b)) {
                    best = k;
                }
            }
            indices.push(best as i128);
        });
        indices
    }
}

impl OpDef for CumSum {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // cum_sum.c1: x holds numbers
        require_dtype("cum_sum.c1", x.dtype, Domain::Number)?;
        // cum_sum.c2: the axis is one of x's
        require_axis("cum_sum.c2", self.axis, x)?;
        Ok(vec![x.clone()])
    }

    /// Sums in f64 or exactly, each rounded when it is stored.
    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = x.shape().to_vec();
        Ok(vec![if x.dtype().is_float() {
            let sums = self.sums(&x.to_f64(), &shape, |a, b| a + b);
            Tensor::from_f64(x.dtype(), shape, sums)
        } else {
            let sums = self.sums(&x.to_i128(), &shape, i128::wrapping_add);
            Tensor::from_i128(x.dtype(), shape, sums)
        }])
    }
}

impl CumSum {
    fn sums<T: Copy + Default>(&self, values: &[T], shape: &[usize], add: impl Fn(T, T) -> T) -> Vec<T> {
        let mut out = values.to_vec();
        for_each_line(shape, self.axis, |line| {
            let mut sum = T::default();
            for k in 0..line.len() {
                let at = if self.reverse { line[line.len() - 1 - k] } else { line[k] };
                let before = sum;
                sum = add(sum, values[at]);
                out[at] = if self.exclusive { before } else { sum };
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: DType = DType::F32;

    fn t(dtype: DType, shape: &[usize], v: &[f64]) -> Tensor {
        Tensor::from_f64(dtype, shape.to_vec(), v.iter().copied())
    }

    fn run(op: impl OpDef, x: &Tensor) -> Result<Tensor, String> {
        let ty = x.ty();
        let out = op.infer(In(&[Some(&ty)])).map_err(|d| d.to_string())?;
        op.eval(In(&[Some(x)]), &out).map(|mut r| r.remove(0))
    }

    fn reduce(f: ReduceFn, axes: &[usize], x: &Tensor) -> Result<Tensor, String> {
        run(Reduce { f, axes: axes.to_vec(), keepdims: false }, x)
    }

    #[test]
    fn reduces_over_any_axes() {
        let x = t(F, &[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
        assert_eq!(reduce(ReduceFn::Sum, &[0, 2], &x).unwrap().to_f64(), [14., 22.]);
        assert_eq!(reduce(ReduceFn::Prod, &[1], &x).unwrap().to_f64(), [3., 8., 35., 48.]);
        assert_eq!(reduce(ReduceFn::Mean, &[0, 1, 2], &x).unwrap().to_f64(), [4.5]);
        assert_eq!(reduce(ReduceFn::SumSquare, &[], &t(F, &[2], &[-3., 2.])).unwrap().to_f64(), [9., 4.]);
        let kept = run(Reduce { f: ReduceFn::L1, axes: vec![1], keepdims: true }, &x).unwrap();
        assert_eq!(kept.shape(), [2, 1, 2]);
    }

    #[test]
    fn empty_sets_have_neutral_results() {
        let x = t(F, &[2, 0], &[]);
        for (f, y) in [(ReduceFn::Sum, 0.0), (ReduceFn::Prod, 1.0), (ReduceFn::Max, f64::NEG_INFINITY)] {
            assert_eq!(reduce(f, &[1], &x).unwrap().to_f64(), [y, y], "{f:?}");
        }
        assert_eq!(reduce(ReduceFn::Min, &[1], &x).unwrap().to_f64(), [f64::INFINITY; 2]);
        assert_eq!(reduce(ReduceFn::LogSumExp, &[1], &x).unwrap().to_f64(), [f64::NEG_INFINITY; 2]);
        assert!(reduce(ReduceFn::Mean, &[1], &x).unwrap().to_f64()[0].is_nan());
        let ints = t(DType::I8, &[0], &[]);
        assert_eq!(reduce(ReduceFn::Max, &[0], &ints).unwrap().to_i64(), [-128]);
        assert!(reduce(ReduceFn::Mean, &[0], &ints).is_err());
        assert_eq!(reduce(ReduceFn::Min, &[0], &t(DType::Bool, &[0], &[])).unwrap().to_i64(), [1]);
    }

    #[test]
    fn awkward_floats() {
        let x = t(F, &[3], &[1.0, f64::NAN, 3.0]);
        assert!(reduce(ReduceFn::Max, &[0], &x).unwrap().to_f64()[0].is_nan());
        assert!(reduce(ReduceFn::Min, &[0], &x).unwrap().to_f64()[0].is_nan());
        let large = reduce(ReduceFn::LogSumExp, &[0], &t(F, &[2], &[1000., 1000.])).unwrap().to_f64()[0];
        assert!((large - (1000.0 + 2f64.ln())).abs() < 1e-4);
        let inf = t(F, &[2], &[f64::INFINITY, 1.0]);
        assert_eq!(reduce(ReduceFn::LogSumExp, &[0], &inf).unwrap().to_f64(), [f64::INFINITY]);
    }

    #[test]
    fn integers_wrap_and_truncate() {
        let x = t(DType::I8, &[3], &[100., 100., -1.]);
        assert_eq!(reduce(ReduceFn::Sum, &[0], &x).unwrap().to_i64(), [-57]);
        assert_eq!(reduce(ReduceFn::Mean, &[0], &t(DType::I32, &[2], &[-1., -2.])).unwrap().to_i64(), [-1]);
        assert_eq!(reduce(ReduceFn::L2, &[0], &t(DType::I32, &[2], &[1., 2.])).unwrap().to_i64(), [2]);
    }

    #[test]
    fn bad_axes_are_refused() {
        let x = TensorType::new(F, [2i64, 3]);
        let code = |axes: &[usize]| {
            Reduce { f: ReduceFn::Sum, axes: axes.to_vec(), keepdims: true }.infer(In(&[Some(&x)])).unwrap_err().code
        };
        assert_eq!((code(&[2]), code(&[1, 0]), code(&[1, 1])), ("reduce.c2", "reduce.c3", "reduce.c3"));
    }

    #[test]
    fn arg_reduce_takes_first_or_last() {
        let x = t(F, &[2, 3], &[1., 3., 3., 2., f64::NAN, 5.]);
        let arg = |f, select_last| run(ArgReduce { f, axis: 1, keepdims: false, select_last }, &x).unwrap().to_i64();
        assert_eq!(arg(ArgExtreme::Max, false), [1, 1]);
        assert_eq!(arg(ArgExtreme::Max, true), [2, 1]);
        assert_eq!(arg(ArgExtreme::Min, false), [0, 1]);
        let empty = ArgReduce { f: ArgExtreme::Max, axis: 0, keepdims: true, select_last: false };
        assert!(run(empty.clone(), &t(F, &[0], &[])).is_err());
        assert!(run(empty, &t(F, &[], &[1.0])).is_err());
    }

    #[test]
    fn cum_sum_in_all_directions() {
        let x = t(F, &[3], &[1., 2., 3.]);
        let sum = |exclusive, reverse| run(CumSum { axis: 0, exclusive, reverse }, &x).unwrap().to_f64();
        assert_eq!(sum(false, false), [1., 3., 6.]);
        assert_eq!(sum(true, false), [0., 1., 3.]);
        assert_eq!(sum(false, true), [6., 5., 3.]);
        assert_eq!(sum(true, true), [5., 3., 0.]);
    }
}
