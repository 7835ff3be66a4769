//! Random operators on cells of a tensor: normalisations by channel of any shape (planes next to multiples of the lanes, few long cells,
//! many short ones), what is fused behind them, and positions of extremes.

use crate::choices::Choices;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, Op, TensorType};

/// Elements that the evaluator can be asked for.
const ELEMENTS: usize = 220_000;

struct Net<'c> {
    c: Choices<'c>,
    g: Graph,
    seed: u64,
}

/// A normalisation by channel and what is behind it, if it is small enough.
pub fn random_norm(choices: &[u8]) -> Option<Graph> {
    let mut n = Net { c: Choices::new(choices), g: Graph::new("random"), seed: 0 };
    let rank = 2 + n.c.below(4);
    let shape: Vec<usize> = (0..rank).map(|d| n.size(d)).collect();
    let x = n.input(&shape)?;
    let channels = shape[1];
    let [scale, bias] = [n.any(&[channels])?, n.any(&[channels])?];
    let mut y = match n.c.below(3) {
        0 => n.add(InstanceNorm { eps: 1e-2 }, &[x, scale, bias])?,
        1 => {
            let divisors: Vec<usize> = (1..=channels).filter(|d| channels.is_multiple_of(*d)).collect();
            let groups = divisors[n.c.below(divisors.len())];
            n.add(GroupNorm { groups, eps: 1e-2 }, &[x, scale, bias])?
        }
        _ => {
            let statistics = [n.any(&[channels])?, n.any(&[channels])?];
            let y =
                n.add(BatchNormTrain { eps: 1e-2, momentum: 0.75 }, &[x, scale, bias, statistics[0], statistics[1]])?;
            n.g.add_output("mean", y.node.out(1));
            n.g.add_output("variance", y.node.out(2));
            y
        }
    };
    for _ in 0..n.c.below(5) {
        y = n.behind(y, &shape)?;
    }
    n.g.add_output("y", y);
    Some(n.g)
}

impl Net<'_> {
    /// Images are few, channels next to multiples of the lanes or few, planes of any size.
    fn size(&mut self, axis: usize) -> usize {
        match (axis, self.c.below(4)) {
            (0, some) => [1, 1, 2, 3][some],
            (_, 0) => 1 + self.c.below(17),
            (1, _) => [3, 4, 12, 32, 48, 60, 65, 96][self.c.below(8)],
            (_, 1) => 8 * (1 + self.c.below(9)) + self.c.below(3) - 1,
            (2, 2) => [200, 1000, 1025, 4096, 5000, 9001, 70_000, 131_100][self.c.below(8)],
            _ => [1, 2, 7, 8, 14, 28, 56, 100][self.c.below(8)],
        }
    }

    fn input(&mut self, shape: &[usize]) -> Option<ValueId> {
        let name = format!("x{}", self.g.inputs().len());
        let small = shape.iter().product::<usize>() <= ELEMENTS;
        small.then(|| self.g.add_input(&name, TensorType::new(DType::F32, shape.iter().map(|&d| d as i64))))
    }

    /// Given in the run, or constant.
    fn any(&mut self, shape: &[usize]) -> Option<ValueId> {
        if self.c.flag() {
            return self.input(shape);
        }
        self.seed += 1;
        Some(self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed }))
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        self.g.add1(op, inputs, vec![]).ok()
    }

    /// An activation, or something of another value: of the result's shape, by channel, by channel of each image, one number.
    fn behind(&mut self, y: ValueId, shape: &[usize]) -> Option<ValueId> {
        let kind = self.c.below(7);
        let kept = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
            shape.iter().enumerate().map(|(d, &n)| if keep(d) { n } else { 1 }).collect()
        };
        let other = match kind {
            0 => return self.add(Unary { f: UnaryFn::Relu }, &[y]),
            1 => {
                let gate = self.add(Unary { f: UnaryFn::Sigmoid }, &[y])?;
                return self.add(Binary { f: BinaryFn::Mul }, &[y, gate]);
            }
            2 => shape.to_vec(),
            3 => kept(&|d| d == 1)[1..].to_vec(),
            4 => kept(&|d| d < 2),
            5 => kept(&|d| d + 1 == shape.len())[self.c.below(shape.len())..].to_vec(),
            _ => vec![1],
        };
        let other = self.any(&other)?;
        let f = [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Sub, BinaryFn::Max][self.c.below(4)];
        let operands = if self.c.flag() { [y, other] } else { [other, y] };
        self.add(Binary { f }, &operands)
    }
}
