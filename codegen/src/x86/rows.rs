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
    /// For one vector, in the first registers.
    one: Allocated,
    /// For several in turn, each in as many registers.
    several: Vec<Allocated>,
    /// Operands before these are values of passes.
    values: usize,
    /// How the others are addressed, and the pointer of the first.
    accesses: Vec<Access>,
    pointer: usize,
}

impl Ready {
    fn new(program: &VProg, isa: Isa, values: usize, pointer: usize, vectors: usize) -> Result<Ready, LeafError> {
        let program = program.legal(isa)?;
        let one = allocate(&program, isa, 0, &(1..scratch(isa)).collect::<Vec<_>>())?;
        let each = registers_each(isa, vectors);
        let copy = |v: VReg| allocate(&program, isa, v * each, &(v * each + 1..(v + 1) * each).collect::<Vec<_>>());
        let several = if vectors == 1 { vec![] } else { (0..vectors as VReg).map(copy).collect::<Result<_, _>>()? };
        let accesses: Vec<Access> = program.operands().iter().skip(values).copied().collect();
        if accesses.iter().any(|a| matches!(a, Access::Strided { .. })) {
            return Err(LeafError::Unsupported("rows with a strided operand"));
        }
        Ok(Ready { one, several, values, accesses, pointer })
    }

    /// For so many vectors, one or several.
    fn copies(&self, vectors: usize) -> &[Allocated] {
        if vectors == 1 { std::slice::from_ref(&self.one) } else { &self.several }
    }
}

/// What a row is computed by.
struct Programs {
    /// Vectors in turn where a row has so many left.
    vectors: usize,
    /// Terms and values.
    passes: Vec<(Ready, Ready)>,
    last: Vec<Ready>,
}

/// For each of several vectors, beside a total of its own.
fn registers_each(isa: Isa, vectors: usize) -> VReg {
    let vectors = vectors as VReg;
    (scratch(isa) + 1 - vectors) / vectors
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
        let one = self.programs(isa, 1)?;
        let all = one.passes.iter().flat_map(|(term, value)| [term, value]).chain(&one.last);
        let spills = all.map(|r| r.one.slots).max().unwrap_or(0);
        // Several only where nothing spills, and rows have so many.
        let several = [4, 2].into_iter().filter(|n| n * isa.lanes() <= self.len as usize).find_map(|n| {
            let programs = self.programs(isa, n).ok()?;
            let in_turn = programs.passes.iter().map(|(term, _)| term).chain(&programs.last);
            let roomy = registers_each(isa, n) >= 4 && in_turn.flat_map(|r| &r.several).all(|c| c.slots == 0);
            roomy.then_some(programs)
        });
        let programs = several.unwrap_or(one);
        let pointers: usize = programs.last.iter().map(|r| r.accesses.len()).sum();
        if pointers > OPERANDS.len() {
            return Err(LeafError::TooManyOperands { operands: pointers, most: OPERANDS.len() });
        }
        let vector = isa.bytes() as i64;
        let frame = vector * (self.passes.len() + spills) as i64;
        let mut e = Emit { s: self, isa, asm: Asm::new(isa), tail: None, vectors: programs.vectors };
        e.tail = e.load_mask();
        enter(&mut e.asm, frame, pointers);
        let end = e.asm.label();
        e.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        e.asm.jump(Code::Jle_rel32_64, end);
        let row = e.asm.here();
        let mut from = IN;
        for (i, (term, value)) in programs.passes.iter().enumerate() {
            from = e.pass(i, from, term, value);
        }
        let vectors = self.result != RowResult::Value;
        if vectors {
            e.each(from, &programs.last);
        }
        let bytes = 4 * i64::from(self.len);
        e.asm.add_imm(IN, bytes);
        e.asm.add_imm(OUT, if vectors { bytes } else { 4 });
        let accesses = programs.last.iter().flat_map(|r| &r.accesses);
        for (pointer, _) in OPERANDS.iter().zip(accesses).filter(|(_, a)| **a == Access::Same) {
            e.asm.add_imm(*pointer, bytes);
        }
        e.asm.op_r(Code::Dec_rm64, LEFT);
        e.asm.jump(Code::Jne_rel32_64, row);
        e.asm.bind(end);
        leave(&mut e.asm, frame);
        e.asm.finish()
    }

    fn programs(&self, isa: Isa, vectors: usize) -> Result<Programs, LeafError> {
        let mut passes = vec![];
        for (i, pass) in self.passes.iter().enumerate() {
            let term = Ready::new(&pass.term, isa, i, 0, vectors)?;
            let value = Ready::new(&pass.value, isa, i, 0, 1)?;
            let misplaced = pass.keep && (pass.fold != Fold::Sum || self.result == RowResult::Value);
            if misplaced || !term.accesses.is_empty() || !value.accesses.is_empty() {
                return Err(LeafError::Unsupported(
                    "passes with operands of their own, or terms kept of a maximum or for a value",
                ));
            }
            passes.push((term, value));
        }
        let last = match &self.result {
            RowResult::Value => vec![],
            RowResult::Each { own, epilogue } => {
                let own = Ready::new(own, isa, self.passes.len(), 0, vectors)?;
                let epilogue = Ready::new(epilogue, isa, 0, own.accesses.len(), vectors)?;
                vec![own, epilogue]
            }
        };
        Ok(Programs { vectors, passes, last })
    }
}

struct Emit<'a> {
    s: &'a Rows,
    isa: Isa,
    asm: Asm,
    /// The mask of a row's last, partial vector.
    tail: Option<Mask>,
    /// So many in turn.
    vectors: usize,
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

    /// `body` for every vector of a row, several in turn as far as there are; it is told how many, and the mask of the last one.
    /// `then` comes between those and the others.
    fn walk(&mut self, mut body: impl FnMut(&mut Self, usize, Option<Mask>), then: impl FnOnce(&mut Self)) {
        let whole = 4 * i64::from(self.s.len) / self.vector() * self.vector();
        self.asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
        let mut done = 0;
        let mut then = Some(then);
        for count in [self.vectors, 1] {
            let step = count as i64 * self.vector();
            let end = done + (whole - done) / step * step;
            if let Some(then) = then.take_if(|_| count == 1) {
                then(self);
            }
            if end == done {
                continue;
            }
            let top = self.asm.here();
            body(self, count, None);
            self.asm.add_imm(DONE, step);
            if end > done + step {
                self.asm.op_ri(Code::Cmp_rm64_imm32, DONE, end as i32);
                self.asm.jump(Code::Jl_rel32_64, top);
            }
            done = end;
        }
        if self.tail.is_some() {
            body(self, 1, self.tail);
        }
    }

    /// The first register for the v-th of so many vectors.
    fn register(&self, vectors: usize, v: usize) -> VReg {
        if vectors == 1 { 0 } else { v as VReg * registers_each(self.isa, vectors) }
    }

    fn load(&mut self, from: Register, vectors: usize, mask: Option<Mask>) {
        for v in 0..vectors {
            let (register, disp) = (self.register(vectors, v), v as i64 * self.vector());
            self.asm.load(register, Mem { disp, ..current(from) }, mask);
        }
    }

    fn store(&mut self, copies: &[Allocated], mask: Option<Mask>) {
        for (v, code) in copies.iter().enumerate() {
            self.asm.store(Mem { disp: v as i64 * self.vector(), ..current(OUT) }, code.result, mask);
        }
    }

    fn run(&mut self, ready: &Ready, vectors: usize, mask: Option<Mask>) {
        let (vector, passes) = (self.vector(), self.s.passes.len());
        let operand = |v: usize| {
            move |k: u8| match usize::from(k).checked_sub(ready.values) {
                None => (mem(Register::RSP, vector * i64::from(k)), false),
                Some(own) => {
                    let base = OPERANDS[ready.pointer + own];
                    match ready.accesses[own] {
                        Access::Same | Access::Channel => (Mem { disp: v as i64 * vector, ..current(base) }, false),
                        Access::Splat | Access::Strided { .. } => (mem(base, 0), true),
                    }
                }
            }
        };
        let operands: Vec<_> = (0..vectors).map(operand).collect();
        let slot = |i: usize| mem(Register::RSP, vector * (passes + i) as i64);
        // Values are whole vectors, in the tail too.
        let mask = mask.filter(|_| !ready.accesses.is_empty());
        let copies = ready.copies(vectors).iter().zip(&operands);
        let placed: Vec<_> = copies.map(|(code, operand)| (code, Place { operand, slot: &slot, mask })).collect();
        Allocated::emit_in_turn(&placed, &mut self.asm);
    }

    /// The last pass computes most, and meanwhile memory would be idle.
    fn prefetch_next_row(&mut self, vectors: usize) {
        let row = 4 * i64::from(self.s.len);
        for v in 0..vectors {
            let disp = row + v as i64 * self.vector();
            self.asm.prefetch(Mem { disp, ..current(IN) });
            if self.s.result != RowResult::Value {
                self.asm.prefetch(Mem { disp, ..current(OUT) });
            }
        }
    }

    /// Gives what the next pass reads.
    fn pass(&mut self, i: usize, from: Register, term: &Ready, value: &Ready) -> Register {
        let Pass { fold, keep, .. } = self.s.passes[i];
        // The first vector's total, and those of others in turn with it.
        let below = scratch(self.isa);
        let totals: Vec<VReg> =
            (0..self.vectors as VReg).map(|v| if v == 0 { fold_register(self.isa) } else { below - v }).collect();
        totals.iter().for_each(|&t| start_fold(&mut self.asm, fold, t));
        let term_of = |e: &mut Self, vectors: usize, mask: Option<Mask>| {
            if mask.is_some() && fold != Fold::Sum {
                // The row's last vector again, as far as it goes: an extreme does not mind.
                let back = e.vector() - 4 * i64::from(e.s.len) % e.vector();
                e.asm.load(0, Mem { disp: -back, ..current(from) }, None);
                e.run(term, 1, None);
            } else {
                e.load(from, vectors, mask);
                e.run(term, vectors, mask);
            }
            if i + 1 == e.s.passes.len() {
                e.prefetch_next_row(vectors);
            }
            if keep {
                e.store(term.copies(vectors), mask);
            }
            for (v, code) in term.copies(vectors).iter().enumerate() {
                let result = code.result;
                if let Some(mask) = mask.filter(|_| fold == Fold::Sum) {
                    e.asm.keep(result, mask);
                }
                let first = e.register(vectors, v);
                let mut free = (first..first + 3).filter(|&r| r != result);
                let free = [free.next().expect("two of three"), free.next().expect("two of three")];
                fold_into(&mut e.asm, fold, totals[v], result, free);
            }
        };
        // Programs for one vector use the registers of the other totals.
        self.walk(term_of, |e| e.gather(fold, &totals));
        let acc = totals[0];
        let mut distance = self.isa.lanes() as u32 / 2;
        while distance > 0 {
            self.asm.align(0, acc, acc, distance);
            fold_into(&mut self.asm, fold, acc, 0, [1, 2]);
            distance /= 2;
        }
        self.asm.copy(0, acc);
        self.run(value, 1, None);
        let at = mem(Register::RSP, self.vector() * i as i64);
        self.asm.store(at, value.one.result, None);
        if self.s.result == RowResult::Value && i + 1 == self.s.passes.len() {
            self.asm.store_first(mem(OUT, 0), value.one.result);
        }
        if keep { OUT } else { from }
    }

    /// Brings the totals of several vectors together.
    fn gather(&mut self, fold: Fold, totals: &[VReg]) {
        for &t in &totals[1..] {
            fold_into(&mut self.asm, fold, totals[0], t, [0, 1]);
        }
    }

    fn each(&mut self, from: Register, programs: &[Ready]) {
        let result_of = |e: &mut Self, vectors: usize, mask: Option<Mask>| {
            e.load(from, vectors, mask);
            for (k, ready) in programs.iter().enumerate() {
                if let Some(before) = k.checked_sub(1) {
                    for (v, code) in programs[before].copies(vectors).iter().enumerate() {
                        let first = e.register(vectors, v);
                        if code.result != first {
                            e.asm.copy(first, code.result);
                        }
                    }
                }
                e.run(ready, vectors, mask);
            }
            let Some(last) = programs.last() else { return };
            e.store(last.copies(vectors), mask);
        };
        self.walk(result_of, |_| {});
    }
}
