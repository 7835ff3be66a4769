//! fmod: the exact remainder of truncated division, by long division on the mantissas, eleven bits a step.

/// `x - trunc(x / y) * y` with the sign of `x`; NaN for an infinite `x` or a zero `y`.
pub fn fmod(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() || x.is_infinite() || y == 0.0 {
        return f64::NAN;
    }
    let sign = x.to_bits() & 1 << 63;
    let (a, b) = (x.to_bits() & !(1 << 63), y.to_bits() & !(1 << 63));
    if a < b {
        return x;
    }
    let ((mut rest, exponent), (divisor, last)) = (split(a), split(b));
    let mut left = exponent.wrapping_sub(last);
    loop {
        let Some(remainder) = rest.checked_rem(divisor) else {
            return f64::NAN;
        };
        rest = remainder;
        if left == 0 {
            break;
        }
        // The divisor is below 2^53, so the remainder has eleven bits of room.
        let step = left.min(11);
        rest <<= step;
        left -= step;
    }
    f64::from_bits(join(rest, last) | sign)
}

/// Mantissa and exponent of a finite, positive number: `mantissa * 2^(exponent - 1075)`, exponent at least 1.
fn split(bits: u64) -> (u64, u32) {
    let exponent = (bits >> 52) as u32;
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 { (fraction, 1) } else { (fraction | 1 << 52, exponent) }
}

/// The inverse of `split`, for a mantissa that may have leading zeros.
fn join(mantissa: u64, exponent: u32) -> u64 {
    if mantissa == 0 {
        return 0;
    }
    let shift = mantissa.leading_zeros().saturating_sub(11).min(exponent.saturating_sub(1));
    let (mantissa, exponent) = (mantissa << shift, exponent - shift);
    // A mantissa without its leading bit is a subnormal, whose exponent field is 0.
    mantissa.wrapping_add(((exponent as u64) << 52).wrapping_sub(1 << 52))
}
