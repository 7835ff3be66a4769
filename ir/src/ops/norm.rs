//! Normalisations over channels or axes. Statistics are population statistics, computed in f64 in two passes.
//! An empty set has the mean NaN.

use super::Domain;
use super::reduce::Cells;
use super::window::{differ, dim};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::infer::{require_axis, require_dtype, require_rank, same_dtype};
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::{Shape, TensorType};
use crate::walk::spread;

op! {
    /// `(x - mean)/sqrt(var + eps)*scale + bias` per channel (axis 1; a 1-D x is one channel), statistics given. scale and bias may
    /// be of another float type than x, mean and var of a third. Source: ONNX BatchNormalization, inference form.
    pub struct BatchNorm = "batch_norm" (x: One, scale: One, bias: One, mean: One, var: One) -> (y) { eps: f32 = 1e-5 }
}

op! {
    /// Normalises by the batch's own mean and population variance over all axes but 1, and gives the running statistics
    /// `momentum*old + (1 - momentum)*batch`. Source: ONNX BatchNormalization with training_mode=1, opset 14+.
    pub struct BatchNormTrain = "batch_norm_train" (x: One, scale: One, bias: One, mean: One, var: One) -> (y, running_mean, running_var) {
        eps: f32 = 1e-5,
        momentum: f32 = 0.9,
    }
}

op! {
    /// Normalises each (n, c) over its spatial axes, then scale and bias per channel. Source: ONNX InstanceNormalization.
    pub struct InstanceNorm = "instance_norm" (x: One, scale: One, bias: One) -> (y) { eps: f32 = 1e-5 }
}

op! {
    /// Normalises over axes `axis..rank`; scale and bias broadcast to x. Also gives the mean and 1/sqrt(var + eps), with the
    /// normalised axes kept as 1, in f32 (f64 for f64). Source: ONNX LayerNormalization, opset 17+.
    pub struct LayerNorm = "layer_norm" (x: One, scale: One, bias: Opt) -> (y, mean, inv_std_dev) {
        /// Resolved: not negative.
        axis: usize,
        eps: f32 = 1e-5,
    }
}

op! {
    /// Normalises groups of channels over (channels of the group, spatial); scale and bias per channel. Source: ONNX
    /// GroupNormalization, opset 21+ (opset 18's per-group scale is expanded at import).
    pub struct GroupNorm = "group_norm" (x: One, scale: One, bias: One) -> (y) {
        groups: usize,
        eps: f32 = 1e-5,
    }
}

op! {
    /// Local response normalisation across channels: `x / (bias + alpha/size * sum of squares over the window)^beta`, the
    /// window being channels `c - floor((size-1)/2) ..= c + ceil((size-1)/2)`. Source: ONNX LRN.
    pub struct Lrn = "lrn" (x: One) -> (y) {
        size: usize,
        alpha: f32 = 0.0001,
        beta: f32 = 0.75,
        bias: f32 = 1.0,
    }
}

/// Operands from the second on are vectors with one float per channel of x.
fn check_channels(code: &'static str, t: In<TensorType>) -> Result<(), Diag> {
    let x = t.get(0);
    let channels = channels(x);
    for p in t.all().skip(1) {
        require_dtype(code, p.dtype, Domain::Float)?;
        if p.rank() != 1 || differ(&p.shape[0], &channels) {
            let message = format!("{x} has {channels} channels and takes a vector of as many parameters, not {p}");
            return Err(Diag::new(code, message));
        }
    }
    Ok(())
}

/// Axis 1; a vector is a batch of one channel.
fn channels(x: &TensorType) -> Dim {
    x.shape.get(1).cloned().unwrap_or(Dim::ONE)
}

/// All axes but the channel's.
fn batch_axes(rank: usize) -> Vec<usize> {
    (0..rank).filter(|&d| d != 1).collect()
}

/// Mean and population variance of each cell.
fn statistics(x: &[f64], cells: &Cells) -> (Vec<f64>, Vec<f64>) {
    let n = cells.size as f64;
    let mean: Vec<f64> = cells.fold(x, 0.0, |sum, x| sum + x).into_iter().map(|sum| sum / n).collect();
    let mut var = vec![0.0; cells.count];
    for (x, &c) in x.iter().zip(&cells.of) {
        var[c] += (x - mean[c]) * (x - mean[c]) / n;
    }
    if cells.size == 0 {
        var.fill(f64::NAN);
    }
    (mean, var)
}

/// `(x - mean)/sqrt(var + eps)*scale + bias`, the parameters found by the maps from elements to cells.
fn normalised(
    x: &[f64],
    (mean, var, stat_of): (&[f64], &[f64], &[usize]),
    (scale, bias, channel_of): (&[f64], &[f64], &[usize]),
    eps: f32,
) -> Vec<f64> {
    let eps = f64::from(eps);
    let cells = stat_of.iter().zip(channel_of);
    let y = x.iter().zip(cells).map(|(x, (&s, &c))| (x - mean[s]) / (var[s] + eps).sqrt() * scale[c] + bias[c]);
    y.collect()
}

impl OpDef for BatchNorm {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // batch_norm.c1: x is a float with a batch axis
        require_dtype("batch_norm.c1", x.dtype, Domain::Float)?;
        require_rank("batch_norm.c1", "x", x, 1)?;
        // batch_norm.c2: one float parameter of each kind per channel
        check_channels("batch_norm.c2", t)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let of = Cells::new(x.shape(), &batch_axes(x.rank())).of;
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| v.get(i).to_f64());
        let y = normalised(&x.to_f64(), (&mean, &var, &of), (&scale, &bias, &of), self.eps);
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape().to_vec(), y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 2
    }
}

impl OpDef for BatchNormTrain {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // batch_norm_train.c1: x is a float with a batch axis
        require_dtype("batch_norm_train.c1", x.dtype, Domain::Float)?;
        require_rank("batch_norm_train.c1", "x", x, 1)?;
        // batch_norm_train.c2: one float parameter of each kind per channel
        check_channels("batch_norm_train.c2", t)?;
        Ok(vec![x.clone(), t.get(3).clone(), t.get(4).clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let values = x.to_f64();
        let cells = Cells::new(x.shape(), &batch_axes(x.rank()));
        let [scale, bias] = [1, 2].map(|i| v.get(i).to_f64());
        let (mean, var) = statistics(&values, &cells);
        let y = normalised(&values, (&mean, &var, &cells.of), (&scale, &bias, &cells.of), self.eps);
        let momentum = f64::from(self.momentum);
        let running = |old: &Tensor, batch: Vec<f64>| {
            let new = old.to_f64().into_iter().zip(batch).map(|(old, new)| old * momentum + new * (1.0 - momentum));
            Tensor::from_f64(old.dtype(), old.shape().to_vec(), new)
        };
        let y = Tensor::from_f64(x.dtype(), x.shape().to_vec(), y);
        Ok(vec![y, running(v.get(3), mean), running(v.get(4), var)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 6
    }
}

impl OpDef for InstanceNorm {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // instance_norm.c1: x is a float with a batch and a channel axis
        require_dtype("instance_norm.c1", x.dtype, Domain::Float)?;
        require_rank("instance_norm.c1", "x", x, 2)?;
        // instance_norm.c2: scale and bias have one float of x's type per channel
        same_dtype("instance_norm.c2", t.all())?;
        check_channels("instance_norm.c2", t)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let values = x.to_f64();
        let cells = Cells::new(x.shape(), &(2..x.rank()).collect::<Vec<_>>());
        let channel_of = Cells::new(x.shape(), &batch_axes(x.rank())).of;
        let [scale, bias] = [1, 2].map(|i| v.get(i).to_f64());
        let (mean, var) = statistics(&values, &cells);
        let y = normalised(&values, (&mean, &var, &cells.of), (&scale, &bias, &channel_of), self.eps);
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape().to_vec(), y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 6
    }
}

/// The type of the statistics that layer_norm gives.
fn statistics_dtype(x: DType) -> DType {
    if x == DType::F64 { DType::F64 } else { DType::F32 }
}

impl OpDef for LayerNorm {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // layer_norm.c1: x is a float, as are scale and bias, of its type
        require_dtype("layer_norm.c1", x.dtype, Domain::Float)?;
        same_dtype("layer_norm.c1", [Some(x), t.opt(1), t.opt(2)].into_iter().flatten())?;
        // layer_norm.c2: the axis is one of x
        require_axis("layer_norm.c2", self.axis, x)?;
        // layer_norm.c3: scale and bias broadcast to x
        for p in [t.opt(1), t.opt(2)].into_iter().flatten() {
            let fits = |(p, x): (&Dim, &Dim)| p.is(1) || !differ(p, x);
            if p.rank() > x.rank() || !p.shape.iter().rev().zip(x.shape.iter().rev()).all(fits) {
                return Err(Diag::new("layer_norm.c3", format!("{p} does not broadcast to the input {x}")));
            }
        }
        let kept = x.shape.iter().enumerate().map(|(d, n)| if d < self.axis { n.clone() } else { Dim::ONE });
        let shape: Shape = kept.collect();
        let stat = TensorType { dtype: statistics_dtype(x.dtype), shape };
        Ok(vec![x.clone(), stat.clone(), stat])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let values = x.to_f64();
        let cells = Cells::new(x.shape(), &(self.axis..x.rank()).collect::<Vec<_>>());
        let (mean, var) = statistics(&values, &cells);
        let each: Vec<usize> = (0..values.len()).collect();
        let wide = |p: &Tensor| spread(p.to_f64(), p.shape(), x.shape());
        let bias = v.opt(2).map_or_else(|| vec![0.0; values.len()], wide);
        let y = normalised(&values, (&mean, &var, &cells.of), (&wide(v.get(1)), &bias, &each), self.eps);
        let inverse: Vec<f64> = var.iter().map(|var| 1.0 / (var + f64::from(self.eps)).sqrt()).collect();
        let shape = out[1].const_shape().ok_or("the statistics' shape is not known")?;
        let statistic = |s: Vec<f64>| Tensor::from_f64(out[1].dtype, shape.clone(), s);
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape().to_vec(), y), statistic(mean), statistic(inverse)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 6
    }
}

impl OpDef for GroupNorm {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // group_norm.c1: x is a float with a batch and a channel axis
        require_dtype("group_norm.c1", x.dtype, Domain::Float)?;
        require_rank("group_norm.c1", "x", x, 2)?;
        // group_norm.c2: scale and bias have one float of x's type per channel
        same_dtype("group_norm.c2", t.all())?;
        check_channels("group_norm.c2", t)?;
        // group_norm.c3: the channels split evenly into groups
        let channels = x.shape[1].as_const();
        if self.groups == 0 || channels.is_some_and(|c| c % dim(self.groups).as_const().unwrap_or(i64::MAX) != 0) {
            let message = format!("the {} channels of {x} do not split into {} groups", x.shape[1], self.groups);
            return Err(Diag::new("group_norm.c3", message));
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let values = x.to_f64();
        let shape = x.shape();
        let grouped = [shape[0], self.groups, shape[1] / self.groups, shape[2..].iter().product()];
        let cells = Cells::new(&grouped, &[2, 3]);
        let channel_of = Cells::new(shape, &batch_axes(x.rank())).of;
        let [scale, bias] = [1, 2].map(|i| v.get(i).to_f64());
        let (mean, var) = statistics(&values, &cells);
        let y = normalised(&values, (&mean, &var, &cells.of), (&scale, &bias, &channel_of), self.eps);
        Ok(vec![Tensor::from_f64(x.dtype(), shape.to_vec(), y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * 6
    }
}

impl OpDef for Lrn {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // lrn.c1: x is a float with a batch and a channel axis
        require_dtype("lrn.c1", x.dtype, Domain::Float)?;
        require_rank("lrn.c1", "x", x, 2)?;
        // lrn.c2: the window holds at least its own channel
        if self.size == 0 {
            return Err(Diag::new("lrn.c2", "the window needs a size of at least 1, it is 0"));
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, v: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let values = x.to_f64();
        let channels = x.shape()[1];
        let plane: usize = x.shape()[2..].iter().product();
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        let mut y = Vec::with_capacity(values.len());
        for (at, &x) in values.iter().enumerate() {
            let c = at / plane % channels;
            let first = at - c * plane;
            let window = c.saturating_sub(before)..c.saturating_add(after).saturating_add(1).min(channels);
            let sum: f64 = window.map(|c| values[first + c * plane] * values[first + c * plane]).sum();
            let base = f64::from(self.bias) + f64::from(self.alpha) / self.size as f64 * sum;
            y.push(x / base.powf(f64::from(self.beta)));
        }
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape().to_vec(), y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &out[0].elements() * &(&(&dim(self.size) * 2) + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lines::tests::run;

    fn t(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(DType::F64, shape.to_vec(), values.iter().copied())
    }

    fn close(y: &Tensor, expected: &[f64]) {
        let y = y.to_f64();
        assert!(y.len() == expected.len(), "{y:?}");
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() <= 1e-12 || (y.is_nan() && e.is_nan())), "{y:?}");
    }

    #[test]
    fn batch_norm_is_per_channel() {
        let x = t(&[1, 2, 2], &[1.0, 3.0, 5.0, -1.0]);
        let params = [t(&[2], &[2.0, 1.0]), t(&[2], &[0.5, 0.0]), t(&[2], &[1.0, 1.0]), t(&[2], &[4.0, 16.0])];
        let operands = [&x, &params[0], &params[1], &params[2], &params[3]];
        close(&run(BatchNorm { eps: 0.0 }, &operands).unwrap()[0], &[0.5, 2.5, 1.0, -0.5]);
        let flat = t(&[3], &[1.0, 3.0, 5.0]);
        let one = t(&[1], &[1.0]);
        close(&run(BatchNorm { eps: 0.0 }, &[&flat, &one, &one, &one, &one]).unwrap()[0], &[1.0, 3.0, 5.0]);
        let short = [&x, &one, &params[1], &params[2], &params[3]];
        assert_eq!(run(BatchNorm { eps: 0.0 }, &short).unwrap_err().code, "batch_norm.c2");
        let scalar = t(&[], &[1.0]);
        assert_eq!(run(BatchNorm { eps: 0.0 }, &[&scalar; 5]).unwrap_err().code, "batch_norm.c1");
    }

    #[test]
    fn batch_norm_train_uses_and_updates_statistics() {
        let x = t(&[2, 1, 2], &[1.0, 3.0, 1.0, 3.0]);
        let (one, ten) = (t(&[1], &[1.0]), t(&[1], &[10.0]));
        let op = BatchNormTrain { eps: 0.0, momentum: 0.5 };
        let ys = run(op.clone(), &[&x, &one, &one, &ten, &ten]).unwrap();
        close(&ys[0], &[0.0, 2.0, 0.0, 2.0]);
        close(&ys[1], &[6.0]);
        close(&ys[2], &[5.5]);
        let none = t(&[0, 1], &[]);
        let ys = run(op, &[&none, &one, &one, &ten, &ten]).unwrap();
        assert!(ys[1].to_f64()[0].is_nan() && ys[2].to_f64()[0].is_nan());
    }

    #[test]
    fn instance_and_group_norm() {
        let x = t(&[1, 2, 2], &[1.0, 3.0, 10.0, 14.0]);
        let (scale, bias) = (t(&[2], &[1.0, 2.0]), t(&[2], &[0.0, 1.0]));
        close(&run(InstanceNorm { eps: 0.0 }, &[&x, &scale, &bias]).unwrap()[0], &[-1.0, 1.0, -1.0, 3.0]);
        let each = run(GroupNorm { groups: 2, eps: 0.0 }, &[&x, &scale, &bias]).unwrap();
        close(&each[0], &[-1.0, 1.0, -1.0, 3.0]);
        // One group: mean 7, variance (36 + 16 + 9 + 49)/4.
        let s = 27.5f64.sqrt();
        let whole = run(GroupNorm { groups: 1, eps: 0.0 }, &[&x, &scale, &bias]).unwrap();
        close(&whole[0], &[-6.0 / s, -4.0 / s, 6.0 / s + 1.0, 14.0 / s + 1.0]);
        for groups in [0, 3, usize::MAX] {
            assert_eq!(run(GroupNorm { groups, eps: 0.0 }, &[&x, &scale, &bias]).unwrap_err().code, "group_norm.c3");
        }
        let none = t(&[0, 2, 0], &[]);
        assert!(run(GroupNorm { groups: 2, eps: 0.0 }, &[&none, &scale, &bias]).unwrap()[0].is_empty());
    }

    #[test]
    fn layer_norm_gives_its_statistics() {
        let x = Tensor::from_f64(DType::F16, vec![2, 2], [1.0, 3.0, 2.0, 2.0]);
        let scale = Tensor::from_f64(DType::F16, vec![2], [2.0, 1.0]);
        let ys = run(LayerNorm { axis: 1, eps: 1.0 }, &[&x, &scale]).unwrap();
        assert_eq!(ys[1].ty().to_string(), "f32[2,1]");
        assert_eq!(ys[1].to_f64(), [2.0, 2.0]);
        assert_eq!(ys[2].to_f64(), [0.5f64.sqrt() as f32 as f64, 1.0]);
        assert_eq!(ys[0].to_f64()[2..], [0.0, 0.0]);
        assert_eq!(run(LayerNorm { axis: 2, eps: 1.0 }, &[&x, &scale]).unwrap_err().code, "layer_norm.c2");
        let wide = Tensor::from_f64(DType::F16, vec![3], [1.0; 3]);
        assert_eq!(run(LayerNorm { axis: 0, eps: 1.0 }, &[&x, &wide]).unwrap_err().code, "layer_norm.c3");
        // A row without elements has the mean NaN.
        let none = t(&[2, 0], &[]);
        let ys = run(LayerNorm { axis: 1, eps: 1.0 }, &[&none, &t(&[1], &[1.0])]).unwrap();
        assert!(ys[0].is_empty() && ys[1].to_f64().iter().chain(&ys[2].to_f64()).all(|s| s.is_nan()));
    }

    #[test]
    fn lrn_windows_end_at_the_border() {
        let x = t(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
        let op = |size| Lrn { size, alpha: size as f32, beta: 1.0, bias: 1.0 };
        close(&run(op(3), &[&x]).unwrap()[0], &[1.0 / 6.0, 2.0 / 15.0, 3.0 / 30.0, 4.0 / 26.0]);
        // An even window reaches one further up.
        close(&run(op(2), &[&x]).unwrap()[0], &[1.0 / 6.0, 2.0 / 14.0, 3.0 / 26.0, 4.0 / 17.0]);
        let huge = Lrn { size: usize::MAX, alpha: 0.0, beta: 1.0, bias: 2.0 };
        close(&run(huge, &[&x]).unwrap()[0], &[0.5, 1.0, 1.5, 2.0]);
        assert_eq!(run(op(0), &[&x]).unwrap_err().code, "lrn.c2");
        assert_eq!(run(op(1), &[&t(&[4], &[0.0; 4])]).unwrap_err().code, "lrn.c1");
    }

    #[test]
    fn symbols_are_carried() {
        let x = TensorType { dtype: DType::F32, shape: vec![Dim::symbol("n"), Dim::symbol("c"), Dim::Const(4)] };
        let p = TensorType::new(DType::F32, [3i64]);
        let out = GroupNorm { groups: 2, eps: 0.0 }.infer(In(&[Some(&x), Some(&p), Some(&p)])).unwrap();
        assert_eq!(out[0].to_string(), "f32[n,c,4]");
        let out = LayerNorm { axis: 1, eps: 0.0 }.infer(In(&[Some(&x), Some(&p)]));
        assert_eq!(out.unwrap_err().code, "layer_norm.c3");
    }
}
