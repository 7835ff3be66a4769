//! Builds a kernel statement by statement. Blocks nest by closures, so what is open is what is on the stack.

use super::{Access, Buffer, Contract, Expr, Kernel, LeafArg, LoopKind, Merged, PARALLEL, Param, Stmt, Var, type_of};
use lehr_ir::DType;
use lehr_ir::graph::Provenance;

pub struct KernelBuilder {
    name: String,
    params: Vec<Buffer>,
    vars: Vec<DType>,
    faults: Vec<String>,
    extent: i64,
    cost_per_iteration: i64,
    range_start: Option<Var>,
    merged: Option<Merged>,
    /// The innermost open block is last.
    blocks: Vec<Vec<Stmt>>,
}

impl KernelBuilder {
    pub fn new(name: impl Into<String>) -> KernelBuilder {
        KernelBuilder {
            name: name.into(),
            params: vec![],
            vars: vec![DType::I64],
            faults: vec![],
            extent: 1,
            cost_per_iteration: 0,
            range_start: None,
            merged: None,
            blocks: vec![vec![]],
        }
    }

    /// Adds a buffer parameter.
    pub fn param(&mut self, dtype: DType, len: usize, access: Access) -> Param {
        self.params.push(Buffer { dtype, len, access });
        (self.params.len() - 1) as Param
    }

    pub fn param_mut(&mut self, p: Param) -> &mut Buffer {
        &mut self.params[p as usize]
    }

    /// Makes the kernel parallel over `extent` iterations and gives the variable. Call it once, before statements.
    pub fn parallel(&mut self, extent: i64, cost_per_iteration: i64) -> Expr {
        self.extent = extent;
        self.cost_per_iteration = cost_per_iteration;
        Expr::Var(PARALLEL)
    }

    /// The first parallel value of the thread's range: an index for scratch that stays in the thread's cache.
    pub fn range_start(&mut self) -> Expr {
        let var = match self.range_start {
            Some(var) => var,
            None => self.fresh(DType::I64),
        };
        self.range_start = Some(var);
        Expr::Var(var)
    }

    /// Lets iterations up to the next multiple of `of` be done at once, and gives how many are: see [`Merged`]. Call it once.
    pub fn merge(&mut self, of: i64) -> Expr {
        let run = self.fresh(DType::I64);
        self.merged = Some(Merged { of, run });
        Expr::Var(run)
    }

    pub fn type_of(&self, e: &Expr) -> DType {
        type_of(e, &self.vars, &self.params)
    }

    fn fresh(&mut self, t: DType) -> Var {
        self.vars.push(t);
        (self.vars.len() - 1) as Var
    }

    fn push(&mut self, s: Stmt) {
        self.blocks.last_mut().expect("a block is open").push(s);
    }

    /// Names a value, so that it is computed once. Constants and variables are given back as they are.
    pub fn let_(&mut self, value: Expr) -> Expr {
        if matches!(value, Expr::Int(..) | Expr::Float(..) | Expr::Var(_)) {
            return value;
        }
        Expr::Var(self.mutable(value))
    }

    /// Defines a variable that [`set`](Self::set) may change.
    pub fn mutable(&mut self, value: Expr) -> Var {
        let var = self.fresh(self.type_of(&value));
        self.push(Stmt::Let { var, value });
        var
    }

    pub fn set(&mut self, var: Var, value: Expr) {
        self.push(Stmt::Set { var, value });
    }

    /// A load as an expression; nothing is emitted until it is used.
    pub fn load(&self, buf: Param, index: Expr) -> Expr {
        Expr::Load { buf, index: Box::new(index) }
    }

    pub fn store(&mut self, buf: Param, index: Expr, value: Expr) {
        self.push(Stmt::Store { buf, index, value });
    }

    fn fault_id(&mut self, message: &str) -> u32 {
        let known = self.faults.iter().position(|m| m == message);
        known.unwrap_or_else(|| {
            self.faults.push(message.to_string());
            self.faults.len() - 1
        }) as u32
    }

    pub fn leaf(&mut self, leaf: u32, args: Vec<LeafArg>) {
        self.push(Stmt::Leaf { leaf, args });
    }

    /// A variable for what a statement defines.
    pub fn variable(&mut self, t: DType) -> Var {
        self.fresh(t)
    }

    pub fn contract(&mut self, c: Contract) {
        self.push(Stmt::Contract(Box::new(c)));
    }

    pub fn finish(mut self, origins: Provenance) -> Kernel {
        let body = self.blocks.pop().expect("the outermost block");
        assert!(self.blocks.is_empty(), "a block was left open");
        Kernel {
            name: self.name,
            origins,
            params: self.params,
            vars: self.vars,
            extent: self.extent,
            cost_per_iteration: self.cost_per_iteration,
            range_start: self.range_start,
            merged: self.merged,
            faults: self.faults,
            body,
        }
    }
}

impl Blocks for KernelBuilder {
    fn builder(&mut self) -> &mut KernelBuilder {
        self
    }
}

/// Statements that hold blocks. A trait, so that whoever wraps a builder has them with closures over itself.
pub trait Blocks: Sized {
    fn builder(&mut self) -> &mut KernelBuilder;

    /// Statements collected by `f` in a block of their own.
    fn block(&mut self, f: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        self.builder().blocks.push(vec![]);
        f(self);
        self.builder().blocks.pop().expect("the block just opened")
    }

    fn for_(&mut self, kind: LoopKind, start: Expr, end: Expr, step: i64, f: impl FnOnce(&mut Self, Expr)) {
        let var = self.builder().fresh(DType::I64);
        let body = self.block(|b| f(b, Expr::Var(var)));
        self.builder().push(Stmt::For { var, start, end, step, kind, body });
    }

    /// `for i in 0..n`, without a loop when n is 1.
    fn serial(&mut self, n: usize, f: impl FnOnce(&mut Self, Expr)) {
        match n {
            1 => f(self, Expr::i64(0)),
            _ => self.for_(LoopKind::Serial, Expr::i64(0), Expr::i64(n as i64), 1, f),
        }
    }

    /// `vector for i in 0..n`; see [`LoopKind::Vector`] for the promise.
    fn vector(&mut self, n: usize, f: impl FnOnce(&mut Self, Expr)) {
        match n {
            1 => f(self, Expr::i64(0)),
            _ => self.for_(LoopKind::Vector, Expr::i64(0), Expr::i64(n as i64), 1, f),
        }
    }

    fn if_(&mut self, cond: Expr, then: impl FnOnce(&mut Self)) {
        let then = self.block(then);
        self.builder().push(Stmt::If { cond, then, otherwise: vec![] });
    }

    fn if_else(&mut self, cond: Expr, then: impl FnOnce(&mut Self), otherwise: impl FnOnce(&mut Self)) {
        let then = self.block(then);
        let otherwise = self.block(otherwise);
        self.builder().push(Stmt::If { cond, then, otherwise });
    }

    fn while_(&mut self, cond: Expr, body: impl FnOnce(&mut Self)) {
        let body = self.block(body);
        self.builder().push(Stmt::While { cond, body });
    }

    /// Records a fault of the data when `cond` holds.
    fn fault_if(&mut self, cond: Expr, message: &str) {
        let id = self.builder().fault_id(message);
        self.if_(cond, |b| b.builder().push(Stmt::Fault(id)));
    }
}
