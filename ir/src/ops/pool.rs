//! Pooling windows over the spatial axes of N C spatial... . Output size per axis:
//! `floor((in + pads - dilation*(k-1) - 1)/stride) + 1`, with ceil instead of floor under `ceil_mode`, in which case a last
//! window that would start in the end padding is dropped (ONNX opset 22's wording, torch's rule).

use super::window::{Axis, check_attrs, coded, count, dim, signed};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::for_each_index;

op! {
    /// The maximum of the window, padding excluded; `indices` are flat positions in x (row-major over the whole tensor, or
    /// column-major in the spatial axes when `column_major`). Source: ONNX MaxPool, opsets 1+.
    pub struct MaxPool = "max_pool" (x: One) -> (y, indices) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        column_major: bool = false,
    }
}

op! {
    /// The mean of the window; padding counts in the divisor only if `count_include_pad` (and then only inside the padded
    /// extent). Source: ONNX AveragePool, opsets 1+.
    pub struct AvgPool = "avg_pool" (x: One) -> (y) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        count_include_pad: bool = false,
    }
}

op! {
    /// `(sum |x|^p)^(1/p)` over the window. Source: ONNX LpPool, opsets 2+, and GlobalLpPool.
    pub struct LpPool = "lp_pool" (x: One) -> (y) {
        kernel: Vec<usize>,
        strides: Vec<usize>,
        pads: Vec<usize>,
        dilations: Vec<usize>,
        ceil_mode: bool = false,
        p: usize = 2,
    }
}

/// What the three pools have in common.
struct Windows<'a> {
    kernel: &'a [usize],
    strides: &'a [usize],
    pads: &'a [usize],
    dilations: &'a [usize],
    ceil: bool,
}

macro_rules! windows {
    ($op:expr) => {
        Windows {
            kernel: &$op.kernel,
            strides: &$op.strides,
            pads: &$op.pads,
            dilations: &$op.dilations,
            ceil: $op.ceil_mode,
        }
    };
}

impl Windows<'_> {
    fn infer(&self, x: &TensorType) -> Result<TensorType, Diag> {
        // pool.c2: x has a batch, a channel and at least one spatial axis; the kernel has a size for each of the latter
        let n = self.kernel.len();
        if n == 0 || x.rank() != n + 2 {
            return Err(Diag::new(
                "pool.c2",
                format!("a window over {n} axes needs an input of rank {}, it is {x}", n + 2),
            ));
        }
        // pool.c3: strides and dilations are positive, one per spatial axis; two pads per axis, not negative
        let pads = signed(self.pads);
        coded("pool.c3", check_attrs(n, self.strides, &pads, self.dilations))?;
        // pool.c4: the window has elements and fits into the padded input
        let mut shape = x.shape[..2].to_vec();
        for a in 0..n {
            let pads = (pads[a], pads[n + a]);
            let out = count(&x.shape[2 + a], &dim(self.kernel[a]), self.strides[a], pads, self.dilations[a], self.ceil);
            shape.push(coded("pool.c4", out)?);
        }
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn axes(&self, x: &[usize]) -> Vec<Axis> {
        let axis = |a: usize| Axis {
            size: x[2 + a],
            kernel: self.kernel[a],
            stride: self.strides[a],
            begin: self.pads[a] as i64,
            dilation: self.dilations[a],
        };
        (0..self.kernel.len()).map(axis).collect()
    }

    /// Calls `f` for each output with its flat position, its spatial index, and the flat positions in x of the
    /// window's elements that lie inside x, in row-major order.
    fn for_each(&self, x: &[usize], y: &[usize], mut f: impl FnMut(usize, &[usize], &[usize])) {
        let axes = self.axes(x);
        let plane_in: usize = x[2..].iter().product();
        let plane_out: usize = y[2..].iter().product();
        let (mut at, mut inside, mut window) = (0, vec![], vec![]);
        for_each_index(&y[2..], |o| {
            let taps: Vec<_> = axes.iter().zip(o).map(|(a, &o)| a.taps(o)).collect();
            let lens: Vec<usize> = taps.iter().map(|t| t.len()).collect();
            inside.clear();
            for_each_index(&lens, |k| {
                let position =
                    axes.iter().enumerate().fold(0, |p, (i, a)| p * a.size + a.at(o[i], taps[i].start + k[i]));
                inside.push(position);
            });
            for plane in 0..y[0] * y[1] {
                window.clear();
                window.extend(inside.iter().map(|p| plane * plane_in + p));
                f(plane * plane_out + at, o, &window);
            }
            at += 1;
        });
    }

    fn flops(&self, out: &[TensorType]) -> Dim {
        self.kernel.iter().fold(out[0].elements(), |n, &k| &n * &dim(k))
    }
}

fn check_float(x: &TensorType) -> Result<(), Diag> {
    if x.dtype.is_float() && x.dtype.is_computable() {
        return Ok(());
    }
    Err(Diag::new("pool.c1", format!("this pool takes f64, f32, f16 or bf16, x is {x}")))
}

impl OpDef for MaxPool {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let x = t.get(0);
        // pool.c1: x is a float, for max_pool also i8 or u8
        if !matches!(x.dtype, DType::I8 | DType::U8) {
            check_float(x)?;
        }
        let y = windows!(self).infer(x)?;
        let indices = TensorType { dtype: DType::I64, shape: y.shape.clone() };
        Ok(vec![y, indices])
    }

    /// NaN if the window has one; a window without elements gives the lowest number (-inf) and index -1.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let values = x.to_f64();
        let n: usize = shape.iter().product();
        let lowest = if x.dtype() == DType::I8 {
            -128.0
        } else if x.dtype() == DType::U8 {
            0.0
        } else {
            f64::NEG_INFINITY
        };
        let (mut y, mut indices) = (vec![lowest; n], vec![-1i128; n]);
        windows!(self).for_each(x.shape(), &shape, |at, _, window| {
            let mut best: Option<usize> = None;
            for &p in window {
                let better = best.is_none_or(|b| values[p] > values[b] || (values[p].is_nan() && !values[b].is_nan()));
                if better {
                    best = Some(p);
                }
            }
            if let Some(p) = best {
                y[at] = values[p];
                indices[at] = self.index(p, x.shape()) as i128;
            }
        });
        let y = Tensor::from_f64(x.dtype(), shape.clone(), y);
        Ok(vec![y, Tensor::from_i128(DType::I64, shape, indices)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        windows!(self).flops(out)
    }
}

impl MaxPool {
    /// The index reported for the element at flat position `p`.
    fn index(&self, p: usize, x: &[usize]) -> usize {
        if !self.column_major {
            return p;
        }
        let plane: usize = x[2..].iter().product();
        let (mut rest, mut scale, mut index) = (p % plane, plane, p - p % plane);
        // Axes from the innermost: its coordinate has the largest weight.
        for &size in x[2..].iter().rev() {
            scale /= size;
            index += rest % size * scale;
            rest /= size;
        }
        index
    }
}

impl OpDef for AvgPool {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        check_float(t.get(0))?;
        Ok(vec![windows!(self).infer(t.get(0))?])
    }

    /// A window without elements gives NaN, or 0 when its padding counts.
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let values = x.to_f64();
        let mut y = vec![0.0; shape.iter().product()];
        let axes = windows!(self).axes(x.shape());
        windows!(self).for_each(x.shape(), &shape, |at, o, window| {
            let sum: f64 = window.iter().map(|&p| values[p]).sum();
            let divisor = if self.count_include_pad {
                let end = |a: usize| self.pads[axes.len() + a] as i64;
                axes.iter().enumerate().map(|(a, axis)| axis.taps_with_pads(o[a], end(a))).product()
            } else {
                window.len()
            };
            y[at] = sum / divisor as f64;
        });
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        windows!(self).flops(out)
    }
}

impl OpDef for LpPool {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        check_float(t.get(0))?;
        // pool.c5: p is at least 1
        if self.p == 0 {
            return Err(Diag::new("pool.c5", "lp_pool needs p of at least 1, it is 0"));
        }
        Ok(vec![windows!(self).infer(t.get(0))?])
    }

    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let x = v.get(0);
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let values = x.to_f64();
        let mut y = vec![0.0; shape.iter().product()];
        let p = self.p as f64;
        windows!(self).for_each(x.shape(), &shape, |at, _, window| {
            let sum: f64 = window.iter().map(|&i| libm::pow(values[i].abs(), p)).sum();
            y[at] = libm::pow(sum, 1.0 / p);
        });
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn flops(&self, _: In<TensorType>, out: &[TensorType]) -> Dim {
        &windows!(self).flops(out) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: impl OpDef, x: &Tensor) -> Result<Vec<Tensor>, Diag> {
        let out = op.infer(In(&[Some(&x.ty())]))?;
        let ys = op.eval(In(&[Some(x)]), &out).unwrap();
        assert!(ys.iter().zip(&out).all(|(y, t)| y.ty() == *t));
        Ok(ys)
    }

    fn count(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_i128(DType::F32, shape.to_vec(), (1..=n).map(|v| v as i128))
    }

    fn max_pool(kernel: &[usize], strides: &[usize], pads: &[usize]) -> MaxPool {
        MaxPool {
            kernel: kernel.to_vec(),
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: vec![1; kernel.len()],
            ceil_mode: false,
            column_major: false,
        }
    }

    // The 5x5 expectations are those of ONNX's node tests (2d precomputed).
    #[test]
    fn max_pool_gives_values_and_indices() {
        let ys = run(max_pool(&[5, 5], &[1, 1], &[2; 4]), &count(&[1, 1, 5, 5])).unwrap();
        assert_eq!(ys[0].to_f64()[..10], [13., 14., 15., 15., 15., 18., 19., 20., 20., 20.]);
        let mut op = max_pool(&[2, 2], &[2, 2], &[0; 4]);
        assert_eq!(run(op.clone(), &count(&[1, 1, 5, 5])).unwrap()[1].to_i64(), [6, 8, 16, 18]);
        op.column_major = true;
        assert_eq!(run(op, &count(&[1, 1, 5, 5])).unwrap()[1].to_i64(), [6, 16, 8, 18]);
    }

    #[test]
    fn max_pool_of_nothing_and_of_nan() {
        let nan = Tensor::from_f64(DType::F32, vec![1, 1, 3], [1.0, f64::NAN, 2.0]);
        let ys = run(max_pool(&[1], &[1], &[2, 0]), &nan).unwrap();
        assert_eq!((ys[0].to_f64()[0], ys[1].to_i64()[0]), (f64::NEG_INFINITY, -1));
        assert!(run(max_pool(&[3], &[1], &[0, 0]), &nan).unwrap()[0].to_f64()[0].is_nan());
        assert!(run(max_pool(&[2, 2], &[1, 1], &[0; 4]), &count(&[0, 3, 4, 4])).unwrap()[0].is_empty());
    }

    #[test]
    fn hostile_attributes_are_refused() {
        let x = count(&[1, 1, 4]);
        for (op, code) in [
            (max_pool(&[], &[], &[]), "pool.c2"),
            (max_pool(&[2, 2], &[1, 1], &[0; 4]), "pool.c2"),
            (max_pool(&[2], &[0], &[0; 2]), "pool.c3"),
            (max_pool(&[2], &[usize::MAX], &[0; 2]), "pool.c3"),
            (max_pool(&[2], &[1], &[usize::MAX, 0]), "pool.c3"),
            (max_pool(&[2], &[1], &[0; 3]), "pool.c3"),
            (max_pool(&[0], &[1], &[0; 2]), "pool.c4"),
            (max_pool(&[usize::MAX], &[1], &[0; 2]), "pool.c4"),
            (max_pool(&[9], &[1], &[0; 2]), "pool.c4"),
        ] {
            assert_eq!(run(op, &x).unwrap_err().code, code);
        }
    }

    fn avg_pool(kernel: usize, stride: usize, pads: [usize; 2], ceil_mode: bool, count_include_pad: bool) -> AvgPool {
        AvgPool {
            kernel: vec![kernel],
            strides: vec![stride],
            pads: pads.to_vec(),
            dilations: vec![1],
            ceil_mode,
            count_include_pad,
        }
    }

    #[test]
    fn avg_pool_divisors() {
        let x = count(&[1, 1, 4]);
        let y = |op| run(op, &x).unwrap()[0].to_f64();
        assert_eq!(y(avg_pool(3, 1, [1, 1], false, false)), [1.5, 2.0, 3.0, 3.5]);
        assert_eq!(y(avg_pool(3, 1, [1, 1], false, true)), [1.0, 2.0, 3.0, 7.0 / 3.0].map(|v: f64| v as f32 as f64));
        // The last window reaches one past the padded extent: that does not count.
        assert_eq!(y(avg_pool(3, 2, [0, 0], true, true)), [2.0, 3.5]);
        assert_eq!(y(avg_pool(3, 3, [1, 1], true, true)), [1.0, 3.5 * 2.0 / 3.0].map(|v: f64| v as f32 as f64));
    }

    #[test]
    fn lp_pool_norms() {
        let x = Tensor::from_f64(DType::F32, vec![1, 1, 3], [3.0, -4.0, 0.0]);
        let op =
            |p| LpPool { kernel: vec![2], strides: vec![1], pads: vec![0; 2], dilations: vec![1], ceil_mode: false, p };
        assert_eq!(run(op(2), &x).unwrap()[0].to_f64(), [5.0, 4.0]);
        assert_eq!(run(op(1), &x).unwrap()[0].to_f64(), [7.0, 4.0]);
        assert_eq!(run(op(0), &x).unwrap_err().code, "pool.c5");
    }
}
