//! The Cranelift back end: kernels and the sequence of steps as machine code, in this process or as an object file.
//!
//! ```text
//! emit    statements, loops, variables          value   uniform, vector, mask or lanes
//! vector  which loops run on vectors, and how   ops     expressions
//! index   linear forms, loads, stores           half    f16 and bf16
//! entry   lehr_model_main                       math    f32 functions in line
//! module  functions, compiled in parallel       target  instruction sets
//! ```
//!
//! Nothing that it emits traps. Buffers of one kernel do not overlap unless they are the same parameter.

mod emit;
mod entry;
mod half;
mod index;
pub(crate) mod math;
mod module;
pub(crate) mod ops;
mod target;
mod value;
mod vector;

pub use module::Listing;
pub use target::{Relocation, Target};

use crate::program::Program;
use crate::runtime::abi::MainFn;
use crate::x86;
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_object::{ObjectBuilder, ObjectModule};
use lehr_ir::Diag;
use module::{Code, Functions};
use std::any::Any;

/// Code in this process.
pub struct Jitted {
    pub main: MainFn,
    /// Frees the code when dropped.
    pub owner: Box<dyn Any + Send>,
    pub sizes: Sizes,
}

/// An ELF object that defines `lehr_model_main` and imports the runtime.
pub struct Object {
    pub bytes: Vec<u8>,
    pub sizes: Sizes,
}

/// How much machine code was made, in functions and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub functions: usize,
    pub code_bytes: usize,
    pub leaf_bytes: usize,
}

impl Sizes {
    fn of(program: &Program, codes: &[Code]) -> Sizes {
        Sizes {
            functions: codes.len(),
            code_bytes: codes.iter().map(|c| c.bytes.len()).sum(),
            leaf_bytes: program.leaves.iter().map(|l| l.code.len()).sum(),
        }
    }
}

struct Owner(Option<JITModule>);

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(module) = self.0.take() {
            // SAFETY: an artefact drops its code last, after the sessions that run it, and nobody else has the address of main.
            unsafe { module.free_memory() };
        }
    }
}

/// Compiles a planned program into this process. `target` is for [`Relocation::Fixed`].
pub fn jit(program: &Program, target: &Target, threads: usize) -> Result<Jitted, Diag> {
    let mut builder = JITBuilder::with_isa(target.isa.clone(), cranelift_module::default_libcall_names());
    for (name, address) in crate::runtime::runtime_symbols() {
        builder.symbol(name, address);
    }
    // Twice: the code's size is not known before it is compiled, which needs the declarations of a module.
    let mut declared =
        JITModule::new(JITBuilder::with_isa(target.isa.clone(), cranelift_module::default_libcall_names()));
    let functions = Functions::declare(&mut declared, program)?;
    let codes = functions.compile(program, target, threads, Listing::No)?;
    let sizes = Sizes::of(program, &codes);
    // Alignment wastes less than this.
    let room = sizes.code_bytes + sizes.leaf_bytes + 64 * (codes.len() + program.leaves.len()) + (1 << 16);
    let arena = ArenaMemoryProvider::new_with_size(room)
        .map_err(|e| Diag::new("compile.memory", format!("there is no memory for {room} bytes of code: {e}")))?;
    builder.memory_provider(Box::new(arena));
    let mut module = JITModule::new(builder);
    let functions = Functions::declare(&mut module, program)?;
    functions.define(&mut module, program, &codes)?;
    module
        .finalize_definitions()
        .map_err(|e| Diag::new("compile.module", format!("the code could not be linked: {e}")))?;
    let main = module.get_finalized_function(functions.main());
    // SAFETY: the function was compiled with exactly this signature and calling convention.
    let main = unsafe { std::mem::transmute::<*const u8, MainFn>(main) };
    Ok(Jitted { main, owner: Box::new(Owner(Some(module))), sizes })
}

/// Compiles a planned program to an object. `target` is for [`Relocation::Pic`].
pub fn object(program: &Program, target: &Target, threads: usize) -> Result<Object, Diag> {
    let mut module = object_module(target)?;
    let functions = Functions::declare(&mut module, program)?;
    let codes = functions.compile(program, target, threads, Listing::No)?;
    functions.define(&mut module, program, &codes)?;
    let bytes = module.finish().emit().map_err(|e| object_failed(&e))?;
    Ok(Object { bytes, sizes: Sizes::of(program, &codes) })
}

fn object_module(target: &Target) -> Result<ObjectModule, Diag> {
    let names = cranelift_module::default_libcall_names();
    let builder = ObjectBuilder::new(target.isa.clone(), "lehr_model", names).map_err(|e| object_failed(&e))?;
    Ok(ObjectModule::new(builder))
}

fn object_failed(error: &dyn std::fmt::Display) -> Diag {
    Diag::new("compile.module", format!("the object could not be written: {error}"))
}

/// CLIF of what Cranelift compiles, and assembly of that and the leaves, in order. `target` is for [`Relocation::Pic`].
pub fn listing(program: &Program, target: &Target, threads: usize) -> Result<(String, String), Diag> {
    let mut module = object_module(target)?;
    let functions = Functions::declare(&mut module, program)?;
    let codes = functions.compile(program, target, threads, Listing::Yes)?;
    let clif = codes.iter().map(|c| format!("{}\n", c.clif)).collect();
    let leaves = program.leaves.iter().enumerate();
    let leaves = leaves.map(|(k, leaf)| format!("leaf{k}: # {}\n{}\n", leaf.name, x86::disassemble(&leaf.code)));
    let asm = codes.iter().map(|c| c.asm.clone()).chain(leaves).collect();
    Ok((clif, asm))
}

/// The symbol of a kernel's function: its position and what of its name a symbol can hold.
fn function_name(program: &Program, kernel: usize) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = program.kernels[kernel].name.chars().take(48).map(clean).collect();
    format!("k{kernel}_{name}")
}
