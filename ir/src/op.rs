//! How an operator is stated, once: its name, operands, results and attributes in `op!`, its meaning in
//! [`OpDef`]. The printer, the parser, the arity check and the documentation derive from these.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// How many values an operand stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    One,
    /// May be absent.
    Opt,
    /// Any number from one up; only as the last operand.
    Many,
}

/// An operand in an operator's declaration.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub name: &'static str,
    pub arity: Arity,
}

/// What is known of an operator without an instance.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    pub name: &'static str,
    pub doc: &'static str,
    pub operands: &'static [Operand],
    pub results: &'static [&'static str],
    pub attrs: &'static [&'static str],
}

/// An attribute's value in the form that is printed and parsed. Floats compare by bits, so that it is `Eq`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttrValue {
    Int(i64),
    Float(Bits),
    Bool(bool),
    /// A keyword: an enum's variant or a dtype.
    Word(String),
    /// Quoted text.
    Text(String),
    Dim(Dim),
    List(Vec<AttrValue>),
}

/// An f32 by its bits: ONNX attributes are f32, and so are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bits(pub u32);

/// Types an attribute may have.
pub trait Attr: Sized + PartialEq {
    fn to_value(&self) -> AttrValue;
    fn from_value(v: &AttrValue) -> Result<Self, String>;
}

/// Attributes by name, as parsed; each must be taken.
#[derive(Debug, Default)]
pub struct Attrs(pub Vec<(String, AttrValue)>);

impl Attrs {
    /// The value of an attribute, once; `None` if it was not written.
    pub fn take<T: Attr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(at) = self.0.iter().position(|(n, _)| n == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        T::from_value(&value).map(Some).map_err(|e| format!("attribute {name}: {e}"))
    }

    /// Fails on what nobody took.
    pub fn finish(self) -> Result<(), String> {
        match self.0.first() {
            Some((name, _)) => Err(format!("unknown attribute {name}")),
            None => Ok(()),
        }
    }
}

/// The operands of one node: types or tensors, absent optional ones as `None`.
#[derive(Debug)]
pub struct In<'a, T>(pub &'a [Option<&'a T>]);

// Derived, these would ask T to be Copy.
impl<T> Clone for In<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<'_, T> {}

impl<'a, T> In<'a, T> {
    /// A required operand. The arity check runs before inference and evaluation, hence no error.
    pub fn get(&self, i: usize) -> &'a T {
        self.0[i].expect("arity is checked first")
    }

    /// Operand `i`, if it is there.
    pub fn opt(&self, i: usize) -> Option<&'a T> {
        self.0.get(i).copied().flatten()
    }

    /// All operands of a variadic op.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &'a T> + 'a {
        self.0.iter().map(|v| v.expect("arity is checked first"))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The printable face of an operator; `op!` writes it.
pub trait OpMeta: Sized {
    fn info(&self) -> OpInfo;
    /// Attributes that differ from their defaults, in declaration order.
    fn attrs(&self) -> Vec<(&'static str, AttrValue)>;
}

/// The meaning of an operator.
pub trait OpDef: OpMeta {
    /// Types of all results. Errors name the constraint (`conv.c1`).
    fn infer(&self, x: In<TensorType>) -> Result<Vec<TensorType>, Diag>;

    /// The oracle: naive, with wide accumulators, sharing no arithmetic with lowering. `out` are the inferred
    /// types, without symbols. Errors are faults of the data (an index out of range), in words.
    fn eval(&self, x: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String>;

    /// Arithmetic operations, a multiply-add counted as two. By default one per result element.
    fn flops(&self, _x: In<TensorType>, out: &[TensorType]) -> Dim {
        out.first().map_or(Dim::ZERO, |t| t.elements())
    }
}

/// Declares an operator: its struct, operands, results and attributes.
macro_rules! op {
    (
        $(#[doc = $doc:literal])*
        pub struct $S:ident = $name:literal ($($operand:ident : $arity:ident),*) -> ($($result:ident),*) {
            $( $(#[doc = $adoc:literal])* $attr:ident : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $S { $( $(#[doc = $adoc])* pub $attr: $ty, )* }

        impl $S {
            pub const INFO: $crate::op::OpInfo = $crate::op::OpInfo {
                name: $name,
                doc: concat!($($doc, "\n"),*),
                operands: &[$($crate::op::Operand { name: stringify!($operand), arity: $crate::op::Arity::$arity }),*],
                results: &[$(stringify!($result)),*],
                attrs: &[$(stringify!($attr)),*],
            };

            pub(crate) fn from_attrs(_attrs: &mut $crate::op::Attrs) -> Result<Self, String> {
                Ok($S { $(
                    $attr: match _attrs.take(stringify!($attr))? {
                        Some(v) => v,
                        None => $crate::op::default_attr!($attr $(= $default)?),
                    },
                )* })
            }
        }

        impl $crate::op::OpMeta for $S {
            fn info(&self) -> $crate::op::OpInfo {
                Self::INFO
            }

            fn attrs(&self) -> Vec<(&'static str, $crate::op::AttrValue)> {
                let mut _list = vec![];
                $( if !$crate::op::is_default_attr!(self.$attr $(, $default)?) {
                    _list.push((stringify!($attr), $crate::op::Attr::to_value(&self.$attr)));
                } )*
                _list
            }
        }
    };
}

macro_rules! default_attr {
    ($attr:ident) => {
        return Err(concat!("attribute ", stringify!($attr), " is missing").to_string())
    };
    ($attr:ident = $default:expr) => {
        $default
    };
}

macro_rules! is_default_attr {
    ($value:expr) => {
        false
    };
    ($value:expr, $default:expr) => {
        $value == $default
    };
}

/// An enum whose variants are keywords in the text form.
macro_rules! keyword {
    ($(#[$m:meta])* pub enum $E:ident { $($(#[$vm:meta])* $V:ident = $word:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $E { $($(#[$vm])* $V),* }

        impl $E {
            pub const ALL: &'static [$E] = &[$($E::$V),*];
            pub fn word(self) -> &'static str {
                match self { $($E::$V => $word),* }
            }
        }

        impl $crate::op::Attr for $E {
            fn to_value(&self) -> $crate::op::AttrValue {
                $crate::op::AttrValue::Word(self.word().to_string())
            }
            fn from_value(v: &$crate::op::AttrValue) -> Result<Self, String> {
                match v {
                    $($crate::op::AttrValue::Word(w) if w == $word => Ok($E::$V),)*
                    _ => Err(concat!("one of ", $($word, " "),*).trim_end().to_string()),
                }
            }
        }
    };
}

pub(crate) use {default_attr, is_default_attr, keyword, op};

impl Attr for i64 {
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(*self)
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Int(n) => Ok(*n),
            _ => Err("an integer is expected".into()),
        }
    }
}

impl Attr for usize {
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(*self as i64)
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        usize::try_from(i64::from_value(v)?).map_err(|_| "it must not be negative".into())
    }
}

impl Attr for f32 {
    fn to_value(&self) -> AttrValue {
        AttrValue::Float(Bits(self.to_bits()))
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Float(b) => Ok(f32::from_bits(b.0)),
            AttrValue::Int(n) => Ok(*n as f32),
            _ => Err("a number is expected".into()),
        }
    }
}

impl Attr for bool {
    fn to_value(&self) -> AttrValue {
        AttrValue::Bool(*self)
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Bool(b) => Ok(*b),
            _ => Err("true or false is expected".into()),
        }
    }
}

impl Attr for String {
    fn to_value(&self) -> AttrValue {
        AttrValue::Text(self.clone())
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Text(t) => Ok(t.clone()),
            _ => Err("quoted text is expected".into()),
        }
    }
}

impl Attr for Dim {
    fn to_value(&self) -> AttrValue {
        match self.as_const() {
            Some(n) => AttrValue::Int(n),
            None => AttrValue::Dim(self.clone()),
        }
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Int(n) => Ok(Dim::Const(*n)),
            AttrValue::Dim(d) => Ok(d.clone()),
            // A symbol that is no identifier is quoted.
            AttrValue::Word(w) | AttrValue::Text(w) => Ok(Dim::symbol(w)),
            _ => Err("a dimension is expected".into()),
        }
    }
}

impl Attr for DType {
    fn to_value(&self) -> AttrValue {
        AttrValue::Word(self.name().to_string())
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Word(w) => DType::from_name(w).ok_or_else(|| format!("{w} is no dtype")),
            _ => Err("a dtype is expected".into()),
        }
    }
}

impl<T: Attr> Attr for Vec<T> {
    fn to_value(&self) -> AttrValue {
        AttrValue::List(self.iter().map(Attr::to_value).collect())
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::List(items) => items.iter().map(T::from_value).collect(),
            _ => Err("a list is expected".into()),
        }
    }
}

/// Absent prints as nothing: optional attributes default to `None`.
impl<T: Attr> Attr for Option<T> {
    fn to_value(&self) -> AttrValue {
        match self {
            Some(v) => v.to_value(),
            None => AttrValue::Word("none".into()),
        }
    }
    fn from_value(v: &AttrValue) -> Result<Self, String> {
        match v {
            AttrValue::Word(w) if w == "none" => Ok(None),
            v => T::from_value(v).map(Some),
        }
    }
}
