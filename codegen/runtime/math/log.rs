//! The logarithm and what is made of it: log, log1p, pow, asinh, acosh, atanh.
//!
//! log and log1p are plain f64. For the others one core, [`ln`], takes a double-double, so that each of the others is a formula whose argument is exact enough:
//! x = 2^k m, sqrt(1/2) <= m < sqrt(2), s = (m-1)/(m+1), ln(m) = 2(s + s^3/3 + s^5/5 + ..), of which the first four terms are summed in
//! double-double. The relative error is below 2^-65, also near 1.

use super::dd::{Dd, abs, polynomial, with_sign};
use super::exp::{LN2, exp_dd};

pub(crate) const THIRD: Dd = Dd::quotient(1.0, 3.0);
pub(crate) const FIFTH: Dd = Dd::quotient(1.0, 5.0);
pub(crate) const SEVENTH: Dd = Dd::quotient(1.0, 7.0);
/// 1/9, 1/11, ... 1/29: the remainder is s^30/31 < 2^-80 of the sum.
pub(crate) const TAIL: [f64; 11] = [
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
    1.0 / 23.0,
    1.0 / 25.0,
    1.0 / 27.0,
    1.0 / 29.0,
];
/// Makes subnormal numbers normal.
pub(crate) const SCALE: f64 = (1u64 << 54) as f64;
pub(crate) const SQRT_HALF_BITS: i64 = 0x3fe6a09e667f3bcd;

/// ln of a positive, normal number.
fn ln(x: Dd) -> Dd {
    let (k, m) = split(x.hi);
    // In two factors, since 2^-k may be out of range.
    let half = k / 2;
    let lo = x.lo * power_of_two(-half) * power_of_two(half - k);

    let f = Dd::sum(m - 1.0, lo);
    let s = f / (f + 2.0.into());
    let z = s * s;
    let tail = Dd::ordered_sum(SEVENTH.hi, SEVENTH.lo + z.hi * polynomial(z.hi, &TAIL));
    let series = z * (THIRD + z * (FIFTH + z * tail));
    let ln_m = (s + s * series).scale(2.0);

    let k = k as f64;
    let ln_2k = Dd::sum(k * LN2[0], k * LN2[1]);
    Dd { hi: ln_2k.hi, lo: ln_2k.lo + k * LN2[2] } + ln_m
}

fn power_of_two(k: i64) -> f64 {
    f64::from_bits((k.wrapping_add(1023) as u64) << 52)
}

/// ln of any positive, finite number.
fn ln_positive(x: f64) -> Dd {
    if x < f64::MIN_POSITIVE {
        return ln((x * SCALE).into()) + -(Dd::sum(54.0 * LN2[0], 54.0 * LN2[1]));
    }
    ln(x.into())
}

/// ln(2^k (1 + f)) + c in plain f64, for sqrt(1/2) <= 1 + f < sqrt(2) and a tiny c: within one unit, and several times
/// faster than [`ln`]. With 2s = f - sf, ln(1 + f) = f - (f^2/2 - s (f^2/2 + 2s^2/3 + 2s^4/5 + ..)): the large term f is exact.
fn ln_rounded(k: f64, f: f64, c: f64) -> f64 {
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let series = 2.0 * z * (THIRD.hi + z * (FIFTH.hi + z * (SEVENTH.hi + z * polynomial(z, &TAIL))));
    let rest = s * (half_square + series) + (k * LN2[1] + c);
    k * LN2[0] - ((half_square - rest) - f)
}

/// The exponent k and the mantissa in [sqrt(1/2), sqrt(2)) of a positive, normal number.
fn split(x: f64) -> (i64, f64) {
    let bits = x.to_bits() as i64;
    let k = bits.wrapping_sub(SQRT_HALF_BITS) >> 52;
    (k, f64::from_bits(bits.wrapping_sub(k << 52) as u64))
}

pub fn log(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x < 0.0 {
        return f64::NAN;
    }
    let subnormal = x < f64::MIN_POSITIVE;
    let (k, m) = split(if subnormal { x * SCALE } else { x });
    let k = if subnormal { k - 54 } else { k };
    ln_rounded(k as f64, m - 1.0, 0.0)
}

pub fn log1p(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY || abs(x) < 1e-17 {
        return x;
    }
    if x == -1.0 {
        return f64::NEG_INFINITY;
    }
    if x < -1.0 {
        return f64::NAN;
    }
    if -0.29 < x && x < 0.41 {
        return ln_rounded(0.0, x, 0.0);
    }
    let sum = Dd::sum(1.0, x);
    let (k, m) = split(sum.hi);
    ln_rounded(k as f64, m - 1.0, sum.lo / sum.hi)
}

pub fn asinh(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() || x.is_infinite() || a < 1e-9 {
        return x;
    }
    if a > 1e10 {
        // x + sqrt(x^2 + 1) = 2x, to 2^-66
        return with_sign((ln_positive(a) + ln(2.0.into())).value(), x);
    }
    let root = (Dd::product(a, a) + 1.0.into()).sqrt();
    with_sign(ln(root + a.into()).value(), x)
}

pub fn acosh(x: f64) -> f64 {
    if x.is_nan() || x < 1.0 {
        return f64::NAN;
    }
    if x == f64::INFINITY {
        return x;
    }
    if x > 1e10 {
        return (ln_positive(x) + ln(2.0.into())).value();
    }
    let root = (Dd::product(x, x) + (-1.0).into()).sqrt();
    ln(root + x.into()).value()
}

pub fn atanh(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() || a > 1.0 {
        return f64::NAN;
    }
    if a == 1.0 {
        return with_sign(f64::INFINITY, x);
    }
    if a < 1e-9 {
        return x;
    }
    let ratio = Dd::sum(1.0, a) / Dd::sum(1.0, -a);
    with_sign(ln(ratio).value() * 0.5, x)
}

#[derive(Clone, Copy, PartialEq)]
enum Parity {
    Fraction,
    Even,
    Odd,
}

fn parity(y: f64) -> Parity {
    let a = abs(y);
    if a >= 9_007_199_254_740_992.0 {
        return Parity::Even;
    }
    let whole = a as u64;
    if whole as f64 != a {
        Parity::Fraction
    } else if whole & 1 == 0 {
        Parity::Even
    } else {
        Parity::Odd
    }
}

/// `x` to the power `y`, with the special cases of C99 (F.9.4.4).
pub fn pow(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let a = abs(x);
    if y.is_infinite() {
        return match (a == 1.0, (a > 1.0) == (y > 0.0)) {
            (true, _) => 1.0,
            (false, true) => f64::INFINITY,
            (false, false) => 0.0,
        };
    }
    let parity = parity(y);
    let signed = |magnitude: f64| {
        if x.is_sign_negative() && parity == Parity::Odd { -magnitude } else { magnitude }
    };
    if a == 0.0 || a.is_infinite() {
        return signed(if (a == 0.0) == (y > 0.0) { 0.0 } else { f64::INFINITY });
    }
    if x < 0.0 && parity == Parity::Fraction {
        return f64::NAN;
    }
    if a == 1.0 {
        return signed(1.0);
    }
    // |ln a| lies between 2^-53 and 746: outside these bounds of y the result over- or underflows, or is 1.
    if abs(y) > 1e20 {
        return signed(if (a > 1.0) == (y > 0.0) { f64::INFINITY } else { 0.0 });
    }
    if abs(y) < 1e-22 {
        return 1.0;
    }
    signed(exp_dd(ln_positive(a) * y.into()))
}
