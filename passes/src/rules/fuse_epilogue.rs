//! f(anchor(x, ..), ..)  ==  fusion(x, ..) { f(anchor(x, ..), ..) }
//! anchor: conv, conv_transpose, gemm, matmul, pools, reductions, instance_norm, group_norm; f: elementwise operators, with
//! operands that broadcast to the anchor's result (residuals, biases per channel, numbers).
//! Needs: every f has the shape of the anchor's result; what is between anchor and last f is used by them alone; a pool's
//! indices are not used.
//! Exactness: BitExact; in f16 and bf16 Rounding: compiled code keeps what is between two operators in f32, until a cast asks for the type.

use super::fusion_group::{fuse, grow, why_alone};
use crate::rule::{Decline, Exactness, Outcome, Rule, declined};
use lehr_ir::NodeId;

pub const FUSE_EPILOGUE: Rule = Rule {
    name: "fuse-epilogue",
    equation: "f(anchor(x)) == fusion(x) { f(anchor(x)) }",
    exactness: Exactness::BitExact,
    apply,
};

fn apply(id: NodeId, cx: &mut crate::Cx) -> Outcome {
    if !cx.op(id).is_anchor() {
        return Err(Decline::NoMatch);
    }
    let results = cx.graph().node(id).results.len();
    if (1..results).any(|p| cx.is_used(id.out(p as u32))) {
        declined!("its second result is used");
    }
    match grow(cx, id) {
        Some(group) => fuse(cx, group),
        None => Err(why_alone(cx, id)),
    }
}
