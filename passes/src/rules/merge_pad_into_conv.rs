//! conv(pad(x; b, a), w; pads)  ==  conv(x, w; pads + (b, a))
//! Needs: constant mode with value 0; no padding of batch and channels; no cropping.
//! Exactness: BitExact (a convolution multiplies its own padding as any zero).

use super::merge_pads::pad_value;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use lehr_ir::ops::{Pad, PadMode};
use lehr_ir::{NodeId, Op};

pub const MERGE_PAD_INTO_CONV: Rule = Rule {
    name: "merge-pad-into-conv",
    equation: "conv(pad(x; b, a), w; pads) == conv(x, w; pads + (b, a))",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Op::Conv(mut conv) = cx.op(id).clone() else { return Err(Decline::NoMatch) };
    let pad_id = cx.x(id, 0).node;
    let Op::Pad(pad) = cx.op(pad_id).clone() else { return Err(Decline::NoMatch) };
    let extra = spatial_padding(&pad)?;
    match pad_value(cx, pad_id).map(f64::from_bits) {
        Some(0.0) => {}
        Some(v) => declined!("the padding is {v}, a convolution pads with 0"),
        None => declined!("the padded value is not known"),
    }
    conv.pads = added(&conv.pads, &extra)?;
    let mut inputs = cx.graph().node(id).inputs.clone();
    inputs[0] = cx.operand(pad_id, 0);
    let origins = cx.origins(&[pad_id, id]);
    let new = cx.add(conv, &inputs, origins)?;
    replace(id.out(0), new.out(0))
}

/// Begins, then ends, of the spatial axes.
pub(super) fn spatial_padding(pad: &Pad) -> Result<Vec<usize>, Decline> {
    if pad.mode != PadMode::Constant {
        declined!("the padding is {}, not constant", pad.mode.word());
    }
    if pad.before.iter().chain(&pad.after).any(|&n| n < 0) {
        declined!("the padding crops");
    }
    if pad.before.iter().take(2).chain(pad.after.iter().take(2)).any(|&n| n != 0) {
        declined!("batch or channels are padded");
    }
    Ok(pad.before.iter().skip(2).chain(pad.after.iter().skip(2)).map(|&n| n as usize).collect())
}

pub(super) fn added(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Decline> {
    if a.len() != b.len() {
        declined!("the ranks differ");
    }
    Ok(a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect())
}
