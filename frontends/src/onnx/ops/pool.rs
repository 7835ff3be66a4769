//! Pooling, by window and over all of space.

use super::conv::{AutoPad, Window, spatial, window};
use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{AvgPool, LpPool, MaxPool, Reduce, ReduceFn};
use lehr_ir::{Diag, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator             opsets    operands importer
    row("MaxPool",           (1, MAX), (1, 1), Own(max_pool)),
    row("AveragePool",       (1, MAX), (1, 1), Own(avg_pool)),
    row("LpPool",            (2, MAX), (1, 1), Own(lp_pool)),
    row("GlobalMaxPool",     (1, MAX), (1, 1), Own(global_max_pool)),
    row("GlobalAveragePool", (1, MAX), (1, 1), Own(global_avg_pool)),
    row("GlobalLpPool",      (2, MAX), (1, 1), Own(global_lp_pool)),
];

/// The window, and whether the last partial one counts. Under auto_pad the output size is fixed, and ceil_mode
/// changes nothing.
fn pooling(site: &mut Site, ceil_since: i64, dilated_since: i64) -> Result<(ValueId, Window, bool)> {
    let x = site.x(0)?;
    let dims = spatial(site, x)?;
    let ceil = if site.opset >= ceil_since { site.attrs.flag("ceil_mode", false)? } else { false };
    let w = window(site, &dims, None, site.opset >= dilated_since)?;
    let ceil = ceil && w.auto == AutoPad::Explicit;
    Ok((x, w, ceil))
}

fn max_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    let column_major = if site.opset >= 8 { site.attrs.flag("storage_order", false)? } else { false };
    let (x, w, ceil_mode) = pooling(site, 10, 10)?;
    let Window { kernel, strides, pads, dilations, .. } = w;
    let op = MaxPool { kernel, strides, pads, dilations, ceil_mode, column_major };
    let id = site.node(op, &[Some(x)])?;
    Ok(vec![id.out(0), id.out(1)])
}

fn avg_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    let count_include_pad = if site.opset >= 7 { site.attrs.flag("count_include_pad", false)? } else { false };
    let (x, w, ceil_mode) = pooling(site, 10, 19)?;
    let Window { kernel, strides, pads, dilations, .. } = w;
    Ok(vec![site.op(AvgPool { kernel, strides, pads, dilations, ceil_mode, count_include_pad }, &[x])?])
}

fn lp_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    let p = norm_order(site)?;
    let (x, w, ceil_mode) = pooling(site, 18, 18)?;
    let Window { kernel, strides, pads, dilations, .. } = w;
    Ok(vec![site.op(LpPool { kernel, strides, pads, dilations, ceil_mode, p }, &[x])?])
}

fn norm_order(site: &mut Site) -> Result<usize> {
    match site.attrs.count("p", 2)? {
        0 => Err(bad("p", "it must be at least 1")),
        p => Ok(p),
    }
}

fn global(site: &mut Site, f: ReduceFn) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    spatial(site, x)?;
    let axes = (2..site.rank(x)).collect();
    Ok(vec![site.op(Reduce { f, axes, keepdims: true }, &[x])?])
}

fn global_max_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    global(site, ReduceFn::Max)
}

fn global_avg_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    global(site, ReduceFn::Mean)
}

fn global_lp_pool(site: &mut Site) -> Result<Vec<ValueId>> {
    let p = norm_order(site)?;
    match p {
        1 => return global(site, ReduceFn::L1),
        2 => return global(site, ReduceFn::L2),
        _ => {}
    }
    let x = site.x(0)?;
    let dims = spatial(site, x)?;
    let kernel: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect();
    let kernel = kernel.ok_or_else(|| {
        Diag::new("import.symbolic", format!("with p = {p} the spatial dimensions must be known"))
            .note("give numbers for the model's symbolic dimensions with --dim NAME=N")
    })?;
    let n = kernel.len();
    let op = LpPool { kernel, strides: vec![1; n], pads: vec![0; 2 * n], dilations: vec![1; n], ceil_mode: false, p };
    Ok(vec![site.op(op, &[x])?])
}
