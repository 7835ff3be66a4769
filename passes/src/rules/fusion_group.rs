//! Groups of operators that become one fusion: growing them along uses, and building the fusion node.
//!
//! A group starts at one node and takes on elementwise users whose results have the shape of the start's result. It must
//! leave through one value, and nothing outside may come between its members: an operand from outside never
//! depends on a member.

use crate::Cx;
use crate::rule::{Decline, Outcome, declined, replace};
use lehr_ir::ops::Fusion;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{Graph, NodeId, Op, ValueId};
use std::collections::{HashMap, HashSet};

/// Operators in one fusion: beyond that a kernel's registers and compile time suffer, not the memory traffic.
const MAX_MEMBERS: usize = 32;
/// Nodes the search for a dependency looks at; it then assumes that there is one.
const MAX_SEARCH: usize = 10_000;

/// Members with operands before users, and the value through which it leaves.
pub(super) struct Group {
    pub members: Vec<NodeId>,
    pub result: ValueId,
}

/// The largest group that starts at `root`; `None` if it is `root` alone.
pub(super) fn grow(cx: &Cx, root: NodeId) -> Option<Group> {
    let shape = &cx.ty(root.out(0)).shape;
    let mut members = vec![root];
    let mut best = None;
    loop {
        let leaving = leaving_values(cx, &members);
        if let ([result], true) = (&leaving[..], members.len() > 1) {
            best = Some((members.len(), *result));
        }
        if members.len() == MAX_MEMBERS || leaving.iter().any(|v| cx.is_output(*v)) {
            break;
        }
        let mut candidates: Vec<NodeId> = leaving.iter().flat_map(|v| cx.users(*v)).copied().collect();
        candidates.sort();
        candidates.dedup();
        let next = candidates.into_iter().find(|&u| {
            !members.contains(&u)
                && cx.op(u).is_elementwise()
                && cx.ty(u.out(0)).shape == *shape
                && independent_operands(cx, u, &members, &leaving)
        });
        match next {
            Some(u) => members.push(u),
            None => break,
        }
    }
    let (len, result) = best?;
    members.truncate(len);
    Some(Group { members, result })
}

/// Results of members that others use.
fn leaving_values(cx: &Cx, members: &[NodeId]) -> Vec<ValueId> {
    let leaves = |v: &ValueId| cx.is_output(*v) || cx.users(*v).iter().any(|u| !members.contains(u));
    members.iter().map(|m| m.out(0)).filter(leaves).collect()
}

fn independent_operands(cx: &Cx, u: NodeId, members: &[NodeId], leaving: &[ValueId]) -> bool {
    // If the only way out of the group leads to `u`, then whatever else `u` reads cannot come from the group.
    if let [only] = leaving
        && cx.users(*only).iter().all(|&user| user == u || members.contains(&user))
    {
        return true;
    }
    let outside = cx.graph().node(u).inputs.iter().flatten().map(|v| v.node).filter(|n| !members.contains(n));
    !outside.into_iter().any(|n| depends_on(cx, n, members))
}

fn depends_on(cx: &Cx, start: NodeId, members: &[NodeId]) -> bool {
    let mut seen = HashSet::from([start]);
    let mut stack = vec![start];
    while let Some(id) = stack.pop() {
        if members.contains(&id) || seen.len() > MAX_SEARCH {
            return true;
        }
        stack.extend(cx.graph().node(id).inputs.iter().flatten().map(|v| v.node).filter(|n| seen.insert(*n)));
    }
    false
}

/// Takes in elementwise operators of the same shape whose results only members use. No cycle can arise: what such an
/// operator reads cannot depend on the group's result, which would have to lead back into the group.
pub(super) fn absorb_producers(cx: &Cx, group: &mut Group) {
    let shape = &cx.ty(group.result).shape;
    let mut at = 0;
    while at < group.members.len() {
        let operands: Vec<ValueId> = cx.graph().node(group.members[at]).inputs.iter().copied().flatten().collect();
        for v in operands {
            let fits = cx.op(v.node).is_elementwise() && cx.ty(v).shape == *shape && !cx.is_output(v);
            let inside = cx.users(v).iter().all(|u| group.members.contains(u));
            if fits && inside && !group.members.contains(&v.node) && group.members.len() < MAX_MEMBERS {
                group.members.push(v.node);
            }
        }
        at += 1;
    }
}

/// Replaces the group by a fusion node. Constants of one element move into the region, where they become immediates.
pub(super) fn fuse(cx: &mut Cx, group: Group) -> Outcome {
    let members = sorted(cx.graph(), group.members);
    let names: Vec<&str> = members.iter().map(|&m| cx.op(m).name()).collect();
    let mut region = Graph::new(names.join("_"));
    let mut inner: HashMap<ValueId, ValueId> = HashMap::new();
    let mut operands: Vec<Option<ValueId>> = vec![];
    for &id in &members {
        let node = cx.graph().node(id);
        for &v in node.inputs.iter().flatten() {
            if inner.contains_key(&v) {
                continue;
            }
            let immediate = cx.graph().constant(v).filter(|_| node.op.is_elementwise() && cx.ty(v).elements().is(1));
            let copy = match immediate {
                Some(value) => region.add_const(ConstValue::clone(value)),
                None => {
                    operands.push(Some(v));
                    region.add_input("", cx.ty(v).clone())
                }
            };
            region.set_value_name(copy, cx.graph().result(v).name.clone());
            inner.insert(v, copy);
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|v| v.map(|v| inner[&v])).collect();
        let copy = region.add(node.op.clone(), &inputs, node.origins.clone())?;
        for port in 0..node.results.len() as u32 {
            region.set_value_name(copy.out(port), node.results[port as usize].name.clone());
            inner.insert(id.out(port), copy.out(port));
        }
    }
    if operands.is_empty() {
        declined!("it reads only constants");
    }
    let name = cx.graph().value_name(group.result).unwrap_or("").to_string();
    region.add_output(&name, inner[&group.result]);
    let origins = cx.origins(&members);
    let new = cx.add_with_regions(Op::Fusion(Fusion {}), &operands, vec![region], origins)?;
    cx.place_at(new, group.result.node);
    replace(group.result, new.out(0))
}

/// Operands before users, ties as given.
fn sorted(g: &Graph, mut left: Vec<NodeId>) -> Vec<NodeId> {
    let mut done: Vec<NodeId> = vec![];
    while !left.is_empty() {
        let ready = |id: &NodeId| g.node(*id).inputs.iter().flatten().all(|v| !left.contains(&v.node));
        let at = left.iter().position(ready).expect("members of a group form no cycle");
        done.push(left.remove(at));
    }
    done
}

/// Why nothing could be fused behind `root`, if there is something elementwise behind it.
pub(super) fn why_alone(cx: &Cx, root: NodeId) -> Decline {
    let y = root.out(0);
    let users = cx.users(y);
    let Some(&user) = users.iter().find(|u| cx.op(**u).is_elementwise()) else {
        let whole_rows = |u: &&NodeId| matches!(cx.op(**u), Op::Softmax(_) | Op::LogSoftmax(_) | Op::Hardmax(_));
        return match users.iter().find(whole_rows) {
            Some(&user) => Decline::Reason(format!("{} needs all of an axis, not one element", cx.name(user))),
            None => Decline::NoMatch,
        };
    };
    let first = cx.name(user);
    if cx.is_output(y) {
        return Decline::Reason(format!("its result is an output of the graph, besides being used by {first}"));
    }
    if cx.ty(user.out(0)).shape != cx.ty(y).shape {
        let (theirs, ours) = (cx.ty(user.out(0)), cx.ty(y));
        return Decline::Reason(format!("the result of {first} is {theirs}, larger than {ours}"));
    }
    let names: Vec<String> = users.iter().map(|&u| cx.name(u)).collect();
    Decline::Reason(format!("its result has several uses that do not meet again: {}", names.join(", ")))
}
