//! Softmax and normalisations, by rows and columns leaves. Operands and results are row-major.
//!
//! ```text
//! parallel for chunk of rows
//!     leaf: the rows of the chunk; one by one where each row has parameters of its own
//! parallel for outer axes, and parts of the inner ones, where those of softmax's axis are not the last
//!     leaf: the columns of the part
//! ```

use super::operands::{Feed, Fused, Place, addresses, fused};
use super::{SHARES, leaf_diag};
use crate::kernel::{Access as Use, Blocks, CmpOp, Expr, LeafArg, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::view::{Lattice, View};
use crate::x86::{Access, Cells, Columns, Fold, LeafSpec, Pass, RowResult, Rows, VProg, Val};
use lehr_ir::{Diag, Op};

/// Longer rows are plain loops', which sum in parts.
const MAX_LEN: usize = 1 << 16;
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
        Op::InstanceNorm(_) => (2, x.len()),
        _ => return None,
    };
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    Some(Extent { outer: product(&x[..from]), len: product(x.get(from..to)?), inner: product(&x[to..]) })
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
    // Rows of an instance normalisation have parameters each.
    let short = match op {
        Op::LayerNorm(_) => 2 * SHORT,
        _ => SHORT,
    };
    let behind = !same && e.outer >= lanes && (1..=short).contains(&e.len) && !matches!(op, Op::InstanceNorm(_));
    if behind {
        return Some(Form::Behind);
    }
    (lanes..=MAX_LEN).contains(&e.len).then_some(Form::Rows)
}

/// Parameters beside the rows themselves: scale and bias.
pub fn parameters(op: &Op, operands: usize) -> usize {
    match op {
        Op::LayerNorm(_) | Op::InstanceNorm(_) => operands - 1,
        _ => 0,
    }
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let op = cx.graph.node(cx.anchor_id()).op.clone();
    let lanes = cx.low.isa().lanes();
    let x = cx.view(0).expect("the input is in a buffer");
    let y = cx.outputs[0].1.clone();
    let extent = extent(&op, &x.shape).expect("the layout pass has asked");
    let own_rows = matches!(op, Op::InstanceNorm(_));
    let fused = fused(cx, cx.anchor_id().out(0), None, &mut |feed| match feed {
        Feed::Same(_) => Access::Same,
        Feed::Channel { .. } => Access::Channel,
        Feed::Splat(_) => Access::Splat,
    });
    let same = fused.feeds.iter().any(|f| matches!(f, Feed::Same(_)));
    let by_column = fused.feeds.iter().any(|f| matches!(f, Feed::Channel { .. }));
    let form = form(&op, extent, lanes, same, by_column).expect("the layout pass has asked");
    let Extent { len, inner, .. } = extent;
    let (passes, own) = programs(&op, len, cx.has(2), if own_rows { Access::Splat } else { Access::Channel });
    let result = RowResult::Each { own, epilogue: fused.program.clone() };
    let (size, stride) = (len as u32, 4 * inner as i32);
    let spec = match form {
        Form::Rows => LeafSpec::Rows(Rows { len: size, passes, result }),
        Form::Behind => LeafSpec::Columns(Columns { len: size, cells: Cells::Behind, passes, result }),
        Form::Beside => LeafSpec::Columns(Columns { len: size, cells: Cells::Beside { stride }, passes, result }),
    };
    let leaf = cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e))?;
    let operands = (0..cx.operands()).filter(|&i| cx.has(i)).count();
    let parameters: Vec<View> = (1..=parameters(&op, operands)).filter_map(|i| cx.view(i)).collect();
    let channels = if own_rows { x.shape[1] } else { 1 };
    let call = Call { leaf, x, y, extent, parameters, channels, own_rows, fused };
    match form {
        Form::Rows => rows(cx, &call, 1),
        // Transposed rows come in whole vectors at least.
        Form::Behind => rows(cx, &call, lanes),
        Form::Beside => columns(cx, &call),
    }
    Ok(())
}

/// What is done to each row: passes, and what gives the result.
fn programs(op: &Op, len: usize, bias: bool, parameter: Access) -> (Vec<Pass>, VProg) {
    let pass = |fold, term, value| Pass { fold, term, keep: false, value };
    let sum = |term, value| pass(Fold::Sum, term, value);
    let over_len = |p: &mut VProg, total: Val| {
        let n = p.constant(len as f32);
        p.div(total, n)
    };
    let largest = pass(Fold::Max, VProg::identity(), VProg::identity());
    let shifted_exp = VProg::build(|p, x| {
        let max = p.operand(Access::Channel);
        let shifted = p.sub(x, max);
        p.exp_negative(shifted)
    });
    let normalised = |eps: f32| {
        let square = VProg::build(|p, x| {
            let mean = p.operand(Access::Channel);
            let d = p.sub(x, mean);
            p.mul(d, d)
        });
        let inverse = VProg::build(|p, total| {
            let var = over_len(p, total);
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
        (vec![sum(VProg::identity(), VProg::build(over_len)), sum(square, inverse)], own)
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
        other => unreachable!("{} has no rows", other.name()),
    }
}

struct Call {
    leaf: u32,
    x: View,
    y: View,
    extent: Extent,
    parameters: Vec<View>,
    /// Rows take a parameter each, in turn.
    channels: usize,
    own_rows: bool,
    fused: Fused,
}

/// In chunks of at least so many rows.
fn rows(cx: &mut NodeCx, c: &Call, least: usize) {
    let Extent { outer, len, .. } = c.extent;
    // The last chunk has the rows that are left over.
    let chunk = outer.div_ceil(SHARES).max(least);
    let chunks = outer / chunk;
    let mut k = cx.kernel("");
    let p = k.parallel(chunks as i64, (chunk * len * 10) as i64);
    let first = k.let_(p.clone() * chunk as i64);
    let is_last = Expr::compare(CmpOp::Eq, p, Expr::i64(chunks as i64 - 1));
    let end = k.let_(Expr::select(is_last, Expr::i64(outer as i64), first.clone() + chunk as i64));
    if c.own_rows {
        k.for_(LoopKind::Serial, first, end, 1, |k, row| c.call(k, row, Expr::i64(0), Expr::i64(1)));
    } else {
        c.call(&mut k, first.clone(), Expr::i64(0), end - first);
    }
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
    c.call(&mut k, row, column, count);
    k.finish();
}

impl Call {
    fn call(&self, k: &mut KernelCx, row: Expr, column: Expr, count: Expr) {
        let from = k.param_for(self.x.dense_buffer(), Use::Read);
        let to = k.param_for(self.y.dense_buffer(), Use::ReadWrite);
        let elements = (self.extent.len * self.extent.inner) as i64;
        let index = k.let_(row.clone() * elements + column.clone());
        let address = |buf, index| LeafArg::Address { buf, index };
        let mut args = vec![address(from, index.clone()), address(to, index), LeafArg::Int(count)];
        for view in &self.parameters {
            let buf = k.param_for(view.dense_buffer(), Use::Read);
            args.push(address(buf, row.clone() % self.channels as i64));
        }
        let lattice = Lattice { origin: 0, image: 0, channel: 0, spatial: vec![elements, 1] };
        let spatial = [row, column];
        let place = Place { image: &Expr::i64(0), block: Expr::i64(0), spatial: &spatial, pixels: Expr::i64(0) };
        args.extend(addresses(k, &self.fused.feeds, Some(&lattice), 0, &place));
        k.leaf(self.leaf, args);
    }
}
