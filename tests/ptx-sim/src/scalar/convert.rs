//! `cvt` (PTX ISA 9.7.9.21).

use crate::inst::Convert;
use crate::types::{Round, Type};

use super::float::flush;
use super::int::range;
use super::round::{decode, encode, integral, round_integer};

/// The result, in the bits of the destination type.
pub fn convert(c: &Convert, a: u64, b: u64) -> u64 {
    match c.to {
        Type::F16x2 => one(c, Type::F16, a) << 16 | one(c, Type::F16, b),
        Type::Bf16x2 => one(c, Type::Bf16, a) << 16 | one(c, Type::Bf16, b),
        to => one(c, to, a),
    }
}

fn one(c: &Convert, to: Type, a: u64) -> u64 {
    let from = c.from;
    match (from.is_float(), to.is_float()) {
        (false, false) => {
            let value = from.extend(a);
            let (low, high) = range(to);
            (if c.sat { value.clamp(low, high) } else { value }) as u64 & to.mask()
        }
        (false, true) => {
            let mantissa = match to {
                Type::F64 => 52,
                Type::F32 => 23,
                Type::Bf16 => 7,
                _ => 10,
            };
            let value = round_integer(from.extend(a), mantissa, c.round);
            encode(to, saturate(c, value), c.round)
        }
        (true, false) => to_integer(c, to, decode(from, if c.ftz { flush(from, a) } else { a })),
        (true, true) => {
            let mut value = decode(from, if c.ftz { flush(from, a) } else { a });
            if c.integral {
                value = integral(value, c.round).copysign(value);
            }
            if c.relu && value < 0.0 {
                value = 0.0;
            }
            let bits = encode(to, saturate(c, value), c.round);
            if c.ftz { flush(to, bits) } else { bits }
        }
    }
}

/// `.sat` of a float result: to [0, 1], NaN to 0.
fn saturate(c: &Convert, value: f64) -> f64 {
    match c.sat {
        false => value,
        true if value.is_nan() => 0.0,
        true => value.clamp(0.0, 1.0),
    }
}

fn to_integer(c: &Convert, to: Type, value: f64) -> u64 {
    if value.is_nan() {
        let wide = c.from == Type::F64 || to.bits() == 64;
        return if wide { 1 << (to.bits() - 1) } else { 0 };
    }
    let round = if c.integral { c.round } else { Round::Zero };
    let (low, high) = range(to);
    (integral(value, round) as i128).clamp(low, high) as u64 & to.mask()
}
