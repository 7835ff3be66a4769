//! ONNX tensor files (`input_0.pb`, `output_0.pb`): one serialised TensorProto.

use crate::mapped::map_file;
use crate::onnx::proto::TensorProto;
use crate::onnx::{tensor_from_proto, tensor_to_proto};
use bytes::Bytes;
use lehr_ir::Tensor;
use prost::Message;
use std::path::Path;

/// Reads a tensor and the name it carries (often empty).
pub fn read(path: &Path) -> Result<(String, Tensor), String> {
    let bytes = map_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
    decode(bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// Reads a tensor from memory.
pub fn decode(bytes: Bytes) -> Result<(String, Tensor), String> {
    let proto = TensorProto::decode(bytes).map_err(|e| format!("not an ONNX tensor: {e}"))?;
    let tensor = tensor_from_proto(&proto)?;
    Ok((proto.name, tensor))
}

/// The file's contents for a tensor.
pub fn encode(name: &str, tensor: &Tensor) -> Vec<u8> {
    tensor_to_proto(name, tensor).encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lehr_ir::DType;

    #[test]
    fn round_trips_every_computable_type() {
        for &dtype in DType::ALL.iter().filter(|d| d.is_computable()) {
            let tensor = Tensor::from_i128(dtype, vec![2, 3], [0, 1, 1, 0, 1, 0]);
            assert_eq!(decode(encode("x", &tensor).into()), Ok(("x".to_string(), tensor)));
        }
    }

    #[test]
    fn typed_lists_read_like_raw_data() {
        let bits = half::f16::from_f32(1.5).to_bits() as i32;
        let t = TensorProto { dims: vec![2], data_type: 10, int32_data: vec![bits, 0], ..TensorProto::default() };
        assert_eq!(tensor_from_proto(&t).unwrap().to_f64(), [1.5, 0.0]);
        let t = TensorProto { dims: vec![2], data_type: 3, int32_data: vec![-1, 7], ..TensorProto::default() };
        assert_eq!(tensor_from_proto(&t).unwrap().to_i64(), [-1, 7]);
    }

    #[test]
    fn counts_must_agree() {
        for dims in [vec![3], vec![-1], vec![1 << 40, 1 << 40], vec![]] {
            let t = TensorProto { dims, data_type: 1, float_data: vec![1.0, 2.0], ..TensorProto::default() };
            assert!(tensor_from_proto(&t).is_err());
        }
        assert!(decode(Bytes::from_static(b"\xff\xff")).is_err());
    }
}
