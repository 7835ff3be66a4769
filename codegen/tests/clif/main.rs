//! The Cranelift back end: kernels, functions and whole programs.

mod common;
mod functions;
mod kernels;
mod programs;
mod random;
