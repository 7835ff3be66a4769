//! Pooling windows over the spatial axes of N C spatial... . Output size per axis:
//! `floor((in + pads - dilation*(k-1) - 1)/stride) + 1`, with ceil instead of floor under `ceil_mode`, in which case a last
//! window that would start in the end padding is dropped (ONNX opset 22's wording, torch's rule).

use crate::op::op;

op! {
    /// The maximum of the window, padding excluded; `indices` are flat positions in x (row-major over the whole tensor, or
    /// column-major in the spatial axes when `column_major`). Source: ONNX MaxPool, opsets 1+.
    pub struct MaxPool = "max_pool" (x: One) -> (y, indices) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        column_major: bool = false,
    }
}

op! {
    /// The mean of the window; padding counts in the divisor only if `count_include_pad` (and then only inside the padded
    /// extent). Source: ONNX AveragePool, opsets 1+.
    pub struct AvgPool = "avg_pool" (x: One) -> (y) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        count_include_pad: bool = false,
    }
}

op! {
    /// `(sum |x|^p)^(1/p)` over the window. Source: ONNX LpPool, opsets 2+, and GlobalLpPool.
    pub struct LpPool = "lp_pool" (x: One) -> (y) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        p: usize = 2,
    }
}

impl crate::op::OpDef for MaxPool {}
impl crate::op::OpDef for AvgPool {}
impl crate::op::OpDef for LpPool {}
