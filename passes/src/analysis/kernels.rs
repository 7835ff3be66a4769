//! Kernels of one group as matrices, one per tap, and what convolutions one after the other are as one:
//!
//! ```text
//! y(p) = sum_b B_b sum_a A_a x(p + a + b)      hence      W_t = sum_{a + b = t} B_b A_a
//! ```

use super::linalg::{Matrix, solve_symmetric};
use lehr_ir::{DType, Tensor};

/// A kernel: for each tap, by rows, a matrix of output by input channels.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub height: usize,
    pub width: usize,
    pub taps: Vec<Matrix>,
}

impl Kernel {
    pub fn zeros(outputs: usize, inputs: usize, height: usize, width: usize) -> Kernel {
        Kernel { height, width, taps: vec![Matrix::zeros(outputs, inputs); height * width] }
    }

    /// Group `group` of weights O, I/groups, height, width.
    pub fn of_group(weights: &Tensor, group: usize, groups: usize) -> Kernel {
        let &[all, inputs, height, width] = weights.shape() else { unreachable!("weights of a layer have four axes") };
        let outputs = all / groups;
        let values = weights.to_f64();
        let area = height * width;
        let at = |o: usize, i: usize, t: usize| values[((group * outputs + o) * inputs + i) * area + t];
        let taps = (0..area).map(|t| Matrix::from_fn(outputs, inputs, |o, i| at(o, i, t))).collect();
        Kernel { height, width, taps }
    }

    /// The weights of a grouped convolution, group after group.
    pub fn to_weights(groups: &[Kernel], dtype: DType) -> Tensor {
        let (outputs, inputs) = groups[0].channels();
        let (height, width) = (groups[0].height, groups[0].width);
        let mut values = Vec::with_capacity(groups.len() * outputs * inputs * height * width);
        for kernel in groups {
            for o in 0..outputs {
                for i in 0..inputs {
                    values.extend(kernel.taps.iter().map(|t| t[(o, i)]));
                }
            }
        }
        Tensor::from_f64(dtype, vec![groups.len() * outputs, inputs, height, width], values)
    }

    /// Output and input channels.
    pub fn channels(&self) -> (usize, usize) {
        self.taps[0].shape()
    }

    fn offsets(&self) -> impl Iterator<Item = (usize, usize, &Matrix)> {
        self.taps.iter().enumerate().map(|(t, m)| (t / self.width, t % self.width, m))
    }

    pub fn norm2(&self) -> f64 {
        self.taps.iter().map(Matrix::norm_squared).sum()
    }

    /// Squared distance from another kernel of the same sizes.
    pub fn distance2(&self, other: &Kernel) -> f64 {
        self.taps.iter().zip(&other.taps).map(|(a, b)| (a - b).norm_squared()).sum()
    }

    /// With input and output channels exchanged.
    pub fn transposed(&self) -> Kernel {
        Kernel { taps: self.taps.iter().map(Matrix::transpose).collect(), ..*self }
    }

    /// `self + factor * other`.
    pub fn plus(&self, factor: f64, other: &Kernel) -> Kernel {
        Kernel { taps: self.taps.iter().zip(&other.taps).map(|(a, b)| a + b * factor).collect(), ..*self }
    }

    fn dot(&self, other: &Kernel) -> f64 {
        self.taps.iter().zip(&other.taps).map(|(a, b)| a.dot(b)).sum()
    }

    /// `self` after `first`, as one kernel.
    pub fn after(&self, first: &Kernel) -> Kernel {
        let (height, width) = (self.height + first.height - 1, self.width + first.width - 1);
        let mut whole = Kernel::zeros(self.channels().0, first.channels().1, height, width);
        for (by, bx, b) in self.offsets() {
            for (ay, ax, a) in first.offsets() {
                whole.taps[(ay + by) * width + ax + bx].gemm(1.0, b, a, 1.0);
            }
        }
        whole
    }

    /// The adjoint of `first -> self.after(first)`: sum_b B_b^T W_{a + b}.
    fn adjoint(&self, whole: &Kernel) -> Kernel {
        let (height, width) = (whole.height + 1 - self.height, whole.width + 1 - self.width);
        let mut first = Kernel::zeros(self.channels().1, whole.channels().1, height, width);
        let turned = self.transposed();
        for (by, bx, b) in turned.offsets() {
            for (t, a) in first.taps.iter_mut().enumerate() {
                a.gemm(1.0, b, &whole.taps[(t / width + by) * whole.width + t % width + bx], 1.0);
            }
        }
        first
    }

    /// The first kernel for which `self` after it is nearest to `whole`.
    pub fn best_first(&self, whole: &Kernel) -> Option<Kernel> {
        let rhs = self.adjoint(whole);
        let (middle, inputs) = rhs.channels();
        let (height, width) = (rhs.height, rhs.width);
        // Block (a, a') of the normal matrix: sum_b B_b^T B_{b + a - a'}, which depends on a - a' alone.
        let mut normal = Matrix::zeros(height * width * middle, height * width * middle);
        let turned = self.transposed();
        for dy in -(height as i64 - 1)..height as i64 {
            for dx in -(width as i64 - 1)..width as i64 {
                let mut block = Matrix::zeros(middle, middle);
                for (by, bx, b) in turned.offsets() {
                    let (y, x) = (by as i64 + dy, bx as i64 + dx);
                    if (0..self.height as i64).contains(&y) && (0..self.width as i64).contains(&x) {
                        block.gemm(1.0, b, &self.taps[y as usize * self.width + x as usize], 1.0);
                    }
                }
                for a in 0..height * width {
                    let (y, x) = ((a / width) as i64 - dy, (a % width) as i64 - dx);
                    if (0..height as i64).contains(&y) && (0..width as i64).contains(&x) {
                        let other = y as usize * width + x as usize;
                        normal.view_mut((a * middle, other * middle), (middle, middle)).copy_from(&block);
                    }
                }
            }
        }
        let mut stacked = Matrix::zeros(height * width * middle, inputs);
        for (a, tap) in rhs.taps.iter().enumerate() {
            stacked.rows_mut(a * middle, middle).copy_from(tap);
        }
        let solved = solve_symmetric(&normal, &stacked)?;
        let taps = (0..height * width).map(|a| solved.rows(a * middle, middle).into_owned()).collect();
        Some(Kernel { height, width, taps })
    }

    /// The last kernel for which it after `self` is nearest to `whole`.
    pub fn best_last(&self, whole: &Kernel) -> Option<Kernel> {
        Some(self.transposed().best_first(&whole.transposed())?.transposed())
    }

    /// `self` between `first` and `last` improved by `steps` conjugate gradient steps on the distance from `whole`.
    pub fn improved_between(&self, first: &Kernel, last: &Kernel, whole: &Kernel, steps: usize) -> Kernel {
        let apply = |x: &Kernel| last.after(&x.after(first));
        let back = |w: &Kernel| first.transposed().adjoint(&last.adjoint(w).transposed()).transposed();
        let mut x = self.clone();
        let mut residual = whole.plus(-1.0, &apply(&x));
        let mut gradient = back(&residual);
        let mut direction = gradient.clone();
        let mut length2 = gradient.norm2();
        for _ in 0..steps {
            let moved = apply(&direction);
            let curvature = moved.dot(&moved);
            if curvature <= 0.0 || length2 <= 0.0 {
                break;
            }
            let step = length2 / curvature;
            x = x.plus(step, &direction);
            residual = residual.plus(-step, &moved);
            gradient = back(&residual);
            let next = gradient.norm2();
            direction = gradient.plus(next / length2, &direction);
            length2 = next;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::super::linalg::noise;
    use super::*;

    pub fn random(outputs: usize, inputs: usize, height: usize, width: usize, seed: u64) -> Kernel {
        let taps = (0..height * width).map(|t| noise(outputs, inputs, seed * 100 + t as u64)).collect();
        Kernel { height, width, taps }
    }

    #[test]
    fn the_adjoint_is_one() {
        let (b, a, w) = (random(3, 4, 2, 3, 1), random(4, 5, 3, 2, 2), random(3, 5, 4, 4, 3));
        assert!((b.after(&a).dot(&w) - a.dot(&b.adjoint(&w))).abs() < 1e-9);
    }

    #[test]
    fn least_squares_recover_a_factor() {
        let (b, a) = (random(6, 3, 3, 2, 1), random(3, 5, 2, 3, 2));
        let whole = b.after(&a);
        assert!(b.best_first(&whole).unwrap().distance2(&a) < 1e-12);
        assert!(a.best_last(&whole).unwrap().distance2(&b) < 1e-12);
    }

    #[test]
    fn conjugate_gradients_recover_a_middle_factor() {
        let (c, b, a) = (random(5, 2, 2, 2, 1), random(2, 2, 2, 2, 2), random(2, 4, 2, 2, 3));
        let whole = c.after(&b.after(&a));
        let found = Kernel::zeros(2, 2, 2, 2).improved_between(&a, &c, &whole, 60);
        assert!(c.after(&found.after(&a)).distance2(&whole) < 1e-10 * whole.norm2());
    }

    #[test]
    fn weights_become_kernels_and_again_weights() {
        let weights = lehr_ir::tensor::seeded(DType::F32, vec![6, 2, 3, 1], 1);
        let groups: Vec<Kernel> = (0..3).map(|g| Kernel::of_group(&weights, g, 3)).collect();
        assert_eq!(groups[0].channels(), (2, 2));
        assert_eq!(Kernel::to_weights(&groups, DType::F32), weights);
    }
}
