//! Floating-point arithmetic. Half precision is checked against a table of all its values; roundings against the exact
//! value of the operands.

use crate::common::map;

const SINGLES: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    3.1875,
    1e-3,
    -1e30,
    3e38,
    1e-38,
    1e-45,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    0.333_333_34,
    16_777_217.0,
    88.5,
];

fn bits(values: &[f32]) -> Vec<Vec<u64>> {
    values.iter().map(|v| vec![u64::from(v.to_bits())]).collect()
}

fn pairs() -> Vec<Vec<u64>> {
    let all = SINGLES.map(|v| u64::from(v.to_bits()));
    all.iter().flat_map(|&a| all.iter().map(move |&b| vec![a, b])).collect()
}

fn same(found: u64, expected: f32, what: &str) {
    let found = f32::from_bits(found as u32);
    if expected.is_nan() {
        assert_eq!(found.to_bits(), 0x7fff_ffff, "{what}: the canonical NaN");
    } else {
        assert_eq!(found.to_bits(), expected.to_bits(), "{what}: {found:e}, not {expected:e}");
    }
}

fn check2(instruction: &str, f: impl Fn(f32, f32) -> f32) {
    let rows = pairs();
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, &format!("{instruction} %d, %a, %b;"), &rows)) {
        let (a, b) = (f32::from_bits(row[0] as u32), f32::from_bits(row[1] as u32));
        same(found, f(a, b), &format!("{instruction} {a:e}, {b:e}"));
    }
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// The smaller by the ISA: NaN loses, -0 < +0.
fn min(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == 0.0 && b == 0.0 => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

#[test]
fn single_precision() {
    check2("add.f32", |a, b| a + b);
    check2("add.rn.f32", |a, b| a + b);
    check2("sub.f32", |a, b| a - b);
    check2("mul.f32", |a, b| a * b);
    check2("mul.ftz.f32", |a, b| flushed(flushed(a) * flushed(b)));
    check2("add.ftz.f32", |a, b| flushed(flushed(a) + flushed(b)));
    let clamp = |x: f32| if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) };
    check2("add.sat.f32", |a, b| clamp(a + b));
    check2("div.rn.f32", |a, b| a / b);
    check2("div.full.f32", |a, b| a / b);
    check2("min.f32", min);
    check2("max.f32", |a, b| -min(-a, -b));
    check2("min.NaN.f32", |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { min(a, b) });
    let body = "fma.rn.f32 %d, %a, %b, %a;";
    let rows = pairs();
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, body, &rows)) {
        let (a, b) = (f32::from_bits(row[0] as u32), f32::from_bits(row[1] as u32));
        same(found, a.mul_add(b, a), &format!("fma {a:e} {b:e}"));
    }
    // The sign of the first operand, the magnitude of the second.
    for (row, found) in rows.iter().zip(map(&[4, 4], 4, "copysign.f32 %d, %a, %b;", &rows)) {
        assert_eq!(found, row[0] & 0x8000_0000 | row[1] & 0x7fff_ffff);
    }
}

#[test]
fn functions_of_single_precision() {
    let check = |instruction: &str, f: &dyn Fn(f64) -> f64| {
        let rows = bits(&SINGLES);
        for (v, found) in SINGLES.iter().zip(map(&[4], 4, &format!("{instruction} %d, %a;"), &rows)) {
            same(found, f(f64::from(*v)) as f32, &format!("{instruction} {v:e}"));
        }
    };
    check("ex2.approx.f32", &f64::exp2);
    check("lg2.approx.f32", &f64::log2);
    check("sin.approx.f32", &f64::sin);
    check("cos.approx.f32", &f64::cos);
    check("tanh.approx.f32", &f64::tanh);
    check("rsqrt.approx.f32", &|x| 1.0 / x.sqrt());
    check("rcp.approx.f32", &|x| 1.0 / x);
    check("rcp.rn.f32", &|x| 1.0 / x);
    check("sqrt.rn.f32", &f64::sqrt);
    check("sqrt.approx.ftz.f32", &|x| f64::from(flushed(x as f32)).sqrt());
    check("ex2.approx.ftz.f32", &|x| f64::from(flushed(f64::from(flushed(x as f32)).exp2() as f32)));
    let rows = bits(&SINGLES);
    for (v, found) in SINGLES.iter().zip(map(&[4], 4, "neg.f32 %r0, %a; abs.f32 %d, %r0;", &rows)) {
        assert_eq!(found as u32, v.abs().to_bits());
    }
    let kinds = "testp.finite.f32 %p, %a; selp.b32 %r0, 1, 0, %p; testp.subnormal.f32 %p, %a; selp.b32 %r1, 2, 0, %p;
                 or.b32 %r0, %r0, %r1; testp.notanumber.f32 %p, %a; selp.b32 %r1, 4, 0, %p; or.b32 %r0, %r0, %r1;
                 testp.infinite.f32 %p, %a; selp.b32 %r1, 8, 0, %p; or.b32 %d, %r0, %r1;";
    for (v, found) in SINGLES.iter().zip(map(&[4], 4, kinds, &rows)) {
        let expected = u32::from(v.is_finite())
            + 2 * u32::from(v.is_subnormal())
            + 4 * u32::from(v.is_nan())
            + 8 * u32::from(v.is_infinite());
        assert_eq!(found as u32, expected, "{v:e}");
    }
}

#[test]
#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    reason = "how these treat NaN is what is tested"
)]
fn comparisons_know_nan() {
    let rows = pairs();
    for (name, f) in [
        ("lt", (|a, b| a < b) as fn(f32, f32) -> bool),
        ("ltu", |a, b| !(a >= b)),
        ("geu", |a, b| !(a < b)),
        ("ne", |a, b| a < b || a > b),
        ("neu", |a, b| a != b),
        ("equ", |a, b| !(a < b || a > b)),
        ("leu", |a, b| !(a > b)),
        ("gtu", |a, b| !(a <= b)),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ] {
        let body = format!("setp.{name}.f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;");
        for (row, found) in rows.iter().zip(map(&[4, 4], 4, &body, &rows)) {
            let (a, b) = (f32::from_bits(row[0] as u32), f32::from_bits(row[1] as u32));
            assert_eq!(found == 1, f(a, b), "{name} {a:e} {b:e}");
        }
    }
    let out = map(&[4], 4, "setp.eq.ftz.f32 %p, %a, 0f00000000; selp.b32 %d, 1, 0, %p;", &bits(&[1e-45, 1e-30]));
    assert_eq!(out, [1, 0]);
}

#[test]
fn directed_roundings_enclose_the_exact_value() {
    // Sums and products of these are exact in f64.
    let values = [1.0f32, 3.1875, -2.7, 0.1, -1e5, 16_777_215.0, 7e-5];
    for (instruction, exact) in
        [("add", (|a, b| a + b) as fn(f64, f64) -> f64), ("sub", |a, b| a - b), ("mul", |a, b| a * b)]
    {
        for &a in &values {
            for &b in &values {
                let run = |mode: &str| {
                    let rows = [vec![u64::from(a.to_bits()), u64::from(b.to_bits())]];
                    let out = map(&[4, 4], 4, &format!("{instruction}.{mode}.f32 %d, %a, %b;"), &rows);
                    f32::from_bits(out[0] as u32)
                };
                let x = exact(f64::from(a), f64::from(b));
                let (down, up, zero) = (run("rm"), run("rp"), run("rz"));
                assert!(f64::from(down) <= x && x <= f64::from(up), "{instruction} {a} {b}: {down} {x} {up}");
                assert!(down == up || down.next_up() == up, "the two are neighbours");
                assert_eq!(down == up, f64::from(down) == x);
                assert_eq!(zero, if x > 0.0 { down } else { up });
            }
        }
    }
    let run = |instruction: &str, a: f32, b: f32| {
        let rows = [vec![u64::from(a.to_bits()), u64::from(b.to_bits())]];
        f32::from_bits(map(&[4, 4], 4, &format!("{instruction} %d, %a, %b;"), &rows)[0] as u32)
    };
    assert_eq!(run("add.rp.f32", 1.0, 1e-30), 1f32.next_up());
    assert_eq!(run("add.rm.f32", 1.0, -1e-30), 1f32.next_down());
    assert_eq!(run("add.rz.f32", 1.0, 1e-30), 1.0);
    assert_eq!(run("add.rz.f32", f32::MAX, f32::MAX), f32::MAX);
    assert!(run("add.rm.f32", 1.0, -1.0).is_sign_negative(), "an exact zero is -0 when rounding down");
    assert_eq!(run("div.rp.f32", 1.0, 3.0), 0.333_333_34);
    assert_eq!(run("div.rz.f32", 1.0, 3.0), 0.333_333_3);
    // 1 + 2^-24 + a little: a sum rounded twice would tie and fall to even.
    let fma = |mode: &str, c: f32| {
        let (a, b) = (f32::from_bits(0x3f80_0001), f32::from_bits(0x3380_0000));
        let rows = [vec![u64::from(a.to_bits()), u64::from(b.to_bits()), u64::from(c.to_bits())]];
        f32::from_bits(map(&[4, 4, 4], 4, &format!("fma.{mode}.f32 %d, %a, %b, %c;"), &rows)[0] as u32)
    };
    assert_eq!(fma("rn", 1.0), 1f32.next_up());
    assert_eq!(fma("rz", 1.0), 1.0);
    assert_eq!(fma("rp", 1.0), 1f32.next_up());
}

#[test]
fn double_precision() {
    let values = [0.0, -0.0, 1.0, 0.1, -7.5, 1e300, -1e-300, f64::INFINITY, 5e-324, 3.0];
    let rows: Vec<Vec<u64>> =
        values.iter().flat_map(|a| values.iter().map(move |b| vec![a.to_bits(), b.to_bits()])).collect();
    let check = |instruction: &str, f: &dyn Fn(f64, f64) -> f64| {
        for (row, found) in rows.iter().zip(map(&[8, 8], 8, &format!("{instruction} %d, %a, %b;"), &rows)) {
            let (a, b) = (f64::from_bits(row[0]), f64::from_bits(row[1]));
            let (found, expected) = (f64::from_bits(found), f(a, b));
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{instruction} {a} {b}"
            );
        }
    };
    check("add.f64", &|a, b| a + b);
    check("mul.rn.f64", &|a, b| a * b);
    check("div.rn.f64", &|a, b| a / b);
    check("min.f64", &|a, b| if a == b { f64::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) });
    check("sub.f64", &|a, b| a - b);
    let run = |instruction: &str, a: f64, b: f64| {
        f64::from_bits(map(&[8, 8], 8, &format!("{instruction} %d, %a, %b;"), &[vec![a.to_bits(), b.to_bits()]])[0])
    };
    assert_eq!(run("add.rp.f64", 1.0, 1e-30), 1f64.next_up());
    assert_eq!(run("add.rm.f64", 1.0, -1e-30), 1f64.next_down());
    assert_eq!(run("mul.rp.f64", 0.1, 0.1), (0.1f64 * 0.1).max(0.010_000_000_000_000_002));
    assert_eq!(run("add.rz.f64", f64::MAX, f64::MAX), f64::MAX);
    let out = map(&[8], 8, "sqrt.rn.f64 %d, %a;", &[vec![2f64.to_bits()]]);
    assert_eq!(f64::from_bits(out[0]), 2f64.sqrt());
    let out = map(&[8], 8, "fma.rn.f64 %d, %a, %a, 0dBFF0000000000000;", &[vec![(1.0 + 1e-9f64).to_bits()]]);
    assert_eq!(f64::from_bits(out[0]), (1.0 + 1e-9f64).mul_add(1.0 + 1e-9, -1.0));
}

/// A format of 16 bits by its definition: the value of every finite pattern.
struct Half {
    exponent_bits: u32,
    mantissa_bits: u32,
}

const F16: Half = Half { exponent_bits: 5, mantissa_bits: 10 };
const BF16: Half = Half { exponent_bits: 8, mantissa_bits: 7 };

impl Half {
    fn value(&self, bits: u64) -> f64 {
        let sign = if bits >> 15 & 1 == 1 { -1.0 } else { 1.0 };
        let exponent = (bits >> self.mantissa_bits) as i32 & ((1 << self.exponent_bits) - 1);
        let mantissa = (bits & ((1 << self.mantissa_bits) - 1)) as f64 / f64::from(1 << self.mantissa_bits);
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        match exponent {
            0 => sign * mantissa * 2f64.powi(1 - bias),
            e if e == (1 << self.exponent_bits) - 1 => {
                if mantissa == 0.0 {
                    sign * f64::INFINITY
                } else {
                    f64::NAN
                }
            }
            e => sign * (1.0 + mantissa) * 2f64.powi(e - bias),
        }
    }

    /// The nearest pattern, ties to even, found by search among the positive ones.
    fn nearest(&self, x: f64) -> u64 {
        if x.is_nan() {
            return 0x7fff;
        }
        let infinity = ((1u64 << self.exponent_bits) - 1) << self.mantissa_bits;
        let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
        let x = x.abs();
        let (mut low, mut high) = (0, infinity);
        while low + 1 < high {
            let middle = (low + high) / 2;
            if self.value(middle) <= x { low = middle } else { high = middle }
        }
        // Beyond the largest number the next pattern stands for the value it would have.
        let top = self.value(infinity - 1) + (self.value(infinity - 1) - self.value(infinity - 2));
        let above = if high == infinity { top } else { self.value(high) };
        if x >= top {
            return sign | infinity;
        }
        let (below, above) = (x - self.value(low), above - x);
        sign | if below < above || (below == above && low % 2 == 0) { low } else { high }
    }
}

#[test]
fn half_precision_conversions() {
    for (name, half) in [("f16", F16), ("bf16", BF16)] {
        let mut patterns: Vec<Vec<u64>> = (0..1u64 << 16).step_by(67).map(|p| vec![p]).collect();
        patterns.truncate(1000);
        let widened = map(&[2], 4, &format!("cvt.f32.{name} %d, %a;"), &patterns);
        for (row, found) in patterns.iter().zip(widened) {
            same(found, half.value(row[0]) as f32, name);
        }
        let mut values: Vec<f32> = vec![65504.0, 65519.99, 65520.0, 1e-8, 2.98e-8, 2.99e-8, 3.38e38, 3.3999e38, 1e-40];
        values.extend(SINGLES);
        // Ties and their neighbours.
        for i in 0..150u64 {
            let middle = ((half.value(i * 97 + 3) + half.value(i * 97 + 4)) / 2.0) as f32;
            values.extend([middle, middle.next_up(), middle.next_down(), -middle]);
        }
        let values: Vec<f32> = values.into_iter().filter(|v| v.abs() < 3.4e38 || v.is_infinite()).collect();
        let narrowed = map(&[4], 2, &format!("cvt.rn.{name}.f32 %d, %a;"), &bits(&values));
        for (v, found) in values.iter().zip(narrowed) {
            assert_eq!(found, half.nearest(f64::from(*v)), "{name} of {v:e}");
        }
    }
}

#[test]
fn half_precision_arithmetic() {
    for (name, half) in [("f16", F16), ("bf16", BF16)] {
        let values: Vec<u64> =
            [0.0, 1.0, -1.5, 0.333, 100.0, 1e-5, 60000.0, -2.5, 1e-7].iter().map(|&v| half.nearest(v)).collect();
        let rows: Vec<Vec<u64>> = values.iter().flat_map(|&a| values.iter().map(move |&b| vec![a, b])).collect();
        let check = |op: &str, f: &dyn Fn(f64, f64) -> f64| {
            let body = format!("{op}.{name} %d, %a, %b;");
            for (row, found) in rows.iter().zip(map(&[2, 2], 2, &body, &rows)) {
                let expected = half.nearest(f(half.value(row[0]), half.value(row[1])));
                assert_eq!(found, expected, "{body} {row:x?}");
            }
            // The packed form, with the operands the other way round in the upper half.
            let packed: Vec<Vec<u64>> = rows.iter().map(|r| vec![r[1] << 16 | r[0], r[0] << 16 | r[1]]).collect();
            let body = format!("{op}.{name}x2 %d, %a, %b;");
            for (row, found) in rows.iter().zip(map(&[4, 4], 4, &body, &packed)) {
                let (a, b) = (half.value(row[0]), half.value(row[1]));
                assert_eq!(found, half.nearest(f(b, a)) << 16 | half.nearest(f(a, b)), "{body} {row:x?}");
            }
        };
        check("add", &|a, b| a + b);
        check("sub", &|a, b| a - b);
        check("mul", &|a, b| a * b);
        check("max", &f64::max);
        let body = format!("fma.rn.{name} %d, %a, %b, %a; ");
        for (row, found) in rows.iter().zip(map(&[2, 2], 2, &body, &rows)) {
            let (a, b) = (half.value(row[0]), half.value(row[1]));
            // The operands have so few bits that this is exact but for the smallest addends.
            assert_eq!(found, half.nearest(a * b + a), "{body} {row:x?}");
        }
        let body = format!("fma.rn.relu.{name} %d, %a, %b, %a; ");
        for (row, found) in rows.iter().zip(map(&[2, 2], 2, &body, &rows)) {
            let (a, b) = (half.value(row[0]), half.value(row[1]));
            assert_eq!(found, half.nearest((a * b + a).max(0.0)), "{body} {row:x?}");
        }
    }
    let out = map(&[2], 2, "tanh.approx.f16 %d, %a;", &[vec![F16.nearest(0.5)]]);
    assert_eq!(out[0], F16.nearest(0.5f64.tanh()));
    let out = map(&[4], 4, "ex2.approx.f16x2 %d, %a;", &[vec![F16.nearest(1.5) << 16 | F16.nearest(-3.0)]]);
    assert_eq!(out[0], F16.nearest(1.5f64.exp2()) << 16 | F16.nearest(0.125));
    let out = map(&[4], 4, "neg.f16x2 %d, %a;", &[vec![0x3c00_bc00]]);
    assert_eq!(out, [0xbc00_3c00]);
    let out = map(&[2, 2], 4, "setp.lt.f16 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[vec![0x3c00, 0x4000]]);
    assert_eq!(out, [1]);
    let body = "setp.lt.f16x2 %p|%q, %a, %b; selp.b32 %r0, 1, 0, %p; selp.b32 %r1, 2, 0, %q; or.b32 %d, %r0, %r1;";
    assert_eq!(map(&[4, 4], 4, body, &[vec![0x4000_3c00, 0x3c00_4000], vec![0x3c00_4000, 0x4000_3c00]]), [1, 2]);
}

#[test]
fn conversions() {
    let cvt = |name: &str, from: usize, to: usize, value: u64| {
        map(&[from], to, &format!("cvt.{name} %d, %a;"), &[vec![value]])[0]
    };
    let single = |v: f32| u64::from(v.to_bits());
    // Float to integer.
    for (v, rni, rzi, rmi, rpi) in
        [(2.5f32, 2, 2, 2, 3), (-2.5, -2, -2, -3, -2), (3.5, 4, 3, 3, 4), (-0.4, 0, 0, -1, 0)]
    {
        for (mode, expected) in [("rni", rni), ("rzi", rzi), ("rmi", rmi), ("rpi", rpi)] {
            assert_eq!(cvt(&format!("{mode}.s32.f32"), 4, 4, single(v)) as i32, expected, "{mode} {v}");
            let whole = f32::from_bits(cvt(&format!("{mode}.f32.f32"), 4, 4, single(v)) as u32);
            assert_eq!(whole, expected as f32);
            assert_eq!(whole.is_sign_negative(), v < 0.0);
        }
    }
    assert_eq!(cvt("rzi.s32.f32", 4, 4, single(3e9)) as i32, i32::MAX);
    assert_eq!(cvt("rzi.u32.f32", 4, 4, single(-3.0)) as u32, 0);
    assert_eq!(cvt("rzi.s32.f32", 4, 4, single(f32::NAN)) as u32, 0);
    assert_eq!(cvt("rzi.s64.f32", 4, 8, single(f32::NAN)), 1 << 63);
    assert_eq!(cvt("rzi.s64.f64", 8, 8, 1e19f64.to_bits()) as i64, i64::MAX);
    assert_eq!(cvt("rzi.u8.f32", 4, 4, single(300.0)), 255);
    assert_eq!(cvt("rzi.s8.f32", 4, 4, single(-5.0)) as i32, -5, "sign-extended into the wider register");
    // Integer to float.
    assert_eq!(cvt("rn.f32.u32", 4, 4, 0xffff_ffff), single(4_294_967_296.0));
    assert_eq!(cvt("rz.f32.u32", 4, 4, 0xffff_ffff), single(4_294_967_040.0));
    assert_eq!(cvt("rn.f32.s32", 4, 4, 0xffff_ffff), single(-1.0));
    assert_eq!(cvt("rm.f32.s32", 4, 4, -16_777_217i32 as u32 as u64), single(-16_777_218.0));
    assert_eq!(cvt("rn.f64.u64", 8, 8, u64::MAX), (u64::MAX as f64).to_bits());
    assert_eq!(cvt("rn.f16.s32", 4, 2, 2049), F16.nearest(2048.0));
    assert_eq!(cvt("rn.f32.s8", 4, 4, 0x80), single(-128.0));
    // Between integers.
    assert_eq!(cvt("s64.s32", 4, 8, 0xffff_fff0) as i64, -16);
    assert_eq!(cvt("u64.u32", 4, 8, 0xffff_fff0), 0xffff_fff0);
    assert_eq!(cvt("s32.s8", 4, 4, 0x1280) as i32, -128);
    assert_eq!(cvt("u32.u8", 4, 4, 0x1280), 0x80);
    assert_eq!(cvt("u32.u64", 8, 4, 0x1_2345_6789), 0x2345_6789);
    assert_eq!(cvt("sat.s8.s32", 4, 4, 1000), 127);
    assert_eq!(cvt("sat.u8.s32", 4, 4, -5i32 as u32 as u64), 0);
    assert_eq!(cvt("sat.s16.s32", 4, 4, -100_000i32 as u32 as u64) as i32, -32768);
    assert_eq!(cvt("s8.s32", 4, 4, 200) as i32, -56);
    // Between floats.
    assert_eq!(cvt("f64.f32", 4, 8, single(0.1)), f64::from(0.1f32).to_bits());
    assert_eq!(cvt("rn.f32.f64", 8, 4, 0.1f64.to_bits()), single(0.1));
    assert_eq!(cvt("rp.f32.f64", 8, 4, 0.1f64.to_bits()), single(0.1));
    assert_eq!(cvt("rm.f32.f64", 8, 4, 0.1f64.to_bits()), single(0.1f32.next_down()));
    assert_eq!(cvt("sat.f32.f32", 4, 4, single(1.5)), single(1.0));
    assert_eq!(cvt("ftz.f32.f32", 4, 4, single(-1e-45)), single(-0.0));
    assert_eq!(cvt("rn.f16.f64", 8, 2, (1.0 + 1.0 / 2048.0 + 1e-12f64).to_bits()), 0x3c01, "rounded once");
    // TF32 keeps ten bits of the fraction; ties go away from zero.
    let tf32 = |v: f32| f32::from_bits(cvt("rna.tf32.f32", 4, 4, single(v)) as u32);
    assert_eq!(tf32(1.0 + 1.0 / 2048.0), 1.0 + 1.0 / 1024.0);
    assert_eq!(tf32(-1.0 - 1.0 / 2048.0), -1.0 - 1.0 / 1024.0);
    assert_eq!(tf32(1.0 + 1.0 / 4096.0), 1.0);
    // Two at once: the first operand goes into the upper half.
    let rows = [vec![single(1.0), single(-2.0)]];
    assert_eq!(map(&[4, 4], 4, "cvt.rn.f16x2.f32 %d, %a, %b;", &rows), [0x3c00_c000]);
    assert_eq!(map(&[4, 4], 4, "cvt.rn.relu.bf16x2.f32 %d, %a, %b;", &rows), [0x3f80_0000]);
    assert_eq!(map(&[4, 4], 4, "cvt.rz.bf16x2.f32 %d, %a, %b;", &[vec![single(1.999), single(-1.999)]]), [0x3fff_bfff]);
}
