//! Memory of devices and of the host, copies, and what an address is.

use super::{functions, put};
use crate::machine::error;
use crate::queue::Work;
use crate::state::{Allocation, HostMemory, Result, State, current_device};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

const MEMORY_TYPE: c_int = 2;
const IS_MANAGED: c_int = 8;
const DEVICE_ORDINAL: c_int = 9;

/// A copy that takes its bytes at once and is done later, in the default stream.
fn stage(state: &mut State, to: u64, data: Arc<[u8]>) -> Result {
    state.enqueue(0, vec![Work::Staged { to, data }], &[]).map(|_| ())
}

/// All work of the current device is done before memory goes.
fn finish_all(state: &mut State) -> Result {
    let all = state.queue.of_device(current_device()?);
    state.finish(&all)
}

fn host_memory(state: &mut State, bytes: usize, address: Option<u64>) -> Result<*mut c_void> {
    let mut memory = vec![0; bytes].into_boxed_slice();
    let at = memory.as_mut_ptr();
    state.host.insert(at as usize, HostMemory { memory, device: current_device()?, address });
    Ok(at.cast())
}

functions! {
    Context cuMemGetInfo_v2(free: *mut usize, total: *mut usize) |state| {
        let memory = state.machine.memory;
        put(free, memory.saturating_sub(state.used(current_device()?)) as usize)?;
        put(total, memory as usize)
    }

    NoCapture cuMemAlloc_v2(address: *mut u64, bytes: usize) |state| {
        let (bytes, device) = (bytes as u64, current_device()?);
        if bytes == 0 {
            return Err(error::INVALID_VALUE);
        }
        if state.used(device) + bytes > state.machine.memory {
            return Err(error::OUT_OF_MEMORY);
        }
        let at = state.device.alloc(bytes).map_err(|_| error::OUT_OF_MEMORY)?;
        state.allocations.insert(at, Allocation { bytes, device });
        put(address, at)
    }

    /// Managed memory is for copies alone: kernels do not reach it.
    NoCapture cuMemAllocManaged(address: *mut u64, bytes: usize, _flags: c_uint) |state| {
        put(address, host_memory(state, bytes, None)? as u64)
    }

    NoCapture cuMemFree_v2(address: u64) |state| {
        finish_all(state)?;
        if state.host.get(&(address as usize)).is_some_and(|host| host.address.is_none()) {
            state.host.remove(&(address as usize));
            return Ok(());
        }
        state.allocations.remove(&address).ok_or(error::INVALID_VALUE)?;
        state.device.free(address).map_err(|_| error::INVALID_VALUE)
    }

    NoCapture cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, _flags: c_uint) |state| {
        let address = state.device.alloc(bytes as u64).map_err(|_| error::OUT_OF_MEMORY)?;
        put(memory, host_memory(state, bytes, Some(address))?)
    }

    Context cuMemHostGetDevicePointer_v2(address: *mut u64, memory: *mut c_void, _flags: c_uint) |state| {
        let host = state.host.get(&(memory as usize)).ok_or(error::INVALID_VALUE)?;
        put(address, host.address.ok_or(error::INVALID_VALUE)?)
    }

    NoCapture cuMemFreeHost(memory: *mut c_void) |state| {
        finish_all(state)?;
        let address = state.host.get(&(memory as usize)).and_then(|host| host.address).ok_or(error::INVALID_VALUE)?;
        state.host.remove(&(memory as usize));
        state.device.free(address).map_err(|_| error::INVALID_VALUE)
    }

    /// Managed memory is of the device where it was made.
    Context cuPointerGetAttribute(value: *mut c_void, attribute: c_int, address: u64) |state| {
        let (device, is_managed, is_host) = match (state.find(address), state.find_host(address as usize)) {
            (Some(allocation), _) => (allocation.device, false, false),
            (_, Some(host)) => (host.device, host.address.is_none(), host.address.is_some()),
            _ => return Err(error::INVALID_VALUE),
        };
        match attribute {
            MEMORY_TYPE => put(value.cast::<c_uint>(), if is_host { 1 } else { 2 }),
            IS_MANAGED => put(value.cast::<c_uint>(), is_managed as c_uint),
            DEVICE_ORDINAL => put(value.cast::<c_int>(), device),
            _ => Err(error::INVALID_VALUE),
        }
    }

    /// From pageable memory: it waits for what is in the default stream, takes the bytes, and returns before they are on the device.
    NoCapture cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) |state| {
        state.finish_stream(0)?;
        // SAFETY: the caller's bytes.
        stage(state, to, unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.into())
    }

    NoCapture cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) |state| {
        state.enqueue(0, vec![Work::Download { to: to as usize, from, bytes }], &[])?;
        state.finish_stream(0)
    }

    Context cuMemsetD8_v2(address: u64, value: u8, count: usize) |state| {
        stage(state, address, vec![value; count].into())
    }

    Context cuMemsetD32_v2(address: u64, value: u32, count: usize) |state| {
        stage(state, address, value.to_le_bytes().repeat(count).into())
    }

    Context cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: usize) |state| {
        state.enqueue(stream, vec![Work::Upload { to, from: from as usize, bytes }], &[]).map(|_| ())
    }

    Context cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: usize) |state| {
        state.enqueue(stream, vec![Work::Download { to: to as usize, from, bytes }], &[]).map(|_| ())
    }

    Context cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) |state| {
        state.enqueue(stream, vec![Work::Copy { to, from, bytes }], &[]).map(|_| ())
    }
}
