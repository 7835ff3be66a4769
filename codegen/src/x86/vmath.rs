//! Functions composed from the primitives of a vector program: exponentials, logarithms, error function and the activations.
//! [`vtrig`](super::vtrig) has sines, hyperbolic functions and inverses.
//!
//! The polynomials were fitted here (minimax, iteratively reweighted least squares on 4,000 Chebyshev nodes); the tests measure
//! and bound the error of each function. NaN goes through every function but those whose definition drops it. They assume
//! that denormals are not flushed.

use super::asm::{Bin, Pred, Un};
use super::vprog::{VProg, Val};
use std::f32::consts::{LN_2, LOG2_E};

/// ln 2 = HI + LO, where n * HI is exact for |n| < 2^9.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, lowest power first; relative error of e^r 3.1e-9.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_406, 0.008_368_899, 0.001_381_422_2];

/// Ulps are 1 here, so that adding a small number rounds it to an integer.
const ULP_1: f32 = 12_582_912.0;

/// (ln(1+f) - f + f^2/2) / f^3 for sqrt(1/2) <= 1+f <= sqrt(2); error 7.3e-10 after multiplication by f^2.
const LOG: [f32; 9] = [
    0.333_333_1,
    -0.249_999_87,
    0.200_022_27,
    -0.166_692_5,
    0.142_186_56,
    -0.123_843_685,
    0.118_730_13,
    -0.117_897_05,
    0.069_151_655,
];

/// erf(x)/x - 1 as a polynomial in x^2 <= 1; error 1.1e-9.
const ERF_NEAR: [f32; 7] =
    [0.128_379_17, -0.376_126_27, 0.112_836, -0.026_854_445, 0.005_189_535_5, -8.020_842e-4, 7.889_123e-5];

/// ln(erfc(x)) for 0.95 <= x <= 4; error 1.3e-9 as it shows in erf.
const LN_ERFC: [f32; 7] =
    [-2.447_225e-4, -1.127_474_9, -0.637_517_1, -0.103_640_266, 0.022_087_61, -0.003_008_529, 1.924_251_7e-4];

/// e^x / 2 is infinite above the one and e^x rounds to zero below the other.
const EXP_MOST: f32 = 90.0;
const EXP_LEAST: f32 = -104.0;

impl VProg {
    /// The polynomial with these coefficients, lowest power first.
    pub(super) fn horner(&mut self, x: Val, coefficients: &[f32]) -> Val {
        let mut rest = coefficients.iter().rev();
        let Some(top) = rest.next() else { return self.constant(0.0) };
        let mut sum = self.constant(*top);
        for c in rest {
            let c = self.constant(*c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    fn clamp(&mut self, x: Val, least: f32, most: f32) -> Val {
        let (least, most) = (self.constant(least), self.constant(most));
        let x = self.max(least, x);
        self.min(most, x)
    }

    /// x = n ln 2 + r; gives n and e^r - 1.
    pub(super) fn exp_parts(&mut self, x: Val) -> (Val, Val) {
        let x = self.clamp(x, EXP_LEAST, EXP_MOST);
        self.exp_parts_within(x)
    }

    /// Likewise for what needs no clamp.
    fn exp_parts_within(&mut self, x: Val) -> (Val, Val) {
        let (n, r, q) = self.exp_reduced(x);
        let r2 = self.mul(r, r);
        (n, self.fma(r2, q, r))
    }

    /// x = n ln 2 + r; gives n, r and (e^r - 1 - r) / r^2.
    fn exp_reduced(&mut self, x: Val) -> (Val, Val, Val) {
        let (log2_e, ulp_1) = (self.constant(LOG2_E), self.constant(ULP_1));
        let n = self.fma(x, log2_e, ulp_1);
        let n = self.sub(n, ulp_1);
        let (hi, lo) = (self.constant(-LN2_HI), self.constant(-LN2_LO));
        let r = self.fma(n, hi, x);
        let r = self.fma(n, lo, r);
        (n, r, self.horner(r, &EXP))
    }

    /// e^x for what needs no clamp.
    fn exp_within(&mut self, x: Val) -> Val {
        let (n, r, q) = self.exp_reduced(x);
        let one = self.constant(1.0);
        let p = self.fma(q, r, one);
        let p = self.fma(p, r, one);
        self.bin(Bin::Scale, p, n)
    }

    /// e^x, within 1 ulp; infinity above 88.73, denormal below -87.34, zero below -103.98.
    pub fn exp(&mut self, x: Val) -> Val {
        let x = self.clamp(x, EXP_LEAST, EXP_MOST);
        self.exp_within(x)
    }

    /// e^x for x <= 0, as [`VProg::exp`].
    pub fn exp_negative(&mut self, x: Val) -> Val {
        let least = self.constant(EXP_LEAST);
        let x = self.max(least, x);
        self.exp_within(x)
    }

    /// e^x - 1 without cancellation, for x <= 0.
    pub fn expm1_negative(&mut self, x: Val) -> Val {
        let least = self.constant(EXP_LEAST);
        let x = self.max(least, x);
        let (n, p) = self.exp_parts_within(x);
        let one = self.constant(1.0);
        let s = self.bin(Bin::Scale, one, n);
        let s1 = self.sub(s, one);
        self.fma(s, p, s1)
    }

    /// Natural logarithm, within 1 ulp; NaN below zero.
    pub fn log(&mut self, x: Val) -> Val {
        let (tiny, up) = (self.constant(f32::MIN_POSITIVE), self.constant(8_388_608.0));
        let (zero, shift) = (self.constant(0.0), self.constant(-23.0));
        let grown = self.mul(x, up);
        let y = self.select(Pred::Lt, x, tiny, grown, x);
        let correction = self.select(Pred::Lt, x, tiny, shift, zero);
        // The exponent that leaves a significand within [sqrt(1/2), sqrt(2)).
        let sqrt_half = self.bits(std::f32::consts::FRAC_1_SQRT_2.to_bits());
        let e = self.bin(Bin::SubInt, y, sqrt_half);
        let e = self.un(Un::ShiftRightSigned(23), e);
        let field = self.un(Un::ShiftLeft(23), e);
        let m = self.bin(Bin::SubInt, y, field);
        let e = self.un(Un::FromInt, e);
        let e = self.add(e, correction);

        let one = self.constant(1.0);
        let f = self.sub(m, one);
        let q = self.horner(f, &LOG);
        let f2 = self.mul(f, f);
        let f3 = self.mul(f2, f);
        let (hi, lo, half) = (self.constant(LN2_HI), self.constant(LN2_LO), self.constant(-0.5));
        let small = self.mul(e, lo);
        let small = self.fma(f3, q, small);
        let small = self.fma(f2, half, small);
        let sum = self.add(f, small);
        let sum = self.fma(e, hi, sum);

        let (inf, least, nan) =
            (self.constant(f32::INFINITY), self.constant(f32::NEG_INFINITY), self.bits(0x7fc0_0000));
        let sum = self.select(Pred::Eq, x, inf, x, sum);
        let sum = self.select(Pred::Eq, x, zero, least, sum);
        self.select(Pred::NotGe, x, zero, nan, sum)
    }

    /// ln(1 + x), within 2 ulps; NaN below -1.
    pub fn log1p(&mut self, x: Val) -> Val {
        let (zero, one, inf) = (self.constant(0.0), self.constant(1.0), self.constant(f32::INFINITY));
        let t = self.add(x, one);
        let log = self.log(t);
        // What the addition above rounded away; nothing of it counts at the ends, where it is NaN.
        let kept = self.sub(t, one);
        let lost = self.sub(x, kept);
        let lost = self.div(lost, t);
        let lost = self.select(Pred::Eq, t, zero, zero, lost);
        let lost = self.select(Pred::Eq, t, inf, zero, lost);
        let y = self.add(log, lost);
        self.select(Pred::Eq, x, zero, x, y)
    }

    /// ln(1 + x) for 0 <= x <= 1.
    fn log1p_unit(&mut self, x: Val) -> Val {
        let one = self.constant(1.0);
        let t = self.add(x, one);
        let log = self.log(t);
        // What the addition above rounded away.
        let kept = self.sub(t, one);
        let lost = self.sub(x, kept);
        let lost = self.div(lost, t);
        self.add(log, lost)
    }

    /// The error function, within 1.5 ulps.
    pub fn erf(&mut self, x: Val) -> Val {
        let (one, four) = (self.constant(1.0), self.constant(4.0));
        let sign = self.bits(0x8000_0000);
        let x2 = self.mul(x, x);
        let near = self.horner(x2, &ERF_NEAR);
        let near = self.fma(near, x, x);
        let magnitude = self.abs(x);
        let a = self.min(four, magnitude);
        let ln = self.horner(a, &LN_ERFC);
        let far = self.exp_negative(ln);
        let far = self.sub(one, far);
        let s = self.bin(Bin::And, x, sign);
        let far = self.bin(Bin::Or, far, s);
        self.select(Pred::Lt, magnitude, one, near, far)
    }

    /// 1 / (1 + e^-x), without overflow, within 2.5 ulps.
    pub fn sigmoid(&mut self, x: Val) -> Val {
        let (zero, one) = (self.constant(0.0), self.constant(1.0));
        let magnitude = self.abs(x);
        let magnitude = self.neg(magnitude);
        let e = self.exp_negative(magnitude);
        let top = self.select(Pred::Lt, x, zero, e, one);
        let bottom = self.add(e, one);
        self.div(top, bottom)
    }

    /// Hyperbolic tangent, within 2.5 ulps.
    pub fn tanh(&mut self, x: Val) -> Val {
        let (minus_two, two, sign) = (self.constant(-2.0), self.constant(2.0), self.bits(0x8000_0000));
        let magnitude = self.abs(x);
        let twice = self.mul(magnitude, minus_two);
        let e = self.expm1_negative(twice);
        let bottom = self.add(e, two);
        // -e/(e+2) is not negative, so the sign of x can be set over it.
        let t = self.div(e, bottom);
        let t = self.abs(t);
        let s = self.bin(Bin::And, x, sign);
        self.bin(Bin::Or, t, s)
    }

    pub fn relu(&mut self, x: Val) -> Val {
        let zero = self.constant(0.0);
        self.max(zero, x)
    }

    /// `x` where positive, else `slope * x`.
    pub fn leaky_relu(&mut self, x: Val, slope: f32) -> Val {
        let slope = self.constant(slope);
        self.prelu(x, slope)
    }

    /// [`VProg::leaky_relu`] with a computed slope, for example an operand per channel.
    pub fn prelu(&mut self, x: Val, slope: Val) -> Val {
        let zero = self.constant(0.0);
        let scaled = self.mul(x, slope);
        self.select(Pred::Lt, x, zero, scaled, x)
    }

    /// `x` where it is above `alpha`, else zero, also for NaN.
    pub fn thresholded_relu(&mut self, x: Val, alpha: f32) -> Val {
        let (alpha, zero) = (self.constant(alpha), self.constant(0.0));
        self.select(Pred::Gt, x, alpha, x, zero)
    }

    /// `min(max(x, least), most)`.
    pub fn clip(&mut self, x: Val, least: f32, most: f32) -> Val {
        self.clamp(x, least, most)
    }

    /// `x` where positive, else `outer * (e^(inner * x) - 1)`.
    fn exponential_unit(&mut self, x: Val, outer: f32, inner: f32) -> Val {
        let zero = self.constant(0.0);
        let negative = self.min(zero, x);
        let negative = if inner == 1.0 {
            negative
        } else {
            let inner = self.constant(inner);
            self.mul(negative, inner)
        };
        let e = self.expm1_negative(negative);
        let outer = self.constant(outer);
        let e = self.mul(e, outer);
        self.select(Pred::Gt, x, zero, x, e)
    }

    /// Within 2 ulps.
    pub fn elu(&mut self, x: Val, alpha: f32) -> Val {
        self.exponential_unit(x, alpha, 1.0)
    }

    /// For `alpha > 0`, within 2 ulps.
    pub fn celu(&mut self, x: Val, alpha: f32) -> Val {
        self.exponential_unit(x, alpha, 1.0 / alpha)
    }

    /// Within 2.5 ulps.
    pub fn selu(&mut self, x: Val, alpha: f32, gamma: f32) -> Val {
        let gamma = self.constant(gamma);
        let e = self.elu(x, alpha);
        self.mul(e, gamma)
    }

    pub fn hard_sigmoid(&mut self, x: Val, alpha: f32, beta: f32) -> Val {
        let (alpha, beta) = (self.constant(alpha), self.constant(beta));
        let y = self.fma(x, alpha, beta);
        self.clamp(y, 0.0, 1.0)
    }

    pub fn hard_swish(&mut self, x: Val) -> Val {
        let gate = self.hard_sigmoid(x, 1.0 / 6.0, 0.5);
        self.mul(x, gate)
    }

    /// `x * sigmoid(alpha * x)`, within 4 ulps for `alpha` 1, down to 1e-30.
    pub fn swish(&mut self, x: Val, alpha: f32) -> Val {
        let scaled = if alpha == 1.0 {
            x
        } else {
            let alpha = self.constant(alpha);
            self.mul(x, alpha)
        };
        let gate = self.sigmoid(scaled);
        self.mul(x, gate)
    }

    /// ln(1 + e^x), within 2.5 ulps.
    pub fn softplus(&mut self, x: Val) -> Val {
        let zero = self.constant(0.0);
        let magnitude = self.abs(x);
        let magnitude = self.neg(magnitude);
        let e = self.exp_negative(magnitude);
        let l = self.log1p_unit(e);
        let positive = self.max(zero, x);
        self.add(positive, l)
    }

    /// x / (1 + |x|), within 1.5 ulps.
    pub fn softsign(&mut self, x: Val) -> Val {
        let one = self.constant(1.0);
        let magnitude = self.abs(x);
        let bottom = self.add(magnitude, one);
        self.div(x, bottom)
    }

    /// `x/2 * (1 + erf(x / sqrt(2)))`, within 3 ulps of the larger of the result and 1.
    pub fn gelu(&mut self, x: Val) -> Val {
        let (root, half) = (self.constant(std::f32::consts::FRAC_1_SQRT_2), self.constant(0.5));
        let z = self.mul(x, root);
        let e = self.erf(z);
        let h = self.mul(x, half);
        self.fma(h, e, h)
    }

    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`, within 4 ulps of the larger of the result and 1.
    pub fn gelu_tanh(&mut self, x: Val) -> Val {
        let (cubic, scale, half) = (self.constant(0.044_715), self.constant(0.797_884_6), self.constant(0.5));
        let x2 = self.mul(x, x);
        let x3 = self.mul(x2, x);
        let z = self.fma(x3, cubic, x);
        let z = self.mul(z, scale);
        let t = self.tanh(z);
        let h = self.mul(x, half);
        self.fma(h, t, h)
    }

    /// `x * tanh(ln(1 + e^x))`, within 5 ulps down to 1e-30, which is `x * m / (m + 2)` with `m = e^x * (e^x + 2)`.
    pub fn mish(&mut self, x: Val) -> Val {
        // From 20 on the quotient is one, and above 44 m overflows.
        let (two, bound) = (self.constant(2.0), self.constant(20.0));
        let bounded = self.min(bound, x);
        let e = self.exp(bounded);
        let e2 = self.add(e, two);
        let m = self.mul(e, e2);
        let m2 = self.add(m, two);
        let gate = self.div(m, m2);
        self.mul(x, gate)
    }
}

/// ln 2 must be what the two parts add up to.
const _: () = assert!((LN2_HI + LN2_LO - LN_2).abs() < 1e-7);
