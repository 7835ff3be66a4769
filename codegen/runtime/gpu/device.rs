//! A model on a device: memory, code and one graph of all launches, made when opening, and runs that replay it.
//!
//! ```text
//! open    retain the primary context; load the PTX; allocate weights, arena, inputs, outputs; upload weights; capture the launches
//! run     inputs -> device; launch the graph; outputs -> caller; wait, unless all of the caller's tensors are on the device
//! close   give everything back
//! ```
//!
//! Every call makes the primary context current and then restores what was: it is the context in which the pointers of PyTorch and of the
//! CUDA runtime are valid. It also tells the driver not to mind captures on other threads, which what it does has nothing to do with. The
//! caller's tensors are copied to and from memory of our own, whose addresses the graph has; so they may be anywhere, and aligned to their
//! elements alone. The fault word is pinned host memory that kernels write through; it is looked at after every wait.

use core::ffi::{c_char, c_int, c_void};
use core::mem::size_of;
use core::ptr::{null_mut, slice_from_raw_parts};

use super::super::abi::{GpuBuffer, GpuKernel, GpuPlan, GpuStep, GpuUpload, LehrModel, memory, status};
use super::super::text::{TEXT_BYTES, Text};
use super::driver::{self, Address, Basic, Driver, Found, Handle};

/// What of ptxas' complaints is kept.
const LOG_BYTES: usize = 2048;
/// Allocations besides inputs and outputs: weights and arena.
pub(super) const OWN: usize = 2;

/// A model on a device, or the reason why it is on the CPU. It lies in the workspace, arrays behind it.
#[repr(C)]
pub struct Device {
    /// There from the moment that the driver has started, whatever its version.
    pub(super) basic: Option<Basic>,
    /// There if it is not too old for the model.
    driver: Option<Driver>,
    /// Whether runs are computed here.
    pub(super) is_active: bool,
    pub(super) ordinal: c_int,
    context: Handle,
    module: Handle,
    pub(super) stream: Handle,
    /// Recorded behind each run.
    pub(super) done: Handle,
    pub(super) graph: Handle,
    /// There may be work that nobody has waited for.
    pub(super) is_pending: bool,
    /// Null if no kernel has faults.
    pub(super) fault: *mut u32,
    fault_address: Address,
    pub(super) arrays: Arrays,
    about: [u8; TEXT_BYTES],
    log: [u8; LOG_BYTES],
}

/// What is as long as the model says.
#[derive(Clone, Copy)]
pub(super) struct Arrays {
    /// Allocations: weights, arena, inputs, outputs; 0 where there is none.
    pub memory: *mut Address,
    /// By input, then output: whether a run's tensor is in the device's memory.
    pub places: *mut Place,
    /// By kernel.
    functions: *mut Handle,
    /// Arguments of one launch, and their addresses.
    values: *mut u64,
    pointers: *mut *mut c_void,
}

/// Where a tensor of the caller's is.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Or managed memory, which is both's.
    Host = 0,
    Device = 1,
}

fn tensors(model: &LehrModel) -> usize {
    model.n_inputs as usize + model.n_outputs as usize
}

fn allocations(model: &LehrModel) -> usize {
    OWN + tensors(model)
}

/// Bytes of a workspace for a device and its arrays.
pub fn bytes(model: &LehrModel, plan: &GpuPlan) -> u64 {
    let words = (allocations(model) + tensors(model)) as u64 + plan.n_kernels as u64 + 2 * plan.most_args as u64;
    (size_of::<Device>() as u64).next_multiple_of(8) + 8 * words
}

/// `count` items, or none for a null pointer.
///
/// # Safety
/// `items` is null or has so many, for as long as the result lives.
pub(super) unsafe fn all<'a, T>(items: *const T, count: u32) -> &'a [T] {
    if items.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { &*slice_from_raw_parts(items, count as usize) }
}

impl Device {
    /// Initialises a device that holds nothing.
    ///
    /// # Safety
    /// `this` is aligned and has [`bytes`] of the model.
    pub unsafe fn write(this: *mut Device, model: &LehrModel, plan: &GpuPlan) {
        // SAFETY: all lies within the bytes that the caller promised.
        unsafe {
            this.cast::<u8>().write_bytes(0, bytes(model, plan) as usize);
            let memory = this.cast::<u8>().add(size_of::<Device>().next_multiple_of(8)).cast::<Address>();
            let places = memory.add(allocations(model)).cast::<Place>();
            let functions = places.add(tensors(model)).cast::<Handle>();
            let values = functions.add(plan.n_kernels as usize).cast::<u64>();
            let pointers = values.add(plan.most_args as usize).cast();
            (&raw mut (*this).basic).write(None);
            (&raw mut (*this).driver).write(None);
            (*this).arrays = Arrays { memory, places, functions, values, pointers };
        }
    }

    pub fn is_active(&self) -> bool {
        self.is_active
    }

    pub fn about(&self) -> *const c_char {
        (&raw const self.about).cast()
    }

    /// Notes why the CPU computes the runs.
    pub fn stands_in(&mut self, why: &[u8; TEXT_BYTES]) {
        let mut about = Text::new(&mut self.about);
        about.str("the CPU, since ");
        // SAFETY: an error's text ends with a zero.
        unsafe { about.c_str(why.as_ptr().cast()) };
    }

    /// Finds the driver and a device, and makes the model ready there. What a failure leaves holds nothing of the device.
    ///
    /// # Safety
    /// The plan is the model's, and the device was written for both.
    pub unsafe fn start(&mut self, model: &LehrModel, plan: &GpuPlan, text: &mut Text) -> Result<(), i32> {
        // SAFETY: the library is NVIDIA's, or one that the user vouches for; the driver's functions get what they ask for.
        unsafe {
            let found = Found::here(text)?;
            self.basic = Some(found.basic);
            let driver = found.driver(plan.driver_version, text)?;
            self.driver = Some(driver);
            self.ordinal = choose(&driver, plan, text)?;
            let mut context = null_mut();
            driver.check(text, "cuDevicePrimaryCtxRetain", (driver.context_retain)(&mut context, self.ordinal))?;
            self.context = context;
            let ready = self.within(text, |this, driver, text| this.prepare(driver, model, plan, text));
            if ready.is_err() {
                self.stop_for(allocations(model));
                return ready;
            }
            self.is_active = true;
            let mut about = Text::new(&mut self.about);
            describe(&driver, self.ordinal, &mut about);
            driver::version_text(about.str(", driver for CUDA "), found.version);
        }
        Ok(())
    }

    /// Does something with the model's context current, and restores the caller's.
    ///
    /// # Safety
    /// The context is retained.
    pub(super) unsafe fn within(
        &mut self,
        text: &mut Text,
        call: impl FnOnce(&mut Device, &Driver, &mut Text) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let Some(driver) = self.driver else {
            text.str("the workspace has no driver");
            return Err(status::DEVICE);
        };
        // SAFETY: the context is retained; what is entered is left again.
        unsafe {
            let mode = self.enter(&driver, text)?;
            let result = call(self, &driver, text);
            leave(&driver, mode);
            result
        }
    }

    /// Makes the model's context current, and captures on other threads none of this thread's concern; what was before, for [`leave`].
    unsafe fn enter(&self, driver: &Driver, text: &mut Text) -> Result<c_int, i32> {
        let (mut mode, mut popped) = (driver::CAPTURE_RELAXED, null_mut());
        // SAFETY: the driver's functions get what they ask for; what fails half-way is undone.
        unsafe {
            driver.check(text, "cuCtxPushCurrent", (driver.context_push)(self.context))?;
            let exchanged = (driver.capture_mode)(&mut mode);
            let exchanged = driver.check(text, "cuThreadExchangeStreamCaptureMode", exchanged);
            if exchanged.is_err() {
                (driver.context_pop)(&mut popped);
            }
            exchanged.map(|()| mode)
        }
    }

    /// # Safety
    /// The model's context is current.
    unsafe fn prepare(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        plan: &GpuPlan,
        text: &mut Text,
    ) -> Result<(), i32> {
        // SAFETY: the driver's functions get what they ask for; the arrays are as long as the model says.
        unsafe {
            // Such a stream takes its turn with the default stream's work, where the caller's tensors may come from.
            driver.check(text, "cuStreamCreate", (driver.stream_create)(&mut self.stream, 0))?;
            driver.check(text, "cuEventCreate", (driver.event_create)(&mut self.done, driver::EVENT_DISABLE_TIMING))?;
            self.load(driver, plan, text)?;
            self.allocate(driver, model, plan, text)?;
            self.upload(driver, model, plan, text)?;
            self.capture(driver, model, plan, text)
        }
    }

    /// The weights. They are there when it returns, whatever stream a run is in: a copy from pageable memory that does not name its
    /// stream may return before, and other streams need not wait for the default stream.
    unsafe fn upload(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        plan: &GpuPlan,
        text: &mut Text,
    ) -> Result<(), i32> {
        // SAFETY: the uploads lie within the library's weights and the device's, as `ModelImage::check` has seen.
        unsafe {
            let weights = *self.arrays.memory;
            for GpuUpload { from, to, bytes } in all(plan.uploads, plan.n_uploads) {
                let source = model.weights.add(*from as usize).cast();
                let code = (driver.upload_on)(weights + to, source, *bytes as usize, self.stream);
                driver.check(text, "cuMemcpyHtoDAsync of the weights", code)?;
            }
            driver.check(text, "uploading the weights", (driver.stream_wait)(self.stream))
        }
    }

    /// The module and its functions.
    unsafe fn load(&mut self, driver: &Driver, plan: &GpuPlan, text: &mut Text) -> Result<(), i32> {
        let mut options = [driver::JIT_ERROR_LOG, driver::JIT_ERROR_LOG_BYTES];
        let mut values: [*mut c_void; 2] = [(&raw mut self.log).cast(), LOG_BYTES as *mut c_void];
        // SAFETY: zero-terminated text; options and values as the driver asks for them, the log's size as a value in place of a pointer.
        let code = unsafe {
            (driver.module_load)(&mut self.module, plan.ptx.cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
        };
        match code {
            driver::SUCCESS => {}
            driver::OUT_OF_MEMORY => {
                text.str("the GPU has not enough memory for the model's code");
                return Err(status::DEVICE_MEMORY);
            }
            driver::JIT_COMPILER_NOT_FOUND => {
                text.str("the NVIDIA driver cannot compile the model's PTX, for its library libnvidia-ptxjitcompiler.so.1 is missing: ");
                text.str("install it (it comes with the driver, of the same version), or in a container, have it mounted as libcuda is");
                return Err(status::DEVICE_CODE);
            }
            other => {
                let version = plan.ptx_version as u64;
                text.str("the NVIDIA driver refuses the model's PTX ").u64(version / 10).byte(b'.').u64(version % 10);
                text.str(": ");
                driver.name(text, other);
                let [.., last] = &mut self.log;
                *last = 0;
                if self.log.first().is_some_and(|&byte| byte != 0) {
                    // SAFETY: it ends with a zero, as was just seen to.
                    unsafe { text.str(": ").c_str((&raw const self.log).cast()) };
                }
                let too_old = other == driver::UNSUPPORTED_PTX_VERSION;
                return Err(if too_old { status::OLD_DRIVER } else { status::DEVICE_CODE });
            }
        }
        // SAFETY: the plan's kernels have zero-terminated names, and there is a place for each function.
        unsafe {
            for (index, GpuKernel { name, .. }) in all(plan.kernels, plan.n_kernels).iter().enumerate() {
                let function = self.arrays.functions.add(index);
                let code = (driver.module_function)(function, self.module, *name);
                driver.check(text, "cuModuleGetFunction", code)?;
            }
        }
        Ok(())
    }

    /// The fault word, and memory for weights, intermediate values, inputs and outputs.
    unsafe fn allocate(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        plan: &GpuPlan,
        text: &mut Text,
    ) -> Result<(), i32> {
        // SAFETY: the specifications are as many as the model says, and there is a place for each allocation.
        unsafe {
            if plan.n_faults > 0 {
                let mut word = null_mut();
                let code = (driver.host_alloc)(&mut word, size_of::<u32>(), driver::HOST_DEVICE_MAP);
                driver.check(text, "cuMemHostAlloc", code)?;
                self.fault = word.cast();
                self.fault.write_volatile(0);
                let code = (driver.host_address)(&mut self.fault_address, word, 0);
                driver.check(text, "cuMemHostGetDevicePointer", code)?;
            }
            let (mut free, mut total) = (0, 0);
            driver.check(text, "cuMemGetInfo", (driver.memory_info)(&mut free, &mut total))?;
            let io = all(model.inputs, model.n_inputs).iter().chain(all(model.outputs, model.n_outputs));
            let sizes = [plan.weights_bytes, plan.arena_bytes].into_iter().chain(io.map(|spec| spec.bytes));
            for (index, bytes) in sizes.enumerate().filter(|(_, bytes)| *bytes > 0) {
                match (driver.alloc)(self.arrays.memory.add(index), bytes as usize) {
                    driver::OUT_OF_MEMORY => return Err(out_of_memory(model, plan, (free, total), text)),
                    code => driver.check(text, "cuMemAlloc", code)?,
                }
            }
        }
        Ok(())
    }

    /// All launches of a run as one graph; none if there are none.
    unsafe fn capture(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        plan: &GpuPlan,
        text: &mut Text,
    ) -> Result<(), i32> {
        if plan.n_steps == 0 {
            return Ok(());
        }
        let (mut stream, mut graph) = (null_mut(), null_mut());
        // SAFETY: the stream is ours, nothing else uses it, and the graph is instantiated once and destroyed.
        unsafe {
            // While a stream is captured that takes its turn with the default stream, nobody may use that one.
            driver.check(text, "cuStreamCreate", (driver.stream_create)(&mut stream, driver::STREAM_NON_BLOCKING))?;
            let begun = (driver.capture_begin)(stream, driver::CAPTURE_THREAD_LOCAL);
            let captured = driver.check(text, "cuStreamBeginCapture", begun).and_then(|()| {
                let launched = self.launch_all(driver, model, plan, stream, text);
                let ended = (driver.capture_end)(stream, &mut graph);
                launched.and_then(|()| driver.check(text, "cuStreamEndCapture", ended))
            });
            (driver.stream_destroy)(stream);
            let ready = captured.and_then(|()| {
                let code = (driver.graph_instantiate)(&mut self.graph, graph, 0);
                driver.check(text, "cuGraphInstantiate", code)
            });
            give_back(&mut graph, |graph| (driver.graph_destroy)(graph));
            ready
        }
    }

    unsafe fn launch_all(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        plan: &GpuPlan,
        stream: Handle,
        text: &mut Text,
    ) -> Result<(), i32> {
        // SAFETY: the plan's numbers are positions in its own tables, and `most_args` is the length of the arrays of arguments.
        unsafe {
            let Arrays { functions, values, pointers, .. } = self.arrays;
            for GpuStep { kernel, first_fault, args, n_args } in all(plan.steps, plan.n_steps) {
                let mut count = 0;
                let mut put = |value: u64| {
                    let slot = values.add(count);
                    slot.write(value);
                    pointers.add(count).write(slot.cast());
                    count += 1;
                };
                for buffer in all(plan.args.add(*args as usize), *n_args) {
                    put(self.address(model, buffer));
                }
                let launched = &*plan.kernels.add(*kernel as usize);
                if launched.takes_fault != 0 {
                    put(self.fault_address);
                    put(*first_fault as u64);
                }
                let [x, y, z] = launched.grid;
                let function = *functions.add(*kernel as usize);
                let code = (driver.launch)(function, x, y, z, launched.threads, 1, 1, 0, stream, pointers, null_mut());
                if code != driver::SUCCESS {
                    text.str("kernel ").c_str(launched.name).str(": ");
                    return driver.check(text, "cuLaunchKernel", code);
                }
            }
        }
        Ok(())
    }

    unsafe fn address(&self, model: &LehrModel, buffer: &GpuBuffer) -> Address {
        let index = match buffer.memory {
            memory::WEIGHTS => 0,
            memory::ARENA => 1,
            memory::INPUT => OWN + buffer.at as usize,
            _ => OWN + model.n_inputs as usize + buffer.at as usize,
        };
        let offset = if matches!(buffer.memory, memory::WEIGHTS | memory::ARENA) { buffer.at } else { 0 };
        // SAFETY: inputs and outputs are below their numbers, as `ModelImage::check` has seen.
        unsafe { *self.arrays.memory.add(index) + offset }
    }

    /// Gives everything back, after what is pending. Errors are left: there is nobody who could do more about them.
    ///
    /// # Safety
    /// The device was written for the model.
    pub unsafe fn stop(&mut self, model: &LehrModel) {
        // SAFETY: the caller's promise.
        unsafe { self.stop_for(allocations(model)) };
    }

    unsafe fn stop_for(&mut self, allocations: usize) {
        let Some(driver) = self.driver else { return };
        if self.context.is_null() {
            return;
        }
        // Nobody reads it.
        let mut unread = [0; TEXT_BYTES];
        // SAFETY: what is not null or 0 is held, and given back once. A context that cannot be entered (the process ends, or has failed)
        // takes what it holds with it, and the caller's stays current.
        unsafe {
            if let Ok(mode) = self.enter(&driver, &mut Text::new(&mut unread)) {
                self.free(&driver, allocations);
                leave(&driver, mode);
            }
            (driver.context_release)(self.ordinal);
        }
        self.context = null_mut();
        (self.is_active, self.is_pending) = (false, false);
    }

    /// # Safety
    /// The model's context is current, and there are so many allocations.
    unsafe fn free(&mut self, driver: &Driver, allocations: usize) {
        // SAFETY: what is not null or 0 is held, and given back once.
        unsafe {
            if self.is_pending {
                (driver.event_wait)(self.done);
            }
            give_back(&mut self.graph, |graph| (driver.graph_instance_destroy)(graph));
            give_back(&mut self.done, |event| (driver.event_destroy)(event));
            give_back(&mut self.stream, |stream| (driver.stream_destroy)(stream));
            give_back(&mut self.module, |module| (driver.module_unload)(module));
            give_back(&mut self.fault, |word| (driver.host_free)(word.cast()));
            for index in 0..allocations {
                let address = self.arrays.memory.add(index);
                if *address != 0 {
                    (driver.free)(address.replace(0));
                }
            }
        }
    }
}

/// Undoes `enter`.
///
/// # Safety
/// The model's context is current.
unsafe fn leave(driver: &Driver, mut mode: c_int) {
    let mut popped = null_mut();
    // SAFETY: the driver's functions get what they ask for.
    unsafe {
        (driver.capture_mode)(&mut mode);
        (driver.context_pop)(&mut popped);
    }
}

/// The device of the thread's current context, as users of PyTorch and of the CUDA runtime have it, or else the first, of those that
/// can run the model.
unsafe fn choose(driver: &Driver, plan: &GpuPlan, text: &mut Text) -> Result<c_int, i32> {
    let (mut count, mut current) = (0, 0);
    // SAFETY: the driver writes one number each.
    unsafe {
        driver.check(text, "cuDeviceGetCount", (driver.device_count)(&mut count))?;
        if (driver.context_device)(&mut current) == driver::SUCCESS && capability(driver, current) >= plan.capability {
            return Ok(current);
        }
    }
    for ordinal in 0..count {
        let mut device = 0;
        // SAFETY: as above.
        unsafe {
            driver.check(text, "cuDeviceGet", (driver.device)(&mut device, ordinal))?;
            if capability(driver, device) >= plan.capability {
                return Ok(device);
            }
        }
    }
    if count == 0 {
        text.str("the NVIDIA driver sees no GPU");
    } else {
        text.str("no GPU can run the model, which is for sm_").u64(plan.capability as u64).str(" and later: ");
        // SAFETY: there is a first device.
        unsafe { describe(driver, 0, text) };
        if count > 1 {
            text.str(" is the first of ").u64(count as u64);
        }
    }
    Err(status::NO_DEVICE)
}

/// Ten times the compute capability; 0 if the driver does not say.
unsafe fn capability(driver: &Driver, device: c_int) -> u32 {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the driver writes one number each.
    unsafe {
        (driver.device_attribute)(&mut major, driver::CAPABILITY_MAJOR, device);
        (driver.device_attribute)(&mut minor, driver::CAPABILITY_MINOR, device);
    }
    (major as u32).wrapping_mul(10).wrapping_add(minor as u32)
}

/// `GPU 0, NVIDIA H100 PCIe (sm_90)`
unsafe fn describe(driver: &Driver, device: c_int, text: &mut Text) {
    let mut name: [c_char; 128] = [0; 128];
    text.str("GPU ").i64(device as i64).str(", ");
    // SAFETY: the driver writes a zero-terminated name of at most that length.
    unsafe {
        (driver.device_name)(name.as_mut_ptr(), name.len() as c_int, device);
        text.c_str(name.as_ptr()).str(" (sm_").u64(capability(driver, device) as u64).byte(b')');
    }
}

/// `free` and `total` are what the driver has said before the model had any.
#[inline(never)]
unsafe fn out_of_memory(model: &LehrModel, plan: &GpuPlan, (free, total): (usize, usize), text: &mut Text) -> i32 {
    // SAFETY: the specifications are as many as the model says.
    let io: u64 = unsafe {
        let io = all(model.inputs, model.n_inputs).iter().chain(all(model.outputs, model.n_outputs));
        io.map(|spec| spec.bytes).sum()
    };
    let (weights, arena) = (plan.weights_bytes, plan.arena_bytes);
    megabytes(text.str("the GPU has not enough memory: the model needs "), weights + arena + io).str(" (");
    megabytes(text, weights).str(" for weights, ");
    megabytes(text, arena).str(" for intermediate values, ");
    megabytes(text, io).str(" for inputs and outputs); ");
    megabytes(text, free as u64).str(" of ");
    megabytes(text, total as u64).str(" were free");
    status::DEVICE_MEMORY
}

/// `12.3 MB`, of a million bytes each.
fn megabytes<'t, 'b>(text: &'t mut Text<'b>, bytes: u64) -> &'t mut Text<'b> {
    let tenths = bytes.div_ceil(100_000);
    text.u64(tenths / 10).byte(b'.').u64(tenths % 10).str(" MB")
}

fn give_back<T>(slot: &mut *mut T, by: impl FnOnce(*mut T) -> c_int) {
    if !slot.is_null() {
        by(*slot);
        *slot = null_mut();
    }
}
