//! Trigonometric and hyperbolic functions of a vector program, and their inverses.
//!
//! ```text
//! sin    |x| = n pi + r             (-1)^n sin(r)         pi in three parts, below 2^17
//! cos    |x| = (n - 1/2) pi + r     likewise
//! asin   pi/2 - 2 asin(sqrt((1 - |x|)/2))   above 1/2
//! atan   pi/4 + atan((|x| - 1)/(|x| + 1))   above tan(pi/8);   pi/2 - atan(1/|x|)   above tan(3 pi/8)
//! ```
//!
//! The polynomials were fitted as in [`vmath`](super::vmath). From 2^17 on an angle is reduced exactly, lane by lane
//! ([`angle`](super::angle)), so that sine and cosine are right for every finite number.

use super::asm::{Bin, Pred, Un};
use super::vprog::{VProg, Val};
use std::f32::consts::{FRAC_1_PI, FRAC_PI_2, FRAC_PI_4, LN_2, PI};

/// pi = PI + PI_MIDDLE + PI_LOW; a fused `|x| - n * PI` is exact.
const PI_MIDDLE: f32 = -8.742_278e-8;
const PI_LOW: f32 = -3.430_249e-15;
/// PI_MIDDLE / PI: what pi, and its half and quarter, lack.
const PI_LACKS: f32 = -2.782_753_5e-8;
/// Angles from here on are reduced exactly.
pub(super) const HUGE_ANGLE: f32 = 131_072.0;

/// (sin(r) - r) / r^3 in r^2, |r| <= 1.585; relative error of sin 4.6e-10.
const SIN: [f32; 5] = [-0.166_666_67, 0.008_333_350_5, -0.000_198_430_93, 2.762_703_8e-6, -2.550_207_2e-8];
/// (asin(x) - x) / x^3 in x^2, |x| <= 1/2; error 2.9e-10.
const ASIN: [f32; 6] = [0.166_666_6, 0.075_005_22, 0.044_513_352, 0.031_839_523, 0.014_312_173, 0.037_702_12];
/// (atan(x) - x) / x^3 in x^2, |x| <= tan(pi/8); error 7.0e-10.
const ATAN: [f32; 5] = [-0.333_333_16, 0.199_985_28, -0.142_443_93, 0.105_991_91, -0.060_901_34];
const TAN_PI_8: f32 = 0.414_213_57;
const TAN_3_PI_8: f32 = 2.414_213_7;
/// (sinh(x) - x) / x^3 in x^2, |x| <= 1; error 3.1e-10.
const SINH: [f32; 4] = [0.166_666_67, 0.008_333_310_5, 0.000_198_428_96, 2.782_213_2e-6];
/// From here on x^2 + 1 is x^2 in f32.
const SQUARE_IS_ALL: f32 = 268_435_456.0;

impl VProg {
    /// `x + x^3 p(x^2)`.
    fn odd(&mut self, x: Val, coefficients: &[f32]) -> Val {
        let x2 = self.mul(x, x);
        let q = self.horner(x2, coefficients);
        let x3 = self.mul(x2, x);
        self.fma(x3, q, x)
    }

    /// `y >= 0` with the sign of `x`.
    fn with_sign(&mut self, y: Val, x: Val) -> Val {
        let sign = self.bits(0x8000_0000);
        let sign = self.bin(Bin::And, x, sign);
        self.bin(Bin::Or, y, sign)
    }

    /// `(-1)^n sin(a - (n - before) pi)` for `a >= 0` and the nearest such multiple; `huge` does it for large angles.
    fn half_turns(&mut self, a: Val, before: f32, huge: Un) -> Val {
        let (inverse, offset) = (self.constant(FRAC_1_PI), self.constant(before));
        let n = self.fma(a, inverse, offset);
        let n = self.round(n);
        let turns = self.sub(n, offset);
        let mut r = a;
        for part in [PI, PI_MIDDLE, PI_LOW] {
            let part = self.constant(-part);
            r = self.fma(turns, part, r);
        }
        let parity = self.un(Un::ToInt, n);
        let parity = self.un(Un::ShiftLeft(31), parity);
        let r = self.bin(Bin::Xor, r, parity);
        let (bound, exact) = (self.constant(HUGE_ANGLE), self.un(huge, a));
        let r = self.select(Pred::Ge, a, bound, exact, r);
        self.odd(r, &SIN)
    }

    /// Sine, within 2 ulps; NaN of an infinity.
    pub fn sin(&mut self, x: Val) -> Val {
        let a = self.abs(x);
        let y = self.half_turns(a, 0.0, Un::HugeSine);
        let sign = self.bits(0x8000_0000);
        let sign = self.bin(Bin::And, x, sign);
        self.bin(Bin::Xor, y, sign)
    }

    /// Cosine, within 2 ulps; NaN of an infinity.
    pub fn cos(&mut self, x: Val) -> Val {
        let a = self.abs(x);
        self.half_turns(a, 0.5, Un::HugeCosine)
    }

    /// Tangent, within 4 ulps.
    pub fn tan(&mut self, x: Val) -> Val {
        let (sin, cos) = (self.sin(x), self.cos(x));
        self.div(sin, cos)
    }

    /// Arc sine of `t`: the magnitude `a` up to 1/2, else the root of (1 - a)/2. NaN for `a > 1`.
    fn near_arc(&mut self, a: Val) -> Val {
        let (half, minus_half) = (self.constant(0.5), self.constant(-0.5));
        let rest = self.fma(a, minus_half, half);
        let root = self.sqrt(rest);
        let t = self.select(Pred::Le, a, half, a, root);
        self.odd(t, &ASIN)
    }

    /// Arc sine, within 2.5 ulps; NaN outside of [-1, 1].
    pub fn asin(&mut self, x: Val) -> Val {
        let (half, minus_two) = (self.constant(0.5), self.constant(-2.0));
        let (right, lacks) = (self.constant(FRAC_PI_2), self.constant(FRAC_PI_2 * PI_LACKS));
        let a = self.abs(x);
        let arc = self.near_arc(a);
        let far = self.fma(arc, minus_two, lacks);
        let far = self.add(far, right);
        let y = self.select(Pred::Le, a, half, arc, far);
        self.with_sign(y, x)
    }

    /// Arc cosine, within 1.5 ulps; NaN outside of [-1, 1].
    pub fn acos(&mut self, x: Val) -> Val {
        let (zero, half, two, minus_two) =
            (self.constant(0.0), self.constant(0.5), self.constant(2.0), self.constant(-2.0));
        let (right, right_lacks) = (self.constant(FRAC_PI_2), self.constant(FRAC_PI_2 * PI_LACKS));
        let (straight, straight_lacks) = (self.constant(PI), self.constant(PI_MIDDLE));
        let a = self.abs(x);
        let arc = self.near_arc(a);
        let signed = self.with_sign(arc, x);
        let near = self.sub(right_lacks, signed);
        let near = self.add(near, right);
        let right_end = self.mul(arc, two);
        let left_end = self.fma(arc, minus_two, straight_lacks);
        let left_end = self.add(left_end, straight);
        let far = self.select(Pred::Lt, x, zero, left_end, right_end);
        self.select(Pred::Le, a, half, near, far)
    }

    /// Arc tangent, within 2 ulps.
    pub fn atan(&mut self, x: Val) -> Val {
        let (zero, one, minus_one) = (self.constant(0.0), self.constant(1.0), self.constant(-1.0));
        let (low, high) = (self.constant(TAN_PI_8), self.constant(TAN_3_PI_8));
        let (quarter, right) = (self.constant(FRAC_PI_4), self.constant(FRAC_PI_2));
        let a = self.abs(x);
        let (less, more) = (self.sub(a, one), self.add(a, one));
        let mut choose = |near: Val, middle: Val, far: Val| {
            let y = self.select(Pred::Gt, a, low, middle, near);
            self.select(Pred::Gt, a, high, far, y)
        };
        let base = choose(zero, quarter, right);
        let (top, bottom) = (choose(a, less, minus_one), choose(one, more, a));
        let t = self.div(top, bottom);
        let arc = self.odd(t, &ATAN);
        let lacks = self.constant(PI_LACKS);
        let y = self.fma(base, lacks, arc);
        let y = self.add(y, base);
        self.with_sign(y, x)
    }

    /// e^a / 2 for `a >= 0`; infinite from 89.42 on.
    fn half_exp(&mut self, a: Val) -> Val {
        let (n, p) = self.exp_parts(a);
        let one = self.constant(1.0);
        let (n, p) = (self.sub(n, one), self.add(p, one));
        self.bin(Bin::Scale, p, n)
    }

    /// Hyperbolic sine, within 2 ulps; infinite beyond 89.42.
    pub fn sinh(&mut self, x: Val) -> Val {
        let (quarter, one) = (self.constant(0.25), self.constant(1.0));
        let a = self.abs(x);
        let near = self.odd(a, &SINH);
        let e = self.half_exp(a);
        let small = self.div(quarter, e);
        let far = self.sub(e, small);
        let y = self.select(Pred::Lt, a, one, near, far);
        self.with_sign(y, x)
    }

    /// Hyperbolic cosine, within 2 ulps; infinite beyond 89.42.
    pub fn cosh(&mut self, x: Val) -> Val {
        let quarter = self.constant(0.25);
        let a = self.abs(x);
        let e = self.half_exp(a);
        let small = self.div(quarter, e);
        self.add(e, small)
    }

    /// ln(1 + small), or ln 2 + ln(1 + a) where `a` is so large that its square is all that counts.
    fn log_of_root(&mut self, a: Val, small: Val) -> Val {
        let (bound, zero, ln_2) = (self.constant(SQUARE_IS_ALL), self.constant(0.0), self.constant(LN_2));
        let t = self.select(Pred::Ge, a, bound, a, small);
        let more = self.select(Pred::Ge, a, bound, ln_2, zero);
        let log = self.log1p(t);
        self.add(log, more)
    }

    /// Inverse hyperbolic sine, within 2.5 ulps: ln(1 + a + a^2/(1 + sqrt(a^2 + 1))).
    pub fn asinh(&mut self, x: Val) -> Val {
        let one = self.constant(1.0);
        let a = self.abs(x);
        let a2 = self.mul(a, a);
        let root = self.add(a2, one);
        let root = self.sqrt(root);
        let bottom = self.add(root, one);
        let rest = self.div(a2, bottom);
        let small = self.add(a, rest);
        let y = self.log_of_root(a, small);
        self.with_sign(y, x)
    }

    /// Inverse hyperbolic cosine, within 2.5 ulps: ln(1 + t + sqrt(2t + t^2)) with t = x - 1; NaN below 1.
    pub fn acosh(&mut self, x: Val) -> Val {
        let (one, two) = (self.constant(1.0), self.constant(2.0));
        let t = self.sub(x, one);
        let root = self.add(t, two);
        let root = self.mul(root, t);
        let root = self.sqrt(root);
        let small = self.add(t, root);
        let y = self.log_of_root(x, small);
        let nan = self.bits(f32::NAN.to_bits());
        self.select(Pred::Lt, x, one, nan, y)
    }

    /// Inverse hyperbolic tangent, within 2.5 ulps: ln(1 + 2a/(1 - a))/2; NaN outside of [-1, 1].
    pub fn atanh(&mut self, x: Val) -> Val {
        let (half, one) = (self.constant(0.5), self.constant(1.0));
        let a = self.abs(x);
        let (twice, bottom) = (self.add(a, a), self.sub(one, a));
        let t = self.div(twice, bottom);
        let log = self.log1p(t);
        let y = self.mul(log, half);
        self.with_sign(y, x)
    }
}

/// What the half and quarter of pi lack is the same share of them.
const _: () = assert!((PI * PI_LACKS - PI_MIDDLE).abs() < 1e-14);
