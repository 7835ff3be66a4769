//! `explain`: the text of a small model and of inception's 5x5 layers as snapshots, the json form there and back, and pages that
//! stay well-formed and harmless whatever the model's names are.

use lehr::explain::{Choice, ExplainOptions, Explanation, Measure, explain, html, text};
use lehr::{CompileOptions, Numerics, load};
use lehr_ir::graph::{Graph, Origin, ValueId};
use lehr_ir::ops::{BatchNorm, Binary, BinaryFn, Conv, MatMul, MaxPool, Op, Unary, UnaryFn};
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, Tensor, TensorType};
use lehr_passes::analysis::Options;

/// A model of which every node has the name `prefix` and its own.
struct Model {
    g: Graph,
    prefix: &'static str,
    seed: u64,
}

impl Model {
    fn add(&mut self, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let op = op.into();
        let name = format!("{}{name}", self.prefix);
        let index = Some(self.g.id_bound());
        let origin = Origin { name: name.as_str().into(), index, op: op.name().into() };
        let v = self.g.add1(op, inputs, vec![origin]).unwrap_or_else(|d| panic!("{d}"));
        self.g.set_value_name(v, Some(name.as_str().into()));
        v
    }

    fn weights(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.g.add_const(ConstValue::Seeded { dtype: DType::F32, shape: shape.to_vec(), seed: self.seed })
    }

    fn conv(&mut self, name: &str, x: ValueId, [outputs, inputs, k]: [usize; 3]) -> ValueId {
        let w = self.weights(&[outputs, inputs, k, k]);
        let op = Conv { strides: vec![1, 1], pads: vec![k / 2; 4], dilations: vec![1, 1], groups: 1 };
        self.add(name, op, &[x, w])
    }

    fn batch_norm(&mut self, name: &str, x: ValueId, channels: usize) -> ValueId {
        let ones = ConstValue::Splat { element: Tensor::from_f64(DType::F32, vec![], [1.0]), shape: vec![channels] };
        let variance = self.g.add_const(ones);
        let [scale, bias, mean] = [(); 3].map(|()| self.weights(&[channels]));
        self.add(name, BatchNorm { eps: 1e-5 }, &[x, scale, bias, mean, variance])
    }
}

/// A residual block: a normalisation that folds, one that cannot, a 5x5 convolution, a pool.
fn block(prefix: &'static str) -> Graph {
    let mut m = Model { g: Graph::new(format!("{prefix}block")), prefix, seed: 0 };
    let x = m.g.add_input("x", TensorType::new(DType::F32, [1, 8, 12, 12]));
    let a = m.conv("conv1", x, [8, 8, 3]);
    let a = m.batch_norm("bn1", a, 8);
    let a = m.add("relu1", Unary { f: UnaryFn::Relu }, &[a]);
    let b = m.conv("conv2", a, [8, 8, 5]);
    let c = m.batch_norm("bn2", b, 8);
    let sum = m.add("add", Binary { f: BinaryFn::Add }, &[b, c]);
    let pool = MaxPool {
        kernel: vec![2, 2],
        strides: vec![2, 2],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        ceil_mode: false,
        column_major: false,
    };
    let y = m.add("pool", pool, &[sum]);
    m.g.add_output("y", y);
    m.g
}

/// For one CPU, so that every machine says the same; the search is short.
fn options() -> ExplainOptions {
    ExplainOptions {
        compile: CompileOptions { cpu: "x86-64-v3".into(), ..CompileOptions::default() },
        analyses: Some(Options { work: 2e7, ..Options::default() }),
        ..ExplainOptions::default()
    }
}

fn explained(prefix: &'static str) -> Explanation {
    explain(block(prefix), &options()).unwrap_or_else(|e| panic!("{e}"))
}

/// Without what code generation chose, which has tests of its own, and with fractions in two digits behind the point: the last digits
/// of a search depend on the CPU's multiply-add.
fn coarse(text: &str) -> String {
    let word = |word: &str| {
        let end = word.trim_end_matches([',', ';']);
        match end.parse::<f64>() {
            Ok(value) if end.contains('.') && !end.ends_with('.') => format!("{value:.2}{}", &word[end.len()..]),
            _ => word.to_string(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let generated = |line: &&str| {
        ["  kernels ", "  computed ", "  chosen ", "            not ", "            and "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    text.lines().filter(|l| !generated(l)).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn text_of_a_small_model() {
    insta::assert_snapshot!(coarse(&text::render(&explained(""))));
}

#[test]
fn what_concerns_one_node() {
    let one = ExplainOptions { node: Some("conv1".into()), analyses: None, ..options() };
    let e = explain(block(""), &one).unwrap();
    assert_eq!(e.layers.len(), 1);
    let l = &e.layers[0];
    assert_eq!(l.figures.nodes, ["conv1", "bn1", "relu1"]);
    assert_eq!((l.before.nodes, l.before.params, l.figures.params), (3, 3 * 3 * 8 * 8 + 4 * 8, 3 * 3 * 8 * 8 + 8));
    let fired: Vec<&str> = l.events.iter().filter(|e| e.fired).map(|e| e.rule.as_str()).collect();
    assert_eq!(fired, ["fold-batch-norm", "fuse-epilogue"]);
    let computed = text::render(&e);
    for word in ["  computed  convolution, plain -> blocks of 8", "brgemm_avx2", "  kernels "] {
        assert!(computed.contains(word), "{computed}");
    }
    // No name is exactly this: all that contain it.
    let some = ExplainOptions { node: Some("conv".into()), analyses: None, ..options() };
    let both = explain(block(""), &some).unwrap().layers;
    assert_eq!(both.len(), 2);
    // Its input is in blocks and its kernel 5x5: Winograd's algorithm was considered.
    let choice = both[1].figures.choice.as_ref().unwrap();
    let weighed = choice.rejected.iter().map(|r| &r.strategy).chain([&choice.strategy]);
    let algorithms: Vec<&str> = weighed.map(|s| Choice::algorithm(s)).collect();
    assert!(algorithms.contains(&"direct") && algorithms.contains(&"F(2x2,5x5)"), "{algorithms:?}");
    let none = ExplainOptions { node: Some("nothing".into()), analyses: None, ..options() };
    assert!(explain(block(""), &none).unwrap_err().to_string().contains("'nothing'"));
}

#[test]
fn a_normalisation_that_cannot_fold_says_why() {
    let e = explained("");
    let declined = e.layers.iter().flat_map(|l| &l.events).find(|e| !e.fired && e.node == "bn2").unwrap();
    assert_eq!(declined.rule, "fold-batch-norm");
    assert!(declined.detail.contains("use"), "{declined:?}");
}

#[test]
fn json_there_and_back() {
    let e = explained("");
    // By way of values, which keep every bit of a number.
    let again: Explanation = serde_json::from_value(serde_json::to_value(&e).unwrap()).unwrap();
    assert_eq!(again, e);
    let text = serde_json::to_string(&e).unwrap();
    let read: Explanation = serde_json::from_str(&text).unwrap();
    assert_eq!((read.schema, read.layers.len(), read.before, read.after), (2, e.layers.len(), e.before, e.after));
}

#[test]
fn times_add_up() {
    let measured = ExplainOptions {
        compile: CompileOptions::default(),
        measure: Some(Measure { threads: 2, seconds: 0.05 }),
        analyses: None,
        node: None,
    };
    let e = explain(block(""), &measured).unwrap();
    let timing = e.timing.as_ref().unwrap();
    let sum: f64 = e.layers.iter().filter_map(|l| l.figures.ms).sum();
    assert!((sum + timing.other_ms - timing.sum_ms).abs() < 1e-9 && timing.runs >= 5, "{timing:?}");
    let shares: f64 = e.layers.iter().filter_map(|l| e.share(l)).sum();
    assert!(shares > 0.5 && shares <= 1.0 + 1e-9, "{shares}");
    // What another layer computes has no time of its own.
    let (elsewhere, own): (Vec<_>, Vec<_>) =
        e.layers.iter().map(|l| &l.figures).partition(|f| f.layout.contains("computed by the convolution before it"));
    assert!(elsewhere.iter().all(|f| f.ms.is_none()));
    assert!(own.iter().filter(|f| f.ms.is_some_and(|ms| ms > 0.0)).count() + elsewhere.len() >= 3);
    assert!(text::render(&e).contains("% of the run"));
    assert!(html::render(&e).contains("GFLOP/s"));
}

/// Elements are closed in order, attributes are quoted, text has no bare `<`; gives the elements' names.
fn elements(page: &str) -> Result<Vec<String>, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    let (mut open, mut all) = (vec![], vec![]);
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let end = rest.find('>').ok_or("an element is not closed")?;
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop();
            if last != Some(name.to_string()) {
                return Err(format!("</{name}> closes {last:?}"));
            }
            continue;
        }
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if name.is_empty() {
            return Err(format!("'{tag}' is no element"));
        }
        check_attributes(tag[name.len()..].trim_end_matches('/')).map_err(|why| format!("'{tag}': {why}"))?;
        all.push(name.clone());
        match name.as_str() {
            "script" | "style" => {
                let close = format!("</{name}>");
                let end = rest.find(&close).ok_or("a script does not end")?;
                rest = &rest[end + close.len()..];
            }
            _ if tag.ends_with('/') => {}
            _ => open.push(name),
        }
    }
    if open.is_empty() { Ok(all) } else { Err(format!("{open:?} stay open")) }
}

/// ` name="value"`, any number of times.
fn check_attributes(mut rest: &str) -> Result<(), String> {
    while !rest.trim().is_empty() {
        let (name, value) = rest.split_once("=\"").ok_or("an attribute without a quoted value")?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':');
        if !name.starts_with([' ', '\n']) || name.trim().is_empty() || !name.trim().chars().all(known) {
            return Err(format!("'{name}' is no attribute"));
        }
        let (value, behind) = value.split_once('"').ok_or("a value does not end")?;
        if value.contains('<') {
            return Err(format!("'{value}' is no value"));
        }
        rest = behind;
    }
    Ok(())
}

#[test]
fn a_page_is_well_formed_and_asks_for_nothing() {
    let page = html::render(&explained(""));
    let elements = elements(&page).unwrap();
    let count = |name: &str| elements.iter().filter(|e| *e == name).count();
    // The two pictures, a curve of the factorisation and three of each separability.
    assert_eq!((count("svg"), count("script"), count("style")), (2 + 1 + 3 + 3, 1, 1));
    assert_eq!(count("details"), explained("").layers.len());
    for loads in ["src=", "href=\"http", "@import", "url(http", "fetch(", "<link", "<img", "<iframe"] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_checker_sees_what_is_wrong() {
    for broken in ["<p>", "<p></b></p>", "<a href=x>y</a>", "<p>a < b</p>", "<i a=\"x\"y\"></i>"] {
        assert!(elements(&format!("<!DOCTYPE html>{broken}")).is_err(), "{broken}");
    }
    assert_eq!(elements("<!DOCTYPE html><p><br/>a &lt; b</p>").unwrap(), ["p", "br"]);
}

#[test]
fn hostile_names_stay_text() {
    let quiet = elements(&html::render(&explained(""))).unwrap();
    for prefix in [
        "</title><script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'/--><!--",
        "]]></script><svg onload=alert(1)>",
        "&lt;b&gt;&#60;script&#62;",
        "\u{0}\u{1b}\u{202e}\u{ffff}",
        "a\nb\r\tc",
    ] {
        let page = html::render(&explained(prefix));
        assert_eq!(elements(&page).unwrap_or_else(|why| panic!("{prefix:?}: {why}")), quiet, "{prefix:?}");
        let bad = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202e}' | '\u{ffff}');
        assert!(!page.contains(bad), "{prefix:?}");
        // The text form, too, must not carry a terminal's escapes.
        assert!(!text::render(&explained(prefix)).contains('\u{1b}'), "{prefix:?}");
    }
}

#[test]
fn large_products_say_that_their_weights_are_compact() {
    let product = || {
        let mut m = Model { g: Graph::new("product"), prefix: "", seed: 0 };
        let x = m.g.add_input("x", TensorType::new(DType::F32, [1, 1200]));
        let w = m.weights(&[1200, 600]);
        let y = m.add("fc", MatMul {}, &[x, w]);
        m.g.add_output("y", y);
        m.g
    };
    let layout = |numerics| {
        let compile = CompileOptions { numerics, cpu: "x86-64-v3".into(), ..CompileOptions::default() };
        let explained = explain(product(), &ExplainOptions { compile, ..ExplainOptions::default() });
        let layers = explained.unwrap_or_else(|d| panic!("{d:?}")).layers;
        layers.into_iter().map(|l| l.figures.layout).collect::<Vec<_>>()
    };
    assert_eq!(layout(Numerics::Fast), ["product, plain -> plain, weights of 25 bits"]);
    assert_eq!(layout(Numerics::Strict), ["product, plain -> plain"]);
}

#[test]
fn inception_v1_and_its_5x5_layers() {
    let graph = load("zoo:inception_v1", &lehr::LoadOptions::default()).unwrap_or_else(|e| panic!("{e}")).graph;
    let e = explain(graph, &ExplainOptions { node: Some("branch3.1.conv".into()), ..options() })
        .unwrap_or_else(|e| panic!("{e}"));
    insta::assert_snapshot!(coarse(&text::render(&e)));
}
