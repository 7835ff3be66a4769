//! An ONNX model as a file: mapped, bounded, decoded.

use super::external::External;
use super::proto::ModelProto;
use super::scan::check_cost;
use crate::mapped::map_file;
use bytes::Bytes;
use lehr_ir::Diag;
use prost::Message;
use std::collections::HashSet;
use std::path::Path;

/// A decoded model. Its weights are views of the mapped file.
#[derive(Debug)]
pub struct Model {
    pub proto: ModelProto,
    pub(super) external: External,
}

impl Model {
    /// Maps and decodes a file; weights in other files are looked for beside it.
    pub fn open(path: &Path) -> Result<Model, Diag> {
        let bytes = map_file(path).map_err(|e| Diag::new("model.open", format!("{}: {e}", path.display())))?;
        // The parent of a bare file name is "", which stands for the current folder.
        let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        Model::from_bytes(bytes, folder)
    }

    /// Decodes a model from memory. Without a folder, weights in other files are an error.
    pub fn from_bytes(bytes: Bytes, folder: Option<&Path>) -> Result<Model, Diag> {
        if bytes.is_empty() {
            return Err(Diag::new("model.empty", "the file is empty"));
        }
        check_cost(&bytes).map_err(|why| Diag::new("model.corrupt", why))?;
        let proto = ModelProto::decode(bytes).map_err(|e| {
            Diag::new("model.corrupt", format!("not an ONNX model: {e}")).note("is the file complete, and is it ONNX?")
        })?;
        Model::from_proto(proto, folder)
    }

    /// A model built in memory.
    pub fn from_proto(proto: ModelProto, folder: Option<&Path>) -> Result<Model, Diag> {
        if proto.graph.is_none() {
            return Err(Diag::new("model.no-graph", "the model holds no graph").note("is this an ONNX model?"));
        }
        Ok(Model { proto, external: External::new(folder) })
    }

    /// Names of the graph's inputs in order, without those that initializers give a value, unless these are inputs too.
    pub fn input_names(&self, initializers_are_inputs: bool) -> Vec<String> {
        let Some(graph) = &self.proto.graph else { return vec![] };
        let initialized: HashSet<&str> = match initializers_are_inputs {
            true => HashSet::new(),
            false => graph.initializer.iter().map(|t| t.name.as_str()).collect(),
        };
        let names = graph.input.iter().map(|i| i.name.as_str());
        names.filter(|n| !initialized.contains(n)).map(str::to_string).collect()
    }

    /// The version of ONNX's own operators that the model asks for.
    pub fn opset(&self) -> Option<i64> {
        super::import::default_opset(&self.proto.opset_import)
    }
}
