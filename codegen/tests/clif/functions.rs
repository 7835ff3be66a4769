//! The f32 functions of compiled code against the runtime's f64 ones, over all magnitudes and at awkward arguments.

use crate::common::{compiled, distance};
use lehr_codegen::kernel::{Access, Blocks, Expr, Kernel, KernelBuilder, LoopKind, UnOp};
use lehr_codegen::runtime::math;
use lehr_ir::DType;

/// The runtime's function.
type Exact = fn(f64) -> f64;

fn kernel(op: UnOp, n: usize, kind: LoopKind) -> Kernel {
    let mut b = KernelBuilder::new("function");
    let (x, y) = (b.param(DType::F32, n, Access::Read), b.param(DType::F32, n, Access::Write));
    b.for_(kind, Expr::i64(0), Expr::i64(n as i64), 1, |b, i| {
        let v = b.load(x, i.clone());
        b.store(y, i, Expr::unary(op, v));
    });
    b.finish(vec![])
}

fn arguments() -> Vec<f32> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        88.72283,
        88.72284,
        88.8,
        89.5,
        -87.33,
        -87.34,
        -103.9,
        -104.1,
        0.625,
        0.921875,
        4.0,
        9.02,
        1e6,
        1.1e6,
        -3e9,
        1e38,
        -0.99999994,
        -1.0000001,
        16777216.0,
        std::f32::consts::PI,
        std::f32::consts::FRAC_PI_2,
        0.70710677,
        std::f32::consts::FRAC_1_SQRT_2,
        std::f32::consts::SQRT_2,
        1.4142137,
    ];
    // Every 2^12th bit pattern, and a dense range around where the functions bend.
    let everywhere = (0..1 << 20).map(|k: u32| f32::from_bits(k << 12 | 0x5a5));
    let near = (-60_000..60_000).map(|k| k as f32 * 1.7e-4);
    special.into_iter().chain(everywhere).chain(near).collect()
}

#[test]
fn inline_functions_are_within_their_bounds() {
    let cases: [(UnOp, Exact, u64); 8] = [
        (UnOp::Exp, |x| math::lehr_rt_exp_f64(x), 2),
        (UnOp::Expm1, |x| math::lehr_rt_expm1_f64(x), 2),
        (UnOp::Log, |x| math::lehr_rt_log_f64(x), 2),
        (UnOp::Log1p, |x| math::lehr_rt_log1p_f64(x), 2),
        (UnOp::Tanh, |x| math::lehr_rt_tanh_f64(x), 2),
        (UnOp::Erf, |x| math::lehr_rt_erf_f64(x), 2),
        (UnOp::Sin, |x| math::lehr_rt_sin_f64(x), 1),
        (UnOp::Cos, |x| math::lehr_rt_cos_f64(x), 1),
    ];
    let xs = arguments();
    let input: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut failures = vec![];
    for (op, exact, bound) in cases {
        for cpu in ["native", "x86-64-v2"] {
            let run = |kind| {
                let k = kernel(op, xs.len(), kind);
                let mut buffers = [input.clone(), vec![0; input.len()]];
                assert_eq!(compiled(&k, cpu, &mut buffers), None);
                let [_, out] = buffers;
                out.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<f32>>()
            };
            let (vector, scalar) = (run(LoopKind::Vector), run(LoopKind::Serial));
            let mut worst = (0, 0.0, 0.0, 0.0);
            for ((&x, v), s) in xs.iter().zip(vector).zip(scalar) {
                assert!(
                    v.to_bits() == s.to_bits() || v.is_nan() && s.is_nan(),
                    "{op:?}({x:e}) is {v:e} in a lane, {s:e} alone"
                );
                let right = exact(x as f64) as f32;
                let error = match (v.is_nan(), right.is_nan()) {
                    (true, true) => 0,
                    (false, false) => distance(v.to_bits() as i32 as i64, right.to_bits() as i32 as i64),
                    _ => u64::MAX,
                };
                if error > worst.0 {
                    worst = (error, x, v, right);
                }
                if x == 0.0 && op != UnOp::Cos && op != UnOp::Exp && op != UnOp::Log {
                    assert_eq!(v.to_bits(), x.to_bits(), "{op:?} keeps the sign of zero");
                }
            }
            if worst.0 > bound {
                failures.push(format!(
                    "{op:?} for {cpu}: {} ulp at {:e}: {:e}, not {:e}",
                    worst.0, worst.1, worst.2, worst.3
                ));
            }
            println!("{op:?} for {cpu}: {} ulp at {:e}", worst.0, worst.1);
        }
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn other_functions_are_the_runtime_s() {
    let mut rng = crate::common::Rng(29);
    let ops =
        [UnOp::Tan, UnOp::Asin, UnOp::Acos, UnOp::Atan, UnOp::Sinh, UnOp::Cosh, UnOp::Asinh, UnOp::Acosh, UnOp::Atanh];
    for op in ops {
        let k = kernel(op, 50, LoopKind::Vector);
        crate::common::agree(&k, &crate::common::buffers(&k, &mut rng), 0);
    }
}
