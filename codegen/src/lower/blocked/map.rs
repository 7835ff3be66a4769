//! Elementwise groups on blocks, by map leaves: one call for every row of a block, or for its whole plane where no operand has
//! a border.

use super::leaf_diag;
use super::operands::{Feed, Fused, Place, addresses, fused};
use crate::kernel::{Access, Expr, LeafArg};
use crate::lower::cx::{NodeCx, Source};
use crate::lower::nest::unflatten;
use crate::lower::view::View;
use crate::x86::{LeafSpec, Map};
use lehr_ir::Diag;
use lehr_ir::graph::ValueId;

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let y = cx.outputs[0].1.clone();
    let (start, x) = stream(cx, &y);
    let spatial = y.shape[2..].to_vec();
    let mut flat = [&x, &y].iter().all(|v| v.lattice().is_flat(&spatial));
    let fused = fused(cx, start, None, &mut |feed| match feed {
        Feed::Same(view) => {
            flat &= view.lattice().is_flat(&spatial);
            crate::x86::Access::Same
        }
        Feed::Channel { .. } => crate::x86::Access::Channel,
        Feed::Splat(_) => crate::x86::Access::Splat,
    });
    let spec = LeafSpec::Map(Map { program: fused.program.clone(), past_caches: false });
    let leaf = cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e))?;
    let blocks = y.order().expect("the result is in blocks").blocks();
    let cost = cx.elementwise_cost();
    let mut k = cx.kernel("");
    let plane: usize = spatial.iter().product();
    let p = k.parallel((y.shape[0] * blocks) as i64, (plane * lanes) as i64 * cost);
    let at = unflatten(&mut k, p, &[y.shape[0], blocks]);
    let (from, to) = (k.param_for(x.buf, Access::Read), k.param_for(y.buf, Access::Write));
    let (width, lines) = spatial.split_last().expect("there is a spatial axis");
    let (lines, count) = if flat { (&[][..], plane) } else { (lines, *width) };
    k.loops(lines, |k, line| {
        let mut place = line.to_vec();
        place.resize(spatial.len(), Expr::i64(0));
        let place = Place { image: &at[0], block: at[1].clone(), spatial: &place, pixels: Expr::i64(0) };
        let mut args = vec![
            LeafArg::Address { buf: from, index: place.position(&x.lattice()) },
            LeafArg::Address { buf: to, index: place.position(&y.lattice()) },
            LeafArg::Int(Expr::i64((count * lanes) as i64)),
        ];
        args.extend(addresses(k, &fused.feeds, None, lanes, &place));
        k.leaf(leaf, args);
    });
    k.finish();
    Ok(())
}

/// A map whose result is computed where it is read.
pub struct Prologue {
    /// What it reads.
    pub x: View,
    pub fused: Fused,
}

/// Leaves the map to the convolution that reads it.
pub fn postpone(cx: &mut NodeCx) -> Result<(), Diag> {
    let y = cx.outputs[0].1.clone();
    let (start, x) = stream(cx, &y);
    let fused = fused(cx, start, None, &mut |feed| match feed {
        Feed::Same(_) => unreachable!("the layout pass wants one operand of the result's shape"),
        Feed::Channel { .. } => crate::x86::Access::Channel,
        Feed::Splat(_) => crate::x86::Access::Splat,
    });
    cx.low.prologues.insert(y.buf, Prologue { x, fused });
    Ok(())
}

/// The operand that comes in as the program's input: the first one in blocks of the result's shape.
fn stream(cx: &NodeCx, y: &View) -> (ValueId, View) {
    let fits = |v: ValueId| match cx.source(v) {
        Some(Source::Buffer(view)) if view.block().is_some() && view.shape == y.shape => Some((v, view)),
        Some(Source::Buffer(_) | Source::Const(_)) | None => None,
    };
    cx.outside().iter().copied().find_map(fits).expect("the layout pass has found one")
}
