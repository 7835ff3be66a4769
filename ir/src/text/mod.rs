//! The text form of graphs: what dumps, file tests and snapshots show.
//!
//! ```text
//! graph @name(%x: f32[batch,3,8,8]) {                       ; a semicolon starts a comment
//!   %w = const f32[4,3,3,3] seeded(1)                       ; or splat(0.5), [1, 2], weight("name")
//!   %"conv/1:0": f32[batch,4,6,6] = conv %x, %w {strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1]} from "conv_1" (Conv #0)
//!   %0: f32[batch,4,1,1] = reduce %"conv/1:0" {f=mean, axes=[2, 3]}
//!   return %0 as "mean"
//! }
//! ```
//!
//! A value is called by its ONNX name (quoted unless it is an identifier; `!1`, `!2` ... tell equal names apart) or, without
//! one, by a number. `_` stands for an absent operand. `from` lists the ONNX nodes that a node came from. A constant's weight
//! name is its value's name unless `named "w"` or `unnamed` says otherwise. Regions follow their node as nested graphs.
//! Written result types are optional and checked against inference.
//!
//! Printing then parsing gives an equal graph up to ids ([`Graph::canonical_eq`]), and printing is deterministic. The parser is
//! total: any string gives a graph or diagnostics.

mod dims;
mod elements;
mod lex;
mod literals;
mod parse;
mod print;

pub use dims::parse_dim;
pub use parse::parse;
pub use print::{PrintOptions, print, weights};

use crate::graph::Graph;
use crate::ops::Op;

/// Words of the dimension and attribute grammar; a symbol called like one is quoted.
const RESERVED: &[&str] = &["true", "false", "none", "inf", "nan", "max", "min", "floor", "mul", "_"];

/// True for symbols that print without quotes.
pub(crate) fn is_plain_symbol(s: &str) -> bool {
    is_identifier(s) && !RESERVED.contains(&s)
}

fn is_identifier(s: &str) -> bool {
    let mut chars = s.chars();
    chars.next().is_some_and(lex::starts_identifier) && chars.all(lex::continues_identifier)
}

/// As it is if that is an identifier, else quoted.
fn quoted(s: &str) -> String {
    if is_identifier(s) { s.to_string() } else { format!("{s:?}") }
}

impl Graph {
    /// Equal up to ids: the same text and the same constants.
    pub fn canonical_eq(&self, other: &Graph) -> bool {
        self.to_string() == other.to_string() && same_constants(self, other)
    }
}

fn same_constants(a: &Graph, b: &Graph) -> bool {
    let (x, y) = (a.order(), b.order());
    let consts = |g: &'_ Graph, ids: &[crate::NodeId]| -> Vec<std::sync::Arc<crate::ConstValue>> {
        ids.iter()
            .filter_map(|&id| match &g.node(id).op {
                Op::Const(c) => Some(c.value.clone()),
                _ => None,
            })
            .collect()
    };
    let regions = |g: &Graph, ids: &[crate::NodeId]| -> Vec<Graph> {
        ids.iter().flat_map(|&id| g.node(id).regions.clone()).collect()
    };
    let (r, s) = (regions(a, &x), regions(b, &y));
    consts(a, &x) == consts(b, &y) && r.len() == s.len() && r.iter().zip(&s).all(|(r, s)| same_constants(r, s))
}
