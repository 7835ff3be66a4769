//! From what the user names to a graph.

use lehr_frontends::onnx::{ImportOptions, Imported, Model, import};
use lehr_frontends::zoo;
use lehr_ir::graph::Graph;
use lehr_ir::{Diag, Dim, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Standard input is read up to here: a model larger than this comes from a file, which is mapped.
const MAX_STDIN: u64 = 4 << 30;

/// What the model itself leaves open.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Sizes of symbolic dimensions.
    pub dims: Vec<(String, i64)>,
    /// Inputs that become constants.
    pub bindings: Vec<(String, Tensor)>,
    pub initializers_are_inputs: bool,
}

/// A model as a graph.
#[derive(Debug)]
pub struct Loaded {
    pub graph: Graph,
    pub warnings: Vec<Diag>,
    /// Names of the model's inputs in order, those included that became constants.
    pub input_names: Vec<String>,
}

/// Why a model could not be loaded.
#[derive(Clone, Debug)]
pub struct LoadError {
    pub diags: Vec<Diag>,
    /// Inputs whose values decide shapes: bound to constants, the model would get further.
    pub needed: Vec<String>,
    /// Names of the model's inputs in order, as far as they could be read.
    pub input_names: Vec<String>,
}

impl LoadError {
    fn one(diag: Diag) -> LoadError {
        LoadError { diags: vec![diag], needed: vec![], input_names: vec![] }
    }
}

impl LoadError {
    /// Whether the model is fine but asks for what lehr cannot do.
    pub fn is_unsupported(&self) -> bool {
        self.diags.iter().all(|d| d.code.contains("unsupported"))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.diags.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// Loads `FILE.onnx`, `FILE.lehr` (text form), `-` (ONNX from standard input) or `zoo:NAME` ([`zoo::Spec::parse`] says with
/// which settings).
pub fn load(model: &str, options: &LoadOptions) -> Result<Loaded, LoadError> {
    if let Some(name) = model.strip_prefix("zoo:") {
        return bind(zoo_network(name).map_err(LoadError::one)?, options);
    }
    if Path::new(model).extension().is_some_and(|e| e == "lehr") {
        let text = std::fs::read_to_string(model).map_err(|e| unreadable(model, &e))?;
        let explain = |d: Diag| match d.code {
            "parse.weight" => d.note("a dump leaves large weights out; write splat(1.0) or seeded(1) in its place"),
            _ => d,
        };
        let graph = lehr_ir::text::parse(&text, &|_| None).map_err(|diags| LoadError {
            diags: diags.into_iter().map(explain).collect(),
            needed: vec![],
            input_names: vec![],
        })?;
        return bind(Loaded::of(graph), options);
    }
    let model = match model {
        "-" => {
            let mut bytes = vec![];
            let read = std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes);
            read.map_err(|e| unreadable("standard input", &e))?;
            Model::from_bytes(bytes.into(), None)
        }
        path if is_elf(path) => {
            let diag = Diag::new("load.library", format!("{path} is a compiled library or program, not a model"));
            return Err(LoadError::one(
                diag.note("lehr run, bench and inspect take libraries that lehr compile wrote"),
            ));
        }
        path => Model::open(Path::new(path)),
    };
    let model = model.map_err(LoadError::one)?;
    let input_names = model.input_names(options.initializers_are_inputs);
    let import_options = ImportOptions {
        dims: options.dims.iter().cloned().collect(),
        bindings: options.bindings.iter().cloned().collect(),
        initializers_are_inputs: options.initializers_are_inputs,
        default_dim: None,
    };
    match import(&model, &import_options) {
        Ok(Imported { graph, warnings }) => Ok(Loaded { graph, warnings, input_names }),
        Err(e) => Err(LoadError { diags: e.diags, needed: e.needed_bindings, input_names }),
    }
}

/// A network that is built in code, with its weights.
fn zoo_network(spec: &str) -> Result<Loaded, Diag> {
    let spec = zoo::Spec::parse(spec)?;
    let net = spec.build()?;
    let unused = net.unused_weights();
    let mut loaded = Loaded::of(net.finish());
    if let (Some(first), Some(path)) = (unused.first(), spec.weights()) {
        let message = format!("{}: {} weights are not used, such as {first}", path.display(), unused.len());
        loaded.warnings.push(Diag::new("load.weights", message));
    }
    Ok(loaded)
}

/// Whether a file starts as Linux's libraries and programs do.
pub(crate) fn is_elf(path: &str) -> bool {
    let mut magic = [0; 4];
    let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
    is_file && std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn unreadable(what: &str, e: &std::io::Error) -> LoadError {
    LoadError::one(Diag::new("load.io", format!("cannot read {what}: {e}")))
}

/// Applies `--dim` to a graph that was not imported.
fn bind(loaded: Loaded, options: &LoadOptions) -> Result<Loaded, LoadError> {
    let dims: BTreeMap<&str, i64> = options.dims.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    if let Some((name, _)) = options.bindings.first() {
        let diag = Diag::new("load.bind", format!("the input {name} of this model decides no shape"));
        return Err(LoadError::one(diag.note("give its value with --input")));
    }
    let symbols: Vec<String> = loaded.graph.symbols().iter().map(|s| s.to_string()).collect();
    let unknown = dims.keys().filter(|d| !symbols.iter().any(|s| s == *d));
    let warning = |d: &&str| {
        let known = if symbols.is_empty() { "none".into() } else { symbols.join(", ") };
        Diag::new("load.dim", format!("the model has no symbolic dimension {d}"))
            .note(format!("its symbolic dimensions: {known}"))
    };
    let warnings = loaded.warnings.iter().cloned().chain(unknown.map(warning)).collect();
    let graph = loaded.graph.bind(&|s| dims.get(s).map(|&n| Dim::Const(n))).map_err(LoadError::one)?;
    Ok(Loaded { graph, warnings, ..loaded })
}

impl Loaded {
    fn of(graph: Graph) -> Loaded {
        let name = |&v| graph.value_name(v).unwrap_or_default().to_string();
        let input_names = graph.inputs().iter().map(name).collect();
        Loaded { graph, warnings: vec![], input_names }
    }

    /// Binds the symbols in the inputs' shapes to the shapes of actual values, which are in the order of the graph's inputs.
    pub fn bind_dims(&mut self, inputs: &[Tensor]) -> Result<(), String> {
        self.bind_known_dims(&inputs.iter().map(Some).collect::<Vec<_>>())
    }

    /// Like [`Loaded::bind_dims`], for the values that are there.
    pub fn bind_known_dims(&mut self, inputs: &[Option<&Tensor>]) -> Result<(), String> {
        let mut dims: BTreeMap<String, i64> = BTreeMap::new();
        for (&v, t) in self.graph.inputs().iter().zip(inputs) {
            let Some(t) = t else { continue };
            let ty = self.graph.ty(v);
            let name = self.graph.value_name(v).unwrap_or_default();
            if ty.rank() != t.rank() {
                return Err(format!("input '{name}': {} is given, the model needs {ty}", t.ty()));
            }
            for (d, &n) in ty.shape.iter().zip(t.shape()) {
                let n = n as i64;
                // A lone symbol is bound; a compound expression is checked when types are inferred anew.
                let Some(symbol) = d.as_symbol() else { continue };
                let known = *dims.entry(symbol.to_string()).or_insert(n);
                if known != n {
                    return Err(format!("dimension {symbol} is {known} in one input and {n} in '{name}'"));
                }
            }
        }
        if !dims.is_empty() {
            self.graph = self.graph.bind(&|s| dims.get(s).map(|&n| Dim::Const(n))).map_err(|d| d.to_string())?;
        }
        Ok(())
    }
}
