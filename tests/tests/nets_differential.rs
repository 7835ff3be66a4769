//! Random networks of layers on blocks of channels: AVX-512 and AVX2 code give what the evaluator gives, the same bits with any
//! number of threads and in a second run. Inputs and outputs lie between pages that may not be touched.

use lehr::CompileOptions;
use lehr_tests::differential::{check, expected};
use lehr_tests::random_net::{SMALL, inputs, random_net};
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
}
