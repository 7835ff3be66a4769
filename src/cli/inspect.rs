//! `lehr inspect`: the graph at any stage, and figures by layer.

use super::args::{Format, InspectArgs};
use super::compile::size;
use super::{CliResult, Failure, warn};
use crate::CompileError;
use crate::{CompileOptions, load};
use lehr_codegen::plan;
use lehr_ir::Dim;
use lehr_ir::graph::{Graph, NodeId};
use lehr_ir::text::{PrintOptions, print};
use lehr_passes::{After, Event, Manager, Report, pipeline};
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures of one node.
#[derive(Serialize)]
struct Layer {
    op: &'static str,
    /// ONNX nodes it computes.
    nodes: Vec<String>,
    /// Type of the first result.
    result: String,
    params: u64,
    flops: String,
    /// Bytes of all results.
    activation_bytes: String,
}

#[derive(Serialize)]
struct Overview {
    operators: BTreeMap<&'static str, usize>,
    params: u64,
    flops: String,
    layers: Vec<Layer>,
    applied: Vec<String>,
    declined: Vec<String>,
    arena_bytes: Option<u64>,
    weights_bytes: Option<u64>,
}

pub fn run(args: &InspectArgs) -> CliResult {
    let loaded = load(&args.model.model, &args.model.load_options()?)?;
    warn(&loaded.warnings);
    let options = CompileOptions::new(&args.code.opt, &args.code.target_cpu)?;
    let passes = pipeline(options.level);
    let upto = match &args.after {
        None => passes.len(),
        Some(name) => {
            let at = passes.iter().rposition(|p| p.name == name);
            1 + at.ok_or_else(|| {
                let names: Vec<&str> = passes.iter().map(|p| p.name).collect();
                Failure::usage(format!("-O{} has no pass '{name}'; it has {}", args.code.opt, names.join(", ")))
            })?
        }
    };
    let print_options =
        PrintOptions { max_nodes: Some(args.max_nodes), filter: args.filter.clone(), ..PrintOptions::default() };
    let mut graph = loaded.graph;
    let manager = Manager { stop_after: args.stop_after, ..Manager::default() };
    let mut show = |after: After| {
        if args.print_changed && !after.report.fired.is_empty() {
            println!("; after {}\n{}", after.pass.name, print(after.graph, &print_options));
        }
    };
    let report = manager.run_with(&mut graph, &passes[..upto], &mut show);
    let report = report.map_err(|d| Failure::from(CompileError(d)))?;
    match args.format {
        Format::Dot => println!("{}", dot(&graph, args)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&overview(&graph, &report, &options, args));
            println!("{}", text.map_err(|e| Failure::usage(e.to_string()))?);
        }
        Format::Text => {
            if !args.print_changed {
                println!("{}", print(&graph, &print_options));
            }
            print_overview(&overview(&graph, &report, &options, args));
            print_plan(&graph, &options);
        }
    }
    Ok(())
}

fn overview(graph: &Graph, report: &Report, options: &CompileOptions, args: &InspectArgs) -> Overview {
    let mut operators = BTreeMap::new();
    let mut layers = vec![];
    for id in graph.order() {
        let node = graph.node(id);
        if node.op.is_source() {
            continue;
        }
        *operators.entry(node.op.name()).or_insert(0) += 1;
        if is_shown(graph, id, args) {
            layers.push(layer(graph, id));
        }
    }
    let flops = graph.ids().fold(Dim::ZERO, |sum, id| &sum + &graph.flops(id));
    let program = lehr_codegen::lower::lower(graph, &options.lowering()).ok().map(|mut p| {
        plan::plan(&mut p);
        p
    });
    Overview {
        operators,
        params: graph.ids().map(|id| params_of(graph, id)).sum(),
        flops: flops.to_string(),
        layers,
        applied: events(report.passes.iter().flat_map(|p| &p.fired), args),
        declined: events(report.passes.iter().flat_map(|p| &p.declined), args),
        arena_bytes: program.as_ref().map(|p| p.arena_bytes),
        weights_bytes: program.as_ref().map(|p| p.weights_bytes),
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

/// Elements of the floating-point constants among a node's operands.
fn params_of(graph: &Graph, id: NodeId) -> u64 {
    let constants = graph.node(id).inputs.iter().flatten().filter_map(|&v| graph.constant(v));
    constants.filter(|c| c.ty().dtype.is_float()).filter_map(|c| c.ty().elements().as_const()).sum::<i64>() as u64
}

fn layer(graph: &Graph, id: NodeId) -> Layer {
    let node = graph.node(id);
    let bytes = node.results.iter().filter_map(|r| r.ty.as_tensor()).fold(Dim::ZERO, |n, t| &n + &t.bytes());
    Layer {
        op: node.op.name(),
        nodes: node.origins.iter().map(|o| o.name.to_string()).collect(),
        result: node.results.first().map(|r| r.ty.to_string()).unwrap_or_default(),
        params: params_of(graph, id),
        flops: graph.flops(id).to_string(),
        activation_bytes: bytes.to_string(),
    }
}

fn print_overview(o: &Overview) {
    println!("; {:<14} {:<24} {:>12} {:>14} {:>12}  nodes", "op", "result", "params", "flops", "bytes");
    for l in &o.layers {
        println!(
            "; {:<14} {:<24} {:>12} {:>14} {:>12}  {}",
            l.op,
            l.result,
            l.params,
            l.flops,
            l.activation_bytes,
            l.nodes.join(" + ")
        );
    }
    let counts: Vec<String> = o.operators.iter().map(|(op, n)| format!("{n} {op}")).collect();
    println!("; operators: {}", counts.join(", "));
    println!("; parameters {}, FLOPs {}", o.params, o.flops);
    if let (Some(arena), Some(weights)) = (o.arena_bytes, o.weights_bytes) {
        println!("; weights {}, arena peak {}", size(weights), size(arena));
    }
    for a in &o.applied {
        println!("; applied {a}");
    }
    for d in &o.declined {
        println!("; declined {d}");
    }
}

fn print_plan(graph: &Graph, options: &CompileOptions) {
    match lehr_codegen::lower::lower(graph, &options.lowering()) {
        Ok(mut program) => {
            plan::plan(&mut program);
            for line in plan::picture(&program).lines() {
                println!("; {line}");
            }
        }
        Err(diags) => {
            for d in diags {
                println!("; no memory plan: {d}");
            }
        }
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
        let names: Vec<String> = match node.origins.is_empty() {
            true => node.results.first().and_then(|r| r.name.as_ref()).map(|n| n.to_string()).into_iter().collect(),
            false => node.origins.iter().map(|o| o.name.to_string()).collect(),
        };
        lines.push(format!("  n{} [label=\"{}\\n{}\"];", id.0, node.op.name(), quote(&names.join("\\n"))));
        for v in node.inputs.iter().flatten().filter(|v| nodes.contains(&v.node)) {
            lines.push(format!("  n{} -> n{} [label=\"{}\"];", v.node.0, id.0, graph.ty(*v)));
        }
    }
    lines.push("}".into());
    lines.join("\n")
}
