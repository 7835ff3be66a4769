//! The universal approximator: one hidden layer of sigmoid units, `y = sum_i a_i * sigmoid(w_i . x + b_i) + c`. Cybenko,
//! "Approximation by Superpositions of a Sigmoidal Function" (1989), shows that such sums come as near to any continuous
//! function on a compact set as one likes.
//!
//! [`fit`] makes it visible in one dimension: the hidden units are soft steps spread over an interval, the output layer is
//! their least-squares fit to a function, and the error falls as units are added.

use super::{Args, Init, Net, Network, Setting, Weights};
use lehr_ir::ops::UnaryFn;
use lehr_ir::{DType, Diag, Tensor};

pub static MLP: Network = Network {
    name: "mlp",
    summary: "universal approximator: one hidden layer of sigmoid units, random or fitted to a function on [-1, 1]",
    source: "Cybenko, Approximation by Superpositions of a Sigmoidal Function (1989)",
    settings: &[
        Setting::size("inputs", 1, 1, 1 << 16, "input values"),
        Setting::size("units", 64, 1, 1 << 16, "hidden units (at most 1024 with fit)"),
        Setting::size("outputs", 1, 1, 1 << 16, "output values"),
        Setting::word("fit", &["none", "sine", "gaussian", "abs"], "sine: sin(pi*x); gaussian: exp(-8*x^2); abs: |x|"),
    ],
    build,
};

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let function: fn(f64) -> f64 = match args.word("fit") {
        "sine" => |x| (std::f64::consts::PI * x).sin(),
        "gaussian" => |x| (-8.0 * x * x).exp(),
        "abs" => f64::abs,
        _ => {
            net.set_init(Init::Glorot);
            let x = net.input("x", &[args.size("inputs")]);
            let x = net.linear("hidden", x, args.size("units"))?;
            let x = net.activation("hidden/sigmoid", x, UnaryFn::Sigmoid)?;
            let y = net.linear("output", x, args.size("outputs"))?;
            net.output("y", y);
            return Ok(());
        }
    };
    if args.size("inputs") != 1 || args.size("outputs") != 1 {
        return Err(Diag::new("load.zoo", "a fitted mlp is a function of one number: leave inputs and outputs at 1"));
    }
    fit(function, (-1.0, 1.0), args.size("units"))?.build(net)
}

/// `height * sigmoid(slope * x + offset)`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    pub slope: f64,
    pub offset: f64,
    pub height: f64,
}

/// A function of one number as a sum of sigmoids.
#[derive(Clone, Debug, PartialEq)]
pub struct Approximation {
    pub units: Vec<Unit>,
    /// What is added to their sum.
    pub level: f64,
}

/// Units that a fit may have; its cost grows with their cube.
const MAX_UNITS: usize = 1024;
/// Samples of the function for each unit.
const SAMPLES: usize = 4;
/// Weight of the penalty on heights, by the samples' root mean square: keeps heights within f32's reach.
const RIDGE: f64 = 1e-6;

/// Fits `units` sigmoids to `f` on an interval: their centres are spread evenly, their steps are as wide as two spacings, and their
/// heights minimise the squared error on a grid. The fit is deterministic.
pub fn fit(f: impl Fn(f64) -> f64, (low, high): (f64, f64), units: usize) -> Result<Approximation, Diag> {
    if !(1..=MAX_UNITS).contains(&units) {
        return Err(Diag::new("zoo.fit", format!("{units} units: a fit has 1 to {MAX_UNITS}")));
    }
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Err(Diag::new("zoo.fit", format!("[{low}, {high}] is no interval")));
    }
    let spacing = (high - low) / units as f64;
    let slope = 2.0 / spacing;
    let centre = |i: usize| low + spacing * (i as f64 + 0.5);
    let samples = (SAMPLES * units).max(64);
    let x: Vec<f64> = (0..samples).map(|k| low + (high - low) * k as f64 / (samples - 1) as f64).collect();
    let mut target: Vec<f64> = x.iter().map(|&x| f(x)).collect();
    if let Some(k) = target.iter().position(|y| !y.is_finite()) {
        return Err(Diag::new("zoo.fit", format!("the function is {} at {}", target[k], x[k])));
    }
    // A column for each unit and one for the level, prolonged by the penalty's rows.
    let penalty = RIDGE * (samples as f64).sqrt();
    let mut columns: Vec<Vec<f64>> = (0..=units)
        .map(|i| {
            let value = |&x: &f64| if i < units { sigmoid(slope * (x - centre(i))) } else { 1.0 };
            let mut column: Vec<f64> = x.iter().map(value).collect();
            column.extend((0..=units).map(|k| if k == i { penalty } else { 0.0 }));
            column
        })
        .collect();
    target.resize(samples + units + 1, 0.0);
    let mut heights = least_squares(&mut columns, &mut target);
    let level = heights.pop().expect("a column for the level");
    let unit = |(i, &height): (usize, &f64)| Unit { slope, offset: -slope * centre(i), height };
    Ok(Approximation { units: heights.iter().enumerate().map(unit).collect(), level })
}

impl Approximation {
    /// The sum at `x`, in f64.
    pub fn at(&self, x: f64) -> f64 {
        self.units.iter().map(|u| u.height * sigmoid(u.slope * x + u.offset)).sum::<f64>() + self.level
    }

    /// The network f32[batch, 1] -> f32[batch, 1], with input `x` and output `y`.
    pub fn net(&self) -> Result<Net, Diag> {
        let mut net = Net::new("mlp", Weights::Seeded(0));
        self.build(&mut net)?;
        Ok(net)
    }

    fn build(&self, net: &mut Net) -> Result<(), Diag> {
        let n = self.units.len();
        let of = |f: fn(&Unit) -> f64, shape: &[usize]| {
            Tensor::from_f64(DType::F32, shape.to_vec(), self.units.iter().map(f))
        };
        let x = net.input("x", &[1]);
        let (slopes, offsets) = (of(|u| u.slope, &[n, 1]), of(|u| u.offset, &[n]));
        let x = net.linear_of("hidden", x, slopes, offsets)?;
        let x = net.activation("hidden/sigmoid", x, UnaryFn::Sigmoid)?;
        let level = Tensor::from_f64(DType::F32, vec![1], [self.level]);
        let y = net.linear_of("output", x, of(|u| u.height, &[1, n]), level)?;
        net.output("y", y);
        Ok(())
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The x that minimises `|A x - b|`, by Householder reflections; `columns` are those of A, at least as long as many.
fn least_squares(columns: &mut [Vec<f64>], b: &mut [f64]) -> Vec<f64> {
    let n = columns.len();
    let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
    for k in 0..n {
        let (head, tail) = columns.split_at_mut(k + 1);
        let v = &mut head[k][k..];
        let norm = dot(v, v).sqrt();
        let pivot = if v[0] > 0.0 { -norm } else { norm };
        // v becomes the reflection's normal; the diagonal of R goes where the next column's reflections do not reach.
        v[0] -= pivot;
        let length = dot(v, v);
        if length > 0.0 {
            for u in tail.iter_mut().map(|c| &mut c[k..]).chain([&mut b[k..]]) {
                let factor = 2.0 * dot(v, u) / length;
                u.iter_mut().zip(&*v).for_each(|(u, v)| *u -= factor * v);
            }
        }
        v[0] = pivot;
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| columns[j][k] * x[j]).sum();
        x[k] = (b[k] - known) / columns[k][k];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_solves_the_normal_equations() {
        // y = 2 + 3 t, and one sample off by d: the residual is orthogonal to both columns.
        let t = [0.0, 1.0, 2.0, 3.0, 4.0];
        let mut columns = vec![vec![1.0; 5], t.to_vec()];
        let y: Vec<f64> = t.iter().map(|t| 2.0 + 3.0 * t + if *t == 2.0 { 0.5 } else { 0.0 }).collect();
        let x = least_squares(&mut columns, &mut y.clone());
        let residual: Vec<f64> = t.iter().zip(&y).map(|(t, y)| y - x[0] - x[1] * t).collect();
        assert!(residual.iter().sum::<f64>().abs() < 1e-12);
        assert!(residual.iter().zip(t).map(|(r, t)| r * t).sum::<f64>().abs() < 1e-12);
        assert!((x[1] - 3.0).abs() < 1e-12 && (x[0] - 2.1).abs() < 1e-12, "{x:?}");
    }

    #[test]
    fn the_error_falls_as_units_are_added() {
        let functions: [fn(f64) -> f64; 3] = [|x| (3.0 * x).sin() * x, f64::abs, |x| (-20.0 * x * x).exp()];
        for (k, f) in functions.into_iter().enumerate() {
            let error = |n| {
                let fitted = fit(f, (-1.0, 1.0), n).unwrap();
                (0..=1000).map(|i| -1.0 + f64::from(i) / 500.0).map(|x| (fitted.at(x) - f(x)).abs()).fold(0.0, f64::max)
            };
            let errors: Vec<f64> = [4, 8, 16, 32, 64, 128].into_iter().map(error).collect();
            assert!(errors.windows(2).all(|e| e[1] < e[0]), "function {k}: {errors:?}");
            assert!(errors[5] < errors[0] / 20.0, "function {k}: {errors:?}");
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        assert!(fit(|x| x, (0.0, 1.0), 0).is_err());
        assert!(fit(|x| x, (1.0, 0.0), 4).is_err());
        assert!(fit(|x| 1.0 / x, (0.0, 1.0), 4).unwrap_err().to_string().contains("inf at 0"));
    }
}
