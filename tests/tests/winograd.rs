//! Convolutions by Winograd's algorithm against the evaluator and against direct convolution: odd maps, uneven padding, parts of
//! blocks, epilogues; any number of threads gives the same bits. That the leaves keep inside their buffers is tested between guard
//! pages, in `codegen/tests/x86/winograd.rs`.

use lehr::{CompileOptions, Numerics, Runner};
use lehr_codegen::layout::{Role, decide};
use lehr_codegen::x86::Isa;
use lehr_ir::eval::evaluate;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Op, TensorType};
use lehr_tests::forced::by_winograd;

/// The largest error that is allowed, of the largest output.
const TOLERANCE: f64 = 5e-6;

struct Net {
    g: Graph,
    seed: u64,
}

impl Net {
    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.g.add1(op, inputs, vec![]).unwrap_or_else(|d| panic!("{d}"))
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    fn conv(&mut self, x: ValueId, [outputs, inputs]: [usize; 2], c: Under) -> ValueId {
        let (w, b) = (self.weights(&[outputs, inputs / c.groups, c.kernel, c.kernel]), self.weights(&[outputs]));
        let (strides, groups) = (vec![c.stride; 2], c.groups);
        let op = Conv { strides, pads: c.pads.to_vec(), dilations: vec![1, 1], groups };
        self.add(op, &[x, w, b])
    }
}

/// The convolution under test.
#[derive(Clone, Copy, Debug)]
struct Under {
    kernel: usize,
    stride: usize,
    groups: usize,
    pads: [usize; 4],
}

const POINTWISE: Under = Under { kernel: 1, stride: 1, groups: 1, pads: [0; 4] };
const THREE: Under = Under { kernel: 3, pads: [1; 4], ..POINTWISE };

#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    Relu,
    /// Added to a value of the same shape.
    Residual,
    /// A long program, a number per channel.
    Gelu,
}

/// A 1x1 convolution makes blocks, the other one is under test.
fn check(x: [usize; 4], outputs: usize, under: Under, after: After) {
    let what = format!("{x:?} to {outputs}, {under:?}, {after:?}");
    let mut n = Net { g: Graph::new("net"), seed: x.iter().sum::<usize>() as u64 };
    let input = n.g.add_input("x", TensorType::new(DType::F32, x.iter().map(|&n| n as i64)));
    let blocks = n.conv(input, [x[1], x[1]], POINTWISE);
    let y = n.conv(blocks, [outputs, x[1]], under);
    let y = match after {
        After::Nothing => y,
        After::Relu => n.add(Unary { f: UnaryFn::Relu }, &[y]),
        After::Residual => {
            let shape = n.g.ty(y).const_shape().unwrap();
            let other = n.conv(blocks, [outputs, x[1]], POINTWISE);
            let other = if n.g.ty(other).const_shape().unwrap() == shape { other } else { y };
            let sum = n.add(Binary { f: BinaryFn::Add }, &[y, other]);
            n.add(Unary { f: UnaryFn::Relu }, &[sum])
        }
        After::Gelu => {
            let slope = n.weights(&[outputs, 1, 1]);
            let y = n.add(Binary { f: BinaryFn::Mul }, &[y, slope]);
            n.add(Unary { f: UnaryFn::Gelu }, &[y])
        }
    };
    n.g.add_output("y", y);
    let inputs = [seeded(DType::F32, x.to_vec(), 3)];
    let want = evaluate(&n.g, &inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{what}: {e}"))[0].to_f64();
    let largest = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (cpu, _) in [("x86-64-v3", Isa::Avx2), ("x86-64-v4", Isa::Avx512)].iter().filter(|c| c.1.on_this_cpu()) {
        let options = by_winograd(&n.g, CompileOptions { cpu: cpu.to_string(), ..CompileOptions::default() });
        let (optimized, _) = lehr::optimize(n.g.clone(), options.level).unwrap();
        let layouts = decide(&optimized, &options.lowering());
        let is_chosen = optimized.ids().any(|id| matches!(layouts.role(id), Role::Winograd(_)));
        assert!(is_chosen, "{what}: {}", layouts.describe(&optimized));
        let strict = CompileOptions { numerics: Numerics::Strict, ..options.clone() };
        let layouts = decide(&optimized, &strict.lowering());
        assert!(!layouts.describe(&optimized).contains("Winograd"), "{what}");
        let run = |threads| {
            lehr_tests::compare::dirty_memory();
            let mut runner = Runner::jit(n.g.clone(), &options, threads).unwrap_or_else(|e| panic!("{what}: {e}"));
            let first = runner.run(&inputs).unwrap().remove(0);
            assert_eq!(first.bytes(), runner.run(&inputs).unwrap()[0].bytes(), "{what}, {cpu}: a second run");
            first
        };
        let one = run(1);
        // Few threads, whose shares of the channels do not come out even, and more than there are shares.
        for threads in [2, 3, 7] {
            assert_eq!(one.bytes(), run(threads).bytes(), "{what}, {cpu}: {threads} threads");
        }
        let errors = one.to_f64();
        let error =
            errors.iter().zip(&want).fold(0.0f64, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
        assert!(error <= TOLERANCE * largest, "{what}, {cpu}: error {} of the largest output", error / largest);
    }
}

/// Three groups of output channels are no even share for two threads: halves of the image are.
#[test]
fn threads_share_out_halves_of_the_image() {
    let mut n = Net { g: Graph::new("net"), seed: 1 };
    let input = n.g.add_input("x", TensorType::new(DType::F32, [1, 128, 14, 14]));
    let blocks = n.conv(input, [128, 128], POINTWISE);
    let y = n.conv(blocks, [144, 128], THREE);
    n.g.add_output("y", y);
    let options = by_winograd(&n.g, CompileOptions { cpu: "x86-64-v4".into(), ..CompileOptions::default() });
    let program = lehr::lower(n.g, &options).unwrap_or_else(|e| panic!("{e}"));
    let merged: Vec<i64> = program.kernels.iter().filter_map(|k| Some(k.merged?.of)).collect();
    // Nine blocks in three groups, each in two halves; the other convolution's chunks of a group are four.
    assert_eq!(merged, [4, 6]);
}

#[test]
fn maps_of_every_remainder() {
    for size in 7..=14 {
        check([1, 32, size, 21 - size], 64, THREE, After::Relu);
    }
    check([1, 32, 29, 31], 32, THREE, After::Nothing);
    check([1, 32, 60, 33], 48, THREE, After::Residual);
}

#[test]
fn padding_of_every_kind() {
    for pads in [[0; 4], [1, 0, 0, 1], [0, 1, 1, 0], [2, 1, 0, 3]] {
        check([1, 32, 15, 14], 32, Under { pads, ..THREE }, After::Relu);
    }
}

#[test]
fn two_images_and_what_follows() {
    check([2, 32, 14, 14], 64, THREE, After::Nothing);
    check([2, 48, 13, 14], 80, THREE, After::Residual);
    check([2, 32, 33, 30], 32, THREE, After::Residual);
    check([3, 32, 11, 30], 48, THREE, After::Gelu);
}

#[test]
fn parts_of_blocks() {
    check([1, 44, 14, 14], 52, THREE, After::Residual);
    check([2, 37, 17, 19], 41, THREE, After::Relu);
}

#[test]
fn many_channels() {
    check([1, 512, 14, 14], 128, THREE, After::Relu);
    check([1, 192, 28, 28], 176, THREE, After::Residual);
}

#[test]
fn kernels_of_other_sizes() {
    for size in [14, 15, 26] {
        let five = Under { kernel: 5, pads: [2; 4], ..POINTWISE };
        check([1, 48, size, size + 1], 64, five, After::Relu);
        check([2, 32, size, 13], 41, Under { pads: [0, 1, 2, 3], ..five }, After::Gelu);
        check([1, 64, size, size], 64, Under { kernel: 4, pads: [1, 1, 2, 2], ..POINTWISE }, After::Relu);
    }
}

#[test]
fn groups_of_whole_blocks() {
    let two = Under { groups: 2, ..THREE };
    check([1, 64, 13, 13], 96, two, After::Relu);
    check([2, 128, 27, 14], 64, two, After::Residual);
    check([1, 96, 26, 26], 128, Under { kernel: 5, pads: [2; 4], ..two }, After::Relu);
}

#[test]
fn three_taps_with_stride_two() {
    let three = Under { stride: 2, ..THREE };
    for size in [13, 14, 15, 16, 17] {
        check([1, 32, size, 31 - size], 64, three, After::Relu);
    }
    check([2, 64, 28, 29], 41, Under { pads: [0, 1, 3, 2], ..three }, After::Gelu);
    check([1, 96, 56, 35], 128, Under { pads: [0, 0, 1, 1], ..three }, After::Residual);
    check([1, 64, 27, 27], 64, Under { groups: 2, ..three }, After::Relu);
    check([1, 256, 28, 28], 96, three, After::Residual);
}

#[test]
fn larger_kernels_with_stride_two() {
    for size in [28, 29, 54] {
        let five = Under { kernel: 5, stride: 2, pads: [2; 4], ..POINTWISE };
        check([1, 48, size, size + 1], 64, five, After::Relu);
        check([2, 64, size, 35], 41, Under { pads: [0, 1, 3, 2], ..five }, After::Gelu);
        check([1, 64, size, size], 64, Under { kernel: 6, groups: 2, ..five }, After::Relu);
    }
    for kernel in 7..=10 {
        check([1, 32, 39, 36], 32, Under { kernel, stride: 2, pads: [3; 4], ..POINTWISE }, After::Relu);
    }
}
