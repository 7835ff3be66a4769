//! Sorting and selection.

use crate::dim::Dim;
use crate::op::op;

op! {
    /// The k largest (or smallest) along an axis and their i64 indices, sorted; of equals the lower index first. Unsorted
    /// requests are answered sorted. Source: ONNX TopK.
    pub struct TopK = "top_k" (x: One) -> (values, indices) {
        axis: usize,
        k: Dim,
        largest: bool = true,
    }
}

impl crate::op::OpDef for TopK {}
