//! What layers refuse, and how they say it.

use lehr_frontends::layers::dropout::dropout;
use lehr_frontends::layers::loss::{self, Reduction};
use lehr_frontends::layers::pool::{Blur, blur, max_blur};
use lehr_frontends::layers::{Layer, Result, activation, conv, norm, ranking};
use lehr_ir::{DType, Dim, Graph, TensorType, ValueId};

fn input(g: &mut Graph, dtype: DType, shape: &[i64]) -> ValueId {
    g.add_input("x", TensorType::new(dtype, shape.iter().copied()))
}

#[test]
fn parameters_and_types_that_make_no_sense() {
    let mut g = Graph::new("refused");
    let x = input(&mut g, DType::F32, &[2, 3, 4, 5]);
    let flat = input(&mut g, DType::F32, &[4, 5]);
    let scalar = input(&mut g, DType::F32, &[]);
    let ints = input(&mut g, DType::I64, &[4, 5]);
    let seed = input(&mut g, DType::I64, &[]);
    let open = g.add_input("open", TensorType::new(DType::F32, [2.into(), Dim::symbol("c"), 4.into(), 4.into()]));
    let mut l = Layer::new(&mut g, "stem");
    let statistics = norm::Statistics { mean: flat, var: flat };
    let refusals: Vec<(&str, Result<()>)> = vec![
        ("softplus.c1", activation::softplus(&mut l, x, 0.0).map(|_| ())),
        ("softplus.c1", activation::softplus(&mut l, x, f64::INFINITY).map(|_| ())),
        ("softplus.c1", activation::softplus(&mut l, x, f64::NAN).map(|_| ())),
        ("unary.c1", activation::log_sigmoid(&mut l, seed).map(|_| ())),
        ("prelu.c1", activation::prelu(&mut l, x, flat).map(|_| ())),
        ("smooth_l1.c1", loss::smooth_l1(&mut l, flat, flat, -1.0, Reduction::Sum).map(|_| ())),
        ("layer.types", loss::l2(&mut l, flat, scalar, Reduction::Sum).map(|_| ())),
        ("layer.types", loss::l1(&mut l, flat, ints, Reduction::Sum).map(|_| ())),
        ("loss.c3", loss::binary_cross_entropy(&mut l, flat, flat, Some(x), Reduction::Sum).map(|_| ())),
        ("loss.c4", loss::batch_mean(&mut l, scalar).map(|_| ())),
        ("ranking.c1", ranking::cosine_embedding(&mut l, [scalar; 2], scalar, 0.0, Reduction::Sum).map(|_| ())),
        ("layer.types", ranking::cosine_embedding(&mut l, [flat; 2], flat, 0.0, Reduction::Sum).map(|_| ())),
        ("dropout.c2", dropout(&mut l, x, 1.5, seed).map(|_| ())),
        ("dropout.c2", dropout(&mut l, x, f64::NAN, seed).map(|_| ())),
        ("dropout.c3", dropout(&mut l, x, 0.5, scalar).map(|_| ())),
        ("layer.floats", dropout(&mut l, ints, 0.5, seed).map(|_| ())),
        ("blur.c1", blur(&mut l, flat, Blur::default()).map(|_| ())),
        ("blur.c1", blur(&mut l, open, Blur::default()).map(|_| ())),
        ("blur.c2", blur(&mut l, x, Blur { stride: 0, ..Blur::default() }).map(|_| ())),
        ("blur.c2", blur(&mut l, x, Blur { taps: 0, ..Blur::default() }).map(|_| ())),
        ("blur.c3", blur(&mut l, x, Blur { taps: 8, ..Blur::default() }).map(|_| ())),
        ("blur.c2", max_blur(&mut l, x, 0, Blur::default()).map(|_| ())),
        ("separable.c1", conv::depthwise_separable(&mut l, open, x, x, conv::plain(2)).map(|_| ())),
        ("batch_norm.c1", norm::batch_norm(&mut l, open, (flat, flat), statistics, Default::default()).map(|_| ())),
    ];
    for (code, got) in refusals {
        let diag = got.expect_err(code);
        assert_eq!(diag.code, code, "{diag}");
        assert!(diag.to_string().contains("'stem'"), "the layer is not named: {diag}");
    }
}

#[test]
fn the_nodes_carry_the_name_of_the_layer() {
    let mut g = Graph::new("names");
    let x = input(&mut g, DType::F32, &[2, 3]);
    let y = activation::softplus(&mut Layer::new(&mut g, "head"), x, 2.0).unwrap();
    g.add_output("y", y);
    let computed: Vec<_> = g.ids().filter(|&id| !g.node(id).op.is_source()).collect();
    assert_eq!(computed.len(), 6);
    assert!(computed.iter().all(|&id| &*g.node(id).origins[0].name == "head"));
}
