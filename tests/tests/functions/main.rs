//! Layers, activations and losses, from the evaluator, compiled in process and from libraries, against definitions written
//! here in plain f64 loops: torch's, or the textbook's. Arguments go to 1e4 and beyond where forms could overflow.

mod activations;
mod convolutions;
mod dropout;
mod losses;
mod norms;
mod pools;
mod rankings;
mod refused;
