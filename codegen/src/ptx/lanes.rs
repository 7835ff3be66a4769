//! Vector loops: several lanes in a thread, and loops shared by the threads of a group.
//!
//! ```text
//! for i in start..end { body }       // 4 lanes, 32 threads
//!
//! i = start + 4 * thread
//! while i < end { body on lanes i..i+4; i += 128 }
//! v = v op (all lanes of all threads, by halves)    // for each `v = v op e` in the body
//! ```
//!
//! A body is computed in lanes if its control flow is the same in all of them, and if that makes its accesses vectors: it is emitted
//! and looked at, and emitted again without lanes if not. The order of a reduction is fixed by the code.

use super::emit::{Emit, set_in};
use super::func::{Shared, SharedArray};
use super::index::{Index, IntReg};
use super::reg::*;
use super::schedule::{Group, trip};
use super::value::{Scalar, Val};
use crate::kernel::{BinOp, Expr, LoopKind, Stmt, Var, computing_type};
use lehr_ir::DType;
use std::collections::{BTreeMap, HashSet};

/// Most lanes of a thread.
const MAX_LANES: i64 = 8;
/// Name of the shared memory that reductions of a block pass through, 8 bytes a warp.
const SCRATCH: &str = "partial";

impl Emit<'_> {
    /// Emits a short vector loop at once, in lanes. False, and nothing emitted, if it is to be a loop.
    pub(super) fn widened(&mut self, s: &Stmt) -> bool {
        let Stmt::For { var, start, end, step, body, .. } = s else { unreachable!("only loops are widened") };
        let Some(n) = trip(start, end, *step).filter(|&n| *step == 1 && n > 1 && n <= MAX_LANES) else { return false };
        if self.width > 1 || !matches!(n, 2 | 4 | 8) || !same_flow(*var, body) {
            return false;
        }
        let mut outside = HashSet::new();
        set_in(body, &mut outside);
        let mut inside = HashSet::new();
        defined(body, &mut inside);
        if outside.iter().any(|v| !inside.contains(v)) {
            // A reduction into a scalar gains nothing from lanes.
            return false;
        }
        self.attempt(|e| {
            let first = e.index(start);
            e.width = n as usize;
            let high = first.high.saturating_add(n - 1);
            e.values[*var as usize] = Some(Val::index(Index { stride: 1, high, ..first }));
            e.block(body);
            e.width = 1;
        })
    }

    /// Runs `emit`; takes it back if it did not move lanes by vectors at least as often as one by one.
    pub(super) fn attempt(&mut self, emit: impl FnOnce(&mut Self)) -> bool {
        let mark = self.f.mark();
        let (values, slots) = (self.values.clone(), self.slots.clone());
        let before = (self.vectors, self.singles);
        emit(self);
        let (vectors, singles) = (self.vectors - before.0, self.singles - before.1);
        if vectors > 0 && vectors >= singles {
            return true;
        }
        self.f.rewind(mark);
        (self.values, self.slots, self.width) = (values, slots, 1);
        (self.vectors, self.singles) = before;
        false
    }

    /// A vector loop over the threads of the group.
    pub(super) fn spread_loop(&mut self, s: &Stmt) {
        let Stmt::For { var, start, end, step, body, .. } = s else { unreachable!("only loops are spread") };
        let mut set = HashSet::new();
        set_in(body, &mut set);
        let mut inside = HashSet::new();
        defined(body, &mut inside);
        let mut reductions = BTreeMap::new();
        for v in set.into_iter().filter(|v| !inside.contains(v)) {
            let op = reduced_by(body, v).expect("a vector loop sets variables from outside in reductions alone");
            reductions.insert(v, op);
        }
        let ordered = self.stores_to_shared(body);
        if ordered {
            self.group_barrier();
        }
        let (first, last) = (self.index(start), self.index(end));
        let lanes = self.lanes_for(*var, start, end, *step, body);
        let done = lanes > 1 && self.attempt(|e| e.spread_lanes(*var, (first, last), *step, lanes, body, &reductions));
        if !done {
            self.spread_lanes(*var, (first, last), *step, 1, body, &reductions);
        }
        if ordered {
            self.group_barrier();
        }
    }

    /// As many lanes as make 16 bytes of the largest element, where the loop is made of whole ones.
    fn lanes_for(&self, var: Var, start: &Expr, end: &Expr, step: i64, body: &[Stmt]) -> usize {
        let Some(n) = trip(start, end, step) else { return 1 };
        if step != 1 || start.as_i64() != Some(0) || !same_flow(var, body) {
            return 1;
        }
        let largest = self.k.params.iter().map(|p| p.dtype.size()).max().unwrap_or(8);
        let lanes = (16 / largest).clamp(1, 4);
        if n % lanes as i64 == 0 && n >= 32 * lanes as i64 { lanes } else { 1 }
    }

    fn spread_lanes(
        &mut self,
        var: Var,
        (first, last): (Index, Index),
        step: i64,
        lanes: usize,
        body: &[Stmt],
        reductions: &BTreeMap<Var, BinOp>,
    ) {
        let (thread, _) = self.thread.expect("groups number their threads");
        let threads = self.threads_of_group();
        let number = Index::register(IntReg::Narrow(thread), 1, 0, threads - 1);
        let offset = self.f.scale_index(&number, step * lanes as i64);
        let start = self.f.add_index(&first, &offset);
        let totals: Vec<Val> = reductions.keys().map(|&v| self.slots[v as usize].clone().expect("defined")).collect();
        self.width = lanes;
        self.spread = true;
        for (&v, &op) in reductions {
            let t = self.k.vars[v as usize];
            let parts = (0..lanes).map(|_| {
                let n = neutral(op, t);
                match n {
                    Neutral::Bool(b) => {
                        let r = self.f.mov(Src::<Pred>::Imm(b as u64));
                        Scalar::Pred(r)
                    }
                    Neutral::Number(s) => self.copy(s),
                }
            });
            let parts: Vec<Scalar> = parts.collect();
            self.slots[v as usize] = Some(if lanes == 1 { Val::Uniform(parts[0]) } else { Val::Lanes(parts) });
        }
        // The bound is one of lane 0, and so are what `counted` knows of the variable.
        self.counted(var, start, last, step * threads * lanes as i64, |e| {
            if lanes > 1 {
                let at = e.values[var as usize].as_ref().and_then(Val::as_index).expect("a loop variable is an index");
                let multiple = super::index::gcd(at.multiple, lanes as i64);
                e.values[var as usize] = Some(Val::index(Index { stride: 1, multiple, ..at }));
            }
            e.block(body);
        });
        self.spread = false;
        self.width = 1;
        for ((&v, &op), total) in reductions.iter().zip(totals) {
            let t = self.k.vars[v as usize];
            let parts = self.slots[v as usize].clone().expect("set above");
            let mut parts: Vec<Scalar> = (0..lanes).map(|l| parts.lane(l)).collect();
            while parts.len() > 1 {
                let high = parts.split_off(parts.len() / 2);
                for (low, high) in parts.iter_mut().zip(high) {
                    *low = self.binary(op, t, *low, high);
                }
            }
            let sum = self.over_group(op, t, parts[0]);
            self.slots[v as usize] = Some(total.clone());
            let sum = self.binary(op, t, total.lane(0), sum);
            self.write_slot(v, &Val::Uniform(sum));
        }
    }

    fn threads_of_group(&self) -> i64 {
        match self.schedule.group {
            Group::Thread | Group::Tile => 1,
            Group::Warp => 32,
            Group::Block => self.schedule.threads as i64,
        }
    }

    /// All threads' values of a group as one, which all of them get.
    fn over_group(&mut self, op: BinOp, t: DType, v: Scalar) -> Scalar {
        let mut v = v;
        for mask in [16, 8, 4, 2, 1] {
            let other = self.exchange(v, mask);
            v = self.binary(op, t, v, other);
        }
        if self.schedule.group != Group::Block || self.schedule.threads == 32 {
            return v;
        }
        if !self.f.shared.iter().any(|a| a.name == SCRATCH) {
            self.f.shared.push(SharedArray { name: SCRATCH.into(), bytes: self.schedule.threads / 32 * 8 });
        }
        let scratch = self.f.shared_address(SCRATCH);
        let (thread, _) = self.thread.expect("groups number their threads");
        let lane = self.f.and(thread, 31);
        let leader = self.f.setp::<S32>(super::func::Cmp::Eq, lane, 0);
        let warp = self.f.shr::<U32>(thread, 5);
        let own = self.f.mad::<S32>(warp, 8, scratch);
        self.put_shared(own, v, leader);
        self.f.barrier();
        let mut sum = self.take_shared(scratch, 0, v);
        for w in 1..self.schedule.threads as i64 / 32 {
            let part = self.take_shared(scratch, 8 * w, v);
            sum = self.binary(op, t, sum, part);
        }
        self.f.barrier();
        sum
    }

    /// The value of the thread whose lane differs by `mask`.
    fn exchange(&mut self, v: Scalar, mask: u32) -> Scalar {
        let f = &mut self.f;
        let wide = |f: &mut super::func::Func, r: Reg<B64>| {
            let (low, high) = f.split(r);
            let (low, high) = (f.shuffle_xor(low, mask), f.shuffle_xor(high, mask));
            f.join(low, high)
        };
        match v {
            Scalar::Pred(p) => {
                let word = f.selp::<B32>(p, 1, 0);
                let other = f.shuffle_xor(word, mask);
                Scalar::Pred(f.setp::<U32>(super::func::Cmp::Ne, other, 0))
            }
            Scalar::B32(v) => {
                let v = super::emit::in_reg(f, v);
                Scalar::B32(f.shuffle_xor(v, mask).into())
            }
            Scalar::F32(v) => {
                let bits: Reg<B32> = f.bits::<B32, F32>(v);
                let other = f.shuffle_xor(bits, mask);
                Scalar::F32(f.bits::<F32, B32>(other).into())
            }
            Scalar::F64(v) => {
                let bits: Reg<B64> = f.bits::<B64, F64>(v);
                let other = wide(f, bits);
                Scalar::F64(f.bits::<F64, B64>(other).into())
            }
            Scalar::B64(v) => {
                let v = super::emit::in_reg(f, v);
                Scalar::B64(wide(f, v).into())
            }
            Scalar::Int(i) => {
                let v = f.wide(&i);
                let v = super::emit::in_reg(f, v);
                Scalar::Int(Index::unknown(wide(f, v)))
            }
        }
    }

    fn put_shared(&mut self, at: Reg<B32>, v: Scalar, only: Reg<Pred>) {
        let f = &mut self.f;
        let v = match v {
            Scalar::Int(i) => Scalar::B64(f.wide(&i)),
            Scalar::Pred(p) => Scalar::B32(f.selp::<B32>(p, 1, 0).into()),
            v => v,
        };
        f.guarded(only, true, |f| match v {
            Scalar::F32(v) => f.st::<Shared, F32>(at, 0, v),
            Scalar::F64(v) => f.st::<Shared, F64>(at, 0, v),
            Scalar::B64(v) => f.st::<Shared, B64>(at, 0, v),
            Scalar::B32(v) => f.st::<Shared, B32>(at, 0, v),
            Scalar::Pred(_) | Scalar::Int(_) => unreachable!("these are words by now"),
        });
    }

    /// A value of the kind of `like`.
    fn take_shared(&mut self, at: Reg<B32>, offset: i64, like: Scalar) -> Scalar {
        let f = &mut self.f;
        match like {
            Scalar::F32(_) => Scalar::F32(f.ld::<Shared, F32>(at, offset).into()),
            Scalar::F64(_) => Scalar::F64(f.ld::<Shared, F64>(at, offset).into()),
            Scalar::B64(_) => Scalar::B64(f.ld::<Shared, B64>(at, offset).into()),
            Scalar::Int(_) => Scalar::Int(Index::unknown(f.ld::<Shared, B64>(at, offset))),
            Scalar::B32(_) => Scalar::B32(f.ld::<Shared, B32>(at, offset).into()),
            Scalar::Pred(_) => {
                let v = f.ld::<Shared, B32>(at, offset);
                Scalar::Pred(f.setp::<U32>(super::func::Cmp::Ne, v, 0))
            }
        }
    }

    fn stores_to_shared(&self, body: &[Stmt]) -> bool {
        body.iter().any(|s| match s {
            Stmt::Store { buf, .. } => self.k.params[*buf as usize].access == crate::kernel::Access::ReadWrite,
            Stmt::For { body, .. } | Stmt::While { body, .. } => self.stores_to_shared(body),
            Stmt::If { then, otherwise, .. } => self.stores_to_shared(then) || self.stores_to_shared(otherwise),
            Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => false,
        })
    }
}

enum Neutral {
    Bool(bool),
    Number(Scalar),
}

/// What leaves the other operand as it is.
fn neutral(op: BinOp, t: DType) -> Neutral {
    let float = |v: f64| match computing_type(t) {
        DType::F64 => Scalar::F64(v.into()),
        _ => Scalar::F32((v as f32).into()),
    };
    let (bits, signed) = (t.bits(), t.is_signed());
    let ends = || match signed {
        true => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
        false => (0, (u64::MAX >> (64 - bits)) as i64),
    };
    if t == DType::Bool {
        return Neutral::Bool(op == BinOp::And || op == BinOp::Mul || op == BinOp::Min);
    }
    Neutral::Number(match (op, t.is_float()) {
        (BinOp::Add, true) => float(-0.0),
        (BinOp::Mul, true) => float(1.0),
        (BinOp::Min, true) => float(f64::INFINITY),
        (BinOp::Max, true) => float(f64::NEG_INFINITY),
        (BinOp::Add | BinOp::Or | BinOp::Xor, false) => super::value::constant(t, 0),
        (BinOp::Mul, false) => super::value::constant(t, 1),
        (BinOp::And, false) if signed => super::value::constant(t, -1),
        (BinOp::And | BinOp::Min, false) => super::value::constant(t, ends().1),
        (BinOp::Max, false) => super::value::constant(t, ends().0),
        _ => unreachable!("{op:?} does not reduce"),
    })
}

/// The operation of the first `var = var op e`.
fn reduced_by(body: &[Stmt], var: Var) -> Option<BinOp> {
    body.iter().find_map(|s| match s {
        Stmt::Set { var: v, value: Expr::Binary(op, ..) } if *v == var => Some(*op),
        Stmt::For { body, .. } | Stmt::While { body, .. } => reduced_by(body, var),
        Stmt::If { then, otherwise, .. } => reduced_by(then, var).or_else(|| reduced_by(otherwise, var)),
        Stmt::Let { .. }
        | Stmt::Set { .. }
        | Stmt::Store { .. }
        | Stmt::Fault(_)
        | Stmt::Leaf { .. }
        | Stmt::Contract(_) => None,
    })
}

/// Variables that a body defines.
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

/// Whether the body takes the same path for every value of `var`: no condition and no bound depends on it.
pub(super) fn same_flow(var: Var, body: &[Stmt]) -> bool {
    let mut varying = HashSet::from([var]);
    // A variable varies once anything it is set to does; that may make others vary.
    loop {
        let before = varying.len();
        spread_varying(body, &mut varying);
        if varying.len() == before {
            break;
        }
    }
    flows(body, &varying)
}

fn spread_varying(body: &[Stmt], varying: &mut HashSet<Var>) {
    for s in body {
        match s {
            Stmt::Let { var, value } | Stmt::Set { var, value } => {
                if mentions(value, varying) {
                    varying.insert(*var);
                }
            }
            Stmt::For { body, .. } | Stmt::While { body, .. } => spread_varying(body, varying),
            Stmt::If { then, otherwise, .. } => {
                spread_varying(then, varying);
                spread_varying(otherwise, varying);
            }
            Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => {}
        }
    }
}

fn flows(body: &[Stmt], varying: &HashSet<Var>) -> bool {
    body.iter().all(|s| match s {
        Stmt::For { start, end, kind, body, .. } => {
            let inner = *kind == LoopKind::Serial || !mentions(start, varying);
            inner && !mentions(start, varying) && !mentions(end, varying) && flows(body, varying)
        }
        Stmt::If { cond, then, otherwise } => {
            !mentions(cond, varying) && flows(then, varying) && flows(otherwise, varying)
        }
        Stmt::While { cond, body } => !mentions(cond, varying) && flows(body, varying),
        Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Store { .. } => true,
        Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => false,
    })
}

pub(super) fn mentions(e: &Expr, vars: &HashSet<Var>) -> bool {
    match e {
        Expr::Int(..) | Expr::Float(..) => false,
        Expr::Var(v) => vars.contains(v),
        Expr::Load { index: a, .. } | Expr::Unary(_, a) | Expr::Cast(_, a) => mentions(a, vars),
        Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => mentions(a, vars) || mentions(b, vars),
        Expr::Select(c, a, b) => mentions(c, vars) || mentions(a, vars) || mentions(b, vars),
    }
}
