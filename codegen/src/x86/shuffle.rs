//! Instructions that move lanes, in the width of the [`Isa`].

use super::Isa;
use super::asm::{Asm, Src, VReg};
use iced_x86::{Code, Instruction};

impl Asm {
    /// In each part of four lanes: the lower (or upper) halves of `a` and `b` lane by lane, or pair by pair.
    pub fn interleave(&mut self, d: VReg, a: VReg, b: VReg, pairs: bool, upper: bool) {
        let code = match (pairs, upper) {
            (false, false) => {
                self.by_isa(Code::EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vunpcklps_ymm_ymm_ymmm256)
            }
            (false, true) => {
                self.by_isa(Code::EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vunpckhps_ymm_ymm_ymmm256)
            }
            (true, false) => {
                self.by_isa(Code::EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64, Code::VEX_Vunpcklpd_ymm_ymm_ymmm256)
            }
            (true, true) => {
                self.by_isa(Code::EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64, Code::VEX_Vunpckhpd_ymm_ymm_ymmm256)
            }
        };
        self.three(code, d, a, Src::Reg(b));
    }

    /// Two halves of `a` and `b`, AVX2 only.
    pub fn permute_halves(&mut self, d: VReg, a: VReg, b: VReg, which: u32) {
        let (d, a, b) = (self.v(d), self.v(a), self.v(b));
        self.try_push(Instruction::with4(Code::VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, d, a, b, which));
    }

    /// Two quarters of `a`, two of `b`, AVX-512 only.
    pub fn shuffle_quarters(&mut self, d: VReg, a: VReg, b: VReg, which: u32) {
        let (d, a, b) = (self.v(d), self.v(a), self.v(b));
        self.try_push(Instruction::with4(Code::EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8, d, a, b, which));
    }

    /// The lanes of `high` behind those of `low`, from lane `first` of `low` on; at most half the lanes are passed over or kept.
    /// With AVX2, `d` must be neither.
    pub fn align(&mut self, d: VReg, high: VReg, low: VReg, first: u32) {
        let (vd, vh, vl) = (self.v(d), self.v(high), self.v(low));
        if self.isa == Isa::Avx512 {
            let code = Code::EVEX_Valignd_zmm_k1z_zmm_zmmm512b32_imm8;
            return self.try_push(Instruction::with4(code, vd, vh, vl, first));
        }
        // The upper half of `low` and the lower half of `high` are what shifts within halves lack.
        self.permute_halves(d, low, high, 0x21);
        let (upper, lower, shift) = if first <= 4 { (vd, vl, 4 * first) } else { (vh, vd, 4 * first - 16) };
        self.try_push(Instruction::with4(Code::VEX_Vpalignr_ymm_ymm_ymmm256_imm8, vd, upper, lower, shift));
    }
}

/// Transposes the square in the first registers; gives the registers of the result's rows. Uses as many registers again, which
/// with AVX2 includes that of a mask.
pub(super) fn transpose(asm: &mut Asm) -> Vec<VReg> {
    let lanes = asm.isa.lanes() as VReg;
    let mut from: Vec<VReg> = (0..lanes).collect();
    let mut to: Vec<VReg> = (lanes..2 * lanes).collect();
    // Within quarters (halves with AVX2): pairs of rows, then pairs of pairs.
    for i in (0..usize::from(lanes)).step_by(2) {
        asm.interleave(to[i], from[i], from[i + 1], false, false);
        asm.interleave(to[i + 1], from[i], from[i + 1], false, true);
    }
    std::mem::swap(&mut from, &mut to);
    for i in (0..usize::from(lanes)).step_by(4) {
        asm.interleave(to[i], from[i], from[i + 2], true, false);
        asm.interleave(to[i + 1], from[i], from[i + 2], true, true);
        asm.interleave(to[i + 2], from[i + 1], from[i + 3], true, false);
        asm.interleave(to[i + 3], from[i + 1], from[i + 3], true, true);
    }
    std::mem::swap(&mut from, &mut to);
    // Register 4g + j now holds, in its q-th part of four lanes, column 4q + j of rows 4g .. 4g + 4.
    match asm.isa {
        Isa::Avx2 => {
            for j in 0..4 {
                asm.permute_halves(to[j], from[j], from[4 + j], 0x20);
                asm.permute_halves(to[4 + j], from[j], from[4 + j], 0x31);
            }
        }
        Isa::Avx512 => {
            for j in 0..4 {
                // Even and odd parts of two registers: 0 2 0 2 and 1 3 1 3.
                asm.shuffle_quarters(to[j], from[j], from[4 + j], 0x88);
                asm.shuffle_quarters(to[4 + j], from[j], from[4 + j], 0xdd);
                asm.shuffle_quarters(to[8 + j], from[8 + j], from[12 + j], 0x88);
                asm.shuffle_quarters(to[12 + j], from[8 + j], from[12 + j], 0xdd);
            }
            std::mem::swap(&mut from, &mut to);
            for j in 0..4 {
                // `from[j]` is parts 0 and 2 of the first eight rows, `from[8 + j]` of the others; `from[4 + j]` parts 1 and 3.
                asm.shuffle_quarters(to[j], from[j], from[8 + j], 0x88);
                asm.shuffle_quarters(to[8 + j], from[j], from[8 + j], 0xdd);
                asm.shuffle_quarters(to[4 + j], from[4 + j], from[12 + j], 0x88);
                asm.shuffle_quarters(to[12 + j], from[4 + j], from[12 + j], 0xdd);
            }
        }
    }
    to
}
