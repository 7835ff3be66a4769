//! What a rewrite rule is.

use crate::rewrite::Cx;
use lehr_ir::{Diag, NodeId, ValueId};

/// How far the result of a rule may be from what was there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exactness {
    /// The same bits (NaN payloads aside).
    BitExact,
    /// The same real number, rounded at other places.
    Rounding,
    /// Another number, as near as the tolerance of an [`Approximation`](crate::Approximation) asks.
    Approximate,
}

/// A rewrite rule. It is tried at every node, and looks from there at operands.
pub struct Rule {
    pub name: &'static str,
    /// Left side == right side, in a line.
    pub equation: &'static str,
    pub exactness: Exactness,
    pub apply: fn(NodeId, &mut Cx) -> Outcome,
}

/// The replacement, or why there is none.
pub type Outcome = Result<Replacement, Decline>;

/// Which values replace which. What nobody uses any more is removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement(pub Vec<(ValueId, ValueId)>);

/// Why a rule did nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Decline {
    /// The left side is not here; nobody needs to hear of it.
    NoMatch,
    /// The left side is here, but a side condition does not hold: this is shown to the user.
    Reason(String),
}

impl From<Diag> for Decline {
    fn from(diag: Diag) -> Decline {
        Decline::Reason(diag.message)
    }
}

/// Declines with a reason.
macro_rules! declined {
    ($($arg:tt)*) => { return Err($crate::Decline::Reason(format!($($arg)*))) };
}
pub(crate) use declined;

/// One value for another.
pub(crate) fn replace(old: ValueId, new: ValueId) -> Outcome {
    Ok(Replacement(vec![(old, new)]))
}
