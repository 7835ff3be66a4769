//! Indexed reads and writes. An index may be negative (counted from the end); out of range is a fault of the data.

use crate::dim::Dim;
use crate::op::{keyword, op};

op! {
    /// Slices of x along `axis` chosen by i (i32 or i64, any rank). Source: ONNX Gather.
    pub struct Gather = "gather" (x: One, i: One) -> (y) { axis: usize }
}

op! {
    /// `y[p] = x[p with p[axis] = i[p]]`. Source: ONNX GatherElements.
    pub struct GatherElements = "gather_elements" (x: One, i: One) -> (y) { axis: usize }
}

op! {
    /// The last axis of i holds index tuples into x after `batch_dims`. Source: ONNX GatherND.
    pub struct GatherNd = "gather_nd" (x: One, i: One) -> (y) { batch_dims: usize = 0 }
}

keyword! {
    pub enum ScatterReduction { None = "none", Add = "add", Mul = "mul", Max = "max", Min = "min" }
}

op! {
    /// x with `y[p with p[axis] = i[p]]` replaced by (or combined with) u[p], in row-major order of p. Source: ONNX ScatterElements, Scatter.
    pub struct ScatterElements = "scatter_elements" (x: One, i: One, u: One) -> (y) {
        axis: usize,
        reduction: ScatterReduction = ScatterReduction::None,
    }
}

op! {
    /// x with the slices at the index tuples in i replaced by (or combined with) those of u. Source: ONNX ScatterND.
    pub struct ScatterNd = "scatter_nd" (x: One, i: One, u: One) -> (y) {
        reduction: ScatterReduction = ScatterReduction::None,
    }
}

op! {
    /// values[1] at the index along a new axis, values[0] elsewhere; an index outside [-depth, depth) gives none. Indices may
    /// be floats (truncated). Source: ONNX OneHot.
    pub struct OneHot = "one_hot" (i: One, values: One) -> (y) {
        depth: Dim,
        /// Resolved against the rank of the result.
        axis: usize,
    }
}

impl crate::op::OpDef for Gather {}
impl crate::op::OpDef for GatherElements {}
impl crate::op::OpDef for GatherNd {}
impl crate::op::OpDef for ScatterElements {}
impl crate::op::OpDef for ScatterNd {}
impl crate::op::OpDef for OneHot {}
