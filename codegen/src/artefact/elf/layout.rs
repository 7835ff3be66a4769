//! Placing a library: addresses for everything, then relocations applied, up to bytes that only need to be written.
//!
//! Addresses equal file offsets. The weights come last, after the parts that are not loaded.

use std::collections::HashMap;

use super::gnu;
use super::input::{Function, Link, Place, Section, Target};
use super::machine::{self, HUGE_PAGE, Kind, PAGE};
use crate::artefact::ArtefactError;

pub const EHDR_BYTES: u64 = 64;
pub const PHDR_BYTES: u64 = 56;
pub const SYM_BYTES: u64 = 24;
pub const RELA_BYTES: u64 = 24;
pub const DYN_BYTES: u64 = 16;

/// A library's parts with their addresses and final bytes.
pub struct Library {
    pub gnu_hash: Part,
    pub dynsym: Part,
    pub dynstr: Part,
    pub rela: Part,
    pub rodata: Part,
    pub text: Part,
    pub relro: Part,
    pub dynamic: Part,
    pub got: Part,
    /// End of the third segment, at a page.
    pub end: u64,
    pub weights: Option<Weights>,
    /// Functions with address and size, for `.symtab`.
    pub functions: Vec<(String, u64, u64)>,
}

pub struct Part {
    pub address: u64,
    pub data: Vec<u8>,
}

/// The last segment.
pub struct Weights {
    pub address: u64,
    pub bytes: u64,
}

impl Weights {
    /// The segment's alignment. Where the weights fill huge pages, the loader shall keep their offsets within these.
    pub fn align(&self) -> u64 {
        let huge_end = (self.address + self.bytes) / HUGE_PAGE * HUGE_PAGE;
        if self.address.next_multiple_of(HUGE_PAGE) < huge_end { HUGE_PAGE } else { PAGE }
    }
}

impl Part {
    pub fn end(&self) -> u64 {
        self.address + self.data.len() as u64
    }
}

/// One entry of `.rela.dyn`.
#[derive(Clone, Copy)]
struct Dynamic {
    place: u64,
    kind: u32,
    symbol: u32,
    addend: u64,
}

/// The table of addresses: which targets have a slot.
#[derive(Default)]
struct Slots {
    index: HashMap<SlotKey, usize>,
    keys: Vec<SlotKey>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SlotKey {
    Section(usize, u64),
    Import(usize),
    Weights,
}

impl SlotKey {
    fn of(target: &Target) -> SlotKey {
        match *target {
            Target::Section(section, offset) => SlotKey::Section(section, offset),
            Target::Import(import) => SlotKey::Import(import),
            Target::Weights => SlotKey::Weights,
            Target::Name(_) => unreachable!("names were resolved"),
        }
    }
}

impl Slots {
    fn add(&mut self, key: SlotKey) {
        self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.keys.len() - 1
        });
    }
}

impl Library {
    pub fn new(link: Link, soname: &str, symbol: &str, weights_bytes: u64) -> Result<Library, ArtefactError> {
        let Link { mut sections, imports, functions, descriptor } = link;
        let slots = slots(&sections, imports.len());
        let n_dynamic = dynamic_count(&sections, &slots);

        // Sizes first; the contents follow once addresses are known.
        let mut names = gnu::Strings::default();
        let import_names: Vec<u32> = imports.iter().map(|name| names.add(name)).collect();
        let (symbol_name, soname, libc) = (names.add(symbol), names.add(soname), names.add("libc.so.6"));

        let n_symbols = imports.len() as u64 + 2;
        let n_headers = if weights_bytes > 0 { 7 } else { 6 };
        let mut at = Cursor(EHDR_BYTES + n_headers * PHDR_BYTES);
        let gnu_hash =
            Part { address: at.take(8, gnu::HASH_BYTES), data: gnu::hash_table(symbol, n_symbols as u32 - 1) };
        let dynsym_at = at.take(8, n_symbols * SYM_BYTES);
        let dynstr = Part { address: at.take(1, names.bytes.len() as u64), data: names.bytes };
        let rela_at = at.take(8, n_dynamic * RELA_BYTES);
        let mut addresses = vec![0; sections.len()];
        let rodata_at = at.place(&sections, Place::Rodata, &mut addresses);
        at.page();
        let text_at = at.place(&sections, Place::Text, &mut addresses);
        let stubs_at = at.take(16, imports.len() as u64 * machine::STUB_BYTES);
        let text_end = at.0;
        at.page();
        let relro_at = at.place(&sections, Place::Relro, &mut addresses);
        let relro_end = at.0;
        let dynamic_at = at.take(8, gnu::DYNAMIC_ENTRIES * DYN_BYTES);
        let got_at = at.take(8, slots.keys.len() as u64 * 8);
        at.page();
        let end = at.0;
        at.take(8, unloaded_bytes(&functions));
        at.page();
        let weights_at = at.0;
        let weights = (weights_bytes > 0).then_some(Weights { address: weights_at, bytes: weights_bytes });

        let places = Places { addresses, weights: weights_at, stubs: stubs_at, got: got_at, slots };
        let mut dynamics = places.relocate(&mut sections)?;
        dynamics.extend(places.slot_relocations());
        // Relative ones first, which the loader does in one loop.
        dynamics.sort_by_key(|d| (d.kind != machine::RELATIVE, d.place));
        let n_relative = dynamics.iter().filter(|d| d.kind == machine::RELATIVE).count() as u64;
        debug_assert_eq!(dynamics.len() as u64, n_dynamic);

        let gather = |place, start, end, fill| places.gather(&sections, place, start, end, fill);
        let mut text = gather(Place::Text, text_at, text_end, machine::FILL);
        for import in 0..imports.len() {
            let address = stubs_at + import as u64 * machine::STUB_BYTES;
            let code = machine::stub(address, places.slot(SlotKey::Import(import)))?;
            text.data[(address - text_at) as usize..][..code.len()].copy_from_slice(&code);
        }
        let rodata_end = rodata_at.max(places.end_of(&sections, Place::Rodata));
        let rodata = gather(Place::Rodata, rodata_at, rodata_end, 0);
        let relro = gather(Place::Relro, relro_at, relro_end, 0);

        let mut dynsym = vec![0; SYM_BYTES as usize];
        for name in import_names {
            dynsym.extend(gnu::symbol(name, gnu::GLOBAL_FUNCTION, 0, 0, 0));
        }
        let descriptor_at = places.addresses[descriptor.0] + descriptor.1;
        let descriptor_bytes = size_of::<crate::runtime::abi::LehrModel>() as u64;
        dynsym.extend(gnu::symbol(
            symbol_name,
            gnu::GLOBAL_OBJECT,
            gnu::section::RELRO,
            descriptor_at,
            descriptor_bytes,
        ));

        let rela: Vec<u8> = dynamics
            .iter()
            .flat_map(|d| [d.place, (d.symbol as u64) << 32 | d.kind as u64, d.addend])
            .flat_map(u64::to_le_bytes)
            .collect();
        let dynamic = gnu::dynamic(&gnu::DynamicTable {
            libc,
            soname,
            gnu_hash: gnu_hash.address,
            dynstr: dynstr.address,
            dynstr_bytes: dynstr.data.len() as u64,
            dynsym: dynsym_at,
            rela: rela_at,
            rela_bytes: rela.len() as u64,
            n_relative,
        });
        let functions = functions
            .into_iter()
            .map(|function| (function.name, places.addresses[function.section] + function.offset, function.size))
            .collect();
        Ok(Library {
            gnu_hash,
            dynsym: Part { address: dynsym_at, data: dynsym },
            dynstr,
            rela: Part { address: rela_at, data: rela },
            rodata,
            text,
            relro,
            dynamic: Part { address: dynamic_at, data: dynamic },
            got: Part { address: got_at, data: vec![0; places.slots.keys.len() * 8] },
            end,
            weights,
            functions,
        })
    }
}

/// Every import has a slot (its stub jumps through it), and so has what code reaches through the table.
fn slots(sections: &[Section], imports: usize) -> Slots {
    let mut slots = Slots::default();
    (0..imports).for_each(|import| slots.add(SlotKey::Import(import)));
    for relocation in sections.iter().flat_map(|section| &section.relocations) {
        if relocation.kind == Kind::ViaTable {
            slots.add(SlotKey::of(&relocation.target));
        }
    }
    slots
}

/// At least what the writer puts behind the third segment: `.symtab`, the names in it, and section headers with theirs.
fn unloaded_bytes(functions: &[Function]) -> u64 {
    const HEADERS: u64 = 2048;
    let names: usize = functions.iter().map(|function| function.name.len() + 1).sum();
    names as u64 + (functions.len() as u64 + 2) * SYM_BYTES + HEADERS
}

fn dynamic_count(sections: &[Section], slots: &Slots) -> u64 {
    let absolute =
        sections.iter().flat_map(|section| &section.relocations).filter(|r| r.kind == Kind::Absolute).count();
    (absolute + slots.keys.len()) as u64
}

/// The next free address.
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, align: u64, bytes: u64) -> u64 {
        let start = self.0.next_multiple_of(align);
        self.0 = start + bytes;
        start
    }

    fn page(&mut self) {
        self.0 = self.0.next_multiple_of(PAGE);
    }

    /// Places the sections of a kind one after the other; the start of all.
    fn place(&mut self, sections: &[Section], place: Place, addresses: &mut [u64]) -> u64 {
        let start = self.take(64, 0);
        for (section, address) in sections.iter().zip(addresses) {
            if section.place == place {
                *address = self.take(section.align, section.data.len() as u64);
            }
        }
        start
    }
}

/// Where everything is.
struct Places {
    addresses: Vec<u64>,
    weights: u64,
    stubs: u64,
    got: u64,
    slots: Slots,
}

impl Places {
    fn slot(&self, key: SlotKey) -> u64 {
        self.got + 8 * self.slots.index[&key] as u64
    }

    /// Applies what is known now and returns what the loader has to do.
    fn relocate(&self, sections: &mut [Section]) -> Result<Vec<Dynamic>, ArtefactError> {
        let mut dynamics = Vec::new();
        for (index, section) in sections.iter_mut().enumerate() {
            for relocation in &section.relocations {
                let place = self.addresses[index] + relocation.offset;
                let key = SlotKey::of(&relocation.target);
                let target = match relocation.kind {
                    Kind::Absolute => {
                        if section.place != Place::Relro {
                            return Err(ArtefactError::new(
                                "code holds an absolute address, which would have to be writable",
                            ));
                        }
                        dynamics.push(self.dynamic(place, key, relocation.addend, machine::ABSOLUTE));
                        continue;
                    }
                    Kind::ViaTable => self.slot(key),
                    Kind::Relative => match key {
                        SlotKey::Import(import) => self.stubs + import as u64 * machine::STUB_BYTES,
                        SlotKey::Section(..) | SlotKey::Weights => self.address(key),
                    },
                };
                machine::patch_relative(&mut section.data, relocation.offset, target, relocation.addend, place)?;
            }
        }
        Ok(dynamics)
    }

    fn slot_relocations(&self) -> impl Iterator<Item = Dynamic> {
        self.slots.keys.iter().map(|&key| self.dynamic(self.slot(key), key, 0, machine::GLOB_DAT))
    }

    fn dynamic(&self, place: u64, key: SlotKey, addend: i64, import_kind: u32) -> Dynamic {
        match key {
            // Symbol 0 is the null symbol.
            SlotKey::Import(import) => {
                Dynamic { place, kind: import_kind, symbol: import as u32 + 1, addend: addend as u64 }
            }
            SlotKey::Section(..) | SlotKey::Weights => {
                let addend = self.address(key).wrapping_add_signed(addend);
                Dynamic { place, kind: machine::RELATIVE, symbol: 0, addend }
            }
        }
    }

    fn address(&self, key: SlotKey) -> u64 {
        match key {
            SlotKey::Section(section, offset) => self.addresses[section] + offset,
            SlotKey::Weights => self.weights,
            SlotKey::Import(import) => self.stubs + import as u64 * machine::STUB_BYTES,
        }
    }

    fn end_of(&self, sections: &[Section], place: Place) -> u64 {
        let ends = sections.iter().zip(&self.addresses).filter(|(section, _)| section.place == place);
        ends.map(|(section, address)| address + section.data.len() as u64).max().unwrap_or(0)
    }

    fn gather(&self, sections: &[Section], place: Place, start: u64, end: u64, fill: u8) -> Part {
        let mut data = vec![fill; (end - start) as usize];
        for (section, address) in sections.iter().zip(&self.addresses).filter(|(section, _)| section.place == place) {
            data[(address - start) as usize..][..section.data.len()].copy_from_slice(&section.data);
        }
        Part { address: start, data }
    }
}
