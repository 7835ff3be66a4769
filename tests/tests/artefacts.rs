//! What a compiled network promises beyond its numbers: what it imports and exports, that it can share a process,
//! run on many threads at once, and be made again byte for byte.

use lehr::codegen::runtime::abi::{LehrTensor, status};
use lehr::ir::{Tensor, tensor};
use lehr::{CompileOptions, LoadOptions, Runner, compile_so, load};
use lehr_ir::ops::{MatMul, Softmax};
use object::{Object, ObjectSymbol};
use std::path::Path;

fn compile(dir: &Path, name: &str, level: &str) -> std::path::PathBuf {
    let options = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let model = load("zoo:lenet5", &options).unwrap();
    let path = dir.join(format!("{name}.so"));
    compile_so(model.graph, &CompileOptions::new(level, "native").unwrap(), &path).unwrap();
    path
}

fn image(seed: u64) -> Tensor {
    tensor::seeded(lehr::ir::DType::F32, vec![1, 1, 28, 28], seed)
}

fn run(path: &Path, threads: u32, seed: u64) -> Vec<Tensor> {
    Runner::open(path, threads).unwrap().run(&[image(seed)]).unwrap()
}

#[test]
fn a_library_needs_libc_alone_and_exports_its_descriptor_alone() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(compile(dir.path(), "lenet5", "2")).unwrap();
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
    let exported: Vec<&str> = file.dynamic_symbols().filter(|s| s.is_definition()).map(|s| s.name().unwrap()).collect();
    assert_eq!(exported, ["lehr_model_lenet5"]);
    let endian = file.endian();
    let (entries, strings) = file.elf_section_table().dynamic(endian, &bytes[..]).unwrap().unwrap();
    let strings = file.elf_section_table().strings(endian, &bytes[..], strings).unwrap();
    let needed = entries.iter().filter(|d| d.d_tag.get(endian) == object::elf::DT_NEEDED);
    let needed: Vec<&[u8]> = needed.map(|d| strings.get(d.d_val.get(endian) as u32).unwrap()).collect();
    assert_eq!(needed, [b"libc.so.6"]);
}

#[test]
fn the_same_model_and_options_give_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let read = |dir: &Path| std::fs::read(compile(dir, "lenet5", "2")).unwrap();
    assert!(read(a.path()) == read(b.path()), "two compilations differ");
}

#[test]
fn two_models_in_one_process_and_any_number_of_threads_give_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (compile(dir.path(), "first", "2"), compile(dir.path(), "second", "0"));
    let (alone_first, alone_second) = (run(&first, 1, 5), run(&second, 1, 5));
    let mut one = Runner::open(&first, 2).unwrap();
    let mut two = Runner::open(&second, 3).unwrap();
    for _ in 0..10 {
        assert_eq!(one.run(&[image(5)]).unwrap(), alone_first);
        assert_eq!(two.run(&[image(5)]).unwrap(), alone_second);
    }
}

#[test]
fn one_model_runs_on_eight_threads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "lenet5", "2");
    let alone: Vec<Vec<Tensor>> = (0..8).map(|seed| run(&path, 1, seed)).collect();
    std::thread::scope(|scope| {
        for (seed, expected) in alone.iter().enumerate() {
            let path = &path;
            scope.spawn(move || {
                let mut runner = Runner::open(path, 1).unwrap();
                for _ in 0..20 {
                    assert_eq!(&runner.run(&[image(seed as u64)]).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn levels_agree_with_the_evaluator() {
    let options = LoadOptions { dims: vec![("batch".into(), 2)], ..LoadOptions::default() };
    let model = load("zoo:lenet5", &options).unwrap();
    let x = tensor::seeded(lehr::ir::DType::F32, vec![2, 1, 28, 28], 9);
    let expected = Runner::eval(model.graph.clone()).run(std::slice::from_ref(&x)).unwrap()[0].to_f64();
    for level in ["0", "1", "2"] {
        for cpu in ["native", "x86-64"] {
            let options = CompileOptions::new(level, cpu).unwrap();
            let got = Runner::jit(model.graph.clone(), &options, 2).unwrap().run(std::slice::from_ref(&x)).unwrap()[0]
                .to_f64();
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() < 2e-6, "-O{level} {cpu}: {g} {e}");
            }
        }
    }
}

#[test]
fn a_library_asks_for_all_that_its_code_uses() {
    use lehr::codegen::lower::LowerOptions;
    use lehr::codegen::runtime::abi::isa;
    use lehr::codegen::x86::Isa;
    // What leaves are made for by name, whether or not Cranelift's preset of that name is complete.
    for (cpu, leaves) in [
        ("x86-64", None),
        ("x86-64-v2", None),
        ("ivybridge", None),
        ("x86-64-v3", Some(Isa::Avx2)),
        ("haswell", Some(Isa::Avx2)),
        ("alderlake", Some(Isa::Avx2)),
        ("znver1", Some(Isa::Avx2)),
        ("znver4", Some(Isa::Avx512)),
        ("tigerlake", Some(Isa::Avx512)),
        ("x86-64-v4", Some(Isa::Avx512)),
        ("no such CPU", None),
    ] {
        assert_eq!(LowerOptions::for_cpu(cpu).leaves, leaves, "{cpu}");
    }
    let model = load("zoo:lenet5", &LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() }).unwrap();
    for (cpu, needed) in [("znver3", isa::AVX2 | isa::FMA), ("znver4", isa::AVX512F | isa::AVX2)] {
        let options = CompileOptions::new("2", cpu).unwrap();
        let (graph, _) = lehr::optimize(model.graph.clone(), options.level).unwrap();
        let mut program = lehr::codegen::lower::lower(&graph, &options.lowering()).unwrap();
        assert!(!program.leaves.is_empty(), "{cpu}: nothing is tested");
        let (_, image, _) = lehr::codegen::compile::object(&mut program, &options.codegen("{}".into())).unwrap();
        assert_eq!(image.isa & needed, needed, "{cpu}");
    }
}

/// A large arena begins at a huge page, wherever in it the caller's memory begins, and ends inside of the workspace.
#[test]
fn a_large_arena_lies_in_its_workspace_at_any_address() {
    const HUGE: usize = 2 << 20;
    let mut g = lehr_ir::Graph::new("large");
    let matrix = lehr_ir::TensorType::new(lehr_ir::DType::F32, [800, 800]);
    let x = g.add_input("x", matrix);
    let first = g.add1(MatMul {}, &[x, x], vec![]).unwrap();
    let rows = g.add1(Softmax { axis: 1 }, &[first], vec![]).unwrap();
    let y = g.add1(MatMul {}, &[rows, x], vec![]).unwrap();
    g.add_output("y", y);
    let mut runner = Runner::jit(g, &CompileOptions::default(), 2).unwrap();
    let x = tensor::seeded(lehr::ir::DType::F32, vec![800, 800], 1);
    let want = runner.run(std::slice::from_ref(&x)).unwrap().remove(0);
    let artefact = runner.session().unwrap().artefact().clone();
    let model = artefact.descriptor();
    assert!(model.arena_bytes as usize >= HUGE, "a test of nothing");
    // SAFETY: the artefact's descriptor is valid.
    let bytes = unsafe { (model.workspace_bytes)(model, 2) } as usize;
    for offset in [0, 64, HUGE / 2, HUGE - 64] {
        let mut memory = vec![0xa5u8; bytes + 2 * HUGE];
        let start = memory.as_ptr().align_offset(HUGE) + offset;
        let workspace = memory[start..].as_mut_ptr().cast();
        let (dims, mut got) = ([800i64, 800], vec![0u8; want.bytes().len()]);
        let matrix = |data: *mut u8| LehrTensor {
            data: data.cast(),
            dtype: artefact.inputs()[0].dtype,
            rank: 2,
            dims: dims.as_ptr(),
            bytes: want.bytes().len() as u64,
        };
        let (input, output) = (matrix(x.bytes().as_ptr().cast_mut()), matrix(got.as_mut_ptr()));
        // SAFETY: there are so many bytes at the workspace, which stays where it is, and both tensors are as the model wants them.
        unsafe {
            assert_eq!((model.open)(model, workspace, bytes as u64, 2), status::OK);
            for _ in 0..2 {
                assert_eq!((model.run)(model, workspace, &input, 1, &output, 1), status::OK);
            }
            assert_eq!((model.close)(model, workspace), status::OK);
        }
        assert!(got == *want.bytes(), "other bits at offset {offset}");
        let outside = memory[..start].iter().chain(&memory[start + bytes..]);
        assert!(
            outside.into_iter().all(|&b| b == 0xa5),
            "something outside of the workspace was written, at offset {offset}"
        );
    }
}
