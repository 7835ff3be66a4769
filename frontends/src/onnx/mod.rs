//! The ONNX importer: [`Model::open`] reads a file, [`import`] turns it into a [`lehr_ir::Graph`].
//!
//! `proto` is the file format, `model` loads and bounds it, `data` reads tensors, `attrs` reads attributes,
//! `values` follows shapes that are computed by the graph, `site` is what an operator's importer sees, `scope` walks
//! the nodes, and `ops` holds a row per operator and opset range.

mod attrs;
mod data;
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
pub use import::{ImportError, ImportOptions, Imported, import};
pub use model::Model;
