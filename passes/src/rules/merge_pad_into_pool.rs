//! pool(pad(x; b, a; v); pads)  ==  pool(x; pads + (b, a))
//! Needs: v is what the pool takes its padding for: the lowest number for a maximum, 0 for a mean that counts padding and for
//! an Lp norm. A mean that does not count its padding may have none of its own; the merged one counts. Floor mode: under ceil
//! mode a window may start in the real padding, but not in the pool's own. No indices, which would point elsewhere.
//! Exactness: BitExact.

use super::merge_pad_into_conv::{added, spatial_padding};
use super::merge_pads::pad_value;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use lehr_ir::dtype::{DType, Kind};
use lehr_ir::{NodeId, Op};

pub const MERGE_PAD_INTO_POOL: Rule = Rule {
    name: "merge-pad-into-pool",
    equation: "pool(pad(x; b, a); pads) == pool(x; pads + (b, a))",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let mut op = cx.op(id).clone();
    if !matches!(op, Op::MaxPool(_) | Op::AvgPool(_) | Op::LpPool(_)) {
        return Err(Decline::NoMatch);
    }
    let pad_id = cx.x(id, 0).node;
    let Op::Pad(pad) = cx.op(pad_id).clone() else { return Err(Decline::NoMatch) };
    let extra = spatial_padding(&pad)?;
    let dtype = cx.ty(id.out(0)).dtype;
    let Some(value) = pad_value(cx, pad_id).map(f64::from_bits) else { declined!("the padded value is not known") };
    let (ceil_mode, neutral) = match &mut op {
        Op::MaxPool(p) => {
            if cx.is_used(id.out(1)) {
                declined!("the maxima's positions are used");
            }
            p.pads = added(&p.pads, &extra)?;
            (p.ceil_mode, lowest(dtype))
        }
        Op::AvgPool(p) => {
            if !p.count_include_pad && p.pads.iter().any(|&n| n != 0) {
                declined!("the mean does not count its own padding, but would have to count this one");
            }
            p.pads = added(&p.pads, &extra)?;
            p.count_include_pad = true;
            (p.ceil_mode, 0.0)
        }
        Op::LpPool(p) => {
            p.pads = added(&p.pads, &extra)?;
            (p.ceil_mode, 0.0)
        }
        _ => return Err(Decline::NoMatch),
    };
    if ceil_mode {
        declined!("under ceil mode a last window could start in the padding");
    }
    if value != neutral {
        declined!("the padding is {value}, the pool's own counts as {neutral}");
    }
    let x = cx.x(pad_id, 0);
    let origins = cx.origins(&[pad_id, id]);
    let new = cx.add(op, &[Some(x)], origins)?;
    replace(id.out(0), new.out(0))
}

/// What loses against everything.
fn lowest(dtype: DType) -> f64 {
    match dtype.kind() {
        Kind::Signed => -(2f64.powi(dtype.bits() as i32 - 1)),
        Kind::Unsigned | Kind::Bool => 0.0,
        Kind::Float | Kind::String => f64::NEG_INFINITY,
    }
}
