//! Running a model: a session owns the workspace that the runtime keeps all its state in.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;

use super::ArtefactError;
use super::loader::Artefact;
use super::memory::AlignedBytes;
use crate::runtime::abi::{LehrTensor, status};

/// An opened model with its threads and memory. One run at a time; open several sessions to run at once.
pub struct Session {
    artefact: Artefact,
    workspace: AlignedBytes,
    /// Kept between runs so that a run allocates nothing.
    inputs: Vec<LehrTensor>,
    outputs: Vec<LehrTensor>,
}

// SAFETY: the runtime ties no state to the thread that opened a workspace; the tensors are empty between runs.
unsafe impl Send for Session {}

/// A dense, row-major input. `dtype` is a code of [`crate::runtime::abi::dtype`]; `data` must be aligned to its element.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    pub dtype: u32,
    pub dims: &'a [i64],
    pub data: &'a [u8],
}

/// A dense, row-major output, to be overwritten.
#[derive(Debug)]
pub struct TensorMut<'a> {
    pub dtype: u32,
    pub dims: &'a [i64],
    pub data: &'a mut [u8],
}

/// A run, or an open, that the runtime refused: its status (a code of [`status`]) and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    pub status: i32,
    pub text: String,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// Whether this machine failed, or has not what the code needs; everything else is the model's or its caller's fault.
    pub fn is_of_machine(&self) -> bool {
        matches!(self.status, status::UNSUPPORTED_CPU | status::THREADS | status::NO_DRIVER..=status::DEVICE)
    }
}

impl From<RunError> for String {
    fn from(error: RunError) -> String {
        error.text
    }
}

impl From<RunError> for ArtefactError {
    fn from(error: RunError) -> ArtefactError {
        ArtefactError::new(error.text)
    }
}

impl Session {
    /// Opens a workspace; `threads` includes the caller's, and 0 means what the process may use.
    pub fn new(artefact: &Artefact, threads: u32) -> Result<Session, RunError> {
        let model = artefact.descriptor();
        // SAFETY: the artefact's descriptor is valid.
        let bytes = unsafe { (model.workspace_bytes)(model, threads) };
        let workspace = AlignedBytes::zeroed(bytes).filter(|_| bytes > 0).ok_or_else(|| RunError {
            status: status::WORKSPACE_TOO_SMALL,
            text: format!("there is no memory for the model's arena of {} bytes", model.arena_bytes),
        })?;
        // SAFETY: the workspace has this many bytes and does not move.
        let code = unsafe { (model.open)(model, workspace.as_ptr().cast(), bytes, threads) };
        let session = Session {
            artefact: artefact.clone(),
            workspace,
            inputs: Vec::with_capacity(model.n_inputs as usize),
            outputs: Vec::with_capacity(model.n_outputs as usize),
        };
        session.result(code).map(|()| session)
    }

    pub fn artefact(&self) -> &Artefact {
        &self.artefact
    }

    /// One inference. Inputs and outputs are in the model's order; all outputs are written if the result is `Ok`.
    pub fn run(&mut self, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<(), RunError> {
        let tensor = |dtype, dims: &[i64], data: *mut u8, bytes: usize| LehrTensor {
            data: data.cast(),
            dtype,
            rank: dims.len() as u32,
            dims: dims.as_ptr(),
            bytes: bytes as u64,
        };
        self.inputs.extend(inputs.iter().map(|t| tensor(t.dtype, t.dims, t.data.as_ptr().cast_mut(), t.data.len())));
        self.outputs.extend(outputs.iter_mut().map(|t| tensor(t.dtype, t.dims, t.data.as_mut_ptr(), t.data.len())));
        let model = self.artefact.descriptor();
        // SAFETY: the workspace was opened for this model, and the tensors describe live slices, the outputs exclusively.
        let code = unsafe {
            (model.run)(
                model,
                self.workspace.as_ptr().cast::<c_void>(),
                self.inputs.as_ptr(),
                self.inputs.len() as u32,
                self.outputs.as_ptr(),
                self.outputs.len() as u32,
            )
        };
        self.inputs.clear();
        self.outputs.clear();
        self.result(code)
    }

    /// One inference on tensors by their addresses, which may be in the memory of the GPU that the model is open on, in the order of
    /// a stream. Returns before the end if all are there; [`Session::wait`] waits.
    ///
    /// # Safety
    /// The addresses are valid for the tensors' bytes, those of outputs to be written, until the run has ended; `stream` is null or a
    /// stream of the GPU's primary context.
    pub unsafe fn run_on(
        &mut self,
        inputs: &[LehrTensor],
        outputs: &[LehrTensor],
        stream: *mut c_void,
    ) -> Result<(), RunError> {
        let model = self.artefact.descriptor();
        // SAFETY: the workspace was opened for this model; the caller vouches for the tensors.
        let code = unsafe {
            (model.run_on)(
                model,
                self.workspace.as_ptr().cast(),
                inputs.as_ptr(),
                inputs.len() as u32,
                outputs.as_ptr(),
                outputs.len() as u32,
                stream,
            )
        };
        self.result(code)
    }

    /// Waits for what [`Session::run_on`] has not waited for.
    pub fn wait(&mut self) -> Result<(), RunError> {
        let model = self.artefact.descriptor();
        // SAFETY: the workspace was opened for this model.
        let code = unsafe { (model.wait)(model, self.workspace.as_ptr().cast()) };
        self.result(code)
    }

    /// What computes the runs: the CPU, or which GPU; and why, if the CPU stands in for one.
    pub fn runs_on(&self) -> String {
        // SAFETY: this workspace was given to `open`.
        c_text(unsafe { (self.artefact.descriptor().runs_on)(self.workspace.as_ptr().cast()) })
    }

    /// The number of the GPU that computes the runs; `None` for the CPU.
    pub fn gpu(&self) -> Option<u32> {
        // SAFETY: this workspace was given to `open`.
        let number = unsafe { (self.artefact.descriptor().device)(self.workspace.as_ptr().cast()) };
        u32::try_from(number).ok()
    }

    /// Whether the CPU computes the runs.
    pub fn is_on_cpu(&self) -> bool {
        self.gpu().is_none()
    }

    fn result(&self, code: i32) -> Result<(), RunError> {
        if code == status::OK {
            return Ok(());
        }
        let model = self.artefact.descriptor();
        // SAFETY: this workspace was given to `open`.
        let own = c_text(unsafe { (model.last_error)(self.workspace.as_ptr().cast()) });
        let text = if own.is_empty() { c_text((model.status_text)(code)) } else { own };
        Err(RunError { status: code, text })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let model = self.artefact.descriptor();
        // A workspace that was never opened is refused, which is all right here.
        // SAFETY: this workspace was given to `open`.
        unsafe { (model.close)(model, self.workspace.as_ptr().cast()) };
    }
}

fn c_text(start: *const c_char) -> String {
    // SAFETY: the runtime's texts are never null and end with a zero.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
