//! Random kernels: nested loops, conditions, accumulators and reductions over expressions of all types. Operations are those whose result
//! does not depend on the order of lanes, so interpreter and compiled code agree to the bit.

use crate::common::{Rng, agree, buffers};
use lehr_codegen::kernel::{
    Access, BinOp, Blocks, CmpOp, Expr, Kernel, KernelBuilder, LoopKind, Param, UnOp, Var, computing_type,
};
use lehr_ir::DType;
use proptest::prelude::*;

const TYPES: [DType; 8] =
    [DType::F32, DType::F64, DType::I32, DType::U8, DType::I64, DType::F16, DType::I16, DType::U32];
/// Elements of every buffer.
const LEN: usize = 2000;

struct Gen {
    b: KernelBuilder,
    rng: Rng,
    inputs: Vec<(Param, DType)>,
    output: (Param, DType),
    /// Loop variables in scope, each below 40.
    indices: Vec<Expr>,
    /// Values in scope.
    values: Vec<(DType, Expr)>,
    accumulators: Vec<(DType, Var)>,
}

impl Blocks for Gen {
    fn builder(&mut self) -> &mut KernelBuilder {
        &mut self.b
    }
}

impl Gen {
    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.below(all.len() as u64) as usize]
    }

    /// An index within bounds: mostly linear in the loop variables.
    fn index(&mut self) -> Expr {
        let mut at = Expr::i64(self.rng.below(100) as i64);
        for v in self.indices.clone() {
            at = at + v * self.pick(&[0, 1, 1, 1, 2, 3, 7]);
        }
        match self.rng.below(6) {
            0 => at % 97,
            1 => {
                let by = self.of(DType::I64, 1);
                (at + Expr::binary(BinOp::And, by, Expr::i64(31))).min(Expr::i64(LEN as i64 - 1)).max(Expr::i64(0))
            }
            _ => at,
        }
    }

    fn of(&mut self, t: DType, depth: u32) -> Expr {
        let known: Vec<Expr> = self.values.iter().filter(|(u, _)| *u == t).map(|(_, e)| e.clone()).collect();
        match self.rng.below(if depth == 0 { 4 } else { 10 }) {
            0 => Expr::number(t, self.rng.below(9) as f64 - if t.is_signed() { 4.0 } else { 0.0 }),
            1 if !known.is_empty() => known[self.rng.below(known.len() as u64) as usize].clone(),
            1..4 => {
                let matching: Vec<_> = self.inputs.iter().filter(|(_, u)| computing_type(*u) == t).copied().collect();
                let Some(&(p, _)) = matching.first() else { return self.convert(t, depth) };
                let index = self.index();
                self.b.load(p, index)
            }
            4 => self.convert(t, depth),
            5 => {
                let (c, a, b) = (self.condition(depth - 1), self.of(t, depth - 1), self.of(t, depth - 1));
                Expr::select(c, a, b)
            }
            6 => {
                let op = match t.is_float() {
                    true => self.pick(&[
                        UnOp::Neg,
                        UnOp::Abs,
                        UnOp::Sqrt,
                        UnOp::Floor,
                        UnOp::Ceil,
                        UnOp::Trunc,
                        UnOp::Round,
                    ]),
                    false => self.pick(&[UnOp::Neg, UnOp::Abs, UnOp::Not]),
                };
                Expr::unary(op, self.of(t, depth - 1))
            }
            _ => {
                let all = [
                    BinOp::Add,
                    BinOp::Sub,
                    BinOp::Mul,
                    BinOp::Min,
                    BinOp::Max,
                    BinOp::Div,
                    BinOp::Rem,
                    BinOp::And,
                    BinOp::Xor,
                ];
                let op = self.pick(if t.is_float() { &all[..6] } else { &all });
                let (a, b) = (self.of(t, depth - 1), self.of(t, depth - 1));
                Expr::binary(op, a, b)
            }
        }
    }

    fn convert(&mut self, t: DType, depth: u32) -> Expr {
        let (p, _) = {
            let all = self.inputs.clone();
            self.pick(&all)
        };
        match (self.rng.below(3), self.indices.last()) {
            (0, Some(i)) => Expr::cast(t, i.clone()),
            (1, _) if depth > 0 => Expr::cast(t, self.condition(depth - 1)),
            _ => {
                let index = self.index();
                Expr::cast(t, self.b.load(p, index))
            }
        }
    }

    fn condition(&mut self, depth: u32) -> Expr {
        let t = computing_type(self.pick(&TYPES));
        let op = self.pick(&[CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge]);
        let c = Expr::compare(op, self.of(t, depth), self.of(t, depth));
        match self.rng.below(4) {
            0 if depth > 0 => Expr::unary(UnOp::Not, self.condition(depth - 1)),
            1 if depth > 0 => {
                Expr::binary(self.pick(&[BinOp::And, BinOp::Or, BinOp::Xor]), c, self.condition(depth - 1))
            }
            _ => c,
        }
    }

    fn scoped(&mut self, f: impl FnOnce(&mut Self)) {
        let (indices, values, accumulators) = (self.indices.len(), self.values.len(), self.accumulators.clone());
        f(self);
        self.indices.truncate(indices);
        self.values.truncate(values);
        self.accumulators = accumulators;
    }

    /// Statements in a loop nest so deep. A vector loop is `Some`; inside it, nothing from outside is set.
    fn body(&mut self, depth: u32, in_vector: bool) {
        for _ in 0..1 + self.rng.below(3) {
            match self.rng.below(8) {
                0..3 => {
                    let t = computing_type(self.pick(&TYPES));
                    let e = self.of(t, 3);
                    let v = self.b.let_(e);
                    self.values.push((t, v));
                }
                3 => {
                    let t = computing_type(self.pick(&TYPES));
                    let e = self.of(t, 1);
                    let v = self.b.mutable(e);
                    self.accumulators.push((t, v));
                    self.values.push((t, Expr::Var(v)));
                }
                4 if !self.accumulators.is_empty() => {
                    let all = self.accumulators.clone();
                    let (t, v) = self.pick(&all);
                    let e = self.of(t, 2);
                    self.b.set(v, e);
                }
                5 => {
                    let c = match (self.rng.below(2), self.indices.first()) {
                        (0, Some(i)) => Expr::compare(CmpOp::Lt, i.clone(), Expr::i64(2)),
                        _ => self.condition(1),
                    };
                    let t = DType::I32;
                    let v = self.b.mutable(Expr::number(t, 1.0));
                    let e = self.of(t, 1);
                    self.if_else(c, |g| g.b.set(v, e), |g| g.b.set(v, Expr::number(t, 2.0)));
                    self.values.push((t, Expr::Var(v)));
                }
                _ if depth > 0 => self.nested(depth, in_vector),
                _ => {}
            }
        }
    }

    fn nested(&mut self, depth: u32, in_vector: bool) {
        let n = self.pick(&[1, 2, 3, 5, 9, 17, 37]);
        let end = match self.rng.below(3) {
            0 => Expr::binary(BinOp::Min, self.b.let_(Expr::Var(0) + n), Expr::i64(40)),
            _ => Expr::i64(n),
        };
        self.scoped(|g| {
            if in_vector || g.rng.below(2) == 0 {
                return g.for_(LoopKind::Serial, Expr::i64(0), end, 1, |g, i| {
                    g.indices.push(i);
                    g.body(depth - 1, in_vector);
                });
            }
            // Nothing outside may be set but the reduction; the output gets an element per iteration.
            g.accumulators.clear();
            let t = computing_type(g.pick(&TYPES));
            let op = g.pick(if t.is_float() { &[BinOp::Min, BinOp::Max] } else { &[BinOp::Add, BinOp::Max] });
            let total = g.b.mutable(Expr::number(t, 3.0));
            g.for_(LoopKind::Vector, Expr::i64(0), end, 1, |g, i| {
                g.indices.push(i.clone());
                g.body(depth - 1, true);
                let e = g.of(t, 2);
                // A reduction does not read its variable.
                g.b.set(total, Expr::binary(op, Expr::Var(total), e));
                let (p, u) = g.output;
                let e = g.of(computing_type(u), 2);
                g.b.store(p, Expr::Var(0) * 40 + i, e);
            });
            let (p, u) = g.output;
            g.b.store(p, Expr::Var(0) + 1900, Expr::cast(u, Expr::Var(total)));
        });
    }
}

fn kernel(seed: u64) -> Kernel {
    let mut rng = Rng(seed);
    let mut b = KernelBuilder::new(format!("random_{seed}"));
    let inputs = (0..3)
        .map(|_| {
            let t = TYPES[rng.below(8) as usize];
            (b.param(t, LEN, Access::Read), t)
        })
        .collect();
    let t = TYPES[rng.below(8) as usize];
    let output = (b.param(t, LEN, Access::ReadWrite), t);
    let p = b.parallel(3, 10_000);
    let mut g = Gen { b, rng, inputs, output, indices: vec![p], values: vec![], accumulators: vec![] };
    g.body(3, false);
    g.nested(2, false);
    g.b.finish(vec![])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_kernels_agree(seed: u64) {
        let k = kernel(seed);
        agree(&k, &buffers(&k, &mut Rng(seed ^ 1)), 0);
    }
}
