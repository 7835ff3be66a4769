//! Analyses of convolutions: what smaller ones could stand for them, at what cost and with what error. They change nothing; the
//! rules `factorize-conv` and `separate-conv` apply what they find.
//!
//! ```text
//! factorization   k x k            a stack of smaller kernels with w channels in between: 5x5 as two 3x3
//! separability    k x k            k x 1, then 1 x k, with r channels in between; depthwise and pointwise
//! ```

mod factorization;
mod fit;
mod kernels;
mod layer;
mod linalg;
mod probe;
mod separability;

pub use factorization::Factorization;
pub use layer::{ChainCost, ConvLayer, Stage, StageCost, output_size};
pub use probe::{Inputs, OutputError};
pub use separability::{PairRanks, Scheme, Separability, Separation};

use crate::rule::Decline;
use layer::Shape;
use serde::Serialize;

/// How a layer is analysed.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Relative error, on weights, up to which an approximation is good enough.
    pub tolerance: f64,
    /// What outputs are compared on.
    pub inputs: Inputs,
    /// Multiply-adds that the search may spend on a layer; it says when it would have gone on.
    pub work: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { tolerance: 0.01, inputs: Inputs::Seeded(7), work: 4e9 }
    }
}

/// One point of a curve of error against width or rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Channels between the convolutions (per group), or rank.
    pub width: usize,
    /// Norm of the difference of the weights over their norm.
    pub error_on_weights: f64,
    pub parameters: u64,
    pub multiply_adds: u64,
}

/// A chain of convolutions that stands for one.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    pub width: usize,
    pub error_on_weights: f64,
    /// As the rewrite would do it: a stack pads in front.
    pub error_on_outputs: OutputError,
    pub cost: ChainCost,
    #[serde(skip)]
    pub stages: Vec<Stage>,
}

/// The largest width, up to `most`, at which a chain takes fewer multiply-adds than the layer; 0 if there is none.
fn break_even(layer: &ConvLayer, most: usize, shapes: &dyn Fn(usize) -> Vec<Shape>) -> Result<usize, Decline> {
    let before = layer.cost()?.multiply_adds;
    let (mut low, mut high) = (0, most + 1);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if layer.chain_cost(&shapes(middle))?.multiply_adds < before {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
