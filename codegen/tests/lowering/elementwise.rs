//! Elementwise operators on every element type, alone and in groups, with awkward numbers and shapes.

use super::check::{FLOATS, INTS, Rng, Tolerance, agree, noise, tame};
use lehr_ir::ops::{Binary, BinaryFn, Cast, Clip, Domain, Fusion, Unary, UnaryFn, Where};
use lehr_ir::{ConstValue, DType, Graph, Op, Tensor, ValueId};
use std::sync::Arc;

/// Odd, so that vector loops have a rest.
const N: usize = 1003;

fn types_of(domain: Domain) -> Vec<DType> {
    let numbers = || FLOATS.into_iter().chain(INTS);
    match domain {
        Domain::Float => FLOATS.to_vec(),
        Domain::Number => numbers().collect(),
        Domain::Int => INTS.to_vec(),
        Domain::Bool => vec![DType::Bool],
        Domain::Any => numbers().chain([DType::Bool]).collect(),
    }
}

fn all_types() -> Vec<DType> {
    types_of(Domain::Any)
}

/// Kernels compute in f32 what the evaluator computes in f64 and rounds once; these have a single operation to round.
fn unary_tolerance(f: UnaryFn, t: DType) -> Tolerance {
    match f {
        UnaryFn::Neg
        | UnaryFn::Abs
        | UnaryFn::Sign
        | UnaryFn::Floor
        | UnaryFn::Ceil
        | UnaryFn::Round
        | UnaryFn::Sqrt
        | UnaryFn::Reciprocal
        | UnaryFn::IsNan
        | UnaryFn::IsInf { .. }
        | UnaryFn::Not
        | UnaryFn::BitNot
        | UnaryFn::Relu
        | UnaryFn::ThresholdedRelu { .. } => Tolerance::Exact,
        // The slope is an f32: its product with half a float is rounded to f32 first.
        UnaryFn::LeakyRelu { .. } if matches!(t, DType::F32 | DType::F64) => Tolerance::Exact,
        _ if matches!(t, DType::F16 | DType::BF16) => Tolerance::Units(1.0),
        _ => Tolerance::Units(8.0),
    }
}

#[test]
fn unary_functions() {
    let mut rng = Rng(1);
    for t in all_types() {
        let mut g = Graph::new(format!("unary {t}"));
        let x = noise(t, &[N], &mut rng);
        let vx = g.add_input("x", x.ty());
        let fs: Vec<UnaryFn> = UnaryFn::all().into_iter().filter(|f| types_of(f.domain()).contains(&t)).collect();
        for &f in &fs {
            let y = g.add1(Unary { f }, &[vx], vec![]).unwrap();
            g.add_output(f.info().name, y);
        }
        agree(&g, &[x], |name| {
            let f = fs.iter().find(|f| f.info().name == name).unwrap();
            unary_tolerance(*f, t)
        });
    }
}

#[test]
fn parameters_of_activations() {
    let mut rng = Rng(2);
    let fs = [
        UnaryFn::IsInf { negative: 0.0, positive: 1.0 },
        UnaryFn::IsInf { negative: 1.0, positive: 0.0 },
        UnaryFn::IsInf { negative: 0.0, positive: 0.0 },
        UnaryFn::LeakyRelu { alpha: -0.5 },
        UnaryFn::ThresholdedRelu { alpha: -1.25 },
        UnaryFn::Elu { alpha: 0.3 },
        UnaryFn::Celu { alpha: 2.5 },
        UnaryFn::Selu { alpha: 0.5, gamma: 2.0 },
        UnaryFn::HardSigmoid { alpha: 0.7, beta: 0.1 },
        UnaryFn::Swish { alpha: -2.0 },
    ];
    for t in FLOATS {
        let mut g = Graph::new(format!("parameters {t}"));
        let x = noise(t, &[N], &mut rng);
        let vx = g.add_input("x", x.ty());
        for (i, &f) in fs.iter().enumerate() {
            let y = g.add1(Unary { f }, &[vx], vec![]).unwrap();
            g.add_output(&i.to_string(), y);
        }
        agree(&g, &[x], |name| unary_tolerance(fs[name.parse::<usize>().unwrap()], t));
    }
}

fn is_division(f: BinaryFn) -> bool {
    matches!(f, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Fmod)
}

#[test]
fn binary_functions() {
    let mut rng = Rng(3);
    for t in all_types() {
        let mut g = Graph::new(format!("binary {t}"));
        let (x, y) = (noise(t, &[N], &mut rng), noise(t, &[N], &mut rng));
        // Divisors and exponents that are no faults.
        let divisor = if t.is_int() {
            let values: Vec<i128> = y.to_i128().into_iter().map(|v| if v == 0 { 3 } else { v }).collect();
            Tensor::from_i128(t, vec![N], values)
        } else {
            y.clone()
        };
        let exponent = if t.is_int() { tame(DType::U8, &[N], 9.0, &mut rng) } else { y.clone() };
        let exponent = Tensor::from_f64(t, vec![N], exponent.to_f64());
        let [vx, vy, vd, ve] =
            [("x", &x), ("y", &y), ("d", &divisor), ("e", &exponent)].map(|(n, v)| g.add_input(n, v.ty()));
        for &f in BinaryFn::ALL.iter().filter(|f| types_of(f.domain()).contains(&t)) {
            let right = match f {
                f if is_division(f) => vd,
                BinaryFn::Pow => ve,
                _ => vy,
            };
            let z = g.add1(Binary { f }, &[vx, right], vec![]).unwrap();
            g.add_output(f.info().name, z);
        }
        agree(&g, &[x, y, divisor, exponent], |name| match name {
            "pow" if matches!(t, DType::F16 | DType::BF16) => Tolerance::Units(1.0),
            "pow" => Tolerance::Units(4.0),
            _ => Tolerance::Exact,
        });
    }
}

#[test]
fn powers_of_mixed_types() {
    let mut rng = Rng(4);
    for t in types_of(Domain::Number) {
        let mut g = Graph::new(format!("pow {t}"));
        let base = tame(t, &[N], 5.0, &mut rng);
        let mut inputs = vec![base.clone()];
        let vx = g.add_input("x", base.ty());
        for u in types_of(Domain::Number) {
            let e = tame(u, &[N], 4.0, &mut rng);
            // Whole and not negative for an integer base: 0^-1 is a fault, and a root of -1 no integer.
            let whole: Vec<f64> = e.to_f64().into_iter().map(|v| v.abs().round()).collect();
            let e = if t.is_int() { Tensor::from_f64(u, vec![N], whole) } else { e };
            let ve = g.add_input(u.name(), e.ty());
            inputs.push(e);
            let z = g.add1(Binary { f: BinaryFn::Pow }, &[vx, ve], vec![]).unwrap();
            g.add_output(u.name(), z);
        }
        let units = if matches!(t, DType::F16 | DType::BF16) { 1.0 } else { 4.0 };
        agree(&g, &inputs, |_| Tolerance::Units(units));
    }
}

#[test]
fn integer_faults() {
    for (f, x, y) in [
        (BinaryFn::Div, 1, 0),
        (BinaryFn::Mod, 1, 0),
        (BinaryFn::Fmod, 1, 0),
        (BinaryFn::Pow, 0, -1),
        (BinaryFn::Pow, -1, -3),
        (BinaryFn::Pow, 2, -1),
        (BinaryFn::Div, i64::MIN, -1),
        (BinaryFn::Fmod, i64::MIN, -1),
        (BinaryFn::Mod, i64::MIN, -1),
        (BinaryFn::Pow, 3, 100),
    ] {
        let mut g = Graph::new(format!("{x} {} {y}", f.info().name));
        let inputs = [Tensor::i64s(&[x, 5, 7]), Tensor::i64s(&[y, 2, 3])];
        let [a, b] = [("x", &inputs[0]), ("y", &inputs[1])].map(|(n, t)| g.add_input(n, t.ty()));
        let z = g.add1(Binary { f }, &[a, b], vec![]).unwrap();
        g.add_output("z", z);
        agree(&g, &inputs, |_| Tolerance::Exact);
    }
}

#[test]
fn shapes_that_broadcast() {
    let mut rng = Rng(5);
    let pairs: [(&[usize], &[usize]); 11] = [
        (&[], &[]),
        (&[], &[5]),
        (&[2, 3, 37], &[37]),
        (&[2, 3, 37], &[3, 1]),
        (&[2, 1, 5], &[1, 7, 1]),
        (&[4, 1], &[1, 9]),
        (&[1, 1, 1], &[6]),
        (&[0, 3], &[1]),
        (&[2, 0], &[2, 1]),
        (&[40, 50, 2], &[40, 1, 2]),
        (&[3, 5000], &[1, 5000]),
    ];
    for (a, b) in pairs {
        for t in [DType::F32, DType::F16, DType::I64, DType::U8] {
            let mut g = Graph::new(format!("{t} {a:?} {b:?}"));
            let (x, y) = (noise(t, a, &mut rng), noise(t, b, &mut rng));
            let [vx, vy] = [("x", &x), ("y", &y)].map(|(n, v)| g.add_input(n, v.ty()));
            for f in [BinaryFn::Sub, BinaryFn::Less] {
                let z = g.add1(Binary { f }, &[vx, vy], vec![]).unwrap();
                g.add_output(f.info().name, z);
                let z = g.add1(Binary { f }, &[vy, vx], vec![]).unwrap();
                g.add_output(&format!("{} turned", f.info().name), z);
            }
            agree(&g, &[x, y], |_| Tolerance::Exact);
        }
    }
}

#[test]
fn selection_moves_every_type() {
    let mut rng = Rng(6);
    for t in all_types() {
        let mut g = Graph::new(format!("where {t}"));
        let inputs = [noise(DType::Bool, &[3, 1], &mut rng), noise(t, &[67], &mut rng), noise(t, &[3, 67], &mut rng)];
        let [c, x, y] = [0, 1, 2].map(|i| g.add_input(["c", "x", "y"][i], inputs[i].ty()));
        let z = g.add1(Where {}, &[c, x, y], vec![]).unwrap();
        g.add_output("z", z);
        agree(&g, &inputs, |_| Tolerance::Exact);
    }
}

#[test]
fn conversions_between_all_types() {
    let mut rng = Rng(7);
    for from in all_types() {
        let mut g = Graph::new(format!("cast from {from}"));
        let x = noise(from, &[N], &mut rng);
        let vx = g.add_input("x", x.ty());
        for to in all_types() {
            let y = g.add1(Cast { to }, &[vx], vec![]).unwrap();
            g.add_output(to.name(), y);
        }
        // To a half by way of f32: what lies in the middle between two halves after that may be rounded the other way.
        agree(&g, &[x], |to| match (from, to) {
            (DType::F32 | DType::F16 | DType::BF16, _) => Tolerance::Exact,
            (_, "f16" | "bf16") => Tolerance::Units(1.0),
            _ => Tolerance::Exact,
        });
    }
}

#[test]
fn clamping_with_and_without_bounds() {
    let mut rng = Rng(8);
    for t in types_of(Domain::Number) {
        let x = noise(t, &[N], &mut rng);
        for (lo, hi) in [(1.0, 3.0), (3.0, 1.0)] {
            let mut g = Graph::new(format!("clip {t} {lo} {hi}"));
            let (lo, hi) = (Tensor::scalar_f64(t, lo), Tensor::scalar_f64(t, hi));
            let [vx, vl, vh] = [("x", &x), ("lo", &lo), ("hi", &hi)].map(|(n, v)| g.add_input(n, v.ty()));
            for (i, (l, h)) in
                [(Some(vl), Some(vh)), (Some(vl), None), (None, Some(vh)), (None, None)].into_iter().enumerate()
            {
                let y = g.add(Clip {}, &[Some(vx), l, h], vec![]).unwrap().out(0);
                g.add_output(&i.to_string(), y);
            }
            agree(&g, &[x.clone(), lo, hi], |_| Tolerance::Exact);
        }
    }
}

fn constant(g: &mut Graph, tensor: Tensor) -> ValueId {
    g.add_const(ConstValue::Dense { tensor, name: Some(Arc::from("c")) })
}

#[test]
fn a_group_is_its_operators() {
    let mut rng = Rng(9);
    for shape in [vec![], vec![1], vec![0, 4], vec![7, 33], vec![2, 3, 5, 17]] {
        let mut region = Graph::new("group");
        let x = tame(DType::F32, &shape, 3.0, &mut rng);
        let bias = tame(DType::F32, &shape[shape.len().saturating_sub(1)..], 1.0, &mut rng);
        let [rx, rb] = [("x", &x), ("b", &bias)].map(|(n, t)| region.add_input(n, t.ty()));
        let two = constant(&mut region, Tensor::scalar_f64(DType::F32, 2.0));
        let sum = region.add1(Binary { f: BinaryFn::Add }, &[rx, rb], vec![]).unwrap();
        let gelu = region.add1(Unary { f: UnaryFn::Gelu }, &[sum], vec![]).unwrap();
        let scaled = region.add1(Binary { f: BinaryFn::Mul }, &[gelu, two], vec![]).unwrap();
        let positive = region.add1(Binary { f: BinaryFn::Greater }, &[scaled, rb], vec![]).unwrap();
        let chosen = region.add1(Where {}, &[positive, scaled, rx], vec![]).unwrap();
        region.add_output("", chosen);
        let mut g = Graph::new(format!("group {shape:?}"));
        let [vx, vb] = [("x", &x), ("b", &bias)].map(|(n, t)| g.add_input(n, t.ty()));
        let node = g.add_with_regions(Op::Fusion(Fusion {}), &[Some(vx), Some(vb)], vec![region], vec![]).unwrap();
        g.add_output("y", node.out(0));
        agree(&g, &[x, bias], |_| Tolerance::Units(8.0));
    }
}

#[test]
fn casts_inside_a_group_round() {
    let mut rng = Rng(10);
    for half in [DType::F16, DType::BF16] {
        // With a number beyond f16, infinities and NaN.
        let x = noise(DType::F32, &[N], &mut rng);
        let mut region = Graph::new("group");
        let rx = region.add_input("x", x.ty());
        let narrow = region.add1(Cast { to: half }, &[rx], vec![]).unwrap();
        let positive = region.add1(Unary { f: UnaryFn::Abs }, &[narrow], vec![]).unwrap();
        let wide = region.add1(Cast { to: DType::F32 }, &[positive], vec![]).unwrap();
        let lost = region.add1(Binary { f: BinaryFn::Sub }, &[rx, wide], vec![]).unwrap();
        region.add_output("", lost);
        let mut g = Graph::new(format!("casts to {half}"));
        let vx = g.add_input("x", x.ty());
        let node = g.add_with_regions(Op::Fusion(Fusion {}), &[Some(vx)], vec![region], vec![]).unwrap();
        g.add_output("lost", node.out(0));
        agree(&g, &[x], |_| Tolerance::Exact);
    }
}
