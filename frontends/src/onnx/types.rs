//! Element types by their ONNX numbers.

use super::proto::tensor_proto::DataType;
use lehr_ir::DType;

/// Why a number in a model is no element type.
#[derive(Debug)]
pub struct TypeError {
    /// The code of a [`lehr_ir::Diag`]: whether ONNX has no such type, or lehr does not support it.
    pub code: &'static str,
    pub message: String,
}

impl TypeError {
    pub fn unsupported(message: impl Into<String>) -> TypeError {
        TypeError { code: "import.unsupported-type", message: message.into() }
    }

    pub fn wrong(message: impl Into<String>) -> TypeError {
        TypeError { code: "import.type", message: message.into() }
    }
}

impl From<TypeError> for String {
    fn from(e: TypeError) -> String {
        e.message
    }
}

/// The element type that ONNX numbers `n`. Complex numbers and the 6-bit floats have no counterpart.
pub fn dtype_from_onnx(n: i64) -> Result<DType, TypeError> {
    let known = i32::try_from(n).ok().and_then(|n| DataType::try_from(n).ok());
    Ok(match known {
        Some(DataType::Float) => DType::F32,
        Some(DataType::Uint8) => DType::U8,
        Some(DataType::Int8) => DType::I8,
        Some(DataType::Uint16) => DType::U16,
        Some(DataType::Int16) => DType::I16,
        Some(DataType::Int32) => DType::I32,
        Some(DataType::Int64) => DType::I64,
        Some(DataType::String) => DType::Str,
        Some(DataType::Bool) => DType::Bool,
        Some(DataType::Float16) => DType::F16,
        Some(DataType::Double) => DType::F64,
        Some(DataType::Uint32) => DType::U32,
        Some(DataType::Uint64) => DType::U64,
        Some(DataType::Bfloat16) => DType::BF16,
        Some(DataType::Float8e4m3fn) => DType::F8E4M3FN,
        Some(DataType::Float8e4m3fnuz) => DType::F8E4M3FNUZ,
        Some(DataType::Float8e5m2) => DType::F8E5M2,
        Some(DataType::Float8e5m2fnuz) => DType::F8E5M2FNUZ,
        Some(DataType::Float8e8m0) => DType::F8E8M0,
        Some(DataType::Float4e2m1) => DType::F4E2M1,
        Some(DataType::Int4) => DType::I4,
        Some(DataType::Uint4) => DType::U4,
        Some(DataType::Int2) => DType::I2,
        Some(DataType::Uint2) => DType::U2,
        Some(DataType::Complex64 | DataType::Complex128 | DataType::Float6e2m3 | DataType::Float6e3m2) => {
            return Err(TypeError::unsupported(format!("element type {n} (complex or 6-bit float) is not supported")));
        }
        Some(DataType::Undefined) => return Err(TypeError::wrong("the element type is not given")),
        None => return Err(TypeError::wrong(format!("ONNX has no element type {n}"))),
    })
}

/// As [`dtype_from_onnx`], for types that operators can compute with.
pub fn computable_from_onnx(n: i64) -> Result<DType, TypeError> {
    let dtype = dtype_from_onnx(n)?;
    match dtype.is_computable() {
        true => Ok(dtype),
        false => Err(TypeError::unsupported(format!("element type {dtype} is not supported yet"))),
    }
}

/// The ONNX number of a computable type.
pub fn dtype_to_onnx(dtype: DType) -> Option<i32> {
    let n = match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
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
        | DType::Str => return None,
    };
    Some(n as i32)
}
