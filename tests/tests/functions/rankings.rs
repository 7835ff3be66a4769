//! Losses that compare scores or embeddings.

use super::losses::expect_reduced;
use lehr_frontends::layers::ranking::{self, Norm, Triplet};
use lehr_ir::{DType, Tensor};
use lehr_tests::plain::{FLOATS, noise};
use lehr_tests::sheet::{Sheet, epsilon};

/// 1, -1, 1, ...
fn signs(dtype: DType, n: usize) -> Tensor {
    Tensor::from_f64(dtype, vec![n], (0..n).map(|i| [1.0, -1.0, -1.0, 1.0][i % 4]))
}

#[test]
fn margin_ranking() {
    for dtype in FLOATS {
        for scale in [1.0, 1e4] {
            let mut sheet = Sheet::new(&format!("{dtype}, {scale}"));
            let [a, b] = [1, 2].map(|seed| noise(dtype, &[50], scale, seed));
            let y = signs(dtype, 50);
            let (xs, ys) = ([a.to_f64(), b.to_f64()], y.to_f64());
            let [a, b, y] = [("a", a), ("b", b), ("y", y)].map(|(name, t)| sheet.input(name, t));
            for margin in [0.0, 0.5] {
                let losses: Vec<f64> = (0..50).map(|i| (margin - ys[i] * (xs[0][i] - xs[1][i])).max(0.0)).collect();
                let errors = vec![4.0 * epsilon(dtype) * scale; 50];
                expect_reduced(&mut sheet, &format!("margin {margin}"), dtype, &losses, &errors, &|l, r| {
                    ranking::margin(l, [a, b], y, margin, r)
                });
            }
            sheet.check();
        }
    }
}

#[test]
fn triplets() {
    const N: usize = 9;
    const D: usize = 13;
    for dtype in FLOATS {
        for scale in [1.0, 1e4] {
            let mut sheet = Sheet::new(&format!("{dtype}, {scale}"));
            let three = [1, 2, 3].map(|seed| noise(dtype, &[N, D], scale, seed));
            let xs = [0, 1, 2].map(|i| three[i].to_f64());
            let mut names = ["a", "p", "n"].iter();
            let vs = three.map(|t| sheet.input(names.next().unwrap(), t));
            for norm in [Norm::One, Norm::Two, Norm::Infinity] {
                for swap in [false, true] {
                    let options = Triplet { margin: 0.75 * scale, norm, swap, ..Triplet::default() };
                    let distance = |a: &[f64], b: &[f64], row: usize| {
                        let d = (row * D..(row + 1) * D).map(|i| (a[i] - b[i] + 1e-6).abs());
                        match norm {
                            Norm::One => d.sum::<f64>(),
                            Norm::Two => d.map(|d| d * d).sum::<f64>().sqrt(),
                            Norm::Infinity => d.fold(0.0, f64::max),
                        }
                    };
                    let one = |row: usize| {
                        let [a, p, n] = &xs;
                        let far = distance(a, n, row);
                        let far = if swap { far.min(distance(p, n, row)) } else { far };
                        (distance(a, p, row) - far + options.margin).max(0.0)
                    };
                    let losses: Vec<f64> = (0..N).map(one).collect();
                    assert!(losses.iter().any(|&l| l > 0.0), "every loss is 0");
                    let errors = vec![4.0 * D as f64 * epsilon(dtype) * scale; N];
                    expect_reduced(&mut sheet, &format!("{norm:?}, swap {swap}"), dtype, &losses, &errors, &|l, r| {
                        ranking::triplet(l, vs, options, r)
                    });
                }
            }
            sheet.check();
        }
    }
}

#[test]
fn cosines() {
    const N: usize = 12;
    const D: usize = 16;
    for dtype in FLOATS {
        for scale in [1e-3, 1.0, 1e4] {
            let mut sheet = Sheet::new(&format!("{dtype}, {scale}"));
            let a = noise(dtype, &[N, D], scale, 1);
            // Against, with, across, and nothing at all.
            let other = noise(dtype, &[N, D], scale, 2).to_f64();
            let b = a.to_f64().into_iter().zip(other).enumerate();
            let b = b.map(|(i, (a, other))| [-a, a, other, 0.0, other, 2.0 * a + 0.1 * other][i / D % 6]);
            let b = Tensor::from_f64(dtype, vec![N, D], b);
            let y = signs(dtype, N);
            let (xs, ys) = ([a.to_f64(), b.to_f64()], y.to_f64());
            let [a, b, y] = [("a", a), ("b", b), ("y", y)].map(|(name, t)| sheet.input(name, t));
            for margin in [0.0, 0.5] {
                let one = |row: usize| {
                    let dot = |a: &[f64], b: &[f64]| (row * D..(row + 1) * D).map(|i| a[i] * b[i]).sum::<f64>();
                    let [u, v] = &xs;
                    let cos = dot(u, v) / ((dot(u, u) + 1e-12) * (dot(v, v) + 1e-12)).sqrt();
                    if ys[row] == 1.0 { 1.0 - cos } else { (cos - margin).max(0.0) }
                };
                let losses: Vec<f64> = (0..N).map(one).collect();
                let errors = vec![16.0 * epsilon(dtype); N];
                expect_reduced(&mut sheet, &format!("margin {margin}"), dtype, &losses, &errors, &|l, r| {
                    ranking::cosine_embedding(l, [a, b], y, margin, r)
                });
            }
            sheet.check();
        }
    }
}
