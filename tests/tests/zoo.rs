//! Every network of the zoo at a small size: the evaluator, code in this process and a library agree.

use lehr::ir::{DType, Graph, Tensor, tensor};
use lehr::{CompileOptions, LoadOptions, Runner, compile_so, load};
use lehr_frontends::zoo;
use lehr_tests::compare::difference;

/// One specification a line; the test against ONNX Runtime reads the same list.
const SMALL: &str = include_str!("../zoo.txt");

fn specs() -> impl Iterator<Item = &'static str> {
    SMALL.lines().filter(|line| !line.starts_with('#'))
}

fn network(spec: &str) -> Graph {
    let options = LoadOptions { dims: vec![("batch".into(), 2)], ..LoadOptions::default() };
    load(&format!("zoo:{spec}"), &options).unwrap_or_else(|e| panic!("{e}")).graph
}

fn input(graph: &Graph) -> Tensor {
    let shape = graph.ty(graph.inputs()[0]).const_shape().unwrap();
    tensor::seeded(DType::F32, shape, 17)
}

#[test]
fn every_network_is_in_the_list() {
    for network in zoo::NETWORKS {
        let listed = specs().any(|s| s.split('?').next() == Some(network.name));
        assert!(listed, "tests/zoo.txt has no line for {}", network.name);
    }
}

#[test]
fn evaluator_jit_and_library_agree() {
    let dir = tempfile::tempdir().unwrap();
    for (k, spec) in specs().enumerate() {
        let graph = network(spec);
        let x = [input(&graph)];
        let expected = Runner::eval(graph.clone()).run(&x).unwrap();
        let spread = |t: &Tensor| t.to_f64().iter().fold(0f64, |m, v| m.max(v.abs()));
        assert!(expected.iter().all(|t| (1e-3..1e4).contains(&spread(t))), "{spec}: outputs tell nothing");
        for level in ["0", "2"] {
            let options = CompileOptions::new(level, "native").unwrap();
            let jit = Runner::jit(graph.clone(), &options, 2).unwrap().run(&x).unwrap();
            for (e, g) in expected.iter().zip(&jit) {
                // f32 sums in another order; Winograd's transforms at -O2.
                if let Some(what) = difference(e, g, 5e-5) {
                    panic!("{spec} -O{level}: {what}");
                }
            }
            let path = dir.path().join(format!("{k}-{level}.so"));
            compile_so(graph.clone(), &options, &path).unwrap();
            assert_eq!(Runner::open(&path, 1).unwrap().run(&x).unwrap(), jit, "{spec} -O{level}: library");
        }
    }
}

#[test]
fn a_harmonic_network_gives_turned_images_the_same_logits() {
    let graph = network("hnet?input=28");
    let x = input(&graph);
    let mut model = Runner::jit(graph, &CompileOptions::default(), 1).unwrap();
    let upright = model.run(std::slice::from_ref(&x)).unwrap();
    // A quarter turn counterclockwise: element (r, c) comes from (c, 27 - r).
    let values = x.to_f64();
    let turned = values.chunks(28 * 28).flat_map(|image| (0..28 * 28).map(|i| image[(i % 28) * 28 + 27 - i / 28]));
    let turned = Tensor::from_f64(DType::F32, x.shape().to_vec(), turned);
    assert_ne!(turned, x);
    let after = model.run(&[turned]).unwrap();
    assert_eq!(difference(&upright[0], &after[0], 1e-5), None);
}
