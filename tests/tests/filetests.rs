//! Runs every `.lehr` file under `filetests/`: text IR in, canonical text (and what else the subject gives) out, compared
//! with the snapshot beside the file. `INSTA_UPDATE=always cargo test -p lehr-tests --test filetests` accepts new results,
//! `INSTA_GLOB_FILTER='**/conv.lehr'` runs some.
//!
//! Comments steer a file:
//!
//! ```text
//! ; test: parse | verify | infer         what is done; the first line
//! ; test: eval                           the outputs, by the evaluator, on seeded inputs
//! ; test: run                            likewise, and compiled code at O0 and O2, on 1 and 2 threads, must agree
//! ; test: rule fold-batch-norm           the text after exactly this rule, what it applied and declined
//! ; test: pass fold-constants            likewise, of a pass
//! ; test: pipeline O2                    likewise, of a pipeline
//! ; test: analyse factorization          an analysis of every convolution
//! ; approximate: 0.01                    leave to approximate, for rules, passes, pipelines and analyses;
//! ; approximate: 0.01 slow               what comes after is judged to be slower; broken: it cannot be measured
//! ; run: seed=7 h=5 tolerance=1e-6       seed of the inputs, numbers for symbols, and how far outputs may be apart after rewriting
//! ; error: SUBSTRING                     on a line that must be complained of with these words
//! ; violation: CODE                      verify: the verifier must find this
//! ```
//!
//! Every file that parses is also checked for round trip, determinism and, unless it lists violations, verification. What a
//! rule, pass or pipeline makes must verify, and must evaluate as before. Of a file with errors, the snapshot also shows
//! what its other lines give.

use lehr::{CompileOptions, OptLevel, Runner};
use lehr_ir::diag::{Diag, Location};
use lehr_ir::eval::evaluate;
use lehr_ir::ops::{BinaryFn, UnaryFn};
use lehr_ir::tensor::{Tensor, seeded};
use lehr_ir::{DType, Dim, Graph, Op, text, verify};
use lehr_passes::analysis::Options;
use lehr_passes::{Approximation, Manager, Report};
use lehr_tests::analyse::{FakeJudge, analyse};
use lehr_tests::compare::difference;
use std::fmt::Write;

#[test]
fn filetests() {
    let mut failures = vec![];
    insta::glob!("../filetests", "**/*.lehr", |path| {
        let source = std::fs::read_to_string(path).expect("a readable file");
        let dir = path.parent().expect("a file is in a directory");
        match run(&source) {
            Ok(result) => {
                insta::with_settings!({ snapshot_path => dir, prepend_module_to_snapshot => false, omit_expression => true }, {
                    insta::assert_snapshot!("result", result);
                });
            }
            Err(why) => failures.push(format!("{}: {why}", path.display())),
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the snapshot shows.
fn run(source: &str) -> Result<String, String> {
    let subject = directive(source, "test").next().ok_or("the first line is `; test: SUBJECT`")?;
    let parsed = text::parse(source, &weight);
    let again = text::parse(source, &weight);
    if parsed.as_ref().map(Graph::to_string) != again.as_ref().map(Graph::to_string) {
        return Err("parsing twice gives different results".into());
    }
    let graph = match parsed {
        Ok(graph) => graph,
        Err(diags) => {
            let listing = expected_errors(source, diags)?;
            let sound: Vec<&str> = source.lines().filter(|l| directive(l, "error").next().is_none()).collect();
            let rest = text::parse(&sound.join("\n"), &weight).map(|g| g.to_string()).unwrap_or_default();
            return Ok(listing + &rest);
        }
    };
    if directive(source, "error").next().is_some() {
        return Err("errors are expected, but the file parses".into());
    }
    round_trip(&graph)?;
    let violations = expected_violations(source, &graph)?;
    match subject.split_once(' ').unwrap_or((subject, "")) {
        ("parse" | "infer", "") => Ok(graph.to_string()),
        ("verify", "") => Ok(format!("{graph}{violations}")),
        ("eval", "") => evaluated(&graph, &Run::of(source)?),
        ("run", "") => {
            let run = Run::of(source)?;
            compiled(&graph, &run)?;
            evaluated(&graph, &run)
        }
        ("rule", name) => {
            let rule = lehr_passes::rule(name).ok_or_else(|| format!("there is no rule {name}"))?;
            let leave = Leave::of(source)?;
            rewritten(&graph, source, |g| {
                let mut leave = leave.as_ref().map(Leave::approximation);
                Ok(Report { passes: vec![Manager::default().run_rule(g, rule, leave.as_mut())?] })
            })
        }
        ("pass", name) => {
            let passes = lehr_passes::pass(name).ok_or_else(|| format!("there is no pass {name}"))?;
            let leave = Leave::of(source)?;
            rewritten(&graph, source, |g| {
                let mut leave = leave.as_ref().map(Leave::approximation);
                Manager::default().run_approximate(g, passes, leave.as_mut(), &mut |_| {})
            })
        }
        ("pipeline", level) => {
            let leave = Leave::of(source)?;
            let passes = match &leave {
                None => lehr_passes::pipeline(level.parse()?).to_vec(),
                Some(_) => lehr_passes::approximate_pipeline(level.parse()?),
            };
            rewritten(&graph, source, |g| {
                let mut leave = leave.as_ref().map(Leave::approximation);
                Manager::default().run_approximate(g, &passes, leave.as_mut(), &mut |_| {})
            })
        }
        ("analyse", analysis) => {
            let leave = Leave::of(source)?.ok_or("an analysis needs `; approximate: TOLERANCE`")?;
            analyse(&graph, analysis, &leave.options())
        }
        _ => Err(format!("there is no subject `{subject}`")),
    }
}

/// The values of `; key: value` comments.
fn directive<'s>(source: &'s str, key: &'s str) -> impl Iterator<Item = &'s str> {
    source.lines().filter_map(move |line| {
        let (_, comment) = line.split_once(';')?;
        comment.trim().strip_prefix(key)?.strip_prefix(':').map(str::trim)
    })
}

/// The text without the elements of constants that are new: decompositions round differently on other machines.
fn without_computed(before: &Graph, after: &Graph) -> String {
    let known = before.to_string();
    let line = |line: &str| match line.split_once("] ") {
        Some((ty, _)) if line.contains(" = const ") && !known.lines().any(|l| l == line) => {
            format!("{ty}] (computed)\n")
        }
        _ => format!("{line}\n"),
    };
    after.to_string().lines().map(line).collect()
}

/// What `; approximate:` says.
struct Leave {
    tolerance: f64,
    judge: FakeJudge,
}

impl Leave {
    fn of(source: &str) -> Result<Option<Leave>, String> {
        let Some(text) = directive(source, "approximate").next() else { return Ok(None) };
        let (tolerance, judge) = text.split_once(' ').unwrap_or((text, ""));
        let judge = match judge {
            "" => FakeJudge::Work,
            "slow" => FakeJudge::Slow,
            "broken" => FakeJudge::Broken,
            other => return Err(format!("there is no judge `{other}`")),
        };
        Ok(Some(Leave { tolerance: tolerance.parse().map_err(|_| "a bad tolerance")?, judge }))
    }

    fn options(&self) -> Options {
        Options { tolerance: self.tolerance, work: 1e8, ..Options::default() }
    }

    fn approximation(&self) -> Approximation {
        Approximation::new(self.options(), self.judge)
    }
}

/// Weights that files may mention by name.
fn weight(name: &str) -> Option<Tensor> {
    let n: usize = name.strip_prefix("seeded.")?.parse().ok()?;
    Some(seeded(DType::F32, vec![n], n as u64))
}

/// Each complaint is expected on its line, and each expected one is there.
fn expected_errors(source: &str, diags: Vec<Diag>) -> Result<String, String> {
    let mut wanted: Vec<(usize, String)> = vec![];
    for (i, line) in source.lines().enumerate() {
        wanted.extend(directive(line, "error").map(|words| (i + 1, words.to_string())));
    }
    let mut listing = String::new();
    let mut surprises = vec![];
    for diag in &diags {
        let shown = diag.to_string();
        let Location::Line { line } = diag.location else { return Err(format!("a complaint without a line: {diag}")) };
        let _ = writeln!(listing, "; {shown}");
        match wanted.iter().position(|(l, words)| *l == line && shown.contains(words.as_str())) {
            Some(at) => {
                wanted.remove(at);
            }
            None => surprises.push(shown),
        }
    }
    if surprises.is_empty() && wanted.is_empty() {
        return Ok(listing);
    }
    Err(format!("not expected: {surprises:#?}\nnot found: {wanted:#?}"))
}

fn round_trip(graph: &Graph) -> Result<(), String> {
    let printed = graph.to_string();
    let weights = text::weights(graph);
    let reparsed = text::parse(&printed, &|name| weights.get(name).cloned())
        .map_err(|diags| format!("what was printed does not parse: {diags:#?}\n{printed}"))?;
    if printed != reparsed.to_string() || !graph.canonical_eq(&reparsed) {
        return Err(format!("printed and parsed, it is another graph:\n{printed}\n{reparsed}"));
    }
    Ok(())
}

fn expected_violations(source: &str, graph: &Graph) -> Result<String, String> {
    let found = verify(graph);
    let codes: Vec<&str> = found.iter().map(|d| d.code).collect();
    let wanted: Vec<&str> = directive(source, "violation").collect();
    if let Some(code) = wanted.iter().find(|code| !codes.contains(code)) {
        return Err(format!("{code} is expected; found: {found:#?}"));
    }
    if codes.iter().any(|c| !wanted.contains(c)) {
        return Err(format!("the graph does not verify: {found:#?}"));
    }
    Ok(found.iter().map(|d| format!("; {d}\n")).collect())
}

/// The text after rewriting, with what was applied and declined. It must evaluate as before.
fn rewritten(
    graph: &Graph,
    source: &str,
    rewrite: impl Fn(&mut Graph) -> Result<Report, Vec<Diag>>,
) -> Result<String, String> {
    let mut after = graph.clone();
    let report = rewrite(&mut after).map_err(|diags| format!("{diags:#?}"))?;
    let mut again = graph.clone();
    let second = rewrite(&mut again).map_err(|diags| format!("{diags:#?}"))?;
    if after.to_string() != again.to_string() || report.to_string() != second.to_string() {
        return Err("rewriting twice gives different results".into());
    }
    round_trip(&after)?;
    let run = Run::of(source)?;
    let (before, now) = (outputs(graph, &run), outputs(&after, &run));
    match (before, now) {
        (Ok(before), Ok(now)) => {
            for ((out, a), b) in graph.outputs.iter().zip(&before).zip(&now) {
                if let Some(why) = difference(a, b, run.tolerance) {
                    return Err(format!("output {} changed: {why}\n{after}", out.name));
                }
            }
        }
        (Err(a), Err(b)) if a == b => {}
        (a, b) => return Err(format!("evaluation gives {a:?} before and {b:?} after")),
    }
    let after = if Leave::of(source)?.is_some() { without_computed(graph, &after) } else { after.to_string() };
    let trailer: String = report.to_string().lines().map(|l| format!("; {l}\n")).collect();
    Ok(format!("{after}{trailer}"))
}

/// How a file is evaluated.
struct Run {
    seed: u64,
    symbols: Vec<(String, i64)>,
    tolerance: f64,
}

impl Run {
    fn of(source: &str) -> Result<Run, String> {
        let mut run = Run { seed: 1, symbols: vec![], tolerance: 1e-6 };
        for setting in directive(source, "run").flat_map(str::split_whitespace) {
            let (key, value) = setting.split_once('=').ok_or("`; run: key=value`")?;
            match key {
                "seed" => run.seed = value.parse().map_err(|_| "a bad seed")?,
                "tolerance" => run.tolerance = value.parse().map_err(|_| "a bad tolerance")?,
                symbol => run.symbols.push((symbol.to_string(), value.parse().map_err(|_| "a bad dimension")?)),
            }
        }
        Ok(run)
    }
}

impl Run {
    /// Symbols without a number are 2.
    fn number(&self, symbol: &str) -> Dim {
        Dim::Const(self.symbols.iter().find(|(n, _)| n == symbol).map_or(2, |(_, n)| *n))
    }
}

fn seeded_inputs(graph: &Graph, run: &Run) -> Result<Vec<Tensor>, String> {
    let number = |s: &str| Some(run.number(s));
    let types = graph.inputs().iter().map(|&v| graph.ty(v)).enumerate();
    types
        .map(|(i, ty)| {
            let shape: Option<Vec<usize>> =
                ty.shape.iter().map(|d| usize::try_from(d.substitute(&number).as_const()?).ok()).collect();
            Ok(seeded(ty.dtype, shape.ok_or("an input has no shape")?, run.seed + i as u64))
        })
        .collect()
}

fn outputs(graph: &Graph, run: &Run) -> Result<Vec<Tensor>, String> {
    evaluate(graph, &seeded_inputs(graph, run)?, &mut |_, _| {}).map_err(|e| e.to_string())
}

/// Compiled code gives what the evaluator gives, and the same bits on any number of threads.
fn compiled(graph: &Graph, run: &Run) -> Result<(), String> {
    let bound = graph.bind(&|s| Some(run.number(s))).map_err(|d| d.to_string())?;
    let expected = outputs(&bound, run)?;
    for level in [OptLevel::O0, OptLevel::O2] {
        let options = CompileOptions { level, ..CompileOptions::default() };
        let mut by_threads = vec![];
        for threads in [1, 2] {
            let mut runner = Runner::jit(bound.clone(), &options, threads)?;
            by_threads.push(runner.run(&seeded_inputs(&bound, run)?).map_err(|e| format!("{level}: {e}"))?);
        }
        for ((out, a), b) in bound.outputs.iter().zip(&expected).zip(&by_threads[0]) {
            if let Some(why) = difference(a, b, run.tolerance) {
                return Err(format!("{level}: output {}: {why}", out.name));
            }
        }
        let bytes = |ts: &[Tensor]| ts.iter().map(|t| t.bytes().clone()).collect::<Vec<_>>();
        if bytes(&by_threads[0]) != bytes(&by_threads[1]) {
            return Err(format!("{level}: one and two threads give different bits"));
        }
    }
    Ok(())
}

/// Values of small outputs; sum and extremes of large ones.
fn evaluated(graph: &Graph, run: &Run) -> Result<String, String> {
    let results = match outputs(graph, run) {
        Ok(results) => results,
        Err(fault) => return Ok(format!("fault: {fault}\n")),
    };
    let mut shown = String::new();
    for (out, t) in graph.outputs.iter().zip(results) {
        let values = t.to_f64();
        let _ = write!(shown, "{}: {} = ", out.name, t.ty());
        let _ = match values.len() {
            0..=64 => writeln!(shown, "{:?}", t.to_f32()),
            n => writeln!(
                shown,
                "{n} elements, mean {:.6e}, min {:?}, max {:?}",
                values.iter().sum::<f64>() / n as f64,
                values.iter().copied().fold(f64::INFINITY, f64::min) as f32,
                values.iter().copied().fold(f64::NEG_INFINITY, f64::max) as f32,
            ),
        };
    }
    Ok(shown)
}

/// All files of a subject, one after the other.
fn texts(subject: &str) -> String {
    let dir = format!("{}/filetests/{subject}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(dir).expect("the subject's directory").map(|f| f.expect("an entry").path());
    let files = files.filter(|p| p.extension().is_some_and(|e| e == "lehr"));
    files.map(|p| std::fs::read_to_string(p).expect("text")).collect()
}

#[test]
fn every_operator_is_inferred_in_some_file() {
    let files = texts("infer");
    let unary = UnaryFn::all().into_iter().map(|f| f.info().name);
    let binary = BinaryFn::ALL.iter().map(|f| f.info().name);
    let names = Op::INFOS.iter().map(|i| i.name).chain(unary).chain(binary);
    let missing: Vec<&str> = names.filter(|n| !files.contains(&format!(" = {n} "))).collect();
    assert!(missing.is_empty(), "no file under filetests/infer has {missing:?}");
}

#[test]
fn every_rule_and_pass_has_a_file() {
    let (rules, passes) = (texts("rule"), texts("pass"));
    for pass in lehr_passes::all_passes() {
        for rule in pass.rules() {
            assert!(rules.contains(&format!("; test: rule {}\n", rule.name)), "no file tests the rule {}", rule.name);
        }
        let covered = !pass.rules().is_empty() || passes.contains(&format!("; test: pass {}\n", pass.name));
        assert!(covered, "no file tests the pass {}", pass.name);
    }
}
