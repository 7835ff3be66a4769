//! The local response normalisation leaf, on blocks of channels: windows of channels are lanes of a block and its neighbours.
//!
//! ```text
//! for pixel in 0..count
//!     sum[c] = square(x[c - before]) + .. + square(x[c + after])      lanes shifted in from the blocks beside this one
//!     out[pixel] = epilogue(x * factor(sum))
//! ```

use super::alloc::{Place, allocate};
use super::asm::{Asm, Bin, Mem, Src, VReg};
use super::map::{DONE, IN, LEFT, OUT, current, enter, leave, operand};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError};
use iced_x86::{Code, Register};

/// The widest window that leaves have, in channels before and after its own.
pub const MAX_LRN_REACH: usize = 4;

/// What the leaf computes. Pixels lie a vector apart. Arguments as for a map, the count in pixels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lrn {
    /// Channels of a window before and after its own, at most [`MAX_LRN_REACH`].
    pub before: u32,
    pub after: u32,
    /// Bytes from a block of the input to the one before it and behind it; `None` where there is none, and zeros are meant.
    pub previous: Option<i32>,
    pub next: Option<i32>,
    /// From the sum of squares to what `x` is multiplied by.
    pub factor: VProg,
    /// Operands are addressed as in a map.
    pub epilogue: VProg,
}

impl VProg {
    /// `(bias + scale * sum)^-beta` for a positive base, 0 where it is infinite. Error: 3 ulps where beta is 1/2, 3/4 or 1, else
    /// `beta * |ln(base)|` more.
    pub fn lrn_factor(scale: f32, beta: f32, bias: f32) -> VProg {
        VProg::build(|p, sum| {
            let (scale, bias) = (p.constant(scale), p.constant(bias));
            let base = p.fma(sum, scale, bias);
            let power = match beta {
                0.5 => p.inverse_sqrt(base),
                // r^2 * r^(-1/2) with r = base^(-1/2)
                0.75 => {
                    let r = p.inverse_sqrt(base);
                    let q = p.inverse_sqrt(r);
                    let r2 = p.mul(r, r);
                    p.mul(r2, q)
                }
                1.0 => {
                    let one = p.constant(1.0);
                    p.div(one, base)
                }
                _ => {
                    let minus = p.constant(-beta);
                    let l = p.log(base);
                    let l = p.mul(l, minus);
                    p.exp(l)
                }
            };
            let (infinite, zero) = (p.constant(f32::INFINITY), p.constant(0.0));
            p.select(super::Pred::Eq, base, infinite, zero, power)
        })
    }
}

const SUM: VReg = 0;
const X: VReg = 1;
const SQUARE: VReg = 2;
const BEFORE: VReg = 3;
const AFTER: VReg = 4;
const SHIFTED: VReg = 5;

impl Lrn {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if self.before.max(self.after) as usize > MAX_LRN_REACH {
            return Err(LeafError::Unsupported("a window of channels that reaches so far"));
        }
        let (factor, epilogue) = (self.factor.legal(isa)?, self.epilogue.legal(isa)?);
        let accesses = epilogue.operands().to_vec();
        if !factor.operands().is_empty() || accesses.iter().any(|a| matches!(a, Access::Strided { .. })) {
            return Err(LeafError::Unsupported("a normalisation over such operands"));
        }
        let top = isa.registers() as VReg;
        let power = allocate(&factor, isa, SUM, &(SQUARE..top).collect::<Vec<_>>())?;
        let code = allocate(&epilogue, isa, SUM, &(X..top).collect::<Vec<_>>())?;
        let vector = isa.bytes() as i64;
        let frame = vector * power.slots.max(code.slots) as i64;
        let mut asm = Asm::new(isa);
        enter(&mut asm, frame, accesses.len());
        let end = asm.label();
        asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        asm.jump(Code::Jle_rel32_64, end);
        let pixel = asm.here();
        self.sum(&mut asm);
        let slot = |i: usize| super::asm::mem(Register::RSP, vector * i as i64);
        let place = Place { operand: &|k| operand(&accesses, k), slot: &slot, mask: None };
        power.emit(&mut asm, &place);
        asm.bin(Bin::Mul, SUM, power.result, Src::Reg(X));
        code.emit(&mut asm, &place);
        asm.store(current(OUT), code.result, None);
        asm.add_imm(DONE, vector);
        asm.op_r(Code::Dec_rm64, LEFT);
        asm.jump(Code::Jne_rel32_64, pixel);
        asm.bind(end);
        leave(&mut asm, frame);
        asm.finish()
    }

    /// X and the sum of its window.
    fn sum(&self, asm: &mut Asm) {
        let lanes = asm.isa.lanes() as u32;
        asm.load(X, current(IN), None);
        asm.bin(Bin::Mul, SQUARE, X, Src::Reg(X));
        asm.copy(SUM, SQUARE);
        let beside = |asm: &mut Asm, to: VReg, distance: Option<i32>| match distance {
            Some(bytes) => {
                asm.load(to, Mem { disp: i64::from(bytes), ..current(IN) }, None);
                asm.bin(Bin::Mul, to, to, Src::Reg(to));
            }
            None => asm.zero(to),
        };
        if self.before > 0 {
            beside(asm, BEFORE, self.previous);
        }
        if self.after > 0 {
            beside(asm, AFTER, self.next);
        }
        for n in 1..=self.before {
            asm.align(SHIFTED, SQUARE, BEFORE, lanes - n);
            asm.bin(Bin::Add, SUM, SUM, Src::Reg(SHIFTED));
        }
        for n in 1..=self.after {
            asm.align(SHIFTED, AFTER, SQUARE, n);
            asm.bin(Bin::Add, SUM, SUM, Src::Reg(SHIFTED));
        }
    }
}
