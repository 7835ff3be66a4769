//! Concrete tensors: dense, row-major, little-endian bytes, shared without copying. They hold constants and
//! what the evaluator computes.

use crate::dtype::{DType, Kind};
use crate::types::TensorType;
use bytes::Bytes;
use std::sync::Arc;

/// A dense value, row-major and little-endian. Cloning shares the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Dense elements of a computable type, row-major, little-endian; any alignment.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Tensor, String> {
        if !dtype.is_computable() {
            return Err(format!("tensors of {dtype} hold no data yet"));
        }
        let expected = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
        match expected {
            Some(n) if n == data.len() => Ok(Tensor { dtype, shape, data }),
            Some(n) => Err(format!("{dtype}{shape:?} takes {n} bytes, {} are given", data.len())),
            None => Err(format!("{dtype}{shape:?} is too large")),
        }
    }

    /// Rounds each number to `dtype` (floats to nearest even; integers wrap; booleans are `!= 0`).
    ///
    /// # Panics
    /// If the number of elements does not fit the shape: that is a bug of the caller's.
    pub fn from_f64(dtype: DType, shape: Vec<usize>, values: impl IntoIterator<Item = f64>) -> Tensor {
        let mut data = Vec::new();
        for v in values {
            push_f64(dtype, v, &mut data);
        }
        Tensor::new(dtype, shape, data.into()).expect("as many values as the shape has")
    }

    /// Integers wrap to `dtype`; floats are rounded.
    ///
    /// # Panics
    /// If the number of elements does not fit the shape: that is a bug of the caller's.
    pub fn from_i128(dtype: DType, shape: Vec<usize>, values: impl IntoIterator<Item = i128>) -> Tensor {
        let mut data = Vec::new();
        for v in values {
            push_i128(dtype, v, &mut data);
        }
        Tensor::new(dtype, shape, data.into()).expect("as many values as the shape has")
    }

    /// A tensor of rank 0; the value is rounded to the type.
    pub fn scalar_f64(dtype: DType, value: f64) -> Tensor {
        Tensor::from_f64(dtype, vec![], [value])
    }

    /// A vector of i64.
    pub fn i64s(values: &[i64]) -> Tensor {
        Tensor::from_i128(DType::I64, vec![values.len()], values.iter().map(|&v| v as i128))
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as they lie, `len * dtype.size()` bytes; not necessarily aligned.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().map(|&d| d as i64))
    }

    /// The same elements under another shape of as many elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Tensor, String> {
        Tensor::new(self.dtype, shape, self.data.clone())
    }

    /// Every element as f64 (64-bit integers lose low bits).
    pub fn to_f64(&self) -> Vec<f64> {
        let d = &self.data[..];
        match self.dtype {
            DType::F64 => each(d, f64::from_le_bytes),
            DType::F32 => each(d, |b| f32::from_le_bytes(b) as f64),
            DType::F16 => each(d, |b| half::f16::from_le_bytes(b).to_f64()),
            DType::BF16 => each(d, |b| half::bf16::from_le_bytes(b).to_f64()),
            _ => self.to_i128().into_iter().map(|v| v as f64).collect(),
        }
    }

    /// Every element as an integer (floats are truncated towards zero).
    pub fn to_i128(&self) -> Vec<i128> {
        let d = &self.data[..];
        match self.dtype {
            DType::I8 => each(d, |b| i8::from_le_bytes(b) as i128),
            DType::I16 => each(d, |b| i16::from_le_bytes(b) as i128),
            DType::I32 => each(d, |b| i32::from_le_bytes(b) as i128),
            DType::I64 => each(d, |b| i64::from_le_bytes(b) as i128),
            DType::U8 => each(d, |b| u8::from_le_bytes(b) as i128),
            DType::U16 => each(d, |b| u16::from_le_bytes(b) as i128),
            DType::U32 => each(d, |b| u32::from_le_bytes(b) as i128),
            DType::U64 => each(d, |b| u64::from_le_bytes(b) as i128),
            DType::Bool => each(d, |b: [u8; 1]| (b[0] != 0) as i128),
            _ => self.to_f64().into_iter().map(|v| v as i128).collect(),
        }
    }

    /// Every element as i64; u64 values above `i64::MAX` saturate.
    pub fn to_i64(&self) -> Vec<i64> {
        self.to_i128().into_iter().map(|v| i64::try_from(v).unwrap_or(i64::MAX)).collect()
    }

    /// Every element as f32, exact for the types that fit.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => each(&self.data, f32::from_le_bytes),
            _ => self.to_f64().into_iter().map(|v| v as f32).collect(),
        }
    }
}

fn each<const N: usize, T>(data: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|c| f(c.try_into().expect("chunks of N bytes"))).collect()
}

/// Appends `v` rounded to `dtype`. Integers wrap modulo their width after truncation towards zero.
fn push_f64(dtype: DType, v: f64, out: &mut Vec<u8>) {
    match dtype {
        DType::F64 => out.extend(v.to_le_bytes()),
        DType::F32 => out.extend((v as f32).to_le_bytes()),
        DType::F16 => out.extend(half::f16::from_f64(v).to_le_bytes()),
        DType::BF16 => out.extend(half::bf16::from_f64(v).to_le_bytes()),
        DType::Bool => out.push((v != 0.0) as u8),
        _ => push_i128(dtype, v as i128, out),
    }
}

fn push_i128(dtype: DType, v: i128, out: &mut Vec<u8>) {
    match dtype.kind() {
        Kind::Float => push_f64(dtype, v as f64, out),
        Kind::Bool => out.push((v != 0) as u8),
        Kind::Signed | Kind::Unsigned => out.extend(&v.to_le_bytes()[..dtype.size()]),
        Kind::String => unreachable!("strings are not computable"),
    }
}

/// The value of a constant node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConstValue {
    /// Elements in memory (or in a mapped file), with the name of the weight they are.
    Dense { tensor: Tensor, name: Option<Arc<str>> },
    /// One element everywhere; holds a rank-0 tensor.
    Splat { element: Tensor, shape: Vec<usize> },
    /// Reproducible noise for tests and examples: floats uniform in [-1, 1), integers in [-8, 8) (or [0, 16)), booleans.
    Seeded { dtype: DType, shape: Vec<usize>, seed: u64 },
}

impl ConstValue {
    pub fn ty(&self) -> TensorType {
        let (dtype, shape) = match self {
            ConstValue::Dense { tensor, .. } => (tensor.dtype(), tensor.shape()),
            ConstValue::Splat { element, shape } => (element.dtype(), &shape[..]),
            ConstValue::Seeded { dtype, shape, .. } => (*dtype, &shape[..]),
        };
        TensorType::new(dtype, shape.iter().map(|&d| d as i64))
    }

    /// Bytes of memory that [`ConstValue::tensor`] takes anew: none for elements that are there already. A model of a
    /// hundred bytes can ask for a terabyte of zeros.
    pub fn expansion(&self) -> u64 {
        match self {
            ConstValue::Dense { .. } => 0,
            ConstValue::Splat { .. } | ConstValue::Seeded { .. } => {
                self.ty().bytes().as_const().and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX)
            }
        }
    }

    /// The elements, made dense. Whoever calls this for a constant of unknown origin looks at [`ConstValue::expansion`] first.
    pub fn tensor(&self) -> Tensor {
        match self {
            ConstValue::Dense { tensor, .. } => tensor.clone(),
            ConstValue::Splat { element, shape } => {
                let n: usize = shape.iter().product();
                let data = element.bytes().repeat(n);
                Tensor::new(element.dtype(), shape.clone(), data.into()).expect("n copies of one element")
            }
            ConstValue::Seeded { dtype, shape, seed } => seeded(*dtype, shape.clone(), *seed),
        }
    }
}

/// Noise from SplitMix64, so that every platform and version makes the same weights.
pub fn seeded(dtype: DType, shape: Vec<usize>, seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    match dtype.kind() {
        Kind::Float => {
            Tensor::from_f64(dtype, shape, (0..n).map(|_| (next() >> 40) as f64 / (1u64 << 23) as f64 - 1.0))
        }
        Kind::Signed => Tensor::from_i128(dtype, shape, (0..n).map(|_| (next() >> 60) as i128 - 8)),
        Kind::Unsigned => Tensor::from_i128(dtype, shape, (0..n).map(|_| (next() >> 60) as i128)),
        Kind::Bool => Tensor::from_i128(dtype, shape, (0..n).map(|_| (next() >> 63) as i128)),
        Kind::String => unreachable!("strings are not computable"),
    }
}
