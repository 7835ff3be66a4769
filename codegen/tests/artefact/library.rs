//! A model of one kernel as a library, by both linkers, and jitted: the same bits, only libc imported, one symbol exported.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::adder::*;
use lehr_codegen::artefact::*;
use object::{Object, ObjectSymbol};

const N: i64 = 1003;

fn linkers(test: &str) -> Vec<Linker> {
    let mut linkers = vec![Linker::Builtin];
    if have_cc(test) {
        linkers.push(Linker::Cc("cc".into()));
    }
    linkers
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn every_way_of_running_gives_the_same_bits_on_any_number_of_threads() {
    let folder = scratch();
    let image = image("adder", N, 0.5);
    let mut artefacts = vec![jitted(image.clone(), N)];
    for (index, linker) in linkers("same bits").into_iter().enumerate() {
        artefacts.push(written(&image, N, linker, &folder.path().join(format!("m{index}.so"))));
    }
    for artefact in &artefacts {
        assert_eq!(artefact.name(), "adder");
        assert_eq!((artefact.inputs(), artefact.outputs()), (&image.inputs[..], &image.outputs[..]));
        assert_eq!(artefact.metadata(), image.metadata);
        assert_eq!((artefact.arena_bytes(), artefact.weights_bytes()), (1000, 256));
        for threads in [0, 1, 2, 3] {
            let mut session = Session::new(artefact, threads).unwrap();
            for _ in 0..20 {
                assert_eq!(run(&mut session, N).unwrap(), expected(N, 0.5));
            }
        }
    }
}

#[test]
fn a_library_imports_libc_and_exports_its_descriptor() {
    let folder = scratch();
    for (index, linker) in linkers("imports").into_iter().enumerate() {
        let path = folder.path().join(format!("m{index}.so"));
        let options = SoOptions { linker: linker.clone(), ..SoOptions::default() };
        let report = write_so(&image("res/net-50", N, 1.0), &[object(N)], &options, &path).unwrap();
        assert_eq!(report.symbol, "lehr_model_res_net_50");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(report.file_bytes, bytes.len() as u64);
        let file = object::File::parse(&*bytes).unwrap();
        let names = |defined: bool| -> Vec<&str> {
            let all = file.dynamic_symbols().filter(|symbol| symbol.is_undefined() != defined);
            all.filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty()).collect()
        };
        assert_eq!(names(true), ["lehr_model_res_net_50"]);
        let mut imports = names(false);
        imports.sort_unstable();
        // No malloc among them: a run of a library cannot allocate.
        for import in imports {
            assert!(
                ["memset", "memcpy", "pthread_create", "pthread_join", "pthread_sigmask", "syscall"].contains(&import),
                "{linker:?} imports {import}"
            );
        }
        assert!(file.symbols().any(|symbol| symbol.name() == Ok("kernel_add")), "{linker:?} keeps the kernels' names");
    }
}

/// What a user's own tools say about it.
#[test]
fn the_tools_agree() {
    let folder = scratch();
    let path = folder.path().join("m.so");
    write_so(&image("adder", N, 1.0), &[object(N)], &SoOptions::default(), &path).unwrap();
    let tool = |name: &str, arguments: &[&str]| {
        let output = Command::new(name).args(arguments).arg(&path).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
        Some(text)
    };
    let (Some(dynamic), Some(symbols)) = (tool("readelf", &["-dlW"]), tool("nm", &["-D", "--defined-only"])) else {
        eprintln!("the_tools_agree: not run, since there are no binutils here");
        return;
    };
    assert_eq!(dynamic.matches("(NEEDED)").count(), 1, "{dynamic}");
    assert!(dynamic.contains("[libc.so.6]") && dynamic.contains("Library soname: [m.so]"), "{dynamic}");
    assert!(!dynamic.contains("RWE") && !dynamic.to_lowercase().contains("warning"), "{dynamic}");
    assert_eq!(symbols.lines().count(), 1, "{symbols}");
    assert!(symbols.trim_end().ends_with("lehr_model_adder"), "{symbols}");
    let all = tool("readelf", &["-aW"]).unwrap();
    // Its complaints begin with its name.
    assert!(!all.contains("readelf:"), "{all}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = scratch();
    let write = |name: &str| {
        let path = folder.path().join(name);
        let options = SoOptions { soname: Some("model.so".into()), ..SoOptions::default() };
        write_so(&image("adder", N, 1.0), &[object(N)], &options, &path).unwrap();
        fs::read(path).unwrap()
    };
    assert!(write("a.so") == write("b.so"));
}

#[test]
fn models_live_side_by_side_and_on_many_threads_at_once() {
    let folder = scratch();
    let one = written(&image("one", N, 1.0), N, Linker::Builtin, &folder.path().join("one.so"));
    let two = written(&image("two", N, -2.5), N, Linker::Builtin, &folder.path().join("two.so"));
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (artefact, weight) = if worker % 4 == 3 { (&two, -2.5) } else { (&one, 1.0) };
            scope.spawn(move || {
                let mut session = Session::new(artefact, 1 + worker % 3).unwrap();
                for _ in 0..200 {
                    assert_eq!(run(&mut session, N).unwrap(), expected(N, weight));
                }
            });
        }
    });
}

#[test]
fn a_session_outlives_the_artefact_it_came_from() {
    let mut session = Session::new(&jitted(image("adder", N, 0.0), N), 2).unwrap();
    assert_eq!(run(&mut session, N).unwrap(), expected(N, 0.0));
}

#[test]
fn a_fault_is_told_and_the_next_run_is_well() {
    let folder = scratch();
    for artefact in [
        jitted(image("adder", 4, 1.0), 4),
        written(&image("adder", 4, 1.0), 4, Linker::Builtin, &folder.path().join("m.so")),
    ] {
        let mut session = Session::new(&artefact, 2).unwrap();
        let error = run_on(&mut session, &[f32::NAN, 0.0, 0.0, 0.0], &[0.0; 4]).unwrap_err();
        assert_eq!((error.status, error.text.as_str()), (lehr_codegen::runtime::abi::status::FAULT, FAULT));
        assert_eq!(run(&mut session, 4).unwrap(), expected(4, 1.0));
    }
}

#[test]
fn a_large_gap_in_the_weights_reads_as_zero() {
    let folder = scratch();
    let mut image = image("adder", N, 1.0);
    image.weights.truncate(1);
    image.weights_bytes = 100_000;
    let artefact = written(&image, N, Linker::Builtin, &folder.path().join("m.so"));
    let mut session = Session::new(&artefact, 1).unwrap();
    assert_eq!(run(&mut session, N).unwrap(), expected(N, 0.0));
}

/// Beyond what 32-bit displacements reach. The file has holes where the weights are zero, so this costs neither time nor space.
#[test]
fn weights_may_be_larger_than_two_gigabytes() {
    let folder = scratch();
    let (mut image, bytes) = (image("adder", N, 1.0), 5u64 << 30);
    let mark = b"the end of the weights";
    image.weights.push(WeightBlob { offset: bytes - mark.len() as u64, data: mark.to_vec().into() });
    image.weights_bytes = bytes;
    let path = folder.path().join("m.so");
    let artefact = written(&image, N, Linker::Builtin, &path);
    assert!(fs::metadata(&path).unwrap().len() > bytes);
    let mut session = Session::new(&artefact, 2).unwrap();
    assert_eq!(run(&mut session, N).unwrap(), expected(N, 1.0));
    // SAFETY: the last bytes of the mapped weights.
    let end = unsafe {
        std::slice::from_raw_parts(artefact.descriptor().weights.add(bytes as usize - mark.len()), mark.len())
    };
    assert_eq!(end, mark);
}

#[test]
fn a_model_without_weights_has_none() {
    let folder = scratch();
    let mut image = image("adder", N, 1.0);
    image.weights.clear();
    image.weights_bytes = 0;
    let artefact = written(&image, N, Linker::Builtin, &folder.path().join("m.so"));
    assert!(artefact.descriptor().weights.is_null());
}

#[test]
fn what_cannot_be_linked_is_refused_and_leaves_no_file() {
    let folder = scratch();
    let path = folder.path().join("m.so");
    let refuse = |image: &ModelImage, objects: &[Vec<u8>]| {
        let error = write_so(image, objects, &SoOptions::default(), &path).unwrap_err().to_string();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
        error
    };
    let good = image("adder", N, 1.0);
    let error = refuse(&good, &[]);
    assert_eq!(error, "undefined in the model's code and in the runtime: lehr_model_main");
    assert!(refuse(&good, &[b"not an object".to_vec()]).starts_with("object 0: it cannot be read"));
    assert!(refuse(&good, &[object(N), object(N)]).contains("lehr_model_main is defined twice"));
    let overlapping = ModelImage { weights: vec![good.weights[1].clone(), good.weights[0].clone()], ..good.clone() };
    assert!(refuse(&overlapping, &[object(N)]).contains("overlap"));
    let short = ModelImage { weights_bytes: 130, ..good.clone() };
    assert!(refuse(&short, &[object(N)]).contains("the weights end at 132, after their 130 bytes"));
    let mut wrong = good.clone();
    wrong.inputs[0].dims = vec![i64::MAX, i64::MAX];
    assert_eq!(refuse(&wrong, &[object(N)]), "input 0 'a': its size overflows 64 bits");
}

#[test]
fn what_is_not_a_model_is_refused() {
    let folder = scratch();
    let open = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        Artefact::open(&path).unwrap_err().to_string()
    };
    assert!(Artefact::open(&PathBuf::from("/nonexistent/m.so")).unwrap_err().to_string().contains("No such file"));
    assert!(open("text.so", b"hello").contains("it is not a shared library"));
    assert!(open("object.so", &object(N)).contains("it has no descriptor"));

    let path = folder.path().join("m.so");
    write_so(&image("adder", N, 1.0), &[object(N)], &SoOptions::default(), &path).unwrap();
    let good = fs::read(&path).unwrap();
    let mut newer = good.clone();
    let descriptor = (0..good.len() - 16).find(|&at| good[at..].starts_with(b"LEHRMODL\x03\0\0\0\xe0\0\0\0")).unwrap();
    newer[descriptor + 8] = 9;
    assert!(open("newer.so", &newer).contains("it has ABI version 9"));
    // Older descriptors are shorter, which the symbol says as well: its size, behind type, section and address.
    let mut older = good.clone();
    older[descriptor + 8..][..8].copy_from_slice(b"\x02\0\0\0\xd8\0\0\0");
    let size = (12..good.len()).find(|&at| good[at..].starts_with(b"\xe0\0\0\0\0\0\0\0") && good[at - 12] == 0x11);
    older[size.unwrap()] = 0xd8;
    assert!(open("older.so", &older).contains("it has ABI version 2, this loader has 3; compile it again"));
    assert!(open("cut.so", &good[..good.len() - 1]).contains("it is cut off"));
    for cut in [0, 3, 64, 200, 5000, descriptor] {
        open("cut.so", &good[..cut.min(good.len())]);
    }
}
