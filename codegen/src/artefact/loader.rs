//! Models that can be run: loaded from a library, or made of jitted code in this process. Both end in a descriptor.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::mem::size_of;
use std::path::Path;
use std::sync::Arc;

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, ReadRef};

use super::ArtefactError;
use super::image::{IoSpec, ModelImage};
use super::memory::AlignedBytes;
use super::tables::{Tables, To};
use crate::runtime::abi::{self, ABI_VERSION, LehrModel, MAGIC, MAIN_SYMBOL, MainFn, TensorSpec};
use crate::runtime::{entry, gpu};

/// A model that can be run, by any number of [`super::Session`]s at once. Cloning shares it.
#[derive(Clone)]
pub struct Artefact(Arc<Inner>);

struct Inner {
    model: *const LehrModel,
    name: String,
    metadata: String,
    inputs: Vec<IoSpec>,
    outputs: Vec<IoSpec>,
    /// What `model` points into; dropped with the last session.
    _owner: Owner,
}

enum Owner {
    Library { _library: libloading::Library },
    Memory { _relro: Box<[u64]>, _rodata: Vec<u8>, _weights: Weights, _code: Box<dyn Any + Send> },
}

/// The weights of a jitted model: one blob that is aligned already, or a copy.
enum Weights {
    None,
    Shared { data: bytes::Bytes },
    Owned { data: AlignedBytes },
}

// SAFETY: the descriptor and all that it points to are constant, and the owner is only ever dropped, once; jitted code is `Send`.
unsafe impl Send for Inner {}
// SAFETY: as above; nothing is mutated through a shared reference.
unsafe impl Sync for Inner {}

impl Artefact {
    /// Loads a library made by [`super::write_so`]. The file is checked to be one before any of it is run.
    pub fn open(path: &Path) -> Result<Artefact, ArtefactError> {
        let about = |why: String| ArtefactError::new(format!("{}: {why}", path.display()));
        // With a slash in it, so that the loader does not search its own directories.
        let path_of_file = path.canonicalize().map_err(|error| about(error.to_string()))?;
        let symbol = descriptor_symbol(&path_of_file).map_err(about)?;
        // SAFETY: the file has our descriptor, so it is a library of ours, and those have no initialisers. Whoever forges one could
        // as well forge the program that loads it.
        let library = unsafe { libloading::Library::new(&path_of_file) }.map_err(|error| about(error.to_string()))?;
        // SAFETY: the symbol is data of the descriptor's size, as the symbol table said; only its address is taken.
        let address = unsafe { library.get::<*const LehrModel>(symbol.as_bytes()).map(|found| found.try_as_raw_ptr()) };
        let model = address
            .map_err(|error| about(error.to_string()))?
            .ok_or_else(|| about("its descriptor is null".into()))?
            .cast::<LehrModel>();
        // SAFETY: the descriptor of a loaded library, whose magic, version and size were checked in the file.
        unsafe { Inner::new(model, Owner::Library { _library: library }) }.map(Artefact::from).map_err(about)
    }

    /// Makes a model of jitted code: `main` is the function that [`MAIN_SYMBOL`] names, and `code` owns it. Weights that are not
    /// one 64-byte aligned blob from offset 0 are copied together, and the image is consumed so that its blobs can go.
    pub fn from_jit(image: ModelImage, main: MainFn, code: Box<dyn Any + Send>) -> Result<Artefact, ArtefactError> {
        Artefact::in_memory(image, Some(main), code)
    }

    /// Makes a model for GPUs that has no code for the CPU.
    pub fn for_gpu(image: ModelImage) -> Result<Artefact, ArtefactError> {
        Artefact::in_memory(image, None, Box::new(()))
    }

    fn in_memory(
        image: ModelImage,
        main: Option<MainFn>,
        code: Box<dyn Any + Send>,
    ) -> Result<Artefact, ArtefactError> {
        image.check()?;
        if image.has_cpu_code() != main.is_some() {
            return Err(ArtefactError::new("the model's image and its code disagree on whether it runs on the CPU"));
        }
        let Tables { rodata, relro, pointers, descriptor } = Tables::new(&image);
        let weights = Weights::gather(image)?;
        let mut words = vec![0u64; relro.len().div_ceil(8)].into_boxed_slice();
        for (word, bytes) in words.iter_mut().zip(relro.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        let base = words.as_ptr() as u64;
        for pointer in pointers {
            words[pointer.at as usize / 8] = match pointer.to {
                To::Rodata(offset) => rodata.as_ptr() as u64 + offset,
                To::Relro(offset) => base + offset,
                To::Weights => weights.as_ptr() as u64,
                To::Symbol(name) => entry_address(name, main),
            };
        }
        let model = (base + descriptor) as *const LehrModel;
        let owner = Owner::Memory { _relro: words, _rodata: rodata, _weights: weights, _code: code };
        // SAFETY: the tables are a descriptor whose pointers were all filled in, and the owner keeps them where they are.
        unsafe { Inner::new(model, owner) }.map(Artefact::from).map_err(ArtefactError::new)
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn inputs(&self) -> &[IoSpec] {
        &self.0.inputs
    }

    pub fn outputs(&self) -> &[IoSpec] {
        &self.0.outputs
    }

    /// The JSON text that the compiler stored.
    pub fn metadata(&self) -> &str {
        &self.0.metadata
    }

    /// Scratch memory of a run.
    pub fn arena_bytes(&self) -> u64 {
        self.descriptor().arena_bytes
    }

    pub fn weights_bytes(&self) -> u64 {
        self.descriptor().weights_bytes
    }

    /// Bits of [`abi::isa`] that the code needs.
    pub fn isa(&self) -> u64 {
        self.descriptor().isa_required
    }

    /// What the model needs of a GPU; `None` if it is for the CPU alone.
    pub fn gpu(&self) -> Option<GpuFacts> {
        let model = self.descriptor();
        // SAFETY: a descriptor's plan is null or valid as long as the descriptor.
        let plan = unsafe { model.gpu.as_ref() }?;
        let io = self.inputs().iter().chain(self.outputs()).map(|spec| spec.bytes).sum::<u64>();
        Some(GpuFacts {
            capability: plan.capability,
            ptx_version: (plan.ptx_version / 10, plan.ptx_version % 10),
            driver_version: (plan.driver_version / 1000, plan.driver_version % 1000 / 10),
            kernels: plan.n_kernels,
            launches: plan.n_steps,
            ptx_bytes: plan.ptx_bytes,
            weights_bytes: plan.weights_bytes,
            arena_bytes: plan.arena_bytes,
            device_bytes: plan.weights_bytes + plan.arena_bytes + io,
            cpu_fallback: model.main.is_some(),
        })
    }

    /// Target triple, and GPU if it is for one.
    pub fn target(&self) -> String {
        // SAFETY: a descriptor's texts are not null and end with a zero; `Inner::new` has read such texts already.
        unsafe { text(self.descriptor().target) }
    }

    /// What [`super::c_header`] describes: the model without its weights and code.
    pub fn image(&self) -> ModelImage {
        ModelImage {
            name: self.name().to_string(),
            target: self.target(),
            isa: self.isa(),
            inputs: self.inputs().to_vec(),
            outputs: self.outputs().to_vec(),
            arena_bytes: self.arena_bytes(),
            metadata: self.metadata().to_string(),
            weights_bytes: self.weights_bytes(),
            device_bytes: self.gpu().map_or(0, |gpu| gpu.device_bytes),
            ..ModelImage::default()
        }
    }

    /// The descriptor itself, for callers of the C interface.
    pub fn descriptor(&self) -> &LehrModel {
        // SAFETY: valid and constant as long as `self.0`.
        unsafe { &*self.0.model }
    }
}

/// What a model needs of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// The least compute capability, as ten times its version.
    pub capability: u32,
    pub ptx_version: (u32, u32),
    /// The CUDA version that a driver must be for, at least.
    pub driver_version: (u32, u32),
    pub kernels: u32,
    /// Of a run.
    pub launches: u32,
    pub ptx_bytes: u64,
    pub weights_bytes: u64,
    pub arena_bytes: u64,
    /// All of the device's memory that a workspace holds, besides code.
    pub device_bytes: u64,
    pub cpu_fallback: bool,
}

impl From<Inner> for Artefact {
    fn from(inner: Inner) -> Artefact {
        Artefact(Arc::new(inner))
    }
}

impl std::fmt::Debug for Artefact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artefact").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Weights {
    fn gather(image: ModelImage) -> Result<Weights, ArtefactError> {
        if image.weights_bytes == 0 {
            return Ok(Weights::None);
        }
        if let [blob] = image.weights.as_slice()
            && blob.offset == 0
            && blob.data.len() as u64 == image.weights_bytes
            && blob.data.as_ptr().align_offset(abi::ALIGN) == 0
        {
            return Ok(Weights::Shared { data: blob.data.clone() });
        }
        let mut data = AlignedBytes::zeroed(image.weights_bytes)
            .ok_or_else(|| ArtefactError::new(format!("no memory for {} bytes of weights", image.weights_bytes)))?;
        let slice = data.as_mut_slice();
        for blob in image.weights {
            slice[blob.offset as usize..][..blob.data.len()].copy_from_slice(&blob.data);
        }
        Ok(Weights::Owned { data })
    }

    fn as_ptr(&self) -> *const u8 {
        match self {
            Weights::None => std::ptr::null(),
            Weights::Shared { data } => data.as_ptr(),
            Weights::Owned { data } => data.as_ptr(),
        }
    }
}

/// The descriptor's functions in this process.
fn entry_address(name: &'static str, main: Option<MainFn>) -> u64 {
    let address = match name {
        "lehr_rt_workspace_bytes" => entry::lehr_rt_workspace_bytes as *const (),
        "lehr_rt_open" => entry::lehr_rt_open as *const (),
        "lehr_rt_run" => entry::lehr_rt_run as *const (),
        "lehr_rt_close" => entry::lehr_rt_close as *const (),
        "lehr_rt_last_error" => entry::lehr_rt_last_error as *const (),
        "lehr_rt_status_text" => entry::lehr_rt_status_text as *const (),
        "lehr_rt_run_on" => entry::lehr_rt_run_on as *const (),
        "lehr_rt_wait" => entry::lehr_rt_wait as *const (),
        "lehr_rt_runs_on" => entry::lehr_rt_runs_on as *const (),
        "lehr_rt_device" => entry::lehr_rt_device as *const (),
        "lehr_gpu_open" => gpu::lehr_gpu_open as *const (),
        "lehr_gpu_run" => gpu::lehr_gpu_run as *const (),
        "lehr_gpu_run_on" => gpu::lehr_gpu_run_on as *const (),
        "lehr_gpu_wait" => gpu::lehr_gpu_wait as *const (),
        "lehr_gpu_close" => gpu::lehr_gpu_close as *const (),
        "lehr_gpu_runs_on" => gpu::lehr_gpu_runs_on as *const (),
        "lehr_gpu_device" => gpu::lehr_gpu_device as *const (),
        MAIN_SYMBOL => main.map_or(std::ptr::null(), |main| main as *const ()),
        _ => unreachable!("the tables name these functions only, not {name}"),
    };
    address as u64
}

impl Inner {
    /// # Safety
    /// `model` is a descriptor of this ABI version, valid as long as `owner`.
    unsafe fn new(model: *const LehrModel, owner: Owner) -> Result<Inner, String> {
        // SAFETY: a descriptor's arrays are as long as it says, and its texts end with a zero; the caller vouches for it.
        unsafe {
            let m = &*model;
            Ok(Inner {
                model,
                name: text(m.name),
                metadata: text(m.metadata),
                inputs: specs(m.inputs, m.n_inputs),
                outputs: specs(m.outputs, m.n_outputs),
                _owner: owner,
            })
        }
    }
}

/// # Safety
/// `start` is a zero-terminated string.
unsafe fn text(start: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// # Safety
/// `specs` are `count` specifications of a descriptor.
unsafe fn specs(specs: *const TensorSpec, count: u32) -> Vec<IoSpec> {
    let one = |index: usize| {
        // SAFETY: below the count; a specification has `rank` dims and a zero-terminated name.
        unsafe {
            let spec = &*specs.add(index);
            let dims = (0..spec.rank as usize).map(|axis| *spec.dims.add(axis)).collect();
            IoSpec { name: text(spec.name), dtype: spec.dtype, dims, bytes: spec.bytes }
        }
    };
    (0..count as usize).map(one).collect()
}

/// The name of the one descriptor in a library, after reading its first fields from the file: nothing is loaded yet.
fn descriptor_symbol(path: &Path) -> Result<String, String> {
    let content = File::open(path).map_err(|error| error.to_string())?;
    let length = content.metadata().map_err(|error| error.to_string())?.len();
    let cache = ReadCache::new(content);
    let file = object::File::parse(&cache).map_err(|error| format!("it is not a shared library: {error}"))?;
    let host = std::env::consts::ARCH;
    let architecture = match file.architecture() {
        object::Architecture::X86_64 => "x86_64",
        object::Architecture::Aarch64 => "aarch64",
        _ => "another architecture",
    };
    if architecture != host {
        return Err(format!("it was compiled for {architecture}, this machine is {host}"));
    }
    // A mapped part that the file does not have would be a bus error at its first use.
    let whole = |(offset, size): (u64, u64)| offset.checked_add(size).is_some_and(|end| end <= length);
    if !file.segments().all(|segment| whole(segment.file_range())) {
        return Err("it is cut off: parts of it are missing".into());
    }
    let mut names = Vec::new();
    for symbol in file.dynamic_symbols() {
        // Descriptors of other versions may be shorter.
        if symbol.is_definition() && symbol.size() >= 16 {
            let Some(head) = bytes_at(&file, symbol.address(), 16) else { continue };
            let (magic, version) = (word(head, 0) as u64 | (word(head, 4) as u64) << 32, word(head, 8));
            if magic != MAGIC {
                continue;
            }
            if version != ABI_VERSION {
                return Err(format!("it has ABI version {version}, this loader has {ABI_VERSION}; compile it again"));
            }
            if symbol.size() < size_of::<LehrModel>() as u64 {
                return Err(format!("its descriptor has {} bytes, which is too few", symbol.size()));
            }
            names.push(symbol.name().map_err(|error| error.to_string())?.to_owned());
        }
    }
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err("it is a shared library, but not a compiled model: it has no descriptor".into()),
        [..] => Err(format!("it has several models ({}); this loader takes one", names.join(", "))),
    }
}

fn bytes_at<'a, R: ReadRef<'a>>(file: &object::File<'a, R>, address: u64, count: u64) -> Option<&'a [u8]> {
    file.sections().find_map(|section| section.data_range(address, count).ok().flatten())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
