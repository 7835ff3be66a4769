//! ONNX in and out. The importer: [`Model::open`] reads a file, [`import`] turns it into a [`lehr_ir::Graph`]. The exporter:
//! [`export`] turns a graph into a model, [`OnnxModel::write`] writes it.
//!
//! `proto` is the file format, `model` loads and bounds it, `data` reads tensors, `attrs` reads attributes,
//! `values` follows shapes that are computed by the graph, `site` is what an operator's importer sees, `scope` walks
//! the nodes, `ops` holds a row per operator and opset range, and `export` writes
//! graphs.

mod attrs;
mod data;
mod export;
mod external;
mod import;
mod model;
mod ops;
#[rustfmt::skip]
#[allow(clippy::doc_lazy_continuation)]
pub mod proto;
mod scan;
mod scope;
mod site;
mod types;
mod values;

pub use data::{tensor_from_proto, tensor_to_proto};
pub use export::{OnnxModel, export};
pub use import::{ImportError, ImportOptions, Imported, import};
pub use model::Model;
