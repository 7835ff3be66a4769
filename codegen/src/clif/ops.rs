//! Expressions: which form each operation works in, and its instructions. The instructions of a vector are those of a scalar
//! of the same type, so that a lane of a vector loop and an iteration of the remaining ones give the same bits.

use super::emit::Emit;
use super::math;
use super::value::{Val, in_regs, mask_type, scalar_type, vector_type};
use crate::kernel::{BinOp, CmpOp, Expr, UnOp};
use cranelift::prelude::*;
use lehr_ir::DType;

impl Emit<'_, '_> {
    pub fn eval(&mut self, e: &Expr) -> Val {
        match e {
            Expr::Int(t, n) => Val::Uniform(self.int(*t, *n)),
            Expr::Float(t, bits) => Val::Uniform(self.float(*t, f64::from_bits(*bits))),
            Expr::Var(v) => self.read(*v),
            Expr::Load { buf, index } => self.load(*buf, index),
            Expr::Unary(op, a) => {
                let t = self.k.type_of(a);
                let a = self.eval(a);
                self.unary(*op, t, &a)
            }
            Expr::Binary(op, a, b) => {
                let t = self.k.type_of(a);
                if t == DType::I64
                    && matches!(op, BinOp::Add | BinOp::Sub | BinOp::Mul)
                    && let Some(lin) = self.lin_of_operation(e)
                {
                    return self.lin_value(&lin);
                }
                let (a, b) = minmax_order(*op, a, b);
                let known = matches!(b, Expr::Float(_, bits) if !f64::from_bits(*bits).is_nan());
                let (a, b) = (self.eval(a), self.eval(b));
                let second = if known { Second::IsANumber } else { Second::Unknown };
                self.binary(*op, t, &a, &b, second)
            }
            Expr::Compare(op, a, b) => {
                let t = self.k.type_of(a);
                let (a, b) = (self.eval(a), self.eval(b));
                self.compare(*op, t, &a, &b)
            }
            Expr::Select(c, a, b) => {
                let t = self.k.type_of(a);
                let (c, a, b) = (self.eval(c), self.eval(a), self.eval(b));
                self.select(t, &c, &a, &b)
            }
            Expr::Cast(to, a) => {
                let from = self.k.type_of(a);
                let a = self.eval(a);
                self.cast(from, *to, &a)
            }
        }
    }

    /// The linear form of a sum or product, if it has more to it than the operation itself.
    fn lin_of_operation(&mut self, e: &Expr) -> Option<super::index::Lin> {
        if let Expr::Binary(BinOp::Mul, a, b) = e
            && a.as_i64().is_none()
            && b.as_i64().is_none()
        {
            return None;
        }
        self.lin(e)
    }

    pub fn int(&mut self, t: DType, n: i64) -> Value {
        let ty = scalar_type(t);
        // Cranelift wants constants without bits above the type.
        let n = if ty.bits() == 64 { n } else { n & ((1 << ty.bits()) - 1) };
        self.b.ins().iconst(ty, n)
    }

    fn float(&mut self, t: DType, v: f64) -> Value {
        if t == DType::F64 { self.b.ins().f64const(v) } else { self.b.ins().f32const(v as f32) }
    }

    /// Applies `f`, which gives a `to`, to scalars or, where `vector` allows, to whole vectors of equally wide elements.
    fn map(&mut self, from: DType, vector: bool, a: &Val, mut f: impl FnMut(&mut Self, Value) -> Value) -> Val {
        match a {
            Val::Uniform(v) => Val::Uniform(f(self, *v)),
            _ if vector && in_regs(from, self.lanes) => {
                let regs = self.regs_of(from, a);
                Val::Regs(regs.into_iter().map(|v| f(self, v)).collect())
            }
            _ => {
                let lanes = self.lanes_of(a);
                Val::Lanes(lanes.into_iter().map(|v| f(self, v)).collect())
            }
        }
    }

    fn zip(
        &mut self,
        t: DType,
        vector: bool,
        a: &Val,
        b: &Val,
        mut f: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Val {
        if let (Val::Uniform(a), Val::Uniform(b)) = (a, b) {
            return Val::Uniform(f(self, *a, *b));
        }
        let in_vectors = vector && in_regs(t, self.lanes);
        let (a, b) = match in_vectors {
            true => (self.regs_of(t, a), self.regs_of(t, b)),
            false => (self.lanes_of(a), self.lanes_of(b)),
        };
        let values = a.into_iter().zip(b).map(|(a, b)| f(self, a, b)).collect();
        if in_vectors { Val::Regs(values) } else { Val::Lanes(values) }
    }

    fn unary(&mut self, op: UnOp, t: DType, a: &Val) -> Val {
        if t == DType::Bool {
            debug_assert_eq!(op, UnOp::Not);
            if let Val::Mask { bytes, regs } = a {
                let regs = regs.iter().map(|&r| self.b.ins().bnot(r)).collect();
                return Val::Mask { bytes: *bytes, regs };
            }
            return self.map(t, false, a, |e, v| e.b.ins().bxor_imm_u(v, 1));
        }
        let vector = !t.is_float() || op_in_vectors(op) || t == DType::F32 && math::is_inline(op);
        self.map(t, vector, a, |e, v| e.unary_value(op, t, v))
    }

    fn unary_value(&mut self, op: UnOp, t: DType, v: Value) -> Value {
        if !t.is_float() {
            return match op {
                UnOp::Neg => self.b.ins().ineg(v),
                UnOp::Abs if t.is_signed() => self.b.ins().iabs(v),
                UnOp::Abs => v,
                UnOp::Not => self.b.ins().bnot(v),
                _ => unreachable!("{op:?} is for floats"),
            };
        }
        match op {
            UnOp::Neg => self.b.ins().fneg(v),
            UnOp::Abs => self.b.ins().fabs(v),
            UnOp::Not => unreachable!("Not is for integers"),
            UnOp::Sqrt => self.b.ins().sqrt(v),
            UnOp::Floor | UnOp::Ceil | UnOp::Trunc | UnOp::Round => self.round(op, v),
            _ if t == DType::F32 && math::is_inline(op) => math::emit(self, op, v),
            _ => {
                let name = format!("lehr_rt_{}_f64", function_name(op));
                self.call_in_f64(&name, t, &[v])
            }
        }
    }

    /// Calls the runtime's f64 function; f32 is widened and rounded.
    pub fn call_in_f64(&mut self, name: &str, t: DType, args: &[Value]) -> Value {
        if t == DType::F64 {
            return self.call_math(name, args);
        }
        let wide: Vec<Value> = args.iter().map(|&v| self.b.ins().fpromote(types::F64, v)).collect();
        let result = self.call_math(name, &wide);
        self.b.ins().fdemote(types::F32, result)
    }

    fn round(&mut self, op: UnOp, v: Value) -> Value {
        if self.target.round {
            return match op {
                UnOp::Floor => self.b.ins().floor(v),
                UnOp::Ceil => self.b.ins().ceil(v),
                UnOp::Trunc => self.b.ins().trunc(v),
                _ => self.b.ins().nearest(v),
            };
        }
        // Adding and taking away 2^23 (2^52) rounds to nearest even; larger numbers, infinities and NaN are whole already.
        let t = if self.b.func.dfg.value_type(v) == types::F64 { DType::F64 } else { DType::F32 };
        let big = self.float(t, if t == DType::F64 { (1u64 << 52) as f64 } else { (1u64 << 23) as f64 });
        let (one, zero) = (self.float(t, 1.0), self.float(t, 0.0));
        let ins = &mut self.b;
        let magnitude = ins.ins().fabs(v);
        let small = ins.ins().fcmp(FloatCC::LessThan, magnitude, big);
        let up = ins.ins().fadd(magnitude, big);
        let near = ins.ins().fsub(up, big);
        let near = ins.ins().fcopysign(near, v);
        let too_high = ins.ins().fcmp(FloatCC::GreaterThan, near, v);
        let lower = ins.ins().fsub(near, one);
        let floor = ins.ins().select(too_high, lower, near);
        let too_low = ins.ins().fcmp(FloatCC::LessThan, near, v);
        let higher = ins.ins().fadd(near, one);
        let ceil = ins.ins().select(too_low, higher, near);
        let rounded = match op {
            UnOp::Floor => floor,
            UnOp::Ceil => ceil,
            UnOp::Trunc => {
                let negative = ins.ins().fcmp(FloatCC::LessThan, v, zero);
                ins.ins().select(negative, ceil, floor)
            }
            _ => near,
        };
        let signed = ins.ins().fcopysign(rounded, v);
        ins.ins().select(small, signed, v)
    }

    pub fn binary(&mut self, op: BinOp, t: DType, a: &Val, b: &Val, second: Second) -> Val {
        if t == DType::Bool {
            return self.logic(op, a, b);
        }
        let shift = matches!(op, BinOp::Shl | BinOp::Shr);
        if shift && let (Val::Regs(_), Val::Uniform(amount)) = (a, b) {
            return self.map(t, true, a, |e, v| e.binary_value(op, t, v, *amount, second));
        }
        let vector = match op {
            BinOp::Shl | BinOp::Shr | BinOp::Rem | BinOp::Pow => false,
            BinOp::Div => t.is_float(),
            // There is no multiplication of bytes.
            BinOp::Mul => t.size() > 1,
            _ => true,
        };
        self.zip(t, vector, a, b, |e, a, b| e.binary_value(op, t, a, b, second))
    }

    fn logic(&mut self, op: BinOp, a: &Val, b: &Val) -> Val {
        let apply = |e: &mut Self, a, b| match op {
            BinOp::And | BinOp::Mul | BinOp::Min => e.b.ins().band(a, b),
            BinOp::Or | BinOp::Max => e.b.ins().bor(a, b),
            BinOp::Xor => e.b.ins().bxor(a, b),
            _ => unreachable!("{op:?} is not for bools"),
        };
        let bytes = match (a, b) {
            (Val::Mask { bytes, .. }, _) | (_, Val::Mask { bytes, .. }) => *bytes,
            _ => return self.zip(DType::Bool, false, a, b, apply),
        };
        let (a, b) = (self.mask_of(a, bytes), self.mask_of(b, bytes));
        Val::Mask { bytes, regs: a.into_iter().zip(b).map(|(a, b)| apply(self, a, b)).collect() }
    }

    fn binary_value(&mut self, op: BinOp, t: DType, a: Value, b: Value, second: Second) -> Value {
        if t.is_float() {
            return match op {
                BinOp::Add => self.b.ins().fadd(a, b),
                BinOp::Sub => self.b.ins().fsub(a, b),
                BinOp::Mul => self.b.ins().fmul(a, b),
                BinOp::Div => self.b.ins().fdiv(a, b),
                BinOp::Min => self.float_minmax(FloatCC::LessThan, a, b, second),
                BinOp::Max => self.float_minmax(FloatCC::GreaterThan, a, b, second),
                BinOp::Rem => self.call_in_f64("lehr_rt_fmod_f64", t, &[a, b]),
                BinOp::Pow => self.call_in_f64("lehr_rt_pow_f64", t, &[a, b]),
                BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr => unreachable!("{op:?} is for integers"),
            };
        }
        let signed = t.is_signed();
        match op {
            BinOp::Add => self.b.ins().iadd(a, b),
            BinOp::Sub => self.b.ins().isub(a, b),
            BinOp::Mul => self.b.ins().imul(a, b),
            BinOp::Div | BinOp::Rem => self.divide(op, t, a, b),
            BinOp::Min if signed => self.b.ins().smin(a, b),
            BinOp::Min => self.b.ins().umin(a, b),
            BinOp::Max if signed => self.b.ins().smax(a, b),
            BinOp::Max => self.b.ins().umax(a, b),
            BinOp::And => self.b.ins().band(a, b),
            BinOp::Or => self.b.ins().bor(a, b),
            BinOp::Xor => self.b.ins().bxor(a, b),
            BinOp::Shl => self.b.ins().ishl(a, b),
            BinOp::Shr if signed => self.b.ins().sshr(a, b),
            BinOp::Shr => self.b.ins().ushr(a, b),
            BinOp::Pow => unreachable!("Pow is for floats"),
        }
    }

    /// The first operand unless the second is beyond it or NaN: written so that x86's minps and maxps do it, which give their second
    /// operand when unordered.
    fn float_minmax(&mut self, beyond: FloatCC, a: Value, b: Value, second: Second) -> Value {
        let ahead = match beyond {
            FloatCC::LessThan => self.b.ins().fcmp(FloatCC::LessThan, b, a),
            _ => self.b.ins().fcmp(FloatCC::LessThan, a, b),
        };
        let best = self.choose(ahead, b, a);
        if second == Second::IsANumber {
            return best;
        }
        let nan = self.b.ins().fcmp(FloatCC::Unordered, b, b);
        self.choose(nan, b, best)
    }

    /// `select` by a comparison's result, of scalars or vectors.
    pub fn choose(&mut self, cond: Value, a: Value, b: Value) -> Value {
        let t = self.b.func.dfg.value_type(a);
        if !t.is_vector() {
            return self.b.ins().select(cond, a, b);
        }
        let cond = self.cast_bits(t, cond);
        self.b.ins().bitselect(cond, a, b)
    }

    /// Division that never traps: by zero gives 0, MIN / -1 wraps.
    fn divide(&mut self, op: BinOp, t: DType, a: Value, b: Value) -> Value {
        let (signed, div) = (t.is_signed(), op == BinOp::Div);
        let ins = |e: &mut Self, a, b| match (signed, div) {
            (true, true) => e.b.ins().sdiv(a, b),
            (true, false) => e.b.ins().srem(a, b),
            (false, true) => e.b.ins().udiv(a, b),
            (false, false) => e.b.ins().urem(a, b),
        };
        if let Some(n) = self.constant(b)
            && n != 0
            && n != -1
        {
            return ins(self, a, b);
        }
        let ty = scalar_type(t);
        let (zero, one) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, 1));
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        if !signed {
            let safe = self.b.ins().select(by_zero, one, b);
            let result = ins(self, a, safe);
            return self.b.ins().select(by_zero, zero, result);
        }
        let by_minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let special = self.b.ins().bor(by_zero, by_minus_one);
        let safe = self.b.ins().select(special, one, b);
        let result = ins(self, a, safe);
        let negated = if div { self.b.ins().ineg(a) } else { zero };
        let result = self.b.ins().select(by_minus_one, negated, result);
        self.b.ins().select(by_zero, zero, result)
    }

    /// The sign-extended value of an integer constant.
    fn constant(&self, v: Value) -> Option<i64> {
        let def = self.b.func.dfg.value_def(v).inst()?;
        match self.b.func.dfg.insts[def] {
            codegen::ir::InstructionData::UnaryImm { opcode: codegen::ir::Opcode::Iconst, imm } => {
                let unused = 64 - self.b.func.dfg.value_type(v).bits();
                Some(imm.bits() << unused >> unused)
            }
            _ => None,
        }
    }

    fn compare(&mut self, op: CmpOp, t: DType, a: &Val, b: &Val) -> Val {
        if t == DType::Bool && (matches!(a, Val::Mask { .. }) || matches!(b, Val::Mask { .. })) {
            let a = self.lanes_of(a);
            let b = self.lanes_of(b);
            let lanes = a.into_iter().zip(b).map(|(a, b)| self.compare_value(op, t, a, b)).collect();
            return Val::Lanes(lanes);
        }
        match self.zip(t, true, a, b, |e, a, b| e.compare_value(op, t, a, b)) {
            Val::Regs(regs) => Val::Mask { bytes: t.size() as u32, regs },
            other => other,
        }
    }

    fn compare_value(&mut self, op: CmpOp, t: DType, a: Value, b: Value) -> Value {
        if t.is_float() {
            let cc = match op {
                CmpOp::Eq => FloatCC::Equal,
                CmpOp::Ne => FloatCC::NotEqual,
                CmpOp::Lt => FloatCC::LessThan,
                CmpOp::Le => FloatCC::LessThanOrEqual,
                CmpOp::Gt => FloatCC::GreaterThan,
                CmpOp::Ge => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, a, b);
        }
        let cc = match (op, t.is_signed()) {
            (CmpOp::Eq, _) => IntCC::Equal,
            (CmpOp::Ne, _) => IntCC::NotEqual,
            (CmpOp::Lt, true) => IntCC::SignedLessThan,
            (CmpOp::Le, true) => IntCC::SignedLessThanOrEqual,
            (CmpOp::Gt, true) => IntCC::SignedGreaterThan,
            (CmpOp::Ge, true) => IntCC::SignedGreaterThanOrEqual,
            (CmpOp::Lt, false) => IntCC::UnsignedLessThan,
            (CmpOp::Le, false) => IntCC::UnsignedLessThanOrEqual,
            (CmpOp::Gt, false) => IntCC::UnsignedGreaterThan,
            (CmpOp::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, a, b)
    }

    fn select(&mut self, t: DType, c: &Val, a: &Val, b: &Val) -> Val {
        if let Val::Uniform(c) = c {
            let c = *c;
            if let (Val::Mask { bytes, .. }, _) | (_, Val::Mask { bytes, .. }) = (a, b) {
                let (a, b) = (self.mask_of(a, *bytes), self.mask_of(b, *bytes));
                let regs = a.into_iter().zip(b).map(|(a, b)| self.b.ins().select(c, a, b)).collect();
                return Val::Mask { bytes: *bytes, regs };
            }
            return self.zip(t, true, a, b, |e, a, b| e.b.ins().select(c, a, b));
        }
        if in_regs(t, self.lanes) {
            let masks = self.mask_of(c, t.size() as u32);
            let (a, b) = (self.regs_of(t, a), self.regs_of(t, b));
            let regs = masks.into_iter().zip(a.into_iter().zip(b)).map(|(m, (a, b))| self.choose(m, a, b)).collect();
            return Val::Regs(regs);
        }
        if let (DType::Bool, Val::Mask { bytes, regs }) = (t, c) {
            let (a, b) = (self.mask_of(a, *bytes), self.mask_of(b, *bytes));
            let picked = regs.iter().zip(a.into_iter().zip(b)).map(|(&m, (a, b))| self.b.ins().bitselect(m, a, b));
            return Val::Mask { bytes: *bytes, regs: picked.collect() };
        }
        let (c, a, b) = (self.lanes_of(c), self.lanes_of(a), self.lanes_of(b));
        let lanes = c.into_iter().zip(a.into_iter().zip(b)).map(|(c, (a, b))| self.b.ins().select(c, a, b)).collect();
        Val::Lanes(lanes)
    }

    fn cast(&mut self, from: DType, to: DType, a: &Val) -> Val {
        if from == to {
            return a.clone();
        }
        if matches!(to, DType::F16 | DType::BF16) {
            return self.map(from, true, a, |e, v| e.rounded_to_half(to, v));
        }
        if to == DType::Bool {
            let zero = if from.is_float() { self.float(from, 0.0) } else { self.int(from, 0) };
            return self.compare(CmpOp::Ne, from, a, &Val::Uniform(zero));
        }
        if !matches!(a, Val::Uniform(_)) && in_regs(to, self.lanes) {
            if from == DType::Bool && matches!(a, Val::Mask { .. }) {
                let masks = self.mask_of(a, to.size() as u32);
                let one = if to.is_float() { self.float(to, 1.0) } else { self.int(to, 1) };
                let one = self.splat(to, one);
                let one = self.cast_bits(mask_type(to.size() as u32), one);
                let regs = masks.into_iter().map(|m| {
                    let bits = self.b.ins().band(m, one);
                    self.cast_bits(vector_type(to), bits)
                });
                return Val::Regs(regs.collect());
            }
            if in_regs(from, self.lanes) && has_vector_cast(from, to) {
                let regs = self.regs_of(from, a);
                return Val::Regs(self.cast_vectors(from, to, regs));
            }
        }
        self.map(from, false, a, |e, v| e.cast_value(from, to, v))
    }

    fn cast_vectors(&mut self, from: DType, to: DType, regs: Vec<Value>) -> Vec<Value> {
        match (from, to) {
            (DType::I32, DType::F32) => {
                regs.into_iter().map(|v| self.b.ins().fcvt_from_sint(types::F32X4, v)).collect()
            }
            (DType::I8 | DType::I16 | DType::U8 | DType::U16, DType::F32) => {
                let words = self.cast_vectors(from, DType::I32, regs);
                self.cast_vectors(DType::I32, DType::F32, words)
            }
            (DType::F32, DType::F64) => regs
                .into_iter()
                .flat_map(|v| {
                    let high = self.high_half(v);
                    [self.b.ins().fvpromote_low(v), self.b.ins().fvpromote_low(high)]
                })
                .collect(),
            (DType::F64, DType::F32) => regs
                .chunks(2)
                .map(|pair| {
                    let (a, b) = (self.b.ins().fvdemote(pair[0]), self.b.ins().fvdemote(pair[1]));
                    self.low_halves(a, b)
                })
                .collect(),
            _ if to.size() > from.size() => {
                let wider = regs.into_iter().flat_map(|v| match from.is_signed() {
                    true => [self.b.ins().swiden_low(v), self.b.ins().swiden_high(v)],
                    false => [self.b.ins().uwiden_low(v), self.b.ins().uwiden_high(v)],
                });
                let (wider, between) = (wider.collect(), int_of(from.size() * 2, from.is_signed()));
                self.cast_vectors(between, to, wider)
            }
            _ if to.size() < from.size() => {
                let half = from.size() / 2;
                let keep = self.int(from, (1 << (8 * half)) - 1);
                let keep = self.splat(from, keep);
                let narrower = regs.chunks(2).map(|pair| {
                    // Without the upper bits the saturation of `unarrow` never applies.
                    let (a, b) = (self.b.ins().band(pair[0], keep), self.b.ins().band(pair[1], keep));
                    self.b.ins().unarrow(a, b)
                });
                let narrower = narrower.collect();
                self.cast_vectors(int_of(half, from.is_signed()), to, narrower)
            }
            _ => regs,
        }
    }

    fn cast_value(&mut self, from: DType, to: DType, v: Value) -> Value {
        let ty = scalar_type(to);
        match (from.is_float(), to.is_float()) {
            (true, true) if to == DType::F64 => self.b.ins().fpromote(ty, v),
            (true, true) => self.b.ins().fdemote(ty, v),
            (true, false) => {
                let whole = self.float_to_i64(from, v);
                self.resize_int(true, ty, whole)
            }
            (false, true) => {
                // x86 converts from 32 and 64 bits only.
                let wide =
                    self.resize_int(from.is_signed(), if from.size() < 4 { types::I32 } else { scalar_type(from) }, v);
                match from.is_signed() || from.size() < 4 {
                    true => self.b.ins().fcvt_from_sint(ty, wide),
                    false => self.b.ins().fcvt_from_uint(ty, wide),
                }
            }
            (false, false) => self.resize_int(from.is_signed(), ty, v),
        }
    }

    /// Truncates; NaN and what is out of range give i64::MIN.
    fn float_to_i64(&mut self, from: DType, v: Value) -> Value {
        let limit = self.float(from, 9_223_372_036_854_775_808.0);
        let magnitude = self.b.ins().fabs(v);
        let fits = self.b.ins().fcmp(FloatCC::LessThan, magnitude, limit);
        let whole = self.b.ins().fcvt_to_sint_sat(types::I64, v);
        let none = self.b.ins().iconst(types::I64, i64::MIN);
        self.b.ins().select(fits, whole, none)
    }

    fn resize_int(&mut self, signed: bool, to: Type, v: Value) -> Value {
        let from = self.b.func.dfg.value_type(v);
        match (to.bits().cmp(&from.bits()), signed) {
            (std::cmp::Ordering::Less, _) => self.b.ins().ireduce(to, v),
            (std::cmp::Ordering::Equal, _) => v,
            (std::cmp::Ordering::Greater, true) => self.b.ins().sextend(to, v),
            (std::cmp::Ordering::Greater, false) => self.b.ins().uextend(to, v),
        }
    }
}

/// What is known of the second operand of min and max.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    Unknown,
    IsANumber,
}

/// Min and max take a constant as their second operand, where it is cheaper. Equal operands (so zeros of either sign) give the first.
pub(crate) fn minmax_order<'e>(op: BinOp, a: &'e Expr, b: &'e Expr) -> (&'e Expr, &'e Expr) {
    match (op, a) {
        (BinOp::Min | BinOp::Max, Expr::Float(..)) => (b, a),
        _ => (a, b),
    }
}

/// Operations on floats that are vector instructions for f32 and f64.
fn op_in_vectors(op: UnOp) -> bool {
    matches!(op, UnOp::Neg | UnOp::Abs | UnOp::Sqrt | UnOp::Floor | UnOp::Ceil | UnOp::Trunc | UnOp::Round)
}

fn has_vector_cast(from: DType, to: DType) -> bool {
    match (from.is_float(), to.is_float()) {
        (true, true) => true,
        (true, false) => false,
        (false, true) => to == DType::F32 && from != DType::U32,
        (false, false) => true,
    }
}

fn int_of(bytes: usize, signed: bool) -> DType {
    match (bytes, signed) {
        (1, true) => DType::I8,
        (1, false) => DType::U8,
        (2, true) => DType::I16,
        (2, false) => DType::U16,
        (4, true) => DType::I32,
        (4, false) => DType::U32,
        _ => unreachable!("vectors hold integers of at most 4 bytes, not {bytes}"),
    }
}

/// As in the runtime's symbols.
pub(crate) fn function_name(op: UnOp) -> &'static str {
    match op {
        UnOp::Exp => "exp",
        UnOp::Expm1 => "expm1",
        UnOp::Log => "log",
        UnOp::Log1p => "log1p",
        UnOp::Sin => "sin",
        UnOp::Cos => "cos",
        UnOp::Tan => "tan",
        UnOp::Asin => "asin",
        UnOp::Acos => "acos",
        UnOp::Atan => "atan",
        UnOp::Sinh => "sinh",
        UnOp::Cosh => "cosh",
        UnOp::Tanh => "tanh",
        UnOp::Asinh => "asinh",
        UnOp::Acosh => "acosh",
        UnOp::Atanh => "atanh",
        UnOp::Erf => "erf",
        UnOp::Neg | UnOp::Abs | UnOp::Not | UnOp::Sqrt | UnOp::Floor | UnOp::Ceil | UnOp::Trunc | UnOp::Round => {
            unreachable!("{op:?} is an instruction")
        }
    }
}
