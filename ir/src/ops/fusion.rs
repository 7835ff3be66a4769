//! A group of operators that one kernel computes.

use crate::op::op;

op! {
    /// Runs its region on its operands. The region is an ordinary graph, so a fused graph prints, verifies and evaluates like
    /// any other; inside it at most one operator is an anchor (conv, gemm, matmul, pool, reduce), all others are elementwise.
    pub struct Fusion = "fusion" (xs: Many) -> (y) {}
}

impl crate::op::OpDef for Fusion {}
