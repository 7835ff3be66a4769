//! Barriers of a block (PTX ISA 9.7.13.1) and of a warp.

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{BarReduce, BarrierKind, PredSrc, Src};

use super::warp::{Warp, each};
use super::{Flow, Machine};

/// The sixteen barriers of a block, and who waits.
pub struct Barriers {
    barriers: [Barrier; 16],
    waiting: Vec<Option<Wait>>,
    results: Vec<Option<Vote>>,
    exited: Vec<bool>,
}

#[derive(Clone, Default)]
struct Barrier {
    arrived: Vec<usize>,
    synced: Vec<usize>,
    /// Threads that are waited for: `None` for all of the block.
    expected: Option<u32>,
    vote: Vote,
}

#[derive(Clone, Copy)]
struct Wait {
    barrier: usize,
    line: u32,
    reduce: Option<BarReduce>,
}

/// What the threads that arrived say.
#[derive(Clone, Copy, Default)]
struct Vote {
    yes: u32,
    all: u32,
}

impl Barriers {
    pub fn new(warps: usize) -> Barriers {
        Barriers {
            barriers: Default::default(),
            waiting: vec![None; warps],
            results: vec![None; warps],
            exited: vec![false; warps],
        }
    }

    pub fn is_waiting(&self, warp: usize) -> bool {
        self.waiting[warp].is_some() && self.results[warp].is_none()
    }

    /// Lets a warp that a barrier has released take the barrier's result.
    pub fn resume(&mut self, warp: &mut Warp<'_>) {
        let Some(vote) = self.results[warp.index].take() else { return };
        let Some(wait) = self.waiting[warp.index].take() else { return };
        let lanes = warp.live;
        let pred = |holds| if holds { u32::MAX } else { 0 };
        match wait.reduce {
            None => {}
            Some(BarReduce::Popc(d)) => warp.set(d, &[u64::from(vote.yes); 32], lanes),
            Some(BarReduce::And(d)) => warp.set_pred(d, pred(vote.yes == vote.all), lanes),
            Some(BarReduce::Or(d)) => warp.set_pred(d, pred(vote.yes > 0), lanes),
        }
    }

    /// Who waits where.
    pub fn describe(&self) -> String {
        let waits = self.waiting.iter().enumerate().filter_map(|(warp, wait)| {
            let wait = wait.as_ref()?;
            Some(format!("warp {warp} waits at barrier {} (line {})", wait.barrier, wait.line))
        });
        let mut parts: Vec<String> = waits.collect();
        let exited = self.exited.iter().filter(|&&e| e).count();
        if exited > 0 {
            parts.push(format!("{exited} warps have exited"));
        }
        parts.join(", ")
    }
}

impl Machine<'_> {
    pub(super) fn barrier(
        &mut self,
        warp: &mut Warp<'_>,
        kind: BarrierKind,
        id: Src,
        count: Option<Src>,
        reduce: Option<(BarReduce, PredSrc)>,
        lanes: u32,
    ) -> Checked<Flow> {
        let first = lanes.trailing_zeros();
        if lanes != warp.live {
            let message = format!(
                "{} of the {} threads of warp {} reach a barrier of the block, the others have branched elsewhere",
                lanes.count_ones(),
                warp.live.count_ones(),
                warp.index
            );
            return trouble(FaultKind::DivergentBarrier, first, message);
        }
        let id = uniform(&warp.get(id, lanes)?, lanes, "the barrier's number")? as usize;
        let expected = match count {
            None => None,
            Some(count) => Some(uniform(&warp.get(count, lanes)?, lanes, "the number of threads")? as u32),
        };
        if expected.is_some_and(|n| n == 0 || n % 32 != 0) {
            return trouble(FaultKind::DivergentBarrier, first, "the number of threads is not a multiple of 32");
        }
        let Some(barrier) = self.barriers.barriers.get_mut(id) else {
            return trouble(FaultKind::DivergentBarrier, first, format!("there is no barrier {id}"));
        };
        if !barrier.arrived.is_empty() && barrier.expected != expected {
            let message = format!("barrier {id} waits for another number of threads already");
            return trouble(FaultKind::DivergentBarrier, first, message);
        }
        if barrier.arrived.contains(&warp.index) {
            let message = format!("warp {} arrives twice at barrier {id}", warp.index);
            return trouble(FaultKind::DivergentBarrier, first, message);
        }
        barrier.expected = expected;
        barrier.arrived.push(warp.index);
        if let Some((_, vote)) = reduce {
            let yes = warp.pred_src(vote, lanes)? & lanes;
            barrier.vote.yes += yes.count_ones();
            barrier.vote.all += lanes.count_ones();
        }
        let waits = kind != BarrierKind::Arrive;
        if waits {
            barrier.synced.push(warp.index);
            let reduce = reduce.map(|r| r.0);
            self.barriers.waiting[warp.index] = Some(Wait { barrier: id, line: warp.line, reduce });
        }
        self.complete(id);
        Ok(if waits { Flow::Wait } else { Flow::On })
    }

    /// Opens a barrier that everybody has reached.
    fn complete(&mut self, id: usize) {
        let Barriers { barriers, results, exited, .. } = &mut self.barriers;
        let barrier = &mut barriers[id];
        let whole = match barrier.expected {
            // Threads that have exited are not waited for.
            None => {
                let left = (0..exited.len()).filter(|w| !exited[*w] || barrier.arrived.contains(w)).count();
                barrier.arrived.len() == left
            }
            Some(threads) => barrier.arrived.len() as u32 * 32 >= threads,
        };
        if barrier.arrived.is_empty() || !whole {
            return;
        }
        let barrier = std::mem::take(barrier);
        for &warp in &barrier.synced {
            results[warp] = Some(barrier.vote);
        }
        self.clocks.barrier(&barrier.arrived, &barrier.synced);
        self.stats.barriers += 1;
    }

    /// A warp has exited: barriers that waited for it alone open.
    pub(super) fn barriers_after_exit(&mut self, warp: usize) {
        self.barriers.exited[warp] = true;
        for id in 0..16 {
            self.complete(id);
        }
    }

    /// `bar.warp.sync`
    pub(super) fn bar_warp(&mut self, warp: &mut Warp<'_>, members: Src, lanes: u32) -> Checked<()> {
        let members = self.members(warp, members, lanes)?;
        let all = members & warp.live == warp.live;
        self.clocks.warp_meets(warp.index, members, all);
        Ok(())
    }

    /// The lanes that a `.sync` instruction names: all of them must be here, and nobody else.
    pub(super) fn members(&mut self, warp: &Warp<'_>, members: Src, lanes: u32) -> Checked<u32> {
        let members = uniform(&warp.get(members, lanes)?, lanes, "the membermask")? as u32;
        let strangers = lanes & !members;
        if strangers != 0 {
            let message = format!("this lane is not in the membermask {members:#010x}");
            return trouble(FaultKind::DivergentBarrier, strangers.trailing_zeros(), message);
        }
        let absent = members & warp.live & !lanes;
        if absent != 0 {
            let message = format!(
                "lane {} is in the membermask {members:#010x} but has branched elsewhere",
                absent.trailing_zeros()
            );
            return trouble(FaultKind::DivergentBarrier, lanes.trailing_zeros(), message);
        }
        Ok(lanes)
    }
}

/// The value that all lanes have.
pub fn uniform(values: &[u64; 32], lanes: u32, what: &str) -> Checked<u64> {
    let first = values[lanes.trailing_zeros() as usize & 31];
    match each(lanes).find(|&lane| values[lane as usize] != first) {
        None => Ok(first),
        Some(lane) => trouble(FaultKind::DivergentBarrier, lane, format!("{what} is not the same in all lanes")),
    }
}
