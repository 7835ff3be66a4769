//! Resampling.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::{DType, Kind};
use crate::op::{In, OpDef, keyword, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::{pick, strides};

keyword! {
    /// How values between input elements are found.
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
    /// Which input element is nearest, ties included.
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

impl OpDef for Resize {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        let rank = x.rank();
        // resize.c1: a size and a scale for every axis; scales are finite and positive
        if self.shape.len() != rank || self.scales.len() != rank {
            return Err(Diag::new("resize.c1", format!("resizing {x} takes {rank} sizes and scales")));
        }
        if let Some(s) = self.scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return Err(Diag::new("resize.c1", format!("a scale of {s} is not a positive number")));
        }
        // resize.c2: a region of interest, finite, for every axis exactly under tf_crop_and_resize
        let expected = if self.coordinates == CoordinateTransform::TfCropAndResize { 2 * rank } else { 0 };
        if self.roi.len() != expected || self.roi.iter().any(|r| !r.is_finite()) {
            return Err(Diag::new(
                "resize.c2",
                format!(
                    "{} takes a region of {expected} finite numbers, {} are given",
                    self.coordinates.word(),
                    self.roi.len()
                ),
            ));
        }
        // resize.c3: only `nearest` takes booleans, and it has no antialiasing
        if self.mode != ResizeMode::Nearest && x.dtype == DType::Bool {
            return Err(Diag::new("resize.c3", format!("booleans cannot be interpolated: {x}")));
        }
        if self.mode == ResizeMode::Nearest && self.antialias {
            return Err(Diag::new("resize.c3", "antialiasing goes with linear and cubic, not with nearest"));
        }
        // resize.c5: antialiasing takes a bounded number of elements
        if self.antialias && self.scales.iter().any(|&s| s < LEAST_ANTIALIASED) {
            return Err(Diag::new("resize.c5", format!("antialiasing with a scale below {LEAST_ANTIALIASED}")));
        }
        // resize.c4: an axis without elements stays so
        if let Some(a) = (0..rank).find(|&a| x.shape[a].is(0) && self.shape[a].as_const().is_some_and(|n| n > 0)) {
            return Err(Diag::new("resize.c4", format!("axis {a} of {x} has no elements to resize")));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.shape.clone() }])
    }

    /// One axis after the other, in f64; integers are rounded to even at the end and saturate.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        if shape.contains(&0) {
            return Ok(vec![Tensor::new(x.dtype(), shape, Default::default())?]);
        }
        if self.mode == ResizeMode::Nearest && self.coordinates != CoordinateTransform::TfCropAndResize {
            return Ok(vec![self.nearest_elements(x, &shape)]);
        }
        let mut current = x.shape().to_vec();
        let mut values = x.to_f64();
        for (axis, &size) in shape.iter().enumerate() {
            if let Some(samples) = self.samples(axis, current[axis], size) {
                values = resample(&values, &current, axis, &samples, self.extrapolation as f64);
                current[axis] = size;
            }
        }
        if !x.dtype().is_float() {
            let (least, most) = integer_range(x.dtype());
            let rounded = values.iter().map(|v| (v.round_ties_even() as i128).clamp(least, most));
            return Ok(vec![Tensor::from_i128(x.dtype(), shape, rounded)]);
        }
        Ok(vec![Tensor::from_f64(x.dtype(), shape, values)])
    }

    /// A multiply-add per tap and axis, as if all axes were resampled together.
    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        let taps: i64 = match self.mode {
            ResizeMode::Nearest => return Dim::ZERO,
            ResizeMode::Linear => 2,
            ResizeMode::Cubic => 4,
        };
        let resized = self.scales.iter().filter(|&&s| s != 1.0).count() as u32;
        &out[0].elements() * taps.saturating_pow(resized).saturating_mul(2)
    }
}

/// Antialiasing makes the kernel 1/scale times as wide; no image shrinks further than this.
const LEAST_ANTIALIASED: f32 = 1.0 / 65536.0;

fn integer_range(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    match dtype.kind() {
        Kind::Signed => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        Kind::Unsigned => (0, (1 << bits) - 1),
        Kind::Bool | Kind::Float | Kind::String => (0, 1),
    }
}

/// How one output element is made along one axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Weighted input elements; positions lie inside the axis, and may repeat at its ends.
    Weighted(Vec<(usize, f64)>),
    /// Outside the input, under tf_crop_and_resize.
    Outside,
}

/// Output elements as weighted sums along one axis.
fn resample(x: &[f64], shape: &[usize], axis: usize, samples: &[Sample], outside: f64) -> Vec<f64> {
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut y = vec![0.0; outer * samples.len() * inner];
    for (row, y) in y.chunks_exact_mut(inner).enumerate() {
        let from = row / samples.len() * shape[axis];
        match &samples[row % samples.len()] {
            Sample::Outside => y.fill(outside),
            Sample::Weighted(taps) => {
                for &(p, w) in taps {
                    for (y, x) in y.iter_mut().zip(&x[(from + p) * inner..]) {
                        *y += w * x;
                    }
                }
            }
        }
    }
    y
}

impl Resize {
    /// The weights along one axis of `n` elements that becomes `size`; `None` if it stays as it is.
    pub fn samples(&self, axis: usize, n: usize, size: usize) -> Option<Vec<Sample>> {
        let roi = self.region(axis);
        let whole = roi.is_none_or(|r| r == (0.0, 1.0));
        if n == size && self.scales[axis] == 1.0 && whole {
            return None;
        }
        let (scale, width) = self.scale(axis, n, size);
        let samples = (0..size).map(|o| {
            let x = self.coordinate(o as f64, n as f64, size as f64, scale, width, roi);
            if roi.is_some() && !(x >= 0.0 && x <= n as f64 - 1.0) {
                return Sample::Outside;
            }
            // `base` is left of x, strictly: ratio is in (0, 1].
            let base = x.ceil() - 1.0;
            let left = base as i64;
            if self.mode == ResizeMode::Nearest {
                let place = left.saturating_add(self.takes_right(x - base) as i64);
                return Sample::Weighted(vec![(place.clamp(0, n as i64 - 1) as usize, 1.0)]);
            }
            let weights = self.weights(x - base, scale);
            let first = left.saturating_add(1 - weights.len() as i64 / 2);
            Sample::Weighted(self.clamped(first, weights, n as i64))
        });
        Some(samples.collect())
    }

    fn region(&self, axis: usize) -> Option<(f64, f64)> {
        let crop = self.coordinates == CoordinateTransform::TfCropAndResize;
        crop.then(|| (self.roi[axis] as f64, self.roi[self.scales.len() + axis] as f64))
    }

    /// The scale, and the width of the output before it was truncated to a whole number. A scale that is the f32
    /// next to size/n came from sizes, and is taken as that ratio.
    fn scale(&self, axis: usize, n: usize, size: usize) -> (f64, f64) {
        let ratio = size as f64 / n as f64;
        let scale = self.scales[axis];
        if ratio as f32 == scale { (ratio, size as f64) } else { (scale as f64, scale as f64 * n as f64) }
    }

    fn coordinate(&self, o: f64, n: f64, size: f64, scale: f64, width: f64, roi: Option<(f64, f64)>) -> f64 {
        let half_pixel = (o + 0.5) / scale - 0.5;
        match self.coordinates {
            CoordinateTransform::HalfPixel => half_pixel,
            CoordinateTransform::HalfPixelSymmetric => n / 2.0 * (1.0 - size / width) + half_pixel,
            // The first element, says the specification of a single one; its reference implementation says -0.5.
            CoordinateTransform::PytorchHalfPixel if size == 1.0 => 0.0,
            CoordinateTransform::PytorchHalfPixel => half_pixel,
            CoordinateTransform::AlignCorners if width == 1.0 => 0.0,
            CoordinateTransform::AlignCorners => o * (n - 1.0) / (width - 1.0),
            CoordinateTransform::Asymmetric => o / scale,
            CoordinateTransform::TfHalfPixelForNn => (o + 0.5) / scale,
            CoordinateTransform::TfCropAndResize => {
                let (start, end) = roi.unwrap_or((0.0, 1.0));
                let extent = (end - start) * (n - 1.0);
                start * (n - 1.0) + if width == 1.0 { extent / 2.0 } else { o * extent / (width - 1.0) }
            }
        }
    }

    /// Whether `nearest` takes the element right of a point at `ratio` past the one left of it.
    fn takes_right(&self, ratio: f64) -> bool {
        match self.nearest {
            _ if ratio == 1.0 => true,
            NearestMode::RoundPreferFloor => ratio > 0.5,
            NearestMode::RoundPreferCeil => ratio >= 0.5,
            NearestMode::Floor => false,
            NearestMode::Ceil => true,
        }
    }

    /// Weights of the elements around a point at `ratio` past the element left of it; as many left as right of it.
    fn weights(&self, ratio: f64, scale: f64) -> Vec<f64> {
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let side = |reach: f64| 1 - ((-reach / stretch).floor() as i64 + 1);
        let spread = |reach: f64, kernel: &dyn Fn(f64) -> f64| {
            let side = side(reach);
            let mut w: Vec<f64> = (1 - side..=side).map(|i| kernel((i as f64 - ratio).abs() * stretch)).collect();
            if self.antialias {
                let sum: f64 = w.iter().sum();
                w.iter_mut().for_each(|w| *w /= sum);
            }
            w
        };
        match self.mode {
            ResizeMode::Nearest => vec![],
            ResizeMode::Linear => spread(1.0, &|d| (1.0 - d).max(0.0)),
            ResizeMode::Cubic => spread(2.0, &|d| self.cubic(d)),
        }
    }

    /// Keys' cubic convolution kernel at distance `d`.
    fn cubic(&self, d: f64) -> f64 {
        let a = self.cubic_a as f64;
        if d <= 1.0 {
            ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
        } else if d < 2.0 {
            ((d - 5.0) * d + 8.0) * d * a - 4.0 * a
        } else {
            0.0
        }
    }

    /// Positions outside the axis take its ends' elements, or, under `exclude_outside`, no part.
    fn clamped(&self, first: i64, mut weights: Vec<f64>, n: i64) -> Vec<(usize, f64)> {
        let places = |i: usize| first.saturating_add(i as i64);
        if self.exclude_outside {
            for (i, w) in weights.iter_mut().enumerate() {
                if !(0..n).contains(&places(i)) {
                    *w = 0.0;
                }
            }
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
        }
        weights.into_iter().enumerate().map(|(i, w)| (places(i).clamp(0, n - 1) as usize, w)).collect()
    }

    /// Nearest neighbours move elements whole, whatever they are.
    fn nearest_elements(&self, x: &Tensor, shape: &[usize]) -> Tensor {
        let steps = strides(x.shape());
        let place = |sample: &Sample| match sample {
            Sample::Weighted(taps) => taps.first().map_or(0, |(p, _)| *p),
            Sample::Outside => 0,
        };
        let places: Vec<Vec<usize>> = (0..shape.len())
            .map(|a| match self.samples(a, x.shape()[a], shape[a]) {
                Some(samples) => samples.iter().map(place).collect(),
                None => (0..shape[a]).collect(),
            })
            .collect();
        pick(x, shape, &[], |i| Some(i.iter().zip(&places).zip(&steps).map(|((&i, p), s)| p[i] * s).sum()))
    }
}

#[cfg(test)]
mod tests;
