//! The graph as rules see it: looking at operands, uses and constants, adding nodes, and replacing values. Uses are kept
//! up to date by every change that goes through here, so that a rewrite costs what it touches, not the size of the graph.

use crate::approximate::Approximation;
use crate::report::Event;
use crate::rule::{Decline, Replacement, Rule};
use lehr_ir::graph::Provenance;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{Graph, NodeId, Op, Tensor, TensorType, ValueId};
use std::collections::{BTreeMap, HashMap};

/// Sweeps over the graph; each must find something to do, and every rule makes the graph smaller or simpler.
const MAX_SWEEPS: usize = 100;

/// Constants that are one element repeated, or a seed, are made dense by the passes up to so many bytes each.
pub(crate) const MAX_EXPANSION: u64 = 1 << 30;

/// A graph under rewriting.
pub struct Cx<'g> {
    g: &'g mut Graph,
    /// Users of each value, one entry per operand.
    users: HashMap<ValueId, Vec<NodeId>>,
    /// Node whose printing position new nodes take.
    at: Option<NodeId>,
    added: Vec<NodeId>,
    approximation: Option<&'g mut Approximation>,
    /// What the rule has to say of its rewrite, instead of its equation.
    note: Option<String>,
}

impl<'g> Cx<'g> {
    pub(crate) fn new(g: &'g mut Graph) -> Cx<'g> {
        let mut users: HashMap<ValueId, Vec<NodeId>> = HashMap::new();
        for id in g.ids() {
            for v in g.node(id).inputs.iter().flatten() {
                users.entry(*v).or_default().push(id);
            }
        }
        Cx { g, users, at: None, added: vec![], approximation: None, note: None }
    }

    // ---- looking ----

    pub fn graph(&self) -> &Graph {
        self.g
    }

    pub fn op(&self, id: NodeId) -> &Op {
        &self.g.node(id).op
    }

    /// Operand `i`; `None` where it is absent.
    pub fn operand(&self, id: NodeId, i: usize) -> Option<ValueId> {
        self.g.node(id).inputs.get(i).copied().flatten()
    }

    /// A required operand.
    pub fn x(&self, id: NodeId, i: usize) -> ValueId {
        self.operand(id, i).expect("the operand is required by the operator's declaration")
    }

    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.g.ty(v)
    }

    /// The nodes that read `v`, each once per operand.
    pub fn users(&self, v: ValueId) -> &[NodeId] {
        self.users.get(&v).map_or(&[], |u| &u[..])
    }

    /// Whether `v` is an output of the graph.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.g.outputs.iter().any(|o| o.value == v)
    }

    /// Whether anything reads `v`, a node or an output.
    pub fn is_used(&self, v: ValueId) -> bool {
        !self.users(v).is_empty() || self.is_output(v)
    }

    /// Whether exactly one operand, and no graph output, is this value.
    pub fn used_once(&self, v: ValueId) -> bool {
        self.users(v).len() == 1 && !self.is_output(v)
    }

    /// The elements of a constant operand, unless they would first have to be made and are too many.
    pub fn constant(&self, v: ValueId) -> Option<Tensor> {
        self.g.constant(v).filter(|c| c.expansion() <= MAX_EXPANSION).map(|c| c.tensor())
    }

    /// The one number that a constant holds, if it holds one.
    pub fn scalar(&self, v: ValueId) -> Option<f64> {
        match &**self.g.constant(v)? {
            ConstValue::Splat { element, .. } => element.to_f64().first().copied(),
            ConstValue::Dense { tensor, .. } if tensor.len() == 1 => tensor.to_f64().first().copied(),
            ConstValue::Dense { .. } | ConstValue::Seeded { .. } => None,
        }
    }

    /// What the user calls a node.
    pub fn name(&self, id: NodeId) -> String {
        node_name(self.g, id)
    }

    /// The ONNX nodes behind some nodes, each once, in order.
    pub fn origins(&self, ids: &[NodeId]) -> Provenance {
        let mut all = Provenance::new();
        for origin in ids.iter().flat_map(|&id| &self.g.node(id).origins) {
            if !all.contains(origin) {
                all.push(origin.clone());
            }
        }
        all
    }

    /// Leave to approximate, if it is given.
    pub(crate) fn approximation(&mut self) -> Option<&mut Approximation> {
        self.approximation.as_deref_mut()
    }

    // ---- changing ----

    /// Says of the rewrite more than the rule's equation.
    pub(crate) fn note(&mut self, text: String) {
        self.note = Some(text);
    }

    /// Adds a node in the printing position of the node at which the rule is tried. If the rule declines after all, it
    /// goes away again.
    ///
    /// # Errors
    /// What inference says against it becomes the reason to decline.
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        origins: Provenance,
    ) -> Result<NodeId, Decline> {
        self.add_with_regions(op.into(), inputs, vec![], origins)
    }

    /// Like [`add`](Cx::add), for operators with graphs inside.
    pub fn add_with_regions(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        regions: Vec<Graph>,
        origins: Provenance,
    ) -> Result<NodeId, Decline> {
        let id = self.g.add_with_regions(op, inputs, regions, origins)?;
        self.register(id);
        Ok(id)
    }

    /// A constant that the rule has computed.
    pub fn add_tensor(&mut self, tensor: Tensor) -> ValueId {
        let v = self.g.add_const(ConstValue::Dense { tensor, name: None });
        self.register(v.node);
        v
    }

    pub fn add_const(&mut self, value: ConstValue) -> ValueId {
        let v = self.g.add_const(value);
        self.register(v.node);
        v
    }

    /// Makes `id` print where `at` prints.
    pub fn place_at(&mut self, id: NodeId, at: NodeId) {
        self.g.place_at(id, at);
    }

    fn register(&mut self, id: NodeId) {
        for v in self.g.node(id).inputs.iter().flatten() {
            self.users.entry(*v).or_default().push(id);
        }
        if let Some(at) = self.at {
            self.g.place_at(id, at);
        }
        self.added.push(id);
    }

    /// Lets every user of `old` use `new`; an unnamed `new` takes over the name.
    pub(crate) fn replace_value(&mut self, old: ValueId, new: ValueId) {
        let users = self.users.remove(&old).unwrap_or_default();
        for &id in &users {
            for v in self.g.node_mut(id).inputs.iter_mut().flatten().filter(|v| **v == old) {
                *v = new;
            }
        }
        self.users.entry(new).or_default().extend(users);
        for out in self.g.outputs.iter_mut().filter(|o| o.value == old) {
            out.value = new;
        }
        if self.g.value_name(new).is_none() {
            let name = self.g.result(old).name.clone();
            self.g.set_value_name(new, name);
        }
    }

    /// Removes a node whose results nobody uses, and then what only it used. Graph inputs stay.
    pub(crate) fn remove_if_dead(&mut self, id: NodeId) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let Some(node) = self.g.try_node(id) else { continue };
            let used = (0..node.results.len()).any(|p| self.is_used(id.out(p as u32)));
            if used || matches!(node.op, Op::Input(_)) {
                continue;
            }
            let inputs: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
            self.g.remove(id);
            for v in inputs {
                if let Some(users) = self.users.get_mut(&v) {
                    users.retain(|u| *u != id);
                }
                stack.push(v.node);
            }
        }
    }

    /// Lets the results of `kept` stand for the equal ones of `gone`, which it now also comes from.
    pub(crate) fn merge(&mut self, kept: NodeId, gone: NodeId) {
        for port in 0..self.g.node(gone).results.len() as u32 {
            self.replace_value(gone.out(port), kept.out(port));
        }
        let origins = self.origins(&[kept, gone]);
        self.g.node_mut(kept).origins = origins;
        self.remove_if_dead(gone);
    }

    /// Constants for all results of a node, which they come from.
    pub(crate) fn replace_by_constants(&mut self, id: NodeId, values: Vec<ConstValue>) {
        let origins = self.g.node(id).origins.clone();
        self.at = Some(id);
        for (port, value) in values.into_iter().enumerate() {
            let old = id.out(port as u32);
            if self.is_used(old) {
                let new = self.add_const(value);
                self.g.node_mut(new.node).origins = origins.clone();
                self.replace_value(old, new);
            }
        }
        self.at = None;
        self.remove_if_dead(id);
    }

    /// Tries `rule` at `id`.
    fn try_rule(&mut self, rule: &Rule, id: NodeId) -> Result<(), Decline> {
        self.at = Some(id);
        self.added.clear();
        self.note = None;
        let outcome = (rule.apply)(id, self);
        self.at = None;
        let Replacement(pairs) = match outcome {
            Ok(replacement) => replacement,
            Err(decline) => {
                for id in std::mem::take(&mut self.added).into_iter().rev() {
                    self.remove_if_dead(id);
                }
                return Err(decline);
            }
        };
        for (old, new) in &pairs {
            self.replace_value(*old, *new);
        }
        for (old, _) in pairs {
            self.remove_if_dead(old.node);
        }
        // What the rule added along the way and did not need.
        for id in std::mem::take(&mut self.added).into_iter().rev() {
            self.remove_if_dead(id);
        }
        Ok(())
    }
}

/// What was done and what was declined.
#[derive(Default)]
pub(crate) struct Applied {
    pub fired: Vec<Event>,
    pub declined: Vec<Event>,
}

/// Tries the rules at every node, in order, until none fires or `budget` rewrites are done. Declines are those of
/// the last sweep: they hold for the graph that comes out.
pub(crate) fn apply_rules(
    g: &mut Graph,
    rules: &[&Rule],
    budget: &mut Option<usize>,
    approximation: Option<&mut Approximation>,
) -> Applied {
    let mut applied = Applied::default();
    let mut cx = Cx::new(g);
    cx.approximation = approximation;
    for _ in 0..MAX_SWEEPS {
        let fired_before = applied.fired.len();
        let mut declined = BTreeMap::new();
        for id in cx.g.order() {
            for rule in rules {
                if cx.g.try_node(id).is_none() {
                    break;
                }
                if *budget == Some(0) {
                    return applied;
                }
                let node = cx.name(id);
                match cx.try_rule(rule, id) {
                    Ok(()) => {
                        let detail = cx.note.take().unwrap_or_else(|| rule.equation.to_string());
                        applied.fired.push(Event { rule: rule.name, node, detail });
                        if let Some(left) = budget {
                            *left -= 1;
                        }
                    }
                    Err(Decline::NoMatch) => {}
                    Err(Decline::Reason(why)) => {
                        declined.insert((id, rule.name), Event { rule: rule.name, node, detail: why });
                    }
                }
            }
        }
        if applied.fired.len() == fired_before {
            applied.declined = declined.into_values().collect();
            break;
        }
    }
    applied
}

/// The name of the ONNX node, else of its result, else its operator.
pub(crate) fn node_name(g: &Graph, id: NodeId) -> String {
    let node = g.node(id);
    let result = node.results.first().and_then(|r| r.name.as_deref());
    match (node.origins.first(), result) {
        (Some(origin), _) => origin.name.to_string(),
        (None, Some(name)) => name.to_string(),
        (None, None) => format!("{} {}", node.op.name(), id.0),
    }
}
