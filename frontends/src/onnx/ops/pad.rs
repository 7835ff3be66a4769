//! Padding: amounts and value as attributes (opsets 2 to 10) or operands; and to a wanted size.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{Pad, PadMode, Reshape, Slice};
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator         opsets     operands importer
    row("Pad",           (2, 10),   (1, 1), Own(pad_by_attr)),
    row("Pad",           (11, MAX), (2, 4), Own(pad_by_operand)),
    row("CenterCropPad", (18, MAX), (2, 2), Own(center_crop_pad)),
];

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

/// Crops what is too long and pads what is too short, about the centre; the odd element goes to the end.
fn center_crop_pad(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, wanted) = (site.x(0)?, site.x(1)?);
    let shape = site.shape(x);
    let rank = shape.len();
    let axes = match site.attrs.ints("axes")? {
        Some(list) => site.axes(&list, rank)?,
        None => (0..rank).collect(),
    };
    let wanted = site.ints(wanted, "shape")?;
    if wanted.len() != axes.len() {
        return Err(site.error("import.operand", format!("{} sizes for {} axes", wanted.len(), axes.len())));
    }
    let mut crop = Slice { starts: vec![Dim::ZERO; rank], lens: shape.clone(), steps: vec![1; rank] };
    let mut pad = Pad { before: vec![0; rank], after: vec![0; rank], mode: PadMode::Constant };
    for (&axis, &size) in axes.iter().zip(&wanted) {
        let Some(n) = shape[axis].as_const() else {
            let why = format!("it depends on the dimension {}", shape[axis]);
            return Err(site
                .error("import.symbolic", why)
                .note("give numbers for the model's dimensions with --dim NAME=N"));
        };
        let more = size.saturating_sub(n);
        if size < 0 {
            return Err(site.error("import.operand", format!("the size {size} is negative")));
        }
        if more > 0 {
            (pad.before[axis], pad.after[axis]) = (more / 2, more - more / 2);
        } else {
            (crop.starts[axis], crop.lens[axis]) = (Dim::Const(-more / 2), Dim::Const(size));
        }
    }
    let cropped = site.op(crop, &[x])?;
    Ok(vec![site.node(pad, &[Some(cropped), None])?.out(0)])
}
