//! Losses over class scores [N, C, d...] and labels [N, d...].

use super::Domain;
use super::lines::Lines;
use super::softmax::log_softmax;
use super::window::differ;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::infer::{require_dtype, same_dtype};
use crate::op::{In, OpDef, keyword, op};
use crate::tensor::Tensor;
use crate::types::TensorType;

keyword! {
    /// What becomes of the losses of single elements.
    pub enum LossReduction { None = "none", Sum = "sum", Mean = "mean" }
}

op! {
    /// `-w[t] * x[n, t, ...]`; mean divides by the sum of the weights used (NaN if there are none); `ignore_index` contributes
    /// nothing. A label that is no class and not ignored is a fault. Source: ONNX NegativeLogLikelihoodLoss.
    pub struct NllLoss = "nll_loss" (x: One, target: One, weight: Opt) -> (y) {
        reduction: LossReduction = LossReduction::Mean,
        ignore_index: Option<i64> = None,
    }
}

op! {
    /// `nll_loss(log_softmax(x, axis 1), labels, weight)`, and the log-softmax. Source: ONNX SoftmaxCrossEntropyLoss.
    pub struct SoftmaxCrossEntropy = "softmax_cross_entropy" (x: One, labels: One, weight: Opt) -> (y, log_prob) {
        reduction: LossReduction = LossReduction::Mean,
        ignore_index: Option<i64> = None,
    }
}

/// The type of the loss.
fn infer(t: In<TensorType>, reduction: LossReduction) -> Result<TensorType, Diag> {
    let (x, target) = (t.get(0), t.get(1));
    // loss.c1: x is a float with a batch and a class axis
    require_dtype("loss.c1", x.dtype, Domain::Float)?;
    if x.rank() < 2 {
        return Err(Diag::new("loss.c1", format!("scores have a batch and a class axis, they are {x}")));
    }
    // loss.c2: labels are i32 or i64, of x's shape without the classes
    if !matches!(target.dtype, DType::I32 | DType::I64) {
        return Err(Diag::new("loss.c2", format!("labels are i32 or i64, not {}", target.dtype)));
    }
    let mut shape = x.shape.clone();
    shape.remove(1);
    if target.rank() != shape.len() || target.shape.iter().zip(&shape).any(|(a, b)| differ(a, b)) {
        return Err(Diag::new("loss.c2", format!("labels {target} do not go with scores {x}")));
    }
    // loss.c3: weights are one per class, of x's type
    if let Some(w) = t.opt(2) {
        same_dtype("loss.c3", [x, w])?;
        if w.rank() != 1 || differ(&w.shape[0], &x.shape[1]) {
            return Err(Diag::new("loss.c3", format!("{} classes take as many weights, not {w}", x.shape[1])));
        }
    }
    Ok(match reduction {
        LossReduction::None => TensorType { dtype: x.dtype, shape: target.shape.clone() },
        LossReduction::Sum | LossReduction::Mean => TensorType::scalar(x.dtype),
    })
}

/// The loss of scores that are logarithms of probabilities.
fn nll(
    scores: &[f64],
    v: In<Tensor>,
    (reduction, ignore): (LossReduction, Option<i64>),
    out: &TensorType,
) -> Result<Tensor, String> {
    let (x, target) = (v.get(0), v.get(1));
    let weights = v.opt(2).map(|w| w.to_f64());
    let lines = Lines::new(x.shape(), 1);
    let (mut losses, mut total) = (Vec::with_capacity(lines.count), 0.0);
    for (line, label) in target.to_i64().into_iter().enumerate() {
        if Some(label) == ignore {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(label).ok().filter(|&c| c < lines.n);
        let class = class.ok_or_else(|| format!("label {label} is not one of {} classes", lines.n))?;
        let weight = weights.as_ref().map_or(1.0, |w| w[class]);
        total += weight;
        losses.push(-weight * scores[lines.at(line, class)]);
    }
    let shape = out.const_shape().ok_or("the output's shape is not known")?;
    let sum = || losses.iter().sum::<f64>();
    Ok(match reduction {
        LossReduction::None => Tensor::from_f64(out.dtype, shape, losses),
        LossReduction::Sum => Tensor::scalar_f64(out.dtype, sum()),
        LossReduction::Mean => Tensor::scalar_f64(out.dtype, sum() / total),
    })
}

impl OpDef for NllLoss {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![infer(t, self.reduction)?])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![nll(&v.get(0).to_f64(), v, (self.reduction, self.ignore_index), &out[0])?])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        &t.get(1).elements() * 2
    }
}

impl OpDef for SoftmaxCrossEntropy {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![infer(t, self.reduction)?, t.get(0).clone()])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let lines = Lines::new(x.shape(), 1);
        let mut scores = x.to_f64();
        let mut line = vec![0.0; lines.n];
        for l in 0..lines.count {
            line.iter_mut().enumerate().for_each(|(c, v)| *v = scores[lines.at(l, c)]);
            log_softmax(&mut line);
            line.iter().enumerate().for_each(|(c, v)| scores[lines.at(l, c)] = *v);
        }
        let y = nll(&scores, v, (self.reduction, self.ignore_index), &out[0])?;
        Ok(vec![y, Tensor::from_f64(x.dtype(), x.shape().to_vec(), scores)])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        &t.get(0).elements() * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lines::tests::run;

    fn t(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(DType::F64, shape.to_vec(), values.iter().copied())
    }

    fn nll(reduction: LossReduction, ignore_index: Option<i64>, xs: &[&Tensor]) -> Vec<f64> {
        run(NllLoss { reduction, ignore_index }, xs).unwrap()[0].to_f64()
    }

    #[test]
    fn weights_and_ignored_labels() {
        let x = t(&[3, 2], &[-1.0, -2.0, -3.0, -4.0, -5.0, f64::NAN]);
        let labels = Tensor::i64s(&[0, 1, -1]);
        let w = t(&[2], &[1.0, 3.0]);
        use LossReduction::{Mean, None as Each, Sum};
        assert_eq!(nll(Each, Some(-1), &[&x, &labels, &w]), [1.0, 12.0, 0.0]);
        assert_eq!(nll(Sum, Some(-1), &[&x, &labels, &w]), [13.0]);
        assert_eq!(nll(Mean, Some(-1), &[&x, &labels, &w]), [13.0 / 4.0]);
        assert_eq!(nll(Mean, Some(-1), &[&x, &labels]), [2.5]);
        let ignored = Tensor::i64s(&[7, 7, 7]);
        assert!(nll(Mean, Some(7), &[&x, &ignored])[0].is_nan());
        assert_eq!(nll(Sum, None, &[&t(&[0, 2], &[]), &Tensor::i64s(&[])]), [0.0]);
    }

    #[test]
    fn a_label_out_of_range_is_a_fault() {
        let (x, labels) = (t(&[1, 2], &[0.0; 2]), Tensor::i64s(&[2]));
        let op = NllLoss { reduction: LossReduction::Sum, ignore_index: None };
        let out = [TensorType::scalar(DType::F64)];
        assert!(op.eval(In(&[Some(&x), Some(&labels)]), &out).unwrap_err().contains("label 2"));
    }

    #[test]
    fn cross_entropy_of_even_scores() {
        let x = t(&[1, 2, 2], &[5.0, 1e4, 5.0, 0.0]);
        let labels = Tensor::from_i128(DType::I32, vec![1, 2], [1, 1]);
        let op = SoftmaxCrossEntropy { reduction: LossReduction::None, ignore_index: None };
        let ys = run(op, &[&x, &labels]).unwrap();
        assert_eq!(ys[0].to_f64(), [2f64.ln(), 1e4]);
        assert_eq!(ys[1].to_f64(), [-(2f64.ln()), 0.0, -(2f64.ln()), -1e4]);
    }

    #[test]
    fn shapes_must_go_together() {
        let op = || NllLoss { reduction: LossReduction::Mean, ignore_index: None };
        let (x, labels) = (t(&[2, 3], &[0.0; 6]), Tensor::i64s(&[0, 0]));
        let code = |xs: &[&Tensor]| run(op(), xs).unwrap_err().code;
        assert_eq!(code(&[&t(&[2], &[0.0; 2]), &labels]), "loss.c1");
        assert_eq!(code(&[&x, &Tensor::i64s(&[0])]), "loss.c2");
        assert_eq!(code(&[&x, &t(&[2], &[0.0; 2])]), "loss.c2");
        assert_eq!(code(&[&x, &labels, &t(&[2], &[0.0; 2])]), "loss.c3");
        assert_eq!(run(op(), &[&x, &labels]).unwrap()[0].to_f64(), [0.0]);
    }
}
