//! Weights that are brought nearer while others are used, and where in a leaf's loops that happens.

use super::brgemm::{ARGS, IN, Leaf};
use super::{asm::mem, slots};
use iced_x86::{Code, Register};

/// Which weights are brought nearer while others are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefetch {
    None,
    /// Those that the same tile uses so many bytes later, into the L1 cache.
    Ahead(u32),
    /// Those that the next calls use, into the L2 cache: each tile brings so many bytes. They begin at the address of this
    /// call's weights plus the argument behind the operands. With little arithmetic for each weight, a first tile would wait
    /// for memory and the others would leave it idle.
    Next(u32),
}

/// Steps that the body of a lone loop holds at most, so that its rounds are no more than the lines to fetch.
const LONGEST_BODY: u32 = 16;

/// What the next call's weights are addressed by.
pub(super) const NEXT: Register = Register::R12;

/// Where [`Prefetch::Next`] happens: `lines` at each round of the loop at this depth, or at the start of a tile.
#[derive(Clone, Copy, Default)]
pub(super) struct Schedule {
    depth: Option<usize>,
    lines: u32,
}

impl Schedule {
    /// The deepest loop that has no more rounds than there are lines to fetch, given the rounds of each loop.
    pub fn new(bytes: u32, rounds: impl Iterator<Item = u32>) -> Schedule {
        let lines = bytes / 64;
        let mut total = 1u32;
        let mut best = Schedule { depth: None, lines };
        for (depth, n) in rounds.enumerate() {
            total = total.saturating_mul(n);
            if total <= lines {
                best = Schedule { depth: Some(depth), lines: (lines + total / 2) / total };
            }
        }
        best
    }

    /// Whether anything is brought.
    pub fn is_some(&self) -> bool {
        self.lines > 0
    }
}

impl Leaf<'_> {
    /// Spreads what is to be brought over the rounds of the loops.
    pub(super) fn plan_prefetch(&mut self) {
        let Prefetch::Next(bytes) = self.s.prefetch else { return };
        let last = self.loops.len() - 1;
        let trip = self.loops[last].trip;
        let usual = self.unroll(trip, self.s.blocks);
        // Without a loop around it that has fewer rounds, all would be brought at a tile's start, more at once than a core waits for.
        let longer = (usual..=LONGEST_BODY).find(|&body| trip.is_multiple_of(body) && trip / body <= bytes / 64);
        let body = longer.filter(|_| last == 0).unwrap_or(usual);
        let rounds = self.loops.iter().enumerate().map(|(depth, r)| if depth == last { trip / body } else { r.trip });
        self.prefetch = Schedule::new(bytes, rounds);
        self.body = Some(body);
    }

    /// Loads the address, which is given relative to the weights, behind so many operands.
    pub(super) fn load_next(&mut self, operands: usize) {
        if self.prefetch.is_some() {
            self.asm.load64(NEXT, mem(ARGS, slots::OPERANDS + 8 * operands as i64));
            self.asm.load64(IN, mem(ARGS, slots::W));
            self.asm.op_rr(Code::Add_rm64_r64, NEXT, IN);
        }
    }

    /// Prefetches what is due at this depth.
    pub(super) fn prefetch_next(&mut self, depth: Option<usize>) {
        let Schedule { depth: due, lines } = self.prefetch;
        if lines > 0 && depth == due {
            (0..i64::from(lines)).for_each(|line| self.asm.prefetch_far(mem(NEXT, 64 * line)));
            self.asm.add_imm(NEXT, 64 * i64::from(lines));
        }
    }
}
