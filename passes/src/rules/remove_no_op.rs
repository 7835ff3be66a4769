//! f(x) == x, for operators whose attributes make them do nothing: identity; dropout; a cast, reshape, expand or
//! tile to what x is already; the identity permutation; a slice of everything; padding by nothing; the concatenation of
//! one; a clip without bounds; a sum, mean, product, minimum or maximum over no axes; x*1, x/1 and x - 0 where x has the result's shape.
//! (x + 0 is kept: it makes 0 of -0.)
//! Needs: nothing. A used dropout mask becomes a constant, for which the shape must be known.
//! Exactness: BitExact.

use crate::rule::{Decline, Exactness, Outcome, Replacement, Rule, declined, replace};
use lehr_ir::ops::{BinaryFn, ReduceFn};
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, NodeId, Op, Tensor};

pub const REMOVE_NO_OP: Rule =
    Rule { name: "remove-no-op", equation: "f(x) == x", exactness: Exactness::BitExact, apply };

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Some(x) = cx.operand(id, 0) else { return Err(Decline::NoMatch) };
    let y = id.out(0);
    let same_type = cx.ty(x) == cx.ty(y);
    let nothing_done = match cx.op(id) {
        Op::Identity(_) => true,
        Op::Dropout(_) => return dropout(id, cx),
        Op::Cast(_) | Op::Reshape(_) | Op::Expand(_) | Op::Tile(_) => same_type,
        Op::Transpose(t) => t.perm.iter().enumerate().all(|(i, &p)| i == p),
        Op::Slice(s) => same_type && s.steps.iter().all(|&s| s == 1) && s.starts.iter().all(|d| d.is(0)),
        Op::Pad(p) => p.before.iter().chain(&p.after).all(|&n| n == 0),
        Op::Concat(_) => cx.graph().node(id).inputs.len() == 1,
        Op::Clip(_) => cx.operand(id, 1).is_none() && cx.operand(id, 2).is_none(),
        Op::Reduce(r) => {
            let selects =
                matches!(r.f, ReduceFn::Sum | ReduceFn::Mean | ReduceFn::Prod | ReduceFn::Max | ReduceFn::Min);
            r.axes.is_empty() && selects
        }
        Op::Binary(b) => return neutral_operand(id, b.f, cx),
        _ => false,
    };
    if nothing_done && same_type { replace(y, x) } else { Err(Decline::NoMatch) }
}

fn neutral_operand(id: NodeId, f: BinaryFn, cx: &mut crate::Cx) -> Outcome {
    let (x, z) = (cx.x(id, 0), cx.x(id, 1));
    let y = id.out(0);
    let right = cx.scalar(z);
    let neutral = match f {
        BinaryFn::Mul | BinaryFn::Div => right == Some(1.0),
        BinaryFn::Sub => right.is_some_and(|v| v.to_bits() == 0),
        _ => return Err(Decline::NoMatch),
    };
    if neutral && cx.ty(x) == cx.ty(y) {
        return replace(y, x);
    }
    if f == BinaryFn::Mul && cx.scalar(x) == Some(1.0) && cx.ty(z) == cx.ty(y) {
        return replace(y, z);
    }
    Err(Decline::NoMatch)
}

fn dropout(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let (x, y, mask) = (cx.x(id, 0), id.out(0), id.out(1));
    if !cx.is_used(mask) {
        return replace(y, x);
    }
    let Some(shape) = cx.ty(mask).const_shape() else {
        declined!("its mask is used, and the shape {} is not all numbers", cx.ty(mask));
    };
    let element = Tensor::from_i128(DType::Bool, vec![], [1]);
    let all_true = cx.add_const(ConstValue::Splat { element, shape });
    Ok(Replacement(vec![(y, x), (mask, all_true)]))
}
