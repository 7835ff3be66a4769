//! Models made by hand to go wrong: each is refused with a sentence that names the node or argument, at import, at
//! compilation, at opening or at run time. Nothing panics, and nothing takes memory out of proportion.

#[path = "../../frontends/tests/common/mod.rs"]
mod common;
#[path = "../../frontends/tests/seeds/mod.rs"]
mod seeds;

use common::*;
use lehr::codegen::artefact::Artefact;
use lehr::frontends::onnx::proto::{ModelProto, NodeProto};
use lehr::{CompileOptions, LoadOptions, Runner, load};
use lehr_ir::{DType, Tensor};
use prost::Message;
use std::path::Path;

/// From the file to a runner, by the facade, as the command line goes.
fn open(bytes: &[u8]) -> Result<Runner, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    let loaded = load(path.to_str().unwrap(), &LoadOptions::default()).map_err(|e| e.to_string())?;
    Runner::jit(loaded.graph, &CompileOptions::default(), 1)
}

fn refusal(proto: &ModelProto) -> String {
    open(&proto.encode_to_vec()).err().unwrap_or_else(|| panic!("it is not refused: {proto:?}"))
}

fn named(mut node: NodeProto) -> NodeProto {
    node.name = "culprit".into();
    node
}

#[test]
fn files_that_are_no_models_are_refused() {
    assert!(open(b"").is_err());
    assert!(open(b"It is a truth universally acknowledged").is_err());
    assert!(open(&[0xff; 4096]).is_err());
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path().to_str().unwrap(), &LoadOptions::default()).is_err());
    assert!(load("/nonexistent/model.onnx", &LoadOptions::default()).is_err());
    // A message nested in itself 10,000 deep: model, graph, node, attribute, graph, node, ...
    let mut bytes = vec![];
    for depth in 0..10_000 {
        let field = [1u64, 5, 6][depth % 3];
        let mut outer = vec![];
        prost::encoding::encode_varint(field << 3 | 2, &mut outer);
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        bytes = outer;
    }
    assert!(open(&bytes).is_err());
}

/// Cut anywhere, a model is refused or, if only its end is missing that says nothing, imported.
#[test]
fn truncated_models_are_refused() {
    for (name, proto) in seeds::models() {
        let bytes = proto.encode_to_vec();
        let whole = (0..bytes.len()).filter(|&n| open(&bytes[..n]).is_ok()).count();
        assert!(whole < 4, "{name}: {whole} of {} pieces are taken for a model", bytes.len());
    }
}

#[test]
fn wrong_attributes_name_their_node() {
    let (x, w) = ("x:f32[1,4,8,8]", ("w", f32s(&[4, 4, 3, 3], 0.1)));
    let conv = |attributes| named(node("Conv", &["x", "w"], &["y"], attributes));
    let pool = |attributes| named(node("MaxPool", &["x"], &["y"], attributes));
    let one = |op: &str, attributes| named(node(op, &["x"], &["y"], attributes));
    let huge = 1i64 << 60;
    let nodes = vec![
        conv(vec![ints("pads", &[huge, huge, huge, huge])]),
        conv(vec![ints("strides", &[0, 1])]),
        conv(vec![ints("strides", &[-1, 1])]),
        conv(vec![ints("dilations", &[huge, huge])]),
        conv(vec![int("group", 0)]),
        conv(vec![int("group", -4)]),
        conv(vec![int("group", 3)]),
        conv(vec![ints("kernel_shape", &[1 << 40, 3])]),
        pool(vec![ints("kernel_shape", &[1 << 40, 1 << 40])]),
        pool(vec![ints("kernel_shape", &[0, 2])]),
        pool(vec![ints("kernel_shape", &[2, 2]), ints("pads", &[huge, 0, 0, 0])]),
        pool(vec![]),
        one("Transpose", vec![ints("perm", &[0, 1, 1, 3])]),
        one("Transpose", vec![ints("perm", &[0, 1, 2, 4])]),
        one("Softmax", vec![int("axis", 1 << 40)]),
        one("Concat", vec![int("axis", -(1 << 40))]),
        one("Flatten", vec![int("axis", i64::MIN)]),
        one("DepthToSpace", vec![int("blocksize", 1 << 40)]),
        one("DepthToSpace", vec![int("blocksize", 0)]),
        one("LRN", vec![int("size", -3)]),
        one("NoSuchOperator", vec![]),
        one("Relu", vec![int("surprise", 1)]),
        NodeProto { domain: "com.example".into(), ..one("Relu", vec![]) },
    ];
    for node in nodes {
        let proto = model(OPSET, &[x], std::slice::from_ref(&w), vec![node.clone()], &["y"]);
        let why = refusal(&proto);
        assert!(why.contains("culprit"), "{} {:?}: {why}", node.op_type, node.attribute);
    }
    let relu = || one("Relu", vec![]);
    assert!(refusal(&model(999, &[x], &[], vec![relu()], &["y"])).contains("999"));
    for dims in ["4611686018427387904", "-3", "4294967296,4294967296", "4611686018427387904,8,0"] {
        let why = refusal(&model(OPSET, &[&format!("x:f32[{dims}]")], &[], vec![relu()], &["y"]));
        assert!(why.contains('x'), "{dims}: {why}");
    }
    let mut short = model(OPSET, &["x:f32[4]"], &[("w", f32s(&[4], 1.0))], vec![relu()], &["y"]);
    short.graph.as_mut().unwrap().node[0] = named(node("Add", &["x", "w"], &["y"], vec![]));
    short.graph.as_mut().unwrap().initializer[0].dims = vec![1 << 20];
    assert!(refusal(&short).contains("'w'"), "{}", refusal(&short));
}

/// A hundred bytes that ask for a terabyte.
#[test]
fn memory_bombs_are_refused() {
    let big = 1i64 << 20;
    let constant = |v: &[i64]| i64s(v);
    let scalar = |v: i128| Tensor::from_i128(DType::I64, vec![], [v]);
    let bomb = |inputs: &[&str], weights: &[(&str, Tensor)], nodes: Vec<NodeProto>| {
        model(OPSET, inputs, weights, nodes, &["y"])
    };
    let x = "x:f32[1]";
    let tiles = |n: usize| {
        let link = |i: usize| (format!("t{i}"), if i + 1 == n { "y".to_string() } else { format!("t{}", i + 1) });
        let tile = |i| node("Tile", &[&link(i).0, "two"], &[&link(i).1], vec![]);
        std::iter::once(node("Identity", &["x"], &["t0"], vec![])).chain((0..n).map(tile)).collect::<Vec<_>>()
    };
    let zeros = || node("ConstantOfShape", &["s"], &["c"], vec![]);
    let models = [
        (
            "ConstantOfShape",
            bomb(&[x], &[("s", constant(&[1 << 40]))], vec![node("ConstantOfShape", &["s"], &["y"], vec![])]),
        ),
        (
            "ConstantOfShape beyond",
            bomb(&[x], &[("s", constant(&[1 << 41]))], vec![node("ConstantOfShape", &["s"], &["y"], vec![])]),
        ),
        (
            "constant arithmetic",
            bomb(&[x], &[("s", constant(&[1 << 38]))], vec![zeros(), node("Neg", &["c"], &["y"], vec![])]),
        ),
        (
            "transposed constant",
            bomb(
                &[x],
                &[("s", constant(&[big, big]))],
                vec![zeros(), node("Transpose", &["c"], &["d"], vec![]), node("Add", &["x", "d"], &["y"], vec![])],
            ),
        ),
        (
            "matrix of zeros",
            bomb(
                &["x:f32[1,1048576]"],
                &[("s", constant(&[big, big]))],
                vec![zeros(), node("MatMul", &["x", "c"], &["y"], vec![])],
            ),
        ),
        (
            "convolution with zeros",
            bomb(
                &["x:f32[1,65536,8,8]"],
                &[("s", constant(&[1 << 16, 1 << 16, 3, 3]))],
                vec![zeros(), node("Conv", &["x", "c"], &["y"], vec![])],
            ),
        ),
        ("Expand", bomb(&[x], &[("s", constant(&[big, big]))], vec![node("Expand", &["x", "s"], &["y"], vec![])])),
        ("Tile over and over", bomb(&[x], &[("two", constant(&[2]))], tiles(40))),
        ("Tile beyond", bomb(&[x], &[("two", constant(&[2]))], tiles(64))),
        (
            "Range",
            bomb(
                &[x],
                &[("a", scalar(0)), ("b", scalar(1 << 40)), ("d", scalar(1))],
                vec![node("Range", &["a", "b", "d"], &["y"], vec![])],
            ),
        ),
        (
            "OneHot",
            bomb(
                &["i:i64[4]"],
                &[("d", scalar(1 << 38)), ("v", f32s(&[2], 0.0))],
                vec![node("OneHot", &["i", "d", "v"], &["y"], vec![])],
            ),
        ),
        (
            "EyeLike",
            bomb(&[x], &[("s", constant(&[big, big]))], vec![zeros(), node("EyeLike", &["c"], &["y"], vec![])]),
        ),
        (
            "Resize",
            bomb(
                &["x:f32[1,1,2,2]"],
                &[("s", constant(&[1, 1, big, big]))],
                vec![node("Resize", &["x", "", "", "s"], &["y"], vec![])],
            ),
        ),
        ("Pad", bomb(&[x], &[("p", constant(&[1 << 39, 0]))], vec![node("Pad", &["x", "p"], &["y"], vec![])])),
        (
            "Einsum",
            bomb(
                &["x:f32[1048576]"],
                &[],
                vec![node("Einsum", &["x", "x"], &["y"], vec![string("equation", "a,b->ab")])],
            ),
        ),
        (
            "an arena of terabytes",
            bomb(
                &["x:f32[1048576,1]", "z:f32[1,1048576]"],
                &[("k", scalar(0))],
                vec![
                    node("Add", &["x", "z"], &["a"], vec![]),
                    node("CumSum", &["a", "k"], &["b"], vec![]),
                    node("ReduceMax", &["b"], &["y"], vec![]),
                ],
            ),
        ),
    ];
    for (name, proto) in models {
        let outcome = open(&proto.encode_to_vec());
        // Outputs that the caller has to provide are the caller's memory: such a model opens, and the run has no room.
        let error = match outcome {
            Err(e) => e,
            Ok(mut runner) => {
                let specs = runner.artefact().unwrap().inputs().to_vec();
                let shape = |dims: &[i64]| dims.iter().map(|&d| d as usize).collect::<Vec<_>>();
                let input = |s: &lehr::codegen::artefact::IoSpec| {
                    lehr_ir::tensor::seeded(if s.dtype == 1 { DType::F32 } else { DType::I64 }, shape(&s.dims), 1)
                };
                let inputs: Vec<Tensor> = specs.iter().map(input).collect();
                runner.run(&inputs).err().unwrap_or_else(|| panic!("{name}: it ran"))
            }
        };
        assert!(!error.is_empty() && error.len() < 1 << 16, "{name}");
        eprintln!("{name}: {}", error.lines().next().unwrap_or_default());
    }
}

/// What only the data decides is an error at run time that names the node, jitted and from a library.
#[test]
fn faults_of_the_data_name_their_node() {
    let cases = [
        ("Gather", node("Gather", &["x", "i"], &["y"], vec![])),
        ("GatherElements", node("GatherElements", &["x", "i"], &["y"], vec![])),
        ("GatherND", node("GatherND", &["x", "i"], &["y"], vec![])),
        ("ScatterElements", node("ScatterElements", &["x", "i", "u"], &["y"], vec![])),
        ("ScatterND", node("ScatterND", &["x", "i", "v"], &["y"], vec![])),
        ("Div", node("Div", &["i", "z"], &["y"], vec![])),
        ("Mod", node("Mod", &["i", "z"], &["y"], vec![])),
    ];
    let inputs = ["x:f32[4,3]", "i:i64[2,1]", "u:f32[2,1]", "v:f32[2,3]", "z:i64[1]"];
    let x = Tensor::from_f64(DType::F32, vec![4, 3], (0..12).map(f64::from));
    let (u, v) = (f32s(&[2, 1], 1.0), f32s(&[2, 3], 1.0));
    let index = |n: i128| Tensor::from_i128(DType::I64, vec![2, 1], [0, n]);
    let dir = tempfile::tempdir().unwrap();
    for (name, node) in cases {
        let proto = model(OPSET, &inputs, &[], vec![named(node)], &["y"]);
        let path = dir.path().join(format!("{name}.onnx"));
        std::fs::write(&path, proto.encode_to_vec()).unwrap();
        let graph = load(path.to_str().unwrap(), &LoadOptions::default()).unwrap().graph;
        for level in ["0", "2"] {
            let options = CompileOptions::new(level, "native").unwrap();
            let runners = [Runner::jit(graph.clone(), &options, 2), Runner::so(graph.clone(), &options, 2)];
            for mut runner in runners.into_iter().map(Result::unwrap) {
                let mut run = |i: i128, z: i128| {
                    let z = Tensor::from_i128(DType::I64, vec![1], [z]);
                    runner.run(&[x.clone(), index(i), u.clone(), v.clone(), z])
                };
                run(1, 1).unwrap();
                for bad in [4, -5, i64::MAX as i128, i64::MIN as i128] {
                    let why = if matches!(name, "Div" | "Mod") { run(bad, 0) } else { run(bad, 1) };
                    let why = why.err().unwrap_or_else(|| panic!("{name} -O{level}: {bad} passes"));
                    assert!(why.contains("culprit") && why.contains(name), "{name} -O{level}: {why}");
                }
                run(1, 1).unwrap_or_else(|e| panic!("{name}: a fault stays: {e}"));
            }
        }
    }
}

/// Indices that are no numbers are no index: the row is all off.
#[test]
fn one_hot_takes_any_number() {
    let nodes = vec![node("OneHot", &["x", "d", "v"], &["y"], vec![])];
    let weights = [("d", i64s(&[3])), ("v", Tensor::from_f64(DType::F32, vec![2], [0.0, 1.0]))];
    let mut runner = open(&model(OPSET, &["x:f32[6]"], &weights, nodes, &["y"]).encode_to_vec()).unwrap();
    let x = Tensor::from_f64(DType::F32, vec![6], [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, 1.0, -1e30]);
    let rows = runner.run(&[x]).unwrap()[0].to_f64();
    assert_eq!(rows[12..15], [0.0, 1.0, 0.0]);
    assert!(rows[..12].iter().chain(&rows[15..]).all(|v| *v == 0.0), "{rows:?}");
}

#[test]
fn libraries_that_are_cut_or_not_ours_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.so");
    let options = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let graph = load("zoo:lenet5", &options).unwrap().graph;
    lehr::compile_so(graph, &CompileOptions::default(), &path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut.so");
    for length in (0..200).chain((0..good.len()).step_by(good.len() / 60)) {
        std::fs::write(&cut, &good[..length]).unwrap();
        let why = Artefact::open(&cut).unwrap_err().to_string();
        assert!(why.contains("cut.so"), "{why}");
    }
    let this = std::env::current_exe().unwrap();
    assert!(Artefact::open(&this).unwrap_err().to_string().contains("no descriptor"));
    assert!(Artefact::open(dir.path()).is_err());
    assert!(Artefact::open(Path::new("/dev/null")).is_err());
}
