//! Matrix products by plain loops, for every type and shape; wide machine-code kernels take over where they can.

use super::cx::{KernelCx, NodeCx};
use super::tiled::{self, Size, Weights, coordinates};
use super::view::View;
use crate::kernel::{Blocks, Expr, LoopKind, Var, computing_type};
use crate::ptx::Gpu;
use lehr_ir::ops::{Einsum, Gemm, MatMul};
use lehr_ir::{DType, Diag};

/// Fewer rows than this are no tile.
const FEW_ROWS: usize = 4;

/// One matrix of a batch: where element (i, j) of it is.
struct Matrix<'a> {
    view: &'a View,
    /// Coordinates before the last two.
    batch: Vec<Expr>,
    transposed: bool,
}

impl Matrix<'_> {
    fn load(&self, k: &mut KernelCx, i: Expr, j: Expr) -> Expr {
        let (i, j) = if self.transposed { (j, i) } else { (i, j) };
        let coords: Vec<Expr> = self.batch.iter().cloned().chain([i, j]).collect();
        k.load_view(self.view, &coords)
    }
}

/// The largest of 4, 2 and 1 that divides `n`.
fn block_of(n: usize) -> usize {
    [4, 2].into_iter().find(|b| n.is_multiple_of(*b)).unwrap_or(1)
}

/// How a product of [m, inner] and [inner, n] is cut.
enum Cut {
    /// Rows in blocks, the result's columns vectorised: the right operand's rows are contiguous.
    Columns { block: usize },
    /// Columns in blocks, the inner axis vectorised: the right operand's columns are contiguous.
    Inner { block: usize },
}

impl Cut {
    fn of(cx: &NodeCx, m: usize, n: usize, right_transposed: bool) -> Cut {
        match right_transposed || n == 1 {
            // Threads are what a GPU has enough of.
            _ if cx.low.gpu.is_some() && !(right_transposed || n == 1) => Cut::Columns { block: 1 },
            _ if cx.low.gpu.is_some() => Cut::Inner { block: 1 },
            true => Cut::Inner { block: block_of(n) },
            false => Cut::Columns { block: block_of(m) },
        }
    }

    /// The two last dimensions of the nest.
    fn dims(&self, m: usize, n: usize) -> [usize; 2] {
        match self {
            Cut::Columns { block } => [m / block, n],
            Cut::Inner { block } => [m, n / block],
        }
    }

    fn kind(&self) -> LoopKind {
        match self {
            Cut::Columns { .. } => LoopKind::Vector,
            Cut::Inner { .. } => LoopKind::Serial,
        }
    }

    fn cost(&self, inner: usize) -> i64 {
        let (Cut::Columns { block } | Cut::Inner { block }) = self;
        (2 * block * inner.max(1)) as i64
    }

    /// The elements of the result at a point of the nest: coordinates and sums.
    fn product(
        &self,
        k: &mut KernelCx,
        a: &Matrix,
        b: &Matrix,
        inner: usize,
        t: DType,
        at: [&Expr; 2],
    ) -> Vec<(Expr, Expr, Var)> {
        let zero = |k: &mut KernelCx| k.mutable(Expr::number(t, 0.0));
        match self {
            Cut::Columns { block } => {
                let first = k.let_(at[0].clone() * *block as i64);
                let sums: Vec<Var> = (0..*block).map(|_| zero(k)).collect();
                k.serial(inner, |k, p| {
                    let right = b.load(k, p.clone(), at[1].clone());
                    let right = k.let_(right);
                    for (r, &sum) in sums.iter().enumerate() {
                        let left = a.load(k, first.clone() + r as i64, p.clone());
                        k.set(sum, Expr::Var(sum) + left * right.clone());
                    }
                });
                sums.into_iter().enumerate().map(|(r, s)| (first.clone() + r as i64, at[1].clone(), s)).collect()
            }
            Cut::Inner { block } => {
                let first = k.let_(at[1].clone() * *block as i64);
                let sums: Vec<Var> = (0..*block).map(|_| zero(k)).collect();
                k.vector(inner, |k, p| {
                    let left = a.load(k, at[0].clone(), p.clone());
                    let left = k.let_(left);
                    for (c, &sum) in sums.iter().enumerate() {
                        let right = b.load(k, p.clone(), first.clone() + c as i64);
                        k.set(sum, Expr::Var(sum) + left.clone() * right);
                    }
                });
                sums.into_iter().enumerate().map(|(c, s)| (at[0].clone(), first.clone() + c as i64, s)).collect()
            }
        }
    }
}

/// The same elements with a 1 inserted into the shape.
fn with_unit_axis(view: &View, axis: usize) -> View {
    use super::view::Layout;
    let mut view = view.clone();
    view.shape.insert(axis, 1);
    if let Layout::Strided { strides, .. } = &mut view.layout {
        strides.insert(axis, 0);
    }
    view
}

pub fn matmul(_: &MatMul, cx: &mut NodeCx) -> Result<(), Diag> {
    let mut a = cx.materialized(0);
    let few = a.shape.len() == 2 && a.shape[0] < FEW_ROWS;
    let right_shape = cx.in_shape(1);
    let (row, column) = (a.shape.len() > 1, right_shape.len() > 1);
    if !row {
        a = with_unit_axis(&a, 0);
    }
    let (ra, rb) = (a.shape.len(), right_shape.len().max(2));
    let (m, inner) = (a.shape[ra - 2], a.shape[ra - 1]);
    let n = if column { right_shape[rb - 1] } else { 1 };
    let t = computing_type(cx.out_dtype(0));
    let y = cx.out_shape(0);
    let batch = &y[..ra.max(rb) - 2];
    let size = Size { batch: batch.iter().product(), rows: m, columns: n, depth: inner };
    let tiled = cx.low.gpu.filter(|_| size.is_tiled(t));
    let packed = tiled.and_then(|gpu| packed_right(cx, gpu, false));
    let (mut b, turned) = match packed {
        // Read through what is packed alone.
        Some(_) => (a.clone(), false),
        None => right_operand(cx, few, false),
    };
    if !column {
        b = with_unit_axis(&b, 1);
    }
    if let Some(gpu) = tiled {
        let of = |k: &mut KernelCx, view: &View, at: &Expr, axes: [usize; 2], outer: &Expr, step: &Expr| {
            let at = coordinates(at.clone(), batch);
            let rest = batch_coords(view, &at);
            tiled::factor(k, view, &rest, (view.shape.len() - axes[0], outer), (view.shape.len() - axes[1], step))
        };
        let left = |k: &mut KernelCx, p: &Expr, i: &Expr, step: &Expr| of(k, &a, p, [2, 1], i, step);
        let right = |k: &mut KernelCx, p: &Expr, j: &Expr, step: &Expr| match &packed {
            Some(weights) => weights.factor(k, &Expr::i64(0), j, step),
            None => of(k, &b, p, [1, 2], j, step),
        };
        tiled::product(cx, gpu, size, &left, &right, &|k, p, i, j, sum| {
            let mut at: Vec<Expr> = coordinates(p.clone(), batch).into_iter().map(|e| k.let_(e)).collect();
            at.extend([i.clone(), j.clone()]);
            k.store(0, &at, sum);
        });
        return Ok(());
    }
    let cut = Cut::of(cx, m, n, turned);
    let dims = [batch, &cut.dims(m, n)].concat();
    let mut k = cx.kernel("");
    k.nest(&dims, cut.cost(inner), cut.kind(), |k, at| {
        let (batch, at) = at.split_at(at.len() - 2);
        let left = Matrix { view: &a, batch: batch_coords(&a, batch), transposed: false };
        let right = Matrix { view: &b, batch: batch_coords(&b, batch), transposed: turned };
        for (i, j, sum) in cut.product(k, &left, &right, inner, t, [&at[0], &at[1]]) {
            let mut coords = batch.to_vec();
            coords.extend(row.then_some(i));
            coords.extend(column.then_some(j));
            k.store(0, &coords, Expr::Var(sum));
        }
    });
    k.finish();
    Ok(())
}

/// The right operand, and whether its columns are its rows. For GPUs, a constant matrix is turned as the product reads it: columns
/// contiguous for a warp that multiplies one with few rows, rows for threads that have a column each.
fn right_operand(cx: &mut NodeCx, few: bool, transposed: bool) -> (View, bool) {
    let shape = cx.in_shape(1);
    let is_matrix = shape.len() == 2 && shape.iter().all(|&n| n > 1);
    let (Some(gpu), Some(c)) = (cx.low.gpu.filter(|_| is_matrix), cx.constant(1)) else {
        return (cx.materialized(1), transposed);
    };
    let rounds = few && gpu.precision.factor_type().is_some();
    if few == transposed && !rounds {
        return (cx.materialized(1), transposed);
    }
    let c = if few { tiled::rounded(gpu, c) } else { c };
    let c = if few == transposed { c } else { tiled::turned(&c) };
    (View::dense(cx.table(&c), c.dtype(), c.shape().to_vec()), few)
}

/// A constant right operand as tiles read it; `None` where they read it as it is.
fn packed_right(cx: &mut NodeCx, gpu: Gpu, transposed: bool) -> Option<Weights> {
    let shape = cx.in_shape(1);
    let [first, second] = shape[..] else { return None };
    if !transposed && gpu.precision.factor_type().is_none() {
        return None;
    }
    let c = cx.constant(1)?;
    let (columns, depth) = if transposed { (first, second) } else { (second, first) };
    Some(Weights::pack(cx, gpu, &c, [1, columns, depth], |_, column, step| {
        if transposed { column * depth + step } else { step * columns + column }
    }))
}

fn batch_coords(view: &View, at: &[Expr]) -> Vec<Expr> {
    super::view::broadcast_coords(&view.shape[..view.shape.len() - 2], at)
}

pub fn gemm(op: &Gemm, cx: &mut NodeCx) -> Result<(), Diag> {
    let a = cx.materialized(0);
    let y = cx.out_shape(0);
    let (m, n) = (y[0], y[1]);
    let inner = a.shape[1 - op.trans_a as usize];
    let dtype = cx.out_dtype(0);
    let t = computing_type(dtype);
    let c = (cx.has(2) && op.beta != 0.0).then(|| cx.in_shape(2));
    let size = Size { batch: 1, rows: m, columns: n, depth: inner };
    let tiled = cx.low.gpu.filter(|_| size.is_tiled(t));
    let packed = tiled.and_then(|gpu| packed_right(cx, gpu, op.trans_b));
    let (b, trans_b) = match packed {
        // Read through what is packed alone.
        Some(_) => (a.clone(), false),
        None => right_operand(cx, m < FEW_ROWS, op.trans_b),
    };
    if let Some(gpu) = tiled {
        let (row, step) = if op.trans_a { (1, 0) } else { (0, 1) };
        let left = |k: &mut KernelCx, _: &Expr, i: &Expr, s: &Expr| tiled::factor(k, &a, &[], (row, i), (step, s));
        let (column, from) = if trans_b { (0, 1) } else { (1, 0) };
        let right = |k: &mut KernelCx, batch: &Expr, j: &Expr, s: &Expr| match &packed {
            Some(weights) => weights.factor(k, batch, j, s),
            None => tiled::factor(k, &b, &[], (column, j), (from, s)),
        };
        tiled::product(cx, gpu, size, &left, &right, &|k, _, i, j, sum| {
            let coords = [i.clone(), j.clone()];
            let c = c.as_ref().map(|shape| k.load(2, &super::view::broadcast_coords(shape, &coords)));
            let value = scaled(op, sum, c, t);
            k.store(0, &coords, value);
        });
        return Ok(());
    }
    let cut = Cut::of(cx, m, n, trans_b);
    let mut k = cx.kernel("");
    k.nest(&cut.dims(m, n), cut.cost(inner), cut.kind(), |k, at| {
        let left = Matrix { view: &a, batch: vec![], transposed: op.trans_a };
        let right = Matrix { view: &b, batch: vec![], transposed: trans_b };
        for (i, j, sum) in cut.product(k, &left, &right, inner, t, [&at[0], &at[1]]) {
            let coords = [i, j];
            let c = c.as_ref().map(|shape| k.load(2, &super::view::broadcast_coords(shape, &coords)));
            let value = scaled(op, Expr::Var(sum), c, t);
            k.store(0, &coords, value);
        }
    });
    k.finish();
    Ok(())
}

/// `alpha * sum + beta * c`; integers go through f64 unless both factors are 1.
fn scaled(op: &Gemm, sum: Expr, c: Option<Expr>, t: DType) -> Expr {
    let factor = |t: DType, f: f32, e: Expr| if f == 1.0 { e } else { Expr::number(t, f64::from(f)) * e };
    let exact = op.alpha == 1.0 && (c.is_none() || op.beta == 1.0);
    if t.is_float() || exact {
        let y = factor(t, op.alpha, sum);
        return match c {
            Some(c) => y + factor(t, op.beta, c),
            None => y,
        };
    }
    let wide = |e: Expr| Expr::cast(DType::F64, e);
    let y = factor(DType::F64, op.alpha, wide(sum));
    let y = match c {
        Some(c) => y + factor(DType::F64, op.beta, wide(c)),
        None => y,
    };
    Expr::cast(t, y)
}

// for the result's labels (the last one vectorised): acc = 0; for the summed labels: acc += product of the operands
pub fn einsum(op: &Einsum, cx: &mut NodeCx) -> Result<(), Diag> {
    let views: Vec<View> = (0..cx.operands()).map(|i| cx.materialized(i)).collect();
    let ranks: Vec<usize> = views.iter().map(|v| v.shape.len()).collect();
    let plan = op.plan(&ranks).map_err(|why| cx.diag("einsum.c2", why))?;
    let mut sizes = vec![1; plan.labels];
    for (view, labels) in views.iter().zip(&plan.operands) {
        for (&d, &l) in view.shape.iter().zip(labels) {
            if d != 1 {
                sizes[l] = d;
            }
        }
    }
    let y = cx.out_shape(0);
    let inner: Vec<usize> = plan.summed.iter().map(|&l| sizes[l]).collect();
    let t = computing_type(cx.out_dtype(0));
    let cost = (2 * inner.iter().product::<usize>().max(1)) as i64;
    let mut k = cx.kernel("");
    k.nest(&y, cost, LoopKind::Vector, |k, at| {
        let acc = k.mutable(Expr::number(t, 0.0));
        k.loops(&inner, |k, summed| {
            let mut index = vec![Expr::i64(0); plan.labels];
            for (&l, e) in plan.result.iter().zip(at).chain(plan.summed.iter().zip(summed)) {
                index[l] = e.clone();
            }
            let factors = views.iter().zip(&plan.operands).map(|(view, labels)| {
                let own = view.shape.iter().zip(labels);
                let coords: Vec<Expr> =
                    own.map(|(&d, &l)| if d == 1 { Expr::i64(0) } else { index[l].clone() }).collect();
                k.load_view(view, &coords)
            });
            let term = factors.reduce(|a, b| a * b).unwrap_or(Expr::number(t, 1.0));
            k.set(acc, Expr::Var(acc) + term);
        });
        k.store(0, at, Expr::Var(acc));
    });
    k.finish();
    Ok(())
}
