//! Networks of convolutions commute with shifts, borders apart; a global pool makes them blind to them.

use super::{ROUNDING, cases};
use lehr_frontends::layers::{Layer, pool};
use lehr_ir::ops::{BatchNorm, Conv, Pad, PadMode, ReduceFn, UnaryFn};
use lehr_ir::{DType, Graph, Tensor, TensorType, ValueId};
use lehr_tests::plain::{Grid, distance, noise, rolled};
use lehr_tests::sheet::compiled_on;
use proptest::prelude::*;

/// A fully convolutional network.
#[derive(Clone, Debug)]
struct Net {
    /// Channels after each layer.
    channels: Vec<usize>,
    kernel: usize,
    dilation: usize,
    seed: u64,
}

/// What lies beyond the border.
#[derive(Clone, Copy, PartialEq)]
enum Border {
    Cyclic,
    Zeros,
}

fn nets() -> impl Strategy<Value = Net> {
    (prop::collection::vec(1usize..36, 1..4), 1usize..4, 1usize..3, any::<u64>())
        .prop_map(|(channels, kernel, dilation, seed)| Net { channels, kernel, dilation, seed })
}

impl Net {
    /// How far the network sees to either side.
    fn radius(&self) -> usize {
        (self.kernel - 1) * self.dilation * self.channels.len()
    }

    /// Convolution with bias, an activation, and in the middle a batch normalisation, over and over.
    fn layers(&self, l: &mut Layer, x: ValueId, border: Border) -> ValueId {
        let mut y = x;
        for (i, &channels) in self.channels.iter().enumerate() {
            let inputs = l.ty(y).const_shape().expect("shapes are numbers")[1];
            // Variance 1/fan_in for matrices, lest numbers in between be much larger than results.
            let weights = |l: &mut Layer, shape: &[usize], kind: u64| {
                let scale = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
                l.constant(noise(DType::F32, shape, scale, self.seed ^ (i as u64 * 8 + kind)))
            };
            let w = weights(l, &[channels, inputs, self.kernel, self.kernel], 0);
            let b = weights(l, &[channels], 1);
            let reach = (self.kernel - 1) * self.dilation;
            let pads = match border {
                Border::Zeros => [reach / 2, reach - reach / 2],
                Border::Cyclic => {
                    let (before, after) = (vec![0, 0, 0, 0], vec![0, 0, reach as i64, reach as i64]);
                    y = l.op(Pad { before, after, mode: PadMode::Wrap }, &[y]).expect("an axis to wrap");
                    [0; 2]
                }
            };
            let pads = vec![pads[0], pads[0], pads[1], pads[1]];
            let op = Conv { strides: vec![1; 2], pads, dilations: vec![self.dilation; 2], groups: 1 };
            y = l.op(op, &[y, w, b]).expect("the window fits");
            if i == 0 {
                let [scale, bias, mean] = [2, 3, 4].map(|kind| weights(l, &[channels], kind));
                let var = l.constant(Tensor::from_f64(DType::F32, vec![channels], vec![0.5; channels]));
                y = l.op(BatchNorm { eps: 1e-5 }, &[y, scale, bias, mean, var]).expect("a number per channel");
            }
            let f = [UnaryFn::Relu, UnaryFn::Tanh, UnaryFn::Gelu][i % 3];
            y = l.unary(f, y).expect("floats");
        }
        y
    }

    /// What it makes of an image and of others, as one compiled network run on each.
    fn run(&self, xs: &[&Grid], border: Border, end: impl Fn(&mut Layer, ValueId) -> ValueId) -> Vec<Tensor> {
        let mut g = Graph::new("net");
        let x = g.add_input("x", TensorType::new(DType::F32, xs[0].shape.map(|n| n as i64)));
        let mut l = Layer::new(&mut g, "net");
        let y = self.layers(&mut l, x, border);
        let y = end(&mut l, y);
        g.add_output("y", y);
        let xs: Vec<Tensor> = xs.iter().map(|x| x.tensor(DType::F32)).collect();
        let runs: Vec<&[Tensor]> = xs.iter().map(std::slice::from_ref).collect();
        compiled_on(&g, &runs).into_iter().flatten().collect()
    }
}

fn images() -> impl Strategy<Value = Grid> {
    (1usize..5, 7usize..15, 7usize..15, any::<u64>())
        .prop_map(|(c, h, w, seed)| Grid::of(&noise(DType::F32, &[1, c, h, w], 1.0, seed)))
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn convolutions_are_equivariant(net in nets(), x in images(), by in [0usize..15, 0..15]) {
        let ys = net.run(&[&x, &rolled(&x, by)], Border::Cyclic, |_, y| y);
        let error = distance(&rolled(&Grid::of(&ys[0]), by).values, &ys[1].to_f64());
        prop_assert!(error < ROUNDING, "{error:e}");
    }

    #[test]
    fn a_global_pool_makes_them_invariant(net in nets(), x in images(), by in [0usize..15, 0..15]) {
        let shifted = rolled(&x, by);
        for f in [ReduceFn::Mean, ReduceFn::Max, ReduceFn::L2] {
            let ys = net.run(&[&x, &shifted], Border::Cyclic, |l, y| match f {
                ReduceFn::Mean => pool::global_average(l, y).expect("an image"),
                f => l.reduce(f, y, vec![2, 3]).expect("an image"),
            });
            let error = distance(&ys[0].to_f64(), &ys[1].to_f64());
            prop_assert!(error < ROUNDING, "{f:?}: {error:e}");
        }
    }

    /// With zeros beyond the border, what lies far enough inside is equivariant still; at the border it is not.
    #[test]
    fn padding_by_zeros_breaks_the_border_alone(seed: u64, channels in 4usize..20) {
        let net = Net { channels: vec![channels, channels], kernel: 3, dilation: 1, seed };
        let x = Grid::of(&noise(DType::F32, &[1, 2, 16, 17], 1.0, seed ^ 77));
        let by = [2, 1];
        let ys = net.run(&[&x, &rolled(&x, by)], Border::Zeros, |_, y| y);
        let (a, b) = (rolled(&Grid::of(&ys[0]), by), Grid::of(&ys[1]));
        let inside = |i: usize, n: usize, by: usize| (net.radius() + by..n - net.radius()).contains(&i);
        let (mut within, mut beyond) = (0.0f64, 0.0f64);
        let largest = a.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        Grid::make(a.shape, |at| {
            let error = (a.at(at) - b.at(at)).abs() / largest;
            let side = if inside(at[2], 16, by[0]) && inside(at[3], 17, by[1]) { &mut within } else { &mut beyond };
            *side = side.max(error);
            0.0
        });
        prop_assert!(within < ROUNDING, "inside: {within:e}");
        prop_assert!(beyond > 1e-2, "at the border: {beyond:e}");
    }
}
