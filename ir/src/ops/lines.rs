//! What operators along one axis share: the tensor's lines, the order of floats.

use std::cmp::Ordering;

/// A tensor seen as lines along one axis. Line numbers are row-major over the other axes.
pub(super) struct Lines {
    /// Elements per line.
    pub n: usize,
    pub count: usize,
    /// Between neighbours of a line.
    inner: usize,
}

impl Lines {
    pub fn new(shape: &[usize], axis: usize) -> Lines {
        let inner: usize = shape[axis + 1..].iter().product();
        Lines { n: shape[axis], count: shape[..axis].iter().product::<usize>() * inner, inner }
    }

    /// Flat position of element `k` of a line.
    pub fn at(&self, line: usize, k: usize) -> usize {
        (line / self.inner * self.n + k) * self.inner + line % self.inner
    }
}

/// The order of floats in which NaN is the largest and zeros are equal, as numpy sorts.
pub(super) fn total_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diag::Diag;
    use crate::op::{In, OpDef};
    use crate::tensor::Tensor;

    /// Infers, evaluates, and checks that the results are of the inferred types.
    pub fn run(op: impl OpDef, xs: &[&Tensor]) -> Result<Vec<Tensor>, Diag> {
        let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
        let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
        let ys = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out).unwrap();
        assert!(ys.len() == out.len() && ys.iter().zip(&out).all(|(y, t)| y.ty() == *t));
        Ok(ys)
    }

    #[test]
    fn lines_step_over_the_inner_axes() {
        let lines = Lines::new(&[2, 3, 2], 1);
        assert_eq!((lines.n, lines.count), (3, 4));
        assert_eq!([lines.at(0, 2), lines.at(1, 0), lines.at(3, 1)], [4, 1, 9]);
    }
}
