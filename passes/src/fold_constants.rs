//! op(constants) == constant; shape_of(x), size_of(x) == constant where the shape is known.
//! Needs: a result of bounded size, that the evaluator computes in bounded time without a fault.
//! Exactness: Rounding (the evaluator rounds once, a kernel perhaps more often).

use crate::manager::GraphChanges;
use crate::report::Event;
use crate::rewrite::{Cx, MAX_EXPANSION};
use lehr_ir::op::In;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{Graph, NodeId, Op, Tensor, TensorType};

/// Results of at most so many bytes are folded even when they are larger than their operands.
const MAX_GROWTH: usize = 1 << 20;
/// Arithmetic operations the evaluator may spend on one node.
const MAX_FLOPS: i64 = 100_000_000;
/// Uniform results with more elements than this become a splat.
const MIN_SPLAT: usize = 16;

pub(crate) fn fold_constants(g: &mut Graph, budget: &mut Option<usize>) -> GraphChanges {
    let mut changes = GraphChanges::default();
    let order = g.order();
    let mut cx = Cx::new(g);
    for id in order {
        let values = match fold(cx.graph(), id) {
            Ok(None) => continue,
            Ok(Some(values)) => values,
            Err(why) => {
                changes.declined.push(Event { rule: "fold-constants", node: cx.name(id), detail: why });
                continue;
            }
        };
        if *budget == Some(0) {
            break;
        }
        if let Some(left) = budget {
            *left -= 1;
        }
        let detail = format!("{} of constants", cx.op(id).name());
        changes.fired.push(Event { rule: "fold-constants", node: cx.name(id), detail });
        cx.replace_by_constants(id, values);
    }
    changes
}

/// The node's results, `None` if they are not constant, or why they are not computed now.
fn fold(g: &Graph, id: NodeId) -> Result<Option<Vec<ConstValue>>, String> {
    let node = g.node(id);
    if node.op.is_source() || !node.regions.is_empty() {
        return Ok(None);
    }
    let by_shape = matches!(node.op, Op::ShapeOf(_) | Op::SizeOf(_));
    let operands = node.inputs.iter().flatten();
    if by_shape {
        if operands.clone().any(|v| g.ty(*v).const_shape().is_none()) {
            return Ok(None);
        }
    } else if operands.clone().any(|v| g.constant(*v).is_none()) {
        return Ok(None);
    }
    let Some(types) = node.results.iter().map(|r| r.ty.as_tensor().cloned()).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    if types.iter().any(|t| t.const_shape().is_none()) {
        return Ok(None);
    }
    if by_shape {
        return shape_result(g, id).map(Some);
    }
    // What is one element in memory, and many in its type, is no reason for a large result.
    let constants = || operands.clone().filter_map(|v| g.constant(*v));
    if let Some(c) = constants().find(|c| c.expansion() > MAX_EXPANSION) {
        return Err(format!("its operand would take {} bytes", c.expansion()));
    }
    let held = |c: &ConstValue| if c.expansion() > 0 { 0 } else { size(&c.ty()) };
    let given: usize = constants().map(|c| held(c)).fold(0, usize::saturating_add);
    let made: usize = types.iter().map(size).fold(0, usize::saturating_add);
    if made > given.max(MAX_GROWTH) {
        return Err(format!("the result takes {made} bytes, the operands {given}"));
    }
    let operand_types: Vec<Option<&TensorType>> = node.inputs.iter().map(|v| v.map(|v| g.ty(v))).collect();
    let flops = node.op.flops(In(&operand_types), &types);
    if flops.as_const().is_none_or(|n| n > MAX_FLOPS) {
        return Err(format!("computing it takes {flops} operations"));
    }
    let tensors: Vec<Option<Tensor>> =
        node.inputs.iter().map(|v| v.and_then(|v| g.constant(v)).map(|c| c.tensor())).collect();
    let operands: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    // A fault stays where it is, to be reported when (and if) the model runs.
    let results = node.op.eval(In(&operands), &types).map_err(|fault| format!("it faults: {fault}"))?;
    Ok(Some(results.into_iter().map(compact).collect()))
}

/// Only the shape of the operand matters, so its elements are not made.
fn shape_result(g: &Graph, id: NodeId) -> Result<Vec<ConstValue>, String> {
    let node = g.node(id);
    let shape = node.inputs.first().copied().flatten().and_then(|v| g.ty(v).const_shape());
    let shape: Vec<i64> = shape.unwrap_or_default().into_iter().map(|d| d as i64).collect();
    let tensor = match &node.op {
        Op::ShapeOf(s) => match shape.get(s.start..s.end) {
            Some(part) => Tensor::i64s(part),
            None => return Err("its range is outside the shape".into()),
        },
        _ => Tensor::from_i128(lehr_ir::DType::I64, vec![], [shape.iter().map(|&d| d as i128).product()]),
    };
    Ok(vec![ConstValue::Dense { tensor, name: None }])
}

fn size(t: &TensorType) -> usize {
    t.bytes().as_const().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}

fn compact(tensor: Tensor) -> ConstValue {
    let width = tensor.dtype().size();
    let bytes = tensor.bytes();
    let uniform = tensor.len() > MIN_SPLAT && bytes.chunks_exact(width).all(|e| *e == bytes[..width]);
    if uniform && let Ok(element) = Tensor::new(tensor.dtype(), vec![], bytes.slice(..width)) {
        return ConstValue::Splat { element, shape: tensor.shape().to_vec() };
    }
    ConstValue::Dense { tensor, name: None }
}
