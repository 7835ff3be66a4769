//! `cp.async` (PTX ISA 9.7.9.25): what is copied is read at once, and lands in shared memory when its thread waits.
//! Between the two nobody may touch the destination.

use std::collections::VecDeque;

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::CpAsync;
use crate::types::Space;

use super::Machine;
use super::access::Spot;
use super::warp::{Warp, each};

/// The copies of one thread that are under way.
#[derive(Clone, Default)]
pub struct LaneCopies {
    open: Vec<Landing>,
    groups: VecDeque<Vec<Landing>>,
}

#[derive(Clone, Copy)]
struct Landing {
    address: u64,
    size: u8,
    bytes: [u8; 16],
}

impl Machine<'_> {
    pub(super) fn copy_async(&mut self, warp: &mut Warp<'_>, copy: &CpAsync, lanes: u32) -> Checked<()> {
        let (to, from) = (self.addresses(warp, copy.dst, lanes)?, self.addresses(warp, copy.src, lanes)?);
        let sizes = match copy.src_size {
            Some(src) => Some(warp.get(src, lanes)?),
            None => None,
        };
        let ignored = match copy.ignore_src {
            Some(pred) => warp.pred_src(pred, lanes)?,
            None => 0,
        };
        let size = u32::from(copy.size);
        let mut read = 0;
        for lane in each(lanes) {
            let i = lane as usize;
            let wanted = if ignored >> lane & 1 == 1 { 0 } else { sizes.map_or(u64::from(size), |s| s[i]) };
            if wanted > u64::from(size) {
                let message = format!("{wanted} bytes of source are more than the {size} of the copy");
                return trouble(FaultKind::OutOfBounds, lane, message);
            }
            let mut bytes = [0; 16];
            if from[i] % u64::from(size) != 0 {
                let message = format!("the source {:#x} is not a multiple of {size}", from[i]);
                return trouble(FaultKind::Misaligned, lane, message);
            }
            if wanted > 0 {
                read |= 1 << lane;
                // Byte by byte where fewer are wanted than the alignment stands for.
                let part = if wanted == u64::from(size) { size } else { 1 };
                for at in (0..wanted as usize).step_by(part as usize) {
                    let spot = Spot { lane, address: from[i] + at as u64, size: part, strong: false };
                    self.read(warp, Space::Global, spot, &mut bytes[at..at + part as usize])?;
                }
            }
            let spot = Spot { lane, address: to[i], size, strong: false };
            self.write(warp, Space::Shared, spot, &bytes[..size as usize])?;
            self.shared.bytes.expect(to[i] as usize, size as usize);
            warp.copies[i].open.push(Landing { address: to[i], size: copy.size, bytes });
        }
        self.count(warp.line, Space::Global, &from, read, size);
        self.count(warp.line, Space::Shared, &to, lanes, size);
        Ok(())
    }

    pub(super) fn copy_commit(&mut self, warp: &mut Warp<'_>, lanes: u32) {
        for lane in each(lanes) {
            let copies = &mut warp.copies[lane as usize];
            let group = std::mem::take(&mut copies.open);
            copies.groups.push_back(group);
        }
    }

    /// Lands all groups but the `left` newest.
    pub(super) fn copy_wait(&mut self, warp: &mut Warp<'_>, left: usize, lanes: u32) -> Checked<()> {
        for lane in each(lanes) {
            while warp.copies[lane as usize].groups.len() > left {
                let Some(group) = warp.copies[lane as usize].groups.pop_front() else { break };
                for landing in group {
                    let (at, size) = (landing.address as usize, usize::from(landing.size));
                    let order = self.clocks.view(warp.index);
                    self.shared.note_write(at, size, order.access(lane, warp.line, false), &order)?;
                    self.shared.bytes.write(at, &landing.bytes[..size]);
                }
            }
        }
        Ok(())
    }
}
