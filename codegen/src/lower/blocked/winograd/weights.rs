//! The weights of Winograd's algorithm, transformed when compiling.

use super::Shape;
use crate::kernel::{CmpOp, Expr};
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

/// The set of weights of a point, counted row by row; behind the last point the number of sets, which is the next group's first.
pub fn set_of_weights(kind: Winograd, point: &Expr) -> Expr {
    let (n, sets) = (kind.points() as i64, kind.sets() as i64);
    if n == sets {
        return point.clone();
    }
    let along = |axis: Expr| axis.min(Expr::i64(sets - 1));
    let row = point.clone() / n;
    let behind = (row.clone() - (n - 1)).max(Expr::i64(0));
    (along(row) + behind) * sets + along(point.clone() % n)
}

/// From the set of a point to the next that is used, in its row or at the start of the next row.
pub fn step_to_next_set(kind: Winograd, point: &Expr) -> Expr {
    let (n, sets) = (kind.points() as i64, kind.sets() as i64);
    if n == sets {
        return Expr::i64(1);
    }
    let row_end = (point.clone() / n + 1) * n;
    let is_last = Expr::compare(CmpOp::Ge, point.clone() % n, Expr::i64(sets - 1));
    set_of_weights(kind, &Expr::select(is_last, row_end, point.clone() + 1)) - set_of_weights(kind, point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Access, Blocks, KernelBuilder, LoopKind, interp};
    use lehr_ir::DType;

    /// What an expression of a point is at so many points.
    fn values(points: usize, f: impl Fn(&Expr) -> Expr) -> Vec<i64> {
        let mut k = KernelBuilder::new("sets");
        let out = k.param(DType::I64, points, Access::Write);
        k.for_(LoopKind::Serial, Expr::i64(0), Expr::i64(points as i64), 1, |k, point| {
            let set = f(&point);
            k.store(out, point, set);
        });
        let mut buffers = [vec![0; 8 * points]];
        interp::run(&k.finish(vec![]), &mut buffers, 0..1).unwrap();
        buffers[0].chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    #[test]
    fn points_of_single_taps_share_weights() {
        // Two taps have the first three points along an axis, a single one the last two.
        let want = [[0, 1, 2, 3, 3], [4, 5, 6, 7, 7], [8, 9, 10, 11, 11], [12, 13, 14, 15, 15], [12, 13, 14, 15, 15]];
        let sets = values(26, |point| set_of_weights(Winograd::F2x3By2, point));
        assert_eq!(sets, [want.as_flattened(), &[16]].concat());
    }

    #[test]
    fn what_is_brought_nearer_is_used_next() {
        for kind in Winograd::ALL {
            let n = kind.points();
            let sets = values(n * n + 1, |point| set_of_weights(kind, point));
            assert_eq!(sets[n * n], (kind.sets() * kind.sets()) as i64, "{kind:?}");
            let steps = values(n * n, |point| step_to_next_set(kind, point));
            for point in 0..n * n {
                let used = (point + 1..=n * n).find(|&later| sets[later] != sets[point] || later % n == 0);
                assert_eq!(sets[point] + steps[point], sets[used.unwrap()], "{kind:?}, point {point}");
            }
        }
    }
}
