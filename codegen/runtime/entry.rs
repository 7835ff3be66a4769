//! The functions behind the descriptor: open, run and close a workspace, with every check before anything is touched.
//!
//! A workspace is laid out as header (`Workspace`), input and output pointers, worker records, arena, and what a model for GPUs keeps
//! (`gpu`). A run on it is exclusive: a second one at the same time gets `BUSY` and changes nothing.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_void};
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU32, Ordering};

use super::abi::{ABI_VERSION, ALIGN, LehrModel, LehrTensor, MAGIC, MAX_THREADS, RunCtx, isa, place, status};
use super::check::check_all;
use super::cpu;
use super::gpu;
use super::pool::{Pool, Worker};
use super::sys::{self, HUGE_PAGE};
use super::text::{TEXT_BYTES, Text};

const OPEN: u64 = u64::from_le_bytes(*b"LEHRopen");
const CLOSED: u64 = u64::from_le_bytes(*b"LEHRshut");
const FAILED: u64 = u64::from_le_bytes(*b"LEHRfail");
/// With fewer bytes than this, not even the reason for a refusal fits.
const SMALLEST: u64 = 64;

#[repr(C, align(64))]
pub(super) struct Workspace {
    stub: Stub,
    pub ctx: RunCtx,
    fault: UnsafeCell<i32>,
    busy: AtomicU32,
    pub text: [u8; TEXT_BYTES],
    pool: Pool,
    /// What a model for GPUs keeps; null for others.
    pub device: *mut c_void,
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
pub(super) struct Layout {
    pointers: u64,
    workers: u64,
    arena: u64,
    /// Whether the arena begins at the first huge page in its range, and has such pages to itself.
    huge: bool,
    pub device: u64,
    bytes: u64,
    threads: u32,
}

impl Layout {
    /// A model without code for the CPU has no threads. A model for GPUs keeps a part of its own, behind the arena.
    fn of(model: &LehrModel, threads: u32) -> Option<Layout> {
        let threads = if model.main.is_some() { threads_or_default(threads) } else { 1 };
        let pointers = size_of::<Workspace>() as u64;
        let n_pointers = model.n_inputs as u64 + model.n_outputs as u64;
        let workers = pointers + n_pointers * size_of::<*const u8>() as u64;
        let end = workers + threads.saturating_sub(1) as u64 * size_of::<Worker>() as u64;
        let arena = end.checked_next_multiple_of(ALIGN as u64)?;
        // A caller's memory is seldom aligned to huge pages.
        let huge = model.arena_bytes >= HUGE_PAGE;
        let room = if huge {
            model.arena_bytes.checked_next_multiple_of(HUGE_PAGE)?.checked_add(HUGE_PAGE - ALIGN as u64)?
        } else {
            model.arena_bytes
        };
        let device = arena.checked_add(room)?.checked_next_multiple_of(ALIGN as u64)?;
        // SAFETY: the plan of a valid model is null or one.
        let own = unsafe { model.gpu.as_ref() }.map_or(0, |plan| gpu::bytes(model, plan));
        let bytes = device.checked_add(own)?.checked_next_multiple_of(ALIGN as u64)?;
        (bytes <= i64::MAX as u64).then_some(Layout { pointers, workers, arena, huge, device, bytes, threads })
    }

    /// The offset of the arena in a workspace at an address.
    fn arena_in(&self, workspace: u64) -> u64 {
        let skip = if self.huge { workspace.wrapping_add(self.arena).wrapping_neg() % HUGE_PAGE } else { 0 };
        self.arena.wrapping_add(skip)
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
        Layout::of(&*model, threads).map_or(0, |layout| layout.bytes)
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
    // SAFETY: the contract of the descriptor; `begin` has checked the model and the workspace when it returns them.
    unsafe {
        match begin(model, workspace, bytes, threads) {
            Err(code) => code,
            Ok((ws, layout)) => open_cpu(ws, &*model, &layout, &mut Text::new(&mut (*ws).text)),
        }
    }
}

/// What every open begins with: checks the model and the workspace, and writes a header that counts as failed so far.
///
/// # Safety
/// As for [`lehr_rt_open`].
pub(super) unsafe fn begin(
    model: *const LehrModel,
    workspace: *mut c_void,
    bytes: u64,
    threads: u32,
) -> Result<(*mut Workspace, Layout), i32> {
    if workspace.is_null() {
        return Err(status::NULL);
    }
    if !workspace.cast::<Workspace>().is_aligned() {
        return Err(status::BAD_WORKSPACE);
    }
    if bytes < SMALLEST {
        return Err(status::WORKSPACE_TOO_SMALL);
    }
    let stub = workspace.cast::<Stub>();
    // SAFETY: aligned and at least 64 bytes, which the caller owns. An open workspace is one whose state and own address both say so.
    let already_open = unsafe { is_open(stub) };
    if already_open {
        return Err(status::BUSY);
    }
    // SAFETY: as above; the caller owns the bytes.
    let refuse = |code: i32, reason: &'static [u8]| unsafe {
        stub.write(Stub { state: FAILED, error: reason.as_ptr().cast(), this: workspace, model });
        code
    };
    // SAFETY: the contract of the descriptor.
    if let Some((code, reason)) = unsafe { model_error(model) } {
        return Err(refuse(code, reason));
    }
    // SAFETY: just checked.
    let spec = unsafe { &*model };
    let Some(layout) = Layout::of(spec, threads) else {
        return Err(refuse(status::BAD_MODEL, b"the model's arena is larger than the address space\0"));
    };
    if bytes < size_of::<Workspace>() as u64 {
        let reason = b"the workspace is smaller than its header; ask workspace_bytes\0";
        return Err(refuse(status::WORKSPACE_TOO_SMALL, reason));
    }

    let ws = workspace.cast::<Workspace>();
    // SAFETY: the header fits, and nobody else uses it.
    unsafe {
        ws.write_bytes(0, 1);
        // It counts as failed until the end.
        refuse(status::OK, b"\0");
        (*stub).error = (&raw const (*ws).text).cast();
    }
    if bytes < layout.bytes {
        // SAFETY: the text was zeroed above and is not borrowed elsewhere.
        let mut text = unsafe { Text::new(&mut (*ws).text) };
        text.str("the workspace has ").u64(bytes).str(" bytes, the model needs ").u64(layout.bytes);
        text.str(" for ").u64(layout.threads as u64).str(if layout.threads == 1 { " thread" } else { " threads" });
        return Err(status::WORKSPACE_TOO_SMALL);
    }
    // SAFETY: all parts lie within the layout, which fits; the header is ours.
    unsafe {
        let at = |offset: u64| workspace.cast::<u8>().add(offset as usize);
        (*ws).ctx = RunCtx {
            arena: at(layout.arena_in(workspace as u64)),
            inputs: at(layout.pointers).cast(),
            outputs: at(layout.pointers).cast::<*mut u8>().add(spec.n_inputs as usize),
            weights: spec.weights,
            fault: (*ws).fault.get(),
            pool: (&raw mut (*ws).pool).cast(),
            cpu: cpu::detect(),
            threads: layout.threads,
            reserved: 0,
        };
    }
    Ok((ws, layout))
}

/// Checks the CPU and starts the threads.
///
/// # Safety
/// A workspace and its layout from [`begin`]; `text` is the workspace's.
pub(super) unsafe fn open_cpu(ws: *mut Workspace, model: &LehrModel, layout: &Layout, text: &mut Text) -> i32 {
    // SAFETY: the header was written by `begin`.
    let cpu = unsafe { (*ws).ctx.cpu };
    let missing = model.isa_required & !cpu;
    if missing != 0 {
        text.str("this CPU, or its operating system, lacks");
        missing_features(text, missing);
        text.str(", which the model was compiled for");
        return status::UNSUPPORTED_CPU;
    }
    let oversubscribed = layout.threads > cpu::default_threads();
    // SAFETY: the workers' records lie within the layout, which fits; the header is ours.
    unsafe {
        if layout.huge {
            sys::advise_huge_pages((*ws).ctx.arena, model.arena_bytes.next_multiple_of(HUGE_PAGE));
        }
        (&raw mut (*ws).pool).write(Pool::new(oversubscribed));
        let workers = ws.cast::<u8>().add(layout.workers as usize).cast();
        if !Pool::start(&raw mut (*ws).pool, workers, layout.threads) {
            text.str("the system refused to start ").u64(layout.threads.wrapping_sub(1) as u64).str(" threads");
            return status::THREADS;
        }
        set_open(ws);
    }
    status::OK
}

/// # Safety
/// All that the workspace's runs need is ready.
pub(super) unsafe fn set_open(ws: *mut Workspace) {
    // SAFETY: the caller's promise.
    unsafe { (*ws).stub.state = OPEN };
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
    // SAFETY: the contract of the descriptor; the pointers were checked when the CPU runs.
    unsafe {
        checked(model, workspace, (inputs, n_inputs), (outputs, n_outputs), |ws, spec, text| run_cpu(ws, spec, text))
    }
}

/// The same; the CPU has no streams.
///
/// # Safety
/// As for [`lehr_rt_run`].
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_run_on(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: *const LehrTensor,
    n_inputs: u32,
    outputs: *const LehrTensor,
    n_outputs: u32,
    stream: *mut c_void,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        checked(model, workspace, (inputs, n_inputs), (outputs, n_outputs), |ws, spec, text| {
            if !stream.is_null() {
                text.str("there is a stream, but the model runs on the CPU");
                return status::DEVICE;
            }
            run_cpu(ws, spec, text)
        })
    }
}

/// A call on an open workspace, alone on it, with what it says of errors.
///
/// # Safety
/// As the descriptor's fields say.
pub(super) unsafe fn exclusively(
    model: *const LehrModel,
    workspace: *mut c_void,
    call: impl FnOnce(*mut Workspace, &LehrModel, &mut Text) -> i32,
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
    let code = unsafe { call(ws, &*model, &mut Text::new(&mut (*ws).text)) };
    busy.store(0, Ordering::Release);
    code
}

/// Checks the tensors, stores their addresses where runs find them, and runs.
///
/// # Safety
/// As the descriptor's `run` says.
pub(super) unsafe fn checked(
    model: *const LehrModel,
    workspace: *mut c_void,
    inputs: (*const LehrTensor, u32),
    outputs: (*const LehrTensor, u32),
    run: impl FnOnce(*mut Workspace, &LehrModel, &mut Text) -> i32,
) -> i32 {
    // SAFETY: the caller's promise; the addresses lie where `begin` has put them, with room for those of the model.
    unsafe {
        exclusively(model, workspace, |ws, spec, text| {
            let pointers = (*ws).ctx.inputs.cast_mut().cast::<*mut u8>();
            let ready = check_all(text, "input", "inputs", inputs, (spec.inputs, spec.n_inputs), pointers);
            let ready = ready.and_then(|()| {
                let pointers = pointers.add(spec.n_inputs as usize);
                check_all(text, "output", "outputs", outputs, (spec.outputs, spec.n_outputs), pointers)
            });
            match ready {
                Err(code) => code,
                Ok(()) => run(ws, spec, text),
            }
        })
    }
}

/// # Safety
/// The workspace is open on the CPU, and the addresses of tensors were stored.
pub(super) unsafe fn run_cpu(ws: *mut Workspace, model: &LehrModel, text: &mut Text) -> i32 {
    // SAFETY: the caller's promise; the context was made by `begin`.
    unsafe {
        let ctx = &(*ws).ctx;
        ctx.fault.write(0);
        if let Some(main) = model.main {
            main(ctx);
        }
        fault_status(text, (model.faults, model.n_faults), ctx.fault.read())
    }
}

/// Waits for nothing: the CPU's runs end before they return.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_wait(model: *const LehrModel, workspace: *mut c_void) -> i32 {
    // SAFETY: the contract of the descriptor.
    unsafe { exclusively(model, workspace, |_, _, _| status::OK) }
}

/// What computes an open workspace's runs.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_runs_on(workspace: *const c_void) -> *const c_char {
    // SAFETY: the contract of the descriptor.
    match unsafe { opened(workspace) } {
        Some(_) => c"the CPU".as_ptr(),
        None => NOT_OPEN.as_ptr(),
    }
}

/// Where an open workspace's runs are computed, as a number.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_device(workspace: *const c_void) -> i32 {
    // SAFETY: the contract of the descriptor.
    match unsafe { opened(workspace) } {
        Some(_) => place::ON_CPU,
        None => place::NOT_OPEN,
    }
}

pub(super) const NOT_OPEN: &CStr = c"this is not a workspace that is open";

/// The workspace at an address, if it is open.
///
/// # Safety
/// `workspace` is null, misaligned, or has 64 readable bytes.
pub(super) unsafe fn opened(workspace: *const c_void) -> Option<*const Workspace> {
    let ws = workspace.cast::<Workspace>();
    // SAFETY: as the caller promised; looked at only if aligned.
    (!ws.is_null() && ws.is_aligned() && unsafe { is_open(ws.cast()) }).then_some(ws)
}

/// # Safety
/// There are so many texts.
pub(super) unsafe fn fault_status(text: &mut Text, faults: (*const *const c_char, u32), fault: i32) -> i32 {
    if fault == 0 {
        return status::OK;
    }
    let index = fault.wrapping_sub(1) as u32;
    if index < faults.1 {
        // SAFETY: below their number.
        unsafe { text.c_str(*faults.0.add(index as usize)) };
    } else {
        text.str("the model stopped with the unknown fault ").i64(fault as i64);
    }
    status::FAULT
}

/// Stops a workspace's threads.
///
/// # Safety
/// As the descriptor's field says: `model` is null or a descriptor, a workspace is null or has the stated size (was given to `open`).
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_close(model: *const LehrModel, workspace: *mut c_void) -> i32 {
    // SAFETY: the contract of the descriptor; a model for the CPU is open on it.
    unsafe { close_with(model, workspace, |ws, model| stop_cpu(ws, model)) }
}

/// # Safety
/// The workspace is open on the CPU.
pub(super) unsafe fn stop_cpu(ws: *mut Workspace, model: &LehrModel) {
    // SAFETY: the workers are where `open_cpu` has put them.
    unsafe {
        if let Some(layout) = Layout::of(model, (*ws).ctx.threads) {
            let workers = ws.cast::<u8>().add(layout.workers as usize).cast();
            Pool::stop(&raw mut (*ws).pool, workers);
        }
    }
}

/// # Safety
/// As the descriptor's field says; `stop` ends what the workspace's open has begun.
pub(super) unsafe fn close_with(
    model: *const LehrModel,
    workspace: *mut c_void,
    stop: impl FnOnce(*mut Workspace, &LehrModel),
) -> i32 {
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
        stop(ws, &*model);
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
        status::NO_DRIVER => c"there is no NVIDIA driver",
        status::OLD_DRIVER => c"the NVIDIA driver is too old for the model",
        status::NO_DEVICE => c"there is no GPU that can run the model",
        status::DEVICE_MEMORY => c"the GPU has not enough memory",
        status::DEVICE_CODE => c"the NVIDIA driver refuses the model's code",
        status::DEVICE => c"a call of the NVIDIA driver failed, or data lies where the model cannot reach it",
        _ => c"unknown status",
    }
    .as_ptr()
}
