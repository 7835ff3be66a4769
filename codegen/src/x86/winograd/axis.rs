//! Winograd's transforms along one axis, in registers.
//!
//! Points and products come to the first registers, results of the output's transform are in some of the first six. Sums of several
//! phases wait in registers 10 to 13. With AVX-512 the constants are in 24 to 31.

use super::super::Isa;
use super::super::asm::{Asm, Bin, FmaForm, Mem, Src, VReg};
use super::{A, B, Phase, Winograd};

pub(super) const INPUT_CONSTANTS: [f64; 8] = [-(A * A + B * B), A * A * B * B, -B * B, -A * A, A, -A, B, -B];
/// Powers of the two points from the first on.
pub(super) const OUTPUT_CONSTANTS: [f64; 6] = [A, B, A * A, B * B, A * A * A, B * B * B];

/// Constants are held in the last registers with AVX-512, and read from memory with AVX2.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    isa: Isa,
}

impl Constants {
    pub fn new(asm: &Asm) -> Constants {
        Constants { isa: asm.isa }
    }

    /// The first register that is not free.
    pub fn first(isa: Isa) -> VReg {
        match isa {
            Isa::Avx512 => 24,
            Isa::Avx2 => 16,
        }
    }

    pub fn load(self, asm: &mut Asm, values: &[f64]) {
        if self.isa == Isa::Avx512 {
            for (k, &v) in values.iter().enumerate() {
                asm.constant_to(Self::first(self.isa) + k as VReg, (v as f32).to_bits());
            }
        }
    }

    fn get(self, values: &[f64], k: usize) -> Src {
        match self.isa {
            Isa::Avx512 => Src::Reg(Self::first(self.isa) + k as VReg),
            Isa::Avx2 => Src::Const((values[k] as f32).to_bits()),
        }
    }

    /// Bt times an axis of pixels that lie at `from`, stored at `to`.
    pub fn input(self, asm: &mut Asm, winograd: Winograd, from: impl Fn(usize) -> Mem, to: impl Fn(usize) -> Mem) {
        let mut point = 0;
        for phase in winograd.phases() {
            for i in 0..phase.points {
                asm.load(i as VReg, from(phase.first + i * winograd.stride()), None);
            }
            for r in self.input_of_phase(asm, phase) {
                asm.store(to(point), r, None);
                point += 1;
            }
        }
    }

    /// Bt of a phase times what lies in the first registers; gives the registers of the results.
    fn input_of_phase(self, asm: &mut Asm, phase: Phase) -> Vec<VReg> {
        let c = |k: usize| self.get(&INPUT_CONSTANTS, k);
        let add = |asm: &mut Asm, to: VReg, x: VReg, k: usize| asm.fma(FmaForm::F231, to, x, c(k));
        match phase.finite().len() {
            0 => (0..phase.points as VReg).collect(),
            2 => {
                asm.bin(Bin::Sub, 3, 1, Src::Reg(0));
                asm.bin(Bin::Sub, 4, 2, Src::Reg(1));
                vec![3, 1, 4]
            }
            3 => {
                asm.bin(Bin::Sub, 4, 2, Src::Reg(0));
                asm.bin(Bin::Add, 5, 1, Src::Reg(2));
                asm.bin(Bin::Sub, 6, 2, Src::Reg(1));
                asm.bin(Bin::Sub, 7, 3, Src::Reg(1));
                vec![4, 5, 6, 7]
            }
            4 => {
                // What is left of d0, d1 and d2 times x^2 - a^2; the point b is the second.
                asm.copy(5, 2);
                add(asm, 5, 0, 3);
                asm.copy(6, 3);
                add(asm, 6, 1, 3);
                add(asm, 4, 2, 3);
                // And of d1 and d2 times x - b.
                asm.copy(7, 2);
                add(asm, 7, 1, 7);
                add(asm, 3, 2, 7);
                asm.copy(8, 3);
                add(asm, 8, 7, 4);
                add(asm, 3, 7, 5);
                asm.copy(9, 6);
                add(asm, 9, 5, 7);
                add(asm, 4, 6, 7);
                vec![9, 8, 3, 6, 4]
            }
            _ => {
                // d4 - s d2 + q d0
                asm.copy(6, 4);
                add(asm, 6, 2, 0);
                add(asm, 6, 0, 1);
                // Even and odd parts at a and at b.
                asm.copy(7, 4);
                add(asm, 7, 2, 2);
                asm.copy(8, 3);
                add(asm, 8, 1, 2);
                asm.copy(9, 3);
                add(asm, 9, 1, 3);
                add(asm, 4, 2, 3);
                // d5 - s d3 + q d1
                add(asm, 5, 3, 0);
                add(asm, 5, 1, 1);
                asm.copy(10, 7);
                add(asm, 10, 8, 4);
                add(asm, 7, 8, 5);
                asm.copy(11, 4);
                add(asm, 11, 9, 6);
                add(asm, 4, 9, 7);
                vec![6, 10, 7, 11, 4, 5]
            }
        }
    }

    /// At times an axis of products that lie at `from`; gives [`Winograd::result_registers`].
    pub fn output(self, asm: &mut Asm, winograd: Winograd, from: impl Fn(usize) -> Mem) -> Vec<VReg> {
        let (mut first, mut sums) = (0, vec![]);
        for phase in winograd.phases() {
            let single = phase.taps == 1 && !sums.is_empty();
            if single {
                for (i, &sum) in sums.iter().enumerate() {
                    asm.bin(Bin::Add, sum, sum, Src::Mem(from(first + i)));
                }
            } else {
                // Out of the next phase's way.
                let before: Vec<VReg> = (0..sums.len()).map(|i| SUMS + i as VReg).collect();
                before.iter().zip(&sums).for_each(|(&to, &sum)| asm.copy(to, sum));
                (0..phase.points).for_each(|i| asm.load(i as VReg, from(first + i), None));
                sums = self.output_of_phase(asm, phase, winograd.outputs());
                before.iter().zip(&sums).for_each(|(&before, &sum)| asm.bin(Bin::Add, sum, sum, Src::Reg(before)));
            }
            first += phase.points;
        }
        sums
    }

    /// At of a phase times what lies in the first registers; gives [`Phase::result_registers`].
    fn output_of_phase(self, asm: &mut Asm, phase: Phase, outputs: usize) -> Vec<VReg> {
        let results = phase.result_registers(outputs);
        let c = |k: usize| self.get(&OUTPUT_CONSTANTS, k);
        match phase.finite().len() {
            0 => {}
            2 => {
                asm.bin(Bin::Add, 0, 0, Src::Reg(1));
                asm.bin(Bin::Add, 1, 1, Src::Reg(2));
            }
            3 => {
                asm.bin(Bin::Add, 0, 0, Src::Reg(1));
                asm.bin(Bin::Add, 0, 0, Src::Reg(2));
                asm.bin(Bin::Sub, 1, 1, Src::Reg(2));
                asm.bin(Bin::Add, 1, 1, Src::Reg(3));
            }
            points => {
                // Sums for even powers, differences for odd ones; the point b may be without -b.
                asm.bin(Bin::Add, 6, 1, Src::Reg(2));
                asm.bin(Bin::Sub, 7, 1, Src::Reg(2));
                let (even_b, odd_b) = if points == 5 { (8, 9) } else { (3, 3) };
                if points == 5 {
                    asm.bin(Bin::Add, 8, 3, Src::Reg(4));
                    asm.bin(Bin::Sub, 9, 3, Src::Reg(4));
                }
                asm.bin(Bin::Add, 0, 0, Src::Reg(6));
                asm.bin(Bin::Add, 0, 0, Src::Reg(even_b));
                // The infinite point counts in the last.
                for (power, &to) in results.iter().enumerate().skip(1) {
                    let (at_a, at_b) = if power % 2 == 0 { (6, even_b) } else { (7, odd_b) };
                    if power + 1 == results.len() {
                        asm.fma(FmaForm::F231, to, at_a, c(2 * power - 2));
                    } else {
                        asm.bin(Bin::Mul, to, at_a, c(2 * power - 2));
                    }
                    asm.fma(FmaForm::F231, to, at_b, c(2 * power - 1));
                }
            }
        }
        results
    }
}

/// Where results of a phase wait for those of the next.
const SUMS: VReg = 10;

impl Phase {
    /// Where the output's transform leaves its results.
    fn result_registers(self, outputs: usize) -> Vec<VReg> {
        match self.finite().len() {
            0 | 2 | 3 => (0..outputs as VReg).collect(),
            points => (0..outputs as VReg - 1).chain([points as VReg]).collect(),
        }
    }
}

impl Winograd {
    /// Where the output's transform leaves its results: as the last phase does that is no single tap.
    pub(super) fn result_registers(self) -> Vec<VReg> {
        let mut phases: Vec<Phase> = self.phases().collect();
        phases.retain(|p| p.taps > 1);
        phases.last().map_or_else(Vec::new, |p| p.result_registers(self.outputs()))
    }
}
