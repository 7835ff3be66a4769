//! What the lowering of an operator works with: its operands as loads, its results as stores, kernels to put
//! loops in.
//!
//! Operators may be fused: the operator being lowered (the anchor) then sits in a region with elementwise
//! neighbours. [`KernelCx::load`] computes what feeds the anchor, [`KernelCx::store`] what follows it, so a lowering is
//! written once and knows nothing of fusion.

use super::view::{Layout, View, broadcast_coords};
use super::{Lowering, scalar};
use crate::kernel::{Access, Blocks, Expr, KernelBuilder, Param, computing_type};
use crate::program::{BufferId, Step};
use lehr_ir::graph::{Graph, NodeId, Provenance, ValueId};
use lehr_ir::{ConstValue, DType, Diag, Op, Tensor};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Where a value that a kernel reads comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Const(Arc<ConstValue>),
    Buffer(View),
}

/// The operator being lowered, in its graph or region.
pub struct NodeCx<'a> {
    pub low: &'a mut Lowering,
    pub(super) graph: &'a Graph,
    /// `None` in a group of elementwise operators alone.
    pub(super) anchor: Option<NodeId>,
    sources: HashMap<ValueId, Source>,
    outside: Vec<ValueId>,
    /// Values to be stored, and where.
    pub(super) outputs: Vec<(ValueId, View)>,
    pub origins: Provenance,
    name: String,
}

impl<'a> NodeCx<'a> {
    pub(super) fn new(
        low: &'a mut Lowering,
        graph: &'a Graph,
        anchor: Option<NodeId>,
        sources: Vec<(ValueId, Source)>,
        outputs: Vec<(ValueId, View)>,
        origins: Provenance,
        name: String,
    ) -> NodeCx<'a> {
        let outside = sources.iter().map(|(v, _)| *v).collect();
        NodeCx { low, graph, anchor, sources: sources.into_iter().collect(), outside, outputs, origins, name }
    }

    pub(super) fn anchor_id(&self) -> NodeId {
        self.anchor.expect("an operator is being lowered")
    }

    /// The values that come from outside, in the order of the node's operands, as the layout pass has seen them.
    pub(super) fn outside(&self) -> &[ValueId] {
        &self.outside
    }

    pub(super) fn operand(&self, i: usize) -> Option<ValueId> {
        self.graph.node(self.anchor_id()).inputs.get(i).copied().flatten()
    }

    pub fn operands(&self) -> usize {
        self.graph.node(self.anchor_id()).inputs.len()
    }

    pub fn has(&self, i: usize) -> bool {
        self.operand(i).is_some()
    }

    pub fn in_shape(&self, i: usize) -> Vec<usize> {
        shape_of(self.graph, self.operand(i).expect("the operand is present"))
    }

    pub fn in_dtype(&self, i: usize) -> DType {
        self.graph.ty(self.operand(i).expect("the operand is present")).dtype
    }

    /// The anchor's own result shape (in a fusion the stored type may differ in dtype, never in shape).
    pub fn out_shape(&self, port: u32) -> Vec<usize> {
        shape_of(self.graph, self.anchor_id().out(port))
    }

    pub fn out_dtype(&self, port: u32) -> DType {
        self.graph.ty(self.anchor_id().out(port)).dtype
    }

    /// Whether anybody wants this result.
    pub fn used(&self, port: u32) -> bool {
        let v = self.anchor_id().out(port);
        self.outputs.iter().any(|(o, _)| *o == v || (port == 0 && o.node != v.node))
    }

    /// The operand as a constant, if it is one.
    pub fn constant(&self, i: usize) -> Option<Tensor> {
        match self.source(self.operand(i)?)? {
            Source::Const(c) => Some(c.tensor()),
            Source::Buffer(_) => None,
        }
    }

    pub(super) fn source(&self, v: ValueId) -> Option<Source> {
        if let Some(s) = self.sources.get(&v) {
            return Some(s.clone());
        }
        self.graph.constant(v).map(|c| Source::Const(c.clone()))
    }

    /// The operand as a buffer that a kernel can address directly: `None` if it is computed in the region.
    pub fn view(&mut self, i: usize) -> Option<View> {
        match self.source(self.operand(i)?)? {
            Source::Buffer(view) => Some(view),
            Source::Const(c) => Some(self.low.const_view(&c)),
        }
    }

    /// Whether operand `i`, or all that it is computed from, lies dense in one shape: then neighbouring axes may be walked as one.
    pub fn is_flat(&self, i: usize) -> bool {
        let Some(v) = self.operand(i) else { return false };
        let shape = shape_of(self.graph, v);
        let mut stack = vec![v];
        let mut seen = vec![];
        while let Some(v) = stack.pop() {
            if seen.contains(&v) {
                continue;
            }
            seen.push(v);
            let flat = match self.source(v) {
                Some(Source::Const(c)) if immediate(&c).is_some() => true,
                Some(Source::Const(_)) => shape_of(self.graph, v) == shape,
                Some(Source::Buffer(view)) => view.shape == shape && view.is_dense(),
                None => {
                    stack.extend(self.graph.node(v.node).inputs.iter().flatten());
                    true
                }
            };
            if !flat {
                return false;
            }
        }
        true
    }

    /// Whether what is fused behind the anchor, and its results, take the axes from `from` on as one: by a flat position at the last
    /// of them, and 0 at the others. They lie dense there, or do not depend on them at all.
    pub(super) fn is_flat_behind(&self, from: usize) -> bool {
        let shape = self.out_shape(0);
        let anchor = self.anchor_id();
        let takes = |own: &[usize], strides: Option<&[i64]>| {
            let skip = shape.len() - own.len();
            let axes: Vec<usize> = (from..shape.len()).collect();
            let size = |d: usize| if d < skip { 1 } else { own[d - skip] };
            if axes.iter().all(|&d| size(d) == 1) {
                return true;
            }
            let whole = axes.iter().all(|&d| size(d) == shape[d]);
            // Axes that it does not have are of one element.
            let first = from.max(skip);
            let dense = |s: &[i64]| (first + 1..shape.len()).all(|d| s[d - 1 - skip] == s[d - skip] * shape[d] as i64);
            whole && strides.is_none_or(dense)
        };
        let of_view = |v: &View| match &v.layout {
            Layout::Strided { strides, .. } => takes(&v.shape, Some(strides)),
            Layout::Blocked { .. } => false,
        };
        let mut stack: Vec<ValueId> = self.outputs.iter().map(|(v, _)| *v).collect();
        let mut seen = vec![];
        while let Some(v) = stack.pop() {
            if seen.contains(&v) || v.node == anchor {
                continue;
            }
            seen.push(v);
            let flat = match self.source(v) {
                Some(Source::Const(c)) if immediate(&c).is_some() => true,
                Some(Source::Const(_)) => takes(&shape_of(self.graph, v), None),
                Some(Source::Buffer(view)) => of_view(&view),
                None => {
                    stack.extend(self.graph.node(v.node).inputs.iter().flatten());
                    true
                }
            };
            if !flat {
                return false;
            }
        }
        self.outputs.iter().all(|(_, view)| of_view(view))
    }

    /// Operations for one element of an elementwise group, roughly.
    pub(super) fn elementwise_cost(&self) -> i64 {
        if self.outputs.iter().all(|(v, _)| self.graph.outputs.iter().any(|o| o.value == *v)) {
            return self.graph.ids().count().min(64) as i64;
        }
        1
    }

    /// Where the result goes when nothing is fused behind the anchor: `None` if something is.
    pub fn out_view(&self, port: u32) -> Option<View> {
        let v = self.anchor_id().out(port);
        self.outputs.iter().find(|(o, _)| *o == v).map(|(_, view)| view.clone())
    }

    /// Points that a thread of a GPU moves at once: 16 bytes of the first result.
    pub(super) fn lanes(&self) -> usize {
        let size = self.outputs.first().map_or(4, |(_, view)| view.dtype.size());
        (16 / size).min(8)
    }

    pub fn diag(&self, code: &'static str, message: impl Into<String>) -> Diag {
        Diag::new(code, message).at(self.graph.location(self.anchor_id()))
    }

    /// A buffer in the arena that lives for this operator.
    pub fn scratch(&mut self, dtype: DType, len: usize) -> BufferId {
        self.low.new_buffer(dtype, len, None)
    }

    /// Values computed at compile time (packed weights, tables), placed among the weights.
    pub fn table(&mut self, tensor: &Tensor) -> BufferId {
        self.low.add_weights(tensor.dtype(), tensor.len(), tensor.bytes().clone())
    }

    /// Starts a kernel; `finish` it.
    pub fn kernel<'k>(&'k mut self, suffix: &str) -> KernelCx<'k, 'a> {
        let name = format!("{}{suffix}", self.name);
        KernelCx { cx: self, b: KernelBuilder::new(name), args: vec![] }
    }
}

pub(crate) fn shape_of(graph: &Graph, v: ValueId) -> Vec<usize> {
    graph.ty(v).const_shape().expect("dimensions are bound before lowering")
}

/// A kernel under construction for an operator. It is a [`KernelBuilder`] that also knows operands and results.
pub struct KernelCx<'k, 'a> {
    pub cx: &'k mut NodeCx<'a>,
    b: KernelBuilder,
    args: Vec<BufferId>,
}

impl Deref for KernelCx<'_, '_> {
    type Target = KernelBuilder;
    fn deref(&self) -> &KernelBuilder {
        &self.b
    }
}

impl DerefMut for KernelCx<'_, '_> {
    fn deref_mut(&mut self) -> &mut KernelBuilder {
        &mut self.b
    }
}

impl Blocks for KernelCx<'_, '_> {
    fn builder(&mut self) -> &mut KernelBuilder {
        &mut self.b
    }
}

/// Values already computed at the current coordinates.
type Memo = HashMap<ValueId, Expr>;

impl KernelCx<'_, '_> {
    /// The parameter for a buffer; one per buffer, with the accesses united.
    pub fn param_for(&mut self, buf: BufferId, access: Access) -> Param {
        if let Some(at) = self.args.iter().position(|b| *b == buf) {
            let known = &mut self.b.param_mut(at as Param).access;
            if *known != access {
                *known = Access::ReadWrite;
            }
            return at as Param;
        }
        let info = &self.cx.low.program.buffers[buf.0 as usize];
        let (dtype, len) = (info.dtype, info.len);
        self.args.push(buf);
        self.b.param(dtype, len, access)
    }

    /// Element of operand `i` at `coords`, in its computing type. `coords` are as many as the operand has axes.
    pub fn load(&mut self, i: usize, coords: &[Expr]) -> Expr {
        let v = self.cx.operand(i).expect("the operand is present");
        self.operand(v, coords, &mut Memo::new())
    }

    pub fn load_view(&mut self, view: &View, coords: &[Expr]) -> Expr {
        let p = self.param_for(view.buf, Access::Read);
        let index = view.index(coords);
        self.b.load(p, index)
    }

    /// Stores result `port` at `coords`, after whatever is fused behind it. `value` is in the computing type of the result.
    pub fn store(&mut self, port: u32, coords: &[Expr], value: Expr) {
        let v = self.cx.anchor_id().out(port);
        let value = self.let_(value);
        let mut memo = Memo::from([(v, value)]);
        for (out, view) in self.cx.outputs.clone() {
            if out == v || (port == 0 && out.node != v.node) {
                self.store_output(out, &view, coords, &mut memo);
            }
        }
    }

    /// Stores every output of a purely elementwise group at `coords`.
    pub(super) fn store_all(&mut self, coords: &[Expr]) {
        let mut memo = Memo::new();
        for (out, view) in self.cx.outputs.clone() {
            self.store_output(out, &view, coords, &mut memo);
        }
    }

    fn store_output(&mut self, out: ValueId, view: &View, coords: &[Expr], memo: &mut Memo) {
        let value = self.value(out, coords, memo);
        let p = self.param_for(view.buf, Access::Write);
        self.b.store(p, view.index(coords), value);
    }

    /// A value of the region at coordinates of its own shape.
    fn value(&mut self, v: ValueId, coords: &[Expr], memo: &mut Memo) -> Expr {
        if let Some(e) = memo.get(&v) {
            return e.clone();
        }
        let e = match self.cx.source(v) {
            Some(Source::Const(c)) => match immediate(&c) {
                Some(e) => return e,
                None => {
                    let view = self.cx.low.const_view(&c);
                    self.load_view(&view, coords)
                }
            },
            Some(Source::Buffer(view)) => self.load_view(&view, coords),
            None => self.computed(v, coords, memo),
        };
        let e = self.b.let_(e);
        memo.insert(v, e.clone());
        e
    }

    /// Likewise, for who computes with it: a cast to f16 or bf16 in the region has rounded it. Stores round by themselves.
    fn operand(&mut self, v: ValueId, coords: &[Expr], memo: &mut Memo) -> Expr {
        let e = self.value(v, coords, memo);
        let to = self.cx.graph.ty(v).dtype;
        let is_cast = matches!(self.cx.graph.node(v.node).op, Op::Cast(_)) && self.cx.source(v).is_none();
        match to {
            DType::F16 | DType::BF16 if is_cast => self.b.let_(Expr::rounded(to, e)),
            _ => e,
        }
    }

    /// An elementwise operator of the region. Operands of another shape broadcast, and are not remembered: their
    /// coordinates are not those of the memo.
    fn computed(&mut self, v: ValueId, coords: &[Expr], memo: &mut Memo) -> Expr {
        let graph = self.cx.graph;
        let node = graph.node(v.node);
        let shape = shape_of(graph, v);
        let mut args = vec![];
        let mut dtypes = vec![];
        for operand in &node.inputs {
            let Some(operand) = *operand else {
                args.push(None);
                dtypes.push(None);
                continue;
            };
            let from = shape_of(graph, operand);
            let e = if from == shape {
                self.operand(operand, coords, memo)
            } else {
                self.operand(operand, &broadcast_coords(&from, coords), &mut Memo::new())
            };
            args.push(Some(e));
            dtypes.push(Some(graph.ty(operand).dtype));
        }
        let to = graph.ty(v).dtype;
        scalar::expression(&node.op, v.port, &args, &dtypes, to, &mut self.b)
    }

    /// Adds the kernel as the next step of the program.
    pub fn finish(self) {
        let origins = self.cx.origins.clone();
        let kernel = self.b.finish(origins.clone());
        let first_fault = self.cx.low.program.faults.len() as u32;
        let place = origins.first().map_or(String::new(), |o| match o.index {
            Some(i) => format!("node {i} '{}' ({}): ", o.name, o.op),
            None => format!("node '{}' ({}): ", o.name, o.op),
        });
        let texts = kernel.faults.iter().map(|f| format!("{place}{f}"));
        self.cx.low.program.faults.extend(texts);
        let kernel = self.cx.low.share_kernel(kernel);
        self.cx.low.program.steps.push(Step { kernel, args: self.args, origins, first_fault });
    }

    /// Views of everything a purely elementwise group reads and writes, broadcast aside; `None` if one is not strided.
    pub(super) fn strided_views(&mut self) -> Option<Vec<View>> {
        let mut views: Vec<View> = self.cx.outputs.iter().map(|(_, v)| v.clone()).collect();
        let mut stack: Vec<ValueId> = self.cx.outputs.iter().map(|(v, _)| *v).collect();
        let mut seen = vec![];
        while let Some(v) = stack.pop() {
            if seen.contains(&v) {
                continue;
            }
            seen.push(v);
            match self.cx.source(v) {
                Some(Source::Const(c)) if immediate(&c).is_some() => {}
                Some(Source::Const(c)) => views.push(self.cx.low.const_view(&c)),
                Some(Source::Buffer(view)) => views.push(view),
                None => stack.extend(self.cx.graph.node(v.node).inputs.iter().flatten()),
            }
        }
        views.iter().all(|v| matches!(v.layout, Layout::Strided { .. })).then_some(views)
    }
}

/// A constant with one distinct element, as a literal.
fn immediate(c: &ConstValue) -> Option<Expr> {
    let element = match c {
        ConstValue::Splat { element, .. } => element.clone(),
        ConstValue::Dense { tensor, .. } if tensor.len() == 1 => tensor.clone(),
        ConstValue::Seeded { shape, .. } if shape.iter().product::<usize>() == 1 => c.tensor(),
        ConstValue::Dense { .. } | ConstValue::Seeded { .. } => return None,
    };
    Some(match computing_type(element.dtype()) {
        t @ (DType::F32 | DType::F64) => Expr::Float(t, element.to_f64()[0].to_bits()),
        // u64 keeps its bits.
        t => Expr::Int(t, element.to_i128()[0] as i64),
    })
}

/// Whether an operator computes each result element from the elements at the same coordinates alone.
pub fn is_elementwise(op: &Op) -> bool {
    op.is_elementwise() || matches!(op, Op::Identity(_) | Op::Dropout(_))
}
