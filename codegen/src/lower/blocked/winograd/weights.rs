//! The weights of Winograd's algorithm, transformed when compiling.

use super::Shape;
use crate::lower::blocked::Parts;
use crate::x86::{Winograd, split_evenly};

/// Transformed weights, `[conv group][oc-group][point][channel][blocks][lanes]`, zero where there is no channel. `w` is
/// `[outputs, inputs, kernel, kernel]` as in the model.
pub fn pack(
    kind: Winograd,
    w: &[f32],
    [outputs, inputs, kernel]: [usize; 3],
    shape: &Shape,
    lanes: usize,
    groups: Parts,
) -> Vec<u8> {
    let Shape { stride, taps, conv_groups, channels, out_blocks, .. } = *shape;
    let points = kind.points() * kind.points();
    let rows = kind.weight_rows();
    let outputs = outputs / conv_groups;
    let per_phase = inputs.max(channels / (stride * stride));
    let mut packed = vec![0u8; 4 * points * channels * out_blocks * lanes * conv_groups];
    let mut own = vec![0.0; taps * taps];
    for cg in 0..conv_groups {
        let mut first = 0;
        for count in split_evenly(out_blocks as u32, groups.size as u32) {
            let width = count as usize * lanes;
            let start = (cg * out_blocks * lanes + first) * points * channels;
            for o in first..(first + width).min(outputs) {
                for (phase, i) in (0..stride * stride).flat_map(|phase| (0..inputs).map(move |i| (phase, i))) {
                    let from = &w[((cg * outputs + o) * inputs + i) * kernel * kernel..][..kernel * kernel];
                    for (t, tap) in own.iter_mut().enumerate() {
                        let (y, x) = (t / taps * stride + phase / stride, t % taps * stride + phase % stride);
                        *tap = if y < kernel && x < kernel { from[y * kernel + x] } else { 0.0 };
                    }
                    for (point, value) in kind.weights(&rows, &own).into_iter().enumerate() {
                        let channel = phase * per_phase + i;
                        let at = 4 * (start + (point * channels + channel) * width + o - first);
                        packed[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
            first += width;
        }
    }
    packed
}
