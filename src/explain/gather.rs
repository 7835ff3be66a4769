//! Runs the passes and the code generator, and collects what each says by layer.

use super::analyses::analyses;
use super::layers::{Generated, layer, node_names, params_of, with_ones};
use super::measure::measure;
use super::view::kind;
use super::{Amount, Before, ExplainOptions, Explanation, LayerReport, PassEvent, PassSummary, SCHEMA, Totals, View};
use crate::stopwatch::Stopwatch;
use crate::{CompileError, CompileOptions};
use lehr_ir::graph::{Graph, NodeId, Origin};
use lehr_ir::{Diag, Dim, Op};
use lehr_passes::analysis::Options;
use lehr_passes::{After, Event, Exactness, Judge, Manager, Pass, PassReport};
use std::collections::{HashMap, HashSet};

/// Explains a model.
///
/// # Errors
/// What a pass's verification finds; a measurement that fails; a `node` that no layer comes from (`explain.node`).
pub fn explain(graph: Graph, options: &ExplainOptions) -> Result<Explanation, CompileError> {
    let passes = options.compile.passes();
    let imported = graph.clone();
    let mut graph = graph;
    // The analyses look at convolutions with their final weights, before they are approximated, or parts of fusions.
    let mut exact = graph.clone();
    let mut is_exact = true;
    let mut keep = |after: After| {
        let approximate = after.pass.rules().iter().any(|r| r.exactness == Exactness::Approximate);
        let fused = after.graph.ids().any(|id| !after.graph.node(id).regions.is_empty());
        is_exact &= !approximate && !fused;
        if is_exact {
            exact = after.graph.clone();
        }
    };
    let mut leave = options.compile.approximation();
    let manager = Manager::default();
    let report = manager.run_approximate(&mut graph, &passes, leave.as_mut(), &mut keep).map_err(CompileError)?;
    let generated = Generated::new(&graph, &options.compile);

    let order: Vec<NodeId> = graph.order().into_iter().filter(|&id| !graph.node(id).op.is_source()).collect();
    let index: HashMap<NodeId, usize> = order.iter().enumerate().map(|(at, &id)| (id, at)).collect();
    let layers_by_origin = by_origin(&graph, &order);
    let before = View::of(&imported, &|id| layers_behind(&imported, id, &layers_by_origin));
    let after = View::of(&graph, &|id| index.get(&id).copied().into_iter().collect());
    let sources = by_origin(&imported, &imported.ids().collect::<Vec<_>>());
    let imported_ids: Vec<NodeId> = imported.ids().collect();

    let uses = graph.uses();
    let mut layers: Vec<LayerReport> = vec![];
    for (at, &id) in order.iter().enumerate() {
        layers.push(LayerReport {
            index: at,
            figures: layer(&graph, &uses, id, &generated),
            kind: kind(&graph, id),
            operand_bytes: operand_bytes(&graph, id),
            before: behind(&imported, &imported_ids, &sources, &graph.node(id).origins),
            events: vec![],
            analyses: vec![],
        });
    }
    let mut elsewhere = distribute(&report.passes, &mut layers);
    if let Some(node) = &options.node {
        only(&mut layers, &mut elsewhere, node)?;
    }
    if let Some(how) = &options.analyses {
        let mut stopwatch = Stopwatch::new(CompileOptions { approximate: None, ..options.compile.clone() });
        let judge = options.measure.map(|_| &mut stopwatch as &mut dyn Judge);
        analyse(&exact, &mut layers, how, judge)?;
    }
    let totals = totals(&imported, &graph, &generated);
    let mut problems = vec![];
    let mut timing = None;
    match generated.program {
        Ok(program) => {
            if let Some(how) = options.measure {
                let code = options.compile.codegen("{}".into());
                let (total, times) = measure(program, &code, how).map_err(|why| Diag::new("explain.measure", why))?;
                for l in &mut layers {
                    l.figures.ms = times.get(&order[l.index]).copied();
                }
                timing = Some(total);
            }
        }
        Err(diags) => problems = diags.iter().map(Diag::to_string).collect(),
    }
    Ok(Explanation {
        schema: SCHEMA,
        model: graph.name.clone(),
        level: options.compile.level.to_string(),
        cpu: options.compile.cpu.clone(),
        node: options.node.clone(),
        totals,
        passes: passes.iter().zip(&report.passes).map(|(pass, report)| summary(pass, report)).collect(),
        before,
        after,
        layers,
        elsewhere,
        timing,
        problems,
    })
}

/// Analyses the convolutions behind some layers.
fn analyse(
    exact: &Graph,
    layers: &mut [LayerReport],
    how: &Options,
    judge: Option<&mut dyn Judge>,
) -> Result<(), CompileError> {
    let graph = with_ones(exact)?;
    let wanted = |id: &NodeId| {
        let names = node_names(&graph, *id);
        let convolves = matches!(graph.node(*id).op, Op::Conv(_));
        convolves && layers.iter().any(|l| l.figures.nodes.iter().any(|n| names.contains(n)))
    };
    let ids: Vec<NodeId> = graph.order().into_iter().filter(wanted).collect();
    for (id, found) in analyses(&graph, &ids, how, judge) {
        let names = node_names(&graph, id);
        // Where the convolution was taken apart, the first of its layers.
        if let Some(l) = layers.iter_mut().find(|l| l.figures.nodes.iter().any(|n| names.contains(n))) {
            l.analyses.extend(found);
        }
    }
    Ok(())
}

/// Positions in `ids` by the ONNX nodes that they come from.
fn by_origin(graph: &Graph, ids: &[NodeId]) -> HashMap<Origin, Vec<usize>> {
    let mut map: HashMap<Origin, Vec<usize>> = HashMap::new();
    for (at, &id) in ids.iter().enumerate() {
        for origin in &graph.node(id).origins {
            map.entry(origin.clone()).or_default().push(at);
        }
    }
    map
}

fn layers_behind(imported: &Graph, id: NodeId, layers: &HashMap<Origin, Vec<usize>>) -> Vec<usize> {
    let mut found: Vec<usize> =
        imported.node(id).origins.iter().filter_map(|o| layers.get(o)).flatten().copied().collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What was imported for some ONNX nodes.
fn behind(imported: &Graph, ids: &[NodeId], sources: &HashMap<Origin, Vec<usize>>, origins: &[Origin]) -> Before {
    let mut found: Vec<usize> = origins.iter().filter_map(|o| sources.get(o)).flatten().copied().collect();
    found.sort_unstable();
    found.dedup();
    let operators = || found.iter().map(|&at| ids[at]).filter(|&id| !imported.node(id).op.is_source());
    Before {
        nodes: operators().count(),
        params: operators().map(|id| params_of(imported, id)).sum(),
        flops: Amount::of(&operators().fold(Dim::ZERO, |sum, id| &sum + &imported.flops(id))),
    }
}

fn operand_bytes(graph: &Graph, id: NodeId) -> Amount {
    // An operand that is read twice is brought once.
    let mut seen = HashSet::new();
    let operands = graph.node(id).inputs.iter().flatten().filter(|v| seen.insert(**v));
    Amount::of(&operands.fold(Dim::ZERO, |sum, &v| &sum + &graph.ty(v).bytes()))
}

fn totals(imported: &Graph, graph: &Graph, generated: &Generated) -> Totals {
    let operators = |g: &Graph| g.ids().filter(|&id| !g.node(id).op.is_source()).count();
    let params = |g: &Graph| g.ids().map(|id| params_of(g, id)).sum();
    let flops = |g: &Graph| Amount::of(&g.ids().fold(Dim::ZERO, |sum, id| &sum + &g.flops(id)));
    let program = generated.program.as_ref().ok();
    Totals {
        operators_before: operators(imported),
        operators_after: operators(graph),
        params_before: params(imported),
        params: params(graph),
        flops_before: flops(imported),
        flops: flops(graph),
        taken_as_1: generated.taken_as_1.clone(),
        kernels: program.map(|p| p.kernels.len()),
        arena_bytes: program.map(|p| p.arena_bytes),
        weights_bytes: program.map(|p| p.weights_bytes),
    }
}

fn summary(pass: &Pass, report: &PassReport) -> PassSummary {
    PassSummary {
        name: pass.name.into(),
        doc: pass.doc.into(),
        nodes_before: report.nodes_before,
        nodes_after: report.nodes_after,
        fired: report.fired.len(),
        declined: report.declined.len(),
    }
}

/// Gives every event to the layers that come from its node, and returns those of nodes that no layer comes from.
fn distribute(passes: &[PassReport], layers: &mut [LayerReport]) -> Vec<PassEvent> {
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for l in layers.iter() {
        for name in &l.figures.nodes {
            by_name.entry(name.clone()).or_default().push(l.index);
        }
    }
    let mut elsewhere = vec![];
    for pass in passes {
        let event = |e: &Event, fired: bool| PassEvent {
            pass: pass.pass.into(),
            rule: e.rule.into(),
            fired,
            node: e.node.clone(),
            detail: e.detail.clone(),
        };
        let events = pass.fired.iter().map(|e| event(e, true)).chain(pass.declined.iter().map(|e| event(e, false)));
        for e in events {
            match by_name.get(&e.node) {
                Some(at) => at.iter().for_each(|&at| layers[at].events.push(e.clone())),
                None => elsewhere.push(e),
            }
        }
    }
    elsewhere
}

/// Keeps what concerns the ONNX node of exactly this name, else nodes whose names contain it.
fn only(layers: &mut Vec<LayerReport>, elsewhere: &mut Vec<PassEvent>, node: &str) -> Result<(), CompileError> {
    let names = layers.iter().flat_map(|l| &l.figures.nodes).chain(elsewhere.iter().map(|e| &e.node));
    let exact = names.into_iter().any(|n| n == node);
    let matches = |name: &String| if exact { name == node } else { name.contains(node) };
    layers.retain(|l| l.figures.nodes.iter().any(matches));
    elsewhere.retain(|e| matches(&e.node));
    match layers.is_empty() && elsewhere.is_empty() {
        true => Err(Diag::new("explain.node", format!("no layer comes from a node with '{node}' in its name")).into()),
        false => Ok(()),
    }
}
