//! f64 arithmetic with operators named for their use here, and double-double: sums of two f64, about 106 bits.

use crate::ptx::func::{Cmp, Func, Round};
use crate::ptx::reg::*;

pub type D = Reg<F64>;

/// `hi + lo`, with `lo` below the last place of `hi`.
#[derive(Clone, Copy)]
pub struct Dd {
    pub hi: D,
    pub lo: D,
}

/// The builder, seen as a calculator.
pub struct Calc<'f>(pub &'f mut Func);

impl Calc<'_> {
    pub fn c(&mut self, v: f64) -> D {
        self.0.mov(v)
    }

    pub fn add(&mut self, a: D, b: impl Into<Src<F64>>) -> D {
        self.0.add::<F64>(a, b)
    }

    pub fn sub(&mut self, a: impl Into<Src<F64>>, b: impl Into<Src<F64>>) -> D {
        self.0.sub::<F64>(a, b)
    }

    pub fn mul(&mut self, a: D, b: impl Into<Src<F64>>) -> D {
        self.0.mul::<F64>(a, b)
    }

    pub fn fma(&mut self, a: D, b: impl Into<Src<F64>>, c: impl Into<Src<F64>>) -> D {
        self.0.fma::<F64>(a, b, c)
    }

    pub fn div(&mut self, a: impl Into<Src<F64>>, b: D) -> D {
        self.0.div_float::<F64>(a, b)
    }

    pub fn neg(&mut self, a: D) -> D {
        self.0.neg::<F64>(a)
    }

    pub fn abs(&mut self, a: D) -> D {
        self.0.abs::<F64>(a)
    }

    pub fn is(&mut self, a: D, cmp: Cmp, b: impl Into<Src<F64>>) -> Reg<Pred> {
        self.0.setp::<F64>(cmp, a, b)
    }

    pub fn is_nan(&mut self, a: D) -> Reg<Pred> {
        self.0.setp::<F64>(Cmp::Nan, a, a)
    }

    pub fn pick(&mut self, p: Reg<Pred>, a: impl Into<Src<F64>>, b: impl Into<Src<F64>>) -> D {
        self.0.selp::<F64>(p, a, b)
    }

    pub fn pick_dd(&mut self, p: Reg<Pred>, a: Dd, b: Dd) -> Dd {
        Dd { hi: self.pick(p, a.hi, b.hi), lo: self.pick(p, a.lo, b.lo) }
    }

    /// `c[0] + x * (c[1] + ...)`
    pub fn poly(&mut self, x: D, coefficients: &[f64]) -> D {
        let (&last, rest) = coefficients.split_last().expect("a polynomial has terms");
        let mut sum: Src<F64> = last.into();
        for &c in rest.iter().rev() {
            sum = match sum {
                Src::Imm(_) => {
                    let last = self.0.mov(sum);
                    self.fma(last, x, c).into()
                }
                Src::Reg(r) => self.fma(r, x, c).into(),
            };
        }
        match sum {
            Src::Reg(r) => r,
            imm => self.0.mov(imm),
        }
    }

    /// `magnitude`, which is not negative, with the sign of `sign`.
    pub fn with_sign(&mut self, magnitude: D, sign: D) -> D {
        let bits: Reg<B64> = self.0.bits::<B64, F64>(sign);
        let bit = self.0.and(bits, i64::MIN);
        let own: Reg<B64> = self.0.bits::<B64, F64>(magnitude);
        let both = self.0.or(own, bit);
        self.0.bits::<F64, B64>(both)
    }

    /// The nearest integer, as a float and as an integer.
    pub fn round(&mut self, x: D) -> (D, Reg<B32>) {
        let whole = self.0.cvt::<F64, F64>(Round::NearestInt, x);
        let int = self.0.cvt::<S32, F64>(Round::NearestInt, x);
        (whole, int)
    }

    /// `2^k` for a normal result.
    pub fn power_of_two(&mut self, k: Reg<B32>) -> D {
        let biased = self.0.add::<S32>(k, 1023);
        let high: Reg<B32> = self.0.shl(biased, 20);
        let low = self.0.mov(0);
        let bits = self.0.join(low, high);
        self.0.bits::<F64, B64>(bits)
    }

    // Double-double.

    pub fn dd(&mut self, hi: D) -> Dd {
        Dd { hi, lo: self.c(0.0) }
    }

    /// The exact sum (Knuth).
    pub fn sum(&mut self, a: D, b: impl Into<Src<F64>>) -> Dd {
        let b: Src<F64> = b.into();
        let hi = self.add(a, b);
        let b_part = self.sub(hi, a);
        let a_part = self.sub(hi, b_part);
        let (da, db) = (self.sub(a, a_part), self.sub(b, b_part));
        Dd { hi, lo: self.add(da, db) }
    }

    /// The exact sum for `|a| >= |b|` or `a == 0` (Dekker).
    pub fn ordered(&mut self, a: D, b: D) -> Dd {
        let hi = self.add(a, b);
        let back = self.sub(hi, a);
        Dd { hi, lo: self.sub(b, back) }
    }

    /// The exact product.
    pub fn product(&mut self, a: D, b: D) -> Dd {
        let hi = self.mul(a, b);
        let minus = self.neg(hi);
        Dd { hi, lo: self.fma(a, b, minus) }
    }

    pub fn add_dd(&mut self, a: Dd, b: Dd) -> Dd {
        let (high, low) = (self.sum(a.hi, b.hi), self.sum(a.lo, b.lo));
        let rest = self.add(high.lo, low.hi);
        let middle = self.ordered(high.hi, rest);
        let rest = self.add(middle.lo, low.lo);
        self.ordered(middle.hi, rest)
    }

    pub fn mul_dd(&mut self, a: Dd, b: Dd) -> Dd {
        let high = self.product(a.hi, b.hi);
        let cross = self.mul(a.lo, b.hi);
        let cross = self.fma(a.hi, b.lo, cross);
        let rest = self.add(high.lo, cross);
        self.ordered(high.hi, rest)
    }

    pub fn div_dd(&mut self, a: Dd, b: Dd) -> Dd {
        let hi = self.div(a.hi, b.hi);
        let minus = self.neg(hi);
        // a - hi * b, of which the first part is exact.
        let rest = self.fma(minus, b.hi, a.hi);
        let low = self.fma(minus, b.lo, a.lo);
        let rest = self.add(rest, low);
        let lo = self.div(rest, b.hi);
        self.ordered(hi, lo)
    }

    /// 0 for what is not positive.
    pub fn sqrt_dd(&mut self, a: Dd) -> Dd {
        let zero = self.c(0.0);
        let positive = self.is(a.hi, Cmp::Gt, 0.0);
        let safe = self.pick(positive, a.hi, 1.0);
        let hi = self.0.sqrt::<F64>(safe);
        let minus = self.neg(hi);
        let rest = self.fma(minus, hi, a.hi);
        let rest = self.add(rest, a.lo);
        let twice = self.add(hi, hi);
        let lo = self.div(rest, twice);
        let root = self.ordered(hi, lo);
        self.pick_dd(positive, root, Dd { hi: zero, lo: zero })
    }

    pub fn scale_dd(&mut self, a: Dd, power: impl Into<Src<F64>>) -> Dd {
        let power = power.into();
        Dd { hi: self.mul(a.hi, power), lo: self.mul(a.lo, power) }
    }

    pub fn neg_dd(&mut self, a: Dd) -> Dd {
        Dd { hi: self.neg(a.hi), lo: self.neg(a.lo) }
    }

    pub fn value(&mut self, a: Dd) -> D {
        self.add(a.hi, a.lo)
    }
}
