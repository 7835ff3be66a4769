//! Comparing tensors within a tolerance, and making memory dirty before compiled code uses it.

use lehr_ir::Tensor;

/// The first element that differs by more than `tolerance` times the largest finite magnitude of `expected` (and the
/// types, if they differ). NaN equals NaN; infinities must be equal; a tolerance of 0 asks for equal values, and integers and
/// booleans must be equal whatever the tolerance.
pub fn difference(expected: &Tensor, got: &Tensor, tolerance: f64) -> Option<String> {
    if expected.ty() != got.ty() {
        return Some(format!("{} is expected, not {}", expected.ty(), got.ty()));
    }
    if !expected.dtype().is_float() {
        let (a, b) = (expected.to_i128(), got.to_i128());
        let at = (0..a.len()).find(|&i| a[i] != b[i])?;
        return Some(format!("element {at} of {} is {}, not {}", a.len(), b[at], a[at]));
    }
    let (a, b) = (expected.to_f64(), got.to_f64());
    let largest = a.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    let allowed = tolerance * largest;
    let equal = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed;
    let at = (0..a.len()).find(|&i| !equal(a[i], b[i]))?;
    Some(format!("element {at} of {} is {}, not {} (allowed: {allowed:e})", a.len(), b[at], a[at]))
}

/// The larger tolerance under which a result may differ by `tolerance` of `most`, the largest number on the way to it: sums that
/// cancel leave its rounding.
pub fn of_largest(tolerance: f64, most: f64, expected: &Tensor) -> f64 {
    let finite = expected.to_f64().into_iter().filter(|v| v.is_finite());
    let largest = finite.fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    tolerance * (most / largest).max(1.0)
}

/// Leaves NaNs in freed memory of many sizes, so that a kernel that reads what nobody wrote is likely to show it.
pub fn dirty_memory() {
    let sizes = (6..20).flat_map(|log| [1usize << log, 3 << (log - 1)]);
    let blocks: Vec<Vec<u32>> = sizes.flat_map(|bytes| vec![vec![0x7fc0_0000; bytes / 4]; 4]).collect();
    drop(std::hint::black_box(blocks));
}
