//! What an expression of the kernel IR becomes: a number for the thread, or one for each of the lanes that it computes at once.

use super::index::Index;
use super::reg::*;
use lehr_ir::DType;

/// One number, in the class that its type is computed in.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// bool
    Pred(Reg<Pred>),
    /// i64
    Int(Index),
    /// Integers of up to 32 bits, extended by their signedness.
    B32(Src<B32>),
    /// u64
    B64(Src<B64>),
    F32(Src<F32>),
    F64(Src<F64>),
}

/// A value in the lanes of a thread.
#[derive(Clone, Debug)]
pub enum Val {
    /// The same in all.
    Uniform(Scalar),
    /// i64 a fixed, non-zero distance apart.
    Affine(Index),
    Lanes(Vec<Scalar>),
}

impl Val {
    pub fn lane(&self, lane: usize) -> Scalar {
        match self {
            Val::Uniform(s) => *s,
            Val::Affine(i) => Scalar::Int(i.lane(lane)),
            Val::Lanes(lanes) => lanes[lane],
        }
    }

    pub fn index(i: Index) -> Val {
        if i.stride == 0 { Val::Uniform(Scalar::Int(i)) } else { Val::Affine(i) }
    }

    /// As lanes a fixed distance apart, if they are.
    pub fn as_index(&self) -> Option<Index> {
        match self {
            Val::Uniform(Scalar::Int(i)) | Val::Affine(i) => Some(*i),
            _ => None,
        }
    }
}

macro_rules! accessors {
    ($($name:ident $variant:ident $of:ty;)*) => {
        impl Scalar {
            $(pub fn $name(self) -> $of {
                match self {
                    Scalar::$variant(v) => v,
                    other => unreachable!("{other:?} is not what {} gives", stringify!($name)),
                }
            })*
        }
    };
}

accessors! {
    pred  Pred Reg<Pred>;
    int   Int  Index;
    b32   B32  Src<B32>;
    b64   B64  Src<B64>;
    f32   F32  Src<F32>;
    f64   F64  Src<F64>;
}

/// A constant of a computing type other than bool.
pub fn constant(t: DType, n: i64) -> Scalar {
    match t {
        DType::I64 => Scalar::Int(Index::constant(n)),
        DType::U64 => Scalar::B64(Src::from(n)),
        _ => Scalar::B32(Src::from(n as i32)),
    }
}

/// Bits of a small integer type, 0 for those that fill their registers.
pub fn is_small(t: DType) -> bool {
    matches!(t, DType::I8 | DType::I16 | DType::U8 | DType::U16)
}
