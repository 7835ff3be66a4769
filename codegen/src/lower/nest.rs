//! Loop nests over an index space: the outer axes are spread over threads, the last one is vectorised.

use super::cx::KernelCx;
use crate::kernel::{Blocks, Expr, LoopKind};

/// At least so many parallel iterations are wanted, so that any sensible number of threads gets an even share.
const PARALLEL_GRAIN: usize = 32;
/// A vector loop is not split below so many operations, nor below [`MIN_CHUNK`] elements.
const MIN_OPERATIONS: i64 = 1024;
const MIN_CHUNK: usize = 64;

/// A thread of a GPU takes several points if each is at most so many operations, and so many threads are left.
const LANE_OPERATIONS: i64 = 64;
const GPU_THREADS: usize = 1 << 13;

/// What a nest does at one point: gets the kernel and the coordinates so far.
type LoopBody<'f, K> = Box<dyn FnOnce(&mut K, &mut Vec<Expr>) + 'f>;

impl KernelCx<'_, '_> {
    /// Runs `body` at every point of `dims`, row-major. `cost` is the work of one point in operations. `last` says
    /// whether the innermost axis keeps [`LoopKind::Vector`]'s promise. Call it once per kernel.
    pub fn nest(&mut self, dims: &[usize], cost: i64, last: LoopKind, body: impl FnOnce(&mut Self, &[Expr])) {
        let Some((&inner, outer)) = dims.split_last() else {
            return body(self, &[]);
        };
        if self.cx.low.gpu.is_some() {
            return self.gpu_nest(dims, cost, last, body);
        }
        // The fewest leading axes that make enough parallel iterations.
        let mut split = 0;
        let mut extent = 1usize;
        while split < outer.len() && extent < PARALLEL_GRAIN {
            extent *= outer[split];
            split += 1;
        }
        let serial = &outer[split..];
        let least = usize::try_from(MIN_OPERATIONS / cost.max(1)).map_or(MIN_CHUNK, |n| n.max(MIN_CHUNK));
        let chunks =
            if extent < PARALLEL_GRAIN && serial.is_empty() { (inner / least).clamp(1, PARALLEL_GRAIN) } else { 1 };
        // Multiples of 64 elements, so that no two threads write one cache line.
        let chunk = if chunks == 1 { inner } else { inner.div_ceil(chunks).next_multiple_of(64) };
        let chunks = inner.div_ceil(chunk.max(1)).max(1);
        let points = serial.iter().product::<usize>() * chunk;
        let p = self.parallel((extent * chunks) as i64, (points as i64).saturating_mul(cost));
        let (p, first) = if chunks == 1 {
            (p, Expr::i64(0))
        } else {
            let first = self.let_((p.clone() % chunks as i64) * chunk as i64);
            (p / chunks as i64, first)
        };
        let mut coords = unflatten(self, p, &outer[..split]);
        let end = if chunks == 1 {
            Expr::i64(inner as i64)
        } else {
            (first.clone() + chunk as i64).min(Expr::i64(inner as i64))
        };
        self.inner(serial, &mut coords, |k, coords| {
            if inner == 1 {
                coords.push(Expr::i64(0));
                return body(k, coords);
            }
            k.for_(last, first, end, 1, |k, i| {
                coords.push(i);
                body(k, coords);
            });
        });
    }

    /// Every point is an iteration of its own, and neighbours are neighbouring threads; or every few points of the last axis
    /// are, where a thread can move them at once and enough threads are left.
    fn gpu_nest(&mut self, dims: &[usize], cost: i64, last: LoopKind, body: impl FnOnce(&mut Self, &[Expr])) {
        let (&inner, outer) = dims.split_last().expect("the caller looked");
        let points: usize = dims.iter().product();
        let lanes = self.cx.lanes();
        let several = last == LoopKind::Vector
            && cost <= LANE_OPERATIONS
            && inner.is_multiple_of(lanes)
            && points / lanes >= GPU_THREADS;
        if !several {
            let p = self.parallel(points as i64, cost);
            let coords = unflatten(self, p, dims);
            return body(self, &coords);
        }
        let p = self.parallel((points / lanes) as i64, cost.saturating_mul(lanes as i64));
        let mut coords = unflatten(self, p, &[outer, &[inner / lanes]].concat());
        let chunk = coords.pop().expect("there is a last axis");
        let first = self.let_(chunk * lanes as i64);
        self.for_(LoopKind::Vector, first.clone(), first + lanes as i64, 1, |k, i| {
            coords.push(i);
            body(k, &coords);
        });
    }

    fn inner(&mut self, dims: &[usize], coords: &mut Vec<Expr>, body: impl FnOnce(&mut Self, &mut Vec<Expr>)) {
        self.inner_boxed(dims, coords, Box::new(body));
    }

    // Boxed: a closure that wraps itself once per axis would be a type without end.
    fn inner_boxed<'f>(&mut self, dims: &[usize], coords: &mut Vec<Expr>, body: LoopBody<'f, Self>) {
        let Some((&n, rest)) = dims.split_first() else {
            return body(self, coords);
        };
        self.serial(n, |k, i| {
            coords.push(i);
            k.inner_boxed(rest, coords, body);
        });
    }

    /// Serial loops over `dims` inside a kernel, e.g. over a window or a reduced axis.
    pub fn loops(&mut self, dims: &[usize], body: impl FnOnce(&mut Self, &[Expr])) {
        self.inner(dims, &mut vec![], |k, coords| body(k, coords));
    }
}

/// Coordinates of the flat position `p` in `dims`.
pub fn unflatten(k: &mut KernelCx, p: Expr, dims: &[usize]) -> Vec<Expr> {
    let mut rest = p;
    let mut coords = vec![Expr::i64(0); dims.len()];
    for d in (0..dims.len()).rev() {
        if dims[d] == 1 {
            continue;
        }
        if dims[..d].iter().all(|&n| n == 1) {
            coords[d] = k.let_(rest);
            break;
        }
        coords[d] = k.let_(rest.clone() % dims[d] as i64);
        rest = k.let_(rest / dims[d] as i64);
    }
    coords
}
