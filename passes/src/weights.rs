//! Arithmetic on constant weights: scaling along an axis, and recognising constants that are one number per channel.

use lehr_ir::dtype::DType;
use lehr_ir::{Tensor, TensorType};

/// `t` with every element multiplied by `factor(index along axis, index along the other one)`, in f64, rounded once. The second
/// index is along `second`, or 0.
pub(crate) fn scaled(t: &Tensor, axis: usize, second: Option<usize>, factor: impl Fn(usize, usize) -> f64) -> Tensor {
    let shape = t.shape().to_vec();
    let along = |axis: usize| (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let (n, stride) = along(axis);
    let (n2, stride2) = second.map_or((1, 1), along);
    let at = |i: usize| factor(i / stride % n, if second.is_some() { i / stride2 % n2 } else { 0 });
    if t.dtype() == DType::F32 {
        // The common case, without eight bytes per element in between.
        let elements = t.bytes().chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]) as f64);
        return Tensor::from_f64(DType::F32, shape.clone(), elements.enumerate().map(|(i, v)| v * at(i)));
    }
    Tensor::from_f64(t.dtype(), shape.clone(), t.to_f64().into_iter().enumerate().map(|(i, v)| v * at(i)))
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
