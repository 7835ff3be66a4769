//! Concatenations of channels: blocks of one operand behind those of the other. Operands that were produced in their place
//! already need nothing; others are copied, a plane or a row at a time.

use super::leaf_diag;
use super::operands::Place;
use crate::kernel::{Access, Expr, LeafArg};
use crate::lower::cx::NodeCx;
use crate::lower::nest::unflatten;
use crate::lower::order::Order;
use crate::lower::view::{Layout, View};
use crate::x86::{LeafSpec, Map, VProg};
use lehr_ir::Diag;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.outputs[0].1.clone();
    let mut block = 0;
    for i in 0..cx.operands() {
        let x = cx.view(i).expect("operands are in buffers");
        let order = x.order().expect("operands are in blocks").clone();
        let blocks = order.blocks();
        let part = part_of(&y, block, order);
        block += blocks;
        if part != x {
            copy(cx, &x, &part)?;
        }
    }
    Ok(())
}

/// The part of a concatenation from a block on.
fn part_of(y: &View, at: usize, order: Order) -> View {
    let Layout::Blocked { block, border, first, blocks, .. } = y.layout.clone() else {
        unreachable!("the layout pass gives blocks")
    };
    let mut shape = y.shape.clone();
    shape[1] = order.channels();
    View { shape, layout: Layout::Blocked { block, border, first: first + at, blocks, order }, ..y.clone() }
}

fn copy(cx: &mut NodeCx, x: &View, y: &View) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let leaf = cx
        .low
        .leaf(&LeafSpec::Map(Map { program: VProg::identity(), past_caches: false }))
        .map_err(|e| leaf_diag(cx, &e))?;
    let spatial = &x.shape[2..];
    let (xs, ys) = (x.lattice(), y.lattice());
    let flat = xs.is_flat(spatial) && ys.is_flat(spatial);
    let plane: usize = spatial.iter().product();
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    let (lines, count) = if flat { (&[][..], plane) } else { (lines, *width) };
    let blocks = x.order().map_or(0, Order::blocks);
    let mut k = cx.kernel("");
    let p = k.parallel((x.shape[0] * blocks) as i64, (plane * lanes) as i64);
    let at = unflatten(&mut k, p, &[x.shape[0], blocks]);
    let (from, to) = (k.param_for(x.buf, Access::Read), k.param_for(y.buf, Access::Write));
    k.loops(lines, |k, line| {
        let mut place = line.to_vec();
        place.resize(spatial.len(), Expr::i64(0));
        let place = Place { image: &at[0], block: at[1].clone(), spatial: &place, pixels: Expr::i64(0) };
        let args = vec![
            LeafArg::Address { buf: from, index: place.position(&xs) },
            LeafArg::Address { buf: to, index: place.position(&ys) },
            LeafArg::Int(Expr::i64((count * lanes) as i64)),
        ];
        k.leaf(leaf, args);
    });
    k.finish();
    Ok(())
}
