//! Random networks of layers on blocks of channels: AVX-512 and AVX2 code give what the evaluator gives, the same bits with any
//! number of threads and in a second run. Inputs and outputs lie between pages that may not be touched. So do they with strategies
//! that the cost model does not choose.

use lehr::CompileOptions;
use lehr_tests::differential::{check, expected};
use lehr_tests::forced::by_choice;
use lehr_tests::random_net::{SMALL, inputs, random_net, random_squares};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_on_blocks_agree_with_the_evaluator(choices in prop::collection::vec(any::<u8>(), 40..360)) {
        let g = random_net(&choices, SMALL);
        let inputs = inputs(&g, 5);
        let Some((want, most)) = expected(&g, &inputs) else { return Ok(()) };
        check(&g, &inputs, (&want, most), &CompileOptions::default()).map_err(|why| TestCaseError::fail(format!("{why}\n{g}")))?;
    }

    #[test]
    fn so_do_forced_strategies(
        choices in prop::collection::vec(any::<u8>(), 20..160),
        strategies in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let g = random_squares(&choices, SMALL);
        let inputs = inputs(&g, 5);
        let Some((want, most)) = expected(&g, &inputs) else { return Ok(()) };
        check(&g, &inputs, (&want, most), &by_choice(&g, &strategies)).map_err(|why| TestCaseError::fail(format!("{why}\n{g}")))?;
    }
}
