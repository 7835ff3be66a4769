//! Registers and operands of PTX by class, as Rust types: a register of one class does not fit where another is wanted.
//!
//! | class | PTX    | holds                                                                          |
//! |-------|--------|--------------------------------------------------------------------------------|
//! | Pred  | .pred  | truth values                                                                   |
//! | B16   | .b16   | f16 and bf16, on their way between memory and f32                              |
//! | B32   | .b32   | integers of up to 32 bits, extended by their signedness; pairs of f16; tf32     |
//! | B64   | .b64   | 64-bit integers, addresses                                                     |
//! | F32   | .f32   | f32                                                                            |
//! | F64   | .f64   | f64                                                                            |

use std::fmt;
use std::marker::PhantomData;

/// A register class as a value: what declarations and printing go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClassId {
    Pred,
    B16,
    B32,
    B64,
    F32,
    F64,
}

impl ClassId {
    pub const ALL: [ClassId; 6] = [ClassId::Pred, ClassId::B16, ClassId::B32, ClassId::B64, ClassId::F32, ClassId::F64];

    /// The type in a `.reg` declaration.
    pub fn declared(self) -> &'static str {
        match self {
            ClassId::Pred => ".pred",
            ClassId::B16 => ".b16",
            ClassId::B32 => ".b32",
            ClassId::B64 => ".b64",
            ClassId::F32 => ".f32",
            ClassId::F64 => ".f64",
        }
    }

    /// How names of its registers begin.
    pub fn prefix(self) -> &'static str {
        match self {
            ClassId::Pred => "%p",
            ClassId::B16 => "%h",
            ClassId::B32 => "%r",
            ClassId::B64 => "%rd",
            ClassId::F32 => "%f",
            ClassId::F64 => "%d",
        }
    }
}

/// A register class as a type.
pub trait Class: Copy + 'static {
    const ID: ClassId;
}

/// A type that an instruction works in, with the class its operands lie in.
pub trait Type: 'static {
    type Class: Class;
    const NAME: &'static str;
}

/// What can be added, multiplied, compared.
pub trait Number: Type {
    /// Rounding modifier of sums and products: without it, ptxas may contract them.
    const ROUND: &'static str;
}

pub trait Integer: Number {}
pub trait Float: Number {}

/// Classes whose registers hold bits for logic and shifts.
pub trait Bits: Class {
    const NAME: &'static str;
}

/// What `ld` and `st` move, and the class it is held in.
pub trait Element: 'static {
    type Class: Class;
    const NAME: &'static str;
}

macro_rules! classes {
    ($($name:ident)*) => {$(
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl Class for $name {
            const ID: ClassId = ClassId::$name;
        }
    )*};
}

classes! { Pred B16 B32 B64 F32 F64 }

macro_rules! types {
    ($($name:ident $class:ident $text:literal $round:literal $kind:ident;)*) => {$(
        impl Type for $name {
            type Class = $class;
            const NAME: &'static str = $text;
        }
        impl Number for $name {
            const ROUND: &'static str = $round;
        }
        impl $kind for $name {}
    )*};
}

pub enum S32 {}
pub enum U32 {}
pub enum S64 {}
pub enum U64 {}

types! {
    S32 B32 "s32" "" Integer;
    U32 B32 "u32" "" Integer;
    S64 B64 "s64" "" Integer;
    U64 B64 "u64" "" Integer;
    F32 F32 "f32" ".rn" Float;
    F64 F64 "f64" ".rn" Float;
}

impl Bits for B32 {
    const NAME: &'static str = "b32";
}
impl Bits for B64 {
    const NAME: &'static str = "b64";
}

pub enum U8 {}
pub enum S8 {}
pub enum U16 {}
pub enum S16 {}

macro_rules! elements {
    ($($name:ident $class:ident $text:literal;)*) => {$(
        impl Element for $name {
            type Class = $class;
            const NAME: &'static str = $text;
        }
    )*};
}

elements! {
    U8  B32 "u8";
    S8  B32 "s8";
    U16 B32 "u16";
    S16 B32 "s16";
    B16 B16 "b16";
    B32 B32 "b32";
    B64 B64 "b64";
    F32 F32 "f32";
    F64 F64 "f64";
}

/// A virtual register.
pub struct Reg<C> {
    pub(super) n: u32,
    class: PhantomData<C>,
}

impl<C> Clone for Reg<C> {
    fn clone(&self) -> Reg<C> {
        *self
    }
}

impl<C> Copy for Reg<C> {}

impl<C: Class> fmt::Debug for Reg<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", C::ID.prefix(), self.n)
    }
}

impl<C: Class> Reg<C> {
    pub(super) fn new(n: u32) -> Reg<C> {
        Reg { n, class: PhantomData }
    }
}

/// A register or a constant of a class.
#[derive(Debug)]
pub enum Src<C: Class> {
    Reg(Reg<C>),
    /// By its bits.
    Imm(u64),
}

impl<C: Class> Clone for Src<C> {
    fn clone(&self) -> Src<C> {
        *self
    }
}

impl<C: Class> Copy for Src<C> {}

impl<C: Class> From<Reg<C>> for Src<C> {
    fn from(r: Reg<C>) -> Src<C> {
        Src::Reg(r)
    }
}

impl From<i32> for Src<B32> {
    fn from(n: i32) -> Src<B32> {
        Src::Imm(n as u32 as u64)
    }
}

impl From<i64> for Src<B64> {
    fn from(n: i64) -> Src<B64> {
        Src::Imm(n as u64)
    }
}

impl From<f32> for Src<F32> {
    fn from(v: f32) -> Src<F32> {
        Src::Imm(v.to_bits() as u64)
    }
}

impl From<f64> for Src<F64> {
    fn from(v: f64) -> Src<F64> {
        Src::Imm(v.to_bits())
    }
}

/// An operand with its class forgotten: what an instruction keeps for printing. Only the typed builder makes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    Reg(ClassId, u32),
    Imm(ClassId, u64),
    /// `[base + offset]`: a 64-bit base, or one of 32 bits in shared memory.
    Address(ClassId, u32, i64),
    /// `[name + offset]`, of a parameter or a shared array.
    Named(String, i64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// A special register or the name of an array.
    Symbol(String),
    Label(u32),
    /// A count or a mask that the instruction wants as a literal.
    Literal(i64),
}

impl<C: Class> From<Reg<C>> for Operand {
    fn from(r: Reg<C>) -> Operand {
        Operand::Reg(C::ID, r.n)
    }
}

impl<C: Class> From<Src<C>> for Operand {
    fn from(s: Src<C>) -> Operand {
        match s {
            Src::Reg(r) => r.into(),
            Src::Imm(bits) => Operand::Imm(C::ID, bits),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plus = |f: &mut fmt::Formatter<'_>, offset: i64| match offset {
            0 => write!(f, "]"),
            // Of a negative offset, PTX wants both signs.
            n => write!(f, "+{n}]"),
        };
        match self {
            Operand::Reg(class, n) => write!(f, "{}{n}", class.prefix()),
            Operand::Imm(ClassId::F32, bits) => write!(f, "0f{bits:08X}"),
            Operand::Imm(ClassId::F64, bits) => write!(f, "0d{bits:016X}"),
            Operand::Imm(ClassId::B64, bits) => write!(f, "{}", *bits as i64),
            Operand::Imm(ClassId::B16, bits) => write!(f, "{}", *bits as u16),
            Operand::Imm(ClassId::B32 | ClassId::Pred, bits) => write!(f, "{}", *bits as u32 as i32),
            Operand::Address(class, base, offset) => {
                write!(f, "[{}{base}", class.prefix())?;
                plus(f, *offset)
            }
            Operand::Named(name, offset) => {
                write!(f, "[{name}")?;
                plus(f, *offset)
            }
            Operand::Vector(parts) => {
                write!(f, "{{")?;
                for (i, p) in parts.iter().enumerate() {
                    write!(f, "{}{p}", if i == 0 { "" } else { ", " })?;
                }
                write!(f, "}}")
            }
            Operand::Symbol(name) => write!(f, "{name}"),
            Operand::Label(n) => write!(f, "$L{n}"),
            Operand::Literal(n) => write!(f, "{n}"),
        }
    }
}
