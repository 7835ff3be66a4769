//! Products of matrices as one statement, which a back end computes in tiles: a GPU's threads share what they load.
//!
//! ```text
//! for row in 0..rows, column in 0..columns {
//!   sum = 0.0
//!   for step in first..end { sum = sum + left(row, step) * right(step, column) }
//!   body                                   // once for each row and column, in any order
//! }
//! ```
//!
//! A factor's element is where its two parts say, one of which depends on the row or column and the other on the step alone: that is
//! what lets a back end compute each once for many elements. Convolutions have that form too, with the taps of the window as
//! steps; where a window reaches outside of the input, a bound says that the element is 0.

use super::{Expr, Param, Stmt, Var};

/// The statement; see the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Contract {
    pub rows: i64,
    pub columns: i64,
    /// The steps, which depend on the parallel variable at most.
    pub first: Expr,
    pub end: Expr,
    pub row: Var,
    pub column: Var,
    pub step: Var,
    pub left: Factor,
    pub right: Factor,
    /// f32, in whatever order it is summed.
    pub sum: Var,
    pub body: Vec<Stmt>,
    pub tile: Tile,
}

/// The elements of a matrix in a buffer of f32, f16 or bf16.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Factor {
    pub buf: Param,
    pub at: Split,
    /// The element is 0 where one does not hold.
    pub bounds: Vec<Bound>,
    /// Whether the steps after the last one, up to a multiple of eight, have elements too, which are 0.
    pub padded: bool,
}

/// `outer + inner`: of the row or column (and the parallel variable), and of the step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    pub outer: Expr,
    pub inner: Expr,
}

/// `0 <= at < size`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    pub at: Split,
    pub size: i64,
}

/// How a GPU cuts the sums: what a block of threads computes, how many steps it loads at a time, and the part of one thread (of
/// one warp, on tensor cores).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub rows: u32,
    pub columns: u32,
    pub depth: u32,
    pub part_rows: u32,
    pub part_columns: u32,
    /// Whether tensor cores compute it.
    pub tensor: bool,
}

impl Tile {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        let parts = self.rows / self.part_rows * (self.columns / self.part_columns);
        if self.tensor { 32 * parts } else { parts }
    }
}

impl Split {
    pub fn sum(&self) -> Expr {
        self.outer.clone() + self.inner.clone()
    }
}

impl Factor {
    /// Every expression of the factor.
    pub fn parts(&self) -> impl Iterator<Item = &Split> {
        std::iter::once(&self.at).chain(self.bounds.iter().map(|b| &b.at))
    }
}
