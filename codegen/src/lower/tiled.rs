//! Products of matrices for GPUs: convolutions and matrix products as one [`Contract`] each, in tiles that a cost model picks.
//!
//! A convolution has output channels as rows, pixels of all images as columns, and channels and taps as steps (implicit
//! GEMM): its input stays as it is, and padding is a bound. Constant factors are transposed when compiling, so that what is
//! loaded together lies together. Where there are too few tiles to fill a GPU, the steps are split among blocks, and a
//! second kernel adds their sums up and does what is fused behind.

use super::cx::{KernelCx, NodeCx};
use super::memory::Axis;
use super::view::{Layout, View};
use crate::kernel::{Access, Blocks, Bound, Contract, Expr, Factor, LoopKind, Split, Tile, computing_type};
use crate::ptx::{Gpu, Precision};
use lehr_ir::{DType, Tensor};

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
    Factor { buf: k.param_for(view.buf, Access::Read), at, bounds: vec![] }
}

/// A constant matrix (batch, rows, columns) with rows and columns exchanged, as a table.
pub fn transposed(cx: &mut NodeCx, t: &Tensor, [batch, rows, columns]: [usize; 3]) -> View {
    packed(cx, t, [batch, rows, columns, 1])
}

/// A constant (batch, rows, channels, taps) as a table (batch, taps * channels, rows).
fn packed(cx: &mut NodeCx, t: &Tensor, [batch, rows, channels, taps]: [usize; 4]) -> View {
    let size = t.dtype().size();
    let from = t.bytes();
    let mut to = vec![0; from.len()];
    let columns = channels * taps;
    // By blocks that the cache holds: the largest matrices have hundreds of megabytes.
    const BLOCK: usize = 32;
    for b in 0..batch {
        let base = b * rows * columns;
        for (r0, c0) in (0..rows).step_by(BLOCK).flat_map(|r| (0..columns).step_by(BLOCK).map(move |c| (r, c))) {
            for r in r0..(r0 + BLOCK).min(rows) {
                for c in c0..(c0 + BLOCK).min(columns) {
                    let step = c % taps * channels + c / taps;
                    let (i, o) = ((base + r * columns + c) * size, (base + step * rows + r) * size);
                    to[o..o + size].copy_from_slice(&from[i..i + size]);
                }
            }
        }
    }
    let buf = cx.low.add_weights(t.dtype(), batch * rows * columns, to.into());
    View::dense(buf, t.dtype(), vec![batch, columns, rows])
}

/// What a convolution is made of; weights are [out channels, channels of a group, taps...].
pub struct Convolution<'a> {
    pub x: &'a [usize],
    pub w: &'a [usize],
    pub y: &'a [usize],
    pub axes: &'a [Axis],
    pub groups: usize,
}

/// A convolution in tiles; false if it is none for them.
pub fn convolution(cx: &mut NodeCx, gpu: Gpu, c: &Convolution) -> bool {
    let (group_out, channels) = (c.w[0] / c.groups, c.w[1]);
    let taps: Vec<usize> = c.axes.iter().map(|a| a.kernel).collect();
    let plane: usize = c.y[2..].iter().product();
    let size = Size {
        batch: c.groups,
        rows: group_out,
        columns: c.y[0] * plane,
        depth: channels * taps.iter().product::<usize>(),
    };
    if !size.is_tiled(computing_type(cx.out_dtype(0))) || plane == 0 || c.x.contains(&0) {
        return false;
    }
    let input = cx.materialized(0);
    let Layout::Strided { strides, offset } = input.layout.clone() else { return false };
    // Steps go through the channels of one tap after another: what depends on the tap alone changes seldom.
    let count: usize = taps.iter().product();
    let (weights, turned) = match cx.constant(1) {
        Some(t) => (packed(cx, &t, [c.groups, group_out, channels, count]), true),
        None => (cx.materialized(1), false),
    };
    if !turned && !weights.is_dense() {
        return false;
    }
    // Taps of one pixel each at the pixel itself: the plane is one axis.
    let pointwise = c.axes.iter().all(|a| a.kernel == 1 && a.stride == 1 && !a.has_border());
    let dense_plane = (3..strides.len()).all(|d| strides[d - 1] == strides[d] * c.x[d] as i64);
    let left = |k: &mut KernelCx, group: &Expr, row: &Expr, step: &Expr| {
        if turned {
            return factor(k, &weights, std::slice::from_ref(group), (2, row), (1, step));
        }
        let first = group.clone() * group_out as i64 + row.clone();
        let (tap, channel) = (step.clone() / channels as i64, step.clone() % channels as i64);
        let at = Split { outer: first * size.depth as i64, inner: channel * count as i64 + tap };
        Factor { buf: k.param_for(weights.buf, Access::Read), at, bounds: vec![] }
    };
    let right = |k: &mut KernelCx, group: &Expr, column: &Expr, step: &Expr| {
        let image = column.clone() / plane as i64;
        let image = if c.y[0] == 1 { Expr::i64(0) } else { image };
        let pixel = if c.y[0] == 1 { column.clone() } else { column.clone() % plane as i64 };
        let first = group.clone() * channels as i64;
        let mut outer = Expr::i64(offset) + image * strides[0] + first * strides[1];
        if pointwise && dense_plane {
            let last = *strides.last().expect("convolutions have a spatial axis");
            let at = Split { outer: outer + pixel * last, inner: step.clone() * strides[1] };
            return Factor { buf: k.param_for(input.buf, Access::Read), at, bounds: vec![] };
        }
        let place = coordinates(pixel, &c.y[2..]);
        let mut tap = coordinates(step.clone(), &[&taps[..], &[channels]].concat());
        let channel = tap.pop().expect("the channel is the last");
        let mut inner = channel * strides[1];
        let mut bounds = vec![];
        for (a, axis) in c.axes.iter().enumerate() {
            let from = place[a].clone() * axis.stride as i64 - axis.begin as i64;
            let by = tap[a].clone() * axis.dilation as i64;
            outer = outer + from.clone() * strides[2 + a];
            inner = inner + by.clone() * strides[2 + a];
            if axis.has_border() {
                bounds.push(Bound { at: Split { outer: from, inner: by }, size: axis.size as i64 });
            }
        }
        Factor { buf: k.param_for(input.buf, Access::Read), at: Split { outer, inner }, bounds }
    };
    let has_bias = cx.has(2);
    let flat = cx.is_flat_behind(2);
    let store = |k: &mut KernelCx, group: &Expr, row: &Expr, column: &Expr, sum: Expr| {
        let channel = k.let_(group.clone() * group_out as i64 + row.clone());
        let one = c.y[0] == 1;
        let image = if one { Expr::i64(0) } else { k.let_(column.clone() / plane as i64) };
        let pixel = if one { column.clone() } else { k.let_(column.clone() % plane as i64) };
        let mut at = vec![image, channel.clone()];
        match flat {
            true => {
                at.extend((3..c.y.len()).map(|_| Expr::i64(0)));
                at.push(pixel);
            }
            false => {
                for e in coordinates(pixel, &c.y[2..]) {
                    at.push(k.let_(e));
                }
            }
        }
        let sum = if has_bias { sum + k.load(2, &[channel]) } else { sum };
        k.store(0, &at, sum);
    };
    product(cx, gpu, size, &left, &right, &store);
    true
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

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub tile: Tile,
    /// Blocks that share the steps of a tile.
    pub splits: usize,
}

const fn tile(rows: u32, columns: u32, depth: u32, part_rows: u32, part_columns: u32) -> Tile {
    Tile { rows, columns, depth, part_rows, part_columns, tensor: false }
}

const fn tensor(rows: u32, columns: u32, part_rows: u32, part_columns: u32) -> Tile {
    Tile { rows, columns, depth: 16, part_rows, part_columns, tensor: true }
}

/// Tiles for fused multiply-adds: large ones load less for each sum, small ones fit small products.
const TILES: [Tile; 8] = [
    tile(128, 128, 8, 8, 8),
    tile(128, 64, 8, 8, 8),
    tile(64, 128, 8, 8, 8),
    tile(64, 64, 16, 8, 4),
    tile(64, 32, 16, 4, 4),
    tile(32, 64, 16, 4, 4),
    tile(32, 32, 16, 4, 4),
    tile(16, 64, 16, 4, 4),
];
/// Tiles for tensor cores.
const TENSOR_TILES: [Tile; 6] = [
    tensor(128, 128, 64, 32),
    tensor(128, 64, 32, 32),
    tensor(64, 128, 32, 32),
    tensor(64, 64, 32, 32),
    tensor(32, 64, 16, 32),
    tensor(16, 64, 16, 16),
];
/// Warps that keep a multiprocessor busy.
const BUSY_WARPS: f64 = 8.0;
/// Cycles from asking for a slice to its arrival that are not hidden, and those of starting and ending a block.
const SLICE_CYCLES: f64 = 60.0;
const BLOCK_CYCLES: f64 = 1500.0;
/// Bytes that a multiprocessor has of global memory and L2 in a cycle.
const BYTES_PER_CYCLE: f64 = 20.0;
const LAUNCH_CYCLES: f64 = 3000.0;

impl Cut {
    /// The cut with the least estimated time.
    ///
    /// A multiprocessor multiplies and adds 128 pairs a cycle with fp32, 1024 and 2048 on tensor cores with tf32 and
    /// 16 bits; with few warps less. It has as many blocks, one after the other or side by side, as there are blocks for each
    /// multiprocessor, rounded up: that is what makes small tiles and splits win on small products.
    pub fn choose(gpu: Gpu, size: Size) -> Cut {
        let tiles: &[Tile] = if gpu.precision == Precision::Fp32 { &TILES } else { &TENSOR_TILES };
        let mut best: Option<(f64, Cut)> = None;
        for &tile in tiles {
            let most = size.depth.div_ceil(4 * tile.depth as usize).clamp(1, 32);
            for splits in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32].into_iter().filter(|&s| s <= most) {
                let cut = Cut { tile, splits: whole_splits(size.depth, splits, tile.depth as usize) };
                let cycles = cut.cycles(gpu, size);
                if best.is_none_or(|(least, _)| cycles < least) {
                    best = Some((cycles, cut));
                }
            }
        }
        best.expect("there are tiles").1
    }

    /// Estimated cycles of the whole product.
    pub fn cycles(&self, gpu: Gpu, size: Size) -> f64 {
        let Tile { rows, columns, depth, .. } = self.tile;
        let across = |n: usize, by: u32| n.div_ceil(by as usize) as f64;
        let blocks = across(size.rows, rows) * across(size.columns, columns) * (size.batch * self.splits) as f64;
        let slices = (size.depth as f64 / self.splits as f64 / depth as f64).ceil();
        let peak = match gpu.precision {
            Precision::Fp32 if gpu.sm == crate::ptx::Sm::Sm80 => 64.0,
            Precision::Fp32 => 128.0,
            Precision::Tf32 => 512.0,
            Precision::F16 | Precision::Bf16 => 1024.0,
        };
        let sums = (rows * columns * depth) as f64;
        // Loads from shared memory for each step of a part, against what is computed with them.
        let parts = (self.tile.part_rows + self.tile.part_columns) as f64
            / (self.tile.part_rows * self.tile.part_columns) as f64;
        let shared = 1.0 + if self.tile.tensor { 4.0 * parts } else { 0.5 * parts };
        let per_processor = (blocks / gpu.sm.multiprocessors() as f64).ceil();
        let warps = self.tile.threads() as f64 / 32.0 * per_processor.min(4.0);
        let busy = (warps / BUSY_WARPS).min(1.0);
        let arithmetic = sums * shared / (peak * busy);
        let bytes = 4.0 * ((rows + columns) * depth) as f64;
        let slice = arithmetic.max(bytes / BYTES_PER_CYCLE) + SLICE_CYCLES / per_processor.min(4.0);
        let mut cycles = per_processor * (slices * slice + BLOCK_CYCLES / per_processor.min(4.0));
        if self.splits > 1 {
            let partial = (size.batch * size.rows * size.columns) as f64 * 4.0 * (2 * self.splits) as f64;
            cycles += LAUNCH_CYCLES + partial / (BYTES_PER_CYCLE * gpu.sm.multiprocessors() as f64);
        }
        cycles
    }
}

/// As many splits as are not empty when each has whole slices.
fn whole_splits(depth: usize, splits: usize, slice: usize) -> usize {
    let each = depth.div_ceil(splits).next_multiple_of(slice);
    depth.div_ceil(each)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::Sm;

    const GPU: Gpu = Gpu { sm: Sm::Sm80, precision: Precision::Fp32 };

    #[test]
    fn deep_and_narrow_products_are_split_and_large_ones_are_not() {
        // The last stage of resnet50 at batch 1, and vgg19's second layer.
        let deep = Cut::choose(GPU, Size { batch: 1, rows: 512, columns: 49, depth: 4608 });
        assert!(deep.splits > 1, "{deep:?}");
        let large = Cut::choose(GPU, Size { batch: 1, rows: 64, columns: 50_176, depth: 576 });
        assert_eq!(large.splits, 1, "{large:?}");
        assert!(large.tile.rows * large.tile.columns >= 64 * 64, "{large:?}");
    }

    #[test]
    fn no_split_is_empty() {
        for (depth, splits, slice) in [(100, 8, 16), (4608, 32, 8), (17, 2, 16), (64, 3, 16)] {
            let n = whole_splits(depth, splits, slice);
            let each = depth.div_ceil(n).next_multiple_of(slice);
            assert!((n - 1) * each < depth && n * each >= depth, "{depth} in {n}");
        }
    }

    #[test]
    fn tiles_fit_their_threads() {
        for t in TILES.iter().chain(&TENSOR_TILES) {
            assert!(t.threads() >= 64 && t.threads() <= 256 && t.threads().is_power_of_two(), "{t:?}");
            assert_eq!((t.rows % t.part_rows, t.columns % t.part_columns), (0, 0), "{t:?}");
        }
    }
}
