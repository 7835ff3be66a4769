//! Removes nodes that no output depends on. Graph inputs stay: they are the model's interface.
//! Exactness: BitExact.

use crate::manager::GraphChanges;
use crate::report::Event;
use crate::rewrite::node_name;
use lehr_ir::{Graph, NodeId, Op};

pub(crate) fn remove_dead_code(g: &mut Graph, budget: &mut Option<usize>) -> GraphChanges {
    let mut changes = GraphChanges::default();
    let mut live = vec![false; g.id_bound()];
    let mut stack: Vec<NodeId> = g.outputs.iter().map(|o| o.value.node).collect();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut live[id.index()], true) {
            stack.extend(g.node(id).inputs.iter().flatten().map(|v| v.node));
        }
    }
    // Users before what they use, so that stopping early leaves no dangling operand.
    for id in g.order().into_iter().rev() {
        if live[id.index()] || matches!(g.node(id).op, Op::Input(_)) {
            continue;
        }
        if *budget == Some(0) {
            break;
        }
        if let Some(left) = budget {
            *left -= 1;
        }
        let detail = format!("no output depends on this {}", g.node(id).op.name());
        changes.fired.push(Event { rule: "remove-dead-code", node: node_name(g, id), detail });
        g.remove(id);
    }
    changes
}
