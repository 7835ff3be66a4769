//! The softmax family. From opset 13 on it works along one axis; before, the operand is seen as a matrix, whose rows
//! are the axes from `axis` on.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{Hardmax, LogSoftmax, Reshape, Softmax};
use lehr_ir::{Dim, Op, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator      opsets     operands importer
    row("Softmax",    (1, 12),   (1, 1), Own(softmax_by_row)),
    row("Softmax",    (13, MAX), (1, 1), Own(softmax)),
    row("LogSoftmax", (1, 12),   (1, 1), Own(log_softmax_by_row)),
    row("LogSoftmax", (13, MAX), (1, 1), Own(log_softmax)),
    row("Hardmax",    (1, 12),   (1, 1), Own(hardmax_by_row)),
    row("Hardmax",    (13, MAX), (1, 1), Own(hardmax)),
];

type Make = fn(usize) -> Op;

const SOFTMAX: Make = |axis| Softmax { axis }.into();
const LOG_SOFTMAX: Make = |axis| LogSoftmax { axis }.into();
const HARDMAX: Make = |axis| Hardmax { axis }.into();

fn softmax(site: &mut Site) -> Result<Vec<ValueId>> {
    by_axis(site, SOFTMAX)
}

fn log_softmax(site: &mut Site) -> Result<Vec<ValueId>> {
    by_axis(site, LOG_SOFTMAX)
}

fn hardmax(site: &mut Site) -> Result<Vec<ValueId>> {
    by_axis(site, HARDMAX)
}

fn softmax_by_row(site: &mut Site) -> Result<Vec<ValueId>> {
    by_row(site, SOFTMAX)
}

fn log_softmax_by_row(site: &mut Site) -> Result<Vec<ValueId>> {
    by_row(site, LOG_SOFTMAX)
}

fn hardmax_by_row(site: &mut Site) -> Result<Vec<ValueId>> {
    by_row(site, HARDMAX)
}

fn by_axis(site: &mut Site, make: Make) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, site.rank(x))?;
    Ok(vec![site.op(make(axis), &[x])?])
}

fn by_row(site: &mut Site, make: Make) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let axis = site.attrs.int("axis", 1)?;
    // The axis may be the rank: then every row is one element.
    let axis = match axis {
        a if a == shape.len() as i64 => shape.len(),
        a => site.axis(a, shape.len()).map_err(|d| bad("axis", &d.message))?,
    };
    let others_are_one = |keep: usize| (axis..shape.len()).all(|i| i == keep || shape[i].is(1));
    if let Some(single) = (axis..shape.len()).find(|&i| others_are_one(i)) {
        // All but one of the row's axes are 1: the row is that axis, and no reshape is needed.
        return Ok(vec![site.op(make(single), &[x])?]);
    }
    let product = |dims: &[Dim]| dims.iter().fold(Dim::ONE, |n, d| &n * d);
    let matrix = vec![product(&shape[..axis]), product(&shape[axis..])];
    let flat = site.op(Reshape { shape: matrix }, &[x])?;
    let y = site.op(make(1), &[flat])?;
    Ok(vec![site.op(Reshape { shape }, &[y])?])
}
