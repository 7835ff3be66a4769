//! Between row-major and blocked tensors, and the zeros around planes.

use crate::kernel::{Access, Blocks, CmpOp, Expr, KernelBuilder, Param};
use crate::lower::Lowering;
use crate::lower::cx::{KernelCx, NodeCx, Source, shape_of};
use crate::lower::order::Order;
use crate::lower::view::{Layout, View};
use crate::program::BufferId;
use lehr_ir::DType;
use lehr_ir::graph::{Graph, ValueId};

/// Room for a value in blocks, with zeros around its planes: a part of the concatenation that it goes into, or a buffer.
pub fn new_view(low: &mut Lowering, graph: &Graph, v: ValueId, name: Option<String>) -> View {
    if let Some(view) = low.reserved.get(&v) {
        return view.clone();
    }
    let Some((whole, first)) = low.layouts.placed(v) else {
        let order = low.layouts.order(graph, v);
        return new_buffer(low, graph, v, order, name);
    };
    let name = graph.value_name(whole).map(str::to_string);
    let whole_view = new_view(low, graph, whole, name);
    low.reserved.insert(whole, whole_view.clone());
    let Layout::Blocked { block, border, first: start, blocks, .. } = whole_view.layout else {
        unreachable!("concatenations that hold their operands are blocked")
    };
    let order = low.layouts.order(graph, v);
    let layout = Layout::Blocked { block, border, first: start + first, blocks, order };
    View { buf: whole_view.buf, dtype: DType::F32, shape: shape_of(graph, v), layout }
}

fn new_buffer(low: &mut Lowering, graph: &Graph, v: ValueId, order: Order, name: Option<String>) -> View {
    let shape = shape_of(graph, v);
    let block = low.isa().lanes();
    let border = low.layouts.border(v, shape.len() - 2);
    let padded: usize = shape[2..].iter().zip(&border).map(|(n, (before, after))| before + n + after).product();
    let blocks = order.blocks();
    let buf = low.new_buffer(DType::F32, shape[0] * blocks * padded * block, name);
    let layout = Layout::Blocked { block, border, first: 0, blocks, order };
    let view = View { buf, dtype: DType::F32, shape, layout };
    zero_border(low, graph, &view);
    view
}

/// The value in blocks, its channels in this order: as it was produced, or converted.
pub fn in_blocks(low: &mut Lowering, graph: &Graph, v: ValueId, order: &Order) -> View {
    let produced = low.views.get(&v).filter(|_| low.layouts.is_blocked(v));
    let known = produced.into_iter().chain(low.converted.get(&v).into_iter().flatten());
    if let Some(view) = known.into_iter().find(|view| view.order() == Some(order)) {
        return view.clone();
    }
    let from = match low.source(graph, v) {
        Source::Const(c) => low.const_view(&c),
        Source::Buffer(view) => view,
    };
    let to = new_buffer(low, graph, v, order.clone(), None);
    step(low, graph, "to_blocks", |cx| to_blocks(cx, &from, &to));
    low.converted.entry(v).or_default().push(to.clone());
    to
}

/// The value row-major: as it was produced, or converted.
pub fn plain(low: &mut Lowering, graph: &Graph, v: ValueId) -> View {
    let view = low.views[&v].clone();
    let Layout::Blocked { border, blocks, order, .. } = &view.layout else { return view };
    // Whole blocks of single elements lie in channel order.
    let single = view.shape[2..].iter().all(|&n| n == 1) && border.iter().all(|b| *b == (0, 0));
    if single && order.is_whole() && *blocks == order.blocks() {
        return View::dense(view.buf, view.dtype, view.shape);
    }
    let mut known = low.converted.get(&v).into_iter().flatten();
    if let Some(view) = known.find(|view| view.block().is_none()) {
        return view.clone();
    }
    let buf = low.new_buffer(view.dtype, view.len(), None);
    let to = View::dense(buf, view.dtype, view.shape.clone());
    step(low, graph, "from_blocks", |cx| from_blocks(cx, &view, &to));
    low.converted.entry(v).or_default().push(to.clone());
    to
}

/// Numbers of channels or slots for kernels to look up.
fn table(cx: &mut NodeCx, numbers: impl Iterator<Item = i64>) -> BufferId {
    let bytes: Vec<u8> = numbers.flat_map(i64::to_le_bytes).collect();
    cx.low.add_weights(DType::I64, bytes.len() / 8, bytes.into())
}

/// A step that no operator of the graph stands for.
fn step(low: &mut Lowering, graph: &Graph, name: &str, f: impl FnOnce(&mut NodeCx)) {
    f(&mut NodeCx::new(low, graph, None, vec![], vec![], vec![], name.into()));
}

fn to_blocks(cx: &mut NodeCx, from: &View, to: &View) {
    let order = to.order().expect("the target is blocked").clone();
    let block = cx.low.isa().lanes();
    let (channels, spatial) = (from.shape[1], &from.shape[2..]);
    let (xs, ys) = (from.lattice(), to.lattice());
    // Which channel a slot holds; none is beyond them all.
    let holds = |c: Option<usize>| c.unwrap_or(channels) as i64;
    let looked_up = (!order.is_plain()).then(|| table(cx, order.by_slot().into_iter().map(holds)));
    let mut k = cx.kernel("");
    let blocks = order.blocks();
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    let points = spatial.iter().product::<usize>() * block;
    let p = k.parallel((from.shape[0] * blocks) as i64, points as i64);
    let (image, b) = (k.let_(p.clone() / blocks as i64), k.let_(p % blocks as i64));
    let (x, y) = (k.param_for(from.buf, Access::Read), k.param_for(to.buf, Access::Write));
    let looked_up = looked_up.map(|t| k.param_for(t, Access::Read));
    let first = k.let_(b.clone() * block as i64);
    k.loops(lines, |k, line| {
        let mut start = line.to_vec();
        start.push(Expr::i64(0));
        let row = k.let_(ys.at(&image, b.clone(), &start));
        let (step_x, step_y) = (xs.spatial[line.len()], ys.spatial[line.len()]);
        k.serial(block, |k, lane| {
            let slot = k.let_(first.clone() + lane.clone());
            let channel = match looked_up {
                Some(t) => {
                    let entry = k.builder().load(t, slot);
                    k.let_(entry)
                }
                None => slot,
            };
            let target = k.let_(row.clone() + lane);
            let copy = |k: &mut KernelCx| {
                let source = k.let_(xs.at(&image, channel.clone(), &start));
                k.vector(*width, |k, w| {
                    let value = k.builder().load(x, source.clone() + w.clone() * step_x);
                    k.builder().store(y, target.clone() + w * step_y, value);
                });
            };
            if !order.is_padded() {
                return copy(k);
            }
            let exists = Expr::compare(CmpOp::Lt, channel.clone(), Expr::i64(channels as i64));
            k.if_else(exists, copy, |k| {
                k.vector(*width, |k, w| k.builder().store(y, target.clone() + w * step_y, Expr::f32(0.0)));
            });
        });
    });
    k.finish();
}

fn from_blocks(cx: &mut NodeCx, from: &View, to: &View) {
    let order = from.order().expect("the source is blocked").clone();
    let block = cx.low.isa().lanes();
    let (channels, spatial) = (from.shape[1], &from.shape[2..]);
    let (xs, ys) = (from.lattice(), to.lattice());
    let slots = (0..channels).map(|c| order.slot(c) as i64);
    let looked_up = slots.clone().ne(0..channels as i64).then(|| table(cx, slots));
    let mut k = cx.kernel("");
    let points: usize = spatial.iter().product();
    let p = k.parallel((from.shape[0] * channels) as i64, points as i64);
    let (image, c) = (k.let_(p.clone() / channels as i64), k.let_(p % channels as i64));
    let (x, y) = (k.param_for(from.buf, Access::Read), k.param_for(to.buf, Access::Write));
    let slot = match looked_up {
        Some(t) => {
            let t = k.param_for(t, Access::Read);
            let entry = k.builder().load(t, c.clone());
            k.let_(entry)
        }
        None => c.clone(),
    };
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    k.loops(lines, |k, line| {
        let mut start = line.to_vec();
        start.push(Expr::i64(0));
        let source = k.let_(xs.at(&image, slot.clone() / block as i64, &start) + slot.clone() % block as i64);
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
    let Layout::Blocked { block, border, blocks, .. } = &view.layout else { return };
    if border.iter().all(|b| *b == (0, 0)) {
        return;
    }
    let dims: Vec<usize> = view.shape[2..].iter().zip(border).map(|(n, (b, a))| b + n + a).collect();
    let planes = view.shape[0] * blocks;
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
