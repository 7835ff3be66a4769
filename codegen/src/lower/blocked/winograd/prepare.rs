//! What Winograd's algorithm makes ready: weights when compiling, and the phases of a row-major input at run time.

use super::Shape;
use crate::kernel::{Access, Blocks, CmpOp, Expr};
use crate::lower::blocked::Parts;
use crate::lower::cx::NodeCx;
use crate::lower::nest::unflatten;
use crate::lower::view::{Layout, View};
use crate::x86::{Winograd, split_evenly};
use lehr_ir::DType;

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
    let per_phase = if shape.plain { inputs } else { channels / (stride * stride) };
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

/// A row-major input `[N, C, H, W]` with its padding as `[N, 4 C, rows, columns]` in blocks: channel `(2 dy + dx) C + c` holds the
/// pixels of channel `c` at `2 y + dy - pad`, `2 x + dx - pad`, or zero outside.
pub fn space_to_depth(cx: &mut NodeCx, x: &View, pads: [usize; 2], [rows, columns]: [usize; 2]) -> View {
    let lanes = cx.low.isa().lanes();
    let (images, channels) = (x.shape[0], x.shape[1]);
    let blocks = (4 * channels).div_ceil(lanes);
    let shape = vec![images, 4 * channels, rows, columns];
    let buf = cx.scratch(DType::F32, images * blocks * rows * columns * lanes);
    let layout = Layout::Blocked { block: lanes, border: vec![(0, 0); 2], first: 0, blocks };
    let to = View { buf, dtype: DType::F32, shape, layout };
    let (xs, ys) = (x.lattice(), to.lattice());
    let mut k = cx.kernel("_phases");
    let p = k.parallel((images * rows) as i64, (8 * columns * channels) as i64);
    let (source, target) = (k.param_for(x.buf, Access::Read), k.param_for(buf, Access::Write));
    let at = unflatten(&mut k, p, &[images, rows]);
    let (image, row) = (at[0].clone(), at[1].clone());
    let zero = [Expr::i64(0), Expr::i64(0)];
    for block in 0..blocks {
        let start = k.let_(ys.at(&image, Expr::i64(block as i64), &zero) + row.clone() * ys.spatial[0]);
        k.vector(columns * lanes, |k, i| k.builder().store(target, start.clone() + i, Expr::f32(0.0)));
    }
    for dy in 0..2 {
        let y = k.let_(row.clone() * 2 + (dy as i64 - pads[0] as i64));
        // Unsigned, rows before the first are beyond the last.
        let above = Expr::compare(CmpOp::Lt, y.clone(), Expr::i64(0));
        let inside = |k: &mut crate::lower::cx::KernelCx, y: Expr| {
            let within = Expr::compare(CmpOp::Lt, y.clone(), Expr::i64(x.shape[2] as i64));
            k.if_else(
                within,
                |k| {
                    for (dx, c) in (0..2).flat_map(|dx| (0..channels).map(move |c| (dx, c))) {
                        // Columns whose pixel lies inside.
                        let first = pads[1].saturating_sub(dx).div_ceil(2);
                        let end = (x.shape[3] + pads[1]).saturating_sub(dx).div_ceil(2).min(columns);
                        let channel = (2 * dy + dx) * channels + c;
                        let block = Expr::i64((channel / lanes) as i64);
                        let place = [y.clone(), Expr::i64(2 * first as i64 + dx as i64 - pads[1] as i64)];
                        let from = k.let_(xs.at(&image, Expr::i64(c as i64), &place));
                        let place = [row.clone(), Expr::i64(first as i64)];
                        let to = k.let_(ys.at(&image, block, &place) + (channel % lanes) as i64);
                        k.serial(end.saturating_sub(first), |k, i| {
                            let value = k.builder().load(source, from.clone() + i.clone() * (2 * xs.spatial[1]));
                            k.builder().store(target, to.clone() + i * ys.spatial[1], value);
                        });
                    }
                },
                |_| {},
            );
        };
        k.if_else(above, |_| {}, |k| inside(k, y));
    }
    k.finish();
    to
}
