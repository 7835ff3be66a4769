//! The rows leaf: statistics of each row of a matrix, and what is computed from the row with them: softmax, normalisations,
//! reductions.
//!
//! ```text
//! for row in 0..rows
//!     for pass in passes
//!         total = fold over the row of term(x, values so far)          terms may be kept in the output, as the next x
//!         value[pass] = value(total)                                   in every lane
//!     out[row] = epilogue(own(x, values))                              plane by plane; or the last value, or all values alone
//! ```
//!
//! Rows of extremes are at least a vector long. Several vectors of a row are computed in turn, or, of short rows, the same vector of
//! several rows.
//! Registers: rdi bytes done, rax in, rdx out, rcx rows left, rbx planes left, r8-r11 and rsi pointers of operands.
//! The highest vector register holds the fold, with AVX2 the one below it the mask of the tail. Values lie on the stack.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Mask, Mem, VReg, mem};
use super::fold::{Fold, fold_into, start_fold};
use super::map::{COUNT as PLANES, DONE, IN, LEFT, OPERANDS, OUT, current, enter, restore};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError};
use iced_x86::{Code, Register};

/// Rows up to so many vectors long come several in turn; longer ones have vectors enough.
const MAX_VECTORS: usize = 16;

/// Where the next row of the result is fetched ahead: longer ones would be gone from the L1 cache, or displace what is read.
const MAX_PREFETCHED: i64 = 1 << 14;

/// What the leaf computes. Arguments as for a map: input, output, rows, parameters of `own`, operands of the epilogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Elements of a row; rows follow one another.
    pub len: u32,
    /// If given, a row is so many planes of equal length, and operands of [`Access::Channel`] have an element for each plane. Then there
    /// need be no passes.
    pub planes: Option<u32>,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowResult {
    /// A row. Operands of `own` are the values of all passes, then its parameters. Those and the epilogue's operands are
    /// [`Access::Same`] (another matrix), [`Access::Channel`] (the same row every time, or an element for each plane) or
    /// [`Access::Splat`].
    Each { own: VProg, epilogue: VProg },
    /// The last pass's value.
    Value,
    /// The values of all passes.
    Values,
}

impl RowResult {
    pub(super) fn is_value(&self) -> bool {
        match self {
            RowResult::Each { .. } => false,
            RowResult::Value | RowResult::Values => true,
        }
    }

    /// Which of its values a pass of so many gives: `None` if that is no result.
    pub(super) fn value_of(&self, pass: usize, passes: usize) -> Option<usize> {
        match self {
            RowResult::Each { .. } => None,
            RowResult::Value => (pass + 1 == passes).then_some(0),
            RowResult::Values => Some(pass),
        }
    }
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

/// What is computed in turn, an instruction of each, so that none waits for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Vectors of a row, where it has so many left.
    Vectors(usize),
    /// The same vector of so many rows; the sum of a row is the same in a group of any size.
    Rows(usize),
}

impl Turn {
    fn count(self) -> usize {
        let (Turn::Vectors(n) | Turn::Rows(n)) = self;
        n
    }

    fn rows(self) -> usize {
        match self {
            Turn::Vectors(_) => 1,
            Turn::Rows(n) => n,
        }
    }
}

/// What a row, or several, are computed by.
struct Programs {
    turn: Turn,
    /// Terms and values.
    passes: Vec<(Ready, Ready)>,
    last: Vec<Ready>,
}

/// Where the value of a pass is, of the v-th in turn.
fn value_at(turn: Turn, vector: i64, pass: usize, v: usize) -> Mem {
    let row = if turn.rows() > 1 { v } else { 0 };
    mem(Register::RSP, vector * (pass * turn.rows() + row) as i64)
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
        let extremes = self.passes.iter().any(|p| p.fold != Fold::Sum);
        let short = self.len == 0 || (extremes && (self.len as usize) < isa.lanes());
        let nothing = self.passes.is_empty() && self.planes.is_none();
        if short || self.len > 1 << 28 || nothing {
            return Err(LeafError::Unsupported("rows so short or long, or without passes"));
        }
        let whole_planes = self.planes.is_none_or(|n| n > 0 && self.len.is_multiple_of(n) && !self.result.is_value());
        if !whole_planes {
            return Err(LeafError::Unsupported("planes that a row has in part, or for a value"));
        }
        let one = self.programs(isa, Turn::Vectors(1))?;
        let all = one.passes.iter().flat_map(|(term, value)| [term, value]).chain(&one.last);
        let spills = all.map(|r| r.one.slots).max().unwrap_or(0);
        // Several only where nothing spills, and rows have so many.
        let several = |turn: Turn| {
            let programs = self.programs(isa, turn).ok()?;
            let terms = programs.passes.iter().map(|(term, _)| term);
            let values = programs.passes.iter().map(|(_, value)| value).filter(|_| turn.rows() > 1);
            let in_turn = terms.chain(values).chain(&programs.last);
            let roomy = registers_each(isa, turn.count()) >= 4;
            (roomy && in_turn.flat_map(|r| &r.several).all(|c| c.slots == 0)).then_some(programs)
        };
        let vectors = [4, 2].into_iter().filter(|n| n * isa.lanes() <= self.len as usize).map(Turn::Vectors);
        let rows = [4, 2].into_iter().filter(|_| self.takes_rows_in_turn(isa)).map(Turn::Rows);
        let programs = rows.chain(vectors).find_map(several).unwrap_or(one);
        let pointers: usize = programs.last.iter().map(|r| r.accesses.len()).sum();
        if pointers > OPERANDS.len() {
            return Err(LeafError::TooManyOperands { operands: pointers, most: OPERANDS.len() });
        }
        let vector = isa.bytes() as i64;
        let frame = vector * (self.passes.len() * programs.turn.rows() + spills) as i64;
        let mut e = Emit { s: self, isa, asm: Asm::new(isa), tail: None, turn: programs.turn };
        if self.planes() > 1 {
            e.asm.op_r(Code::Push_r64, PLANES);
        }
        enter(&mut e.asm, frame, pointers);
        [self.plane(), self.len].into_iter().for_each(|len| e.load_mask(len));
        let rows = programs.turn.rows() as i32;
        if rows > 1 {
            let few = e.asm.label();
            e.asm.op_ri(Code::Sub_rm64_imm32, LEFT, rows);
            e.asm.jump(Code::Jl_rel32_64, few);
            let top = e.asm.here();
            e.rows(&programs);
            e.asm.op_ri(Code::Sub_rm64_imm32, LEFT, rows);
            e.asm.jump(Code::Jge_rel32_64, top);
            e.asm.bind(few);
            e.asm.add_imm(LEFT, rows.into());
            e.turn = Turn::Rows(1);
        }
        let end = e.asm.label();
        e.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        e.asm.jump(Code::Jle_rel32_64, end);
        let row = e.asm.here();
        e.rows(&programs);
        e.asm.op_r(Code::Dec_rm64, LEFT);
        e.asm.jump(Code::Jne_rel32_64, row);
        e.asm.bind(end);
        restore(&mut e.asm, frame);
        if self.planes() > 1 {
            e.asm.op_r(Code::Pop_r64, PLANES);
        }
        e.asm.zero_upper();
        e.asm.ret();
        e.asm.finish()
    }

    fn planes(&self) -> u32 {
        self.planes.unwrap_or(1)
    }

    /// Elements of a plane.
    fn plane(&self) -> u32 {
        self.len / self.planes()
    }

    /// Short rows have too little between one fold across lanes and the next.
    fn takes_rows_in_turn(&self, isa: Isa) -> bool {
        self.len as usize <= MAX_VECTORS * isa.lanes()
    }

    fn programs(&self, isa: Isa, turn: Turn) -> Result<Programs, LeafError> {
        let (mut passes, count) = (vec![], turn.count());
        for (i, pass) in self.passes.iter().enumerate() {
            let term = Ready::new(&pass.term, isa, i, 0, count)?;
            let value = Ready::new(&pass.value, isa, i, 0, turn.rows())?;
            let misplaced = pass.keep && (pass.fold != Fold::Sum || self.result.is_value());
            if misplaced || !term.accesses.is_empty() || !value.accesses.is_empty() {
                return Err(LeafError::Unsupported(
                    "passes with operands of their own, or terms kept of a maximum or for a value",
                ));
            }
            passes.push((term, value));
        }
        let last = match &self.result {
            RowResult::Value | RowResult::Values => vec![],
            RowResult::Each { own, epilogue } => {
                let own = Ready::new(own, isa, self.passes.len(), 0, count)?;
                let epilogue = Ready::new(epilogue, isa, 0, own.accesses.len(), count)?;
                vec![own, epilogue]
            }
        };
        Ok(Programs { turn, passes, last })
    }
}

struct Emit<'a> {
    s: &'a Rows,
    isa: Isa,
    asm: Asm,
    /// The mask of the last, partial vector of what is walked: a row, or a plane of it.
    tail: Option<Mask>,
    turn: Turn,
}

impl Emit<'_> {
    fn vector(&self) -> i64 {
        self.isa.bytes() as i64
    }

    fn row_bytes(&self) -> i64 {
        4 * i64::from(self.s.len)
    }

    /// Bytes from one of those in turn to the next.
    fn in_turn_stride(&self) -> i64 {
        match self.turn {
            Turn::Vectors(_) => self.vector(),
            Turn::Rows(_) => self.row_bytes(),
        }
    }

    /// As many rows as come in turn.
    fn rows(&mut self, programs: &Programs) {
        let mut from = IN;
        self.expect_tail(self.s.len);
        for (i, (term, value)) in programs.passes.iter().enumerate() {
            from = self.pass(i, from, term, value);
        }
        let rows = self.turn.rows() as i64;
        if self.s.result.is_value() {
            let values = if self.s.result == RowResult::Values { self.s.passes.len() as i64 } else { 1 };
            self.asm.add_imm(IN, rows * self.row_bytes());
            self.asm.add_imm(OUT, rows * values * 4);
            return;
        }
        self.expect_tail(self.s.plane());
        let planes = i64::from(self.s.planes());
        if planes == 1 {
            self.each(from, &programs.last);
            self.advance(programs, rows);
            return;
        }
        self.asm.op_ri(Code::Mov_r32_imm32, Register::EBX, planes as i32);
        let top = self.asm.here();
        self.each(from, &programs.last);
        self.advance(programs, 1);
        self.asm.op_r(Code::Dec_rm64, PLANES);
        self.asm.jump(Code::Jne_rel32_64, top);
        // The others in turn with this row are done too.
        self.advance(programs, planes * (rows - 1));
    }

    /// Pointers by so many planes.
    fn advance(&mut self, programs: &Programs, planes: i64) {
        let bytes = planes * 4 * i64::from(self.s.plane());
        self.asm.add_imm(IN, bytes);
        self.asm.add_imm(OUT, bytes);
        let accesses = programs.last.iter().flat_map(|r| &r.accesses);
        for (pointer, access) in OPERANDS.iter().zip(accesses) {
            match access {
                Access::Same => self.asm.add_imm(*pointer, bytes),
                Access::Channel if self.s.planes.is_some() => self.asm.add_imm(*pointer, 4 * planes),
                Access::Channel | Access::Splat | Access::Strided { .. } => {}
            }
        }
    }

    /// Lanes of the last vector of so many elements, if it is partial.
    fn partial(&self, len: u32) -> Option<u32> {
        Some(len % self.isa.lanes() as u32).filter(|rest| *rest != 0)
    }

    /// From here on vectors are walked of so many elements. The mask has been loaded, unless rows and planes have one each.
    fn expect_tail(&mut self, len: u32) {
        let (row, plane) = (self.partial(self.s.len), self.partial(self.s.plane()));
        if row.is_some() && plane.is_some() && row != plane {
            self.load_mask(len);
        }
        self.tail = self.partial(len).map(|_| match self.isa {
            Isa::Avx512 => Mask::Predicate,
            Isa::Avx2 => Mask::Vector(scratch(self.isa)),
        });
    }

    /// Nothing if there is no partial vector.
    fn load_mask(&mut self, len: u32) {
        let Some(rest) = self.partial(len) else { return };
        match self.isa {
            Isa::Avx512 => {
                // By way of a push: no other register is free.
                self.asm.op_r(Code::Push_r64, IN);
                self.asm.op_ri(Code::Mov_r32_imm32, Register::EAX, (1 << rest) - 1);
                self.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::EAX);
                self.asm.op_r(Code::Pop_r64, IN);
            }
            Isa::Avx2 => {
                let words = (0..self.isa.lanes() as u32).map(|i| if i < rest { u32::MAX } else { 0 }).collect();
                let table = self.asm.table(words);
                let at = self.asm.rip(table);
                self.asm.load(scratch(self.isa), at, None);
            }
        }
    }

    /// `body` for every vector of `len` elements, several in turn as far as there are, or those of all rows; it is told how many, and
    /// the mask of the last one. `then` comes between several vectors of a row and the others.
    fn walk(&mut self, len: u32, mut body: impl FnMut(&mut Self, usize, Option<Mask>), then: impl FnOnce(&mut Self)) {
        let whole = 4 * i64::from(len) / self.vector() * self.vector();
        self.asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
        let mut done = 0;
        let mut then = Some(then);
        let steps: &[(usize, usize)] = match self.turn {
            Turn::Vectors(n) => &[(n, n), (1, 1)],
            Turn::Rows(n) => &[(n, 1)],
        };
        for &(count, vectors) in steps {
            let step = vectors as i64 * self.vector();
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
            body(self, self.turn.rows(), self.tail);
        }
    }

    /// The first register for the v-th of so many in turn.
    fn register(&self, count: usize, v: usize) -> VReg {
        if count == 1 { 0 } else { v as VReg * registers_each(self.isa, count) }
    }

    fn load(&mut self, from: Register, count: usize, mask: Option<Mask>) {
        for v in 0..count {
            let (register, disp) = (self.register(count, v), v as i64 * self.in_turn_stride());
            self.asm.load(register, Mem { disp, ..current(from) }, mask);
        }
    }

    fn store(&mut self, copies: &[Allocated], mask: Option<Mask>) {
        for (v, code) in copies.iter().enumerate() {
            self.asm.store(Mem { disp: v as i64 * self.in_turn_stride(), ..current(OUT) }, code.result, mask);
        }
    }

    fn run(&mut self, ready: &Ready, count: usize, mask: Option<Mask>) {
        let (vector, in_turn_stride, turn) = (self.vector(), self.in_turn_stride(), self.turn);
        let in_planes = self.s.planes.is_some();
        // From a row's, where several come in turn, to the next one's.
        let parameters = if turn.rows() > 1 { 4 * i64::from(self.s.planes()) } else { 0 };
        let operand = |v: usize| {
            move |k: u8| match usize::from(k).checked_sub(ready.values) {
                None => (value_at(turn, vector, usize::from(k), v), false),
                Some(own) => {
                    let base = OPERANDS[ready.pointer + own];
                    let further = Mem { disp: v as i64 * in_turn_stride, ..current(base) };
                    match ready.accesses[own] {
                        Access::Channel if in_planes => (mem(base, v as i64 * parameters), true),
                        Access::Channel if matches!(turn, Turn::Rows(_)) => (current(base), false),
                        Access::Same | Access::Channel => (further, false),
                        Access::Splat | Access::Strided { .. } => (mem(base, 0), true),
                    }
                }
            }
        };
        let operands: Vec<_> = (0..count).map(operand).collect();
        let values = self.s.passes.len() * turn.rows();
        let slot = |i: usize| mem(Register::RSP, vector * (values + i) as i64);
        // Values are whole vectors, in the tail too.
        let mask = mask.filter(|_| !ready.accesses.is_empty());
        let copies = ready.copies(count).iter().zip(&operands);
        let placed: Vec<_> = copies.map(|(code, operand)| (code, Place { operand, slot: &slot, mask })).collect();
        Allocated::emit_in_turn(&placed, &mut self.asm);
    }

    /// The last pass computes most, and meanwhile memory would be idle.
    fn prefetch_next(&mut self, count: usize) {
        let next = self.turn.rows() as i64 * self.row_bytes();
        for v in 0..count {
            let disp = next + v as i64 * self.in_turn_stride();
            self.asm.prefetch(Mem { disp, ..current(IN) });
            if !self.s.result.is_value() && self.row_bytes() <= MAX_PREFETCHED {
                self.asm.prefetch(Mem { disp, ..current(OUT) });
            }
        }
    }

    /// Gives what the next pass reads.
    fn pass(&mut self, i: usize, from: Register, term: &Ready, value: &Ready) -> Register {
        let Pass { fold, keep, .. } = self.s.passes[i];
        // The first total, and those of others in turn with it.
        let below = scratch(self.isa);
        let totals: Vec<VReg> =
            (0..self.turn.count() as VReg).map(|v| if v == 0 { fold_register(self.isa) } else { below - v }).collect();
        totals.iter().for_each(|&t| start_fold(&mut self.asm, fold, t));
        let term_of = |e: &mut Self, count: usize, mask: Option<Mask>| {
            if mask.is_some() && fold != Fold::Sum {
                // The row's last vector again, as far as it goes: an extreme does not mind.
                let back = e.vector() - e.row_bytes() % e.vector();
                for v in 0..count {
                    let (register, disp) = (e.register(count, v), v as i64 * e.in_turn_stride() - back);
                    e.asm.load(register, Mem { disp, ..current(from) }, None);
                }
                e.run(term, count, None);
            } else {
                e.load(from, count, mask);
                e.run(term, count, mask);
            }
            if i + 1 == e.s.passes.len() {
                e.prefetch_next(count);
            }
            if keep {
                e.store(term.copies(count), mask);
            }
            for (v, code) in term.copies(count).iter().enumerate() {
                let result = code.result;
                if let Some(mask) = mask.filter(|_| fold == Fold::Sum) {
                    e.asm.keep(result, mask);
                }
                let first = e.register(count, v);
                let free = if first == result { first + 1 } else { first };
                fold_into(&mut e.asm, fold, totals[v], result, free);
            }
        };
        // Programs for one vector use the registers of the other totals.
        self.walk(self.s.len, term_of, |e| e.gather(fold, &totals));
        let rows = self.turn.rows();
        let firsts: Vec<VReg> = (0..rows).map(|v| self.register(rows, v)).collect();
        let mut distance = self.isa.lanes() as u32 / 2;
        while distance > 0 {
            for (&r, &total) in firsts.iter().zip(&totals) {
                self.asm.align(r, total, total, distance);
            }
            for (&r, &total) in firsts.iter().zip(&totals) {
                fold_into(&mut self.asm, fold, total, r, r + 1);
            }
            distance /= 2;
        }
        for (&r, &total) in firsts.iter().zip(&totals) {
            self.asm.copy(r, total);
        }
        self.run(value, rows, None);
        let passes = self.s.passes.len();
        let each = if self.s.result == RowResult::Values { passes } else { 1 };
        for (v, code) in value.copies(rows).iter().enumerate() {
            self.asm.store(value_at(self.turn, self.vector(), i, v), code.result, None);
            if let Some(at) = self.s.result.value_of(i, passes) {
                self.asm.store_first(mem(OUT, 4 * (v * each + at) as i64), code.result);
            }
        }
        if keep { OUT } else { from }
    }

    /// Brings the totals of several vectors together.
    fn gather(&mut self, fold: Fold, totals: &[VReg]) {
        for &t in &totals[1..] {
            fold_into(&mut self.asm, fold, totals[0], t, 0);
        }
    }

    fn each(&mut self, from: Register, programs: &[Ready]) {
        let result_of = |e: &mut Self, count: usize, mask: Option<Mask>| {
            e.load(from, count, mask);
            for (k, ready) in programs.iter().enumerate() {
                if let Some(before) = k.checked_sub(1) {
                    for (v, code) in programs[before].copies(count).iter().enumerate() {
                        let first = e.register(count, v);
                        if code.result != first {
                            e.asm.copy(first, code.result);
                        }
                    }
                }
                e.run(ready, count, mask);
            }
            let Some(last) = programs.last() else { return };
            e.store(last.copies(count), mask);
        };
        self.walk(self.s.plane(), result_of, |_| {});
    }
}
