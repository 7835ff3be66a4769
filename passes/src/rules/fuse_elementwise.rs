//! f(g(x, ..), ..)  ==  fusion(x, ..) { f(g(x, ..), ..) }      f, g elementwise
//! Needs: all have one shape; what is between them is used by them alone.
//! Exactness: BitExact; in f16 and bf16 Rounding: compiled code keeps what is between two operators in f32, until a cast asks for the type.

use super::fusion_group::{absorb_producers, fuse, grow, why_alone};
use crate::rule::{Decline, Exactness, Outcome, Rule};
use lehr_ir::NodeId;

pub const FUSE_ELEMENTWISE: Rule = Rule {
    name: "fuse-elementwise",
    equation: "f(g(x)) == fusion(x) { f(g(x)) }",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    if !cx.op(id).is_elementwise() {
        return Err(Decline::NoMatch);
    }
    let Some(mut group) = grow(cx, id) else { return Err(why_alone(cx, id)) };
    absorb_producers(cx, &mut group);
    fuse(cx, group)
}
