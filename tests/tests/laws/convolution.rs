//! Convolution with its kernel flipped is commutative, associative and distributive; correlation is convolution by the
//! flipped kernel.

use super::{ROUNDING, cases};
use lehr_frontends::layers::Layer;
use lehr_frontends::layers::conv::{convolution, plain};
use lehr_ir::ops::{BinaryFn, Conv, Transpose};
use lehr_ir::{DType, Graph, Tensor, ValueId};
use lehr_tests::plain::{Grid, distance, noise, turned};
use lehr_tests::sheet::compiled;
use proptest::prelude::*;

/// A graph whose outputs should be equal: `f` gives them from the inputs.
fn outputs(inputs: &[&Tensor], f: impl Fn(&mut Layer, &[ValueId]) -> Vec<ValueId>) -> Vec<Vec<f64>> {
    let mut g = Graph::new("law");
    let vs: Vec<ValueId> = inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
    let ys = f(&mut Layer::new(&mut g, "law"), &vs);
    ys.iter().enumerate().for_each(|(i, &y)| g.add_output(&format!("y{i}"), y));
    let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    compiled(&g, &inputs).iter().map(Tensor::to_f64).collect()
}

/// The convolution whose result has every place where the two overlap.
fn full(l: &mut Layer, x: ValueId, w: ValueId) -> ValueId {
    let size = l.ty(w).const_shape().expect("shapes are numbers");
    let pads = vec![size[2] - 1, size[3] - 1, size[2] - 1, size[3] - 1];
    convolution(l, x, w, None, Conv { pads, ..plain(2) }).expect("the shapes go together")
}

fn add(l: &mut Layer, x: ValueId, y: ValueId) -> ValueId {
    l.binary(BinaryFn::Add, x, y).expect("the shapes are equal")
}

fn swapped(l: &mut Layer, x: ValueId) -> ValueId {
    l.op(Transpose { perm: vec![1, 0, 2, 3] }, &[x]).expect("four axes")
}

fn equal(ys: &[Vec<f64>]) -> Result<(), TestCaseError> {
    prop_assert!(ys[0].iter().any(|&y| y.abs() > 1e-6), "nothing but zeros is compared");
    for y in &ys[1..] {
        let error = distance(&ys[0], y);
        prop_assert!(error < ROUNDING, "{error:e}");
    }
    Ok(())
}

fn sizes(max: usize) -> impl Strategy<Value = [usize; 2]> {
    [1..=max, 1..=max]
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn it_commutes([a, b] in sizes(12), [c, d] in sizes(7), seed: u64) {
        let f = noise(DType::F32, &[1, 1, a, b], 1.0, seed);
        let g = noise(DType::F32, &[1, 1, c, d], 1.0, seed ^ 1);
        equal(&outputs(&[&f, &g], |l, v| vec![full(l, v[0], v[1]), full(l, v[1], v[0])]))?;
    }

    /// `(x * g) * h = x * (g * h)` with channels: the kernels' convolution sums over those between.
    #[test]
    fn it_associates(
        [a, b] in sizes(9), [c, d] in sizes(4), [e, f] in sizes(4), channels in [1usize..5, 1..9, 1..5], seed: u64
    ) {
        let [inputs, middle, outs] = channels;
        let x = noise(DType::F32, &[2, inputs, a, b], 1.0, seed);
        let g = noise(DType::F32, &[middle, inputs, c, d], 1.0, seed ^ 1);
        let h = noise(DType::F32, &[outs, middle, e, f], 1.0, seed ^ 2);
        equal(&outputs(&[&x, &g, &h], |l, v| {
            let first = full(l, v[0], v[1]);
            let one_by_one = full(l, first, v[2]);
            // g's kernels are images of `middle` channels, one for each input.
            let images = swapped(l, v[1]);
            let kernels = full(l, images, v[2]);
            let kernels = swapped(l, kernels);
            vec![one_by_one, full(l, v[0], kernels)]
        }))?;
    }

    #[test]
    fn it_distributes_over_kernels_and_images(
        [a, b] in sizes(10), [c, d] in sizes(4), channels in [1usize..20, 1..20], seed: u64, factor in -4.0f32..4.0
    ) {
        let [inputs, outs] = channels;
        let [x, z] = [0, 1].map(|i| noise(DType::F32, &[1, inputs, a, b], 1.0, seed ^ i));
        let [g, h] = [2, 3].map(|i| noise(DType::F32, &[outs, inputs, c, d], 1.0, seed ^ i));
        let inputs = [&x, &z, &g, &h];
        equal(&outputs(&inputs, |l, v| {
            let kernels = add(l, v[2], v[3]);
            let (one, two) = (full(l, v[0], v[2]), full(l, v[0], v[3]));
            vec![full(l, v[0], kernels), add(l, one, two)]
        }))?;
        equal(&outputs(&inputs, |l, v| {
            let images = add(l, v[0], v[1]);
            let (one, two) = (full(l, v[0], v[2]), full(l, v[1], v[2]));
            vec![full(l, images, v[2]), add(l, one, two)]
        }))?;
        equal(&outputs(&inputs, |l, v| {
            let by = f64::from(factor);
            let image = l.with(BinaryFn::Mul, v[0], by).expect("a number times an image");
            let kernel = l.with(BinaryFn::Mul, v[2], by).expect("a number times a kernel");
            let y = full(l, v[0], v[2]);
            let after = l.with(BinaryFn::Mul, y, by).expect("a number times a result");
            vec![after, full(l, image, v[2]), full(l, v[0], kernel)]
        }))?;
    }

    /// In all its forms: with constant kernels, which are packed for leaves, and with kernels that come with the data.
    #[test]
    fn correlation_is_convolution_by_the_flipped_kernel(
        [a, b] in [6usize..14, 6..14], [c, d] in sizes(3), stride in 1usize..3, dilation in 1usize..3, pads in [0usize..3, 0..3],
        channels in [1usize..20, 1..20], seed: u64
    ) {
        let [inputs, outs] = channels;
        let x = noise(DType::F32, &[1, inputs, a, b], 1.0, seed);
        let w = Grid::of(&noise(DType::F32, &[outs, inputs, c, d], 1.0, seed ^ 1));
        let (straight, flipped) = (w.tensor(DType::F32), turned(&w).tensor(DType::F32));
        let op = Conv { strides: vec![stride; 2], pads: [pads, pads].concat(), dilations: vec![dilation; 2], groups: 1 };
        equal(&outputs(&[&x, &straight, &flipped], |l, v| {
            let [constant, constant_flipped] = [&straight, &flipped].map(|w| l.constant(w.clone()));
            let correlate = |l: &mut Layer, w| l.op(op.clone(), &[v[0], w]).expect("the window fits");
            let convolve = |l: &mut Layer, w| convolution(l, v[0], w, None, op.clone()).expect("the window fits");
            vec![correlate(l, v[1]), convolve(l, v[2]), correlate(l, constant), convolve(l, constant_flipped)]
        }))?;
    }
}
