//! exp, expm1, log, log1p, tanh, erf, sin and cos of f32, in line, for scalars and vectors alike.
//!
//! Errors, measured by the tests against f64 over all magnitudes: at most 2 units in the last place. NaN,
//! infinities, zeros of both signs and subnormals come out as C99 wants them. The polynomials are minimax fits (Lawson's
//! iteration on Chebyshev points) for the ranges that the comments name. `fma` is used only where it is an instruction, so
//! results may differ in the last place between CPUs, never between the lanes and the remainder of a loop.

use super::emit::Emit;
use crate::kernel::UnOp;
use cranelift::prelude::*;

/// Whether [`emit`] has the function.
pub(super) fn is_inline(op: UnOp) -> bool {
    matches!(op, UnOp::Exp | UnOp::Expm1 | UnOp::Log | UnOp::Log1p | UnOp::Tanh | UnOp::Erf | UnOp::Sin | UnOp::Cos)
}

/// `op` of an f32 or f32x4.
pub(super) fn emit(e: &mut Emit, op: UnOp, x: Value) -> Value {
    let float = e.b.func.dfg.value_type(x);
    let mut m = Math { float, int: if float.is_vector() { types::I32X4 } else { types::I32 }, e };
    match op {
        UnOp::Exp => m.exp(x),
        UnOp::Expm1 => m.expm1(x),
        UnOp::Log => m.log(x),
        UnOp::Log1p => m.log1p(x),
        UnOp::Tanh => m.tanh(x),
        UnOp::Erf => m.erf(x),
        UnOp::Sin | UnOp::Cos => m.sin_cos(op, x),
        other => unreachable!("{other:?} is not in line"),
    }
}

struct Math<'m, 'a, 'f> {
    e: &'m mut Emit<'a, 'f>,
    float: Type,
    int: Type,
}

pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 with 15 bits, so that its products with exponents are exact, and what is missing.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Added and taken away, it rounds to an integer, which is then in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2.
pub(crate) const EXP: [u32; 6] = [0x3f000000, 0x3e2aaaab, 0x3d2aaa56, 0x3c088848, 0x3ab6baf9, 0x3950cfd8];
/// (log(1 + f) - f + f^2/2) / f^3 for sqrt(1/2) <= 1 + f <= sqrt(2).
pub(crate) const LOG: [u32; 9] =
    [0x3eaaaaa3, 0xbe7ffff6, 0x3e4cd2c2, 0xbe2ab1b8, 0x3e1196e4, 0xbdfd9453, 0x3df3427b, 0xbdf1d330, 0x3d8dd77b];
/// tanh(x) / x in x^2 for |x| <= 0.625, without its first term, 1.
pub(crate) const TANH: [u32; 6] = [0xbeaaaaa9, 0x3e088824, 0xbd5cf51e, 0x3cb1b30c, 0xbc05adcd, 0x3b0b7e6c];
/// erf(x) / x in x^2 for |x| <= 0.921875.
pub(crate) const ERF: [u32; 7] = [0x3f906ebb, 0xbec093a2, 0x3de71710, 0xbcdc083e, 0x3baa6d6c, 0xba5574c2, 0x38af889e];
/// log(1 - erf(x)) for 0.921875 <= x <= 4.
pub(crate) const ERF_TAIL: [u32; 7] =
    [0xb95c1c3b, 0xbf9055b4, 0xbf232529, 0xbdd4a97f, 0x3cb5b5c6, 0xbb46add6, 0x394c31ad];

impl Math<'_, '_, '_> {
    fn f(&mut self, v: f32) -> Value {
        let v = self.e.b.ins().f32const(v);
        if self.float.is_vector() { self.e.b.ins().splat(self.float, v) } else { v }
    }

    fn i(&mut self, v: i32) -> Value {
        let v = self.e.b.ins().iconst(types::I32, v as u32 as i64);
        if self.int.is_vector() { self.e.b.ins().splat(self.int, v) } else { v }
    }

    fn as_int(&mut self, v: Value) -> Value {
        self.e.cast_bits(self.int, v)
    }

    fn as_float(&mut self, v: Value) -> Value {
        self.e.cast_bits(self.float, v)
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        self.e.b.ins().fadd(a, b)
    }

    fn sub(&mut self, a: Value, b: Value) -> Value {
        self.e.b.ins().fsub(a, b)
    }

    fn mul(&mut self, a: Value, b: Value) -> Value {
        self.e.b.ins().fmul(a, b)
    }

    /// a * b + c, with one rounding where that is an instruction.
    fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.e.target.fma {
            return self.e.b.ins().fma(a, b, c);
        }
        let product = self.mul(a, b);
        self.add(product, c)
    }

    /// By Horner's rule, the constant term first.
    fn polynomial(&mut self, x: Value, coefficients: &[u32]) -> Value {
        let (&last, rest) = coefficients.split_last().expect("a polynomial has terms");
        let mut sum = self.f(f32::from_bits(last));
        for &c in rest.iter().rev() {
            let c = self.f(f32::from_bits(c));
            sum = self.mul_add(sum, x, c);
        }
        sum
    }

    fn less(&mut self, a: Value, b: Value) -> Value {
        self.e.b.ins().fcmp(FloatCC::LessThan, a, b)
    }

    fn choose(&mut self, cond: Value, a: Value, b: Value) -> Value {
        self.e.choose(cond, a, b)
    }

    /// Limits x to low..=high; NaN stays.
    fn clamp(&mut self, x: Value, low: f32, high: f32) -> Value {
        let (low, high) = (self.f(low), self.f(high));
        let below = self.less(x, low);
        let x = self.choose(below, low, x);
        let above = self.less(high, x);
        self.choose(above, high, x)
    }

    /// x = k ln 2 + r: k as a float and as an integer, and r.
    fn reduce(&mut self, x: Value) -> (Value, Value, Value) {
        let (log2_e, rounder) = (self.f(LOG2_E), self.f(ROUNDER));
        let scaled = self.mul(x, log2_e);
        let shifted = self.add(scaled, rounder);
        let k = self.sub(shifted, rounder);
        let (bits, zero) = (self.as_int(shifted), self.as_int(rounder));
        let int = self.e.b.ins().isub(bits, zero);
        // Exact products, so the same with and without fma.
        let high = self.f(LN2_HIGH);
        let part = self.mul(k, high);
        let r = self.sub(x, part);
        let low = self.f(-LN2_LOW);
        let r = self.mul_add(k, low, r);
        (k, int, r)
    }

    /// exp(r) - 1 for |r| <= ln(2)/2.
    fn small_expm1(&mut self, r: Value) -> Value {
        let q = self.polynomial(r, &EXP);
        let square = self.mul(r, r);
        self.mul_add(square, q, r)
    }

    /// 2^k for -126 <= k <= 127.
    fn power_of_two(&mut self, k: Value) -> Value {
        let bias = self.i(127);
        let biased = self.e.b.ins().iadd(k, bias);
        let bits = self.e.b.ins().ishl_imm_u(biased, 23);
        self.as_float(bits)
    }

    fn exp(&mut self, x: Value) -> Value {
        // Beyond these it is 0 or infinite, by the two factors below.
        let x = self.clamp(x, -104.0, 89.0);
        let (_, k, r) = self.reduce(x);
        let p = self.small_expm1(r);
        let one = self.f(1.0);
        let y = self.add(p, one);
        // 2^k in two steps: k reaches from -150 to 128.
        let half = self.e.b.ins().sshr_imm_u(k, 1);
        let rest = self.e.b.ins().isub(k, half);
        let (a, b) = (self.power_of_two(half), self.power_of_two(rest));
        let y = self.mul(y, a);
        self.mul(y, b)
    }

    fn expm1(&mut self, x: Value) -> Value {
        let limited = self.clamp(x, -18.0, 89.0);
        let (_, k, r) = self.reduce(limited);
        let p = self.small_expm1(r);
        // 2 ((s - 1/2) + s p) with s = 2^(k-1), which is finite even where the result is not.
        let one = self.i(1);
        let k = self.e.b.ins().isub(k, one);
        let s = self.power_of_two(k);
        let half = self.f(0.5);
        let head = self.sub(s, half);
        let sum = self.mul_add(s, p, head);
        let result = self.add(sum, sum);
        self.keep_tiny(x, result)
    }

    /// x itself where it is so small that f(x) = x, which also keeps the sign of zero.
    fn keep_tiny(&mut self, x: Value, result: Value) -> Value {
        let magnitude = self.e.b.ins().fabs(x);
        let limit = self.f(1e-10);
        let tiny = self.less(magnitude, limit);
        self.choose(tiny, x, result)
    }

    fn log(&mut self, x: Value) -> Value {
        let zero = self.f(0.0);
        self.log_sum(x, zero)
    }

    fn log1p(&mut self, x: Value) -> Value {
        let one = self.f(1.0);
        let u = self.add(x, one);
        // What the addition lost. For large x (and infinities) it is of no weight.
        let back = self.sub(u, one);
        let lost = self.sub(x, back);
        let (big, zero) = (self.f(1e8), self.f(0.0));
        let small = self.less(x, big);
        let lost = self.choose(small, lost, zero);
        let result = self.log_sum(u, lost);
        self.keep_tiny(x, result)
    }

    /// log(u + c), with c below the last place of u.
    fn log_sum(&mut self, u: Value, c: Value) -> Value {
        // Subnormals are scaled to be normal.
        let (smallest, up) = (self.f(f32::MIN_POSITIVE), self.f(8_388_608.0));
        let subnormal = self.less(u, smallest);
        let scaled = self.mul(u, up);
        let v = self.choose(subnormal, scaled, u);
        let (shift, none) = (self.i(23), self.i(0));
        let shift = self.choose_int(subnormal, shift, none);

        // v = 2^k m with sqrt(1/2) <= m < sqrt(2).
        let bits = self.as_int(v);
        let root_half = self.i(0x3f35_04f3);
        let above = self.e.b.ins().isub(bits, root_half);
        let k = self.e.b.ins().sshr_imm_u(above, 23);
        let exponent = self.e.b.ins().ishl_imm_u(k, 23);
        let mantissa = self.e.b.ins().isub(bits, exponent);
        let mantissa = self.as_float(mantissa);
        let one = self.f(1.0);
        let f = self.sub(mantissa, one);
        // c 2^-k: k is small where c is not zero.
        let scale = self.i(0x3f80_0000);
        let scale = self.e.b.ins().isub(scale, exponent);
        let scale = self.as_float(scale);
        let (zero, is) = (self.f(0.0), self.e.b.ins());
        let exact = is.fcmp(FloatCC::Equal, c, zero);
        let c = self.mul(c, scale);
        let c = self.choose(exact, zero, c);
        let f = self.add(f, c);

        let k = self.e.b.ins().isub(k, shift);
        let k = self.e.b.ins().fcvt_from_sint(self.float, k);
        let p = self.polynomial(f, &LOG);
        let square = self.mul(f, f);
        let cube = self.mul(square, f);
        let (low, minus_half, high) = (self.f(LN2_LOW), self.f(-0.5), self.f(LN2_HIGH));
        let tail = self.mul(k, low);
        let tail = self.mul_add(cube, p, tail);
        let tail = self.mul_add(square, minus_half, tail);
        let sum = self.add(f, tail);
        let head = self.mul(k, high);
        let result = self.add(head, sum);

        let (infinity, nan, minus) = (self.f(f32::INFINITY), self.f(f32::NAN), self.f(f32::NEG_INFINITY));
        // Infinity and NaN give themselves.
        let finite = self.less(u, infinity);
        let result = self.choose(finite, result, u);
        let negative = self.less(u, zero);
        let result = self.choose(negative, nan, result);
        let is_zero = self.e.b.ins().fcmp(FloatCC::Equal, u, zero);
        self.choose(is_zero, minus, result)
    }

    fn choose_int(&mut self, cond: Value, a: Value, b: Value) -> Value {
        self.e.choose(cond, a, b)
    }

    fn tanh(&mut self, x: Value) -> Value {
        let a = self.e.b.ins().fabs(x);
        let square = self.mul(x, x);
        let p = self.polynomial(square, &TANH);
        let p = self.mul(p, square);
        let near = self.mul_add(p, x, x);
        // 1 - 2 / (exp(2a) + 1), which is 1 from 9.02 on.
        let limited = self.clamp(a, 0.0, 10.0);
        let twice = self.add(limited, limited);
        let e = self.exp(twice);
        let (one, two, border) = (self.f(1.0), self.f(2.0), self.f(0.625));
        let sum = self.add(e, one);
        let part = self.e.b.ins().fdiv(two, sum);
        let far = self.sub(one, part);
        let small = self.less(a, border);
        let result = self.choose(small, near, far);
        self.with_sign(result, x)
    }

    /// A value that is positive or has the sign wanted already.
    fn with_sign(&mut self, magnitude: Value, sign: Value) -> Value {
        let bit = self.i(i32::MIN);
        let sign = self.as_int(sign);
        let sign = self.e.b.ins().band(sign, bit);
        let bits = self.as_int(magnitude);
        let bits = self.e.b.ins().bor(bits, sign);
        self.as_float(bits)
    }

    fn erf(&mut self, x: Value) -> Value {
        let a = self.e.b.ins().fabs(x);
        let square = self.mul(x, x);
        let p = self.polynomial(square, &ERF);
        let near = self.mul(p, x);
        // 1 - exp(q): from 4 on that is 1.
        let limited = self.clamp(a, 0.0, 4.0);
        let q = self.polynomial(limited, &ERF_TAIL);
        let tail = self.exp(q);
        let (one, border) = (self.f(1.0), self.f(0.921_875));
        let far = self.sub(one, tail);
        let far = self.with_sign(far, x);
        let small = self.less(a, border);
        self.choose(small, near, far)
    }

    /// In f64, which makes the reduction by pi/2 and the result right but for rounding. Arguments beyond 10^6 go to the runtime.
    fn sin_cos(&mut self, op: UnOp, x: Value) -> Value {
        let near = match self.float.is_vector() {
            false => {
                let wide = self.e.b.ins().fpromote(types::F64, x);
                let y = self.sin_cos_f64(op, wide);
                self.e.b.ins().fdemote(types::F32, y)
            }
            true => {
                let high = self.e.high_half(x);
                let (low, high) = (self.e.b.ins().fvpromote_low(x), self.e.b.ins().fvpromote_low(high));
                let (low, high) = (self.sin_cos_f64(op, low), self.sin_cos_f64(op, high));
                let (low, high) = (self.e.b.ins().fvdemote(low), self.e.b.ins().fvdemote(high));
                self.e.low_halves(low, high)
            }
        };
        let limit = self.f(1e6);
        let magnitude = self.e.b.ins().fabs(x);
        let large = self.less(limit, magnitude);
        let (cold, join) = (self.e.b.create_block(), self.e.b.create_block());
        let result = self.e.b.append_block_param(join, self.float);
        let any = if self.float.is_vector() { self.e.b.ins().vany_true(large) } else { large };
        self.e.b.ins().brif(any, cold, &[], join, &[near.into()]);
        self.e.b.seal_block(cold);
        self.e.b.set_cold_block(cold);
        self.e.b.switch_to_block(cold);
        let name = if op == UnOp::Sin { "lehr_rt_sin_f64" } else { "lehr_rt_cos_f64" };
        let far = self.call_lanes(name, x);
        let far = self.choose(large, far, near);
        self.e.b.ins().jump(join, &[far.into()]);
        self.e.b.seal_block(join);
        self.e.b.switch_to_block(join);
        result
    }

    fn call_lanes(&mut self, name: &str, x: Value) -> Value {
        if !self.float.is_vector() {
            return self.e.call_in_f64(name, lehr_ir::DType::F32, &[x]);
        }
        let mut result = x;
        for k in 0..4 {
            let lane = self.e.b.ins().extractlane(x, k);
            let y = self.e.call_in_f64(name, lehr_ir::DType::F32, &[lane]);
            result = self.e.b.ins().insertlane(result, y, k);
        }
        result
    }

    /// For |x| <= 10^6, to about 2^-45.
    fn sin_cos_f64(&mut self, op: UnOp, x: Value) -> Value {
        let t = self.e.b.func.dfg.value_type(x);
        let int = if t.is_vector() { types::I64X2 } else { types::I64 };
        let mut wide = |v: f64| {
            let v = self.e.b.ins().f64const(v);
            if t.is_vector() { self.e.b.ins().splat(t, v) } else { v }
        };
        // pi/2 in a part of 33 bits, whose products with k are exact, and the rest.
        let (two_by_pi, rounder) = (wide(std::f64::consts::FRAC_2_PI), wide(6_755_399_441_055_744.0));
        let (high, low) = (wide(f64::from_bits(0x3ff9_21fb_5440_0000)), wide(f64::from_bits(0x3dd0_b461_1a62_6331)));
        // Taylor series for |r| <= pi/4.
        let sine =
            [1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0, -1.0 / 39_916_800.0, 1.0 / 6_227_020_800.0];
        let cosine = [1.0, -0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0, -1.0 / 3_628_800.0, 1.0 / 479_001_600.0];
        let (sine, cosine) = (sine.map(&mut wide), cosine.map(&mut wide));
        let scaled = self.mul(x, two_by_pi);
        let shifted = self.add(scaled, rounder);
        let k = self.sub(shifted, rounder);
        let quadrant = self.e.cast_bits(int, shifted);
        let part = self.mul(k, high);
        let r = self.sub(x, part);
        let part = self.mul(k, low);
        let r = self.sub(r, part);
        let square = self.mul(r, r);
        let horner = |m: &mut Self, c: &[Value; 7]| {
            c[..6].iter().rev().fold(c[6], |sum, &c| {
                let product = m.mul(sum, square);
                m.add(product, c)
            })
        };
        let sin = horner(self, &sine);
        let sin = self.mul(sin, r);
        let cos = horner(self, &cosine);
        // Quadrant: the last bit swaps sine and cosine, the one before is the sign.
        let mut word = |v: i64| {
            let v = self.e.b.ins().iconst(types::I64, v);
            if t.is_vector() { self.e.b.ins().splat(int, v) } else { v }
        };
        let (one, zero) = (word(1), word(0));
        let quadrant = if op == UnOp::Sin { quadrant } else { self.e.b.ins().iadd(quadrant, one) };
        let odd = self.e.b.ins().band(quadrant, one);
        let even = self.e.b.ins().icmp(IntCC::Equal, odd, zero);
        let y = self.choose(even, sin, cos);
        let half = self.e.b.ins().ushr_imm_u(quadrant, 1);
        let sign = self.e.b.ins().ishl_imm_u(half, 63);
        let bits = self.e.cast_bits(int, y);
        let bits = self.e.b.ins().bxor(bits, sign);
        self.e.cast_bits(t, bits)
    }
}
