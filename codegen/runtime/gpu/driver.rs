//! NVIDIA's driver, found when a model is opened: its functions, and what its errors are called.
//!
//! Signatures and numbers are those of the CUDA driver API (cuda.h); functions whose meaning has changed have versioned symbols, so the
//! names here mean the same in every later driver. A driver that is too old for the model still says what an address is: [`Basic`].

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ops::Deref;

use super::super::abi::status;
use super::super::text::Text;

/// A context, module, function, stream, event, graph, or library.
pub type Handle = *mut c_void;
/// An address on the device.
pub type Address = u64;

pub const SUCCESS: c_int = 0;
pub const INVALID_VALUE: c_int = 1;
pub const OUT_OF_MEMORY: c_int = 2;
pub const NO_DEVICE: c_int = 100;
pub const JIT_COMPILER_NOT_FOUND: c_int = 221;
pub const UNSUPPORTED_PTX_VERSION: c_int = 222;

pub const CAPABILITY_MAJOR: c_int = 75;
pub const CAPABILITY_MINOR: c_int = 76;
pub const JIT_ERROR_LOG: c_int = 5;
pub const JIT_ERROR_LOG_BYTES: c_int = 6;
pub const CAPTURE_THREAD_LOCAL: c_int = 1;
pub const CAPTURE_RELAXED: c_int = 2;
pub const STREAM_NON_BLOCKING: c_uint = 1;
pub const EVENT_DISABLE_TIMING: c_uint = 2;
/// Pinned host memory that kernels can reach.
pub const HOST_DEVICE_MAP: c_uint = 2;
pub const POINTER_MEMORY_TYPE: c_int = 2;
pub const POINTER_IS_MANAGED: c_int = 8;
pub const POINTER_DEVICE_ORDINAL: c_int = 9;
pub const MEMORY_TYPE_DEVICE: c_uint = 2;

/// The variable that names another library than `libcuda.so.1`.
const VARIABLE: &CStr = c"LEHR_CUDA_DRIVER";
const LIBRARY: &CStr = c"libcuda.so.1";
const RTLD_NOW: c_int = 2;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> Handle;
    fn dlsym(library: Handle, symbol: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn secure_getenv(name: *const c_char) -> *const c_char;
}

/// A function of the driver: success, or the number of an error.
type Call<T> = unsafe extern "C" fn(T) -> c_int;

macro_rules! functions {
    ($(#[$about:meta])* $all:ident ($($base:ident: $Base:ty)?)
     $($name:ident = $symbol:literal $(or $older:literal)? ($($argument:ty),*);)*) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        pub struct $all {
            $($base: $Base,)?
            $(pub $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl $all {
            /// The functions of a library, or the name of the first that it lacks.
            ///
            /// # Safety
            /// `library` is open, and what it calls by these names are the driver's functions.
            unsafe fn of(library: Handle $(, $base: $Base)?) -> Result<$all, &'static CStr> {
                Ok($all {
                    $($base,)?
                    $($name: {
                        // SAFETY: an open library and zero-terminated names.
                        let address = unsafe { find(library, &[$symbol $(, $older)?]) }.ok_or($symbol)?;
                        // SAFETY: of this signature, as the caller vouches.
                        unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> c_int>(address) }
                    },)*
                })
            }
        }
    };
}

functions! {
    /// What drivers for CUDA 7 and later have: whose memory an address is in.
    Basic ()
    init                   = c"cuInit" (c_uint);
    error_name             = c"cuGetErrorName" (c_int, *mut *const c_char);
    error_text             = c"cuGetErrorString" (c_int, *mut *const c_char);
    device_count           = c"cuDeviceGetCount" (*mut c_int);
    device                 = c"cuDeviceGet" (*mut c_int, c_int);
    primary_state          = c"cuDevicePrimaryCtxGetState" (c_int, *mut c_uint, *mut c_int);
    context_retain         = c"cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    context_release        = c"cuDevicePrimaryCtxRelease_v2" or c"cuDevicePrimaryCtxRelease" (c_int);
    context_current        = c"cuCtxGetCurrent" (*mut Handle);
    context_push           = c"cuCtxPushCurrent_v2" (Handle);
    context_pop            = c"cuCtxPopCurrent_v2" (*mut Handle);
    pointer_attribute      = c"cuPointerGetAttribute" (*mut c_void, c_int, Address);
}

functions! {
    /// The functions that a model calls.
    Driver (basic: Basic)
    device_name            = c"cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_attribute       = c"cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    context_device         = c"cuCtxGetDevice" (*mut c_int);
    memory_info            = c"cuMemGetInfo_v2" (*mut usize, *mut usize);
    alloc                  = c"cuMemAlloc_v2" (*mut Address, usize);
    free                   = c"cuMemFree_v2" (Address);
    host_alloc             = c"cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    host_address           = c"cuMemHostGetDevicePointer_v2" (*mut Address, *mut c_void, c_uint);
    host_free              = c"cuMemFreeHost" (*mut c_void);
    upload_on              = c"cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
    download_on            = c"cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
    copy_on                = c"cuMemcpyDtoDAsync_v2" (Address, Address, usize, Handle);
    module_load            = c"cuModuleLoadDataEx" (*mut Handle, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    module_unload          = c"cuModuleUnload" (Handle);
    module_function        = c"cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    launch                 = c"cuLaunchKernel" (Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
    stream_create          = c"cuStreamCreate" (*mut Handle, c_uint);
    stream_destroy         = c"cuStreamDestroy_v2" (Handle);
    stream_wait            = c"cuStreamSynchronize" (Handle);
    stream_wait_for        = c"cuStreamWaitEvent" (Handle, Handle, c_uint);
    capture_mode           = c"cuThreadExchangeStreamCaptureMode" (*mut c_int);
    capture_begin          = c"cuStreamBeginCapture_v2" (Handle, c_int);
    capture_end            = c"cuStreamEndCapture" (Handle, *mut Handle);
    is_capturing           = c"cuStreamIsCapturing" (Handle, *mut c_uint);
    event_create           = c"cuEventCreate" (*mut Handle, c_uint);
    event_destroy          = c"cuEventDestroy_v2" (Handle);
    event_record           = c"cuEventRecord" (Handle, Handle);
    event_wait             = c"cuEventSynchronize" (Handle);
    graph_instantiate      = c"cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    graph_destroy          = c"cuGraphDestroy" (Handle);
    graph_launch           = c"cuGraphLaunch" (Handle, Handle);
    graph_instance_destroy = c"cuGraphExecDestroy" (Handle);
}

impl Deref for Driver {
    type Target = Basic;

    fn deref(&self) -> &Basic {
        &self.basic
    }
}

/// The driver of this machine, of any version.
pub struct Found {
    library: Handle,
    /// The CUDA that it is for: 1000 * major + 10 * minor.
    pub version: u32,
    pub basic: Basic,
}

impl Found {
    /// The driver of this machine, if it is there and starts.
    ///
    /// # Safety
    /// `libcuda.so.1`, or the library that LEHR_CUDA_DRIVER names, is NVIDIA's driver or does as it does.
    pub unsafe fn here(text: &mut Text) -> Result<Found, i32> {
        // SAFETY: zero-terminated strings. The library stays open: the driver starts threads, which unloading would take the code from.
        let library = unsafe {
            let named = secure_getenv(VARIABLE.as_ptr());
            dlopen(if named.is_null() { LIBRARY.as_ptr() } else { named }, RTLD_NOW)
        };
        if library.is_null() {
            // SAFETY: null, or the thread's text of what failed.
            unsafe { text.str("there is no NVIDIA driver: ").c_str(dlerror()) };
            return Err(status::NO_DRIVER);
        }
        // SAFETY: the caller vouches for the library.
        let Some(version) = (unsafe { version(library) }) else {
            text.str("the library that is loaded for the NVIDIA driver does not say its version, so it is none");
            return Err(status::NO_DRIVER);
        };
        // SAFETY: as above.
        let basic = unsafe { Basic::of(library) }.map_err(|missing| lacks(text, missing))?;
        // SAFETY: the driver's function with its arguments.
        match unsafe { (basic.init)(0) } {
            SUCCESS => Ok(Found { library, version, basic }),
            NO_DEVICE => {
                text.str("the NVIDIA driver sees no GPU");
                Err(status::NO_DEVICE)
            }
            other => Err(basic.failed(text, "cuInit", other)),
        }
    }

    /// All of its functions, if it is for CUDA `needed` or later.
    ///
    /// # Safety
    /// As for [`Found::here`].
    pub unsafe fn driver(&self, needed: u32, text: &mut Text) -> Result<Driver, i32> {
        if self.version < needed {
            text.str("the NVIDIA driver is too old: it is for CUDA ");
            version_text(text, self.version).str(", the model needs one for CUDA ");
            version_text(text, needed).str(" or later");
            return Err(status::OLD_DRIVER);
        }
        // SAFETY: as above.
        unsafe { Driver::of(self.library, self.basic) }.map_err(|missing| lacks(text, missing))
    }
}

fn lacks(text: &mut Text, function: &CStr) -> i32 {
    // SAFETY: it ends with a zero.
    unsafe { text.str("the NVIDIA driver has no function ").c_str(function.as_ptr()) };
    status::OLD_DRIVER
}

impl Basic {
    /// Nothing, or the error's status and text.
    pub fn check(&self, text: &mut Text, what: &str, code: c_int) -> Result<(), i32> {
        if code == SUCCESS { Ok(()) } else { Err(self.failed(text, what, code)) }
    }

    /// `the NVIDIA driver failed: cuInit: CUDA_ERROR_UNKNOWN (999), unknown error`
    #[inline(never)]
    pub fn failed(&self, text: &mut Text, what: &str, code: c_int) -> i32 {
        let (start, status) = match code {
            OUT_OF_MEMORY => ("the GPU has not enough memory: ", status::DEVICE_MEMORY),
            _ => ("the NVIDIA driver failed: ", status::DEVICE),
        };
        text.str(start).str(what).str(": ");
        self.name(text, code);
        status
    }

    #[inline(never)]
    pub fn name(&self, text: &mut Text, code: c_int) {
        let (mut name, mut meaning) = (core::ptr::null(), core::ptr::null());
        // SAFETY: the driver gives null or constant texts.
        unsafe {
            (self.error_name)(code, &mut name);
            (self.error_text)(code, &mut meaning);
            text.c_str(name).str(" (").i64(code as i64).str(")");
            if !meaning.is_null() {
                text.str(", ").c_str(meaning);
            }
        }
    }

    /// Does something with a context current: the caller's, or else that of a device that has one. If there is none, nothing in this
    /// process has memory of a device, and nothing is done.
    ///
    /// # Safety
    /// The driver has started.
    pub unsafe fn within_any(
        &self,
        text: &mut Text,
        call: impl FnOnce(&mut Text) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let (mut context, mut count) = (core::ptr::null_mut(), 0);
        // SAFETY: the driver writes what it is asked for; what is retained is released, and what is pushed is popped.
        unsafe {
            self.check(text, "cuCtxGetCurrent", (self.context_current)(&mut context))?;
            if !context.is_null() {
                return call(text);
            }
            self.check(text, "cuDeviceGetCount", (self.device_count)(&mut count))?;
            for ordinal in 0..count {
                let (mut device, mut flags, mut is_active) = (0, 0, 0);
                self.check(text, "cuDeviceGet", (self.device)(&mut device, ordinal))?;
                let code = (self.primary_state)(device, &mut flags, &mut is_active);
                self.check(text, "cuDevicePrimaryCtxGetState", code)?;
                if is_active == 0 {
                    continue;
                }
                let code = (self.context_retain)(&mut context, device);
                self.check(text, "cuDevicePrimaryCtxRetain", code)?;
                let pushed = self.check(text, "cuCtxPushCurrent", (self.context_push)(context));
                let result = pushed.and_then(|()| {
                    let result = call(text);
                    (self.context_pop)(&mut context);
                    result
                });
                (self.context_release)(device);
                return result;
            }
        }
        Ok(())
    }
}

/// The first of some symbols that a library has.
///
/// # Safety
/// `library` is open.
unsafe fn find(library: Handle, symbols: &[&CStr]) -> Option<*mut c_void> {
    // SAFETY: an open library and zero-terminated names.
    symbols.iter().map(|symbol| unsafe { dlsym(library, symbol.as_ptr()) }).find(|address| !address.is_null())
}

/// What CUDA a driver is for, if it says.
///
/// # Safety
/// As for [`Basic::of`].
unsafe fn version(library: Handle) -> Option<u32> {
    // SAFETY: the library is open.
    let address = unsafe { find(library, &[c"cuDriverGetVersion"]) }?;
    let mut version = 0;
    // SAFETY: of this signature, as the caller vouches.
    let code = unsafe { core::mem::transmute::<*mut c_void, Call<*mut c_int>>(address)(&mut version) };
    (code == SUCCESS).then_some(version as u32)
}

/// 12040 as `12.4`.
pub fn version_text<'t, 'b>(text: &'t mut Text<'b>, version: u32) -> &'t mut Text<'b> {
    text.u64((version / 1000) as u64).byte(b'.').u64((version % 1000 / 10) as u64)
}
