//! Strategies that the cost model does not choose, forced by records as if a tuner had measured them.

use crate::choices::Choices;
use lehr::tune::{Record, Records};
use lehr::{CompileOptions, OptLevel};
use lehr_codegen::strategy::{Cut, Decision, Strategy};
use lehr_ir::Graph;
use std::collections::BTreeMap;
use std::sync::Arc;

/// With Winograd's algorithm wherever it can be used, whether it pays or not, on the CPU of the options.
pub fn by_winograd(g: &Graph, options: CompileOptions) -> CompileOptions {
    let program = lehr::lower(g.clone(), &options).unwrap_or_else(|e| panic!("{e}"));
    let record = |d: &Decision| {
        let strategy = strategies(d).find(|s| s.algorithm().is_some())?;
        Some(forced(d, strategy))
    };
    let layers = program.decisions.iter().filter_map(record).collect();
    CompileOptions { tuned: Some(Arc::new(Records { layers, ..Records::default() })), ..options }
}

/// With any strategy that is known for each layer, mostly Winograd's algorithm, and then with tiles and bands of any size, which may
/// not fit: on both instruction sets.
pub fn by_choice(g: &Graph, choices: &[u8]) -> CompileOptions {
    let mut c = Choices::new(choices);
    let mut layers: BTreeMap<String, Record> = BTreeMap::new();
    for round in 0..2 {
        let records = Records { layers: layers.values().cloned().collect(), ..Records::default() };
        let tuned = Some(Arc::new(records));
        for cpu in ["x86-64-v4", "x86-64-v3"] {
            let (cpu, tuned) = (cpu.to_string(), tuned.clone());
            let options = CompileOptions { cpu, tuned, level: OptLevel::O2, ..CompileOptions::default() };
            let program = lehr::lower(g.clone(), &options).unwrap_or_else(|e| panic!("{e}"));
            for d in &program.decisions {
                let mut all: Vec<Strategy> = strategies(d).collect();
                // What Winograd's algorithm is for keeps to it, so that tiles get their turn.
                if all.iter().any(|s| s.algorithm().is_some()) && c.below(8) > 0 {
                    all.retain(|s| s.algorithm().is_some());
                }
                let chosen = all[c.below(all.len())];
                let strategy = if round == 1 { recut(chosen, &mut c) } else { chosen };
                layers.insert(d.signature.clone(), forced(d, strategy));
            }
        }
    }
    let tuned = Some(Arc::new(Records { layers: layers.into_values().collect(), ..Records::default() }));
    CompileOptions { tuned, ..CompileOptions::default() }
}

fn strategies(d: &Decision) -> impl Iterator<Item = Strategy> {
    [&d.chosen].into_iter().chain(&d.others).map(|w| w.strategy)
}

fn recut(strategy: Strategy, c: &mut Choices) -> Strategy {
    let mut any = |tile: Cut| if c.flag() { Cut { pixels: 1 + c.below(14), blocks: 1 + c.below(3) } } else { tile };
    match strategy {
        Strategy::Winograd(mut w) => {
            w.tile = any(w.tile);
            w.band = [w.band, None, Some(1), Some(2), Some(3), Some(5)][c.below(6)];
            w.into()
        }
        Strategy::Direct(mut d) => {
            d.tile = any(d.tile);
            d.channels = if c.flag() { 1 + c.below(70) } else { d.channels };
            d.into()
        }
        Strategy::Gathered(mut g) => {
            g.chunks = if c.flag() { 1 + c.below(20) } else { g.chunks };
            g.into()
        }
    }
}

fn forced(d: &Decision, strategy: Strategy) -> Record {
    let (signature, strategy) = (d.signature.clone(), strategy.to_string());
    let proposed = strategy.clone();
    Record { signature, layers: 1, strategy, ms: 1.0, proposed, proposed_ms: 1.0, others: BTreeMap::new() }
}
