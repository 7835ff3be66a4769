//! The descriptor and what it points to, as bytes with pointers still to be filled in: by our linker, by `cc`, or in memory for the JIT.

use std::collections::HashMap;
use std::mem::{offset_of, size_of};

use super::image::{IoSpec, ModelImage};
use crate::runtime::abi::{ABI_VERSION, LehrModel, MAGIC, MAIN_SYMBOL, TensorSpec};

/// Two blocks of bytes, 8-byte aligned: constants, and data that is constant once its pointers are known.
pub(super) struct Tables {
    pub rodata: Vec<u8>,
    pub relro: Vec<u8>,
    /// In the order of their places in `relro`.
    pub pointers: Vec<Pointer>,
    /// Offset of the descriptor in `relro`.
    pub descriptor: u64,
}

/// A 64-bit address to be written at `relro[at..]`.
pub(super) struct Pointer {
    pub at: u64,
    pub to: To,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    Rodata(u64),
    Relro(u64),
    Symbol(&'static str),
    Weights,
}

const PRODUCER: &str = concat!("lehr ", env!("CARGO_PKG_VERSION"));
/// The descriptor's functions and the symbols that they are.
const FUNCTIONS: [(usize, &str); 7] = [
    (offset_of!(LehrModel, workspace_bytes), "lehr_rt_workspace_bytes"),
    (offset_of!(LehrModel, open), "lehr_rt_open"),
    (offset_of!(LehrModel, run), "lehr_rt_run"),
    (offset_of!(LehrModel, close), "lehr_rt_close"),
    (offset_of!(LehrModel, last_error), "lehr_rt_last_error"),
    (offset_of!(LehrModel, status_text), "lehr_rt_status_text"),
    (offset_of!(LehrModel, main), MAIN_SYMBOL),
];

impl Tables {
    /// For an image that was checked.
    pub fn new(image: &ModelImage) -> Tables {
        let mut builder = Builder::default();
        let inputs = builder.specs(&image.inputs);
        let outputs = builder.specs(&image.outputs);
        let faults = builder.faults(&image.faults);

        let at = builder.reserve(size_of::<LehrModel>());
        let name = builder.string(&image.name);
        let producer = builder.string(PRODUCER);
        let target = builder.string(&image.target);
        let metadata = builder.string(&image.metadata);
        let field = |offset: usize| at + offset as u64;
        builder.u64(field(offset_of!(LehrModel, magic)), MAGIC);
        builder.u32(field(offset_of!(LehrModel, abi_version)), ABI_VERSION);
        builder.u32(field(offset_of!(LehrModel, struct_bytes)), size_of::<LehrModel>() as u32);
        builder.u32(field(offset_of!(LehrModel, n_inputs)), image.inputs.len() as u32);
        builder.u32(field(offset_of!(LehrModel, n_outputs)), image.outputs.len() as u32);
        builder.u64(field(offset_of!(LehrModel, arena_bytes)), image.arena_bytes);
        builder.u64(field(offset_of!(LehrModel, weights_bytes)), image.weights_bytes);
        builder.u64(field(offset_of!(LehrModel, isa_required)), image.isa);
        builder.u32(field(offset_of!(LehrModel, n_faults)), image.faults.len() as u32);
        builder.u64(field(offset_of!(LehrModel, metadata_bytes)), escaped(&image.metadata).len() as u64);

        builder.point(field(offset_of!(LehrModel, name)), name);
        builder.point(field(offset_of!(LehrModel, producer)), producer);
        builder.point(field(offset_of!(LehrModel, target)), target);
        builder.point(field(offset_of!(LehrModel, inputs)), inputs);
        builder.point(field(offset_of!(LehrModel, outputs)), outputs);
        builder.point(field(offset_of!(LehrModel, faults)), faults);
        builder.point(field(offset_of!(LehrModel, metadata)), metadata);
        if image.weights_bytes > 0 {
            builder.point(field(offset_of!(LehrModel, weights)), To::Weights);
        }
        for (offset, symbol) in FUNCTIONS {
            builder.point(field(offset), To::Symbol(symbol));
        }
        builder.pointers.sort_by_key(|pointer| pointer.at);
        Tables { rodata: builder.rodata, relro: builder.relro, pointers: builder.pointers, descriptor: at }
    }
}

#[derive(Default)]
struct Builder {
    rodata: Vec<u8>,
    relro: Vec<u8>,
    pointers: Vec<Pointer>,
    strings: HashMap<String, u64>,
}

impl Builder {
    fn reserve(&mut self, bytes: usize) -> u64 {
        let at = self.relro.len();
        self.relro.resize((at + bytes).next_multiple_of(8), 0);
        at as u64
    }

    fn u32(&mut self, at: u64, value: u32) {
        self.relro[at as usize..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, at: u64, value: u64) {
        self.relro[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    fn point(&mut self, at: u64, to: To) {
        self.pointers.push(Pointer { at, to });
    }

    /// A zero-terminated string; equal ones are shared.
    fn string(&mut self, text: &str) -> To {
        if let Some(&at) = self.strings.get(text) {
            return To::Rodata(at);
        }
        let at = self.rodata.len() as u64;
        self.rodata.extend_from_slice(escaped(text).as_bytes());
        self.rodata.push(0);
        self.strings.insert(text.to_owned(), at);
        To::Rodata(at)
    }

    fn specs(&mut self, specs: &[IoSpec]) -> To {
        let base = self.reserve(specs.len() * size_of::<TensorSpec>());
        for (index, spec) in specs.iter().enumerate() {
            let at = base + (index * size_of::<TensorSpec>()) as u64;
            let name = self.string(&spec.name);
            let dims = self.dims(&spec.dims);
            self.point(at + offset_of!(TensorSpec, name) as u64, name);
            self.u32(at + offset_of!(TensorSpec, dtype) as u64, spec.dtype);
            self.u32(at + offset_of!(TensorSpec, rank) as u64, spec.dims.len() as u32);
            self.point(at + offset_of!(TensorSpec, dims) as u64, dims);
            self.u64(at + offset_of!(TensorSpec, bytes) as u64, spec.bytes);
        }
        To::Relro(base)
    }

    fn dims(&mut self, dims: &[i64]) -> To {
        let aligned = self.rodata.len().next_multiple_of(8);
        self.rodata.resize(aligned, 0);
        self.rodata.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        To::Rodata(aligned as u64)
    }

    fn faults(&mut self, faults: &[String]) -> To {
        let base = self.reserve(faults.len() * 8);
        for (index, fault) in faults.iter().enumerate() {
            let text = self.string(fault);
            self.point(base + 8 * index as u64, text);
        }
        To::Relro(base)
    }
}

/// Names in ONNX files may hold any character; a zero would end a C string.
fn escaped(text: &str) -> String {
    text.replace('\0', "\\0")
}
