//! Kernel IR: loop nests over flat buffers with an expression body. It is what every back end lowers (Cranelift
//! now, PTX later); back ends never see operators.
//!
//! A kernel runs its body once for every value of its parallel variable; a thread gets a range `[lo, hi)` of
//! them. Iterations of the parallel loop write disjoint elements, so results do not depend on the split.
//!
//! ```text
//! kernel relu (b0: f32[1000] read, b1: f32[1000] write) parallel v0 < 4 {
//!   vector for v1 in v0*250 .. v0*250 + 250 {
//!     let v2: f32 = b0[v1]
//!     b1[v1] = max(v2, 0.0)
//!   }
//! }
//! ```
//!
//! Types. Expressions have a computing type: f64, f32, the integers, bool. f16 and bf16 exist in buffers only: a
//! load widens to f32, a store rounds to nearest even, and so does a cast. Index arithmetic is i64. Bool is one byte, 0 or 1.
//!
//! What must hold, and [`check`](Kernel::check) verifies in tests: variables are set before use, types agree, a `Set`
//! names a mutable variable. Indices are trusted by compiled code; the interpreter checks them.

mod build;
mod check;
mod contract;
pub mod in_place;
pub mod interp;
mod print;

pub use build::{Blocks, KernelBuilder};
pub use contract::{Bound, Contract, Factor, Split, Tile};

use lehr_ir::DType;
use lehr_ir::graph::Provenance;

/// A variable of a kernel; its type is in [`Kernel::vars`].
pub type Var = u32;
/// A buffer parameter of a kernel, by position.
pub type Param = u32;

/// A value without side effects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// An integer of any integer type, or bool as 0 and 1.
    Int(DType, i64),
    /// f32 or f64, by the bits of the f64.
    Float(DType, u64),
    Var(Var),
    Load {
        buf: Param,
        /// In elements.
        index: Box<Expr>,
    },
    Unary(UnOp, Box<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    /// Gives bool. Comparisons with NaN are false, `Ne` true.
    Compare(CmpOp, Box<Expr>, Box<Expr>),
    /// Both arms are evaluated; loads in them must be in bounds.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Between computing types. Float to integer truncates towards zero through i64 (NaN and out of i64's range: i64::MIN), then
    /// wraps; integers wrap or extend by their own signedness; to bool: `!= 0`. To f16 and bf16, from f32 alone: rounded to what a
    /// store would keep, and still an f32.
    Cast(DType, Box<Expr>),
}

/// Functions of one operand, of its type. Those from `Sqrt` on are of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnOp {
    /// Integers wrap.
    Neg,
    Abs,
    /// Of bool: logical; of integers: every bit.
    Not,
    Sqrt,
    Floor,
    Ceil,
    Trunc,
    /// Ties to even.
    Round,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
}

/// Functions of two operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinOp {
    /// Integers wrap in Add, Sub, Mul.
    Add,
    Sub,
    Mul,
    /// Integers truncate; division by zero gives 0 and MIN / -1 wraps: the lowering adds a `Fault` where zero is an error.
    Div,
    /// Sign of the dividend (C's `%` and `fmod`); integer zero divisor gives 0.
    Rem,
    /// NaN if either is NaN.
    Min,
    Max,
    /// Bits, or logic on bool.
    And,
    Or,
    Xor,
    /// Shift amounts are in range.
    Shl,
    /// Arithmetic for signed types, logical for unsigned.
    Shr,
    /// Floats, C99 `pow`.
    Pow,
}

/// Comparisons; integers by their own signedness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What a kernel does, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// Defines a variable; mutable if some `Set` names it.
    Let {
        var: Var,
        value: Expr,
    },
    Set {
        var: Var,
        value: Expr,
    },
    Store {
        buf: Param,
        index: Expr,
        value: Expr,
    },
    For {
        var: Var,
        start: Expr,
        end: Expr,
        /// Positive.
        step: i64,
        kind: LoopKind,
        body: Vec<Stmt>,
    },
    If {
        cond: Expr,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    While {
        cond: Expr,
        body: Vec<Stmt>,
    },
    /// Records that the data are at fault, by the message's position in [`Kernel::faults`]; the run goes on and fails at its end.
    Fault(u32),
    /// Calls a machine-code leaf with an array of 64-bit arguments.
    Leaf {
        /// Position in the program's table of leaves.
        leaf: u32,
        args: Vec<LeafArg>,
    },
    /// A product of matrices, for GPUs alone.
    Contract(Box<Contract>),
}

/// One 64-bit argument of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeafArg {
    /// The address of an element.
    Address {
        buf: Param,
        index: Expr,
    },
    Int(Expr),
}

/// What a back end may assume of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    Serial,
    /// A promise: iterations are independent, so a back end may run several at once, one per vector lane. Inside there may be
    /// serial loops with bounds that do not depend on the vector variable (each lane has its own variables, so an accumulator
    /// that is `Let` inside is a vector); a `Set` of a variable from outside must be a reduction `v = v + e` (or `*`, min, max),
    /// whose partial results are combined at the end. A back end runs it serially when it cannot do otherwise.
    /// Order of a vectorised reduction is fixed by the compiled code, so results are reproducible.
    Vector,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// A parameter of a kernel: flat memory of one element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    pub dtype: DType,
    /// In elements.
    pub len: usize,
    pub access: Access,
}

/// One kernel. Two kernels that differ only in name and origins share their code.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub name: String,
    /// The ONNX nodes it computes.
    pub origins: Provenance,
    pub params: Vec<Buffer>,
    /// Types by variable; variable 0 is the parallel one (i64).
    pub vars: Vec<DType>,
    /// How many values the parallel variable takes; 1 for a serial kernel.
    pub extent: i64,
    /// Roughly, operations per parallel iteration: a region smaller than a few microseconds is not split over threads.
    pub cost_per_iteration: i64,
    pub faults: Vec<String>,
    /// The variable (i64) that holds the first parallel value of the range that the thread does: what is indexed by it belongs to
    /// the thread, whatever iteration it is at.
    pub range_start: Option<Var>,
    /// Which iterations a thread may do at once.
    pub merged: Option<Merged>,
    pub body: Vec<Stmt>,
}

/// Neighbouring iterations that a thread does at once: those from the parallel variable on that are its own, up to the next multiple
/// of `of`. To do them together, however many they are, is the same as to do one after the other, and each element is read before it is
/// written in the same way; so work may be cut finely for threads, and a thread still goes once over what its iterations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Merged {
    pub of: i64,
    /// The variable (i64) that holds how many they are.
    pub run: Var,
}

/// The parallel variable.
pub const PARALLEL: Var = 0;

impl Kernel {
    /// What decides the code, without names.
    pub fn code_key(&self) -> impl Eq + std::hash::Hash + '_ {
        (&self.params, &self.vars, self.extent, &self.faults, self.range_start, self.merged, &self.body)
    }

    /// The type an expression computes in.
    pub fn type_of(&self, e: &Expr) -> DType {
        type_of(e, &self.vars, &self.params)
    }
}

/// What a load from a buffer of `dtype` computes in.
pub fn computing_type(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

pub(crate) fn type_of(e: &Expr, vars: &[DType], params: &[Buffer]) -> DType {
    match e {
        Expr::Int(t, _) | Expr::Float(t, _) => *t,
        Expr::Cast(t, _) => computing_type(*t),
        Expr::Var(v) => vars[*v as usize],
        Expr::Load { buf, .. } => computing_type(params[*buf as usize].dtype),
        Expr::Unary(_, a) | Expr::Binary(_, a, _) | Expr::Select(_, a, _) => type_of(a, vars, params),
        Expr::Compare(..) => DType::Bool,
    }
}

impl Expr {
    pub fn i64(n: i64) -> Expr {
        Expr::Int(DType::I64, n)
    }

    pub fn f32(v: f32) -> Expr {
        Expr::Float(DType::F32, (v as f64).to_bits())
    }

    /// A number in the computing type `t`.
    pub fn number(t: DType, v: f64) -> Expr {
        match computing_type(t) {
            t @ (DType::F32 | DType::F64) => Expr::Float(t, v.to_bits()),
            t => Expr::Int(t, v as i64),
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Expr::Int(DType::I64, n) => Some(*n),
            _ => None,
        }
    }

    pub fn unary(op: UnOp, a: Expr) -> Expr {
        Expr::Unary(op, Box::new(a))
    }

    /// Builds `a op b`, folding i64 constants and the neutral elements of index arithmetic.
    pub fn binary(op: BinOp, a: Expr, b: Expr) -> Expr {
        match (op, a.as_i64(), b.as_i64()) {
            (BinOp::Add, Some(x), Some(y)) => Expr::i64(x.wrapping_add(y)),
            (BinOp::Sub, Some(x), Some(y)) => Expr::i64(x.wrapping_sub(y)),
            (BinOp::Mul, Some(x), Some(y)) => Expr::i64(x.wrapping_mul(y)),
            (BinOp::Div, Some(x), Some(y)) if y != 0 => Expr::i64(x.wrapping_div(y)),
            (BinOp::Rem, Some(x), Some(y)) if y != 0 => Expr::i64(x.wrapping_rem(y)),
            (BinOp::Add, Some(0), _) => b,
            (BinOp::Add | BinOp::Sub, _, Some(0)) => a,
            (BinOp::Mul, Some(0), _) | (BinOp::Mul, _, Some(0)) => Expr::i64(0),
            (BinOp::Mul, Some(1), _) => b,
            (BinOp::Mul | BinOp::Div, _, Some(1)) => a,
            (BinOp::Rem, _, Some(1)) => Expr::i64(0),
            _ => Expr::Binary(op, Box::new(a), Box::new(b)),
        }
    }

    pub fn compare(op: CmpOp, a: Expr, b: Expr) -> Expr {
        Expr::Compare(op, Box::new(a), Box::new(b))
    }

    pub fn select(cond: Expr, a: Expr, b: Expr) -> Expr {
        Expr::Select(Box::new(cond), Box::new(a), Box::new(b))
    }

    pub fn cast(to: DType, a: Expr) -> Expr {
        Expr::Cast(computing_type(to), Box::new(a))
    }

    /// An f32 rounded to `half`, f16 or bf16.
    pub fn rounded(half: DType, a: Expr) -> Expr {
        Expr::Cast(half, Box::new(a))
    }

    pub fn min(self, b: Expr) -> Expr {
        Expr::binary(BinOp::Min, self, b)
    }

    pub fn max(self, b: Expr) -> Expr {
        Expr::binary(BinOp::Max, self, b)
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => {$(
        impl std::ops::$trait for Expr {
            type Output = Expr;
            fn $method(self, b: Expr) -> Expr {
                Expr::binary(BinOp::$op, self, b)
            }
        }
        impl std::ops::$trait<i64> for Expr {
            type Output = Expr;
            /// Index arithmetic with a constant.
            fn $method(self, b: i64) -> Expr {
                Expr::binary(BinOp::$op, self, Expr::i64(b))
            }
        }
    )*};
}

operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
    Div div Div;
    Rem rem Rem;
    BitAnd bitand And;
    BitOr bitor Or;
}
