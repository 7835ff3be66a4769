//! Branches, calls and returns: how lanes part and meet.

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Call, CallArg, CallResult, Inst, Op, Reg, Src};
use crate::module::{ParamPlace, Place, Var};
use crate::types::Type;

use super::Machine;
use super::warp::{Frame, Lanes, Path, Warp, each};

const NOWHERE: u32 = u32::MAX;

impl Machine<'_> {
    /// `taken` lanes of the path go to `target`, the others on.
    pub(super) fn branch(&mut self, warp: &mut Warp<'_>, inst: &Inst, target: u32, taken: u32) {
        let Some(path) = warp.stack.last().copied() else { return };
        let stay = path.lanes & !taken;
        let next = path.pc + 1;
        if stay == 0 || taken == 0 || target == next {
            let pc = if taken == 0 { next } else { target };
            self.go(warp, pc);
            return;
        }
        self.part(warp, inst.reconverge, &[(next, stay), (target, taken)]);
    }

    fn go(&mut self, warp: &mut Warp<'_>, pc: u32) {
        if let Some(path) = warp.stack.last_mut() {
            path.pc = pc;
        }
    }

    /// Splits the path on top; the last of the parts runs first.
    fn part(&mut self, warp: &mut Warp<'_>, meet: u32, parts: &[(u32, u32)]) {
        self.stats.divergent_branches += 1;
        let function = warp.function();
        let Some(path) = warp.stack.last_mut() else { return };
        let frame = path.frame;
        let outer = path.meet;
        path.pc = meet;
        if meet == NOWHERE {
            path.lanes = 0;
        }
        // Lanes that would only wait for what the path below waits for anyway need no path of their own; otherwise a
        // loop whose lanes leave one by one would add a path with every turn. A function's first path stays.
        let first_of_frame = warp.stack.len() < 2 || warp.stack[warp.stack.len() - 2].frame != frame;
        if !first_of_frame && (meet == outer || meet == NOWHERE) {
            warp.stack.pop();
        }
        for &(pc, lanes) in parts {
            // Lanes that jump to the way out leave at once, so that no barrier waits for them.
            match function.code.get(pc as usize) {
                Some(Inst { op: Op::Exit, guard: None, .. }) => {
                    warp.retire(lanes);
                    continue;
                }
                Some(Inst { op: Op::Ret, guard: None, .. }) => {
                    self.leave_function(warp, lanes);
                    continue;
                }
                _ => {}
            }
            if pc != meet {
                warp.stack.push(Path { pc, meet, lanes, frame });
            }
        }
    }

    pub(super) fn branch_indexed(
        &mut self,
        warp: &mut Warp<'_>,
        inst: &Inst,
        index: Src,
        targets: &[u32],
        lanes: u32,
    ) -> Checked<()> {
        let Some(path) = warp.stack.last().copied() else { return Ok(()) };
        let indices = warp.get(index, lanes)?;
        let mut parts: Vec<(u32, u32)> = Vec::new();
        if path.lanes & !lanes != 0 {
            parts.push((path.pc + 1, path.lanes & !lanes));
        }
        for lane in each(lanes) {
            let index = indices[lane as usize];
            let Some(&target) = targets.get(index as usize) else {
                let message = format!("index {index} is beyond the {} targets", targets.len());
                return trouble(FaultKind::OutOfBounds, lane, message);
            };
            match parts.iter_mut().find(|p| p.0 == target) {
                Some(part) => part.1 |= 1 << lane,
                None => parts.push((target, 1 << lane)),
            }
        }
        match parts[..] {
            [(pc, _)] => self.go(warp, pc),
            _ => self.part(warp, inst.reconverge, &parts),
        }
        Ok(())
    }

    /// Lanes return from the current function: from the kernel, they are done.
    pub(super) fn leave_function(&mut self, warp: &mut Warp<'_>, lanes: u32) {
        let depth = warp.frames.len() as u32 - 1;
        if depth == 0 {
            warp.retire(lanes);
            return;
        }
        for path in warp.stack.iter_mut().filter(|p| p.frame == depth) {
            path.lanes &= !lanes;
        }
    }

    /// The path on top has ended; with the last one of a function, the function returns.
    pub(super) fn leave_path(&mut self, warp: &mut Warp<'_>) {
        let Some(path) = warp.stack.pop() else { return };
        let below = warp.stack.last().map(|p| p.frame);
        if path.frame > 0 && below != Some(path.frame) {
            self.return_to_caller(warp);
        }
    }

    pub(super) fn call(&mut self, warp: &mut Warp<'_>, call: &Call, lanes: u32) -> Checked<()> {
        if warp.frames.len() > self.cx.options.call_limit {
            let message = format!("more than {} calls within calls", self.cx.options.call_limit);
            return trouble(FaultKind::CallDepth, lanes.trailing_zeros(), message);
        }
        let caller = warp.function();
        let callee = &self.cx.module.functions[call.function as usize];
        let pc = warp.stack.last().map_or(0, |p| p.pc);
        let local = warp.frame().local + caller.frame as usize;
        // The arguments are gathered before the callee's registers become the current ones.
        let mut parcels = Vec::new();
        for (arg, param) in call.args.iter().zip(&callee.params) {
            let parcel = match arg {
                CallArg::Src(src) => of_register(&warp.get(*src, lanes)?, lanes, param.size),
                CallArg::Var(var) => of_variable(warp, &caller.vars[usize::from(*var)], lanes),
            };
            if let Some(lane) = each(lanes).find(|&lane| parcel[lane as usize].is_none()) {
                let message = format!("the argument for {} is not all written", param.name);
                return trouble(FaultKind::UninitialisedMemory, lane, message);
            }
            parcels.push(parcel);
        }
        warp.advance();
        let (regs, preds) = warp.register_ends();
        warp.resize_registers(regs + callee.regs.len(), preds + callee.preds);
        warp.frames.push(Frame { function: call.function, regs, preds, local, call: pc, callers: lanes });
        warp.use_top_frame();
        for bytes in &mut warp.local {
            bytes.resize(local);
            bytes.resize(local + callee.frame as usize);
        }
        for (param, parcel) in callee.params.iter().zip(&parcels) {
            match param.place {
                ParamPlace::Reg(reg) => to_register(warp, reg, param.ty, parcel, lanes),
                ParamPlace::Var(var) => to_variable(warp, &callee.vars[usize::from(var)], parcel, lanes),
            }
        }
        let frame = warp.frames.len() as u32 - 1;
        warp.stack.push(Path { pc: 0, meet: NOWHERE, lanes, frame });
        Ok(())
    }

    /// Hands the results over and drops the frame on top.
    fn return_to_caller(&mut self, warp: &mut Warp<'_>) {
        let callee = warp.function();
        let mut parcels = Vec::new();
        for param in &callee.results {
            parcels.push(match param.place {
                ParamPlace::Reg(reg) => {
                    let (values, written) = warp.raw(reg);
                    of_register(&values, written, param.size)
                }
                ParamPlace::Var(var) => of_variable(warp, &callee.vars[usize::from(var)], warp.live),
            });
        }
        let Some(frame) = warp.frames.pop() else { return };
        let caller = warp.function();
        let lanes = frame.callers & warp.live;
        warp.resize_registers(frame.regs, frame.preds);
        for bytes in &mut warp.local {
            bytes.resize(frame.local);
        }
        warp.use_top_frame();
        let Op::Call(call) = &caller.code[frame.call as usize].op else { return };
        for (result, parcel) in call.results.iter().zip(&parcels) {
            match result {
                CallResult::Sink => {}
                CallResult::Reg(reg, ty) => to_register(warp, *reg, *ty, parcel, lanes),
                CallResult::Var(var) => to_variable(warp, &caller.vars[usize::from(*var)], parcel, lanes),
            }
        }
    }
}

/// A value on its way between functions: by lane its bytes, `None` where it was never written.
type Parcel = Vec<Option<Vec<u8>>>;

fn of_register(values: &Lanes, written: u32, size: u64) -> Parcel {
    let size = size.min(8) as usize;
    let bytes = |lane: u32| values[lane as usize].to_le_bytes()[..size].to_vec();
    (0..32).map(|lane| (written >> lane & 1 == 1).then(|| bytes(lane))).collect()
}

/// Of a variable in the frame on top.
fn of_variable(warp: &Warp<'_>, var: &Var, lanes: u32) -> Parcel {
    let Some(at) = frame_address(warp, var) else { return vec![None; 32] };
    let bytes = |lane: usize| warp.local[lane].read(at, var.size as usize).ok().map(<[u8]>::to_vec);
    (0..32).map(|lane| if lanes >> lane & 1 == 1 { bytes(lane) } else { None }).collect()
}

fn to_register(warp: &mut Warp<'_>, reg: Reg, ty: Type, parcel: &Parcel, lanes: u32) {
    let values = std::array::from_fn(|lane| parcel[lane].as_ref().map_or(0, |b| from_bytes(b) & ty.mask()));
    let written = each(lanes).filter(|&lane| parcel[lane as usize].is_some()).map(|lane| 1 << lane).sum();
    warp.set(reg, &values, written);
}

fn to_variable(warp: &mut Warp<'_>, var: &Var, parcel: &Parcel, lanes: u32) {
    let Some(at) = frame_address(warp, var) else { return };
    for lane in each(lanes) {
        if let Some(bytes) = &parcel[lane as usize] {
            let size = bytes.len().min(var.size as usize);
            warp.local[lane as usize].write(at, &bytes[..size]);
        }
    }
}

fn frame_address(warp: &Warp<'_>, var: &Var) -> Option<usize> {
    match var.place {
        Place::Frame { offset } => Some(warp.frame().local + offset as usize),
        _ => None,
    }
}

/// Up to eight bytes as a number.
#[inline]
pub fn from_bytes(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte)),
    }
}
