//! Where the lanes that a branch sends apart meet again: the branch's immediate post-dominator.
//!
//! Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", on the reversed graph of basic blocks, whose
//! single exit stands for the end of the function. `exit` and `ret` count as going on to the next instruction: the lanes
//! that leave are gone, and those that a branch sent around them should meet right behind.

use crate::inst::{Inst, Op};

/// Sets `Inst::reconverge` of every branch.
pub fn set_reconvergence(code: &mut [Inst]) {
    let starts = block_starts(code);
    let blocks = starts.len();
    let exit = blocks;
    let block_of = |pc: usize| starts.partition_point(|&s| s <= pc) - 1;
    let mut successors: Vec<Vec<usize>> = Vec::with_capacity(blocks);
    for (b, &start) in starts.iter().enumerate() {
        let end = starts.get(b + 1).copied().unwrap_or(code.len());
        debug_assert!(start < end);
        let last = &code[end - 1];
        let mut next = Vec::new();
        let mut push = |pc: usize| next.push(if pc < code.len() { block_of(pc) } else { exit });
        match &last.op {
            Op::Bra { target } => push(*target as usize),
            Op::BraIndexed { targets, .. } => targets.iter().for_each(|&t| push(t as usize)),
            _ => push(end),
        }
        if matches!(last.op, Op::Bra { .. } | Op::BraIndexed { .. }) && last.guard.is_some() {
            push(end);
        }
        successors.push(next);
    }
    let dominator = post_dominators(&successors, exit);
    for (b, &meet) in dominator[..blocks].iter().enumerate() {
        let end = starts.get(b + 1).copied().unwrap_or(code.len());
        if meet < exit {
            code[end - 1].reconverge = starts[meet] as u32;
        }
    }
}

fn block_starts(code: &[Inst]) -> Vec<usize> {
    let mut is_start = vec![false; code.len() + 1];
    is_start[0] = true;
    for (pc, inst) in code.iter().enumerate() {
        match &inst.op {
            Op::Bra { target } => is_start[*target as usize] = true,
            Op::BraIndexed { targets, .. } => targets.iter().for_each(|&t| is_start[t as usize] = true),
            Op::Ret | Op::Exit | Op::Trap => {}
            _ => continue,
        }
        is_start[pc + 1] = true;
    }
    (0..code.len()).filter(|&pc| is_start[pc]).collect()
}

/// The immediate post-dominator of each block; `usize::MAX` for blocks from which the exit is not reached.
fn post_dominators(successors: &[Vec<usize>], exit: usize) -> Vec<usize> {
    let mut predecessors = vec![Vec::new(); exit + 1];
    for (b, next) in successors.iter().enumerate() {
        for &s in next {
            predecessors[s].push(b);
        }
    }
    // Post-order of the reversed graph, from the exit.
    let mut number = vec![usize::MAX; exit + 1];
    let mut seen = vec![false; exit + 1];
    let mut order = Vec::with_capacity(exit + 1);
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((node, child)) = stack.pop() {
        if let Some(&next) = predecessors[node].get(child) {
            stack.push((node, child + 1));
            if !seen[next] {
                seen[next] = true;
                stack.push((next, 0));
            }
        } else {
            number[node] = order.len();
            order.push(node);
        }
    }
    let mut dominator = vec![usize::MAX; exit + 1];
    dominator[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().skip(1) {
            let mut meet = usize::MAX;
            for &s in &successors[node] {
                if dominator[s] == usize::MAX {
                    continue;
                }
                meet = if meet == usize::MAX { s } else { intersect(&dominator, &number, meet, s) };
            }
            if dominator[node] != meet {
                dominator[node] = meet;
                changed = true;
            }
        }
    }
    dominator
}

fn intersect(dominator: &[usize], number: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while number[a] < number[b] {
            a = dominator[a];
        }
        while number[b] < number[a] {
            b = dominator[b];
        }
    }
    a
}
