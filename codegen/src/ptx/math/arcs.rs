//! atan, asin, acos and erf of f64, by tables in constant memory: the algorithms of the runtime's `atan.rs` and `erf.rs`.

use super::dd::{Calc, D, Dd};
use super::double::{keep_tiny, limited};
use crate::kernel::UnOp;
use crate::ptx::emit::Emit;
use crate::ptx::func::{Cmp, Constant, Round};
use crate::ptx::reg::*;
use crate::runtime::math::atan::{HALF_PI, PI, TAYLOR};
use crate::runtime::math::erf::NEAR_ZERO;

pub(super) const ERF: &str = "lehr_erf_taylor";
pub(super) const ATAN: &str = "lehr_atan_eighths";

pub(super) fn arc(e: &mut Emit, op: UnOp, x: D) -> D {
    let m = &mut Calc(&mut e.f);
    let a = m.abs(x);
    let one = m.c(1.0);
    let whole = m.dd(one);
    let argument = match op {
        UnOp::Atan => m.dd(a),
        UnOp::Asin => {
            let inside = limited(m, a, 0.0, 1.0 - f64::EPSILON / 2.0);
            let square = m.product(inside, inside);
            let square = m.neg_dd(square);
            let rest = m.add_dd(whole, square);
            let cosine = m.sqrt_dd(rest);
            let inside = m.dd(inside);
            m.div_dd(inside, cosine)
        }
        UnOp::Acos => {
            // Half the angle: tan(acos(x) / 2) = sqrt((1 - x) / (1 + x))
            let inside = limited(m, x, -1.0 + f64::EPSILON / 2.0, 1.0);
            let minus = m.neg(inside);
            let (over, under) = (m.sum(one, minus), m.sum(one, inside));
            let ratio = m.div_dd(over, under);
            m.sqrt_dd(ratio)
        }
        other => unreachable!("{other:?} is no arc"),
    };
    let y = atan_dd(e, argument);
    let m = &mut Calc(&mut e.f);
    let y = m.value(y);
    if op == UnOp::Acos {
        let y = m.add(y, y);
        let end = m.is(x, Cmp::Eq, -1.0);
        let y = m.pick(end, PI, y);
        return outside_one(m, a, y);
    }
    let y = if op == UnOp::Asin {
        let end = m.is(a, Cmp::Eq, 1.0);
        m.pick(end, HALF_PI.hi, y)
    } else {
        y
    };
    let y = m.with_sign(y, x);
    let y = keep_tiny(m, x, 1e-9, y);
    match op {
        UnOp::Asin => outside_one(m, a, y),
        UnOp::Atan => {
            let nan = m.is_nan(x);
            m.pick(nan, x, y)
        }
        other => unreachable!("{other:?} has returned, or is no arc"),
    }
}

/// NaN where `a` is not within 1.
fn outside_one(m: &mut Calc, a: D, y: D) -> D {
    let inside = m.is(a, Cmp::Le, 1.0);
    m.pick(inside, y, f64::NAN)
}

/// atan of a number that is not negative.
fn atan_dd(e: &mut Emit, x: Dd) -> Dd {
    let m = &mut Calc(&mut e.f);
    let h = limited(m, x.hi, 0.0, 1e20);
    let lo = {
        let huge = m.is(x.hi, Cmp::Gt, 1e20);
        m.pick(huge, 0.0, x.lo)
    };
    // An error of l in x is one of l / (1 + x^2) in the result.
    let square = m.fma(h, h, 1.0);
    let correction = m.div(lo, square);
    let small = m.is(h, Cmp::Le, 1.0);
    let inverse = m.div(1.0, h);
    let within = m.pick(small, h, inverse);
    let eighths = m.mul(within, 8.0);
    let eighths = m.add(eighths, 0.5);
    let index = m.0.cvt::<S32, F64>(Round::ZeroInt, eighths);
    // NaN gives any index; the result is not used.
    let index = m.0.max_int::<S32>(index, 0);
    let index = m.0.min_int::<S32>(index, 8);
    let c = m.0.cvt::<F64, S32>(Round::Nearest, index);
    let c = m.mul(c, 0.125);
    let twice = m.0.add::<S32>(index, index);
    let at = e.table_at(ATAN, twice);
    let hi = e.f.ld::<Constant, F64>(at, 0);
    let base_lo = e.f.ld::<Constant, F64>(at, 8);
    let m = &mut Calc(&mut e.f);
    let minus = m.neg(h);
    let (over_near, under_near) = (m.sub(h, c), m.fma(h, c, 1.0));
    let (over_far, under_far) = (m.fma(minus, c, 1.0), m.add(h, c));
    let (over, under) = (m.pick(small, over_near, over_far), m.pick(small, under_near, under_far));
    let t = m.div(over, under);
    let z = m.mul(t, t);
    let p = m.poly(z, &TAYLOR);
    let p = m.mul(p, z);
    let rest = m.fma(p, t, base_lo);
    let angle = m.sum(hi, t);
    let angle_lo = m.add(angle.lo, rest);
    let near_lo = m.add(angle_lo, correction);
    let near = m.ordered(angle.hi, near_lo);
    let far_lo = m.sub(angle_lo, correction);
    let far = m.ordered(angle.hi, far_lo);
    let far = m.neg_dd(far);
    let half_pi = Dd { hi: m.c(HALF_PI.hi), lo: m.c(HALF_PI.lo) };
    let far = m.add_dd(half_pi, far);
    m.pick_dd(small, near, far)
}

pub(super) fn erf(e: &mut Emit, x: D) -> D {
    let m = &mut Calc(&mut e.f);
    let a = m.abs(x);
    let square = m.mul(x, x);
    let p = m.poly(square, &NEAR_ZERO);
    let near = m.fma(p, x, x);
    // Intervals of width 1/4, the first from 1/4 on; 1 from 6 on.
    let inside = limited(m, a, 0.25, 5.9375);
    let quarters = m.mul(inside, 4.0);
    let index = m.0.cvt::<S32, F64>(Round::ZeroInt, quarters);
    let index = m.0.max_int::<S32>(index, 1);
    let index = m.0.min_int::<S32>(index, 23);
    let middle = m.0.cvt::<F64, S32>(Round::Nearest, index);
    let middle = m.fma(middle, 0.25, 0.125);
    let t = m.sub(a, middle);
    let row = m.0.add::<S32>(index, -1);
    let row: Reg<B32> = m.0.shl(row, 4);
    let at = e.table_at(ERF, row);
    let mut sum = e.f.ld::<Constant, F64>(at, 8 * 15);
    for i in (0..15).rev() {
        let c = e.f.ld::<Constant, F64>(at, 8 * i);
        sum = e.f.fma::<F64>(sum, t, c);
    }
    let m = &mut Calc(&mut e.f);
    let end = m.is(a, Cmp::Ge, 6.0);
    let far = m.pick(end, 1.0, sum);
    let far = m.with_sign(far, x);
    let small = m.is(a, Cmp::Lt, 0.25);
    let y = m.pick(small, near, far);
    let nan = m.is_nan(x);
    m.pick(nan, x, y)
}
