//! Products of matrices for GPUs: convolutions and matrix products as one [`Contract`] each, in tiles that a cost model picks.
//!
//! A convolution has output channels as rows, pixels of all images as columns, and channels and taps as steps (implicit
//! GEMM): its input stays as it is, and padding is a bound. Constant factors are laid out when compiling, so that what is
//! loaded together lies together. Where there are too few tiles to fill a GPU, the steps are split among blocks, and a
//! second kernel adds their sums up and does what is fused behind.

mod conv;
mod cut;
mod weights;

pub use conv::{Convolution, convolution};
pub use cut::Cut;
pub use weights::{Weights, rounded, turned};

use super::cx::{KernelCx, NodeCx};
use super::view::{Layout, View};
use crate::kernel::{Access, Blocks, Contract, Expr, Factor, LoopKind, Split, Tile};
use crate::ptx::Gpu;
use lehr_ir::DType;

/// Sizes of a product: so many of them, each of [rows, depth] and [depth, columns].
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub batch: usize,
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
}

impl Size {
    /// Whether tiles are worth it: below, an element of the result is a thread's or a warp's.
    pub fn is_tiled(&self, t: DType) -> bool {
        let Size { rows, columns, depth, .. } = *self;
        let small = [self.batch, rows, columns, depth].iter().all(|&n| n < 1 << 28)
            && self.batch.saturating_mul(rows).saturating_mul(columns) < 1 << 31;
        t == DType::F32 && rows >= 4 && columns >= 4 && depth >= 4 && small
    }
}

/// An operand as a factor: from batch, row (or column) and step.
type Operand<'f> = dyn Fn(&mut KernelCx, &Expr, &Expr, &Expr) -> Factor + 'f;
/// Stores a sum; gets batch, row and column.
type Store<'f> = dyn Fn(&mut KernelCx, &Expr, &Expr, &Expr, Expr) + 'f;

/// One or two kernels that compute `store(left * right)`.
pub fn product(cx: &mut NodeCx, gpu: Gpu, size: Size, left: &Operand, right: &Operand, store: &Store) {
    let Cut { tile, splits } = Cut::choose(gpu, size);
    if splits == 1 {
        let mut k = cx.kernel("");
        let batch = batch_of(&mut k, size.batch, size);
        let depth = Expr::i64(size.depth as i64);
        contract(&mut k, size, tile, (Expr::i64(0), depth), &batch, (left, right), |k, row, column, sum| {
            store(k, &batch, &row, &column, sum);
        });
        return k.finish();
    }
    let parts = cx.scratch_view(DType::F32, vec![size.batch * splits, size.rows, size.columns]);
    // Whole slices for all but the last.
    let each = (size.depth.div_ceil(splits)).next_multiple_of(tile.depth as usize) as i64;
    let mut k = cx.kernel("_parts");
    let p = batch_of(&mut k, size.batch * splits, size);
    let batch = k.let_(p.clone() / splits as i64);
    let first = k.let_((p.clone() % splits as i64) * each);
    let end = (first.clone() + each).min(Expr::i64(size.depth as i64));
    contract(&mut k, size, tile, (first, end), &batch, (left, right), |k, row, column, sum| {
        k.store_view(&parts, &[p, row, column], sum);
    });
    k.finish();
    let mut k = cx.kernel("");
    k.nest(&[size.batch, size.rows, size.columns], splits as i64, LoopKind::Vector, |k, at| {
        let sum = k.mutable(Expr::f32(0.0));
        k.serial(splits, |k, s| {
            let part = k.load_view(&parts, &[at[0].clone() * splits as i64 + s, at[1].clone(), at[2].clone()]);
            k.set(sum, Expr::Var(sum) + part);
        });
        store(k, &at[0], &at[1], &at[2], Expr::Var(sum));
    });
    k.finish();
}

fn batch_of(k: &mut KernelCx, n: usize, size: Size) -> Expr {
    let work = 2 * (size.rows * size.columns) as i64 * size.depth as i64;
    let p = k.parallel(n as i64, work);
    if n == 1 { Expr::i64(0) } else { p }
}

fn contract(
    k: &mut KernelCx,
    size: Size,
    tile: Tile,
    (first, end): (Expr, Expr),
    batch: &Expr,
    (left, right): (&Operand, &Operand),
    body: impl FnOnce(&mut KernelCx, Expr, Expr, Expr),
) {
    let [row, column, step] = [0; 3].map(|_| k.variable(DType::I64));
    let sum = k.variable(DType::F32);
    let left = left(k, batch, &Expr::Var(row), &Expr::Var(step));
    let right = right(k, batch, &Expr::Var(column), &Expr::Var(step));
    let body = k.block(|k| body(k, Expr::Var(row), Expr::Var(column), Expr::Var(sum)));
    let (rows, columns) = (size.rows as i64, size.columns as i64);
    k.builder().contract(Contract { rows, columns, first, end, row, column, step, left, right, sum, body, tile });
}

/// Element `outer` of an axis, `step` of another, in a matrix of a view whose other axes stand at `rest`.
pub fn factor(
    k: &mut KernelCx,
    view: &View,
    rest: &[Expr],
    (axis, outer): (usize, &Expr),
    step: (usize, &Expr),
) -> Factor {
    let Layout::Strided { strides, offset } = &view.layout else { unreachable!("values lie plain for GPUs") };
    let fixed = rest.iter().zip(strides).fold(Expr::i64(*offset), |sum, (c, &s)| sum + c.clone() * s);
    let at = Split { outer: fixed + outer.clone() * strides[axis], inner: step.1.clone() * strides[step.0] };
    Factor { buf: k.param_for(view.buf, Access::Read), at, bounds: vec![], padded: false }
}

/// Coordinates of a flat position, as expressions.
pub fn coordinates(p: Expr, dims: &[usize]) -> Vec<Expr> {
    let mut coords = vec![Expr::i64(0); dims.len()];
    let mut inner = 1i64;
    for d in (0..dims.len()).rev() {
        if dims[d] == 1 {
            continue;
        }
        let rest = p.clone() / inner;
        let outermost = dims[..d].iter().all(|&n| n == 1);
        coords[d] = if outermost { rest } else { rest % dims[d] as i64 };
        inner *= dims[d] as i64;
    }
    coords
}
