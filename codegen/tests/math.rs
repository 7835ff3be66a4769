//! The runtime's scalar functions against two others: the `libm` crate and the C library behind `std`.

use lehr_codegen::runtime::math::*;
use proptest::prelude::*;

type Unary = extern "C" fn(f64) -> f64;
type Reference = fn(f64) -> f64;

/// name, ours, the C library's, the `libm` crate's
const FUNCTIONS: [(&str, Unary, Reference, Reference); 17] = [
    ("sin", lehr_rt_sin_f64, f64::sin, libm::sin),
    ("cos", lehr_rt_cos_f64, f64::cos, libm::cos),
    ("tan", lehr_rt_tan_f64, f64::tan, libm::tan),
    ("asin", lehr_rt_asin_f64, f64::asin, libm::asin),
    ("acos", lehr_rt_acos_f64, f64::acos, libm::acos),
    ("atan", lehr_rt_atan_f64, f64::atan, libm::atan),
    ("sinh", lehr_rt_sinh_f64, f64::sinh, libm::sinh),
    ("cosh", lehr_rt_cosh_f64, f64::cosh, libm::cosh),
    ("tanh", lehr_rt_tanh_f64, f64::tanh, libm::tanh),
    ("asinh", lehr_rt_asinh_f64, libm::asinh, libm::asinh),
    ("acosh", lehr_rt_acosh_f64, acosh, acosh),
    ("atanh", lehr_rt_atanh_f64, libm::atanh, libm::atanh),
    ("exp", lehr_rt_exp_f64, f64::exp, libm::exp),
    ("expm1", lehr_rt_expm1_f64, f64::exp_m1, libm::expm1),
    ("log", lehr_rt_log_f64, f64::ln, libm::log),
    ("log1p", lehr_rt_log1p_f64, f64::ln_1p, libm::log1p),
    ("erf", lehr_rt_erf_f64, libm::erf, libm::erf),
];

/// `libm::acosh` returns numbers for arguments below -1, where there is no inverse.
fn acosh(x: f64) -> f64 {
    if x < 1.0 { f64::NAN } else { libm::acosh(x) }
}

/// Distance in units in the last place: 0 for equal numbers and for two NaNs; zeros of different sign are 1 apart.
fn ulps(a: f64, b: f64) -> u64 {
    if a.is_nan() && b.is_nan() {
        return 0;
    }
    if a.is_nan() != b.is_nan() {
        return u64::MAX;
    }
    let ordered = |x: f64| {
        let bits = x.to_bits() as i64;
        if bits < 0 { (bits ^ i64::MAX) as i128 } else { bits as i128 }
    };
    (ordered(a) - ordered(b)).unsigned_abs() as u64
}

/// Arguments of every magnitude, and more of those where the functions do something.
fn argument() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        -1.0f64..1.0,
        -8.0f64..8.0,
        -50.0f64..50.0,
        -800.0f64..800.0,
        -1e5f64..1e5,
        (1u64..1 << 53, -1000i32..960).prop_map(|(m, e)| m as f64 * 2f64.powi(e)),
        // Near multiples of pi/2 and of ln 2.
        (0i32..2000, -4i64..4).prop_map(|(k, d)| f64::from_bits(
            (k as f64 * std::f64::consts::FRAC_PI_2).to_bits().wrapping_add_signed(d)
        )),
        (-1000i32..1000, -4i64..4)
            .prop_map(|(k, d)| f64::from_bits((k as f64 * std::f64::consts::LN_2).to_bits().wrapping_add_signed(d))),
        // Near 1, from both sides, at every distance.
        (1i32..53, any::<bool>()).prop_map(|(e, up)| if up { 1.0 + 2f64.powi(-e) } else { 1.0 - 2f64.powi(-e) }),
    ]
}

/// The references err by up to one unit themselves (and `libm`'s hyperbolic ones by two), so the nearer of the two counts.
const LIMIT: u64 = 2;

fn check(x: f64) -> Result<(), String> {
    for (name, ours, one, two) in FUNCTIONS {
        let (got, a, b) = (ours(x), one(x), two(x));
        let distance = ulps(got, a).min(ulps(got, b));
        if distance > LIMIT {
            return Err(format!("{name}({x:e} = {:#x}) = {got:e}, not {a:e} or {b:e}: {distance} units", x.to_bits()));
        }
    }
    Ok(())
}

fn check_two(x: f64, y: f64) -> Result<(), String> {
    let (pow, a, b) = (lehr_rt_pow_f64(x, y), x.powf(y), libm::pow(x, y));
    if ulps(pow, a).min(ulps(pow, b)) > LIMIT {
        return Err(format!("pow({x:e}, {y:e}) = {pow:e}, not {a:e}"));
    }
    let (rest, a) = (lehr_rt_fmod_f64(x, y), x % y);
    if ulps(rest, a) > 0 {
        return Err(format!("fmod({x:e}, {y:e}) = {rest:e}, not {a:e}"));
    }
    Ok(())
}

const AWKWARD: [f64; 28] = [
    0.0,
    1.0,
    2.0,
    3.0,
    0.5,
    1e-300,
    5e-324,
    2.2250738585072014e-308,
    f64::MAX,
    f64::INFINITY,
    f64::NAN,
    88.72283905206835,
    709.782712893384,
    709.7827128933841,
    745.1332191019411,
    745.2,
    6381956970095103.0,
    9007199254740991.0,
    9007199254740993.0,
    1e22,
    std::f64::consts::FRAC_PI_2,
    std::f64::consts::PI,
    5.319372648326541e255,
    0.9999999999999999,
    1.0000000000000002,
    1e-9,
    4503599627370497.5,
    1e308,
];

#[test]
fn awkward_arguments() {
    let both = || AWKWARD.iter().flat_map(|&x| [x, -x]);
    for x in both() {
        check(x).unwrap();
        for y in both() {
            check_two(x, y).unwrap();
        }
    }
}

/// Values of Payne and Hanek's worst case and of C99's annex F, from the literature and the standard.
#[test]
fn known_values() {
    assert_eq!(lehr_rt_cos_f64(6381956970095103.0 * 2f64.powi(797)), -4.687_165_924_254_628E-19);
    assert_eq!(lehr_rt_sin_f64(1e22), -0.8522008497671888);
    assert_eq!(lehr_rt_pow_f64(-8.0, 1.0 / 3.0).to_bits() >> 52 & 0x7ff, 0x7ff);
    assert_eq!(lehr_rt_pow_f64(-1.0, f64::INFINITY), 1.0);
    assert_eq!(lehr_rt_pow_f64(f64::NAN, 0.0), 1.0);
    assert_eq!(lehr_rt_pow_f64(-0.0, -3.0), f64::NEG_INFINITY);
    assert_eq!(lehr_rt_erf_f64(1.0), 0.8427007929497149);
    assert_eq!(lehr_rt_log1p_f64(-1.0), f64::NEG_INFINITY);
    for (_, function, reference, _) in FUNCTIONS {
        let (got, wanted) = (function(-0.0), reference(-0.0));
        assert!(got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan());
    }
}

#[test]
fn half_floats_convert_as_the_half_crate_does() {
    use lehr_codegen::runtime::half::*;
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (lehr_rt_f16_to_f32(bits as u32), half::f16::from_bits(bits).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "f16 {bits:#x}");
        let (ours, theirs) = (lehr_rt_bf16_to_f32(bits as u32), half::bf16::from_bits(bits).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "bf16 {bits:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_argument(x in argument()) {
        check(x).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn two_arguments(x in argument(), y in argument()) {
        check_two(x, y).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn halves_round_to_nearest_even(bits in any::<u32>()) {
        use lehr_codegen::runtime::half::*;
        let x = f32::from_bits(bits);
        let f16 = half::f16::from_bits(lehr_rt_f32_to_f16(x) as u16);
        let bf16 = half::bf16::from_bits(lehr_rt_f32_to_bf16(x) as u16);
        if x.is_nan() {
            prop_assert!(f16.is_nan() && bf16.is_nan());
        } else {
            prop_assert_eq!(f16.to_bits(), half::f16::from_f32(x).to_bits());
            prop_assert_eq!(bf16.to_bits(), half::bf16::from_f32(x).to_bits());
        }
    }
}
