//! Which values lie in blocks of channels: a decision over the whole graph, made before lowering.
//!
//! Leaves work on N, C/lanes, spatial..., lanes. A convolution that they can compute gives its result so, and whatever can
//! work on blocks (pools, elementwise groups, concatenations of channels) passes it on; the rest of the graph, its inputs
//! and its outputs, is plain. Where the two meet, the lowering converts.
//!
//! ```text
//! role       operand 0        other operands of the result's shape     result
//! conv       as it comes      blocked                                  blocked
//! window     blocked          blocked                                  blocked    pools, depthwise convolutions
//! map        blocked          blocked                                  blocked    elementwise, one operand of its shape blocked
//! concat     blocked          blocked                                  blocked    channels in whole blocks
//! mean       blocked          -                                        plain      over all spatial axes
//! product    plain            plain                                    plain      matrix product with constant weights
//! other      plain            plain                                    plain
//! ```
//!
//! What must hold: a value in blocks is f32 of rank 3 to 5 without zero dimensions. Its border, zeros around each plane, is
//! as wide as the widest padding among the convolutions that read it, so that these need not look where a row ends.

use crate::lower::blocked::epilogue::{Body, Operand, translate};
use crate::lower::cx::is_elementwise;
use crate::x86::{Access, Isa};
use lehr_ir::graph::{Graph, NodeId, ValueId};
use lehr_ir::ops::{Conv, ReduceFn};
use lehr_ir::{ConstValue, DType, Op};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// Zeros before and after each spatial axis.
pub type Border = Vec<(usize, usize)>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Conv,
    Window,
    Map,
    Concat,
    Mean,
    Product,
    #[default]
    Other,
}

/// The decision.
#[derive(Debug, Default)]
pub struct Layouts {
    isa: Option<Isa>,
    roles: HashMap<NodeId, Role>,
    /// Values that are produced in blocks.
    blocked: HashSet<ValueId>,
    /// Operands that are wanted in blocks.
    wants: HashSet<(NodeId, usize)>,
    borders: HashMap<ValueId, Border>,
}

/// Tensors beyond this many bytes are left alone: offsets in leaves are 32-bit.
const MAX_BYTES: usize = 1 << 30;

impl Layouts {
    pub fn isa(&self) -> Option<Isa> {
        self.isa
    }

    pub fn role(&self, id: NodeId) -> Role {
        self.roles.get(&id).copied().unwrap_or_default()
    }

    pub fn is_blocked(&self, v: ValueId) -> bool {
        self.blocked.contains(&v)
    }

    pub fn wants_blocked(&self, id: NodeId, operand: usize) -> bool {
        self.wants.contains(&(id, operand))
    }

    /// The border of a value where it lies in blocks.
    pub fn border(&self, v: ValueId, spatial: usize) -> Border {
        self.borders.get(&v).cloned().unwrap_or_else(|| vec![(0, 0); spatial])
    }

    /// The decision as text, a line per operator that leaves compute.
    pub fn describe(&self, graph: &Graph) -> String {
        let mut text = String::new();
        for id in graph.order() {
            let role = self.role(id);
            if role == Role::Other {
                continue;
            }
            let name = graph.node(id).origins.first().map_or_else(|| format!("%{}", id.0), |o| o.name.to_string());
            let lanes = self.isa.map_or(1, Isa::lanes);
            let form = |blocked: bool| if blocked { format!("blocks of {lanes}") } else { "plain".into() };
            let v = id.out(0);
            let border = self.borders.get(&v).filter(|b| self.is_blocked(v) && b.iter().any(|&p| p != (0, 0)));
            let border = border.map_or(String::new(), |b| format!(", border {b:?}"));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name}: {role:?}, {} -> {}{border}",
                form(self.wants_blocked(id, 0)),
                form(self.is_blocked(v))
            );
        }
        text
    }
}

/// An operator or fusion of the graph: what is computed, in terms of the values inside.
struct Group<'g> {
    outer: &'g Graph,
    id: NodeId,
    graph: &'g Graph,
    anchor: Option<NodeId>,
    result: ValueId,
}

impl<'g> Group<'g> {
    fn of(outer: &'g Graph, id: NodeId) -> Option<Group<'g>> {
        let node = outer.node(id);
        if !matches!(node.op, Op::Fusion(_)) {
            let anchor = (!is_elementwise(&node.op)).then_some(id);
            return Some(Group { outer, id, graph: outer, anchor, result: id.out(0) });
        }
        let graph = &node.regions[0];
        let [output] = &graph.outputs[..] else { return None };
        let mut anchors = graph.ids().filter(|&n| !graph.node(n).op.is_source() && !is_elementwise(&graph.node(n).op));
        let anchor = anchors.next();
        anchors.next().is_none().then_some(Group { outer, id, graph, anchor, result: output.value })
    }

    fn outside(&self, v: ValueId) -> bool {
        if std::ptr::eq(self.outer, self.graph) { v.node != self.id } else { self.graph.node(v.node).op.is_source() }
    }

    /// Positions among the node's operands of a value inside.
    fn operands(&self, v: ValueId) -> Vec<usize> {
        let inputs = &self.outer.node(self.id).inputs;
        let inner = |i: usize| match std::ptr::eq(self.outer, self.graph) {
            true => inputs[i],
            false => inputs[i].map(|_| self.graph.inputs()[i]),
        };
        (0..inputs.len()).filter(|&i| inner(i) == Some(v)).collect()
    }

    /// The value of the outer graph behind a value inside.
    fn outer(&self, v: ValueId) -> Option<ValueId> {
        self.operands(v).first().and_then(|&i| self.outer.node(self.id).inputs[i])
    }

    fn constant(&self, v: ValueId) -> Option<Arc<ConstValue>> {
        if let Some(c) = self.graph.constant(v) {
            return Some(c.clone());
        }
        self.outer.constant(self.outer(v)?).cloned()
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.ty(v).const_shape().unwrap_or_default()
    }

    fn operand(&self, i: usize) -> Option<ValueId> {
        self.graph.node(self.anchor?).inputs.get(i).copied().flatten()
    }

    /// f32 of rank 3 to 5 and a size that leaves can address.
    fn is_image(&self, v: ValueId) -> bool {
        let shape = self.shape(v);
        let bytes = shape.iter().product::<usize>() * 4;
        self.graph.ty(v).dtype == DType::F32 && (3..=5).contains(&shape.len()) && (1..=MAX_BYTES).contains(&bytes)
    }

    /// What the group computes from `start` on, as a program; gives its operands.
    fn epilogue(&self, start: ValueId, channel_axis: usize, padded: bool) -> Option<Vec<Operand>> {
        let body = Body {
            graph: self.graph,
            start,
            result: self.result,
            channel_axis,
            padded,
            outside: &|v| self.outside(v),
            constant: &|v| self.constant(v),
        };
        let e = translate(&body, &mut |_| Access::Same)?;
        // A value that differs by image is read as it lies: whole blocks, or the next channel's would be in the padding.
        let whole = e.operands.iter().all(|o| match o {
            Operand::Channel { value, .. } => !padded || self.constant(*value).is_some(),
            Operand::Same(_) | Operand::Splat(_) => true,
        });
        whole.then_some(e.operands)
    }
}

/// Decides for a graph whose dimensions are numbers. Without an instruction set everything is plain.
pub fn decide(graph: &Graph, isa: Option<Isa>) -> Layouts {
    let mut layouts = Layouts { isa, ..Layouts::default() };
    let Some(isa) = isa else { return layouts };
    for id in graph.order() {
        if graph.node(id).op.is_source() {
            continue;
        }
        let Some(group) = Group::of(graph, id) else { continue };
        if let Some(plan) = choose(&group, isa, &layouts) {
            layouts.roles.insert(id, plan.role);
            if plan.gives_blocks {
                layouts.blocked.insert(id.out(0));
            }
            for v in plan.blocked {
                layouts.wants.extend(group.operands(v).into_iter().map(|i| (id, i)));
            }
            if let Some((v, border)) = plan.border {
                let known = layouts.borders.entry(v).or_insert_with(|| vec![(0, 0); border.len()]);
                for (k, b) in known.iter_mut().zip(border) {
                    *k = (k.0.max(b.0), k.1.max(b.1));
                }
            }
        }
    }
    layouts
}

struct Plan {
    role: Role,
    gives_blocks: bool,
    /// Values inside that are wanted in blocks.
    blocked: Vec<ValueId>,
    /// The border that this operator needs around a value of the outer graph.
    border: Option<(ValueId, Border)>,
}

fn choose(group: &Group, isa: Isa, layouts: &Layouts) -> Option<Plan> {
    let lanes = isa.lanes();
    let blocked = |v: ValueId| group.outer(v).is_some_and(|v| layouts.is_blocked(v));
    let Some(anchor) = group.anchor else { return map(group, lanes, &blocked) };
    match &group.graph.node(anchor).op {
        Op::Conv(op) => conv(group, op, lanes, &blocked),
        _ => None,
    }
}

fn same_shaped(operands: Vec<Operand>) -> impl Iterator<Item = ValueId> {
    operands.into_iter().filter_map(|o| match o {
        Operand::Same(v) => Some(v),
        Operand::Channel { .. } | Operand::Splat(_) => None,
    })
}

fn conv(group: &Group, op: &Conv, lanes: usize, blocked: &dyn Fn(ValueId) -> bool) -> Option<Plan> {
    let (x, w) = (group.operand(0)?, group.operand(1)?);
    let y = group.anchor?.out(0);
    group.constant(w)?;
    let images = group.is_image(x) && group.is_image(y) && group.outside(x);
    let bias = group.operand(2).is_none_or(|b| group.constant(b).is_some());
    let (inputs, outputs) = (group.shape(x)[1], group.shape(y)[1]);
    let whole = op.groups == 1 || (inputs / op.groups % lanes == 0 && outputs / op.groups % lanes == 0);
    if !images || !bias || !whole {
        return None;
    }
    let operands = group.epilogue(y, 1, outputs % lanes != 0)?;
    let mut wanted: Vec<ValueId> = same_shaped(operands).collect();
    let mut border = None;
    if blocked(x) {
        wanted.push(x);
        border = Some((group.outer(x)?, pairs(&op.pads)));
    }
    Some(Plan { role: Role::Conv, gives_blocks: true, blocked: wanted, border })
}

/// Begins and ends of every axis together.
fn pairs(pads: &[usize]) -> Border {
    let n = pads.len() / 2;
    (0..n).map(|d| (pads[d], pads[n + d])).collect()
}

/// An elementwise group with an operand of the result's shape in blocks.
fn map(group: &Group, lanes: usize, blocked: &dyn Fn(ValueId) -> bool) -> Option<Plan> {
    let start = map_start(group, blocked)?;
    let padded = group.shape(group.result)[1] % lanes != 0;
    let operands = group.epilogue(start, 1, padded)?;
    // Slots of a map are vectors or streams.
    let per_image = |o: &Operand| matches!(o, Operand::Channel { per_image: true, .. });
    if group.graph.ty(group.result).dtype != DType::F32 || operands.iter().any(per_image) {
        return None;
    }
    let mut wanted: Vec<ValueId> = same_shaped(operands).collect();
    wanted.push(start);
    Some(Plan { role: Role::Map, gives_blocks: true, blocked: wanted, border: None })
}

/// The operand that a map streams.
fn map_start(group: &Group, blocked: &dyn Fn(ValueId) -> bool) -> Option<ValueId> {
    let shape = group.shape(group.result);
    let inputs = group.outer.node(group.id).inputs.iter().enumerate();
    let inner = inputs.filter_map(|(i, v)| match std::ptr::eq(group.outer, group.graph) {
        true => *v,
        false => v.map(|_| group.graph.inputs()[i]),
    });
    let mut fitting = inner.filter(|&v| group.is_image(v) && group.shape(v) == shape);
    fitting.find(|&v| blocked(v))
}

/// Whether a reduction is the mean over every spatial axis.
pub fn is_global_mean(f: ReduceFn, axes: &[usize], rank: usize) -> bool {
    f == ReduceFn::Mean && axes.iter().copied().eq(2..rank)
}
