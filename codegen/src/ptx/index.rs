//! Index arithmetic: i64 in the kernel, 32 bits on the GPU wherever ranges allow, with what is known about a value.
//!
//! An [`Index`] is `register + constant + lane * stride`. Constants go into the offsets of loads and stores; stride and
//! divisibility say whether the lanes of a thread can be moved by one access of 8 or 16 bytes.

use super::func::{Cmp, Func, Round};
use super::reg::*;
use crate::kernel::{BinOp, CmpOp};

/// A signed integer in a register.
#[derive(Clone, Copy, Debug)]
pub enum IntReg {
    Narrow(Reg<B32>),
    Wide(Reg<B64>),
}

/// An i64 value, one per lane of the thread.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    pub reg: Option<IntReg>,
    pub plus: i64,
    /// From lane to lane.
    pub stride: i64,
    /// Divides the value of lane 0; 0 for the value 0.
    pub multiple: i64,
    /// Bounds of all lanes, inclusive.
    pub low: i64,
    pub high: i64,
}

impl Index {
    pub fn constant(n: i64) -> Index {
        Index { reg: None, plus: n, stride: 0, multiple: divisor(n.unsigned_abs() as u128), low: n, high: n }
    }

    /// A register whose value lies in `low..=high` and is a multiple of `multiple`.
    pub fn register(reg: IntReg, multiple: i64, low: i64, high: i64) -> Index {
        Index { reg: Some(reg), plus: 0, stride: 0, multiple, low, high }
    }

    /// A 64-bit register of which nothing is known.
    pub fn unknown(reg: Reg<B64>) -> Index {
        Index::register(IntReg::Wide(reg), 1, i64::MIN, i64::MAX)
    }

    pub fn as_constant(&self) -> Option<i64> {
        (self.reg.is_none() && self.stride == 0).then_some(self.plus)
    }

    pub fn lane(&self, lane: usize) -> Index {
        let shift = self.stride * lane as i64;
        Index { plus: self.plus.wrapping_add(shift), stride: 0, multiple: gcd(self.multiple, shift), ..*self }
    }

    fn is_narrow(&self) -> bool {
        matches!(self.reg, None | Some(IntReg::Narrow(_)))
    }
}

pub fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    divisor(a as u128)
}

/// A number that divides `n`, and fits: n itself, or its power of two.
fn divisor(n: u128) -> i64 {
    if n <= 1 << 40 { n as i64 } else { 1 << n.trailing_zeros().min(40) }
}

fn fits(low: i64, high: i64) -> bool {
    low >= i32::MIN as i64 && high <= i32::MAX as i64
}

/// Saturating bounds keep "unknown" unknown.
fn bounds(values: [i128; 4]) -> (i64, i64) {
    let clamp = |v: i128| v.clamp(i64::MIN as i128, i64::MAX as i128) as i64;
    let low = values.iter().min().expect("four values");
    let high = values.iter().max().expect("four values");
    // What might wrap is unknown.
    if *low < i64::MIN as i128 || *high > i64::MAX as i128 { (i64::MIN, i64::MAX) } else { (clamp(*low), clamp(*high)) }
}

impl Func {
    /// The value of lane 0 in 32 bits, which its bounds must allow.
    pub fn narrow(&mut self, i: &Index) -> Src<B32> {
        match i.reg {
            None => Src::from(i.plus as i32),
            Some(IntReg::Narrow(r)) if i.plus == 0 => r.into(),
            Some(IntReg::Narrow(r)) => self.add::<S32>(r, i.plus as i32).into(),
            Some(IntReg::Wide(r)) => {
                let low = self.cvt::<U32, U64>(Round::None, r);
                if i.plus == 0 { low.into() } else { self.add::<S32>(low, i.plus as i32).into() }
            }
        }
    }

    /// The value of lane 0 in 64 bits.
    pub fn wide(&mut self, i: &Index) -> Src<B64> {
        let reg = match i.reg {
            None => return Src::from(i.plus),
            Some(IntReg::Narrow(r)) => self.cvt::<S64, S32>(Round::None, r),
            Some(IntReg::Wide(r)) => r,
        };
        if i.plus == 0 { reg.into() } else { self.add::<S64>(reg, i.plus).into() }
    }

    /// Whether 32 bits do for lane 0, before and after its constant is added.
    pub fn is_narrow(&self, i: &Index) -> bool {
        let (low, high) = (i.low as i128 - i.plus as i128, i.high as i128 - i.plus as i128);
        fits(i.low, i.high) && low >= i32::MIN as i128 && high <= i32::MAX as i128 && fits(i.plus, i.plus)
    }

    pub fn add_index(&mut self, a: &Index, b: &Index) -> Index {
        let (low, high) = bounds([
            a.low as i128 + b.low as i128,
            a.high as i128 + b.high as i128,
            a.low as i128 + b.low as i128,
            a.high as i128 + b.high as i128,
        ]);
        let plus = a.plus.wrapping_add(b.plus);
        let (la, lb) = (a.low as i128 - a.plus as i128, b.low as i128 - b.plus as i128);
        let (ha, hb) = (a.high as i128 - a.plus as i128, b.high as i128 - b.plus as i128);
        let reg = match (a.reg, b.reg) {
            (None, r) | (r, None) => r,
            (Some(IntReg::Narrow(x)), Some(IntReg::Narrow(y)))
                if la + lb >= i32::MIN as i128 && ha + hb <= i32::MAX as i128 =>
            {
                Some(IntReg::Narrow(self.add::<S32>(x, y)))
            }
            (Some(x), Some(y)) => {
                let (x, y) = (self.widened(x), self.widened(y));
                Some(IntReg::Wide(self.add::<S64>(x, y)))
            }
        };
        let multiple = gcd(a.multiple, b.multiple);
        Index { reg, plus, stride: a.stride.wrapping_add(b.stride), multiple, low, high }
    }

    fn widened(&mut self, r: IntReg) -> Reg<B64> {
        match r {
            IntReg::Narrow(r) => self.cvt::<S64, S32>(Round::None, r),
            IntReg::Wide(r) => r,
        }
    }

    pub fn scale_index(&mut self, a: &Index, by: i64) -> Index {
        if by == 0 {
            return Index::constant(0);
        }
        let ends = [a.low as i128 * by as i128, a.high as i128 * by as i128];
        let (low, high) = bounds([ends[0], ends[1], ends[0], ends[1]]);
        let (rl, rh) = ((a.low as i128 - a.plus as i128) * by as i128, (a.high as i128 - a.plus as i128) * by as i128);
        let in_i32 = |v: i128| v >= i32::MIN as i128 && v <= i32::MAX as i128;
        let reg = match a.reg {
            None => None,
            r if by == 1 => r,
            Some(IntReg::Narrow(r)) if in_i32(rl) && in_i32(rh) && fits(by, by) => {
                Some(IntReg::Narrow(match shift_of(by) {
                    Some(shift) => self.shl(r, shift),
                    None => self.mul_lo::<S32>(r, by as i32),
                }))
            }
            Some(r) => {
                let r = self.widened(r);
                Some(IntReg::Wide(match shift_of(by) {
                    Some(shift) => self.shl(r, shift),
                    None => self.mul_lo::<S64>(r, by),
                }))
            }
        };
        let multiple = divisor((a.multiple as i128 * (by as i128).abs()) as u128);
        Index { reg, plus: a.plus.wrapping_mul(by), stride: a.stride.wrapping_mul(by), multiple, low, high }
    }

    /// `a op b` for lanes that are a fixed distance apart; `None` where they would not be.
    pub fn index_op(&mut self, op: BinOp, a: &Index, b: &Index, lanes: usize) -> Option<Index> {
        match (op, a.as_constant(), b.as_constant()) {
            (BinOp::Add, ..) => return Some(self.add_index(a, b)),
            (BinOp::Sub, ..) => {
                let minus = self.scale_index(b, -1);
                return Some(self.add_index(a, &minus));
            }
            (BinOp::Mul, Some(n), _) => return Some(self.scale_index(b, n)),
            (BinOp::Mul, _, Some(n)) => return Some(self.scale_index(a, n)),
            (BinOp::Div | BinOp::Rem, _, Some(n)) if n > 0 && a.low >= 0 && a.stride == 1 => {
                // All lanes lie between the same two multiples of n.
                let w = lanes as i64;
                if n % w != 0 || a.multiple % w != 0 {
                    return None;
                }
                let first = Index { stride: 0, ..*a };
                let q = self.index_op(op, &first, b, lanes)?;
                return Some(if op == BinOp::Div { q } else { Index { stride: 1, high: n - 1, ..q } });
            }
            _ => {}
        }
        (a.stride == 0 && b.stride == 0).then(|| self.uniform_op(op, a, b))
    }

    fn uniform_op(&mut self, op: BinOp, a: &Index, b: &Index) -> Index {
        if let Some(known) = folded(op, a, b) {
            return known;
        }
        let ends = |f: fn(i128, i128) -> i128| {
            let v = [(a.low, b.low), (a.low, b.high), (a.high, b.low), (a.high, b.high)];
            bounds(v.map(|(x, y)| f(x as i128, y as i128)))
        };
        let constant = b.as_constant();
        let (low, high) = match op {
            BinOp::Mul => ends(|x, y| x * y),
            BinOp::Min => (a.low.min(b.low), a.high.min(b.high)),
            BinOp::Max => (a.low.max(b.low), a.high.max(b.high)),
            BinOp::Div => match constant {
                Some(n) if n > 0 => (a.low / n, a.high / n),
                _ => (i64::MIN, i64::MAX),
            },
            BinOp::Rem => match constant {
                Some(n) if n > 0 && a.low >= 0 => (0, a.high.min(n - 1)),
                Some(n) if n > 0 => (1 - n, n - 1),
                _ => (i64::MIN, i64::MAX),
            },
            BinOp::And if a.low >= 0 && b.low >= 0 => (0, a.high.min(b.high)),
            BinOp::Add | BinOp::Sub | BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr | BinOp::Pow => {
                (i64::MIN, i64::MAX)
            }
        };
        let multiple = match op {
            BinOp::Mul => divisor((a.multiple as i128 * b.multiple as i128) as u128),
            BinOp::Min | BinOp::Max => gcd(a.multiple, b.multiple),
            BinOp::Rem => gcd(a.multiple, b.multiple),
            BinOp::Div => constant.filter(|&n| n > 0 && a.multiple % n == 0).map_or(1, |n| (a.multiple / n).max(1)),
            BinOp::Add | BinOp::Sub | BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr | BinOp::Pow => 1,
        };
        if self.is_narrow(a) && self.is_narrow(b) && a.is_narrow() && b.is_narrow() && fits(low, high) {
            let positive = a.low >= 0 && b.low >= 0;
            let power = constant.and_then(shift_of);
            let (x, y) = (self.narrow(a), self.narrow(b));
            let r = match op {
                BinOp::Mul => self.mul_lo::<S32>(x, y),
                BinOp::Min => self.min_int::<S32>(x, y),
                BinOp::Max => self.max_int::<S32>(x, y),
                BinOp::And => self.and(x, y),
                BinOp::Div if let Some(shift) = power.filter(|_| positive) => self.shr::<U32>(x, shift),
                BinOp::Rem if let Some(shift) = power.filter(|_| positive) => self.and(x, (1 << shift) - 1),
                BinOp::Div if positive && constant.is_some() => self.div_int::<U32>(x, y),
                BinOp::Rem if positive && constant.is_some() => self.rem::<U32>(x, y),
                BinOp::Div if constant.is_some() => self.div_int::<S32>(x, y),
                BinOp::Rem if constant.is_some() => self.rem::<S32>(x, y),
                BinOp::Div
                | BinOp::Rem
                | BinOp::Add
                | BinOp::Sub
                | BinOp::Or
                | BinOp::Xor
                | BinOp::Shl
                | BinOp::Shr
                | BinOp::Pow => return self.wide_op(op, a, b, multiple, (low, high)),
            };
            return Index::register(IntReg::Narrow(r), multiple, low, high);
        }
        self.wide_op(op, a, b, multiple, (low, high))
    }

    fn wide_op(&mut self, op: BinOp, a: &Index, b: &Index, multiple: i64, (low, high): (i64, i64)) -> Index {
        let (x, y) = (self.wide(a), self.wide(b));
        let r = self.int_op::<S64, B64>(op, x, y, b.as_constant());
        if fits(low, high) {
            // What follows has 32 bits.
            return Index::register(IntReg::Narrow(self.cvt::<U32, U64>(Round::None, r)), multiple, low, high);
        }
        Index::register(IntReg::Wide(r), multiple, low, high)
    }

    /// Of integers as the kernel IR defines them: sums and products wrap, division by zero gives 0.
    pub fn int_op<T: Integer<Class = C>, C: Bits>(
        &mut self,
        op: BinOp,
        x: Src<C>,
        y: Src<C>,
        divisor: Option<i64>,
    ) -> Reg<C>
    where
        Src<C>: FromInt,
    {
        let int = <Src<C> as FromInt>::from_int;
        match op {
            BinOp::Add => self.add::<T>(x, y),
            BinOp::Sub => self.sub::<T>(x, y),
            BinOp::Mul => self.mul_lo::<T>(x, y),
            BinOp::Min => self.min_int::<T>(x, y),
            BinOp::Max => self.max_int::<T>(x, y),
            BinOp::And => self.and(x, y),
            BinOp::Or => self.or(x, y),
            BinOp::Xor => self.xor(x, y),
            BinOp::Shl | BinOp::Shr => {
                // The amount is in range, and a 32-bit operand in PTX.
                let by = self.shift_amount(y);
                if op == BinOp::Shl { self.shl(x, by) } else { self.shr::<T>(x, by) }
            }
            BinOp::Div | BinOp::Rem => {
                let signed = T::NAME.starts_with('s');
                if let Some(n) = divisor
                    && n != 0
                    && n != -1
                {
                    return if op == BinOp::Div { self.div_int::<T>(x, y) } else { self.rem::<T>(x, y) };
                }
                let by_zero = self.setp::<T>(Cmp::Eq, y, int(0));
                let mut safe = self.selp(by_zero, int(1), y);
                let minus = signed.then(|| self.setp::<T>(Cmp::Eq, y, int(-1)));
                if let Some(minus) = minus {
                    safe = self.selp(minus, int(1), safe);
                }
                let mut r = if op == BinOp::Div { self.div_int::<T>(x, safe) } else { self.rem::<T>(x, safe) };
                if let Some(minus) = minus {
                    let special = if op == BinOp::Div { self.sub::<T>(int(0), x).into() } else { int(0) };
                    r = self.selp(minus, special, r);
                }
                self.selp(by_zero, int(0), r)
            }
            BinOp::Pow => unreachable!("Pow is for floats"),
        }
    }

    fn shift_amount<C: Bits>(&mut self, y: Src<C>) -> Src<B32> {
        match y {
            Src::Imm(n) => Src::Imm(n & 0xffff_ffff),
            Src::Reg(r) if C::ID == ClassId::B64 => self.cvt::<U32, U64>(Round::None, Reg::<B64>::new(r.n)).into(),
            Src::Reg(r) => Reg::<B32>::new(r.n).into(),
        }
    }

    /// A comparison of lane 0 of two values.
    pub fn compare_index(&mut self, op: CmpOp, a: &Index, b: &Index) -> Reg<Pred> {
        let cmp = cmp_of(op);
        if a.is_narrow() && b.is_narrow() && self.is_narrow(a) && self.is_narrow(b) {
            let (x, y) = (self.narrow(a), self.narrow(b));
            return self.setp::<S32>(cmp, x, y);
        }
        let (x, y) = (self.wide(a), self.wide(b));
        self.setp::<S64>(cmp, x, y)
    }
}

/// The result where constants or bounds decide it.
fn folded(op: BinOp, a: &Index, b: &Index) -> Option<Index> {
    let divisor = b.as_constant().filter(|&n| n > 0);
    match (op, divisor) {
        (BinOp::Div, Some(1)) => return Some(*a),
        (BinOp::Rem, Some(1)) => return Some(Index::constant(0)),
        (BinOp::Div, Some(n)) if a.low >= 0 && a.high < n => return Some(Index::constant(0)),
        (BinOp::Rem, Some(n)) if a.low >= 0 && a.high < n => return Some(*a),
        (BinOp::Min, _) if a.high <= b.low => return Some(*a),
        (BinOp::Min, _) if b.high <= a.low => return Some(*b),
        (BinOp::Max, _) if a.low >= b.high => return Some(*a),
        (BinOp::Max, _) if b.low >= a.high => return Some(*b),
        // What is left takes constants.
        _ => {}
    }
    let (x, y) = (a.as_constant()?, b.as_constant()?);
    let value = match op {
        BinOp::Div if y > 0 => x / y,
        BinOp::Rem if y > 0 => x % y,
        BinOp::And => x & y,
        BinOp::Or => x | y,
        BinOp::Xor => x ^ y,
        _ => return None,
    };
    Some(Index::constant(value))
}

fn shift_of(by: i64) -> Option<i32> {
    (by > 0 && (by as u64).is_power_of_two()).then(|| by.trailing_zeros() as i32)
}

/// Of integers, and ordered for floats but for `Ne`, which NaN satisfies.
pub fn cmp_of(op: CmpOp) -> Cmp {
    match op {
        CmpOp::Eq => Cmp::Eq,
        CmpOp::Ne => Cmp::Ne,
        CmpOp::Lt => Cmp::Lt,
        CmpOp::Le => Cmp::Le,
        CmpOp::Gt => Cmp::Gt,
        CmpOp::Ge => Cmp::Ge,
    }
}

/// Integer constants of a class.
pub trait FromInt {
    fn from_int(n: i64) -> Self;
}

impl FromInt for Src<B32> {
    fn from_int(n: i64) -> Src<B32> {
        Src::from(n as i32)
    }
}

impl FromInt for Src<B64> {
    fn from_int(n: i64) -> Src<B64> {
        Src::from(n)
    }
}
