//! Weights in the order in which the batch-reduce leaf reads them, little-endian f32, zero where there is no channel.
//!
//! Output channels come in blocks of `lanes`, and blocks in groups that a tile takes at once: `groups` lists the blocks of each
//! (see [`split_evenly`](super::split_evenly)). Padded input channels meet zero weights, so what lies in those lanes of the
//! input must be finite.

/// Shape of a convolution's weights, OIHW with `inputs` channels per group of the convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvWeights {
    /// Output channels, of all groups of the convolution.
    pub outputs: usize,
    pub inputs: usize,
    pub conv_groups: usize,
    pub kh: usize,
    pub kw: usize,
}

/// How the input that a convolution reads is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputLayout {
    /// NCHW{lanes}c: reduction loops are [ic-block][kh][kw][lanes].
    Blocked,
    /// NCHW: reduction loops are [ic][kh][kw].
    Plain,
}

/// How a GEMM's second operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixLayout {
    /// `[K, N]`.
    Kn,
    /// `[N, K]`, as with `transB`.
    Nk,
}

/// `[conv group][oc-group][ic-block][kh][kw][lanes ic][blocks][lanes oc]`, or `[..][ic][kh][kw][blocks][lanes oc]` for plain
/// input. `groups` splits the blocks of one group of the convolution.
pub fn pack_conv_weights(w: &[f32], shape: ConvWeights, input: InputLayout, lanes: usize, groups: &[u32]) -> Vec<u8> {
    let ConvWeights { outputs, inputs, conv_groups, kh, kw } = shape;
    let outputs = outputs / conv_groups.max(1);
    let (outer, inner) = match input {
        InputLayout::Blocked => (inputs.div_ceil(lanes), lanes),
        InputLayout::Plain => (inputs, 1),
    };
    let at = |g: usize, o: usize, i: usize, y: usize, x: usize| {
        if o < outputs && i < inputs { w[(((g * outputs + o) * inputs + i) * kh + y) * kw + x] } else { 0.0 }
    };
    let blocks: u32 = groups.iter().sum();
    let mut out = Vec::with_capacity(4 * conv_groups * blocks as usize * lanes * outer * inner * kh * kw);
    for g in 0..conv_groups {
        for (first, count) in channel_ranges(groups, lanes) {
            for block in 0..outer {
                for (y, x) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                    for i in block * inner..(block + 1) * inner {
                        (first..first + count).for_each(|o| out.extend_from_slice(&at(g, o, i, y, x).to_le_bytes()));
                    }
                }
            }
        }
    }
    out
}

/// `[kh][kw][lanes]` for each block of channels: a depthwise convolution's weights (one input channel per output channel).
pub fn pack_depthwise_weights(w: &[f32], channels: usize, kh: usize, kw: usize, lanes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 * channels.next_multiple_of(lanes) * kh * kw);
    for block in 0..channels.div_ceil(lanes) {
        for tap in 0..kh * kw {
            for c in block * lanes..(block + 1) * lanes {
                let x = if c < channels { w[c * kh * kw + tap] } else { 0.0 };
                out.extend_from_slice(&x.to_le_bytes());
            }
        }
    }
    out
}

/// `[group][K][blocks][lanes]`.
pub fn pack_gemm_b(b: &[f32], k: usize, n: usize, layout: MatrixLayout, lanes: usize, groups: &[u32]) -> Vec<u8> {
    let blocks: u32 = groups.iter().sum();
    let mut out = Vec::with_capacity(4 * blocks as usize * lanes * k);
    for (first, count) in channel_ranges(groups, lanes) {
        for i in 0..k {
            for j in first..first + count {
                let x = match layout {
                    _ if j >= n => 0.0,
                    MatrixLayout::Kn => b[i * n + j],
                    MatrixLayout::Nk => b[j * k + i],
                };
                out.extend_from_slice(&x.to_le_bytes());
            }
        }
    }
    out
}

/// First channel and number of channels of each group of blocks.
fn channel_ranges(groups: &[u32], lanes: usize) -> Vec<(usize, usize)> {
    let mut first = 0;
    let mut ranges = Vec::with_capacity(groups.len());
    for blocks in groups {
        let count = *blocks as usize * lanes;
        ranges.push((first, count));
        first += count;
    }
    ranges
}
