//! Tensors made from nothing but numbers.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::{bad, unsupported};
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{Expand, Eye, Range};
use lehr_ir::{ConstValue, DType, Dim, Tensor, TensorType, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator           opsets     operands importer
    row("Constant",        (1, MAX),  (0, 0), Own(constant)),
    row("ConstantOfShape", (9, MAX),  (1, 1), Own(constant_of_shape)),
    row("HannWindow",      (17, MAX), (1, 1), Own(hann)),
    row("HammingWindow",   (17, MAX), (1, 1), Own(hamming)),
    row("BlackmanWindow",  (17, MAX), (1, 1), Own(blackman)),
    row("Range",           (11, MAX), (3, 3), Own(range)),
    row("EyeLike",         (9, MAX),  (1, 1), Own(eye_like)),
];

/// Exactly one of the attributes is there: `sparse_value` since opset 11, the plain numbers since 12.
fn constant(site: &mut Site) -> Result<Vec<ValueId>> {
    let mut values = vec![];
    if let Some(t) = site.attrs.tensor("value")? {
        values.push(site.attribute_tensor("value", t)?);
    }
    if site.opset >= 12 {
        if let Some(v) = site.attrs.opt_float("value_float")? {
            values.push(Tensor::scalar_f64(DType::F32, v as f64));
        }
        if let Some(v) = site.attrs.floats("value_floats")? {
            values.push(Tensor::from_f64(DType::F32, vec![v.len()], v.into_iter().map(f64::from)));
        }
        if let Some(v) = site.attrs.opt_int("value_int")? {
            values.push(Tensor::from_i128(DType::I64, vec![], [v as i128]));
        }
        if let Some(v) = site.attrs.ints("value_ints")? {
            values.push(Tensor::i64s(&v));
        }
        for name in ["value_string", "value_strings"] {
            if site.attrs.has(name) {
                return Err(unsupported(name, "strings are not supported"));
            }
        }
    }
    if site.attrs.has("sparse_value") {
        return Err(unsupported("sparse_value", "sparse tensors are not supported"));
    }
    match values.len() {
        1 => Ok(values.into_iter().map(|t| site.constant(t)).collect()),
        n => Err(bad("value", &format!("one value is needed, {n} are given"))),
    }
}

fn constant_of_shape(site: &mut Site) -> Result<Vec<ValueId>> {
    let shape = site.x(0)?;
    let shape = site.dims(shape, "shape")?;
    let element = match site.attrs.tensor("value")? {
        None => Tensor::scalar_f64(DType::F32, 0.0),
        Some(t) => {
            let t = site.attribute_tensor("value", t)?;
            t.reshaped(vec![]).map_err(|_| bad("value", &format!("it has {} elements, one is needed", t.len())))?
        }
    };
    let ty = TensorType { dtype: element.dtype(), shape: shape.clone() };
    ty.check_size().map_err(|why| site.error("type.size", why))?;
    match ty.const_shape() {
        Some(shape) => Ok(vec![site.const_value(ConstValue::Splat { element, shape })]),
        None => {
            let element = site.constant(element);
            Ok(vec![site.op(Expand { shape }, &[element])?])
        }
    }
}

fn range(site: &mut Site) -> Result<Vec<ValueId>> {
    if site.opset >= 27 {
        match site.attrs.dtype("stash_type")? {
            None | Some(DType::F32) => {}
            Some(other) => return Err(unsupported("stash_type", &format!("{other} is not supported, only f32"))),
        }
    }
    let [start, limit, delta] = [site.x(0)?, site.x(1)?, site.x(2)?];
    let len = range_len(site, [start, limit, delta])?;
    Ok(vec![site.op(Range { len }, &[start, delta])?])
}

/// `max(ceil((limit - start) / delta), 0)`
fn range_len(site: &mut Site, [start, limit, delta]: [ValueId; 3]) -> Result<Dim> {
    let float = site.dtype(start).is_float();
    let delta = site.tensor(delta, "delta");
    let zero = |site: &Site| site.error("import.range", "the delta is zero");
    if float {
        let (start, limit) = (site.tensor(start, "start"), site.tensor(limit, "limit"));
        let number = |t: Tensor| t.to_f64().first().copied().unwrap_or(0.0);
        let (start, limit, delta) = (number(start?), number(limit?), number(delta?));
        let len = ((limit - start) / delta).ceil();
        return match len.is_nan() || delta == 0.0 {
            true => Err(zero(site)),
            // Converting a float saturates; absurd sizes are for the graph to refuse.
            false => Ok(Dim::Const(len.max(0.0) as i64)),
        };
    }
    let (start, limit) = (site.dim(start, "start"), site.dim(limit, "limit"));
    let (start, limit, delta) = (start?, limit?, delta?.to_i64().first().copied().unwrap_or(0));
    let span = match delta {
        0 => return Err(zero(site)),
        1.. => &limit - &start,
        ..0 => &start - &limit,
    };
    let len = span.ceil_div(&Dim::Const(delta.saturating_abs()));
    // From 0 to a size is never empty in the wrong direction.
    Ok(if start.is(0) && delta > 0 && len.as_const().is_none() { len } else { len.maximum(&Dim::ZERO) })
}

fn eye_like(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let dtype = site.attrs.dtype("dtype")?.unwrap_or_else(|| site.dtype(x));
    let k = site.attrs.int("k", 0)?;
    let shape = site.shape(x);
    let [rows, cols] = &shape[..] else {
        return Err(site.error("import.operand", format!("its operand has rank {}, not 2", shape.len())));
    };
    let op = Eye { dtype, rows: rows.clone(), cols: cols.clone(), k };
    Ok(vec![site.node(op, &[])?.out(0)])
}

/// Coefficients of a window that is a sum of cosines: `a0 - a1 cos(t) + a2 cos(2t)`, t going once around.
type Cosines = [f64; 3];

fn hann(site: &mut Site) -> Result<Vec<ValueId>> {
    cosine_window(site, [0.5, 0.5, 0.0])
}

/// 25/46 is the value of Hamming's coefficient that cancels the first side lobe.
fn hamming(site: &mut Site) -> Result<Vec<ValueId>> {
    cosine_window(site, [25.0 / 46.0, 21.0 / 46.0, 0.0])
}

fn blackman(site: &mut Site) -> Result<Vec<ValueId>> {
    cosine_window(site, [0.42, 0.5, 0.08])
}

/// Windows are a few thousand samples long.
const MAX_WINDOW: i64 = 1 << 24;

fn cosine_window(site: &mut Site, [a0, a1, a2]: Cosines) -> Result<Vec<ValueId>> {
    let periodic = site.attrs.flag("periodic", true)?;
    let dtype = site.attrs.dtype("output_datatype")?.unwrap_or(DType::F32);
    let size = site.x(0)?;
    let n = site.int(size, "size")?;
    if !(0..=MAX_WINDOW).contains(&n) {
        return Err(site.error("import.window", format!("a window of {n} samples is absurd")));
    }
    // A symmetric window ends where it began; a window of one sample has no period.
    let period = if periodic { n } else { n - 1 }.max(1) as f64;
    let sample = |i: i64| {
        let t = 2.0 * std::f64::consts::PI * i as f64 / period;
        a0 - a1 * t.cos() + a2 * (2.0 * t).cos()
    };
    let window = Tensor::from_f64(dtype, vec![n as usize], (0..n).map(sample));
    Ok(vec![site.constant(window)])
}
