//! The artefact's contract as a caller meets it: every wrong argument gets its status and an exact sentence, and changes nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use crate::adder::*;
use lehr_codegen::artefact::*;
use lehr_codegen::runtime::abi::*;

const N: i64 = 12;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The raw interface with a workspace of its own.
struct Raw {
    artefact: Artefact,
    memory: Vec<[u64; 8]>,
    shift: usize,
}

impl Raw {
    fn new(artefact: Artefact) -> Raw {
        let model = artefact.descriptor();
        // SAFETY: the descriptor is valid.
        let bytes = unsafe { (model.workspace_bytes)(model, 2) };
        let mut memory = vec![[0u64; 8]; bytes as usize / 64 + 2];
        let shift = memory.as_mut_ptr().cast::<u8>().align_offset(64);
        Raw { artefact, memory, shift }
    }

    fn workspace(&mut self) -> *mut c_void {
        // SAFETY: the shift is below 64, and there is a spare element.
        unsafe { self.memory.as_mut_ptr().cast::<u8>().add(self.shift).cast() }
    }

    fn bytes(&self) -> u64 {
        let model = self.artefact.descriptor();
        // SAFETY: the descriptor is valid.
        unsafe { (model.workspace_bytes)(model, 2) }
    }

    fn open(&mut self) -> i32 {
        let (workspace, bytes) = (self.workspace(), self.bytes());
        let model = self.artefact.descriptor();
        // SAFETY: the workspace is that large.
        unsafe { (model.open)(model, workspace, bytes, 2) }
    }

    fn close(&mut self) -> i32 {
        let workspace = self.workspace();
        let model = self.artefact.descriptor();
        // SAFETY: the workspace is large enough for any check.
        unsafe { (model.close)(model, workspace) }
    }

    fn error(&mut self) -> String {
        let workspace = self.workspace();
        error_of(&self.artefact, workspace)
    }

    fn run(&mut self, inputs: &[LehrTensor], outputs: &[LehrTensor]) -> i32 {
        let workspace = self.workspace();
        let model = self.artefact.descriptor();
        // SAFETY: an opened workspace, and tensors whose counts are those of the slices.
        unsafe {
            (model.run)(model, workspace, inputs.as_ptr(), inputs.len() as u32, outputs.as_ptr(), outputs.len() as u32)
        }
    }
}

fn error_of(artefact: &Artefact, workspace: *mut c_void) -> String {
    // SAFETY: null, misaligned, or at least 64 bytes.
    unsafe { CStr::from_ptr((artefact.descriptor().last_error)(workspace)) }.to_str().unwrap().into()
}

fn adder() -> Artefact {
    jitted(image("adder", N, 0.25), N)
}

fn tensor(data: *mut f32, dims: &[i64]) -> LehrTensor {
    let bytes = 4 * dims.iter().product::<i64>() as u64;
    LehrTensor { data: data.cast(), dtype: dtype::F32, rank: dims.len() as u32, dims: dims.as_ptr(), bytes }
}

#[test]
fn a_wrong_tensor_is_named_with_what_is_wrong() {
    let mut raw = Raw::new(adder());
    assert_eq!(raw.open(), status::OK);
    let (mut a, mut b, mut sum) = ([1f32; N as usize], [2f32; N as usize], [0f32; N as usize]);
    let dims = [1, N];
    let good = |a: *mut f32| tensor(a, &dims);
    let (pa, pb, ps) = (a.as_mut_ptr(), b.as_mut_ptr(), sum.as_mut_ptr());
    let mut refused = |change: &dyn Fn(&mut LehrTensor), code: i32, text: &str| {
        let mut wrong = good(pb);
        change(&mut wrong);
        assert_eq!(raw.run(&[good(pa), wrong], &[good(ps)]), code, "{text}");
        assert_eq!(raw.error(), format!("input 1 'b/2': {text}"));
        let mut wrong = good(ps);
        change(&mut wrong);
        assert_eq!(raw.run(&[good(pa), good(pb)], &[wrong]), code, "{text}");
        assert_eq!(raw.error(), format!("output 0 'sum': {text}"));
    };
    refused(&|t| t.dtype = dtype::F64, status::BAD_DTYPE, "dtype is f64, the model needs f32");
    refused(&|t| t.dtype = 99, status::BAD_DTYPE, "dtype is the unknown code 99, the model needs f32");
    refused(&|t| t.rank = 4, status::BAD_SHAPE, "rank is 4, the model needs 2");
    refused(&|t| t.dims = null(), status::NULL, "dims is null");
    let other = [1, -3];
    refused(&|t| t.dims = other.as_ptr(), status::BAD_SHAPE, "dims are [1,-3], the model needs [1,12]");
    refused(&|t| t.bytes -= 4, status::BAD_SIZE, "size is 44 bytes, the model needs 48");
    refused(&|t| t.data = null_mut(), status::NULL, "data is null");
    refused(
        &|t| t.data = t.data.wrapping_byte_add(2),
        status::MISALIGNED,
        "data is not aligned to its element of 4 bytes",
    );
    assert_eq!(sum, [0.0; N as usize], "a refused call writes nothing");

    assert_eq!(raw.run(&[good(pa)], &[good(ps)]), status::BAD_COUNT);
    assert_eq!(raw.error(), "the call has 1 input, the model has 2");
    assert_eq!(raw.run(&[good(pa), good(pb)], &[]), status::BAD_COUNT);
    assert_eq!(raw.error(), "the call has 0 outputs, the model has 1");
    let workspace = raw.workspace();
    let model = raw.artefact.descriptor();
    // SAFETY: null is one of the things that are checked.
    assert_eq!(unsafe { (model.run)(model, workspace, null(), 2, null(), 1) }, status::NULL);
    assert_eq!(raw.error(), "the array of inputs is null");

    assert_eq!(raw.run(&[good(pa), good(pb)], &[good(ps)]), status::OK);
    assert_eq!((sum, raw.error().as_str()), ([3.25; N as usize], ""));
    assert_eq!(raw.close(), status::OK);
}

#[test]
fn a_wrong_workspace_or_model_is_refused() {
    let mut raw = Raw::new(adder());
    let artefact = raw.artefact.clone();
    let (ws, bytes) = (raw.workspace(), raw.bytes());
    let model = artefact.descriptor();
    let m: *const LehrModel = model;
    // SAFETY (all calls below): what is passed is null, misaligned, or has the stated size: the cases that are checked.
    unsafe {
        assert_eq!((model.open)(m, null_mut(), bytes, 2), status::NULL);
        assert_eq!((model.run)(m, null_mut(), null(), 0, null(), 0), status::NULL);
        assert_eq!(error_of(&artefact, null_mut()), "the workspace, or the model, is null");
        assert_eq!((model.open)(m, ws.wrapping_byte_add(8), bytes - 64, 2), status::BAD_WORKSPACE);
        assert_eq!(error_of(&artefact, ws.wrapping_byte_add(8)), "the workspace is not aligned to 64 bytes");
        assert_eq!((model.open)(m, ws, 63, 2), status::WORKSPACE_TOO_SMALL);
        assert_eq!(raw.error(), "this is not a workspace that was opened");
        assert_eq!((model.open)(m, ws, 64, 2), status::WORKSPACE_TOO_SMALL);
        assert_eq!(raw.error(), "the workspace is smaller than its header; ask workspace_bytes");
        assert_eq!((model.open)(m, ws, bytes - 1, 2), status::WORKSPACE_TOO_SMALL);
        let needed = format!("the workspace has {} bytes, the model needs {bytes} for 2 threads", bytes - 1);
        assert_eq!(raw.error(), needed);
        assert_eq!((model.run)(m, ws, null(), 0, null(), 0), status::BAD_WORKSPACE);

        assert_eq!((model.open)(null(), ws, bytes, 2), status::NULL);
        assert_eq!(raw.error(), "the model is null");
        assert_eq!((model.workspace_bytes)(null(), 2), 0);
        let zeros = [0u64; 32];
        assert_eq!((model.open)(zeros.as_ptr().cast(), ws, bytes, 2), status::BAD_MODEL);
        assert!(raw.error().contains("its first bytes are not LEHRMODL"));
        let mut newer: LehrModel = m.read();
        newer.abi_version += 1;
        assert_eq!((model.open)(&newer, ws, bytes, 2), status::BAD_MODEL);
        assert_eq!(raw.error(), "the model has another ABI version than this runtime");

        assert_eq!(raw.open(), status::OK);
        assert_eq!(raw.open(), status::BUSY, "an open workspace has threads, which a second open would lose");
        let other = adder();
        let m2 = other.descriptor();
        assert_eq!((m2.run)(m2, ws, null(), 0, null(), 0), status::BAD_WORKSPACE);
        assert_eq!(raw.close(), status::OK);
        assert_eq!(raw.close(), status::BAD_WORKSPACE);
        assert_eq!(raw.open(), status::OK, "memory can be used again");
        assert_eq!(raw.close(), status::OK);
    }
    for code in -1..30 {
        // SAFETY: the text is static.
        let text = unsafe { CStr::from_ptr((model.status_text)(code)) };
        assert_eq!(text.to_bytes() == b"unknown status", !(0..=status::DEVICE).contains(&code));
    }
}

#[test]
fn the_cpu_has_no_streams_and_is_never_waited_for() {
    let mut session = Session::new(&adder(), 2).unwrap();
    assert_eq!((session.runs_on().as_str(), session.gpu(), session.is_on_cpu()), ("the CPU", None, true));
    let (mut a, mut b, mut sum) = ([1f32; N as usize], [2f32; N as usize], [0f32; N as usize]);
    let dims = [1, N];
    let inputs = [tensor(a.as_mut_ptr(), &dims), tensor(b.as_mut_ptr(), &dims)];
    let outputs = [tensor(sum.as_mut_ptr(), &dims)];
    // SAFETY (both calls): arrays of the tensors' sizes; the CPU looks at no stream but for null.
    unsafe { session.run_on(&inputs, &outputs, null_mut()) }.unwrap();
    assert_eq!(sum, [3.25; N as usize]);
    let error = unsafe { session.run_on(&inputs, &outputs, 8 as *mut c_void) }.unwrap_err();
    let text = "there is a stream, but the model runs on the CPU";
    assert_eq!((error.status, error.text.as_str()), (status::DEVICE, text));
    session.wait().unwrap();
}

#[test]
fn an_unsupported_cpu_is_told_what_it_lacks() {
    let mut image = image("adder", N, 0.0);
    image.isa = isa::SSE2 | 1 << 47;
    let error = Session::new(&jitted(image.clone(), N), 1).err().unwrap();
    assert_eq!(error.status, status::UNSUPPORTED_CPU);
    assert_eq!(
        error.text,
        "this CPU, or its operating system, lacks a feature that this runtime does not know (bit 47), which the model was compiled for"
    );
    image.isa = isa::NEON;
    if cfg!(target_arch = "x86_64") {
        let error = Session::new(&jitted(image, N), 1).err().unwrap();
        assert_eq!(error.text, "this CPU, or its operating system, lacks NEON, which the model was compiled for");
    }
}

#[test]
fn the_cpu_is_seen_as_the_standard_library_sees_it() {
    #[cfg(target_arch = "x86_64")]
    {
        let bits = lehr_codegen::runtime::cpu::detect();
        macro_rules! same {
            ($($name:tt $bit:ident)*) => {
                $(assert_eq!(bits & isa::$bit != 0, is_x86_feature_detected!($name), $name);)*
            };
        }
        same! { "sse2" SSE2 "sse3" SSE3 "ssse3" SSSE3 "sse4.1" SSE4_1 "sse4.2" SSE4_2 "popcnt" POPCNT "avx" AVX "f16c" F16C "fma" FMA
        "avx2" AVX2 "bmi1" BMI1 "bmi2" BMI2 "lzcnt" LZCNT "avx512f" AVX512F "avx512bw" AVX512BW "avx512dq" AVX512DQ
        "avx512vl" AVX512VL "avx512cd" AVX512CD "avx512vnni" AVX512VNNI "avx512bf16" AVX512BF16 "avx512fp16" AVX512FP16
        "avx512vbmi" AVX512VBMI "avx512bitalg" AVX512BITALG "avx512vpopcntdq" AVX512VPOPCNTDQ "avxvnni" AVX_VNNI }
        let threads = lehr_codegen::runtime::cpu::default_threads() as usize;
        assert_eq!(threads, std::thread::available_parallelism().unwrap().get());
    }
}

#[test]
fn a_run_allocates_nothing() {
    let mut session = Session::new(&adder(), 3).unwrap();
    let (a, b, mut sum) = ([1f32; N as usize], [2f32; N as usize], [0f32; N as usize]);
    let dims = [1, N];
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        let input = |values| TensorRef { dtype: dtype::F32, dims: &dims, data: as_bytes(values) };
        let output = TensorMut { dtype: dtype::F32, dims: &dims, data: as_bytes_mut(&mut sum) };
        session.run(&[input(&a), input(&b)], &mut [output]).unwrap();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert_eq!(sum, [3.25; N as usize]);
}

#[test]
fn a_misaligned_slice_is_an_error() {
    let mut session = Session::new(&adder(), 1).unwrap();
    let (a, mut sum) = ([0f32; N as usize + 1], [0f32; N as usize]);
    let dims = [1, N];
    let bad = TensorRef { dtype: dtype::F32, dims: &dims, data: &as_bytes(&a)[1..4 * N as usize + 1] };
    let output = TensorMut { dtype: dtype::F32, dims: &dims, data: as_bytes_mut(&mut sum) };
    let error = session.run(&[bad, bad], &mut [output]).unwrap_err();
    assert_eq!(error.text, "input 0 'a': data is not aligned to its element of 4 bytes");
}

#[test]
fn an_arena_beyond_memory_is_an_error() {
    let mut image = image("adder", N, 0.0);
    image.arena_bytes = 1 << 62;
    let error = Session::new(&jitted(image, N), 1).err().unwrap();
    assert_eq!(error.text, format!("there is no memory for the model's arena of {} bytes", 1u64 << 62));
}

/// Threads that wait sleep: the process uses no time while a model is open and idle.
#[test]
fn an_idle_model_does_not_spin() {
    let mut session = Session::new(&adder(), 3).unwrap();
    run(&mut session, N).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let sleeping = |task: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('S')
    };
    // Other tests run beside this one, so look at the workers only: they block all signals.
    let workers = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("SigBlk") && line.contains("fffffffe7ffbfeff"))
        })
    };
    let mut asleep = 0;
    for _ in 0..20 {
        asleep = asleep.max(workers().filter(sleeping).count());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(asleep >= 2, "{asleep} workers sleep");
}
