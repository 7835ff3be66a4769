//! The printer. Values appear in [`Graph::order`]; nodes on cycles follow at the end, so that even a broken graph prints.

use super::{elements, quoted};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::op::AttrValue;
use crate::ops::Op;
use crate::tensor::{ConstValue, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write};
use std::sync::Arc;

/// What to show.
#[derive(Clone, Debug)]
pub struct PrintOptions {
    /// Nodes to print at most; the rest is counted in a comment.
    pub max_nodes: Option<usize>,
    /// Only nodes one of whose names (values, origins) or whose operator contains this.
    pub filter: Option<String>,
    /// Constants of at most so many elements print their elements.
    pub inline_elements: usize,
    /// Whether `from "node" (Op #3)` is shown.
    pub origins: bool,
}

impl Default for PrintOptions {
    fn default() -> PrintOptions {
        PrintOptions { max_nodes: None, filter: None, inline_elements: 16, origins: true }
    }
}

/// The text of `g`. With `max_nodes` or `filter` it may leave nodes out and then does not parse.
pub fn print(g: &Graph, options: &PrintOptions) -> String {
    let mut out = String::new();
    print_graph(g, options, 0, &mut out);
    out.push('\n');
    out
}

/// The constants that `g` prints by name: what the parser has to look up.
pub fn weights(g: &Graph) -> BTreeMap<String, Tensor> {
    let mut table = BTreeMap::new();
    for id in g.ids() {
        let node = g.node(id);
        if let Op::Const(c) = &node.op
            && let ConstValue::Dense { tensor, name } = &*c.value
        {
            table.insert(weight_key(tensor, name.as_deref()), tensor.clone());
        }
        node.regions.iter().for_each(|r| table.extend(weights(r)));
    }
    table
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self, &PrintOptions::default()))
    }
}

/// What every value is called: unique, without `%`.
struct Names(HashMap<ValueId, String>);

impl Names {
    fn new(g: &Graph, order: &[NodeId]) -> Names {
        let mut names = HashMap::new();
        let mut taken: HashMap<Arc<str>, usize> = HashMap::new();
        let mut unnamed = 0usize;
        let uses = g.uses();
        for &id in order {
            for (port, result) in g.node(id).results.iter().enumerate() {
                // Trailing results that have neither name nor use are left out.
                let speaks = |p: usize| {
                    let r = g.node(id).results.get(p);
                    r.is_some_and(|r| r.name.is_some()) || !uses.of(id.out(p as u32)).is_empty()
                };
                if port > 0 && !(port..g.node(id).results.len()).any(speaks) {
                    break;
                }
                let name = match &result.name {
                    Some(name) => {
                        let n = taken.entry(name.clone()).or_insert(0);
                        *n += 1;
                        if *n == 1 { quoted(name) } else { format!("{}!{}", quoted(name), *n - 1) }
                    }
                    None => {
                        unnamed += 1;
                        (unnamed - 1).to_string()
                    }
                };
                names.insert(id.out(port as u32), name);
            }
        }
        Names(names)
    }

    fn of(&self, v: ValueId) -> String {
        match self.0.get(&v) {
            Some(name) => format!("%{name}"),
            // Such text does not parse: the verifier says what is wrong with the graph.
            None => format!("%?{}.{}", v.node.0, v.port),
        }
    }
}

fn print_graph(g: &Graph, options: &PrintOptions, depth: usize, out: &mut String) {
    let ordered = g.order();
    let reached: HashSet<NodeId> = ordered.iter().copied().collect();
    let inputs = g.inputs().iter().filter(|v| g.try_node(v.node).is_some()).map(|v| v.node);
    let is_input: HashSet<NodeId> = inputs.clone().collect();
    let body = ordered.iter().copied().filter(|id| !is_input.contains(id));
    let cyclic = g.ids().filter(|id| !reached.contains(id) && !is_input.contains(id));
    let body: Vec<NodeId> = body.chain(cyclic).collect();
    let mut named: Vec<NodeId> = inputs.collect();
    named.extend(&body);
    let names = Names::new(g, &named);

    let indent = "  ".repeat(depth);
    let params: Vec<String> = g
        .inputs()
        .iter()
        .map(|&v| match g.try_node(v.node).and_then(|n| n.results.get(v.port as usize)) {
            Some(r) => format!("{}: {}", names.of(v), r.ty),
            None => names.of(v),
        })
        .collect();
    let _ = writeln!(out, "{indent}graph @{}({}) {{", quoted(&g.name), params.join(", "));
    let matching = body.iter().filter(|&&id| options.filter.as_ref().is_none_or(|f| matches(g.node(id), f)));
    let shown: Vec<NodeId> = matching.copied().take(options.max_nodes.unwrap_or(usize::MAX)).collect();
    for &id in &shown {
        print_node(g, id, &names, options, depth + 1, out);
    }
    if shown.len() < body.len() {
        let _ = writeln!(out, "{indent}  ; {} of {} nodes are not shown", body.len() - shown.len(), body.len());
    }
    let returns: Vec<String> = g
        .outputs
        .iter()
        .map(|o| {
            let own = g.try_node(o.value.node).and_then(|n| n.results.get(o.value.port as usize)?.name.as_deref());
            let value = names.of(o.value);
            if own.unwrap_or("") == &*o.name { value } else { format!("{value} as {:?}", o.name) }
        })
        .collect();
    let _ = writeln!(out, "{indent}  return{}{}", if returns.is_empty() { "" } else { " " }, returns.join(", "));
    let _ = write!(out, "{indent}}}");
}

fn matches(node: &Node, filter: &str) -> bool {
    node.op.name().contains(filter)
        || node.results.iter().any(|r| r.name.as_ref().is_some_and(|n| n.contains(filter)))
        || node.origins.iter().any(|o| o.name.contains(filter) || o.op.contains(filter))
}

fn print_node(g: &Graph, id: NodeId, names: &Names, options: &PrintOptions, depth: usize, out: &mut String) {
    let node = g.node(id);
    let indent = "  ".repeat(depth);
    let is_const = matches!(node.op, Op::Const(_));
    let results: Vec<String> = node
        .results
        .iter()
        .enumerate()
        .filter_map(|(port, r)| Some((names.0.get(&id.out(port as u32))?, r)))
        .map(|(name, r)| if is_const { format!("%{name}") } else { format!("%{name}: {}", r.ty) })
        .collect();
    let _ = write!(out, "{indent}{} = {}", results.join(", "), node.op.name());
    if let Op::Const(c) = &node.op {
        let _ = write!(out, " {}", constant(&c.value, node.results[0].name.as_deref(), options));
    }
    for (i, v) in node.inputs.iter().enumerate() {
        let operand = v.map_or("_".to_string(), |v| names.of(v));
        let _ = write!(out, "{}{operand}", if i > 0 { ", " } else { " " });
    }
    let attrs: Vec<String> = node.op.attrs().iter().map(|(name, v)| format!("{name}={}", attr(v))).collect();
    if !attrs.is_empty() {
        let _ = write!(out, " {{{}}}", attrs.join(", "));
    }
    for region in &node.regions {
        out.push('\n');
        print_graph(region, options, depth + 1, out);
    }
    if options.origins && !node.origins.is_empty() {
        let origins: Vec<String> = node
            .origins
            .iter()
            .map(|o| match o.index {
                Some(i) => format!("{:?} ({} #{i})", o.name, quoted(&o.op)),
                None => format!("{:?} ({})", o.name, quoted(&o.op)),
            })
            .collect();
        let _ = write!(out, " from {}", origins.join(", "));
    }
    out.push('\n');
}

fn constant(value: &ConstValue, value_name: Option<&str>, options: &PrintOptions) -> String {
    let ty = value.ty();
    match value {
        ConstValue::Splat { element, .. } => format!("{ty} splat({})", elements::print(element)),
        ConstValue::Seeded { seed, .. } => format!("{ty} seeded({seed})"),
        ConstValue::Dense { tensor, name } => {
            let naming = match name.as_deref() {
                name if name == value_name => String::new(),
                Some(name) => format!("named {name:?} "),
                None => "unnamed ".into(),
            };
            if tensor.len() <= options.inline_elements {
                format!("{ty} {naming}[{}]", elements::print(tensor))
            } else {
                format!("{ty} {naming}weight({:?})", weight_key(tensor, name.as_deref()))
            }
        }
    }
}

/// The weight's name, or one made from its contents.
fn weight_key(tensor: &Tensor, name: Option<&str>) -> String {
    match name {
        Some(name) => name.to_string(),
        None => {
            // FNV-1a: stable on every platform and version.
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for &byte in tensor.ty().to_string().as_bytes().iter().chain(&tensor.bytes()[..]) {
                hash = (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
            }
            format!("unnamed.{hash:016x}")
        }
    }
}

fn attr(v: &AttrValue) -> String {
    match v {
        AttrValue::Int(n) => n.to_string(),
        AttrValue::Float(bits) => elements::print_f32(f32::from_bits(bits.0)),
        AttrValue::Bool(b) => b.to_string(),
        AttrValue::Word(w) => quoted(w),
        AttrValue::Text(t) => format!("{t:?}"),
        AttrValue::Dim(d) => d.to_string(),
        AttrValue::List(items) => format!("[{}]", items.iter().map(attr).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::Origin;
    use crate::ops::{Unary, UnaryFn};
    use crate::types::TensorType;

    fn chain(n: usize) -> Graph {
        let mut g = Graph::new("chain");
        let mut v = g.add_input("x", TensorType::new(DType::F32, [2]));
        for i in 0..n {
            let origin = Origin { name: format!("relu_{i}").into(), index: Some(i), op: "Relu".into() };
            v = g.add1(Unary { f: UnaryFn::Relu }, &[v], vec![origin]).unwrap();
        }
        g.add_output("y", v);
        g
    }

    #[test]
    fn caps_and_filters_say_what_they_leave_out() {
        let capped = print(&chain(10), &PrintOptions { max_nodes: Some(2), ..PrintOptions::default() });
        assert!(
            capped.contains("relu_1") && !capped.contains("relu_2") && capped.contains("8 of 10 nodes are not shown")
        );
        let filtered = print(&chain(10), &PrintOptions { filter: Some("relu_7".into()), ..PrintOptions::default() });
        assert!(filtered.contains("relu_7") && filtered.contains("9 of 10 nodes are not shown"));
        let bare = print(&chain(1), &PrintOptions { origins: false, ..PrintOptions::default() });
        assert!(!bare.contains("from"));
    }
}
