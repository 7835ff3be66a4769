//! The strategy of the convolution that is being lowered: a tuned one if there is one that fits, else the cost model's.

use super::direct;
use super::winograd::{self, Tiling};
use crate::lower::cx::NodeCx;
use crate::strategy::{ByWinograd, Decision, Direct, Strategy, Weighed, signature};
use lehr_ir::ops::Conv;

impl NodeCx<'_> {
    /// For a direct convolution.
    pub(super) fn decide_direct(&mut self, op: &Conv, shape: &direct::Shape) -> Direct {
        let machine = self.low.machine;
        let signature = self.signature(op);
        let tuned = match self.low.tuned.get(&signature) {
            Some(Strategy::Direct(d)) => shape.fit(*d),
            Some(Strategy::Winograd(_)) | None => None,
        };
        let chosen = tuned.unwrap_or_else(|| shape.propose(&machine));
        let weigh = |d: Direct| Weighed { strategy: Strategy::Direct(d), cycles: shape.cycles(&d, &machine) };
        let others = shape.neighbours(chosen).into_iter().map(weigh).collect();
        self.decided(op, signature, weigh(chosen), others);
        chosen
    }

    /// For a convolution by Winograd's algorithm.
    pub(super) fn decide_winograd(&mut self, op: &Conv, tiling: &Tiling) -> ByWinograd {
        let machine = self.low.machine;
        let signature = self.signature(op);
        let tuned = match self.low.tuned.get(&signature) {
            Some(Strategy::Winograd(w)) => tiling.fit(*w),
            Some(Strategy::Direct(_)) | None => None,
        };
        let chosen = tuned.unwrap_or_else(|| tiling.propose(&machine));
        let weigh = |w: ByWinograd| Weighed { strategy: Strategy::Winograd(w), cycles: tiling.cycles(&w, &machine) };
        let others = tiling.neighbours(chosen, &machine).into_iter().map(weigh).collect();
        self.decided(op, signature, weigh(chosen), others);
        chosen
    }

    fn signature(&self, op: &Conv) -> String {
        signature(op, &self.in_shape(0), &self.in_shape(1), self.low.isa())
    }

    /// Notes the decision, with the other algorithms that the layout pass has weighed.
    fn decided(&mut self, op: &Conv, signature: String, chosen: Weighed, mut others: Vec<Weighed>) {
        let node = self.low.node.expect("a node is being lowered");
        let (w, y) = (self.in_shape(1), self.out_shape(0));
        let (isa, machine) = (self.low.isa(), self.low.machine);
        let algorithms = winograd::algorithms(op, &w, &y, isa, &machine);
        let weighed = self.low.layouts.weighed(node).iter().map(|c| c.strategy.algorithm());
        let rest: Vec<_> = weighed.filter(|a| *a != chosen.strategy.algorithm()).collect();
        let rest = algorithms.into_iter().filter(|c| rest.contains(&c.strategy.algorithm()));
        let may = self.low.layouts.may_use_winograd();
        let (allowed, excluded) = rest.partition(|c| may || c.strategy.algorithm().is_none());
        let allowed: Vec<Weighed> = allowed;
        others.extend(allowed);
        others.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
        self.low.program.decisions.push(Decision { node, signature, chosen, others, excluded });
    }
}
