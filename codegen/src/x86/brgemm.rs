//! The batch-reduce GEMM leaf: a tile of `pixels` x `blocks` accumulators stays in registers through every reduction loop.
//!
//! ```text
//! for tile in 0..tiles                              in += pixels*pixel_stride, out += pixels*out_pixel_stride
//!     acc[p][n] = 0 | bias[n] | out[p][n]
//!     for l0 .. for lk                              in moves by each loop's stride, w moves on by one step throughout
//!         acc[p][n] += in[p*pixel_stride] * w[n]    one element broadcast, or a vector (Input::Lanes)
//!     out[p][n] = epilogue(acc[p][n])
//! ```
//!
//! Registers: rdi arguments, rax in, rdx w, rcx out, r8-r11 and rsi counters (pointers of operands in the epilogue), rbx tiles,
//! r13 and r14 the epilogue's loop, r12 what is prefetched. Strides and trips are immediates; a tile puts in and w back by reloading or by constants.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Bin, FmaForm, Label, Mask, Mem, Src, VReg, mem};
use super::fold::{Fold, fold_into};
use super::gather::{SAVED, Segment};
use super::matrix::{RightStrides, TARGET};
use super::prefetch::{NEXT, Prefetch, Schedule};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError, compact, slots};
use iced_x86::{Code, Register};

/// A loop of the reduction: `trip` times, `stride` bytes apart in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    pub trip: u32,
    pub stride: i32,
}

/// What a step reads of the input for each pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// One element, multiplied with every lane of the weights: convolution, GEMM.
    Element,
    /// A whole vector, multiplied lane by lane: depthwise convolution. One block only.
    Lanes,
    /// A whole vector, added; there are no weights. One block only.
    Sum,
    /// A whole vector, of which the largest is kept, and NaN; there are no weights, and it starts from -inf. One block only.
    Max,
}

/// How [`Input::Element`] reaches the FMAs under AVX-512; with AVX2 there is only `PerPixel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broadcast {
    /// Every FMA reads and broadcasts it: fewest instructions, no register, one load per FMA.
    PerFma,
    /// It is loaded into a register once per pixel, which takes one register.
    PerPixel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Init {
    Zero,
    /// A vector per block, at the bias pointer, `lanes * 4` bytes apart.
    Bias,
    /// The partial sums that lie in the output. To keep the error of long reductions down, cut them into calls that continue so.
    Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiles {
    Fixed(u32),
    /// As the argument says, which may be zero.
    Runtime,
}

/// What the leaf is specialised to. Strides are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchReduceGemm {
    /// Pixels of a tile, P.
    pub pixels: u32,
    /// Blocks of output channels of a tile, NB, each of [`Isa::lanes`] channels.
    pub blocks: u32,
    pub input: Input,
    pub broadcast: Broadcast,
    pub pixel_stride: i32,
    /// Outermost first. Weights are packed in this order, `blocks` vectors a step.
    pub reduce: Vec<Reduce>,
    pub init: Init,
    pub epilogue: VProg,
    pub out_pixel_stride: i32,
    pub out_block_stride: i32,
    /// Lanes of the last block that exist, if not all do. No memory of the others is touched, but in the weights.
    pub last_lanes: Option<u32>,
    pub tiles: Tiles,
    pub prefetch: Prefetch,
}

/// FMAs that a loop's body holds at least, if the trip allows.
const UNROLL_FMAS: u32 = 112;
/// Instructions of an epilogue that is repeated for every accumulator; longer ones run in a loop over a buffer on the stack.
const INLINE_EPILOGUE: usize = 12;

pub(super) const IN: Register = Register::RAX;
pub(super) const W: Register = Register::RDX;
const OUT: Register = Register::RCX;
pub(super) const ARGS: Register = Register::RDI;
const TILES: Register = Register::RBX;
const COUNT: Register = Register::R13;
const BUFFER: Register = Register::R14;
pub(super) const FREE: [Register; 5] = [Register::R8, Register::R9, Register::R10, Register::R11, Register::RSI];

impl BatchReduceGemm {
    /// Vector registers that a tile takes.
    pub fn registers(&self, isa: Isa) -> u32 {
        self.pixels * self.blocks + self.blocks + self.scratch(isa)
    }

    /// Vector registers that a tile takes where the right operand lies so.
    fn registers_with(&self, isa: Isa, right: RightStrides) -> u32 {
        match right.compact {
            true => self.pixels * self.blocks + compact::registers(isa),
            // With AVX2 the mask takes a register.
            false => self.registers(isa) + u32::from(right.exact && self.last_lanes.is_some() && isa == Isa::Avx2),
        }
    }

    /// Registers that hold the broadcast element.
    pub(super) fn scratch(&self, isa: Isa) -> u32 {
        match (isa, self.input, self.broadcast) {
            (Isa::Avx2, Input::Element, _) | (Isa::Avx512, Input::Element, Broadcast::PerPixel) => 1,
            (_, Input::Max, _) => 1,
            (Isa::Avx512, Input::Element, Broadcast::PerFma) | (_, Input::Lanes | Input::Sum, _) => 0,
        }
    }

    /// Floating-point operations of a tile.
    pub fn flops(&self, isa: Isa) -> u64 {
        let steps: u64 = self.reduce.iter().map(|r| u64::from(r.trip)).product();
        2 * steps * u64::from(self.pixels * self.blocks) * isa.lanes() as u64
    }

    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        self.emit_with(isa, self.packed(isa), &[])
    }

    /// How the weights lie that are packed for this tile.
    pub(super) fn packed(&self, isa: Isa) -> RightStrides {
        let vector = isa.bytes() as i32;
        let step = (self.blocks as i32).saturating_mul(vector);
        RightStrides { step, block: vector, exact: false, compact: false, packs: false }
    }

    /// With segments the reduction is by them, see [`GatherGemm`](super::GatherGemm).
    pub(super) fn emit_with(&self, isa: Isa, right: RightStrides, segments: &[Segment]) -> Result<Vec<u8>, LeafError> {
        if self.pixels == 0 || self.blocks == 0 || self.registers_with(isa, right) > isa.registers() {
            return Err(LeafError::Tile { pixels: self.pixels, blocks: self.blocks, registers: isa.registers() });
        }
        if self.input != Input::Element && (self.blocks != 1 || self.last_lanes.is_some()) {
            return Err(LeafError::Unsupported("a lane-wise input with several blocks or a partial one"));
        }
        if matches!(self.tiles, Tiles::Fixed(n) if n == 0 || n > i32::MAX as u32) {
            return Err(LeafError::Unsupported("a fixed number of tiles that is zero or beyond 31 bits"));
        }
        if self.last_lanes.is_some_and(|n| n == 0 || n as usize >= isa.lanes()) {
            return Err(LeafError::Unsupported("a partial block with no lane or all lanes"));
        }
        let epilogue = self.epilogue.legal(isa)?;
        // The table of offsets is a loop of its own.
        let most = FREE.len() - usize::from(!segments.is_empty());
        let Some(loops) = normalise(&self.reduce).filter(|l| l.len() <= most) else {
            return Err(LeafError::TooManyLoops { most });
        };
        if loops.iter().any(|r| r.trip > i32::MAX as u32) {
            return Err(LeafError::Unsupported("a reduction loop beyond 31 bits"));
        }
        Leaf::new(self, isa, right, epilogue, loops, segments)?.emit()
    }
}

/// Without loops of one trip, and with loops merged that continue each other. `None` if one is too long. An empty reduction is
/// one loop of no trips.
fn normalise(reduce: &[Reduce]) -> Option<Vec<Reduce>> {
    if reduce.iter().any(|r| r.trip == 0) {
        return Some(vec![Reduce { trip: 0, stride: 0 }]);
    }
    let mut out: Vec<Reduce> = Vec::new();
    for r in reduce.iter().filter(|r| r.trip != 1) {
        match out.last_mut() {
            Some(outer) if i64::from(outer.stride) == i64::from(r.stride) * i64::from(r.trip) => {
                *outer = Reduce { trip: outer.trip.checked_mul(r.trip)?, stride: r.stride };
            }
            _ => out.push(*r),
        }
    }
    if out.is_empty() {
        out.push(Reduce { trip: 1, stride: 0 });
    }
    Some(out)
}

pub(super) struct Leaf<'a> {
    pub s: &'a BatchReduceGemm,
    pub isa: Isa,
    pub right: RightStrides,
    pub asm: Asm,
    pub loops: Vec<Reduce>,
    /// Instead of the innermost of the loops.
    pub segments: &'a [Segment],
    pub epilogue: VProg,
    /// The epilogue over the accumulator of this number, where it is repeated for each.
    inline: Option<Vec<Allocated>>,
    /// Otherwise the epilogue in a loop, over its own registers.
    looped: Option<Allocated>,
    mask_table: Option<Label>,
    /// Bytes of stack: pointers of operands, spills, buffer.
    spills_at: i64,
    buffer_at: i64,
    frame: i64,
    /// Steps that the innermost loop's body holds, where what is prefetched asks for a number.
    pub body: Option<u32>,
    pub prefetch: Schedule,
}

impl<'a> Leaf<'a> {
    fn new(
        s: &'a BatchReduceGemm,
        isa: Isa,
        right: RightStrides,
        epilogue: VProg,
        loops: Vec<Reduce>,
        segments: &'a [Segment],
    ) -> Result<Self, LeafError> {
        let accumulators = (s.pixels * s.blocks) as VReg;
        // A tile leaves at least two registers to weights and elements, so the highest never holds an accumulator. With AVX2 it holds the mask of a partial block while the tile is stored.
        let masked = s.last_lanes.is_some() && isa == Isa::Avx2;
        let top = isa.registers() as VReg - VReg::from(masked);
        let temps: Vec<VReg> = (accumulators..top).collect();
        let inline: Option<Vec<Allocated>> = (0..accumulators)
            .map(|a| allocate(&epilogue, isa, a, &temps).ok().filter(|e| e.slots == 0 && e.len() <= INLINE_EPILOGUE))
            .collect();
        let looped = match inline {
            Some(_) => None,
            None => Some(allocate(&epilogue, isa, 0, &(1..top).collect::<Vec<_>>())?),
        };
        let align = |n: i64| (n + 63) / 64 * 64;
        let vector = isa.bytes() as i64;
        let spills_at = align(8 * epilogue.operands().len() as i64);
        let buffer_at = align(spills_at + vector * looped.as_ref().map_or(0, |l| l.slots as i64));
        let buffer = if looped.is_some() { vector * i64::from(accumulators) } else { 0 };
        let mut asm = Asm::new(isa);
        let mask_table = s
            .last_lanes
            .filter(|_| isa == Isa::Avx2)
            .map(|n| asm.table((0..isa.lanes() as u32).map(|i| if i < n { u32::MAX } else { 0 }).collect()));
        let frame = align(buffer_at + buffer);
        let mut leaf = Leaf {
            s,
            isa,
            right,
            asm,
            loops,
            segments,
            epilogue,
            inline,
            looped,
            mask_table,
            spills_at,
            buffer_at,
            frame,
            body: None,
            prefetch: Schedule::default(),
        };
        leaf.plan_prefetch();
        Ok(leaf)
    }

    fn emit(mut self) -> Result<Vec<u8>, LeafError> {
        let operands = self.epilogue.operands().len();
        let several = self.s.tiles != Tiles::Fixed(1);
        let mut saved = Vec::new();
        if several {
            saved.push(TILES);
        }
        if self.looped.is_some() {
            saved.extend([COUNT, BUFFER]);
        }
        if self.prefetch.is_some() {
            saved.push(NEXT);
        }
        saved.extend(self.right.packs.then_some(TARGET));
        if !self.segments.is_empty() {
            saved.extend(SAVED);
        }
        for r in &saved {
            self.asm.op_r(Code::Push_r64, *r);
        }
        if self.frame > 0 {
            self.asm.op_r(Code::Push_r64, Register::RBP);
            self.asm.mov(Register::RBP, Register::RSP);
            self.asm.op_ri(Code::Sub_rm64_imm32, Register::RSP, self.frame as i32);
            self.asm.op_ri(Code::And_rm64_imm8, Register::RSP, -64);
        }
        for k in 0..operands {
            self.asm.load64(IN, mem(ARGS, slots::OPERANDS + 8 * k as i64));
            self.asm.store64(mem(Register::RSP, 8 * k as i64), IN);
        }
        let end = self.asm.label();
        match self.s.tiles {
            Tiles::Runtime => {
                self.asm.load64(TILES, mem(ARGS, slots::TILES));
                self.asm.op_rr(Code::Test_rm64_r64, TILES, TILES);
                self.asm.jump(Code::Jle_rel32_64, end);
            }
            Tiles::Fixed(1) => {}
            Tiles::Fixed(n) => self.asm.mov_imm(TILES, n as i32),
        }
        if let (Some(n), Isa::Avx512) = (self.s.last_lanes, self.isa) {
            self.asm.op_ri(Code::Mov_r32_imm32, Register::EAX, (1 << n) - 1);
            self.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::EAX);
        }
        self.load_next(operands);
        self.load_target(operands);
        self.load_lane_masks();
        self.asm.load64(IN, mem(ARGS, slots::IN));
        self.asm.load64(OUT, mem(ARGS, slots::OUT));

        let tile = self.asm.here();
        self.prefetch_next(None);
        self.init();
        if self.right.exact {
            self.load_mask();
        }
        self.asm.load64(W, mem(ARGS, slots::W));
        let moved = match (self.right.compact, self.segments.is_empty()) {
            (true, _) => self.compact(),
            (false, true) => self.nest(0),
            (false, false) => self.segments(),
        };
        self.store();
        if several {
            let p = i64::from(self.s.pixels);
            self.asm.add_imm(IN, p * i64::from(self.s.pixel_stride) - moved.input);
            self.asm.add_imm(OUT, p * i64::from(self.s.out_pixel_stride));
            for k in 0..operands {
                let (pixel, _) = self.operand_strides(k as u8);
                if pixel != 0 {
                    self.asm.add_imm_to_mem(mem(Register::RSP, 8 * k as i64), p * pixel);
                }
            }
            self.asm.op_r(Code::Dec_rm64, TILES);
            self.asm.jump(Code::Jne_rel32_64, tile);
        }
        self.asm.bind(end);
        if self.frame > 0 {
            self.asm.mov(Register::RSP, Register::RBP);
            self.asm.op_r(Code::Pop_r64, Register::RBP);
        }
        for r in saved.iter().rev() {
            self.asm.op_r(Code::Pop_r64, *r);
        }
        self.asm.zero_upper();
        self.asm.ret();
        self.asm.finish()
    }

    pub fn acc(&self, p: u32, n: u32) -> VReg {
        (p * self.s.blocks + n) as VReg
    }

    pub fn weight(&self, n: u32) -> VReg {
        (self.s.pixels * self.s.blocks + n) as VReg
    }

    fn out(&self, p: u32, n: u32) -> Mem {
        mem(OUT, i64::from(p) * i64::from(self.s.out_pixel_stride) + i64::from(n) * i64::from(self.s.out_block_stride))
    }

    /// The mask of this block. With AVX2 it is loaded into the highest register by [`Leaf::load_mask`].
    fn mask(&self, n: u32) -> Option<Mask> {
        self.s.last_lanes.filter(|_| n + 1 == self.s.blocks).map(|_| match self.isa {
            Isa::Avx512 => Mask::Predicate,
            Isa::Avx2 => Mask::Vector(self.isa.registers() as VReg - 1),
        })
    }

    fn load_mask(&mut self) {
        if let Some(table) = self.mask_table {
            let m = self.asm.rip(table);
            self.asm.load(self.isa.registers() as VReg - 1, m, None);
        }
    }

    fn init(&mut self) {
        let (pixels, blocks) = (self.s.pixels, self.s.blocks);
        match self.s.init {
            Init::Zero if self.s.input == Input::Max => {
                let lowest = f32::NEG_INFINITY.to_bits();
                (0..(pixels * blocks) as VReg).for_each(|a| self.asm.constant_to(a, lowest));
            }
            Init::Zero => (0..(pixels * blocks) as VReg).for_each(|a| self.asm.zero(a)),
            Init::Bias => {
                self.load_mask();
                self.asm.load64(W, mem(ARGS, slots::BIAS));
                for n in 0..blocks {
                    let from = mem(W, i64::from(n) * self.isa.bytes() as i64);
                    let (first, mask) = (self.acc(0, n), self.mask(n));
                    self.asm.load(first, from, mask);
                    (1..pixels).for_each(|p| self.asm.copy(self.acc(p, n), first));
                }
            }
            Init::Output => {
                self.load_mask();
                for (p, n) in (0..pixels).flat_map(|p| (0..blocks).map(move |n| (p, n))) {
                    let (acc, from, mask) = (self.acc(p, n), self.out(p, n), self.mask(n));
                    self.asm.load(acc, from, mask);
                }
            }
        }
    }

    /// The reduction loop at this depth and those inside it. Says how far the pointers have moved for good.
    fn nest(&mut self, depth: usize) -> Moved {
        let Reduce { trip, stride } = self.loops[depth];
        let stride = i64::from(stride);
        let step = i64::from(self.right.step);
        if depth + 1 == self.loops.len() {
            let unroll = self.body.unwrap_or_else(|| self.unroll(trip, self.s.blocks));
            let (rounds, rest) = (trip / unroll, trip % unroll);
            let mut moved = Moved::default();
            if rounds > 1 {
                self.asm.mov_imm(FREE[depth], rounds as i32);
                let top = self.asm.here();
                self.prefetch_next(Some(depth));
                (0..i64::from(unroll)).for_each(|u| self.step(u * stride, u));
                self.asm.add_imm(IN, i64::from(unroll) * stride);
                self.asm.add_imm(W, i64::from(unroll) * step);
                self.advance_target(i64::from(unroll));
                self.asm.op_r(Code::Dec_rm64, FREE[depth]);
                self.asm.jump(Code::Jne_rel32_64, top);
                let total = i64::from(rounds * unroll);
                moved.input = total * stride;
            }
            if rounds == 1 {
                self.prefetch_next(Some(depth));
            }
            let straight = if rounds > 1 { rest } else { trip };
            (0..i64::from(straight)).for_each(|u| self.step(u * stride, u));
            moved.owed = i64::from(straight) * step;
            return moved;
        }
        self.asm.mov_imm(FREE[depth], trip as i32);
        let top = self.asm.here();
        self.prefetch_next(Some(depth));
        let inner = self.nest(depth + 1);
        self.asm.add_imm(IN, stride - inner.input);
        self.asm.add_imm(W, inner.owed);
        self.asm.op_r(Code::Dec_rm64, FREE[depth]);
        self.asm.jump(Code::Jne_rel32_64, top);
        Moved { input: i64::from(trip) * stride, owed: 0 }
    }

    /// How many steps the innermost loop's body holds: all of them if they are few, else a divisor of the trip if there is one.
    pub fn unroll(&self, trip: u32, blocks: u32) -> u32 {
        let most = (UNROLL_FMAS / (self.s.pixels * blocks)).clamp(1, 16);
        if trip < 2 * most {
            return trip.max(1);
        }
        (most / 2 + 1..=most).rev().find(|u| trip.is_multiple_of(*u)).unwrap_or(most)
    }

    /// One element (or vector) of every pixel times the weights of every block, `ahead` steps from the pointer of the weights.
    fn step(&mut self, input: i64, ahead: i64) {
        if matches!(self.s.input, Input::Sum | Input::Max) {
            return self.fold(input);
        }
        let (pixels, blocks) = (self.s.pixels, self.s.blocks);
        let (block, weights) = (i64::from(self.right.block), ahead * i64::from(self.right.step));
        for n in 0..blocks {
            let (w, mask) = (self.weight(n), self.mask(n).filter(|_| self.right.exact));
            self.asm.load(w, mem(W, weights + i64::from(n) * block), mask);
        }
        self.pack_step(ahead);
        if let Prefetch::Ahead(ahead) = self.s.prefetch {
            // Vectors side by side may share a line.
            let lines = (0..i64::from(blocks)).map(|n| n * block).filter(|at| at % 64 == 0);
            lines.for_each(|at| self.asm.prefetch(mem(W, weights + i64::from(ahead) + at)));
        }
        for p in 0..pixels {
            let at = mem(IN, input + i64::from(p) * i64::from(self.s.pixel_stride));
            let x = match (self.s.input, self.s.scratch(self.isa)) {
                (Input::Lanes | Input::Sum | Input::Max, _) => Src::Mem(at),
                (Input::Element, 0) => Src::Broadcast(at),
                (Input::Element, _) => {
                    let x = self.weight(blocks);
                    self.asm.broadcast(x, at);
                    Src::Reg(x)
                }
            };
            for n in 0..blocks {
                let (acc, w) = (self.acc(p, n), self.weight(n));
                self.asm.fma(FmaForm::F231, acc, w, x);
            }
        }
    }

    /// A vector of every pixel into its accumulator, without weights.
    fn fold(&mut self, input: i64) {
        for p in 0..self.s.pixels {
            let at = mem(IN, input + i64::from(p) * i64::from(self.s.pixel_stride));
            let acc = self.acc(p, 0);
            if self.s.input == Input::Sum {
                self.asm.bin(Bin::Add, acc, acc, Src::Mem(at));
                continue;
            }
            let (x, free) = (self.weight(0), self.weight(1));
            self.asm.load(x, at, None);
            fold_into(&mut self.asm, Fold::Largest, acc, x, free);
        }
    }

    /// Bytes from one pixel and one block to the next, of an operand.
    fn operand_strides(&self, k: u8) -> (i64, i64) {
        match self.epilogue.operands()[usize::from(k)] {
            Access::Same => (i64::from(self.s.out_pixel_stride), i64::from(self.s.out_block_stride)),
            Access::Strided { pixel, block } => (i64::from(pixel), i64::from(block)),
            Access::Channel => (0, self.isa.bytes() as i64),
            Access::Splat => (0, 0),
        }
    }

    fn store(&mut self) {
        self.load_mask();
        for (k, pointer) in FREE.iter().take(self.epilogue.operands().len()).enumerate() {
            self.asm.load64(*pointer, mem(Register::RSP, 8 * k as i64));
        }
        match (self.inline.take(), self.looped.take()) {
            (Some(inline), _) => self.store_inline(&inline),
            (None, Some(looped)) => self.store_looped(&looped),
            (None, None) => unreachable!("a tile is stored once, by one of the two"),
        }
    }

    fn store_inline(&mut self, epilogue: &[Allocated]) {
        for (p, n) in (0..self.s.pixels).flat_map(|p| (0..self.s.blocks).map(move |n| (p, n))) {
            let e = &epilogue[usize::from(self.acc(p, n))];
            self.apply(e, p, n);
            let (to, mask) = (self.out(p, n), self.mask(n));
            self.asm.store(to, e.result, mask);
        }
    }

    /// The program on one vector, operands addressed for this pixel and block.
    fn apply(&mut self, e: &Allocated, p: u32, n: u32) {
        let strides: Vec<_> = (0..self.epilogue.operands().len()).map(|k| self.operand_strides(k as u8)).collect();
        let splat: Vec<bool> = self.epilogue.operands().iter().map(|a| *a == Access::Splat).collect();
        let (spills_at, vector) = (self.spills_at, self.isa.bytes() as i64);
        let operand = |k: u8| {
            let (pixel, block) = strides[usize::from(k)];
            (mem(FREE[usize::from(k)], i64::from(p) * pixel + i64::from(n) * block), splat[usize::from(k)])
        };
        let slot = |i: usize| mem(Register::RSP, spills_at + vector * i as i64);
        let mask = self.mask(n);
        e.emit(&mut self.asm, &Place { operand: &operand, slot: &slot, mask });
    }

    /// Accumulators go to the stack; then every register is free for the program, which runs over them block by block.
    fn store_looped(&mut self, epilogue: &Allocated) {
        let vector = self.isa.bytes() as i64;
        let (pixels, blocks) = (i64::from(self.s.pixels), self.s.blocks);
        let operands = self.epilogue.operands().len();
        for (p, n) in (0..self.s.pixels).flat_map(|p| (0..blocks).map(move |n| (p, n))) {
            let at = (i64::from(n) * pixels + i64::from(p)) * vector;
            self.asm.store(mem(Register::RSP, self.buffer_at + at), self.acc(p, n), None);
        }
        self.asm.lea(BUFFER, mem(Register::RSP, self.buffer_at));
        for n in 0..blocks {
            self.asm.mov_imm(COUNT, pixels as i32);
            let top = self.asm.here();
            self.asm.load(0, mem(BUFFER, 0), None);
            self.apply(epilogue, 0, n);
            let (to, mask) = (self.out(0, n), self.mask(n));
            self.asm.store(to, epilogue.result, mask);
            self.asm.add_imm(BUFFER, vector);
            self.asm.add_imm(OUT, i64::from(self.s.out_pixel_stride));
            for (k, pointer) in FREE.iter().take(operands).enumerate() {
                let (pixel, _) = self.operand_strides(k as u8);
                self.asm.add_imm(*pointer, pixel);
            }
            self.asm.op_r(Code::Dec_rm64, COUNT);
            self.asm.jump(Code::Jne_rel32_64, top);
            self.asm.add_imm(OUT, -pixels * i64::from(self.s.out_pixel_stride));
            for (k, pointer) in FREE.iter().take(operands).enumerate() {
                let (pixel, _) = self.operand_strides(k as u8);
                self.asm.add_imm(*pointer, -pixels * pixel);
            }
        }
    }
}

/// How far a nest has moved the pointer of the input, and how far that of the weights has still to go.
#[derive(Clone, Copy, Default)]
pub(super) struct Moved {
    pub input: i64,
    pub owed: i64,
}
