//! Loads, stores and atomics: every lane's address is placed, checked and noted (PTX ISA 9.7.9, 9.7.13.7).

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Address, Atomic, Base, Load, Pred, Reg, Src, Store, Strength};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW, race};
use crate::module::Place;
use crate::scalar;
use crate::stats::{MemoryKind, Request};
use crate::types::Space;

use super::Machine;
use super::alu::widen;
use super::batch::Batch;
use super::control::from_bytes;
use super::warp::{Lanes, Warp, each};

/// An access of one lane.
#[derive(Clone, Copy)]
pub struct Spot {
    pub lane: u32,
    pub address: u64,
    pub size: u32,
    /// Atomic, volatile or relaxed.
    pub strong: bool,
}

impl Machine<'_> {
    /// The value of an address expression in each lane.
    pub(super) fn addresses(&self, warp: &Warp<'_>, address: Address, lanes: u32) -> Checked<Lanes> {
        let offset = address.offset as u64;
        let function = warp.function();
        Ok(match address.base {
            Base::Zero => [offset; 32],
            Base::Reg(reg) => {
                // A 32-bit address wraps around at 32 bits.
                let mask = function.regs[usize::from(reg)].mask();
                warp.reg(reg, lanes)?.map(|base| base.wrapping_add(offset) & mask)
            }
            Base::Var(var) => {
                let base = match function.vars[usize::from(var)].place {
                    Place::Argument { offset } | Place::Shared { offset } => u64::from(offset),
                    Place::Frame { offset } => warp.frame().local as u64 + u64::from(offset),
                    Place::DynamicShared => u64::from(self.cx.entry().dynamic_base),
                    Place::Module { index } => self.cx.addresses[index as usize],
                };
                [base.wrapping_add(offset); 32]
            }
        })
    }

    /// The state space of a generic address, and the address in it.
    pub(super) fn place(space: Space, address: u64) -> (Space, u64) {
        if space != Space::Generic {
            return (space, address);
        }
        let within = |window: u64| address.checked_sub(window).filter(|&a| a < WINDOW);
        if let Some(offset) = within(SHARED_WINDOW) {
            (Space::Shared, offset)
        } else if let Some(offset) = within(LOCAL_WINDOW) {
            (Space::Local, offset)
        } else {
            (Space::Global, address)
        }
    }

    fn aligned(spot: Spot) -> Checked<()> {
        if spot.address.is_multiple_of(u64::from(spot.size)) {
            return Ok(());
        }
        let message = format!("{:#x} is not a multiple of {}", spot.address, spot.size);
        trouble(FaultKind::Misaligned, spot.lane, message)
    }

    /// Reads one lane's bytes, as many as `into` has.
    pub(super) fn read(&mut self, warp: &Warp<'_>, space: Space, spot: Spot, into: &mut [u8]) -> Checked<()> {
        Self::aligned(spot)?;
        let size = spot.size as usize;
        match space {
            Space::Shared => {
                let at = self.shared.check(spot.address, u64::from(spot.size), spot.lane)?;
                match self.shared.bytes.read(at, size) {
                    Ok(bytes) => into.copy_from_slice(bytes),
                    Err((byte, pending)) => return unwritten(&self.shared.describe(byte), pending, spot.lane),
                }
                let order = self.clocks.view(warp.index);
                let me = order.access(spot.lane, warp.line, spot.strong);
                self.shared.note_read(at, size, me, 1 << spot.lane, &order)
            }
            Space::Local => {
                let at = local_check(warp, spot)?;
                match warp.local[spot.lane as usize].read(at, size) {
                    Ok(bytes) => into.copy_from_slice(bytes),
                    Err(_) => return unwritten("local memory", false, spot.lane),
                }
                Ok(())
            }
            Space::Global | Space::Const | Space::Param | Space::Generic => {
                let Some(allocation) = self.global.find(spot.address, u64::from(spot.size)) else {
                    return self.outside(spot);
                };
                if space == Space::Const && !allocation.constant {
                    return trouble(FaultKind::OutOfBounds, spot.lane, "this address is not in constant memory");
                }
                let at = (spot.address - allocation.base) as usize;
                match allocation.bytes.read(at, size) {
                    Ok(bytes) => into.copy_from_slice(bytes),
                    Err((byte, _)) => {
                        let place = format!("byte {byte} of {} ({} bytes)", allocation.name, allocation.size());
                        return unwritten(&place, false, spot.lane);
                    }
                }
                if let Some(logs) = &mut allocation.logs {
                    let order = self.clocks.view(warp.index);
                    let me = order.access(spot.lane, warp.line, spot.strong);
                    if let Err(other) = logs.note(at, size, false, me, 1 << spot.lane, &order) {
                        return race(&format!("byte {at} of {}", allocation.name), false, me, other);
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes one lane's bytes.
    pub(super) fn write(&mut self, warp: &mut Warp<'_>, space: Space, spot: Spot, bytes: &[u8]) -> Checked<()> {
        Self::aligned(spot)?;
        match space {
            Space::Shared => {
                let at = self.shared.check(spot.address, u64::from(spot.size), spot.lane)?;
                if self.shared.bytes.is_pending(at, bytes.len()) {
                    return unwritten(&self.shared.describe(at), true, spot.lane);
                }
                let order = self.clocks.view(warp.index);
                let me = order.access(spot.lane, warp.line, spot.strong);
                self.shared.note_write(at, bytes.len(), me, &order)?;
                self.shared.bytes.write(at, bytes);
            }
            Space::Local => {
                let at = local_check(warp, spot)?;
                warp.local[spot.lane as usize].write(at, bytes);
            }
            Space::Global | Space::Const | Space::Param | Space::Generic => {
                let Some(allocation) = self.global.find(spot.address, u64::from(spot.size)) else {
                    return self.outside(spot);
                };
                if allocation.constant {
                    let message = format!("{} is constant: it cannot be written", allocation.name);
                    return trouble(FaultKind::OutOfBounds, spot.lane, message);
                }
                let at = (spot.address - allocation.base) as usize;
                if let Some(logs) = &mut allocation.logs {
                    let order = self.clocks.view(warp.index);
                    let me = order.access(spot.lane, warp.line, spot.strong);
                    if let Err(other) = logs.note(at, bytes.len(), true, me, 0, &order) {
                        return race(&format!("byte {at} of {}", allocation.name), true, me, other);
                    }
                }
                allocation.bytes.write(at, bytes);
            }
        }
        Ok(())
    }

    pub(super) fn outside<T>(&self, spot: Spot) -> Checked<T> {
        let message = format!("{} bytes at {}", spot.size, self.global.describe(spot.address));
        trouble(FaultKind::OutOfBounds, spot.lane, message)
    }

    /// Counts a request; one with generic addresses is counted by each space's lanes.
    pub(super) fn count(&mut self, line: u32, space: Space, addresses: &Lanes, lanes: u32, size: u32) {
        let (mut global, mut shared) = match space {
            Space::Global => (lanes, 0),
            Space::Shared => (0, lanes),
            Space::Generic | Space::Const | Space::Local | Space::Param => (0, 0),
        };
        for lane in each(if space == Space::Generic { lanes } else { 0 }) {
            match Self::place(space, addresses[lane as usize]).0 {
                Space::Global => global |= 1 << lane,
                Space::Shared => shared |= 1 << lane,
                Space::Generic | Space::Const | Space::Local | Space::Param => {}
            }
        }
        self.stats.count(MemoryKind::Global, line, &Request { addresses, lanes: global, size });
        self.stats.count(MemoryKind::Shared, line, &Request { addresses, lanes: shared, size });
    }

    pub(super) fn load(&mut self, warp: &mut Warp<'_>, load: &Load, lanes: u32) -> Checked<()> {
        let function = warp.function();
        let element = load.ty.size() as usize;
        let size = element * load.regs.len();
        let mut out = [[0u64; 32]; 4];
        let argument = match load.address.base {
            Base::Var(var) => match function.vars[usize::from(var)].place {
                Place::Argument { offset } => Some((offset, &function.vars[usize::from(var)])),
                _ => None,
            },
            _ => None,
        };
        if let Some((start, var)) = argument {
            let at = load.address.offset;
            if at < 0 || at as u64 + size as u64 > var.size {
                let message = format!("{size} bytes at byte {at} of {} ({} bytes)", var.name, var.size);
                return trouble(FaultKind::OutOfBounds, lanes.trailing_zeros(), message);
            }
            let at = start as usize + at as usize;
            Self::aligned(Spot { lane: lanes.trailing_zeros(), address: at as u64, size: size as u32, strong: true })?;
            for (values, bytes) in out.iter_mut().zip(self.cx.arguments[at..at + size].chunks_exact(element)) {
                *values = [from_bytes(bytes); 32];
            }
        } else {
            let addresses = self.addresses(warp, load.address, lanes)?;
            self.count(warp.line, load.space, &addresses, lanes, size as u32);
            let strong = load.strength != Strength::Weak;
            let batch = Batch { addresses: &addresses, lanes, size, strong };
            let plain = load.strength == Strength::Weak || load.space == Space::Shared;
            let done = plain
                && self.read_batch(warp, load.space, &batch, |lane, bytes| {
                    for (values, bytes) in out.iter_mut().zip(bytes.chunks_exact(element)) {
                        values[lane] = from_bytes(bytes);
                    }
                })?;
            let mut bytes = [0u8; 16];
            for lane in each(if done { 0 } else { lanes }) {
                let (space, address) = Self::place(in_frame(load.space), addresses[lane as usize]);
                let spot = Spot { lane, address, size: size as u32, strong };
                self.read(warp, space, spot, &mut bytes[..size])?;
                if space == Space::Global {
                    self.touch_flag(address, load.strength, true, false);
                }
                for (values, bytes) in out.iter_mut().zip(bytes[..size].chunks_exact(element)) {
                    values[lane as usize] = from_bytes(bytes);
                }
            }
        }
        for (reg, values) in load.regs.iter().zip(&out) {
            let Some(reg) = reg else { continue };
            let wide = function.regs[usize::from(*reg)];
            if wide.bits() > load.ty.bits() && load.ty.is_signed() {
                warp.set(*reg, &values.map(|v| widen(load.ty, wide, v)), lanes);
            } else {
                warp.set(*reg, values, lanes);
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self, warp: &mut Warp<'_>, store: &Store, lanes: u32) -> Checked<()> {
        let element = store.ty.size() as usize;
        let size = element * store.regs.len();
        let addresses = self.addresses(warp, store.address, lanes)?;
        let mut values = [[0u64; 32]; 4];
        for (values, reg) in values.iter_mut().zip(&store.regs) {
            *values = warp.get(*reg, lanes)?;
        }
        self.count(warp.line, store.space, &addresses, lanes, size as u32);
        let pack = |lane: usize, bytes: &mut [u8]| {
            for (part, values) in bytes.chunks_exact_mut(element).zip(&values) {
                part.copy_from_slice(&values[lane].to_le_bytes()[..element]);
            }
        };
        let strong = store.strength != Strength::Weak;
        let plain = store.strength == Strength::Weak || store.space == Space::Shared;
        let batch = Batch { addresses: &addresses, lanes, size, strong };
        if plain && self.write_batch(warp, store.space, &batch, pack)? {
            return Ok(());
        }
        let mut bytes = [0u8; 16];
        for lane in each(lanes) {
            pack(lane as usize, &mut bytes[..size]);
            let (space, address) = Self::place(in_frame(store.space), addresses[lane as usize]);
            let spot = Spot { lane, address, size: size as u32, strong };
            self.write(warp, space, spot, &bytes[..size])?;
            if space == Space::Global {
                self.touch_flag(address, store.strength, false, true);
            }
        }
        Ok(())
    }

    /// Lanes take their turns in the order of their numbers.
    pub(super) fn atomic(&mut self, warp: &mut Warp<'_>, atomic: &Atomic, lanes: u32) -> Checked<()> {
        let size = atomic.ty.size();
        let addresses = self.addresses(warp, atomic.address, lanes)?;
        let (b, c) = (warp.get(atomic.b, lanes)?, warp.get(atomic.c, lanes)?);
        self.count(warp.line, atomic.space, &addresses, lanes, size);
        let mut out = [0; 32];
        let mut bytes = [0u8; 8];
        for lane in each(lanes) {
            let i = lane as usize;
            let (space, address) = Self::place(atomic.space, addresses[i]);
            if space == Space::Local {
                return trouble(FaultKind::OutOfBounds, lane, "an atomic operation on local memory");
            }
            let spot = Spot { lane, address, size, strong: true };
            self.read(warp, space, spot, &mut bytes[..size as usize])?;
            let old = from_bytes(&bytes[..size as usize]);
            out[i] = old;
            let new = scalar::atom::apply(atomic.op, atomic.ty, old, b[i], c[i]);
            self.write(warp, space, spot, &new.to_le_bytes()[..size as usize])?;
            if space == Space::Global {
                self.touch_flag(address, atomic.strength, true, true);
            }
        }
        if let Some(d) = atomic.d {
            warp.set(d, &out, lanes);
        }
        Ok(())
    }

    pub(super) fn cvta(
        &mut self,
        warp: &mut Warp<'_>,
        space: Space,
        to_space: bool,
        d: Reg,
        a: Address,
        lanes: u32,
    ) -> Checked<()> {
        let window = match space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Generic | Space::Global | Space::Const | Space::Param => 0,
        };
        let values = self.addresses(warp, a, lanes)?;
        let values = values.map(|v| if to_space { v.wrapping_sub(window) } else { v.wrapping_add(window) });
        warp.set(d, &values, lanes);
        Ok(())
    }

    pub(super) fn is_space(&mut self, warp: &mut Warp<'_>, space: Space, d: Pred, a: Src, lanes: u32) -> Checked<()> {
        let a = warp.get(a, lanes)?;
        let mut holds = 0;
        for lane in each(lanes) {
            let (found, address) = Self::place(Space::Generic, a[lane as usize]);
            let constant = found == Space::Global && self.global.find(address, 1).is_some_and(|a| a.constant);
            let found = if constant { Space::Const } else { found };
            holds |= u32::from(found == space) << lane;
        }
        warp.set_pred(d, holds, lanes);
        Ok(())
    }
}

/// Parameters of calls lie in the thread's frame, as local variables do.
fn in_frame(space: Space) -> Space {
    if space == Space::Param { Space::Local } else { space }
}

fn unwritten<T>(place: &str, pending: bool, lane: u32) -> Checked<T> {
    if pending {
        let message = format!("{place}: an asynchronous copy to it has not been waited for");
        return trouble(FaultKind::PendingCopy, lane, message);
    }
    trouble(FaultKind::UninitialisedMemory, lane, format!("{place} was never written"))
}

/// Checks that an access lies within one variable of one of the thread's frames.
fn local_check(warp: &Warp<'_>, spot: Spot) -> Checked<usize> {
    let end = spot.address.saturating_add(u64::from(spot.size));
    for frame in warp.frames.iter().rev() {
        for var in &warp.function_of(frame).vars {
            let Place::Frame { offset } = var.place else { continue };
            let start = frame.local as u64 + u64::from(offset);
            if spot.address >= start && end <= start + var.size {
                return Ok(spot.address as usize);
            }
        }
    }
    let message = format!("{} bytes at local address {:#x}, in no variable", spot.size, spot.address);
    trouble(FaultKind::OutOfBounds, spot.lane, message)
}
