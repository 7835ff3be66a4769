//! How a tensor lies in a buffer: the map from logical coordinates to an element's position.

use crate::kernel::Expr;
use crate::program::BufferId;
use lehr_ir::DType;

/// A tensor in (part of) a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub buf: BufferId,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Position = offset + sum of coordinate * stride. Row-major and dense unless a lowering made it otherwise.
    Strided { strides: Vec<i64>, offset: i64 },
    /// N, C/block, spatial..., block: channels (axis 1) in blocks, the last block padded with zeros.
    Blocked { block: usize },
}

/// Row-major strides in elements.
pub fn row_major(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * shape[d + 1].max(1) as i64;
    }
    strides
}

impl View {
    pub fn dense(buf: BufferId, dtype: DType, shape: Vec<usize>) -> View {
        let layout = Layout::Strided { strides: row_major(&shape), offset: 0 };
        View { buf, dtype, shape, layout }
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row-major from the buffer's first element on.
    pub fn is_dense(&self) -> bool {
        match &self.layout {
            Layout::Strided { strides, offset: 0 } => {
                let dense = row_major(&self.shape);
                (0..self.shape.len()).all(|d| self.shape[d] == 1 || strides[d] == dense[d])
            }
            _ => false,
        }
    }

    /// Position of the element at `coords`, one per axis.
    pub fn index(&self, coords: &[Expr]) -> Expr {
        debug_assert_eq!(coords.len(), self.shape.len());
        match &self.layout {
            Layout::Strided { strides, offset } => {
                coords.iter().zip(strides).fold(Expr::i64(*offset), |sum, (c, &s)| sum + c.clone() * s)
            }
            Layout::Blocked { block } => {
                let block = *block as i64;
                let blocks = (self.shape[1] as i64 + block - 1) / block;
                let mut at = coords[0].clone() * blocks + coords[1].clone() / block;
                for d in 2..self.shape.len() {
                    at = at * self.shape[d] as i64 + coords[d].clone();
                }
                at * block + coords[1].clone() % block
            }
        }
    }
}

/// Coordinates of an operand that broadcasts to `coords`: aligned at the last axis, axes of size 1 stay at 0.
pub fn broadcast_coords(shape: &[usize], coords: &[Expr]) -> Vec<Expr> {
    let skip = coords.len() - shape.len();
    let aligned = shape.iter().zip(&coords[skip..]);
    aligned.map(|(&n, c)| if n == 1 { Expr::i64(0) } else { c.clone() }).collect()
}
