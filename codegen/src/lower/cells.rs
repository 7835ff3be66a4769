//! Kernels that walk some axes of a tensor for each index of the others: reductions, normalisations, softmax.
//!
//! ```text
//! the contiguous axis is walked                 it is not
//! parallel cell: fold(vector), each(vector)     parallel outer: vector cell: fold(serial), each(serial)
//! ```

use super::cx::{KernelCx, NodeCx};
use crate::kernel::{BinOp, Blocks, Expr, LoopKind};
use lehr_ir::DType;

/// Sums of floats longer than this are made of partial sums, so that rounding errors do not grow with the length.
const PARTIAL: usize = 512;

/// Below so many cells, a GPU has threads to spare for each of more than so many elements.
const FEW_CELLS: usize = 1 << 12;
const LONG_CELL: i64 = 32;

/// One index of the axes that are not walked.
pub struct Cell<'d> {
    dims: &'d [usize],
    axes: &'d [usize],
    kind: LoopKind,
    /// As many as there are axes; 0 on those that are walked.
    pub at: Vec<Expr>,
}

/// `shape` with the axes from `from` on walked as one: their number of elements stands at the last of them that is not 1, whose
/// stride it has, and 1 at the others. Right for operands and results that lie dense.
pub fn flattened(shape: &[usize], from: usize) -> Vec<usize> {
    let mut dims = shape.to_vec();
    if let Some(last) = (from..shape.len()).rfind(|&d| shape[d] != 1) {
        dims[from..].fill(1);
        dims[last] = shape[from..].iter().product();
    }
    dims
}

/// The shape of operand 0 with the axes from `from` on walked as one, where it, the results and what is fused behind take them so.
pub fn walked_shape(cx: &mut NodeCx, from: usize) -> Vec<usize> {
    let shape = cx.in_shape(0);
    let behind = match cx.out_view(0) {
        Some(view) => view.is_dense(),
        None => !cx.used(0) || cx.is_flat_behind(from),
    };
    if cx.is_flat(0) && behind { flattened(&shape, from) } else { shape }
}

/// Runs `body` once per cell; `cost` is the work for one element in operations. Call it once per kernel.
pub fn cells(k: &mut KernelCx, dims: &[usize], axes: &[usize], cost: i64, body: impl FnOnce(&mut KernelCx, &Cell)) {
    let contiguous = (0..dims.len()).rfind(|&d| dims[d] != 1).is_none_or(|d| axes.contains(&d));
    let kept: Vec<usize> = (0..dims.len()).filter(|d| !axes.contains(d) && dims[*d] != 1).collect();
    let mut sizes: Vec<usize> = kept.iter().map(|&d| dims[d]).collect();
    let walked: i64 = axes.iter().map(|&d| dims[d] as i64).product();
    // A GPU with few cells walks each with many threads, wherever the elements lie.
    let few = k.cx.low.gpu.is_some() && sizes.iter().product::<usize>() < FEW_CELLS && walked >= LONG_CELL;
    let contiguous = contiguous || few;
    let (outer, kind) =
        if contiguous { (LoopKind::Serial, LoopKind::Vector) } else { (LoopKind::Vector, LoopKind::Serial) };
    if contiguous {
        // All cells are parallel iterations then, and none is a loop's.
        sizes.push(1);
    }
    k.nest(&sizes, walked.saturating_mul(cost).saturating_add(1), outer, |k, c| {
        let mut at = vec![Expr::i64(0); dims.len()];
        kept.iter().zip(c).for_each(|(&d, c)| at[d] = c.clone());
        body(k, &Cell { dims, axes, kind, at });
    });
}

impl Cell<'_> {
    /// `init op f(c) op f(c') ...` over the cell's coordinates, in an order that the code fixes. `init` is neutral.
    pub fn fold(
        &self,
        k: &mut KernelCx,
        op: BinOp,
        init: Expr,
        f: impl FnOnce(&mut KernelCx, &[Expr]) -> Expr,
    ) -> Expr {
        let acc = k.mutable(init.clone());
        let add = |k: &mut KernelCx, to: u32, e: Expr| {
            k.set(to, Expr::binary(op, Expr::Var(to), e));
        };
        // The threads of a GPU have partial sums of their own.
        let sums = if k.cx.low.gpu.is_some() { 32 * PARTIAL } else { PARTIAL };
        let count: usize = self.axes.iter().map(|&d| self.dims[d]).product();
        if count <= sums || op != BinOp::Add || !k.type_of(&init).is_float() {
            self.each(k, |k, c| {
                let e = f(k, c);
                add(k, acc, e);
            });
            return Expr::Var(acc);
        }
        self.outer(k, |k, at, axis| {
            let Some(axis) = axis else {
                let e = f(k, at);
                return add(k, acc, e);
            };
            let n = self.dims[axis];
            k.serial(n.div_ceil(sums), |k, block| {
                let first = k.let_(block * sums as i64);
                let n = Expr::i64(n as i64);
                let end = if first.as_i64().is_some() { n } else { (first.clone() + sums as i64).min(n) };
                let partial = k.mutable(init);
                k.for_(self.kind, first, end, 1, |k, i| {
                    let e = f(k, &with(at, axis, i));
                    add(k, partial, e);
                });
                add(k, acc, Expr::Var(partial));
            });
        });
        Expr::Var(acc)
    }

    /// Runs `f` at every coordinate of the cell; `f` must keep [`LoopKind::Vector`]'s promise.
    pub fn each(&self, k: &mut KernelCx, f: impl FnOnce(&mut KernelCx, &[Expr])) {
        self.walk(k, self.kind, f);
    }

    /// Runs `f` at every coordinate of the cell, one after the other.
    pub fn in_order(&self, k: &mut KernelCx, f: impl FnOnce(&mut KernelCx, &[Expr])) {
        self.walk(k, LoopKind::Serial, f);
    }

    fn walk(&self, k: &mut KernelCx, kind: LoopKind, f: impl FnOnce(&mut KernelCx, &[Expr])) {
        self.outer(k, |k, at, axis| match axis {
            None => f(k, at),
            Some(axis) => {
                let n = Expr::i64(self.dims[axis] as i64);
                k.for_(kind, Expr::i64(0), n, 1, |k, i| f(k, &with(at, axis, i)));
            }
        });
    }

    /// Loops over all walked axes but the last, which `f` is given; axes of size 1 need no loop.
    fn outer(&self, k: &mut KernelCx, f: impl FnOnce(&mut KernelCx, &[Expr], Option<usize>)) {
        let axes: Vec<usize> = self.axes.iter().copied().filter(|&d| self.dims[d] != 1).collect();
        let Some((&last, outer)) = axes.split_last() else {
            return f(k, &self.at, None);
        };
        let sizes: Vec<usize> = outer.iter().map(|&d| self.dims[d]).collect();
        k.loops(&sizes, |k, c| {
            let mut at = self.at.clone();
            outer.iter().zip(c).for_each(|(&d, c)| at[d] = c.clone());
            f(k, &at, Some(last));
        });
    }
}

fn with(at: &[Expr], axis: usize, i: Expr) -> Vec<Expr> {
    let mut at = at.to_vec();
    at[axis] = i;
    at
}

/// `e` in the computing type `t`.
pub fn to(k: &KernelCx, t: DType, e: Expr) -> Expr {
    if k.type_of(&e) == t { e } else { Expr::cast(t, e) }
}
