//! The operands of a leaf's vector program as buffers, and their addresses at a place of the result.

use super::epilogue::{Body, Epilogue, Operand, translate};
use crate::kernel::{Access as Use, Expr, LeafArg};
use crate::lower::cx::{KernelCx, NodeCx, Source};
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::x86::{Access, VProg};
use bytes::Bytes;
use lehr_ir::DType;
use lehr_ir::graph::ValueId;

/// One operand.
#[derive(Clone, Debug)]
pub enum Feed {
    /// Of the result's shape, or broadcasting in some way where there are no channels ([`spread`]).
    Same(View),
    /// A number per channel, from the first channel on; images are `image` elements apart.
    Channel {
        buf: BufferId,
        offset: i64,
        image: i64,
    },
    Splat(View),
}

pub struct Fused {
    pub program: VProg,
    pub feeds: Vec<Feed>,
}

/// What is fused behind `start` as a program, after a division of `start` itself. Tables of channels are padded to `lanes` with ones.
///
/// # Panics
/// If the group cannot be written so: the layout pass has asked the same question.
pub fn fused(cx: &mut NodeCx, start: ValueId, divisor: Option<f32>, access: &mut dyn FnMut(&Feed) -> Access) -> Fused {
    try_fused(cx, start, divisor, access).expect("the layout pass has translated it")
}

/// Likewise; `None` if the group cannot be written so.
pub fn try_fused(
    cx: &mut NodeCx,
    start: ValueId,
    divisor: Option<f32>,
    access: &mut dyn FnMut(&Feed) -> Access,
) -> Option<Fused> {
    let rank = cx.graph.ty(cx.outputs[0].0).rank();
    let channel_axis = if cx.outputs[0].1.order().is_some() { 1 } else { rank - 1 };
    translated(cx, start, divisor, Some(channel_axis), access)
}

/// Likewise, with numbers per channel along this axis.
pub fn fused_along(
    cx: &mut NodeCx,
    start: ValueId,
    channel_axis: usize,
    access: &mut dyn FnMut(&Feed) -> Access,
) -> Option<Fused> {
    translated(cx, start, None, Some(channel_axis), access)
}

/// What is computed from `start` on, as a program whose operands broadcast in any way.
///
/// # Panics
/// As [`fused`].
pub fn spread(cx: &mut NodeCx, start: ValueId, access: &mut dyn FnMut(&Feed) -> Access) -> Fused {
    translated(cx, start, None, None, access).expect("the layout pass has translated it")
}

fn translated(
    cx: &mut NodeCx,
    start: ValueId,
    divisor: Option<f32>,
    channel_axis: Option<usize>,
    access: &mut dyn FnMut(&Feed) -> Access,
) -> Option<Fused> {
    let lanes = cx.low.isa().lanes();
    let order = cx.outputs[0].1.order().cloned();
    let result = cx.outputs[0].0;
    let padded = order.is_some_and(|o| !o.is_whole());
    let mut feeds: Vec<(Operand, Feed)> = vec![];
    for pass in 0..2 {
        let translated = {
            let body = Body {
                graph: cx.graph,
                start,
                divisor,
                result,
                channel_axis,
                padded,
                outside: &|v| cx.source(v).is_some(),
                constant: &|v| match cx.source(v) {
                    Some(Source::Const(c)) => Some(c),
                    Some(Source::Buffer(_)) | None => None,
                },
            };
            let mut lies = |o: Operand| match feeds.iter().find(|(known, _)| *known == o) {
                Some((_, feed)) => access(feed),
                None => Access::Same,
            };
            translate(&body, &mut lies)?
        };
        let Epilogue { program, operands } = translated;
        if pass == 1 {
            return Some(Fused { program, feeds: feeds.into_iter().map(|(_, f)| f).collect() });
        }
        feeds = operands.into_iter().map(|o| (o, feed(cx, o, lanes))).collect();
    }
    unreachable!("the second pass returns")
}

fn feed(cx: &mut NodeCx, operand: Operand, lanes: usize) -> Feed {
    let Some(value) = operand.value() else {
        let view = &cx.outputs[0].1;
        let occupied = view.spread(vec![1.0; view.shape[1]], 1, 0.0);
        return Feed::Channel { buf: channel_table(cx, &occupied, lanes, 0.0), offset: 0, image: 0 };
    };
    match (operand, cx.source(value).expect("operands come from outside")) {
        (Operand::Occupied, _) => unreachable!("it has no value"),
        (Operand::Same(_) | Operand::Spread(_), Source::Buffer(view)) => Feed::Same(view),
        (Operand::Same(_) | Operand::Spread(_), Source::Const(c)) => Feed::Same(cx.low.const_view(&c)),
        (Operand::Splat(_), Source::Buffer(view)) => Feed::Splat(view),
        (Operand::Splat(_), Source::Const(c)) => Feed::Splat(cx.low.const_view(&c)),
        (Operand::Channel { .. }, Source::Const(c)) => {
            let values = cx.outputs[0].1.spread(c.tensor().to_f32(), 1, 1.0);
            let buf = channel_table(cx, &values, lanes, 1.0);
            Feed::Channel { buf, offset: 0, image: 0 }
        }
        (Operand::Channel { per_image, .. }, Source::Buffer(view)) => {
            let image = if per_image { view.lattice().image } else { 0 };
            Feed::Channel { buf: view.buf, offset: 0, image }
        }
    }
}

/// Numbers per channel among the weights, padded to whole vectors.
pub fn channel_table(cx: &mut NodeCx, values: &[f32], lanes: usize, padding: f32) -> BufferId {
    let len = values.len().next_multiple_of(lanes);
    let padded = values.iter().copied().chain(std::iter::repeat(padding)).take(len);
    let bytes: Vec<u8> = padded.flat_map(f32::to_le_bytes).collect();
    cx.low.add_weights(DType::F32, len, Bytes::from(bytes))
}

/// A place in the result: the first pixel and channel that a call computes.
pub struct Place<'p> {
    pub image: &'p Expr,
    /// Block of channels.
    pub block: Expr,
    pub spatial: &'p [Expr],
    /// Further pixels along the last axis.
    pub pixels: Expr,
}

impl Place<'_> {
    /// Position in a tensor of the result's shape.
    pub fn position(&self, lattice: &Lattice) -> Expr {
        let last = lattice.spatial.last().copied().unwrap_or(0);
        lattice.at(self.image, self.block.clone(), self.spatial) + self.pixels.clone() * last
    }
}

/// Addresses of the operands at a place. `of_result` is how values of the result's shape lie, row-major, where they are no images.
pub fn addresses(
    k: &mut KernelCx,
    feeds: &[Feed],
    of_result: Option<&Lattice>,
    lanes: usize,
    place: &Place,
) -> Vec<LeafArg> {
    let address = |k: &mut KernelCx, feed: &Feed| {
        let (buf, index) = match feed {
            Feed::Same(view) => match of_result {
                Some(lattice) => (view.dense_buffer(), place.position(lattice)),
                None => (view.buf, place.position(&view.lattice())),
            },
            Feed::Channel { buf, offset, image } => {
                (*buf, place.image.clone() * *image + place.block.clone() * lanes as i64 + *offset)
            }
            Feed::Splat(view) => (view.buf, Expr::i64(0)),
        };
        LeafArg::Address { buf: k.param_for(buf, Use::Read), index }
    };
    feeds.iter().map(|f| address(k, f)).collect()
}
