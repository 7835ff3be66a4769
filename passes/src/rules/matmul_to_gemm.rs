//! matmul(a, b) + c  ==  gemm(a, b, c)
//! Needs: matrices a and b; c that broadcasts to the product; a product that is used once.
//! Exactness: Rounding (the sum is rounded once instead of twice).

use crate::Cx;
use crate::rule::{Decline, Exactness, Outcome, Rule, declined, replace};
use lehr_ir::ops::{BinaryFn, Gemm};
use lehr_ir::{NodeId, Op, ValueId};

pub const MATMUL_TO_GEMM: Rule = Rule {
    name: "matmul-to-gemm",
    equation: "matmul(a, b) + c == gemm(a, b, c)",
    exactness: Exactness::Rounding,
    apply,
};

fn apply(id: NodeId, cx: &mut Cx) -> Outcome {
    let Op::Binary(b) = cx.op(id) else { return Err(Decline::NoMatch) };
    if b.f != BinaryFn::Add {
        return Err(Decline::NoMatch);
    }
    let (x, y) = (cx.x(id, 0), cx.x(id, 1));
    let is_product = |v: ValueId| matches!(cx.op(v.node), Op::MatMul(_));
    let (product, c) = match (is_product(x), is_product(y)) {
        (true, _) => (x, y),
        (false, true) => (y, x),
        (false, false) => return Err(Decline::NoMatch),
    };
    let (a, b) = (cx.x(product.node, 0), cx.x(product.node, 1));
    if cx.ty(a).rank() != 2 || cx.ty(b).rank() != 2 {
        declined!("the product is of ranks {} and {}, not of two matrices", cx.ty(a).rank(), cx.ty(b).rank());
    }
    if cx.ty(id.out(0)) != cx.ty(product) {
        declined!("the sum {} is larger than the product {}", cx.ty(id.out(0)), cx.ty(product));
    }
    if !cx.used_once(product) {
        declined!("the result of {} has other uses", cx.name(product.node));
    }
    let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    let origins = cx.origins(&[product.node, id]);
    let new = cx.add(gemm, &[Some(a), Some(b), Some(c)], origins)?;
    replace(id.out(0), new.out(0))
}
