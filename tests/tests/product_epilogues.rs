//! Matrix products with functions fused behind them: sines, which are part of the leaf, and powers, of which vector programs have
//! few: the product is a leaf's all the same, and what follows is right.

use lehr::{CompileOptions, Runner};
use lehr_codegen::layout::{Role, decide};
use lehr_ir::eval::evaluate;
use lehr_ir::graph::Graph;
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Tensor, TensorType};

/// `f(omega (x w + b)) + r`, for rows of several tiles and columns that end inside a vector, where f is the sine or |.|^1.25.
fn layer(sine: bool, rows: usize, inner: usize, columns: usize) -> Graph {
    let mut g = Graph::new("sine");
    let input = |g: &mut Graph, name: &str, n: [usize; 2]| {
        g.add_input(name, TensorType::new(DType::F32, n.iter().map(|&n| n as i64)))
    };
    let (x, r) = (input(&mut g, "x", [rows, inner]), input(&mut g, "r", [rows, columns]));
    let constant = |g: &mut Graph, shape: &[usize], seed: u64| {
        g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed })
    };
    let (w, b, omega) =
        (constant(&mut g, &[inner, columns], 1), constant(&mut g, &[columns], 2), constant(&mut g, &[1], 3));
    let gemm = Gemm { trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0 };
    let y = g.add1(gemm, &[x, w, b], vec![]).unwrap();
    let y = g.add1(Binary { f: BinaryFn::Mul }, &[y, omega], vec![]).unwrap();
    let y = match sine {
        true => g.add1(Unary { f: UnaryFn::Sin }, &[y], vec![]).unwrap(),
        false => {
            let element = Tensor::from_f64(DType::F32, vec![], [1.25]);
            let exponent = g.add_const(ConstValue::Splat { element, shape: vec![] });
            let y = g.add1(Unary { f: UnaryFn::Abs }, &[y], vec![]).unwrap();
            g.add1(Binary { f: BinaryFn::Pow }, &[y, exponent], vec![]).unwrap()
        }
    };
    let y = g.add1(Binary { f: BinaryFn::Add }, &[y, r], vec![]).unwrap();
    g.add_output("y", y);
    g
}

#[test]
fn products_stay_products_whatever_is_behind() {
    let sizes = [(1, 40, 33), (7, 64, 16), (300, 600, 50)];
    for (sine, (rows, inner, columns)) in [true, false].into_iter().flat_map(|sine| sizes.map(|n| (sine, n))) {
        let g = layer(sine, rows, inner, columns);
        let inputs = [seeded(DType::F32, vec![rows, inner], 5), seeded(DType::F32, vec![rows, columns], 6)];
        let want = evaluate(&g, &inputs, &mut |_, _| {}).unwrap()[0].to_f64();
        let options = CompileOptions::default();
        let (optimized, _) = lehr::optimize(g.clone(), options.level).unwrap();
        if options.lowering().leaves.is_some() {
            let layouts = decide(&optimized, &options.lowering());
            let products = optimized.ids().filter(|&id| layouts.role(id) == Role::Product).count();
            assert_eq!(products, 1, "{}", layouts.describe(&optimized));
        }
        for threads in [1, 2] {
            lehr_tests::compare::dirty_memory();
            let mut runner = Runner::jit(g.clone(), &options, threads).unwrap();
            let got = runner.run(&inputs).unwrap()[0].to_f64();
            let error = got.iter().zip(&want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            let largest = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
            assert!(error < 1e-4 * largest, "{rows} x {inner} x {columns}, {threads} threads: {error}");
        }
    }
}
