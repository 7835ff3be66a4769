//! Expressions of the kernel IR as PTX.

use super::emit::Emit;
use super::func::{Cmp, MmaType, Round};
use super::index::{FromInt, Index, cmp_of};
use super::math;
use super::reg::*;
use super::value::{Scalar, Val, constant, is_small};
use crate::kernel::{BinOp, CmpOp, Expr, UnOp};
use lehr_ir::DType;

impl Emit<'_> {
    pub fn eval(&mut self, e: &Expr) -> Val {
        match e {
            Expr::Int(DType::Bool, n) => Val::Uniform(Scalar::Pred(self.f.mov(Src::<Pred>::Imm(*n as u64)))),
            Expr::Int(t, n) => Val::Uniform(constant(*t, *n)),
            Expr::Float(DType::F32, bits) => Val::Uniform(Scalar::F32((f64::from_bits(*bits) as f32).into())),
            Expr::Float(_, bits) => Val::Uniform(Scalar::F64(f64::from_bits(*bits).into())),
            Expr::Var(v) => self.read(*v),
            Expr::Load { buf, index } => self.load(*buf, index),
            Expr::Unary(op, a) => {
                let t = self.k.type_of(a);
                let a = self.eval(a);
                self.map(&[&a], |e, v| e.unary(*op, t, v[0]))
            }
            Expr::Binary(BinOp::And, a, b) if self.truth(a) == Some(true) => self.eval(b),
            Expr::Binary(BinOp::And, a, b) if self.truth(b) == Some(true) => self.eval(a),
            Expr::Binary(op, a, b) => {
                let t = self.k.type_of(a);
                if let Some(inside) = self.inside(e) {
                    return Val::Uniform(Scalar::Pred(inside));
                }
                // Equal operands give the first, which the kernel IR's interpreter and the CPU order alike.
                let (a, b) = crate::clif::ops::minmax_order(*op, a, b);
                let (a, b) = (self.eval(a), self.eval(b));
                if t == DType::I64
                    && let (Some(x), Some(y)) = (a.as_index(), b.as_index())
                    && let Some(i) = self.f.index_op(*op, &x, &y, self.width)
                {
                    return Val::index(i);
                }
                self.map(&[&a, &b], |e, v| e.binary(*op, t, v[0], v[1]))
            }
            Expr::Compare(op, a, b) => {
                let t = self.k.type_of(a);
                let (a, b) = (self.eval(a), self.eval(b));
                self.map(&[&a, &b], |e, v| Scalar::Pred(e.compare(*op, t, v[0], v[1])))
            }
            Expr::Select(c, a, b) => {
                if let Some(first) = self.truth(c) {
                    return self.eval(if first { a } else { b });
                }
                let (c, a, b) = (self.eval(c), self.eval(a), self.eval(b));
                self.map(&[&c, &a, &b], |e, v| e.select(v[0].pred(), v[1], v[2]))
            }
            Expr::Cast(to, a) => {
                let from = self.k.type_of(a);
                let a = self.eval(a);
                if from == *to {
                    return a;
                }
                self.map(&[&a], |e, v| e.cast(from, *to, v[0]))
            }
        }
    }

    /// What a condition on indices is in all lanes, where their bounds decide it.
    fn truth(&mut self, e: &Expr) -> Option<bool> {
        match e {
            Expr::Int(DType::Bool, n) => Some(*n != 0),
            Expr::Binary(BinOp::And, a, b) => match (self.truth(a), self.truth(b)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (None, _) | (_, None) => None,
            },
            Expr::Compare(op, a, b) if self.k.type_of(a) == DType::I64 => {
                let (a, b) = (self.eval(a).as_index()?, self.eval(b).as_index()?);
                match op {
                    CmpOp::Lt => decided(a.high < b.low, a.low >= b.high),
                    CmpOp::Le => decided(a.high <= b.low, a.low > b.high),
                    CmpOp::Gt => decided(a.low > b.high, a.high <= b.low),
                    CmpOp::Ge => decided(a.low >= b.high, a.high < b.low),
                    CmpOp::Eq => decided(false, a.high < b.low || a.low > b.high),
                    CmpOp::Ne => decided(a.high < b.low || a.low > b.high, false),
                }
            }
            _ => None,
        }
    }

    /// `0 <= x & x < n` as one comparison, if that is what `e` is.
    fn inside(&mut self, e: &Expr) -> Option<Reg<Pred>> {
        let Expr::Binary(BinOp::And, after, before) = e else { return None };
        let (Expr::Compare(CmpOp::Ge, x, zero), Expr::Compare(CmpOp::Lt, y, n)) = (&**after, &**before) else {
            return None;
        };
        let n = n.as_i64().filter(|_| x == y && zero.as_i64() == Some(0))?;
        let x = self.eval(x).as_index().filter(|i| i.stride == 0)?;
        super::copy::within(&mut self.f, &x, n)
    }

    /// Lane by lane, or once where no operand differs between lanes.
    pub fn map(&mut self, operands: &[&Val], mut f: impl FnMut(&mut Self, &[Scalar]) -> Scalar) -> Val {
        let of = |lane: usize| operands.iter().map(|v| v.lane(lane)).collect::<Vec<_>>();
        if operands.iter().all(|v| matches!(v, Val::Uniform(_))) {
            return Val::Uniform(f(self, &of(0)));
        }
        Val::Lanes((0..self.width).map(|l| f(self, &of(l))).collect())
    }

    pub fn unary(&mut self, op: UnOp, t: DType, a: Scalar) -> Scalar {
        match (t, op) {
            (DType::Bool, UnOp::Not) => Scalar::Pred(self.f.not_pred(a.pred())),
            (DType::F32, _) => Scalar::F32(math::unary_f32(self, op, a.f32()).into()),
            (DType::F64, _) => Scalar::F64(math::unary_f64(self, op, a.f64()).into()),
            (DType::I64, UnOp::Neg) => {
                let i = a.int();
                Scalar::Int(self.f.scale_index(&i, -1))
            }
            (DType::I64, UnOp::Abs) => {
                let v = self.f.wide(&a.int());
                Scalar::Int(Index::unknown(self.f.abs::<S64>(v)))
            }
            (DType::I64, UnOp::Not) => {
                let v = self.f.wide(&a.int());
                Scalar::Int(Index::unknown(self.f.not(v)))
            }
            (DType::U64, UnOp::Neg) => Scalar::B64(self.f.neg::<S64>(a.b64()).into()),
            (DType::U64, UnOp::Not) => Scalar::B64(self.f.not(a.b64()).into()),
            (_, UnOp::Abs) if !t.is_signed() => a,
            (_, UnOp::Neg) => {
                let v = self.f.neg::<S32>(a.b32());
                self.wrapped(t, v)
            }
            (_, UnOp::Abs) => {
                let v = self.f.abs::<S32>(a.b32());
                self.wrapped(t, v)
            }
            (_, UnOp::Not) => {
                let v = self.f.not(a.b32());
                self.wrapped(t, v)
            }
            _ => unreachable!("{op:?} is not defined for {t}"),
        }
    }

    /// A 32-bit result in a type of at most 32 bits.
    fn wrapped(&mut self, t: DType, v: Reg<B32>) -> Scalar {
        let v = match t {
            DType::I8 => self.f.extend::<S8>(v),
            DType::U8 => self.f.extend::<U8>(v),
            DType::I16 => self.f.extend::<S16>(v),
            DType::U16 => self.f.extend::<U16>(v),
            _ => v,
        };
        Scalar::B32(v.into())
    }

    pub fn binary(&mut self, op: BinOp, t: DType, a: Scalar, b: Scalar) -> Scalar {
        match t {
            DType::F32 => Scalar::F32(self.float32(op, a.f32(), b.f32()).into()),
            DType::F64 => Scalar::F64(self.float64(op, a.f64(), b.f64()).into()),
            DType::Bool => {
                let (a, b) = (a.pred(), b.pred());
                Scalar::Pred(match op {
                    BinOp::And | BinOp::Mul | BinOp::Min => self.f.and_pred(a, b),
                    BinOp::Or | BinOp::Max => self.f.or_pred(a, b),
                    BinOp::Xor => self.f.xor_pred(a, b),
                    _ => unreachable!("{op:?} is not defined for bool"),
                })
            }
            DType::I64 => {
                let (x, y) = (a.int(), b.int());
                match self.f.index_op(op, &x, &y, 1) {
                    Some(i) => Scalar::Int(i),
                    None => unreachable!("single values have no stride"),
                }
            }
            DType::U64 => {
                let divisor = immediate(b.b64());
                Scalar::B64(self.f.int_op::<U64, B64>(op, a.b64(), b.b64(), divisor).into())
            }
            t => {
                let (x, y) = (a.b32(), b.b32());
                let divisor = immediate(y).map(|n| n as i32 as i64);
                let v = match t.is_signed() {
                    true => self.f.int_op::<S32, B32>(op, x, y, divisor),
                    false => self.f.int_op::<U32, B32>(op, x, y, divisor),
                };
                let stays = matches!(op, BinOp::Min | BinOp::Max | BinOp::And | BinOp::Or | BinOp::Xor);
                if is_small(t) && !stays { self.wrapped(t, v) } else { Scalar::B32(v.into()) }
            }
        }
    }

    fn float32(&mut self, op: BinOp, a: Src<F32>, b: Src<F32>) -> Reg<F32> {
        match op {
            BinOp::Add => self.f.add::<F32>(a, b),
            BinOp::Sub => self.f.sub::<F32>(a, b),
            BinOp::Mul => self.f.mul::<F32>(a, b),
            BinOp::Div => self.f.div_float::<F32>(a, b),
            BinOp::Min => self.f.min_f32(a, b),
            BinOp::Max => self.f.max_f32(a, b),
            BinOp::Rem | BinOp::Pow => {
                let (a, b) = (self.f.cvt::<F64, F32>(Round::None, a), self.f.cvt::<F64, F32>(Round::None, b));
                let y = self.float64(op, a.into(), b.into());
                self.f.cvt::<F32, F64>(Round::Nearest, y)
            }
            BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr => unreachable!("{op:?} is for integers"),
        }
    }

    fn float64(&mut self, op: BinOp, a: Src<F64>, b: Src<F64>) -> Reg<F64> {
        match op {
            BinOp::Add => self.f.add::<F64>(a, b),
            BinOp::Sub => self.f.sub::<F64>(a, b),
            BinOp::Mul => self.f.mul::<F64>(a, b),
            BinOp::Div => self.f.div_float::<F64>(a, b),
            // f64 has no `.NaN`: the second unless the first is as far, the second if it is NaN, the first if that is.
            BinOp::Min | BinOp::Max => {
                let cmp = if op == BinOp::Min { Cmp::Lt } else { Cmp::Gt };
                let beyond = self.f.setp::<F64>(cmp, b, a);
                let nan = self.f.setp::<F64>(Cmp::Nan, b, b);
                let second = self.f.or_pred(beyond, nan);
                self.f.selp(second, b, a)
            }
            BinOp::Rem => math::fmod(self, a, b),
            BinOp::Pow => math::pow(self, a, b),
            BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr => unreachable!("{op:?} is for integers"),
        }
    }

    fn compare(&mut self, op: CmpOp, t: DType, a: Scalar, b: Scalar) -> Reg<Pred> {
        let cmp = cmp_of(op);
        let of_float = if op == CmpOp::Ne { Cmp::Neu } else { cmp };
        match t {
            DType::F32 => self.f.setp::<F32>(of_float, a.f32(), b.f32()),
            DType::F64 => self.f.setp::<F64>(of_float, a.f64(), b.f64()),
            DType::I64 => self.f.compare_index(op, &a.int(), &b.int()),
            DType::U64 => self.f.setp::<U64>(cmp, a.b64(), b.b64()),
            DType::Bool => {
                let (a, b) = (self.f.selp::<B32>(a.pred(), 1, 0), self.f.selp::<B32>(b.pred(), 1, 0));
                self.f.setp::<U32>(cmp, a, b)
            }
            t if t.is_signed() => self.f.setp::<S32>(cmp, a.b32(), b.b32()),
            _ => self.f.setp::<U32>(cmp, a.b32(), b.b32()),
        }
    }

    fn select(&mut self, p: Reg<Pred>, a: Scalar, b: Scalar) -> Scalar {
        match (a, b) {
            (Scalar::Pred(a), Scalar::Pred(b)) => {
                let not = self.f.not_pred(p);
                let (a, b) = (self.f.and_pred(p, a), self.f.and_pred(not, b));
                Scalar::Pred(self.f.or_pred(a, b))
            }
            (Scalar::Int(a), Scalar::Int(b)) => {
                let (low, high) = (a.low.min(b.low), a.high.max(b.high));
                let multiple = super::index::gcd(a.multiple, b.multiple);
                if self.f.is_narrow(&a) && self.f.is_narrow(&b) {
                    let (a, b) = (self.f.narrow(&a), self.f.narrow(&b));
                    let r = self.f.selp(p, a, b);
                    return Scalar::Int(Index::register(super::index::IntReg::Narrow(r), multiple, low, high));
                }
                let (a, b) = (self.f.wide(&a), self.f.wide(&b));
                let r = self.f.selp(p, a, b);
                Scalar::Int(Index::register(super::index::IntReg::Wide(r), multiple, low, high))
            }
            (Scalar::B32(a), Scalar::B32(b)) => Scalar::B32(self.f.selp(p, a, b).into()),
            (Scalar::B64(a), Scalar::B64(b)) => Scalar::B64(self.f.selp(p, a, b).into()),
            (Scalar::F32(a), Scalar::F32(b)) => Scalar::F32(self.f.selp(p, a, b).into()),
            (Scalar::F64(a), Scalar::F64(b)) => Scalar::F64(self.f.selp(p, a, b).into()),
            (a, b) => unreachable!("select of {a:?} and {b:?}"),
        }
    }

    fn cast(&mut self, from: DType, to: DType, a: Scalar) -> Scalar {
        if to == DType::Bool {
            let zero = match from {
                DType::F32 => Scalar::F32(0f32.into()),
                DType::F64 => Scalar::F64(0f64.into()),
                t => constant(t, 0),
            };
            return Scalar::Pred(self.compare(CmpOp::Ne, from, a, zero));
        }
        let f = &mut self.f;
        match (from, to, a) {
            (_, DType::F16, Scalar::F32(v)) => {
                let half = f.f32_to_f16(v);
                Scalar::F32(f.f16_to_f32(half).into())
            }
            (_, DType::BF16, Scalar::F32(v)) => {
                // The upper half of a pair is the upper half of an f32.
                let pair = f.round_to_pair(MmaType::Bf16, 0f32.into(), v);
                Scalar::F32(f.bits::<F32, B32>(pair).into())
            }
            (_, DType::F64, Scalar::F32(v)) => Scalar::F64(f.cvt::<F64, F32>(Round::None, v).into()),
            (_, DType::F32, Scalar::F64(v)) => Scalar::F32(f.cvt::<F32, F64>(Round::Nearest, v).into()),
            (_, _, Scalar::F32(v)) => {
                let wide = f.cvt::<F64, F32>(Round::None, v);
                let whole = self.truncated(wide.into());
                self.resized(DType::I64, to, Scalar::Int(Index::unknown(whole)))
            }
            (_, _, Scalar::F64(v)) => {
                let whole = self.truncated(v);
                self.resized(DType::I64, to, Scalar::Int(Index::unknown(whole)))
            }
            (_, DType::F32, Scalar::Pred(p)) => Scalar::F32(f.selp::<F32>(p, 1f32, 0f32).into()),
            (_, DType::F64, Scalar::Pred(p)) => Scalar::F64(f.selp::<F64>(p, 1f64, 0f64).into()),
            (_, _, Scalar::Pred(p)) => {
                let word = f.selp::<B32>(p, 1, 0);
                self.resized(DType::U32, to, Scalar::B32(word.into()))
            }
            (from, DType::F32, Scalar::B32(v)) => Scalar::F32(
                if from.is_signed() {
                    f.cvt::<F32, S32>(Round::Nearest, v)
                } else {
                    f.cvt::<F32, U32>(Round::Nearest, v)
                }
                .into(),
            ),
            (from, DType::F64, Scalar::B32(v)) => Scalar::F64(
                if from.is_signed() {
                    f.cvt::<F64, S32>(Round::Nearest, v)
                } else {
                    f.cvt::<F64, U32>(Round::Nearest, v)
                }
                .into(),
            ),
            (_, DType::F32, Scalar::B64(v)) => Scalar::F32(f.cvt::<F32, U64>(Round::Nearest, v).into()),
            (_, DType::F64, Scalar::B64(v)) => Scalar::F64(f.cvt::<F64, U64>(Round::Nearest, v).into()),
            (_, DType::F32, Scalar::Int(i)) => {
                let v = f.wide(&i);
                Scalar::F32(f.cvt::<F32, S64>(Round::Nearest, v).into())
            }
            (_, DType::F64, Scalar::Int(i)) => {
                let v = f.wide(&i);
                Scalar::F64(f.cvt::<F64, S64>(Round::Nearest, v).into())
            }
            (from, to, a) => self.resized(from, to, a),
        }
    }

    /// Towards zero; NaN and what is out of range give i64::MIN.
    fn truncated(&mut self, v: Src<F64>) -> Reg<B64> {
        let size = self.f.abs::<F64>(v);
        let fits = self.f.setp::<F64>(Cmp::Lt, size, 9_223_372_036_854_775_808.0f64);
        let safe = self.f.selp::<F64>(fits, v, 0f64);
        let whole = self.f.cvt::<S64, F64>(Round::ZeroInt, safe);
        self.f.selp(fits, whole, i64::MIN)
    }

    /// Between integers.
    fn resized(&mut self, from: DType, to: DType, a: Scalar) -> Scalar {
        let f = &mut self.f;
        match (to, a) {
            (DType::I64, Scalar::Int(_)) => a,
            (DType::I64, Scalar::B64(v)) => Scalar::Int(Index::unknown(super::emit::in_reg(f, v))),
            (DType::I64, Scalar::B32(v)) if from.is_signed() || is_small(from) => {
                let (low, high) = match from.is_signed() {
                    true => (i64::MIN >> (64 - from.bits()), i64::MAX >> (64 - from.bits())),
                    false => (0, (u64::MAX >> (64 - from.bits())) as i64),
                };
                let r = super::emit::in_reg(f, v);
                Scalar::Int(Index::register(super::index::IntReg::Narrow(r), 1, low, high))
            }
            (DType::I64, Scalar::B32(v)) => {
                let wide = f.cvt::<U64, U32>(Round::None, v);
                Scalar::Int(Index::register(super::index::IntReg::Wide(wide), 1, 0, u32::MAX as i64))
            }
            (DType::U64, Scalar::Int(i)) => Scalar::B64(f.wide(&i)),
            (DType::U64, Scalar::B64(_)) => a,
            (DType::U64, Scalar::B32(v)) => Scalar::B64(match from.is_signed() {
                true => f.cvt::<S64, S32>(Round::None, v).into(),
                false => f.cvt::<U64, U32>(Round::None, v).into(),
            }),
            (to, Scalar::Int(i)) => {
                let word = if f.is_narrow(&i) {
                    f.narrow(&i)
                } else {
                    let wide = f.wide(&i);
                    f.cvt::<U32, U64>(Round::None, wide).into()
                };
                let word = super::emit::in_reg(f, word);
                self.wrapped(to, word)
            }
            (to, Scalar::B64(v)) => {
                let word = f.cvt::<U32, U64>(Round::None, v);
                self.wrapped(to, word)
            }
            (to, Scalar::B32(v)) => {
                let word = super::emit::in_reg(f, v);
                self.wrapped(to, word)
            }
            (to, a) => unreachable!("{a:?} as {to}"),
        }
    }
}

fn decided(always: bool, never: bool) -> Option<bool> {
    if always || never { Some(always) } else { None }
}

/// A constant operand.
fn immediate<C: Class>(s: Src<C>) -> Option<i64>
where
    Src<C>: FromInt,
{
    match s {
        Src::Imm(bits) => Some(bits as i64),
        Src::Reg(_) => None,
    }
}
