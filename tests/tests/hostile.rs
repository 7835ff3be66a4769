//! Mutated models from the file to the result: import, verify, passes, lowering and machine code never panic, crash or hang,
//! take bounded memory, and where a model runs, the compiled code agrees with the evaluator, in results and in faults.
//! Kernels are interpreted too, which checks every access. `LEHR_FUZZ_CASES` sets the number of cases, `LEHR_FUZZ_FIRST` the
//! number of the first.

#[path = "../../frontends/tests/common/mod.rs"]
mod common;
#[path = "../../frontends/tests/mutate/mod.rs"]
mod mutate;
#[path = "../../frontends/tests/seeds/mod.rs"]
mod seeds;

use lehr::frontends::onnx::proto::ModelProto;
use lehr::frontends::onnx::{ImportOptions, Model, import};
use lehr::{CompileOptions, OptLevel, Runner, optimize, total_flops};
use lehr_codegen::lower::lower_owned;
use lehr_codegen::plan::plan;
use lehr_ir::eval::evaluate;
use lehr_ir::ops::BinaryFn;
use lehr_ir::{DType, Graph, NodeId, Op, Tensor, ValueId, tensor, verify};
use lehr_tests::compare::difference;
use lehr_tests::interpret::interpret;
use mutate::{mutated, peak_kib};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const CASES: u64 = 10_000;
const THREADS: u64 = 2;
/// One case takes milliseconds; this is for a loaded machine.
const HANG: Duration = Duration::from_secs(30);
/// Memory of the whole test process.
const MEMORY_KIB: u64 = 3 << 20;
/// Models beyond these are lowered, but not run.
const RUN_BYTES: i64 = 1 << 18;
const RUN_FLOPS: i64 = 1 << 20;
/// Interpreting is slower still.
const INTERPRET_FLOPS: i64 = 1 << 16;

#[derive(Default)]
struct Counts {
    refused: AtomicU64,
    imported: AtomicU64,
    distinct: AtomicU64,
    lowered: AtomicU64,
    ran: AtomicU64,
    faulted: AtomicU64,
}

#[test]
fn mutated_models_take_the_whole_path() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (cases, first): (u64, u64) =
        (number("LEHR_FUZZ_CASES").unwrap_or(CASES), number("LEHR_FUZZ_FIRST").unwrap_or(0));
    let seeds = seeds::models();
    let (counts, seen, start) = (Counts::default(), Mutex::new(HashSet::new()), Instant::now());
    let clocks: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let (seeds, counts, seen, clock) = (&seeds, &counts, &seen, &clocks[worker as usize]);
                scope.spawn(move || {
                    for case in (first..first + cases).filter(|case| case % THREADS == worker) {
                        clock.store(start.elapsed().as_millis() as u64, Relaxed);
                        one_case(case, seeds, seen, counts);
                    }
                    clock.store(u64::MAX, Relaxed);
                })
            })
            .collect();
        scope.spawn(|| watch(&clocks, start, &done));
        for worker in workers {
            let result = worker.join();
            done.store(true, Relaxed);
            assert!(result.is_ok(), "a case failed; its number and file are above");
        }
    });
    let peak = peak_kib();
    eprintln!("{cases} cases in {:?}, {peak} KiB at the peak: {counts:?}", start.elapsed());
    assert!(peak < MEMORY_KIB, "the process took {peak} KiB");
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = |count: &AtomicU64| count.load(Relaxed);
        let (refused, imported, distinct) = (n(&self.refused), n(&self.imported), n(&self.distinct));
        write!(f, "{refused} refused, {imported} imported, {distinct} distinct, {} lowered, ", n(&self.lowered))?;
        write!(f, "{} ran, {} faulted", n(&self.ran), n(&self.faulted))
    }
}

/// Ends the process if a case hangs; its file stays behind.
fn watch(clocks: &[AtomicU64], start: Instant, done: &AtomicBool) {
    while !done.load(Relaxed) {
        let now = start.elapsed().as_millis() as u64;
        for clock in clocks {
            let began = clock.load(Relaxed);
            if began != u64::MAX && now.saturating_sub(began) > HANG.as_millis() as u64 {
                eprintln!("a case takes more than {HANG:?}: see {}/lehr-hostile-*", std::env::temp_dir().display());
                std::process::abort();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The model of the case being run, in a file that is left behind unless the case ends well: after a panic, and after a crash
/// of the process too.
struct Evidence {
    case: u64,
    path: PathBuf,
}

impl Evidence {
    fn new(case: u64, bytes: &[u8]) -> Evidence {
        let path = std::env::temp_dir().join(format!("lehr-hostile-{}-{case}.onnx", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Evidence { case, path }
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("LEHR_FUZZ_FIRST={} LEHR_FUZZ_CASES=1: {}", self.case, self.path.display());
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn one_case(case: u64, seeds: &[(&str, ModelProto)], seen: &Mutex<HashSet<u64>>, counts: &Counts) {
    let bytes = mutated(seeds, case);
    let evidence = Evidence::new(case, &bytes);
    let count = |which: &AtomicU64| which.fetch_add(1, Relaxed);
    let options = ImportOptions { default_dim: Some(2), ..ImportOptions::default() };
    let imported = Model::from_bytes(bytes.into(), None).ok().and_then(|model| {
        import(&model, &options).inspect_err(|e| assert!(!e.diags.is_empty() && !e.to_string().is_empty())).ok()
    });
    let Some(imported) = imported else {
        count(&counts.refused);
        return drop(evidence);
    };
    count(&counts.imported);
    assert_eq!(verify(&imported.graph), [], "what was imported does not verify");
    let mut hasher = DefaultHasher::new();
    imported.graph.to_string().hash(&mut hasher);
    if !seen.lock().unwrap().insert(hasher.finish()) {
        return drop(evidence);
    }
    count(&counts.distinct);
    whole_path(&imported.graph, counts);
}

fn whole_path(graph: &Graph, counts: &Counts) {
    let count = |which: &AtomicU64| which.fetch_add(1, Relaxed);
    let mut runnable = work(graph).is_some_and(|(bytes, flops)| bytes <= RUN_BYTES && flops <= RUN_FLOPS);
    for level in [OptLevel::O0, OptLevel::O2] {
        let options = CompileOptions { level, ..CompileOptions::default() };
        let (optimized, _) = optimize(graph.clone(), level).unwrap_or_else(|e| panic!("{level}: {e}\n{graph}"));
        match lower_owned(optimized, &options.lowering()) {
            Ok(mut program) => {
                count(&counts.lowered);
                for k in &program.kernels {
                    assert_eq!(k.check(), Vec::<String>::new(), "{level}: {k}");
                }
                plan(&mut program);
                runnable &= program.arena_bytes < 1 << 24 && program.weights_bytes < 1 << 24;
            }
            Err(diags) => {
                assert!(!diags.is_empty() && diags.iter().all(|d| !d.message.is_empty()));
                runnable = false;
            }
        }
    }
    if !runnable {
        return;
    }
    let types = graph.inputs().iter().map(|&v| graph.ty(v).clone());
    let shape = |t: &lehr_ir::TensorType| t.const_shape().expect("what was lowered has numbers for dimensions");
    let inputs: Vec<Tensor> =
        types.enumerate().map(|(i, t)| tensor::seeded(t.dtype, shape(&t), i as u64 + 7)).collect();
    let expected = Runner::eval(graph.clone()).run(&inputs);
    count(if expected.is_ok() { &counts.ran } else { &counts.faulted });
    for level in [OptLevel::O0, OptLevel::O2] {
        let options = CompileOptions { level, ..CompileOptions::default() };
        let fail = |why: String| -> ! { panic!("{level}: {why}\n{graph}") };
        let mut runner = Runner::jit(graph.clone(), &options, 1).unwrap_or_else(|e| fail(e));
        match (&expected, runner.run(&inputs)) {
            // Fused operators do not round in between, which 16-bit floats show in every digit.
            (Ok(_), Ok(_)) if level == OptLevel::O2 && has_halves(graph) => {}
            (Ok(expected), Ok(got)) => {
                for (n, (e, g)) in expected.iter().zip(&got).enumerate() {
                    if let Some(why) = difference(e, g, tolerance(e.dtype()))
                        && !is_extreme(graph, &inputs)
                        && !is_ill_conditioned(graph, &inputs, expected)
                    {
                        fail(format!("output {n}: {why}"));
                    }
                }
            }
            (Err(e), Err(g)) => assert!(!e.is_empty() && !g.is_empty()),
            (Ok(_), Err(g)) => fail(format!("the evaluator runs it, compiled code says: {g}")),
            // A node that no output needs may be left out, and its fault with it.
            (Err(e), Ok(_)) if level == OptLevel::O0 => fail(format!("compiled code runs it, the evaluator says: {e}")),
            (Err(_), Ok(_)) => {}
        }
    }
    if work(graph).is_some_and(|(_, flops)| flops <= INTERPRET_FLOPS) {
        let program = lower_owned(graph.clone(), &Default::default()).unwrap();
        let fault = interpret(&program, &inputs).unwrap_or_else(|e| panic!("interpreted: {e}\n{graph}"));
        assert_eq!(fault.is_some(), expected.is_err(), "interpreted: {fault:?}\n{graph}");
    }
}

fn has_halves(graph: &Graph) -> bool {
    let mut types = graph.ids().flat_map(|id| graph.node(id).results.iter().filter_map(|r| r.ty.as_tensor()));
    types.any(|t| matches!(t.dtype, DType::F16 | DType::BF16))
}

/// Whether the model has weights, or comes to values, at which f32 and the evaluator's f64 accumulators part, or powers beyond an
/// integer's range, which ONNX leaves open.
fn is_extreme(graph: &Graph, inputs: &[Tensor]) -> bool {
    let is_power = |id| matches!(&graph.node(id).op, Op::Binary(b) if b.f == BinaryFn::Pow);
    let whole = |id: NodeId| !matches!(graph.ty(id.out(0)).dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    // The p-th powers of numbers below one vanish in f32.
    let is_norm = |id| matches!(&graph.node(id).op, Op::LpPool(pool) if pool.p > 16);
    let mut extreme = graph.ids().any(|id| (is_power(id) && whole(id)) || is_norm(id));
    let mut look = |v: ValueId, t: &Tensor| {
        let float = matches!(t.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16);
        let weight = graph.constant(v).is_some();
        extreme |= float && t.to_f64().iter().any(|v| if v.is_finite() { v.abs() > 1e15 } else { weight });
    };
    let result = evaluate(graph, inputs, &mut look);
    extreme || result.is_err()
}

/// Whether a change of the inputs in their last digits shows in the results.
fn is_ill_conditioned(graph: &Graph, inputs: &[Tensor], expected: &[Tensor]) -> bool {
    let nudged: Vec<Tensor> = inputs.iter().map(nudge).collect();
    let Ok(got) = evaluate(graph, &nudged, &mut |_, _| {}) else { return true };
    expected.iter().zip(&got).any(|(e, g)| difference(e, g, tolerance(e.dtype()) / 30.0).is_some())
}

fn nudge(t: &Tensor) -> Tensor {
    let step = match t.dtype() {
        DType::F64 => 1e-15,
        DType::F32 => 2e-7,
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => return t.clone(),
    };
    let values = t.to_f64().into_iter().enumerate().map(|(i, v)| v * (1.0 + step * ((i * 5 % 7) as f64 - 3.0)));
    Tensor::from_f64(t.dtype(), t.shape().to_vec(), values)
}

/// Bytes of all values and operations of one run.
fn work(graph: &Graph) -> Option<(i64, i64)> {
    let values = graph.ids().flat_map(|id| graph.node(id).results.iter().filter_map(|r| r.ty.as_tensor()));
    let bytes = values.map(|t| t.bytes().as_const()).try_fold(0i64, |sum, n| sum.checked_add(n?))?;
    Some((bytes, total_flops(graph)?))
}

/// Mutations leave chains of operators, and sums that cancel.
fn tolerance(t: DType) -> f64 {
    match t {
        DType::F64 => 1e-9,
        DType::F32 => 1e-4,
        DType::F16 => 1e-2,
        DType::BF16 => 6e-2,
        _ => 0.0,
    }
}
