//! Compiled kernels against the interpreter: every operation on every type, in scalar code and in vector loops of all lengths.

use crate::common::{Rng, agree, buffers};
use lehr_codegen::kernel::{Access, BinOp, Blocks, CmpOp, Expr, Kernel, KernelBuilder, LoopKind, UnOp};
use lehr_ir::DType;

const LENGTHS: [usize; 7] = [0, 1, 3, 5, 17, 40, 133];
const STORED: [DType; 13] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
];

/// `out[i] = f(inputs[i]...)`.
fn map(
    inputs: &[DType],
    out: DType,
    n: usize,
    kind: LoopKind,
    f: impl Fn(&mut KernelBuilder, &[Expr]) -> Expr,
) -> Kernel {
    let mut b = KernelBuilder::new("map");
    let params: Vec<_> = inputs.iter().map(|&t| b.param(t, n, Access::Read)).collect();
    let result = b.param(out, n, Access::Write);
    b.for_(kind, Expr::i64(0), Expr::i64(n as i64), 1, |b, i| {
        let args: Vec<Expr> = params.iter().map(|&p| b.load(p, i.clone())).collect();
        let v = f(b, &args);
        b.store(result, i, v);
    });
    b.finish(vec![])
}

/// All lengths as vector loops, one as a serial one.
fn check_map(inputs: &[DType], out: DType, ulps: u64, f: impl Fn(&mut KernelBuilder, &[Expr]) -> Expr) {
    let mut rng = Rng(7);
    for n in LENGTHS {
        let k = map(inputs, out, n, LoopKind::Vector, &f);
        agree(&k, &buffers(&k, &mut rng), ulps);
    }
    let k = map(inputs, out, 67, LoopKind::Serial, &f);
    agree(&k, &buffers(&k, &mut rng), ulps);
}

#[test]
fn copies_of_every_type() {
    for t in STORED {
        check_map(&[t], t, 0, |_, a| a[0].clone());
    }
}

#[test]
fn arithmetic_of_every_type() {
    let ops = [BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Div, BinOp::Rem, BinOp::Min, BinOp::Max];
    for t in STORED.into_iter().filter(|&t| t != DType::Bool) {
        for op in ops {
            check_map(&[t, t], t, 0, |_, a| Expr::binary(op, a[0].clone(), a[1].clone()));
        }
    }
}

#[test]
fn integer_operations() {
    for t in STORED.into_iter().filter(|t| t.is_int()) {
        for op in [BinOp::And, BinOp::Or, BinOp::Xor] {
            check_map(&[t, t], t, 0, |_, a| Expr::binary(op, a[0].clone(), a[1].clone()));
        }
        let mask = Expr::Int(t, t.bits() as i64 - 1);
        for op in [BinOp::Shl, BinOp::Shr] {
            check_map(&[t, t], t, 0, |_, a| {
                let amount = Expr::binary(BinOp::And, a[1].clone(), mask.clone());
                Expr::binary(op, a[0].clone(), amount)
            });
            check_map(&[t], t, 0, |_, a| Expr::binary(op, a[0].clone(), Expr::Int(t, 3)));
        }
        for op in [UnOp::Neg, UnOp::Abs, UnOp::Not] {
            check_map(&[t], t, 0, |_, a| Expr::unary(op, a[0].clone()));
        }
        for divisor in [-1, 0, 1, 3, 7] {
            check_map(&[t], t, 0, |_, a| {
                let d = Expr::Int(t, divisor);
                Expr::binary(BinOp::Div, a[0].clone(), d.clone()) + Expr::binary(BinOp::Rem, a[0].clone(), d)
            });
        }
    }
}

#[test]
fn comparisons_and_selections() {
    let ops = [CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge];
    for t in STORED {
        for op in ops {
            check_map(&[t, t], DType::Bool, 0, |_, a| Expr::compare(op, a[0].clone(), a[1].clone()));
        }
        for other in [t, DType::F64, DType::F32, DType::I16, DType::U8] {
            check_map(&[t, t, other, other], other, 0, |_, a| {
                let c = Expr::compare(CmpOp::Lt, a[0].clone(), a[1].clone());
                Expr::select(c, a[2].clone(), a[3].clone())
            });
            check_map(&[DType::Bool, other, other], other, 0, |_, a| {
                Expr::select(a[0].clone(), a[1].clone(), a[2].clone())
            });
        }
    }
}

/// Without AVX, a comparison must not take a vector from an address that is not a multiple of 16.
#[test]
fn comparisons_with_unaligned_memory() {
    for t in [DType::F32, DType::F64] {
        let mut b = KernelBuilder::new("unaligned");
        let (x, y) = (b.param(t, 50, Access::Read), b.param(DType::Bool, 45, Access::Write));
        b.vector(45, |b, i| {
            let (first, second) = (b.load(x, i.clone()), b.load(x, i.clone() + 1));
            let (third, fourth) = (b.load(x, i.clone() + 2), b.load(x, i.clone() + 3));
            let both = Expr::compare(CmpOp::Le, first, second) & Expr::compare(CmpOp::Gt, third, fourth);
            b.store(y, i, both);
        });
        let k = b.finish(vec![]);
        agree(&k, &buffers(&k, &mut Rng(31)), 0);
    }
}

#[test]
fn logic_over_masks_of_different_widths() {
    check_map(&[DType::F64, DType::F32, DType::U8, DType::Bool], DType::F32, 0, |_, a| {
        let wide = Expr::compare(CmpOp::Gt, a[0].clone(), Expr::number(DType::F64, 0.0));
        let middle = Expr::compare(CmpOp::Lt, a[1].clone(), Expr::f32(2.0));
        let narrow = Expr::compare(CmpOp::Ne, a[2].clone(), Expr::Int(DType::U8, 3));
        let all = Expr::binary(BinOp::Or, Expr::binary(BinOp::And, wide, middle), narrow);
        let all = Expr::binary(BinOp::Xor, all, Expr::unary(UnOp::Not, a[3].clone()));
        Expr::cast(DType::F32, all)
    });
}

#[test]
fn casts_between_all_types() {
    for from in STORED {
        for to in STORED {
            check_map(&[from], to, 0, |_, a| Expr::cast(to, a[0].clone()));
        }
    }
}

#[test]
fn roundings_and_roots() {
    for t in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        for op in [UnOp::Neg, UnOp::Abs, UnOp::Sqrt, UnOp::Floor, UnOp::Ceil, UnOp::Trunc, UnOp::Round] {
            check_map(&[t], t, 0, |_, a| Expr::unary(op, a[0].clone()));
        }
    }
}

#[test]
fn strides_and_gathers() {
    let mut rng = Rng(11);
    for (stride, offset) in [(2, 0), (3, 1), (-1, 132), (0, 4), (-2, 265)] {
        for t in [DType::F32, DType::I8, DType::F16, DType::I64, DType::Bool] {
            let mut b = KernelBuilder::new("strided");
            let (x, y) = (b.param(t, 400, Access::Read), b.param(t, 400, Access::ReadWrite));
            b.vector(133, |b, i| {
                let v = b.load(x, i.clone() * stride + offset);
                b.store(y, i * 3, v);
            });
            let k = b.finish(vec![]);
            agree(&k, &buffers(&k, &mut rng), 0);
        }
    }
    // y[i] = x[index[i]], with indices from memory and from arithmetic that is not linear.
    let mut b = KernelBuilder::new("gather");
    let (x, index) = (b.param(DType::F32, 50, Access::Read), b.param(DType::U8, 133, Access::Read));
    let y = b.param(DType::F32, 133, Access::Write);
    b.vector(133, |b, i| {
        let at = b.load(index, i.clone());
        let at = b.let_(Expr::cast(DType::I64, at) % 50);
        let first = b.load(x, at);
        let second = b.load(x, (i.clone() * i.clone()) % 50);
        b.store(y, i, first + second);
    });
    let k = b.finish(vec![]);
    agree(&k, &buffers(&k, &mut rng), 0);
}

#[test]
fn loops_in_vector_loops_keep_an_accumulator_per_lane() {
    let mut rng = Rng(13);
    for t in [DType::F32, DType::F64, DType::F16, DType::I16, DType::I64, DType::U8] {
        for n in [1, 3, 7, 16, 29] {
            // A 1-D convolution of stride s: y[i] = sum over c, k of x[c][s i + k] w[c][k], where k stays within bounds.
            for s in [1i64, 2] {
                let (channels, window) = (3i64, 5i64);
                let width = s * n as i64 + window;
                let mut b = KernelBuilder::new("conv");
                let x = b.param(t, (channels * width) as usize, Access::Read);
                let w = b.param(t, (channels * window) as usize, Access::Read);
                let y = b.param(t, 4 * n, Access::Write);
                let p = b.parallel(4, 100);
                b.vector(n, |b, i| {
                    let sum = b.mutable(Expr::number(t, 0.0));
                    b.serial(channels as usize, |b, c| {
                        b.for_(LoopKind::Serial, Expr::i64(0), p.clone() + 2, 1, |b, k| {
                            let at = b.let_(i.clone() * s + k.clone());
                            let x = b.load(x, c.clone() * width + at);
                            let w = b.load(w, c.clone() * window + k);
                            b.set(sum, Expr::Var(sum) + x * w);
                        });
                    });
                    b.store(y, p.clone() * n as i64 + i, Expr::Var(sum));
                });
                let k = b.finish(vec![]);
                agree(&k, &buffers(&k, &mut rng), 0);
            }
        }
    }
}

#[test]
fn reductions_into_outer_variables() {
    let mut rng = Rng(17);
    let ops = [BinOp::Add, BinOp::Mul, BinOp::Min, BinOp::Max, BinOp::And, BinOp::Or, BinOp::Xor];
    for t in [DType::F32, DType::F64, DType::I32, DType::U8, DType::I8, DType::I64, DType::U64, DType::I16, DType::Bool]
    {
        for op in ops {
            let bits = matches!(op, BinOp::And | BinOp::Or | BinOp::Xor);
            let arithmetic = matches!(op, BinOp::Add | BinOp::Mul);
            if bits && t.is_float() || !bits && t == DType::Bool {
                continue;
            }
            for n in LENGTHS {
                let mut b = KernelBuilder::new("reduce");
                // Sums and products of floats are small whole numbers, so that the order is of no matter.
                let stored = if t.is_float() && arithmetic { DType::Bool } else { t };
                let (x, y) = (b.param(stored, 3 * n, Access::Read), b.param(t, 3, Access::Write));
                b.serial(3, |b, row| {
                    let start = if t.is_float() || t == DType::Bool { Expr::number(t, 1.0) } else { Expr::Int(t, 1) };
                    let total = b.mutable(start);
                    b.vector(n, |b, i| {
                        let v = b.load(x, row.clone() * n as i64 + i);
                        let v = if stored == t { v } else { Expr::cast(t, v) + Expr::number(t, 1.0) };
                        let v = if op == BinOp::Mul && t.is_float() { v / Expr::number(t, 2.0) } else { v };
                        b.set(total, Expr::binary(op, Expr::Var(total), v));
                    });
                    b.store(y, row, Expr::Var(total));
                });
                let k = b.finish(vec![]);
                agree(&k, &buffers(&k, &mut rng), 0);
            }
        }
    }
}

/// Softmax in three loops: a maximum, a sum of exponentials, a division.
#[test]
fn softmax_agrees_closely() {
    let mut rng = Rng(19);
    for n in [1, 5, 16, 77] {
        let mut b = KernelBuilder::new("softmax");
        let (x, y) = (b.param(DType::I8, 4 * n, Access::Read), b.param(DType::F32, 4 * n, Access::ReadWrite));
        let p = b.parallel(4, 1000);
        let row = b.let_(p * n as i64);
        let best = b.mutable(Expr::f32(f32::NEG_INFINITY));
        let load =
            |b: &mut KernelBuilder, i: Expr| Expr::cast(DType::F32, b.load(x, row.clone() + i)) / Expr::f32(16.0);
        b.vector(n, |b, i| {
            let v = load(b, i);
            b.set(best, Expr::Var(best).max(v));
        });
        let sum = b.mutable(Expr::f32(0.0));
        b.vector(n, |b, i| {
            let v = load(b, i.clone()) - Expr::Var(best);
            let e = b.let_(Expr::unary(UnOp::Exp, v));
            b.store(y, row.clone() + i, e.clone());
            b.set(sum, Expr::Var(sum) + e);
        });
        b.vector(n, |b, i| {
            let e = b.load(y, row.clone() + i.clone());
            b.store(y, row.clone() + i, e / Expr::Var(sum));
        });
        let k = b.finish(vec![]);
        agree(&k, &buffers(&k, &mut rng), 12);
    }
}

#[test]
fn control_flow_and_faults() {
    let mut rng = Rng(23);
    for kind in [LoopKind::Serial, LoopKind::Vector] {
        for n in [0, 3, 40] {
            // Clips an index and complains about it; conditions on lanes, on all lanes alike, and a loop that counts down.
            let mut b = KernelBuilder::new("control");
            let (index, x) = (b.param(DType::I32, n, Access::Read), b.param(DType::F32, 100, Access::Read));
            let y = b.param(DType::F32, 2 * n, Access::ReadWrite);
            let p = b.parallel(2, 10);
            b.for_(kind, Expr::i64(0), Expr::i64(n as i64), 1, |b, i| {
                let at = b.load(index, i.clone());
                let at = b.let_(Expr::cast(DType::I64, at));
                b.fault_if(Expr::compare(CmpOp::Gt, at.clone(), Expr::i64(99)), "index too large");
                let at = b.let_(at.max(Expr::i64(0)).min(Expr::i64(99)));
                let out = b.let_(p.clone() * n as i64 + i.clone());
                let first = Expr::compare(CmpOp::Eq, p.clone(), Expr::i64(0));
                b.if_else(
                    first,
                    |b| {
                        let v = b.load(x, at.clone());
                        b.store(y, out.clone(), v);
                    },
                    |b| {
                        let steps = b.mutable(Expr::i64(5));
                        let sum = b.mutable(Expr::f32(0.0));
                        let more = Expr::compare(CmpOp::Gt, Expr::Var(steps), Expr::i64(0));
                        b.while_(more, |b| {
                            let v = b.load(x, (at.clone() + Expr::Var(steps)).min(Expr::i64(99)));
                            b.set(sum, Expr::Var(sum) + v);
                            b.set(steps, Expr::Var(steps) - 1);
                        });
                        b.store(y, out.clone(), Expr::Var(sum));
                    },
                );
                // Differs between lanes.
                b.if_(Expr::compare(CmpOp::Gt, at.clone(), Expr::i64(50)), |b| {
                    let v = b.load(y, out.clone());
                    b.store(y, out.clone(), Expr::unary(UnOp::Neg, v));
                });
            });
            let k = b.finish(vec![]);
            agree(&k, &buffers(&k, &mut rng), 0);
        }
    }
}

/// An interpreter that finds nothing wrong would be no oracle.
#[test]
fn the_interpreter_and_the_check_object() {
    let mut b = KernelBuilder::new("wrong");
    let x = b.param(DType::F32, 4, Access::Read);
    let v = b.load(x, Expr::i64(4));
    b.store(x, Expr::i64(0), v);
    let k = b.finish(vec![]);
    assert_eq!(k.check(), ["b0 is declared Read and used otherwise"]);
    let mut data = vec![vec![0; 16]];
    let error = lehr_codegen::kernel::interp::run(&k, &mut data, 0..1).unwrap_err();
    assert_eq!(error, "b0[4] is outside of 4 elements");
}

#[test]
fn kernels_print_as_their_documentation_shows() {
    let mut b = KernelBuilder::new("relu");
    let (x, y) = (b.param(DType::F32, 1000, Access::Read), b.param(DType::F32, 1000, Access::Write));
    let p = b.parallel(4, 250);
    b.for_(LoopKind::Vector, p.clone() * 250, p * 250 + 250, 1, |b, i| {
        let v = b.load(x, i.clone());
        let v = b.let_(v);
        b.store(y, i, v.max(Expr::f32(0.0)));
    });
    b.if_else(
        Expr::compare(CmpOp::Lt, Expr::Var(0), Expr::i64(1)),
        |b| b.store(y, Expr::i64(0), Expr::cast(DType::F32, Expr::Int(DType::U8, 7))),
        |b| b.fault_if(Expr::Int(DType::Bool, 1), "never"),
    );
    let expected = "\
kernel relu (b0: f32[1000] read, b1: f32[1000] write) parallel v0 < 4 {
  vector for v1 in v0 * 250 .. (v0 * 250) + 250 {
    let v2: f32 = b0[v1]
    b1[v1] = max(v2, 0.0)
  }
  if v0 < 1 {
    b1[0] = f32(7u8)
  } else {
    if true {
      fault \"never\"
    }
  }
}
";
    assert_eq!(b.finish(vec![]).to_string(), expected);
}
