//! The launch plan: what a host needs to run a module, beside its text.

use super::{Gpu, Group};
use crate::program::{IoInfo, Place, Program};
use lehr_ir::DType;
use std::fmt;

/// A kernel of the module.
#[derive(Clone, Debug)]
pub struct KernelPlan {
    pub name: String,
    pub grid: [u32; 3],
    /// Of a block.
    pub threads: u32,
    /// Of a block, all of it declared in the kernel.
    pub shared_bytes: u32,
    /// Whether it takes, behind its buffers, the address of the fault word and the number of the step's first fault.
    pub has_faults: bool,
    /// What runs an iteration of the kernel's parallel loop.
    pub group: Group,
    /// For people.
    pub schedule: String,
}

/// A buffer: where in which memory.
#[derive(Clone, Debug)]
pub struct BufferPlan {
    pub dtype: DType,
    /// In elements.
    pub len: usize,
    pub place: Place,
    pub name: Option<String>,
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Step {
    /// Position in [`LaunchPlan::kernels`].
    pub kernel: usize,
    /// Positions in [`LaunchPlan::buffers`]: the addresses that the kernel takes, in order.
    pub buffers: Vec<usize>,
    pub first_fault: u32,
}

#[derive(Clone, Debug)]
pub struct LaunchPlan {
    pub gpu: Gpu,
    pub kernels: Vec<KernelPlan>,
    /// Those that some step uses.
    pub buffers: Vec<BufferPlan>,
    pub steps: Vec<Step>,
    pub inputs: Vec<IoInfo>,
    pub outputs: Vec<IoInfo>,
    pub weights_bytes: u64,
    pub arena_bytes: u64,
    /// By number, from 1: what a kernel stores into the fault word, which is 0 before a run.
    pub faults: Vec<String>,
}

impl LaunchPlan {
    pub(super) fn new(program: &Program, gpu: Gpu, kernels: Vec<KernelPlan>) -> LaunchPlan {
        let mut buffers = vec![];
        let mut at = vec![None; program.buffers.len()];
        let mut place_of = |b: usize| {
            *at[b].get_or_insert_with(|| {
                let info = &program.buffers[b];
                buffers.push(BufferPlan {
                    dtype: info.dtype,
                    len: info.len,
                    place: info.place.expect("the plan places every buffer in use"),
                    name: info.name.clone(),
                });
                buffers.len() - 1
            })
        };
        let steps = program
            .steps
            .iter()
            // A grid has a block at least.
            .filter(|s| program.kernels[s.kernel].extent > 0)
            .map(|s| Step {
                kernel: s.kernel,
                buffers: s.args.iter().map(|b| place_of(b.0 as usize)).collect(),
                first_fault: s.first_fault,
            })
            .collect();
        LaunchPlan {
            gpu,
            kernels,
            buffers,
            steps,
            inputs: program.inputs.clone(),
            outputs: program.outputs.clone(),
            weights_bytes: program.weights_bytes,
            arena_bytes: program.arena_bytes,
            faults: program.faults.clone(),
        }
    }
}

impl fmt::Display for BufferPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Input(i) => write!(f, "input {i}"),
            Place::Output(i) => write!(f, "output {i}"),
            Place::Weights(at) => write!(f, "weights+{at}"),
            Place::Arena(at) => write!(f, "arena+{at}"),
        }
    }
}
