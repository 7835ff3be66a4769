//! Whole programs: several steps with an arena and weights, on several threads, in this process and as a library.

use crate::common;
use bytes::Bytes;
use lehr_codegen::artefact::{Artefact, Linker, Session, SoOptions, TensorMut, TensorRef};
use lehr_codegen::compile::{self, CompileOptions};
use lehr_codegen::kernel::interp;
use lehr_codegen::kernel::{Access, Blocks, Expr, Kernel, KernelBuilder, Merged, UnOp};
use lehr_codegen::plan;
use lehr_codegen::program::{BufferId, BufferInfo, IoInfo, Leaf, Place, Program, Step, Weight};
use lehr_codegen::runtime::abi::dtype;
use lehr_ir::DType;

const N: usize = 64 * 1000;

fn options() -> CompileOptions {
    CompileOptions { threads: 2, ..CompileOptions::default() }
}

/// `out[i] = f(a[i], b[i])` in 64 parallel parts.
fn map2(name: &str, f: impl Fn(Expr, Expr) -> Expr) -> Kernel {
    let mut b = KernelBuilder::new(name);
    let (x, w, y) = (
        b.param(DType::F32, N, Access::Read),
        b.param(DType::F32, N, Access::Read),
        b.param(DType::F32, N, Access::Write),
    );
    let p = b.parallel(64, 1000);
    let start = b.let_(p * 1000);
    b.vector(1000, |b, i| {
        let at = start.clone() + i;
        let v = f(b.load(x, at.clone()), b.load(w, at.clone()));
        b.store(y, at, v);
    });
    b.finish(vec![])
}

/// y = tanh(((x + w) * w) + x) ... `rounds` times, through fresh buffers, so that the plan has something to do.
fn program(rounds: usize) -> Program {
    let mut p = Program { name: "rounds".into(), ..Program::default() };
    let buffer = |p: &mut Program, place| {
        p.buffers.push(BufferInfo { dtype: DType::F32, len: N, place, name: None });
        BufferId(p.buffers.len() as u32 - 1)
    };
    let io = |name: &str| IoInfo { name: name.into(), dtype: DType::F32, dims: vec![64, 1000] };
    p.inputs.push(io("x"));
    p.outputs.push(io("y"));
    let x = buffer(&mut p, Some(Place::Input(0)));
    let w = buffer(&mut p, Some(Place::Weights(64)));
    let data: Vec<u8> = (0..N).flat_map(|i| ((i % 17) as f32 / 16.0).to_le_bytes()).collect();
    p.weights_bytes = 64 + data.len() as u64;
    p.weights.push(Weight { offset: 64, data: Bytes::from(data) });
    p.kernels.push(map2("add", |a, b| a + b));
    p.kernels.push(map2("mul_tanh", |a, b| Expr::unary(UnOp::Tanh, a * b)));
    let mut last = x;
    for round in 0..rounds {
        let middle = buffer(&mut p, None);
        let place = (round + 1 == rounds).then_some(Place::Output(0));
        let next = buffer(&mut p, place);
        for (kernel, args) in [(0, [last, w, middle]), (1, [middle, w, next])] {
            p.steps.push(Step { kernel, args: args.to_vec(), origins: vec![], first_fault: 0 });
        }
        last = next;
    }
    p
}

fn run(artefact: &Artefact, threads: u32) -> Vec<u8> {
    let mut session = Session::new(artefact, threads).expect("a workspace");
    let input: Vec<u8> = (0..N).flat_map(|i| ((i % 29) as f32 / 8.0 - 1.5).to_le_bytes()).collect();
    let mut output = vec![0; input.len()];
    let dims = [64, 1000];
    for _ in 0..2 {
        let inputs = [TensorRef { dtype: dtype::F32, dims: &dims, data: &input }];
        let mut outputs = [TensorMut { dtype: dtype::F32, dims: &dims, data: &mut output }];
        session.run(&inputs, &mut outputs).expect("a run");
    }
    output
}

#[test]
fn one_process_and_a_library_give_the_same_bits() {
    // 600 steps are several functions.
    for rounds in [1, 300] {
        let (jitted, report) = compile::jit(&mut program(rounds), &options()).expect("code");
        assert!(report.arena_bytes <= 3 * 4 * N as u64);
        let expected = run(&jitted, 1);
        assert_eq!(expected, run(&jitted, 2));
        assert!(expected.chunks(4).any(|b| f32::from_le_bytes(b.try_into().unwrap()) > 0.5));
        let folder = tempfile::tempdir().expect("a folder");
        for linker in [Linker::Builtin, Linker::Cc("cc".into())] {
            let path = folder.path().join("rounds.so");
            let so = SoOptions { linker: linker.clone(), ..SoOptions::default() };
            compile::write_so(&mut program(rounds), &options(), &so, &path).expect("a library");
            let opened = Artefact::open(&path).expect("a model");
            assert!(run(&opened, 2) == expected, "{linker:?}");
        }
    }
}

/// Each iteration that begins a run stores the run's length and the range's start: what a thread has is merged up to multiples of
/// four, for any number of threads.
#[test]
fn neighbouring_iterations_of_a_thread_are_merged() {
    const EXTENT: usize = 10;
    let mut b = KernelBuilder::new("merged");
    let out = b.param(DType::I64, EXTENT, Access::Write);
    let p = b.parallel(EXTENT as i64, 1 << 20);
    let run = b.merge(4);
    let start = b.range_start();
    b.store(out, p, run * 100 + start);
    let kernel = b.finish(vec![]);
    assert_eq!(kernel.check(), Vec::<String>::new(), "{kernel}");
    assert!(kernel.to_string().contains("merging v"), "{kernel}");
    let wrong = |merged| Kernel { merged: Some(merged), ..kernel.clone() }.check();
    let merged = kernel.merged.expect("it merges");
    assert!(wrong(Merged { of: 0, ..merged })[0].contains("not positive"));
    assert!(wrong(Merged { run: 0, ..merged })[0].contains("of its own"));
    // Threads, and where their ranges begin and end.
    let shared: [(u32, &[i64]); 3] = [(1, &[0, 10]), (3, &[0, 4, 7, 10]), (4, &[0, 3, 6, 8, 10])];
    for (threads, bounds) in shared {
        let mut expected = vec![vec![0; 8 * EXTENT]];
        for (start, end) in bounds.iter().zip(&bounds[1..]) {
            interp::run(&kernel, &mut expected, *start..*end).expect("no violation");
            let at = 8 * *start as usize;
            let first = i64::from_le_bytes(expected[0][at..at + 8].try_into().unwrap());
            assert_eq!(first, 100 * (4 - start % 4).min(end - start) + start);
        }
        let (artefact, _) = compile::jit(&mut common::program(&kernel), &options()).expect("code");
        let mut session = Session::new(&artefact, threads).expect("a workspace");
        let mut got = vec![vec![0; 8 * EXTENT]];
        assert_eq!(common::run(&mut session, &kernel.params, &mut got), None);
        assert_eq!(got, expected, "{threads} threads");
    }
}

#[test]
fn threads_of_the_compiler_change_nothing() {
    let object = |threads| {
        let options = CompileOptions { threads, ..options() };
        compile::object(&mut program(300), &options).expect("an object").0
    };
    assert!(object(1) == object(4));
}

#[test]
fn the_plan_is_right_and_reuses_memory() {
    let mut p = program(50);
    plan::plan(&mut p);
    assert_eq!(plan::check(&p), Vec::<String>::new());
    assert_eq!(p.arena_bytes, 2 * 4 * N as u64);
}

#[test]
fn unknown_cpus_are_refused() {
    let options = CompileOptions { cpu: "z80".into(), ..options() };
    let error = compile::jit(&mut program(1), &options).unwrap_err();
    assert_eq!(error.code, "compile.cpu");
}

#[test]
fn listings_name_the_kernels() {
    let (clif, asm) = compile::listing(&mut program(1), &options()).expect("a listing");
    assert!(clif.contains("; k1_mul_tanh") && clif.contains("f32x4"), "{clif}");
    assert!(asm.contains("k0_add:") && asm.contains("lehr_model_main:"), "{asm}");
}

/// A leaf that stores its second argument, an integer, where its first points.
#[cfg(target_arch = "x86_64")]
#[test]
fn leaves_get_addresses_and_numbers() {
    use lehr_codegen::kernel::LeafArg;
    // mov rax, [rdi]; mov rcx, [rdi + 8]; mov [rax], rcx; ret
    let code = [0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x08, 0x48, 0x89, 0x08, 0xc3];
    let mut b = KernelBuilder::new("calls");
    let y = b.param(DType::I64, 40, Access::Write);
    let p = b.parallel(4, 1 << 20);
    b.vector(10, |b, i| {
        let at = p.clone() * 10 + i;
        let args = vec![LeafArg::Address { buf: y, index: at.clone() }, LeafArg::Int(at * 7)];
        b.leaf(0, args);
    });
    let kernel = b.finish(vec![]);
    assert_eq!(kernel.check(), Vec::<String>::new());
    let mut p = crate::common::program(&kernel);
    p.leaves.push(Leaf { name: "store".into(), code: Bytes::copy_from_slice(&code), streams: None });
    let (artefact, _) = compile::jit(&mut p, &options()).expect("code");
    let mut session = Session::new(&artefact, 2).expect("a workspace");
    let mut buffers = [vec![0; 320]];
    assert_eq!(crate::common::run(&mut session, &kernel.params, &mut buffers), None);
    let got: Vec<i64> = buffers[0].chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let (_, asm) = compile::listing(&mut p, &options()).expect("a listing");
    assert!(asm.contains("leaf0: # store"), "{asm}");
    assert_eq!(got, (0..40).map(|k| 7 * k).collect::<Vec<i64>>());
}
