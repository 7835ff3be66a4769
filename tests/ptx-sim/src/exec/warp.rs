//! A warp: registers of 32 lanes, and the paths that its lanes have taken.

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Pred, PredSrc, Reg, Src};
use crate::memory::Bytes;
use crate::module::{Function, Module};

use super::LaunchContext;
use super::copy::LaneCopies;

pub type Lanes = [u64; 32];

/// Lanes that run together, up to where they meet others.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub pc: u32,
    /// Where the lanes wait for those on other paths.
    pub meet: u32,
    pub lanes: u32,
    /// Index of the frame.
    pub frame: u32,
}

/// A function that has been called.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub function: u32,
    pub regs: usize,
    pub preds: usize,
    /// Where the frame's variables begin in each thread's local memory.
    pub local: usize,
    /// The call instruction in the caller's code, and the lanes that called.
    pub call: u32,
    pub callers: u32,
}

pub struct Warp<'a> {
    module: &'a Module,
    pub index: usize,
    regs: Vec<Lanes>,
    /// For each register, the lanes that have written it.
    written: Vec<u32>,
    preds: Vec<u32>,
    preds_written: Vec<u32>,
    /// The condition code's carry flag.
    pub carry: u32,
    pub carry_written: u32,
    pub stack: Vec<Path>,
    pub frames: Vec<Frame>,
    /// Bases of the current frame.
    reg_base: usize,
    pred_base: usize,
    pub live: u32,
    pub local: Vec<Bytes>,
    pub copies: Vec<LaneCopies>,
    /// The line of the current instruction.
    pub line: u32,
}

impl<'a> Warp<'a> {
    pub fn new(index: usize, cx: &LaunchContext<'a>) -> Warp<'a> {
        let threads: u32 = cx.grid.threads.iter().product();
        let live = (0..32).filter(|lane| index as u32 * 32 + lane < threads).map(|lane| 1 << lane).sum();
        let entry = cx.entry();
        let frame = Frame { function: cx.kernel as u32, regs: 0, preds: 0, local: 0, call: 0, callers: live };
        let mut warp = Warp {
            module: cx.module,
            index,
            regs: Vec::new(),
            written: Vec::new(),
            preds: Vec::new(),
            preds_written: Vec::new(),
            carry: 0,
            carry_written: 0,
            stack: vec![Path { pc: 0, meet: u32::MAX, lanes: live, frame: 0 }],
            frames: vec![frame],
            reg_base: 0,
            pred_base: 0,
            live,
            local: vec![Bytes::new(entry.frame as usize); 32],
            copies: vec![LaneCopies::default(); 32],
            line: 0,
        };
        warp.resize_registers(entry.regs.len(), entry.preds);
        warp
    }

    pub fn resize_registers(&mut self, regs: usize, preds: usize) {
        self.regs.resize(regs, [0; 32]);
        self.written.resize(regs, 0);
        self.preds.resize(preds, 0);
        self.preds_written.resize(preds, 0);
    }

    pub fn frame(&self) -> &Frame {
        &self.frames[self.frames.len() - 1]
    }

    /// The function that the warp is in.
    pub fn function(&self) -> &'a Function {
        &self.module.functions[self.frame().function as usize]
    }

    pub fn function_of(&self, frame: &Frame) -> &'a Function {
        &self.module.functions[frame.function as usize]
    }

    /// Makes the frame on top the one whose registers are addressed.
    pub fn use_top_frame(&mut self) {
        (self.reg_base, self.pred_base) = (self.frame().regs, self.frame().preds);
    }

    /// Where registers and predicates of a further frame begin.
    pub fn register_ends(&self) -> (usize, usize) {
        (self.regs.len(), self.preds.len())
    }

    pub fn advance(&mut self) {
        if let Some(path) = self.stack.last_mut() {
            path.pc += 1;
        }
    }

    /// Lanes leave the kernel.
    pub fn retire(&mut self, lanes: u32) {
        self.live &= !lanes;
        for path in &mut self.stack {
            path.lanes &= !lanes;
        }
    }

    /// The values of an operand, which the lanes must have written.
    #[inline]
    pub fn get(&self, src: Src, lanes: u32) -> Checked<Lanes> {
        match src {
            Src::Imm(value) => Ok([value; 32]),
            Src::Reg(reg) => Ok(*self.reg(reg, lanes)?),
        }
    }

    #[inline]
    pub fn reg(&self, reg: Reg, lanes: u32) -> Checked<&Lanes> {
        let index = self.reg_base + reg as usize;
        let missing = lanes & !self.written[index];
        if missing != 0 {
            return self.unwritten(reg, missing);
        }
        Ok(&self.regs[index])
    }

    #[cold]
    fn unwritten<T>(&self, reg: Reg, missing: u32) -> Checked<T> {
        let name = &self.function().reg_names[usize::from(reg)];
        let message = format!("{name} is read before anything is written to it");
        trouble(FaultKind::UninitialisedRegister, missing.trailing_zeros(), message)
    }

    #[inline]
    pub fn set(&mut self, reg: Reg, values: &Lanes, lanes: u32) {
        let index = self.reg_base + reg as usize;
        self.written[index] |= lanes;
        if lanes == u32::MAX {
            self.regs[index] = *values;
            return;
        }
        for (lane, (to, from)) in self.regs[index].iter_mut().zip(values).enumerate() {
            if lanes >> lane & 1 == 1 {
                *to = *from;
            }
        }
    }

    /// The lanes among `lanes` where a predicate is true, which all must have written. Others are garbage.
    pub fn pred(&self, pred: Pred, lanes: u32) -> Checked<u32> {
        let index = self.pred_base + pred as usize;
        let missing = lanes & !self.preds_written[index];
        if missing != 0 {
            let name = &self.function().pred_names[usize::from(pred)];
            let message = format!("{name} is read before anything is written to it");
            return trouble(FaultKind::UninitialisedRegister, missing.trailing_zeros(), message);
        }
        Ok(self.preds[index])
    }

    pub fn pred_src(&self, src: PredSrc, lanes: u32) -> Checked<u32> {
        match src {
            PredSrc::Imm(value) => Ok(if value { u32::MAX } else { 0 }),
            PredSrc::Reg { pred, negated } => {
                let value = self.pred(pred, lanes)?;
                Ok(if negated { !value } else { value })
            }
        }
    }

    pub fn set_pred(&mut self, pred: Pred, value: u32, lanes: u32) {
        let index = self.pred_base + pred as usize;
        self.preds_written[index] |= lanes;
        self.preds[index] = self.preds[index] & !lanes | value & lanes;
    }

    /// A register as it is: its values, and the lanes that have written it.
    pub fn raw(&self, reg: Reg) -> (Lanes, u32) {
        let index = self.reg_base + reg as usize;
        (self.regs[index], self.written[index])
    }
}

/// The numbers of the lanes in a mask.
#[inline]
pub fn each(mut lanes: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = lanes.trailing_zeros();
        lanes &= lanes.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}
