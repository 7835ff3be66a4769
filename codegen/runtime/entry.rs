//! The functions behind the descriptor: open, run and close a workspace, with every check before anything is touched.
//!
//! A workspace is laid out as header (`Workspace`), input and output pointers, worker records, arena. A run on it is exclusive: a
//! second one at the same time gets `BUSY` and changes nothing.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_void};
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU32, Ordering};

use super::abi::{
    ABI_VERSION, ALIGN, LehrModel, LehrTensor, MAGIC, MAX_THREADS, RunCtx, TensorSpec, dtype_info, isa, status,
};
use super::cpu;
use super::pool::{Pool, Worker};
use super::text::{TEXT_BYTES, Text};

const OPEN: u64 = u64::from_le_bytes(*b"LEHRopen");
const CLOSED: u64 = u64::from_le_bytes(*b"LEHRshut");
const FAILED: u64 = u64::from_le_bytes(*b"LEHRfail");
/// With fewer bytes than this, not even the reason for a refusal fits.
const SMALLEST: u64 = 64;

#[repr(C, align(64))]
struct Workspace {
    stub: Stub,
    ctx: RunCtx,
    fault: UnsafeCell<i32>,
    busy: AtomicU32,
    text: [u8; TEXT_BYTES],
    pool: Pool,
}

/// The first bytes of every workspace, also of one that could not be opened.
#[repr(C)]
struct Stub {
    state: u64,
    error: *const c_char,
    /// The workspace's own address: a copied workspace is not an open one.
    this: *const c_void,
    model: *const LehrModel,
}

const _: () = assert!(size_of::<Stub>() <= SMALLEST as usize && align_of::<Workspace>() == ALIGN);

/// Where the parts of a workspace begin.
struct Layout {
    pointers: u64,
    workers: u64,
    arena: u64,
    bytes: u64,
}

impl Layout {
    fn of(model: &LehrModel, threads: u32) -> Option<Layout> {
        let pointers = size_of::<Workspace>() as u64;
        let n_pointers = model.n_inputs as u64 + model.n_outputs as u64;
        let workers = pointers + n_pointers * size_of::<*const u8>() as u64;
        let end = workers + threads.saturating_sub(1) as u64 * size_of::<Worker>() as u64;
        let arena = end.checked_next_multiple_of(ALIGN as u64)?;
        let bytes = arena.checked_add(model.arena_bytes)?.checked_next_multiple_of(ALIGN as u64)?;
        (bytes <= i64::MAX as u64).then_some(Layout { pointers, workers, arena, bytes })
    }
}

fn threads_or_default(threads: u32) -> u32 {
    if threads == 0 { cpu::default_threads() } else { threads.min(MAX_THREADS) }
}

/// What is wrong with a model, if anything: null, not a descriptor, or of another version.
///
/// # Safety
/// `model` is null or points to readable memory of a descriptor's size.
unsafe fn model_error(model: *const LehrModel) -> Option<(i32, &'static [u8])> {
    if model.is_null() {
        return Some((status::NULL, b"the model is null\0"));
    }
    if !model.is_aligned() {
        return Some((status::BAD_MODEL, b"the model pointer is not a descriptor: it is misaligned\0"));
    }
    // SAFETY: readable, as the caller promised, and aligned; the fields are read one by one since the rest may be garbage.
    let (magic, version, bytes) = unsafe { ((*model).magic, (*model).abi_version, (*model).struct_bytes) };
    if magic != MAGIC {
        return Some((status::BAD_MODEL, b"the model pointer is not a descriptor: its first bytes are not LEHRMODL\0"));
    }
    if version != ABI_VERSION || (bytes as usize) < size_of::<LehrModel>() {
        return Some((status::BAD_MODEL, b"the model has another ABI version than this runtime\0"));
    }
    None
}

/// Bytes of workspace for so many threads (0: the default); 0 for a model that is not valid.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_workspace_bytes(model: *const LehrModel, threads: u32) -> u64 {
    // SAFETY: the contract of the descriptor: `model` is null or a descriptor.
    unsafe {
        if model_error(model).is_some() {
            return 0;
        }
        Layout::of(&*model, threads_or_default(threads)).map_or(0, |layout| layout.bytes)
    }
}

/// Starts a workspace.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_open(
    model: *const LehrModel,
    workspace: *mut c_void,
    bytes: u64,
    threads: u32,
) -> i32 {
    if workspace.is_null() {
        return status::NULL;
    }
    if !workspace.cast::<Workspace>().is_aligned() {
        return status::BAD_WORKSPACE;
    }
    if bytes < SMALLEST {
        return status::WORKSPACE_TOO_SMALL;
    }
    let stub = workspace.cast::<Stub>();
    // SAFETY: aligned and at least 64 bytes, which the caller owns. An open workspace is one whose state and own address both say so.
    let already_open = unsafe { is_open(stub) };
    if already_open {
        return status::BUSY;
    }
    // SAFETY: as above; the caller owns the bytes.
    let refuse = |code: i32, reason: &'static [u8]| unsafe {
        stub.write(Stub { state: FAILED, error: reason.as_ptr().cast(), this: workspace, model });
        code
    };
    // SAFETY: the contract of the descriptor.
    if let Some((code, reason)) = unsafe { model_error(model) } {
        return refuse(code, reason);
    }
    // SAFETY: just checked.
    let spec = unsafe { &*model };
    let wanted = threads_or_default(threads);
    let Some(layout) = Layout::of(spec, wanted) else {
        return refuse(status::BAD_MODEL, b"the model's arena is larger than the address space\0");
    };
    if bytes < size_of::<Workspace>() as u64 {
        return refuse(status::WORKSPACE_TOO_SMALL, b"the workspace is smaller than its header; ask workspace_bytes\0");
    }

    let ws = workspace.cast::<Workspace>();
    // SAFETY: the header fits, and nobody else uses it.
    unsafe {
        ws.write_bytes(0, 1);
        // It counts as failed until the end.
        refuse(status::OK, b"\0");
        (*stub).error = (&raw const (*ws).text).cast();
    }
    // SAFETY: the text was zeroed above and is not borrowed elsewhere.
    let mut text = unsafe { Text::new(&mut (*ws).text) };
    if bytes < layout.bytes {
        text.str("the workspace has ").u64(bytes).str(" bytes, the model needs ").u64(layout.bytes);
        text.str(" for ").u64(wanted as u64).str(if wanted == 1 { " thread" } else { " threads" });
        return status::WORKSPACE_TOO_SMALL;
    }
    let cpu = cpu::detect();
    let missing = spec.isa_required & !cpu;
    if missing != 0 {
        text.str("this CPU, or its operating system, lacks");
        missing_features(&mut text, missing);
        text.str(", which the model was compiled for");
        return status::UNSUPPORTED_CPU;
    }

    let base = workspace.cast::<u8>();
    let oversubscribed = wanted > cpu::default_threads();
    // SAFETY: all parts lie within the layout, which fits; the header is ours.
    unsafe {
        let at = |offset: u64| base.add(offset as usize);
        (&raw mut (*ws).pool).write(Pool::new(oversubscribed));
        (*ws).ctx = RunCtx {
            arena: at(layout.arena),
            inputs: at(layout.pointers).cast(),
            outputs: at(layout.pointers).cast::<*mut u8>().add(spec.n_inputs as usize),
            weights: spec.weights,
            fault: (*ws).fault.get(),
            pool: (&raw mut (*ws).pool).cast(),
            cpu,
            threads: wanted,
            reserved: 0,
        };
        if !Pool::start(&raw mut (*ws).pool, at(layout.workers).cast(), wanted) {
            text.str("the system refused to start ").u64(wanted as u64 - 1).str(" threads");
            return status::THREADS;
        }
        (*stub).state = OPEN;
    }
    status::OK
}

fn missing_features(text: &mut Text, missing: u64) {
    let mut separator = " ";
    for bit in 0..64u32 {
        if missing >> bit & 1 == 0 {
            continue;
        }
        text.str(separator);
        separator = ", ";
        match isa::NAMES.get(bit as usize) {
            Some(name) => text.str(name),
            None if 1u64 << bit == isa::NEON => text.str("NEON"),
            None => text.str("a feature that this runtime does not know (bit ").u64(bit as u64).str(")"),
        };
    }
}

/// # Safety
/// `stub` is aligned and readable.
unsafe fn is_open(stub: *const Stub) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*stub).state == OPEN && (*stub).this == stub.cast() }
}

/// The open workspace at an address, or why there is none. The texts of these cases are static, see [`lehr_rt_last_error`].
///
/// # Safety
/// `workspace` is null, misaligned, or has 64 readable bytes.
unsafe fn open_workspace(model: *const LehrModel, workspace: *mut c_void) -> Result<*mut Workspace, i32> {
    if model.is_null() || workspace.is_null() {
        return Err(status::NULL);
    }
    if !workspace.cast::<Workspace>().is_aligned() {
        return Err(status::BAD_WORKSPACE);
    }
    let stub = workspace.cast::<Stub>();
    // SAFETY: aligned, and readable as the caller promised.
    unsafe {
        if !is_open(stub) || (*stub).model != model {
            return Err(status::BAD_WORKSPACE);
        }
    }
    Ok(workspace.cast())
}

/// One inference.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_run(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: *const LehrTensor,
    n_inputs: u32,
    outputs: *const LehrTensor,
    n_outputs: u32,
) -> i32 {
    // SAFETY: the contract of the descriptor: a workspace was given to `open`.
    let ws = match unsafe { open_workspace(model, workspace) } {
        Ok(ws) => ws,
        Err(code) => return code,
    };
    // SAFETY: open workspaces have a whole header; only shared access so far.
    let busy = unsafe { &(*ws).busy };
    if busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        return status::BUSY;
    }
    // SAFETY: `busy` makes this call the only user of the text; the model is the one that was checked at open.
    let code = unsafe {
        let mut text = Text::new(&mut (*ws).text);
        let spec = &*model;
        let ctx = &(*ws).ctx;
        let pointers = ctx.inputs.cast_mut().cast::<*mut u8>();
        let ready = check_all(&mut text, "input", "inputs", (inputs, n_inputs), (spec.inputs, spec.n_inputs), pointers)
            .and_then(|()| {
                let pointers = pointers.add(spec.n_inputs as usize);
                check_all(
                    &mut text,
                    "output",
                    "outputs",
                    (outputs, n_outputs),
                    (spec.outputs, spec.n_outputs),
                    pointers,
                )
            });
        match ready {
            Err(code) => code,
            Ok(()) => {
                ctx.fault.write(0);
                (spec.main)(ctx);
                fault_status(&mut text, spec, ctx.fault.read())
            }
        }
    };
    busy.store(0, Ordering::Release);
    code
}

/// # Safety
/// `model` is valid.
unsafe fn fault_status(text: &mut Text, model: &LehrModel, fault: i32) -> i32 {
    if fault == 0 {
        return status::OK;
    }
    let index = fault.wrapping_sub(1) as u32;
    if index < model.n_faults {
        // SAFETY: a valid model has `n_faults` texts.
        unsafe { text.c_str(*model.faults.add(index as usize)) };
    } else {
        text.str("the model stopped with the unknown fault ").i64(fault as i64);
    }
    status::FAULT
}

/// Checks one side of a call and stores the data pointers where compiled code finds them.
///
/// # Safety
/// `given` is null or has so many tensors, `wanted` has so many specifications, `pointers` has room for those.
unsafe fn check_all(
    text: &mut Text,
    one: &str,
    many: &str,
    given: (*const LehrTensor, u32),
    wanted: (*const TensorSpec, u32),
    pointers: *mut *mut u8,
) -> Result<(), i32> {
    if given.1 != wanted.1 {
        text.str("the call has ").u64(given.1 as u64).byte(b' ').str(if given.1 == 1 { one } else { many });
        text.str(", the model has ").u64(wanted.1 as u64);
        return Err(status::BAD_COUNT);
    }
    if given.0.is_null() && given.1 > 0 {
        text.str("the array of ").str(many).str(" is null");
        return Err(status::NULL);
    }
    for index in 0..given.1 as usize {
        // SAFETY: the counts agree, and `index` is below them.
        unsafe {
            let (tensor, spec) = (&*given.0.add(index), &*wanted.0.add(index));
            let code = check_one(text, (one, index), tensor, spec);
            if code != status::OK {
                return Err(code);
            }
            pointers.add(index).write(tensor.data.cast());
        }
    }
    Ok(())
}

/// # Safety
/// `spec` is of a valid model; `tensor.dims` is null or has `tensor.rank` numbers.
unsafe fn check_one(text: &mut Text, which: (&str, usize), tensor: &LehrTensor, spec: &TensorSpec) -> i32 {
    // SAFETY: names are zero-terminated in a valid model.
    let about = |text: &mut Text| unsafe {
        text.str(which.0).byte(b' ').u64(which.1 as u64).str(" '").c_str(spec.name).str("': ");
    };
    let (needed, element) = dtype_info(spec.dtype).unwrap_or(("a dtype that this runtime does not know", 1));
    if tensor.dtype != spec.dtype {
        about(text);
        match dtype_info(tensor.dtype) {
            Some((name, _)) => text.str("dtype is ").str(name),
            None => text.str("dtype is the unknown code ").u64(tensor.dtype as u64),
        };
        text.str(", the model needs ").str(needed);
        return status::BAD_DTYPE;
    }
    if tensor.rank != spec.rank {
        about(text);
        text.str("rank is ").u64(tensor.rank as u64).str(", the model needs ").u64(spec.rank as u64);
        return status::BAD_SHAPE;
    }
    if tensor.dims.is_null() && tensor.rank > 0 {
        about(text);
        text.str("dims is null");
        return status::NULL;
    }
    for axis in 0..tensor.rank as usize {
        // SAFETY: both have `rank` dimensions.
        if unsafe { *tensor.dims.add(axis) != *spec.dims.add(axis) } {
            about(text);
            // SAFETY: as above.
            unsafe {
                text.str("dims are ").dims(tensor.dims, tensor.rank);
                text.str(", the model needs ").dims(spec.dims, spec.rank);
            }
            return status::BAD_SHAPE;
        }
    }
    if tensor.bytes != spec.bytes {
        about(text);
        text.str("size is ").u64(tensor.bytes).str(" bytes, the model needs ").u64(spec.bytes);
        return status::BAD_SIZE;
    }
    if tensor.data.is_null() && spec.bytes > 0 {
        about(text);
        text.str("data is null");
        return status::NULL;
    }
    // Element sizes are powers of two.
    if tensor.data.addr() as u64 & element.wrapping_sub(1) != 0 {
        about(text);
        text.str("data is not aligned to its element of ").u64(element).str(" bytes");
        return status::MISALIGNED;
    }
    status::OK
}

/// Stops a workspace's threads.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_close(model: *const LehrModel, workspace: *mut c_void) -> i32 {
    // SAFETY: the contract of the descriptor: a workspace was given to `open`.
    let ws = match unsafe { open_workspace(model, workspace) } {
        Ok(ws) => ws,
        Err(code) => return code,
    };
    // SAFETY: the workspace is open; `busy` keeps runs out, and stays set since there is nothing to run any more.
    unsafe {
        if (*ws).busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return status::BUSY;
        }
        if let Some(layout) = Layout::of(&*model, (*ws).ctx.threads) {
            let workers = ws.cast::<u8>().add(layout.workers as usize).cast();
            Pool::stop(&raw mut (*ws).pool, workers);
        }
        (*ws).stub.state = CLOSED;
        (*ws).stub.error = c"".as_ptr();
    }
    status::OK
}

/// The text of a workspace's last error.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_last_error(workspace: *const c_void) -> *const c_char {
    if workspace.is_null() {
        return c"the workspace, or the model, is null".as_ptr();
    }
    if !workspace.cast::<Workspace>().is_aligned() {
        return c"the workspace is not aligned to 64 bytes".as_ptr();
    }
    let stub = workspace.cast::<Stub>();
    // SAFETY: the contract of the descriptor: such an address was given to `open` with at least 64 bytes.
    unsafe {
        if (*stub).this != workspace || !matches!((*stub).state, OPEN | FAILED | CLOSED) {
            return c"this is not a workspace that was opened".as_ptr();
        }
        (*stub).error
    }
}

/// What a status means.
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub extern "C" fn lehr_rt_status_text(code: i32) -> *const c_char {
    match code {
        status::OK => c"ok",
        status::NULL => c"a pointer is null",
        status::BAD_MODEL => c"not a model, or one of another ABI version",
        status::BAD_WORKSPACE => c"not 64-byte aligned, not opened, or opened for another model",
        status::WORKSPACE_TOO_SMALL => c"the workspace is too small",
        status::UNSUPPORTED_CPU => c"the CPU lacks a feature that the model needs",
        status::BAD_COUNT => c"wrong number of inputs or outputs",
        status::BAD_DTYPE => c"wrong dtype",
        status::BAD_SHAPE => c"wrong rank or dims",
        status::BAD_SIZE => c"wrong size in bytes",
        status::MISALIGNED => c"data is not aligned to its element",
        status::BUSY => c"the workspace is in use",
        status::THREADS => c"threads could not be started",
        status::FAULT => c"the data made an operator fail",
        _ => c"unknown status",
    }
    .as_ptr()
}
