//! Random matrix products and what is fused with them, and weights that are not noise: AVX-512 and AVX2 code give what the evaluator
//! gives, the same bits with any number of threads. Caches are said to be small in part, so that small weights count as large ones.

use lehr::codegen::x86::Isa;
use lehr::{CompileOptions, Runner};
use lehr_ir::eval::evaluate;
use lehr_ir::graph::Graph;
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Tensor, TensorType};
use lehr_tests::choices::Choices;
use lehr_tests::differential::{check, expected, run_guarded};
use lehr_tests::guarded::Guard;
use lehr_tests::random_net::inputs;
use lehr_tests::random_product::{hostile_weights, random_product};
use proptest::prelude::*;

fn options(caches: u8) -> CompileOptions {
    let caches = ["1K,4K,16K", "1K,1K,2K", "48K,2M,32M"][caches as usize % 3];
    CompileOptions { caches: Some(caches.parse().expect("three sizes")), ..CompileOptions::default() }
}

/// `x w + b`, where x has few rows.
fn product(rows: usize, transposed: bool, w: &Tensor, b: &Tensor) -> Graph {
    let mut g = Graph::new("product");
    let inner = w.shape()[usize::from(transposed)];
    let x = g.add_input("x", TensorType::new(DType::F32, [rows as i64, inner as i64]));
    let constants = [w, b].map(|t| g.add_const(ConstValue::Dense { tensor: t.clone(), name: None }));
    let gemm = Gemm { trans_a: false, trans_b: transposed, alpha: 1.0, beta: 1.0 };
    let y = g.add1(gemm, &[x, constants[0], constants[1]], vec![]).expect("the shapes fit");
    g.add_output("y", y);
    g
}

fn magnitudes(t: &Tensor) -> Tensor {
    Tensor::from_f64(DType::F32, t.shape().to_vec(), t.to_f64().into_iter().map(f64::abs))
}

fn hostile(choices: &[u8]) -> Result<(), String> {
    let mut c = Choices::new(choices);
    let rows = 1 + c.below(9);
    let inner = [1, 2, 4, 5, 6, 9, 10, 11, 64, 255, 511, 512, 513, 514, 1021, 1025, 1030, 1537][c.below(18)];
    let columns = [1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 130][c.below(13)];
    let noise = seeded(DType::F32, vec![inner * columns], 3);
    let mut w = hostile_weights(inner, columns, &noise.to_f32(), &mut c);
    let transposed = c.flag();
    if transposed {
        let values = w.to_f64();
        let turned = (0..inner * columns).map(|i| values[i % inner * columns + i / inner]);
        w = Tensor::from_f64(DType::F32, vec![columns, inner], turned.collect::<Vec<_>>());
    }
    compare(rows, transposed, &w)
}

/// A product of these weights beside the evaluator's, by the magnitudes that each sum has.
fn compare(rows: usize, transposed: bool, w: &Tensor) -> Result<(), String> {
    let (inner, columns) = (w.shape()[usize::from(transposed)], w.shape()[usize::from(!transposed)]);
    let (x, b) = (seeded(DType::F32, vec![rows, inner], 1), seeded(DType::F32, vec![columns], 2));
    let g = product(rows, transposed, w, &b);
    let run = |g: &Graph, x: &Tensor| evaluate(g, std::slice::from_ref(x), &mut |_, _| {}).expect("it runs").remove(0);
    let want = run(&g, &x).to_f64();
    let most = run(&product(rows, transposed, &magnitudes(w), &magnitudes(&b)), &magnitudes(&x)).to_f64();
    // Compact weights are off by 2^-21 of a usual one of their column, in the root of the mean of squares: a usual one is
    // below the mean of magnitudes.
    let (weights, pixels) = (w.to_f64(), x.to_f64());
    let (row, column) = if transposed { (1, inner) } else { (columns, 1) };
    let changed = |i: usize| {
        let mean = (0..inner).map(|k| weights[k * row + i % columns * column].abs()).sum::<f64>() / inner as f64;
        let squares: f64 = pixels[i / columns * inner..][..inner].iter().map(|x| x * x).sum();
        mean * (inner as f64 * squares).sqrt() / (1 << 21) as f64
    };
    for (cpu, _) in [("x86-64-v4", Isa::Avx512), ("x86-64-v3", Isa::Avx2)].iter().filter(|c| c.1.on_this_cpu()) {
        let options = CompileOptions { cpu: cpu.to_string(), ..options(1) };
        let mut bits: Option<Tensor> = None;
        for (threads, guard) in [(1, Guard::Behind), (2, Guard::Before), (3, Guard::Behind)] {
            let mut runner = Runner::jit(g.clone(), &options, threads).map_err(|e| e.to_string())?;
            let got = run_guarded(&mut runner, std::slice::from_ref(&x), guard)?.remove(0);
            let first = bits.get_or_insert_with(|| got.clone());
            if first.bytes() != got.bytes() {
                return Err(format!("{cpu}, {threads} threads: other bits"));
            }
            for (i, got) in got.to_f64().into_iter().enumerate() {
                // Roundings of a sum walk at random.
                let allowed = 3e-7 * (inner as f64).sqrt() * most[i] + changed(i) + 1e-37;
                let equal = got == want[i] || (got.is_nan() && want[i].is_nan()) || (got - want[i]).abs() <= allowed;
                if !equal {
                    return Err(format!("{cpu}: {rows} x {inner} x {columns}, element {i} is {got}, not {}", want[i]));
                }
            }
        }
    }
    Ok(())
}

/// Tiles of as many blocks as there are registers for.
#[test]
fn every_number_of_rows_has_a_tile_for_compact_weights() {
    let w = seeded(DType::F32, vec![521, 256], 1);
    for rows in 1..=9 {
        compare(rows, false, &w).unwrap_or_else(|why| panic!("{rows} rows: {why}"));
    }
}

/// Right operands of more than what is read as it lies, and, of the largest caches, of less than what is packed ahead of all: of one phase and of two, with tiles
/// and groups of one size and of two, and with blocks that end with the matrix or do not.
#[test]
fn operands_that_tiles_pack_give_the_evaluators_answer() {
    for (rows, inner, columns) in [(34, 600, 100), (95, 300, 208), (130, 130, 333), (40, 1100, 65)] {
        let mut g = Graph::new("product");
        let [a, b] = [("a", [rows, inner]), ("b", [inner, columns])]
            .map(|(name, shape)| g.add_input(name, TensorType::new(DType::F32, shape)));
        let y = g.add1(MatMul {}, &[a, b], vec![]).expect("the shapes fit");
        g.add_output("y", y);
        let inputs = inputs(&g, 5);
        let (want, most) = expected(&g, &inputs).expect("all values are finite");
        for caches in [0, 2] {
            check(&g, &inputs, (&want, most), &options(caches)).unwrap_or_else(|why| panic!("{rows} rows: {why}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_agree_with_the_evaluator(choices in prop::collection::vec(any::<u8>(), 20..120), caches in any::<u8>()) {
        let Some(g) = random_product(&choices) else { return Ok(()) };
        let inputs = inputs(&g, 5);
        let Some((want, most)) = expected(&g, &inputs) else { return Ok(()) };
        check(&g, &inputs, (&want, most), &options(caches)).map_err(|why| TestCaseError::fail(format!("{why}\n{g}")))?;
    }

    #[test]
    fn products_of_hostile_weights_agree_with_the_evaluator(choices in prop::collection::vec(any::<u8>(), 10..60)) {
        hostile(&choices).map_err(TestCaseError::fail)?;
    }
}
