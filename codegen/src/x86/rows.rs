//! The rows leaf: statistics of each row of a matrix, and what is computed from the row with them: softmax, normalisations,
//! reductions.
//!
//! ```text
//! for row in 0..rows
//!     for pass in passes
//!         total = fold over the row of term(x, values so far)          terms may be kept in the output, as the next x
//!         value[pass] = value(total)                                   in every lane
//!     out[row] = epilogue(own(x, values))                              or the last value alone
//! ```
//!
//! Rows are at least a vector long. Registers: rdi bytes done, rax in, rdx out, rcx rows left, r8-r11 and rsi pointers of operands.
//! The highest vector register holds the fold, with AVX2 the one below it the mask of the tail. Values lie on the stack.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Bin, Mask, Mem, Pred, Src, VReg, mem};
use super::map::{DONE, IN, LEFT, OPERANDS, OUT, current, enter, leave};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError};
use iced_x86::{Code, Register};

/// What the leaf computes. Arguments as for a map: input, output, rows, parameters of `own`, operands of the epilogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Elements of a row; rows follow one another.
    pub len: u32,
    pub passes: Vec<Pass>,
    pub result: RowResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    pub fold: Fold,
    /// What is folded. Its operands are the values of earlier passes.
    pub term: VProg,
    /// Whether terms go to the output, from where later passes and the result read.
    pub keep: bool,
    /// From the total to the pass's value. Its operands are the values of earlier passes.
    pub value: VProg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    Sum,
    /// NaN may be lost.
    Max,
    /// The maximum; NaN if there is one.
    Largest,
    /// The minimum; NaN if there is one.
    Smallest,
}

/// Sets a total to what does not count.
pub(super) fn start_fold(asm: &mut Asm, fold: Fold, total: VReg) {
    match fold {
        Fold::Sum => asm.zero(total),
        Fold::Max | Fold::Largest => asm.constant_to(total, f32::NEG_INFINITY.to_bits()),
        Fold::Smallest => asm.constant_to(total, f32::INFINITY.to_bits()),
    }
}

/// `total = fold(total, term)`, with two registers that are free.
pub(super) fn fold_into(asm: &mut Asm, fold: Fold, total: VReg, term: VReg, [a, b]: [VReg; 2]) {
    let op = match fold {
        Fold::Sum => return asm.bin(Bin::Add, total, total, Src::Reg(term)),
        Fold::Max => return asm.bin(Bin::Max, total, total, Src::Reg(term)),
        Fold::Largest => Bin::Max,
        Fold::Smallest => Bin::Min,
    };
    // The instruction gives its second operand where either is NaN: a total that is NaN stays, and a term is chosen.
    asm.bin(op, a, term, Src::Reg(total));
    asm.select(Pred::Unordered, b, term, Src::Reg(term), term, a);
    asm.copy(total, b);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowResult {
    /// A row. Operands of `own` are the values of all passes, then its parameters. Those and the epilogue's operands are
    /// [`Access::Same`] (another matrix), [`Access::Channel`] (the same row every time) or [`Access::Splat`].
    Each { own: VProg, epilogue: VProg },
    /// The last pass's value.
    Value,
}

/// A program on registers.
struct Ready {
    code: Allocated,
    /// Operands before these are values of passes.
    values: usize,
    /// How the others are addressed, and the pointer of the first.
    accesses: Vec<Access>,
    pointer: usize,
}

impl Ready {
    fn new(program: &VProg, isa: Isa, values: usize, pointer: usize) -> Result<Ready, LeafError> {
        let program = program.legal(isa)?;
        let code = allocate(&program, isa, 0, &(1..scratch(isa)).collect::<Vec<_>>())?;
        let accesses: Vec<Access> = program.operands().iter().skip(values).copied().collect();
        if accesses.iter().any(|a| matches!(a, Access::Strided { .. })) {
            return Err(LeafError::Unsupported("rows with a strided operand"));
        }
        Ok(Ready { code, values, accesses, pointer })
    }
}

/// Registers below this one are free.
fn scratch(isa: Isa) -> VReg {
    fold_register(isa) - VReg::from(isa == Isa::Avx2)
}

fn fold_register(isa: Isa) -> VReg {
    isa.registers() as VReg - 1
}

impl Rows {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if (self.len as usize) < isa.lanes() || self.len > 1 << 28 || self.passes.is_empty() {
            return Err(LeafError::Unsupported("rows so short or long, or without passes"));
        }
        let mut terms = vec![];
        let mut values = vec![];
        for (i, pass) in self.passes.iter().enumerate() {
            let (term, value) = (Ready::new(&pass.term, isa, i, 0)?, Ready::new(&pass.value, isa, i, 0)?);
            let misplaced = pass.keep && (pass.fold != Fold::Sum || self.result == RowResult::Value);
            if misplaced || !term.accesses.is_empty() || !value.accesses.is_empty() {
                return Err(LeafError::Unsupported(
                    "passes with operands of their own, or terms kept of a maximum or for a value",
                ));
            }
            terms.push(term);
            values.push(value);
        }
        let mut last = vec![];
        if let RowResult::Each { own, epilogue } = &self.result {
            let own = Ready::new(own, isa, self.passes.len(), 0)?;
            let epilogue = Ready::new(epilogue, isa, 0, own.accesses.len())?;
            last = vec![own, epilogue];
        }
        let all: Vec<&Ready> = terms.iter().chain(&values).chain(&last).collect();
        let pointers: usize = last.iter().map(|r| r.accesses.len()).sum();
        if pointers > OPERANDS.len() {
            return Err(LeafError::TooManyOperands { operands: pointers, most: OPERANDS.len() });
        }
        let vector = isa.bytes() as i64;
        let spills = all.iter().map(|r| r.code.slots).max().unwrap_or(0);
        let frame = vector * (self.passes.len() + spills) as i64;
        let mut e = Emit { s: self, isa, asm: Asm::new(isa), tail: None };
        e.tail = e.load_mask();
        enter(&mut e.asm, frame, pointers);
        let end = e.asm.label();
        e.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        e.asm.jump(Code::Jle_rel32_64, end);
        let row = e.asm.here();
        let mut from = IN;
        for (i, (term, value)) in terms.iter().zip(&values).enumerate() {
            from = e.pass(i, from, term, value);
        }
        let vectors = self.result != RowResult::Value;
        if vectors {
            e.each(from, &last);
        }
        let bytes = 4 * i64::from(self.len);
        e.asm.add_imm(IN, bytes);
        e.asm.add_imm(OUT, if vectors { bytes } else { 4 });
        let accesses = last.iter().flat_map(|r| &r.accesses);
        for (pointer, _) in OPERANDS.iter().zip(accesses).filter(|(_, a)| **a == Access::Same) {
            e.asm.add_imm(*pointer, bytes);
        }
        e.asm.op_r(Code::Dec_rm64, LEFT);
        e.asm.jump(Code::Jne_rel32_64, row);
        e.asm.bind(end);
        leave(&mut e.asm, frame);
        e.asm.finish()
    }
}

struct Emit<'a> {
    s: &'a Rows,
    isa: Isa,
    asm: Asm,
    /// The mask of a row's last, partial vector.
    tail: Option<Mask>,
}

impl Emit<'_> {
    fn vector(&self) -> i64 {
        self.isa.bytes() as i64
    }

    /// Before the arguments are read: it uses their registers.
    fn load_mask(&mut self) -> Option<Mask> {
        let rest = self.s.len % self.isa.lanes() as u32;
        if rest == 0 {
            return None;
        }
        Some(match self.isa {
            Isa::Avx512 => {
                self.asm.op_ri(Code::Mov_r32_imm32, Register::EAX, (1 << rest) - 1);
                self.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::EAX);
                Mask::Predicate
            }
            Isa::Avx2 => {
                let words = (0..self.isa.lanes() as u32).map(|i| if i < rest { u32::MAX } else { 0 }).collect();
                let table = self.asm.table(words);
                let at = self.asm.rip(table);
                self.asm.load(scratch(self.isa), at, None);
                Mask::Vector(scratch(self.isa))
            }
        })
    }

    /// `body` for every vector of a row; it is told the mask of the last one.
    fn walk(&mut self, mut body: impl FnMut(&mut Self, Option<Mask>)) {
        let whole = 4 * i64::from(self.s.len) / self.vector() * self.vector();
        self.asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
        let top = self.asm.here();
        body(self, None);
        self.asm.add_imm(DONE, self.vector());
        self.asm.op_ri(Code::Cmp_rm64_imm32, DONE, whole as i32);
        self.asm.jump(Code::Jl_rel32_64, top);
        if self.tail.is_some() {
            body(self, self.tail);
        }
    }

    fn run(&mut self, ready: &Ready, mask: Option<Mask>) {
        let (vector, passes) = (self.vector(), self.s.passes.len());
        let operand = |k: u8| match usize::from(k).checked_sub(ready.values) {
            None => (mem(Register::RSP, vector * i64::from(k)), false),
            Some(own) => {
                let base = OPERANDS[ready.pointer + own];
                match ready.accesses[own] {
                    Access::Same | Access::Channel => (current(base), false),
                    Access::Splat | Access::Strided { .. } => (mem(base, 0), true),
                }
            }
        };
        let slot = |i: usize| mem(Register::RSP, vector * (passes + i) as i64);
        // Values are whole vectors, in the tail too.
        let mask = mask.filter(|_| !ready.accesses.is_empty());
        ready.code.emit(&mut self.asm, &Place { operand: &operand, slot: &slot, mask });
    }

    /// The last pass computes most, and meanwhile memory would be idle.
    fn prefetch_next_row(&mut self) {
        let row = 4 * i64::from(self.s.len);
        self.asm.prefetch(Mem { disp: row, ..current(IN) });
        if self.s.result != RowResult::Value {
            self.asm.prefetch(Mem { disp: row, ..current(OUT) });
        }
    }

    /// Gives what the next pass reads.
    fn pass(&mut self, i: usize, from: Register, term: &Ready, value: &Ready) -> Register {
        let Pass { fold, keep, .. } = self.s.passes[i];
        let acc = fold_register(self.isa);
        start_fold(&mut self.asm, fold, acc);
        self.walk(|e, mask| {
            if mask.is_some() && fold != Fold::Sum {
                // The row's last vector again, as far as it goes: an extreme does not mind.
                let back = e.vector() - 4 * i64::from(e.s.len) % e.vector();
                e.asm.load(0, Mem { disp: -back, ..current(from) }, None);
                e.run(term, None);
            } else {
                e.asm.load(0, current(from), mask);
                e.run(term, mask);
            }
            if i + 1 == e.s.passes.len() {
                e.prefetch_next_row();
            }
            let result = term.code.result;
            if keep {
                e.asm.store(current(OUT), result, mask);
            }
            if let Some(mask) = mask.filter(|_| fold == Fold::Sum) {
                e.asm.keep(result, mask);
            }
            let free = if result < 2 { [2, 3] } else { [0, 1] };
            fold_into(&mut e.asm, fold, acc, result, free);
        });
        let mut distance = self.isa.lanes() as u32 / 2;
        while distance > 0 {
            self.asm.align(0, acc, acc, distance);
            fold_into(&mut self.asm, fold, acc, 0, [1, 2]);
            distance /= 2;
        }
        self.asm.copy(0, acc);
        self.run(value, None);
        let at = mem(Register::RSP, self.vector() * i as i64);
        self.asm.store(at, value.code.result, None);
        if self.s.result == RowResult::Value && i + 1 == self.s.passes.len() {
            self.asm.store_first(mem(OUT, 0), value.code.result);
        }
        if keep { OUT } else { from }
    }

    fn each(&mut self, from: Register, programs: &[Ready]) {
        self.walk(|e, mask| {
            e.asm.load(0, current(from), mask);
            let mut result = 0;
            for ready in programs {
                if result != 0 {
                    e.asm.copy(0, result);
                }
                e.run(ready, mask);
                result = ready.code.result;
            }
            e.asm.store(current(OUT), result, mask);
        });
    }
}
