//! The machine behind the functions: devices, allocations, modules, graphs, and the work that is still to be done.

use lehr_ptx_sim::{Arg, Device, Grid, Module};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Mutex};

/// The driver's numbers for what goes wrong.
pub mod error {
    use std::ffi::c_int;
    pub const INVALID_VALUE: c_int = 1;
    pub const OUT_OF_MEMORY: c_int = 2;
    pub const NO_DEVICE: c_int = 100;
    pub const INVALID_DEVICE: c_int = 101;
    pub const INVALID_CONTEXT: c_int = 201;
    pub const INVALID_PTX: c_int = 218;
    pub const UNSUPPORTED_PTX_VERSION: c_int = 222;
    pub const INVALID_HANDLE: c_int = 400;
    pub const NOT_FOUND: c_int = 500;
    pub const LAUNCH_FAILED: c_int = 719;
    pub const CAPTURE_UNSUPPORTED: c_int = 900;

    pub const NAMES: [(c_int, &std::ffi::CStr, &std::ffi::CStr); 11] = [
        (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        (NO_DEVICE, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
        (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        (INVALID_CONTEXT, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        (INVALID_PTX, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        (
            UNSUPPORTED_PTX_VERSION,
            c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            c"the PTX was compiled with an unsupported toolchain",
        ),
        (INVALID_HANDLE, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        (LAUNCH_FAILED, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        (
            CAPTURE_UNSUPPORTED,
            c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
            c"operation not permitted when stream is capturing",
        ),
    ];
}

pub type Result<T = ()> = std::result::Result<T, c_int>;

/// What LEHR_CUDA_SIM says.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub driver: c_int,
    pub devices: c_int,
    pub capability: c_int,
    pub memory: u64,
    pub refuses_ptx: bool,
}

pub static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut config = Config { driver: 12040, devices: 1, capability: 90, memory: 1 << 32, refuses_ptx: false };
    let words = std::env::var("LEHR_CUDA_SIM").unwrap_or_default();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<u32>().unwrap_or_else(|_| panic!("LEHR_CUDA_SIM: {word} needs a number"));
        match name {
            "driver" => config.driver = number() as c_int,
            "devices" => config.devices = number() as c_int,
            "capability" => config.capability = number() as c_int,
            "memory" => config.memory = number().into(),
            "ptx" if value == "refused" => config.refuses_ptx = true,
            _ => panic!("LEHR_CUDA_SIM: {word} means nothing"),
        }
    }
    config
});

pub static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::default()));

thread_local! {
    /// Contexts that are current on this thread, the last on top. A device's primary context is its number plus [`FIRST_CONTEXT`].
    pub static CONTEXTS: RefCell<Vec<usize>> = const { RefCell::new(vec![]) };
}

pub const FIRST_CONTEXT: usize = 0x1000;

/// The device of the current context.
pub fn current_device() -> Result<c_int> {
    let top = CONTEXTS.with_borrow(|contexts| contexts.last().copied());
    top.map(|context| (context - FIRST_CONTEXT) as c_int).ok_or(error::INVALID_CONTEXT)
}

/// Work in a stream. Addresses of host memory are looked at when the work is done.
#[derive(Clone)]
pub enum Work {
    Upload { to: u64, from: usize, bytes: usize },
    Download { to: usize, from: u64, bytes: usize },
    Copy { to: u64, from: u64, bytes: usize },
    Launch(Launch),
}

#[derive(Clone)]
pub struct Launch {
    pub module: Arc<Module>,
    pub kernel: String,
    pub grid: Grid,
    pub args: Vec<Arg>,
}

pub struct Allocation {
    pub bytes: u64,
    pub device: c_int,
}

/// Host memory that kernels reach by another address.
pub struct Mapped {
    pub memory: Box<[u8]>,
    pub address: u64,
}

#[derive(Default)]
pub struct Stream {
    /// The launches of a capture that has begun.
    pub captured: Option<Vec<Work>>,
}

#[derive(Default)]
pub struct State {
    pub device: Device,
    pub allocations: BTreeMap<u64, Allocation>,
    pub mapped: HashMap<usize, Mapped>,
    pub modules: HashMap<usize, Arc<Module>>,
    pub functions: HashMap<usize, (Arc<Module>, String)>,
    pub streams: HashMap<usize, Stream>,
    pub events: HashSet<usize>,
    pub graphs: HashMap<usize, Vec<Work>>,
    pub instances: HashMap<usize, Vec<Work>>,
    /// By device: how often its primary context is retained.
    pub retained: HashMap<c_int, usize>,
    pub queue: Vec<Work>,
    handles: usize,
}

impl State {
    pub fn handle(&mut self) -> usize {
        self.handles += 1;
        0x10_0000 + 16 * self.handles
    }

    /// The allocation that holds an address.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let (base, allocation) = self.allocations.range(..=address).next_back()?;
        (address < base + allocation.bytes.max(1)).then_some(allocation)
    }

    pub fn used(&self, device: c_int) -> u64 {
        self.allocations.values().filter(|a| a.device == device).map(|a| a.bytes).sum()
    }

    /// A stream by its handle; 0 is the default stream.
    pub fn stream(&mut self, handle: usize) -> Result<&mut Stream> {
        if handle == 0 {
            return Ok(self.streams.entry(0).or_default());
        }
        self.streams.get_mut(&handle).ok_or(error::INVALID_HANDLE)
    }

    pub fn event(&self, handle: usize) -> Result {
        if self.events.contains(&handle) { Ok(()) } else { Err(error::INVALID_HANDLE) }
    }

    /// Puts work into a stream. Of what can be captured, launches are known.
    pub fn enqueue(&mut self, stream: usize, work: Vec<Work>) -> Result {
        let stream = self.stream(stream)?;
        match &mut stream.captured {
            None => self.queue.extend(work),
            Some(captured) if work.iter().all(|w| matches!(w, Work::Launch(_))) => captured.extend(work),
            Some(_) => return Err(error::CAPTURE_UNSUPPORTED),
        }
        Ok(())
    }

    /// Does all work, whatever its stream.
    pub fn finish(&mut self) -> Result {
        for work in std::mem::take(&mut self.queue) {
            self.one(&work).map_err(|why| {
                eprintln!("the stand-in driver: {why}");
                error::LAUNCH_FAILED
            })?;
        }
        Ok(())
    }

    fn one(&mut self, work: &Work) -> std::result::Result<(), String> {
        let fault = |fault: lehr_ptx_sim::Fault| fault.to_string();
        match *work {
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
                for mapped in self.mapped.values() {
                    self.device.upload(mapped.address, &mapped.memory).map_err(fault)?;
                }
                self.device.launch(module, kernel, grid, args).map_err(fault)?;
                for mapped in self.mapped.values_mut() {
                    let bytes = self.device.download(mapped.address, mapped.memory.len() as u64).map_err(fault)?;
                    mapped.memory.copy_from_slice(&bytes);
                }
                Ok(())
            }
        }
    }
}
