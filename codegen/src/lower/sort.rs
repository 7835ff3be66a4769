//! Top-k by a heap of the k best so far, worst on top, which lies in the result: O(n log k), and O(n) for most data, since an element
//! that does not beat the worst costs one comparison.
//!
//! ```text
//! heap = x[0..k], made a heap
//! for i in k..n: if x[i] beats heap[0]: put (x[i], i) in its place, sift down
//! for m in k-1 .. 0: swap heap[0] and heap[m], sift down in heap[0..m]        -- leaves the best first
//! ```

use super::cx::{KernelCx, NodeCx};
use super::view::View;
use crate::kernel::{BinOp, Blocks, CmpOp, Expr, LoopKind, UnOp};
use lehr_ir::ops::TopK;
use lehr_ir::{DType, Diag};

pub fn top_k(op: &TopK, cx: &mut NodeCx) -> Result<(), Diag> {
    let (shape, out) = (cx.in_shape(0), cx.out_shape(0));
    let (n, size) = (shape[op.axis], out[op.axis]);
    let [values, indices] = [0, 1].map(|port| match cx.out_view(port) {
        Some(view) => view,
        None => {
            let t = cx.out_dtype(port);
            View::dense(cx.scratch(t, out.iter().product()), t, out.clone())
        }
    });
    let mut sizes = shape.clone();
    sizes.remove(op.axis);
    // Every line is a parallel iteration.
    sizes.push(1);
    let mut k = cx.kernel("");
    k.nest(&sizes, 4 * n as i64 + 8 * size as i64, LoopKind::Serial, |k, c| {
        let line = c[..c.len() - 1].to_vec();
        let heap = Heap { values, indices, line, axis: op.axis, largest: op.largest };
        heap.select(k, n as i64, size as i64);
    });
    k.finish();
    Ok(())
}

struct Heap {
    values: View,
    indices: View,
    /// Coordinates without the axis.
    line: Vec<Expr>,
    axis: usize,
    largest: bool,
}

/// An element: its value and its position along the axis.
type Entry = (Expr, Expr);

impl Heap {
    fn at(&self, i: Expr) -> Vec<Expr> {
        let mut at = self.line.clone();
        at.insert(self.axis, i);
        at
    }

    fn get(&self, k: &mut KernelCx, i: Expr) -> Entry {
        let at = self.at(i);
        let (v, p) = (k.load_view(&self.values, &at), k.load_view(&self.indices, &at));
        (k.let_(v), k.let_(p))
    }

    fn put(&self, k: &mut KernelCx, i: Expr, (v, p): Entry) {
        let at = self.at(i);
        k.store_view(&self.values, &at, v);
        k.store_view(&self.indices, &at, p);
    }

    /// Whether value `a` ranks strictly before `b`. NaN is the largest.
    fn beats(&self, k: &KernelCx, a: &Expr, b: &Expr) -> Expr {
        let (op, nan, other) = if self.largest { (CmpOp::Gt, a, b) } else { (CmpOp::Lt, b, a) };
        let beats = Expr::compare(op, a.clone(), b.clone());
        if !k.type_of(a).is_float() {
            return beats;
        }
        let is = |op: CmpOp, e: &Expr| Expr::compare(op, e.clone(), e.clone());
        let by_nan = Expr::binary(BinOp::And, is(CmpOp::Ne, nan), is(CmpOp::Eq, other));
        Expr::binary(BinOp::Or, beats, by_nan)
    }

    /// Whether `a` stands before `b` in the result: it beats it, or neither does and it comes first.
    fn before(&self, k: &KernelCx, a: &Entry, b: &Entry) -> Expr {
        let first = Expr::compare(CmpOp::Lt, a.1.clone(), b.1.clone());
        let not_worse = Expr::unary(UnOp::Not, self.beats(k, &b.0, &a.0));
        Expr::binary(BinOp::Or, self.beats(k, &a.0, &b.0), Expr::binary(BinOp::And, first, not_worse))
    }

    fn select(&self, k: &mut KernelCx, n: i64, size: i64) {
        let upto = |k: &mut KernelCx, start: i64, end: i64, f: &mut dyn FnMut(&mut KernelCx, Expr)| {
            k.for_(LoopKind::Serial, Expr::i64(start), Expr::i64(end), 1, |k, i| f(k, i));
        };
        upto(k, 0, size, &mut |k, i| {
            let x = k.load(0, &self.at(i.clone()));
            let x = k.let_(x);
            self.put(k, i.clone(), (x, i));
        });
        upto(k, 0, size / 2, &mut |k, i| {
            let at = k.let_(Expr::i64(size / 2 - 1) - i);
            let entry = self.get(k, at.clone());
            self.sift(k, at, entry, Expr::i64(size));
        });
        let root = self.get(k, Expr::i64(0));
        let worst = k.mutable(root.0);
        upto(k, size, n, &mut |k, i| {
            let x = k.load(0, &self.at(i.clone()));
            let x = k.let_(x);
            let enters = self.beats(k, &x, &Expr::Var(worst));
            k.if_(enters, |k| {
                self.sift(k, Expr::i64(0), (x, i), Expr::i64(size));
                let root = self.get(k, Expr::i64(0));
                k.set(worst, root.0);
            });
        });
        upto(k, 0, size - 1, &mut |k, i| {
            let last = k.let_(Expr::i64(size - 1) - i);
            let (top, entry) = (self.get(k, Expr::i64(0)), self.get(k, last.clone()));
            self.put(k, last.clone(), top);
            self.sift(k, Expr::i64(0), entry, last);
        });
    }

    /// Puts `entry` at `at` or below it, so that no entry of `0..size` stands after its parent in rank.
    fn sift(&self, k: &mut KernelCx, at: Expr, entry: Entry, size: Expr) {
        let hole = k.mutable(at.clone());
        let child = k.mutable(at * 2 + 1);
        let going = k.mutable(Expr::compare(CmpOp::Lt, Expr::Var(child), size.clone()));
        k.while_(Expr::Var(going), |k| {
            // The worse of two children; the last one may have no sibling, and stands for it.
            let left = self.get(k, Expr::Var(child));
            let sibling = k.let_((Expr::Var(child) + 1).min(size.clone() - 1));
            let right = self.get(k, sibling.clone());
            let take = self.before(k, &left, &right);
            let take = k.let_(take);
            let worse = (
                k.let_(Expr::select(take.clone(), right.0, left.0)),
                k.let_(Expr::select(take.clone(), right.1, left.1)),
            );
            let down = self.before(k, &entry, &worse);
            let down = k.let_(down);
            k.if_else(
                down,
                |k| {
                    let from = k.let_(Expr::select(take, sibling, Expr::Var(child)));
                    self.put(k, Expr::Var(hole), worse);
                    k.set(hole, from.clone());
                    k.set(child, from * 2 + 1);
                    k.set(going, Expr::compare(CmpOp::Lt, Expr::Var(child), size));
                },
                |k| k.set(going, Expr::Int(DType::Bool, 0)),
            );
        });
        self.put(k, Expr::Var(hole), entry);
    }
}
