//! Pooling of every kind, against plain loops.

use lehr_frontends::layers::Layer;
use lehr_frontends::layers::pool::{Blur, blur, global_average, max_blur};
use lehr_ir::DType;
use lehr_ir::ops::{AvgPool, MaxPool, PadMode};
use lehr_tests::plain::{FLOATS, Grid, noise};
use lehr_tests::sheet::{Sheet, epsilon};

/// A square window.
#[derive(Clone, Copy, Debug)]
struct Window {
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    ceil: bool,
}

impl Window {
    fn places(self, n: usize) -> usize {
        let Window { kernel, stride, pad, dilation, ceil } = self;
        let room = n + 2 * pad - dilation * (kernel - 1) - 1;
        let places = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
        // torch: no window may start beyond the input and the padding before it.
        if ceil && (places - 1) * stride >= n + pad { places - 1 } else { places }
    }

    /// `f` of each window's elements inside of x, and of how many of its places lie in x or its padding.
    fn each(self, x: &Grid, f: impl Fn(&[f64], usize) -> f64) -> Grid {
        let [n, c, h, w] = x.shape;
        Grid::make([n, c, self.places(h), self.places(w)], |[n, c, i, j]| {
            let (mut inside, mut padded) = (vec![], 0);
            for u in 0..self.kernel {
                for v in 0..self.kernel {
                    let (y, z) = (i * self.stride + u * self.dilation, j * self.stride + v * self.dilation);
                    padded += usize::from(y < h + 2 * self.pad && z < w + 2 * self.pad);
                    if (self.pad..h + self.pad).contains(&y) && (self.pad..w + self.pad).contains(&z) {
                        inside.push(x.at([n, c, y - self.pad, z - self.pad]));
                    }
                }
            }
            f(&inside, padded)
        })
    }
}

#[test]
fn maxima_and_means() {
    let plain = Window { kernel: 2, stride: 2, pad: 0, dilation: 1, ceil: false };
    let windows = [
        plain,
        Window { kernel: 3, pad: 1, ..plain },
        Window { kernel: 3, pad: 1, stride: 1, ..plain },
        Window { kernel: 3, ceil: true, ..plain },
        Window { kernel: 2, stride: 3, pad: 1, ceil: true, ..plain },
        Window { kernel: 2, dilation: 3, stride: 1, ..plain },
    ];
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = Grid::of(&noise(dtype, &[2, 16, 9, 12], 1e4, 1));
        let v = sheet.input("x", x.tensor(dtype));
        for window in windows {
            let Window { kernel, stride, pad, dilation, ceil } = window;
            let (kernel, strides, pads, dilations) =
                (vec![kernel; 2], vec![stride; 2], vec![pad; 4], vec![dilation; 2]);
            let max = MaxPool {
                kernel: kernel.clone(),
                strides: strides.clone(),
                pads: pads.clone(),
                dilations: dilations.clone(),
                ceil_mode: ceil,
                column_major: false,
            };
            let y = Layer::new(&mut sheet.g, "max").op(max, &[v]);
            let want = window.each(&x, |inside, _| inside.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            sheet.expect(&format!("max {window:?}"), y, want.values, |_, _| 0.0);
            for count_include_pad in [false, true] {
                let (kernel, strides, pads, dilations) =
                    (kernel.clone(), strides.clone(), pads.clone(), dilations.clone());
                let mean = AvgPool { kernel, strides, pads, dilations, ceil_mode: ceil, count_include_pad };
                let y = Layer::new(&mut sheet.g, "mean").op(mean, &[v]);
                let want = window.each(&x, |inside, padded| {
                    inside.iter().sum::<f64>() / if count_include_pad { padded } else { inside.len() } as f64
                });
                let name = format!("mean {window:?}, padding counts: {count_include_pad}");
                sheet.expect(&name, y, want.values, |_, _| 8.0 * epsilon(dtype) * 1e4);
            }
        }
        sheet.check();
    }
}

/// An index reflected into 0..n, the border not repeated.
fn reflected(i: i64, n: usize) -> usize {
    let i = i.abs();
    (if i < n as i64 { i } else { 2 * (n as i64 - 1) - i }) as usize
}

/// Blurred by weights over their sum, reflected at the border.
fn blurred(x: &Grid, weights: &[f64], stride: usize) -> Grid {
    let [n, c, h, w] = x.shape;
    let sum: f64 = weights.iter().sum();
    let before = (weights.len() as i64 - 1) / 2;
    Grid::make([n, c, (h - 1) / stride + 1, (w - 1) / stride + 1], |[n, c, i, j]| {
        let mut y = 0.0;
        for (u, a) in weights.iter().enumerate() {
            for (v, b) in weights.iter().enumerate() {
                let at = |place: usize, k: usize, size| reflected((place * stride + k) as i64 - before, size);
                y += a * b / (sum * sum) * x.at([n, c, at(i, u, h), at(j, v, w)]);
            }
        }
        y
    })
}

/// Of sums of a few numbers up to 1.
fn rounding(dtype: DType) -> impl Fn(usize, f64) -> f64 {
    move |_, _| 8.0 * epsilon(dtype)
}

#[test]
fn blur_pooling() {
    let rows: [(usize, &[f64]); 5] = [
        (1, &[1.0]),
        (2, &[1.0, 1.0]),
        (3, &[1.0, 2.0, 1.0]),
        (4, &[1.0, 3.0, 3.0, 1.0]),
        (5, &[1.0, 4.0, 6.0, 4.0, 1.0]),
    ];
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = Grid::of(&noise(dtype, &[2, 16, 9, 12], 1.0, 1));
        let v = sheet.input("x", x.tensor(dtype));
        for (taps, weights) in rows {
            for stride in [1, 2, 3] {
                let options = Blur { taps, stride, border: PadMode::Reflect };
                let y = blur(&mut Layer::new(&mut sheet.g, "blur"), v, options);
                sheet.expect(
                    &format!("{taps} taps, stride {stride}"),
                    y,
                    blurred(&x, weights, stride).values,
                    rounding(dtype),
                );
            }
        }
        // Maxima of 2x2 at every place; beyond the last row and column lies the one before it.
        let maxima = Grid::make(x.shape, |[n, c, i, j]| {
            let at = |y: usize, z: usize| x.at([n, c, reflected(y as i64, 9), reflected(z as i64, 12)]);
            at(i, j).max(at(i + 1, j)).max(at(i, j + 1)).max(at(i + 1, j + 1))
        });
        let y = max_blur(&mut Layer::new(&mut sheet.g, "max blur"), v, 2, Blur::default());
        sheet.expect("max blur", y, blurred(&maxima, &[1.0, 2.0, 1.0], 2).values, rounding(dtype));
        let means = (0..32).map(|i| x.values[i * 108..(i + 1) * 108].iter().sum::<f64>() / 108.0).collect();
        let y = global_average(&mut Layer::new(&mut sheet.g, "average"), v);
        sheet.expect("global average", y, means, rounding(dtype));
        sheet.check();
    }
}
