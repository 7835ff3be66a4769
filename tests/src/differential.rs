//! Compiled code beside the evaluator, with every instruction set, level and number of threads, on memory between guard pages.

use crate::compare::{difference, dirty_memory, of_largest};
use crate::guarded::{Guard, Guarded};
use lehr::codegen::artefact::{IoSpec, TensorMut, TensorRef};
use lehr::codegen::compile::dtype_code;
use lehr::codegen::x86::Isa;
use lehr::{CompileOptions, Numerics, OptLevel, Runner};
use lehr_ir::eval::{EvalError, evaluate};
use lehr_ir::{DType, Graph, Tensor};

/// Of the largest number in the network: what is behind may be smaller by cancellation.
const TOLERANCE: f64 = 2e-5;

const CPUS: [(&str, Isa); 2] = [("x86-64-v4", Isa::Avx512), ("x86-64-v3", Isa::Avx2)];
const LEVELS: [(OptLevel, Numerics); 3] =
    [(OptLevel::O2, Numerics::Fast), (OptLevel::O1, Numerics::Strict), (OptLevel::Os, Numerics::Fast)];

/// The evaluator's results, and the largest finite magnitude on the way to them.
pub fn evaluated(g: &Graph, inputs: &[Tensor]) -> Result<(Vec<Tensor>, f64), EvalError> {
    let mut most = 0.0f64;
    let mut look = |t: &Tensor| most = t.to_f64().iter().filter(|v| v.is_finite()).fold(most, |m, v| m.max(v.abs()));
    let results = evaluate(g, inputs, &mut |_, t| look(t))?;
    Ok((results, most))
}

/// Likewise, where all of it is finite and in f32's range.
pub fn expected(g: &Graph, inputs: &[Tensor]) -> Option<(Vec<Tensor>, f64)> {
    let (results, most) = evaluated(g, inputs).ok()?;
    // Numbers that leave f32 are no test of kernels.
    let ordinary = |t: &Tensor| t.to_f64().iter().all(|v| v.is_finite());
    (most < 1e15 && results.iter().all(ordinary)).then_some((results, most))
}

/// One run on memory that ends, or begins, at a page that may not be touched.
pub fn run_guarded(runner: &mut Runner, inputs: &[Tensor], guard: Guard) -> Result<Vec<Tensor>, String> {
    let session = runner.session().ok_or("nothing is compiled")?;
    let (ins, outs) = (session.artefact().inputs().to_vec(), session.artefact().outputs().to_vec());
    let given: Vec<Guarded> = inputs.iter().map(|t| Guarded::new(t.bytes(), guard)).collect();
    let mut taken: Vec<Guarded> = outs.iter().map(|o| Guarded::new(&vec![0xff; o.bytes as usize], guard)).collect();
    let refs: Vec<TensorRef> =
        (given.iter().zip(&ins)).map(|(m, s)| TensorRef { dtype: s.dtype, dims: &s.dims, data: m.bytes() }).collect();
    let mut muts: Vec<TensorMut> = (taken.iter_mut().zip(&outs))
        .map(|(m, s)| TensorMut { dtype: s.dtype, dims: &s.dims, data: m.bytes_mut() })
        .collect();
    session.run(&refs, &mut muts).map_err(|e| e.to_string())?;
    if given.iter().zip(inputs).any(|(m, t)| *m.bytes() != t.bytes()[..]) {
        return Err("an input was written".into());
    }
    let tensor = |(m, s): (&Guarded, &IoSpec)| {
        let shape = s.dims.iter().map(|&d| d as usize).collect();
        let dtype = [DType::F32, DType::I64].into_iter().find(|t| dtype_code(*t) == s.dtype);
        let dtype = dtype.ok_or("an output of another type than these tests compare")?;
        Tensor::new(dtype, shape, m.bytes().to_vec().into())
    };
    taken.iter().zip(&outs).map(tensor).collect()
}

/// Every way to compile, threads and runs.
pub fn check(
    g: &Graph,
    inputs: &[Tensor],
    (want, most): (&[Tensor], f64),
    options: &CompileOptions,
) -> Result<(), String> {
    for (cpu, _) in CPUS.iter().filter(|c| c.1.on_this_cpu()) {
        for (level, numerics) in LEVELS {
            let options = CompileOptions { cpu: cpu.to_string(), level, numerics, ..options.clone() };
            let mut bits: Option<Vec<Tensor>> = None;
            for (threads, guard) in [(1, Guard::Behind), (2, Guard::Before), (3, Guard::Behind)] {
                let what = |why: String| format!("{cpu} {level}, {threads} threads: {why}");
                dirty_memory();
                let mut runner = Runner::jit(g.clone(), &options, threads).map_err(what)?;
                for _ in 0..2 {
                    let got = run_guarded(&mut runner, inputs, guard).map_err(what)?;
                    for (a, b) in want.iter().zip(&got) {
                        difference(a, b, of_largest(TOLERANCE, most, a)).map_or(Ok(()), |why| Err(what(why)))?;
                    }
                    let first = bits.get_or_insert_with(|| got.clone());
                    if first.iter().zip(&got).any(|(a, b)| a.bytes() != b.bytes()) {
                        return Err(what("other bits than on one thread".into()));
                    }
                }
                // Other levels share the threads' code with -O2.
                if level != OptLevel::O2 {
                    break;
                }
            }
        }
    }
    Ok(())
}
