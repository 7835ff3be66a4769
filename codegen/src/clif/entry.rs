//! `lehr_model_main`: runs the steps in order.
//!
//! For each step it fills an array on the stack with the addresses of the kernel's parameters and calls the kernel, or gives it
//! to the thread pool if there is enough work. Long programs are cut into functions of [`STEPS_PER_FUNCTION`] steps, because
//! the time to compile a function grows faster than its length.

use super::module::Functions;
use crate::program::{BufferId, Place, Program};
use crate::runtime::abi::RunCtx;
use cranelift::codegen::ir::{FuncRef, Function, StackSlotData, StackSlotKind};
use cranelift::prelude::*;

pub(super) const STEPS_PER_FUNCTION: usize = 128;

/// A parallel region costs about a microsecond to open and close; below this many operations it is not opened.
const PARALLEL_COST: i64 = 20_000;

/// Emits the steps `range` of the program as a function of the context.
pub(super) fn steps(mut b: FunctionBuilder, program: &Program, range: std::ops::Range<usize>, functions: &Functions) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let ctx = b.block_params(entry)[0];
    let most = program.steps[range.clone()].iter().map(|s| s.args.len()).max().unwrap_or(0) + 2;
    let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 8 * most as u32, 3));
    let mut main = Main { b, ctx, program };
    for step in &program.steps[range] {
        let kernel = &program.kernels[step.kernel];
        for (k, &buffer) in step.args.iter().enumerate() {
            let address = main.address(buffer);
            main.b.ins().stack_store(types::I64, address, slot, 8 * k as i32);
        }
        if !kernel.faults.is_empty() {
            let at = 8 * step.args.len() as i32;
            let word = main.context(RunCtx::FAULT_OFFSET);
            main.b.ins().stack_store(types::I64, word, slot, at);
            let first = main.b.ins().iconst(types::I64, step.first_fault as i64);
            main.b.ins().stack_store(types::I64, first, slot, at + 8);
        }
        let args = main.b.ins().stack_addr(types::I64, slot, 0);
        let extent = main.b.ins().iconst(types::I64, kernel.extent);
        let callee = functions.kernel(main.b.func, step.kernel);
        if kernel.extent > 1 && kernel.cost_per_iteration.saturating_mul(kernel.extent) >= PARALLEL_COST {
            let address = main.b.ins().func_addr(types::I64, callee);
            let parallel = functions.runtime(main.b.func, "lehr_rt_parallel");
            main.b.ins().call(parallel, &[ctx, address, args, extent]);
        } else {
            let zero = main.b.ins().iconst(types::I64, 0);
            main.b.ins().call(callee, &[args, zero, extent]);
        }
    }
    main.b.ins().return_(&[]);
    main.b.finalize(functions.frontend_config());
}

/// Emits calls of functions of the context, one after the other.
pub(super) fn sequence(
    mut b: FunctionBuilder,
    count: usize,
    functions: &Functions,
    callee: impl Fn(&mut Function, usize) -> FuncRef,
) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let ctx = b.block_params(entry)[0];
    for k in 0..count {
        let part = callee(b.func, k);
        b.ins().call(part, &[ctx]);
    }
    b.ins().return_(&[]);
    b.finalize(functions.frontend_config());
}

struct Main<'p, 'f> {
    b: FunctionBuilder<'f>,
    ctx: Value,
    program: &'p Program,
}

impl Main<'_, '_> {
    /// A pointer in the context. It does not change during a run.
    fn context(&mut self, offset: i32) -> Value {
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        self.b.ins().load(types::I64, flags, self.ctx, offset)
    }

    fn address(&mut self, buffer: BufferId) -> Value {
        let place =
            self.program.buffers[buffer.0 as usize].place.expect("the plan places every buffer that a step names");
        match place {
            Place::Input(i) => self.nth(RunCtx::INPUTS_OFFSET, i),
            Place::Output(i) => self.nth(RunCtx::OUTPUTS_OFFSET, i),
            Place::Weights(offset) => self.inside(RunCtx::WEIGHTS_OFFSET, offset),
            Place::Arena(offset) => self.inside(RunCtx::ARENA_OFFSET, offset),
        }
    }

    fn nth(&mut self, table: i32, index: usize) -> Value {
        let table = self.context(table);
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        self.b.ins().load(types::I64, flags, table, 8 * index as i32)
    }

    fn inside(&mut self, base: i32, offset: u64) -> Value {
        let base = self.context(base);
        self.b.ins().iadd_imm_s(base, offset as i64)
    }
}
