//! Least squares and low-rank approximation of dense matrices, in f64. Products, eigenvectors and small factorisations are
//! nalgebra's; blocked here is what it does column by column.
//!
//! Everything is deterministic: what starts at random starts from a seed.

use lehr_ir::DType;
use lehr_ir::tensor::seeded;
use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

pub(super) type Matrix = DMatrix<f64>;

/// Columns that the blocked routines take at once.
const BLOCK: usize = 64;
/// Up to this side, all singular values are computed; above, the largest ones.
const MAX_FULL: usize = 400;
/// Directions beyond those asked for, and passes over the matrix, of the iteration for the largest singular values.
const OVERSAMPLE: usize = 16;
const POWER_STEPS: usize = 2;

/// X with `n X == rhs`, n symmetric and positive semidefinite. Where n is singular, the solution is near a small one.
/// `None`: n or rhs is not finite.
pub(super) fn solve_symmetric(n: &Matrix, rhs: &Matrix) -> Option<Matrix> {
    let scale = n.trace() / n.nrows().max(1) as f64;
    if !scale.is_finite() {
        return None;
    }
    if scale == 0.0 {
        return Some(Matrix::zeros(n.nrows(), rhs.ncols()));
    }
    for ridge in [1e-13, 1e-11, 1e-9, 1e-6] {
        let mut lower = n.clone();
        (0..n.nrows()).for_each(|i| lower[(i, i)] += ridge * scale);
        if let Some(inverses) = factor(&mut lower) {
            let mut x = rhs.clone();
            substitute(&lower, &inverses, &mut x);
            return x.iter().all(|v| v.is_finite()).then_some(x);
        }
    }
    None
}

/// Below its diagonal blocks, a becomes L with `a == L L^T`; gives the inverses of L's diagonal blocks, so that all that is left
/// to do is products. `None` if a is not positive definite.
fn factor(a: &mut Matrix) -> Option<Vec<Matrix>> {
    let n = a.nrows();
    let mut inverses = vec![];
    for at in (0..n).step_by(BLOCK) {
        let len = BLOCK.min(n - at);
        let (below, rest) = (at + len, n - at - len);
        let diagonal = Cholesky::new(a.view((at, at), (len, len)).into_owned())?.unpack();
        let inverse = diagonal.solve_lower_triangular(&Matrix::identity(len, len))?;
        let left = a.view((below, at), (rest, len)) * inverse.transpose();
        let panel = left.transpose();
        inverses.push(inverse);
        a.view_mut((below, at), (rest, len)).copy_from(&left);
        for column in (0..rest).step_by(BLOCK) {
            let width = BLOCK.min(rest - column);
            let (rows, right) = (left.rows(column, rest - column), panel.columns(column, width));
            a.view_mut((below + column, below + column), (rest - column, width)).gemm(-1.0, &rows, &right, 1.0);
        }
    }
    Some(inverses)
}

/// Solves `L L^T x == x` in place.
fn substitute(lower: &Matrix, inverses: &[Matrix], x: &mut Matrix) {
    let (n, columns) = (lower.nrows(), x.ncols());
    for (k, inverse) in inverses.iter().enumerate() {
        let (at, len) = (k * BLOCK, inverse.nrows());
        let below = at + len;
        let part = inverse * x.rows(at, len);
        x.rows_mut(at, len).copy_from(&part);
        let panel = lower.view((below, at), (n - below, len));
        x.view_mut((below, 0), (n - below, columns)).gemm(-1.0, &panel, &part, 1.0);
    }
    for (k, inverse) in inverses.iter().enumerate().rev() {
        let (at, len) = (k * BLOCK, inverse.nrows());
        let below = at + len;
        let mut part = x.rows(at, len).into_owned();
        let panel = lower.view((below, at), (n - below, len)).transpose();
        part.gemm(-1.0, &panel, &x.rows(below, n - below), 1.0);
        x.rows_mut(at, len).copy_from(&(inverse.transpose() * part));
    }
}

/// `a` as `left * right`: left has orthonormal columns, right orthogonal rows that get shorter; cut after r columns and rows, the
/// product is the best approximation of rank r.
pub(super) struct LowRank {
    pub left: Matrix,
    pub right: Matrix,
    /// Squared norm of what the ranks that were computed leave.
    rest: f64,
    norm2: f64,
}

impl LowRank {
    /// The best approximations of `a` up to `most` (all of them, if that costs no more). `None`: a is not finite.
    pub fn new(a: &Matrix, most: usize) -> Option<LowRank> {
        if !a.iter().all(|v| v.is_finite()) {
            return None;
        }
        let side = a.nrows().min(a.ncols());
        let norm2 = a.norm_squared();
        // A basis of (nearly) the space of the largest singular vectors, within which all is exact.
        let basis = if side <= MAX_FULL || most + OVERSAMPLE >= side { None } else { Some(dominant(a, most)) };
        let within = basis.as_ref().map_or_else(|| a.clone(), |q| q.transpose() * a);
        let (mut left, mut right) = if within.nrows() <= within.ncols() {
            let u = eigenvectors(&within * within.transpose());
            let right = u.transpose() * &within;
            (u, right)
        } else {
            let v = eigenvectors(within.transpose() * &within);
            let mut left = &within * &v;
            let mut right = v.transpose();
            for k in 0..left.ncols() {
                let length = left.column(k).norm();
                if length > 0.0 {
                    left.column_mut(k).scale_mut(1.0 / length);
                }
                right.row_mut(k).scale_mut(length);
            }
            (left, right)
        };
        if let Some(q) = &basis {
            let kept = most.min(left.ncols());
            left = q * left.columns(0, kept);
            right = right.rows(0, kept).into_owned();
        }
        let rest = if basis.is_some() { (norm2 - right.norm_squared()).max(0.0) } else { 0.0 };
        Some(LowRank { left, right, rest, norm2 })
    }

    /// How many ranks were computed.
    pub fn ranks(&self) -> usize {
        self.left.ncols()
    }

    /// Squared norm of what the approximation of rank r leaves, for r = 0, 1, ..., and of all.
    pub fn residuals(&self) -> Vec<f64> {
        let mut left = self.rest;
        let mut residuals = vec![left];
        for k in (0..self.ranks()).rev() {
            left += self.right.row(k).norm_squared();
            residuals.push(left);
        }
        residuals.reverse();
        residuals
    }

    pub fn norm2(&self) -> f64 {
        self.norm2
    }
}

/// Eigenvectors of a symmetric matrix as columns, by descending eigenvalue.
fn eigenvectors(a: Matrix) -> Matrix {
    let eigen = SymmetricEigen::new(a);
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
    Matrix::from_fn(eigen.eigenvectors.nrows(), order.len(), |i, j| eigen.eigenvectors[(i, order[j])])
}

/// Orthonormal columns that span nearly what the `most` largest singular vectors span.
/// Source: Halko, Martinsson, Tropp, "Finding structure with randomness", algorithm 4.4.
fn dominant(a: &Matrix, most: usize) -> Matrix {
    let start = noise(a.ncols(), most + OVERSAMPLE, 1);
    let mut q = (a * start).qr().q();
    for _ in 0..POWER_STEPS {
        let back = (a.transpose() * q).qr().q();
        q = (a * back).qr().q();
    }
    q
}

/// Numbers uniform in [-1, 1).
pub(super) fn noise(rows: usize, columns: usize, seed: u64) -> Matrix {
    Matrix::from_vec(rows, columns, seeded(DType::F64, vec![rows * columns], seed).to_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_larger_than_a_block_are_solved() {
        for n in [1, 5, 64, 150] {
            let root = noise(n, n + 3, 7);
            let matrix = &root * root.transpose();
            let x = noise(n, 4, 8);
            let solved = solve_symmetric(&matrix, &(&matrix * &x)).unwrap();
            assert!((solved - x).norm() < 1e-6, "{n}");
        }
    }

    #[test]
    fn singular_systems_get_a_solution_and_nan_none() {
        let thin = noise(20, 3, 1);
        let matrix = &thin * thin.transpose();
        let rhs = &matrix * noise(20, 2, 2);
        let x = solve_symmetric(&matrix, &rhs).unwrap();
        assert!((&matrix * x - &rhs).norm() < 1e-5 * rhs.norm());
        assert_eq!(solve_symmetric(&Matrix::zeros(2, 2), &Matrix::zeros(2, 1)).unwrap(), Matrix::zeros(2, 1));
        assert!(solve_symmetric(&Matrix::from_element(2, 2, f64::NAN), &Matrix::zeros(2, 1)).is_none());
    }

    #[test]
    fn low_rank_matrices_are_found_whatever_their_shape() {
        for (rows, columns) in [(7, 30), (30, 7), (450, 500), (500, 450)] {
            let a = noise(rows, 4, 1) * noise(4, columns, 2);
            let low = LowRank::new(&a, 10).unwrap();
            let relative: Vec<f64> = low.residuals().iter().map(|r| (r / low.norm2()).sqrt()).collect();
            assert!((relative[0] - 1.0).abs() < 1e-9 && relative[3] > 1e-3 && relative[4] < 1e-6, "{relative:?}");
            let product = low.left.columns(0, 4) * low.right.rows(0, 4);
            assert!((product - &a).norm() < 1e-9 * a.norm(), "{rows} {columns}");
        }
        assert!(LowRank::new(&Matrix::from_element(2, 2, f64::INFINITY), 1).is_none());
    }

    #[test]
    fn the_iteration_finds_nearly_the_best_ranks() {
        // Singular values 1/(k+1), so that a tail is always there.
        let (u, v) = (noise(500, 450, 3).qr().q(), noise(600, 450, 4).qr().q());
        let scaled = Matrix::from_fn(500, 450, |i, k| u[(i, k)] / (k + 1) as f64);
        let low = LowRank::new(&(scaled * v.transpose()), 40).unwrap();
        assert_eq!(low.ranks(), 40);
        let best: f64 = (40..450).map(|k| 1.0 / ((k + 1) as f64).powi(2)).sum();
        let got = low.residuals()[40];
        assert!(got >= best * 0.999_999 && got < best * 1.01, "{got} {best}");
    }
}
