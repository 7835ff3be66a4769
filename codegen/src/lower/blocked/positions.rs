//! Positions of extremes along an axis (ArgMax, ArgMin), by positions leaves: of columns side by side, or of rows. Operand and result are
//! row-major.

use super::leaf_diag;
use super::reduce::{Lines, MIN_CALL, call_on_parts};
use crate::lower::cx::NodeCx;
use crate::x86::{Cells, LeafSpec, Positions};
use lehr_ir::ops::{ArgExtreme, ArgReduce};
use lehr_ir::{Diag, Op};

/// The lines along the axis. `None` if plain loops are to find them: short rows that fill no vector, and what has too few elements.
pub fn lines(op: &ArgReduce, shape: &[usize], lanes: usize) -> Option<Lines> {
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    let (outer, len, inner) = (product(&shape[..op.axis]), shape[op.axis], product(&shape[op.axis + 1..]));
    let enough = if inner == 1 { len.max(outer) >= lanes } else { len * inner >= MIN_CALL };
    (!shape.contains(&0) && enough).then_some(Lines { outer, len, inner })
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let Op::ArgReduce(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let (x, isa) = (cx.view(0).expect("the input is in a buffer"), cx.low.isa());
    let lines = lines(&op, &x.shape, isa.lanes()).expect("the layout pass has asked");
    let positions = Positions {
        len: lines.len as u32,
        cells: match lines.inner {
            1 => Cells::Behind,
            n => Cells::Beside { stride: 4 * n as i32 },
        },
        largest: op.f == ArgExtreme::Max,
        last: op.select_last,
    };
    let least = if positions.has_row_in_lane(isa) { isa.lanes() } else { 1 };
    let leaf = cx.low.leaf(&LeafSpec::Positions(positions)).map_err(|e| leaf_diag(cx, &e))?;
    let to = cx.out_view(0).expect("nothing is fused behind").dense_buffer();
    let rows = (lines.inner == 1).then_some(least);
    call_on_parts(cx, leaf, lines, rows, [x.dense_buffer(), to], "");
    Ok(())
}
