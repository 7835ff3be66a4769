//! A stand-in for NVIDIA's driver: a library with the functions of the CUDA driver API that compiled models call, which executes their
//! PTX by `lehr-ptx-sim`. So a model.so is tested from end to end without a GPU, and so is `tests/gpu/on_gpu.py check`.
//!
//! Tests depend on this crate; cargo then builds the library beside their programs, where [`library`] finds it, and [`driver_calls`] makes a
//! test a caller with pointers to device memory. Programs find it by the environment variable LEHR_CUDA_DRIVER.
//!
//! It is stricter than a GPU. Work in streams is done when somebody waits and not before, and what no stream, event or default stream
//! orders is done in the wrong order (`queue.rs`); so a caller that forgets to wait, or to make one stream wait for another, sees it. A copy
//! from pageable memory returns before its bytes are on the device. Kernels fault on what `lehr-ptx-sim` faults on. Calls before `cuInit`,
//! or without a current context, fail, as do handles of another context. A stream's handle is used again as soon as the stream is destroyed.
//! A capture is broken by what may break it on a GPU. What it does not know: graphs of anything but launches, memory that devices share.
//!
//! The variable LEHR_CUDA_SIM makes another machine of it, by words with commas between: `driver=11000` (the CUDA version that the
//! driver is for), `devices=2`, `capability=75`, `memory=1000` (bytes of each device), `ptx=refused`, `fail=cuGraphLaunch:1:999` (of the
//! calls of that function, the one with one before it returns 999 and does nothing). [`DriverCalls::machine`] takes the same words.

mod api;
mod client;
mod machine;
mod queue;
mod state;

pub use client::{DriverCalls, driver_calls};

use std::path::PathBuf;
use std::sync::Once;

/// The library, beside the test program that asks.
///
/// # Panics
/// If it is not there: the program was not built by cargo with a dependency on this crate.
pub fn library() -> PathBuf {
    let program = std::env::current_exe().expect("the system knows this program's path");
    let path = program.with_file_name("liblehr_cuda_sim.so");
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// Makes models that are opened in this process find the stand-in, with two devices.
pub fn stand_in() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: tests call this before they open a model, which is what reads the environment.
        unsafe {
            std::env::set_var("LEHR_CUDA_DRIVER", library());
            std::env::set_var("LEHR_CUDA_SIM", "devices=2");
        }
    });
}
