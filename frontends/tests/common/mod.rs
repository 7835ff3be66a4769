//! Small models built in code, and the import of them.
#![allow(dead_code)] // each test file uses some of it

use lehr_frontends::onnx::proto::*;
use lehr_frontends::onnx::{ImportError, ImportOptions, Imported, Model, import, tensor_to_proto};
use lehr_ir::{DType, Tensor};

/// The latest opset, unless a test is about another one.
pub const OPSET: i64 = 22;

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto { op_type: op.into(), input: list(inputs), output: list(outputs), attribute, ..Default::default() }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 2, i, ..Default::default() }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 1, f, ..Default::default() }
}

pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 7, ints: ints.to_vec(), ..Default::default() }
}

pub fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 3, s: s.to_string().into(), ..Default::default() }
}

pub fn tensor(name: &str, t: &Tensor) -> AttributeProto {
    let t = Some(Box::new(tensor_to_proto("", t)));
    AttributeProto { name: name.into(), r#type: 4, t, ..Default::default() }
}

/// A dimension: a number, a symbol, or `?` for neither.
pub fn dim(d: &str) -> tensor_shape_proto::Dimension {
    use tensor_shape_proto::dimension::Value;
    let value = match d.parse() {
        Ok(n) => Some(Value::DimValue(n)),
        Err(_) if d == "?" => None,
        Err(_) => Some(Value::DimParam(d.into())),
    };
    tensor_shape_proto::Dimension { value }
}

/// `x:f32[n,3]`
pub fn value(spec: &str) -> ValueInfoProto {
    let (name, ty) = spec.split_once(':').unwrap_or((spec, ""));
    if ty.is_empty() {
        return ValueInfoProto { name: name.into(), r#type: None };
    }
    let (dtype, dims) = ty.trim_end_matches(']').split_once('[').unwrap();
    let elem_type = match dtype {
        "f32" => 1,
        "i32" => 6,
        "i64" => 7,
        "bool" => 9,
        "f16" => 10,
        "str" => 8,
        other => panic!("{other}"),
    };
    let dim = dims.split(',').filter(|d| !d.is_empty()).map(dim).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor = type_proto::Tensor { elem_type, shape };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.into(), r#type: Some(ty) }
}

pub fn model(
    opset: i64,
    inputs: &[&str],
    weights: &[(&str, Tensor)],
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> ModelProto {
    let graph = GraphProto {
        name: "g".into(),
        node: nodes,
        initializer: weights.iter().map(|(n, t)| tensor_to_proto(n, t)).collect(),
        input: inputs.iter().map(|s| value(s)).collect(),
        output: outputs.iter().map(|s| value(s)).collect(),
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: "".into(), version: opset }],
        ..Default::default()
    }
}

pub fn load(proto: ModelProto) -> Model {
    Model::from_proto(proto, None).unwrap()
}

pub fn try_import(proto: ModelProto) -> Result<Imported, ImportError> {
    import(&load(proto), &ImportOptions::default())
}

/// A graph of one node; the type of its first output, and the operators that were made.
pub fn one(
    opset: i64,
    inputs: &[&str],
    weights: &[(&str, Tensor)],
    node: NodeProto,
) -> Result<(String, Vec<String>), String> {
    let outputs: Vec<String> = node.output.clone();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let imported = try_import(model(opset, inputs, weights, vec![node], &outputs)).map_err(|e| e.to_string())?;
    let g = imported.graph;
    let ops =
        g.order().into_iter().map(|id| &g.node(id).op).filter(|op| !op.is_source()).map(|op| op.name().to_string());
    Ok((g.ty(g.outputs[0].value).to_string(), ops.collect()))
}

pub fn i64s(v: &[i64]) -> Tensor {
    Tensor::i64s(v)
}

pub fn f32s(shape: &[usize], v: f64) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_f64(DType::F32, shape.to_vec(), std::iter::repeat_n(v, n))
}
