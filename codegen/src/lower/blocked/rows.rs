//! Softmax and normalisations, by rows and columns leaves. Operands and results are row-major.
//!
//! ```text
//! parallel for chunk of rows
//!     leaf: the rows of the chunk, of one image where channels have parameters of their own
//! parallel for outer axes, and parts of the inner ones, where those of softmax's axis are not the last
//!     leaf: the columns of the part
//! ```

use super::operands::{Feed, Fused, Place, addresses, fused, fused_along};
use super::{SHARES, leaf_diag};
use crate::kernel::{Access as Use, CmpOp, Expr, LeafArg, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View};
use crate::x86::{Access, Cells, Columns, Fold, LeafSpec, MAX_OPERANDS, Pass, RowResult, Rows, VProg, Val};
use lehr_ir::{DType, Diag, Op};

/// Longer rows are summed in parts: by plain loops, or normalisations by channel as statistics.
pub const MAX_LEN: usize = 1 << 16;
/// Shorter rows of a normalisation by channel are plain loops': each has two folds across lanes.
const MIN_CELL: usize = 24;
/// Operations for an element of what is fused behind, roughly.
const REST_COST: i64 = 16;
/// Rows up to so long are transposed, one to a lane; those of a normalisation, which computes less, up to twice that.
const SHORT: usize = 32;

/// How the elements lie: `outer` x `len` x `inner`, of which cells of `len` are computed together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    pub outer: usize,
    pub len: usize,
    pub inner: usize,
}

/// Of an operator on cells of `x`, its first operand's shape.
pub fn extent(op: &Op, x: &[usize]) -> Option<Extent> {
    let (from, to) = match op {
        Op::Softmax(s) => (s.axis, s.axis + 1),
        Op::LogSoftmax(s) => (s.axis, s.axis + 1),
        Op::LayerNorm(l) if l.axis + 1 == x.len() => (l.axis, x.len()),
        op => {
            let cells = x[0] * by_channel(op, x)?;
            return Some(Extent { outer: cells, len: x.iter().product::<usize>().checked_div(cells)?, inner: 1 });
        }
    };
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    Some(Extent { outer: product(&x[..from]), len: product(x.get(from..to)?), inner: product(&x[to..]) })
}

/// In how many cells an image is, if scale and bias have an element for each channel, which is axis 1.
pub fn by_channel(op: &Op, x: &[usize]) -> Option<usize> {
    match op {
        Op::InstanceNorm(_) => Some(x[1]),
        Op::GroupNorm(g) => Some(g.groups),
        _ => None,
    }
}

/// Which leaf takes the cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Rows,
    /// Short rows, transposed.
    Behind,
    /// Cells side by side.
    Beside,
}

/// `None` if none does. What is fused behind has operands of the result's shape (`same`), or one for each column (`by_column`).
pub fn form(op: &Op, e: Extent, lanes: usize, same: bool, by_column: bool) -> Option<Form> {
    if e.inner > 1 {
        return (!by_column && e.len * e.inner >= 4 * lanes && e.len > 0).then_some(Form::Beside);
    }
    let short = match op {
        Op::InstanceNorm(_) | Op::GroupNorm(_) => return (MIN_CELL..=MAX_LEN).contains(&e.len).then_some(Form::Rows),
        Op::LayerNorm(_) => 2 * SHORT,
        _ => SHORT,
    };
    if !same && e.outer >= lanes && (1..=short).contains(&e.len) {
        return Some(Form::Behind);
    }
    (lanes..=MAX_LEN).contains(&e.len).then_some(Form::Rows)
}

/// Parameters beside the rows themselves: scale and bias.
pub fn parameters(op: &Op, operands: usize) -> usize {
    match op {
        Op::LayerNorm(_) | Op::InstanceNorm(_) | Op::GroupNorm(_) => operands - 1,
        _ => 0,
    }
}

/// What is fused behind a normalisation by channel; `None` if no leaf computes it, or it has more than so many operands.
pub fn epilogue(cx: &mut NodeCx, most: usize, channel: Access) -> Option<Fused> {
    if cx.graph.ty(cx.outputs[0].0).dtype != DType::F32 {
        return None;
    }
    let fused = fused_along(cx, cx.anchor_id().out(0), 1, &mut |feed| match feed {
        Feed::Same(_) => Access::Same,
        Feed::Channel { .. } => channel,
        Feed::Splat(_) => Access::Splat,
    });
    fused.filter(|f| f.feeds.len() <= most)
}

/// A kernel of plain loops for what is fused behind, where no leaf computes it.
pub fn rest(cx: &mut NodeCx, anchor: &View) {
    let mut k = cx.kernel("_rest");
    k.nest(&anchor.shape, REST_COST, LoopKind::Vector, |k, at| {
        let value = k.load_view(anchor, at);
        k.store(0, at, value);
    });
    k.finish();
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let op = cx.graph.node(cx.anchor_id()).op.clone();
    let lanes = cx.low.isa().lanes();
    let x = cx.view(0).expect("the input is in a buffer");
    let extent = extent(&op, &x.shape).expect("the layout pass has asked");
    let operands = (0..cx.operands()).filter(|&i| cx.has(i)).count();
    let parameters: Vec<View> = (1..=parameters(&op, operands)).filter_map(|i| cx.view(i)).collect();
    // Planes of one element have parameters as they lie, a row of them for each row.
    let channels = by_channel(&op, &x.shape).map(|groups| Channels { groups, planes: x.shape[1] / groups });
    let planes = channels.as_ref().map(|c| c.planes).filter(|planes| *planes != extent.len);
    let parameter = if channels.is_some() && planes.is_none() { Access::Same } else { Access::Channel };
    let fused = match &channels {
        Some(_) => epilogue(cx, MAX_OPERANDS - parameters.len(), parameter),
        None => Some(fused(cx, cx.anchor_id().out(0), None, &mut |feed| match feed {
            Feed::Same(_) => Access::Same,
            Feed::Channel { .. } => Access::Channel,
            Feed::Splat(_) => Access::Splat,
        })),
    };
    let alone = fused.is_none();
    let fused = fused.unwrap_or(Fused { program: VProg::identity(), feeds: vec![] });
    let same = fused.feeds.iter().any(|f| matches!(f, Feed::Same(_)));
    let by_column = fused.feeds.iter().any(|f| matches!(f, Feed::Channel { .. }));
    let form = form(&op, extent, lanes, same, by_column).expect("the layout pass has asked");
    let Extent { len, inner, .. } = extent;
    let (passes, own) = programs(&op, len, cx.has(2), parameter);
    let result = RowResult::Each { own, epilogue: fused.program.clone() };
    let (size, stride) = (len as u32, 4 * inner as i32);
    let spec = match form {
        Form::Rows => LeafSpec::Rows(Rows { len: size, planes: planes.map(|n| n as u32), passes, result }),
        Form::Behind => LeafSpec::Columns(Columns { len: size, cells: Cells::Behind, passes, result }),
        Form::Beside => LeafSpec::Columns(Columns { len: size, cells: Cells::Beside { stride }, passes, result }),
    };
    let leaf = cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e))?;
    let y = if alone { cx.scratch_view(DType::F32, x.shape.clone()) } else { cx.outputs[0].1.clone() };
    let call = Call { leaf, x, y, extent, parameters, channels, fused };
    match form {
        Form::Rows => rows(cx, &call, 1),
        // Transposed rows come in whole vectors at least.
        Form::Behind => rows(cx, &call, lanes),
        Form::Beside => columns(cx, &call),
    }
    if alone {
        rest(cx, &call.y);
    }
    Ok(())
}

/// Means, and sums of squared differences from them.
pub fn statistics_passes(len: usize) -> Vec<Pass> {
    let square = VProg::build(|p, x| {
        let mean = p.operand(Access::Channel);
        let d = p.sub(x, mean);
        p.mul(d, d)
    });
    let mean = VProg::build(|p, total| over(p, total, len));
    let sum = |term, value| Pass { fold: Fold::Sum, term, keep: false, value };
    vec![sum(VProg::identity(), mean), sum(square, VProg::identity())]
}

fn over(p: &mut VProg, total: Val, n: usize) -> Val {
    let n = p.constant(n as f32);
    p.div(total, n)
}

/// What is done to each row: passes, and what gives the result.
fn programs(op: &Op, len: usize, bias: bool, parameter: Access) -> (Vec<Pass>, VProg) {
    let pass = |fold, term, value| Pass { fold, term, keep: false, value };
    let sum = |term, value| pass(Fold::Sum, term, value);
    let largest = pass(Fold::Max, VProg::identity(), VProg::identity());
    let shifted_exp = VProg::build(|p, x| {
        let max = p.operand(Access::Channel);
        let shifted = p.sub(x, max);
        p.exp_negative(shifted)
    });
    let normalised = |eps: f32| {
        let mut passes = statistics_passes(len);
        passes[1].value = VProg::build(|p, total| {
            let var = over(p, total, len);
            let (eps, one) = (p.constant(eps), p.constant(1.0));
            let var = p.add(var, eps);
            let root = p.sqrt(var);
            p.div(one, root)
        });
        let own = VProg::build(|p, x| {
            let (mean, inverse) = (p.operand(Access::Channel), p.operand(Access::Channel));
            let scale = p.operand(parameter);
            let d = p.sub(x, mean);
            let d = p.mul(d, inverse);
            if !bias {
                return p.mul(d, scale);
            }
            let bias = p.operand(parameter);
            p.fma(d, scale, bias)
        });
        (passes, own)
    };
    match op {
        Op::Softmax(_) => {
            let inverse = VProg::build(|p, total| {
                let one = p.constant(1.0);
                p.div(one, total)
            });
            let own = VProg::build(|p, x| {
                let (_, scale) = (p.operand(Access::Channel), p.operand(Access::Channel));
                p.mul(x, scale)
            });
            (vec![largest, Pass { keep: true, ..sum(shifted_exp, inverse) }], own)
        }
        Op::LogSoftmax(_) => {
            let own = VProg::build(|p, x| {
                let (max, ln) = (p.operand(Access::Channel), p.operand(Access::Channel));
                let shifted = p.sub(x, max);
                p.sub(shifted, ln)
            });
            (vec![largest, sum(shifted_exp, VProg::build(|p, total| p.log(total)))], own)
        }
        Op::LayerNorm(l) => normalised(l.eps),
        Op::InstanceNorm(i) => normalised(i.eps),
        Op::GroupNorm(g) => normalised(g.eps),
        other => unreachable!("{} has no rows", other.name()),
    }
}

struct Call {
    leaf: u32,
    x: View,
    y: View,
    extent: Extent,
    parameters: Vec<View>,
    /// Where each channel has parameters of its own.
    channels: Option<Channels>,
    fused: Fused,
}

/// Rows of an image, and channels of a row.
#[derive(Clone, Copy)]
struct Channels {
    groups: usize,
    planes: usize,
}

/// In chunks of at least so many rows, all of one image where channels differ.
fn rows(cx: &mut NodeCx, c: &Call, least: usize) {
    let Extent { outer, len, .. } = c.extent;
    let each = c.channels.map_or(outer, |channels| channels.groups);
    let images = outer / each;
    // The last chunk has the rows that are left over.
    let chunk = each.div_ceil(SHARES.div_ceil(images)).max(least);
    let chunks = each / chunk;
    let mut k = cx.kernel("");
    let p = k.parallel((images * chunks) as i64, (chunk * len * 10) as i64);
    let at = unflatten(&mut k, p, &[images, chunks]);
    let first = k.let_(at[1].clone() * chunk as i64);
    let is_last = Expr::compare(CmpOp::Eq, at[1].clone(), Expr::i64(chunks as i64 - 1));
    let count = k.let_(Expr::select(is_last, Expr::i64(each as i64) - first.clone(), Expr::i64(chunk as i64)));
    let row = k.let_(at[0].clone() * each as i64 + first.clone());
    c.call(&mut k, &at[0], &first, row, Expr::i64(0), count);
    k.finish();
}

fn columns(cx: &mut NodeCx, c: &Call) {
    let Extent { outer, len, inner } = c.extent;
    let pieces = SHARES.div_ceil(outer).min(inner.div_ceil(64));
    let piece = inner.div_ceil(pieces).next_multiple_of(64);
    let pieces = inner.div_ceil(piece);
    let mut k = cx.kernel("");
    let p = k.parallel((outer * pieces) as i64, (len * piece.min(inner) * 10) as i64);
    let row = k.let_(p.clone() / pieces as i64);
    let column = k.let_((p % pieces as i64) * piece as i64);
    let count = (Expr::i64(inner as i64) - column.clone()).min(Expr::i64(piece as i64));
    c.call(&mut k, &Expr::i64(0), &Expr::i64(0), row, column, count);
    k.finish();
}

impl Call {
    /// From a row of all rows on, which is that row of an image.
    fn call(&self, k: &mut KernelCx, image: &Expr, in_image: &Expr, row: Expr, column: Expr, count: Expr) {
        let from = k.param_for(self.x.dense_buffer(), Use::Read);
        let to = k.param_for(self.y.dense_buffer(), Use::ReadWrite);
        let elements = (self.extent.len * self.extent.inner) as i64;
        let index = k.let_(row.clone() * elements + column.clone());
        let address = |buf, index| LeafArg::Address { buf, index };
        let mut args = vec![address(from, index.clone()), address(to, index), LeafArg::Int(count)];
        let planes = self.channels.map_or(0, |c| c.planes as i64);
        let channel = k.let_(in_image.clone() * planes);
        for view in &self.parameters {
            let buf = k.param_for(view.dense_buffer(), Use::Read);
            args.push(address(buf, channel.clone()));
        }
        let lattice = Lattice { origin: 0, image: 0, channel: 0, spatial: vec![elements, 1] };
        let spatial = [row, column];
        let place = Place { image, block: channel, spatial: &spatial, pixels: Expr::i64(0) };
        args.extend(addresses(k, &self.fused.feeds, Some(&lattice), 1, &place));
        k.leaf(self.leaf, args);
    }
}
