//! `compile model.onnx -o model.so` is `lehr compile model.onnx -o model.so`.
#![forbid(unsafe_code)]

use std::ffi::OsString;

fn main() -> std::process::ExitCode {
    let words = [OsString::from("lehr"), OsString::from("compile")];
    lehr::cli::main(words.into_iter().chain(std::env::args_os().skip(1)))
}
