//! What depends on the instruction set: relocations, import stubs, numbers. x86-64 so far; another machine is another set of these.

use object::elf;

use crate::artefact::ArtefactError;

pub const ARCHITECTURE: object::Architecture = object::Architecture::X86_64;
pub const MACHINE: u16 = 62;
/// Segments begin at multiples of this.
pub const PAGE: u64 = 4096;
/// A page of the second level: where the weights fill one, the file's blocks, its address and its offset agree, so that a kernel which
/// keeps files in large folios maps it by one entry.
pub const HUGE_PAGE: u64 = 2 << 20;
/// Dynamic relocations: base + addend, symbol (for the import table), symbol + addend.
pub const RELATIVE: u32 = 8;
pub const GLOB_DAT: u32 = 6;
pub const ABSOLUTE: u32 = 1;
/// Fills the space between functions: `int3`.
pub const FILL: u8 = 0xcc;
pub const STUB_BYTES: u64 = 8;

/// What a relocation stores. `S` is the target's address, `A` the addend, `P` the place, `G` the address of the target's slot in
/// the table of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits of S + A, known only when the library is loaded.
    Absolute,
    /// 32 bits of S + A - P; a call to an import goes through a stub.
    Relative,
    /// 32 bits of G + A - P.
    ViaTable,
}

pub fn kind(r_type: elf::RelocationType) -> Result<Kind, String> {
    match r_type {
        elf::R_X86_64_64 => Ok(Kind::Absolute),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => Ok(Kind::Relative),
        elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => Ok(Kind::ViaTable),
        elf::R_X86_64_32 | elf::R_X86_64_32S => {
            Err("a 32-bit absolute address, which a shared library cannot have; compile with position-independent code"
                .into())
        }
        other => Err(format!("relocation type {}, which this linker does not know", other.0)),
    }
}

/// Stores a 32-bit distance.
pub fn patch_relative(data: &mut [u8], at: u64, target: u64, addend: i64, place: u64) -> Result<(), ArtefactError> {
    let value = (target as i128) + addend as i128 - place as i128;
    let value = i32::try_from(value).map_err(|_| {
        ArtefactError::new(format!(
            "code and data are {value} bytes apart, more than 2 GB; the model's code is too large"
        ))
    })?;
    data[at as usize..][..4].copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// `jmp *slot(%rip)`, padded.
pub fn stub(place: u64, slot: u64) -> Result<[u8; STUB_BYTES as usize], ArtefactError> {
    let mut code = [0xff, 0x25, 0, 0, 0, 0, FILL, FILL];
    patch_relative(&mut code, 2, slot, -4, place + 2)?;
    Ok(code)
}
