//! How a block of threads brings a tile of a factor into shared memory.
//!
//! The tile lies there as f32, step by step: element (step, row) at `step * stride + row`. Threads take neighbouring elements of global
//! memory: rows, 16 bytes at a time where all is aligned, or steps, where those are the neighbours. f32 is copied in the
//! background; what is not f32 is widened on the way.
//!
//! Where the elements of a slice are evenly apart from step to step (always but where a slice of a convolution has several taps), what
//! depends on the step is computed once for the slice, alike in all threads.

use super::emit::Emit;
use super::func::{Cmp, Func, Shared};
use super::index::{Index, IntReg};
use super::lanes::mentions;
use super::reg::*;
use super::value::{Scalar, Val};
use crate::kernel::{BinOp, CmpOp, Expr, Factor, Split, Var};
use lehr_ir::DType;
use std::collections::HashSet;

/// What is copied: rows of the left factor, columns of the right one.
pub(super) struct Side<'c> {
    pub factor: &'c Factor,
    /// The row or column variable, and how many there are.
    pub var: Var,
    pub limit: i64,
    /// Rows of a tile, and from step to step of it in shared memory.
    pub size: u32,
    pub stride: u32,
}

/// What a thread knows of its part before the first tile.
pub(super) struct Copy<'c> {
    side: Side<'c>,
    /// Elements of one access.
    vector: i64,
    /// Rows that it takes, and steps within a tile.
    outer: Vec<Outer>,
    steps: Vec<Index>,
    /// From step to step of a slice, if that is always the same. `outer` has the thread's part of it then.
    even: Option<i64>,
    /// Its accesses, as positions in the two, and where they go from `to` on.
    units: Vec<(usize, usize, i64)>,
    /// Where the thread's first element goes in a stage.
    to: Reg<B32>,
    /// Threads beyond the tile have none.
    active: Option<Reg<Pred>>,
}

/// Elements of f32 that memory is read by.
const SECTOR: i64 = 8;

struct Outer {
    at: Index,
    bounds: Vec<Index>,
    /// Whether the row is one of the matrix; `None`: always.
    valid: Option<Reg<Pred>>,
}

/// From one value of `var` to the next, if that is always the same.
pub(super) fn stride_of(e: &Expr, var: Var) -> Option<i64> {
    match e {
        Expr::Int(..) | Expr::Float(..) => Some(0),
        Expr::Var(v) => Some((*v == var) as i64),
        Expr::Binary(op @ (BinOp::Add | BinOp::Sub), a, b) => {
            let (a, b) = (stride_of(a, var)?, stride_of(b, var)?);
            Some(if *op == BinOp::Add { a + b } else { a - b })
        }
        Expr::Binary(BinOp::Mul, a, b) if a.as_i64().is_some() || b.as_i64().is_some() => {
            let (n, e) = match a.as_i64() {
                Some(n) => (n, b),
                None => (b.as_i64()?, a),
            };
            Some(n * stride_of(e, var)?)
        }
        e => (!mentions(e, &HashSet::from([var]))).then_some(0),
    }
}

/// From one value of `var` to the next, within blocks of so many that begin at multiples of their size.
pub(super) fn stride_within(e: &Expr, var: Var, block: i64) -> Option<i64> {
    match e {
        Expr::Binary(op @ (BinOp::Add | BinOp::Sub), a, b) => {
            let (a, b) = (stride_within(a, var, block)?, stride_within(b, var, block)?);
            Some(if *op == BinOp::Add { a + b } else { a - b })
        }
        Expr::Binary(BinOp::Mul, a, b) => match (a.as_i64(), b.as_i64()) {
            (Some(n), _) => Some(n * stride_within(b, var, block)?),
            (_, Some(n)) => Some(n * stride_within(a, var, block)?),
            (None, None) => stride_of(e, var),
        },
        Expr::Binary(op @ (BinOp::Div | BinOp::Rem), a, n) => match (&**a, n.as_i64()) {
            // The block lies between two multiples of n.
            (Expr::Var(v), Some(n)) if *v == var && n > 0 && n % block == 0 => Some((*op == BinOp::Rem) as i64),
            _ => (stride_within(a, var, block)? == 0 && stride_within(n, var, block)? == 0).then_some(0),
        },
        e => stride_of(e, var),
    }
}

/// Likewise for the elements of a factor, whose bounds must be the same for the whole block.
pub(super) fn even_steps(factor: &Factor, step: Var, block: i64) -> Option<i64> {
    let bounds = factor.bounds.iter().all(|b| stride_within(&b.at.inner, step, block) == Some(0));
    stride_within(&factor.at.inner, step, block).filter(|_| bounds)
}

impl<'c> Copy<'c> {
    /// `origin` is the tile's first row, `base` where its stage starts; `depth` are the steps of a tile, and `whole` says whether slices
    /// begin at multiples of that.
    pub fn new(
        e: &mut Emit,
        side: Side<'c>,
        step: Var,
        thread: Reg<B32>,
        origin: Index,
        base: Reg<B32>,
        (depth, whole): (u32, bool),
    ) -> Copy<'c> {
        let at = &side.factor.at;
        let (outer_stride, inner_stride) = (stride_of(&at.outer, side.var), stride_of(&at.inner, step));
        let along_steps = inner_stride == Some(1) && outer_stride != Some(1);
        let threads = e.schedule.threads as i64;
        let (size, depth) = (side.size as i64, depth as i64);
        let vector = if !along_steps && e.is_wide(&side, step) { 4 } else { 1 };
        let lead = Index::register(IntReg::Narrow(thread), 1, 0, threads - 1);
        let row_words = side.stride as i64;
        let even = even_steps(side.factor, step, depth).filter(|_| whole);
        let mut copy = Copy { side, vector, outer: vec![], steps: vec![], even, units: vec![], to: base, active: None };
        let across = size / vector;
        let op = |e: &mut Emit, op, n| e.f.index_op(op, &lead, &Index::constant(n), 1).expect("one value");
        let (rows, place, beyond): (Vec<Index>, Index, Option<(Index, i64)>);
        if along_steps {
            // Eight steps, a sector, of four rows for a warp: those lie in 32 banks.
            let k = op(e, BinOp::Rem, SECTOR);
            let r = op(e, BinOp::Div, SECTOR);
            let unit_stride = threads / SECTOR;
            let (count, along) = ((size + unit_stride - 1) / unit_stride, depth / SECTOR);
            rows = (0..count)
                .map(|j| Index { plus: r.plus + j * unit_stride, high: r.high + j * unit_stride, multiple: 1, ..r })
                .collect();
            copy.steps = (0..along)
                .map(|i| Index { plus: k.plus + i * SECTOR, high: k.high + i * SECTOR, multiple: 1, ..k })
                .collect();
            copy.units = (0..count)
                .flat_map(|j| {
                    (0..along).map(move |i| (j as usize, i as usize, (i * SECTOR * row_words + j * unit_stride) * 4))
                })
                .collect();
            let down = e.f.scale_index(&k, row_words);
            place = e.f.add_index(&down, &r);
            beyond = (unit_stride > size).then_some((r, size));
        } else if threads >= across {
            let r = op(e, BinOp::Rem, across);
            let r = e.f.scale_index(&r, vector);
            let k = op(e, BinOp::Div, across);
            let unit_stride = threads / across;
            let count = (depth + unit_stride - 1) / unit_stride;
            rows = vec![r];
            copy.steps = (0..count)
                .map(|j| Index { plus: k.plus + j * unit_stride, high: k.high + j * unit_stride, multiple: 1, ..k })
                .collect();
            copy.units = (0..count).map(|j| (0, j as usize, j * unit_stride * row_words * 4)).collect();
            let down = e.f.scale_index(&k, row_words);
            place = e.f.add_index(&down, &r);
            beyond = (unit_stride > depth).then_some((k, depth));
        } else {
            let r = e.f.scale_index(&lead, vector);
            let count = across / threads;
            let unit_stride = threads * vector;
            rows = (0..count).map(|j| Index { plus: j * unit_stride, high: r.high + j * unit_stride, ..r }).collect();
            copy.steps = (0..depth).map(Index::constant).collect();
            copy.units = (0..depth)
                .flat_map(|k| (0..count).map(move |j| (j as usize, k as usize, (k * row_words + j * unit_stride) * 4)))
                .collect();
            place = r;
            beyond = None;
        }
        copy.active = beyond.map(|(i, n)| e.f.compare_index(CmpOp::Lt, &i, &Index::constant(n)));
        let bytes = e.f.scale_index(&place, 4);
        let bytes = e.f.narrow(&bytes);
        copy.to = e.f.add::<S32>(base, bytes);
        let tiles = (copy.side.limit + size - 1) / size;
        // Constants stay out of it, and go into the offsets of the accesses.
        let own = copy.even.map(|stride| {
            let k = copy.steps.first().map_or(Index::constant(0), |k| Index { plus: 0, ..*k });
            e.f.scale_index(&Index { high: depth - 1, ..k }, stride)
        });
        copy.outer = rows
            .into_iter()
            .map(|r| {
                let row = e.f.add_index(&origin, &r);
                let row = Index { high: tiles * size - 1, ..row };
                let valid = (copy.side.limit % size != 0)
                    .then(|| e.f.compare_index(CmpOp::Lt, &row, &Index::constant(copy.side.limit)));
                e.values[copy.side.var as usize] = Some(Val::index(row));
                let mut at = e.index(&copy.side.factor.at.outer);
                if let Some(own) = &own {
                    at = e.f.add_index(&at, own);
                }
                let bounds = copy.side.factor.bounds.iter().map(|b| e.index(&b.at.outer)).collect();
                Outer { at, bounds, valid }
            })
            .collect();
        copy
    }

    /// Copies the tile whose first step is `first` into the stage at `stage`. `end` is given where steps may lie beyond it.
    pub fn tile(&self, e: &mut Emit, step: Var, first: Index, end: Option<Index>, stage: Src<B32>, background: bool) {
        let skip = self.active.map(|active| {
            let skip = e.f.label();
            e.f.jump_if(active, false, skip);
            skip
        });
        let to = match stage {
            Src::Imm(0) => (self.to, 0),
            Src::Imm(n) => (self.to, n as i64),
            Src::Reg(stage) => (e.f.add::<S32>(self.to, stage), 0),
        };
        struct Inner {
            at: Index,
            bounds: Vec<Index>,
            valid: Option<Reg<Pred>>,
        }
        let Split { inner, .. } = &self.side.factor.at;
        let inner: Vec<Inner> = self
            .steps
            .iter()
            .map(|k| {
                let place = e.f.add_index(&first, k);
                let valid = end.map(|end| e.f.compare_index(CmpOp::Lt, &place, &end));
                // Of evenly spaced steps, the first one's: the thread's own part is in `outer`.
                let step_at = if self.even.is_some() { first } else { place };
                e.values[step as usize] = Some(Val::index(step_at));
                let mut at = e.index(inner);
                if let Some(stride) = self.even {
                    at = e.f.add_index(&at, &Index::constant(k.plus * stride));
                }
                let bounds = self.side.factor.bounds.iter().map(|b| e.index(&b.at.inner)).collect();
                Inner { at, bounds, valid }
            })
            .collect();
        for &(o, i, offset) in &self.units {
            let (outer, inner) = (&self.outer[o], &inner[i]);
            let mut valid = outer.valid;
            for ((x, y), b) in outer.bounds.iter().zip(&inner.bounds).zip(&self.side.factor.bounds) {
                let at = e.f.add_index(x, y);
                let inside = within(&mut e.f, &at, b.size);
                valid = both(&mut e.f, valid, inside);
            }
            valid = both(&mut e.f, valid, inner.valid);
            let at = e.f.add_index(&outer.at, &inner.at);
            let to = (to.0, to.1 + offset);
            match background {
                true => {
                    let bytes = 4 * self.vector as i32;
                    let given = valid.map(|p| e.f.selp::<B32>(p, bytes, 0));
                    let from = e.address(self.side.factor.buf, &at);
                    e.f.cp_async(to, from, bytes as u32, given);
                }
                false => {
                    let v = e.element(self.side.factor.buf, &at, valid);
                    e.f.st::<Shared, F32>(to.0, to.1, v);
                }
            }
        }
        if let Some(skip) = skip {
            e.f.place(skip);
        }
    }
}

/// `0 <= at < size`, unless that is known.
pub(super) fn within(f: &mut Func, at: &Index, size: i64) -> Option<Reg<Pred>> {
    if at.low >= 0 && at.high < size {
        return None;
    }
    if f.is_narrow(at) && size <= i32::MAX as i64 {
        // Negative numbers are large ones without their sign.
        let at = f.narrow(at);
        return Some(f.setp::<U32>(Cmp::Lt, at, size as i32));
    }
    let at = f.wide(at);
    Some(f.setp::<U64>(Cmp::Lt, at, size))
}

pub(super) fn both(f: &mut Func, a: Option<Reg<Pred>>, b: Option<Reg<Pred>>) -> Option<Reg<Pred>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(f.and_pred(a, b)),
        (a, b) => a.or(b),
    }
}

impl Emit<'_> {
    /// Whether four neighbouring rows of a factor are 16 aligned bytes, in bounds together.
    fn is_wide(&mut self, side: &Side, step: Var) -> bool {
        let f = side.factor;
        let f32s = self.k.params[f.buf as usize].dtype == DType::F32;
        let neighbouring = stride_of(&f.at.outer, side.var) == Some(1);
        let alike = f.bounds.iter().all(|b| stride_of(&b.at.outer, side.var) == Some(0));
        if !f32s || !neighbouring || !alike || side.limit % 4 != 0 {
            return false;
        }
        // Values are only looked at: what is emitted for them is taken back.
        let mark = self.f.mark();
        let reg = IntReg::Narrow(self.f.reg());
        self.values[side.var as usize] = Some(Val::index(Index::register(reg, 4, 0, side.limit - 4)));
        self.values[step as usize] = Some(Val::index(Index::register(reg, 1, 0, i32::MAX as i64)));
        let aligned = [&f.at.outer, &f.at.inner].into_iter().all(|e| self.index(e).multiple % 4 == 0);
        self.f.rewind(mark);
        aligned
    }

    /// An element as f32, 0 where it is not valid.
    pub(super) fn element(&mut self, buf: u32, at: &Index, valid: Option<Reg<Pred>>) -> Src<F32> {
        let dtype = self.k.params[buf as usize].dtype;
        let Some(valid) = valid else {
            let (address, offset) = self.address(buf, at);
            return self.load_at(buf, dtype, address, offset).f32();
        };
        // An element that is there is read instead of one that is not.
        let wide = self.f.wide(at);
        let safe = self.f.selp::<B64>(valid, wide, 0i64);
        let (address, offset) = self.address(buf, &Index::unknown(safe));
        let v: Scalar = self.load_at(buf, dtype, address, offset);
        self.f.selp::<F32>(valid, v.f32(), 0f32).into()
    }
}
