//! The strategy of the convolution that is being lowered: a tuned one if there is one that fits, else the cost model's.

use super::direct;
use super::gather::Gathering;
use super::winograd::Tiling;
use crate::lower::cx::NodeCx;
use crate::machine::Machine;
use crate::strategy::{ByWinograd, Decision, Direct, Gathered, Strategy, Unfit, Weighed, signature};
use lehr_ir::ops::Conv;

/// A layer as one algorithm sees it, which can be cut in several ways.
pub trait Work {
    type Cut: Copy + Into<Strategy>;

    /// How the tensors lie, in words for a signature.
    fn form(&self) -> Vec<&'static str>;
    /// The strategy, if this algorithm can use it here, else why not.
    fn fit(&self, s: Strategy) -> Result<Self::Cut, String>;
    fn propose(&self, machine: &Machine) -> Self::Cut;
    /// Strategies that differ from this one in one respect.
    fn neighbours(&self, cut: Self::Cut, machine: &Machine) -> Vec<Self::Cut>;
    /// Predicted.
    fn cycles(&self, cut: &Self::Cut, machine: &Machine) -> f64;
}

impl NodeCx<'_> {
    /// Decides how the work is cut, and notes that with the other algorithms that the layout pass has weighed.
    pub(super) fn decide<W: Work>(&mut self, op: &Conv, work: &W) -> W::Cut {
        let (machine, layouts) = (self.low.machine, &self.low.layouts);
        let signature = signature(op, &self.in_shape(0), &self.in_shape(1), self.low.isa(), &work.form());
        let (tuned, unfit) = match self.low.tuned.get(&signature).map(|&s| (s, work.fit(s))) {
            None => (None, None),
            Some((_, Ok(cut))) => (Some(cut), None),
            Some((strategy, Err(_))) if strategy.algorithm().is_some() && !layouts.may_use_winograd() => {
                (None, Some(Unfit { strategy, why: "the options exclude Winograd's algorithm".into() }))
            }
            Some((strategy, Err(why))) => (None, Some(Unfit { strategy, why })),
        };
        let cut = tuned.unwrap_or_else(|| work.propose(&machine));
        let weigh = |cut: W::Cut| Weighed { strategy: cut.into(), cycles: work.cycles(&cut, &machine) };
        let (chosen, node) = (weigh(cut), self.low.node.expect("a node is being lowered"));
        let mut others: Vec<Weighed> = work.neighbours(cut, &machine).into_iter().map(weigh).collect();
        let own = chosen.strategy.algorithm();
        let rest = layouts.weighed(node).iter().copied().filter(|w| w.strategy.algorithm() != own);
        let (allowed, excluded): (Vec<Weighed>, Vec<Weighed>) =
            rest.partition(|w| layouts.may_use_winograd() || w.strategy.algorithm().is_none());
        others.extend(allowed);
        others.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
        self.low.program.decisions.push(Decision { node, signature, chosen, unfit, others, excluded });
        cut
    }
}

impl Work for direct::Shape {
    type Cut = Direct;

    fn form(&self) -> Vec<&'static str> {
        let words = [
            (!self.is_blocked, "plain"),
            (!self.in_order, "reordered"),
            (self.flat, "flat"),
            (self.prologue.is_some(), "prologue"),
        ];
        words.into_iter().filter(|w| w.0).map(|w| w.1).collect()
    }

    fn fit(&self, s: Strategy) -> Result<Direct, String> {
        match s {
            Strategy::Direct(d) => self.fit(d),
            Strategy::Winograd(_) | Strategy::Gathered(_) => Err("the layer is computed directly".into()),
        }
    }

    fn propose(&self, machine: &Machine) -> Direct {
        self.propose(machine)
    }

    fn neighbours(&self, cut: Direct, _: &Machine) -> Vec<Direct> {
        self.neighbours(cut)
    }

    fn cycles(&self, cut: &Direct, machine: &Machine) -> f64 {
        self.cycles(cut, machine)
    }
}

impl Work for Tiling {
    type Cut = ByWinograd;

    /// Blocks in order, and no 1x1 kernel.
    fn form(&self) -> Vec<&'static str> {
        vec![]
    }

    fn fit(&self, s: Strategy) -> Result<ByWinograd, String> {
        match s {
            Strategy::Winograd(w) => self.fit(w),
            Strategy::Direct(_) | Strategy::Gathered(_) => {
                Err(format!("the layer is computed by {}", self.kind.name()))
            }
        }
    }

    fn propose(&self, machine: &Machine) -> ByWinograd {
        self.propose(machine)
    }

    fn neighbours(&self, cut: ByWinograd, machine: &Machine) -> Vec<ByWinograd> {
        self.neighbours(cut, machine)
    }

    fn cycles(&self, cut: &ByWinograd, machine: &Machine) -> f64 {
        self.cycles(cut, machine)
    }
}

impl Work for Gathering<'_> {
    type Cut = Gathered;

    fn form(&self) -> Vec<&'static str> {
        let words = [(true, "gathered"), (!self.is_blocked, "plain"), (self.flat, "flat")];
        words.into_iter().filter(|w| w.0).map(|w| w.1).collect()
    }

    fn fit(&self, s: Strategy) -> Result<Gathered, String> {
        match s {
            Strategy::Gathered(g) => self.fit(g),
            Strategy::Direct(_) | Strategy::Winograd(_) => Err("the layer gathers its channels".into()),
        }
    }

    fn propose(&self, _: &Machine) -> Gathered {
        self.propose()
    }

    fn neighbours(&self, cut: Gathered, _: &Machine) -> Vec<Gathered> {
        self.neighbours(cut)
    }

    fn cycles(&self, cut: &Gathered, machine: &Machine) -> f64 {
        self.cycles(cut, machine)
    }
}
