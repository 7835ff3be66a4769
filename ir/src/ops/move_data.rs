//! Operators that move elements without changing them.

use super::window::{differ, dim};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, keyword, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::{flat, pick, strides};

#[cfg(test)]
mod tests;

op! {
    /// Joins along an axis. Source: ONNX Concat.
    pub struct Concat = "concat" (xs: Many) -> (y) { axis: usize }
}

op! {
    /// `y[i..] = x[starts + i*steps]` on every axis; full rank, resolved and clamped. Source: ONNX Slice and Split (one slice per part).
    pub struct Slice = "slice" (x: One) -> (y) {
        starts: Vec<Dim>,
        /// Output sizes.
        lens: Vec<Dim>,
        /// Not zero; negative steps run backwards from `starts`.
        steps: Vec<i64>,
    }
}

keyword! {
    pub enum PadMode { Constant = "constant", Reflect = "reflect", Edge = "edge", Wrap = "wrap" }
}

op! {
    /// Adds (or, negative, removes) elements at both ends of every axis; `value` is a scalar of x's type, 0 if absent.
    /// Source: ONNX Pad, opsets 2+.
    pub struct Pad = "pad" (x: One, value: Opt) -> (y) {
        before: Vec<i64>,
        after: Vec<i64>,
        mode: PadMode = PadMode::Constant,
    }
}

op! {
    /// The same elements in row-major order under another shape. Source: ONNX Reshape, Flatten, Squeeze, Unsqueeze.
    pub struct Reshape = "reshape" (x: One) -> (y) { shape: Vec<Dim> }
}

op! {
    /// `y.dim(i) = x.dim(perm[i])`. Source: ONNX Transpose.
    pub struct Transpose = "transpose" (x: One) -> (y) { perm: Vec<usize> }
}

op! {
    /// Broadcasts x to `shape` (the final shape: x's dims are 1 or equal). Source: ONNX Expand, ConstantOfShape.
    pub struct Expand = "expand" (x: One) -> (y) { shape: Vec<Dim> }
}

op! {
    /// Repeats x along every axis. Source: ONNX Tile.
    pub struct Tile = "tile" (x: One) -> (y) { repeats: Vec<Dim> }
}

op! {
    /// The upper (or lower) triangle of the last two axes, zeros elsewhere; `k` shifts the diagonal. Source: ONNX Trilu.
    pub struct Trilu = "trilu" (x: One) -> (y) { upper: bool = true, k: i64 = 0 }
}

keyword! {
    /// Whether the block's coordinates are the outer or the inner part of the depth index.
    pub enum DepthOrder { Dcr = "dcr", Crd = "crd" }
}

op! {
    /// [N, C*b*b, H, W] -> [N, C, H*b, W*b]. Source: ONNX DepthToSpace.
    pub struct DepthToSpace = "depth_to_space" (x: One) -> (y) { block: usize, order: DepthOrder = DepthOrder::Dcr }
}

op! {
    /// [N, C, H*b, W*b] -> [N, b*b*C, H, W]. Source: ONNX SpaceToDepth.
    pub struct SpaceToDepth = "space_to_depth" (x: One) -> (y) { block: usize }
}

op! {
    /// x. Source: ONNX Identity.
    pub struct Identity = "identity" (x: One) -> (y) {}
}

op! {
    /// Dropout in inference: y is x, mask is all true. Source: ONNX Dropout.
    pub struct Dropout = "dropout" (x: One) -> (y, mask) {}
}

fn shape_of(out: &[TensorType]) -> Result<Vec<usize>, String> {
    out[0].const_shape().ok_or_else(|| "the output's shape is not known".to_string())
}

/// The element that fills gaps when none is given.
fn zero(x: &Tensor) -> Vec<u8> {
    vec![0; x.dtype().size()]
}

impl OpDef for Concat {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let first = t.get(0);
        // concat.c1: all operands are of one type
        if let Some(x) = t.all().find(|x| x.dtype != first.dtype) {
            return Err(Diag::new("concat.c1", format!("the element types of {first} and {x} differ")));
        }
        // concat.c2: axis is an axis of all operands, which have one rank
        if let Some(x) = t.all().find(|x| x.rank() != first.rank() || self.axis >= x.rank()) {
            return Err(Diag::new("concat.c2", format!("{first} and {x} cannot be joined along axis {}", self.axis)));
        }
        let mut shape = first.shape.clone();
        for x in t.all().skip(1) {
            for (a, (d, e)) in shape.iter_mut().zip(&x.shape).enumerate() {
                if a == self.axis {
                    *d = &*d + e;
                } else if differ(d, e) {
                    // concat.c3: the other dimensions agree
                    return Err(Diag::new(
                        "concat.c3",
                        format!("{first} and {x} differ on axis {a}, which is not joined"),
                    ));
                } else if d.as_const().is_none() {
                    *d = e.clone();
                }
            }
        }
        Ok(vec![TensorType { dtype: first.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let shape = shape_of(out)?;
        let outer: usize = shape[..self.axis].iter().product();
        let size = v.get(0).dtype().size();
        let mut data = Vec::with_capacity(shape.iter().product::<usize>() * size);
        for row in 0..outer {
            for x in v.all() {
                let len = x.shape()[self.axis..].iter().product::<usize>() * size;
                data.extend_from_slice(&x.bytes()[row * len..(row + 1) * len]);
            }
        }
        Ok(vec![Tensor::new(v.get(0).dtype(), shape, data.into())?])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Slice {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // slice.c1: starts, lens and steps have one entry per axis
        let rank = x.rank();
        if [self.starts.len(), self.lens.len(), self.steps.len()] != [rank; 3] {
            return Err(Diag::new("slice.c1", format!("a slice of {x} takes {rank} starts, lens and steps")));
        }
        for (a, ((d, &step), (start, len))) in
            x.shape.iter().zip(&self.steps).zip(self.starts.iter().zip(&self.lens)).enumerate()
        {
            // slice.c2: no step is zero
            if step == 0 {
                return Err(Diag::new("slice.c2", format!("the step along axis {a} is zero")));
            }
            // slice.c3: every element taken lies in x
            let (Some(start), Some(len)) = (start.as_const(), len.as_const()) else { continue };
            let last = start as i128 + (len as i128 - 1) * step as i128;
            let lowest = (start as i128).min(last);
            let highest = (start as i128).max(last);
            let beyond = d.as_const().is_some_and(|d| highest >= d as i128);
            if len < 0 || (len > 0 && (lowest < 0 || beyond)) {
                return Err(Diag::new(
                    "slice.c3",
                    format!("{len} elements from {start} in steps of {step} along axis {a} leave {x}"),
                ));
            }
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.lens.clone() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let starts: Option<Vec<i64>> = self.starts.iter().map(Dim::as_const).collect();
        let starts = starts.ok_or("the starts are not known")?;
        let steps = strides(x.shape());
        let y = pick(x, &shape_of(out)?, &zero(x), |i| {
            let place = |a: usize| (starts[a] + i[a] as i64 * self.steps[a]) as usize;
            Some((0..i.len()).map(|a| place(a) * steps[a]).sum())
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Pad {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // pad.c1: two pads per axis
        if self.before.len() != x.rank() || self.after.len() != x.rank() {
            return Err(Diag::new(
                "pad.c1",
                format!(
                    "{x} takes {} pads before and after, {} and {} are given",
                    x.rank(),
                    self.before.len(),
                    self.after.len()
                ),
            ));
        }
        // pad.c2: value is a scalar of x's type
        if let Some(value) = t.opt(1).filter(|v| v.rank() != 0 || v.dtype != x.dtype) {
            return Err(Diag::new("pad.c2", format!("the value must be a scalar of {}, it is {value}", x.dtype)));
        }
        let mut shape = vec![];
        for (a, (d, (&before, &after))) in x.shape.iter().zip(self.before.iter().zip(&self.after)).enumerate() {
            // pad.c3: negative pads remove at most what there is
            let left = &(d + before.min(0)) + after.min(0);
            if left.as_const().is_some_and(|n| n < 0) {
                return Err(Diag::new(
                    "pad.c3",
                    format!("pads of {before} and {after} remove more than axis {a} of {x} has"),
                ));
            }
            // pad.c4: only a constant can fill an axis that has no elements
            if self.mode != PadMode::Constant && left.is(0) && before.max(after) > 0 {
                return Err(Diag::new(
                    "pad.c4",
                    format!("axis {a} of {x} has no elements to repeat; pad it with a constant"),
                ));
            }
            shape.push(&(&left + before.max(0)) + after.max(0));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    /// Negative pads crop first; what remains is then padded.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let filler = v.opt(1).map_or_else(|| zero(x), |value| value.bytes().to_vec());
        let steps = strides(x.shape());
        let crop = |a: usize| {
            let (front, back) = (self.before[a].min(0), self.after[a].min(0));
            (-front, x.shape()[a] as i64 + front + back)
        };
        let crops: Vec<(i64, i64)> = (0..x.rank()).map(crop).collect();
        let y = pick(x, &shape_of(out)?, &filler, |i| {
            let mut at = 0;
            for (a, &(front, len)) in crops.iter().enumerate() {
                let place = self.mode.source(i[a] as i64 - self.before[a].max(0), len)?;
                at += (front + place) as usize * steps[a];
            }
            Some(at)
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl PadMode {
    /// Where position `i`, of any sign, of an axis of `len` elements takes its element from.
    fn source(self, i: i64, len: i64) -> Option<i64> {
        match self {
            PadMode::Constant => (0..len).contains(&i).then_some(i),
            PadMode::Edge => Some(i.clamp(0, len - 1)),
            PadMode::Wrap => Some(i.rem_euclid(len)),
            // There and back again without repeating the ends: a period of 2*(len - 1).
            PadMode::Reflect if len == 1 => Some(0),
            PadMode::Reflect => {
                let i = i.rem_euclid(2 * (len - 1));
                Some(i.min(2 * (len - 1) - i))
            }
        }
    }
}

impl OpDef for Reshape {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        let y = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        // reshape.c1: as many elements as before
        if differ(&x.elements(), &y.elements()) {
            let (n, m) = (x.elements(), y.elements());
            return Err(Diag::new("reshape.c1", format!("{x} has {n} elements, the new shape {y} has {m}")));
        }
        Ok(vec![y])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![v.get(0).reshaped(shape_of(out)?)?])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Transpose {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // transpose.c1: perm names every axis once
        let mut seen = self.perm.clone();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..x.rank()) {
            return Err(Diag::new("transpose.c1", format!("{:?} is no permutation of the axes of {x}", self.perm)));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.perm.iter().map(|&a| x.shape[a].clone()).collect() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let steps = strides(x.shape());
        let steps: Vec<usize> = self.perm.iter().map(|&a| steps[a]).collect();
        Ok(vec![pick(x, &shape_of(out)?, &zero(x), |i| Some(flat(i, &steps)))])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Expand {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // expand.c1: aligned at the right, each dimension of x is 1 or that of the shape
        let fits = self
            .shape
            .len()
            .checked_sub(x.rank())
            .is_some_and(|skip| x.shape.iter().zip(&self.shape[skip..]).all(|(d, e)| d.is(1) || !differ(d, e)));
        let y = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        if !fits {
            return Err(Diag::new("expand.c1", format!("{x} does not broadcast to {y}")));
        }
        Ok(vec![y])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = shape_of(out)?;
        let mut steps = vec![0; shape.len() - x.rank()];
        steps.extend(x.shape().iter().zip(strides(x.shape())).map(|(&d, s)| if d == 1 { 0 } else { s }));
        Ok(vec![pick(x, &shape, &zero(x), |i| Some(flat(i, &steps)))])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Tile {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // tile.c1: one repeat per axis, none negative
        if self.repeats.len() != x.rank() || self.repeats.iter().any(|r| r.as_const().is_some_and(|r| r < 0)) {
            return Err(Diag::new("tile.c1", format!("{x} takes {} repeats, none negative", x.rank())));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: x.shape.iter().zip(&self.repeats).map(|(d, r)| d * r).collect() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let steps = strides(x.shape());
        let y = pick(x, &shape_of(out)?, &zero(x), |i| {
            Some(i.iter().zip(x.shape()).zip(&steps).map(|((i, d), s)| i % d * s).sum())
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Trilu {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // trilu.c1: x has at least two axes
        if x.rank() < 2 {
            return Err(Diag::new("trilu.c1", format!("a triangle needs two axes, x is {x}")));
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let steps = strides(x.shape());
        let y = pick(x, x.shape(), &zero(x), |i| {
            let diagonal = i[i.len() - 1] as i64 - i[i.len() - 2] as i64;
            let kept = if self.upper { diagonal >= self.k } else { diagonal <= self.k };
            kept.then(|| flat(i, &steps))
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

/// The block as a dimension, and squared; an error in words if it is zero.
fn block_dims(block: usize) -> Result<(Dim, Dim), String> {
    if block == 0 {
        return Err("the block size is zero".into());
    }
    Ok((dim(block), &dim(block) * &dim(block)))
}

/// True unless `by` surely does not divide `d`.
fn divisible(d: &Dim, by: &Dim) -> bool {
    match (d.as_const(), by.as_const()) {
        (Some(d), Some(by)) => d % by == 0,
        _ => true,
    }
}

impl OpDef for DepthToSpace {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // depth_to_space.c1: the block size is positive
        let (block, area) = block_dims(self.block).map_err(|why| Diag::new("depth_to_space.c1", why))?;
        // depth_to_space.c2: x has four axes, and block*block divides its channels
        let [n, c, h, w] = &x.shape[..] else {
            return Err(Diag::new("depth_to_space.c2", format!("x must have four axes, it is {x}")));
        };
        if !divisible(c, &area) {
            return Err(Diag::new("depth_to_space.c2", format!("{c} channels are not divisible by {area}")));
        }
        let shape = vec![n.clone(), c.floor_div(&area), h * &block, w * &block];
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, b) = (v.get(0), self.block);
        let shape = shape_of(out)?;
        let (channels, steps) = (shape[1], strides(x.shape()));
        let y = pick(x, &shape, &zero(x), |i| {
            let within = i[2] % b * b + i[3] % b;
            let channel = match self.order {
                DepthOrder::Dcr => within * channels + i[1],
                DepthOrder::Crd => i[1] * b * b + within,
            };
            Some(flat(&[i[0], channel, i[2] / b, i[3] / b], &steps))
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for SpaceToDepth {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // space_to_depth.c1: the block size is positive
        let (block, area) = block_dims(self.block).map_err(|why| Diag::new("space_to_depth.c1", why))?;
        // space_to_depth.c2: x has four axes, and block divides the last two
        let [n, c, h, w] = &x.shape[..] else {
            return Err(Diag::new("space_to_depth.c2", format!("x must have four axes, it is {x}")));
        };
        if !divisible(h, &block) || !divisible(w, &block) {
            return Err(Diag::new(
                "space_to_depth.c2",
                format!("height and width of {x} are not divisible by {block}"),
            ));
        }
        let shape = vec![n.clone(), c * &area, h.floor_div(&block), w.floor_div(&block)];
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, b) = (v.get(0), self.block);
        let (channels, steps) = (x.shape()[1], strides(x.shape()));
        let y = pick(x, &shape_of(out)?, &zero(x), |i| {
            let within = i[1] / channels;
            Some(flat(&[i[0], i[1] % channels, i[2] * b + within / b, i[3] * b + within % b], &steps))
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Identity {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![t.get(0).clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![v.get(0).clone()])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl OpDef for Dropout {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // dropout.c1: x is a float
        if !x.dtype.is_float() {
            return Err(Diag::new("dropout.c1", format!("dropout takes floats, x is {x}")));
        }
        Ok(vec![x.clone(), TensorType { dtype: DType::Bool, shape: x.shape.clone() }])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let mask = Tensor::new(DType::Bool, x.shape().to_vec(), vec![1u8; x.len()].into())?;
        Ok(vec![x.clone(), mask])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}
