//! Normalisations by channel whose cells (of an instance or group normalisation, or a channel of a batch) are long, few, or lie in
//! several runs. Operand and result are row-major.
//!
//! ```text
//! parallel for a few cells            or, where cells are few, a kernel of its own for each of the three
//!     for run, part of it             leaf: mean, and sum of squared differences from it
//!     for cell                        mean and variance by those of the parts (Chan, Golub and LeVeque 1983), in f64
//!     for run, plane of it            leaf: epilogue((x - mean)*factor + bias)      factor = scale / sqrt(variance + eps)
//! ```
//!
//! Parts keep sums short and give threads work; they depend on the shape alone.

use super::operands::{Feed, Place, addresses};
use super::rows::{MAX_LEN, by_channel, epilogue, rest, statistics_passes};
use super::{MANY, SHARES, leaf_diag};
use crate::kernel::{Access as Use, Blocks, CmpOp, Expr, LeafArg, LoopKind, UnOp};
use crate::lower::cells::to;
use crate::lower::cx::{KernelCx, NodeCx};
use crate::lower::nest::unflatten;
use crate::lower::norm::keep_running;
use crate::lower::view::{Lattice, View};
use crate::x86::{Access, LeafSpec, MAX_OPERANDS, Map, RowResult, Rows, VProg};
use lehr_ir::{DType, Diag, Op};

/// A part has so many elements at most: it is read twice, the second time from the L1 cache.
const MAX_PART: usize = 1 << 12;
/// Cells of more elements do not stay there.
const MAX_IN_L1: usize = 1 << 13;
/// Planes so long are a call each.
const LONG_PLANE: usize = 1 << 10;
/// Shorter planes are plain loops', which are faster for a batch's up to some more.
const MIN_PLANE: usize = 24;
const MIN_PLANE_OF_BATCH: usize = 256;
/// Cells that are computed together have about so many elements at most, which stay in the L2 cache.
const MAX_TOGETHER: usize = 1 << 16;
/// Mean, factor and bias.
const PARAMETERS: usize = 3;

/// Where the elements of cells lie. A cell has so many runs, `run_stride` elements from one to the next, and the first of a cell follows
/// on that of the cell before; a run has so many planes, which are a channel each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    cells: usize,
    runs: usize,
    run_stride: usize,
    planes: usize,
    plane: usize,
    /// Cells whose channels are those of an image.
    groups: usize,
}

impl Geometry {
    /// `None` if plain loops, or rows leaves, are to do it: what has too few elements in a row.
    pub fn of(op: &Op, x: &[usize]) -> Option<Geometry> {
        let plane: usize = x.get(2..)?.iter().product();
        let whole = x[0] * x[1] * plane;
        let (g, least, always) = match op {
            Op::BatchNormTrain(_) => {
                let run_stride = x[1] * plane;
                let g = Geometry { cells: x[1], runs: x[0], run_stride, planes: 1, plane, groups: x[1] };
                (g, MIN_PLANE_OF_BATCH, true)
            }
            op => {
                let groups = by_channel(op, x)?;
                let planes = x[1] / groups;
                (Geometry { cells: x[0] * groups, runs: 1, run_stride: 0, planes, plane, groups }, MIN_PLANE, false)
            }
        };
        let too_long = g.run() > MAX_LEN || (g.run() > MAX_IN_L1 && plane >= LONG_PLANE);
        (whole > 0 && plane >= least && (always || g.are_few() || too_long)).then_some(g)
    }

    /// Elements of a run.
    fn run(&self) -> usize {
        self.planes * self.plane
    }

    /// Elements of a cell.
    fn cell(&self) -> usize {
        self.runs * self.run()
    }

    fn has_long_planes(&self) -> bool {
        self.plane >= LONG_PLANE
    }

    /// Cells that are computed together: those with a part in each run, which lie side by side.
    fn together(&self) -> usize {
        match self.parts() {
            (_, 1, 0) if self.planes == 1 => self.cells.div_ceil(SHARES).min(MAX_TOGETHER.div_ceil(self.cell())),
            _ => 1,
        }
    }

    /// Whether threads cannot share the elements out by cells.
    fn are_few(&self) -> bool {
        self.cells < SHARES / 2 && self.cells * self.cell() >= MANY
    }

    /// Elements of a part, and whole parts and elements that are left in a run.
    fn parts(&self) -> (usize, usize, usize) {
        let run = self.run();
        let part = match run.div_ceil(MAX_PART) {
            1 => run,
            n => run.div_ceil(n).next_multiple_of(64),
        };
        (part, run / part, run % part)
    }
}

pub fn lower(cx: &mut NodeCx) -> Result<(), Diag> {
    let op = cx.graph.node(cx.anchor_id()).op.clone();
    let x = cx.view(0).expect("the input is in a buffer");
    let geometry = Geometry::of(&op, &x.shape).expect("the layout pass has asked");
    let (eps, momentum) = match &op {
        Op::BatchNormTrain(b) => (b.eps, Some(b.momentum)),
        Op::GroupNorm(g) => (g.eps, None),
        Op::InstanceNorm(i) => (i.eps, None),
        other => unreachable!("{} has no statistics of channels", other.name()),
    };
    // A map has the parameters of one plane.
    let parameter = if geometry.has_long_planes() { Access::Splat } else { Access::Channel };
    let fused = epilogue(cx, MAX_OPERANDS - PARAMETERS, parameter);
    let own = VProg::build(|p, x| {
        let [mean, factor, bias] = [(); PARAMETERS].map(|()| p.operand(parameter));
        let d = p.sub(x, mean);
        p.fma(d, factor, bias)
    });
    let epilogue = fused.as_ref().map_or(VProg::identity(), |f| f.program.clone());
    let Geometry { cells, runs, planes, plane, .. } = geometry;
    let mut leaf = |spec: LeafSpec| cx.low.leaf(&spec).map_err(|e| leaf_diag(cx, &e));
    let apply = leaf(match geometry.has_long_planes() {
        true => LeafSpec::Map(Map { program: own.then(&epilogue), past_caches: false }),
        false => {
            let result = RowResult::Each { own, epilogue };
            LeafSpec::Rows(Rows { len: plane as u32, planes: Some(1), passes: vec![], result })
        }
    })?;
    let (part, whole, left) = geometry.parts();
    let mut part_of = |len: usize| {
        let passes = statistics_passes(len);
        leaf(LeafSpec::Rows(Rows { len: len as u32, planes: None, passes, result: RowResult::Values }))
    };
    let part_leaf = part_of(part)?;
    let left_leaf = if left > 0 { Some(part_of(left)?) } else { None };
    let each = whole + usize::from(left > 0);
    let y = match fused.is_some() {
        true => cx.outputs[0].1.clone(),
        false => cx.scratch_view(DType::F32, x.shape.clone()),
    };
    let s = Statistics {
        geometry,
        x,
        y,
        scale: cx.view(1).expect("scale is in a buffer"),
        bias: cx.view(2).expect("bias is in a buffer"),
        of_parts: cx.scratch_view(DType::F32, vec![runs, cells, each, 2]),
        mean: cx.scratch_view(DType::F32, vec![cells, planes]),
        factor: cx.scratch_view(DType::F32, vec![cells, planes]),
        part_leaf,
        left_leaf,
        apply,
        feeds: fused.as_ref().map_or(vec![], |f| f.feeds.clone()),
        eps,
        momentum,
    };
    if geometry.are_few() {
        s.in_kernels_of_their_own(cx)
    } else {
        s.in_one_kernel(cx)
    }
    if fused.is_none() {
        rest(cx, &s.y);
    }
    Ok(())
}

struct Statistics {
    geometry: Geometry,
    x: View,
    y: View,
    scale: View,
    bias: View,
    /// Mean and sum of squared differences: `[runs, cells, parts, 2]`.
    of_parts: View,
    /// `[cells, planes]`
    mean: View,
    factor: View,
    part_leaf: u32,
    left_leaf: Option<u32>,
    apply: u32,
    feeds: Vec<Feed>,
    eps: f32,
    /// If running statistics are wanted.
    momentum: Option<f32>,
}

impl Statistics {
    /// A kernel in which cells stay in the cache.
    fn in_one_kernel(&self, cx: &mut NodeCx) {
        let g = self.geometry;
        let chunk = g.together();
        let mut k = cx.kernel("");
        let p = k.parallel(g.cells.div_ceil(chunk) as i64, (chunk * g.cell() * 10) as i64);
        let first = k.let_(p * chunk as i64);
        let count = k.let_((Expr::i64(g.cells as i64) - first.clone()).min(Expr::i64(chunk as i64)));
        let (_, whole, _) = g.parts();
        let parts = if chunk > 1 { count.clone() } else { Expr::i64(whole as i64) };
        k.serial(g.runs, |k, run| {
            let run = k.let_(run);
            self.parts(k, &first, &run, Expr::i64(0), parts);
            self.left(k, &first, &run);
        });
        let each_cell = |k: &mut KernelCx, f: &dyn Fn(&mut KernelCx, Expr)| match chunk {
            1 => f(k, first.clone()),
            _ => k.for_(LoopKind::Serial, first.clone(), first.clone() + count.clone(), 1, |k, cell| f(k, cell)),
        };
        each_cell(&mut k, &|k, cell| self.cell(k, &cell));
        k.serial(g.runs, |k, run| {
            let run = k.let_(run);
            if !g.has_long_planes() {
                let planes = count.clone() * g.planes as i64;
                return self.planes(k, [&first, &run, &Expr::i64(0)], Expr::i64(0), planes);
            }
            each_cell(k, &|k, cell| {
                k.serial(g.planes, |k, plane| {
                    let plane = k.let_(plane);
                    self.planes(k, [&cell, &run, &plane], Expr::i64(0), Expr::i64(g.plane as i64));
                });
            });
        });
        k.finish();
    }

    /// Kernels that threads share out by parts of cells.
    fn in_kernels_of_their_own(&self, cx: &mut NodeCx) {
        let g = self.geometry;
        let (part, whole, _) = g.parts();
        let all_runs = g.cells * g.runs;
        let chunk = whole.div_ceil(SHARES.div_ceil(all_runs)).max(1);
        let chunks = whole.div_ceil(chunk);
        let mut k = cx.kernel("_parts");
        let p = k.parallel((all_runs * chunks) as i64, (chunk * part * 5) as i64);
        let at = unflatten(&mut k, p, &[g.cells, g.runs, chunks]);
        let first = k.let_(at[2].clone() * chunk as i64);
        let count = (Expr::i64(whole as i64) - first.clone()).min(Expr::i64(chunk as i64));
        self.parts(&mut k, &at[0], &at[1], first, count);
        let is_last = Expr::compare(CmpOp::Eq, at[2].clone(), Expr::i64(chunks as i64 - 1));
        match chunks {
            1 => self.left(&mut k, &at[0], &at[1]),
            _ => k.if_(is_last, |k| self.left(k, &at[0], &at[1])),
        }
        k.finish();
        let mut k = cx.kernel("_statistics");
        let cell = k.parallel(g.cells as i64, (g.runs * whole * 8 + g.planes * 4) as i64);
        self.cell(&mut k, &cell);
        k.finish();
        let mut k = cx.kernel("");
        if g.has_long_planes() {
            let planes = all_runs * g.planes;
            let piece = g.plane.div_ceil(SHARES.div_ceil(planes)).next_multiple_of(64);
            let pieces = g.plane.div_ceil(piece);
            let p = k.parallel((planes * pieces) as i64, (piece * 5) as i64);
            let at = unflatten(&mut k, p, &[g.cells, g.runs, g.planes, pieces]);
            let first = k.let_(at[3].clone() * piece as i64);
            let count = (Expr::i64(g.plane as i64) - first.clone()).min(Expr::i64(piece as i64));
            self.planes(&mut k, [&at[0], &at[1], &at[2]], first, count);
        } else {
            let chunk = g.planes.div_ceil(SHARES.div_ceil(all_runs));
            let chunks = g.planes.div_ceil(chunk);
            let p = k.parallel((all_runs * chunks) as i64, (chunk * g.plane * 5) as i64);
            let at = unflatten(&mut k, p, &[g.cells, g.runs, chunks]);
            let first = k.let_(at[2].clone() * chunk as i64);
            let count = (Expr::i64(g.planes as i64) - first.clone()).min(Expr::i64(chunk as i64));
            self.planes(&mut k, [&at[0], &at[1], &first], Expr::i64(0), count);
        }
        k.finish();
    }

    /// The run's first element.
    fn run_start(&self, cell: &Expr, run: &Expr) -> Expr {
        cell.clone() * self.geometry.run() as i64 + run.clone() * self.geometry.run_stride as i64
    }

    /// Statistics of whole parts of a run.
    fn parts(&self, k: &mut KernelCx, cell: &Expr, run: &Expr, first: Expr, count: Expr) {
        let (part, ..) = self.geometry.parts();
        self.part(k, self.part_leaf, [cell, run, &first], first.clone() * part as i64, count);
    }

    /// Of what is left of a run behind them, if anything is.
    fn left(&self, k: &mut KernelCx, cell: &Expr, run: &Expr) {
        let (part, whole, _) = self.geometry.parts();
        if let Some(leaf) = self.left_leaf {
            let behind = Expr::i64((part * whole) as i64);
            self.part(k, leaf, [cell, run, &Expr::i64(whole as i64)], behind, Expr::i64(1));
        }
    }

    fn part(&self, k: &mut KernelCx, leaf: u32, [cell, run, number]: [&Expr; 3], offset: Expr, count: Expr) {
        let from = k.param_for(self.x.dense_buffer(), Use::Read);
        let to = k.param_for(self.of_parts.buf, Use::Write);
        let target = self.of_parts.index(&[run.clone(), cell.clone(), number.clone(), Expr::i64(0)]);
        let address = |buf, index| LeafArg::Address { buf, index };
        let start = self.run_start(cell, run) + offset;
        k.leaf(leaf, vec![address(from, start), address(to, target), LeafArg::Int(count)]);
    }

    /// From the parts' statistics to the cell's, and to its channels' factors.
    fn cell(&self, k: &mut KernelCx, cell: &Expr) {
        let g = self.geometry;
        let double = |v: f64| Expr::number(DType::F64, v);
        let sum = k.mutable(double(0.0));
        self.each_part(k, cell, |k, [mean, _], n| {
            k.set(sum, Expr::Var(sum) + mean * double(n));
        });
        let mean = k.let_(Expr::Var(sum) / double(g.cell() as f64));
        let squares = k.mutable(double(0.0));
        self.each_part(k, cell, |k, [of_part, about_it], n| {
            let d = k.let_(of_part - mean.clone());
            k.set(squares, Expr::Var(squares) + about_it + d.clone() * d * double(n));
        });
        let var = k.let_(Expr::Var(squares) / double(g.cell() as f64));
        let root = Expr::unary(UnOp::Sqrt, var.clone() + double(f64::from(self.eps)));
        let inverse = k.let_(double(1.0) / root);
        if let Some(momentum) = self.momentum {
            keep_running(k, std::slice::from_ref(cell), momentum, [&mean, &var]);
        }
        let mean = to(k, DType::F32, mean);
        let mean = k.let_(mean);
        k.serial(g.planes, |k, plane| {
            let plane = k.let_(plane);
            let channel = self.channel(cell, &plane);
            let scale = k.load_view(&self.scale, &[channel]);
            let scale = to(k, DType::F64, scale);
            let factor = to(k, DType::F32, scale * inverse);
            let at = [cell.clone(), plane];
            k.store_view(&self.factor, &at, factor);
            k.store_view(&self.mean, &at, mean.clone());
        });
    }

    /// `f` for every part of a cell: mean, sum of squared differences from it, number of elements.
    fn each_part(&self, k: &mut KernelCx, cell: &Expr, f: impl Fn(&mut KernelCx, [Expr; 2], f64)) {
        let (part, whole, left) = self.geometry.parts();
        k.serial(self.geometry.runs, |k, run| {
            let run = k.let_(run);
            let values = |k: &mut KernelCx, number: Expr| {
                [0, 1].map(|i| {
                    let value = k.load_view(&self.of_parts, &[run.clone(), cell.clone(), number.clone(), Expr::i64(i)]);
                    let value = to(k, DType::F64, value);
                    k.let_(value)
                })
            };
            k.serial(whole, |k, number| {
                let number = k.let_(number);
                let values = values(k, number);
                f(k, values, part as f64);
            });
            if left > 0 {
                let values = values(k, Expr::i64(whole as i64));
                f(k, values, left as f64);
            }
        });
    }

    fn channel(&self, cell: &Expr, plane: &Expr) -> Expr {
        let g = self.geometry;
        let group = if g.groups == g.cells { cell.clone() } else { cell.clone() % g.groups as i64 };
        group * g.planes as i64 + plane.clone()
    }

    /// The result in so many elements of a long plane, or in so many others from this plane on.
    fn planes(&self, k: &mut KernelCx, [cell, run, plane]: [&Expr; 3], first: Expr, count: Expr) {
        let g = self.geometry;
        let channel = k.let_(self.channel(cell, plane));
        let position = k.let_(self.run_start(cell, run) + plane.clone() * g.plane as i64 + first);
        let from = k.param_for(self.x.dense_buffer(), Use::Read);
        let to = k.param_for(self.y.dense_buffer(), Use::Write);
        let address = |buf, index| LeafArg::Address { buf, index };
        let mut args = vec![address(from, position.clone()), address(to, position.clone()), LeafArg::Int(count)];
        let of_plane = k.let_(cell.clone() * g.planes as i64 + plane.clone());
        for (view, index) in [(&self.mean, &of_plane), (&self.factor, &of_plane), (&self.bias, &channel)] {
            let buf = k.param_for(view.dense_buffer(), Use::Read);
            args.push(address(buf, index.clone()));
        }
        let image = if g.groups == g.cells { run.clone() } else { cell.clone() / g.groups as i64 };
        let lattice = Lattice { origin: 0, image: 0, channel: 0, spatial: vec![1] };
        let place = Place { image: &image, block: channel, spatial: &[position], pixels: Expr::i64(0) };
        args.extend(addresses(k, &self.feeds, Some(&lattice), 1, &place));
        k.leaf(self.apply, args);
    }
}
