//! The command line as a user meets it: the binary, its exit codes, its output and its complaints.

mod gpu;
mod onnx;

use lehr::ir::{DType, Tensor, tensor::seeded};
use onnx::{model, node, value};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

struct Answer {
    code: i32,
    out: String,
    err: String,
}

/// Runs `lehr ARGS` in `dir`.
fn lehr(dir: &Path, args: &str) -> Answer {
    lehr_with(dir, args, &[])
}

/// The same with variables in its environment.
fn lehr_with(dir: &Path, args: &str, variables: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lehr"));
    let output = command.args(args.split(' ')).envs(variables.iter().copied()).current_dir(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("no signal ends it");
    let answer = Answer { code, out: text(output.stdout), err: text(output.stderr) };
    assert!(!answer.err.contains("panicked"), "lehr {args}: {}", answer.err);
    answer
}

/// Runs `lehr ARGS`, which ends with `code` and says `words` somewhere.
#[track_caller]
fn says(dir: &Path, args: &str, code: i32, words: &[&str]) -> Answer {
    let a = lehr(dir, args);
    let all = format!("{}{}", a.out, a.err);
    assert_eq!(a.code, code, "lehr {args}\n{all}");
    for w in words {
        assert!(all.contains(w), "lehr {args}: '{w}' is not in\n{all}");
    }
    a
}

#[track_caller]
fn json(dir: &Path, args: &str, code: i32) -> Value {
    serde_json::from_str(&says(dir, args, code, &[]).out).unwrap()
}

/// A folder with models and inputs that the tests share the making of.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let npy = |name: &str, t: &Tensor| put(name, &lehr::npy::encode(t));
    npy("image.npy", &seeded(DType::F32, vec![1, 1, 28, 28], 1));
    npy("three.npy", &seeded(DType::F32, vec![3, 1, 28, 28], 1));
    npy("double.npy", &seeded(DType::F64, vec![1, 1, 28, 28], 1));
    npy("small.npy", &seeded(DType::F32, vec![1, 1, 8, 28], 1));
    npy("shape.npy", &Tensor::from_i128(DType::I64, vec![2], [3, 4]));
    npy("a.npy", &seeded(DType::F32, vec![5, 4], 1));
    let add = [node("Add", "add1", &["in/a", "b"], &["out/sum"]), node("Relu", "relu1", &["out/sum"], &["out/relu"])];
    let [a, b, sum, relu] = ["in/a", "b", "out/sum", "out/relu"].map(|n| value(n, &["N", "4"]));
    put("add.onnx", &model(&add, &[a, b], &[sum, relu]));
    let both = [node("Relu", "r", &["x"], &["a/b"]), node("Neg", "n", &["x"], &["a_b"])];
    let [x, y, z] = ["x", "a/b", "a_b"].map(|n| value(n, &["4"]));
    put("clash.onnx", &model(&both, std::slice::from_ref(&x), &[y, z]));
    let reshape = [node("Reshape", "rs", &["x", "int_shape"], &["y"])];
    put(
        "reshape.onnx",
        &model(&reshape, &[value("x", &["12"]), value("int_shape", &["2"])], &[value("y", &["m", "n"])]),
    );
    let strange = [node("NonMaxSuppression", "nms", &["x", "x"], &["y"])];
    put("strange.onnx", &model(&strange, std::slice::from_ref(&x), &[value("y", &["n"])]));
    let wrong = [
        node("Foo", "foo1", &["x"], &["f"]),
        node("Add", "add1", &["x", "v"], &["s"]),
        node("MatMul", "mm1", &["x", "v"], &["m"]),
    ];
    put("wrong.onnx", &model(&wrong, &[x, value("v", &["5"])], &[value("f", &["n"]), value("s", &["n"])]));
    put("not.onnx", b"not a model");
    put("not.so", b"not a library");
    dir
}

#[test]
fn compiles_every_kind_of_output() {
    let dir = folder();
    let d = dir.path();
    let summary =
        says(d, "compile zoo:lenet5 --dim batch=1 -o l.so --header l.h --prefix my-net --timings", 0, &[]).out;
    for word in ["operators", "weights", "arena", "file", " s\n", "codegen"] {
        assert!(summary.contains(word), "{summary}");
    }
    assert!(std::fs::read_to_string(d.join("l.h")).unwrap().contains("lehr_model_my_net"));
    for (kind, word) in [("ir", "graph @lenet5"), ("kernels", "step 0: c1"), ("clif", "function"), ("asm", "ret")] {
        says(d, &format!("compile zoo:lenet5 --dim batch=1 --emit {kind} -o -"), 0, &[word]);
    }
    says(d, "compile zoo:lenet5 --dim batch=1 --emit obj -o l.o", 0, &[]);
    assert!(std::fs::read(d.join("l.o")).unwrap().starts_with(b"\x7fELF"));
    says(d, "compile zoo:lenet5 --dim batch=1 --quiet -o q.so", 0, &[]);
}

#[test]
fn every_cpu_of_the_help_text_compiles() {
    let dir = folder();
    let first = says(dir.path(), "run zoo:lenet5 --input image.npy -O0", 0, &[]).out;
    let largest =
        |text: &str| text.split("largest at ").nth(1).map(|t| t.split_whitespace().next().unwrap().to_string());
    for cpu in ["native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "znver3"] {
        says(dir.path(), &format!("compile zoo:lenet5 --dim batch=1 --target-cpu {cpu} -o {cpu}.so"), 0, &[]);
        let answer = lehr(dir.path(), &format!("run {cpu}.so --input image.npy"));
        // A machine without the CPU's features refuses to load the library.
        if answer.code == 0 {
            assert_eq!(largest(&answer.out), largest(&first), "{cpu}");
        }
    }
}

#[test]
fn compile_says_what_is_wrong_with_its_arguments() {
    let dir = folder();
    let d = dir.path();
    assert!(Command::new("mkfifo").arg(d.join("fifo")).status().unwrap().success());
    says(d, "compile zoo:lenet5 -o x.so", 4, &["--dim batch="]);
    says(d, "compile zoo:lenet5 --dim bacth=1 -o x.so", 4, &["no symbolic dimension bacth", "batch"]);
    says(d, "compile add.onnx --dim M=1 -o x.so", 4, &["no symbolic dimension M"]);
    says(d, "compile zoo:lenet5 --dim batch=99999999999999 -o x.so", 1, &["value 'image'", "2^40"]);
    says(d, "compile zoo:lenet5 --dim batch=-3 -o x.so", 2, &["'-3' is no size"]);
    says(d, "compile zoo:lenet5 --dim batch=1 --target-cpu nope -o x.so", 2, &["nope", "x86-64-v3"]);
    says(d, "compile zoo:lenet5 --dim batch=1 -o -", 2, &["standard output"]);
    says(d, "compile zoo:lenet5 --dim batch=1 -o fifo", 2, &["no regular file"]);
    says(d, "compile zoo:lenet5 --dim batch=1 -o .", 2, &["folder"]);
    says(d, "compile zoo:lenet5 --dim batch=1 -o no/x.so", 2, &["there is no folder no"]);
    says(d, "compile zoo:lenet5 --dim batch=1 --emit ir -o x --header x.h", 2, &["--header"]);
    says(d, "compile zoo:lenet9 -o x.so", 2, &["zoo:lenet9", "lenet5"]);
    says(d, "compile none.onnx -o x.so", 2, &["none.onnx", "No such file"]);
    says(d, "compile . -o x.so", 2, &["not a regular file"]);
    says(d, "compile not.onnx -o x.so", 1, &["not an ONNX model"]);
    assert!(!d.join("x.so").exists() && !d.join("x").exists());
}

#[test]
fn runs_models_on_files_and_random_values() {
    let dir = folder();
    let d = dir.path();
    let by_jit = says(d, "run zoo:lenet5 --input image=image.npy", 0, &["probabilities: f32[1,10]", "largest at"]).out;
    let by_eval = says(d, "run zoo:lenet5 --eval --input image.npy", 0, &[]).out;
    let largest = |text: &str| text.split("largest at ").nth(1).unwrap().lines().next().unwrap().to_string();
    assert_eq!(largest(&by_jit), largest(&by_eval));
    says(d, "run zoo:lenet5 --input three.npy", 0, &["f32[3,10]"]);
    says(d, "run zoo:lenet5 --input random:1", 0, &["note: dimension batch is taken as 1"]);
    says(d, "run add.onnx --input in/a=a.npy --input random:3", 0, &["out/sum: f32[5,4]"]);
    says(d, "run reshape.onnx --input random:1 --input int_shape=shape.npy", 0, &["y: f32[3,4]"]);
    says(d, "run add.onnx --input random:1 --output-dir out", 0, &["out/out_sum.npy: f32[1,4]"]);
    assert!(d.join("out/out_relu.npy").exists());
    let sum = lehr::npy::parse(std::fs::read(d.join("out/out_sum.npy")).unwrap().into()).unwrap();
    assert_eq!(sum.shape(), [1, 4]);
}

#[test]
fn run_says_what_is_wrong_with_its_inputs() {
    let dir = folder();
    let d = dir.path();
    says(d, "run zoo:lenet5 --input imaeg=image.npy", 2, &["no input 'imaeg'", "image"]);
    says(d, "run zoo:lenet5 --input double.npy", 2, &["'image'", "f64[1,1,28,28]", "needs f32[1,1,28,28]"]);
    says(d, "run zoo:lenet5 --input small.npy", 2, &["f32[1,1,8,28]", "needs f32[1,1,28,28]"]);
    says(d, "run zoo:lenet5 --input a.npy", 2, &["f32[5,4]", "needs f32[batch,1,28,28]"]);
    says(d, "run zoo:lenet5 --dim batch=2 --input image.npy", 2, &["needs f32[2,1,28,28]"]);
    says(d, "run zoo:lenet5", 2, &["input 'image' is missing"]);
    says(d, "run zoo:lenet5 --input none.npy", 2, &["none.npy"]);
    says(d, "run zoo:lenet5 --input random:x", 2, &["a seed is a whole number"]);
    says(d, "run add.onnx --input a.npy", 2, &["2 inputs", "in/a, b"]);
    says(d, "run add.onnx --input b=a.npy --input b=random:1", 2, &["'b' is given twice"]);
    says(d, "run reshape.onnx --input x=random:1", 4, &["'rs' (Reshape)", "--bind int_shape=FILE"]);
    says(d, "run clash.onnx --input random:1 --output-dir out", 1, &["'a/b' and 'a_b'"]);
    says(d, "run zoo:lenet5 --input image.npy --output-dir image.npy", 2, &["image.npy"]);
    says(d, "run not.so --input random:1", 2, &["not.so"]);
    says(d, "run none.so --input random:1", 2, &["none.so"]);
}

#[test]
fn a_library_takes_no_options_of_compilation() {
    let dir = folder();
    let d = dir.path();
    says(d, "compile zoo:lenet5 --dim batch=1 --quiet -o l.so", 0, &[]);
    let model = says(d, "run zoo:lenet5 --dim batch=1 --input image.npy --output-dir a", 0, &[]);
    assert_eq!(model.out, "a/probabilities.npy: f32[1,10]\n");
    says(d, "run l.so --input image.npy --output-dir b", 0, &[]);
    let file = |folder: &str| std::fs::read(d.join(folder).join("probabilities.npy")).unwrap();
    assert_eq!(file("a"), file("b"));
    for flags in ["-O1", "--eval", "--dim batch=2", "--target-cpu native"] {
        says(d, &format!("run l.so --input image.npy {flags}"), 2, &["compiled already"]);
    }
    for flags in ["--batch 2", "--compare O0,O2", "-O0"] {
        says(d, &format!("bench l.so {flags}"), 2, &["compiled already"]);
    }
    says(d, "check l.so", 2, &["compiled library"]);
    std::fs::rename(d.join("l.so"), d.join("l.so.1")).unwrap();
    says(d, "run ./l.so.1 --input image.npy", 0, &["probabilities"]);
}

#[test]
fn check_reports_everything_with_its_exit_code() {
    let dir = folder();
    let d = dir.path();
    says(d, "check zoo:lenet5 --dim batch=1", 0, &["no problems"]);
    let words = ["'foo1' (Foo)", "'add1' (Add)", "'mm1' (MatMul)", "opset: 17", "f32[4]", "f32[5]", "3 problems"];
    says(d, "check wrong.onnx", 1, &words);
    let report = json(d, "check wrong.onnx --json", 1);
    let nodes: Vec<&str> =
        report["errors"].as_array().unwrap().iter().map(|e| e["location"]["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["foo1", "add1", "mm1"]);
    says(d, "check none.onnx", 2, &[]);
    says(d, "check strange.onnx", 3, &["NonMaxSuppression", "opset 17"]);
    says(d, "check zoo:lenet5", 4, &["--dim batch="]);
    says(d, "check reshape.onnx", 4, &["--bind int_shape=FILE"]);
    assert_eq!(json(d, "check zoo:lenet5 --dim batch=1 --json", 0)["errors"].as_array().unwrap().len(), 0);
}

#[test]
fn inspect_shows_every_stage() {
    let dir = folder();
    let d = dir.path();
    let help = says(d, "inspect --help", 0, &[]).out;
    for pass in lehr::passes::all_passes() {
        assert!(help.contains(pass.name), "the help does not list {}", pass.name);
        let leave = if pass.name == "approximate" { " --approximate 0.01" } else { "" };
        says(d, &format!("inspect zoo:lenet5 --after {}{leave}", pass.name), 0, &["graph @lenet5"]);
    }
    says(d, "inspect zoo:lenet5", 0, &["239904*batch", "layout c1:", "batch = 1", "arena peak", "conv_tanh"]);
    says(d, "inspect zoo:lenet5 -O0 --max-nodes 2", 0, &["nodes are not shown", "more (--max-nodes"]);
    says(d, "inspect zoo:lenet5 --print-changed --filter c1", 0, &["; after fuse-epilogues"]);
    says(d, "inspect zoo:lenet5 --format dot", 0, &["digraph", "c1\\nc1/tanh", "->"]);
    let report = json(d, "inspect zoo:lenet5 --dim batch=2 --format json", 0);
    assert_eq!(report["params"], 61706);
    assert_eq!(report["flops"], 2 * 845_902);
    assert_eq!(report["layers"][0]["nodes"][0], "c1");
    assert!(report["arena_bytes"].as_u64().unwrap() > 0);
    says(d, "inspect zoo:lenet5 --after fold", 2, &["no pass 'fold'", "fold-constants"]);
    says(d, "inspect zoo:lenet5 --filter nothing", 2, &["'nothing'"]);
    says(d, "inspect zoo:lenet5 --print-changed --format json", 2, &["--print-changed"]);
}

#[test]
fn approximations_are_asked_for_and_reported() {
    let dir = folder();
    let d = dir.path();
    let words = [
        "declined factorize-conv at c1: 5x5 as 3x3, 3x3 over",
        "> 0.01 on the weights",
        "declined separate-conv at c1",
    ];
    says(d, "inspect zoo:lenet5 --approximate 0.01", 0, &words);
    // With enough leave something is faster, and wrong by as much as is said.
    let report = json(d, "inspect zoo:lenet5 --dim batch=1 --approximate 0.9 --format json", 0);
    let events = report["applied"].as_array().unwrap().iter().chain(report["declined"].as_array().unwrap());
    assert!(events.filter_map(|e| e.as_str()).any(|e| e.contains("-conv at c1: ") && e.contains("times as fast")));
    says(d, "run zoo:lenet5 --input random:1 --approximate 0.01", 0, &["probabilities"]);
    says(d, "compile zoo:lenet5 --dim batch=1 --approximate 0.01 -o l.so", 0, &["kernels"]);
    let compare = "--dim batch=1 --seconds 0.05 --compare exact,approximate";
    says(d, &format!("bench zoo:lenet5 {compare} --approximate 0.01"), 0, &["exact takes", "approximate"]);
    says(d, &format!("bench zoo:lenet5 {compare}"), 2, &["--approximate TOL"]);
    says(d, "run l.so --approximate 0.01 --input random:1", 2, &["compiled already"]);
    says(d, "run zoo:lenet5 --input random:1 --eval --approximate 0.01", 2, &["--eval"]);
    says(d, "inspect zoo:lenet5 --after approximate", 2, &["--approximate TOL"]);
    for wrong in ["0", "1", "nan", "-0.1", "much"] {
        says(d, &format!("inspect zoo:lenet5 --approximate={wrong}"), 2, &["relative error between 0 and 1"]);
    }
}

/// Convolutions in blocks, of several sizes, in little time.
const SMALL: &str = "zoo:vgg11?input=32,classes=10,width=0.25 --dim batch=1";

#[test]
fn inspect_says_why_each_layer_is_computed_so() {
    let dir = folder();
    let d = dir.path();
    let v4 = format!("inspect {SMALL} --target-cpu x86-64-v4");
    let table = says(d, &format!("{v4} --table"), 0, &["operator", "predicted", "not direct ", "times as long"]).out;
    assert!(!table.contains("graph @") && !table.contains("measured"), "{table}");
    let again = says(d, &format!("{v4} --table"), 0, &[]).out;
    assert_eq!(table, again);
    says(d, &format!("{v4} --table --numerics strict"), 0, &["not F(", "--numerics strict: it rounds more"]);
    says(d, &format!("{v4} --table -Os"), 0, &["not F(", "-Os: its weights are larger"]);
    let report = json(d, &format!("{v4} --json"), 0);
    let layers = report["layers"].as_array().unwrap();
    let choice =
        layers.iter().map(|l| &l["choice"]).find(|c| c["strategy"].as_str().is_some_and(|s| s.starts_with("F(")));
    let rejected = choice.unwrap()["rejected"].as_array().unwrap();
    assert!(
        rejected.iter().all(|r| r["predicted_ms"].as_f64().unwrap() > 0.0 && r["reason"].is_string()),
        "{rejected:?}"
    );
    // What fits the caches decides.
    let small = says(d, &format!("{v4} --table --caches 16K,64K,64K"), 0, &[]).out;
    assert_ne!(table, small);
    says(d, &format!("{v4} --caches 1M"), 2, &["--caches", "32K,1M,16M"]);
    says(d, &format!("inspect {SMALL} --table --measure --seconds 0.05"), 0, &["measured", "of peak", "a run", " %"]);
    says(d, &format!("inspect {SMALL} --seconds 1"), 2, &["--measure"]);
}

#[test]
fn tuning_is_kept_and_used_again() {
    let dir = folder();
    let d = dir.path();
    says(
        d,
        &format!("compile {SMALL} -o t.so --tune --tune-seconds 1"),
        0,
        &["tuned: ", "kinds of convolutions", "t.so: "],
    );
    says(d, "inspect t.so", 0, &["input ", "tuned    on ", " x conv 1x"]);
    let metadata = &json(d, "inspect t.so --json", 0)["compiled"];
    let records = metadata["tuned"]["layers"].as_array().unwrap();
    assert!(!records.is_empty() && records.iter().all(|r| r["ms"].as_f64().unwrap() > 0.0), "{records:?}");
    // From the library or from a file, the same bytes.
    std::fs::write(d.join("tuned.json"), metadata["tuned"].to_string()).unwrap();
    let bytes = |file: &str| {
        says(d, &format!("compile {SMALL} -o a.so --tuned {file}"), 0, &[]);
        std::fs::read(d.join("a.so")).unwrap()
    };
    assert!(bytes("t.so") == bytes("tuned.json"));
    says(d, "inspect a.so", 0, &["tuned    on "]);
    says(d, &format!("inspect {SMALL} --table --tuned tuned.json"), 0, &["(tuned)"]);
    says(d, "run a.so --input random:1", 0, &[]);

    // Strategies that no layer can use, and one that is missing.
    let mut wrong = metadata["tuned"].clone();
    let layers = wrong["layers"].as_array_mut().unwrap();
    layers.remove(0);
    layers.iter_mut().for_each(|r| r["strategy"] = "direct tile=1x1 channels=16 share=rows/1000".into());
    std::fs::write(d.join("wrong.json"), wrong.to_string()).unwrap();
    let words = ["warning: ", "share=rows/1000' is not used: an image has ", "1 of ", " were not tuned"];
    says(d, &format!("compile {SMALL} -o b.so --tuned wrong.json"), 0, &words);
    let words = ["not as tuned, direct tile=1x1 channels=16 share=rows/1000: an image has "];
    says(d, &format!("inspect {SMALL} --table --tuned wrong.json"), 0, &words);

    says(d, &format!("compile {SMALL} -o c.so"), 0, &[]);
    assert!(!says(d, "inspect c.so", 0, &["compiled "]).out.contains("tuned"));
    says(d, &format!("compile {SMALL} -o d.so --tuned c.so"), 2, &["c.so", "no tuned strategies"]);
    says(d, &format!("compile {SMALL} -o d.so --tuned none.json"), 2, &["none.json"]);
    says(d, "compile zoo:vgg11?input=32 -o d.so --tune", 4, &["--dim batch=N"]);
    says(d, "compile zoo:lenet5 -o - --emit ir --tune", 2, &["--tune"]);
    says(d, "compile zoo:lenet5 -o x.ptx --target sm_80 --tune", 2, &["--tune"]);
    says(d, "compile zoo:lenet5 -o x.so --tune-seconds 3", 2, &["--tune"]);
    says(d, "inspect c.so -O1", 2, &["-O is for models"]);
    says(d, "inspect c.so --measure", 2, &["--measure is for models"]);
}

#[test]
fn explain_in_every_form() {
    let dir = folder();
    let d = dir.path();
    let words = ["fuse-epilogues", "layer 0: conv_tanh", "from      c1 + c1/tanh", "factorization of c1", "batch = 1"];
    says(d, "explain zoo:lenet5", 0, &words);
    let one = says(d, "explain zoo:lenet5 --node c3 --no-analyses --measure --seconds 0.02 --threads 1", 0, &[]).out;
    assert!(one.contains("layer 2") && !one.contains("layer 0") && one.contains("% of the run"), "{one}");
    let report = json(d, "explain zoo:lenet5 --dim batch=2 --no-analyses --format json", 0);
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.iter().map(|l| l["params"].as_u64().unwrap()).sum::<u64>(), 61706);
    assert_eq!((&report["schema"], &report["totals"]["flops"]), (&2.into(), &(2 * 845_902).into()));
    assert_eq!(report["after"]["nodes"][1]["layers"][0], 0);
    for (file, start) in [("p.html", "<!DOCTYPE html>"), ("p.json", "{"), ("p.txt", "lenet5 at -O2")] {
        says(d, &format!("explain zoo:lenet5 --no-analyses -o {file}"), 0, &[]);
        assert!(std::fs::read_to_string(d.join(file)).unwrap().starts_with(start), "{file}");
    }
    says(d, "explain zoo:lenet5 --no-analyses --format html -o -", 0, &["c3/tanh", "</html>"]);
    says(d, "explain zoo:lenet5 --node nothing", 2, &["'nothing'"]);
    says(d, "explain zoo:lenet5 --threads 2", 2, &["--measure"]);
    says(d, "explain zoo:lenet5 --no-analyses -o no/x.html", 2, &["no/x.html"]);
    says(d, "explain none.onnx", 2, &["none.onnx"]);
}

#[test]
fn bench_gives_figures() {
    let dir = folder();
    let d = dir.path();
    let one = json(d, "bench zoo:lenet5 --batch 2 --threads 1 --seconds 0.05 --json", 0);
    for field in ["median_ms", "p95_ms", "min_ms", "gflops"] {
        assert!(one[field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert_eq!((&one["threads"], &one["gflop"]), (&1.into(), &0.001691804.into()));
    for pair in ["O0,O2", "unfused,fused"] {
        let two = json(d, &format!("bench zoo:lenet5 --dim batch=1 --seconds 0.05 --json --compare {pair}"), 0);
        assert!(two["ratio"].as_f64().unwrap() > 0.0 && two["variants"].as_array().unwrap().len() == 2);
    }
    says(d, "bench clash.onnx --batch 2", 2, &["the model's batch is fixed"]);
    says(d, "bench zoo:lenet5 --batch 0", 2, &["--batch"]);
    says(d, "bench zoo:lenet5 --seconds nan", 2, &["--seconds"]);
    says(d, "bench zoo:lenet5 --compare O0,O9", 2, &["'O9'"]);
    says(d, "bench zoo:lenet5 --compare O0", 2, &["two variants"]);
}

/// A test directory in ONNX's form: y = Relu(x).
fn onnx_test(dir: &Path, name: &str, expected: &[f32]) {
    let set = dir.join(name).join("test_data_set_0");
    std::fs::create_dir_all(&set).unwrap();
    let relu = model(&[node("Relu", "r", &["x"], &["y"])], &[value("x", &["2"])], &[value("y", &["2"])]);
    std::fs::write(dir.join(name).join("model.onnx"), relu).unwrap();
    std::fs::write(set.join("input_0.pb"), onnx::tensor("x", &[-1.0, 2.0])).unwrap();
    std::fs::write(set.join("output_0.pb"), onnx::tensor("y", expected)).unwrap();
}

#[test]
fn a_test_that_fails_or_hangs_fails_alone() {
    let dir = folder();
    let d = dir.path();
    onnx_test(d, "good", &[0.0, 2.0]);
    onnx_test(d, "bad", &[0.0, 3.0]);
    onnx_test(d, "broken", &[0.0, 2.0]);
    onnx_test(d, "skipped", &[0.0, 2.0]);
    onnx_test(d, "hangs", &[0.0, 2.0]);
    std::fs::copy(d.join("not.onnx"), d.join("broken/model.onnx")).unwrap();
    std::fs::copy(d.join("strange.onnx"), d.join("skipped/model.onnx")).unwrap();
    // Opening a pipe that nobody writes to waits for ever.
    std::fs::remove_file(d.join("hangs/model.onnx")).unwrap();
    assert!(Command::new("mkfifo").arg(d.join("hangs/model.onnx")).status().unwrap().success());
    for backend in ["eval", "jit", "so"] {
        says(d, &format!("test --backend {backend} good"), 0, &["passed good", "1 passed, 0 failed, 0 skipped"]);
    }
    let words = ["passed good", "FAILED bad", "element 1", "FAILED broken", "skipped skipped", "FAILED hangs"];
    let all = "test --jobs 2 --timeout 5 good bad broken skipped hangs nowhere";
    let lines = says(d, all, 1, &words).out;
    assert_eq!(lines.lines().last().unwrap(), "1 passed, 4 failed, 1 skipped");
    let report = json(d, "test --json good bad", 1);
    assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &1.into()));
    assert_eq!(report["tests"][1]["status"], "failed");
    says(d, "test --jobs 0 good", 2, &["--jobs"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let dir = folder();
    let args = ["compile", "zoo:lenet5", "--dim", "batch=1", "--emit", "asm", "-o", "-"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_lehr"))
        .args(args)
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn standard_input_is_a_model_too() {
    let dir = folder();
    let file = std::fs::File::open(dir.path().join("clash.onnx")).unwrap();
    let lehr = env!("CARGO_BIN_EXE_lehr");
    let output = Command::new(lehr).args(["run", "-", "--input", "random:1"]).stdin(file).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("a_b: f32[4]"));
    let output = Command::new(lehr).args(["check", "-"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_says_what_each_command_does() {
    let dir = folder();
    for command in ["compile", "run", "test", "inspect", "explain", "check", "bench", "zoo"] {
        says(dir.path(), &format!("{command} --help"), 0, &["Usage:", "Example", &format!("lehr {command}")]);
    }
    says(dir.path(), "--help", 0, &["Exit codes", "zoo:lenet5"]);
}

#[test]
fn zoo_lists_shows_and_writes_networks() {
    let dir = folder();
    let d = dir.path();
    says(d, "zoo", 0, &["resnet50", "25557032", "densenet121", "hnet", "Going Deeper with Convolutions (2014)"]);
    let all = json(d, "zoo --json", 0);
    assert_eq!(all.as_array().unwrap().len(), lehr::frontends::zoo::NETWORKS.len());
    let words =
        ["61706 parameters", "image: f32[batch,1,28,28]", "probabilities: f32[batch,10]", "width=1", "weights=FILE"];
    says(d, "zoo lenet5", 0, &words);
    says(d, "zoo lenet5?classes=3", 0, &["f32[batch,3]"]);
    assert_eq!(json(d, "zoo zoo:lenet5 --json", 0)["parameters"], 61_706);
    says(d, "zoo lenet5 -o l.onnx", 0, &["l.onnx: lenet5, 24"]);
    let file = |name: &str| std::fs::read(d.join(name)).unwrap();
    says(d, "zoo lenet5 -o again.onnx", 0, &[]);
    assert!(file("l.onnx") == file("again.onnx"), "two files of one network differ");
    says(d, "run l.onnx --input image=image.npy --output-dir of-file", 0, &["f32[1,10]"]);
    says(d, "run zoo:lenet5 --input image.npy --output-dir of-name", 0, &[]);
    assert!(file("of-file/probabilities.npy") == file("of-name/probabilities.npy"));

    says(d, "zoo lenet9", 2, &["no network zoo:lenet9", "lenet5"]);
    says(d, "zoo lenet5?depth=3", 2, &["no setting depth", "input=28, classes=10, width=1"]);
    says(d, "zoo vgg11?input=16", 2, &["zoo:vgg11?input=16", "features.20", "input=224"]);
    says(d, "run zoo:lenet5?classes=0 --input random:1", 2, &["classes=0", "from 1 to"]);
    says(d, "zoo -o x.onnx", 2, &["-o needs a network"]);
    says(d, "zoo lenet5 -o no/x.onnx", 2, &["there is no folder no"]);
    says(d, "zoo lenet5 -o .", 2, &["it is a folder"]);
    says(d, "run zoo:lenet5?weights=none.npz --input random:1", 2, &["none.npz"]);
}
