//! Writing the placed parts of a library, headers first and weights last.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::gnu::{self, section};
use super::layout::{EHDR_BYTES, Library, PHDR_BYTES, Part};
use super::machine::{HUGE_PAGE, MACHINE, PAGE};
use crate::artefact::image::ModelImage;

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;
const SHDR_BYTES: u64 = 64;

struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    bytes: u64,
    align: u64,
}

/// A section header; what it does not say is zero.
#[derive(Default)]
struct SectionHeader {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    bytes: u64,
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

/// Creates the file. The weights' blobs are sorted and within their bytes, as `ModelImage::check` established.
pub fn write(library: &Library, image: &ModelImage, path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    let mut out = Output { file, pending: Vec::with_capacity(HUGE_PAGE as usize), at: 0 };

    let mut names = gnu::Strings::default();
    let symtab = symtab(library, &mut names);
    let symtab_at = library.end;
    let strtab_at = symtab_at + symtab.len() as u64;
    let shstrtab_at = strtab_at + names.bytes.len() as u64;
    let tail = [(symtab_at, symtab.len() as u64), (strtab_at, names.bytes.len() as u64), (shstrtab_at, 0)];

    let (mut headers, mut shstrtab) = (section_headers(library, tail), gnu::Strings::default());
    let name_offsets: Vec<u32> = headers.iter().map(|header| shstrtab.add(header.name)).collect();
    let shstrtab_bytes = shstrtab.bytes.len() as u64;
    let headers_at = (shstrtab_at + shstrtab_bytes).next_multiple_of(8);
    for header in &mut headers {
        if header.name == ".shstrtab" {
            header.bytes = shstrtab_bytes;
        }
    }
    if let Some(weights) = &library.weights {
        let headers_end = headers_at + headers.len() as u64 * SHDR_BYTES;
        assert!(headers_end <= weights.address, "the layout left too little for what is not loaded");
    }

    let programs = program_headers(library);
    out.file_header(programs.len() as u16, headers_at, headers.len() as u16)?;
    programs.iter().try_for_each(|header| out.program_header(header))?;
    for part in parts(library) {
        out.pad(part.address)?;
        out.bytes(&part.data)?;
    }
    out.pad(library.end)?;
    out.bytes(&symtab)?;
    out.bytes(&names.bytes)?;
    out.bytes(&shstrtab.bytes)?;
    out.pad(headers_at)?;
    headers.iter().zip(name_offsets).try_for_each(|(header, name)| out.section_header(header, name))?;
    if let Some(weights) = &library.weights {
        for blob in &image.weights {
            out.pad(weights.address + blob.offset)?;
            out.bytes(&blob.data)?;
        }
        out.pad(weights.address + weights.bytes)?;
    }
    out.flush()?;
    // If the file ends with a hole.
    out.file.set_len(out.at)
}

/// The loaded parts in the order of their addresses.
fn parts(library: &Library) -> [&Part; 9] {
    let l = library;
    [&l.gnu_hash, &l.dynsym, &l.dynstr, &l.rela, &l.rodata, &l.text, &l.relro, &l.dynamic, &l.got]
}

/// Local function symbols: nothing that the dynamic linker sees.
fn symtab(library: &Library, names: &mut gnu::Strings) -> Vec<u8> {
    let mut table = vec![0; 24];
    for (name, address, size) in &library.functions {
        table.extend(gnu::symbol(names.add(name), gnu::LOCAL_FUNCTION, section::TEXT, *address, *size));
    }
    table
}

fn program_headers(library: &Library) -> Vec<ProgramHeader> {
    let segment = |kind, flags, start: u64, end: u64, align| ProgramHeader {
        kind,
        flags,
        offset: start,
        address: start,
        bytes: end - start,
        align,
    };
    let (text, relro) = (library.text.address, library.relro.address);
    let mut headers = vec![
        segment(1, READ, 0, library.rodata.end(), PAGE),
        segment(1, READ | EXECUTE, text, library.text.end(), PAGE),
        segment(1, READ | WRITE, relro, library.end, PAGE),
    ];
    if let Some(weights) = &library.weights {
        headers.push(segment(1, READ, weights.address, weights.address + weights.bytes, weights.align()));
    }
    headers.push(segment(2, READ | WRITE, library.dynamic.address, library.dynamic.end(), 8)); // PT_DYNAMIC
    headers.push(segment(0x6474_e552, READ, relro, library.end, 1)); // PT_GNU_RELRO
    headers.push(segment(0x6474_e551, READ | WRITE, 0, 0, 16)); // PT_GNU_STACK: not executable
    headers
}

/// `tail`: offset and size of `.symtab`, `.strtab` and `.shstrtab`.
fn section_headers(library: &Library, tail: [(u64, u64); 3]) -> Vec<SectionHeader> {
    const PROGBITS: u32 = 1;
    const ALLOC: u64 = 2;
    let loaded = |name, kind, flags: u64, part: &Part, align| SectionHeader {
        name,
        kind,
        flags: ALLOC | flags,
        address: part.address,
        offset: part.address,
        bytes: part.data.len() as u64,
        align,
        ..SectionHeader::default()
    };
    let (dynsym, dynstr) = (section::DYNSYM as u32, section::DYNSTR as u32);
    let linked = |header: SectionHeader, link, info, entry| SectionHeader { link, info, entry, ..header };
    let mut headers = vec![
        SectionHeader::default(),
        linked(loaded(".gnu.hash", 0x6fff_fff6, 0, &library.gnu_hash, 8), dynsym, 0, 0),
        // The first global symbol is number 1.
        linked(loaded(".dynsym", 11, 0, &library.dynsym, 8), dynstr, 1, 24),
        loaded(".dynstr", 3, 0, &library.dynstr, 1),
        linked(loaded(".rela.dyn", 4, 0, &library.rela, 8), dynsym, 0, 24),
        loaded(".rodata", PROGBITS, 0, &library.rodata, 64),
        loaded(".text", PROGBITS, 4, &library.text, 64),
        loaded(".data.rel.ro", PROGBITS, 1, &library.relro, 64),
        linked(loaded(".dynamic", 6, 1, &library.dynamic, 8), dynstr, 0, 16),
        loaded(".got", PROGBITS, 1, &library.got, 8),
    ];
    if let Some(weights) = &library.weights {
        headers.push(SectionHeader {
            name: ".lehr.weights",
            kind: PROGBITS,
            flags: ALLOC,
            address: weights.address,
            offset: weights.address,
            bytes: weights.bytes,
            align: 64,
            ..SectionHeader::default()
        });
    }
    let strtab = headers.len() as u32 + 1;
    let [symbols, strings, names] = tail;
    let unloaded = |name, kind, (offset, bytes), align| SectionHeader {
        name,
        kind,
        offset,
        bytes,
        align,
        ..SectionHeader::default()
    };
    let n_symbols = library.functions.len() as u32 + 1;
    headers.push(linked(unloaded(".symtab", 2, symbols, 8), strtab, n_symbols, 24));
    headers.push(unloaded(".strtab", 3, strings, 1));
    headers.push(unloaded(".shstrtab", 3, names, 1));
    headers
}

/// A file and how much of it is written, what is pending included. Each write ends at a multiple of a huge page, so that a kernel
/// which can keep the file in folios of that size does.
struct Output<W> {
    file: W,
    pending: Vec<u8>,
    at: u64,
}

impl<W: Write + Seek> Output<W> {
    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = HUGE_PAGE - self.at % HUGE_PAGE;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.pending.extend_from_slice(now);
            self.at += now.len() as u64;
            if now.len() as u64 == room {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Zeros up to `end`; a large gap becomes a hole in the file.
    fn pad(&mut self, end: u64) -> io::Result<()> {
        const BLOCK: [u8; 4096] = [0; 4096];
        let gap = end.saturating_sub(self.at);
        if gap > HUGE_PAGE {
            self.flush()?;
            self.at = end;
            return self.file.seek(SeekFrom::Start(end)).map(|_| ());
        }
        while self.at < end {
            let bytes = (end - self.at).min(BLOCK.len() as u64);
            self.bytes(&BLOCK[..bytes as usize])?;
        }
        Ok(())
    }

    fn u16s(&mut self, values: &[u16]) -> io::Result<()> {
        values.iter().try_for_each(|value| self.bytes(&value.to_le_bytes()))
    }

    fn u32s(&mut self, values: &[u32]) -> io::Result<()> {
        values.iter().try_for_each(|value| self.bytes(&value.to_le_bytes()))
    }

    fn u64s(&mut self, values: &[u64]) -> io::Result<()> {
        values.iter().try_for_each(|value| self.bytes(&value.to_le_bytes()))
    }

    fn file_header(&mut self, n_programs: u16, sections_at: u64, n_sections: u16) -> io::Result<()> {
        // 64-bit, little-endian, version 1, System V.
        self.bytes(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        self.u16s(&[3, MACHINE])?;
        self.u32s(&[1])?;
        self.u64s(&[0, EHDR_BYTES, sections_at])?;
        self.u32s(&[0])?;
        // The last section holds the names.
        self.u16s(&[EHDR_BYTES as u16, PHDR_BYTES as u16, n_programs, SHDR_BYTES as u16, n_sections, n_sections - 1])
    }

    fn program_header(&mut self, h: &ProgramHeader) -> io::Result<()> {
        self.u32s(&[h.kind, h.flags])?;
        self.u64s(&[h.offset, h.address, h.address, h.bytes, h.bytes, h.align])
    }

    fn section_header(&mut self, h: &SectionHeader, name: u32) -> io::Result<()> {
        self.u32s(&[name, h.kind])?;
        self.u64s(&[h.flags, h.address, h.offset, h.bytes])?;
        self.u32s(&[h.link, h.info])?;
        self.u64s(&[h.align, h.entry])
    }
}
