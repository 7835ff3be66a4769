//! Random small networks as convolutional layers have them: channels that fill blocks and that do not, windows of every stride,
//! dilation and uneven padding, groups, concatenations, shuffles and slices of channels, residuals, scales per channel and per image,
//! normalisations, products, and whatever is between them.

use crate::choices::Choices;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Dim, Op, Tensor, TensorType};

/// Channels in the order of how many blocks of 8 and 16 lanes they fill.
const CHANNELS: [usize; 16] = [1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 40, 48];
/// How large the networks are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Channels to choose from.
    pub channels: [usize; 16],
    /// Pixels along each axis of images of rank 3, 4 and 5 at most.
    pub pixels: [usize; 3],
    /// Tensors with more elements are left out.
    pub elements: usize,
    /// Multiply-adds of one operator that the evaluator can be asked for.
    pub work: usize,
}

/// Quickly evaluated.
pub const SMALL: Sizes = Sizes { channels: CHANNELS, pixels: [40, 17, 7], elements: 40_000, work: 4_000_000 };

/// A network under construction.
struct Net<'c> {
    c: Choices<'c>,
    sizes: Sizes,
    g: Graph,
    values: Vec<ValueId>,
    seed: u64,
    convs: Vec<(Vec<usize>, ValueId)>,
}

/// The network that the choices lead to.
pub fn random_net(choices: &[u8], sizes: Sizes) -> Graph {
    let mut c = Choices::new(choices);
    let rank = [4, 4, 4, 3, 5][c.below(5)];
    let mut shape = vec![[1, 1, 2, 3][c.below(4)], sizes.channels[c.below(16)]];
    (2..rank).for_each(|_| shape.push(1 + c.below(sizes.pixels[rank - 3])));
    let mut n = Net { c, sizes, g: Graph::new("random"), values: vec![], seed: 0, convs: vec![] };
    let ty = TensorType::new(DType::F32, shape.iter().map(|&d| d as i64));
    n.values.push(n.g.add_input("x", ty.clone()));
    if n.c.below(4) == 0 {
        n.values.push(n.g.add_input("z", ty));
    }
    // Something to work on in blocks.
    if n.c.below(4) > 0 {
        n.step(0);
    }
    for _ in 0..2 + n.c.below(9) {
        let kind = n.c.below(42);
        n.step(kind);
    }
    n.outputs();
    n.g
}

/// A network of square convolutions that Winograd's algorithm can compute, of any padding, and of what stands around them.
pub fn random_squares(choices: &[u8], sizes: Sizes) -> Graph {
    let c = Choices::new(choices);
    let mut n = Net { c, sizes, g: Graph::new("squares"), values: vec![], seed: 0, convs: vec![] };
    let shape = [1 + n.c.below(3), 1 + n.c.below(40), 3 + n.c.below(26), 3 + n.c.below(26)];
    n.values.push(n.g.add_input("x", TensorType::new(DType::F32, shape.map(|d| d as i64))));
    n.conv_of(n.values[0], true);
    for _ in 0..2 + n.c.below(8) {
        let x = n.value();
        let image = n.shape(x).len() == 4;
        match n.c.below(12) {
            0..=3 if image => n.square(x),
            4 if image => n.residual(x),
            _ => {
                let kind = [9, 12, 15, 19, 21, 24, 26, 33, 37, 39][n.c.below(10)];
                n.step(kind)
            }
        };
    }
    n.outputs();
    n.g
}

/// Seeded inputs of the graph's types.
pub fn inputs(g: &Graph, seed: u64) -> Vec<Tensor> {
    let types = g.inputs().iter().map(|&v| g.ty(v).const_shape().expect("numbers"));
    types.enumerate().map(|(i, shape)| seeded(DType::F32, shape, seed + i as u64)).collect()
}

impl Net<'_> {
    /// The last value, and perhaps others.
    fn outputs(&mut self) {
        for i in 0..1 + self.c.below(3) {
            let v = if i == 0 { self.values[self.values.len() - 1] } else { self.value() };
            self.g.add_output(&format!("y{i}"), v);
        }
    }

    /// Mostly the last one.
    fn value(&mut self) -> ValueId {
        let last = self.values.len() - 1;
        let at = if self.c.below(3) > 0 { last } else { self.c.below(last + 1) };
        self.values[at]
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.g.ty(v).const_shape().expect("all shapes are numbers")
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    fn number(&mut self, x: f64) -> ValueId {
        self.g.add_const(ConstValue::Dense { tensor: Tensor::scalar_f64(DType::F32, x), name: None })
    }

    /// The result, if the operator fits.
    fn try_add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        let v = self.g.add1(op, inputs, vec![]).ok()?;
        (self.shape(v).iter().product::<usize>() <= self.sizes.elements).then_some(v)
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        let v = self.try_add(op, inputs)?;
        self.values.push(v);
        Some(v)
    }

    fn step(&mut self, kind: usize) -> Option<ValueId> {
        let x = self.value();
        let shape = self.shape(x);
        let rank = shape.len();
        let image = (3..=5).contains(&rank);
        if rank == 0 {
            return self.unary(x);
        }
        match kind {
            0..=8 if image => self.conv(x),
            9..=11 if image => self.pool(x),
            12..=14 => self.unary(x),
            15..=18 => self.binary(x),
            19 | 20 if image => self.affine(x),
            21..=23 => self.concat(x),
            24 | 25 if image => self.slice(x),
            26 if image => self.shuffle(x),
            27 => self.reduce(x),
            28 if image => self.pad(x),
            29 => self.move_data(x),
            30 => self.product(x),
            31 => self.rows(x),
            32 if image => {
                let op =
                    Lrn { size: 1 + self.c.below(7), alpha: 0.1, beta: [0.75, 0.5, 1.0][self.c.below(3)], bias: 1.0 };
                self.add(op, &[x])
            }
            33 if image => self.excite(x),
            34 if image => self.transposed(x),
            35 if image => self.resize(x),
            36 => self.pick(x),
            37 | 38 if image => {
                self.affine(x);
                let y = self.values[self.values.len() - 1];
                let y = self.add(Unary { f: UnaryFn::Relu }, &[y])?;
                self.conv_of(y, true)
            }
            39 if image => self.sum_with_own(x),
            _ => self.residual(x),
        }
    }

    fn conv(&mut self, x: ValueId) -> Option<ValueId> {
        let pointwise = self.c.below(4) == 0;
        self.conv_of(x, pointwise)
    }

    fn conv_of(&mut self, x: ValueId, pointwise: bool) -> Option<ValueId> {
        let shape = self.shape(x);
        let n = shape.len() - 2;
        let channels = shape[1];
        let groups = match self.c.below(5) {
            0 => channels,
            1 => [2, 3, 4, 8][self.c.below(4)],
            _ => 1,
        };
        let groups = if channels.is_multiple_of(groups) { groups } else { 1 };
        let outputs = match groups {
            1 => self.sizes.channels[self.c.below(16)],
            g if g == channels => g * (1 + self.c.below(3) / 2),
            g => g * [1, 2, 3, 5, 8, 16][self.c.below(6)],
        };
        let same = self.c.below(3) == 0;
        let side = 1 + self.c.below(5);
        let kernel: Vec<usize> = (0..n)
            .map(|_| match (pointwise, same) {
                (true, _) => 1,
                (_, true) => side,
                _ => 1 + self.c.below(4),
            })
            .collect();
        let plain = pointwise || self.c.below(2) == 0;
        let strides: Vec<usize> = (0..n).map(|_| if plain { 1 } else { 1 + self.c.below(3) }).collect();
        let dilations: Vec<usize> = (0..n).map(|_| if plain { 1 } else { 1 + self.c.below(5) / 3 }).collect();
        let wider = if self.c.below(8) == 7 { 2 } else { 0 };
        let pads: Vec<usize> =
            (0..2 * n).map(|i| if same { side / 2 } else { self.c.below(kernel[i % n] + wider) }).collect();
        self.convolve(x, outputs, &kernel, Conv { strides, pads, dilations, groups })
    }

    /// A square kernel that Winograd's algorithm knows, with any padding.
    fn square(&mut self, x: ValueId) -> Option<ValueId> {
        let channels = self.shape(x)[1];
        let (side, stride) = match self.c.below(3) {
            0 => ([3, 5, 6, 7, 8, 9, 10][self.c.below(7)], 2),
            _ => (3 + self.c.below(3), 1),
        };
        let pads = match self.c.below(4) {
            0 => vec![0; 4],
            1 => vec![side / 2; 4],
            _ => (0..4).map(|_| self.c.below(side + 1)).collect(),
        };
        let groups = if channels.is_multiple_of(32) && self.c.flag() { 2 } else { 1 };
        let outputs = if groups == 2 { 32 } else { 1 + self.c.below(40) };
        self.convolve(x, outputs, &[side; 2], Conv { strides: vec![stride; 2], pads, dilations: vec![1, 1], groups })
    }

    /// `x + conv(x)`, pointwise.
    fn sum_with_own(&mut self, x: ValueId) -> Option<ValueId> {
        let n = self.shape(x).len() - 2;
        let op = Conv { strides: vec![1; n], pads: vec![0; 2 * n], dilations: vec![1; n], groups: 1 };
        let y = self.convolve(x, self.shape(x)[1], &vec![1; n], op)?;
        self.add(Binary { f: BinaryFn::Add }, &[x, y])
    }

    /// With new weights, or those of a convolution of the same kind.
    fn convolve(&mut self, x: ValueId, outputs: usize, kernel: &[usize], op: Conv) -> Option<ValueId> {
        let shape = self.shape(x);
        let mut wanted = vec![outputs, shape[1] / op.groups];
        wanted.extend(kernel);
        let known = self.convs.iter().find(|(s, _)| *s == wanted).map(|(_, w)| *w);
        let w = match known {
            Some(w) if self.c.flag() => w,
            _ => self.weights(&wanted),
        };
        let mut inputs = vec![x, w];
        if self.c.flag() {
            inputs.push(self.weights(&[outputs]));
        }
        let work = shape.iter().product::<usize>() / op.groups * outputs * kernel.iter().product::<usize>();
        if work / op.strides.iter().product::<usize>() > self.sizes.work {
            return None;
        }
        let y = self.add(op, &inputs)?;
        self.convs.push((wanted, w));
        Some(y)
    }

    fn pool(&mut self, x: ValueId) -> Option<ValueId> {
        let n = self.shape(x).len() - 2;
        let kernel: Vec<usize> = (0..n).map(|_| 1 + self.c.below(4)).collect();
        let strides = (0..n).map(|_| 1 + self.c.below(3)).collect();
        let pads = (0..2 * n).map(|i| self.c.below(kernel[i % n])).collect();
        let dilations = (0..n).map(|_| 1 + self.c.below(4) / 3).collect();
        let (ceil_mode, count_include_pad, p) = (self.c.flag(), self.c.flag(), 1 + self.c.below(2));
        match self.c.below(5) {
            0 | 1 => self.add(MaxPool { kernel, strides, pads, dilations, ceil_mode, column_major: false }, &[x]),
            2 => self.add(LpPool { kernel, strides, pads, dilations, ceil_mode, p }, &[x]),
            _ => self.add(AvgPool { kernel, strides, pads, dilations, ceil_mode, count_include_pad }, &[x]),
        }
    }

    fn unary(&mut self, x: ValueId) -> Option<ValueId> {
        let all = UnaryFn::all();
        let f = if self.c.flag() { UnaryFn::Relu } else { all[self.c.below(all.len())] };
        // Steps and poles would make rounding errors large.
        let rough = matches!(
            f,
            UnaryFn::Floor
                | UnaryFn::Ceil
                | UnaryFn::Round
                | UnaryFn::Sign
                | UnaryFn::Reciprocal
                | UnaryFn::Tan
                | UnaryFn::Log
                | UnaryFn::Log1p
                | UnaryFn::Sqrt
                | UnaryFn::Acosh
                | UnaryFn::Atanh
                | UnaryFn::Acos
                | UnaryFn::Asin
                | UnaryFn::Exp
                | UnaryFn::Sinh
                | UnaryFn::Cosh
                | UnaryFn::ThresholdedRelu { .. }
                | UnaryFn::Not
                | UnaryFn::BitNot
                | UnaryFn::IsNan
                | UnaryFn::IsInf { .. }
        );
        let f = if rough { UnaryFn::LeakyRelu { alpha: 0.25 } } else { f };
        self.add(Unary { f }, &[x])
    }

    /// With a constant or value that broadcasts to x, or x to it.
    fn binary(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let f = [BinaryFn::Add, BinaryFn::Mul, BinaryFn::Sub, BinaryFn::Max, BinaryFn::Min, BinaryFn::Prelu]
            [self.c.below(6)];
        let y = match self.c.below(6) {
            0 => self.value(),
            1 => {
                let number = [0.5, 0.0, 1.0, -2.0][self.c.below(4)];
                self.number(number)
            }
            2 => {
                let some: Vec<usize> = shape.iter().map(|&d| if self.c.flag() { d } else { 1 }).collect();
                let skip = self.c.below(some.len() + 1);
                self.weights(&some[skip..])
            }
            3 => {
                let like: Vec<ValueId> = self.values.iter().copied().filter(|&v| self.shape(v) == shape).collect();
                like[self.c.below(like.len())]
            }
            _ => {
                let per_channel: Vec<usize> = (1..shape.len()).map(|i| if i == 1 { shape[1] } else { 1 }).collect();
                self.weights(&per_channel)
            }
        };
        if self.c.flag() { self.add(Binary { f }, &[x, y]) } else { self.add(Binary { f }, &[y, x]) }
    }

    /// Another convolution of the same input, or any value of the same shape, is added.
    fn residual(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let like: Vec<ValueId> = self.values.iter().copied().filter(|&v| v != x && self.shape(v) == shape).collect();
        let y = if like.is_empty() { x } else { like[self.c.below(like.len())] };
        let sum = self.add(Binary { f: BinaryFn::Add }, &[x, y])?;
        if self.c.flag() { self.add(Unary { f: UnaryFn::Relu }, &[sum]) } else { Some(sum) }
    }

    fn affine(&mut self, x: ValueId) -> Option<ValueId> {
        let channels = self.shape(x)[1];
        let statistics: Vec<ValueId> = (0..3).map(|_| self.weights(&[channels])).collect();
        let element = Tensor::scalar_f64(DType::F32, 0.5 + self.c.below(3) as f64);
        let var = self.g.add_const(ConstValue::Splat { element, shape: vec![channels] });
        self.add(BatchNorm { eps: 1e-3 }, &[vec![x], statistics, vec![var]].concat())
    }

    /// Values that differ along the channels at most, x among them; seldom along another axis.
    fn concat(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let axis = if self.c.below(6) == 5 { self.c.below(shape.len()) } else { 1.min(shape.len() - 1) };
        let fits = |s: &[usize]| s.len() == shape.len() && (0..s.len()).all(|d| d == axis || s[d] == shape[d]);
        let like: Vec<ValueId> = self.values.iter().copied().filter(|&v| fits(&self.shape(v))).collect();
        let mut parts: Vec<ValueId> = (0..1 + self.c.below(3)).map(|_| like[self.c.below(like.len())]).collect();
        parts.insert(self.c.below(parts.len() + 1), x);
        self.add(Concat { axis }, &parts)
    }

    /// A range of channels, seldom of pixels, or backwards.
    fn slice(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let axis = if self.c.below(4) == 3 { self.c.below(shape.len()) } else { 1 };
        let d = shape[axis];
        let start = if self.c.flag() { self.c.below(d) / 8 * 8 } else { self.c.below(d) };
        let len = 1 + self.c.below(d - start);
        let part = |at: usize, v: usize, other: usize| Dim::Const(if at == axis { v } else { other } as i64);
        let starts = (0..shape.len()).map(|i| part(i, start, 0)).collect();
        let lens = (0..shape.len()).map(|i| part(i, len, shape[i])).collect();
        self.add(Slice { starts, lens, steps: vec![1; shape.len()] }, &[x])
    }

    /// Channels of groups in turn.
    fn shuffle(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let groups = [2, 3, 4, 8][self.c.below(4)];
        if !shape[1].is_multiple_of(groups) {
            return None;
        }
        let dims = |head: &[usize], tail: &[usize]| -> Vec<Dim> {
            head.iter().chain(tail).map(|&d| Dim::Const(d as i64)).collect()
        };
        let apart = dims(&[shape[0], groups, shape[1] / groups], &shape[2..]);
        let mut perm: Vec<usize> = (0..apart.len()).collect();
        perm.swap(1, 2);
        let y = self.try_add(Reshape { shape: apart }, &[x])?;
        let y = self.try_add(Transpose { perm }, &[y])?;
        self.add(Reshape { shape: dims(&shape, &[]) }, &[y])
    }

    fn reduce(&mut self, x: ValueId) -> Option<ValueId> {
        let rank = self.shape(x).len();
        let axes: Vec<usize> = match self.c.below(3) {
            0 => (2..rank).collect(),
            1 => vec![self.c.below(rank)],
            _ => (0..rank).filter(|_| self.c.flag()).collect(),
        };
        let f = [ReduceFn::Mean, ReduceFn::Sum, ReduceFn::Max, ReduceFn::Min, ReduceFn::L2, ReduceFn::LogSumExp]
            [self.c.below(6)];
        let keepdims = self.c.below(3) > 0;
        self.add(Reduce { f, axes, keepdims }, &[x])
    }

    fn pad(&mut self, x: ValueId) -> Option<ValueId> {
        let rank = self.shape(x).len();
        let channels = self.c.below(3) == 2;
        let mode = [PadMode::Constant, PadMode::Constant, PadMode::Reflect, PadMode::Edge][self.c.below(4)];
        let mut amounts = || -> Vec<i64> {
            (0..rank).map(|d| if d > 1 || (d == 1 && channels) { self.c.below(4) as i64 - 1 } else { 0 }).collect()
        };
        let (before, after) = (amounts(), amounts());
        self.add(Pad { before, after, mode }, &[x])
    }

    fn move_data(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let rank = shape.len();
        match self.c.below(5) {
            0 | 1 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(self.c.below(rank), self.c.below(rank));
                self.add(Transpose { perm }, &[x])
            }
            2 if rank == 4 => self.add(SpaceToDepth { block: 2 }, &[x]),
            3 if rank == 4 => self.add(DepthToSpace { block: 2, order: DepthOrder::Dcr }, &[x]),
            _ => {
                let flat = [shape[0], shape[1..].iter().product()];
                self.add(Reshape { shape: flat.iter().map(|&d| Dim::Const(d as i64)).collect() }, &[x])
            }
        }
    }

    /// With constants or with x itself, and a bias.
    fn product(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let rank = shape.len();
        let &k = shape.last()?;
        let rows = if rank > 1 { shape[rank - 2] } else { 1 };
        let n = self.sizes.channels[self.c.below(16)] + self.c.below(40);
        if shape.iter().product::<usize>() * n > self.sizes.work {
            return None;
        }
        if rank == 2 && self.c.flag() {
            let (trans_a, trans_b) = (self.c.below(4) == 0, self.c.flag());
            let k = if trans_a { rows } else { k };
            let w = self.weights(&if trans_b { [n, k] } else { [k, n] });
            let op = Gemm { alpha: [1.0, 0.5][self.c.below(2)], beta: [1.0, 2.0][self.c.below(2)], trans_a, trans_b };
            let c = self.weights(&[n]);
            return self.add(op, &[x, w, c]);
        }
        if rank >= 2 && self.c.below(3) == 0 {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 1, rank - 2);
            let t = self.try_add(Transpose { perm }, &[x])?;
            if rows * shape.iter().product::<usize>() > self.sizes.work {
                return None;
            }
            return self.add(MatMul {}, &[x, t]);
        }
        let w = self.weights(&[k, n]);
        self.add(MatMul {}, &[x, w])
    }

    /// Softmax and normalisations.
    fn rows(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let axis = self.c.below(shape.len());
        match self.c.below(6) {
            0 => self.add(Softmax { axis }, &[x]),
            1 => self.add(LogSoftmax { axis }, &[x]),
            2 => {
                let (w, b) = (self.weights(&shape[axis..]), self.weights(&shape[axis..]));
                self.add(LayerNorm { axis, eps: 1e-2 }, &[x, w, b])
            }
            3 if shape.len() > 2 => {
                let (w, b) = (self.weights(&[shape[1]]), self.weights(&[shape[1]]));
                self.add(InstanceNorm { eps: 1e-2 }, &[x, w, b])
            }
            4 if shape.len() > 1 => {
                let statistics: Vec<ValueId> = (0..4).map(|_| self.weights(&[shape[1]])).collect();
                self.add(BatchNormTrain { eps: 1e-2, momentum: 0.5 }, &[vec![x], statistics].concat())
            }
            _ if shape.len() > 1 => {
                let (w, b) = (self.weights(&[shape[1]]), self.weights(&[shape[1]]));
                let groups = [1, 2, 3, 4, 8, 16][self.c.below(6)];
                self.add(GroupNorm { groups, eps: 1e-2 }, &[x, w, b])
            }
            _ => None,
        }
    }

    /// Squeeze and excitation: a number for each channel of each image scales it.
    fn excite(&mut self, x: ValueId) -> Option<ValueId> {
        let rank = self.shape(x).len();
        let channels = self.shape(x)[1];
        let mean = self.try_add(Reduce { f: ReduceFn::Mean, axes: (2..rank).collect(), keepdims: true }, &[x])?;
        let mut one = vec![channels, channels];
        one.resize(rank, 1);
        let w = self.weights(&one);
        let n = rank - 2;
        let op = Conv { strides: vec![1; n], pads: vec![0; 2 * n], dilations: vec![1; n], groups: 1 };
        let s = self.try_add(op, &[mean, w])?;
        let s = self.try_add(Unary { f: UnaryFn::Sigmoid }, &[s])?;
        self.add(Binary { f: BinaryFn::Mul }, &[x, s])
    }

    fn transposed(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let n = shape.len() - 2;
        let groups = if shape[1].is_multiple_of(2) && self.c.flag() { 2 } else { 1 };
        let per_group = 1 + self.c.below(9);
        let kernel: Vec<usize> = (0..n).map(|_| 1 + self.c.below(3)).collect();
        let mut wanted = vec![shape[1], per_group];
        wanted.extend(&kernel);
        let w = self.weights(&wanted);
        let strides = (0..n).map(|_| 1 + self.c.below(2)).collect();
        let pads = (0..2 * n).map(|i| self.c.below(kernel[i % n]) as i64).collect();
        let op = ConvTranspose { strides, pads, dilations: vec![1; n], output_padding: vec![0; n], groups };
        self.add(op, &[x, w])
    }

    /// Every pixel twice along each axis.
    fn resize(&mut self, x: ValueId) -> Option<ValueId> {
        let shape = self.shape(x);
        let factor = |d: usize| if d < 2 { 1 } else { 2 };
        let resize = Resize {
            shape: shape.iter().enumerate().map(|(d, &n)| Dim::Const((n * factor(d)) as i64)).collect(),
            scales: (0..shape.len()).map(|d| factor(d) as f32).collect(),
            mode: [ResizeMode::Nearest, ResizeMode::Linear][self.c.below(2)],
            coordinates: CoordinateTransform::Asymmetric,
            nearest: NearestMode::Floor,
            cubic_a: -0.75,
            exclude_outside: false,
            extrapolation: 0.0,
            antialias: false,
            roi: vec![],
        };
        self.add(resize, &[x])
    }

    /// Clips, or picks elements by comparison.
    fn pick(&mut self, x: ValueId) -> Option<ValueId> {
        let (lo, hi) = (self.number(-0.5), self.number(1.5));
        if self.c.flag() {
            return self.add(Clip {}, &[x, lo, hi]);
        }
        let condition = self.try_add(Binary { f: BinaryFn::Less }, &[x, hi])?;
        let other = self.try_add(Unary { f: UnaryFn::Tanh }, &[x])?;
        self.add(Where {}, &[condition, x, other])
    }
}
