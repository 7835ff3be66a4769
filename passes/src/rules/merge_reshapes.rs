//! reshape(reshape(x; s); t)  ==  reshape(x; t)
//! Needs: nothing. Exactness: BitExact.

use crate::rule::{Decline, Exactness, Outcome, Rule, replace};
use lehr_ir::{NodeId, Op};

pub const MERGE_RESHAPES: Rule = Rule {
    name: "merge-reshapes",
    equation: "reshape(reshape(x; s); t) == reshape(x; t)",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Op::Reshape(outer) = cx.op(id).clone() else { return Err(Decline::NoMatch) };
    let inner = cx.x(id, 0).node;
    let Op::Reshape(_) = cx.op(inner) else { return Err(Decline::NoMatch) };
    let x = cx.x(inner, 0);
    let origins = cx.origins(&[inner, id]);
    let new = cx.add(outer, &[Some(x)], origins)?;
    replace(id.out(0), new.out(0))
}
