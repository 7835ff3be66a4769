//! Differential tests of lowering: what the kernels of an operator compute against what the evaluator does.

mod check;
mod elementwise;
