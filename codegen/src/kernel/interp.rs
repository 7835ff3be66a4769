//! Runs kernels one element at a time and checks everything: indices, types, and that variables are set before use. For tests; it shares
//! no code with the back ends but the names of functions, and computes f32 functions in f64.

use super::{Access, BinOp, CmpOp, Contract, Expr, Factor, Kernel, LeafArg, PARALLEL, Stmt, UnOp, computing_type};
use crate::runtime::{half, math};
use lehr_ir::DType;

/// A number in a computing type. Integers are kept sign- or zero-extended by their type, u64 by its bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Num {
    F64(f64),
    F32(f32),
    Int(DType, i64),
}

/// Runs the iterations `range` on buffers of bytes, one per parameter. Gives the last fault; a violation is an error.
pub fn run(k: &Kernel, buffers: &mut [Vec<u8>], range: std::ops::Range<i64>) -> Result<Option<u32>, String> {
    if buffers.len() != k.params.len() {
        return Err(format!("{} buffers for {} parameters", buffers.len(), k.params.len()));
    }
    for (i, (buffer, param)) in buffers.iter().zip(&k.params).enumerate() {
        if buffer.len() != param.len * param.dtype.size() {
            return Err(format!("b{i} has {} bytes, not {} x {}", buffer.len(), param.len, param.dtype));
        }
    }
    let mut run = Run { k, buffers, vars: vec![None; k.vars.len()], fault: None };
    let (start, mut p) = (range.start, range.start);
    while p < range.end {
        let done = k.merged.map_or(1, |m| (m.of - p % m.of).min(range.end - p));
        run.vars.fill(None);
        run.vars[PARALLEL as usize] = Some(Num::Int(DType::I64, p));
        if let Some(var) = k.range_start {
            run.vars[var as usize] = Some(Num::Int(DType::I64, start));
        }
        if let Some(m) = k.merged {
            run.vars[m.run as usize] = Some(Num::Int(DType::I64, done));
        }
        run.block(&k.body)?;
        p += done;
    }
    Ok(run.fault)
}

struct Run<'r> {
    k: &'r Kernel,
    buffers: &'r mut [Vec<u8>],
    vars: Vec<Option<Num>>,
    fault: Option<u32>,
}

impl Num {
    pub fn dtype(self) -> DType {
        match self {
            Num::F64(_) => DType::F64,
            Num::F32(_) => DType::F32,
            Num::Int(t, _) => t,
        }
    }

    /// An integer, wrapped to its type.
    fn int(t: DType, n: i64) -> Num {
        Num::Int(
            t,
            match t {
                DType::I8 => n as i8 as i64,
                DType::I16 => n as i16 as i64,
                DType::I32 => n as i32 as i64,
                DType::U8 => n as u8 as i64,
                DType::U16 => n as u16 as i64,
                DType::U32 => n as u32 as i64,
                DType::Bool => (n != 0) as i64,
                _ => n,
            },
        )
    }

    fn is_true(self) -> bool {
        self == Num::Int(DType::Bool, 1)
    }
}

impl Run<'_> {
    fn block(&mut self, body: &[Stmt]) -> Result<(), String> {
        body.iter().try_for_each(|s| self.statement(s))
    }

    fn statement(&mut self, s: &Stmt) -> Result<(), String> {
        match s {
            Stmt::Let { var, value } => {
                let v = self.eval(value)?;
                self.assign(*var, v)
            }
            Stmt::Set { var, value } => {
                let v = self.eval(value)?;
                if self.vars[*var as usize].is_none() {
                    return Err(format!("v{var} is set before it is defined"));
                }
                self.assign(*var, v)
            }
            Stmt::Store { buf, index, value } => {
                let v = self.eval(value)?;
                let at = self.element(*buf, index, Access::Read)?;
                let t = self.k.params[*buf as usize].dtype;
                if v.dtype() != computing_type(t) {
                    return Err(format!("{v:?} is stored into {t}"));
                }
                let bytes = encode(t, v);
                self.buffers[*buf as usize][at..at + t.size()].copy_from_slice(&bytes[..t.size()]);
                Ok(())
            }
            Stmt::For { var, start, end, step, body, .. } => {
                let (mut i, end) = (self.index(start)?, self.index(end)?);
                while i < end {
                    self.assign(*var, Num::Int(DType::I64, i))?;
                    self.block(body)?;
                    i += step;
                }
                Ok(())
            }
            Stmt::If { cond, then, otherwise } => {
                let branch = if self.eval(cond)?.is_true() { then } else { otherwise };
                self.block(branch)
            }
            Stmt::While { cond, body } => {
                while self.eval(cond)?.is_true() {
                    self.block(body)?;
                }
                Ok(())
            }
            Stmt::Fault(id) => {
                self.fault = Some(*id);
                Ok(())
            }
            Stmt::Contract(c) => self.contract(c),
            Stmt::Leaf { args, .. } => {
                for arg in args {
                    match arg {
                        LeafArg::Address { buf, index } => self.element(*buf, index, Access::ReadWrite).map(|_| ())?,
                        LeafArg::Int(e) => self.index(e).map(|_| ())?,
                    }
                }
                Err("leaves are machine code, which the interpreter does not run".into())
            }
        }
    }

    fn contract(&mut self, c: &Contract) -> Result<(), String> {
        let int = |n| Num::Int(DType::I64, n);
        let steps = self.index(&c.first)?..self.index(&c.end)?;
        for (row, column) in (0..c.rows).flat_map(|r| (0..c.columns).map(move |c| (r, c))) {
            self.assign(c.row, int(row))?;
            self.assign(c.column, int(column))?;
            // Wide, so that the order of the sum does not show.
            let mut sum = 0f64;
            for step in steps.clone() {
                self.assign(c.step, int(step))?;
                sum += self.factor(&c.left)? * self.factor(&c.right)?;
            }
            self.assign(c.sum, Num::F32(sum as f32))?;
            self.block(&c.body)?;
        }
        Ok(())
    }

    fn factor(&mut self, f: &Factor) -> Result<f64, String> {
        for b in &f.bounds {
            let at = self.index(&b.at.sum())?;
            if at < 0 || at >= b.size {
                return Ok(0.0);
            }
        }
        let load = Expr::Load { buf: f.buf, index: Box::new(f.at.sum()) };
        match self.eval(&load)? {
            Num::F32(v) => Ok(v as f64),
            other => Err(format!("{other:?} is a factor of a product")),
        }
    }

    fn assign(&mut self, var: u32, v: Num) -> Result<(), String> {
        let t = self.k.vars[var as usize];
        if v.dtype() != t {
            return Err(format!("v{var}: {t} is given {v:?}"));
        }
        self.vars[var as usize] = Some(v);
        Ok(())
    }

    fn index(&mut self, e: &Expr) -> Result<i64, String> {
        match self.eval(e)? {
            Num::Int(DType::I64, n) => Ok(n),
            other => Err(format!("{other:?} is used as an index")),
        }
    }

    /// The byte position of an element. `not` is what the parameter must not be declared as.
    fn element(&mut self, buf: u32, index: &Expr, not: Access) -> Result<usize, String> {
        let at = self.index(index)?;
        let param = &self.k.params[buf as usize];
        if at < 0 || at >= param.len as i64 {
            return Err(format!("b{buf}[{at}] is outside of {} elements", param.len));
        }
        if param.access == not && not != Access::ReadWrite {
            return Err(format!("b{buf} is declared {not:?} and used otherwise"));
        }
        Ok(at as usize * param.dtype.size())
    }

    fn eval(&mut self, e: &Expr) -> Result<Num, String> {
        match e {
            Expr::Int(t, n) => Ok(Num::int(*t, *n)),
            Expr::Float(DType::F32, bits) => Ok(Num::F32(f64::from_bits(*bits) as f32)),
            Expr::Float(_, bits) => Ok(Num::F64(f64::from_bits(*bits))),
            Expr::Var(v) => self.vars[*v as usize].ok_or_else(|| format!("v{v} is used before it is set")),
            Expr::Load { buf, index } => {
                let at = self.element(*buf, index, Access::Write)?;
                let t = self.k.params[*buf as usize].dtype;
                Ok(decode(t, &self.buffers[*buf as usize][at..at + t.size()]))
            }
            Expr::Unary(op, a) => {
                let a = self.eval(a)?;
                unary(*op, a)
            }
            Expr::Binary(op, a, b) => {
                let (first, second) = crate::clif::ops::minmax_order(*op, a, b);
                let (a, b) = (self.eval(first)?, self.eval(second)?);
                binary(*op, a, b)
            }
            Expr::Compare(op, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                compare(*op, a, b).map(|v| Num::Int(DType::Bool, v as i64))
            }
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.eval(c)?, self.eval(a)?, self.eval(b)?);
                if c.dtype() != DType::Bool || a.dtype() != b.dtype() {
                    return Err(format!("select of {c:?}, {a:?}, {b:?}"));
                }
                Ok(if c.is_true() { a } else { b })
            }
            Expr::Cast(to, a) => Ok(cast(*to, self.eval(a)?)),
        }
    }
}

/// An element as the kernel computes with it.
pub fn decode(t: DType, bytes: &[u8]) -> Num {
    let mut raw = [0; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(raw);
    match t {
        DType::F64 => Num::F64(f64::from_bits(bits)),
        DType::F32 => Num::F32(f32::from_bits(bits as u32)),
        DType::F16 => Num::F32(half::lehr_rt_f16_to_f32(bits as u32)),
        DType::BF16 => Num::F32(half::lehr_rt_bf16_to_f32(bits as u32)),
        t => Num::int(t, bits as i64),
    }
}

/// The bytes that are stored for a value, in the first `t.size()` places.
pub fn encode(t: DType, v: Num) -> [u8; 8] {
    let bits = match (t, v) {
        (DType::F16, Num::F32(v)) => half::lehr_rt_f32_to_f16(v) as u64,
        (DType::BF16, Num::F32(v)) => half::lehr_rt_f32_to_bf16(v) as u64,
        (_, Num::F32(v)) => v.to_bits() as u64,
        (_, Num::F64(v)) => v.to_bits(),
        (_, Num::Int(_, n)) => n as u64,
    };
    bits.to_le_bytes()
}

fn unary(op: UnOp, a: Num) -> Result<Num, String> {
    match a {
        Num::F64(v) => Ok(Num::F64(function(op, v))),
        // These are exact in f64, or rounded once.
        Num::F32(v) => Ok(Num::F32(function(op, v as f64) as f32)),
        Num::Int(DType::Bool, n) if op == UnOp::Not => Ok(Num::Int(DType::Bool, 1 - n)),
        Num::Int(t, n) => Ok(Num::int(
            t,
            match op {
                UnOp::Neg => n.wrapping_neg(),
                UnOp::Abs if t.is_signed() => n.wrapping_abs(),
                UnOp::Abs => n,
                UnOp::Not => !n,
                _ => return Err(format!("{op:?} of {a:?}")),
            },
        )),
    }
}

fn function(op: UnOp, v: f64) -> f64 {
    match op {
        UnOp::Neg => -v,
        UnOp::Abs => v.abs(),
        UnOp::Not => f64::NAN,
        UnOp::Sqrt => v.sqrt(),
        UnOp::Floor => v.floor(),
        UnOp::Ceil => v.ceil(),
        UnOp::Trunc => v.trunc(),
        UnOp::Round => v.round_ties_even(),
        UnOp::Exp => math::lehr_rt_exp_f64(v),
        UnOp::Expm1 => math::lehr_rt_expm1_f64(v),
        UnOp::Log => math::lehr_rt_log_f64(v),
        UnOp::Log1p => math::lehr_rt_log1p_f64(v),
        UnOp::Sin => math::lehr_rt_sin_f64(v),
        UnOp::Cos => math::lehr_rt_cos_f64(v),
        UnOp::Tan => math::lehr_rt_tan_f64(v),
        UnOp::Asin => math::lehr_rt_asin_f64(v),
        UnOp::Acos => math::lehr_rt_acos_f64(v),
        UnOp::Atan => math::lehr_rt_atan_f64(v),
        UnOp::Sinh => math::lehr_rt_sinh_f64(v),
        UnOp::Cosh => math::lehr_rt_cosh_f64(v),
        UnOp::Tanh => math::lehr_rt_tanh_f64(v),
        UnOp::Asinh => math::lehr_rt_asinh_f64(v),
        UnOp::Acosh => math::lehr_rt_acosh_f64(v),
        UnOp::Atanh => math::lehr_rt_atanh_f64(v),
        UnOp::Erf => math::lehr_rt_erf_f64(v),
    }
}

fn binary(op: BinOp, a: Num, b: Num) -> Result<Num, String> {
    match (a, b) {
        (Num::F64(a), Num::F64(b)) => Ok(Num::F64(float_binary(op, a, b))),
        // Sums, products and quotients of two f32 round right through f64.
        (Num::F32(a), Num::F32(b)) => Ok(Num::F32(float_binary(op, a as f64, b as f64) as f32)),
        (Num::Int(t, a), Num::Int(u, b)) if t == u => int_binary(op, t, a, b).map(|n| Num::int(t, n)),
        _ => Err(format!("{op:?} of {a:?} and {b:?}")),
    }
}

fn float_binary(op: BinOp, a: f64, b: f64) -> f64 {
    match op {
        BinOp::Add => a + b,
        BinOp::Sub => a - b,
        BinOp::Mul => a * b,
        BinOp::Div => a / b,
        BinOp::Rem => math::lehr_rt_fmod_f64(a, b),
        BinOp::Pow => math::lehr_rt_pow_f64(a, b),
        BinOp::Min if b < a || b.is_nan() => b,
        BinOp::Max if b > a || b.is_nan() => b,
        BinOp::Min | BinOp::Max => a,
        BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr => f64::NAN,
    }
}

fn int_binary(op: BinOp, t: DType, a: i64, b: i64) -> Result<i64, String> {
    let wide = t == DType::U64;
    let (ua, ub) = (a as u64, b as u64);
    let b_first = if wide { ub < ua } else { b < a };
    Ok(match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::Div | BinOp::Rem if b == 0 => 0,
        BinOp::Div if wide => (ua / ub) as i64,
        BinOp::Rem if wide => (ua % ub) as i64,
        BinOp::Div => a.wrapping_div(b),
        BinOp::Rem => a.wrapping_rem(b),
        BinOp::Min => {
            if b_first {
                b
            } else {
                a
            }
        }
        BinOp::Max => {
            if b_first {
                a
            } else {
                b
            }
        }
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::Shl | BinOp::Shr if b < 0 || b >= t.bits() as i64 => return Err(format!("{t} is shifted by {b}")),
        BinOp::Shl => a << b,
        BinOp::Shr if wide => (ua >> b) as i64,
        BinOp::Shr => a >> b,
        BinOp::Pow => return Err("Pow of integers".into()),
    })
}

fn compare(op: CmpOp, a: Num, b: Num) -> Result<bool, String> {
    use std::cmp::Ordering;
    let order = match (a, b) {
        (Num::F64(a), Num::F64(b)) => a.partial_cmp(&b),
        (Num::F32(a), Num::F32(b)) => a.partial_cmp(&b),
        (Num::Int(DType::U64, a), Num::Int(DType::U64, b)) => Some((a as u64).cmp(&(b as u64))),
        (Num::Int(t, a), Num::Int(u, b)) if t == u => Some(a.cmp(&b)),
        _ => return Err(format!("{a:?} {op:?} {b:?}")),
    };
    Ok(match op {
        CmpOp::Eq => order == Some(Ordering::Equal),
        CmpOp::Ne => order != Some(Ordering::Equal),
        CmpOp::Lt => order == Some(Ordering::Less),
        CmpOp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        CmpOp::Gt => order == Some(Ordering::Greater),
        CmpOp::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn cast(to: DType, a: Num) -> Num {
    let whole = |v: f64| match v.abs() < 9_223_372_036_854_775_808.0 {
        true => v as i64,
        false => i64::MIN,
    };
    match (to, a) {
        (DType::F16 | DType::BF16, Num::F32(_)) => decode(to, &encode(to, a)[..to.size()]),
        (DType::Bool, Num::F64(v)) => Num::Int(to, (v != 0.0) as i64),
        (DType::Bool, Num::F32(v)) => Num::Int(to, (v != 0.0) as i64),
        (DType::F64, Num::F64(_)) | (DType::F32, Num::F32(_)) => a,
        (DType::F64, Num::F32(v)) => Num::F64(v as f64),
        (DType::F32, Num::F64(v)) => Num::F32(v as f32),
        (DType::F64, Num::Int(DType::U64, n)) => Num::F64(n as u64 as f64),
        (DType::F32, Num::Int(DType::U64, n)) => Num::F32(n as u64 as f32),
        (DType::F64, Num::Int(_, n)) => Num::F64(n as f64),
        (DType::F32, Num::Int(_, n)) => Num::F32(n as f32),
        (t, Num::F64(v)) => Num::int(t, whole(v)),
        (t, Num::F32(v)) => Num::int(t, whole(v as f64)),
        (t, Num::Int(_, n)) => Num::int(t, n),
    }
}
