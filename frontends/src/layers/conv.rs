//! Convolutions beyond the operator `conv`.
//!
//! **Flip.** The operator, ONNX's Conv and torch's "convolution" are cross-correlations:
//! `y[p] = sum_k w[k] * x[s*p + d*k - pad]`. The convolution of mathematics runs one of them backwards:
//! `y[p] = sum_k w[K-1-k] * x[s*p + d*k - pad]`. Only the latter commutes and associates. With weights that are learnt the two
//! express the same functions.

use super::{Layer, Result};
use lehr_ir::ops::{Conv, Pad, PadMode, Slice};
use lehr_ir::{Dim, ValueId};

/// Attributes of a convolution of stride 1 over `spatial` axes, without padding, dilation or groups.
pub fn plain(spatial: usize) -> Conv {
    Conv { strides: vec![1; spatial], pads: vec![0; 2 * spatial], dilations: vec![1; spatial], groups: 1 }
}

/// The convolution of mathematics: the kernel is flipped along its spatial axes, and then correlated. Pads of
/// `dilation*(K-1)` at both ends give the full convolution, whose size is `M + dilation*(K-1)`.
pub fn convolution(l: &mut Layer, x: ValueId, w: ValueId, b: Option<ValueId>, op: Conv) -> Result {
    let w = flipped(l, w)?;
    Ok(l.node(op, &[Some(x), Some(w), b])?.out(0))
}

/// Kernels [outputs, inputs, spatial...] with the spatial axes backwards.
pub fn flipped(l: &mut Layer, w: ValueId) -> Result {
    let lens = l.ty(w).shape.clone();
    let turned = |axis: usize| axis >= 2;
    let starts = lens.iter().enumerate().map(|(a, n)| if turned(a) { n - 1 } else { Dim::ZERO }).collect();
    let steps = (0..lens.len()).map(|a| if turned(a) { -1 } else { 1 }).collect();
    l.op(Slice { starts, lens, steps }, &[w])
}

/// A depthwise convolution by `depth` [channels*m, 1, spatial...] with the strides, pads and dilations of `op`, and then a 1x1
/// convolution by `point` [outputs, channels*m, 1...]. Source: Howard et al., "MobileNets" (2017), without what follows each.
pub fn depthwise_separable(l: &mut Layer, x: ValueId, depth: ValueId, point: ValueId, op: Conv) -> Result {
    let channels = l.ty(x).shape.get(1).and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok());
    let Some(groups) = channels else {
        return Err(l.error("separable.c1", format!("the number of channels must be known, x is {}", l.ty(x))));
    };
    let spatial = op.strides.len();
    let y = l.op(Conv { groups, ..op }, &[x, depth])?;
    l.op(plain(spatial), &[y, point])
}

/// Correlation by a separable kernel: first `column` [m, inputs, k, 1], then `row` [outputs, m, 1, k], each with the zero
/// padding of its own axis. Equal to the correlation by the kernels `sum_m row[o, m] * column[m, i]`, also at the borders: there
/// the first gives the zeros that the second one's padding would.
pub fn separable(l: &mut Layer, x: ValueId, column: ValueId, row: ValueId, pads: [usize; 4]) -> Result {
    let [top, left, bottom, right] = pads;
    let y = l.op(Conv { pads: vec![top, 0, bottom, 0], ..plain(2) }, &[x, column])?;
    l.op(Conv { pads: vec![0, left, 0, right], ..plain(2) }, &[y, row])
}

/// A stack of correlations in place of one with a larger kernel (two 3x3 for a 5x5), with nothing between and all zero padding in
/// front. Equal to the correlation by the convolution of the kernels. Padding each one instead would change the border.
pub fn stacked(l: &mut Layer, x: ValueId, kernels: &[ValueId], pads: [usize; 4]) -> Result {
    let [top, left, bottom, right] = pads.map(|p| i64::try_from(p).unwrap_or(i64::MAX));
    let (before, after) = (vec![0, 0, top, left], vec![0, 0, bottom, right]);
    let mut y = l.op(Pad { before, after, mode: PadMode::Constant }, &[x])?;
    for &w in kernels {
        y = l.op(plain(2), &[y, w])?;
    }
    Ok(y)
}
