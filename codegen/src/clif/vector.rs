//! Vector loops: which ones, with how many lanes, and their code.
//!
//! ```text
//! for i in start..end { body }        // lanes = 16, say
//!
//! i = start
//! while i + 15 < end { body on lanes i..i+16; i += 16 }
//! while i + 3 < end  { body on lanes i..i+4;  i += 4 }     // one 128-bit vector
//! while i < end      { body; i += 1 }
//! ```
//!
//! Lanes beyond one vector's are several vectors: that unrolls the loop and gives a reduction several accumulators.
//! A reduction `v = v op e` of a variable from outside starts from op's neutral element in every lane; the lanes are combined by halves at
//! the end of each loop above, in an order that depends on the code alone.

use super::emit::{Emit, Form, Trip};
use super::math;
use super::ops::Second;
use super::value::{Val, in_regs, scalar_type, vector_type};
use crate::kernel::{BinOp, Expr, Kernel, Stmt, Var, computing_type};
use cranelift::prelude::*;
use lehr_ir::DType;
use std::collections::{BTreeMap, HashSet};

/// What the analysis of a loop's body found.
struct Shape {
    /// Variables of the loop that differ between lanes.
    varying: HashSet<Var>,
    /// Variables from outside, by the operation that reduces into them.
    reductions: BTreeMap<Var, BinOp>,
    /// Sizes of the elements that are computed with or moved in lanes; not 64-bit integers, which are mostly indices.
    smallest: usize,
    largest: usize,
    /// Operations on lanes, roughly.
    work: usize,
    /// Variables that are set again and again, which stay in registers.
    accumulators: HashSet<Var>,
}

/// Emits `s`, a loop, with several iterations at once. False, and nothing emitted, if it is to be run serially.
pub(super) fn emit(e: &mut Emit, s: &Stmt) -> bool {
    let Stmt::For { var, start, end, step, body, .. } = s else { unreachable!("only loops are vectorised") };
    if !e.target.simd {
        return false;
    }
    let Some(shape) = analyse(e.k, *var, body) else { return false };
    let trip = start.as_i64().zip(end.as_i64()).map(|(s, n)| ((n - s).max(0) + step - 1) / step);
    let mut left = trip;
    let start = e.eval_uniform(start);
    let end = e.eval_uniform(end);
    let mut at = start;
    for lanes in shape.lanes(trip) {
        let (stride, known) = (lanes as i64 * step, left.map(|n| n / lanes as i64));
        left = left.map(|n| n % lanes as i64);
        if known == Some(0) {
            continue;
        }
        let outer: Vec<_> = shape.reductions.iter().filter(|_| lanes > 1).map(|(&v, &op)| (v, op)).collect();
        let totals: Vec<Val> = outer.iter().map(|&(v, _)| e.read(v)).collect();
        e.lanes = lanes;
        e.varying.clone_from(&shape.varying);
        let saved: Vec<_> = outer
            .iter()
            .map(|&(v, op)| {
                let form = e.slot_form(v);
                let saved = e.open_slot(v, form);
                let neutral = neutral(e, op, e.k.vars[v as usize]);
                e.write_slot(v, &neutral);
                saved
            })
            .collect();
        let limit = e.add_imm(end, -(stride - step));
        let (var, step) = (*var, *step);
        let iteration = |e: &mut Emit, i: Value| {
            e.depth_of[var as usize] = e.depth;
            e.linear.remove(&var);
            let v = if lanes == 1 { Val::Uniform(i) } else { Val::Affine { base: i, stride: step } };
            e.values.insert(var, v);
            e.block(body);
        };
        at = match known {
            Some(1) => {
                iteration(e, at);
                e.add_imm(at, stride)
            }
            Some(_) => e.counted(at, limit, stride, Trip::AtLeastOnce, iteration),
            None => e.counted(at, limit, stride, Trip::Unknown, iteration),
        };
        let partial: Vec<Val> = outer.iter().map(|&(v, _)| e.read(v)).collect();
        let combined: Vec<Value> = outer.iter().zip(&partial).map(|(&(v, op), p)| combine(e, op, v, p)).collect();
        e.lanes = 1;
        for ((((v, op), saved), total), sum) in outer.into_iter().zip(saved).zip(totals).zip(combined) {
            e.restore_slot(v, saved);
            let t = e.k.vars[v as usize];
            let total = e.binary(op, t, &total, &Val::Uniform(sum), Second::Unknown);
            e.write_slot(v, &total);
        }
    }
    true
}

/// All lanes of a partial result as one: vectors by halves, then the lanes of the last one by halves.
fn combine(e: &mut Emit, op: BinOp, var: Var, partial: &Val) -> Value {
    let t = e.k.vars[var as usize];
    let mut values = vec![];
    match partial {
        // Bytes have no vector multiplication.
        Val::Regs(regs) if op != BinOp::Mul || t.size() > 1 => {
            let reg = halve(e, op, t, regs.clone(), Form::Regs)[0];
            values.extend((0..vector_type(t).lane_count()).map(|k| e.b.ins().extractlane(reg, k as u8)));
        }
        other => values = e.lanes_of(other),
    }
    halve(e, op, t, values, Form::Uniform)[0]
}

fn halve(e: &mut Emit, op: BinOp, t: DType, mut values: Vec<Value>, form: Form) -> Vec<Value> {
    let lanes = e.lanes;
    while values.len() > 1 {
        let high = values.split_off(values.len() / 2);
        for (low, high) in values.iter_mut().zip(high) {
            let wrap = |v| if form == Form::Regs { Val::Regs(vec![v]) } else { Val::Uniform(v) };
            // One vector at a time.
            e.lanes = if form == Form::Regs { 16 / t.size() } else { 1 };
            *low = match e.binary(op, t, &wrap(*low), &wrap(high), Second::Unknown) {
                Val::Uniform(v) => v,
                Val::Regs(regs) => regs[0],
                other => unreachable!("{other:?} of one vector"),
            };
        }
    }
    e.lanes = lanes;
    values
}

/// What leaves the other operand as it is.
fn neutral(e: &mut Emit, op: BinOp, t: DType) -> Val {
    let ty = scalar_type(t);
    let bits = 8 * t.size() as u32;
    let ones = if bits == 64 { -1 } else { (1i64 << bits) - 1 };
    let float = |e: &mut Emit, v: f64| match t {
        DType::F64 => e.b.ins().f64const(v),
        _ => e.b.ins().f32const(v as f32),
    };
    let v = match (op, t.is_float()) {
        (BinOp::Add, true) => float(e, -0.0),
        (BinOp::Mul, true) => float(e, 1.0),
        (BinOp::Min, true) => float(e, f64::INFINITY),
        (BinOp::Max, true) => float(e, f64::NEG_INFINITY),
        (BinOp::Add | BinOp::Or | BinOp::Xor, false) => e.b.ins().iconst(ty, 0),
        (BinOp::Mul, false) => e.b.ins().iconst(ty, 1),
        (BinOp::And, false) if t == DType::Bool => e.b.ins().iconst(ty, 1),
        (BinOp::And, false) => e.b.ins().iconst(ty, ones),
        (BinOp::Min, false) if t.is_signed() => e.b.ins().iconst(ty, (ones as u64 >> (65 - bits)) as i64),
        (BinOp::Min, false) => e.b.ins().iconst(ty, ones),
        (BinOp::Max, false) if t.is_signed() => e.b.ins().iconst(ty, 1i64 << (bits - 1)),
        (BinOp::Max, false) => e.b.ins().iconst(ty, 0),
        _ => unreachable!("{op:?} does not reduce"),
    };
    Val::Uniform(v)
}

impl Shape {
    /// Lanes of the loops to emit, decreasing to 1.
    fn lanes(&self, trip: Option<i64>) -> Vec<usize> {
        let one_vector = 16 / self.largest;
        // All elements in whole vectors, if that does not take too many of them.
        let all_dense = 16 / self.smallest;
        let mut lanes = if all_dense * self.largest <= 64 { all_dense } else { one_vector };
        let vectors = match self.work {
            0..=24 => 4,
            25..=60 => 2,
            _ => 1,
        };
        // There are 16 registers, for the accumulators and as many operands as one of them has.
        let fit = 15 / (self.accumulators.len() + 1);
        let vectors = vectors.min(fit.max(1));
        while lanes * self.largest * 2 <= 16 * vectors {
            lanes *= 2;
        }
        let mut all = vec![];
        let trip = trip.unwrap_or(i64::MAX);
        while lanes > one_vector && lanes as i64 > trip {
            lanes /= 2;
        }
        if lanes > one_vector {
            all.push(lanes);
        }
        if one_vector as i64 <= trip {
            all.push(one_vector);
        }
        all.push(1);
        all
    }
}

/// `None` if the iterations cannot be run several at once.
fn analyse(k: &Kernel, var: Var, body: &[Stmt]) -> Option<Shape> {
    let mut inside = HashSet::from([var]);
    defined(body, &mut inside);
    let mut shape = Shape {
        varying: HashSet::from([var]),
        reductions: BTreeMap::new(),
        smallest: 16,
        largest: 0,
        work: 0,
        accumulators: HashSet::new(),
    };
    find_reductions(body, &inside, &mut shape.reductions)?;
    shape.varying.extend(shape.reductions.keys());
    // A variable is varying once anything it is set to is; that may make others so.
    loop {
        let before = shape.varying.len();
        find_varying(body, &mut shape.varying);
        if shape.varying.len() == before {
            break;
        }
    }
    let mut walk = Walk { k, shape: &mut shape, ok: true };
    walk.block(body);
    let ok = walk.ok;
    if !ok || shape.largest == 0 {
        return None;
    }
    for &v in shape.reductions.keys() {
        let t = k.vars[v as usize];
        if !in_regs(t, 16) {
            shape.work += 8;
        }
    }
    Some(shape)
}

fn defined(body: &[Stmt], found: &mut HashSet<Var>) {
    for s in body {
        match s {
            Stmt::Let { var, .. } => {
                found.insert(*var);
            }
            Stmt::For { var, body, .. } => {
                found.insert(*var);
                defined(body, found);
            }
            Stmt::While { body, .. } => defined(body, found),
            Stmt::If { then, otherwise, .. } => {
                defined(then, found);
                defined(otherwise, found);
            }
            Stmt::Set { .. } | Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => {}
        }
    }
}

/// Variables from outside that the body sets: each must be reduced by one operation.
fn find_reductions(body: &[Stmt], inside: &HashSet<Var>, found: &mut BTreeMap<Var, BinOp>) -> Option<()> {
    for s in body {
        match s {
            Stmt::Set { var, value } if !inside.contains(var) => {
                let (op, _) = reduction(*var, value)?;
                if *found.entry(*var).or_insert(op) != op {
                    return None;
                }
            }
            Stmt::For { body, .. } | Stmt::While { body, .. } => find_reductions(body, inside, found)?,
            Stmt::If { then, otherwise, .. } => {
                find_reductions(then, inside, found)?;
                find_reductions(otherwise, inside, found)?;
            }
            Stmt::Let { .. }
            | Stmt::Set { .. }
            | Stmt::Store { .. }
            | Stmt::Fault(_)
            | Stmt::Leaf { .. }
            | Stmt::Contract(_) => {}
        }
    }
    Some(())
}

/// `var op e` or `e op var`: the operation and e.
fn reduction(var: Var, value: &Expr) -> Option<(BinOp, &Expr)> {
    let Expr::Binary(op, a, b) = value else { return None };
    let commutes =
        matches!(op, BinOp::Add | BinOp::Mul | BinOp::Min | BinOp::Max | BinOp::And | BinOp::Or | BinOp::Xor);
    let e = match (&**a, &**b) {
        (Expr::Var(v), e) | (e, Expr::Var(v)) if *v == var => e,
        _ => return None,
    };
    (commutes && !mentions(e, &|v| v == var)).then_some((*op, e))
}

fn mentions(e: &Expr, what: &dyn Fn(Var) -> bool) -> bool {
    match e {
        Expr::Int(..) | Expr::Float(..) => false,
        Expr::Var(v) => what(*v),
        Expr::Load { index: a, .. } | Expr::Unary(_, a) | Expr::Cast(_, a) => mentions(a, what),
        Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => mentions(a, what) || mentions(b, what),
        Expr::Select(c, a, b) => mentions(c, what) || mentions(a, what) || mentions(b, what),
    }
}

fn find_varying(body: &[Stmt], varying: &mut HashSet<Var>) {
    for s in body {
        match s {
            Stmt::Let { var, value } | Stmt::Set { var, value } => {
                if mentions(value, &|v| varying.contains(&v)) {
                    varying.insert(*var);
                }
            }
            Stmt::For { body, .. } | Stmt::While { body, .. } => find_varying(body, varying),
            Stmt::If { then, otherwise, .. } => {
                find_varying(then, varying);
                find_varying(otherwise, varying);
            }
            Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => {}
        }
    }
}

/// Checks statements and measures the work on lanes.
struct Walk<'w> {
    k: &'w Kernel,
    shape: &'w mut Shape,
    ok: bool,
}

impl Walk<'_> {
    fn varying(&self, e: &Expr) -> bool {
        mentions(e, &|v| self.shape.varying.contains(&v))
    }

    fn need_uniform(&mut self, e: &Expr) {
        self.ok &= !self.varying(e);
        self.expr(e);
    }

    fn block(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Let { value, .. } => self.expr(value),
                Stmt::Set { var, value } => {
                    self.shape.accumulators.insert(*var);
                    match self.shape.reductions.contains_key(var) {
                        // Reading a partial result elsewhere would see one lane's share.
                        true => match reduction(*var, value) {
                            Some((_, e)) => {
                                self.expr(e);
                                self.touch(self.k.vars[*var as usize]);
                            }
                            None => self.ok = false,
                        },
                        false => self.expr(value),
                    }
                }
                Stmt::Store { buf, index, value } => {
                    self.expr(index);
                    self.expr(value);
                    self.touch(self.k.params[*buf as usize].dtype);
                }
                Stmt::For { start, end, body, .. } => {
                    self.need_uniform(start);
                    self.need_uniform(end);
                    self.block(body);
                }
                Stmt::While { cond, body } => {
                    self.need_uniform(cond);
                    self.block(body);
                }
                Stmt::If { cond, then, otherwise } => {
                    let faults = then.iter().all(|s| matches!(s, Stmt::Fault(_))) && otherwise.is_empty();
                    if faults {
                        self.expr(cond);
                    } else {
                        self.need_uniform(cond);
                    }
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Fault(_) => {}
                Stmt::Leaf { .. } | Stmt::Contract(_) => self.ok = false,
            }
        }
    }

    /// An element type that lanes hold.
    fn touch(&mut self, t: DType) {
        self.shape.work += 1;
        if matches!(t, DType::I64 | DType::U64) {
            // Done lane by lane.
            self.shape.work += 8;
            self.shape.largest = self.shape.largest.max(8);
            return;
        }
        self.shape.smallest = self.shape.smallest.min(t.size());
        self.shape.largest = self.shape.largest.max(t.size());
    }

    fn expr(&mut self, e: &Expr) {
        if let Expr::Var(v) = e {
            self.ok &= !self.shape.reductions.contains_key(v);
            return;
        }
        let varying = self.varying(e);
        match e {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => {}
            Expr::Load { buf, index } => {
                self.expr(index);
                if varying {
                    self.touch(self.k.params[*buf as usize].dtype);
                }
            }
            Expr::Unary(op, a) => {
                self.expr(a);
                if varying {
                    self.operation(self.k.type_of(a));
                    self.shape.work += if math::is_inline(*op) { 25 } else { 0 };
                }
            }
            Expr::Cast(to, a) => {
                self.expr(a);
                if varying {
                    self.operation(computing_type(*to));
                }
            }
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => {
                self.expr(a);
                self.expr(b);
                if varying {
                    self.operation(self.k.type_of(a));
                }
            }
            Expr::Select(c, a, b) => {
                self.expr(c);
                self.expr(a);
                self.expr(b);
                if varying {
                    self.operation(self.k.type_of(a));
                }
            }
        }
    }

    /// Index arithmetic costs nothing; masks have the width of what was compared.
    fn operation(&mut self, t: DType) {
        if !matches!(t, DType::I64 | DType::U64 | DType::Bool) {
            self.touch(t);
        }
    }
}
