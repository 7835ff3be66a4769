//! Losses.

use super::{How::Own, MAX, Row, row};
use crate::onnx::site::{Result, Site};
use lehr_ir::ValueId;
use lehr_ir::ops::{LossReduction, NllLoss, SoftmaxCrossEntropy};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator                     opsets     operands importer
    row("NegativeLogLikelihoodLoss", (12, MAX), (2, 3), Own(nll_loss)),
    row("SoftmaxCrossEntropyLoss",   (12, MAX), (2, 3), Own(softmax_cross_entropy)),
];

fn reduction(site: &mut Site) -> Result<LossReduction> {
    let words = [("none", LossReduction::None), ("sum", LossReduction::Sum), ("mean", LossReduction::Mean)];
    site.attrs.keyword("reduction", LossReduction::Mean, &words)
}

fn nll_loss(site: &mut Site) -> Result<Vec<ValueId>> {
    let op = NllLoss { reduction: reduction(site)?, ignore_index: site.attrs.opt_int("ignore_index")? };
    let operands = [Some(site.x(0)?), Some(site.x(1)?), site.opt(2)];
    Ok(vec![site.node(op, &operands)?.out(0)])
}

fn softmax_cross_entropy(site: &mut Site) -> Result<Vec<ValueId>> {
    let op = SoftmaxCrossEntropy { reduction: reduction(site)?, ignore_index: site.attrs.opt_int("ignore_index")? };
    let operands = [Some(site.x(0)?), Some(site.x(1)?), site.opt(2)];
    let id = site.node(op, &operands)?;
    Ok(vec![id.out(0), id.out(1)])
}
