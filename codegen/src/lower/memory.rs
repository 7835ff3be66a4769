//! Operands in memory: what an anchor reads many times is computed once, and what windows read beyond its ends is
//! written out as a border, so that inner loops need no conditions.

use super::cx::{KernelCx, NodeCx};
use super::view::View;
use crate::kernel::{Access, BinOp, Blocks, CmpOp, Expr, LoopKind};
use lehr_ir::types::MAX_ELEMENTS;
use lehr_ir::{DType, Diag};

impl KernelCx<'_, '_> {
    /// Stores into a buffer that is not a result: scratch, or a result that is built up in several steps.
    pub fn store_view(&mut self, view: &View, coords: &[Expr], value: Expr) {
        let p = self.param_for(view.buf, Access::Write);
        let index = view.index(coords);
        self.builder().store(p, index, value);
    }

    /// `for i in from..to`, vectorised; nothing when it is empty.
    pub fn span(&mut self, from: usize, to: usize, body: impl FnOnce(&mut Self, Expr)) {
        if from < to {
            self.for_(LoopKind::Vector, Expr::i64(from as i64), Expr::i64(to as i64), 1, body);
        }
    }

    /// Loops over `dims`, the last one vectorised.
    pub fn vector_loops(&mut self, dims: &[usize], body: impl FnOnce(&mut Self, &[Expr])) {
        let Some((&last, outer)) = dims.split_last() else { return body(self, &[]) };
        self.loops(outer, |k, at| {
            k.vector(last, |k, i| {
                let coords: Vec<Expr> = at.iter().cloned().chain([i]).collect();
                body(k, &coords);
            });
        });
    }
}

impl NodeCx<'_> {
    pub fn scratch_view(&mut self, dtype: DType, shape: Vec<usize>) -> View {
        let buf = self.scratch(dtype, shape.iter().product());
        View::dense(buf, dtype, shape)
    }

    /// Operand `i` as a buffer: itself, or, where it is computed by what is fused before, a copy.
    pub fn materialized(&mut self, i: usize) -> View {
        if let Some(view) = self.view(i) {
            return view;
        }
        let shape = self.in_shape(i);
        let view = self.scratch_view(self.in_dtype(i), shape.clone());
        if view.is_empty() {
            return view;
        }
        let mut k = self.kernel("_operand");
        k.nest(&shape, 4, LoopKind::Vector, |k, at| {
            let x = k.load(i, at);
            k.store_view(&view, at, x);
        });
        k.finish();
        view
    }
}

/// One spatial axis of a windowed operator: window `o` covers positions `o*stride + k*dilation - begin`.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub begin: usize,
    pub dilation: usize,
    pub out: usize,
}

impl Axis {
    /// Elements from the first that a window covers to the last.
    fn reach(&self) -> usize {
        (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }

    pub fn has_border(&self) -> bool {
        self.begin > 0 || self.reach() > self.size
    }

    /// Size with its border: as far as windows reach.
    fn width(&self) -> usize {
        if self.has_border() { self.reach() } else { self.size }
    }

    /// The part of the width that holds the operand.
    fn inside(&self) -> (usize, usize) {
        let from = self.begin.min(self.width());
        (from, from + self.size.min(self.width() - from))
    }

    /// Position in the bordered operand of tap `k` of window `o`.
    pub fn at(&self, o: &Expr, k: &Expr) -> Expr {
        o.clone() * self.stride as i64 + k.clone() * self.dilation as i64
    }
}

/// Axes longer than this, borders included, are no images: their tables and borders would fill the memory.
const LONGEST_AXIS: usize = 1 << 28;

/// Refuses windows whose borders or tables are absurdly large.
pub fn check_axes(cx: &NodeCx, axes: &[Axis]) -> Result<(), Diag> {
    let mut elements: Option<usize> = cx.in_shape(0)[..2].iter().try_fold(1, |n: usize, &d| n.checked_mul(d));
    for axis in axes {
        let width = if axis.width() <= LONGEST_AXIS && axis.out <= LONGEST_AXIS { Some(axis.width()) } else { None };
        elements = elements.zip(width).and_then(|(n, w)| n.checked_mul(w));
    }
    match elements.filter(|&n| n as u128 <= MAX_ELEMENTS as u128) {
        Some(_) => Ok(()),
        None => Err(cx
            .diag("lower.too-large", "with its padding, the operand is too large to lay out")
            .note("check pads, kernel and dilations")),
    }
}

/// Operand 0, N C spatial..., as windows read it.
pub struct Windows<'a> {
    view: View,
    axes: &'a [Axis],
    /// What is outside; `None` if the view has it as a border.
    outside: Option<Expr>,
}

impl<'a> Windows<'a> {
    /// A CPU reads a copy with borders; a GPU, which has arithmetic to spare and no memory, looks where it reads.
    pub fn new(cx: &mut NodeCx, axes: &'a [Axis], fill: Expr) -> Windows<'a> {
        if cx.low.gpu.is_some() && !cx.in_shape(0).contains(&0) {
            return Windows { view: cx.materialized(0), axes, outside: Some(fill) };
        }
        Windows { view: bordered(cx, axes, fill), axes, outside: None }
    }

    /// Windows that never reach outside of a view.
    pub fn inside(view: View, axes: &'a [Axis]) -> Windows<'a> {
        Windows { view, axes, outside: None }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// The element under tap `tap` of window `at` (N C spatial...).
    pub fn load(&self, k: &mut KernelCx, at: &[Expr], tap: &[Expr]) -> Expr {
        let mut coords = at[..2].to_vec();
        let Some(fill) = &self.outside else {
            coords.extend(self.axes.iter().enumerate().map(|(a, axis)| axis.at(&at[2 + a], &tap[a])));
            return k.load_view(&self.view, &coords);
        };
        let mut inside: Option<Expr> = None;
        for (a, axis) in self.axes.iter().enumerate() {
            let place = axis.at(&at[2 + a], &tap[a]) - axis.begin as i64;
            if !axis.has_border() {
                coords.push(place);
                continue;
            }
            let place = k.let_(place);
            let within = super::conv::in_range(&place, axis.size);
            inside = Some(inside.map_or(within.clone(), |e| e & within));
            // An element that is there is read instead of one that is not.
            coords.push(k.let_(place.max(Expr::i64(0)).min(Expr::i64(axis.size as i64 - 1))));
        }
        let value = k.load_view(&self.view, &coords);
        match inside {
            Some(inside) => Expr::select(inside, value, fill.clone()),
            None => value,
        }
    }
}

/// Operand 0, N C spatial..., with `fill` wherever a window reaches outside of it; index it by [`Axis::at`].
fn bordered(cx: &mut NodeCx, axes: &[Axis], fill: Expr) -> View {
    if !axes.iter().any(Axis::has_border) {
        return cx.materialized(0);
    }
    let (last, outer) = axes.split_last().expect("windows have a spatial axis");
    let mut shape = cx.in_shape(0)[..2].to_vec();
    shape.extend(axes.iter().map(Axis::width));
    let view = cx.scratch_view(cx.in_dtype(0), shape.clone());
    let width = last.width();
    let (from, to) = last.inside();
    // One point of the nest is a row.
    *shape.last_mut().expect("windows have a spatial axis") = 1;
    let mut k = cx.kernel("_border");
    k.nest(&shape, width as i64, LoopKind::Serial, |k, at| {
        let row = at[..at.len() - 1].to_vec();
        let at_column = |i: Expr| -> Vec<Expr> { row.iter().cloned().chain([i]).collect() };
        let blank =
            |k: &mut KernelCx, from, to| k.span(from, to, |k, i| k.store_view(&view, &at_column(i), fill.clone()));
        let copy = |k: &mut KernelCx| {
            k.span(from, to, |k, i| {
                let source = row[2..].iter().zip(outer).map(|(p, a)| p.clone() - a.inside().0 as i64);
                let mut coords: Vec<Expr> = row[..2].iter().cloned().chain(source).collect();
                coords.push(i.clone() - from as i64);
                let x = k.load(0, &coords);
                k.store_view(&view, &at_column(i), x);
            });
        };
        blank(k, 0, from);
        blank(k, to, width);
        let mut within: Option<Expr> = None;
        for (p, axis) in row[2..].iter().zip(outer).filter(|(_, a)| a.inside() != (0, a.width())) {
            let (from, to) = axis.inside();
            let after = Expr::compare(CmpOp::Ge, p.clone(), Expr::i64(from as i64));
            let before = Expr::compare(CmpOp::Lt, p.clone(), Expr::i64(to as i64));
            let both = Expr::binary(BinOp::And, after, before);
            within = Some(within.map_or(both.clone(), |w| Expr::binary(BinOp::And, w, both)));
        }
        match within {
            Some(within) => k.if_else(within, copy, |k| blank(k, from, to)),
            None => copy(k),
        }
    });
    k.finish();
    view
}
