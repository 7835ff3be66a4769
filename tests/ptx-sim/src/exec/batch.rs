//! Loads and stores of a warp whose lanes all lie well in one variable or allocation: bounds and alignment are checked
//! once, not for each lane. Whatever does not fit this is left to the way lane by lane, which also words the faults.

use crate::fault::{Checked, FaultKind, trouble};
use crate::memory::race;
use crate::types::Space;

use super::Machine;
use super::warp::{Lanes, Warp, each};

/// The accesses of a warp to one state space.
pub struct Batch<'a> {
    pub addresses: &'a Lanes,
    pub lanes: u32,
    /// Bytes of each lane, a power of two.
    pub size: usize,
    pub strong: bool,
}

impl Batch<'_> {
    /// The lowest address and the end of the highest access; `None` if one is misaligned.
    fn span(&self) -> Option<(u64, u64)> {
        let (mut low, mut high, mut all) = (u64::MAX, 0, 0);
        for lane in each(self.lanes) {
            let address = self.addresses[lane as usize];
            low = low.min(address);
            high = high.max(address);
            all |= address;
        }
        let end = high.checked_add(self.size as u64)?;
        (all & (self.size as u64 - 1) == 0).then_some((low, end))
    }
}

impl Machine<'_> {
    /// Hands each lane's bytes to `sink`; false if this is not one of the easy cases and the lanes must go one by one.
    pub(super) fn read_batch(
        &mut self,
        warp: &Warp<'_>,
        space: Space,
        batch: &Batch<'_>,
        mut sink: impl FnMut(usize, &[u8]),
    ) -> Checked<bool> {
        let Some((low, end)) = batch.span() else { return Ok(false) };
        let size = batch.size;
        let order = self.clocks.view(warp.index);
        match space {
            Space::Shared if self.shared.holds(low, end) => {
                // Lanes that follow each other and read the same bytes are one read.
                let (mut rest, mut at, mut run) = (batch.lanes, 0, 0u32);
                loop {
                    let next = rest.trailing_zeros();
                    let address = if rest == 0 { u64::MAX } else { batch.addresses[next as usize] };
                    if run != 0 && address != at {
                        let Ok(bytes) = self.shared.bytes.read(at as usize, size) else { return Ok(false) };
                        each(run).for_each(|lane| sink(lane as usize, bytes));
                        let me = order.access(run.trailing_zeros(), warp.line, batch.strong);
                        self.shared.note_read(at as usize, size, me, run, &order)?;
                        run = 0;
                    }
                    if rest == 0 {
                        break;
                    }
                    at = address;
                    run |= 1 << next;
                    rest &= rest - 1;
                }
                Ok(true)
            }
            Space::Global => {
                let Some(allocation) = self.global.find(low, end - low) else { return Ok(false) };
                for lane in each(batch.lanes) {
                    let at = (batch.addresses[lane as usize] - allocation.base) as usize;
                    let Ok(bytes) = allocation.bytes.read(at, size) else { return Ok(false) };
                    sink(lane as usize, bytes);
                    if let Some(logs) = &mut allocation.logs {
                        let me = order.access(lane, warp.line, batch.strong);
                        if let Err(other) = logs.note(at, size, false, me, 1 << lane, &order) {
                            return race(&format!("byte {at} of {}", allocation.name), false, me, other);
                        }
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Writes what `source` puts into the buffer for each lane; false, with nothing done, if this is not an easy case.
    pub(super) fn write_batch(
        &mut self,
        warp: &Warp<'_>,
        space: Space,
        batch: &Batch<'_>,
        source: impl Fn(usize, &mut [u8]),
    ) -> Checked<bool> {
        let Some((low, end)) = batch.span() else { return Ok(false) };
        let size = batch.size;
        let order = self.clocks.view(warp.index);
        let mut buffer = [0u8; 16];
        let bytes = &mut buffer[..size];
        match space {
            Space::Shared if self.shared.holds(low, end) => {
                for lane in each(batch.lanes) {
                    let at = batch.addresses[lane as usize] as usize;
                    if self.shared.bytes.is_pending(at, size) {
                        let place = self.shared.describe(at);
                        let message = format!("{place}: an asynchronous copy to it has not been waited for");
                        return trouble(FaultKind::PendingCopy, lane, message);
                    }
                    let me = order.access(lane, warp.line, batch.strong);
                    self.shared.note_write(at, size, me, &order)?;
                    source(lane as usize, bytes);
                    self.shared.bytes.write(at, bytes);
                }
                Ok(true)
            }
            Space::Global => {
                let Some(allocation) = self.global.find(low, end - low) else { return Ok(false) };
                if allocation.constant {
                    return Ok(false);
                }
                for lane in each(batch.lanes) {
                    let at = (batch.addresses[lane as usize] - allocation.base) as usize;
                    if let Some(logs) = &mut allocation.logs {
                        let me = order.access(lane, warp.line, batch.strong);
                        if let Err(other) = logs.note(at, size, true, me, 0, &order) {
                            return race(&format!("byte {at} of {}", allocation.name), true, me, other);
                        }
                    }
                    source(lane as usize, bytes);
                    allocation.bytes.write(at, bytes);
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
