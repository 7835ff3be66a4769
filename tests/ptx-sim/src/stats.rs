//! What a launch did: instructions, memory transactions and bank conflicts.

use std::collections::BTreeMap;

/// The counts of one launch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Instructions that warps issued.
    pub warp_instructions: u64,
    /// The same, counted once for each thread that took part.
    pub thread_instructions: u64,
    /// Branches that sent lanes of a warp apart.
    pub divergent_branches: u64,
    /// Block barriers that completed.
    pub barriers: u64,
    /// Accesses to global memory, all lines together.
    pub global: AccessStats,
    /// Accesses to shared memory, all lines together.
    pub shared: AccessStats,
    /// Accesses by the line of their instruction and whether they are to shared memory.
    pub lines: BTreeMap<(u32, MemoryKind), AccessStats>,
}

/// Which memory an access was to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum MemoryKind {
    Global,
    Shared,
}

/// Requests of warps to one kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccessStats {
    /// Warp instructions.
    pub requests: u64,
    /// Bytes that the threads asked for.
    pub bytes: u64,
    /// Global memory: sectors of 32 bytes touched, counted once in each request. Shared memory: passes over the 32
    /// banks.
    pub transactions: u64,
    /// The transactions that would have done if all bytes were adjacent and free of conflicts.
    pub ideal: u64,
}

impl AccessStats {
    /// Transactions beyond the ideal: uncoalesced sectors, or bank conflicts.
    pub fn excess(&self) -> u64 {
        self.transactions - self.ideal
    }

    /// Ideal over actual transactions: 1 is perfect.
    pub fn efficiency(&self) -> f64 {
        if self.transactions == 0 { 1.0 } else { self.ideal as f64 / self.transactions as f64 }
    }

    fn add(&mut self, bytes: u64, transactions: u64, ideal: u64) {
        self.requests += 1;
        self.bytes += bytes;
        self.transactions += transactions;
        self.ideal += ideal;
    }
}

/// The addresses of one request, by lane.
pub(crate) struct Request<'a> {
    pub addresses: &'a [u64; 32],
    pub lanes: u32,
    /// Bytes of each lane: 1 to 16.
    pub size: u32,
}

impl Stats {
    /// The counts of the instructions at `line`, to either memory.
    pub fn line(&self, line: u32, kind: MemoryKind) -> AccessStats {
        self.lines.get(&(line, kind)).copied().unwrap_or_default()
    }

    /// Adds what another launch did.
    pub fn merge(&mut self, other: &Stats) {
        self.warp_instructions += other.warp_instructions;
        self.thread_instructions += other.thread_instructions;
        self.divergent_branches += other.divergent_branches;
        self.barriers += other.barriers;
        let sum = |into: &mut AccessStats, from: &AccessStats| {
            into.requests += from.requests;
            into.bytes += from.bytes;
            into.transactions += from.transactions;
            into.ideal += from.ideal;
        };
        sum(&mut self.global, &other.global);
        sum(&mut self.shared, &other.shared);
        for (line, stats) in &other.lines {
            sum(self.lines.entry(*line).or_default(), stats);
        }
    }

    pub(crate) fn count(&mut self, kind: MemoryKind, line: u32, request: &Request<'_>) {
        let bytes = u64::from(request.lanes.count_ones() * request.size);
        if bytes == 0 {
            return;
        }
        let (transactions, ideal) = match kind {
            MemoryKind::Global => sectors(request),
            MemoryKind::Shared => passes(request),
        };
        let total = match kind {
            MemoryKind::Global => &mut self.global,
            MemoryKind::Shared => &mut self.shared,
        };
        total.add(bytes, transactions, ideal);
        self.lines.entry((line, kind)).or_default().add(bytes, transactions, ideal);
    }
}

/// Distinct words of `unit` bytes, a power of two, that the lanes touch, sorted.
fn distinct(request: &Request<'_>, unit: u64, words: &mut [u64; 32]) -> usize {
    let mut count = 0;
    let mut sorted = true;
    let shift = unit.trailing_zeros();
    for (lane, &address) in request.addresses.iter().enumerate() {
        let word = address >> shift;
        if request.lanes >> lane & 1 == 1 && (count == 0 || words[count - 1] != word) {
            sorted &= count == 0 || words[count - 1] < word;
            words[count] = word;
            count += 1;
        }
    }
    if sorted {
        return count;
    }
    words[..count].sort_unstable();
    let mut kept = 0;
    for i in 0..count {
        if kept == 0 || words[kept - 1] != words[i] {
            words[kept] = words[i];
            kept += 1;
        }
    }
    kept
}

fn sectors(request: &Request<'_>) -> (u64, u64) {
    // Accesses are aligned to their size, so each lies in one sector.
    let mut words = [0; 32];
    let touched = distinct(request, 32, &mut words) as u64;
    let elements = distinct(request, u64::from(request.size), &mut words) as u64;
    (touched, (elements * u64::from(request.size)).div_ceil(32))
}

/// Shared memory has 32 banks of 4 bytes. A request of 4 bytes or fewer per lane goes over them once, one of 8 bytes
/// once for each half of the warp, one of 16 once for each quarter; each time as often as one bank has different words.
fn passes(request: &Request<'_>) -> (u64, u64) {
    let lanes_at_once = match request.size {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let (mut total, mut ideal) = (0, 0);
    for first in (0..32).step_by(lanes_at_once) {
        let group = ((1u64 << lanes_at_once) - 1) as u32;
        let lanes = request.lanes & (group << first);
        if lanes == 0 {
            continue;
        }
        let mut words = [0; 32];
        let unit = u64::from(request.size.max(4));
        let count = distinct(&Request { lanes, ..*request }, unit, &mut words);
        let mut load = [0u64; 32];
        for &word in &words[..count] {
            let per_word = unit / 4;
            for bank in 0..per_word {
                load[((word * per_word + bank) % 32) as usize] += 1;
            }
        }
        total += load.into_iter().max().unwrap_or(0);
        ideal += 1;
    }
    (total, ideal)
}
