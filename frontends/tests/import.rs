//! Importing whole models: names, order, symbols, known values, complaints.

mod common;
mod seeds;
use common::*;
use lehr_frontends::onnx::{ImportOptions, Model, import};
use lehr_ir::{ConstValue, Op};

#[test]
fn nodes_may_come_in_any_order() {
    let nodes = vec![node("Relu", &["a"], &["y"], vec![]), node("Abs", &["x"], &["a"], vec![])];
    let g = try_import(model(OPSET, &["x:f32[n,2]"], &[], nodes, &["y"])).unwrap().graph;
    assert_eq!(g.outputs.len(), 1);
    assert_eq!(g.ty(g.outputs[0].value).to_string(), "f32[n,2]");
    assert_eq!(g.value_name(g.outputs[0].value), Some("y"));
    assert_eq!(g.node(g.outputs[0].value.node).origins[0].index, Some(0));
}

#[test]
fn every_complaint_is_collected() {
    let nodes = vec![
        node("Blur", &["x"], &["a"], vec![]),
        node("Relu", &["a"], &["b"], vec![]),
        node("Relu", &["x"], &["c"], vec![int("alpha", 1)]),
        node("Relu", &["nowhere"], &["d"], vec![]),
        node("Concat", &["x"], &["e"], vec![]),
        node("Add", &["x"], &["f"], vec![]),
    ];
    let e = try_import(model(OPSET, &["x:f32[2]", "s:str[2]"], &[], nodes, &["b", "z"])).unwrap_err();
    let text = e.to_string();
    for needle in [
        "Blur (opset 22)",
        "alpha is unknown",
        "nowhere",
        "axis: it is missing",
        "takes 2 operands",
        "str is not supported",
        "'z'",
    ] {
        assert!(text.contains(needle), "{needle} is not in:\n{text}");
    }
    assert_eq!(e.diags.len(), 7, "{text}");
}

#[test]
fn cycles_and_double_names_are_reported() {
    let nodes = vec![node("Add", &["x", "b"], &["a"], vec![]), node("Relu", &["a"], &["b"], vec![])];
    let e = try_import(model(OPSET, &["x:f32[2]"], &[], nodes, &["b"])).unwrap_err();
    assert!(e.to_string().contains("cycle: "), "{e}");
    let nodes = vec![node("Abs", &["x"], &["a"], vec![]), node("Relu", &["x"], &["a"], vec![])];
    let e = try_import(model(OPSET, &["x:f32[2]"], &[], nodes, &["a"])).unwrap_err();
    assert!(e.to_string().contains("more than once"), "{e}");
}

#[test]
fn initializers_listed_as_inputs_are_constants_unless_asked() {
    let nodes = vec![node("Add", &["x", "w"], &["y"], vec![])];
    let m = load(model(7, &["x:f32[2]", "w:f32[2]"], &[("w", f32s(&[2], 1.0))], nodes, &["y"]));
    let g = import(&m, &ImportOptions::default()).unwrap().graph;
    assert_eq!(g.inputs().len(), 1);
    let named = |op: &Op| matches!(op, Op::Const(c) if matches!(&*c.value, ConstValue::Dense { name: Some(n), .. } if &**n == "w"));
    assert!(g.ids().any(|id| named(&g.node(id).op)));
    let options = ImportOptions { initializers_are_inputs: true, ..Default::default() };
    assert_eq!(import(&m, &options).unwrap().graph.inputs().len(), 2);
}

#[test]
fn missing_and_odd_dimensions_get_names() {
    let nodes = vec![node("Relu", &["x"], &["y"], vec![])];
    let m = load(model(OPSET, &["x:f32[?,batch size,3]"], &[], nodes, &["y"]));
    let g = import(&m, &ImportOptions::default()).unwrap().graph;
    assert_eq!(g.ty(g.inputs()[0]).to_string(), "f32[x_d0,batch_size,3]");
    let options =
        ImportOptions { dims: [("batch size".to_string(), 4)].into(), default_dim: Some(1), ..Default::default() };
    let g = import(&m, &options).unwrap().graph;
    assert_eq!(g.ty(g.inputs()[0]).to_string(), "f32[1,4,3]");
}

#[test]
fn shapes_that_the_graph_computes_are_followed() {
    // PyTorch's view(x.size(0), -1).
    let nodes = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![int("axis", 0)]),
        node("Unsqueeze", &["n", "axes"], &["n1"], vec![]),
        node("Concat", &["n1", "rest"], &["shape"], vec![int("axis", 0)]),
        node("Reshape", &["x", "shape"], &["y"], vec![]),
    ];
    let zero = lehr_ir::Tensor::from_i128(lehr_ir::DType::I64, vec![], [0]);
    let weights = [("zero", zero), ("axes", i64s(&[0])), ("rest", i64s(&[-1]))];
    let g = try_import(model(OPSET, &["x:f32[n,3,4]"], &weights, nodes, &["y"])).unwrap().graph;
    assert_eq!(g.ty(g.outputs[0].value).to_string(), "f32[n,12]");
    // What only computed the shape is gone.
    assert_eq!(g.ids().count(), 2);
}

#[test]
fn a_shape_that_depends_on_data_names_the_input_to_bind() {
    let nodes = vec![node("Add", &["s", "one"], &["t"], vec![]), node("Reshape", &["x", "t"], &["y"], vec![])];
    let m = load(model(OPSET, &["x:f32[6]", "s:i64[2]"], &[("one", i64s(&[1, 1]))], nodes, &["y"]));
    let e = import(&m, &ImportOptions::default()).unwrap_err();
    assert_eq!(e.needed_bindings, ["s"]);
    assert!(e.to_string().contains("--bind s=FILE"), "{e}");
    let options = ImportOptions { bindings: [("s".to_string(), i64s(&[1, 2]))].into(), ..Default::default() };
    let g = import(&m, &options).unwrap().graph;
    assert_eq!(g.ty(g.outputs[0].value).to_string(), "f32[2,3]");
    assert_eq!(g.inputs().len(), 1);
}

#[test]
fn external_data_stays_in_the_folder() {
    use lehr_frontends::onnx::proto::{StringStringEntryProto, TensorProto};
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(dir.path().join("secret"), [0u8; 64]).unwrap();
    std::fs::write(inner.join("w.bin"), [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat()).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), inner.join("link")).unwrap();
    let import_with = |entries: &[(&str, &str)]| {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto { key: k.to_string(), value: v.to_string() };
        let w = TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: 1,
            data_location: 1,
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        };
        let mut m = model(OPSET, &["x:f32[2]"], &[], vec![node("Add", &["x", "w"], &["y"], vec![])], &["y"]);
        m.graph.as_mut().unwrap().initializer.push(w);
        import(&Model::from_proto(m, Some(&inner)).unwrap(), &ImportOptions::default()).map_err(|e| e.to_string())
    };
    let ok = import_with(&[("location", "w.bin"), ("offset", "4"), ("length", "8")]).unwrap().graph;
    let w = ok.ids().find_map(|id| ok.constant(id.out(0))).unwrap().tensor();
    assert_eq!(w.to_f64(), [2.0, 3.0]);
    for (bad, why) in [
        ("../secret", "leads out"),
        ("/etc/passwd", "leads out"),
        ("link", "link out"),
        ("none", "No such"),
        (".", "regular"),
    ] {
        let e = import_with(&[("location", bad)]).unwrap_err();
        assert!(e.contains(why), "{bad}: {e}");
    }
    for (offset, length) in [("8", "8"), ("0", "12"), ("18446744073709551615", "8"), ("-1", "8")] {
        assert!(import_with(&[("location", "w.bin"), ("offset", offset), ("length", length)]).is_err());
    }
}

#[test]
fn weights_beyond_two_gigabytes_are_mapped() {
    use lehr_frontends::onnx::proto::{StringStringEntryProto, TensorProto};
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("w.bin")).unwrap();
    // A file of holes: it takes no room, and reading it all would take seconds.
    file.set_len(5 << 30).unwrap();
    let entry = |k: &str, v: String| StringStringEntryProto { key: k.into(), value: v };
    let elements = 3i64 << 28;
    let w = TensorProto {
        name: "w".into(),
        dims: vec![elements],
        data_type: 1,
        data_location: 1,
        external_data: vec![entry("location", "./w.bin".into()), entry("offset", (2i64 << 30).to_string())],
        ..Default::default()
    };
    let nodes = vec![node("Gather", &["w", "i"], &["y"], vec![])];
    let mut m = model(OPSET, &["i:i64[2]"], &[], nodes, &["y"]);
    m.graph.as_mut().unwrap().initializer.push(w);
    let g = import(&Model::from_proto(m, Some(dir.path())).unwrap(), &ImportOptions::default()).unwrap().graph;
    let w = g.ids().find_map(|id| g.constant(id.out(0))).unwrap();
    assert_eq!(w.ty().elements().as_const(), Some(elements));
}

#[test]
fn functions_are_inlined_under_the_name_of_the_call() {
    let (_, proto) = seeds::models().into_iter().find(|(name, _)| *name == "function").unwrap();
    let g = try_import(proto).unwrap().graph;
    let names: Vec<String> = g.order().iter().filter_map(|id| g.value_name(id.out(0)).map(str::to_string)).collect();
    assert_eq!(names, ["x", "m/b", "m/c", "m", "y/b", "y/c", "y"]);
}
