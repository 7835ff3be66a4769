//! Element types. Everything ONNX can hold is named here, so that no later work needs a second enum;
//! [`DType::is_computable`] says which of them the operators accept today.

use std::fmt;

/// How the bits of an element are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Float,
    Signed,
    Unsigned,
    Bool,
    String,
}

macro_rules! dtypes {
    ($($variant:ident = $name:literal, $kind:ident, $bits:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($variant,)* }

        impl DType {
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// The name used in the text form, e.g. `f32`.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            pub fn kind(self) -> Kind {
                match self { $(DType::$variant => Kind::$kind,)* }
            }

            /// Bits an element occupies; 0 for strings, which have no fixed size.
            pub fn bits(self) -> u32 {
                match self { $(DType::$variant => $bits,)* }
            }

            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    F64    = "f64",          Float,    64;
    F32    = "f32",          Float,    32;
    F16    = "f16",          Float,    16;
    BF16   = "bf16",         Float,    16;
    I8     = "i8",           Signed,    8;
    I16    = "i16",          Signed,   16;
    I32    = "i32",          Signed,   32;
    I64    = "i64",          Signed,   64;
    U8     = "u8",           Unsigned,  8;
    U16    = "u16",          Unsigned, 16;
    U32    = "u32",          Unsigned, 32;
    U64    = "u64",          Unsigned, 64;
    Bool   = "bool",         Bool,      8;
    F8E4M3FN   = "f8e4m3fn",   Float,   8;
    F8E4M3FNUZ = "f8e4m3fnuz", Float,   8;
    F8E5M2     = "f8e5m2",     Float,   8;
    F8E5M2FNUZ = "f8e5m2fnuz", Float,   8;
    F8E8M0     = "f8e8m0",     Float,   8;
    F4E2M1 = "f4e2m1",       Float,     4;
    I4     = "i4",           Signed,    4;
    U4     = "u4",           Unsigned,  4;
    I2     = "i2",           Signed,    2;
    U2     = "u2",           Unsigned,  2;
    Str    = "str",          String,    0;
}

impl DType {
    /// True for the types that operators compute with today: whole bytes, numbers and booleans.
    pub fn is_computable(self) -> bool {
        self <= DType::Bool
    }

    /// Bytes per element of a computable type.
    ///
    /// # Panics
    /// On sub-byte types and strings; callers check [`DType::is_computable`] at the door.
    pub fn size(self) -> usize {
        assert!(self.bits() >= 8, "{self} has no whole-byte size");
        self.bits() as usize / 8
    }

    pub fn is_float(self) -> bool {
        self.kind() == Kind::Float
    }

    /// Signed or unsigned integers, not booleans.
    pub fn is_int(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Unsigned)
    }

    pub fn is_signed(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Float)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
