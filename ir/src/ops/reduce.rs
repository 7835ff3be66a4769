//! Reductions along axes.

use crate::op::{keyword, op};

keyword! {
    /// What a reduction computes. On an empty set: 0, 1 for prod, -inf/lowest for max, +inf/highest for min, and for mean NaN.
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

impl crate::op::OpDef for Reduce {}
impl crate::op::OpDef for ArgReduce {}
impl crate::op::OpDef for CumSum {}
