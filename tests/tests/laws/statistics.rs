//! What normalisations promise of means and variances.

use super::cases;
use lehr_frontends::layers::norm::{BatchNormOptions, Statistics, batch_norm};
use lehr_frontends::layers::{Layer, dense};
use lehr_ir::ops::UnaryFn;
use lehr_ir::{DType, Graph, Tensor, ValueId};
use lehr_tests::plain::noise;
use lehr_tests::sheet::compiled;
use proptest::prelude::*;

const SELU: UnaryFn = UnaryFn::Selu { alpha: 1.673_263_2, gamma: 1.050_701 };

/// Mean and population variance.
fn statistics(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

/// Normally distributed numbers, by Box and Muller.
fn normal(shape: &[usize], deviation: f64, seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let uniform = |seed: u64| noise(DType::F64, &[n], 0.5, seed).to_f64().into_iter().map(|u| u + 0.5);
    let pairs = uniform(seed).zip(uniform(seed ^ 0x5eed));
    let values =
        pairs.map(|(u, v)| deviation * (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos());
    Tensor::from_f64(DType::F32, shape.to_vec(), values)
}

/// Layers of a dense network with weights of variance 1/n; gives every layer's activations.
fn dense_stack(f: UnaryFn, width: usize, depth: usize, x: &Tensor, seed: u64) -> Vec<Vec<f64>> {
    let mut g = Graph::new("dense");
    let mut y = g.add_input("x", x.ty());
    let mut outputs = vec![];
    let mut l = Layer::new(&mut g, "dense");
    for layer in 0..depth as u64 {
        let w = l.constant(normal(&[width, width], (1.0 / width as f64).sqrt(), seed ^ (layer + 1)));
        y = dense(&mut l, y, w, None).expect("a square matrix");
        y = l.unary(f, y).expect("floats");
        outputs.push(y);
    }
    outputs.iter().enumerate().for_each(|(i, &y)| g.add_output(&format!("layer {i}"), y));
    compiled(&g, std::slice::from_ref(x)).iter().map(Tensor::to_f64).collect()
}

/// The fixed point itself: of 200,000 normal numbers, the activations' mean and variance to four standard errors.
#[test]
fn selu_maps_a_normal_distribution_to_mean_0_and_variance_1() {
    const N: usize = 200_000;
    let x = normal(&[N], 1.0, 1);
    let mut g = Graph::new("selu");
    let v = g.add_input("x", x.ty());
    let y = Layer::new(&mut g, "selu").unary(SELU, v).unwrap();
    g.add_output("y", y);
    let (mean, var) = statistics(&compiled(&g, &[x])[0].to_f64());
    let error = 4.0 / (N as f64).sqrt();
    // The fourth moment of the activations, about 2.3, is that of their squares.
    assert!(mean.abs() < error && (var - 1.0).abs() < 1.5 * error, "mean {mean}, variance {var}");
}

/// Through eight layers the variance stays with SELU, and halves with each layer of ReLU.
#[test]
fn selu_keeps_mean_0_and_variance_1_through_a_network() {
    for seed in [10, 20, 30] {
        let x = normal(&[128, 512], 1.0, seed);
        for (layer, y) in dense_stack(SELU, 512, 8, &x, seed).iter().enumerate() {
            let (mean, var) = statistics(y);
            assert!(mean.abs() < 0.1 && (0.8..1.25).contains(&var), "layer {layer}: mean {mean}, variance {var}");
        }
        let relu = dense_stack(UnaryFn::Relu, 512, 8, &x, seed);
        let (_, var) = statistics(&relu[7]);
        assert!(var < 0.02, "ReLU's variance after eight layers: {var}");
    }
}

/// From elsewhere, activations move to the fixed point: the variance from 4 and from 1/4.
#[test]
fn selu_draws_other_variances_towards_1() {
    for deviation in [2.0, 0.5] {
        let x = normal(&[128, 512], deviation, 5);
        let start: f64 = (deviation * deviation - 1.0f64).abs();
        let layers = dense_stack(SELU, 512, 8, &x, 6);
        let distance = |y: &[f64]| (statistics(y).1 - 1.0).abs();
        assert!(
            distance(&layers[0]) < start && distance(&layers[7]) < 0.25,
            "{:?}",
            layers.iter().map(|y| statistics(y)).collect::<Vec<_>>()
        );
    }
}

fn normed(x: &Tensor, gamma: &[f64], beta: &[f64], eps: f32) -> Vec<Vec<f64>> {
    let c = gamma.len();
    let mut g = Graph::new("bn");
    let v = g.add_input("x", x.ty());
    let mut l = Layer::new(&mut g, "bn");
    let vector = |l: &mut Layer, values: &[f64]| -> ValueId {
        l.constant(Tensor::from_f64(DType::F32, vec![c], values.iter().copied()))
    };
    let (scale, bias) = (vector(&mut l, gamma), vector(&mut l, beta));
    let (zeros, ones) = (vector(&mut l, &vec![0.0; c]), vector(&mut l, &vec![1.0; c]));
    let options = BatchNormOptions { eps, ..BatchNormOptions::default() };
    let y = batch_norm(&mut l, v, (scale, bias), Statistics { mean: zeros, var: ones }, options).expect("an image");
    g.add_output("y", y.y);
    g.add_output("var", y.batch.var);
    compiled(&g, std::slice::from_ref(x)).iter().map(Tensor::to_f64).collect()
}

proptest! {
    #![proptest_config(cases(24))]

    /// Whatever comes in, mean beta and variance gamma^2 come out (times var/(var + eps)); and a scale and an offset before it are
    /// undone.
    #[test]
    fn batch_norm_gives_mean_beta_and_variance_gamma_squared(
        [n, c] in [1usize..6, 1..20], [h, w] in [4usize..9, 4..9], scale in 0.5f64..50.0, offset in -100.0f64..100.0, seed: u64
    ) {
        let eps = 1e-3f32;
        let x = noise(DType::F32, &[n, c, h, w], 1.0, seed);
        let moved = Tensor::from_f64(DType::F32, vec![n, c, h, w], x.to_f64().into_iter().map(|v| v * scale + offset));
        let gamma: Vec<f64> = (0..c).map(|i| 0.5 + i as f64 / 4.0).collect();
        let beta: Vec<f64> = (0..c).map(|i| i as f64 - 3.0).collect();
        // A uniform distribution in [-1, 1) has variance 1/3; small batches differ.
        for (x, error) in [(&x, 1e-5), (&moved, 1e-6 * (10.0 + offset.abs() / scale))] {
            let ys = normed(x, &gamma, &beta, eps);
            for i in 0..c {
                let plane = h * w;
                let channel: Vec<f64> = (0..n).flat_map(|b| &ys[0][(b * c + i) * plane..][..plane]).copied().collect();
                let (mean, var) = statistics(&channel);
                let kept = ys[1][i] / (ys[1][i] + f64::from(eps));
                prop_assert!((mean - beta[i]).abs() < error * (gamma[i] + beta[i].abs()), "mean {mean}, beta {}", beta[i]);
                prop_assert!((var - gamma[i].powi(2) * kept).abs() < 10.0 * error * gamma[i].powi(2), "variance {var}, gamma {}", gamma[i]);
            }
        }
        let (plain, moved) = (normed(&x, &gamma, &beta, 0.0), normed(&moved, &gamma, &beta, 0.0));
        for (i, (a, b)) in plain[0].iter().zip(&moved[0]).enumerate() {
            let gamma = gamma[i / (h * w) % c];
            // Rounding of the offset, in units of the deviation.
            prop_assert!((a - b).abs() < 1e-5 * gamma * (1.0 + offset.abs() / scale) + 1e-6, "element {i}: {a} and {b}");
        }
    }
}
