//! Weights kept in files beside the model. A location is relative to the model's folder and never leaves it:
//! no absolute path, no `..`, no symbolic link that leads out.

use super::proto::TensorProto;
use crate::mapped::map_file;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

/// The model's folder, and the files mapped so far (many tensors share one).
#[derive(Debug, Default)]
pub struct External {
    folder: Option<PathBuf>,
    files: Mutex<HashMap<PathBuf, Bytes>>,
}

impl External {
    pub fn new(folder: Option<&Path>) -> External {
        External { folder: folder.map(Path::to_path_buf), files: Mutex::default() }
    }

    /// The bytes that a tensor's `external_data` names; `expected` is what its type and shape take.
    pub fn bytes(&self, t: &TensorProto, expected: usize) -> Result<Bytes, String> {
        let (mut location, mut offset, mut length) = (None, 0u64, None);
        for entry in &t.external_data {
            let number = || entry.value.parse::<u64>().map_err(|_| format!("external data: bad {}", entry.key));
            match entry.key.as_str() {
                "location" => location = Some(entry.value.as_str()),
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                // A checksum is for tools that distribute models; the specification leaves its use open.
                "checksum" => {}
                // Keys unknown to the specification carry hints (a memory-mapping granularity, for one).
                _ => {}
            }
        }
        let location = location.ok_or("external data has no location")?;
        let file = self.file(location)?;
        let start = usize::try_from(offset).map_err(|_| "external data: absurd offset")?;
        let len = match length {
            Some(n) => usize::try_from(n).map_err(|_| "external data: absurd length")?,
            None => expected,
        };
        let end = start.checked_add(len).filter(|&end| end <= file.len()).ok_or_else(|| {
            format!("external data: bytes {start}..+{len} are outside of {location}, which has {} bytes", file.len())
        })?;
        Ok(file.slice(start..end))
    }

    fn file(&self, location: &str) -> Result<Bytes, String> {
        let folder = self.folder.as_deref().ok_or_else(|| {
            format!("its data is in the file {location}, but a model read from a stream has no folder; give its path")
        })?;
        let relative = Path::new(location);
        let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside || location.contains('\0') {
            return Err(format!("external data: {location:?} leads out of the model's folder, which is not allowed"));
        }
        let mut files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(bytes) = files.get(relative) {
            return Ok(bytes.clone());
        }
        let failed = |e: std::io::Error| format!("external data: {location}: {e}");
        let folder = folder.canonicalize().map_err(failed)?;
        let path = folder.join(relative).canonicalize().map_err(failed)?;
        if !path.starts_with(&folder) {
            return Err(format!(
                "external data: {location:?} is a link out of the model's folder, which is not allowed"
            ));
        }
        let bytes = map_file(&path).map_err(failed)?;
        files.insert(relative.to_path_buf(), bytes.clone());
        Ok(bytes)
    }
}
