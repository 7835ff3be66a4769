//! Normalisations.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::{bad, unsupported};
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{
    BatchNorm, BatchNormTrain, Binary, BinaryFn, Cast, Dropout, Expand, GroupNorm, InstanceNorm, LayerNorm, Lrn,
    Reduce, ReduceFn, Reshape, Unary, UnaryFn,
};
use lehr_ir::{DType, Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator                     opsets     operands importer
    row("BatchNormalization",        (7, 13),   (5, 5), Own(batch_norm_by_outputs)),
    row("BatchNormalization",        (14, MAX), (5, 5), Own(batch_norm_by_mode)),
    row("InstanceNormalization",     (6, MAX),  (3, 3), Own(instance_norm)),
    row("LayerNormalization",        (17, MAX), (2, 3), Own(layer_norm)),
    row("GroupNormalization",        (18, 20),  (3, 3), Own(group_norm_by_group)),
    row("GroupNormalization",        (21, MAX), (3, 3), Own(group_norm_by_channel)),
    row("LRN",                       (1, MAX),  (1, 1), Own(lrn)),
    row("Dropout",                   (7, 11),   (1, 1), Own(dropout_inference)),
    row("Dropout",                   (12, MAX), (1, 3), Own(dropout_by_mode)),
    row("MeanVarianceNormalization", (9, MAX),  (1, 1), Own(mean_variance)),
    row("LpNormalization",           (1, MAX),  (1, 1), Own(lp_norm)),
    row("RMSNormalization",          (23, MAX), (2, 2), Own(rms_norm)),
];

const EPSILON: f32 = 1e-5;

/// Until opset 13, a node with one output is inference, and one with more is training.
fn batch_norm_by_outputs(site: &mut Site) -> Result<Vec<ValueId>> {
    let eps = site.attrs.float("epsilon", EPSILON)?;
    site.attrs.float("momentum", 0.9)?;
    if site.opset < 9 && !site.attrs.flag("spatial", true)? {
        return Err(unsupported("spatial", "statistics per element (spatial = 0) are not supported")
            .note("convert the model to opset 9 or newer"));
    }
    if (1..5).any(|i| site.wants(i)) {
        return Err(site
            .error("import.unsupported-training", "it asks for running statistics, which makes it training")
            .note("export the model for inference"));
    }
    batch_norm(site, eps)
}

fn batch_norm(site: &mut Site, eps: f32) -> Result<Vec<ValueId>> {
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?, site.x(3)?, site.x(4)?];
    Ok(vec![site.op(BatchNorm { eps }, &operands)?])
}

fn batch_norm_by_mode(site: &mut Site) -> Result<Vec<ValueId>> {
    let eps = site.attrs.float("epsilon", EPSILON)?;
    let momentum = site.attrs.float("momentum", 0.9)?;
    if !site.attrs.flag("training_mode", false)? {
        return batch_norm(site, eps);
    }
    let operands: Vec<Option<ValueId>> = site.inputs.clone();
    let id = site.node(BatchNormTrain { eps, momentum }, &operands)?;
    Ok(vec![id.out(0), id.out(1), id.out(2)])
}

fn instance_norm(site: &mut Site) -> Result<Vec<ValueId>> {
    let eps = site.attrs.float("epsilon", EPSILON)?;
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?];
    Ok(vec![site.op(InstanceNorm { eps }, &operands)?])
}

/// The type in which statistics are computed: f32 is what the IR does for every type up to it.
fn stash_type(site: &mut Site) -> Result<()> {
    match site.attrs.dtype("stash_type")? {
        None | Some(DType::F32) => Ok(()),
        Some(other) => Err(unsupported("stash_type", &format!("{other} is not supported, only f32"))),
    }
}

fn layer_norm(site: &mut Site) -> Result<Vec<ValueId>> {
    stash_type(site)?;
    let x = site.x(0)?;
    let eps = site.attrs.float("epsilon", EPSILON)?;
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, site.rank(x))?;
    let operands = [Some(x), Some(site.x(1)?), site.opt(2)];
    let id = site.node(LayerNorm { axis, eps }, &operands)?;
    Ok(vec![id.out(0), id.out(1), id.out(2)])
}

fn groups(site: &mut Site) -> Result<usize> {
    match site.attrs.count("num_groups", 0)? {
        0 => Err(bad("num_groups", "it is missing, or zero")),
        n => Ok(n),
    }
}

fn group_norm_by_channel(site: &mut Site) -> Result<Vec<ValueId>> {
    stash_type(site)?;
    let op = GroupNorm { groups: groups(site)?, eps: site.attrs.float("epsilon", EPSILON)? };
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?];
    Ok(vec![site.op(op, &operands)?])
}

/// Opset 18 has a scale and a bias per group; they are spread over the group's channels.
fn group_norm_by_group(site: &mut Site) -> Result<Vec<ValueId>> {
    let op = GroupNorm { groups: groups(site)?, eps: site.attrs.float("epsilon", EPSILON)? };
    let x = site.x(0)?;
    let channels =
        site.shape(x).get(1).cloned().ok_or_else(|| site.error("import.operand", "its operand has no channels"))?;
    let (g, per_group) = (Dim::Const(op.groups as i64), channels.floor_div(&Dim::Const(op.groups as i64)));
    let mut operands = vec![x];
    for i in 1..3 {
        let v = site.x(i)?;
        let column = site.op(Reshape { shape: vec![g.clone(), Dim::ONE] }, &[v])?;
        let spread = site.op(Expand { shape: vec![g.clone(), per_group.clone()] }, &[column])?;
        operands.push(site.op(Reshape { shape: vec![channels.clone()] }, &[spread])?);
    }
    Ok(vec![site.op(op, &operands)?])
}

fn lrn(site: &mut Site) -> Result<Vec<ValueId>> {
    let op = Lrn {
        size: site.attrs.count("size", 0)?,
        alpha: site.attrs.float("alpha", 0.0001)?,
        beta: site.attrs.float("beta", 0.75)?,
        bias: site.attrs.float("bias", 1.0)?,
    };
    if op.size == 0 || op.size > 1 << 20 {
        return Err(bad("size", "it is missing, zero, or absurd"));
    }
    let x = site.x(0)?;
    Ok(vec![site.op(op, &[x])?])
}

/// Before opset 12 the operator does nothing in inference, which is all that these opsets describe.
fn dropout_inference(site: &mut Site) -> Result<Vec<ValueId>> {
    site.attrs.float("ratio", 0.5)?;
    let results = dropped(site)?;
    if site.opset >= 10 || !site.wants(1) {
        return Ok(results);
    }
    // Until opset 9 the mask has the type of x.
    let to = site.dtype(results[0]);
    Ok(vec![results[0], site.op(Cast { to }, &[results[1]])?])
}

fn dropped(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let id = site.node(Dropout {}, &[Some(x)])?;
    Ok(vec![id.out(0), id.out(1)])
}

fn dropout_by_mode(site: &mut Site) -> Result<Vec<ValueId>> {
    site.attrs.opt_int("seed")?;
    let training = match site.opt(2) {
        Some(mode) => site.int(mode, "training_mode")? != 0,
        None => false,
    };
    // With a ratio of 0 nothing is dropped and nothing scaled.
    let keeps_all = match site.opt(1) {
        Some(ratio) if training => site.floats(ratio, "ratio")?.iter().all(|&r| r == 0.0),
        Some(_) | None => !training,
    };
    if !keeps_all {
        return Err(site
            .error("import.unsupported-training", "it drops elements at random (training_mode is true)")
            .note("export the model for inference"));
    }
    dropped(site)
}

/// `(x - mean)/sqrt(variance)` over `axes`; the specification adds 1e-9 to the standard deviation.
fn mean_variance(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let axes = site.attrs.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let mut axes = site.axes(&axes, site.rank(x))?;
    axes.sort_unstable();
    let reduce = |f| Reduce { f, axes: axes.clone(), keepdims: true };
    let mean = site.op(reduce(ReduceFn::Mean), &[x])?;
    let square_of_mean = site.op(Binary { f: BinaryFn::Mul }, &[mean, mean])?;
    let square = site.op(Binary { f: BinaryFn::Mul }, &[x, x])?;
    let mean_of_square = site.op(reduce(ReduceFn::Mean), &[square])?;
    let variance = site.op(Binary { f: BinaryFn::Sub }, &[mean_of_square, square_of_mean])?;
    let deviation = site.op(Unary { f: UnaryFn::Sqrt }, &[variance])?;
    let epsilon = site.scalar(1e-9, site.dtype(x));
    let deviation = site.op(Binary { f: BinaryFn::Add }, &[deviation, epsilon])?;
    let centred = site.op(Binary { f: BinaryFn::Sub }, &[x, mean])?;
    Ok(vec![site.op(Binary { f: BinaryFn::Div }, &[centred, deviation])?])
}

/// `x / norm` along one axis, 0 where the norm is 0.
fn lp_norm(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let f = match site.attrs.int("p", 2)? {
        1 => ReduceFn::L1,
        2 => ReduceFn::L2,
        p => return Err(bad("p", &format!("it is 1 or 2, not {p}"))),
    };
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, site.rank(x))?;
    let norm = site.op(Reduce { f, axes: vec![axis], keepdims: true }, &[x])?;
    let zero = site.scalar(0.0, site.dtype(x));
    let is_zero = site.op(Binary { f: BinaryFn::Equal }, &[norm, zero])?;
    let quotient = site.op(Binary { f: BinaryFn::Div }, &[x, norm])?;
    Ok(vec![site.op(lehr_ir::ops::Where {}, &[is_zero, zero, quotient])?])
}

/// `x / sqrt(mean(x^2) + eps) * scale` over the axes from `axis` on, in f32 unless x is f64.
fn rms_norm(site: &mut Site) -> Result<Vec<ValueId>> {
    stash_type(site)?;
    let eps = site.attrs.float("epsilon", EPSILON)?;
    let (x, scale) = (site.x(0)?, site.x(1)?);
    let (rank, dtype) = (site.rank(x), site.dtype(x));
    let axis = site.attrs.int("axis", -1)?;
    let axis = site.axis(axis, rank)?;
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let cast = |site: &mut Site, v: ValueId, to: DType| match site.dtype(v) == to {
        true => Ok(v),
        false => site.op(Cast { to }, &[v]),
    };
    let wide_x = cast(site, x, wide)?;
    let square = site.op(Binary { f: BinaryFn::Mul }, &[wide_x, wide_x])?;
    let mean = site.op(Reduce { f: ReduceFn::Mean, axes: (axis..rank).collect(), keepdims: true }, &[square])?;
    let eps = site.scalar(eps as f64, wide);
    let sum = site.op(Binary { f: BinaryFn::Add }, &[mean, eps])?;
    let root = site.op(Unary { f: UnaryFn::Sqrt }, &[sum])?;
    let quotient = site.op(Binary { f: BinaryFn::Div }, &[wide_x, root])?;
    let narrow = cast(site, quotient, dtype)?;
    let scale = cast(site, scale, dtype)?;
    Ok(vec![site.op(Binary { f: BinaryFn::Mul }, &[narrow, scale])?])
}
