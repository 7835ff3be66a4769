//! What `atom` and `red` make of the old value (PTX ISA 9.7.13.7).

use crate::inst::{AtomOp, Binary, Mode};
use crate::types::Type;

/// The new value; `c` is the one that `cas` stores where `b` is found.
pub fn apply(op: AtomOp, ty: Type, old: u64, b: u64, c: u64) -> u64 {
    let binary = |op| super::binary(op, ty, Mode::default(), old, b);
    match op {
        AtomOp::Add => binary(Binary::Add),
        AtomOp::Min => binary(Binary::Min),
        AtomOp::Max => binary(Binary::Max),
        AtomOp::And => binary(Binary::And),
        AtomOp::Or => binary(Binary::Or),
        AtomOp::Xor => binary(Binary::Xor),
        AtomOp::Exch => b,
        AtomOp::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}
