//! Networks through the blocked lowering against the evaluator: on each instruction set that this CPU has, with one thread and
//! with two, whose results must be equal bit by bit.

mod convolutions;
mod net;
mod orders;
mod pooled;
mod pools;
mod products;
mod prologues;
