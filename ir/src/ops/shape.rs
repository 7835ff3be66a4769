//! Shapes as values. They become constants as soon as the dimensions are known.

use crate::op::op;

op! {
    /// The dimensions `start..end` of x, i64. Source: ONNX Shape.
    pub struct ShapeOf = "shape_of" (x: One) -> (y) { start: usize = 0, end: usize }
}

op! {
    /// The number of elements of x, i64 scalar. Source: ONNX Size.
    pub struct SizeOf = "size_of" (x: One) -> (y) {}
}

impl crate::op::OpDef for ShapeOf {}
impl crate::op::OpDef for SizeOf {}
