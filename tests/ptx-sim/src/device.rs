//! The device as the host sees it: allocations, copies and launches.

use std::collections::HashMap;

use crate::exec::{LaunchContext, run_grid};
use crate::fault::Fault;
use crate::memory::{Global, Region};
use crate::module::{Function, Module};
use crate::stats::Stats;
use crate::types::Type;

/// How strict and how patient the device is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Warp instructions of one launch before it counts as endless.
    pub step_limit: u64,
    /// Calls within calls.
    pub call_limit: usize,
    /// Whether threads of one launch that access the same global bytes without order fault, too.
    pub global_races: bool,
    /// Shared memory that a block may have, static and dynamic: 227 KiB on sm_90, 163 KiB on sm_80.
    pub shared_limit: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { step_limit: 1 << 32, call_limit: 64, global_races: false, shared_limit: 227 * 1024 }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
}

impl Grid {
    /// A line of blocks, each a line of threads.
    pub fn linear(blocks: u32, threads: u32) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads: [threads, 1, 1], dynamic_shared: 0 }
    }

    pub fn with_shared(self, bytes: u32) -> Grid {
        Grid { dynamic_shared: bytes, ..self }
    }
}

/// An argument of a kernel. Its size must be the parameter's.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    U8(u8),
    U16(u16),
    U32(u32),
    S32(i32),
    /// Also an address that [`Device::alloc`] gave.
    U64(u64),
    S64(i64),
    F32(f32),
    F64(f64),
    Bytes(Vec<u8>),
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Arg::U8(v) => vec![*v],
            Arg::U16(v) => v.to_le_bytes().to_vec(),
            Arg::U32(v) => v.to_le_bytes().to_vec(),
            Arg::S32(v) => v.to_le_bytes().to_vec(),
            Arg::U64(v) => v.to_le_bytes().to_vec(),
            Arg::S64(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
            Arg::F64(v) => v.to_le_bytes().to_vec(),
            Arg::Bytes(v) => v.clone(),
        }
    }
}

macro_rules! args_from { ($($ty:ty => $variant:ident),*) => { $(
    impl From<$ty> for Arg { fn from(value: $ty) -> Arg { Arg::$variant(value) } }
)* } }
args_from!(u8 => U8, u16 => U16, u32 => U32, i32 => S32, u64 => U64, i64 => S64, f32 => F32, f64 => F64, Vec<u8> => Bytes);

/// A GPU that is not there.
#[derive(Clone, Debug, Default)]
pub struct Device {
    options: Options,
    global: Global,
    allocated: usize,
    /// The addresses of modules' variables, by the module's number.
    modules: HashMap<u64, Vec<u64>>,
    launches: u64,
}

impl Device {
    pub fn new() -> Device {
        Device::default()
    }

    pub fn with_options(options: Options) -> Device {
        Device { options, ..Device::default() }
    }

    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Allocates `size` bytes, which hold nothing: a kernel that reads them before they are written faults.
    ///
    /// # Errors
    /// A size that the host cannot hold.
    pub fn alloc(&mut self, size: u64) -> Result<u64, Fault> {
        self.allocated += 1;
        let name = format!("allocation {}", self.allocated);
        self.alloc_named(&name, size)
    }

    /// The same, with a name for messages.
    ///
    /// # Errors
    /// A size that the host cannot hold.
    pub fn alloc_named(&mut self, name: &str, size: u64) -> Result<u64, Fault> {
        self.global.alloc(name.to_string(), size, false)
    }

    /// Frees an allocation; later accesses are out of bounds.
    ///
    /// # Errors
    /// An address that is not the beginning of an allocation.
    pub fn free(&mut self, address: u64) -> Result<(), Fault> {
        self.global.free(address)
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// Bytes outside of an allocation.
    pub fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (allocation, at) = self.global.host(address, bytes.len() as u64)?;
        allocation.bytes.write(at, bytes);
        Ok(())
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// Bytes outside of an allocation, or that nothing has written.
    pub fn download(&mut self, address: u64, size: u64) -> Result<Vec<u8>, Fault> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let (allocation, at) = self.global.host(address, size)?;
        match allocation.bytes.read(at, size as usize) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err((byte, _)) => Err(Fault::host(format!("byte {byte} of {} was never written", allocation.name))),
        }
    }

    /// Copies from the device, with `fill` where nothing has been written.
    ///
    /// # Errors
    /// Bytes outside of an allocation.
    pub fn download_or(&mut self, address: u64, size: u64, fill: u8) -> Result<Vec<u8>, Fault> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let (allocation, at) = self.global.host(address, size)?;
        Ok(allocation.bytes.read_or(at, size as usize, fill))
    }

    /// A new allocation that holds `values`.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn put_f32(&mut self, values: &[f32]) -> Result<u64, Fault> {
        let address = self.alloc(4 * values.len() as u64)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.upload(address, &bytes)?;
        Ok(address)
    }

    /// `count` values of the device.
    ///
    /// # Errors
    /// As [`Device::download`].
    pub fn get_f32(&mut self, address: u64, count: usize) -> Result<Vec<f32>, Fault> {
        let bytes = self.download(address, 4 * count as u64)?;
        Ok(bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }

    /// The address of a module's `.global` or `.const` variable.
    ///
    /// # Errors
    /// A variable that the module does not have.
    pub fn variable(&mut self, module: &Module, name: &str) -> Result<u64, Fault> {
        let Some(index) = module.variables.iter().position(|v| v.name == name) else {
            return Err(Fault::host(format!("the module has no variable {name}")));
        };
        Ok(self.load(module)?[index])
    }

    /// Places the module's variables, the first time.
    fn load(&mut self, module: &Module) -> Result<Vec<u64>, Fault> {
        if let Some(addresses) = self.modules.get(&module.id) {
            return Ok(addresses.clone());
        }
        let mut addresses = Vec::new();
        for variable in &module.variables {
            let constant = variable.space == crate::types::Space::Const;
            let base = self.global.alloc(variable.name.clone(), variable.size, constant)?;
            // Variables without initial values are zero (PTX ISA 5.4.4).
            let mut bytes = variable.bytes.clone();
            bytes.resize(variable.size as usize, 0);
            self.upload(base, &bytes)?;
            addresses.push(base);
        }
        self.modules.insert(module.id, addresses.clone());
        Ok(addresses)
    }

    /// Runs a kernel to its end: block after block, in the order of their numbers.
    ///
    /// # Errors
    /// Wrong arguments or sizes, or the first fault of the kernel.
    pub fn launch(&mut self, module: &Module, kernel: &str, grid: Grid, args: &[Arg]) -> Result<Stats, Fault> {
        let Some(function) = module.kernel(kernel) else {
            return Err(Fault::host(format!("the module has no kernel {kernel}")));
        };
        let arguments = arguments(function, args)?;
        check_grid(function, grid, &self.options)?;
        let addresses = self.load(module)?;
        self.global.reset_logs(self.options.global_races);
        self.launches += 1;
        let context = LaunchContext {
            module,
            kernel: module.by_name[kernel],
            grid,
            arguments,
            addresses,
            regions: regions(module, module.by_name[kernel], grid),
            options: &self.options,
            number: self.launches,
        };
        run_grid(&context, &mut self.global)
    }
}

fn arguments(function: &Function, args: &[Arg]) -> Result<Vec<u8>, Fault> {
    if args.len() != function.params.len() {
        let message = format!("{} takes {} arguments, not {}", function.name, function.params.len(), args.len());
        return Err(Fault::host(message));
    }
    let mut bytes = Vec::new();
    for (param, arg) in function.params.iter().zip(args) {
        let value = arg.bytes();
        let float = matches!(arg, Arg::F32(_) | Arg::F64(_));
        let class_ok = match param.ty {
            Type::F32 | Type::F64 => float || matches!(arg, Arg::Bytes(_)),
            ty => !float || ty.class() == crate::types::Class::Bits,
        };
        if value.len() as u64 != param.size || !class_ok {
            let message = format!(
                "{}: the argument {arg:?} is not one for {}, a .{} of {} bytes",
                function.name,
                param.name,
                param.ty.name(),
                param.size
            );
            return Err(Fault::host(message));
        }
        bytes.resize(bytes.len().next_multiple_of(param.align as usize), 0);
        bytes.extend(value);
    }
    Ok(bytes)
}

fn check_grid(function: &Function, grid: Grid, options: &Options) -> Result<(), Fault> {
    let fail = |message: String| Err(Fault::host(format!("{}: {message}", function.name)));
    let product = |dims: [u32; 3]| dims.iter().map(|&d| u64::from(d)).product::<u64>();
    let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
    if product(grid.blocks) == 0 || by > 65535 || bz > 65535 || bx > i32::MAX as u32 {
        return fail(format!("no grid is {bx} x {by} x {bz}"));
    }
    let threads = tx.saturating_mul(ty).saturating_mul(tz);
    if threads == 0 || threads > 1024 || tz > 64 {
        return fail(format!("no block is {tx} x {ty} x {tz}"));
    }
    if let Some(required) = function.required_threads
        && required != grid.threads
    {
        return fail(format!("blocks of {required:?} threads are required, not {:?}", grid.threads));
    }
    if let Some(max) = function.max_threads
        && product(max) < u64::from(threads)
    {
        return fail(format!("at most {max:?} threads, not {:?}", grid.threads));
    }
    let shared = u64::from(function.static_shared) + u64::from(grid.dynamic_shared);
    if shared > u64::from(options.shared_limit) || function.static_shared > 48 * 1024 {
        return fail(format!(
            "{} bytes of static and {} of dynamic shared memory are too many",
            function.static_shared, grid.dynamic_shared
        ));
    }
    Ok(())
}

/// The shared variables that a kernel has.
fn regions(module: &Module, kernel: usize, grid: Grid) -> Vec<Region> {
    let visible = module.shared.iter().filter(|v| v.entry.is_none_or(|e| e == kernel));
    let mut regions: Vec<Region> =
        visible.map(|v| Region { name: v.name.clone(), offset: v.offset, size: v.size }).collect();
    if grid.dynamic_shared > 0 {
        let offset = module.functions[kernel].dynamic_base;
        regions.push(Region { name: "dynamic shared memory".into(), offset, size: grid.dynamic_shared });
    }
    regions
}
