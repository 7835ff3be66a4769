//! Hand-written PTX for each family of instructions, with results computed in Rust; every fault provoked; mutations.

mod common;
mod faults;
mod float;
mod gemm;
mod integer;
mod malformed;
mod memory;
mod mma;
mod smoke;
mod warp;
