//! Networks through the blocked lowering against the evaluator: on each instruction set that this CPU has, with one thread and
//! with two, whose results must be equal bit by bit.

use lehr::{CompileOptions, Runner};
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
