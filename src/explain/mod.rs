//! What the compiler does with a model, layer by layer, with numbers: what every pass did or declined, how each layer is
//! computed, what it costs, and how far its kernels could be factorised.
//!
//! [`explain`] gathers an [`Explanation`], a plain value; [`text`], [`html`] and serde_json show it. A *layer* is a node of the
//! graph after the passes; it knows the ONNX nodes it came from, and those are how everything is found again.

mod analyses;
pub mod choice;
mod gather;
pub mod html;
mod layered;
pub mod layers;
mod measure;
pub mod table;
pub mod text;
pub mod units;
mod view;

pub use choice::{Choice, Rejected};
pub use gather::explain;
pub use layers::{Amount, Layer};
pub use measure::measure;

use crate::CompileOptions;
use serde::{Deserialize, Serialize};

/// Version of the json form; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 2;

/// What to find out.
#[derive(Clone, Debug, Default)]
pub struct ExplainOptions {
    pub compile: CompileOptions,
    /// Only layers that come from this ONNX node: the one of exactly this name, else all whose names contain it.
    pub node: Option<String>,
    pub measure: Option<Measure>,
    /// How convolutions are analysed; `None`: they are not.
    pub analyses: Option<lehr_passes::analysis::Options>,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// 0: as many as this process may use.
    pub threads: u32,
    pub seconds: f64,
}

/// Everything that is known of a model's compilation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub schema: u32,
    pub model: String,
    /// `O2`.
    pub level: String,
    pub cpu: String,
    /// What `node` of the options asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub totals: Totals,
    /// Every pass of the level, in order.
    pub passes: Vec<PassSummary>,
    /// The graph as imported.
    pub before: View,
    /// The graph after the passes.
    pub after: View,
    /// In the order in which they run. With `node`, the matching ones.
    pub layers: Vec<LayerReport>,
    /// Events at nodes that no layer computes any more: they were removed, or folded into constants.
    pub elsewhere: Vec<PassEvent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Why there is no code, and so neither kernels nor times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Figures of the whole model, whatever `node` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub operators_before: usize,
    pub operators_after: usize,
    pub params_before: u64,
    pub params: u64,
    pub flops_before: Amount,
    pub flops: Amount,
    /// Dimensions that layouts, kernels, memory and times are for the size 1 of.
    pub taken_as_1: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arena_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassSummary {
    pub name: String,
    pub doc: String,
    /// Constants and inputs included.
    pub nodes_before: usize,
    pub nodes_after: usize,
    pub fired: usize,
    pub declined: usize,
}

/// A rule fired or declined at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassEvent {
    pub pass: String,
    pub rule: String,
    pub fired: bool,
    /// The ONNX node's name.
    pub node: String,
    /// The equation, or the reason to decline.
    pub detail: String,
}

/// One layer and all that concerns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Position among all layers of the model, from 0.
    pub index: usize,
    #[serde(flatten)]
    pub figures: Layer,
    pub kind: Kind,
    /// Bytes of all operands, constants included.
    pub operand_bytes: Amount,
    /// The imported nodes that it comes from.
    pub before: Before,
    pub events: Vec<PassEvent>,
    pub analyses: Vec<Analysis>,
}

/// The imported nodes behind a layer, together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    pub nodes: usize,
    pub params: u64,
    pub flops: Amount,
}

/// What could be made of a convolution, and how near it would come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// `factorization`, `separability`.
    pub name: String,
    /// The ONNX node it is about.
    pub node: String,
    /// In sentences, with numbers: what holds for all curves.
    pub findings: Vec<String>,
    pub curves: Vec<Curve>,
}

/// The relative error on the weights against the size of a replacement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub title: String,
    /// What `at` counts.
    pub axis: String,
    /// Multiply-adds of what is replaced.
    pub multiply_adds: u64,
    pub points: Vec<Point>,
    /// The one that would be taken.
    pub chosen: usize,
    /// Of the chosen one: cost, errors, and times where they were measured.
    pub findings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub at: usize,
    pub error: f64,
    pub parameters: u64,
    pub multiply_adds: u64,
}

/// Where a run's time goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub threads: u32,
    pub runs: usize,
    /// Median of a run, from the first stamp to the last.
    pub run_ms: f64,
    /// What belongs to no layer: copies to the outputs.
    pub other_ms: f64,
    /// The medians of all layers and of the rest, added up.
    pub sum_ms: f64,
    /// FMA peak of all threads, measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_gflops: Option<f64>,
}

/// A graph to be drawn, without its constants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub nodes: Vec<ViewNode>,
    /// Pairs of positions in `nodes`, from producer to reader.
    pub edges: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewNode {
    pub op: String,
    pub kind: Kind,
    pub names: Vec<String>,
    /// Type of the first result.
    pub result: String,
    /// The layers that compute it, by [`LayerReport::index`].
    pub layers: Vec<usize>,
}

/// Families of operators, for colours and counts. A fusion is what it is built around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Input,
    Output,
    Convolution,
    Product,
    Pooling,
    Normalisation,
    Elementwise,
    Reduction,
    /// Concatenations, reshapes, gathers and whatever else moves elements.
    Movement,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Input,
        Kind::Output,
        Kind::Convolution,
        Kind::Product,
        Kind::Pooling,
        Kind::Normalisation,
        Kind::Elementwise,
        Kind::Reduction,
        Kind::Movement,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::Output => "output",
            Kind::Convolution => "convolution",
            Kind::Product => "matrix product",
            Kind::Pooling => "pooling",
            Kind::Normalisation => "normalisation",
            Kind::Elementwise => "elementwise",
            Kind::Reduction => "reduction, softmax",
            Kind::Movement => "data movement",
        }
    }
}

impl Explanation {
    /// The share of the measured time that a layer takes.
    pub fn share(&self, layer: &LayerReport) -> Option<f64> {
        let timing = self.timing.as_ref()?;
        layer.figures.ms.map(|ms| ms / timing.sum_ms)
    }
}

impl Curve {
    /// Multiply-adds of a point as a share of those of what it replaces.
    pub fn cost(&self, p: &Point) -> f64 {
        p.multiply_adds as f64 / self.multiply_adds.max(1) as f64
    }
}
