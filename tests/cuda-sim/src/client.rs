//! A caller of the stand-in driver, for tests that have pointers to device memory.

use libloading::Library;
use std::ffi::{c_int, c_void};

/// The driver's functions in this process: the same instance that models find. Errors panic.
pub struct DriverCalls {
    library: Library,
}

/// Opens the stand-in.
///
/// # Panics
/// If it is not there.
pub fn driver_calls() -> DriverCalls {
    // SAFETY: our own library, which has no initialisers.
    let library = unsafe { Library::new(crate::library()) }.expect("the stand-in can be loaded");
    DriverCalls { library }
}

/// Calls a function of the library by its name.
macro_rules! call {
    ($self:ident, $name:literal, ($($ty:ty),*), $($argument:expr),*) => {{
        // SAFETY: `api.rs` defines the function with this signature, and the arguments are what it asks for.
        let status = unsafe {
            let function = $self.library.get::<unsafe extern "C" fn($($ty),*) -> c_int>($name).expect("api.rs has it");
            function($($argument),*)
        };
        assert_eq!(status, 0, "{}", String::from_utf8_lossy($name));
    }};
}

impl DriverCalls {
    /// Makes a device's primary context current on this thread, as PyTorch and the CUDA runtime do.
    pub fn push(&self, device: c_int) {
        let mut context = 0usize;
        call!(self, b"cuDevicePrimaryCtxRetain", (*mut usize, c_int), &mut context, device);
        call!(self, b"cuCtxPushCurrent_v2", (usize), context);
    }

    /// Undoes a push.
    pub fn pop(&self) {
        let (mut context, mut device) = (0usize, 0);
        call!(self, b"cuCtxGetDevice", (*mut c_int), &mut device);
        call!(self, b"cuCtxPopCurrent_v2", (*mut usize), &mut context);
        call!(self, b"cuDevicePrimaryCtxRelease_v2", (c_int), device);
    }

    /// The device of this thread's current context.
    pub fn current(&self) -> Option<c_int> {
        let mut device = 0;
        // SAFETY: as above.
        let status = unsafe {
            let function = self.library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuCtxGetDevice");
            function.expect("api.rs has it")(&mut device)
        };
        (status == 0).then_some(device)
    }

    pub fn alloc(&self, bytes: usize) -> u64 {
        let mut address = 0;
        call!(self, b"cuMemAlloc_v2", (*mut u64, usize), &mut address, bytes);
        address
    }

    pub fn free(&self, address: u64) {
        call!(self, b"cuMemFree_v2", (u64), address);
    }

    /// Waits for all work before.
    pub fn upload(&self, address: u64, bytes: &[u8]) {
        call!(self, b"cuMemcpyHtoD_v2", (u64, *const c_void, usize), address, bytes.as_ptr().cast(), bytes.len());
    }

    /// Waits for all work before.
    pub fn download(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0u8; bytes];
        call!(self, b"cuMemcpyDtoH_v2", (*mut c_void, u64, usize), data.as_mut_ptr().cast(), address, bytes);
        data
    }

    pub fn stream(&self) -> usize {
        let mut stream = 0;
        call!(self, b"cuStreamCreate", (*mut usize, u32), &mut stream, 0);
        stream
    }

    pub fn destroy_stream(&self, stream: usize) {
        call!(self, b"cuStreamDestroy_v2", (usize), stream);
    }

    /// How many allocations, modules, streams, events, graphs and retained contexts there are in this process.
    pub fn held(&self) -> usize {
        // SAFETY: as above.
        unsafe { self.library.get::<extern "C" fn() -> usize>(b"lehr_cuda_sim_held").expect("api.rs has it")() }
    }

    /// How much work nobody has waited for: copies and launches.
    pub fn pending(&self) -> usize {
        // SAFETY: as above.
        unsafe { self.library.get::<extern "C" fn() -> usize>(b"lehr_cuda_sim_pending").expect("api.rs has it")() }
    }
}
