//! Sliding windows over spatial axes, shared by convolutions and pools: their sizes, and which elements of the
//! input a window covers.
//!
//! Attributes are below 2^31 and inferred sizes below 2^40, so positions computed in i64 cannot overflow.

use crate::diag::Diag;
use crate::dim::Dim;
pub(crate) use crate::infer::differ;

/// No real network has a stride, pad, dilation or kernel of 2^31.
const LIMIT: i64 = 1 << 31;

/// An attribute as a dimension.
pub(crate) fn dim(n: usize) -> Dim {
    Dim::Const(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Checks the attributes of windows over `rank` spatial axes, in words.
pub(crate) fn check_attrs(rank: usize, strides: &[usize], pads: &[i64], dilations: &[usize]) -> Result<(), String> {
    let lists =
        [("strides", strides.len(), rank), ("pads", pads.len(), 2 * rank), ("dilations", dilations.len(), rank)];
    for (name, len, expected) in lists {
        if len != expected {
            return Err(format!("{rank} spatial axes take {expected} {name}, {len} are given"));
        }
    }
    for (name, list) in [("stride", strides), ("dilation", dilations)] {
        if let Some(n) = list.iter().find(|&&n| n == 0 || n as u128 >= LIMIT as u128) {
            return Err(format!("a {name} of {n} is not between 1 and 2^31"));
        }
    }
    match pads.iter().find(|p| **p <= -LIMIT || **p >= LIMIT) {
        Some(p) => Err(format!("a pad of {p} is not below 2^31")),
        None => Ok(()),
    }
}

/// Pads as signed numbers; what does not fit is out of range anyway.
pub(crate) fn signed(pads: &[usize]) -> Vec<i64> {
    pads.iter().map(|&p| i64::try_from(p).unwrap_or(i64::MAX)).collect()
}

/// Number of windows along one axis; see the head of `pool.rs` for `ceil`. An error says what does not fit.
pub(crate) fn count(
    size: &Dim,
    kernel: &Dim,
    stride: usize,
    (begin, end): (i64, i64),
    dilation: usize,
    ceil: bool,
) -> Result<Dim, String> {
    if kernel.as_const().is_some_and(|k| !(1..LIMIT).contains(&k)) {
        return Err(format!("a window of {kernel} elements is not between 1 and 2^31"));
    }
    let stride = dim(stride);
    let reach = &(kernel - 1) * &dim(dilation);
    let room = &(&(&(size + begin) + end) - &reach) - 1;
    let floor = &room.floor_div(&stride) + 1;
    let windows = if !ceil {
        floor
    } else {
        let all = &room.ceil_div(&stride) + 1;
        // Windows that start before the end padding.
        let starting = &(&(size + begin) - 1).floor_div(&stride) + 1;
        let kept = all.minimum(&starting);
        // One window is dropped at most; with an end pad shorter than the window it is one at most anyway.
        match reach.as_const() {
            Some(r) if end <= r => kept,
            _ => kept.maximum(&(&all - 1)),
        }
    };
    match windows.as_const() {
        Some(n) if n < 0 => Err(format!(
            "a window of {kernel} elements with dilation {dilation} does not fit into {size} elements padded by {begin} and {end}"
        )),
        _ => Ok(windows),
    }
}

/// Maps a violation to a diagnostic.
pub(crate) fn coded<T>(code: &'static str, r: Result<T, String>) -> Result<T, Diag> {
    r.map_err(|why| Diag::new(code, why))
}

/// One spatial axis of concrete windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub begin: i64,
    pub dilation: usize,
}

impl Axis {
    /// Position in the input of tap 0 of window `o`; negative in the begin padding.
    fn start(&self, o: usize) -> i64 {
        o as i64 * self.stride as i64 - self.begin
    }

    /// The taps of window `o` that lie inside the input.
    pub fn taps(&self, o: usize) -> std::ops::Range<usize> {
        let (start, d) = (self.start(o), self.dilation as i64);
        let lo = if start >= 0 { 0 } else { (-start + d - 1) / d };
        let hi = if start >= self.size as i64 { 0 } else { (self.size as i64 - 1 - start) / d + 1 };
        let kernel = self.kernel as i64;
        lo.min(kernel) as usize..hi.clamp(lo.min(kernel), kernel) as usize
    }

    /// Position in the input of tap `k`, which lies inside, of window `o`.
    pub fn at(&self, o: usize, k: usize) -> usize {
        (self.start(o) + k as i64 * self.dilation as i64) as usize
    }

    /// How many taps of window `o` lie inside the input and its padding.
    pub fn taps_with_pads(&self, o: usize, end: i64) -> usize {
        let from_begin = o as i64 * self.stride as i64;
        let left = self.size as i64 + self.begin + end - from_begin;
        if left <= 0 { 0 } else { ((left - 1) / self.dilation as i64 + 1).min(self.kernel as i64) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(size: i64, kernel: i64, stride: usize, pads: (i64, i64), dilation: usize, ceil: bool) -> i64 {
        count(&Dim::Const(size), &Dim::Const(kernel), stride, pads, dilation, ceil).unwrap().as_const().unwrap()
    }

    #[test]
    fn window_counts() {
        assert_eq!(windows(224, 7, 2, (3, 3), 1, false), 112);
        assert_eq!(windows(4, 3, 2, (0, 0), 1, true), 2);
        // The second window would start in the end padding.
        assert_eq!(windows(2, 3, 3, (1, 1), 1, true), 1);
        assert_eq!(windows(4, 2, 1, (0, 0), 2, false), 2);
        assert!(count(&Dim::Const(2), &Dim::Const(9), 1, (0, 0), 1, false).is_err());
        assert!(count(&Dim::Const(2), &Dim::Const(0), 1, (0, 0), 1, false).is_err());
        assert!(count(&Dim::Const(2), &Dim::Const(i64::MAX), 1, (0, 0), 1, false).is_err());
    }

    #[test]
    fn symbolic_window_counts_agree_with_concrete_ones() {
        let s = Dim::symbol("s");
        for (kernel, stride, pads, dilation, ceil) in
            [(3, 2, (1, 1), 1, false), (3, 2, (0, 1), 2, true), (2, 3, (1, 5), 1, true), (2, 2, (0, 0), 1, true)]
        {
            let symbolic = count(&s, &Dim::Const(kernel), stride, pads, dilation, ceil).unwrap();
            for size in 5..20 {
                let bound = symbolic.substitute(&|_| Some(Dim::Const(size)));
                assert_eq!(bound, Dim::Const(windows(size, kernel, stride, pads, dilation, ceil)), "{kernel} {size}");
            }
        }
    }

    #[test]
    fn taps_inside() {
        let axis = Axis { size: 5, kernel: 3, stride: 2, begin: 2, dilation: 2 };
        // Window 0 covers -2, 0, 2; window 2 covers 2, 4, 6.
        assert_eq!((axis.taps(0), axis.at(0, 1)), (1..3, 0));
        assert_eq!((axis.taps(2), axis.at(2, 1)), (0..2, 4));
        assert_eq!(axis.taps(9), 0..0);
        assert_eq!((axis.taps_with_pads(2, 0), axis.taps_with_pads(2, 2), axis.taps_with_pads(0, 0)), (2, 3, 3));
    }
}
