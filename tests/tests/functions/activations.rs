//! Activations against closed forms.

use lehr_frontends::layers::{Layer, activation};
use lehr_ir::ops::{Conv, Identity, LogSoftmax, Softmax, UnaryFn};
use lehr_ir::{ConstValue, DType, Diag, Graph, Tensor, ValueId};
use lehr_tests::plain::{FLOATS, noise, numbers};
use lehr_tests::sheet::{Sheet, epsilon};

type Make = fn(&mut Layer, ValueId) -> Result<ValueId, Diag>;
type Form = fn(f64) -> f64;

/// name, composition, closed form, units in the last place of the result, and of the argument, that it may be away
const FUNCTIONS: [(&str, Make, Form, f64, f64); 24] = [
    ("linear", |l, x| l.op(Identity {}, &[x]), |x| x, 0.0, 0.0),
    ("relu", |l, x| l.unary(UnaryFn::Relu, x), |x| if x > 0.0 { x } else { 0.0 }, 0.0, 0.0),
    ("relu6", activation::relu6, |x| x.clamp(0.0, 6.0), 0.0, 0.0),
    ("leaky relu", |l, x| l.unary(UnaryFn::LeakyRelu { alpha: 0.25 }, x), |x| x.max(0.0) + 0.25 * x.min(0.0), 1.0, 0.0),
    ("sigmoid", |l, x| l.unary(UnaryFn::Sigmoid, x), sigmoid, 8.0, 0.0),
    ("tanh", |l, x| l.unary(UnaryFn::Tanh, x), tanh, 8.0, 0.0),
    ("softplus", |l, x| activation::softplus(l, x, 1.0), |x| softplus(x, 1.0), 8.0, 0.0),
    ("softplus 1/2", |l, x| activation::softplus(l, x, 0.5), |x| softplus(x, 0.5), 8.0, 0.0),
    ("softplus 2", |l, x| activation::softplus(l, x, 2.0), |x| softplus(x, 2.0), 8.0, 0.0),
    // The rounding of beta*x is one of e^(beta*x): so many units as the exponent is large.
    ("softplus 10", |l, x| activation::softplus(l, x, 10.0), |x| softplus(x, 10.0), 128.0, 0.0),
    ("softplus 1024", |l, x| activation::softplus(l, x, 1024.0), |x| softplus(x, 1024.0), 8.0, 0.0),
    ("log sigmoid", activation::log_sigmoid, log_sigmoid, 8.0, 0.0),
    ("elu", |l, x| l.unary(UnaryFn::Elu { alpha: 1.0 }, x), |x| elu(x, 1.0), 8.0, 0.0),
    ("elu 1/2", |l, x| l.unary(UnaryFn::Elu { alpha: 0.5 }, x), |x| elu(x, 0.5), 8.0, 0.0),
    ("celu", |l, x| l.unary(UnaryFn::Celu { alpha: 1.0 }, x), |x| elu(x, 1.0), 8.0, 0.0),
    ("celu 4", |l, x| l.unary(UnaryFn::Celu { alpha: 4.0 }, x), |x| 4.0 * elu(x / 4.0, 1.0), 8.0, 0.0),
    ("selu", |l, x| l.unary(SELU, x), selu, 8.0, 0.0),
    // 1 + erf and 1 + tanh lose what is below the last place of 1.
    ("gelu", |l, x| l.unary(UnaryFn::Gelu, x), |x| x * normal_cdf(x), 8.0, 2.0),
    ("gelu tanh", |l, x| l.unary(UnaryFn::GeluTanh, x), gelu_tanh, 8.0, 2.0),
    ("sine", |l, x| activation::sine(l, x, 1.0), f64::sin, 4.0, 0.0),
    ("log1p of x^2", log1p_of_square, |x| (x * x).ln_1p(), 8.0, 0.0),
    ("swish", |l, x| l.unary(UnaryFn::Swish { alpha: 1.0 }, x), |x| x * sigmoid(x), 8.0, 0.0),
    ("softsign", |l, x| l.unary(UnaryFn::Softsign, x), |x| x / (1.0 + x.abs()), 4.0, 0.0),
    ("mish", |l, x| l.unary(UnaryFn::Mish, x), |x| x * tanh(softplus(x, 1.0)), 16.0, 0.0),
];

const SELU: UnaryFn = UnaryFn::Selu { alpha: 1.673_263_2, gamma: 1.050_701 };

fn log1p_of_square(l: &mut Layer, x: ValueId) -> Result<ValueId, Diag> {
    let square = l.binary(lehr_ir::ops::BinaryFn::Mul, x, x)?;
    l.unary(UnaryFn::Log1p, square)
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn tanh(x: f64) -> f64 {
    let a = x.abs();
    -(-2.0 * a).exp_m1() / (1.0 + (-2.0 * a).exp()) * x.signum()
}

fn softplus(x: f64, beta: f64) -> f64 {
    let t = beta * x;
    if t > 0.0 { x + (-t).exp().ln_1p() / beta } else { t.exp().ln_1p() / beta }
}

fn log_sigmoid(x: f64) -> f64 {
    if x > 0.0 { -(-x).exp().ln_1p() } else { x - x.exp().ln_1p() }
}

fn elu(x: f64, alpha: f64) -> f64 {
    if x > 0.0 { x } else { alpha * x.exp_m1() }
}

fn selu(x: f64) -> f64 {
    f64::from(1.050_701f32) * elu(x, f64::from(1.673_263_2f32))
}

fn gelu_tanh(x: f64) -> f64 {
    let t = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    x * sigmoid(2.0 * t)
}

/// The normal distribution by Simpson's rule over its density, which needs no erf: from |x| outwards, 0.0005 by 0.0005.
fn normal_cdf(x: f64) -> f64 {
    let (a, n) = (x.abs(), 20_000);
    let h = 10.0 / n as f64;
    let density = |i: usize| (-(a + h * i as f64).powi(2) / 2.0).exp();
    let weight = |i: usize| if i == 0 || i == n { 1.0 } else { [2.0, 4.0][i % 2] };
    // The small ones first, which keeps the rounding of the sum small.
    let tail: f64 = (0..=n).rev().map(|i| weight(i) * density(i)).sum::<f64>() * h / 3.0;
    let tail = tail / (2.0 * std::f64::consts::PI).sqrt();
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// What may be lost below the smallest normal number, or (times an argument) below the reciprocal of the largest.
fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 2048.0 * f64::MIN_POSITIVE,
        DType::F16 => 2f64.powi(-14),
        _ => 256.0 * f64::from(f32::MIN_POSITIVE),
    }
}

fn allowed(dtype: DType, units: f64, of_argument: f64, xs: &[f64]) -> impl Fn(usize, f64) -> f64 {
    let (eps, least) = (epsilon(dtype), smallest(dtype));
    move |i, want: f64| eps * (units * want.abs() + of_argument * xs[i].abs()) + least
}

#[test]
fn elementwise_functions_are_their_closed_forms() {
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        let mut sheet = Sheet::new(dtype.name());
        let x = numbers(dtype);
        let xs = x.to_f64();
        let v = sheet.input("x", x);
        for (name, make, form, units, of_argument) in FUNCTIONS {
            // f16 ends at 65504.
            if dtype == DType::F16 && name == "log1p of x^2" {
                continue;
            }
            let y = make(&mut Layer::new(&mut sheet.g, name), v);
            sheet.expect(name, y, xs.iter().map(|&x| form(x)).collect(), allowed(dtype, units, of_argument, &xs));
        }
        sheet.check();
    }
}

/// At -O2 the functions run in the convolution's leaf, by its own vector forms.
#[test]
fn so_they_are_behind_a_convolution() {
    let mut sheet = Sheet::new("behind a convolution");
    let x = numbers(DType::F32).reshaped(vec![1, 16, 4, 4]).unwrap();
    let xs = x.to_f64();
    let v = sheet.input("x", x);
    for (name, make, form, units, of_argument) in FUNCTIONS {
        let y = unchanged(&mut sheet.g, v, 16);
        let y = make(&mut Layer::new(&mut sheet.g, name), y);
        let want = xs.iter().map(|&x| form(x)).collect();
        sheet.expect(name, y, want, allowed(DType::F32, units, of_argument, &xs));
    }
    sheet.check();
}

/// A 1x1 convolution by the identity: sums of zeros and one number, which are exact.
fn unchanged(g: &mut Graph, x: ValueId, channels: usize) -> ValueId {
    let elements = (0..channels * channels).map(|i| f64::from(u8::from(i % (channels + 1) == 0)));
    let tensor = Tensor::from_f64(DType::F32, vec![channels, channels, 1, 1], elements);
    let w = g.add_const(ConstValue::Dense { tensor, name: None });
    let op = Conv { strides: vec![1; 2], pads: vec![0; 4], dilations: vec![1; 2], groups: 1 };
    g.add1(op, &[x, w], vec![]).unwrap()
}

#[test]
fn prelu_has_a_slope_per_channel_or_one() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new("prelu");
        let x = noise(dtype, &[2, 3, 4, 5], 1e4, 1);
        let xs = x.to_f64();
        let slopes = [0.25, -1.5, 3.0];
        let v = sheet.input("x", x);
        for (name, slopes) in [("per channel", &slopes[..]), ("one", &slopes[..1])] {
            let s = sheet.input(name, Tensor::from_f64(dtype, vec![slopes.len()], slopes.iter().copied()));
            let y = activation::prelu(&mut Layer::new(&mut sheet.g, "prelu"), v, s);
            let slope = |i: usize| slopes[i / 20 % 3 % slopes.len()];
            let want = xs.iter().enumerate().map(|(i, x)| x.max(0.0) + slope(i) * x.min(0.0)).collect();
            sheet.expect(name, y, want, |_, want| epsilon(dtype) * want.abs());
        }
        sheet.check();
    }
}

/// The argument is rounded to f32 before the sine is taken, as torch does.
#[test]
fn a_sine_layer_multiplies_first() {
    let mut sheet = Sheet::new("sine");
    let x = noise(DType::F32, &[100], 10.0, 2);
    let want = x.to_f32().iter().map(|x| f64::from(30.0 * x).sin()).collect();
    let v = sheet.input("x", x);
    let y = activation::sine(&mut Layer::new(&mut sheet.g, "sine"), v, 30.0);
    sheet.expect("30", y, want, |_, want| 2.0 * epsilon(DType::F32) * want.abs() + 1e-12);
    sheet.check();
}

#[test]
fn distributions_along_an_axis() {
    for dtype in FLOATS {
        for (shape, axis) in [([3, 17, 5], 1), ([4, 6, 32], 2), ([7, 2, 3], 0)] {
            for scale in [1.0, 30.0, 1e4] {
                let mut sheet = Sheet::new(&format!("{dtype}{shape:?} along {axis}, {scale}"));
                let x = noise(dtype, &shape, scale, 3);
                let xs = x.to_f64();
                let step: usize = shape[axis + 1..].iter().product();
                let n = shape[axis];
                let line = move |i: usize| (0..n).map(move |k| i - i / step % n * step + k * step);
                // ln sum e^(sign*x) of the line of element i, by its largest term.
                let log_sum = |i: usize, sign: f64| {
                    let largest = line(i).map(|j| sign * xs[j]).fold(f64::NEG_INFINITY, f64::max);
                    largest + line(i).map(|j| (sign * xs[j] - largest).exp()).sum::<f64>().ln()
                };
                let logs = |sign: f64| -> Vec<f64> { (0..xs.len()).map(|i| sign * xs[i] - log_sum(i, sign)).collect() };
                let v = sheet.input("x", x);
                let eps = epsilon(dtype);
                let least = smallest(dtype);
                let mut l = Layer::new(&mut sheet.g, "distribution");
                let softmax = l.op(Softmax { axis }, &[v]);
                let softmin = activation::softmin(&mut l, v, axis);
                let log_softmax = l.op(LogSoftmax { axis }, &[v]);
                // The rounding of x - max is as large as units of either, and is multiplied into e^(x - max).
                let p_error = |_: usize, want: f64| eps * (16.0 + 4.0 * scale) * want + least;
                sheet.expect("softmax", softmax, logs(1.0).iter().map(|l| l.exp()).collect(), p_error);
                sheet.expect("softmin", softmin, logs(-1.0).iter().map(|l| l.exp()).collect(), p_error);
                let error = |i: usize, want: f64| eps * (4.0 * want.abs() + 2.0 * xs[i].abs() + 4.0);
                sheet.expect("log softmax", log_softmax, logs(1.0), error);
                sheet.check();
            }
        }
    }
}
