//! Writing a model.so: a small linker for what compiled models are made of.
//!
//! It takes relocatable objects (the runtime's and the code generator's), keeps the sections that the descriptor reaches, and writes
//!
//! ```text
//! PT_LOAD r--   headers, .gnu.hash, .dynsym, .dynstr, .rela.dyn, .rodata
//! PT_LOAD r-x   .text, import stubs
//! PT_LOAD rw-   .data.rel.ro, .dynamic, .got: read-only once loaded (PT_GNU_RELRO), so nothing in a model is writable
//! not loaded    .symtab with the kernels' names (for perf and gdb), section headers
//! PT_LOAD r--   weights, streamed from their blobs and never held in memory
//! ```
//!
//! One symbol is exported, the descriptor; the imports are a few functions of libc. The weights are reached through one 64-bit
//! pointer, so they may be larger than 2 GB. Equal inputs give equal bytes. The file appears under its name only when it is whole.

mod cc;
mod gnu;
mod input;
mod layout;
mod machine;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ArtefactError;
use super::image::ModelImage;
use super::names::c_identifier;
use super::tables::Tables;

/// The C library's functions that a model may import; `build.rs` holds the runtime's object to the same list.
const IMPORTS: [&str; 12] = [
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "syscall",
    "pthread_create",
    "pthread_join",
    "pthread_sigmask",
    "dlopen",
    "dlsym",
    "dlerror",
    "secure_getenv",
];

/// How a library is written.
#[derive(Clone, Debug)]
pub struct SoOptions {
    /// What the descriptor's name starts with; the model's name follows.
    pub prefix: String,
    /// `DT_SONAME`; without one, the file's name.
    pub soname: Option<String>,
    pub linker: Linker,
}

/// Who links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linker {
    /// This module.
    Builtin,
    /// A C compiler's driver, such as `cc`. It holds the weights in memory.
    Cc(PathBuf),
}

impl Default for SoOptions {
    fn default() -> SoOptions {
        SoOptions { prefix: "lehr_model_".into(), soname: None, linker: Linker::Builtin }
    }
}

impl SoOptions {
    /// The name of the descriptor of a model.
    pub fn symbol(&self, model: &str) -> String {
        let name: String = model.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        c_identifier_or_plain(&format!("{}{name}", self.prefix))
    }
}

/// With a prefix, a digit in front of the model's name is harmless; without one it is not.
fn c_identifier_or_plain(name: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { name.to_owned() } else { c_identifier(name) }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoReport {
    /// The exported descriptor.
    pub symbol: String,
    pub file_bytes: u64,
}

/// Writes a shared library of a model to `path`. `objects` are relocatable ELF objects; one defines
/// [`crate::runtime::abi::MAIN_SYMBOL`], and what they import is the runtime's or on the short list of libc's functions.
pub fn write_so(
    image: &ModelImage,
    objects: &[Vec<u8>],
    options: &SoOptions,
    path: &Path,
) -> Result<SoReport, ArtefactError> {
    image.check()?;
    let about = |why: String| ArtefactError::new(format!("{}: {why}", path.display()));
    let file_name = path.file_name().ok_or_else(|| about("this is not a file name".into()))?;
    let soname = options.soname.clone().unwrap_or_else(|| file_name.to_string_lossy().into_owned());
    let symbol = options.symbol(&image.name);
    let tables = Tables::new(image);

    // In the same folder, so that the rename cannot cross file systems.
    let mut temporary = file_name.to_owned();
    temporary.push(format!(".{}.partial", std::process::id()));
    let partial = Partial(path.with_file_name(temporary));
    match &options.linker {
        Linker::Builtin => {
            let link = input::Link::new(objects, &tables, &symbol)?;
            let library = layout::Library::new(link, &soname, &symbol, image.weights_bytes)?;
            write::write(&library, image, &partial.0).map_err(|error| about(error.to_string()))?;
        }
        Linker::Cc(driver) => cc::link(driver, image, objects, (&tables, &symbol, &soname), &partial.0)?,
    }
    let finish = || -> io::Result<u64> {
        let bytes = fs::metadata(&partial.0)?.len();
        fs::rename(&partial.0, path)?;
        Ok(bytes)
    };
    let file_bytes = finish().map_err(|error| about(error.to_string()))?;
    Ok(SoReport { symbol, file_bytes })
}

/// A file that is removed again unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After a success there is nothing under this name; after a failure nobody can do more about it.
        let _ = fs::remove_file(&self.0);
    }
}
