//! The weights of Winograd's algorithm, transformed when compiling.

use super::Shape;
use crate::lower::blocked::Parts;
use crate::x86::{Winograd, split_evenly};

/// Transformed weights, `[conv group][oc-group][set][channel][blocks][lanes]`, zero where there is no channel. `w` is
/// `[outputs, inputs, kernel, kernel]` as in the model. Points with the same weights share a set.
pub fn pack(
    kind: Winograd,
    w: &[f32],
    [outputs, inputs, kernel]: [usize; 3],
    shape: &Shape,
    lanes: usize,
    groups: Parts,
) -> Vec<u8> {
    let Shape { conv_groups, channels, out_blocks, .. } = *shape;
    let sets = kind.sets() * kind.sets();
    let rows = kind.weight_rows();
    let outputs = outputs / conv_groups;
    let mut packed = vec![0u8; 4 * sets * channels * out_blocks * lanes * conv_groups];
    for cg in 0..conv_groups {
        let mut first = 0;
        for count in split_evenly(out_blocks as u32, groups.size as u32) {
            let width = count as usize * lanes;
            let start = (cg * out_blocks * lanes + first) * sets * channels;
            for o in first..(first + width).min(outputs) {
                for channel in 0..inputs {
                    let own = &w[((cg * outputs + o) * inputs + channel) * kernel * kernel..][..kernel * kernel];
                    for (set, value) in kind.weights(&rows, own).into_iter().enumerate() {
                        let at = 4 * (start + (set * channels + channel) * width + o - first);
                        packed[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
            first += width;
        }
    }
    packed
}
