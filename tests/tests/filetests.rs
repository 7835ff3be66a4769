//! Runs every `.lehr` file under `filetests/`: text IR in, canonical text (and what else the subject gives) out, compared
//! with the snapshot beside the file. `INSTA_UPDATE=always cargo test -p lehr-tests --test filetests` accepts new results.
//!
//! Comments steer a file:
//!
//! ```text
//! ; test: parse | verify | infer         what is done; the first line
//! ; error: SUBSTRING                     on a line that must be complained of with these words
//! ; violation: CODE                      verify: the verifier must find this
//! ```
//!
//! Every file that parses is also checked for round trip, determinism and, unless it lists violations, verification.

use lehr_ir::diag::{Diag, Location};
use lehr_ir::tensor::{Tensor, seeded};
use lehr_ir::{DType, Graph, text, verify};
use std::fmt::Write;

#[test]
fn filetests() {
    insta::glob!("../filetests", "**/*.lehr", |path| {
        let source = std::fs::read_to_string(path).expect("a readable file");
        let result = run(&source);
        let dir = path.parent().expect("a file is in a directory");
        insta::with_settings!({ snapshot_path => dir, prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("result", result);
        });
    });
}

/// What the snapshot shows.
fn run(source: &str) -> String {
    let subject = directive(source, "test").next().expect("the first line is `; test: SUBJECT`").to_string();
    let parsed = text::parse(source, &weight);
    let again = text::parse(source, &weight);
    assert_eq!(parsed.as_ref().map(Graph::to_string), again.as_ref().map(Graph::to_string), "parsing is deterministic");
    let graph = match parsed {
        Ok(graph) => graph,
        Err(diags) => return expected_errors(source, diags),
    };
    assert!(directive(source, "error").next().is_none(), "errors are expected, but the file parses");
    round_trip(&graph);
    let violations = expected_violations(source, &graph);
    match subject.as_str() {
        "parse" | "infer" => graph.to_string(),
        "verify" => format!("{graph}{violations}"),
        other => panic!("there is no subject `{other}`"),
    }
}

/// The values of `; key: value` comments.
fn directive<'s>(source: &'s str, key: &'s str) -> impl Iterator<Item = &'s str> {
    source.lines().filter_map(move |line| {
        let (_, comment) = line.split_once(';')?;
        comment.trim().strip_prefix(key)?.strip_prefix(':').map(str::trim)
    })
}

/// Weights that files may mention by name.
fn weight(name: &str) -> Option<Tensor> {
    let n: usize = name.strip_prefix("seeded.")?.parse().ok()?;
    Some(seeded(DType::F32, vec![n], n as u64))
}

/// Each complaint is expected on its line, and each expected one is there.
fn expected_errors(source: &str, diags: Vec<Diag>) -> String {
    let mut wanted: Vec<(usize, String)> = vec![];
    for (i, line) in source.lines().enumerate() {
        wanted.extend(directive(line, "error").map(|words| (i + 1, words.to_string())));
    }
    let mut listing = String::new();
    let mut surprises = vec![];
    for diag in &diags {
        let Location::Line { line } = diag.location else { panic!("a complaint without a line: {diag}") };
        let shown = diag.to_string();
        let _ = writeln!(listing, "{shown}");
        match wanted.iter().position(|(l, words)| *l == line && shown.contains(words.as_str())) {
            Some(at) => {
                wanted.remove(at);
            }
            None => surprises.push(shown),
        }
    }
    assert!(surprises.is_empty() && wanted.is_empty(), "not expected: {surprises:#?}\nnot found: {wanted:#?}");
    listing
}

fn round_trip(graph: &Graph) {
    let printed = graph.to_string();
    let weights = text::weights(graph);
    let reparsed = text::parse(&printed, &|name| weights.get(name).cloned());
    let reparsed = reparsed.unwrap_or_else(|diags| panic!("what was printed does not parse: {diags:#?}\n{printed}"));
    assert_eq!(printed, reparsed.to_string(), "printing what was printed and parsed gives the same text");
    assert!(graph.canonical_eq(&reparsed), "a graph is what its text says");
}

fn expected_violations(source: &str, graph: &Graph) -> String {
    let found = verify(graph);
    let codes: Vec<&str> = found.iter().map(|d| d.code).collect();
    let wanted: Vec<&str> = directive(source, "violation").collect();
    for code in &wanted {
        assert!(codes.contains(code), "{code} is expected; found: {found:#?}");
    }
    assert!(codes.iter().all(|c| wanted.contains(c)), "the graph does not verify: {found:#?}");
    found.iter().map(|d| format!("; {d}\n")).collect()
}
