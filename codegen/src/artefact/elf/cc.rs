//! The other way to link: the same objects, descriptor and weights as relocatable objects, given to a C compiler's driver.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::write::{Object, Relocation, StandardSection, Symbol, SymbolId, SymbolSection};
use object::{
    BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf,
};

use super::machine;
use crate::artefact::ArtefactError;
use crate::artefact::image::ModelImage;
use crate::artefact::tables::{Tables, To};
use crate::runtime;

/// Links with `driver -shared`. The parts are (tables, exported symbol, soname).
pub fn link(
    driver: &Path,
    image: &ModelImage,
    objects: &[Vec<u8>],
    (tables, symbol, soname): (&Tables, &str, &str),
    output: &Path,
) -> Result<(), ArtefactError> {
    let folder = Folder(output.with_extension("parts"));
    let failed = |error: std::io::Error| ArtefactError::new(format!("{}: {error}", folder.0.display()));
    fs::create_dir_all(&folder.0).map_err(failed)?;
    let mut files = Vec::new();
    let mut put = |name: String, bytes: &[u8]| -> Result<(), ArtefactError> {
        let path = folder.0.join(name);
        fs::write(&path, bytes).map_err(failed)?;
        files.push(path);
        Ok(())
    };
    put("tables.o".into(), &tables_object(image, tables, symbol)?)?;
    put("runtime.o".into(), runtime::OBJECT)?;
    for (index, object) in objects.iter().enumerate() {
        put(format!("{index}.o"), object)?;
    }
    let exports = folder.0.join("exports");
    fs::write(&exports, format!("{{ global: {symbol}; local: *; }};\n")).map_err(failed)?;

    let mut script = std::ffi::OsString::from("-Wl,--version-script=");
    script.push(&exports);
    let run = Command::new(driver)
        .args(["-shared", "-nostartfiles", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack", "-Wl,--build-id=none"])
        .args(["-Wl,--gc-sections", "-Wl,-z,defs"])
        .arg(format!("-Wl,-soname,{soname}"))
        .arg(script)
        .args([OsStr::new("-o"), output.as_os_str()])
        .args(&files)
        .output()
        .map_err(|error| ArtefactError::new(format!("{} cannot be run: {error}", driver.display())))?;
    if !run.status.success() {
        let text = String::from_utf8_lossy(&run.stderr);
        return Err(ArtefactError::new(format!("{} failed to link the model:\n{text}", driver.display())));
    }
    Ok(())
}

/// A scratch folder that is removed again.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of a scratch folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The descriptor, what it points to, and the weights, as an object.
fn tables_object(image: &ModelImage, tables: &Tables, symbol: &str) -> Result<Vec<u8>, ArtefactError> {
    let mut object = Object::new(BinaryFormat::Elf, machine::ARCHITECTURE, Endianness::Little);
    let rodata = object.section_id(StandardSection::ReadOnlyData);
    object.append_section_data(rodata, &tables.rodata, 8);
    let relro = object.section_id(StandardSection::ReadOnlyDataWithRel);
    object.append_section_data(relro, &tables.relro, 8);
    // A large section may be anywhere, so code and data stay within 2 GB of each other.
    let weights = object.add_section(Vec::new(), b".lrodata.lehr".to_vec(), SectionKind::ReadOnlyData);
    const SHF_X86_64_LARGE: u64 = 0x1000_0000;
    object.section_mut(weights).flags = SectionFlags::Elf {
        sh_type: elf::SHT_PROGBITS,
        sh_flags: elf::SectionFlags(elf::SHF_ALLOC.0 | SHF_X86_64_LARGE),
    };
    object.append_section_data(weights, &weights_in_memory(image)?, 4096);

    object.add_symbol(Symbol {
        name: symbol.as_bytes().to_vec(),
        value: tables.descriptor,
        size: size_of::<runtime::abi::LehrModel>() as u64,
        kind: SymbolKind::Data,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(relro),
        flags: SymbolFlags::None,
    });
    let (rodata, weights, relro_symbol) =
        (object.section_symbol(rodata), object.section_symbol(weights), object.section_symbol(relro));
    for pointer in &tables.pointers {
        let (symbol, addend) = match pointer.to {
            To::Rodata(offset) => (rodata, offset as i64),
            To::Relro(offset) => (relro_symbol, offset as i64),
            To::Weights => (weights, 0),
            To::Symbol(name) => (undefined(&mut object, name), 0),
        };
        let flags = RelocationFlags::Elf { r_type: elf::R_X86_64_64 };
        object
            .add_relocation(relro, Relocation { offset: pointer.at, symbol, addend, flags })
            .map_err(|error| ArtefactError::new(error.to_string()))?;
    }
    object.write().map_err(|error| ArtefactError::new(error.to_string()))
}

fn undefined(object: &mut Object, name: &str) -> SymbolId {
    object.symbol_id(name.as_bytes()).unwrap_or_else(|| {
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        })
    })
}

fn weights_in_memory(image: &ModelImage) -> Result<Vec<u8>, ArtefactError> {
    let bytes = usize::try_from(image.weights_bytes).map_err(|_| ArtefactError::new("the weights exceed memory"))?;
    let mut all = vec![0; bytes];
    for blob in &image.weights {
        all[blob.offset as usize..][..blob.data.len()].copy_from_slice(&blob.data);
    }
    Ok(all)
}
