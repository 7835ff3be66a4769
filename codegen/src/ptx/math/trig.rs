//! sin, cos, tan of f64: x = q pi/2 + r, |r| <= pi/4, with r in double-double at every x, then the Taylor series of r.

use super::dd::{Calc, D, Dd};
use crate::kernel::UnOp;
use crate::ptx::emit::{Emit, in_reg};
use crate::ptx::func::{Cmp, Constant, Func, Round};
use crate::ptx::reg::*;
use crate::runtime::math::trig::{COS, HALF_PI, HALF_PI_DD, SIN};

pub(super) const TWO_OVER_PI: &str = "lehr_two_over_pi";

pub(super) fn emit(e: &mut Emit, op: UnOp, x: Src<F64>) -> D {
    let x = in_reg(&mut e.f, x);
    let (quadrant, r) = reduce(e, x);
    let mut m = Calc(&mut e.f);
    let (sine, cosine) = (sin_reduced(&mut m, r), cos_reduced(&mut m, r));
    let y = match op {
        UnOp::Tan => {
            let odd = bit(m.0, quadrant, 1);
            let minus = m.neg_dd(cosine);
            let (over, under) = (m.pick_dd(odd, minus, sine), m.pick_dd(odd, sine, cosine));
            let y = m.div_dd(over, under);
            m.value(y)
        }
        UnOp::Sin | UnOp::Cos => {
            let quadrant = if op == UnOp::Cos { m.0.add::<S32>(quadrant, 1) } else { quadrant };
            let odd = bit(m.0, quadrant, 1);
            let y = m.pick_dd(odd, cosine, sine);
            let y = m.value(y);
            let negative = bit(m.0, quadrant, 2);
            let minus = m.neg(y);
            m.pick(negative, minus, y)
        }
        other => unreachable!("{other:?} is not trigonometric"),
    };
    // Infinities have no sine; tiny arguments keep the sign of zero.
    let size = m.abs(x);
    let finite = m.is(size, Cmp::Lt, f64::INFINITY);
    let y = m.pick(finite, y, f64::NAN);
    if op == UnOp::Cos {
        return y;
    }
    let tiny = m.is(size, Cmp::Lt, 1e-9);
    m.pick(tiny, x, y)
}

fn bit(f: &mut Func, v: Reg<B32>, mask: i32) -> Reg<Pred> {
    let b = f.and(v, mask);
    f.setp::<U32>(Cmp::Ne, b, 0)
}

/// The quadrant and the remainder. What is large, and rare, is branched over.
fn reduce(e: &mut Emit, x: D) -> (Reg<B32>, Dd) {
    let mut m = Calc(&mut e.f);
    let a = m.abs(x);
    // Cody and Waite, for quotients below 2^12.
    let scaled = m.mul(a, std::f64::consts::FRAC_2_PI);
    let (q, quadrant) = m.round(scaled);
    let head = m.fma(q, -HALF_PI[0], a);
    let second = m.mul(q, -HALF_PI[1]);
    let head = m.sum(head, second);
    let third = m.fma(q, -HALF_PI[2], head.lo);
    let r = m.sum(head.hi, third);
    let large = m.is(a, Cmp::Ge, 2048.0);
    let quadrant = m.0.mov(quadrant);
    let r = Dd { hi: m.0.mov(r.hi), lo: m.0.mov(r.lo) };
    let done = m.0.label();
    m.0.jump_if(large, false, done);
    let (q, far) = reduce_large(e, a);
    e.f.set(quadrant, q);
    e.f.set(r.hi, far.hi);
    e.f.set(r.lo, far.lo);
    e.f.place(done);
    let mut m = Calc(&mut e.f);
    let negative = m.is(x, Cmp::Lt, 0.0);
    let minus = m.neg_dd(r);
    let r = m.pick_dd(negative, minus, r);
    let back = m.0.sub::<S32>(0, quadrant);
    (m.0.selp(negative, back, quadrant), r)
}

/// Payne and Hanek in integers, as the runtime's function describes it.
fn reduce_large(e: &mut Emit, x: D) -> (Reg<B32>, Dd) {
    let f = &mut e.f;
    let bits: Reg<B64> = f.bits::<B64, F64>(x);
    let mantissa = f.and(bits, (1i64 << 52) - 1);
    let mantissa = f.or(mantissa, 1i64 << 52);
    let exponent = f.shr::<U64>(bits, 52);
    let exponent = f.cvt::<U32, U64>(Round::None, exponent);
    let start = f.add::<S32>(exponent, 62 - 1075);
    // NaN and infinities come here too: their windows must lie in the table, whatever they give.
    let start = f.max_int::<S32>(start, 0);
    let start = f.min_int::<S32>(start, 64 * 16);
    let first = f.shr::<U32>(start, 6);
    let shift = f.and(start, 63);
    let back = f.sub::<S32>(64, shift);
    let at = e.table_at(TWO_OVER_PI, first);
    let f = &mut e.f;
    let words: Vec<Reg<B64>> = (0..5).map(|i| f.ld::<Constant, B64>(at, 8 * i)).collect();
    let window = |f: &mut Func, i: usize| {
        let high: Reg<B64> = f.shl(words[i], shift);
        // A shift by 64 gives 0.
        let low = f.shr::<U64>(words[i + 1], back);
        f.or(high, low)
    };
    // Multiply, from the lowest word up, modulo 2^256.
    let mut product = vec![];
    let mut carry: Option<Reg<B64>> = None;
    for i in [3, 2, 1, 0] {
        let w = window(f, i);
        let low = f.mul_lo::<U64>(mantissa, w);
        let high = f.mul_hi::<U64>(mantissa, w);
        let (low, high) = match carry {
            None => (low, high),
            Some(c) => {
                let sum = f.add::<U64>(low, c);
                let over = f.setp::<U64>(Cmp::Lt, sum, c);
                let one = f.selp::<B64>(over, 1i64, 0i64);
                (sum, f.add::<U64>(high, one))
            }
        };
        product.push(low);
        carry = Some(high);
    }
    let (top, a, b, c) = (product[3], product[2], product[1], product[0]);
    let two = f.shr::<U64>(top, 62);
    let half = f.shr::<U64>(top, 61);
    let half = f.and(half, 1i64);
    let quadrant = f.add::<U64>(two, half);
    let quadrant = f.cvt::<U32, U64>(Round::None, quadrant);
    let quadrant = f.and(quadrant, 3);
    // The fraction as a signed number, without its leading zeros.
    let joined = |f: &mut Func, x: Reg<B64>, y: Reg<B64>| {
        let (x, y): (Reg<B64>, Reg<B64>) = (f.shl(x, 2), f.shr::<U64>(y, 62));
        f.or(x, y)
    };
    let parts = [joined(f, top, a), joined(f, a, b), joined(f, b, c)];
    let negative = f.setp::<S64>(Cmp::Lt, parts[0], 0i64);
    let parts = parts.map(|p| {
        let inverse = f.not(p);
        f.selp(negative, inverse, p)
    });
    let zeros = [f.clz(parts[0]), f.clz(parts[1])];
    let empty = f.setp::<U32>(Cmp::Eq, zeros[0], 64);
    let more = f.min_int::<U32>(zeros[1], 63);
    let low_word = f.add::<U32>(more, 64);
    let count = f.selp(empty, low_word, zeros[0]);
    let by = f.selp(empty, more, zeros[0]);
    let (h, l) = (f.selp(empty, parts[1], parts[0]), f.selp(empty, parts[2], parts[1]));
    let rest = f.selp::<B64>(empty, 0i64, parts[2]);
    let back = f.sub::<S32>(64, by);
    let shifted = |f: &mut Func, x: Reg<B64>, y: Reg<B64>| {
        let (x, y): (Reg<B64>, Reg<B64>) = (f.shl(x, by), f.shr::<U64>(y, back));
        f.or(x, y)
    };
    let (high, low) = (shifted(f, h, l), shifted(f, l, rest));
    let lead = f.shr::<U64>(high, 11);
    let (x, y): (Reg<B64>, Reg<B64>) = (f.shl(high, 42), f.shr::<U64>(low, 22));
    let tail = f.or(x, y);
    let tail = f.and(tail, (1i64 << 53) - 1);
    let lead = f.cvt::<F64, U64>(Round::Nearest, lead);
    let tail = f.cvt::<F64, U64>(Round::Nearest, tail);
    let mut m = Calc(f);
    let power = |k: u64| f64::from_bits((1023 - k) << 52);
    let (lead, tail) = (m.mul(lead, power(53)), m.mul(tail, power(106)));
    let fraction = m.ordered(lead, tail);
    let minus = m.0.neg::<S32>(count);
    let scale = m.power_of_two(minus);
    let fraction = m.scale_dd(fraction, scale);
    let half_pi = Dd { hi: m.c(HALF_PI_DD.hi), lo: m.c(HALF_PI_DD.lo) };
    let r = m.mul_dd(fraction, half_pi);
    let minus = m.neg_dd(r);
    (quadrant, m.pick_dd(negative, minus, r))
}

fn sin_reduced(m: &mut Calc, r: Dd) -> Dd {
    let z = m.mul(r.hi, r.hi);
    let p = m.poly(z, &SIN);
    let p = m.mul(p, z);
    let factor = m.fma(z, -0.5, 1.0);
    let low = m.mul(r.lo, factor);
    let low = m.fma(r.hi, p, low);
    m.ordered(r.hi, low)
}

fn cos_reduced(m: &mut Calc, r: Dd) -> Dd {
    let square = m.product(r.hi, r.hi);
    let z = square.hi;
    let half = m.mul(z, -0.5);
    let one = m.c(1.0);
    let head = m.ordered(one, half);
    let p = m.poly(z, &COS);
    let p = m.mul(p, z);
    let p = m.mul(p, z);
    let minus = m.neg(r.hi);
    let p = m.fma(minus, r.lo, p);
    let p = m.fma(square.lo, -0.5, p);
    let low = m.add(head.lo, p);
    m.ordered(head.hi, low)
}
