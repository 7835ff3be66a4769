//! Types of values: tensors with symbolic shapes, and the non-tensor types of ONNX.

use crate::dim::Dim;
use crate::dtype::DType;
use std::fmt;

/// Elements one tensor may have at most: 2^40. More is a corrupt or hostile model, not a network.
pub const MAX_ELEMENTS: i64 = 1 << 40;
/// Rank limit; real models stay below 8.
pub const MAX_RANK: usize = 32;

/// Dimensions, outermost first.
pub type Shape = Vec<Dim>;

/// Element type and dimensions; rank 0 is a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
}

/// The type of a value. Operators take tensors today; sequences and optionals have their place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Tensor(TensorType),
    Sequence(Box<Type>),
    Optional(Box<Type>),
}

impl TensorType {
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> TensorType {
        TensorType { dtype, shape: shape.into_iter().map(Into::into).collect() }
    }

    pub fn scalar(dtype: DType) -> TensorType {
        TensorType { dtype, shape: vec![] }
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The numbers, if no dimension is symbolic.
    pub fn const_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect()
    }

    /// Number of elements.
    pub fn elements(&self) -> Dim {
        self.shape.iter().fold(Dim::ONE, |n, d| &n * d)
    }

    /// Size in bytes, dense.
    pub fn bytes(&self) -> Dim {
        &self.elements() * self.dtype.size() as i64
    }

    /// Says what is absurd about this type: negative or enormous dimensions, too many of them.
    pub fn check_size(&self) -> Result<(), String> {
        if self.rank() > MAX_RANK {
            return Err(format!("rank {} is more than {MAX_RANK}", self.rank()));
        }
        if let Some(d) = self.shape.iter().find(|d| d.as_const().is_some_and(|n| n < 0)) {
            return Err(format!("the shape {self} has the negative dimension {d}"));
        }
        // A zero must not hide an overflow in its neighbours: addresses are computed from all of them.
        let mut elements: i64 = 1;
        for n in self.shape.iter().filter_map(Dim::as_const).filter(|&n| n > 0) {
            elements = elements.saturating_mul(n);
        }
        if elements > MAX_ELEMENTS {
            return Err(format!("{self} has more than 2^40 elements"));
        }
        Ok(())
    }
}

impl Type {
    /// `None` for sequences and optionals.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            Type::Sequence(_) | Type::Optional(_) => None,
        }
    }
}

impl From<TensorType> for Type {
    fn from(t: TensorType) -> Type {
        Type::Tensor(t)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
        }
        write!(f, "]")
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(t) => write!(f, "{t}"),
            Type::Sequence(t) => write!(f, "seq<{t}>"),
            Type::Optional(t) => write!(f, "opt<{t}>"),
        }
    }
}
