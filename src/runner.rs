//! One way to run a model, whatever it was compiled to.

use crate::compile::{CompileOptions, compile_jit, compile_so};
use lehr_codegen::artefact::{Artefact, IoSpec, RunError, Session, TensorMut, TensorRef};
use lehr_codegen::compile::dtype_code;
use lehr_ir::graph::Graph;
use lehr_ir::{DType, Tensor};
use std::path::Path;

/// A model that is ready to run.
pub struct Runner {
    kind: Kind,
    /// Keeps a library that was written for this runner alone.
    _dir: Option<tempfile::TempDir>,
}

enum Kind {
    Eval(Box<Graph>),
    Compiled(Box<Session>),
}

impl Runner {
    /// The reference evaluator; nothing is compiled.
    pub fn eval(graph: Graph) -> Runner {
        Runner { kind: Kind::Eval(Box::new(graph)), _dir: None }
    }

    /// Compiles in this process, for its CPU or for a GPU. `threads` 0 means as many as the process may use.
    pub fn jit(graph: Graph, options: &CompileOptions, threads: u32) -> Result<Runner, String> {
        let artefact = compile_jit(graph, options).map_err(|e| e.to_string())?;
        Runner::of(&artefact, threads)
    }

    /// Opens what is compiled.
    pub fn of(artefact: &Artefact, threads: u32) -> Result<Runner, String> {
        Runner::new(artefact, threads, None)
    }

    /// Writes a library into a temporary folder and loads it.
    pub fn so(graph: Graph, options: &CompileOptions, threads: u32) -> Result<Runner, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = dir.path().join("model.so");
        compile_so(graph, options, &path).map_err(|e| e.to_string())?;
        let artefact = Artefact::open(&path).map_err(|e| e.to_string())?;
        Runner::new(&artefact, threads, Some(dir))
    }

    /// Loads a library that `lehr compile` wrote.
    pub fn open(path: &Path, threads: u32) -> Result<Runner, String> {
        let artefact = Artefact::open(path).map_err(|e| e.to_string())?;
        Runner::new(&artefact, threads, None)
    }

    fn new(artefact: &Artefact, threads: u32, dir: Option<tempfile::TempDir>) -> Result<Runner, String> {
        let session = Session::new(artefact, threads).map_err(|e| e.to_string())?;
        Ok(Runner { kind: Kind::Compiled(Box::new(session)), _dir: dir })
    }

    /// The compiled model; `None` for the evaluator.
    pub fn artefact(&self) -> Option<&Artefact> {
        match &self.kind {
            Kind::Eval(_) => None,
            Kind::Compiled(s) => Some(s.artefact()),
        }
    }

    /// Runs once. Inputs and outputs are in the model's order.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match &mut self.kind {
            Kind::Eval(graph) => lehr_ir::eval::evaluate(graph, inputs, &mut |_, _| {}).map_err(|e| e.to_string()),
            Kind::Compiled(session) => run_session(session, inputs),
        }
    }

    /// The session of a compiled model, to run on buffers of one's own.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.kind {
            Kind::Eval(_) => None,
            Kind::Compiled(s) => Some(s),
        }
    }
}

/// The dtype behind a code of the binary interface.
pub fn dtype_of(code: u32) -> Option<DType> {
    let (name, _) = lehr_codegen::runtime::abi::dtype_info(code)?;
    DType::from_name(name)
}

fn run_session(session: &mut Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let mut feeds = Feeds::new(session.artefact(), inputs)?;
    feeds.run(session)?;
    feeds.outputs()
}

/// Inputs and outputs of a compiled model in memory aligned for every element type, to be run many times.
pub struct Feeds {
    inputs: Vec<Words>,
    outputs: Vec<Words>,
}

/// A tensor's elements in 64-bit words.
struct Words {
    dtype: u32,
    dims: Vec<i64>,
    bytes: usize,
    words: Vec<u64>,
}

impl Feeds {
    /// Fails if there is no memory for them: a model's outputs may be of any size.
    pub fn new(artefact: &Artefact, inputs: &[Tensor]) -> Result<Feeds, String> {
        let input = |t: &Tensor| {
            let dims = t.shape().iter().map(|&d| d as i64).collect();
            let mut words = Words::zeroed(dtype_code(t.dtype()), dims, t.bytes().len())?;
            words.bytes_mut().copy_from_slice(t.bytes());
            Ok(words)
        };
        let output = |s: &IoSpec| {
            Words::zeroed(s.dtype, s.dims.clone(), s.bytes as usize).map_err(|e| format!("output '{}': {e}", s.name))
        };
        let inputs = inputs.iter().map(input).collect::<Result<_, String>>()?;
        let outputs = artefact.outputs().iter().map(output).collect::<Result<_, _>>()?;
        Ok(Feeds { inputs, outputs })
    }

    /// One inference into the same outputs as before.
    pub fn run(&mut self, session: &mut Session) -> Result<(), RunError> {
        let inputs: Vec<TensorRef> =
            self.inputs.iter().map(|w| TensorRef { dtype: w.dtype, dims: &w.dims, data: w.bytes() }).collect();
        let mut outputs: Vec<TensorMut> = self.outputs.iter_mut().map(Words::tensor_mut).collect();
        session.run(&inputs, &mut outputs)
    }

    /// The bytes of the last output, as the last run left them; none for a model without outputs.
    pub fn last_output(&self) -> &[u8] {
        self.outputs.last().map_or(&[], Words::bytes)
    }

    pub fn outputs(&self) -> Result<Vec<Tensor>, String> {
        let tensor = |w: &Words| {
            let dtype = dtype_of(w.dtype).ok_or_else(|| format!("{} is no dtype code", w.dtype))?;
            let shape = w.dims.iter().map(|&d| d as usize).collect();
            Tensor::new(dtype, shape, w.bytes().to_vec().into())
        };
        self.outputs.iter().map(tensor).collect()
    }
}

impl Words {
    fn zeroed(dtype: u32, dims: Vec<i64>, bytes: usize) -> Result<Words, String> {
        let mut words = vec![];
        words.try_reserve_exact(bytes.div_ceil(8)).map_err(|_| format!("there is no memory for its {bytes} bytes"))?;
        words.resize(bytes.div_ceil(8), 0);
        Ok(Words { dtype, dims, bytes, words })
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }

    fn tensor_mut(&mut self) -> TensorMut<'_> {
        let data = &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes];
        TensorMut { dtype: self.dtype, dims: &self.dims, data }
    }
}
