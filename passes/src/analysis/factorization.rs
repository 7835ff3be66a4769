//! k x k as a stack of smaller kernels, with nothing in between: two 3x3 for a 5x5, three for a 7x7; a 2x2 ends the stack of an
//! even size. Strides are the last one's, dilations everybody's.
//!
//! Padding: only the first of the stack may pad. It then sees what the large window saw, and the stack differs from the original
//! by its weights alone. Padding spread over the stack pads intermediate channels with 0, which are not 0 there: the border changes
//! even where the weights are exact.

use super::fit::{Fit, fit, parts_of};
use super::kernels::Kernel;
use super::layer::{ChainCost, ConvLayer, Shape, Stage};
use super::probe::{OutputError, Probe};
use super::{Candidate, Options, Point, break_even};
use crate::rule::{Decline, declined};
use lehr_ir::ops::Conv;
use serde::Serialize;

/// Widths that are tried, as shares of the break-even width. Beyond it a stack may still be faster: 3x3 convolutions have quicker
/// algorithms than large ones.
const SHARES: [f64; 7] = [0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5];
/// A wider middle is not looked at.
const MAX_WIDTH: usize = 1024;

/// What a stack of smaller kernels would make of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct Factorization {
    /// The ONNX node's name.
    pub layer: String,
    /// Side of the kernel.
    pub kernel: usize,
    /// Sides of the stack's kernels, first to last.
    pub parts: Vec<usize>,
    pub before: ChainCost,
    /// The widest stack that takes fewer multiply-adds than the layer; 0 if none does.
    pub break_even: usize,
    /// Error against width, by ascending width.
    pub curve: Vec<Point>,
    /// The narrowest of the curve within the tolerance, else that of the break-even (or 1).
    pub chosen: Candidate,
    /// Of the chosen one with the padding spread over the stack, as frameworks do; `None` without padding.
    pub spread_padding: Option<OutputError>,
    /// What was not looked at, and why.
    pub capped: Option<String>,
}

impl Factorization {
    /// Whether there is something to take apart: a square kernel of side 4 or more.
    pub fn applies(layer: &ConvLayer) -> bool {
        let [height, width] = layer.stage.kernel();
        height == width && height >= 4
    }

    /// # Errors
    /// `NoMatch` where it does not apply; a reason where sizes do not fit.
    pub fn new(layer: &ConvLayer, options: &Options) -> Result<Factorization, Decline> {
        if !Factorization::applies(layer) {
            return Err(Decline::NoMatch);
        }
        let side = layer.stage.kernel()[0];
        let parts = parts_of(side);
        let conv = &layer.stage.conv;
        let convs = stack(conv, &parts, Padding::First);
        let shapes = |width: usize| shapes(layer, &convs, &parts, width);
        let even = break_even(layer, MAX_WIDTH, &shapes)?;
        let mut widths: Vec<usize> = SHARES.map(|s| ((even as f64 * s).round() as usize).max(1)).to_vec();
        widths.dedup();

        let groups: Vec<Kernel> =
            (0..conv.groups).map(|g| Kernel::of_group(&layer.stage.weights, g, conv.groups)).collect();
        let mut search = Search { groups: &groups, parts: &parts, goal: options.tolerance, left: options.work };
        let (mut curve, mut fits, mut cut) = (vec![], vec![], vec![]);
        for (k, &width) in widths.iter().enumerate() {
            let (found, error) = search.at(width, widths.len() - k)?;
            let cost = layer.chain_cost(&shapes(width))?;
            let (parameters, multiply_adds) = (cost.parameters, cost.multiply_adds);
            curve.push(Point { width, error_on_weights: error, parameters, multiply_adds });
            cut.extend(found.iter().any(|f| f.cut_short).then_some(width));
            fits.push(found);
        }
        let within = curve.iter().position(|p| p.error_on_weights <= options.tolerance);
        let at = within.or_else(|| widths.iter().position(|&w| w == even)).unwrap_or(0);
        let probe = Probe::new(layer, &options.inputs)?;
        let stages = stages(layer, &convs, &fits[at]);
        let spread = stack(conv, &parts, Padding::Spread);
        let spread_padding = match conv.pads.iter().all(|&p| p == 0) {
            true => None,
            false => Some(probe.error(&self::stages(layer, &spread, &fits[at]))?),
        };
        let chosen = Candidate {
            width: curve[at].width,
            error_on_weights: curve[at].error_on_weights,
            error_on_outputs: probe.error(&stages)?,
            cost: layer.chain_cost(&shapes(curve[at].width))?,
            stages,
        };
        let capped = (!cut.is_empty()).then(|| {
            format!(
                "the search stopped after {:.0e} multiply-adds at the widths {cut:?}; errors may be lower",
                options.work
            )
        });
        Ok(Factorization {
            layer: layer.name.clone(),
            kernel: side,
            parts,
            before: layer.cost()?,
            break_even: even,
            curve,
            chosen,
            spread_padding,
            capped,
        })
    }
}

#[derive(Clone, Copy)]
enum Padding {
    First,
    Spread,
}

/// The convolutions of the stack, without weights.
fn stack(conv: &Conv, parts: &[usize], padding: Padding) -> Vec<Conv> {
    let reach: usize = parts.iter().map(|p| p - 1).sum();
    let mut before = 0;
    let mut convs = vec![];
    for (k, part) in parts.iter().enumerate() {
        let after = before + part - 1;
        let share = |pad: &usize| match padding {
            Padding::First if k == 0 => *pad,
            Padding::First => 0,
            Padding::Spread => pad * after / reach - pad * before / reach,
        };
        let pads = conv.pads.iter().map(share).collect();
        let strides = if k + 1 == parts.len() { conv.strides.clone() } else { vec![1, 1] };
        convs.push(Conv { strides, pads, dilations: conv.dilations.clone(), groups: conv.groups });
        before = after;
    }
    convs
}

fn shapes(layer: &ConvLayer, convs: &[Conv], parts: &[usize], width: usize) -> Vec<Shape> {
    let [outputs, inputs, ..] = layer.stage.shape().weights;
    let last = parts.len() - 1;
    let shape = |k: usize| Shape {
        conv: convs[k].clone(),
        weights: [
            if k == last { outputs } else { width * convs[k].groups },
            if k == 0 { inputs } else { width },
            parts[k],
            parts[k],
        ],
    };
    (0..parts.len()).map(shape).collect()
}

fn stages(layer: &ConvLayer, convs: &[Conv], groups: &[Fit]) -> Vec<Stage> {
    let stage = |(k, conv): (usize, &Conv)| {
        let kernels: Vec<Kernel> = groups.iter().map(|f| f.factors[k].clone()).collect();
        Stage { conv: conv.clone(), weights: Kernel::to_weights(&kernels, layer.dtype()) }
    };
    convs.iter().enumerate().map(stage).collect()
}

struct Search<'s> {
    groups: &'s [Kernel],
    parts: &'s [usize],
    goal: f64,
    left: f64,
}

impl Search<'_> {
    /// The best stacks of a width, one per group, and their error together; it takes one of `shares` of the work left.
    fn at(&mut self, width: usize, shares: usize) -> Result<(Vec<Fit>, f64), Decline> {
        let parts: Vec<[usize; 2]> = self.parts.iter().map(|&p| [p, p]).collect();
        let mut share = self.left / shares as f64;
        self.left -= share;
        let (mut fits, mut difference, mut size) = (vec![], 0.0, 0.0);
        for (k, kernel) in self.groups.iter().enumerate() {
            let mut budget = share / (self.groups.len() - k) as f64;
            share -= budget;
            let Some(found) = fit(kernel, &parts, width, self.goal, &mut budget) else {
                declined!("numbers are too large for least squares");
            };
            share += budget.max(0.0);
            let norm2 = kernel.norm2();
            difference += found.error * found.error * norm2;
            size += norm2;
            fits.push(found);
        }
        self.left += share;
        Ok((fits, if size == 0.0 { 0.0 } else { (difference / size).sqrt() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::tests::layer;
    use super::super::{Inputs, output_size};
    use super::*;
    use lehr_ir::DType;
    use lehr_ir::tensor::seeded;

    fn options(work: f64) -> Options {
        Options { work, ..Options::default() }
    }

    fn noise(shape: [usize; 4], seed: u64) -> Kernel {
        Kernel::of_group(&seeded(DType::F32, shape.to_vec(), seed), 0, 1)
    }

    /// Weights that are two 3x3 with `middle` channels in between.
    fn factorable(outputs: usize, middle: usize, inputs: usize) -> Kernel {
        noise([outputs, middle, 3, 3], 1).after(&noise([middle, inputs, 3, 3], 2))
    }

    #[test]
    fn costs_follow_the_formulas() {
        let weights = seeded(DType::F32, vec![8, 4, 5, 5], 1);
        let f = Factorization::new(&layer(weights, [4, 14, 14], [2, 2, 2, 2], 1, 1), &options(1e8)).unwrap();
        let before = &f.before;
        assert_eq!((before.receptive_field, before.parameters), ([5, 5], 5 * 5 * 4 * 8));
        assert_eq!(before.multiply_adds, 5 * 5 * 4 * 8 * 14 * 14);
        let (after, w) = (&f.chosen.cost, f.chosen.width as u64);
        assert_eq!((after.receptive_field, after.parameters), ([5, 5], 9 * (4 * w + w * 8)));
        // All padding in front: the first of the two gives 16 x 16.
        assert_eq!(after.multiply_adds, 9 * (4 * w * 16 * 16 + w * 8 * 14 * 14));
        assert!(f.curve.iter().all(|p| (p.multiply_adds < before.multiply_adds) == (p.width <= f.break_even)));
        assert!(f.curve.is_sorted_by(|a, b| a.width < b.width && a.error_on_weights > b.error_on_weights));
        assert_eq!(output_size(14, 5, 2, 4, 2), Some((14 + 4 - 2 * 4 - 1) / 2 + 1));
        assert_eq!(
            (output_size(3, 5, 1, 1, 1), output_size(3, 0, 1, 1, 1), output_size(3, 1, 0, 1, 1)),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_two_kernels_is_found_and_only_padding_in_front_keeps_the_border() {
        let weights = Kernel::to_weights(&[factorable(6, 2, 5)], DType::F32);
        let f = Factorization::new(&layer(weights, [5, 11, 12], [2, 2, 2, 2], 1, 1), &options(1e8)).unwrap();
        assert_eq!(f.parts, [3, 3]);
        let error = &f.chosen.error_on_outputs;
        assert!(f.chosen.error_on_weights < 1e-6 && f.chosen.width >= 2, "{f:?}");
        assert!(error.all < 1e-5 && error.border.unwrap() < 1e-5, "{error:?}");
        let spread = f.spread_padding.unwrap();
        assert!(spread.interior.unwrap() < 1e-5 && spread.border.unwrap() > 0.05, "{spread:?}");
    }

    #[test]
    fn noise_is_not_two_kernels() {
        let weights = seeded(DType::F32, vec![6, 5, 5, 5], 3);
        let f = Factorization::new(&layer(weights, [5, 9, 9], [0, 0, 0, 0], 1, 1), &options(1e8)).unwrap();
        assert!(f.chosen.error_on_weights > 0.05 && f.chosen.width == f.break_even, "{f:?}");
        assert_eq!(f.spread_padding, None);
        // A random input sees the error of the weights.
        let ratio = f.chosen.error_on_outputs.all / f.chosen.error_on_weights;
        assert!((0.5..2.0).contains(&ratio), "{ratio}");
        assert_eq!(f.chosen.error_on_outputs.border, None);
    }

    #[test]
    fn strides_dilations_and_groups_stay() {
        let groups = [factorable(3, 1, 2), noise([3, 1, 3, 3], 5).after(&noise([1, 2, 3, 3], 6))];
        let weights = Kernel::to_weights(&groups, DType::F64);
        let f = Factorization::new(&layer(weights, [4, 24, 21], [4, 3, 2, 5], 2, 2), &options(1e8));
        let f = f.unwrap();
        assert!(f.chosen.error_on_weights < 1e-6 && f.chosen.error_on_outputs.all < 1e-6, "{f:?}");
        let convs: Vec<&Conv> = f.chosen.stages.iter().map(|s| &s.conv).collect();
        assert_eq!((&convs[0].strides, &convs[1].strides), (&vec![1, 1], &vec![2, 2]));
        assert_eq!((&convs[0].pads, &convs[1].pads), (&vec![4, 3, 2, 5], &vec![0; 4]));
        assert!(convs.iter().all(|c| c.dilations == [2, 2] && c.groups == 2));
    }

    #[test]
    fn small_kernels_are_left_alone_and_wrong_inputs_refused() {
        let small = layer(seeded(DType::F32, vec![2, 2, 3, 3], 1), [2, 9, 9], [1; 4], 1, 1);
        assert_eq!(Factorization::new(&small, &options(1e6)).err(), Some(Decline::NoMatch));
        let large = layer(seeded(DType::F32, vec![2, 2, 5, 5], 1), [2, 9, 9], [1; 4], 1, 1);
        let images = |shape: [usize; 4]| Inputs::Given(seeded(DType::F32, shape.to_vec(), 1));
        let given = |shape| Factorization::new(&large, &Options { inputs: images(shape), ..options(1e6) });
        assert_eq!(given([3, 2, 9, 9]).unwrap().chosen.error_on_outputs.inputs, "given, f32[3,2,9,9]");
        let Err(Decline::Reason(why)) = given([1, 2, 8, 9]) else { panic!("another size") };
        assert!(why.contains("f32[1,2,8,9]"), "{why}");
    }
}
