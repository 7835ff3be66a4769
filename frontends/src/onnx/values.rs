//! The graph under construction, and what is known of small values in it. ONNX gives shapes, axes, pads and the
//! like as tensors that the graph may compute; our operators have them as attributes. So every node that is added is
//! also evaluated, if its operands are known: exactly, or as dimensions with symbols in them.

use lehr_ir::dtype::Kind;
use lehr_ir::op::In;
use lehr_ir::ops::{Binary, BinaryFn, Expand, ReduceFn, Unary, UnaryFn};
use lehr_ir::{DType, Diag, Dim, Graph, NodeId, Op, Provenance, Tensor, TensorType, ValueId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Values of more elements are not followed: shapes, axes and pads are short.
const MAX_ELEMENTS: usize = 4096;
/// Of values with symbols in them: their arithmetic costs more.
const MAX_DIMS: usize = 256;
/// Larger expressions in a dimension are refused (see [`Dim::weight`]).
const MAX_WEIGHT: usize = 512;
/// Nodes that explaining unknown values may visit in all.
const MAX_VISITS: usize = 2_000_000;

/// What is known of a value.
#[derive(Clone, Debug)]
pub enum Known {
    Exact(Tensor),
    /// Integers in which the dimensions of graph inputs occur.
    Dims {
        shape: Vec<usize>,
        dims: Vec<Dim>,
    },
}

impl Known {
    /// The elements as dimensions; `None` for what is not made of integers.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        match self {
            Known::Exact(t) if t.dtype().is_int() => Some(t.to_i64().into_iter().map(Dim::Const).collect()),
            Known::Exact(_) => None,
            Known::Dims { dims, .. } => Some(dims.clone()),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Known::Exact(t) => t.shape(),
            Known::Dims { shape, .. } => shape,
        }
    }

    fn exact(&self) -> Option<&Tensor> {
        match self {
            Known::Exact(t) => Some(t),
            Known::Dims { .. } => None,
        }
    }

    fn from_dims(dtype: DType, shape: Vec<usize>, dims: Vec<Dim>) -> Option<Known> {
        let numbers: Option<Vec<i128>> = dims.iter().map(|d| d.as_const().map(i128::from)).collect();
        Some(match numbers {
            Some(n) => Known::Exact(Tensor::from_i128(dtype, shape, n)),
            None if dims.len() > MAX_DIMS || dims.iter().any(|d| d.weight() > MAX_WEIGHT) => return None,
            None => Known::Dims { shape, dims },
        })
    }
}

/// What an unknown value hangs on.
#[derive(Debug, Default)]
pub struct Dependence {
    /// Graph inputs whose elements it is computed from.
    pub inputs: BTreeSet<String>,
    /// It is computed from a shape with symbols in it, in a way that symbols do not survive.
    pub symbols: BTreeSet<Arc<str>>,
}

/// A graph under construction.
#[derive(Debug)]
pub struct Build {
    pub graph: Graph,
    known: HashMap<ValueId, Known>,
    visits: usize,
}

impl Build {
    pub fn new(name: &str) -> Build {
        Build { graph: Graph::new(name), known: HashMap::new(), visits: 0 }
    }

    /// Adds a node and follows its values.
    pub fn add(&mut self, op: Op, inputs: &[Option<ValueId>], origins: Provenance) -> Result<NodeId, Diag> {
        let id = self.graph.add(op, inputs, origins)?;
        for result in &self.graph.node(id).results {
            let dims = result.ty.as_tensor().map_or(&[][..], |t| &t.shape);
            if dims.iter().any(|d| d.weight() > MAX_WEIGHT) {
                return Err(Diag::new("import.dims", "the result's dimensions are too complicated to follow")
                    .note("give numbers for the model's symbolic dimensions with --dim NAME=N")
                    .at(self.graph.location(id)));
            }
        }
        self.follow(id);
        Ok(id)
    }

    /// What is known of a value.
    pub fn known(&self, v: ValueId) -> Option<Known> {
        if let Some(value) = self.graph.constant(v) {
            let small = value.ty().elements().as_const().is_some_and(|n| n <= MAX_ELEMENTS as i64);
            return small.then(|| Known::Exact(value.tensor()));
        }
        self.known.get(&v).cloned()
    }

    /// Why a value is not known. Gives up, with what it found, on models that ask for it over and over.
    pub fn dependence(&mut self, v: ValueId) -> Dependence {
        let mut found = Dependence::default();
        let (mut stack, mut seen) = (vec![v], HashSet::from([v.node]));
        while let Some(v) = stack.pop() {
            self.visits += 1;
            if self.visits > MAX_VISITS {
                break;
            }
            let node = self.graph.node(v.node);
            match &node.op {
                Op::Input(_) => {
                    found.inputs.extend(self.graph.value_name(v).map(str::to_string));
                }
                Op::ShapeOf(_) | Op::SizeOf(_) => {
                    for x in node.inputs.iter().flatten() {
                        self.graph.ty(*x).shape.iter().for_each(|d| d.symbols(&mut found.symbols));
                    }
                }
                _ => stack.extend(node.inputs.iter().flatten().filter(|x| seen.insert(x.node))),
            }
        }
        found
    }

    fn follow(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let types: Option<Vec<TensorType>> = node.results.iter().map(|r| r.ty.as_tensor().cloned()).collect();
        let Some(types) = types else { return };
        let small = |t: &TensorType| t.elements().as_const().is_some_and(|n| n <= MAX_ELEMENTS as i64);
        if !types.iter().all(small) || !types.iter().all(|t| t.const_shape().is_some()) {
            return;
        }
        if let Some(values) = self.values_of(id, &types) {
            for (port, value) in values.into_iter().enumerate() {
                self.known.insert(id.out(port as u32), value);
            }
        }
    }

    fn values_of(&self, id: NodeId, types: &[TensorType]) -> Option<Vec<Known>> {
        let node = self.graph.node(id);
        match &node.op {
            Op::ShapeOf(op) => {
                let dims = self.graph.ty(node.inputs[0]?).shape.get(op.start..op.end)?.to_vec();
                return Some(vec![Known::from_dims(DType::I64, vec![dims.len()], dims)?]);
            }
            Op::SizeOf(_) => {
                return Some(vec![Known::from_dims(
                    DType::I64,
                    vec![],
                    vec![self.graph.ty(node.inputs[0]?).elements()],
                )?]);
            }
            op if !is_cheap(op) => return None,
            _ => {}
        }
        let operands: Vec<Known> = node.inputs.iter().map(|v| self.known((*v)?)).collect::<Option<_>>()?;
        let exact: Option<Vec<Option<&Tensor>>> = operands.iter().map(|k| k.exact().map(Some)).collect();
        if let Some(tensors) = exact {
            let results = node.op.eval(In(&tensors), types).ok()?;
            return Some(results.into_iter().map(Known::Exact).collect());
        }
        Some(vec![symbolic(&node.op, &operands, &types[0])?])
    }
}

/// Operators of which shapes are computed, and whose evaluation takes time in proportion to their operands and
/// results. (A convolution with a huge kernel does not, and is never part of a shape.)
fn is_cheap(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Where(_)
            | Op::Cast(_)
            | Op::Clip(_)
            | Op::Concat(_)
            | Op::Slice(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Expand(_)
            | Op::Tile(_)
            | Op::Identity(_)
            | Op::Dropout(_)
            | Op::Gather(_)
            | Op::GatherElements(_)
            | Op::GatherNd(_)
            | Op::ScatterElements(_)
            | Op::ScatterNd(_)
            | Op::Reduce(_)
            | Op::ArgReduce(_)
            | Op::CumSum(_)
            | Op::Range(_)
            | Op::Eye(_)
            | Op::OneHot(_)
            | Op::TopK(_)
            | Op::Trilu(_)
    )
}

/// The value of an operator on operands of which some hold symbols.
fn symbolic(op: &Op, operands: &[Known], ty: &TensorType) -> Option<Known> {
    let shape = ty.const_shape()?;
    match op {
        Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Concat(_)
        | Op::Slice(_)
        | Op::Identity(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::Where(_) => moved(op, operands, ty),
        Op::Cast(cast) if matches!(cast.to.kind(), Kind::Signed | Kind::Unsigned) => {
            Known::from_dims(ty.dtype, shape, operands[0].dims()?)
        }
        Op::Unary(Unary { f: UnaryFn::Neg }) => {
            Known::from_dims(ty.dtype, shape, operands[0].dims()?.iter().map(|d| &Dim::ZERO - d).collect())
        }
        Op::Binary(Binary { f }) => {
            let (x, y) = (spread(&operands[0], &shape)?, spread(&operands[1], &shape)?);
            if let Some(truths) = x.iter().zip(&y).map(|(x, y)| compare(*f, x, y)).collect::<Option<Vec<bool>>>() {
                let tensor = Tensor::from_i128(DType::Bool, shape, truths.into_iter().map(i128::from));
                return Some(Known::Exact(tensor));
            }
            let dims: Option<Vec<Dim>> = x.iter().zip(&y).map(|(x, y)| combine(*f, x, y)).collect();
            Known::from_dims(ty.dtype, shape, dims?)
        }
        Op::Reduce(reduce) if shape.iter().product::<usize>() == 1 => {
            let f: fn(&Dim, &Dim) -> Dim = match reduce.f {
                ReduceFn::Prod => |a, b| a * b,
                ReduceFn::Sum => |a, b| a + b,
                ReduceFn::Max => Dim::maximum,
                ReduceFn::Min => Dim::minimum,
                _ => return None,
            };
            let mut dims = operands[0].dims()?.into_iter();
            let first = dims.next()?;
            let total = dims.try_fold(first, |a, b| Some(f(&a, &b)).filter(|d| d.weight() <= MAX_WEIGHT))?;
            Known::from_dims(ty.dtype, shape, vec![total])
        }
        _ => None,
    }
}

/// Operators that move elements: they are evaluated on numbers that stand for the elements.
fn moved(op: &Op, operands: &[Known], ty: &TensorType) -> Option<Known> {
    let is_data = |i: usize| match op {
        Op::Where(_) => i > 0,
        Op::Concat(_) => true,
        _ => i == 0,
    };
    let mut table: Vec<Dim> = vec![];
    let mut tensors = vec![];
    for (i, operand) in operands.iter().enumerate() {
        if !is_data(i) {
            tensors.push(operand.exact()?.clone());
            continue;
        }
        let dims = operand.dims()?;
        let handles = (table.len()..table.len() + dims.len()).map(|h| h as i128);
        tensors.push(Tensor::from_i128(DType::I64, operand.shape().to_vec(), handles));
        table.extend(dims);
    }
    let refs: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
    let out = TensorType { dtype: DType::I64, shape: ty.shape.clone() };
    let result = op.eval(In(&refs), &[out]).ok()?.into_iter().next()?;
    let dims: Option<Vec<Dim>> =
        result.to_i64().iter().map(|&h| table.get(usize::try_from(h).ok()?).cloned()).collect();
    Known::from_dims(ty.dtype, result.shape().to_vec(), dims?)
}

/// The elements of an operand, broadcast to `shape`.
fn spread(operand: &Known, shape: &[usize]) -> Option<Vec<Dim>> {
    let op = Op::from(Expand { shape: shape.iter().map(|&d| Dim::Const(d as i64)).collect() });
    let ty = TensorType::new(DType::I64, shape.iter().map(|&d| d as i64));
    moved(&op, std::slice::from_ref(operand), &ty)?.dims()
}

fn combine(f: BinaryFn, x: &Dim, y: &Dim) -> Option<Dim> {
    match f {
        BinaryFn::Add => Some(x + y),
        BinaryFn::Sub => Some(x - y),
        BinaryFn::Mul => Some(x * y),
        // ONNX truncates and dimensions floor, which is the same for sizes: they are not negative.
        BinaryFn::Div if !y.is(0) => Some(x.floor_div(y)),
        BinaryFn::Mod if !y.is(0) => Some(x - &(&x.floor_div(y) * y)),
        BinaryFn::Min => Some(x.minimum(y)),
        BinaryFn::Max => Some(x.maximum(y)),
        _ => None,
    }
}

/// Decides a comparison. An expression with symbols is a size, so it is not negative.
fn compare(f: BinaryFn, x: &Dim, y: &Dim) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (x.as_const(), y.as_const()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, Some(b)) if b < 0 => Greater,
        (Some(a), None) if a < 0 => Less,
        _ if x == y => Equal,
        _ => return None,
    };
    match f {
        BinaryFn::Equal => Some(order == Equal),
        BinaryFn::Less => Some(order == Less),
        BinaryFn::LessEqual => Some(order != Greater),
        BinaryFn::Greater => Some(order == Greater),
        BinaryFn::GreaterEqual => Some(order != Less),
        _ => None,
    }
}
