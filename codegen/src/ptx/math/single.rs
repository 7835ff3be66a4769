//! exp, expm1, log, log1p, tanh, erf, sin and cos of f32 by the polynomials of the CPU's in-line functions: at most 2 units in the last
//! place, and NaN, infinities, zeros and subnormals as C99 wants them.

use super::trig;
use crate::clif::math::{ERF, ERF_TAIL, EXP, LN2_HIGH, LN2_LOW, LOG, LOG2_E, TANH};
use crate::kernel::UnOp;
use crate::ptx::emit::Emit;
use crate::ptx::func::{Cmp, Func, Round};
use crate::ptx::reg::*;

type R = Reg<F32>;

pub(super) fn emit(e: &mut Emit, op: UnOp, x: Src<F32>) -> R {
    let x = crate::ptx::emit::in_reg(&mut e.f, x);
    match op {
        UnOp::Sin | UnOp::Cos => return sin_cos(e, op, x),
        // The match below has the others, by name.
        _ => {}
    }
    let f = &mut e.f;
    match op {
        UnOp::Exp => exp(f, x),
        UnOp::Expm1 => expm1(f, x),
        UnOp::Log => {
            let zero = f.mov(0f32);
            log_sum(f, x, zero)
        }
        UnOp::Log1p => log1p(f, x),
        UnOp::Tanh => tanh(f, x),
        UnOp::Erf => erf(f, x),
        other => unreachable!("{other:?} is not in line"),
    }
}

/// By Horner's rule, the constant term first.
fn poly(f: &mut Func, x: R, coefficients: &[u32]) -> R {
    let (&last, rest) = coefficients.split_last().expect("a polynomial has terms");
    let mut sum = f.mov(f32::from_bits(last));
    for &c in rest.iter().rev() {
        sum = f.fma::<F32>(sum, x, f32::from_bits(c));
    }
    sum
}

/// Limits x to low..=high; NaN stays.
fn clamp(f: &mut Func, x: R, low: f32, high: f32) -> R {
    let x = f.max_f32(x, low);
    f.min_f32(x, high)
}

fn int_bits(f: &mut Func, x: R) -> Reg<B32> {
    f.bits::<B32, F32>(x)
}

fn float_of(f: &mut Func, x: Reg<B32>) -> R {
    f.bits::<F32, B32>(x)
}

/// x = k ln 2 + r: k as an integer, and r.
fn reduce(f: &mut Func, x: R) -> (Reg<B32>, R) {
    let scaled = f.mul::<F32>(x, LOG2_E);
    let k = f.cvt::<F32, F32>(Round::NearestInt, scaled);
    let int = f.cvt::<S32, F32>(Round::NearestInt, scaled);
    let r = f.fma::<F32>(k, -LN2_HIGH, x);
    let r = f.fma::<F32>(k, -LN2_LOW, r);
    (int, r)
}

/// exp(r) - 1 for |r| <= ln(2)/2.
fn small_expm1(f: &mut Func, r: R) -> R {
    let q = poly(f, r, &EXP);
    let square = f.mul::<F32>(r, r);
    f.fma::<F32>(square, q, r)
}

/// 2^k for -126 <= k <= 127.
fn power_of_two(f: &mut Func, k: Reg<B32>) -> R {
    let biased = f.add::<S32>(k, 127);
    let bits: Reg<B32> = f.shl(biased, 23);
    float_of(f, bits)
}

pub(super) fn exp(f: &mut Func, x: R) -> R {
    // Beyond these it is 0 or infinite, by the two factors below.
    let x = clamp(f, x, -104.0, 89.0);
    let (k, r) = reduce(f, x);
    let p = small_expm1(f, r);
    let y = f.add::<F32>(p, 1f32);
    // 2^k in two steps: k reaches from -150 to 128.
    let half = f.shr::<S32>(k, 1);
    let rest = f.sub::<S32>(k, half);
    let (a, b) = (power_of_two(f, half), power_of_two(f, rest));
    let y = f.mul::<F32>(y, a);
    f.mul::<F32>(y, b)
}

fn expm1(f: &mut Func, x: R) -> R {
    let limited = clamp(f, x, -18.0, 89.0);
    let (k, r) = reduce(f, limited);
    let p = small_expm1(f, r);
    // 2 ((s - 1/2) + s p) with s = 2^(k-1), which is finite even where the result is not.
    let k = f.add::<S32>(k, -1);
    let s = power_of_two(f, k);
    let head = f.sub::<F32>(s, 0.5f32);
    let sum = f.fma::<F32>(s, p, head);
    let result = f.add::<F32>(sum, sum);
    keep_tiny(f, x, result)
}

/// x itself where it is so small that f(x) = x, which also keeps the sign of zero.
fn keep_tiny(f: &mut Func, x: R, result: R) -> R {
    let size = f.abs::<F32>(x);
    let tiny = f.setp::<F32>(Cmp::Lt, size, 1e-10f32);
    f.selp(tiny, x, result)
}

fn log1p(f: &mut Func, x: R) -> R {
    let u = f.add::<F32>(x, 1f32);
    // What the addition lost. For large x (and infinities) it is of no weight.
    let back = f.sub::<F32>(u, 1f32);
    let lost = f.sub::<F32>(x, back);
    let small = f.setp::<F32>(Cmp::Lt, x, 1e8f32);
    let lost = f.selp(small, lost, 0f32);
    let result = log_sum(f, u, lost);
    keep_tiny(f, x, result)
}

/// log(u + c), with c below the last place of u.
fn log_sum(f: &mut Func, u: R, c: R) -> R {
    // Subnormals are scaled to be normal.
    let subnormal = f.setp::<F32>(Cmp::Lt, u, f32::MIN_POSITIVE);
    let scaled = f.mul::<F32>(u, 8_388_608f32);
    let v = f.selp(subnormal, scaled, u);
    let shift = f.selp::<B32>(subnormal, 23, 0);
    // v = 2^k m with sqrt(1/2) <= m < sqrt(2).
    let bits = int_bits(f, v);
    let above = f.sub::<S32>(bits, 0x3f35_04f3);
    let k = f.shr::<S32>(above, 23);
    let exponent: Reg<B32> = f.shl(k, 23);
    let mantissa = f.sub::<S32>(bits, exponent);
    let mantissa = float_of(f, mantissa);
    let t = f.sub::<F32>(mantissa, 1f32);
    // c 2^-k: k is small where c is not zero.
    let scale = f.sub::<S32>(0x3f80_0000, exponent);
    let scale = float_of(f, scale);
    let exact = f.setp::<F32>(Cmp::Eq, c, 0f32);
    let c = f.mul::<F32>(c, scale);
    let c = f.selp(exact, 0f32, c);
    let t = f.add::<F32>(t, c);

    let k = f.sub::<S32>(k, shift);
    let k = f.cvt::<F32, S32>(Round::Nearest, k);
    let p = poly(f, t, &LOG);
    let square = f.mul::<F32>(t, t);
    let cube = f.mul::<F32>(square, t);
    let tail = f.mul::<F32>(k, LN2_LOW);
    let tail = f.fma::<F32>(cube, p, tail);
    let tail = f.fma::<F32>(square, -0.5f32, tail);
    let sum = f.add::<F32>(t, tail);
    let result = f.fma::<F32>(k, LN2_HIGH, sum);

    // Infinity and NaN give themselves.
    let finite = f.setp::<F32>(Cmp::Lt, u, f32::INFINITY);
    let result = f.selp(finite, result, u);
    let negative = f.setp::<F32>(Cmp::Lt, u, 0f32);
    let result = f.selp(negative, f32::NAN, result);
    let zero = f.setp::<F32>(Cmp::Eq, u, 0f32);
    f.selp(zero, f32::NEG_INFINITY, result)
}

fn tanh(f: &mut Func, x: R) -> R {
    let a = f.abs::<F32>(x);
    let square = f.mul::<F32>(x, x);
    let p = poly(f, square, &TANH);
    let p = f.mul::<F32>(p, square);
    let near = f.fma::<F32>(p, x, x);
    // 1 - 2 / (exp(2a) + 1), which is 1 from 9.02 on.
    let limited = clamp(f, a, 0.0, 10.0);
    let twice = f.add::<F32>(limited, limited);
    let e = exp(f, twice);
    let sum = f.add::<F32>(e, 1f32);
    let part = f.div_float::<F32>(2f32, sum);
    let far = f.sub::<F32>(1f32, part);
    let small = f.setp::<F32>(Cmp::Lt, a, 0.625f32);
    let result = f.selp(small, near, far);
    with_sign(f, result, x)
}

/// A value that is positive or has the sign wanted already.
fn with_sign(f: &mut Func, magnitude: R, sign: R) -> R {
    let sign = int_bits(f, sign);
    let bit = f.and(sign, i32::MIN);
    let bits = int_bits(f, magnitude);
    let bits = f.or(bits, bit);
    float_of(f, bits)
}

fn erf(f: &mut Func, x: R) -> R {
    let a = f.abs::<F32>(x);
    let square = f.mul::<F32>(x, x);
    let p = poly(f, square, &ERF);
    let near = f.mul::<F32>(p, x);
    // 1 - exp(q): from 4 on that is 1.
    let limited = clamp(f, a, 0.0, 4.0);
    let q = poly(f, limited, &ERF_TAIL);
    let tail = exp(f, q);
    let far = f.sub::<F32>(1f32, tail);
    let far = with_sign(f, far, x);
    let small = f.setp::<F32>(Cmp::Lt, a, 0.921_875f32);
    f.selp(small, near, far)
}

/// Largest argument whose reduction in three parts is right: its quotient by pi/2 has 16 bits.
const NEAR: f32 = 65_536.0;
/// pi/2 in three parts; the products of the first two with a quotient are made exact by the fused multiply-add.
const HALF_PI: [f32; 3] = [f32::from_bits(0x3fc9_0fda), f32::from_bits(0x33a2_2168), f32::from_bits(0x27c2_34c5)];

/// x = q pi/2 + r, |r| <= pi/4, and Taylor series of r to r^9 and r^10, whose next terms are below 2^-28.
fn sin_cos(e: &mut Emit, op: UnOp, x: R) -> R {
    let f = &mut e.f;
    let scaled = f.mul::<F32>(x, std::f32::consts::FRAC_2_PI);
    let k = f.cvt::<F32, F32>(Round::NearestInt, scaled);
    let q = f.cvt::<S32, F32>(Round::NearestInt, scaled);
    let r = HALF_PI.iter().fold(x, |r, &part| f.fma::<F32>(k, -part, r));
    let square = f.mul::<F32>(r, r);
    let series = |f: &mut Func, c: &[f32]| {
        let bits: Vec<u32> = c.iter().map(|c| c.to_bits()).collect();
        poly(f, square, &bits)
    };
    let p = series(f, &[-1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0]);
    let cube = f.mul::<F32>(square, r);
    let sin = f.fma::<F32>(cube, p, r);
    let p = series(f, &[-0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0, -1.0 / 3_628_800.0]);
    let cos = f.fma::<F32>(square, p, 1f32);
    // Quadrant: the last bit swaps sine and cosine, the one before is the sign.
    let q = if op == UnOp::Sin { q } else { f.add::<S32>(q, 1) };
    let last = f.and(q, 1);
    let odd = f.setp::<U32>(Cmp::Ne, last, 0);
    let y = f.selp(odd, cos, sin);
    let sign: Reg<B32> = f.shl(q, 30);
    let sign = f.and(sign, i32::MIN);
    let bits = int_bits(f, y);
    let bits = f.xor(bits, sign);
    let near_value = float_of(f, bits);
    let result = f.mov(near_value);

    let size = f.abs::<F32>(x);
    let near = f.setp::<F32>(Cmp::Le, size, NEAR);
    let done = f.label();
    f.jump_if(near, true, done);
    let wide = f.cvt::<F64, F32>(Round::None, x);
    let far = trig::emit(e, op, wide.into());
    let far = e.f.cvt::<F32, F64>(Round::Nearest, far);
    e.f.set(result, far);
    e.f.place(done);
    result
}
