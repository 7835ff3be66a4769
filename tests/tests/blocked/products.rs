//! Products, softmax, normalisations and sums of rows.

use crate::net::*;
use lehr_codegen::layout::Role;
use lehr_codegen::lower::{LowerOptions, lower};
use lehr_codegen::x86::Isa;
use lehr_ir::ops::*;
use lehr_ir::{DType, Tensor};

/// A Gemm with a bias and a MatMul, either with constant weights and something fused behind.
fn gemm_and_matmul(rows: usize, k: usize, columns: usize) {
    let mut n = Net::new();
    let x = n.input(&[rows, k]);
    let (w, c) = (n.weights(&[columns, k]), n.weights(&[columns]));
    let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
    let y = n.add(gemm, &[x, w, c]);
    let y = n.unary(UnaryFn::Relu, y);
    let v = n.weights(&[k, columns]);
    let other = n.input(&[rows, columns]);
    let z = n.add(MatMul {}, &[x, v]);
    let z = n.binary(BinaryFn::Add, z, other);
    n.check(&[y, z]);
}

#[test]
fn products_with_constant_weights() {
    for (rows, k, columns) in [(1, 300, 40), (1, 64, 257), (3, 17, 64), (150, 40, 100), (33, 128, 10), (1, 1, 1)] {
        gemm_and_matmul(rows, k, columns);
    }
    let mut n = Net::new();
    let x = n.input(&[2, 3, 5, 40]);
    let w = n.weights(&[40, 24]);
    let y = n.add(MatMul {}, &[x, w]);
    let y = n.unary(UnaryFn::Gelu, y);
    n.check(&[y]);
}

#[test]
fn products_that_stream_their_weights() {
    // Larger than the L2 cache of a usual CPU: in one phase and in several that end anywhere, with one row and with some.
    for (rows, k, columns) in
        [(1, 1101, 700), (1, 500, 1200), (2, 1536, 513), (3, 2000, 300), (4, 700, 1001), (8, 1027, 530)]
    {
        gemm_and_matmul(rows, k, columns);
    }
}

#[test]
fn rows_of_streamed_products_end_where_they_do() {
    // Fewer steps than a phase, and no whole chunks of them: the next row begins with what would show.
    for (k, columns) in [(511, 1030), (512, 1030), (256, 2100), (504, 1100)] {
        for trans_a in [false, true] {
            let mut n = Net::new();
            let shape = if trans_a { [k, 2] } else { [2, k] };
            let x = n.input(&shape);
            let mut values = n.inputs[0].to_f64();
            let second = if trans_a { 1 } else { k };
            values[second] = f64::INFINITY;
            n.inputs[0] = Tensor::from_f64(DType::F32, shape.to_vec(), values);
            let w = n.weights(&[k, columns]);
            let y = n.add(Gemm { alpha: 1.0, beta: 1.0, trans_a, trans_b: false }, &[x, w]);
            let first = n.add(
                Slice { starts: vec![0.into(); 2], lens: vec![1.into(), (columns as i64).into()], steps: vec![1; 2] },
                &[y],
            );
            n.check(&[first]);
        }
    }
}

#[test]
fn products_of_two_inputs() {
    // Left as they lie and packed, in one phase and in three, with few rows and with rows at distances of a page.
    for (m, k, n) in [
        (1, 70, 33),
        (1, 500, 1500),
        (5, 9, 1),
        (33, 100, 100),
        (40, 1100, 300),
        (20, 1024, 200),
        // Tiles bring the next columns nearer.
        (70, 2100, 130),
        (1, 1, 1),
    ] {
        for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut net = Net::new();
            let a = net.input(&if trans_a { [k, m] } else { [m, k] });
            let b = net.input(&if trans_b { [n, k] } else { [k, n] });
            let c = net.input(&[n]);
            let y = net.add(Gemm { alpha: 1.0, beta: 1.0, trans_a, trans_b }, &[a, b, c]);
            let y = net.unary(UnaryFn::Relu, y);
            assert_eq!(count_role(&net, Role::Product), 1);
            net.check(&[y]);
        }
    }
    let mut net = Net::new();
    let (a, b) = (net.input(&[30, 40]), net.weights(&[30, 50]));
    let y = net.add(Gemm { alpha: 2.0, beta: 0.0, trans_a: true, trans_b: false }, &[a, b]);
    // A constant on the left, and a factor that only a constant takes.
    let w = net.weights(&[70, 50]);
    let z = net.add(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[w, y]);
    let last = net.add(Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: false }, &[z, y]);
    net.check(&[y, z, last]);
}

#[test]
fn every_thread_has_rows_of_a_narrow_product() {
    for (m, k, n) in [(4096, 8, 16), (10000, 16, 16), (1024, 64, 64), (5000, 64, 32)] {
        let mut net = Net::new();
        let (a, b) = (net.input(&[m, k]), net.weights(&[k, n]));
        let y = net.add(MatMul {}, &[a, b]);
        net.g.add_output("y", y);
        let program = lower(&net.g, &LowerOptions { leaves: Some(Isa::Avx512), ..LowerOptions::default() }).unwrap();
        let extents: Vec<i64> = program.kernels.iter().map(|k| k.extent).collect();
        assert!(extents.iter().all(|&n| n >= 8), "{m} x {k} x {n}: {extents:?}");
    }
}

#[test]
fn products_of_batches() {
    for (a, b) in [
        (vec![2, 3, 7, 20], vec![2, 3, 20, 33]),
        (vec![4, 50, 300], vec![4, 300, 150]),
        (vec![7, 20], vec![2, 3, 20, 33]),
        (vec![1, 7, 20], vec![3, 20, 17]),
        (vec![3, 1, 20], vec![1, 20, 17]),
        (vec![2, 1, 7, 20], vec![2, 3, 20, 5]),
        (vec![20], vec![3, 20, 5]),
        (vec![5, 40, 20], vec![20]),
    ] {
        let mut n = Net::new();
        let (x, y) = (n.input(&a), n.input(&b));
        let z = n.add(MatMul {}, &[x, y]);
        let other = n.input(&n.shape(z));
        let z = n.binary(BinaryFn::Add, z, other);
        let w = n.weights(&b);
        let v = n.add(MatMul {}, &[x, w]);
        n.check(&[z, v]);
    }
}

#[test]
fn softmax_normalisations_and_sums_of_rows() {
    // Whole vectors, a vector and a bit, one short of two. A leaf has eleven rows: several in turn, and some left over.
    for len in [16, 17, 31, 64, 129, 1000] {
        let mut n = Net::new();
        let x = n.input(&[23, 7, len]);
        let big = n.number(40.0);
        let x = n.binary(BinaryFn::Mul, x, big);
        let (scale, bias, column, other) =
            (n.weights(&[len]), n.weights(&[len]), n.input(&[len]), n.input(&[23, 7, len]));
        let mut outputs = vec![n.add(Softmax { axis: 2 }, &[x]), n.add(LogSoftmax { axis: 2 }, &[x])];
        let y = n.add(Softmax { axis: 2 }, &[x]);
        let y = n.binary(BinaryFn::Mul, y, column);
        outputs.push(n.binary(BinaryFn::Add, y, other));
        let norm = LayerNorm { axis: 2, eps: 1e-3 };
        let y = n.g.add(norm.clone(), &[Some(x), Some(scale), Some(bias)], vec![]).unwrap().out(0);
        outputs.push(n.unary(UnaryFn::Gelu, y));
        outputs.push(n.g.add(norm, &[Some(x), Some(scale), None], vec![]).unwrap().out(0));
        for f in [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::L1, ReduceFn::SumSquare, ReduceFn::Max] {
            outputs.push(n.add(Reduce { f, axes: vec![2], keepdims: true }, &[x]));
            outputs.push(n.add(Reduce { f, axes: vec![1, 2], keepdims: false }, &[x]));
        }
        let (scale, bias) = (n.weights(&[7]), n.input(&[7]));
        let y = n.add(InstanceNorm { eps: 1e-5 }, &[x, scale, bias]);
        outputs.push(n.binary(BinaryFn::Add, y, other));
        // Short cells of an instance normalisation are plain loops'.
        let rows = if len < 24 { 5 } else { 6 };
        assert_eq!((count_role(&n, Role::Rows), count_role(&n, Role::Reduce)), (rows, 10));
        n.check(&outputs);
    }
}

#[test]
fn a_softmax_of_infinities_is_nan_in_their_rows_alone() {
    let mut n = Net::new();
    let x = n.input(&[100, 33]);
    let mut values: Vec<f64> = n.inputs[0].to_f64();
    values[33] = f64::INFINITY;
    values[2 * 33 + 32] = f64::NAN;
    // Rows in turn with those, and one that comes alone.
    values[3 * 33..4 * 33].fill(f64::NEG_INFINITY);
    values[5 * 33..6 * 33].fill(f64::NEG_INFINITY);
    n.inputs[0] = Tensor::from_f64(DType::F32, vec![100, 33], values);
    let y = n.add(Softmax { axis: 1 }, &[x]);
    let nan = n.unary(UnaryFn::IsNan, y);
    let nan = n.add(Cast { to: DType::F32 }, &[nan]);
    n.check(&[nan]);
}
