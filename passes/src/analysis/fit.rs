//! The stack of small kernels nearest to a large one, by alternating least squares:
//!
//! ```text
//! repeat  for each factor: the best one, all others as they are     (a linear least-squares problem)
//!         try the same step once more, twice as far, ...            (kept if it brings the stack nearer)
//! ```
//!
//! The error never grows. Where it ends depends on the start, which is the same every time: first the directions that the
//! windows of the kernel span best, then seeds. Work is counted in multiply-adds, so that results do not depend on the clock.

use super::kernels::Kernel;
use super::linalg::{LowRank, Matrix, noise};

/// Stop below this relative error,
const DONE: f64 = 1e-9;
/// or when so many sweeps bring less than this share of the error,
const PATIENCE: usize = 20;
const PROGRESS: f64 = 1e-3;
/// or after so many sweeps.
const MAX_SWEEPS: usize = 3000;
/// Sweeps that are done whatever the budget.
const MIN_SWEEPS: usize = 3;
/// Conjugate gradient steps for a factor in the middle of a stack.
const MIDDLE_STEPS: usize = 12;
/// Starts after the first one where the error is above the goal, while they cost no more than this: where there are few
/// weights, the first one may end in a local minimum.
const RESTARTS: u64 = 7;
const RESTART_WORK: f64 = 2e8;

/// A stack and how near it is.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// First to last.
    pub factors: Vec<Kernel>,
    /// Norm of the difference over norm of the kernel.
    pub error: f64,
    /// Whether the budget ended the search.
    pub cut_short: bool,
}

/// Approximates `whole` by kernels of the sizes `parts` with `width` channels between them, the relative error of which is good
/// enough at `goal`. `None`: numbers are not finite.
pub(super) fn fit(whole: &Kernel, parts: &[[usize; 2]], width: usize, goal: f64, budget: &mut f64) -> Option<Fit> {
    let mut best: Option<Fit> = None;
    let enough = *budget - RESTART_WORK;
    for seed in 0..=RESTARTS {
        let start = start(whole, parts, width, seed)?;
        let found = descend(whole, start, budget)?;
        if best.as_ref().is_none_or(|b| found.error < b.error) {
            best = Some(found);
        }
        let best = best.as_ref()?;
        if best.error <= goal.max(DONE) || *budget <= enough.max(0.0) {
            break;
        }
    }
    best
}

/// Sizes of small kernels that together reach as far as one of `size`: threes, and a two for an even size.
pub fn parts_of(size: usize) -> Vec<usize> {
    let mut parts = vec![3; size.saturating_sub(1) / 2];
    if size.is_multiple_of(2) {
        parts.push(2);
    }
    parts
}

/// All factors but the last span what they can of the windows of what is left; with a seed, they are noise.
fn start(whole: &Kernel, parts: &[[usize; 2]], width: usize, seed: u64) -> Option<Vec<Kernel>> {
    let mut left = whole.clone();
    let mut factors = vec![];
    for (k, &[height, wide]) in parts[..parts.len() - 1].iter().enumerate() {
        let inputs = left.channels().1;
        let length = inputs * height * wide;
        let random = noise(width, length, 1000 * (seed + 1) + k as u64) / (length as f64).sqrt();
        let rows = if seed > 0 { random } else { spanning(&left, height, wide, width, random)? };
        let taps = (0..height * wide).map(|t| rows.columns(t * inputs, inputs).into_owned()).collect();
        let first = Kernel { height, width: wide, taps };
        left = first.best_last(&left)?;
        factors.push(first);
    }
    factors.push(left);
    Some(factors)
}

/// The `count` directions that the windows of `whole` span best, as rows; `more` where there are not so many.
fn spanning(whole: &Kernel, height: usize, wide: usize, count: usize, mut more: Matrix) -> Option<Matrix> {
    let (outputs, inputs) = whole.channels();
    let (rows, columns) = (whole.height + 1 - height, whole.width + 1 - wide);
    let mut windows = Matrix::zeros(rows * columns * outputs, height * wide * inputs);
    for place in 0..rows * columns {
        for tap in 0..height * wide {
            let (y, x) = (place / columns + tap / wide, place % columns + tap % wide);
            let part = &whole.taps[y * whole.width + x];
            windows.view_mut((place * outputs, tap * inputs), (outputs, inputs)).copy_from(part);
        }
    }
    let low = LowRank::new(&windows, count)?;
    for k in 0..count.min(low.ranks()) {
        let row = low.right.row(k);
        let length = row.norm();
        if length > 1e-12 * low.norm2().sqrt() {
            more.row_mut(k).copy_from(&(row / length));
        }
    }
    Some(more)
}

fn descend(whole: &Kernel, start: Vec<Kernel>, budget: &mut f64) -> Option<Fit> {
    let norm = whole.norm2().sqrt();
    let cost = sweep_cost(whole, &start);
    let mut factors = start;
    let mut error = distance(whole, &factors, norm);
    let mut earlier = vec![];
    let mut reach = 1.0;
    let mut cut_short = false;
    for sweep in 0..MAX_SWEEPS {
        if *budget <= 0.0 && sweep >= MIN_SWEEPS {
            cut_short = true;
            break;
        }
        *budget -= 2.0 * cost;
        let before = factors.clone();
        for k in 0..factors.len() {
            improve(whole, &mut factors, k)?;
        }
        error = distance(whole, &factors, norm);
        // The same way once more, as far as it helps.
        let mut further = factors.clone();
        let last = factors.len() - 1;
        for (f, b) in further[..last].iter_mut().zip(&before) {
            *f = f.plus(reach, &f.plus(-1.0, b));
        }
        improve(whole, &mut further, last)?;
        let further_error = distance(whole, &further, norm);
        if further_error < error {
            (factors, error) = (further, further_error);
            reach = f64::min(reach * 1.5, 1e3);
        } else {
            reach = f64::max(reach / 2.0, 0.5);
        }
        balance(&mut factors);
        if error < DONE {
            break;
        }
        earlier.push(error);
        let long_ago = earlier.len().checked_sub(PATIENCE + 1).map(|at| earlier[at]);
        if long_ago.is_some_and(|e| e - error < PROGRESS * error) {
            break;
        }
    }
    Some(Fit { factors, error, cut_short })
}

/// Replaces factor `k` by the best one.
fn improve(whole: &Kernel, factors: &mut [Kernel], k: usize) -> Option<()> {
    let composed = |part: &[Kernel]| part.iter().cloned().reduce(|first, next| next.after(&first));
    factors[k] = match (composed(&factors[..k]), composed(&factors[k + 1..])) {
        (None, None) => whole.clone(),
        (None, Some(later)) => later.best_first(whole)?,
        (Some(earlier), None) => earlier.best_last(whole)?,
        (Some(earlier), Some(later)) => factors[k].improved_between(&earlier, &later, whole, MIDDLE_STEPS),
    };
    Some(())
}

fn distance(whole: &Kernel, factors: &[Kernel], norm: f64) -> f64 {
    let composed = factors.iter().cloned().reduce(|first, next| next.after(&first));
    let left = composed.map_or(norm, |c| whole.distance2(&c).sqrt());
    if norm == 0.0 { left } else { left / norm }
}

/// Gives every channel between two factors length 1 in the first of them: their product stays, and the next step is well
/// conditioned.
fn balance(factors: &mut [Kernel]) {
    for k in 1..factors.len() {
        let channels = factors[k].channels().1;
        for c in 0..channels {
            let length = factors[k - 1].taps.iter().map(|t| t.row(c).norm_squared()).sum::<f64>().sqrt();
            if length > 0.0 {
                factors[k - 1].taps.iter_mut().for_each(|t| t.row_mut(c).scale_mut(1.0 / length));
                factors[k].taps.iter_mut().for_each(|t| t.column_mut(c).scale_mut(length));
            }
        }
    }
}

/// Multiply-adds of one sweep, roughly.
fn sweep_cost(whole: &Kernel, factors: &[Kernel]) -> f64 {
    let (outputs, inputs) = whole.channels();
    let compose = |k: &Kernel, o: usize, i: usize| {
        let (a, b) = k.channels();
        (k.taps.len() * whole.taps.len() * o.max(a) * i.max(b)) as f64 * a.min(b) as f64 / a.max(b).max(1) as f64
    };
    let solve = |k: &Kernel, others: usize| {
        let unknowns = (k.taps.len() * k.channels().0.min(k.channels().1)) as f64;
        unknowns.powi(3) / 6.0 + unknowns * unknowns * others as f64
    };
    let ends = factors.first().map_or(0.0, |f| solve(f, inputs)) + factors.last().map_or(0.0, |f| solve(f, outputs));
    let middles = factors.len().saturating_sub(2) as f64 * 2.0 * MIDDLE_STEPS as f64;
    let products: f64 = factors.iter().map(|f| compose(f, outputs, inputs)).sum();
    ends + products * (2.0 + middles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(outputs: usize, inputs: usize, size: usize, seed: u64) -> Kernel {
        let taps = (0..size * size).map(|t| noise(outputs, inputs, seed * 100 + t as u64)).collect();
        Kernel { height: size, width: size, taps }
    }

    fn error(whole: &Kernel, parts: &[[usize; 2]], width: usize, budget: f64) -> f64 {
        let fit = fit(whole, parts, width, 1e-7, &mut budget.clone()).unwrap();
        let sizes: Vec<[usize; 2]> = fit.factors.iter().map(|f| [f.height, f.width]).collect();
        assert_eq!(sizes, parts);
        assert!(fit.factors[..parts.len() - 1].iter().all(|f| f.channels().0 == width));
        assert!((distance(whole, &fit.factors, whole.norm2().sqrt()) - fit.error).abs() < 1e-9);
        fit.error
    }

    #[test]
    fn sizes_add_up() {
        for size in 2..12 {
            assert_eq!(parts_of(size).iter().map(|p| p - 1).sum::<usize>(), size - 1);
        }
        assert_eq!(parts_of(5), [3, 3]);
        assert_eq!(parts_of(7), [3, 3, 3]);
        assert_eq!(parts_of(4), [3, 2]);
    }

    #[test]
    fn stacks_that_exist_are_found() {
        for (outputs, middle, inputs) in [(6, 3, 5), (8, 8, 8), (1, 1, 1), (10, 4, 3)] {
            let whole = random(outputs, middle, 3, 1).after(&random(middle, inputs, 3, 2));
            let error = error(&whole, &[[3, 3], [3, 3]], middle, 1e9);
            assert!(error < 1e-6, "{outputs} {middle} {inputs}: {error}");
        }
    }

    #[test]
    fn so_are_stacks_of_three() {
        let whole = random(6, 2, 3, 1).after(&random(2, 2, 3, 2).after(&random(2, 4, 3, 3)));
        let error = error(&whole, &[[3, 3]; 3], 2, 1e9);
        assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn noise_has_no_narrow_stack_but_a_wide_one() {
        let whole = random(4, 4, 5, 9);
        let narrow = error(&whole, &[[3, 3], [3, 3]], 2, 1e9);
        // Four windows of 3x3 per input channel cover the 25 taps: an exact stack of this width exists.
        let wide = error(&whole, &[[3, 3], [3, 3]], 16, 1e9);
        assert!(narrow > 0.3 && wide < 1e-6, "{narrow} {wide}");
    }

    #[test]
    fn zeros_and_small_budgets_are_no_problem() {
        assert_eq!(error(&Kernel::zeros(2, 2, 5, 5), &[[3, 3], [3, 3]], 1, 1e9), 0.0);
        let fit = fit(&random(4, 4, 5, 9), &[[3, 3], [3, 3]], 2, 0.0, &mut 0.0).unwrap();
        assert!(fit.cut_short && fit.error < 1.0);
        assert!(
            super::fit(&random(1, 1, 5, 9).plus(f64::NAN, &Kernel::zeros(1, 1, 5, 5)), &[[3, 3]; 2], 1, 0.0, &mut 0.0)
                .is_none()
        );
    }
}
