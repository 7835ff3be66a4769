//! TensorProto to and from [`Tensor`]: raw bytes, typed lists, and other files.

use super::external::External;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataLocation;
use super::types::{computable_from_onnx, dtype_to_onnx};
use bytes::Bytes;
use lehr_ir::types::MAX_RANK;
use lehr_ir::{DType, Tensor};

/// Reads a tensor whose data is inside the message.
pub fn tensor_from_proto(t: &TensorProto) -> Result<Tensor, String> {
    read(t, &External::default())
}

/// Writes a tensor as raw data.
pub fn tensor_to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_string(),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: dtype_to_onnx(tensor.dtype()).expect("a tensor's type is computable"),
        raw_data: Some(tensor.bytes().clone()),
        ..TensorProto::default()
    }
}

/// Reads a tensor wherever its data is. Nothing is copied unless the data is a typed list, or booleans are
/// stored as something other than 0 and 1.
pub(super) fn read(t: &TensorProto, external: &External) -> Result<Tensor, String> {
    let dtype = computable_from_onnx(t.data_type.into())?;
    if t.segment.is_some() {
        return Err("tensors in segments are not supported".into());
    }
    if t.dims.len() > MAX_RANK {
        return Err(format!("rank {} is more than {MAX_RANK}", t.dims.len()));
    }
    let shape: Vec<usize> = t
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("the dimension {d} is negative")))
        .collect::<Result<_, _>>()?;
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let size = elements.and_then(|n| n.checked_mul(dtype.size()));
    let (Some(elements), Some(size)) = (elements, size) else {
        return Err(format!("the shape {shape:?} is too large"));
    };
    let data = if t.data_location == DataLocation::External as i32 {
        external.bytes(t, size)?
    } else if let Some(raw) = &t.raw_data {
        raw.clone()
    } else {
        typed(t, dtype, elements)?
    };
    Tensor::new(dtype, shape, normal_bools(dtype, data))
}

/// Booleans are 0 or 1 in our tensors; in a file any other byte means true as well.
fn normal_bools(dtype: DType, data: Bytes) -> Bytes {
    if dtype != DType::Bool || data.iter().all(|&b| b <= 1) {
        return data;
    }
    data.iter().map(|&b| (b != 0) as u8).collect()
}

fn typed(t: &TensorProto, dtype: DType, elements: usize) -> Result<Bytes, String> {
    let counted = |n: usize| match n == elements {
        true => Ok(()),
        false => Err(format!("the shape has {elements} elements, the data {n}")),
    };
    // Stored as i32: everything narrower, and the 16-bit floats by their bits.
    let narrow = |bytes: usize| -> Result<Bytes, String> {
        counted(t.int32_data.len())?;
        Ok(t.int32_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(bytes)).collect())
    };
    match dtype {
        DType::F32 => {
            counted(t.float_data.len())?;
            Ok(t.float_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::F64 => {
            counted(t.double_data.len())?;
            Ok(t.double_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::I64 => {
            counted(t.int64_data.len())?;
            Ok(t.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::U64 => {
            counted(t.uint64_data.len())?;
            Ok(t.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::U32 => {
            counted(t.uint64_data.len())?;
            Ok(t.uint64_data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect())
        }
        DType::I32 => narrow(4),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => narrow(2),
        DType::I8 | DType::U8 => narrow(1),
        DType::Bool => {
            counted(t.int32_data.len())?;
            Ok(t.int32_data.iter().map(|&v| (v != 0) as u8).collect())
        }
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2
        | DType::Str => Err(format!("element type {dtype} is not supported yet")),
    }
}
