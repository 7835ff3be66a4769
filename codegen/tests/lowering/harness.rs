//! Runs a graph in three ways and compares: the reference evaluator, the kernels in the checking interpreter, and
//! compiled code on one and on two threads.

use lehr_codegen::artefact::{Session, TensorMut, TensorRef};
use lehr_codegen::compile::{self, CompileOptions, dtype_code};
use lehr_codegen::kernel::interp;
use lehr_codegen::lower::{LowerOptions, lower};
use lehr_codegen::program::{BufferId, Place, Program};
use lehr_ir::tensor::seeded;
use lehr_ir::{DType, Graph, Tensor};

pub const FLOATS: [&str; 4] = ["f64", "f32", "f16", "bf16"];
pub const NUMBERS: [&str; 12] = ["f64", "f32", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];
pub const ALL: [&str; 13] = ["f64", "f32", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool"];

/// Checks `body`, whose inputs are `params`, with seeded inputs.
pub fn check(params: &str, body: &str) {
    let graph = parse(params, body);
    let inputs = graph.inputs().iter().enumerate().map(|(i, &v)| {
        let ty = graph.ty(v);
        seeded(ty.dtype, ty.const_shape().expect("test shapes are numbers"), i as u64 + 1)
    });
    let inputs: Vec<Tensor> = inputs.collect();
    check_on(&graph, &inputs);
}

/// Likewise for each dtype, which is written `T` in the text.
pub fn check_types(dtypes: &[&str], params: &str, body: &str) {
    for t in dtypes {
        check(&params.replace("T[", &format!("{t}[")), &body.replace("T[", &format!("{t}[")));
    }
}

/// The text of the fault that `body` gives, compiled; the evaluator must fail too.
pub fn fault(params: &str, body: &str) -> String {
    let graph = parse(params, body);
    let inputs: Vec<Tensor> = graph
        .inputs()
        .iter()
        .map(|&v| seeded(graph.ty(v).dtype, graph.ty(v).const_shape().expect("test shapes are numbers"), 1))
        .collect();
    assert!(lehr_ir::eval::evaluate(&graph, &inputs, &mut |_, _| {}).is_err(), "the evaluator sees no fault:\n{body}");
    let mut program = lowered(&graph);
    let seen = interpret(&program, &inputs).expect_err("the interpreter sees no fault");
    let compiled = run_jit(&mut program, &inputs, 1).expect_err("compiled code sees no fault");
    assert!(compiled.contains(&seen), "{compiled} / {seen}");
    compiled
}

/// The code of the diagnostic that keeps `body` from being built or lowered.
pub fn refusal(params: &str, body: &str) -> String {
    let text = format!("graph @test({params}) {{\n{body}\n}}");
    let graph = match lehr_ir::text::parse(&text, &|_| None) {
        Ok(graph) => graph,
        Err(d) => return d[0].code.to_string(),
    };
    lower(&graph, &LowerOptions::default()).expect_err("it is lowered")[0].code.to_string()
}

fn parse(params: &str, body: &str) -> Graph {
    let text = format!("graph @test({params}) {{\n{body}\n}}");
    lehr_ir::text::parse(&text, &|_| None).unwrap_or_else(|d| panic!("{}\n{text}", d[0]))
}

fn lowered(graph: &Graph) -> Program {
    let program = lower(graph, &LowerOptions::default()).unwrap_or_else(|d| panic!("{}", d[0]));
    for k in &program.kernels {
        assert_eq!(k.check(), Vec::<String>::new(), "{k}");
    }
    program
}

fn check_on(graph: &Graph, inputs: &[Tensor]) {
    let text = lehr_ir::text::print(graph, &Default::default());
    let expected = lehr_ir::eval::evaluate(graph, inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut program = lowered(graph);
    let interpreted = interpret(&program, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("interpreted", &expected, &interpreted, &text);
    let one = run_jit(&mut program, inputs, 1).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("compiled", &expected, &one, &text);
    let two = run_jit(&mut lowered(graph), inputs, 2).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(one == two, "the number of threads shows in the result:\n{text}");
}

fn compare(how: &str, expected: &[Tensor], got: &[Tensor], text: &str) {
    for (n, (e, g)) in expected.iter().zip(got).enumerate() {
        assert_eq!(e.ty(), g.ty(), "{how}, result {n}:\n{text}");
        let tolerance = match e.dtype() {
            DType::F64 => 1e-12,
            DType::F32 => 1e-5,
            DType::F16 => 2e-3,
            DType::BF16 => 2e-2,
            _ => 0.0,
        };
        if tolerance == 0.0 {
            assert_eq!(e.to_i128(), g.to_i128(), "{how}, result {n}:\n{text}");
            continue;
        }
        let (e, g) = (e.to_f64(), g.to_f64());
        let scale = e.iter().filter(|v| v.is_finite()).fold(1e-30f64, |m, v| m.max(v.abs()));
        for (i, (e, g)) in e.iter().zip(&g).enumerate() {
            let same = e == g || (e.is_nan() && g.is_nan()) || (e - g).abs() <= tolerance * scale;
            assert!(same, "{how}, result {n}, element {i}: {g} instead of {e}\n{text}");
        }
    }
}

/// Every step of the program in order, on buffers of their own.
fn interpret(program: &Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Some(Place::Input(i)) => inputs[i].bytes().to_vec(),
            Some(Place::Weights(offset)) => {
                program.weights.iter().find(|w| w.offset == offset).map_or(vec![], |w| w.data.to_vec())
            }
            // Not zero, so that what is never written shows.
            _ => vec![0x5a; b.bytes() as usize],
        })
        .collect();
    for step in &program.steps {
        let kernel = &program.kernels[step.kernel];
        let at = |b: &BufferId| b.0 as usize;
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|b| std::mem::take(&mut memory[at(b)])).collect();
        let fault = interp::run(kernel, &mut args, 0..kernel.extent).map_err(|e| format!("{e}\n{kernel}"))?;
        if let Some(id) = fault {
            return Err(program.faults[(step.first_fault + id) as usize].clone());
        }
        for (b, bytes) in step.args.iter().zip(args) {
            memory[at(b)] = bytes;
        }
    }
    let find = |k: usize| {
        let at = program.buffers.iter().position(|b| b.place == Some(Place::Output(k)));
        let at = at.expect("every output has a buffer");
        let io = &program.outputs[k];
        Tensor::new(io.dtype, io.dims.clone(), memory[at].clone().into())
    };
    (0..program.outputs.len()).map(find).collect()
}

fn run_jit(program: &mut Program, inputs: &[Tensor], threads: u32) -> Result<Vec<Tensor>, String> {
    let options = CompileOptions { threads: 1, ..CompileOptions::default() };
    let (artefact, _) = compile::jit(program, &options).unwrap_or_else(|d| panic!("{d}"));
    let mut session = Session::new(&artefact, threads).map_err(|e| e.to_string())?;
    let dims = |d: &[usize]| -> Vec<i64> { d.iter().map(|&d| d as i64).collect() };
    let in_dims: Vec<Vec<i64>> = inputs.iter().map(|t| dims(t.shape())).collect();
    let in_data: Vec<Aligned> = inputs.iter().map(|t| Aligned::from(&t.bytes()[..])).collect();
    let refs: Vec<TensorRef> = inputs
        .iter()
        .zip(in_dims.iter().zip(&in_data))
        .map(|(t, (dims, data))| TensorRef { dtype: dtype_code(t.dtype()), dims, data: data.bytes() })
        .collect();
    let out_dims: Vec<Vec<i64>> = program.outputs.iter().map(|o| dims(&o.dims)).collect();
    let size = |o: &lehr_codegen::program::IoInfo| o.dims.iter().product::<usize>() * o.dtype.size();
    let mut out_data: Vec<Aligned> = program.outputs.iter().map(|o| Aligned::from(&vec![0x5a; size(o)][..])).collect();
    let mut outputs: Vec<TensorMut> = program
        .outputs
        .iter()
        .zip(out_dims.iter().zip(&mut out_data))
        .map(|(o, (dims, data))| TensorMut { dtype: dtype_code(o.dtype), dims, data: data.bytes_mut() })
        .collect();
    session.run(&refs, &mut outputs).map_err(|e| e.to_string())?;
    let made = program.outputs.iter().zip(&out_data);
    Ok(made
        .map(|(o, d)| Tensor::new(o.dtype, o.dims.clone(), d.bytes().to_vec().into()).expect("sizes agree"))
        .collect())
}

/// Bytes that start at an 8-byte boundary somewhere in a vector.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl From<&[u8]> for Aligned {
    fn from(bytes: &[u8]) -> Aligned {
        let mut memory = vec![0; bytes.len() + 8];
        let from = memory.as_ptr().align_offset(8);
        memory[from..from + bytes.len()].copy_from_slice(bytes);
        Aligned { memory, from, len: bytes.len() }
    }
}

impl Aligned {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
