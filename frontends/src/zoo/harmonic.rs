//! Layers of harmonic networks. Worrall, Garbin, Turmukhambetov and Brostow, "Harmonic Networks: Deep Translation and
//! Rotation Equivariance" (2017).
//!
//! A feature map of rotation order q is complex. When the image turns by the angle t, counterclockwise and about its centre, the
//! map turns with it and its values are multiplied by `e^(i*q*t)`: the phase is predicted, the magnitude is invariant. A kernel
//! of order m, `R(r) * e^(i*(m*phi + beta))`, takes maps of order p to order p + m; its radial profile R and its offset
//! beta are learned. (Here phi counts counterclockwise from the positive x axis, and y grows upwards, against rows.)
//!
//! On a grid the law holds exactly for quarter turns, up to rounding: kernels are computed in one quadrant and turned by
//! multiplication with a power of i. Other angles have the error of sampling.

use super::{BatchNorm, Init, Net, Pool};
use lehr_ir::ops::{self, BinaryFn, UnaryFn};
use lehr_ir::{DType, Diag, Tensor, ValueId};

/// Complex feature maps of one rotation order: real and imaginary parts, each f32[batch, channels, height, width].
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    pub order: i32,
    pub re: ValueId,
    /// Absent in an image, which is real.
    pub im: Option<ValueId>,
}

/// A harmonic convolution.
#[derive(Clone, Copy, Debug)]
pub struct Harmonic {
    /// Output channels of each order.
    pub channels: usize,
    /// Odd: the kernel has a centre.
    pub kernel: usize,
    /// On all four sides.
    pub pad: usize,
    /// Output orders.
    pub orders: &'static [i32],
}

/// Under the root of a magnitude: phases of values much smaller than its root are noise, and must not be amplified.
const SMOOTHING: f64 = 1e-4;
/// Width of a ring of a radial profile: standard deviation of its Gaussian, in pixels.
const RING: f64 = 0.5;

/// An image as maps of order 0.
pub fn image(x: ValueId) -> Vec<Maps> {
    vec![Maps { order: 0, re: x, im: None }]
}

/// Every order of the output sums over every order of the input. An output order is a pair of real convolutions over all real
/// and imaginary parts. Weights from order p to order q: `NAME.PtoQ.profile` [channels, input channels, rings] and
/// `NAME.PtoQ.phase` [channels, input channels].
pub fn conv(net: &mut Net, name: &str, xs: &[Maps], h: Harmonic) -> Result<Vec<Maps>, Diag> {
    if h.kernel.is_multiple_of(2) {
        return Err(Diag::new("zoo.harmonic", format!("layer {name}: a kernel of {} has no centre", h.kernel)));
    }
    let parts: Vec<ValueId> = xs.iter().flat_map(|x| [Some(x.re), x.im]).flatten().collect();
    let stack = match parts[..] {
        [x] => x,
        _ => net.concat(&format!("{name}.parts"), &parts)?,
    };
    let inputs: usize = xs.iter().map(|x| net.size(x.re, 1)).sum::<Result<_, _>>()?;
    let mut ys = vec![];
    for &order in h.orders {
        // Blocks of weights by input part: (a + ib)*(x + iy) has the real part ax - by and the imaginary part bx + ay.
        let (mut re, mut im) = (vec![], vec![]);
        for x in xs {
            let (a, b) = kernels(net, &format!("{name}.{}to{order}", x.order), x, order - x.order, inputs, h)?;
            re.push(a.clone());
            im.push(b.clone());
            if x.im.is_some() {
                re.push(b.iter().map(|v| -v).collect());
                im.push(a);
            }
        }
        let mut half = |part: &str, blocks: Vec<Vec<f64>>| {
            let name = format!("{name}.{order}.{part}");
            let w = net.constant(&format!("{name}.weight"), side_by_side(&blocks, h));
            let op = ops::Conv { strides: vec![1; 2], pads: vec![h.pad; 4], dilations: vec![1; 2], groups: 1 };
            net.layer(&name, op, &[Some(stack), Some(w), None])
        };
        let (re, im) = (half("re", re)?, half("im", im)?);
        ys.push(Maps { order, re, im: Some(im) });
    }
    Ok(ys)
}

/// `f * relu(|f| + b)/|f|`: the phase stays. Weight `NAME.QUANTITY.bias` [1, channels, 1, 1] for each order.
pub fn relu(net: &mut Net, name: &str, xs: &[Maps]) -> Result<Vec<Maps>, Diag> {
    by_magnitude(net, name, xs, |net, name, size, channels| {
        let noise = Init::Normal { mean: 0.0, deviation: 0.05 };
        let bias = net.weight(&format!("{name}.bias"), &[1, channels, 1, 1], noise)?;
        net.add(&format!("{name}.shifted"), size, bias)
    })
}

/// `f * relu(batch_norm(|f|))/|f|`.
pub fn batch_norm_relu(net: &mut Net, name: &str, xs: &[Maps]) -> Result<Vec<Maps>, Diag> {
    by_magnitude(net, name, xs, |net, name, size, _| net.batch_norm(name, size, BatchNorm::default()))
}

/// Over both parts: linear, so the law holds where windows turn into windows (sizes that the stride divides).
pub fn avg_pool(net: &mut Net, name: &str, xs: &[Maps], p: Pool) -> Result<Vec<Maps>, Diag> {
    let pool = |x: &Maps| {
        let name = format!("{name}.{}", x.order);
        let re = net.avg_pool(&format!("{name}.re"), x.re, p)?;
        let im = x.im.map(|im| net.avg_pool(&format!("{name}.im"), im, p)).transpose()?;
        Ok(Maps { re, im, ..*x })
    };
    xs.iter().map(pool).collect()
}

/// `sqrt(re^2 + im^2 + 1e-4)`, real and invariant.
pub fn magnitude(net: &mut Net, name: &str, x: &Maps) -> Result<ValueId, Diag> {
    let mut sum = net.mul(&format!("{name}.re2"), x.re, x.re)?;
    if let Some(im) = x.im {
        let im = net.mul(&format!("{name}.im2"), im, im)?;
        sum = net.add(&format!("{name}.sum"), sum, im)?;
    }
    let smoothing = net.constant(&format!("{name}.smoothing"), Tensor::scalar_f64(DType::F32, SMOOTHING));
    let sum = net.add(&format!("{name}.smooth"), sum, smoothing)?;
    net.activation(&format!("{name}.size"), sum, UnaryFn::Sqrt)
}

/// Multiplies maps by `relu(f(|x|))/|x|`; `f` takes a name, the magnitude and its channels.
fn by_magnitude(
    net: &mut Net,
    name: &str,
    xs: &[Maps],
    f: impl Fn(&mut Net, &str, ValueId, usize) -> Result<ValueId, Diag>,
) -> Result<Vec<Maps>, Diag> {
    let mut ys = vec![];
    for x in xs {
        let name = format!("{name}.{}", x.order);
        let size = magnitude(net, &name, x)?;
        let channels = net.size(x.re, 1)?;
        let y = f(net, &name, size, channels)?;
        let y = net.relu(&format!("{name}.relu"), y)?;
        let factor = net.binary(&format!("{name}.factor"), BinaryFn::Div, y, size)?;
        let re = net.mul(&format!("{name}.re"), x.re, factor)?;
        let im = x.im.map(|im| net.mul(&format!("{name}.im"), im, factor)).transpose()?;
        ys.push(Maps { re, im, ..*x });
    }
    Ok(ys)
}

/// Real and imaginary parts of the kernels of order m, [channels, input channels, kernel, kernel].
fn kernels(
    net: &mut Net,
    name: &str,
    x: &Maps,
    m: i32,
    fan_in: usize,
    h: Harmonic,
) -> Result<(Vec<f64>, Vec<f64>), Diag> {
    let inputs = net.size(x.re, 1)?;
    let pixels = pixels(h.kernel, m);
    let rings = pixels.first().map_or(0, |p| p.rings.len());
    // He's variance, for the sum over all pixels of all input channels.
    let energy: f64 = pixels.iter().flat_map(|p| &p.rings).map(|g| g * g).sum();
    let profile = Init::Normal { mean: 0.0, deviation: (2.0 / (fan_in as f64 * energy.max(f64::MIN_POSITIVE))).sqrt() };
    let profile = net.parameter(&format!("{name}.profile"), &[h.channels, inputs, rings], profile)?;
    let turn = Init::Uniform { low: 0.0, high: 2.0 * std::f64::consts::PI };
    let phase = net.parameter(&format!("{name}.phase"), &[h.channels, inputs], turn)?;
    let (profile, phase) = (profile.tensor().to_f64(), phase.tensor().to_f64());
    let (mut re, mut im) = (vec![], vec![]);
    for (radial, beta) in profile.chunks(rings.max(1)).zip(phase) {
        for p in &pixels {
            let radius: f64 = radial.iter().zip(&p.rings).map(|(w, g)| w * g).sum();
            let angle = f64::from(m) * p.angle + beta;
            let (a, b) = (radius * angle.cos(), radius * angle.sin());
            // Times i^(m * turns): exact.
            let (a, b) = match (m * p.turns).rem_euclid(4) {
                0 => (a, b),
                1 => (-b, a),
                2 => (-a, -b),
                _ => (b, -a),
            };
            re.push(a);
            im.push(b);
        }
    }
    Ok((re, im))
}

/// A pixel of a kernel in polar coordinates: `turns` quarter turns from where its angle is in [0, 90) degrees.
struct Pixel {
    /// What each ring of the profile contributes here.
    rings: Vec<f64>,
    /// In the first quadrant, in radians.
    angle: f64,
    turns: i32,
}

/// The pixels of a kernel of order m in rows from above. Profiles have rings of radius 0, 1, ... up to half of the kernel. The centre
/// has no angle, so an order other than 0 is zero there and has no ring of radius 0; so are corners outside of the circle.
fn pixels(kernel: usize, m: i32) -> Vec<Pixel> {
    let half = (kernel / 2) as i32;
    let rings = i32::from(m != 0)..=half;
    let gaussian = |r: f64, ring: i32| (-(r - f64::from(ring)).powi(2) / (2.0 * RING * RING)).exp();
    let mut pixels = vec![];
    for row in -half..=half {
        for column in -half..=half {
            let (mut x, mut y, mut turns) = (column, -row, 0);
            while (x, y) != (0, 0) && !(x > 0 && y >= 0) {
                // Back by a quarter turn.
                (x, y, turns) = (y, -x, turns + 1);
            }
            let r = f64::from(x * x + y * y).sqrt();
            let inside = r < f64::from(half) + 0.5 && (m == 0 || r > 0.0);
            let weight = |ring| if inside { gaussian(r, ring) } else { 0.0 };
            let angle = f64::from(y).atan2(f64::from(x));
            pixels.push(Pixel { rings: rings.clone().map(weight).collect(), angle, turns });
        }
    }
    pixels
}

/// Joins blocks [channels, inputs of the block, kernel, kernel] along their inputs.
fn side_by_side(blocks: &[Vec<f64>], h: Harmonic) -> Tensor {
    let row = |b: &[f64], o: usize| {
        let n = b.len() / h.channels;
        b[o * n..(o + 1) * n].to_vec()
    };
    let values: Vec<f64> = (0..h.channels).flat_map(|o| blocks.iter().flat_map(move |b| row(b, o))).collect();
    let inputs = values.len() / (h.channels * h.kernel * h.kernel);
    Tensor::from_f64(DType::F32, vec![h.channels, inputs, h.kernel, h.kernel], values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::Weights;

    /// Turns the last two axes, which are equal, by a quarter counterclockwise.
    fn turned(t: &Tensor) -> Tensor {
        let n = t.shape()[t.rank() - 1];
        let values = t.to_f64();
        let quarter = |p: &[f64]| (0..n * n).map(|i| p[(i % n) * n + (n - 1 - i / n)]).collect::<Vec<_>>();
        Tensor::from_f64(DType::F32, t.shape().to_vec(), values.chunks(n * n).flat_map(quarter))
    }

    #[test]
    fn kernels_turn_by_powers_of_i_exactly() {
        for m in -2..=3 {
            let mut net = Net::new("k", Weights::Seeded(3));
            let x = net.image("x", 2, 8, 8);
            let h = Harmonic { channels: 3, kernel: 5, pad: 0, orders: &[0] };
            let (re, im) = kernels(&mut net, "k", &image(x)[0], m, 2, h).unwrap();
            let tensor = |v: &[f64]| Tensor::from_f64(DType::F32, vec![6, 5, 5], v.iter().copied());
            let (re, im) = (tensor(&re), tensor(&im));
            // The kernel at the turned place is the kernel times i^m, so turning it back multiplies by i^-m.
            let minus = |t: &Tensor| t.to_f64().into_iter().map(|v| 0.0 - v).collect::<Vec<_>>();
            let expected = match m.rem_euclid(4) {
                0 => (re.to_f64(), im.to_f64()),
                1 => (im.to_f64(), minus(&re)),
                2 => (minus(&re), minus(&im)),
                _ => (minus(&im), re.to_f64()),
            };
            assert_eq!((turned(&re).to_f64(), turned(&im).to_f64()), expected, "order {m}");
            assert!(re.to_f64().iter().any(|v| v.abs() > 1e-2));
        }
    }
}
