//! Artefacts: a compiled model as a shared library or in memory, how it is written, and how it is run.
//!
//! A [`ModelImage`] is the model without its code. With an object that defines [`crate::runtime::abi::MAIN_SYMBOL`],
//! [`write_so`] makes a library of it; with that function's address, [`Artefact::from_jit`] makes it runnable in this process.
//! A model for GPUs holds PTX and launches instead, or besides ([`GpuImage`]).
//! [`Artefact::open`] loads a library. Both kinds run through the same descriptor, checks and thread pool:
//!
//! ```text
//! ModelImage + objects --write_so--> model.so --Artefact::open--+
//! ModelImage + address of main --Artefact::from_jit-------------+--> Artefact --> Session::new --> Session::run
//! ```

use std::fmt;

mod elf;
mod header;
mod image;
mod loader;
mod memory;
mod names;
mod session;
mod tables;

pub use elf::{Linker, SoOptions, SoReport, write_so};
pub use header::c_header;
pub use image::{GpuImage, IoSpec, ModelImage, Upload, WeightBlob};
pub use loader::{Artefact, GpuFacts};
pub use names::c_identifier;
pub use session::{RunError, Session, TensorMut, TensorRef};

/// Why an artefact could not be written or loaded: a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtefactError {
    message: String,
}

impl ArtefactError {
    pub fn new(message: impl Into<String>) -> ArtefactError {
        ArtefactError { message: message.into() }
    }
}

impl fmt::Display for ArtefactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ArtefactError {}
