//! Checks and rules that the inference of many operators shares.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::{DType, Kind};
use crate::ops::Domain;
use crate::types::{Shape, TensorType};

/// The common shape of operands under numpy's broadcasting. Dimensions that are equal as expressions agree; a
/// symbol against a number other than 1 is taken for that number (the run checks it).
pub fn broadcast<'a>(shapes: impl IntoIterator<Item = &'a Shape> + Clone) -> Result<Shape, Diag> {
    let rank = shapes.clone().into_iter().map(Vec::len).max().unwrap_or(0);
    let mut result = vec![Dim::ONE; rank];
    for shape in shapes {
        let skip = rank - shape.len();
        for (d, to) in shape.iter().zip(&mut result[skip..]) {
            *to = match (d, &*to) {
                (d, to) if d == to || d.is(1) => to.clone(),
                (d, to) if to.is(1) => d.clone(),
                (Dim::Const(_), Dim::Expr(_)) => d.clone(),
                (Dim::Expr(_), Dim::Const(_)) => to.clone(),
                (d, to) => {
                    return Err(Diag::new("broadcast.c1", format!("dimensions {to} and {d} do not broadcast")));
                }
            };
        }
    }
    Ok(result)
}

/// All operands have one element type.
pub fn same_dtype<'a>(code: &'static str, types: impl IntoIterator<Item = &'a TensorType>) -> Result<(), Diag> {
    let mut types = types.into_iter();
    let Some(first) = types.next() else { return Ok(()) };
    match types.find(|t| t.dtype != first.dtype) {
        Some(t) => Err(Diag::new(code, format!("operands of {} and {} do not mix", first.dtype, t.dtype))),
        None => Ok(()),
    }
}

/// The element type is one that the function takes.
pub fn require_dtype(code: &'static str, dtype: DType, domain: Domain) -> Result<(), Diag> {
    let fits = dtype.is_computable()
        && match domain {
            Domain::Float => dtype.is_float(),
            Domain::Number => dtype.is_float() || dtype.is_int(),
            Domain::Int => dtype.is_int(),
            Domain::Bool => dtype.kind() == Kind::Bool,
            Domain::Any => true,
        };
    if fits { Ok(()) } else { Err(Diag::new(code, format!("elements of {dtype} are not taken, {domain} are"))) }
}
