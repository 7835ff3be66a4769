//! Operators that move elements without changing them.

use crate::dim::Dim;
use crate::op::{keyword, op};

op! {
    /// Joins along an axis. Source: ONNX Concat.
    pub struct Concat = "concat" (xs: Many) -> (y) { axis: usize }
}

op! {
    /// `y[i..] = x[starts + i*steps]` on every axis; full rank, resolved and clamped. Source: ONNX Slice and Split (one slice per part).
    pub struct Slice = "slice" (x: One) -> (y) {
        starts: Vec<Dim>,
        /// Output sizes.
        lens: Vec<Dim>,
        /// Not zero; negative steps run backwards from `starts`.
        steps: Vec<i64>,
    }
}

keyword! {
    pub enum PadMode { Constant = "constant", Reflect = "reflect", Edge = "edge", Wrap = "wrap" }
}

op! {
    /// Adds (or, negative, removes) elements at both ends of every axis; `value` is a scalar of x's type, 0 if absent.
    /// Source: ONNX Pad, opsets 2+.
    pub struct Pad = "pad" (x: One, value: Opt) -> (y) {
        before: Vec<i64>,
        after: Vec<i64>,
        mode: PadMode = PadMode::Constant,
    }
}

op! {
    /// The same elements in row-major order under another shape. Source: ONNX Reshape, Flatten, Squeeze, Unsqueeze.
    pub struct Reshape = "reshape" (x: One) -> (y) { shape: Vec<Dim> }
}

op! {
    /// `y.dim(i) = x.dim(perm[i])`. Source: ONNX Transpose.
    pub struct Transpose = "transpose" (x: One) -> (y) { perm: Vec<usize> }
}

op! {
    /// Broadcasts x to `shape` (the final shape: x's dims are 1 or equal). Source: ONNX Expand, ConstantOfShape.
    pub struct Expand = "expand" (x: One) -> (y) { shape: Vec<Dim> }
}

op! {
    /// Repeats x along every axis. Source: ONNX Tile.
    pub struct Tile = "tile" (x: One) -> (y) { repeats: Vec<Dim> }
}

op! {
    /// The upper (or lower) triangle of the last two axes, zeros elsewhere; `k` shifts the diagonal. Source: ONNX Trilu.
    pub struct Trilu = "trilu" (x: One) -> (y) { upper: bool = true, k: i64 = 0 }
}

keyword! {
    /// Whether the block's coordinates are the outer or the inner part of the depth index.
    pub enum DepthOrder { Dcr = "dcr", Crd = "crd" }
}

op! {
    /// [N, C*b*b, H, W] -> [N, C, H*b, W*b]. Source: ONNX DepthToSpace.
    pub struct DepthToSpace = "depth_to_space" (x: One) -> (y) { block: usize, order: DepthOrder = DepthOrder::Dcr }
}

op! {
    /// [N, C, H*b, W*b] -> [N, b*b*C, H, W]. Source: ONNX SpaceToDepth.
    pub struct SpaceToDepth = "space_to_depth" (x: One) -> (y) { block: usize }
}

op! {
    /// x. Source: ONNX Identity.
    pub struct Identity = "identity" (x: One) -> (y) {}
}

op! {
    /// Dropout in inference: y is x, mask is all true. Source: ONNX Dropout.
    pub struct Dropout = "dropout" (x: One) -> (y, mask) {}
}

impl crate::op::OpDef for Concat {}
impl crate::op::OpDef for Slice {}
impl crate::op::OpDef for Pad {}
impl crate::op::OpDef for Reshape {}
impl crate::op::OpDef for Transpose {}
impl crate::op::OpDef for Expand {}
impl crate::op::OpDef for Tile {}
impl crate::op::OpDef for Trilu {}
impl crate::op::OpDef for DepthToSpace {}
impl crate::op::OpDef for SpaceToDepth {}
impl crate::op::OpDef for Identity {}
impl crate::op::OpDef for Dropout {}
