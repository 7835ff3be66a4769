//! Normalisations and dense layers.

use lehr_frontends::layers::norm::{BatchNormOptions, RunningVariance, Statistics, batch_norm};
use lehr_frontends::layers::{Layer, dense};
use lehr_ir::ops::{BatchNorm, Lrn};
use lehr_ir::{DType, Dim, Graph, Tensor, TensorType};
use lehr_tests::plain::{FLOATS, Grid, noise};
use lehr_tests::sheet::{Sheet, compiled, epsilon};

const SHAPE: [usize; 4] = [5, 3, 4, 6];

/// Noise around a number per channel: a mean of 1e4 must not drown a deviation of 1.
fn channels(dtype: DType, offsets: [f64; 3]) -> Grid {
    let x = Grid::of(&noise(DType::F64, &SHAPE, 3.0, 1));
    let x = Grid::make(SHAPE, |at| x.at(at) + offsets[at[1]]);
    Grid::of(&x.tensor(dtype))
}

fn vector(dtype: DType, values: [f64; 3]) -> Tensor {
    Tensor::from_f64(dtype, vec![3], values)
}

/// Mean and population variance of a channel.
fn statistics(x: &Grid, c: usize) -> (f64, f64) {
    let values: Vec<f64> = x.values.iter().enumerate().filter(|(i, _)| i / 24 % 3 == c).map(|(_, &v)| v).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn batch_statistics_and_their_update() {
    for dtype in FLOATS {
        for offsets in [[0.0, -2.0, 5.0], [1e4, -1e4, 100.0]] {
            for running in [RunningVariance::Population, RunningVariance::Unbiased] {
                let mut sheet = Sheet::new(&format!("{dtype} {offsets:?} {running:?}"));
                let x = channels(dtype, offsets);
                let (gamma, beta) = ([2.0, -0.5, 1.0], [0.25, 3.0, -1.0]);
                let (old_mean, old_var) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
                let v = sheet.input("x", x.tensor(dtype));
                let scale = sheet.input("scale", vector(dtype, gamma));
                let bias = sheet.input("bias", vector(dtype, beta));
                let mean = sheet.input("mean", vector(dtype, old_mean));
                let var = sheet.input("var", vector(dtype, old_var));
                let options = BatchNormOptions { eps: 0.0625, momentum: 0.75, running };
                let mut l = Layer::new(&mut sheet.g, "bn");
                let y = batch_norm(&mut l, v, (scale, bias), Statistics { mean, var }, options).unwrap();
                let of = [0, 1, 2].map(|c| statistics(&x, c));
                let n = (SHAPE[0] * SHAPE[2] * SHAPE[3]) as f64;
                let new = |c: usize| match running {
                    RunningVariance::Population => of[c].1,
                    RunningVariance::Unbiased => of[c].1 * n / (n - 1.0),
                };
                let normed = Grid::make(SHAPE, |at| {
                    let (mean, var) = of[at[1]];
                    (x.at(at) - mean) / (var + 0.0625).sqrt() * gamma[at[1]] + beta[at[1]]
                });
                // Errors are as large as those of the mean, which are units of the largest element.
                let largest = offsets.iter().fold(8.0f64, |m, o| m.max(o.abs() + 3.0));
                let error = 8.0 * epsilon(dtype) * largest;
                sheet.expect("y", Ok(y.y), normed.values, |_, _| 2.0 * error);
                sheet.expect("mean", Ok(y.batch.mean), of.map(|s| s.0).to_vec(), |_, _| error);
                sheet.expect("var", Ok(y.batch.var), of.map(|s| s.1).to_vec(), |_, _| error);
                let kept = |old: f64, new: f64| 0.75 * old + 0.25 * new;
                let means = (0..3).map(|c| kept(old_mean[c], of[c].0)).collect();
                let vars = (0..3).map(|c| kept(old_var[c], new(c))).collect();
                sheet.expect("running mean", Ok(y.running.mean), means, |_, _| error);
                sheet.expect("running var", Ok(y.running.var), vars, |_, _| error);
                sheet.check();
            }
        }
    }
}

#[test]
fn a_symbolic_batch_counts_when_it_is_bound() {
    let mut g = Graph::new("bn");
    let x = g.add_input("x", TensorType::new(DType::F32, [Dim::symbol("batch"), 3.into(), 4.into(), 6.into()]));
    let [scale, bias, mean, var] =
        ["scale", "bias", "mean", "var"].map(|n| g.add_input(n, TensorType::new(DType::F32, [3])));
    let options = BatchNormOptions { momentum: 0.0, ..BatchNormOptions::default() };
    let mut l = Layer::new(&mut g, "bn");
    let y = batch_norm(&mut l, x, (scale, bias), Statistics { mean, var }, options).unwrap();
    g.add_output("var", y.running.var);
    let g = g.bind(&|_| Some(Dim::Const(5))).unwrap();
    let x = channels(DType::F32, [0.0, 1.0, 2.0]);
    let ones = || vector(DType::F32, [1.0; 3]);
    let got = compiled(&g, &[x.tensor(DType::F32), ones(), ones(), ones(), ones()])[0].to_f64();
    for (c, got) in got.into_iter().enumerate() {
        let want = statistics(&x, c).1 * 120.0 / 119.0;
        assert!((got - want).abs() < 1e-6 * want, "{got} {want}");
    }
}

#[test]
fn given_statistics() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = channels(dtype, [1e4, 0.0, -3.0]);
        let parameters = [[2.0, -0.5, 1.0], [0.25, 3.0, -1.0], [1e4, 0.5, -3.0], [4.0, 0.25, 100.0]];
        let v = sheet.input("x", x.tensor(dtype));
        let ps = [0, 1, 2, 3].map(|i| sheet.input(["scale", "bias", "mean", "var"][i], vector(dtype, parameters[i])));
        let y = Layer::new(&mut sheet.g, "bn").op(BatchNorm { eps: 0.0625 }, &[v, ps[0], ps[1], ps[2], ps[3]]);
        let [gamma, beta, mean, var] = parameters;
        let want = Grid::make(SHAPE, |at| {
            let c = at[1];
            (x.at(at) - mean[c]) / (var[c] + 0.0625).sqrt() * gamma[c] + beta[c]
        });
        sheet.expect("y", y, want.values, |_, want| 8.0 * epsilon(dtype) * (want.abs() + 4.0));
        sheet.check();
    }
}

/// torch divides alpha by the size of the window; the window of an even size has one channel more behind.
#[test]
fn local_response() {
    for dtype in FLOATS {
        for (size, alpha, beta, k, scale) in
            [(5, 1e-4, 0.75, 2.0, 1.0), (3, 0.5, 0.5, 1.0, 1e4), (4, 1.0, 1.0, 1.0, 2.0), (1, 2.0, 0.3, 1.0, 3.0)]
        {
            let mut sheet = Sheet::new(&format!("{dtype} {size} {beta}"));
            let shape = [2, 7, 3, 5];
            let x = Grid::of(&noise(dtype, &shape, scale, 2));
            let v = sheet.input("x", x.tensor(dtype));
            let op = Lrn { size, alpha: alpha as f32, beta: beta as f32, bias: k as f32 };
            let y = Layer::new(&mut sheet.g, "lrn").op(op, &[v]);
            let (alpha, beta) = (f64::from(alpha as f32), f64::from(beta as f32));
            let want = Grid::make(shape, |[n, c, i, j]| {
                let (first, last) = (c.saturating_sub((size - 1) / 2), (c + size / 2).min(6));
                let sum: f64 = (first..=last).map(|c| x.at([n, c, i, j]).powi(2)).sum();
                x.at([n, c, i, j]) / (k + alpha / size as f64 * sum).powf(beta)
            });
            sheet.expect("y", y, want.values, |_, want| 16.0 * epsilon(dtype) * want.abs());
            sheet.check();
        }
    }
}

#[test]
fn dense_layers() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let (x, w, b) = (noise(dtype, &[5, 33], 1.0, 1), noise(dtype, &[17, 33], 1.0, 2), noise(dtype, &[17], 1.0, 3));
        let (xs, ws, bs) = (x.to_f64(), w.to_f64(), b.to_f64());
        let [x, w, b] = [("x", x), ("w", w), ("b", b)].map(|(n, t)| sheet.input(n, t));
        for (name, bias) in [("with bias", Some(b)), ("without", None)] {
            let one = |i: usize| {
                let (row, column) = (i / 17, i % 17);
                let sum: f64 = (0..33).map(|k| xs[row * 33 + k] * ws[column * 33 + k]).sum();
                sum + if bias.is_some() { bs[column] } else { 0.0 }
            };
            let y = dense(&mut Layer::new(&mut sheet.g, name), x, w, bias);
            sheet.expect(name, y, (0..85).map(one).collect(), |_, _| 33.0 * epsilon(dtype));
        }
        sheet.check();
    }
}
