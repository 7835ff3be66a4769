//! What must hold in a kernel, checked without running it.

use super::{Access, BinOp, Expr, Kernel, LeafArg, Merged, PARALLEL, Stmt, UnOp, Var, computing_type, type_of};
use lehr_ir::DType;

impl Kernel {
    /// Everything that is wrong: variables used out of their block or before they are set, types that do not agree, accesses
    /// that the parameters do not declare, faults without a text, steps that are not positive.
    pub fn check(&self) -> Vec<String> {
        let mut c = Check { k: self, scope: vec![false; self.vars.len()], wrong: vec![] };
        if self.vars.first() != Some(&DType::I64) {
            return vec!["v0, the parallel variable, is not an i64".into()];
        }
        c.scope[PARALLEL as usize] = true;
        if let Some(var) = self.range_start {
            if self.vars.get(var as usize) != Some(&DType::I64) {
                return vec![format!("v{var}, the start of the range, is not an i64")];
            }
            c.scope[var as usize] = true;
        }
        if let Some(Merged { of, run }) = self.merged {
            if self.vars.get(run as usize) != Some(&DType::I64) || c.scope[run as usize] {
                return vec![format!("v{run}, the number of merged iterations, is not an i64 of its own")];
            }
            if of < 1 {
                return vec![format!("iterations are merged up to multiples of {of}, which is not positive")];
            }
            c.scope[run as usize] = true;
        }
        c.block(&self.body);
        c.wrong
    }
}

struct Check<'k> {
    k: &'k Kernel,
    /// Variables that are set here.
    scope: Vec<bool>,
    wrong: Vec<String>,
}

impl Check<'_> {
    /// Definitions inside a block end with it.
    fn block(&mut self, body: &[Stmt]) {
        let outside = self.scope.clone();
        for s in body {
            self.statement(s);
        }
        self.scope = outside;
    }

    fn statement(&mut self, s: &Stmt) {
        match s {
            Stmt::Let { var, value } => {
                self.assigned(*var, value);
                self.define(*var);
            }
            Stmt::Set { var, value } => {
                self.assigned(*var, value);
                if !self.scope.get(*var as usize).copied().unwrap_or(false) {
                    self.wrong.push(format!("v{var} is set where it is not defined"));
                }
            }
            Stmt::Store { buf, index, value } => {
                self.access(*buf, index, Access::Read);
                let t = self.expr(value);
                let stored = self.k.params.get(*buf as usize).map(|p| computing_type(p.dtype));
                if stored.is_some() && t != stored {
                    self.wrong.push(format!("{value} is stored into b{buf}, of another type"));
                }
            }
            Stmt::For { var, start, end, step, body, .. } => {
                self.want(start, DType::I64);
                self.want(end, DType::I64);
                if *step <= 0 {
                    self.wrong.push(format!("the loop over v{var} has the step {step}"));
                }
                let outside = self.scope.clone();
                self.define(*var);
                self.block(body);
                self.scope = outside;
            }
            Stmt::If { cond, then, otherwise } => {
                self.want(cond, DType::Bool);
                self.block(then);
                self.block(otherwise);
            }
            Stmt::While { cond, body } => {
                self.want(cond, DType::Bool);
                self.block(body);
            }
            Stmt::Fault(id) => {
                if *id as usize >= self.k.faults.len() {
                    self.wrong.push(format!("fault {id} has no text"));
                }
            }
            Stmt::Contract(c) => {
                self.want(&c.first, DType::I64);
                self.want(&c.end, DType::I64);
                let outside = self.scope.clone();
                for (factor, own) in [(&c.left, c.row), (&c.right, c.column)] {
                    // Each part sees its own variable alone.
                    for part in factor.parts() {
                        self.with(own, |s| s.want(&part.outer, DType::I64));
                        self.with(c.step, |s| s.want(&part.inner, DType::I64));
                    }
                    self.access(factor.buf, &Expr::i64(0), Access::Write);
                    let float = |p: &super::Buffer| matches!(p.dtype, DType::F32 | DType::F16 | DType::BF16);
                    if !self.k.params.get(factor.buf as usize).is_some_and(float) {
                        self.wrong.push(format!("b{} is no factor of a product of f32", factor.buf));
                    }
                }
                for v in [c.row, c.column, c.sum] {
                    self.define(v);
                }
                self.block(&c.body);
                self.scope = outside;
            }
            Stmt::Leaf { args, .. } => {
                for arg in args {
                    match arg {
                        LeafArg::Address { buf, index } => self.access(*buf, index, Access::ReadWrite),
                        LeafArg::Int(e) => self.want(e, DType::I64),
                    }
                }
            }
        }
    }

    /// Checks with one more variable.
    fn with(&mut self, var: Var, check: impl FnOnce(&mut Self)) {
        let outside = self.scope.clone();
        self.define(var);
        check(self);
        self.scope = outside;
    }

    fn define(&mut self, var: Var) {
        match self.scope.get_mut(var as usize) {
            Some(known) => *known = true,
            None => self.wrong.push(format!("v{var} has no type")),
        }
    }

    fn assigned(&mut self, var: Var, value: &Expr) {
        let t = self.expr(value);
        let own = self.k.vars.get(var as usize).copied();
        if t.is_some() && t != own {
            self.wrong.push(format!("v{var} is given {value}, of another type"));
        }
    }

    fn want(&mut self, e: &Expr, t: DType) {
        if self.expr(e).is_some_and(|found| found != t) {
            self.wrong.push(format!("{e} is not {t}"));
        }
    }

    /// `not` is what the parameter must not be declared as; ReadWrite forbids nothing.
    fn access(&mut self, buf: u32, index: &Expr, not: Access) {
        self.want(index, DType::I64);
        match self.k.params.get(buf as usize) {
            None => self.wrong.push(format!("b{buf} is not a parameter")),
            Some(p) if not != Access::ReadWrite && p.access == not => {
                self.wrong.push(format!("b{buf} is declared {not:?} and used otherwise"));
            }
            Some(_) => {}
        }
    }

    /// The type, if the expression is right that far.
    fn expr(&mut self, e: &Expr) -> Option<DType> {
        match e {
            Expr::Int(t, n) => {
                let right = t.is_int() || *t == DType::Bool && (*n == 0 || *n == 1);
                self.need(right, || format!("{n} is not a value of {t}"))?;
            }
            Expr::Float(t, _) => {
                self.need(matches!(t, DType::F32 | DType::F64), || format!("nothing computes in {t}"))?;
            }
            Expr::Var(v) => {
                let known = self.scope.get(*v as usize).copied().unwrap_or(false);
                self.need(known, || format!("v{v} is used where it is not set"))?;
            }
            Expr::Load { buf, index } => {
                self.access(*buf, index, Access::Write);
                self.k.params.get(*buf as usize)?;
            }
            Expr::Unary(op, a) => {
                let t = self.expr(a)?;
                let right = match op {
                    UnOp::Neg | UnOp::Abs => t != DType::Bool,
                    UnOp::Not => !t.is_float(),
                    _ => t.is_float(),
                };
                self.need(right, || format!("{op:?} is not defined for {t}"))?;
            }
            Expr::Binary(op, a, b) => {
                let (t, u) = (self.expr(a)?, self.expr(b)?);
                self.need(t == u, || format!("{e} has operands of {t} and {u}"))?;
                let right = match op {
                    BinOp::And | BinOp::Or | BinOp::Xor => !t.is_float(),
                    BinOp::Shl | BinOp::Shr => t.is_int(),
                    BinOp::Pow => t.is_float(),
                    BinOp::Min | BinOp::Max | BinOp::Mul => true,
                    BinOp::Add | BinOp::Sub | BinOp::Div | BinOp::Rem => t != DType::Bool,
                };
                self.need(right, || format!("{op:?} is not defined for {t}"))?;
            }
            Expr::Compare(_, a, b) => {
                let (t, u) = (self.expr(a)?, self.expr(b)?);
                self.need(t == u, || format!("{e} has operands of {t} and {u}"))?;
            }
            Expr::Select(c, a, b) => {
                self.want(c, DType::Bool);
                let (t, u) = (self.expr(a)?, self.expr(b)?);
                self.need(t == u, || format!("{e} has arms of {t} and {u}"))?;
            }
            Expr::Cast(t, a) => {
                let from = self.expr(a)?;
                let half = matches!(t, DType::F16 | DType::BF16);
                self.need(!half || from == DType::F32, || format!("{e} rounds a number of {from}"))?;
                self.need(half || t.is_computable(), || format!("nothing computes in {t}"))?;
            }
        }
        Some(type_of(e, &self.k.vars, &self.k.params))
    }

    fn need(&mut self, right: bool, what: impl FnOnce() -> String) -> Option<()> {
        if !right {
            self.wrong.push(what());
        }
        right.then_some(())
    }
}
