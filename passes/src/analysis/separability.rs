//! k x k as two convolutions of one row and one column, or of one channel and one pixel, by singular value decomposition:
//!
//! ```text
//! columns-rows           W[o, i, y, x] = sum_r  H[o, r, x] V[r, i, y]     k x 1 to r channels, then 1 x k
//! depthwise-pointwise    W[o, i, y, x] = sum_q  P[o, i, q] D[i, q, y, x]  q filters per input channel, then 1x1
//! pointwise-depthwise    W[o, i, y, x] = sum_q  D[o, q, y, x] P[o, q, i]  1x1 to q channels per output, then k x k on each
//! ```
//!
//! Truncated, each is the best of its rank (Eckart and Young). All leave the border as it is: a window of padding is 0 in between,
//! too. Source of the first: Jaderberg, Vedaldi, Zisserman, "Speeding up convolutional neural networks with low rank expansions".

use super::layer::{ChainCost, ConvLayer, Shape, Stage};
use super::linalg::{LowRank, Matrix};
use super::probe::Probe;
use super::{Candidate, Options, Point, break_even};
use crate::rule::{Decline, declined};
use lehr_ir::Tensor;
use lehr_ir::ops::Conv;
use serde::Serialize;
use std::fmt;

/// Of large matrices, only so many ranks are computed.
const MAX_RANK: usize = 256;
/// Points of a curve.
const MAX_POINTS: usize = 32;
/// Channel pairs whose kernels are decomposed; of more, every n-th.
const MAX_PAIRS: usize = 1 << 14;

/// How a kernel is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    ColumnsRows,
    DepthwisePointwise,
    PointwiseDepthwise,
}

/// How separable a layer is.
#[derive(Clone, Debug, Serialize)]
pub struct Separability {
    /// The ONNX node's name.
    pub layer: String,
    pub kernel: [usize; 2],
    pub before: ChainCost,
    /// Each channel pair's kernel by itself.
    pub pairs: PairRanks,
    /// The schemes that apply.
    pub schemes: Vec<Separation>,
    /// What was not looked at, and why.
    pub capped: Option<String>,
}

/// Ranks of the kernels of single channel pairs, each a matrix of rows by columns.
#[derive(Clone, Debug, Serialize)]
pub struct PairRanks {
    /// Relative error on the weights with ranks 0, 1, ... of every pair.
    pub errors: Vec<f64>,
    /// Share of the pairs that are of rank one within the tolerance.
    pub rank_one: f64,
    /// Pairs looked at, and all pairs.
    pub pairs: [usize; 2],
}

/// What one scheme makes of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct Separation {
    pub scheme: Scheme,
    /// The highest rank that takes fewer multiply-adds than the layer; 0 if none does.
    pub break_even: usize,
    /// Error against rank, by ascending rank.
    pub curve: Vec<Point>,
    /// The lowest rank within the tolerance, else the highest that takes fewer multiply-adds (or 1).
    pub chosen: Candidate,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::ColumnsRows => "columns-rows",
            Scheme::DepthwisePointwise => "depthwise-pointwise",
            Scheme::PointwiseDepthwise => "pointwise-depthwise",
        })
    }
}

impl Separability {
    /// Whether there is something to take apart: a kernel of more than a row or a column.
    pub fn applies(layer: &ConvLayer) -> bool {
        layer.stage.kernel().iter().all(|&side| side > 1)
    }

    /// # Errors
    /// `NoMatch` where it does not apply; a reason where sizes do not fit.
    pub fn new(layer: &ConvLayer, options: &Options) -> Result<Separability, Decline> {
        if !Separability::applies(layer) {
            return Err(Decline::NoMatch);
        }
        let kernel = layer.stage.kernel();
        let weights = Weights::new(&layer.stage);
        let probe = Probe::new(layer, &options.inputs)?;
        let mut schemes = vec![Scheme::ColumnsRows];
        if weights.inputs > 1 {
            schemes.extend([Scheme::DepthwisePointwise, Scheme::PointwiseDepthwise]);
        }
        let (mut separations, mut caps) = (vec![], vec![]);
        for scheme in schemes {
            let (separation, cap) = separation(layer, &weights, scheme, &probe, options)?;
            separations.push(separation);
            caps.extend(cap);
        }
        let pairs = weights.pair_ranks(options.tolerance)?;
        if pairs.pairs[0] < pairs.pairs[1] {
            caps.push(format!("{} of {} channel pairs are looked at", pairs.pairs[0], pairs.pairs[1]));
        }
        Ok(Separability {
            layer: layer.name.clone(),
            kernel,
            before: layer.cost()?,
            pairs,
            schemes: separations,
            capped: (!caps.is_empty()).then(|| caps.join("; ")),
        })
    }
}

fn separation(
    layer: &ConvLayer,
    weights: &Weights,
    scheme: Scheme,
    probe: &Probe,
    options: &Options,
) -> Result<(Separation, Option<String>), Decline> {
    let matrices = weights.matrices(scheme);
    let full = matrices.iter().map(|m| m.nrows().min(m.ncols())).max().unwrap_or(0);
    let shapes = |rank: usize| weights.shapes(&layer.stage.conv, scheme, rank);
    let even = break_even(layer, full, &shapes)?;
    let most = even.clamp(1, MAX_RANK);
    let Some(parts) = matrices.iter().map(|m| LowRank::new(m, most)).collect::<Option<Vec<_>>>() else {
        declined!("numbers are too large for a decomposition");
    };
    let known = parts.iter().map(LowRank::ranks).max().unwrap_or(0);
    let norm2: f64 = parts.iter().map(LowRank::norm2).sum();
    let residuals: Vec<Vec<f64>> = parts.iter().map(LowRank::residuals).collect();
    let error = |rank: usize| {
        let left: f64 = residuals.iter().map(|r| r.get(rank).copied().unwrap_or(0.0)).sum();
        if norm2 == 0.0 { 0.0 } else { (left / norm2).sqrt() }
    };
    let step = known.div_ceil(MAX_POINTS).max(1);
    let affordable = most.min(known).max(1);
    let rank = (1..=affordable).find(|&r| error(r) <= options.tolerance).unwrap_or(affordable);
    let mut ranks: Vec<usize> =
        (1..=known).filter(|r| r % step == 0 || *r == 1 || *r == rank || *r == affordable).collect();
    ranks.dedup();
    let mut curve = vec![];
    for r in ranks {
        let cost = layer.chain_cost(&shapes(r))?;
        let (parameters, multiply_adds) = (cost.parameters, cost.multiply_adds);
        curve.push(Point { width: r, error_on_weights: error(r), parameters, multiply_adds });
    }
    let stages = weights.stages(&shapes(rank), scheme, &parts, rank, layer);
    let chosen = Candidate {
        width: rank,
        error_on_weights: error(rank),
        error_on_outputs: probe.error(&stages)?,
        cost: layer.chain_cost(&shapes(rank))?,
        stages,
    };
    let cap = (known < even.min(full)).then(|| format!("{scheme}: ranks above {known} of {full} are not looked at"));
    Ok((Separation { scheme, break_even: even, curve, chosen }, cap))
}

/// Weights as numbers, with the sizes of one group.
struct Weights {
    values: Vec<f64>,
    groups: usize,
    outputs: usize,
    inputs: usize,
    height: usize,
    width: usize,
}

impl Weights {
    fn new(stage: &Stage) -> Weights {
        let [outputs, inputs, height, width] = stage.shape().weights;
        let groups = stage.conv.groups;
        Weights { values: stage.weights.to_f64(), groups, outputs: outputs / groups, inputs, height, width }
    }

    /// The weight of an output channel of all groups.
    fn at(&self, output: usize, input: usize, tap: usize) -> f64 {
        self.values[(output * self.inputs + input) * self.height * self.width + tap]
    }

    /// The matrices whose ranks the scheme cuts: per group, per input channel, or per output channel.
    fn matrices(&self, scheme: Scheme) -> Vec<Matrix> {
        let (h, w, area) = (self.height, self.width, self.height * self.width);
        match scheme {
            Scheme::ColumnsRows => {
                let of_group = |g: usize| {
                    Matrix::from_fn(self.inputs * h, self.outputs * w, |iy, ox| {
                        self.at(g * self.outputs + ox / w, iy / h, iy % h * w + ox % w)
                    })
                };
                (0..self.groups).map(of_group).collect()
            }
            Scheme::DepthwisePointwise => {
                let of_input = |i: usize| {
                    let (g, i) = (i / self.inputs, i % self.inputs);
                    Matrix::from_fn(area, self.outputs, |t, o| self.at(g * self.outputs + o, i, t))
                };
                (0..self.groups * self.inputs).map(of_input).collect()
            }
            Scheme::PointwiseDepthwise => {
                let of_output = |o: usize| Matrix::from_fn(self.inputs, area, |i, t| self.at(o, i, t));
                (0..self.groups * self.outputs).map(of_output).collect()
            }
        }
    }

    fn shapes(&self, conv: &Conv, scheme: Scheme, rank: usize) -> Vec<Shape> {
        let (h, w, groups) = (self.height, self.width, self.groups);
        let (all_in, all_out) = (groups * self.inputs, groups * self.outputs);
        let along = |axis: usize, groups: usize| {
            // The other axis has a window of one: no stride, padding or dilation.
            let keep = |v: &[usize], none: usize| -> Vec<usize> {
                v.iter().enumerate().map(|(a, &d)| if a % 2 == axis { d } else { none }).collect()
            };
            Conv {
                strides: keep(&conv.strides, 1),
                pads: keep(&conv.pads, 0),
                dilations: keep(&conv.dilations, 1),
                groups,
            }
        };
        let pointwise = Conv { strides: vec![1, 1], pads: vec![0; 4], dilations: vec![1, 1], groups };
        let spatial = |groups: usize| Conv { groups, ..conv.clone() };
        match scheme {
            Scheme::ColumnsRows => vec![
                Shape { conv: along(0, groups), weights: [groups * rank, self.inputs, h, 1] },
                Shape { conv: along(1, groups), weights: [all_out, rank, 1, w] },
            ],
            Scheme::DepthwisePointwise => vec![
                Shape { conv: spatial(all_in), weights: [all_in * rank, 1, h, w] },
                Shape { conv: pointwise, weights: [all_out, self.inputs * rank, 1, 1] },
            ],
            Scheme::PointwiseDepthwise => vec![
                Shape { conv: pointwise, weights: [all_out * rank, self.inputs, 1, 1] },
                Shape { conv: spatial(all_out), weights: [all_out, rank, h, w] },
            ],
        }
    }

    fn stages(
        &self,
        shapes: &[Shape],
        scheme: Scheme,
        parts: &[LowRank],
        rank: usize,
        layer: &ConvLayer,
    ) -> Vec<Stage> {
        // Matrices of smaller rank than asked for end in zeros.
        let left = |m: usize, row: usize, r: usize| parts[m].left.get((row, r)).copied().unwrap_or(0.0);
        let right = |m: usize, r: usize, column: usize| parts[m].right.get((r, column)).copied().unwrap_or(0.0);
        let (h, w, outputs, inputs) = (self.height, self.width, self.outputs, self.inputs);
        // Positions: output channel, input channel of the group, tap.
        let first = |o: usize, i: usize, t: usize| match scheme {
            Scheme::ColumnsRows => left(o / rank, i * h + t, o % rank),
            Scheme::DepthwisePointwise => left(o / rank, t, o % rank),
            Scheme::PointwiseDepthwise => left(o / rank, i, o % rank),
        };
        let second = |o: usize, i: usize, t: usize| match scheme {
            Scheme::ColumnsRows => right(o / outputs, i, o % outputs * w + t),
            Scheme::DepthwisePointwise => right(o / outputs * inputs + i / rank, i % rank, o % outputs),
            Scheme::PointwiseDepthwise => right(o, i, t),
        };
        let tensor = |shape: &Shape, value: &dyn Fn(usize, usize, usize) -> f64| {
            let [o, i, kh, kw] = shape.weights;
            let area = kh * kw;
            let values = (0..o * i * area).map(|k| value(k / area / i, k / area % i, k % area));
            Tensor::from_f64(layer.dtype(), vec![o, i, kh, kw], values)
        };
        vec![
            Stage { conv: shapes[0].conv.clone(), weights: tensor(&shapes[0], &first) },
            Stage { conv: shapes[1].conv.clone(), weights: tensor(&shapes[1], &second) },
        ]
    }

    fn pair_ranks(&self, tolerance: f64) -> Result<PairRanks, Decline> {
        let all = self.groups * self.outputs * self.inputs;
        let step = all.div_ceil(MAX_PAIRS);
        let side = self.height.min(self.width);
        let mut left = vec![0.0; side + 1];
        let (mut rank_one, mut looked_at, mut norm2) = (0, 0, 0.0);
        for pair in (0..all).step_by(step) {
            let kernel = Matrix::from_fn(self.height, self.width, |y, x| {
                self.at(pair / self.inputs, pair % self.inputs, y * self.width + x)
            });
            let Some(low) = LowRank::new(&kernel, side) else { declined!("numbers are too large for a decomposition") };
            let residuals = low.residuals();
            left.iter_mut().zip(&residuals).for_each(|(sum, r)| *sum += r);
            norm2 += low.norm2();
            rank_one += usize::from(residuals[1] <= tolerance * tolerance * low.norm2());
            looked_at += 1;
        }
        let errors = left.into_iter().map(|l| if norm2 == 0.0 { 0.0 } else { (l / norm2).sqrt() }).collect();
        Ok(PairRanks { errors, rank_one: rank_one as f64 / looked_at.max(1) as f64, pairs: [looked_at, all] })
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::tests::layer;
    use super::*;
    use lehr_ir::DType;
    use lehr_ir::tensor::seeded;

    fn noise(shape: &[usize], seed: u64) -> Vec<f64> {
        seeded(DType::F64, shape.to_vec(), seed).to_f64()
    }

    fn of(s: &Separability, scheme: Scheme) -> &Separation {
        s.schemes.iter().find(|x| x.scheme == scheme).unwrap()
    }

    fn analysed(layer: &ConvLayer) -> Separability {
        Separability::new(layer, &Options::default()).unwrap()
    }

    #[test]
    fn one_rank_one_kernel_is_separated_exactly() {
        let sobel = [1., 2., 1., 0., 0., 0., -1., -2., -1.];
        let weights = Tensor::from_f64(DType::F32, vec![1, 1, 3, 3], sobel);
        let s = analysed(&layer(weights, [1, 8, 7], [1, 0, 2, 1], 2, 1));
        assert_eq!(s.pairs.rank_one, 1.0);
        let found = of(&s, Scheme::ColumnsRows);
        assert_eq!(found.chosen.width, 1);
        assert!(found.chosen.error_on_weights < 1e-7 && found.chosen.error_on_outputs.all < 1e-6, "{found:?}");
        let kernels: Vec<[usize; 2]> = found.chosen.stages.iter().map(Stage::kernel).collect();
        assert_eq!(kernels, [[3, 1], [1, 3]]);
        assert_eq!(found.chosen.cost.receptive_field, [3, 3]);
    }

    #[test]
    fn low_rank_over_channels_is_found_with_groups_strides_and_dilation() {
        // Two groups of 3 x 2 channels, each of rank 2 in (input, row) x (output, column).
        let (v, h) = (noise(&[2, 2, 2, 3], 1), noise(&[2, 2, 3, 4], 2));
        let weight = |k: usize| {
            let (g, o, i, y, x) = (k / 72, k / 24 % 3, k / 12 % 2, k / 4 % 3, k % 4);
            (0..2).map(|r| v[((g * 2 + r) * 2 + i) * 3 + y] * h[((g * 2 + r) * 3 + o) * 4 + x]).sum::<f64>()
        };
        let weights = Tensor::from_f64(DType::F64, vec![6, 2, 3, 4], (0..144).map(weight));
        let s = analysed(&layer(weights, [4, 17, 19], [2, 1, 0, 3], 2, 2));
        let found = of(&s, Scheme::ColumnsRows);
        assert_eq!(found.chosen.width, 2);
        assert!(found.chosen.error_on_weights < 1e-9 && found.chosen.error_on_outputs.all < 1e-9, "{found:?}");
        assert!(found.curve[0].error_on_weights > 0.1);
    }

    #[test]
    fn depthwise_separable_structure_is_found_in_both_orders() {
        let (d, p) = (noise(&[5, 9], 3), noise(&[6, 5], 4));
        let first = Tensor::from_f64(
            DType::F64,
            vec![6, 5, 3, 3],
            (0..270).map(|k| p[k / 45 * 5 + k / 9 % 5] * d[k / 9 % 5 * 9 + k % 9]),
        );
        let s = analysed(&layer(first, [5, 9, 9], [1; 4], 1, 1));
        let found = of(&s, Scheme::DepthwisePointwise);
        assert!(found.chosen.width == 1 && found.chosen.error_on_outputs.all < 1e-9, "{found:?}");
        assert!(of(&s, Scheme::PointwiseDepthwise).chosen.error_on_weights > 0.1);
        let (d, p) = (noise(&[6, 9], 3), noise(&[6, 5], 4));
        let last = Tensor::from_f64(
            DType::F64,
            vec![6, 5, 3, 3],
            (0..270).map(|k| p[k / 45 * 5 + k / 9 % 5] * d[k / 45 * 9 + k % 9]),
        );
        let s = analysed(&layer(last, [5, 9, 9], [1; 4], 2, 1));
        let found = of(&s, Scheme::PointwiseDepthwise);
        assert!(found.chosen.width == 1 && found.chosen.error_on_outputs.all < 1e-9, "{found:?}");
        assert_eq!(found.chosen.cost.parameters, 6 * 5 + 6 * 9);
    }

    #[test]
    fn noise_is_not_separable_and_more_rank_is_nearer() {
        let s = analysed(&layer(seeded(DType::F32, vec![6, 5, 3, 3], 3), [5, 9, 9], [1; 4], 1, 1));
        for found in &s.schemes {
            assert!(found.chosen.error_on_weights > 0.1 && found.chosen.width == found.break_even, "{found:?}");
            assert!(found.curve.is_sorted_by(|a, b| a.width < b.width && a.error_on_weights > b.error_on_weights));
            let ratio = found.chosen.error_on_outputs.all / found.chosen.error_on_weights;
            assert!((0.5..2.0).contains(&ratio), "{ratio}");
        }
        assert!((s.pairs.errors[0] - 1.0).abs() < 1e-9 && s.pairs.errors[3] < 1e-7 && s.pairs.rank_one == 0.0);
        assert_eq!(s.capped, None);
    }

    #[test]
    fn depthwise_layers_have_one_scheme_and_rows_none() {
        let s = analysed(&layer(seeded(DType::F32, vec![4, 1, 3, 3], 3), [4, 9, 9], [1; 4], 1, 1));
        assert_eq!(s.schemes.len(), 1);
        let row = layer(seeded(DType::F32, vec![4, 4, 1, 3], 3), [4, 9, 9], [0; 4], 1, 1);
        assert_eq!(Separability::new(&row, &Options::default()).err(), Some(Decline::NoMatch));
        let zeros =
            analysed(&layer(Tensor::from_f64(DType::F32, vec![2, 2, 3, 3], [0.0; 36]), [2, 5, 5], [1; 4], 1, 1));
        assert!(zeros.schemes.iter().all(|s| s.chosen.error_on_weights == 0.0 && s.chosen.error_on_outputs.all == 0.0));
    }
}
