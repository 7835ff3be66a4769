//! Elementwise groups on plain values, by map leaves. Neighbouring axes are merged where every operand allows it; along the last of
//! them operands are streams or stay at one element. All lie row-major without gaps.
//!
//! ```text
//! parallel for outer axes, or for chunks of a row where there are few
//!     leaf: a row, or its chunk
//! ```

use super::leaf_diag;
use super::operands::{Feed, spread};
use crate::kernel::{Access as Use, Expr, LeafArg, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx, Source};
use crate::lower::elementwise::{aligned, aligned_strides, merged};
use crate::lower::nest::unflatten;
use crate::lower::view::{View, row_major};
use crate::x86::{Access, LeafSpec, Map};
use lehr_ir::Diag;
use lehr_ir::graph::{Graph, ValueId};

/// Shorter rows are plain loops': each is a call.
const MIN_ROW: usize = 48;
/// Rows of so many elements at least are written past the caches: their ends are not.
const MIN_PAST_CACHES: usize = 1024;
/// So many parallel iterations are wanted, more than elsewhere, for rows differ in nothing; and so many operations in each.
const GRAIN: usize = 32;
const MIN_OPERATIONS: i64 = 1 << 13;

/// Whether rows of the result are long enough for a leaf, by the shapes of the operands that are not streamed.
pub fn long_enough(shape: &[usize], operands: &[Vec<usize>]) -> bool {
    let strides = |own: &Vec<usize>| aligned(own, &row_major(own), shape);
    let strides: Vec<Vec<i64>> = operands.iter().chain([&shape.to_vec()]).map(strides).collect();
    let rows = merged(shape, &strides);
    rows.last().is_some_and(|axes| axes.iter().map(|&d| shape[d]).product::<usize>() >= MIN_ROW)
}

/// The value from outside that comes in as the program's input: the first of the result's type.
pub fn streamed(graph: &Graph, outside: impl IntoIterator<Item = ValueId>, result: ValueId) -> Option<ValueId> {
    outside.into_iter().find(|&v| graph.ty(v) == graph.ty(result))
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.outputs[0].1.clone();
    let (start, x) = stream(cx);
    // Once to learn the operands, once with how they are stepped through.
    let feeds = spread(cx, start, &mut |_| Access::Same).feeds;
    let views: Vec<View> = feeds.iter().map(view).collect();
    let strides: Vec<Vec<i64>> = views.iter().chain([&x, &y]).map(|v| aligned_strides(v, &y.shape)).collect();
    let axes = merged(&y.shape, &strides);
    let own: Vec<Vec<i64>> = strides.iter().map(|s| axes.iter().map(|a| step(a, &y.shape, s)).collect()).collect();
    // The program asks for its operands in order.
    let mut accesses = own.iter().map(|s| if s.last() == Some(&0) { Access::Splat } else { Access::Same });
    let mut access = |_: &Feed| accesses.next().expect("the operands are those of the first translation");
    let program = spread(cx, start, &mut access).program;
    let sizes: Vec<usize> = axes.iter().map(|a| a.iter().map(|&d| y.shape[d]).product()).collect();
    let (&row, outer) = sizes.split_last().expect("a long row has an axis");
    let past_caches = 4 * y.len() > cx.low.machine.caches.l2 && row >= MIN_PAST_CACHES;
    let leaf = cx.low.leaf(&LeafSpec::Map(Map { program, past_caches })).map_err(|e| leaf_diag(cx, &e))?;
    let call = Call { leaf, views: [&views[..], &[x, y]].concat(), strides: own };
    let cost = cx.elementwise_cost();
    let mut k = cx.kernel("");
    let count: usize = outer.iter().product();
    if count >= GRAIN {
        k.nest(&[outer, &[1]].concat(), cost.saturating_mul(row as i64), LoopKind::Serial, |k, c| {
            call.emit(k, &c[..outer.len()], Expr::i64(0), Expr::i64(row as i64));
        });
    } else {
        let most = (row as i64).saturating_mul(cost) / MIN_OPERATIONS;
        let chunks = (GRAIN / count.max(1)).min(most as usize).max(1);
        // Multiples of 64 elements, so that no two threads write one cache line.
        let chunk = row.div_ceil(chunks).next_multiple_of(64);
        let chunks = row.div_ceil(chunk);
        let p = k.parallel((count * chunks) as i64, cost.saturating_mul(chunk.min(row) as i64));
        let at = unflatten(&mut k, p, &[outer, &[chunks]].concat());
        let (part, at) = at.split_last().expect("chunks are an axis");
        let first = k.let_(part.clone() * chunk as i64);
        let length = (Expr::i64(row as i64) - first.clone()).min(Expr::i64(chunk as i64));
        call.emit(&mut k, at, first, length);
    }
    k.finish();
    Ok(())
}

fn stream(cx: &mut NodeCx) -> (ValueId, View) {
    let outside = cx.outside().iter().copied();
    let start = streamed(cx.graph, outside, cx.outputs[0].0).expect("the layout pass has found one");
    let view = match cx.source(start).expect("it comes from outside") {
        Source::Buffer(view) => view,
        Source::Const(c) => cx.low.const_view(&c),
    };
    (start, view)
}

fn view(feed: &Feed) -> View {
    match feed {
        Feed::Same(view) | Feed::Splat(view) => view.clone(),
        Feed::Channel { .. } => unreachable!("there are no channels"),
    }
}

/// The stride of merged axes: that of the last which is not 1.
fn step(axes: &[usize], shape: &[usize], strides: &[i64]) -> i64 {
    axes.iter().rfind(|&&d| shape[d] != 1).map_or(0, |&d| strides[d])
}

struct Call {
    leaf: u32,
    /// Operands, then input and result.
    views: Vec<View>,
    /// Along the merged axes.
    strides: Vec<Vec<i64>>,
}

impl Call {
    /// A part of the row at these coordinates.
    fn emit(&self, k: &mut KernelCx, at: &[Expr], first: Expr, length: Expr) {
        let mut addresses: Vec<LeafArg> = vec![];
        let result = self.views.len() - 1;
        for (i, (view, strides)) in self.views.iter().zip(&self.strides).enumerate() {
            let buf = k.param_for(view.dense_buffer(), if i == result { Use::Write } else { Use::Read });
            let coordinates = at.iter().chain([&first]).zip(strides);
            let index = coordinates.fold(Expr::i64(0), |sum, (c, &s)| sum + c.clone() * s);
            addresses.push(LeafArg::Address { buf, index });
        }
        let operands = addresses.len() - 2;
        let mut args = addresses.split_off(operands);
        args.push(LeafArg::Int(length));
        args.append(&mut addresses);
        k.leaf(self.leaf, args);
    }
}
