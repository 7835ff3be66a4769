//! Running leaves: loaded through Cranelift's JIT module, on memory that ends or begins at a page nobody may touch.

use cranelift::codegen::isa::CallConv;
use cranelift::prelude::{AbiParam, Configurable, settings, types};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use lehr_codegen::program::Leaf;
use lehr_codegen::x86::Isa;
use std::ffi::c_void;

pub const ISAS: [Isa; 2] = [Isa::Avx2, Isa::Avx512];

/// The instruction sets that can run here; says which cannot.
pub fn isas() -> Vec<Isa> {
    ISAS.into_iter()
        .filter(|isa| {
            if !isa.on_this_cpu() {
                println!("note: this CPU has no {}, whose leaves are assembled but not run", isa.name());
            }
            isa.on_this_cpu()
        })
        .collect()
}

/// A leaf in executable memory.
pub struct Loaded {
    module: Option<JITModule>,
    entry: *const u8,
}

pub fn load(leaf: &Leaf) -> Loaded {
    let mut flags = settings::builder();
    flags.set("is_pic", "false").unwrap();
    let isa = cranelift_native::builder().unwrap().finish(settings::Flags::new(flags)).unwrap();
    let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
    let mut signature = module.make_signature();
    signature.call_conv = CallConv::SystemV;
    signature.params.push(AbiParam::new(types::I64));
    let id = module.declare_function(&leaf.name, Linkage::Export, &signature).unwrap();
    module.define_function_bytes(id, 64, &leaf.code, &[]).unwrap();
    module.finalize_definitions().unwrap();
    let entry = module.get_finalized_function(id);
    Loaded { module: Some(module), entry }
}

impl Loaded {
    pub fn call(&self, args: &[u64]) {
        // SAFETY: the entry is a leaf of this signature, which `load` placed; the tests size the buffers behind the arguments.
        unsafe {
            let f: extern "C" fn(*const u64) = std::mem::transmute(self.entry);
            f(args.as_ptr());
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: nobody holds the entry any more.
            unsafe { module.free_memory() };
        }
    }
}

/// Where the unmapped page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Behind,
    Before,
}

/// f32s beside a page that faults.
pub struct Guarded {
    map: *mut c_void,
    bytes: usize,
    data: *mut f32,
    len: usize,
}

const PAGE: usize = 4096;

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut c_void;
    fn mprotect(addr: *mut c_void, len: usize, prot: i32) -> i32;
    fn munmap(addr: *mut c_void, len: usize) -> i32;
}

impl Guarded {
    pub fn new(data: &[f32], guard: Guard) -> Self {
        let body = (data.len() * 4).next_multiple_of(PAGE).max(PAGE);
        let bytes = body + PAGE;
        // SAFETY: an anonymous private mapping of its own; the guard page lies within it.
        let map = unsafe {
            // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
            let map = mmap(std::ptr::null_mut(), bytes, 3, 0x22, -1, 0);
            assert!(map as isize != -1, "mmap failed");
            let page = if guard == Guard::Before { map } else { map.byte_add(body) };
            assert_eq!(mprotect(page, PAGE, 0), 0, "mprotect failed");
            map
        };
        let at = if guard == Guard::Before { PAGE } else { body - data.len() * 4 };
        // SAFETY: `at` and the data's length are within the mapping, and both are multiples of 4.
        let start = unsafe { map.byte_add(at).cast::<f32>() };
        let mut g = Guarded { map, bytes, data: start, len: data.len() };
        g.slice_mut().copy_from_slice(data);
        g
    }

    pub fn addr(&self) -> u64 {
        self.data as u64
    }

    pub fn slice(&self) -> &[f32] {
        // SAFETY: `new` mapped this many elements, and leaves write only while no slice is held.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    fn slice_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody uses any more.
        unsafe { munmap(self.map, self.bytes) };
    }
}

/// Reproducible numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Within +-1.
    pub fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}
