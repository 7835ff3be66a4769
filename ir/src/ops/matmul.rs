//! Matrix products.

use crate::op::op;

op! {
    /// numpy's matmul: 1-D operands are promoted, leading dimensions broadcast. Source: ONNX MatMul, opsets 1+.
    pub struct MatMul = "matmul" (a: One, b: One) -> (y) {}
}

op! {
    /// `alpha * op(a) * op(b) + beta * c`, c broadcast to [M, N]. Source: ONNX Gemm, opsets 7+.
    pub struct Gemm = "gemm" (a: One, b: One, c: Opt) -> (y) {
        alpha: f32 = 1.0,
        beta: f32 = 1.0,
        trans_a: bool = false,
        trans_b: bool = false,
    }
}

op! {
    /// Sum of products by index letters, `ij,jk->ik`; ellipsis and implicit output allowed. Source: ONNX Einsum, opset 12+.
    pub struct Einsum = "einsum" (xs: Many) -> (y) { equation: String }
}

impl crate::op::OpDef for MatMul {}
impl crate::op::OpDef for Gemm {}
impl crate::op::OpDef for Einsum {}
