//! The two ways in which tests run a lowered graph: the kernels in the checking interpreter, and compiled.

use lehr_codegen::artefact::{Session, TensorMut, TensorRef};
use lehr_codegen::compile::{self, CompileOptions, dtype_code};
use lehr_codegen::kernel::interp;
use lehr_codegen::lower::{LowerOptions, lower};
use lehr_codegen::plan::plan;
use lehr_codegen::program::{IoInfo, Place, Program};
use lehr_codegen::ptx::{self, Gpu, Module};
use lehr_ir::{Graph, Tensor};

/// What no kernel would write everywhere, so that what is never written shows.
const UNWRITTEN: u8 = 0x5a;

/// Kernels that check, without a plan.
pub fn lowered(graph: &Graph) -> Program {
    let program = lower(graph, &LowerOptions::default()).unwrap_or_else(|d| panic!("{}: {}", graph.name, d[0]));
    for k in &program.kernels {
        assert_eq!(k.check(), Vec::<String>::new(), "{k}");
    }
    program
}

/// Every step in order, each buffer in memory of its own. The error is the fault of the data.
pub fn interpreted(program: &Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let start = program.buffers.iter().map(|b| match b.place {
        Some(Place::Input(i)) => inputs[i].bytes().to_vec(),
        Some(Place::Weights(offset)) => {
            program.weights.iter().find(|w| w.offset == offset).expect("a weight at each offset").data.to_vec()
        }
        Some(Place::Output(_) | Place::Arena(_)) | None => vec![UNWRITTEN; b.bytes() as usize],
    });
    let mut memory: Vec<Vec<u8>> = start.collect();
    for step in &program.steps {
        let kernel = &program.kernels[step.kernel];
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|b| std::mem::take(&mut memory[b.0 as usize])).collect();
        let fault = interp::run(kernel, &mut args, 0..kernel.extent).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        if let Some(id) = fault {
            return Err(program.faults[(step.first_fault + id) as usize].clone());
        }
        for (b, bytes) in step.args.iter().zip(args) {
            memory[b.0 as usize] = bytes;
        }
    }
    let output = |(k, io): (usize, &IoInfo)| {
        let at = program.buffers.iter().position(|b| b.place == Some(Place::Output(k))).expect("a buffer per output");
        Tensor::new(io.dtype, io.dims.clone(), memory[at].clone().into())
    };
    program.outputs.iter().enumerate().map(output).collect()
}

/// Compiled for a CPU and run on so many threads. The error is the fault of the data.
pub fn compiled(program: &mut Program, cpu: &str, threads: u32, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let options = CompileOptions { cpu: cpu.into(), threads: 1, ..CompileOptions::default() };
    let (artefact, _) = compile::jit(program, &options).unwrap_or_else(|d| panic!("{d}"));
    let mut session = Session::new(&artefact, threads).map_err(|e| e.to_string())?;
    let dims = |shape: &[usize]| shape.iter().map(|&d| d as i64).collect::<Vec<_>>();
    let in_dims: Vec<Vec<i64>> = inputs.iter().map(|t| dims(t.shape())).collect();
    let mut in_data: Vec<Aligned> = inputs.iter().map(|t| Aligned::new(t.bytes().len())).collect();
    let mut refs = vec![];
    for ((data, t), dims) in in_data.iter_mut().zip(inputs).zip(&in_dims) {
        let data = data.get();
        data.copy_from_slice(t.bytes());
        refs.push(TensorRef { dtype: dtype_code(t.dtype()), dims, data });
    }
    let out_dims: Vec<Vec<i64>> = program.outputs.iter().map(|o| dims(&o.dims)).collect();
    let size = |o: &IoInfo| o.dims.iter().product::<usize>() * o.dtype.size();
    let mut out_data: Vec<Aligned> = program.outputs.iter().map(|o| Aligned::new(size(o))).collect();
    let mut outs = vec![];
    for ((data, o), dims) in out_data.iter_mut().zip(&program.outputs).zip(&out_dims) {
        outs.push(TensorMut { dtype: dtype_code(o.dtype), dims, data: data.get() });
    }
    session.run(&refs, &mut outs).map_err(|e| e.text)?;
    let outputs = out_data.iter_mut().zip(&program.outputs);
    outputs.map(|(data, o)| Tensor::new(o.dtype, o.dims.clone(), data.get().to_vec().into())).collect()
}

/// Bytes at an address that is a multiple of 8: of every element type's size, of no vector's.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![UNWRITTEN; len + 8];
        let start = bytes.as_ptr().align_offset(8);
        Aligned { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// Lowered for a GPU, with a plan, and its PTX.
pub fn for_gpu(graph: &Graph, gpu: Gpu) -> (Program, Module) {
    let mut program = lower(graph, &LowerOptions::for_gpu(gpu)).unwrap_or_else(|d| panic!("{}: {}", graph.name, d[0]));
    for k in &program.kernels {
        assert_eq!(k.check(), Vec::<String>::new(), "{k}");
    }
    plan(&mut program);
    let module = ptx::emit(&program, gpu);
    (program, module)
}
