//! What machine the stand-in is, and which of its calls are to fail.

use std::ffi::{CStr, c_int};

/// The driver's numbers for what goes wrong.
pub mod error {
    use std::ffi::c_int;
    pub const INVALID_VALUE: c_int = 1;
    pub const OUT_OF_MEMORY: c_int = 2;
    pub const NOT_INITIALIZED: c_int = 3;
    pub const NO_DEVICE: c_int = 100;
    pub const INVALID_DEVICE: c_int = 101;
    pub const INVALID_CONTEXT: c_int = 201;
    pub const INVALID_PTX: c_int = 218;
    pub const UNSUPPORTED_PTX_VERSION: c_int = 222;
    pub const INVALID_HANDLE: c_int = 400;
    pub const NOT_FOUND: c_int = 500;
    pub const CONTEXT_IS_DESTROYED: c_int = 709;
    pub const LAUNCH_FAILED: c_int = 719;
    pub const CAPTURE_UNSUPPORTED: c_int = 900;
    pub const CAPTURE_INVALIDATED: c_int = 901;
    pub const CAPTURE_IMPLICIT: c_int = 906;
    pub const CAPTURE_WRONG_THREAD: c_int = 908;
}

/// Names and meanings, also of errors that only a test asks for.
#[rustfmt::skip]
pub const ERRORS: [(c_int, &CStr, &CStr); 19] = [
    (error::INVALID_VALUE,           c"CUDA_ERROR_INVALID_VALUE",               c"invalid argument"),
    (error::OUT_OF_MEMORY,           c"CUDA_ERROR_OUT_OF_MEMORY",               c"out of memory"),
    (error::NOT_INITIALIZED,         c"CUDA_ERROR_NOT_INITIALIZED",             c"initialization error"),
    (error::NO_DEVICE,               c"CUDA_ERROR_NO_DEVICE",                   c"no CUDA-capable device is detected"),
    (error::INVALID_DEVICE,          c"CUDA_ERROR_INVALID_DEVICE",              c"invalid device ordinal"),
    (error::INVALID_CONTEXT,         c"CUDA_ERROR_INVALID_CONTEXT",             c"invalid device context"),
    (error::INVALID_PTX,             c"CUDA_ERROR_INVALID_PTX",                 c"a PTX JIT compilation failed"),
    (221,                            c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND",      c"PTX JIT compiler library not found"),
    (error::UNSUPPORTED_PTX_VERSION, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",     c"the provided PTX was compiled with an unsupported toolchain."),
    (error::INVALID_HANDLE,          c"CUDA_ERROR_INVALID_HANDLE",              c"invalid resource handle"),
    (error::NOT_FOUND,               c"CUDA_ERROR_NOT_FOUND",                   c"named symbol not found"),
    (error::CONTEXT_IS_DESTROYED,    c"CUDA_ERROR_CONTEXT_IS_DESTROYED",        c"context is destroyed"),
    (error::LAUNCH_FAILED,           c"CUDA_ERROR_LAUNCH_FAILED",               c"unspecified launch failure"),
    (error::CAPTURE_UNSUPPORTED,     c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",  c"operation not permitted when stream is capturing"),
    (error::CAPTURE_INVALIDATED,     c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",  c"operation failed due to a previous error during capture"),
    (error::CAPTURE_IMPLICIT,        c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",     c"operation would make the legacy stream depend on a capturing blocking stream"),
    (error::CAPTURE_WRONG_THREAD,    c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", c"attempt to terminate a thread-local capture sequence from another thread"),
    (803,                            c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",      c"system has unsupported display driver / cuda driver combination"),
    (999,                            c"CUDA_ERROR_UNKNOWN",                     c"unknown error"),
];

/// The machine that words describe: those of LEHR_CUDA_SIM, or a test's.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The CUDA version that the driver is for.
    pub driver: c_int,
    pub devices: c_int,
    pub capability: c_int,
    /// Bytes of each device.
    pub memory: u64,
    pub refuses_ptx: bool,
    pub failures: Vec<Failure>,
}

/// A call that is to fail: of those of a name, the one with so many before it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub name: String,
    pub before: usize,
    pub code: c_int,
}

impl Machine {
    pub fn parse(words: &str) -> Result<Machine, String> {
        let mut machine = Machine {
            driver: 12040,
            devices: 1,
            capability: 90,
            memory: 1 << 32,
            refuses_ptx: false,
            failures: Vec::new(),
        };
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = |text: &str| text.parse::<u32>().map_err(|_| format!("'{word}' needs a number"));
            match name {
                "driver" => machine.driver = number(value)? as c_int,
                "devices" => machine.devices = number(value)? as c_int,
                "capability" => machine.capability = number(value)? as c_int,
                "memory" => machine.memory = number(value)?.into(),
                "ptx" if value == "refused" => machine.refuses_ptx = true,
                "fail" => match value.split(':').collect::<Vec<_>>()[..] {
                    [name, before, code] => machine.failures.push(Failure {
                        name: name.into(),
                        before: number(before)? as usize,
                        code: number(code)? as c_int,
                    }),
                    _ => return Err(format!("'{word}' is not fail=FUNCTION:CALLS BEFORE:CODE")),
                },
                _ => return Err(format!("'{word}' means nothing")),
            }
        }
        Ok(machine)
    }

    /// The code that a call of a function is to fail with, if it is its turn.
    pub fn failure(&mut self, name: &str) -> Option<c_int> {
        let at = self.failures.iter().position(|failure| failure.name == name)?;
        let failure = &mut self.failures[at];
        if failure.before > 0 {
            failure.before -= 1;
            return None;
        }
        Some(self.failures.remove(at).code)
    }
}
