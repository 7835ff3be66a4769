//! The file: protobuf fields whose lengths are known ahead, so that weights go from where they are straight to the
//! writer, one at a time.

use super::{OnnxModel, Weight};
use crate::onnx::proto::TensorProto;
use crate::onnx::types::dtype_to_onnx;
use lehr_ir::Diag;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::io::{self, Write};

/// Field numbers in onnx.proto.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;
/// protobuf's own limit for a message.
const MAX_BYTES: u64 = (1 << 31) - 1;

impl OnnxModel {
    /// The file's size.
    pub fn bytes(&self) -> u64 {
        self.model.encoded_len() as u64 + field_len(MODEL_GRAPH, self.graph_len())
    }

    /// Writes the file. No weight is copied that is there already.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.model.encode_to_vec())?;
        start_field(out, MODEL_GRAPH, self.graph_len())?;
        out.write_all(&self.graph.encode_to_vec())?;
        for weight in &self.weights {
            start_field(out, GRAPH_INITIALIZER, weight.len())?;
            out.write_all(&weight.head().encode_to_vec())?;
            start_field(out, TENSOR_RAW_DATA, weight.data_len())?;
            out.write_all(weight.value.tensor().bytes())?;
        }
        Ok(())
    }

    /// The file in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![];
        self.write(&mut bytes).expect("a vector takes everything");
        bytes
    }

    pub(super) fn check_size(&self) -> Result<(), Diag> {
        match self.bytes() {
            0..=MAX_BYTES => Ok(()),
            n => Err(Diag::new(
                "export.size",
                format!("the model would have {n} bytes; an ONNX file has less than 2^31"),
            )),
        }
    }

    fn graph_len(&self) -> u64 {
        let weights: u64 = self.weights.iter().map(|w| field_len(GRAPH_INITIALIZER, w.len())).sum();
        self.graph.encoded_len() as u64 + weights
    }
}

impl Weight {
    /// The tensor without its elements.
    fn head(&self) -> TensorProto {
        let ty = self.value.ty();
        TensorProto {
            name: self.name.clone(),
            dims: ty.shape.iter().map(|d| d.as_const().expect("constants have numbers")).collect(),
            data_type: dtype_to_onnx(ty.dtype).expect("the exporter looked"),
            ..TensorProto::default()
        }
    }

    fn data_len(&self) -> u64 {
        let bytes = self.value.ty().bytes().as_const().and_then(|n| u64::try_from(n).ok());
        bytes.expect("constants have numbers")
    }

    fn len(&self) -> u64 {
        self.head().encoded_len() as u64 + field_len(TENSOR_RAW_DATA, self.data_len())
    }
}

/// Bytes of a length-delimited field.
fn field_len(number: u32, len: u64) -> u64 {
    key_len(number) as u64 + encoded_len_varint(len) as u64 + len
}

fn start_field(out: &mut dyn Write, number: u32, len: u64) -> io::Result<()> {
    let mut head = vec![];
    encode_key(number, WireType::LengthDelimited, &mut head);
    encode_varint(len, &mut head);
    out.write_all(&head)
}
