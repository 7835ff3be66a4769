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
