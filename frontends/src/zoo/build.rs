//! A small typed builder of networks. Every layer has a name, which its values, weights and provenance carry.
//!
//! Weights are drawn from normal distributions after He et al., "Delving Deep into Rectifiers" (2015): variance
//! 2/fan_in, so that signals neither vanish nor explode; biases are small noise, so that no test overlooks them. Each
//! tensor's noise depends on the seed and its own name alone: adding a layer leaves the others as they were.
//!
//! Errors are bugs of the network's author, so the builder panics with the layer's name.

use lehr_ir::ops::{self, UnaryFn};
use lehr_ir::{ConstValue, DType, Dim, Graph, Op, Origin, Tensor, TensorType, ValueId};

/// A network under construction.
#[derive(Debug)]
pub struct Net {
    graph: Graph,
    seed: u64,
}

/// A square convolution with bias.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Output channels.
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// On all four sides.
    pub pad: usize,
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv { channels: 1, kernel: 1, stride: 1, pad: 0, groups: 1 }
    }
}

/// A square pooling window.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
}

impl Net {
    pub fn new(name: &str, seed: u64) -> Net {
        Net { graph: Graph::new(name), seed }
    }

    /// An input f32[batch, channels, height, width].
    pub fn image(&mut self, name: &str, channels: usize, height: usize, width: usize) -> ValueId {
        let sizes = [channels, height, width].map(|n| Dim::Const(n as i64));
        let shape = std::iter::once(Dim::symbol("batch")).chain(sizes);
        self.graph.add_input(name, TensorType::new(DType::F32, shape))
    }

    pub fn conv(&mut self, name: &str, x: ValueId, c: Conv) -> ValueId {
        let inputs = self.size(x, 1) / c.groups;
        let w = self.he(&format!("{name}.weight"), vec![c.channels, inputs, c.kernel, c.kernel]);
        let b = self.bias(&format!("{name}.bias"), c.channels);
        let op =
            ops::Conv { strides: vec![c.stride; 2], pads: vec![c.pad; 4], dilations: vec![1; 2], groups: c.groups };
        self.layer(name, "Conv", op, &[x, w, b])
    }

    /// `x * w^T + b`, x being [batch, features].
    pub fn linear(&mut self, name: &str, x: ValueId, features: usize) -> ValueId {
        let w = self.he(&format!("{name}.weight"), vec![features, self.size(x, 1)]);
        let b = self.bias(&format!("{name}.bias"), features);
        let op = ops::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        self.layer(name, "Gemm", op, &[x, w, b])
    }

    pub fn activation(&mut self, name: &str, x: ValueId, f: UnaryFn) -> ValueId {
        self.layer(name, "Activation", ops::Unary { f }, &[x])
    }

    pub fn relu(&mut self, name: &str, x: ValueId) -> ValueId {
        self.activation(name, x, UnaryFn::Relu)
    }

    pub fn add(&mut self, name: &str, x: ValueId, y: ValueId) -> ValueId {
        self.layer(name, "Add", ops::Binary { f: ops::BinaryFn::Add }, &[x, y])
    }

    pub fn max_pool(&mut self, name: &str, x: ValueId, p: Pool) -> ValueId {
        let op = ops::MaxPool {
            kernel: vec![p.kernel; 2],
            strides: vec![p.stride; 2],
            pads: vec![p.pad; 4],
            dilations: vec![1; 2],
            ceil_mode: false,
            column_major: false,
        };
        self.layer(name, "MaxPool", op, &[x])
    }

    pub fn avg_pool(&mut self, name: &str, x: ValueId, p: Pool) -> ValueId {
        let op = ops::AvgPool {
            kernel: vec![p.kernel; 2],
            strides: vec![p.stride; 2],
            pads: vec![p.pad; 4],
            dilations: vec![1; 2],
            ceil_mode: false,
            count_include_pad: false,
        };
        self.layer(name, "AveragePool", op, &[x])
    }

    /// [batch, ...] to [batch, features].
    pub fn flatten(&mut self, name: &str, x: ValueId) -> ValueId {
        let shape = &self.graph.ty(x).shape;
        let features = shape[1..].iter().fold(Dim::ONE, |n, d| &n * d);
        let shape = vec![shape[0].clone(), features];
        self.layer(name, "Flatten", ops::Reshape { shape }, &[x])
    }

    /// Over the last axis.
    pub fn softmax(&mut self, name: &str, x: ValueId) -> ValueId {
        let axis = self.graph.ty(x).rank() - 1;
        self.layer(name, "Softmax", ops::Softmax { axis }, &[x])
    }

    /// Names the outputs and gives the graph.
    pub fn finish(mut self, outputs: &[(&str, ValueId)]) -> Graph {
        for (name, v) in outputs {
            self.graph.add_output(name, *v);
        }
        self.graph
    }

    /// A layer of one operator; `kind` is what ONNX calls it.
    fn layer(&mut self, name: &str, kind: &str, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        let origin = Origin { name: name.into(), index: None, op: kind.into() };
        let v = self.graph.add1(op, operands, vec![origin]).unwrap_or_else(|e| panic!("layer {name}: {e}"));
        self.graph.set_value_name(v, Some(name.into()));
        v
    }

    fn size(&self, x: ValueId, axis: usize) -> usize {
        let n = self.graph.ty(x).shape[axis].as_const().expect("only the batch is symbolic");
        usize::try_from(n).expect("sizes are not negative")
    }

    /// Weights with the output on the first axis: the fan-in is the product of the others.
    fn he(&mut self, name: &str, shape: Vec<usize>) -> ValueId {
        let fan_in: usize = shape[1..].iter().product();
        self.normal(name, shape, (2.0 / fan_in as f64).sqrt())
    }

    fn bias(&mut self, name: &str, n: usize) -> ValueId {
        self.normal(name, vec![n], 0.05)
    }

    fn normal(&mut self, name: &str, shape: Vec<usize>, deviation: f64) -> ValueId {
        let n = shape.iter().product();
        let mut noise = Noise::new(self.seed, name);
        let values: Vec<f64> = (0..n).map(|_| deviation * noise.normal()).collect();
        let tensor = Tensor::from_f64(DType::F32, shape, values);
        self.graph.add_const(ConstValue::Dense { tensor, name: Some(name.into()) })
    }
}

/// SplitMix64, started from a seed and a name.
struct Noise(u64);

impl Noise {
    fn new(seed: u64, name: &str) -> Noise {
        // FNV-1a: short, fixed for ever, and good enough to tell names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        Noise(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's transform.
    fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }
}
