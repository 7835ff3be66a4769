//! Winograd's algorithm with the image as one band: one kernel transforms the input, and one is parallel over groups of output channels.

use super::{Band, BandCx, Params, WinogradConv, address};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LeafArg, LoopKind};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::program::BufferId;
use crate::x86::{LeafError, LeafSpec, Touch};
use lehr_ir::DType;

/// Groups of all images in multiples of this come out even for one, two and four threads.
const EVEN: usize = 4;

/// Rows of tiles that a thread may have of a group of output channels.
pub(super) struct Piece {
    first: usize,
    pub rows: usize,
}

const WHOLE: usize = 0;
const UPPER: usize = 1;
const LOWER: usize = 2;

impl WinogradConv {
    /// What a thread may have of a group of output channels: the whole image; or also its upper or lower half, where threads would else get
    /// different numbers of groups.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let (rows, groups) = (self.tiles_high, self.y.shape[0] * self.all_groups());
        let whole = Piece { first: 0, rows };
        match groups.is_multiple_of(EVEN) || rows == 1 {
            true => vec![whole],
            false => vec![whole, Piece { first: 0, rows: rows / 2 }, Piece { first: rows / 2, rows: rows - rows / 2 }],
        }
    }

    /// `leaves` are those of each piece.
    pub(super) fn emit_whole(&self, cx: &mut NodeCx, leaves: &[Band]) -> Result<(), LeafError> {
        let v = cx.scratch(DType::F32, self.y.shape[0] * self.points() * self.point_v());
        self.emit_input(cx, v, &leaves[WHOLE]);
        self.emit_products(cx, v, leaves)
    }

    /// Fills V: parallel over rows of tiles of blocks of input channels.
    fn emit_input(&self, cx: &mut NodeCx, v: BufferId, leaves: &Band) {
        let dims = [self.y.shape[0], self.in_blocks(), self.tiles_high];
        let mut k = cx.kernel("_input");
        let work = 8 * self.points() * self.tiles_wide * self.lanes;
        let p = k.parallel(dims.iter().product::<usize>() as i64, work as i64);
        let at = unflatten(&mut k, p, &dims);
        let params = self.input_params(&mut k, v);
        self.image(&mut k, leaves, &params, at[0].clone()).input(&mut k, at[1].clone(), at[2].clone());
        k.finish();
    }

    /// Parallel over groups of output channels, and over halves of the image where there are such pieces. A thread does at once what it has
    /// of an image.
    fn emit_products(&self, cx: &mut NodeCx, v: BufferId, leaves: &[Band]) -> Result<(), LeafError> {
        let touch = cx.low.leaf(&LeafSpec::Touch(Touch))?;
        let (images, pieces) = (self.y.shape[0], self.pieces());
        let halves = if pieces.len() > 1 { 2 } else { 1 };
        let per_image = self.all_groups() * halves;
        // M of two halves is enough for the image.
        let of_m = self.points() * self.point_m(self.tiles_high.div_ceil(halves));
        let m = cx.scratch(DType::F32, images * per_image * of_m);
        // What the second-level cache has no room for would be gone again.
        let of_v = 4 * self.points() * self.point_v();
        let fetched = if of_v <= cx.low.machine.caches.l2 { of_v / Touch::ROUND } else { 0 };
        let mut k = cx.kernel("");
        let p = k.parallel((images * per_image) as i64, (self.work() / per_image) as i64);
        let (halves, per_image) = (halves as i64, per_image as i64);
        let run = k.merge(per_image);
        let image = k.let_(p.clone() / per_image);
        let params = self.params(&mut k, v, m);
        let band = self.image(&mut k, &leaves[WHOLE], &params, image.clone());
        // Other threads have computed some of V where this one does not do all of the image.
        let is_shared = Expr::compare(CmpOp::Lt, run.clone(), Expr::i64(per_image));
        let rounds = Expr::select(is_shared, Expr::i64(fetched as i64), Expr::i64(0));
        k.leaf(touch, vec![address(params.v, band.v.clone()), LeafArg::Int(rounds)]);
        let m = k.range_start() * of_m as i64;
        let (m, first) = (k.let_(m), k.let_(p - image * per_image));
        let end = k.let_(first.clone() + run);
        let groups_end = (end.clone() + (halves - 1)) / halves;
        k.for_(LoopKind::Serial, first.clone() / halves, groups_end, 1, |k, group| {
            let compute = |k: &mut KernelCx, which: usize| {
                let row = pieces[which].first;
                let v = k.let_(band.v.clone() + (row * self.tiles_wide * self.lanes) as i64);
                let (image, first) = (band.image.clone(), Expr::i64(row as i64));
                BandCx { leaves: &leaves[which], image, first, v, m: m.clone(), ..band }.group(k, group.clone());
            };
            if pieces.len() == 1 {
                return compute(k, WHOLE);
            }
            let upper = k.let_(group.clone() * halves);
            let lacks_upper = Expr::compare(CmpOp::Lt, upper.clone(), first);
            let lacks_lower = Expr::compare(CmpOp::Lt, end, upper + halves);
            let others = |k: &mut KernelCx| k.if_else(lacks_lower, |k| compute(k, UPPER), |k| compute(k, WHOLE));
            k.if_else(lacks_upper, |k| compute(k, LOWER), others);
        });
        k.finish();
        Ok(())
    }

    /// All of an image.
    fn image<'c>(&'c self, k: &mut KernelCx, leaves: &'c Band, params: &'c Params, image: Expr) -> BandCx<'c> {
        let v = k.let_(image.clone() * (self.points() * self.point_v()) as i64);
        BandCx { conv: self, leaves, params, image, first: Expr::i64(0), v, m: Expr::i64(0) }
    }

    /// For the input's transform alone, which uses two of them.
    fn input_params(&self, k: &mut KernelCx, v: BufferId) -> Params {
        let x = k.param_for(self.x.buf, Access::Read);
        let v = k.param_for(v, Access::Write);
        Params { x, y: v, w: v, bias: None, v, m: v }
    }
}
