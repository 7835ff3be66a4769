//! Figures by layer of a graph as code generation sees it: parameters, FLOPs, bytes, algorithm and machine-code leaves.

use crate::CompileOptions;
use lehr_codegen::layout::{self, Layouts};
use lehr_codegen::lower::lower_owned;
use lehr_codegen::plan;
use lehr_codegen::program::Program;
use lehr_codegen::ptx::{Gpu, Schedule};
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
    gpu: Option<Gpu>,
}

impl Generated {
    pub fn new(graph: &Graph, options: &CompileOptions) -> Generated {
        let gpu = options.gpu;
        let taken_as_1: Vec<String> = graph.symbols().iter().map(|s| s.to_string()).collect();
        let graph = match with_ones(graph) {
            Ok(graph) => graph,
            // A model may want more than one of something.
            Err(diag) => {
                return Generated { layouts: Layouts::default(), program: Err(vec![diag]), taken_as_1, gpu };
            }
        };
        let lowering = options.lowering();
        let layouts = layout::decide(&graph, &lowering);
        let program = lower_owned(graph, &lowering).map(|mut program| {
            plan::plan(&mut program);
            program
        });
        Generated { layouts, program, taken_as_1, gpu }
    }

    /// How the kernels of a node run on a GPU.
    fn schedules(&self, id: NodeId) -> Vec<String> {
        let (Ok(program), Some(gpu)) = (&self.program, self.gpu) else { return vec![] };
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
        result: node.results.first().map(|r| r.ty.to_string()).unwrap_or_default(),
        params: params_of(graph, id),
        flops: Amount::of(&graph.flops(id)),
        activation_bytes: Amount::of(&bytes),
        layout: generated.layouts.describe_node(id).unwrap_or_else(|| "plain".into()),
        leaves: generated.leaves(id),
        schedules: generated.schedules(id),
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
