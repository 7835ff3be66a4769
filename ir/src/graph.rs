//! The graph: an arena of nodes in SSA form. A value is (node, port); ids are never reused. Iteration is in id
//! order, [`Graph::order`] is topological and deterministic.

use crate::diag::{Diag, Location};
use crate::dim::Dim;
use crate::op::{AttrValue, Attrs, In};
use crate::ops::{Const, Input, Op};
use crate::tensor::ConstValue;
use crate::types::{TensorType, Type};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

/// A node of one graph, by position in its arena. Ids are never used again, so they stay valid (or dangling) through rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// One result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    pub node: NodeId,
    pub port: u32,
}

impl NodeId {
    /// Position in the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The result at `port`.
    pub fn out(self, port: u32) -> ValueId {
        ValueId { node: self, port }
    }
}

/// An ONNX node that a node of ours came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The node's name, or one made from its first output if it has none.
    pub name: Arc<str>,
    /// Position in the ONNX graph.
    pub index: Option<usize>,
    /// The ONNX operator.
    pub op: Arc<str>,
}

/// Where a node came from: one ONNX node after import, several after fusion, none for what a pass invented.
pub type Provenance = Vec<Origin>;

/// What is known of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultInfo {
    pub ty: Type,
    /// The ONNX name of the value.
    pub name: Option<Arc<str>>,
}

/// An operator at work: what it reads, what it gives, and which ONNX nodes it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    /// Absent optional operands are `None`; trailing ones may be left out.
    pub inputs: Vec<Option<ValueId>>,
    pub results: Vec<ResultInfo>,
    pub origins: Provenance,
    /// Graphs inside (Fusion; later If, Loop, Scan). They see nothing of the outer graph but their inputs.
    pub regions: Vec<Graph>,
    /// Printing position: what replaces a node takes its rank, so that dumps differ little.
    rank: u32,
}

/// An output of the graph, by its ONNX name.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub name: Arc<str>,
    pub value: ValueId,
}

/// A dataflow graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub name: String,
    nodes: Vec<Option<Node>>,
    inputs: Vec<ValueId>,
    pub outputs: Vec<Output>,
}

/// Who uses a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Operand { node: NodeId, index: usize },
    Output { index: usize },
}

impl Use {
    /// The node that uses the value; `None` for an output of the graph.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Use::Operand { node, .. } => Some(node),
            Use::Output { .. } => None,
        }
    }
}

/// All uses of all values, in deterministic order; a snapshot that rewriting makes stale.
pub struct Uses(HashMap<ValueId, Vec<Use>>);

impl Uses {
    /// The uses of `v`, operands in order of node id before outputs.
    pub fn of(&self, v: ValueId) -> &[Use] {
        self.0.get(&v).map_or(&[], |u| &u[..])
    }

    /// The only use, if there is exactly one.
    pub fn only(&self, v: ValueId) -> Option<Use> {
        match self.of(v) {
            [u] => Some(*u),
            _ => None,
        }
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    // ---- building ----

    /// Appends an input.
    pub fn add_input(&mut self, name: &str, ty: TensorType) -> ValueId {
        let results = vec![ResultInfo { ty: ty.clone().into(), name: Some(name.into()) }];
        let v = self.push(Op::Input(Input { ty }), vec![], results, vec![], vec![], None).out(0);
        self.inputs.push(v);
        v
    }

    /// Adds a constant, named as its weight is.
    pub fn add_const(&mut self, value: ConstValue) -> ValueId {
        let name = match &value {
            ConstValue::Dense { name, .. } => name.clone(),
            ConstValue::Splat { .. } | ConstValue::Seeded { .. } => None,
        };
        let results = vec![ResultInfo { ty: value.ty().into(), name }];
        self.push(Op::Const(Const { value: Arc::new(value) }), vec![], results, vec![], vec![], None).out(0)
    }

    /// Adds a node after checking its arity and inferring its types.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>], origins: Provenance) -> Result<NodeId, Diag> {
        self.add_with_regions(op.into(), inputs, vec![], origins)
    }

    /// A node whose operands are all present; gives its first result.
    pub fn add1(&mut self, op: impl Into<Op>, inputs: &[ValueId], origins: Provenance) -> Result<ValueId, Diag> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.add(op, &inputs, origins)?.out(0))
    }

    /// Like [`add`](Graph::add), for operators with graphs inside.
    pub fn add_with_regions(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        regions: Vec<Graph>,
        origins: Provenance,
    ) -> Result<NodeId, Diag> {
        let types = self.infer_types(&op, inputs, &regions).map_err(|d| d.at_if_unset(|| locate(&op, &origins)))?;
        let results = types.into_iter().map(|ty| ResultInfo { ty: ty.into(), name: None }).collect();
        Ok(self.push(op, inputs.to_vec(), results, origins, regions, None))
    }

    fn push(
        &mut self,
        op: Op,
        inputs: Vec<Option<ValueId>>,
        results: Vec<ResultInfo>,
        origins: Provenance,
        regions: Vec<Graph>,
        rank: Option<u32>,
    ) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        let rank = rank.unwrap_or(id.0);
        self.nodes.push(Some(Node { op, inputs, results, origins, regions, rank }));
        id
    }

    /// Appends an output.
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push(Output { name: name.into(), value });
    }

    // ---- looking ----

    /// Results of the input nodes, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// # Panics
    /// If the node was removed: holding such an id is a bug.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("the node was removed")
    }

    /// For changes that keep types true; the verifier finds those that do not.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("the node was removed")
    }

    /// `None` for an id that was removed or never given.
    pub fn try_node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())?.as_ref()
    }

    /// Live nodes by id.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().enumerate().filter(|(_, n)| n.is_some()).map(|(i, _)| NodeId(i as u32))
    }

    /// One more than the largest id ever given out: the size for side tables.
    pub fn id_bound(&self) -> usize {
        self.nodes.len()
    }

    /// The type of a tensor value.
    ///
    /// # Panics
    /// On values that are not tensors, which no operator makes yet.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.result(v).ty.as_tensor().expect("a tensor")
    }

    pub fn result(&self, v: ValueId) -> &ResultInfo {
        &self.node(v.node).results[v.port as usize]
    }

    /// The ONNX name of a value.
    pub fn value_name(&self, v: ValueId) -> Option<&str> {
        self.result(v).name.as_deref()
    }

    /// Names a value; names are for messages and dumps, and mean nothing.
    pub fn set_value_name(&mut self, v: ValueId, name: Option<Arc<str>>) {
        self.node_mut(v.node).results[v.port as usize].name = name;
    }

    /// The constant behind a value, if it is one.
    pub fn constant(&self, v: ValueId) -> Option<&Arc<ConstValue>> {
        match &self.node(v.node).op {
            Op::Const(c) => Some(&c.value),
            _ => None,
        }
    }

    /// Who uses what, as a snapshot.
    pub fn uses(&self) -> Uses {
        let mut map: HashMap<ValueId, Vec<Use>> = HashMap::new();
        for id in self.ids() {
            for (index, v) in self.node(id).inputs.iter().enumerate() {
                if let Some(v) = v {
                    map.entry(*v).or_default().push(Use::Operand { node: id, index });
                }
            }
        }
        for (index, out) in self.outputs.iter().enumerate() {
            map.entry(out.value).or_default().push(Use::Output { index });
        }
        Uses(map)
    }

    /// Every live node after its operands; among those ready, the lowest (rank, id) first. Nodes on a cycle,
    /// and what hangs on them, are left out: the verifier reports those.
    pub fn order(&self) -> Vec<NodeId> {
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut users: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for id in self.ids() {
            let node = self.node(id);
            for v in node.inputs.iter().flatten() {
                users.entry(v.node).or_default().push(id);
                waiting[id.index()] += 1;
            }
            if waiting[id.index()] == 0 {
                ready.push(Reverse((node.rank, id)));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for &user in users.get(&id).map_or(&[][..], |u| u) {
                waiting[user.index()] -= 1;
                if waiting[user.index()] == 0 {
                    ready.push(Reverse((self.node(user).rank, user)));
                }
            }
        }
        order
    }

    /// Names of the symbols in the inputs' shapes.
    pub fn symbols(&self) -> BTreeSet<Arc<str>> {
        let mut set = BTreeSet::new();
        for &v in &self.inputs {
            self.ty(v).shape.iter().for_each(|d| d.symbols(&mut set));
        }
        set
    }

    // ---- rewriting ----

    /// Adds a node in the printing position of `at`.
    pub fn add_at(
        &mut self,
        at: NodeId,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        origins: Provenance,
    ) -> Result<NodeId, Diag> {
        let rank = self.node(at).rank;
        let id = self.add(op, inputs, origins)?;
        self.node_mut(id).rank = rank;
        Ok(id)
    }

    /// Makes `id` print where `at` prints.
    pub fn place_at(&mut self, id: NodeId, at: NodeId) {
        self.node_mut(id).rank = self.node(at).rank;
    }

    /// Lets every user of `old` use `new`. An unnamed `new` takes over the ONNX name of `old`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for node in self.nodes.iter_mut().flatten() {
            for v in node.inputs.iter_mut().flatten().filter(|v| **v == old) {
                *v = new;
            }
        }
        for out in self.outputs.iter_mut().filter(|o| o.value == old) {
            out.value = new;
        }
        if self.result(new).name.is_none() {
            let name = self.result(old).name.clone();
            self.set_value_name(new, name);
        }
    }

    /// Removes a node that nothing uses.
    pub fn remove(&mut self, id: NodeId) {
        self.inputs.retain(|v| v.node != id);
        self.nodes[id.index()] = None;
    }

    /// A copy in which symbols are replaced by what `lookup` gives, types inferred anew.
    pub fn bind(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Result<Graph, Diag> {
        let mut g = self.clone();
        for id in g.order() {
            let node = g.node_mut(id);
            match &mut node.op {
                Op::Input(input) => {
                    input.ty.shape.iter_mut().for_each(|d| *d = d.substitute(lookup));
                }
                Op::Const(_) => {}
                op => *op = substitute_dims(op, lookup)?,
            }
            for region in &mut node.regions {
                *region = region.bind(lookup)?;
            }
            g.reinfer(id)?;
        }
        Ok(g)
    }

    /// Infers the types of one node anew, from its operands.
    pub fn reinfer(&mut self, id: NodeId) -> Result<(), Diag> {
        let node = self.node(id);
        let types =
            self.infer_types(&node.op, &node.inputs, &node.regions).map_err(|d| d.at_if_unset(|| self.location(id)))?;
        let node = self.node_mut(id);
        for (result, ty) in node.results.iter_mut().zip(types) {
            result.ty = ty.into();
        }
        Ok(())
    }

    // ---- types ----

    /// The types a node would have: arity, inference, and sizes that make sense.
    pub fn infer_types(&self, op: &Op, inputs: &[Option<ValueId>], regions: &[Graph]) -> Result<Vec<TensorType>, Diag> {
        let present: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        op.check_arity(&present)?;
        let operands: Vec<Option<&TensorType>> = inputs.iter().map(|v| v.map(|v| self.ty(v))).collect();
        let types = match op {
            Op::Fusion(_) => infer_region(&operands, regions)?,
            _ => op.infer(In(&operands))?,
        };
        for ty in &types {
            ty.check_size().map_err(|why| Diag::new("type.size", why))?;
        }
        Ok(types)
    }

    /// Arithmetic operations of one node, those of its regions included; a multiply-add counts as two.
    pub fn flops(&self, id: NodeId) -> Dim {
        let node = self.node(id);
        if !node.regions.is_empty() {
            let of = |g: &Graph| g.ids().fold(Dim::ZERO, |sum, id| &sum + &g.flops(id));
            return node.regions.iter().fold(Dim::ZERO, |sum, g| &sum + &of(g));
        }
        if node.op.is_source() {
            return Dim::ZERO;
        }
        let operands: Vec<Option<&TensorType>> = node.inputs.iter().map(|v| v.map(|v| self.ty(v))).collect();
        let results: Vec<TensorType> = node.results.iter().filter_map(|r| r.ty.as_tensor().cloned()).collect();
        node.op.flops(In(&operands), &results)
    }

    /// Where a node is, for diagnostics: the ONNX node it came from, else its own result.
    pub fn location(&self, id: NodeId) -> Location {
        let node = self.node(id);
        match node.results.first().and_then(|r| r.name.as_ref()) {
            Some(name) if node.origins.is_empty() => Location::Value { name: name.clone() },
            _ => locate(&node.op, &node.origins),
        }
    }
}

fn infer_region(operands: &[Option<&TensorType>], regions: &[Graph]) -> Result<Vec<TensorType>, Diag> {
    let [region] = regions else {
        return Err(Diag::new("fusion.c1", format!("fusion has one region, {} are given", regions.len())));
    };
    if region.inputs.len() != operands.len() {
        return Err(Diag::new("fusion.c2", "the region has as many inputs as the node has operands"));
    }
    for (&v, operand) in region.inputs.iter().zip(operands) {
        if Some(region.ty(v)) != *operand {
            return Err(Diag::new("fusion.c3", "the types of the region's inputs are those of the operands"));
        }
    }
    Ok(region.outputs.iter().map(|o| region.ty(o.value).clone()).collect())
}

fn locate(op: &Op, origins: &Provenance) -> Location {
    match origins.first() {
        Some(o) => Location::Node { name: o.name.clone(), index: o.index, op: o.op.clone() },
        None => Location::Node { name: "".into(), index: None, op: op.name().into() },
    }
}

fn substitute_dims(op: &Op, lookup: &dyn Fn(&str) -> Option<Dim>) -> Result<Op, Diag> {
    fn walk(v: &AttrValue, lookup: &dyn Fn(&str) -> Option<Dim>) -> AttrValue {
        match v {
            AttrValue::Dim(d) => crate::op::Attr::to_value(&d.substitute(lookup)),
            AttrValue::List(items) => AttrValue::List(items.iter().map(|i| walk(i, lookup)).collect()),
            other => other.clone(),
        }
    }
    let mut attrs = Attrs(op.attrs().into_iter().map(|(n, v)| (n.to_string(), walk(&v, lookup))).collect());
    match Op::parse(op.name(), &mut attrs) {
        Some(Ok(op)) => Ok(op),
        Some(Err(why)) => Err(Diag::new("op.attrs", why)),
        None => Ok(op.clone()),
    }
}
