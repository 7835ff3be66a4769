//! atan, asin, acos: atan(x) = atan(c) + atan((x - c) / (1 + x c)) with c the nearest eighth, |argument| <= 1/16, by Taylor series.
//! The inverse sine and cosine are arc tangents of quotients in double-double.

use super::dd::{Dd, abs, polynomial, with_sign};

pub(crate) const HALF_PI: Dd = Dd { hi: f64::from_bits(0x3ff921fb54442d18), lo: f64::from_bits(0x3c91a62633145c07) };
pub(crate) const PI: f64 = f64::from_bits(0x400921fb54442d18);
/// atan(i / 8)
pub(crate) static ATAN_EIGHTHS: [Dd; 9] = [
    Dd { hi: 0.0, lo: 0.0 },
    Dd { hi: f64::from_bits(0x3fbfd5ba9aac2f6e), lo: f64::from_bits(0xbc4cd37686760c17) },
    Dd { hi: f64::from_bits(0x3fcf5b75f92c80dd), lo: f64::from_bits(0x3c68ab6e3cf7afbd) },
    Dd { hi: f64::from_bits(0x3fd6f61941e4def1), lo: f64::from_bits(0xbc7c63aae6f6e918) },
    Dd { hi: f64::from_bits(0x3fddac670561bb4f), lo: f64::from_bits(0x3c7a2b7f222f65e2) },
    Dd { hi: f64::from_bits(0x3fe1e00babdefeb4), lo: f64::from_bits(0xbc5928df287a668f) },
    Dd { hi: f64::from_bits(0x3fe4978fa3269ee1), lo: f64::from_bits(0x3c72419a87f2a458) },
    Dd { hi: f64::from_bits(0x3fe700a7c5784634), lo: f64::from_bits(0xbc78c34d25aadef6) },
    Dd { hi: f64::from_bits(0x3fe921fb54442d18), lo: f64::from_bits(0x3c81a62633145c07) },
];
/// -1/3, 1/5, ... for |t| <= 1/16: the next term, t^18/19, is below 2^-76.
pub(crate) const TAYLOR: [f64; 8] =
    [-1.0 / 3.0, 1.0 / 5.0, -1.0 / 7.0, 1.0 / 9.0, -1.0 / 11.0, 1.0 / 13.0, -1.0 / 15.0, 1.0 / 17.0];

/// atan of a number that is not negative.
fn atan_dd(x: Dd) -> Dd {
    let h = x.hi;
    if h > 1e20 {
        return HALF_PI;
    }
    // An error of l in x is one of l / (1 + x^2) in the result.
    let correction = x.lo / (1.0 + h * h);
    let small = h <= 1.0;
    let index = (8.0 * (if small { h } else { 1.0 / h }) + 0.5) as usize;
    let c = index as f64 * 0.125;
    let base = ATAN_EIGHTHS.get(index).copied().unwrap_or(HALF_PI);
    let t = if small { (h - c) / (1.0 + h * c) } else { (1.0 - h * c) / (h + c) };
    let z = t * t;
    let rest = t * z * polynomial(z, &TAYLOR);
    let angle = Dd::sum(base.hi, t);
    let angle = Dd { hi: angle.hi, lo: angle.lo + (rest + base.lo) };
    if small {
        Dd::ordered_sum(angle.hi, angle.lo + correction)
    } else {
        HALF_PI + -Dd::ordered_sum(angle.hi, angle.lo - correction)
    }
}

pub fn atan(x: f64) -> f64 {
    if x.is_nan() || abs(x) < 1e-9 {
        return x;
    }
    with_sign(atan_dd(abs(x).into()).value(), x)
}

pub fn asin(x: f64) -> f64 {
    let a = abs(x);
    if x.is_nan() || a > 1.0 {
        return f64::NAN;
    }
    if a < 1e-9 {
        return x;
    }
    if a == 1.0 {
        return with_sign(HALF_PI.hi, x);
    }
    let cosine = (Dd::from(1.0) + -Dd::product(a, a)).sqrt();
    with_sign(atan_dd(Dd::from(a) / cosine).value(), x)
}

pub fn acos(x: f64) -> f64 {
    if x.is_nan() || abs(x) > 1.0 {
        return f64::NAN;
    }
    if x == -1.0 {
        return PI;
    }
    // Half the angle: tan(acos(x) / 2) = sqrt((1 - x) / (1 + x))
    let tangent = (Dd::sum(1.0, -x) / Dd::sum(1.0, x)).sqrt();
    atan_dd(tangent).value() * 2.0
}
