//! The panel leaf: brings columns of a matrix into the order in which a product's tiles read their right operand, when that is
//! made at run time.
//!
//! ```text
//! for k in 0..rows    for n in 0..blocks      to[k][n] = from[k][n*lanes ..]           or from[n*lanes ..][k], transposed
//! ```
//!
//! Lanes beyond the last column become zero, and no memory is read for them.

use super::asm::{Asm, Label, Mask, VReg, mem};
use super::shuffle::transpose;
use super::{Isa, LeafError, winograd_slots as slots};
use iced_x86::{Code, Register};

/// What the leaf copies. Strides in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Panel {
    /// Rows of the product's right operand: its inner axis.
    pub rows: u32,
    pub columns: u32,
    /// From row to row of the source, or from column to column where it lies transposed.
    pub from: i32,
    pub transposed: bool,
}

const ARGS: Register = Register::RDI;
const FROM: Register = Register::RAX;
const TO: Register = Register::RDX;
const COUNT: Register = Register::RCX;
/// Rows that a round copies.
const ROUND: u32 = 8;

impl Panel {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if self.rows == 0 || self.columns == 0 {
            return Err(LeafError::Unsupported("a panel without elements"));
        }
        let mut p = Emit { s: self, asm: Asm::new(isa), isa, tables: vec![] };
        p.asm.load64(FROM, mem(ARGS, slots::IN));
        p.asm.load64(TO, mem(ARGS, slots::OUT));
        match self.transposed {
            true => p.transposed(),
            false => p.straight(),
        }
        for (lanes, label) in std::mem::take(&mut p.tables) {
            p.asm.table_at(label, (0..isa.lanes() as u32).map(|i| if i < lanes { u32::MAX } else { 0 }).collect());
        }
        p.asm.zero_upper();
        p.asm.ret();
        p.asm.finish()
    }
}

struct Emit<'a> {
    s: &'a Panel,
    asm: Asm,
    isa: Isa,
    /// Masks of so many lanes, with AVX2.
    tables: Vec<(u32, Label)>,
}

impl Emit<'_> {
    fn vector(&self) -> i64 {
        self.isa.bytes() as i64
    }

    fn lanes(&self) -> u32 {
        self.isa.lanes() as u32
    }

    fn blocks(&self) -> u32 {
        self.s.columns.div_ceil(self.lanes())
    }

    /// Bytes of a row of the target.
    fn step(&self) -> i64 {
        i64::from(self.blocks()) * self.vector()
    }

    /// Sets the mask of the first `lanes` lanes. With AVX2 it takes the highest register.
    fn load_mask(&mut self, lanes: u32) -> Option<Mask> {
        if lanes == self.lanes() {
            return None;
        }
        Some(match self.isa {
            Isa::Avx512 => {
                self.asm.op_ri(Code::Mov_r32_imm32, Register::ECX, (1 << lanes) - 1);
                self.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::ECX);
                Mask::Predicate
            }
            Isa::Avx2 => {
                let label = self.asm.label();
                self.tables.push((lanes, label));
                let top = self.isa.registers() as VReg - 1;
                let m = self.asm.rip(label);
                self.asm.load(top, m, None);
                Mask::Vector(top)
            }
        })
    }

    /// `rounds` times `body`, which moves the pointers on.
    fn repeat(&mut self, rounds: u32, body: impl Fn(&mut Self)) {
        if rounds > 0 {
            self.asm.mov_imm(COUNT, rounds as i32);
            let top = self.asm.here();
            body(self);
            self.asm.op_r(Code::Dec_rm64, COUNT);
            self.asm.jump(Code::Jne_rel32_64, top);
        }
    }

    fn straight(&mut self) {
        let last = self.s.columns - (self.blocks() - 1) * self.lanes();
        let mask = self.load_mask(last);
        self.repeat(self.s.rows / ROUND, |p| p.rows(ROUND, mask));
        self.rows(self.s.rows % ROUND, mask);
    }

    fn rows(&mut self, count: u32, mask: Option<Mask>) {
        let (from, step, vector) = (i64::from(self.s.from), self.step(), self.vector());
        for k in 0..i64::from(count) {
            for n in 0..self.blocks() {
                let mask = mask.filter(|_| n + 1 == self.blocks());
                let (register, at) = ((n % 8) as VReg, i64::from(n) * vector);
                self.asm.load(register, mem(FROM, k * from + at), mask);
                self.asm.store(mem(TO, k * step + at), register, None);
            }
        }
        self.asm.add_imm(FROM, i64::from(count) * from);
        self.asm.add_imm(TO, i64::from(count) * step);
    }

    /// Block by block, a square of lanes at a time.
    fn transposed(&mut self) {
        let (lanes, vector, step) = (self.lanes(), self.vector(), self.step());
        let (rounds, rest) = (self.s.rows / lanes, self.s.rows % lanes);
        for n in 0..self.blocks() {
            let columns = (self.s.columns - n * lanes).min(lanes);
            self.repeat(rounds, |p| {
                p.square(columns, lanes, None);
                p.asm.add_imm(FROM, vector);
                p.asm.add_imm(TO, i64::from(lanes) * step);
            });
            if rest > 0 {
                let mask = self.load_mask(rest);
                self.square(columns, rest, mask);
            }
            let done = i64::from(rounds);
            self.asm.add_imm(FROM, i64::from(lanes) * i64::from(self.s.from) - done * vector);
            self.asm.add_imm(TO, vector - done * i64::from(lanes) * step);
        }
    }

    /// So many columns of the operand, which are rows of the source, by so many of its rows.
    fn square(&mut self, columns: u32, rows: u32, mask: Option<Mask>) {
        let (from, step) = (i64::from(self.s.from), self.step());
        for c in 0..self.lanes() {
            if c < columns {
                self.asm.load(c as VReg, mem(FROM, i64::from(c) * from), mask);
            } else {
                self.asm.zero(c as VReg);
            }
        }
        for (r, register) in transpose(&mut self.asm).into_iter().enumerate().take(rows as usize) {
            self.asm.store(mem(TO, r as i64 * step), register, None);
        }
    }
}
