//! Pooling beyond the operators `max_pool` and `avg_pool`: global, and anti-aliased.

use super::{Layer, Result};
use lehr_ir::ops::{Conv, MaxPool, Pad, PadMode, ReduceFn};
use lehr_ir::{Dim, Tensor, ValueId};

/// A blur by binomial weights, and subsampling.
#[derive(Clone, Copy, Debug)]
pub struct Blur {
    /// Per axis: 2 is (1, 1), 3 is (1, 2, 1), 5 is (1, 4, 6, 4, 1), each over its sum.
    pub taps: usize,
    pub stride: usize,
    /// What lies beyond the border; `floor((taps-1)/2)` elements before, `ceil` after.
    pub border: PadMode,
}

impl Default for Blur {
    /// The paper's usual one.
    fn default() -> Blur {
        Blur { taps: 3, stride: 2, border: PadMode::Reflect }
    }
}

/// Each channel of N C spatial... is blurred, then subsampled: what the stride would alias is weakened first.
/// Output size per axis: `floor((M - 1)/stride) + 1`. Source: Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019).
pub fn blur(l: &mut Layer, x: ValueId, blur: Blur) -> Result {
    l.require_floats(x)?;
    let ty = l.ty(x).clone();
    let channels = ty.shape.get(1).and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok());
    let (Some(groups), Some(spatial @ 1..)) = (channels, ty.rank().checked_sub(2)) else {
        return Err(l.error("blur.c1", format!("it takes N C spatial... with a known number of channels, not {ty}")));
    };
    if blur.stride == 0 || !(1..=64).contains(&blur.taps) {
        return Err(l.error("blur.c2", format!("{} taps with stride {}", blur.taps, blur.stride)));
    }
    let (before, after) = ((blur.taps - 1) / 2, blur.taps / 2);
    let short = ty.shape[2..].iter().find(|d| d.as_const().is_some_and(|n| n <= after as i64));
    if let (PadMode::Reflect, Some(n)) = (blur.border, short) {
        return Err(l.error("blur.c3", format!("{n} elements cannot be reflected for a blur of {} taps", blur.taps)));
    }
    let weights = binomial(blur.taps);
    let sum: f64 = weights.iter().sum();
    // Outer product over the spatial axes, the same for every channel.
    let mut kernel = vec![1.0];
    for _ in 0..spatial {
        kernel = kernel.iter().flat_map(|a| weights.iter().map(move |b| a * b / sum)).collect();
    }
    let shape = [vec![groups, 1], vec![blur.taps; spatial]].concat();
    let w = l.constant(Tensor::from_f64(ty.dtype, shape, (0..groups).flat_map(|_| kernel.clone())));
    let border = |n: usize| [vec![0; 2], vec![n as i64; spatial]].concat();
    let pad = Pad { before: border(before), after: border(after), mode: blur.border };
    let x = if blur.taps > 1 { l.op(pad, &[x])? } else { x };
    let op =
        Conv { strides: vec![blur.stride; spatial], pads: vec![0; 2 * spatial], dilations: vec![1; spatial], groups };
    l.op(op, &[x, w])
}

/// Anti-aliased max pooling: the maximum over windows of `window` at every place, then [`blur`] with the stride. The border
/// mode also extends x so that max pooling keeps its size, `floor((window-1)/2)` before and `ceil` after.
pub fn max_blur(l: &mut Layer, x: ValueId, window: usize, options: Blur) -> Result {
    let Some(spatial @ 1..) = l.ty(x).rank().checked_sub(2) else {
        return Err(l.error("blur.c1", format!("it takes N C spatial..., not {}", l.ty(x))));
    };
    if !(1..=64).contains(&window) {
        return Err(l.error("blur.c2", format!("a window of {window}")));
    }
    let border = |n: usize| [vec![0; 2], vec![n as i64; spatial]].concat();
    let pad = Pad { before: border((window - 1) / 2), after: border(window / 2), mode: options.border };
    let x = l.op(pad, &[x])?;
    let pool = MaxPool {
        kernel: vec![window; spatial],
        strides: vec![1; spatial],
        pads: vec![0; 2 * spatial],
        dilations: vec![1; spatial],
        ceil_mode: false,
        column_major: false,
    };
    let y = l.op(pool, &[x])?;
    blur(l, y, options)
}

/// The mean of each channel: [N, C, spatial...] to [N, C].
pub fn global_average(l: &mut Layer, x: ValueId) -> Result {
    let axes = (2..l.ty(x).rank()).collect();
    l.reduce(ReduceFn::Mean, x, axes)
}

/// A row of Pascal's triangle.
fn binomial(taps: usize) -> Vec<f64> {
    let mut row = vec![1.0];
    for _ in 1..taps {
        let padded = [vec![0.0], row, vec![0.0]].concat();
        row = padded.windows(2).map(|w| w[0] + w[1]).collect();
    }
    row
}
