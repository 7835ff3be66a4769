//! How a tensor lies in a buffer: the map from logical coordinates to an element's position.

use super::order::Order;
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

/// From coordinates to positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Position = offset + sum of coordinate * stride. Row-major and dense unless a lowering made it otherwise.
    Strided { strides: Vec<i64>, offset: i64 },
    /// N, blocks, spatial..., block: channels (axis 1) in blocks, where `order` says. Each spatial axis has a border of zeros
    /// before and after it.
    Blocked {
        block: usize,
        border: Vec<(usize, usize)>,
        /// Where the tensor is part of a concatenation: its first block in the buffer, and how many the buffer has.
        first: usize,
        blocks: usize,
        order: Order,
    },
}

/// Where the elements of N C spatial... lie, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lattice {
    /// Position of the first element.
    pub origin: i64,
    pub image: i64,
    /// From channel to channel, or from block to block.
    pub channel: i64,
    pub spatial: Vec<i64>,
}

impl Lattice {
    /// Position of an image's channel (or block) at a place.
    pub fn at(&self, image: &Expr, channel: Expr, place: &[Expr]) -> Expr {
        let start = image.clone() * self.image + channel * self.channel;
        let place = place.iter().zip(&self.spatial).fold(start, |sum, (c, &s)| sum + c.clone() * s);
        place + self.origin
    }

    /// Whether the spatial axes follow one another without gaps.
    pub fn is_flat(&self, dims: &[usize]) -> bool {
        (1..dims.len()).all(|d| self.spatial[d - 1] == self.spatial[d] * dims[d] as i64)
    }
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

    /// How a tensor of rank 3 and more lies, channel by channel or block by block.
    pub fn lattice(&self) -> Lattice {
        match &self.layout {
            Layout::Strided { strides, offset } => {
                Lattice { origin: *offset, image: strides[0], channel: strides[1], spatial: strides[2..].to_vec() }
            }
            Layout::Blocked { block, border, first, blocks, .. } => {
                let padded: Vec<usize> =
                    self.shape[2..].iter().zip(border).map(|(n, (before, after))| before + n + after).collect();
                let spatial: Vec<i64> = row_major(&padded).iter().map(|s| s * *block as i64).collect();
                let channel = padded.iter().product::<usize>() as i64 * *block as i64;
                let inside: i64 = border.iter().zip(&spatial).map(|((before, _), s)| *before as i64 * s).sum();
                let origin = inside + *first as i64 * channel;
                Lattice { origin, image: channel * *blocks as i64, channel, spatial }
            }
        }
    }

    /// Steps along each axis, in elements, of a value that does not lie in blocks.
    pub fn strides(&self) -> &[i64] {
        match &self.layout {
            Layout::Strided { strides, .. } => strides,
            Layout::Blocked { .. } => unreachable!("blocks have no single stride along channels"),
        }
    }

    /// Position of the first element of a value that does not lie in blocks.
    pub fn offset(&self) -> i64 {
        match &self.layout {
            Layout::Strided { offset, .. } => *offset,
            Layout::Blocked { .. } => unreachable!("blocks begin where their lattice says"),
        }
    }

    /// The blocks of channels, where there are any.
    pub fn block(&self) -> Option<usize> {
        match self.layout {
            Layout::Strided { .. } => None,
            Layout::Blocked { block, .. } => Some(block),
        }
    }

    /// Where the channels are, in blocks.
    pub fn order(&self) -> Option<&Order> {
        match &self.layout {
            Layout::Strided { .. } => None,
            Layout::Blocked { order, .. } => Some(order),
        }
    }

    /// Rows of `width` numbers, one for each channel, in the order in which the channels lie.
    pub fn spread(&self, rows: Vec<f32>, width: usize, padding: f32) -> Vec<f32> {
        match self.order() {
            Some(order) => order.spread(&rows, width, padding),
            None => rows,
        }
    }

    /// The buffer, for code that steps through it row by row from its first element on.
    ///
    /// # Panics
    /// If the value does not lie so. All do that are wanted row-major, unless a lowering made it otherwise.
    pub fn dense_buffer(&self) -> BufferId {
        assert!(self.is_dense(), "a value of shape {:?} has gaps, or does not begin with its buffer", self.shape);
        self.buf
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
            Layout::Blocked { block, order, .. } => {
                assert!(order.is_plain(), "other orders are read through their tables");
                let block = *block as i64;
                let (number, lane) = (coords[1].clone() / block, coords[1].clone() % block);
                self.lattice().at(&coords[0], number, &coords[2..]) + lane
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
