//! Why a layer is computed as it is: what was weighed, and what was said against the rest.

use crate::CompileOptions;
use crate::compile::Numerics;
use crate::tune::Record;
use lehr_codegen::strategy::{Decision, Weighed};
use lehr_passes::OptLevel;
use serde::{Deserialize, Serialize};

/// Predictions of one layer that are nearer to one another than this say nothing.
const UNSURE: f64 = 1.05;

/// How a layer is computed for which there was a choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Layers of one signature are computed alike.
    pub signature: String,
    /// Algorithm, tile and blocking: `direct tile=14x2 channels=256 share=rows/16 prefetch`.
    pub strategy: String,
    /// Whether it was measured to be the fastest (--tuned), instead of predicted.
    pub tuned: bool,
    /// The tuned strategy that is not used, and why: `F(4x4,3x3) tile=14x2 band=2: ...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    pub rejected: Vec<Rejected>,
}

/// Another way to compute it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    pub strategy: String,
    pub predicted_ms: f64,
    pub reason: String,
}

impl Choice {
    pub fn of(d: &Decision, options: &CompileOptions, cycles_per_ms: f64) -> Choice {
        let record = options.tuned.as_ref().and_then(|r| r.layers.iter().find(|l| l.signature == d.signature));
        let record = record.filter(|r| r.strategy == d.chosen.strategy.to_string());
        let rejected = |w: &Weighed, reason: String| Rejected {
            strategy: w.strategy.to_string(),
            predicted_ms: w.cycles / cycles_per_ms,
            reason,
        };
        let others = d.others.iter().map(|w| rejected(w, against(w, d, record)));
        let excluded = d.excluded.iter().map(|w| rejected(w, exclusion(options)));
        Choice {
            signature: d.signature.clone(),
            strategy: d.chosen.strategy.to_string(),
            tuned: record.is_some(),
            unfit: d.unfit.as_ref().map(|u| format!("{}: {}", u.strategy, u.why)),
            rejected: others.chain(excluded).collect(),
        }
    }

    /// The first word of a strategy.
    pub fn algorithm(strategy: &str) -> &str {
        strategy.split(' ').next().unwrap_or(strategy)
    }
}

/// What speaks against a strategy: a measurement if there is one, else the prediction.
fn against(w: &Weighed, d: &Decision, record: Option<&Record>) -> String {
    let name = w.strategy.to_string();
    let measured = record.and_then(|r| {
        let proposed = (r.proposed == name).then_some(1.0);
        let of_proposed = proposed.or_else(|| r.others.get(&name).copied())?;
        Some(of_proposed * r.proposed_ms / r.ms)
    });
    let ratio = w.cycles / d.chosen.cycles;
    match measured {
        Some(ratio) => format!("measured {ratio:.2} times as long"),
        None if ratio < UNSURE => format!("predicted {ratio:.2} times as long: too near to tell, --tune measures it"),
        None => format!("predicted {ratio:.2} times as long"),
    }
}

fn exclusion(options: &CompileOptions) -> String {
    match (options.level, options.numerics) {
        (OptLevel::Os, _) => "-Os: its weights are larger".into(),
        (OptLevel::O2, Numerics::Strict) => "--numerics strict: it rounds more".into(),
        (level, _) => format!("not at -{level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::Records;
    use lehr_codegen::strategy::Unfit;
    use lehr_ir::NodeId;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn weighed(strategy: &str, cycles: f64) -> Weighed {
        Weighed { strategy: strategy.parse().unwrap(), cycles }
    }

    fn decision() -> Decision {
        Decision {
            node: NodeId(7),
            signature: "conv a".into(),
            chosen: weighed("direct tile=14x2 channels=64 share=rows/8", 2e6),
            unfit: None,
            others: vec![
                weighed("direct tile=9x3 channels=64 share=rows/8", 2.02e6),
                weighed("F(2x2,3x3) tile=9x3 band=all", 3e6),
            ],
            excluded: vec![weighed("F(4x4,3x3) tile=14x2 band=all", 1e6)],
        }
    }

    #[test]
    fn each_rejection_has_its_reason() {
        let mut options = CompileOptions { numerics: Numerics::Strict, ..CompileOptions::default() };
        let choice = Choice::of(&decision(), &options, 1e6);
        let reasons: Vec<&str> = choice.rejected.iter().map(|r| r.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "predicted 1.01 times as long: too near to tell, --tune measures it",
                "predicted 1.50 times as long",
                "--numerics strict: it rounds more"
            ]
        );
        assert_eq!((choice.tuned, choice.rejected[1].predicted_ms), (false, 3.0));
        options.level = OptLevel::Os;
        assert_eq!(Choice::of(&decision(), &options, 1e6).rejected[2].reason, "-Os: its weights are larger");
    }

    #[test]
    fn what_was_measured_is_said_instead() {
        let mut record = Record {
            signature: "conv a".into(),
            layers: 1,
            strategy: "direct tile=14x2 channels=64 share=rows/8".into(),
            ms: 2.0,
            proposed: "F(2x2,3x3) tile=9x3 band=all".into(),
            proposed_ms: 3.0,
            others: BTreeMap::from([("direct tile=9x3 channels=64 share=rows/8".into(), 0.8)]),
        };
        let with = |r: &Record| {
            let tuned = Some(Arc::new(Records { layers: vec![r.clone()], ..Records::default() }));
            Choice::of(&decision(), &CompileOptions { tuned, ..CompileOptions::default() }, 1e6)
        };
        let choice = with(&record);
        assert!(choice.tuned);
        assert_eq!(choice.rejected[0].reason, "measured 1.20 times as long");
        assert_eq!(choice.rejected[1].reason, "measured 1.50 times as long");
        // A record that the layer could not use says nothing of it.
        record.strategy = "direct tile=6x4 channels=64 share=rows/8".into();
        assert!(!with(&record).tuned);
        let unfit = Some(Unfit { strategy: record.strategy.parse().unwrap(), why: "it has three rows".into() });
        let choice = Choice::of(&Decision { unfit, ..decision() }, &CompileOptions::default(), 1e6);
        assert_eq!(choice.unfit.as_deref(), Some("direct tile=6x4 channels=64 share=rows/8: it has three rows"));
    }
}
