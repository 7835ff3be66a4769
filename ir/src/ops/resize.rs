//! Resampling.

use crate::dim::Dim;
use crate::op::{keyword, op};

keyword! {
    pub enum ResizeMode { Nearest = "nearest", Linear = "linear", Cubic = "cubic" }
}

keyword! {
    /// How an output coordinate maps to an input coordinate.
    pub enum CoordinateTransform {
        HalfPixel = "half_pixel",
        HalfPixelSymmetric = "half_pixel_symmetric",
        PytorchHalfPixel = "pytorch_half_pixel",
        AlignCorners = "align_corners",
        Asymmetric = "asymmetric",
        TfHalfPixelForNn = "tf_half_pixel_for_nn",
        TfCropAndResize = "tf_crop_and_resize",
    }
}

keyword! {
    pub enum NearestMode {
        RoundPreferFloor = "round_prefer_floor",
        RoundPreferCeil = "round_prefer_ceil",
        Floor = "floor",
        Ceil = "ceil",
    }
}

op! {
    /// Resizes every axis to `shape` with the given scale factors (full rank; axes not resized have scale 1).
    /// Source: ONNX Resize, opsets 10+, and Upsample (nearest/linear, asymmetric, floor).
    pub struct Resize = "resize" (x: One) -> (y) {
        shape: Vec<Dim>,
        scales: Vec<f32>,
        mode: ResizeMode = ResizeMode::Nearest,
        coordinates: CoordinateTransform = CoordinateTransform::HalfPixel,
        nearest: NearestMode = NearestMode::RoundPreferFloor,
        cubic_a: f32 = -0.75,
        exclude_outside: bool = false,
        /// Value outside the input under tf_crop_and_resize.
        extrapolation: f32 = 0.0,
        antialias: bool = false,
        /// Starts of all axes, then ends, normalised; empty unless tf_crop_and_resize.
        roi: Vec<f32> = vec![],
    }
}

impl crate::op::OpDef for Resize {}
