//! `lehr inspect`: the graph at any stage, and figures by layer.

use super::args::{Format, InspectArgs};
use super::progress::Progress;
use super::{CliResult, Failure, library, say, warn};
use crate::explain::layers::{Amount, Generated, Layer, layer, node_names, params_of};
use crate::explain::table::table;
use crate::explain::units::{ms, size};
use crate::explain::{Measure, Timing, measure};
use crate::{CompileError, load};
use lehr_codegen::plan;
use lehr_ir::Dim;
use lehr_ir::graph::{Graph, NodeId};
use lehr_ir::text::{PrintOptions, print};
use lehr_passes::{After, Event, Manager, Pass, Report};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Overview {
    operators: BTreeMap<&'static str, usize>,
    params: u64,
    flops: Amount,
    layers: Vec<Layer>,
    /// The nodes behind the layers.
    #[serde(skip)]
    ids: Vec<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<Timing>,
    applied: Vec<String>,
    declined: Vec<String>,
    /// Dimensions that layouts, leaves and memory are shown for the size 1 of.
    taken_as_1: Vec<String>,
    kernels: Option<usize>,
    arena_bytes: Option<u64>,
    weights_bytes: Option<u64>,
}

pub fn run(args: &InspectArgs) -> CliResult {
    if args.print_changed && args.format() != Format::Text {
        return Err(Failure::usage("--print-changed prints text; leave --format away"));
    }
    if args.model.is_library() {
        return library::inspect(args);
    }
    if args.open {
        return Err(Failure::usage(format!("--open is for compiled libraries; {} is a model", args.model.model)));
    }
    let options = args.gpu.apply(args.code.options()?, &args.code)?;
    let mut passes = options.passes();
    if let Some(name) = &args.after {
        passes.truncate(last_run_of(name, &passes, args)?);
    }
    let progress = Progress::start("inspecting");
    let loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let print_options =
        PrintOptions { max_nodes: Some(args.max_nodes), filter: args.filter.clone(), ..PrintOptions::default() };
    let mut graph = loaded.graph;
    let manager = Manager { stop_after: args.stop_after, ..Manager::default() };
    let mut changes = vec![];
    let mut show = |after: After| {
        if args.print_changed && !after.report.fired.is_empty() {
            changes.push(format!("; after {}\n{}", after.pass.name, print(after.graph, &print_options)));
        }
    };
    let mut leave = options.approximation();
    let report = manager.run_approximate(&mut graph, &passes, leave.as_mut(), &mut show);
    let report = report.map_err(|d| Failure::from(CompileError(d)))?;
    if let Some(filter) = &args.filter
        && !graph.ids().any(|id| is_shown(&graph, id, args))
    {
        return Err(Failure::usage(format!("--filter: no node or value has '{filter}' in its name")));
    }
    if args.format() == Format::Dot {
        drop(progress);
        return say(dot(&graph, args));
    }
    let generated = Generated::new(&graph, &options);
    let mut overview = overview(&graph, &report, &generated, args);
    let plan = plan_text(&generated);
    if args.measure {
        let program = generated.program.map_err(CompileError)?;
        let how = Measure { threads: args.threads, seconds: args.seconds };
        let (timing, times) = measure(program, &options.codegen("{}".into()), how)?;
        for (layer, id) in overview.layers.iter_mut().zip(&overview.ids) {
            layer.ms = times.get(id).copied();
        }
        overview.timing = Some(timing);
    }
    drop(progress);
    if args.format() == Format::Json {
        return say(serde_json::to_string_pretty(&overview).map_err(|e| Failure::usage(e.to_string()))?);
    }
    if args.table {
        return print_table(&overview, args.max_nodes);
    }
    if args.print_changed {
        for change in changes {
            say(change)?;
        }
    } else {
        say(print(&graph, &print_options))?;
    }
    print_overview(&overview, args.max_nodes)?;
    print_table(&overview, args.max_nodes)?;
    plan.lines().try_for_each(|line| say(format!("; {line}")))
}

/// How many passes end with the last run of `name`.
fn last_run_of(name: &str, passes: &[Pass], args: &InspectArgs) -> Result<usize, Failure> {
    if let Some(at) = passes.iter().rposition(|p| p.name == name) {
        return Ok(at + 1);
    }
    let mut names: Vec<&str> = vec![];
    for p in passes {
        if !names.contains(&p.name) {
            names.push(p.name);
        }
    }
    let level = args.code.level();
    if name == "approximate" {
        return Err(Failure::usage("--after approximate: say how far with --approximate TOL"));
    }
    Err(Failure::usage(format!("-O{level} has no pass '{name}'; it has {}", names.join(", "))))
}

fn overview(graph: &Graph, report: &Report, generated: &Generated, args: &InspectArgs) -> Overview {
    let mut operators = BTreeMap::new();
    let (mut layers, mut ids) = (vec![], vec![]);
    let uses = graph.uses();
    for id in graph.order() {
        let node = graph.node(id);
        if node.op.is_source() {
            continue;
        }
        *operators.entry(node.op.name()).or_insert(0) += 1;
        if is_shown(graph, id, args) {
            layers.push(layer(graph, &uses, id, generated));
            ids.push(id);
        }
    }
    let flops = graph.ids().fold(Dim::ZERO, |sum, id| &sum + &graph.flops(id));
    let program = generated.program.as_ref().ok();
    Overview {
        operators,
        params: graph.ids().map(|id| params_of(graph, id)).sum(),
        flops: Amount::of(&flops),
        layers,
        ids,
        timing: None,
        applied: events(report.passes.iter().flat_map(|p| &p.fired), args),
        declined: events(report.passes.iter().flat_map(|p| &p.declined), args),
        taken_as_1: generated.taken_as_1.clone(),
        kernels: program.map(|p| p.kernels.len()),
        arena_bytes: program.map(|p| p.arena_bytes),
        weights_bytes: program.map(|p| p.weights_bytes),
    }
}

/// `rule at node: detail`, one text per event that the filter lets through.
fn events<'r>(list: impl Iterator<Item = &'r Event>, args: &InspectArgs) -> Vec<String> {
    let shown = list.filter(|e| args.filter.as_ref().is_none_or(|f| e.node.contains(f.as_str())));
    shown.map(|e| format!("{} at {}: {}", e.rule, e.node, e.detail)).collect()
}

fn is_shown(graph: &Graph, id: NodeId, args: &InspectArgs) -> bool {
    let Some(filter) = &args.filter else { return true };
    let node = graph.node(id);
    node.origins.iter().any(|o| o.name.contains(filter.as_str()))
        || node.results.iter().any(|r| r.name.as_deref().is_some_and(|n| n.contains(filter.as_str())))
}

fn print_overview(o: &Overview, most: usize) -> CliResult {
    say(format!("; {:<20} {:<24} {:>12} {:>16} {:>14}  nodes", "op", "result", "params", "flops", "bytes"))?;
    for l in o.layers.iter().take(most) {
        say(format!(
            "; {:<20} {:<24} {:>12} {:>16} {:>14}  {}",
            l.op,
            l.result,
            l.params,
            l.flops,
            l.activation_bytes,
            l.nodes.join(" + ")
        ))?;
    }
    say_hidden(o.layers.len(), most)?;
    let counts: Vec<String> = o.operators.iter().map(|(op, n)| format!("{n} {op}")).collect();
    say(format!("; operators: {}", counts.join(", ")))?;
    say(format!("; parameters {}, FLOPs {}", o.params, o.flops))?;
    say_list("applied", &o.applied, most)?;
    say_list("declined", &o.declined, most)?;
    if !o.taken_as_1.is_empty() {
        say(format!("; from here on with {} = 1 (--dim sets it)", o.taken_as_1.join(" = ")))?;
    }
    for l in o.layers.iter().take(most) {
        let leaves = if l.leaves.is_empty() { String::new() } else { format!("; {}", l.leaves.join(", ")) };
        say(format!("; layout {}: {}{leaves}", l.nodes.first().unwrap_or(&l.op), l.layout))?;
        for schedule in &l.schedules {
            say(format!(";   {schedule}"))?;
        }
    }
    if let (Some(kernels), Some(arena), Some(weights)) = (o.kernels, o.arena_bytes, o.weights_bytes) {
        say(format!("; kernels {kernels}, weights {}, arena peak {}", size(weights), size(arena)))?;
    }
    Ok(())
}

fn say_list(what: &str, list: &[String], most: usize) -> CliResult {
    for entry in list.iter().take(most) {
        say(format!("; {what} {entry}"))?;
    }
    say_hidden(list.len(), most)
}

fn say_hidden(len: usize, most: usize) -> CliResult {
    if len > most { say(format!(";   and {} more (--max-nodes, --filter)", len - most)) } else { Ok(()) }
}

/// What was chosen for each layer, and the times.
fn print_table(o: &Overview, most: usize) -> CliResult {
    let peak = o.timing.as_ref().and_then(|t| t.peak_gflops);
    let shown: Vec<&Layer> = o.layers.iter().take(most).collect();
    table(&shown, peak).into_iter().try_for_each(|line| say(format!("; {line}")))?;
    say_hidden(o.layers.len(), most)?;
    let Some(t) = &o.timing else { return Ok(()) };
    let peak = peak.map_or_else(String::new, |p| format!(", FMA peak {p:.0} GFLOP/s"));
    say(format!(
        "; {} a run, {} of it in copies to outputs; median of {} runs, threads {}{peak}",
        ms(t.run_ms),
        ms(t.other_ms),
        t.runs,
        t.threads
    ))
}

fn plan_text(generated: &Generated) -> String {
    match &generated.program {
        Ok(program) => plan::picture(program),
        Err(diags) => diags.iter().map(|d| format!("no memory plan: {d}\n")).collect(),
    }
}

/// Graphviz: nodes with their operator and ONNX names, edges with types.
fn dot(graph: &Graph, args: &InspectArgs) -> String {
    let quote = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"");
    let mut lines =
        vec![format!("digraph \"{}\" {{", quote(&graph.name)), "  node [shape=box, fontname=monospace];".into()];
    let order = graph.order();
    let shown = |id: &NodeId| !matches!(graph.node(*id).op, lehr_ir::Op::Const(_)) && is_shown(graph, *id, args);
    let nodes: Vec<NodeId> = order.into_iter().filter(shown).take(args.max_nodes).collect();
    for &id in &nodes {
        let node = graph.node(id);
        let names = node_names(graph, id);
        lines.push(format!(
            "  n{} [label=\"{}\\n{}\"];",
            id.0,
            node.op.name(),
            names.iter().map(|n| quote(n)).collect::<Vec<_>>().join("\\n")
        ));
        for v in node.inputs.iter().flatten().filter(|v| nodes.contains(&v.node)) {
            lines.push(format!("  n{} -> n{} [label=\"{}\"];", v.node.0, id.0, graph.ty(*v)));
        }
    }
    lines.push("}".into());
    lines.join("\n")
}
