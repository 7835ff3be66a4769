//! Elementwise functions of one and of two operands, as tables: a row names the function, its parameters, and
//! its meaning on f64. Sources: the ONNX operator of the same name.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::op::{Arity, Attr, AttrValue, Attrs, In, OpDef, OpInfo, OpMeta, Operand};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Which element types a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// f64, f32, f16, bf16.
    Float,
    /// Floats and integers.
    Number,
    Int,
    Bool,
    Any,
}

/// What a function gives for operands of type T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    Same,
    Bool,
}

macro_rules! unary_table {
    ($($V:ident $({ $($p:ident = $d:expr),* })? $name:literal $domain:ident -> $gives:ident, $doc:literal;)*) => {
        /// A function of one element.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum UnaryFn { $(#[doc = $doc] $V $({ $($p: f32),* })?,)* }

        impl UnaryFn {
            pub fn info(self) -> OpInfo {
                match self { $(UnaryFn::$V { .. } => OpInfo {
                    name: $name,
                    doc: $doc,
                    operands: &[Operand { name: "x", arity: Arity::One }],
                    results: &["y"],
                    attrs: &[$($(stringify!($p)),*)?],
                },)* }
            }

            pub fn domain(self) -> Domain {
                match self { $(UnaryFn::$V { .. } => Domain::$domain,)* }
            }

            pub fn gives(self) -> Gives {
                match self { $(UnaryFn::$V { .. } => Gives::$gives,)* }
            }

            fn attrs(self) -> Vec<(&'static str, AttrValue)> {
                match self { $(UnaryFn::$V $({ $($p),* })? => {
                    let mut _list = vec![];
                    $($(if $p != $d { _list.push((stringify!($p), $p.to_value())); })*)?
                    _list
                })* }
            }

            pub(crate) fn parse(name: &str, _attrs: &mut Attrs) -> Option<Result<UnaryFn, String>> {
                match name {
                    $($name => Some((|| Ok(UnaryFn::$V $({ $($p: _attrs.take(stringify!($p))?.unwrap_or($d)),* })?))()),)*
                    _ => None,
                }
            }

            /// One instance of each function, with its default parameters.
            pub fn all() -> Vec<UnaryFn> {
                vec![$(UnaryFn::$V $({ $($p: $d),* })?),*]
            }
        }
    };
}

unary_table! {
    Neg "neg" Number -> Same, "-x; integers wrap";
    Abs "abs" Number -> Same, "|x|";
    Sign "sign" Number -> Same, "-1, 0 or 1; NaN stays";
    Floor "floor" Float -> Same, "the largest integer not above x";
    Ceil "ceil" Float -> Same, "the smallest integer not below x";
    Round "round" Float -> Same, "to the nearest integer, ties to even";
    Sqrt "sqrt" Float -> Same, "square root; NaN below zero";
    Reciprocal "reciprocal" Float -> Same, "1/x";
    Exp "exp" Float -> Same, "e^x";
    Log "log" Float -> Same, "natural logarithm";
    Sin "sin" Float -> Same, "x in radians";
    Cos "cos" Float -> Same, "x in radians";
    Tan "tan" Float -> Same, "x in radians";
    Asin "asin" Float -> Same, "NaN outside [-1, 1]";
    Acos "acos" Float -> Same, "NaN outside [-1, 1]";
    Atan "atan" Float -> Same, "arc tangent";
    Sinh "sinh" Float -> Same, "hyperbolic sine";
    Cosh "cosh" Float -> Same, "hyperbolic cosine";
    Tanh "tanh" Float -> Same, "hyperbolic tangent";
    Asinh "asinh" Float -> Same, "inverse hyperbolic sine";
    Acosh "acosh" Float -> Same, "NaN below 1";
    Atanh "atanh" Float -> Same, "NaN outside [-1, 1]";
    Erf "erf" Float -> Same, "error function";
    Not "not" Bool -> Same, "logical negation";
    BitNot "bit_not" Int -> Same, "complement of every bit";
    IsNan "is_nan" Float -> Bool, "x is NaN";
    IsInf { negative = 1.0, positive = 1.0 } "is_inf" Float -> Bool, "x is infinite, of a sign whose flag is 1";
    Relu "relu" Number -> Same, "max(x, 0)";
    LeakyRelu { alpha = 0.01 } "leaky_relu" Float -> Same, "x < 0 ? alpha*x : x";
    ThresholdedRelu { alpha = 1.0 } "thresholded_relu" Float -> Same, "x > alpha ? x : 0";
    Elu { alpha = 1.0 } "elu" Float -> Same, "x < 0 ? alpha*(e^x - 1) : x";
    Celu { alpha = 1.0 } "celu" Float -> Same, "max(0, x) + min(0, alpha*(e^(x/alpha) - 1))";
    Selu { alpha = 1.673_263_2, gamma = 1.050_701 } "selu" Float -> Same, "x <= 0 ? gamma*alpha*(e^x - 1) : gamma*x";
    Sigmoid "sigmoid" Float -> Same, "1/(1 + e^-x)";
    HardSigmoid { alpha = 0.2, beta = 0.5 } "hard_sigmoid" Float -> Same, "max(0, min(1, alpha*x + beta))";
    HardSwish "hard_swish" Float -> Same, "x * max(0, min(1, x/6 + 1/2))";
    Swish { alpha = 1.0 } "swish" Float -> Same, "x * sigmoid(alpha*x)";
    Softplus "softplus" Float -> Same, "ln(1 + e^x)";
    Softsign "softsign" Float -> Same, "x/(1 + |x|)";
    Gelu "gelu" Float -> Same, "x/2 * (1 + erf(x/sqrt(2)))";
    GeluTanh "gelu_tanh" Float -> Same, "x/2 * (1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))";
    Mish "mish" Float -> Same, "x * tanh(softplus(x))";
}

macro_rules! binary_table {
    ($($V:ident $name:literal $domain:ident -> $gives:ident, $doc:literal;)*) => {
        /// A function of two elements; the operands broadcast against each other as in numpy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum BinaryFn { $(#[doc = $doc] $V,)* }

        impl BinaryFn {
            pub const ALL: &'static [BinaryFn] = &[$(BinaryFn::$V),*];

            pub fn info(self) -> OpInfo {
                match self { $(BinaryFn::$V => OpInfo {
                    name: $name,
                    doc: $doc,
                    operands: &[
                        Operand { name: "x", arity: Arity::One },
                        Operand { name: "y", arity: Arity::One },
                    ],
                    results: &["z"],
                    attrs: &[],
                },)* }
            }

            pub fn domain(self) -> Domain {
                match self { $(BinaryFn::$V => Domain::$domain,)* }
            }

            pub fn gives(self) -> Gives {
                match self { $(BinaryFn::$V => Gives::$gives,)* }
            }

            pub(crate) fn parse(name: &str) -> Option<BinaryFn> {
                match name { $($name => Some(BinaryFn::$V),)* _ => None }
            }
        }
    };
}

binary_table! {
    Add "add" Number -> Same, "x + y; integers wrap";
    Sub "sub" Number -> Same, "x - y; integers wrap";
    Mul "mul" Number -> Same, "x * y; integers wrap";
    Div "div" Number -> Same, "x / y; integers truncate towards zero, and y = 0 is a fault";
    Pow "pow" Number -> Same, "x^y in the type of x; the operands' types may differ";
    Mod "mod" Number -> Same, "remainder with the sign of y (Python's %); integer y = 0 is a fault";
    Fmod "fmod" Number -> Same, "remainder with the sign of x (C's fmod)";
    Min "min" Number -> Same, "the smaller; NaN if either is";
    Max "max" Number -> Same, "the larger; NaN if either is";
    And "and" Bool -> Same, "both";
    Or "or" Bool -> Same, "either";
    Xor "xor" Bool -> Same, "exactly one";
    BitAnd "bit_and" Int -> Same, "bitwise";
    BitOr "bit_or" Int -> Same, "bitwise";
    BitXor "bit_xor" Int -> Same, "bitwise";
    ShiftLeft "shift_left" Int -> Same, "x << y, zero when y is the width or more";
    ShiftRight "shift_right" Int -> Same, "x >> y, zero when y is the width or more";
    Equal "equal" Any -> Bool, "x = y";
    Less "less" Number -> Bool, "x < y";
    LessEqual "less_equal" Number -> Bool, "x <= y";
    Greater "greater" Number -> Bool, "x > y";
    GreaterEqual "greater_equal" Number -> Bool, "x >= y";
    Prelu "prelu" Number -> Same, "x < 0 ? x*y : x, y broadcast to x";
}

/// `f` of every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unary {
    pub f: UnaryFn,
}

/// `f` of every pair of elements, after broadcasting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binary {
    pub f: BinaryFn,
}

impl OpMeta for Unary {
    fn info(&self) -> OpInfo {
        self.f.info()
    }
    fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        self.f.attrs()
    }
}

impl OpMeta for Binary {
    fn info(&self) -> OpInfo {
        self.f.info()
    }
    fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        vec![]
    }
}

impl OpDef for Unary {}
impl OpDef for Binary {}
