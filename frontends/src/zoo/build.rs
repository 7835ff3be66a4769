//! A small typed builder of networks. Every layer has a name, which its values, weights and provenance carry.
//!
//! ```
//! use lehr_frontends::zoo::{Conv, Net, Pool, Weights};
//!
//! let mut net = Net::new("digits", Weights::Seeded(1));
//! let x = net.image("image", 1, 28, 28);
//! let x = net.conv("conv1", x, Conv::new(16, 3).pad(1))?;
//! let x = net.relu("relu1", x)?;
//! let x = net.max_pool("pool1", x, Pool::new(2, 2))?;
//! let x = net.flatten("flat", x)?;
//! let x = net.linear("fc", x, 10)?;
//! net.output("logits", x);
//! assert_eq!(net.parameters(), 16 * 9 + 16 + 16 * 14 * 14 * 10 + 10);
//! let graph = net.finish();
//! assert_eq!(graph.ty(graph.outputs[0].value).to_string(), "f32[batch,10]");
//! # Ok::<(), lehr_ir::Diag>(())
//! ```
//!
//! A layer that does not fit its operands is a [`Diag`] that names the layer. Weights are named as PyTorch names them
//! (`conv1.weight`, `bn1.running_mean`), so that its checkpoints load.

use super::weights::{Init, Start, Weights};
use crate::layers::Layer;
use crate::layers::pool::{Blur, blur};
use lehr_ir::ops::{self, BinaryFn, PadMode, UnaryFn};
use lehr_ir::{ConstValue, DType, Diag, Dim, Graph, Op, Origin, Tensor, TensorType, ValueId};
use std::fmt;

/// A value of the network: an input, or a layer's result.
pub type Value = ValueId;

/// What every layer gives.
pub type Built = Result<Value, Diag>;

/// Parameters a network may have at most: 4 GiB in f32.
const MAX_PARAMETERS: u64 = 1 << 30;

/// A network under construction.
pub struct Net {
    graph: Graph,
    weights: Weights,
    init: Init,
    parameters: u64,
}

/// A convolution (correlation: kernels are not flipped) over height and width, with bias.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Output channels.
    pub channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// At both ends of each axis.
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    pub bias: bool,
}

impl Conv {
    /// A square kernel.
    pub const fn new(channels: usize, kernel: usize) -> Conv {
        Conv { channels, kernel: [kernel; 2], stride: [1; 2], pad: [0; 2], dilation: [1; 2], groups: 1, bias: true }
    }

    pub const fn stride(self, stride: usize) -> Conv {
        Conv { stride: [stride; 2], ..self }
    }

    pub const fn pad(self, pad: usize) -> Conv {
        Conv { pad: [pad; 2], ..self }
    }

    pub const fn dilation(self, dilation: usize) -> Conv {
        Conv { dilation: [dilation; 2], ..self }
    }

    pub const fn groups(self, groups: usize) -> Conv {
        Conv { groups, ..self }
    }

    pub const fn without_bias(self) -> Conv {
        Conv { bias: false, ..self }
    }
}

/// A square pooling window.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    /// On all four sides.
    pub pad: usize,
    /// Whether a last partial window counts.
    pub ceil: bool,
}

impl Pool {
    pub const fn new(kernel: usize, stride: usize) -> Pool {
        Pool { kernel, stride, pad: 0, ceil: false }
    }

    pub const fn pad(self, pad: usize) -> Pool {
        Pool { pad, ..self }
    }

    pub const fn ceil(self) -> Pool {
        Pool { ceil: true, ..self }
    }
}

/// Batch normalisation by given statistics.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    pub eps: f32,
    /// What the scales are near at first: below 1 in the last one of a residual block, lest the sum grows with depth.
    pub gain: f64,
}

impl Default for BatchNorm {
    fn default() -> BatchNorm {
        BatchNorm { eps: 1e-5, gain: 1.0 }
    }
}

impl Net {
    pub fn new(name: &str, weights: Weights) -> Net {
        Net { graph: Graph::new(name), weights, init: Init::He, parameters: 0 }
    }

    /// How convolutions and dense layers are initialised from here on; He's way until then.
    pub fn set_init(&mut self, init: Init) {
        self.init = init;
    }

    // ---- inputs ----

    /// An input f32[batch, channels, height, width].
    pub fn image(&mut self, name: &str, channels: usize, height: usize, width: usize) -> Value {
        self.input(name, &[channels, height, width])
    }

    /// An input f32[batch, ...sizes].
    pub fn input(&mut self, name: &str, sizes: &[usize]) -> Value {
        let sizes = sizes.iter().map(|&n| Dim::Const(n as i64));
        self.graph.add_input(name, TensorType::new(DType::F32, std::iter::once(Dim::symbol("batch")).chain(sizes)))
    }

    // ---- layers with weights ----

    /// Weights `NAME.weight` [channels, channels of x / groups, kernel...] and `NAME.bias`.
    pub fn conv(&mut self, name: &str, x: Value, c: Conv) -> Built {
        let inputs = self.size(x, 1)?;
        if c.groups == 0 || inputs % c.groups != 0 {
            let why = format!("layer {name}: {inputs} input channels do not divide into {} groups", c.groups);
            return Err(Diag::new("zoo.groups", why));
        }
        let shape = [c.channels, inputs / c.groups, c.kernel[0], c.kernel[1]];
        let w = self.weight(&format!("{name}.weight"), &shape, self.init)?;
        let b = if c.bias { Some(self.bias(name, c.channels)?) } else { None };
        let pads = [c.pad, c.pad].concat();
        let op = ops::Conv { strides: c.stride.to_vec(), pads, dilations: c.dilation.to_vec(), groups: c.groups };
        self.layer(name, op, &[Some(x), Some(w), b])
    }

    /// `x * w^T + b`, x being [batch, features]. Weights `NAME.weight` [features, features of x] and `NAME.bias`.
    pub fn linear(&mut self, name: &str, x: Value, features: usize) -> Built {
        let shape = [features, self.size(x, 1)?];
        let w = self.weight(&format!("{name}.weight"), &shape, self.init)?;
        let b = self.bias(name, features)?;
        let op = ops::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        self.layer(name, op, &[Some(x), Some(w), Some(b)])
    }

    /// Like [`Net::linear`], with weights that are computed rather than drawn; a file still goes first.
    pub fn linear_of(&mut self, name: &str, x: Value, weight: Tensor, bias: Tensor) -> Built {
        let w = self.weight_of(&format!("{name}.weight"), weight)?;
        let b = self.weight_of(&format!("{name}.bias"), bias)?;
        let op = ops::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        self.layer(name, op, &[Some(x), Some(w), Some(b)])
    }

    /// `(x - mean)/sqrt(var + eps)*scale + bias` per channel. Weights `NAME.weight` and `NAME.bias`, statistics
    /// `NAME.running_mean` and `NAME.running_var`; these differ a little from 0 and 1, so that no test overlooks them.
    pub fn batch_norm(&mut self, name: &str, x: Value, n: BatchNorm) -> Built {
        let shape = [self.size(x, 1)?];
        let scale = Init::Normal { mean: n.gain, deviation: 0.1 * n.gain };
        let noise = Init::Normal { mean: 0.0, deviation: 0.05 };
        let scale = self.weight(&format!("{name}.weight"), &shape, scale)?;
        let bias = self.weight(&format!("{name}.bias"), &shape, noise)?;
        let mean = self.statistic(&format!("{name}.running_mean"), &shape, noise)?;
        let var = self.statistic(&format!("{name}.running_var"), &shape, Init::Uniform { low: 0.8, high: 1.2 })?;
        self.layer(name, ops::BatchNorm { eps: n.eps }, &[x, scale, bias, mean, var].map(Some))
    }

    // ---- layers without ----

    pub fn activation(&mut self, name: &str, x: Value, f: UnaryFn) -> Built {
        self.layer(name, ops::Unary { f }, &[Some(x)])
    }

    pub fn relu(&mut self, name: &str, x: Value) -> Built {
        self.activation(name, x, UnaryFn::Relu)
    }

    /// Of two values, broadcast against each other.
    pub fn binary(&mut self, name: &str, f: BinaryFn, x: Value, y: Value) -> Built {
        self.layer(name, ops::Binary { f }, &[Some(x), Some(y)])
    }

    pub fn add(&mut self, name: &str, x: Value, y: Value) -> Built {
        self.binary(name, BinaryFn::Add, x, y)
    }

    pub fn mul(&mut self, name: &str, x: Value, y: Value) -> Built {
        self.binary(name, BinaryFn::Mul, x, y)
    }

    /// `x` times a number.
    pub fn scale(&mut self, name: &str, x: Value, by: f64) -> Built {
        let by = self.constant(&format!("{name}.by"), Tensor::scalar_f64(DType::F32, by));
        self.mul(name, x, by)
    }

    /// Joins channels.
    pub fn concat(&mut self, name: &str, xs: &[Value]) -> Built {
        let xs: Vec<Option<Value>> = xs.iter().copied().map(Some).collect();
        self.layer(name, ops::Concat { axis: 1 }, &xs)
    }

    pub fn max_pool(&mut self, name: &str, x: Value, p: Pool) -> Built {
        let op = ops::MaxPool {
            kernel: vec![p.kernel; 2],
            strides: vec![p.stride; 2],
            pads: vec![p.pad; 4],
            dilations: vec![1; 2],
            ceil_mode: p.ceil,
            column_major: false,
        };
        self.layer(name, op, &[Some(x)])
    }

    /// Padding does not count in the mean.
    pub fn avg_pool(&mut self, name: &str, x: Value, p: Pool) -> Built {
        let op = ops::AvgPool {
            kernel: vec![p.kernel; 2],
            strides: vec![p.stride; 2],
            pads: vec![p.pad; 4],
            dilations: vec![1; 2],
            ceil_mode: p.ceil,
            count_include_pad: false,
        };
        self.layer(name, op, &[Some(x)])
    }

    /// The mean over height and width, which stay as 1.
    pub fn global_avg_pool(&mut self, name: &str, x: Value) -> Built {
        let axes = (2..self.graph.ty(x).rank()).collect();
        self.layer(name, ops::Reduce { f: ops::ReduceFn::Mean, axes, keepdims: true }, &[Some(x)])
    }

    /// [`blur`], reflected at the border: a binomial filter of `taps` x `taps`, at every `stride`-th place.
    pub fn blur_pool(&mut self, name: &str, x: Value, taps: usize, stride: usize) -> Built {
        let y = blur(&mut self.at(name), x, Blur { taps, stride, border: PadMode::Reflect })?;
        self.graph.set_value_name(y, Some(name.into()));
        Ok(y)
    }

    /// A max pool whose subsampling is anti-aliased: the maximum at every place, then [`Net::blur_pool`].
    pub fn max_blur_pool(&mut self, name: &str, x: Value, p: Pool, taps: usize) -> Built {
        let x = self.max_pool(&format!("{name}.max"), x, Pool { stride: 1, ..p })?;
        self.blur_pool(name, x, taps, p.stride)
    }

    /// Local response normalisation over `size` channels: `x / (bias + alpha/size * sum of squares)^beta`.
    pub fn lrn(&mut self, name: &str, x: Value, op: ops::Lrn) -> Built {
        self.layer(name, op, &[Some(x)])
    }

    /// Dropout in inference: the identity. It stays in the graph until a pass removes it.
    pub fn dropout(&mut self, name: &str, x: Value) -> Built {
        self.layer(name, ops::Dropout {}, &[Some(x)])
    }

    /// [batch, ...] to [batch, features].
    pub fn flatten(&mut self, name: &str, x: Value) -> Built {
        let [batch, rest @ ..] = &self.graph.ty(x).shape[..] else {
            return Err(Diag::new("zoo.rank", format!("layer {name}: a scalar has no batch")));
        };
        let features = rest.iter().fold(Dim::ONE, |n, d| &n * d);
        let shape = vec![batch.clone(), features];
        self.layer(name, ops::Reshape { shape }, &[Some(x)])
    }

    /// Over the last axis.
    pub fn softmax(&mut self, name: &str, x: Value) -> Built {
        let axis = self.graph.ty(x).rank().saturating_sub(1);
        self.layer(name, ops::Softmax { axis }, &[Some(x)])
    }

    // ---- what the others are made of ----

    /// A layer for the functions of [`crate::layers`]: `activation::softplus(&mut net.at("act1"), x, 2.0)?`.
    pub fn at(&mut self, name: &str) -> Layer<'_> {
        Layer::new(&mut self.graph, name)
    }

    /// A layer of any operator; absent optional operands are `None`. Gives the first result.
    pub fn layer(&mut self, name: &str, op: impl Into<Op>, operands: &[Option<Value>]) -> Built {
        let op = op.into();
        let origin = Origin { name: name.into(), index: None, op: op.name().into() };
        let v = self.graph.add(op, operands, vec![origin])?.out(0);
        let ty = self.graph.ty(v);
        if ty.shape.iter().any(|d| d.is(0)) {
            return Err(Diag::new("zoo.empty", format!("layer {name} would have the empty result {ty}")));
        }
        self.graph.set_value_name(v, Some(name.into()));
        Ok(v)
    }

    /// A trainable weight, which counts as parameters.
    pub fn weight(&mut self, name: &str, shape: &[usize], init: Init) -> Built {
        let value = self.parameter(name, shape, init)?;
        Ok(self.graph.add_const(value))
    }

    /// The values of a trainable weight that goes into the graph in another form. It counts as parameters.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ConstValue, Diag> {
        self.count(name, shape)?;
        self.weights.values(name, shape, Start::Drawn(init))
    }

    fn weight_of(&mut self, name: &str, tensor: Tensor) -> Built {
        self.count(name, tensor.shape())?;
        let shape = tensor.shape().to_vec();
        let value = self.weights.values(name, &shape, Start::Given(tensor))?;
        Ok(self.graph.add_const(value))
    }

    fn count(&mut self, name: &str, shape: &[usize]) -> Result<(), Diag> {
        let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let parameters = elements.and_then(|n| n.checked_add(self.parameters)).filter(|&n| n <= MAX_PARAMETERS);
        self.parameters = parameters.ok_or_else(|| {
            Diag::new("zoo.size", format!("with {name} {shape:?} the network would have more than 2^30 parameters"))
        })?;
        Ok(())
    }

    /// A weight that training does not change by gradients: it is loaded like any other, and does not count.
    fn statistic(&mut self, name: &str, shape: &[usize], init: Init) -> Built {
        let value = self.weights.values(name, shape, Start::Drawn(init))?;
        Ok(self.graph.add_const(value))
    }

    fn bias(&mut self, layer: &str, n: usize) -> Built {
        // Zero is usual; a little noise shows a forgotten bias.
        self.weight(&format!("{layer}.bias"), &[n], Init::Normal { mean: 0.0, deviation: 0.05 })
    }

    /// A constant that belongs to the architecture.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Value {
        self.graph.add_const(ConstValue::Dense { tensor, name: Some(name.into()) })
    }

    /// The type of a value, such as `f32[batch,64,56,56]`.
    pub fn ty(&self, x: Value) -> &TensorType {
        self.graph.ty(x)
    }

    /// The size of an axis other than the batch.
    pub fn size(&self, x: Value, axis: usize) -> Result<usize, Diag> {
        let ty = self.graph.ty(x);
        let n = ty.shape.get(axis).and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| Diag::new("zoo.rank", format!("{ty} has no axis {axis} of a known size")))
    }

    /// Makes a value an output.
    pub fn output(&mut self, name: &str, x: Value) {
        self.graph.add_output(name, x);
    }

    /// The number of trainable elements so far.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Weights of the file that the network did not ask for.
    pub fn unused_weights(&self) -> Vec<String> {
        match &self.weights {
            Weights::File(file) => file.unused(),
            Weights::Seeded(_) | Weights::Zeros => vec![],
        }
    }

    pub fn finish(self) -> Graph {
        self.graph
    }
}

/// Name and size: weights would drown the rest.
impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.graph.ids().count();
        write!(f, "Net({}: {nodes} nodes, {} parameters)", self.graph.name, self.parameters)
    }
}
