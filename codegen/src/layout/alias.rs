//! Channels by other numbers: operators that give the channels of a value in blocks another order, or take some of them, and
//! need no copy.
//!
//! ```text
//! shuffle    reshape [n, c, ...] to [n, a, b, ...], transpose to [n, b, a, ...], reshape to [n, c, ...]
//!                                        channel i*b + j becomes j*a + i
//! slice      of axis 1 alone, step 1     channel from + c becomes c
//! ```

use super::Layouts;
use crate::lower::order::Order;
use lehr_ir::graph::{Graph, NodeId, Uses, ValueId};
use lehr_ir::ops::Slice;
use lehr_ir::{Dim, Op};

impl Layouts {
    /// Whether the operator is a slice, or part of a shuffle, of a value in blocks. The first of a shuffle makes the result of the
    /// last an alias.
    pub(super) fn rename(&mut self, graph: &Graph, uses: &Uses, id: NodeId) -> bool {
        let node = graph.node(id);
        if self.alias(id.out(0)).is_some() {
            return true;
        }
        let Some(&Some(x)) = node.inputs.first() else { return false };
        if !self.is_blocked(x) {
            return false;
        }
        match &node.op {
            Op::Reshape(_) => {
                let Some(shuffle) = Shuffle::of(graph, uses, id) else { return false };
                let order = self.order(graph, x).permuted(|c| shuffle.channel(c));
                self.absorbed.extend(shuffle.inner);
                self.add_alias(shuffle.result, x, 0, order);
                true
            }
            Op::Slice(slice) => {
                let Some((from, count)) = channels(graph, slice, x) else { return false };
                let (order, first) = self.order(graph, x).slice(from, count);
                self.add_alias(id.out(0), x, first, order);
                true
            }
            _ => false,
        }
    }

    fn add_alias(&mut self, v: ValueId, of: ValueId, first: usize, order: Order) {
        self.aliases.insert(v, (of, first));
        self.blocked.insert(v);
        if !order.is_plain() {
            self.orders.insert(v, order);
        }
    }
}

/// Channels in `rows` rows that are read by columns.
struct Shuffle {
    rows: usize,
    columns: usize,
    /// All but the last operator, which gives `result`.
    inner: [NodeId; 2],
    result: ValueId,
}

impl Shuffle {
    /// The shuffle that begins with this reshape.
    fn of(graph: &Graph, uses: &Uses, first: NodeId) -> Option<Shuffle> {
        let from = graph.ty((*graph.node(first).inputs.first()?)?).const_shape()?;
        let split = graph.ty(first.out(0)).const_shape()?;
        let [rows, columns] = *split.get(1..3)? else { return None };
        if split[0] != from[0] || split.get(3..) != from.get(2..) || rows * columns != from[1] {
            return None;
        }
        let second = uses.only(first.out(0))?.node()?;
        let Op::Transpose(t) = &graph.node(second).op else { return None };
        let swapped = [0, 2, 1].into_iter().chain(3..split.len());
        let third = uses.only(second.out(0))?.node()?;
        let result = third.out(0);
        let is_reshape = matches!(graph.node(third).op, Op::Reshape(_));
        let same = graph.ty(result).const_shape()? == from;
        let found = t.perm.iter().copied().eq(swapped) && is_reshape && same;
        found.then_some(Shuffle { rows, columns, inner: [first, second], result })
    }

    fn channel(&self, c: usize) -> usize {
        c % self.columns * self.rows + c / self.columns
    }
}

/// The channels that a slice takes, if it takes all of the rest: the first, and how many.
fn channels(graph: &Graph, slice: &Slice, x: ValueId) -> Option<(usize, usize)> {
    let shape = graph.ty(x).const_shape()?;
    let numbers = |dims: &[Dim]| dims.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let (starts, lens) = (numbers(&slice.starts)?, numbers(&slice.lens)?);
    let rest = (0..shape.len()).filter(|&d| d != 1).all(|d| starts[d] == 0 && lens[d] == shape[d] as i64);
    let all_forward = slice.steps.iter().all(|&s| s == 1);
    let (from, count) = (usize::try_from(starts[1]).ok()?, usize::try_from(lens[1]).ok()?);
    (rest && all_forward && count > 0 && from + count <= shape[1]).then_some((from, count))
}
