//! Runs a graph by the reference evaluator, by the kernel interpreter and compiled, and compares the outputs.

use lehr_codegen::artefact::{Session, TensorMut, TensorRef};
use lehr_codegen::compile::{self, CompileOptions, dtype_code};
use lehr_codegen::kernel::interp;
use lehr_codegen::lower::{LowerOptions, lower};
use lehr_codegen::program::{Place, Program};
use lehr_ir::eval::evaluate;
use lehr_ir::{DType, Graph, Tensor};

pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];
pub const INTS: [DType; 8] =
    [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

/// CPUs to compile for: what this machine has, and the least.
const CPUS: [&str; 2] = ["native", "x86-64"];

/// How far a float may be from the evaluator's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Equal, or both NaN; zeros of either sign are equal.
    Exact,
    /// So many units in the last place, of the number or of 1 for what is smaller.
    Units(f64),
}

/// Checks every output of `graph`; the tolerance is chosen by output name. A fault of the data must be one everywhere.
pub fn agree(graph: &Graph, inputs: &[Tensor], tolerance: impl Fn(&str) -> Tolerance) {
    let program = lower(graph, &LowerOptions::default()).unwrap_or_else(|d| panic!("{}: {d:?}", graph.name));
    let mut runs = vec![("interpreted".to_string(), interpreted(&program, inputs))];
    for cpu in CPUS {
        runs.push((format!("compiled for {cpu}"), compiled(graph, cpu, inputs)));
    }
    let expected = evaluate(graph, inputs, &mut |_, _| {});
    for (how, got) in runs {
        let (expected, got) = match (&expected, got) {
            (Ok(e), Ok(g)) => (e, g),
            (Err(_), Err(_)) => continue,
            (Ok(_), Err(text)) => panic!("{}: {how} fails: {text}", graph.name),
            (Err(e), Ok(_)) => panic!("{}: {how} does not fail with {e}", graph.name),
        };
        for ((e, g), output) in expected.iter().zip(&got).zip(&graph.outputs) {
            let what = format!("{} {}: {how}", graph.name, output.name);
            compare(&what, e, g, tolerance(&output.name));
        }
    }
}

fn compare(what: &str, expected: &Tensor, got: &Tensor, tolerance: Tolerance) {
    assert_eq!((expected.dtype(), expected.shape()), (got.dtype(), got.shape()), "{what}");
    if !expected.dtype().is_float() {
        let pairs = expected.to_i128().into_iter().zip(got.to_i128());
        let wrong = pairs.enumerate().find(|(_, (e, g))| e != g);
        assert_eq!(wrong, None, "{what} (position, (evaluated, {what}))");
        return;
    }
    let epsilon = match expected.dtype() {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        other => {
            assert_eq!(other, DType::BF16);
            2f64.powi(-7)
        }
    };
    for (i, (e, g)) in expected.to_f64().into_iter().zip(got.to_f64()).enumerate() {
        let near = match tolerance {
            Tolerance::Exact => false,
            Tolerance::Units(n) => (e - g).abs() <= n * epsilon * e.abs().max(1.0),
        };
        assert!(e == g || (e.is_nan() && g.is_nan()) || near, "{what}: element {i} is {g:e}, evaluated {e:e}");
    }
}

/// Runs the kernels of an unplanned program: every buffer has memory of its own.
fn interpreted(program: &Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let mut memory: Vec<Vec<u8>> = program.buffers.iter().map(|b| vec![0; b.bytes() as usize]).collect();
    for (buffer, bytes) in program.buffers.iter().zip(&mut memory) {
        match buffer.place {
            Some(Place::Input(i)) => bytes.copy_from_slice(inputs[i].bytes()),
            Some(Place::Weights(offset)) => {
                let weight = program.weights.iter().find(|w| w.offset == offset).expect("a weight at each offset");
                bytes.copy_from_slice(&weight.data);
            }
            Some(Place::Output(_) | Place::Arena(_)) | None => {}
        }
    }
    for step in &program.steps {
        let kernel = &program.kernels[step.kernel];
        assert_eq!(kernel.check(), Vec::<String>::new(), "{kernel}");
        let mut buffers: Vec<Vec<u8>> = step.args.iter().map(|b| memory[b.0 as usize].clone()).collect();
        let fault = interp::run(kernel, &mut buffers, 0..kernel.extent).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        if let Some(f) = fault {
            return Err(kernel.faults[f as usize].clone());
        }
        for ((arg, bytes), param) in step.args.iter().zip(buffers).zip(&kernel.params) {
            if param.access != lehr_codegen::kernel::Access::Read {
                memory[arg.0 as usize] = bytes;
            }
        }
    }
    let output = |k: usize| {
        let at = program.buffers.iter().position(|b| b.place == Some(Place::Output(k))).expect("a buffer per output");
        let io = &program.outputs[k];
        Tensor::new(io.dtype, io.dims.clone(), memory[at].clone().into())
    };
    (0..program.outputs.len()).map(output).collect()
}

/// Bytes at an address that is a multiple of 64.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + 64];
        let start = bytes.as_ptr().align_offset(64);
        Aligned { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

fn compiled(graph: &Graph, cpu: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let mut program = lower(graph, &LowerOptions::default()).map_err(|d| format!("{d:?}"))?;
    let options = CompileOptions { cpu: cpu.into(), threads: 1, ..CompileOptions::default() };
    let (artefact, _) = compile::jit(&mut program, &options).map_err(|d| d.to_string())?;
    let mut session = Session::new(&artefact, 1).map_err(|e| e.to_string())?;
    let dims = |shape: &[usize]| shape.iter().map(|&d| d as i64).collect::<Vec<_>>();
    let in_dims: Vec<Vec<i64>> = inputs.iter().map(|t| dims(t.shape())).collect();
    let out_dims: Vec<Vec<i64>> = program.outputs.iter().map(|o| dims(&o.dims)).collect();
    let mut in_data: Vec<Aligned> = inputs.iter().map(|t| Aligned::new(t.bytes().len())).collect();
    let mut refs = vec![];
    for ((data, t), dims) in in_data.iter_mut().zip(inputs).zip(&in_dims) {
        let data = data.get();
        data.copy_from_slice(t.bytes());
        refs.push(TensorRef { dtype: dtype_code(t.dtype()), dims, data });
    }
    let size = |o: &lehr_codegen::program::IoInfo| o.dims.iter().product::<usize>() * o.dtype.size();
    let mut out_data: Vec<Aligned> = program.outputs.iter().map(|o| Aligned::new(size(o))).collect();
    let mut outs = vec![];
    for ((data, o), dims) in out_data.iter_mut().zip(&program.outputs).zip(&out_dims) {
        outs.push(TensorMut { dtype: dtype_code(o.dtype), dims, data: data.get() });
    }
    session.run(&refs, &mut outs).map_err(|e| e.text)?;
    let outputs = out_data.iter_mut().zip(&program.outputs);
    outputs.map(|(data, o)| Tensor::new(o.dtype, o.dims.clone(), data.get().to_vec().into())).collect()
}

/// Reproducible numbers.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [-1, 1).
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Floats that break careless code.
const AWKWARD: [f64; 28] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.5,
    -2.5,
    1e-3,
    -1e-3,
    10.0,
    -10.0,
    88.5,
    -88.5,
    104.0,
    -104.0,
    710.0,
    -710.0,
    6e4,
    -6e4,
    3e38,
    -3e38,
    1e-40,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// Awkward numbers, and ordinary ones between them; integers of all sizes, their ends included.
pub fn noise(dtype: DType, shape: &[usize], rng: &mut Rng) -> Tensor {
    let n: usize = shape.iter().product();
    if dtype.is_float() {
        let number = |rng: &mut Rng| match rng.below(3) {
            0 => AWKWARD[rng.below(AWKWARD.len())],
            1 => rng.unit() * 4.0,
            _ => rng.unit() * 30.0,
        };
        return Tensor::from_f64(dtype, shape.to_vec(), (0..n).map(|_| number(rng)).collect::<Vec<_>>());
    }
    let number = |rng: &mut Rng| match rng.below(4) {
        0 => [0, 1, -1, i128::from(i64::MAX), i128::from(i64::MIN), 127, 128, 1 << 31][rng.below(8)],
        1 => rng.below(7) as i128 - 3,
        _ => i128::from(rng.next()) << rng.below(12),
    };
    Tensor::from_i128(dtype, shape.to_vec(), (0..n).map(|_| number(rng)).collect::<Vec<_>>())
}

/// Numbers in [-range, range], integers and booleans too.
pub fn tame(dtype: DType, shape: &[usize], range: f64, rng: &mut Rng) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| rng.unit() * range).collect();
    let values = values.into_iter().map(|v| if dtype.is_signed() { v } else { v.abs() });
    Tensor::from_f64(dtype, shape.to_vec(), values)
}
