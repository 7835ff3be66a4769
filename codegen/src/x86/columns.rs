//! The columns leaf: what the [`rows`](super::rows) leaf computes, with a cell in each lane: cells side by side, as when an axis
//! before the last is reduced, or short rows, which are transposed on the way in and out.
//!
//! ```text
//! for group of cells, a few vectors
//!     for pass in passes
//!         total = fold over i in 0..len of term(x[i], values so far)   lane by lane; terms may be kept as the next x
//!         value[pass] = value(total, values so far)
//!     for i in 0..len     out[i] = epilogue(own(x[i], values))         or the last value alone
//! ```
//!
//! Registers as in the rows leaf; the highest ones are the totals, with AVX2 below the mask of a tail. On the stack lie values,
//! what spills, and transposed rows.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Mask, Mem, VReg, mem};
use super::fold::{fold_into, start_fold};
use super::map::{DONE, IN, LEFT, OPERANDS, OUT, current, enter, leave, tail_mask};
use super::rows::{Pass, RowResult};
use super::shuffle::transpose;
use super::vprog::{Access, VProg};
use super::{Isa, LeafError};
use iced_x86::{Code, Register};

/// What the leaf computes. Arguments as for rows, the count in cells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Columns {
    /// Elements of a cell.
    pub len: u32,
    /// One after the other, a vector of them at least.
    pub cells: Cells,
    pub passes: Vec<Pass>,
    /// Operands of `own` and of the epilogue are [`Access::Channel`] (an element for each of the cell), [`Access::Splat`] or, where cells
    /// lie side by side, [`Access::Same`].
    pub result: RowResult,
}

/// How cells lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cells {
    /// Element by element, so many bytes apart, in the input and in the result.
    Beside { stride: i32 },
    /// One after the other.
    Behind,
}

/// Rows that are transposed may be so long: they lie on the stack.
pub const MAX_TRANSPOSED: u32 = 128;

/// A program for each vector of a group.
struct Program {
    copies: Vec<Allocated>,
    /// Operands before these are values of passes.
    values: usize,
    accesses: Vec<Access>,
    /// The pointer of the first.
    pointer: usize,
}

/// All programs for groups of so many vectors.
struct Group {
    vectors: usize,
    passes: Vec<(Program, Program)>,
    last: Vec<Program>,
}

impl Columns {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if self.len == 0 || self.passes.is_empty() {
            return Err(LeafError::Unsupported("cells without elements or passes"));
        }
        if self.result == RowResult::Values {
            return Err(LeafError::Unsupported("all values of cells"));
        }
        if self.cells == Cells::Behind && self.len > MAX_TRANSPOSED {
            return Err(LeafError::Unsupported("transposed rows so long"));
        }
        let one = self.group(isa, 1)?;
        let mut wide = None;
        for vectors in [4, 2] {
            // Transposed rows of several vectors must not fill the L1 cache.
            let fits = self.cells != Cells::Behind || self.len as usize * vectors <= MAX_TRANSPOSED as usize;
            if wide.is_none() && fits {
                wide = self
                    .group(isa, vectors)
                    .ok()
                    .filter(|g| g.programs().all(|p| p.copies.iter().all(|c| c.slots == 0)));
            }
        }
        let accesses: Vec<Access> = one.last.iter().flat_map(|p| p.accesses.iter().copied()).collect();
        let misplaced = |a: &Access| match a {
            Access::Same => self.cells == Cells::Behind,
            Access::Strided { .. } => true,
            Access::Channel | Access::Splat => false,
        };
        if accesses.iter().any(misplaced) {
            return Err(LeafError::Unsupported("cells with an operand that lies so"));
        }
        if accesses.len() > OPERANDS.len() {
            return Err(LeafError::TooManyOperands { operands: accesses.len(), most: OPERANDS.len() });
        }
        let vector = isa.bytes() as i64;
        let most = wide.as_ref().map_or(1, |g| g.vectors) as i64;
        let spills = one.programs().flat_map(|p| &p.copies).map(|c| c.slots).max().unwrap_or(0) as i64;
        let scratch = vector * (self.passes.len() as i64 * most + spills);
        let rows = if self.cells == Cells::Behind { i64::from(self.len) * most * vector } else { 0 };
        let mut e = Emit { s: self, isa, asm: Asm::new(isa), accesses, scratch };
        if self.cells == Cells::Behind && isa == Isa::Avx512 {
            e.asm.op_ri(Code::Mov_r32_imm32, Register::EAX, (1 << e.rest()) - 1);
            e.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::EAX);
        }
        let frame = scratch + rows;
        enter(&mut e.asm, frame, e.accesses.len());
        if let Some(group) = &wide {
            e.groups(group);
        }
        e.groups(&one);
        e.tail(&one);
        leave(&mut e.asm, frame);
        e.asm.finish()
    }

    fn group(&self, isa: Isa, vectors: usize) -> Result<Group, LeafError> {
        let program = |p: &VProg, values: usize, pointer: usize| Program::new(p, isa, vectors, values, pointer);
        let mut passes = vec![];
        for (i, pass) in self.passes.iter().enumerate() {
            let (term, value) = (program(&pass.term, i, 0)?, program(&pass.value, i, 0)?);
            if (pass.keep && self.result.is_value()) || term.accesses.len() + value.accesses.len() > 0 {
                return Err(LeafError::Unsupported("passes with operands of their own, or terms kept for a value"));
            }
            passes.push((term, value));
        }
        let last = match &self.result {
            RowResult::Value | RowResult::Values => vec![],
            RowResult::Each { own, epilogue } => {
                let own = program(own, self.passes.len(), 0)?;
                let epilogue = program(epilogue, 0, own.accesses.len())?;
                vec![own, epilogue]
            }
        };
        Ok(Group { vectors, passes, last })
    }
}

impl Program {
    fn new(p: &VProg, isa: Isa, vectors: usize, values: usize, pointer: usize) -> Result<Program, LeafError> {
        let p = p.legal(isa)?;
        let each = registers_each(isa, vectors);
        // A fold that NaN wins needs two.
        if each < 2 {
            return Err(LeafError::TooFewRegisters);
        }
        let copy = |v: VReg| allocate(&p, isa, v * each, &(v * each + 1..(v + 1) * each).collect::<Vec<_>>());
        let copies = (0..vectors as VReg).map(copy).collect::<Result<_, _>>()?;
        let accesses = p.operands().iter().skip(values).copied().collect();
        Ok(Program { copies, values, accesses, pointer })
    }
}

/// Beside the totals and the mask of a tail.
fn registers_each(isa: Isa, vectors: usize) -> VReg {
    let vectors = vectors as VReg;
    (isa.registers() as VReg - 1 - vectors) / vectors
}

impl Group {
    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.passes.iter().flat_map(|(term, value)| [term, value]).chain(&self.last)
    }
}

struct Emit<'a> {
    s: &'a Columns,
    isa: Isa,
    asm: Asm,
    accesses: Vec<Access>,
    /// Where transposed rows lie on the stack.
    scratch: i64,
}

impl Emit<'_> {
    fn vector(&self) -> i64 {
        self.isa.bytes() as i64
    }

    fn lanes(&self) -> i64 {
        self.isa.lanes() as i64
    }

    fn is_transposed(&self) -> bool {
        self.s.cells == Cells::Behind
    }

    /// Lanes of a row's last vector.
    fn rest(&self) -> u32 {
        (self.s.len - 1) % self.isa.lanes() as u32 + 1
    }

    /// Bytes of so many cells in the input, and in the result.
    fn widths(&self, cells: i64) -> (i64, i64) {
        let row = 4 * i64::from(self.s.len) * cells;
        match (self.s.cells, &self.s.result) {
            (Cells::Beside { .. }, _) => (4 * cells, 4 * cells),
            (Cells::Behind, RowResult::Value | RowResult::Values) => (row, 4 * cells),
            (Cells::Behind, RowResult::Each { .. }) => (row, row),
        }
    }

    /// As many whole groups as there are.
    fn groups(&mut self, group: &Group) {
        let cells = group.vectors as i64 * self.lanes();
        let few = self.asm.label();
        self.asm.op_ri(Code::Sub_rm64_imm32, LEFT, cells as i32);
        self.asm.jump(Code::Jl_rel32_64, few);
        let top = self.asm.here();
        self.body(group, None);
        self.advance(cells);
        self.asm.op_ri(Code::Sub_rm64_imm32, LEFT, cells as i32);
        self.asm.jump(Code::Jge_rel32_64, top);
        self.asm.bind(few);
        self.asm.add_imm(LEFT, cells);
    }

    fn advance(&mut self, cells: i64) {
        let (input, output) = self.widths(cells);
        self.asm.add_imm(IN, input);
        self.asm.add_imm(OUT, output);
        for (pointer, _) in OPERANDS.iter().zip(self.accesses.clone()).filter(|(_, a)| *a == Access::Same) {
            self.asm.add_imm(*pointer, output);
        }
    }

    /// The cells that are left: under a mask, or the last vector of rows again as far as it goes.
    fn tail(&mut self, one: &Group) {
        let end = self.asm.label();
        self.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        self.asm.jump(Code::Jle_rel32_64, end);
        if self.is_transposed() {
            let (input, output) = self.widths(1);
            self.asm.add_imm(LEFT, -self.lanes());
            for (pointer, width) in [(IN, input), (OUT, output)] {
                self.asm.imul_imm(DONE, LEFT, width as i32);
                self.asm.op_rr(Code::Add_r64_rm64, pointer, DONE);
            }
            self.body(one, None);
        } else {
            let mask = tail_mask(&mut self.asm, self.isa);
            self.body(one, Some(mask));
        }
        self.asm.bind(end);
    }

    /// Runs `body` for every element of the group's cells, at DONE.
    fn walk(&mut self, group: &Group, programs: &[&Program], mut body: impl FnMut(&mut Self)) {
        let step = match self.s.cells {
            Cells::Beside { stride } => i64::from(stride),
            Cells::Behind => group.vectors as i64 * self.vector(),
        };
        let end = step * i64::from(self.s.len);
        let by_element: Vec<Register> = programs
            .iter()
            .flat_map(|p| p.accesses.iter().enumerate().map(|(k, a)| (p.pointer + k, *a)))
            .filter(|(_, a)| *a == Access::Channel)
            .map(|(k, _)| OPERANDS[k])
            .collect();
        self.asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
        let top = self.asm.here();
        body(self);
        by_element.iter().for_each(|p| self.asm.add_imm(*p, 4));
        self.asm.add_imm(DONE, step);
        match i32::try_from(end) {
            Ok(end) => self.asm.op_ri(Code::Cmp_rm64_imm32, DONE, end),
            Err(_) => self.asm.fail("cells that reach beyond 32 bits"),
        }
        self.asm.jump(Code::Jl_rel32_64, top);
        by_element.iter().for_each(|p| self.asm.add_imm(*p, -4 * i64::from(self.s.len)));
    }

    /// The element at DONE of the v-th vector: in the input or result, or among the transposed rows.
    fn element(&self, base: Register, v: usize) -> Mem {
        let disp = v as i64 * self.vector();
        match self.is_transposed() {
            true => Mem { base: Register::RSP, index: DONE, scale: 1, disp: self.scratch + disp },
            false => Mem { disp, ..current(base) },
        }
    }

    /// Runs a program on every vector; the inputs are in the first registers of each.
    fn run(&mut self, group: &Group, program: &Program, mask: Option<Mask>) {
        let (vector, vectors, passes) = (self.vector(), group.vectors, self.s.passes.len());
        let operand = |v: usize| {
            move |k: u8| match usize::from(k).checked_sub(program.values) {
                None => (mem(Register::RSP, vector * (usize::from(k) * vectors + v) as i64), false),
                Some(own) => {
                    let base = OPERANDS[program.pointer + own];
                    match program.accesses[own] {
                        Access::Same => (Mem { disp: v as i64 * vector, ..current(base) }, false),
                        Access::Channel | Access::Splat | Access::Strided { .. } => (mem(base, 0), true),
                    }
                }
            }
        };
        let operands: Vec<_> = (0..vectors).map(operand).collect();
        let slot = |i: usize| mem(Register::RSP, vector * (passes + i) as i64);
        // Values are whole vectors, in a tail too.
        let mask = mask.filter(|_| program.accesses.contains(&Access::Same));
        let placed =
            program.copies.iter().zip(&operands).map(|(code, operand)| (code, Place { operand, slot: &slot, mask }));
        Allocated::emit_in_turn(&placed.collect::<Vec<_>>(), &mut self.asm);
    }

    fn body(&mut self, group: &Group, mask: Option<Mask>) {
        let vectors = group.vectors;
        let each = registers_each(self.isa, vectors);
        let total = |v: usize| self.isa.registers() as VReg - 2 - v as VReg;
        let totals: Vec<VReg> = (0..vectors).map(total).collect();
        if self.is_transposed() {
            self.transpose_in(vectors);
        }
        let mut from = IN;
        for (i, (term, value)) in group.passes.iter().enumerate() {
            let (fold, keep) = (self.s.passes[i].fold, self.s.passes[i].keep);
            totals.iter().for_each(|&t| start_fold(&mut self.asm, fold, t));
            self.walk(group, &[term], |e| {
                for v in 0..vectors {
                    let at = e.element(from, v);
                    e.asm.load(v as VReg * each, at, mask);
                }
                e.run(group, term, mask);
                for (v, code) in term.copies.iter().enumerate() {
                    if keep {
                        let at = e.element(OUT, v);
                        e.asm.store(at, code.result, mask);
                    }
                    let first = v as VReg * each;
                    let free = if first == code.result { first + 1 } else { first };
                    fold_into(&mut e.asm, fold, totals[v], code.result, free);
                }
            });
            if keep {
                from = OUT;
            }
            for (v, &t) in totals.iter().enumerate() {
                self.asm.copy(v as VReg * each, t);
            }
            self.run(group, value, mask);
            for (v, code) in value.copies.iter().enumerate() {
                let slot = (i * vectors + v) as i64;
                self.asm.store(mem(Register::RSP, slot * self.vector()), code.result, None);
                if self.s.result.is_value() && i + 1 == group.passes.len() {
                    self.asm.store(mem(OUT, v as i64 * self.vector()), code.result, mask);
                }
            }
        }
        let [own, epilogue] = &group.last[..] else { return };
        self.walk(group, &[own, epilogue], |e| {
            for v in 0..vectors {
                let at = e.element(from, v);
                e.asm.load(v as VReg * each, at, mask);
            }
            e.run(group, own, mask);
            for (v, code) in own.copies.iter().enumerate() {
                if code.result != v as VReg * each {
                    e.asm.copy(v as VReg * each, code.result);
                }
            }
            e.run(group, epilogue, mask);
            for (v, code) in epilogue.copies.iter().enumerate() {
                let at = e.element(OUT, v);
                e.asm.store(at, code.result, mask);
            }
        });
        if self.is_transposed() {
            self.transpose_out(vectors);
        }
    }

    /// For each square of rows and elements: the first row, the first element's place on the stack, elements, the mask of a row's last
    /// vector if it is needed; with AVX2 to be loaded into this register.
    fn squares(&mut self, vectors: usize, f: impl Fn(&mut Self, i64, i64, i64, bool)) {
        let (lanes, vector) = (self.lanes(), self.vector());
        for v in 0..vectors as i64 {
            for first in (0..i64::from(self.s.len)).step_by(self.isa.lanes()) {
                let elements = lanes.min(i64::from(self.s.len) - first);
                let row = v * lanes * 4 * i64::from(self.s.len) + 4 * first;
                let place = self.scratch + (first * vectors as i64 + v) * vector;
                f(self, row, place, elements, elements < lanes);
            }
        }
    }

    fn row_mask(&mut self, register: VReg) -> Mask {
        match self.isa {
            Isa::Avx512 => Mask::Predicate,
            Isa::Avx2 => {
                let rest = self.rest() as usize;
                let words = (0..self.isa.lanes()).map(|i| if i < rest { u32::MAX } else { 0 }).collect();
                let table = self.asm.table(words);
                let at = self.asm.rip(table);
                self.asm.load(register, at, None);
                Mask::Vector(register)
            }
        }
    }

    fn transpose_in(&mut self, vectors: usize) {
        let (row, element_stride) = (4 * i64::from(self.s.len), vectors as i64 * self.vector());
        self.squares(vectors, |e, at, place, elements, partial| {
            let mask = partial.then(|| e.row_mask(15));
            for r in 0..e.lanes() {
                e.asm.load(r as VReg, mem(IN, at + r * row), mask);
            }
            for (i, register) in (0..elements).zip(transpose(&mut e.asm)) {
                e.asm.store(mem(Register::RSP, place + i * element_stride), register, None);
            }
        });
    }

    fn transpose_out(&mut self, vectors: usize) {
        let (row, element_stride) = (4 * i64::from(self.s.len), vectors as i64 * self.vector());
        self.squares(vectors, |e, at, place, elements, partial| {
            // What other registers hold becomes lanes beyond the row, which are not stored.
            for i in 0..elements {
                e.asm.load(i as VReg, mem(Register::RSP, place + i * element_stride), None);
            }
            let registers = transpose(&mut e.asm);
            // Results of AVX2's transposition are in the upper half.
            let mask = partial.then(|| e.row_mask(0));
            for (r, register) in (0..e.lanes()).zip(registers) {
                e.asm.store(mem(OUT, at + r * row), register, mask);
            }
        });
    }
}
