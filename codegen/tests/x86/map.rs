//! Every function of the vector programs against f64, over awkward values and in bounds measured in units in the last place.

use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// Name, program, the function in f64, greatest error in ulps of f32 for values that are not tiny beside `floor`.
struct Function {
    name: &'static str,
    program: VProg,
    exact: fn(f64) -> f64,
    ulps: f64,
    /// Errors are counted in ulps of the larger of this and the exact value.
    floor: f64,
}

fn function(
    name: &'static str,
    build: fn(&mut VProg, Val) -> Val,
    exact: fn(f64) -> f64,
    ulps: f64,
    floor: f64,
) -> Function {
    Function { name, program: VProg::build(build), exact, ulps, floor }
}

fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn nan_min(a: f64, b: f64) -> f64 {
    -nan_max(-a, -b)
}

fn softplus(x: f64) -> f64 {
    nan_max(x, 0.0) + (-x.abs()).exp().ln_1p()
}

/// libm's gives a number for some x below 1.
fn acosh(x: f64) -> f64 {
    if x < 1.0 { f64::NAN } else { libm::acosh(x) }
}

fn normal_or_one(x: f64) -> f64 {
    if (f64::from(f32::MIN_POSITIVE)..f64::INFINITY).contains(&x) { x } else { 1.0 }
}

fn normal(p: &mut VProg, x: Val, f: fn(&mut VProg, Val) -> Val) -> Val {
    let (least, most, one) = (p.constant(f32::MIN_POSITIVE), p.constant(f32::MAX), p.constant(1.0));
    let y = p.select(Pred::Ge, x, least, x, one);
    let y = p.select(Pred::Le, x, most, y, one);
    f(p, y)
}

fn functions() -> Vec<Function> {
    let f = function;
    const LEAST: f64 = 1e-300;
    vec![
        f("identity", |_, x| x, |x| x, 0.0, LEAST),
        f("abs", |p, x| p.abs(x), f64::abs, 0.0, LEAST),
        f("neg", |p, x| p.neg(x), |x| -x, 0.0, LEAST),
        f("sqrt", |p, x| p.sqrt(x), f64::sqrt, 0.51, LEAST),
        // Only positive normal numbers are promised; 1 stands in for the others.
        f("inverse_sqrt", |p, x| normal(p, x, |p, x| p.inverse_sqrt(x)), |x| 1.0 / normal_or_one(x).sqrt(), 2.0, LEAST),
        f("round", |p, x| p.round(x), f64::round_ties_even, 0.0, LEAST),
        f("floor", |p, x| p.floor(x), f64::floor, 0.0, LEAST),
        f("ceil", |p, x| p.ceil(x), f64::ceil, 0.0, LEAST),
        f("trunc", |p, x| p.trunc(x), f64::trunc, 0.0, LEAST),
        f("exp", |p, x| p.exp(x), f64::exp, 1.0, LEAST),
        f("log", |p, x| p.log(x), f64::ln, 1.0, LEAST),
        f("log1p", |p, x| p.log1p(x), f64::ln_1p, 2.0, LEAST),
        f("sin", |p, x| p.sin(x), f64::sin, 2.0, LEAST),
        f("cos", |p, x| p.cos(x), f64::cos, 2.0, LEAST),
        f("tan", |p, x| p.tan(x), f64::tan, 4.0, LEAST),
        f("asin", |p, x| p.asin(x), f64::asin, 2.5, LEAST),
        f("acos", |p, x| p.acos(x), f64::acos, 1.5, LEAST),
        f("atan", |p, x| p.atan(x), f64::atan, 2.0, LEAST),
        f("sinh", |p, x| p.sinh(x), f64::sinh, 2.0, LEAST),
        f("cosh", |p, x| p.cosh(x), f64::cosh, 2.0, LEAST),
        f("asinh", |p, x| p.asinh(x), libm::asinh, 2.5, LEAST),
        f("acosh", |p, x| p.acosh(x), acosh, 2.5, LEAST),
        f("atanh", |p, x| p.atanh(x), libm::atanh, 2.5, LEAST),
        f("erf", |p, x| p.erf(x), libm::erf, 1.5, LEAST),
        f("tanh", |p, x| p.tanh(x), f64::tanh, 2.5, LEAST),
        f("sigmoid", |p, x| p.sigmoid(x), |x| 1.0 / (1.0 + (-x).exp()), 2.5, LEAST),
        f("relu", |p, x| p.relu(x), |x| nan_max(x, 0.0), 0.0, LEAST),
        f("leaky_relu", |p, x| p.leaky_relu(x, 0.125), |x| if x < 0.0 { 0.125 * x } else { x }, 0.5, LEAST),
        f("thresholded_relu", |p, x| p.thresholded_relu(x, 1.5), |x| if x > 1.5 { x } else { 0.0 }, 0.0, LEAST),
        f("clip", |p, x| p.clip(x, -1.0, 6.0), |x| nan_min(nan_max(x, -1.0), 6.0), 0.0, LEAST),
        f("elu", |p, x| p.elu(x, 1.5), |x| if x > 0.0 { x } else { 1.5 * x.exp_m1() }, 2.0, LEAST),
        f("celu", |p, x| p.celu(x, 2.0), |x| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() }, 2.0, LEAST),
        f(
            "selu",
            |p, x| p.selu(x, 1.673_263_2, 1.050_701),
            |x| f64::from(1.050_701f32) * if x > 0.0 { x } else { f64::from(1.673_263_2f32) * x.exp_m1() },
            2.5,
            LEAST,
        ),
        f(
            "hard_sigmoid",
            |p, x| p.hard_sigmoid(x, 0.25, 0.5),
            |x| nan_min(nan_max(0.25 * x + 0.5, 0.0), 1.0),
            0.6,
            LEAST,
        ),
        f("hard_swish", |p, x| p.hard_swish(x), |x| x * nan_min(nan_max(x / 6.0 + 0.5, 0.0), 1.0), 4.0, 1.0),
        f("swish", |p, x| p.swish(x, 1.0), |x| x / (1.0 + (-x).exp()), 4.0, 1e-30),
        f("softplus", |p, x| p.softplus(x), softplus, 2.5, LEAST),
        f("softsign", |p, x| p.softsign(x), |x| x / (1.0 + x.abs()), 1.5, LEAST),
        f("gelu", |p, x| p.gelu(x), |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())), 3.0, 1.0),
        f(
            "gelu_tanh",
            |p, x| p.gelu_tanh(x),
            |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
            4.0,
            1.0,
        ),
        f("mish", |p, x| p.mish(x), |x| x * softplus(x).tanh(), 5.0, 1e-30),
    ]
}

fn awkward() -> Vec<f32> {
    let mut v = vec![
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        f32::from_bits(1),
        -f32::from_bits(1),
        1e-40,
        f32::MAX,
        f32::MIN,
        88.72,
        88.73,
        89.0,
        100.0,
        -87.0,
        -87.5,
        -88.0,
        -100.0,
        -103.9,
        -104.0,
        -200.0,
        0.5,
        -0.5,
        1.0,
        -1.0,
        1.5,
        2.5,
        1e10,
        -1e10,
        4.0,
        -4.0,
    ];
    let mut random = Random(5);
    v.extend((0..20_000).map(|_| random.unit() * 110.0));
    v.extend((0..20_000).map(|_| random.unit() * 6.0));
    v.extend((0..20_000).map(|_| random.unit()));
    v.extend((0..20_000).map(|_| random.unit() * 1e5));
    v.extend((0..40_000).map(|_| f32::from_bits(random.next() as u32 ^ (random.next() as u32) << 16)));
    // Every exponent and sign, denormals and infinities among them: both ends and 60 numbers between.
    for high in 0..512u32 {
        let within = [0, 1, 0x40_0000, 0x7f_ffff].into_iter();
        let within = within.chain((0..60).map(|_| random.next() as u32 & 0x7f_ffff)).collect::<Vec<_>>();
        v.extend(within.into_iter().map(|low| f32::from_bits(high << 23 | low)));
    }
    // The neighbours of multiples of pi/2, where sines and cosines vanish.
    for n in (0..42_000).step_by(7).chain([83_443, 1 << 20, 1 << 27]) {
        let zero = (f64::from(n) * std::f64::consts::FRAC_PI_2) as f32;
        v.extend([-1, 0, 1].map(|step| f32::from_bits(zero.to_bits().saturating_add_signed(step))));
    }
    v
}

fn run(isa: Isa, program: &VProg, input: &[f32], operands: &[u64]) -> Vec<f32> {
    // By way of the caches and past them, to a place that is aligned and to one that is not: the same bits.
    let results = [(false, 0), (true, 0), (true, 1)].map(|(past_caches, shift)| {
        let leaf = LeafSpec::Map(Map { program: program.clone(), past_caches }).emit(isa).unwrap();
        let mut room = vec![0f32; input.len() + 16 + shift];
        let from = room.as_ptr().align_offset(64) + shift;
        let out = &mut room[from..from + input.len()];
        let mut args = vec![input.as_ptr() as u64, out.as_mut_ptr() as u64, input.len() as u64];
        args.extend(operands);
        load(&leaf).call(&args);
        out.to_vec()
    });
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(results.iter().all(|r| bits(r) == bits(&results[0])));
    let [first, ..] = results;
    first
}

/// Ulps of f32 between a result and the exact value.
fn error(got: f32, exact: f64, floor: f64) -> f64 {
    let rounded = exact as f32;
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded {
        return 0.0;
    }
    if got.is_infinite() || rounded.is_infinite() {
        return f64::INFINITY;
    }
    let scale = (exact.abs().max(floor) as f32).max(f32::MIN_POSITIVE);
    let ulp = f64::from(f32::from_bits(scale.to_bits() + 1)) - f64::from(scale);
    (f64::from(got) - exact).abs() / ulp
}

#[test]
fn functions_are_within_their_bounds() {
    let input = awkward();
    let mut failures = Vec::new();
    for isa in isas() {
        for f in functions() {
            let got = run(isa, &f.program, &input, &[]);
            let mut worst = (0.0, 0f32, 0f32);
            for (x, y) in input.iter().zip(&got) {
                let e = error(*y, (f.exact)(f64::from(*x)), f.floor);
                if e > worst.0 {
                    worst = (e, *x, *y);
                }
            }
            println!("{:7} {:18} {:6.3} ulp at {:e} -> {:e}", isa.name(), f.name, worst.0, worst.1, worst.2);
            if worst.0 > f.ulps {
                let exact = (f.exact)(f64::from(worst.1));
                failures.push(format!(
                    "{} {}: {} ulp at {:e}: {:e} for {exact:e}",
                    isa.name(),
                    f.name,
                    worst.0,
                    worst.1,
                    worst.2
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn both_instruction_sets_give_the_same_bits() {
    if isas().len() < 2 {
        return;
    }
    let input = awkward();
    // AVX-512 has a better estimate of this one to start from, AVX2 a root and a quotient.
    for f in functions().iter().filter(|f| f.name != "inverse_sqrt") {
        let (a, b) = (run(Isa::Avx2, &f.program, &input, &[]), run(Isa::Avx512, &f.program, &input, &[]));
        for (x, (a, b)) in input.iter().zip(a.iter().zip(&b)) {
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{} of {x:e}: {a:e} and {b:e}", f.name);
        }
    }
}

#[test]
fn signs_of_zero_survive() {
    for isa in isas() {
        for (name, build) in [
            ("tanh", (|p, x| p.tanh(x)) as fn(&mut VProg, Val) -> Val),
            ("erf", |p, x| p.erf(x)),
            ("round", |p, x| p.round(x)),
            ("sin", |p, x| p.sin(x)),
            ("tan", |p, x| p.tan(x)),
            ("asin", |p, x| p.asin(x)),
            ("atan", |p, x| p.atan(x)),
            ("sinh", |p, x| p.sinh(x)),
            ("asinh", |p, x| p.asinh(x)),
            ("atanh", |p, x| p.atanh(x)),
            ("log1p", |p, x| p.log1p(x)),
            ("leaky_relu", |p, x| p.leaky_relu(x, 0.1)),
        ] {
            let got = run(isa, &VProg::build(build), &[0.0, -0.0], &[]);
            assert_eq!([got[0].to_bits(), got[1].to_bits()], [0, 0x8000_0000], "{name}");
        }
    }
}

#[test]
fn either_nan_wins_in_max_and_min() {
    for isa in isas() {
        let a = [1.0, f32::NAN, 2.0, f32::NAN, -1.0];
        let b = [f32::NAN, 1.0, 3.0, f32::NAN, -2.0];
        let program = |build: fn(&mut VProg, Val, Val) -> Val| {
            VProg::build(|p, x| {
                let o = p.operand(Access::Same);
                build(p, x, o)
            })
        };
        let max = run(isa, &program(|p, x, y| p.max(x, y)), &a, &[b.as_ptr() as u64]);
        let min = run(isa, &program(|p, x, y| p.min(x, y)), &a, &[b.as_ptr() as u64]);
        assert!([0, 1, 3].iter().all(|i| max[*i].is_nan() && min[*i].is_nan()));
        assert_eq!([max[2], min[2], max[4], min[4]], [3.0, 2.0, -1.0, -2.0]);
    }
}

#[test]
fn comparisons_select_as_named() {
    let (a, b) = ([1.0, 2.0, 3.0, f32::NAN], [2.0f32; 4]);
    let table = [
        (Pred::Lt, [1, 0, 0, 0]),
        (Pred::Le, [1, 1, 0, 0]),
        (Pred::Eq, [0, 1, 0, 0]),
        (Pred::Gt, [0, 0, 1, 0]),
        (Pred::Ge, [0, 1, 1, 0]),
        (Pred::Unordered, [0, 0, 0, 1]),
        (Pred::NotGe, [1, 0, 0, 1]),
        (Pred::NotEq, [1, 0, 1, 1]),
        (Pred::Ordered, [1, 1, 1, 0]),
    ];
    for isa in isas() {
        for (pred, expected) in table {
            let program = VProg::build(|p, x| {
                let (y, one, zero) = (p.operand(Access::Same), p.constant(1.0), p.constant(0.0));
                p.select(pred, x, y, one, zero)
            });
            let got = run(isa, &program, &a, &[b.as_ptr() as u64]);
            assert_eq!(got, expected.map(|e| e as f32), "{pred:?}");
        }
    }
}

/// All lengths, with a guard page on either side of every buffer, operands of every kind.
#[test]
fn nothing_outside_the_elements_is_touched() {
    let mut random = Random(6);
    for isa in isas() {
        let program = VProg::build(|p, x| {
            let (stream, channel, splat) =
                (p.operand(Access::Same), p.operand(Access::Channel), p.operand(Access::Splat));
            let y = p.fma(x, channel, stream);
            p.mul(y, splat)
        });
        let code = load(&LeafSpec::Map(Map { program, past_caches: false }).emit(isa).unwrap());
        for n in (0..70).chain([1000, 1024, 1025]) {
            for guard in [Guard::Behind, Guard::Before] {
                let (x, stream) = (Guarded::new(&random.vec(n), guard), Guarded::new(&random.vec(n), guard));
                // A map touches no lane of a channel vector that the tail does not need, but may use all of them.
                let channels = if n < isa.lanes() { n } else { isa.lanes() };
                let (channel, splat) =
                    (Guarded::new(&random.vec(channels), guard), Guarded::new(&random.vec(1), guard));
                let out = Guarded::new(&vec![0.0; n], guard);
                let args = [x.addr(), out.addr(), n as u64, stream.addr(), channel.addr(), splat.addr()];
                code.call(&args);
                for i in 0..n {
                    let c = channel.slice()[i % isa.lanes()];
                    let want = x.slice()[i].mul_add(c, stream.slice()[i]) * splat.slice()[0];
                    assert_eq!(out.slice()[i], want, "{isa:?} element {i} of {n}");
                }
            }
        }
    }
}

/// More live values than registers: the sum of products of every pair of forty functions of x.
#[test]
fn programs_with_more_values_than_registers_spill() {
    for isa in isas() {
        let program = VProg::build(|p, x| {
            let terms: Vec<Val> = (1..40)
                .map(|i| {
                    let c = p.constant(i as f32);
                    let s = p.sub(x, c);
                    p.abs(s)
                })
                .collect();
            let forward = terms.iter().copied().reduce(|a, b| p.add(a, b)).unwrap();
            terms.iter().rev().fold(forward, |sum, t| p.fma(*t, *t, sum))
        });
        let input: Vec<f32> = (0..37).map(|i| i as f32 - 18.0).collect();
        let got = run(isa, &program, &input, &[]);
        for (x, y) in input.iter().zip(got) {
            let terms: Vec<f64> = (1..40).map(|i| (f64::from(*x) - f64::from(i)).abs()).collect();
            let want: f64 = terms.iter().sum::<f64>() + terms.iter().map(|t| t * t).sum::<f64>();
            assert_eq!(f64::from(y), want, "all of it is exact in f32");
        }
    }
}
