//! The x86 leaves, run on this CPU where it has the instructions.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod columns;
mod compact;
mod gather;
mod gemm;
mod harness;
mod layout;
mod map;
mod positions;
mod rows;
mod touch;
mod winograd;
