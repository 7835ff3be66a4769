//! Double-double arithmetic: an unevaluated sum of two f64, about 106 bits, without fused multiply-add (SSE2 has none).
//!
//! Products split their factors, so operands must stay below 2^990; callers handle larger ones before.

use core::ops::{Add, Div, Mul, Neg};

/// `hi + lo`, with `|lo|` at most half a unit in the last place of `hi`.
#[derive(Clone, Copy)]
pub struct Dd {
    pub hi: f64,
    pub lo: f64,
}

impl Dd {
    /// The exact sum of two numbers (Knuth).
    pub const fn sum(a: f64, b: f64) -> Dd {
        let hi = a + b;
        let b_part = hi - a;
        Dd { hi, lo: (a - (hi - b_part)) + (b - b_part) }
    }

    /// The exact sum, for `|a| >= |b|` or `a == 0` (Dekker).
    pub const fn ordered_sum(a: f64, b: f64) -> Dd {
        let hi = a + b;
        Dd { hi, lo: b - (hi - a) }
    }

    /// The exact product (Veltkamp, Dekker).
    pub const fn product(a: f64, b: f64) -> Dd {
        let hi = a * b;
        let ((a1, a2), (b1, b2)) = (halves(a), halves(b));
        Dd { hi, lo: ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2 }
    }

    /// `a / b`, nearly exact.
    pub const fn quotient(a: f64, b: f64) -> Dd {
        let hi = a / b;
        let back = Dd::product(hi, b);
        Dd::ordered_sum(hi, ((a - back.hi) - back.lo) / b)
    }

    pub fn sqrt(self) -> Dd {
        if self.hi <= 0.0 {
            return Dd { hi: 0.0, lo: 0.0 };
        }
        let hi = sqrt(self.hi);
        let back = Dd::product(hi, hi);
        Dd::ordered_sum(hi, ((self.hi - back.hi) - back.lo + self.lo) / (2.0 * hi))
    }

    /// Times a power of two.
    pub fn scale(self, power: f64) -> Dd {
        Dd { hi: self.hi * power, lo: self.lo * power }
    }

    pub fn value(self) -> f64 {
        self.hi + self.lo
    }
}

impl From<f64> for Dd {
    fn from(hi: f64) -> Dd {
        Dd { hi, lo: 0.0 }
    }
}

impl Neg for Dd {
    type Output = Dd;
    fn neg(self) -> Dd {
        Dd { hi: -self.hi, lo: -self.lo }
    }
}

impl Add for Dd {
    type Output = Dd;
    fn add(self, other: Dd) -> Dd {
        let (high, low) = (Dd::sum(self.hi, other.hi), Dd::sum(self.lo, other.lo));
        let middle = Dd::ordered_sum(high.hi, high.lo + low.hi);
        Dd::ordered_sum(middle.hi, middle.lo + low.lo)
    }
}

impl Mul for Dd {
    type Output = Dd;
    fn mul(self, other: Dd) -> Dd {
        let high = Dd::product(self.hi, other.hi);
        Dd::ordered_sum(high.hi, high.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Dd;
    fn div(self, other: Dd) -> Dd {
        let hi = self.hi / other.hi;
        let back = Dd::product(hi, other.hi);
        let rest = ((self.hi - back.hi) - back.lo) + (self.lo - hi * other.lo);
        Dd::ordered_sum(hi, rest / other.hi)
    }
}

/// A number as the sum of two of 26 bits.
const fn halves(a: f64) -> (f64, f64) {
    let scaled = a * 134_217_729.0;
    let high = scaled - (scaled - a);
    (high, a - high)
}

pub fn sqrt(x: f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        use core::arch::x86_64::{_mm_cvtsd_f64, _mm_set_sd, _mm_sqrt_sd};
        let x = _mm_set_sd(x);
        _mm_cvtsd_f64(_mm_sqrt_sd(x, x))
    }
    #[cfg(target_arch = "aarch64")]
    {
        let root: f64;
        // SAFETY: NEON is part of AArch64; the instruction has no other effect.
        unsafe { core::arch::asm!("fsqrt {:d}, {:d}", out(vreg) root, in(vreg) x, options(pure, nomem, nostack)) };
        root
    }
}

pub fn abs(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & !(1 << 63))
}

/// `magnitude` with the sign of `sign`.
pub fn with_sign(magnitude: f64, sign: f64) -> f64 {
    f64::from_bits(magnitude.to_bits() & !(1 << 63) | sign.to_bits() & 1 << 63)
}

/// The nearest integer, ties to even; for `|x| < 2^51`.
pub fn round(x: f64) -> f64 {
    const SHIFTER: f64 = 6_755_399_441_055_744.0;
    (x + SHIFTER) - SHIFTER
}

/// `c[0] + x * (c[1] + x * (..))`.
pub fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}
