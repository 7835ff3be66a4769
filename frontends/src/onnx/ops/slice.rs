//! Parts of tensors: Slice and Split.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::Slice;
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator opsets     operands importer
    row("Slice", (1, 9),    (1, 1), Own(slice_by_attr)),
    row("Slice", (10, MAX), (3, 5), Own(slice_by_operand)),
    row("Split", (2, 12),   (1, 1), Own(split)),
    row("Split", (13, MAX), (1, 2), Own(split)),
];

/// Exporters write the largest integer, of 32 or 64 bits, for "to the end", and its negative for the other end.
const TO_THE_END: i64 = i32::MAX as i64;

fn slice_by_attr(site: &mut Site) -> Result<Vec<ValueId>> {
    let list = |v: Vec<i64>| v.into_iter().map(Dim::Const).collect::<Vec<_>>();
    let (starts, ends) = (list(site.attrs.required_ints("starts")?), list(site.attrs.required_ints("ends")?));
    let axes = site.attrs.ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = vec![1; starts.len()];
    slice(site, starts, ends, axes, steps)
}

fn slice_by_operand(site: &mut Site) -> Result<Vec<ValueId>> {
    let (starts, ends) = (site.x(1)?, site.x(2)?);
    let (starts, ends) = (site.dims(starts, "starts"), site.dims(ends, "ends"));
    let axes = site.opt(3).map(|v| site.ints(v, "axes"));
    let steps = site.opt(4).map(|v| site.ints(v, "steps"));
    // Only now: all values that must be bound are to be named at once.
    let (starts, ends) = (starts?, ends?);
    let axes = axes.unwrap_or_else(|| Ok((0..starts.len() as i64).collect()))?;
    let steps = steps.unwrap_or_else(|| Ok(vec![1; starts.len()]))?;
    slice(site, starts, ends, axes, steps)
}

fn slice(site: &mut Site, starts: Vec<Dim>, ends: Vec<Dim>, axes: Vec<i64>, steps: Vec<i64>) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let n = starts.len();
    if ends.len() != n || axes.len() != n || steps.len() != n {
        let why = format!("{n} starts, {} ends, {} axes and {} steps do not fit", ends.len(), axes.len(), steps.len());
        return Err(site.error("import.slice", why));
    }
    let mut op = Slice { starts: vec![Dim::ZERO; shape.len()], lens: shape.clone(), steps: vec![1; shape.len()] };
    for (i, axis) in site.axes(&axes, shape.len())?.into_iter().enumerate() {
        if steps[i] == 0 {
            return Err(site.error("import.slice", "a step is zero"));
        }
        let (start, len) = range(&shape[axis], &starts[i], &ends[i], steps[i]);
        (op.starts[axis], op.lens[axis], op.steps[axis]) = (start, len, steps[i]);
    }
    Ok(vec![site.op(op, &[x])?])
}

/// First index and number of elements of `start..end` by `step` on an axis of size `d`, clamped as in numpy.
fn range(d: &Dim, start: &Dim, end: &Dim, step: i64) -> (Dim, Dim) {
    if step > 0 {
        let (start, end) = (clamp(d, start, d), clamp(d, end, d));
        // Both ends lie in 0..=d, so only a range within the axis can be empty by its ends' order.
        let len = match start.is(0) || end == *d {
            true => &end - &start,
            false => (&end - &start).maximum(&Dim::ZERO),
        };
        return (start, len.ceil_div(&Dim::Const(step)));
    }
    let last = d - 1;
    // Backwards, -1 (before the first) is where an end may lie, and d - 1 where a start may.
    let start = clamp_back(d, start, &last);
    let end = clamp_back(d, end, &last);
    let len = (&start - &end).maximum(&Dim::ZERO).ceil_div(&Dim::Const(step.saturating_neg()));
    (start.maximum(&Dim::ZERO), len)
}

/// An index counted from either end, into `0..=top`. An index with symbols in it is a size: not negative.
fn clamp(d: &Dim, index: &Dim, top: &Dim) -> Dim {
    match index.as_const() {
        Some(0) => Dim::ZERO,
        Some(i) if i < 0 => match d.as_const() {
            Some(n) => Dim::Const(n.saturating_add(i).max(0)),
            None if i <= -TO_THE_END => Dim::ZERO,
            None => (d + i).maximum(&Dim::ZERO),
        },
        Some(i) if i >= TO_THE_END && top.as_const().is_none() => top.clone(),
        Some(_) | None => index.minimum(top),
    }
}

/// The same for a negative step: into `-1..=last`.
fn clamp_back(d: &Dim, index: &Dim, last: &Dim) -> Dim {
    match index.as_const() {
        Some(i) if i < 0 => match d.as_const() {
            Some(n) => Dim::Const(n.saturating_add(i).clamp(-1, n - 1)),
            None if i <= -TO_THE_END => Dim::Const(-1),
            None => (d + i).maximum(&Dim::Const(-1)),
        },
        Some(i) if i >= TO_THE_END && last.as_const().is_none() => last.clone(),
        Some(_) | None => index.minimum(last),
    }
}

/// One slice per part.
fn split(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let axis = site.attrs.int("axis", 0)?;
    let axis = site.axis(axis, shape.len())?;
    let sizes = match site.opset < 13 {
        true => site.attrs.ints("split")?,
        false => match site.opt(1) {
            Some(v) => Some(site.ints(v, "sizes of the parts")?),
            None => None,
        },
    };
    let count = if site.opset >= 18 { site.attrs.opt_int("num_outputs")? } else { None };
    let parts = match sizes {
        Some(sizes) => sizes.into_iter().map(Dim::Const).collect(),
        None => equal_parts(site, &shape[axis], count)?,
    };
    if parts.len() < site.wanted.len() {
        let why = format!("{} outputs are named, but there are {} parts", site.wanted.len(), parts.len());
        return Err(site.error("import.split", why));
    }
    if parts.iter().any(|p| p.as_const().is_some_and(|n| n < 0)) {
        return Err(site.error("import.split", "the size of a part is negative"));
    }
    let total = parts.iter().fold(Dim::ZERO, |n, p| &n + p);
    if total.as_const().is_some() && shape[axis].as_const().is_some() && total != shape[axis] {
        let why = format!("the parts have {total} elements together, the axis {}", shape[axis]);
        return Err(site.error("import.split", why));
    }
    let mut results = vec![];
    let mut start = Dim::ZERO;
    for part in parts {
        let mut op = Slice { starts: vec![Dim::ZERO; shape.len()], lens: shape.clone(), steps: vec![1; shape.len()] };
        op.starts[axis] = start.clone();
        op.lens[axis] = part.clone();
        results.push(site.op(op, &[x])?);
        start = &start + &part;
    }
    Ok(results)
}

/// As many parts as outputs; from opset 18 on the last may be smaller.
fn equal_parts(site: &Site, dim: &Dim, count: Option<i64>) -> Result<Vec<Dim>> {
    let outputs = site.wanted.len();
    let n = match count {
        Some(n) if n != outputs as i64 => {
            return Err(bad("num_outputs", &format!("it is {n}, but the node has {outputs} outputs")));
        }
        Some(_) | None => outputs as i64,
    };
    if n == 0 {
        return Err(site.error("import.split", "it has no outputs"));
    }
    let part = match site.opset >= 18 {
        true => dim.ceil_div(&Dim::Const(n)),
        false => match dim.as_const() {
            Some(d) if d % n != 0 => {
                return Err(site.error("import.split", format!("{d} elements do not split into {n} equal parts")));
            }
            Some(_) | None => dim.floor_div(&Dim::Const(n)),
        },
    };
    let last = dim - &(&part * (n - 1));
    let mut parts = vec![part; outputs - 1];
    parts.push(last);
    Ok(parts)
}
