//! Functions of one, two and any number of elements, selection and conversion.

use super::{ANY, How, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use How::{Own, Unary as U};
use lehr_ir::ops::{Binary, BinaryFn, Cast, Clip, Identity, Reshape, Unary, UnaryFn, Where};
use lehr_ir::{DType, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator           opsets     operands  importer
    row("Abs",             (6, MAX),  (1, 1),   U(UnaryFn::Abs)),
    row("Acos",            (7, MAX),  (1, 1),   U(UnaryFn::Acos)),
    row("Acosh",           (9, MAX),  (1, 1),   U(UnaryFn::Acosh)),
    row("Asin",            (7, MAX),  (1, 1),   U(UnaryFn::Asin)),
    row("Asinh",           (9, MAX),  (1, 1),   U(UnaryFn::Asinh)),
    row("Atan",            (7, MAX),  (1, 1),   U(UnaryFn::Atan)),
    row("Atanh",           (9, MAX),  (1, 1),   U(UnaryFn::Atanh)),
    row("BitwiseNot",      (18, MAX), (1, 1),   U(UnaryFn::BitNot)),
    row("Ceil",            (6, MAX),  (1, 1),   U(UnaryFn::Ceil)),
    row("Celu",            (12, MAX), (1, 1),   U(UnaryFn::Celu { alpha: 1.0 })),
    row("Cos",             (7, MAX),  (1, 1),   U(UnaryFn::Cos)),
    row("Cosh",            (9, MAX),  (1, 1),   U(UnaryFn::Cosh)),
    row("Elu",             (6, MAX),  (1, 1),   U(UnaryFn::Elu { alpha: 1.0 })),
    row("Erf",             (9, MAX),  (1, 1),   U(UnaryFn::Erf)),
    row("Exp",             (6, MAX),  (1, 1),   U(UnaryFn::Exp)),
    row("Floor",           (6, MAX),  (1, 1),   U(UnaryFn::Floor)),
    row("HardSigmoid",     (6, MAX),  (1, 1),   U(UnaryFn::HardSigmoid { alpha: 0.2, beta: 0.5 })),
    row("HardSwish",       (14, MAX), (1, 1),   U(UnaryFn::HardSwish)),
    row("IsNaN",           (9, MAX),  (1, 1),   U(UnaryFn::IsNan)),
    row("LeakyRelu",       (6, MAX),  (1, 1),   U(UnaryFn::LeakyRelu { alpha: 0.01 })),
    row("Log",             (6, MAX),  (1, 1),   U(UnaryFn::Log)),
    row("Mish",            (18, MAX), (1, 1),   U(UnaryFn::Mish)),
    row("Neg",             (6, MAX),  (1, 1),   U(UnaryFn::Neg)),
    row("Not",             (1, MAX),  (1, 1),   U(UnaryFn::Not)),
    row("Reciprocal",      (6, MAX),  (1, 1),   U(UnaryFn::Reciprocal)),
    row("Relu",            (6, MAX),  (1, 1),   U(UnaryFn::Relu)),
    row("Round",           (11, MAX), (1, 1),   U(UnaryFn::Round)),
    row("Selu",            (6, MAX),  (1, 1),   U(UnaryFn::Selu { alpha: 1.673_263_2, gamma: 1.050_701 })),
    row("Sigmoid",         (6, MAX),  (1, 1),   U(UnaryFn::Sigmoid)),
    row("Sign",            (9, MAX),  (1, 1),   U(UnaryFn::Sign)),
    row("Sin",             (7, MAX),  (1, 1),   U(UnaryFn::Sin)),
    row("Sinh",            (9, MAX),  (1, 1),   U(UnaryFn::Sinh)),
    row("Softplus",        (1, MAX),  (1, 1),   U(UnaryFn::Softplus)),
    row("Softsign",        (1, MAX),  (1, 1),   U(UnaryFn::Softsign)),
    row("Sqrt",            (6, MAX),  (1, 1),   U(UnaryFn::Sqrt)),
    row("Swish",           (24, MAX), (1, 1),   U(UnaryFn::Swish { alpha: 1.0 })),
    row("Tan",             (7, MAX),  (1, 1),   U(UnaryFn::Tan)),
    row("Tanh",            (6, MAX),  (1, 1),   U(UnaryFn::Tanh)),
    row("ThresholdedRelu", (10, MAX), (1, 1),   U(UnaryFn::ThresholdedRelu { alpha: 1.0 })),
    row("Gelu",            (20, MAX), (1, 1),   Own(gelu)),
    row("IsInf",           (10, MAX), (1, 1),   Own(is_inf)),
    row("Shrink",          (9, MAX),  (1, 1),   Own(shrink)),
    row("Add",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Add)),
    row("Sub",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Sub)),
    row("Mul",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Mul)),
    row("Div",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Div)),
    row("Pow",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Pow)),
    row("SwiGLU",          (28, MAX), (2, 2),   Own(swiglu)),
    row("PRelu",           (7, MAX),  (2, 2),   How::Binary(BinaryFn::Prelu)),
    row("And",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::And)),
    row("Or",              (7, MAX),  (2, 2),   How::Binary(BinaryFn::Or)),
    row("Xor",             (7, MAX),  (2, 2),   How::Binary(BinaryFn::Xor)),
    row("BitwiseAnd",      (18, MAX), (2, 2),   How::Binary(BinaryFn::BitAnd)),
    row("BitwiseOr",       (18, MAX), (2, 2),   How::Binary(BinaryFn::BitOr)),
    row("BitwiseXor",      (18, MAX), (2, 2),   How::Binary(BinaryFn::BitXor)),
    row("Equal",           (7, MAX),  (2, 2),   How::Binary(BinaryFn::Equal)),
    row("Less",            (7, MAX),  (2, 2),   How::Binary(BinaryFn::Less)),
    row("LessOrEqual",     (12, MAX), (2, 2),   How::Binary(BinaryFn::LessEqual)),
    row("Greater",         (7, MAX),  (2, 2),   How::Binary(BinaryFn::Greater)),
    row("GreaterOrEqual",  (12, MAX), (2, 2),   How::Binary(BinaryFn::GreaterEqual)),
    row("Mod",             (10, MAX), (2, 2),   Own(modulo)),
    row("BitShift",        (11, MAX), (2, 2),   Own(bit_shift)),
    row("Sum",             (6, MAX),  (1, ANY), Own(sum)),
    row("Mean",            (6, MAX),  (1, ANY), Own(mean)),
    row("Min",             (6, MAX),  (1, ANY), Own(min)),
    row("Max",             (6, MAX),  (1, ANY), Own(max)),
    row("Where",           (9, MAX),  (3, 3),   Own(where_)),
    row("Clip",            (6, 10),   (1, 1),   Own(clip_by_attr)),
    row("Clip",            (11, MAX), (1, 3),   Own(clip_by_operand)),
    row("Cast",            (6, MAX),  (1, 1),   Own(cast)),
    row("CastLike",        (15, MAX), (2, 2),   Own(cast_like)),
    row("Identity",        (1, MAX),  (1, 1),   Own(identity)),
];

fn gelu(site: &mut Site) -> Result<Vec<ValueId>> {
    let words = [("none", UnaryFn::Gelu), ("tanh", UnaryFn::GeluTanh)];
    let f = site.attrs.keyword("approximate", UnaryFn::Gelu, &words)?;
    let x = site.x(0)?;
    Ok(vec![site.op(Unary { f }, &[x])?])
}

fn is_inf(site: &mut Site) -> Result<Vec<ValueId>> {
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let negative = flag(site.attrs.flag("detect_negative", true)?);
    let positive = flag(site.attrs.flag("detect_positive", true)?);
    let x = site.x(0)?;
    Ok(vec![site.op(Unary { f: UnaryFn::IsInf { negative, positive } }, &[x])?])
}

/// `x < -lambd ? x + bias : x > lambd ? x - bias : 0`
fn shrink(site: &mut Site) -> Result<Vec<ValueId>> {
    let (bias, lambd) = (site.attrs.float("bias", 0.0)?, site.attrs.float("lambd", 0.5)?);
    let x = site.x(0)?;
    let dtype = site.dtype(x);
    let (low, high) = (site.scalar(-lambd as f64, dtype), site.scalar(lambd as f64, dtype));
    let (bias, zero) = (site.scalar(bias as f64, dtype), site.scalar(0.0, dtype));
    let (below, above) = (binary(site, BinaryFn::Less, x, low)?, binary(site, BinaryFn::Greater, x, high)?);
    let (up, down) = (binary(site, BinaryFn::Add, x, bias)?, binary(site, BinaryFn::Sub, x, bias)?);
    let inner = site.op(Where {}, &[above, down, zero])?;
    Ok(vec![site.op(Where {}, &[below, up, inner])?])
}

/// `swish(a) * b`
fn swiglu(site: &mut Site) -> Result<Vec<ValueId>> {
    let alpha = site.attrs.float("alpha", 1.0)?;
    let (a, b) = (site.x(0)?, site.x(1)?);
    if site.shape(a) != site.shape(b) {
        return Err(site.error("import.operand", "its operands must have one shape"));
    }
    let gate = site.op(Unary { f: UnaryFn::Swish { alpha } }, &[a])?;
    Ok(vec![binary(site, BinaryFn::Mul, gate, b)?])
}

fn modulo(site: &mut Site) -> Result<Vec<ValueId>> {
    let f = if site.attrs.flag("fmod", false)? { BinaryFn::Fmod } else { BinaryFn::Mod };
    let (x, y) = (site.x(0)?, site.x(1)?);
    if f == BinaryFn::Mod && site.dtype(x).is_float() && site.opset < 28 {
        return Err(bad("fmod", "it must be 1 for floating point operands"));
    }
    Ok(vec![binary(site, f, x, y)?])
}

fn bit_shift(site: &mut Site) -> Result<Vec<ValueId>> {
    let words = [("LEFT", Some(BinaryFn::ShiftLeft)), ("RIGHT", Some(BinaryFn::ShiftRight))];
    let f = site.attrs.keyword("direction", None, &words)?.ok_or_else(|| bad("direction", "it is missing"))?;
    let (x, y) = (site.x(0)?, site.x(1)?);
    Ok(vec![binary(site, f, x, y)?])
}

fn binary(site: &mut Site, f: BinaryFn, x: ValueId, y: ValueId) -> Result<ValueId> {
    site.op(Binary { f }, &[x, y])
}

/// Combines any number of operands from the left.
fn chain(site: &mut Site, f: BinaryFn) -> Result<ValueId> {
    let mut y = site.x(0)?;
    for i in 1..site.inputs.len() {
        let x = site.x(i)?;
        y = binary(site, f, y, x)?;
    }
    Ok(y)
}

fn sum(site: &mut Site) -> Result<Vec<ValueId>> {
    Ok(vec![chain(site, BinaryFn::Add)?])
}

fn min(site: &mut Site) -> Result<Vec<ValueId>> {
    Ok(vec![chain(site, BinaryFn::Min)?])
}

fn max(site: &mut Site) -> Result<Vec<ValueId>> {
    Ok(vec![chain(site, BinaryFn::Max)?])
}

fn mean(site: &mut Site) -> Result<Vec<ValueId>> {
    let sum = chain(site, BinaryFn::Add)?;
    let n = site.scalar(site.inputs.len() as f64, site.dtype(sum));
    Ok(vec![binary(site, BinaryFn::Div, sum, n)?])
}

fn where_(site: &mut Site) -> Result<Vec<ValueId>> {
    let operands = [site.x(0)?, site.x(1)?, site.x(2)?];
    Ok(vec![site.op(Where {}, &operands)?])
}

/// Bounds that are left out are the ends of f32, so that even infinities are clipped.
fn clip_by_attr(site: &mut Site) -> Result<Vec<ValueId>> {
    let (lo, hi) = (site.attrs.float("min", f32::MIN)?, site.attrs.float("max", f32::MAX)?);
    let x = site.x(0)?;
    let dtype = site.dtype(x);
    let operands = [x, site.scalar(lo as f64, dtype), site.scalar(hi as f64, dtype)];
    Ok(vec![site.op(Clip {}, &operands)?])
}

fn clip_by_operand(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let lo = bound(site, 1)?;
    let hi = bound(site, 2)?;
    Ok(vec![site.node(Clip {}, &[Some(x), lo, hi])?.out(0)])
}

/// A scalar operand; exporters write lists of one as well.
fn bound(site: &mut Site, i: usize) -> Result<Option<ValueId>> {
    match site.opt(i) {
        Some(v) if site.rank(v) > 0 => Ok(Some(site.op(Reshape { shape: vec![] }, &[v])?)),
        v => Ok(v),
    }
}

fn cast(site: &mut Site) -> Result<Vec<ValueId>> {
    let to = site.attrs.dtype("to")?.ok_or_else(|| bad("to", "it is missing"))?;
    convert(site, to)
}

fn cast_like(site: &mut Site) -> Result<Vec<ValueId>> {
    let to = site.dtype(site.x(1)?);
    convert(site, to)
}

/// `saturate` and `round_mode` concern 8-bit floats alone, which no operator takes yet.
fn convert(site: &mut Site, to: DType) -> Result<Vec<ValueId>> {
    if site.opset >= 19 {
        site.attrs.flag("saturate", true)?;
    }
    if site.opset >= 24 {
        site.attrs.opt_string("round_mode")?;
    }
    let x = site.x(0)?;
    Ok(vec![site.op(Cast { to }, &[x])?])
}

fn identity(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    Ok(vec![site.op(Identity {}, &[x])?])
}
