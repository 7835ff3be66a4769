//! Padding: amounts and value as attributes (opsets 2 to 10) or operands.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ValueId;
use lehr_ir::ops::{Pad, PadMode, Reshape};

pub const ROWS: &[Row] =
    &[row("Pad", (2, 10), (1, 1), Own(pad_by_attr)), row("Pad", (11, MAX), (2, 4), Own(pad_by_operand))];

const MODES: &[(&str, PadMode)] =
    &[("constant", PadMode::Constant), ("reflect", PadMode::Reflect), ("edge", PadMode::Edge), ("wrap", PadMode::Wrap)];

fn mode(site: &mut Site) -> Result<PadMode> {
    // Wrapping came with opset 19.
    let words = if site.opset >= 19 { MODES } else { &MODES[..3] };
    site.attrs.keyword("mode", PadMode::Constant, words)
}

fn pad_by_attr(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let mode = mode(site)?;
    let pads = site.attrs.required_ints("pads")?;
    let value = match site.attrs.float("value", 0.0)? {
        0.0 => None,
        v => Some(site.scalar(v as f64, site.dtype(x))),
    };
    let axes: Vec<usize> = (0..site.rank(x)).collect();
    pad(site, pads, axes, value, mode)
}

fn pad_by_operand(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, pads) = (site.x(0)?, site.x(1)?);
    let rank = site.rank(x);
    let mode = mode(site)?;
    let pads = site.ints(pads, "pads");
    let value = match site.opt(2) {
        Some(v) if site.rank(v) > 0 => Some(site.op(Reshape { shape: vec![] }, &[v])?),
        v => v,
    };
    let axes = match site.opt(3) {
        Some(_) if site.opset < 18 => return Err(site.error("import.operand", "axes came with opset 18")),
        Some(v) => {
            let list = site.ints(v, "axes")?;
            site.axes(&list, rank)?
        }
        None => (0..rank).collect(),
    };
    pad(site, pads?, axes, value, mode)
}

fn pad(
    site: &mut Site,
    pads: Vec<i64>,
    axes: Vec<usize>,
    value: Option<ValueId>,
    mode: PadMode,
) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let rank = site.rank(x);
    if pads.len() != 2 * axes.len() {
        return Err(bad("pads", &format!("it has {} entries for {} axes", pads.len(), axes.len())));
    }
    let mut op = Pad { before: vec![0; rank], after: vec![0; rank], mode };
    for (i, &axis) in axes.iter().enumerate() {
        op.before[axis] = pads[i];
        op.after[axis] = pads[i + axes.len()];
    }
    // The value means nothing in the other modes.
    let value = if mode == PadMode::Constant { value } else { None };
    Ok(vec![site.node(op, &[Some(x), value])?.out(0)])
}
