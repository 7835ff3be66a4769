//! Elementwise operators as expressions over the elements of their operands. Used wherever such an operator
//! stands: alone, in a chain, or fused before or behind an anchor.
//!
//! f16 and bf16 are computed in f32; forms are chosen that neither overflow nor lose NaN.

use crate::kernel::{BinOp, Blocks, CmpOp, Expr, KernelBuilder, UnOp, computing_type};
use lehr_ir::ops::{BinaryFn, UnaryFn};
use lehr_ir::{DType, Op};

/// Result `port` of `op` for one element. `args` are in the computing types of `dtypes`; the result is in that of `to`.
///
/// # Panics
/// If `op` is not elementwise: groups hold no others.
pub fn expression(
    op: &Op,
    port: u32,
    args: &[Option<Expr>],
    dtypes: &[Option<DType>],
    to: DType,
    b: &mut KernelBuilder,
) -> Expr {
    // Named, since most functions use their operand more than once.
    let args: Vec<Option<Expr>> = args.iter().map(|a| a.clone().map(|e| b.let_(e))).collect();
    let arg = |i: usize| args[i].clone().expect("arity was checked");
    let dtype = |i: usize| dtypes[i].expect("arity was checked");
    match op {
        Op::Identity(_) => arg(0),
        Op::Dropout(_) if port == 0 => arg(0),
        Op::Dropout(_) => Expr::Int(DType::Bool, 1),
        Op::Unary(u) if dtype(0).is_float() => unary_float(u.f, arg(0), computing_type(dtype(0)), b),
        Op::Unary(u) => unary_int(u.f, arg(0), dtype(0)),
        Op::Binary(op) => binary(op.f, arg(0), arg(1), dtype(0), dtype(1), b),
        Op::Where(_) => Expr::select(arg(0), arg(1), arg(2)),
        Op::Cast(_) => cast(arg(0), dtype(0), to),
        Op::Clip(_) => clip(arg(0), args.get(1).cloned().flatten(), args.get(2).cloned().flatten(), b),
        other => unreachable!("{} is not elementwise", other.name()),
    }
}

fn lt(a: Expr, b: Expr) -> Expr {
    Expr::compare(CmpOp::Lt, a, b)
}

fn gt(a: Expr, b: Expr) -> Expr {
    Expr::compare(CmpOp::Gt, a, b)
}

fn ne(a: Expr, b: Expr) -> Expr {
    Expr::compare(CmpOp::Ne, a, b)
}

fn both(a: Expr, b: Expr) -> Expr {
    Expr::binary(BinOp::And, a, b)
}

fn unary_float(f: UnaryFn, x: Expr, t: DType, b: &mut KernelBuilder) -> Expr {
    let n = |v: f64| Expr::number(t, v);
    let a = |v: f32| n(f64::from(v));
    let un = Expr::unary;
    let zero = || n(0.0);
    let negative = |x: &Expr| lt(x.clone(), zero());
    match f {
        UnaryFn::Neg => un(UnOp::Neg, x),
        UnaryFn::Abs => un(UnOp::Abs, x),
        UnaryFn::Sign => {
            let below = Expr::select(negative(&x), n(-1.0), x.clone());
            Expr::select(gt(x, zero()), n(1.0), below)
        }
        UnaryFn::Floor => un(UnOp::Floor, x),
        UnaryFn::Ceil => un(UnOp::Ceil, x),
        UnaryFn::Round => un(UnOp::Round, x),
        UnaryFn::Sqrt => un(UnOp::Sqrt, x),
        UnaryFn::Reciprocal => n(1.0) / x,
        UnaryFn::Exp => un(UnOp::Exp, x),
        UnaryFn::Log => un(UnOp::Log, x),
        UnaryFn::Log1p => un(UnOp::Log1p, x),
        UnaryFn::Sin => un(UnOp::Sin, x),
        UnaryFn::Cos => un(UnOp::Cos, x),
        UnaryFn::Tan => un(UnOp::Tan, x),
        UnaryFn::Asin => un(UnOp::Asin, x),
        UnaryFn::Acos => un(UnOp::Acos, x),
        UnaryFn::Atan => un(UnOp::Atan, x),
        UnaryFn::Sinh => un(UnOp::Sinh, x),
        UnaryFn::Cosh => un(UnOp::Cosh, x),
        UnaryFn::Tanh => un(UnOp::Tanh, x),
        UnaryFn::Asinh => un(UnOp::Asinh, x),
        UnaryFn::Acosh => un(UnOp::Acosh, x),
        UnaryFn::Atanh => un(UnOp::Atanh, x),
        UnaryFn::Erf => un(UnOp::Erf, x),
        UnaryFn::IsNan => ne(x.clone(), x),
        UnaryFn::IsInf { negative, positive } => {
            let equals = |v: f64, wanted: f32| match wanted != 0.0 {
                true => Expr::compare(CmpOp::Eq, x.clone(), n(v)),
                false => Expr::Int(DType::Bool, 0),
            };
            Expr::binary(BinOp::Or, equals(f64::INFINITY, positive), equals(f64::NEG_INFINITY, negative))
        }
        UnaryFn::Relu => x.max(zero()),
        UnaryFn::LeakyRelu { alpha } => Expr::select(negative(&x), a(alpha) * x.clone(), x),
        UnaryFn::ThresholdedRelu { alpha } => Expr::select(gt(x.clone(), a(alpha)), x, zero()),
        UnaryFn::Elu { alpha } => Expr::select(negative(&x), a(alpha) * un(UnOp::Expm1, x.clone()), x),
        UnaryFn::Celu { alpha } => {
            let below = a(alpha) * un(UnOp::Expm1, x.clone() / a(alpha));
            Expr::select(negative(&x), below, x)
        }
        UnaryFn::Selu { alpha, gamma } => {
            let below = n(f64::from(gamma) * f64::from(alpha)) * un(UnOp::Expm1, x.clone());
            Expr::select(negative(&x), below, a(gamma) * x)
        }
        UnaryFn::Sigmoid => n(1.0) / (n(1.0) + un(UnOp::Exp, un(UnOp::Neg, x))),
        UnaryFn::HardSigmoid { alpha, beta } => (a(alpha) * x + a(beta)).max(zero()).min(n(1.0)),
        UnaryFn::HardSwish => {
            let gate = (x.clone() * n(1.0 / 6.0) + n(0.5)).max(zero()).min(n(1.0));
            x * gate
        }
        UnaryFn::Swish { alpha } => x.clone() / (n(1.0) + un(UnOp::Exp, n(-f64::from(alpha)) * x)),
        UnaryFn::Softplus => softplus(x, t),
        UnaryFn::Softsign => x.clone() / (n(1.0) + un(UnOp::Abs, x)),
        UnaryFn::Gelu => {
            let e = un(UnOp::Erf, x.clone() * n(std::f64::consts::FRAC_1_SQRT_2));
            n(0.5) * x * (n(1.0) + e)
        }
        UnaryFn::GeluTanh => {
            let cube = x.clone() * x.clone() * x.clone();
            let inner = n((2.0 / std::f64::consts::PI).sqrt()) * (x.clone() + n(0.044715) * cube);
            n(0.5) * x * (n(1.0) + un(UnOp::Tanh, inner))
        }
        UnaryFn::Mish => {
            let s = b.let_(softplus(x.clone(), t));
            x * un(UnOp::Tanh, s)
        }
        UnaryFn::Not | UnaryFn::BitNot => unreachable!("inference lets no floats here"),
    }
}

/// `max(x, 0) + ln(1 + e^-|x|)`
fn softplus(x: Expr, t: DType) -> Expr {
    let small = Expr::unary(UnOp::Exp, Expr::unary(UnOp::Neg, Expr::unary(UnOp::Abs, x.clone())));
    x.max(Expr::number(t, 0.0)) + Expr::unary(UnOp::Log1p, small)
}

fn unary_int(f: UnaryFn, x: Expr, t: DType) -> Expr {
    let n = |v: i64| Expr::Int(t, v);
    match f {
        UnaryFn::Neg => Expr::unary(UnOp::Neg, x),
        UnaryFn::Abs if t.is_signed() => Expr::unary(UnOp::Abs, x),
        UnaryFn::Relu if t.is_signed() => x.max(n(0)),
        UnaryFn::Abs | UnaryFn::Relu => x,
        UnaryFn::Sign => {
            let below = if t.is_signed() { Expr::select(lt(x.clone(), n(0)), n(-1), n(0)) } else { n(0) };
            Expr::select(gt(x, n(0)), n(1), below)
        }
        UnaryFn::Not | UnaryFn::BitNot => Expr::unary(UnOp::Not, x),
        other => unreachable!("inference lets no integers reach {other:?}"),
    }
}

fn binary(f: BinaryFn, x: Expr, y: Expr, tx: DType, ty: DType, b: &mut KernelBuilder) -> Expr {
    let is_float = tx.is_float();
    let t = computing_type(tx);
    let zero = || Expr::number(t, 0.0);
    if !is_float && matches!(f, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Fmod) {
        b.fault_if(Expr::compare(CmpOp::Eq, y.clone(), zero()), "integer division by zero");
    }
    let compare = Expr::compare;
    match f {
        BinaryFn::Add => x + y,
        BinaryFn::Sub => x - y,
        BinaryFn::Mul => x * y,
        BinaryFn::Div => x / y,
        BinaryFn::Fmod => x % y,
        BinaryFn::Mod => floor_mod(x, y, t, b),
        BinaryFn::Pow => pow(x, y, tx, ty, b),
        BinaryFn::Min => x.min(y),
        BinaryFn::Max => x.max(y),
        BinaryFn::And | BinaryFn::BitAnd => Expr::binary(BinOp::And, x, y),
        BinaryFn::Or | BinaryFn::BitOr => Expr::binary(BinOp::Or, x, y),
        BinaryFn::Xor | BinaryFn::BitXor => Expr::binary(BinOp::Xor, x, y),
        BinaryFn::ShiftLeft => shift(BinOp::Shl, x, y, t),
        BinaryFn::ShiftRight => shift(BinOp::Shr, x, y, t),
        BinaryFn::Equal => compare(CmpOp::Eq, x, y),
        BinaryFn::Less => compare(CmpOp::Lt, x, y),
        BinaryFn::LessEqual => compare(CmpOp::Le, x, y),
        BinaryFn::Greater => compare(CmpOp::Gt, x, y),
        BinaryFn::GreaterEqual => compare(CmpOp::Ge, x, y),
        BinaryFn::Prelu => Expr::select(lt(x.clone(), zero()), x.clone() * y, x),
    }
}

/// The remainder with the divisor's sign.
fn floor_mod(x: Expr, y: Expr, t: DType, b: &mut KernelBuilder) -> Expr {
    let zero = || Expr::number(t, 0.0);
    let r = b.let_(x % y.clone());
    let nonzero = ne(r.clone(), zero());
    let signs_differ = Expr::binary(BinOp::Xor, lt(r.clone(), zero()), lt(y.clone(), zero()));
    let adjusted = Expr::select(both(nonzero.clone(), signs_differ), r.clone() + y.clone(), r.clone());
    if !t.is_float() {
        return adjusted;
    }
    // A zero remainder has the divisor's sign too; `r * 0` keeps NaN, which is not equal to zero either.
    let signed_zero = Expr::select(lt(y, zero()), Expr::number(t, -0.0), zero());
    Expr::select(Expr::compare(CmpOp::Eq, r, zero()), signed_zero, adjusted)
}

/// Zero when the amount is not below the width.
fn shift(op: BinOp, x: Expr, y: Expr, t: DType) -> Expr {
    let bits = i64::from(t.bits());
    let n = |v: i64| Expr::Int(t, v);
    let fits = lt(y.clone(), n(bits));
    let fits = if t.is_signed() { both(fits, Expr::compare(CmpOp::Ge, y.clone(), n(0))) } else { fits };
    let amount = Expr::binary(BinOp::And, y, n(bits - 1));
    // What is left of a number shifted right too far is its sign; there is no sign otherwise.
    let rest = match op {
        BinOp::Shr if t.is_signed() => Expr::binary(op, x.clone(), n(bits - 1)),
        _ => n(0),
    };
    Expr::select(fits, Expr::binary(op, x, amount), rest)
}

fn pow(x: Expr, y: Expr, tx: DType, ty: DType, b: &mut KernelBuilder) -> Expr {
    match (tx.is_float(), ty.is_float()) {
        (true, _) => {
            let t = computing_type(tx);
            // In f64 when the exponent has more bits than the base could hold.
            let wide = t == DType::F32 && matches!(ty, DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U64);
            if wide {
                let power = Expr::binary(BinOp::Pow, Expr::cast(DType::F64, x), Expr::cast(DType::F64, y));
                return Expr::cast(t, power);
            }
            let y = if computing_type(ty) == t { y } else { Expr::cast(t, y) };
            Expr::binary(BinOp::Pow, x, y)
        }
        (false, true) => {
            let power = Expr::binary(BinOp::Pow, Expr::cast(DType::F64, x), Expr::cast(DType::F64, y));
            cast(power, DType::F64, tx)
        }
        (false, false) => int_pow(x, y, tx, ty, b),
    }
}

/// Square and multiply; negative exponents give the truncated fraction.
fn int_pow(x: Expr, y: Expr, tx: DType, ty: DType, b: &mut KernelBuilder) -> Expr {
    let (n, e) = (|v: i64| Expr::Int(tx, v), |v: i64| Expr::Int(ty, v));
    let result = b.mutable(n(1));
    let base = b.mutable(x.clone());
    let rest = b.mutable(y.clone());
    b.while_(gt(Expr::Var(rest), e(0)), |b| {
        let odd = ne(Expr::binary(BinOp::And, Expr::Var(rest), e(1)), e(0));
        b.set(result, Expr::select(odd, Expr::Var(result) * Expr::Var(base), Expr::Var(result)));
        b.set(base, Expr::Var(base) * Expr::Var(base));
        b.set(rest, Expr::binary(BinOp::Shr, Expr::Var(rest), e(1)));
    });
    if !ty.is_signed() {
        return Expr::Var(result);
    }
    let is_negative = b.let_(lt(y.clone(), e(0)));
    b.fault_if(both(is_negative.clone(), Expr::compare(CmpOp::Eq, x.clone(), n(0))), "zero to a negative power");
    let odd = ne(Expr::binary(BinOp::And, y, e(1)), e(0));
    let of_minus_one = Expr::select(odd, n(-1), n(1));
    let fraction = Expr::select(
        Expr::compare(CmpOp::Eq, x.clone(), n(1)),
        n(1),
        match tx.is_signed() {
            true => Expr::select(Expr::compare(CmpOp::Eq, x, n(-1)), of_minus_one, n(0)),
            false => n(0),
        },
    );
    Expr::select(is_negative, fraction, Expr::Var(result))
}

/// Conversion by the rules of the IR's cast. To f16 and bf16 the value stays in f32: stores round it, and `KernelCx` does for who computes with it.
fn cast(x: Expr, from: DType, to: DType) -> Expr {
    let t = computing_type(from);
    let target = computing_type(to);
    if t == target {
        return x;
    }
    match to {
        DType::Bool => ne(x, Expr::number(t, 0.0)),
        // i64 cannot hold the upper half: it is moved down by 2^63, and the top bit set again.
        DType::U64 if t.is_float() => {
            let half = Expr::number(t, 2f64.powi(63));
            let in_upper =
                both(Expr::compare(CmpOp::Ge, x.clone(), half.clone()), lt(x.clone(), Expr::number(t, 2f64.powi(64))));
            let moved = Expr::cast(DType::U64, x.clone() - half);
            let upper = Expr::binary(BinOp::Or, moved, Expr::Int(DType::U64, i64::MIN));
            Expr::select(in_upper, upper, Expr::cast(DType::U64, x))
        }
        _ => Expr::cast(to, x),
    }
}

/// Comparisons that NaN fails, so that it stays; the upper bound wins.
fn clip(x: Expr, lo: Option<Expr>, hi: Option<Expr>, b: &mut KernelBuilder) -> Expr {
    let mut x = x;
    if let Some(lo) = lo {
        x = b.let_(Expr::select(lt(x.clone(), lo.clone()), lo, x));
    }
    if let Some(hi) = hi {
        x = Expr::select(gt(x.clone(), hi.clone()), hi, x);
    }
    x
}
