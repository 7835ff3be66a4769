//! Emits a kernel as a function `extern "C" fn(args: *const *mut u8, lo: i64, hi: i64)`.
//!
//! `args[k]` is the address of parameter `k`. A kernel with faults has two more: the address of the run's fault word and
//! the id of the step's first fault.
//!
//! Loops test at the bottom, and statements are emitted in order: Cranelift's mid end removes common and dead
//! expressions and moves invariant ones out of loops. Index arithmetic is put in a form for that, see [`super::index`].

use super::index::Lin;
use super::target::Target;
use super::value::{Val, in_regs, scalar_type, vector_type};
use super::vector;
use crate::kernel::{Access, Expr, Kernel, LeafArg, LoopKind, Merged, PARALLEL, Stmt, Var};
use cranelift::codegen::ir::{BlockArg, FuncRef, StackSlotData, StackSlotKind};
use cranelift::prelude::*;
use lehr_ir::DType;
use std::collections::{HashMap, HashSet};

/// Gives functions that a kernel calls, by name.
pub(super) trait Callees {
    fn math(&self, func: &mut codegen::ir::Function, name: &str) -> FuncRef;
    fn leaf(&self, func: &mut codegen::ir::Function, leaf: u32) -> FuncRef;
}

pub(super) struct Emit<'a, 'f> {
    pub b: FunctionBuilder<'f>,
    pub k: &'a Kernel,
    pub target: &'a Target,
    callees: &'a dyn Callees,
    known_callees: HashMap<String, FuncRef>,
    args: Value,
    pub bases: Vec<Value>,
    /// Lanes of the vector loop being emitted; 1 outside of one.
    pub lanes: usize,
    /// Variables that differ between those lanes.
    pub varying: HashSet<Var>,
    /// Variables that are never set again.
    pub values: HashMap<Var, Val>,
    /// Of those, i64 ones as linear forms.
    pub linear: HashMap<Var, Lin>,
    /// Variables that some `Set` names.
    slots: HashMap<Var, Slot>,
    is_mutable: Vec<bool>,
    /// How many loops enclose a variable's definition.
    pub depth_of: Vec<u32>,
    pub depth: u32,
    /// Above zero inside code that may run zero times, where loads must not move up.
    pub conditional: u32,
}

/// Where a mutable variable lives.
#[derive(Clone)]
pub(super) struct Slot {
    form: Form,
    variables: Vec<Variable>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Uniform,
    Regs,
    Lanes,
}

/// Fills `b`, which is empty, with the code of `k`.
pub(super) fn kernel(b: FunctionBuilder, k: &Kernel, target: &Target, callees: &dyn Callees) {
    let mut b = b;
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let [args, lo, hi] = b.block_params(entry)[..] else { unreachable!("kernels have three parameters") };
    let pointer = MemFlagsData::trusted().with_readonly().with_can_move();
    let bases = (0..k.params.len()).map(|i| b.ins().load(types::I64, pointer, args, 8 * i as i32)).collect();
    let mut is_mutable = vec![false; k.vars.len()];
    find_sets(&k.body, &mut is_mutable);
    let mut e = Emit {
        b,
        k,
        target,
        callees,
        known_callees: HashMap::new(),
        args,
        bases,
        lanes: 1,
        varying: HashSet::new(),
        values: HashMap::new(),
        linear: HashMap::new(),
        slots: HashMap::new(),
        is_mutable,
        depth_of: vec![0; k.vars.len()],
        depth: 0,
        conditional: 0,
    };
    if let Some(var) = k.range_start {
        e.values.insert(var, Val::Uniform(lo));
    }
    // The runtime never asks for an empty range, but a loop that runs once at least would be wrong if it did.
    e.looped(lo, hi, Trip::Unknown, |e, p| {
        let run = k.merged.map(|merged| e.merged(merged, p, hi));
        e.depth_of[PARALLEL as usize] = e.depth;
        e.values.insert(PARALLEL, Val::Uniform(p));
        // A region's thread has work: what the body loads at all may be loaded ahead of the loop.
        e.conditional -= 1;
        e.block(&k.body);
        e.conditional += 1;
        match run {
            Some(run) => e.b.ins().iadd(p, run),
            None => e.b.ins().iadd_imm_s(p, 1),
        }
    });
    e.b.ins().return_(&[]);
    e.b.finalize(target.isa().frontend_config());
}

fn find_sets(body: &[Stmt], found: &mut [bool]) {
    for s in body {
        match s {
            Stmt::Set { var, .. } => found[*var as usize] = true,
            Stmt::For { body, .. } | Stmt::While { body, .. } => find_sets(body, found),
            Stmt::If { then, otherwise, .. } => {
                find_sets(then, found);
                find_sets(otherwise, found);
            }
            Stmt::Let { .. } | Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Leaf { .. } | Stmt::Contract(_) => {}
        }
    }
}

/// What is known about how often a loop runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trip {
    Unknown,
    AtLeastOnce,
}

impl Emit<'_, '_> {
    /// The number of iterations from `p` on that are done at once, of those before `end`.
    fn merged(&mut self, Merged { of, run }: Merged, p: Value, end: Value) -> Value {
        let of = self.b.ins().iconst(types::I64, of);
        let behind = self.b.ins().urem(p, of);
        let (merged, left) = (self.b.ins().isub(of, behind), self.b.ins().isub(end, p));
        let count = self.b.ins().smin(merged, left);
        self.depth_of[run as usize] = self.depth;
        self.values.insert(run, Val::Uniform(count));
        count
    }

    pub fn block(&mut self, body: &[Stmt]) {
        for s in body {
            self.statement(s);
        }
    }

    fn statement(&mut self, s: &Stmt) {
        match s {
            Stmt::Let { var, value } => self.define(*var, value),
            Stmt::Set { var, value } => {
                let v = self.eval(value);
                self.write_slot(*var, &v);
            }
            Stmt::Store { buf, index, value } => self.store(*buf, index, value),
            Stmt::For { var, start, end, step, kind, body } => {
                if *kind == LoopKind::Vector && self.lanes == 1 && vector::emit(self, s) {
                    return;
                }
                self.serial(*var, start, end, *step, body);
            }
            Stmt::If { cond, then, otherwise } => self.branch(cond, then, otherwise),
            Stmt::While { cond, body } => self.while_(cond, body),
            Stmt::Fault(id) => self.fault(*id),
            Stmt::Leaf { leaf, args } => self.call_leaf(*leaf, args),
            Stmt::Contract(_) => unreachable!("products in tiles are for GPUs: CPU programs are lowered without"),
        }
    }

    fn define(&mut self, var: Var, value: &Expr) {
        self.depth_of[var as usize] = self.depth;
        let v = if self.k.vars[var as usize] == DType::I64 && !self.is_mutable[var as usize] {
            match self.lin(value) {
                Some(lin) => {
                    let v = self.lin_value(&lin);
                    self.linear.insert(var, lin);
                    v
                }
                None => {
                    self.linear.remove(&var);
                    self.eval(value)
                }
            }
        } else {
            self.eval(value)
        };
        if !self.is_mutable[var as usize] {
            self.values.insert(var, v);
            return;
        }
        let form = self.slot_form(var);
        self.open_slot(var, form);
        self.write_slot(var, &v);
    }

    /// How a variable is kept: once, or for every lane if lanes differ.
    pub fn slot_form(&self, var: Var) -> Form {
        match self.lanes {
            1 => Form::Uniform,
            _ if !self.varying.contains(&var) => Form::Uniform,
            lanes if in_regs(self.k.vars[var as usize], lanes) => Form::Regs,
            _ => Form::Lanes,
        }
    }

    /// Makes a fresh place for a variable and gives the one it had.
    pub fn open_slot(&mut self, var: Var, form: Form) -> Option<Slot> {
        let t = self.k.vars[var as usize];
        let (ty, count) = match form {
            Form::Uniform => (scalar_type(t), 1),
            Form::Regs => (vector_type(t), self.lanes * t.size() / 16),
            Form::Lanes => (scalar_type(t), self.lanes),
        };
        let variables = (0..count).map(|_| self.b.declare_var(ty)).collect();
        self.slots.insert(var, Slot { form, variables })
    }

    pub fn restore_slot(&mut self, var: Var, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.slots.insert(var, slot);
        }
    }

    pub fn write_slot(&mut self, var: Var, v: &Val) {
        let slot = self.slots[&var].clone();
        let values = match slot.form {
            Form::Uniform => vec![self.uniform(v)],
            Form::Regs => self.regs_of(self.k.vars[var as usize], v),
            Form::Lanes => self.lanes_of(v),
        };
        for (variable, value) in slot.variables.iter().zip(values) {
            self.b.def_var(*variable, value);
        }
    }

    pub fn read(&mut self, var: Var) -> Val {
        if let Some(v) = self.values.get(&var) {
            return v.clone();
        }
        let slot = self.slots.get(&var).unwrap_or_else(|| panic!("v{var} of {} is used before it is set", self.k.name));
        let (form, variables) = (slot.form, slot.variables.clone());
        let mut values: Vec<Value> = variables.iter().map(|&v| self.b.use_var(v)).collect();
        match form {
            Form::Uniform => Val::Uniform(values.remove(0)),
            Form::Regs => Val::Regs(values),
            Form::Lanes => Val::Lanes(values),
        }
    }

    /// Whether reading the variable gives different values over time.
    pub fn changes(&self, var: Var) -> bool {
        self.is_mutable[var as usize]
    }

    /// A value that is known to be the same in all lanes.
    pub fn uniform(&mut self, v: &Val) -> Value {
        match v {
            Val::Uniform(v) => *v,
            other => unreachable!("the analysis of vector loops lets {other:?} not be where one value is needed"),
        }
    }

    pub fn eval_uniform(&mut self, e: &Expr) -> Value {
        let v = self.eval(e);
        self.uniform(&v)
    }

    pub fn serial(&mut self, var: Var, start: &Expr, end: &Expr, step: i64, body: &[Stmt]) {
        let trip = match (start.as_i64(), end.as_i64()) {
            (Some(s), Some(e)) if s >= e => return,
            (Some(_), Some(_)) => Trip::AtLeastOnce,
            _ => Trip::Unknown,
        };
        let (start, end) = (self.eval_uniform(start), self.eval_uniform(end));
        self.counted(start, end, step, trip, |e, i| {
            e.depth_of[var as usize] = e.depth;
            e.values.insert(var, Val::Uniform(i));
            e.linear.remove(&var);
            e.block(body);
        });
    }

    /// `for i in (start..end).step_by(step)`; gives the first `i` that is not below `end`.
    pub fn counted(
        &mut self,
        start: Value,
        end: Value,
        step: i64,
        trip: Trip,
        body: impl FnOnce(&mut Self, Value),
    ) -> Value {
        self.looped(start, end, trip, |e, i| {
            body(e, i);
            e.b.ins().iadd_imm_s(i, step)
        })
    }

    /// As [`Emit::counted`]; the body gives the next value.
    fn looped(&mut self, start: Value, end: Value, trip: Trip, body: impl FnOnce(&mut Self, Value) -> Value) -> Value {
        let header = self.b.create_block();
        let exit = self.b.create_block();
        let i = self.b.append_block_param(header, types::I64);
        let last = self.b.append_block_param(exit, types::I64);
        let start = &[BlockArg::from(start)];
        match trip {
            Trip::AtLeastOnce => {
                self.b.ins().jump(header, start);
            }
            Trip::Unknown => {
                let any = self.b.ins().icmp(IntCC::SignedLessThan, start[0].as_value().expect("a value"), end);
                self.b.ins().brif(any, header, start, exit, start);
            }
        }
        self.b.switch_to_block(header);
        self.depth += 1;
        self.conditional += (trip == Trip::Unknown) as u32;
        let next = body(self, i);
        self.conditional -= (trip == Trip::Unknown) as u32;
        self.depth -= 1;
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, end);
        let next = &[BlockArg::from(next)];
        self.b.ins().brif(more, header, next, exit, next);
        self.b.seal_block(header);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
        last
    }

    fn branch(&mut self, cond: &Expr, then: &[Stmt], otherwise: &[Stmt]) {
        let cond = self.eval(cond);
        let cond = match cond {
            Val::Uniform(v) => v,
            // Only faults follow: one lane is enough.
            varying => {
                let lanes = self.lanes_of(&varying);
                lanes.into_iter().reduce(|a, b| self.b.ins().bor(a, b)).expect("lanes")
            }
        };
        let (yes, no, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().brif(cond, yes, &[], no, &[]);
        self.b.seal_block(yes);
        self.b.seal_block(no);
        self.conditional += 1;
        for (block, body) in [(yes, then), (no, otherwise)] {
            self.b.switch_to_block(block);
            self.block(body);
            self.b.ins().jump(join, &[]);
        }
        self.conditional -= 1;
        self.b.seal_block(join);
        self.b.switch_to_block(join);
    }

    fn while_(&mut self, cond: &Expr, body: &[Stmt]) {
        let (header, inside, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().jump(header, &[]);
        self.b.switch_to_block(header);
        self.depth += 1;
        self.conditional += 1;
        let cond = self.eval_uniform(cond);
        self.b.ins().brif(cond, inside, &[], exit, &[]);
        self.b.seal_block(inside);
        self.b.switch_to_block(inside);
        self.block(body);
        self.b.ins().jump(header, &[]);
        self.conditional -= 1;
        self.depth -= 1;
        self.b.seal_block(header);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
    }

    fn fault(&mut self, id: u32) {
        let at = 8 * self.k.params.len() as i32;
        let flags = MemFlagsData::trusted();
        let word = self.b.ins().load(types::I64, flags, self.args, at);
        let first = self.b.ins().load(types::I64, flags, self.args, at + 8);
        let first = self.b.ins().ireduce(types::I32, first);
        let id = self.b.ins().iadd_imm_s(first, id as i64 + 1);
        self.b.ins().store(flags, id, word, 0);
    }

    fn call_leaf(&mut self, leaf: u32, args: &[LeafArg]) {
        let size = 8 * args.len() as u32;
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 3));
        for (k, arg) in args.iter().enumerate() {
            let v = match arg {
                LeafArg::Int(e) => self.eval_uniform(e),
                LeafArg::Address { buf, index } => self.element_address(*buf, index),
            };
            self.b.ins().stack_store(types::I64, v, slot, 8 * k as i32);
        }
        let array = self.b.ins().stack_addr(types::I64, slot, 0);
        let leaf = self.callees.leaf(self.b.func, leaf);
        self.b.ins().call(leaf, &[array]);
    }

    /// Calls a function of the runtime that gives one result.
    pub fn call_math(&mut self, name: &str, args: &[Value]) -> Value {
        let callee = match self.known_callees.get(name) {
            Some(&known) => known,
            None => {
                let callee = self.callees.math(self.b.func, name);
                self.known_callees.insert(name.to_string(), callee);
                callee
            }
        };
        let call = self.b.ins().call(callee, args);
        self.b.inst_results(call)[0]
    }

    /// Flags for loads from a parameter.
    pub fn load_flags(&self, buf: u32) -> MemFlagsData {
        let flags = MemFlagsData::new().with_notrap();
        match self.k.params[buf as usize].access {
            // Nothing in the kernel writes it, so a load may move as far as its address allows.
            Access::Read if self.conditional == 0 => flags.with_readonly().with_can_move(),
            Access::Read => flags.with_readonly(),
            Access::Write | Access::ReadWrite => flags,
        }
    }
}
