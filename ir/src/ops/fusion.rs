//! A group of operators that one kernel computes.

use crate::diag::Diag;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;

op! {
    /// Runs its region on its operands. The region is an ordinary graph, so a fused graph prints, verifies and evaluates like
    /// any other; inside it at most one operator is an anchor (conv, gemm, matmul, pool, reduce, instance or group norm), all
    /// others are elementwise.
    pub struct Fusion = "fusion" (xs: Many) -> (y) {}
}

impl OpDef for Fusion {
    fn infer(&self, _: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        // fusion.c0: the graph infers it, from the region
        Err(Diag::new("fusion.c0", "a fusion has its types from its region"))
    }

    fn eval(&self, _: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Err("a fusion is evaluated by its region".into())
    }
}
