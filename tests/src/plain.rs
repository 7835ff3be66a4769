//! What tests of layers share: numbers to try, arrays of four axes, and a correlation in plain loops.

use lehr_ir::tensor::seeded;
use lehr_ir::{DType, Tensor};

pub const FLOATS: [DType; 2] = [DType::F32, DType::F64];

/// Zero, tiny, ordinary and huge numbers of both signs, up to 1e4, around the places where e^x leaves f32 and f64; 256 of them.
pub fn numbers(dtype: DType) -> Tensor {
    let ends =
        [0.0, 1e-8, 1e-4, 0.1, 0.5, 1.0, 2.0, 3.7, 5.0, 9.5, 16.0, 17.5, 30.0, 60.0, 85.0, 87.5, 89.0, 103.0, 110.0];
    let far = [120.0, 500.0, 700.0, 710.0, 745.0, 750.0, 1000.0, 3333.0, 9999.0, 1e4];
    let chosen = ends.iter().chain(&far).flat_map(|&v| [v, -v]);
    let noise = seeded(DType::F64, vec![256], 11).to_f64();
    let noise = noise.iter().enumerate().map(|(i, v)| v * [1.0, 8.0, 40.0, 1e4][i % 4]);
    Tensor::from_f64(dtype, vec![256], chosen.chain(noise).take(256))
}

/// Noise in [-scale, scale), as the type holds it.
pub fn noise(dtype: DType, shape: &[usize], scale: f64, seed: u64) -> Tensor {
    let values = seeded(DType::F64, shape.to_vec(), seed).to_f64();
    Tensor::from_f64(dtype, shape.to_vec(), values.into_iter().map(|v| v * scale))
}

/// How a correlation walks.
#[derive(Clone, Copy)]
pub struct Walk {
    pub stride: usize,
    /// top, left, bottom, right
    pub pads: [usize; 4],
    pub dilation: usize,
    pub groups: usize,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk { stride: 1, pads: [0; 4], dilation: 1, groups: 1 }
    }
}

/// An array with its shape [a, b, height, width].
#[derive(Clone, Debug)]
pub struct Grid {
    pub shape: [usize; 4],
    pub values: Vec<f64>,
}

impl Grid {
    pub fn of(t: &Tensor) -> Grid {
        Grid { shape: t.shape().try_into().expect("four axes"), values: t.to_f64() }
    }

    pub fn at(&self, [a, b, y, x]: [usize; 4]) -> f64 {
        let [_, nb, ny, nx] = self.shape;
        self.values[((a * nb + b) * ny + y) * nx + x]
    }

    pub fn tensor(&self, dtype: DType) -> Tensor {
        Tensor::from_f64(dtype, self.shape.to_vec(), self.values.iter().copied())
    }

    /// One value for each place.
    pub fn make(shape: [usize; 4], mut f: impl FnMut([usize; 4]) -> f64) -> Grid {
        let mut values = vec![];
        for a in 0..shape[0] {
            for b in 0..shape[1] {
                for y in 0..shape[2] {
                    for x in 0..shape[3] {
                        values.push(f([a, b, y, x]));
                    }
                }
            }
        }
        Grid { shape, values }
    }
}

/// `y[n, o, i, j] = sum over c, u, v of w[o, c, u, v] * x[n, c, s*i + d*u - top, s*j + d*v - left]`, zeros outside of x.
pub fn correlated(x: &Grid, w: &Grid, walk: Walk) -> Grid {
    let Walk { stride, pads: [top, left, bottom, right], dilation, groups } = walk;
    let [outputs, per_group, kh, kw] = w.shape;
    let size = |m: usize, k: usize, pads: usize| (m + pads - dilation * (k - 1) - 1) / stride + 1;
    let (height, width) = (size(x.shape[2], kh, top + bottom), size(x.shape[3], kw, left + right));
    Grid::make([x.shape[0], outputs, height, width], |[n, o, i, j]| {
        let first = o / (outputs / groups) * per_group;
        let mut sum = 0.0;
        for c in 0..per_group {
            for u in 0..kh {
                for v in 0..kw {
                    let (y, z) = (stride * i + dilation * u, stride * j + dilation * v);
                    let inside = (top..top + x.shape[2]).contains(&y) && (left..left + x.shape[3]).contains(&z);
                    if inside {
                        sum += w.at([o, c, u, v]) * x.at([n, first + c, y - top, z - left]);
                    }
                }
            }
        }
        sum
    })
}

/// A cyclic shift of the two spatial axes: what was at (i, j) is at (i + down, j + right).
pub fn rolled(x: &Grid, [down, right]: [usize; 2]) -> Grid {
    let [_, _, h, w] = x.shape;
    Grid::make(x.shape, |[n, c, i, j]| x.at([n, c, (i + h - down % h) % h, (j + w - right % w) % w]))
}

/// Both spatial axes backwards.
pub fn turned(w: &Grid) -> Grid {
    let [_, _, h, v] = w.shape;
    Grid::make(w.shape, |[o, c, y, x]| w.at([o, c, h - 1 - y, v - 1 - x]))
}

/// The largest distance between two arrays of one shape, of the largest number in either.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "arrays of two sizes");
    let largest = a.iter().chain(b).fold(0.0f64, |m, v| m.max(v.abs()));
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // NaN is far away.
    let apart = apart.fold(0.0f64, |m, d| if d <= m { m } else { d });
    if apart == 0.0 { 0.0 } else { apart / largest }
}
