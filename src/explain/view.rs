//! A graph as it is drawn: its inputs, operators and outputs, without constants.

use super::layers::{node_names, op_name};
use super::{Kind, View, ViewNode};
use lehr_ir::graph::{Graph, NodeId};
use lehr_ir::{NodeId as Id, Op};
use std::collections::HashMap;

impl View {
    /// `layers_of` says which layers compute a node.
    pub(super) fn of(graph: &Graph, layers_of: &dyn Fn(NodeId) -> Vec<usize>) -> View {
        let mut view = View::default();
        let mut position: HashMap<Id, usize> = HashMap::new();
        for id in graph.order().into_iter().filter(|&id| !matches!(graph.node(id).op, Op::Const(_))) {
            let node = graph.node(id);
            let at = view.nodes.len();
            position.insert(id, at);
            view.nodes.push(ViewNode {
                op: op_name(graph, id).to_string(),
                kind: kind(graph, id),
                names: node_names(graph, id),
                // Blank for what computes nothing.
                result: node.results.first().map(|r| r.ty.to_string()).unwrap_or_default(),
                layers: layers_of(id),
            });
            let mut from: Vec<usize> =
                node.inputs.iter().flatten().filter_map(|v| position.get(&v.node).copied()).collect();
            from.sort_unstable();
            from.dedup();
            view.edges.extend(from.into_iter().map(|from| (from, at)));
        }
        for out in &graph.outputs {
            let at = view.nodes.len();
            view.edges.extend(position.get(&out.value.node).map(|&from| (from, at)));
            let result = graph.ty(out.value).to_string();
            let names = vec![out.name.to_string()];
            view.nodes.push(ViewNode { op: "output".into(), kind: Kind::Output, names, result, layers: vec![] });
        }
        view
    }
}

/// The family of a node; a fusion's is that of its anchor.
pub fn kind(graph: &Graph, id: NodeId) -> Kind {
    let node = graph.node(id);
    if let [region] = &node.regions[..] {
        let anchor = region.ids().find(|&n| region.node(n).op.is_anchor());
        return anchor.map_or(Kind::Elementwise, |anchor| kind(region, anchor));
    }
    match &node.op {
        Op::Input(_) => Kind::Input,
        Op::Conv(_) | Op::ConvTranspose(_) => Kind::Convolution,
        Op::MatMul(_) | Op::Gemm(_) | Op::Einsum(_) => Kind::Product,
        Op::MaxPool(_) | Op::AvgPool(_) | Op::LpPool(_) => Kind::Pooling,
        Op::BatchNorm(_)
        | Op::BatchNormTrain(_)
        | Op::InstanceNorm(_)
        | Op::LayerNorm(_)
        | Op::GroupNorm(_)
        | Op::Lrn(_) => Kind::Normalisation,
        Op::Softmax(_) | Op::LogSoftmax(_) | Op::Hardmax(_) => Kind::Reduction,
        Op::Reduce(_) | Op::ArgReduce(_) | Op::CumSum(_) | Op::TopK(_) => Kind::Reduction,
        Op::NllLoss(_) | Op::SoftmaxCrossEntropy(_) => Kind::Reduction,
        op if op.is_elementwise() => Kind::Elementwise,
        _ => Kind::Movement,
    }
}
