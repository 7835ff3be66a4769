//! Models for NVIDIA GPUs: the functions behind their descriptor, in place of `entry`'s.
//!
//! Opening finds the driver and a device, and prepares everything that a run needs (`device`). If that fails, a model that also has code
//! for the CPU is opened on it and keeps the reason; any other is refused. A workspace is the CPU's with a [`Device`] behind.

mod device;
mod driver;
mod run;

use core::ffi::{c_char, c_void};

use super::abi::{GpuPlan, LehrModel, LehrTensor, place, status};
use super::entry::{self, Workspace};
use super::text::Text;
use device::Device;

pub(super) use device::bytes;

/// Starts a workspace on a device; on the CPU if there is none and the model has code for it.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_open(
    model: *const LehrModel,
    workspace: *mut c_void,
    bytes: u64,
    threads: u32,
) -> i32 {
    // SAFETY: the contract of the descriptor; `begin` has checked the model and the workspace when it returns them, and the layout has
    // room for the device's part.
    unsafe {
        let (ws, layout) = match entry::begin(model, workspace, bytes, threads) {
            Ok(ready) => ready,
            Err(code) => return code,
        };
        let model = &*model;
        let Some(plan) = model.gpu.as_ref() else {
            Text::new(&mut (*ws).text).str("the model has no code for a GPU");
            return status::BAD_MODEL;
        };
        let device = ws.cast::<u8>().add(layout.device as usize).cast::<Device>();
        Device::write(device, model, plan);
        (*ws).device = device.cast();
        let refused = (*device).start(model, plan, &mut Text::new(&mut (*ws).text));
        match refused {
            Ok(()) => {
                entry::set_open(ws);
                status::OK
            }
            Err(code) if model.main.is_none() => code,
            Err(_) => {
                (*device).stands_in(&(*ws).text);
                entry::open_cpu(ws, model, &layout, &mut Text::new(&mut (*ws).text))
            }
        }
    }
}

/// One inference; all outputs are there when it returns.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_run(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: *const LehrTensor,
    n_inputs: u32,
    outputs: *const LehrTensor,
    n_outputs: u32,
) -> i32 {
    // SAFETY: the contract of the descriptor.
    unsafe { run(model, workspace, (inputs, n_inputs), (outputs, n_outputs), None) }
}

/// One inference in the order of a stream.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`);
/// `stream` is null or of the device's primary context.
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_run_on(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: *const LehrTensor,
    n_inputs: u32,
    outputs: *const LehrTensor,
    n_outputs: u32,
    stream: *mut c_void,
) -> i32 {
    // SAFETY: the contract of the descriptor.
    unsafe { run(model, workspace, (inputs, n_inputs), (outputs, n_outputs), Some(stream)) }
}

/// # Safety
/// As the descriptor's `run` and `run_on` say.
unsafe fn run(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: (*const LehrTensor, u32),
    outputs: (*const LehrTensor, u32),
    stream: Option<*mut c_void>,
) -> i32 {
    // SAFETY: the contract of the descriptor; an open workspace has a device and the tensors' addresses.
    unsafe {
        entry::checked(model, workspace, inputs, outputs, |ws, model, text| {
            let addresses = (*ws).ctx.inputs.cast::<*mut c_void>();
            with_device(ws, model, |device, plan| {
                if device.is_active() {
                    return device.run(model, plan, addresses, stream, text);
                }
                match device.refuse_on_cpu(model, addresses, stream, text) {
                    Ok(()) => entry::run_cpu(ws, model, text),
                    Err(code) => code,
                }
            })
        })
    }
}

/// Waits for the runs that `run_on` has not waited for.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_wait(model: *const LehrModel, workspace: *mut c_void) -> i32 {
    // SAFETY: the contract of the descriptor.
    unsafe {
        entry::exclusively(model, workspace, |ws, model, text| {
            with_device(ws, model, |device, plan| device.wait(plan, text))
        })
    }
}

/// Gives back what the workspace holds of the device, or stops its threads.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_close(model: *const LehrModel, workspace: *mut c_void) -> i32 {
    // SAFETY: the contract of the descriptor; a workspace that is not open on the device is open on the CPU.
    unsafe {
        entry::close_with(model, workspace, |ws, model| {
            let was_active = with_device(ws, model, |device, _| {
                let active = device.is_active();
                device.stop(model);
                active as i32
            });
            if was_active == 0 {
                entry::stop_cpu(ws, model);
            }
        })
    }
}

/// What computes an open workspace's runs.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_runs_on(workspace: *const c_void) -> *const c_char {
    // SAFETY: the contract of the descriptor; an open workspace of a model for GPUs has a device.
    unsafe {
        match entry::opened(workspace).and_then(|ws| (*ws).device.cast::<Device>().as_ref()) {
            Some(device) => device.about(),
            None => entry::NOT_OPEN.as_ptr(),
        }
    }
}

/// Where an open workspace's runs are computed, as a number.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_gpu_device(workspace: *const c_void) -> i32 {
    // SAFETY: the contract of the descriptor; an open workspace of a model for GPUs has a device.
    unsafe {
        match entry::opened(workspace).and_then(|ws| (*ws).device.cast::<Device>().as_ref()) {
            Some(device) if device.is_active() => device.ordinal,
            Some(_) => place::ON_CPU,
            None => place::NOT_OPEN,
        }
    }
}

/// # Safety
/// The workspace is open, of a model for GPUs, and nobody else uses it.
unsafe fn with_device(ws: *mut Workspace, model: &LehrModel, call: impl FnOnce(&mut Device, &GpuPlan) -> i32) -> i32 {
    // SAFETY: `lehr_gpu_open` has set the device for a model with a plan.
    unsafe {
        match ((*ws).device.cast::<Device>().as_mut(), model.gpu.as_ref()) {
            (Some(device), Some(plan)) => call(device, plan),
            _ => status::BAD_MODEL,
        }
    }
}
