//! Small models in which every family of operators comes up: what the mutation test starts from.

use super::common::*;
use lehr_frontends::onnx::proto::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto};
use lehr_ir::{DType, Tensor};

pub fn models() -> Vec<(&'static str, ModelProto)> {
    vec![
        ("cnn", cnn()),
        ("old", old()),
        ("shapes", shapes()),
        ("slices", slices()),
        ("reductions", reductions()),
        ("windows", windows()),
        ("gathers", gathers()),
        ("norms", norms()),
        ("elementwise", elementwise()),
        ("creation", creation()),
        ("function", function()),
        ("data", data()),
    ]
}

fn cnn() -> ModelProto {
    let nodes = vec![
        node(
            "Conv",
            &["x", "w", "b"],
            &["c"],
            vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), int("group", 1)],
        ),
        node("BatchNormalization", &["c", "s", "s", "s", "s"], &["n"], vec![float("epsilon", 1e-3)]),
        node("Relu", &["n"], &["r"], vec![]),
        node(
            "MaxPool",
            &["r"],
            &["p"],
            vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", 1)],
        ),
        node("GlobalAveragePool", &["p"], &["g"], vec![]),
        node("Flatten", &["g"], &["f"], vec![int("axis", 1)]),
        node("Gemm", &["f", "fw", "fb"], &["y"], vec![int("transB", 1), float("alpha", 0.5)]),
        node("Softmax", &["y"], &["z"], vec![int("axis", -1)]),
        node("TopK", &["z", "k"], &["v", "i"], vec![]),
    ];
    let weights = [
        ("w", f32s(&[4, 3, 3, 3], 0.1)),
        ("b", f32s(&[4], 0.1)),
        ("s", f32s(&[4], 1.0)),
        ("fw", f32s(&[5, 4], 0.2)),
        ("fb", f32s(&[5], 0.3)),
        ("k", i64s(&[2])),
    ];
    model(OPSET, &["x:f32[n,3,9,9]"], &weights, nodes, &["z:f32[n,5]", "v", "i"])
}

fn old() -> ModelProto {
    let nodes = vec![
        node("Pad", &["x"], &["a"], vec![ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]), string("mode", "edge")]),
        node("Conv", &["a", "w"], &["c"], vec![string("auto_pad", "SAME_LOWER"), ints("strides", &[2, 2])]),
        node("Upsample", &["c"], &["u"], vec![tensor_floats("scales", &[1.0, 1.0, 2.0, 2.0])]),
        node("Dropout", &["u"], &["d", "mask"], vec![float("ratio", 0.3)]),
        node(
            "Slice",
            &["d"],
            &["l"],
            vec![ints("starts", &[0, -2]), ints("ends", &[9223372036854775807, -1]), ints("axes", &[2, 3])],
        ),
        node("Softmax", &["l"], &["s"], vec![int("axis", 1)]),
        node("Squeeze", &["s"], &["q"], vec![ints("axes", &[3])]),
        node("ReduceSum", &["q"], &["y"], vec![ints("axes", &[1]), int("keepdims", 0)]),
    ];
    model(7, &["x:f32[1,2,6,6]"], &[("w", f32s(&[2, 2, 3, 3], 0.1))], nodes, &["y"])
}

fn tensor_floats(name: &str, v: &[f32]) -> lehr_frontends::onnx::proto::AttributeProto {
    let mut a = ints(name, &[]);
    (a.r#type, a.floats) = (6, v.to_vec());
    a
}

fn shapes() -> ModelProto {
    let nodes = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![]),
        node("Unsqueeze", &["n", "axis"], &["n1"], vec![]),
        node("Concat", &["n1", "rest"], &["t"], vec![int("axis", 0)]),
        node("Reshape", &["x", "t"], &["r"], vec![int("allowzero", 0)]),
        node("Mul", &["s", "two"], &["d"], vec![]),
        node("Cast", &["d"], &["e"], vec![int("to", 7)]),
        node("ConstantOfShape", &["e"], &["big"], vec![]),
        node("ReduceProd", &["s"], &["p"], vec![int("keepdims", 1)]),
        node("Expand", &["half", "p"], &["h"], vec![]),
        node("Equal", &["rest", "axis"], &["eq"], vec![]),
        node("Where", &["eq", "rest", "n1"], &["wh"], vec![]),
        node("Tile", &["r", "times"], &["tiled"], vec![]),
        node("Size", &["x"], &["size"], vec![]),
        node("Range", &["zero", "n", "one"], &["range"], vec![]),
    ];
    let scalar = |v: i128| Tensor::from_i128(DType::I64, vec![], [v]);
    let weights = [
        ("zero", scalar(0)),
        ("one", scalar(1)),
        ("two", i64s(&[2])),
        ("axis", i64s(&[0])),
        ("rest", i64s(&[-1])),
        ("times", i64s(&[1, 3])),
        ("half", f32s(&[1], 0.5)),
    ];
    model(OPSET, &["x:f32[n,3,4]"], &weights, nodes, &["r", "big", "h", "wh", "tiled", "size", "range"])
}

fn slices() -> ModelProto {
    let nodes = vec![
        node("Slice", &["x", "starts", "ends", "axes", "steps"], &["a"], vec![]),
        node("Split", &["x"], &["b", "c"], vec![int("axis", 1), int("num_outputs", 2)]),
        node("Split", &["x", "parts"], &["d", "e"], vec![int("axis", 2)]),
        node("Pad", &["x", "pads", "", "axes"], &["f"], vec![string("mode", "reflect")]),
        node("Transpose", &["x"], &["g"], vec![ints("perm", &[2, 0, 1])]),
        node("Concat", &["b", "c"], &["h"], vec![int("axis", -2)]),
        node("Trilu", &["x"], &["i"], vec![int("upper", 0)]),
        node("CumSum", &["x", "one"], &["j"], vec![int("reverse", 1)]),
        node("Resize", &["x", "", "scales"], &["k"], vec![string("mode", "linear")]),
        node(
            "Resize",
            &["x", "", "", "sizes"],
            &["l"],
            vec![ints("axes", &[1, 2]), string("keep_aspect_ratio_policy", "not_larger")],
        ),
    ];
    let weights = [
        ("starts", i64s(&[-1, 0])),
        ("ends", i64s(&[-9, 99])),
        ("axes", i64s(&[1, 2])),
        ("steps", i64s(&[-1, 2])),
        ("parts", i64s(&[1, 5])),
        ("pads", i64s(&[1, 0, 0, 2])),
        ("one", Tensor::from_i128(DType::I64, vec![], [1])),
        ("scales", Tensor::from_f64(DType::F32, vec![3], [1.0, 2.0, 0.5])),
        ("sizes", i64s(&[8, 3])),
    ];
    model(OPSET, &["x:f32[n,4,6]"], &weights, nodes, &["a", "d", "f", "g", "h", "i", "j", "k", "l"])
}

fn reductions() -> ModelProto {
    let nodes = vec![
        node("ReduceMean", &["x", "axes"], &["a"], vec![int("keepdims", 0)]),
        node("ReduceLogSumExp", &["x"], &["b"], vec![int("noop_with_empty_axes", 1)]),
        node("ArgMax", &["x"], &["c"], vec![int("axis", -1), int("select_last_index", 1)]),
        node("ReduceL2", &["x", "axes"], &["d"], vec![]),
        node("Einsum", &["x", "x"], &["e"], vec![string("equation", "nij, nkj -> nik")]),
        node("MatMul", &["x", "w"], &["f"], vec![]),
        node("LogSoftmax", &["f"], &["g"], vec![]),
        node("Hardmax", &["f"], &["h"], vec![int("axis", 0)]),
    ];
    let weights = [("axes", i64s(&[1, -1])), ("w", f32s(&[6, 2], 0.3))];
    model(OPSET, &["x:f32[n,4,6]"], &weights, nodes, &["a", "b", "c", "d", "e", "g", "h"])
}

fn windows() -> ModelProto {
    let nodes = vec![
        node(
            "ConvTranspose",
            &["x", "w"],
            &["a"],
            vec![ints("strides", &[2, 2]), ints("output_shape", &[11, 11]), int("group", 2)],
        ),
        node(
            "AveragePool",
            &["x"],
            &["b"],
            vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), ints("dilations", &[2, 1])],
        ),
        node("LpPool", &["x"], &["c"], vec![ints("kernel_shape", &[2, 3]), int("p", 3)]),
        node(
            "MaxPool",
            &["x"],
            &["d", "e"],
            vec![ints("kernel_shape", &[2, 2]), string("auto_pad", "SAME_UPPER"), int("storage_order", 1)],
        ),
        node("GlobalLpPool", &["x"], &["f"], vec![int("p", 3)]),
        node("GlobalMaxPool", &["x"], &["g"], vec![]),
        node("DepthToSpace", &["x"], &["h"], vec![int("blocksize", 2), string("mode", "CRD")]),
        node("SpaceToDepth", &["h"], &["i"], vec![int("blocksize", 2)]),
        node("LRN", &["x"], &["j"], vec![int("size", 3)]),
    ];
    model(
        OPSET,
        &["x:f32[n,4,5,5]"],
        &[("w", f32s(&[4, 1, 3, 3], 0.1))],
        nodes,
        &["a", "b", "c", "d", "e", "f", "g", "i", "j"],
    )
}

fn gathers() -> ModelProto {
    let nodes = vec![
        node("Gather", &["x", "i"], &["a"], vec![int("axis", 1)]),
        node("GatherElements", &["x", "i"], &["b"], vec![int("axis", 0)]),
        node("GatherND", &["x", "i"], &["c"], vec![int("batch_dims", 0)]),
        node("ScatterElements", &["x", "i", "u"], &["d"], vec![string("reduction", "add")]),
        node("ScatterND", &["x", "j", "v"], &["e"], vec![string("reduction", "max")]),
        node("OneHot", &["i", "depth", "values"], &["f"], vec![int("axis", 0)]),
        node(
            "NegativeLogLikelihoodLoss",
            &["x", "t"],
            &["g"],
            vec![string("reduction", "none"), int("ignore_index", 1)],
        ),
        node("SoftmaxCrossEntropyLoss", &["x", "t"], &["h", "p"], vec![]),
    ];
    let grid = Tensor::from_i128(DType::I64, vec![2, 2], [0, 1, 1, 0]);
    let weights = [
        ("i", grid),
        ("j", Tensor::from_i128(DType::I64, vec![1, 1], [1])),
        ("u", f32s(&[2, 2], 1.0)),
        ("v", f32s(&[1, 4], 1.0)),
        ("depth", i64s(&[3])),
        ("values", f32s(&[2], 1.0)),
    ];
    model(OPSET, &["x:f32[3,4]", "t:i64[3]"], &weights, nodes, &["a", "b", "c", "d", "e", "f", "g", "h", "p"])
}

/// Indices and divisors that are not known before the model runs, and may be anything then.
fn data() -> ModelProto {
    let nodes = vec![
        node("Gather", &["x", "i"], &["a"], vec![int("axis", 1)]),
        node("GatherElements", &["x", "i"], &["b"], vec![int("axis", 0)]),
        node("GatherND", &["x", "i"], &["c"], vec![]),
        node("ScatterElements", &["x", "i", "u"], &["d"], vec![int("axis", 1), string("reduction", "mul")]),
        node("ScatterND", &["x", "j", "v"], &["e"], vec![string("reduction", "add")]),
        node("OneHot", &["i", "depth", "values"], &["f"], vec![int("axis", -1)]),
        node("OneHot", &["x", "depth", "values"], &["g"], vec![]),
        node("Div", &["i", "k"], &["h"], vec![]),
        node("Mod", &["i", "k"], &["m"], vec![]),
        node("BitShift", &["n", "n"], &["o"], vec![string("direction", "RIGHT")]),
        node("NegativeLogLikelihoodLoss", &["x", "t", "w"], &["p"], vec![]),
        node("SoftmaxCrossEntropyLoss", &["x", "t"], &["q"], vec![int("ignore_index", -1)]),
        node("Cast", &["x"], &["r"], vec![int("to", 7)]),
        node("Gather", &["x", "r"], &["s"], vec![]),
    ];
    let weights = [
        ("u", f32s(&[2, 2], 1.5)),
        ("depth", i64s(&[8])),
        ("values", f32s(&[2], 1.0)),
        ("n", Tensor::from_i128(DType::U32, vec![2], [3, 40])),
        ("w", f32s(&[8], 0.5)),
    ];
    model(
        OPSET,
        &["x:f32[8,8]", "i:i64[2,2]", "j:i64[2,1]", "v:f32[2,8]", "k:i64[2]", "t:i64[8]"],
        &weights,
        nodes,
        &["a", "b", "c", "d", "e", "f", "g", "h", "m", "o", "p", "q", "s"],
    )
}

fn norms() -> ModelProto {
    let nodes = vec![
        node("InstanceNormalization", &["x", "s", "s"], &["a"], vec![]),
        node("GroupNormalization", &["x", "s", "s"], &["b"], vec![int("num_groups", 2)]),
        node("LayerNormalization", &["x", "l"], &["c", "m", "v"], vec![int("axis", -1)]),
        node("BatchNormalization", &["x", "s", "s", "s", "s"], &["d", "rm", "rv"], vec![int("training_mode", 1)]),
        node("MeanVarianceNormalization", &["x"], &["e"], vec![ints("axes", &[0, 2])]),
        node("LpNormalization", &["x"], &["f"], vec![int("p", 1)]),
        node("Dropout", &["x", "ratio", "mode"], &["g"], vec![]),
    ];
    let weights = [
        ("s", f32s(&[4], 1.0)),
        ("l", f32s(&[5], 1.0)),
        ("ratio", f32s(&[], 0.0)),
        ("mode", Tensor::from_i128(DType::Bool, vec![], [1])),
    ];
    model(OPSET, &["x:f32[n,4,5]"], &weights, nodes, &["a", "b", "c", "m", "v", "d", "rm", "e", "f", "g"])
}

fn elementwise() -> ModelProto {
    let unary = ["Abs", "Neg", "Exp", "Erf", "HardSwish", "Mish", "Round", "IsNaN", "Softplus", "Identity"];
    let mut nodes: Vec<NodeProto> = unary.iter().map(|op| node(op, &["x"], &[&format!("u{op}")], vec![])).collect();
    nodes.extend([
        node("LeakyRelu", &["x"], &["a"], vec![float("alpha", 0.1)]),
        node("Clip", &["x", "", "hi"], &["b"], vec![]),
        node("Gelu", &["x"], &["c"], vec![string("approximate", "tanh")]),
        node("Sum", &["x", "y", "a"], &["d"], vec![]),
        node("Mean", &["x", "y"], &["e"], vec![]),
        node("Mod", &["x", "y"], &["f"], vec![int("fmod", 1)]),
        node("Less", &["x", "y"], &["g"], vec![]),
        node("Where", &["g", "x", "y"], &["h"], vec![]),
        node("PRelu", &["x", "hi"], &["i"], vec![]),
        node("CastLike", &["g", "x"], &["j"], vec![]),
        node("Pow", &["x", "y"], &["k"], vec![]),
    ]);
    let hi = Tensor::scalar_f64(DType::F32, 3.0);
    model(
        OPSET,
        &["x:f32[n,1,4]", "y:f32[3,4]"],
        &[("hi", hi)],
        nodes,
        &["uAbs", "b", "c", "d", "e", "f", "h", "i", "j", "k"],
    )
}

fn creation() -> ModelProto {
    let nodes = vec![
        node("Constant", &[], &["a"], vec![tensor("value", &i64s(&[2, 3]))]),
        node("Constant", &[], &["b"], vec![ints("value_ints", &[4])]),
        node("Constant", &[], &["start"], vec![float("value_float", 0.5)]),
        node("ConstantOfShape", &["a"], &["c"], vec![tensor("value", &i64s(&[7]))]),
        node("Range", &["start", "limit", "delta"], &["d"], vec![]),
        node("EyeLike", &["c"], &["e"], vec![int("k", 1), int("dtype", 1)]),
        node("BitShift", &["u", "u"], &["f"], vec![string("direction", "LEFT")]),
        node("Not", &["t"], &["g"], vec![]),
    ];
    let scalar = |v| Tensor::scalar_f64(DType::F32, v);
    let weights = [
        ("limit", scalar(4.0)),
        ("delta", scalar(0.25)),
        ("u", Tensor::from_i128(DType::U8, vec![2], [3, 4])),
        ("t", Tensor::from_i128(DType::Bool, vec![2], [0, 1])),
    ];
    model(OPSET, &["x:f32[1]"], &weights, nodes, &["b", "c", "d", "e", "f", "g"])
}

fn function() -> ModelProto {
    let import = OperatorSetIdProto { domain: "".into(), version: OPSET };
    let mut slope = float("alpha", 0.0);
    slope.ref_attr_name = "slope".into();
    let body = vec![node("LeakyRelu", &["a"], &["b"], vec![slope]), node("Add", &["b", "a"], &["c"], vec![])];
    let twice = FunctionProto {
        name: "Twice".into(),
        domain: "own".into(),
        input: vec!["a".into(), "unused".into()],
        output: vec!["c".into()],
        attribute: vec!["slope".into()],
        node: body,
        opset_import: vec![import],
        ..Default::default()
    };
    let mut nodes = vec![
        node("Twice", &["x"], &["m"], vec![float("slope", 0.2)]),
        node("Twice", &["m"], &["y"], vec![float("slope", 0.3)]),
    ];
    nodes.iter_mut().for_each(|n| n.domain = "own".into());
    let mut proto = model(OPSET, &["x:f32[n,2]"], &[], nodes, &["y"]);
    proto.opset_import.push(OperatorSetIdProto { domain: "own".into(), version: 1 });
    proto.functions = vec![twice];
    proto
}
