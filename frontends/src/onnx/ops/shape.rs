//! Shapes: asking for them, and giving the same elements another one.

use super::{ANY, How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{
    Concat, DepthOrder, DepthToSpace, Expand, Reshape, ShapeOf, SizeOf, SpaceToDepth, Tile, Transpose, Trilu,
};
use lehr_ir::types::MAX_RANK;
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator        opsets     operands  importer
    row("Shape",        (1, MAX),  (1, 1),   Own(shape)),
    row("Size",         (1, MAX),  (1, 1),   Own(size)),
    row("Reshape",      (5, MAX),  (2, 2),   Own(reshape)),
    row("Flatten",      (1, MAX),  (1, 1),   Own(flatten)),
    row("Squeeze",      (1, 12),   (1, 1),   Own(squeeze)),
    row("Squeeze",      (13, MAX), (1, 2),   Own(squeeze)),
    row("Unsqueeze",    (1, 12),   (1, 1),   Own(unsqueeze)),
    row("Unsqueeze",    (13, MAX), (2, 2),   Own(unsqueeze)),
    row("Transpose",    (1, MAX),  (1, 1),   Own(transpose)),
    row("Expand",       (8, MAX),  (2, 2),   Own(expand)),
    row("Tile",         (6, MAX),  (2, 2),   Own(tile)),
    row("Concat",       (4, MAX),  (1, ANY), Own(concat)),
    row("Trilu",        (14, MAX), (1, 2),   Own(trilu)),
    row("DepthToSpace", (1, MAX),  (1, 1),   Own(depth_to_space)),
    row("SpaceToDepth", (1, MAX),  (1, 1),   Own(space_to_depth)),
];

fn shape(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let rank = site.rank(x) as i64;
    let (start, end) = match site.opset >= 15 {
        true => (site.attrs.int("start", 0)?, site.attrs.int("end", rank)?),
        false => (0, rank),
    };
    // Out of range is clamped, and an empty range is no fault.
    let clamp = |v: i64| if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank) as usize;
    let (start, end) = (clamp(start), clamp(end));
    Ok(vec![site.op(ShapeOf { start: start.min(end), end }, &[x])?])
}

fn size(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    Ok(vec![site.op(SizeOf {}, &[x])?])
}

/// 0 copies the dimension (unless allowzero), and one -1 takes what is left.
fn reshape(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, wanted) = (site.x(0)?, site.x(1)?);
    let allow_zero = if site.opset >= 14 { site.attrs.flag("allowzero", false)? } else { false };
    let mut shape = site.dims(wanted, "shape")?;
    let old = site.shape(x);
    let mut rest = None;
    for (i, d) in shape.iter_mut().enumerate() {
        match d.as_const() {
            Some(0) if !allow_zero => {
                let copied = old.get(i).cloned();
                *d = copied.ok_or_else(|| {
                    site.error("import.reshape", format!("axis {i} is copied (0), but the operand has none"))
                })?;
            }
            Some(-1) if rest.is_none() => rest = Some(i),
            Some(n) if n < 0 => {
                return Err(site.error("import.reshape", format!("{n} at axis {i} is no dimension, or -1 comes twice")));
            }
            Some(_) | None => {}
        }
    }
    if let Some(at) = rest {
        shape[at] = remaining(site, &old, &shape, at)?;
    }
    Ok(vec![site.op(Reshape { shape }, &[x])?])
}

/// The elements of `old` divided by all of `new` but the axis `at`. Dimensions on both sides cancel first, so that a
/// zero or a symbol among them does no harm.
fn remaining(site: &Site, old: &[Dim], new: &[Dim], at: usize) -> Result<Dim> {
    let mut old = old.to_vec();
    let mut divisor = Dim::ONE;
    for (_, d) in new.iter().enumerate().filter(|(i, _)| *i != at) {
        match old.iter().position(|o| o == d) {
            Some(same) => {
                old.swap_remove(same);
            }
            None => divisor = &divisor * d,
        }
    }
    let elements = old.iter().fold(Dim::ONE, |n, d| &n * d);
    if let (Some(n), Some(by)) = (elements.as_const(), divisor.as_const())
        && (by == 0 || n % by != 0)
    {
        return Err(site.error("import.reshape", format!("-1 cannot be solved: {n} elements into parts of {by}")));
    }
    Ok(elements.floor_div(&divisor))
}

fn flatten(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let axis = match site.attrs.int("axis", 1)? {
        a if a == shape.len() as i64 => shape.len(),
        a => site.axis(a, shape.len())?,
    };
    let product = |dims: &[Dim]| dims.iter().fold(Dim::ONE, |n, d| &n * d);
    let shape = vec![product(&shape[..axis]), product(&shape[axis..])];
    Ok(vec![site.op(Reshape { shape }, &[x])?])
}

/// Axes are an attribute before opset 13 and an operand from then on.
fn axes(site: &mut Site) -> Result<Option<Vec<i64>>> {
    if site.opset < 13 {
        return site.attrs.ints("axes");
    }
    match site.opt(1) {
        Some(v) => site.ints(v, "axes").map(Some),
        None => Ok(None),
    }
}

fn squeeze(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let axes = match axes(site)? {
        Some(list) => site.axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i].is(1)).collect(),
    };
    if let Some(&i) = axes.iter().find(|&&i| shape[i].as_const().is_some_and(|n| n != 1)) {
        return Err(site.error("import.squeeze", format!("axis {i} has the size {}, not 1", shape[i])));
    }
    let kept = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i].clone()).collect();
    Ok(vec![site.op(Reshape { shape: kept }, &[x])?])
}

fn unsqueeze(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let list = axes(site)?.ok_or_else(|| bad("axes", "it is missing"))?;
    let mut old = site.shape(x).into_iter();
    let rank = old.len() + list.len();
    if rank > MAX_RANK {
        return Err(site.error("import.unsqueeze", format!("the result would have {rank} axes")));
    }
    let axes = site.axes(&list, rank)?;
    let shape = (0..rank).map(|i| if axes.contains(&i) { Dim::ONE } else { old.next().unwrap_or(Dim::ONE) }).collect();
    Ok(vec![site.op(Reshape { shape }, &[x])?])
}

fn transpose(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let rank = site.rank(x);
    let perm = match site.attrs.ints("perm")? {
        Some(perm) => site.axes(&perm, rank)?,
        None => (0..rank).rev().collect(),
    };
    if perm.len() != rank {
        return Err(bad("perm", &format!("it has {} entries, the operand {rank} axes", perm.len())));
    }
    Ok(vec![site.op(Transpose { perm }, &[x])?])
}

/// The operand and the shape broadcast against each other.
fn expand(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, wanted) = (site.x(0)?, site.x(1)?);
    let wanted = site.dims(wanted, "shape")?;
    let shape = broadcast(&site.shape(x), &wanted);
    Ok(vec![site.op(Expand { shape }, &[x])?])
}

/// A dimension of 1 gives way to the other; of two others that differ the second is taken, and inference complains.
fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map_or(Dim::ONE, |i| dims[i].clone());
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (a, b) if b.is(1) => a,
            (_, b) => b,
        })
        .collect()
}

fn tile(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, repeats) = (site.x(0)?, site.x(1)?);
    let repeats = site.dims(repeats, "repeats")?;
    Ok(vec![site.op(Tile { repeats }, &[x])?])
}

fn concat(site: &mut Site) -> Result<Vec<ValueId>> {
    let operands: Vec<ValueId> = (0..site.inputs.len()).map(|i| site.x(i)).collect::<Result<_>>()?;
    let axis = site.attrs.opt_int("axis")?.ok_or_else(|| bad("axis", "it is missing"))?;
    let axis = site.axis(axis, site.rank(operands[0]))?;
    Ok(vec![site.op(Concat { axis }, &operands)?])
}

fn trilu(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let upper = site.attrs.flag("upper", true)?;
    let k = match site.opt(1) {
        Some(k) => site.int(k, "diagonal k")?,
        None => 0,
    };
    Ok(vec![site.op(Trilu { upper, k }, &[x])?])
}

fn block(site: &mut Site) -> Result<usize> {
    match site.attrs.count("blocksize", 0)? {
        b if (1..1 << 16).contains(&b) => Ok(b),
        _ => Err(bad("blocksize", "it is missing, zero, or absurd")),
    }
}

const ORDERS: &[(&str, DepthOrder)] = &[("DCR", DepthOrder::Dcr), ("CRD", DepthOrder::Crd)];

fn depth_to_space(site: &mut Site) -> Result<Vec<ValueId>> {
    let block = block(site)?;
    let order = match site.opset >= 11 {
        true => site.attrs.keyword("mode", DepthOrder::Dcr, ORDERS)?,
        false => DepthOrder::Dcr,
    };
    let x = site.x(0)?;
    Ok(vec![site.op(DepthToSpace { block, order }, &[x])?])
}

fn space_to_depth(site: &mut Site) -> Result<Vec<ValueId>> {
    let block = block(site)?;
    let order = match site.opset >= 28 {
        true => site.attrs.keyword("mode", DepthOrder::Dcr, ORDERS)?,
        false => DepthOrder::Dcr,
    };
    let x = site.x(0)?;
    match order {
        DepthOrder::Dcr => Ok(vec![site.op(SpaceToDepth { block }, &[x])?]),
        DepthOrder::Crd => channels_outermost(site, x, block),
    }
}

/// [N, C, H*b, W*b] -> [N, C*b*b, H, W]: the IR's operator has the block's coordinates outermost, this the channels.
fn channels_outermost(site: &mut Site, x: ValueId, block: usize) -> Result<Vec<ValueId>> {
    let shape = site.shape(x);
    let [n, c, h, w] = &shape[..] else {
        return Err(site.error("import.operand", format!("its operand has rank {}, not 4", shape.len())));
    };
    let b = Dim::Const(block as i64);
    let (rows, columns) = (h.floor_div(&b), w.floor_div(&b));
    let split = vec![n.clone(), c.clone(), rows.clone(), b.clone(), columns.clone(), b.clone()];
    let split = site.op(Reshape { shape: split }, &[x])?;
    let moved = site.op(Transpose { perm: vec![0, 1, 3, 5, 2, 4] }, &[split])?;
    let joined = vec![n.clone(), &(c * &b) * &b, rows, columns];
    Ok(vec![site.op(Reshape { shape: joined }, &[moved])?])
}
