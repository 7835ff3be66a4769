//! Runs on a device: the caller's tensors in, the graph, the results out.

use core::ffi::{c_int, c_uint, c_void};

use super::super::abi::{GpuPlan, LehrModel, TensorSpec, status};
use super::super::entry::fault_status;
use super::super::text::Text;
use super::device::{Device, OWN, all};
use super::driver::{self, Address, Driver, Handle};

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
                let queued = this.queue(driver, model, tensors, on, text);
                if queued.is_err() {
                    // Nothing may look at the caller's memory any more.
                    (driver.stream_wait)(on);
                }
                waits |= queued?;
                (this.is_pending, this.pending_on) = (true, on);
                Ok(())
            })
        };
        match ran {
            Err(code) => code,
            // SAFETY: as above.
            Ok(()) if waits => unsafe { self.wait(plan, text) },
            Ok(()) => status::OK,
        }
    }

    /// Puts a run into a stream; whether host memory takes part.
    unsafe fn queue(
        &mut self,
        driver: &Driver,
        model: &LehrModel,
        tensors: *const *mut c_void,
        on: Handle,
        text: &mut Text,
    ) -> Result<bool, i32> {
        let mut with_host = false;
        // SAFETY: as for `run`.
        unsafe {
            if self.is_pending && self.pending_on != on {
                driver.check(text, "cuStreamWaitEvent", (driver.stream_wait_for)(on, self.done, 0))?;
            }
            let buffers = self.arrays.memory.add(OWN);
            let (inputs, outputs) = (all(model.inputs, model.n_inputs), all(model.outputs, model.n_outputs));
            for (index, spec) in inputs.iter().enumerate().filter(|(_, spec)| spec.bytes > 0) {
                let (tensor, buffer) = (*tensors.add(index), *buffers.add(index));
                let code = if self.is_on_device(driver, ("input", index, spec), tensor, text)? {
                    (driver.copy_on)(buffer, tensor.addr() as Address, spec.bytes as usize, on)
                } else {
                    with_host = true;
                    (driver.upload_on)(buffer, tensor, spec.bytes as usize, on)
                };
                driver.check(text, "copying an input", code)?;
            }
            if !self.graph.is_null() {
                driver.check(text, "cuGraphLaunch", (driver.graph_launch)(self.graph, on))?;
            }
            for (index, spec) in outputs.iter().enumerate().filter(|(_, spec)| spec.bytes > 0) {
                let at = inputs.len().wrapping_add(index);
                let (tensor, buffer) = (*tensors.add(at), *buffers.add(at));
                let code = if self.is_on_device(driver, ("output", index, spec), tensor, text)? {
                    (driver.copy_on)(tensor.addr() as Address, buffer, spec.bytes as usize, on)
                } else {
                    with_host = true;
                    (driver.download_on)(tensor, buffer, spec.bytes as usize, on)
                };
                driver.check(text, "copying an output", code)?;
            }
            driver.check(text, "cuEventRecord", (driver.event_record)(self.done, on))?;
        }
        Ok(with_host)
    }

    /// Waits for what is pending, and says whether its data made an operator fail.
    ///
    /// # Safety
    /// The plan is the model's.
    pub unsafe fn wait(&mut self, plan: &GpuPlan, text: &mut Text) -> i32 {
        if !self.is_pending {
            return status::OK;
        }
        self.is_pending = false;
        // SAFETY: the event was recorded; the fault word is ours, and nothing writes it after the wait.
        unsafe {
            let waited = self.within(text, |this, driver, text| {
                driver.check(text, "the run on the GPU", (driver.event_wait)(this.done))
            });
            if let Err(code) = waited {
                return code;
            }
            if self.fault.is_null() {
                return status::OK;
            }
            let fault = self.fault.read_volatile();
            self.fault.write_volatile(0);
            fault_status(text, (plan.faults, plan.n_faults), fault as i32)
        }
    }

    /// Whether a tensor is in this device's memory; an error if it is in another's.
    unsafe fn is_on_device(
        &self,
        driver: &Driver,
        (side, index, spec): (&str, usize, &TensorSpec),
        tensor: *mut c_void,
        text: &mut Text,
    ) -> Result<bool, i32> {
        // SAFETY: the driver looks the address up and writes one number.
        let Some(ordinal) = (unsafe { device_of(driver, tensor) }) else { return Ok(false) };
        if self.is_active && ordinal == self.ordinal {
            return Ok(true);
        }
        text.str(side).byte(b' ').u64(index as u64).str(" '");
        // SAFETY: a valid model's names end with a zero.
        unsafe { text.c_str(spec.name) };
        text.str("': data is in the memory of GPU ").i64(ordinal as i64);
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
        &self,
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
        let Some(driver) = self.driver else { return Ok(()) };
        // SAFETY: there are as many tensors as the model says.
        unsafe {
            let (inputs, outputs) = (all(model.inputs, model.n_inputs), all(model.outputs, model.n_outputs));
            for (index, spec) in inputs.iter().enumerate() {
                self.is_on_device(&driver, ("input", index, spec), *tensors.add(index), text)?;
            }
            for (index, spec) in outputs.iter().enumerate() {
                let tensor = *tensors.add(inputs.len().wrapping_add(index));
                self.is_on_device(&driver, ("output", index, spec), tensor, text)?;
            }
        }
        Ok(())
    }
}

/// The GPU whose memory an address is in; `None` for host memory, also pinned.
unsafe fn device_of(driver: &Driver, tensor: *mut c_void) -> Option<c_int> {
    let (mut kind, mut ordinal): (c_uint, c_int) = (0, 0);
    let address = tensor.addr() as Address;
    // SAFETY: the driver writes one number each; it does not know of most host memory, which is an error of this call alone.
    unsafe {
        let known = (driver.pointer_attribute)((&raw mut kind).cast(), driver::POINTER_MEMORY_TYPE, address);
        if known != driver::SUCCESS || kind != driver::MEMORY_TYPE_DEVICE {
            return None;
        }
        (driver.pointer_attribute)((&raw mut ordinal).cast(), driver::POINTER_DEVICE_ORDINAL, address);
    }
    Some(ordinal)
}
