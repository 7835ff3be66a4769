//! petgraph's visit traits on a borrowed view of a [`Graph`], so that its algorithms (toposort, dominators, kosaraju_scc)
//! run on ours. Edges lead from operand to user, one per operand, in operand order. A view is a snapshot.
//!
//! Use `kosaraju_scc`, not `tarjan_scc`: the latter recurses and overflows the stack on deep graphs.

use crate::graph::{Graph, NodeId};
use petgraph::Direction;
use petgraph::visit::{
    GraphBase, GraphProp, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCount, NodeIndexable,
    VisitMap, Visitable,
};

/// Adjacency of a graph's live nodes. Operands that lead nowhere are left out.
pub struct View<'g> {
    graph: &'g Graph,
    ids: Vec<NodeId>,
    operands: Vec<Vec<NodeId>>,
    users: Vec<Vec<NodeId>>,
}

impl<'g> View<'g> {
    pub fn new(graph: &'g Graph) -> View<'g> {
        let ids: Vec<NodeId> = graph.ids().collect();
        let mut operands = vec![vec![]; graph.id_bound()];
        let mut users = vec![vec![]; graph.id_bound()];
        for &id in &ids {
            for v in graph.node(id).inputs.iter().flatten().filter(|v| graph.try_node(v.node).is_some()) {
                operands[id.index()].push(v.node);
                users[v.node.index()].push(id);
            }
        }
        View { graph, ids, operands, users }
    }

    pub fn graph(&self) -> &'g Graph {
        self.graph
    }
}

/// The nodes an algorithm has seen.
#[derive(Clone, Debug, Default)]
pub struct Visited(Vec<bool>);

impl VisitMap<NodeId> for Visited {
    fn visit(&mut self, id: NodeId) -> bool {
        !std::mem::replace(&mut self.0[id.index()], true)
    }

    fn is_visited(&self, id: &NodeId) -> bool {
        self.0[id.index()]
    }

    fn unvisit(&mut self, id: NodeId) -> bool {
        std::mem::replace(&mut self.0[id.index()], false)
    }
}

impl GraphBase for View<'_> {
    type NodeId = NodeId;
    type EdgeId = (NodeId, NodeId);
}

impl GraphProp for View<'_> {
    type EdgeType = petgraph::Directed;
}

impl NodeCount for View<'_> {
    fn node_count(&self) -> usize {
        self.ids.len()
    }
}

impl NodeIndexable for View<'_> {
    fn node_bound(&self) -> usize {
        self.graph.id_bound()
    }

    fn to_index(&self, id: NodeId) -> usize {
        id.index()
    }

    fn from_index(&self, i: usize) -> NodeId {
        NodeId(u32::try_from(i).expect("an index that to_index gave"))
    }
}

impl Visitable for View<'_> {
    type Map = Visited;

    fn visit_map(&self) -> Visited {
        Visited(vec![false; self.graph.id_bound()])
    }

    fn reset_map(&self, map: &mut Visited) {
        *map = self.visit_map();
    }
}

impl<'v> IntoNodeIdentifiers for &'v View<'_> {
    type NodeIdentifiers = std::iter::Copied<std::slice::Iter<'v, NodeId>>;

    fn node_identifiers(self) -> Self::NodeIdentifiers {
        self.ids.iter().copied()
    }
}

impl<'v> IntoNeighbors for &'v View<'_> {
    type Neighbors = std::iter::Copied<std::slice::Iter<'v, NodeId>>;

    fn neighbors(self, id: NodeId) -> Self::Neighbors {
        self.users[id.index()].iter().copied()
    }
}

impl<'v> IntoNeighborsDirected for &'v View<'_> {
    type NeighborsDirected = std::iter::Copied<std::slice::Iter<'v, NodeId>>;

    fn neighbors_directed(self, id: NodeId, direction: Direction) -> Self::NeighborsDirected {
        match direction {
            Direction::Outgoing => self.users[id.index()].iter().copied(),
            Direction::Incoming => self.operands[id.index()].iter().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::{Binary, BinaryFn, Unary, UnaryFn};
    use crate::types::TensorType;
    use petgraph::algo::{dominators::simple_fast, kosaraju_scc, toposort};

    /// x -> relu -> (neg, abs) -> add, and what leads back when `cyclic`.
    fn diamond(cyclic: bool) -> (Graph, [NodeId; 5]) {
        let mut g = Graph::new("diamond");
        let x = g.add_input("x", TensorType::new(DType::F32, [2]));
        let relu = g.add1(Unary { f: UnaryFn::Relu }, &[x], vec![]).unwrap();
        let neg = g.add1(Unary { f: UnaryFn::Neg }, &[relu], vec![]).unwrap();
        let abs = g.add1(Unary { f: UnaryFn::Abs }, &[relu], vec![]).unwrap();
        let add = g.add1(Binary { f: BinaryFn::Add }, &[neg, abs], vec![]).unwrap();
        if cyclic {
            g.node_mut(relu.node).inputs[0] = Some(add);
        }
        g.add_output("y", add);
        (g, [x, relu, neg, abs, add].map(|v| v.node))
    }

    #[test]
    fn petgraph_sorts_and_dominates() {
        let (g, [x, relu, neg, _, add]) = diamond(false);
        let view = View::new(&g);
        let order = toposort(&view, None).unwrap();
        let at = |id| order.iter().position(|&n| n == id).unwrap();
        assert!(at(x) < at(relu) && at(relu) < at(neg) && at(neg) < at(add));
        let dominators = simple_fast(&view, x);
        assert_eq!(dominators.immediate_dominator(add), Some(relu));
        assert_eq!(kosaraju_scc(&view).len(), 5);
        assert_eq!((view.node_count(), view.node_bound()), (5, 5));
    }

    #[test]
    fn petgraph_finds_the_cycle() {
        let (g, [_, relu, ..]) = diamond(true);
        let view = View::new(&g);
        assert!(toposort(&view, None).is_err());
        let cycle = kosaraju_scc(&view).into_iter().find(|scc| scc.len() > 1).unwrap();
        assert!(cycle.len() == 4 && cycle.contains(&relu));
    }

    #[test]
    fn a_deep_chain_does_not_overflow_the_stack() {
        let mut g = Graph::new("deep");
        let mut v = g.add_input("x", TensorType::new(DType::F32, [2]));
        for _ in 0..100_000 {
            v = g.add1(Unary { f: UnaryFn::Relu }, &[v], vec![]).unwrap();
        }
        g.add_output("y", v);
        assert_eq!(kosaraju_scc(&View::new(&g)).len(), 100_001);
        assert!(crate::verify(&g).is_empty());
    }
}
