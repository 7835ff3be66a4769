//! The functions of the driver API, with its names and signatures; what they do is documented there.
// Every function's contract is that of the CUDA driver API.
#![allow(clippy::missing_safety_doc, non_snake_case)]

use crate::state::{Allocation, CONFIG, CONTEXTS, FIRST_CONTEXT, Launch, Mapped, Result, STATE, State, Stream, Work};
use crate::state::{current_device, error};
use lehr_ptx_sim::{Arg, Grid, Module};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// Runs a call that needs a current context.
fn call(body: impl FnOnce(&mut State) -> Result) -> c_int {
    let result = current_device().and_then(|_| body(&mut STATE.lock().expect("no call panics")));
    result.err().unwrap_or(0)
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

fn code(result: Result) -> c_int {
    result.err().unwrap_or(0)
}

fn known_device(device: c_int) -> Result {
    if (0..CONFIG.devices).contains(&device) { Ok(()) } else { Err(error::INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    code(put(version, CONFIG.driver))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    match (flags, CONFIG.devices) {
        (0, 0) => error::NO_DEVICE,
        (0, _) => 0,
        _ => error::INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(number: c_int, text: *mut *const c_char) -> c_int {
    let found = error::NAMES.iter().find(|(n, ..)| *n == number).ok_or(error::INVALID_VALUE);
    code(found.and_then(|(_, name, _)| put(text, name.as_ptr())))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(number: c_int, text: *mut *const c_char) -> c_int {
    let found = error::NAMES.iter().find(|(n, ..)| *n == number).ok_or(error::INVALID_VALUE);
    code(found.and_then(|(_, _, meaning)| put(text, meaning.as_ptr())))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    code(put(count, CONFIG.devices))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    code(known_device(ordinal).and_then(|()| put(device, ordinal)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> c_int {
    let text = c"Simulated GPU".to_bytes_with_nul();
    if known_device(device).is_err() || name.is_null() || (length as usize) < text.len() {
        return error::INVALID_VALUE;
    }
    // SAFETY: the caller has so many bytes.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    let number = match attribute {
        75 => CONFIG.capability / 10,
        76 => CONFIG.capability % 10,
        _ => return error::INVALID_VALUE,
    };
    code(known_device(device).and_then(|()| put(value, number)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> c_int {
    code(known_device(device).and_then(|()| {
        *STATE.lock().expect("no call panics").retained.entry(device).or_default() += 1;
        put(context, FIRST_CONTEXT + device as usize)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    match STATE.lock().expect("no call panics").retained.get_mut(&device) {
        Some(count) if *count > 0 => {
            *count -= 1;
            0
        }
        _ => error::INVALID_CONTEXT,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> c_int {
    code(current_device().and_then(|current| put(device, current)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: usize) -> c_int {
    if context.checked_sub(FIRST_CONTEXT).is_none_or(|device| known_device(device as c_int).is_err()) {
        return error::INVALID_CONTEXT;
    }
    CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut usize) -> c_int {
    let popped = CONTEXTS.with_borrow_mut(Vec::pop).ok_or(error::INVALID_CONTEXT);
    code(popped.and_then(|popped| put(context, popped)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    CONTEXTS.with_borrow_mut(Vec::pop);
    // SAFETY: a push takes any number.
    unsafe { cuCtxPushCurrent_v2(context) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    call(|state| {
        put(free, (CONFIG.memory - state.used(current_device()?)) as usize)?;
        put(total, CONFIG.memory as usize)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    call(|state| {
        let (bytes, device) = (bytes as u64, current_device()?);
        if bytes == 0 {
            return Err(error::INVALID_VALUE);
        }
        if state.used(device) + bytes > CONFIG.memory {
            return Err(error::OUT_OF_MEMORY);
        }
        let at = state.device.alloc(bytes).map_err(|_| error::OUT_OF_MEMORY)?;
        state.allocations.insert(at, Allocation { bytes, device });
        put(address, at)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    call(|state| {
        state.finish()?;
        state.allocations.remove(&address).ok_or(error::INVALID_VALUE)?;
        state.device.free(address).map_err(|_| error::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, _flags: c_uint) -> c_int {
    call(|state| {
        let address = state.device.alloc(bytes as u64).map_err(|_| error::OUT_OF_MEMORY)?;
        let mut host = vec![0; bytes].into_boxed_slice();
        let at = host.as_mut_ptr();
        state.mapped.insert(at as usize, Mapped { memory: host, address });
        put(memory, at.cast())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(address: *mut u64, memory: *mut c_void, _flags: c_uint) -> c_int {
    call(|state| {
        let mapped = state.mapped.get(&(memory as usize)).ok_or(error::INVALID_VALUE)?;
        put(address, mapped.address)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(memory: *mut c_void) -> c_int {
    call(|state| {
        state.finish()?;
        let mapped = state.mapped.remove(&(memory as usize)).ok_or(error::INVALID_VALUE)?;
        state.device.free(mapped.address).map_err(|_| error::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(value: *mut c_void, attribute: c_int, address: u64) -> c_int {
    let state = STATE.lock().expect("no call panics");
    let Some(allocation) = state.find(address) else { return error::INVALID_VALUE };
    code(match attribute {
        // Device memory.
        2 => put(value.cast::<c_uint>(), 2),
        9 => put(value.cast::<c_int>(), allocation.device),
        _ => Err(error::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_int {
    call(|state| {
        state.finish()?;
        state.enqueue(0, vec![Work::Upload { to, from: from as usize, bytes }])?;
        state.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_int {
    call(|state| {
        state.enqueue(0, vec![Work::Download { to: to as usize, from, bytes }])?;
        state.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(address: u64, value: u8, count: usize) -> c_int {
    let bytes = vec![value; count];
    // SAFETY: the bytes outlive the copy.
    unsafe { cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32_v2(address: u64, value: u32, count: usize) -> c_int {
    let words = vec![value; count];
    // SAFETY: the words outlive the copy.
    unsafe { cuMemcpyHtoD_v2(address, words.as_ptr().cast(), 4 * count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: usize) -> c_int {
    call(|state| state.enqueue(stream, vec![Work::Upload { to, from: from as usize, bytes }]))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: usize) -> c_int {
    call(|state| state.enqueue(stream, vec![Work::Download { to: to as usize, from, bytes }]))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    call(|state| state.enqueue(stream, vec![Work::Copy { to, from, bytes }]))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    text: *const c_void,
    count: c_uint,
    options: *mut c_int,
    values: *mut *mut c_void,
) -> c_int {
    call(|state| {
        // SAFETY: PTX is zero-terminated text, and there are as many options as values.
        let (text, options, values) = unsafe {
            let list = |at, count| std::slice::from_raw_parts(at, count);
            (
                CStr::from_ptr(text.cast()),
                list(options.cast_const(), count as usize),
                std::slice::from_raw_parts(values, count as usize),
            )
        };
        let option = |number| options.iter().position(|&o| o == number).map(|at| values[at]);
        let complain = |message: &str| {
            if let (Some(log), Some(room)) = (option(5), option(6)) {
                let count = message.len().min((room as usize).saturating_sub(1));
                // SAFETY: the log has so much room.
                unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), log.cast(), count) };
            }
        };
        let parsed = Module::parse(text.to_str().map_err(|_| error::INVALID_PTX)?).map_err(|why| {
            complain(&why.to_string());
            error::INVALID_PTX
        })?;
        if CONFIG.refuses_ptx {
            complain("ptxas application ptx input, line 1; fatal   : Unresolved extern function 'made_up'");
            return Err(error::INVALID_PTX);
        }
        let wanted = parsed.target.trim_start_matches("sm_").parse::<c_int>();
        if !wanted.is_ok_and(|wanted| wanted <= CONFIG.capability) {
            complain(&format!("{} is not this device's", parsed.target));
            return Err(error::INVALID_PTX);
        }
        let (major, minor) = parsed.version;
        // PTX 7.x came with CUDA 11.x, 8.x with 12.x.
        if (1000 * (major + 4) + 10 * minor) as c_int > CONFIG.driver {
            return Err(error::UNSUPPORTED_PTX_VERSION);
        }
        let handle = state.handle();
        state.modules.insert(handle, Arc::new(parsed));
        put(module, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: usize) -> c_int {
    call(|state| {
        state.finish()?;
        let module = state.modules.remove(&module).ok_or(error::INVALID_HANDLE)?;
        state.functions.retain(|_, (of, _)| !Arc::ptr_eq(of, &module));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> c_int {
    call(|state| {
        let module = state.modules.get(&module).ok_or(error::INVALID_HANDLE)?.clone();
        // SAFETY: names are zero-terminated.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        module.kernel(&name).ok_or(error::NOT_FOUND)?;
        let handle = state.handle();
        state.functions.insert(handle, (module, name));
        put(function, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> c_int {
    call(|state| {
        let (module, kernel) = state.functions.get(&function).ok_or(error::INVALID_HANDLE)?.clone();
        if !extra.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let argument = |(index, param): (usize, &lehr_ptx_sim::Param)| {
            // SAFETY: there is an address for each parameter, of so many bytes.
            let bytes =
                unsafe { std::slice::from_raw_parts((*parameters.add(index)).cast::<u8>(), param.size as usize) };
            Arg::Bytes(bytes.to_vec())
        };
        let args = module.kernel(&kernel).ok_or(error::NOT_FOUND)?.params.iter().enumerate().map(argument).collect();
        let grid = Grid {
            blocks: [grid_x, grid_y, grid_z],
            threads: [block_x, block_y, block_z],
            dynamic_shared: shared_bytes,
        };
        state.enqueue(stream, vec![Work::Launch(Launch { module, kernel, grid, args })])
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> c_int {
    call(|state| {
        let handle = state.handle();
        state.streams.insert(handle, Stream::default());
        put(stream, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    call(|state| state.streams.remove(&stream).map(|_| ()).ok_or(error::INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: usize) -> c_int {
    call(|state| {
        state.stream(stream)?;
        state.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> c_int {
    call(|state| {
        state.stream(stream)?;
        state.event(event)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: usize, _mode: c_int) -> c_int {
    call(|state| match state.stream(stream)? {
        stream_state if stream != 0 && stream_state.captured.is_none() => {
            stream_state.captured = Some(vec![]);
            Ok(())
        }
        _ => Err(error::CAPTURE_UNSUPPORTED),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> c_int {
    call(|state| {
        let work = state.stream(stream)?.captured.take().ok_or(error::CAPTURE_UNSUPPORTED)?;
        let handle = state.handle();
        state.graphs.insert(handle, work);
        put(graph, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> c_int {
    call(|state| {
        let handle = state.handle();
        state.events.insert(handle);
        put(event, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    call(|state| {
        state.event(event)?;
        state.events.remove(&event);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: usize, stream: usize) -> c_int {
    call(|state| {
        state.stream(stream)?;
        state.event(event)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: usize) -> c_int {
    call(|state| {
        state.event(event)?;
        state.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(instance: *mut usize, graph: usize, _flags: u64) -> c_int {
    call(|state| {
        let work = state.graphs.get(&graph).ok_or(error::INVALID_HANDLE)?.clone();
        let handle = state.handle();
        state.instances.insert(handle, work);
        put(instance, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    call(|state| state.graphs.remove(&graph).map(|_| ()).ok_or(error::INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(instance: usize) -> c_int {
    call(|state| state.instances.remove(&instance).map(|_| ()).ok_or(error::INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(instance: usize, stream: usize) -> c_int {
    call(|state| {
        let work = state.instances.get(&instance).ok_or(error::INVALID_HANDLE)?.clone();
        state.enqueue(stream, work)
    })
}

/// Not the driver's: how much is held, all kinds together, so that tests see what is left after a close.
#[unsafe(no_mangle)]
pub extern "C" fn lehr_cuda_sim_held() -> usize {
    let s = STATE.lock().expect("no call panics");
    let own_streams = s.streams.keys().filter(|&&handle| handle != 0).count();
    s.allocations.len()
        + s.mapped.len()
        + s.modules.len()
        + own_streams
        + s.events.len()
        + s.graphs.len()
        + s.instances.len()
        + s.retained.values().sum::<usize>()
}

/// Not the driver's: how much work nobody has waited for.
#[unsafe(no_mangle)]
pub extern "C" fn lehr_cuda_sim_pending() -> usize {
    STATE.lock().expect("no call panics").queue.len()
}
