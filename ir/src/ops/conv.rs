//! Convolutions.

use super::window::{Axis, check_attrs, coded, count, differ, dim, signed};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::op::{In, OpDef, op};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::walk::for_each_index;

op! {
    /// Cross-correlation, N C spatial... by O I/groups spatial..., 1 to 3 spatial dimensions (any number is inferred and evaluated);
    /// `b` is one number per output channel. Pads are all begins, then all ends; they are resolved (no auto_pad here). Padding is
    /// zeros, which are multiplied as any number: a weight that is not finite makes NaN of them.
    /// Source: ONNX Conv, opsets 1+.
    pub struct Conv = "conv" (x: One, w: One, b: Opt) -> (y) {
        strides: Vec<usize>,
        /// Begins of all axes, then ends; never negative.
        pads: Vec<usize>,
        dilations: Vec<usize>,
        groups: usize = 1,
    }
}

op! {
    /// The gradient of a convolution with respect to its input: x is N I spatial..., w is I O/groups spatial....
    /// Output size per axis: `stride*(in - 1) + output_padding + (k - 1)*dilation + 1 - pad_begin - pad_end`.
    /// Source: ONNX ConvTranspose, opsets 1+ (output_shape and auto_pad are resolved into pads at import).
    pub struct ConvTranspose = "conv_transpose" (x: One, w: One, b: Opt) -> (y) {
        strides: Vec<usize>,
        /// Begins, then ends; may be negative (output_shape larger than natural).
        pads: Vec<i64>,
        dilations: Vec<usize>,
        output_padding: Vec<usize>,
        groups: usize = 1,
    }
}

impl OpDef for Conv {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, w) = (t.get(0), t.get(1));
        // conv.c2: x and w have the same rank, 3 or more, and b has rank 1
        check_ranks("conv.c2", x, w, t.opt(2))?;
        // conv.c3: x, w and b are of one float type
        check_dtypes("conv.c3", x, w, t.opt(2))?;
        // conv.c4: strides and dilations are positive, one per spatial axis; two pads per axis, not negative
        let pads = signed(&self.pads);
        coded("conv.c4", check_attrs(x.rank() - 2, &self.strides, &pads, &self.dilations))?;
        // conv.c1: w.dim(1) * groups == x.dim(1)
        let groups = dim(self.groups);
        let channels = &w.shape[1] * &groups;
        if self.groups == 0 || differ(&channels, &x.shape[1]) {
            return Err(Diag::new(
                "conv.c1",
                format!(
                    "the weights {w} in {groups} groups take {channels} input channels, x has {} in {x}",
                    x.shape[1]
                ),
            ));
        }
        // conv.c5: groups divides w.dim(0)
        if w.shape[0].as_const().is_some_and(|o| o % groups.as_const().unwrap_or(1) != 0) {
            return Err(Diag::new(
                "conv.c5",
                format!("{} output channels are not divisible by {groups} groups", w.shape[0]),
            ));
        }
        // conv.c6: b.dim(0) == w.dim(0)
        check_bias("conv.c6", t.opt(2), &w.shape[0])?;
        // conv.c7: the window has elements and fits into the padded input
        let n = x.rank() - 2;
        let mut shape = vec![x.shape[0].clone(), w.shape[0].clone()];
        for a in 0..n {
            let pads = (pads[a], pads[n + a]);
            let out = count(&x.shape[2 + a], &w.shape[2 + a], self.strides[a], pads, self.dilations[a], false);
            shape.push(coded("conv.c7", out)?);
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    // For every output row: the taps (one per kernel element) that touch the input, then
    //   for each output channel: row = b; for each input channel, for each tap: row[lo..hi] += w * x[.. step stride]
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, w) = (v.get(0), v.get(1));
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let (channels_out, group_in) = (w.shape()[0], w.shape()[1]);
        let group_out = channels_out / self.groups;
        let bias = v.opt(2).map_or(vec![0.0; channels_out], Tensor::to_f64);
        let (xs, ws) = (x.to_f64(), w.to_f64());
        let axes: Vec<Axis> = (0..x.rank() - 2)
            .map(|a| Axis {
                size: x.shape()[2 + a],
                kernel: w.shape()[2 + a],
                stride: self.strides[a],
                begin: self.pads[a] as i64,
                dilation: self.dilations[a],
            })
            .collect();
        let (width, lines) = shape[2..].split_last().ok_or("a convolution has a spatial axis")?;
        let plane_in: usize = x.shape()[2..].iter().product();
        let plane_out: usize = shape[2..].iter().product();
        let kernel_len: usize = w.shape()[2..].iter().product();
        let stride = *self.strides.last().ok_or("a convolution has a spatial axis")?;
        let finite = ws.iter().all(|w| w.is_finite());
        let mut y = vec![0.0; shape.iter().product()];
        for image in 0..shape[0] {
            let mut line_at = 0;
            for_each_index(lines, |line| {
                let taps = row_taps(&axes, line, *width);
                for o in 0..channels_out {
                    let at = (image * channels_out + o) * plane_out + line_at;
                    let row = &mut y[at..at + width];
                    row.fill(bias[o]);
                    for c in 0..group_in {
                        let plane = &xs[(image * x.shape()[1] + o / group_out * group_in + c) * plane_in..][..plane_in];
                        let kernel = &ws[(o * group_in + c) * kernel_len..][..kernel_len];
                        for tap in &taps {
                            accumulate(&mut row[tap.lo..tap.hi], kernel[tap.w], &plane[tap.x..], stride);
                        }
                        if !finite {
                            multiply_padding(row, kernel, &taps);
                        }
                    }
                }
                line_at += width;
            });
        }
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn flops(&self, t: In<TensorType>, out: &[TensorType]) -> Dim {
        let per_output = t.get(1).shape[1..].iter().fold(Dim::Const(2), |n, d| &n * d);
        &out[0].elements() * &per_output
    }
}

/// One kernel element over one output row.
struct Tap {
    /// Its position in the kernel.
    w: usize,
    /// The input element under output `lo`, in a plane.
    x: usize,
    /// The outputs whose window has this element inside the input.
    lo: usize,
    hi: usize,
}

fn row_taps(axes: &[Axis], line: &[usize], width: usize) -> Vec<Tap> {
    let Some((last, outer)) = axes.split_last() else { return vec![] };
    let inside: Vec<_> = outer.iter().zip(line).map(|(a, &o)| a.taps(o)).collect();
    let lens: Vec<usize> = inside.iter().map(|r| r.len()).collect();
    let mut taps = vec![];
    for_each_index(&lens, |index| {
        let (mut w, mut x) = (0, 0);
        for (i, axis) in outer.iter().enumerate() {
            let k = inside[i].start + index[i];
            w = w * axis.kernel + k;
            x = x * axis.size + axis.at(line[i], k);
        }
        for k in 0..last.kernel {
            let mut covered = (0..width).filter(|&o| last.taps(o).contains(&k));
            let Some(lo) = covered.next() else { continue };
            let hi = covered.next_back().unwrap_or(lo) + 1;
            taps.push(Tap { w: w * last.kernel + k, x: x * last.size + last.at(lo, k), lo, hi });
        }
    });
    taps
}

fn accumulate(row: &mut [f64], w: f64, x: &[f64], stride: usize) {
    if stride == 1 {
        for (y, x) in row.iter_mut().zip(x) {
            *y += w * x;
        }
    } else {
        for (i, y) in row.iter_mut().enumerate() {
            *y += w * x[i * stride];
        }
    }
}

/// The products of weights that are not finite and the zeros outside of the input; those of other weights add nothing.
fn multiply_padding(row: &mut [f64], kernel: &[f64], taps: &[Tap]) {
    for (k, w) in kernel.iter().enumerate().filter(|(_, w)| !w.is_finite()) {
        let inside = taps.iter().find(|tap| tap.w == k).map_or(0..0, |tap| tap.lo..tap.hi);
        for (_, y) in row.iter_mut().enumerate().filter(|(i, _)| !inside.contains(i)) {
            *y += w * 0.0;
        }
    }
}

impl OpDef for ConvTranspose {
    fn infer(&self, t: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        let (x, w) = (t.get(0), t.get(1));
        // conv_transpose.c2: x and w have the same rank, 3 or more, and b has rank 1
        check_ranks("conv_transpose.c2", x, w, t.opt(2))?;
        // conv_transpose.c3: x, w and b are of one float type
        check_dtypes("conv_transpose.c3", x, w, t.opt(2))?;
        // conv_transpose.c4: strides and dilations are positive, one per spatial axis; two pads and one output padding per axis
        let n = x.rank() - 2;
        coded("conv_transpose.c4", check_attrs(n, &self.strides, &self.pads, &self.dilations))?;
        let extra = signed(&self.output_padding);
        coded("conv_transpose.c4", check_attrs(n, &self.strides, &[&extra[..], &extra[..]].concat(), &self.dilations))
            .map_err(|d| d.note("the pads meant are the output padding, twice"))?;
        // conv_transpose.c1: w.dim(0) == x.dim(1), in whole groups
        let groups = dim(self.groups);
        if self.groups == 0 || differ(&w.shape[0], &x.shape[1]) {
            return Err(Diag::new(
                "conv_transpose.c1",
                format!(
                    "the weights {w} take {} input channels in {groups} groups, x has {} in {x}",
                    w.shape[0], x.shape[1]
                ),
            ));
        }
        if x.shape[1].as_const().is_some_and(|c| c % groups.as_const().unwrap_or(1) != 0) {
            return Err(Diag::new(
                "conv_transpose.c1",
                format!("{} input channels are not divisible by {groups} groups", x.shape[1]),
            ));
        }
        // conv_transpose.c6: b.dim(0) == w.dim(1) * groups
        let channels = &w.shape[1] * &groups;
        check_bias("conv_transpose.c6", t.opt(2), &channels)?;
        // conv_transpose.c7: the kernel has elements and the output size is not negative
        let mut shape = vec![x.shape[0].clone(), channels];
        for (a, &extra) in extra.iter().enumerate() {
            let (size, kernel) = (&x.shape[2 + a], &w.shape[2 + a]);
            if kernel.as_const().is_some_and(|k| k < 1) {
                return Err(Diag::new("conv_transpose.c7", format!("the weights {w} have an empty kernel")));
            }
            let span = &(&(size - 1) * &dim(self.strides[a])) + &(&(kernel - 1) * &dim(self.dilations[a]));
            let out = &(&(&(&span + extra) + 1) - self.pads[a]) - self.pads[n + a];
            if out.as_const().is_some_and(|d| d < 0) {
                return Err(Diag::new(
                    "conv_transpose.c7",
                    format!(
                        "the pads {} and {} leave {out} output elements on spatial axis {a}",
                        self.pads[a],
                        self.pads[n + a]
                    ),
                ));
            }
            shape.push(out);
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    // y[n, o, i*stride + k*dilation - pad] += x[n, c, i] * w[c, o, k], for all i and k
    fn eval(&self, v: In<Tensor>, out: &[TensorType]) -> Result<Vec<Tensor>, String> {
        let (x, w) = (v.get(0), v.get(1));
        let shape = out[0].const_shape().ok_or("the output's shape is not known")?;
        let (channels_in, channels_out, group_out) = (x.shape()[1], shape[1], w.shape()[1]);
        let group_in = channels_in / self.groups;
        let bias = v.opt(2).map_or(vec![0.0; channels_out], Tensor::to_f64);
        let (xs, ws) = (x.to_f64(), w.to_f64());
        let (size_in, kernel, size_out) = (&x.shape()[2..], &w.shape()[2..], &shape[2..]);
        let plane_in: usize = size_in.iter().product();
        let plane_out: usize = size_out.iter().product();
        let kernel_len: usize = kernel.iter().product();
        let mut y = vec![0.0; shape.iter().product()];
        if y.is_empty() {
            return Ok(vec![Tensor::from_f64(x.dtype(), shape, y)]);
        }
        for (plane_at, plane) in y.chunks_exact_mut(plane_out).enumerate() {
            let (image, o) = (plane_at / channels_out, plane_at % channels_out);
            plane.fill(bias[o]);
            let group = o / group_out;
            for c in group * group_in..(group + 1) * group_in {
                let input = &xs[(image * channels_in + c) * plane_in..][..plane_in];
                let taps = &ws[(c * group_out + o % group_out) * kernel_len..][..kernel_len];
                let mut from = 0;
                for_each_index(size_in, |i| {
                    let value = input[from];
                    from += 1;
                    let mut tap = 0;
                    for_each_index(kernel, |k| {
                        if let Some(at) = self.target(i, k, size_out) {
                            plane[at] += value * taps[tap];
                        }
                        tap += 1;
                    });
                });
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn flops(&self, t: In<TensorType>, _: &[TensorType]) -> Dim {
        let per_input = t.get(1).shape[1..].iter().fold(Dim::Const(2), |n, d| &n * d);
        &t.get(0).elements() * &per_input
    }
}

impl ConvTranspose {
    /// The flat output position that input `i` reaches through kernel element `k`, unless it is cut off by the pads.
    fn target(&self, i: &[usize], k: &[usize], size_out: &[usize]) -> Option<usize> {
        let mut at = 0;
        for (a, &size) in size_out.iter().enumerate() {
            let to = i[a] as i64 * self.strides[a] as i64 + k[a] as i64 * self.dilations[a] as i64 - self.pads[a];
            let to = usize::try_from(to).ok().filter(|&to| to < size)?;
            at = at * size + to;
        }
        Some(at)
    }
}

fn check_ranks(code: &'static str, x: &TensorType, w: &TensorType, b: Option<&TensorType>) -> Result<(), Diag> {
    if x.rank() < 3 || x.rank() != w.rank() {
        return Err(Diag::new(code, format!("x and w need the same rank, 3 or more: x is {x}, w is {w}")));
    }
    match b {
        Some(b) if b.rank() != 1 => Err(Diag::new(code, format!("the bias needs one dimension, it is {b}"))),
        _ => Ok(()),
    }
}

fn check_dtypes(code: &'static str, x: &TensorType, w: &TensorType, b: Option<&TensorType>) -> Result<(), Diag> {
    if !x.dtype.is_float() || !x.dtype.is_computable() {
        return Err(Diag::new(code, format!("convolutions take f64, f32, f16 or bf16, x is {x}")));
    }
    match [Some(w), b].into_iter().flatten().find(|t| t.dtype != x.dtype) {
        Some(other) => Err(Diag::new(code, format!("x is {x}, but the weights or the bias are {other}"))),
        None => Ok(()),
    }
}

fn check_bias(code: &'static str, b: Option<&TensorType>, channels: &Dim) -> Result<(), Diag> {
    match b {
        Some(b) if differ(&b.shape[0], channels) => {
            Err(Diag::new(code, format!("the bias {b} is not one number for each of {channels} output channels")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn run(op: impl OpDef, xs: &[&Tensor]) -> Result<Tensor, Diag> {
        let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
        let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
        let y = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out).unwrap().remove(0);
        assert_eq!(y.ty(), out[0]);
        Ok(y)
    }

    fn count(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_i128(DType::F32, shape.to_vec(), (0..n).map(|v| v as i128))
    }

    fn ones(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_i128(DType::F32, shape.to_vec(), (0..n).map(|_| 1))
    }

    fn conv(strides: &[usize], pads: &[usize], dilations: &[usize], groups: usize) -> Conv {
        Conv { strides: strides.to_vec(), pads: pads.to_vec(), dilations: dilations.to_vec(), groups }
    }

    // Expectations of ONNX's node tests basic_conv_with_padding and conv_with_strides_and_asymmetric_padding.
    #[test]
    fn conv_2d() {
        let w = ones(&[1, 1, 3, 3]);
        let y = run(conv(&[1, 1], &[1; 4], &[1, 1], 1), &[&count(&[1, 1, 5, 5]), &w]).unwrap();
        assert_eq!(y.to_f64()[..10], [12., 21., 27., 33., 24., 33., 54., 63., 72., 51.]);
        let y = run(conv(&[2, 2], &[1, 0, 1, 0], &[1, 1], 1), &[&count(&[1, 1, 7, 5]), &w]).unwrap();
        assert_eq!(y.to_f64(), [21., 33., 99., 117., 189., 207., 171., 183.]);
    }

    #[test]
    fn conv_1d_with_groups_dilation_and_odd_pads() {
        // Group 0: x 0 1 2 3, w 0 1; group 1: x 4 5 6 7, w 2 3. Taps at o-1 and o+1, and at o+1 and o+3 past the end.
        let y = run(conv(&[1], &[1, 2], &[2], 2), &[&count(&[1, 2, 4]), &count(&[2, 1, 2]), &count(&[2])]).unwrap();
        assert_eq!(y.to_f64(), [1., 2., 3., 0., 0., 16., 27., 32., 13., 15.]);
    }

    #[test]
    fn padding_is_multiplied() {
        // The second tap is infinite, and above the padding for the last output alone.
        let w = Tensor::from_f64(DType::F32, vec![1, 1, 2], [1.0, f64::INFINITY]);
        let x = Tensor::from_f64(DType::F32, vec![1, 1, 2], [1.0, 2.0]);
        let y = run(conv(&[1], &[0, 1], &[1], 1), &[&x, &w]).unwrap().to_f64();
        assert!(y[0] == f64::INFINITY && y[1].is_nan(), "{y:?}");
        let w = Tensor::from_f64(DType::F32, vec![1, 1, 2], [f64::NEG_INFINITY, 1.0]);
        let y = run(conv(&[2], &[1, 0], &[1], 1), &[&x, &w]).unwrap().to_f64();
        assert!(y.len() == 1 && y[0].is_nan(), "{y:?}");
    }

    #[test]
    fn empty_convolutions() {
        let y = run(conv(&[1], &[0, 0], &[1], 1), &[&count(&[2, 0, 3]), &count(&[2, 0, 1]), &count(&[2])]).unwrap();
        assert_eq!(y.to_f64(), [0., 0., 0., 1., 1., 1., 0., 0., 0., 1., 1., 1.]);
        for (x, w) in [([0, 1, 3], [1, 1, 2]), ([1, 1, 3], [0, 1, 2]), ([1, 1, 1], [1, 1, 2])] {
            assert!(run(conv(&[1], &[0, 0], &[1], 1), &[&count(&x), &count(&w)]).unwrap().is_empty());
        }
    }

    #[test]
    fn constraints() {
        let (x, w) = (count(&[1, 4, 5]), count(&[4, 2, 3]));
        let check = |op: Conv, xs: &[&Tensor], code| assert_eq!(run(op, xs).unwrap_err().code, code);
        check(conv(&[1], &[0, 0], &[1], 1), &[&x, &w], "conv.c1");
        check(conv(&[1], &[0, 0], &[1], 0), &[&x, &w], "conv.c1");
        check(conv(&[1], &[0, 0], &[1], usize::MAX), &[&x, &w], "conv.c1");
        check(conv(&[1], &[0, 0], &[1], 1), &[&x, &count(&[4, 2])], "conv.c2");
        check(conv(&[1], &[0, 0], &[1], 1), &[&Tensor::i64s(&[1]).reshaped(vec![1, 1, 1]).unwrap(), &w], "conv.c3");
        check(conv(&[0], &[0, 0], &[1], 2), &[&x, &w], "conv.c4");
        check(conv(&[1, 1], &[0, 0], &[1], 2), &[&x, &w], "conv.c4");
        check(conv(&[1], &[0, 0], &[1], 2), &[&x, &count(&[3, 2, 3])], "conv.c5");
        check(conv(&[1], &[0, 0], &[1], 2), &[&x, &w, &count(&[3])], "conv.c6");
        check(conv(&[1], &[0, 0], &[9], 2), &[&x, &w], "conv.c7");
    }

    #[test]
    fn symbolic_sizes() {
        let (h, w) = (Dim::symbol("h"), Dim::Const(3));
        let x = TensorType::new(DType::F32, [Dim::ONE, w.clone(), h]);
        let w = TensorType::new(DType::F32, [8i64, 3, 3]);
        let out = conv(&[2], &[1, 1], &[1], 1).infer(In(&[Some(&x), Some(&w)])).unwrap();
        assert_eq!(out[0].to_string(), "f32[1,8,floor((h - 1)/(2)) + 1]");
        assert_eq!(
            conv(&[2], &[1, 1], &[1], 1).flops(In(&[Some(&x), Some(&w)]), &out).to_string(),
            "144*floor((h - 1)/(2)) + 144"
        );
    }

    fn transpose(
        strides: &[usize],
        pads: &[i64],
        dilations: &[usize],
        extra: &[usize],
        groups: usize,
    ) -> ConvTranspose {
        ConvTranspose {
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: dilations.to_vec(),
            output_padding: extra.to_vec(),
            groups,
        }
    }

    // Expectations of ONNX's node tests convtranspose, convtranspose_dilations and convtranspose_pads (its first column).
    #[test]
    fn conv_transpose_2d() {
        let op = transpose(&[1, 1], &[0; 4], &[1, 1], &[0, 0], 1);
        let y = run(op, &[&count(&[1, 1, 3, 3]), &ones(&[1, 2, 3, 3])]).unwrap();
        assert_eq!(y.shape(), [1, 2, 5, 5]);
        assert_eq!(y.to_f64()[..10], [0., 1., 3., 3., 2., 3., 8., 15., 12., 7.]);
        let x = Tensor::from_f64(DType::F32, vec![1, 1, 3, 3], [3., 8., 1., 9., 5., 7., 3., 2., 6.]);
        let w = Tensor::from_f64(DType::F32, vec![1, 1, 2, 2], [7., 2., 1., 9.]);
        let y = run(transpose(&[1, 1], &[0; 4], &[2, 2], &[0, 0], 1), &[&x, &w]).unwrap();
        assert_eq!(y.to_f64()[..15], [21., 56., 13., 16., 2., 63., 35., 67., 10., 14., 24., 22., 76., 76., 21.]);
        let op = transpose(&[3, 2], &[1, 2, 1, 2], &[1, 1], &[0, 0], 1);
        let y = run(op, &[&count(&[1, 1, 3, 3]), &ones(&[1, 2, 3, 3])]).unwrap();
        assert_eq!((y.shape(), &y.to_f64()[..6]), (&[1, 2, 7, 3][..], &[1., 1., 3., 1., 1., 3.][..]));
    }

    #[test]
    fn conv_transpose_with_groups_and_negative_pads() {
        // Each group upsamples its channel by its weight; a negative pad adds a zero at the front.
        let op = transpose(&[2], &[-1, 0], &[1], &[1], 2);
        let y = run(op, &[&count(&[1, 2, 2]), &count(&[2, 1, 1]), &count(&[2])]).unwrap();
        assert_eq!((y.shape(), y.to_f64()), (&[1, 2, 5][..], vec![0., 0., 0., 0., 0., 1., 3., 1., 4., 1.]));
        let y = run(transpose(&[2], &[9, 9], &[1], &[1], 2), &[&count(&[1, 2, 2]), &count(&[2, 1, 1])]);
        assert_eq!(y.unwrap_err().code, "conv_transpose.c7");
        let y = run(transpose(&[2], &[i64::MIN, 9], &[1], &[1], 2), &[&count(&[1, 2, 2]), &count(&[2, 1, 1])]);
        assert_eq!(y.unwrap_err().code, "conv_transpose.c4");
    }
}
