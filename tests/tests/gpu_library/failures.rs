//! Calls of the driver that fail, pointers that are refused, and what the next call finds then.

use super::*;

const UNKNOWN: i32 = 999;
const OUT_OF_MEMORY: i32 = 2;

/// An index that is out of range makes a fault; the others do not.
fn gather() -> (Graph, [Tensor; 2], [Tensor; 2]) {
    let g = parse("%x: f32[10,4], %i: i64[3]", "%y = gather %x, %i {axis=0}\nreturn %y");
    let x = seeded(DType::F32, vec![10, 4], 1);
    let of = |indices: [i128; 3]| [x.clone(), Tensor::from_i128(DType::I64, vec![3], indices)];
    (g, of([0, 10, 3]), of([0, 9, -10]))
}

/// A run on host memory.
fn run(session: &mut Session, values: &[Tensor]) -> Result<Vec<Tensor>, (i32, String)> {
    let artefact = session.artefact().clone();
    let words = |bytes: usize| vec![0u64; bytes.div_ceil(8)];
    let copied = |value: &Tensor| {
        let mut copy = words(value.bytes().len());
        // SAFETY: both have so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(value.bytes().as_ptr(), copy.as_mut_ptr().cast(), value.bytes().len()) };
        copy
    };
    let ins: Vec<_> = values.iter().map(copied).collect();
    let mut outs: Vec<_> = artefact.outputs().iter().map(|spec| words(spec.bytes as usize)).collect();
    let of = |memory: &[Vec<u64>]| memory.iter().map(|words| words.as_ptr() as u64).collect::<Vec<_>>();
    let out_addresses: Vec<_> = outs.iter_mut().map(|words| words.as_mut_ptr() as u64).collect();
    let (i, o) = (tensors(artefact.inputs(), &of(&ins)), tensors(artefact.outputs(), &out_addresses));
    // SAFETY: host memory of the tensors' sizes.
    unsafe { session.run_on(&i, &o, null_mut()) }.map_err(|error| (error.status, error.text))?;
    let result = |(spec, words): (&IoSpec, &Vec<u64>)| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take(spec.bytes as usize).collect();
        let dims = spec.dims.iter().map(|&dim| dim as usize).collect();
        Tensor::new(DType::F32, dims, bytes.into()).unwrap()
    };
    Ok(artefact.outputs().iter().zip(&outs).map(result).collect())
}

fn failing(driver: &DriverCalls, name: &str, before: usize, code: i32) {
    driver.machine(&format!("devices=2,fail={name}:{before}:{code}"));
}

#[test]
fn the_cpu_refuses_device_memory_with_a_driver_that_is_too_old() {
    let _turn = turn();
    let g = parse("%x: f32[40]", "%y = relu %x\nreturn %y");
    let options = CompileOptions { cpu_fallback: true, ..options(Precision::Fp32) };
    let (_dir, artefact) = library(&g, &options);
    let driver = driver_calls();
    driver.machine("devices=2,driver=11000");
    let mut session = Session::new(&artefact, 1).unwrap();
    assert!(session.runs_on().starts_with("the CPU, since the NVIDIA driver is too old"), "{}", session.runs_on());
    let values = inputs(&g, 1);
    agree(&g, &values, &run(&mut session, &values).unwrap(), 1e-6);

    driver.push(1);
    let (ins, outs) = on_device(&driver, &artefact, &values);
    let refused = |session: &mut Session, input: u64, output: u64, start: &str| {
        let (i, o) = (tensors(artefact.inputs(), &[input]), tensors(artefact.outputs(), &[output]));
        // SAFETY: refused before any address is looked at.
        let error = unsafe { session.run_on(&i, &o, null_mut()) }.unwrap_err();
        assert_eq!(error.status, status::DEVICE);
        assert!(error.text.starts_with(start), "{error}");
    };
    let input =
        "input 0 'x': data is in the memory of GPU 1, but the model runs on the CPU, since the NVIDIA driver is";
    refused(&mut session, ins[0], outs[0], input);
    refused(&mut session, values[0].bytes().as_ptr() as u64, outs[0], "output 0 'y': data is in the memory of GPU 1");
    // Threads without a context pass such pointers as well.
    std::thread::scope(|scope| {
        scope.spawn(|| refused(&mut session, ins[0], outs[0], input)).join().unwrap();
    });
    failing(&driver, "cuPointerGetAttribute", 0, UNKNOWN);
    refused(
        &mut session,
        ins[0],
        outs[0],
        "input 0 'x': the NVIDIA driver failed: cuPointerGetAttribute: CUDA_ERROR_U",
    );
    ins.iter().chain(&outs).for_each(|&address| driver.free(address - OFFSET));

    // Managed memory is the CPU's as well.
    let managed = [driver.alloc_managed(160), driver.alloc_managed(160)];
    let (i, o) = (tensors(artefact.inputs(), &managed[..1]), tensors(artefact.outputs(), &managed[1..]));
    // SAFETY: managed memory of the tensors' sizes, which nothing else uses.
    let got = unsafe {
        std::ptr::copy_nonoverlapping(values[0].bytes().as_ptr(), managed[0] as *mut u8, 160);
        session.run_on(&i, &o, null_mut()).unwrap();
        std::slice::from_raw_parts(managed[1] as *const u8, 160).to_vec()
    };
    agree(&g, &values, &[Tensor::new(DType::F32, vec![40], got.into()).unwrap()], 1e-6);
    driver.machine("devices=2");
    let mut on_gpu = Session::new(&artefact, 1).unwrap();
    assert!(on_gpu.runs_on().starts_with("GPU 1"));
    // SAFETY: as above; the run waits, since this is host memory to it.
    unsafe {
        std::ptr::write_bytes(managed[1] as *mut u8, 0x5a, 160);
        on_gpu.run_on(&i, &o, null_mut()).unwrap();
        let got = std::slice::from_raw_parts(managed[1] as *const u8, 160).to_vec();
        agree(&g, &values, &[Tensor::new(DType::F32, vec![40], got.into()).unwrap()], 1e-6);
    }
    drop((session, on_gpu));
    managed.into_iter().for_each(|address| driver.free(address));
    driver.pop();
}

#[test]
fn an_address_that_the_driver_cannot_look_up_is_an_error() {
    let _turn = turn();
    let g = parse("%x: f32[40]", "%y = relu %x\nreturn %y");
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    driver.push(0);
    let mut session = Session::new(&artefact, 1).unwrap();
    let values = inputs(&g, 1);
    let (ins, outs) = on_device(&driver, &artefact, &values);
    let (i, o) = (tensors(artefact.inputs(), &ins), tensors(artefact.outputs(), &outs));
    // Of each tensor: what memory it is in, whether that is managed, and whose.
    for (before, tensor) in [(0, "input 0 'x'"), (1, "input 0 'x'"), (2, "input 0 'x'"), (5, "output 0 'y'")] {
        failing(&driver, "cuPointerGetAttribute", before, UNKNOWN);
        // SAFETY: device memory of the tensors' sizes.
        let error = unsafe { session.run_on(&i, &o, null_mut()) }.unwrap_err();
        let text = "the NVIDIA driver failed: cuPointerGetAttribute: CUDA_ERROR_UNKNOWN (999), unknown error";
        assert_eq!((error.status, error.text), (status::DEVICE, format!("{tensor}: {text}")));
        assert_eq!(driver.pending(), 0);
    }
    ins.iter().chain(&outs).for_each(|&address| driver.free(address - OFFSET));
    drop(session);
    driver.pop();
}

#[test]
fn a_run_that_is_refused_or_fails_leaves_nothing_for_the_next() {
    let _turn = turn();
    let (g, bad, good) = gather();
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    let mut session = Session::new(&artefact, 1).unwrap();
    driver.push(1);
    let elsewhere = driver.alloc(48);
    let addresses = [bad[0].bytes().as_ptr() as u64, bad[1].bytes().as_ptr() as u64];
    let (i, o) = (tensors(artefact.inputs(), &addresses), tensors(artefact.outputs(), &[elsewhere]));
    // SAFETY: host memory of the tensors' sizes; the output is refused.
    let error = unsafe { session.run_on(&i, &o, null_mut()) }.unwrap_err();
    assert_eq!(error.text, "output 0 'y': data is in the memory of GPU 1, the model is on GPU 0");
    assert_eq!(driver.pending(), 0);
    agree(&g, &good, &run(&mut session, &good).unwrap(), 0.0);
    driver.free(elsewhere);
    driver.pop();

    for name in ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuEventRecord", "cuEventSynchronize"]
    {
        failing(&driver, name, 0, UNKNOWN);
        let (code, text) = run(&mut session, &bad).unwrap_err();
        assert!(code == status::DEVICE && text.contains("CUDA_ERROR_UNKNOWN (999)"), "{name}: {code}, {text}");
        let got = run(&mut session, &good).unwrap_or_else(|why| panic!("after a {name} that failed: {why:?}"));
        agree(&g, &good, &got, 0.0);
    }
}

#[test]
fn a_close_whose_context_cannot_be_entered_leaves_the_callers() {
    let _turn = turn();
    let (g, ..) = gather();
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    driver.push(1);
    let memory = driver.alloc(16);
    let session = Session::new(&artefact, 1).unwrap();
    failing(&driver, "cuCtxPushCurrent_v2", 0, UNKNOWN);
    drop(session);
    assert_eq!(driver.current(), Some(1));
    driver.free(memory);
    driver.pop();
}

#[test]
fn too_little_memory_is_told_as_that_wherever_it_shows() {
    let _turn = turn();
    let (g, _, good) = gather();
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    let before = driver.held();
    for name in [
        "cuDevicePrimaryCtxRetain",
        "cuStreamCreate",
        "cuEventCreate",
        "cuModuleLoadDataEx",
        "cuMemHostAlloc",
        "cuMemAlloc_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
    ] {
        failing(&driver, name, 0, OUT_OF_MEMORY);
        let error = Session::new(&artefact, 1).err().unwrap();
        assert_eq!(error.status, status::DEVICE_MEMORY, "{name}: {error}");
        assert!(error.text.starts_with("the GPU has not enough memory"), "{name}: {error}");
        assert_eq!(driver.held(), before, "{name}");
    }
    let mut session = Session::new(&artefact, 1).unwrap();
    for name in ["cuCtxPushCurrent_v2", "cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuEventSynchronize"] {
        failing(&driver, name, 0, OUT_OF_MEMORY);
        let (code, text) = run(&mut session, &good).unwrap_err();
        assert_eq!(code, status::DEVICE_MEMORY, "{name}: {text}");
    }
    agree(&g, &good, &run(&mut session, &good).unwrap(), 0.0);
}

#[test]
fn a_driver_without_its_compiler_says_what_to_install() {
    let _turn = turn();
    let (g, ..) = gather();
    let (_dir, artefact) = library(&g, &options(Precision::Fp32));
    let driver = driver_calls();
    failing(&driver, "cuModuleLoadDataEx", 0, 221);
    let error = Session::new(&artefact, 1).err().unwrap();
    assert_eq!(error.status, status::DEVICE_CODE);
    assert!(error.text.contains("libnvidia-ptxjitcompiler.so.1") && error.text.contains("install"), "{error}");
}
