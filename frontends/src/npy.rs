//! Tensors in numpy's files: `.npy` (format versions 1 to 3, C and Fortran order, little-endian) and members of an `.npz`.
//! Source: numpy's `lib/format.py` documentation.

use bytes::Bytes;
use lehr_ir::{DType, Tensor};
use std::io::{Cursor, Read};
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Largest header that numpy itself writes without complaint.
const MAX_HEADER: usize = 1 << 20;

/// What a `.npy` file says of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub dtype: DType,
    pub shape: Vec<usize>,
    fortran: bool,
    /// Where the elements start.
    start: usize,
}

impl Header {
    /// Bytes that the elements take.
    fn bytes(&self) -> Result<usize, String> {
        let size = self.shape.iter().try_fold(self.dtype.size(), |n, &d| n.checked_mul(d));
        size.ok_or_else(|| "the array is too large".into())
    }
}

/// Parses the beginning of a `.npy` file.
pub fn header(data: &[u8]) -> Result<Header, String> {
    if !data.starts_with(MAGIC) || data.len() < 10 {
        return Err("this is not a .npy file".into());
    }
    let (length, start) = match data[6] {
        1 => (u16::from_le_bytes([data[8], data[9]]) as usize, 10),
        2 | 3 if data.len() >= 12 => (u32::from_le_bytes([data[8], data[9], data[10], data[11]]) as usize, 12),
        v => return Err(format!("version {v} of the .npy format is not known")),
    };
    if length > MAX_HEADER {
        return Err(format!("a .npy header of {length} bytes is beyond {MAX_HEADER}"));
    }
    let end = start + length;
    let header = data.get(start..end).ok_or("the .npy header is truncated")?;
    let header = std::str::from_utf8(header).map_err(|_| "the .npy header is not text")?;
    let descr = field(header, "descr").ok_or("the .npy header lacks 'descr'")?;
    let descr = descr.trim_matches(['\'', '"']);
    let dtype = dtype_of(descr).ok_or_else(|| format!("the numpy dtype {descr} is not supported"))?;
    let shape = shape_of(field(header, "shape").ok_or("the .npy header lacks 'shape'")?)?;
    let fortran = field(header, "fortran_order").is_some_and(|v| v.starts_with("True"));
    Ok(Header { dtype, shape, fortran, start: end })
}

/// Parses the contents of a `.npy` file.
pub fn parse(data: Bytes) -> Result<Tensor, String> {
    let header = header(&data)?;
    let wanted = header.bytes()?;
    let Header { dtype, shape, fortran, start } = header;
    if data.len() - start < wanted {
        return Err(format!("the file holds {} bytes of elements, its header says {wanted}", data.len() - start));
    }
    let elements = data.slice(start..start + wanted);
    let elements = if fortran { to_row_major(&elements, &shape, dtype.size()).into() } else { elements };
    Tensor::new(dtype, shape, elements)
}

/// The text of one value in the header's dictionary, up to the comma that ends it.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{name}'"))?;
    let rest = header[at + name.len() + 2..].trim_start().strip_prefix(':')?.trim_start();
    let end = match rest.starts_with('(') {
        true => rest.find(')')? + 1,
        false => rest.find([',', '}'])?,
    };
    Some(rest[..end].trim())
}

fn shape_of(text: &str) -> Result<Vec<usize>, String> {
    let inner = text.trim_start_matches('(').trim_end_matches(')');
    let dims = inner.split(',').map(str::trim).filter(|d| !d.is_empty());
    dims.map(|d| d.parse().map_err(|_| format!("'{d}' is no dimension"))).collect()
}

/// numpy's name of a dtype. bf16 has none: ml_dtypes writes it as the void type `V2`.
fn dtype_of(descr: &str) -> Option<DType> {
    Some(match descr {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "|V2" | "<V2" => DType::BF16,
        "|i1" => DType::I8,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "|u1" => DType::U8,
        "<u2" => DType::U16,
        "<u4" => DType::U32,
        "<u8" => DType::U64,
        "|b1" => DType::Bool,
        _ => return None,
    })
}

fn descr_of(dtype: DType) -> Option<&'static str> {
    ["<f8", "<f4", "<f2", "|V2", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"]
        .into_iter()
        .find(|d| dtype_of(d) == Some(dtype))
}

fn to_row_major(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut at = vec![0usize; shape.len()];
    for _ in 0..data.len() / size {
        let position = at.iter().zip(shape).rev().fold(0, |p, (&i, &n)| p * n + i);
        out.extend_from_slice(&data[position * size..][..size]);
        for d in (0..shape.len()).rev() {
            at[d] += 1;
            if at[d] < shape[d] {
                break;
            }
            at[d] = 0;
        }
    }
    out
}

/// The bytes of a `.npy` file, format version 1.
pub fn encode(tensor: &Tensor) -> Vec<u8> {
    let descr = descr_of(tensor.dtype()).expect("every computable dtype has a numpy name");
    let dims: Vec<String> = tensor.shape().iter().map(|d| format!("{d},")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    // The data start at a multiple of 64; the header ends in a newline.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut out = Vec::with_capacity(10 + padded + tensor.bytes().len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&(padded as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.resize(10 + padded - 1, b' ');
    out.push(b'\n');
    out.extend_from_slice(tensor.bytes());
    out
}

/// `2 arrays: a, b`, as numpy names them.
fn arrays(names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(|n| n.trim_end_matches(".npy")).collect();
    format!("{} arrays: {}", names.len(), names.join(", "))
}

/// One array of an `.npz` archive: `member`, or the only one. Decompression stops behind the elements that its header announces.
pub fn from_npz(path: &Path, member: Option<&str>) -> Result<Tensor, String> {
    let data = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(Cursor::new(data)).map_err(|e| e.to_string())?;
    let names: Vec<String> = archive.file_names().map(str::to_string).collect();
    let name = match (member, &names[..]) {
        (Some(m), _) => format!("{m}.npy"),
        (None, [only]) => only.clone(),
        (None, _) => return Err(format!("it holds {}; say which: FILE.npz:NAME", arrays(&names))),
    };
    let mut file = archive
        .by_name(&name)
        .map_err(|_| format!("it has no array {}; it holds {}", name.trim_end_matches(".npy"), arrays(&names)))?;
    let mut bytes = vec![];
    let mut upto = |n: usize, bytes: &mut Vec<u8>| {
        file.by_ref().take(n as u64).read_to_end(bytes).map(drop).map_err(|e| e.to_string())
    };
    upto(MAX_HEADER + 12, &mut bytes)?;
    let head = header(&bytes)?;
    // A byte more: where there is none, the archive's checksum is looked at.
    let end = head.bytes()?.saturating_add(head.start + 1);
    upto(end.saturating_sub(bytes.len()), &mut bytes)?;
    parse(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_every_dtype() {
        for &dtype in DType::ALL.iter().filter(|d| d.is_computable()) {
            for shape in [vec![], vec![0, 3], vec![2, 3], vec![7]] {
                let t = lehr_ir::tensor::seeded(dtype, shape, 3);
                assert_eq!(parse(encode(&t).into()).unwrap(), t);
            }
        }
    }

    #[test]
    fn reads_fortran_order() {
        let mut file = b"\x93NUMPY\x01\x00\x40\x00".to_vec();
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
        file.extend(format!("{header:<63}\n").bytes());
        file.extend([1, 4, 2, 5, 3, 6]);
        let t = parse(file.into()).unwrap();
        assert_eq!(t.to_i64(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn arrays_of_archives_are_read_to_their_end_and_no_further() {
        use std::io::Write;
        let t = lehr_ir::tensor::seeded(DType::F32, vec![400_000], 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        // What is stored as it is can be changed under its checksum, which shows whether all of it was read.
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let save = |behind: usize, changed: usize| {
            let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
            zip.start_file("x.npy", options).unwrap();
            zip.write_all(&encode(&t)).unwrap();
            zip.write_all(&vec![0x77; behind]).unwrap();
            let mut bytes = zip.finish().unwrap().into_inner();
            bytes[changed] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            from_npz(&path, None)
        };
        assert_eq!(save(4 << 20, 4 << 20).unwrap(), t);
        assert!(save(0, 1 << 20).unwrap_err().contains("checksum"));
    }

    #[test]
    fn absurd_headers_are_refused() {
        let file = |length: u32, header: &str| {
            let mut file = b"\x93NUMPY\x02\x00".to_vec();
            file.extend(length.to_le_bytes());
            file.extend(header.bytes());
            file.resize(file.len() + (2 << 20), b' ');
            parse(file.into()).unwrap_err()
        };
        assert!(file(u32::MAX, "{'descr': '|u1', 'shape': (4,)}").contains("beyond"));
        let shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}";
        assert!(file(128, shape).contains("too large"));
        assert!(file(128, "{'descr': '<f8', 'shape': (1099511627776,)}").contains("holds"));
    }

    #[test]
    fn refuses_what_is_cut_short() {
        let whole = encode(&lehr_ir::tensor::seeded(DType::F32, vec![4], 1));
        for n in 0..whole.len() {
            assert!(parse(whole[..n].to_vec().into()).is_err(), "{n} bytes");
        }
    }
}
