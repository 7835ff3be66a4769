//! Pools and depthwise convolutions on blocks: windows over whole vectors of channels.
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
use super::{Parts, SHARES, bytes, leaf_diag};
use crate::kernel::{Access, Blocks, Expr, LeafArg, LoopKind, Param};
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::view::{Lattice, View};
use crate::program::BufferId;
use crate::x86::{
    BatchReduceGemm, Broadcast, Init, Input, LeafError, LeafSpec, Prefetch, Reduce, Tiles, VProg,
    pack_depthwise_weights,
};
use lehr_ir::{DType, Diag, Op};

/// Pixels of a tile: an accumulator each, beside two registers more.
const PIXELS: usize = 12;
/// Classes of rows and columns together, at most: each has leaves of its own. A 7x7 pool with all padding has 49.
pub const MAX_CLASSES: usize = 64;

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
    include_pad: bool,
    lanes: usize,
    /// Of a depthwise convolution.
    weights: Option<BufferId>,
    bias: Option<BufferId>,
}

/// Rows whose windows are cut alike.
struct Class {
    rows: Vec<Run>,
    columns: Vec<Column>,
}

struct Column {
    run: Run,
    /// One for each size of tile.
    leaves: Vec<u32>,
    fused: Fused,
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let windows = Windows::new(cx);
    let classes = windows.classes(cx).map_err(|e| leaf_diag(cx, &e))?;
    windows.emit(cx, &classes);
    Ok(())
}

/// Every choice of one run from each axis.
fn combinations(axes: &[Vec<Run>]) -> Vec<Vec<Run>> {
    axes.iter().fold(vec![vec![]], |sofar, runs| {
        sofar.iter().flat_map(|c| runs.iter().map(|r| [&c[..], &[*r]].concat())).collect()
    })
}

impl Windows {
    fn new(cx: &mut NodeCx) -> Windows {
        let op = cx.graph.node(cx.anchor_id()).op.clone();
        let lanes = cx.low.isa().lanes();
        let x = cx.view(0).expect("the input is in a buffer");
        let y = cx.outputs[0].1.clone();
        let (input, include_pad) = match &op {
            Op::MaxPool(_) => (Input::Max, false),
            Op::AvgPool(p) => (Input::Sum, p.count_include_pad),
            _ => (Input::Lanes, false),
        };
        let w = if input == Input::Lanes { cx.constant(1) } else { None };
        let kernel = w.as_ref().map(|w| w.shape()[2..].to_vec());
        let axes = axes(&op, &x.shape[2..], kernel.as_deref()).expect("the role says so");
        let whole = |a: &Axis, n: usize| {
            let taps = a.kernel;
            vec![Run { first: 0, len: n, tap: 0, taps, with_pads: taps }]
        };
        let own_runs = |(a, &n)| if kernel.is_some() { whole(a, n) } else { runs(*a, n) };
        let runs = axes.iter().zip(&y.shape[2..]).map(own_runs).collect();
        let weights = w.map(|w| {
            let taps = w.shape()[2..].iter().product();
            let values = y.spread(w.to_f32(), taps, 0.0);
            let packed = pack_depthwise_weights(&values, values.len() / taps, 1, taps, lanes);
            cx.low.add_weights(DType::F32, packed.len() / 4, packed.into())
        });
        let bias = if weights.is_some() { cx.constant(2) } else { None };
        let bias = bias.map(|b| channel_table(cx, &y.spread(b.to_f32(), 1, 0.0), lanes, 0.0));
        let (xs, ys) = (x.lattice(), y.lattice());
        Windows { x, y, xs, ys, axes, runs, input, include_pad, lanes, weights, bias }
    }

    /// Every class with its leaves.
    fn classes(&self, cx: &mut NodeCx) -> Result<Vec<Class>, LeafError> {
        let start = cx.anchor_id().out(0);
        let (inner, outer) = self.runs.split_last().expect("there is a spatial axis");
        let mut classes = vec![];
        for rows in combinations(outer) {
            let mut columns = vec![];
            for &run in inner {
                let all: Vec<Run> = rows.iter().chain([&run]).copied().collect();
                let count = |r: &Run| if self.include_pad { r.with_pads } else { r.taps };
                let divisor: usize = all.iter().map(count).product();
                let divisor = (self.input == Input::Sum).then_some(divisor as f32);
                let fused = fused(cx, start, divisor, &mut |feed| match feed {
                    Feed::Same(view) => {
                        let l = view.lattice();
                        crate::x86::Access::Strided { pixel: bytes(l.spatial[l.spatial.len() - 1]), block: 0 }
                    }
                    Feed::Channel { .. } => crate::x86::Access::Channel,
                    Feed::Splat(_) => crate::x86::Access::Splat,
                });
                let mut leaves = vec![];
                for (pixels, count) in Parts::of(run.len, PIXELS).sizes() {
                    leaves.push(cx.low.leaf(&self.leaf(&all, pixels, count, &fused.program))?);
                }
                columns.push(Column { run, leaves, fused });
            }
            classes.push(Class { rows, columns });
        }
        Ok(classes)
    }

    fn leaf(&self, runs: &[Run], pixels: usize, tiles: usize, program: &VProg) -> LeafSpec {
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
            init: if self.bias.is_some() { Init::Bias } else { Init::Zero },
            epilogue: program.clone(),
            out_pixel_stride: bytes(self.lanes as i64),
            out_block_stride: 0,
            last_lanes: None,
            tiles: Tiles::Fixed(tiles as u32),
            prefetch: Prefetch::None,
        })
    }

    fn emit(&self, cx: &mut NodeCx, classes: &[Class]) {
        let (images, blocks) = (self.y.shape[0], self.y.order().expect("the result is in blocks").blocks());
        let outer = &self.y.shape[2..self.y.shape.len() - 1];
        let lines: usize = outer.iter().product();
        // Rows are shared out where there is one axis of them.
        let shared = if outer.len() == 1 { SHARES.div_ceil(images * blocks).min(lines) } else { 1 };
        let chunk = lines.div_ceil(shared);
        let chunks = lines.div_ceil(chunk);
        let taps: usize = self.axes.iter().map(|a| a.kernel).product();
        let points = (self.y.len() / (images * blocks * chunks)).max(1);
        let mut k = cx.kernel("");
        let p = k.parallel((images * chunks * blocks) as i64, (taps * points) as i64);
        let at = unflatten(&mut k, p, &[images, chunks, blocks]);
        let calls = Calls {
            windows: self,
            image: at[0].clone(),
            block: at[2].clone(),
            from: k.param_for(self.x.buf, Access::Read),
            to: k.param_for(self.y.buf, Access::Write),
            weights: self.weights.map(|w| k.param_for(w, Access::Read)),
            bias: self.bias.map(|b| k.param_for(b, Access::Read)),
        };
        let chunk_first = k.let_(at[1].clone() * chunk as i64);
        let chunk_end = k.let_(chunk_first.clone() + chunk as i64);
        for class in classes {
            if let [run] = &class.rows[..] {
                let first = chunk_first.clone().max(Expr::i64(run.first as i64));
                let end = chunk_end.clone().min(Expr::i64((run.first + run.len) as i64));
                k.for_(LoopKind::Serial, first, end, 1, |k, row| calls.row(k, class, &[row]));
                continue;
            }
            let lens: Vec<usize> = class.rows.iter().map(|r| r.len).collect();
            k.loops(&lens, |k, line| {
                let shifted = line.iter().zip(&class.rows).map(|(i, r)| i.clone() + r.first as i64);
                calls.row(k, class, &shifted.collect::<Vec<_>>());
            });
        }
        k.finish();
    }
}

/// Leaf calls of a kernel.
struct Calls<'w> {
    windows: &'w Windows,
    image: Expr,
    block: Expr,
    from: Param,
    to: Param,
    weights: Option<Param>,
    bias: Option<Param>,
}

impl Calls<'_> {
    fn row(&self, k: &mut KernelCx, class: &Class, row: &[Expr]) {
        for column in &class.columns {
            let all: Vec<Run> = class.rows.iter().chain([&column.run]).copied().collect();
            let mut pixel = column.run.first;
            for ((size, count), leaf) in Parts::of(column.run.len, PIXELS).sizes().into_iter().zip(&column.leaves) {
                let place: Vec<Expr> = row.iter().cloned().chain([Expr::i64(pixel as i64)]).collect();
                self.leaf(k, *leaf, &all, &place, &column.fused);
                pixel += size * count;
            }
        }
    }

    fn leaf(&self, k: &mut KernelCx, leaf: u32, runs: &[Run], spatial: &[Expr], fused: &Fused) {
        let w = self.windows;
        let first_tap = |((a, r), o): ((&Axis, &Run), &Expr)| {
            o.clone() * a.stride as i64 + ((r.tap * a.dilation) as i64 - a.begin as i64)
        };
        let source: Vec<Expr> = w.axes.iter().zip(runs).zip(spatial).map(first_tap).collect();
        let place = Place { image: &self.image, block: self.block.clone(), spatial, pixels: Expr::i64(0) };
        let address = |buf, index| LeafArg::Address { buf, index };
        let per_block = |buf: Option<Param>, n: usize| match buf {
            Some(buf) => address(buf, self.block.clone() * n as i64),
            None => LeafArg::Int(Expr::i64(0)),
        };
        let taps: usize = w.axes.iter().map(|a| a.kernel).product();
        let mut args = vec![
            address(self.from, w.xs.at(&self.image, self.block.clone(), &source)),
            per_block(self.weights, taps * w.lanes),
            address(self.to, place.position(&w.ys)),
            per_block(self.bias, w.lanes),
            // The number of tiles is the leaf's own.
            LeafArg::Int(Expr::i64(0)),
        ];
        args.extend(addresses(k, &fused.feeds, None, w.lanes, &place));
        k.leaf(leaf, args);
    }
}
