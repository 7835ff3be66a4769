//! The positions leaf: where the extreme element of each cell is, as i64; the first of equals, or the last. NaN is extreme.
//!
//! ```text
//! for group of cells side by side, a few vectors                 a cell in each lane
//!     best = x[first], at = first
//!     for i behind it, or before it if the last of equals is wanted
//!         where x[i] beats best:  best = x[i], at = i
//!     out = at
//! for row                                                        a row's elements in the lanes of a few vectors
//!     best and at likewise, from vector to vector
//!     out = the nearest position among the lanes whose best is that of all
//! ```
//!
//! A row that is no whole number of vectors has a last one that goes over elements again. Short rows are cells side by side whose
//! elements are gathered.
//!
//! Registers: rdi bytes done, rax in, rdx out, rcx cells left, r8 where gathers begin. Vectors: the best from 0 on, positions from 4 on,
//! elements behind them, which are free after the loop. With AVX2 the highest one has the mask of a tail.

use super::asm::{Asm, Bin, Mask, Mem, Pred, Src, VReg, mem};
use super::columns::Cells;
use super::fold::{Fold, fold_into};
use super::map::{DONE, IN, LEFT, OUT, current, enter, leave, tail_mask};
use super::{Isa, LeafError};
use iced_x86::{Code, Instruction, Register};

/// What the leaf computes. Arguments as for a map, the count in cells; there are no operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Positions {
    /// Elements of a cell.
    pub len: u32,
    pub cells: Cells,
    pub largest: bool,
    /// The last of equals.
    pub last: bool,
}

/// Rows of fewer vectors are gathered: from there on, bringing a row's lanes together takes less time.
const SHORT_ROW: usize = 2;
/// Vectors of a group at most.
const MAX_VECTORS: usize = 4;

const POSITIONS: VReg = 4;
const ELEMENTS: VReg = 8;
/// The position of the element, or the positions of the vector, that comes next.
const NEXT: VReg = 12;
/// How many elements lie between the first cell and each lane's, where elements are gathered.
const OFFSETS: VReg = 11;
const GATHERED: Register = Register::R8;
const FREE: [VReg; 2] = [13, 14];

impl Positions {
    /// Whether cells lie one after the other, and are so short that each has a lane.
    pub fn has_row_in_lane(&self, isa: Isa) -> bool {
        self.cells == Cells::Behind && (self.len as usize) < SHORT_ROW * isa.lanes()
    }

    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if self.len == 0 || self.len > i32::MAX as u32 / 4 {
            return Err(LeafError::Unsupported("positions in cells without elements or so long"));
        }
        let mut e = Emit { s: self, isa, asm: Asm::new(isa) };
        enter(&mut e.asm, 0, 0);
        match self.cells {
            Cells::Beside { stride } => e.columns(i64::from(stride)),
            Cells::Behind if self.has_row_in_lane(isa) => {
                let table = e.asm.table((0..isa.lanes() as u32).map(|lane| lane * self.len).collect());
                let at = e.asm.rip(table);
                e.asm.load(OFFSETS, at, None);
                e.columns(4);
            }
            Cells::Behind => e.rows(),
        }
        leave(&mut e.asm, 0);
        e.asm.finish()
    }
}

struct Emit<'a> {
    s: &'a Positions,
    isa: Isa,
    asm: Asm,
}

impl Emit<'_> {
    fn lanes(&self) -> i64 {
        self.isa.lanes() as i64
    }

    fn vector(&self) -> i64 {
        self.isa.bytes() as i64
    }

    /// So many steps from element to element, in the order in which they are looked at.
    fn ahead(&self, steps: i64) -> i64 {
        if self.s.last { -steps } else { steps }
    }

    // ---- cells side by side ----

    fn columns(&mut self, stride: i64) {
        let (most, cell) =
            if self.s.has_row_in_lane(self.isa) { (2, 4 * i64::from(self.s.len)) } else { (MAX_VECTORS, 4) };
        for vectors in [most, 1] {
            let cells = vectors as i64 * self.lanes();
            let few = self.asm.label();
            self.asm.op_ri(Code::Sub_rm64_imm32, LEFT, cells as i32);
            self.asm.jump(Code::Jl_rel32_64, few);
            let top = self.asm.here();
            self.group(vectors, stride, None);
            self.asm.add_imm(IN, cell * cells);
            self.asm.add_imm(OUT, 8 * cells);
            self.asm.op_ri(Code::Sub_rm64_imm32, LEFT, cells as i32);
            self.asm.jump(Code::Jge_rel32_64, top);
            self.asm.bind(few);
            self.asm.add_imm(LEFT, cells);
        }
        let end = self.asm.label();
        self.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        self.asm.jump(Code::Jle_rel32_64, end);
        let mask = tail_mask(&mut self.asm, self.isa);
        self.group(1, stride, Some(mask));
        self.asm.bind(end);
    }

    fn group(&mut self, vectors: usize, stride: i64, mask: Option<Mask>) {
        let last = i64::from(self.s.len) - 1;
        let (first, end) = if self.s.last { (last, 0) } else { (0, last) };
        let (Ok(start), Ok(stop)) = (i32::try_from(first * stride), i32::try_from(end * stride)) else {
            return self.asm.fail("cells that reach beyond 32 bits");
        };
        self.asm.mov_imm(DONE, start);
        self.asm.constant_to(NEXT, first as u32);
        for v in 0..vectors {
            self.load(v as VReg, v, mask);
            self.asm.copy(POSITIONS + v as VReg, NEXT);
        }
        if last > 0 {
            let top = self.asm.here();
            self.asm.add_imm(DONE, self.ahead(stride));
            self.asm.bin(Bin::AddInt, NEXT, NEXT, Src::Const(self.ahead(1) as u32));
            for v in 0..vectors {
                self.load(ELEMENTS + v as VReg, v, mask);
                self.take(v);
            }
            self.asm.op_ri(Code::Cmp_rm64_imm32, DONE, stop);
            self.asm.jump(Code::Jne_rel32_64, top);
        }
        for v in 0..vectors {
            self.store_wide(v, mask);
        }
    }

    fn load(&mut self, to: VReg, v: usize, mask: Option<Mask>) {
        if self.s.has_row_in_lane(self.isa) {
            return self.gather(to, v, mask);
        }
        let mut from = current(IN);
        from.disp = v as i64 * self.vector();
        self.asm.load(to, from, mask);
    }

    /// The next element of each of a vector of rows.
    fn gather(&mut self, to: VReg, v: usize, mask: Option<Mask>) {
        self.asm.lea(GATHERED, current(IN));
        let disp = v as i64 * self.vector() * i64::from(self.s.len);
        let from = Mem { base: GATHERED, index: self.asm.v(OFFSETS), scale: 4, disp };
        let (from, lanes) = (self.asm.operand(from, false), self.asm.v(FREE[0]));
        // The instruction keeps what is outside of its mask, which it clears.
        self.asm.zero(to);
        let to = self.asm.v(to);
        if self.isa == Isa::Avx512 {
            let (k1, k2) = (Register::K1, Register::K2);
            self.asm.try_push(match mask {
                Some(_) => Instruction::with2(Code::VEX_Kmovw_kr_km16, k2, k1),
                None => Instruction::with3(Code::VEX_Kxnorw_kr_kr_kr, k2, k2, k2),
            });
            self.asm.try_push(Instruction::with2(Code::EVEX_Vgatherdps_zmm_k1_vm32z, to, from));
            self.asm.mask_last(k2);
            return;
        }
        match mask {
            Some(Mask::Vector(m)) => self.asm.copy(FREE[0], m),
            Some(Mask::Predicate) | None => {
                let ones = Instruction::with3(Code::VEX_Vpcmpeqd_ymm_ymm_ymmm256, lanes, lanes, lanes);
                self.asm.try_push(ones);
            }
        }
        self.asm.try_push(Instruction::with3(Code::VEX_Vgatherdps_ymm_vm32y_ymm, to, from, lanes));
    }

    /// Where the elements beat the best so far, they and the next position take its place: where they are more extreme, or not
    /// comparable and the best is.
    fn take(&mut self, v: usize) {
        let (best, at, x) = (v as VReg, POSITIONS + v as VReg, ELEMENTS + v as VReg);
        let (a, b) = if self.s.largest { (best, x) } else { (x, best) };
        let (va, vb, vbest, vx) = (self.asm.v(a), self.asm.v(b), self.asm.v(best), self.asm.v(x));
        let (not_ge, ordered) = (Pred::NotGe.immediate(), Pred::Ordered.immediate());
        if self.isa == Isa::Avx512 {
            let compare = Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
            self.asm.try_push(Instruction::with4(compare, Register::K2, va, vb, not_ge));
            self.asm.try_push(Instruction::with4(compare, Register::K2, vbest, vbest, ordered));
            self.asm.mask_last(Register::K2);
            for (to, from) in [(best, vx), (at, self.asm.v(NEXT))] {
                let to = self.asm.v(to);
                self.asm.try_push(Instruction::with2(Code::EVEX_Vmovaps_zmm_k1z_zmmm512, to, from));
                self.asm.mask_last(Register::K2);
            }
            return;
        }
        let compare = Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8;
        let [beats, comparable] = FREE.map(|r| self.asm.v(r));
        self.asm.try_push(Instruction::with4(compare, beats, va, vb, not_ge));
        self.asm.try_push(Instruction::with4(compare, comparable, vbest, vbest, ordered));
        self.asm.bin(Bin::And, FREE[0], FREE[0], Src::Reg(FREE[1]));
        for (to, from) in [(best, vx), (at, self.asm.v(NEXT))] {
            let to = self.asm.v(to);
            self.asm.try_push(Instruction::with4(Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm, to, to, from, beats));
        }
    }

    /// The positions of a vector as i64, in two vectors.
    fn store_wide(&mut self, v: usize, mask: Option<Mask>) {
        let (at, wide) = (POSITIONS + v as VReg, FREE[0]);
        for half in 0..2 {
            let to = mem(OUT, (2 * v as i64 + half) * self.vector());
            match mask {
                None => {
                    self.widen(wide, at, half);
                    self.asm.store(to, wide, None);
                }
                Some(Mask::Predicate) => {
                    self.widen(wide, at, half);
                    // Nothing comes behind a tail that would want the mask as it was.
                    if half == 1 {
                        let (k1, code) = (Register::K1, Code::VEX_Kshiftrw_kr_kr_imm8);
                        self.asm.try_push(Instruction::with3(code, k1, k1, 8));
                    }
                    let (to, wide) = (self.asm.operand(to, false), self.asm.v(wide));
                    self.asm.try_push(Instruction::with2(Code::EVEX_Vmovdqu64_zmmm512_k1z_zmm, to, wide));
                    self.asm.mask_last(Register::K1);
                }
                Some(Mask::Vector(m)) => {
                    self.widen(FREE[1], m, half);
                    self.widen(wide, at, half);
                    let (to, m, wide) = (self.asm.operand(to, false), self.asm.v(FREE[1]), self.asm.v(wide));
                    self.asm.try_push(Instruction::with3(Code::VEX_Vpmaskmovq_m256_ymm_ymm, to, m, wide));
                }
            }
        }
    }

    /// Half of a vector's integers in the width of a whole one.
    fn widen(&mut self, d: VReg, a: VReg, half: i64) {
        let (d, mut from) = (u32::from(d), u32::from(a));
        let (narrow, widen, extract) = match self.isa {
            Isa::Avx512 => {
                let extract = Code::EVEX_Vextracti64x4_ymmm256_k1z_zmm_imm8;
                (Register::YMM0, Code::EVEX_Vpmovsxdq_zmm_k1z_ymmm256, extract)
            }
            Isa::Avx2 => (Register::XMM0, Code::VEX_Vpmovsxdq_ymm_xmmm128, Code::VEX_Vextracti128_xmmm128_ymm_imm8),
        };
        if half == 1 {
            let whole = self.asm.v(a);
            self.asm.try_push(Instruction::with3(extract, narrow + d, whole, 1));
            from = d;
        }
        let wide = self.asm.v(d as VReg);
        self.asm.try_push(Instruction::with2(widen, wide, narrow + from));
    }

    // ---- rows ----

    fn rows(&mut self) {
        let end = self.asm.label();
        self.asm.op_rr(Code::Test_rm64_r64, LEFT, LEFT);
        self.asm.jump(Code::Jle_rel32_64, end);
        let top = self.asm.here();
        let vectors = self.walk_row();
        self.nearest(vectors);
        self.asm.add_imm(IN, 4 * i64::from(self.s.len));
        self.asm.add_imm(OUT, 8);
        self.asm.op_r(Code::Dec_rm64, LEFT);
        self.asm.jump(Code::Jne_rel32_64, top);
        self.asm.bind(end);
    }

    /// The best of a row lane by lane, in as many vectors as it gives.
    fn walk_row(&mut self) -> usize {
        let (len, lanes) = (i64::from(self.s.len), self.lanes());
        let whole = (len / lanes) as usize;
        let vectors = whole.min(MAX_VECTORS);
        let first = if self.s.last { len - lanes } else { 0 };
        let step = 4 * self.ahead(lanes);
        self.positions_from(first);
        for v in 0..vectors {
            self.asm.load(v as VReg, mem(IN, 4 * first + v as i64 * step), None);
            self.asm.copy(POSITIONS + v as VReg, NEXT);
            self.advance_positions();
        }
        let (rounds, left) = ((whole - vectors) / vectors, (whole - vectors) % vectors);
        let taken = vectors as i64 * step;
        if rounds > 0 {
            self.asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
            let top = self.asm.here();
            for v in 0..vectors {
                let mut from = current(IN);
                from.disp = 4 * first + taken + v as i64 * step;
                self.asm.load(ELEMENTS + v as VReg, from, None);
                self.take(v);
                self.advance_positions();
            }
            self.asm.add_imm(DONE, taken);
            self.asm.op_ri(Code::Cmp_rm64_imm32, DONE, (rounds as i64 * taken) as i32);
            self.asm.jump(Code::Jne_rel32_64, top);
        }
        for v in 0..left {
            let at = 4 * first + (1 + rounds as i64) * taken + v as i64 * step;
            self.asm.load(ELEMENTS + v as VReg, mem(IN, at), None);
            self.take(v);
            self.advance_positions();
        }
        if len % lanes > 0 {
            let rest = if self.s.last { 0 } else { len - lanes };
            self.positions_from(rest);
            self.asm.load(ELEMENTS, mem(IN, 4 * rest), None);
            self.take(0);
        }
        vectors
    }

    /// Those of the vector that begins with this element.
    fn positions_from(&mut self, first: i64) {
        let table = self.asm.table((0..self.lanes()).map(|lane| (first + lane) as u32).collect());
        let at = self.asm.rip(table);
        self.asm.load(NEXT, at, None);
    }

    fn advance_positions(&mut self) {
        self.asm.bin(Bin::AddInt, NEXT, NEXT, Src::Const(self.ahead(self.lanes()) as u32));
    }

    /// From lanes of so many vectors to the row's result.
    fn nearest(&mut self, vectors: usize) {
        let fold = if self.s.largest { Fold::Largest } else { Fold::Smallest };
        let [best, turned, free, nearest] = [ELEMENTS, ELEMENTS + 1, ELEMENTS + 2, ELEMENTS + 3];
        self.asm.copy(best, 0);
        (1..vectors).for_each(|v| fold_into(&mut self.asm, fold, best, v as VReg, free));
        self.across(turned, best, |e| fold_into(&mut e.asm, fold, best, turned, free));
        // Behind all positions, or before.
        let none = NEXT;
        self.asm.constant_to(none, if self.s.last { u32::MAX } else { i32::MAX as u32 });
        self.asm.copy(nearest, none);
        for v in 0..vectors as VReg {
            // If there is a NaN, the best is one too, and equals nothing.
            self.asm.select(Pred::Eq, turned, v, Src::Reg(best), POSITIONS + v, none);
            self.asm.select(Pred::Unordered, free, v, Src::Reg(v), POSITIONS + v, turned);
            self.nearer(nearest, free);
        }
        self.across(turned, nearest, |e| e.nearer(nearest, turned));
        let first = Register::XMM0 + u32::from(nearest);
        self.asm.try_push(Instruction::with2(Code::VEX_Vmovd_rm32_xmm, Register::EDI, first));
        self.asm.store64(mem(OUT, 0), DONE);
    }

    /// Brings all lanes of `a` together: `f` once for each distance, when `turned` has them so far on.
    fn across(&mut self, turned: VReg, a: VReg, f: impl Fn(&mut Self)) {
        let mut distance = self.isa.lanes() as u32 / 2;
        while distance > 0 {
            self.asm.align(turned, a, a, distance);
            f(self);
            distance /= 2;
        }
    }

    /// Of each lane's two positions that which is looked at before the other.
    fn nearer(&mut self, d: VReg, other: VReg) {
        let code = match self.s.last {
            true => self.asm.by_isa(Code::EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpmaxsd_ymm_ymm_ymmm256),
            false => self.asm.by_isa(Code::EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpminsd_ymm_ymm_ymmm256),
        };
        self.asm.three(code, d, d, Src::Reg(other));
    }
}
