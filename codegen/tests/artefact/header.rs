//! The generated header, compiled by the C and C++ compilers of this machine, in programs that link a model and that dlopen one.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::adder::*;
use lehr_codegen::artefact::*;
use lehr_codegen::runtime::abi::{self, dtype};

const N: i64 = 37;

const MAIN: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#ifdef LOAD
#include <dlfcn.h>
#endif
#include "adder.h"
#include "odd.h"

int main(int argc, char **argv) {
  static float a[LEHR_MODEL_ADDER_INPUT_A_ELEMENTS], b[LEHR_MODEL_ADDER_INPUT_B_2_ELEMENTS];
  static float sum[LEHR_MODEL_ADDER_OUTPUT_SUM_BYTES / sizeof(float)];
  const struct lehr_model *m;
  if (argc != 2) return 1;
#ifdef LOAD
  void *library = dlopen(argv[1], RTLD_NOW);
  if (!library) { puts(dlerror()); return 2; }
  m = (const struct lehr_model *)dlsym(library, "lehr_model_adder");
#else
  m = &lehr_model_adder;
  (void)argv;
#endif
  if (sizeof(struct lehr_model) != m->struct_bytes || m->magic != LEHR_MAGIC) return 3;
  uint64_t bytes = m->workspace_bytes(m, 2);
  void *ws = aligned_alloc(LEHR_ALIGN, bytes);
  if (m->open(m, ws, bytes, 2) != LEHR_OK) { puts(m->last_error(ws)); return 4; }
  for (int i = 0; i < LEHR_MODEL_ADDER_INPUT_A_ELEMENTS; i++) { a[i] = (float)i; b[i] = 100.0f; }
  if (lehr_model_adder_run_with(m, ws, a, b, sum) != LEHR_OK) { puts(m->last_error(ws)); return 5; }
#ifndef LOAD
  if (lehr_model_adder_run(ws, a, b, sum) != LEHR_OK) return 6;
#endif
  if (lehr_model_adder_run_with(m, ws, a, NULL, sum) != LEHR_NULL) return 7;
  printf("%s %g %g\n", m->last_error(ws), sum[0], sum[36]);
  if (m->close(m, ws) != LEHR_OK) return 8;
  free(ws);
  return 0;
}
"#;

/// Names that C would not take, of all dtypes and ranks.
fn odd_image() -> ModelImage {
    let names = ["class", "x", "X", "3d*/", "a.b:0", "a_b_0", "", "_x", "ws", "\\\n", "é", "int", "model"];
    let io = |index: usize| {
        let dtype = index as u32 + 1;
        let (_, element) = abi::dtype_info(dtype).unwrap();
        let dims: Vec<i64> = (0..index % 4).map(|axis| axis as i64 + 2).collect();
        let bytes = element * dims.iter().product::<i64>() as u64;
        IoSpec { name: names[index].into(), dtype, dims, bytes }
    };
    ModelImage {
        name: "odd".into(),
        target: "x86_64-unknown-linux-gnu".into(),
        inputs: (0..dtype::BOOL as usize).map(io).collect(),
        ..ModelImage::default()
    }
}

fn compile(compiler: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(compiler).args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.is_empty(), "{compiler} {arguments:?}:\n{text}");
}

#[test]
fn c_and_cpp_programs_use_a_model_by_its_header() {
    if !have_cc("c_and_cpp_programs_use_a_model_by_its_header") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (image, options) = (image("adder", N, 0.5), SoOptions::default());
    write_so(&image, &[object(N)], &options, &folder.join("libadder.so")).unwrap();
    fs::write(folder.join("adder.h"), c_header(&image, &options)).unwrap();
    fs::write(folder.join("odd.h"), c_header(&odd_image(), &options)).unwrap();
    fs::write(folder.join("main.c"), MAIN).unwrap();
    fs::write(folder.join("main.cpp"), MAIN).unwrap();

    let strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
    let link = ["-L.", "-ladder", "-Wl,-rpath,$ORIGIN"];
    compile("cc", &[&strict[..], &["-std=c11", "main.c", "-o", "linked"], &link[..]].concat(), folder);
    compile("cc", &[&strict[..], &["-std=c11", "-DLOAD", "main.c", "-o", "loaded", "-ldl"]].concat(), folder);
    compile("cc", &[&strict[..], &["-std=c99", "-fsyntax-only", "-x", "c", "odd.h"]].concat(), folder);
    compile(
        "cc",
        &[&strict[..], &["-std=c11", "-no-pie", "-fno-pie", "main.c", "-o", "fixed"], &link[..]].concat(),
        folder,
    );
    let mut programs = vec!["linked", "loaded", "fixed"];
    if Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        compile("c++", &[&strict[..], &["-std=c++17", "main.cpp", "-o", "cpp"], &link[..]].concat(), folder);
        programs.push("cpp");
    } else {
        eprintln!("the header was not tried as C++, since there is no `c++` here");
    }
    for program in programs {
        let output = Command::new(folder.join(program)).arg(folder.join("libadder.so")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), &*text), (Some(0), "input 1 'b/2': data is null 100.5 136.5\n"), "{program}");
    }
}

#[test]
fn identifiers_are_c_and_unique() {
    assert_eq!(c_identifier("data"), "data");
    assert_eq!(c_identifier("gpu_0/data_0"), "gpu_0_data_0");
    assert_eq!(c_identifier("1"), "t_1");
    assert_eq!(c_identifier("float"), "t_float");
    let header = c_header(&odd_image(), &SoOptions::default());
    for name in ["t_class", "x", "X_2", "t_3d__", "a_b_0", "a_b_0_2"] {
        assert!(header.contains(&format!(" *{name}")), "{name} in\n{header}");
    }
    assert_eq!(header, c_header(&odd_image(), &SoOptions::default()));
}
