//! Statements of a kernel as PTX.
//!
//! What runs where is the [`schedule`](super::schedule)'s: one thread, one warp or one block for each iteration of the parallel
//! loop. With a warp or block (a *group*), all its threads compute the scalar code alike, vector loops are spread over
//! the threads, and a store outside of them is one thread's. Barriers stand around stores to what the kernel also reads.

use super::func::{Cmp, Func, Global, Label, Special};
use super::index::{Index, IntReg};
use super::reg::*;
use super::schedule::{Group, Schedule, unrolled};
use super::value::{Scalar, Val};
use crate::kernel::{Expr, Kernel, LoopKind, PARALLEL, Stmt, Var};
use lehr_ir::DType;
use std::collections::HashSet;

/// Where the fault word's address and the step's first fault come in.
pub const FAULT_WORD: &str = "fault_word";
pub const FIRST_FAULT: &str = "first_fault";

pub(super) struct Emit<'k> {
    pub k: &'k Kernel,
    pub f: Func,
    pub schedule: Schedule,
    pub bases: Vec<Reg<B64>>,
    /// Values of variables that are never set again, and of loop variables.
    pub values: Vec<Option<Val>>,
    /// Registers of variables that are.
    pub slots: Vec<Option<Val>>,
    pub mutable: HashSet<Var>,
    /// Lanes that a thread computes at once.
    pub width: usize,
    /// In a loop that is spread over the threads of a group.
    pub spread: bool,
    /// The thread's number in its group, and whether it is 0; for groups of more than one.
    pub thread: Option<(Reg<B32>, Reg<Pred>)>,
    /// The fault word and the number of the step's first fault.
    pub fault: Option<(Reg<B64>, Reg<B32>)>,
    /// Accesses of several lanes by vectors, and lane by lane.
    pub vectors: usize,
    pub singles: usize,
    /// Tables in constant memory that functions want.
    pub tables: HashSet<&'static str>,
    pub precision: super::Precision,
    /// Number of the block among those of its parallel iteration, for products in tiles.
    pub block: Option<Index>,
}

impl<'k> Emit<'k> {
    pub fn new(k: &'k Kernel, name: String, schedule: Schedule, precision: super::Precision) -> Emit<'k> {
        let mut mutable = HashSet::new();
        set_in(&k.body, &mut mutable);
        Emit {
            k,
            f: Func::new(name, schedule.threads),
            schedule,
            bases: vec![],
            values: vec![None; k.vars.len()],
            slots: vec![None; k.vars.len()],
            mutable,
            width: 1,
            spread: false,
            thread: None,
            fault: None,
            vectors: 0,
            singles: 0,
            tables: HashSet::new(),
            precision,
            block: None,
        }
    }

    /// Parameters, the thread's place, and the body.
    pub fn kernel(&mut self) {
        use super::func::{Param, ParamKind};
        for (i, p) in self.k.params.iter().enumerate() {
            self.f.params.push(Param { name: format!("b{i}"), kind: ParamKind::Pointer });
            self.f.comment(format!("b{i}: {}[{}], {:?}", p.dtype, p.len, p.access));
            let base = self.f.param_pointer(&format!("b{i}"));
            self.bases.push(base);
        }
        if !self.k.faults.is_empty() {
            self.f.params.push(Param { name: FAULT_WORD.into(), kind: ParamKind::Pointer });
            self.f.params.push(Param { name: FIRST_FAULT.into(), kind: ParamKind::U32 });
            let word = self.f.param_pointer(FAULT_WORD);
            let first = self.f.param_u32(FIRST_FAULT);
            self.fault = Some((word, first));
        }
        let end = self.f.label();
        self.place_of_thread(end);
        let body = &self.k.body;
        self.block(body);
        self.f.place(end);
        self.f.ret();
    }

    /// The parallel variable; threads without an iteration go to the end.
    fn place_of_thread(&mut self, end: Label) {
        let extent = self.k.extent;
        let index = match self.schedule.group {
            Group::Thread => {
                let (block, thread) = (self.f.special(Special::BlockX), self.f.special(Special::ThreadX));
                let threads = self.schedule.threads as i64;
                let reg = if extent <= i32::MAX as i64 - threads {
                    IntReg::Narrow(self.f.mad::<S32>(block, threads as i32, thread))
                } else {
                    let wide = self.f.cvt::<S64, U32>(super::func::Round::None, thread);
                    IntReg::Wide(self.f.mad_wide(block, threads as i32, wide))
                };
                let index = Index::register(reg, 1, 0, i64::MAX);
                if extent % threads != 0 {
                    let bounded = Index { high: (extent + threads - 1) / threads * threads - 1, ..index };
                    let outside = self.f.compare_index(crate::kernel::CmpOp::Ge, &bounded, &Index::constant(extent));
                    self.f.jump_if(outside, true, end);
                }
                Index { high: extent - 1, ..index }
            }
            Group::Warp => {
                let (block, thread) = (self.f.special(Special::BlockX), self.f.special(Special::ThreadX));
                let warps = (self.schedule.threads / 32) as i32;
                let warp = self.f.shr::<U32>(thread, 5);
                let at = self.f.mad::<S32>(block, warps, warp);
                if extent % warps as i64 != 0 {
                    let outside = self.f.setp::<S32>(Cmp::Ge, at, extent as i32);
                    self.f.jump_if(outside, true, end);
                }
                let lane = self.f.and(thread, 31);
                let first = self.f.setp::<S32>(Cmp::Eq, lane, 0);
                self.thread = Some((lane, first));
                Index::register(IntReg::Narrow(at), 1, 0, extent - 1)
            }
            Group::Tile => {
                let block = self.f.special(Special::BlockX);
                let tiles = self.schedule.grid[0] as i64 / extent;
                let block = Index::register(IntReg::Narrow(block), 1, 0, tiles * extent - 1);
                let tiles = Index::constant(tiles);
                use crate::kernel::BinOp;
                self.block = self.f.index_op(BinOp::Rem, &block, &tiles, 1);
                self.f.index_op(BinOp::Div, &block, &tiles, 1).expect("one value")
            }
            Group::Block => {
                let (block, thread) = (self.f.special(Special::BlockX), self.f.special(Special::ThreadX));
                let first = self.f.setp::<S32>(Cmp::Eq, thread, 0);
                self.thread = Some((thread, first));
                Index::register(IntReg::Narrow(block), 1, 0, extent - 1)
            }
        };
        let index = if extent == 1 { Index::constant(0) } else { index };
        self.values[PARALLEL as usize] = Some(Val::index(index));
    }

    pub fn block(&mut self, body: &[Stmt]) {
        for s in body {
            self.statement(s);
        }
    }

    fn statement(&mut self, s: &Stmt) {
        match s {
            Stmt::Let { var, value } => {
                let v = self.eval(value);
                if self.mutable.contains(var) {
                    self.open_slot(*var, &v);
                } else {
                    self.values[*var as usize] = Some(v);
                }
            }
            Stmt::Set { var, value } => {
                let v = self.assigned(value);
                self.write_slot(*var, &v);
            }
            Stmt::Store { buf, index, value } => self.store(*buf, index, value),
            Stmt::For { kind: LoopKind::Vector, .. } if self.spreads() => self.spread_loop(s),
            Stmt::For { kind: LoopKind::Vector, .. } if self.widened(s) => {}
            Stmt::For { var, start, end, step, body, .. } if unrolled(s) => {
                let (first, past) = (start.as_i64().expect("a number"), end.as_i64().expect("a number"));
                for i in (first..past).step_by(*step as usize) {
                    self.values[*var as usize] = Some(Val::index(Index::constant(i)));
                    self.block(body);
                }
            }
            Stmt::For { var, start, end, step, body, .. } => {
                let (start, end) = (self.index(start), self.index(end));
                self.counted(*var, start, end, *step, |e| e.block(body));
            }
            Stmt::If { cond, then, otherwise } if otherwise.is_empty() && matches!(then[..], [Stmt::Fault(_)]) => {
                let [Stmt::Fault(id)] = then[..] else { unreachable!("it is one fault") };
                let p = self.condition(cond);
                self.fault(id, Some(p));
            }
            Stmt::If { cond, then, otherwise } => {
                let p = self.condition(cond);
                let after = self.f.label();
                if otherwise.is_empty() {
                    self.f.jump_if(p, false, after);
                    self.block(then);
                } else {
                    let other = self.f.label();
                    self.f.jump_if(p, false, other);
                    self.block(then);
                    self.f.jump(after);
                    self.f.place(other);
                    self.block(otherwise);
                }
                self.f.place(after);
            }
            Stmt::While { cond, body } => {
                let (again, after) = (self.f.label(), self.f.label());
                self.f.place(again);
                let p = self.condition(cond);
                self.f.jump_if(p, false, after);
                self.block(body);
                self.f.jump(again);
                self.f.place(after);
            }
            Stmt::Fault(id) => self.fault(*id, None),
            Stmt::Contract(c) => self.contract(c),
            Stmt::Leaf { .. } => unreachable!("leaves are machine code of a CPU: GPU programs are lowered without"),
        }
    }

    /// Stores the fault's number where `p` is true.
    fn fault(&mut self, id: u32, p: Option<Reg<Pred>>) {
        let (word, first) = self.fault.expect("a kernel with faults has a fault word");
        let number = self.f.add::<U32>(first, id as i32 + 1);
        self.when(p, |f| f.st::<Global, B32>(word, 0, number));
    }

    /// Whether a vector loop met here runs across the threads of a group.
    pub(super) fn spreads(&self) -> bool {
        self.thread.is_some() && !self.spread
    }

    /// The value of a `Set`: sums of products are rounded once.
    fn assigned(&mut self, value: &Expr) -> Val {
        use crate::kernel::BinOp;
        if let Expr::Binary(BinOp::Add, a, b) = value
            && let (Expr::Var(_), Expr::Binary(BinOp::Mul, x, y)) | (Expr::Binary(BinOp::Mul, x, y), Expr::Var(_)) =
                (&**a, &**b)
            && let t @ (DType::F32 | DType::F64) = self.k.type_of(value)
        {
            let sum = if matches!(**a, Expr::Var(_)) { a } else { b };
            let (x, y, sum) = (self.eval(x), self.eval(y), self.eval(sum));
            return self.map(&[&x, &y, &sum], |e, v| match t {
                DType::F32 => Scalar::F32(e.f.fma::<F32>(v[0].f32(), v[1].f32(), v[2].f32()).into()),
                _ => Scalar::F64(e.f.fma::<F64>(v[0].f64(), v[1].f64(), v[2].f64()).into()),
            });
        }
        self.eval(value)
    }

    /// `for var in start..end step step { body }`
    pub fn counted(&mut self, var: Var, start: Index, end: Index, step: i64, body: impl FnOnce(&mut Self)) {
        let (low, high) = (start.low, end.high.saturating_sub(1).max(start.low));
        // The variable passes the end by less than a step.
        let narrow = low >= i32::MIN as i64 && high.saturating_add(step) <= i32::MAX as i64 && self.f.is_narrow(&start);
        let reg = if narrow {
            let from = self.f.narrow(&start);
            IntReg::Narrow(self.f.mov(from))
        } else {
            let from = self.f.wide(&start);
            IntReg::Wide(self.f.mov(from))
        };
        let past = Index::register(reg, 1, low, high.saturating_add(step));
        let index = Index { multiple: super::index::gcd(start.multiple, step), high, ..past };
        let (again, after) = (self.f.label(), self.f.label());
        let surely = start.high < end.low;
        if !surely {
            let none = self.f.compare_index(crate::kernel::CmpOp::Ge, &past, &end);
            self.f.jump_if(none, true, after);
        }
        self.f.place(again);
        self.values[var as usize] = Some(Val::index(index));
        body(self);
        match reg {
            IntReg::Narrow(r) => {
                let next = self.f.add::<S32>(r, step as i32);
                self.f.set(r, next);
            }
            IntReg::Wide(r) => {
                let next = self.f.add::<S64>(r, step);
                self.f.set(r, next);
            }
        }
        let more = self.f.compare_index(crate::kernel::CmpOp::Lt, &past, &end);
        self.f.jump_if(more, true, again);
        self.f.place(after);
    }

    // Variables.

    /// Registers of its own for a variable, one per lane where the lanes may come to differ.
    fn open_slot(&mut self, var: Var, v: &Val) {
        let slot = if self.width == 1 {
            Val::Uniform(self.copy(v.lane(0)))
        } else {
            Val::Lanes((0..self.width).map(|l| self.copy(v.lane(l))).collect())
        };
        self.slots[var as usize] = Some(slot);
    }

    pub fn write_slot(&mut self, var: Var, v: &Val) {
        let slot = self.slots[var as usize].clone().expect("a variable is defined before it is set");
        match slot {
            Val::Uniform(s) => self.overwrite(s, v.lane(0)),
            Val::Lanes(lanes) => {
                for (l, s) in lanes.into_iter().enumerate() {
                    self.overwrite(s, v.lane(l));
                }
            }
            Val::Affine(_) => unreachable!("slots are registers"),
        }
    }

    /// A register with the value, that nothing else writes.
    pub fn copy(&mut self, s: Scalar) -> Scalar {
        match s {
            Scalar::Pred(p) => Scalar::Pred(self.f.mov(p)),
            Scalar::Int(i) => {
                let wide = self.f.wide(&i);
                Scalar::Int(Index::unknown(self.f.mov(wide)))
            }
            Scalar::B32(v) => Scalar::B32(self.f.mov(v).into()),
            Scalar::B64(v) => Scalar::B64(self.f.mov(v).into()),
            Scalar::F32(v) => Scalar::F32(self.f.mov(v).into()),
            Scalar::F64(v) => Scalar::F64(self.f.mov(v).into()),
        }
    }

    fn overwrite(&mut self, slot: Scalar, v: Scalar) {
        match (slot, v) {
            (Scalar::Pred(r), v) => self.f.set(r, v.pred()),
            (Scalar::Int(Index { reg: Some(IntReg::Wide(r)), .. }), v) => {
                let wide = self.f.wide(&v.int());
                self.f.set(r, wide);
            }
            (Scalar::B32(Src::Reg(r)), v) => self.f.set(r, v.b32()),
            (Scalar::B64(Src::Reg(r)), v) => self.f.set(r, v.b64()),
            (Scalar::F32(Src::Reg(r)), v) => self.f.set(r, v.f32()),
            (Scalar::F64(Src::Reg(r)), v) => self.f.set(r, v.f64()),
            (slot, _) => unreachable!("{slot:?} is no slot"),
        }
    }

    /// What a variable holds now; later changes do not show in it.
    pub fn read(&mut self, var: Var) -> Val {
        if !self.mutable.contains(&var) {
            return self.values[var as usize].clone().expect("variables are set before use");
        }
        match self.slots[var as usize].clone().expect("variables are set before use") {
            Val::Uniform(s) => Val::Uniform(self.copy(s)),
            Val::Lanes(lanes) => Val::Lanes(lanes.into_iter().map(|s| self.copy(s)).collect()),
            Val::Affine(_) => unreachable!("slots are registers"),
        }
    }

    // Small helpers.

    /// What `f` adds runs only where `p` is true; always without one.
    pub fn when(&mut self, p: Option<Reg<Pred>>, f: impl FnOnce(&mut Func)) {
        match p {
            Some(p) => self.f.guarded(p, true, f),
            None => f(&mut self.f),
        }
    }

    pub fn index(&mut self, e: &Expr) -> Index {
        self.eval(e).lane(0).int()
    }

    fn condition(&mut self, e: &Expr) -> Reg<Pred> {
        self.eval(e).lane(0).pred()
    }

    /// Address of element `i` of a table in constant memory.
    pub fn table_at(&mut self, name: &'static str, i: Reg<B32>) -> Reg<B64> {
        self.tables.insert(name);
        let base = self.f.constant_address(name);
        self.f.mad_wide(i, 8, base)
    }
}

pub(super) fn in_reg<C: Class>(f: &mut Func, s: Src<C>) -> Reg<C> {
    match s {
        Src::Reg(r) => r,
        imm => f.mov(imm),
    }
}

/// Variables that some `Set` names.
pub(super) fn set_in(body: &[Stmt], found: &mut HashSet<Var>) {
    for s in body {
        match s {
            Stmt::Set { var, .. } => {
                found.insert(*var);
            }
            Stmt::For { body, .. } | Stmt::While { body, .. } => set_in(body, found),
            Stmt::If { then, otherwise, .. } => {
                set_in(then, found);
                set_in(otherwise, found);
            }
            Stmt::Contract(c) => set_in(&c.body, found),
            Stmt::Let { .. } | Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } => {}
        }
    }
}
