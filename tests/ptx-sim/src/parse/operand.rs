//! Operands and modifiers of one instruction, taken one by one with their types checked (PTX ISA 6, 9.4).

use crate::inst::{Address, Base, Op, Pred, PredSrc, Reg, Src};
use crate::types::{Class, Round, Space, Special, Type};

use super::body::Body;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Literal {
    Int(u64),
    Double(f64),
    Single(u32),
}

impl Literal {
    /// The bits of this value as a `ty`.
    pub fn to_bits(self, ty: Type) -> Option<u64> {
        match (self, ty) {
            (Literal::Int(v), _) if !ty.is_float() && ty != Type::Pred => Some(v & ty.mask()),
            (Literal::Double(v), Type::F64 | Type::B64) => Some(v.to_bits()),
            (Literal::Double(v), Type::F32) => Some(u64::from((v as f32).to_bits())),
            (Literal::Single(bits), Type::F32 | Type::B32) => Some(u64::from(bits)),
            (Literal::Single(bits), Type::F64) => Some(f64::from(f32::from_bits(bits)).to_bits()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Operand<'a> {
    Reg(Reg, Type),
    Pred {
        pred: Pred,
        negated: bool,
    },
    Literal(Literal),
    Special(Special, Type),
    Var(u16, i64),
    Vector(Vec<Operand<'a>>),
    List(Vec<Operand<'a>>),
    Address(Box<Operand<'a>>, i64),
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// A label or a function.
    Name(&'a str),
    Sink,
}

pub type Result<T> = std::result::Result<T, String>;

pub struct Decoder<'a, 'b> {
    pub body: &'b mut Body<'a>,
    pub line: u32,
    /// Modifiers not yet taken, in order.
    mods: Vec<&'a str>,
    operands: std::vec::IntoIter<Operand<'a>>,
}

impl<'a> Decoder<'a, '_> {
    /// Decodes one instruction; every modifier and every operand must be used.
    pub fn decode(body: &mut Body<'a>, opcode: &'a str, operands: Vec<Operand<'a>>, line: u32) -> Result<Op> {
        let mut words = opcode.split('.');
        let name = words.next().unwrap_or("");
        let mut decoder = Decoder { body, line, mods: words.collect(), operands: operands.into_iter() };
        let op = match decoder.arithmetic(name)? {
            Some(op) => op,
            None => match decoder.memory(name)? {
                Some(op) => op,
                None => decoder.sync(name)?.ok_or("this instruction is not supported")?,
            },
        };
        if let Some(left) = decoder.mods.first() {
            return Err(format!("the modifier .{left} is not supported here"));
        }
        if decoder.operands.next().is_some() {
            return Err("too many operands".into());
        }
        Ok(op)
    }

    // ---- modifiers

    /// Takes the modifier if it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.mods.iter().position(|m| *m == name);
        if let Some(at) = found {
            self.mods.remove(at);
        }
        found.is_some()
    }

    /// Takes the first of the table's modifiers that is there.
    pub fn choice<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (at, value) = self.mods.iter().enumerate().find_map(|(at, m)| {
            let row = table.iter().find(|row| row.0 == *m)?;
            Some((at, row.1))
        })?;
        self.mods.remove(at);
        Some(value)
    }

    pub fn require<T: Copy>(&mut self, what: &str, table: &[(&str, T)]) -> Result<T> {
        self.choice(table).ok_or_else(|| {
            let names: Vec<&str> = table.iter().map(|row| row.0).collect();
            format!("expected {what}: .{}", names.join(", ."))
        })
    }

    /// Takes the first modifier that is a type.
    pub fn any_type(&mut self) -> Result<Type> {
        let found = self.mods.iter().enumerate().find_map(|(at, m)| Some((at, Type::parse(m)?)));
        let (at, ty) = found.ok_or("a type is missing")?;
        self.mods.remove(at);
        Ok(ty)
    }

    /// Takes the first modifier that is a type, which must be one of these.
    pub fn type_in(&mut self, allowed: &[Type]) -> Result<Type> {
        let ty = self.any_type()?;
        if !allowed.contains(&ty) {
            return Err(format!("the type .{} is not supported here", ty.name()));
        }
        Ok(ty)
    }

    pub fn rounding(&mut self) -> Option<Round> {
        self.choice(&[("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)])
    }

    // ---- operands

    pub fn operands_left(&self) -> usize {
        self.operands.len()
    }

    pub fn next(&mut self) -> Result<Operand<'a>> {
        self.operands.next().ok_or_else(|| "too few operands".into())
    }

    /// A destination register of type `ty`.
    pub fn dst(&mut self, ty: Type) -> Result<Reg> {
        let operand = self.next()?;
        self.reg_of(operand, ty, false)
    }

    pub fn reg_of(&mut self, operand: Operand<'a>, ty: Type, wider: bool) -> Result<Reg> {
        match operand {
            Operand::Reg(reg, declared) if declared.may_hold(ty, wider) => Ok(reg),
            Operand::Reg(_, declared) => Err(mismatch(declared, ty)),
            _ => Err(format!("expected a register of type .{}", ty.name())),
        }
    }

    /// Fragments and TF32 values are bits: a register of a float type cannot hold them.
    pub fn no_float(operand: &Operand<'a>) -> Result<()> {
        match operand {
            Operand::Reg(_, declared) if declared.is_float() => {
                Err(format!("a register of type .{} cannot be a .b32 here", declared.name()))
            }
            _ => Ok(()),
        }
    }

    /// A source operand of type `ty`.
    pub fn src(&mut self, ty: Type) -> Result<Src> {
        let operand = self.next()?;
        self.src_of(operand, ty, false)
    }

    pub fn src_of(&mut self, operand: Operand<'a>, ty: Type, wider: bool) -> Result<Src> {
        match operand {
            Operand::Reg(reg, declared) if declared.may_hold(ty, wider) => Ok(Src::Reg(reg)),
            Operand::Reg(_, declared) => Err(mismatch(declared, ty)),
            Operand::Literal(literal) => {
                literal.to_bits(ty).map(Src::Imm).ok_or_else(|| format!("a literal cannot be a .{} here", ty.name()))
            }
            Operand::Special(..) => Err("special registers are read by mov".into()),
            _ => Err(format!("expected a register or a literal of type .{}", ty.name())),
        }
    }

    pub fn pred_dst(&mut self) -> Result<Pred> {
        match self.next()? {
            Operand::Pred { pred, negated: false } => Ok(pred),
            _ => Err("expected a predicate to write".into()),
        }
    }

    pub fn pred_src(&mut self) -> Result<PredSrc> {
        let operand = self.next()?;
        Self::pred_src_of(operand)
    }

    pub fn pred_src_of(operand: Operand<'a>) -> Result<PredSrc> {
        match operand {
            Operand::Pred { pred, negated } => Ok(PredSrc::Reg { pred, negated }),
            Operand::Literal(Literal::Int(v @ (0 | 1))) => Ok(PredSrc::Imm(v == 1)),
            _ => Err("expected a predicate".into()),
        }
    }

    /// `d`, or `d|p`.
    pub fn dst_and_pred(&mut self, ty: Type) -> Result<(Reg, Option<Pred>)> {
        match self.next()? {
            Operand::Pair(d, p) => match *p {
                Operand::Pred { pred, negated: false } => Ok((self.reg_of(*d, ty, false)?, Some(pred))),
                _ => Err("expected a predicate behind `|`".into()),
            },
            operand => Ok((self.reg_of(operand, ty, false)?, None)),
        }
    }

    /// `[...]` in `space`.
    pub fn address(&mut self, space: Space) -> Result<Address> {
        let operand = self.next()?;
        let Operand::Address(inner, offset) = operand else { return Err("expected an address in brackets".into()) };
        self.address_of(*inner, offset, space)
    }

    fn address_of(&mut self, inner: Operand<'a>, offset: i64, space: Space) -> Result<Address> {
        match inner {
            Operand::Reg(reg, declared) => {
                let whole = matches!(declared.class(), Class::Bits | Class::Unsigned | Class::Signed);
                let narrow = matches!(space, Space::Shared | Space::Const | Space::Local);
                match declared.bits() {
                    64 if whole => Ok(Address { base: Base::Reg(reg), offset }),
                    32 if whole && narrow => Ok(Address { base: Base::Reg(reg), offset }),
                    _ => Err(format!("a register of type .{} cannot be an address here", declared.name())),
                }
            }
            Operand::Var(var, more) => {
                let declared = self.body.var(var).space;
                let generic = space == Space::Generic && declared == Space::Global;
                if declared != space && !generic {
                    return Err(format!("{} lies in another state space", self.body.var(var).name));
                }
                Ok(Address { base: Base::Var(var), offset: offset.wrapping_add(more) })
            }
            Operand::Literal(Literal::Int(_)) if space != Space::Local => {
                Err("a number is an address in .local alone".into())
            }
            Operand::Literal(Literal::Int(v)) => {
                Ok(Address { base: Base::Zero, offset: offset.wrapping_add(v as i64) })
            }
            _ => Err("expected an address: a register, a variable or a number, and an offset".into()),
        }
    }

    /// The registers of a vector `{a, b}`, or the single one.
    pub fn vector(&mut self, lanes: usize) -> Result<Vec<Operand<'a>>> {
        let operand = self.next()?;
        let parts = match operand {
            Operand::Vector(parts) => parts,
            single => vec![single],
        };
        if parts.len() != lanes {
            return Err(format!("expected {lanes} registers in braces, found {}", parts.len()));
        }
        Ok(parts)
    }

    pub fn label(&mut self) -> Result<&'a str> {
        match self.next()? {
            Operand::Name(name) => Ok(name),
            _ => Err("expected a label".into()),
        }
    }

    /// `mov`: what a register can be given.
    pub fn address_value(&mut self, operand: Operand<'a>) -> Result<Address> {
        match operand {
            Operand::Var(var, offset) => Ok(Address { base: Base::Var(var), offset }),
            _ => Err("expected a variable".into()),
        }
    }
}

fn mismatch(declared: Type, ty: Type) -> String {
    format!("a register of type .{} cannot be a .{} here", declared.name(), ty.name())
}
