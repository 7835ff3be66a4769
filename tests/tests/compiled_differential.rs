//! Random small graphs: compiled code at O0 and O2 gives what the evaluator gives, also where constants are not finite.

use lehr::{CompileOptions, OptLevel, Runner};
use lehr_ir::Dim;
use lehr_tests::compare::{difference, dirty_memory, of_largest};
use lehr_tests::differential::evaluated;
use lehr_tests::random_graph::{Constants, inputs, random_graph};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_code_agrees_with_the_evaluator(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        kind in prop_oneof![Just(Constants::Ordinary), Just(Constants::Hostile)],
    ) {
        // What does not fit batch = 2 is no test.
        let Ok(g) = random_graph(&choices, kind).bind(&|_| Some(Dim::Const(2))) else { return Ok(()) };
        let inputs = inputs(&g, 5).expect("numbers for all dimensions");
        let (expected, most) = evaluated(&g, &inputs).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for level in [OptLevel::O0, OptLevel::O2] {
            let options = CompileOptions { level, ..CompileOptions::default() };
            let fail = |why: String| TestCaseError::fail(format!("{level}: {why}\n{g}"));
            dirty_memory();
            let mut runner = Runner::jit(g.clone(), &options, 2).map_err(fail)?;
            let got = runner.run(&inputs).map_err(fail)?;
            for (a, b) in expected.iter().zip(&got) {
                if let Some(why) = difference(a, b, of_largest(2e-5, most, a)) {
                    return Err(fail(why));
                }
            }
        }
    }
}
