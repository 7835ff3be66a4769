//! sin, cos, tan: x = q pi/2 + r, |r| <= pi/4, with r in double-double at every x, then the Taylor series of r.

use super::dd::{Dd, abs, polynomial, round};

/// pi/2 in three parts: the first two have 41 bits, so their products with a quotient below 2^12 are exact.
pub(crate) const HALF_PI: [f64; 3] = [1.5707963267941523, 7.443547480484391e-13, 2.232414100745812e-25];
pub(crate) const HALF_PI_DD: Dd = Dd { hi: f64::from_bits(0x3ff921fb54442d18), lo: f64::from_bits(0x3c91a62633145c07) };
const TWO_OVER_PI: f64 = core::f64::consts::FRAC_2_PI;
/// 2/pi in binary, after a word of zeros that lets small exponents start before the point.
pub(crate) static TWO_OVER_PI_BITS: [u64; 21] = [
    0x0000000000000000,
    0xa2f9836e4e441529,
    0xfc2757d1f534ddc0,
    0xdb6295993c439041,
    0xfe5163abdebbc561,
    0xb7246e3a424dd2e0,
    0x06492eea09d1921c,
    0xfe1deb1cb129a73e,
    0xe88235f52ebb4484,
    0xe99c7026b45f7e41,
    0x3991d639835339f4,
    0x9c845f8bbdf9283b,
    0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f,
    0x6d367ecf27cb09b7,
    0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea,
    0x6bfb5fb11f8d5d08,
    0x56033046fc7b6bab,
    0xf0cfbc209af4361d,
];

/// -1/3!, 1/5!, ... 1/17!
pub(crate) const SIN: [f64; 8] = [
    -1.0 / 6.0,
    1.0 / 120.0,
    -1.0 / 5_040.0,
    1.0 / 362_880.0,
    -1.0 / 39_916_800.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 1_307_674_368_000.0,
    1.0 / 355_687_428_096_000.0,
];
/// 1/4!, -1/6!, ... -1/18!
pub(crate) const COS: [f64; 8] = [
    1.0 / 24.0,
    -1.0 / 720.0,
    1.0 / 40_320.0,
    -1.0 / 3_628_800.0,
    1.0 / 479_001_600.0,
    -1.0 / 87_178_291_200.0,
    1.0 / 20_922_789_888_000.0,
    -1.0 / 6_402_373_705_728_000.0,
];

/// The quadrant (modulo 4) and the remainder of a finite number.
fn reduce(x: f64) -> (u64, Dd) {
    let a = abs(x);
    if a <= core::f64::consts::FRAC_PI_4 {
        return (0, x.into());
    }
    let (quadrant, r) = if a < 2048.0 { reduce_small(a) } else { reduce_large(a) };
    if x < 0.0 { (quadrant.wrapping_neg() & 3, -r) } else { (quadrant, r) }
}

/// Cody and Waite, for quotients below 2^12: the error is below 2^-124, and no f64 below 2^12 comes nearer to a multiple than 2^-60.
fn reduce_small(x: f64) -> (u64, Dd) {
    let q = round(x * TWO_OVER_PI);
    let head = Dd::sum(x - q * HALF_PI[0], -(q * HALF_PI[1]));
    let r = Dd::sum(head.hi, head.lo - q * HALF_PI[2]);
    (q as u64 & 3, r)
}

/// Payne and Hanek in integers: x = m 2^e, and of m 2^e 2/pi modulo 4 the 254 bits after the point depend on 256 bits of 2/pi only.
fn reduce_large(x: f64) -> (u64, Dd) {
    let bits = x.to_bits();
    let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
    // The window ends 254 + e bits after the point; 62 = 64 (the leading word) - 2 (the quadrant).
    let start = (bits >> 52).wrapping_sub(1075).wrapping_add(62);
    let word = |index: u64| TWO_OVER_PI_BITS.get(index as usize).copied().unwrap_or(0);
    let (first, shift) = (start / 64, start % 64);
    let window = |index: u64| {
        let pair =
            (word(first.wrapping_add(index)) as u128) << 64 | word(first.wrapping_add(index).wrapping_add(1)) as u128;
        (pair << shift >> 64) as u64
    };
    // Multiply, from the lowest word up, modulo 2^256.
    let mut product = [0u64; 4];
    let mut carry = 0u128;
    for (slot, index) in product.iter_mut().rev().zip([3u64, 2, 1, 0]) {
        carry += mantissa as u128 * window(index) as u128;
        *slot = carry as u64;
        carry >>= 64;
    }
    let [top, a, b, c] = product;
    let quadrant = (top >> 62).wrapping_add(top >> 61 & 1) & 3;
    // The fraction as a signed number in units of 2^-192, then of 2^-128 below its leading zeros.
    let high = (((top as u128) << 64 | a as u128) << 2 | b as u128 >> 62) as i128;
    let low = b << 2 | c >> 62;
    let negative = high < 0;
    let (high, low) = if negative { (!high as u128, !low) } else { (high as u128, low) };
    let zeros = high.leading_zeros().min(127);
    let digits = if zeros == 0 { high } else { high << zeros | (((low as u128) << 64) >> (128 - zeros)) };
    let scale = f64::from_bits(1023u64.wrapping_sub(zeros as u64) << 52);
    let fraction = Dd::ordered_sum(
        (digits >> 75) as u64 as f64 * f64::from_bits((1023 - 53) << 52),
        ((digits >> 22) as u64 & ((1 << 53) - 1)) as f64 * f64::from_bits((1023 - 106) << 52),
    );
    let r = fraction.scale(scale) * HALF_PI_DD;
    (quadrant, if negative { -r } else { r })
}

fn sin_reduced(r: Dd) -> Dd {
    let z = r.hi * r.hi;
    Dd::ordered_sum(r.hi, r.hi * z * polynomial(z, &SIN) + r.lo * (1.0 - 0.5 * z))
}

fn cos_reduced(r: Dd) -> Dd {
    let square = Dd::product(r.hi, r.hi);
    let z = square.hi;
    let head = Dd::ordered_sum(1.0, -0.5 * z);
    Dd::ordered_sum(head.hi, head.lo + (z * z * polynomial(z, &COS) - r.hi * r.lo - 0.5 * square.lo))
}

/// sin(x + quadrants * pi/2)
fn sin_shifted(x: f64, quadrants: u64) -> f64 {
    if x.is_nan() || x.is_infinite() {
        return f64::NAN;
    }
    let (quadrant, r) = reduce(x);
    match quadrant.wrapping_add(quadrants) & 3 {
        0 => sin_reduced(r).value(),
        1 => cos_reduced(r).value(),
        2 => -sin_reduced(r).value(),
        _ => -cos_reduced(r).value(),
    }
}

pub fn sin(x: f64) -> f64 {
    if abs(x) < 1e-9 {
        return x;
    }
    sin_shifted(x, 0)
}

pub fn cos(x: f64) -> f64 {
    sin_shifted(x, 1)
}

pub fn tan(x: f64) -> f64 {
    if x.is_nan() || x.is_infinite() {
        return f64::NAN;
    }
    if abs(x) < 1e-9 {
        return x;
    }
    let (quadrant, r) = reduce(x);
    let (sine, cosine) = (sin_reduced(r), cos_reduced(r));
    if quadrant & 1 == 0 { (sine / cosine).value() } else { -(cosine / sine).value() }
}
