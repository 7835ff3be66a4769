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

/// The kind of tiles with which a convolution of weights `w` and output `y` costs least, if that is less than directly.
///
/// Costs are counted in FMAs of a vector, two of which a core issues a cycle. Weights come from memory at 12 GB/s or more, a byte
/// in the time of half an FMA, while the arithmetic goes on.
pub fn choose(op: &Conv, w: &[usize], y: &[usize], lanes: usize) -> Option<Winograd> {
    let shape = Shape::of(op, w, lanes)?;
    let &[images, _, high, wide] = y else { return None };
    let Shape { conv_groups, channels, in_blocks, out_blocks, .. } = shape;
    let cost = |fmas: usize, taps: usize, channels: usize| {
        let weights = taps * channels * out_blocks * conv_groups * 4 * lanes / 2;
        let fmas = images * conv_groups * fmas;
        fmas.max(weights) as f64 + fmas.min(weights) as f64 / 4.0
    };
    let inputs = w[1].next_multiple_of(lanes);
    let direct = cost(high * wide * w[2] * w[3] * inputs * out_blocks, w[2] * w[3], inputs);
    let by = |kind: Winograd| {
        let (n, m) = (kind.points(), kind.outputs());
        let tiles = high.div_ceil(m) * wide.div_ceil(m);
        // Vectors are loaded and stored twice by each transform, which costs about four FMAs a point.
        let transforms = 8 * n * n * (in_blocks + out_blocks);
        // A product of few channels spends as long on starting and storing its accumulators.
        let products = n * n * (channels + 6) * out_blocks;
        let scratch = 4 * n * n * tiles * (in_blocks + out_blocks) * conv_groups * lanes;
        (scratch <= MAX_SCRATCH).then(|| cost(tiles * (products + transforms), n * n, channels) * 1.05)
    };
    let kinds = Winograd::ALL.into_iter().filter(|kind| kind.taps() == shape.taps);
    let costs = kinds.filter_map(|kind| Some((kind, by(kind)?)));
    let (best, cost) = costs.min_by(|a, b| a.1.total_cmp(&b.1))?;
    (cost < direct).then_some(best)
}
