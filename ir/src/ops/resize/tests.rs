//! Tests of resampling. The expectations are those of ONNX's reference implementation.

use super::*;

fn resize(size: i64, mode: ResizeMode, coordinates: CoordinateTransform) -> Resize {
    Resize {
        shape: vec![Dim::Const(size)],
        scales: vec![size as f32 / 5.0],
        mode,
        coordinates,
        nearest: NearestMode::RoundPreferFloor,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        roi: vec![],
    }
}

fn run(op: Resize) -> Vec<f64> {
    let x = Tensor::from_f64(DType::F64, vec![5], [1.0, 5.0, 2.0, 8.0, 3.0]);
    let out = op.infer(In(&[Some(&x.ty())])).unwrap();
    let y = op.eval(In(&[Some(&x)]), &out).unwrap().remove(0);
    assert_eq!(y.ty(), out[0]);
    y.to_f64().into_iter().map(|v| (v * 1e6).round() / 1e6).collect()
}

use CoordinateTransform::*;
use ResizeMode::*;

#[test]
fn linear() {
    let half = [1.0, 2.75, 4.8125, 2.9375, 3.875, 7.625, 5.1875, 3.0];
    for coordinates in [HalfPixel, HalfPixelSymmetric, PytorchHalfPixel] {
        assert_eq!(run(resize(8, Linear, coordinates)), half);
        assert_eq!(run(resize(2, Linear, coordinates)), [4.0, 6.75]);
        let antialiased = Resize { antialias: true, ..resize(2, Linear, coordinates) };
        assert_eq!(run(antialiased.clone()), [2.92, 4.68]);
        assert_eq!(run(Resize { exclude_outside: true, ..antialiased }), [3.181818, 4.909091]);
    }
    let corners = [1.0, 3.285714, 4.571429, 2.857143, 3.714286, 7.142857, 5.857143, 3.0];
    assert_eq!(run(resize(8, Linear, AlignCorners)), corners);
    assert_eq!(run(resize(8, Linear, Asymmetric)), [1.0, 3.5, 4.25, 2.375, 5.0, 7.375, 4.25, 3.0]);
    assert_eq!(run(resize(5, Linear, HalfPixel)), [1.0, 5.0, 2.0, 8.0, 3.0]);
}

#[test]
fn cubic() {
    let half = [0.628662, 2.961487, 4.999268, 2.413818, 3.673584, 7.899658, 5.633545, 2.535828];
    assert_eq!(run(resize(8, Cubic, HalfPixel)), half);
    let outside = Resize { exclude_outside: true, ..resize(8, Cubic, AlignCorners) };
    assert_eq!(run(outside), [1.0, 3.443243, 4.873178, 2.310496, 3.473761, 7.62828, 6.272973, 3.0]);
    let antialiased = Resize { antialias: true, cubic_a: -0.5, ..resize(2, Cubic, HalfPixel) };
    assert_eq!(run(antialiased.clone()), [2.8952, 4.8668]);
    assert_eq!(run(Resize { exclude_outside: true, ..antialiased }), [3.043413, 4.959566]);
}

/// The specification's text and ONNX Runtime, not the reference implementation: the first element, whatever the scale was.
#[test]
fn a_single_pixel_as_pytorch_has_it() {
    for (mode, scale) in [(Linear, 0.2), (Cubic, 0.2), (Cubic, 0.3), (Nearest, 0.3)] {
        let one = Resize { scales: vec![scale], ..resize(1, mode, PytorchHalfPixel) };
        assert_eq!(run(one), [1.0], "{mode:?} {scale}");
    }
}

#[test]
fn scales_that_do_not_give_whole_sizes() {
    let op = |coordinates| Resize { scales: vec![0.7], ..resize(3, Linear, coordinates) };
    assert_eq!(run(op(HalfPixelSymmetric)), [3.285714, 2.0, 5.857143]);
    assert_eq!(run(op(AlignCorners)), [1.0, 3.2, 7.0]);
}

#[test]
fn nearest() {
    let op = |size, coordinates, nearest| run(Resize { nearest, ..resize(size, Nearest, coordinates) });
    let twice = [1.0, 1.0, 5.0, 5.0, 2.0, 2.0, 8.0, 8.0, 3.0, 3.0];
    assert_eq!(op(10, HalfPixel, NearestMode::RoundPreferFloor), twice);
    assert_eq!(op(10, Asymmetric, NearestMode::Floor), twice);
    let ceil = [1.0, 5.0, 5.0, 2.0, 2.0, 8.0, 8.0, 3.0, 3.0, 3.0];
    assert_eq!(op(10, HalfPixel, NearestMode::Ceil), ceil);
    assert_eq!(op(10, Asymmetric, NearestMode::RoundPreferCeil), ceil);
    assert_eq!(op(2, Asymmetric, NearestMode::RoundPreferFloor), [1.0, 2.0]);
    assert_eq!(op(2, HalfPixel, NearestMode::Floor), [1.0, 8.0]);
}

#[test]
fn crop_and_extrapolate() {
    let op = Resize { roi: vec![0.25, 1.5], extrapolation: 10.0, ..resize(4, Linear, TfCropAndResize) };
    assert_eq!(run(op.clone()), [5.0, 6.0, 10.0, 10.0]);
    assert_eq!(run(Resize { mode: Nearest, ..op }), [5.0, 8.0, 10.0, 10.0]);
}

#[test]
fn integers_are_rounded_and_saturate() {
    let x = Tensor::from_i128(DType::U8, vec![2, 2], [0, 255, 0, 255]);
    let op =
        Resize { shape: vec![Dim::Const(2), Dim::Const(4)], scales: vec![1.0, 2.0], ..resize(4, Cubic, HalfPixel) };
    let out = op.infer(In(&[Some(&x.ty())])).unwrap();
    let y = op.eval(In(&[Some(&x)]), &out).unwrap().remove(0);
    assert_eq!(y.to_i64()[..4], [0, 58, 197, 255]);
}

#[test]
fn constraints() {
    let code = |op: Resize| op.infer(In(&[Some(&TensorType::new(DType::Bool, [5i64]))])).unwrap_err().code;
    let op = resize(8, Nearest, HalfPixel);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(code(Resize { scales: vec![scale], ..op.clone() }), "resize.c1");
    }
    assert_eq!(code(Resize { shape: vec![], ..op.clone() }), "resize.c1");
    assert_eq!(code(Resize { roi: vec![0.0, 1.0], ..op.clone() }), "resize.c2");
    assert_eq!(code(Resize { mode: Linear, ..op.clone() }), "resize.c3");
    assert_eq!(code(Resize { antialias: true, ..op.clone() }), "resize.c3");
    let empty = TensorType::new(DType::F32, [0i64]);
    assert_eq!(op.infer(In(&[Some(&empty)])).unwrap_err().code, "resize.c4");
    let tiny = Resize { scales: vec![f32::MIN_POSITIVE], ..op.clone() };
    assert_eq!(run(tiny.clone())[7], 3.0);
    let x = TensorType::new(DType::F32, [5i64]);
    let wide = Resize { antialias: true, mode: Linear, ..tiny };
    assert_eq!(wide.infer(In(&[Some(&x)])).unwrap_err().code, "resize.c5");
}
