//! The runtime that lives inside every compiled model, and, compiled a second time as a module of this crate, under the JIT.
//!
//! One source, two uses: `build.rs` compiles it as `no_std` into the object that is linked into each model.so, and
//! `codegen/src/runtime.rs` includes it as a module. So it uses `core` only, calls nothing but the C library's functions that
//! `build.rs` allows, allocates nothing, has no mutable statics (all state is in the caller's workspace) and has no
//! reachable panic: indexing goes through `get`, arithmetic that may overflow says how. `build.rs` fails if the object refers to
//! anything else.

pub mod abi;
mod check;
pub mod cpu;
pub mod entry;
pub mod gpu;
pub mod half;
pub mod math;
pub mod pool;
mod sys;
mod text;
