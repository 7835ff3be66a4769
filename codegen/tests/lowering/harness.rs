//! Runs a graph in three ways and compares: the reference evaluator, the kernels in the checking interpreter, and
//! compiled code on one and on two threads.

use super::execute::{compiled, for_gpu, interpreted, lowered};
use super::simulate::simulated;
use lehr_codegen::lower::{LowerOptions, lower};
use lehr_codegen::ptx::{Gpu, Precision, Sm};
use lehr_ir::tensor::seeded;
use lehr_ir::{DType, Graph, Tensor};

/// The GPU that tests generate code for.
pub const GPU: Gpu = Gpu { sm: Sm::Sm80, precision: Precision::Fp32 };

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
    let seen = interpreted(&program, &inputs).expect_err("the interpreter sees no fault");
    let text = compiled(&mut program, "native", 1, &inputs).expect_err("compiled code sees no fault");
    assert!(text.contains(&seen), "{text} / {seen}");
    text
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

fn check_on(graph: &Graph, inputs: &[Tensor]) {
    let text = lehr_ir::text::print(graph, &Default::default());
    let expected = lehr_ir::eval::evaluate(graph, inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut program = lowered(graph);
    let interpreted = interpreted(&program, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("interpreted", &expected, &interpreted, &text);
    let one = compiled(&mut program, "native", 1, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("compiled", &expected, &one, &text);
    let two = compiled(&mut lowered(graph), "native", 2, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(one == two, "the number of threads shows in the result:\n{text}");
    let (program, module) = for_gpu(graph, GPU);
    let for_gpu = self::interpreted(&program, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("interpreted for a GPU", &expected, &for_gpu, &text);
    let simulated = simulated(&program, &module, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare("PTX", &expected, &simulated, &text);
    for precision in [Precision::Tf32, Precision::F16, Precision::Bf16] {
        let (program, rounding) = super::execute::for_gpu(graph, Gpu { precision, ..GPU });
        // Products alone depend on it.
        if rounding.text == module.text {
            continue;
        }
        let simulated = self::simulated(&program, &rounding, inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
        compare_within(precision.name(), &expected, &simulated, 4.0 * precision.error(), &text);
    }
}

fn compare(how: &str, expected: &[Tensor], got: &[Tensor], text: &str) {
    compare_within(how, expected, got, 0.0, text);
}

/// `rounding` is what factors were rounded by; results in floats may differ by so much at least.
fn compare_within(how: &str, expected: &[Tensor], got: &[Tensor], rounding: f64, text: &str) {
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
        let tolerance = rounding.max(tolerance);
        let (e, g) = (e.to_f64(), g.to_f64());
        let scale = e.iter().filter(|v| v.is_finite()).fold(1e-30f64, |m, v| m.max(v.abs()));
        for (i, (e, g)) in e.iter().zip(&g).enumerate() {
            let same = e == g || (e.is_nan() && g.is_nan()) || (e - g).abs() <= tolerance * scale;
            assert!(same, "{how}, result {n}, element {i}: {g} instead of {e}\n{text}");
        }
    }
}
