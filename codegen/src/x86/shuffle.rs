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
