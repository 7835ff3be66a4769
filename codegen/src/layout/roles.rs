//! Which role an operator or fusion has: what must hold for a leaf to compute it, and the layouts that this asks for.

use super::{Border, Group, Layouts, MAX_BYTES, MAX_PAD, MAX_SLOTS_PER_CHANNEL, Role};
use crate::lower::blocked::epilogue::Operand;
use crate::lower::blocked::gather;
use crate::lower::blocked::mean::MAX_SUM;
use crate::lower::blocked::positions;
use crate::lower::blocked::product::Sizes;
use crate::lower::blocked::reduce::stages;
use crate::lower::blocked::rows::{by_channel, extent, form, parameters as parameters_of};
use crate::lower::blocked::statistics::Geometry;
use crate::lower::blocked::wide::{long_enough, streamed};
use crate::lower::blocked::window::{Axis, MAX_CLASSES, Run, axes, runs};
use crate::lower::blocked::winograd;
use crate::lower::order::Order;
use crate::strategy::{Strategy, Weighed, signature};
use crate::x86::{MAX_LRN_REACH, MAX_OPERANDS};
use lehr_ir::graph::ValueId;
use lehr_ir::ops::{ArgReduce, AvgPool, Conv, Lrn, Reduce, ReduceFn};
use lehr_ir::{DType, Op};

/// What a role asks for and gives.
pub(super) struct Plan {
    pub role: Role,
    /// The order of the result's channels, if it is in blocks.
    pub gives_blocks: Option<Order>,
    /// Values inside that are wanted in blocks.
    pub blocked: Vec<(ValueId, Order)>,
    /// The border that this operator needs around a value of the outer graph.
    pub border: Option<(ValueId, Border)>,
    /// What was weighed, the cheapest first.
    pub weighed: Vec<Weighed>,
}

pub(super) fn choose(group: &Group, layouts: &Layouts) -> Option<Plan> {
    let Some(anchor) = group.anchor else { return map(group, layouts).or_else(|| wide(group)) };
    let op = &group.graph.node(anchor).op;
    match op {
        Op::Conv(c) if c.groups > 1 && is_depthwise(group, c) => window(group, op, layouts),
        Op::Conv(c) => conv(group, c, layouts),
        Op::AvgPool(p) => window(group, op, layouts).or_else(|| mean_by_pool(group, p, layouts)),
        Op::MaxPool(_) => window(group, op, layouts),
        Op::Concat(c) => concat(group, c.axis, layouts),
        Op::Reduce(r) => mean(group, r, layouts).or_else(|| reduction(group, r, layouts)),
        Op::ArgReduce(r) => positions_of(group, r, layouts),
        Op::Lrn(l) => lrn(group, l, layouts),
        Op::Gemm(_) | Op::MatMul(_) => product(group, op),
        Op::Softmax(_) | Op::LogSoftmax(_) | Op::LayerNorm(_) => rows(group, op, layouts),
        Op::InstanceNorm(_) | Op::GroupNorm(_) | Op::BatchNormTrain(_) => by_statistics(group, op, layouts),
        _ => None,
    }
}

fn is_depthwise(group: &Group, op: &Conv) -> bool {
    let shape = |i: usize| group.operand(i).map(|v| group.shape(v)).unwrap_or_default();
    let (x, w) = (shape(0), shape(1));
    x.get(1) == Some(&op.groups) && w.first() == Some(&op.groups) && w.get(1) == Some(&1)
}

/// Whether the attributes of a window over `x`, its spatial sizes, keep every address near the tensor.
fn is_local(x: &[usize], strides: &[usize], pads: &[usize], dilations: &[usize]) -> bool {
    let near = |(&n, &step): (&usize, &usize)| step <= n + 2 * MAX_PAD;
    pads.iter().all(|&p| p <= MAX_PAD) && x.iter().zip(strides).all(near) && x.iter().zip(dilations).all(near)
}

pub(super) fn same_shaped(operands: Vec<Operand>) -> impl Iterator<Item = ValueId> {
    operands.into_iter().filter_map(|o| match o {
        Operand::Same(v) => Some(v),
        Operand::Channel { .. } | Operand::Splat(_) | Operand::Spread(_) | Operand::Occupied => None,
    })
}

fn conv(group: &Group, op: &Conv, layouts: &Layouts) -> Option<Plan> {
    let isa = layouts.isa?;
    let (x, w) = (group.operand(0)?, group.operand(1)?);
    let y = group.anchor?.out(0);
    group.constant(w)?;
    let images = group.is_image(x) && group.is_image(y) && group.outside(x);
    let bias = group.operand(2).is_none_or(|b| group.constant(b).is_some());
    let local = is_local(&group.shape(x)[2..], &op.strides, &op.pads, &op.dilations);
    if !images || !local || !bias {
        return None;
    }
    let (wanted, order) = group.in_blocks(y, x, layouts)?;
    let lanes = isa.lanes();
    let from = group.order(x, layouts);
    let in_groups = [group.shape(x)[1], group.shape(y)[1]].iter().all(|c| (c / op.groups).is_multiple_of(lanes));
    let in_order = from.is_plain() && order.is_plain();
    let mut role = match op.groups {
        1 if from.is_loose() => Role::Grouped,
        1 => Role::Conv,
        _ if in_groups && in_order => Role::Conv,
        _ => Role::Grouped,
    };
    if role == Role::Grouped && !gather::fits(&order, op.groups, isa) {
        return None;
    }
    let mut border = None;
    let mut wanted: Vec<(ValueId, Order)> = wanted.into_iter().map(|v| (v, order.clone())).collect();
    // A residual that is x itself brings x in blocks, whatever form it was made in.
    let plain = !group.is_blocked(x, layouts) && !wanted.iter().any(|(v, _)| *v == x);
    let (sizes, weights, to) = (group.shape(x), group.shape(w), group.shape(y));
    let may = in_order && !plain;
    let weighed = if may { winograd::algorithms(op, &weights, &to, isa, &layouts.machine) } else { vec![] };
    let tuned = layouts.tuned.get(&signature(op, &sizes, &weights, isa, &[])).map(Strategy::algorithm);
    let tuned = tuned.filter(|a| weighed.iter().any(|w| w.strategy.algorithm() == *a));
    let kind = tuned.or_else(|| weighed.first().map(|w| w.strategy.algorithm())).flatten();
    let kind = kind.filter(|_| layouts.winograd);
    if let Some(kind) = kind {
        role = Role::Winograd(kind);
    }
    if !plain {
        wanted.push((x, from));
        let mut own = pairs(&op.pads);
        if let Some(kind) = kind {
            // Tiles at the end of an axis reach beyond the padding.
            let shape = winograd::Shape::of(op, &weights, lanes)?;
            for (d, b) in own.iter_mut().enumerate() {
                b.1 = b.1.max(shape.reach(kind, sizes[2 + d], to[2 + d], b.0));
            }
        }
        border = Some((group.outer(x)?, own));
    }
    Some(Plan { role, gives_blocks: Some(order), blocked: wanted, border, weighed })
}

/// Begins and ends of every axis together.
fn pairs(pads: &[usize]) -> Border {
    let n = pads.len() / 2;
    (0..n).map(|d| (pads[d], pads[n + d])).collect()
}

/// An elementwise group with an operand of the result's shape in blocks.
fn map(group: &Group, layouts: &Layouts) -> Option<Plan> {
    let start = map_start(group, layouts)?;
    let order = group.order(start, layouts);
    let operands = group.epilogue(start, 1, !order.is_whole())?;
    // Slots of a map are vectors or streams.
    let per_image = |o: &Operand| matches!(o, Operand::Channel { per_image: true, .. });
    if group.graph.ty(group.result).dtype != DType::F32 || operands.iter().any(per_image) {
        return None;
    }
    let wanted = same_shaped(operands).chain([start]);
    let blocked = wanted.map(|v| (v, order.clone())).collect();
    Some(Plan { role: Role::Map, gives_blocks: Some(order), blocked, border: None, weighed: vec![] })
}

/// An elementwise group on plain values, where operands step through the last axes as the result does, or stay, far enough.
fn wide(group: &Group) -> Option<Plan> {
    let shape = group.shape(group.result);
    let bytes = shape.iter().fold(4usize, |n, &d| n.saturating_mul(d));
    let one_result = group.outer.node(group.id).results.len() == 1;
    if group.graph.ty(group.result).dtype != DType::F32 || !(1..=MAX_BYTES).contains(&bytes) || !one_result {
        return None;
    }
    let start = streamed(group.graph, group.outside_values().into_iter().flatten(), group.result)?;
    let operands = group.epilogue(start, None, false)?;
    let shapes: Vec<Vec<usize>> = operands.iter().filter_map(|o| o.value()).map(|v| group.shape(v)).collect();
    long_enough(&shape, &shapes).then_some(Plan {
        role: Role::Wide,
        gives_blocks: None,
        blocked: vec![],
        border: None,
        weighed: vec![],
    })
}

/// The operand that a map streams.
pub(super) fn map_start(group: &Group, layouts: &Layouts) -> Option<ValueId> {
    let shape = group.shape(group.result);
    let outside = group.outside_values().into_iter().flatten();
    let mut fitting = outside.filter(|&v| group.is_image(v) && group.shape(v) == shape);
    fitting.find(|&v| group.is_blocked(v, layouts))
}

/// A pool or depthwise convolution of blocks.
fn window(group: &Group, op: &Op, layouts: &Layouts) -> Option<Plan> {
    let (x, y) = (group.operand(0)?, group.anchor?.out(0));
    let (from, to) = (group.shape(x), group.shape(y));
    if !group.is_blocked(x, layouts) || !group.is_image(x) || !group.is_image(y) || !group.outside(x) {
        return None;
    }
    let mut border = None;
    if let Op::Conv(c) = op {
        let w = group.operand(1)?;
        group.constant(w)?;
        if group.operand(2).is_some_and(|b| group.constant(b).is_none()) {
            return None;
        }
        if !is_local(&from[2..], &c.strides, &c.pads, &c.dilations) {
            return None;
        }
        border = Some((group.outer(x)?, pairs(&c.pads)));
    } else {
        // Indices are positions in the row-major tensor; windows without elements have results of their own.
        let uses = group.outer.uses();
        if !uses.of(group.id.out(1)).is_empty() && group.graph.node(y.node).results.len() > 1 {
            return None;
        }
        let axes = axes(op, &from[2..], None)?;
        let local = |a: &Axis| is_local(&[a.size], &[a.stride], &[a.begin, a.end], &[a.dilation]);
        if !axes.iter().all(local) {
            return None;
        }
        let all_runs: Vec<Vec<Run>> = axes.iter().zip(&to[2..]).map(|(axis, &n)| runs(*axis, n)).collect();
        let empty = |runs: &Vec<Run>| runs.iter().any(|r| r.taps == 0);
        let classes = all_runs.iter().fold(1usize, |n, runs| n.saturating_mul(runs.len()));
        let taps = axes.iter().fold(1usize, |n, a| n.saturating_mul(a.kernel));
        let inexact = matches!(op, Op::AvgPool(_)) && taps > MAX_SUM;
        if all_runs.iter().any(empty) || classes > MAX_CLASSES || inexact {
            return None;
        }
    }
    let order = group.order(x, layouts);
    let mut wanted: Vec<ValueId> = same_shaped(group.epilogue(y, 1, !order.is_whole())?).collect();
    wanted.push(x);
    let blocked = wanted.into_iter().map(|v| (v, order.clone())).collect();
    Some(Plan { role: Role::Window, gives_blocks: Some(order), blocked, border, weighed: vec![] })
}

/// Channels side by side, the blocks of one operand behind those of the other.
fn concat(group: &Group, axis: usize, layouts: &Layouts) -> Option<Plan> {
    let operands: Vec<ValueId> = group.graph.node(group.anchor?).inputs.iter().copied().flatten().collect();
    let images = operands.iter().all(|&v| group.is_image(v));
    if axis != 1 || !images || !group.is_image(group.result) || !operands.iter().any(|&v| group.is_blocked(v, layouts))
    {
        return None;
    }
    let orders: Vec<Order> = operands.iter().map(|&v| group.order(v, layouts)).collect();
    let whole = Order::concat(&orders, layouts.isa?.lanes());
    let most = MAX_SLOTS_PER_CHANNEL * whole.channels().next_multiple_of(layouts.isa?.lanes());
    let fits = whole.slots() <= most;
    let blocked = operands.into_iter().zip(orders).collect();
    fits.then_some(Plan { role: Role::Concat, gives_blocks: Some(whole), blocked, border: None, weighed: vec![] })
}

/// The mean over every spatial axis.
fn mean(group: &Group, op: &Reduce, layouts: &Layouts) -> Option<Plan> {
    let global = op.f == ReduceFn::Mean && op.axes.iter().copied().eq(2..group.shape(group.operand(0)?).len());
    global.then(|| global_mean(group, layouts))?
}

/// Likewise as a pool with one window, too large for [`window`].
fn mean_by_pool(group: &Group, op: &AvgPool, layouts: &Layouts) -> Option<Plan> {
    let (from, to) = (group.shape(group.operand(0)?), group.shape(group.anchor?.out(0)));
    let all = from.get(2..)? == op.kernel && to.get(2..)?.iter().all(|&n| n == 1);
    let inside = op.pads.iter().all(|&p| p == 0) && op.dilations.iter().all(|&d| d == 1);
    (all && inside).then(|| global_mean(group, layouts))?
}

fn global_mean(group: &Group, layouts: &Layouts) -> Option<Plan> {
    let x = group.operand(0)?;
    let alone = group.result == group.anchor?.out(0);
    if !alone || !group.is_blocked(x, layouts) || !group.is_image(x) || !group.outside(x) {
        return None;
    }
    let order = group.order(x, layouts);
    order.is_whole().then(|| Plan {
        role: Role::Mean,
        gives_blocks: None,
        blocked: vec![(x, order)],
        border: None,
        weighed: vec![],
    })
}

/// Local response normalisation whose base is positive: the power is computed by estimates and logarithms.
fn lrn(group: &Group, op: &Lrn, layouts: &Layouts) -> Option<Plan> {
    let (x, y) = (group.operand(0)?, group.anchor?.out(0));
    let positive = (0.0..f32::INFINITY).contains(&op.alpha) && op.bias >= f32::MIN_POSITIVE && op.beta.is_finite();
    let near = op.size / 2 <= MAX_LRN_REACH;
    if !positive || !near || !group.is_image(x) || !group.is_blocked(x, layouts) || !group.outside(x) {
        return None;
    }
    let order = group.order(x, layouts);
    if !order.is_whole() {
        return None;
    }
    let mut wanted: Vec<ValueId> = same_shaped(group.epilogue(y, 1, false)?).collect();
    wanted.push(x);
    let blocked = wanted.into_iter().map(|v| (v, order.clone())).collect();
    Some(Plan { role: Role::Lrn, gives_blocks: Some(order), blocked, border: None, weighed: vec![] })
}

/// A reduction over any axes. What is fused behind is a plain kernel's: the result is small.
fn reduction(group: &Group, op: &Reduce, layouts: &Layouts) -> Option<Plan> {
    let lanes = layouts.isa?.lanes();
    let (x, y) = (group.operand(0)?, group.anchor?.out(0));
    let f32 = |v: ValueId| group.graph.ty(v).dtype == DType::F32;
    let shape = group.shape(x);
    let bytes = shape.iter().fold(4usize, |n, &d| n.saturating_mul(d));
    if !f32(x) || !f32(y) || !group.outside(x) || !(1..=MAX_BYTES).contains(&bytes) {
        return None;
    }
    stages(op, &shape, lanes)?;
    Some(Plan { role: Role::Reduce, gives_blocks: None, blocked: vec![], border: None, weighed: vec![] })
}

/// Positions of extremes in f32.
fn positions_of(group: &Group, op: &ArgReduce, layouts: &Layouts) -> Option<Plan> {
    let lanes = layouts.isa?.lanes();
    let x = group.operand(0)?;
    let shape = group.shape(x);
    let bytes = shape.iter().fold(4usize, |n, &d| n.saturating_mul(d));
    if group.graph.ty(x).dtype != DType::F32 || !group.outside(x) || !(1..=MAX_BYTES).contains(&bytes) {
        return None;
    }
    positions::lines(op, &shape, lanes)?;
    Some(Plan { role: Role::Positions, gives_blocks: None, blocked: vec![], border: None, weighed: vec![] })
}

/// Softmax or a normalisation, in rows of a vector and more.
fn rows(group: &Group, op: &Op, layouts: &Layouts) -> Option<Plan> {
    let lanes = layouts.isa?.lanes();
    let (x, y) = (group.operand(0)?, group.anchor?.out(0));
    let node = group.graph.node(y.node);
    let f32 = |v: ValueId| group.graph.ty(v).dtype == DType::F32 && group.outside(v);
    let extent = extent(op, &group.shape(x))?;
    let operands = node.inputs.iter().flatten().count();
    let mut parameters = (1..=parameters_of(op, operands)).map(|i| group.operand(i));
    // Scale and bias have a number for each element of a row, or for each row.
    let fits = |v: ValueId| f32(v) && (!matches!(op, Op::LayerNorm(_)) || group.shape(v) == [extent.len]);
    let uses = group.outer.uses();
    let others = std::ptr::eq(group.outer, group.graph)
        && (1..node.results.len()).any(|port| !uses.of(y.node.out(port as u32)).is_empty());
    let bytes = group.shape(x).iter().fold(4usize, |n, &d| n.saturating_mul(d));
    if !f32(x)
        || group.graph.ty(y).dtype != DType::F32
        || others
        || !parameters.all(|p| p.is_some_and(fits))
        || !(1..=MAX_BYTES).contains(&bytes)
    {
        return None;
    }
    let fused = group.epilogue(y, group.shape(y).len().checked_sub(1)?, false)?;
    let by_column = fused.iter().any(|o| matches!(o, Operand::Channel { .. }));
    let same = fused.iter().any(|o| matches!(o, Operand::Same(_)));
    form(op, extent, lanes, same, by_column)?;
    let crowded = fused.len() + parameters_of(op, operands) > MAX_OPERANDS;
    if crowded {
        return None;
    }
    Some(Plan { role: Role::Rows, gives_blocks: None, blocked: vec![], border: None, weighed: vec![] })
}

/// A normalisation by channel. What is fused behind without a leaf is a plain kernel's.
fn by_statistics(group: &Group, op: &Op, layouts: &Layouts) -> Option<Plan> {
    let lanes = layouts.isa?.lanes();
    let (x, y) = (group.operand(0)?, group.anchor?.out(0));
    let f32 = |v: ValueId| group.graph.ty(v).dtype == DType::F32 && group.outside(v);
    let shape = group.shape(x);
    let bytes = shape.iter().fold(4usize, |n, &d| n.saturating_mul(d));
    let operands = [x, group.operand(1)?, group.operand(2)?];
    let wanted = !std::ptr::eq(group.outer, group.graph) || !group.outer.uses().of(y).is_empty();
    if !operands.into_iter().all(f32) || !wanted || !(1..=MAX_BYTES).contains(&bytes) {
        return None;
    }
    let role = match Geometry::of(op, &shape) {
        Some(_) => Role::Statistics,
        None => {
            by_channel(op, &shape)?;
            form(op, extent(op, &shape)?, lanes, false, false)?;
            Role::Rows
        }
    };
    Some(Plan { role, gives_blocks: None, blocked: vec![], border: None, weighed: vec![] })
}

/// A product of matrices.
fn product(group: &Group, op: &Op) -> Option<Plan> {
    let (a, b, y) = (group.operand(0)?, group.operand(1)?, group.anchor?.out(0));
    let (left, right, result) = (group.shape(a), group.shape(b), group.shape(y));
    let bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>();
    let fits = |shape: &[usize]| (1..=MAX_BYTES).contains(&bytes(shape));
    let sizes = fits(&left) && fits(&right) && fits(&result);
    if group.graph.ty(y).dtype != DType::F32 || !sizes || !group.outside(a) || !group.outside(b) {
        return None;
    }
    Sizes::of(op, &left, &right)?;
    if let Op::Gemm(g) = op {
        let scaled = g.alpha != 1.0 && group.constant(b).is_none();
        if scaled || !group.operand(2).is_none_or(|c| g.beta == 0.0 || is_column_bias(group, c, g.beta, &result)) {
            return None;
        }
    }
    Some(Plan { role: Role::Product, gives_blocks: None, blocked: vec![], border: None, weighed: vec![] })
}

/// A number per column, or one for all that is constant; a factor needs a constant too.
fn is_column_bias(group: &Group, c: ValueId, beta: f32, result: &[usize]) -> bool {
    let shape = group.shape(c);
    let (numbers, columns) = (shape.iter().product::<usize>(), result[result.len() - 1]);
    let per_column = shape.last() == Some(&columns) && numbers == columns;
    match group.constant(c) {
        Some(_) => per_column || numbers == 1,
        None => per_column && beta == 1.0 && group.outside(c),
    }
}
