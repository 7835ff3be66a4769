//! The closed set of operators. One line here per operator; its file states it.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::op::{AttrValue, Attrs, In, OpDef, OpInfo};
use crate::tensor::Tensor;
use crate::types::TensorType;

mod compare;
mod constant;
mod conv;
mod einsum;
mod elementwise;
mod fusion;
mod gather;
mod lines;
mod loss;
mod matmul;
mod move_data;
mod norm;
mod pool;
mod reduce;
mod resize;
mod shape;
mod softmax;
mod sort;
mod source;
mod window;

pub use compare::{Cast, Clip, Where};
pub use constant::{Const, Input};
pub use conv::{Conv, ConvTranspose};
pub use einsum::{Einsum, EinsumPlan};
pub use elementwise::{Binary, BinaryFn, Domain, Gives, Unary, UnaryFn};
pub use fusion::Fusion;
pub use gather::{Gather, GatherElements, GatherNd, OneHot, ScatterElements, ScatterNd, ScatterReduction};
pub use loss::{LossReduction, NllLoss, SoftmaxCrossEntropy};
pub use matmul::{Gemm, MatMul};
pub use move_data::{
    Concat, DepthOrder, DepthToSpace, Dropout, Expand, Identity, Pad, PadMode, Reshape, Slice, SpaceToDepth, Tile,
    Transpose, Trilu,
};
pub use norm::{BatchNorm, BatchNormTrain, GroupNorm, InstanceNorm, LayerNorm, Lrn};
pub use pool::{AvgPool, LpPool, MaxPool};
pub use reduce::{ArgExtreme, ArgReduce, CumSum, Reduce, ReduceFn};
pub use resize::{CoordinateTransform, NearestMode, Resize, ResizeMode, Sample};
pub use shape::{ShapeOf, SizeOf};
pub use softmax::{Hardmax, LogSoftmax, Softmax};
pub use sort::TopK;
pub use source::{Eye, Range};

/// Declares [`Op`] and its dispatch. `Unary` and `Binary` have a name per function, hence their own lines.
macro_rules! ops {
    ($($V:ident),* $(,)?) => {
        /// An operator with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            Input(Input),
            Const(Const),
            Unary(Unary),
            Binary(Binary),
            $($V($V),)*
        }

        $(impl From<$V> for Op { fn from(op: $V) -> Op { Op::$V(op) } })*

        impl Op {
            fn def(&self) -> &dyn DynOp {
                match self {
                    Op::Input(op) => op,
                    Op::Const(op) => op,
                    Op::Unary(op) => op,
                    Op::Binary(op) => op,
                    $(Op::$V(op) => op,)*
                }
            }

            /// The op called `name` in the text form, from its attributes. `None`: there is no such op.
            pub fn parse(name: &str, attrs: &mut Attrs) -> Option<Result<Op, String>> {
                if let Some(f) = UnaryFn::parse(name, attrs) {
                    return Some(f.map(|f| Op::Unary(Unary { f })));
                }
                if let Some(f) = BinaryFn::parse(name) {
                    return Some(Ok(Op::Binary(Binary { f })));
                }
                $(if name == $V::INFO.name {
                    return Some($V::from_attrs(attrs).map(Op::$V));
                })*
                None
            }

            /// Every operator that is declared by `op!`, for documentation and completeness tests.
            pub const INFOS: &'static [OpInfo] = &[$($V::INFO),*];
        }
    };
}

ops! {
    Where, Cast, Clip,
    Conv, ConvTranspose, MatMul, Gemm, Einsum,
    BatchNorm, BatchNormTrain, InstanceNorm, LayerNorm, GroupNorm, Lrn, Softmax, LogSoftmax, Hardmax,
    MaxPool, AvgPool, LpPool,
    Reduce, ArgReduce, CumSum, TopK,
    Concat, Slice, Pad, Reshape, Transpose, Expand, Tile, Trilu, DepthToSpace, SpaceToDepth, Identity, Dropout,
    Gather, GatherElements, GatherNd, ScatterElements, ScatterNd, OneHot,
    Range, Eye, ShapeOf, SizeOf,
    Resize, NllLoss, SoftmaxCrossEntropy,
    Fusion,
}

impl From<Unary> for Op {
    fn from(op: Unary) -> Op {
        Op::Unary(op)
    }
}

impl From<Binary> for Op {
    fn from(op: Binary) -> Op {
        Op::Binary(op)
    }
}

/// [`OpDef`] without the parts that need a concrete type.
trait DynOp {
    fn dyn_info(&self) -> OpInfo;
    fn dyn_attrs(&self) -> Vec<(&'static str, AttrValue)>;
    fn dyn_infer(&self, x: In<TensorType>) -> Result<Vec<TensorType>, Diag>;
    fn dyn_eval(&self, x: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String>;
    fn dyn_flops(&self, x: In<TensorType>, out: &[TensorType]) -> Dim;
}

impl<T: OpDef> DynOp for T {
    fn dyn_info(&self) -> OpInfo {
        self.info()
    }
    fn dyn_attrs(&self) -> Vec<(&'static str, AttrValue)> {
        self.attrs()
    }
    fn dyn_infer(&self, x: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        self.infer(x)
    }
    fn dyn_eval(&self, x: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        self.eval(x, out)
    }
    fn dyn_flops(&self, x: In<TensorType>, out: &[TensorType]) -> Dim {
        self.flops(x, out)
    }
}

impl Op {
    pub fn name(&self) -> &'static str {
        self.info().name
    }

    pub fn info(&self) -> OpInfo {
        self.def().dyn_info()
    }

    pub fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        self.def().dyn_attrs()
    }

    /// Types of the results from those of the operands; arity must have been checked. `Fusion` has its types
    /// from its region, which [`crate::Graph`] looks at.
    pub fn infer(&self, x: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        self.def().dyn_infer(x)
    }

    pub fn eval(&self, x: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        self.def().dyn_eval(x, out)
    }

    pub fn flops(&self, x: In<TensorType>, out: &[TensorType]) -> Dim {
        self.def().dyn_flops(x, out)
    }

    /// True for graph inputs and constants: they have no operands and are computed by nobody.
    pub fn is_source(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Const(_))
    }

    /// True for the operators whose kernel can take elementwise work along: what a fusion is built around.
    pub fn is_anchor(&self) -> bool {
        matches!(
            self,
            Op::Conv(_)
                | Op::ConvTranspose(_)
                | Op::Gemm(_)
                | Op::MatMul(_)
                | Op::MaxPool(_)
                | Op::AvgPool(_)
                | Op::LpPool(_)
                | Op::Reduce(_)
                | Op::InstanceNorm(_)
                | Op::GroupNorm(_)
        )
    }

    /// True for operators whose result elements each depend on one element of every (broadcast) operand.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Op::Unary(_) | Op::Binary(_) | Op::Where(_) | Op::Cast(_) | Op::Clip(_))
    }

    /// Complains when the number of operands does not fit the declaration.
    pub fn check_arity(&self, present: &[bool]) -> Result<(), Diag> {
        use crate::op::Arity;
        let info = self.info();
        let variadic = info.operands.last().is_some_and(|o| o.arity == Arity::Many);
        if present.len() > info.operands.len() && !variadic {
            return Err(Diag::new(
                "op.arity",
                format!("{} takes at most {} operands, {} are given", info.name, info.operands.len(), present.len()),
            ));
        }
        for (i, operand) in info.operands.iter().enumerate() {
            if operand.arity != Arity::Opt && !present.get(i).copied().unwrap_or(false) {
                return Err(Diag::new("op.arity", format!("{}: operand {} is missing", info.name, operand.name)));
            }
        }
        if variadic && !present.iter().all(|&p| p) {
            return Err(Diag::new("op.arity", format!("{}: an operand is missing", info.name)));
        }
        Ok(())
    }
}
