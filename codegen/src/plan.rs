//! The memory plan: every intermediate buffer gets an offset in one arena, such that buffers alive at the same
//! time do not overlap. Best fit by size over lifetimes, deterministic.

use crate::lower::ALIGN;
use crate::program::{BufferId, Place, Program};
use std::fmt::Write;

/// A buffer's first and last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    first: usize,
    last: usize,
}

/// Places every buffer that has no place yet, and sets the arena's size. A buffer that no step uses gets no memory.
pub fn plan(program: &mut Program) {
    let lifetimes = lifetimes(program);
    let mut waiting: Vec<BufferId> = (0..program.buffers.len() as u32).map(BufferId).collect();
    waiting.retain(|b| program.buffers[b.0 as usize].place.is_none() && lifetimes[b.0 as usize].is_some());
    // Large ones first: what comes later fits into the gaps between them.
    waiting.sort_by_key(|b| (std::cmp::Reverse(program.buffers[b.0 as usize].bytes()), b.0));
    let mut placed: Vec<(u64, u64, Lifetime)> = vec![];
    for b in waiting {
        let size = program.buffers[b.0 as usize].bytes().next_multiple_of(ALIGN);
        let life = lifetimes[b.0 as usize].expect("only buffers in use are waiting");
        let offset = best_gap(&placed, size, life);
        program.buffers[b.0 as usize].place = Some(Place::Arena(offset));
        program.arena_bytes = program.arena_bytes.max(offset + size);
        let at = placed.partition_point(|p| p.0 < offset);
        placed.insert(at, (offset, size, life));
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
            if a.0 < b.1 && b.0 < a.1 && overlap(a.2, b.2) {
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
    let mut text = format!(
        "arena: {} bytes for {} buffers of {total} bytes in {} steps\n",
        program.arena_bytes,
        rows.len(),
        program.steps.len()
    );
    rows.sort_by_key(|r| (std::cmp::Reverse(r.1), r.0));
    let hidden = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    rows.sort_by_key(|r| (r.2.first, r.0));
    for (offset, bytes, life, b) in rows {
        let name = program.buffers[b].name.as_deref().unwrap_or("(scratch)");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  steps {:>4}..{:<4} at {offset:>10} {bytes:>10} bytes  {name}", life.first, life.last);
    }
    if hidden > 0 {
        text += &format!("  and {hidden} smaller ones\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
