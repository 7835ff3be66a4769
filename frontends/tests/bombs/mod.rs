//! Models made to grow without bound.

use super::common::*;
use lehr_frontends::onnx::proto::{FunctionProto, ModelProto, NodeProto};

/// Functions of which each calls the next twice, `depth` deep; with depth 0, one that calls itself.
pub fn doubling_functions(depth: usize) -> ModelProto {
    let own = |mut node: NodeProto| {
        node.domain = "own".into();
        node
    };
    let name = |i: usize| format!("F{i}");
    let function = |i: usize| FunctionProto {
        name: name(i),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["c".into()],
        node: vec![
            own(node(&name((i + 1) % (depth + 1)), &["a"], &["b"], vec![])),
            own(node(&name((i + 1) % (depth + 1)), &["b"], &["c"], vec![])),
        ],
        ..Default::default()
    };
    let mut proto = model(OPSET, &["x:f32[2]"], &[], vec![own(node("F0", &["x"], &["y"], vec![]))], &["y"]);
    proto.functions = (0..=depth).map(function).collect();
    proto
}

/// Every MatMul and Flatten squares the number of elements.
pub fn squared_dims(steps: usize) -> ModelProto {
    let mut nodes = vec![node("Flatten", &["x"], &["f0"], vec![int("axis", 0)])];
    for i in 0..steps {
        let name = |c: &str| format!("{c}{i}");
        nodes.push(node("Transpose", &[&name("f")], &[&name("t")], vec![]));
        nodes.push(node("MatMul", &[&name("t"), &name("f")], &[&name("m")], vec![]));
        nodes.push(node("Flatten", &[&name("m")], &[&format!("f{}", i + 1)], vec![int("axis", 0)]));
    }
    model(OPSET, &["x:f32[n,m]"], &[], nodes, &[&format!("f{steps}")])
}

/// A shape multiplied by itself, and then made a tensor of that shape.
pub fn squared_shapes(steps: usize) -> ModelProto {
    let mut nodes = vec![node("Shape", &["x"], &["s0"], vec![])];
    for i in 0..steps {
        let (from, to) = (format!("s{i}"), format!("s{}", i + 1));
        nodes.push(node("Mul", &[&from, &from], &[&to], vec![]));
    }
    nodes.push(node("Expand", &["x", &format!("s{steps}")], &["y"], vec![]));
    model(OPSET, &["x:f32[n,m]"], &[], nodes, &["y"])
}

pub fn needy_nodes(count: usize) -> ModelProto {
    let mut nodes = vec![node("Identity", &["s"], &["s0"], vec![])];
    for i in 0..count {
        let next = format!("s{}", i + 1);
        nodes.push(node("Identity", &[&format!("s{i}")], &[&next], vec![]));
        nodes.push(node("Reshape", &["x", &next], &[&format!("y{i}")], vec![]));
    }
    model(OPSET, &["x:f32[2]", "s:i64[1]"], &[], nodes, &["y0"])
}

pub fn many_attributes(count: usize) -> ModelProto {
    let attributes = (0..count).map(|i| int(&format!("a{i}"), 0)).collect();
    model(OPSET, &["x:f32[2]"], &[], vec![node("Relu", &["x"], &["y"], attributes)], &["y"])
}

pub fn chain(length: usize) -> ModelProto {
    let nodes = (0..length).map(|i| node("Relu", &[&format!("v{i}")], &[&format!("v{}", i + 1)], vec![])).collect();
    model(OPSET, &["v0:f32[n,2]"], &[], nodes, &[&format!("v{length}")])
}
