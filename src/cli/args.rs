//! The command line. Help texts are the documentation; the words here are what `lehr --help` prints.

use crate::compile::Numerics;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lehr_codegen::machine::Caches;
use lehr_codegen::ptx::{Gpu, Precision, Sm};
use std::path::PathBuf;

/// Compiles ONNX models to native code.
#[derive(Parser, Debug)]
#[command(
    name = "lehr",
    version,
    about = "lehr compiles ONNX models to native code",
    long_about = "lehr compiles ONNX models to native code: a shared library that needs nothing but libc, or code in \
                  this process. It prints its intermediate form at every step and says what each rewrite did.\n\n\
                  MODEL is a path to an .onnx or .lehr (text form) file, '-' for standard input, or zoo:NAME for a network \
                  built in code (zoo:lenet5, zoo:resnet50?classes=10,input=64; lehr zoo lists them). Results go to standard output, everything else to standard error.",
    after_help = "Exit codes: 0 success; 1 the model is wrong, or a test failed; 2 the command line is wrong, a file cannot be \
                  read or written, or this machine cannot run the code; 3 the model is fine but lehr cannot do all of it; 4 sizes or values must be given (--dim, \
                  --bind).\n\nExamples:\n  \
                  lehr compile resnet50.onnx -o resnet50.so --header resnet50.h\n  \
                  lehr run resnet50.onnx --input data=image.npy --output-dir out\n  \
                  lehr bench resnet50.so --threads 2\n  \
                  lehr inspect resnet50.onnx --after fuse-epilogues --filter conv1\n  \
                  lehr explain resnet50.onnx --measure -o resnet50.html\n  \
                  lehr check broken.onnx"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Compile(CompileArgs),
    Run(RunArgs),
    Test(TestArgs),
    Inspect(InspectArgs),
    Explain(ExplainArgs),
    Check(CheckArgs),
    Bench(BenchArgs),
    Zoo(ZooArgs),
}

/// A pair given as `NAME=VALUE`.
#[derive(Clone, Debug)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

impl std::str::FromStr for Pair {
    type Err = String;
    fn from_str(s: &str) -> Result<Pair, String> {
        // The last '=': ONNX names may hold one, files rarely do.
        let (name, value) = s.rsplit_once('=').ok_or("it must look like NAME=VALUE")?;
        Ok(Pair { name: name.to_string(), value: value.to_string() })
    }
}

/// The model and what fixes it.
#[derive(Args, Debug, Clone)]
pub struct ModelArgs {
    /// The model: FILE.onnx, FILE.lehr, '-' (standard input), or zoo:NAME; `run`, `bench` and `inspect` also take a compiled FILE.so.
    pub model: String,

    /// Size of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N")]
    pub dims: Vec<Pair>,

    /// Value of an input that decides shapes; the input becomes this constant. FILE as for `run --input`.
    #[arg(long = "bind", value_name = "NAME=FILE")]
    pub bindings: Vec<Pair>,

    /// Keep initializers that are also listed as inputs as inputs (old models list them all).
    #[arg(long)]
    pub initializers_are_inputs: bool,
}

/// How code is generated.
#[derive(Args, Debug, Clone)]
pub struct CodeArgs {
    /// Optimisation level: 0 keeps every intermediate value, 1 folds and cleans up, 2 also fuses, s is 2 without what makes
    /// weights larger (Winograd's algorithm) [default: 2].
    #[arg(short = 'O', value_name = "LEVEL", value_parser = ["0", "1", "2", "s"])]
    pub opt: Option<String>,

    /// CPU to generate code for: native, x86-64, x86-64-v2, x86-64-v3 (AVX2), x86-64-v4 (AVX-512), or a name like znver3
    /// [default: native].
    #[arg(long, value_name = "CPU")]
    pub target_cpu: Option<String>,

    /// Rounding. fast: at -O2, convolutions may use Winograd's algorithm, a third of the operations with errors a few times
    /// larger (about 5e-6 of the largest output); at -O2 and -Os, fully connected layers of at most 8 rows with weights beyond the L2 cache keep 25 bits of them. strict:
    /// neither [default: fast].
    #[arg(long, value_enum)]
    pub numerics: Option<Numerics>,

    /// Sizes of the caches that algorithms and blocking are chosen for, of first, second and third level, like 48K,2M,32M [default: this
    /// machine's with --target-cpu native, else 32K,1M,16M].
    #[arg(long, value_name = "L1,L2,L3")]
    pub caches: Option<Caches>,

    /// Compute layers as `lehr compile --tune` has found it to be the fastest: FILE.so that was made so, or FILE.json. Nothing is
    /// measured; layers that it has no record of, or whose record does not fit, are left to the cost model: compile warns, inspect says
    /// why.
    #[arg(long, value_name = "FILE")]
    pub tuned: Option<PathBuf>,

    /// Replace a convolution by smaller ones (two 3x3 for a 5x5, k x 1 and 1 x k, depthwise and 1x1) where the relative error on its
    /// weights and outputs is at most TOL and it is measured to be faster on this machine, on one thread. `inspect` says where and why
    /// not. Measured: two compilations may differ [default: nothing is approximated].
    #[arg(long, value_name = "TOL", value_parser = tolerance)]
    pub approximate: Option<f64>,
}

impl CodeArgs {
    pub fn level(&self) -> &str {
        self.opt.as_deref().unwrap_or("2")
    }

    pub fn cpu(&self) -> &str {
        self.target_cpu.as_deref().unwrap_or("native")
    }
}

/// Code for a GPU instead.
#[derive(Args, Debug, Clone)]
pub struct GpuArgs {
    /// GPU to generate code for, instead of a CPU: sm_80 (A100 and later) or sm_90 (H100 and later).
    #[arg(long, value_name = "GPU")]
    pub target: Option<Sm>,

    /// What a GPU computes matrix products and convolutions of f32 with: fp32, or tensor cores with factors rounded to tf32 (11
    /// bits), f16 or bf16 (8 bits), and sums in f32. Products with fewer than four rows, columns or steps have too little work for
    /// tensor cores and are computed in fp32; of f16 and bf16, they may read rounded weights, which are half as large
    /// [default: fp32].
    #[arg(long, value_name = "PRECISION", requires = "target")]
    pub gpu_precision: Option<Precision>,
}

impl GpuArgs {
    /// The GPU to generate code for.
    pub fn gpu(&self) -> Option<Gpu> {
        // The default that the help text states.
        self.target.map(|sm| Gpu { sm, precision: self.gpu_precision.unwrap_or_default() })
    }
}

/// Code for a GPU that can run.
#[derive(Args, Debug, Clone)]
pub struct DeviceArgs {
    #[command(flatten)]
    pub gpu: GpuArgs,

    /// With --target: also generate code for the CPU, which runs where there is no driver, or no GPU that can run the model.
    #[arg(long, requires = "target")]
    pub cpu_fallback: bool,
}

/// Compile a model into a shared library.
#[derive(Args, Debug)]
#[command(
    about = "Compile a model into a shared library that needs nothing but libc",
    after_help = "The library exports one symbol, the model's descriptor; the header (--header) declares it and says how to \
                  call the model from C or C++. With --target it has the same interface; it looks for NVIDIA's driver \
                  (libcuda.so.1, or the library that LEHR_CUDA_DRIVER names) when the model is opened.\n\nExamples:\n  \
                  lehr compile lenet.onnx -o lenet.so --header lenet.h\n  \
                  lehr compile net.onnx -o net.so --dim batch=8 --target-cpu x86-64-v3\n  \
                  lehr compile net.onnx -o net.so --target sm_80 --cpu-fallback\n  \
                  lehr compile net.onnx -o net.ptx --target sm_80   # and net.json, net.weights\n  \
                  lehr compile net.onnx -o - --emit ir | less\n  \
                  compile net.onnx -o net.so               # the same as `lehr compile`"
)]
pub struct CompileArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub code: CodeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Where to write the result; '-' is standard output, for the text forms (--emit ir, kernels, clif, asm). With --target,
    /// FILE.so is a library that holds them, while FILE.ptx gets the kernels as text, FILE.json the plan of their launches, FILE.weights the
    /// weights. A FILE.json that is no such plan is not overwritten, nor a FILE.weights without a plan beside it.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// What to write.
    #[arg(long, value_enum, default_value_t = Emit::So)]
    pub emit: Emit,

    /// Also write a C header.
    #[arg(long, value_name = "FILE")]
    pub header: Option<PathBuf>,

    /// Name of the model in the descriptor symbol and in the header; from the output file's name by default.
    #[arg(long, value_name = "NAME")]
    pub prefix: Option<String>,

    /// What links the library: our own writer, or the C compiler `cc`.
    #[arg(long, value_enum, default_value_t = Linker::Builtin)]
    pub linker: Linker,

    /// Measure, on one thread, how each convolution is fastest: algorithm, tile, blocking. The result is kept in the library's
    /// metadata, which `lehr inspect FILE.so` shows and --tuned uses again. Two compilations with --tune may differ.
    #[arg(long, conflicts_with_all = ["target", "approximate"])]
    pub tune: bool,

    /// Seconds to measure at most, compiling of candidates included.
    #[arg(long, default_value_t = 60.0, value_name = "N", value_parser = seconds, requires = "tune")]
    pub tune_seconds: f64,

    /// Print seconds by stage.
    #[arg(long)]
    pub timings: bool,

    /// Print nothing but errors.
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// The graph after all passes, as text; large weights by name only.
    Ir,
    /// The loop nests of every kernel, as text.
    Kernels,
    /// Cranelift's input.
    Clif,
    /// Disassembly of what Cranelift makes.
    Asm,
    /// A relocatable object, without weights.
    Obj,
    /// The shared library.
    So,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linker {
    Builtin,
    Cc,
}

/// Run a model once.
#[derive(Args, Debug)]
#[command(
    about = "Run a model once, compiled in this process, or a compiled library",
    after_help = "Inputs: FILE.npy, FILE.npz (or FILE.npz:NAME), FILE.pb (TensorProto), or random:SEED. A value without \
                  NAME= is taken for the only input, or, if it is random:SEED, for every input not given. Inputs that decide \
                  shapes are bound to their values automatically. Dimensions that nothing decides are taken as 1.\n\nExamples:\n  \
                  lehr run zoo:lenet5 --input random:1\n  \
                  lehr run net.onnx --input data=cat.npy --output-dir out\n  \
                  lehr run net.onnx --input ids=batch.npz:ids --input mask=random:7\n  \
                  lehr run net.so --input data=cat.npy --threads 2\n  \
                  lehr run net.onnx --input data=cat.npy --target sm_80 --gpu-precision tf32"
)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub code: CodeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,

    /// An input; may be repeated.
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    pub inputs: Vec<String>,

    /// Write each output to DIR/NAME.npy ('/' in a name becomes '_') and print its name and type instead of a summary.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,

    /// Threads; 0 means as many as this process may use.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1024))]
    pub threads: u32,

    /// Use the reference evaluator instead of compiled code.
    #[arg(long)]
    pub eval: bool,
}

/// Run ONNX backend test directories.
#[derive(Args, Debug)]
#[command(
    about = "Run ONNX backend test directories (model.onnx, test_data_set_*/)",
    after_help = "Each test runs in a process of its own: one that crashes or hangs fails alone. Prints a line per test and a \
                  last line 'N passed, N failed, N skipped'. A test is skipped when the model needs something lehr does not \
                  have yet; the reason is printed. Exit code 1 if any test failed.\n\nExample:\n  \
                  lehr test --backend so --jobs 2 tests/node/*"
)]
pub struct TestArgs {
    /// Test directories.
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,

    /// What computes the outputs.
    #[arg(long, value_enum, default_value_t = Backend::Jit)]
    pub backend: Backend,

    #[command(flatten)]
    pub code: CodeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Tests to run at the same time.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,

    /// Seconds after which a test has hung.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,

    /// Relative tolerance, at least two units in the last place of the type (f16, bf16).
    #[arg(long, default_value_t = 1e-3)]
    pub rtol: f64,

    /// Absolute tolerance.
    #[arg(long, default_value_t = 1e-7)]
    pub atol: f64,

    /// Print one json object instead of lines.
    #[arg(long)]
    pub json: bool,

    /// Run the one test in this process (how `test` isolates tests).
    #[arg(long, hide = true)]
    pub in_process: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The reference evaluator.
    Eval,
    /// Code in this process.
    Jit,
    /// A shared library, written and loaded.
    So,
}

/// Show a model at any stage.
#[derive(Args, Debug)]
#[command(
    about = "Show the graph at any stage, with operator counts, parameters, FLOPs and the memory plan",
    after_help = "Passes of -O2, in order: remove-dead-code, fold-constants, clean-up, merge-equal-nodes, merge-padding, \
                  fold-into-weights, split-batch-norm, fold-constants, clean-up, merge-equal-nodes, remove-dead-code, \
                  fuse-epilogues, fuse-elementwise. With --approximate TOL, approximate runs before fuse-epilogues.\n\n\
                  A layer's bytes are those of its results. 'plain' is row-major; 'blocks of N' is channels in blocks of N, \
                  innermost. Layouts and the memory plan need numbers: open dimensions are taken as 1 for them.\n\n\
                  Of a compiled library it shows the interface, sizes, what it needs of CPU and GPU, and what would run it here \
                  (a library for GPUs is opened for that only with --open).\n\n\
                  A table says how each layer is computed, how long that should take on one thread of this machine (with \
                  --target-cpu, of one that runs at 3 GHz), and what was rejected: the best of each other algorithm, and one \
                  other way to cut the work; json has all. With --measure it has the measured time and the share of the FMA peak; \
                  Winograd's algorithm may exceed it, for it needs fewer operations.\n\nExamples:\n  \
                  lehr inspect net.onnx                          # after all passes of -O2\n  \
                  lehr inspect net.onnx -O0                      # as imported\n  \
                  lehr inspect net.onnx --table --measure        # why is a layer slow?\n  \
                  lehr inspect net.so                            # a library: how it was compiled and tuned\n  \
                  lehr inspect net.onnx --after fold-into-weights\n  \
                  lehr inspect net.onnx --print-changed --filter conv_7\n  \
                  lehr inspect net.onnx --approximate 0.01 | grep -E 'factorize|separate'\n  \
                  lehr inspect net.onnx --target sm_80 --dim batch=1      # tiles of each layer\n  \
                  lehr inspect net.so --open                     # which GPU runs it, or why none does\n  \
                  lehr inspect net.onnx --format dot | dot -Tsvg > net.svg"
)]
pub struct InspectArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub code: CodeArgs,
    #[command(flatten)]
    pub gpu: GpuArgs,

    /// Stop after this pass of the pipeline (after its last run, if it runs twice).
    #[arg(long, value_name = "PASS")]
    pub after: Option<String>,

    /// Print the graph after every pass that changed it.
    #[arg(long)]
    pub print_changed: bool,

    /// Stop after N rewrites (to find the one that breaks a model).
    #[arg(long, value_name = "N")]
    pub stop_after: Option<usize>,

    /// Show only nodes whose ONNX name contains this.
    #[arg(long, value_name = "NODE")]
    pub filter: Option<String>,

    /// Show at most so many nodes of the graph and lines of each list.
    #[arg(long, default_value_t = 400, value_name = "N")]
    pub max_nodes: usize,

    /// Text, json (figures by layer), or Graphviz's dot.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Of a library for GPUs: also open it, which needs memory of the GPU for its weights, and say what runs it on this machine.
    #[arg(long)]
    pub open: bool,

    /// Print the table of layers alone.
    #[arg(long, conflicts_with_all = ["print_changed", "json"])]
    pub table: bool,

    /// Also measure the time of every layer, on random inputs.
    #[arg(long, conflicts_with = "target")]
    pub measure: bool,

    /// Threads to measure with; 0 means as many as this process may use.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1024), requires = "measure")]
    pub threads: u32,

    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = seconds, requires = "measure")]
    pub seconds: f64,
}

impl InspectArgs {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Dot,
}

/// Say what every pass did on each layer, and why not.
#[derive(Args, Debug)]
#[command(
    about = "Say what every pass did or declined on each layer, how the layer is computed, and what it costs",
    after_help = "A layer is an operator after the passes; it knows the ONNX nodes it came from. The page (--format html) needs \
                  nothing but itself: the graph before and after, a table of layers, and what concerns each.\n\n\
                  --measure runs the model on random inputs. The compiled program then notes the CPU's time stamp counter between \
                  its steps (some 20 ns each); a layer's time is the median over the runs, conversions of its operands included.\n\n\
                  Examples:\n  \
                  lehr explain net.onnx\n  \
                  lehr explain net.onnx --node conv_7\n  \
                  lehr explain net.onnx --measure --threads 1 -o net.html\n  \
                  lehr explain net.onnx --format json | jq '.layers[] | {nodes, ms}'"
)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub code: CodeArgs,

    /// Only layers that come from the ONNX node of this name; if there is none, from nodes whose names contain it.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// What to write; by default what the ending of --output says (.json, .html), else text.
    #[arg(long, value_enum)]
    pub format: Option<ExplainFormat>,

    /// Where to write; standard output by default.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Leave out the analyses of convolutions (factorisation, separability). They search less deeply without --node.
    #[arg(long)]
    pub no_analyses: bool,

    /// Also measure the time of every layer.
    #[arg(long)]
    pub measure: bool,

    /// Threads to measure with; 0 means as many as this process may use.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1024), requires = "measure")]
    pub threads: u32,

    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = seconds, requires = "measure")]
    pub seconds: f64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainFormat {
    Text,
    Json,
    /// A self-contained page.
    Html,
}

/// Report everything that is wrong with a model.
#[derive(Args, Debug)]
#[command(
    about = "Report everything about a model that is wrong or that lehr cannot do, all at once",
    after_help = "Exit codes: 0 the model compiles; 1 the model is wrong (malformed, contradictory); 2 the command line is \
                  wrong, or the file cannot be read; 3 the model is fine but lehr cannot do all of it; 4 sizes or values must be given \
                  (--dim, --bind).\n\nExample:\n  lehr check net.onnx"
)]
pub struct CheckArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// Print json.
    #[arg(long)]
    pub json: bool,
}

/// Measure latency.
#[derive(Args, Debug)]
#[command(
    about = "Measure a model's latency on random inputs",
    after_help = "--compare runs two variants in turn in one process and prints the ratio of medians. With --json: median_ms, p95_ms, min_ms, runs, threads, and where they are known gflop, gflops, \
                  share_of_peak (of the FMA peak measured here, on all threads) first_ms and runs_on (of a model for GPUs). Times on a GPU are those of inputs and outputs in host memory, copies included.\n\nExamples:\n  \
                  lehr bench resnet50.onnx --threads 1\n  \
                  lehr bench resnet50.so --seconds 5 --json\n  \
                  lehr bench zoo:lenet5 --batch 8\n  \
                  lehr bench resnet50.onnx --compare unfused,fused\n  \
                  lehr bench net.onnx --compare exact,approximate --approximate 0.05"
)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub code: CodeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Threads; 0 means as many as this process may use.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1024))]
    pub threads: u32,

    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = seconds)]
    pub seconds: f64,

    /// Binds the first dimension of every input that leaves it open.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(i64).range(1..))]
    pub batch: Option<i64>,

    /// Two variants to compare: two of O0, O1, O2; unfused,fused (O1,O2); or exact,approximate (O2, with --approximate).
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub compare: Vec<String>,

    /// Print json.
    #[arg(long)]
    pub json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|t| *t > 0.0 && *t < 1.0);
    value.ok_or_else(|| "it must be a relative error between 0 and 1, like 0.01".into())
}

/// Networks built in code.
#[derive(Args, Debug)]
#[command(
    about = "List the networks that are built in code, show one, or write one as an ONNX model",
    after_help = "A network's settings follow its name: NAME?SETTING=VALUE,SETTING=VALUE. Every command takes zoo:NAME as a model. Weights \
                  are random, by seed=N, or come by name from weights=FILE.safetensors or FILE.npz (the last setting; PyTorch's \
                  names: lehr zoo NAME -o FILE shows them).\n\nExamples:\n  \
                  lehr zoo\n  \
                  lehr zoo resnet50\n  \
                  lehr zoo resnet50 -o resnet50.onnx\n  \
                  lehr zoo 'vgg11?input=64,classes=10,width=0.5' -o small.onnx\n  \
                  lehr run 'zoo:resnet18?weights=resnet18.safetensors' --input image=cat.npy"
)]
pub struct ZooArgs {
    /// The network: NAME, or NAME?SETTING=VALUE,...
    #[arg(value_name = "NAME")]
    pub network: Option<String>,

    /// Write the network as an ONNX model.
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    pub output: Option<PathBuf>,

    /// Print json.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s));
    value.ok_or_else(|| "it must be a number of seconds, a day at most".into())
}
