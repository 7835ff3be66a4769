//! Pooling with a stride breaks shift equivariance; blurring before the stride mends it: wholly under a global average, for
//! the most part in a deeper network. Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019).

use super::{ROUNDING, cases};
use lehr_frontends::layers::Layer;
use lehr_frontends::layers::pool::{Blur, global_average, max_blur};
use lehr_ir::ops::{Conv, MaxPool, Pad, PadMode, UnaryFn};
use lehr_ir::{DType, Graph, Tensor, TensorType, ValueId};
use lehr_tests::plain::{Grid, distance, noise, rolled};
use lehr_tests::sheet::compiled_on;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pooling {
    /// 2x2 maxima at every second place.
    Strided,
    /// 2x2 maxima at every place, blurred, and every second one taken.
    Blurred,
}

impl Pooling {
    fn apply(self, l: &mut Layer, x: ValueId) -> ValueId {
        match self {
            Pooling::Strided => {
                let (kernel, strides, dilations) = (vec![2; 2], vec![2; 2], vec![1; 2]);
                let op =
                    MaxPool { kernel, strides, pads: vec![0; 4], dilations, ceil_mode: false, column_major: false };
                l.op(op, &[x]).expect("the window fits")
            }
            Pooling::Blurred => {
                let blur = Blur { taps: 3, stride: 2, border: PadMode::Wrap };
                max_blur(l, x, 2, blur).expect("an image")
            }
        }
    }
}

/// A cyclic 3x3 convolution with ReLU.
fn conv(l: &mut Layer, x: ValueId, channels: usize, seed: u64) -> ValueId {
    let inputs = l.ty(x).const_shape().expect("shapes are numbers")[1];
    // As He has it: a variance of 2/fan_in, of uniform noise.
    let scale = (6.0 / (9 * inputs) as f64).sqrt();
    let w = l.constant(noise(DType::F32, &[channels, inputs, 3, 3], scale, seed));
    let around = || vec![0, 0, 1, 1];
    let x = l.op(Pad { before: around(), after: around(), mode: PadMode::Wrap }, &[x]).expect("an axis to wrap");
    let op = Conv { strides: vec![1; 2], pads: vec![0; 4], dilations: vec![1; 2], groups: 1 };
    let y = l.op(op, &[x, w]).expect("the window fits");
    l.unary(UnaryFn::Relu, y).expect("floats")
}

fn run(xs: &[Grid], f: impl Fn(&mut Layer, ValueId) -> ValueId) -> Vec<Tensor> {
    let mut g = Graph::new("net");
    let x = g.add_input("x", TensorType::new(DType::F32, xs[0].shape.map(|n| n as i64)));
    let y = f(&mut Layer::new(&mut g, "net"), x);
    g.add_output("y", y);
    let xs: Vec<Tensor> = xs.iter().map(|x| x.tensor(DType::F32)).collect();
    let runs: Vec<&[Tensor]> = xs.iter().map(std::slice::from_ref).collect();
    compiled_on(&g, &runs).into_iter().flatten().collect()
}

/// The paper's example: a square wave of period 4, and the same shifted by one.
#[test]
fn a_square_wave_survives_a_shift_only_when_blurred() {
    let wave = Grid::make([1, 1, 8, 8], |[_, _, _, j]| [0.0, 0.0, 1.0, 1.0][j % 4]);
    let xs = [wave.clone(), rolled(&wave, [0, 7])];
    let rows = |pooling: Pooling| {
        run(&xs, |l, x| pooling.apply(l, x)).iter().map(|y| y.to_f64()[..4].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(rows(Pooling::Strided), [[0.0, 1.0, 0.0, 1.0], [1.0; 4]]);
    assert_eq!(rows(Pooling::Blurred), [[0.5, 1.0, 0.5, 1.0], [0.75; 4]]);
}

/// How much a network of two pools and a global average changes with its input's shifts, of how much it varies at all.
fn unsteadiness(pooling: Pooling, seed: u64) -> f64 {
    let x = Grid::of(&noise(DType::F32, &[1, 3, 16, 16], 1.0, seed));
    let shifts: Vec<Grid> = (0..4).flat_map(|i| (0..4).map(move |j| [i, j])).map(|by| rolled(&x, by)).collect();
    let ys = run(&shifts, |l, x| {
        let y = conv(l, x, 16, seed ^ 1);
        let y = pooling.apply(l, y);
        let y = conv(l, y, 32, seed ^ 2);
        let y = pooling.apply(l, y);
        global_average(l, y).expect("an image")
    });
    let ys: Vec<Vec<f64>> = ys.iter().map(Tensor::to_f64).collect();
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let changes = ys[1..].iter().map(|y| length(&y.iter().zip(&ys[0]).map(|(a, b)| a - b).collect::<Vec<_>>()));
    changes.fold(0.0, f64::max) / length(&ys[0])
}

/// Measured over sixty seeds: shifts change the strided network by 6.7 to 16.2 %, the blurred one by 1.6 to 6.3 %, which is 0.18 to 0.46
/// (on average 0.29) of it.
#[test]
fn blurring_mends_most_of_a_deeper_network() {
    for seed in 0..12 {
        let [strided, blurred] = [Pooling::Strided, Pooling::Blurred].map(|p| unsteadiness(p, seed));
        assert!(strided > 0.02, "seed {seed}: a shift changes the strided network by {strided}");
        assert!(blurred < strided / 2.0, "seed {seed}: blurred {blurred}, strided {strided}");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// Both are equivariant to shifts by their stride.
    #[test]
    fn shifts_by_the_stride_pass(c in 1usize..20, [h, w] in [3usize..8, 3..8], [i, j] in [0usize..8, 0..8], seed: u64) {
        let x = Grid::of(&noise(DType::F32, &[1, c, 2 * h, 2 * w], 1.0, seed));
        let xs = [x.clone(), rolled(&x, [2 * i, 2 * j])];
        for pooling in [Pooling::Strided, Pooling::Blurred] {
            let ys = run(&xs, |l, x| pooling.apply(l, x));
            let error = distance(&rolled(&Grid::of(&ys[0]), [i, j]).values, &ys[1].to_f64());
            prop_assert!(error < ROUNDING, "{pooling:?}: {error:e}");
        }
    }

    /// Under a global average the phase of the stride shows in one and not in the other: binomial weights have no response at the
    /// highest frequency, which is what tells the phases apart.
    #[test]
    fn odd_shifts_show_unless_blurred(c in 4usize..20, [h, w] in [4usize..8, 4..8], seed: u64, down: bool) {
        let x = Grid::of(&noise(DType::F32, &[1, c, 2 * h, 2 * w], 1.0, seed));
        let xs = [x.clone(), rolled(&x, if down { [1, 0] } else { [0, 1] })];
        let error = |pooling: Pooling| {
            let ys = run(&xs, |l, x| {
                let y = pooling.apply(l, x);
                global_average(l, y).expect("an image")
            });
            distance(&ys[0].to_f64(), &ys[1].to_f64())
        };
        let (strided, blurred) = (error(Pooling::Strided), error(Pooling::Blurred));
        prop_assert!(strided > 1e-4, "strided: {strided:e}");
        prop_assert!(blurred < ROUNDING, "blurred: {blurred:e}");
    }
}
