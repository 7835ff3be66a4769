//! Weights by name from a `.safetensors` or `.npz` file. Files are not trusted: a name, shape or size that does not fit is an
//! error, and nothing is read beyond what the network asks for.

use crate::mapped::map_file;
use crate::npy;
use bytes::Bytes;
use lehr_ir::{DType, Diag, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

/// The code of all complaints about weight files.
pub(super) const CODE: &str = "load.weights";

/// An open file of weights, which remembers what was taken.
pub struct WeightFile {
    path: String,
    content: Content,
    unused: BTreeSet<String>,
}

enum Content {
    /// Elements lie in the mapped file.
    Safetensors {
        file: Bytes,
        entries: BTreeMap<String, Entry>,
    },
    Npz(ZipArchive<Cursor<Bytes>>),
}

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the file.
    start: usize,
    end: usize,
}

/// Beyond the elements, a `.npy` file has a header.
const HEADER_ROOM: u64 = 1 << 20;
/// Names that a complaint lists.
const LISTED: usize = 8;

impl WeightFile {
    /// Opens by the file's name: `.safetensors` or `.npz`.
    pub fn open(path: &Path) -> Result<WeightFile, Diag> {
        let name = path.display().to_string();
        let complain = |why: String| Diag::new(CODE, format!("{name}: {why}"));
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !matches!(kind, "safetensors" | "npz") {
            return Err(complain("weights come from a .safetensors or .npz file".into()));
        }
        let file = map_file(path).map_err(|e| complain(e.to_string()))?;
        let content = if kind == "npz" { npz(file) } else { safetensors(file) }.map_err(complain)?;
        let unused = content.names();
        Ok(WeightFile { path: name, content, unused })
    }

    /// The weight `name` in f32.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Diag> {
        let tensor = match &mut self.content {
            Content::Safetensors { file, entries } => match entries.get(name) {
                Some(entry) => from_safetensors(file, entry, shape).map(Some),
                None => Ok(None),
            },
            Content::Npz(archive) => from_npz(archive, name, shape),
        };
        let tensor = tensor.map_err(|why| Diag::new(CODE, format!("{}: the weight {name}: {why}", self.path)))?;
        let Some(tensor) = tensor else {
            let listed: Vec<String> = self.unused.iter().take(LISTED).cloned().collect();
            let more = if self.unused.len() > LISTED { ", ..." } else { "" };
            let note = format!("not used so far: {}{more}", listed.join(", "));
            return Err(Diag::new(CODE, format!("{}: it holds no weight {name} {shape:?}", self.path)).note(note));
        };
        self.unused.remove(name);
        Ok(tensor)
    }

    /// Names that nothing asked for. PyTorch's counters of batches mean nothing in inference and are not among them.
    pub(super) fn unused(&self) -> Vec<String> {
        self.unused.iter().filter(|n| !n.ends_with(".num_batches_tracked")).cloned().collect()
    }
}

impl Content {
    fn names(&self) -> BTreeSet<String> {
        match self {
            Content::Safetensors { entries, .. } => entries.keys().cloned().collect(),
            Content::Npz(archive) => archive.file_names().map(|n| n.trim_end_matches(".npy").to_string()).collect(),
        }
    }
}

fn safetensors(file: Bytes) -> Result<Content, String> {
    let (length, metadata) = SafeTensors::read_metadata(&file).map_err(|e| format!("not a safetensors file: {e}"))?;
    // Eight bytes hold the header's length, then come the header and the elements.
    let base = length + 8;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        (name, Entry { dtype: info.dtype, shape: info.shape.clone(), start: base + start, end: base + end })
    };
    let entries = metadata.tensors().into_iter().map(entry).collect();
    Ok(Content::Safetensors { file, entries })
}

fn npz(file: Bytes) -> Result<Content, String> {
    let archive = ZipArchive::new(Cursor::new(file)).map_err(|e| format!("not an .npz file: {e}"))?;
    Ok(Content::Npz(archive))
}

fn from_safetensors(file: &Bytes, entry: &Entry, shape: &[usize]) -> Result<Tensor, String> {
    let dtype = match entry.dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(format!("it is of type {other:?}; f64, f32, f16 and bf16 will do")),
    };
    check_shape(&entry.shape, shape)?;
    if entry.start > entry.end || entry.end > file.len() {
        return Err("it lies outside of the file".into());
    }
    to_f32(Tensor::new(dtype, shape.to_vec(), file.slice(entry.start..entry.end))?)
}

fn from_npz(archive: &mut ZipArchive<Cursor<Bytes>>, name: &str, shape: &[usize]) -> Result<Option<Tensor>, String> {
    let member = format!("{name}.npy");
    if archive.index_for_name(&member).is_none() {
        return Ok(None);
    }
    let file = archive.by_name(&member).map_err(|e| e.to_string())?;
    // Decompression stops at what the network can use, in its widest type.
    let widest = shape.iter().fold(8u64, |n, &d| n.saturating_mul(d as u64));
    let mut data = vec![];
    file.take(widest.saturating_add(HEADER_ROOM)).read_to_end(&mut data).map_err(|e| e.to_string())?;
    check_shape(&npy::header(&data)?.shape, shape)?;
    to_f32(npy::parse(data.into())?).map(Some)
}

fn check_shape(given: &[usize], needed: &[usize]) -> Result<(), String> {
    match given == needed {
        true => Ok(()),
        false => Err(format!("its shape is {given:?}, the network needs {needed:?}")),
    }
}

fn to_f32(tensor: Tensor) -> Result<Tensor, String> {
    match tensor.dtype() {
        DType::F32 => Ok(tensor),
        DType::F64 | DType::F16 | DType::BF16 => {
            Ok(Tensor::from_f64(DType::F32, tensor.shape().to_vec(), tensor.to_f64()))
        }
        other => Err(format!("it is of type {other}; f64, f32, f16 and bf16 will do")),
    }
}

impl fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightFile({}, {} unused)", self.path, self.unused.len())
    }
}
