//! Rewrite rules, whole-graph passes, the pipelines made of them, and the manager that runs these.
//!
//! A [`Rule`] is an equation with side conditions; it gives a replacement or a reason why not. A [`Pass`] is a list of rules or
//! a function over the graph. [`pipeline`] is the flat list of passes of a level; [`Manager::run`] applies it, verifies, and
//! [`Report`]s what fired and what was declined, by the names of the ONNX nodes.
//!
//! [`analysis`] looks for smaller convolutions that could stand for large ones; with an [`Approximation`], the passes of
//! [`approximate_pipeline`] put them there.
#![forbid(unsafe_code)]

pub mod analysis;
mod approximate;
mod dead_code;
mod equal_nodes;
mod fold_constants;
mod manager;
mod pipeline;
mod report;
mod rewrite;
mod rule;
pub mod rules;
mod weights;

pub use approximate::{Approximation, Judge, Timing, time};
pub use manager::{After, Manager, Pass};
pub use pipeline::{OptLevel, all_passes, approximate_pipeline, pass, pipeline, rule};
pub use report::{Event, PassReport, Report};
pub use rewrite::Cx;
pub use rule::{Decline, Exactness, Outcome, Replacement, Rule};
