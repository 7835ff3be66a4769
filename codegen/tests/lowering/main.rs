//! Lowering of operators against the reference evaluator, on every type they take and on awkward shapes.

mod axes;
mod check;
mod elementwise;
mod execute;
mod harness;
mod moves;
#[path = "../../../tests/src/simulate.rs"]
mod simulate;
mod windows;
