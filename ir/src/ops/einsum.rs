//! Sums of products by index letters: parsing of the equation, and its evaluation.

use super::matmul::broadcast_dims;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::{Wide, advance, strides};
use std::num::Wrapping;

op! {
    /// Sum of products by index letters, `ij,jk->ik`; ellipsis and implicit output allowed. Source: ONNX Einsum, opset 12+.
    pub struct Einsum = "einsum" (xs: Many) -> (y) { equation: String }
}

/// What an equation means for operands of given ranks. A label is a position in `0..labels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EinsumPlan {
    /// The label of each axis of each operand; one label may occur more than once.
    pub operands: Vec<Vec<usize>>,
    /// The label of each axis of the result, each once.
    pub result: Vec<usize>,
    /// Labels that are summed over.
    pub summed: Vec<usize>,
    pub labels: usize,
}

/// One axis as written: a letter, or a dimension under the ellipsis, counted from its right end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Ellipsis(usize),
    Letter(char),
}

impl Einsum {
    /// Reads the equation; errors are in words.
    pub fn plan(&self, ranks: &[usize]) -> Result<EinsumPlan, String> {
        let equation: String = self.equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (&equation[..], None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(format!(
                "the equation '{}' has {} operands, {} are given",
                self.equation,
                terms.len(),
                ranks.len()
            ));
        }
        let mut written = vec![];
        for (term, &rank) in terms.iter().zip(ranks) {
            let letters = term.replacen("...", "", 1).chars().count();
            let under = match (term.contains("..."), rank.checked_sub(letters)) {
                (true, Some(n)) => n,
                (false, Some(0)) => 0,
                _ => return Err(format!("'{term}' does not fit an operand of rank {rank}")),
            };
            written.push(axes(term, under)?);
        }
        let ellipsis = written.iter().flatten().filter_map(|a| match a {
            Axis::Ellipsis(i) => Some(i + 1),
            Axis::Letter(_) => None,
        });
        let ellipsis = ellipsis.max().unwrap_or(0);
        let result = match right {
            Some(right) => axes(right, ellipsis)?,
            None => implicit_result(&written, ellipsis),
        };
        let mut labels: Vec<Axis> = vec![];
        let mut label = |a: &Axis| {
            labels.iter().position(|l| l == a).unwrap_or_else(|| {
                labels.push(*a);
                labels.len() - 1
            })
        };
        let operands: Vec<Vec<usize>> = written.iter().map(|axes| axes.iter().map(&mut label).collect()).collect();
        let known = labels.len();
        let result: Vec<usize> = result
            .iter()
            .map(|a| {
                labels.iter().position(|l| l == a).ok_or("the result has a letter that no operand has".to_string())
            })
            .collect::<Result<_, _>>()?;
        if (0..result.len()).any(|i| result[..i].contains(&result[i])) {
            return Err(format!("the result of '{}' repeats a letter", self.equation));
        }
        let summed = (0..known).filter(|l| !result.contains(l)).collect();
        Ok(EinsumPlan { operands, result, summed, labels: known })
    }
}

/// The axes of one term, whose ellipsis stands for `under` dimensions.
fn axes(term: &str, under: usize) -> Result<Vec<Axis>, String> {
    let mut axes = vec![];
    let mut rest = term;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if after.contains("...") {
                return Err(format!("'{term}' has two ellipses"));
            }
            axes.extend((0..under).rev().map(Axis::Ellipsis));
            rest = after;
        } else if c.is_ascii_alphabetic() {
            axes.push(Axis::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(format!("'{c}' in '{term}' is not a letter"));
        }
    }
    Ok(axes)
}

/// The ellipsis, then the letters that occur exactly once, sorted (capitals first).
fn implicit_result(written: &[Vec<Axis>], ellipsis: usize) -> Vec<Axis> {
    let all: Vec<Axis> = written.iter().flatten().copied().filter(|a| matches!(a, Axis::Letter(_))).collect();
    let mut once: Vec<Axis> = all.iter().copied().filter(|a| all.iter().filter(|b| a == *b).count() == 1).collect();
    once.sort();
    (0..ellipsis).rev().map(Axis::Ellipsis).chain(once).collect()
}

impl OpDef for Einsum {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let first = t.get(0);
        // einsum.c1: all operands are of one number type
        let number = first.dtype.is_computable() && (first.dtype.is_float() || first.dtype.is_int());
        if let Some(other) = t.all().find(|x| !number || x.dtype != first.dtype) {
            return Err(Diag::new("einsum.c1", format!("operands must be numbers of one type: {first}, {other}")));
        }
        // einsum.c2: the equation fits the operands' ranks
        let ranks: Vec<usize> = t.all().map(TensorType::rank).collect();
        let plan = self.plan(&ranks).map_err(|why| Diag::new("einsum.c2", why))?;
        // einsum.c3: axes with the same letter have the same size, or 1
        let sizes =
            label_sizes(&plan, t).map_err(|why| Diag::new("einsum.c3", format!("{why} in '{}'", self.equation)))?;
        Ok(vec![TensorType { dtype: first.dtype, shape: plan.result.iter().map(|&l| sizes[l].clone()).collect() }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let ranks: Vec<usize> = v.all().map(Tensor::rank).collect();
        let plan = self.plan(&ranks)?;
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let float = out[0].dtype.is_float();
        Ok(vec![if float {
            sum_of_products::<f64>(&plan, v, &shape)
        } else {
            sum_of_products::<Wrapping<i64>>(&plan, v, &shape)
        }])
    }

    /// A multiply-add for every operand after the first, at every point of the index space.
    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        let ranks: Vec<usize> = t.all().map(TensorType::rank).collect();
        let sizes = self.plan(&ranks).and_then(|plan| label_sizes(&plan, t));
        let per_point = Dim::Const(2 * (t.len() as i64 - 1).max(1));
        sizes.map_or(Dim::ZERO, |sizes| sizes.iter().fold(per_point, |n, d| &n * d))
    }
}

fn label_sizes(plan: &EinsumPlan, t: In<TensorType>) -> Result<Vec<Dim>, String> {
    let mut sizes = vec![Dim::ONE; plan.labels];
    for (x, labels) in t.all().zip(&plan.operands) {
        for (d, &label) in x.shape.iter().zip(labels) {
            sizes[label] =
                broadcast_dims(&sizes[label], d).ok_or_else(|| format!("sizes {} and {d} meet", sizes[label]))?;
        }
    }
    Ok(sizes)
}

fn sum_of_products<T: Wide>(plan: &EinsumPlan, v: In<Tensor>, shape: &[usize]) -> Tensor {
    let values: Vec<Vec<T>> = v.all().map(T::read).collect();
    let mut sizes = vec![1; plan.labels];
    let mut steps = vec![vec![0; plan.labels]; values.len()];
    for ((x, labels), steps) in v.all().zip(&plan.operands).zip(&mut steps) {
        for ((&d, s), &label) in x.shape().iter().zip(strides(x.shape())).zip(labels) {
            // A size-1 axis is read at its only place; a letter that occurs twice walks the diagonal.
            if d != 1 {
                sizes[label] = d;
                steps[label] += s;
            }
        }
    }
    let inner: Vec<usize> = plan.summed.iter().map(|&l| sizes[l]).collect();
    let empty = inner.contains(&0) || values.iter().any(Vec::is_empty);
    let mut index = vec![0; plan.labels];
    let mut outer = vec![0; shape.len()];
    let mut y = vec![T::default(); shape.iter().product()];
    if empty {
        return T::write(v.get(0).dtype(), shape, &y);
    }
    for sum in &mut y {
        for (&l, &i) in plan.result.iter().zip(&outer) {
            index[l] = i;
        }
        let mut summed = vec![0; inner.len()];
        loop {
            for (&l, &i) in plan.summed.iter().zip(&summed) {
                index[l] = i;
            }
            let mut term = T::ONE;
            for (x, steps) in values.iter().zip(&steps) {
                term = term * x[index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>()];
            }
            *sum += term;
            if !advance(&mut summed, &inner) {
                break;
            }
        }
        advance(&mut outer, shape);
    }
    T::write(v.get(0).dtype(), shape, &y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn run(equation: &str, xs: &[&Tensor]) -> Result<Tensor, Diag> {
        let op = Einsum { equation: equation.into() };
        let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
        let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
        let y = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out).unwrap().remove(0);
        assert_eq!(y.ty(), out[0]);
        Ok(y)
    }

    fn count(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_i128(DType::F64, shape.to_vec(), (0..n).map(|v| v as i128))
    }

    #[test]
    fn equations() {
        let (a, b) = (count(&[2, 3]), count(&[3, 2]));
        assert_eq!(run("ij,jk->ik", &[&a, &b]).unwrap().to_f64(), [10.0, 13.0, 28.0, 40.0]);
        assert_eq!(run("ij->ji", &[&a]).unwrap().to_f64(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(run("ii", &[&count(&[3, 3])]).unwrap().to_f64(), [12.0]);
        assert_eq!(run("...ii->...i", &[&count(&[2, 2, 2])]).unwrap().to_f64(), [0.0, 3.0, 4.0, 7.0]);
        assert_eq!(run("ba", &[&a]).unwrap().shape(), [3, 2]);
        assert_eq!(run(" bij , bjk -> bik", &[&count(&[2, 1, 2]), &count(&[2, 2, 1])]).unwrap().to_f64(), [1.0, 13.0]);
        assert_eq!(run("i,j,k->", &[&count(&[2]), &count(&[3]), &count(&[2])]).unwrap().to_f64(), [3.0]);
        // The ellipses broadcast from the right: [2,3] and [3].
        assert_eq!(run("...,...", &[&a, &count(&[3])]).unwrap().to_f64(), [0.0, 1.0, 4.0, 0.0, 4.0, 10.0]);
        assert_eq!(run("ij->", &[&count(&[0, 2])]).unwrap().to_f64(), [0.0]);
        assert_eq!(run(",->", &[&count(&[]), &count(&[])]).unwrap().to_f64(), [0.0]);
    }

    #[test]
    fn faulty_equations() {
        let a = count(&[2, 3]);
        for equation in ["ij,jk->ik", "i", "ij->k", "ij->ii", "i.j", "i...j...", "ijk", "é", "i->", "ij->i->j", "..."]
        {
            let ok = equation == "...";
            assert_eq!(run(equation, &[&a]).is_ok(), ok, "{equation}");
        }
        assert_eq!(run("ii", &[&a]).unwrap_err().code, "einsum.c3");
    }
}
