//! Convolutions, pools and LRN on blocks, and what is fused behind and before them.

use crate::net::*;
use lehr_codegen::layout::Role;
use lehr_codegen::layout::decide;
use lehr_codegen::lower::LowerOptions;
use lehr_codegen::x86::Isa;
use lehr_ir::DType;
use lehr_ir::graph::ValueId;
use lehr_ir::ops::*;

#[test]
fn stems_read_plain_inputs() {
    for (shape, outputs, c) in [
        (vec![1, 3, 23, 30], 32, window(&[7, 7]).stride(&[2, 2]).pad(&[3, 3, 3, 3])),
        (vec![2, 3, 15, 17], 24, window(&[3, 3])),
        (vec![1, 1, 9, 9], 5, window(&[5, 5]).pad(&[0, 1, 2, 3])),
        (vec![1, 3, 35, 35], 64, window(&[11, 11]).stride(&[4, 4])),
        (vec![1, 40, 6, 6], 48, window(&[1, 1])),
        (vec![2, 4, 33], 17, window(&[5]).pad(&[2, 2])),
        (vec![1, 2, 5, 6, 7], 20, window(&[3, 3, 3]).pad(&[1, 1, 1, 0, 1, 2])),
    ] {
        let mut n = Net::new();
        let x = n.input(&shape);
        let y = n.conv(x, outputs, c);
        n.check(&[y]);
    }
}

#[test]
fn convolutions_of_blocks() {
    let image = [1, 3, 14, 15];
    two_convs(&image, 32, 64, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&image, 16, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).stride(&[2, 2]));
    two_convs(&image, 20, 24, window(&[3, 2]).pad(&[2, 0, 1, 1]).dilate(&[2, 3]));
    two_convs(&image, 33, 7, window(&[1, 1]));
    two_convs(&image, 64, 128, window(&[1, 1]));
    two_convs(&image, 64, 96, window(&[1, 1]).stride(&[2, 2]));
    two_convs(&[2, 3, 9, 10], 48, 80, window(&[5, 5]).pad(&[2, 2, 2, 2]));
    two_convs(&[2, 3, 1, 1], 48, 80, window(&[1, 1]));
    two_convs(&[1, 8, 3, 3], 320, 176, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&[1, 8, 7, 7], 544, 272, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&[1, 3, 20, 20], 64, 64, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(2));
    two_convs(&[1, 3, 9, 9], 60, 96, window(&[1, 1]).groups(3));
    two_convs(&[2, 3, 9, 9], 24, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(4));
    two_convs(&[1, 3, 13, 4], 32, 96, window(&[1, 7]).pad(&[0, 3, 0, 3]));
    two_convs(&[2, 3, 37], 32, 48, window(&[3]).pad(&[1, 1]).stride(&[2]));
    two_convs(&[1, 2, 4, 5, 6], 16, 40, window(&[3, 3, 3]).pad(&[1, 1, 1, 1, 1, 1]).stride(&[1, 2, 1]));
}

#[test]
fn residual_blocks_and_epilogues() {
    for channels in [64, 24] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 12, 13]);
        let a = n.conv(x, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let a = n.unary(UnaryFn::Relu, a);
        let b = n.conv(a, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let b = n.unary(UnaryFn::HardSwish, b);
        let c = n.conv(b, channels, window(&[1, 1]));
        let sum = n.binary(BinaryFn::Add, c, a);
        let y = n.unary(UnaryFn::Relu, sum);
        // By itself: reads blocks with a border, and plain values.
        let scale = n.weights(&[channels, 1, 1]);
        let other = n.input(&[1, channels, 12, 13]);
        let z = n.binary(BinaryFn::Mul, y, scale);
        let z = n.binary(BinaryFn::Sub, z, other);
        let z = n.unary(UnaryFn::LeakyRelu { alpha: 0.1 }, z);
        n.check(&[y, z, a]);
    }
}

#[test]
fn epilogues_that_leaves_do_not_have() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 8, 8]);
    let a = n.conv(x, 32, window(&[3, 3]));
    let b = n.unary(UnaryFn::Sin, a);
    let c = n.conv(b, 32, window(&[3, 3]));
    let half = n.number(0.5);
    let d = n.binary(BinaryFn::Pow, c, half);
    let d = n.unary(UnaryFn::IsNan, d);
    let e = n.unary(UnaryFn::Softplus, c);
    n.check(&[d, e]);
}

#[test]
fn nothing_comes_out_of_slots_without_a_channel() {
    // With that bias the channels have ordinary numbers, but there is no bias in slots without a channel: what these functions are of
    // zero is infinite, NaN, or not zero.
    type Between = fn(&mut Net, ValueId) -> ValueId;
    let cases: [(&str, f64, Between); 12] = [
        ("exp(100 - a)", 100.0, |n, a| {
            let hundred = n.number(100.0);
            let b = n.binary(BinaryFn::Sub, hundred, a);
            n.unary(UnaryFn::Exp, b)
        }),
        ("sqrt(a - 10)", 20.0, |n, a| {
            let b = n.by_number(BinaryFn::Sub, a, 10.0);
            n.unary(UnaryFn::Sqrt, b)
        }),
        ("(a - 10) ^ 0.5", 20.0, |n, a| {
            let b = n.by_number(BinaryFn::Sub, a, 10.0);
            n.by_number(BinaryFn::Pow, b, 0.5)
        }),
        ("a ^ -1", 20.0, |n, a| n.by_number(BinaryFn::Pow, a, -1.0)),
        ("log a", 20.0, |n, a| n.unary(UnaryFn::Log, a)),
        ("1 / a", 20.0, |n, a| n.unary(UnaryFn::Reciprocal, a)),
        ("2 / a", 20.0, |n, a| {
            let two = n.number(2.0);
            n.binary(BinaryFn::Div, two, a)
        }),
        ("acosh a", 20.0, |n, a| n.unary(UnaryFn::Acosh, a)),
        ("a / constants of its shape", 0.0, |n, a| {
            let shape = n.shape(a);
            let w = n.weights(&shape);
            n.binary(BinaryFn::Div, a, w)
        }),
        ("a * 0 / 0 where a < 10", 20.0, |n, a| {
            let (ten, none) = (n.number(10.0), n.by_number(BinaryFn::Div, a, 0.0));
            let low = n.binary(BinaryFn::Less, a, ten);
            n.add(Where {}, &[low, none, a])
        }),
        ("sigmoid", 0.0, |n, a| n.unary(UnaryFn::Sigmoid, a)),
        ("relu(w a + b)", 0.0, |n, a| {
            let channels = n.shape(a)[1];
            let (w, b) = (n.weights(&[channels, 1, 1]), n.weights(&[channels, 1, 1]));
            let scaled = n.binary(BinaryFn::Mul, a, w);
            let shifted = n.binary(BinaryFn::Add, scaled, b);
            n.unary(UnaryFn::Relu, shifted)
        }),
    ];
    for (what, bias, f) in cases {
        // With another reader of the first convolution, what stands before the second is computed as that reads, if its kernel is one pixel.
        for (channels, kernel, read_twice) in [(12, 1, true), (24, 1, false), (24, 1, true), (12, 3, false)] {
            let mut n = Net::new();
            let x = n.input(&[1, 3, 9, 9]);
            let w = n.weights(&[channels, 3, 1, 1]);
            let b = n.filled(&[channels], bias);
            let pixel = Conv { strides: vec![1; 2], pads: vec![0; 4], dilations: vec![1; 2], groups: 1 };
            let a = n.add(pixel, &[x, w, b]);
            let between = f(&mut n, a);
            let y = n.conv(between, 20, window(&[kernel, kernel]));
            let mut outputs = vec![y];
            if read_twice {
                outputs.push(n.unary(UnaryFn::Tanh, a));
            }
            println!("{what}: {channels} channels, kernel of {kernel}, read twice: {read_twice}");
            n.check(&outputs);
        }
    }
}

#[test]
fn infinities_stay_in_their_channels() {
    // Every channel of the first convolution is -inf somewhere, and none after relu.
    for (channels, kernel) in [(12, 1), (24, 3), (32, 1)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 9, 9]);
        let zero = n.by_number(BinaryFn::Mul, x, 0.0);
        let lowest = n.unary(UnaryFn::Log, zero);
        let w = n.filled(&[channels, 3, 1, 1], 0.5);
        let pixel = Conv { strides: vec![1; 2], pads: vec![0; 4], dilations: vec![1; 2], groups: 1 };
        let a = n.add(pixel, &[lowest, w]);
        let a = n.unary(UnaryFn::Relu, a);
        let y = n.conv(a, 20, window(&[kernel, kernel]));
        let pooled = n.g.add(max_pool(&[2, 2], &[1, 1], &[0; 4], false), &[Some(a)], vec![]).unwrap().out(0);
        let z = n.conv(pooled, 20, window(&[1, 1]));
        n.check(&[y, z]);
    }
}

#[test]
fn truth_values_behind_every_anchor() {
    let mut n = Net::new();
    let x = n.input(&[1, 32, 12, 12]);
    let a = n.conv(x, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let a = n.unary(UnaryFn::Relu, a);
    let convolutions = [
        n.conv(a, 32, window(&[3, 3]).pad(&[1, 1, 1, 1])),
        n.conv(a, 20, window(&[1, 1])),
        n.conv(a, 32, window(&[3, 3]).groups(32)),
        n.conv(a, 32, window(&[3, 3]).groups(4)),
    ];
    let pool = n.g.add(max_pool(&[2, 2], &[2, 2], &[0; 4], false), &[Some(a)], vec![]).unwrap().out(0);
    let mean = n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[a]);
    let norm = n.add(Lrn { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 }, &[a]);
    let softmax = n.add(Softmax { axis: 3 }, &[x]);
    let (m, w) = (n.input(&[8, 40]), n.weights(&[40, 24]));
    let product = n.add(MatMul {}, &[m, w]);
    let sum = n.add(Reduce { f: ReduceFn::Sum, axes: vec![1], keepdims: false }, &[m]);
    let mut outputs = vec![];
    for v in convolutions.into_iter().chain([pool, mean, norm, softmax, product, sum]) {
        let positive = n.by_number(BinaryFn::Greater, v, 0.1);
        let nan = n.unary(UnaryFn::IsNan, v);
        let whole = n.add(Cast { to: DType::I32 }, &[v]);
        outputs.extend([positive, nan, whole, n.add(Cast { to: DType::Bool }, &[v])]);
    }
    // One behind each, so that it is fused; then all of them.
    for &v in &outputs {
        n.clone().check(&[v]);
    }
    n.check(&outputs);
}

#[test]
fn pools_and_depthwise_convolutions() {
    for channels in [32, 20] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 13, 30]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let mut outputs = vec![];
        for p in [
            max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false),
            max_pool(&[3, 3], &[2, 2], &[0, 0, 0, 0], true),
            max_pool(&[2, 4], &[1, 3], &[0, 2, 1, 1], false),
        ] {
            outputs.push(n.g.add(p, &[Some(a)], vec![]).unwrap().out(0));
        }
        for p in [
            avg_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false),
            avg_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], true),
            avg_pool(&[11, 28], &[1, 1], &[0, 0, 0, 0], true),
        ] {
            outputs.push(n.add(p, &[a]));
        }
        let d = n.conv(a, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(channels));
        let d = n.unary(UnaryFn::Relu, d);
        outputs.push(n.conv(d, channels, window(&[5, 3]).pad(&[2, 0, 1, 2]).stride(&[2, 1]).groups(channels)));
        let pooled = outputs[0];
        outputs.push(n.conv(pooled, 48, window(&[3, 3]).pad(&[1, 1, 1, 1])));
        outputs.push(n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[a]));
        n.check(&outputs);
    }
}

#[test]
fn local_response_normalisation() {
    // Windows of odd and even sizes, powers with and without a form of their own, one to three blocks, with a border and without.
    for (channels, size, alpha, beta, bias) in [
        (16, 5, 1e-4, 0.75, 1.0),
        (32, 4, 0.5, 0.5, 0.25),
        (48, 9, 2.0, 0.6, 2.0),
        (64, 1, 1.0, 1.0, 0.5),
        (80, 2, 3.0, 0.75, 1.0),
    ] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 9, 11]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let a = n.unary(UnaryFn::Relu, a);
        let norm = Lrn { size, alpha, beta, bias };
        let b = n.add(norm, &[a]);
        let scale = n.weights(&[channels, 1, 1]);
        let c = n.binary(BinaryFn::Mul, b, scale);
        let c = n.binary(BinaryFn::Add, c, a);
        let d = n.conv(c, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let pooled = n.g.add(max_pool(&[3, 3], &[2, 2], &[0; 4], true), &[Some(b)], vec![]).unwrap().out(0);
        assert_eq!(count_role(&n, Role::Lrn), 1);
        n.check(&[d, pooled]);
    }
    // Other windows and bases are plain loops'.
    for (channels, size, bias) in [(24, 5, 1.0), (32, 11, 1.0), (32, 3, 0.0)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 6, 6]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let b = n.add(Lrn { size, alpha: 0.5, beta: 0.75, bias }, &[a]);
        n.check(&[b]);
    }
}

#[test]
fn far_strides_and_wide_pads_stay_plain() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 6, 6]);
    let a = n.conv(x, 16, window(&[3, 3]).pad(&[40, 1, 1, 40]));
    let b = n.conv(x, 16, window(&[1, 1]).stride(&[1 << 30, 1 << 30]));
    let far = MaxPool { strides: vec![1 << 30; 2], ..max_pool(&[1, 1], &[1, 1], &[0; 4], false) };
    let c = n.g.add(far, &[Some(a)], vec![]).unwrap().out(0);
    n.check(&[a, b, c]);
}

#[test]
fn a_maximum_keeps_nan_and_ignores_the_border() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 9, 9]);
    let a = n.conv(x, 32, window(&[1, 1]));
    let low = n.number(-1000.0);
    let a = n.binary(BinaryFn::Add, a, low);
    // Read with a border of zeros as well.
    let b = n.conv(a, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let y = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(a)], vec![]).unwrap().out(0);
    let nan = n.unary(UnaryFn::Sqrt, a);
    let z = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(nan)], vec![]).unwrap().out(0);
    let z = n.unary(UnaryFn::IsNan, z);
    let z = n.add(Cast { to: DType::F32 }, &[z]);
    n.check(&[y, b, z]);
}

#[test]
fn a_classifier_end_to_end() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 32, 32]);
    let a = n.conv(x, 32, window(&[7, 7]).stride(&[2, 2]).pad(&[3, 3, 3, 3]));
    let a = n.unary(UnaryFn::Relu, a);
    let a = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(a)], vec![]).unwrap().out(0);
    let b = n.conv(a, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let b = n.binary(BinaryFn::Add, b, a);
    let m = n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[b]);
    // Squeeze and excite.
    let gate = n.conv(m, 8, window(&[1, 1]));
    let gate = n.unary(UnaryFn::Relu, gate);
    let gate = n.conv(gate, 32, window(&[1, 1]));
    let gate = n.unary(UnaryFn::Sigmoid, gate);
    let c = n.binary(BinaryFn::Mul, b, gate);
    let flat = n.add(Reshape { shape: vec![1i64.into(), 2048i64.into()] }, &[c]);
    let (w, bias) = (n.weights(&[2048, 10]), n.weights(&[10]));
    let y = n.add(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, &[flat, w, bias]);
    let layouts = decide(&n.g, &LowerOptions { leaves: Some(Isa::Avx512), ..LowerOptions::default() });
    let roles: Vec<Role> = n.g.order().into_iter().map(|id| layouts.role(id)).filter(|r| *r != Role::Other).collect();
    let (conv, map, window) = (Role::Conv, Role::Map, Role::Window);
    assert_eq!(roles[..8], [conv, map, window, conv, map, Role::Mean, conv, map], "{}", layouts.describe(&n.g));
    assert_eq!(roles[8..], [conv, map, map, Role::Product], "{}", layouts.describe(&n.g));
    n.check(&[y]);
}
