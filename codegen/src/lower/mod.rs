//! From the graph to a program: every operator becomes kernels over buffers.
//!
//! `lower` visits the nodes in order. A node's results get buffers (or are views of existing ones), its lowering
//! adds kernels. One file per family of operators holds `pub fn NAME(op: &Op, cx: &mut NodeCx) -> Result<(), Diag>`; the
//! match in `operator` leads to each. A lowering
//!
//! - asks `cx` for shapes and dtypes of operands and results (numbers: dimensions are bound by now),
//! - starts a kernel, opens a nest over its result, loads operands, stores results, and finishes the kernel:
//!
//! ```ignore
//! let mut k = cx.kernel("");
//! k.nest(&cx_out_shape, cost, LoopKind::Vector, |k, at| {
//!     let x = k.load(0, &[at[1].clone(), at[0].clone()]);
//!     k.store(0, at, x);
//! });
//! k.finish();
//! ```
//!
//! - or makes its result a view of an operand with [`Lowering::set_view`] (reshape).
//!
//! Zero-sized results need no kernel and never reach a lowering, except reductions, which are asked only for
//! non-empty results. Fusion is invisible here: see [`cx`].

pub(crate) mod blocked;
mod cells;
mod conv;
pub mod cx;
mod elementwise;
mod gather;
mod loss;
mod matmul;
mod memory;
mod move_data;
pub(crate) mod nest;
mod norm;
pub(crate) mod order;
mod phases;
mod placement;
mod pool;
mod reduce;
mod resize;
mod scalar;
mod softmax;
mod sort;
mod source;
pub(crate) mod tiled;
pub mod view;

pub use nest::unflatten;

use crate::clif::{Relocation, Target};
use crate::kernel::Kernel;
use crate::layout::{self, Layouts, Role};
use crate::machine::Machine;
use crate::program::{BufferId, BufferInfo, IoInfo, Place, Program, Weight};
use crate::ptx::Gpu;
use crate::strategy::Tuned;
use crate::x86::Isa;
use bytes::Bytes;
use cx::{NodeCx, Source, is_elementwise, shape_of};
use lehr_ir::graph::{Graph, NodeId, Uses, ValueId};
use lehr_ir::{ConstValue, DType, Diag, Op, Tensor};
use placement::Placement;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use view::{Layout, View};

/// Constants that are one element repeated are made dense while this is enough for all of them: ONNX ships its test networks with
/// such weights, and VGG-19 has 575 MB.
const MAX_SPLATS: u64 = 3 << 28;
/// Likewise those that are made from a seed.
const MAX_SEEDED: u64 = 1 << 34;
/// Alignment of weights and of arena buffers.
pub const ALIGN: u64 = 64;

/// What the lowering may use.
#[derive(Clone, Debug, Default)]
pub struct LowerOptions {
    /// The instruction set of the leaves that convolutions and matrix products are built from. `None`: everything is plain
    /// loops, and every intermediate value lies row-major.
    pub leaves: Option<Isa>,
    /// Whether convolutions may be computed by Winograd's algorithm, whose rounding errors are a few times larger.
    pub winograd: bool,
    /// Whether the weights of products that wait for memory may be rounded to 25 bits ([`CompactForm`](crate::x86::CompactForm)).
    pub compact: bool,
    pub machine: Machine,
    /// Strategies that were found to be the fastest, instead of the cost model's. What `winograd` excludes stays so.
    pub tuned: Arc<Tuned>,
    /// The GPU that kernels are for, if they are: every index is an iteration of its own then, or a thread's in a group. Goes with
    /// neither leaves nor Winograd's algorithm.
    pub gpu: Option<Gpu>,
}

impl LowerOptions {
    pub fn for_gpu(gpu: Gpu) -> LowerOptions {
        LowerOptions { gpu: Some(gpu), ..LowerOptions::default() }
    }

    /// For a CPU by its name on the command line: AVX-512, else AVX2 with FMA, else no leaves.
    pub fn for_cpu(cpu: &str) -> LowerOptions {
        // A name that means nothing is refused where code is generated, with the names that do.
        let leaves = Target::new(cpu, Relocation::Fixed).ok().and_then(|t| Isa::widest(t.features));
        LowerOptions { leaves, machine: Machine::for_cpu(cpu), ..LowerOptions::default() }
    }
}

/// State over the whole graph.
#[derive(Default)]
pub struct Lowering {
    pub program: Program,
    /// The GPU that kernels are for.
    pub gpu: Option<Gpu>,
    machine: Machine,
    compact: bool,
    tuned: Arc<Tuned>,
    /// The node that is being lowered.
    node: Option<NodeId>,
    views: HashMap<ValueId, View>,
    /// Weights buffers by the constant they hold; the `Arc` keeps the address from being reused.
    constants: HashMap<*const ConstValue, (Arc<ConstValue>, BufferId)>,
    kernels: HashMap<u64, Vec<usize>>,
    layouts: Layouts,
    /// Values in other forms than they were produced in.
    converted: HashMap<ValueId, Vec<View>>,
    leaves: HashMap<String, u32>,
    /// Concatenations whose room was made when their first operand was produced.
    reserved: HashMap<ValueId, View>,
    /// Maps that the readers of their results compute, by the results' buffers, which are never written.
    prologues: HashMap<BufferId, blocked::Prologue>,
    /// Values that are computed in their place in a concatenation, on GPUs.
    placements: HashMap<ValueId, Placement>,
}

/// Lowers a graph whose dimensions are all numbers.
pub fn lower(graph: &Graph, options: &LowerOptions) -> Result<Program, Vec<Diag>> {
    lower_owned(graph.clone(), options)
}

/// Like [`lower`], and lets go of each constant after its last use: weights that were packed are then in memory once.
pub fn lower_owned(mut graph: Graph, options: &LowerOptions) -> Result<Program, Vec<Diag>> {
    check_bound(&graph)?;
    check_constants(&graph)?;
    let mut low =
        Lowering { program: Program { name: graph.name.clone(), ..Program::default() }, ..Lowering::default() };
    low.program.in_place = options.gpu.is_none();
    low.layouts = layout::decide(&graph, options);
    low.gpu = options.gpu;
    low.machine = options.machine;
    low.compact = options.compact;
    low.tuned = options.tuned.clone();
    let mut diags = vec![];
    for (i, &v) in graph.inputs().iter().enumerate() {
        let (name, dtype, dims) = io(&graph, v, graph.value_name(v).unwrap_or("input"));
        let len = dims.iter().product();
        let buf = low.new_buffer(dtype, len, Some(name.clone()));
        low.program.buffers[buf.0 as usize].place = Some(Place::Input(i));
        low.views.insert(v, View::dense(buf, dtype, dims.clone()));
        low.program.inputs.push(IoInfo { name, dtype, dims });
    }
    let uses = graph.uses();
    if options.gpu.is_some() {
        low.placements = placement::placements(&graph, &uses);
    }
    let order = graph.order();
    let last_uses = last_uses_of_constants(&graph, &uses, &order);
    for id in order {
        let first = low.program.steps.len();
        low.node = Some(id);
        if let Err(d) = low.lower_node(&graph, &uses, id) {
            diags.push(d.at_if_unset(|| graph.location(id)));
        }
        let end = low.program.steps.len();
        if end > first {
            low.program.node_steps.push((id, first..end));
        }
        for &c in last_uses.get(&id).map_or(&[][..], |c| c) {
            forget(&mut graph, c);
        }
    }
    if !diags.is_empty() {
        return Err(diags);
    }
    let Lowering { prologues, program, .. } = &low;
    assert!(
        prologues.is_empty(),
        "{}: {} maps were left to a reader that did not compute them",
        program.name,
        prologues.len()
    );
    for (k, out) in graph.outputs.iter().enumerate() {
        let (name, dtype, dims) = io(&graph, out.value, &out.name);
        low.output(&graph, k, out.value);
        low.program.outputs.push(IoInfo { name, dtype, dims });
    }
    Ok(low.program)
}

/// Constants by the node that reads them last; those that are outputs are kept.
fn last_uses_of_constants(graph: &Graph, uses: &Uses, order: &[NodeId]) -> HashMap<NodeId, Vec<NodeId>> {
    let position: HashMap<NodeId, usize> = order.iter().enumerate().map(|(at, &id)| (id, at)).collect();
    let mut last: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for &id in order.iter().filter(|&&id| matches!(graph.node(id).op, Op::Const(_))) {
        let users: Option<Vec<NodeId>> = uses.of(id.out(0)).iter().map(|u| u.node()).collect();
        if let Some(&user) = users.iter().flatten().max_by_key(|u| position.get(u)) {
            last.entry(user).or_default().push(id);
        }
    }
    last
}

/// Replaces a constant by one of its type that takes no memory.
fn forget(graph: &mut Graph, id: NodeId) {
    if let Op::Const(c) = &mut graph.node_mut(id).op {
        let ty = c.value.ty();
        let shape = ty.const_shape().expect("constants have numbers for dimensions");
        let element = Tensor::from_i128(ty.dtype, vec![], [0]);
        c.value = Arc::new(ConstValue::Splat { element, shape });
    }
}

fn io(graph: &Graph, v: ValueId, name: &str) -> (String, DType, Vec<usize>) {
    (name.to_string(), graph.ty(v).dtype, shape_of(graph, v))
}

fn check_bound(graph: &Graph) -> Result<(), Vec<Diag>> {
    let symbols: Vec<String> = graph.symbols().iter().map(|s| s.to_string()).collect();
    if !symbols.is_empty() {
        let flags: Vec<String> = symbols.iter().map(|s| format!("--dim {s}=N")).collect();
        return Err(vec![
            Diag::new("lower.unbound", format!("the dimensions {} are not numbers", symbols.join(", ")))
                .note(format!("give their sizes: {}", flags.join(" "))),
        ]);
    }
    let unbound = |id: &NodeId| {
        graph.node(*id).results.iter().any(|r| r.ty.as_tensor().is_none_or(|t| t.const_shape().is_none()))
    };
    let bad: Vec<Diag> = graph
        .ids()
        .filter(unbound)
        .map(|id| Diag::new("lower.unbound", "a result's shape is not known").at(graph.location(id)))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// Constants take memory in proportion to the model's file, or at least not without bound.
fn check_constants(graph: &Graph) -> Result<(), Vec<Diag>> {
    let (mut splats, mut seeded) = (0u64, 0u64);
    let mut diags = vec![];
    for id in graph.ids() {
        let Op::Const(c) = &graph.node(id).op else { continue };
        let (sum, limit) = match &*c.value {
            ConstValue::Dense { .. } => continue,
            ConstValue::Splat { .. } => (&mut splats, MAX_SPLATS),
            ConstValue::Seeded { .. } => (&mut seeded, MAX_SEEDED),
        };
        *sum = sum.saturating_add(c.value.expansion());
        if *sum > limit {
            let message = format!(
                "a constant of {} cannot be stored: such constants may take {limit} bytes together",
                c.value.ty()
            );
            let diag = Diag::new("lower.constant", message).note("store it in the model's file, element by element");
            diags.push(diag.at(graph.location(id)));
        }
    }
    if diags.is_empty() { Ok(()) } else { Err(diags) }
}

impl Lowering {
    /// The weights of the product that is being lowered are compact.
    fn note_compact(&mut self) {
        self.program.compact.push(self.node.expect("a node is being lowered"));
    }

    pub fn new_buffer(&mut self, dtype: DType, len: usize, name: Option<String>) -> BufferId {
        self.program.buffers.push(BufferInfo { dtype, len, place: None, name });
        BufferId((self.program.buffers.len() - 1) as u32)
    }

    /// Places data among the weights.
    pub fn add_weights(&mut self, dtype: DType, len: usize, data: Bytes) -> BufferId {
        let buf = self.new_buffer(dtype, len, None);
        let offset = self.program.weights_bytes.next_multiple_of(ALIGN);
        self.program.weights_bytes = offset + data.len() as u64;
        self.program.buffers[buf.0 as usize].place = Some(Place::Weights(offset));
        self.program.weights.push(Weight { offset, data });
        buf
    }

    /// A constant as a buffer; it is placed when first asked for, so what is only packed is not stored twice.
    pub fn const_view(&mut self, c: &Arc<ConstValue>) -> View {
        let ty = c.ty();
        let shape = ty.const_shape().expect("constants have numbers for dimensions");
        let key = Arc::as_ptr(c);
        let buf = match self.constants.get(&key) {
            Some((_, buf)) => *buf,
            None => {
                let tensor = c.tensor();
                let buf = self.add_weights(tensor.dtype(), tensor.len(), tensor.bytes().clone());
                self.constants.insert(key, (c.clone(), buf));
                buf
            }
        };
        View::dense(buf, ty.dtype, shape)
    }

    /// Declares where a value lies, e.g. that a reshape's result is its operand.
    pub fn set_view(&mut self, v: ValueId, view: View) {
        self.views.insert(v, view);
    }

    /// The position of this kernel, or of one with the same code.
    fn share_kernel(&mut self, kernel: Kernel) -> usize {
        let mut hasher = DefaultHasher::new();
        kernel.code_key().hash(&mut hasher);
        let bucket = self.kernels.entry(hasher.finish()).or_default();
        let same = bucket.iter().find(|&&at| self.program.kernels[at].code_key() == kernel.code_key());
        if let Some(&at) = same {
            return at;
        }
        let at = self.program.kernels.len();
        bucket.push(at);
        self.program.kernels.push(kernel);
        at
    }

    /// A value row-major: as it was produced, or converted.
    fn source(&mut self, graph: &Graph, v: ValueId) -> Source {
        match graph.constant(v) {
            Some(c) => Source::Const(c.clone()),
            None => Source::Buffer(blocked::plain(self, graph, v)),
        }
    }

    fn lower_node(&mut self, graph: &Graph, uses: &Uses, id: NodeId) -> Result<(), Diag> {
        let node = graph.node(id);
        if node.op.is_source() {
            return Ok(());
        }
        let role = self.layouts.role(id);
        if self.layouts.is_absorbed(id) || role == Role::Pooled || self.alias(graph, id) || self.reshape(graph, id) {
            return Ok(());
        }
        let mut outer = vec![];
        for port in 0..node.results.len() as u32 {
            let v = id.out(port);
            let view = if self.layouts.is_blocked(v) {
                blocked::new_view(self, graph, v, graph.value_name(v).map(str::to_string))
            } else {
                self.room(graph, v)
            };
            self.views.insert(v, view.clone());
            outer.push((v, view));
        }
        let wanted: Vec<_> = outer.iter().filter(|(v, view)| !uses.of(*v).is_empty() && !view.is_empty()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut sources: Vec<Source> = vec![];
        for (i, v) in node.inputs.iter().enumerate().filter_map(|(i, v)| v.map(|v| (i, v))) {
            sources.push(match self.layouts.wants_blocked(id, i).cloned() {
                Some(order) => Source::Buffer(blocked::in_blocks(self, graph, v, &order)),
                None => self.source(graph, v),
            });
        }
        let origin = node.origins.first().map(|o| o.name.to_string());
        let name = origin.unwrap_or_else(|| format!("{}_{}", node.op.name(), id.0));
        let mut origins = node.origins.clone();
        if let Some(pool) = self.layouts.pool_behind(id).map(|p| p.node) {
            let v = pool.out(0);
            let view = blocked::new_view(self, graph, v, graph.value_name(v).map(str::to_string));
            self.views.insert(v, view);
            origins.extend(graph.node(pool).origins.iter().cloned());
        }
        match &node.op {
            Op::Fusion(_) => {
                let region = &node.regions[0];
                let sources = region.inputs().iter().copied().zip(sources).collect();
                let outputs =
                    wanted.iter().map(|(v, view)| (region.outputs[v.port as usize].value, view.clone())).collect();
                let anchor = region.ids().find(|&n| {
                    let op = &region.node(n).op;
                    !op.is_source() && !is_elementwise(op)
                });
                let last = region.outputs[wanted[0].0.port as usize].value;
                let mut cx = NodeCx::new(self, region, anchor, sources, outputs, origins, name);
                operator(role, anchor, last, &mut cx)
            }
            op => {
                let sources = node.inputs.iter().copied().flatten().zip(sources).collect();
                let outputs = wanted.iter().map(|(v, view)| (*v, view.clone())).collect();
                let anchor = (!is_elementwise(op)).then_some(id);
                let last = wanted[0].0;
                let mut cx = NodeCx::new(self, graph, anchor, sources, outputs, origins, name);
                operator(role, anchor, last, &mut cx)
            }
        }
    }

    /// Channels of a value in blocks by other names.
    fn alias(&mut self, graph: &Graph, id: NodeId) -> bool {
        let v = id.out(0);
        let Some((of, first_block)) = self.layouts.alias(v) else { return false };
        let View { buf, dtype, layout, .. } = self.views[&of].clone();
        let Layout::Blocked { block, border, first, blocks, .. } = layout else {
            unreachable!("only values in blocks have aliases")
        };
        let order = self.layouts.order(graph, v);
        let layout = Layout::Blocked { block, border, first: first + first_block, blocks, order };
        self.set_view(v, View { buf, dtype, shape: shape_of(graph, v), layout });
        true
    }

    /// Reshapes of dense values cost nothing: the result is a view of the operand.
    fn reshape(&mut self, graph: &Graph, id: NodeId) -> bool {
        let node = graph.node(id);
        let (Op::Reshape(_) | Op::Identity(_), Some(&Some(x))) = (&node.op, node.inputs.first()) else { return false };
        let view = match self.source(graph, x) {
            Source::Const(c) => self.const_view(&c),
            Source::Buffer(view) => view,
        };
        if !view.is_dense() {
            return false;
        }
        let shape = shape_of(graph, id.out(0));
        self.set_view(id.out(0), View::dense(view.buf, view.dtype, shape));
        true
    }

    /// Lets output `k` be computed in place where that is possible, else copies into it.
    fn output(&mut self, graph: &Graph, k: usize, v: ValueId) {
        let view = match self.source(graph, v) {
            Source::Const(c) => self.const_view(&c),
            Source::Buffer(view) => view,
        };
        let buffer = &mut self.program.buffers[view.buf.0 as usize];
        if buffer.place.is_none() && view.is_dense() && buffer.len == view.len() {
            buffer.place = Some(Place::Output(k));
            return;
        }
        let buf = self.new_buffer(view.dtype, view.len(), None);
        self.program.buffers[buf.0 as usize].place = Some(Place::Output(k));
        if view.is_empty() {
            return;
        }
        let target = View::dense(buf, view.dtype, view.shape.clone());
        let shape = view.shape.clone();
        // A group without operators: the value is stored as it is loaded.
        let sources = vec![(v, Source::Buffer(view))];
        let name = format!("copy_to_output_{k}");
        let mut cx = NodeCx::new(self, graph, None, sources, vec![(v, target)], vec![], name);
        elementwise::lower(&mut cx, &shape, 1);
    }
}

/// Lowers one operator, or a group of elementwise ones when there is no anchor.
fn operator(role: Role, anchor: Option<NodeId>, last: ValueId, cx: &mut NodeCx) -> Result<(), Diag> {
    if role != Role::Other {
        return blocked::lower(role, cx);
    }
    let graph = cx.graph;
    let Some(anchor) = anchor else {
        let shape = shape_of(graph, last);
        let cost = cx.elementwise_cost();
        elementwise::lower(cx, &shape, cost);
        return Ok(());
    };
    let op = &graph.node(anchor).op;
    match op {
        Op::Input(_) | Op::Const(_) | Op::Fusion(_) => unreachable!("handled by the caller"),
        Op::Unary(_) | Op::Binary(_) | Op::Where(_) | Op::Cast(_) | Op::Clip(_) | Op::Identity(_) | Op::Dropout(_) => {
            unreachable!("elementwise operators are never anchors")
        }
        Op::Conv(op) => conv::conv(op, cx),
        Op::ConvTranspose(op) => conv::conv_transpose(op, cx),
        Op::MatMul(op) => matmul::matmul(op, cx),
        Op::Gemm(op) => matmul::gemm(op, cx),
        Op::Einsum(op) => matmul::einsum(op, cx),
        Op::MaxPool(op) => pool::max_pool(op, cx),
        Op::AvgPool(op) => pool::avg_pool(op, cx),
        Op::LpPool(op) => pool::lp_pool(op, cx),
        Op::Concat(op) => move_data::concat(op, cx),
        Op::Slice(op) => move_data::slice(op, cx),
        Op::Pad(op) => move_data::pad(op, cx),
        Op::Reshape(op) => move_data::reshape(op, cx),
        Op::Transpose(op) => move_data::transpose(op, cx),
        Op::Expand(op) => move_data::expand(op, cx),
        Op::Tile(op) => move_data::tile(op, cx),
        Op::Trilu(op) => move_data::trilu(op, cx),
        Op::DepthToSpace(op) => move_data::depth_to_space(op, cx),
        Op::SpaceToDepth(op) => move_data::space_to_depth(op, cx),
        Op::Gather(op) => gather::gather(op, cx),
        Op::GatherElements(op) => gather::gather_elements(op, cx),
        Op::GatherNd(op) => gather::gather_nd(op, cx),
        Op::ScatterElements(op) => gather::scatter_elements(op, cx),
        Op::ScatterNd(op) => gather::scatter_nd(op, cx),
        Op::OneHot(op) => gather::one_hot(op, cx),
        Op::Range(op) => source::range(op, cx),
        Op::Eye(op) => source::eye(op, cx),
        Op::ShapeOf(op) => source::shape_of(op, cx),
        Op::SizeOf(op) => source::size_of(op, cx),
        Op::Resize(op) => resize::resize(op, cx),
        Op::Reduce(op) => reduce::reduce(op, cx),
        Op::ArgReduce(op) => reduce::arg_reduce(op, cx),
        Op::CumSum(op) => reduce::cum_sum(op, cx),
        Op::BatchNorm(op) => norm::batch_norm(op, cx),
        Op::BatchNormTrain(op) => norm::batch_norm_train(op, cx),
        Op::InstanceNorm(op) => norm::instance_norm(op, cx),
        Op::LayerNorm(op) => norm::layer_norm(op, cx),
        Op::GroupNorm(op) => norm::group_norm(op, cx),
        Op::Lrn(op) => norm::lrn(op, cx),
        Op::Softmax(op) => softmax::softmax(op.axis, cx),
        Op::LogSoftmax(op) => softmax::log_softmax(op.axis, cx),
        Op::Hardmax(op) => softmax::hardmax(op.axis, cx),
        Op::NllLoss(op) => loss::nll(op, cx),
        Op::SoftmaxCrossEntropy(op) => loss::cross_entropy(op, cx),
        Op::TopK(op) => sort::top_k(op, cx),
    }
}
