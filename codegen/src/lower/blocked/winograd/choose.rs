//! Whether Winograd's algorithm pays for a convolution, and with which tiles.

use super::super::direct;
use super::Tiling;
use crate::machine::Machine;
use crate::strategy::{Strategy, Weighed};
use crate::x86::{Isa, Winograd};
use lehr_ir::ops::Conv;

/// A convolution as Winograd's algorithm sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub stride: usize,
    /// Taps of the kernel along an axis.
    pub taps: usize,
    pub conv_groups: usize,
    /// Channels of a group of the convolution, whole blocks of them where there are several blocks.
    pub channels: usize,
    /// Blocks of input and output channels of a group of the convolution.
    pub in_blocks: usize,
    pub out_blocks: usize,
}

impl Shape {
    /// `None` for a convolution that is not square, has other strides or dilations, or groups that are no whole blocks.
    pub fn of(op: &Conv, w: &[usize], lanes: usize) -> Option<Shape> {
        let (&[outputs, inputs, high, wide], &[stride, across]) = (w, &op.strides[..]) else { return None };
        if high != wide || stride != across || !(1..=2).contains(&stride) || op.dilations != [1, 1] {
            return None;
        }
        let outputs = outputs / op.groups;
        if op.groups > 1 && !(inputs.is_multiple_of(lanes) && outputs.is_multiple_of(lanes)) {
            return None;
        }
        let in_blocks = inputs.div_ceil(lanes);
        Some(Shape {
            stride,
            taps: high,
            conv_groups: op.groups,
            channels: if in_blocks == 1 { inputs } else { in_blocks * lanes },
            in_blocks,
            out_blocks: outputs.div_ceil(lanes),
        })
    }

    /// Zeros that tiles reach beyond the end of an axis of the input, of `input` elements, in front of which there is `pad`.
    pub fn reach(&self, kind: Winograd, input: usize, output: usize, pad: usize) -> usize {
        let tiles = output.div_ceil(kind.outputs());
        let end = (tiles - 1) * kind.outputs() * kind.stride() + kind.pixels();
        end.saturating_sub(pad + input)
    }
}

/// Scratch beyond this is out of the leaves' reach.
const MAX_SCRATCH: usize = 1 << 28;
/// Winograd's algorithm must be so much cheaper: it rounds more, and its weights are larger.
const DOUBT: f64 = 1.05;

/// The algorithms for a convolution of weights `w` and output `y`, the cheapest first: directly, and by Winograd's where its tiles
/// fit; each cut as the cost model proposes. The input is in blocks. None for a convolution that Winograd's algorithm is not for.
pub fn algorithms(op: &Conv, w: &[usize], y: &[usize], isa: Isa, machine: &Machine) -> Vec<Weighed> {
    let (Some(shape), &[images, _, high, wide]) = (Shape::of(op, w, isa.lanes()), y) else { return vec![] };
    let direct = direct::Shape {
        isa,
        images,
        conv_groups: op.groups,
        rows: high,
        row_pixels: wide,
        flat: false,
        is_blocked: true,
        prologue: None,
        in_order: true,
        in_blocks: w[1].div_ceil(isa.lanes()),
        out_blocks: shape.out_blocks,
        taps: w[2] * w[3],
    };
    let d = direct.propose(machine);
    let direct = Weighed { strategy: Strategy::Direct(d), cycles: direct.cycles(&d, machine) };
    let by = |kind: Winograd| {
        let tiling = Tiling::new(isa, kind, shape, [images, high, wide]);
        let w = tiling.propose(machine);
        let cycles = tiling.cycles(&w, machine) * DOUBT;
        (tiling.scratch() <= MAX_SCRATCH).then_some(Weighed { strategy: Strategy::Winograd(w), cycles })
    };
    let kinds = Winograd::ALL.into_iter().filter(|kind| (kind.taps(), kind.stride()) == (shape.taps, shape.stride));
    let mut all: Vec<Weighed> = [direct].into_iter().chain(kinds.filter_map(by)).collect();
    all.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
    all
}
