//! Functions of f64 but the trigonometric ones, their inverses and erf, by the algorithms of the runtime (`codegen/runtime/math`), whose comments say why they
//! are right: within 2 units in the last place, special cases as in C99.

use super::arcs;
use super::dd::{Calc, D, Dd};
use crate::kernel::UnOp;
use crate::ptx::emit::{Emit, in_reg};
use crate::ptx::func::{Cmp, Func, Round};
use crate::ptx::reg::*;
use crate::runtime::math::exp::{INVERSE_FACTORIALS, LN2, LOG2_E};
use crate::runtime::math::log::{FIFTH, SCALE, SEVENTH, SQRT_HALF_BITS, TAIL, THIRD};

pub(super) fn emit(e: &mut Emit, op: UnOp, x: Src<F64>) -> D {
    let x = in_reg(&mut e.f, x);
    match op {
        UnOp::Erf => return arcs::erf(e, x),
        UnOp::Atan | UnOp::Asin | UnOp::Acos => return arcs::arc(e, op, x),
        // The match below has the others, by name.
        _ => {}
    }
    let m = &mut Calc(&mut e.f);
    match op {
        UnOp::Exp => {
            let x = m.dd(x);
            exp_dd(m, x)
        }
        UnOp::Expm1 => expm1(m, x),
        UnOp::Log => log(m, x),
        UnOp::Log1p => log1p(m, x),
        UnOp::Sinh | UnOp::Cosh | UnOp::Tanh => hyperbolic(m, op, x),
        UnOp::Asinh => asinh(m, x),
        UnOp::Acosh => acosh(m, x),
        UnOp::Atanh => atanh(m, x),
        other => unreachable!("{other:?} is elsewhere"),
    }
}

// Exponentials.

/// `2^k * (1 + minus_one)`, for |x| < 2000.
struct Power {
    k: Reg<B32>,
    minus_one: Dd,
}

fn power(m: &mut Calc, x: Dd) -> Power {
    let scaled = m.mul(x.hi, LOG2_E);
    let (k, int) = m.round(scaled);
    let head = m.fma(k, -LN2[0], x.hi);
    let second = m.mul(k, -LN2[1]);
    let reduced = m.sum(head, second);
    let third = m.fma(k, -LN2[2], x.lo);
    let low = m.add(reduced.lo, third);
    let r = m.ordered(reduced.hi, low);
    let p = m.poly(r.hi, &INVERSE_FACTORIALS);
    let square = m.mul(r.hi, r.hi);
    let cross = m.mul(r.hi, r.lo);
    let square = m.fma(square, p, cross);
    let head = m.ordered(r.hi, square);
    let low = m.add(head.lo, r.lo);
    Power { k: int, minus_one: m.ordered(head.hi, low) }
}

fn mantissa(m: &mut Calc, p: &Power) -> Dd {
    let one = m.c(1.0);
    let head = m.ordered(one, p.minus_one.hi);
    let low = m.add(head.lo, p.minus_one.lo);
    m.ordered(head.hi, low)
}

/// `2^k * mantissa`, where that neither overflows nor underflows.
fn scaled(m: &mut Calc, p: &Power) -> Dd {
    let one = mantissa(m, p);
    let power = m.power_of_two(p.k);
    m.scale_dd(one, power)
}

/// exp of a double-double, rounded once (twice if the result is subnormal).
fn exp_dd(m: &mut Calc, x: Dd) -> D {
    // Beyond these it is 0 or infinite.
    let (over, under) = (m.is(x.hi, Cmp::Gt, 710.0), m.is(x.hi, Cmp::Lt, -746.0));
    let limited = m.pick(over, 0.0, x.hi);
    let limited = m.pick(under, 0.0, limited);
    let p = power(m, Dd { hi: limited, lo: x.lo });
    let value = mantissa(m, &p);
    let value = m.value(value);
    let half = m.0.shr::<S32>(p.k, 1);
    let rest = m.0.sub::<S32>(p.k, half);
    let (a, b) = (m.power_of_two(half), m.power_of_two(rest));
    let y = m.mul(value, a);
    let y = m.mul(y, b);
    let y = m.pick(over, f64::INFINITY, y);
    m.pick(under, 0.0, y)
}

/// exp(x) - 1, for -40 < x < 700.
fn expm1_dd(m: &mut Calc, x: D) -> Dd {
    let x = m.dd(x);
    let p = power(m, x);
    let whole = scaled(m, &p);
    let head = m.sum(whole.hi, -1.0);
    let low = m.add(head.lo, whole.lo);
    let far = m.ordered(head.hi, low);
    let near = m.0.setp::<S32>(Cmp::Eq, p.k, 0);
    m.pick_dd(near, p.minus_one, far)
}

/// `limit`s x to where a formula holds; NaN stays.
pub(super) fn limited(m: &mut Calc, x: D, low: f64, high: f64) -> D {
    let (under, over) = (m.is(x, Cmp::Lt, low), m.is(x, Cmp::Gt, high));
    let x = m.pick(under, low, x);
    m.pick(over, high, x)
}

fn expm1(m: &mut Calc, x: D) -> D {
    let inside = limited(m, x, -40.0, 690.0);
    let y = expm1_dd(m, inside);
    let y = m.value(y);
    let large = m.is(x, Cmp::Gt, 690.0);
    let whole = m.dd(x);
    let whole = exp_dd(m, whole);
    let y = m.pick(large, whole, y);
    let negative = m.is(x, Cmp::Lt, -40.0);
    let y = m.pick(negative, -1.0, y);
    keep_tiny(m, x, 1e-17, y)
}

/// x itself where it is so small that f(x) = x, which also keeps the sign of zero.
pub(super) fn keep_tiny(m: &mut Calc, x: D, limit: f64, y: D) -> D {
    let size = m.abs(x);
    let tiny = m.is(size, Cmp::Lt, limit);
    m.pick(tiny, x, y)
}

/// exp(x)/2 for large x; overflows only when the result does.
fn half_exp(m: &mut Calc, x: D) -> D {
    let x = m.sum(x, -LN2[0]);
    let lo = m.add(x.lo, -LN2[1]);
    exp_dd(m, Dd { hi: x.hi, lo })
}

fn hyperbolic(m: &mut Calc, op: UnOp, x: D) -> D {
    let a = m.abs(x);
    let y = match op {
        UnOp::Tanh => {
            // e = exp(2a) - 1: tanh a = e / (e + 2), which is 1 from 20 on.
            let a = limited(m, a, 0.0, 20.0);
            let twice = m.add(a, a);
            let e = expm1_dd(m, twice);
            let two = m.c(2.0);
            let two = m.dd(two);
            let under = m.add_dd(e, two);
            let y = m.div_dd(e, under);
            m.value(y)
        }
        UnOp::Sinh | UnOp::Cosh => {
            let far = half_exp(m, a);
            let inside = limited(m, a, 0.0, 40.0);
            let near = if op == UnOp::Sinh {
                // e = exp(a) - 1: sinh a = (e + e / (e + 1)) / 2
                let e = expm1_dd(m, inside);
                let one = m.c(1.0);
                let one = m.dd(one);
                let under = m.add_dd(e, one);
                let other = m.div_dd(e, under);
                m.add_dd(e, other)
            } else {
                let inside = m.dd(inside);
                let p = power(m, inside);
                let e = scaled(m, &p);
                let one = m.c(1.0);
                let one = m.dd(one);
                let inverse = m.div_dd(one, e);
                m.add_dd(e, inverse)
            };
            let near = m.value(near);
            let near = m.mul(near, 0.5);
            let large = m.is(a, Cmp::Gt, 40.0);
            m.pick(large, far, near)
        }
        other => unreachable!("{other:?} is not hyperbolic"),
    };
    if op == UnOp::Cosh {
        return y;
    }
    let y = m.with_sign(y, x);
    keep_tiny(m, x, 1e-9, y)
}

// Logarithms.

/// The exponent and the mantissa in [sqrt(1/2), sqrt(2)) of a positive, normal number.
fn split(m: &mut Calc, x: D) -> (Reg<B32>, D) {
    let bits: Reg<B64> = m.0.bits::<B64, F64>(x);
    let above = m.0.sub::<S64>(bits, SQRT_HALF_BITS);
    let k = m.0.shr::<S64>(above, 52);
    let exponent: Reg<B64> = m.0.shl(k, 52);
    let rest = m.0.sub::<S64>(bits, exponent);
    (m.0.cvt::<S32, S64>(Round::None, k), m.0.bits::<F64, B64>(rest))
}

/// A normal number and what to add to its exponent, from any positive one.
fn normal(m: &mut Calc, x: D) -> (D, Reg<B32>) {
    let subnormal = m.is(x, Cmp::Lt, f64::MIN_POSITIVE);
    let up = m.mul(x, SCALE);
    (m.pick(subnormal, up, x), m.0.selp::<B32>(subnormal, -54, 0))
}

/// ln(2^k (1 + f)) + c in plain f64.
fn ln_rounded(m: &mut Calc, k: D, f: D, c: D) -> D {
    let half = m.mul(f, 0.5);
    let half_square = m.mul(half, f);
    let two = m.add(f, 2.0);
    let s = m.div(f, two);
    let z = m.mul(s, s);
    let p = m.poly(z, &TAIL);
    let p = m.fma(p, z, SEVENTH.hi);
    let p = m.fma(p, z, FIFTH.hi);
    let p = m.fma(p, z, THIRD.hi);
    let p = m.mul(p, z);
    let p = m.add(p, p);
    let p = m.add(p, half_square);
    let low = m.fma(k, LN2[1], c);
    let rest = m.fma(s, p, low);
    let t = m.sub(half_square, rest);
    let t = m.sub(t, f);
    let minus = m.neg(t);
    m.fma(k, LN2[0], minus)
}

fn log(m: &mut Calc, x: D) -> D {
    let (v, shift) = normal(m, x);
    let (k, mantissa) = split(m, v);
    let k = m.0.add::<S32>(k, shift);
    let k = m.0.cvt::<F64, S32>(Round::Nearest, k);
    let f = m.add(mantissa, -1.0);
    let zero = m.c(0.0);
    let y = ln_rounded(m, k, f, zero);
    log_ends(m, x, x, y)
}

/// Infinity and NaN give themselves, where `at` is 0 it is -inf, below NaN.
fn log_ends(m: &mut Calc, x: D, at: D, y: D) -> D {
    let finite = m.is(x, Cmp::Lt, f64::INFINITY);
    let y = m.pick(finite, y, x);
    let negative = m.is(at, Cmp::Lt, 0.0);
    let y = m.pick(negative, f64::NAN, y);
    let zero = m.is(at, Cmp::Eq, 0.0);
    m.pick(zero, f64::NEG_INFINITY, y)
}

fn log1p(m: &mut Calc, x: D) -> D {
    let one = m.c(1.0);
    let sum = m.sum(one, x);
    let (k, mantissa) = split(m, sum.hi);
    let k = m.0.cvt::<F64, S32>(Round::Nearest, k);
    let f = m.add(mantissa, -1.0);
    let c = m.div(sum.lo, sum.hi);
    // Near 0 the argument itself is f.
    let (above, below) = (m.is(x, Cmp::Gt, -0.29), m.is(x, Cmp::Lt, 0.41));
    let near = m.0.and_pred(above, below);
    let (k, f, c) = (m.pick(near, 0.0, k), m.pick(near, x, f), m.pick(near, 0.0, c));
    let y = ln_rounded(m, k, f, c);
    let y = log_ends(m, x, sum.hi, y);
    keep_tiny(m, x, 1e-17, y)
}

/// ln of a positive, normal number in double-double.
fn ln(m: &mut Calc, x: Dd) -> Dd {
    let (k, mantissa) = split(m, x.hi);
    // In two factors, since 2^-k may be out of range.
    let half = m.0.shr::<S32>(k, 1);
    let rest = m.0.sub::<S32>(half, k);
    let minus = m.0.sub::<S32>(0, half);
    let (a, b) = (m.power_of_two(minus), m.power_of_two(rest));
    let lo = m.mul(x.lo, a);
    let lo = m.mul(lo, b);
    let f = m.add(mantissa, -1.0);
    let f = m.sum(f, lo);
    let two = m.c(2.0);
    let two = m.dd(two);
    let under = m.add_dd(f, two);
    let s = m.div_dd(f, under);
    let z = m.mul_dd(s, s);
    let p = m.poly(z.hi, &TAIL);
    let low = m.mul(z.hi, p);
    let low = m.add(low, SEVENTH.lo);
    let seventh = m.c(SEVENTH.hi);
    let mut series = m.ordered(seventh, low);
    for c in [FIFTH, THIRD] {
        series = m.mul_dd(z, series);
        let c = Dd { hi: m.c(c.hi), lo: m.c(c.lo) };
        series = m.add_dd(c, series);
    }
    series = m.mul_dd(z, series);
    let part = m.mul_dd(s, series);
    let ln_m = m.add_dd(s, part);
    let ln_m = m.scale_dd(ln_m, 2.0);
    times_ln2(m, k, ln_m)
}

/// `k ln 2 + rest`
fn times_ln2(m: &mut Calc, k: Reg<B32>, rest: Dd) -> Dd {
    let k = m.0.cvt::<F64, S32>(Round::Nearest, k);
    let (a, b) = (m.mul(k, LN2[0]), m.mul(k, LN2[1]));
    let sum = m.sum(a, b);
    let lo = m.fma(k, LN2[2], sum.lo);
    m.add_dd(Dd { hi: sum.hi, lo }, rest)
}

/// ln of any positive, finite number.
fn ln_positive(m: &mut Calc, x: D) -> Dd {
    let (v, shift) = normal(m, x);
    let v = m.dd(v);
    let y = ln(m, v);
    times_ln2(m, shift, y)
}

fn asinh(m: &mut Calc, x: D) -> D {
    let a = m.abs(x);
    let near = limited(m, a, 1e-9, 1e10);
    let square = m.product(near, near);
    let one = m.c(1.0);
    let one = m.dd(one);
    let square = m.add_dd(square, one);
    let root = m.sqrt_dd(square);
    let near = m.dd(near);
    let sum = m.add_dd(root, near);
    let near = ln(m, sum);
    let near = m.value(near);
    let y = large_arc(m, a, near);
    let y = m.with_sign(y, x);
    let y = keep_tiny(m, x, 1e-9, y);
    infinite(m, x, x, y)
}

/// ln(2a) from 1e10 on, where a root of a^2 + 1 or a^2 - 1 is a to 2^-66.
fn large_arc(m: &mut Calc, a: D, near: D) -> D {
    let inside = limited(m, a, 1.0, f64::MAX);
    let far = ln_positive(m, inside);
    let one = m.0.mov(1);
    let far = times_ln2(m, one, far);
    let far = m.value(far);
    let large = m.is(a, Cmp::Gt, 1e10);
    m.pick(large, far, near)
}

/// `there` where x is infinite or NaN.
fn infinite(m: &mut Calc, x: D, there: D, y: D) -> D {
    let size = m.abs(x);
    let finite = m.is(size, Cmp::Lt, f64::INFINITY);
    m.pick(finite, y, there)
}

fn acosh(m: &mut Calc, x: D) -> D {
    let near = limited(m, x, 1.0, 1e10);
    let square = m.product(near, near);
    let minus = m.c(-1.0);
    let minus = m.dd(minus);
    let square = m.add_dd(square, minus);
    let root = m.sqrt_dd(square);
    let near = m.dd(near);
    let sum = m.add_dd(root, near);
    let near = ln(m, sum);
    let near = m.value(near);
    let y = large_arc(m, x, near);
    let y = infinite(m, x, x, y);
    let outside = m.is(x, Cmp::Lt, 1.0);
    m.pick(outside, f64::NAN, y)
}

fn atanh(m: &mut Calc, x: D) -> D {
    let a = m.abs(x);
    let inside = limited(m, a, 1e-9, 1.0 - f64::EPSILON / 2.0);
    let one = m.c(1.0);
    let over = m.sum(one, inside);
    let minus = m.neg(inside);
    let under = m.sum(one, minus);
    let ratio = m.div_dd(over, under);
    let y = ln(m, ratio);
    let y = m.value(y);
    let y = m.mul(y, 0.5);
    let end = m.is(a, Cmp::Eq, 1.0);
    let y = m.pick(end, f64::INFINITY, y);
    let y = m.with_sign(y, x);
    let y = keep_tiny(m, x, 1e-9, y);
    let outside = m.is(a, Cmp::Gt, 1.0);
    m.pick(outside, f64::NAN, y)
}

/// `x` to the power `y`, with the special cases of C99 (F.9.4.4).
pub(in crate::ptx) fn pow(e: &mut Emit, x: Src<F64>, y: Src<F64>) -> D {
    let (x, y) = (in_reg(&mut e.f, x), in_reg(&mut e.f, y));
    let m = &mut Calc(&mut e.f);
    let a = m.abs(x);
    let size = m.abs(y);
    // The ordinary case. |ln a| lies between 2^-53 and 746: beyond these y the result over- or underflows, or is 1.
    let base = limited(m, a, f64::from_bits(1), f64::MAX);
    let exponent = limited(m, y, -1e20, 1e20);
    let log = ln_positive(m, base);
    let exponent = m.dd(exponent);
    let product = m.mul_dd(log, exponent);
    let z = exp_dd(m, product);
    let tiny = m.is(size, Cmp::Lt, 1e-22);
    let unit = m.is(a, Cmp::Eq, 1.0);
    let one = m.0.or_pred(tiny, unit);
    let z = m.pick(one, 1.0, z);
    // 0 and infinity, as base or exponent.
    let (zero, endless) = (m.is(a, Cmp::Eq, 0.0), m.is(a, Cmp::Eq, f64::INFINITY));
    let (up, above) = (m.is(y, Cmp::Gt, 0.0), m.is(a, Cmp::Gt, 1.0));
    let same = |m: &mut Calc, p, q| {
        let differ = m.0.xor_pred(p, q);
        m.pick(differ, 0.0, f64::INFINITY)
    };
    let vanishes = m.0.xor_pred(zero, up);
    let at_end = m.pick(vanishes, f64::INFINITY, 0.0);
    let end = m.0.or_pred(zero, endless);
    let z = m.pick(end, at_end, z);
    // The sign: odd integers keep that of x.
    let whole = m.0.cvt::<F64, F64>(Round::ZeroInt, size);
    let half = m.mul(size, 0.5);
    let half_whole = m.0.cvt::<F64, F64>(Round::ZeroInt, half);
    let is_whole = m.is(whole, Cmp::Eq, size);
    let is_odd = m.is(half_whole, Cmp::Neu, half);
    let odd = m.0.and_pred(is_whole, is_odd);
    let bits: Reg<B64> = m.0.bits::<B64, F64>(x);
    let negative = m.0.setp::<S64>(Cmp::Lt, bits, 0i64);
    let flips = m.0.and_pred(odd, negative);
    let minus = m.neg(z);
    let z = m.pick(flips, minus, z);
    // A negative base and a fraction.
    let below = m.is(x, Cmp::Lt, 0.0);
    let fraction = m.0.not_pred(is_whole);
    let none = m.0.and_pred(below, fraction);
    let not_end = m.0.not_pred(end);
    let none = m.0.and_pred(none, not_end);
    let z = m.pick(none, f64::NAN, z);
    let forever = m.is(size, Cmp::Eq, f64::INFINITY);
    let limit = same(m, above, up);
    let limit = m.pick(unit, 1.0, limit);
    let z = m.pick(forever, limit, z);
    let nan = m.0.setp::<F64>(Cmp::Nan, x, y);
    let z = m.pick(nan, f64::NAN, z);
    let (first, second) = (m.is(y, Cmp::Eq, 0.0), m.is(x, Cmp::Eq, 1.0));
    let always = m.0.or_pred(first, second);
    m.pick(always, 1.0, z)
}

/// The exact remainder of truncated division, with the sign of x: long division on the mantissas, eleven bits a step.
pub(in crate::ptx) fn fmod(e: &mut Emit, x: Src<F64>, y: Src<F64>) -> D {
    let f = &mut e.f;
    let (x, y) = (in_reg(f, x), in_reg(f, y));
    let result = f.mov(f64::NAN);
    let done = f.label();
    let bits: Reg<B64> = f.bits::<B64, F64>(x);
    let sign = f.and(bits, i64::MIN);
    let a = f.and(bits, i64::MAX);
    let y_bits: Reg<B64> = f.bits::<B64, F64>(y);
    let b = f.and(y_bits, i64::MAX);
    // NaN for a NaN, an infinite x or a zero y.
    let infinity = f64::INFINITY.to_bits() as i64;
    let bad_x = f.setp::<U64>(Cmp::Ge, a, infinity);
    let bad_y = f.setp::<U64>(Cmp::Gt, b, infinity);
    let zero = f.setp::<U64>(Cmp::Eq, b, 0i64);
    let bad = f.or_pred(bad_x, bad_y);
    let bad = f.or_pred(bad, zero);
    f.jump_if(bad, true, done);
    f.set(result, x);
    let smaller = f.setp::<U64>(Cmp::Lt, a, b);
    f.jump_if(smaller, true, done);
    let (rest, exponent) = parts(f, a);
    let (divisor, last) = parts(f, b);
    let (rest, left) = (f.mov(rest), f.sub::<S32>(exponent, last));
    let left = f.mov(left);
    let again = f.label();
    let end = f.label();
    f.place(again);
    let r = f.rem::<U64>(rest, divisor);
    f.set(rest, r);
    let finished = f.setp::<S32>(Cmp::Le, left, 0);
    f.jump_if(finished, true, end);
    let step = f.min_int::<S32>(left, 11);
    let up: Reg<B64> = f.shl(rest, step);
    f.set(rest, up);
    let fewer = f.sub::<S32>(left, step);
    f.set(left, fewer);
    f.jump(again);
    f.place(end);
    // The mantissa may have leading zeros; one without its leading bit is subnormal.
    let zeros = f.clz(rest);
    let wanted = f.add::<S32>(zeros, -11);
    let room = f.add::<S32>(last, -1);
    let shift = f.min_int::<S32>(wanted, room);
    let shift = f.max_int::<S32>(shift, 0);
    let mantissa: Reg<B64> = f.shl(rest, shift);
    let exponent = f.sub::<S32>(last, shift);
    let exponent = f.add::<S32>(exponent, -1);
    let exponent = f.cvt::<U64, U32>(Round::None, exponent);
    let exponent: Reg<B64> = f.shl(exponent, 52);
    let joined = f.add::<S64>(mantissa, exponent);
    let none = f.setp::<U64>(Cmp::Eq, rest, 0i64);
    let joined = f.selp::<B64>(none, 0i64, joined);
    let joined = f.or(joined, sign);
    let value: D = f.bits::<F64, B64>(joined);
    f.set(result, value);
    f.place(done);
    result
}

/// Mantissa and exponent (at least 1) of a finite, positive number: `mantissa * 2^(exponent - 1075)`.
fn parts(f: &mut Func, bits: Reg<B64>) -> (Reg<B64>, Reg<B32>) {
    let field = f.shr::<U64>(bits, 52);
    let field = f.cvt::<U32, U64>(Round::None, field);
    let fraction = f.and(bits, (1i64 << 52) - 1);
    let subnormal = f.setp::<U32>(Cmp::Eq, field, 0);
    let lead = f.selp::<B64>(subnormal, 0i64, 1i64 << 52);
    (f.or(fraction, lead), f.max_int::<U32>(field, 1))
}
