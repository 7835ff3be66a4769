//! Random small graphs evaluate the same before and after each pipeline, and after any number of rewrites. What a
//! pipeline may change follows from the exactness of its rules: O0 and O1 nothing, O2 the places of rounding. Half of the graphs have
//! constants that are infinite or NaN, and zeros of both signs.

use lehr_ir::{Graph, Tensor, verify};
use lehr_passes::{Manager, OptLevel, pipeline};
use lehr_tests::compare::{difference, of_largest};
use lehr_tests::differential::evaluated;
use lehr_tests::random_graph::{Constants, inputs, random_graph};
use proptest::prelude::*;

/// The results, and the largest number on the way to them.
fn run(g: &Graph) -> Result<(Vec<Tensor>, f64), String> {
    let inputs = inputs(g, 11).ok_or("an input without a shape")?;
    evaluated(g, &inputs).map_err(|e| e.to_string())
}

fn check(original: &Graph, level: OptLevel, stop_after: Option<usize>) -> Result<(), TestCaseError> {
    let tolerance = match level {
        OptLevel::O0 | OptLevel::O1 => 0.0,
        OptLevel::O2 | OptLevel::Os => 2e-5,
    };
    let mut g = original.clone();
    let manager = Manager { verify_each: true, stop_after };
    let report = manager.run(&mut g, pipeline(level));
    let report = report.map_err(|d| TestCaseError::fail(format!("{d:#?}\n{original}\n{g}")))?;
    let (before, after) = (run(original), run(&g));
    // A graph that fits its symbols only sometimes may fail in a node that no output needs: that goes away.
    let Ok((before, most)) = before else { return Ok(()) };
    let (after, _) = after.map_err(|why| TestCaseError::fail(format!("{level}: {why}\n{original}\n{g}")))?;
    for (a, b) in before.iter().zip(&after) {
        let why =
            difference(a, b, of_largest(tolerance, most, a)).or_else(|| other_bits(a, b).filter(|_| tolerance == 0.0));
        if let Some(why) = why {
            return Err(TestCaseError::fail(format!("{level}: {why}\n{original}\n{g}\n{report}")));
        }
    }
    prop_assert_eq!(original.inputs().len(), g.inputs().len());
    prop_assert_eq!(original.outputs.len(), after.len());
    Ok(())
}

/// The first element with other bits, the sign of a zero among them; NaNs are equal.
fn other_bits(a: &Tensor, b: &Tensor) -> Option<String> {
    let (a, b) = (a.to_f64(), b.to_f64());
    let at = (0..a.len()).find(|&i| a[i].to_bits() != b[i].to_bits() && !a[i].is_nan())?;
    Some(format!("element {at} is {:?}, not {:?}", b[at], a[at]))
}

fn constants() -> impl Strategy<Value = Constants> {
    prop_oneof![Just(Constants::Ordinary), Just(Constants::Hostile)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pipelines_keep_what_a_graph_computes(choices in prop::collection::vec(any::<u8>(), 0..400), kind in constants()) {
        let g = random_graph(&choices, kind);
        prop_assert!(verify(&g).is_empty());
        for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2] {
            check(&g, level, None)?;
        }
    }

    #[test]
    fn so_does_every_prefix_of_the_rewrites(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        kind in constants(),
        stop in 0usize..12,
    ) {
        check(&random_graph(&choices, kind), OptLevel::O2, Some(stop))?;
    }
}
