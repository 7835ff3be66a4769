//! A graph with what its outputs should be, checked in every way that a graph can be run: the evaluator, compiled in process
//! plain and optimised, for this CPU and the least one, and from a library.

use crate::compare::dirty_memory;
use lehr::{CompileOptions, OptLevel, Runner};
use lehr_ir::{DType, Diag, Graph, Tensor, ValueId};

/// Outputs of a graph, and what is expected of them.
pub struct Sheet {
    pub g: Graph,
    inputs: Vec<Tensor>,
    expected: Vec<Expected>,
}

struct Expected {
    name: String,
    want: Vec<f64>,
    /// The largest error of each element.
    allowed: Vec<f64>,
}

impl Sheet {
    pub fn new(name: &str) -> Sheet {
        Sheet { g: Graph::new(name), inputs: vec![], expected: vec![] }
    }

    pub fn input(&mut self, name: &str, value: Tensor) -> ValueId {
        let v = self.g.add_input(name, value.ty());
        self.inputs.push(value);
        v
    }

    /// A value, what it should be, and the error that is allowed where a number is wanted.
    pub fn expect(
        &mut self,
        name: &str,
        value: Result<ValueId, Diag>,
        want: Vec<f64>,
        allowed: impl Fn(usize, f64) -> f64,
    ) {
        let value = value.unwrap_or_else(|d| panic!("{name}: {d}"));
        self.g.add_output(name, value);
        let allowed = want.iter().enumerate().map(|(i, &w)| allowed(i, w)).collect();
        self.expected.push(Expected { name: name.into(), want, allowed });
    }

    /// Runs the graph in every way and compares.
    pub fn check(&self) {
        assert_eq!(lehr_ir::verify(&self.g), [], "{}", self.g.name);
        for (how, outputs) in everywhere(&self.g, &self.inputs) {
            for (e, y) in self.expected.iter().zip(outputs) {
                let what = format!("{} {}, {how}", self.g.name, e.name);
                let got = y.to_f64();
                assert_eq!(got.len(), e.want.len(), "{what}");
                for (i, ((&got, &want), &allowed)) in got.iter().zip(&e.want).zip(&e.allowed).enumerate() {
                    let near = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= allowed;
                    assert!(near, "{what}: element {i} is {got:e}, not {want:e}: {:e} away", (got - want).abs());
                }
            }
        }
    }
}

/// The outputs by each way of running.
pub fn everywhere(g: &Graph, inputs: &[Tensor]) -> Vec<(String, Vec<Tensor>)> {
    let fail = |how: &str, why: String| -> ! { panic!("{}, {how}: {why}\n{g}", g.name) };
    let mut runs = vec![];
    let mut run = |how: &str, runner: Result<Runner, String>| {
        let mut runner = runner.unwrap_or_else(|why| fail(how, why));
        dirty_memory();
        let outputs = runner.run(inputs).unwrap_or_else(|why| fail(how, why));
        runs.push((how.to_string(), outputs));
    };
    run("evaluated", Ok(Runner::eval(g.clone())));
    for (level, cpu) in [(OptLevel::O0, "native"), (OptLevel::O2, "native"), (OptLevel::O2, "x86-64")] {
        let options = CompileOptions { level, cpu: cpu.into(), ..CompileOptions::default() };
        run(&format!("compiled at {level} for {cpu}"), Runner::jit(g.clone(), &options, 2));
    }
    run("from a library", Runner::so(g.clone(), &CompileOptions::default(), 1));
    runs
}

/// The outputs of compiled, optimised code.
pub fn compiled(g: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    compiled_on(g, &[inputs]).remove(0)
}

/// The outputs of compiled, optimised code on each of some inputs.
pub fn compiled_on(g: &Graph, inputs: &[&[Tensor]]) -> Vec<Vec<Tensor>> {
    let runner = Runner::jit(g.clone(), &CompileOptions::default(), 2);
    let mut runner = runner.unwrap_or_else(|why| panic!("{}: {why}\n{g}", g.name));
    dirty_memory();
    inputs.iter().map(|x| runner.run(x).unwrap_or_else(|why| panic!("{}: {why}\n{g}", g.name))).collect()
}

/// The distance from 1 to the next number of a float type.
pub fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        other => panic!("no epsilon is stated for {other}"),
    }
}
