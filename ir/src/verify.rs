//! The verifier: every violation of the IR's invariants in a graph and in its regions. A graph that verifies has an
//! order, known types that agree with inference, and ids that lead somewhere; passes and lowering rely on that.
//!
//! It needs nothing of the graph but that its arena is there: dangling ids and cycles are reported, not followed.

use crate::diag::{Diag, Location};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::Op;
use crate::tensor::ConstValue;
use crate::types::Type;
use crate::visit::View;
use petgraph::algo::kosaraju_scc;
use std::collections::HashSet;

/// All that is wrong with `g`; empty for a sound graph.
pub fn verify(g: &Graph) -> Vec<Diag> {
    let mut diags = vec![];
    inputs(g, &mut diags);
    for id in g.ids() {
        node(g, id, &mut diags);
    }
    outputs(g, &mut diags);
    cycles(g, &mut diags);
    diags
}

/// What is wrong with a reference, if anything.
fn dangling(g: &Graph, v: ValueId) -> Option<String> {
    match g.try_node(v.node) {
        None => Some(format!("node {} does not exist", v.node.0)),
        Some(n) if v.port as usize >= n.results.len() => {
            Some(format!("{} has {} results, not {}", n.op.name(), n.results.len(), v.port as usize + 1))
        }
        Some(_) => None,
    }
}

fn inputs(g: &Graph, diags: &mut Vec<Diag>) {
    let mut nodes = HashSet::new();
    let mut names = HashSet::new();
    for (i, &v) in g.inputs().iter().enumerate() {
        if let Some(why) = dangling(g, v) {
            diags.push(Diag::new("graph.input", format!("input {i}: {why}")));
            continue;
        }
        if !matches!(g.node(v.node).op, Op::Input(_)) {
            let op = g.node(v.node).op.name();
            diags.push(Diag::new("graph.input", format!("input {i} is a result of {op}, not an input node")));
        }
        if !nodes.insert(v.node) {
            diags.push(Diag::new("graph.input", format!("input {i} is listed twice")));
        } else if let Some(name) = g.value_name(v)
            && !names.insert(name)
        {
            diags.push(Diag::new("graph.input-name", format!("two inputs are called {name:?}")));
        }
    }
    for id in g.ids() {
        if matches!(g.node(id).op, Op::Input(_)) && !nodes.contains(&id) {
            diags.push(Diag::new("graph.input", "an input node is not among the graph's inputs").at(location(g, id)));
        }
    }
}

fn outputs(g: &Graph, diags: &mut Vec<Diag>) {
    let mut names = HashSet::new();
    for (i, out) in g.outputs.iter().enumerate() {
        if let Some(why) = dangling(g, out.value) {
            diags.push(Diag::new("graph.output", format!("output {i} {:?}: {why}", out.name)));
        }
        if !out.name.is_empty() && !names.insert(&out.name) {
            diags.push(Diag::new("graph.output-name", format!("two outputs are called {:?}", out.name)));
        }
    }
}

fn node(g: &Graph, id: NodeId, diags: &mut Vec<Diag>) {
    let node = g.node(id);
    let before = diags.len();
    for (i, v) in node.inputs.iter().enumerate() {
        let Some(v) = v else { continue };
        if let Some(why) = dangling(g, *v) {
            diags.push(Diag::new("node.operand", format!("{}: operand {i}: {why}", node.op.name())));
        } else if !matches!(g.result(*v).ty, Type::Tensor(_)) {
            diags.push(Diag::new("node.operand", format!("{}: operand {i} is no tensor", node.op.name())));
        }
    }
    if let Op::Const(c) = &node.op
        && let ConstValue::Splat { element, .. } = &*c.value
        && element.rank() != 0
    {
        diags.push(Diag::new("const.splat", "the element of a splat is a scalar"));
    }
    let fusion = matches!(node.op, Op::Fusion(_));
    if !fusion && !node.regions.is_empty() {
        diags.push(Diag::new("node.regions", format!("{} has no regions", node.op.name())));
    }
    for region in &node.regions {
        for diag in verify(region) {
            diags.push(diag.note(format!("in the region @{}", region.name)));
        }
        if fusion {
            fusion_body(region, diags);
        }
    }
    if diags.len() == before {
        types(g, id, diags);
    }
    for diag in &mut diags[before..] {
        if diag.location == Location::Model {
            diag.location = location(g, id);
        }
    }
}

/// Operands and regions are sound, so inference may look at them.
fn types(g: &Graph, id: NodeId, diags: &mut Vec<Diag>) {
    let node = g.node(id);
    let inferred = match g.infer_types(&node.op, &node.inputs, &node.regions) {
        Ok(inferred) => inferred,
        Err(diag) => return diags.push(diag),
    };
    if inferred.len() != node.results.len() {
        let message = format!("{} has {} results, not {}", node.op.name(), inferred.len(), node.results.len());
        diags.push(Diag::new("node.results", message));
    }
    for (port, (result, ty)) in node.results.iter().zip(inferred).enumerate() {
        if result.ty.as_tensor() != Some(&ty) {
            let message = format!("{}: result {port} is {}, but it should be {ty}", node.op.name(), result.ty);
            diags.push(Diag::new("node.type", message));
        }
    }
}

/// At most one anchor, and elementwise operators else.
fn fusion_body(region: &Graph, diags: &mut Vec<Diag>) {
    let mut anchors = vec![];
    for id in region.ids() {
        match &region.node(id).op {
            op if op.is_source() || op.is_elementwise() => {}
            op if op.is_anchor() => anchors.push(op.name()),
            op => diags.push(Diag::new("fusion.c4", format!("{} is neither an anchor nor elementwise", op.name()))),
        }
    }
    if anchors.len() > 1 {
        diags.push(Diag::new("fusion.c5", format!("the region has {} anchors: {}", anchors.len(), anchors.join(", "))));
    }
    if region.outputs.is_empty() {
        diags.push(Diag::new("fusion.c6", "the region returns nothing"));
    }
}

fn cycles(g: &Graph, diags: &mut Vec<Diag>) {
    // Dangling operands are reported elsewhere; the view leaves them out.
    let view = View::new(g);
    let mut found: Vec<Vec<NodeId>> = kosaraju_scc(&view)
        .into_iter()
        .filter(|scc| scc.len() > 1 || g.node(scc[0]).inputs.iter().flatten().any(|v| v.node == scc[0]))
        .collect();
    for scc in &mut found {
        scc.sort();
    }
    found.sort();
    for scc in found {
        const SHOWN: usize = 8;
        let mut names: Vec<String> = scc.iter().take(SHOWN).map(|&id| display_name(g, id)).collect();
        if scc.len() > SHOWN {
            names.push(format!("{} more", scc.len() - SHOWN));
        }
        let message = format!("these nodes need each other's results: {}", names.join(", "));
        diags.push(Diag::new("graph.cycle", message).at(location(g, scc[0])));
    }
}

/// A node in a complaint: its ONNX node's name, its result's name, or its id.
fn display_name(g: &Graph, id: NodeId) -> String {
    let node = g.node(id);
    match (node.origins.first(), node.results.first().and_then(|r| r.name.as_ref())) {
        (Some(o), _) => format!("{} '{}'", node.op.name(), o.name),
        (None, Some(name)) => format!("{} %{name}", node.op.name()),
        (None, None) => format!("{} (node {})", node.op.name(), id.0),
    }
}

fn location(g: &Graph, id: NodeId) -> Location {
    let node = g.node(id);
    match (node.origins.is_empty(), node.results.first().and_then(|r| r.name.clone())) {
        (true, Some(name)) => Location::Value { name },
        _ => g.location(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::Origin;
    use crate::ops::{Binary, BinaryFn, Unary, UnaryFn};
    use crate::types::TensorType;

    fn origin(name: &str) -> Vec<Origin> {
        vec![Origin { name: name.into(), index: Some(0), op: "Op".into() }]
    }

    /// y = neg(relu(x))
    fn chain() -> (Graph, [NodeId; 3]) {
        let mut g = Graph::new("chain");
        let x = g.add_input("x", TensorType::new(DType::F32, [2]));
        let relu = g.add1(Unary { f: UnaryFn::Relu }, &[x], origin("relu_1")).unwrap();
        let neg = g.add1(Unary { f: UnaryFn::Neg }, &[relu], origin("neg_1")).unwrap();
        g.add_output("y", neg);
        (g, [x, relu, neg].map(|v| v.node))
    }

    fn codes(g: &Graph) -> Vec<&'static str> {
        verify(g).iter().map(|d| d.code).collect()
    }

    #[test]
    fn sound_graphs_have_nothing_to_complain_of() {
        assert!(codes(&chain().0).is_empty());
    }

    #[test]
    fn dangling_ids_and_ports_are_all_found() {
        let (mut g, [x, relu, neg]) = chain();
        g.node_mut(neg).inputs[0] = Some(relu.out(3));
        g.outputs[0].value = NodeId(99).out(0);
        g.node_mut(relu).inputs[0] = Some(x.out(1));
        assert_eq!(codes(&g), ["node.operand", "node.operand", "graph.output"]);
        let (mut g, [_, relu, _]) = chain();
        g.remove(relu);
        assert_eq!(codes(&g), ["node.operand"]);
    }

    #[test]
    fn cycles_name_their_nodes() {
        let (mut g, [_, relu, neg]) = chain();
        g.node_mut(relu).inputs[0] = Some(neg.out(0));
        let diags = verify(&g);
        assert_eq!(diags.len(), 1);
        assert!(diags[0].message.contains("relu_1") && diags[0].message.contains("neg_1"), "{}", diags[0]);
        // A broken graph prints nevertheless.
        assert!(g.to_string().contains("neg"));
    }

    #[test]
    fn types_and_arity_are_compared_with_inference() {
        let (mut g, [_, relu, neg]) = chain();
        g.node_mut(relu).results[0].ty = TensorType::new(DType::F32, [3]).into();
        assert_eq!(codes(&g), ["node.type", "node.type"]);
        let (mut g, _) = chain();
        g.node_mut(neg).op = Binary { f: BinaryFn::Add }.into();
        assert_eq!(codes(&g), ["op.arity"]);
        assert!(verify(&g)[0].to_string().contains("neg_1"));
    }

    #[test]
    fn regions_belong_to_fusions() {
        let (mut g, [_, relu, _]) = chain();
        g.node_mut(relu).regions.push(Graph::new("region"));
        assert_eq!(codes(&g), ["node.regions"]);
    }
}
