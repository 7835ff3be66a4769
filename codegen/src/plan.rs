//! The memory plan: every intermediate buffer gets an offset in one arena, such that buffers alive at the same
//! time do not overlap, but for results that take the place of an operand ([`in_place`](crate::kernel::in_place)). Best fit over
//! lifetimes, deterministic.

use crate::kernel::in_place::may_take_place;
use crate::kernel::{Access, Param};
use crate::lower::ALIGN;
use crate::program::{BufferId, Place, Program, Step};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// A buffer's first and last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    first: usize,
    last: usize,
}

/// What lies in one place: a buffer, and results that take it over from each other.
#[derive(Clone, Copy, Debug)]
struct Tenancy {
    size: u64,
    life: Lifetime,
}

impl Tenancy {
    fn steps(&self) -> u64 {
        (self.life.last - self.life.first + 1) as u64
    }
}

/// A result in the place of an operand that dies where it is written.
#[derive(Clone, Copy, Debug)]
struct TakeOver {
    step: usize,
    operand: BufferId,
    result: BufferId,
}

/// Places every buffer that has no place yet, and sets the arena's size. A buffer that no step uses gets no memory.
pub fn plan(program: &mut Program) {
    let lifetimes = lifetimes(program);
    let unshared = Layout::new(program, &lifetimes, &[]);
    let take_overs = if program.in_place { take_overs(program, &lifetimes) } else { vec![] };
    let shared = Layout::new(program, &lifetimes, &take_overs);
    // Longer tenancies may fit together worse than shorter ones.
    let (layout, take_overs) = if shared.bytes <= unshared.bytes { (shared, take_overs) } else { (unshared, vec![]) };
    program.arena_bytes = program.arena_bytes.max(layout.bytes);
    for (b, offset) in layout.offsets {
        program.buffers[b.0 as usize].place = Some(Place::Arena(offset));
    }
    for t in take_overs {
        // Compiled loops may move loads behind stores unless they know that both are in one place.
        let Step { kernel, args, .. } = &program.steps[t.step];
        let param = args.iter().position(|&b| b == t.operand).expect("it is the step's");
        program.kernels[*kernel].params[param].access = Access::ReadWrite;
    }
}

struct Layout {
    bytes: u64,
    offsets: Vec<(BufferId, u64)>,
}

/// What is placed first: the largest.
type Order = fn(&Tenancy) -> (u64, u64);

impl Layout {
    /// The smallest of those that a few orders give. What comes later fits into the gaps between what came before.
    fn new(program: &Program, lifetimes: &[Option<Lifetime>], take_overs: &[TakeOver]) -> Layout {
        let (tenancies, of) = tenancies(program, lifetimes, take_overs);
        let orders: [Order; 3] =
            [|t| (t.size, t.steps()), |t| (t.size.saturating_mul(t.steps()), t.size), |t| (t.steps(), t.size)];
        let placed = orders.map(|order| {
            let mut waiting: Vec<usize> = (0..tenancies.len()).collect();
            waiting.sort_by_key(|&t| (std::cmp::Reverse(order(&tenancies[t])), t));
            fit(&tenancies, &waiting)
        });
        let (bytes, at) = placed.into_iter().min_by_key(|p| p.0).expect("there are orders");
        Layout { bytes, offsets: of.into_iter().map(|(b, t)| (b, at[t])).collect() }
    }
}

/// The bytes that best fit in this order takes, and the offsets.
fn fit(tenancies: &[Tenancy], order: &[usize]) -> (u64, Vec<u64>) {
    let mut placed: Vec<(u64, u64, Lifetime)> = vec![];
    let mut offsets = vec![0; tenancies.len()];
    let mut bytes = 0;
    for &t in order {
        let Tenancy { size, life } = tenancies[t];
        let offset = best_gap(&placed, size, life);
        offsets[t] = offset;
        bytes = bytes.max(offset + size);
        let at = placed.partition_point(|p| p.0 < offset);
        placed.insert(at, (offset, size, life));
    }
    (bytes, offsets)
}

/// Of all buffers without a place; and which each of them has. `take_overs` are in the order of their steps.
fn tenancies(
    program: &Program,
    lifetimes: &[Option<Lifetime>],
    take_overs: &[TakeOver],
) -> (Vec<Tenancy>, Vec<(BufferId, usize)>) {
    let mut tenancies: Vec<Tenancy> = vec![];
    let mut of: Vec<Option<usize>> = vec![None; program.buffers.len()];
    let results: HashSet<BufferId> = take_overs.iter().map(|t| t.result).collect();
    for (b, info) in program.buffers.iter().enumerate() {
        let Some(life) = lifetimes[b].filter(|_| info.place.is_none()) else { continue };
        if !results.contains(&BufferId(b as u32)) {
            of[b] = Some(tenancies.len());
            tenancies.push(Tenancy { size: info.bytes().next_multiple_of(ALIGN), life });
        }
    }
    for t in take_overs {
        let tenancy = of[t.operand.0 as usize].expect("operands come before what takes them over");
        of[t.result.0 as usize] = Some(tenancy);
        tenancies[tenancy].life.last = lifetimes[t.result.0 as usize].expect("a step writes it").last;
    }
    let of = of.into_iter().enumerate().filter_map(|(b, t)| Some((BufferId(b as u32), t?)));
    (tenancies, of.collect())
}

/// Each result takes over the largest operand that it may.
fn take_overs(program: &Program, lifetimes: &[Option<Lifetime>]) -> Vec<TakeOver> {
    let mut found: Vec<TakeOver> = vec![];
    for (at, step) in program.steps.iter().enumerate() {
        for &result in &step.args {
            let mut operands = step.args.clone();
            operands.sort_by_key(|b| (std::cmp::Reverse(program.buffers[b.0 as usize].bytes()), b.0));
            operands.dedup();
            let free = |b: &BufferId| program.buffers[b.0 as usize].place.is_none();
            let taken = |b: &BufferId| found.iter().rev().take_while(|t| t.step == at).any(|t| t.operand == *b);
            let may = |b: &BufferId| free(b) && !taken(b) && takes_over(program, lifetimes, at, *b, result);
            if let Some(operand) = operands.into_iter().find(|b| free(&result) && may(b)) {
                found.push(TakeOver { step: at, operand, result });
            }
        }
    }
    found
}

/// Whether the operand dies at this step, the result comes to life there, and the kernel allows that they lie in one place.
fn takes_over(
    program: &Program,
    lifetimes: &[Option<Lifetime>],
    at: usize,
    operand: BufferId,
    result: BufferId,
) -> bool {
    let (Some(a), Some(b)) = (lifetimes[operand.0 as usize], lifetimes[result.0 as usize]) else { return false };
    let step = &program.steps[at];
    let param = |buffer: BufferId| {
        let mut places = step.args.iter().enumerate().filter(|(_, b)| **b == buffer).map(|(p, _)| p as Param);
        places.next().filter(|_| places.next().is_none())
    };
    let (Some(from), Some(to)) = (param(operand), param(result)) else { return false };
    program.in_place && a.first < at && a.last == at && b.first == at && {
        may_take_place(&program.kernels[step.kernel], &program.leaves, from, to)
    }
}

/// The start of the smallest gap of at least `size` bytes among the buffers alive in `life`, else the end.
/// `placed` is sorted by offset.
fn best_gap(placed: &[(u64, u64, Lifetime)], size: u64, life: Lifetime) -> u64 {
    let mut end = 0;
    let mut best: Option<(u64, u64)> = None;
    for &(offset, length, _) in placed.iter().filter(|p| overlap(p.2, life)) {
        if offset >= end + size && best.is_none_or(|(_, gap)| offset - end < gap) {
            best = Some((end, offset - end));
        }
        end = end.max(offset + length);
    }
    best.map_or(end, |(start, _)| start)
}

fn overlap(a: Lifetime, b: Lifetime) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// By buffer; `None` for those that no step uses.
fn lifetimes(program: &Program) -> Vec<Option<Lifetime>> {
    let mut lifetimes: Vec<Option<Lifetime>> = vec![None; program.buffers.len()];
    for (at, step) in program.steps.iter().enumerate() {
        for b in &step.args {
            let life = &mut lifetimes[b.0 as usize];
            let first = life.map_or(at, |l| l.first);
            *life = Some(Lifetime { first, last: at });
        }
    }
    lifetimes
}

/// What is wrong with a plan: buffers without a place, outside the arena, misaligned, or over one another.
pub fn check(program: &Program) -> Vec<String> {
    let lifetimes = lifetimes(program);
    let mut wrong = vec![];
    let mut arena: Vec<(u64, u64, Lifetime, usize)> = vec![];
    for (b, info) in program.buffers.iter().enumerate() {
        let Some(life) = lifetimes[b] else { continue };
        match info.place {
            None => wrong.push(format!("buffer {b} has no place")),
            Some(Place::Arena(offset)) => {
                if offset % ALIGN != 0 || offset + info.bytes() > program.arena_bytes {
                    wrong.push(format!("buffer {b} at {offset} is misaligned or outside the arena"));
                }
                arena.push((offset, offset + info.bytes(), life, b));
            }
            Some(Place::Input(_) | Place::Output(_) | Place::Weights(_)) => {}
        }
    }
    for (i, a) in arena.iter().enumerate() {
        for b in &arena[i + 1..] {
            let in_place = |a: &(u64, u64, Lifetime, usize), b: &(u64, u64, Lifetime, usize)| {
                let (operand, result) = (BufferId(a.3 as u32), BufferId(b.3 as u32));
                a.0 == b.0 && takes_over(program, &lifetimes, a.2.last, operand, result)
            };
            if a.0 < b.1 && b.0 < a.1 && overlap(a.2, b.2) && !in_place(a, b) && !in_place(b, a) {
                wrong.push(format!("buffers {} and {} overlap in place and time", a.3, b.3));
            }
        }
    }
    wrong
}

/// Longest list of buffers that [`picture`] draws.
const MAX_ROWS: usize = 64;

/// The plan as text: the largest buffers with their offsets and lifetimes.
pub fn picture(program: &Program) -> String {
    let lifetimes = lifetimes(program);
    let mut rows: Vec<(u64, u64, Lifetime, usize)> = vec![];
    for (b, info) in program.buffers.iter().enumerate() {
        if let (Some(Place::Arena(offset)), Some(life)) = (info.place, lifetimes[b]) {
            rows.push((offset, info.bytes(), life, b));
        }
    }
    let total: u64 = rows.iter().map(|r| r.1).sum();
    let operand_of = |r: &(u64, u64, Lifetime, usize)| {
        let before = rows.iter().find(|o| o.3 != r.3 && o.0 == r.0 && o.2.last == r.2.first && o.2.first < r.2.first);
        before.map(|o| o.3)
    };
    let operands: HashMap<usize, usize> = rows.iter().filter_map(|r| Some((r.3, operand_of(r)?))).collect();
    // What a result takes over is not there twice.
    let alive = |at: usize| -> u64 {
        let own = |r: &&(u64, u64, Lifetime, usize)| {
            let is_there = r.2.first <= at && at <= r.2.last;
            is_there && !(r.2.first == at && operands.contains_key(&r.3))
        };
        rows.iter().filter(own).map(|r| r.1.next_multiple_of(ALIGN)).sum()
    };
    let most = (0..program.steps.len()).map(alive).max().unwrap_or(0);
    let mut text = format!(
        "arena: {} bytes for {} buffers of {total} bytes in {} steps, at most {most} bytes at a time, {} in place\n",
        program.arena_bytes,
        rows.len(),
        program.steps.len(),
        operands.len()
    );
    rows.sort_by_key(|r| (std::cmp::Reverse(r.1), r.0));
    let hidden = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    rows.sort_by_key(|r| (r.2.first, r.0));
    for (offset, bytes, life, b) in rows {
        let name_of = |b: usize| program.buffers[b].name.as_deref().unwrap_or("(scratch)");
        let name = name_of(b);
        let taken = operands.get(&b).map_or(String::new(), |&o| format!(", in place of {}", name_of(o)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  steps {:>4}..{:<4} at {offset:>10} {bytes:>10} bytes  {name}{taken}",
            life.first, life.last
        );
    }
    if hidden > 0 {
        text += &format!("  and {hidden} smaller ones\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Blocks, Expr, KernelBuilder, LoopKind};
    use crate::program::{BufferInfo, Step};
    use lehr_ir::DType;

    /// A chain: step k reads buffer k and writes buffer k + 1.
    fn chain(sizes: &[usize]) -> Program {
        let buffers = sizes.iter().map(|&len| BufferInfo { dtype: DType::U8, len, place: None, name: None });
        let step = |k: usize| Step {
            kernel: 0,
            args: vec![BufferId(k as u32), BufferId(k as u32 + 1)],
            origins: vec![],
            first_fault: 0,
        };
        Program { buffers: buffers.collect(), steps: (0..sizes.len() - 1).map(step).collect(), ..Program::default() }
    }

    #[test]
    fn a_chain_needs_two_neighbours_at_a_time() {
        let mut p = chain(&[1000, 640, 640, 640, 640, 64]);
        plan(&mut p);
        assert_eq!(check(&p), Vec::<String>::new());
        assert_eq!(p.arena_bytes, 1024 + 640);
    }

    #[test]
    fn the_check_sees_an_overlap() {
        let mut p = chain(&[64, 64, 64]);
        plan(&mut p);
        p.buffers[1].place = p.buffers[0].place;
        // With the first, whose place it has now, and with the last, which had taken that over.
        assert_eq!(check(&p).len(), 2);
    }

    /// Buffer 0 is an operand that a step writes first; step 1 computes buffer 1 from it, element by element, and step 2 reads `last`.
    fn relu(last: u32) -> Program {
        let mut p = chain(&[640, 640, 640]);
        let mut k = KernelBuilder::new("relu");
        let x = k.param(DType::U8, 640, Access::Read);
        let y = k.param(DType::U8, 640, Access::Write);
        k.for_(LoopKind::Vector, Expr::i64(0), Expr::i64(640), 1, |k, i| {
            let v = k.load(x, i.clone());
            k.store(y, i, v);
        });
        p.kernels = vec![k.finish(Default::default())];
        let step = |args: &[u32]| Step {
            kernel: 0,
            args: args.iter().map(|&b| BufferId(b)).collect(),
            origins: vec![],
            first_fault: 0,
        };
        p.steps = vec![step(&[2, 0]), step(&[0, 1]), step(&[last, 2])];
        p.buffers[2].place = Some(Place::Output(0));
        p.in_place = true;
        p
    }

    #[test]
    fn a_result_takes_the_place_of_an_operand_that_dies() {
        let mut p = relu(1);
        plan(&mut p);
        assert_eq!((check(&p), p.arena_bytes), (vec![], 640));
        assert!(picture(&p).contains("at most 640 bytes at a time, 1 in place"), "{}", picture(&p));
        // Its loads must not move behind the stores any more.
        assert_eq!(p.kernels[0].params[0].access, Access::ReadWrite);
        // On a GPU, and where the operand is read again.
        let mut on_gpu = Program { in_place: false, ..relu(1) };
        let mut again = relu(0);
        for p in [&mut on_gpu, &mut again] {
            plan(p);
            assert_eq!((check(p), p.arena_bytes), (vec![], 1280));
        }
        again.buffers[1].place = again.buffers[0].place;
        assert_eq!(check(&again).len(), 1);
    }
}
