//! Runs on a device: the caller's tensors in, the graph, the results out.

use core::ffi::{c_int, c_uint, c_void};

use super::super::abi::{GpuPlan, LehrModel, TensorSpec, status};
use super::super::entry::fault_status;
use super::super::text::Text;
use super::device::{Device, OWN, Place, all};
use super::driver::{self, Address, Basic, Driver, Handle};

impl Device {
    /// One run. `tensors` are the caller's inputs, then outputs.
    ///
    /// # Safety
    /// The device is active, and the tensors are as large as the model says and the caller's to read and to write.
    pub unsafe fn run(
        &mut self,
        model: &LehrModel,
        plan: &GpuPlan,
        tensors: *const *mut c_void,
        stream: Option<Handle>,
        text: &mut Text,
    ) -> i32 {
        let on = stream.unwrap_or(self.stream);
        // A workspace's own stream is out of the caller's sight: such a run always ends before it returns.
        let mut waits = stream.is_none();
        // SAFETY: the driver's functions get what they ask for; sizes were checked.
        let ran = unsafe {
            self.within(text, |this, driver, text| {
                waits |= this.look_up(driver, model, tensors, text)?;
                if stream.is_some() {
                    refuse_capture(driver, on, text)?;
                }
                let mut ran = this.queue(driver, model, tensors, on, text);
                if ran.is_ok() && waits {
                    ran = this.finish(driver, text);
                }
                if ran.is_err() {
                    this.abandon(driver, on);
                }
                ran
            })
        };
        match ran {
            Err(code) => code,
            // SAFETY: as above.
            Ok(()) if waits => unsafe { self.tell_fault(plan, text) },
            Ok(()) => status::OK,
        }
    }

    /// Finds out where each tensor is, before anything is done with any of them; whether host memory takes part.
    ///
    /// # Safety
    /// There are as many tensors as the model says, and a context is current.
    unsafe fn look_up(
        &mut self,
        basic: &Basic,
        model: &LehrModel,
        tensors: *const *mut c_void,
        text: &mut Text,
    ) -> Result<bool, i32> {
        let mut with_host = false;
        // SAFETY: as the caller promised; there is a place for each.
        unsafe {
            let (inputs, outputs) = (all(model.inputs, model.n_inputs), all(model.outputs, model.n_outputs));
            let inputs = inputs.iter().enumerate().map(|(index, spec)| ("input", index, spec));
            let outputs = outputs.iter().enumerate().map(|(index, spec)| ("output", index, spec));
            for (at, named) in inputs.chain(outputs).enumerate().filter(|(_, (.., spec))| spec.bytes > 0) {
                let place = self.place(basic, named, *tensors.add(at), text)?;
                with_host |= place == Place::Host;
                self.arrays.places.add(at).write(place);
            }
        }
        Ok(with_host)
    }

    /// Puts a run into a stream.
    unsafe fn queue(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        tensors: *const *mut c_void,
        on: Handle,
        text: &mut Text,
    ) -> Result<(), i32> {
        // SAFETY: as for `run`; the tensors were looked up.
        unsafe {
            // Also in what looks like the same stream: a handle may be that of another stream, which is gone.
            if self.is_pending {
                driver.check(text, "cuStreamWaitEvent", (driver.stream_wait_for)(on, self.done, 0))?;
            }
            let (buffers, places) = (self.arrays.memory.add(OWN), self.arrays.places);
            let (inputs, outputs) = (all(model.inputs, model.n_inputs), all(model.outputs, model.n_outputs));
            for (at, spec) in inputs.iter().enumerate().filter(|(_, spec)| spec.bytes > 0) {
                let (tensor, buffer, bytes) = (*tensors.add(at), *buffers.add(at), spec.bytes as usize);
                let code = match *places.add(at) {
                    Place::Device => (driver.copy_on)(buffer, tensor.addr() as Address, bytes, on),
                    Place::Host => (driver.upload_on)(buffer, tensor, bytes, on),
                };
                driver.check(text, "copying an input", code)?;
            }
            if !self.graph.is_null() {
                driver.check(text, "cuGraphLaunch", (driver.graph_launch)(self.graph, on))?;
            }
            for (index, spec) in outputs.iter().enumerate().filter(|(_, spec)| spec.bytes > 0) {
                let at = inputs.len().wrapping_add(index);
                let (tensor, buffer, bytes) = (*tensors.add(at), *buffers.add(at), spec.bytes as usize);
                let code = match *places.add(at) {
                    Place::Device => (driver.copy_on)(tensor.addr() as Address, buffer, bytes, on),
                    Place::Host => (driver.download_on)(tensor, buffer, bytes, on),
                };
                driver.check(text, "copying an output", code)?;
            }
            driver.check(text, "cuEventRecord", (driver.event_record)(self.done, on))?;
        }
        self.is_pending = true;
        Ok(())
    }

    /// Waits for what is pending.
    unsafe fn finish(&mut self, driver: &Driver, text: &mut Text) -> Result<(), i32> {
        // SAFETY: the event was recorded.
        driver.check(text, "the run on the GPU", unsafe { (driver.event_wait)(self.done) })?;
        self.is_pending = false;
        Ok(())
    }

    /// Ends a run that failed half-way: from here on nothing looks at the caller's memory, and no later call tells its fault. One of a
    /// run before goes with it: whose it is cannot be seen.
    unsafe fn abandon(&mut self, driver: &Driver, on: Handle) {
        // SAFETY: as for `run`. Errors are left: there is one already that the caller gets.
        unsafe {
            (driver.stream_wait)(on);
            if self.is_pending {
                (driver.event_wait)(self.done);
            }
        }
        self.is_pending = false;
        self.take_fault();
    }

    /// The fault word, which is then clear.
    fn take_fault(&mut self) -> i32 {
        if self.fault.is_null() {
            return 0;
        }
        // SAFETY: the word is ours.
        unsafe {
            let fault = self.fault.read_volatile();
            self.fault.write_volatile(0);
            fault as i32
        }
    }

    /// Waits for what is pending, and says whether its data made an operator fail.
    ///
    /// # Safety
    /// The plan is the model's.
    pub unsafe fn wait(&mut self, plan: &GpuPlan, text: &mut Text) -> i32 {
        if !self.is_pending {
            return status::OK;
        }
        // SAFETY: as for `run`. What could not be waited for stays pending.
        match unsafe { self.within(text, |this, driver, text| this.finish(driver, text)) } {
            Err(code) => code,
            // SAFETY: as the caller promised.
            Ok(()) => unsafe { self.tell_fault(plan, text) },
        }
    }

    /// After a wait: whether the data of what was waited for made an operator fail.
    unsafe fn tell_fault(&mut self, plan: &GpuPlan, text: &mut Text) -> i32 {
        let fault = self.take_fault();
        // SAFETY: the plan has so many texts.
        unsafe { fault_status(text, (plan.faults, plan.n_faults), fault) }
    }

    /// Where a tensor is; an error if it is in memory that the model's runs cannot reach.
    unsafe fn place(
        &self,
        basic: &Basic,
        (side, index, spec): (&str, usize, &TensorSpec),
        tensor: *mut c_void,
        text: &mut Text,
    ) -> Result<Place, i32> {
        let name = |text: &mut Text| {
            // SAFETY: a valid model's names end with a zero.
            unsafe { text.str(side).byte(b' ').u64(index as u64).str(" '").c_str(spec.name).str("': ") };
        };
        // SAFETY: the driver looks the address up and writes one number.
        let ordinal = match unsafe { device_of(basic, tensor) } {
            Ok(None) => return Ok(Place::Host),
            Ok(Some(ordinal)) if self.is_active && ordinal == self.ordinal => return Ok(Place::Device),
            Ok(Some(ordinal)) => ordinal,
            Err(failed) => {
                name(text);
                return Err(basic.failed(text, "cuPointerGetAttribute", failed));
            }
        };
        name(text);
        text.str("data is in the memory of GPU ").i64(ordinal as i64);
        if self.is_active {
            text.str(", the model is on GPU ").i64(self.ordinal as i64);
        } else {
            text.str(", but the model runs on ");
            // SAFETY: our own text.
            unsafe { text.c_str(self.about()) };
        }
        Err(status::DEVICE)
    }

    /// What the CPU cannot do in a GPU's place: streams, and tensors in a GPU's memory.
    ///
    /// # Safety
    /// `tensors` are the caller's inputs, then outputs.
    pub unsafe fn refuse_on_cpu(
        &mut self,
        model: &LehrModel,
        tensors: *const *mut c_void,
        stream: Option<Handle>,
        text: &mut Text,
    ) -> Result<(), i32> {
        if stream.is_some_and(|stream| !stream.is_null()) {
            text.str("there is a stream, but the model runs on ");
            // SAFETY: our own text.
            unsafe { text.c_str(self.about()) };
            return Err(status::DEVICE);
        }
        // Without a driver there is no such memory.
        let Some(basic) = self.basic else { return Ok(()) };
        // SAFETY: there are as many tensors as the model says.
        unsafe { basic.within_any(text, |text| self.look_up(&basic, model, tensors, text).map(|_| ())) }
    }
}

/// A run in the middle of a capture would be none: it could neither wait nor have its faults told.
unsafe fn refuse_capture(driver: &Driver, stream: Handle, text: &mut Text) -> Result<(), i32> {
    let mut capturing = 0;
    // SAFETY: the driver writes one number.
    let code = unsafe { (driver.is_capturing)(stream, &mut capturing) };
    driver.check(text, "cuStreamIsCapturing", code)?;
    if capturing == 0 {
        return Ok(());
    }
    text.str("the stream is being captured; a run is a graph of its own: run it before the capture or after, or in another stream");
    Err(status::DEVICE)
}

/// The GPU whose memory an address is in; `None` for memory that the CPU reaches, pinned and managed memory included; or the driver's
/// error. A context is current.
unsafe fn device_of(basic: &Basic, tensor: *mut c_void) -> Result<Option<c_int>, c_int> {
    let (mut kind, mut is_managed, mut ordinal): (c_uint, c_uint, c_int) = (0, 0, 0);
    let address = tensor.addr() as Address;
    let ask = |attribute: c_int, to: *mut c_void| {
        // SAFETY: the driver writes a number of 32 bits for each of these attributes.
        match unsafe { (basic.pointer_attribute)(to, attribute, address) } {
            driver::SUCCESS => Ok(()),
            failed => Err(failed),
        }
    };
    match ask(driver::POINTER_MEMORY_TYPE, (&raw mut kind).cast()) {
        // The driver does not know of memory that is not its own.
        Err(driver::INVALID_VALUE) => return Ok(None),
        known => known?,
    }
    if kind != driver::MEMORY_TYPE_DEVICE {
        return Ok(None);
    }
    ask(driver::POINTER_IS_MANAGED, (&raw mut is_managed).cast())?;
    if is_managed != 0 {
        return Ok(None);
    }
    ask(driver::POINTER_DEVICE_ORDINAL, (&raw mut ordinal).cast())?;
    Ok(Some(ordinal))
}
