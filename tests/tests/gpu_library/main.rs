//! Libraries for GPUs from end to end, on the stand-in for NVIDIA's driver (`tests/cuda-sim`), which executes the PTX that they hold: against
//! the evaluator, with tensors in host and device memory, streams, several models and threads, faults, and what a close gives back.
//! What a machine without a driver or a GPU says is tested through the command line (`tests/cli`).

mod failures;
mod order;

use lehr::codegen::artefact::{Artefact, IoSpec, Session, SoOptions, c_header};
use lehr::codegen::ptx::{Gpu, Precision, Sm};
use lehr::codegen::runtime::abi::{LehrTensor, status};
use lehr::ir::eval::evaluate;
use lehr::ir::tensor::seeded;
use lehr::ir::{DType, Graph, Tensor};
use lehr::{CompileOptions, LoadOptions, OptLevel, Runner, compile_so, load};
use lehr_cuda_sim::{DriverCalls, driver_calls, stand_in};
use lehr_tests::compare::difference;
use object::{Object, ObjectSymbol};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard};

/// The tests take turns, so that what the driver holds is what one test holds, on a machine with two devices that works.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    stand_in();
    let turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
    driver_calls().machine("devices=2");
    turn
}

fn parse(params: &str, body: &str) -> Graph {
    let text = format!("graph @test({params}) {{\n{body}\n}}");
    lehr::ir::text::parse(&text, &|_| None).unwrap_or_else(|d| panic!("{}\n{text}", d[0]))
}

fn zoo(spec: &str) -> Graph {
    let options = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    load(&format!("zoo:{spec}"), &options).unwrap_or_else(|e| panic!("{e}")).graph
}

fn inputs(g: &Graph, seed: u64) -> Vec<Tensor> {
    let of = |(i, &v): (usize, &lehr::ir::ValueId)| {
        let ty = g.ty(v);
        seeded(ty.dtype, ty.const_shape().expect("numbers for all dimensions"), i as u64 + seed)
    };
    g.inputs().iter().enumerate().map(of).collect()
}

fn options(precision: Precision) -> CompileOptions {
    CompileOptions { gpu: Some(Gpu { sm: Sm::Sm80, precision }), ..CompileOptions::default() }
}

fn library(g: &Graph, options: &CompileOptions) -> (tempfile::TempDir, Artefact) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.so");
    compile_so(g.clone(), options, &path).unwrap_or_else(|e| panic!("{e}"));
    (dir, Artefact::open(&path).unwrap())
}

#[track_caller]
fn agree(g: &Graph, inputs: &[Tensor], got: &[Tensor], tolerance: f64) {
    let expected = evaluate(g, inputs, &mut |_, _| {}).unwrap();
    assert_eq!(expected.len(), got.len());
    for (e, g) in expected.iter().zip(got) {
        if let Some(why) = difference(e, g, tolerance) {
            panic!("{why}");
        }
    }
}

/// The same library on other inputs each time, and compiled in this process.
fn check(name: &str, g: &Graph, options: &CompileOptions, tolerance: f64) {
    let mut runner = Runner::so(g.clone(), options, 1).unwrap_or_else(|e| panic!("{name}: {e}"));
    for seed in [3, 50, 3] {
        let inputs = inputs(g, seed);
        let got = runner.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        agree(g, &inputs, &got, tolerance);
    }
    let inputs = inputs(g, 8);
    let got = Runner::jit(g.clone(), options, 1).unwrap().run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    agree(g, &inputs, &got, tolerance);
}

/// Few rows over a long sum, split among blocks; results that no kernel computes; and an output without elements.
const MIXED: (&str, &str) = (
    "%x: f32[8,700], %e: f32[0,3], %i: i64[4]",
    "%w = const f32[700,20] seeded(1)
    %y = matmul %x, %w
    %t = tanh %y
    %c = const f32[3] seeded(2)
    %z = neg %e
    %j = add %i, %i
    return %t, %c, %x, %z, %j",
);

#[test]
fn networks_agree_with_the_evaluator() {
    let _turn = turn();
    let attention = parse(
        "%q: f32[1,2,12,16], %k: f32[1,2,12,16], %v: f32[1,2,12,16]",
        "%t = transpose %k {perm=[0, 1, 3, 2]}
        %s = matmul %q, %t
        %p = softmax %s {axis=3}
        %o = matmul %p, %v
        %g = const f32[16] seeded(1)
        %n, %mean, %inv = layer_norm %o, %g, %g {axis=3}
        return %n",
    );
    for (name, g) in [
        ("lenet5", zoo("lenet5")),
        ("siren", zoo("siren?features=32")),
        ("inception_naive", zoo("inception_naive?input=32,classes=10,width=0.0625")),
        ("attention", attention),
        ("mixed", parse(MIXED.0, MIXED.1)),
    ] {
        check(name, &g, &options(Precision::Fp32), 5e-5);
    }
    check("lenet5, plain", &zoo("lenet5"), &CompileOptions { level: OptLevel::O0, ..options(Precision::Fp32) }, 1e-5);
    check("lenet5 in tf32", &zoo("lenet5"), &options(Precision::Tf32), 4.0 * Precision::Tf32.error());
}

/// Names travel in PTX comments, which have to be ASCII, and in the library's tables.
#[test]
fn names_may_hold_anything() {
    let _turn = turn();
    let mut g = parse("%x: f32[8,40]", "%w = const f32[40,8] seeded(1)\n%y = matmul %x, %w\n%z = tanh %y\nreturn %z");
    let hostile = "gr\u{f6}\u{df}e */ \u{2603}\n}\n.version 1.0 \u{1f9ca} \"\\";
    g.name = hostile.into();
    let ids: Vec<_> = g.ids().collect();
    for id in ids {
        let name: std::sync::Arc<str> = format!("{hostile}{}", id.index()).into();
        let origin = lehr::ir::Origin { name: name.clone(), index: None, op: hostile.into() };
        g.node_mut(id).origins = vec![origin];
        g.set_value_name(id.out(0), Some(name));
    }
    g.outputs[0].name = hostile.into();
    for precision in Precision::ALL {
        let (_, module) =
            lehr::compile_ptx(g.clone(), &CompileOptions::default(), Gpu { sm: Sm::Sm80, precision }).unwrap();
        assert!(module.text.is_ascii() && module.text.contains("\\u{2603}\\n}\\n.version"), "{}", module.text);
        let tolerance = if precision == Precision::Fp32 { 1e-5 } else { 4.0 * precision.error() };
        check("hostile names", &g, &options(precision), tolerance);
    }
}

/// Tensors by their addresses: inputs, then outputs.
fn tensors(specs: &[IoSpec], addresses: &[u64]) -> Vec<LehrTensor> {
    let one = |(spec, &address): (&IoSpec, &u64)| LehrTensor {
        data: address as usize as *mut _,
        dtype: spec.dtype,
        rank: spec.dims.len() as u32,
        dims: spec.dims.as_ptr(),
        bytes: spec.bytes,
    };
    specs.iter().zip(addresses).map(one).collect()
}

/// The caller's tensors are so far behind an allocation's start: they need not have the alignment of our own, but their elements'.
const OFFSET: u64 = 8;

/// Device memory for all inputs and outputs, the inputs filled.
fn on_device(driver: &DriverCalls, artefact: &Artefact, inputs: &[Tensor]) -> (Vec<u64>, Vec<u64>) {
    let put = |t: &Tensor| {
        let address = driver.alloc(t.bytes().len() + OFFSET as usize) + OFFSET;
        driver.upload(address, t.bytes());
        address
    };
    let room = |spec: &IoSpec| driver.alloc(spec.bytes as usize + OFFSET as usize) + OFFSET;
    (inputs.iter().map(put).collect(), artefact.outputs().iter().map(room).collect())
}

#[test]
fn tensors_may_be_on_the_device_and_runs_in_streams() {
    let _turn = turn();
    let g = parse("%x: f32[40,33], %y: f32[40,33]", "%a = add %x, %y\n%b = softmax %a {axis=1}\nreturn %a, %b");
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let mut session = Session::new(&artefact, 1).unwrap();
    let driver = driver_calls();
    driver.push(0);
    let stream = driver.stream();
    let values = inputs(&g, 4);
    let (ins, outs) = on_device(&driver, &artefact, &values);
    let fetch = |at: usize| {
        let bytes = driver.download(outs[at], artefact.outputs()[at].bytes as usize);
        Tensor::new(DType::F32, vec![40, 33], bytes.into()).unwrap()
    };

    // All on the device, in two streams.
    let (i, o) = (tensors(artefact.inputs(), &ins), tensors(artefact.outputs(), &outs));
    driver.upload(outs[0], &[0x5a; 4 * 40 * 33]);
    // SAFETY (here and below): the addresses are of so many bytes, and the stream is of the driver.
    unsafe { session.run_on(&i, &o, stream as *mut _) }.unwrap();
    let one_run = driver.pending();
    assert!(one_run > 4, "four copies, and launches");
    unsafe { session.run_on(&i, &o, null_mut()) }.unwrap();
    assert_eq!(driver.pending(), 2 * one_run);
    session.wait().unwrap();
    assert_eq!(driver.pending(), 0);
    agree(&g, &values, &[fetch(0), fetch(1)], 1e-6);

    // One output on the host: the run waits.
    let mut host = vec![0f32; 40 * 33];
    let mixed = tensors(artefact.outputs(), &[outs[0], host.as_mut_ptr() as u64]);
    let other = inputs(&g, 77);
    driver.upload(ins[0], other[0].bytes());
    driver.upload(ins[1], other[1].bytes());
    unsafe { session.run_on(&i, &mixed, stream as *mut _) }.unwrap();
    assert_eq!(driver.pending(), 0);
    let host =
        Tensor::new(DType::F32, vec![40, 33], host.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into());
    agree(&g, &other, &[fetch(0), host.unwrap()], 1e-6);
    drop(session);
    driver.destroy_stream(stream);
    ins.iter().chain(&outs).for_each(|&address| driver.free(address - OFFSET));
    driver.pop();
}

#[test]
fn a_fault_of_the_data_is_told_as_on_the_cpu_and_the_next_run_is_well() {
    let _turn = turn();
    let g = parse("%x: f32[10,4], %i: i64[3]", "%y = gather %x, %i {axis=0}\nreturn %y");
    let x = seeded(DType::F32, vec![10, 4], 1);
    let good = [x.clone(), Tensor::from_i128(DType::I64, vec![3], [0, 9, -10])];
    let bad = [x, Tensor::from_i128(DType::I64, vec![3], [0, 10, 3])];
    let on_cpu = Runner::jit(g.clone(), &CompileOptions::default(), 1).unwrap().run(&bad).unwrap_err();
    let mut runner = Runner::so(g.clone(), &options(Precision::Fp32), 1).unwrap();
    assert_eq!(runner.run(&bad).unwrap_err(), on_cpu);
    agree(&g, &good, &runner.run(&good).unwrap(), 0.0);

    // Told by whoever waits, if the run has not waited.
    let artefact = runner.artefact().unwrap().clone();
    let mut session = Session::new(&artefact, 1).unwrap();
    let driver = driver_calls();
    driver.push(0);
    let (ins, outs) = on_device(&driver, &artefact, &bad[..1]);
    let index = driver.alloc(24);
    driver.upload(index, bad[1].bytes());
    let (i, o) = (tensors(artefact.inputs(), &[ins[0], index]), tensors(artefact.outputs(), &outs));
    // SAFETY: device memory of the tensors' sizes.
    unsafe { session.run_on(&i, &o, null_mut()) }.unwrap();
    let error = session.wait().unwrap_err();
    assert_eq!((error.status, error.text), (status::FAULT, on_cpu));
    session.wait().unwrap();
    drop((session, runner));
    driver.free(index);
    ins.iter().chain(&outs).for_each(|&address| driver.free(address - OFFSET));
    driver.pop();
}

#[test]
fn models_run_beside_each_other_and_on_many_threads() {
    let _turn = turn();
    let (lenet, mixed) = (zoo("lenet5"), parse(MIXED.0, MIXED.1));
    let (_a, first) = library(&lenet, &options(Precision::Fp32));
    let (_b, second) = library(&mixed, &options(Precision::Fp32));
    let alone = |artefact: &Artefact, g: &Graph, seed| {
        let mut session = Session::new(artefact, 1).unwrap();
        let mut feeds = lehr::Feeds::new(artefact, &inputs(g, seed)).unwrap();
        feeds.run(&mut session).unwrap();
        feeds.outputs().unwrap()
    };
    let expected: Vec<_> = (0..4).map(|seed| (alone(&first, &lenet, seed), alone(&second, &mixed, seed))).collect();
    std::thread::scope(|scope| {
        for (seed, (one, two)) in expected.iter().enumerate() {
            let (first, second, lenet, mixed) = (&first, &second, &lenet, &mixed);
            scope.spawn(move || {
                let mut sessions = [first, second].map(|artefact| Session::new(artefact, 1).unwrap());
                let [a, b] = &mut sessions;
                let mut feeds_a = lehr::Feeds::new(first, &inputs(lenet, seed as u64)).unwrap();
                let mut feeds_b = lehr::Feeds::new(second, &inputs(mixed, seed as u64)).unwrap();
                for _ in 0..2 {
                    feeds_a.run(a).unwrap();
                    feeds_b.run(b).unwrap();
                    assert!(&feeds_a.outputs().unwrap() == one && &feeds_b.outputs().unwrap() == two);
                }
            });
        }
    });
}

#[test]
fn the_callers_context_says_which_device_and_stays_as_it_is() {
    let _turn = turn();
    let g = parse("%x: f32[4]", "%y = relu %x\nreturn %y");
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    assert_eq!(driver.current(), None);
    let mut session = Session::new(&artefact, 1).unwrap();
    assert_eq!(session.runs_on(), "GPU 0, Simulated GPU (sm_90), driver for CUDA 12.4");
    assert_eq!(session.gpu(), Some(0));
    driver.push(1);
    let on_second = Session::new(&artefact, 1).unwrap();
    assert_eq!((on_second.gpu(), on_second.is_on_cpu()), (Some(1), false));
    assert_eq!(on_second.runs_on(), "GPU 1, Simulated GPU (sm_90), driver for CUDA 12.4");
    assert_eq!(driver.current(), Some(1));
    let (ins, outs) = on_device(&driver, &artefact, &inputs(&g, 1));
    let (i, o) = (tensors(artefact.inputs(), &ins), tensors(artefact.outputs(), &outs));
    // SAFETY: device memory of the tensors' sizes, though of another device.
    let error = unsafe { session.run_on(&i, &o, null_mut()) }.unwrap_err();
    assert_eq!(error.status, status::DEVICE);
    assert_eq!(error.text, "input 0 'x': data is in the memory of GPU 1, the model is on GPU 0");
    assert_eq!(driver.current(), Some(1));
    ins.iter().chain(&outs).for_each(|&address| driver.free(address - OFFSET));
    drop((session, on_second));
    driver.pop();
    assert_eq!(driver.current(), None);
}

#[test]
fn a_close_gives_everything_back() {
    let _turn = turn();
    let g = parse("%x: f32[10,4], %i: i64[3]", "%y = gather %x, %i {axis=0}\n%z = tanh %y\nreturn %y, %z");
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    let before = driver.held();
    for _ in 0..2 {
        let session = Session::new(&artefact, 1).unwrap();
        assert!(driver.held() > before);
        drop(session);
        assert_eq!(driver.held(), before);
    }
}

/// Larger than the stand-in's memory; no test allocates it on the host.
fn too_large() -> Graph {
    parse("%a: f32[10], %x: f32[1100000000]", "%b = relu %a\n%y = relu %x\nreturn %b, %y")
}

#[test]
fn an_open_that_fails_gives_everything_back() {
    let _turn = turn();
    let (_dir, artefact) = library(&too_large(), &options(Precision::Fp32));
    let driver = driver_calls();
    let before = driver.held();
    let error = Session::new(&artefact, 1).err().unwrap();
    assert_eq!(error.status, status::DEVICE_MEMORY);
    assert!(
        error.text.contains("the model needs 8800.1 MB (0.0 MB for weights, ")
            && error.text.contains("; 4295.0 MB of 4295.0 MB were free"),
        "{error}"
    );
    assert_eq!((driver.held(), driver.current()), (before, None));
}

#[test]
fn the_cpu_in_a_gpus_place_refuses_what_it_cannot_reach() {
    let _turn = turn();
    let options = CompileOptions { cpu_fallback: true, ..options(Precision::Fp32) };
    let (_dir, artefact) = library(&too_large(), &options);
    let mut session = Session::new(&artefact, 1).unwrap();
    assert!(session.is_on_cpu() && session.runs_on().starts_with("the CPU, since the GPU has not enough memory"));
    let driver = driver_calls();
    driver.push(0);
    let address = driver.alloc(40);
    let i = tensors(artefact.inputs(), &[address, 64]);
    let o = tensors(artefact.outputs(), &[64, 64]);
    // SAFETY (both calls): they are refused before any address is looked at.
    let error = unsafe { session.run_on(&i, &o, null_mut()) }.unwrap_err();
    assert_eq!(error.status, status::DEVICE);
    let start = "input 0 'a': data is in the memory of GPU 0, but the model runs on the CPU, since";
    assert!(error.text.starts_with(start), "{error}");
    let error = unsafe { session.run_on(&i, &o, 8 as *mut _) }.unwrap_err();
    assert!(error.text.starts_with("there is a stream, but the model runs on the CPU, since"), "{error}");
    driver.free(address);
    driver.pop();
}

#[test]
fn a_library_imports_libc_exports_its_descriptor_and_is_the_same_each_time() {
    let g = zoo("lenet5");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, options: &CompileOptions| {
        let path = dir.path().join(name);
        compile_so(g.clone(), options, &path).unwrap();
        std::fs::read(path).unwrap()
    };
    let plain = options(Precision::Fp32);
    let named = CompileOptions { prefix: Some("lenet5".into()), ..plain.clone() };
    let with_cpu = CompileOptions { cpu_fallback: true, ..named.clone() };
    for options in [&named, &with_cpu] {
        let bytes = write("a.so", options);
        let again = write("a.so", options);
        assert!(bytes == again, "two compilations differ");
        let file = object::File::parse(&*bytes).unwrap();
        let names = |defined: bool| -> Vec<&str> {
            let all = file.dynamic_symbols().filter(|symbol| symbol.is_undefined() != defined);
            all.filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty()).collect()
        };
        assert_eq!(names(true), ["lehr_model_lenet5"]);
        let allowed =
            "memcpy memset syscall pthread_create pthread_join pthread_sigmask dlopen dlsym dlerror secure_getenv";
        assert!(names(false).iter().all(|import| allowed.split(' ').any(|a| a == *import)), "{:?}", names(false));
    }
    let (one, both) = (write("one.so", &named).len(), write("both.so", &with_cpu).len());
    assert!(both > one + 10_000, "{both} bytes with code for the CPU, {one} without");
}

#[test]
fn a_library_with_code_for_the_cpu_runs_on_the_gpu_if_there_is_one() {
    let _turn = turn();
    let g = zoo("lenet5");
    let options = CompileOptions { cpu_fallback: true, ..options(Precision::Fp32) };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.so");
    let done = compile_so(g.clone(), &options, &path).unwrap().gpu.unwrap();
    // The products' weights of lenet5 are packed for the CPU; biases are the same for both.
    assert!(done.shared_bytes > 0, "{done:?}");
    let artefact = Artefact::open(&path).unwrap();
    let facts = artefact.gpu().unwrap();
    assert!(
        facts.cpu_fallback && facts.capability == 80 && facts.ptx_version == (7, 1) && facts.driver_version == (11, 4)
    );
    check("lenet5 with code for the CPU", &g, &options, 1e-5);
    assert!(Session::new(&artefact, 2).unwrap().runs_on().starts_with("GPU 0"));
    let header = c_header(&artefact.image(), &SoOptions::default());
    assert!(
        header.contains("lehr_model_m_run_on(void *ws") && header.contains("LEHR_MODEL_M_DEVICE_BYTES"),
        "{header}"
    );
}

#[test]
fn the_c_compilers_linker_makes_such_a_library_too() {
    if std::process::Command::new("cc").arg("--version").output().is_err() {
        eprintln!("not run, since there is no `cc` here");
        return;
    }
    let _turn = turn();
    let linker = lehr::codegen::artefact::Linker::Cc("cc".into());
    check("lenet5 by cc", &zoo("lenet5"), &CompileOptions { linker, ..options(Precision::Fp32) }, 1e-5);
}
