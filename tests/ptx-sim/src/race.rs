//! Who touched which bytes last, and whether anything orders two accesses: vector clocks of warps, and a log for
//! every four bytes that splits into one for each byte where accesses are narrower.
//!
//! After Flanagan and Freund, "FastTrack: Efficient and Precise Dynamic Race Detection". A warp is what has a clock;
//! lanes of one warp are ordered by `bar.warp.sync` and by block barriers, never by running in lock step (PTX ISA 3.1
//! promises none since sm_70).

use std::collections::BTreeSet;

/// An access by one thread.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The warp's number in the launch or in the block; `NOBODY` in an empty log.
    pub warp: u32,
    pub clock: u32,
    pub line: u32,
    pub lane: u8,
    /// Atomic, volatile or relaxed: does not race with another such.
    pub strong: bool,
}

const NOBODY: u32 = u32::MAX;

impl Access {
    const NONE: Access = Access { warp: NOBODY, clock: 0, line: 0, lane: 0, strong: false };
}

/// Lanes of one warp that read at one clock.
#[derive(Clone, Copy, Debug)]
struct Read {
    access: Access,
    lanes: u32,
}

#[derive(Clone, Debug)]
struct Log {
    write: Access,
    /// The latest read; others of other warps are in `more`.
    read: Read,
    #[allow(clippy::box_collection)] // most logs have none: a third of the bytes less in each
    more: Option<Box<Vec<Read>>>,
}

impl Log {
    const EMPTY: Log = Log { write: Access::NONE, read: Read { access: Access::NONE, lanes: 0 }, more: None };

    /// `lanes`, of which `me` is the first, read.
    #[inline]
    fn on_read(&mut self, me: Access, lanes: u32, order: &View<'_>) -> Result<(), Access> {
        if self.write.warp != NOBODY {
            let unordered = |lane: u8| !order.ordered(&self.write, Access { lane, ..me });
            // What orders one lane with another warp orders them all.
            let race = if self.write.warp == me.warp {
                (0..32).any(|lane| lanes >> lane & 1 == 1 && unordered(lane))
            } else {
                unordered(me.lane)
            };
            if race {
                return Err(self.write);
            }
        }
        let latest = &mut self.read;
        if latest.access.warp == me.warp && latest.access.clock == me.clock && latest.access.strong == me.strong {
            latest.lanes |= lanes;
            latest.access.line = me.line;
            return Ok(());
        }
        let old = std::mem::replace(latest, Read { access: me, lanes });
        if old.access.warp != NOBODY && old.access.warp != me.warp {
            let more = self.more.get_or_insert_default();
            more.retain(|r| r.access.warp != old.access.warp && r.access.warp != me.warp);
            more.push(old);
        }
        Ok(())
    }

    fn on_write(&mut self, me: Access, order: &View<'_>) -> Result<(), Access> {
        if self.write.warp != NOBODY && !order.ordered(&self.write, me) {
            return Err(self.write);
        }
        if self.read.access.warp != NOBODY {
            for read in self.more.iter().flat_map(|more| more.iter()).chain(std::iter::once(&self.read)) {
                let mut lanes = read.lanes;
                while lanes != 0 {
                    let lane = lanes.trailing_zeros() as u8;
                    lanes &= lanes - 1;
                    let access = Access { lane, ..read.access };
                    if !order.ordered(&access, me) {
                        return Err(access);
                    }
                    if read.access.warp != me.warp {
                        break;
                    }
                }
            }
            self.read = Log::EMPTY.read;
            if let Some(more) = &mut self.more {
                more.clear();
            }
        }
        self.write = me;
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Cell {
    Word(Log),
    Bytes(Box<[Log; 4]>),
}

/// The logs of a piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    cells: Vec<Cell>,
}

impl Logs {
    pub fn new(bytes: usize) -> Logs {
        Logs { cells: vec![Cell::Word(Log::EMPTY); bytes.div_ceil(4)] }
    }

    /// Notes an access of `size` bytes at `offset`, within the memory: a read by `lanes`, of which `me` is the first, or
    /// a write by `me`.
    ///
    /// # Errors
    /// The earlier access that races with it.
    pub fn note(
        &mut self,
        offset: usize,
        size: usize,
        is_write: bool,
        me: Access,
        lanes: u32,
        order: &View<'_>,
    ) -> Result<(), Access> {
        let apply = |log: &mut Log| if is_write { log.on_write(me, order) } else { log.on_read(me, lanes, order) };
        let mut at = offset;
        let end = offset + size;
        while at < end {
            let Some(cell) = self.cells.get_mut(at / 4) else { return Ok(()) };
            let whole = at.is_multiple_of(4) && end - at >= 4;
            if !whole && let Cell::Word(log) = cell {
                *cell = Cell::Bytes(Box::new(std::array::from_fn(|_| log.clone())));
            }
            match cell {
                Cell::Word(log) => {
                    apply(log)?;
                    at += 4;
                }
                Cell::Bytes(logs) => {
                    let stop = end.min((at / 4 + 1) * 4);
                    for log in &mut logs[at % 4..at % 4 + (stop - at)] {
                        apply(log)?;
                    }
                    at = stop;
                }
            }
        }
        Ok(())
    }
}

/// The clocks of one block's warps.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// By warp, what it knows of every warp of the block.
    known: Vec<Vec<u32>>,
    /// By warp, the clock at which all its lanes last met.
    met: Vec<u32>,
    /// By warp, later meetings of some of its lanes: clock and lanes.
    met_partly: Vec<Vec<(u32, u32)>>,
    /// The number of the block's first warp.
    first: u32,
    /// Blocks whose work this one has acquired through a flag.
    pub seen: BTreeSet<u32>,
}

impl Clocks {
    pub fn new(warps: usize, first: u32) -> Clocks {
        let known = (0..warps).map(|w| (0..warps).map(|v| u32::from(v == w)).collect()).collect();
        let met_partly = vec![Vec::new(); warps];
        Clocks { known, met: vec![0; warps], met_partly, first, seen: BTreeSet::new() }
    }

    /// What a warp knows now.
    pub fn view(&self, warp: usize) -> View<'_> {
        View {
            warp: self.first + warp as u32,
            first: self.first,
            clock: self.known[warp][warp],
            known: &self.known[warp],
            met: self.met[warp],
            met_partly: &self.met_partly[warp],
            seen: &self.seen,
        }
    }

    /// Some lanes of a warp meet; `all` if no other lane is left.
    pub fn warp_meets(&mut self, warp: usize, lanes: u32, all: bool) {
        self.known[warp][warp] += 1;
        let clock = self.known[warp][warp];
        if all {
            self.met[warp] = clock;
            self.met_partly[warp].clear();
        } else {
            self.met_partly[warp].push((clock, lanes));
        }
    }

    /// A barrier completes: `sync`ing warps know what all `arrived` ones knew.
    pub fn barrier(&mut self, arrived: &[usize], synced: &[usize]) {
        let mut joint = vec![0; self.known.len()];
        for &w in arrived {
            for (j, k) in joint.iter_mut().zip(&self.known[w]) {
                *j = (*j).max(*k);
            }
        }
        for &w in synced {
            self.known[w].clone_from(&joint);
        }
        for &w in arrived {
            self.warp_meets(w, u32::MAX, true);
        }
    }
}

/// What one warp knows: which earlier accesses happen before its own.
pub struct View<'a> {
    warp: u32,
    first: u32,
    clock: u32,
    known: &'a [u32],
    met: u32,
    met_partly: &'a [(u32, u32)],
    seen: &'a BTreeSet<u32>,
}

impl View<'_> {
    /// An access by a lane of the warp.
    #[inline]
    pub fn access(&self, lane: u32, line: u32, strong: bool) -> Access {
        Access { warp: self.warp, clock: self.clock, line, lane: lane as u8, strong }
    }

    /// Whether `earlier` happens before `now`, an access of this warp.
    #[inline]
    fn ordered(&self, earlier: &Access, now: Access) -> bool {
        if earlier.strong && now.strong {
            return true;
        }
        if earlier.warp == self.warp {
            return earlier.lane == now.lane || self.met > earlier.clock || self.met_later(earlier, now);
        }
        match self.known.get(earlier.warp.wrapping_sub(self.first) as usize) {
            Some(&known) => known >= earlier.clock,
            None => self.seen.contains(&(earlier.warp / self.known.len() as u32)),
        }
    }

    fn met_later(&self, earlier: &Access, now: Access) -> bool {
        let both = 1u32 << earlier.lane | 1 << now.lane;
        self.met_partly.iter().any(|&(at, lanes)| at > earlier.clock && lanes & both == both)
    }
}
