//! What a file would cost to decode, from one pass over its wire format without building anything. An empty
//! message takes two bytes in the file and hundreds in memory; this bounds the factor before it is paid.

use super::proto::*;
use std::mem::size_of;

/// Memory any file may take, and how much more per byte of the file. Real models need about 10 per byte of what is
/// not weights (those are views of the file).
const BASE: u64 = 256 << 20;
const PER_BYTE: u64 = 64;
/// As in prost, which refuses deeper nesting.
const MAX_DEPTH: u32 = 100;

/// Fails if decoding a ModelProto from `bytes` would take memory out of proportion to the file.
pub fn check_cost(bytes: &[u8]) -> Result<(), String> {
    let limit = BASE + PER_BYTE * bytes.len() as u64;
    let mut left = limit;
    scan(bytes, Message::Model, &mut left, MAX_DEPTH)
}

#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    Shape,
    Sparse,
    Function,
    Pair,
}

/// A length-delimited field, by what decoding it costs.
enum Field {
    Message(Message, usize),
    /// A view of the file, of any length.
    View,
    /// Copied text, or numbers that may grow from a byte to eight.
    Copied,
}

fn field(of: Message, number: u64) -> Field {
    use Message::*;
    let (message, size) = match (of, number) {
        (Model, 7) => (Graph, size_of::<GraphProto>()),
        (Model, 25) => (Function, size_of::<FunctionProto>()),
        (Model, 8 | 14) => (Pair, size_of::<StringStringEntryProto>()),
        (Graph, 1) | (Function, 7) => (Node, size_of::<NodeProto>()),
        (Graph, 5) => (Tensor, size_of::<TensorProto>()),
        (Graph, 11..=13) => (ValueInfo, size_of::<ValueInfoProto>()),
        (Graph, 15) => (Sparse, size_of::<SparseTensorProto>()),
        (Node, 5) | (Function, 11) => (Attribute, size_of::<AttributeProto>()),
        (Function, 9) => (Pair, size_of::<OperatorSetIdProto>()),
        (Attribute, 5 | 10) => (Tensor, size_of::<TensorProto>()),
        (Attribute, 6 | 11) => (Graph, size_of::<GraphProto>()),
        (Attribute, 14 | 15) => (Type, size_of::<TypeProto>()),
        (Attribute, 22 | 23) => (Sparse, size_of::<SparseTensorProto>()),
        (Attribute, 4 | 9) | (Tensor, 6 | 9) => return Field::View,
        (Tensor, 13) => (Pair, size_of::<StringStringEntryProto>()),
        (Sparse, 1 | 2) => (Tensor, size_of::<TensorProto>()),
        (ValueInfo, 2) => (Type, size_of::<TypeProto>()),
        // Every variant of a type nests another type, or holds a shape; both are the same to this count.
        (Type, 1 | 4 | 5 | 8 | 9) => (Type, size_of::<TypeProto>()),
        (Type, 2) => (Shape, size_of::<TensorShapeProto>()),
        (Shape, 1) => (Pair, size_of::<tensor_shape_proto::Dimension>()),
        _ => return Field::Copied,
    };
    Field::Message(message, size)
}

fn scan(mut bytes: &[u8], of: Message, left: &mut u64, depth: u32) -> Result<(), String> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let fixed = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX),
            // Groups (3 and 4) are obsolete and unknown to ONNX.
            wire => return Err(format!("not an ONNX model: wire type {wire}")),
        };
        let body = bytes.get(..fixed).ok_or("the file is truncated")?;
        bytes = &bytes[fixed..];
        let cost = match (key & 7, field(of, key >> 3)) {
            (2, Field::Message(message, size)) => {
                if depth == 0 {
                    return Err("messages are nested too deeply".into());
                }
                scan(body, message, left, depth - 1)?;
                // Growing vectors hold up to twice what they need.
                2 * size as u64
            }
            (2, Field::View) => 64,
            (2, Field::Copied) => 64 + 8 * body.len() as u64,
            (_, _) => 16,
        };
        *left = left.checked_sub(cost).ok_or("the file decodes into far more memory than its size justifies")?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for (i, &b) in bytes.iter().enumerate().take(10) {
        value |= ((b & 0x7f) as u64) << (7 * i).min(63);
        if b < 0x80 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err("the file is truncated, or is not an ONNX model".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_amplification() {
        // 8 MiB of empty attributes in one node of one graph: 2 GB decoded.
        let wrap = |field: u8, body: Vec<u8>| {
            let mut out = vec![field << 3 | 2];
            prost::encoding::encode_varint(body.len() as u64, &mut out);
            out.extend(body);
            out
        };
        let attributes = [5 << 3 | 2, 0].repeat(4 << 20);
        let model = wrap(7, wrap(1, attributes));
        assert!(check_cost(&model).unwrap_err().contains("memory"));
        assert!(check_cost(&model[..100]).is_err());
    }
}
