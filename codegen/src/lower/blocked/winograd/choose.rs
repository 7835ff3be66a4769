//! Whether Winograd's algorithm pays for a convolution, and with which tiles.

use crate::x86::Winograd;
use lehr_ir::ops::Conv;

/// A convolution as Winograd's algorithm sees it: with stride 2, each of the four phases of a pixel's place (even or odd row,
/// even or odd column) is an input channel of its own, and the kernel has half the taps along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub stride: usize,
    /// Taps of the kernel along an axis, per phase.
    pub taps: usize,
    pub conv_groups: usize,
    /// Channels of a group of the convolution, all phases together, whole blocks of them where there are several blocks.
    pub channels: usize,
    /// Blocks of input and output channels of a group of the convolution.
    pub in_blocks: usize,
    pub out_blocks: usize,
}

/// Scratch beyond this is out of the leaves' reach.
const MAX_SCRATCH: usize = 1 << 28;

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
        let phases = stride * stride;
        let in_blocks = phases * inputs.div_ceil(lanes);
        Some(Shape {
            stride,
            taps: high.div_ceil(stride),
            conv_groups: op.groups,
            channels: if in_blocks == 1 { inputs } else { in_blocks * lanes },
            in_blocks,
            out_blocks: outputs.div_ceil(lanes),
        })
    }

    /// Zeros that tiles reach beyond the end of an axis of the input, of `input` elements, in front of which there is `pad`.
    pub fn reach(&self, kind: Winograd, input: usize, output: usize, pad: usize) -> usize {
        let pixels = output.next_multiple_of(kind.outputs()) + self.taps - 1;
        (self.stride * pixels).saturating_sub(pad + input)
    }
}

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// `None`: directly.
    pub kind: Option<Winograd>,
    /// Predicted, in FMAs of a vector, two of which a core issues a cycle.
    pub cost: f64,
    /// Bytes of weights as they are stored.
    pub weights: usize,
}

/// Vectors are loaded and stored twice by each transform, which costs about four FMAs a point each way.
const TRANSFORM: usize = 8;
/// A product of few channels spends as long on starting and storing its accumulators.
const START: usize = 6;
/// V beyond this many bytes comes from beyond the L2 cache for every group of output channels.
const MAX_WARM: usize = 3 << 19;

/// The ways to compute a convolution of weights `w` and output `y`, the cheapest first: directly, and by Winograd's algorithm
/// where its tiles fit.
///
/// Weights come from memory at 12 GB/s or more, a byte in the time of half an FMA, while the arithmetic goes on.
pub fn candidates(op: &Conv, w: &[usize], y: &[usize], lanes: usize) -> Vec<Candidate> {
    let (Some(shape), &[images, _, high, wide]) = (Shape::of(op, w, lanes), y) else { return vec![] };
    let Shape { conv_groups, channels, in_blocks, out_blocks, .. } = shape;
    let candidate = |kind: Option<Winograd>, fmas: usize, taps: usize, channels: usize| {
        let weights = taps * channels * out_blocks * conv_groups * 4 * lanes;
        let (fmas, loads) = (images * conv_groups * fmas, weights / 2);
        let cost = fmas.max(loads) as f64 + fmas.min(loads) as f64 / 4.0;
        Candidate { kind, cost: if kind.is_some() { cost * 1.05 } else { cost }, weights }
    };
    let inputs = w[1].next_multiple_of(lanes);
    let direct = candidate(None, high * wide * w[2] * w[3] * inputs * out_blocks, w[2] * w[3], inputs);
    let by = |kind: Winograd| {
        let (n, m) = (kind.points(), kind.outputs());
        let tiles = high.div_ceil(m) * wide.div_ceil(m);
        let transforms = TRANSFORM * n * n * (in_blocks + out_blocks);
        let products = n * n * (channels + START) * out_blocks;
        let v = 4 * n * n * tiles * in_blocks * lanes;
        let again = if v > MAX_WARM { v / 4 * out_blocks.div_ceil(4) } else { 0 };
        let scratch = v + 4 * n * n * tiles * out_blocks * lanes;
        let fits = scratch.saturating_mul(conv_groups) <= MAX_SCRATCH;
        fits.then(|| candidate(Some(kind), tiles * (products + transforms) + again, n * n, channels))
    };
    let kinds = Winograd::ALL.into_iter().filter(|kind| kind.taps() == shape.taps);
    let mut all: Vec<Candidate> = [direct].into_iter().chain(kinds.filter_map(by)).collect();
    all.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    all
}
