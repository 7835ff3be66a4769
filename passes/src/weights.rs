//! Arithmetic on constant weights: scaling along an axis, and recognising constants that are one number per channel.

use crate::rule::{Decline, declined};
use lehr_ir::dtype::DType;
use lehr_ir::{Tensor, TensorType};

/// `t` with every element multiplied by `factor(index along axis, index along the other one)`, in f64, rounded once. The second
/// index is along `second`, which comes after `axis`, or 0.
///
/// Declines where that would cost more than a rounding: an element becomes infinite, or the largest of those with one factor falls
/// below f16's normal numbers, where digits are lost. (What falls below those of the other types is nothing beside any sum.)
pub(crate) fn scaled(
    t: &Tensor,
    axis: usize,
    second: Option<usize>,
    factor: impl Fn(usize, usize) -> f64,
) -> Result<Tensor, Decline> {
    let shape = t.shape();
    let along = |axis: usize| (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let (n, stride) = along(axis);
    let (n2, run) = second.map_or((1, stride), along);
    // Runs of elements share their factor.
    let run = run.max(1);
    let place_of_run = |k: usize| {
        let start = k * run;
        (start / stride.max(1) % n.max(1), if second.is_some() { start / run % n2.max(1) } else { 0 })
    };
    let factor_of_run = |k: usize| {
        let (i, j) = place_of_run(k);
        factor(i, j)
    };
    match t.dtype() {
        // The common case, without eight bytes per element in between.
        DType::F32 => {
            let mut data = Vec::with_capacity(t.bytes().len());
            for (k, bytes) in t.bytes().chunks(run * 4).enumerate() {
                let f = factor_of_run(k);
                for c in bytes.chunks_exact(4) {
                    let v = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
                    let product = (v as f64 * f) as f32;
                    if !product.is_finite() && v.is_finite() {
                        return Err(beyond(v as f64, f, DType::F32));
                    }
                    data.extend_from_slice(&product.to_le_bytes());
                }
            }
            Ok(Tensor::new(DType::F32, shape.to_vec(), data.into()).expect("as many bytes as before"))
        }
        dtype => {
            let values = t.to_f64();
            let products = values.chunks(run).enumerate().flat_map(|(k, part)| {
                let f = factor_of_run(k);
                part.iter().map(move |v| v * f)
            });
            let result = Tensor::from_f64(dtype, shape.to_vec(), products);
            let rounded = result.to_f64();
            if let Some(at) = (0..values.len()).find(|&i| !rounded[i].is_finite() && values[i].is_finite()) {
                return Err(beyond(values[at], factor_of_run(at / run), dtype));
            }
            if dtype == DType::F16 {
                // The largest before and after, for each factor.
                let mut largest = vec![(0f64, 0f64); n.max(1) * n2.max(1)];
                for (k, (old, new)) in values.chunks(run).zip(rounded.chunks(run)).enumerate() {
                    let (i, j) = place_of_run(k);
                    let most = |sofar: f64, part: &[f64]| part.iter().fold(sofar, |m, v| m.max(v.abs()));
                    let entry = &mut largest[i * n2.max(1) + j];
                    *entry = (most(entry.0, old), most(entry.1, new));
                }
                let lost = |&(i, &(old, new)): &(usize, &(f64, f64))| {
                    old >= SMALLEST_NORMAL_F16
                        && new < SMALLEST_NORMAL_F16
                        && factor(i / n2.max(1), i % n2.max(1)) != 0.0
                };
                if let Some((i, (old, _))) = largest.iter().enumerate().find(lost) {
                    let f = factor(i / n2.max(1), i % n2.max(1));
                    declined!("the weights, {old} at most, lose digits in f16 when scaled by {f}");
                }
            }
            Ok(result)
        }
    }
}

/// Declines where a weight is infinite or NaN: the products of a sum's terms with it are not its product with the sum.
pub(crate) fn require_finite(weights: &[f64]) -> Result<(), Decline> {
    match weights.iter().find(|w| !w.is_finite()) {
        Some(w) => declined!("a weight is {w}"),
        None => Ok(()),
    }
}

const SMALLEST_NORMAL_F16: f64 = 1.0 / 16384.0;

fn beyond(weight: f64, factor: f64, dtype: DType) -> Decline {
    Decline::Reason(format!("a weight of {weight} times {factor} is beyond {dtype}"))
}

/// The numbers of a tensor that, broadcast against `ty`, varies along `axis` at most: one per index of the axis.
pub(crate) fn per_channel(t: &Tensor, ty: &TensorType, axis: usize) -> Option<Vec<f64>> {
    let channels = usize::try_from(ty.shape.get(axis)?.as_const()?).ok()?;
    if t.rank() > ty.rank() {
        return None;
    }
    let values = t.to_f64();
    if values.len() == 1 {
        return Some(vec![values[0]; channels]);
    }
    // Aligned at the last axis, as numpy does.
    let skip = ty.rank() - t.rank();
    let only_channels = t.shape().iter().enumerate().all(|(i, &d)| d == if i + skip == axis { channels } else { 1 });
    (only_channels && axis >= skip).then_some(values)
}

/// The numbers, which are `what`, as a tensor. Declines where one that is finite is beyond the type.
pub(crate) fn vector(what: &str, dtype: DType, values: &[f64]) -> Result<Tensor, Decline> {
    let t = Tensor::from_f64(dtype, vec![values.len()], values.iter().copied());
    match t.to_f64().iter().zip(values).find(|(rounded, v)| !rounded.is_finite() && v.is_finite()) {
        Some((_, v)) => declined!("a {what} of {v:e} is beyond {dtype}"),
        None => Ok(t),
    }
}
