//! Pools, depthwise convolutions and global means on blocks: windows over whole vectors of channels.
//!
//! ```text
//! parallel for image, chunk of rows, block
//!     for each class of rows              windows cut off at the same taps
//!         for row in chunk and class
//!             leaf for each class of columns
//! ```
//!
//! Pools skip what lies outside the input, so windows at an edge are leaves of their own; a depthwise convolution reads the
//! border's zeros instead and has one class.

use super::operands::{Feed, Fused, Place, addresses, channel_table, fused};
use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind};
use crate::lower::cx::NodeCx;
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View};
use crate::x86::{
    BatchReduceGemm, Broadcast, Init, Input, LeafError, LeafSpec, Reduce, Tiles, VProg, pack_depthwise_weights,
};
use lehr_ir::{DType, Diag, Op};

/// Pixels of a tile: an accumulator each, beside two registers more.
const PIXELS: usize = 12;
/// Parallel iterations that are wanted.
const SHARES: usize = 16;

/// One axis of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub begin: usize,
    pub end: usize,
    pub dilation: usize,
}

/// Consecutive outputs whose windows have the same taps inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: usize,
    pub len: usize,
    /// The first tap inside, and how many.
    pub tap: usize,
    pub taps: usize,
    /// Taps inside the input and its padding.
    pub with_pads: usize,
}

/// The runs of an axis with `outputs` windows.
pub fn runs(axis: Axis, outputs: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = vec![];
    for o in 0..outputs {
        let position = |k: usize| o * axis.stride + k * axis.dilation;
        let inside = |k: &usize| (axis.begin..axis.begin + axis.size).contains(&position(*k));
        let tap = (0..axis.kernel).find(inside).unwrap_or(0);
        let taps = (0..axis.kernel).filter(inside).count();
        let with_pads = (0..axis.kernel).filter(|&k| position(k) < axis.begin + axis.size + axis.end).count();
        match runs.last_mut() {
            Some(r) if (r.tap, r.taps, r.with_pads) == (tap, taps, with_pads) => r.len += 1,
            _ => runs.push(Run { first: o, len: 1, tap, taps, with_pads }),
        }
    }
    runs
}

/// The axes of a pool or depthwise convolution over `x`, its spatial sizes; `None` for another operator.
pub fn axes(op: &Op, x: &[usize], kernel: Option<&[usize]>) -> Option<Vec<Axis>> {
    let (kernel, strides, pads, dilations) = match op {
        Op::MaxPool(p) => (&p.kernel[..], &p.strides, &p.pads, &p.dilations),
        Op::AvgPool(p) => (&p.kernel[..], &p.strides, &p.pads, &p.dilations),
        Op::Conv(c) => (kernel?, &c.strides, &c.pads, &c.dilations),
        _ => return None,
    };
    let n = x.len();
    let axis = |d: usize| Axis {
        size: x[d],
        kernel: kernel[d],
        stride: strides[d],
        begin: pads[d],
        end: pads[n + d],
        dilation: dilations[d],
    };
    Some((0..n).map(axis).collect())
}

struct Windows {
    x: View,
    y: View,
    xs: Lattice,
    ys: Lattice,
    axes: Vec<Axis>,
    runs: Vec<Vec<Run>>,
    input: Input,
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let op = cx.graph.node(cx.anchor_id()).op.clone();
    let lanes = cx.low.isa().lanes();
    let x = cx.view(0).expect("the input is in a buffer");
    let y = cx.outputs[0].1.clone();
    let w = match &op {
        Op::Conv(_) => cx.constant(1),
        _ => None,
    };
    let kernel = w.as_ref().map(|w| w.shape()[2..].to_vec());
    let axes = axes(&op, &x.shape[2..], kernel.as_deref()).expect("the role says so");
    let spatial = y.shape[2..].to_vec();
    let whole =
        |axis: &Axis, n: usize| vec![Run { first: 0, len: n, tap: 0, taps: axis.kernel, with_pads: axis.kernel }];
    let runs = axes.iter().zip(&spatial).map(|(a, &n)| if w.is_some() { whole(a, n) } else { runs(*a, n) }).collect();
    let input = match &op {
        Op::MaxPool(_) => Input::Max,
        Op::AvgPool(_) => Input::Sum,
        _ => Input::Lanes,
    };
    let include_pad = matches!(&op, Op::AvgPool(p) if p.count_include_pad);
    let windows = Windows { xs: x.lattice(), ys: y.lattice(), x, y, axes, runs, input };
    let (mut weights, mut bias) = (None, None);
    if let Some(w) = w {
        let taps = w.shape()[2..].iter().product();
        let packed = pack_depthwise_weights(&w.to_f32(), w.shape()[0], 1, taps, lanes);
        weights = Some(cx.low.add_weights(DType::F32, packed.len() / 4, packed.into()));
        bias = cx.constant(2).map(|b| channel_table(cx, &b.to_f32(), lanes, 0.0));
    }
    let taps = weights.map_or(0, |_| windows.axes.iter().map(|a| a.kernel).product::<usize>());

    // Leaves for every class, assembled before the kernel is open.
    let start = cx.anchor_id().out(0);
    let mut classes: Vec<(Vec<Run>, Vec<(Run, Vec<u32>, Fused)>)> = vec![];
    let (inner, outer) = windows.runs.split_last().expect("there is a spatial axis");
    for rows in combinations(outer) {
        let mut columns = vec![];
        for column in inner {
            let all: Vec<Run> = rows.iter().chain([column]).copied().collect();
            let count = |r: &Run| if include_pad { r.with_pads } else { r.taps };
            let divisor: usize = all.iter().map(count).product();
            let divisor = (input == Input::Sum).then_some(divisor as f32);
            let fused = fused(cx, start, divisor, &mut |feed| match feed {
                Feed::Same(view) => {
                    let l = view.lattice();
                    crate::x86::Access::Strided { pixel: bytes(l.spatial[l.spatial.len() - 1]), block: 0 }
                }
                Feed::Channel { .. } => crate::x86::Access::Channel,
                Feed::Splat(_) => crate::x86::Access::Splat,
            });
            let mut leaves = vec![];
            for (pixels, count) in Parts::of(column.len, PIXELS).sizes() {
                let leaf = windows.leaf(&all, pixels, count, bias.is_some(), &fused.program, lanes);
                leaves.push(cx.low.leaf(&leaf).map_err(|e| leaf_diag(cx, &e))?);
            }
            columns.push((*column, leaves, fused));
        }
        classes.push((rows, columns));
    }

    let (images, blocks) = (windows.y.shape[0], windows.y.shape[1].div_ceil(lanes));
    let lines: usize = spatial[..spatial.len() - 1].iter().product();
    // Rows are shared out where there is one axis of them.
    let shared = if outer.len() == 1 { SHARES.div_ceil(images * blocks).min(lines) } else { 1 };
    let chunk = lines.div_ceil(shared);
    let chunks = lines.div_ceil(chunk);
    let points = windows.y.len() / (images * blocks * chunks);
    let work = windows.axes.iter().map(|a| a.kernel).product::<usize>() * points.max(1);
    let mut k = cx.kernel("");
    let p = k.parallel((images * chunks * blocks) as i64, work as i64);
    let at = unflatten(&mut k, p, &[images, chunks, blocks]);
    let from = k.param_for(windows.x.buf, Access::Read);
    let to = k.param_for(windows.y.buf, Access::Write);
    let weights = weights.map(|w| k.param_for(w, Access::Read));
    let bias = bias.map(|b| k.param_for(b, Access::Read));
    let chunk_first = k.let_(at[1].clone() * chunk as i64);
    let chunk_end = k.let_(chunk_first.clone() + chunk as i64);
    for (rows, columns) in &classes {
        let body = |k: &mut crate::lower::cx::KernelCx, row: &[Expr]| {
            for (column, leaves, fused) in columns {
                let mut pixel = column.first;
                for ((size, count), leaf) in Parts::of(column.len, PIXELS).sizes().into_iter().zip(leaves) {
                    let mut spatial = row.to_vec();
                    spatial.push(Expr::i64(pixel as i64));
                    pixel += size * count;
                    let all = rows.iter().chain([column]);
                    let source: Vec<Expr> = windows
                        .axes
                        .iter()
                        .zip(all)
                        .zip(&spatial)
                        .map(|((a, r), o)| {
                            let tap = (r.tap * a.dilation) as i64 - a.begin as i64;
                            o.clone() * a.stride as i64 + Expr::i64(tap)
                        })
                        .collect();
                    let place = Place { image: &at[0], block: at[2].clone(), spatial: &spatial, pixels: Expr::i64(0) };
                    let address = |buf, index| LeafArg::Address { buf, index };
                    let per_block = |buf: Option<u32>, n: usize| match buf {
                        Some(buf) => address(buf, at[2].clone() * n as i64),
                        None => LeafArg::Int(Expr::i64(0)),
                    };
                    let mut args = vec![
                        address(from, windows.xs.at(&at[0], at[2].clone(), &source)),
                        per_block(weights, taps * lanes),
                        address(to, place.position(&windows.ys)),
                        per_block(bias, lanes),
                        LeafArg::Int(Expr::i64(count as i64)),
                    ];
                    args.extend(addresses(k, &fused.feeds, None, lanes, &place));
                    k.leaf(*leaf, args);
                }
            }
        };
        if let [run] = &rows[..] {
            let first = chunk_first.clone().max(Expr::i64(run.first as i64));
            let end = chunk_end.clone().min(Expr::i64((run.first + run.len) as i64));
            k.for_(LoopKind::Serial, first, end, 1, |k, row| body(k, &[row]));
        } else {
            let lens: Vec<usize> = rows.iter().map(|r| r.len).collect();
            k.loops(&lens, |k, line| {
                let row: Vec<Expr> =
                    line.iter().zip(rows).map(|(i, r)| i.clone() + Expr::i64(r.first as i64)).collect();
                body(k, &row);
            });
        }
    }
    k.finish();
    Ok(())
}

/// Every choice of one run from each axis.
fn combinations(axes: &[Vec<Run>]) -> Vec<Vec<Run>> {
    axes.iter().fold(vec![vec![]], |sofar, runs| {
        sofar.iter().flat_map(|c| runs.iter().map(|r| [&c[..], &[*r]].concat())).collect()
    })
}

impl Windows {
    fn leaf(&self, runs: &[Run], pixels: usize, tiles: usize, bias: bool, program: &VProg, lanes: usize) -> LeafSpec {
        let n = runs.len();
        let axis = |d: usize| Reduce {
            trip: runs[d].taps as u32,
            stride: bytes(self.axes[d].dilation as i64 * self.xs.spatial[d]),
        };
        LeafSpec::Gemm(BatchReduceGemm {
            pixels: pixels as u32,
            blocks: 1,
            input: self.input,
            broadcast: Broadcast::PerFma,
            pixel_stride: bytes(self.axes[n - 1].stride as i64 * self.xs.spatial[n - 1]),
            reduce: (0..n).map(axis).collect(),
            init: if bias { Init::Bias } else { Init::Zero },
            epilogue: program.clone(),
            out_pixel_stride: bytes(lanes as i64),
            out_block_stride: 0,
            last_lanes: None,
            tiles: Tiles::Fixed(tiles as u32),
            prefetch: None,
        })
    }
}

/// The mean over all spatial axes, into a row-major result.
pub fn mean(cx: &mut NodeCx) -> Result<(), Diag> {
    let lanes = cx.low.isa().lanes();
    let x = cx.view(0).expect("the input is in a buffer");
    let y = cx.outputs[0].1.clone();
    let (xs, spatial) = (x.lattice(), x.shape[2..].to_vec());
    let count: usize = spatial.iter().product();
    let axis = |d: usize| Reduce { trip: spatial[d] as u32, stride: bytes(xs.spatial[d]) };
    let spec = LeafSpec::Gemm(BatchReduceGemm {
        pixels: 1,
        blocks: 1,
        input: Input::Sum,
        broadcast: Broadcast::PerFma,
        pixel_stride: 0,
        reduce: (0..spatial.len()).map(axis).collect(),
        init: Init::Zero,
        epilogue: VProg::build(|p, sum| {
            let n = p.constant(count as f32);
            p.div(sum, n)
        }),
        out_pixel_stride: 0,
        out_block_stride: 0,
        last_lanes: None,
        tiles: Tiles::Fixed(1),
        prefetch: None,
    });
    let leaf = cx.low.leaf(&spec).map_err(|e: LeafError| leaf_diag(cx, &e))?;
    let (images, blocks) = (x.shape[0], x.shape[1] / lanes);
    let mut k = cx.kernel("");
    let p = k.parallel((images * blocks) as i64, (count * lanes) as i64);
    let at = unflatten(&mut k, p.clone(), &[images, blocks]);
    let (from, to) = (k.param_for(x.buf, Access::Read), k.param_for(y.buf, Access::Write));
    let start = vec![Expr::i64(0); spatial.len()];
    let args = vec![
        LeafArg::Address { buf: from, index: xs.at(&at[0], at[1].clone(), &start) },
        LeafArg::Int(Expr::i64(0)),
        LeafArg::Address { buf: to, index: p * lanes as i64 },
        LeafArg::Int(Expr::i64(0)),
        LeafArg::Int(Expr::i64(1)),
    ];
    k.leaf(leaf, args);
    k.finish();
    Ok(())
}
