//! `lehr test`: ONNX backend test directories, each in a process of its own.

use super::args::{Backend, TestArgs};
use super::inputs::{load_binding, read_pb};
use super::{CliResult, Failure, say, stand_in};
use crate::{LoadOptions, Runner};
use lehr_ir::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Passed,
    Failed,
    Skipped,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outcome {
    name: String,
    dir: PathBuf,
    status: Status,
    reason: String,
    seconds: f64,
    /// With --cpu-fallback, where no GPU computed it: the CPU, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stand_in: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    tests: Vec<Outcome>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub fn run(args: &TestArgs) -> CliResult {
    if args.in_process {
        return run_in_process(args);
    }
    // A CPU that does not exist is no failure of every test.
    args.device.apply(args.code.options()?, &args.code)?;
    if args.backend == Backend::Eval && args.device.gpu.target.is_some() {
        return Err(Failure::usage("--target is for compiled code; leave --backend eval away"));
    }
    let mut outcomes = run_all(args)?;
    outcomes.sort_by_key(|(at, _)| *at);
    let tests: Vec<Outcome> = outcomes.into_iter().map(|(_, o)| o).collect();
    let count = |s| tests.iter().filter(|t| t.status == s).count();
    let (passed, failed, skipped) = (count(Status::Passed), count(Status::Failed), count(Status::Skipped));
    let on_cpu: Vec<&String> = tests.iter().filter_map(|t| t.stand_in.as_ref()).collect();
    if let Some(first) = on_cpu.first() {
        eprintln!("note: {} of {} tests ran on {first}", on_cpu.len(), tests.len());
    }
    if args.json {
        let summary = Summary { tests, passed, failed, skipped };
        say(serde_json::to_string(&summary).map_err(|e| Failure::usage(e.to_string()))?)?;
    } else {
        say(format!("{passed} passed, {failed} failed, {skipped} skipped"))?;
    }
    if failed > 0 { Err(Failure::silent(1)) } else { Ok(()) }
}

fn run_all(args: &TestArgs) -> Result<Vec<(usize, Outcome)>, Failure> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![]);
    let exe = std::env::current_exe().map_err(|e| Failure::usage(e.to_string()))?;
    std::thread::scope(|scope| {
        for _ in 0..usize::from(args.jobs).min(args.dirs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(dir) = args.dirs.get(at) else { return };
                    let outcome = run_isolated(&exe, dir, args);
                    let mut done = done.lock().expect("no thread panics while holding it");
                    if !args.json {
                        let word = match outcome.status {
                            Status::Passed => "passed",
                            Status::Failed => "FAILED",
                            Status::Skipped => "skipped",
                        };
                        let colon = if outcome.reason.is_empty() { "" } else { ": " };
                        let on = outcome.stand_in.as_ref().map_or("", |_| ", on the CPU");
                        let line =
                            format!("{word} {} ({:.2} s{on}){colon}{}", outcome.name, outcome.seconds, outcome.reason);
                        if say(line).is_err() {
                            return;
                        }
                    }
                    done.push((at, outcome));
                }
            });
        }
    });
    Ok(done.into_inner().expect("all threads are done"))
}

fn outcome(dir: &Path, status: Status, reason: String, seconds: f64) -> Outcome {
    let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
    Outcome { name, dir: dir.to_path_buf(), status, reason, seconds, stand_in: None }
}

/// Runs this program again on one test; a crash or a hang there is a failed test here.
fn run_isolated(exe: &Path, dir: &Path, args: &TestArgs) -> Outcome {
    let started = Instant::now();
    let backend = match args.backend {
        Backend::Eval => "eval",
        Backend::Jit => "jit",
        Backend::So => "so",
    };
    let child = Command::new(exe)
        .args(["test", "--in-process", "--json", "--backend", backend, "-O", args.code.level()])
        .args(args.code.target_cpu.as_ref().map(|cpu| format!("--target-cpu={cpu}")))
        .args(args.code.numerics.map(|n| format!("--numerics={}", n.word())))
        .args(args.device.gpu.target.map(|sm| format!("--target={}", sm.name())))
        .args(args.device.gpu.gpu_precision.map(|p| format!("--gpu-precision={}", p.name())))
        .args(args.device.cpu_fallback.then_some("--cpu-fallback"))
        .args(args.code.approximate.map(|tolerance| format!("--approximate={tolerance}")))
        .args(args.code.caches.map(|caches| format!("--caches={caches}")))
        .args(args.code.tuned.as_ref().map(|file| option("--tuned=", file)))
        .args(["--rtol", &args.rtol.to_string(), "--atol", &args.atol.to_string()])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(c) => c,
        Err(e) => return outcome(dir, Status::Failed, format!("cannot start a process: {e}"), 0.0),
    };
    // Both pipes are drained while waiting, so that a talkative child cannot block on them.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let limit = Duration::from_secs(args.timeout);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if started.elapsed() > limit => {
                // A child that has just ended cannot be killed, and need not be.
                if child.kill().is_ok() && child.wait().is_err() {
                    break None;
                }
                break None;
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => break None,
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let Some(status) = status else {
        return outcome(dir, Status::Failed, format!("no answer within {} s", args.timeout), seconds);
    };
    let text = |pipe: std::thread::JoinHandle<String>| pipe.join().expect("reading a pipe does not panic");
    let (stdout, stderr) = (text(stdout), text(stderr));
    match serde_json::from_str::<Outcome>(stdout.trim()) {
        Ok(mut o) => {
            o.seconds = seconds;
            o
        }
        Err(_) => {
            let last = stderr.lines().last().unwrap_or("it said nothing");
            outcome(dir, Status::Failed, format!("the test's process ended with {status}: {last}"), seconds)
        }
    }
}

/// `--flag=` and a path, which need not be UTF-8.
fn option(flag: &str, path: &Path) -> OsString {
    let mut all = OsString::from(flag);
    all.push(path);
    all
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = vec![];
        if let Some(mut pipe) = pipe {
            // What could be read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn run_in_process(args: &TestArgs) -> CliResult {
    let dir = &args.dirs[0];
    let started = Instant::now();
    let mut stand_in = None;
    let (status, reason) = match run_dir(dir, args, &mut stand_in) {
        Ok(()) => (Status::Passed, String::new()),
        Err(Problem::Failed(why)) => (Status::Failed, why),
        Err(Problem::Skipped(why)) => (Status::Skipped, why),
    };
    let outcome = Outcome { stand_in, ..outcome(dir, status, reason, started.elapsed().as_secs_f64()) };
    say(serde_json::to_string(&outcome).map_err(|e| Failure::usage(e.to_string()))?)
}

enum Problem {
    Failed(String),
    Skipped(String),
}

impl From<String> for Problem {
    fn from(why: String) -> Problem {
        Problem::Failed(why)
    }
}

/// Values that are no tensors of a type we compute with (sequences, strings, 8-bit floats) are not our test yet.
fn unreadable(why: String) -> Problem {
    Problem::Skipped(format!("its data cannot be read: {why}"))
}

/// Tolerances that a test brings along in `data.json`, where ONNX's own runner looks for them too.
#[derive(Default, Deserialize)]
struct Tolerances {
    rtol: Option<f64>,
    atol: Option<f64>,
}

impl Tolerances {
    fn of(dir: &Path) -> Result<Tolerances, String> {
        let path = dir.join("data.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Tolerances::default()),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }
}

/// `on` becomes what stands in for a GPU, if something does.
fn run_dir(dir: &Path, args: &TestArgs, on: &mut Option<String>) -> Result<(), Problem> {
    let own = Tolerances::of(dir)?;
    let (rtol, atol) = (args.rtol.max(own.rtol.unwrap_or(0.0)), args.atol.max(own.atol.unwrap_or(0.0)));
    let sets = data_sets(dir)?;
    if sets.is_empty() {
        return Err(Problem::Failed("there is no test_data_set_0".into()));
    }
    for set in &sets {
        let files = numbered(set, "input_")?;
        let inputs = files.iter().map(|f| read_pb(f)).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let expected = numbered(set, "output_")?;
        let expected = expected.iter().map(|f| read_pb(f)).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let outputs = run_set(dir, &inputs, args, on)?;
        if outputs.len() < expected.len() {
            return Err(Problem::Failed(format!("{} outputs, {} are expected", outputs.len(), expected.len())));
        }
        for (k, ((_, want), got)) in expected.iter().zip(&outputs).enumerate() {
            compare(got, want, rtol, atol).map_err(|why| format!("output {k}: {why}"))?;
        }
    }
    Ok(())
}

fn data_sets(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut sets: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_")))
        .collect();
    sets.sort();
    Ok(sets)
}

/// `input_0.pb`, `input_1.pb`, ... in numeric order, as far as they go.
fn numbered(set: &Path, prefix: &str) -> Result<Vec<PathBuf>, String> {
    Ok((0..).map(|k| set.join(format!("{prefix}{k}.pb"))).take_while(|p| p.exists()).collect())
}

fn run_set(
    dir: &Path,
    inputs: &[(String, Tensor)],
    args: &TestArgs,
    on: &mut Option<String>,
) -> Result<Vec<Tensor>, Problem> {
    let model = dir.join("model.onnx");
    let loaded = load_binding(&model.to_string_lossy(), &LoadOptions::default(), inputs);
    let (mut loaded, feeds) = loaded.map_err(|e| match e.is_unsupported() {
        true => Problem::Skipped(e.to_string()),
        false => Problem::Failed(e.to_string()),
    })?;
    loaded.bind_dims(&feeds)?;
    let options = args.code.options().and_then(|o| args.device.apply(o, &args.code)).map_err(|f| f.message)?;
    let mut runner = match args.backend {
        Backend::Eval => Runner::eval(loaded.graph),
        Backend::Jit => Runner::jit(loaded.graph, &options, 0)?,
        Backend::So => Runner::so(loaded.graph, &options, 0)?,
    };
    *on = runner.session().and_then(|session| stand_in(session));
    Ok(runner.run(&feeds)?)
}

/// Fails with the first element that differs by more than `atol + rtol*|want|`, or with what else does not agree.
fn compare(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(format!("it is {}, {} is expected", got.ty(), want.ty()));
    }
    let rtol = rtol.max(match want.dtype() {
        DType::F16 => 2.0 * 2f64.powi(-10),
        DType::BF16 => 2.0 * 2f64.powi(-7),
        _ => 0.0,
    });
    if !want.dtype().is_float() {
        let differs = got.to_i128().into_iter().zip(want.to_i128()).enumerate().find(|(_, (g, w))| g != w);
        return differs.map_or(Ok(()), |(i, (g, w))| Err(format!("element {i} is {g}, {w} is expected")));
    }
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let close = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= atol + rtol * w.abs();
        if !close {
            return Err(format!("element {i} is {g}, {w} is expected"));
        }
    }
    Ok(())
}
