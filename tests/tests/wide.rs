//! Elementwise groups, reductions, normalisations and softmax on plain values, which leaves compute: against the evaluator, on each
//! instruction set that this CPU has, with one thread and with two, whose results must be equal bit by bit.

use lehr::{CompileOptions, Runner};
use lehr_codegen::layout::{Role, decide};
use lehr_codegen::x86::Isa;
use lehr_ir::eval::evaluate;
use lehr_ir::graph::Graph;
use lehr_ir::tensor::seeded;
use lehr_ir::text::parse;
use lehr_ir::{DType, Tensor};
use lehr_tests::compare::{difference, dirty_memory};

fn graph(params: &str, body: &str) -> Graph {
    let text = format!("graph @test({params}) {{\n{body}\n}}");
    parse(&text, &|_| None).unwrap_or_else(|d| panic!("{}\n{text}", d[0]))
}

fn shapes(g: &Graph) -> Vec<Vec<usize>> {
    g.inputs().iter().map(|&v| g.ty(v).const_shape().unwrap()).collect()
}

/// Checks a body on seeded inputs times `range`; the leaf of this role must be used, and with [`Role::Other`] none.
fn check(role: Role, range: f64, params: &str, body: &str) {
    let g = graph(params, body);
    let inputs: Vec<Tensor> = shapes(&g)
        .into_iter()
        .enumerate()
        .map(|(i, shape)| {
            let values = seeded(DType::F32, shape.clone(), i as u64 + 1).to_f64();
            Tensor::from_f64(DType::F32, shape, values.into_iter().map(|x| x * range))
        })
        .collect();
    check_on(role, &g, &inputs, body);
}

fn check_on(role: Role, g: &Graph, inputs: &[Tensor], body: &str) {
    let expected = evaluate(g, inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}\n{body}"));
    for (cpu, isa) in [("x86-64-v3", Isa::Avx2), ("x86-64-v4", Isa::Avx512)] {
        if !isa.on_this_cpu() {
            continue;
        }
        let options = CompileOptions { cpu: cpu.to_string(), ..CompileOptions::default() };
        let (optimized, _) = lehr::optimize(g.clone(), options.level).unwrap();
        let layouts = decide(&optimized, &options.lowering());
        let used = |role: Role| optimized.ids().any(|id| layouts.role(id) == role);
        match role {
            Role::Other => assert_eq!(layouts.describe(&optimized), "", "{cpu}: leaves in\n{body}"),
            _ => assert!(used(role), "{cpu}: no {role:?} in\n{}\n{body}", layouts.describe(&optimized)),
        }
        let run = |threads| {
            dirty_memory();
            let mut runner = Runner::jit(g.clone(), &options, threads).unwrap_or_else(|e| panic!("{cpu}: {e}\n{body}"));
            // Twice: the second time the arena is dirty.
            let first = runner.run(inputs).unwrap();
            let second = runner.run(inputs).unwrap();
            first
                .iter()
                .zip(&second)
                .for_each(|(a, b)| assert_eq!(a.bytes(), b.bytes(), "{cpu}: a second run\n{body}"));
            first
        };
        let (one, two) = (run(1), run(2));
        for (i, (got, want)) in one.iter().zip(&expected).enumerate() {
            if let Some(wrong) = difference(want, got, 1e-5) {
                panic!("{cpu}, output {i}: {wrong}\n{body}");
            }
            assert_eq!(got.bytes(), two[i].bytes(), "{cpu}: two threads\n{body}");
        }
    }
}

#[test]
fn groups_of_plain_values_are_wide_maps() {
    let wide = |params: &str, body: &str| check(Role::Wide, 3.0, params, body);
    for f in ["sin", "exp", "tanh", "erf", "gelu", "log1p", "atan", "softplus", "sign", "sqrt"] {
        wide("%x: f32[1000]", &format!("%y = {f} %x\nreturn %y"));
    }
    wide("%x: f32[3,5,70]", "%y = cos %x\n%z = mul %y, %x\nreturn %z");
    // Operands that broadcast along the last axes, the first, one in the middle, and all.
    wide("%x: f32[7,64], %b: f32[64]", "%y = add %x, %b\nreturn %y");
    wide("%x: f32[40,3,50], %b: f32[3,1]", "%y = mul %x, %b\n%z = relu %y\nreturn %z");
    wide("%x: f32[4,1,60], %a: f32[4,1,1], %b: f32[4,1,60]", "%y = sub %a, %x\n%z = div %y, %b\nreturn %z");
    wide("%x: f32[5,6,77], %a: f32[5,1,77], %b: f32[1]", "%y = max %x, %a\n%z = add %y, %b\nreturn %z");
    wide("%x: f32[100000]", "%y = mul %x, %x\n%z = tanh %y\nreturn %z");
    wide("%x: f32[2,40000], %b: f32[40000]", "%y = add %b, %x\nreturn %y");
}

/// Their results have no elements either, or are what a reduction of nothing is.
#[test]
fn tensors_without_elements_are_no_leaf_s() {
    let plain = |params: &str, body: &str| check(Role::Other, 1.0, params, body);
    plain("%x: f32[0,5,70], %b: f32[5,1]", "%y = add %x, %b\n%z = sin %y\nreturn %z");
    plain("%x: f32[4,0,60], %a: f32[4,1,60]", "%y = mul %x, %a\nreturn %y");
    plain("%x: f32[0]", "%y = exp %x\nreturn %y");
    for (x, axis) in [("f32[0,64]", 1), ("f32[64,0]", 1), ("f32[0,64]", 0), ("f32[0,20,70]", 1), ("f32[3,0,70]", 1)] {
        for f in ["softmax", "log_softmax"] {
            plain(&format!("%x: {x}"), &format!("%y = {f} %x {{axis={axis}}}\nreturn %y"));
        }
        for f in ["sum", "mean", "max", "min", "l1", "l2", "sum_square", "log_sum_exp"] {
            for keepdims in [true, false] {
                let body = format!("%y = reduce %x {{f={f}, axes=[{axis}], keepdims={keepdims}}}\nreturn %y");
                plain(&format!("%x: {x}"), &body);
            }
        }
    }
    let norm = "%y, %m, %i = layer_norm %x, %s, %b {axis=1}\nreturn %y";
    plain("%x: f32[0,64], %s: f32[64], %b: f32[64]", norm);
    plain("%x: f32[70,0], %s: f32[0], %b: f32[0]", norm);
    let norm = "%y = instance_norm %x, %s, %b\nreturn %y";
    plain("%x: f32[0,3,64], %s: f32[3], %b: f32[3]", norm);
    plain("%x: f32[2,3,0,9], %s: f32[3], %b: f32[3]", norm);
    plain("%x: f32[0,9], %w: f32[9,40]", "%y = matmul %x, %w\nreturn %y");
    plain("%x: f32[8,0], %w: f32[0,40]", "%y = matmul %x, %w\nreturn %y");
}

#[test]
fn truth_values_are_numbers_inside_a_leaf() {
    let wide = |body: &str| check(Role::Wide, 2.0, "%x: f32[3,100], %y: f32[100]", body);
    for compare in ["less", "less_equal", "greater", "greater_equal", "equal"] {
        wide(&format!("%c = {compare} %x, %y\n%z = where %c, %x, %y\nreturn %z"));
    }
    wide(
        "%a = less %x, %y\n%b = is_nan %x\n%c = or %a, %b\n%d = not %c\n%e = xor %a, %d\n%f = and %e, %a\n%n = neg %y\n%z = where %f, %x, %n\nreturn %z",
    );
    wide("%a = greater %x, %y\n%z = cast %a {to=f32}\n%w = add %z, %x\nreturn %w");
    for exponent in ["1", "2", "3", "0.5", "-1"] {
        wide(&format!("%e = const f32[] [{exponent}]\n%a = abs %x\n%p = pow %a, %e\n%z = add %p, %y\nreturn %z"));
    }
}

/// Zeros, infinities, NaN and numbers beyond every function's range.
#[test]
fn awkward_numbers_go_through_as_evaluated() {
    let mut values =
        vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, -1.0, 1e-40, -1e-40, 90.0, -110.0];
    values.extend((0..89).map(|i| f64::from(i) * 0.25 - 11.0));
    let x = Tensor::from_f64(DType::F32, vec![100], values);
    for f in
        ["sin", "cos", "sinh", "asinh", "acosh", "atanh", "asin", "acos", "atan", "log1p", "log", "sign", "softplus"]
    {
        // Infinite results would hide the finite ones from the comparison.
        let body = format!("%y = {f} %x\n%z = clip %y, %l, %h\nreturn %z");
        let body = format!("%l = const f32[] [-50]\n%h = const f32[] [50]\n{body}");
        check_on(Role::Wide, &graph("%x: f32[100]", &body), std::slice::from_ref(&x), &body);
    }
    for test in ["is_nan %x", "is_inf %x", "is_inf %x {positive=0}", "is_inf %x {negative=0}"] {
        let body = format!(
            "%c = {test}\n%o = const f32[] [1]\n%t = const f32[] [2]\n%z = where %c, %o, %t\n%w = where %c, %z, %n\nreturn %w"
        );
        let g = graph("%x: f32[100], %n: f32[100]", &body);
        check_on(Role::Wide, &g, &[x.clone(), seeded(DType::F32, vec![100], 3)], &body);
    }
}

#[test]
fn reductions_over_any_axes() {
    let shapes = [
        ("f32[7,300]", vec!["0", "1", "0, 1"]),
        ("f32[3,5,70]", vec!["0", "1", "2", "0, 2", "1, 2", "0, 1"]),
        ("f32[40,6,9]", vec!["0", "2", "1, 2", "0, 2"]),
        ("f32[2,33,4,31]", vec!["1", "1, 3", "0, 2", "0, 2, 3", "0, 1, 2, 3"]),
        ("f32[70000]", vec!["0"]),
        ("f32[16411]", vec!["0"]),
        ("f32[4100,40]", vec!["0", "1", "0, 1"]),
        ("f32[100,2]", vec!["0", "1"]),
        ("f32[1,64,1,49]", vec!["3", "1", "1, 3"]),
    ];
    for f in ["sum", "mean", "max", "min", "l1", "l2", "sum_square", "log_sum_exp"] {
        for (x, axes) in &shapes {
            for axes in axes {
                let body = format!("%y = reduce %x {{f={f}, axes=[{axes}]}}\nreturn %y");
                check(Role::Reduce, 2.0, &format!("%x: {x}"), &body);
            }
        }
    }
    // A sum whose logarithm is that of a positive number; something fused behind; no axis kept.
    let body = "%a = abs %x\n%y = reduce %a {f=log_sum, axes=[1]}\nreturn %y";
    check(Role::Reduce, 1.0, "%x: f32[9,500,3]", body);
    let body = "%y = reduce %x {f=mean, axes=[1, 2], keepdims=false}\n%z = mul %y, %s\n%w = sqrt %z\n%v = add %w, %z\nreturn %v";
    check(Role::Reduce, 1.0, "%x: f32[9,50,30], %s: f32[9]", body);
}

/// Infinities, NaN, and numbers whose squares are beyond f32.
#[test]
fn awkward_numbers_are_reduced_as_evaluated() {
    let rows = |special: &[f64]| -> Vec<f64> {
        let row = |s: &f64| (0..40).map(|i| if i == 33 { *s } else { f64::from(i) / 16.0 - 1.0 }).collect::<Vec<_>>();
        special.iter().flat_map(row).collect()
    };
    let mut values = rows(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -3e38, 0.0, 200.0, -200.0]);
    values.extend(vec![f64::NEG_INFINITY; 40]);
    values.extend(vec![1e-42; 40]);
    values.extend(vec![1e-25; 40]);
    values.extend(vec![0.0; 40]);
    let x = Tensor::from_f64(DType::F32, vec![12, 40], values.clone());
    let transposed = Tensor::from_f64(DType::F32, vec![40, 12], (0..480).map(|i| values[i % 12 * 40 + i / 12]));
    for f in ["max", "min", "sum", "l2", "log_sum_exp"] {
        // Numbers are compared one by one: none hides another.
        for row in 0..12 {
            let row_of = Tensor::from_f64(DType::F32, vec![1, 40], values[40 * row..40 * row + 40].iter().copied());
            let body = format!("%y = reduce %x {{f={f}, axes=[1]}}\nreturn %y");
            check_on(Role::Reduce, &graph("%x: f32[1,40]", &body), &[row_of], &body);
        }
        for (params, axis, x) in [("%x: f32[12,40]", 1, &x), ("%x: f32[40,12]", 0, &transposed)] {
            let body = format!("%y = reduce %x {{f={f}, axes=[{axis}]}}\nreturn %y");
            check_on(Role::Reduce, &graph(params, &body), std::slice::from_ref(x), &body);
        }
    }
}

/// Numbers of which many are equal, and zeros of both signs, infinities and NaN in some cells.
#[test]
fn positions_of_extremes_in_rows_and_columns() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
    let values = |shape: &[usize]| {
        let values = seeded(DType::F32, shape.to_vec(), 7).to_f64();
        let value = |(i, x): (usize, f64)| match i * i % 11 {
            3 => special[i / 11 % special.len()],
            1 | 4 => (4.0 * x).round(),
            _ => x,
        };
        Tensor::from_f64(DType::F32, shape.to_vec(), values.into_iter().enumerate().map(value))
    };
    for attrs in
        ["f=max", "f=min, keepdims=false", "f=max, select_last=true, keepdims=false", "f=min, select_last=true"]
    {
        for (x, axis) in [
            ("1,21,40,33", 1),
            ("3,5,70", 1),
            ("40,6,9", 0),
            ("2,300,1,7", 1),
            ("9,2,64", 1),
            ("4100,40", 0),
            ("4100,40", 1),
            ("3,16", 1),
            ("200,7", 1),
            ("1003,10", 1),
            ("90,31", 1),
            ("16,2", 1),
            ("1,1000", 1),
            ("8,12,129", 2),
            ("70000", 0),
            ("2,65,1,1", 1),
        ] {
            let body = format!("%y = arg_reduce %x {{{attrs}, axis={axis}}}\nreturn %y");
            let g = graph(&format!("%x: f32[{x}]"), &body);
            let x = values(&shapes(&g)[0]);
            check_on(Role::Positions, &g, &[x], &body);
        }
    }
    // With something before and behind.
    let body = "%a = abs %x\n%y = arg_reduce %a {f=max, axis=1}\n%z = cast %y {to=f32}\nreturn %z, %y";
    check(Role::Positions, 2.0, "%x: f32[2,30,41]", body);
    // Few elements are plain loops'.
    let plain = |x: &str, axis: usize| {
        let body = format!("%y = arg_reduce %x {{f=max, axis={axis}}}\nreturn %y");
        check(Role::Other, 2.0, &format!("%x: {x}"), &body);
    };
    plain("f32[6,7]", 1);
    plain("f32[3,9,5]", 1);
    plain("f32[0,64]", 1);
}

#[test]
fn softmax_and_normalisations_of_rows_and_columns() {
    let rows = |range: f64, params: &str, body: &str| check(Role::Rows, range, params, body);
    for f in ["softmax", "log_softmax"] {
        for x in [
            "f32[200,2]",
            "f32[37,5]",
            "f32[64,16]",
            "f32[50,17]",
            "f32[33,64]",
            "f32[5,65]",
            "f32[3,1000]",
            "f32[1,20000]",
        ] {
            rows(5.0, &format!("%x: {x}"), &format!("%y = {f} %x {{axis=1}}\nreturn %y"));
        }
        for (x, axis) in [("f32[2,21,5,70]", 1), ("f32[300,3,70]", 1), ("f32[19,90]", 0), ("f32[40,8,1,1]", 1)] {
            rows(5.0, &format!("%x: {x}"), &format!("%y = {f} %x {{axis={axis}}}\nreturn %y"));
        }
    }
    // With something behind: of the result's shape, per column, one number.
    rows(2.0, "%x: f32[90,24], %r: f32[90,24]", "%y = softmax %x {axis=1}\n%z = add %y, %r\nreturn %z");
    rows(2.0, "%x: f32[90,24], %r: f32[24]", "%y = softmax %x {axis=1}\n%z = mul %y, %r\nreturn %z");
    rows(
        2.0,
        "%x: f32[2,24,99], %r: f32[2,24,99], %s: f32[1]",
        "%y = softmax %x {axis=1}\n%z = add %y, %r\n%w = mul %z, %s\nreturn %w",
    );
    for n in [3, 8, 24, 64, 65, 300] {
        let params = format!("%x: f32[70,{n}], %s: f32[{n}], %b: f32[{n}]");
        rows(2.0, &params, "%y, %m, %i = layer_norm %x, %s, %b {axis=1}\nreturn %y");
    }
}

/// Planes of a pixel, shorter than a vector, and of some; groups that are no multiple of one; in one, two and three dimensions.
#[test]
fn normalisations_by_channel_in_rows() {
    let params = |x: &str, channels: usize| format!("%x: f32[{x}], %s: f32[{channels}], %b: f32[{channels}]");
    for (x, channels) in [("2,3,5,70", 3), ("3,40,7,7", 40), ("1,17,25", 17), ("2,5,300", 5), ("2,6,3,4,11", 6)] {
        check(Role::Rows, 2.0, &params(x, channels), "%y = instance_norm %x, %s, %b {eps=0.01}\nreturn %y");
    }
    for (x, channels, groups) in [
        ("2,12,7,9", 12, 4),
        ("1,30,3,3", 30, 3),
        ("3,10,65", 10, 5),
        ("2,6,3,5,7", 6, 2),
        ("5,96", 96, 4),
        ("3,28,1,1", 28, 1),
        ("2,7,40", 7, 7),
        ("1,40,33", 40, 1),
        ("1,5000,3", 5000, 2),
    ] {
        let body = format!("%y = group_norm %x, %s, %b {{groups={groups}, eps=0.01}}\nreturn %y");
        check(Role::Rows, 2.0, &params(x, channels), &body);
    }
}

/// Few cells for many elements, in whole parts and with some left; long ones; results beyond the L2 cache.
#[test]
fn normalisations_by_statistics_of_parts() {
    let params = |x: &str, channels: usize| format!("%x: f32[{x}], %s: f32[{channels}], %b: f32[{channels}]");
    for (x, channels) in [("1,3,300,301", 3), ("1,9,260,261", 9), ("1,60,90,100", 60)] {
        check(Role::Statistics, 2.0, &params(x, channels), "%y = instance_norm %x, %s, %b {eps=0.01}\nreturn %y");
    }
    for (x, channels, groups) in [
        ("1,64,50,51", 64, 1),
        ("2,300,9,33", 300, 2),
        ("3,36,77,79", 36, 4),
        ("1,8,170001", 8, 8),
        ("1,9000,5,5", 9000, 3),
    ] {
        let body = format!("%y = group_norm %x, %s, %b {{groups={groups}, eps=0.01}}\nreturn %y");
        check(Role::Statistics, 2.0, &params(x, channels), &body);
    }
}

/// A large mean costs no more than the precision of the numbers themselves.
#[test]
fn means_far_from_zero_cost_normalisations_nothing() {
    for (role, x, channels, groups) in [(Role::Rows, "2,12,7,9", 12, 4), (Role::Statistics, "1,64,50,51", 64, 1)] {
        let body = format!("%y = group_norm %x, %s, %b {{groups={groups}}}\nreturn %y");
        let g = graph(&format!("%x: f32[{x}], %s: f32[{channels}], %b: f32[{channels}]"), &body);
        let shapes = shapes(&g);
        let shifted = |i: usize, by: f64| {
            let values = seeded(DType::F32, shapes[i].clone(), i as u64).to_f64();
            Tensor::from_f64(DType::F32, shapes[i].clone(), values.into_iter().map(|x| x + by))
        };
        check_on(role, &g, &[shifted(0, 50.0), shifted(1, 0.0), shifted(2, 0.0)], &body);
    }
}

/// Of the result's shape, by channel, by channel of each image, one number; and what leaves have no operands or functions for.
#[test]
fn what_follows_a_normalisation_is_its_epilogue() {
    for (role, shape, n, c, groups) in [
        (Role::Rows, "2,12,7,9", 2, 12, 4),
        (Role::Rows, "3,96,1,1", 3, 96, 4),
        (Role::Statistics, "2,300,9,33", 2, 300, 2),
        (Role::Statistics, "3,36,77,79", 3, 36, 4),
    ] {
        let params = format!(
            "%x: f32[{shape}], %s: f32[{c}], %b: f32[{c}], %r: f32[{shape}], %c: f32[{c},1,1], %i: f32[{n},{c},1,1], %o: f32[1]"
        );
        for (what, kernels) in [
            ("%a = sigmoid %n\n%y = mul %a, %n", 0),
            ("%a = add %n, %r\n%y = relu %a", 0),
            ("%a = mul %n, %c\n%y = add %a, %r", 0),
            ("%a = mul %n, %i\n%y = add %a, %o", 0),
            ("%a = mul %n, %i\n%d = add %a, %c\n%e = add %d, %r\n%y = mul %e, %o", 1),
            ("%e = const f32[] [1.7]\n%a = abs %n\n%y = pow %a, %e", 1),
        ] {
            let body = format!("%n = group_norm %x, %s, %b {{groups={groups}, eps=0.01}}\n{what}\nreturn %y");
            check(role, 1.0, &params, &body);
            let options = CompileOptions::default();
            let (optimized, _) = lehr::optimize(graph(&params, &body), options.level).unwrap();
            let nodes = optimized.ids().filter(|&id| !optimized.node(id).op.is_source()).count();
            assert_eq!(nodes, 1, "not one fusion: {body}");
            let program = lehr_codegen::lower::lower(&optimized, &options.lowering()).unwrap();
            let rest = program.kernels.iter().filter(|k| k.name.ends_with("_rest")).count();
            assert_eq!(rest, kernels, "plain kernels behind: {body}");
        }
    }
}

/// Plain loops take the last axes as one, unless what is behind has other axes.
#[test]
fn what_follows_short_cells_need_not_lie_as_they_do() {
    for (shape, r) in [("3,7,3,2", "2"), ("3,7,3,2", "3,1"), ("2,3,1,5", "5"), ("3,4,2,1,4", "1,1,1,1,4")] {
        let channels = shape.split(',').nth(1).unwrap();
        let params = format!("%x: f32[{shape}], %s: f32[{channels}], %b: f32[{channels}], %r: f32[{r}]");
        for norm in ["instance_norm %x, %s, %b {eps=0.01}", "group_norm %x, %s, %b {groups=1, eps=0.01}"] {
            let role = if norm.starts_with("group") && shape != "2,3,1,5" { Role::Rows } else { Role::Other };
            check(role, 1.0, &params, &format!("%n = {norm}\n%y = add %n, %r\nreturn %y"));
        }
    }
}

/// Channels of several images: short planes and long, few channels and many, and running statistics of other types.
#[test]
fn normalisations_by_the_batch() {
    for (x, channels) in
        [("5,7,15,18", 7), ("3,40,17,17", 40), ("2,5,40,50", 5), ("9,3,70,71", 3), ("1,12,300", 12), ("4,70,257", 70)]
    {
        let params =
            format!("%x: f32[{x}], %s: f32[{channels}], %b: f32[{channels}], %m: f32[{channels}], %v: f32[{channels}]");
        let norm = "%y, %p, %q = batch_norm_train %x, %s, %b, %m, %w {eps=0.01, momentum=0.75}";
        check(Role::Statistics, 2.0, &params, &format!("%w = abs %v\n{norm}\nreturn %y, %p, %q"));
        check(Role::Statistics, 2.0, &params, &format!("%w = cast %v {{to=f64}}\n{norm}\nreturn %y, %p, %q"));
        check(Role::Statistics, 2.0, &params, &format!("%w = abs %v\n{norm}\nreturn %y"));
        check(
            Role::Wide,
            2.0,
            &format!("{params}, %z: f32[64]"),
            &format!("%w = abs %v\n{norm}\n%r = sin %z\nreturn %p, %q, %r"),
        );
    }
}
