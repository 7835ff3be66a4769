//! Random matrix products as `MatMul` and `Gemm` have them: vectors, batches that broadcast, transposed and computed operands, biases
//! of every shape that broadcasts, sizes next to multiples of the lanes, long sums, and what is fused behind.

use crate::choices::Choices;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, Dim, Op, Tensor, TensorType};

/// Multiply-adds that the evaluator can be asked for.
const WORK: usize = 3_000_000;

struct Net<'c> {
    c: Choices<'c>,
    g: Graph,
    seed: u64,
}

/// The graph that the choices lead to, if it is small enough.
pub fn random_product(choices: &[u8]) -> Option<Graph> {
    let mut n = Net { c: Choices::new(choices), g: Graph::new("random"), seed: 0 };
    let mut y = n.product()?;
    for _ in 0..n.c.below(6) {
        y = n.behind(y).unwrap_or(y);
    }
    n.g.add_output("y", y);
    Some(n.g)
}

impl Net<'_> {
    /// Next to the multiples of lanes, or small.
    fn size(&mut self) -> usize {
        match self.c.below(4) {
            0 | 1 => 1 + self.c.below(17),
            2 => 8 * (1 + self.c.below(9)) + self.c.below(3) - 1,
            _ => [1, 4, 16, 100, 127, 192, 257, 300][self.c.below(8)],
        }
    }

    fn inner(&mut self) -> usize {
        match self.c.below(3) {
            0 => [400, 511, 512, 513, 600, 1000, 1024, 1025, 1537, 2000, 2048][self.c.below(11)],
            _ => self.size(),
        }
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.g.ty(v).const_shape().expect("all shapes are numbers")
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.g.inputs().len());
        self.g.add_input(&name, TensorType::new(DType::F32, shape.iter().map(|&d| d as i64)))
    }

    /// Given in the run, or constant.
    fn any(&mut self, shape: &[usize]) -> ValueId {
        if self.c.flag() { self.input(shape) } else { self.constant(shape) }
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        self.g.add1(op, inputs, vec![]).ok()
    }

    /// A value of this shape, given or computed.
    fn operand(&mut self, shape: &[usize], constant: bool) -> Option<ValueId> {
        let rank = shape.len();
        match self.c.below(6) {
            0 if rank > 1 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(rank - 1, self.c.below(rank - 1));
                let before: Vec<usize> = perm.iter().map(|&d| shape[d]).collect();
                let x = if constant { self.constant(&before) } else { self.input(&before) };
                self.add(Transpose { perm }, &[x])
            }
            1 if !constant => {
                let x = self.input(shape);
                self.add(Unary { f: UnaryFn::Tanh }, &[x])
            }
            2 if !constant => {
                let x = self.input(shape);
                let some: Vec<usize> = shape.iter().map(|&d| if self.c.flag() { d } else { 1 }).collect();
                let s = self.any(&some);
                self.add(Binary { f: BinaryFn::Mul }, &[x, s])
            }
            3 if !constant => {
                let flat = self.input(&[shape.iter().product()]);
                self.add(Reshape { shape: shape.iter().map(|&d| Dim::Const(d as i64)).collect() }, &[flat])
            }
            _ => Some(if constant { self.constant(shape) } else { self.input(shape) }),
        }
    }

    fn product(&mut self) -> Option<ValueId> {
        let (m, k, n) = (self.size(), self.inner(), self.size());
        let constant = self.c.below(3) > 0;
        if self.c.flag() {
            if m * k * n > WORK {
                return None;
            }
            let (trans_a, trans_b) = (self.c.flag(), self.c.flag());
            let a = self.operand(&if trans_a { [k, m] } else { [m, k] }, false)?;
            let b = self.operand(&if trans_b { [n, k] } else { [k, n] }, constant)?;
            let (alpha, beta) = ([1.0, 1.0, 0.5, -2.0][self.c.below(4)], [1.0, 1.0, 0.0, -0.75][self.c.below(4)]);
            let gemm = Gemm { alpha, beta, trans_a, trans_b };
            let bias: Option<Vec<usize>> = match self.c.below(9) {
                0 => None,
                1 | 2 => Some(vec![n]),
                3 => Some(vec![1, n]),
                4 => Some(vec![m, n]),
                5 => Some(vec![m, 1]),
                6 => Some(vec![1, 1]),
                7 => Some(vec![1]),
                _ => Some(vec![]),
            };
            let mut operands = vec![a, b];
            if let Some(shape) = bias {
                operands.push(self.any(&shape));
            }
            return self.add(gemm, &operands);
        }
        // Axes in front, each of either operand, of one alone, or of size 1.
        let (mut left, mut right) = (vec![], vec![]);
        for _ in 0..self.c.below(3) {
            let d = 1 + self.c.below(4);
            let (l, r) = [(d, d), (d, d), (d, 1), (1, d)][self.c.below(4)];
            left.push(l);
            right.push(r);
        }
        match self.c.below(4) {
            0 => left.clear(),
            1 | 2 => right.clear(),
            _ => {}
        }
        match self.c.below(8) {
            0 => left = vec![k],
            1 if !left.is_empty() => left.truncate(1),
            _ => left.push(m),
        }
        if left.last() != Some(&k) || left.len() > 1 {
            left.push(k);
        }
        right.push(k);
        if self.c.below(8) > 0 {
            right.push(n);
        } else {
            right = vec![k];
        }
        let work = left.iter().product::<usize>().max(right.iter().product()) * m.max(n);
        if work > WORK {
            return None;
        }
        let a = self.operand(&left, false)?;
        let b = self.operand(&right, constant)?;
        self.add(MatMul {}, &[a, b])
    }

    fn behind(&mut self, y: ValueId) -> Option<ValueId> {
        let shape = self.shape(y);
        let rank = shape.len();
        if rank == 0 {
            return self.add(Unary { f: UnaryFn::Sigmoid }, &[y]);
        }
        match self.c.below(16) {
            0..=2 => {
                let all = [
                    UnaryFn::Relu,
                    UnaryFn::Sigmoid,
                    UnaryFn::Tanh,
                    UnaryFn::Gelu,
                    UnaryFn::Sin,
                    UnaryFn::Neg,
                    UnaryFn::Abs,
                    UnaryFn::Softplus,
                ];
                let f = all[self.c.below(all.len())];
                self.add(Unary { f }, &[y])
            }
            3..=7 => {
                let f = [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Sub, BinaryFn::Max, BinaryFn::Prelu][self.c.below(5)];
                let like: Vec<usize> = shape.iter().map(|&d| if self.c.flag() { d } else { 1 }).collect();
                let skip = self.c.below(rank + 1);
                let other = match self.c.below(4) {
                    0 => self.any(&shape),
                    1 => self.any(&shape[rank - 1..]),
                    _ => self.any(&like[skip..]),
                };
                if self.c.flag() { self.add(Binary { f }, &[y, other]) } else { self.add(Binary { f }, &[other, y]) }
            }
            8 => {
                let sum = self.add(Unary { f: UnaryFn::Tanh }, &[y])?;
                self.add(Binary { f: BinaryFn::Add }, &[y, sum])
            }
            9 => {
                let axis = self.c.below(rank);
                self.add(Softmax { axis }, &[y])
            }
            10 => {
                let (axes, keepdims) = (vec![self.c.below(rank)], self.c.flag());
                let f = [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::Max, ReduceFn::L2][self.c.below(4)];
                self.add(Reduce { f, axes, keepdims }, &[y])
            }
            11 => {
                let axis = rank - 1;
                let (w, b) = (self.constant(&shape[axis..]), self.constant(&shape[axis..]));
                self.add(LayerNorm { axis, eps: 1e-2 }, &[y, w, b])
            }
            12 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(self.c.below(rank), self.c.below(rank));
                self.add(Transpose { perm }, &[y])
            }
            13 => {
                let flat = shape.iter().product::<usize>() as i64;
                let (last, shape) = (shape[rank - 1] as i64, if self.c.flag() { vec![flat] } else { vec![] });
                let shape = if shape.is_empty() { vec![flat / last, 1, last] } else { shape };
                self.add(Reshape { shape: shape.into_iter().map(Dim::Const).collect() }, &[y])
            }
            14 => {
                let other = self.any(&shape);
                let axis = self.c.below(rank);
                let parts = if self.c.flag() { [y, other] } else { [other, y] };
                self.add(Concat { axis }, &parts)
            }
            _ => {
                let (k, n) = (shape[rank - 1], self.size());
                if shape.iter().product::<usize>() * n > WORK {
                    return None;
                }
                let w = self.any(&[k, n]);
                self.add(MatMul {}, &[y, w])
            }
        }
    }
}

/// Weights `[inner, columns]` that compact forms might not hold: zeros, denormal numbers, far apart, not finite.
pub fn hostile_weights(inner: usize, columns: usize, noise: &[f32], c: &mut Choices) -> Tensor {
    let mut w: Vec<f64> = noise.iter().map(|&v| f64::from(v)).collect();
    for _ in 0..c.below(8) {
        let (first, step) = (c.below(columns), 1 + c.below(columns));
        let kind = c.below(10);
        let (row, every) = (c.below(256) % inner, 1 + c.below(9));
        for n in (first..columns).step_by(step) {
            for k in (0..inner).step_by(if kind < 5 { every } else { 1 }) {
                let at = &mut w[k * columns + n];
                match kind {
                    0 | 5 => *at = 0.0,
                    1 => *at = -0.0,
                    2 => *at *= 1e-42,
                    3 => *at *= 1e-10,
                    4 => *at *= 1e-4,
                    6 => *at *= 1e-22,
                    7 if k == row => *at = 1e5,
                    8 if k == row => *at = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN][every % 3],
                    9 => *at = at.signum() * 3e5,
                    _ => {}
                }
            }
        }
    }
    Tensor::from_f64(DType::F32, vec![inner, columns], w)
}
