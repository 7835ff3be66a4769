//! Results made from numbers alone: ranges, identities, shapes.

use super::cx::NodeCx;
use crate::kernel::{CmpOp, Expr, LoopKind, computing_type};
use lehr_ir::ops::{Eye, Range, ShapeOf, SizeOf};
use lehr_ir::{DType, Diag};

/// Floats are computed in f64, so that the step's error does not add up.
pub fn range(_: &Range, cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.out_shape(0);
    let t = computing_type(cx.out_dtype(0));
    let wide = if t.is_float() { DType::F64 } else { t };
    let mut k = cx.kernel("");
    k.nest(&y, 4, LoopKind::Vector, |k, at| {
        let (start, delta) = (k.load(0, &[]), k.load(1, &[]));
        let i = Expr::cast(wide, at[0].clone());
        let value = Expr::cast(wide, start) + i * Expr::cast(wide, delta);
        k.store(0, at, Expr::cast(t, value));
    });
    k.finish();
    Ok(())
}

pub fn eye(op: &Eye, cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.out_shape(0);
    let t = computing_type(cx.out_dtype(0));
    let mut k = cx.kernel("");
    k.nest(&y, 2, LoopKind::Vector, |k, at| {
        let on = Expr::compare(CmpOp::Eq, at[1].clone() - at[0].clone(), Expr::i64(op.k));
        k.store(0, at, Expr::select(on, Expr::number(t, 1.0), Expr::number(t, 0.0)));
    });
    k.finish();
    Ok(())
}

pub fn shape_of(op: &ShapeOf, cx: &mut NodeCx) -> Result<(), Diag> {
    let dims = cx.in_shape(0);
    let mut k = cx.kernel("");
    for (i, &d) in dims[op.start..op.end].iter().enumerate() {
        k.store(0, &[Expr::i64(i as i64)], Expr::i64(d as i64));
    }
    k.finish();
    Ok(())
}

pub fn size_of(_: &SizeOf, cx: &mut NodeCx) -> Result<(), Diag> {
    let n: usize = cx.in_shape(0).iter().product();
    let mut k = cx.kernel("");
    k.store(0, &[], Expr::i64(n as i64));
    k.finish();
    Ok(())
}
