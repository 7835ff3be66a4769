//! Floating-point arithmetic (PTX ISA 9.7.3, 9.7.4), in f64, f32, f16, bf16 and the packed pairs.
//!
//! The functions that the ISA calls approximate are computed in f64 and rounded once: the error that a GPU may add is
//! left out.

use crate::inst::{Binary, Mode, Unary};
use crate::types::{Round, Type};

use super::round::{decode, direct_f64, encode, to_odd, two_sum};

/// Applies `f` to both halves of a packed pair, or to the value itself.
fn halves(ty: Type, operands: [u64; 3], f: impl Fn(Type, [u64; 3]) -> u64) -> u64 {
    let half = match ty {
        Type::F16x2 => Type::F16,
        Type::Bf16x2 => Type::Bf16,
        _ => return f(ty, operands),
    };
    let low = f(half, operands.map(|x| x & 0xffff));
    let high = f(half, operands.map(|x| x >> 16 & 0xffff));
    high << 16 | low
}

/// Replaces subnormals by zeros of their sign.
pub fn flush(ty: Type, bits: u64) -> u64 {
    match ty {
        Type::F32 if f32::from_bits(bits as u32).is_subnormal() => bits & 0x8000_0000,
        Type::F16 if bits & 0x7c00 == 0 => bits & 0x8000,
        _ => bits,
    }
}

fn sign_bit(ty: Type) -> u64 {
    1 << (ty.bits() - 1)
}

/// Saturation, relu and flushing of a result, in the order of the ISA.
fn finish(ty: Type, mode: Mode, bits: u64) -> u64 {
    let mut bits = if mode.ftz { flush(ty, bits) } else { bits };
    if mode.sat {
        let value = decode(ty, bits);
        if value.is_nan() || value <= 0.0 {
            bits = 0;
        } else if value > 1.0 {
            bits = encode(ty, 1.0, Round::Nearest);
        }
    }
    if mode.relu && bits & sign_bit(ty) != 0 && !decode(ty, bits).is_nan() {
        bits = 0;
    }
    bits
}

pub fn unary(op: Unary, ty: Type, mode: Mode, a: u64) -> u64 {
    halves(ty, [a, 0, 0], |ty, [a, ..]| {
        let a = if mode.ftz { flush(ty, a) } else { a };
        match op {
            Unary::Neg => return a ^ sign_bit(ty),
            Unary::Abs => return a & !sign_bit(ty),
            _ => {}
        }
        let x = decode(ty, a);
        let bits = match op {
            Unary::Rcp => divide(ty, mode.round, 1.0, x),
            Unary::Sqrt => {
                let root = x.sqrt();
                let error = if root.is_finite() { (-root).mul_add(root, x) } else { 0.0 };
                finish_rounding(ty, mode.round, root, error)
            }
            Unary::Rsqrt => encode(ty, 1.0 / x.sqrt(), Round::Nearest),
            Unary::Ex2 => encode(ty, x.exp2(), Round::Nearest),
            Unary::Lg2 => encode(ty, x.log2(), Round::Nearest),
            Unary::Sin => encode(ty, x.sin(), Round::Nearest),
            Unary::Cos => encode(ty, x.cos(), Round::Nearest),
            _ => encode(ty, x.tanh(), Round::Nearest),
        };
        finish(ty, mode, bits)
    })
}

/// Rounds the exact `value + error` to `ty`.
fn finish_rounding(ty: Type, round: Round, value: f64, error: f64) -> u64 {
    if ty == Type::F64 {
        encode(ty, direct_f64(value, error, round), round)
    } else {
        encode(ty, to_odd(value, error), round)
    }
}

fn divide(ty: Type, round: Round, x: f64, y: f64) -> u64 {
    let quotient = x / y;
    let mut error = 0.0;
    if quotient.is_finite() && y.is_finite() {
        // The remainder has the sign of what is missing, times the divisor's.
        error = (-quotient).mul_add(y, x) * y.signum();
    }
    finish_rounding(ty, round, quotient, error)
}

pub fn binary(op: Binary, ty: Type, mode: Mode, a: u64, b: u64) -> u64 {
    if ty == Type::F32 && mode.round == Round::Nearest && !mode.sat && !mode.ftz {
        let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        match op {
            Binary::Add => return canonical(x + y),
            Binary::Sub => return canonical(x - y),
            Binary::Mul => return canonical(x * y),
            Binary::Div => return canonical(x / y),
            _ => {}
        }
    }
    halves(ty, [a, b, 0], |ty, [a, b, _]| {
        let (a, b) = if mode.ftz { (flush(ty, a), flush(ty, b)) } else { (a, b) };
        let (x, y) = (decode(ty, a), decode(ty, b));
        let bits = match op {
            Binary::Add => sum(ty, mode.round, x, y),
            Binary::Sub => sum(ty, mode.round, x, -y),
            Binary::Mul => {
                let product = x * y;
                let error = if ty == Type::F64 && product.is_finite() { x.mul_add(y, -product) } else { 0.0 };
                finish_rounding(ty, mode.round, product, error)
            }
            Binary::Div => divide(ty, mode.round, x, y),
            Binary::Min => extremum(ty, mode.nan, a, b, less(x, y)),
            Binary::Max => extremum(ty, mode.nan, a, b, less(y, x)),
            // copysign d, a, b: the sign of a, the magnitude of b
            _ => b & !sign_bit(ty) | a & sign_bit(ty),
        };
        finish(ty, mode, bits)
    })
}

fn canonical(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { u64::from(x.to_bits()) }
}

/// `x < y`, where -0 is less than +0.
fn less(x: f64, y: f64) -> bool {
    x < y || (x == 0.0 && y == 0.0 && x.is_sign_negative() && !y.is_sign_negative())
}

/// `a` if it comes `first`, otherwise `b`; of a number and a NaN the number, unless NaN shall win.
fn extremum(ty: Type, nan: bool, a: u64, b: u64, first: bool) -> u64 {
    let (a_nan, b_nan) = (decode(ty, a).is_nan(), decode(ty, b).is_nan());
    match (a_nan, b_nan) {
        (false, false) => {
            if first {
                a
            } else {
                b
            }
        }
        (true, false) if !nan => b,
        (false, true) if !nan => a,
        _ => encode(ty, f64::NAN, Round::Nearest),
    }
}

fn sum(ty: Type, round: Round, x: f64, y: f64) -> u64 {
    let (total, error) = two_sum(x, y);
    if total == 0.0 && round == Round::Down && (x.is_sign_negative() || y.is_sign_negative()) {
        return sign_bit(ty);
    }
    if ty == Type::F64 && total.is_infinite() && x.is_finite() && y.is_finite() {
        let keep = match round {
            Round::Zero => true,
            Round::Down => total > 0.0,
            Round::Up => total < 0.0,
            _ => false,
        };
        return if keep { f64::MAX.copysign(total).to_bits() } else { total.to_bits() };
    }
    finish_rounding(ty, round, total, error)
}

pub fn fma(ty: Type, mode: Mode, a: u64, b: u64, c: u64) -> u64 {
    if ty == Type::F32 && mode.round == Round::Nearest && !mode.sat && !mode.ftz {
        let x = f32::from_bits(a as u32).mul_add(f32::from_bits(b as u32), f32::from_bits(c as u32));
        return canonical(x);
    }
    halves(ty, [a, b, c], |ty, operands| {
        let [x, y, z] = operands.map(|bits| decode(ty, if mode.ftz { flush(ty, bits) } else { bits }));
        let bits = if ty == Type::F64 {
            let result = x.mul_add(y, z);
            let error = if mode.round == Round::Nearest { 0.0 } else { fma_error(x, y, z, result) };
            finish_rounding(ty, mode.round, result, error)
        } else {
            // The product of two significands of at most 24 bits is exact.
            sum(ty, mode.round, x * y, z)
        };
        finish(ty, mode, bits)
    })
}

/// What rounding took from `x * y + z`, in sign and about in size (Boldo and Muller, "Exact and approximated error of
/// the FMA").
fn fma_error(x: f64, y: f64, z: f64, result: f64) -> f64 {
    let product = x * y;
    let low = x.mul_add(y, -product);
    let (high, rest) = two_sum(product, z);
    let error = ((high - result) + rest) + low;
    if error.is_nan() { 0.0 } else { error }
}
