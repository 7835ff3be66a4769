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

/// `axis` is one of the axes of `t`.
pub fn require_axis(code: &'static str, axis: usize, t: &TensorType) -> Result<(), Diag> {
    if axis < t.rank() {
        return Ok(());
    }
    Err(Diag::new(code, format!("axis {axis} is not one of the {} of {t}", t.rank())))
}

/// `t` has at least `min` axes.
pub fn require_rank(code: &'static str, name: &str, t: &TensorType, min: usize) -> Result<(), Diag> {
    if t.rank() >= min {
        return Ok(());
    }
    Err(Diag::new(code, format!("{name} needs at least {min} axes, it is {t}")))
}

/// `t` has this shape, as far as the symbols tell; binding them checks the rest.
pub fn require_shape(code: &'static str, name: &str, t: &TensorType, shape: &[Dim]) -> Result<(), Diag> {
    if t.rank() == shape.len() && !t.shape.iter().zip(shape).any(|(a, b)| differ(a, b)) {
        return Ok(());
    }
    let wanted = TensorType { dtype: t.dtype, shape: shape.to_vec() };
    Err(Diag::new(code, format!("{name} must be {wanted}, it is {t}")))
}

/// `t` stretches to `to`, which stays as it is.
pub fn broadcasts_to(code: &'static str, name: &str, t: &TensorType, to: &TensorType) -> Result<(), Diag> {
    let skip = to.rank().checked_sub(t.rank());
    if skip.is_some_and(|skip| t.shape.iter().zip(&to.shape[skip..]).all(|(d, to)| d.is(1) || !differ(d, to))) {
        return Ok(());
    }
    Err(Diag::new(code, format!("{name} ({t}) does not broadcast to {to}")))
}

/// True when two dimensions differ whatever the symbols stand for.
pub(crate) fn differ(a: &Dim, b: &Dim) -> bool {
    (a - b).as_const().is_some_and(|d| d != 0)
}
