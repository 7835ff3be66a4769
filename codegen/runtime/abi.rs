//! The binary interface between a compiled model, its runtime, its callers and compiled code.
//!
//! Everything here is `repr(C)` and fixed for an [`ABI_VERSION`]: the generated C header, the object writer, the loader
//! and the code generator all rely on these offsets (the tests at the end of `codegen/src/runtime.rs` pin them). Fields are only ever
//! appended, with a new version number.
//!
//! # What compiled code sees
//!
//! The code generator defines one function, [`MAIN_SYMBOL`]: `extern "C" fn(ctx: *const RunCtx)`, System V calling
//! convention. It loads pointers from the context by the `RunCtx::*_OFFSET` constants, and may call, by symbol,
//!
//! | symbol | signature |
//! |---|---|
//! | `lehr_rt_parallel` | `(ctx: *const RunCtx, kernel: extern "C" fn(args: *const *mut u8, lo: i64, hi: i64), args: *const *mut u8, extent: i64)` |
//! | `lehr_rt_{sin,cos,tan,asin,acos,atan,sinh,cosh,tanh,asinh,acosh,atanh,exp,expm1,log,log1p,erf}_f64` | `(f64) -> f64` |
//! | `lehr_rt_{pow,fmod}_f64` | `(f64, f64) -> f64` |
//! | `lehr_rt_f16_to_f32`, `lehr_rt_bf16_to_f32` | `(u32) -> f32`, the low 16 bits are the value |
//! | `lehr_rt_f32_to_f16`, `lehr_rt_f32_to_bf16` | `(f32) -> u32`, round to nearest even, upper bits zero |
//! | `memcpy`, `memmove`, `memset`, `memcmp` | as in C |
//!
//! `args` is passed through unchanged; it may live on `main`'s stack, since `lehr_rt_parallel` returns only when every
//! chunk is done. Kernels must not call it themselves. A kernel that meets a data-dependent error (an index out of range, a division by zero) stores
//! `fault index + 1` through `RunCtx::fault` with a plain 32-bit store and carries on with any value; the index is into
//! `ModelImage::faults`. The runtime never changes MXCSR: subnormals are honoured.

use core::ffi::{c_char, c_void};

/// "LEHRMODL", read as little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LEHRMODL");
/// Version of everything in this file.
pub const ABI_VERSION: u32 = 3;
/// The entry point that the code generator defines.
pub const MAIN_SYMBOL: &str = "lehr_model_main";
/// Alignment of the workspace, of the arena in it, and of the weights.
pub const ALIGN: usize = 64;
/// The most threads a model can be opened with.
pub const MAX_THREADS: u32 = 1024;

/// Element types, as they appear in descriptors: stable numbers, never reused.
pub mod dtype {
    pub const F64: u32 = 1;
    pub const F32: u32 = 2;
    pub const F16: u32 = 3;
    pub const BF16: u32 = 4;
    pub const I8: u32 = 5;
    pub const I16: u32 = 6;
    pub const I32: u32 = 7;
    pub const I64: u32 = 8;
    pub const U8: u32 = 9;
    pub const U16: u32 = 10;
    pub const U32: u32 = 11;
    pub const U64: u32 = 12;
    pub const BOOL: u32 = 13;
}

/// Name and size in bytes of a dtype code; `None` for a number that is not one.
pub fn dtype_info(code: u32) -> Option<(&'static str, u64)> {
    Some(match code {
        dtype::F64 => ("f64", 8),
        dtype::F32 => ("f32", 4),
        dtype::F16 => ("f16", 2),
        dtype::BF16 => ("bf16", 2),
        dtype::I8 => ("i8", 1),
        dtype::I16 => ("i16", 2),
        dtype::I32 => ("i32", 4),
        dtype::I64 => ("i64", 8),
        dtype::U8 => ("u8", 1),
        dtype::U16 => ("u16", 2),
        dtype::U32 => ("u32", 4),
        dtype::U64 => ("u64", 8),
        dtype::BOOL => ("bool", 1),
        _ => return None,
    })
}

/// Instruction-set features, one bit each: what a model requires, and what [`RunCtx::cpu`] reports.
pub mod isa {
    pub const SSE2: u64 = 1 << 0;
    pub const SSE3: u64 = 1 << 1;
    pub const SSSE3: u64 = 1 << 2;
    pub const SSE4_1: u64 = 1 << 3;
    pub const SSE4_2: u64 = 1 << 4;
    pub const POPCNT: u64 = 1 << 5;
    pub const AVX: u64 = 1 << 6;
    pub const F16C: u64 = 1 << 7;
    pub const FMA: u64 = 1 << 8;
    pub const AVX2: u64 = 1 << 9;
    pub const BMI1: u64 = 1 << 10;
    pub const BMI2: u64 = 1 << 11;
    pub const LZCNT: u64 = 1 << 12;
    pub const AVX512F: u64 = 1 << 13;
    pub const AVX512BW: u64 = 1 << 14;
    pub const AVX512DQ: u64 = 1 << 15;
    pub const AVX512VL: u64 = 1 << 16;
    pub const AVX512CD: u64 = 1 << 17;
    pub const AVX512VNNI: u64 = 1 << 18;
    pub const AVX512BF16: u64 = 1 << 19;
    pub const AVX512FP16: u64 = 1 << 20;
    pub const AVX512VBMI: u64 = 1 << 21;
    pub const AVX512BITALG: u64 = 1 << 22;
    pub const AVX512VPOPCNTDQ: u64 = 1 << 23;
    pub const AVX_VNNI: u64 = 1 << 24;
    pub const AMX_TILE: u64 = 1 << 25;
    pub const AMX_BF16: u64 = 1 << 26;
    pub const AMX_INT8: u64 = 1 << 27;
    /// The NEON of AArch64, present on every such CPU.
    pub const NEON: u64 = 1 << 48;
    /// Names by bit, as in an error text.
    pub static NAMES: [&str; 28] = [
        "SSE2",
        "SSE3",
        "SSSE3",
        "SSE4.1",
        "SSE4.2",
        "POPCNT",
        "AVX",
        "F16C",
        "FMA",
        "AVX2",
        "BMI1",
        "BMI2",
        "LZCNT",
        "AVX-512F",
        "AVX-512BW",
        "AVX-512DQ",
        "AVX-512VL",
        "AVX-512CD",
        "AVX-512VNNI",
        "AVX-512BF16",
        "AVX-512FP16",
        "AVX-512VBMI",
        "AVX-512BITALG",
        "AVX-512VPOPCNTDQ",
        "AVX-VNNI",
        "AMX-TILE",
        "AMX-BF16",
        "AMX-INT8",
    ];
}

/// What every entry point returns.
pub mod status {
    pub const OK: i32 = 0;
    pub const NULL: i32 = 1;
    pub const BAD_MODEL: i32 = 2;
    pub const BAD_WORKSPACE: i32 = 3;
    pub const WORKSPACE_TOO_SMALL: i32 = 4;
    pub const UNSUPPORTED_CPU: i32 = 5;
    pub const BAD_COUNT: i32 = 6;
    pub const BAD_DTYPE: i32 = 7;
    pub const BAD_SHAPE: i32 = 8;
    pub const BAD_SIZE: i32 = 9;
    pub const MISALIGNED: i32 = 10;
    pub const BUSY: i32 = 11;
    pub const THREADS: i32 = 12;
    pub const FAULT: i32 = 13;
    pub const NO_DRIVER: i32 = 14;
    pub const OLD_DRIVER: i32 = 15;
    pub const NO_DEVICE: i32 = 16;
    pub const DEVICE_MEMORY: i32 = 17;
    pub const DEVICE_CODE: i32 = 18;
    pub const DEVICE: i32 = 19;
}

/// What `LehrModel::device` returns where there is no GPU's number to return.
pub mod place {
    pub const ON_CPU: i32 = -1;
    pub const NOT_OPEN: i32 = -2;
}

/// The descriptor: the one symbol that a compiled model exports. All pointers are valid as long as the library is loaded.
#[repr(C)]
pub struct LehrModel {
    pub magic: u64,
    pub abi_version: u32,
    /// `size_of::<LehrModel>()` in the producer's version.
    pub struct_bytes: u32,
    pub name: *const c_char,
    pub producer: *const c_char,
    pub target: *const c_char,
    pub n_inputs: u32,
    pub n_outputs: u32,
    pub inputs: *const TensorSpec,
    pub outputs: *const TensorSpec,
    /// Size of the scratch memory of one run; part of the workspace.
    pub arena_bytes: u64,
    pub weights_bytes: u64,
    pub weights: *const u8,
    /// Bits of [`isa`].
    pub isa_required: u64,
    pub n_faults: u32,
    pub reserved: u32,
    /// `n_faults` texts of data-dependent errors.
    pub faults: *const *const c_char,
    /// JSON text, `metadata_bytes` long without its terminating zero.
    pub metadata: *const c_char,
    pub metadata_bytes: u64,
    /// Bytes of workspace for so many threads; 0 threads means the default. Returns 0 for a model that is not valid.
    pub workspace_bytes: unsafe extern "C" fn(model: *const LehrModel, threads: u32) -> u64,
    /// Starts a workspace: checks it, the model and the CPU, and starts `threads - 1` threads.
    pub open: unsafe extern "C" fn(
        model: *const LehrModel,
        workspace: *mut c_void,
        workspace_bytes: u64,
        threads: u32,
    ) -> i32,
    /// One inference. Allocates nothing.
    pub run: unsafe extern "C" fn(
        model: *const LehrModel,
        workspace: *mut c_void,
        inputs: *const LehrTensor,
        n_inputs: u32,
        outputs: *const LehrTensor,
        n_outputs: u32,
    ) -> i32,
    /// Stops the workspace's threads. Its memory is the caller's again.
    pub close: unsafe extern "C" fn(model: *const LehrModel, workspace: *mut c_void) -> i32,
    /// The text of the last error of this workspace; never null. Valid for any 64-byte aligned address that was given to
    /// `open` with at least 64 bytes, and for null.
    pub last_error: unsafe extern "C" fn(workspace: *const c_void) -> *const c_char,
    /// What a status means; never null.
    pub status_text: extern "C" fn(status: i32) -> *const c_char,
    /// The compiled model on the CPU; `None` for one that is for a GPU alone. Not for callers: `run` calls it after its checks.
    pub main: Option<MainFn>,
    /// The model on a GPU; null for one that is for the CPU alone.
    pub gpu: *const GpuPlan,
    /// Like `run`, in the order of a stream of the GPU; returns before the end if all tensors are in the GPU's memory.
    pub run_on: unsafe extern "C" fn(
        model: *const LehrModel,
        workspace: *mut c_void,
        inputs: *const LehrTensor,
        n_inputs: u32,
        outputs: *const LehrTensor,
        n_outputs: u32,
        stream: *mut c_void,
    ) -> i32,
    /// Waits for what `run_on` has not waited for, and says if its data made an operator fail.
    pub wait: unsafe extern "C" fn(model: *const LehrModel, workspace: *mut c_void) -> i32,
    /// What computes an open workspace's runs, and for a CPU in a GPU's place, why; never null. Valid as `last_error`.
    pub runs_on: unsafe extern "C" fn(workspace: *const c_void) -> *const c_char,
    /// The number of the GPU that computes an open workspace's runs, or one of [`place`]. Valid as `last_error`.
    pub device: unsafe extern "C" fn(workspace: *const c_void) -> i32,
}

/// A model as PTX and its launches. All of it is constant.
#[repr(C)]
pub struct GpuPlan {
    /// Zero-terminated text, `ptx_bytes` long without that.
    pub ptx: *const c_char,
    pub ptx_bytes: u64,
    /// Sizes of two allocations on the device.
    pub weights_bytes: u64,
    pub arena_bytes: u64,
    /// The least compute capability, as ten times its version.
    pub capability: u32,
    /// Ten times the PTX version.
    pub ptx_version: u32,
    /// The oldest driver, by the CUDA version that it is for, as `cuDriverGetVersion` gives it: 1000 * major + 10 * minor.
    pub driver_version: u32,
    pub n_kernels: u32,
    /// The launches of a run.
    pub n_steps: u32,
    /// The most arguments of a launch, the fault word's two included.
    pub most_args: u32,
    pub n_uploads: u32,
    pub n_faults: u32,
    pub kernels: *const GpuKernel,
    pub steps: *const GpuStep,
    /// The steps' buffers, one step's after another's.
    pub args: *const GpuBuffer,
    /// What the device's weights are made of.
    pub uploads: *const GpuUpload,
    /// As the descriptor's, for the kernels on the GPU.
    pub faults: *const *const c_char,
}

#[repr(C)]
pub struct GpuKernel {
    pub name: *const c_char,
    pub grid: [u32; 3],
    /// Of a block.
    pub threads: u32,
    /// 1 if behind its buffers it takes the address of the fault word and the number of the step's first fault.
    pub takes_fault: u32,
    pub reserved: u32,
}

#[repr(C)]
pub struct GpuStep {
    pub kernel: u32,
    pub first_fault: u32,
    /// Where its buffers begin in `GpuPlan::args`.
    pub args: u32,
    pub n_args: u32,
}

/// An address on the device: a code of [`memory`], and which input or output, or the offset in bytes.
#[repr(C)]
pub struct GpuBuffer {
    pub memory: u32,
    pub reserved: u32,
    pub at: u64,
}

/// `bytes` from the library's weights to the device's.
#[repr(C)]
pub struct GpuUpload {
    pub from: u64,
    pub to: u64,
    pub bytes: u64,
}

/// Allocations on the device.
pub mod memory {
    pub const WEIGHTS: u32 = 0;
    pub const ARENA: u32 = 1;
    pub const INPUT: u32 = 2;
    pub const OUTPUT: u32 = 3;
}

/// The compiled model's entry point. Unsafe to call: it trusts the context.
pub type MainFn = unsafe extern "C" fn(ctx: *const RunCtx);
/// A parallel kernel: does the iterations `lo..hi` of its region. Unsafe to call: it trusts its arguments.
pub type KernelFn = unsafe extern "C" fn(args: *const *mut u8, lo: i64, hi: i64);

/// An input or output as the model wants it.
#[repr(C)]
pub struct TensorSpec {
    pub name: *const c_char,
    pub dtype: u32,
    pub rank: u32,
    pub dims: *const i64,
    pub bytes: u64,
}

/// An input or output as the caller passes it: dense, row-major, aligned to its element. `data` may be null if `bytes` is 0.
#[repr(C)]
pub struct LehrTensor {
    pub data: *mut c_void,
    pub dtype: u32,
    pub rank: u32,
    pub dims: *const i64,
    pub bytes: u64,
}

/// What compiled code is given; it lives in the workspace and is constant during a run.
#[repr(C)]
pub struct RunCtx {
    /// 64-byte aligned, `arena_bytes` long, contents undefined at the start of a run.
    pub arena: *mut u8,
    pub inputs: *const *const u8,
    pub outputs: *const *mut u8,
    /// 64-byte aligned.
    pub weights: *const u8,
    pub fault: *mut i32,
    pub pool: *mut c_void,
    /// [`isa`] bits of this CPU, for kernels that choose by them.
    pub cpu: u64,
    pub threads: u32,
    pub reserved: u32,
}

impl RunCtx {
    pub const ARENA_OFFSET: i32 = 0;
    pub const INPUTS_OFFSET: i32 = 8;
    pub const OUTPUTS_OFFSET: i32 = 16;
    pub const WEIGHTS_OFFSET: i32 = 24;
    pub const FAULT_OFFSET: i32 = 32;
    pub const POOL_OFFSET: i32 = 40;
    pub const CPU_OFFSET: i32 = 48;
    pub const THREADS_OFFSET: i32 = 56;
}
