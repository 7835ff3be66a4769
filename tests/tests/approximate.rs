//! Approximation from end to end: a real stopwatch, compiled code, and outputs on other images than the analyses looked at.

use lehr::{CompileOptions, OptLevel, Runner, optimize_with};
use lehr_ir::graph::{Graph, Origin};
use lehr_ir::ops::{Conv, Unary, UnaryFn};
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Op, Tensor, TensorType};
use lehr_passes::Report;
use lehr_tests::compare::difference;

const CHANNELS: usize = 24;

/// 5x5 weights that are one row times one column over channels, but for noise of this relative size.
fn weights(noise: f64) -> Tensor {
    let (n, k) = (CHANNELS, 5);
    let (v, h) = (seeded(DType::F64, vec![n * k], 1).to_f64(), seeded(DType::F64, vec![n * k], 2).to_f64());
    let exact: Vec<f64> =
        (0..n * n * k * k).map(|t| h[t / (n * k * k) * k + t % k] * v[t / (k * k) % n * k + t / k % k]).collect();
    let rough = seeded(DType::F64, vec![exact.len()], 3).to_f64();
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    let scale = noise * norm(&exact) / norm(&rough);
    Tensor::from_f64(DType::F32, vec![n, n, k, k], exact.iter().zip(&rough).map(|(e, r)| e + scale * r))
}

/// 5x5 weights that are two 3x3 with so many channels in between.
fn two_kernels(middle: usize) -> Tensor {
    let n = CHANNELS;
    let first = seeded(DType::F64, vec![middle * n * 9], 5).to_f64();
    let last = seeded(DType::F64, vec![n * middle * 9], 6).to_f64();
    let mut whole = vec![0.0; n * n * 25];
    for (at, value) in whole.iter_mut().enumerate() {
        let (o, i, y, x) = (at / (n * 25), at / 25 % n, at / 5 % 5, at % 5);
        for (m, t) in (0..middle).flat_map(|m| (0..9).map(move |t| (m, t))) {
            let (ay, ax) = (y.wrapping_sub(t / 3), x.wrapping_sub(t % 3));
            if ay < 3 && ax < 3 {
                *value += last[(o * middle + m) * 9 + t] * first[(m * n + i) * 9 + ay * 3 + ax];
            }
        }
    }
    Tensor::from_f64(DType::F32, vec![n, n, 5, 5], whole)
}

/// conv that keeps the size, relu.
fn network(weights: Tensor) -> Graph {
    let padding = weights.shape()[2] / 2;
    let mut g = Graph::new("network");
    let x = g.add_input("x", TensorType::new(DType::F32, [1, CHANNELS as i64, 20, 23]));
    let w = g.add_const(ConstValue::Dense { tensor: weights, name: None });
    let b = g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: vec![CHANNELS], seed: 4 });
    let conv = Conv { strides: vec![1, 1], pads: vec![padding; 4], dilations: vec![1, 1], groups: 1 };
    let origin = Origin { name: "conv_1".into(), index: Some(0), op: "Conv".into() };
    let y = g.add(conv, &[Some(x), Some(w), Some(b)], vec![origin]).unwrap();
    let y = g.add1(Unary { f: UnaryFn::Relu }, &[y.out(0)], vec![]).unwrap();
    g.add_output("y", y);
    g
}

fn options(level: OptLevel, approximate: Option<f64>) -> CompileOptions {
    CompileOptions { level, approximate, ..CompileOptions::default() }
}

fn image() -> Tensor {
    seeded(DType::F32, vec![1, CHANNELS, 20, 23], 77)
}

/// Norm of the difference over norm.
fn relative(expected: &Tensor, got: &Tensor) -> f64 {
    let (a, b) = (expected.to_f64(), got.to_f64());
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / a.iter().map(|a| a * a).sum::<f64>()).sqrt()
}

fn convolutions(g: &Graph) -> usize {
    let of = |g: &Graph| g.ids().filter(|&id| matches!(g.node(id).op, Op::Conv(_))).count();
    of(g) + g.ids().flat_map(|id| &g.node(id).regions).map(of).sum::<usize>()
}

/// What the pass said, fired and declined.
fn said(report: &Report) -> (Vec<String>, Vec<String>) {
    let pass = report.passes.iter().find(|p| p.pass == "approximate").expect("it is in the pipeline");
    let text = |events: &[lehr_passes::Event]| {
        events.iter().map(|e| format!("{} at {}: {}", e.rule, e.node, e.detail)).collect::<Vec<_>>()
    };
    (text(&pass.fired), text(&pass.declined))
}

#[test]
fn what_is_nearly_separable_is_replaced_and_off_by_what_is_reported() {
    let noise = 0.004;
    let g = network(weights(noise));
    let expected = Runner::eval(g.clone()).run(&[image()]).unwrap().remove(0);
    for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2] {
        let options = options(level, Some(0.01));
        let (optimized, report) = optimize_with(g.clone(), &options).unwrap();
        let (fired, _) = said(&report);
        assert!(
            fired.len() == 1 && fired[0].contains("separate-conv at conv_1: columns-rows of rank 1: error 4.0e-3"),
            "{fired:?}"
        );
        assert_eq!(convolutions(&optimized), 2);
        let got = Runner::jit(g.clone(), &options, 2).unwrap().run(&[image()]).unwrap().remove(0);
        let error = relative(&expected, &got);
        // The error on weights, on another image: neither exact nor far off.
        assert!(error > noise / 3.0 && error < noise * 1.5, "{level}: {error}");
    }
}

#[test]
fn what_is_two_kernels_becomes_two_convolutions() {
    let g = network(two_kernels(8));
    let expected = Runner::eval(g.clone()).run(&[image()]).unwrap().remove(0);
    let options = options(OptLevel::O2, Some(1e-3));
    let (optimized, report) = optimize_with(g.clone(), &options).unwrap();
    let (fired, _) = said(&report);
    let words = "factorize-conv at conv_1: 5x5 as 3x3, 3x3 over 8 channels: error below 1e-6 on weights";
    assert!(fired.len() == 1 && fired[0].starts_with(words), "{fired:?}");
    assert_eq!(convolutions(&optimized), 2);
    let got = Runner::jit(g, &options, 2).unwrap().run(&[image()]).unwrap().remove(0);
    assert_eq!(difference(&expected, &got, 2e-5), None);
}

#[test]
fn exact_structure_costs_rounding_only_also_in_a_library() {
    let g = network(weights(0.0));
    let expected = Runner::eval(g.clone()).run(&[image()]).unwrap().remove(0);
    let options = options(OptLevel::O2, Some(1e-3));
    for runner in [Runner::jit(g.clone(), &options, 1), Runner::so(g.clone(), &options, 1)] {
        let got = runner.unwrap().run(&[image()]).unwrap().remove(0);
        assert_eq!(difference(&expected, &got, 1e-5), None);
    }
}

#[test]
fn what_is_not_near_enough_stays_bit_for_bit() {
    let g = network(seeded(DType::F32, vec![CHANNELS, CHANNELS, 3, 3], 5));
    let strict = options(OptLevel::O2, Some(0.01));
    let (optimized, report) = optimize_with(g.clone(), &strict).unwrap();
    let (fired, declined) = said(&report);
    assert!(fired.is_empty() && convolutions(&optimized) == 1, "{fired:?}");
    let [why] = &declined[..] else { panic!("{declined:?}") };
    for words in
        ["separate-conv at conv_1: ", "columns-rows of rank", "depthwise-pointwise of rank", "> 0.01 on the weights"]
    {
        assert!(why.contains(words), "{why}");
    }
    let run = |options: &CompileOptions| Runner::jit(g.clone(), options, 1).unwrap().run(&[image()]).unwrap().remove(0);
    assert_eq!(run(&strict).bytes(), run(&options(OptLevel::O2, None)).bytes());
}

#[test]
fn without_leave_nothing_is_approximated() {
    let (optimized, report) = optimize_with(network(weights(0.0)), &options(OptLevel::O2, None)).unwrap();
    assert_eq!(convolutions(&optimized), 1);
    assert!(report.passes.iter().all(|p| p.pass != "approximate"));
}
