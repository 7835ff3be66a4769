//! Merges nodes with the same operator, attributes and operands, and equal constants: every operator is pure, so their
//! results are equal. Needs: no regions. Exactness: BitExact.

use crate::manager::GraphChanges;
use crate::report::Event;
use crate::rewrite::Cx;
use lehr_ir::op::AttrValue;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{Graph, NodeId, Op, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// Constants of at most so many bytes are compared by content, larger ones by address.
const SMALL: usize = 4096;

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Op(&'static str, Vec<(&'static str, AttrValue)>, Vec<Option<ValueId>>),
    Value(Arc<ConstValue>),
    /// The address, length, dtype and shape of shared bytes.
    Shared(usize, usize, lehr_ir::TensorType),
}

pub(crate) fn merge_equal_nodes(g: &mut Graph, budget: &mut Option<usize>) -> GraphChanges {
    let mut changes = GraphChanges::default();
    let mut seen: HashMap<Key, NodeId> = HashMap::new();
    let order = g.order();
    let mut cx = Cx::new(g);
    for id in order {
        let Some(key) = key(cx.graph(), id) else { continue };
        let Some(&first) = seen.get(&key) else {
            seen.insert(key, id);
            continue;
        };
        if *budget == Some(0) {
            break;
        }
        if let Some(left) = budget {
            *left -= 1;
        }
        let detail = format!("equal to {}", cx.name(first));
        changes.fired.push(Event { rule: "merge-equal-nodes", node: cx.name(id), detail });
        cx.merge(first, id);
    }
    changes
}

fn key(g: &Graph, id: NodeId) -> Option<Key> {
    let node = g.node(id);
    if !node.regions.is_empty() {
        return None;
    }
    match &node.op {
        Op::Input(_) => None,
        Op::Const(c) => match &*c.value {
            ConstValue::Dense { tensor, .. } if tensor.bytes().len() > SMALL => {
                let bytes = tensor.bytes();
                Some(Key::Shared(bytes.as_ptr() as usize, bytes.len(), tensor.ty()))
            }
            // The weight's name does not matter.
            ConstValue::Dense { tensor, .. } => {
                Some(Key::Value(Arc::new(ConstValue::Dense { tensor: tensor.clone(), name: None })))
            }
            ConstValue::Splat { .. } | ConstValue::Seeded { .. } => Some(Key::Value(c.value.clone())),
        },
        op => Some(Key::Op(op.name(), op.attrs(), node.inputs.clone())),
    }
}
