//! The stamp leaf: stores the CPU's time stamp counter, for measuring where a run's time goes.
//!
//! ```text
//! *args[0] = rdtsc        after everything before it has finished (lfence)
//! ```

use super::LeafError;
use crate::program::Leaf;
use iced_x86::code_asm::{CodeAssembler, qword_ptr, rax, rcx, rdi, rdx};

/// The leaf; every x86-64 has the instructions.
pub fn stamp() -> Result<Leaf, LeafError> {
    let assemble = || {
        let mut asm = CodeAssembler::new(64)?;
        asm.lfence()?;
        asm.rdtsc()?;
        asm.shl(rdx, 32)?;
        asm.or(rax, rdx)?;
        asm.mov(rcx, qword_ptr(rdi))?;
        asm.mov(qword_ptr(rcx), rax)?;
        asm.ret()?;
        asm.assemble(0)
    };
    let code = assemble().map_err(LeafError::encoder)?;
    Ok(Leaf { name: "stamp".into(), code: code.into(), streams: None })
}
