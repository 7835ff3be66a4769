//! Code: modules from PTX text, their functions, and launches.

use super::{functions, put};
use crate::machine::error;
use crate::queue::{Launch, Work};
use crate::state::{Function, current_device};
use lehr_ptx_sim::{Arg, Grid, Module, Param};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::slice::from_raw_parts;
use std::sync::Arc;

const JIT_ERROR_LOG: c_int = 5;
const JIT_ERROR_LOG_BYTES: c_int = 6;

functions! {
    NoCapture cuModuleLoadDataEx(
        module: *mut usize,
        text: *const c_void,
        count: c_uint,
        options: *mut c_int,
        values: *mut *mut c_void,
    ) |state| {
        // SAFETY: PTX is zero-terminated text, and there are as many options as values.
        let (text, options, values) = unsafe {
            let count = count as usize;
            (CStr::from_ptr(text.cast()), from_raw_parts(options.cast_const(), count), from_raw_parts(values, count))
        };
        let option = |number| options.iter().position(|&o| o == number).map(|at| values[at]);
        let complain = |message: &str| {
            if let (Some(log), Some(room)) = (option(JIT_ERROR_LOG), option(JIT_ERROR_LOG_BYTES)) {
                let count = message.len().min((room as usize).saturating_sub(1));
                // SAFETY: the log has so much room.
                unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), log.cast(), count) };
            }
        };
        let parsed = Module::parse(text.to_str().map_err(|_| error::INVALID_PTX)?).map_err(|why| {
            complain(&why.to_string());
            error::INVALID_PTX
        })?;
        if state.machine.refuses_ptx {
            complain("ptxas application ptx input, line 1; fatal   : Unresolved extern function 'made_up'");
            return Err(error::INVALID_PTX);
        }
        let wanted = parsed.target.trim_start_matches("sm_").parse::<c_int>();
        if !wanted.is_ok_and(|wanted| wanted <= state.machine.capability) {
            complain(&format!("{} is not this device's", parsed.target));
            return Err(error::INVALID_PTX);
        }
        let (major, minor) = parsed.version;
        // PTX 7.x came with CUDA 11.x, 8.x with 12.x.
        if (1000 * (major + 4) + 10 * minor) as c_int > state.machine.driver {
            return Err(error::UNSUPPORTED_PTX_VERSION);
        }
        let handle = state.handle();
        state.modules.insert(handle, Arc::new(parsed));
        put(module, handle)
    }

    NoCapture cuModuleUnload(module: usize) |state| {
        let all = state.queue.of_device(current_device()?);
        state.finish(&all)?;
        let module = state.modules.remove(&module).ok_or(error::INVALID_HANDLE)?;
        state.functions.retain(|_, function| !Arc::ptr_eq(&function.module, &module));
        Ok(())
    }

    Context cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) |state| {
        let module = state.modules.get(&module).ok_or(error::INVALID_HANDLE)?.clone();
        // SAFETY: names are zero-terminated.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        module.kernel(&name).ok_or(error::NOT_FOUND)?;
        let handle = state.handle();
        state.functions.insert(handle, Function { module, name, device: current_device()? });
        put(function, handle)
    }

    Context cuLaunchKernel(
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
    ) |state| {
        let device = current_device()?;
        let function = state.functions.get(&function).filter(|function| function.device == device);
        let Function { module, name, .. } = function.ok_or(error::INVALID_HANDLE)?;
        if !extra.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let argument = |(index, param): (usize, &Param)| {
            // SAFETY: there is an address for each parameter, of so many bytes.
            let bytes = unsafe { from_raw_parts((*parameters.add(index)).cast::<u8>(), param.size as usize) };
            Arg::Bytes(bytes.to_vec())
        };
        let args = module.kernel(name).ok_or(error::NOT_FOUND)?.params.iter().enumerate().map(argument).collect();
        let grid = Grid {
            blocks: [grid_x, grid_y, grid_z],
            threads: [block_x, block_y, block_z],
            dynamic_shared: shared_bytes,
        };
        let launch = Launch { module: module.clone(), kernel: name.clone(), grid, args };
        state.enqueue(stream, vec![Work::Launch(launch)], &[]).map(|_| ())
    }
}
