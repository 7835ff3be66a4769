//! Reading objects: sections with their relocations, symbols resolved, and what the descriptor does not reach left out.

use std::collections::{BTreeSet, HashMap};

use object::{
    Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags, SectionIndex, SymbolKind, elf,
};

use super::IMPORTS;
use super::machine::{self, Kind};
use crate::artefact::ArtefactError;
use crate::artefact::tables::{Tables, To};
use crate::runtime;

/// Everything that goes into a library, besides its weights.
pub struct Link {
    /// Live sections only, in the order of the objects.
    pub sections: Vec<Section>,
    /// Imported functions, sorted.
    pub imports: Vec<&'static str>,
    /// Functions of live sections, for debuggers.
    pub functions: Vec<Function>,
    /// Where the descriptor is.
    pub descriptor: (usize, u64),
}

pub struct Section {
    pub place: Place,
    pub align: u64,
    pub data: Vec<u8>,
    pub relocations: Vec<Relocation>,
}

/// The output section that a section goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Rodata,
    Text,
    /// Constant, but with addresses that are known only when loaded.
    Relro,
}

pub struct Relocation {
    pub offset: u64,
    pub kind: Kind,
    pub addend: i64,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Section and offset.
    Section(usize, u64),
    /// Index into `imports` (while reading: into the list of allowed ones).
    Import(usize),
    Weights,
    /// To be resolved when all objects are read.
    Name(String),
}

pub struct Function {
    pub name: String,
    pub section: usize,
    pub offset: u64,
    pub size: u64,
}

struct Reader {
    sections: Vec<Section>,
    functions: Vec<Function>,
    /// Global definitions.
    globals: HashMap<String, (usize, u64)>,
}

impl Link {
    /// Reads the runtime's object and `objects`, and adds the descriptor's tables.
    pub fn new(objects: &[Vec<u8>], tables: &Tables, symbol: &str) -> Result<Link, ArtefactError> {
        let mut reader = Reader { sections: Vec::new(), functions: Vec::new(), globals: HashMap::new() };
        for (index, object) in objects.iter().enumerate() {
            reader.object(object).map_err(|why| ArtefactError::new(format!("object {index}: {why}")))?;
        }
        reader.object(runtime::OBJECT).map_err(|why| ArtefactError::new(format!("the runtime's object: {why}")))?;
        let descriptor = reader.tables(tables, symbol);
        reader.resolve()?;
        Ok(reader.live(descriptor))
    }
}

impl Reader {
    fn object(&mut self, bytes: &[u8]) -> Result<(), String> {
        let file = object::File::parse(bytes).map_err(|error| format!("it cannot be read: {error}"))?;
        if file.kind() != object::ObjectKind::Relocatable || file.architecture() != machine::ARCHITECTURE {
            return Err(format!(
                "it is {:?} for {:?}, not a relocatable object for {:?}",
                file.kind(),
                file.architecture(),
                machine::ARCHITECTURE
            ));
        }
        let mut indices = HashMap::new();
        for section in file.sections() {
            let name = section.name().map_err(|error| error.to_string())?;
            let Some(place) = place_of(name, &section)? else { continue };
            let data = section.data().map_err(|error| error.to_string())?.to_vec();
            indices.insert(section.index(), self.sections.len());
            self.sections.push(Section { place, align: section.align().max(1), data, relocations: Vec::new() });
        }
        for section in file.sections() {
            let Some(&index) = indices.get(&section.index()) else { continue };
            let relocations = relocations(&file, &section, &indices)?;
            let own = &mut self.sections[index];
            if own.place == Place::Rodata && relocations.iter().any(|relocation| relocation.kind == Kind::Absolute) {
                own.place = Place::Relro;
            }
            own.relocations = relocations;
        }
        for symbol in file.symbols().filter(|symbol| symbol.is_definition()) {
            let Some(&section) = symbol.section_index().and_then(|index| indices.get(&index)) else { continue };
            let name = symbol.name().map_err(|error| error.to_string())?.to_owned();
            if symbol.is_global() && self.globals.insert(name.clone(), (section, symbol.address())).is_some() {
                return Err(format!("{name} is defined twice"));
            }
            if symbol.kind() == SymbolKind::Text && !name.is_empty() {
                self.functions.push(Function { name, section, offset: symbol.address(), size: symbol.size() });
            }
        }
        Ok(())
    }

    fn tables(&mut self, tables: &Tables, symbol: &str) -> (usize, u64) {
        let (rodata, relro) = (self.sections.len(), self.sections.len() + 1);
        let relocation = |pointer: &crate::artefact::tables::Pointer| Relocation {
            offset: pointer.at,
            kind: Kind::Absolute,
            addend: 0,
            target: match pointer.to {
                To::Rodata(offset) => Target::Section(rodata, offset),
                To::Relro(offset) => Target::Section(relro, offset),
                To::Symbol(name) => Target::Name(name.into()),
                To::Weights => Target::Weights,
            },
        };
        let relocations = tables.pointers.iter().map(relocation).collect();
        let section = |place, data: &[u8], relocations| Section { place, align: 8, data: data.to_vec(), relocations };
        self.sections.push(section(Place::Rodata, &tables.rodata, Vec::new()));
        self.sections.push(section(Place::Relro, &tables.relro, relocations));
        self.globals.insert(symbol.to_owned(), (relro, tables.descriptor));
        (relro, tables.descriptor)
    }

    /// Turns names into sections and imports; lists all that are missing.
    fn resolve(&mut self) -> Result<(), ArtefactError> {
        let mut missing = BTreeSet::new();
        for relocation in self.sections.iter_mut().flat_map(|section| &mut section.relocations) {
            let Target::Name(name) = &relocation.target else { continue };
            if let Some(&(section, offset)) = self.globals.get(name) {
                relocation.target = Target::Section(section, offset);
            } else if let Some(import) = IMPORTS.iter().position(|import| import == name) {
                relocation.target = Target::Import(import);
            } else {
                missing.insert(name.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = missing.into_iter().collect();
        Err(ArtefactError::new(format!("undefined in the model's code and in the runtime: {}", names.join(", "))))
    }

    /// Keeps the sections that can be reached from the descriptor's, and the imports that those use.
    fn live(self, descriptor: (usize, u64)) -> Link {
        let mut live = vec![false; self.sections.len()];
        let mut used = [false; IMPORTS.len()];
        let mut work = vec![descriptor.0];
        while let Some(section) = work.pop() {
            if std::mem::replace(&mut live[section], true) {
                continue;
            }
            for relocation in &self.sections[section].relocations {
                match relocation.target {
                    Target::Section(target, _) => work.push(target),
                    Target::Import(import) => used[import] = true,
                    Target::Weights | Target::Name(_) => {}
                }
            }
        }
        let new_sections = ranks(&live);
        let mut allowed: Vec<usize> = (0..IMPORTS.len()).filter(|&import| used[import]).collect();
        allowed.sort_by_key(|&import| IMPORTS[import]);

        let mut sections: Vec<_> =
            self.sections.into_iter().zip(&live).filter(|(_, live)| **live).map(|(s, _)| s).collect();
        for relocation in sections.iter_mut().flat_map(|section| &mut section.relocations) {
            match &mut relocation.target {
                Target::Section(section, _) => *section = new_sections[*section],
                Target::Import(import) => {
                    *import = allowed.iter().position(|allowed| allowed == import).expect("a used import is listed");
                }
                Target::Weights | Target::Name(_) => {}
            }
        }
        let functions = self.functions.into_iter().filter(|function| live[function.section]);
        let functions =
            functions.map(|function| Function { section: new_sections[function.section], ..function }).collect();
        Link {
            sections,
            imports: allowed.into_iter().map(|import| IMPORTS[import]).collect(),
            functions,
            descriptor: (new_sections[descriptor.0], descriptor.1),
        }
    }
}

/// The index of each kept item among the kept ones.
fn ranks(keep: &[bool]) -> Vec<usize> {
    let mut next = 0;
    keep.iter()
        .map(|&keep| {
            let rank = next;
            next += keep as usize;
            rank
        })
        .collect()
}

/// Where a section goes; `None` for what a library does not need.
fn place_of<'a>(name: &str, section: &impl ObjectSection<'a>) -> Result<Option<Place>, String> {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
        return Err(format!("section {name} is not of an ELF file"));
    };
    let has = |flag: elf::SectionFlags| sh_flags.0 & flag.0 != 0;
    // Unwind tables are of no use: nothing in a model unwinds.
    if !has(elf::SHF_ALLOC) || section.size() == 0 || name == ".eh_frame" || name.starts_with(".note") {
        return Ok(None);
    }
    if has(elf::SHF_TLS) || (has(elf::SHF_WRITE) && !name.starts_with(".data.rel.ro")) {
        return Err(format!("section {name} is mutable; a model's state belongs into its workspace"));
    }
    Ok(Some(match (has(elf::SHF_EXECINSTR), has(elf::SHF_WRITE)) {
        (true, _) => Place::Text,
        (false, true) => Place::Relro,
        (false, false) => Place::Rodata,
    }))
}

fn relocations<'a>(
    file: &object::File<'a>,
    section: &impl ObjectSection<'a>,
    indices: &HashMap<SectionIndex, usize>,
) -> Result<Vec<Relocation>, String> {
    let mut list = Vec::new();
    for (offset, relocation) in section.relocations() {
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            return Err("it has relocations that are not of ELF".into());
        };
        let kind =
            machine::kind(r_type).map_err(|why| format!("{} at {offset}: {why}", section.name().unwrap_or("?")))?;
        let width = if kind == Kind::Absolute { 8 } else { 4 };
        if offset.checked_add(width).is_none_or(|end| end > section.size()) {
            return Err(format!("a relocation at {offset} lies outside its section"));
        }
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            return Err(format!("the relocation at {offset} has no symbol"));
        };
        let symbol = file.symbol_by_index(symbol).map_err(|error| error.to_string())?;
        let local = symbol.section_index().and_then(|index| indices.get(&index));
        let name = symbol.name().map_err(|error| error.to_string())?;
        let target = match local {
            Some(&section) => Target::Section(section, symbol.address()),
            None if symbol.is_undefined() && !name.is_empty() => Target::Name(name.to_owned()),
            None => {
                return Err(format!(
                    "the relocation at {offset} refers to '{name}', which is in no section of a library"
                ));
            }
        };
        list.push(Relocation { offset, kind, addend: relocation.addend(), target });
    }
    Ok(list)
}
