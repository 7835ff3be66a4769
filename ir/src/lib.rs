//! The typed dataflow IR of lehr: [`Graph`] in SSA form over a closed set of operators ([`ops::Op`]), symbolic
//! dimensions, a text form that round-trips, a verifier, and a reference evaluator.
//!
//! This crate does no I/O and knows neither ONNX nor a code generator.
#![forbid(unsafe_code)]

pub mod diag;
pub mod dim;
pub mod dtype;
pub mod eval;
pub mod graph;
pub mod infer;
pub mod op;
pub mod ops;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
pub mod visit;
mod walk;

pub use diag::{Diag, Location};
pub use dim::Dim;
pub use dtype::DType;
pub use graph::{Graph, Node, NodeId, Origin, Output, Provenance, ResultInfo, Use, Uses, ValueId};
pub use ops::Op;
pub use tensor::{ConstValue, Tensor};
pub use types::{Shape, TensorType, Type};
pub use verify::verify;
