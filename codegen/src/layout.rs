//! Which values lie in blocks of channels: a decision over the whole graph, made before lowering.
//!
//! Leaves work on N, C/lanes, spatial..., lanes. A convolution that they can compute gives its result so, and whatever can
//! work on blocks (pools, elementwise groups, concatenations of channels) passes it on; the rest of the graph, its inputs
//! and its outputs, is plain. Where the two meet, the lowering converts.
//!
//! ```text
//! role       operand 0        other operands of the result's shape     result
//! winograd   blocked          blocked                                  blocked    convolutions that pay
//! conv       as it comes      blocked                                  blocked
//! grouped    as it comes      blocked                                  blocked    groups that end inside blocks, loose orders
//! window     blocked          blocked                                  blocked    pools, depthwise convolutions
//! pooled     blocked          -                                        blocked    a pool that the convolution before it computes
//! map        blocked          blocked                                  blocked    elementwise, one operand of its shape blocked
//! prologue   blocked          -                                        blocked    a map that its only reader computes
//! wide       plain            plain                                    plain      elementwise, with rows long enough for vectors
//! concat     blocked          blocked                                  blocked    of channels
//! mean       blocked          -                                        plain      over all spatial axes
//! lrn        blocked          blocked                                  blocked    channels in whole blocks
//! product    plain            plain                                    plain      matrix product
//! rows       plain            plain                                    plain      softmax, normalisations
//! statistics plain            plain                                    plain      normalisations of long cells, and by batch
//! reduce     plain            plain                                    plain      reductions over any axes
//! positions  plain            -                                        plain      of extremes along an axis
//! other      plain            plain                                    plain
//! ```
//!
//! A value in blocks has an [`Order`] of channels. A result takes that of the first operand of its shape, of a window that of its
//! input; a convolution without such an operand gives its channels in order. Shuffles and slices of channels ([`alias`]) are the
//! same memory in another order.
//!
//! What must hold: a value in blocks is f32 of rank 3 to 5 without zero dimensions. Its border, zeros around each plane, is
//! as wide as the widest padding among the convolutions that read it, so that these need not look where a row ends.

mod alias;
mod pooled;
mod prologue;
mod roles;

pub use pooled::PoolBehind;
use roles::{choose, same_shaped};

use crate::lower::LowerOptions;
use crate::lower::blocked::epilogue::{Body, Operand, translate};
use crate::lower::cx::{is_elementwise, shape_of};
use crate::lower::order::Order;
use crate::machine::Machine;
use crate::strategy::{Tuned, Weighed};
use crate::x86::{Access, Isa, Pool, Winograd};
use lehr_ir::graph::{Graph, NodeId, ValueId};
use lehr_ir::{ConstValue, DType, Op};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Zeros before and after each spatial axis.
pub type Border = Vec<(usize, usize)>;

/// What a leaf does for an operator or fusion, see the table above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Conv,
    /// A convolution by Winograd's algorithm.
    Winograd(Winograd),
    /// A convolution through tables of its input channels.
    Grouped,
    Window,
    /// A pool that the convolution before it computes, whose own value is nowhere.
    Pooled,
    Map,
    /// A map that the convolution which reads it computes; its value is nowhere.
    Prologue,
    /// An elementwise group on plain values.
    Wide,
    Concat,
    Mean,
    Lrn,
    Product,
    Rows,
    /// A normalisation by statistics of long cells, or of cells in several runs.
    Statistics,
    /// A reduction over any axes.
    Reduce,
    /// Positions of extremes along an axis.
    Positions,
    #[default]
    Other,
}

/// The decision.
#[derive(Debug, Default)]
pub struct Layouts {
    isa: Option<Isa>,
    winograd: bool,
    machine: Machine,
    tuned: Arc<Tuned>,
    roles: HashMap<NodeId, Role>,
    /// Values that are produced in blocks.
    blocked: HashSet<ValueId>,
    /// Their orders of channels, where they are not plain.
    orders: HashMap<ValueId, Order>,
    /// Operands that are wanted in blocks, and their order.
    wants: HashMap<(NodeId, usize), Order>,
    borders: HashMap<ValueId, Border>,
    weighed: HashMap<NodeId, Vec<Weighed>>,
    /// Values that are produced inside the concatenation they go into, and their first block in it.
    placed: HashMap<ValueId, (ValueId, usize)>,
    /// Values that are channels of another one, and their first block there.
    aliases: HashMap<ValueId, (ValueId, usize)>,
    /// Operators that an alias stands for, but for its own.
    absorbed: HashSet<NodeId>,
    /// The pools that convolutions compute.
    pools: HashMap<NodeId, PoolBehind>,
    /// Why the convolutions before them do not compute other pools.
    why_not_pooled: HashMap<NodeId, String>,
}

/// A concatenation may leave as many slots empty as it fills, not more.
const MAX_SLOTS_PER_CHANNEL: usize = 2;
/// Wider padding, or longer strides and dilations than the tensor itself with it, are left alone.
const MAX_PAD: usize = 32;
/// Images and matrices beyond this many bytes are left alone: offsets in leaves are 32-bit.
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

    /// The order of channels that an operand is wanted in; `None` if it is wanted row-major.
    pub fn wants_blocked(&self, id: NodeId, operand: usize) -> Option<&Order> {
        self.wants.get(&(id, operand))
    }

    /// How the channels of a value lie where it is in blocks.
    pub fn order(&self, graph: &Graph, v: ValueId) -> Order {
        let lanes = self.isa.map_or(1, Isa::lanes);
        self.orders.get(&v).cloned().unwrap_or_else(|| Order::plain(shape_of(graph, v)[1], lanes))
    }

    /// The value whose channels these are, by other numbers, and the first block of them.
    pub fn alias(&self, v: ValueId) -> Option<(ValueId, usize)> {
        self.aliases.get(&v).copied()
    }

    /// Whether an operator is part of an alias, so that nobody wants its result.
    pub fn is_absorbed(&self, id: NodeId) -> bool {
        self.absorbed.contains(&id)
    }

    /// The pool that a convolution computes.
    pub fn pool_behind(&self, conv: NodeId) -> Option<PoolBehind> {
        self.pools.get(&conv).copied()
    }

    /// The concatenation that a value is produced in, and its first block there.
    pub fn placed(&self, v: ValueId) -> Option<(ValueId, usize)> {
        self.placed.get(&v).copied()
    }

    /// The value or concatenation that a value lies in in the end: itself if there is none.
    fn root(&self, v: ValueId) -> ValueId {
        let outer = self.aliases.get(&v).or_else(|| self.placed.get(&v));
        outer.map_or(v, |(whole, _)| self.root(*whole))
    }

    /// The border of a value where it lies in blocks.
    pub fn border(&self, v: ValueId, spatial: usize) -> Border {
        self.borders.get(&self.root(v)).cloned().unwrap_or_else(|| vec![(0, 0); spatial])
    }

    /// The decision as text, a line per operator that leaves compute.
    pub fn describe(&self, graph: &Graph) -> String {
        let line = |id: NodeId| {
            let name = graph.node(id).origins.first().map_or_else(|| format!("%{}", id.0), |o| o.name.to_string());
            self.describe_node(id).map(|text| format!("{name}: {text}\n"))
        };
        graph.order().into_iter().filter_map(line).collect()
    }

    /// Whether convolutions may be computed by Winograd's algorithm.
    pub fn may_use_winograd(&self) -> bool {
        self.winograd
    }

    /// The algorithms that were weighed for a convolution, also those that may not be used, each as the cost model would cut it, the cheapest
    /// first; none where there was no choice.
    pub fn weighed(&self, id: NodeId) -> &[Weighed] {
        self.weighed.get(&id).map_or(&[], |w| w)
    }

    /// The decision for one operator as text, `convolution, plain -> blocks of 16, border (1,1) x (1,1)`; `None` for plain loops.
    pub fn describe_node(&self, id: NodeId) -> Option<String> {
        if self.is_absorbed(id) {
            return Some("part of a shuffle".into());
        }
        if self.aliases.contains_key(&id.out(0)) {
            return Some("its operand's memory by other channels".into());
        }
        let role = match self.role(id) {
            Role::Conv => "convolution",
            Role::Winograd(kind) => &format!("convolution by Winograd {}", kind.name()),
            Role::Grouped => "convolution of gathered channels",
            Role::Window | Role::Pooled => "window",
            Role::Map => "map",
            Role::Prologue => "map, computed by the convolution that reads it",
            Role::Wide => "wide map",
            Role::Concat => "concatenation",
            Role::Mean => "mean",
            Role::Lrn => "local response normalisation",
            Role::Product => "product",
            Role::Rows => "rows",
            Role::Statistics => "statistics and a map",
            Role::Reduce => "reduction",
            Role::Positions => "positions of extremes",
            Role::Other => return None,
        };
        let lanes = self.isa.map_or(1, Isa::lanes);
        let form = |blocked: bool| if blocked { format!("blocks of {lanes}") } else { "plain".into() };
        let v = id.out(0);
        let mut text = format!("{role}, {} -> {}", form(self.wants_blocked(id, 0).is_some()), form(self.is_blocked(v)));
        if let Some(border) = self.borders.get(&v).filter(|b| self.is_blocked(v) && b.iter().any(|&p| p != (0, 0))) {
            let sides: Vec<String> = border.iter().map(|(before, after)| format!("({before},{after})")).collect();
            text += &format!(", border {}", sides.join(" x "));
        }
        if let Some(order) = self.orders.get(&v).and_then(Order::describe) {
            text += &format!(", {order}");
        }
        if self.placed.contains_key(&v) {
            text += ", written into its concatenation";
        }
        if self.role(id) == Role::Pooled {
            text += ", computed by the convolution before it";
        }
        if let Some(why) = self.why_not_pooled.get(&id) {
            text += &format!(", not by the convolution before it: {why}");
        }
        match self.pool_behind(id).map(|p| p.pool) {
            Some(Pool::Max) => text += ", with the max pool behind it",
            Some(Pool::Mean) => text += ", with the average pool behind it",
            None => {}
        }
        Some(text)
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

    /// The values inside that stand for the node's operands.
    fn outside_values(&self) -> Vec<Option<ValueId>> {
        let operands = self.outer.node(self.id).inputs.iter().enumerate();
        let inside = operands.map(|(i, v)| match std::ptr::eq(self.outer, self.graph) {
            true => *v,
            false => v.map(|_| self.graph.inputs()[i]),
        });
        inside.collect()
    }

    /// Positions among the node's operands of a value inside.
    fn operands(&self, v: ValueId) -> Vec<usize> {
        self.outside_values().into_iter().enumerate().filter(|(_, inside)| *inside == Some(v)).map(|(i, _)| i).collect()
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

    fn is_blocked(&self, v: ValueId, layouts: &Layouts) -> bool {
        self.outer(v).is_some_and(|v| layouts.is_blocked(v))
    }

    /// The order of a value's channels as it is made, or as it will be put into blocks.
    fn order(&self, v: ValueId, layouts: &Layouts) -> Order {
        let lanes = layouts.isa.map_or(1, Isa::lanes);
        self.outer(v).map_or_else(|| Order::plain(self.shape(v)[1], lanes), |v| layouts.order(self.outer, v))
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.ty(v).const_shape().unwrap_or_default()
    }

    fn operand(&self, i: usize) -> Option<ValueId> {
        self.graph.node(self.anchor?).inputs.get(i).copied().flatten()
    }

    /// f32 of rank 3 to 5 and a size that leaves can address, in blocks with the widest border too.
    fn is_image(&self, v: ValueId) -> bool {
        let shape = self.shape(v);
        if self.graph.ty(v).dtype != DType::F32 || !(3..=5).contains(&shape.len()) || shape.contains(&0) {
            return false;
        }
        // Images are stepped over by kernels, whose addresses have 64 bits.
        let blocks = shape[1].next_multiple_of(Isa::Avx512.lanes());
        let bordered = shape[2..].iter().map(|n| n.saturating_add(2 * MAX_PAD));
        bordered.fold(4 * blocks, usize::saturating_mul) <= MAX_BYTES
    }

    /// What the group computes from `start` on, in blocks of an order that its operands decide: that of `x`, if it is one of them,
    /// else of the first. Gives the operands of the result's shape, and the order.
    fn in_blocks(&self, start: ValueId, x: ValueId, layouts: &Layouts) -> Option<(Vec<ValueId>, Order)> {
        let plain = Order::plain(*self.shape(self.result).get(1)?, layouts.isa?.lanes());
        let operands: Vec<ValueId> = same_shaped(self.epilogue(start, 1, !plain.is_whole())?).collect();
        let own = |v: ValueId| self.outer(v).filter(|v| layouts.is_blocked(*v)).map(|v| layouts.order(self.outer, v));
        let first = if operands.contains(&x) { own(x) } else { operands.iter().find_map(|&v| own(v)) };
        let order = first.unwrap_or(plain);
        if !order.is_whole() {
            self.epilogue(start, 1, true)?;
        }
        Some((operands, order))
    }

    /// What the group computes from `start` on, as a program; gives its operands.
    fn epilogue(&self, start: ValueId, channel_axis: impl Into<Option<usize>>, padded: bool) -> Option<Vec<Operand>> {
        let body = Body {
            graph: self.graph,
            start,
            divisor: None,
            result: self.result,
            channel_axis: channel_axis.into(),
            padded,
            outside: &|v| self.outside(v),
            constant: &|v| self.constant(v),
        };
        let e = translate(&body, &mut |_| Access::Same)?;
        // A value that differs by image is read as it lies: whole blocks, or the next channel's would be in the padding.
        let whole = e.operands.iter().all(|o| match o {
            Operand::Channel { value, .. } => !padded || self.constant(*value).is_some(),
            Operand::Same(_) | Operand::Splat(_) | Operand::Spread(_) | Operand::Occupied => true,
        });
        whole.then_some(e.operands)
    }
}

/// Decides for a graph whose dimensions are numbers. Without an instruction set everything is plain.
pub fn decide(graph: &Graph, options: &LowerOptions) -> Layouts {
    let mut layouts = Layouts {
        isa: options.leaves,
        winograd: options.winograd,
        machine: options.machine,
        tuned: options.tuned.clone(),
        ..Layouts::default()
    };
    if options.leaves.is_none() {
        return layouts;
    }
    let uses = graph.uses();
    for id in graph.order() {
        if graph.node(id).op.is_source() || layouts.is_absorbed(id) || layouts.rename(graph, &uses, id) {
            continue;
        }
        let Some(group) = Group::of(graph, id) else { continue };
        if let Some(plan) = choose(&group, &layouts) {
            layouts.roles.insert(id, plan.role);
            if let Some(order) = plan.gives_blocks {
                layouts.blocked.insert(id.out(0));
                if !order.is_plain() {
                    layouts.orders.insert(id.out(0), order);
                }
            }
            for (v, order) in plan.blocked {
                layouts.wants.extend(group.operands(v).into_iter().map(|i| ((id, i), order.clone())));
            }
            if let Some((v, border)) = plan.border {
                layouts.widen(v, &border);
            }
            if !plan.weighed.is_empty() {
                layouts.weighed.insert(id, plan.weighed);
            }
            if plan.role == Role::Concat {
                layouts.place_operands(graph, id);
            }
        }
    }
    // What lies in a concatenation has the concatenation's border.
    let own: Vec<(ValueId, Border)> = layouts.borders.iter().map(|(v, b)| (*v, b.clone())).collect();
    for (v, border) in own {
        layouts.widen(layouts.root(v), &border);
    }
    layouts.find_prologues(graph, &uses);
    layouts.find_pooled(graph, &uses);
    layouts
}

impl Layouts {
    /// Makes the border of a value at least so wide.
    fn widen(&mut self, v: ValueId, border: &[(usize, usize)]) {
        let known = self.borders.entry(v).or_insert_with(|| vec![(0, 0); border.len()]);
        for (k, b) in known.iter_mut().zip(border) {
            *k = (k.0.max(b.0), k.1.max(b.1));
        }
    }

    /// Operands that are produced in blocks and lie nowhere else yet are produced in their place.
    fn place_operands(&mut self, graph: &Graph, concat: NodeId) {
        let mut first = 0;
        for &v in graph.node(concat).inputs.iter().flatten() {
            let elsewhere = self.placed.contains_key(&v) || self.aliases.contains_key(&v);
            if self.is_blocked(v) && !elsewhere {
                self.placed.insert(v, (concat.out(0), first));
            }
            first += self.order(graph, v).blocks();
        }
    }
}
