//! Random chains of linear operators with weights, scales and statistics of every magnitude, and how far rounding may move their
//! results: each graph comes with the same one in f64, and with one of absolute values, which bounds every sum by the sum of the
//! magnitudes of its terms.

use crate::choices::Choices;
use lehr_ir::eval::evaluate;
use lehr_ir::graph::{Graph, Origin, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Op, Tensor, TensorType};

/// What f32 may make of a number that is in range throughout, of the sum of its terms' magnitudes.
pub const ROUNDING: f64 = 2e-5;
/// Magnitudes that every operator may have: the square of their ratio is in f32's range, so that no weights into which others are
/// folded leave it.
const RANGE: std::ops::RangeInclusive<f64> = 1e-18..=1e18;

/// One value in the three graphs.
type Triple = [ValueId; 3];

/// The chain in f32, the same in f64, and in f64 with everything positive.
pub struct Affine {
    pub single: Graph,
    double: Graph,
    magnitude: Graph,
    values: Vec<Triple>,
    seed: u64,
}

/// What the outputs are as real numbers, and the sums of their terms' magnitudes.
pub struct Truth {
    pub exact: Vec<Vec<f64>>,
    pub magnitude: Vec<Vec<f64>>,
}

/// The chain that the choices lead to.
pub fn random_affine(choices: &[u8]) -> Affine {
    let mut c = Choices::new(choices);
    let graph = || Graph::new("affine");
    let mut a =
        Affine { single: graph(), double: graph(), magnitude: graph(), values: vec![], seed: c.below(256) as u64 };
    let image = c.below(3) > 0;
    let shape: Vec<i64> = if image {
        [1 + c.below(2), 1 + c.below(6), 2 + c.below(6), 2 + c.below(6)].map(|d| d as i64).into()
    } else {
        [1 + c.below(5), 1 + c.below(20)].map(|d| d as i64).into()
    };
    let input = |g: &mut Graph, dtype| g.add_input("x", TensorType::new(dtype, shape.clone()));
    let x = [input(&mut a.single, DType::F32), input(&mut a.double, DType::F64), input(&mut a.magnitude, DType::F64)];
    a.values.push(x);
    for step in 0..2 + c.below(5) {
        // What does not fit is left out.
        let _ = a.step(&mut c, step);
    }
    let last = a.values[a.values.len() - 1];
    a.output("y", last);
    if c.below(3) == 0 {
        let other = a.values[c.below(a.values.len())];
        a.output("z", other);
    }
    a
}

impl Affine {
    /// The input, of a magnitude that the choice says.
    pub fn input(&self, choice: u8) -> Tensor {
        let shape = self.single.ty(self.single.inputs()[0]).const_shape().expect("numbers");
        let scale = [1.0, 1e-10, 1e10][choice as usize % 3];
        let noise = seeded(DType::F32, shape.clone(), 3).to_f64();
        Tensor::from_f64(DType::F32, shape, noise.into_iter().map(|v| v * scale))
    }

    /// What is expected; `None` where a number on the way leaves the range in which f32 can be asked for it.
    pub fn truth(&self, input: &Tensor) -> Option<Truth> {
        let as_f64 =
            |f: fn(f64) -> f64| Tensor::from_f64(DType::F64, input.shape().to_vec(), input.to_f64().into_iter().map(f));
        let numbers = |tensors: Vec<Tensor>| tensors.iter().map(Tensor::to_f64).collect();
        let mut in_range = true;
        let results = evaluate(&self.magnitude, &[as_f64(f64::abs)], &mut |_, t| {
            in_range &= t.to_f64().iter().all(|v| *v == 0.0 || RANGE.contains(v));
        });
        let magnitude: Vec<Vec<f64>> = numbers(results.ok()?);
        let exact = numbers(evaluate(&self.double, &[as_f64(|v| v)], &mut |_, _| {}).ok()?);
        in_range.then_some(Truth { exact, magnitude })
    }

    fn output(&mut self, name: &str, v: Triple) {
        self.single.add_output(name, v[0]);
        self.double.add_output(name, v[1]);
        self.magnitude.add_output(name, v[2]);
    }

    fn shape(&self, v: Triple) -> Vec<usize> {
        self.single.ty(v[0]).const_shape().expect("all shapes are numbers")
    }

    fn pick(&self, c: &mut Choices) -> Triple {
        let last = self.values.len() - 1;
        self.values[if c.below(4) > 0 { last } else { c.below(last + 1) }]
    }

    fn numbers(&mut self, n: usize, c: &mut Choices) -> Vec<f64> {
        self.seed += 1;
        let scale = 10f64.powi([0, 0, 1, -1, 4, -4, 10, -10][c.below(8)]);
        let zeros = [0, 0, 0, 2, 3, 1][c.below(6)];
        let noise = seeded(DType::F32, vec![n], self.seed).to_f64().into_iter();
        let zeroed = |(i, v): (usize, f64)| match zeros {
            0 => v * scale,
            z if i % z == 0 => [0.0, -0.0][i / z % 2],
            _ => v * scale,
        };
        noise.enumerate().map(zeroed).map(|v| f64::from(v as f32)).collect()
    }

    /// A constant in the three graphs.
    fn constant(&mut self, shape: &[usize], numbers: &[f64]) -> Triple {
        let dense = |g: &mut Graph, dtype, f: fn(f64) -> f64| {
            let tensor = Tensor::from_f64(dtype, shape.to_vec(), numbers.iter().copied().map(f));
            g.add_const(ConstValue::Dense { tensor, name: None })
        };
        [
            dense(&mut self.single, DType::F32, |v| v),
            dense(&mut self.double, DType::F64, |v| v),
            dense(&mut self.magnitude, DType::F64, f64::abs),
        ]
    }

    fn weights(&mut self, shape: &[usize], c: &mut Choices) -> Triple {
        let numbers = self.numbers(shape.iter().product(), c);
        self.constant(shape, &numbers)
    }

    /// An operator, and what it is among absolute values.
    fn add(&mut self, op: Op, positive: Op, inputs: &[Triple]) -> Option<Triple> {
        let origin = || vec![Origin { name: op.name().into(), index: None, op: op.name().into() }];
        let of = |which: usize| inputs.iter().map(|v| v[which]).collect::<Vec<_>>();
        let single = self.single.add1(op.clone(), &of(0), origin()).ok()?;
        let double = self.double.add1(op.clone(), &of(1), origin()).ok()?;
        let magnitude = self.magnitude.add1(positive, &of(2), origin()).ok()?;
        let v = [single, double, magnitude];
        self.values.push(v);
        Some(v)
    }

    fn same(&mut self, op: impl Into<Op>, inputs: &[Triple]) -> Option<Triple> {
        let op = op.into();
        self.add(op.clone(), op, inputs)
    }

    fn step(&mut self, c: &mut Choices, step: usize) -> Option<Triple> {
        let x = self.pick(c);
        let shape = self.shape(x);
        let kind = if step == 0 { [0, 4, 6][c.below(3)] } else { c.below(16) };
        match (kind, &shape[..]) {
            (0..=2, &[_, channels, ..]) if shape.len() == 4 => {
                let groups = if channels.is_multiple_of(2) && c.flag() { 2 } else { 1 };
                let (outputs, k) = (groups * (1 + c.below(9)), 1 + c.below(3));
                let (strides, dilations) = (vec![1 + c.below(2), 1], vec![1, 1]);
                let pads: Vec<usize> = if c.flag() { vec![0; 4] } else { (0..4).map(|_| c.below(2)).collect() };
                let mut inputs = vec![x, self.weights(&[outputs, channels / groups, k, k], c)];
                if c.flag() {
                    inputs.push(self.weights(&[outputs], c));
                }
                self.same(Conv { strides, pads, dilations, groups }, &inputs)
            }
            (3, &[_, channels, ..]) if shape.len() == 4 => {
                let groups = if channels.is_multiple_of(2) && c.flag() { 2 } else { 1 };
                let per_group = 1 + c.below(3);
                let (strides, dilations, output_padding) = (vec![2, 1], vec![1, 1], vec![0, 0]);
                let op = ConvTranspose { strides, pads: vec![0, 0, 1, 0], dilations, output_padding, groups };
                let mut inputs = vec![x, self.weights(&[channels, per_group, 2, 2], c)];
                if c.flag() {
                    inputs.push(self.weights(&[per_group * groups], c));
                }
                self.same(op, &inputs)
            }
            (0..=3, &[rows, k]) => {
                let n = 1 + c.below(20);
                let trans_b = c.flag();
                let w = self.weights(&if trans_b { [n, k] } else { [k, n] }, c);
                if !trans_b && c.flag() {
                    return self.same(MatMul {}, &[x, w]);
                }
                let (alpha, beta) = ([1.0, 0.5, -2.0, 1.0][c.below(4)], [1.0, 2.0, 0.0, 1e10][c.below(4)]);
                let bias = [vec![n], vec![1, n], vec![], vec![rows, n], vec![rows, 1]][c.below(5)].clone();
                let mut inputs = vec![x, w];
                if c.flag() {
                    inputs.push(self.weights(&bias, c));
                }
                let op = |alpha| Op::from(Gemm { alpha, beta, trans_a: false, trans_b });
                self.add(op(alpha), op(alpha.abs()), &inputs)
            }
            (4..=7, _) => self.batch_norm(x, &shape, c),
            (8..=12, _) => {
                let per_channel: Vec<usize> = (0..shape.len()).map(|i| if i == 1 { shape[1] } else { 1 }).collect();
                let like: &[usize] = match c.below(5) {
                    0 => &[],
                    1 if shape.len() == 2 => &shape[1..],
                    2 => &shape,
                    _ => &per_channel,
                };
                let numbers = self.numbers(like.iter().product(), c);
                let k = self.constant(like, &numbers);
                let (f, positive) = [
                    (BinaryFn::Add, BinaryFn::Add),
                    (BinaryFn::Sub, BinaryFn::Add),
                    (BinaryFn::Mul, BinaryFn::Mul),
                    (BinaryFn::Div, BinaryFn::Div),
                ][c.below(4)];
                let first = f == BinaryFn::Div || c.flag();
                let inputs = if first { [x, k] } else { [k, x] };
                self.add(Binary { f }.into(), Binary { f: positive }.into(), &inputs)
            }
            (13, _) => self.same(Unary { f: UnaryFn::Relu }, &[x]),
            (14, _) => {
                let y = self.pick(c);
                if self.shape(y) != shape {
                    return None;
                }
                self.same(Binary { f: BinaryFn::Add }, &[x, y])
            }
            _ if shape.len() == 4 => {
                let mut amounts = || vec![0, 0, c.below(2) as i64, c.below(2) as i64];
                self.same(Pad { before: amounts(), after: amounts(), mode: PadMode::Constant }, &[x])
            }
            _ => None,
        }
    }

    fn batch_norm(&mut self, x: Triple, shape: &[usize], c: &mut Choices) -> Option<Triple> {
        let channels = shape[1];
        let eps = [1e-5, 0.0, 1e-3][c.below(3)];
        let mut four: Vec<Vec<f64>> = (0..4).map(|_| self.numbers(channels, c)).collect();
        four[3].iter_mut().for_each(|v| *v = v.abs());
        let statistics: Vec<Triple> = four.iter().map(|n| self.constant(&[channels], n)).collect();
        let of = |which: usize| [x].iter().chain(&statistics).map(|v| v[which]).collect::<Vec<_>>();
        let op = BatchNorm { eps };
        let single = self.single.add1(op.clone(), &of(0), vec![]).ok()?;
        let double = self.double.add1(op, &of(1), vec![]).ok()?;
        let [g, h, m, v] = &four[..] else { return None };
        let scale: Vec<f64> = g.iter().zip(v).map(|(g, v)| g.abs() / (v + f64::from(eps)).sqrt()).collect();
        let shift = scale.iter().zip(h).zip(m).map(|((s, h), m)| h.abs() + s * m.abs());
        let mut along = vec![channels];
        along.resize(shape.len() - 1, 1);
        let mut dense = |numbers: Vec<f64>| {
            let tensor = Tensor::from_f64(DType::F64, along.clone(), numbers);
            self.magnitude.add_const(ConstValue::Dense { tensor, name: None })
        };
        let (shift, scale) = (dense(shift.collect()), dense(scale));
        let product = self.magnitude.add1(Binary { f: BinaryFn::Mul }, &[x[2], scale], vec![]).ok()?;
        let magnitude = self.magnitude.add1(Binary { f: BinaryFn::Add }, &[product, shift], vec![]).ok()?;
        let v = [single, double, magnitude];
        self.values.push(v);
        Some(v)
    }
}

/// Where an output is further from the truth than rounding explains.
pub fn beyond_rounding(truth: &Truth, got: &[Tensor]) -> Option<String> {
    for (k, ((exact, magnitude), got)) in truth.exact.iter().zip(&truth.magnitude).zip(got).enumerate() {
        for (i, ((want, most), got)) in exact.iter().zip(magnitude).zip(got.to_f64()).enumerate() {
            let allowed = ROUNDING * most;
            let is_near = (got - want).abs() <= allowed;
            if !is_near {
                return Some(format!("output {k}, element {i} is {got:e}, not {want:e} (allowed: {allowed:e})"));
            }
        }
    }
    None
}
