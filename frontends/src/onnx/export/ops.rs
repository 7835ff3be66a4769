//! How each operator is written. Elementwise functions and reductions have the names of the importer's own rows.

use super::{Cx, OPSET};
use crate::onnx::ops::{How, name_of};
use crate::onnx::proto::AttributeProto;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::types::dtype_to_onnx;
use bytes::Bytes;
use lehr_ir::op::AttrValue;
use lehr_ir::ops::{self, ArgExtreme, BinaryFn, DepthOrder, PadMode, ReduceFn};
use lehr_ir::{Diag, Dim, NodeId, Op, Tensor};

pub(super) fn write(cx: &mut Cx, id: NodeId) -> Result<(), Diag> {
    let op = cx.graph.node(id).op.clone();
    match &op {
        Op::Unary(ops::Unary { f }) => {
            let named = |how| matches!(how, How::Unary(g) if g.info().name == f.info().name);
            let name = match name_of(OPSET, named) {
                Some(name) => name,
                None if f.info().name == "gelu" || f.info().name == "gelu_tanh" => "Gelu",
                None => return Err(unknown(&op)),
            };
            let mut attributes = parameters(&op);
            if f.info().name == "gelu_tanh" {
                attributes.push(text("approximate", "tanh"));
            }
            cx.node(id, name, vec![], attributes);
        }
        Op::Binary(ops::Binary { f }) => {
            let named = |how| matches!(how, How::Binary(g) if g == *f);
            let (name, attributes) = match f {
                BinaryFn::Min => ("Min", vec![]),
                BinaryFn::Max => ("Max", vec![]),
                BinaryFn::Fmod => ("Mod", vec![int("fmod", 1)]),
                BinaryFn::Mod if !cx.graph.ty(id.out(0)).dtype.is_float() => ("Mod", vec![]),
                _ => (name_of(OPSET, named).ok_or_else(|| unknown(&op))?, vec![]),
            };
            cx.node(id, name, vec![], attributes);
        }
        Op::Where(_) => cx.node(id, "Where", vec![], vec![]),
        Op::Clip(_) => cx.node(id, "Clip", vec![], vec![]),
        Op::Identity(_) => cx.node(id, "Identity", vec![], vec![]),
        Op::MatMul(_) => cx.node(id, "MatMul", vec![], vec![]),
        // Without a training_mode: inference.
        Op::Dropout(ops::Dropout {}) => cx.node(id, "Dropout", vec![], vec![]),
        Op::Cast(ops::Cast { to }) => {
            let to = dtype_to_onnx(*to).ok_or_else(|| unknown(&op))?;
            cx.node(id, "Cast", vec![], vec![int("to", to.into())]);
        }
        Op::Conv(ops::Conv { strides, pads, dilations, groups }) => {
            let mut attributes = window(strides, dilations);
            attributes.extend([counts("pads", pads), int("group", *groups as i64)]);
            cx.node(id, "Conv", vec![], attributes);
        }
        Op::ConvTranspose(ops::ConvTranspose { strides, pads, dilations, output_padding, groups }) => {
            if pads.iter().any(|&p| p < 0) {
                let why = format!("conv_transpose with negative padding, {pads:?}, cannot be written as ONNX");
                return Err(Diag::new("export.unsupported-op", why));
            }
            let mut attributes = window(strides, dilations);
            attributes.extend([ints("pads", pads.clone()), counts("output_padding", output_padding)]);
            attributes.push(int("group", *groups as i64));
            cx.node(id, "ConvTranspose", vec![], attributes);
        }
        Op::Gemm(ops::Gemm { alpha, beta, trans_a, trans_b }) => {
            let flags = [int("transA", (*trans_a).into()), int("transB", (*trans_b).into())];
            let factors = [float("alpha", *alpha), float("beta", *beta)];
            cx.node(id, "Gemm", vec![], factors.into_iter().chain(flags).collect());
        }
        Op::Einsum(ops::Einsum { equation }) => cx.node(id, "Einsum", vec![], vec![text("equation", equation)]),
        Op::BatchNorm(ops::BatchNorm { eps }) => {
            cx.node(id, "BatchNormalization", vec![], vec![float("epsilon", *eps)]);
        }
        Op::InstanceNorm(ops::InstanceNorm { eps }) => {
            cx.node(id, "InstanceNormalization", vec![], vec![float("epsilon", *eps)]);
        }
        Op::LayerNorm(ops::LayerNorm { axis, eps }) => {
            let attributes = vec![int("axis", *axis as i64), float("epsilon", *eps)];
            cx.node(id, "LayerNormalization", vec![], attributes);
        }
        Op::GroupNorm(ops::GroupNorm { groups, eps }) => {
            let attributes = vec![int("num_groups", *groups as i64), float("epsilon", *eps)];
            cx.node(id, "GroupNormalization", vec![], attributes);
        }
        Op::Lrn(ops::Lrn { size, alpha, beta, bias }) => {
            let factors = [float("alpha", *alpha), float("beta", *beta), float("bias", *bias)];
            cx.node(id, "LRN", vec![], factors.into_iter().chain([int("size", *size as i64)]).collect());
        }
        Op::Softmax(ops::Softmax { axis }) => cx.node(id, "Softmax", vec![], vec![int("axis", *axis as i64)]),
        Op::LogSoftmax(ops::LogSoftmax { axis }) => cx.node(id, "LogSoftmax", vec![], vec![int("axis", *axis as i64)]),
        Op::Hardmax(ops::Hardmax { axis }) => cx.node(id, "Hardmax", vec![], vec![int("axis", *axis as i64)]),
        Op::MaxPool(ops::MaxPool { kernel, strides, pads, dilations, ceil_mode, column_major }) => {
            let mut attributes = window(strides, dilations);
            attributes.extend([counts("kernel_shape", kernel), counts("pads", pads)]);
            attributes.extend([int("ceil_mode", (*ceil_mode).into()), int("storage_order", (*column_major).into())]);
            cx.node(id, "MaxPool", vec![], attributes);
        }
        Op::AvgPool(ops::AvgPool { kernel, strides, pads, dilations, ceil_mode, count_include_pad }) => {
            let mut attributes = window(strides, dilations);
            attributes.extend([counts("kernel_shape", kernel), counts("pads", pads)]);
            attributes.push(int("ceil_mode", (*ceil_mode).into()));
            attributes.push(int("count_include_pad", (*count_include_pad).into()));
            cx.node(id, "AveragePool", vec![], attributes);
        }
        Op::LpPool(ops::LpPool { kernel, strides, pads, dilations, ceil_mode, p }) => {
            let mut attributes = window(strides, dilations);
            attributes.extend([counts("kernel_shape", kernel), counts("pads", pads)]);
            attributes.extend([int("ceil_mode", (*ceil_mode).into()), int("p", *p as i64)]);
            cx.node(id, "LpPool", vec![], attributes);
        }
        Op::Reduce(reduce) => write_reduce(cx, id, reduce)?,
        Op::ArgReduce(ops::ArgReduce { f, axis, keepdims, select_last }) => {
            let name = match f {
                ArgExtreme::Max => "ArgMax",
                ArgExtreme::Min => "ArgMin",
            };
            let flags = [int("keepdims", (*keepdims).into()), int("select_last_index", (*select_last).into())];
            cx.node(id, name, vec![], [int("axis", *axis as i64)].into_iter().chain(flags).collect());
        }
        Op::Concat(ops::Concat { axis }) => cx.node(id, "Concat", vec![], vec![int("axis", *axis as i64)]),
        Op::Transpose(ops::Transpose { perm }) => cx.node(id, "Transpose", vec![], vec![counts("perm", perm)]),
        Op::Gather(ops::Gather { axis }) => cx.node(id, "Gather", vec![], vec![int("axis", *axis as i64)]),
        Op::DepthToSpace(ops::DepthToSpace { block, order }) => {
            let mode = match order {
                DepthOrder::Dcr => "DCR",
                DepthOrder::Crd => "CRD",
            };
            cx.node(id, "DepthToSpace", vec![], vec![int("blocksize", *block as i64), text("mode", mode)]);
        }
        Op::SpaceToDepth(ops::SpaceToDepth { block }) => {
            cx.node(id, "SpaceToDepth", vec![], vec![int("blocksize", *block as i64)]);
        }
        Op::Reshape(ops::Reshape { shape }) => write_reshape(cx, id, shape)?,
        Op::Expand(ops::Expand { shape }) => write_expand(cx, id, shape)?,
        Op::Slice(slice) => write_slice(cx, id, slice)?,
        Op::Pad(pad) => write_pad(cx, id, pad),
        // The rest has no user yet; an arm here is all that one needs.
        _ => return Err(unknown(&op)),
    }
    Ok(())
}

fn unknown(op: &Op) -> Diag {
    let d = Diag::new("export.unsupported-op", format!("the operator {} cannot be written as ONNX", op.name()));
    match op {
        Op::Fusion(_) => d.note("export the graph as it is before passes fuse operators"),
        _ => d,
    }
}

fn write_reduce(cx: &mut Cx, id: NodeId, op: &ops::Reduce) -> Result<(), Diag> {
    let x = operand(cx, id);
    let spatial: Vec<usize> = (2..x.len()).collect();
    if op.keepdims && !spatial.is_empty() && op.axes == spatial {
        match op.f {
            ReduceFn::Mean => {
                cx.node(id, "GlobalAveragePool", vec![], vec![]);
                return Ok(());
            }
            ReduceFn::Max => {
                cx.node(id, "GlobalMaxPool", vec![], vec![]);
                return Ok(());
            }
            _ => {}
        }
    }
    let named = |how| matches!(how, How::ReduceByOperand(f) if f == op.f);
    let name = name_of(OPSET, named).ok_or_else(|| unknown(&Op::Reduce(op.clone())))?;
    let axes = list(cx, id, "axes", op.axes.iter().map(|&a| a as i64).collect());
    // No axes would mean all of them.
    let attributes = vec![int("keepdims", op.keepdims.into()), int("noop_with_empty_axes", 1)];
    cx.node(id, name, vec![axes], attributes);
    Ok(())
}

/// A dimension that is not a number is copied from the same place of the operand, or is the one that is left to be solved.
fn write_reshape(cx: &mut Cx, id: NodeId, shape: &[Dim]) -> Result<(), Diag> {
    let x = operand(cx, id);
    let has_zero = shape.iter().any(|d| d.is(0));
    let mut solved = None;
    let mut sizes = vec![];
    for (i, d) in shape.iter().enumerate() {
        sizes.push(match d.as_const() {
            Some(n) => n,
            None if x.get(i) == Some(d) && !has_zero => 0,
            None if solved.is_none() && !has_zero => {
                solved = Some(d);
                -1
            }
            None => {
                let why = format!("the dimension {d} of a reshape cannot be written beside another that is open");
                return Err(Diag::new("export.symbolic", why).note("bind it with --dim"));
            }
        });
    }
    let sizes = list(cx, id, "shape", sizes);
    cx.node(id, "Reshape", vec![sizes], if has_zero { vec![int("allowzero", 1)] } else { vec![] });
    Ok(())
}

/// A dimension that stays is written as 1.
fn write_expand(cx: &mut Cx, id: NodeId, shape: &[Dim]) -> Result<(), Diag> {
    let x = operand(cx, id);
    let mut sizes = vec![];
    for (i, d) in shape.iter().enumerate() {
        let same = (i + x.len()).checked_sub(shape.len()).is_some_and(|i| x[i] == *d);
        let number = d.as_const().or(same.then_some(1));
        sizes.push(number.ok_or_else(|| symbolic("expand", d))?);
    }
    let sizes = list(cx, id, "shape", sizes);
    cx.node(id, "Expand", vec![sizes], vec![]);
    Ok(())
}

/// Axes that are taken whole are left out.
fn write_slice(cx: &mut Cx, id: NodeId, op: &ops::Slice) -> Result<(), Diag> {
    let x = operand(cx, id);
    let mut lists: [Vec<i64>; 4] = Default::default();
    for (axis, (((start, len), &step), dim)) in op.starts.iter().zip(&op.lens).zip(&op.steps).zip(&x).enumerate() {
        if start.is(0) && step == 1 && len == dim {
            continue;
        }
        let start = start.as_const().ok_or_else(|| symbolic("slice", start))?;
        let len = len.as_const().ok_or_else(|| symbolic("slice", len))?;
        let end = start.saturating_add(len.saturating_mul(step));
        // Backwards, the end lies before the first element, which a negative number does not say.
        let end = if step < 0 && end < 0 { i64::MIN } else { end };
        for (list, value) in lists.iter_mut().zip([start, end, axis as i64, step]) {
            list.push(value);
        }
    }
    let names = ["starts", "ends", "axes", "steps"];
    let operands = names.into_iter().zip(lists).map(|(name, values)| list(cx, id, name, values)).collect();
    cx.node(id, "Slice", operands, vec![]);
    Ok(())
}

/// The value is the operand behind the amounts, which are an attribute here.
fn write_pad(cx: &mut Cx, id: NodeId, op: &ops::Pad) {
    let mode = match op.mode {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => "wrap",
    };
    let pads = list(cx, id, "pads", [&op.before[..], &op.after[..]].concat());
    cx.node(id, "Pad", vec![pads], vec![text("mode", mode)]);
    // The node has x, the value if there is one, and the amounts: these go second.
    if let Some(node) = cx.nodes.last_mut() {
        let pads = node.input.pop().expect("just appended");
        node.input.insert(1, pads);
    }
}

/// The shape of the first operand.
fn operand(cx: &Cx, id: NodeId) -> Vec<Dim> {
    let x = cx.graph.node(id).inputs[0].expect("arity is checked when nodes are added");
    cx.graph.ty(x).shape.clone()
}

fn symbolic(op: &str, d: &Dim) -> Diag {
    Diag::new("export.symbolic", format!("the dimension {d} of {op} must be a number")).note("bind it with --dim")
}

/// A list of integers as a weight named after the node.
fn list(cx: &mut Cx, id: NodeId, what: &str, values: Vec<i64>) -> String {
    let base = format!("{}.{what}", cx.name(id.out(0)));
    cx.integers(&base, Tensor::i64s(&values))
}

/// The attributes of an elementwise function that differ from their defaults, which are ONNX's.
fn parameters(op: &Op) -> Vec<AttributeProto> {
    let number = |(name, value)| match value {
        AttrValue::Float(bits) => float(name, f32::from_bits(bits.0)),
        other => unreachable!("parameters of elementwise functions are floats, not {other:?}"),
    };
    op.attrs().into_iter().map(number).collect()
}

fn window(strides: &[usize], dilations: &[usize]) -> Vec<AttributeProto> {
    vec![counts("strides", strides), counts("dilations", dilations)]
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind.into(), ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i, ..attribute(name, AttributeType::Int) }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f, ..attribute(name, AttributeType::Float) }
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Bytes::copy_from_slice(s.as_bytes()), ..attribute(name, AttributeType::String) }
}

fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

fn counts(name: &str, values: &[usize]) -> AttributeProto {
    ints(name, values.iter().map(|&v| v as i64).collect())
}
