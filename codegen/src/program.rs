//! A lowered model before machine code: kernels, the order they run in, and where every buffer lies.

use crate::kernel::in_place::Streams;
use crate::kernel::{Kernel, Stmt};
use crate::strategy::Decision;
use bytes::Bytes;
use lehr_ir::DType;
use lehr_ir::graph::{NodeId, Provenance};
use std::ops::Range;

/// A buffer of the program, by position in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Where a buffer lies at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The caller's input by position.
    Input(usize),
    Output(usize),
    /// Offset in the weights.
    Weights(u64),
    /// Offset in the arena.
    Arena(u64),
}

/// What a buffer is, before and after planning.
#[derive(Clone, Debug)]
pub struct BufferInfo {
    pub dtype: DType,
    /// In elements.
    pub len: usize,
    /// `None` until the plan has placed it.
    pub place: Option<Place>,
    /// The value it holds, by ONNX name where there is one.
    pub name: Option<String>,
}

impl BufferInfo {
    pub fn bytes(&self) -> u64 {
        self.len as u64 * self.dtype.size() as u64
    }
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// Position in [`Program::kernels`].
    pub kernel: usize,
    /// A buffer for each parameter of the kernel.
    pub args: Vec<BufferId>,
    pub origins: Provenance,
    /// Faults of this step get ids from here on in the model's table of faults.
    pub first_fault: u32,
}

/// An input or output of the model.
#[derive(Clone, Debug)]
pub struct IoInfo {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
}

/// Constant data in the weights segment.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Offset in the weights segment, a multiple of 64.
    pub offset: u64,
    pub data: Bytes,
}

/// Machine code that kernels call: position-independent, `extern "C" fn(args: *const u64)`.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Says kernel, ISA and shape; unique in a program.
    pub name: String,
    pub code: Bytes,
    /// What it goes over in step with its result; `None` where that is not said, and nothing may be assumed.
    pub streams: Option<Streams>,
}

/// A lowered model.
#[derive(Debug, Default)]
pub struct Program {
    pub name: String,
    pub inputs: Vec<IoInfo>,
    pub outputs: Vec<IoInfo>,
    pub buffers: Vec<BufferInfo>,
    pub kernels: Vec<Kernel>,
    /// Machine-code leaves that kernels call, without repetition.
    pub leaves: Vec<Leaf>,
    /// What the leaves need of the CPU, as bits of [`abi::isa`](crate::runtime::abi::isa).
    pub leaf_features: u64,
    pub steps: Vec<Step>,
    /// The steps that compute each node of the graph, conversions of its operands included. Copies to outputs belong to none.
    pub node_steps: Vec<(NodeId, Range<usize>)>,
    /// How layers are computed for which there was a choice, in the order of their nodes.
    pub decisions: Vec<Decision>,
    /// Products whose weights are compact.
    pub compact: Vec<NodeId>,
    pub weights: Vec<Weight>,
    pub weights_bytes: u64,
    /// Whether results may take the place of operands, where kernels allow it: not on GPUs, where threads share the iterations.
    pub in_place: bool,
    /// Peak of the arena, set by the plan.
    pub arena_bytes: u64,
    /// Texts of the faults that data can cause, `node 'x' (Gather): index out of range`.
    pub faults: Vec<String>,
}

impl Program {
    /// The steps that compute a node; none where it costs nothing.
    pub fn steps_of(&self, node: NodeId) -> &[Step] {
        let range = self.node_steps.iter().find(|(id, _)| *id == node).map(|(_, range)| range.clone());
        &self.steps[range.unwrap_or_default()]
    }

    /// Names of the machine-code leaves that a kernel calls, without repetition.
    pub fn leaves_of(&self, kernel: usize) -> Vec<&str> {
        let mut found = vec![];
        collect_leaves(&self.kernels[kernel].body, &mut found);
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|leaf| self.leaves[leaf as usize].name.as_str()).collect()
    }
}

fn collect_leaves(body: &[Stmt], found: &mut Vec<u32>) {
    for s in body {
        match s {
            Stmt::Leaf { leaf, .. } => found.push(*leaf),
            Stmt::For { body, .. } | Stmt::While { body, .. } => collect_leaves(body, found),
            Stmt::If { then, otherwise, .. } => {
                collect_leaves(then, found);
                collect_leaves(otherwise, found);
            }
            Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Store { .. } | Stmt::Fault(_) | Stmt::Contract(_) => {}
        }
    }
}
