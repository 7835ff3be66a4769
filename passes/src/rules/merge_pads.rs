//! pad(pad(x; b1, a1; v); b2, a2; v)  ==  pad(x; b1 + b2, a1 + a2; v)
//! Needs: constant mode and the same value in both; no negative amounts (cropping does not add up). Exactness: BitExact.

use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use lehr_ir::ops::{Pad, PadMode};
use lehr_ir::{NodeId, Op};

pub const MERGE_PADS: Rule = Rule {
    name: "merge-pads",
    equation: "pad(pad(x; b1, a1); b2, a2) == pad(x; b1 + b2, a1 + a2)",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Op::Pad(outer) = cx.op(id).clone() else { return Err(Decline::NoMatch) };
    let inner_id = cx.x(id, 0).node;
    let Op::Pad(inner) = cx.op(inner_id).clone() else { return Err(Decline::NoMatch) };
    if outer.mode != PadMode::Constant || inner.mode != PadMode::Constant {
        declined!("both paddings must be constant, they are {} and {}", inner.mode.word(), outer.mode.word());
    }
    if [&inner.before, &inner.after, &outer.before, &outer.after].into_iter().flatten().any(|&n| n < 0) {
        declined!("one of the paddings crops");
    }
    let value = cx.operand(id, 1);
    if pad_value(cx, id) != pad_value(cx, inner_id) || pad_value(cx, id).is_none() {
        declined!("the paddings' values differ or are not known");
    }
    let sum = |a: &[i64], b: &[i64]| -> Vec<i64> { a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect() };
    let merged = Pad {
        before: sum(&inner.before, &outer.before),
        after: sum(&inner.after, &outer.after),
        mode: PadMode::Constant,
    };
    let x = cx.x(inner_id, 0);
    let origins = cx.origins(&[inner_id, id]);
    let new = cx.add(merged, &[Some(x), value], origins)?;
    replace(id.out(0), new.out(0))
}

/// The padded value by its bits, if it is known.
pub(super) fn pad_value(cx: &crate::Cx, id: NodeId) -> Option<u64> {
    match cx.operand(id, 1) {
        None => Some(0f64.to_bits()),
        Some(v) => cx.scalar(v).map(f64::to_bits),
    }
}
