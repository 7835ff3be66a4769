//! Maps that the convolution which reads them computes on its way: a batch normalisation and a ReLU before a 1x1 convolution
//! (DenseNet), which weights cannot take. What a chunk of pixels becomes lies in scratch of the thread, so that it neither goes to
//! memory nor to another core.

use super::roles::map_start;
use super::{Group, Layouts, Role, same_shaped};
use crate::lower::blocked::direct;
use lehr_ir::Op;
use lehr_ir::graph::{Graph, NodeId, Uses, ValueId};

impl Layouts {
    /// Makes prologues of maps, once all roles are known.
    pub(super) fn find_prologues(&mut self, graph: &Graph, uses: &Uses) {
        let convs: Vec<NodeId> = graph.order().into_iter().filter(|&id| self.role(id) == Role::Conv).collect();
        for id in convs {
            if let Some(map) = self.prologue_of(graph, uses, id) {
                self.roles.insert(map, Role::Prologue);
            }
        }
    }

    fn prologue_of(&self, graph: &Graph, uses: &Uses, id: NodeId) -> Option<NodeId> {
        let group = Group::of(graph, id)?;
        let Op::Conv(op) = &group.graph.node(group.anchor?).op else { return None };
        let (inner, w) = (group.operand(0)?, group.shape(group.operand(1)?));
        let shape = group.shape(inner);
        let pointwise = w[2..].iter().all(|&k| k == 1) && op.strides.iter().all(|&s| s == 1);
        if !pointwise || op.groups != 1 || op.pads.iter().any(|&p| p != 0) {
            return None;
        }
        // Nobody else has a use for the map's result, and somebody for the convolution's; so it has no border either.
        let v = group.outer(inner)?;
        let read_once = uses.of(v).len() == 1 && group.operands(inner) == [0] && !uses.of(id.out(0)).is_empty();
        let order = self.order(graph, v);
        let own = !self.placed.contains_key(&v) && self.wants_blocked(id, 0) == Some(&order);
        if self.role(v.node) != Role::Map || !read_once || !own {
            return None;
        }
        // What is fused behind may read it once more: x + conv(x).
        let inside = group.graph.ids().flat_map(|m| group.graph.node(m).inputs.iter().flatten());
        if inside.filter(|&&read| read == inner).count() != 1 {
            return None;
        }
        let (images, plane) = (shape[0], shape[2..].iter().product());
        let blocks = [order.blocks(), self.order(graph, id.out(0)).blocks()];
        if !direct::Shape::pointwise(self.isa?, images, plane, blocks).takes_prologue(&self.machine) {
            return None;
        }
        // Of the map's operands, only the one it streams has the result's shape, and is there in the same order.
        let map = Group::of(graph, v.node)?;
        let start = map_start(&map, self)?;
        let alone = same_shaped(map.epilogue(start, 1, !order.is_whole())?).next().is_none();
        let from = map.outer(start)?;
        (alone && self.is_borderless(from) && self.order(graph, from) == order).then_some(v.node)
    }

    pub(super) fn is_borderless(&self, v: ValueId) -> bool {
        self.borders.get(&self.root(v)).is_none_or(|border| border.iter().all(|&side| side == (0, 0)))
    }
}
