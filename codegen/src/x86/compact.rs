//! Compact weights: five numbers in the place of four, for products that are bound by reading their weights.
//!
//! A column's weights are multiples of one number, its scale, up to 2^24: as fine as f32 is for the largest of them. Of four words
//! each has a weight in its upper 25 bits, and the lower 7 bits of the four together have the fifth.
//!
//! ```text
//! word   31 ......... 7  6 ........ 0        [block][phase]  scale of each lane
//!    0   step 0          step 4, 27..21                      [step / 5][4][lanes]
//!    1   step 1          step 4, 20..14
//!    2   step 2          step 4, 13..7
//!    3   step 3          step 4,  6..0      the fifth has 28 bits there, of which the lowest three are 0
//! ```
//!
//! A word without its lower 7 bits is the weight times 2^7 as an integer, which f32 holds exactly. No weight becomes 0.

use super::asm::{Bin, FmaForm, Src, Un, VReg, mem};
use super::brgemm::{FREE, IN, Leaf, Moved, W};
use super::{Isa, MatrixLayout, Prefetch};
use iced_x86::{Code, Register};

/// Steps of the inner axis whose weights lie together.
pub const STEPS: usize = 5;
/// Vectors that they take.
const VECTORS: usize = 4;
/// The bits of a word that belong to the fifth weight.
const LOW_BITS: u8 = 7;
/// A weight is at most so many times its column's scale.
const LARGEST: f64 = ((1 << 24) - 1) as f64;
/// The weights of a column may be changed by this part of a usual one, in the root of the mean of squares: the sums of a product differ
/// so much by the order of their terms.
const MAX_CHANGE: f64 = 1.0 / (1 << 21) as f64;
/// Scales are far from what f32 can hold no more.
const SMALLEST: f32 = 1e-20;

/// Where compact weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactForm {
    pub inner: usize,
    /// Steps of a phase, all but the last: a multiple of [`STEPS`]. Each begins with the scales.
    pub phase: usize,
    pub lanes: usize,
}

impl CompactForm {
    /// Words of the steps before this one, which begins a phase, or the end.
    pub fn words(&self, step: usize) -> usize {
        self.lanes * (step.div_ceil(self.phase) + VECTORS * step.div_ceil(STEPS))
    }

    /// The weights `[inner, columns]`, or as the layout says, block by block. `None` where a column would change by more than
    /// the sums of a product do by their order: where a few of its weights are far larger than the others, or it is not finite.
    pub fn pack(&self, b: &[f32], layout: MatrixLayout) -> Option<Vec<u8>> {
        let (inner, lanes) = (self.inner, self.lanes);
        let columns = b.len() / inner;
        let block = self.words(inner);
        let mut words = vec![0u32; columns.div_ceil(lanes) * block];
        let mut column = vec![0f32; inner];
        for n in 0..columns {
            for (k, w) in column.iter_mut().enumerate() {
                *w = match layout {
                    MatrixLayout::Kn => b[k * columns + n],
                    MatrixLayout::Nk => b[n * inner + k],
                };
            }
            self.pack_column(&column, &mut words[n / lanes * block..][..block], n % lanes)?;
        }
        Some(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    fn pack_column(&self, column: &[f32], block: &mut [u32], lane: usize) -> Option<()> {
        let largest = column.iter().fold(0f32, |m, w| m.max(w.abs()));
        if !column.iter().all(|w| w.is_finite()) || (largest != 0.0 && largest < SMALLEST) {
            return None;
        }
        // What an integer of 32 bits is multiplied by.
        let scale = (f64::from(largest) / LARGEST) as f32 / (1 << LOW_BITS) as f32;
        let per_word = if scale == 0.0 { 0.0 } else { 1.0 / f64::from(scale) / f64::from(1 << LOW_BITS) };
        let (mut change, mut roots) = (0.0, 0.0);
        for (k, &w) in column.iter().enumerate() {
            let units = match (f64::from(w) * per_word).round().clamp(-LARGEST, LARGEST) as i32 {
                // It would make NaN of infinity, not infinity.
                0 if w != 0.0 => w.signum() as i32,
                units => units,
            };
            let kept = (units << LOW_BITS) as f32 * scale;
            change += (f64::from(kept) - f64::from(w)).powi(2);
            roots += f64::from(w.abs()).sqrt();
            let phase = k / self.phase;
            let chunk = (phase + 1) * self.lanes + k / STEPS * VECTORS * self.lanes;
            let word = |i: usize| chunk + i * self.lanes + lane;
            match k % STEPS {
                4 => {
                    let bits = (units << 3) as u32;
                    (0..VECTORS).for_each(|i| block[word(i)] |= bits >> (21 - 7 * i) & 0x7f);
                }
                i => block[word(i)] |= (units << LOW_BITS) as u32,
            }
        }
        (0..self.inner).step_by(self.phase).for_each(|k| block[self.words(k) + lane] = scale.to_bits());
        // A few large weights make little of this mean.
        let count = self.inner as f64;
        let usual = (roots / count).powi(2);
        (change <= (MAX_CHANGE * usual).powi(2) * count).then_some(())
    }
}

/// Where the scales of the first block are while the leaf runs.
const SCALES: Register = FREE[1];

/// Registers that a leaf takes beside its accumulators.
pub(super) fn registers(isa: Isa) -> u32 {
    match isa {
        Isa::Avx512 => VECTORS as u32 + 2,
        // An element is a register of its own.
        Isa::Avx2 => VECTORS as u32 + 3,
    }
}

impl Leaf<'_> {
    /// The reduction over compact weights: one loop.
    pub(super) fn compact(&mut self) -> Moved {
        let (trip, stride) = (self.loops[0].trip, i64::from(self.loops[0].stride));
        let (rounds, rest) = (trip / STEPS as u32, trip % STEPS as u32);
        let chunk = VECTORS as i64 * self.isa.bytes() as i64;
        self.asm.mov(SCALES, W);
        self.asm.add_imm(W, self.isa.bytes() as i64);
        let input = STEPS as i64 * stride;
        if rounds > 0 {
            self.asm.mov_imm(FREE[0], rounds as i32);
            let top = self.asm.here();
            (0..self.s.blocks).for_each(|n| self.chunk(n, STEPS as u32, stride));
            self.asm.add_imm(IN, input);
            self.asm.add_imm(W, chunk);
            self.asm.op_r(Code::Dec_rm64, FREE[0]);
            self.asm.jump(Code::Jne_rel32_64, top);
        }
        if rest > 0 {
            (0..self.s.blocks).for_each(|n| self.chunk(n, rest, stride));
        }
        Moved { input: i64::from(rounds) * input, owed: 0 }
    }

    /// So many steps of a block.
    fn chunk(&mut self, n: u32, steps: u32, stride: i64) {
        let (vector, block) = (self.isa.bytes() as i64, i64::from(n) * i64::from(self.right.block));
        let words = |i: u32| (self.s.pixels * self.s.blocks + i) as VReg;
        let weight = words(VECTORS as u32);
        let fifth = words(VECTORS as u32 + 1);
        let whole = steps == STEPS as u32;
        let vectors = steps.min(VECTORS as u32);
        for i in 0..vectors {
            self.asm.load(words(i), mem(W, block + i64::from(i) * vector), None);
        }
        if let Prefetch::Ahead(ahead) = self.s.prefetch {
            let lines = (0..VECTORS as i64 * vector).step_by(64);
            lines.for_each(|at| self.asm.prefetch(mem(W, block + i64::from(ahead) + at)));
        }
        let low = (1u32 << LOW_BITS) - 1;
        for i in 0..vectors {
            self.asm.bin(Bin::And, weight, words(i), Src::Const(!low));
            self.weigh(weight, n, i64::from(i) * stride);
            if whole {
                self.asm.bin(Bin::And, words(i), words(i), Src::Const(low));
            }
        }
        if whole {
            let (mut to, mut from) = (fifth, words(0));
            for i in 1..VECTORS as u32 {
                self.asm.un(Un::ShiftLeft(LOW_BITS), to, from);
                self.asm.bin(Bin::Or, to, to, Src::Reg(words(i)));
                (to, from) = (fifth, fifth);
            }
            self.asm.un(Un::ShiftLeft(4), weight, from);
            self.weigh(weight, n, VECTORS as i64 * stride);
        }
    }

    /// Makes a weight of the integers and multiplies every pixel's element with it.
    fn weigh(&mut self, weight: VReg, n: u32, input: i64) {
        self.asm.un(Un::FromInt, weight, weight);
        let scales = mem(SCALES, i64::from(n) * i64::from(self.right.block));
        self.asm.bin(Bin::Mul, weight, weight, Src::Mem(scales));
        for p in 0..self.s.pixels {
            let at = mem(IN, input + i64::from(p) * i64::from(self.s.pixel_stride));
            let x = match self.isa {
                Isa::Avx512 => Src::Broadcast(at),
                Isa::Avx2 => {
                    let x = (self.s.pixels * self.s.blocks) as VReg + VECTORS as VReg + 2;
                    self.asm.broadcast(x, at);
                    Src::Reg(x)
                }
            };
            self.asm.fma(FmaForm::F231, self.acc(p, n), weight, x);
        }
    }
}
