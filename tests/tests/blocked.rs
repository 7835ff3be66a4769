//! Networks through the blocked lowering against the evaluator: on each instruction set that this CPU has, with one thread and
//! with two, whose results must be equal bit by bit.

use lehr::{CompileOptions, Runner};
use lehr_codegen::layout::{Role, decide};
use lehr_codegen::lower::LowerOptions;
use lehr_codegen::x86::Isa;
use lehr_ir::eval::evaluate;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Op, Tensor, TensorType};

/// A graph under construction whose constants are all different.
struct Net {
    g: Graph,
    seed: u64,
    inputs: Vec<Tensor>,
}

impl Net {
    fn new() -> Net {
        Net { g: Graph::new("net"), seed: 1, inputs: vec![] }
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.inputs.push(seeded(DType::F32, shape.to_vec(), self.seed));
        let name = format!("x{}", self.inputs.len());
        self.g.add_input(&name, TensorType::new(DType::F32, shape.iter().map(|&n| n as i64)))
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    fn number(&mut self, x: f64) -> ValueId {
        self.g.add_const(ConstValue::Dense { tensor: Tensor::scalar_f64(DType::F32, x), name: None })
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.g.add1(op, inputs, vec![]).unwrap_or_else(|d| panic!("{d}"))
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.g.ty(v).const_shape().unwrap()
    }

    /// With a bias; `pads` are begins, then ends.
    fn conv(&mut self, x: ValueId, outputs: usize, c: Window) -> ValueId {
        let mut shape = vec![outputs, self.shape(x)[1] / c.groups];
        shape.extend(&c.kernel);
        let (w, b) = (self.weights(&shape), self.weights(&[outputs]));
        let op = Conv { strides: c.strides, pads: c.pads, dilations: c.dilations, groups: c.groups };
        self.add(op, &[x, w, b])
    }

    fn unary(&mut self, f: UnaryFn, x: ValueId) -> ValueId {
        self.add(Unary { f }, &[x])
    }

    fn binary(&mut self, f: BinaryFn, x: ValueId, y: ValueId) -> ValueId {
        self.add(Binary { f }, &[x, y])
    }

    /// Compiles, runs and compares the outputs.
    fn check(mut self, outputs: &[ValueId]) {
        outputs.iter().enumerate().for_each(|(i, &v)| self.g.add_output(&format!("y{i}"), v));
        let expected = evaluate(&self.g, &self.inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        for (cpu, _) in [("x86-64-v3", Isa::Avx2), ("x86-64-v4", Isa::Avx512)].iter().filter(|c| c.1.on_this_cpu()) {
            let options = CompileOptions { cpu: cpu.to_string(), ..CompileOptions::default() };
            let run = |threads| {
                let mut runner =
                    Runner::jit(self.g.clone(), &options, threads).unwrap_or_else(|e| panic!("{cpu}: {e}"));
                // Twice: the second time the arena is dirty.
                let first = runner.run(&self.inputs).unwrap();
                let second = runner.run(&self.inputs).unwrap();
                first.iter().zip(&second).for_each(|(a, b)| assert_eq!(a.bytes(), b.bytes(), "{cpu}: a second run"));
                first
            };
            let (one, two) = (run(1), run(2));
            for (i, (got, want)) in one.iter().zip(&expected).enumerate() {
                compare(&format!("{cpu}, output {i}"), got, want);
                assert_eq!(got.bytes(), two[i].bytes(), "{cpu}: two threads");
            }
        }
    }
}

fn compare(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let (got, expected) = (got.to_f64(), want.to_f64());
    let largest = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&expected).enumerate() {
        let error = (g - w).abs() / largest;
        assert!(error <= 1e-5, "{what}, element {i} of {:?}: {g} for {w}, of {largest} at most", want.shape());
    }
}

struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    pads: Vec<usize>,
    dilations: Vec<usize>,
    groups: usize,
}

fn window(kernel: &[usize]) -> Window {
    let n = kernel.len();
    Window { kernel: kernel.into(), strides: vec![1; n], pads: vec![0; 2 * n], dilations: vec![1; n], groups: 1 }
}

impl Window {
    fn stride(mut self, strides: &[usize]) -> Window {
        self.strides = strides.into();
        self
    }

    fn pad(mut self, pads: &[usize]) -> Window {
        self.pads = pads.into();
        self
    }

    fn dilate(mut self, dilations: &[usize]) -> Window {
        self.dilations = dilations.into();
        self
    }

    fn groups(mut self, groups: usize) -> Window {
        self.groups = groups;
        self
    }
}

/// A stem, then the convolution on its blocked result.
fn two_convs(shape: &[usize], middle: usize, outputs: usize, c: Window) {
    let mut n = Net::new();
    let x = n.input(shape);
    let ones = vec![1; shape.len() - 2];
    let first = n.conv(x, middle, window(&ones));
    let y = n.conv(first, outputs, c);
    n.check(&[y]);
}

#[test]
fn stems_read_plain_inputs() {
    for (shape, outputs, c) in [
        (vec![1, 3, 23, 30], 32, window(&[7, 7]).stride(&[2, 2]).pad(&[3, 3, 3, 3])),
        (vec![2, 3, 15, 17], 24, window(&[3, 3])),
        (vec![1, 1, 9, 9], 5, window(&[5, 5]).pad(&[0, 1, 2, 3])),
        (vec![1, 3, 35, 35], 64, window(&[11, 11]).stride(&[4, 4])),
        (vec![1, 40, 6, 6], 48, window(&[1, 1])),
        (vec![2, 4, 33], 17, window(&[5]).pad(&[2, 2])),
        (vec![1, 2, 5, 6, 7], 20, window(&[3, 3, 3]).pad(&[1, 1, 1, 0, 1, 2])),
    ] {
        let mut n = Net::new();
        let x = n.input(&shape);
        let y = n.conv(x, outputs, c);
        n.check(&[y]);
    }
}

#[test]
fn convolutions_of_blocks() {
    let image = [1, 3, 14, 15];
    two_convs(&image, 32, 64, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&image, 16, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).stride(&[2, 2]));
    two_convs(&image, 20, 24, window(&[3, 2]).pad(&[2, 0, 1, 1]).dilate(&[2, 3]));
    two_convs(&image, 33, 7, window(&[1, 1]));
    two_convs(&image, 64, 128, window(&[1, 1]));
    two_convs(&image, 64, 96, window(&[1, 1]).stride(&[2, 2]));
    two_convs(&[2, 3, 9, 10], 48, 80, window(&[5, 5]).pad(&[2, 2, 2, 2]));
    two_convs(&[2, 3, 1, 1], 48, 80, window(&[1, 1]));
    two_convs(&[1, 8, 3, 3], 320, 176, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&[1, 8, 7, 7], 544, 272, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    two_convs(&[1, 3, 20, 20], 64, 64, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(2));
    two_convs(&[1, 3, 9, 9], 60, 96, window(&[1, 1]).groups(3));
    two_convs(&[2, 3, 9, 9], 24, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(4));
    two_convs(&[1, 3, 13, 4], 32, 96, window(&[1, 7]).pad(&[0, 3, 0, 3]));
    two_convs(&[2, 3, 37], 32, 48, window(&[3]).pad(&[1, 1]).stride(&[2]));
    two_convs(&[1, 2, 4, 5, 6], 16, 40, window(&[3, 3, 3]).pad(&[1, 1, 1, 1, 1, 1]).stride(&[1, 2, 1]));
}

#[test]
fn residual_blocks_and_epilogues() {
    for channels in [64, 24] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 12, 13]);
        let a = n.conv(x, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let a = n.unary(UnaryFn::Relu, a);
        let b = n.conv(a, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let b = n.unary(UnaryFn::HardSwish, b);
        let c = n.conv(b, channels, window(&[1, 1]));
        let sum = n.binary(BinaryFn::Add, c, a);
        let y = n.unary(UnaryFn::Relu, sum);
        // By itself: reads blocks with a border, and plain values.
        let scale = n.weights(&[channels, 1, 1]);
        let other = n.input(&[1, channels, 12, 13]);
        let z = n.binary(BinaryFn::Mul, y, scale);
        let z = n.binary(BinaryFn::Sub, z, other);
        let z = n.unary(UnaryFn::LeakyRelu { alpha: 0.1 }, z);
        n.check(&[y, z, a]);
    }
}

#[test]
fn epilogues_that_leaves_do_not_have() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 8, 8]);
    let a = n.conv(x, 32, window(&[3, 3]));
    let b = n.unary(UnaryFn::Sin, a);
    let c = n.conv(b, 32, window(&[3, 3]));
    let half = n.number(0.5);
    let d = n.binary(BinaryFn::Pow, c, half);
    let d = n.unary(UnaryFn::IsNan, d);
    let e = n.unary(UnaryFn::Softplus, c);
    n.check(&[d, e]);
}

fn max_pool(kernel: &[usize], strides: &[usize], pads: &[usize], ceil_mode: bool) -> MaxPool {
    let (dilations, kernel) = (vec![1; kernel.len()], kernel.to_vec());
    MaxPool { kernel, strides: strides.into(), pads: pads.into(), dilations, ceil_mode, column_major: false }
}

fn avg_pool(kernel: &[usize], strides: &[usize], pads: &[usize], count_include_pad: bool) -> AvgPool {
    let (dilations, kernel) = (vec![1; kernel.len()], kernel.to_vec());
    AvgPool { kernel, strides: strides.into(), pads: pads.into(), dilations, ceil_mode: true, count_include_pad }
}

#[test]
fn pools_and_depthwise_convolutions() {
    for channels in [32, 20] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 13, 30]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let mut outputs = vec![];
        for p in [
            max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false),
            max_pool(&[3, 3], &[2, 2], &[0, 0, 0, 0], true),
            max_pool(&[2, 4], &[1, 3], &[0, 2, 1, 1], false),
        ] {
            outputs.push(n.g.add(p, &[Some(a)], vec![]).unwrap().out(0));
        }
        for p in [
            avg_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false),
            avg_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], true),
            avg_pool(&[11, 28], &[1, 1], &[0, 0, 0, 0], true),
        ] {
            outputs.push(n.add(p, &[a]));
        }
        let d = n.conv(a, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(channels));
        let d = n.unary(UnaryFn::Relu, d);
        outputs.push(n.conv(d, channels, window(&[5, 3]).pad(&[2, 0, 1, 2]).stride(&[2, 1]).groups(channels)));
        let pooled = outputs[0];
        outputs.push(n.conv(pooled, 48, window(&[3, 3]).pad(&[1, 1, 1, 1])));
        outputs.push(n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[a]));
        n.check(&outputs);
    }
}

#[test]
fn local_response_normalisation() {
    // Windows of odd and even sizes, powers with and without a form of their own, one to three blocks, with a border and without.
    for (channels, size, alpha, beta, bias) in [
        (16, 5, 1e-4, 0.75, 1.0),
        (32, 4, 0.5, 0.5, 0.25),
        (48, 9, 2.0, 0.6, 2.0),
        (64, 1, 1.0, 1.0, 0.5),
        (80, 2, 3.0, 0.75, 1.0),
    ] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 9, 11]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let a = n.unary(UnaryFn::Relu, a);
        let norm = Lrn { size, alpha, beta, bias };
        let b = n.add(norm, &[a]);
        let scale = n.weights(&[channels, 1, 1]);
        let c = n.binary(BinaryFn::Mul, b, scale);
        let c = n.binary(BinaryFn::Add, c, a);
        let d = n.conv(c, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let pooled = n.g.add(max_pool(&[3, 3], &[2, 2], &[0; 4], true), &[Some(b)], vec![]).unwrap().out(0);
        assert_eq!(count_role(&n, Role::Lrn), 1);
        n.check(&[d, pooled]);
    }
    // Other windows and bases are plain loops'.
    for (channels, size, bias) in [(24, 5, 1.0), (32, 11, 1.0), (32, 3, 0.0)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 6, 6]);
        let a = n.conv(x, channels, window(&[3, 3]));
        let b = n.add(Lrn { size, alpha: 0.5, beta: 0.75, bias }, &[a]);
        n.check(&[b]);
    }
}

#[test]
fn far_strides_and_wide_pads_stay_plain() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 6, 6]);
    let a = n.conv(x, 16, window(&[3, 3]).pad(&[40, 1, 1, 40]));
    let b = n.conv(x, 16, window(&[1, 1]).stride(&[1 << 30, 1 << 30]));
    let far = MaxPool { strides: vec![1 << 30; 2], ..max_pool(&[1, 1], &[1, 1], &[0; 4], false) };
    let c = n.g.add(far, &[Some(a)], vec![]).unwrap().out(0);
    n.check(&[a, b, c]);
}

#[test]
fn a_maximum_keeps_nan_and_ignores_the_border() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 9, 9]);
    let a = n.conv(x, 32, window(&[1, 1]));
    let low = n.number(-1000.0);
    let a = n.binary(BinaryFn::Add, a, low);
    // Read with a border of zeros as well.
    let b = n.conv(a, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let y = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(a)], vec![]).unwrap().out(0);
    let nan = n.unary(UnaryFn::Sqrt, a);
    let z = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(nan)], vec![]).unwrap().out(0);
    let z = n.unary(UnaryFn::IsNan, z);
    let z = n.add(Cast { to: DType::F32 }, &[z]);
    n.check(&[y, b, z]);
}

#[test]
fn concatenations_are_places() {
    for (a, b) in [(32, 64), (48, 20), (20, 16)] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 8, 9]);
        let p = n.conv(x, a, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let q = n.conv(p, b, window(&[1, 1]));
        let q = n.unary(UnaryFn::Relu, q);
        let inner = n.add(Concat { axis: 1 }, &[p, q]);
        let r = n.conv(inner, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let outer = n.add(Concat { axis: 1 }, &[r, inner, p]);
        let s = n.conv(outer, 32, window(&[1, 1]));
        let t = n.unary(UnaryFn::Abs, outer);
        let pooled = n.g.add(max_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false), &[Some(r)], vec![]).unwrap().out(0);
        n.check(&[s, t, inner, pooled]);
    }
}

/// Channels in rows, read by columns.
fn shuffle(n: &mut Net, x: ValueId, rows: usize) -> ValueId {
    let shape = n.shape(x);
    let dims = |sizes: &[usize]| sizes.iter().map(|&d| (d as i64).into()).collect();
    let split = [&[shape[0], rows, shape[1] / rows], &shape[2..]].concat();
    let perm = [0, 2, 1].into_iter().chain(3..split.len()).collect();
    let a = n.add(Reshape { shape: dims(&split) }, &[x]);
    let b = n.add(Transpose { perm }, &[a]);
    n.add(Reshape { shape: dims(&shape) }, &[b])
}

fn channels(n: &mut Net, x: ValueId, from: usize, count: usize) -> ValueId {
    let shape = n.shape(x);
    let dim = |(d, size): (usize, &usize)| if d == 1 { count as i64 } else { *size as i64 };
    let starts = (0..shape.len()).map(|d| (if d == 1 { from as i64 } else { 0 }).into()).collect();
    let lens = shape.iter().enumerate().map(|d| dim(d).into()).collect();
    n.add(Slice { starts, lens, steps: vec![1; shape.len()] }, &[x])
}

fn depthwise(n: &mut Net, x: ValueId, stride: usize) -> ValueId {
    let groups = n.shape(x)[1];
    n.conv(x, groups, window(&[3, 3]).pad(&[1, 1, 1, 1]).stride(&[stride, stride]).groups(groups))
}

#[test]
fn groups_that_end_inside_blocks() {
    // Of a blocked input and of the graph's own.
    for (inputs, outputs, groups) in [(24, 112, 4), (136, 136, 4), (40, 60, 5), (96, 36, 3), (12, 33, 3), (64, 20, 2)] {
        for c in [
            window(&[1, 1]),
            window(&[3, 3]).pad(&[1, 1, 1, 1]),
            window(&[3, 2]).pad(&[0, 1, 2, 0]).stride(&[2, 1]).dilate(&[1, 2]),
        ] {
            let mut n = Net::new();
            let x = n.input(&[2, inputs, 7, 9]);
            let own = Window {
                kernel: c.kernel.clone(),
                strides: c.strides.clone(),
                pads: c.pads.clone(),
                ..window(&[1, 1])
            };
            let direct = n.conv(x, outputs, own.groups(groups));
            let first = n.conv(x, inputs, window(&[1, 1]));
            let y = n.conv(first, outputs, c.groups(groups));
            let y = n.unary(UnaryFn::Sigmoid, y);
            n.check(&[direct, y]);
        }
    }
    two_convs(&[1, 3, 30], 34, 102, window(&[3]).pad(&[1, 1]).groups(2));
    two_convs(&[1, 3, 4, 5, 6], 20, 30, window(&[1, 3, 3]).pad(&[0, 1, 1, 0, 1, 1]).groups(2));
    two_convs(&[1, 3, 28, 28], 136, 136, window(&[1, 1]).groups(4));
    two_convs(&[1, 3, 1, 1], 40, 40, window(&[1, 1]).groups(4));
    // More groups in a block than a leaf can tell apart.
    two_convs(&[1, 3, 6, 6], 24, 48, window(&[1, 1]).groups(24));
}

#[test]
fn shuffled_channels_are_other_slots() {
    for (channels, groups) in [(136, 4), (48, 3), (64, 4)] {
        let mut n = Net::new();
        let x = n.input(&[2, channels, 14, 13]);
        let first = n.conv(x, channels, window(&[1, 1]));
        let a = n.conv(first, channels, window(&[1, 1]).groups(groups));
        let a = n.unary(UnaryFn::Relu, a);
        let b = shuffle(&mut n, a, groups);
        let c = depthwise(&mut n, b, 1);
        let d = n.conv(c, channels, window(&[1, 1]).groups(groups));
        let sum = n.binary(BinaryFn::Add, d, first);
        let y = n.unary(UnaryFn::Relu, sum);
        // Read by what knows no orders, by a dense convolution, by a mean, and in a sum with values in another order.
        let dense = n.conv(b, 24, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let mean = n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[c]);
        let scale = n.weights(&[channels, 1, 1]);
        let scaled = n.binary(BinaryFn::Mul, b, scale);
        let mixed = n.binary(BinaryFn::Sub, scaled, a);
        let other = n.input(&[2, channels, 14, 13]);
        let mixed = n.binary(BinaryFn::Max, mixed, other);
        let residual = n.conv(a, channels, window(&[1, 1]));
        let residual = n.binary(BinaryFn::Add, residual, b);
        let twice = shuffle(&mut n, b, channels / groups);
        n.check(&[y, b, dense, mean, mixed, residual, twice]);
    }
}

#[test]
fn concatenations_with_gaps_and_slices() {
    for (left, right) in [(116, 24), (58, 58), (20, 100)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 12, 12]);
        let a = n.conv(x, left, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let b = n.conv(x, right, window(&[1, 1]));
        let b = n.g.add(max_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false), &[Some(b)], vec![]).unwrap().out(0);
        let all = n.add(Concat { axis: 1 }, &[a, b]);
        let all = n.unary(UnaryFn::Relu, all);
        let half = (left + right) / 2;
        let (low, high) = (channels(&mut n, all, 0, half), channels(&mut n, all, half, half));
        let c = n.conv(high, half, window(&[1, 1]));
        let c = depthwise(&mut n, c, 1);
        let d = n.conv(c, half, window(&[1, 1]));
        let again = n.add(Concat { axis: 1 }, &[low, d]);
        let mixed = shuffle(&mut n, again, 2);
        let y = depthwise(&mut n, mixed, 2);
        let e = n.conv(low, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let f = depthwise(&mut n, high, 1);
        let g = n.conv(f, half, window(&[1, 1]).groups(2));
        let residual = n.binary(BinaryFn::Add, g, high);
        let dense = n.conv(all, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let bias = n.weights(&[half, 1, 1]);
        let shifted = n.binary(BinaryFn::Sub, low, bias);
        n.check(&[all, y, e, residual, dense, shifted, high]);
    }
}

/// What is infinite in one group, or in channels that a slice leaves out, stays there.
#[test]
fn groups_and_slices_read_their_own_channels_alone() {
    for groups in [1, 3] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 6, 6]);
        let a = n.conv(x, 60, window(&[1, 1]));
        let flags: Vec<f64> = (0..60).map(|c| if c < 20 { f64::INFINITY } else { 0.0 }).collect();
        let infinite = Tensor::from_f64(DType::F32, vec![60, 1, 1], flags);
        let infinite = n.g.add_const(ConstValue::Dense { tensor: infinite, name: None });
        let a = n.binary(BinaryFn::Add, a, infinite);
        let b = n.conv(a, 60, window(&[1, 1]).groups(3));
        let rest = channels(&mut n, a, 20, 40);
        let c = n.conv(rest, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(if groups == 3 { 2 } else { 1 }));
        let finite = channels(&mut n, b, 20, 40);
        n.check(&[finite, c]);
    }
}

#[test]
fn products_with_constant_weights() {
    for (rows, k, columns) in [(1, 300, 40), (1, 64, 257), (3, 17, 64), (150, 40, 100), (33, 128, 10), (1, 1, 1)] {
        let mut n = Net::new();
        let x = n.input(&[rows, k]);
        let (w, c) = (n.weights(&[columns, k]), n.weights(&[columns]));
        let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
        let y = n.add(gemm, &[x, w, c]);
        let y = n.unary(UnaryFn::Relu, y);
        let v = n.weights(&[k, columns]);
        let other = n.input(&[rows, columns]);
        let z = n.add(MatMul {}, &[x, v]);
        let z = n.binary(BinaryFn::Add, z, other);
        n.check(&[y, z]);
    }
    let mut n = Net::new();
    let x = n.input(&[2, 3, 5, 40]);
    let w = n.weights(&[40, 24]);
    let y = n.add(MatMul {}, &[x, w]);
    let y = n.unary(UnaryFn::Gelu, y);
    n.check(&[y]);
}

/// How many operators have this role.
fn count_role(n: &Net, role: Role) -> usize {
    let layouts = decide(&n.g, &LowerOptions { leaves: Some(Isa::Avx512), ..LowerOptions::default() });
    n.g.ids().filter(|&id| layouts.role(id) == role).count()
}

#[test]
fn products_of_two_inputs() {
    // Left as they lie and packed, in one phase and in three, with few rows and with rows at distances of a page.
    for (m, k, n) in [
        (1, 70, 33),
        (1, 500, 1500),
        (5, 9, 1),
        (33, 100, 100),
        (40, 600, 300),
        (20, 1024, 200),
        (70, 1100, 130),
        (1, 1, 1),
    ] {
        for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut net = Net::new();
            let a = net.input(&if trans_a { [k, m] } else { [m, k] });
            let b = net.input(&if trans_b { [n, k] } else { [k, n] });
            let c = net.input(&[n]);
            let y = net.add(Gemm { alpha: 1.0, beta: 1.0, trans_a, trans_b }, &[a, b, c]);
            let y = net.unary(UnaryFn::Relu, y);
            assert_eq!(count_role(&net, Role::Product), 1);
            net.check(&[y]);
        }
    }
    let mut net = Net::new();
    let (a, b) = (net.input(&[30, 40]), net.weights(&[30, 50]));
    let y = net.add(Gemm { alpha: 2.0, beta: 0.0, trans_a: true, trans_b: false }, &[a, b]);
    // A constant on the left, and a factor that only a constant takes.
    let w = net.weights(&[70, 50]);
    let z = net.add(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[w, y]);
    let last = net.add(Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: false }, &[z, y]);
    net.check(&[y, z, last]);
}

#[test]
fn products_of_batches() {
    for (a, b) in [
        (vec![2, 3, 7, 20], vec![2, 3, 20, 33]),
        (vec![4, 50, 300], vec![4, 300, 150]),
        (vec![7, 20], vec![2, 3, 20, 33]),
        (vec![1, 7, 20], vec![3, 20, 17]),
        (vec![3, 1, 20], vec![1, 20, 17]),
        (vec![2, 1, 7, 20], vec![2, 3, 20, 5]),
        (vec![20], vec![3, 20, 5]),
        (vec![5, 40, 20], vec![20]),
    ] {
        let mut n = Net::new();
        let (x, y) = (n.input(&a), n.input(&b));
        let z = n.add(MatMul {}, &[x, y]);
        let other = n.input(&n.shape(z));
        let z = n.binary(BinaryFn::Add, z, other);
        let w = n.weights(&b);
        let v = n.add(MatMul {}, &[x, w]);
        n.check(&[z, v]);
    }
}

#[test]
fn softmax_normalisations_and_sums_of_rows() {
    // Whole vectors, a vector and a bit, one short of two.
    for len in [16, 17, 31, 64, 1000] {
        let mut n = Net::new();
        let x = n.input(&[3, 7, len]);
        let big = n.number(40.0);
        let x = n.binary(BinaryFn::Mul, x, big);
        let (scale, bias, column, other) =
            (n.weights(&[len]), n.weights(&[len]), n.input(&[len]), n.input(&[3, 7, len]));
        let mut outputs = vec![n.add(Softmax { axis: 2 }, &[x]), n.add(LogSoftmax { axis: 2 }, &[x])];
        let y = n.add(Softmax { axis: 2 }, &[x]);
        let y = n.binary(BinaryFn::Mul, y, column);
        outputs.push(n.binary(BinaryFn::Add, y, other));
        let norm = LayerNorm { axis: 2, eps: 1e-3 };
        let y = n.g.add(norm.clone(), &[Some(x), Some(scale), Some(bias)], vec![]).unwrap().out(0);
        outputs.push(n.unary(UnaryFn::Gelu, y));
        outputs.push(n.g.add(norm, &[Some(x), Some(scale), None], vec![]).unwrap().out(0));
        for f in [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::L1, ReduceFn::SumSquare, ReduceFn::Max] {
            outputs.push(n.add(Reduce { f, axes: vec![2], keepdims: true }, &[x]));
            outputs.push(n.add(Reduce { f, axes: vec![1, 2], keepdims: false }, &[x]));
        }
        let (scale, bias) = (n.weights(&[7]), n.input(&[7]));
        let y = n.add(InstanceNorm { eps: 1e-5 }, &[x, scale, bias]);
        outputs.push(n.binary(BinaryFn::Add, y, other));
        assert_eq!((count_role(&n, Role::Rows), count_role(&n, Role::Reduce)), (6, 10));
        n.check(&outputs);
    }
}

#[test]
fn a_softmax_of_infinities_is_nan_in_their_rows_alone() {
    let mut n = Net::new();
    let x = n.input(&[4, 33]);
    let mut values: Vec<f64> = n.inputs[0].to_f64();
    values[33] = f64::INFINITY;
    values[2 * 33 + 32] = f64::NAN;
    values[3 * 33..].fill(f64::NEG_INFINITY);
    n.inputs[0] = Tensor::from_f64(DType::F32, vec![4, 33], values);
    let y = n.add(Softmax { axis: 1 }, &[x]);
    let nan = n.unary(UnaryFn::IsNan, y);
    let nan = n.add(Cast { to: DType::F32 }, &[nan]);
    n.check(&[nan]);
}

#[test]
fn a_classifier_end_to_end() {
    let mut n = Net::new();
    let x = n.input(&[1, 3, 32, 32]);
    let a = n.conv(x, 32, window(&[7, 7]).stride(&[2, 2]).pad(&[3, 3, 3, 3]));
    let a = n.unary(UnaryFn::Relu, a);
    let a = n.g.add(max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], false), &[Some(a)], vec![]).unwrap().out(0);
    let b = n.conv(a, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let b = n.binary(BinaryFn::Add, b, a);
    let m = n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[b]);
    // Squeeze and excite.
    let gate = n.conv(m, 8, window(&[1, 1]));
    let gate = n.unary(UnaryFn::Relu, gate);
    let gate = n.conv(gate, 32, window(&[1, 1]));
    let gate = n.unary(UnaryFn::Sigmoid, gate);
    let c = n.binary(BinaryFn::Mul, b, gate);
    let flat = n.add(Reshape { shape: vec![1i64.into(), 2048i64.into()] }, &[c]);
    let (w, bias) = (n.weights(&[2048, 10]), n.weights(&[10]));
    let y = n.add(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, &[flat, w, bias]);
    let layouts = decide(&n.g, &LowerOptions { leaves: Some(Isa::Avx512), ..LowerOptions::default() });
    let roles: Vec<Role> = n.g.order().into_iter().map(|id| layouts.role(id)).filter(|r| *r != Role::Other).collect();
    let (conv, map, window) = (Role::Conv, Role::Map, Role::Window);
    assert_eq!(roles[..8], [conv, map, window, conv, map, Role::Mean, conv, map], "{}", layouts.describe(&n.g));
    assert_eq!(roles[8..], [conv, map, map, Role::Product], "{}", layouts.describe(&n.g));
    n.check(&[y]);
}

#[test]
fn maps_before_pointwise_convolutions_are_their_prologues() {
    // One chunk and several, of rows (the result has a border) and of flat tiles.
    for (size, channels, border) in
        [([9, 11], 32, false), ([9, 11], 24, true), ([30, 31], 24, false), ([30, 31], 40, true)]
    {
        let mut n = Net::new();
        let x = n.input(&[2, 3, size[0], size[1]]);
        let x = n.conv(x, channels, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let y = n.conv(x, 16, window(&[1, 1]));
        let x = n.add(Concat { axis: 1 }, &[x, y]);
        let (scale, shift) = (n.weights(&[1, channels + 16, 1, 1]), n.weights(&[1, channels + 16, 1, 1]));
        let y = n.binary(BinaryFn::Mul, x, scale);
        let y = n.binary(BinaryFn::Add, y, shift);
        let map = n.unary(UnaryFn::Relu, y);
        let mut y = n.conv(map, 40, window(&[1, 1]));
        if border {
            y = n.conv(y, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        }
        assert_eq!(count_role(&n, Role::Prologue), 1, "{size:?} {channels}");
        n.check(&[y]);
    }
    // Others read the map too, or its value has a border.
    let mut n = Net::new();
    let x = n.input(&[1, 3, 12, 12]);
    let x = n.conv(x, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    let maps = [UnaryFn::Relu, UnaryFn::Sigmoid].map(|f| n.unary(f, x));
    let mut outputs = maps.map(|map| n.conv(map, 16, window(&[1, 1]))).to_vec();
    outputs.push(n.conv(maps[0], 16, window(&[3, 3]).pad(&[1, 1, 1, 1])));
    outputs.push(n.unary(UnaryFn::Tanh, maps[1]));
    assert_eq!(count_role(&n, Role::Prologue), 0);
    n.check(&outputs);
}
