//! Hand-written PTX for each family of instructions, with results computed in Rust; every fault provoked; mutations.

mod common;
mod gemm;
mod mma;
mod smoke;
mod warp;
