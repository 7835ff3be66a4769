//! Local response normalisation on blocks of channels.
//!
//! ```text
//! parallel for image, chunk of rows
//!     for block           the first and the last block have no neighbour on one side, and leaves of their own
//!         leaf: a row, or all rows of the chunk where they follow one another
//! ```

use super::operands::{Feed, Fused, Place, addresses, fused};
use super::{SHARES, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::View;
use crate::x86::{LeafError, LeafSpec, Lrn, VProg};
use lehr_ir::{Diag, Op};

/// Operations for an element, roughly.
const COST: i64 = 16;

struct Norm {
    x: View,
    y: View,
    before: usize,
    after: usize,
    factor: VProg,
    fused: Fused,
    lanes: usize,
    /// Axes that are stepped over line by line, and pixels of a line.
    lines: Vec<usize>,
    width: usize,
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let norm = Norm::new(cx);
    let blocks = norm.y.shape[1] / norm.lanes;
    // Without and with a block before and behind.
    let sides: &[(bool, bool)] = match blocks {
        1 => &[(false, false)],
        2 => &[(false, true), (true, false)],
        _ => &[(false, true), (true, true), (true, false)],
    };
    let leaves: Result<Vec<u32>, LeafError> =
        sides.iter().map(|&(previous, next)| cx.low.leaf(&norm.leaf(previous, next))).collect();
    let leaves = leaves.map_err(|e| leaf_diag(cx, &e))?;
    norm.emit(cx, &leaves, blocks);
    Ok(())
}

impl Norm {
    fn new(cx: &mut NodeCx) -> Norm {
        let Op::Lrn(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
        let x = cx.view(0).expect("the input is in a buffer");
        let y = cx.outputs[0].1.clone();
        let spatial = y.shape[2..].to_vec();
        let mut flat = [&x, &y].iter().all(|v| v.lattice().is_flat(&spatial));
        let fused = fused(cx, cx.anchor_id().out(0), None, &mut |feed| match feed {
            Feed::Same(view) => {
                flat &= view.lattice().is_flat(&spatial);
                crate::x86::Access::Same
            }
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let (width, lines) = match flat {
            true => (spatial.iter().product(), vec![]),
            false => (spatial[spatial.len() - 1], spatial[..spatial.len() - 1].to_vec()),
        };
        Norm {
            x,
            y,
            before: (op.size - 1) / 2,
            after: op.size / 2,
            factor: VProg::lrn_factor(op.alpha / op.size as f32, op.beta, op.bias),
            fused,
            lanes: cx.low.isa().lanes(),
            lines,
            width,
        }
    }

    fn leaf(&self, previous: bool, next: bool) -> LeafSpec {
        let distance = self.x.lattice().channel;
        LeafSpec::Lrn(Lrn {
            before: self.before as u32,
            after: self.after as u32,
            previous: previous.then(|| bytes(-distance)),
            next: next.then(|| bytes(distance)),
            factor: self.factor.clone(),
            epilogue: self.fused.program.clone(),
        })
    }

    fn emit(&self, cx: &mut NodeCx, leaves: &[u32], blocks: usize) {
        let images = self.y.shape[0];
        let all: usize = if self.lines.is_empty() { self.width } else { self.lines.iter().product() };
        let chunk = all.div_ceil(SHARES.div_ceil(images).min(all));
        let chunks = all.div_ceil(chunk);
        let points = self.y.len() / (images * chunks);
        let mut k = cx.kernel("");
        let p = k.parallel((images * chunks) as i64, points as i64 * COST);
        let at = unflatten(&mut k, p, &[images, chunks]);
        let calls = Calls {
            norm: self,
            image: at[0].clone(),
            first: k.let_(at[1].clone() * chunk as i64),
            end: k.let_((at[1].clone() * chunk as i64 + chunk as i64).min(Expr::i64(all as i64))),
            from: k.param_for(self.x.buf, Access::Read),
            to: k.param_for(self.y.buf, Access::Write),
        };
        calls.block(&mut k, leaves[0], Expr::i64(0));
        if let [_, middle, _] = leaves {
            k.for_(LoopKind::Serial, Expr::i64(1), Expr::i64(blocks as i64 - 1), 1, |k, block| {
                calls.block(k, *middle, block);
            });
        }
        if let [_, .., last] = leaves {
            calls.block(&mut k, *last, Expr::i64(blocks as i64 - 1));
        }
        k.finish();
    }
}

/// Leaf calls of a kernel: lines, or pixels where there are no lines, `first..end`.
struct Calls<'n> {
    norm: &'n Norm,
    image: Expr,
    first: Expr,
    end: Expr,
    from: Param,
    to: Param,
}

impl Calls<'_> {
    fn block(&self, k: &mut KernelCx, leaf: u32, block: Expr) {
        let n = self.norm;
        if n.lines.is_empty() {
            let start = vec![Expr::i64(0); n.y.shape.len() - 2];
            let count = self.end.clone() - self.first.clone();
            return self.line(k, leaf, block, &start, self.first.clone(), count);
        }
        k.for_(LoopKind::Serial, self.first.clone(), self.end.clone(), 1, |k, line| {
            let mut start = unflatten(k, line, &n.lines);
            start.push(Expr::i64(0));
            self.line(k, leaf, block, &start, Expr::i64(0), Expr::i64(n.width as i64));
        });
    }

    fn line(&self, k: &mut KernelCx, leaf: u32, block: Expr, start: &[Expr], pixels: Expr, count: Expr) {
        let place = Place { image: &self.image, block, spatial: start, pixels };
        let mut args = vec![
            LeafArg::Address { buf: self.from, index: place.position(&self.norm.x.lattice()) },
            LeafArg::Address { buf: self.to, index: place.position(&self.norm.y.lattice()) },
            LeafArg::Int(count),
        ];
        args.extend(addresses(k, &self.norm.fused.feeds, None, self.norm.lanes, &place));
        k.leaf(leaf, args);
    }
}
