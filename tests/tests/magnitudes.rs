//! Chains of linear operators with constants of every magnitude: passes and compiled code move results by rounding alone.

use lehr::{CompileOptions, Numerics, OptLevel, Runner};
use lehr_ir::eval::evaluate;
use lehr_passes::{Manager, pipeline};
use lehr_tests::random_affine::{beyond_rounding, random_affine};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rewrites_round_at_other_places_and_no_more(choices in prop::collection::vec(any::<u8>(), 0..160), scale in any::<u8>()) {
        let a = random_affine(&choices);
        let x = a.input(scale);
        let Some(truth) = a.truth(&x) else { return Ok(()) };
        for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2] {
            let mut g = a.single.clone();
            let manager = Manager { verify_each: true, stop_after: None };
            let report = manager.run(&mut g, pipeline(level)).map_err(|d| TestCaseError::fail(format!("{d:#?}\n{}", a.single)))?;
            let got = evaluate(&g, std::slice::from_ref(&x), &mut |_, _| {}).map_err(|e| TestCaseError::fail(format!("{e}\n{g}")))?;
            if let Some(why) = beyond_rounding(&truth, &got) {
                return Err(TestCaseError::fail(format!("{level}: {why}\n{}\n{g}\n{report}", a.single)));
            }
        }
        for level in [OptLevel::O0, OptLevel::O2] {
            let options = CompileOptions { level, numerics: Numerics::Strict, ..CompileOptions::default() };
            let fail = |why: String| TestCaseError::fail(format!("compiled at {level}: {why}\n{}", a.single));
            let mut runner = Runner::jit(a.single.clone(), &options, 1).map_err(fail)?;
            let got = runner.run(std::slice::from_ref(&x)).map_err(fail)?;
            beyond_rounding(&truth, &got).map_or(Ok(()), |why| Err(fail(why)))?;
        }
    }
}
