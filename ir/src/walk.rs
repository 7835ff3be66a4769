//! Walking over dense row-major tensors, for the evaluator: strides, multi-indices, and building a tensor by
//! choosing for each element where it comes from. Elements are moved as bytes, so that NaN payloads survive.

use crate::dtype::DType;
use crate::tensor::Tensor;
use std::num::Wrapping;
use std::ops::{AddAssign, Mul};

/// Elements between neighbours along each axis.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].wrapping_mul(shape[axis]);
    }
    strides
}

/// Flat position of a multi-index.
pub(crate) fn flat(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// Steps `index` to the next one in row-major order; false after the last.
pub(crate) fn advance(index: &mut [usize], shape: &[usize]) -> bool {
    for axis in (0..shape.len()).rev() {
        index[axis] += 1;
        if index[axis] < shape[axis] {
            return true;
        }
        index[axis] = 0;
    }
    false
}

/// Calls `f` with every multi-index in row-major order; a rank-0 shape has one, the empty one.
pub(crate) fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        f(&index);
        if !advance(&mut index, shape) {
            return;
        }
    }
}

/// Elements of a tensor of shape `from`, repeated as broadcasting to `to` repeats them.
pub(crate) fn spread<T: Copy>(values: Vec<T>, from: &[usize], to: &[usize]) -> Vec<T> {
    if from == to {
        return values;
    }
    let own = strides(from);
    let skip = to.len() - from.len();
    let steps = (0..to.len()).map(|d| if d < skip || from[d - skip] == 1 { 0 } else { own[d - skip] });
    let steps: Vec<usize> = steps.collect();
    let mut out = Vec::with_capacity(to.iter().product());
    for_each_index(to, |index| out.push(values[flat(index, &steps)]));
    out
}

/// A tensor whose element at each index is the element of `x` at the flat position that `source` gives, or
/// `filler` (one element's bytes) for `None`.
pub(crate) fn pick(
    x: &Tensor,
    shape: &[usize],
    filler: &[u8],
    mut source: impl FnMut(&[usize]) -> Option<usize>,
) -> Tensor {
    let size = x.dtype().size();
    let data = &x.bytes()[..];
    let mut out = Vec::with_capacity(shape.iter().product::<usize>() * size);
    for_each_index(shape, |index| match source(index) {
        Some(at) => out.extend_from_slice(&data[at * size..(at + 1) * size]),
        None => out.extend_from_slice(filler),
    });
    Tensor::new(x.dtype(), shape.to_vec(), out.into()).expect("one element per index")
}

/// What sums and products are accumulated in: f64 for floats; for integers, 64 bits that wrap, which gives
/// the exact result modulo the width of any element type.
pub(crate) trait Wide: Copy + Default + Mul<Output = Self> + AddAssign {
    const ONE: Self;
    fn read(t: &Tensor) -> Vec<Self>;
    fn write(dtype: DType, shape: &[usize], values: &[Self]) -> Tensor;
}

impl Wide for f64 {
    const ONE: f64 = 1.0;
    fn read(t: &Tensor) -> Vec<f64> {
        t.to_f64()
    }
    fn write(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(dtype, shape.to_vec(), values.iter().copied())
    }
}

impl Wide for Wrapping<i64> {
    const ONE: Wrapping<i64> = Wrapping(1);
    fn read(t: &Tensor) -> Vec<Wrapping<i64>> {
        t.to_i128().into_iter().map(|v| Wrapping(v as i64)).collect()
    }
    fn write(dtype: DType, shape: &[usize], values: &[Wrapping<i64>]) -> Tensor {
        Tensor::from_i128(dtype, shape.to_vec(), values.iter().map(|v| v.0 as i128))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_row_major() {
        let mut seen = vec![];
        for_each_index(&[2, 3], |i| seen.push(flat(i, &strides(&[2, 3]))));
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        for_each_index(&[2, 0], |_| panic!("there are no elements"));
        let mut n = 0;
        for_each_index(&[], |i| n += 1 + i.len());
        assert_eq!(n, 1);
    }
}
