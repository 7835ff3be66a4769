//! Orders that the stand-in driver gets wrong unless the runtime asks for them: of uploads, streams, and captures on other threads.

use super::*;
use std::sync::mpsc::channel;

/// A model's tensors on the device, for several runs on one workspace.
struct Run {
    values: Vec<Tensor>,
    ins: Vec<u64>,
    outs: Vec<u64>,
}

impl Run {
    fn new(driver: &DriverCalls, artefact: &Artefact, values: Vec<Tensor>) -> Run {
        let (ins, outs) = on_device(driver, artefact, &values);
        Run { values, ins, outs }
    }

    fn start(&self, session: &mut Session, stream: usize) -> Result<(), (i32, String)> {
        let artefact = session.artefact().clone();
        let (i, o) = (tensors(artefact.inputs(), &self.ins), tensors(artefact.outputs(), &self.outs));
        // SAFETY: device memory of the tensors' sizes; the stream is one of the driver's.
        unsafe { session.run_on(&i, &o, stream as *mut _) }.map_err(|error| (error.status, error.text))
    }

    #[track_caller]
    fn check(self, driver: &DriverCalls, g: &Graph) {
        let fetch = |(output, &address): (&lehr::ir::Output, &u64)| {
            let ty = g.ty(output.value);
            let shape = ty.const_shape().expect("numbers for all dimensions");
            let bytes = shape.iter().product::<usize>() * ty.dtype.size();
            Tensor::new(ty.dtype, shape, driver.download(address, bytes).into()).unwrap()
        };
        let got: Vec<Tensor> = g.outputs.iter().zip(&self.outs).map(fetch).collect();
        agree(g, &self.values, &got, 1e-5);
        self.ins.iter().chain(&self.outs).for_each(|&address| driver.free(address - OFFSET));
    }
}

/// A model and the driver, with a context current on this thread, while it is this test's turn.
struct Stage {
    g: Graph,
    artefact: Artefact,
    driver: DriverCalls,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(g: Graph) -> Stage {
        let _turn = turn();
        let (_dir, artefact) = library(&g, &options(Precision::Fp32));
        let driver = driver_calls();
        driver.push(0);
        Stage { g, artefact, driver, _dir, _turn }
    }

    /// A model with weights.
    fn product() -> Stage {
        let body = "%w = const f32[64,24] seeded(1)\n%y = matmul %x, %w\n%z = tanh %y\nreturn %z";
        Stage::new(parse("%x: f32[4,64]", body))
    }

    fn session(&self) -> Session {
        Session::new(&self.artefact, 1).unwrap()
    }

    fn run(&self, values: Vec<Tensor>) -> Run {
        Run::new(&self.driver, &self.artefact, values)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.driver.pop();
    }
}

#[test]
fn weights_are_on_the_device_before_a_stream_reads_them() {
    let stage = Stage::product();
    let Stage { g, driver, .. } = &stage;
    let run = stage.run(inputs(g, 1));
    let mut session = stage.session();
    // Such a stream does not wait for the default stream, where an upload may still be on its way.
    let stream = driver.non_blocking_stream();
    run.start(&mut session, stream).unwrap();
    session.wait().unwrap();
    run.check(driver, g);
    driver.destroy_stream(stream);
}

#[test]
fn runs_of_a_workspace_follow_one_another_whatever_their_streams() {
    let stage = Stage::product();
    let Stage { g, driver, .. } = &stage;
    let mut session = stage.session();
    let streams = [driver.non_blocking_stream(), driver.non_blocking_stream()];
    // The legacy default stream by its other name, and the thread's own.
    let runs = [streams[0], streams[1], 1, 2, streams[0]].map(|stream| {
        let run = stage.run(inputs(g, 10 + stream as u64));
        (stream, run)
    });
    for (stream, run) in &runs {
        run.start(&mut session, *stream).unwrap();
    }
    session.wait().unwrap();
    assert_eq!(driver.pending(), 0, "the last run has waited for all before");
    for (_, run) in runs {
        run.check(driver, g);
    }
    streams.into_iter().for_each(|stream| driver.destroy_stream(stream));
}

#[test]
fn a_stream_in_the_place_of_one_that_is_gone_waits_for_its_run() {
    let stage = Stage::new(parse("%x: f32[10,4], %i: i64[3]", "%y = gather %x, %i {axis=0}\nreturn %y"));
    let Stage { g, driver, .. } = &stage;
    let mut session = stage.session();
    let x = seeded(DType::F32, vec![10, 4], 1);
    let of = |indices: [i128; 3]| vec![x.clone(), Tensor::from_i128(DType::I64, vec![3], indices)];
    let (bad, good) = (stage.run(of([0, 10, 3])), stage.run(of([1, 2, 3])));
    let first = driver.non_blocking_stream();
    bad.start(&mut session, first).unwrap();
    driver.destroy_stream(first);
    let second = driver.non_blocking_stream();
    assert_eq!(second, first, "the handle says nothing about whose it was");
    good.start(&mut session, second).unwrap();
    assert_eq!(session.wait().unwrap_err().status, status::FAULT, "the first run's, which the second waits for");
    assert_eq!(driver.pending(), 0);
    good.check(driver, g);
    bad.ins.iter().chain(&bad.outs).for_each(|&address| driver.free(address - OFFSET));
    driver.destroy_stream(second);
}

#[test]
fn no_call_breaks_a_capture_on_another_thread() {
    let stage = Stage::product();
    let g = &stage.g;
    std::thread::scope(|scope| {
        let ((begun, begins), (go_on, ends)) = (channel(), channel::<()>());
        let capturing = scope.spawn(move || {
            let driver = driver_calls();
            driver.push(0);
            let stream = driver.non_blocking_stream();
            driver.begin_capture(stream);
            begun.send(()).unwrap();
            // Also when the other thread has failed.
            let _ = ends.recv();
            let status = driver.end_capture(stream);
            driver.destroy_stream(stream);
            driver.pop();
            status
        });
        begins.recv().unwrap();
        let opened = Session::new(&stage.artefact, 1).map(|mut session| {
            let mut feeds = lehr::Feeds::new(&stage.artefact, &inputs(g, 2)).unwrap();
            feeds.run(&mut session).map(|()| feeds.outputs().unwrap())
        });
        drop(go_on);
        assert_eq!(capturing.join().unwrap(), 0, "the capture was broken");
        agree(g, &inputs(g, 2), &opened.unwrap().unwrap(), 1e-5);
    });
}

#[test]
fn a_stream_that_is_captured_is_refused_and_its_capture_goes_on() {
    let stage = Stage::product();
    let Stage { g, driver, .. } = &stage;
    let mut session = stage.session();
    let run = stage.run(inputs(g, 1));
    let stream = driver.non_blocking_stream();
    driver.begin_capture(stream);
    let (code, text) = run.start(&mut session, stream).unwrap_err();
    assert_eq!(code, status::DEVICE);
    assert!(text.starts_with("the stream is being captured"), "{text}");
    assert_eq!(driver.end_capture(stream), 0, "the capture was broken");
    // The default stream would have to wait for a stream that takes turns with it.
    let in_turn = driver.stream();
    driver.begin_capture(in_turn);
    let (code, text) = run.start(&mut session, 0).unwrap_err();
    assert!(code == status::DEVICE && text.contains("depend on a capturing blocking stream"), "{text}");
    assert_eq!(driver.end_capture(in_turn), 0, "the capture was broken");
    driver.destroy_stream(in_turn);
    run.start(&mut session, stream).unwrap();
    session.wait().unwrap();
    run.check(driver, g);
    driver.destroy_stream(stream);
}
