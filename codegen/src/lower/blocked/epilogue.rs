//! What follows an anchor, or an elementwise group, as a vector program of a leaf.
//!
//! Values from outside reach the program as operands: of the result's shape, one number per channel, or one number. Used
//! twice: while layouts are chosen, to see whether a group can be written so, and when it is lowered.
//!
//! Programs compute in f32. Every elementwise function of f32 has one, but for `mod` and `fmod` (a remainder takes a loop over
//! quotients) and `pow` with other exponents than the few constants of [`Translation::power`]. Truth values are 1 and 0 while they
//! are in a program: comparisons, `not`, `and`, `or`, `xor`, `is_nan`, `is_inf`, `where` and casts between them and f32 work on
//! those. They cannot come from outside or leave, and neither can integers or floats of other widths: plain loops have those.

use crate::x86::{Access, MAX_OPERANDS, Pred, VProg, Val};
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::{BinaryFn, UnaryFn};
use lehr_ir::{ConstValue, DType, Op};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A value from outside, by how it is spread over the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Of the result's shape.
    Same(ValueId),
    /// One number per channel; `per_image` if it also differs by the first axis.
    Channel { value: ValueId, per_image: bool },
    /// One number.
    Splat(ValueId),
    /// It broadcasts in another way, or in any where there are no channels.
    Spread(ValueId),
    /// One number per slot of the result's order: 1 where there is a channel, 0 where there is none.
    Occupied,
}

impl Operand {
    /// The value it is, unless it is made for the program.
    pub fn value(self) -> Option<ValueId> {
        match self {
            Operand::Same(v) | Operand::Splat(v) | Operand::Spread(v) | Operand::Channel { value: v, .. } => Some(v),
            Operand::Occupied => None,
        }
    }
}

pub struct Epilogue {
    pub program: VProg,
    /// In the program's order.
    pub operands: Vec<Operand>,
}

/// The group to translate.
pub struct Body<'g> {
    pub graph: &'g Graph,
    /// What the program gets as its input: the anchor's result, or an operand of an elementwise group.
    pub start: ValueId,
    /// What the input is divided by to give `start`.
    pub divisor: Option<f32>,
    pub result: ValueId,
    /// The axis of the result that channels, or the columns of a matrix, are on. Where there is none operands may broadcast in any
    /// way.
    pub channel_axis: Option<usize>,
    /// Whether there are lanes without a channel. They hold zeros in values from outside, and do so in the result: what reads them
    /// has zero weights for them, which make NaN of what is not finite.
    pub padded: bool,
    /// Whether a value comes from outside the group.
    pub outside: &'g dyn Fn(ValueId) -> bool,
    /// The constant behind a value from outside.
    pub constant: &'g dyn Fn(ValueId) -> Option<Arc<ConstValue>>,
}

/// Translates the group; `access` says how each operand lies. `None` if the group has something that leaves do not have.
pub fn translate(body: &Body, access: &mut dyn FnMut(Operand) -> Access) -> Option<Epilogue> {
    // Programs store f32.
    if body.graph.ty(body.result).dtype != DType::F32 {
        return None;
    }
    let mut operands = vec![];
    let mut failed = false;
    let program = VProg::build(|p, input| {
        let start = match body.divisor {
            Some(d) => {
                let d = p.constant(d);
                p.div(input, d)
            }
            None => input,
        };
        let memo = HashMap::from([(body.start, start)]);
        let zeros = HashSet::from_iter(lanes_stay_apart(body).then_some(body.start));
        let mut t = Translation { body, p, memo, zeros, operands: &mut operands, access };
        let Some(result) = t.value(body.result) else {
            failed = true;
            return input;
        };
        if !body.padded || t.zeros.contains(&body.result) { result } else { t.occupied(result) }
    });
    (!failed && operands.len() <= MAX_OPERANDS).then_some(Epilogue { program, operands })
}

/// Whether each lane of `start` is made of the same lane of its operand alone, so that zeros stay what they are. Otherwise a lane
/// without a channel is zero weights times numbers, which is NaN if one is infinite.
fn lanes_stay_apart(body: &Body) -> bool {
    if (body.outside)(body.start) {
        return true;
    }
    let node = body.graph.node(body.start.node);
    match &node.op {
        Op::MaxPool(_) | Op::AvgPool(_) | Op::Reduce(_) => true,
        Op::Conv(c) => {
            let channels = |v: Option<ValueId>| v.and_then(|v| body.graph.ty(v).const_shape()?.get(1).copied());
            channels(node.inputs[0]) == Some(c.groups) && channels(Some(body.start)) == Some(c.groups)
        }
        _ => false,
    }
}

struct Translation<'t, 'g> {
    body: &'t Body<'g>,
    p: &'t mut VProg,
    memo: HashMap<ValueId, Val>,
    /// Values that are known to be zero in lanes without a channel.
    zeros: HashSet<ValueId>,
    operands: &'t mut Vec<Operand>,
    access: &'t mut dyn FnMut(Operand) -> Access,
}

impl Translation<'_, '_> {
    fn value(&mut self, v: ValueId) -> Option<Val> {
        if let Some(&val) = self.memo.get(&v) {
            return Some(val);
        }
        let graph = self.body.graph;
        let dtype = graph.ty(v).dtype;
        if !matches!(dtype, DType::F32 | DType::Bool) {
            return None;
        }
        let val = if let Some(number) = number(self.body, v) {
            self.p.constant(number)
        } else if (self.body.outside)(v) {
            if dtype != DType::F32 {
                return None;
            }
            let operand = spread(self.body, v)?;
            let access = (self.access)(operand);
            self.operands.push(operand);
            self.p.operand(access)
        } else if graph.ty(v).shape == graph.ty(self.body.result).shape {
            self.computed(v)?
        } else {
            return None;
        };
        self.memo.insert(v, val);
        if self.is_zero(v) {
            self.zeros.insert(v);
        }
        Some(val)
    }

    /// The value where there is a channel, else zero.
    fn occupied(&mut self, val: Val) -> Val {
        let access = (self.access)(Operand::Occupied);
        self.operands.push(Operand::Occupied);
        let (occupied, zero) = (self.p.operand(access), self.p.constant(0.0));
        self.p.select(Pred::Gt, occupied, zero, val, zero)
    }

    /// Whether a value is surely zero in lanes without a channel, given that those it is computed from have been looked at.
    fn is_zero(&self, v: ValueId) -> bool {
        if let Some(number) = number(self.body, v) {
            return number == 0.0;
        }
        if (self.body.outside)(v) {
            return matches!(spread(self.body, v), Some(Operand::Same(_)));
        }
        let node = self.body.graph.node(v.node);
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        let zero = |i: usize| operand(i).is_some_and(|x| self.zeros.contains(&x));
        // A factor or divisor that is an ordinary number there: of channels' numbers it is one.
        let ordinary = |i: usize| {
            operand(i).is_some_and(|x| match number(self.body, x) {
                Some(number) => number.is_normal(),
                None => {
                    let constant = (self.body.constant)(x).is_some();
                    constant && matches!(spread(self.body, x), Some(Operand::Channel { .. }))
                }
            })
        };
        match &node.op {
            Op::Identity(_) | Op::Dropout(_) | Op::Cast(_) => zero(0),
            Op::Unary(u) => zero(0) && keeps_zero(u.f),
            Op::Binary(b) => match b.f {
                BinaryFn::Add | BinaryFn::Sub | BinaryFn::Min | BinaryFn::Max => zero(0) && zero(1),
                BinaryFn::Mul => (zero(0) && (zero(1) || ordinary(1))) || (ordinary(0) && zero(1)),
                BinaryFn::Div | BinaryFn::Prelu => zero(0) && ordinary(1),
                _ => false,
            },
            Op::Clip(_) => {
                // Without a bound there is none to exclude zero; other bounds than numbers are not translated.
                let bound =
                    |i: usize, ok: fn(f32) -> bool| operand(i).is_none_or(|b| number(self.body, b).is_some_and(ok));
                zero(0) && bound(1, |lo| lo <= 0.0) && bound(2, |hi| hi >= 0.0)
            }
            Op::Where(_) => zero(1) && zero(2),
            _ => false,
        }
    }

    fn computed(&mut self, v: ValueId) -> Option<Val> {
        let graph = self.body.graph;
        let node = graph.node(v.node);
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        match &node.op {
            Op::Identity(_) | Op::Dropout(_) if v.port == 0 => self.value(operand(0)?),
            Op::Unary(u) => {
                let x = self.value(operand(0)?)?;
                self.unary(u.f, x)
            }
            Op::Binary(b) => {
                let (x, y) = (operand(0)?, operand(1)?);
                if b.f == BinaryFn::Pow {
                    let (x, exponent) = (self.value(x)?, number(self.body, y)?);
                    return self.power(x, exponent);
                }
                let (x, y) = (self.value(x)?, self.value(y)?);
                self.binary(b.f, x, y)
            }
            Op::Clip(_) => self.clip(operand(0)?, operand(1), operand(2)),
            Op::Where(_) => {
                let condition = self.value(operand(0)?)?;
                let (yes, no) = (self.value(operand(1)?)?, self.value(operand(2)?)?);
                let zero = self.p.constant(0.0);
                Some(self.p.select(Pred::Gt, condition, zero, yes, no))
            }
            // From truth values to numbers nothing changes; other types do not get here.
            Op::Cast(_) if graph.ty(v).dtype == DType::F32 => self.value(operand(0)?),
            Op::Cast(_) => {
                let x = self.value(operand(0)?)?;
                let zero = self.p.constant(0.0);
                Some(self.p.truth(Pred::NotEq, x, zero))
            }
            _ => None,
        }
    }

    fn clip(&mut self, x: ValueId, lo: Option<ValueId>, hi: Option<ValueId>) -> Option<Val> {
        let bound = |v: Option<ValueId>, none: f32| match v {
            Some(v) => number(self.body, v),
            None => Some(none),
        };
        let (lo, hi) = (bound(lo, f32::NEG_INFINITY)?, bound(hi, f32::INFINITY)?);
        // The upper bound wins, as in the operator; NaN bounds have no meaning here.
        if lo.is_nan() || hi.is_nan() || lo > hi {
            return None;
        }
        let x = self.value(x)?;
        Some(self.p.clip(x, lo, hi))
    }

    fn unary(&mut self, f: UnaryFn, x: Val) -> Option<Val> {
        let p = &mut *self.p;
        Some(match f {
            UnaryFn::Neg => p.neg(x),
            UnaryFn::Abs => p.abs(x),
            UnaryFn::Floor => p.floor(x),
            UnaryFn::Ceil => p.ceil(x),
            UnaryFn::Round => p.round(x),
            UnaryFn::Sqrt => p.sqrt(x),
            UnaryFn::Reciprocal => {
                let one = p.constant(1.0);
                p.div(one, x)
            }
            UnaryFn::Exp => p.exp(x),
            UnaryFn::Log => p.log(x),
            UnaryFn::Log1p => p.log1p(x),
            UnaryFn::Sin => p.sin(x),
            UnaryFn::Cos => p.cos(x),
            UnaryFn::Tan => p.tan(x),
            UnaryFn::Asin => p.asin(x),
            UnaryFn::Acos => p.acos(x),
            UnaryFn::Atan => p.atan(x),
            UnaryFn::Sinh => p.sinh(x),
            UnaryFn::Cosh => p.cosh(x),
            UnaryFn::Asinh => p.asinh(x),
            UnaryFn::Acosh => p.acosh(x),
            UnaryFn::Atanh => p.atanh(x),
            UnaryFn::Sign => p.sign(x),
            UnaryFn::Tanh => p.tanh(x),
            UnaryFn::Erf => p.erf(x),
            UnaryFn::Relu => p.relu(x),
            UnaryFn::LeakyRelu { alpha } => p.leaky_relu(x, alpha),
            UnaryFn::ThresholdedRelu { alpha } => p.thresholded_relu(x, alpha),
            UnaryFn::Elu { alpha } => p.elu(x, alpha),
            UnaryFn::Celu { alpha } => p.celu(x, alpha),
            UnaryFn::Selu { alpha, gamma } => p.selu(x, alpha, gamma),
            UnaryFn::Sigmoid => p.sigmoid(x),
            UnaryFn::HardSigmoid { alpha, beta } => p.hard_sigmoid(x, alpha, beta),
            UnaryFn::HardSwish => p.hard_swish(x),
            UnaryFn::Swish { alpha } => p.swish(x, alpha),
            UnaryFn::Softplus => p.softplus(x),
            UnaryFn::Softsign => p.softsign(x),
            UnaryFn::Gelu => p.gelu(x),
            UnaryFn::GeluTanh => p.gelu_tanh(x),
            UnaryFn::Mish => p.mish(x),
            UnaryFn::Not => {
                let one = p.constant(1.0);
                p.sub(one, x)
            }
            UnaryFn::IsNan => p.truth(Pred::Unordered, x, x),
            UnaryFn::IsInf { negative, positive } => {
                let (least, most) = (p.constant(f32::NEG_INFINITY), p.constant(f32::INFINITY));
                let (below, above) = (p.truth(Pred::Eq, x, least), p.truth(Pred::Eq, x, most));
                match (negative != 0.0, positive != 0.0) {
                    (true, true) => p.max(below, above),
                    (true, false) => below,
                    (false, true) => above,
                    (false, false) => p.constant(0.0),
                }
            }
            UnaryFn::BitNot => return None,
        })
    }

    fn binary(&mut self, f: BinaryFn, x: Val, y: Val) -> Option<Val> {
        let p = &mut *self.p;
        Some(match f {
            BinaryFn::Add => p.add(x, y),
            BinaryFn::Sub => p.sub(x, y),
            BinaryFn::Mul => p.mul(x, y),
            BinaryFn::Div => p.div(x, y),
            BinaryFn::Min => p.min(x, y),
            BinaryFn::Max => p.max(x, y),
            BinaryFn::Prelu => p.prelu(x, y),
            BinaryFn::Equal => p.truth(Pred::Eq, x, y),
            BinaryFn::Less => p.truth(Pred::Lt, x, y),
            BinaryFn::LessEqual => p.truth(Pred::Le, x, y),
            BinaryFn::Greater => p.truth(Pred::Gt, x, y),
            BinaryFn::GreaterEqual => p.truth(Pred::Ge, x, y),
            BinaryFn::And => p.mul(x, y),
            BinaryFn::Or => p.max(x, y),
            BinaryFn::Xor => p.truth(Pred::NotEq, x, y),
            BinaryFn::Pow => unreachable!("the caller has looked at the exponent"),
            BinaryFn::Mod
            | BinaryFn::Fmod
            | BinaryFn::BitAnd
            | BinaryFn::BitOr
            | BinaryFn::BitXor
            | BinaryFn::ShiftLeft
            | BinaryFn::ShiftRight => return None,
        })
    }

    /// Powers by a constant that products, a root or a quotient give exactly as well as `pow` does.
    fn power(&mut self, x: Val, exponent: f32) -> Option<Val> {
        let p = &mut *self.p;
        if exponent == 1.0 {
            return Some(x);
        }
        if exponent == 2.0 {
            return Some(p.mul(x, x));
        }
        if exponent == 3.0 {
            let x2 = p.mul(x, x);
            return Some(p.mul(x2, x));
        }
        if exponent == 0.5 {
            // Of -inf the power is inf, and of -0 it is 0.
            let (zero, least, most) = (p.constant(0.0), p.constant(f32::NEG_INFINITY), p.constant(f32::INFINITY));
            let root = p.sqrt(x);
            let root = p.add(root, zero);
            return Some(p.select(Pred::Eq, x, least, most, root));
        }
        if exponent == -1.0 {
            let one = p.constant(1.0);
            return Some(p.div(one, x));
        }
        None
    }
}

/// Whether a function of zero is surely zero. One that is not listed costs an operand and a select, no more.
fn keeps_zero(f: UnaryFn) -> bool {
    match f {
        UnaryFn::LeakyRelu { alpha } | UnaryFn::Elu { alpha } | UnaryFn::Swish { alpha } => alpha.is_finite(),
        UnaryFn::Selu { alpha, gamma } => alpha.is_finite() && gamma.is_finite(),
        _ => matches!(
            f,
            UnaryFn::Neg
                | UnaryFn::Abs
                | UnaryFn::Floor
                | UnaryFn::Ceil
                | UnaryFn::Round
                | UnaryFn::Sqrt
                | UnaryFn::Sign
                | UnaryFn::Sin
                | UnaryFn::Tanh
                | UnaryFn::Erf
                | UnaryFn::Relu
                | UnaryFn::HardSwish
                | UnaryFn::Softsign
                | UnaryFn::Gelu
                | UnaryFn::GeluTanh
                | UnaryFn::Mish
        ),
    }
}

/// The one number that a constant holds.
fn number(body: &Body, v: ValueId) -> Option<f32> {
    let c = (body.constant)(v)?;
    let ty = c.ty();
    (ty.dtype == DType::F32 && ty.elements().is(1)).then(|| c.tensor().to_f32()[0])
}

/// How a value broadcasts to the result.
fn spread(body: &Body, v: ValueId) -> Option<Operand> {
    let own = body.graph.ty(v).const_shape()?;
    let shape = body.graph.ty(body.result).const_shape()?;
    if own.len() > shape.len() {
        return None;
    }
    let skip = shape.len() - own.len();
    let aligned: Vec<usize> = std::iter::repeat_n(1, skip).chain(own.iter().copied()).collect();
    if aligned.iter().all(|&n| n == 1) {
        return Some(Operand::Splat(v));
    }
    let Some(channel_axis) = body.channel_axis else {
        return Some(if own == shape { Operand::Same(v) } else { Operand::Spread(v) });
    };
    let only_channels = |from: usize| (from..shape.len()).all(|d| d == channel_axis || aligned[d] == 1);
    let per_channel = aligned[channel_axis] == shape[channel_axis];
    // Constants are packed per channel; a value of the result's own shape lies as the result does.
    if only_channels(0) && per_channel && ((body.constant)(v).is_some() || aligned != shape) {
        return Some(Operand::Channel { value: v, per_image: false });
    }
    if aligned == shape {
        return (skip == 0).then_some(Operand::Same(v));
    }
    let per_image = channel_axis == 1 && per_channel && aligned[0] == shape[0] && only_channels(1);
    (per_image && (body.constant)(v).is_none()).then_some(Operand::Channel { value: v, per_image: true })
}
