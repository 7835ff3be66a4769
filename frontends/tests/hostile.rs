//! Mutated models: import never panics, never hangs, takes bounded memory, and what it accepts verifies. The models are
//! small real ones, changed in their bytes (cut, flipped, spliced) and in their fields (dimensions, types, names,
//! attribute values). `LEHR_FUZZ_CASES` sets the number of cases.

mod bombs;
mod common;
mod seeds;

use common::load;
use lehr_frontends::onnx::proto::*;
use lehr_frontends::onnx::{ImportOptions, Model, import};
use lehr_ir::verify;
use prost::Message;
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
        let mut dice = Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6c65_6872);
        let bytes = mutated(&seeds, &mut dice);
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

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.below(list.len())) }
    }

    /// Numbers at which arithmetic goes wrong.
    fn number(&mut self) -> i64 {
        const AWKWARD: &[i64] = &[
            0,
            1,
            -1,
            2,
            3,
            7,
            13,
            -2,
            -7,
            64,
            255,
            1 << 16,
            1 << 31,
            (1 << 31) - 1,
            -(1 << 31),
            1 << 40,
            1 << 62,
            i64::MAX,
            i64::MIN,
        ];
        AWKWARD[self.below(AWKWARD.len())]
    }
}

fn mutated(seeds: &[(&str, ModelProto)], dice: &mut Dice) -> Vec<u8> {
    let mut proto = seeds[dice.below(seeds.len())].1.clone();
    if dice.below(3) > 0 {
        for _ in 0..=dice.below(3) {
            change_field(&mut proto, dice);
        }
    }
    let mut bytes = proto.encode_to_vec();
    match dice.below(6) {
        0 => bytes.truncate(dice.below(bytes.len())),
        1 => {
            for _ in 0..=dice.below(4) {
                let at = dice.below(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        2 => {
            let other = seeds[dice.below(seeds.len())].1.encode_to_vec();
            let (from, to) = (dice.below(other.len()), dice.below(bytes.len()));
            let len = dice.below(64).min(other.len() - from);
            bytes.splice(to..(to + dice.below(32)).min(bytes.len()), other[from..from + len].iter().copied());
        }
        _ => {}
    }
    bytes
}

fn change_field(proto: &mut ModelProto, dice: &mut Dice) {
    if dice.below(12) == 0 {
        if let Some(import) = proto.opset_import.first_mut() {
            import.version = if dice.below(4) == 0 { dice.number() } else { 1 + dice.below(29) as i64 };
        }
        return;
    }
    let Some(graph) = &mut proto.graph else { return };
    match dice.below(8) {
        0 => change_tensor(&mut graph.initializer, dice),
        1 | 2 => change_type(&mut graph.input, dice),
        3 => change_names(graph, dice),
        4 => {
            let ops: Vec<String> = graph.node.iter().map(|n| n.op_type.clone()).collect();
            let at = dice.below(graph.node.len());
            if let (Some(node), Some(op)) = (graph.node.get_mut(at), dice.pick(&ops)) {
                node.op_type = op.clone();
            }
        }
        5 if !graph.node.is_empty() => {
            let copy = graph.node[dice.below(graph.node.len())].clone();
            let at = dice.below(graph.node.len());
            graph.node.insert(at, copy);
        }
        _ => {
            let at = dice.below(graph.node.len());
            if let Some(node) = graph.node.get_mut(at) {
                change_attribute(&mut node.attribute, dice);
            }
        }
    }
}

fn change_tensor(tensors: &mut [TensorProto], dice: &mut Dice) {
    let at = dice.below(tensors.len());
    let Some(t) = tensors.get_mut(at) else { return };
    match dice.below(5) {
        0 => t.data_type = dice.below(30) as i32,
        1 => t.dims.push(dice.number()),
        2 => drop(t.dims.pop()),
        3 => {
            // A list of numbers keeps its length and changes its contents: shapes, pads and axes are such lists.
            let mut raw = t.raw_data.clone().unwrap_or_default().to_vec();
            if raw.len() >= 8 {
                let at = dice.below(raw.len() / 8) * 8;
                raw[at..at + 8].copy_from_slice(&dice.number().to_le_bytes());
            }
            t.raw_data = Some(raw.into());
        }
        _ => {
            let at = dice.below(t.dims.len());
            let n = dice.number();
            if let Some(d) = t.dims.get_mut(at) {
                *d = n;
            }
        }
    }
}

fn change_type(values: &mut [ValueInfoProto], dice: &mut Dice) {
    let at = dice.below(values.len());
    let Some(ty) = values.get_mut(at).and_then(|v| v.r#type.as_mut()) else { return };
    let Some(type_proto::Value::TensorType(t)) = &mut ty.value else { return };
    if dice.below(4) == 0 {
        t.elem_type = dice.below(30) as i32;
        return;
    }
    let dims = &mut t.shape.get_or_insert_default().dim;
    let text = dice.number().to_string();
    let new = common::dim(["n", "m", "?", "7", &text][dice.below(5)]);
    match dice.below(3) {
        0 => dims.push(new),
        1 => drop(dims.pop()),
        _ => {
            let at = dice.below(dims.len());
            if let Some(d) = dims.get_mut(at) {
                *d = new;
            }
        }
    }
}

fn change_names(graph: &mut GraphProto, dice: &mut Dice) {
    let names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|n| n.input.iter().chain(&n.output).cloned())
        .chain([String::new(), "elsewhere".into()])
        .collect();
    let at = dice.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let list = if dice.below(3) > 0 { &mut node.input } else { &mut node.output };
    let name = names[dice.below(names.len())].clone();
    match dice.below(4) {
        0 => list.push(name),
        1 => drop(list.pop()),
        _ => {
            let at = dice.below(list.len());
            if let Some(slot) = list.get_mut(at) {
                *slot = name;
            }
        }
    }
}

fn change_attribute(list: &mut Vec<AttributeProto>, dice: &mut Dice) {
    let at = dice.below(list.len());
    let Some(a) = list.get_mut(at) else { return };
    let n = dice.number();
    match dice.below(8) {
        0 => drop(list.remove(at)),
        1 => a.r#type = dice.below(16) as i32,
        2 => a.f = [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN, 1e-40][dice.below(6)],
        3 => a.ints.push(n),
        4 => drop(a.ints.pop()),
        5 => a.s = ["", "SAME_UPPER", "VALID", "reflect", "cubic", "ij,jk->ik", "\u{fffd}"][dice.below(7)].into(),
        _ => {
            a.i = n;
            let at = dice.below(a.ints.len());
            if let Some(v) = a.ints.get_mut(at) {
                *v = n;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The most memory this process had, as Linux tells it; 0 elsewhere.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
