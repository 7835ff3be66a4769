//! The crate root under which `build.rs` compiles the runtime into one object.
#![no_std]

#[path = "mod.rs"]
pub mod runtime;
