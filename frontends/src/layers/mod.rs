//! Layers, activations and losses over the graph builder, for Rust programs that make their own networks: on a [`Graph`], or in one
//! of the zoo's builder by [`Net::at`](crate::zoo::Net::at).
//!
//! Each is one operator, or an exact composition of operators: it is evaluated, compiled in process and compiled to a
//! library as any graph is, and passes see nothing but operators they know. Forms are chosen that neither overflow nor cancel.
//! What an operator does alone has no function here; [`Layer::unary`] and [`Layer::op`] add it.
//!
//! | function | as | here |
//! |---|---|---|
//! | correlation; 1x1, dilated, grouped | operator `conv`, which does **not** flip the kernel | [`Layer::op`] |
//! | convolution (flips the kernel) | `slice` backwards, `conv` | [`conv::convolution`] |
//! | depthwise separable, separable kernels, stacked kernels | two or more `conv` | [`conv`] |
//! | max, average, global pooling | operators `max_pool`, `avg_pool`, `reduce` | [`pool::global_average`] |
//! | blur (anti-aliased) pooling | `pad`, depthwise `conv` | [`pool::blur`], [`pool::max_blur`] |
//! | batch normalisation, inference | operator `batch_norm` | [`Layer::op`] |
//! | batch normalisation, batch statistics | operator `batch_norm_train`, running update | [`norm::batch_norm`] |
//! | local response normalisation | operator `lrn` | [`Layer::op`] |
//! | dropout, inference | operator `dropout` | [`Layer::op`] |
//! | dropout, training | SplitMix64 in u64 operators, `where` | [`dropout::dropout`] |
//! | dense | operator `gemm` | [`dense`] |
//! | linear (identity) | operator `identity` | [`Layer::op`] |
//! | sigmoid, tanh, ReLU, leaky ReLU, ELU, CELU, SELU, GELU (exact, tanh) | unary functions | [`Layer::unary`] |
//! | PReLU, softplus with beta, ReLU6, log-sigmoid, softmin, sine | a few operators | [`activation`] |
//! | softmax, log-softmax | operators | [`Layer::op`] |
//! | negative log-likelihood, cross-entropy (weights, `ignore_index`) | operators `nll_loss`, `softmax_cross_entropy` | [`loss`] |
//! | L2, L1, smooth L1, binary cross-entropy (weights, logits), Kullback-Leibler | elementwise operators, `reduce` | [`loss`] |
//! | margin ranking, triplet margin, cosine embedding | elementwise operators, `reduce` | [`ranking`] |
//!
//! ```
//! use lehr_frontends::layers::{Layer, activation, loss};
//! use lehr_ir::ops::LossReduction;
//! use lehr_ir::{DType, Graph, TensorType};
//!
//! let mut g = Graph::new("criterion");
//! let x = g.add_input("x", TensorType::new(DType::F32, [4, 10]));
//! let labels = g.add_input("labels", TensorType::new(DType::I64, [4]));
//! let mut at = Layer::new(&mut g, "head");
//! let scores = activation::softplus(&mut at, x, 2.0)?;
//! let y = loss::cross_entropy(&mut at, scores, labels, &loss::Classes::default(), LossReduction::Mean)?;
//! g.add_output("loss", y);
//! assert_eq!(g.ty(y).to_string(), "f32[]");
//! # Ok::<(), lehr_ir::Diag>(())
//! ```

pub mod activation;
pub mod conv;
pub mod dropout;
pub mod loss;
pub mod norm;
pub mod pool;
pub mod ranking;

use lehr_ir::ops::{Binary, BinaryFn, Gemm, Reduce, ReduceFn, Unary, UnaryFn};
use lehr_ir::{ConstValue, DType, Diag, Graph, Location, NodeId, Op, Origin, Tensor, TensorType, ValueId};
use std::sync::Arc;

/// A value of the graph, or what is wrong with the operands, by the layer's name.
pub type Result<T = ValueId> = std::result::Result<T, Diag>;

/// A layer under construction. Its nodes go into the graph and carry the layer's name, which dumps and messages show.
#[derive(Debug)]
pub struct Layer<'g> {
    graph: &'g mut Graph,
    name: Arc<str>,
}

impl<'g> Layer<'g> {
    pub fn new(graph: &'g mut Graph, name: &str) -> Layer<'g> {
        Layer { graph, name: name.into() }
    }

    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.graph.ty(v)
    }

    /// An operator with all its operands; gives its first result.
    pub fn op(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result {
        let operands: Vec<Option<ValueId>> = operands.iter().copied().map(Some).collect();
        Ok(self.node(op, &operands)?.out(0))
    }

    /// An operator some of whose operands may be absent.
    pub fn node(&mut self, op: impl Into<Op>, operands: &[Option<ValueId>]) -> Result<NodeId> {
        let op = op.into();
        let origin = Origin { name: self.name.clone(), index: None, op: op.name().into() };
        self.graph.add(op, operands, vec![origin])
    }

    pub fn unary(&mut self, f: UnaryFn, x: ValueId) -> Result {
        self.op(Unary { f }, &[x])
    }

    pub fn binary(&mut self, f: BinaryFn, x: ValueId, y: ValueId) -> Result {
        self.op(Binary { f }, &[x, y])
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_const(ConstValue::Dense { tensor, name: None })
    }

    /// A number, rounded to the element type of `like`.
    pub fn number(&mut self, value: f64, like: ValueId) -> ValueId {
        let tensor = Tensor::scalar_f64(self.ty(like).dtype, value);
        self.constant(tensor)
    }

    /// `f` of x and a number.
    pub fn with(&mut self, f: BinaryFn, x: ValueId, value: f64) -> Result {
        let value = self.number(value, x);
        self.binary(f, x, value)
    }

    /// Reduces over `axes`, which go away.
    pub fn reduce(&mut self, f: ReduceFn, x: ValueId, axes: Vec<usize>) -> Result {
        self.op(Reduce { f, axes, keepdims: false }, &[x])
    }

    /// A complaint about what this layer is given.
    fn error(&self, code: &'static str, message: String) -> Diag {
        let location = Location::Node { name: self.name.clone(), index: None, op: "layer".into() };
        Diag::new(code, message).at(location)
    }

    /// The operands of a layer have one shape: what would broadcast is more often a mistake than meant.
    fn require_one_type(&self, x: ValueId, y: ValueId) -> Result<()> {
        let (x, y) = (self.ty(x), self.ty(y));
        match x == y {
            true => Ok(()),
            false => Err(self.error("layer.types", format!("it takes two tensors of one type, not {x} and {y}"))),
        }
    }

    fn require_floats(&self, x: ValueId) -> Result<()> {
        match self.ty(x).dtype {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => Ok(()),
            _ => Err(self.error("layer.floats", format!("it takes floats, not {}", self.ty(x)))),
        }
    }
}

/// `x * w^T + b`: x is [n, features], w [outputs, features] (as torch stores it), b [outputs].
pub fn dense(l: &mut Layer, x: ValueId, w: ValueId, b: Option<ValueId>) -> Result {
    let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    Ok(l.node(op, &[Some(x), Some(w), b])?.out(0))
}
