//! Figures by layer of a graph as code generation sees it: parameters, FLOPs, bytes, algorithm and machine-code leaves.

use super::choice::Choice;
use crate::CompileOptions;
use lehr_codegen::layout::{self, Layouts};
use lehr_codegen::lower::{LowerOptions, lower_owned};
use lehr_codegen::machine::Machine;
use lehr_codegen::program::Program;
use lehr_codegen::ptx::Schedule;
use lehr_codegen::strategy::Decision;
use lehr_codegen::{peak, plan};
use lehr_ir::graph::{Graph, NodeId, Uses, ValueId};
use lehr_ir::{Diag, Dim};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Figures of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// A fusion goes by what it fuses, `conv_relu`.
    pub op: String,
    /// ONNX nodes it computes; the result's name where there are none.
    pub nodes: Vec<String>,
    /// Type of the first result.
    pub result: String,
    pub params: u64,
    pub flops: Amount,
    /// Bytes of all results that are asked for.
    pub activation_bytes: Amount,
    /// How it is computed: its role, and the layouts of its first operand and result.
    pub layout: String,
    /// Machine-code leaves that its kernels call; none for plain loops.
    pub leaves: Vec<String>,
    /// With --target, how its kernels run: threads, and the tiles that products are cut in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<String>,
    /// Why it is computed so, where there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// By the cost model, on one thread; absent where the sizes are no numbers, and for what leaves do not compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<f64>,
    /// Median of the runs; absent without a measurement, and for what costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

impl Layer {
    /// GFLOP/s, where the layer was measured and its operations are a number.
    pub fn gflops(&self) -> Option<f64> {
        let flops = self.flops.number().filter(|&n| n > 0)?;
        self.ms.filter(|&ms| ms > 0.0).map(|ms| flops as f64 / 1e6 / ms)
    }
}

/// A number, or an expression in the open dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    Number(i64),
    Expression(String),
}

impl Amount {
    pub fn of(dim: &Dim) -> Amount {
        dim.as_const().map_or_else(|| Amount::Expression(dim.to_string()), Amount::Number)
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Amount::Number(n) => Some(*n),
            Amount::Expression(_) => None,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Number(n) => f.pad(&n.to_string()),
            Amount::Expression(e) => f.pad(e),
        }
    }
}

/// The graph as code generation sees it: with numbers for dimensions.
pub struct Generated {
    pub layouts: Layouts,
    /// Planned.
    pub program: Result<Program, Vec<Diag>>,
    /// Dimensions that layouts, leaves and memory are shown for the size 1 of.
    pub taken_as_1: Vec<String>,
    options: CompileOptions,
    machine: Machine,
    /// What predictions are told in milliseconds by.
    cycles_per_ms: f64,
}

/// Cycles a millisecond of a CPU that is not this one.
const TYPICAL_CYCLES: f64 = 3e6;
/// Bytes of activations that come from caches in a cycle.
const CACHED: f64 = 16.0;

impl Generated {
    pub fn new(graph: &Graph, options: &CompileOptions) -> Generated {
        let lowering = options.lowering();
        let machine = lowering.machine;
        let without = |problem: Diag, taken_as_1| Generated {
            layouts: Layouts::default(),
            program: Err(vec![problem]),
            taken_as_1,
            options: options.clone(),
            machine,
            cycles_per_ms: TYPICAL_CYCLES,
        };
        let taken_as_1: Vec<String> = graph.symbols().iter().map(|s| s.to_string()).collect();
        let graph = match with_ones(graph) {
            Ok(graph) => graph,
            // A model may want more than one of something.
            Err(diag) => return without(diag, taken_as_1),
        };
        let layouts = layout::decide(&graph, &lowering);
        let program = lower_owned(graph, &lowering).map(|mut program| {
            plan::plan(&mut program);
            program
        });
        let cycles_per_ms = cycles_per_ms(options, &lowering);
        Generated { layouts, program, taken_as_1, options: options.clone(), machine, cycles_per_ms }
    }

    /// How the layer is computed, and how its operand, result and weights lie.
    fn layout(&self, id: NodeId) -> String {
        let text = self.layouts.describe_node(id).unwrap_or_else(|| "plain".into());
        let compact = self.program.as_ref().is_ok_and(|p| p.compact.contains(&id));
        if compact { text + ", weights of 25 bits" } else { text }
    }

    /// Why a node is computed as it is.
    fn choice(&self, id: NodeId) -> Option<Choice> {
        Some(Choice::of(self.decision(id)?, &self.options, self.cycles_per_ms))
    }

    fn decision(&self, id: NodeId) -> Option<&Decision> {
        self.program.as_ref().ok()?.decisions.iter().find(|d| d.node == id)
    }

    /// Milliseconds of a node on one thread: of a convolution as its strategy says, else by its operations and bytes. `None` where
    /// nothing runs for it: its value is a place in another one's memory, or its reader computes it.
    fn predicted_ms(&self, graph: &Graph, id: NodeId) -> Option<f64> {
        let isa = self.layouts.isa().filter(|_| self.layouts.describe_node(id).is_some())?;
        if self.program.as_ref().ok()?.steps_of(id).is_empty() {
            return None;
        }
        let cycles = match self.decision(id) {
            Some(decision) => decision.chosen.cycles,
            None => {
                let flops = graph.flops(id).as_const()? as f64;
                let bytes = |v: &ValueId| graph.ty(*v).bytes().as_const();
                let operands = graph.node(id).inputs.iter().flatten();
                let (weights, others): (Vec<&ValueId>, Vec<&ValueId>) =
                    operands.partition(|v| graph.constant(**v).is_some());
                let sum = |list: Vec<&ValueId>| list.into_iter().map(bytes).sum::<Option<i64>>();
                let moved = (sum(others)? + bytes(&id.out(0))?) as f64 / CACHED;
                let work = flops / 2.0 / isa.lanes() as f64 / self.machine.fmas(isa);
                self.machine.together(work.max(moved), sum(weights)? as f64)
            }
        };
        Some(cycles / self.cycles_per_ms)
    }

    /// How the kernels of a node run on a GPU.
    fn schedules(&self, id: NodeId) -> Vec<String> {
        let (Ok(program), Some(gpu)) = (&self.program, self.options.gpu) else { return vec![] };
        let mut texts: Vec<String> = vec![];
        for text in program.steps_of(id).iter().map(|s| Schedule::of(&program.kernels[s.kernel]).describe(gpu)) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }

    /// Leaves that compute a node, without the hash at the end of their names.
    fn leaves(&self, id: NodeId) -> Vec<String> {
        let Ok(program) = &self.program else { return vec![] };
        let names = program.steps_of(id).iter().flat_map(|s| program.leaves_of(s.kernel));
        let mut names: Vec<String> =
            names.map(|n| n.rsplit_once('_').map_or(n, |(kind, _)| kind).to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Of this CPU, by its FMA peak; of another a usual number.
fn cycles_per_ms(options: &CompileOptions, lowering: &LowerOptions) -> f64 {
    let isa = lowering.leaves.filter(|isa| options.cpu == "native" && isa.on_this_cpu());
    let measured = isa.and_then(|isa| Some(peak::fma_peak()? / 2.0 / isa.lanes() as f64 / lowering.machine.fmas(isa)));
    measured.map_or(TYPICAL_CYCLES, |hz| hz / 1e3)
}

/// The graph with 1 for every open dimension.
pub fn with_ones(graph: &Graph) -> Result<Graph, Diag> {
    graph.bind(&|_| Some(Dim::ONE))
}

pub fn layer(graph: &Graph, uses: &Uses, id: NodeId, generated: &Generated) -> Layer {
    let node = graph.node(id);
    // Results that nobody asks for, like a pool's indices, are not computed.
    let asked = (0..node.results.len() as u32)
        .map(|port| ValueId { node: id, port })
        .filter(|&v| v.port == 0 || !uses.of(v).is_empty() || graph.outputs.iter().any(|o| o.value == v));
    let bytes = asked.fold(Dim::ZERO, |n, v| &n + &graph.ty(v).bytes());
    Layer {
        op: op_name(graph, id).to_string(),
        nodes: node_names(graph, id),
        // Blank for what computes nothing.
        result: node.results.first().map(|r| r.ty.to_string()).unwrap_or_default(),
        params: params_of(graph, id),
        flops: Amount::of(&graph.flops(id)),
        activation_bytes: Amount::of(&bytes),
        layout: generated.layout(id),
        leaves: generated.leaves(id),
        schedules: generated.schedules(id),
        choice: generated.choice(id),
        predicted_ms: generated.predicted_ms(graph, id),
        ms: None,
    }
}

/// The operator's name; a fusion's is made of those inside, `conv_relu`.
pub fn op_name(graph: &Graph, id: NodeId) -> &str {
    let node = graph.node(id);
    node.regions.first().map_or_else(|| node.op.name(), |region| region.name.as_str())
}

/// Elements of the floating-point constants among a node's operands.
pub fn params_of(graph: &Graph, id: NodeId) -> u64 {
    let constants = graph.node(id).inputs.iter().flatten().filter_map(|&v| graph.constant(v));
    constants.filter(|c| c.ty().dtype.is_float()).filter_map(|c| c.ty().elements().as_const()).sum::<i64>() as u64
}

/// The ONNX nodes that a node computes, or else the name of its result.
pub fn node_names(graph: &Graph, id: NodeId) -> Vec<String> {
    let node = graph.node(id);
    match node.origins.is_empty() {
        true => node.results.first().and_then(|r| r.name.as_ref()).map(|n| n.to_string()).into_iter().collect(),
        false => node.origins.iter().map(|o| o.name.to_string()).collect(),
    }
}
