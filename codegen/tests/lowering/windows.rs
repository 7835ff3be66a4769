//! Convolutions, pools, products and resampling.

use crate::harness::{FLOATS, NUMBERS, check, check_types, refusal};

#[test]
fn convolutions() {
    let attrs = "{strides=[2, 3], pads=[1, 2, 0, 1], dilations=[2, 1]}";
    check_types(
        &FLOATS,
        "%x: T[2,4,9,19]",
        &format!("%w = const T[6,4,3,3] seeded(1)\n%b = const T[6] seeded(2)\n%y = conv %x, %w, %b {attrs}\nreturn %y"),
    );
    check(
        "%x: f32[1,3,8,21], %w: f32[8,3,3,3]",
        "%y = conv %x, %w {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1]}\nreturn %y",
    );
    // Depthwise, and groups whose channels do not divide into blocks.
    check(
        "%x: f32[1,6,5,9], %w: f32[6,1,3,3]",
        "%y = conv %x, %w {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1], groups=6}\nreturn %y",
    );
    check(
        "%x: f32[1,6,5,9], %w: f32[9,2,3,3]",
        "%y = conv %x, %w {strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1], groups=3}\nreturn %y",
    );
    // Pointwise, with and without a fused relu (which keeps it from running over the plane at once).
    let pointwise = "{strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1]}";
    check("%x: f32[2,5,7,7], %w: f32[8,5,1,1], %b: f32[8]", &format!("%y = conv %x, %w, %b {pointwise}\nreturn %y"));
    check(
        "%x: f32[2,5,7,7], %w: f32[8,5,1,1]",
        &format!(
            "%y = fusion %x, %w graph @r(%a: f32[2,5,7,7], %b: f32[8,5,1,1]) {{\n%n = neg %a\n%c = conv %n, %b {pointwise}\n%r = relu %c\nreturn %r\n}}\nreturn %y"
        ),
    );
    // The prologue must not reach the border: exp(0) is 1.
    check(
        "%x: f32[1,2,5,5], %w: f32[3,2,3,3]",
        "%y = fusion %x, %w graph @r(%a: f32[1,2,5,5], %b: f32[3,2,3,3]) {\n%n = exp %a\n%c = conv %n, %b {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1]}\nreturn %c\n}\nreturn %y",
    );
    check("%x: f32[1,2,11], %w: f32[4,2,5]", "%y = conv %x, %w {strides=[2], pads=[0, 4], dilations=[2]}\nreturn %y");
    check(
        "%x: f32[1,2,4,5,6], %w: f32[4,1,2,3,2]",
        "%y = conv %x, %w {strides=[1, 2, 1], pads=[0, 1, 1, 1, 1, 0], dilations=[1, 1, 2], groups=2}\nreturn %y",
    );
    // Windows in padding alone; no input channels; no images.
    check(
        "%x: f32[1,1,2,2], %w: f32[1,1,2,2]",
        "%y = conv %x, %w {strides=[1, 1], pads=[4, 3, 3, 4], dilations=[1, 1]}\nreturn %y",
    );
    check(
        "%x: f32[1,0,4,4], %w: f32[2,0,3,3], %b: f32[2]",
        "%y = conv %x, %w, %b {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1]}\nreturn %y",
    );
    check(
        "%x: f32[0,1,4,4], %w: f32[2,1,3,3]",
        "%y = conv %x, %w {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1]}\nreturn %y",
    );
}

#[test]
fn transposed_convolutions() {
    let attrs = "{strides=[2, 3], pads=[1, 0, 1, 2], dilations=[1, 2], output_padding=[1, 2]}";
    check_types(
        &FLOATS,
        "%x: T[2,4,5,6], %w: T[4,6,3,3], %b: T[6]",
        &format!("%y = conv_transpose %x, %w, %b {attrs}\nreturn %y"),
    );
    check(
        "%x: f32[1,4,3,9], %w: f32[4,3,2,2]",
        "%y = conv_transpose %x, %w {strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1], output_padding=[0, 0], groups=2}\n%r = relu %y\nreturn %r",
    );
    check(
        "%x: f32[1,2,3], %w: f32[2,1,4]",
        "%y = conv_transpose %x, %w {strides=[2], pads=[-1, -2], dilations=[1], output_padding=[0]}\nreturn %y",
    );
    check(
        "%x: f32[1,2,3], %w: f32[2,1,4]",
        "%y = conv_transpose %x, %w {strides=[1], pads=[3, 2], dilations=[1], output_padding=[0]}\nreturn %y",
    );
    check(
        "%x: f32[1,2,3,2,4], %w: f32[2,2,2,3,1]",
        "%y = conv_transpose %x, %w {strides=[1, 2, 3], pads=[0, 1, 0, 1, 0, 0], dilations=[2, 1, 1], output_padding=[0, 0, 1]}\nreturn %y",
    );
    check(
        "%x: f32[1,0,3], %w: f32[0,2,4], %b: f32[2]",
        "%y = conv_transpose %x, %w, %b {strides=[1], pads=[0, 0], dilations=[1], output_padding=[0]}\nreturn %y",
    );
}

#[test]
fn pools() {
    let max_types = ["f64", "f32", "f16", "bf16", "i8", "u8"];
    for attrs in [
        "{kernel=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0], dilations=[1, 1]}",
        "{kernel=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1], ceil_mode=true}",
        "{kernel=[2, 3], strides=[1, 1], pads=[2, 1, 3, 2], dilations=[2, 3]}",
        "{kernel=[11, 13], strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1]}",
    ] {
        let params = "%x: T[2,3,11,13]";
        check_types(&max_types, params, &format!("%y = max_pool %x {attrs}\nreturn %y"));
        check_types(&max_types, params, &format!("%y, %i = max_pool %x {attrs}\nreturn %y, %i"));
        let column = attrs.replace('}', ", column_major=true}");
        check(&params.replace('T', "f32"), &format!("%y, %i = max_pool %x {column}\nreturn %i"));
        check_types(&FLOATS, params, &format!("%y = avg_pool %x {attrs}\nreturn %y"));
        let include = attrs.replace('}', ", count_include_pad=true}");
        check_types(&FLOATS, params, &format!("%y = avg_pool %x {include}\nreturn %y"));
        for p in [1, 2, 3] {
            let with_p = attrs.replace('}', &format!(", p={p}}}"));
            check_types(&FLOATS, params, &format!("%y = lp_pool %x {with_p}\nreturn %y"));
        }
    }
    check(
        "%x: f32[2,3,37]",
        "%y = max_pool %x {kernel=[3], strides=[2], pads=[1, 1], dilations=[1]}\n%r = relu %y\nreturn %r",
    );
    check(
        "%x: f32[1,2,5,6,7]",
        "%y = avg_pool %x {kernel=[2, 3, 2], strides=[2, 1, 2], pads=[1, 0, 1, 0, 1, 0], dilations=[1, 1, 1]}\nreturn %y",
    );
    // A plane without elements, all padding.
    check(
        "%x: f32[1,2,0]",
        "%y, %i = max_pool %x {kernel=[2], strides=[1], pads=[1, 1], dilations=[1]}\nreturn %y, %i",
    );
    check("%x: f32[1,2,0]", "%y = max_pool %x {kernel=[2], strides=[1], pads=[1, 1], dilations=[1]}\nreturn %y");
    // NaN in a window.
    check(
        "%x: f32[1,1,4]",
        "%n = const f32[1,1,4] [1.0, nan, -inf, 2.0]\n%s = add %x, %n\n%y, %i = max_pool %s {kernel=[2], strides=[1], pads=[0, 0], dilations=[1]}\n%z = max_pool %s {kernel=[2], strides=[1], pads=[1, 1], dilations=[1]}\nreturn %y, %i, %z",
    );
}

#[test]
fn absurd_windows_are_refused() {
    for body in [
        "%y = max_pool %x {kernel=[1073741824], strides=[1], pads=[1073741824, 0], dilations=[1]}\nreturn %y",
        "%y = avg_pool %x {kernel=[1], strides=[1], pads=[2147483647, 2147483647], dilations=[1]}\nreturn %y",
        "%y = resize %x {shape=[1048576, 1048576, 4], scales=[1.0, 1.0, 4.0]}\nreturn %y",
        "%y = resize %x {shape=[1, 1, 1073741824], scales=[1.0, 1.0, 1073741824.0]}\nreturn %y",
    ] {
        let (params, expected) = match body.contains("shape=[1048576") {
            true => ("%x: f32[1048576,1048576,1]", "type.size"),
            false => ("%x: f32[1,1,1]", "lower.too-large"),
        };
        assert_eq!(refusal(params, body), expected, "{body}");
    }
    // A long kernel over a long pad is no reason to count for long.
    check(
        "%x: f32[1,1,3]",
        "%y = avg_pool %x {kernel=[99999], strides=[1], pads=[99997, 0], dilations=[1]}\nreturn %y",
    );
}

#[test]
fn products() {
    let types = ["f64", "f32", "f16", "bf16", "i32", "i64", "u32", "u64"];
    check_types(&types, "%a: T[5,1,4,3], %b: T[2,3,7]", "%y = matmul %a, %b\nreturn %y");
    for (a, b) in [
        ("[3]", "[3]"),
        ("[3]", "[2,3,4]"),
        ("[2,4,3]", "[3]"),
        ("[7,5]", "[5,33]"),
        ("[2,1,9]", "[9,1]"),
        ("[3,0]", "[0,4]"),
        ("[0,3]", "[3,4]"),
        ("[1,64]", "[64,40]"),
    ] {
        check(&format!("%a: f32{a}, %b: f32{b}"), "%y = matmul %a, %b\nreturn %y");
    }
    for (a, b, flags) in [
        ("[6,5]", "[5,9]", ""),
        ("[5,6]", "[5,9]", "trans_a=true"),
        ("[6,5]", "[9,5]", "trans_b=true"),
        ("[5,6]", "[8,5]", "trans_a=true, trans_b=true"),
    ] {
        let n = if b == "[8,5]" { 8 } else { 9 };
        check_types(&types, &format!("%a: T{a}, %b: T{b}"), &format!("%y = gemm %a, %b {{{flags}}}\nreturn %y"));
        for c in ["[]".to_string(), "[1]".into(), format!("[{n}]"), "[6,1]".into(), format!("[6,{n}]")] {
            let sep = if flags.is_empty() { "" } else { ", " };
            check_types(
                &types,
                &format!("%a: T{a}, %b: T{b}, %c: T{c}"),
                &format!(
                    "%y = gemm %a, %b, %c {{alpha=0.5, beta=-2.0{sep}{flags}}}\n%z = gemm %a, %b, %c {{{flags}}}\nreturn %y, %z"
                ),
            );
        }
    }
    check("%a: f32[2,3], %b: f32[3,4]", "%c = const f32[] [nan]\n%y = gemm %a, %b, %c {beta=0.0}\nreturn %y");
    check("%a: f32[2,0], %b: f32[0,4], %c: f32[4]", "%y = gemm %a, %b, %c\nreturn %y");
}

#[test]
fn einsums() {
    for (equation, operands) in [
        ("bij,jk->bik", "[2,3,4] [4,5]"),
        ("ij->ji", "[3,4]"),
        ("ii", "[4,4]"),
        ("...ii->...i", "[2,3,3]"),
        ("i,j,k->kji", "[2] [3] [4]"),
        ("...,...", "[2,3] [3]"),
        ("ij->", "[3,5]"),
        ("ij->i", "[3,0]"),
        ("bhqd,bhkd->bhqk", "[1,2,3,4] [1,2,5,4]"),
        (",->", "[] []"),
    ] {
        let shapes: Vec<&str> = operands.split(' ').collect();
        let params: Vec<String> = shapes.iter().enumerate().map(|(i, s)| format!("%x{i}: T{s}")).collect();
        let names: Vec<String> = (0..shapes.len()).map(|i| format!("%x{i}")).collect();
        check_types(
            &NUMBERS,
            &params.join(", "),
            &format!("%y = einsum {} {{equation=\"{equation}\"}}\nreturn %y", names.join(", ")),
        );
    }
}

#[test]
fn resampling() {
    let up = "shape=[2, 7, 8], scales=[1.0, 1.4, 2.0]";
    let down = "shape=[2, 3, 2], scales=[1.0, 0.6, 0.5]";
    for size in [up, down] {
        for coordinates in [
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_half_pixel_for_nn",
        ] {
            for mode in [
                "mode=nearest",
                "mode=nearest, nearest=ceil",
                "mode=linear",
                "mode=cubic",
                "mode=cubic, exclude_outside=true",
                "mode=linear, antialias=true",
            ] {
                check(
                    "%x: f32[2,5,4]",
                    &format!("%y = resize %x {{{size}, {mode}, coordinates={coordinates}}}\nreturn %y"),
                );
            }
        }
        for mode in ["mode=linear", "mode=cubic, antialias=true", "mode=nearest"] {
            check_types(&NUMBERS, "%x: T[2,5,4]", &format!("%y = resize %x {{{size}, {mode}}}\nreturn %y"));
        }
        let crop = "coordinates=tf_crop_and_resize, extrapolation=-1.5, roi=[0.0, -0.3, 0.4, 1.0, 0.9, 1.4]";
        for mode in ["nearest", "linear", "cubic"] {
            check("%x: f32[2,5,4]", &format!("%y = resize %x {{{size}, mode={mode}, {crop}}}\nreturn %y"));
        }
    }
    check_types(&["bool"], "%x: T[2,5,4]", &format!("%y = resize %x {{{up}}}\nreturn %y"));
    // Integers at the ends of their types saturate.
    for (t, ends) in
        [("u8", "0, 255, 0, 255"), ("i8", "-128, 127, -128, 127"), ("i32", "-2147483648, 2147483647, 0, 5")]
    {
        check(
            &format!("%x: {t}[1]"),
            &format!(
                "%e = const {t}[4] [{ends}]\n%z = concat %e, %x {{axis=0}}\n%y = resize %z {{shape=[11], scales=[2.2], mode=cubic}}\nreturn %y"
            ),
        );
    }
}
