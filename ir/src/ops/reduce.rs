//! Reductions along axes. Floats are reduced in f64 and rounded once; integers exactly, then wrapped.

use super::Domain;
use super::lines::{Lines, total_order};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::{DType, Kind};
use crate::infer::{require_axis, require_dtype};
use crate::op::{In, OpDef, keyword, op};
use crate::tensor::Tensor;
use crate::types::{Shape, TensorType};
use crate::walk::{flat, for_each_index, strides};
use std::cmp::Ordering;

keyword! {
    /// What a reduction computes. On an empty set: 0, 1 for prod, -inf/lowest for max, +inf/highest for min, -inf for the
    /// logarithms, and for mean NaN (integers: 0).
    pub enum ReduceFn {
        Sum = "sum",
        /// Of integers: the sum in 64 bits, divided towards zero.
        Mean = "mean",
        Prod = "prod",
        /// NaN if there is one.
        Max = "max",
        /// NaN if there is one.
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
    /// Reduces over `axes` (sorted, resolved, not repeated). l2 and the logarithms of integers are computed in floats and
    /// converted as `cast` does. Source: ONNX ReduceSum, ReduceMean, ..., and the Global pools.
    pub struct Reduce = "reduce" (x: One) -> (y) {
        f: ReduceFn,
        axes: Vec<usize>,
        keepdims: bool = true,
    }
}

keyword! {
    /// Which element is looked for.
    pub enum ArgExtreme { Max = "max", Min = "min" }
}

op! {
    /// Index of the extreme element along an axis, i64; the first of equals, or the last. NaN is more extreme than any number.
    /// Source: ONNX ArgMax and ArgMin.
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

/// The shape left after reducing over `axes`.
fn reduced(shape: &Shape, axes: &[usize], keepdims: bool) -> Shape {
    let dims = shape.iter().enumerate();
    match keepdims {
        true => dims.map(|(d, n)| if axes.contains(&d) { Dim::ONE } else { n.clone() }).collect(),
        false => dims.filter(|(d, _)| !axes.contains(d)).map(|(_, n)| n.clone()).collect(),
    }
}

impl OpDef for Reduce {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // reduce.c1: x holds numbers; max and min also take bool
        let extreme = matches!(self.f, ReduceFn::Max | ReduceFn::Min);
        if !(extreme && x.dtype == DType::Bool) {
            require_dtype("reduce.c1", x.dtype, Domain::Number)?;
        }
        // reduce.c2: the axes are axes of x, ascending, none twice
        if !self.axes.is_sorted_by(|a, b| a < b) {
            let axes = &self.axes;
            return Err(Diag::new("reduce.c2", format!("the axes {axes:?} are not ascending without repetition")));
        }
        if let Some(&last) = self.axes.last() {
            require_axis("reduce.c2", last, x)?;
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: reduced(&x.shape, &self.axes, self.keepdims) }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let cells = Cells::new(x.shape(), &self.axes);
        let dtype = x.dtype();
        if dtype.is_float() {
            return Ok(vec![Tensor::from_f64(dtype, shape, self.floats(&x.to_f64(), &cells))]);
        }
        let y = match self.integers(&x.to_i128(), &cells, dtype) {
            Some(exact) => exact,
            None => self.floats(&x.to_f64(), &cells).into_iter().map(truncate).collect(),
        };
        Ok(vec![Tensor::from_i128(dtype, shape, y)])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        let per_element = match self.f {
            ReduceFn::Sum | ReduceFn::Mean | ReduceFn::Prod | ReduceFn::Max | ReduceFn::Min | ReduceFn::LogSum => 1,
            ReduceFn::L1 | ReduceFn::L2 | ReduceFn::SumSquare => 2,
            ReduceFn::LogSumExp => 4,
        };
        &t.get(0).elements() * per_element
    }
}

impl Reduce {
    fn floats(&self, x: &[f64], cells: &Cells) -> Vec<f64> {
        let sum = |f: fn(f64) -> f64| cells.fold(x, 0.0, |sum, x| sum + f(x));
        let each = |mut y: Vec<f64>, f: &dyn Fn(f64) -> f64| {
            y.iter_mut().for_each(|y| *y = f(*y));
            y
        };
        match self.f {
            ReduceFn::Sum => sum(|x| x),
            ReduceFn::Mean => each(sum(|x| x), &|y| y / cells.size as f64),
            ReduceFn::Prod => cells.fold(x, 1.0, |y, x| y * x),
            ReduceFn::Max => cells.fold(x, f64::NEG_INFINITY, larger),
            ReduceFn::Min => cells.fold(x, f64::INFINITY, |y, x| -larger(-y, -x)),
            ReduceFn::L1 => sum(f64::abs),
            ReduceFn::L2 => each(sum(|x| x * x), &f64::sqrt),
            ReduceFn::SumSquare => sum(|x| x * x),
            ReduceFn::LogSum => each(sum(|x| x), &f64::ln),
            ReduceFn::LogSumExp => {
                // Infinities need no shift, and inf - inf would make them NaN.
                let max = cells.fold(x, f64::NEG_INFINITY, larger);
                let shift = each(max, &|m| if m.is_finite() { m } else { 0.0 });
                let mut sum = vec![0.0; shift.len()];
                x.iter().zip(&cells.of).for_each(|(x, &c)| sum[c] += (x - shift[c]).exp());
                sum.iter().zip(shift).map(|(sum, shift)| sum.ln() + shift).collect()
            }
        }
    }

    /// `None` for the functions that have no integer form.
    fn integers(&self, x: &[i128], cells: &Cells, dtype: DType) -> Option<Vec<i128>> {
        let (lowest, highest) = integer_range(dtype);
        Some(match self.f {
            ReduceFn::Sum => cells.fold(x, 0, |y, x| y + x),
            ReduceFn::Mean => {
                let narrow = |sum: i128| if dtype == DType::U64 { sum as u64 as i128 } else { sum as i64 as i128 };
                let n = cells.size as i128;
                cells.fold(x, 0, |y, x| y + x).into_iter().map(|s| narrow(s).checked_div(n).unwrap_or(0)).collect()
            }
            ReduceFn::Prod => cells.fold(x, 1, i128::wrapping_mul),
            ReduceFn::Max => cells.fold(x, lowest, i128::max),
            ReduceFn::Min => cells.fold(x, highest, i128::min),
            ReduceFn::L1 => cells.fold(x, 0, |y, x| y + x.abs()),
            ReduceFn::SumSquare => cells.fold(x, 0, |y, x| y.wrapping_add(x.wrapping_mul(x))),
            ReduceFn::L2 | ReduceFn::LogSum | ReduceFn::LogSumExp => return None,
        })
    }
}

/// The larger of two, NaN if either is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Towards zero; what i64 does not hold becomes its minimum, as `cast` has it.
fn truncate(v: f64) -> i128 {
    let limit = 2f64.powi(63);
    if v >= -limit && v < limit { v as i128 } else { i128::from(i64::MIN) }
}

/// Lowest and highest value of an integer type or bool.
fn integer_range(dtype: DType) -> (i128, i128) {
    match dtype.kind() {
        Kind::Signed => (-(1 << (dtype.bits() - 1)), (1 << (dtype.bits() - 1)) - 1),
        Kind::Unsigned => (0, (1 << dtype.bits()) - 1),
        Kind::Bool => (0, 1),
        Kind::Float | Kind::String => unreachable!("{dtype} is no integer type"),
    }
}

/// Which result each element of a tensor goes into when some axes are reduced.
pub(super) struct Cells {
    /// Per element, row-major.
    pub of: Vec<usize>,
    pub count: usize,
    /// Elements per cell.
    pub size: usize,
}

impl Cells {
    pub fn new(shape: &[usize], axes: &[usize]) -> Cells {
        let kept: Vec<usize> = (0..shape.len()).map(|d| if axes.contains(&d) { 1 } else { shape[d] }).collect();
        let own = strides(&kept);
        let steps: Vec<usize> = (0..shape.len()).map(|d| if axes.contains(&d) { 0 } else { own[d] }).collect();
        let mut of = vec![];
        for_each_index(shape, |index| of.push(flat(index, &steps)));
        Cells { of, count: kept.iter().product(), size: axes.iter().map(|&d| shape[d]).product() }
    }

    pub fn fold<T: Copy>(&self, x: &[T], init: T, f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut y = vec![init; self.count];
        x.iter().zip(&self.of).for_each(|(&x, &c)| y[c] = f(y[c], x));
        y
    }
}

impl OpDef for ArgReduce {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // arg_reduce.c1: x holds numbers
        require_dtype("arg_reduce.c1", x.dtype, Domain::Number)?;
        // arg_reduce.c2: the axis is one of x
        require_axis("arg_reduce.c2", self.axis, x)?;
        // arg_reduce.c3: there is an element to point at
        if x.shape[self.axis].is(0) {
            let message = format!("axis {} of {x} is empty, it has no extreme element", self.axis);
            return Err(Diag::new("arg_reduce.c3", message));
        }
        Ok(vec![TensorType { dtype: DType::I64, shape: reduced(&x.shape, &[self.axis], self.keepdims) }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let lines = Lines::new(x.shape(), self.axis);
        let min = self.f == ArgExtreme::Min;
        // The minimum is the maximum of what is negated, and NaN stays on top.
        let y = if x.dtype().is_float() {
            let values: Vec<f64> = x.to_f64().into_iter().map(|v| if min { -v } else { v }).collect();
            self.indices(&values, &lines, total_order)
        } else {
            let values: Vec<i128> = x.to_i128().into_iter().map(|v| if min { -v } else { v }).collect();
            self.indices(&values, &lines, |a, b| a.cmp(&b))
        };
        Ok(vec![Tensor::from_i128(DType::I64, shape, y)])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        t.get(0).elements()
    }
}

impl ArgReduce {
    fn indices<T: Copy>(&self, x: &[T], lines: &Lines, order: impl Fn(T, T) -> Ordering) -> Vec<i128> {
        let beats = |a: T, b: T| match order(a, b) {
            Ordering::Greater => true,
            Ordering::Equal => self.select_last,
            Ordering::Less => false,
        };
        let best = |line: usize| {
            let mut best = 0;
            for k in 1..lines.n {
                if beats(x[lines.at(line, k)], x[lines.at(line, best)]) {
                    best = k;
                }
            }
            best as i128
        };
        (0..lines.count).map(best).collect()
    }
}

impl OpDef for CumSum {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // cum_sum.c1: x holds numbers
        require_dtype("cum_sum.c1", x.dtype, Domain::Number)?;
        // cum_sum.c2: the axis is one of x
        require_axis("cum_sum.c2", self.axis, x)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let (dtype, shape) = (x.dtype(), x.shape().to_vec());
        Ok(vec![if dtype.is_float() {
            Tensor::from_f64(dtype, shape, self.running(&x.to_f64(), x.shape(), 0.0, |a, b| a + b))
        } else {
            Tensor::from_i128(dtype, shape, self.running(&x.to_i128(), x.shape(), 0, |a, b| a + b))
        }])
    }
}

impl CumSum {
    fn running<T: Copy>(&self, x: &[T], shape: &[usize], zero: T, add: impl Fn(T, T) -> T) -> Vec<T> {
        let lines = Lines::new(shape, self.axis);
        let mut y = vec![zero; x.len()];
        for line in 0..lines.count {
            let mut sum = zero;
            for k in 0..lines.n {
                let at = lines.at(line, if self.reverse { lines.n - 1 - k } else { k });
                let before = sum;
                sum = add(sum, x[at]);
                y[at] = if self.exclusive { before } else { sum };
            }
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lines::tests::run;

    fn f32s(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(DType::F32, shape.to_vec(), values.iter().copied())
    }

    fn reduce(f: ReduceFn, axes: &[usize], x: &Tensor) -> Tensor {
        run(Reduce { f, axes: axes.to_vec(), keepdims: false }, &[x]).unwrap().remove(0)
    }

    #[test]
    fn reduces_over_chosen_axes() {
        let x = f32s(&[2, 3], &[1.0, -2.0, 3.0, 4.0, 5.0, -6.0]);
        let y = |f, axes: &[usize]| reduce(f, axes, &x).to_f64();
        assert_eq!(y(ReduceFn::Sum, &[0]), [5.0, 3.0, -3.0]);
        assert_eq!(y(ReduceFn::Sum, &[1]), [2.0, 3.0]);
        assert_eq!(y(ReduceFn::Mean, &[0, 1]), [(5.0 / 6.0f64) as f32 as f64]);
        assert_eq!(y(ReduceFn::Prod, &[1]), [-6.0, -120.0]);
        assert_eq!(y(ReduceFn::Max, &[1]), [3.0, 5.0]);
        assert_eq!(y(ReduceFn::Min, &[0]), [1.0, -2.0, -6.0]);
        assert_eq!(y(ReduceFn::L1, &[1]), [6.0, 15.0]);
        assert_eq!(y(ReduceFn::SumSquare, &[1]), [14.0, 77.0]);
        assert_eq!(y(ReduceFn::L2, &[]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(y(ReduceFn::LogSum, &[1]), [2f64.ln() as f32 as f64, 3f64.ln() as f32 as f64]);
        let kept = run(Reduce { f: ReduceFn::Sum, axes: vec![1], keepdims: true }, &[&x]).unwrap();
        assert_eq!(kept[0].shape(), [2, 1]);
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        let lse = |v: &[f64]| reduce(ReduceFn::LogSumExp, &[0], &f32s(&[v.len()], v)).to_f64()[0];
        assert_eq!(lse(&[1000.0, 1000.0]), (1000.0 + 2f64.ln()) as f32 as f64);
        assert_eq!(lse(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        assert_eq!(lse(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(lse(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(lse(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn empty_sets_give_the_neutral_element() {
        let x = f32s(&[2, 0], &[]);
        let y = |f| reduce(f, &[1], &x).to_f64();
        assert_eq!(y(ReduceFn::Sum), [0.0; 2]);
        assert_eq!(y(ReduceFn::Prod), [1.0; 2]);
        assert_eq!(y(ReduceFn::Max), [f64::NEG_INFINITY; 2]);
        assert_eq!(y(ReduceFn::Min), [f64::INFINITY; 2]);
        assert_eq!(y(ReduceFn::LogSum), [f64::NEG_INFINITY; 2]);
        assert!(y(ReduceFn::Mean).iter().all(|y| y.is_nan()));
        assert!(reduce(ReduceFn::Sum, &[0], &x).is_empty());
        let of = |dtype, f| reduce(f, &[0], &Tensor::from_i128(dtype, vec![0], [])).to_i128();
        assert_eq!(of(DType::I8, ReduceFn::Max), [-128]);
        assert_eq!(of(DType::U64, ReduceFn::Min), [u64::MAX as i128]);
        assert_eq!(of(DType::Bool, ReduceFn::Max), [0]);
        assert_eq!(of(DType::Bool, ReduceFn::Min), [1]);
        assert_eq!(of(DType::I32, ReduceFn::Mean), [0]);
    }

    #[test]
    fn integers_are_exact_then_wrap() {
        let x = Tensor::from_i128(DType::I32, vec![3], [i32::MAX as i128, i32::MAX as i128, 7]);
        let y = |f| reduce(f, &[0], &x).to_i128();
        assert_eq!(y(ReduceFn::Sum), [5]);
        assert_eq!(y(ReduceFn::Mean), [(2 * i32::MAX as i128 + 7) / 3]);
        assert_eq!(y(ReduceFn::SumSquare), [1 + 1 + 49]);
        let x = Tensor::from_i128(DType::U64, vec![1], [u64::MAX as i128]);
        assert_eq!(reduce(ReduceFn::SumSquare, &[0], &x).to_i128(), [1]);
        let x = Tensor::from_i128(DType::I64, vec![2], [-7, 2]);
        assert_eq!(reduce(ReduceFn::Mean, &[0], &x).to_i128(), [-2]);
        assert_eq!(reduce(ReduceFn::L2, &[0], &x).to_i128(), [7]);
        let bits = Tensor::from_i128(DType::Bool, vec![2, 2], [0, 1, 0, 0]);
        assert_eq!(reduce(ReduceFn::Max, &[1], &bits).to_i128(), [1, 0]);
    }

    #[test]
    fn max_and_min_keep_nan() {
        let x = f32s(&[3], &[1.0, f64::NAN, 2.0]);
        assert!(reduce(ReduceFn::Max, &[0], &x).to_f64()[0].is_nan());
        assert!(reduce(ReduceFn::Min, &[0], &x).to_f64()[0].is_nan());
    }

    #[test]
    fn arg_reduce_picks_first_or_last_of_equals() {
        let x = f32s(&[2, 4], &[1.0, 3.0, 3.0, 0.0, 5.0, f64::NAN, f64::NAN, 9.0]);
        let y =
            |f, select_last| run(ArgReduce { f, axis: 1, keepdims: false, select_last }, &[&x]).unwrap()[0].to_i64();
        assert_eq!(y(ArgExtreme::Max, false), [1, 1]);
        assert_eq!(y(ArgExtreme::Max, true), [2, 2]);
        assert_eq!(y(ArgExtreme::Min, false), [3, 1]);
        let x = Tensor::from_i128(DType::U64, vec![2], [u64::MAX as i128 - 1, u64::MAX as i128]);
        let op = ArgReduce { f: ArgExtreme::Max, axis: 0, keepdims: true, select_last: false };
        assert_eq!(run(op, &[&x]).unwrap()[0].to_i64(), [1]);
    }

    #[test]
    fn cum_sum_all_four_ways() {
        let x = Tensor::from_i128(DType::I32, vec![1, 3], [1, 2, 3]);
        let y = |exclusive, reverse| run(CumSum { axis: 1, exclusive, reverse }, &[&x]).unwrap()[0].to_i64();
        assert_eq!(y(false, false), [1, 3, 6]);
        assert_eq!(y(true, false), [0, 1, 3]);
        assert_eq!(y(false, true), [6, 5, 3]);
        assert_eq!(y(true, true), [5, 3, 0]);
    }

    #[test]
    fn hostile_attributes_are_refused() {
        let x = f32s(&[2, 0], &[]);
        let scalar = f32s(&[], &[1.0]);
        let reduce = |axes: &[usize]| Reduce { f: ReduceFn::Sum, axes: axes.to_vec(), keepdims: true };
        assert_eq!(run(reduce(&[2]), &[&x]).unwrap_err().code, "reduce.c2");
        assert_eq!(run(reduce(&[1, 0]), &[&x]).unwrap_err().code, "reduce.c2");
        assert_eq!(run(reduce(&[0, 0]), &[&x]).unwrap_err().code, "reduce.c2");
        assert_eq!(run(reduce(&[0]), &[&scalar]).unwrap_err().code, "reduce.c2");
        assert_eq!(run(reduce(&[]), &[&scalar]).unwrap()[0].to_f64(), [1.0]);
        let bits = Tensor::from_i128(DType::Bool, vec![1], [1]);
        assert_eq!(run(reduce(&[0]), &[&bits]).unwrap_err().code, "reduce.c1");
        let arg = |axis| ArgReduce { f: ArgExtreme::Max, axis, keepdims: true, select_last: false };
        assert_eq!(run(arg(1), &[&x]).unwrap_err().code, "arg_reduce.c3");
        assert_eq!(run(arg(usize::MAX), &[&x]).unwrap_err().code, "arg_reduce.c2");
        let cum = CumSum { axis: 0, exclusive: false, reverse: false };
        assert_eq!(run(cum, &[&scalar]).unwrap_err().code, "cum_sum.c2");
    }
}
