//! Matrix products.

use super::{ANY, How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ValueId;
use lehr_ir::ops::{Einsum, Gemm, MatMul};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator  opsets     operands  importer
    row("MatMul", (1, MAX),  (2, 2),   Own(matmul)),
    row("Gemm",   (7, 10),   (3, 3),   Own(gemm)),
    row("Gemm",   (11, MAX), (2, 3),   Own(gemm)),
    row("Einsum", (12, MAX), (1, ANY), Own(einsum)),
];

fn matmul(site: &mut Site) -> Result<Vec<ValueId>> {
    let operands = [site.x(0)?, site.x(1)?];
    Ok(vec![site.op(MatMul {}, &operands)?])
}

fn gemm(site: &mut Site) -> Result<Vec<ValueId>> {
    let op = Gemm {
        alpha: site.attrs.float("alpha", 1.0)?,
        beta: site.attrs.float("beta", 1.0)?,
        trans_a: site.attrs.flag("transA", false)?,
        trans_b: site.attrs.flag("transB", false)?,
    };
    let operands = [Some(site.x(0)?), Some(site.x(1)?), site.opt(2)];
    Ok(vec![site.node(op, &operands)?.out(0)])
}

fn einsum(site: &mut Site) -> Result<Vec<ValueId>> {
    let equation = site.attrs.opt_string("equation")?.ok_or_else(|| bad("equation", "it is missing"))?;
    // Spaces mean nothing; the IR's form has none.
    let equation = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let operands: Vec<ValueId> = (0..site.inputs.len()).map(|i| site.x(i)).collect::<Result<_>>()?;
    Ok(vec![site.op(Einsum { equation }, &operands)?])
}
