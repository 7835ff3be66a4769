//! Functions of floats, in line: PTX has no libm, and its approximate instructions are not within the errors that lehr states.
//!
//! f32: the polynomials of the CPU's in-line functions. f64, and f32 through it where a function is rare: the algorithms of the
//! runtime's functions, with fused multiply-add for exact products. Special cases are selects; only what is rare and long (huge
//! arguments of sines, remainders) is branched over.

mod arcs;
mod dd;
mod double;
mod single;
mod trig;

pub(super) use double::{fmod, pow};

use super::emit::Emit;
use super::func::Round;
use super::reg::*;
use crate::kernel::UnOp;
use crate::runtime::math as runtime;

pub(super) fn unary_f32(e: &mut Emit, op: UnOp, x: Src<F32>) -> Reg<F32> {
    let whole = |e: &mut Emit, round| e.f.cvt::<F32, F32>(round, x);
    match op {
        UnOp::Neg => e.f.neg::<F32>(x),
        UnOp::Abs => e.f.abs::<F32>(x),
        UnOp::Sqrt => e.f.sqrt::<F32>(x),
        UnOp::Floor => whole(e, Round::DownInt),
        UnOp::Ceil => whole(e, Round::UpInt),
        UnOp::Trunc => whole(e, Round::ZeroInt),
        UnOp::Round => whole(e, Round::NearestInt),
        UnOp::Exp | UnOp::Expm1 | UnOp::Log | UnOp::Log1p | UnOp::Tanh | UnOp::Erf | UnOp::Sin | UnOp::Cos => {
            single::emit(e, op, x)
        }
        UnOp::Not => unreachable!("Not is not of floats"),
        UnOp::Tan
        | UnOp::Asin
        | UnOp::Acos
        | UnOp::Atan
        | UnOp::Sinh
        | UnOp::Cosh
        | UnOp::Asinh
        | UnOp::Acosh
        | UnOp::Atanh => {
            let wide = e.f.cvt::<F64, F32>(Round::None, x);
            let y = unary_f64(e, op, wide.into());
            e.f.cvt::<F32, F64>(Round::Nearest, y)
        }
    }
}

pub(super) fn unary_f64(e: &mut Emit, op: UnOp, x: Src<F64>) -> Reg<F64> {
    let whole = |e: &mut Emit, round| e.f.cvt::<F64, F64>(round, x);
    match op {
        UnOp::Neg => e.f.neg::<F64>(x),
        UnOp::Abs => e.f.abs::<F64>(x),
        UnOp::Sqrt => e.f.sqrt::<F64>(x),
        UnOp::Floor => whole(e, Round::DownInt),
        UnOp::Ceil => whole(e, Round::UpInt),
        UnOp::Trunc => whole(e, Round::ZeroInt),
        UnOp::Round => whole(e, Round::NearestInt),
        UnOp::Not => unreachable!("Not is not of floats"),
        UnOp::Sin | UnOp::Cos | UnOp::Tan => trig::emit(e, op, x),
        UnOp::Exp
        | UnOp::Expm1
        | UnOp::Log
        | UnOp::Log1p
        | UnOp::Asin
        | UnOp::Acos
        | UnOp::Atan
        | UnOp::Sinh
        | UnOp::Cosh
        | UnOp::Tanh
        | UnOp::Asinh
        | UnOp::Acosh
        | UnOp::Atanh
        | UnOp::Erf => double::emit(e, op, x),
    }
}

/// A table that functions read from constant memory, by its name in the module.
pub(super) fn table(name: &str) -> Vec<u64> {
    match name {
        trig::TWO_OVER_PI => runtime::trig::TWO_OVER_PI_BITS.to_vec(),
        arcs::ERF => runtime::erf::TABLE.iter().flatten().map(|v| v.to_bits()).collect(),
        arcs::ATAN => runtime::atan::ATAN_EIGHTHS.iter().flat_map(|v| [v.hi.to_bits(), v.lo.to_bits()]).collect(),
        other => unreachable!("there is no table {other}"),
    }
}
