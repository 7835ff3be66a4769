//! What the importer of one operator sees: the node's attributes and operands, the graph to add to, and ways to ask
//! for values that must be known.

use super::attrs::{Attrs, bad};
use super::data;
use super::external::External;
use super::proto::TensorProto;
use super::types::computable_from_onnx;
use super::values::{Build, Known};
use lehr_ir::{ConstValue, DType, Diag, Dim, NodeId, Op, Origin, Tensor, TensorType, ValueId};
use std::collections::BTreeSet;

/// Names that a message lists.
const MAX_NAMES: usize = 16;

/// One ONNX node being imported.
pub struct Site<'a, 'm> {
    pub build: &'a mut Build,
    pub attrs: Attrs<'m>,
    /// The opset whose rules hold.
    pub opset: i64,
    /// Absent optional operands are `None`.
    pub inputs: Vec<Option<ValueId>>,
    /// Which outputs are named, hence asked for.
    pub wanted: Vec<bool>,
    pub(super) origin: Origin,
    pub(super) external: &'a External,
    pub(super) needed: &'a mut BTreeSet<String>,
}

pub type Result<T> = std::result::Result<T, Diag>;

impl Site<'_, '_> {
    /// A required operand.
    pub fn x(&self, i: usize) -> Result<ValueId> {
        self.opt(i).ok_or_else(|| self.error("import.operand", format!("operand {i} is missing")))
    }

    pub fn opt(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.build.graph.ty(v)
    }

    pub fn dtype(&self, v: ValueId) -> DType {
        self.ty(v).dtype
    }

    pub fn rank(&self, v: ValueId) -> usize {
        self.ty(v).rank()
    }

    pub fn shape(&self, v: ValueId) -> Vec<Dim> {
        self.ty(v).shape.clone()
    }

    pub fn wants(&self, output: usize) -> bool {
        self.wanted.get(output).copied().unwrap_or(false)
    }

    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diag {
        Diag::new(code, message)
    }

    /// Adds an operator; gives its first result.
    pub fn op(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.node(op, &inputs)?.out(0))
    }

    /// Adds an operator with optional operands or several results.
    pub fn node(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<NodeId> {
        self.build.add(op.into(), inputs, vec![self.origin.clone()])
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.build.graph.add_const(ConstValue::Dense { tensor, name: None })
    }

    pub fn const_value(&mut self, value: ConstValue) -> ValueId {
        self.build.graph.add_const(value)
    }

    /// The contents of an attribute that is a tensor.
    pub fn attribute_tensor(&self, name: &str, t: &TensorProto) -> Result<Tensor> {
        computable_from_onnx(t.data_type.into())
            .map_err(|e| Diag::new(e.code, format!("attribute {name}: {}", e.message)))?;
        data::read(t, self.external).map_err(|why| bad(name, &why))
    }

    /// A number of a type.
    pub fn scalar(&mut self, value: f64, dtype: DType) -> ValueId {
        self.constant(Tensor::scalar_f64(dtype, value))
    }

    /// An axis counted from either end.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let resolved = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        match resolved.and_then(|a| usize::try_from(a).ok()) {
            Some(a) if a < rank => Ok(a),
            _ => Err(self.error("import.axis", format!("axis {axis} is out of range for rank {rank}"))),
        }
    }

    /// Axes counted from either end, none twice, in the order given.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut list = vec![];
        for &axis in axes {
            let axis = self.axis(axis, rank)?;
            if list.contains(&axis) {
                return Err(self.error("import.axis", format!("axis {axis} is given twice")));
            }
            list.push(axis);
        }
        Ok(list)
    }

    /// The elements of a value that must be known now, as dimensions.
    pub fn dims(&mut self, v: ValueId, what: &str) -> Result<Vec<Dim>> {
        self.build.known(v).and_then(|k| k.dims()).ok_or_else(|| self.unknown(v, what))
    }

    /// The elements of a value that must be numbers, known now.
    pub fn tensor(&mut self, v: ValueId, what: &str) -> Result<Tensor> {
        match self.build.known(v) {
            Some(Known::Exact(t)) => Ok(t),
            Some(Known::Dims { dims, .. }) => {
                let mut symbols = BTreeSet::new();
                dims.iter().for_each(|d| d.symbols(&mut symbols));
                let list: Vec<&str> = symbols.iter().take(MAX_NAMES).map(|s| &**s).collect();
                Err(self
                    .error("import.symbolic", format!("the {what} depends on the dimensions {}", list.join(", ")))
                    .note(format!("give numbers: {}", dim_flags(&list))))
            }
            None => Err(self.unknown(v, what)),
        }
    }

    pub fn ints(&mut self, v: ValueId, what: &str) -> Result<Vec<i64>> {
        Ok(self.tensor(v, what)?.to_i64())
    }

    /// One integer.
    pub fn int(&mut self, v: ValueId, what: &str) -> Result<i64> {
        match self.ints(v, what)?[..] {
            [n] => Ok(n),
            ref list => {
                Err(self.error("import.operand", format!("the {what} is one number, {} are given", list.len())))
            }
        }
    }

    /// One dimension.
    pub fn dim(&mut self, v: ValueId, what: &str) -> Result<Dim> {
        match &self.dims(v, what)?[..] {
            [d] => Ok(d.clone()),
            list => Err(self.error("import.operand", format!("the {what} is one number, {} are given", list.len()))),
        }
    }

    pub fn floats(&mut self, v: ValueId, what: &str) -> Result<Vec<f32>> {
        Ok(self.tensor(v, what)?.to_f32())
    }

    fn unknown(&mut self, v: ValueId, what: &str) -> Diag {
        let on = self.build.dependence(v);
        if !on.inputs.is_empty() {
            let list: Vec<&str> = on.inputs.iter().take(MAX_NAMES).map(String::as_str).collect();
            let flags: Vec<String> = list.iter().map(|n| format!("--bind {n}=FILE")).collect();
            let diag = self
                .error("import.needs-value", format!("the {what} is computed from the graph input {}", list.join(", ")))
                .note(format!("its value decides shapes, so it must be known when compiling: {}", flags.join(" ")));
            self.needed.extend(on.inputs);
            return diag;
        }
        let what = format!("the {what} is not known when compiling");
        if on.symbols.is_empty() {
            return self.error("import.needs-value", what).note("it is computed by nodes that only run with the model");
        }
        let list: Vec<&str> = on.symbols.iter().take(MAX_NAMES).map(|s| &**s).collect();
        self.error("import.symbolic", what).note(format!("give numbers: {}", dim_flags(&list)))
    }
}

fn dim_flags(symbols: &[&str]) -> String {
    symbols.iter().map(|s| format!("--dim {s}=N")).collect::<Vec<_>>().join(" ")
}
