//! The example programs, built and run as a user would, and giving what the evaluator gives.

use lehr::ir::{DType, Tensor};
use lehr::{CompileOptions, LoadOptions, Runner, compile_so, load};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../examples/own_network.rs"]
mod own_network;

/// LeNet-5 compiled into `dir`, with its header, by the command line's own code.
fn compile_lenet(dir: &Path) -> PathBuf {
    let so = dir.join("lenet5.so");
    let args = ["lehr", "compile", "zoo:lenet5", "--dim", "batch=1", "--quiet", "-o"];
    let args = args.iter().map(|a| a.into());
    let rest = [so.clone().into_os_string(), "--header".into(), dir.join("lenet5.h").into_os_string()];
    let code = lehr::cli::main(args.chain(rest));
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
    so
}

fn expected() -> Vec<f64> {
    let options = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let model = load("zoo:lenet5", &options).unwrap();
    let image = (0..28 * 28).map(|i| f64::from(i % 29) / 28.0 - 0.5);
    let image = Tensor::from_f64(DType::F32, vec![1, 1, 28, 28], image);
    Runner::eval(model.graph).run(&[image]).unwrap()[0].to_f64()
}

fn check(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let values: Vec<f64> = text.lines().map(|l| l.parse().unwrap()).collect();
    let expected = expected();
    assert_eq!(values.len(), expected.len());
    for (v, e) in values.iter().zip(&expected) {
        assert!((v - e).abs() < 2e-6, "{values:?}\n{expected:?}");
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The C compiler; users need none, so a machine without one skips what only a C programmer would do, and says so.
fn cc(args: &[&str], dir: &Path) -> bool {
    match Command::new("cc").args(args).current_dir(dir).output() {
        Ok(out) => {
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            true
        }
        Err(_) => {
            eprintln!("NOT RUN: there is no C compiler 'cc' here");
            false
        }
    }
}

#[test]
fn a_c_program_links_a_model_by_its_header() {
    let dir = tempfile::tempdir().unwrap();
    compile_lenet(dir.path());
    let source = examples().join("linked.c");
    let args = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I.",
        &source.to_string_lossy(),
        "-o",
        "linked",
        "./lenet5.so",
        "-Wl,-rpath,$ORIGIN",
    ];
    if cc(&args, dir.path()) {
        check(&Command::new("./linked").current_dir(dir.path()).output().unwrap());
    }
}

#[test]
fn a_c_program_loads_a_model_by_dlopen() {
    let dir = tempfile::tempdir().unwrap();
    let so = compile_lenet(dir.path());
    let source = examples().join("dlopen.c");
    let args = ["-std=c11", "-Wall", "-Wextra", "-I.", &source.to_string_lossy(), "-o", "dlopen", "-ldl"];
    if cc(&args, dir.path()) {
        let run = Command::new("./dlopen").arg(so).arg("lehr_model_lenet5").current_dir(dir.path()).output();
        check(&run.unwrap());
    }
}

#[test]
fn a_python_script_runs_a_model_with_ctypes_and_numpy() {
    let has_numpy = Command::new("python3").args(["-c", "import numpy"]).output().is_ok_and(|o| o.status.success());
    if !has_numpy {
        eprintln!("NOT RUN: there is no python3 with numpy here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let so = compile_lenet(dir.path());
    let script = examples().join("ctypes_run.py");
    let output = Command::new("python3").arg(script).arg(so).arg("lehr_model_lenet5").output().unwrap();
    check(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused: input 0"), "the model names what is wrong");
}

#[test]
fn the_facade_compiles_in_process_and_loads_a_library() {
    // The example itself is built by cargo as `examples/facade`; this is what it does, and must agree with the evaluator.
    let options = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let model = load("zoo:lenet5", &options).unwrap();
    let image = (0..28 * 28).map(|i| f64::from(i % 29) / 28.0 - 0.5);
    let image = Tensor::from_f64(DType::F32, vec![1, 1, 28, 28], image);
    let here = Runner::jit(model.graph.clone(), &CompileOptions::default(), 0)
        .unwrap()
        .run(std::slice::from_ref(&image))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.so");
    compile_so(model.graph, &CompileOptions::default(), &path).unwrap();
    let there = Runner::open(&path, 1).unwrap().run(&[image]).unwrap();
    assert_eq!(here, there);
    for (v, e) in here[0].to_f64().iter().zip(expected()) {
        assert!((v - e).abs() < 2e-6);
    }
}

#[test]
fn a_network_of_ones_own_is_built_written_and_run() {
    own_network::main().unwrap();
}
