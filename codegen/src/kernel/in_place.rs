//! Whether a kernel's result may take the place of an operand: whether every element is read before it is overwritten, whatever the
//! number of threads. It is found by going through the kernel's accesses to the two, iteration by iteration, without computing:
//!
//! ```text
//! for each parallel iteration, in any order:
//!     a read of an element:     nothing has written it
//!     a write of an element:    no other iteration reads it
//! ```
//!
//! Hence what reads again behind a write (tiles that overlap, sums continued in the result, zeroed borders), at another index or from
//! another thread is refused by itself. Iterations of a vector loop may run at once, and count as threads do. A leaf says over what it goes
//! in step with its result ([`Streams`]); what a leaf does otherwise with the two is not known, and refused, and so are indices and
//! branches that depend on data.

use super::{Access, BinOp, CmpOp, Expr, Kernel, LeafArg, LoopKind, PARALLEL, Param, Stmt, UnOp, Var};
use crate::program::Leaf;
use lehr_ir::DType;

/// How a leaf goes over its result, and which operands it goes over in step: each vector of theirs is read, for the last time, before
/// the result's vector at the same distance from its address is stored. Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Position of the result's address among the arguments.
    pub result: usize,
    /// Positions of the operands' addresses.
    pub operands: Vec<usize>,
    /// What is stored without a gap.
    pub run: Trips,
    /// Runs so far apart, so often.
    pub axes: Vec<(Trips, i64)>,
}

/// A number, or an argument's value times a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trips {
    Fixed(i64),
    Argument { position: usize, each: i64 },
}

/// Statements that are gone through at most: what takes longer keeps its own place.
const MAX_STATEMENTS: usize = 1 << 20;
/// Elements of an operand at most, 8 bytes of memory each while it is looked at.
const MAX_ELEMENTS: usize = 1 << 24;

/// Whether `result` may lie where `operand` does, the first elements of both in one place.
pub fn may_take_place(kernel: &Kernel, leaves: &[Leaf], operand: Param, result: Param) -> bool {
    let (from, to) = (&kernel.params[operand as usize], &kernel.params[result as usize]);
    let fits = from.dtype.size() == to.dtype.size() && to.len <= from.len;
    if !fits || from.len > MAX_ELEMENTS || from.access == Access::Write || to.access != Access::Write {
        return false;
    }
    // Iterations by themselves, and as many at once as there can be: merged ones do the same whatever their number.
    let runs = [Some(1), kernel.merged.map(|m| m.of).filter(|&of| of > 1)];
    runs.into_iter().flatten().all(|run| {
        let mut walk = Walk {
            kernel,
            leaves,
            operand,
            result,
            values: vec![None; kernel.vars.len()],
            reads: vec![Read::default(); from.len],
            now: Read::default(),
            vector_loop: None,
            statements: 0,
        };
        (0..kernel.extent).step_by(run as usize).all(|p| walk.iteration(p, run).is_some())
    })
}

/// Who reads an element.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Read {
    /// The parallel iteration, from 1 on; [`SEVERAL`] or [`WRITTEN`].
    iteration: u32,
    /// When; it rises within the kernel and only changes in vector loops.
    moment: u32,
}

const SEVERAL: u32 = u32::MAX;
const WRITTEN: u32 = u32::MAX - 1;

/// Steps give `None` where they refuse.
struct Walk<'k> {
    kernel: &'k Kernel,
    leaves: &'k [Leaf],
    operand: Param,
    result: Param,
    /// Of i64 variables, where they do not depend on data.
    values: Vec<Option<i64>>,
    reads: Vec<Read>,
    now: Read,
    /// The moment at which the outermost open vector loop began.
    vector_loop: Option<u32>,
    statements: usize,
}

impl Walk<'_> {
    /// Iteration `p` of the parallel loop, or so many of them that are merged.
    fn iteration(&mut self, p: i64, run: i64) -> Option<()> {
        self.values.fill(None);
        self.values[PARALLEL as usize] = Some(p);
        if let Some(merged) = self.kernel.merged {
            self.values[merged.run as usize] = Some(run.min(self.kernel.extent - p));
        }
        self.now.iteration = u32::try_from(p).ok().filter(|&p| p < WRITTEN - 1)? + 1;
        self.block(&self.kernel.body)
    }

    fn block(&mut self, body: &[Stmt]) -> Option<()> {
        body.iter().try_for_each(|s| self.statement(s))
    }

    fn statement(&mut self, s: &Stmt) -> Option<()> {
        self.statements += 1;
        if self.statements > MAX_STATEMENTS {
            return None;
        }
        match s {
            Stmt::Let { var, value } | Stmt::Set { var, value } => {
                self.loads(value)?;
                self.values[*var as usize] = self.value(value);
            }
            Stmt::Store { buf, index, value } => {
                self.loads(index)?;
                self.loads(value)?;
                if *buf == self.operand {
                    return None;
                }
                if *buf == self.result {
                    let at = self.value(index)?;
                    self.write(at, 1)?;
                }
            }
            Stmt::For { var, start, end, step, kind, body } => {
                let (start, end) = (self.value(start)?, self.value(end)?);
                if *step == 1 && self.in_step(*var, start, end, body)? {
                    return Some(());
                }
                let outermost = *kind == LoopKind::Vector && self.vector_loop.is_none();
                if outermost {
                    self.now.moment += 1;
                    self.vector_loop = Some(self.now.moment);
                }
                let mut at = start;
                while at < end {
                    self.values[*var as usize] = Some(at);
                    self.block(body)?;
                    at = at.checked_add(*step)?;
                    if outermost {
                        self.now.moment = self.now.moment.checked_add(1).filter(|&m| m < SEVERAL)?;
                    }
                }
                if outermost {
                    self.vector_loop = None;
                }
            }
            Stmt::If { cond, then, otherwise } => match self.value(cond)? {
                0 => self.block(otherwise)?,
                _ => self.block(then)?,
            },
            Stmt::Fault(_) => {}
            Stmt::Leaf { leaf, args } => self.leaf(&self.leaves[*leaf as usize], args)?,
            Stmt::While { .. } | Stmt::Contract(_) => return None,
        }
        Some(())
    }

    /// A loop that goes over both buffers element by element, at once: whether it is one.
    fn in_step(&mut self, var: Var, start: i64, end: i64, body: &[Stmt]) -> Option<bool> {
        let mut slopes = vec![(var, 1)];
        self.values[var as usize] = Some(start);
        let (mut reads, mut writes): (Vec<i64>, Vec<i64>) = (vec![], vec![]);
        for s in body {
            let (index, value) = match s {
                Stmt::Let { value, .. } => (None, value),
                Stmt::Store { buf, index, value } if *buf != self.operand => {
                    (Some(index).filter(|_| *buf == self.result), value)
                }
                _ => return Some(false),
            };
            let mut indices: Vec<&Expr> = vec![];
            value.each_load(&mut |buf, index| indices.extend((buf == self.operand).then_some(index)));
            // What reads behind the write has to be looked at element by element.
            if !writes.is_empty() && (!indices.is_empty() || index.is_some()) {
                return Some(false);
            }
            if indices.iter().copied().chain(index).any(|i| slope(i, &slopes) != Some(1)) {
                return Some(false);
            }
            for i in indices {
                reads.push(self.value(i)?);
            }
            if let Some(i) = index {
                writes.push(self.value(i)?);
            }
            if let Stmt::Let { var, value } = s {
                self.values[*var as usize] = self.value(value);
                slopes.extend(slope(value, &slopes).map(|s| (*var, s)));
                // Of unknown slope: an index that has it is refused.
                if slope(value, &slopes).is_none() {
                    self.values[*var as usize] = None;
                }
            }
        }
        let length = end - start;
        if length <= 0 {
            return Some(true);
        }
        if let Some(&write) = writes.first() {
            let disjoint = |read: i64| read >= write + length || write >= read + length;
            if reads.iter().any(|&read| read != write && !disjoint(read)) {
                return None;
            }
        }
        reads.iter().try_for_each(|&at| self.read(at, length))?;
        writes.iter().try_for_each(|&at| self.write(at, length))?;
        Some(true)
    }

    fn leaf(&mut self, leaf: &Leaf, args: &[LeafArg]) -> Option<()> {
        let place = |arg: &LeafArg, wanted: Param| match arg {
            LeafArg::Address { buf, index } if *buf == wanted => Some(index.clone()),
            LeafArg::Address { .. } | LeafArg::Int(_) => None,
        };
        let of = |wanted: Param| args.iter().enumerate().filter_map(move |(i, a)| Some((i, place(a, wanted)?)));
        let (reads, writes): (Vec<_>, Vec<_>) = (of(self.operand).collect(), of(self.result).collect());
        if reads.is_empty() && writes.is_empty() {
            return Some(());
        }
        let streams = leaf.streams.as_ref()?;
        if writes.iter().any(|w| w.0 != streams.result) || reads.iter().any(|r| !streams.operands.contains(&r.0)) {
            return None;
        }
        let trips = |walk: &Self, t: Trips| match t {
            Trips::Fixed(n) => Some(n),
            Trips::Argument { position, each } => match args.get(position)? {
                LeafArg::Int(e) => walk.value(e)?.checked_mul(each),
                LeafArg::Address { .. } => None,
            },
        };
        let size = self.kernel.params[self.result as usize].dtype.size() as i64;
        let mut run = trips(self, streams.run)?;
        let mut starts = vec![0];
        for &(count, stride) in &streams.axes {
            let count = trips(self, count)?;
            if stride == run && starts.len() == 1 {
                run *= count.max(0);
            } else {
                starts = (0..count).flat_map(|i| starts.iter().map(move |s| s + i * stride)).collect();
            }
        }
        if run % size != 0 || starts.iter().any(|s| s % size != 0) {
            return None;
        }
        let (run, reads) = (run / size, reads.iter().map(|r| self.value(&r.1)).collect::<Option<Vec<_>>>()?);
        let writes = writes.iter().map(|w| self.value(&w.1)).collect::<Option<Vec<_>>>()?;
        // In step, each vector is read before it is written; at another place that is known of whole calls alone.
        let reach = starts.iter().max().map_or(0, |s| s / size) + run;
        for (read, write) in reads.iter().flat_map(|r| writes.iter().map(move |w| (r, w))) {
            if read != write && *read < write + reach && *write < read + reach {
                return None;
            }
        }
        for start in starts.iter().map(|s| s / size) {
            reads.iter().try_for_each(|&at| self.read(at + start, run))?;
        }
        for start in starts.iter().map(|s| s / size) {
            writes.iter().try_for_each(|&at| self.write(at + start, run))?;
        }
        Some(())
    }

    fn loads(&mut self, e: &Expr) -> Option<()> {
        let mut places = vec![];
        e.each_load(&mut |buf, index| {
            if buf == self.operand {
                places.push(self.value(index));
            }
        });
        // Results that are read by their own kernel are accumulated in: other places are no concern of the operand's.
        places.into_iter().try_for_each(|at| self.read(at?, 1))
    }

    fn range(&mut self, at: i64, length: i64) -> Option<&mut [Read]> {
        let (at, length) = (usize::try_from(at).ok()?, usize::try_from(length.max(0)).ok()?);
        self.reads.get_mut(at..at.checked_add(length)?)
    }

    fn read(&mut self, at: i64, length: i64) -> Option<()> {
        let (now, vector_loop) = (self.now, self.vector_loop);
        for read in self.range(at, length)? {
            match read.iteration {
                WRITTEN => return None,
                0 => *read = now,
                known if known == now.iteration => {
                    let together = vector_loop.is_some_and(|since| read.moment >= since) && read.moment != now.moment;
                    read.moment = if together { SEVERAL } else { now.moment };
                }
                _ => read.iteration = SEVERAL,
            }
        }
        Some(())
    }

    fn write(&mut self, at: i64, length: i64) -> Option<()> {
        let (now, vector_loop) = (self.now, self.vector_loop);
        for read in self.range(at, length)? {
            let at_once = vector_loop.is_some_and(|since| read.moment >= since) && read.moment != now.moment;
            // A second write changes nothing: from the first on nobody reads the operand here.
            let free = matches!(read.iteration, 0 | WRITTEN) || read.iteration == now.iteration && !at_once;
            if !free {
                return None;
            }
            read.iteration = WRITTEN;
        }
        Some(())
    }

    /// Of an index or a condition (0 or 1); `None` if it depends on data.
    fn value(&self, e: &Expr) -> Option<i64> {
        Some(match e {
            Expr::Int(DType::I64 | DType::Bool, n) => *n,
            Expr::Var(v) => self.values[*v as usize]?,
            Expr::Unary(UnOp::Neg, a) => self.value(a)?.checked_neg()?,
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                match op {
                    BinOp::Add => a.checked_add(b)?,
                    BinOp::Sub => a.checked_sub(b)?,
                    BinOp::Mul => a.checked_mul(b)?,
                    BinOp::Div => a.checked_div(b)?,
                    BinOp::Rem => a.checked_rem(b)?,
                    BinOp::Min => a.min(b),
                    BinOp::Max => a.max(b),
                    BinOp::And => a & b,
                    BinOp::Or => a | b,
                    BinOp::Xor | BinOp::Shl | BinOp::Shr | BinOp::Pow => return None,
                }
            }
            Expr::Compare(op, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                i64::from(match op {
                    CmpOp::Eq => a == b,
                    CmpOp::Ne => a != b,
                    CmpOp::Lt => a < b,
                    CmpOp::Le => a <= b,
                    CmpOp::Gt => a > b,
                    CmpOp::Ge => a >= b,
                })
            }
            Expr::Select(c, a, b) => self.value(if self.value(c)? != 0 { a } else { b })?,
            Expr::Int(..) | Expr::Float(..) | Expr::Load { .. } | Expr::Unary(..) | Expr::Cast(..) => return None,
        })
    }
}

impl Expr {
    /// Every load in the expression, with its index; loads in indices too.
    fn each_load<'e>(&'e self, found: &mut dyn FnMut(Param, &'e Expr)) {
        match self {
            Expr::Int(..) | Expr::Float(..) | Expr::Var(_) => {}
            Expr::Load { buf, index } => {
                found(*buf, index);
                index.each_load(found);
            }
            Expr::Unary(_, a) | Expr::Cast(_, a) => a.each_load(found),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => {
                a.each_load(found);
                b.each_load(found);
            }
            Expr::Select(c, a, b) => {
                c.each_load(found);
                a.each_load(found);
                b.each_load(found);
            }
        }
    }
}

/// By how much an index rises from one iteration of a loop to the next, given that of the variables that change; `None` if not by a constant.
fn slope(e: &Expr, changing: &[(Var, i64)]) -> Option<i64> {
    match e {
        Expr::Int(..) => Some(0),
        Expr::Var(v) => Some(changing.iter().find(|(c, _)| c == v).map_or(0, |(_, s)| *s)),
        Expr::Binary(BinOp::Add, a, b) => slope(a, changing)?.checked_add(slope(b, changing)?),
        Expr::Binary(BinOp::Sub, a, b) => slope(a, changing)?.checked_sub(slope(b, changing)?),
        Expr::Binary(BinOp::Mul, a, b) => match (a.as_i64(), b.as_i64()) {
            (_, Some(n)) => slope(a, changing)?.checked_mul(n),
            (Some(n), _) => slope(b, changing)?.checked_mul(n),
            (None, None) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Blocks, KernelBuilder};
    use super::*;
    use bytes::Bytes;

    const N: i64 = 24;

    /// Four parallel iterations over 24 elements; `body` gets operand, result and the first of an iteration's six elements.
    fn allowed(body: impl FnOnce(&mut KernelBuilder, Param, Param, Expr)) -> bool {
        let streams = Streams {
            result: 1,
            operands: vec![0],
            run: Trips::Fixed(8),
            axes: vec![(Trips::Argument { position: 2, each: 1 }, 8)],
        };
        let leaf = |streams| Leaf { name: "leaf".into(), code: Bytes::new(), streams };
        let mut k = KernelBuilder::new("k");
        let x = k.param(DType::F32, N as usize, Access::Read);
        let y = k.param(DType::F32, N as usize, Access::Write);
        let p = k.parallel(4, 1);
        body(&mut k, x, y, p * 6);
        may_take_place(&k.finish(Default::default()), &[leaf(Some(streams)), leaf(None)], x, y)
    }

    /// A loop over an iteration's elements that reads at `from(i)` and writes at `to(i)`.
    fn copied(kind: LoopKind, from: impl Fn(Expr) -> Expr, to: impl Fn(Expr) -> Expr) -> bool {
        allowed(|k, x, y, first| {
            k.for_(kind, first.clone(), first + 6, 1, |k, i| {
                let v = k.load(x, from(i.clone()));
                k.store(y, to(i), v);
            });
        })
    }

    #[test]
    fn what_is_read_where_it_is_written_is_overwritten() {
        for kind in [LoopKind::Serial, LoopKind::Vector] {
            assert!(copied(kind, |i| i, |i| i));
            // Across threads, and within one.
            assert!(!copied(kind, |i| Expr::i64(N - 1) - i, |i| i));
            assert!(!copied(kind, |i| (i + 1).min(Expr::i64(N - 1)), |i| i));
            assert!(!copied(kind, |_| Expr::i64(0), |i| i));
            assert!(!copied(kind, |i| i.clone() / 2 * 2, |i| i));
        }
    }

    /// Element by element, forwards: each is read before its place is written, unless iterations run at once.
    #[test]
    fn iterations_of_a_vector_loop_run_at_once() {
        let earlier = |kind| {
            allowed(|k, x, y, first| {
                k.for_(kind, first.clone(), first.clone() + 3, 1, |k, i| {
                    let ahead = (i.clone() - first.clone()) * 2 + first.clone();
                    let v = k.load(x, ahead);
                    k.store(y, i, v);
                });
            })
        };
        assert!(earlier(LoopKind::Serial));
        assert!(!earlier(LoopKind::Vector));
    }

    #[test]
    fn nothing_is_read_behind_a_write() {
        let twice = |second: bool| {
            allowed(|k, x, y, first| {
                for part in 0..2 {
                    k.for_(LoopKind::Vector, first.clone(), first.clone() + 6, 1, |k, i| {
                        let v = if part == 0 || second { k.load(x, i.clone()) } else { Expr::f32(0.0) };
                        k.store(y, i, v);
                    });
                }
            })
        };
        assert!(twice(false));
        assert!(!twice(true));
        // Statistics of all elements first: of the same thread's.
        let whole = |from: i64| {
            allowed(|k, x, y, first| {
                let sum = k.mutable(Expr::f32(0.0));
                k.for_(LoopKind::Serial, first.clone() * from, first.clone() * from + 6, 1, |k, i| {
                    let v = k.load(x, i);
                    k.set(sum, Expr::Var(sum) + v);
                });
                k.for_(LoopKind::Vector, first.clone(), first + 6, 1, |k, i| k.store(y, i, Expr::Var(sum)));
            })
        };
        assert!(whole(1));
        assert!(!whole(0));
    }

    /// Each iteration by itself reads what it writes; two at once read what they have written, if the loop goes the other way.
    #[test]
    fn iterations_are_looked_at_alone_and_merged() {
        let merged = |backwards: bool| {
            allowed(|k, x, y, first| {
                let run = k.merge(2);
                let (p, last) = (first / 6, run.clone() - 1);
                k.for_(LoopKind::Serial, Expr::i64(0), run, 1, |k, i| {
                    let read = if backwards { last.clone() - i.clone() } else { i.clone() };
                    let v = k.load(x, p.clone() + read);
                    k.store(y, p.clone() + i, v);
                });
            })
        };
        assert!(merged(false));
        assert!(!merged(true));
    }

    #[test]
    fn a_leaf_reads_in_step_what_it_says_and_nothing_else() {
        let call = |leaf: u32, shift: i64, count: i64| {
            allowed(|k, x, y, first| {
                let at = |buf, index| LeafArg::Address { buf, index };
                k.leaf(leaf, vec![at(x, first.clone() + shift), at(y, first), LeafArg::Int(Expr::i64(count))]);
            })
        };
        assert!(call(0, 0, 3));
        // Into the next iteration's elements, beyond the end, at a shifted place, by an unknown leaf.
        assert!(!call(0, 0, 4));
        assert!(!call(0, -1, 2));
        assert!(!call(1, 0, 3));
        // Twice over the same, as tiles that overlap are: the second would read results.
        assert!(!allowed(|k, x, y, first| {
            for _ in 0..2 {
                let at = |buf| LeafArg::Address { buf, index: first.clone() };
                k.leaf(0, vec![at(x), at(y), LeafArg::Int(Expr::i64(1))]);
            }
        }));
        // Sums that are begun in the result.
        assert!(!allowed(|k, x, y, first| {
            let at = |buf| LeafArg::Address { buf, index: first.clone() };
            k.leaf(0, vec![LeafArg::Int(Expr::i64(0)), at(y), LeafArg::Int(Expr::i64(1))]);
            k.leaf(0, vec![at(x), at(y), LeafArg::Int(Expr::i64(1))]);
        }));
    }
}
