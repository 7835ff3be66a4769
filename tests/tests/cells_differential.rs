//! Random normalisations by channel with what is fused behind them: AVX-512 and AVX2 code give what the evaluator gives, the same bits
//! with any number of threads and in a second run. Inputs and outputs lie between pages that may not be touched.

use lehr::CompileOptions;
use lehr_tests::differential::{check, expected};
use lehr_tests::random_cells::random_norm;
use lehr_tests::random_net::inputs;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normalisations_by_channel_agree_with_the_evaluator(choices in prop::collection::vec(any::<u8>(), 40)) {
        let Some(g) = random_norm(&choices) else { return Ok(()) };
        let inputs = inputs(&g, 5);
        let Some((want, most)) = expected(&g, &inputs) else { return Ok(()) };
        check(&g, &inputs, (&want, most), &CompileOptions::default()).map_err(|why| TestCaseError::fail(format!("{why}\n{g}")))?;
    }
}
