//! Between row-major and blocked tensors, and the zeros around planes.

use crate::kernel::{Access, Blocks, Expr, KernelBuilder, LoopKind, Param};
use crate::lower::Lowering;
use crate::lower::cx::{NodeCx, Source, shape_of};
use crate::lower::view::{Layout, View};
use lehr_ir::DType;
use lehr_ir::graph::{Graph, ValueId};
use std::collections::HashMap;

/// Room for a value in blocks, with zeros around its planes: a part of the concatenation that it goes into, or a buffer.
pub fn new_view(low: &mut Lowering, graph: &Graph, v: ValueId, name: Option<String>) -> View {
    if let Some(view) = low.reserved.get(&v) {
        return view.clone();
    }
    let Some((whole, first)) = low.layouts.placed(v) else { return new_buffer(low, graph, v, name) };
    let name = graph.value_name(whole).map(str::to_string);
    let whole_view = new_view(low, graph, whole, name);
    low.reserved.insert(whole, whole_view.clone());
    let Layout::Blocked { block, border, first: start, blocks } = whole_view.layout else {
        unreachable!("concatenations that hold their operands are blocked")
    };
    let layout = Layout::Blocked { block, border, first: start + first, blocks };
    View { buf: whole_view.buf, dtype: DType::F32, shape: shape_of(graph, v), layout }
}

fn new_buffer(low: &mut Lowering, graph: &Graph, v: ValueId, name: Option<String>) -> View {
    let shape = shape_of(graph, v);
    let block = low.isa().lanes();
    let border = low.layouts.border(v, shape.len() - 2);
    let padded: usize = shape[2..].iter().zip(&border).map(|(n, (before, after))| before + n + after).product();
    let blocks = shape[1].div_ceil(block);
    let buf = low.new_buffer(DType::F32, shape[0] * blocks * padded * block, name);
    let view = View { buf, dtype: DType::F32, shape, layout: Layout::Blocked { block, border, first: 0, blocks } };
    zero_border(low, graph, &view);
    view
}

/// The value in blocks: as it was produced, or converted.
pub fn in_blocks(low: &mut Lowering, graph: &Graph, v: ValueId) -> View {
    if low.layouts.is_blocked(v) {
        return low.views[&v].clone();
    }
    if let Some(view) = low.converted.get(&v) {
        return view.clone();
    }
    let from = match low.source(graph, v) {
        Source::Const(c) => low.const_view(&c),
        Source::Buffer(view) => view,
    };
    let to = new_buffer(low, graph, v, None);
    step(low, graph, "to_blocks", |cx| to_blocks(cx, &from, &to));
    low.converted.insert(v, to.clone());
    to
}

/// The value row-major: as it was produced, or converted.
pub fn plain(low: &mut Lowering, graph: &Graph, v: ValueId) -> View {
    let view = low.views[&v].clone();
    let Layout::Blocked { block, border, blocks, .. } = &view.layout else { return view };
    // Whole blocks of single elements lie in channel order.
    if blocks * block == view.shape[1] && view.shape[2..].iter().all(|&n| n == 1) && border.iter().all(|b| *b == (0, 0))
    {
        return View::dense(view.buf, view.dtype, view.shape);
    }
    if let Some(view) = low.converted.get(&v) {
        return view.clone();
    }
    let buf = low.new_buffer(view.dtype, view.len(), None);
    let to = View::dense(buf, view.dtype, view.shape.clone());
    step(low, graph, "from_blocks", |cx| from_blocks(cx, &view, &to));
    low.converted.insert(v, to.clone());
    to
}

/// A step that no operator of the graph stands for.
fn step(low: &mut Lowering, graph: &Graph, name: &str, f: impl FnOnce(&mut NodeCx)) {
    f(&mut NodeCx::new(low, graph, None, HashMap::new(), vec![], vec![], name.into()));
}

fn to_blocks(cx: &mut NodeCx, from: &View, to: &View) {
    let block = to.block().expect("the target is blocked");
    let (channels, spatial) = (from.shape[1], &from.shape[2..]);
    let (xs, ys) = (from.lattice(), to.lattice());
    let mut k = cx.kernel("");
    let blocks = channels.div_ceil(block);
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    let points = spatial.iter().product::<usize>() * block;
    let p = k.parallel((from.shape[0] * blocks) as i64, points as i64);
    let (image, b) = (k.let_(p.clone() / blocks as i64), k.let_(p % blocks as i64));
    let (x, y) = (k.param_for(from.buf, Access::Read), k.param_for(to.buf, Access::Write));
    let first = k.let_(b.clone() * block as i64);
    k.loops(lines, |k, line| {
        let mut start = line.to_vec();
        start.push(Expr::i64(0));
        let row = k.let_(ys.at(&image, b.clone(), &start));
        let whole = channels.is_multiple_of(block);
        let lanes = if whole {
            Expr::i64(block as i64)
        } else {
            k.let_((Expr::i64(channels as i64) - first.clone()).min(Expr::i64(block as i64)))
        };
        k.for_(LoopKind::Serial, Expr::i64(0), lanes.clone(), 1, |k, lane| {
            let source = k.let_(xs.at(&image, first.clone() + lane.clone(), &start));
            let (step_x, step_y) = (xs.spatial[line.len()], ys.spatial[line.len()]);
            let target = k.let_(row.clone() + lane);
            k.vector(*width, |k, w| {
                let value = k.builder().load(x, source.clone() + w.clone() * step_x);
                k.builder().store(y, target.clone() + w * step_y, value);
            });
        });
        if !whole {
            k.serial(*width, |k, w| {
                let target = k.let_(row.clone() + w * ys.spatial[line.len()]);
                k.for_(LoopKind::Serial, lanes, Expr::i64(block as i64), 1, |k, lane| {
                    k.builder().store(y, target.clone() + lane, Expr::f32(0.0));
                });
            });
        }
    });
    k.finish();
}

fn from_blocks(cx: &mut NodeCx, from: &View, to: &View) {
    let block = from.block().expect("the source is blocked");
    let (channels, spatial) = (from.shape[1], &from.shape[2..]);
    let (xs, ys) = (from.lattice(), to.lattice());
    let mut k = cx.kernel("");
    let points: usize = spatial.iter().product();
    let p = k.parallel((from.shape[0] * channels) as i64, points as i64);
    let (image, c) = (k.let_(p.clone() / channels as i64), k.let_(p % channels as i64));
    let (x, y) = (k.param_for(from.buf, Access::Read), k.param_for(to.buf, Access::Write));
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    k.loops(lines, |k, line| {
        let mut start = line.to_vec();
        start.push(Expr::i64(0));
        let source = k.let_(xs.at(&image, c.clone() / block as i64, &start) + c.clone() % block as i64);
        let target = k.let_(ys.at(&image, c.clone(), &start));
        let (step_x, step_y) = (xs.spatial[line.len()], ys.spatial[line.len()]);
        k.vector(*width, |k, w| {
            let value = k.builder().load(x, source.clone() + w.clone() * step_x);
            k.builder().store(y, target.clone() + w * step_y, value);
        });
    });
    k.finish();
}

/// Writes the zeros around each plane; the arena's memory has held something else before.
fn zero_border(low: &mut Lowering, graph: &Graph, view: &View) {
    let Layout::Blocked { block, border, .. } = &view.layout else { return };
    if border.iter().all(|b| *b == (0, 0)) {
        return;
    }
    let dims: Vec<usize> = view.shape[2..].iter().zip(border).map(|(n, (b, a))| b + n + a).collect();
    let planes = view.shape[0] * view.shape[1].div_ceil(*block);
    let border = border.clone();
    let block = *block;
    step(low, graph, "zero_border", |cx| {
        let mut k = cx.kernel("");
        let size: usize = dims.iter().product::<usize>() * block;
        let p = k.parallel(planes as i64, (size / 8) as i64);
        let y = k.param_for(view.buf, Access::Write);
        let start = k.let_(p * size as i64);
        zero_axis(&mut k, y, start, &dims, &border, block);
        k.finish();
    });
}

/// The border of the first axis as whole slices, then that of the others at each place inside.
pub(super) fn zero_axis(
    k: &mut KernelBuilder,
    y: Param,
    start: Expr,
    dims: &[usize],
    border: &[(usize, usize)],
    block: usize,
) {
    let (Some((&n, dims)), Some((&(before, after), border))) = (dims.split_first(), border.split_first()) else {
        return;
    };
    let slice = (dims.iter().product::<usize>() * block) as i64;
    for (first, count) in [(0, before), (n - after, after)].into_iter().filter(|(_, count)| *count > 0) {
        let from = k.let_(start.clone() + first as i64 * slice);
        k.vector(count * slice as usize, |k, i| k.store(y, from.clone() + i, Expr::f32(0.0)));
    }
    if border.iter().any(|b| *b != (0, 0)) {
        k.serial(n - before - after, |k, i| {
            let from = k.let_(start.clone() + (i + before as i64) * slice);
            zero_axis(k, y, from, dims, border, block);
        });
    }
}
