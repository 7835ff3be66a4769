//! The reference evaluator: runs a graph node by node with each operator's own `eval`. It is the oracle for
//! everything that is compiled, so it is plain, and shares nothing with lowering.

use crate::diag::Location;
use crate::dim::Dim;
use crate::graph::{Graph, NodeId, Use, ValueId};
use crate::op::In;
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;
use std::collections::BTreeMap;
use std::fmt;

/// A value may take so much memory: the evaluator is made for small models, and must not bring the machine down on others.
const MAX_BYTES: i64 = 1 << 34;

/// Why a graph could not be evaluated: inputs that do not fit, or a fault of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    pub location: Location,
    pub message: String,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

impl std::error::Error for EvalError {}

/// Evaluates `graph`. `inputs` are in the order of its inputs and bind the symbols in their shapes. `observe` sees
/// every value once, as soon as it is there; a value is freed after its last use.
pub fn evaluate(
    graph: &Graph,
    inputs: &[Tensor],
    observe: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    let symbols = bind_symbols(graph, inputs)?;
    let bound;
    let graph = if symbols.is_empty() {
        graph
    } else {
        let lookup = |s: &str| symbols.get(s).map(|&n| Dim::Const(n));
        bound = graph.bind(&lookup).map_err(|d| EvalError { location: d.location, message: d.message })?;
        &bound
    };
    check_inputs(graph, inputs)?;
    let order = graph.order();
    let uses = graph.uses();
    let mut position = vec![0usize; graph.id_bound()];
    for (at, id) in order.iter().enumerate() {
        position[id.index()] = at;
    }
    let mut values: BTreeMap<ValueId, Tensor> = graph.inputs().iter().copied().zip(inputs.iter().cloned()).collect();
    for (&v, t) in graph.inputs().iter().zip(inputs) {
        observe(v, t);
    }
    for (at, &id) in order.iter().enumerate() {
        let node = graph.node(id);
        if matches!(node.op, Op::Input(_)) {
            continue;
        }
        let operands: Vec<Option<&Tensor>> = node.inputs.iter().map(|v| v.map(|v| &values[&v])).collect();
        let results = eval_node(graph, id, &operands)?;
        for (port, t) in results.into_iter().enumerate() {
            let v = id.out(port as u32);
            observe(v, &t);
            if !uses.of(v).is_empty() {
                values.insert(v, t);
            }
        }
        for &v in node.inputs.iter().flatten() {
            let live = uses.of(v).iter().any(|u| match u {
                Use::Operand { node, .. } => position[node.index()] > at,
                Use::Output { .. } => true,
            });
            if !live {
                values.remove(&v);
            }
        }
    }
    let output = |v: ValueId| values.get(&v).cloned();
    let missing = || EvalError { location: Location::Model, message: "an output hangs on a cycle".into() };
    graph.outputs.iter().map(|o| output(o.value).ok_or_else(missing)).collect()
}

/// Evaluates one node, regions included. Its types must hold no symbols.
pub fn eval_node(graph: &Graph, id: NodeId, operands: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
    let node = graph.node(id);
    let fail = |message: String| EvalError { location: graph.location(id), message };
    if let [region] = &node.regions[..] {
        let inputs: Vec<Tensor> = operands.iter().copied().flatten().cloned().collect();
        return evaluate(region, &inputs, &mut |_, _| {});
    }
    let types: Vec<TensorType> = node.results.iter().filter_map(|r| r.ty.as_tensor().cloned()).collect();
    if types.iter().any(|t| t.const_shape().is_none()) {
        return Err(fail("the shapes of the results hold symbols that no input binds".into()));
    }
    if let Some(t) = types.iter().find(|t| t.bytes().as_const().is_none_or(|n| n > MAX_BYTES)) {
        return Err(fail(format!("its result {t} is too large to evaluate")));
    }
    node.op.eval(In(operands), &types).map_err(fail)
}

/// Numbers for the symbols that stand alone as a dimension of an input.
fn bind_symbols(graph: &Graph, inputs: &[Tensor]) -> Result<BTreeMap<String, i64>, EvalError> {
    let mut symbols: BTreeMap<String, i64> = BTreeMap::new();
    for (&v, t) in graph.inputs().iter().zip(inputs) {
        for (d, &n) in graph.ty(v).shape.iter().zip(t.shape()) {
            let Some(name) = d.as_symbol() else { continue };
            let n = n as i64;
            if *symbols.entry(name.to_string()).or_insert(n) != n {
                let message = format!("dimension {name} is {} in one input and {n} here", symbols[name]);
                return Err(EvalError { location: input_location(graph, v), message });
            }
        }
    }
    Ok(symbols)
}

fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<(), EvalError> {
    if inputs.len() != graph.inputs().len() {
        let message = format!("{} inputs are given, the graph has {}", inputs.len(), graph.inputs().len());
        return Err(EvalError { location: Location::Model, message });
    }
    for (&v, t) in graph.inputs().iter().zip(inputs) {
        if t.ty() != *graph.ty(v) {
            let message = format!("it is {}, the graph needs {}", t.ty(), graph.ty(v));
            return Err(EvalError { location: input_location(graph, v), message });
        }
    }
    Ok(())
}

fn input_location(graph: &Graph, v: ValueId) -> Location {
    Location::Value { name: graph.value_name(v).unwrap_or("input").into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::{Binary, BinaryFn, Unary, UnaryFn};

    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType { dtype: DType::F32, shape: vec![Dim::symbol("n"), Dim::Const(2)] });
        let y = g.add1(Unary { f: UnaryFn::Relu }, &[x], vec![]).unwrap();
        let z = g.add1(Binary { f: BinaryFn::Add }, &[y, x], vec![]).unwrap();
        g.add_output("z", z);
        g
    }

    #[test]
    fn binds_symbols_and_shows_every_value() {
        let x = Tensor::from_f64(DType::F32, vec![1, 2], [-1.0, 2.0]);
        let mut seen = 0;
        let out = evaluate(&graph(), &[x], &mut |_, _| seen += 1).unwrap();
        assert_eq!(out[0].to_f64(), [-1.0, 4.0]);
        assert_eq!(seen, 3);
    }

    #[test]
    fn refuses_inputs_that_do_not_fit() {
        let wrong = Tensor::from_f64(DType::F32, vec![1, 3], [0.0; 3]);
        assert!(evaluate(&graph(), &[wrong], &mut |_, _| {}).is_err());
        assert!(evaluate(&graph(), &[], &mut |_, _| {}).is_err());
    }
}
