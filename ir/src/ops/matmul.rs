//! Matrix products.

use super::window::differ;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::{Wide, flat, for_each_index, strides};
use std::num::Wrapping;

op! {
    /// numpy's matmul: 1-D operands are promoted, leading dimensions broadcast. Source: ONNX MatMul, opsets 1+.
    pub struct MatMul = "matmul" (a: One, b: One) -> (y) {}
}

op! {
    /// `alpha * op(a) * op(b) + beta * c`, c broadcast to [M, N]. Source: ONNX Gemm, opsets 7+.
    pub struct Gemm = "gemm" (a: One, b: One, c: Opt) -> (y) {
        alpha: f32 = 1.0,
        beta: f32 = 1.0,
        trans_a: bool = false,
        trans_b: bool = false,
    }
}

impl OpDef for MatMul {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (a, b) = (t.get(0), t.get(1));
        // matmul.c1: a and b are of one type: a float, or an integer of 32 or 64 bits
        check_product_dtypes("matmul.c1", a, b)?;
        // matmul.c2: neither is a scalar
        if a.rank() == 0 || b.rank() == 0 {
            return Err(Diag::new("matmul.c2", format!("a matrix product takes no scalars: a is {a}, b is {b}")));
        }
        let (x, y) = (promote_left(&a.shape), promote_right(&b.shape));
        let (m, n) = (x[x.len() - 2].clone(), y[y.len() - 1].clone());
        // matmul.c3: the last dimension of a is the one before last of b
        if differ(&x[x.len() - 1], &y[y.len() - 2]) {
            return Err(Diag::new("matmul.c3", format!("the inner dimensions of a ({a}) and b ({b}) differ")));
        }
        // matmul.c4: the leading dimensions broadcast
        let mut shape = broadcast_shapes(&x[..x.len() - 2], &y[..y.len() - 2]).ok_or_else(|| {
            Diag::new("matmul.c4", format!("the leading dimensions of a ({a}) and b ({b}) do not broadcast"))
        })?;
        if a.rank() > 1 {
            shape.push(m);
        }
        if b.rank() > 1 {
            shape.push(n);
        }
        Ok(vec![TensorType { dtype: a.dtype, shape }])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let (a, b) = (v.get(0), v.get(1));
        Ok(vec![if a.dtype().is_float() { matmul::<f64>(a, b, &shape) } else { matmul::<Wrapping<i64>>(a, b, &shape) }])
    }

    fn flops(&self, t: In<TensorType>, out: &[TensorType]) -> Dim {
        let inner = t.get(0).shape.last().cloned().unwrap_or(Dim::ONE);
        &(&out[0].elements() * &inner) * 2
    }
}

fn matmul<T: Wide>(a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
    let (x, y) = (promote_left(a.shape()), promote_right(b.shape()));
    let (batch_a, batch_b) = (&x[..x.len() - 2], &y[..y.len() - 2]);
    let (m, k, n) = (x[x.len() - 2], x[x.len() - 1], y[y.len() - 1]);
    let rank = batch_a.len().max(batch_b.len());
    let batch = &shape[..rank];
    let (steps_a, steps_b) = (broadcast_strides(batch_a, rank), broadcast_strides(batch_b, rank));
    let (va, vb) = (T::read(a), T::read(b));
    let mut y = vec![T::default(); shape.iter().product()];
    let mut at = 0;
    for_each_index(batch, |index| {
        let left = Matrix { data: &va[flat(index, &steps_a) * m * k..], row: k, col: 1 };
        let right = Matrix { data: &vb[flat(index, &steps_b) * k * n..], row: n, col: 1 };
        product(&mut y[at..at + m * n], left, right, m, k, n);
        at += m * n;
    });
    T::write(a.dtype(), shape, &y)
}

/// A matrix inside a slice: element (i, j) is at `i*row + j*col`.
#[derive(Clone, Copy)]
struct Matrix<'a, T> {
    data: &'a [T],
    row: usize,
    col: usize,
}

/// `y += a * b`, y row-major [m, n]. The innermost loop runs along whichever axis of b is contiguous.
fn product<T: Wide>(y: &mut [T], a: Matrix<T>, b: Matrix<T>, m: usize, k: usize, n: usize) {
    if k == 0 || n == 0 {
        return;
    }
    for i in 0..m {
        let row = &mut y[i * n..(i + 1) * n];
        if b.col == 1 {
            for p in 0..k {
                let left = a.data[i * a.row + p * a.col];
                for (y, &right) in row.iter_mut().zip(&b.data[p * b.row..p * b.row + n]) {
                    *y += left * right;
                }
            }
        } else {
            for (j, y) in row.iter_mut().enumerate() {
                let column = &b.data[j * b.col..];
                let mut sum = T::default();
                for p in 0..k {
                    sum += a.data[i * a.row + p * a.col] * column[p * b.row];
                }
                *y += sum;
            }
        }
    }
}

/// A 1-D left operand is a row.
fn promote_left<D: Clone + One>(shape: &[D]) -> Vec<D> {
    if shape.len() == 1 { vec![D::one(), shape[0].clone()] } else { shape.to_vec() }
}

/// A 1-D right operand is a column.
fn promote_right<D: Clone + One>(shape: &[D]) -> Vec<D> {
    if shape.len() == 1 { vec![shape[0].clone(), D::one()] } else { shape.to_vec() }
}

trait One {
    fn one() -> Self;
}
impl One for usize {
    fn one() -> usize {
        1
    }
}
impl One for Dim {
    fn one() -> Dim {
        Dim::ONE
    }
}

/// Strides, in whole matrices, that read a batch of shape `own` as one of `rank` dimensions that it broadcasts to.
fn broadcast_strides(own: &[usize], rank: usize) -> Vec<usize> {
    let dense = strides(own);
    let mut steps = vec![0; rank - own.len()];
    steps.extend(own.iter().zip(dense).map(|(&d, s)| if d == 1 { 0 } else { s }));
    steps
}

/// numpy's broadcasting; `None` if a pair of dimensions differs and neither is 1.
fn broadcast_shapes(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(Dim::ONE, |j| s[j].clone());
    (0..rank).map(|i| broadcast_dims(&at(a, i), &at(b, i))).collect()
}

/// The common size of two axes, one of which may be 1.
pub(crate) fn broadcast_dims(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.as_const(), b.as_const()) {
        (Some(1), _) => Some(b.clone()),
        (_, Some(1)) => Some(a.clone()),
        _ if differ(a, b) => None,
        (None, Some(_)) => Some(b.clone()),
        _ => Some(a.clone()),
    }
}

fn check_product_dtypes(code: &'static str, a: &TensorType, b: &TensorType) -> Result<(), Diag> {
    let wide = matches!(a.dtype, DType::I32 | DType::I64 | DType::U32 | DType::U64);
    let float = a.dtype.is_float() && a.dtype.is_computable();
    if !wide && !float {
        return Err(Diag::new(code, format!("matrix products take floats and integers of 32 or 64 bits, a is {a}")));
    }
    if a.dtype != b.dtype {
        return Err(Diag::new(code, format!("the element types of a ({a}) and b ({b}) differ")));
    }
    Ok(())
}

impl OpDef for Gemm {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (a, b) = (t.get(0), t.get(1));
        // gemm.c1: a, b and c are of one type: a float, or an integer of 32 or 64 bits
        check_product_dtypes("gemm.c1", a, b)?;
        // gemm.c2: a and b are matrices
        if a.rank() != 2 || b.rank() != 2 {
            return Err(Diag::new("gemm.c2", format!("a and b must be matrices: a is {a}, b is {b}")));
        }
        let (ta, tb) = (self.trans_a as usize, self.trans_b as usize);
        // gemm.c3: the inner dimensions agree
        if differ(&a.shape[1 - ta], &b.shape[tb]) {
            return Err(Diag::new(
                "gemm.c3",
                format!("the inner dimensions of op(a) and op(b) differ: a is {a}, b is {b}"),
            ));
        }
        let shape = vec![a.shape[ta].clone(), b.shape[1 - tb].clone()];
        if let Some(c) = t.opt(2) {
            if c.dtype != a.dtype {
                return Err(Diag::new("gemm.c1", format!("the element types of a ({a}) and c ({c}) differ")));
            }
            // gemm.c4: c broadcasts to [M, N]
            let fits =
                c.rank() <= 2 && shape[2 - c.rank()..].iter().zip(&c.shape).all(|(d, c)| c.is(1) || !differ(c, d));
            if !fits {
                return Err(Diag::new(
                    "gemm.c4",
                    format!("c is {c}, which does not broadcast to [{},{}]", shape[0], shape[1]),
                ));
            }
        }
        Ok(vec![TensorType { dtype: a.dtype, shape }])
    }

    /// Integers are exact when alpha and beta are 1 (or beta is 0), else the product is scaled in f64 and truncated.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let a = v.get(0);
        let c = v.opt(2).filter(|_| self.beta != 0.0);
        if a.dtype().is_float() {
            let y = self.scaled(self.product::<f64>(v, &shape), c, &shape);
            return Ok(vec![Tensor::from_f64(a.dtype(), shape, y)]);
        }
        let mut y = self.product::<Wrapping<i64>>(v, &shape);
        if self.alpha == 1.0 && (c.is_none() || self.beta == 1.0) {
            if let Some(c) = c {
                add_broadcast(&mut y, &Wide::read(c), c.shape(), &shape, Wrapping(1));
            }
            return Ok(vec![Wide::write(a.dtype(), &shape, &y)]);
        }
        let exact = <Wrapping<i64> as Wide>::write(a.dtype(), &shape, &y).to_f64();
        let y = self.scaled(exact, c, &shape);
        Ok(vec![Tensor::from_f64(a.dtype(), shape, y)])
    }

    fn flops(&self, t: In<TensorType>, out: &[TensorType]) -> Dim {
        let inner = &t.get(0).shape[1 - self.trans_a as usize];
        &(&out[0].elements() * inner) * 2
    }
}

impl Gemm {
    fn product<T: Wide>(&self, v: In<Tensor>, shape: &[usize]) -> Vec<T> {
        let (a, b) = (v.get(0), v.get(1));
        let (va, vb) = (T::read(a), T::read(b));
        let (wa, wb) = (a.shape()[1], b.shape()[1]);
        let k = a.shape()[1 - self.trans_a as usize];
        let (row, col) = if self.trans_a { (1, wa) } else { (wa, 1) };
        let left = Matrix { data: &va[..], row, col };
        let (row, col) = if self.trans_b { (1, wb) } else { (wb, 1) };
        let right = Matrix { data: &vb[..], row, col };
        let mut y = vec![T::default(); shape.iter().product()];
        product(&mut y, left, right, shape[0], k, shape[1]);
        y
    }

    fn scaled(&self, mut y: Vec<f64>, c: Option<&Tensor>, shape: &[usize]) -> Vec<f64> {
        y.iter_mut().for_each(|y| *y *= self.alpha as f64);
        if let Some(c) = c {
            add_broadcast(&mut y, &c.to_f64(), c.shape(), shape, self.beta as f64);
        }
        y
    }
}

/// `y += scale * c`, c broadcast to y's shape.
fn add_broadcast<T: Wide>(y: &mut [T], c: &[T], own: &[usize], shape: &[usize], scale: T) {
    let steps = broadcast_strides(own, shape.len());
    let mut at = 0;
    for_each_index(shape, |index| {
        y[at] += scale * c[flat(index, &steps)];
        at += 1;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: impl OpDef, xs: &[&Tensor]) -> Result<Tensor, Diag> {
        let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
        let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
        let y = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out).unwrap().remove(0);
        assert_eq!(y.ty(), out[0]);
        Ok(y)
    }

    fn count(dtype: DType, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_i128(dtype, shape.to_vec(), (0..n).map(|v| v as i128))
    }

    #[test]
    fn matmul_promotes_and_broadcasts() {
        let f = DType::F32;
        let y = run(MatMul {}, &[&count(f, &[3]), &count(f, &[3])]).unwrap();
        assert_eq!((y.shape(), y.to_f64()), (&[][..], vec![5.0]));
        let y = run(MatMul {}, &[&count(f, &[3]), &count(f, &[3, 2])]).unwrap();
        assert_eq!((y.shape(), y.to_f64()), (&[2][..], vec![10.0, 13.0]));
        let y = run(MatMul {}, &[&count(f, &[2, 1, 1, 2]), &count(f, &[3, 2])]);
        assert_eq!(y.unwrap_err().code, "matmul.c3");
        let y = run(MatMul {}, &[&count(f, &[2, 1, 1, 2]), &count(f, &[2, 2, 1])]).unwrap();
        assert_eq!((y.shape(), y.to_f64()), (&[2, 2, 1, 1][..], vec![1.0, 3.0, 3.0, 13.0]));
        let y = run(MatMul {}, &[&count(f, &[2, 0]), &count(f, &[0, 2])]).unwrap();
        assert_eq!((y.shape(), y.to_f64()), (&[2, 2][..], vec![0.0; 4]));
        assert_eq!(run(MatMul {}, &[&count(f, &[]), &count(f, &[1])]).unwrap_err().code, "matmul.c2");
        assert_eq!(run(MatMul {}, &[&count(f, &[2, 2, 2]), &count(f, &[3, 2, 2])]).unwrap_err().code, "matmul.c4");
    }

    #[test]
    fn integer_products_wrap() {
        let big = Tensor::from_i128(DType::U32, vec![1, 2], [u32::MAX as i128, 3]);
        let y = run(MatMul {}, &[&big, &Tensor::from_i128(DType::U32, vec![2, 1], [2, 5])]).unwrap();
        assert_eq!(y.to_i128(), [13]);
    }

    #[test]
    fn gemm_scales_and_broadcasts() {
        let f = DType::F32;
        let gemm = Gemm { alpha: 0.5, beta: 2.0, trans_a: true, trans_b: true };
        // a^T = [[0,2,4],[1,3,5]], b^T = [[0,3],[1,4],[2,5]]
        let y = run(gemm, &[&count(f, &[3, 2]), &count(f, &[2, 3]), &count(f, &[2, 1])]).unwrap();
        assert_eq!(y.to_f64(), [5.0, 14.0, 6.5 + 2.0, 20.0 + 2.0]);
        let gemm = Gemm { alpha: 1.0, beta: 0.0, trans_a: false, trans_b: false };
        let nan = Tensor::scalar_f64(f, f64::NAN);
        let y = run(gemm.clone(), &[&count(f, &[1, 2]), &count(f, &[2, 1]), &nan]).unwrap();
        assert_eq!(y.to_f64(), [1.0]);
        let y = run(gemm, &[&count(f, &[1, 2]), &count(f, &[2, 1]), &count(f, &[3, 1, 1])]);
        assert_eq!(y.unwrap_err().code, "gemm.c4");
        let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
        let y =
            run(gemm, &[&count(DType::I64, &[1, 2]), &count(DType::I64, &[2, 1]), &count(DType::I64, &[1])]).unwrap();
        assert_eq!(y.to_i128(), [1]);
    }

    #[test]
    fn symbolic_shapes_are_carried() {
        let a = TensorType::new(DType::F32, [Dim::symbol("batch"), Dim::Const(4)]);
        let b = TensorType::new(DType::F32, [4i64, 5]);
        let out = MatMul {}.infer(In(&[Some(&a), Some(&b)])).unwrap();
        assert_eq!(out[0].to_string(), "f32[batch,5]");
        assert_eq!(MatMul {}.flops(In(&[Some(&a), Some(&b)]), &out).to_string(), "40*batch");
    }
}
