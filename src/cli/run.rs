//! `lehr run`: one inference.

use super::args::RunArgs;
use super::inputs::{Given, bind_open_dims, load_binding};
use super::progress::Progress;
use super::{CliResult, Failure, note_stand_in, refuse_for_library, say, warn};
use crate::runner::dtype_of;
use crate::{Feeds, Runner, compile_jit, npy};
use lehr_ir::Tensor;
use lehr_ir::graph::{Graph, ValueId};
use std::path::Path;
use std::time::Instant;

pub fn run(args: &RunArgs) -> CliResult {
    let given = Given::parse(&args.inputs)?;
    if args.eval && args.code.approximate.is_some() {
        return Err(Failure::usage("--approximate is for compiled code; --eval computes what the model says"));
    }
    if args.eval && args.device.gpu.target.is_some() {
        return Err(Failure::usage("--target is for compiled code; --eval computes what the model says"));
    }
    let (mut runner, inputs, names) =
        if args.model.is_library() { open(args, &given)? } else { compile(args, &given)? };
    if let Some(dir) = &args.output_dir {
        // Before the run, which may be long.
        std::fs::create_dir_all(dir).map_err(|e| Failure::usage(format!("{}: {e}", dir.display())))?;
    }
    if let Some(session) = runner.session() {
        note_stand_in(session);
    }
    let progress = Progress::start("running");
    let started = Instant::now();
    let outputs = outputs_of(&mut runner, &inputs)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(progress);
    match &args.output_dir {
        Some(dir) => write(dir, &names, &outputs),
        None => {
            for (name, t) in names.iter().zip(&outputs) {
                say(summary(name, t))?;
            }
            let for_gpu = runner.session().filter(|s| s.artefact().gpu().is_some());
            let on = for_gpu.map_or(String::new(), |s| format!(", on {}", s.runs_on()));
            say(format!("run: {:.3} ms (first run){on}", seconds * 1e3))
        }
    }
}

/// One run; of a compiled model, whoever fails gets an exit code of its own.
fn outputs_of(runner: &mut Runner, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
    let Some(session) = runner.session() else { return Ok(runner.run(inputs)?) };
    let mut feeds = Feeds::new(session.artefact(), inputs)?;
    feeds.run(session)?;
    Ok(feeds.outputs()?)
}

type Ready = (Runner, Vec<Tensor>, Vec<String>);

fn open(args: &RunArgs, given: &Given) -> Result<Ready, Failure> {
    refuse_for_library(&args.model, &args.code, &args.device.gpu, &[("--eval", args.eval)])?;
    let runner = Runner::open(Path::new(&args.model.model), args.threads).map_err(Failure::usage)?;
    let artefact = runner.artefact().expect("a library is compiled");
    let specs = artefact.inputs();
    let known: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    given.check_names(&known)?;
    let inputs = specs.iter().enumerate().map(|(k, s)| {
        let dtype =
            dtype_of(s.dtype).ok_or_else(|| Failure::model(format!("input '{}' has an unknown dtype", s.name)))?;
        let shape = s.dims.iter().map(|&d| d as usize).collect();
        given.value(&s.name, k, specs.len(), Some((dtype, shape)))
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let names = artefact.outputs().iter().map(|s| s.name.clone()).collect();
    Ok((runner, inputs, names))
}

fn compile(args: &RunArgs, given: &Given) -> Result<Ready, Failure> {
    let progress = Progress::start("compiling");
    let (mut loaded, _) = load_binding(&args.model.model, &args.model.load_options()?, &given.values)?;
    warn(&loaded.warnings);
    let known: Vec<&str> = loaded.input_names.iter().map(String::as_str).collect();
    given.check_names(&known)?;
    let names: Vec<String> = loaded.graph.inputs().iter().map(|&v| input_name(&loaded.graph, v)).collect();
    let files: Vec<_> = names.iter().map(|n| given.file(n, names.len())).collect();
    loaded.bind_known_dims(&files).map_err(Failure::usage)?;
    bind_open_dims(&mut loaded)?;
    let inputs = given.for_graph(&loaded.graph)?;
    let names = loaded.graph.outputs.iter().map(|o| o.name.to_string()).collect();
    let options = args.device.apply(args.code.options()?, &args.code)?;
    let runner = match args.eval {
        true => Runner::eval(loaded.graph),
        false => {
            let artefact = compile_jit(loaded.graph, &options)?;
            Runner::of(&artefact, args.threads).map_err(Failure::usage)?
        }
    };
    drop(progress);
    Ok((runner, inputs, names))
}

fn input_name(graph: &Graph, v: ValueId) -> String {
    // An input without a name is found by its position.
    graph.value_name(v).unwrap_or_default().to_string()
}

fn write(dir: &Path, names: &[String], outputs: &[Tensor]) -> CliResult {
    let files: Vec<String> = names.iter().map(|n| format!("{}.npy", n.replace(['/', '\\'], "_"))).collect();
    for (k, file) in files.iter().enumerate() {
        if let Some(other) = files[..k].iter().position(|f| f == file) {
            let (a, b) = (&names[other], &names[k]);
            return Err(Failure::model(format!("the outputs '{a}' and '{b}' would both be written to {file}")));
        }
    }
    for (file, t) in files.iter().zip(outputs) {
        let path = dir.join(file);
        std::fs::write(&path, npy::encode(t)).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        say(format!("{}: {}", path.display(), t.ty()))?;
    }
    Ok(())
}

/// `prob: f32[1,10] min 0.01 max 0.4 mean 0.1, largest at 3` and the first few elements.
fn summary(name: &str, t: &Tensor) -> String {
    let values = t.to_f64();
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let mut line = format!("{name}: {}", t.ty());
    if let Some(at) =
        (0..values.len()).filter(|&i| !values[i].is_nan()).max_by(|&a, &b| values[a].total_cmp(&values[b]))
    {
        let (min, max) = finite.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        let mean = finite.iter().sum::<f64>() / finite.len().max(1) as f64;
        line += &format!("  min {min:.6} max {max:.6} mean {mean:.6}  largest at {at}");
    }
    if finite.len() < values.len() {
        line += &format!("  ({} not finite)", values.len() - finite.len());
    }
    let first: Vec<String> = values.iter().take(8).map(|v| format!("{v:.6}")).collect();
    let dots = if values.len() > 8 { ", ..." } else { "" };
    format!("{line}\n  [{}{dots}]", first.join(", "))
}
