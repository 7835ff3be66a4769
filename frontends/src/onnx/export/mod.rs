//! The ONNX exporter: [`export`] turns a [`Graph`] into a model that any runtime of opset 21 loads, [`OnnxModel::write`] writes it.
//!
//! Every operator becomes one node of the same meaning; what has no such node is refused by name. The same graph gives the same
//! bytes. `ops` says how operators are written, `write` streams weights from where they are.

mod ops;
mod write;

use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};
use super::types::dtype_to_onnx;
use lehr_ir::{ConstValue, Diag, Dim, Graph, NodeId, Op, Tensor, TensorType, Uses, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The opset that models are written in: the first that has every operator written here in the IR's form.
const OPSET: i64 = 21;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 10;

/// A model that is ready to be written.
#[derive(Debug)]
pub struct OnnxModel {
    /// Without its graph.
    model: ModelProto,
    /// Without its weights.
    graph: GraphProto,
    weights: Vec<Weight>,
}

#[derive(Debug)]
struct Weight {
    name: String,
    value: Arc<ConstValue>,
}

/// Turns a graph into an ONNX model. Names of inputs, outputs and weights stay; everything that cannot be written is
/// complained of at once.
pub fn export(graph: &Graph) -> Result<OnnxModel, Vec<Diag>> {
    let mut cx = Cx {
        graph,
        uses: graph.uses(),
        names: HashMap::new(),
        taken: HashSet::new(),
        node_names: HashSet::new(),
        nodes: vec![],
        weights: vec![],
    };
    cx.name_interface();
    let mut diags = vec![];
    for id in graph.order() {
        let done = match &graph.node(id).op {
            Op::Input(_) => Ok(()),
            Op::Const(c) => cx.weight(id.out(0), c.value.clone()),
            _ => ops::write(&mut cx, id),
        };
        diags.extend(done.err().map(|d| d.at_if_unset(|| graph.location(id))));
    }
    let inputs: Vec<ValueInfoProto> = graph
        .inputs()
        .iter()
        .filter_map(|&v| cx.info(cx.names[&v].clone(), v).map_err(|d| diags.push(d)).ok())
        .collect();
    let mut outputs = vec![];
    for output in &graph.outputs {
        match cx.output(&output.name, output.value) {
            Ok(info) => outputs.push(info),
            Err(d) => diags.push(d),
        }
    }
    if !diags.is_empty() {
        return Err(diags);
    }
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "lehr".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        ..ModelProto::default()
    };
    let written = GraphProto {
        name: graph.name.clone(),
        node: cx.nodes,
        input: inputs,
        output: outputs,
        ..GraphProto::default()
    };
    let model = OnnxModel { model, graph: written, weights: cx.weights };
    model.check_size().map_err(|d| vec![d])?;
    Ok(model)
}

/// The model so far.
struct Cx<'g> {
    graph: &'g Graph,
    uses: Uses,
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    node_names: HashSet<String>,
    nodes: Vec<NodeProto>,
    weights: Vec<Weight>,
}

impl Cx<'_> {
    /// Inputs have their names, and so have outputs that a node makes (the first of several names of one value).
    fn name_interface(&mut self) {
        for &v in self.graph.inputs() {
            let name = self.graph.value_name(v).unwrap_or("input").to_string();
            let name = self.fresh(&name);
            self.names.insert(v, name);
        }
        for output in &self.graph.outputs {
            let source = self.graph.node(output.value.node).op.is_source();
            if !source && !self.names.contains_key(&output.value) && self.taken.insert(output.name.to_string()) {
                self.names.insert(output.value, output.name.to_string());
            }
        }
    }

    /// A name that nothing has yet.
    fn fresh(&mut self, base: &str) -> String {
        let numbered = (2..).map(|n| format!("{base}_{n}"));
        let mut names = std::iter::once(base.to_string()).chain(numbered);
        names.find(|n| self.taken.insert(n.clone())).expect("numbers do not end")
    }

    /// What a value is called in the model.
    fn name(&mut self, v: ValueId) -> String {
        if let Some(name) = self.names.get(&v) {
            return name.clone();
        }
        let op = &self.graph.node(v.node).op;
        let base = self.graph.value_name(v).map_or_else(|| format!("{}_{}", op.name(), v.node.0), str::to_string);
        let name = self.fresh(&base);
        self.names.insert(v, name.clone());
        name
    }

    fn weight(&mut self, v: ValueId, value: Arc<ConstValue>) -> Result<(), Diag> {
        let ty = value.ty();
        if dtype_to_onnx(ty.dtype).is_none() {
            return Err(Diag::new("export.unsupported-type", format!("a constant of {ty} cannot be written")));
        }
        let name = self.name(v);
        self.weights.push(Weight { name, value });
        Ok(())
    }

    /// An operand that is an attribute in the IR: a list of integers, or one.
    fn integers(&mut self, base: &str, tensor: Tensor) -> String {
        let name = self.fresh(base);
        let value = Arc::new(ConstValue::Dense { tensor, name: None });
        self.weights.push(Weight { name: name.clone(), value });
        name
    }

    /// Appends a node whose operands are those of `id`, followed by `more`.
    fn node(&mut self, id: NodeId, op: &str, more: Vec<String>, attributes: Vec<AttributeProto>) {
        let node = self.graph.node(id);
        let mut input: Vec<String> = vec![];
        for v in &node.inputs {
            let name = v.map(|v| self.name(v)).unwrap_or_default();
            input.push(name);
        }
        trim(&mut input, 0);
        input.extend(more);
        // Results that nobody reads are left out.
        let mut output = vec![];
        for port in 0..node.results.len() {
            let v = id.out(port as u32);
            let wanted = port == 0 || !self.uses.of(v).is_empty();
            output.push(if wanted { self.name(v) } else { String::new() });
        }
        trim(&mut output, 1);
        let origin = node.origins.first().map(|o| o.name.to_string()).filter(|n| !n.is_empty());
        let name = self.node_name(origin, &output[0]);
        self.nodes.push(NodeProto {
            name,
            op_type: op.into(),
            input,
            output,
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// A name that no other node has: the ONNX node's that it comes from, else its result's, else that with a number.
    fn node_name(&mut self, origin: Option<String>, result: &str) -> String {
        let numbered = (2..).map(|n| format!("{result}_{n}"));
        let mut names = origin.into_iter().chain([result.to_string()]).chain(numbered);
        names.find(|n| self.node_names.insert(n.clone())).expect("numbers do not end")
    }

    /// An output of the graph. A value that has another name already gets this one by an Identity.
    fn output(&mut self, name: &str, v: ValueId) -> Result<ValueInfoProto, Diag> {
        let has = self.name(v);
        if has != name {
            if !self.taken.insert(name.to_string()) {
                return Err(Diag::new("export.names", format!("two values of the model are called '{name}'")));
            }
            let node = self.node_name(None, name);
            self.nodes.push(NodeProto {
                name: node,
                op_type: "Identity".into(),
                input: vec![has],
                output: vec![name.into()],
                ..NodeProto::default()
            });
        }
        self.info(name.into(), v)
    }

    fn info(&self, name: String, v: ValueId) -> Result<ValueInfoProto, Diag> {
        let TensorType { dtype, shape } = self.graph.ty(v);
        let elem_type = dtype_to_onnx(*dtype)
            .ok_or_else(|| Diag::new("export.unsupported-type", format!("'{name}' of {dtype} cannot be written")))?;
        let dim = |d: &Dim| Dimension {
            value: Some(match d.as_const() {
                Some(n) => dimension::Value::DimValue(n),
                None => dimension::Value::DimParam(d.as_symbol().map_or_else(|| d.to_string(), str::to_string)),
            }),
        };
        let shape = Some(TensorShapeProto { dim: shape.iter().map(dim).collect() });
        let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type, shape });
        Ok(ValueInfoProto { name, r#type: Some(TypeProto { value: Some(value) }) })
    }
}

/// Takes absent operands (or results) from the end.
fn trim(names: &mut Vec<String>, least: usize) {
    while names.len() > least && names.last().is_some_and(String::is_empty) {
        names.pop();
    }
}
