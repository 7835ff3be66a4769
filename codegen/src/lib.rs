//! Kernel IR, schedule and memory plan, lowering, back ends, artefacts and their runtime.

pub mod artefact;
pub mod runtime;
