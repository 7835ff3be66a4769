//! Decodes arithmetic, logic, comparison and moves (PTX ISA 9.7.1 to 9.7.9).

use crate::inst::{Binary, Bool, CarryOp, Compare, FloatKind, Mode, Op, PrmtMode, Src, Ternary, Test, Unary};
use crate::types::{
    Round,
    Type::{self, *},
};

use super::operand::{Decoder, Operand, Result};

const INT: [Type; 6] = [U16, U32, U64, S16, S32, S64];
const NARROW: [Type; 4] = [U16, U32, S16, S32];
const BITS: [Type; 3] = [B16, B32, B64];
const FLOAT: [Type; 6] = [F16, F16x2, Bf16, Bf16x2, F32, F64];
const BOOLS: [(&str, Bool); 3] = [("and", Bool::And), ("or", Bool::Or), ("xor", Bool::Xor)];

/// The type with twice the bits.
fn widened(ty: Type) -> Type {
    match ty {
        U16 => U32,
        S16 => S32,
        U32 => U64,
        _ => S64,
    }
}

impl<'a> Decoder<'a, '_> {
    pub fn arithmetic(&mut self, name: &str) -> Result<Option<Op>> {
        let op = match name {
            "add" | "sub" => return self.add_sub(name == "add").map(Some),
            "addc" => self.carry(CarryOp::Add, true)?,
            "subc" => self.carry(CarryOp::Sub, true)?,
            "mul" => return self.mul().map(Some),
            "mad" => return self.mad().map(Some),
            "madc" => self.mad_carry(true)?,
            "mul24" => {
                self.require("a half", &[("lo", ())])?;
                let ty = self.type_in(&[U32, S32])?;
                self.binary(Binary::Mul24, ty, Mode::default())?
            }
            "mad24" => {
                self.require("a half", &[("lo", ())])?;
                let ty = self.type_in(&[U32, S32])?;
                self.ternary(Ternary::Mad24, ty, Mode::default())?
            }
            "fma" => return self.fma().map(Some),
            "div" => {
                let approx = self.flag("approx") || self.flag("full");
                let (rounded, mode) = self.float_mode();
                let ty = self.any_type()?;
                match ty {
                    F32 | F64 if approx || rounded => {}
                    F32 | F64 => return Err("a rounding is missing: .rn, .approx or .full".into()),
                    _ if INT.contains(&ty) => {}
                    _ => return Err(format!("the type .{} is not supported here", ty.name())),
                }
                self.binary(Binary::Div, ty, mode)?
            }
            "rem" => {
                let ty = self.type_in(&INT)?;
                self.binary(Binary::Rem, ty, Mode::default())?
            }
            "min" | "max" => {
                let nan = self.flag("NaN");
                let relu = self.flag("relu");
                let ftz = self.flag("ftz");
                let ty = self.any_type()?;
                if !INT.contains(&ty) && !FLOAT.contains(&ty) || (nan && !ty.is_float()) || (relu && ty != S32) {
                    return Err(format!("the type .{} is not supported here", ty.name()));
                }
                let op = if name == "min" { Binary::Min } else { Binary::Max };
                self.binary(op, ty, Mode { nan, relu, ftz, ..Mode::default() })?
            }
            "and" | "or" | "xor" => {
                let ty = self.type_in(&[Pred, B16, B32, B64])?;
                let (bool_op, op) = match name {
                    "and" => (Bool::And, Binary::And),
                    "or" => (Bool::Or, Binary::Or),
                    _ => (Bool::Xor, Binary::Xor),
                };
                if ty == Pred {
                    Op::PredLogic { op: bool_op, d: self.pred_dst()?, a: self.pred_src()?, b: self.pred_src()? }
                } else {
                    self.binary(op, ty, Mode::default())?
                }
            }
            "not" => {
                let ty = self.type_in(&[Pred, B16, B32, B64])?;
                if ty == Pred {
                    Op::PredNot { d: self.pred_dst()?, a: self.pred_src()? }
                } else {
                    self.unary(Unary::Not, ty, Mode::default())?
                }
            }
            "cnot" => {
                let ty = self.type_in(&BITS)?;
                self.unary(Unary::Cnot, ty, Mode::default())?
            }
            "neg" | "abs" => {
                let ftz = self.flag("ftz");
                let ty = self.type_in(&[S16, S32, S64, F16, F16x2, Bf16, Bf16x2, F32, F64])?;
                let op = if name == "neg" { Unary::Neg } else { Unary::Abs };
                self.unary(op, ty, Mode { ftz, ..Mode::default() })?
            }
            "popc" | "clz" => {
                let ty = self.type_in(&[B32, B64])?;
                let op = if name == "popc" { Unary::Popc } else { Unary::Clz };
                Op::Unary { op, ty, mode: Mode::default(), d: self.dst(U32)?, a: self.src(ty)? }
            }
            "brev" => {
                let ty = self.type_in(&[B32, B64])?;
                self.unary(Unary::Brev, ty, Mode::default())?
            }
            "bfind" => {
                let shift = self.flag("shiftamt");
                let ty = self.type_in(&[U32, U64, S32, S64])?;
                let op = Unary::Bfind { shift };
                Op::Unary { op, ty, mode: Mode::default(), d: self.dst(U32)?, a: self.src(ty)? }
            }
            "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => self.function(name)?,
            "sad" => {
                let ty = self.type_in(&INT)?;
                self.ternary(Ternary::Sad, ty, Mode::default())?
            }
            "shl" | "shr" => {
                let allowed: &[Type] =
                    if name == "shl" { &BITS } else { &[B16, B32, B64, U16, U32, U64, S16, S32, S64] };
                let ty = self.type_in(allowed)?;
                let op = if name == "shl" { Binary::Shl } else { Binary::Shr };
                Op::Binary { op, ty, mode: Mode::default(), d: self.dst(ty)?, a: self.src(ty)?, b: self.src(U32)? }
            }
            "shf" => {
                let left = self.require("a direction", &[("l", true), ("r", false)])?;
                let wrap = self.require("a mode", &[("wrap", true), ("clamp", false)])?;
                self.type_in(&[B32])?;
                let op = if left { Ternary::ShfLeft { wrap } } else { Ternary::ShfRight { wrap } };
                self.ternary(op, B32, Mode::default())?
            }
            "prmt" => {
                self.type_in(&[B32])?;
                let mode = self.choice(&[
                    ("f4e", PrmtMode::F4e),
                    ("b4e", PrmtMode::B4e),
                    ("rc8", PrmtMode::Rc8),
                    ("ecl", PrmtMode::Ecl),
                    ("ecr", PrmtMode::Ecr),
                    ("rc16", PrmtMode::Rc16),
                ]);
                self.ternary(Ternary::Prmt(mode.unwrap_or(PrmtMode::Index)), B32, Mode::default())?
            }
            "lop3" => {
                self.type_in(&[B32])?;
                let (d, a, b, c) = (self.dst(B32)?, self.src(B32)?, self.src(B32)?, self.src(B32)?);
                let Src::Imm(lut) = self.src(U32)? else { return Err("the table of lop3 must be a number".into()) };
                let lut = u8::try_from(lut).map_err(|_| "the table of lop3 has 8 bits")?;
                Op::Ternary { op: Ternary::Lop3(lut), ty: B32, mode: Mode::default(), d, a, b, c }
            }
            "bfe" => {
                let ty = self.type_in(&[U32, U64, S32, S64])?;
                let (d, a, b, c) = (self.dst(ty)?, self.src(ty)?, self.src(U32)?, self.src(U32)?);
                Op::Ternary { op: Ternary::Bfe, ty, mode: Mode::default(), d, a, b, c }
            }
            "bfi" => {
                let ty = self.type_in(&[B32, B64])?;
                let (d, a, b) = (self.dst(ty)?, self.src(ty)?, self.src(ty)?);
                Op::Bfi { ty, d, a, b, c: self.src(U32)?, e: self.src(U32)? }
            }
            "dp4a" => {
                let (a_type, b_type) = (self.type_in(&[U32, S32])?, self.type_in(&[U32, S32])?);
                let result = if a_type == S32 || b_type == S32 { S32 } else { U32 };
                let (d, a, b, c) = (self.dst(result)?, self.src(B32)?, self.src(B32)?, self.src(result)?);
                let op = Ternary::Dp4a { b_signed: b_type == S32 };
                Op::Ternary { op, ty: a_type, mode: Mode::default(), d, a, b, c }
            }
            "copysign" => {
                let ty = self.type_in(&[F32, F64])?;
                self.binary(Binary::CopySign, ty, Mode::default())?
            }
            "setp" => return self.setp().map(Some),
            "set" => return self.set().map(Some),
            "selp" => {
                let ty = self.type_in(&[B16, B32, B64, U16, U32, U64, S16, S32, S64, F32, F64])?;
                Op::Selp { d: self.dst(ty)?, a: self.src(ty)?, b: self.src(ty)?, p: self.pred_src()? }
            }
            "slct" => {
                let ftz = self.flag("ftz");
                let ty = self.type_in(&[B16, B32, B64, U16, U32, U64, S16, S32, S64, F32, F64])?;
                let by = self.type_in(&[S32, F32])?;
                let (d, a, b) = (self.dst(ty)?, self.src(ty)?, self.src(ty)?);
                Op::Slct { ftz, by, d, a, b, c: self.src(by)? }
            }
            "testp" => {
                let kind = self.require(
                    "a kind",
                    &[
                        ("finite", FloatKind::Finite),
                        ("infinite", FloatKind::Infinite),
                        ("number", FloatKind::Number),
                        ("notanumber", FloatKind::NotANumber),
                        ("normal", FloatKind::Normal),
                        ("subnormal", FloatKind::Subnormal),
                    ],
                )?;
                let ty = self.type_in(&[F32, F64])?;
                Op::TestFinite { kind, ty, d: self.pred_dst()?, a: self.src(ty)? }
            }
            "mov" => return self.mov().map(Some),
            "cvt" => return self.convert().map(Some),
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn unary(&mut self, op: Unary, ty: Type, mode: Mode) -> Result<Op> {
        Ok(Op::Unary { op, ty, mode, d: self.dst(ty)?, a: self.src(ty)? })
    }

    fn binary(&mut self, op: Binary, ty: Type, mode: Mode) -> Result<Op> {
        Ok(Op::Binary { op, ty, mode, d: self.dst(ty)?, a: self.src(ty)?, b: self.src(ty)? })
    }

    fn ternary(&mut self, op: Ternary, ty: Type, mode: Mode) -> Result<Op> {
        Ok(Op::Ternary { op, ty, mode, d: self.dst(ty)?, a: self.src(ty)?, b: self.src(ty)?, c: self.src(ty)? })
    }

    /// Takes `.rn` and its kin, `.ftz` and `.sat`; also whether a rounding is named.
    fn float_mode(&mut self) -> (bool, Mode) {
        let round = self.rounding();
        let (ftz, sat) = (self.flag("ftz"), self.flag("sat"));
        (round.is_some(), Mode { ftz, sat, round: round.unwrap_or(Round::Nearest), ..Mode::default() })
    }

    fn add_sub(&mut self, add: bool) -> Result<Op> {
        if self.flag("cc") {
            return self.carry(if add { CarryOp::Add } else { CarryOp::Sub }, false);
        }
        let (rounded, mode) = self.float_mode();
        let ty = self.any_type()?;
        let integer_mode = !rounded && !mode.ftz && (!mode.sat || ty == S32);
        if !(FLOAT.contains(&ty) || INT.contains(&ty) && integer_mode) {
            return Err(format!("the type .{}, or a modifier with it, is not supported here", ty.name()));
        }
        self.binary(if add { Binary::Add } else { Binary::Sub }, ty, mode)
    }

    fn carry(&mut self, op: CarryOp, carry_in: bool) -> Result<Op> {
        let carry_out = self.flag("cc") || !carry_in;
        let ty = self.type_in(&[U32, S32, U64, S64])?;
        let (d, a, b) = (self.dst(ty)?, self.src(ty)?, self.src(ty)?);
        Ok(Op::Carry { op, ty, d, a, b, c: Src::Imm(0), carry_in, carry_out })
    }

    fn mad_carry(&mut self, carry_in: bool) -> Result<Op> {
        let op = self.require("a half", &[("lo", CarryOp::MadLo), ("hi", CarryOp::MadHi)])?;
        let carry_out = self.flag("cc") || !carry_in;
        let ty = self.type_in(&[U32, S32, U64, S64])?;
        let (d, a, b, c) = (self.dst(ty)?, self.src(ty)?, self.src(ty)?, self.src(ty)?);
        Ok(Op::Carry { op, ty, d, a, b, c, carry_in, carry_out })
    }

    fn mul(&mut self) -> Result<Op> {
        let half = self.choice(&[("lo", Binary::Mul), ("hi", Binary::MulHi), ("wide", Binary::MulWide)]);
        let (rounded, mode) = self.float_mode();
        let ty = self.any_type()?;
        match half {
            None if FLOAT.contains(&ty) => self.binary(Binary::Mul, ty, mode),
            None => Err("a half is missing: .lo, .hi or .wide".into()),
            Some(Binary::MulWide) if NARROW.contains(&ty) => {
                let (d, a, b) = (self.dst(widened(ty))?, self.src(ty)?, self.src(ty)?);
                Ok(Op::Binary { op: Binary::MulWide, ty, mode, d, a, b })
            }
            Some(op) if INT.contains(&ty) && op != Binary::MulWide && !rounded => self.binary(op, ty, mode),
            Some(_) => Err(format!("the type .{} is not supported here", ty.name())),
        }
    }

    fn mad(&mut self) -> Result<Op> {
        let half = self.choice(&[("lo", Ternary::Mad), ("hi", Ternary::MadHi), ("wide", Ternary::MadWide)]);
        if self.flag("cc") {
            let op = if half == Some(Ternary::MadHi) { CarryOp::MadHi } else { CarryOp::MadLo };
            let ty = self.type_in(&[U32, S32, U64, S64])?;
            let (d, a, b, c) = (self.dst(ty)?, self.src(ty)?, self.src(ty)?, self.src(ty)?);
            return Ok(Op::Carry { op, ty, d, a, b, c, carry_in: false, carry_out: true });
        }
        let (rounded, mode) = self.float_mode();
        let ty = self.any_type()?;
        match half {
            None if matches!(ty, F32 | F64) && rounded => self.ternary(Ternary::Fma, ty, mode),
            Some(Ternary::MadWide) if NARROW.contains(&ty) => {
                let wide = widened(ty);
                let (d, a, b, c) = (self.dst(wide)?, self.src(ty)?, self.src(ty)?, self.src(wide)?);
                Ok(Op::Ternary { op: Ternary::MadWide, ty, mode, d, a, b, c })
            }
            Some(op) if INT.contains(&ty) && op != Ternary::MadWide && !rounded && (!mode.sat || ty == S32) => {
                self.ternary(op, ty, mode)
            }
            _ => Err(format!("the type .{}, or no half with it, is not supported here", ty.name())),
        }
    }

    fn fma(&mut self) -> Result<Op> {
        let Some(round) = self.rounding() else { return Err("a rounding is missing: .rn".into()) };
        let (ftz, sat, relu) = (self.flag("ftz"), self.flag("sat"), self.flag("relu"));
        let ty = self.type_in(&FLOAT)?;
        if relu && matches!(ty, F32 | F64) {
            return Err("the modifier .relu is not supported here".into());
        }
        self.ternary(Ternary::Fma, ty, Mode { round, ftz, sat, relu, nan: false })
    }

    fn function(&mut self, name: &str) -> Result<Op> {
        let approx = self.flag("approx");
        let (rounded, mode) = self.float_mode();
        let ty = self.any_type()?;
        let (op, ok) = match name {
            "rcp" => (Unary::Rcp, matches!(ty, F32 | F64) && (approx || rounded)),
            "sqrt" => (Unary::Sqrt, (ty == F32 && (approx || rounded)) || (ty == F64 && rounded)),
            "rsqrt" => (Unary::Rsqrt, matches!(ty, F32 | F64) && approx),
            "ex2" => (Unary::Ex2, matches!(ty, F32 | F16 | F16x2 | Bf16 | Bf16x2) && approx),
            "lg2" => (Unary::Lg2, ty == F32 && approx),
            "sin" => (Unary::Sin, ty == F32 && approx),
            "cos" => (Unary::Cos, ty == F32 && approx),
            _ => (Unary::Tanh, matches!(ty, F32 | F16 | F16x2 | Bf16 | Bf16x2) && approx),
        };
        if !ok {
            return Err(format!("not with type .{}, or .approx or a rounding is missing", ty.name()));
        }
        if op == Unary::Ex2 && matches!(ty, Bf16 | Bf16x2) && !mode.ftz {
            return Err(".ftz is missing".into());
        }
        self.unary(op, ty, mode)
    }

    fn test(&mut self, ty: Type, compare: Compare, combine: Option<Bool>, ftz: bool) -> Result<Test> {
        let (a, b) = (self.src(ty)?, self.src(ty)?);
        let combine = match combine {
            Some(op) => Some((op, self.pred_src()?)),
            None => None,
        };
        Ok(Test { compare, ty, ftz, a, b, combine })
    }

    fn comparison(
        &mut self,
        ty_of: impl FnOnce(&mut Self) -> Result<Type>,
    ) -> Result<(Compare, Option<Bool>, bool, Type)> {
        use Compare::*;
        const ORDERED: [(&str, Compare); 6] = [("eq", Eq), ("ne", Ne), ("lt", Lt), ("le", Le), ("gt", Gt), ("ge", Ge)];
        const UNSIGNED: [(&str, Compare); 4] = [("lo", Lt), ("ls", Le), ("hi", Gt), ("hs", Ge)];
        const FLOATS: [(&str, Compare); 8] = [
            ("equ", Equ),
            ("neu", Neu),
            ("ltu", Ltu),
            ("leu", Leu),
            ("gtu", Gtu),
            ("geu", Geu),
            ("num", Num),
            ("nan", Nan),
        ];
        let ordered = self.choice(&ORDERED);
        let unsigned = if ordered.is_none() { self.choice(&UNSIGNED) } else { None };
        let float = if ordered.or(unsigned).is_none() { self.choice(&FLOATS) } else { None };
        let combine = self.choice(&BOOLS);
        let ftz = self.flag("ftz");
        let ty = ty_of(self)?;
        let ok = match (ordered, unsigned, float) {
            (Some(c), ..) => !BITS.contains(&ty) || matches!(c, Eq | Ne),
            (_, Some(_), _) => matches!(ty, U16 | U32 | U64),
            (.., Some(_)) => ty.is_float(),
            _ => return Err("a comparison is missing".into()),
        };
        let compare = ordered.or(unsigned).or(float).unwrap_or(Eq);
        if !ok {
            return Err(format!("this comparison is not one of type .{}", ty.name()));
        }
        Ok((compare, combine, ftz, ty))
    }

    const COMPARED: [Type; 15] = [B16, B32, B64, U16, U32, U64, S16, S32, S64, F16, Bf16, F32, F64, F16x2, Bf16x2];

    fn setp(&mut self) -> Result<Op> {
        let (compare, combine, ftz, ty) = self.comparison(|d| d.type_in(&Self::COMPARED))?;
        let (d, not_d) = match self.next()? {
            Operand::Pred { pred, negated: false } => (Some(pred), None),
            Operand::Pair(p, q) => {
                let pred_or_sink = |operand| match operand {
                    Operand::Pred { pred, negated: false } => Ok(Some(pred)),
                    Operand::Sink => Ok(None),
                    _ => Err("expected a predicate to write".to_string()),
                };
                (pred_or_sink(*p)?, pred_or_sink(*q)?)
            }
            _ => return Err("expected a predicate to write".into()),
        };
        Ok(Op::Setp { test: self.test(ty, compare, combine, ftz)?, d, not_d })
    }

    fn set(&mut self) -> Result<Op> {
        let mut to = U32;
        let (compare, combine, ftz, ty) = self.comparison(|d| {
            to = d.type_in(&[U32, S32, F32])?;
            d.type_in(&Self::COMPARED[..13])
        })?;
        let d = self.dst(to)?;
        Ok(Op::Set { test: self.test(ty, compare, combine, ftz)?, to, d })
    }

    fn mov(&mut self) -> Result<Op> {
        let ty = self.type_in(&[Pred, B16, B32, B64, U16, U32, U64, S16, S32, S64, F32, F64])?;
        if ty == Pred {
            return Ok(Op::MovPred { d: self.pred_dst()?, a: self.pred_src()? });
        }
        let first = self.next()?;
        let second = self.next()?;
        match (first, second) {
            (Operand::Vector(parts), source) => {
                let bits = part_bits(ty, parts.len())?;
                let part = Type::parse(&format!("b{bits}")).ok_or("the parts are too narrow")?;
                let mut d = Vec::new();
                for operand in parts {
                    d.push(match operand {
                        Operand::Sink => None,
                        operand => Some(self.reg_of(operand, part, false)?),
                    });
                }
                Ok(Op::Unpack { d: d.into(), a: self.src_of(source, ty, false)?, bits })
            }
            (d, Operand::Vector(parts)) => {
                let bits = part_bits(ty, parts.len())?;
                let part = Type::parse(&format!("b{bits}")).ok_or("the parts are too narrow")?;
                let d = self.reg_of(d, ty, false)?;
                let parts: Result<Vec<Src>> = parts.into_iter().map(|p| self.src_of(p, part, false)).collect();
                Ok(Op::Pack { d, parts: parts?.into(), bits })
            }
            (d, Operand::Special(special, found)) => {
                let d = self.reg_of(d, ty, false)?;
                if !found.may_hold(ty, false) {
                    return Err(format!("this special register is a .{}", found.name()));
                }
                Ok(Op::MovSpecial { d, special })
            }
            (d, operand @ Operand::Var(..)) => {
                let d = self.reg_of(d, ty, false)?;
                if ty.bits() < 32 {
                    return Err("an address has 32 or 64 bits".into());
                }
                Ok(Op::MovAddress { d, address: self.address_value(operand)? })
            }
            (d, source) => Ok(Op::Mov { d: self.reg_of(d, ty, false)?, a: self.src_of(source, ty, false)? }),
        }
    }
}

fn part_bits(ty: Type, parts: usize) -> Result<u32> {
    match (ty.bits(), parts) {
        (bits, 2 | 4) if bits / parts as u32 >= 8 => Ok(bits / parts as u32),
        (bits, parts) => Err(format!("{parts} parts of {bits} bits")),
    }
}
