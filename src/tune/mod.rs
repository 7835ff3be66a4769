//! Finds the fastest strategy of every layer by measuring, and keeps what was found.
//!
//! ```text
//! best = what the cost model chooses
//! until the time is over, or nothing new is faster:
//!     for each strategy next to the best of a layer that was not tried yet        (all layers at once, one program for each)
//!         run the program with it and the best one in turn                        times by layer, in their place in the network
//!     best = of each signature the fastest, if it is beyond noise
//! once more: best and the cost model's in turn; what does not hold is dropped
//! ```
//!
//! Layers are measured inside the whole network, because that decides what is in the caches: at batch 1 the weights never are.
//! Layers of one signature are computed alike, and their times are added.

mod network;
mod record;

pub use record::{Record, Records};

use crate::{CompileError, CompileOptions, optimize_with};
use lehr_codegen::strategy::{Decision, Strategy, Tuned};
use lehr_ir::graph::Graph;
use network::Network;
use std::collections::{BTreeMap, BTreeSet};

/// A strategy must be so much faster than another to take its place: two programs of the same strategies differ by up to 3 %, by
/// where their data lies.
const MIN_GAIN: f64 = 0.03;
/// Differences below so many standard errors are noise.
const ERRORS: f64 = 2.5;
/// Neighbours of neighbours: a strategy may be found in so many steps.
const MAX_ROUNDS: usize = 4;

/// Times of each signature's layers together, a number for each run, of two programs that ran in turn.
struct Pair {
    base: BTreeMap<String, Vec<f64>>,
    other: BTreeMap<String, Vec<f64>>,
}

/// What is tuned.
trait Bench {
    /// What is decided for each layer with these strategies.
    fn decide(&mut self, tuned: &Tuned) -> Result<Vec<Decision>, CompileError>;
    /// Runs two programs in turn.
    fn pair(&mut self, base: &Tuned, other: &Tuned) -> Result<Pair, CompileError>;
    /// Whether there is time for more.
    fn has_time(&self) -> bool;
}

/// Tunes a model on one thread.
///
/// # Errors
/// What the passes or the lowering find, open dimensions among it.
pub fn tune_model(graph: Graph, options: &CompileOptions, seconds: f64) -> Result<Records, CompileError> {
    let (graph, _) = optimize_with(graph, options)?;
    tune(&mut Network::new(graph, options, 1, seconds))
}

/// Measures until the time is over.
fn tune(bench: &mut dyn Bench) -> Result<Records, CompileError> {
    let first = bench.decide(&Tuned::new())?;
    let proposed: Tuned = first.iter().map(|d| (d.signature.clone(), d.chosen.strategy)).collect();
    let mut best = proposed.clone();
    let mut tried: BTreeSet<(String, String)> = BTreeSet::new();
    let mut seen: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    // Of the best strategies, in parts of the proposed ones' times.
    let mut level: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let mut open = untried(&bench.decide(&best)?, &mut tried);
        let mut won: BTreeMap<String, (f64, Strategy)> = BTreeMap::new();
        while !open.is_empty() && bench.has_time() {
            let mut variant = best.clone();
            for (signature, strategies) in &mut open {
                if let Some(s) = strategies.pop() {
                    variant.insert(signature.clone(), s);
                }
            }
            open.retain(|_, strategies| !strategies.is_empty());
            let pair = bench.pair(&best, &variant)?;
            for (signature, strategy) in &variant {
                if best.get(signature) == Some(strategy) {
                    continue;
                }
                let all = ratios(&pair, signature).map(|r| middle(&r));
                let level = level.get(signature).copied().unwrap_or(1.0);
                seen.entry(signature.clone())
                    .or_default()
                    .extend(all.map(|r| (strategy.to_string(), rounded(r * level))));
                let Some(ratio) = gain(&pair, signature) else { continue };
                let known = won.get(signature).map_or(1.0, |(r, _)| *r);
                if ratio < known {
                    won.insert(signature.clone(), (ratio, *strategy));
                }
            }
        }
        if won.is_empty() {
            break;
        }
        for (signature, (ratio, _)) in &won {
            *level.entry(signature.clone()).or_insert(1.0) *= ratio;
        }
        best.extend(won.into_iter().map(|(signature, (_, strategy))| (signature, strategy)));
    }
    let mut records = confirm(bench, &first, &proposed, best)?;
    records.threads = 1;
    for r in &mut records.layers {
        r.others = seen.remove(&r.signature).unwrap_or_default();
        r.others.remove(&r.strategy);
    }
    Ok(records)
}

/// Strategies next to those that are used, by signature; the most promising one is the last.
fn untried(decisions: &[Decision], tried: &mut BTreeSet<(String, String)>) -> BTreeMap<String, Vec<Strategy>> {
    let mut open: BTreeMap<String, Vec<Strategy>> = BTreeMap::new();
    for d in decisions {
        tried.insert((d.signature.clone(), d.chosen.strategy.to_string()));
    }
    for d in decisions {
        let new = d.others.iter().filter(|w| tried.insert((d.signature.clone(), w.strategy.to_string())));
        open.entry(d.signature.clone()).or_default().extend(new.map(|w| w.strategy));
    }
    open.values_mut().for_each(|strategies| strategies.reverse());
    open.retain(|_, strategies| !strategies.is_empty());
    open
}

/// The other program's time in parts of the base's, if it is faster beyond noise.
fn gain(pair: &Pair, signature: &str) -> Option<f64> {
    let ratios = ratios(pair, signature)?;
    let (middle, error) = (middle(&ratios), error(&ratios));
    (middle < 1.0 - MIN_GAIN.max(ERRORS * error)).then_some(middle)
}

/// To a few digits, which come back from json as they were.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Run by run.
fn ratios(pair: &Pair, signature: &str) -> Option<Vec<f64>> {
    let (base, other) = (pair.base.get(signature)?, pair.other.get(signature)?);
    let ratios: Vec<f64> = base.iter().zip(other).filter(|(b, _)| **b > 0.0).map(|(b, o)| o / b).collect();
    (!ratios.is_empty()).then_some(ratios)
}

fn middle(values: &[f64]) -> f64 {
    crate::profiled::median(values.to_vec())
}

/// The standard error of the median, from the median deviation: outliers, which a shared machine has, say nothing.
fn error(values: &[f64]) -> f64 {
    let m = middle(values);
    let deviation = middle(&values.iter().map(|v| (v - m).abs()).collect::<Vec<_>>());
    1.25 * 1.48 * deviation / (values.len() as f64).sqrt()
}

/// Of many that are tried the luckiest seems the fastest; so all that were chosen are measured again, and only what holds is kept.
fn confirm(bench: &mut dyn Bench, first: &[Decision], proposed: &Tuned, best: Tuned) -> Result<Records, CompileError> {
    let pair = bench.pair(proposed, &best)?;
    let mut records = Records::new();
    for (signature, strategy) in &best {
        let layers: Vec<&Decision> = first.iter().filter(|d| d.signature == *signature).collect();
        let Some(decision) = layers.first() else { continue };
        let keep = decision.chosen.strategy == *strategy || gain(&pair, signature).is_some();
        let ms = |times: &BTreeMap<String, Vec<f64>>| rounded(times.get(signature).map_or(0.0, |t| middle(t)));
        let proposed_ms = ms(&pair.base);
        records.layers.push(Record {
            signature: signature.clone(),
            layers: layers.len(),
            strategy: if keep { *strategy } else { decision.chosen.strategy }.to_string(),
            ms: if keep { ms(&pair.other) } else { proposed_ms },
            proposed: decision.chosen.strategy.to_string(),
            proposed_ms,
            others: BTreeMap::new(),
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lehr_codegen::strategy::{Direct, Share, Weighed};
    use lehr_ir::NodeId;

    fn strategy(channels: usize) -> Strategy {
        let tile = lehr_codegen::strategy::Cut { pixels: 14, blocks: 2 };
        Strategy::Direct(Direct { tile, channels, share: Share::Rows(4), prefetch: false })
    }

    /// Layers by signature, whose strategies are numbers of channels; a neighbour is twice or half as many. `time` gives the time of a
    /// strategy in a pair, by the pair's number.
    struct Fake<'f> {
        layers: Vec<(&'static str, usize)>,
        time: &'f dyn Fn(&str, usize, usize) -> f64,
        pairs: usize,
        most: usize,
    }

    impl Fake<'_> {
        fn channels(&self, tuned: &Tuned, signature: &str, proposed: usize) -> usize {
            match tuned.get(signature) {
                Some(Strategy::Direct(d)) => d.channels,
                Some(Strategy::Winograd(_) | Strategy::Gathered(_)) => panic!("there is no such strategy here"),
                None => proposed,
            }
        }

        fn times(&self, tuned: &Tuned) -> BTreeMap<String, Vec<f64>> {
            let one = |(signature, proposed): &(&'static str, usize)| {
                let ms = (self.time)(signature, self.channels(tuned, signature, *proposed), self.pairs);
                // A little noise, and an outlier.
                let runs = (0..9).map(|k| if k == 4 { 10.0 * ms } else { ms * (1.0 + 0.002 * f64::from(k % 3)) });
                (signature.to_string(), runs.collect())
            };
            self.layers.iter().map(one).collect()
        }
    }

    impl Bench for Fake<'_> {
        fn decide(&mut self, tuned: &Tuned) -> Result<Vec<Decision>, CompileError> {
            let weigh = |channels: usize| Weighed { strategy: strategy(channels), cycles: channels as f64 };
            let one = |(at, (signature, proposed)): (usize, &(&'static str, usize))| {
                let now = self.channels(tuned, signature, *proposed);
                Decision {
                    node: NodeId(at as u32),
                    signature: signature.to_string(),
                    chosen: weigh(now),
                    unfit: None,
                    others: [now / 2, now * 2].into_iter().filter(|c| (16..=512).contains(c)).map(weigh).collect(),
                    excluded: vec![],
                }
            };
            Ok(self.layers.iter().enumerate().map(one).collect())
        }

        fn pair(&mut self, base: &Tuned, other: &Tuned) -> Result<Pair, CompileError> {
            self.pairs += 1;
            Ok(Pair { base: self.times(base), other: self.times(other) })
        }

        fn has_time(&self) -> bool {
            self.pairs < self.most
        }
    }

    fn run(layers: &[(&'static str, usize)], most: usize, time: &dyn Fn(&str, usize, usize) -> f64) -> Records {
        tune(&mut Fake { layers: layers.to_vec(), time, pairs: 0, most }).unwrap()
    }

    #[test]
    fn the_fastest_is_found_step_by_step() {
        // The best is 32 channels, two steps away; b is best as it is.
        let time = |signature: &str, channels: usize, _: usize| match signature {
            "a" => 1.0 + 0.2 * (channels as f64 / 32.0).log2().abs(),
            _ => 1.0 + 0.2 * (channels as f64 / 64.0).log2().abs(),
        };
        let records = run(&[("a", 128), ("b", 64)], 100, &time);
        let texts: Vec<&str> = records.layers.iter().map(|r| r.strategy.as_str()).collect();
        assert_eq!(texts, [strategy(32).to_string(), strategy(64).to_string()]);
        let a = &records.layers[0];
        assert_eq!((a.proposed.as_str(), a.layers), (strategy(128).to_string().as_str(), 1));
        assert!((a.proposed_ms / a.ms - 1.4).abs() < 1e-6, "{a:?}");
        // What was seen on the way is in parts of the proposed one's time, whatever it was measured against.
        let seen = a.others[&strategy(16).to_string()];
        assert!((seen - 1.2 / 1.4).abs() < 0.01, "{a:?}");
        assert_eq!(records.tuned()["a"], strategy(32));
    }

    #[test]
    fn differences_within_noise_change_nothing() {
        let time = |_: &str, channels: usize, _: usize| if channels == 64 { 1.0 } else { 0.98 };
        assert_eq!(run(&[("a", 64)], 100, &time).layers[0].strategy, strategy(64).to_string());
    }

    #[test]
    fn luck_that_does_not_come_again_is_dropped() {
        // Faster once, when it is tried; not in what is measured at the end.
        let time = |_: &str, channels: usize, pair: usize| if channels == 32 && pair < 3 { 0.5 } else { 1.0 };
        let records = run(&[("a", 64)], 2, &time);
        assert_eq!(
            (records.layers[0].strategy.as_str(), records.layers[0].ms),
            (strategy(64).to_string().as_str(), 1.002)
        );
    }

    #[test]
    fn without_time_the_proposed_ones_stay() {
        let records = run(&[("a", 64), ("a", 64)], 0, &|_, channels, _| channels as f64);
        assert_eq!((records.layers.len(), records.layers[0].layers), (1, 2));
        assert_eq!(records.layers[0].strategy, strategy(64).to_string());
    }
}
