//! A tile of outputs whose input channels lie anywhere: the batch-reduce leaf with a table of offsets for its innermost loop.
//!
//! ```text
//! for tile in 0..tiles                              as in the batch-reduce leaf
//!     acc[p][n] = 0 | bias[n] | out[p][n]
//!     for segment                                   a group of the convolution
//!         for l0 .. for lk                          taps
//!             for offset in the segment's part of the table
//!                 acc[p][n] += in[offset + p*pixel_stride] * w[n]        blocks of the segment, lanes of the group
//!     out[p][n] = epilogue(acc[p][n])
//! ```
//!
//! Where groups of output channels do not fall into whole blocks, a block belongs to several segments, and each adds to its own
//! lanes alone: with AVX-512 by a mask, which costs nothing; with AVX2 the others' weights are zero, and they get zero inputs, so
//! that what is infinite in one group stays there. Offsets are i32 bytes.

use super::asm::{Asm, Bin, FmaForm, Label, Mem, Src, mem};
use super::brgemm::{ARGS, BatchReduceGemm, FREE, IN, Input, Leaf, Moved, Prefetch, Reduce, W};
use super::{Isa, LeafError, slots};
use iced_x86::{Code, Register};

/// Output channels that read the same inputs: blocks `first..first + blocks` of the tile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Input channels: entries of the table, steps for each tap.
    pub inputs: u32,
    pub first: u32,
    pub blocks: u32,
    /// The lanes of each block that it adds to, as bits.
    pub lanes: Vec<u16>,
}

/// What the leaf is specialised to. The table's address is the argument behind the operands of the epilogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherGemm {
    /// `reduce` are the taps. Weights are packed as they are read: by segment, tap, input and block of the segment.
    pub tile: BatchReduceGemm,
    pub segments: Vec<Segment>,
}

/// Masks of lanes that a leaf has registers for.
pub const MAX_MASKS: usize = 5;

/// The next entry of the table, and the address that it leads to.
pub(super) const TABLE: Register = Register::R12;
const POINT: Register = Register::R15;
/// Registers that the caller wants back.
pub(super) const SAVED: [Register; 2] = [TABLE, POINT];

impl GatherGemm {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        if self.tile.input != Input::Element || self.tile.prefetch != Prefetch::None {
            return Err(LeafError::Unsupported("a gathered input that is not of single elements, or is prefetched"));
        }
        let fits = |s: &Segment| {
            s.blocks > 0
                && s.lanes.len() == s.blocks as usize
                && s.first.checked_add(s.blocks) <= Some(self.tile.blocks)
        };
        if !self.segments.iter().all(fits) {
            return Err(LeafError::Unsupported("a segment beyond the tile's blocks"));
        }
        if masks(&self.segments).len() > MAX_MASKS {
            return Err(LeafError::Unsupported("so many groups in a tile"));
        }
        self.tile.emit_with(isa, self.tile.packed(isa), &self.segments)
    }

    /// Masks of lanes that a tile needs registers for.
    pub fn masks(segments: &[Segment]) -> usize {
        masks(segments).len()
    }
}

/// The distinct masks that leave lanes out.
fn masks(segments: &[Segment]) -> Vec<u16> {
    let mut masks = vec![];
    for &lanes in segments.iter().flat_map(|s| &s.lanes) {
        if lanes != u16::MAX && !masks.contains(&lanes) {
            masks.push(lanes);
        }
    }
    masks
}

/// Where a mask of lanes is while the leaf runs.
#[derive(Clone, Copy)]
enum LaneMask {
    /// AVX-512.
    Predicate(Register),
    /// A vector in memory.
    Table(Label),
}

type LaneMasks = [(u16, LaneMask)];

impl Leaf<'_> {
    /// Puts the masks into k3 and on. Changes `IN`.
    pub(super) fn load_lane_masks(&mut self) {
        if self.isa == Isa::Avx512 {
            for (at, lanes) in (0u32..).zip(masks(self.segments)) {
                self.asm.op_ri(Code::Mov_r32_imm32, Register::EAX, i32::from(lanes));
                self.asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K3 + at, Register::EAX);
            }
        }
    }

    fn lane_masks(&mut self) -> Vec<(u16, LaneMask)> {
        let lanes = self.isa.lanes() as u32;
        let place = |asm: &mut Asm, at: u32, mask: u16| match asm.isa {
            Isa::Avx512 => LaneMask::Predicate(Register::K3 + at),
            Isa::Avx2 => {
                LaneMask::Table(asm.table((0..lanes).map(|l| if mask >> l & 1 == 1 { u32::MAX } else { 0 }).collect()))
            }
        };
        (0..).zip(masks(self.segments)).map(|(at, mask)| (mask, place(&mut self.asm, at, mask))).collect()
    }

    /// The reduction over all segments; the input's pointer ends where it began.
    pub(super) fn segments(&mut self) -> Moved {
        let operands = self.epilogue.operands().len() as i64;
        self.asm.load64(TABLE, mem(ARGS, slots::OPERANDS + 8 * operands));
        let masks = self.lane_masks();
        let mut entry = 0;
        for s in self.segments {
            let moved = self.taps(0, s, entry, &masks);
            self.asm.add_imm(IN, -moved.input);
            self.asm.add_imm(W, moved.owed);
            entry += 4 * i64::from(s.inputs);
        }
        Moved::default()
    }

    /// Loops over taps, the table inside.
    fn taps(&mut self, depth: usize, s: &Segment, entry: i64, masks: &LaneMasks) -> Moved {
        let Some(&Reduce { trip, stride }) = self.loops.get(depth) else { return self.table(depth, s, entry, masks) };
        if trip == 0 {
            return Moved::default();
        }
        if trip == 1 {
            return self.taps(depth + 1, s, entry, masks);
        }
        let stride = i64::from(stride);
        self.asm.mov_imm(FREE[depth], trip as i32);
        let top = self.asm.here();
        let inner = self.taps(depth + 1, s, entry, masks);
        self.asm.add_imm(IN, stride - inner.input);
        self.asm.add_imm(W, inner.owed);
        self.asm.op_r(Code::Dec_rm64, FREE[depth]);
        self.asm.jump(Code::Jne_rel32_64, top);
        Moved { input: i64::from(trip) * stride, owed: 0 }
    }

    fn table(&mut self, depth: usize, s: &Segment, entry: i64, masks: &LaneMasks) -> Moved {
        let step = i64::from(s.blocks) * self.isa.bytes() as i64;
        let unroll = self.unroll(s.inputs, s.blocks);
        let (rounds, rest) = (s.inputs / unroll, s.inputs % unroll);
        let looped = if rounds > 1 { rounds * unroll } else { 0 };
        if rounds > 1 {
            self.asm.mov_imm(FREE[depth], rounds as i32);
            let top = self.asm.here();
            (0..i64::from(unroll)).for_each(|u| self.gather(s, entry + 4 * u, u * step, masks));
            self.asm.add_imm(TABLE, 4 * i64::from(unroll));
            self.asm.add_imm(W, i64::from(unroll) * step);
            self.asm.op_r(Code::Dec_rm64, FREE[depth]);
            self.asm.jump(Code::Jne_rel32_64, top);
        }
        let straight = i64::from(if rounds > 1 { rest } else { s.inputs });
        (0..straight).for_each(|u| self.gather(s, entry + 4 * u, u * step, masks));
        self.asm.add_imm(TABLE, -4 * i64::from(looped));
        Moved { input: 0, owed: straight * step }
    }

    /// One element of every pixel times the weights of the segment's blocks.
    fn gather(&mut self, s: &Segment, entry: i64, weights: i64, masks: &LaneMasks) {
        let vector = self.isa.bytes() as i64;
        self.asm.load_i32(POINT, mem(TABLE, entry));
        self.asm.op_rr(Code::Add_r64_rm64, POINT, IN);
        for n in 0..s.blocks {
            let w = self.weight(n);
            self.asm.load(w, mem(W, weights + i64::from(n) * vector), None);
        }
        let mask_of = |lanes: &u16| masks.iter().find(|(m, _)| m == lanes).map(|(_, mask)| *mask);
        let mut blocks: Vec<(u32, Option<LaneMask>)> = (0..).zip(s.lanes.iter().map(mask_of)).collect();
        // With AVX2 masking changes the element, so blocks without a mask come first.
        blocks.sort_by_key(|(_, mask)| mask.is_some());
        for p in 0..self.s.pixels {
            let at: Mem = mem(POINT, i64::from(p) * i64::from(self.s.pixel_stride));
            let element = self.weight(self.s.blocks);
            let x = if self.isa == Isa::Avx512 && (s.blocks == 1 || self.s.scratch(self.isa) == 0) {
                Src::Broadcast(at)
            } else {
                self.asm.broadcast(element, at);
                Src::Reg(element)
            };
            for &(n, mask) in &blocks {
                let (acc, w) = (self.acc(p, s.first + n), self.weight(n));
                if let Some(LaneMask::Table(table)) = mask {
                    let m = self.asm.rip(table);
                    self.asm.broadcast(element, at);
                    self.asm.bin(Bin::And, element, element, Src::Mem(m));
                }
                self.asm.fma(FmaForm::F231, acc, w, x);
                if let Some(LaneMask::Predicate(k)) = mask {
                    self.asm.mask_last(k);
                }
            }
        }
    }
}
