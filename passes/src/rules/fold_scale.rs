//! linear(x, w, b)*c  ==  linear(x, w*c, b*c),  / likewise;      linear(x, w, b) + c  ==  linear(x, w, b + c),  - likewise
//! linear: conv, conv_transpose, gemm, matmul of matrices; c is one number, or one per output channel.
//! Needs: constant c, bias, and (for * and /) weights; a result of linear that is used once; no division by 0; new
//! weights and bias in their type's range. Exactness: Rounding.

use super::affine::{channel_axis, fold, linear_producer};
use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined};
use crate::weights::per_channel;
use lehr_ir::ops::BinaryFn;
use lehr_ir::{NodeId, Op, ValueId};

pub const FOLD_SCALE: Rule = Rule {
    name: "fold-scale",
    equation: "linear(x, w, b)*c == linear(x, w*c, b*c), linear(x, w, b) + c == linear(x, w, b + c)",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let Op::Binary(b) = cx.op(id) else { return Err(Decline::NoMatch) };
    let f = b.f;
    let commutes = match f {
        BinaryFn::Add | BinaryFn::Mul => true,
        BinaryFn::Sub | BinaryFn::Div => false,
        _ => return Err(Decline::NoMatch),
    };
    let (x, y) = (cx.x(id, 0), cx.x(id, 1));
    let Some((linear, c)) = sides(cx, x, y).or_else(|| if commutes { sides(cx, y, x) } else { None }) else {
        return Err(Decline::NoMatch);
    };
    let ty = cx.ty(linear.out(0)).clone();
    if !ty.dtype.is_float() || cx.ty(id.out(0)) != &ty {
        return Err(Decline::NoMatch);
    }
    let axis = channel_axis(cx, linear)?;
    let Some(c) = cx.constant(c).and_then(|c| per_channel(&c, &ty, axis)) else {
        declined!("the constant is not one number per channel");
    };
    let zeros = vec![0.0; c.len()];
    match f {
        BinaryFn::Add => fold(cx, id, linear, None, &c),
        BinaryFn::Sub => fold(cx, id, linear, None, &c.iter().map(|c| -c).collect::<Vec<_>>()),
        BinaryFn::Mul => fold(cx, id, linear, Some(&c), &zeros),
        _ if c.contains(&0.0) => declined!("it divides by 0"),
        _ => fold(cx, id, linear, Some(&c.iter().map(|c| 1.0 / c).collect::<Vec<_>>()), &zeros),
    }
}

/// The linear producer of `y` and the constant `c`, if they are these.
fn sides(cx: &Cx, y: ValueId, c: ValueId) -> Option<(NodeId, ValueId)> {
    cx.graph().constant(c)?;
    Some((linear_producer(cx, y)?, c))
}
