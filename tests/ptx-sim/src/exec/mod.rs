//! The machine: blocks one after another, the warps of a block in turns until each waits at a barrier or is done.

mod access;
mod alu;
mod barrier;
mod batch;
mod collective;
mod control;
mod copy;
mod flags;
mod matrix;
mod warp;

use crate::device::{Grid, Options};
use crate::fault::{Checked, Fault, FaultKind, FaultPlace, Trouble, trouble};
use crate::inst::{Inst, Op};
use crate::memory::{Global, Region, Shared};
use crate::module::{Function, Module};
use crate::race::Clocks;
use crate::stats::Stats;

use barrier::Barriers;
use flags::{Flags, Hearing};
use warp::Warp;

/// Instructions that a warp runs before another has its turn.
const TURN: u32 = 4096;

/// What stays the same during a launch.
pub(crate) struct LaunchContext<'a> {
    pub module: &'a Module,
    /// Index of the entry.
    pub kernel: usize,
    pub grid: Grid,
    pub arguments: Vec<u8>,
    /// Of the module's variables.
    pub addresses: Vec<u64>,
    pub regions: Vec<Region>,
    pub options: &'a Options,
    pub number: u64,
}

impl<'a> LaunchContext<'a> {
    fn entry(&self) -> &'a Function {
        &self.module.functions[self.kernel]
    }
}

/// One block as it runs.
struct Machine<'a> {
    cx: &'a LaunchContext<'a>,
    global: &'a mut Global,
    stats: &'a mut Stats,
    block: [u32; 3],
    shared: Shared,
    clocks: Clocks,
    barriers: Barriers,
    flags: &'a mut Flags,
    hearing: Hearing,
    /// The block's place in the order of the launch.
    number: u32,
    /// Whether each warp has been done with.
    done: Vec<bool>,
}

/// Whether a warp goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Wait,
    Done,
}

pub(crate) fn run_grid(cx: &LaunchContext<'_>, global: &mut Global) -> Result<Stats, Fault> {
    let mut stats = Stats::default();
    let [bx, by, bz] = cx.grid.blocks;
    let warps = (cx.grid.threads.iter().product::<u32>() as usize).div_ceil(32);
    let mut flags = Flags::default();
    let mut number = 0;
    for z in 0..bz {
        for y in 0..by {
            for x in 0..bx {
                let mut machine = Machine {
                    cx,
                    global,
                    stats: &mut stats,
                    block: [x, y, z],
                    shared: Shared::new(cx.regions.clone()),
                    clocks: Clocks::new(warps, number * warps as u32),
                    barriers: Barriers::new(warps),
                    flags: &mut flags,
                    hearing: Hearing::default(),
                    number,
                    done: vec![false; warps],
                };
                machine.run(warps)?;
                number += 1;
            }
        }
    }
    Ok(stats)
}

impl<'a> Machine<'a> {
    fn run(&mut self, warps: usize) -> Result<(), Fault> {
        let mut all: Vec<Warp> = (0..warps).map(|w| Warp::new(w, self.cx)).collect();
        loop {
            let mut progress = false;
            for warp in &mut all {
                if self.done[warp.index] || self.barriers.is_waiting(warp.index) {
                    continue;
                }
                progress = true;
                self.turn(warp).map_err(|t| self.fault(warp, *t))?;
            }
            if self.done.iter().all(|&d| d) {
                return Ok(());
            }
            if !progress {
                let stuck = all.iter().find(|w| !self.done[w.index]).unwrap_or(&all[0]);
                let message = format!("no thread can go on: {}", self.barriers.describe());
                let lane = stuck.live.trailing_zeros() & 31;
                return Err(self.fault(stuck, Trouble { kind: FaultKind::Deadlock, lane, message }));
            }
        }
    }

    fn turn(&mut self, warp: &mut Warp<'_>) -> Checked<()> {
        self.barriers.resume(warp);
        for _ in 0..TURN {
            match self.step(warp)? {
                Flow::On => {}
                Flow::Wait => return Ok(()),
                Flow::Done => {
                    self.done[warp.index] = true;
                    self.barriers_after_exit(warp.index);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn fault(&self, warp: &Warp<'_>, trouble: Trouble) -> Fault {
        let [tx, ty, _] = self.cx.grid.threads;
        let thread = warp.index as u32 * 32 + trouble.lane;
        let place = FaultPlace {
            kernel: self.cx.entry().name.clone(),
            line: warp.line,
            instruction: self.cx.module.line(warp.line).to_string(),
            block: self.block,
            thread: [thread % tx, thread / tx % ty, thread / (tx * ty)],
        };
        Fault { kind: trouble.kind, message: trouble.message, place: Some(place) }
    }

    /// Runs the next instruction of a warp.
    fn step(&mut self, warp: &mut Warp<'_>) -> Checked<Flow> {
        let Some(path) = warp.stack.last().copied() else { return Ok(Flow::Done) };
        if path.lanes == 0 || path.pc == path.meet {
            self.leave_path(warp);
            return Ok(Flow::On);
        }
        let function = warp.function();
        let Some(inst) = function.code.get(path.pc as usize) else {
            self.leave_function(warp, path.lanes);
            return Ok(Flow::On);
        };
        warp.line = inst.line;
        self.stats.warp_instructions += 1;
        let lanes = match inst.guard {
            None => path.lanes,
            Some((pred, negated)) => {
                let value = warp.pred(pred, path.lanes)?;
                path.lanes & if negated { !value } else { value }
            }
        };
        self.stats.thread_instructions += u64::from(lanes.count_ones());
        if self.stats.warp_instructions > self.cx.options.step_limit {
            let message = format!("more than {} instructions", self.cx.options.step_limit);
            return trouble(FaultKind::StepLimit, path.lanes.trailing_zeros(), message);
        }
        if lanes == 0 && !matches!(inst.op, Op::Bra { .. } | Op::BraIndexed { .. }) {
            warp.advance();
            return Ok(Flow::On);
        }
        self.execute(warp, inst, lanes)
    }

    fn execute(&mut self, warp: &mut Warp<'_>, inst: &Inst, lanes: u32) -> Checked<Flow> {
        match &inst.op {
            Op::Bra { target } => {
                self.branch(warp, inst, *target, lanes);
                return Ok(Flow::On);
            }
            Op::BraIndexed { index, targets } => {
                self.branch_indexed(warp, inst, *index, targets, lanes)?;
                return Ok(Flow::On);
            }
            Op::Call(call) => {
                self.call(warp, call, lanes)?;
                return Ok(Flow::On);
            }
            Op::Ret => {
                warp.advance();
                self.leave_function(warp, lanes);
                return Ok(Flow::On);
            }
            Op::Exit => {
                warp.advance();
                warp.retire(lanes);
                return Ok(Flow::On);
            }
            Op::Trap => return trouble(FaultKind::Trap, lanes.trailing_zeros(), "trap"),
            Op::Barrier { kind, id, count, reduce } => {
                warp.advance();
                return self.barrier(warp, *kind, *id, *count, *reduce, lanes);
            }
            _ => {}
        }
        warp.advance();
        match &inst.op {
            Op::Load(load) => self.load(warp, load, lanes)?,
            Op::Store(store) => self.store(warp, store, lanes)?,
            Op::Atomic(atomic) => self.atomic(warp, atomic, lanes)?,
            Op::CpAsync(copy) => self.copy_async(warp, copy, lanes)?,
            Op::CpCommit => self.copy_commit(warp, lanes),
            Op::CpWait(left) => self.copy_wait(warp, *left as usize, lanes)?,
            Op::CpWaitAll => {
                self.copy_commit(warp, lanes);
                self.copy_wait(warp, 0, lanes)?;
            }
            Op::LdMatrix { d, address, trans, space } => self.ldmatrix(warp, d, *address, *trans, *space, lanes)?,
            Op::StMatrix { a, address, trans, space } => self.stmatrix(warp, a, *address, *trans, *space, lanes)?,
            Op::Mma(mma) => self.mma(warp, mma, lanes)?,
            Op::MovSpecial { d, special } => {
                let values = std::array::from_fn(|lane| self.special(warp, *special, lane as u32));
                warp.set(*d, &values, lanes);
            }
            Op::MovAddress { d, address } => {
                let values = self.addresses(warp, *address, lanes)?;
                warp.set(*d, &values, lanes);
            }
            Op::Cvta { space, to_space, d, a } => self.cvta(warp, *space, *to_space, *d, *a, lanes)?,
            Op::IsSpace { space, d, a } => self.is_space(warp, *space, *d, *a, lanes)?,
            Op::BarWarp { members } => self.bar_warp(warp, *members, lanes)?,
            Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::ActiveMask { .. }
            | Op::Elect { .. }
            | Op::Redux { .. } => self.collective(warp, &inst.op, lanes)?,
            Op::Fence => self.fence(),
            Op::Nothing => {}
            _ => self.arithmetic(warp, &inst.op, lanes)?,
        }
        Ok(Flow::On)
    }

    fn special(&self, warp: &Warp<'_>, special: crate::types::Special, lane: u32) -> u64 {
        use crate::types::Special::*;
        let grid = self.cx.grid;
        let thread = warp.index as u32 * 32 + lane;
        let value = match special {
            Tid(axis) => {
                let [tx, ty, _] = grid.threads;
                [thread % tx, thread / tx % ty, thread / (tx * ty)][usize::from(axis)]
            }
            Ntid(axis) => grid.threads[usize::from(axis)],
            Ctaid(axis) => self.block[usize::from(axis)],
            Nctaid(axis) => grid.blocks[usize::from(axis)],
            LaneId => lane,
            WarpId => warp.index as u32,
            NWarpId => self.done.len() as u32,
            SmId => 0,
            NSmId => 1,
            GridId => return self.cx.number,
            LaneMaskEq => 1 << lane,
            LaneMaskLt => (1 << lane) - 1,
            LaneMaskLe => u32::MAX >> (31 - lane),
            LaneMaskGt => !(u32::MAX >> (31 - lane)),
            LaneMaskGe => !((1 << lane) - 1),
            Clock => self.stats.warp_instructions as u32,
            Clock64 | GlobalTimer => return self.stats.warp_instructions,
            DynamicSmemSize => grid.dynamic_shared,
            TotalSmemSize => grid.dynamic_shared + self.cx.entry().static_shared(),
        };
        u64::from(value)
    }
}
