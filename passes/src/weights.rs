//! Arithmetic on constant weights: scaling along an axis, and recognising constants that are one number per channel.

use lehr_ir::dtype::DType;
use lehr_ir::{Tensor, TensorType};

/// `t` with every element multiplied by `factor(index along axis, index along the other one)`, in f64, rounded once. The second
/// index is along `second`, which comes after `axis`, or 0.
pub(crate) fn scaled(t: &Tensor, axis: usize, second: Option<usize>, factor: impl Fn(usize, usize) -> f64) -> Tensor {
    let shape = t.shape();
    let along = |axis: usize| (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let (n, stride) = along(axis);
    let (n2, run) = second.map_or((1, stride), along);
    // Runs of elements share their factor.
    let run = run.max(1);
    let factor_of_run = |k: usize| {
        let start = k * run;
        factor(start / stride.max(1) % n.max(1), if second.is_some() { start / run % n2.max(1) } else { 0 })
    };
    match t.dtype() {
        // The common case, without eight bytes per element in between.
        DType::F32 => {
            let mut data = Vec::with_capacity(t.bytes().len());
            for (k, bytes) in t.bytes().chunks(run * 4).enumerate() {
                let f = factor_of_run(k);
                for c in bytes.chunks_exact(4) {
                    let v = f32::from_le_bytes([c[0], c[1], c[2], c[3]]) as f64;
                    data.extend_from_slice(&((v * f) as f32).to_le_bytes());
                }
            }
            Tensor::new(DType::F32, shape.to_vec(), data.into()).expect("as many bytes as before")
        }
        dtype => {
            let values = t.to_f64();
            let products = values.chunks(run).enumerate().flat_map(|(k, part)| {
                let f = factor_of_run(k);
                part.iter().map(move |v| v * f)
            });
            Tensor::from_f64(dtype, shape.to_vec(), products)
        }
    }
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

pub(crate) fn vector(dtype: DType, values: &[f64]) -> Tensor {
    Tensor::from_f64(dtype, vec![values.len()], values.iter().copied())
}
