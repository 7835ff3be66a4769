//! What the approximate rules need from outside: how far results may be off, and somebody who measures times. Rules that
//! change numbers are in no pipeline by default; they fire where the error is small enough and the time is shorter.

use crate::analysis::{Candidate, ConvLayer, Options, Stage};
use crate::report::short;
use crate::rewrite::Cx;
use crate::rule::{Decline, Outcome, declined, replace};
use lehr_ir::{Graph, NodeId};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A replacement must be so many times as fast: below, noise would decide.
const MIN_SPEEDUP: f64 = 1.05;

/// What takes so many times the multiply-adds or more is not worth measuring: Winograd's algorithm, which small kernels have over
/// large ones, saves less.
const MAX_WORK: f64 = 2.0;

/// Times of two graphs with the same inputs and outputs, measured in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    pub before: Duration,
    pub after: Duration,
}

impl Timing {
    /// How many times as fast the second graph is.
    pub fn speedup(&self) -> f64 {
        self.before.as_secs_f64() / self.after.as_secs_f64()
    }
}

/// Compiles and runs graphs, which this crate cannot.
pub trait Judge {
    /// # Errors
    /// Why they cannot be measured; the rule then declines.
    fn time(&mut self, before: &Graph, after: &Graph) -> Result<Timing, String>;
}

/// Leave to approximate.
pub struct Approximation {
    /// The tolerance in it bounds the relative error on the weights and on the outputs of each layer.
    pub options: Options,
    judge: Box<dyn Judge>,
    /// What is settled, so that further sweeps neither search nor measure again.
    declined: HashMap<(NodeId, &'static str), Decline>,
    /// Nodes that approximate something already: errors must not add up.
    made: HashSet<NodeId>,
}

impl Approximation {
    pub fn new(options: Options, judge: impl Judge + 'static) -> Approximation {
        Approximation { options, judge: Box::new(judge), declined: HashMap::new(), made: HashSet::new() }
    }

    /// Times a chain beside the layer it may replace.
    ///
    /// # Errors
    /// Why they cannot be measured.
    pub fn time(&mut self, layer: &ConvLayer, stages: &[Stage]) -> Result<Timing, String> {
        time(self.judge.as_mut(), layer, stages)
    }
}

/// Times a chain beside the layer it may replace, on one image.
///
/// # Errors
/// Why they cannot be measured.
pub fn time(judge: &mut dyn Judge, layer: &ConvLayer, stages: &[Stage]) -> Result<Timing, String> {
    let graph = |stages: &[Stage]| layer.chain_graph(stages, layer.input_type()).map_err(|d| d.to_string());
    judge.time(&graph(std::slice::from_ref(&layer.stage))?, &graph(stages)?)
}

/// Runs an approximate rule at a convolution, once per node: `find` gives candidates by falling preference, each with what to call it.
pub(crate) fn try_approximate(
    cx: &mut Cx,
    id: NodeId,
    rule: &'static str,
    layer: &ConvLayer,
    find: impl FnOnce(&Options) -> Result<Vec<(String, Candidate)>, Decline>,
) -> Outcome {
    let Some(approximation) = cx.approximation() else {
        declined!("how far results may be off is not given (--approximate)");
    };
    if approximation.made.contains(&id) {
        return Err(Decline::NoMatch);
    }
    if let Some(decline) = approximation.declined.get(&(id, rule)) {
        return Err(decline.clone());
    }
    let chosen = find(&approximation.options).and_then(|found| judged(approximation, layer, found));
    let (what, candidate) = match chosen {
        Ok(chosen) => chosen,
        Err(decline) => {
            approximation.declined.insert((id, rule), decline.clone());
            return Err(decline);
        }
    };
    let bias = cx.operand(id, 2);
    let origins = cx.origins(&[id]);
    let mut x = cx.x(id, 0);
    let last = candidate.stages.len().saturating_sub(1);
    for (k, stage) in candidate.stages.into_iter().enumerate() {
        let w = cx.add_tensor(stage.weights);
        let mut inputs = vec![Some(x), Some(w)];
        if k == last && bias.is_some() {
            inputs.push(bias);
        }
        let node = cx.add(stage.conv, &inputs, origins.clone())?;
        if let Some(approximation) = cx.approximation() {
            approximation.made.insert(node);
        }
        x = node.out(0);
    }
    cx.note(what);
    replace(id.out(0), x)
}

/// The first candidate that is near enough and faster, described; or why there is none, for each.
fn judged(
    approximation: &mut Approximation,
    layer: &ConvLayer,
    candidates: Vec<(String, Candidate)>,
) -> Result<(String, Candidate), Decline> {
    let mut reasons = vec![];
    for (what, candidate) in candidates {
        match verdict(approximation, layer, &candidate) {
            Ok(good) => return Ok((format!("{what}: {good}"), candidate)),
            Err(why) => reasons.push(format!("{what}: {why}")),
        }
    }
    Err(Decline::Reason(reasons.join("; ")))
}

fn verdict(approximation: &mut Approximation, layer: &ConvLayer, candidate: &Candidate) -> Result<String, String> {
    let tolerance = approximation.options.tolerance;
    let (weights, outputs) = (candidate.error_on_weights, candidate.error_on_outputs.all);
    if weights > tolerance {
        return Err(format!("error {} > {tolerance} on the weights", short(weights)));
    }
    // Outputs may be wrong by more than the weights are; NaN is no agreement.
    if outputs.is_nan() || outputs > tolerance {
        return Err(format!("error {} > {tolerance} on outputs", short(outputs)));
    }
    let before = layer.cost().map_err(|_| "its cost is not known".to_string())?;
    let work = candidate.cost.multiply_adds as f64 / before.multiply_adds as f64;
    if work >= MAX_WORK {
        return Err(format!("it takes {work:.2} times the multiply-adds"));
    }
    let timing = approximation.time(layer, &candidate.stages).map_err(|why| format!("it cannot be measured: {why}"))?;
    let speedup = timing.speedup();
    if speedup < MIN_SPEEDUP {
        return Err(format!("measured {speedup:.2} times as fast, with {work:.2} times the multiply-adds"));
    }
    Ok(format!(
        "error {} on weights, {} on outputs; {speedup:.2} times as fast, with {work:.2} times the multiply-adds",
        short(weights),
        short(outputs)
    ))
}
