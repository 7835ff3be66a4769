//! Executes PTX text on the CPU, and faults on what a GPU would let pass.
//!
//! A code generator for NVIDIA GPUs can be tested with this where there is no GPU: the *text* that it emits is parsed
//! and executed by the [PTX ISA](https://docs.nvidia.com/cuda/parallel-thread-execution/) (section numbers here are those
//! of version 8.5), warp by warp, with every register, byte of memory and barrier watched.
//!
//! ```
//! use lehr_ptx_sim::{Device, Grid, Module};
//!
//! let module = Module::parse("
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry scale(.param .u64 x, .param .f32 factor) {
//!         .reg .b32 %i;
//!         .reg .b64 %base, %at;
//!         .reg .f32 %v, %f;
//!         ld.param.u64 %base, [x];
//!         ld.param.f32 %f, [factor];
//!         mov.u32 %i, %tid.x;
//!         mad.wide.u32 %at, %i, 4, %base;
//!         ld.global.f32 %v, [%at];
//!         mul.f32 %v, %v, %f;
//!         st.global.f32 [%at], %v;
//!         ret;
//!     }")?;
//!
//! let mut device = Device::new();
//! let x = device.put_f32(&[1.0, 2.0, 3.0])?;
//! let stats = device.launch(&module, "scale", Grid::linear(1, 3), &[x.into(), 2f32.into()])?;
//! assert_eq!(device.get_f32(x, 3)?, [2.0, 4.0, 6.0]);
//! assert_eq!(stats.global.transactions, 2); // one sector read, one written
//!
//! // A fourth thread is one too many:
//! let fault = device.launch(&module, "scale", Grid::linear(1, 4), &[x.into(), 2f32.into()]).unwrap_err();
//! assert_eq!(fault.to_string(), "scale, line 13, block (0,0,0), thread (3,0,0): \
//!     4 bytes at 0x10000000000c, byte 12 of allocation 1 (12 bytes)\n    ld.global.f32 %v, [%at];");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it faults on
//!
//! [`FaultKind`] lists it: accesses out of bounds (of each allocation, each shared variable, each local variable; there
//! are gaps between them), misaligned ones, reads of memory or registers that nothing has written, use of what an
//! asynchronous copy is still to bring, barriers that not all threads reach, warps that wait for each other, races in
//! shared memory (and in global memory with [`Options::global_races`]), division of integers by zero, endless loops. A
//! fault names the kernel, the line and its text, the block and the thread.
//!
//! # How it executes
//!
//! - Blocks run one after another; the warps of a block take turns, each running until it waits or its turn is over.
//!   A kernel whose blocks wait for later blocks never ends, which the step limit reports.
//! - The lanes of a warp run in lock step; lanes that a branch sends apart meet again at its immediate post-dominator.
//!   Lanes that leave the kernel on one side are not waited for.
//! - Races are found by vector clocks of warps: two accesses to one byte, one of them a write, race unless a barrier
//!   lies between them. Lanes of one warp are ordered by `bar.warp.sync` and block barriers alone, never by running in
//!   lock step, because the ISA promises none since sm_70. Shuffles and votes order nothing.
//! - `cp.async` reads its source at once; what it brings appears when its thread waits for its group. Until then any
//!   access to the destination faults.
//! - `.approx` functions (`ex2`, `lg2`, `sin`, `cos`, `tanh`, `rcp`, `rsqrt`, `sqrt`, `div`) are computed in f64 and
//!   rounded once: the error that the ISA allows is left out. Fused multiply-add, conversions and directed roundings
//!   are exact, with the exception of directed f64 division next to the subnormal range.
//! - `mma` sums in f64 and rounds once to the accumulator's type; a GPU adds in an order and precision of its own.
//! - What the ISA leaves undefined is a fault where it can be seen: a shuffle from a lane that takes no part, lanes
//!   of the membermask that are elsewhere, registers never written.
//!
//! # What it does not know
//!
//! `wgmma`, `mbarrier`, `cp.async.bulk`, clusters, textures, `alloca`, 128-bit types, 8-bit floats, indirect calls and
//! the video instructions are refused, as is any instruction or modifier that it has not heard of: with an error that
//! names the line. Whether an instruction exists in the `.version` and on the `.target` is for `ptxas` to say.
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
