//! Selection, conversion and clamping.

use crate::dtype::DType;
use crate::op::op;

op! {
    /// `cond ? x : y`, all three broadcast. cond is bool; x and y share a type. Source: ONNX Where, opsets 9+.
    pub struct Where = "where" (cond: One, x: One, y: One) -> (z) {}
}

op! {
    /// Conversion to `to`. Float to integer truncates towards zero and out-of-range wraps as two's complement; to bool: `!= 0`;
    /// float to narrower float rounds to nearest even. Source: ONNX Cast and CastLike, opsets 6+.
    pub struct Cast = "cast" (x: One) -> (y) { to: DType }
}

op! {
    /// `min(max(x, lo), hi)`; lo and hi are scalars of x's type; NaN stays. Source: ONNX Clip, opsets 6+.
    pub struct Clip = "clip" (x: One, lo: Opt, hi: Opt) -> (y) {}
}

impl crate::op::OpDef for Where {}
impl crate::op::OpDef for Cast {}
impl crate::op::OpDef for Clip {}
