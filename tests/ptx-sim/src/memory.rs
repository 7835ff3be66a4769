//! Memory with its edges and its history: global allocations, shared memory of a block, local memory of a thread.

use crate::fault::{Checked, Fault, FaultKind, trouble};
use crate::race::{Access, Logs, View};

/// Where the generic windows of shared and local memory, and the first allocation, lie.
pub const SHARED_WINDOW: u64 = 0x7f01_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x7f02_0000_0000;
pub const WINDOW: u64 = 0x1_0000_0000;
const FIRST: u64 = 0x1000_0000_0000;

/// What a byte holds.
const UNWRITTEN: u8 = 0;
const WRITTEN: u8 = 1;
/// An asynchronous copy is on its way.
const PENDING: u8 = 2;

/// Bytes, each with its state.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    data: Vec<u8>,
    state: Vec<u8>,
}

impl Bytes {
    pub fn new(size: usize) -> Bytes {
        Bytes { data: vec![0; size], state: vec![UNWRITTEN; size] }
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn resize(&mut self, size: usize) {
        self.data.resize(size, 0);
        self.state.resize(size, UNWRITTEN);
    }

    /// The bytes, if all of them are written; otherwise the first that is not, and whether a copy is on its way.
    #[inline]
    pub fn read(&self, at: usize, size: usize) -> Result<&[u8], (usize, bool)> {
        let state = &self.state[at..at + size];
        // Arrays of a known length compare as one number.
        let written = match size {
            4 => state == [WRITTEN; 4],
            8 => state == [WRITTEN; 8],
            16 => state == [WRITTEN; 16],
            _ => state.iter().all(|&s| s == WRITTEN),
        };
        if written {
            return Ok(&self.data[at..at + size]);
        }
        let first = state.iter().position(|&s| s != WRITTEN).unwrap_or(0);
        Err((at + first, state[first] == PENDING))
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.state[at..at + bytes.len()].fill(WRITTEN);
    }

    pub fn is_pending(&self, at: usize, size: usize) -> bool {
        self.state[at..at + size].contains(&PENDING)
    }

    pub fn expect(&mut self, at: usize, size: usize) {
        self.state[at..at + size].fill(PENDING);
    }

    /// The bytes, with `fill` where nothing was written.
    pub fn read_or(&self, at: usize, size: usize, fill: u8) -> Vec<u8> {
        let bytes = self.data[at..at + size].iter().zip(&self.state[at..at + size]);
        bytes.map(|(&b, &s)| if s == WRITTEN { b } else { fill }).collect()
    }
}

/// An allocation of global memory.
#[derive(Clone, Debug)]
pub struct Allocation {
    pub base: u64,
    pub name: String,
    pub bytes: Bytes,
    pub constant: bool,
    pub logs: Option<Logs>,
}

impl Allocation {
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn contains(&self, address: u64, size: u64) -> bool {
        address >= self.base && address - self.base <= self.size() && self.size() - (address - self.base) >= size
    }
}

/// All global and constant memory.
#[derive(Clone, Debug)]
pub struct Global {
    /// In the order of their addresses.
    allocations: Vec<Allocation>,
    next: u64,
    last: usize,
}

impl Default for Global {
    fn default() -> Self {
        Global { allocations: Vec::new(), next: FIRST, last: 0 }
    }
}

impl Global {
    /// A new allocation, aligned to 256 bytes or more, with at least 4 KiB that nobody owns behind it.
    pub fn alloc(&mut self, name: String, size: u64, constant: bool) -> Result<u64, Fault> {
        let len = usize::try_from(size).ok().filter(|&s| s <= 1 << 40);
        let Some(len) = len else { return Err(Fault::host(format!("{name}: {size} bytes cannot be allocated"))) };
        let base = self.next;
        self.next = (base + size + 4096).next_multiple_of(4096);
        self.allocations.push(Allocation { base, name, bytes: Bytes::new(len), constant, logs: None });
        Ok(base)
    }

    pub fn free(&mut self, base: u64) -> Result<(), Fault> {
        let Some(at) = self.allocations.iter().position(|a| a.base == base) else {
            return Err(Fault::host(format!("{base:#x} is not the address of an allocation")));
        };
        self.allocations.remove(at);
        self.last = 0;
        Ok(())
    }

    fn index(&self, address: u64) -> Option<usize> {
        self.allocations.partition_point(|a| a.base <= address).checked_sub(1)
    }

    /// The allocation that holds these bytes.
    pub fn find(&mut self, address: u64, size: u64) -> Option<&mut Allocation> {
        if !self.allocations.get(self.last).is_some_and(|a| a.contains(address, size)) {
            self.last = self.index(address).filter(|&i| self.allocations[i].contains(address, size))?;
        }
        self.allocations.get_mut(self.last)
    }

    /// The bytes at an address for the host.
    pub fn host(&mut self, address: u64, size: u64) -> Result<(&mut Allocation, usize), Fault> {
        if self.find(address, size).is_none() {
            return Err(Fault::host(format!("{size} bytes at {}", self.describe(address))));
        }
        let allocation = &mut self.allocations[self.last];
        let at = (address - allocation.base) as usize;
        Ok((allocation, at))
    }

    /// Where an address lies, in words.
    pub fn describe(&self, address: u64) -> String {
        let Some(index) = self.index(address) else { return format!("{address:#x}, below every allocation") };
        let allocation = &self.allocations[index];
        let offset = address - allocation.base;
        format!("{address:#x}, byte {offset} of {} ({} bytes)", allocation.name, allocation.size())
    }

    /// Forgets who touched what, and begins to note it, or not.
    pub fn reset_logs(&mut self, wanted: bool) {
        for allocation in &mut self.allocations {
            allocation.logs = (wanted && !allocation.constant).then(|| Logs::new(allocation.bytes.len()));
        }
    }
}

/// A shared variable as one block has it.
#[derive(Clone, Debug)]
pub struct Region {
    pub name: String,
    pub offset: u32,
    pub size: u32,
}

/// The shared memory of a block.
#[derive(Clone, Debug)]
pub struct Shared {
    pub bytes: Bytes,
    pub regions: Vec<Region>,
    pub logs: Logs,
    last: usize,
}

impl Shared {
    pub fn new(regions: Vec<Region>) -> Shared {
        let end = regions.iter().map(|r| r.offset as usize + r.size as usize).max().unwrap_or(0);
        Shared { bytes: Bytes::new(end), regions, logs: Logs::new(end), last: 0 }
    }

    /// Whether one variable holds all from `low` to `end`.
    pub fn holds(&mut self, low: u64, end: u64) -> bool {
        let inside = |r: &Region| low >= u64::from(r.offset) && end <= u64::from(r.offset) + u64::from(r.size);
        if self.regions.get(self.last).is_some_and(inside) {
            return true;
        }
        let found = self.regions.iter().position(inside);
        self.last = found.unwrap_or(self.last);
        found.is_some()
    }

    /// Checks that an access lies within one variable.
    pub fn check(&mut self, address: u64, size: u64, lane: u32) -> Checked<usize> {
        if self.holds(address, address.saturating_add(size)) {
            return Ok(address as usize);
        }
        let near = self.regions.iter().filter(|r| u64::from(r.offset) <= address).max_by_key(|r| r.offset);
        let place = match near {
            Some(r) => format!("byte {} of {} ({} bytes)", address - u64::from(r.offset), r.name, r.size),
            None => "in no shared variable".into(),
        };
        let message = format!("{size} bytes at shared address {address:#x}, {place}");
        trouble(FaultKind::OutOfBounds, lane, message)
    }

    /// The variable at an address, and the offset in it, in words.
    pub fn describe(&self, address: usize) -> String {
        let at = address as u64;
        let region =
            self.regions.iter().find(|r| at >= u64::from(r.offset) && at < u64::from(r.offset) + u64::from(r.size));
        region.map_or_else(|| format!("{address:#x}"), |r| format!("byte {} of {}", at - u64::from(r.offset), r.name))
    }

    /// Notes a read by `lanes`, of which `me` is the first, for the race check.
    #[inline]
    pub fn note_read(&mut self, at: usize, size: usize, me: Access, lanes: u32, order: &View<'_>) -> Checked<()> {
        let Err(other) = self.logs.note(at, size, false, me, lanes, order) else { return Ok(()) };
        race(&self.describe(at), false, me, other)
    }

    /// Notes a write.
    pub fn note_write(&mut self, at: usize, size: usize, me: Access, order: &View<'_>) -> Checked<()> {
        let Err(other) = self.logs.note(at, size, true, me, 0, order) else { return Ok(()) };
        race(&self.describe(at), true, me, other)
    }
}

/// The fault of two accesses that nothing orders.
pub fn race<T>(place: &str, is_write: bool, me: Access, other: Access) -> Checked<T> {
    let what = if is_write { "a write to" } else { "a read of" };
    let whose = if other.warp == me.warp {
        format!("lane {} of the same warp", other.lane)
    } else {
        format!("lane {} of warp {}", other.lane, other.warp)
    };
    let message = format!("{what} {place} races with {whose}, at line {}", other.line);
    trouble(FaultKind::Race, u32::from(me.lane), message)
}
