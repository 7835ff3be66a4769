//! From a model to a graph: opsets, symbols, inputs, initializers, nodes, outputs. Every complaint is collected; a
//! value that could not be made is unknown, and what hangs on it is passed over in silence.

use super::data;
use super::model::Model;
use super::proto::{
    FunctionProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use super::scope::{Scope, Slot};
use super::types::{TypeError, computable_from_onnx};
use super::values::Build;
use lehr_ir::{ConstValue, DType, Diag, Dim, Graph, Location, NodeId, Op, Tensor, TensorType};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// IR versions that are read. Versions 1 and 2 predate opsets.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=14;
/// The newest opset whose operators are known.
pub const LATEST_OPSET: i64 = 28;

/// Complaints that are kept. A model with more is not an ONNX model of this world.
const MAX_DIAGS: usize = 1000;

/// What the user decides about a model.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Numbers for symbolic dimensions, by the model's name for them or by the graph's.
    pub dims: BTreeMap<String, i64>,
    /// Graph inputs that become constants. Their shapes also give numbers to the symbols in the inputs' types.
    pub bindings: BTreeMap<String, Tensor>,
    /// Initializers that are listed as graph inputs too become inputs, not constants.
    pub initializers_are_inputs: bool,
    /// The number for symbolic dimensions that `dims` does not mention.
    pub default_dim: Option<i64>,
}

/// A model in the IR.
#[derive(Clone, Debug)]
pub struct Imported {
    pub graph: Graph,
    /// What is odd about the model without being wrong.
    pub warnings: Vec<Diag>,
}

/// Everything that is wrong with a model, or that lehr cannot do.
#[derive(Clone, Debug, Default)]
pub struct ImportError {
    pub diags: Vec<Diag>,
    /// Graph inputs whose values decide shapes: with [`ImportOptions::bindings`] for these, import gets further. It may
    /// then need others.
    pub needed_bindings: Vec<String>,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diag) in self.diags.iter().enumerate() {
            write!(f, "{}{diag}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ImportError {}

/// Turns a model into a graph.
pub fn import(model: &Model, options: &ImportOptions) -> Result<Imported, ImportError> {
    let mut import = Import::new(model, options);
    import.run();
    if import.errors.is_empty() {
        let mut graph = import.build.graph;
        sweep(&mut graph);
        return Ok(Imported { graph, warnings: import.warnings });
    }
    if import.errors.len() > MAX_DIAGS {
        let rest = import.errors.split_off(MAX_DIAGS).len();
        import.errors.push(Diag::new("import.more", format!("and {rest} more complaints")));
    }
    Err(ImportError { diags: import.errors, needed_bindings: import.needed.into_iter().collect() })
}

/// The opset of ONNX's own operators.
pub fn default_opset(imports: &[OperatorSetIdProto]) -> Option<i64> {
    imports.iter().find(|o| is_onnx_domain(&o.domain)).map(|o| o.version)
}

pub fn is_onnx_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// An import under way.
pub(super) struct Import<'m> {
    pub model: &'m Model,
    options: &'m ImportOptions,
    pub build: Build,
    pub errors: Vec<Diag>,
    warnings: Vec<Diag>,
    pub needed: BTreeSet<String>,
    symbols: Symbols,
    /// Local functions by domain, name and overload, with their sizes in bytes.
    pub functions: HashMap<(&'m str, &'m str, &'m str), (&'m FunctionProto, usize)>,
    /// Bytes of functions copied so far.
    pub inlined: usize,
}

impl<'m> Import<'m> {
    fn new(model: &'m Model, options: &'m ImportOptions) -> Import<'m> {
        let name = model.proto.graph.as_ref().map_or("", |g| &g.name);
        Import {
            model,
            options,
            build: Build::new(name),
            errors: vec![],
            warnings: vec![],
            needed: BTreeSet::new(),
            symbols: Symbols { numbers: options.dims.clone(), default: options.default_dim, ..Symbols::default() },
            functions: model
                .proto
                .functions
                .iter()
                .map(|f| ((&*f.domain, &*f.name, &*f.overload), (f, f.encoded_len())))
                .collect(),
            inlined: 0,
        }
    }

    fn run(&mut self) {
        let model = self.model;
        let Some(graph) = &model.proto.graph else { return };
        let version = model.proto.ir_version;
        if version < *IR_VERSIONS.start() {
            let why = format!("IR version {version} is older than {}", IR_VERSIONS.start());
            self.errors
                .push(Diag::new("import.ir-version", why).note("convert the model with ONNX's version converter"));
        } else if version > *IR_VERSIONS.end() {
            let why = format!("IR version {version} is newer than {}, the last one known here", IR_VERSIONS.end());
            self.warnings.push(Diag::new("import.ir-version", why));
        }
        let opset = default_opset(&model.proto.opset_import);
        let asked = opset.is_some() || graph.node.iter().any(|n| is_onnx_domain(&n.domain));
        if let Some(why) = opset_complaint(opset).filter(|_| asked) {
            self.errors.push(why);
        }
        if !graph.sparse_initializer.is_empty() {
            self.errors.push(Diag::new("import.unsupported-type", "sparse initializers are not supported"));
        }
        let mut scope = Scope::top(opset.unwrap_or(LATEST_OPSET), &model.proto.opset_import);
        self.bind_symbols(&graph.input);
        self.inputs(&mut scope);
        self.warn_of_unused_dims();
        self.initializers(&mut scope);
        self.nodes(&graph.node, &mut scope, 0);
        self.outputs(&graph.output, &scope);
    }

    /// The shapes of bound inputs say what the symbols in their types stand for.
    fn bind_symbols(&mut self, inputs: &[ValueInfoProto]) {
        for (name, tensor) in &self.options.bindings {
            let location = Location::Value { name: name.as_str().into() };
            let Some(info) = inputs.iter().find(|i| i.name == *name) else {
                let list: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
                let diag = Diag::new("import.binding", "the model has no such input").at(location);
                self.errors.push(diag.note(format!("its inputs are {}", list.join(", "))));
                continue;
            };
            let Ok((dtype, shape)) = tensor_type(info.r#type.as_ref()) else { continue };
            let Some(shape) = shape else { continue };
            if dtype != tensor.dtype() || shape.dim.len() != tensor.rank() {
                let why = format!("the value bound to it is {}, which does not fit its declared type", tensor.ty());
                self.errors.push(Diag::new("import.binding", why).at(location));
                continue;
            }
            for (dim, &n) in shape.dim.iter().zip(tensor.shape()) {
                let n = n as i64;
                let conflict = match &dim.value {
                    Some(tensor_shape_proto::dimension::Value::DimValue(v)) => (*v != n).then_some(*v),
                    Some(tensor_shape_proto::dimension::Value::DimParam(p)) if !p.is_empty() => {
                        let v = *self.symbols.numbers.entry(p.clone()).or_insert(n);
                        (v != n).then_some(v)
                    }
                    Some(tensor_shape_proto::dimension::Value::DimParam(_)) | None => None,
                };
                if let Some(v) = conflict {
                    let why = format!("the value bound to it has the dimension {n} where {v} is declared");
                    self.errors.push(Diag::new("import.binding", why).at(location.clone()));
                }
            }
        }
    }

    fn inputs(&mut self, scope: &mut Scope<'m>) {
        let Some(graph) = &self.model.proto.graph else { return };
        let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        for info in &graph.input {
            let name = info.name.as_str();
            let location = || Location::Value { name: name.into() };
            if initialized.contains(name) && !self.options.initializers_are_inputs {
                continue;
            }
            if name.is_empty() || scope.get(name).is_some() {
                self.errors
                    .push(Diag::new("import.name", "a graph input's name is empty or given twice").at(location()));
                continue;
            }
            let slot = match self.options.bindings.get(name) {
                Some(tensor) => {
                    let value = ConstValue::Dense { tensor: tensor.clone(), name: Some(name.into()) };
                    Slot::Value(self.build.graph.add_const(value))
                }
                None => match self.input_type(info) {
                    Ok(ty) => Slot::Value(self.build.graph.add_input(name, ty)),
                    Err(e) => {
                        self.errors.push(Diag::new(e.code, e.message).at(location()));
                        Slot::Unknown
                    }
                },
            };
            scope.define(name, slot);
        }
    }

    /// A number for a dimension that the model does not have is a slip of the pen.
    fn warn_of_unused_dims(&mut self) {
        let known = |name: &str| self.symbols.names.iter().any(|(param, made)| param == name || made == name);
        for name in self.options.dims.keys().filter(|n| !known(n)) {
            let mut list: Vec<&str> = self.symbols.names.values().map(String::as_str).collect();
            list.sort_unstable();
            let has = if list.is_empty() { "none".to_string() } else { list.join(", ") };
            let diag = Diag::new("import.dim", format!("the model has no symbolic dimension {name}"));
            self.warnings.push(diag.note(format!("its symbolic dimensions: {has}")));
        }
    }

    fn input_type(&mut self, info: &ValueInfoProto) -> Result<TensorType, TypeError> {
        let (dtype, shape) = tensor_type(info.r#type.as_ref())?;
        let shape = shape.ok_or_else(|| {
            TypeError::wrong("its rank is not given; run ONNX's shape inference, or fix the exporter")
        })?;
        if shape.dim.len() > lehr_ir::types::MAX_RANK {
            return Err(TypeError::wrong(format!("its rank {} is too large", shape.dim.len())));
        }
        let mut dims = vec![];
        for (axis, dim) in shape.dim.iter().enumerate() {
            dims.push(match &dim.value {
                Some(tensor_shape_proto::dimension::Value::DimValue(n)) => Dim::Const(*n),
                Some(tensor_shape_proto::dimension::Value::DimParam(p)) if !p.is_empty() => self.symbols.dim(p),
                Some(tensor_shape_proto::dimension::Value::DimParam(_)) | None => {
                    self.symbols.dim(&format!("{}_d{axis}", info.name))
                }
            });
        }
        let ty = TensorType { dtype, shape: dims };
        ty.check_size().map_err(TypeError::wrong)?;
        Ok(ty)
    }

    fn initializers(&mut self, scope: &mut Scope<'m>) {
        let Some(graph) = &self.model.proto.graph else { return };
        let declared: HashMap<&str, &ValueInfoProto> = graph.input.iter().map(|i| (i.name.as_str(), i)).collect();
        for t in &graph.initializer {
            let name: Arc<str> = t.name.as_str().into();
            if self.options.initializers_are_inputs && declared.contains_key(t.name.as_str()) {
                continue;
            }
            let location = Location::Value { name: name.clone() };
            if t.name.is_empty() || scope.get(&t.name).is_some() {
                self.errors
                    .push(Diag::new("import.name", "an initializer's name is empty or given twice").at(location));
                continue;
            }
            let tensor = match computable_from_onnx(t.data_type.into()) {
                Ok(_) => data::read(t, &self.model.external).map_err(|why| Diag::new("import.initializer", why)),
                Err(e) => Err(Diag::new(e.code, e.message)),
            };
            let slot = match tensor {
                Ok(tensor) => Slot::Value(self.build.graph.add_const(ConstValue::Dense { tensor, name: Some(name) })),
                Err(diag) => {
                    self.errors.push(diag.at(location));
                    Slot::Unknown
                }
            };
            scope.define(&t.name, slot);
        }
    }

    fn outputs(&mut self, outputs: &[ValueInfoProto], scope: &Scope<'m>) {
        if outputs.is_empty() {
            self.errors.push(Diag::new("import.no-output", "the graph has no outputs"));
        }
        let mut seen = HashSet::new();
        for info in outputs {
            let location = Location::Value { name: info.name.as_str().into() };
            if !seen.insert(info.name.as_str()) {
                self.errors.push(Diag::new("import.name", "the output is listed twice").at(location));
                continue;
            }
            match scope.get(&info.name) {
                None => {
                    let diag = Diag::new("import.output", "no node computes this output of the graph").at(location);
                    self.errors.push(diag);
                }
                Some(Slot::Unknown | Slot::Absent) => {}
                Some(Slot::Value(v)) => {
                    let ty = self.build.graph.ty(v).clone();
                    if let Err(why) = agrees(&ty, info.r#type.as_ref()) {
                        self.warnings.push(Diag::new("import.output-type", why).at(location));
                    }
                    self.build.graph.add_output(&info.name, v);
                }
            }
        }
    }
}

fn opset_complaint(opset: Option<i64>) -> Option<Diag> {
    match opset {
        None => Some(
            Diag::new("import.opset", "the model does not say which opset of ONNX's operators it uses")
                .note("opset_import has no entry for the domain ai.onnx"),
        ),
        Some(n) if n < 1 => Some(Diag::new("import.opset", format!("there is no opset {n}"))),
        Some(n) if n > LATEST_OPSET => Some(
            Diag::new("import.opset", format!("opset {n} is newer than {LATEST_OPSET}, the last one known here"))
                .note("export the model with an older opset"),
        ),
        Some(_) => None,
    }
}

/// The element type and shape of a declared tensor.
fn tensor_type(ty: Option<&TypeProto>) -> Result<(DType, Option<&TensorShapeProto>), TypeError> {
    let kind = match ty.and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(t)) => {
            return Ok((computable_from_onnx(t.elem_type.into())?, t.shape.as_ref()));
        }
        Some(type_proto::Value::SequenceType(_)) => "a sequence",
        Some(type_proto::Value::MapType(_)) => "a map",
        Some(type_proto::Value::OptionalType(_)) => "an optional",
        Some(type_proto::Value::SparseTensorType(_)) => "a sparse tensor",
        Some(type_proto::Value::OpaqueType(_)) => "an opaque value",
        None => return Err(TypeError::wrong("its type is not given")),
    };
    Err(TypeError::unsupported(format!("it is {kind}; only tensors are supported")))
}

/// Whether a computed type is what the model declares; undeclared parts agree with everything.
fn agrees(ty: &TensorType, declared: Option<&TypeProto>) -> Result<(), String> {
    let Ok((dtype, shape)) = tensor_type(declared) else { return Ok(()) };
    let numbers = |dim: &tensor_shape_proto::Dimension| match dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(n)) => Some(n),
        Some(tensor_shape_proto::dimension::Value::DimParam(_)) | None => None,
    };
    let fits = shape.is_none_or(|s| {
        let dims = s.dim.iter().map(numbers).zip(&ty.shape);
        s.dim.len() == ty.rank()
            && dims.into_iter().all(|(n, d)| n.is_none() || d.as_const().is_none() || n == d.as_const())
    });
    if dtype == ty.dtype && fits { Ok(()) } else { Err(format!("its type is {ty}, not what the model declares")) }
}

/// Names of symbolic dimensions: those of the model made into identifiers, each different.
#[derive(Debug, Default)]
struct Symbols {
    numbers: BTreeMap<String, i64>,
    default: Option<i64>,
    names: HashMap<String, String>,
    taken: HashSet<String>,
}

impl Symbols {
    fn dim(&mut self, param: &str) -> Dim {
        let name = match self.names.get(param) {
            Some(name) => name.clone(),
            None => self.name(param),
        };
        match self.numbers.get(param).or_else(|| self.numbers.get(&name)).copied().or(self.default) {
            Some(n) => Dim::Const(n),
            None => Dim::symbol(&name),
        }
    }

    fn name(&mut self, param: &str) -> String {
        let mut base: String =
            param.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).take(64).collect();
        // `floor`, `max` and `min` are functions in the text form.
        if base.starts_with(|c: char| c.is_ascii_digit()) || matches!(&base[..], "floor" | "max" | "min") {
            base.insert_str(0, "d_");
        }
        let mut name = base.clone();
        for n in 2.. {
            if self.taken.insert(name.clone()) {
                break;
            }
            name = format!("{base}_{n}");
        }
        self.names.insert(param.to_string(), name.clone());
        name
    }
}

/// Removes what nothing uses: constants and shape arithmetic that became attributes. Graph inputs stay.
fn sweep(graph: &mut Graph) {
    let mut live: HashSet<NodeId> = HashSet::new();
    let mut stack: Vec<NodeId> = graph.outputs.iter().map(|o| o.value.node).collect();
    while let Some(id) = stack.pop() {
        if live.insert(id) {
            stack.extend(graph.node(id).inputs.iter().flatten().map(|v| v.node));
        }
    }
    let dead: Vec<NodeId> =
        graph.ids().filter(|id| !live.contains(id) && !matches!(graph.node(*id).op, Op::Input(_))).collect();
    dead.into_iter().for_each(|id| graph.remove(id));
}
