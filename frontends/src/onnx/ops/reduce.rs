//! Reductions, extremes' positions, running sums, and the k largest.

use super::How::{ReduceByAttr as A, ReduceByOperand as I};
use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{ArgExtreme, ArgReduce, CumSum, Reduce, ReduceFn, TopK};
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator           opsets     operands importer
    row("ReduceL1",        (1, 17),   (1, 1), A(ReduceFn::L1)),
    row("ReduceL1",        (18, MAX), (1, 2), I(ReduceFn::L1)),
    row("ReduceL2",        (1, 17),   (1, 1), A(ReduceFn::L2)),
    row("ReduceL2",        (18, MAX), (1, 2), I(ReduceFn::L2)),
    row("ReduceLogSum",    (1, 17),   (1, 1), A(ReduceFn::LogSum)),
    row("ReduceLogSum",    (18, MAX), (1, 2), I(ReduceFn::LogSum)),
    row("ReduceLogSumExp", (1, 17),   (1, 1), A(ReduceFn::LogSumExp)),
    row("ReduceLogSumExp", (18, MAX), (1, 2), I(ReduceFn::LogSumExp)),
    row("ReduceMax",       (1, 17),   (1, 1), A(ReduceFn::Max)),
    row("ReduceMax",       (18, MAX), (1, 2), I(ReduceFn::Max)),
    row("ReduceMean",      (1, 17),   (1, 1), A(ReduceFn::Mean)),
    row("ReduceMean",      (18, MAX), (1, 2), I(ReduceFn::Mean)),
    row("ReduceMin",       (1, 17),   (1, 1), A(ReduceFn::Min)),
    row("ReduceMin",       (18, MAX), (1, 2), I(ReduceFn::Min)),
    row("ReduceProd",      (1, 17),   (1, 1), A(ReduceFn::Prod)),
    row("ReduceProd",      (18, MAX), (1, 2), I(ReduceFn::Prod)),
    row("ReduceSum",       (1, 12),   (1, 1), A(ReduceFn::Sum)),
    row("ReduceSum",       (13, MAX), (1, 2), I(ReduceFn::Sum)),
    row("ReduceSumSquare", (1, 17),   (1, 1), A(ReduceFn::SumSquare)),
    row("ReduceSumSquare", (18, MAX), (1, 2), I(ReduceFn::SumSquare)),
    row("ArgMax",          (1, MAX),  (1, 1), Own(arg_max)),
    row("ArgMin",          (1, MAX),  (1, 1), Own(arg_min)),
    row("CumSum",          (11, MAX), (2, 2), Own(cum_sum)),
    row("TopK",            (1, 9),    (1, 1), Own(top_k_by_attr)),
    row("TopK",            (10, MAX), (2, 2), Own(top_k_by_operand)),
];

pub fn by_attr(site: &mut Site, f: ReduceFn) -> Result<Vec<ValueId>> {
    let axes = site.attrs.ints("axes")?.unwrap_or_default();
    reduce(site, f, axes, false)
}

pub fn by_operand(site: &mut Site, f: ReduceFn) -> Result<Vec<ValueId>> {
    let noop = site.attrs.flag("noop_with_empty_axes", false)?;
    let axes = match site.opt(1) {
        Some(v) => site.ints(v, "axes")?,
        None => vec![],
    };
    reduce(site, f, axes, noop)
}

/// No axes means all of them, or with `noop` none: then every element is a sum (a norm, ...) of its own.
fn reduce(site: &mut Site, f: ReduceFn, axes: Vec<i64>, noop: bool) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let rank = site.rank(x);
    let keepdims = site.attrs.flag("keepdims", true)?;
    let mut axes = if axes.is_empty() && !noop { (0..rank).collect() } else { site.axes(&axes, rank)? };
    axes.sort_unstable();
    Ok(vec![site.op(Reduce { f, axes, keepdims }, &[x])?])
}

fn arg_max(site: &mut Site) -> Result<Vec<ValueId>> {
    arg_reduce(site, ArgExtreme::Max)
}

fn arg_min(site: &mut Site) -> Result<Vec<ValueId>> {
    arg_reduce(site, ArgExtreme::Min)
}

fn arg_reduce(site: &mut Site, f: ArgExtreme) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let axis = site.attrs.int("axis", 0)?;
    let axis = site.axis(axis, site.rank(x))?;
    let keepdims = site.attrs.flag("keepdims", true)?;
    let select_last = if site.opset >= 12 { site.attrs.flag("select_last_index", false)? } else { false };
    Ok(vec![site.op(ArgReduce { f, axis, keepdims, select_last }, &[x])?])
}

fn cum_sum(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, axis) = (site.x(0)?, site.x(1)?);
    let axis = site.int(axis, "axis")?;
    let axis = site.axis(axis, site.rank(x))?;
    let op =
        CumSum { axis, exclusive: site.attrs.flag("exclusive", false)?, reverse: site.attrs.flag("reverse", false)? };
    Ok(vec![site.op(op, &[x])?])
}

fn top_k_by_attr(site: &mut Site) -> Result<Vec<ValueId>> {
    let k = site.attrs.opt_int("k")?.ok_or_else(|| bad("k", "it is missing"))?;
    top_k(site, Dim::Const(k), true)
}

fn top_k_by_operand(site: &mut Site) -> Result<Vec<ValueId>> {
    let k = site.x(1)?;
    let k = site.dim(k, "number of elements k")?;
    let largest = if site.opset >= 11 { site.attrs.flag("largest", true)? } else { true };
    if site.opset >= 11 {
        // What need not be sorted may be.
        site.attrs.flag("sorted", true)?;
    }
    top_k(site, k, largest)
}

fn top_k(site: &mut Site, k: Dim, largest: bool) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, site.rank(x))?;
    let id = site.node(TopK { axis, k, largest }, &[Some(x)])?;
    Ok(vec![id.out(0), id.out(1)])
}
