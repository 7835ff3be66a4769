//! Concatenations without copies, for GPUs: an operand is computed where the result has it.
//!
//! Needs: the operand comes from an operator that stores through strides, is no output of the graph, and goes into one place.
//! CPUs place channels in blocks instead ([`blocked`](super::blocked)).

use super::view::{Layout, View};
use super::{Lowering, is_elementwise};
use lehr_ir::Op;
use lehr_ir::graph::{Graph, NodeId, Uses, ValueId};
use lehr_ir::ops::Concat;
use std::collections::{HashMap, HashSet};

/// Where a value lies in a concatenation.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    result: ValueId,
    axis: usize,
    /// The first coordinate along the axis.
    first: usize,
}

/// The values that are computed in place, by the concatenation that they go into first.
pub fn placements(graph: &Graph, uses: &Uses) -> HashMap<ValueId, Placement> {
    let outputs: HashSet<ValueId> = graph.outputs.iter().map(|o| o.value).collect();
    let mut found = HashMap::new();
    for id in graph.order() {
        let Op::Concat(op) = &graph.node(id).op else { continue };
        if uses.of(id.out(0)).is_empty() || super::shape_of(graph, id.out(0)).contains(&0) {
            continue;
        }
        let mut first = 0;
        for &v in graph.node(id).inputs.iter().flatten() {
            let placement = Placement { result: id.out(0), axis: op.axis, first };
            first += super::shape_of(graph, v)[op.axis];
            if v.port == 0 && !outputs.contains(&v) && stores_by_strides(graph, v.node) {
                found.entry(v).or_insert(placement);
            }
        }
    }
    found
}

/// Whether the operator asks its result's view where each element goes.
fn stores_by_strides(graph: &Graph, id: NodeId) -> bool {
    let alone = |op: &Op| match op {
        Op::Conv(_) | Op::MaxPool(_) | Op::AvgPool(_) | Op::Concat(_) => true,
        // A view of its operand.
        Op::Identity(_) => false,
        op => is_elementwise(op),
    };
    let node = graph.node(id);
    match &node.op {
        Op::Fusion(_) => {
            let region = &node.regions[0];
            region.ids().map(|n| &region.node(n).op).all(|op| op.is_source() || is_elementwise(op) || alone(op))
        }
        op => alone(op),
    }
}

/// The part of a concatenation that begins at `first` and has `shape`.
pub fn part(of: &View, axis: usize, first: usize, shape: Vec<usize>) -> View {
    let Layout::Strided { strides, offset } = &of.layout else { unreachable!("values lie plain for GPUs") };
    let layout = Layout::Strided { strides: strides.clone(), offset: offset + first as i64 * strides[axis] };
    View { buf: of.buf, dtype: of.dtype, shape, layout }
}

impl Lowering {
    /// Room for a value that lies row-major: in the concatenations that it goes into, or a buffer of its own.
    pub(super) fn room(&mut self, graph: &Graph, v: ValueId) -> View {
        // From the value outwards, until one has room; a loop, for chains may be long.
        let mut chain = vec![v];
        while let Some(p) = self.placements.get(chain.last().expect("never empty"))
            && !self.reserved.contains_key(chain.last().expect("never empty"))
        {
            chain.push(p.result);
        }
        let mut view: Option<View> = None;
        while let Some(v) = chain.pop() {
            let here = match (self.reserved.get(&v), &view) {
                (Some(known), _) => known.clone(),
                (None, Some(outer)) => {
                    let p = self.placements[&v];
                    part(outer, p.axis, p.first, super::shape_of(graph, v))
                }
                (None, None) => {
                    let (dtype, shape) = (graph.ty(v).dtype, super::shape_of(graph, v));
                    let name = graph.value_name(v).map(str::to_string);
                    View::dense(self.new_buffer(dtype, shape.iter().product(), name), dtype, shape)
                }
            };
            if matches!(graph.node(v.node).op, Op::Concat(_)) && self.gpu.is_some() {
                self.reserved.insert(v, here.clone());
            }
            view = Some(here);
        }
        view.expect("the chain has the value itself")
    }
}

/// Whether operand `i`, which begins at `first`, is in its place already.
pub fn is_placed(cx: &mut super::cx::NodeCx, op: &Concat, i: usize, first: usize) -> bool {
    let Some(result) = cx.out_view(0).filter(|_| cx.low.gpu.is_some()) else { return false };
    let wanted = part(&result, op.axis, first, cx.in_shape(i));
    cx.constant(i).is_none() && cx.view(i) == Some(wanted)
}
