//! Arithmetic on the lanes of a warp: the loops around `scalar`.

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Binary, Bool, Mode, Op, Reg, Src, Ternary, Test};
use crate::scalar;
use crate::types::{Round, Type};

use super::Machine;
use super::warp::{Lanes, Warp, each};

/// `f` of each lane in the mask; of all, without looking at the mask, if it is full.
#[inline(always)]
fn map(lanes: u32, f: impl Fn(usize) -> u64) -> Lanes {
    let mut out = [0; 32];
    if lanes == u32::MAX {
        for (lane, value) in out.iter_mut().enumerate() {
            *value = f(lane);
        }
    } else {
        for lane in each(lanes) {
            out[lane as usize] = f(lane as usize);
        }
    }
    out
}

fn ballot(lanes: u32, f: impl Fn(usize) -> bool) -> u32 {
    each(lanes).filter(|&lane| f(lane as usize)).map(|lane| 1 << lane).sum()
}

fn plain(mode: Mode) -> bool {
    mode.round == Round::Nearest && !mode.ftz && !mode.sat && !mode.relu
}

impl Machine<'_> {
    pub(super) fn arithmetic(&mut self, warp: &mut Warp<'_>, op: &Op, lanes: u32) -> Checked<()> {
        match op {
            Op::Mov { d, a } => {
                let values = warp.get(*a, lanes)?;
                warp.set(*d, &values, lanes);
            }
            Op::MovPred { d, a } => {
                let value = warp.pred_src(*a, lanes)?;
                warp.set_pred(*d, value, lanes);
            }
            Op::Pack { d, parts, bits } => {
                let mut out = [0; 32];
                for (i, part) in parts.iter().enumerate() {
                    let values = warp.get(*part, lanes)?;
                    for (to, from) in out.iter_mut().zip(values) {
                        *to |= from << (i as u32 * bits);
                    }
                }
                warp.set(*d, &out, lanes);
            }
            Op::Unpack { d, a, bits } => {
                let values = warp.get(*a, lanes)?;
                let mask = (1u64 << bits) - 1;
                for (i, d) in d.iter().enumerate() {
                    if let Some(d) = d {
                        warp.set(*d, &values.map(|v| v >> (i as u32 * bits) & mask), lanes);
                    }
                }
            }
            Op::Unary { op, ty, mode, d, a } => {
                let a = warp.get(*a, lanes)?;
                warp.set(*d, &map(lanes, |i| scalar::unary(*op, *ty, *mode, a[i])), lanes);
            }
            Op::Binary { op, ty, mode, d, a, b } => self.binary(warp, *op, *ty, *mode, *d, [*a, *b], lanes)?,
            Op::Ternary { op, ty, mode, d, a, b, c } => {
                let (a, b, c) = (warp.get(*a, lanes)?, warp.get(*b, lanes)?, warp.get(*c, lanes)?);
                let out = match (op, ty) {
                    (Ternary::Fma, Type::F32) if plain(*mode) => map(lanes, |i| {
                        let value = f(a[i]).mul_add(f(b[i]), f(c[i]));
                        if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) }
                    }),
                    (Ternary::Mad, Type::U32 | Type::S32) => {
                        map(lanes, |i| a[i].wrapping_mul(b[i]).wrapping_add(c[i]) & 0xffff_ffff)
                    }
                    _ => map(lanes, |i| scalar::ternary(*op, *ty, *mode, a[i], b[i], c[i])),
                };
                warp.set(*d, &out, lanes);
            }
            Op::Bfi { ty, d, a, b, c, e } => {
                let (a, b) = (warp.get(*a, lanes)?, warp.get(*b, lanes)?);
                let (c, e) = (warp.get(*c, lanes)?, warp.get(*e, lanes)?);
                warp.set(*d, &map(lanes, |i| scalar::int::insert_bits(*ty, a[i], b[i], c[i], e[i])), lanes);
            }
            Op::Carry { op, ty, d, a, b, c, carry_in, carry_out } => {
                let (a, b, c) = (warp.get(*a, lanes)?, warp.get(*b, lanes)?, warp.get(*c, lanes)?);
                let missing = lanes & !warp.carry_written;
                if *carry_in && missing != 0 {
                    let lane = missing.trailing_zeros();
                    return trouble(FaultKind::UninitialisedRegister, lane, "the carry flag is read before it is set");
                }
                let carry = if *carry_in { warp.carry } else { 0 };
                let mut out = [0; 32];
                let mut flags = 0;
                for lane in each(lanes) {
                    let i = lane as usize;
                    let (value, flag) = scalar::int::carry(*op, *ty, a[i], b[i], c[i], carry >> lane & 1 == 1);
                    out[i] = value;
                    flags |= u32::from(flag) << lane;
                }
                warp.set(*d, &out, lanes);
                if *carry_out {
                    warp.carry = warp.carry & !lanes | flags;
                    warp.carry_written |= lanes;
                }
            }
            Op::PredLogic { op, d, a, b } => {
                let (a, b) = (warp.pred_src(*a, lanes)?, warp.pred_src(*b, lanes)?);
                warp.set_pred(*d, combine(*op, a, b), lanes);
            }
            Op::PredNot { d, a } => {
                let a = warp.pred_src(*a, lanes)?;
                warp.set_pred(*d, !a, lanes);
            }
            Op::Setp { test, d, not_d } => {
                let (holds, other) = self.test(warp, test, lanes)?;
                if let Some(d) = d {
                    warp.set_pred(*d, holds, lanes);
                }
                if let Some(d) = not_d {
                    warp.set_pred(*d, other, lanes);
                }
            }
            Op::Set { test, to, d } => {
                let (holds, _) = self.test(warp, test, lanes)?;
                let one = if *to == Type::F32 { u64::from(1f32.to_bits()) } else { 0xffff_ffff };
                warp.set(*d, &map(lanes, |i| if holds >> i & 1 == 1 { one } else { 0 }), lanes);
            }
            Op::Selp { d, a, b, p } => {
                let p = warp.pred_src(*p, lanes)?;
                // Only the chosen operand is read.
                let (a, b) = (warp.get(*a, lanes & p)?, warp.get(*b, lanes & !p)?);
                warp.set(*d, &map(lanes, |i| if p >> i & 1 == 1 { a[i] } else { b[i] }), lanes);
            }
            Op::Slct { ftz, by, d, a, b, c, .. } => {
                let c = warp.get(*c, lanes)?;
                let first = ballot(lanes, |i| match by {
                    Type::F32 => {
                        let c = if *ftz { scalar::float::flush(Type::F32, c[i]) } else { c[i] };
                        f(c) >= 0.0
                    }
                    _ => c[i] as i32 >= 0,
                });
                let (a, b) = (warp.get(*a, lanes & first)?, warp.get(*b, lanes & !first)?);
                warp.set(*d, &map(lanes, |i| if first >> i & 1 == 1 { a[i] } else { b[i] }), lanes);
            }
            Op::TestFinite { kind, ty, d, a } => {
                let a = warp.get(*a, lanes)?;
                warp.set_pred(*d, ballot(lanes, |i| scalar::test_float(*kind, *ty, a[i])), lanes);
            }
            Op::Convert(convert) => {
                let a = warp.get(convert.a, lanes)?;
                let b = warp.get(convert.b.unwrap_or(Src::Imm(0)), lanes)?;
                let wide = warp.function().regs[usize::from(convert.d)];
                let out = map(lanes, |i| widen(convert.to, wide, scalar::convert::convert(convert, a[i], b[i])));
                warp.set(convert.d, &out, lanes);
            }
            _ => unreachable!("the dispatcher sends arithmetic here"),
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    fn binary(
        &mut self,
        warp: &mut Warp<'_>,
        op: Binary,
        ty: Type,
        mode: Mode,
        d: Reg,
        [a, b]: [Src; 2],
        lanes: u32,
    ) -> Checked<()> {
        let (a, b) = (warp.get(a, lanes)?, warp.get(b, lanes)?);
        let canonical = |value: f32| if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) };
        let mask = ty.mask();
        let out = match (op, ty) {
            (Binary::Add, Type::F32) if plain(mode) => map(lanes, |i| canonical(f(a[i]) + f(b[i]))),
            (Binary::Mul, Type::F32) if plain(mode) => map(lanes, |i| canonical(f(a[i]) * f(b[i]))),
            (Binary::Add, Type::U32 | Type::S32 | Type::U64 | Type::S64) if !mode.sat => {
                map(lanes, |i| a[i].wrapping_add(b[i]) & mask)
            }
            (Binary::And, _) => map(lanes, |i| a[i] & b[i]),
            (Binary::Div | Binary::Rem, _) if !ty.is_float() => {
                if let Some(lane) = each(lanes).find(|&lane| b[lane as usize] & mask == 0) {
                    return trouble(FaultKind::DivisionByZero, lane, "an integer is divided by zero");
                }
                map(lanes, |i| scalar::binary(op, ty, mode, a[i], b[i]))
            }
            _ => map(lanes, |i| scalar::binary(op, ty, mode, a[i], b[i])),
        };
        warp.set(d, &out, lanes);
        Ok(())
    }

    /// The lanes where a comparison, combined as told, holds; and where its negation, combined likewise,
    /// does.
    fn test(&mut self, warp: &Warp<'_>, test: &Test, lanes: u32) -> Checked<(u32, u32)> {
        let (a, b) = (warp.get(test.a, lanes)?, warp.get(test.b, lanes)?);
        let half = match test.ty {
            Type::F16x2 => Type::F16,
            Type::Bf16x2 => Type::Bf16,
            ty => ty,
        };
        let at = |shift: u32, mask: u64| {
            let part = |x: u64| x >> shift & mask;
            ballot(lanes, |i| scalar::compare(test.compare, half, test.ftz, part(a[i]), part(b[i])))
        };
        // Of packed pairs the second result is the upper half's, not the negation.
        let (first, second) = if half == test.ty {
            let holds = at(0, u64::MAX);
            (holds, !holds)
        } else {
            (at(0, 0xffff), at(16, 0xffff))
        };
        let Some((op, c)) = test.combine else { return Ok((first, second)) };
        let c = warp.pred_src(c, lanes)?;
        Ok((combine(op, first, c), combine(op, second, c)))
    }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn combine(op: Bool, a: u32, b: u32) -> u32 {
    match op {
        Bool::And => a & b,
        Bool::Or => a | b,
        Bool::Xor => a ^ b,
    }
}

/// A value of type `ty` as a wider register holds it: signed values are extended by their sign.
pub fn widen(ty: Type, register: Type, bits: u64) -> u64 {
    if ty.is_signed() && register.bits() > ty.bits() { ty.extend(bits) as u64 & register.mask() } else { bits }
}
