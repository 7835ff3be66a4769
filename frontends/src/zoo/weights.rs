//! Where the weights of a network come from, and the usual initialisations.
//!
//! Each tensor's noise depends on the seed and its own name alone: adding a layer leaves the others as they were.

use super::weight_file::WeightFile;
use lehr_ir::{ConstValue, DType, Diag, Tensor};
use std::thread;

/// What gives every weight of a network its values.
#[derive(Debug)]
pub enum Weights {
    /// Noise by each weight's [`Init`], from a seed.
    Seeded(u64),
    /// Zeros, which take no memory: to count parameters and operations.
    Zeros,
    /// A file, by name: the file must hold every weight, in its shape.
    File(WeightFile),
}

/// The distribution of a weight's first values. The first axis of a weight is its output; `fan_in` is the number of
/// products that one output sums, `fan_out` the number of outputs that one input goes into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal of variance 2/fan_in, for layers before a ReLU. He et al., "Delving Deep into Rectifiers" (2015).
    He,
    /// Uniform of variance 2/(fan_in + fan_out), for tanh, sigmoid and softmax. Glorot and Bengio, "Understanding the
    /// Difficulty of Training Deep Feedforward Neural Networks" (2010).
    Glorot,
    Normal {
        mean: f64,
        deviation: f64,
    },
    /// Uniform between two bounds.
    Uniform {
        low: f64,
        high: f64,
    },
}

/// The first values of a weight.
pub(super) enum Start {
    Drawn(Init),
    /// Computed, whatever the seed.
    Given(Tensor),
}

impl Weights {
    /// The values of the weight `name`.
    pub(super) fn values(&mut self, name: &str, shape: &[usize], start: Start) -> Result<ConstValue, Diag> {
        let tensor = match (self, start) {
            (Weights::Seeded(seed), Start::Drawn(init)) => init.tensor(*seed, name, shape),
            (Weights::Seeded(_), Start::Given(tensor)) => tensor,
            (Weights::File(file), _) => file.take(name, shape)?,
            (Weights::Zeros, _) => {
                let element = Tensor::scalar_f64(DType::F32, 0.0);
                return Ok(ConstValue::Splat { element, shape: shape.to_vec() });
            }
        };
        Ok(ConstValue::Dense { tensor, name: Some(name.into()) })
    }
}

impl Init {
    /// Values in f32. The same seed, name and shape give the same values everywhere.
    pub fn tensor(self, seed: u64, name: &str, shape: &[usize]) -> Tensor {
        let noise = Noise::new(seed, name);
        let window: usize = shape.iter().skip(2).product();
        let fan_in = (shape.get(1).copied().unwrap_or(1) * window) as f64;
        let fan_out = (shape.first().copied().unwrap_or(1) * window) as f64;
        let uniform = |low: f64, high: f64| noise.tensor(shape, move |n, i| low + (high - low) * n.uniform(i));
        let normal = |mean: f64, deviation: f64| noise.tensor(shape, move |n, i| mean + deviation * n.normal(i));
        match self {
            Init::He => normal(0.0, (2.0 / fan_in).sqrt()),
            Init::Glorot => {
                let limit = (6.0 / (fan_in + fan_out)).sqrt();
                uniform(-limit, limit)
            }
            Init::Normal { mean, deviation } => normal(mean, deviation),
            Init::Uniform { low, high } => uniform(low, high),
        }
    }
}

/// SplitMix64, started from a seed and a name. The n-th number is computed without those before it, so large tensors are
/// filled from several threads.
#[derive(Clone, Copy)]
struct Noise(u64);

/// Elements that a thread of its own is worth.
const CHUNK: usize = 1 << 20;

impl Noise {
    fn new(seed: u64, name: &str) -> Noise {
        // FNV-1a: short, fixed for ever, and good enough to tell names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        Noise(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// In (0, 1].
    fn uniform(self, i: u64) -> f64 {
        let mut z = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i.wrapping_add(1)));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's transform.
    fn normal(self, i: u64) -> f64 {
        let (u, v) = (self.uniform(2 * i), self.uniform(2 * i + 1));
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    /// Element `i` is `f(self, i)`.
    fn tensor(self, shape: &[usize], f: impl Fn(Noise, u64) -> f64 + Sync) -> Tensor {
        let elements: usize = shape.iter().product();
        let mut data = vec![0; 4 * elements];
        let fill = &|start: usize, part: &mut [u8]| {
            for (i, element) in part.chunks_exact_mut(4).enumerate() {
                element.copy_from_slice(&(f(self, (start + i) as u64) as f32).to_le_bytes());
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(elements / CHUNK + 1);
        let part = elements.div_ceil(threads).max(1);
        thread::scope(|scope| {
            let mut parts = data.chunks_mut(4 * part).enumerate();
            let first = parts.next();
            for (k, bytes) in parts {
                scope.spawn(move || fill(k * part, bytes));
            }
            if let Some((_, bytes)) = first {
                fill(0, bytes);
            }
        });
        Tensor::new(DType::F32, shape.to_vec(), data.into()).expect("four bytes for each element")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(t: &Tensor) -> (f64, f64) {
        let values = t.to_f64();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn distributions_have_their_mean_and_variance() {
        // fan_in is 64*9, fan_out 96*9.
        let shape = [96, 64, 3, 3];
        let cases: [(Init, f64, f64); 4] = [
            (Init::He, 0.0, 2.0 / 576.0),
            (Init::Glorot, 0.0, 2.0 / (576.0 + 864.0)),
            (Init::Normal { mean: 1.0, deviation: 0.1 }, 1.0, 0.01),
            (Init::Uniform { low: -1.0, high: 3.0 }, 1.0, 16.0 / 12.0),
        ];
        for (init, mean, variance) in cases {
            let (m, v) = moments(&init.tensor(7, "w", &shape));
            // 55,296 elements: the mean is known to 0.0043 deviations, the variance to 0.6 %.
            assert!((m - mean).abs() < 0.02 * variance.sqrt(), "{init:?}: mean {m}");
            assert!((v / variance - 1.0).abs() < 0.03, "{init:?}: variance {v}");
        }
    }

    #[test]
    fn noise_depends_on_seed_and_name_and_not_on_threads() {
        let of = |seed, name, n: usize| Init::He.tensor(seed, name, &[n, 1]).to_f64();
        assert_ne!(of(1, "a", 8), of(1, "b", 8));
        assert_ne!(of(1, "a", 8), of(2, "a", 8));
        // He's deviation does not depend on the first axis, so a longer tensor starts with the shorter one.
        let long = of(1, "a", 3 * CHUNK + 5);
        assert_eq!(long[..8], of(1, "a", 8));
        let noise = Noise::new(1, "a");
        let last = (2f64.sqrt() * noise.normal(3 * CHUNK as u64 + 4)) as f32;
        assert_eq!(long[3 * CHUNK + 4], f64::from(last));
    }
}
