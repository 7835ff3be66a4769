//! transpose(x; p)  ==  reshape(x; shape)
//! Needs: the axes of x that are not 1 keep their order, so no element moves. Exactness: BitExact.

use crate::rule::{Decline, Exactness, Outcome, Rule, replace};
use lehr_ir::ops::Reshape;
use lehr_ir::{NodeId, Op};

pub const TRANSPOSE_TO_RESHAPE: Rule = Rule {
    name: "transpose-to-reshape",
    equation: "transpose(x; p) == reshape(x; shape)",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Op::Transpose(t) = cx.op(id) else { return Err(Decline::NoMatch) };
    let x = cx.x(id, 0);
    let shape = &cx.ty(x).shape;
    let moving: Vec<usize> = t.perm.iter().copied().filter(|&axis| !shape[axis].is(1)).collect();
    // The identity is a no-op, which another rule removes altogether.
    let identity = t.perm.iter().enumerate().all(|(i, &p)| i == p);
    if identity || !moving.is_sorted() {
        return Err(Decline::NoMatch);
    }
    let shape = cx.ty(id.out(0)).shape.clone();
    let origins = cx.origins(&[id]);
    let new = cx.add(Reshape { shape }, &[Some(x)], origins)?;
    replace(id.out(0), new.out(0))
}
