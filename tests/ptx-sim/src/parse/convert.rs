//! Decodes `cvt` (PTX ISA 9.7.9.21), which has two types and its own rules about rounding.

use crate::inst::{Convert, Op};
use crate::types::{Round, Type};

use super::operand::{Decoder, Result};

impl Decoder<'_, '_> {
    pub(super) fn convert(&mut self) -> Result<Op> {
        let integral =
            self.choice(&[("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)]);
        let away = self.flag("rna").then_some(Round::NearestAway);
        let float_round = self.rounding().or(away);
        let (relu, ftz, sat) = (self.flag("relu"), self.flag("ftz"), self.flag("sat"));
        let (to, from) = (self.any_type()?, self.any_type()?);
        let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
        if to == Type::Pred || from == Type::Pred || from == Type::Tf32 || matches!(from, Type::F16x2 | Type::Bf16x2) {
            return Err("not a conversion".into());
        }
        if (packed || to == Type::Tf32) && from != Type::F32 {
            return Err(format!("a .{} is made of .f32", to.name()));
        }
        let precision = |ty: Type| match ty {
            Type::F64 => 53,
            Type::F32 => 24,
            Type::F16 => 11,
            _ => 8,
        };
        let narrows = packed || to == Type::Tf32 || precision(to) < precision(from);
        let exact = !narrows && to != Type::Bf16 && from != Type::Bf16;
        match (to.is_float(), from.is_float()) {
            (true, true) if narrows && float_round.is_none() => {
                return Err("a rounding is missing: .rn or another".into());
            }
            (true, true) if exact && float_round.is_some() => {
                return Err("this conversion is exact: it takes no rounding such as .rn".into());
            }
            (true, false) if float_round.is_none() => return Err("a rounding is missing: .rn or another".into()),
            (false, true) if integral.is_none() => return Err("a rounding is missing: .rzi or another".into()),
            (false, false) if float_round.or(integral).is_some() => {
                return Err("between integers there is no rounding".into());
            }
            _ => {}
        }
        let d_operand = self.next()?;
        if to == Type::Tf32 && Self::no_float(&d_operand).is_err() {
            return Err("a .tf32 is held by a register of type .b32".into());
        }
        let holder = if to == Type::Tf32 { Type::B32 } else { to };
        let d = self.reg_of(d_operand, holder, !to.is_float())?;
        let a_operand = self.next()?;
        let a = self.src_of(a_operand, from, !from.is_float())?;
        let b = if packed { Some(self.src(from)?) } else { None };
        let round = float_round.or(integral).unwrap_or(Round::Nearest);
        Ok(Op::Convert(Convert { to, from, round, integral: integral.is_some(), ftz, sat, relu, d, a, b }))
    }
}
