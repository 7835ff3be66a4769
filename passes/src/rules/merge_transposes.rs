//! transpose(transpose(x; p); q)  ==  transpose(x; r)      r[i] = p[q[i]]
//! Needs: nothing. Exactness: BitExact.

use crate::rule::{Decline, Exactness, Outcome, Rule, replace};
use lehr_ir::ops::Transpose;
use lehr_ir::{NodeId, Op};

pub const MERGE_TRANSPOSES: Rule = Rule {
    name: "merge-transposes",
    equation: "transpose(transpose(x; p); q) == transpose(x; p[q])",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    let Op::Transpose(outer) = cx.op(id) else { return Err(Decline::NoMatch) };
    let inner_id = cx.x(id, 0).node;
    let Op::Transpose(inner) = cx.op(inner_id) else { return Err(Decline::NoMatch) };
    let perm = outer.perm.iter().map(|&q| inner.perm[q]).collect();
    let x = cx.x(inner_id, 0);
    let origins = cx.origins(&[inner_id, id]);
    let new = cx.add(Transpose { perm }, &[Some(x)], origins)?;
    replace(id.out(0), new.out(0))
}
