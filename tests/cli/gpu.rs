//! Code for GPUs through the command line: the stand-in for NVIDIA's driver, other machines that it can be, and no driver at all.

use crate::{Answer, folder, lehr, lehr_with, onnx_test, says};
use lehr_cuda_sim::library;
use serde_json::Value;
use std::path::Path;

/// Runs `lehr ARGS` on a machine with the stand-in driver, as `machine` describes it.
#[track_caller]
fn on(machine: &str, dir: &Path, args: &str, code: i32, words: &[&str]) -> Answer {
    let driver = library();
    let answer = lehr_with(dir, args, &[("LEHR_CUDA_DRIVER", driver.to_str().unwrap()), ("LEHR_CUDA_SIM", machine)]);
    check(answer, args, code, words)
}

/// The same without a driver.
#[track_caller]
fn without(dir: &Path, args: &str, code: i32, words: &[&str]) -> Answer {
    check(lehr_with(dir, args, &[("LEHR_CUDA_DRIVER", "/nonexistent/libcuda.so.1")]), args, code, words)
}

#[track_caller]
fn check(answer: Answer, args: &str, code: i32, words: &[&str]) -> Answer {
    let all = format!("{}{}", answer.out, answer.err);
    assert_eq!(answer.code, code, "lehr {args}\n{all}");
    for w in words {
        assert!(all.contains(w), "lehr {args}: '{w}' is not in\n{all}");
    }
    answer
}

/// The line of a run's summary that has the values.
fn values(answer: &Answer) -> &str {
    answer.out.lines().nth(1).unwrap_or_default().trim()
}

#[test]
fn a_library_for_gpus_runs_where_there_is_one() {
    let dir = folder();
    let d = dir.path();
    let on_cpu = says(d, "run zoo:lenet5 --dim batch=1 --input image.npy -O0", 0, &[]);
    let flags = "--dim batch=1 --target sm_80";
    says(d, &format!("compile zoo:lenet5 {flags} -o g.so --header g.h"), 0, &["9 launches", "memory of the GPU"]);
    assert!(std::fs::read_to_string(d.join("g.h")).unwrap().contains("int32_t lehr_model_g_run_on(void *ws"));
    let ran = on("", d, "run g.so --input image.npy", 0, &["on GPU 0, Simulated GPU (sm_90)"]);
    assert_eq!(values(&ran), values(&on_cpu));
    let ran = on("", d, &format!("run zoo:lenet5 {flags} --gpu-precision tf32 --input image.npy"), 0, &["on GPU 0"]);
    assert_ne!(values(&ran), values(&on_cpu), "factors are rounded");
    on("", d, "bench g.so --seconds 0", 0, &["median", "on GPU 0"]);
    let figures = on("", d, &format!("bench zoo:lenet5 {flags} --seconds 0 --json"), 0, &["runs_on"]).out;
    assert!(!figures.contains("share_of_peak"), "the CPU's peak is no measure of a GPU: {figures}");
    onnx_test(d, "good", &[0.0, 2.0]);
    onnx_test(d, "bad", &[0.0, 3.0]);
    for backend in ["jit", "so"] {
        let args = format!("test --target sm_90 --backend {backend} good bad");
        on("", d, &args, 1, &["passed good", "FAILED bad", "element 1"]);
    }
    let about = ["sm_80 or later", "CUDA 11.4", "PTX 7.1"];
    on("", d, "inspect g.so --open", 0, &[&about[..], &["it runs on GPU 0, Simulated GPU"]].concat());
    // What is written in it needs no driver, and no memory.
    without(d, "inspect g.so", 0, &[&about[..], &["not tried; --open"]].concat());
    let shown: Value = serde_json::from_str(&without(d, "inspect g.so --json", 0, &[]).out).unwrap();
    assert_eq!((&shown["tried"], &shown["runs_on"], &shown["why_not"]), (&false.into(), &Value::Null, &Value::Null));
    says(d, "inspect zoo:lenet5 --open", 2, &["--open is for compiled libraries"]);
}

#[test]
fn what_is_missing_is_said() {
    let dir = folder();
    let d = dir.path();
    let run = "run g.so --input image.npy";
    says(d, "compile zoo:lenet5 --dim batch=1 --target sm_90 -o g.so -q", 0, &[]);
    without(d, run, 2, &["there is no NVIDIA driver: /nonexistent/libcuda.so.1"]);
    // Something else under that name.
    let not_driver = lehr_with(d, run, &[("LEHR_CUDA_DRIVER", "libc.so.6")]);
    check(not_driver, run, 2, &["does not say its version, so it is none"]);
    on("devices=0", d, run, 2, &["the NVIDIA driver sees no GPU"]);
    on("driver=11040", d, run, 2, &["too old: it is for CUDA 11.4, the model needs one for CUDA 11.8 or later"]);
    on(
        "capability=80,devices=2",
        d,
        run,
        2,
        &["for sm_90 and later", "GPU 0, Simulated GPU (sm_80) is the first of 2"],
    );
    on("memory=1000", d, run, 2, &["the model needs 0.", "MB (0.3 MB for weights, ", "0.1 MB of 0.1 MB were free"]);
    on("ptx=refused", d, run, 2, &["refuses the model's PTX 7.8: CUDA_ERROR_INVALID_PTX (218)", "line 1; fatal"]);
    on("fail=cuModuleLoadDataEx:0:221", d, run, 2, &["libnvidia-ptxjitcompiler.so.1 is missing: install it"]);
    on("fail=cuInit:0:803", d, run, 2, &["the NVIDIA driver failed: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"]);
    // Also if it fails when the model is open.
    on(
        "fail=cuGraphLaunch:0:2",
        d,
        run,
        2,
        &["the GPU has not enough memory: cuGraphLaunch: CUDA_ERROR_OUT_OF_MEMORY (2)"],
    );
    on("fail=cuGraphLaunch:1:719", d, "bench g.so --seconds 0", 2, &["the NVIDIA driver failed: cuGraphLaunch"]);
    without(d, "inspect g.so --open", 0, &["it does not run: there is no NVIDIA driver"]);
    without(d, "bench g.so", 2, &["there is no NVIDIA driver"]);
    without(d, "run zoo:lenet5 --target sm_80 --input image.npy", 2, &["there is no NVIDIA driver"]);
    onnx_test(d, "good", &[0.0, 2.0]);
    without(d, "test --target sm_80 good", 1, &["FAILED good", "there is no NVIDIA driver"]);
}

#[test]
fn the_cpu_stands_in_if_the_library_has_code_for_it() {
    let dir = folder();
    let d = dir.path();
    let on_cpu = says(d, "run zoo:lenet5 --dim batch=1 --input image.npy", 0, &[]);
    let flags = "--dim batch=1 --target sm_80 --cpu-fallback";
    says(d, &format!("compile zoo:lenet5 {flags} -o f.so"), 0, &["code for the CPU", "weights that both use"]);
    let run = "run f.so --input image.npy --threads 2";
    on("", d, run, 0, &["on GPU 0"]);
    for (machine, why) in [
        ("devices=0", "sees no GPU"),
        ("driver=11030", "too old"),
        ("capability=75", "sm_75"),
        ("memory=300", "not enough memory"),
        ("ptx=refused", "INVALID_PTX"),
        ("fail=cuGraphInstantiateWithFlags:0:2", "the GPU has not enough memory: cuGraphInstantiate"),
    ] {
        let ran = on(machine, d, run, 0, &["note: it runs on the CPU, since", why]);
        assert_eq!(values(&ran), values(&on_cpu), "{machine}");
    }
    let ran = without(d, run, 0, &["note: it runs on the CPU, since there is no NVIDIA driver"]);
    assert_eq!(values(&ran), values(&on_cpu));
    without(d, "inspect f.so --open", 0, &["it runs on the CPU, since", "CPU      SSE2"]);
    let shown: Value = serde_json::from_str(&without(d, "inspect f.so --open --format json", 0, &[]).out).unwrap();
    assert_eq!((&shown["gpu"]["cpu_fallback"], &shown["gpu"]["launches"]), (&true.into(), &9.into()));
    assert!(shown["runs_on"].as_str().unwrap().starts_with("the CPU"));
    let said = ["note: it runs on the CPU", "(first run), on the CPU, since"];
    without(d, &format!("run zoo:lenet5 {flags} --input image.npy"), 0, &said);
    let said = ["note: it runs on the CPU", "on the CPU, since there is no NVIDIA driver"];
    without(d, &format!("bench zoo:lenet5 {flags} --seconds 0"), 0, &said);
    onnx_test(d, "good", &[0.0, 2.0]);
    for backend in ["jit", "so"] {
        let test = format!("test --target sm_80 --cpu-fallback --backend {backend} good");
        without(d, &test, 0, &["passed good", ", on the CPU)", "note: 1 of 1 tests ran on the CPU, since there is no"]);
        assert!(!on("", d, &test, 0, &["passed good"]).out.contains("CPU"));
    }
    let shown = without(d, "test --target sm_80 --cpu-fallback --json good", 0, &[]).out;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["tests"][0]["stand_in"].as_str().unwrap().starts_with("the CPU, since"));
}

#[test]
fn files_beside_the_text_are_replaced_only_if_lehr_wrote_them() {
    let dir = folder();
    let d = dir.path();
    let compile = "compile zoo:lenet5 --dim batch=1 --target sm_80 -o net.ptx -q";
    let written = |name: &str| std::fs::read(d.join(name)).unwrap();
    for foreign in ["{\"tokens\": 7}", "no json", "\u{fffd}"] {
        std::fs::write(d.join("net.json"), foreign).unwrap();
        says(d, compile, 2, &["net.json: it is no launch plan of lehr's", "another -o"]);
        assert!(written("net.json") == foreign.as_bytes() && !d.join("net.ptx").exists());
    }
    std::fs::write(d.join("net.json"), [0xff, 0xfe]).unwrap();
    says(d, compile, 2, &["net.json: it is no launch plan"]);
    std::fs::remove_file(d.join("net.json")).unwrap();
    std::fs::write(d.join("net.weights"), "mine").unwrap();
    says(d, compile, 2, &["net.weights: there is no launch plan of lehr's beside it"]);
    assert_eq!(written("net.weights"), b"mine");
    std::fs::remove_file(d.join("net.weights")).unwrap();
    says(d, compile, 0, &[]);
    let plan: Value = serde_json::from_slice(&written("net.json")).unwrap();
    assert!(plan["producer"].as_str().unwrap().starts_with("lehr ") && plan["kernels"][0]["group"].is_string());
    let first = ["net.ptx", "net.json", "net.weights"].map(written);
    // A link that another module shares its weights by is replaced, not written through.
    std::fs::rename(d.join("net.weights"), d.join("other.weights")).unwrap();
    std::os::unix::fs::symlink("other.weights", d.join("net.weights")).unwrap();
    says(d, &compile.replace("-q", "-q --gpu-precision f16"), 0, &[]);
    assert_eq!(written("other.weights"), first[2]);
    assert!(!d.join("net.weights").is_symlink() && written("net.weights") != first[2]);
    says(d, compile, 0, &[]);
    assert!(["net.ptx", "net.json", "net.weights"].map(written) == first, "the same bytes again");
    std::fs::remove_file(d.join("net.weights")).unwrap();
    std::fs::create_dir(d.join("net.weights")).unwrap();
    says(d, compile, 2, &["net.weights: it is a folder"]);
    let mut left = std::fs::read_dir(d).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert!(left.all(|name| !name.ends_with(".partial")));
}

#[test]
fn arguments_that_say_nothing_are_refused() {
    let dir = folder();
    let d = dir.path();
    let compile = "compile zoo:lenet5 --dim batch=1";
    says(d, &format!("{compile} --target sm_80 -o x.bin"), 2, &["FILE.so", "FILE.ptx"]);
    says(d, &format!("{compile} --target sm_80 --cpu-fallback -o x.ptx"), 2, &["--cpu-fallback is for libraries"]);
    says(d, &format!("{compile} --target sm_80 --header x.h -o x.ptx"), 2, &["--header is for libraries"]);
    says(d, &format!("{compile} --cpu-fallback -o x.so"), 2, &["--target"]);
    says(d, &format!("{compile} --target sm_99 -o x.so"), 2, &["sm_80, sm_90"]);
    says(d, &format!("{compile} --target sm_80 --target-cpu x86-64 -o x.so"), 2, &["--cpu-fallback"]);
    says(d, &format!("{compile} --target sm_80 --approximate 0.1 -o x.so"), 2, &["--approximate measures"]);
    std::fs::write(d.join("t.json"), r#"{"cpu": "", "threads": 1, "layers": []}"#).unwrap();
    for flags in ["--caches 32K,1M,16M", "--tuned t.json"] {
        let said = [&flags[..7], "is for CPUs", "--cpu-fallback"];
        says(d, &format!("{compile} --target sm_80 {flags} -o x.so"), 2, &said);
        says(d, &format!("run zoo:lenet5 --input image.npy --target sm_80 {flags}"), 2, &said);
        says(d, &format!("inspect zoo:lenet5 --target sm_80 {flags}"), 2, &said);
        says(d, &format!("{compile} --target sm_80 --cpu-fallback {flags} -o y.so -q"), 0, &[]);
    }
    says(d, &format!("{compile} --target sm_80 --tune -o x.so"), 2, &["--tune", "--target", "cannot be used"]);
    says(d, "run zoo:lenet5 --input image.npy --target sm_80 --eval", 2, &["--eval"]);
    says(d, "test --target sm_80 --backend eval good", 2, &["--backend eval"]);
    says(d, &format!("{compile} -o l.so -q"), 0, &[]);
    says(d, "run l.so --input image.npy --target sm_80", 2, &["compiled already"]);
    says(d, "inspect l.so --filter conv", 2, &["compiled already"]);
    says(d, "inspect l.so", 0, &["image: f32[1,1,28,28]", "CPU ", "it runs on the CPU"]);
    assert!(!d.join("x.so").exists() && lehr(d, "inspect not.so").code == 2);
}
