//! Artefacts: a compiled model as a shared library or in memory, how it is written, and how it is run.

mod image;

pub use image::{IoSpec, ModelImage, WeightBlob};
