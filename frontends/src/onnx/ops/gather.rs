//! Indexed reads and writes.

use super::{How::Own, MAX, Row, row};
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{Gather, GatherElements, GatherNd, OneHot, ScatterElements, ScatterNd, ScatterReduction};
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator           opsets     operands importer
    row("Gather",          (1, MAX),  (2, 2), Own(gather)),
    row("GatherElements",  (11, MAX), (2, 2), Own(gather_elements)),
    row("GatherND",        (11, MAX), (2, 2), Own(gather_nd)),
    row("Scatter",         (9, MAX),  (3, 3), Own(scatter_elements)),
    row("ScatterElements", (11, MAX), (3, 3), Own(scatter_elements)),
    row("ScatterND",       (11, MAX), (3, 3), Own(scatter_nd)),
    row("OneHot",          (9, MAX),  (3, 3), Own(one_hot)),
];

fn axis_of(site: &mut Site, x: ValueId) -> Result<usize> {
    let axis = site.attrs.int("axis", 0)?;
    site.axis(axis, site.rank(x))
}

fn gather(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, i) = (site.x(0)?, site.x(1)?);
    let axis = axis_of(site, x)?;
    Ok(vec![site.op(Gather { axis }, &[x, i])?])
}

fn gather_elements(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, i) = (site.x(0)?, site.x(1)?);
    let axis = axis_of(site, x)?;
    Ok(vec![site.op(GatherElements { axis }, &[x, i])?])
}

fn gather_nd(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, i) = (site.x(0)?, site.x(1)?);
    let batch_dims = if site.opset >= 12 { site.attrs.count("batch_dims", 0)? } else { 0 };
    Ok(vec![site.op(GatherNd { batch_dims }, &[x, i])?])
}

/// Opset 16 brought add and mul, opset 18 max and min.
fn reduction(site: &mut Site) -> Result<ScatterReduction> {
    const WORDS: &[(&str, ScatterReduction)] = &[
        ("none", ScatterReduction::None),
        ("add", ScatterReduction::Add),
        ("mul", ScatterReduction::Mul),
        ("max", ScatterReduction::Max),
        ("min", ScatterReduction::Min),
    ];
    match site.opset {
        ..16 => Ok(ScatterReduction::None),
        16..18 => site.attrs.keyword("reduction", ScatterReduction::None, &WORDS[..3]),
        18.. => site.attrs.keyword("reduction", ScatterReduction::None, WORDS),
    }
}

fn scatter_elements(site: &mut Site) -> Result<Vec<ValueId>> {
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?];
    let axis = axis_of(site, operands[0])?;
    let reduction = reduction(site)?;
    Ok(vec![site.op(ScatterElements { axis, reduction }, &operands)?])
}

fn scatter_nd(site: &mut Site) -> Result<Vec<ValueId>> {
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?];
    let reduction = reduction(site)?;
    Ok(vec![site.op(ScatterNd { reduction }, &operands)?])
}

fn one_hot(site: &mut Site) -> Result<Vec<ValueId>> {
    let (i, depth, values) = (site.x(0)?, site.x(1)?, site.x(2)?);
    // The depth may even be a float.
    let depth = match site.dtype(depth).is_float() {
        true => Dim::Const(site.int(depth, "depth")?),
        false => site.dim(depth, "depth")?,
    };
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, site.rank(i) + 1)?;
    Ok(vec![site.op(OneHot { depth, axis }, &[i, values])?])
}
