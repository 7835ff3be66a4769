//! What a kernel did wrong, and where.

use std::fmt;

/// The kinds of wrong that are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FaultKind {
    /// An access outside of every allocation or variable.
    OutOfBounds,
    /// An address that is no multiple of the access' size.
    Misaligned,
    /// A load of bytes that nothing has written.
    UninitialisedMemory,
    /// A register or predicate read before it is written.
    UninitialisedRegister,
    /// An access to bytes that an asynchronous copy has not been waited for.
    PendingCopy,
    /// A barrier, or an instruction of the whole warp, that not all of its threads reach.
    DivergentBarrier,
    /// Warps that wait for each other forever.
    Deadlock,
    /// Two threads access the same bytes, one writing, with nothing in between that orders them.
    Race,
    /// An integer division by zero.
    DivisionByZero,
    /// More instructions than `Options::step_limit`.
    StepLimit,
    /// More than `Options::call_limit` calls within calls.
    CallDepth,
    /// `trap`
    Trap,
    /// A launch with wrong arguments or sizes, or a host access outside of an allocation.
    Launch,
}

/// A fault: it ends the launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
    /// Absent for what the host did.
    pub place: Option<FaultPlace>,
}

/// Which instruction of which thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultPlace {
    pub kernel: String,
    /// Counted from 1.
    pub line: u32,
    /// The line's text.
    pub instruction: String,
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

impl Fault {
    pub(crate) fn host(message: impl Into<String>) -> Fault {
        Fault { kind: FaultKind::Launch, message: message.into(), place: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else { return write!(f, "{}", self.message) };
        let FaultPlace { kernel, line, instruction, block: [bx, by, bz], thread: [tx, ty, tz] } = place;
        write!(f, "{kernel}, line {line}, block ({bx},{by},{bz}), thread ({tx},{ty},{tz}): {}", self.message)?;
        write!(f, "\n    {instruction}")
    }
}

impl std::error::Error for Fault {}

/// A fault without its place: what the inner parts of the machine report.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: u32,
    pub message: String,
}

pub(crate) type Checked<T> = Result<T, Box<Trouble>>;

pub(crate) fn trouble<T>(kind: FaultKind, lane: u32, message: impl Into<String>) -> Checked<T> {
    Err(Box::new(Trouble { kind, lane, message: message.into() }))
}
