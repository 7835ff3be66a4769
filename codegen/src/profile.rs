//! Time by step, measured inside ordinary runs: the program itself notes the CPU's time stamp counter between its steps.
//!
//! ```text
//! stamp 0, step 0, stamp 1, step 1, ... step n-1, stamp n          ticks of step k = stamp k+1 - stamp k
//! ```
//!
//! The stamps arrive as one more output of the model, so that compiler, runtime and threads are those of every run; each costs some
//! twenty nanoseconds, in the step before it. They are taken on the caller's thread: a parallel step has ended when it is joined.
//! Ticks are of a constant rate on every x86-64 of the last fifteen years; whoever reads them finds the rate from a clock.

use crate::kernel::{Access, Expr, KernelBuilder, LeafArg};
use crate::program::{BufferId, BufferInfo, IoInfo, Place, Program, Step};
use crate::x86;
use lehr_ir::{DType, Diag, NodeId};
use std::ops::Range;

/// Name of the added output, the last one: u64, one more than there were steps.
pub const OUTPUT: &str = "lehr_step_ticks";

/// Puts stamps around every step. Gives the intervals between stamps that belong to each node of the graph.
///
/// # Errors
/// If this CPU has no time stamp counter that lehr can read.
pub fn instrument(program: &mut Program) -> Result<Vec<(NodeId, Range<usize>)>, Diag> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Diag::new("profile.unsupported", "time by layer can be measured on x86-64 only"));
    }
    let leaf = x86::stamp().map_err(|e| Diag::new("profile.leaf", e.to_string()))?;
    program.leaves.push(leaf);
    let leaf = (program.leaves.len() - 1) as u32;
    let len = program.steps.len() + 1;
    let place = Some(Place::Output(program.outputs.len()));
    program.outputs.push(IoInfo { name: OUTPUT.into(), dtype: DType::U64, dims: vec![len] });
    program.buffers.push(BufferInfo { dtype: DType::U64, len, place, name: Some(OUTPUT.into()) });
    let ticks = BufferId((program.buffers.len() - 1) as u32);
    let steps = std::mem::take(&mut program.steps);
    let mut stamp = |at: usize| {
        let mut k = KernelBuilder::new(format!("stamp {at}"));
        let buf = k.param(DType::U64, len, Access::Write);
        k.leaf(leaf, vec![LeafArg::Address { buf, index: Expr::i64(at as i64) }]);
        program.kernels.push(k.finish(vec![]));
        Step { kernel: program.kernels.len() - 1, args: vec![ticks], origins: vec![], first_fault: 0 }
    };
    let mut stamped = vec![stamp(0)];
    for (at, step) in steps.into_iter().enumerate() {
        stamped.extend([step, stamp(at + 1)]);
    }
    program.steps = stamped;
    Ok(std::mem::take(&mut program.node_steps))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::artefact::{Session, TensorMut, TensorRef};
    use crate::compile::{CompileOptions, jit};
    use crate::lower::{LowerOptions, lower};
    use crate::runtime::abi::dtype;
    use lehr_ir::ops::{Unary, UnaryFn};
    use lehr_ir::{Graph, TensorType};

    #[test]
    fn stamps_grow_and_results_stay() {
        let mut g = Graph::new("two");
        let x = g.add_input("x", TensorType::new(DType::F32, [4]));
        let y = g.add1(Unary { f: UnaryFn::Neg }, &[x], vec![]).unwrap();
        let z = g.add1(Unary { f: UnaryFn::Abs }, &[y], vec![]).unwrap();
        g.add_output("z", z);
        let mut program = lower(&g, &LowerOptions::default()).unwrap();
        let spans = instrument(&mut program).unwrap();
        assert_eq!(spans, [(y.node, 0..1), (z.node, 1..2)]);
        let (artefact, _) = jit(&mut program, &CompileOptions::default()).unwrap();
        let mut session = Session::new(&artefact, 1).unwrap();
        let bytes = |values: [f32; 4]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (input, mut output) = (bytes([1.0, -2.0, 0.0, 3.0]), bytes([0.0; 4]));
        let mut ticks = [0u64; 3].map(u64::to_le_bytes).concat();
        let inputs = [TensorRef { dtype: dtype::F32, dims: &[4], data: &input }];
        let mut outputs = [
            TensorMut { dtype: dtype::F32, dims: &[4], data: &mut output },
            TensorMut { dtype: dtype::U64, dims: &[3], data: &mut ticks },
        ];
        session.run(&inputs, &mut outputs).unwrap();
        assert_eq!(output, bytes([1.0, 2.0, 0.0, 3.0]));
        let ticks: Vec<u64> = ticks.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect();
        assert!(0 < ticks[0] && ticks[0] < ticks[1] && ticks[1] < ticks[2], "{ticks:?}");
    }
}
