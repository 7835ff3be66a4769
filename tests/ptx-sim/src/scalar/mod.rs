//! What one thread's arithmetic does: pure functions from operand bits to result bits.
//!
//! Bits are zero-extended to 64. Every function is total: what the ISA leaves open (division by zero) is the machine's
//! to report before it asks here.

pub mod atom;
pub mod convert;
pub mod float;
pub mod int;
pub mod round;

use crate::inst::{Binary, Compare, FloatKind, Mode, Ternary, Unary};
use crate::types::Type;

pub fn unary(op: Unary, ty: Type, mode: Mode, a: u64) -> u64 {
    if ty.is_float() { float::unary(op, ty, mode, a) } else { int::unary(op, ty, a) }
}

pub fn binary(op: Binary, ty: Type, mode: Mode, a: u64, b: u64) -> u64 {
    if ty.is_float() { float::binary(op, ty, mode, a, b) } else { int::binary(op, ty, mode, a, b) }
}

pub fn ternary(op: Ternary, ty: Type, mode: Mode, a: u64, b: u64, c: u64) -> u64 {
    if ty.is_float() { float::fma(ty, mode, a, b, c) } else { int::ternary(op, ty, mode, a, b, c) }
}

/// The comparison of `setp` (PTX ISA 9.7.6).
pub fn compare(op: Compare, ty: Type, ftz: bool, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = if ty.is_float() {
        let flush = |x: u64| if ftz { float::flush(ty, x) } else { x };
        round::decode(ty, flush(a)).partial_cmp(&round::decode(ty, flush(b)))
    } else {
        Some(ty.extend(a).cmp(&ty.extend(b)))
    };
    match op {
        Compare::Eq => order == Some(Equal),
        Compare::Ne => matches!(order, Some(Less | Greater)),
        Compare::Lt => order == Some(Less),
        Compare::Le => matches!(order, Some(Less | Equal)),
        Compare::Gt => order == Some(Greater),
        Compare::Ge => matches!(order, Some(Greater | Equal)),
        Compare::Equ => matches!(order, None | Some(Equal)),
        Compare::Neu => order != Some(Equal),
        Compare::Ltu => matches!(order, None | Some(Less)),
        Compare::Leu => order != Some(Greater),
        Compare::Gtu => matches!(order, None | Some(Greater)),
        Compare::Geu => order != Some(Less),
        Compare::Num => order.is_some(),
        Compare::Nan => order.is_none(),
    }
}

/// `testp` (PTX ISA 9.7.3.1).
pub fn test_float(kind: FloatKind, ty: Type, a: u64) -> bool {
    let class = match ty {
        Type::F32 => f32::from_bits(a as u32).classify(),
        _ => f64::from_bits(a).classify(),
    };
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal};
    match kind {
        FloatKind::Finite => !matches!(class, Infinite | Nan),
        FloatKind::Infinite => class == Infinite,
        FloatKind::Number => class != Nan,
        FloatKind::NotANumber => class == Nan,
        FloatKind::Normal => class == Normal,
        FloatKind::Subnormal => class == Subnormal,
    }
}
