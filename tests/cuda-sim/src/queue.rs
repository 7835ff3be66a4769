//! Work that was given and is still to be done.
//!
//! Work waits for what is before it in its stream, for events, and for the default stream's, and for nothing else. It is done when somebody
//! waits, and then only what that one waits for: first what was given last, so that work that should have waited comes too early. So a
//! caller that forgets to order two streams reads what is not there yet, or what is there no more.

use crate::machine::error;
use crate::state::{Result, State};
use lehr_ptx_sim::{Arg, Fault, Grid, Module};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::sync::Arc;

/// Work in a stream. Addresses of host memory are looked at when the work is done.
#[derive(Clone)]
pub enum Work {
    Upload {
        to: u64,
        from: usize,
        bytes: usize,
    },
    /// An upload whose bytes the driver has taken already.
    Staged {
        to: u64,
        data: Arc<[u8]>,
    },
    Download {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Launch(Launch),
    /// A place in the stream: an event, or the wait for one.
    Place,
}

#[derive(Clone)]
pub struct Launch {
    pub module: Arc<Module>,
    pub kernel: String,
    pub grid: Grid,
    pub args: Vec<Arg>,
}

#[derive(Default)]
pub struct Queue {
    /// By their numbers, which count up.
    items: BTreeMap<u64, Item>,
    given: u64,
}

struct Item {
    device: c_int,
    takes_turns: bool,
    /// Numbers of what must be done before; those that are gone are done.
    after: Vec<u64>,
    work: Work,
}

impl Queue {
    pub fn push(&mut self, device: c_int, takes_turns: bool, after: Vec<u64>, work: Work) -> u64 {
        self.given += 1;
        self.items.insert(self.given, Item { device, takes_turns, after, work });
        self.given
    }

    /// What the default stream's next work waits for.
    pub fn taking_turns(&self, device: c_int) -> Vec<u64> {
        let of_device = |(_, item): &(&u64, &Item)| item.device == device && item.takes_turns;
        self.items.iter().filter(of_device).map(|(&number, _)| number).collect()
    }

    /// All that there is of a device.
    pub fn of_device(&self, device: c_int) -> Vec<u64> {
        self.items.iter().filter(|(_, item)| item.device == device).map(|(&number, _)| number).collect()
    }

    /// How many copies and launches there are.
    pub fn pending(&self) -> usize {
        self.items.values().filter(|item| !matches!(item.work, Work::Place)).count()
    }

    /// What is wanted and still to be done, with what it waits for.
    fn closure(&self, wanted: &[u64]) -> BTreeSet<u64> {
        let (mut needed, mut rest) = (BTreeSet::new(), wanted.to_vec());
        while let Some(number) = rest.pop() {
            if let Some(item) = self.items.get(&number)
                && needed.insert(number)
            {
                rest.extend(&item.after);
            }
        }
        needed
    }

    fn is_ready(&self, number: u64) -> bool {
        self.items[&number].after.iter().all(|before| !self.items.contains_key(before))
    }
}

impl State {
    /// Does the work of these numbers, and what it waits for. After a failure nothing is left to do, as in a context that has failed.
    pub fn finish(&mut self, wanted: &[u64]) -> Result {
        let mut needed = self.queue.closure(wanted);
        // What an item waits for has a lower number, so the lowest is always ready.
        while let Some(number) = needed.iter().rev().copied().find(|&number| self.queue.is_ready(number)) {
            needed.remove(&number);
            let Some(item) = self.queue.items.remove(&number) else { continue };
            if let Err(why) = self.one(&item.work) {
                eprintln!("the stand-in driver: {why}");
                self.queue.items.clear();
                return Err(error::LAUNCH_FAILED);
            }
        }
        Ok(())
    }

    fn one(&mut self, work: &Work) -> std::result::Result<(), String> {
        let fault = |fault: Fault| fault.to_string();
        match *work {
            Work::Place => Ok(()),
            Work::Staged { to, ref data } => self.device.upload(to, data).map_err(fault),
            Work::Upload { to, from, bytes } => {
                // SAFETY: the caller of the copy promised so many readable bytes until somebody waits.
                let from = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                self.device.upload(to, from).map_err(fault)
            }
            Work::Download { to, from, bytes } => {
                let data = self.device.download(from, bytes as u64).map_err(fault)?;
                // SAFETY: likewise writable.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, bytes) };
                Ok(())
            }
            Work::Copy { to, from, bytes } => {
                let data = self.device.download(from, bytes as u64).map_err(fault)?;
                self.device.upload(to, &data).map_err(fault)
            }
            Work::Launch(Launch { ref module, ref kernel, grid, ref args }) => {
                let pinned = || self.host.values().filter_map(|host| Some((host.address?, &host.memory)));
                for (address, memory) in pinned() {
                    self.device.upload(address, memory).map_err(fault)?;
                }
                self.device.launch(module, kernel, grid, args).map_err(fault)?;
                for host in self.host.values_mut() {
                    let Some(address) = host.address else { continue };
                    let bytes = self.device.download(address, host.memory.len() as u64).map_err(fault)?;
                    host.memory.copy_from_slice(&bytes);
                }
                Ok(())
            }
        }
    }
}
