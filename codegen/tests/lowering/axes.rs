//! Operators along axes: reductions, normalisations, softmax, losses, selection.

use crate::harness::{FLOATS, NUMBERS, check, check_types, fault};

const REDUCTIONS: [&str; 10] =
    ["sum", "mean", "prod", "max", "min", "l1", "l2", "sum_square", "log_sum", "log_sum_exp"];

/// Whether every axis, none, the contiguous one or others are walked.
#[test]
fn reductions_over_any_axes() {
    for f in REDUCTIONS {
        // Logarithms of negative sums are NaN on both sides.
        for axes in ["0", "1", "2", "0, 1", "0, 2", "1, 2", "0, 1, 2", ""] {
            check("%x: f32[3,4,5]", &format!("%y = reduce %x {{f={f}, axes=[{axes}]}}\nreturn %y"));
        }
        let body = format!("%y = reduce %x {{f={f}, axes=[1], keepdims=false}}\nreturn %y");
        check_types(&FLOATS, "%x: T[3,9,2]", &body);
        check_types(&FLOATS, "%x: T[3,9]", &body);
    }
    for f in ["sum", "mean", "prod", "max", "min", "l1", "l2", "sum_square"] {
        let body = format!("%y = reduce %x {{f={f}, axes=[1], keepdims=false}}\nreturn %y");
        check_types(&NUMBERS, "%x: T[3,9,2]", &body);
        check_types(&NUMBERS, "%x: T[3,9]", &body);
    }
    for f in ["max", "min"] {
        check("%x: bool[3,2,7]", &format!("%y = reduce %x {{f={f}, axes=[1]}}\nreturn %y"));
        check("%x: bool[3,7]", &format!("%y = reduce %x {{f={f}, axes=[1]}}\nreturn %y"));
    }
}

#[test]
fn reductions_of_long_and_awkward_shapes() {
    for f in ["sum", "mean", "max", "log_sum_exp"] {
        check(
            "%x: f32[70,1100]",
            &format!("%y = reduce %x {{f={f}, axes=[1]}}\n%z = reduce %x {{f={f}, axes=[0]}}\nreturn %y, %z"),
        );
        check("%x: f32[2,3,40,50]", &format!("%y = reduce %x {{f={f}, axes=[2, 3]}}\nreturn %y"));
        check("%x: f32[1300,2,3]", &format!("%y = reduce %x {{f={f}, axes=[0, 1]}}\nreturn %y"));
        check(
            "%x: f32[7,1,5,1]",
            &format!("%y = reduce %x {{f={f}, axes=[2, 3]}}\n%z = reduce %x {{f={f}, axes=[0, 1]}}\nreturn %y, %z"),
        );
        check("%x: f32[]", &format!("%y = reduce %x {{f={f}, axes=[]}}\nreturn %y"));
    }
    for f in REDUCTIONS {
        check("%x: f32[2,0,3]", &format!("%y = reduce %x {{f={f}, axes=[1]}}\nreturn %y"));
        check("%x: f32[2,0]", &format!("%y = reduce %x {{f={f}, axes=[0, 1]}}\nreturn %y"));
        check("%x: i64[2,0]", &format!("%y = reduce %x {{f={f}, axes=[1]}}\nreturn %y"));
        check(
            "%s: f32[3]",
            &format!(
                "%x = const f32[4,3] [1, nan, 2, 1e4, inf, -2, -inf, 3, -inf, -inf, -inf, -inf]\n%t = add %x, %s\n%y = reduce %t {{f={f}, axes=[1]}}\nreturn %y"
            ),
        );
    }
}

#[test]
fn positions_and_running_sums() {
    for attrs in
        ["f=max", "f=min, keepdims=false", "f=max, select_last=true", "f=min, select_last=true, keepdims=false"]
    {
        for axis in 0..3 {
            check_types(&NUMBERS, "%x: T[3,9,2]", &format!("%y = arg_reduce %x {{{attrs}, axis={axis}}}\nreturn %y"));
        }
        check(
            "%s: f32[]",
            &format!(
                "%c = const f32[2,4] [1, nan, nan, 2, 0, -0, 0, -inf]\n%x = neg %c\n%y = arg_reduce %x {{{attrs}, axis=1}}\nreturn %y, %s"
            ),
        );
    }
    for attrs in ["", ", exclusive=true", ", reverse=true", ", exclusive=true, reverse=true"] {
        for axis in 0..3 {
            check_types(&NUMBERS, "%x: T[3,9,2]", &format!("%y = cum_sum %x {{axis={axis}{attrs}}}\nreturn %y"));
        }
        check("%x: f32[50,1]", &format!("%y = cum_sum %x {{axis=0{attrs}}}\nreturn %y"));
    }
}

#[test]
fn softmax_and_its_kin() {
    for op in ["softmax", "log_softmax", "hardmax"] {
        for axis in 0..3 {
            check_types(&FLOATS, "%x: T[3,19,5]", &format!("%y = {op} %x {{axis={axis}}}\nreturn %y"));
        }
        check("%x: f32[2,5,6,7]", &format!("%y = {op} %x {{axis=1}}\nreturn %y"));
        check("%x: f32[40,1100]", &format!("%y = {op} %x {{axis=1}}\nreturn %y"));
        check("%x: f32[3,1]", &format!("%y = {op} %x {{axis=1}}\nreturn %y"));
        check(
            "%s: f32[]",
            &format!(
                "%c = const f32[4,3] [1, nan, 2, 1e4, 3, -1e4, -inf, 3, -inf, -inf, -inf, -inf]\n%x = add %c, %s\n%y = {op} %x {{axis=1}}\nreturn %y"
            ),
        );
    }
}

#[test]
fn normalisations() {
    for shape in ["2,6,3,4", "2,6,5", "3,6", "1,6,1,1"] {
        let x = format!("%x: T[{shape}], %s: T[6], %b: T[6], %m: T[6], %v: T[6]");
        check_types(&FLOATS, &x, "%w = mul %v, %v\n%y = batch_norm %x, %s, %b, %m, %w\nreturn %y");
        check_types(
            &FLOATS,
            &x,
            "%w = mul %v, %v\n%y, %p, %q = batch_norm_train %x, %s, %b, %m, %w {momentum=0.5}\nreturn %y, %p, %q",
        );
        check_types(&FLOATS, &x, "%y = instance_norm %x, %s, %b {eps=0.5}\nreturn %y");
        for groups in [1, 2, 6] {
            let body = format!("%y = group_norm %x, %s, %b {{groups={groups}, eps=0.5}}\nreturn %y");
            check_types(&FLOATS, &x, &body);
        }
        for size in [1, 2, 5, 40] {
            let body =
                format!("%y = lrn %x {{size={size}, alpha=0.5}}\n%z = lrn %x {{size={size}, beta=0.6}}\nreturn %y, %z");
            check_types(&FLOATS, &x, &body);
        }
    }
    check("%x: f32[3], %p: f32[1]", "%y = batch_norm %x, %p, %p, %p, %p {eps=2}\nreturn %y");
    check("%x: f32[5], %p: f32[1]", "%y, %m, %v = batch_norm_train %x, %p, %p, %p, %p\nreturn %y, %m, %v");
    check("%x: f16[2,3,4], %s: f32[3], %m: f64[3]", "%v = mul %m, %m\n%y = batch_norm %x, %s, %s, %m, %v\nreturn %y");
    check(
        "%x: f16[2,3,4], %s: bf16[3], %m: f32[3]",
        "%y, %p, %q = batch_norm_train %x, %s, %s, %m, %m\nreturn %y, %p, %q",
    );
    check("%x: f32[0,3], %p: f32[3]", "%y, %m, %v = batch_norm_train %x, %p, %p, %p, %p\nreturn %m, %v");
}

#[test]
fn layer_norms() {
    let body = |axis: usize, bias: &str| {
        format!("%y, %m, %i = layer_norm %x, %s{bias} {{axis={axis}, eps=0.1}}\nreturn %y, %m, %i")
    };
    check_types(&FLOATS, "%x: T[3,4,70], %s: T[70], %b: T[70]", &body(2, ", %b"));
    check_types(&FLOATS, "%x: T[3,4,5], %s: T[4,5], %b: T[5]", &body(1, ", %b"));
    check("%x: f32[3,4,5], %s: f32[4,1], %b: f32[1,5]", &body(1, ", %b"));
    check("%x: f32[3,4,5], %s: f32[3,4,5], %b: f32[]", &body(0, ", %b"));
    check("%x: f32[3,5,1], %s: f32[5,1]", &body(1, ""));
    check("%x: f32[3,5,1], %s: f32[3,1,1]", &body(2, ""));
    check("%x: f32[2,0], %s: f32[1]", &body(1, ""));
    check("%x: f32[2,6], %s: f32[6]", "%y, %m, %i = layer_norm %x, %s {axis=1}\nreturn %m");
}

#[test]
fn losses() {
    let labels = "%t = const i64[3,2] [0, 3, 2, -1, 1, 3]";
    for reduction in ["none", "sum", "mean"] {
        let x = "%x: T[3,4,2], %w: T[4]";
        let attrs = format!("{{reduction={reduction}, ignore_index=-1}}");
        check_types(
            &FLOATS,
            x,
            &format!("{labels}\n%y = nll_loss %x, %t, %w {attrs}\n%z = nll_loss %x, %t {attrs}\nreturn %y, %z"),
        );
        check_types(
            &FLOATS,
            x,
            &format!(
                "{labels}\n%y, %p = softmax_cross_entropy %x, %t, %w {attrs}\n%z, %q = softmax_cross_entropy %x, %t {attrs}\nreturn %y, %p, %z"
            ),
        );
        let attrs = format!("{{reduction={reduction}}}");
        check(
            "%x: f64[2,3]",
            &format!("%t = const i32[2] [2, 0]\n%y, %p = softmax_cross_entropy %x, %t {attrs}\nreturn %p"),
        );
        let wrong =
            fault("%x: f32[2,3]", &format!("%t = const i32[2] [3, 0]\n%y = nll_loss %x, %t {attrs}\nreturn %y"));
        assert!(wrong.contains("a label is not one of the classes"), "{wrong}");
    }
    for op in ["%y = nll_loss", "%y, %p = softmax_cross_entropy"] {
        check("%x: f32[0,3], %t: i64[0]", &format!("{op} %x, %t {{reduction=sum}}\nreturn %y"));
        check("%x: f32[2,0]", &format!("%t = const i64[2] [7, 7]\n{op} %x, %t {{ignore_index=7}}\nreturn %y"));
        check(
            "%x: f32[2,0]",
            &format!("%t = const i64[2] [7, 7]\n{op} %x, %t {{ignore_index=7, reduction=none}}\nreturn %y"),
        );
    }
}

#[test]
fn the_best_in_order() {
    for largest in [true, false] {
        for (axis, n) in [(0, 9), (1, 17), (2, 4)] {
            for k in [1, 2, 3, n] {
                let body = format!("%v, %i = top_k %x {{axis={axis}, k={k}, largest={largest}}}\nreturn %v, %i");
                check_types(&NUMBERS, "%x: T[9,17,4]", &body);
            }
        }
        check("%x: f32[3,1000]", &format!("%v, %i = top_k %x {{axis=1, k=400, largest={largest}}}\nreturn %v, %i"));
        check("%x: i8[700]", &format!("%v, %i = top_k %x {{axis=0, k=700, largest={largest}}}\nreturn %i"));
        check(
            "%s: f32[]",
            &format!(
                "%c = const f32[7] [1, nan, nan, inf, 0, -0, -inf]\n%x = add %c, %s\n%v, %i = top_k %x {{axis=0, k=6, largest={largest}}}\nreturn %v, %i"
            ),
        );
    }
}

#[test]
fn fused_reductions() {
    for (axes, y) in [("1, 2", "3,1,1"), ("0", "1,70,5"), ("1", "3,1,5")] {
        for f in ["mean", "max", "log_sum_exp"] {
            check(
                "%x: f32[3,70,5], %s: f32[5], %t: f32[1]",
                &format!(
                    "%y = fusion %x, %s, %t graph @r(%a: f32[3,70,5], %b: f32[5], %c: f32[1]) {{\n%m = mul %a, %b\n%n = relu %a\n%p = add %m, %n\n%q: f32[{y}] = reduce %p {{f={f}, axes=[{axes}]}}\n%r = add %q, %c\n%z = tanh %r\nreturn %z\n}}\nreturn %y"
                ),
            );
        }
    }
}
