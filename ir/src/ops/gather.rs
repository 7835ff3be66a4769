//! Indexed reads and writes. An index may be negative (counted from the end); out of range is a fault of the data.

use super::window::differ;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, keyword, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::{flat, for_each_index, pick, strides};

op! {
    /// Slices of x along `axis` chosen by i (i32 or i64, any rank). Source: ONNX Gather.
    pub struct Gather = "gather" (x: One, i: One) -> (y) { axis: usize }
}

op! {
    /// `y[p] = x[p with p[axis] = i[p]]`. Source: ONNX GatherElements.
    pub struct GatherElements = "gather_elements" (x: One, i: One) -> (y) { axis: usize }
}

op! {
    /// The last axis of i holds index tuples into x after `batch_dims`. Source: ONNX GatherND.
    pub struct GatherNd = "gather_nd" (x: One, i: One) -> (y) { batch_dims: usize = 0 }
}

keyword! {
    /// How an update meets the element that is there.
    pub enum ScatterReduction { None = "none", Add = "add", Mul = "mul", Max = "max", Min = "min" }
}

op! {
    /// x with `y[p with p[axis] = i[p]]` replaced by (or combined with) `u[p]`, in row-major order of p. Source: ONNX ScatterElements, Scatter.
    pub struct ScatterElements = "scatter_elements" (x: One, i: One, u: One) -> (y) {
        axis: usize,
        reduction: ScatterReduction = ScatterReduction::None,
    }
}

op! {
    /// x with the slices at the index tuples in i replaced by (or combined with) those of u. Source: ONNX ScatterND.
    pub struct ScatterNd = "scatter_nd" (x: One, i: One, u: One) -> (y) {
        reduction: ScatterReduction = ScatterReduction::None,
    }
}

op! {
    /// `values[1]` at the index along a new axis, `values[0]` elsewhere; an index outside [-depth, depth) gives none. Indices may
    /// be floats (truncated). Source: ONNX OneHot.
    pub struct OneHot = "one_hot" (i: One, values: One) -> (y) {
        depth: Dim,
        /// Resolved against the rank of the result.
        axis: usize,
    }
}

fn shape_of(out: &[TensorType]) -> Result<Vec<usize>, String> {
    out[0].const_shape().ok_or_else(|| "the output's shape is not known".to_string())
}

fn check_index_type(code: &'static str, i: &TensorType) -> Result<(), Diag> {
    if matches!(i.dtype, DType::I32 | DType::I64) {
        return Ok(());
    }
    Err(Diag::new(code, format!("indices must be i32 or i64, they are {i}")))
}

/// The place that index `i` means in an axis of `len` elements.
fn resolve(i: i64, len: usize) -> Result<usize, String> {
    let place = if i < 0 { i.checked_add(len as i64).unwrap_or(-1) } else { i };
    usize::try_from(place)
        .ok()
        .filter(|&p| p < len)
        .ok_or_else(|| format!("index {i} is outside an axis of {len} elements"))
}

impl OpDef for Gather {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, i) = (t.get(0), t.get(1));
        // gather.c1: indices are i32 or i64
        check_index_type("gather.c1", i)?;
        // gather.c2: axis is an axis of x
        if self.axis >= x.rank() {
            return Err(Diag::new("gather.c2", format!("{x} has no axis {}", self.axis)));
        }
        let shape = [&x.shape[..self.axis], &i.shape[..], &x.shape[self.axis + 1..]].concat();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, i) = (v.get(0), v.get(1));
        let len = x.shape()[self.axis];
        let places: Vec<usize> = i.to_i64().into_iter().map(|i| resolve(i, len)).collect::<Result<_, _>>()?;
        let outer: usize = x.shape()[..self.axis].iter().product();
        let row = x.shape()[self.axis + 1..].iter().product::<usize>() * x.dtype().size();
        let mut data = Vec::with_capacity(outer * places.len() * row);
        for o in 0..outer {
            for p in &places {
                data.extend_from_slice(&x.bytes()[(o * len + p) * row..][..row]);
            }
        }
        Ok(vec![Tensor::new(x.dtype(), shape_of(out)?, data.into())?])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

/// gather_elements.c2, .c3 and their like of scatter: i has x's rank, and no axis but `axis` is longer than x's.
fn check_elements(code: [&'static str; 2], x: &TensorType, i: &TensorType, axis: usize) -> Result<(), Diag> {
    if i.rank() != x.rank() || axis >= x.rank() {
        return Err(Diag::new(code[0], format!("x and the indices need one rank with an axis {axis}: {x}, {i}")));
    }
    let longer = |(a, (d, e)): (usize, (&Dim, &Dim))| a != axis && (e - d).as_const().is_some_and(|n| n > 0);
    if x.shape.iter().zip(&i.shape).enumerate().any(longer) {
        return Err(Diag::new(code[1], format!("the indices {i} reach past x, {x}, on an axis other than {axis}")));
    }
    Ok(())
}

/// Flat positions in x that the elements of `i` name, in order.
fn element_places(x: &Tensor, i: &Tensor, axis: usize) -> Result<Vec<usize>, String> {
    let steps = strides(x.shape());
    let values = i.to_i64();
    let (mut at, mut places) = (0, Vec::with_capacity(values.len()));
    for_each_index(i.shape(), |index| {
        let place = resolve(values[at], x.shape()[axis]);
        places.push(place.map(|p| flat(index, &steps) - index[axis] * steps[axis] + p * steps[axis]));
        at += 1;
    });
    places.into_iter().collect()
}

impl OpDef for GatherElements {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, i) = (t.get(0), t.get(1));
        // gather_elements.c1: indices are i32 or i64
        check_index_type("gather_elements.c1", i)?;
        // gather_elements.c2: x and i have one rank, and the axis; gather_elements.c3: i is no longer than x on other axes
        check_elements(["gather_elements.c2", "gather_elements.c3"], x, i, self.axis)?;
        Ok(vec![TensorType { dtype: x.dtype, shape: i.shape.clone() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, i) = (v.get(0), v.get(1));
        let mut places = element_places(x, i, self.axis)?.into_iter();
        Ok(vec![pick(x, &shape_of(out)?, &[], |_| places.next())])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

/// The length of the index tuples in `i`, which take the axes of x from `batch` on.
fn tuple_len(code: &'static str, x: &TensorType, i: &TensorType, batch: usize) -> Result<usize, Diag> {
    let len = i.shape.last().and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok());
    match len.filter(|&n| n >= 1 && n <= x.rank().saturating_sub(batch)) {
        Some(n) => Ok(n),
        None => Err(Diag::new(
            code,
            format!(
                "the last dimension of the indices {i} must be known, and between 1 and the rank of {x} less {batch}"
            ),
        )),
    }
}

/// For each index tuple, the flat position of its slice of x.
fn tuple_places(x: &Tensor, i: &Tensor, batch: usize) -> Result<Vec<usize>, String> {
    let (&n, outer) = i.shape().split_last().ok_or("indices have an axis")?;
    let steps = strides(x.shape());
    let values = i.to_i64();
    let (mut at, mut places) = (0, vec![]);
    for_each_index(outer, |index| {
        let mut place = Ok(flat(&index[..batch], &steps));
        for (k, &value) in values[at..at + n].iter().enumerate() {
            let axis = batch + k;
            place = place.and_then(|p| Ok(p + resolve(value, x.shape()[axis])? * steps[axis]));
        }
        places.push(place);
        at += n;
    });
    places.into_iter().collect()
}

impl OpDef for GatherNd {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, i) = (t.get(0), t.get(1));
        let b = self.batch_dims;
        // gather_nd.c1: indices are i32 or i64
        check_index_type("gather_nd.c1", i)?;
        // gather_nd.c2: x and i have more than batch_dims axes, of which the first batch_dims agree
        let agree = b < x.rank() && b < i.rank() && !x.shape[..b].iter().zip(&i.shape).any(|(d, e)| differ(d, e));
        if !agree {
            return Err(Diag::new("gather_nd.c2", format!("{x} and {i} do not share {b} batch axes")));
        }
        // gather_nd.c3: the tuples' length is known, and fits x
        let n = tuple_len("gather_nd.c3", x, i, b)?;
        let shape = [&i.shape[..i.rank() - 1], &x.shape[b + n..]].concat();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, i) = (v.get(0), v.get(1));
        let n = i.shape()[i.rank() - 1];
        let size = x.dtype().size();
        let row = x.shape()[self.batch_dims + n..].iter().product::<usize>() * size;
        let mut data = vec![];
        for p in tuple_places(x, i, self.batch_dims)? {
            data.extend_from_slice(&x.bytes()[p * size..][..row]);
        }
        Ok(vec![Tensor::new(x.dtype(), shape_of(out)?, data.into())?])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

impl ScatterReduction {
    /// Combines runs of `row` elements of u, in order, into x at the given flat positions.
    fn scatter(self, x: &Tensor, u: &Tensor, places: &[usize], row: usize) -> Result<Tensor, String> {
        let shape = x.shape().to_vec();
        if self == ScatterReduction::None {
            let size = x.dtype().size();
            let mut data = x.bytes().to_vec();
            for (&p, from) in places.iter().zip(u.bytes().chunks_exact((row * size).max(1))) {
                data[p * size..(p + row) * size].copy_from_slice(from);
            }
            return Tensor::new(x.dtype(), shape, data.into());
        }
        if x.dtype().is_float() {
            let combine: fn(f64, f64) -> f64 = match self {
                ScatterReduction::None => |_, u| u,
                ScatterReduction::Add => |x, u| x + u,
                ScatterReduction::Mul => |x, u| x * u,
                // NaN wins, as in numpy.
                ScatterReduction::Max => |x, u| if x.is_nan() || x > u { x } else { u },
                ScatterReduction::Min => |x, u| if x.is_nan() || x < u { x } else { u },
            };
            let y = combined(x.to_f64(), &u.to_f64(), places, row, combine);
            return Ok(Tensor::from_f64(x.dtype(), shape, y));
        }
        let combine: fn(i128, i128) -> i128 = match self {
            ScatterReduction::None => |_, u| u,
            ScatterReduction::Add => i128::wrapping_add,
            ScatterReduction::Mul => i128::wrapping_mul,
            ScatterReduction::Max => i128::max,
            ScatterReduction::Min => i128::min,
        };
        let y = combined(x.to_i128(), &u.to_i128(), places, row, combine);
        Ok(Tensor::from_i128(x.dtype(), shape, y))
    }
}

fn combined<T: Copy>(mut y: Vec<T>, u: &[T], places: &[usize], row: usize, f: fn(T, T) -> T) -> Vec<T> {
    for (&p, from) in places.iter().zip(u.chunks_exact(row.max(1))) {
        for (y, &u) in y[p..].iter_mut().zip(from) {
            *y = f(*y, u);
        }
    }
    y
}

impl OpDef for ScatterElements {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, i, u) = (t.get(0), t.get(1), t.get(2));
        // scatter_elements.c1: indices are i32 or i64
        check_index_type("scatter_elements.c1", i)?;
        // scatter_elements.c2: x and i have one rank, and the axis; scatter_elements.c3: i is no longer than x on other axes
        check_elements(["scatter_elements.c2", "scatter_elements.c3"], x, i, self.axis)?;
        // scatter_elements.c4: u has x's type and i's shape
        check_updates("scatter_elements.c4", x, u, &i.shape)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, i, u) = (v.get(0), v.get(1), v.get(2));
        let places = element_places(x, i, self.axis)?;
        Ok(vec![self.reduction.scatter(x, u, &places, 1)?])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        t.get(2).elements()
    }
}

fn check_updates(code: &'static str, x: &TensorType, u: &TensorType, shape: &[Dim]) -> Result<(), Diag> {
    let fits = u.rank() == shape.len() && !u.shape.iter().zip(shape).any(|(d, e)| differ(d, e));
    if fits && u.dtype == x.dtype {
        return Ok(());
    }
    let expected = TensorType { dtype: x.dtype, shape: shape.to_vec() };
    Err(Diag::new(code, format!("the updates must be {expected}, they are {u}")))
}

impl OpDef for ScatterNd {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, i, u) = (t.get(0), t.get(1), t.get(2));
        // scatter_nd.c1: indices are i32 or i64
        check_index_type("scatter_nd.c1", i)?;
        // scatter_nd.c2: the tuples' length is known, and fits x
        let n = tuple_len("scatter_nd.c2", x, i, 0)?;
        // scatter_nd.c3: u has x's type, and a slice of x for every tuple
        check_updates("scatter_nd.c3", x, u, &[&i.shape[..i.rank() - 1], &x.shape[n..]].concat())?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, i, u) = (v.get(0), v.get(1), v.get(2));
        let n = i.shape()[i.rank() - 1];
        let row: usize = x.shape()[n..].iter().product();
        let places = tuple_places(x, i, 0)?;
        Ok(vec![self.reduction.scatter(x, u, &places, row)?])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        t.get(2).elements()
    }
}

impl OpDef for OneHot {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (i, values) = (t.get(0), t.get(1));
        // one_hot.c1: indices are numbers
        if !i.dtype.is_computable() || i.dtype == DType::Bool {
            return Err(Diag::new("one_hot.c1", format!("indices must be numbers, they are {i}")));
        }
        // one_hot.c2: values are two
        if values.rank() != 1 || differ(&values.shape[0], &Dim::Const(2)) {
            return Err(Diag::new("one_hot.c2", format!("values must be [off, on], they are {values}")));
        }
        // one_hot.c3: axis is an axis of the result, and depth is not negative
        if self.axis > i.rank() || self.depth.as_const().is_some_and(|n| n < 0) {
            return Err(Diag::new(
                "one_hot.c3",
                format!("axis {} of depth {} in the result for {i}", self.axis, self.depth),
            ));
        }
        let mut shape = i.shape.clone();
        shape.insert(self.axis, self.depth.clone());
        Ok(vec![TensorType { dtype: values.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (i, values) = (v.get(0), v.get(1));
        let shape = shape_of(out)?;
        let depth = shape[self.axis] as i128;
        // NaN is no index.
        let truncated = |v: f64| if v.is_nan() { i128::MAX } else { v as i128 };
        let wanted: Vec<i128> =
            if i.dtype().is_float() { i.to_f64().into_iter().map(truncated).collect() } else { i.to_i128() };
        let mut steps = strides(i.shape());
        steps.insert(self.axis, 0);
        let y = pick(values, &shape, &[], |index| {
            let w = wanted[flat(index, &steps)];
            let place = if w < 0 { w + depth } else { w };
            Some((place == index[self.axis] as i128) as usize)
        });
        Ok(vec![y])
    }

    fn flops(&self, _: In<TensorType>, _: &[TensorType]) -> Dim {
        Dim::ZERO
    }
}

#[cfg(test)]
mod tests;
