//! lehr compiles ONNX models to native code.
//!
//! ```no_run
//! let options = lehr::LoadOptions::default();
//! let model = lehr::load("resnet50.onnx", &options).map_err(|e| e.to_string())?;
//! let mut runner = lehr::Runner::jit(model.graph, &lehr::CompileOptions::default(), 0)?;
//! let input = lehr::ir::tensor::seeded(lehr::ir::DType::F32, vec![1, 3, 224, 224], 1);
//! let outputs = runner.run(&[input])?;
//! # Ok::<(), String>(())
//! ```
//!
//! [`load`] gives a graph, [`optimize`] runs the passes, [`Runner`] runs it by the reference evaluator, compiled in this
//! process, or from a library; [`compile_so`] writes a library.
#![forbid(unsafe_code)]

pub mod cli;
mod compile;
pub mod explain;
mod load;
mod profiled;
mod ptx;
mod runner;
mod stopwatch;
pub mod tune;

pub use compile::{
    CompileError, CompileOptions, Compiled, Numerics, OptLevel, compile_jit, compile_so, lower, optimize,
    optimize_with, total_flops,
};
pub use lehr_codegen as codegen;
pub use lehr_frontends as frontends;
pub use lehr_frontends::npy;
pub use lehr_ir as ir;
pub use lehr_passes as passes;
pub use load::{LoadError, LoadOptions, Loaded, load};
pub use ptx::{PtxFiles, PtxPaths, compile_ptx, launch_plan, write_ptx};
pub use runner::{Feeds, Runner};
pub use stopwatch::Stopwatch;
