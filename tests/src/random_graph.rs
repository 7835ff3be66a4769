//! Random small graphs of the operators that rewrite rules look for: convolutions, normalisations, paddings, pools, products,
//! elementwise and data movement.

use crate::choices::Choices;
use lehr_ir::graph::{Graph, Origin, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Dim, Op, Tensor, TensorType};

/// What constants hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constants {
    /// Numbers in -1..1.
    Ordinary,
    /// Zeros of both signs among them, and numbers that are infinite or none; variances that are zero or negative.
    Hostile,
}

/// The graph that the choices lead to. Its symbol `batch` is meant to be 2; some graphs fit that number only in
/// nodes that no output needs.
pub fn random_graph(choices: &[u8], constants: Constants) -> Graph {
    let mut c = Choices::new(choices);
    let mut g = Graph::new("random");
    let sizes = [2 + c.below(5), 2 + c.below(5)];
    let shape = vec![
        Dim::symbol("batch"),
        Dim::Const(1 + c.below(4) as i64),
        (sizes[0] as i64).into(),
        (sizes[1] as i64).into(),
    ];
    let mut values = vec![g.add_input("x", TensorType { dtype: DType::F32, shape })];
    let rows = 1 + c.below(4) as i64;
    values.push(g.add_input("m", TensorType::new(DType::F32, [rows, 1 + c.below(4) as i64])));
    if c.flag() {
        values.reverse();
    }
    for step in 0..16 {
        let x = pick(&mut c, &values);
        let Some((op, inputs)) = random_op(&mut g, &mut c, x, &values, constants) else { continue };
        let origin = Origin { name: format!("node_{step}").into(), index: Some(step), op: op.name().into() };
        // What does not fit is left out.
        let Ok(id) = g.add(op, &inputs, vec![origin]) else { continue };
        let small = g.ty(id.out(0)).elements().substitute(&|_| Some(Dim::Const(2)));
        if small.as_const().is_some_and(|n| n < 5000) {
            values.push(id.out(0));
        }
    }
    let outputs = 1 + c.below(3);
    for i in 0..outputs {
        let v = if i == 0 { values[values.len() - 1] } else { pick(&mut c, &values) };
        g.add_output(&format!("y{i}"), v);
    }
    g
}

/// Mostly the last one: chains are what rules look for.
fn pick(c: &mut Choices, values: &[ValueId]) -> ValueId {
    if c.below(4) > 0 { values[values.len() - 1] } else { values[c.below(values.len())] }
}

/// An operator that may fit x, and its operands.
fn random_op(
    g: &mut Graph,
    c: &mut Choices,
    x: ValueId,
    values: &[ValueId],
    constants: Constants,
) -> Option<(Op, Vec<Option<ValueId>>)> {
    let ty = g.ty(x).clone();
    let (rank, numbers): (usize, Vec<Option<i64>>) = (ty.rank(), ty.shape.iter().map(Dim::as_const).collect());
    let channels = numbers.get(1).copied().flatten().unwrap_or(1) as usize;
    let seed = c.below(200) as u64;
    let (awkward, every) = match constants {
        Constants::Ordinary => (None, 1),
        Constants::Hostile => {
            let numbers = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
            (numbers.get(c.below(12)).copied(), [1, 2, 3, 7, 30][c.below(5)])
        }
    };
    let constant = |g: &mut Graph, shape: &[usize]| {
        let noise = ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed };
        let Some(number) = awkward else { return g.add_const(noise) };
        let numbers = noise.tensor().to_f64().into_iter().enumerate();
        let numbers = numbers.map(|(i, v)| if (i + seed as usize).is_multiple_of(every) { number } else { v });
        let tensor = Tensor::from_f64(DType::F32, shape.to_vec(), numbers);
        g.add_const(ConstValue::Dense { tensor, name: None })
    };
    let unary = |f| Some((Op::Unary(Unary { f }), vec![Some(x)]));
    let one = |op: Op| Some((op, vec![Some(x)]));
    match c.below(27) {
        0 => unary(UnaryFn::Relu),
        1 => unary(UnaryFn::Sigmoid),
        2 => unary(UnaryFn::Tanh),
        3 => unary(UnaryFn::Neg),
        4 | 5 => {
            let f = [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Sub, BinaryFn::Max][c.below(4)];
            let y = pick(c, values);
            Some((Binary { f }.into(), if c.flag() { vec![Some(x), Some(y)] } else { vec![Some(y), Some(x)] }))
        }
        6 | 7 => {
            let f = [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Sub][c.below(3)];
            let mut shape = vec![1; rank];
            if rank > 1 && c.flag() {
                shape[1] = channels;
            }
            let k = if c.below(4) == 0 {
                let element = Tensor::scalar_f64(DType::F32, c.below(2) as f64);
                g.add_const(ConstValue::Splat { element, shape: vec![] })
            } else {
                constant(g, &shape)
            };
            Some((Binary { f }.into(), if c.flag() { vec![Some(x), Some(k)] } else { vec![Some(k), Some(x)] }))
        }
        8..=10 if rank == 4 => {
            let groups = if channels.is_multiple_of(2) && c.flag() { 2 } else { 1 };
            let outputs = groups * (1 + c.below(3));
            let (kh, kw) = (1 + c.below(3), 1 + c.below(3));
            let w = constant(g, &[outputs, channels / groups, kh, kw]);
            let b = if c.flag() { Some(constant(g, &[outputs])) } else { None };
            let pads = (0..4).map(|_| c.below(2)).collect();
            let strides = vec![1 + c.below(2), 1 + c.below(2)];
            Some((Conv { strides, pads, dilations: vec![1, 1], groups }.into(), vec![Some(x), Some(w), b]))
        }
        11 if rank == 4 => {
            let outputs = 1 + c.below(3);
            let w = constant(g, &[channels, outputs, 2, 2]);
            let (strides, dilations, output_padding) = (vec![2, 1], vec![1, 1], vec![0, 0]);
            let op = ConvTranspose { strides, pads: vec![0, 0, 1, 0], dilations, output_padding, groups: 1 };
            Some((op.into(), vec![Some(x), Some(w)]))
        }
        12..=14 if rank >= 2 => {
            let statistics: Vec<Option<ValueId>> = (0..3).map(|_| Some(constant(g, &[channels]))).collect();
            let lowest = if constants == Constants::Ordinary { 0.5 } else { -1.0 };
            let element = Tensor::scalar_f64(DType::F32, lowest + c.below(3) as f64);
            let var = g.add_const(ConstValue::Splat { element, shape: vec![channels] });
            let inputs = [vec![Some(x)], statistics, vec![Some(var)]].concat();
            Some((BatchNorm { eps: 1e-3 }.into(), inputs))
        }
        15 | 24 | 25 if rank == 4 => {
            let mut amounts = || vec![0, 0, c.below(3) as i64, c.below(2) as i64];
            one(Pad { before: amounts(), after: amounts(), mode: PadMode::Constant }.into())
        }
        16 if rank == 4 => {
            let (kernel, dilations) = (vec![2, 2], vec![1, 1]);
            let (strides, pads) = (vec![1 + c.below(2), 1], (0..4).map(|_| c.below(2)).collect());
            let (ceil_mode, count_include_pad) = (c.flag(), c.flag());
            if c.flag() {
                return one(MaxPool { kernel, strides, pads, dilations, ceil_mode, column_major: false }.into());
            }
            one(AvgPool { kernel, strides, pads, dilations, ceil_mode, count_include_pad }.into())
        }
        17 if rank == 4 => one(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: c.flag() }.into()),
        18 | 26 if rank == 2 => {
            let k = numbers[1]? as usize;
            let (trans_b, n) = (c.flag(), 1 + c.below(4));
            let w = constant(g, &if trans_b { [n, k] } else { [k, n] });
            if c.flag() && !trans_b {
                return Some((MatMul {}.into(), vec![Some(x), Some(w)]));
            }
            let bias = if c.flag() { Some(constant(g, &[n])) } else { None };
            Some((Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b }.into(), vec![Some(x), Some(w), bias]))
        }
        19 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            if rank > 1 {
                perm.swap(c.below(rank), c.below(rank));
            }
            one(Transpose { perm }.into())
        }
        20 => {
            let mut shape = ty.shape.clone();
            if rank > 1 && c.flag() {
                let last = shape.pop()?;
                let before = shape.pop()?;
                shape.push(&before * &last);
            } else {
                shape.push(Dim::ONE);
            }
            one(Reshape { shape }.into())
        }
        21 => {
            let (lo, hi) = (Tensor::scalar_f64(DType::F32, -0.5), Tensor::scalar_f64(DType::F32, 2.0));
            let mut k = |tensor| Some(g.add_const(ConstValue::Dense { tensor, name: None }));
            Some((Clip {}.into(), vec![Some(x), k(lo), k(hi)]))
        }
        22 => one(if c.flag() { Identity {}.into() } else { Dropout {}.into() }),
        23 => one(if c.flag() { Cast { to: DType::F32 }.into() } else { Concat { axis: 0 }.into() }),
        _ => None,
    }
}

/// Inputs of the graph's types, every symbol being 2.
pub fn inputs(g: &Graph, seed: u64) -> Option<Vec<Tensor>> {
    let two = |_: &str| Some(Dim::Const(2));
    let types = g.inputs().iter().map(|&v| g.ty(v)).enumerate();
    types
        .map(|(i, ty)| {
            let shape: Option<Vec<usize>> =
                ty.shape.iter().map(|d| usize::try_from(d.substitute(&two).as_const()?).ok()).collect();
            Some(seeded(ty.dtype, shape?, seed + i as u64))
        })
        .collect()
}
