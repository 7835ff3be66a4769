//! Softmax, normalisations and sums over the last axes, by rows leaves. Operands and results are row-major.
//!
//! ```text
//! parallel for chunk of rows
//!     leaf: the rows of the chunk; one by one where each row has parameters of its own
//! ```

use super::leaf_diag;
use super::operands::{Feed, Fused, Place, addresses, fused};
use crate::kernel::{Access as Use, Blocks, Expr, LeafArg, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::view::{Lattice, View};
use crate::x86::{Access, Fold, LeafSpec, Pass, RowResult, Rows, VProg, Val};
use lehr_ir::ops::ReduceFn;
use lehr_ir::{Diag, Op};

/// Chunks of rows that threads share out.
const CHUNKS: usize = 16;
/// Longer rows are summed by plain loops, in parts.
const MAX_LEN: usize = 1 << 16;

/// Elements of a row, if the operator works on rows of `x`, its first operand's shape, that a leaf can take.
pub fn row_len(op: &Op, x: &[usize], lanes: usize) -> Option<usize> {
    let from = match op {
        Op::Softmax(s) if x[s.axis + 1..].iter().all(|&n| n == 1) => s.axis,
        Op::LogSoftmax(s) if x[s.axis + 1..].iter().all(|&n| n == 1) => s.axis,
        Op::LayerNorm(l) if l.axis + 1 == x.len() => l.axis,
        Op::InstanceNorm(_) => 2,
        Op::Reduce(r) if matches!(r.f, ReduceFn::Sum | ReduceFn::Mean | ReduceFn::L1 | ReduceFn::SumSquare) => {
            let first = *r.axes.first()?;
            r.axes.iter().copied().eq(first..x.len()).then_some(first)?
        }
        _ => return None,
    };
    let len = x.get(from..)?.iter().product();
    (lanes..=MAX_LEN).contains(&len).then_some(len)
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
    let len = row_len(&op, &x.shape, lanes).expect("the layout pass has asked");
    let own_rows = matches!(op, Op::InstanceNorm(_));
    let fused = fused(cx, cx.anchor_id().out(0), None, &mut |feed| match feed {
        Feed::Same(_) => Access::Same,
        Feed::Channel { .. } => Access::Channel,
        Feed::Splat(_) => Access::Splat,
    });
    let (passes, own) = programs(&op, len, cx.has(2), if own_rows { Access::Splat } else { Access::Channel });
    let result = match own {
        Some(own) => RowResult::Each { own, epilogue: fused.program.clone() },
        None => RowResult::Value,
    };
    let width = if result == RowResult::Value { 1 } else { len };
    let spec = LeafSpec::Rows(Rows { len: len as u32, passes, result });
    let leaf = cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e))?;
    let operands = (0..cx.operands()).filter(|&i| cx.has(i)).count();
    let parameters: Vec<View> = (1..=parameters(&op, operands)).filter_map(|i| cx.view(i)).collect();
    let channels = if own_rows { x.shape[1] } else { 1 };
    emit(cx, &Call { leaf, x, y, len, width, parameters, channels, own_rows, fused });
    Ok(())
}

/// What is done to each row: passes, and what gives the result unless it is the last value.
fn programs(op: &Op, len: usize, bias: bool, parameter: Access) -> (Vec<Pass>, Option<VProg>) {
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
        p.exp(shifted)
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
        (vec![sum(VProg::identity(), VProg::build(over_len)), sum(square, inverse)], Some(own))
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
            (vec![largest, Pass { keep: true, ..sum(shifted_exp, inverse) }], Some(own))
        }
        Op::LogSoftmax(_) => {
            let own = VProg::build(|p, x| {
                let (max, ln) = (p.operand(Access::Channel), p.operand(Access::Channel));
                let shifted = p.sub(x, max);
                p.sub(shifted, ln)
            });
            (vec![largest, sum(shifted_exp, VProg::build(|p, total| p.log(total)))], Some(own))
        }
        Op::LayerNorm(l) => normalised(l.eps),
        Op::InstanceNorm(i) => normalised(i.eps),
        Op::Reduce(r) => {
            let term = VProg::build(|p, x| match r.f {
                ReduceFn::L1 => p.abs(x),
                ReduceFn::SumSquare => p.mul(x, x),
                _ => x,
            });
            let value = if r.f == ReduceFn::Mean { VProg::build(over_len) } else { VProg::identity() };
            (vec![sum(term, value)], None)
        }
        other => unreachable!("{} has no rows", other.name()),
    }
}

struct Call {
    leaf: u32,
    x: View,
    y: View,
    len: usize,
    /// Elements of a row of the result.
    width: usize,
    parameters: Vec<View>,
    /// Rows take a parameter each, in turn.
    channels: usize,
    own_rows: bool,
    fused: Fused,
}

fn emit(cx: &mut NodeCx, c: &Call) {
    let rows = c.x.len() / c.len;
    let chunk = rows.div_ceil(CHUNKS);
    let chunks = rows.div_ceil(chunk);
    let mut k = cx.kernel("");
    let p = k.parallel(chunks as i64, (chunk * c.len * 10) as i64);
    let first = k.let_(p * chunk as i64);
    let end = k.let_((first.clone() + chunk as i64).min(Expr::i64(rows as i64)));
    if c.own_rows {
        k.for_(LoopKind::Serial, first, end, 1, |k, row| c.call(k, row, Expr::i64(1)));
    } else {
        c.call(&mut k, first.clone(), end - first);
    }
    k.finish();
}

impl Call {
    fn call(&self, k: &mut KernelCx, row: Expr, count: Expr) {
        let (from, to) = (k.param_for(self.x.buf, Use::Read), k.param_for(self.y.buf, Use::ReadWrite));
        let address = |buf, index| LeafArg::Address { buf, index };
        let mut args = vec![
            address(from, row.clone() * self.len as i64),
            address(to, row.clone() * self.width as i64),
            LeafArg::Int(count),
        ];
        for view in &self.parameters {
            let buf = k.param_for(view.buf, Use::Read);
            args.push(address(buf, row.clone() % self.channels as i64));
        }
        let lattice = Lattice { origin: 0, image: 0, channel: 0, spatial: vec![self.width as i64] };
        let spatial = [row];
        let place = Place { image: &Expr::i64(0), block: Expr::i64(0), spatial: &spatial, pixels: Expr::i64(0) };
        args.extend(addresses(k, &self.fused.feeds, Some(&lattice), 0, &place));
        k.leaf(self.leaf, args);
    }
}
