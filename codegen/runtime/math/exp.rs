//! The exponential and what is made of it: exp, expm1, sinh, cosh, tanh.
//!
//! exp(x) = 2^k exp(r), |r| <= ln(2)/2, with r in double-double and exp(r) = 1 + r + r^2 p(r) by its Taylor series to r^14, whose
//! remainder is below 2^-63. Only the term r^2 p(r) is rounded: 2^-57 of the result.

use super::dd::{Dd, abs, polynomial, round, with_sign};

/// ln 2 in three parts: the first two have 38 bits, so their products with an exponent are exact.
pub const LN2: [f64; 3] =
    [f64::from_bits(0x3fe62e42fefa0000), f64::from_bits(0x3d7cf79abc9e0000), f64::from_bits(0x3b0d9cc01f97b57a)];
pub(crate) const LOG2_E: f64 = f64::from_bits(0x3ff71547652b82fe);
/// 1/2!, 1/3!, ... 1/14!
pub(crate) const INVERSE_FACTORIALS: [f64; 13] = inverse_factorials();

const fn inverse_factorials() -> [f64; 13] {
    let mut table = [0.0; 13];
    let (mut factorial, mut n) = (1.0, 2);
    while n < 15 {
        factorial *= n as f64;
        table[n - 2] = 1.0 / factorial;
        n += 1;
    }
    table
}

/// `2^k * (1 + minus_one)`.
struct Power {
    k: i32,
    minus_one: Dd,
}

/// For |x| < 2000.
fn power(x: Dd) -> Power {
    let k = round(x.hi * LOG2_E);
    let reduced = Dd::sum(x.hi - k * LN2[0], -(k * LN2[1]));
    let r = Dd::ordered_sum(reduced.hi, reduced.lo + (x.lo - k * LN2[2]));
    let square = r.hi * r.hi * polynomial(r.hi, &INVERSE_FACTORIALS) + r.hi * r.lo;
    let head = Dd::ordered_sum(r.hi, square);
    Power { k: k as i32, minus_one: Dd::ordered_sum(head.hi, head.lo + r.lo) }
}

impl Power {
    fn mantissa(&self) -> Dd {
        let head = Dd::ordered_sum(1.0, self.minus_one.hi);
        Dd::ordered_sum(head.hi, head.lo + self.minus_one.lo)
    }

    /// `2^k * mantissa` in double-double, for k where that neither overflows nor underflows.
    fn scaled(&self) -> Dd {
        self.mantissa().scale(power_of_two(self.k))
    }
}

/// exp of a double-double, rounded once (twice if the result is subnormal).
pub fn exp_dd(x: Dd) -> f64 {
    if x.hi > 710.0 {
        return f64::INFINITY;
    }
    if x.hi < -746.0 {
        return 0.0;
    }
    let power = power(x);
    let half = power.k / 2;
    power.mantissa().value() * power_of_two(half) * power_of_two(power.k - half)
}

/// `2^k` for a normal result.
fn power_of_two(k: i32) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

pub fn exp(x: f64) -> f64 {
    if x.is_nan() { x } else { exp_dd(x.into()) }
}

/// exp(x) - 1 in double-double, for -40 < x < 700.
fn expm1_dd(x: f64) -> Dd {
    let power = power(x.into());
    if power.k == 0 {
        return power.minus_one;
    }
    let scaled = power.scaled();
    let head = Dd::sum(scaled.hi, -1.0);
    Dd::ordered_sum(head.hi, head.lo + scaled.lo)
}

pub fn expm1(x: f64) -> f64 {
    if x.is_nan() || abs(x) < 1e-17 {
        // Keeps the sign of zero.
        return x;
    }
    if x < -40.0 {
        return -1.0;
    }
    if x > 690.0 {
        return exp_dd(x.into());
    }
    expm1_dd(x).value()
}

/// exp(x)/2 for large x, where the other half of sinh and cosh is below rounding; overflows only when the result does.
fn half_exp(x: f64) -> f64 {
    let x = Dd::sum(x, -LN2[0]);
    exp_dd(Dd { hi: x.hi, lo: x.lo - LN2[1] })
}

pub fn sinh(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() || a < 1e-9 {
        return x;
    }
    if a > 40.0 {
        return with_sign(half_exp(a), x);
    }
    // e = exp(a) - 1:  sinh a = (e + e / (e + 1)) / 2
    let e = expm1_dd(a);
    let sum = e + e / (e + 1.0.into());
    with_sign(sum.value() * 0.5, x)
}

pub fn cosh(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() {
        return x;
    }
    if a > 40.0 {
        return half_exp(a);
    }
    let e = power(a.into()).scaled();
    (e + Dd::from(1.0) / e).value() * 0.5
}

pub fn tanh(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() || a < 1e-9 {
        return x;
    }
    if a > 20.0 {
        return with_sign(1.0, x);
    }
    // e = exp(2a) - 1:  tanh a = e / (e + 2)
    let e = expm1_dd(2.0 * a);
    with_sign((e / (e + 2.0.into())).value(), x)
}
