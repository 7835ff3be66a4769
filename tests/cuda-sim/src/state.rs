//! What the driver keeps: devices, allocations, modules, streams, graphs; and what is current on a thread.

use crate::machine::{Machine, error};
use crate::queue::{Queue, Work};
use lehr_ptx_sim::{Device, Module};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

pub type Result<T = ()> = std::result::Result<T, c_int>;

pub static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| {
    let words = std::env::var("LEHR_CUDA_SIM").unwrap_or_default();
    let machine = Machine::parse(&words).unwrap_or_else(|why| panic!("LEHR_CUDA_SIM: {why}"));
    Mutex::new(State::new(machine))
});

thread_local! {
    /// Contexts that are current on this thread, the last on top. A device's primary context is its number plus [`FIRST_CONTEXT`].
    pub static CONTEXTS: RefCell<Vec<usize>> = const { RefCell::new(vec![]) };
    pub static CAPTURE_MODE: Cell<c_int> = const { Cell::new(mode::GLOBAL) };
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
}

/// What a capture forbids to whom, and what a thread minds.
pub mod mode {
    use std::ffi::c_int;
    pub const GLOBAL: c_int = 0;
    pub const RELAXED: c_int = 2;
}

pub const FIRST_CONTEXT: usize = 0x1000;
/// Handles that programs may write down: the legacy default stream (also as null), and the thread's own default stream.
const LEGACY_STREAM: usize = 1;
const PER_THREAD_STREAM: usize = 2;
const FIRST_HANDLE: usize = 0x100_0000;

pub fn this_thread() -> usize {
    THREAD.with(|number| *number)
}

pub fn current_context() -> Option<usize> {
    CONTEXTS.with_borrow(|contexts| contexts.last().copied())
}

/// The device of the current context.
pub fn current_device() -> Result<c_int> {
    current_context().map(|context| (context - FIRST_CONTEXT) as c_int).ok_or(error::INVALID_CONTEXT)
}

pub struct Allocation {
    pub bytes: u64,
    pub device: c_int,
}

/// Host memory that the driver has made.
pub struct HostMemory {
    pub memory: Box<[u8]>,
    pub device: c_int,
    /// By which kernels reach pinned memory; managed memory is for copies alone here, and has none.
    pub address: Option<u64>,
}

pub struct Stream {
    pub device: c_int,
    /// Waits for the default stream, and that one for this.
    pub takes_turns: bool,
    /// The last work that was given to it.
    pub last: Option<u64>,
    pub capture: Option<Capture>,
}

/// A capture that has begun.
pub struct Capture {
    pub work: Vec<Work>,
    pub mode: c_int,
    pub thread: usize,
    pub is_invalid: bool,
}

pub struct Event {
    pub device: c_int,
    /// The work that it stands behind.
    pub after: Option<u64>,
}

/// A graph that can be launched.
pub struct Instance {
    pub work: Vec<Work>,
    /// A launch waits for the one before.
    pub last: Option<u64>,
}

pub struct Function {
    pub module: Arc<Module>,
    pub name: String,
    pub device: c_int,
}

pub struct State {
    pub machine: Machine,
    pub is_initialised: bool,
    pub device: Device,
    pub allocations: BTreeMap<u64, Allocation>,
    pub host: BTreeMap<usize, HostMemory>,
    pub modules: HashMap<usize, Arc<Module>>,
    pub functions: HashMap<usize, Function>,
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Event>,
    pub graphs: HashMap<usize, Vec<Work>>,
    pub instances: HashMap<usize, Instance>,
    /// By device: how often its primary context is retained.
    pub retained: HashMap<c_int, usize>,
    pub queue: Queue,
    handles: usize,
    /// Of streams that were destroyed: the next stream gets the last of them, so that a handle says nothing about who it was.
    free_handles: Vec<usize>,
}

impl State {
    fn new(machine: Machine) -> State {
        State {
            machine,
            is_initialised: false,
            device: Device::new(),
            allocations: BTreeMap::new(),
            host: BTreeMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            instances: HashMap::new(),
            retained: HashMap::new(),
            queue: Queue::default(),
            handles: 0,
            free_handles: Vec::new(),
        }
    }

    pub fn handle(&mut self) -> usize {
        self.handles += 1;
        FIRST_HANDLE + 16 * self.handles
    }

    pub fn known_device(&self, device: c_int) -> Result {
        if (0..self.machine.devices).contains(&device) { Ok(()) } else { Err(error::INVALID_DEVICE) }
    }

    pub fn is_retained(&self, device: c_int) -> bool {
        self.retained.get(&device).is_some_and(|&count| count > 0)
    }

    /// The allocation that holds an address.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let (base, allocation) = self.allocations.range(..=address).next_back()?;
        (address < base + allocation.bytes.max(1)).then_some(allocation)
    }

    /// The driver's host memory that holds an address.
    pub fn find_host(&self, address: usize) -> Option<&HostMemory> {
        let (base, host) = self.host.range(..=address).next_back()?;
        (address < base + host.memory.len().max(1)).then_some(host)
    }

    pub fn used(&self, device: c_int) -> u64 {
        self.allocations.values().filter(|a| a.device == device).map(|a| a.bytes).sum()
    }

    pub fn create_stream(&mut self, takes_turns: bool) -> Result<usize> {
        let device = current_device()?;
        let handle = self.free_handles.pop().unwrap_or_else(|| self.handle());
        self.streams.insert(handle, Stream { device, takes_turns, last: None, capture: None });
        Ok(handle)
    }

    /// What was given to it is still done.
    pub fn destroy_stream(&mut self, handle: usize) -> Result {
        self.stream(handle)?;
        self.streams.remove(&handle).ok_or(error::INVALID_HANDLE)?;
        self.free_handles.push(handle);
        Ok(())
    }

    /// A stream of the current context by its handle, and its key.
    pub fn stream(&mut self, handle: usize) -> Result<(usize, &mut Stream)> {
        let device = current_device()?;
        let of_device = (device as usize) << 48;
        let key = match handle {
            0 | LEGACY_STREAM => of_device | LEGACY_STREAM,
            PER_THREAD_STREAM => of_device | this_thread() << 8 | PER_THREAD_STREAM,
            other => other,
        };
        if handle <= PER_THREAD_STREAM {
            self.streams.entry(key).or_insert(Stream { device, takes_turns: true, last: None, capture: None });
        }
        let stream = self.streams.get_mut(&key).filter(|stream| stream.device == device);
        stream.map(|stream| (key, stream)).ok_or(error::INVALID_HANDLE)
    }

    pub fn event(&mut self, handle: usize) -> Result<&mut Event> {
        let device = current_device()?;
        self.events.get_mut(&handle).filter(|event| event.device == device).ok_or(error::INVALID_HANDLE)
    }

    /// Streams that programs have created.
    pub fn own_streams(&self) -> usize {
        self.streams.keys().filter(|&&key| is_own(key)).count()
    }

    /// What a thread must not do while there are captures that mind: it fails, and so do they.
    pub fn refuse_in_captures(&mut self) -> Result {
        let own_mode = CAPTURE_MODE.get();
        if own_mode == mode::RELAXED {
            return Ok(());
        }
        let mut result = Ok(());
        for capture in self.streams.values_mut().filter_map(|stream| stream.capture.as_mut()) {
            let of_this_thread = capture.thread == this_thread() && capture.mode != mode::RELAXED;
            if of_this_thread || capture.mode == mode::GLOBAL && own_mode == mode::GLOBAL {
                capture.is_invalid = true;
                result = Err(error::CAPTURE_UNSUPPORTED);
            }
        }
        result
    }

    /// Puts work into a stream, behind what was given to it and what `after` lists; the number of the last.
    pub fn enqueue(&mut self, handle: usize, work: Vec<Work>, after: &[u64]) -> Result<Option<u64>> {
        let (key, stream) = self.stream(handle)?;
        let (device, takes_turns) = (stream.device, stream.takes_turns);
        if let Some(capture) = &mut stream.capture {
            // Of what can be captured, launches are known.
            if after.is_empty() && work.iter().all(|work| matches!(work, Work::Launch(_))) {
                capture.work.extend(work);
                return Ok(None);
            }
            capture.is_invalid = true;
            return Err(error::CAPTURE_UNSUPPORTED);
        }
        let is_default = is_default(key);
        if let Some(capture) = self.capture_in_turn(handle)? {
            capture.is_invalid = true;
            return Err(error::CAPTURE_IMPLICIT);
        }
        for (index, work) in work.into_iter().enumerate() {
            let mut after = if index == 0 { after.to_vec() } else { Vec::new() };
            after.extend(self.streams[&key].last);
            if is_default {
                after.extend(self.queue.taking_turns(device));
            } else if takes_turns {
                after.extend(self.stream(0)?.1.last);
            }
            let number = self.queue.push(device, takes_turns, after, work);
            self.stream(handle)?.1.last = Some(number);
        }
        Ok(self.streams[&key].last)
    }

    /// For the default stream, a capture of a stream that takes turns with it.
    pub fn capture_in_turn(&mut self, handle: usize) -> Result<Option<&mut Capture>> {
        let (key, stream) = self.stream(handle)?;
        let device = stream.device;
        if !is_default(key) {
            return Ok(None);
        }
        let turns = self.streams.values_mut().filter(|stream| stream.device == device && stream.takes_turns);
        Ok(turns.filter_map(|stream| stream.capture.as_mut()).next())
    }

    /// Does what a stream was given, and what that waits for.
    pub fn finish_stream(&mut self, handle: usize) -> Result {
        let (_, stream) = self.stream(handle)?;
        if let Some(capture) = &mut stream.capture {
            capture.is_invalid = true;
            return Err(error::CAPTURE_UNSUPPORTED);
        }
        let last = stream.last;
        self.finish(last.as_slice())
    }
}

fn is_own(key: usize) -> bool {
    key & 15 == 0
}

fn is_default(key: usize) -> bool {
    key & 15 == LEGACY_STREAM
}
