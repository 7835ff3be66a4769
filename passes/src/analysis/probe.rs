//! How far a chain of convolutions is from the one it stands for, on outputs: inside, and at the border, where windows reach into
//! the padding. Biases are left out: they are the same on both sides, and would make a difference look small.

use super::layer::{ConvLayer, Stage, chain_graph};
use crate::rule::{Decline, declined};
use lehr_ir::Tensor;
use lehr_ir::eval::evaluate;
use lehr_ir::tensor::seeded;
use serde::Serialize;

/// Multiply-adds that evaluating a layer may take; above, the image is cropped.
const MAX_WORK: u64 = 40_000_000;

/// What outputs are compared on.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// One image, uniform in [-1, 1).
    Seeded(u64),
    /// Images N, C, height, width for the layer.
    Given(Tensor),
}

/// Norms of the difference of outputs over those of the original's, without bias.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputError {
    pub all: f64,
    /// Outputs whose window lies inside the image; `None` if there are none.
    pub interior: Option<f64>,
    /// Outputs whose window reaches into the padding; `None` if there are none.
    pub border: Option<f64>,
    /// Type of the images compared on, and whether they are cropped.
    pub inputs: String,
}

/// A layer's outputs on some images.
pub(super) struct Probe {
    images: Tensor,
    expected: Vec<f64>,
    /// Of each output element of a plane: whether its window lies inside.
    inside: Vec<bool>,
    inputs: String,
}

impl Probe {
    pub fn new(layer: &ConvLayer, inputs: &Inputs) -> Result<Probe, Decline> {
        let [channels, height, width] = layer.input;
        let batch = match inputs {
            Inputs::Seeded(_) => 1,
            Inputs::Given(t) if t.dtype() != layer.dtype() || t.rank() != 4 || t.shape()[1..] != layer.input => {
                declined!("the inputs given are {}, one image of the layer's is {}", t.ty(), layer.input_type())
            }
            Inputs::Given(t) if t.is_empty() => declined!("no images are given"),
            Inputs::Given(t) => t.shape()[0],
        };
        let size = cropped(layer, batch)?;
        let images = match inputs {
            Inputs::Seeded(seed) => seeded(layer.dtype(), vec![1, channels, size[0], size[1]], *seed),
            Inputs::Given(t) => crop(t, size),
        };
        let crop = if size == [height, width] { "" } else { ", cropped" };
        let expected = outputs(&images, std::slice::from_ref(&layer.stage))?;
        let inputs = match inputs {
            Inputs::Seeded(seed) => format!("seed {seed}, {}{crop}", images.ty()),
            Inputs::Given(_) => format!("given, {}{crop}", images.ty()),
        };
        Ok(Probe { images, expected, inside: inside(layer, size), inputs })
    }

    pub fn error(&self, stages: &[Stage]) -> Result<OutputError, Decline> {
        let got = outputs(&self.images, stages)?;
        if got.len() != self.expected.len() {
            declined!("the chain gives {} outputs instead of {}", got.len(), self.expected.len());
        }
        let relative = |wanted: &dyn Fn(bool) -> bool| {
            let (mut difference, mut size, mut any) = (0.0, 0.0, false);
            for (k, (a, b)) in self.expected.iter().zip(&got).enumerate() {
                if wanted(self.inside[k % self.inside.len()]) {
                    any = true;
                    difference += (a - b) * (a - b);
                    size += a * a;
                }
            }
            any.then(|| if difference == 0.0 { 0.0 } else { (difference / size).sqrt() })
        };
        Ok(OutputError {
            all: relative(&|_| true).unwrap_or(0.0),
            interior: relative(&|inside| inside),
            border: relative(&|inside| !inside),
            inputs: self.inputs.clone(),
        })
    }
}

fn outputs(images: &Tensor, stages: &[Stage]) -> Result<Vec<f64>, Decline> {
    let graph = chain_graph(stages, None, images.ty())?;
    let results = evaluate(&graph, std::slice::from_ref(images), &mut |_, _| {});
    let results = results.map_err(|e| Decline::Reason(e.to_string()))?;
    Ok(results.first().map(Tensor::to_f64).unwrap_or_default())
}

/// The size to evaluate at: that of the layer, or as much as the work allows, but two windows at least.
fn cropped(layer: &ConvLayer, batch: usize) -> Result<[usize; 2], Decline> {
    let work = layer.cost()?.multiply_adds.saturating_mul(batch as u64);
    let share = (MAX_WORK as f64 / work.max(1) as f64).sqrt();
    let size = layer.size();
    if share >= 1.0 {
        return Ok(size);
    }
    let conv = &layer.stage.conv;
    let least = |a: usize| 2 * (conv.dilations[a] * (layer.stage.kernel()[a] - 1) + 1);
    Ok([0, 1].map(|a| ((size[a] as f64 * share) as usize).max(least(a)).min(size[a])))
}

/// The first rows and columns of every plane.
fn crop(t: &Tensor, [height, width]: [usize; 2]) -> Tensor {
    let &[n, c, h, w] = t.shape() else { unreachable!("checked to be images") };
    let values = t.to_f64();
    let rows = (0..n * c).flat_map(|plane| (0..height).map(move |y| (plane * h + y) * w));
    Tensor::from_f64(t.dtype(), vec![n, c, height, width], rows.flat_map(|at| values[at..at + width].iter().copied()))
}

fn inside(layer: &ConvLayer, size: [usize; 2]) -> Vec<bool> {
    let (conv, kernel) = (&layer.stage.conv, layer.stage.kernel());
    let along = |a: usize| -> Vec<bool> {
        let reach = conv.dilations[a] * (kernel[a] - 1);
        let padded = size[a] + conv.pads[a] + conv.pads[2 + a];
        let starts = (0..padded.saturating_sub(reach)).step_by(conv.strides[a].max(1));
        starts.map(|at| at >= conv.pads[a] && at + reach < conv.pads[a] + size[a]).collect()
    };
    let (rows, columns) = (along(0), along(1));
    rows.iter().flat_map(|&y| columns.iter().map(move |&x| y && x)).collect()
}
