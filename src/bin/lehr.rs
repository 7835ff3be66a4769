//! The command line of lehr.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    lehr::cli::main(std::env::args_os())
}
