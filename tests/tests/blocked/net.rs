//! Graphs whose constants are all different, and their comparison with the evaluator.

use lehr::tune::{Record, Records};
use lehr::{CompileOptions, Runner};
use lehr_codegen::layout::{Role, decide};
use lehr_codegen::lower::LowerOptions;
use lehr_codegen::x86::Isa;
use lehr_ir::eval::evaluate;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::tensor::{ConstValue, seeded};
use lehr_ir::{DType, Op, Tensor, TensorType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A graph under construction whose constants are all different.
#[derive(Clone)]
pub struct Net {
    pub g: Graph,
    pub seed: u64,
    pub inputs: Vec<Tensor>,
    /// Errors may be so large, of the largest output.
    pub tolerance: f64,
}

impl Net {
    pub fn new() -> Net {
        Net { g: Graph::new("net"), seed: 1, inputs: vec![], tolerance: 1e-5 }
    }

    pub fn input(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.inputs.push(seeded(DType::F32, shape.to_vec(), self.seed));
        let name = format!("x{}", self.inputs.len());
        self.g.add_input(&name, TensorType::new(DType::F32, shape.iter().map(|&n| n as i64)))
    }

    pub fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    pub fn number(&mut self, x: f64) -> ValueId {
        self.g.add_const(ConstValue::Dense { tensor: Tensor::scalar_f64(DType::F32, x), name: None })
    }

    pub fn filled(&mut self, shape: &[usize], x: f64) -> ValueId {
        let tensor = Tensor::from_f64(DType::F32, shape.to_vec(), vec![x; shape.iter().product()]);
        self.g.add_const(ConstValue::Dense { tensor, name: None })
    }

    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.g.add1(op, inputs, vec![]).unwrap_or_else(|d| panic!("{d}"))
    }

    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.g.ty(v).const_shape().unwrap()
    }

    /// With a bias; `pads` are begins, then ends.
    pub fn conv(&mut self, x: ValueId, outputs: usize, c: Window) -> ValueId {
        let mut shape = vec![outputs, self.shape(x)[1] / c.groups];
        shape.extend(&c.kernel);
        let (w, b) = (self.weights(&shape), self.weights(&[outputs]));
        let op = Conv { strides: c.strides, pads: c.pads, dilations: c.dilations, groups: c.groups };
        self.add(op, &[x, w, b])
    }

    pub fn unary(&mut self, f: UnaryFn, x: ValueId) -> ValueId {
        self.add(Unary { f }, &[x])
    }

    pub fn binary(&mut self, f: BinaryFn, x: ValueId, y: ValueId) -> ValueId {
        self.add(Binary { f }, &[x, y])
    }

    pub fn by_number(&mut self, f: BinaryFn, x: ValueId, y: f64) -> ValueId {
        let y = self.number(y);
        self.binary(f, x, y)
    }

    /// Compiles, runs and compares the outputs.
    pub fn check(self, outputs: &[ValueId]) {
        self.check_with(outputs, &|_, options| options);
    }

    /// Likewise, with errors up to `tolerance` of the largest output.
    pub fn check_within(mut self, tolerance: f64, outputs: &[ValueId]) {
        self.tolerance = tolerance;
        self.check(outputs);
    }

    /// Likewise with options of one's own.
    pub fn check_with(mut self, outputs: &[ValueId], own: &dyn Fn(&Graph, CompileOptions) -> CompileOptions) {
        outputs.iter().enumerate().for_each(|(i, &v)| self.g.add_output(&format!("y{i}"), v));
        let expected = evaluate(&self.g, &self.inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        for (cpu, _) in [("x86-64-v3", Isa::Avx2), ("x86-64-v4", Isa::Avx512)].iter().filter(|c| c.1.on_this_cpu()) {
            let options = own(&self.g, CompileOptions { cpu: cpu.to_string(), ..CompileOptions::default() });
            let run = |threads| {
                let mut runner =
                    Runner::jit(self.g.clone(), &options, threads).unwrap_or_else(|e| panic!("{cpu}: {e}"));
                // Twice: the second time the arena is dirty.
                let first = runner.run(&self.inputs).unwrap();
                let second = runner.run(&self.inputs).unwrap();
                first.iter().zip(&second).for_each(|(a, b)| assert_eq!(a.bytes(), b.bytes(), "{cpu}: a second run"));
                first
            };
            let one = run(1);
            for (i, (got, want)) in one.iter().zip(&expected).enumerate() {
                compare(&format!("{cpu}, output {i}"), got, want, self.tolerance);
            }
            for threads in [2, 3] {
                for (i, (got, want)) in run(threads).iter().zip(&one).enumerate() {
                    assert_eq!(got.bytes(), want.bytes(), "{cpu}, output {i}: {threads} threads");
                }
            }
        }
    }
}

pub fn compare(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let (got, expected) = (got.to_f64(), want.to_f64());
    let largest = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&expected).enumerate() {
        let error = (g - w).abs() / largest;
        assert!(error <= tolerance, "{what}, element {i} of {:?}: {g} for {w}, of {largest} at most", want.shape());
    }
}

pub struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub pads: Vec<usize>,
    pub dilations: Vec<usize>,
    pub groups: usize,
}

pub fn window(kernel: &[usize]) -> Window {
    let n = kernel.len();
    Window { kernel: kernel.into(), strides: vec![1; n], pads: vec![0; 2 * n], dilations: vec![1; n], groups: 1 }
}

impl Window {
    pub fn stride(mut self, strides: &[usize]) -> Window {
        self.strides = strides.into();
        self
    }

    pub fn pad(mut self, pads: &[usize]) -> Window {
        self.pads = pads.into();
        self
    }

    pub fn dilate(mut self, dilations: &[usize]) -> Window {
        self.dilations = dilations.into();
        self
    }

    pub fn groups(mut self, groups: usize) -> Window {
        self.groups = groups;
        self
    }
}

/// As if these strategies had been measured to be the fastest for their signatures.
pub fn tuned(options: CompileOptions, strategies: impl IntoIterator<Item = (String, String)>) -> CompileOptions {
    let record = |(signature, strategy): (String, String)| {
        let proposed = strategy.clone();
        Record { signature, layers: 1, strategy, ms: 1.0, proposed, proposed_ms: 1.0, others: BTreeMap::new() }
    };
    let layers = strategies.into_iter().map(record).collect();
    CompileOptions { tuned: Some(Arc::new(Records { layers, ..Records::default() })), ..options }
}

/// How many operators have this role.
pub fn count_role(n: &Net, role: Role) -> usize {
    let layouts = decide(&n.g, &LowerOptions { leaves: Some(Isa::Avx512), ..LowerOptions::default() });
    n.g.ids().filter(|&id| layouts.role(id) == role).count()
}

/// A stem, then the convolution on its blocked result.
pub fn two_convs(shape: &[usize], middle: usize, outputs: usize, c: Window) {
    let mut n = Net::new();
    let x = n.input(shape);
    let ones = vec![1; shape.len() - 2];
    let first = n.conv(x, middle, window(&ones));
    let y = n.conv(first, outputs, c);
    n.check(&[y]);
}

pub fn max_pool(kernel: &[usize], strides: &[usize], pads: &[usize], ceil_mode: bool) -> MaxPool {
    let (dilations, kernel) = (vec![1; kernel.len()], kernel.to_vec());
    MaxPool { kernel, strides: strides.into(), pads: pads.into(), dilations, ceil_mode, column_major: false }
}

pub fn avg_pool(kernel: &[usize], strides: &[usize], pads: &[usize], count_include_pad: bool) -> AvgPool {
    let (dilations, kernel) = (vec![1; kernel.len()], kernel.to_vec());
    AvgPool { kernel, strides: strides.into(), pads: pads.into(), dilations, ceil_mode: true, count_include_pad }
}
