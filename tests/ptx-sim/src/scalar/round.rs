//! Floating-point formats: bits to values, and values rounded to bits.
//!
//! Values travel as f64, which holds every value of every other format. A result that is not exact in f64 is first
//! *rounded to odd* ([`to_odd`]), after which rounding to a format of at most 51 bits is as if done once (Boldo and
//! Melquiond, "Emulation of a FMA and correctly rounded sums").

use crate::types::{Round, Type};

struct Format {
    /// Bits of the significand after the leading one.
    mantissa: u32,
    /// The smallest exponent of a normal number.
    min_exponent: i32,
    max: f64,
}

const F16: Format = Format { mantissa: 10, min_exponent: -14, max: 65504.0 };
const BF16: Format = Format { mantissa: 7, min_exponent: -126, max: 3.3895313892515355e38 };
const TF32: Format = Format { mantissa: 10, min_exponent: -126, max: 3.4011621342146535e38 };

/// The value of `bits`.
pub fn decode(ty: Type, bits: u64) -> f64 {
    match ty {
        Type::F64 => f64::from_bits(bits),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        Type::Tf32 => f64::from(f32::from_bits(bits as u32 & 0xffff_e000)),
        Type::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        Type::F16 => f64::from(f16_to_f32(bits as u16)),
        _ => f64::NAN,
    }
}

pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits) & 0x3ff;
    match exponent {
        0 => {
            let magnitude = mantissa as f32 * (1.0 / (1 << 24) as f32);
            f32::from_bits(magnitude.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
    }
}

/// The bits of `value` rounded to `ty`; NaN is the canonical one (PTX ISA 9.7.3).
pub fn encode(ty: Type, value: f64, round: Round) -> u64 {
    if value.is_nan() {
        return match ty {
            Type::F64 => f64::NAN.to_bits(),
            Type::F16 | Type::Bf16 => 0x7fff,
            _ => 0x7fff_ffff,
        };
    }
    match ty {
        Type::F64 => value.to_bits(),
        Type::Bf16 => u64::from((round_to(&BF16, value, round) as f32).to_bits() >> 16),
        Type::Tf32 => u64::from((round_to(&TF32, value, round) as f32).to_bits()),
        Type::F16 => u64::from(f16_bits(round_to(&F16, value, round))),
        _ => u64::from(to_f32(value, round).to_bits()),
    }
}

/// The bits of a value that f16 holds.
fn f16_bits(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if magnitude.is_infinite() {
        return sign | 0x7c00;
    }
    if magnitude < 2f64.powi(-14) {
        return sign | (magnitude * 2f64.powi(24)) as u16;
    }
    let bits = magnitude.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    sign | ((exponent + 15) as u16) << 10 | (bits >> 42) as u16 & 0x3ff
}

fn to_f32(value: f64, round: Round) -> f32 {
    let nearest = value as f32;
    let error = f64::from(nearest) - value;
    match round {
        Round::Up if error < 0.0 => nearest.next_up(),
        Round::Down if error > 0.0 => nearest.next_down(),
        Round::Zero if error > 0.0 && value > 0.0 => nearest.next_down(),
        Round::Zero if error < 0.0 && value < 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

fn round_to(format: &Format, value: f64, round: Round) -> f64 {
    if value == 0.0 || value.is_infinite() {
        return value;
    }
    let exponent = ((value.to_bits() >> 52) as i32 & 0x7ff) - 1023;
    let exponent = exponent.max(format.min_exponent);
    let quantum = 2f64.powi(exponent - format.mantissa as i32);
    let rounded = integral(value / quantum, round) * quantum;
    if rounded.abs() <= format.max {
        return rounded.copysign(value);
    }
    let away = match round {
        Round::Nearest | Round::NearestAway => true,
        Round::Zero => false,
        Round::Down => value < 0.0,
        Round::Up => value > 0.0,
    };
    if away { f64::INFINITY.copysign(value) } else { format.max.copysign(value) }
}

/// Rounded to an integral value.
pub fn integral(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::NearestAway => value.round(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

/// `sum`, which is the exact value `sum + error` rounded to nearest, rounded to odd instead.
pub fn to_odd(sum: f64, error: f64) -> f64 {
    if error == 0.0 || error.is_nan() || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    if (error > 0.0) == (sum > 0.0) { f64::from_bits(sum.to_bits() + 1) } else { f64::from_bits(sum.to_bits() - 1) }
}

/// `sum`, which is the exact value `sum + error` rounded to nearest, rounded as told.
pub fn direct_f64(sum: f64, error: f64, round: Round) -> f64 {
    match round {
        Round::Up if error > 0.0 => sum.next_up(),
        Round::Down if error < 0.0 => sum.next_down(),
        Round::Zero if error < 0.0 && sum > 0.0 => sum.next_down(),
        Round::Zero if error > 0.0 && sum < 0.0 => sum.next_up(),
        _ => sum,
    }
}

/// Knuth's two-sum: the rounded sum, and what rounding took away.
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let t = sum - a;
    (sum, (a - (sum - t)) + (b - t))
}

/// `value`, an integer, rounded to a format with `mantissa` bits after the leading one; exact in f64.
pub fn round_integer(value: i128, mantissa: u32, round: Round) -> f64 {
    let magnitude = value.unsigned_abs();
    let width = 128 - magnitude.leading_zeros();
    if width <= mantissa + 1 {
        return value as f64;
    }
    let drop = width - mantissa - 1;
    let (kept, rest) = (magnitude >> drop, magnitude & ((1 << drop) - 1));
    let half = 1u128 << (drop - 1);
    let up = match round {
        Round::Nearest => rest > half || (rest == half && kept & 1 == 1),
        Round::NearestAway => rest >= half,
        Round::Zero => false,
        Round::Down => value < 0 && rest > 0,
        Round::Up => value > 0 && rest > 0,
    };
    let result = (kept + u128::from(up)) as f64 * 2f64.powi(drop as i32);
    if value < 0 { -result } else { result }
}
