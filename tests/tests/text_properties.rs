//! The parser is total, and the text form says all there is: properties over random and mutated text.

use lehr_ir::tensor::{Tensor, seeded};
use lehr_ir::{DType, Dim, Graph, text, verify};
use proptest::prelude::*;
use std::sync::OnceLock;

fn weight(name: &str) -> Option<Tensor> {
    let n: usize = name.strip_prefix("seeded.")?.parse().ok()?;
    (n < 1000).then(|| seeded(DType::F32, vec![n], n as u64))
}

/// The file tests, as material to mutate.
fn corpus() -> &'static [String] {
    static CORPUS: OnceLock<Vec<String>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/filetests");
        let dirs = std::fs::read_dir(root).expect("the file tests").map(|d| d.expect("an entry").path());
        let files = dirs.flat_map(|d| std::fs::read_dir(d).expect("a directory").map(|f| f.expect("an entry").path()));
        let mut paths: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "lehr")).collect();
        paths.sort();
        paths.iter().map(|p| std::fs::read_to_string(p).expect("text")).collect()
    })
}

/// Whatever parses prints, parses again to the same graph, and has no dangling ids.
fn check(source: &str) -> Result<(), TestCaseError> {
    let Ok(graph) = text::parse(source, &weight) else { return Ok(()) };
    let printed = graph.to_string();
    let weights = text::weights(&graph);
    let again = text::parse(&printed, &|name| weights.get(name).cloned());
    let again: Graph = again.map_err(|d| TestCaseError::fail(format!("{d:#?}\n{printed}")))?;
    prop_assert_eq!(&printed, &again.to_string());
    prop_assert!(graph.canonical_eq(&again));
    for diag in verify(&graph) {
        prop_assert!(!matches!(diag.code, "node.operand" | "graph.cycle" | "node.type"), "{}", diag);
    }
    Ok(())
}

const PIECES: &[&str] = &[
    "%",
    "%x",
    "%0",
    "@",
    "graph",
    "return",
    "from",
    "const",
    "fusion",
    "f32[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ",",
    ":",
    "=",
    "-",
    "\"",
    "\\",
    "\n",
    ";",
    "_",
    "0x",
    "1e",
    "nan",
    "inf",
    "9223372036854775808",
    "-9223372036854775808",
    "floor(",
    "max(",
    "batch",
    "splat(",
    "seeded(",
    "weight(",
    "unnamed",
    "named",
    "[[[[[[[[[[",
    "((((((((((",
    "\u{e9}",
    "\0",
    "#",
    "!1",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_string_parses_or_is_complained_of(s in "\\PC{0,200}") {
        check(&s)?;
    }

    #[test]
    fn any_tokens_parse_or_are_complained_of(tokens in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        check(&format!("graph @g(%x: f32[2]) {{\n%y = relu %x\n{}\nreturn %y}}", tokens.join(" ")))?;
    }

    #[test]
    fn mutated_files_parse_or_are_complained_of(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..4), 1..6),
    ) {
        let mut chars: Vec<char> = which.get(corpus()).chars().collect();
        for (at, piece, kind) in edits {
            let at = at.index(chars.len().max(1)).min(chars.len());
            let piece: Vec<char> = piece.get(PIECES).chars().collect();
            match kind {
                0 => drop(chars.splice(at..at, piece)),
                1 => drop(chars.drain(at..(at + piece.len()).min(chars.len()))),
                2 => chars.truncate(at),
                _ => drop(chars.splice(at..(at + 1).min(chars.len()), piece)),
            }
        }
        check(&chars.into_iter().collect::<String>())?;
    }

    #[test]
    fn dimensions_read_back(dim in dims()) {
        prop_assert_eq!(text::parse_dim(&dim.to_string()), Ok(dim));
    }

    #[test]
    fn elements_read_back(bits in prop::collection::vec(any::<u64>(), 4), dtype in computable()) {
        let data: Vec<u8> = match dtype {
            DType::Bool => bits.iter().map(|b| (b & 1) as u8).collect(),
            _ => bits.iter().flat_map(|b| b.to_le_bytes()[..dtype.size()].to_vec()).collect(),
        };
        let mut g = Graph::new("g");
        let tensor = Tensor::new(dtype, vec![4], data.into()).expect("four elements");
        let v = g.add_const(lehr_ir::ConstValue::Dense { tensor, name: None });
        g.add_output("y", v);
        let again = text::parse(&g.to_string(), &weight).map_err(|d| TestCaseError::fail(format!("{d:?}\n{g}")))?;
        prop_assert!(g.canonical_eq(&again), "{}\n{}", g, again);
    }
}

fn computable() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.iter().copied().filter(|d| d.is_computable()).collect::<Vec<_>>())
}

fn dims() -> impl Strategy<Value = Dim> {
    let symbol = prop::sample::select(&["h", "w", "batch", "max", "a b", "\"", "0x", "true", "é"][..]);
    let leaf = prop_oneof![(-20i64..20).prop_map(Dim::Const), symbol.prop_map(Dim::symbol)];
    leaf.prop_recursive(4, 24, 2, |inner| {
        (inner.clone(), inner, 0usize..6).prop_map(|(a, b, f)| match f {
            0 => &a + &b,
            1 => &a - &b,
            2 => &a * &b,
            3 => a.floor_div(&b),
            4 => a.maximum(&b),
            _ => a.minimum(&b),
        })
    })
}
