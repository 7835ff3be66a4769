//! What tuning has found, as json: in an artefact's metadata, or in a file.

use lehr_codegen::strategy::{Strategy, Tuned};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was found for the layers of one signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub signature: String,
    /// Layers of the network that have it.
    pub layers: usize,
    /// The fastest strategy, and milliseconds of these layers together.
    pub strategy: String,
    pub ms: f64,
    /// What the cost model proposed, and its time, measured in turn with the other.
    pub proposed: String,
    pub proposed_ms: f64,
    /// Others that were measured, in parts of the proposed one's time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, f64>,
}

/// All of a network's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The CPU that they were measured on, as it calls itself.
    pub cpu: String,
    pub threads: u32,
    pub layers: Vec<Record>,
}

impl Records {
    /// Without layers, for this CPU.
    pub fn new() -> Records {
        Records { cpu: cpu_name(), ..Records::default() }
    }

    /// Milliseconds of all layers as proposed, and as tuned.
    pub fn total(&self) -> (f64, f64) {
        self.layers.iter().fold((0.0, 0.0), |(a, b), r| (a + r.proposed_ms, b + r.ms))
    }

    /// For compiling.
    pub fn tuned(&self) -> Tuned {
        self.layers.iter().filter_map(|r| Some((r.signature.clone(), r.strategy.parse().ok()?))).collect()
    }

    /// From the text of a json file, or of an artefact's metadata.
    ///
    /// # Errors
    /// Text of another form; a strategy that this version of lehr does not have, with its layer's signature.
    pub fn parse(text: &str) -> Result<Records, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let records = value.get("tuned").cloned().unwrap_or(value);
        let none = |e| format!("it holds no tuned strategies ({e}); --tune makes them");
        let records: Records = serde_json::from_value(records).map_err(none)?;
        for r in &records.layers {
            r.strategy.parse::<Strategy>().map_err(|e| format!("{}: {e}", r.signature))?;
        }
        Ok(records)
    }
}

/// As the system has it; empty where it says nothing.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("model name"));
    line.and_then(|l| l.split_once(':')).map_or_else(String::new, |(_, name)| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(strategy: &str) -> Records {
        let layer = Record {
            signature: "conv a".into(),
            layers: 2,
            strategy: strategy.into(),
            ms: 1.5,
            proposed: "F(4x4,3x3) tile=14x2 band=2".into(),
            proposed_ms: 2.0,
            others: BTreeMap::new(),
        };
        Records { cpu: "a cpu".into(), threads: 1, layers: vec![layer] }
    }

    #[test]
    fn json_goes_there_and_back_alone_and_in_metadata() {
        let records = record("direct tile=14x2 channels=64 share=rows/4");
        let alone = serde_json::to_string(&records).unwrap();
        assert_eq!(Records::parse(&alone).unwrap(), records);
        let metadata = serde_json::json!({ "level": "O2", "tuned": records }).to_string();
        assert_eq!(Records::parse(&metadata).unwrap(), records);
        assert_eq!((records.total(), records.tuned().len()), ((2.0, 1.5), 1));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_layer() {
        let unknown = serde_json::to_string(&record("F(6x6,3x3) tile=14x2 band=2")).unwrap();
        let error = Records::parse(&unknown).unwrap_err();
        assert!(error.contains("conv a") && error.contains("F(6x6,3x3)"), "{error}");
        assert!(Records::parse("{}").unwrap_err().contains("--tune"));
        assert!(Records::parse("no json").is_err());
    }
}
