//! Element by element: the reference evaluator against the interpreted and the compiled kernels, on awkward numbers, exactly
//! or within units in the last place.

use super::execute::{compiled, for_gpu, interpreted, lowered};
use super::harness::GPU;
use super::simulate::simulated;
use lehr_ir::eval::evaluate;
use lehr_ir::{DType, Graph, Tensor};

pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];
pub const INTS: [DType; 8] =
    [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

/// CPUs to compile for: what this machine has, and the least.
const CPUS: [&str; 2] = ["native", "x86-64"];

/// How far a float may be from the evaluator's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Equal, or both NaN; zeros of either sign are equal.
    Exact,
    /// So many units in the last place, of the number or of 1 for what is smaller.
    Units(f64),
}

/// Checks every output of `graph`; the tolerance is chosen by output name. A fault of the data must be one everywhere.
pub fn agree(graph: &Graph, inputs: &[Tensor], tolerance: impl Fn(&str) -> Tolerance) {
    let mut runs = vec![("interpreted".to_string(), interpreted(&lowered(graph), inputs))];
    let (program, module) = for_gpu(graph, GPU);
    runs.push(("interpreted for a GPU".to_string(), interpreted(&program, inputs)));
    runs.push(("PTX".to_string(), simulated(&program, &module, inputs)));
    for cpu in CPUS {
        runs.push((format!("compiled for {cpu}"), compiled(&mut lowered(graph), cpu, 1, inputs)));
    }
    let expected = evaluate(graph, inputs, &mut |_, _| {});
    for (how, got) in runs {
        let (expected, got) = match (&expected, got) {
            (Ok(e), Ok(g)) => (e, g),
            (Err(_), Err(_)) => continue,
            (Ok(_), Err(text)) => panic!("{}: {how} fails: {text}", graph.name),
            (Err(e), Ok(_)) => panic!("{}: {how} does not fail with {e}", graph.name),
        };
        for ((e, g), output) in expected.iter().zip(&got).zip(&graph.outputs) {
            let what = format!("{} {}: {how}", graph.name, output.name);
            compare(&what, e, g, tolerance(&output.name));
        }
    }
}

fn compare(what: &str, expected: &Tensor, got: &Tensor, tolerance: Tolerance) {
    assert_eq!((expected.dtype(), expected.shape()), (got.dtype(), got.shape()), "{what}");
    if !expected.dtype().is_float() {
        let pairs = expected.to_i128().into_iter().zip(got.to_i128());
        let wrong = pairs.enumerate().find(|(_, (e, g))| e != g);
        assert_eq!(wrong, None, "{what} (position, (evaluated, {what}))");
        return;
    }
    let epsilon = match expected.dtype() {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        other => {
            assert_eq!(other, DType::BF16);
            2f64.powi(-7)
        }
    };
    for (i, (e, g)) in expected.to_f64().into_iter().zip(got.to_f64()).enumerate() {
        let near = match tolerance {
            Tolerance::Exact => false,
            Tolerance::Units(n) => (e - g).abs() <= n * epsilon * e.abs().max(1.0),
        };
        assert!(e == g || (e.is_nan() && g.is_nan()) || near, "{what}: element {i} is {g:e}, evaluated {e:e}");
    }
}

/// Reproducible numbers.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [-1, 1).
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Floats that break careless code.
const AWKWARD: [f64; 28] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.5,
    -2.5,
    1e-3,
    -1e-3,
    10.0,
    -10.0,
    88.5,
    -88.5,
    104.0,
    -104.0,
    710.0,
    -710.0,
    6e4,
    -6e4,
    3e38,
    -3e38,
    1e-40,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// Awkward numbers, and ordinary ones between them; integers of all sizes, their ends included.
pub fn noise(dtype: DType, shape: &[usize], rng: &mut Rng) -> Tensor {
    let n: usize = shape.iter().product();
    if dtype.is_float() {
        let number = |rng: &mut Rng| match rng.below(3) {
            0 => AWKWARD[rng.below(AWKWARD.len())],
            1 => rng.unit() * 4.0,
            _ => rng.unit() * 30.0,
        };
        return Tensor::from_f64(dtype, shape.to_vec(), (0..n).map(|_| number(rng)).collect::<Vec<_>>());
    }
    let number = |rng: &mut Rng| match rng.below(4) {
        0 => [0, 1, -1, i128::from(i64::MAX), i128::from(i64::MIN), 127, 128, 1 << 31][rng.below(8)],
        1 => rng.below(7) as i128 - 3,
        _ => i128::from(rng.next()) << rng.below(12),
    };
    Tensor::from_i128(dtype, shape.to_vec(), (0..n).map(|_| number(rng)).collect::<Vec<_>>())
}

/// Numbers in [-range, range], integers and booleans too.
pub fn tame(dtype: DType, shape: &[usize], range: f64, rng: &mut Rng) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| rng.unit() * range).collect();
    let values = values.into_iter().map(|v| if dtype.is_signed() { v } else { v.abs() });
    Tensor::from_f64(dtype, shape.to_vec(), values)
}
