//! Elementwise functions of one and of two operands, as tables: a row names the function, its parameters, and
//! its meaning on f64. Sources: the ONNX operator of the same name.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::infer::{broadcast, require_dtype, same_dtype};
use crate::op::{Arity, Attr, AttrValue, Attrs, In, OpDef, OpInfo, OpMeta, Operand};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::spread;

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

            /// The function called `name`, with its parameters; `None` if there is none.
            pub(crate) fn parse(name: &str, attrs: &mut Attrs) -> Option<Result<UnaryFn, String>> {
                Self::try_parse(name, attrs).transpose()
            }

            fn try_parse(name: &str, _attrs: &mut Attrs) -> Result<Option<UnaryFn>, String> {
                Ok(match name {
                    $($name => Some(UnaryFn::$V $({ $($p: _attrs.take(stringify!($p))?.unwrap_or($d)),* })?),)*
                    _ => None,
                })
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
    Log1p "log1p" Float -> Same, "ln(1 + x), without the loss of 1 + x for small x; NaN below -1";
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
    ThresholdedRelu { alpha = 1.0 } "thresholded_relu" Float -> Same, "x > alpha ? x : 0; NaN gives 0";
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
    ShiftLeft "shift_left" Int -> Same, "x << y, zero when y is negative or the width or more";
    ShiftRight "shift_right" Int -> Same, "x >> y, copies of the sign coming in; when y is negative or the width or more, nothing but them";
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

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Domain::Float => "floats",
            Domain::Number => "floats and integers",
            Domain::Int => "integers",
            Domain::Bool => "booleans",
            Domain::Any => "numbers and booleans",
        })
    }
}

impl OpDef for Unary {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // unary.c1: the element type is in the function's domain
        require_dtype("unary.c1", x.dtype, self.f.domain())?;
        Ok(vec![TensorType { dtype: result_dtype(self.f.gives(), x.dtype), shape: x.shape.clone() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let (dtype, shape) = (out[0].dtype, x.shape().to_vec());
        Ok(vec![if x.dtype().is_float() {
            Tensor::from_f64(dtype, shape, x.to_f64().into_iter().map(|x| self.f.of_float(x)))
        } else {
            Tensor::from_i128(dtype, shape, x.to_i128().into_iter().map(|x| self.f.of_int(x)))
        }])
    }
}

impl OpDef for Binary {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, y) = (t.get(0), t.get(1));
        // binary.c1: the element types are in the function's domain
        require_dtype("binary.c1", x.dtype, self.f.domain())?;
        require_dtype("binary.c1", y.dtype, self.f.domain())?;
        // binary.c2: the element types are equal, but for pow
        if self.f != BinaryFn::Pow {
            same_dtype("binary.c2", [x, y])?;
        }
        let shape = broadcast([&x.shape, &y.shape])?;
        // binary.c3: prelu's slope broadcasts to x, not x to the slope
        if self.f == BinaryFn::Prelu && shape != x.shape {
            return Err(Diag::new("binary.c3", format!("a slope of {y} does not broadcast to {x}")));
        }
        Ok(vec![TensorType { dtype: result_dtype(self.f.gives(), x.dtype), shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, y) = (v.get(0), v.get(1));
        let (dtype, shape) = (out[0].dtype, out[0].const_shape().ok_or("the output's shape is not known")?);
        let spread_f64 = |t: &Tensor| spread(t.to_f64(), t.shape(), &shape);
        let spread_i128 = |t: &Tensor| spread(t.to_i128(), t.shape(), &shape);
        Ok(vec![match (x.dtype().is_float(), y.dtype().is_float()) {
            (true, _) => {
                let pairs = spread_f64(x).into_iter().zip(spread_f64(y));
                Tensor::from_f64(dtype, shape.clone(), pairs.map(|(x, y)| self.f.of_floats(x, y)))
            }
            // Only pow mixes an integer base with a float exponent.
            (false, true) => {
                let pairs = spread_f64(x).into_iter().zip(spread_f64(y));
                Tensor::from_f64(dtype, shape.clone(), pairs.map(|(x, y)| x.powf(y).trunc()))
            }
            (false, false) => {
                let pairs = spread_i128(x).into_iter().zip(spread_i128(y));
                let bits = x.dtype().bits();
                let values: Result<Vec<i128>, String> = pairs.map(|(x, y)| self.f.of_ints(x, y, bits)).collect();
                Tensor::from_i128(dtype, shape.clone(), values?)
            }
        }])
    }
}

fn result_dtype(gives: Gives, x: DType) -> DType {
    match gives {
        Gives::Same => x,
        Gives::Bool => DType::Bool,
    }
}

impl UnaryFn {
    /// The function on a float. Stable forms where the textbook one cancels or overflows.
    fn of_float(self, x: f64) -> f64 {
        let wide = f64::from;
        let expm1_scaled = |alpha: f32, x: f64| wide(alpha) * x.exp_m1();
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let truth = |b: bool| f64::from(u8::from(b));
        match self {
            UnaryFn::Neg => -x,
            UnaryFn::Abs => x.abs(),
            UnaryFn::Sign => {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    x
                }
            }
            UnaryFn::Floor => x.floor(),
            UnaryFn::Ceil => x.ceil(),
            UnaryFn::Round => x.round_ties_even(),
            UnaryFn::Sqrt => x.sqrt(),
            UnaryFn::Reciprocal => 1.0 / x,
            UnaryFn::Exp => x.exp(),
            UnaryFn::Log => x.ln(),
            UnaryFn::Log1p => x.ln_1p(),
            UnaryFn::Sin => x.sin(),
            UnaryFn::Cos => x.cos(),
            UnaryFn::Tan => x.tan(),
            UnaryFn::Asin => x.asin(),
            UnaryFn::Acos => x.acos(),
            UnaryFn::Atan => x.atan(),
            UnaryFn::Sinh => x.sinh(),
            UnaryFn::Cosh => x.cosh(),
            UnaryFn::Tanh => x.tanh(),
            UnaryFn::Asinh => libm::asinh(x),
            // libm gives a number for some x below 1.
            UnaryFn::Acosh if x < 1.0 => f64::NAN,
            UnaryFn::Acosh => libm::acosh(x),
            UnaryFn::Atanh => libm::atanh(x),
            UnaryFn::Erf => libm::erf(x),
            UnaryFn::Not => truth(x == 0.0),
            UnaryFn::BitNot => unreachable!("inference lets no floats here"),
            UnaryFn::IsNan => truth(x.is_nan()),
            UnaryFn::IsInf { negative, positive } => {
                truth((x == f64::INFINITY && positive != 0.0) || (x == f64::NEG_INFINITY && negative != 0.0))
            }
            UnaryFn::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            UnaryFn::LeakyRelu { alpha } => {
                if x < 0.0 {
                    wide(alpha) * x
                } else {
                    x
                }
            }
            UnaryFn::ThresholdedRelu { alpha } => {
                if x > wide(alpha) {
                    x
                } else {
                    0.0
                }
            }
            UnaryFn::Elu { alpha } => {
                if x < 0.0 {
                    expm1_scaled(alpha, x)
                } else {
                    x
                }
            }
            UnaryFn::Celu { alpha } => {
                if x < 0.0 {
                    expm1_scaled(alpha, x / wide(alpha))
                } else {
                    x
                }
            }
            UnaryFn::Selu { alpha, gamma } => wide(gamma) * if x <= 0.0 { expm1_scaled(alpha, x) } else { x },
            UnaryFn::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            UnaryFn::HardSigmoid { alpha, beta } => (wide(alpha) * x + wide(beta)).clamp(0.0, 1.0),
            UnaryFn::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            UnaryFn::Swish { alpha } => x / (1.0 + (-wide(alpha) * x).exp()),
            UnaryFn::Softplus => softplus(x),
            UnaryFn::Softsign => x / (1.0 + x.abs()),
            UnaryFn::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            UnaryFn::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                // 1 + tanh(t) = 2/(1 + e^-2t), without the cancellation for negative t
                x / (1.0 + (-2.0 * inner).exp())
            }
            UnaryFn::Mish => x * softplus(x).tanh(),
        }
    }

    /// The function on an integer or boolean; the caller wraps.
    fn of_int(self, x: i128) -> i128 {
        match self {
            UnaryFn::Neg => -x,
            UnaryFn::Abs => x.abs(),
            UnaryFn::Sign => x.signum(),
            UnaryFn::Relu => x.max(0),
            UnaryFn::Not => i128::from(x == 0),
            UnaryFn::BitNot => !x,
            other => unreachable!("inference lets no integers reach {other:?}"),
        }
    }
}

impl BinaryFn {
    fn of_floats(self, x: f64, y: f64) -> f64 {
        let truth = |b: bool| f64::from(u8::from(b));
        match self {
            BinaryFn::Add => x + y,
            BinaryFn::Sub => x - y,
            BinaryFn::Mul => x * y,
            BinaryFn::Div => x / y,
            BinaryFn::Pow => x.powf(y),
            BinaryFn::Fmod => x % y,
            BinaryFn::Mod => {
                let r = x % y;
                if r == 0.0 {
                    r.abs().copysign(y)
                } else if (r < 0.0) != (y < 0.0) {
                    r + y
                } else {
                    r
                }
            }
            BinaryFn::Min if x.is_nan() || x < y => x,
            BinaryFn::Min => y,
            BinaryFn::Max if x.is_nan() || x > y => x,
            BinaryFn::Max => y,
            BinaryFn::Equal => truth(x == y),
            BinaryFn::Less => truth(x < y),
            BinaryFn::LessEqual => truth(x <= y),
            BinaryFn::Greater => truth(x > y),
            BinaryFn::GreaterEqual => truth(x >= y),
            BinaryFn::Prelu => {
                if x < 0.0 {
                    x * y
                } else {
                    x
                }
            }
            BinaryFn::And
            | BinaryFn::Or
            | BinaryFn::Xor
            | BinaryFn::BitAnd
            | BinaryFn::BitOr
            | BinaryFn::BitXor
            | BinaryFn::ShiftLeft
            | BinaryFn::ShiftRight => unreachable!("inference lets no floats here"),
        }
    }

    /// The function on integers or booleans of `bits` bits; the caller wraps.
    fn of_ints(self, x: i128, y: i128, bits: u32) -> Result<i128, String> {
        let fits = (0..i128::from(bits)).contains(&y);
        Ok(match self {
            BinaryFn::Add => x + y,
            BinaryFn::Sub => x - y,
            // The product of two u64 may need 128 bits without a sign.
            BinaryFn::Mul => x.wrapping_mul(y),
            BinaryFn::Div | BinaryFn::Mod | BinaryFn::Fmod if y == 0 => return Err("integer division by zero".into()),
            BinaryFn::Div => x / y,
            BinaryFn::Fmod => x % y,
            BinaryFn::Mod => {
                let r = x % y;
                if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
            }
            BinaryFn::Pow => int_pow(x, y)?,
            BinaryFn::Min => x.min(y),
            BinaryFn::Max => x.max(y),
            BinaryFn::And | BinaryFn::BitAnd => x & y,
            BinaryFn::Or | BinaryFn::BitOr => x | y,
            BinaryFn::Xor | BinaryFn::BitXor => x ^ y,
            BinaryFn::ShiftLeft if fits => x << y,
            BinaryFn::ShiftLeft => 0,
            BinaryFn::ShiftRight => x >> if fits { y } else { i128::from(bits) },
            BinaryFn::Equal => i128::from(x == y),
            BinaryFn::Less => i128::from(x < y),
            BinaryFn::LessEqual => i128::from(x <= y),
            BinaryFn::Greater => i128::from(x > y),
            BinaryFn::GreaterEqual => i128::from(x >= y),
            BinaryFn::Prelu => {
                if x < 0 {
                    x * y
                } else {
                    x
                }
            }
        })
    }
}

/// x^y modulo 2^128; a negative exponent gives the truncated fraction.
fn int_pow(x: i128, y: i128) -> Result<i128, String> {
    if y < 0 {
        return match x {
            0 => Err("zero to a negative power".into()),
            1 => Ok(1),
            -1 => Ok(if y % 2 == 0 { 1 } else { -1 }),
            _ => Ok(0),
        };
    }
    let (mut result, mut base, mut rest) = (1i128, x, y);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        rest >>= 1;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn unary(f: UnaryFn, x: f64) -> f64 {
        let x = Tensor::scalar_f64(DType::F64, x);
        let op = Op::from(Unary { f });
        op.eval(In(&[Some(&x)]), &[x.ty()]).unwrap()[0].to_f64()[0]
    }

    #[test]
    fn stays_finite_where_the_textbook_form_overflows() {
        assert_eq!(unary(UnaryFn::Softplus, 1e4), 1e4);
        assert_eq!(unary(UnaryFn::Softplus, -1e4), 0.0);
        assert_eq!(unary(UnaryFn::Mish, 1e4), 1e4);
        assert_eq!(unary(UnaryFn::Sigmoid, -1e4), 0.0);
        assert!((unary(UnaryFn::Gelu, -10.0) + 7.619_853_024_160_5e-23).abs() < 1e-35);
    }

    #[test]
    fn nan_passes_through_activations() {
        let tests = UnaryFn::all().into_iter().filter(|f| f.domain() != Domain::Bool && f.domain() != Domain::Int);
        for f in tests.filter(|f| f.gives() == Gives::Same) {
            // NaN is not above the threshold: as in ONNX's reference, it gives 0.
            let kept = !matches!(f, UnaryFn::ThresholdedRelu { .. });
            assert_eq!(unary(f, f64::NAN).is_nan(), kept, "{f:?}");
        }
    }

    #[test]
    fn broadcasts_and_computes_integers_exactly() {
        let x = Tensor::from_i128(DType::I64, vec![2, 1], [i64::MAX as i128, -7]);
        let y = Tensor::from_i128(DType::I64, vec![3], [1, 2, -2]);
        let eval = |f: BinaryFn| {
            let op = Binary { f };
            let ty = op.infer(In(&[Some(&x.ty()), Some(&y.ty())])).unwrap();
            op.eval(In(&[Some(&x), Some(&y)]), &ty).map(|t| t[0].to_i128())
        };
        let max = i64::MAX as i128;
        assert_eq!(eval(BinaryFn::Add).unwrap(), [i64::MIN as i128, i64::MIN as i128 + 1, max - 2, -6, -5, -9]);
        assert_eq!(eval(BinaryFn::Mod).unwrap(), [0, 1, -1, 0, 1, -1]);
        assert_eq!(eval(BinaryFn::Fmod).unwrap(), [0, 1, 1, 0, -1, -1]);
        assert_eq!(eval(BinaryFn::Div).unwrap(), [max, max / 2, max / -2, -7, -3, 3]);
    }

    #[test]
    fn division_of_integers_by_zero_is_a_fault() {
        assert!(BinaryFn::Div.of_ints(1, 0, 32).is_err());
        assert_eq!(BinaryFn::ShiftLeft.of_ints(1, 32, 32), Ok(0));
        assert_eq!(BinaryFn::ShiftRight.of_ints(-8, -1, 32), Ok(-1));
        assert_eq!(BinaryFn::ShiftRight.of_ints(8, 32, 32), Ok(0));
        assert_eq!(BinaryFn::ShiftRight.of_ints(255, 8, 8), Ok(0));
        let most = i128::from(u64::MAX);
        assert_eq!(BinaryFn::Mul.of_ints(most, most, 64).map(|v| v as u64), Ok(1));
        assert_eq!(BinaryFn::Pow.of_ints(-2, 3, 32), Ok(-8));
    }
}
