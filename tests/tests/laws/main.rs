//! Laws of mathematics, on compiled code: what must hold between results, whatever they are. The numbers themselves are
//! checked by the program `functions`.

mod convolution;
mod identities;
mod networks;
mod pooling;
mod shift;
mod statistics;

use proptest::prelude::ProptestConfig;

/// Each case compiles a graph or a few.
fn cases(n: u32) -> ProptestConfig {
    ProptestConfig { cases: n, failure_persistence: None, ..ProptestConfig::default() }
}

/// Rounding of sums of f32 products, of the largest result.
const ROUNDING: f64 = 1e-5;
