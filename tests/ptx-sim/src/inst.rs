//! The decoded form of instructions: what the parser makes of the text once, and the machine executes per warp.

use crate::types::{Round, Space, Special, Type};

/// Index of a register of the function.
pub type Reg = u16;
/// Index of a predicate register of the function.
pub type Pred = u16;

#[derive(Clone, Copy, Debug)]
pub enum Src {
    Reg(Reg),
    /// A constant, already in the bits of the instruction's type.
    Imm(u64),
}

/// A predicate as an operand or a guard, perhaps negated.
#[derive(Clone, Copy, Debug)]
pub enum PredSrc {
    Reg { pred: Pred, negated: bool },
    Imm(bool),
}

#[derive(Clone, Copy, Debug)]
pub enum Base {
    /// The address is the offset alone.
    Zero,
    Reg(Reg),
    /// A variable, by its index in `Function::vars`.
    Var(u16),
}

#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Base,
    pub offset: i64,
}

/// The modifiers of arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub round: Round,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    /// `.NaN` of min and max
    pub nan: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    Neg,
    Abs,
    Not,
    Cnot,
    Popc,
    Clz,
    Brev,
    Bfind { shift: bool },
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    Add,
    Sub,
    /// Integers: the low half. Floats: the product.
    Mul,
    MulHi,
    MulWide,
    Mul24,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    CopySign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ternary {
    /// Integers: low half of the product, plus c.
    Mad,
    MadHi,
    MadWide,
    Mad24,
    Fma,
    Sad,
    Bfe,
    ShfLeft {
        wrap: bool,
    },
    ShfRight {
        wrap: bool,
    },
    Prmt(PrmtMode),
    Lop3(u8),
    Dp4a {
        b_signed: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

/// Add and subtract with carry (PTX ISA 9.7.2). The carry is a predicate of the thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The float comparisons that hold when an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bool {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub compare: Compare,
    pub ty: Type,
    pub ftz: bool,
    pub a: Src,
    pub b: Src,
    pub combine: Option<(Bool, PredSrc)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redux {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarrierKind {
    Sync,
    Arrive,
    /// `bar.red`: with what is reduced, and where the result goes.
    Reduce,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarReduce {
    Popc(Reg),
    And(Pred),
    Or(Pred),
}

/// The multiplicand types of `mma.sync`; the accumulator is f32, or f16 or s32 where `MmaAcc` says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmaType {
    Tf32,
    F16,
    Bf16,
    S8,
    U8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmaAcc {
    F32,
    F16,
    S32,
}

/// `mma.sync.aligned.m16nNkK.row.col`
#[derive(Clone, Debug)]
pub struct Mma {
    pub k: u8,
    pub a_type: MmaType,
    pub b_type: MmaType,
    pub acc: MmaAcc,
    pub sat: bool,
    pub d: Box<[Reg]>,
    pub a: Box<[Src]>,
    pub b: Box<[Src]>,
    pub c: Box<[Src]>,
}

/// `cp.async` (PTX ISA 9.7.9.25.3).
#[derive(Clone, Copy, Debug)]
pub struct CpAsync {
    pub dst: Address,
    pub src: Address,
    pub size: u8,
    pub src_size: Option<Src>,
    pub ignore_src: Option<PredSrc>,
}

/// How an access takes part in the memory model (PTX ISA 8.3). Strong ones do not race with each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    Weak,
    /// Volatile, relaxed, or atomic without an order.
    Strong,
    /// Acquire, release or both.
    Ordered,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub space: Space,
    pub ty: Type,
    pub regs: Box<[Option<Reg>]>,
    pub address: Address,
    pub strength: Strength,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub space: Space,
    pub ty: Type,
    pub regs: Box<[Src]>,
    pub address: Address,
    pub strength: Strength,
}

#[derive(Clone, Copy, Debug)]
pub struct Atomic {
    pub space: Space,
    pub op: AtomOp,
    pub ty: Type,
    pub strength: Strength,
    /// Absent in `red`.
    pub d: Option<Reg>,
    pub address: Address,
    pub b: Src,
    /// The new value of `cas`, whose `b` is the expected one.
    pub c: Src,
}

#[derive(Clone, Copy, Debug)]
pub struct Convert {
    pub to: Type,
    pub from: Type,
    pub round: Round,
    /// Rounds to an integral value: `.rni` and its kin.
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub d: Reg,
    pub a: Src,
    /// The lower half where two values are packed.
    pub b: Option<Src>,
}

#[derive(Clone, Debug)]
pub enum Op {
    Mov {
        d: Reg,
        a: Src,
    },
    MovPred {
        d: Pred,
        a: PredSrc,
    },
    MovSpecial {
        d: Reg,
        special: Special,
    },
    MovAddress {
        d: Reg,
        address: Address,
    },
    Pack {
        d: Reg,
        parts: Box<[Src]>,
        bits: u32,
    },
    Unpack {
        d: Box<[Option<Reg>]>,
        a: Src,
        bits: u32,
    },
    Unary {
        op: Unary,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Src,
    },
    Binary {
        op: Binary,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Src,
        b: Src,
    },
    Ternary {
        op: Ternary,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    Bfi {
        ty: Type,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
        e: Src,
    },
    Carry {
        op: CarryOp,
        ty: Type,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
        carry_in: bool,
        carry_out: bool,
    },
    PredLogic {
        op: Bool,
        d: Pred,
        a: PredSrc,
        b: PredSrc,
    },
    PredNot {
        d: Pred,
        a: PredSrc,
    },
    Setp {
        test: Test,
        d: Option<Pred>,
        not_d: Option<Pred>,
    },
    Set {
        test: Test,
        to: Type,
        d: Reg,
    },
    Selp {
        d: Reg,
        a: Src,
        b: Src,
        p: PredSrc,
    },
    Slct {
        ftz: bool,
        by: Type,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    TestFinite {
        kind: FloatKind,
        ty: Type,
        d: Pred,
        a: Src,
    },
    Convert(Convert),
    /// Between an address of a space and a generic one.
    Cvta {
        space: Space,
        to_space: bool,
        d: Reg,
        a: Address,
    },
    IsSpace {
        space: Space,
        d: Pred,
        a: Src,
    },
    Load(Box<Load>),
    Store(Box<Store>),
    Atomic(Box<Atomic>),
    CpAsync(Box<CpAsync>),
    CpCommit,
    /// Waits until at most so many of the newest groups are pending.
    CpWait(u32),
    CpWaitAll,
    LdMatrix {
        d: Box<[Reg]>,
        address: Address,
        trans: bool,
        space: Space,
    },
    StMatrix {
        a: Box<[Src]>,
        address: Address,
        trans: bool,
        space: Space,
    },
    Mma(Box<Mma>),
    Shfl {
        kind: Shuffle,
        d: Reg,
        p: Option<Pred>,
        a: Src,
        b: Src,
        c: Src,
        members: Src,
    },
    Vote {
        kind: Vote,
        d: Reg,
        a: PredSrc,
        members: Src,
    },
    Match {
        all: bool,
        d: Reg,
        p: Option<Pred>,
        a: Src,
        members: Src,
    },
    ActiveMask {
        d: Reg,
    },
    Elect {
        d: Option<Reg>,
        p: Pred,
        members: Src,
    },
    Redux {
        op: Redux,
        ty: Type,
        d: Reg,
        a: Src,
        members: Src,
    },
    Barrier {
        kind: BarrierKind,
        id: Src,
        count: Option<Src>,
        reduce: Option<(BarReduce, PredSrc)>,
    },
    BarWarp {
        members: Src,
    },
    Fence,
    /// prefetch, nanosleep, discard and other hints
    Nothing,
    Bra {
        target: u32,
    },
    BraIndexed {
        index: Src,
        targets: Box<[u32]>,
    },
    Call(Box<Call>),
    Ret,
    Exit,
    Trap,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloatKind {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

#[derive(Clone, Debug)]
pub struct Call {
    /// Index in `Module::functions`.
    pub function: u32,
    pub results: Box<[CallResult]>,
    pub args: Box<[CallArg]>,
}

#[derive(Clone, Copy, Debug)]
pub enum CallArg {
    Src(Src),
    /// A `.param` variable of the caller.
    Var(u16),
}

#[derive(Clone, Copy, Debug)]
pub enum CallResult {
    Reg(Reg, Type),
    Var(u16),
    Sink,
}

#[derive(Clone, Debug)]
pub struct Inst {
    pub op: Op,
    pub guard: Option<(Pred, bool)>,
    pub line: u32,
    /// Where lanes that a branch here sends apart meet again; `u32::MAX` where they do not.
    pub reconverge: u32,
}

impl Default for Mode {
    fn default() -> Self {
        Mode { round: Round::Nearest, ftz: false, sat: false, relu: false, nan: false }
    }
}
