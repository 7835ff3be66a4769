//! Mutated models: import never panics, never hangs, takes bounded memory, and what it accepts verifies. The models are
//! small real ones, changed in their bytes (cut, flipped, spliced) and in their fields (dimensions, types, names,
//! attribute values). `LEHR_FUZZ_CASES` sets the number of cases.

mod bombs;
mod common;
mod mutate;
mod seeds;

use common::load;
use lehr_frontends::onnx::{ImportOptions, Model, import};
use lehr_ir::verify;
use mutate::{mutated, peak_kib};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const CASES: u64 = 3_000;
/// One small model takes well under a millisecond; this is for a loaded machine.
const SLOW: Duration = Duration::from_secs(5);
/// Memory of the whole test process.
const MEMORY_KIB: u64 = 1 << 20;

#[test]
fn mutated_models_are_refused_or_imported() {
    let cases = std::env::var("LEHR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let seeds = seeds::models();
    for case in 0..cases {
        let bytes = mutated(&seeds, case);
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| attempt(&bytes)));
        assert!(done.is_ok(), "case {case} panics: {}", hex(&bytes));
        assert!(start.elapsed() < SLOW, "case {case} takes {:?}: {}", start.elapsed(), hex(&bytes));
    }
    let peak = peak_kib();
    assert!(peak < MEMORY_KIB, "the process took {peak} KiB");
}

#[test]
fn seed_models_import() {
    for (name, proto) in seeds::models() {
        let imported = import(&load(proto), &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let complaints = verify(&imported.graph);
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
    }
}

/// Models made to grow without bound: each is refused, or imported, within its time.
#[test]
fn bombs_do_not_go_off() {
    for (name, proto, refused) in [
        ("functions that call the next one twice", bombs::doubling_functions(40), true),
        ("a function that calls itself", bombs::doubling_functions(0), true),
        ("dimensions squared over and over", bombs::squared_dims(60), true),
        ("shapes squared over and over", bombs::squared_shapes(200), true),
        ("many nodes that need one input's value", bombs::needy_nodes(3_000), true),
        ("a node with many attributes", bombs::many_attributes(100_000), true),
        ("a long chain", bombs::chain(20_000), false),
    ] {
        let start = Instant::now();
        let result = import(&load(proto), &ImportOptions::default());
        assert!(start.elapsed() < 2 * SLOW, "{name}: {:?}", start.elapsed());
        assert_eq!(result.is_err(), refused, "{name}");
        if let Err(e) = result {
            assert!(e.to_string().len() < 1 << 20, "{name}: the complaint is too long");
        }
    }
}

fn attempt(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes.to_vec().into(), None) else { return };
    let options = ImportOptions { default_dim: bytes.len().is_multiple_of(2).then_some(2), ..ImportOptions::default() };
    match import(&model, &options) {
        Ok(imported) => assert_eq!(verify(&imported.graph), [], "what was imported does not verify"),
        Err(e) => assert!(!e.diags.is_empty() && !e.to_string().is_empty()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
