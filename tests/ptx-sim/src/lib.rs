//! Executes PTX text on the CPU, and faults on what a GPU would let pass.
#![forbid(unsafe_code)]

mod cfg;
mod device;
mod exec;
mod fault;
mod inst;
mod lex;
mod memory;
mod module;
mod parse;
mod race;
mod scalar;
mod stats;
mod types;

pub use device::{Arg, Device, Grid, Options};
pub use fault::{Fault, FaultKind, FaultPlace};
pub use module::{Function, Module, ModuleVariable, Param, ParamPlace, ParseError};
pub use stats::{AccessStats, MemoryKind, Stats};
pub use types::{Space, Type};
