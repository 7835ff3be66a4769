//! Compiled kernels against the interpreter: every operation on every type, in scalar code and in vector loops of all lengths.

mod common;

use common::{Rng, agree, buffers};
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
