//! conv(x, w; pads)  ~=  conv(conv(x, a; pads), b)      w k x k, a and b smaller: two 3x3 for a 5x5, three for a 7x7
//! Needs: leave to approximate (how far, and somebody to measure times); constant weights, known sizes, a square kernel of side 4 or
//! more; weights, and outputs on a random image, within the tolerance; less than twice the multiply-adds, and a shorter time on this
//! machine.
//! The border stays as it was: all padding is in front.
//! Exactness: Approximate.

use crate::Cx;
use crate::analysis::{ConvLayer, Factorization};
use crate::approximate::try_approximate;
use crate::report::count;
use crate::rule::{Decline, Exactness, Outcome, Rule};
use lehr_ir::NodeId;

pub const FACTORIZE_CONV: Rule = Rule {
    name: "factorize-conv",
    equation: "conv(x, w; pads) ~= conv(conv(x, a; pads), b)",
    exactness: Exactness::Approximate,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let layer = ConvLayer::at(cx.graph(), id)?;
    if !Factorization::applies(&layer) {
        return Err(Decline::NoMatch);
    }
    try_approximate(cx, id, FACTORIZE_CONV.name, &layer, |options| {
        let found = Factorization::new(&layer, options)?;
        let parts: Vec<String> = found.parts.iter().map(|p| format!("{p}x{p}")).collect();
        let side = found.kernel;
        let what = format!("{side}x{side} as {} over {}", parts.join(", "), count(found.chosen.width, "channel"));
        Ok(vec![(what, found.chosen)])
    })
}
