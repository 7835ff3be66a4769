//! The command line: one file per subcommand. Nothing here knows how to compile; it reads arguments, calls the
//! library, and prints.

mod args;
mod bench;
mod check;
mod compile;
mod explain;
mod inputs;
mod inspect;
mod library;
mod progress;
mod run;
mod test;
mod zoo;

use crate::compile::CompileError;
use crate::load::is_elf;
use crate::tune::Records;
use crate::{CompileOptions, LoadError, LoadOptions};
use args::{Cli, CodeArgs, Command, DeviceArgs, GpuArgs, ModelArgs};
use clap::Parser;
use lehr_codegen::artefact::{Artefact, RunError, Session};
use lehr_codegen::clif::{Relocation, Target};
use lehr_ir::Diag;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// An end with an exit code. Messages go to standard error.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

pub type CliResult = Result<(), Failure>;

/// Exit codes; `lehr --help` lists them.
pub mod exit {
    pub const MODEL: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const UNSUPPORTED: u8 = 3;
    pub const UNBOUND: u8 = 4;
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: exit::USAGE, message: message.into() }
    }

    pub fn model(message: impl Into<String>) -> Failure {
        Failure { code: exit::MODEL, message: message.into() }
    }

    /// Everything has been printed already.
    pub fn silent(code: u8) -> Failure {
        Failure { code, message: String::new() }
    }
}

/// The exit code for a set of complaints: the worst of them.
pub fn exit_code(diags: &[Diag]) -> u8 {
    let kind = |d: &Diag| match d.code {
        "load.io" | "load.zoo" | "load.weights" | "load.bind" | "load.library" | "model.open" => exit::USAGE,
        "import.binding" | "compile.cpu" | "compile.artefact" | "explain.node" => exit::USAGE,
        "import.needs-value" | "import.symbolic" | "lower.unbound" => exit::UNBOUND,
        c if c.contains("unsupported") => exit::UNSUPPORTED,
        _ => exit::MODEL,
    };
    let order = [exit::USAGE, exit::MODEL, exit::UNSUPPORTED, exit::UNBOUND];
    order.into_iter().find(|&c| diags.iter().any(|d| kind(d) == c)).unwrap_or(exit::MODEL)
}

impl From<LoadError> for Failure {
    fn from(e: LoadError) -> Failure {
        Failure { code: exit_code(&e.diags), message: e.to_string() }
    }
}

impl From<CompileError> for Failure {
    fn from(e: CompileError) -> Failure {
        let code = exit_code(&e.0);
        Failure { code, message: e.to_string() }
    }
}

impl From<RunError> for Failure {
    fn from(e: RunError) -> Failure {
        let of = if e.is_of_machine() { Failure::usage } else { Failure::model };
        of(e.text)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::model(message)
    }
}

/// Runs the command line and gives the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    let result = match &cli.command {
        Command::Compile(a) => compile::run(a),
        Command::Run(a) => run::run(a),
        Command::Test(a) => test::run(a),
        Command::Inspect(a) => inspect::run(a),
        Command::Explain(a) => explain::run(a),
        Command::Check(a) => check::run(a),
        Command::Bench(a) => bench::run(a),
        Command::Zoo(a) => zoo::run(a),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            if !f.message.is_empty() {
                eprintln!("error: {}", f.message.replace('\n', "\nerror: ").replace("\nerror:     note", "\n    note"));
            }
            ExitCode::from(f.code)
        }
    }
}

impl ModelArgs {
    /// The options that say how to load; reads the files of `--bind`.
    pub fn load_options(&self) -> Result<LoadOptions, Failure> {
        let mut options =
            LoadOptions { initializers_are_inputs: self.initializers_are_inputs, ..LoadOptions::default() };
        for pair in &self.dims {
            let n = pair.value.parse::<i64>().ok().filter(|n| *n >= 0);
            let n = n.ok_or_else(|| Failure::usage(format!("--dim {}: '{}' is no size", pair.name, pair.value)))?;
            options.dims.push((pair.name.clone(), n));
        }
        for pair in &self.bindings {
            let tensor =
                inputs::read_file(&pair.value).map_err(|why| Failure::usage(format!("--bind {}: {why}", pair.name)))?;
            options.bindings.push((pair.name.clone(), tensor));
        }
        Ok(options)
    }
}

impl ModelArgs {
    /// Whether this is a library that `compile` wrote, by its name or by what it starts with.
    pub fn is_library(&self) -> bool {
        Path::new(&self.model).extension().is_some_and(|e| e == "so") || is_elf(&self.model)
    }
}

/// Options that say how to compile mean nothing to what is compiled already.
pub fn refuse_for_library(model: &ModelArgs, code: &CodeArgs, gpu: &GpuArgs, others: &[(&str, bool)]) -> CliResult {
    let own = [
        ("-O", code.opt.is_some()),
        ("--target-cpu", code.target_cpu.is_some()),
        ("--numerics", code.numerics.is_some()),
        ("--approximate", code.approximate.is_some()),
        ("--target", gpu.target.is_some()),
        ("--caches", code.caches.is_some()),
        ("--tuned", code.tuned.is_some()),
        ("--dim", !model.dims.is_empty()),
        ("--bind", !model.bindings.is_empty()),
        ("--initializers-are-inputs", model.initializers_are_inputs),
    ];
    match own.iter().chain(others).find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::usage(format!("{flag} is for models; {} is compiled already", model.model))),
        None => Ok(()),
    }
}

impl GpuArgs {
    /// The options for this GPU, if there is one: what is for CPUs alone is refused then.
    pub fn apply(&self, options: CompileOptions, code: &CodeArgs) -> Result<CompileOptions, Failure> {
        if self.target.is_some() && code.approximate.is_some() {
            return Err(Failure::usage("--approximate measures on this machine's CPU; leave it or --target away"));
        }
        let for_cpus = [
            ("--target-cpu", code.target_cpu.is_some()),
            ("--numerics", code.numerics.is_some()),
            ("--caches", code.caches.is_some()),
            ("--tuned", code.tuned.is_some()),
        ];
        match for_cpus.iter().find(|(_, given)| *given && self.target.is_some() && !options.cpu_fallback) {
            Some((flag, _)) => {
                Err(Failure::usage(format!("{flag} is for CPUs; with --target it says how --cpu-fallback is compiled")))
            }
            None => Ok(CompileOptions { gpu: self.gpu(), ..options }),
        }
    }
}

impl DeviceArgs {
    pub fn apply(&self, options: CompileOptions, code: &CodeArgs) -> Result<CompileOptions, Failure> {
        self.gpu.apply(CompileOptions { cpu_fallback: self.cpu_fallback, ..options }, code)
    }
}

/// That the CPU computes what was compiled for a GPU, and why; `None` where a GPU does, or none was asked for.
pub fn stand_in(session: &Session) -> Option<String> {
    (session.artefact().gpu().is_some() && session.is_on_cpu()).then(|| session.runs_on())
}

/// Says so.
pub fn note_stand_in(session: &Session) {
    if let Some(on) = stand_in(session) {
        eprintln!("note: it runs on {on}");
    }
}

/// What the artefact says of itself, as `compile` wrote it.
pub fn metadata(artefact: &Artefact) -> Result<serde_json::Value, Failure> {
    let wrong = |e| Failure::usage(format!("the metadata of model {} is no json: {e}", artefact.name()));
    serde_json::from_str(artefact.metadata()).map_err(wrong)
}

impl CodeArgs {
    pub fn options(&self) -> Result<CompileOptions, Failure> {
        compile_options(self.level(), self)
    }
}

impl CompileOptions {
    /// From the words of the command line.
    pub fn new(level: &str, cpu: &str) -> Result<CompileOptions, String> {
        let level = level.parse()?;
        Ok(CompileOptions { level, cpu: cpu.to_string(), ..CompileOptions::default() })
    }
}

/// Checks the name of the CPU before any work is done.
pub fn compile_options(level: &str, code: &CodeArgs) -> Result<CompileOptions, Failure> {
    Target::new(code.cpu(), Relocation::Pic).map_err(CompileError::from)?;
    let options = CompileOptions::new(level, code.cpu()).map_err(Failure::usage)?;
    Ok(CompileOptions {
        // The default that the help texts state.
        numerics: code.numerics.unwrap_or_default(),
        approximate: code.approximate,
        caches: code.caches,
        tuned: code.tuned.as_deref().map(tuned).transpose()?.map(Arc::new),
        ..options
    })
}

/// What was tuned, from a library's metadata or a file of its own.
fn tuned(path: &Path) -> Result<Records, Failure> {
    let wrong = |e: &dyn Display| Failure::usage(format!("--tuned {}: {e}", path.display()));
    let text = match path.extension().is_some_and(|e| e == "so") {
        true => {
            // dlopen looks for a bare file name in the system's folders.
            let path = std::path::absolute(path).map_err(|e| wrong(&e))?;
            Artefact::open(&path).map_err(|e| wrong(&e))?.metadata().to_string()
        }
        false => std::fs::read_to_string(path).map_err(|e| wrong(&e))?,
    };
    Records::parse(&text).map_err(|e| wrong(&e))
}

/// Writes a line, or lines, to standard output. Whoever reads it may have seen enough (`| head`): that is no failure.
pub fn say(text: impl Display) -> CliResult {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Failure::silent(0)),
        Err(e) => Err(Failure::usage(format!("standard output: {e}"))),
    }
}

/// Warnings go to standard error.
fn warn(warnings: &[Diag]) {
    for w in warnings {
        eprintln!("warning: {w}");
    }
}
