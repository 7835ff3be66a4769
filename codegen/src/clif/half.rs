//! f16 and bf16 to and from f32 in integer arithmetic, on scalars and vectors alike; Cranelift has no F16C. The results are those of the
//! runtime's `half.rs`.

use super::emit::Emit;
use cranelift::prelude::*;
use lehr_ir::DType;

impl Emit<'_, '_> {
    /// A loaded scalar: halves become f32, anything else stays.
    pub fn widen_half(&mut self, stored: DType, v: Value) -> Value {
        match stored {
            DType::F16 | DType::BF16 => {
                let bits = self.b.ins().uextend(types::I32, v);
                self.half_to_f32(stored, bits)
            }
            _ => v,
        }
    }

    /// Eight halves become two vectors of f32.
    pub fn widen_halves(&mut self, stored: DType, v: Value) -> [Value; 2] {
        let (low, high) = (self.b.ins().uwiden_low(v), self.b.ins().uwiden_high(v));
        [self.half_to_f32(stored, low), self.half_to_f32(stored, high)]
    }

    /// What is stored for a scalar of a computing type.
    pub fn narrow_half(&mut self, stored: DType, v: Value) -> Value {
        match stored {
            DType::F16 | DType::BF16 => {
                let bits = self.f32_to_half(stored, v);
                self.b.ins().ireduce(types::I16, bits)
            }
            _ => v,
        }
    }

    pub fn narrow_halves(&mut self, stored: DType, low: Value, high: Value) -> Value {
        let (low, high) = (self.f32_to_half(stored, low), self.f32_to_half(stored, high));
        self.b.ins().unarrow(low, high)
    }

    /// An f32, or a vector of them, rounded to what a half keeps.
    pub fn rounded_to_half(&mut self, half: DType, v: Value) -> Value {
        let bits = self.f32_to_half(half, v);
        self.half_to_f32(half, bits)
    }

    /// An i32 constant, in every lane of a vector.
    fn word(&mut self, t: Type, n: u32) -> Value {
        let v = self.b.ins().iconst(types::I32, n as i64);
        if t.is_vector() { self.b.ins().splat(t, v) } else { v }
    }

    fn half_to_f32(&mut self, stored: DType, bits: Value) -> Value {
        let t = self.b.func.dfg.value_type(bits);
        let float = if t.is_vector() { types::F32X4 } else { types::F32 };
        if stored == DType::BF16 {
            let bits = self.b.ins().ishl_imm_u(bits, 16);
            return self.cast_bits(float, bits);
        }
        let (sign_bit, magnitude_bits) = (self.word(t, 0x8000), self.word(t, 0x7fff));
        let sign = self.b.ins().band(bits, sign_bit);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let magnitude = self.b.ins().band(bits, magnitude_bits);
        // With the exponents' bias too small by 112; subnormals come out right as well.
        let small = self.b.ins().ishl_imm_u(magnitude, 13);
        let small = self.cast_bits(float, small);
        let two_to_112 = self.word(t, (112 + 127) << 23);
        let two_to_112 = self.cast_bits(float, two_to_112);
        let scaled = self.b.ins().fmul(small, two_to_112);
        let scaled = self.cast_bits(t, scaled);
        let largest = self.word(t, 0x7bff);
        let special = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, largest);
        let exponent = self.word(t, 0x7f80_0000);
        let infinite = self.b.ins().bor(scaled, exponent);
        let positive = self.choose(special, infinite, scaled);
        let result = self.b.ins().bor(positive, sign);
        self.cast_bits(float, result)
    }

    /// The half's 16 bits in an i32.
    fn f32_to_half(&mut self, stored: DType, v: Value) -> Value {
        let float = self.b.func.dfg.value_type(v);
        let t = if float.is_vector() { types::I32X4 } else { types::I32 };
        let bits = self.cast_bits(t, v);
        let high = self.b.ins().ushr_imm_u(bits, 16);
        let magnitude_bits = self.word(t, 0x7fff_ffff);
        let magnitude = self.b.ins().band(bits, magnitude_bits);
        let infinity = self.word(t, 0x7f80_0000);
        let nan = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, infinity);
        let one = self.word(t, 1);
        if stored == DType::BF16 {
            let (quiet_bit, below_half) = (self.word(t, 0x40), self.word(t, 0x7fff));
            let quiet = self.b.ins().bor(high, quiet_bit);
            let odd = self.b.ins().band(high, one);
            let up = self.b.ins().iadd(bits, below_half);
            let up = self.b.ins().iadd(up, odd);
            let rounded = self.b.ins().ushr_imm_u(up, 16);
            return self.choose(nan, quiet, rounded);
        }
        let sign_bit = self.word(t, 0x8000);
        let sign = self.b.ins().band(high, sign_bit);

        let (quiet_bits, payload_bits) = (self.word(t, 0x7e00), self.word(t, 0x3ff));
        let shifted = self.b.ins().ushr_imm_u(magnitude, 13);
        let payload = self.b.ins().band(shifted, payload_bits);
        let quiet = self.b.ins().bor(payload, quiet_bits);

        // Below 2^-14: adding 0.5 (whose last bit is worth 2^-24) leaves the rounded subnormal in the low bits.
        let half_bits = self.word(t, 0.5f32.to_bits());
        let half = self.cast_bits(float, half_bits);
        let as_float = self.cast_bits(float, magnitude);
        let sum = self.b.ins().fadd(as_float, half);
        let sum = self.cast_bits(t, sum);
        let subnormal = self.b.ins().isub(sum, half_bits);

        let (bias, below_half) = (self.word(t, 112 << 23), self.word(t, 0xfff));
        let rebased = self.b.ins().isub(magnitude, bias);
        let last = self.b.ins().ushr_imm_u(rebased, 13);
        let odd = self.b.ins().band(last, one);
        let up = self.b.ins().iadd(rebased, below_half);
        let up = self.b.ins().iadd(up, odd);
        let normal = self.b.ins().ushr_imm_u(up, 13);

        let (too_small, too_big) = (self.word(t, 0x3880_0000), self.word(t, 0x477f_ffff));
        let small = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, too_small);
        let big = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, too_big);
        let inf = self.word(t, 0x7c00);
        let result = self.choose(small, subnormal, normal);
        let result = self.choose(big, inf, result);
        let result = self.choose(nan, quiet, result);
        self.b.ins().bor(result, sign)
    }
}
