//! Walking nodes: names to values, topological order, and local functions, which are inlined.

use super::attrs::Attrs;
use super::import::{Import, LATEST_OPSET, default_opset, is_onnx_domain};
use super::ops;
use super::proto::{AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto};
use super::site::Site;
use lehr_ir::ops::Identity;
use lehr_ir::{Diag, Location, Origin, ValueId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Functions may call functions this deep.
const MAX_DEPTH: usize = 32;
/// Bytes of functions that inlining may copy in all: functions that call each other twice grow without bound.
const MAX_INLINED: usize = 1 << 26;

/// Operands that a complaint lists, and how long their names may be.
const MAX_LISTED: usize = 8;
const MAX_NAME: usize = 200;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Slot {
    Value(ValueId),
    /// An optional operand that the call of a function leaves out.
    Absent,
    /// Something about it was wrong and has been reported.
    Unknown,
}

/// The names visible to a list of nodes, and the opsets that hold there.
pub struct Scope<'m> {
    values: HashMap<String, Slot>,
    opset: i64,
    /// Versions of other domains.
    imports: HashMap<&'m str, i64>,
    /// Inside a function: the attributes of the call.
    attributes: HashMap<&'m str, &'m AttributeProto>,
    /// Put before the names of values, so that two calls of a function differ.
    prefix: String,
}

impl<'m> Scope<'m> {
    pub fn top(opset: i64, imports: &'m [OperatorSetIdProto]) -> Scope<'m> {
        let imports = imports.iter().map(|o| (o.domain.as_str(), o.version)).collect();
        Scope { values: HashMap::new(), opset, imports, attributes: HashMap::new(), prefix: String::new() }
    }

    pub fn get(&self, name: &str) -> Option<Slot> {
        self.values.get(name).copied()
    }

    pub fn define(&mut self, name: &str, slot: Slot) {
        self.values.insert(name.to_string(), slot);
    }
}

impl<'m> Import<'m> {
    /// Imports nodes in topological order; `depth` counts the functions around them.
    pub(super) fn nodes(&mut self, nodes: &'m [NodeProto], scope: &mut Scope<'m>, depth: usize) {
        for index in self.order(nodes, scope) {
            self.one(&nodes[index], index, scope, depth);
        }
    }

    /// Node indices, every producer before its consumers and otherwise as in the file.
    fn order(&mut self, nodes: &[NodeProto], scope: &mut Scope<'m>) -> Vec<usize> {
        let mut producer: HashMap<&str, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                if scope.get(name).is_some() || producer.insert(name, index).is_some() {
                    let why = format!("the value {name} is defined more than once");
                    self.errors.push(Diag::new("import.name", why).at(locate(node, index)));
                }
            }
        }
        let mut waiting = vec![0usize; nodes.len()];
        let mut users: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for name in &node.input {
                match producer.get(name.as_str()) {
                    Some(&from) => {
                        users[from].push(index);
                        waiting[index] += 1;
                    }
                    None if name.is_empty() || scope.get(name).is_some() => {}
                    None => {
                        let diag = Diag::new("import.undefined", format!("the operand {name} is defined nowhere"));
                        self.errors.push(diag.at(locate(node, index)));
                        // Reported once; its other users stay silent.
                        scope.define(name, Slot::Unknown);
                    }
                }
            }
        }
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..nodes.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
        let mut order = vec![];
        while let Some(Reverse(index)) = ready.pop() {
            order.push(index);
            for &user in &users[index] {
                waiting[user] -= 1;
                if waiting[user] == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
        if order.len() < nodes.len() {
            self.report_cycle(nodes, &producer, &waiting);
            for (node, _) in nodes.iter().zip(&waiting).filter(|(_, w)| **w > 0) {
                node.output.iter().for_each(|name| scope.define(name, Slot::Unknown));
            }
        }
        order
    }

    /// Follows operands that wait backwards until a node comes up again: from there on it is a cycle.
    fn report_cycle(&mut self, nodes: &[NodeProto], producer: &HashMap<&str, usize>, waiting: &[usize]) {
        let Some(start) = waiting.iter().position(|&w| w > 0) else { return };
        let (mut path, mut at) = (vec![], start);
        let mut position: HashMap<usize, usize> = HashMap::new();
        while position.insert(at, path.len()).is_none() {
            path.push(at);
            let blocked = nodes[at].input.iter().filter_map(|n| producer.get(n.as_str())).find(|p| waiting[**p] > 0);
            let Some(&next) = blocked else { return };
            at = next;
        }
        let cycle = &path[position[&at]..];
        let names: Vec<String> = cycle.iter().rev().take(8).map(|&i| origin(&nodes[i], i).name.to_string()).collect();
        let rest = if cycle.len() > names.len() { ", ..." } else { "" };
        let why = format!("these nodes form a cycle: {}{rest}", names.join(", "));
        self.errors.push(Diag::new("import.cycle", why).at(locate(&nodes[at], at)));
    }

    fn one(&mut self, node: &'m NodeProto, index: usize, scope: &mut Scope<'m>, depth: usize) {
        let mut origin = origin(node, index);
        if depth > 0 {
            // Inside of a function, the name of the call says where, and there is no position in the graph.
            origin = Origin { name: format!("{}{}", scope.prefix, origin.name).into(), index: None, op: origin.op };
        }
        let location = Location::Node { name: origin.name.clone(), index: origin.index, op: origin.op.clone() };
        match self.results(node, scope, depth, origin) {
            Ok(Some(results)) => {
                for (name, slot) in node.output.iter().zip(results).filter(|(n, _)| !n.is_empty()) {
                    if let Slot::Value(v) = slot {
                        self.build.graph.set_value_name(v, Some(format!("{}{name}", scope.prefix).into()));
                    }
                    scope.define(name, slot);
                }
            }
            Ok(None) => node.output.iter().for_each(|name| scope.define(name, Slot::Unknown)),
            Err(diag) => {
                let diag = diag.at_if_unset(|| location);
                let diag = match is_onnx_domain(&node.domain) {
                    true => diag.note(format!("its opset: {}", scope.opset)),
                    false => diag,
                };
                self.errors.push(match self.operands(node, scope) {
                    Some(list) => diag.note(format!("its operands: {list}")),
                    None => diag,
                });
                node.output.iter().for_each(|name| scope.define(name, Slot::Unknown));
            }
        }
    }

    /// Names and types of a node's operands, for a complaint; `None` if there are none, or too many to read.
    fn operands(&self, node: &NodeProto, scope: &Scope<'m>) -> Option<String> {
        let describe = |name: &String| match scope.get(name) {
            Some(Slot::Value(v)) => format!("{name} {}", self.build.graph.ty(v)),
            Some(Slot::Absent) => format!("{name} left out"),
            Some(Slot::Unknown) | None if name.is_empty() => "none".to_string(),
            Some(Slot::Unknown) | None => format!("{name} unknown"),
        };
        let readable = (1..=MAX_LISTED).contains(&node.input.len()) && node.input.iter().all(|n| n.len() < MAX_NAME);
        readable.then(|| node.input.iter().map(describe).collect::<Vec<_>>().join(", "))
    }

    /// The results of a node; `None` if an operand is unknown, which has been reported.
    fn results(
        &mut self,
        node: &'m NodeProto,
        scope: &Scope<'m>,
        depth: usize,
        origin: Origin,
    ) -> Result<Option<Vec<Slot>>, Diag> {
        let attributes = resolve(node, scope)?;
        let mut inputs = vec![];
        let mut unknown = false;
        for name in &node.input {
            inputs.push(match scope.get(name) {
                _ if name.is_empty() => None,
                Some(Slot::Value(v)) => Some(v),
                Some(Slot::Absent) => None,
                Some(Slot::Unknown) | None => {
                    unknown = true;
                    None
                }
            });
        }
        let model = self.model;
        let function = self.functions.get(&(&*node.domain, &*node.op_type, &*node.overload)).copied();
        if let Some((function, size)) = function {
            let slot = |n: &String| if n.is_empty() { Slot::Absent } else { scope.get(n).unwrap_or(Slot::Unknown) };
            let slots = node.input.iter().map(slot).collect();
            return self.inline(function, size, slots, attributes, &origin, depth).map(Some);
        }
        let opset = opset_of(node, scope)?;
        let row = ops::find(&node.op_type, opset)?;
        if unknown {
            return Ok(None);
        }
        let given = node.input.len();
        if given < row.inputs.0 || given > row.inputs.1 {
            let why = format!("{} takes {} operands, {given} are given", node.op_type, row.arity());
            return Err(Diag::new("import.arity", why));
        }
        let mut site = Site {
            build: &mut self.build,
            attrs: Attrs::new(attributes)?,
            opset,
            wanted: node.output.iter().map(|n| !n.is_empty()).collect(),
            inputs,
            origin: origin.clone(),
            external: &model.external,
            needed: &mut self.needed,
        };
        let first_new = site.build.graph.id_bound();
        let mut results = row.import(&mut site)?;
        site.attrs.finish()?;
        let asked = site.wanted.iter().rposition(|&w| w).map_or(0, |i| i + 1);
        if asked > results.len() {
            let why = format!("output {} of {} does not exist or is not supported", asked - 1, node.op_type);
            return Err(Diag::new("import.output", why));
        }
        // A name belongs to one value: what is handed through, or twice, gets a node of its own.
        for i in 0..results.len() {
            if results[i].node.index() < first_new || results[..i].contains(&results[i]) {
                results[i] = site.op(Identity {}, &[results[i]])?;
            }
        }
        Ok(Some(results.into_iter().map(Slot::Value).collect()))
    }

    fn inline(
        &mut self,
        function: &'m FunctionProto,
        size: usize,
        operands: Vec<Slot>,
        attributes: Vec<(&'m str, &'m AttributeProto)>,
        call: &Origin,
        depth: usize,
    ) -> Result<Vec<Slot>, Diag> {
        // Every node gets the call's name as well.
        self.inlined = self.inlined.saturating_add(size).saturating_add(function.node.len() * (call.name.len() + 64));
        if depth >= MAX_DEPTH || self.inlined > MAX_INLINED {
            let why = format!("the function {} calls itself, or functions grow beyond measure", function.name);
            return Err(Diag::new("import.function", why));
        }
        if operands.len() > function.input.len() {
            let why = format!("the function {} takes {} operands", function.name, function.input.len());
            return Err(Diag::new("import.function", why));
        }
        let defaults = function.attribute_proto.iter().map(|a| (a.name.as_str(), a));
        let opset = default_opset(&function.opset_import).unwrap_or(LATEST_OPSET);
        let mut inner = Scope::top(opset, &function.opset_import);
        inner.attributes = defaults.chain(attributes).collect();
        inner.prefix = format!("{}/", call.name);
        for (i, name) in function.input.iter().enumerate() {
            inner.define(name, operands.get(i).copied().unwrap_or(Slot::Absent));
        }
        self.nodes(&function.node, &mut inner, depth + 1);
        let missing = |name: &String| {
            let why = format!("the function {} does not compute its output {name}", function.name);
            Diag::new("import.function", why)
        };
        let mut results = vec![];
        for name in &function.output {
            let slot = inner.get(name).ok_or_else(|| missing(name))?;
            results.push(match slot {
                Slot::Unknown | Slot::Absent => Slot::Unknown,
                Slot::Value(v) => {
                    let id = self.build.add(Identity {}.into(), &[Some(v)], vec![call.clone()])?;
                    Slot::Value(id.out(0))
                }
            });
        }
        Ok(results)
    }
}

/// The attributes of a node; inside a function, some are those of the call, and absent if the call has none.
fn resolve<'m>(node: &'m NodeProto, scope: &Scope<'m>) -> Result<Vec<(&'m str, &'m AttributeProto)>, Diag> {
    let mut list = vec![];
    for a in &node.attribute {
        if a.ref_attr_name.is_empty() {
            list.push((a.name.as_str(), a));
        } else if let Some(value) = scope.attributes.get(a.ref_attr_name.as_str()) {
            list.push((a.name.as_str(), *value));
        }
    }
    Ok(list)
}

fn opset_of(node: &NodeProto, scope: &Scope) -> Result<i64, Diag> {
    if is_onnx_domain(&node.domain) {
        return Ok(scope.opset);
    }
    let version = scope.imports.get(node.domain.as_str()).map_or("not imported".into(), |v| v.to_string());
    Err(Diag::new(
        "import.unsupported-op",
        format!("the operator {} of the domain {} (opset {version}) is not supported", node.op_type, node.domain),
    )
    .note("export the model with ONNX's own operators only, or define this one as a function in the model"))
}

fn origin(node: &NodeProto, index: usize) -> Origin {
    let first = node.output.iter().find(|n| !n.is_empty()).map_or("", |n| n.as_str());
    let name = if node.name.is_empty() { first } else { &node.name };
    Origin { name: name.into(), index: Some(index), op: node.op_type.as_str().into() }
}

fn locate(node: &NodeProto, index: usize) -> Location {
    let Origin { name, index, op } = origin(node, index);
    Location::Node { name, index, op }
}
