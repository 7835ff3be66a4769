//! Pools that the convolution before them computes: the output's transform of Winograd's algorithm has a tile of results in
//! registers, and stores what a 2x2 pool leaves of it. Nobody stores the rest.

use super::{Group, Layouts, Role};
use crate::x86::Pool;
use lehr_ir::Op;
use lehr_ir::graph::{Graph, NodeId, Uses};

/// A pool as the convolution before it computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBehind {
    pub node: NodeId,
    pub pool: Pool,
}

impl Layouts {
    /// Gives pools to the convolutions before them, once all roles are known; notes why not where one is near to it.
    pub(super) fn find_pooled(&mut self, graph: &Graph, uses: &Uses) {
        let windows: Vec<NodeId> = graph.order().into_iter().filter(|&id| self.role(id) == Role::Window).collect();
        for node in windows {
            match self.pooled(graph, uses, node) {
                None => {}
                Some(Ok((conv, pool))) => {
                    self.roles.insert(node, Role::Pooled);
                    self.pools.insert(conv, PoolBehind { node, pool });
                }
                Some(Err(why)) => {
                    self.why_not_pooled.insert(node, why);
                }
            }
        }
    }

    /// The convolution that computes a pool, or why it does not; `None` where there is no convolution, or a direct one and windows
    /// that none would compute.
    fn pooled(&self, graph: &Graph, uses: &Uses, id: NodeId) -> Option<Result<(NodeId, Pool), String>> {
        let group = Group::of(graph, id)?;
        let anchor = group.anchor?;
        let (pool, kernel, strides, pads, dilations) = match &group.graph.node(anchor).op {
            Op::MaxPool(p) => (Pool::Max, &p.kernel, &p.strides, &p.pads, &p.dilations),
            Op::AvgPool(p) => (Pool::Mean, &p.kernel, &p.strides, &p.pads, &p.dilations),
            _ => return None,
        };
        let x = group.operand(0)?;
        let v = group.outer(x)?;
        let all = |list: &[usize], n: usize| list.iter().all(|&k| k == n);
        let fits = all(kernel, 2) && all(strides, 2) && all(pads, 0) && all(dilations, 1);
        let kind = match self.role(v.node) {
            Role::Winograd(kind) => kind,
            Role::Conv | Role::Grouped if fits => return Some(Err("it is direct".into())),
            _ => return None,
        };
        let m = kind.outputs();
        if !fits {
            return Some(Err("its tiles are for windows of 2x2 without padding, 2 apart".into()));
        }
        if !m.is_multiple_of(2) {
            return Some(Err(format!("windows overlap its tiles of {m}x{m}")));
        }
        if uses.of(v).len() > 1 {
            return Some(Err("others read its result".into()));
        }
        if group.result != anchor.out(0) {
            return Some(Err("something is fused behind the pool".into()));
        }
        // What nobody asks for is not computed; what has a border would have to be.
        let asked = !uses.of(id.out(0)).is_empty() && self.is_borderless(v);
        asked.then_some(Ok((v.node, pool)))
    }
}
