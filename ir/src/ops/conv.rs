//! Convolutions.

use crate::op::op;

op! {
    /// Cross-correlation, N C spatial... by O I/groups spatial..., 1 to 3 spatial dimensions (any number is inferred and evaluated);
    /// `b` is one number per output channel. Pads are all begins, then all ends; they are resolved (no auto_pad here).
    /// Source: ONNX Conv, opsets 1+.
    pub struct Conv = "conv" (x: One, w: One, b: Opt) -> (y) {
        strides: Vec<usize>,
        /// Begins of all axes, then ends; never negative.
        pads: Vec<usize>,
        dilations: Vec<usize>,
        groups: usize = 1,
    }
}

op! {
    /// The gradient of a convolution with respect to its input: x is N I spatial..., w is I O/groups spatial....
    /// Output size per axis: `stride*(in - 1) + output_padding + (k - 1)*dilation + 1 - pad_begin - pad_end`.
    /// Source: ONNX ConvTranspose, opsets 1+ (output_shape and auto_pad are resolved into pads at import).
    pub struct ConvTranspose = "conv_transpose" (x: One, w: One, b: Opt) -> (y) {
        strides: Vec<usize>,
        /// Begins, then ends; may be negative (output_shape larger than natural).
        pads: Vec<i64>,
        dilations: Vec<usize>,
        output_padding: Vec<usize>,
        groups: usize = 1,
    }
}

impl crate::op::OpDef for Conv {}
impl crate::op::OpDef for ConvTranspose {}
