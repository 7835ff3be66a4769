//! Files mapped into memory: opening a model of gigabytes costs nothing until its weights are read.

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// The whole of a regular file, mapped read-only. Slices of the result keep the mapping alive.
///
/// The file must not be truncated while the result lives: reading past its new end kills the process (as with
/// every program that maps files).
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    // A pipe or a terminal has no length to map, and a directory no bytes. Opening a pipe would wait for its writer.
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    if !path.metadata()?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(not_regular());
    }
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::from_owner(map(&file)?))
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only, so nobody writes through it here. That nobody else changes
    // the file meanwhile cannot be established by any program; `map_file` documents it as the caller's duty.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_refuses_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        std::fs::write(&path, [1, 2, 3]).unwrap();
        assert_eq!(&map_file(&path).unwrap()[..], [1, 2, 3]);
        std::fs::write(&path, []).unwrap();
        assert!(map_file(&path).unwrap().is_empty());
        assert!(map_file(dir.path()).is_err());
        // Nobody writes into this pipe.
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils has mkfifo");
        assert!(made.success() && map_file(&pipe).is_err());
    }
}
