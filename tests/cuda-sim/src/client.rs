//! A caller of the stand-in driver, for tests that have pointers to device memory.

use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};

/// Calls a function of the library by its name.
macro_rules! status {
    ($self:ident, $name:literal, ($($ty:ty),*), $($argument:expr),*) => {{
        // SAFETY: `api` defines the function with this signature, and the arguments are what it asks for.
        unsafe {
            let function = $self.library.get::<unsafe extern "C" fn($($ty),*) -> c_int>($name.as_bytes());
            function.expect("api has it")($($argument),*)
        }
    }};
}
macro_rules! call {
    ($self:ident, $name:literal, $($rest:tt)*) => {
        assert_eq!(status!($self, $name, $($rest)*), 0, $name)
    };
}

/// The driver's functions in this process: the same instance that models find. Errors panic.
pub struct DriverCalls {
    library: Library,
}

/// Opens the stand-in, and starts it.
///
/// # Panics
/// If it is not there.
pub fn driver_calls() -> DriverCalls {
    // SAFETY: our own library, which has no initialisers.
    let library = unsafe { Library::new(crate::library()) }.expect("the stand-in can be loaded");
    let driver = DriverCalls { library };
    status!(driver, "cuInit", (c_uint), 0);
    driver
}

impl DriverCalls {
    /// Makes another machine of it, by the words of LEHR_CUDA_SIM. What is held stays.
    pub fn machine(&self, words: &str) {
        let words = CString::new(words).expect("words without zeros");
        call!(self, "lehr_cuda_sim_machine", (*const c_char), words.as_ptr());
    }

    /// Makes a device's primary context current on this thread, as PyTorch and the CUDA runtime do.
    pub fn push(&self, device: c_int) {
        let mut context = 0usize;
        call!(self, "cuDevicePrimaryCtxRetain", (*mut usize, c_int), &mut context, device);
        call!(self, "cuCtxPushCurrent_v2", (usize), context);
    }

    /// Undoes a push.
    pub fn pop(&self) {
        let (mut context, mut device) = (0usize, 0);
        call!(self, "cuCtxGetDevice", (*mut c_int), &mut device);
        call!(self, "cuCtxPopCurrent_v2", (*mut usize), &mut context);
        call!(self, "cuDevicePrimaryCtxRelease_v2", (c_int), device);
    }

    /// The device of this thread's current context.
    pub fn current(&self) -> Option<c_int> {
        let mut device = 0;
        (status!(self, "cuCtxGetDevice", (*mut c_int), &mut device) == 0).then_some(device)
    }

    pub fn alloc(&self, bytes: usize) -> u64 {
        let mut address = 0;
        call!(self, "cuMemAlloc_v2", (*mut u64, usize), &mut address, bytes);
        address
    }

    /// Memory that host and device have at the same address.
    pub fn alloc_managed(&self, bytes: usize) -> u64 {
        let mut address = 0;
        call!(self, "cuMemAllocManaged", (*mut u64, usize, c_uint), &mut address, bytes, 1);
        address
    }

    pub fn free(&self, address: u64) {
        call!(self, "cuMemFree_v2", (u64), address);
    }

    /// The bytes are there when it returns.
    pub fn upload(&self, address: u64, bytes: &[u8]) {
        call!(self, "cuMemcpyHtoD_v2", (u64, *const c_void, usize), address, bytes.as_ptr().cast(), bytes.len());
        self.synchronize(0);
    }

    /// Waits for all work before, but that in non-blocking streams.
    pub fn download(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0u8; bytes];
        call!(self, "cuMemcpyDtoH_v2", (*mut c_void, u64, usize), data.as_mut_ptr().cast(), address, bytes);
        data
    }

    /// A stream that takes turns with the default stream.
    pub fn stream(&self) -> usize {
        self.stream_with(0)
    }

    /// A stream that does not, as PyTorch's.
    pub fn non_blocking_stream(&self) -> usize {
        self.stream_with(1)
    }

    fn stream_with(&self, flags: c_uint) -> usize {
        let mut stream = 0;
        call!(self, "cuStreamCreate", (*mut usize, c_uint), &mut stream, flags);
        stream
    }

    pub fn destroy_stream(&self, stream: usize) {
        call!(self, "cuStreamDestroy_v2", (usize), stream);
    }

    pub fn synchronize(&self, stream: usize) {
        call!(self, "cuStreamSynchronize", (usize), stream);
    }

    /// Begins a capture that forbids other threads what might break it: the driver's default, and PyTorch's.
    pub fn begin_capture(&self, stream: usize) {
        call!(self, "cuStreamBeginCapture_v2", (usize, c_int), stream, 0);
    }

    /// The driver's status: whether nothing has broken the capture.
    pub fn end_capture(&self, stream: usize) -> c_int {
        let mut graph = 0usize;
        let status = status!(self, "cuStreamEndCapture", (usize, *mut usize), stream, &mut graph);
        if status == 0 {
            call!(self, "cuGraphDestroy", (usize), graph);
        }
        status
    }

    /// How many allocations, modules, streams, events, graphs and retained contexts there are in this process.
    pub fn held(&self) -> usize {
        // SAFETY: `api` defines the function so.
        unsafe { self.library.get::<extern "C" fn() -> usize>(b"lehr_cuda_sim_held").expect("api has it")() }
    }

    /// How much work nobody has waited for: copies and launches.
    pub fn pending(&self) -> usize {
        // SAFETY: as above.
        unsafe { self.library.get::<extern "C" fn() -> usize>(b"lehr_cuda_sim_pending").expect("api has it")() }
    }
}
