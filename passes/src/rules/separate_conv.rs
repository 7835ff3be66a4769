//! conv(x, w)  ~=  conv(conv(x, a), b)      a k x 1 and b 1 x k; or one of them k x k on single channels, the other 1x1
//! Needs: leave to approximate (how far, and somebody to measure times); constant weights, known sizes, a kernel of two rows and
//! columns or more; weights, and outputs on a random image, within the tolerance; a shorter time on this machine. The border stays as
//! it was. Of the forms that qualify, the one with the fewest multiply-adds is taken.
//! Exactness: Approximate (only rounding where the weights have the structure).

use crate::Cx;
use crate::analysis::{ConvLayer, Separability};
use crate::approximate::try_approximate;
use crate::rule::{Decline, Exactness, Outcome, Rule};
use lehr_ir::NodeId;

pub const SEPARATE_CONV: Rule = Rule {
    name: "separate-conv",
    equation: "conv(x, w) ~= conv(conv(x, a), b)",
    exactness: Exactness::Approximate,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let layer = ConvLayer::at(cx.graph(), id)?;
    if !Separability::applies(&layer) {
        return Err(Decline::NoMatch);
    }
    try_approximate(cx, id, SEPARATE_CONV.name, &layer, |options| {
        let mut found = Separability::new(&layer, options)?;
        found.schemes.sort_by_key(|s| s.chosen.cost.multiply_adds);
        let named = found.schemes.into_iter().map(|s| (format!("{} of rank {}", s.scheme, s.chosen.width), s.chosen));
        Ok(named.collect())
    })
}
