//! Losses of predictions and targets, and of scores and labels, with every reduction.

use lehr_frontends::layers::Layer;
use lehr_frontends::layers::loss::{self, BinaryWeights, Classes, Reduction, Targets};
use lehr_ir::{DType, Diag, Tensor, ValueId};
use lehr_tests::plain::{FLOATS, noise, numbers};
use lehr_tests::sheet::{Sheet, epsilon};

const REDUCTIONS: [(&str, Reduction); 3] =
    [("none", Reduction::None), ("sum", Reduction::Sum), ("mean", Reduction::Mean)];

/// Expects a loss with all reductions. `errors` are what single losses may be away; their sum may be so, and a little more.
pub fn expect_reduced(
    sheet: &mut Sheet,
    name: &str,
    dtype: DType,
    losses: &[f64],
    errors: &[f64],
    make: &dyn Fn(&mut Layer, Reduction) -> Result<ValueId, Diag>,
) {
    let n = losses.len() as f64;
    let sum: f64 = losses.iter().sum();
    // Rounding of a sum in parts: a few units of the sum of magnitudes.
    let rounding = 8.0 * epsilon(dtype) * losses.iter().map(|l| l.abs()).sum::<f64>();
    let error = errors.iter().sum::<f64>() + rounding;
    for (word, reduction) in REDUCTIONS {
        let value = make(&mut Layer::new(&mut sheet.g, name), reduction);
        let name = format!("{name}, {word}");
        match reduction {
            Reduction::None => sheet.expect(&name, value, losses.to_vec(), |i, _| errors[i]),
            Reduction::Sum => sheet.expect(&name, value, vec![sum], |_, _| error),
            Reduction::Mean => sheet.expect(&name, value, vec![sum / n], |_, _| error / n),
        }
    }
}

/// x as [`numbers`] has it, and targets as far from it as they can be.
fn pair(dtype: DType) -> (Tensor, Tensor) {
    let x = numbers(dtype).reshaped(vec![16, 16]).unwrap();
    let far = noise(dtype, &[16, 16], 1e4, 5).to_f64();
    let y = x.to_f64().into_iter().zip(far).enumerate().map(|(i, (x, far))| match i % 4 {
        0 => far,
        1 => -x,
        2 => x + far / 1e4,
        _ => x,
    });
    let y = Tensor::from_f64(dtype, vec![16, 16], y);
    (x, y)
}

#[test]
fn distances() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let (x, y) = pair(dtype);
        let d: Vec<f64> = x.to_f64().iter().zip(y.to_f64()).map(|(x, y)| (x - y).abs()).collect();
        let (x, y) = (sheet.input("x", x), sheet.input("y", y));
        let mut expect = |name: &str, of: &dyn Fn(f64) -> f64, make: &dyn Fn(&mut Layer, Reduction) -> _| {
            let losses: Vec<f64> = d.iter().map(|&d| of(d)).collect();
            let errors: Vec<f64> = losses.iter().map(|l| 4.0 * epsilon(dtype) * l).collect();
            expect_reduced(&mut sheet, name, dtype, &losses, &errors, make);
        };
        expect("l2", &|d| d * d, &|l, r| loss::l2(l, x, y, r));
        expect("l1", &|d| d, &|l, r| loss::l1(l, x, y, r));
        for beta in [0.0, 0.125, 1.0, 64.0] {
            let of = |d: f64| if d < beta { d * d / (2.0 * beta) } else { d - beta / 2.0 };
            expect(&format!("smooth l1 {beta}"), &of, &|l, r| loss::smooth_l1(l, x, y, beta, r));
        }
        sheet.check();
    }
}

/// Scores [n, c, d], labels [n, d]; torch's definition, loop by loop. Gives losses, and the divisor of the mean.
fn by_labels(log_p: &[f64], shape: [usize; 3], labels: &[i64], w: Option<&[f64]>, ignore: i64) -> (Vec<f64>, f64) {
    let [n, c, d] = shape;
    let (mut losses, mut total) = (vec![], 0.0);
    for i in 0..n {
        for k in 0..d {
            let label = labels[i * d + k];
            if label == ignore {
                losses.push(0.0);
                continue;
            }
            let weight = w.map_or(1.0, |w| w[label as usize]);
            total += weight;
            losses.push(-weight * log_p[(i * c + label as usize) * d + k]);
        }
    }
    (losses, total)
}

#[test]
fn labels_with_weights_and_some_ignored() {
    let shape = [6, 5, 4];
    let [n, c, d] = shape;
    for (dtype, scale) in [(DType::F32, 1.0), (DType::F32, 1e4), (DType::F64, 1e4)] {
        let x = noise(dtype, &shape, scale, 6);
        let xs = x.to_f64();
        let labels: Vec<i64> = (0..n * d).map(|i| if i % 5 == 3 { -100 } else { (i * 7 % c) as i64 }).collect();
        let weights = [0.5, 2.0, 0.0, 1.25, 3.0];
        let log_p: Vec<f64> = (0..xs.len())
            .map(|i| {
                let line: Vec<f64> = (0..c).map(|k| xs[i / (c * d) * c * d + k * d + i % d]).collect();
                let largest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                xs[i] - largest - line.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
            })
            .collect();
        let mut sheet = Sheet::new(&format!("{dtype}, {scale}"));
        let v = sheet.input("x", x);
        let t = sheet.input("labels", Tensor::from_i128(DType::I64, vec![n, d], labels.iter().map(|&l| l.into())));
        let w = sheet.input("weights", Tensor::from_f64(dtype, vec![c], weights));
        for (name, weighted) in [("weighted", true), ("unweighted", false)] {
            let classes = Classes { weights: weighted.then_some(w), ignore_index: Some(-100) };
            for (word, reduction) in REDUCTIONS {
                for (loss, scores) in [("cross entropy", &log_p), ("negative log-likelihood", &xs)] {
                    let (losses, total) = by_labels(scores, shape, &labels, weighted.then_some(&weights[..]), -100);
                    let want = match reduction {
                        Reduction::None => losses,
                        Reduction::Sum => vec![losses.iter().sum()],
                        Reduction::Mean => vec![losses.iter().sum::<f64>() / total],
                    };
                    let mut l = Layer::new(&mut sheet.g, loss);
                    let y = match loss {
                        "cross entropy" => loss::cross_entropy(&mut l, v, t, &classes, reduction),
                        _ => loss::negative_log_likelihood(&mut l, v, t, &classes, reduction),
                    };
                    // The scores themselves are rounded to units of their largest.
                    let per_loss = 8.0 * epsilon(dtype) * scale.max(4.0);
                    let many = if reduction == Reduction::Sum { (n * d) as f64 } else { 1.0 };
                    sheet.expect(&format!("{loss}, {name}, {word}"), y, want, |_, _| per_loss * many);
                }
            }
        }
        sheet.check();
    }
}

#[test]
fn cross_entropy_of_certain_scores() {
    let mut sheet = Sheet::new("certain");
    let x = sheet.input("x", Tensor::from_f64(DType::F32, vec![3, 2], [1e4, -1e4, -1e4, 1e4, 1e4, 1e4]));
    let t = sheet.input("labels", Tensor::i64s(&[0, 0, 1]));
    let mut l = Layer::new(&mut sheet.g, "loss");
    let y = loss::cross_entropy(&mut l, x, t, &Classes::default(), Reduction::None);
    sheet.expect("losses", y, vec![0.0, 2e4, 2f64.ln()], |_, want| 2.0 * epsilon(DType::F32) * want);
    sheet.check();
}

fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

#[test]
fn binary_cross_entropy() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        // Probabilities at and next to both ends, and all between.
        let ends = [0.0, 1.0, 1e-30, 1e-9, 1e-4, 0.5, 1.0 - 2f64.powi(-24), 1.0 - 1e-3];
        let between = noise(DType::F64, &[64], 1.0, 7).to_f64();
        let p = between.iter().enumerate().map(|(i, v)| if i < 24 { ends[i % 8] } else { v.abs() });
        let p = Tensor::from_f64(dtype, vec![8, 8], p);
        let t: Vec<f64> = (0..64).map(|i| [0.0, 1.0, 0.5][i / 8 % 3]).collect();
        let w: Vec<f64> = (0..8).map(|i| f64::from(i) / 4.0).collect();
        let ps = p.to_f64();
        let losses = |weighted: bool| -> Vec<f64> {
            let one = |i: usize| {
                let (ln_p, ln_q) = (ps[i].ln().max(-100.0), (-ps[i]).ln_1p().max(-100.0));
                let loss = -t[i] * ln_p - (1.0 - t[i]) * ln_q;
                if weighted { loss * w[i % 8] } else { loss }
            };
            (0..64).map(one).collect()
        };
        let pv = sheet.input("p", p);
        let tv = sheet.input("t", Tensor::from_f64(dtype, vec![8, 8], t.iter().copied()));
        let wv = sheet.input("w", Tensor::from_f64(dtype, vec![8], w.iter().copied()));
        for (name, weights) in [("plain", None), ("weighted", Some(wv))] {
            let losses = losses(weights.is_some());
            let errors: Vec<f64> = losses.iter().map(|l| 8.0 * epsilon(dtype) * l).collect();
            expect_reduced(&mut sheet, name, dtype, &losses, &errors, &|l, r| {
                loss::binary_cross_entropy(l, pv, tv, weights, r)
            });
        }
        sheet.check();
    }
}

#[test]
fn binary_cross_entropy_with_logits() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = numbers(dtype).reshaped(vec![32, 8]).unwrap();
        let xs = x.to_f64();
        let t: Vec<f64> = (0..256).map(|i| [0.0, 1.0, 0.25, 1.0, 0.0][i % 5]).collect();
        let w: Vec<f64> = (0..8).map(|i| f64::from(i) / 4.0).collect();
        let v: Vec<f64> = (0..8).map(|i| f64::from(8 - i)).collect();
        let tensor = |shape: &[usize], values: &[f64]| Tensor::from_f64(dtype, shape.to_vec(), values.iter().copied());
        let xv = sheet.input("x", x);
        let tv = sheet.input("t", tensor(&[32, 8], &t));
        let wv = sheet.input("w", tensor(&[8], &w));
        let vv = sheet.input("v", tensor(&[8], &v));
        for (name, losses, positives) in [
            ("plain", None, None),
            ("losses weighted", Some(wv), None),
            ("positives weighted", None, Some(vv)),
            ("both", Some(wv), Some(vv)),
        ] {
            // torch: (1 - t)*x + (1 + (v - 1)*t) * softplus(-x), all times w; without its cancellation.
            let of = |i: usize| {
                let v = if positives.is_some() { v[i % 8] } else { 1.0 };
                let w = if losses.is_some() { w[i % 8] } else { 1.0 };
                w * (v * t[i] * softplus(-xs[i]) + (1.0 - t[i]) * softplus(xs[i]))
            };
            let wanted: Vec<f64> = (0..256).map(of).collect();
            // Below the smallest normal number nothing is promised.
            let least = if dtype == DType::F32 { 1e-36 } else { 1e-300 };
            let errors: Vec<f64> = wanted.iter().map(|l| 12.0 * epsilon(dtype) * l + least).collect();
            let weights = BinaryWeights { losses, positives };
            expect_reduced(&mut sheet, name, dtype, &wanted, &errors, &|l, r| {
                loss::binary_cross_entropy_with_logits(l, xv, tv, weights, r)
            });
        }
        sheet.check();
    }
}

#[test]
fn divergence_of_distributions() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        // Logarithms of predictions down to -1e4; targets with zeros among them.
        let x: Vec<f64> = noise(DType::F64, &[60], 1.0, 8).to_f64().iter().map(|v| -1e4 * v.powi(4)).collect();
        let x = Tensor::from_f64(dtype, vec![6, 10], x);
        let t = noise(DType::F64, &[60], 1.0, 9).to_f64();
        let t = Tensor::from_f64(dtype, vec![6, 10], t.iter().enumerate().map(|(i, v)| [v.abs(), 0.0][i % 4 / 3]));
        let logs = Tensor::from_f64(dtype, vec![6, 10], t.to_f64().iter().map(|t| t.ln()));
        let xs = x.to_f64();
        let one = |p: f64, ln_p: f64, x: f64| if p == 0.0 { 0.0 } else { p * (ln_p - x) };
        let by_p: Vec<f64> = t.to_f64().iter().zip(&xs).map(|(&p, &x)| one(p, p.ln(), x)).collect();
        let by_logs: Vec<f64> = logs.to_f64().iter().zip(&xs).map(|(&l, &x)| one(l.exp(), l, x)).collect();
        let errors: Vec<f64> =
            t.to_f64().iter().zip(&xs).map(|(t, x)| 16.0 * epsilon(dtype) * t * (1.0 + x.abs())).collect();
        let (xv, tv, lv) = (sheet.input("x", x), sheet.input("t", t), sheet.input("logs", logs));
        for (name, v, targets, losses) in
            [("probabilities", tv, Targets::Probabilities, &by_p), ("logarithms", lv, Targets::Logarithms, &by_logs)]
        {
            expect_reduced(&mut sheet, name, dtype, losses, &errors, &|l, r| {
                loss::kullback_leibler(l, xv, v, targets, r)
            });
            let mut l = Layer::new(&mut sheet.g, "batch mean");
            let each = loss::kullback_leibler(&mut l, xv, v, targets, Reduction::None);
            let y = each.and_then(|each| loss::batch_mean(&mut l, each));
            let want = losses.iter().sum::<f64>() / 6.0;
            let allowed = errors.iter().sum::<f64>() + 8.0 * epsilon(dtype) * want.abs();
            sheet.expect(&format!("{name}, batch mean"), y, vec![want], |_, _| allowed);
        }
        sheet.check();
    }
}
