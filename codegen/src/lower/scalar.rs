//! Elementwise operators as expressions over the elements of their operands. Used wherever such an operator
//! stands: alone, in a chain, or fused before or behind an anchor.

use crate::kernel::{Expr, KernelBuilder};
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
    let arg = |i: usize| args[i].clone().expect("arity was checked");
    let _ = (dtypes, to, &b);
    match (op, port) {
        (Op::Identity(_), _) | (Op::Dropout(_), 0) => arg(0),
        (Op::Dropout(_), _) => Expr::Int(DType::Bool, 1),
        _ => unreachable!("{} is not elementwise", op.name()),
    }
}
