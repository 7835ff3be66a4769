//! Tensors made from nothing but numbers.

use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::op;

op! {
    /// `start + i*delta`; both scalars of the result's type. Source: ONNX Range.
    pub struct Range = "range" (start: One, delta: One) -> (y) { len: Dim }
}

op! {
    /// Ones on the k-th diagonal of a matrix. Source: ONNX EyeLike.
    pub struct Eye = "eye" () -> (y) { dtype: DType, rows: Dim, cols: Dim, k: i64 = 0 }
}

impl crate::op::OpDef for Range {}
impl crate::op::OpDef for Eye {}
