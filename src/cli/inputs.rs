//! Values for a model's inputs, from files or at random.

use super::Failure;
use crate::{LoadError, LoadOptions, Loaded, load, npy};
use lehr_frontends::tensor_file;
use lehr_ir::graph::Graph;
use lehr_ir::{Dim, Tensor, tensor};
use std::path::Path;

/// Bytes of an input that is filled at random.
const MAX_RANDOM: usize = 1 << 34;

/// Reads FILE.npy, FILE.npz, FILE.npz:NAME or FILE.pb.
pub fn read_file(spec: &str) -> Result<Tensor, String> {
    let (path, member) = match spec.split_once(".npz:") {
        Some((stem, member)) => (format!("{stem}.npz"), Some(member)),
        None => (spec.to_string(), None),
    };
    let path = Path::new(&path);
    let named = |why: String| format!("{}: {why}", path.display());
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => npy::from_npz(path, member).map_err(named),
        Some("pb") => Ok(tensor_file::read(path)?.1),
        Some("npy") => {
            let bytes = std::fs::read(path).map_err(|e| named(e.to_string()))?;
            npy::parse(bytes.into()).map_err(named)
        }
        _ => Err(format!("{spec}: inputs are .npy, .npz or .pb files, or random:SEED")),
    }
}

/// An ONNX tensor file: the name it carries, and the value.
pub fn read_pb(path: &Path) -> Result<(String, Tensor), String> {
    tensor_file::read(path)
}

/// What `--input` gave.
#[derive(Debug, Default)]
pub struct Given {
    /// By name; an empty name is the only input.
    pub values: Vec<(String, Tensor)>,
    /// Seeds by name; an empty name is every input not given.
    seeds: Vec<(String, u64)>,
}

impl Given {
    pub fn parse(specs: &[String]) -> Result<Given, Failure> {
        let mut given = Given::default();
        for spec in specs {
            let (name, value) = match spec.rsplit_once('=') {
                Some((n, v)) => (n.to_string(), v),
                None => (String::new(), spec.as_str()),
            };
            match value.strip_prefix("random:") {
                Some(seed) => {
                    let seed = seed.parse().map_err(|_| Failure::usage(format!("--input {spec}: no seed")))?;
                    given.seeds.push((name, seed));
                }
                None => {
                    let tensor = read_file(value).map_err(|why| Failure::usage(format!("--input {why}")))?;
                    given.values.push((name, tensor));
                }
            }
        }
        Ok(given)
    }

    /// A value for one input of known type.
    pub fn value(
        &self,
        name: &str,
        position: usize,
        inputs: usize,
        shape: Option<(lehr_ir::DType, Vec<usize>)>,
    ) -> Result<Tensor, Failure> {
        let by_name = self.values.iter().find(|(n, _)| n == name);
        let unnamed = self.values.iter().find(|(n, _)| n.is_empty()).filter(|_| inputs == 1);
        if let Some((_, t)) = by_name.or(unnamed) {
            return Ok(t.clone());
        }
        let seed = self.seeds.iter().find(|(n, _)| n == name).map(|(_, s)| *s);
        let common = self.seeds.iter().find(|(n, _)| n.is_empty()).map(|(_, s)| s.wrapping_add(position as u64));
        match (seed.or(common), shape) {
            (Some(seed), Some((dtype, shape))) => {
                let bytes = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
                if bytes.is_none_or(|n| n > MAX_RANDOM) {
                    return Err(Failure::usage(format!(
                        "input '{name}' of shape {shape:?} is too large to fill at random"
                    )));
                }
                Ok(tensor::seeded(dtype, shape, seed))
            }
            (Some(_), None) => Err(Failure::usage(format!(
                "input '{name}' has open dimensions; give their sizes with --dim to fill it at random"
            ))),
            (None, _) => Err(Failure::usage(format!(
                "input '{name}' is missing: --input {name}=FILE, or --input random:SEED for all"
            ))),
        }
    }

    /// Values in the order of the graph's inputs.
    pub fn for_graph(&self, graph: &Graph) -> Result<Vec<Tensor>, Failure> {
        let inputs = graph.inputs();
        let known: Vec<&str> = inputs.iter().map(|&v| graph.value_name(v).unwrap_or_default()).collect();
        self.check_names(&known)?;
        let value = |(k, &v): (usize, _)| {
            let ty = graph.ty(v);
            self.value(known[k], k, inputs.len(), ty.const_shape().map(|s| (ty.dtype, s)))
        };
        inputs.iter().enumerate().map(value).collect()
    }

    /// Complains about a value for an input that the model does not have.
    pub fn check_names(&self, known: &[&str]) -> Result<(), Failure> {
        let given = self.values.iter().map(|(n, _)| n).chain(self.seeds.iter().map(|(n, _)| n));
        match given.into_iter().find(|n| !n.is_empty() && !known.contains(&n.as_str())) {
            Some(n) => Err(Failure::usage(format!("the model has no input '{n}'; it has {}", known.join(", ")))),
            None => Ok(()),
        }
    }
}

/// Loads a model for known input values. Inputs that decide shapes are bound to their values; the rest come back
/// in the order of the graph's inputs. An unnamed value belongs to the input at its position.
pub fn load_binding(
    model: &str,
    options: &LoadOptions,
    inputs: &[(String, Tensor)],
) -> Result<(Loaded, Vec<Tensor>), LoadError> {
    let mut options = options.clone();
    loop {
        match load(model, &options) {
            Ok(loaded) => {
                let feeds = feeds(&loaded, &options, inputs);
                return Ok((loaded, feeds));
            }
            Err(e) => {
                let before = options.bindings.len();
                for name in &e.needed {
                    let bound = options.bindings.iter().any(|(n, _)| n == name);
                    if let (false, Some(value)) = (bound, find(name, &e.input_names, inputs)) {
                        options.bindings.push((name.clone(), value));
                    }
                }
                if options.bindings.len() == before {
                    return Err(e);
                }
            }
        }
    }
}

fn find(name: &str, names: &[String], inputs: &[(String, Tensor)]) -> Option<Tensor> {
    let by_name = inputs.iter().find(|(n, _)| n == name);
    let at = names.iter().position(|n| n == name);
    let by_position = at.and_then(|at| inputs.get(at)).filter(|(n, _)| !names.contains(n));
    by_name.or(by_position).map(|(_, t)| t.clone())
}

fn feeds(loaded: &Loaded, options: &LoadOptions, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let names = loaded.graph.inputs().iter().map(|&v| loaded.graph.value_name(v).unwrap_or_default());
    let names = names.filter(|n| !options.bindings.iter().any(|(b, _)| b == n));
    names.filter_map(|n| find(n, &loaded.input_names, inputs)).collect()
}

/// Takes dimensions as 1 that neither `--dim` nor a given value decides, and says so: inputs filled at random have
/// no size of their own.
pub fn bind_open_dims(loaded: &mut Loaded, given: &[(String, Tensor)]) -> Result<(), Failure> {
    let graph = &loaded.graph;
    let is_given = |v| graph.value_name(v).is_some_and(|name| given.iter().any(|(n, _)| n == name));
    let decided: Vec<String> = graph
        .inputs()
        .iter()
        .filter(|&&v| is_given(v) || (graph.inputs().len() == 1 && !given.is_empty()))
        .flat_map(|&v| graph.ty(v).shape.iter().filter_map(|d| d.as_symbol().map(str::to_string)))
        .collect();
    let open: Vec<String> = graph.symbols().iter().map(|s| s.to_string()).filter(|s| !decided.contains(s)).collect();
    if open.is_empty() {
        return Ok(());
    }
    for name in &open {
        eprintln!("note: dimension {name} is taken as 1; --dim {name}=N sets it");
    }
    let lookup = |s: &str| open.iter().any(|o| o == s).then_some(Dim::ONE);
    loaded.graph = graph.bind(&lookup).map_err(|d| Failure::model(d.to_string()))?;
    Ok(())
}
