//! The functions of the driver API, with its names and signatures; what they do is documented there. Here: devices and contexts.

mod execution;
mod memory;
mod module;

use crate::machine::{ERRORS, Machine, error};
use crate::state::{CAPTURE_MODE, CONTEXTS, FIRST_CONTEXT, Result, STATE, State, current_context, current_device};
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::{MutexGuard, PoisonError};

/// What a call needs, beyond what those before need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Nothing,
    /// `cuInit` was called.
    Start,
    /// A context is current on the thread.
    Context,
    /// No capture forbids it to the thread.
    NoCapture,
}

/// Functions: what they need, their names and parameters, and what they do with the state.
macro_rules! functions {
    ($($(#[$attribute:meta])* $needs:ident $name:ident($($argument:ident: $ty:ty),* $(,)?) |$state:ident| $body:block)*) => {$(
        /// # Safety
        /// As the CUDA driver API says.
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> std::ffi::c_int {
            crate::api::call(stringify!($name), crate::api::Needs::$needs, |$state: &mut crate::state::State| $body)
        }
    )*};
}
use functions;

fn call(name: &str, needs: Needs, body: impl FnOnce(&mut State) -> Result) -> c_int {
    let mut state = state();
    allowed(&mut state, name, needs).and_then(|()| body(&mut state)).err().unwrap_or(0)
}

fn allowed(state: &mut State, name: &str, needs: Needs) -> Result {
    if let Some(code) = state.machine.failure(name) {
        return Err(code);
    }
    if needs >= Needs::Start && !state.is_initialised {
        return Err(error::NOT_INITIALIZED);
    }
    if needs >= Needs::Context {
        current_device()?;
    }
    if needs >= Needs::NoCapture {
        state.refuse_in_captures()?;
    }
    Ok(())
}

/// A panic in one call is no reason for others to panic.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a result where the caller wants it.
fn put<T>(to: *mut T, value: T) -> Result {
    if to.is_null() {
        return Err(error::INVALID_VALUE);
    }
    // SAFETY: not null, and the caller's to be written.
    unsafe { to.write(value) };
    Ok(())
}

fn error_entry(number: c_int) -> Result<(&'static CStr, &'static CStr)> {
    let found = ERRORS.iter().find(|(n, ..)| *n == number);
    found.map(|&(_, name, meaning)| (name, meaning)).ok_or(error::INVALID_VALUE)
}

functions! {
    Nothing cuDriverGetVersion(version: *mut c_int) |state| {
        put(version, state.machine.driver)
    }

    Nothing cuInit(flags: c_uint) |state| {
        match (flags, state.machine.devices) {
            (0, 0) => Err(error::NO_DEVICE),
            (0, _) => {
                state.is_initialised = true;
                Ok(())
            }
            _ => Err(error::INVALID_VALUE),
        }
    }

    Nothing cuGetErrorName(number: c_int, text: *mut *const c_char) |_state| {
        put(text, error_entry(number)?.0.as_ptr())
    }

    Nothing cuGetErrorString(number: c_int, text: *mut *const c_char) |_state| {
        put(text, error_entry(number)?.1.as_ptr())
    }

    Start cuDeviceGetCount(count: *mut c_int) |state| {
        put(count, state.machine.devices)
    }

    Start cuDeviceGet(device: *mut c_int, ordinal: c_int) |state| {
        state.known_device(ordinal)?;
        put(device, ordinal)
    }

    Start cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) |state| {
        let text = c"Simulated GPU".to_bytes_with_nul();
        state.known_device(device)?;
        if name.is_null() || (length as usize) < text.len() {
            return Err(error::INVALID_VALUE);
        }
        // SAFETY: the caller has so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    }

    Start cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) |state| {
        state.known_device(device)?;
        match attribute {
            75 => put(value, state.machine.capability / 10),
            76 => put(value, state.machine.capability % 10),
            _ => Err(error::INVALID_VALUE),
        }
    }

    Start cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) |state| {
        state.known_device(device)?;
        put(context, FIRST_CONTEXT + device as usize)?;
        *state.retained.entry(device).or_default() += 1;
        Ok(())
    }

    Start cuDevicePrimaryCtxRelease_v2(device: c_int) |state| {
        match state.retained.get_mut(&device) {
            Some(count) if *count > 0 => {
                *count -= 1;
                Ok(())
            }
            _ => Err(error::INVALID_CONTEXT),
        }
    }

    Start cuDevicePrimaryCtxGetState(device: c_int, flags: *mut c_uint, active: *mut c_int) |state| {
        state.known_device(device)?;
        put(flags, 0)?;
        put(active, state.is_retained(device) as c_int)
    }

    Context cuCtxGetDevice(device: *mut c_int) |_state| {
        put(device, current_device()?)
    }

    Start cuCtxGetCurrent(context: *mut usize) |_state| {
        put(context, current_context().unwrap_or(0))
    }

    Start cuCtxPushCurrent_v2(context: usize) |state| {
        let device = context.checked_sub(FIRST_CONTEXT).ok_or(error::INVALID_CONTEXT)? as c_int;
        state.known_device(device).map_err(|_| error::INVALID_CONTEXT)?;
        if !state.is_retained(device) {
            return Err(error::CONTEXT_IS_DESTROYED);
        }
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
        Ok(())
    }

    Start cuCtxPopCurrent_v2(context: *mut usize) |_state| {
        put(context, CONTEXTS.with_borrow_mut(Vec::pop).ok_or(error::INVALID_CONTEXT)?)
    }

    Start cuCtxSetCurrent(context: usize) |state| {
        let device = context.checked_sub(FIRST_CONTEXT).ok_or(error::INVALID_CONTEXT)? as c_int;
        state.known_device(device).map_err(|_| error::INVALID_CONTEXT)?;
        CONTEXTS.with_borrow_mut(|contexts| {
            contexts.pop();
            contexts.push(context);
        });
        Ok(())
    }

    NoCapture cuCtxSynchronize() |state| {
        let all = state.queue.of_device(current_device()?);
        state.finish(&all)
    }

    Start cuThreadExchangeStreamCaptureMode(mode: *mut c_int) |_state| {
        if mode.is_null() {
            return Err(error::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's.
        unsafe { mode.write(CAPTURE_MODE.replace(mode.read())) };
        Ok(())
    }
}

/// Not the driver's: how much is held, all kinds together, so that tests see what is left after a close.
#[unsafe(no_mangle)]
pub extern "C" fn lehr_cuda_sim_held() -> usize {
    let s = state();
    s.allocations.len()
        + s.host.len()
        + s.modules.len()
        + s.own_streams()
        + s.events.len()
        + s.graphs.len()
        + s.instances.len()
        + s.retained.values().sum::<usize>()
}

/// Not the driver's: how much work nobody has waited for.
#[unsafe(no_mangle)]
pub extern "C" fn lehr_cuda_sim_pending() -> usize {
    state().queue.pending()
}

/// Not the driver's: makes another machine of it, by the words of LEHR_CUDA_SIM; 1 if they mean nothing.
///
/// # Safety
/// `words` is zero-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lehr_cuda_sim_machine(words: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let words = unsafe { CStr::from_ptr(words) }.to_string_lossy();
    match Machine::parse(&words) {
        Ok(machine) => {
            state().machine = machine;
            0
        }
        Err(why) => {
            eprintln!("the stand-in driver: {why}");
            1
        }
    }
}
