//! The words of the instruction set that both the parser and the machine use: types, state spaces, rounding.

/// A fundamental or packed type (PTX ISA 5.2, 5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

/// What the bits of a type mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Bits,
    Unsigned,
    Signed,
    Float,
    Pred,
}

/// Every type with its spelling, its width in bytes and its class.
const TYPES: [(Type, &str, u32, Class); 20] = [
    (Type::Pred, "pred", 1, Class::Pred),
    (Type::B8, "b8", 1, Class::Bits),
    (Type::B16, "b16", 2, Class::Bits),
    (Type::B32, "b32", 4, Class::Bits),
    (Type::B64, "b64", 8, Class::Bits),
    (Type::U8, "u8", 1, Class::Unsigned),
    (Type::U16, "u16", 2, Class::Unsigned),
    (Type::U32, "u32", 4, Class::Unsigned),
    (Type::U64, "u64", 8, Class::Unsigned),
    (Type::S8, "s8", 1, Class::Signed),
    (Type::S16, "s16", 2, Class::Signed),
    (Type::S32, "s32", 4, Class::Signed),
    (Type::S64, "s64", 8, Class::Signed),
    (Type::F16, "f16", 2, Class::Float),
    (Type::F16x2, "f16x2", 4, Class::Float),
    (Type::Bf16, "bf16", 2, Class::Float),
    (Type::Bf16x2, "bf16x2", 4, Class::Float),
    (Type::Tf32, "tf32", 4, Class::Float),
    (Type::F32, "f32", 4, Class::Float),
    (Type::F64, "f64", 8, Class::Float),
];

impl Type {
    /// The type spelled `name`, without the dot.
    pub fn parse(name: &str) -> Option<Type> {
        TYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (Type, &'static str, u32, Class) {
        &TYPES[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Width in bytes.
    pub fn size(self) -> u32 {
        self.row().2
    }

    pub fn bits(self) -> u32 {
        self.size() * 8
    }

    pub fn class(self) -> Class {
        self.row().3
    }

    pub fn is_signed(self) -> bool {
        self.class() == Class::Signed
    }

    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// All ones in the width of the type.
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// `bits`, zero-extended, of this type, as a wide integer of the same value.
    pub fn extend(self, bits: u64) -> i128 {
        if self.is_signed() {
            let shift = 64 - self.bits();
            (((bits << shift) as i64) >> shift) as i128
        } else {
            (bits & self.mask()) as i128
        }
    }

    /// Whether a register declared as `self` may be an operand of an instruction of type `inst` (PTX ISA 9.4).
    /// `wider` is the relaxed rule of loads, stores and conversions, whose registers may be wider than the type.
    pub fn may_hold(self, inst: Type, wider: bool) -> bool {
        if (self == Type::Pred) != (inst == Type::Pred) {
            return false;
        }
        let size_ok = if wider { self.size() >= inst.size() } else { self.size() == inst.size() };
        let class_ok = match (self.class(), inst.class()) {
            (Class::Bits, _) | (_, Class::Bits) => true,
            (Class::Float, Class::Float) => self == inst,
            (Class::Float, _) | (_, Class::Float) => false,
            _ => true,
        };
        size_ok && class_ok && (self.size() == inst.size() || self.class() != Class::Float)
    }
}

/// A state space that addresses refer to (PTX ISA 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Const,
    Local,
    Param,
}

/// Rounding modes (PTX ISA 9.2.1, 9.2.2, `rna` of `cvt`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// To nearest, ties away from zero.
    NearestAway,
    Zero,
    Down,
    Up,
}

/// A special register (PTX ISA 10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// `%tid`, by axis
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    Clock,
    Clock64,
    GlobalTimer,
    DynamicSmemSize,
    TotalSmemSize,
}

impl Special {
    /// The register spelled `name` (with its `%`), and its type.
    pub fn parse(name: &str) -> Option<(Special, Type)> {
        let name = name.strip_prefix('%')?;
        if let Some((vector, axis)) = name.split_once('.') {
            let axis = match axis {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            let special = match vector {
                "tid" => Special::Tid(axis),
                "ntid" => Special::Ntid(axis),
                "ctaid" => Special::Ctaid(axis),
                "nctaid" => Special::Nctaid(axis),
                _ => return None,
            };
            return Some((special, Type::U32));
        }
        Some(match name {
            "laneid" => (Special::LaneId, Type::U32),
            "warpid" => (Special::WarpId, Type::U32),
            "nwarpid" => (Special::NWarpId, Type::U32),
            "smid" => (Special::SmId, Type::U32),
            "nsmid" => (Special::NSmId, Type::U32),
            "gridid" => (Special::GridId, Type::U64),
            "lanemask_eq" => (Special::LaneMaskEq, Type::U32),
            "lanemask_le" => (Special::LaneMaskLe, Type::U32),
            "lanemask_lt" => (Special::LaneMaskLt, Type::U32),
            "lanemask_ge" => (Special::LaneMaskGe, Type::U32),
            "lanemask_gt" => (Special::LaneMaskGt, Type::U32),
            "clock" => (Special::Clock, Type::U32),
            "clock64" => (Special::Clock64, Type::U64),
            "globaltimer" => (Special::GlobalTimer, Type::U64),
            "dynamic_smem_size" => (Special::DynamicSmemSize, Type::U32),
            "total_smem_size" => (Special::TotalSmemSize, Type::U32),
            _ => return None,
        })
    }
}
