//! Convolutions by Winograd's algorithm: of stride 1 with kernels of 3 to 5 taps, of stride 2 with 3 and with 5 to 10.
//!
//! ```text
//! parallel for share of an image's bands                a band is a number of rows of tiles
//!     for band in share
//!         V[point][ic-block][tile][lanes] = transform of the input
//!         for oc-group
//!             for point
//!                 M[point][block][tile][lanes] = V[point] * weights[oc-group][set]       the batch-reduce leaf; a tile is a pixel
//!             output = epilogue(bias + transform of M)
//! ```
//!
//! Points have a set of weights each, but for those of single taps with stride 2, which share theirs. While a point is computed, the
//! next set is brought nearer; again where several points use one, for a leaf that does not is code that comes from memory, and costs more.
//! Groups of the convolution are computed one after the other, each with its own part of V.
//!
//! Where the weights weigh most, the band is the image: a first kernel fills V, a second is parallel over oc-groups, and over halves of
//! the image where threads would else get different numbers of groups; the halves that one thread has are merged. Every
//! thread has its own part of the scratch buffers, which stays in its cache; results do not depend on threads. The input's
//! border covers whole tiles, and of tiles that reach beyond the output only what exists is stored.
//!
//! Where a 2x2 pool comes next (`layout/pooled.rs`), the output's transform computes it too, and stores its result alone. Rows and
//! columns that no window takes are not computed.

mod blocking;
mod choose;
mod weights;
mod whole;

pub use blocking::Tiling;
pub use choose::{Shape, algorithms};
use weights::{pack, set_of_weights, step_to_next_set};

use super::operands::{Feed, Fused, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, CmpOp, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::strategy::ByWinograd;
use crate::x86::{
    BatchReduceGemm, Broadcast, Init, Input, InputTransform, LeafError, LeafSpec, OutputTransform, Pool, Prefetch,
    Reduce, Tiles, VProg, Winograd,
};
use lehr_ir::ops::Conv;
use lehr_ir::{DType, Diag, Op};

/// Parallel iterations of an image: fewer than elsewhere, for each has scratch of its own.
const SHARES: usize = 8;
/// Weights of more bytes come from memory: those that are read by few bands, and those that many read.
const COLD_FOR_FEW: usize = 96 << 10;
const COLD_FOR_MANY: usize = 1 << 20;
const FEW_BANDS: usize = 5;

pub fn lower(cx: &mut NodeCx, kind: Winograd) -> Result<(), Diag> {
    let Op::Conv(op) = cx.graph.node(cx.anchor_id()).op.clone() else { unreachable!("the role says so") };
    let conv = WinogradConv::new(cx, &op, kind);
    conv.emit(cx).map_err(|e| leaf_diag(cx, &e))
}

struct WinogradConv {
    kind: Winograd,
    shape: Shape,
    x: View,
    /// What is stored: the convolution's result, or the pool's behind it.
    y: View,
    xs: Lattice,
    ys: Lattice,
    pool: Option<Pool>,
    /// Rows and columns of the convolution's result that are computed.
    size: [usize; 2],
    pads: [i64; 2],
    lanes: usize,
    /// Groups of output blocks, in each group of the convolution.
    groups: Parts,
    broadcast: Broadcast,
    /// Tiles for a leaf at most.
    pixels: usize,
    tiles_high: usize,
    tiles_wide: usize,
    /// Rows of tiles, in bands.
    bands: Parts,
    whole: bool,
    /// The weights do not stay in the cache from band to band.
    cold: bool,
    fused: Fused,
    weights: BufferId,
    bias: Option<BufferId>,
}

/// Leaves of a band of so many rows of tiles.
struct Band {
    rows: usize,
    input: u32,
    /// By size of group, then by size of the parts of the band's tiles.
    products: Vec<Vec<u32>>,
    /// By whether the tile is the last of its column, then of its row; `None` where there is no such tile.
    outputs: [[Option<u32>; 2]; 2],
}

struct Params {
    x: Param,
    y: Param,
    w: Param,
    bias: Option<Param>,
    v: Param,
    m: Param,
}

/// What the convolution that is being lowered stores, the pool that makes it so, and the rows and columns that are computed for it.
fn stored(cx: &NodeCx) -> (View, Option<Pool>, [usize; 2]) {
    let y = cx.outputs[0].1.clone();
    let size = [y.shape[2], y.shape[3]];
    let Some(behind) = cx.low.node.and_then(|id| cx.low.layouts.pool_behind(id)) else { return (y, None, size) };
    let y = cx.low.views[&behind.node.out(0)].clone();
    // A last window has one row or column where the pool rounds up.
    let taken = [0, 1].map(|d| size[d].min(2 * y.shape[2 + d]));
    (y, Some(behind.pool), taken)
}

impl WinogradConv {
    fn new(cx: &mut NodeCx, op: &Conv, kind: Winograd) -> WinogradConv {
        let isa = cx.low.isa();
        let lanes = isa.lanes();
        let w = cx.constant(1).expect("the weights are constant");
        let bias = cx.constant(2).map(|b| b.to_f32());
        let x = cx.view(0).expect("the input is in a buffer");
        let (y, pool, size) = stored(cx);
        let shape = Shape::of(op, w.shape(), lanes).expect("the layout pass has asked");
        let start = cx.anchor_id().out(0);
        let fused = fused(cx, start, None, &mut |feed| match feed {
            Feed::Same(view) => {
                let lattice = view.lattice();
                crate::x86::Access::Strided { pixel: bytes(lattice.spatial[1]), block: bytes(lattice.spatial[0]) }
            }
            Feed::Channel { .. } => crate::x86::Access::Channel,
            Feed::Splat(_) => crate::x86::Access::Splat,
        });
        let tiling = Tiling::new(isa, kind, shape, [y.shape[0], size[0], size[1]]);
        let (tiles_high, tiles_wide) = (tiling.tiles_high, tiling.tiles_wide);
        let ByWinograd { tile, band, .. } = cx.decide(op, &tiling);
        let bands = tiling.bands(band);
        let groups = Parts::of(shape.out_blocks, tile.blocks);
        let packed = pack(kind, &w.to_f32(), [w.shape()[0], w.shape()[1], w.shape()[2]], &shape, lanes, groups);
        let cold = packed.len() > if bands.total() < FEW_BANDS { COLD_FOR_FEW } else { COLD_FOR_MANY };
        let weights = cx.low.add_weights(DType::F32, packed.len() / 4, packed.into());
        WinogradConv {
            kind,
            shape,
            xs: x.lattice(),
            ys: y.lattice(),
            x,
            y,
            pool,
            size,
            pads: [op.pads[0] as i64, op.pads[1] as i64],
            lanes,
            groups,
            broadcast: if tile.blocks == 1 { Broadcast::PerFma } else { Broadcast::PerPixel },
            pixels: tile.pixels,
            tiles_high,
            tiles_wide,
            bands,
            whole: band.is_none(),
            cold,
            fused,
            weights,
            bias: bias.map(|b| channel_table(cx, &b, lanes, 0.0)),
        }
    }

    fn points(&self) -> usize {
        self.kind.points() * self.kind.points()
    }

    /// Blocks of channels of V, of all groups of the convolution.
    fn in_blocks(&self) -> usize {
        self.shape.conv_groups * self.shape.in_blocks
    }

    /// Groups of output blocks in all groups of the convolution.
    fn all_groups(&self) -> usize {
        self.shape.conv_groups * self.groups.total()
    }

    /// Tiles of the larger bands.
    fn band_tiles(&self) -> usize {
        self.bands.size * self.tiles_wide
    }

    /// Elements from point to point of V and of M: a line more than there is, for caches that map multiples of 4 KB to one set.
    fn point_v(&self) -> usize {
        (self.in_blocks() * self.band_tiles() + 1) * self.lanes
    }

    fn point_m(&self, rows: usize) -> usize {
        (self.groups.size * rows * self.tiles_wide + 1) * self.lanes
    }

    fn emit(&self, cx: &mut NodeCx) -> Result<(), LeafError> {
        let sizes: Vec<usize> = match self.whole {
            true => self.pieces().iter().map(|piece| piece.rows).collect(),
            false => self.bands.sizes().into_iter().map(|(rows, _)| rows).collect(),
        };
        let bands = sizes.into_iter().map(|rows| self.band(cx, rows)).collect::<Result<Vec<_>, _>>()?;
        match self.whole {
            true => self.emit_whole(cx, &bands)?,
            false => self.emit_bands(cx, &bands),
        }
        Ok(())
    }

    /// Operations of an image.
    fn work(&self) -> usize {
        let Shape { conv_groups, channels, out_blocks, .. } = self.shape;
        2 * self.points() * self.tiles_high * self.tiles_wide * conv_groups * channels * out_blocks * self.lanes
    }

    fn emit_bands(&self, cx: &mut NodeCx, leaves: &[Band]) {
        let (images, count) = (self.y.shape[0], self.bands.total());
        let shares = SHARES.min(count);
        let v = cx.scratch(DType::F32, images * shares * self.points() * self.point_v());
        let of_m = self.points() * self.point_m(self.bands.size);
        let m = cx.scratch(DType::F32, images * shares * of_m);
        let mut k = cx.kernel("");
        let p = k.parallel((images * shares) as i64, (self.work() / shares) as i64);
        let params = self.params(&mut k, v, m);
        let at = unflatten(&mut k, p.clone(), &[images, shares]);
        let own = k.range_start();
        let v_at = k.let_(own.clone() * (self.points() * self.point_v()) as i64);
        let m_at = k.let_(own * of_m as i64);
        let first = k.let_(at[1].clone() * count as i64 / shares as i64);
        let end = k.let_((at[1].clone() + 1) * count as i64 / shares as i64);
        k.for_(LoopKind::Serial, first, end, 1, |k, index| {
            self.bands.each_spread(k, index, |k, size, first| {
                let band = BandCx {
                    conv: self,
                    leaves: &leaves[size],
                    params: &params,
                    image: at[0].clone(),
                    first,
                    v: v_at.clone(),
                    m: m_at.clone(),
                };
                k.serial(self.in_blocks(), |k, block| {
                    k.serial(band.leaves.rows, |k, row| band.input(k, block.clone(), row));
                });
                k.serial(self.all_groups(), |k, group| band.group(k, group));
            });
        });
        k.finish();
    }

    fn params(&self, k: &mut KernelCx, v: BufferId, m: BufferId) -> Params {
        Params {
            x: k.param_for(self.x.buf, Access::Read),
            y: k.param_for(self.y.buf, Access::Write),
            w: k.param_for(self.weights, Access::Read),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
            v: k.param_for(v, Access::ReadWrite),
            m: k.param_for(m, Access::ReadWrite),
        }
    }

    /// Leaves of so many rows of tiles.
    fn band(&self, cx: &mut NodeCx, rows: usize) -> Result<Band, LeafError> {
        let input = LeafSpec::WinogradInput(InputTransform {
            winograd: self.kind,
            row: bytes(self.xs.spatial[0]),
            pixel: bytes(self.xs.spatial[1]),
            point: bytes(self.point_v() as i64),
            tiles: self.tiles_wide as u32,
        });
        let input = cx.low.leaf(&input)?;
        let mut products = vec![];
        for (blocks, _) in self.groups.sizes() {
            let mut of_group = vec![];
            let parts = Parts::of(rows * self.tiles_wide, self.pixels);
            for (pixels, count) in parts.sizes() {
                let next = self.next_weights(blocks, parts.total());
                of_group.push(cx.low.leaf(&self.product(rows, blocks, [pixels, count], next))?);
            }
            products.push(of_group);
        }
        let m = self.kind.outputs();
        let mut outputs = [[None; 2]; 2];
        for (last_row, last_col) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let rest = self.size.map(|n| n % m);
            let tiles = if last_col == 1 { 1 } else { self.size[1] / m };
            if (last_row == 1 && rest[0] == 0) || (last_col == 1 && rest[1] == 0) || tiles == 0 {
                continue;
            }
            let spec = LeafSpec::WinogradOutput(OutputTransform {
                winograd: self.kind,
                rows: if last_row == 1 { rest[0] } else { m } as u32,
                cols: if last_col == 1 { rest[1] } else { m } as u32,
                point: bytes(self.point_m(rows) as i64),
                pool: self.pool,
                row: bytes(self.ys.spatial[0]),
                bias: self.bias.is_some(),
                epilogue: self.fused.program.clone(),
                tiles: tiles as u32,
            });
            outputs[last_row][last_col] = Some(cx.low.leaf(&spec)?);
        }
        Ok(Band { rows, input, products, outputs })
    }

    /// Bytes of a set of weights.
    fn weights_of_set(&self, blocks: usize) -> usize {
        4 * self.shape.channels * self.lanes * blocks
    }

    /// Bytes of the next set of weights that each of so many leaf tiles brings nearer.
    fn next_weights(&self, blocks: usize, tiles: usize) -> usize {
        if self.cold { self.weights_of_set(blocks) / tiles } else { 0 }
    }

    /// Of a group of output blocks, for so many tiles of pixels in a band of so many rows.
    fn product(&self, rows: usize, blocks: usize, [pixels, count]: [usize; 2], next: usize) -> LeafSpec {
        LeafSpec::Gemm(BatchReduceGemm {
            pixels: pixels as u32,
            blocks: blocks as u32,
            input: Input::Element,
            broadcast: self.broadcast,
            pixel_stride: bytes(self.lanes as i64),
            reduce: vec![
                Reduce { trip: self.shape.in_blocks as u32, stride: bytes((self.band_tiles() * self.lanes) as i64) },
                Reduce { trip: (self.shape.channels / self.shape.in_blocks) as u32, stride: 4 },
            ],
            init: Init::Zero,
            epilogue: VProg::identity(),
            out_pixel_stride: bytes(self.lanes as i64),
            out_block_stride: bytes((rows * self.tiles_wide * self.lanes) as i64),
            last_lanes: None,
            tiles: Tiles::Fixed(count as u32),
            prefetch: if next > 0 { Prefetch::Next(next as u32) } else { Prefetch::None },
        })
    }
}

/// A band at a place: rows of tiles from `first` on, V and M from these elements on.
struct BandCx<'c> {
    conv: &'c WinogradConv,
    leaves: &'c Band,
    params: &'c Params,
    image: Expr,
    first: Expr,
    v: Expr,
    m: Expr,
}

fn address(buf: Param, index: Expr) -> LeafArg {
    LeafArg::Address { buf, index }
}

impl BandCx<'_> {
    /// Transforms a row of tiles of a block of input channels.
    fn input(&self, k: &mut KernelCx, block: Expr, row: Expr) {
        let c = self.conv;
        let step = (c.kind.outputs() * c.kind.stride()) as i64;
        let place = [(self.first.clone() + row.clone()) * step - Expr::i64(c.pads[0]), Expr::i64(-c.pads[1])];
        let from = c.xs.at(&self.image, block.clone(), &place);
        let tile = block * c.band_tiles() as i64 + row * c.tiles_wide as i64;
        let to = self.v.clone() + tile * c.lanes as i64;
        k.leaf(self.leaves.input, vec![address(self.params.x, from), address(self.params.v, to)]);
    }

    /// A group of output blocks, numbered through all groups of the convolution.
    fn group(&self, k: &mut KernelCx, group: Expr) {
        let g = self.conv.groups;
        let (conv_group, group) = match self.conv.shape.conv_groups {
            1 => (Expr::i64(0), group),
            _ => (k.let_(group.clone() / g.total() as i64), k.let_(group % g.total() as i64)),
        };
        g.each_size(k, &group, |k, size| self.blocks(k, conv_group.clone(), group.clone(), size));
    }

    /// A group of output blocks in a group of the convolution; `size` says which of the two sizes it has.
    fn blocks(&self, k: &mut KernelCx, conv_group: Expr, group: Expr, size: usize) {
        let (c, g) = (self.conv, self.conv.groups);
        let first = k.let_(conv_group.clone() * c.shape.out_blocks as i64 + g.start(size, group));
        let blocks = g.sizes()[size].0;
        let of_set = c.shape.channels * c.lanes;
        let sets = c.kind.sets() * c.kind.sets();
        let w = k.let_(first.clone() * (sets * of_set) as i64);
        let v = k.let_(self.v.clone() + conv_group * (c.shape.in_blocks * c.band_tiles() * c.lanes) as i64);
        k.serial(c.points(), |k, point| {
            let v = k.let_(v.clone() + point.clone() * c.point_v() as i64);
            let m = k.let_(self.m.clone() + point.clone() * c.point_m(self.leaves.rows) as i64);
            let w = k.let_(w + set_of_weights(c.kind, &point) * (blocks * of_set) as i64);
            let next = k.let_(step_to_next_set(c.kind, &point) * c.weights_of_set(blocks) as i64);
            let (mut pixel, mut tile) = (0, 0);
            let parts = Parts::of(self.leaves.rows * c.tiles_wide, c.pixels);
            for ((pixels, count), leaf) in parts.sizes().into_iter().zip(&self.leaves.products[size]) {
                let shift = (pixel * c.lanes) as i64;
                let args = vec![
                    address(self.params.v, v.clone() + shift),
                    address(self.params.w, w.clone()),
                    address(self.params.m, m.clone() + shift),
                    // Neither bias nor number of tiles is read.
                    LeafArg::Int(Expr::i64(0)),
                    LeafArg::Int(Expr::i64(0)),
                    LeafArg::Int(next.clone() + (tile * c.next_weights(blocks, parts.total())) as i64),
                ];
                k.leaf(*leaf, args);
                pixel += pixels * count;
                tile += count;
            }
        });
        k.serial(blocks, |k, block| {
            k.serial(self.leaves.rows, |k, row| self.output(k, first.clone() + block.clone(), block, row));
        });
    }

    /// A row of tiles of one block: `inner` in M, `block` in the output.
    fn output(&self, k: &mut KernelCx, block: Expr, inner: Expr, row: Expr) {
        let c = self.conv;
        let block = k.let_(block);
        let from = (inner * self.leaves.rows as i64 + row.clone()) * (c.tiles_wide * c.lanes) as i64;
        let from = k.let_(self.m.clone() + from);
        let row = k.let_(self.first.clone() + row);
        if c.size[0].is_multiple_of(c.kind.outputs()) {
            return self.output_row(k, 0, block, from, row);
        }
        let is_last = Expr::compare(CmpOp::Eq, row.clone(), Expr::i64(c.tiles_high as i64 - 1));
        let same = (block.clone(), from.clone(), row.clone());
        k.if_else(
            is_last,
            |k| self.output_row(k, 1, block, from, row),
            |k| self.output_row(k, 0, same.0, same.1, same.2),
        );
    }

    fn output_row(&self, k: &mut KernelCx, last_row: usize, block: Expr, from: Expr, row: Expr) {
        let c = self.conv;
        let m = c.kind.outputs();
        // Rows and columns of what is stored, and of the operands, that a tile has.
        let stored = if c.pool.is_some() { m / 2 } else { m };
        let place = |m: usize| [row.clone() * m as i64, Expr::i64(0)];
        let (to, of_operands) = (place(stored), place(m));
        for (last_col, leaf) in self.leaves.outputs[last_row].iter().enumerate() {
            let Some(leaf) = leaf else { continue };
            let tile = if last_col == 1 { c.tiles_wide - 1 } else { 0 };
            let at = |spatial, m: usize| Place {
                image: &self.image,
                block: block.clone(),
                spatial,
                pixels: Expr::i64((tile * m) as i64),
            };
            let bias = match self.params.bias {
                Some(bias) => address(bias, block.clone() * c.lanes as i64),
                None => LeafArg::Int(Expr::i64(0)),
            };
            let mut args = vec![
                address(self.params.m, from.clone() + (tile * c.lanes) as i64),
                address(self.params.y, at(&to, stored).position(&c.ys)),
                bias,
            ];
            args.extend(addresses(k, &c.fused.feeds, None, c.lanes, &at(&of_operands, m)));
            k.leaf(*leaf, args);
        }
    }
}
