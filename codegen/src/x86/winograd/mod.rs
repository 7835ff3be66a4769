//! Winograd's transforms as leaves: the tiles of a row, a vector of channels at a time.
//!
//! ```text
//! for tile in 0..tiles                                  n points along an axis
//!     input:   out[n][n] = Bt in[..][..] B              in += stride * m pixels, out += one vector
//!     output:  out[rows][cols] = epilogue(bias + At in[n][n] A)      in += one vector, out += m pixels
//!              out[rows/2][cols/2] = pool of that                    in += one vector, out += m/2 pixels
//! ```
//!
//! With points {0, a, -a, b, -b, inf} and M(x) = x (x^2 - a^2) (x^2 - b^2), a row of Bt is M(x) / (x - p), that of the infinite
//! point M(x) itself; a column of At holds the powers of p; the denominators are in the weights (Toom-Cook, transposed). Columns
//! first, through a buffer on the stack, then rows: n * n values exceed the registers.
//!
//! With stride 2 a result is the sum over the even taps on even pixels, plus that over the odd taps on odd pixels: two
//! convolutions of stride 1 with half the taps, each with points of its own, side by side in Bt and At. One tap needs no points:
//! its m products are the results, all with the same weight. So a kernel of 3 taps has 2 m + 1 products along an axis, where it would
//! have 3 m directly, and m + 2 weights.
//!
//! Registers: rdi arguments, rax in, rcx out, rdx bias, rbx tiles, r8-r11 and rsi pointers of operands. Vectors: see `axis.rs`.

mod axis;
mod leaves;
mod pool;

pub use leaves::{InputTransform, OutputTransform};
pub use pool::Pool;

/// F(m x m, r x r): m x m outputs of an r x r kernel, of stride 1 or (`By2`) 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    F2x3,
    F4x3,
    F3x4,
    F2x5,
    F2x3By2,
    F4x3By2,
    F2x5By2,
    F4x5By2,
    F2x6By2,
    F4x6By2,
    F3x7By2,
    F3x8By2,
    F2x9By2,
    F2x10By2,
}

const A: f64 = 0.625;
const B: f64 = 1.5;

/// A convolution of stride 1 along an axis, among those whose sum one with strides is.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The first pixel and tap.
    first: usize,
    taps: usize,
    points: usize,
}

impl Phase {
    /// Weights that differ.
    fn sets(self) -> usize {
        if self.taps == 1 { 1 } else { self.points }
    }

    /// The points but the infinite one; the first row of weights is that of the first of them. None for a single tap.
    fn finite(self) -> &'static [f64] {
        match self.points {
            _ if self.taps == 1 => &[],
            3 => &[0.0, 1.0],
            4 => &[0.0, 1.0, -1.0],
            // Exact constants, which give a third of the error that 1 and 2 do.
            5 => &[0.0, A, -A, B],
            6 => &[0.0, A, -A, B, -B],
            n => unreachable!("no phase has {n} points"),
        }
    }

    /// What a kernel along one axis becomes at this point.
    fn weight_row(self, point: usize) -> Vec<f64> {
        let finite = self.finite();
        let Some(&p) = finite.get(point) else {
            return (1..=self.taps).map(|k| if k == self.taps { 1.0 } else { 0.0 }).collect();
        };
        let scale: f64 = finite.iter().filter(|&&q| q != p).map(|q| p - q).product();
        (0..self.taps).map(|k| p.powi(k as i32) / scale).collect()
    }
}

impl Winograd {
    pub const ALL: [Winograd; 14] = [
        Winograd::F4x3,
        Winograd::F2x3,
        Winograd::F3x4,
        Winograd::F2x5,
        Winograd::F4x3By2,
        Winograd::F2x3By2,
        Winograd::F4x5By2,
        Winograd::F2x5By2,
        Winograd::F4x6By2,
        Winograd::F2x6By2,
        Winograd::F3x7By2,
        Winograd::F3x8By2,
        Winograd::F2x9By2,
        Winograd::F2x10By2,
    ];

    /// Outputs, taps and stride.
    const fn sizes(self) -> (usize, usize, usize) {
        match self {
            Winograd::F2x3 => (2, 3, 1),
            Winograd::F4x3 => (4, 3, 1),
            Winograd::F3x4 => (3, 4, 1),
            Winograd::F2x5 => (2, 5, 1),
            Winograd::F2x3By2 => (2, 3, 2),
            Winograd::F4x3By2 => (4, 3, 2),
            Winograd::F2x5By2 => (2, 5, 2),
            Winograd::F4x5By2 => (4, 5, 2),
            Winograd::F2x6By2 => (2, 6, 2),
            Winograd::F4x6By2 => (4, 6, 2),
            Winograd::F3x7By2 => (3, 7, 2),
            Winograd::F3x8By2 => (3, 8, 2),
            Winograd::F2x9By2 => (2, 9, 2),
            Winograd::F2x10By2 => (2, 10, 2),
        }
    }

    /// As in the literature: `F(4x4,3x3)`, with the stride behind if there is one: `F(4x4,3x3)/2`.
    pub fn name(self) -> String {
        let (m, r, stride) = self.sizes();
        let strides = if stride > 1 { format!("/{stride}") } else { String::new() };
        format!("F({m}x{m},{r}x{r}){strides}")
    }

    /// Outputs of a tile along an axis.
    pub const fn outputs(self) -> usize {
        self.sizes().0
    }

    /// Taps of the kernel along an axis.
    pub const fn taps(self) -> usize {
        self.sizes().1
    }

    /// Of the convolution, along both axes.
    pub const fn stride(self) -> usize {
        self.sizes().2
    }

    /// Inputs of a tile along an axis.
    pub const fn pixels(self) -> usize {
        self.stride() * (self.outputs() - 1) + self.taps()
    }

    /// Products along an axis.
    pub fn points(self) -> usize {
        self.phases().map(|p| p.points).sum()
    }

    /// Weights along an axis: a set for each point, but one for all products of a single tap, whose points come last.
    pub fn sets(self) -> usize {
        self.phases().map(Phase::sets).sum()
    }

    fn phases(self) -> impl Iterator<Item = Phase> {
        let (m, r, stride) = self.sizes();
        (0..stride).map(move |first| {
            let taps = (r - first).div_ceil(stride);
            Phase { first, taps, points: m + taps - 1 }
        })
    }

    /// The weights' transform: a row for each set.
    pub fn weight_rows(self) -> Vec<Vec<f64>> {
        let row = |phase: Phase, point: usize| {
            let mut row = vec![0.0; self.taps()];
            row.iter_mut()
                .skip(phase.first)
                .step_by(self.stride())
                .zip(phase.weight_row(point))
                .for_each(|(r, w)| *r = w);
            row
        };
        self.phases().flat_map(|phase| (0..phase.sets()).map(move |point| row(phase, point))).collect()
    }

    /// What a kernel becomes in all sets, row by row; `rows` are those of the transform.
    pub fn weights(self, rows: &[Vec<f64>], kernel: &[f32]) -> Vec<f32> {
        let r = self.taps();
        let columns: Vec<Vec<f64>> = (rows.iter())
            .map(|row| (0..r).map(|x| (0..r).map(|y| row[y] * f64::from(kernel[y * r + x])).sum()).collect())
            .collect();
        let at = |column: &Vec<f64>, row: &Vec<f64>| column.iter().zip(row).map(|(a, b)| a * b).sum::<f64>() as f32;
        columns.iter().flat_map(|column| rows.iter().map(|row| at(column, row))).collect()
    }
}
