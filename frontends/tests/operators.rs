//! Operators by the rules of each opset: the type of a node's first output, and what it becomes.

mod common;
use common::*;
use lehr_frontends::onnx::proto::{AttributeProto, NodeProto};
use lehr_ir::{DType, Tensor};

/// The node's first output has the type `ty`, and it is made of `ops`.
#[track_caller]
fn makes(opset: i64, x: &str, weights: &[(&str, Tensor)], node: NodeProto, ty: &str, ops: &[&str]) {
    let (found, made) = one(opset, &[x], weights, node).unwrap();
    assert_eq!(found, ty);
    assert_eq!(made, ops);
}

/// Import says `why` it cannot.
#[track_caller]
fn fails(opset: i64, x: &str, weights: &[(&str, Tensor)], node: NodeProto, why: &str) {
    let error = one(opset, &[x], weights, node).unwrap_err();
    assert!(error.contains(why), "{error}");
}

fn unary(op: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node(op, &["x"], &["y"], attributes)
}

#[test]
fn softmax_before_13_works_on_rows() {
    let at = |axis| unary("Softmax", vec![int("axis", axis)]);
    makes(11, "x:f32[2,3,4]", &[], at(1), "f32[2,3,4]", &["reshape", "softmax", "reshape"]);
    makes(11, "x:f32[2,3,4]", &[], at(-1), "f32[2,3,4]", &["softmax"]);
    makes(11, "x:f32[n,3,1,1]", &[], at(1), "f32[n,3,1,1]", &["softmax"]);
    makes(13, "x:f32[2,3,4]", &[], at(1), "f32[2,3,4]", &["softmax"]);
}

#[test]
fn batch_norm_changes_with_its_opset() {
    let s = f32s(&[3], 1.0);
    let weights = [("s", s)];
    let bn = |outputs: &[&str], a| node("BatchNormalization", &["x", "s", "s", "s", "s"], outputs, a);
    makes(7, "x:f32[2,3,4]", &weights, bn(&["y"], vec![int("spatial", 1)]), "f32[2,3,4]", &["batch_norm"]);
    fails(7, "x:f32[2,3,4]", &weights, bn(&["y"], vec![int("spatial", 0)]), "spatial");
    fails(9, "x:f32[2,3,4]", &weights, bn(&["y"], vec![int("spatial", 1)]), "spatial is unknown");
    fails(9, "x:f32[2,3,4]", &weights, bn(&["y", "m"], vec![]), "training");
    let training = vec![int("training_mode", 1)];
    makes(15, "x:f32[2,3,4]", &weights, bn(&["y", "m", "v"], training), "f32[2,3,4]", &["batch_norm_train"]);
    fails(15, "x:f32[2,3,4]", &weights, bn(&["y", "m"], vec![]), "output 1");
}

#[test]
fn dropout_drops_nothing_in_inference() {
    let mask = node("Dropout", &["x"], &["y", "mask"], vec![float("ratio", 0.5)]);
    makes(7, "x:f32[2]", &[], mask, "f32[2]", &["dropout", "cast"]);
    let scalar = |dtype, v| Tensor::from_f64(dtype, vec![], [v]);
    let weights =
        [("half", scalar(DType::F32, 0.5)), ("none", scalar(DType::F32, 0.0)), ("on", scalar(DType::Bool, 1.0))];
    makes(13, "x:f32[2]", &weights, node("Dropout", &["x", "half"], &["y"], vec![]), "f32[2]", &["dropout"]);
    makes(13, "x:f32[2]", &weights, node("Dropout", &["x", "none", "on"], &["y"], vec![]), "f32[2]", &["dropout"]);
    fails(13, "x:f32[2]", &weights, node("Dropout", &["x", "half", "on"], &["y"], vec![]), "at random");
}

#[test]
fn attributes_of_other_opsets_are_refused() {
    let pool = |a| unary("MaxPool", vec![ints("kernel_shape", &[2, 2]), a]);
    makes(10, "x:f32[1,1,5,5]", &[], pool(int("ceil_mode", 0)), "f32[1,1,4,4]", &["max_pool"]);
    fails(8, "x:f32[1,1,5,5]", &[], pool(int("ceil_mode", 0)), "ceil_mode is unknown");
    fails(11, "x:f32[2]", &[], unary("ArgMax", vec![int("select_last_index", 1)]), "select_last_index is unknown");
    fails(13, "x:f32[2,3]", &[], unary("Squeeze", vec![ints("axes", &[0])]), "axes is unknown");
    fails(11, "x:f32[2]", &[], unary("Clip", vec![float("min", 0.0)]), "min is unknown");
    fails(10, "x:f32[2]", &[], unary("Softmax", vec![float("axis", 1.0)]), "it must be INT, not FLOAT");
    fails(10, "x:f32[2]", &[], unary("Softmax", vec![int("axis", 0), int("axis", 0)]), "given twice");
}

#[test]
fn operators_of_other_opsets_are_refused() {
    fails(19, "x:f32[2]", &[], unary("Gelu", vec![]), "supported in opsets 20 to 28, not in 19");
    fails(10, "x:f32[2]", &[], node("Upsample", &["x", "x"], &["y"], vec![]), "not in 10");
    fails(29, "x:f32[2]", &[], unary("Relu", vec![]), "newer than 28");
}

#[test]
fn windows_resolve_their_padding() {
    let pool = |a: Vec<AttributeProto>| {
        unary("AveragePool", [vec![ints("kernel_shape", &[3]), ints("strides", &[2])], a].concat())
    };
    let auto = |word| pool(vec![string("auto_pad", word)]);
    makes(11, "x:f32[1,1,6]", &[], auto("SAME_UPPER"), "f32[1,1,3]", &["avg_pool"]);
    makes(11, "x:f32[1,1,6]", &[], auto("VALID"), "f32[1,1,2]", &["avg_pool"]);
    makes(11, "x:f32[1,1,6]", &[], pool(vec![int("ceil_mode", 1)]), "f32[1,1,3]", &["avg_pool"]);
    fails(11, "x:f32[1,1,w]", &[], auto("SAME_UPPER"), "--dim w=N");
    fails(11, "x:f32[1,1,6]", &[], auto("SAME"), "none of NOTSET");
    fails(11, "x:f32[1,1,6]", &[], pool(vec![ints("pads", &[1, -1])]), "negative");
    fails(11, "x:f32[1]", &[], auto("VALID"), "rank 1");
    let w = [("w", f32s(&[1, 1, 3], 1.0))];
    let deconv = |a| node("ConvTranspose", &["x", "w"], &["y"], vec![ints("strides", &[2]), a]);
    makes(11, "x:f32[1,1,4]", &w, deconv(ints("output_shape", &[8])), "f32[1,1,8]", &["conv_transpose"]);
    makes(11, "x:f32[1,1,4]", &w, deconv(string("auto_pad", "SAME_UPPER")), "f32[1,1,8]", &["conv_transpose"]);
    makes(11, "x:f32[1,1,n]", &w, deconv(ints("output_padding", &[1])), "f32[1,1,2*n + 2]", &["conv_transpose"]);
}

#[test]
fn axes_are_attributes_or_operands() {
    let weights = [("axes", i64s(&[-1])), ("none", i64s(&[]))];
    let reduce = |inputs: &[&str], a| node("ReduceMean", inputs, &["y"], a);
    makes(17, "x:f32[2,n]", &weights, reduce(&["x"], vec![ints("axes", &[1])]), "f32[2,1]", &["reduce"]);
    makes(18, "x:f32[2,n]", &weights, reduce(&["x", "axes"], vec![int("keepdims", 0)]), "f32[2]", &["reduce"]);
    makes(18, "x:f32[2,n]", &weights, reduce(&["x", "none"], vec![int("keepdims", 0)]), "f32[]", &["reduce"]);
    let noop = vec![int("noop_with_empty_axes", 1)];
    makes(18, "x:f32[2,n]", &weights, reduce(&["x"], noop), "f32[2,n]", &["reduce"]);
    makes(11, "x:f32[2,n]", &weights, unary("Unsqueeze", vec![ints("axes", &[-1, 0])]), "f32[1,2,n,1]", &["reshape"]);
    makes(13, "x:f32[2,n]", &weights, node("Unsqueeze", &["x", "axes"], &["y"], vec![]), "f32[2,n,1]", &["reshape"]);
    makes(11, "x:f32[1,n,1]", &weights, unary("Squeeze", vec![]), "f32[n]", &["reshape"]);
    fails(11, "x:f32[2,n]", &weights, unary("Squeeze", vec![ints("axes", &[0])]), "size 2");
}

#[test]
fn reshape_solves_for_one_dimension() {
    let to = |shape: &[i64]| (node("Reshape", &["x", "s"], &["y"], vec![]), [("s", i64s(shape))]);
    for (x, shape, ty) in [
        ("x:f32[n,3,4]", &[0, -1][..], "f32[n,12]"),
        ("x:f32[n,3,4]", &[-1, 6], "f32[2*n,6]"),
        ("x:f32[2,3,4]", &[-1, 6], "f32[4,6]"),
        ("x:f32[0,3]", &[0, -1], "f32[0,3]"),
        ("x:f32[n,m,4]", &[0, 0, 2, -1], "f32[n,m,2,2]"),
    ] {
        let (node, weights) = to(shape);
        makes(14, x, &weights, node, ty, &["reshape"]);
    }
    let (node, weights) = to(&[-1, 5]);
    fails(14, "x:f32[2,3]", &weights, node, "cannot be solved");
    let (node, weights) = to(&[-1, -1]);
    fails(14, "x:f32[2,3]", &weights, node, "comes twice");
}

#[test]
fn slices_clamp_like_numpy() {
    let weights =
        |start, end, step| [("s", i64s(&[start])), ("e", i64s(&[end])), ("a", i64s(&[0])), ("t", i64s(&[step]))];
    let slice = || node("Slice", &["x", "s", "e", "a", "t"], &["y"], vec![]);
    for (x, start, end, step, ty) in [
        ("x:f32[10]", 2, 8, 2, "f32[3]"),
        ("x:f32[10]", -3, i64::MAX, 1, "f32[3]"),
        ("x:f32[10]", -1, i64::MIN, -1, "f32[10]"),
        ("x:f32[10]", 8, 2, -3, "f32[2]"),
        ("x:f32[10]", 20, 30, 1, "f32[0]"),
        ("x:f32[10]", 5, 2, 1, "f32[0]"),
        ("x:f32[n]", 0, i64::MAX, 1, "f32[n]"),
        ("x:f32[n]", 0, -1, 1, "f32[max(0, n - 1)]"),
        ("x:f32[n]", 0, 4, 1, "f32[min(4, n)]"),
    ] {
        makes(13, x, &weights(start, end, step), slice(), ty, &["slice"]);
    }
    fails(13, "x:f32[10]", &weights(0, 1, 0), slice(), "zero");
}

#[test]
fn splits_are_equal_or_as_told() {
    let halves = || node("Split", &["x"], &["y", "z"], vec![]);
    makes(13, "x:f32[6]", &[], halves(), "f32[3]", &["slice", "slice"]);
    fails(13, "x:f32[5]", &[], halves(), "equal parts");
    let counted = node("Split", &["x"], &["y", "z"], vec![int("num_outputs", 2)]);
    makes(18, "x:f32[5]", &[], counted, "f32[3]", &["slice", "slice"]);
    let parts = [("p", i64s(&[1, 4]))];
    makes(13, "x:f32[5]", &parts, node("Split", &["x", "p"], &["y", "z"], vec![]), "f32[1]", &["slice", "slice"]);
    fails(13, "x:f32[6]", &parts, node("Split", &["x", "p"], &["y", "z"], vec![]), "5 elements together");
    makes(
        11,
        "x:f32[5]",
        &[],
        node("Split", &["x"], &["y", "z"], vec![ints("split", &[2, 3])]),
        "f32[2]",
        &["slice", "slice"],
    );
}

#[test]
fn resize_takes_scales_or_sizes() {
    let scales = |v: &[f64]| ("s", Tensor::from_f64(DType::F32, vec![v.len()], v.iter().copied()));
    let by_scales = || node("Resize", &["x", "", "s"], &["y"], vec![]);
    makes(13, "x:f32[1,1,4,5]", &[scales(&[1.0, 1.0, 2.0, 0.5])], by_scales(), "f32[1,1,8,2]", &["resize"]);
    makes(13, "x:f32[1,1,h,5]", &[scales(&[1.0, 1.0, 2.0, 0.5])], by_scales(), "f32[1,1,2*h,2]", &["resize"]);
    fails(13, "x:f32[1,1,h,5]", &[scales(&[1.0, 1.0, 0.7, 0.5])], by_scales(), "--dim h=N");
    fails(13, "x:f32[1,1,4,5]", &[scales(&[1.0, 2.0])], by_scales(), "2 numbers");
    fails(13, "x:f32[1,1,4,5]", &[], node("Resize", &["x"], &["y"], vec![]), "exactly one");
    let aspect = |word| {
        node(
            "Resize",
            &["x", "", "", "n"],
            &["y"],
            vec![ints("axes", &[2, 3]), string("keep_aspect_ratio_policy", word)],
        )
    };
    let sizes = [("n", i64s(&[7, 8]))];
    makes(18, "x:f32[1,1,2,4]", &sizes, aspect("not_larger"), "f32[1,1,4,8]", &["resize"]);
    makes(18, "x:f32[1,1,2,4]", &sizes, aspect("not_smaller"), "f32[1,1,7,14]", &["resize"]);
    makes(
        9,
        "x:f32[1,1,2,4]",
        &[scales(&[1.0, 1.0, 2.0, 2.0])],
        node("Upsample", &["x", "s"], &["y"], vec![]),
        "f32[1,1,4,8]",
        &["resize"],
    );
}

#[test]
fn padding_comes_in_three_forms() {
    let attribute = unary("Pad", vec![ints("pads", &[0, 1, 0, 2])]);
    makes(2, "x:f32[2,n]", &[], attribute, "f32[2,n + 3]", &["pad"]);
    let weights = [("p", i64s(&[1, 2])), ("a", i64s(&[-1])), ("four", i64s(&[0, 1, 0, -1]))];
    makes(11, "x:f32[2,n]", &weights, node("Pad", &["x", "four"], &["y"], vec![]), "f32[2,n]", &["pad"]);
    makes(18, "x:f32[2,3]", &weights, node("Pad", &["x", "p", "", "a"], &["y"], vec![]), "f32[2,6]", &["pad"]);
    fails(18, "x:f32[2,3]", &weights, node("Pad", &["x", "p"], &["y"], vec![]), "2 entries for 2 axes");
    let wrap = || node("Pad", &["x", "four"], &["y"], vec![string("mode", "wrap")]);
    makes(19, "x:f32[2,3]", &weights, wrap(), "f32[2,3]", &["pad"]);
    fails(18, "x:f32[2,3]", &weights, wrap(), "none of constant, reflect, edge");
}

#[test]
fn group_norm_scales_by_group_and_then_by_channel() {
    let gn = || node("GroupNormalization", &["x", "s", "s"], &["y"], vec![int("num_groups", 2)]);
    let spread = ["reshape", "expand", "reshape", "reshape", "expand", "reshape", "group_norm"];
    makes(18, "x:f32[n,4,3]", &[("s", f32s(&[2], 1.0))], gn(), "f32[n,4,3]", &spread);
    makes(21, "x:f32[n,4,3]", &[("s", f32s(&[4], 1.0))], gn(), "f32[n,4,3]", &["group_norm"]);
}

#[test]
fn elementwise_functions_read_their_parameters() {
    makes(OPSET, "x:f32[2]", &[], unary("Selu", vec![float("gamma", 2.0)]), "f32[2]", &["selu"]);
    makes(OPSET, "x:f32[2]", &[], unary("Gelu", vec![string("approximate", "tanh")]), "f32[2]", &["gelu_tanh"]);
    fails(OPSET, "x:f32[2]", &[], unary("Relu", vec![float("alpha", 2.0)]), "alpha is unknown");
    makes(OPSET, "x:f32[2]", &[], node("Sum", &["x", "x", "x"], &["y"], vec![]), "f32[2]", &["add", "add"]);
    makes(OPSET, "x:f32[2]", &[], unary("Mean", vec![]), "f32[2]", &["div"]);
    makes(OPSET, "x:f32[2]", &[], unary("Max", vec![]), "f32[2]", &["identity"]);
    fails(13, "x:f32[2]", &[], node("Mod", &["x", "x"], &["y"], vec![]), "fmod");
    makes(28, "x:f32[2]", &[], node("Mod", &["x", "x"], &["y"], vec![]), "f32[2]", &["mod"]);
    makes(6, "x:f32[2]", &[], unary("Clip", vec![float("min", 0.0)]), "f32[2]", &["clip"]);
}
