//! Reductions over any axes, by rows and columns leaves, in stages: the innermost reduced axes first, long ones in parts. Operand and
//! result are row-major.
//!
//! ```text
//! for stage    outer x len x inner -> outer x inner
//!     parallel for parts of outer (and of inner)      leaf
//! ```
//!
//! Parts keep sums short, so that errors stay small, and give threads work; they depend on the shape alone.

use super::{MANY, SHARES, leaf_diag};
use crate::kernel::{Access as Use, CmpOp, Expr, LeafArg, LoopKind};
use crate::lower::cx::NodeCx;
use crate::lower::view::View;
use crate::program::BufferId;
use crate::x86::{Access, Cells, Columns, Fold, LeafSpec, Pass, Pred, RowResult, Rows, VProg, Val};
use lehr_ir::ops::{Reduce, ReduceFn};
use lehr_ir::{DType, Diag, Op};

/// A stage folds so many elements at most, where that divides: of a row, of one that is read twice, and of a column, whose elements
/// one lane takes alone.
const MAX_ROW: usize = 1 << 14;
const MAX_TWICE: usize = 1 << 12;
const MAX_COLUMN: usize = 1 << 11;
/// Columns side by side should have so many elements, which stay in the L2 cache: what is fetched beside one serves the next.
const MAX_AREA: usize = 1 << 16;
/// But not less than so many of each.
const MIN_COLUMN: usize = 32;
/// Rows so short are transposed, one to a lane.
const SHORT_ROW: usize = 32;
/// Operations for an element of what is fused behind, roughly.
const REST_COST: i64 = 16;
/// Cells of fewer elements side by side are plain loops': each is a call.
pub const MIN_CALL: usize = 96;

/// `outer` x `len` x `inner` elements, of which `len` are a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lines {
    pub outer: usize,
    pub len: usize,
    pub inner: usize,
}

/// Lines that are folded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    f: ReduceFn,
    /// What the total is divided by.
    divisor: usize,
    lines: Lines,
}

/// The stages of a reduction of f32. `None` if plain loops are to do it: products, what has no elements, and what has too few for a
/// leaf. A product in f32 may overflow on the way to a result that does not.
pub fn stages(op: &Reduce, shape: &[usize], lanes: usize) -> Option<Vec<Stage>> {
    if op.f == ReduceFn::Prod || shape.contains(&0) {
        return None;
    }
    let mut axes: Vec<(usize, bool)> = vec![];
    for (d, &n) in shape.iter().enumerate().filter(|(_, n)| **n != 1) {
        let reduced = op.axes.contains(&d);
        match axes.last_mut() {
            Some((size, same)) if *same == reduced => *size *= n,
            _ => axes.push((n, reduced)),
        }
    }
    let divisor: usize = axes.iter().filter(|a| a.1).map(|a| a.0).product();
    let mut stages = vec![];
    while let Some(at) = axes.iter().rposition(|a| a.1) {
        let product = |axes: &[(usize, bool)]| axes.iter().map(|a| a.0).product::<usize>();
        let (outer, size, inner) = (product(&axes[..at]), axes[at].0, product(&axes[at + 1..]));
        let parts = parts_of(op.f, outer, size, inner)?;
        let lines = Lines { outer: outer * parts, len: size / parts, inner };
        let stage = Stage { f: op.f, divisor: 1, lines };
        let small = match inner {
            1 => lines.len < lanes && lines.outer < lanes,
            _ => lines.len * inner < MIN_CALL,
        };
        // Later stages are small anyway.
        if small && stages.is_empty() {
            return None;
        }
        stages.push(stage);
        if parts > 1 {
            axes[at].0 = parts;
        } else {
            axes.remove(at);
        }
    }
    let last = stages.len().checked_sub(1)?;
    for (i, stage) in stages.iter_mut().enumerate() {
        stage.f = stage_function(op.f, i == 0, i == last);
        stage.divisor = if i == last && op.f == ReduceFn::Mean { divisor } else { 1 };
    }
    Some(stages)
}

/// In how many parts an axis is folded; 1 for all at once. `None` where it is too long for that and nothing divides it.
fn parts_of(f: ReduceFn, outer: usize, size: usize, inner: usize) -> Option<usize> {
    let twice = matches!(f, ReduceFn::L2 | ReduceFn::LogSumExp);
    let most = match inner {
        1 if twice => MAX_TWICE,
        1 => MAX_ROW,
        _ => (MAX_AREA / inner).clamp(MIN_COLUMN, MAX_COLUMN),
    };
    let few = outer * inner.div_ceil(64) < SHARES / 2;
    let wanted = if few && outer * size * inner >= MANY { SHARES / 2 } else { 1 };
    let least = size.div_ceil(most).max(wanted);
    let divides = (least..=8 * least).find(|&p| size.is_multiple_of(p) && size / p > 1);
    let bound = if inner == 1 { MAX_ROW } else { MAX_COLUMN };
    divides.or((size <= 4 * bound).then_some(1))
}

/// What a stage computes of what the stage before gave.
fn stage_function(f: ReduceFn, first: bool, last: bool) -> ReduceFn {
    use ReduceFn::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    match f {
        Mean => Sum,
        LogSum => {
            if last {
                LogSum
            } else {
                Sum
            }
        }
        L1 | SumSquare => {
            if first {
                f
            } else {
                Sum
            }
        }
        Sum | Prod | Max | Min | L2 | LogSumExp => f,
    }
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let Op::Reduce(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("only reductions come here") };
    let x = cx.view(0).expect("the input is in a buffer");
    let stages = stages(&op, &x.shape, lanes).expect("the layout pass has asked");
    let result = match cx.out_view(0) {
        Some(view) => view,
        None => {
            let shape = cx.out_shape(0);
            View::dense(cx.scratch(DType::F32, shape.iter().product()), DType::F32, shape)
        }
    };
    let mut from = x.dense_buffer();
    for (i, stage) in stages.iter().enumerate() {
        let last = i + 1 == stages.len();
        let to =
            if last { result.dense_buffer() } else { cx.scratch(DType::F32, stage.lines.outer * stage.lines.inner) };
        emit(cx, stage, [from, to], &if last { String::new() } else { format!("_stage_{i}") })?;
        from = to;
    }
    if cx.out_view(0).is_none() {
        // What is fused behind.
        let mut k = cx.kernel("_rest");
        k.nest(&result.shape, REST_COST, LoopKind::Vector, |k, at| {
            let value = k.load_view(&result, at);
            k.store(0, at, value);
        });
        k.finish();
    }
    Ok(())
}

fn emit(cx: &mut NodeCx, s: &Stage, buffers: [BufferId; 2], suffix: &str) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let Lines { outer, len, inner } = s.lines;
    let behind = len < lanes || (len <= SHORT_ROW && outer >= 4 * lanes);
    let few_rows = inner == 1 && behind && outer < lanes;
    let (len, passes, result) = (len as u32, passes(s), RowResult::Value);
    let spec = match inner {
        // A row of each lies side by side with nothing.
        1 if few_rows => LeafSpec::Columns(Columns { len, cells: Cells::Beside { stride: 4 }, passes, result }),
        1 if behind => LeafSpec::Columns(Columns { len, cells: Cells::Behind, passes, result }),
        1 => LeafSpec::Rows(Rows { len, planes: None, passes, result }),
        n => LeafSpec::Columns(Columns { len, cells: Cells::Beside { stride: 4 * n as i32 }, passes, result }),
    };
    let leaf = cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e))?;
    // Transposed rows come in whole vectors at least.
    let rows = (inner == 1 && !few_rows).then_some(if behind { lanes } else { 1 });
    call_on_parts(cx, leaf, s.lines, rows, buffers, suffix);
    Ok(())
}

/// A kernel that calls a leaf on parts of the lines, which threads share out. A call takes rows, so many at least, or else columns.
pub fn call_on_parts(
    cx: &mut NodeCx,
    leaf: u32,
    s: Lines,
    rows: Option<usize>,
    [from, to]: [BufferId; 2],
    suffix: &str,
) {
    let whole = rows.is_some();
    let chunk = rows.map_or(1, |least| s.outer.div_ceil(SHARES).max(least));
    let chunks = (s.outer / chunk).max(1);
    let pieces = if whole { 1 } else { (SHARES / chunks).clamp(1, s.inner.div_ceil(64)) };
    let piece = s.inner.div_ceil(pieces).next_multiple_of(64);
    let pieces = s.inner.div_ceil(piece);
    let mut k = cx.kernel(suffix);
    let p = k.parallel((chunks * pieces) as i64, (chunk * s.len * piece.min(s.inner)) as i64);
    let (row, column) = match pieces {
        1 => (p, Expr::i64(0)),
        n => (p.clone() / n as i64, (p % n as i64) * piece as i64),
    };
    let (from, to) = (k.param_for(from, Use::Read), k.param_for(to, Use::Write));
    let at = k.let_(row.clone() * chunk as i64);
    let count = match whole {
        true => {
            // The last chunk has the rows that are left over.
            let is_last = Expr::compare(CmpOp::Eq, row, Expr::i64(chunks as i64 - 1));
            Expr::select(is_last, Expr::i64(s.outer as i64) - at.clone(), Expr::i64(chunk as i64))
        }
        false => (Expr::i64(s.inner as i64) - column.clone()).min(Expr::i64(piece as i64)),
    };
    let address = |buf, index| LeafArg::Address { buf, index };
    let args = vec![
        address(from, at.clone() * (s.len * s.inner) as i64 + column.clone()),
        address(to, at * s.inner as i64 + column),
        LeafArg::Int(count),
    ];
    k.leaf(leaf, args);
    k.finish();
}

fn passes(s: &Stage) -> Vec<Pass> {
    let pass = |fold, term, value| Pass { fold, term, keep: false, value };
    let identity = VProg::identity;
    let square = |p: &mut VProg, x: Val| p.mul(x, x);
    match s.f {
        ReduceFn::Sum | ReduceFn::Mean if s.divisor != 1 => {
            let n = s.divisor as f32;
            let over = VProg::build(|p, total| {
                let n = p.constant(n);
                p.div(total, n)
            });
            vec![pass(Fold::Sum, identity(), over)]
        }
        ReduceFn::Sum | ReduceFn::Mean => vec![pass(Fold::Sum, identity(), identity())],
        ReduceFn::L1 => vec![pass(Fold::Sum, VProg::build(|p, x| p.abs(x)), identity())],
        ReduceFn::SumSquare => vec![pass(Fold::Sum, VProg::build(square), identity())],
        ReduceFn::LogSum => vec![pass(Fold::Sum, identity(), VProg::build(|p, total| p.log(total)))],
        ReduceFn::Max => vec![pass(Fold::Largest, identity(), identity())],
        ReduceFn::Min => vec![pass(Fold::Smallest, identity(), identity())],
        ReduceFn::L2 => {
            let scaled_square = VProg::build(|p, x| {
                let factor = p.operand(Access::Channel);
                let scaled = p.mul(x, factor);
                p.mul(scaled, scaled)
            });
            let root = VProg::build(|p, total| {
                let factor = p.operand(Access::Channel);
                let root = p.sqrt(total);
                p.div(root, factor)
            });
            vec![
                pass(Fold::Max, VProg::build(|p, x| p.abs(x)), VProg::build(square_scale)),
                pass(Fold::Sum, scaled_square, root),
            ]
        }
        ReduceFn::LogSumExp => {
            // Infinities need no shift, and inf - inf would be NaN.
            let shift = VProg::build(|p, max| {
                let (zero, inf) = (p.constant(0.0), p.constant(f32::INFINITY));
                let magnitude = p.abs(max);
                p.select(Pred::Lt, magnitude, inf, max, zero)
            });
            let term = VProg::build(|p, x| {
                let shift = p.operand(Access::Channel);
                let shifted = p.sub(x, shift);
                p.exp(shifted)
            });
            let value = VProg::build(|p, total| {
                let shift = p.operand(Access::Channel);
                let log = p.log(total);
                p.add(log, shift)
            });
            vec![pass(Fold::Max, identity(), shift), pass(Fold::Sum, term, value)]
        }
        ReduceFn::Prod => unreachable!("products are plain loops'"),
    }
}

/// A power of two with which squares of numbers up to this neither overflow nor vanish.
fn square_scale(p: &mut VProg, largest: Val) -> Val {
    let (one, low, high) = (p.constant(1.0), p.constant(2f32.powi(-50)), p.constant(2f32.powi(50)));
    let (up, down) = (p.constant(2f32.powi(100)), p.constant(2f32.powi(-80)));
    let scale = p.select(Pred::Lt, largest, low, up, one);
    p.select(Pred::Gt, largest, high, down, scale)
}
