//! Constant factors, laid out when compiling as tiles read them.
//!
//! | precision  | order               |                                                                      |
//! |------------|---------------------|----------------------------------------------------------------------|
//! | fp32, tf32 | batch, step, outer  | a slice of the tile is rows of neighbours                            |
//! | f16, bf16  | batch, outer, step  | rounded; rows end with zeros at whole 16 bytes, as fragments are read |

use super::{NodeCx, View};
use crate::kernel::{Access, Expr, Factor, Split};
use crate::lower::cx::KernelCx;
use crate::ptx::Gpu;
use crate::runtime::half;
use lehr_ir::{DType, Tensor};

/// Elements of 16 bits in 16 bytes.
const CHUNK: usize = 8;
/// Matrices are turned by blocks that the cache holds: the largest have hundreds of megabytes.
const BLOCK: usize = 32;

/// A constant factor; `outer` counts rows (of the left factor) or columns.
pub struct Weights {
    view: View,
    steps_last: bool,
}

impl Weights {
    /// `source` gives the place in `t` of an element by batch, outer and step.
    pub fn pack(
        cx: &mut NodeCx,
        gpu: Gpu,
        t: &Tensor,
        [batch, outer, steps]: [usize; 3],
        source: impl Fn(usize, usize, usize) -> usize,
    ) -> Weights {
        let to = gpu.precision.factor_type().unwrap_or(t.dtype());
        let steps_last = gpu.precision.factor_type().is_some();
        let shape = match steps_last {
            true => vec![batch, outer, steps.next_multiple_of(CHUNK)],
            false => vec![batch, steps, outer],
        };
        let (size, from) = (to.size(), t.bytes());
        let mut data = vec![0; shape.iter().product::<usize>() * size];
        let element = element_as(t.dtype(), to);
        for b in 0..batch {
            let blocks = (0..outer).step_by(BLOCK).flat_map(|o| (0..steps).step_by(BLOCK).map(move |s| (o, s)));
            for (first, from_step) in blocks {
                for o in first..(first + BLOCK).min(outer) {
                    for s in from_step..(from_step + BLOCK).min(steps) {
                        let at = if steps_last { (b * outer + o) * shape[2] + s } else { (b * steps + s) * outer + o };
                        element(from, source(b, o, s), &mut data[at * size..(at + 1) * size]);
                    }
                }
            }
        }
        let buf = cx.low.add_weights(to, data.len() / size, data.into());
        Weights { view: View::dense(buf, to, shape), steps_last }
    }

    pub fn factor(&self, k: &mut KernelCx, batch: &Expr, outer: &Expr, step: &Expr) -> Factor {
        let [rows, columns] = [self.view.shape[1] as i64, self.view.shape[2] as i64];
        let (along_outer, along_steps) = if self.steps_last { (columns, 1) } else { (1, columns) };
        let first = batch.clone() * (rows * columns);
        let at = Split { outer: first + outer.clone() * along_outer, inner: step.clone() * along_steps };
        Factor { buf: k.param_for(self.view.buf, Access::Read), at, bounds: vec![], padded: self.steps_last }
    }
}

/// Writes element `i` of some bytes in another type.
fn element_as(from: DType, to: DType) -> impl Fn(&[u8], usize, &mut [u8]) {
    let size = from.size();
    move |bytes, i, out| {
        let bytes = &bytes[i * size..(i + 1) * size];
        if from == to {
            return out.copy_from_slice(bytes);
        }
        let v = match *bytes {
            [a, b] if from == DType::F16 => half::lehr_rt_f16_to_f32(u16::from_le_bytes([a, b]).into()),
            [a, b] => half::lehr_rt_bf16_to_f32(u16::from_le_bytes([a, b]).into()),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("factors are f32, f16 or bf16"),
        };
        let bits = if to == DType::F16 { half::lehr_rt_f32_to_f16(v) } else { half::lehr_rt_f32_to_bf16(v) };
        out.copy_from_slice(&(bits as u16).to_le_bytes());
    }
}

/// A constant in the type that products of this precision round factors to; itself where they round nothing, or it is no float.
pub fn rounded(gpu: Gpu, t: Tensor) -> Tensor {
    let Some(to) = gpu.precision.factor_type().filter(|_| t.dtype() == DType::F32) else { return t };
    let element = element_as(t.dtype(), to);
    let mut data = vec![0; t.len() * to.size()];
    data.chunks_exact_mut(to.size()).enumerate().for_each(|(i, out)| element(t.bytes(), i, out));
    Tensor::new(to, t.shape().to_vec(), data.into()).expect("as many elements as before")
}

/// A constant matrix with rows and columns exchanged.
pub fn turned(t: &Tensor) -> Tensor {
    let (&[rows, columns], size) = (t.shape(), t.dtype().size()) else { unreachable!("a matrix has two axes") };
    let from = t.bytes();
    let mut to = vec![0; from.len()];
    for (r0, c0) in (0..rows).step_by(BLOCK).flat_map(|r| (0..columns).step_by(BLOCK).map(move |c| (r, c))) {
        for r in r0..(r0 + BLOCK).min(rows) {
            for c in c0..(c0 + BLOCK).min(columns) {
                let (i, o) = ((r * columns + c) * size, (c * rows + r) * size);
                to[o..o + size].copy_from_slice(&from[i..i + size]);
            }
        }
    }
    Tensor::new(t.dtype(), vec![columns, rows], to.into()).expect("as many elements as before")
}
