//! What networks of the zoo promise: harmonic ones of rotations, the universal approximator of its width.

use super::{ROUNDING, cases};
use lehr_frontends::zoo::harmonic::{self, Harmonic};
use lehr_frontends::zoo::{Net, Spec, Weights, mlp};
use lehr_ir::{DType, Diag, Dim, Graph, Tensor};
use lehr_tests::plain::{Grid, distance, noise};
use lehr_tests::sheet::{compiled, compiled_on};
use proptest::prelude::*;

const ORDERS: &[i32] = &[0, 1, 2];
const CHANNELS: usize = 5;

/// Two harmonic convolutions with what is between them; outputs are the real and the imaginary part of each order.
fn maps(size: usize, batch: i64, seed: u64) -> Graph {
    let build = || -> Result<Graph, Diag> {
        let mut net = Net::new("maps", Weights::Seeded(seed));
        let x = harmonic::image(net.image("x", 2, size, size));
        let layer = Harmonic { channels: CHANNELS, kernel: 5, pad: 0, orders: ORDERS };
        let x = harmonic::conv(&mut net, "conv1", &x, layer)?;
        let x = harmonic::relu(&mut net, "relu1", &x)?;
        let x = harmonic::conv(&mut net, "conv2", &x, layer)?;
        let x = harmonic::batch_norm_relu(&mut net, "bn2", &x)?;
        for maps in x {
            net.output(&format!("re{}", maps.order), maps.re);
            net.output(&format!("im{}", maps.order), maps.im.expect("harmonic convolutions are complex"));
        }
        net.finish().bind(&|_| Some(Dim::Const(batch)))
    };
    build().unwrap_or_else(|d| panic!("{d}"))
}

/// A quarter turn counterclockwise of the last two axes, which are equal.
fn quarter(x: &Grid) -> Grid {
    let n = x.shape[3];
    Grid::make(x.shape, |[a, b, i, j]| x.at([a, b, j, n - 1 - i]))
}

proptest! {
    #![proptest_config(cases(16))]

    /// When the image turns by a right angle, maps of order q turn with it and are multiplied by i^q; magnitudes only turn.
    #[test]
    fn right_angles_turn_harmonic_maps_and_their_phases(size in 9usize..20, seed: u64) {
        let g = maps(size, 1, seed);
        let mut x = Grid::of(&noise(DType::F32, &[1, 2, size, size], 1.0, seed));
        let upright: Vec<Grid> = compiled(&g, &[x.tensor(DType::F32)]).iter().map(Grid::of).collect();
        let (mut re, mut im): (Vec<Grid>, Vec<Grid>) = upright.chunks(2).map(|p| (p[0].clone(), p[1].clone())).unzip();
        for turns in 1..4 {
            x = quarter(&x);
            let got = compiled(&g, &[x.tensor(DType::F32)]);
            for (k, &order) in ORDERS.iter().enumerate() {
                for _ in 0..order {
                    // Times i.
                    let minus = im[k].values.iter().map(|v| -v).collect();
                    im[k] = std::mem::replace(&mut re[k], Grid { values: minus, ..im[k].clone() });
                }
                (re[k], im[k]) = (quarter(&re[k]), quarter(&im[k]));
                prop_assert!(re[k].values.iter().any(|v| v.abs() > 1e-2), "order {order}: there is nothing to see");
                let want = [re[k].values.clone(), im[k].values.clone()].concat();
                let both = [got[2 * k].to_f64(), got[2 * k + 1].to_f64()].concat();
                let error = distance(&want, &both);
                prop_assert!(error < ROUNDING, "order {order}, {turns} quarter turns: {error:e}");
                let size = |v: &[f64]| -> Vec<f64> {
                    let (re, im) = v.split_at(v.len() / 2);
                    re.iter().zip(im).map(|(a, b)| a.hypot(*b)).collect()
                };
                let error = distance(&size(&want), &size(&both));
                prop_assert!(error < ROUNDING, "magnitudes of order {order}: {error:e}");
            }
        }
    }

    /// The largest error on [-1, 1] falls with the number of units, in compiled f32 as in theory.
    #[test]
    fn the_universal_approximators_error_falls_with_its_width(
        a in [-1.0f64..1.0, -1.0..1.0, -1.0..1.0], phase in 0.0f64..6.0
    ) {
        prop_assume!(a.iter().map(|a| a.abs()).sum::<f64>() > 0.5);
        let f = |x: f64| {
            let wave = |k: usize| a[k] * ((k + 1) as f64 * std::f64::consts::PI * x + phase * k as f64).sin();
            (0..3).map(wave).sum::<f64>()
        };
        const POINTS: usize = 401;
        let xs: Vec<f64> = (0..POINTS).map(|i| f64::from((i as f32 - 200.0) / 200.0)).collect();
        let x = Tensor::from_f64(DType::F32, vec![POINTS, 1], xs.iter().copied());
        let error = |units: usize| {
            let net = mlp::fit(f, (-1.0, 1.0), units).and_then(|fitted| fitted.net()).unwrap_or_else(|d| panic!("{d}"));
            let g = net.finish().bind(&|_| Some(Dim::Const(POINTS as i64))).unwrap_or_else(|d| panic!("{d}"));
            let ys = compiled(&g, std::slice::from_ref(&x)).remove(0).to_f64();
            xs.iter().zip(ys).map(|(&x, y)| (y - f(x)).abs()).fold(0.0, f64::max)
        };
        let errors: Vec<f64> = [3, 6, 12, 24, 48].into_iter().map(error).collect();
        prop_assert!(errors[1..].windows(2).all(|e| e[1] < e[0]), "{errors:?}");
        prop_assert!(errors[4] < errors[0] / 10.0, "{errors:?}");
    }
}

/// Blobs in the plane, x to the right and y upwards, in pixels from the centre: an image that can be turned by any angle without
/// interpolation.
struct Blobs(Vec<[f64; 4]>);

impl Blobs {
    fn new(seed: u64) -> Blobs {
        let numbers = noise(DType::F64, &[12, 4], 1.0, seed).to_f64();
        // x, y, height, width: within six pixels of the centre, none sharper than what pixels resolve.
        Blobs(numbers.chunks(4).map(|v| [6.0 * v[0], 6.0 * v[1], v[2], 2.25 + 0.75 * v[3]]).collect())
    }

    /// As pixels of one channel, turned counterclockwise.
    fn turned(&self, size: usize, angle: f64) -> Vec<f64> {
        let (sin, cos) = angle.sin_cos();
        let middle = (size - 1) as f64 / 2.0;
        let pixel = |i: usize| {
            let (x, y) = ((i % size) as f64 - middle, middle - (i / size) as f64);
            // The place that comes here.
            let (x, y) = (cos * x + sin * y, cos * y - sin * x);
            let blob = |b: &[f64; 4]| b[2] * (-((x - b[0]).powi(2) + (y - b[1]).powi(2)) / (2.0 * b[3] * b[3])).exp();
            self.0.iter().map(blob).sum()
        };
        (0..size * size).map(pixel).collect()
    }
}

/// Angles that are no right ones, in degrees.
fn odd_angles() -> impl Iterator<Item = f64> {
    (0..24).map(|k| 15.0 * f64::from(k) + 7.0)
}

/// At the centre of the image phases are as predicted, and magnitudes stay, but for what pixels do not resolve. Measured here, of the
/// largest channel: orders 0, 1 and 2 are at most 2.9, 3.4 and 11.0 % from the prediction (0.3, 0.7 and 2.5 % on average), and their
/// magnitudes 2.8, 3.3 and 7.7 % from the upright ones.
#[test]
fn any_angle_turns_phases_and_keeps_magnitudes() {
    const SIZE: usize = 17;
    const PLACES: usize = SIZE - 8;
    // By order: of the complex number, and of its magnitude.
    const LIMITS: [(f64, f64); 3] = [(0.035, 0.035), (0.045, 0.045), (0.13, 0.1)];
    for seed in 0..8 {
        let g = maps(SIZE, 1, seed);
        let blobs = [Blobs::new(seed), Blobs::new(seed ^ 99)];
        let image = |angle: f64| {
            let values: Vec<f64> = blobs.iter().flat_map(|b| b.turned(SIZE, angle.to_radians())).collect();
            Tensor::from_f64(DType::F32, vec![1, 2, SIZE, SIZE], values)
        };
        // Real and imaginary part of each channel at the centre, by order.
        let centre = |ys: &[Tensor]| -> Vec<Vec<(f64, f64)>> {
            let at = |t: &Tensor, c: usize| Grid::of(t).at([0, c, PLACES / 2, PLACES / 2]);
            ys.chunks(2).map(|p| (0..CHANNELS).map(|c| (at(&p[0], c), at(&p[1], c))).collect()).collect()
        };
        let images: Vec<Tensor> = std::iter::once(0.0).chain(odd_angles()).map(image).collect();
        let runs: Vec<&[Tensor]> = images.iter().map(std::slice::from_ref).collect();
        let outputs: Vec<_> = compiled_on(&g, &runs).iter().map(|ys| centre(ys)).collect();
        for (angle, turned) in odd_angles().zip(&outputs[1..]) {
            for (k, &order) in ORDERS.iter().enumerate() {
                let upright = &outputs[0][k];
                let largest = upright.iter().fold(0.0f64, |m, v| m.max(v.0.hypot(v.1)));
                assert!(largest > 1e-2, "seed {seed}, order {order}: there is nothing to see");
                let (sin, cos) = (f64::from(order) * angle.to_radians()).sin_cos();
                for (&(a, b), &(re, im)) in upright.iter().zip(&turned[k]) {
                    let error = (re - (a * cos - b * sin)).hypot(im - (a * sin + b * cos)) / largest;
                    let of_size = (re.hypot(im) - a.hypot(b)).abs() / largest;
                    let (limit, limit_of_size) = LIMITS[k];
                    let what = format!("seed {seed}, order {order}, {angle} degrees");
                    assert!(error < limit && of_size < limit_of_size, "{what}: {error}, magnitude {of_size}");
                }
            }
        }
    }
}

/// The logits of the whole network: right angles leave them but for rounding; other angles change them by at most 1.7 % of what another
/// image does.
#[test]
fn a_turned_image_has_the_same_logits() {
    const SIZE: usize = 28;
    let spec = Spec::parse("hnet").and_then(|spec| spec.build()).unwrap_or_else(|d| panic!("{d}"));
    let g = spec.finish().bind(&|_| Some(Dim::Const(1))).unwrap_or_else(|d| panic!("{d}"));
    for seed in 0..4 {
        let blobs = Blobs::new(seed);
        let image = |blobs: &Blobs, angle: f64| {
            Tensor::from_f64(DType::F32, vec![1, 1, SIZE, SIZE], blobs.turned(SIZE, angle.to_radians()))
        };
        let mut images = vec![image(&blobs, 0.0), image(&Blobs::new(seed ^ 77), 0.0)];
        images.extend([90.0, 180.0, 270.0].map(|a| image(&blobs, a)));
        images.extend(odd_angles().map(|a| image(&blobs, a)));
        let runs: Vec<&[Tensor]> = images.iter().map(std::slice::from_ref).collect();
        let logits: Vec<Vec<f64>> = compiled_on(&g, &runs).iter().map(|y| y[0].to_f64()).collect();
        let change = |y: &[f64]| y.iter().zip(&logits[0]).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let another = change(&logits[1]);
        for y in &logits[2..5] {
            assert!(distance(&logits[0], y) < ROUNDING, "seed {seed}: {:e}", distance(&logits[0], y));
        }
        for (angle, y) in odd_angles().zip(&logits[5..]) {
            let share = change(y) / another;
            assert!(share < 0.025, "seed {seed}, {angle} degrees: {share} of what another image changes");
        }
    }
}
