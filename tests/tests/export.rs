//! Written as ONNX and read again, a graph computes the same.

use lehr::ir::graph::Graph;
use lehr::ir::{Dim, Op, Tensor, tensor, text as ir_text};
use lehr::{LoadOptions, Runner, load};
use lehr_frontends::onnx::{ImportOptions, Model, export, import};
use lehr_tests::random_graph::{Constants, random_graph};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn read_again(graph: &Graph) -> Result<Graph, String> {
    let bytes = export(graph).map_err(|d| d[0].to_string())?.to_vec();
    assert_eq!(bytes, export(graph).unwrap().to_vec(), "the same graph, other bytes");
    let model = Model::from_bytes(bytes.into(), None).map_err(|d| d.to_string())?;
    let imported = import(&model, &ImportOptions::default()).map_err(|e| format!("{:?}", e.diags))?;
    assert!(imported.warnings.is_empty(), "{:?}", imported.warnings);
    Ok(imported.graph)
}

fn interface(graph: &Graph) -> Vec<String> {
    let inputs = graph.inputs().iter().map(|&v| format!("{} {}", graph.value_name(v).unwrap(), graph.ty(v)));
    inputs.chain(graph.outputs.iter().map(|o| format!("{} {}", o.name, graph.ty(o.value)))).collect()
}

fn evaluated(graph: &Graph) -> Option<Vec<Tensor>> {
    let bound = graph.bind(&|_| Some(Dim::Const(2))).ok()?;
    let types: Option<Vec<_>> =
        bound.inputs().iter().map(|&v| Some((bound.ty(v).dtype, bound.ty(v).const_shape()?))).collect();
    let inputs: Vec<Tensor> = types?.into_iter().map(|(dtype, shape)| tensor::seeded(dtype, shape, 3)).collect();
    Runner::eval(bound).run(&inputs).ok()
}

#[test]
fn zoo_networks_keep_their_interface_weights_and_results() {
    let specs = include_str!("../zoo.txt").lines().filter(|line| !line.starts_with('#'));
    for spec in specs {
        let graph = load(&format!("zoo:{spec}"), &LoadOptions::default()).unwrap().graph;
        let again = read_again(&graph).unwrap_or_else(|why| panic!("{spec}: {why}"));
        assert_eq!(interface(&again), interface(&graph), "{spec}");
        let names = |g: &Graph| -> BTreeSet<String> {
            let constants = g.ids().filter(|&id| matches!(g.node(id).op, Op::Const(_)));
            constants.filter_map(|id| g.value_name(id.out(0))).map(str::to_string).collect()
        };
        assert!(names(&again).is_superset(&names(&graph)), "{spec}: a weight lost its name");
        assert_eq!(evaluated(&again), evaluated(&graph), "{spec}");
    }
}

/// What no node of opset 21 stands for, or no network has needed yet; conv_transpose with negative padding alone.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "batch_norm_train", "conv_transpose", "cum_sum", "eye", "gather_elements", "gather_nd", "is_inf", "log1p", "mod", "nll_loss",
    "one_hot", "range", "resize", "scatter_elements", "scatter_nd", "shape_of", "shift_left", "shift_right", "size_of",
    "softmax_cross_entropy", "swish", "tile", "top_k", "trilu",
];

/// Every graph of the type-inference tests, which have every operator with all its attributes.
#[test]
fn every_operator_is_written_in_its_meaning_or_refused_by_name() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("filetests/infer");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "lehr") && !f.to_str().unwrap().contains("_errors"));
    files.sort();
    let mut written = 0;
    let mut refused = BTreeSet::new();
    for file in files {
        // Without the lines that are wrong on purpose.
        let text = std::fs::read_to_string(&file).unwrap();
        let sound: String = text.lines().filter(|l| !l.contains("; error:")).map(|l| format!("{l}\n")).collect();
        let graph = ir_text::parse(&sound, &|_| None).unwrap_or_else(|d| panic!("{}: {d:?}", file.display()));
        // One operator at a time: a refusal must not hide the others.
        for id in graph.ids().filter(|&id| !graph.node(id).op.is_source()) {
            let mut one = Graph::new("one");
            let node = graph.node(id);
            if !node.regions.is_empty() {
                continue;
            }
            let mut operands = vec![];
            for (k, v) in node.inputs.iter().enumerate() {
                operands.push(v.map(|v| one.add_input(&format!("x{k}"), graph.ty(v).clone())));
            }
            let new = one.add(node.op.clone(), &operands, vec![]).unwrap();
            for port in 0..node.results.len() {
                one.add_output(&format!("y{port}"), new.out(port as u32));
            }
            match export(&one) {
                Err(diags) => {
                    assert_eq!(diags.len(), 1, "{diags:?}");
                    assert!(diags[0].message.contains(node.op.name()), "{}", diags[0]);
                    refused.insert(node.op.name());
                }
                Ok(_) => {
                    let again =
                        read_again(&one).unwrap_or_else(|why| panic!("{}: {}: {why}", file.display(), node.op.name()));
                    assert_eq!(interface(&again), interface(&one), "{}", node.op.name());
                    assert_eq!(evaluated(&again), evaluated(&one), "{}", node.op.name());
                    written += 1;
                }
            }
        }
    }
    assert!(written > 100, "{written} nodes");
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), REFUSED);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_graphs_compute_the_same(choices in prop::collection::vec(any::<u8>(), 0..200)) {
        let graph = random_graph(&choices, Constants::Ordinary);
        let again = read_again(&graph);
        match (evaluated(&graph), again) {
            (Some(expected), Ok(again)) => prop_assert_eq!(evaluated(&again), Some(expected)),
            // Some graphs fit a batch of 2 only in what no output needs, which is not written.
            (None, Ok(_)) => {}
            (_, Err(why)) => prop_assert!(why.contains("cannot be written"), "{}", why),
        }
    }
}
