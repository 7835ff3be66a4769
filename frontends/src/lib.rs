//! Front ends of lehr: the ONNX importer ([`onnx`]), ONNX's and numpy's tensor files ([`tensor_file`], [`npy`]), networks built
//! in code ([`zoo`]), and layers and losses for those ([`layers`]). All of them end in a [`lehr_ir::Graph`]; no ONNX name of an
//! operator, attribute or type survives.
//!
//! `unsafe` is confined to [`mapped`], which maps files into memory.
#![deny(unsafe_code)]

pub mod layers;
pub mod mapped;
pub mod npy;
pub mod onnx;
pub mod tensor_file;
pub mod zoo;
