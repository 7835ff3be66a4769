//! Values for a model's inputs, from files or at random.

use super::Failure;
use crate::explain::layers::with_ones;
use crate::{LoadError, LoadOptions, Loaded, load, npy};
use lehr_frontends::tensor_file;
use lehr_ir::graph::Graph;
use lehr_ir::{Tensor, TensorType, tensor};
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
                    let seed = seed
                        .parse()
                        .map_err(|_| Failure::usage(format!("--input {spec}: a seed is a whole number")))?;
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
        if let Some(t) = self.file(name, inputs) {
            return match &shape {
                Some((dtype, shape)) if (*dtype, &shape[..]) != (t.dtype(), t.shape()) => {
                    let needed = TensorType::new(*dtype, shape.iter().map(|&d| d as i64));
                    Err(Failure::usage(format!("input '{name}': {} is given, the model needs {needed}", t.ty())))
                }
                _ => Ok(t.clone()),
            };
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

    /// What a file gives for the input `name` of this many.
    pub fn file(&self, name: &str, inputs: usize) -> Option<&Tensor> {
        let by_name = self.values.iter().find(|(n, _)| n == name);
        let unnamed = || self.values.iter().find(|(n, _)| n.is_empty()).filter(|_| inputs == 1);
        by_name.or_else(unnamed).map(|(_, t)| t)
    }

    /// Values in the order of the graph's inputs.
    pub fn for_graph(&self, graph: &Graph) -> Result<Vec<Tensor>, Failure> {
        let inputs = graph.inputs();
        let known: Vec<&str> = inputs.iter().map(|&v| graph.value_name(v).unwrap_or_default()).collect();
        let value = |(k, &v): (usize, _)| {
            let ty = graph.ty(v);
            self.value(known[k], k, inputs.len(), ty.const_shape().map(|s| (ty.dtype, s)))
        };
        inputs.iter().enumerate().map(value).collect()
    }

    /// Complains about a value for an input that the model does not have, about two for one, and about one that names none
    /// of several.
    pub fn check_names(&self, known: &[&str]) -> Result<(), Failure> {
        let given = self.values.iter().map(|(n, _)| n).chain(self.seeds.iter().map(|(n, _)| n));
        match given.into_iter().find(|n| !n.is_empty() && !known.contains(&n.as_str())) {
            Some(n) => {
                return Err(Failure::usage(format!("the model has no input '{n}'; it has {}", known.join(", "))));
            }
            None if known.len() == 1 => {}
            None => {
                if self.values.iter().any(|(n, _)| n.is_empty()) {
                    let all = known.join(", ");
                    return Err(Failure::usage(format!(
                        "the model has {} inputs: say --input NAME=FILE, with a name of {all}",
                        known.len()
                    )));
                }
            }
        }
        let mut names: Vec<&String> =
            self.values.iter().map(|(n, _)| n).chain(self.seeds.iter().map(|(n, _)| n)).collect();
        names.sort_unstable();
        match names.windows(2).find(|w| w[0] == w[1]) {
            Some(twice) => Err(Failure::usage(format!("--input: '{}' is given twice", twice[0]))),
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

/// Takes dimensions as 1 that nothing has decided, and says so: inputs filled at random have no size of their own.
pub fn bind_open_dims(loaded: &mut Loaded) -> Result<(), Failure> {
    for name in loaded.graph.symbols() {
        eprintln!("note: dimension {name} is taken as 1; --dim {name}=SIZE sets it");
    }
    loaded.graph = with_ones(&loaded.graph).map_err(|d| Failure::model(d.to_string()))?;
    Ok(())
}
