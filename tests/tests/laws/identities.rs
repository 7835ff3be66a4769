//! Identities between activations and losses, and of residual blocks.

use super::cases;
use lehr_frontends::layers::loss::{self, BinaryWeights, Classes, Reduction};
use lehr_frontends::layers::{Layer, Result, activation};
use lehr_ir::ops::{BatchNorm, BinaryFn, Conv, LogSoftmax, ReduceFn, Softmax, UnaryFn};
use lehr_ir::{DType, Graph, Tensor, ValueId};
use lehr_tests::plain::{distance, noise};
use lehr_tests::sheet::compiled;
use proptest::prelude::*;

/// Runs `f` of x, compiled.
fn run(x: &Tensor, f: impl Fn(&mut Layer, ValueId) -> Result<Vec<ValueId>>) -> Vec<Vec<f64>> {
    let mut g = Graph::new("law");
    let v = g.add_input("x", x.ty());
    let ys = f(&mut Layer::new(&mut g, "law"), v).unwrap_or_else(|d| panic!("{d}"));
    ys.iter().enumerate().for_each(|(i, &y)| g.add_output(&format!("y{i}"), y));
    compiled(&g, std::slice::from_ref(x)).iter().map(Tensor::to_f64).collect()
}

/// Whether two results agree to so many units of their own or of 1.
fn agree(a: &[f64], b: &[f64], units: f64) -> std::result::Result<(), TestCaseError> {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let allowed = units * f64::from(f32::EPSILON) * a.abs().max(1.0);
        prop_assert!((a - b).abs() <= allowed, "element {i}: {a:e} and {b:e}");
    }
    Ok(())
}

/// Multiples of 1/64 up to `scale`: sums with whole numbers are exact in f32.
fn coarse(shape: &[usize], scale: f64, seed: u64) -> Tensor {
    let fine = noise(DType::F64, shape, scale, seed).to_f64();
    Tensor::from_f64(DType::F32, shape.to_vec(), fine.into_iter().map(|v| (v * 64.0).round() / 64.0))
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn distributions_sum_to_one_and_ignore_a_constant(
        [n, c, d] in [1usize..5, 1..40, 1..5], scale in prop::sample::select(vec![1.0, 30.0, 1e3]), by in -10_000i32..10_000, seed: u64
    ) {
        let x = coarse(&[n, c, d], scale, seed);
        let ys = run(&x, |l, x| {
            let moved = l.with(BinaryFn::Add, x, f64::from(by))?;
            let mut ys = vec![];
            for x in [x, moved] {
                let softmax = l.op(Softmax { axis: 1 }, &[x])?;
                let softmin = activation::softmin(l, x, 1)?;
                let sums = [l.reduce(ReduceFn::Sum, softmax, vec![1])?, l.reduce(ReduceFn::Sum, softmin, vec![1])?];
                let minus = l.unary(UnaryFn::Neg, x)?;
                ys.extend([sums[0], sums[1], softmax, softmin, l.op(LogSoftmax { axis: 1 }, &[x])?]);
                ys.push(l.op(Softmax { axis: 1 }, &[minus])?);
            }
            Ok(ys)
        });
        let (plain, moved) = ys.split_at(6);
        for sum in plain[0].iter().chain(&plain[1]).chain(&moved[0]).chain(&moved[1]) {
            prop_assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
        for (a, b) in plain[2..5].iter().zip(&moved[2..5]) {
            agree(a, b, 2.0)?;
        }
        prop_assert_eq!(&plain[3], &plain[5], "softmin is softmax of the negated");
    }

    #[test]
    fn log_softmax_is_the_logarithm_of_softmax(c in 1usize..50, scale in 0.1f64..20.0, seed: u64) {
        let x = noise(DType::F32, &[7, c], scale, seed);
        let ys = run(&x, |l, x| {
            let softmax = l.op(Softmax { axis: 1 }, &[x])?;
            let log_sum = l.op(lehr_ir::ops::Reduce { f: ReduceFn::LogSumExp, axes: vec![1], keepdims: true }, &[x])?;
            let ys = [l.op(LogSoftmax { axis: 1 }, &[x])?, l.unary(UnaryFn::Log, softmax)?];
            Ok(vec![ys[0], ys[1], l.binary(BinaryFn::Sub, x, log_sum)?])
        });
        agree(&ys[0], &ys[1], 4.0)?;
        // x is rounded against x - ln sum, which may be smaller.
        agree(&ys[0], &ys[2], 4.0 * scale.max(1.0))?;
    }

    #[test]
    fn elu_is_celu_at_one(scale in prop::sample::select(vec![1.0, 100.0, 1e4]), seed: u64) {
        let ys = run(&noise(DType::F32, &[333], scale, seed), |l, x| {
            Ok(vec![l.unary(UnaryFn::Elu { alpha: 1.0 }, x)?, l.unary(UnaryFn::Celu { alpha: 1.0 }, x)?])
        });
        prop_assert_eq!(&ys[0], &ys[1]);
    }

    /// `0 <= softplus(x) - relu(x) <= ln(2)/beta`: the larger beta, the nearer, uniformly in x.
    #[test]
    fn softplus_tends_to_relu(log_beta in -3i32..14, scale in prop::sample::select(vec![1.0, 100.0, 1e4]), seed: u64) {
        let beta = 2f64.powi(log_beta);
        let x = noise(DType::F32, &[257], scale, seed);
        let ys = run(&x, |l, x| {
            let zero = l.with(BinaryFn::Mul, x, 0.0)?;
            let curves = [activation::softplus(l, x, beta)?, activation::softplus(l, x, 2.0 * beta)?];
            Ok(vec![l.unary(UnaryFn::Relu, x)?, curves[0], curves[1], activation::softplus(l, zero, beta)?])
        });
        let rounding = |v: f64| 4.0 * f64::from(f32::EPSILON) * (v.abs() + 1.0 / beta);
        for ((relu, near), nearer) in ys[0].iter().zip(&ys[1]).zip(&ys[2]) {
            let excess = near - relu;
            prop_assert!(excess >= -rounding(*relu) && excess <= 2f64.ln() / beta + rounding(*relu), "{near} {relu}");
            prop_assert!(nearer <= &(near + rounding(*relu)), "beta {beta}: {near}, then {nearer}");
        }
        prop_assert!((ys[3][0] - 2f64.ln() / beta).abs() <= rounding(0.0), "the bound is met at 0: {}", ys[3][0]);
    }

    #[test]
    fn activations_in_terms_of_one_another(scale in prop::sample::select(vec![1.0, 10.0]), seed: u64) {
        let ys = run(&noise(DType::F32, &[320], scale, seed), |l, x| {
            let (minus, twice) = (l.unary(UnaryFn::Neg, x)?, l.with(BinaryFn::Mul, x, 2.0)?);
            let mut pairs = vec![];
            // sigmoid(-x) = 1 - sigmoid(x)
            let sigmoid = l.unary(UnaryFn::Sigmoid, x)?;
            let one = l.number(1.0, x);
            pairs.extend([l.unary(UnaryFn::Sigmoid, minus)?, l.binary(BinaryFn::Sub, one, sigmoid)?]);
            // tanh(x) = 2 sigmoid(2x) - 1
            let curve = l.unary(UnaryFn::Sigmoid, twice)?;
            let curve = l.with(BinaryFn::Mul, curve, 2.0)?;
            pairs.extend([l.unary(UnaryFn::Tanh, x)?, l.with(BinaryFn::Sub, curve, 1.0)?]);
            // log_sigmoid(x) = ln(sigmoid(x))
            pairs.extend([activation::log_sigmoid(l, x)?, l.unary(UnaryFn::Log, sigmoid)?]);
            // gelu(x) - gelu(-x) = x
            let (right, left) = (l.unary(UnaryFn::Gelu, x)?, l.unary(UnaryFn::Gelu, minus)?);
            pairs.extend([x, l.binary(BinaryFn::Sub, right, left)?]);
            // softplus(x) - softplus(-x) = x
            let (right, left) = (activation::softplus(l, x, 4.0)?, activation::softplus(l, minus, 4.0)?);
            pairs.extend([x, l.binary(BinaryFn::Sub, right, left)?]);
            // relu6(x) = relu(x) - relu(x - 6)
            let beyond = l.with(BinaryFn::Sub, x, 6.0)?;
            let (relu, beyond) = (l.unary(UnaryFn::Relu, x)?, l.unary(UnaryFn::Relu, beyond)?);
            pairs.extend([activation::relu6(l, x)?, l.binary(BinaryFn::Sub, relu, beyond)?]);
            Ok(pairs)
        });
        for pair in ys.chunks(2) {
            // A result of 10 may be the difference of numbers up to 20.
            agree(&pair[0], &pair[1], 16.0)?;
        }
    }

    #[test]
    fn losses_in_terms_of_one_another([n, c] in [1usize..20, 2..20], seed: u64) {
        let x = noise(DType::F32, &[n, c], 8.0, seed);
        let labels = Tensor::i64s(&(0..n).map(|i| ((seed >> 8) as usize + 5 * i) as i64 % c as i64).collect::<Vec<_>>());
        let targets = noise(DType::F32, &[n, c], 1.0, seed ^ 1).to_f64().into_iter().map(f64::abs);
        let targets = Tensor::from_f64(DType::F32, vec![n, c], targets);
        for reduction in [Reduction::Sum, Reduction::Mean] {
            let ys = run(&x, |l, x| {
                let (labels, targets) = (l.constant(labels.clone()), l.constant(targets.clone()));
                let classes = Classes::default();
                let log_p = l.op(LogSoftmax { axis: 1 }, &[x])?;
                let p = l.unary(UnaryFn::Sigmoid, x)?;
                Ok(vec![
                    loss::cross_entropy(l, x, labels, &classes, reduction)?,
                    loss::negative_log_likelihood(l, log_p, labels, &classes, reduction)?,
                    loss::binary_cross_entropy_with_logits(l, x, targets, BinaryWeights::default(), reduction)?,
                    loss::binary_cross_entropy(l, p, targets, None, reduction)?,
                ])
            });
            for pair in ys.chunks(2) {
                // Probabilities near 1 hold their distance from it to 2^-24 only: a thousandth at logits of 8.
                let error = distance(&pair[0], &pair[1]);
                prop_assert!(error < 2e-4, "{reduction:?}: {pair:?}");
            }
        }
    }

    /// `x + f(x) = x` where the last weights of f are zero, to the bit, whatever comes before them.
    #[test]
    fn residual_blocks_of_zero_weights_are_the_identity(c in 1usize..40, [h, w] in [1usize..12, 1..12], depth in 1usize..4, seed: u64) {
        let x = noise(DType::F32, &[2, c, h, w], 1e4, seed);
        let ys = run(&x, |l, x| {
            let op = |pad: usize| Conv { strides: vec![1; 2], pads: vec![pad; 4], dilations: vec![1; 2], groups: 1 };
            // A pre-activation block, and one with an activation behind the sum, which keeps what is not negative.
            let (mut y, mut positive) = (x, l.unary(UnaryFn::Relu, x)?);
            let kept = positive;
            for block in 0..depth {
                let first = l.constant(noise(DType::F32, &[c, c, 3, 3], 1.0, seed ^ block as u64));
                let zeros = l.constant(Tensor::from_f64(DType::F32, vec![c, c, 3, 3], vec![0.0; c * c * 9]));
                let ones = l.constant(Tensor::from_f64(DType::F32, vec![c], vec![1.0; c]));
                for (v, last) in [(&mut y, None), (&mut positive, Some(UnaryFn::Relu))] {
                    let f = l.op(op(1), &[*v, first])?;
                    let f = l.op(BatchNorm { eps: 1e-5 }, &[f, ones, ones, ones, ones])?;
                    let f = l.unary(UnaryFn::Relu, f)?;
                    let f = l.op(op(1), &[f, zeros])?;
                    *v = l.binary(BinaryFn::Add, *v, f)?;
                    *v = last.map_or(Ok(*v), |f| l.unary(f, *v))?;
                }
            }
            Ok(vec![x, y, kept, positive])
        });
        prop_assert_eq!(&ys[0], &ys[1]);
        prop_assert_eq!(&ys[2], &ys[3]);
    }
}
