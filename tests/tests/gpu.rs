//! GPUs without one: small networks from their emitted PTX in the interpreter against the evaluator, at every precision, and the text of
//! one kernel of each kind. The operators' own tests are `codegen/tests/lowering`; ptxas reads what is emitted in
//! `tests/gpu/assemble.py`.

use lehr::ir::eval::evaluate;
use lehr::ir::tensor::seeded;
use lehr::ir::{Graph, Tensor};
use lehr::{CompileOptions, LoadOptions, OptLevel, compile_ptx, launch_plan, load};
use lehr_codegen::ptx::{Gpu, Precision, Sm};
use lehr_tests::compare::difference;
use lehr_tests::simulate::{simulated, simulated_with};

fn parse(params: &str, body: &str) -> Graph {
    let text = format!("graph @test({params}) {{\n{body}\n}}");
    lehr::ir::text::parse(&text, &|_| None).unwrap_or_else(|d| panic!("{}\n{text}", d[0]))
}

fn inputs(g: &Graph) -> Vec<Tensor> {
    let of = |(i, &v): (usize, &lehr::ir::ValueId)| {
        let ty = g.ty(v);
        seeded(ty.dtype, ty.const_shape().expect("numbers for all dimensions"), i as u64 + 7)
    };
    g.inputs().iter().enumerate().map(of).collect()
}

/// How far a network's outputs may be from the evaluator's, relative to the largest: a few layers add up, and partly cancel.
fn tolerance(p: Precision) -> f64 {
    match p {
        Precision::Fp32 => 1e-5,
        p => 4.0 * p.error(),
    }
}

/// Agreement at every precision and level.
fn check(name: &str, g: &Graph) {
    for precision in Precision::ALL {
        agrees(name, g, precision, &CompileOptions::default());
    }
    agrees(name, g, Precision::Fp32, &CompileOptions { level: OptLevel::O0, ..CompileOptions::default() });
}

fn agrees(name: &str, g: &Graph, precision: Precision, options: &CompileOptions) {
    let inputs = inputs(g);
    let expected = evaluate(g, &inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
    let gpu = Gpu { sm: Sm::Sm80, precision };
    let (program, module) = compile_ptx(g.clone(), options, gpu).unwrap_or_else(|e| panic!("{name}: {e}"));
    let got = simulated(&program, &module, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    for (e, g) in expected.iter().zip(&got) {
        if let Some(why) = difference(e, g, tolerance(precision)) {
            panic!("{name} in {} at -{}: {why}", precision.name(), options.level);
        }
    }
}

const SAME: &str = "strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1]";
const POINT: &str = "strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1]";

fn zoo(spec: &str, batch: i64) -> Graph {
    let options = LoadOptions { dims: vec![("batch".into(), batch)], ..LoadOptions::default() };
    load(&format!("zoo:{spec}"), &options).unwrap_or_else(|e| panic!("{e}")).graph
}

#[test]
fn lenet5() {
    check("lenet5", &zoo("lenet5", 2));
}

#[test]
fn networks_of_the_zoo() {
    for spec in [
        "siren?features=32",
        "hnet?input=12,width=0.5",
        "senet?input=32,classes=10,width=0.125",
        "mobilenet?input=32,classes=10,width=0.125",
        "inception_naive?input=32,classes=10,width=0.0625",
    ] {
        check(spec, &zoo(spec, 1));
    }
}

#[test]
fn a_residual_block() {
    let body = format!(
        "%w = const f32[16,8,3,3] seeded(1)
        %s = const f32[16] seeded(2)
        %v = const f32[16] splat(0.9)
        %c = conv %x, %w {{strides=[2, 2], pads=[1, 1, 1, 1], dilations=[1, 1]}}
        %n = batch_norm %c, %s, %s, %s, %v
        %r = relu %n
        %w2 = const f32[16,16,3,3] seeded(3)
        %d = conv %r, %w2 {{{SAME}}}
        %m = batch_norm %d, %s, %s, %s, %v
        %w3 = const f32[16,8,1,1] seeded(4)
        %p = conv %x, %w3 {{strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1]}}
        %a = add %m, %p
        %q = relu %a
        %g = reduce %q {{f=mean, axes=[2, 3], keepdims=false}}
        return %q, %g"
    );
    check("residual", &parse("%x: f32[2,8,14,14]", &body));
}

#[test]
fn an_inception_module() {
    let body = format!(
        "%w1 = const f32[8,12,1,1] seeded(1)
        %a = conv %x, %w1 {{{POINT}}}
        %ar = relu %a
        %w2 = const f32[6,12,1,1] seeded(2)
        %b = conv %x, %w2 {{{POINT}}}
        %br = relu %b
        %w3 = const f32[10,6,3,3] seeded(3)
        %c = conv %br, %w3 {{{SAME}}}
        %cr = relu %c
        %w4 = const f32[4,12,1,1] seeded(4)
        %d = conv %x, %w4 {{{POINT}}}
        %dr = relu %d
        %w5 = const f32[5,4,5,5] seeded(5)
        %e = conv %dr, %w5 {{strides=[1, 1], pads=[2, 2, 2, 2], dilations=[1, 1]}}
        %er = relu %e
        %m = max_pool %x {{kernel=[3, 3], {SAME}}}
        %w6 = const f32[6,12,1,1] seeded(6)
        %f = conv %m, %w6 {{{POINT}}}
        %fr = relu %f
        %y = concat %ar, %cr, %er, %fr {{axis=1}}
        %z = lrn %y {{size=5, alpha=0.0001, beta=0.75}}
        return %z"
    );
    check("inception", &parse("%x: f32[1,12,32,32]", &body));
}

#[test]
fn a_dense_block() {
    let body = format!(
        "%s = const f32[8] seeded(2)
        %v = const f32[8] splat(0.9)
        %n = batch_norm %x, %s, %s, %s, %v
        %r = relu %n
        %w = const f32[4,8,3,3] seeded(1)
        %c = conv %r, %w {{{SAME}}}
        %y = concat %x, %c {{axis=1}}
        %s2 = const f32[12] seeded(3)
        %v2 = const f32[12] splat(0.8)
        %n2 = batch_norm %y, %s2, %s2, %s2, %v2
        %r2 = relu %n2
        %w2 = const f32[4,12,3,3] seeded(4)
        %c2 = conv %r2, %w2 {{{SAME}}}
        %z = concat %y, %c2 {{axis=1}}
        %p = avg_pool %z {{kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1]}}
        return %p"
    );
    check("dense", &parse("%x: f32[1,8,16,16]", &body));
}

/// Of several images, a part of a concatenation has gaps between them; and a concatenation lies in another one.
#[test]
fn concatenations_are_computed_in_place() {
    let body = format!(
        "%w = const f32[5,4,3,3] seeded(1)
        %c = conv %x, %w {{{SAME}}}
        %p = max_pool %x {{kernel=[3, 3], {SAME}}}
        %y = concat %c, %p {{axis=1}}
        %w2 = const f32[6,9,1,1] seeded(4)
        %d = conv %y, %w2 {{{POINT}}}
        %r = relu %d
        %z = concat %y, %r, %x {{axis=1}}
        return %z"
    );
    let g = parse("%x: f32[2,4,9,8]", &body);
    let (_, module) = ptx(&g, Precision::Fp32);
    let copies = module.plan.kernels.iter().filter(|k| k.name.contains("concat")).count();
    assert_eq!(copies, 1, "an input alone is copied:\n{}", module.text);
    check("concatenations", &g);
}

/// Rows of twelve steps, aligned, and after them what belongs to others: infinities, which would not vanish in a product with 0.
#[test]
fn a_part_of_a_concatenation_as_a_factor() {
    let body = "%a = relu %x
        %c = const f16[] [60000.0]
        %m = mul %y, %c
        %b = mul %m, %c
        %z = concat %a, %b {axis=1}
        %t = gemm %a, %w {trans_b=true}
        return %t, %z";
    let g = parse("%x: f16[16,12], %y: f16[16,20], %w: f16[24,12]", body);
    agrees("part", &g, Precision::F16, &CompileOptions::default());
}

/// Strides that leave phases of different sizes, and taps that some of them do not see.
#[test]
fn transposed_convolutions() {
    let body = "%w = const f32[8,6,3,2] seeded(1)
        %b = const f32[6] seeded(2)
        %y = conv_transpose %x, %w, %b {strides=[2, 3], pads=[1, 0, 0, 0], dilations=[1, 1], output_padding=[1, 0]}
        %r = relu %y
        %v = const f32[8,2,3,3] seeded(3)
        %z = conv_transpose %x, %v {strides=[2, 2], pads=[2, 2, 2, 2], dilations=[2, 3], output_padding=[0, 0], groups=4}
        return %r, %z";
    check("transposed", &parse("%x: f32[2,8,7,5]", body));
}

/// Few cells of many elements, which blocks share: with a rest, and without.
#[test]
fn long_reductions() {
    let body = "%a = reduce %x {f=sum, axes=[1, 2], keepdims=false}
        %b = reduce %x {f=max, axes=[1, 2]}
        %s = mul %x, %x
        %c = reduce %s {f=mean, axes=[0, 1, 2], keepdims=false}
        %d = reduce %i {f=min, axes=[0], keepdims=false}
        return %a, %b, %c, %d";
    let g = parse("%x: f32[2,3,12007], %i: i32[65536]", body);
    let (_, module) = ptx(&g, Precision::Fp32);
    assert_eq!(module.text.matches("_parts(").count(), 4, "not in two:\n{}", module.text);
    let options = CompileOptions { level: OptLevel::O0, ..CompileOptions::default() };
    agrees("long", &g, Precision::Fp32, &options);
}

#[test]
fn squeeze_and_excite_over_a_depthwise_convolution() {
    let body = format!(
        "%w = const f32[16,1,3,3] seeded(1)
        %c = conv %x, %w {{{SAME}, groups=16}}
        %r = relu %c
        %g = reduce %r {{f=mean, axes=[2, 3]}}
        %w1 = const f32[4,16,1,1] seeded(2)
        %h = conv %g, %w1 {{{POINT}}}
        %k = relu %h
        %w2 = const f32[16,4,1,1] seeded(3)
        %e = conv %k, %w2 {{{POINT}}}
        %s = sigmoid %e
        %y = mul %r, %s
        return %y"
    );
    check("squeeze-excite", &parse("%x: f32[2,16,12,12]", &body));
}

#[test]
fn siren() {
    // Sines of sums of products: the network of the notes that fits images, with its factor of 30 in the first layer.
    let body = "%w1 = const f32[2,32] seeded(1)
        %b1 = const f32[32] seeded(2)
        %three = const f32[] [3.0]
        %m1 = matmul %x, %w1
        %a1 = add %m1, %b1
        %f1 = mul %a1, %three
        %s1 = sin %f1
        %w2 = const f32[32,32] seeded(3)
        %quarter = const f32[] [0.25]
        %v2 = mul %w2, %quarter
        %m2 = matmul %s1, %v2
        %s2 = sin %m2
        %w3 = const f32[32,3] seeded(4)
        %y = matmul %s2, %w3
        return %y";
    check("siren", &parse("%x: f32[100,2]", body));
}

/// Attention: batched products of two computed operands, one of them transposed, around a softmax, and a normalisation.
#[test]
fn attention() {
    let body = "%t = transpose %k {perm=[0, 1, 3, 2]}
        %s = matmul %q, %t
        %c = const f32[] [0.25]
        %m = mul %s, %c
        %p = softmax %m {axis=3}
        %o = matmul %p, %v
        %g = const f32[16] seeded(1)
        %n, %mean, %inv = layer_norm %o, %g, %g {axis=3}
        return %n";
    check("attention", &parse("%q: f32[1,2,24,16], %k: f32[1,2,24,16], %v: f32[1,2,24,16]", body));
}

/// Few rows and columns over a long sum: split among blocks; and a constant with few rows.
#[test]
fn deep_products() {
    let body = "%w = const f32[1200,20] seeded(1)
        %y = matmul %x, %w
        %w2 = const f32[1200,36] seeded(2)
        %z = gemm %a, %w2
        return %y, %z";
    let g = parse("%x: f32[8,1200], %a: f32[1,1200]", body);
    let (_, module) = ptx(&g, Precision::Fp32);
    assert!(module.text.contains("_parts"), "nothing is split:\n{}", module.text);
    check("deep", &g);
}

fn ptx(g: &Graph, precision: Precision) -> (lehr_codegen::program::Program, lehr_codegen::ptx::Module) {
    compile_ptx(g.clone(), &CompileOptions::default(), Gpu { sm: Sm::Sm80, precision })
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let g = zoo("lenet5", 1);
    let [a, b] = [0; 2].map(|_| {
        let (program, module) = ptx(&g, Precision::Tf32);
        (module.text, launch_plan(&program, &module.plan).to_string())
    });
    assert!(a == b, "two compilations differ");
}

/// Reviewed by eye: one kernel of each kind.
#[test]
fn kernels_of_each_kind() {
    let kinds = [
        ("elementwise", "%x: f32[64,1024]", "%y = tanh %x\nreturn %y"),
        ("broadcast", "%x: f32[8,3,64], %b: f32[3,1]", "%y = add %x, %b\nreturn %y"),
        ("transpose", "%x: f16[40,64]", "%y = transpose %x {perm=[1, 0]}\nreturn %y"),
        ("reduce_warp", "%x: f32[600,128]", "%y = reduce %x {f=sum, axes=[1]}\nreturn %y"),
        ("reduce_block", "%x: f32[4,4096]", "%y = reduce %x {f=max, axes=[1]}\nreturn %y"),
        ("softmax", "%x: f32[600,100]", "%y = softmax %x {axis=1}\nreturn %y"),
        (
            "pool",
            "%x: f32[1,2,16,16]",
            "%y = max_pool %x {kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1]}\nreturn %y",
        ),
        ("gather", "%x: f32[10,16], %i: i64[5]", "%y = gather %x, %i {axis=0}\nreturn %y"),
        ("gemv", "%x: f32[1,512]", "%w = const f32[512,64] seeded(1)\n%y = matmul %x, %w\nreturn %y"),
        ("concat", "%x: f32[2,3,4], %y: f32[2,5,4]", "%z = concat %x, %y {axis=1}\nreturn %z"),
        (
            "layer_norm",
            "%x: f32[600,128]",
            "%g = const f32[128] seeded(1)\n%y, %m, %i = layer_norm %x, %g, %g {axis=1}\nreturn %y",
        ),
        ("batch_norm", "%x: f32[2,8,64,64], %s: f32[8], %v: f32[8]", "%y = batch_norm %x, %s, %s, %s, %v\nreturn %y"),
        (
            "pool_with_padding",
            "%x: f32[1,2,16,16]",
            "%y = max_pool %x {kernel=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], dilations=[1, 1]}\nreturn %y",
        ),
        ("global_pool", "%x: f32[1,64,14,14]", "%y = reduce %x {f=mean, axes=[2, 3]}\nreturn %y"),
        ("lrn", "%x: f32[1,32,16,16]", "%y = lrn %x {size=5, alpha=0.0001, beta=0.75}\nreturn %y"),
        (
            "depthwise",
            "%x: f32[1,16,12,12]",
            "%w = const f32[16,1,3,3] seeded(1)
            %y = conv %x, %w {strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1], groups=16}
            return %y",
        ),
        (
            "transposed_convolution",
            "%x: f32[1,8,6,6]",
            "%w = const f32[8,2,2,2] seeded(1)
            %y = conv_transpose %x, %w {strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1], output_padding=[0, 0]}
            return %y",
        ),
        (
            "scatter",
            "%x: f32[10,64], %i: i64[5,1], %u: f32[5,64]",
            "%y = scatter_nd %x, %i, %u {reduction=add}\nreturn %y",
        ),
        ("loss", "%x: f32[64,10], %l: i64[64]", "%y = nll_loss %x, %l {reduction=mean}\nreturn %y"),
        ("reduce_in_two", "%x: f32[1000000]", "%y = reduce %x {f=sum, axes=[0]}\nreturn %y"),
        ("cumulative_sum", "%x: f32[16,64]", "%y = cum_sum %x {axis=0}\nreturn %y"),
        ("deep_product", "%x: f32[8,1200]", "%w = const f32[1200,16] seeded(1)\n%y = matmul %x, %w\nreturn %y"),
    ];
    for (name, params, body) in kinds {
        insta::assert_snapshot!(name, ptx(&parse(params, body), Precision::Fp32).1.text);
    }
    let product = parse("%x: f32[48,64]", "%w = const f32[64,40] seeded(1)\n%y = matmul %x, %w\nreturn %y");
    for p in Precision::ALL {
        insta::assert_snapshot!(format!("product_{}", p.name()), ptx(&product, p).1.text);
    }
    let conv = parse(
        "%x: f32[1,4,6,6], %b: f32[8]",
        &format!("%w = const f32[8,4,3,3] seeded(1)\n%y = conv %x, %w, %b {{{SAME}}}\n%z = relu %y\nreturn %z"),
    );
    for p in Precision::ALL {
        insta::assert_snapshot!(format!("convolution_{}", p.name()), ptx(&conv, p).1.text);
    }
}

/// Tiles pass through shared memory without bank conflicts, whatever factors look like.
#[test]
fn products_have_no_bank_conflicts() {
    let conv = format!("%w = const f32[64,32,3,3] seeded(1)\n%y = conv %x, %w {{{SAME}}}\nreturn %y");
    let point = format!("%w = const f32[64,64,1,1] seeded(1)\n%y = conv %x, %w {{{POINT}}}\nreturn %y");
    let cases = [
        ("columns", "%x: f32[128,64]", "%w = const f32[64,128] seeded(1)\n%y = matmul %x, %w\nreturn %y"),
        ("computed", "%x: f32[2,64,64], %y: f32[2,64,64]", "%z = matmul %x, %y\nreturn %z"),
        ("halves", "%x: f16[64,64], %y: f16[64,64]", "%z = matmul %x, %y\nreturn %z"),
        ("convolution", "%x: f32[1,32,8,16]", &conv),
        ("pointwise", "%x: f32[1,64,8,16]", &point),
    ];
    for (name, params, body) in cases {
        let g = parse(params, body);
        let inputs = inputs(&g);
        for p in Precision::ALL {
            let (program, module) = ptx(&g, p);
            let mut tiles = 0;
            let ran = simulated_with(&program, &module, &inputs, |kernel, stats| {
                if !kernel.schedule.starts_with("a block per tile") {
                    return;
                }
                tiles += 1;
                // tf32's rows of eight steps are written to shared memory with two to a bank.
                let least = if p == Precision::Tf32 { 0.8 } else { 1.0 };
                let reached = stats.shared.efficiency();
                assert!(reached >= least, "{name} in {}, {}: {reached}", p.name(), kernel.schedule);
            });
            ran.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(tiles > 0, "{name} has no tiles");
        }
    }
}

/// Kernels that memory bounds touch few sectors beyond those that hold their bytes.
#[test]
fn neighbouring_threads_touch_neighbouring_elements() {
    let gemv = "%w = const f32[512,64] seeded(1)\n%y = matmul %x, %w\nreturn %y";
    let depthwise = format!("%w = const f32[16,1,3,3] seeded(1)\n%y = conv %x, %w {{{SAME}, groups=16}}\nreturn %y");
    let cases = [
        ("elementwise", "%x: f32[64,1024]", "%y = tanh %x\nreturn %y", 1.0),
        ("halves", "%x: f16[64,1024]", "%y = relu %x\nreturn %y", 1.0),
        ("reduction", "%x: f32[64,512]", "%y = reduce %x {f=sum, axes=[1]}\nreturn %y", 0.95),
        ("softmax", "%x: f32[64,256]", "%y = softmax %x {axis=1}\nreturn %y", 1.0),
        ("product with a vector", "%x: f32[1,512]", gemv, 0.95),
        // A row of 32 and its neighbours, an element to the left and to the right.
        ("depthwise", "%x: f32[1,16,32,32]", &depthwise, 0.8),
    ];
    for (name, params, body, least) in cases {
        let g = parse(params, body);
        let (program, module) = ptx(&g, Precision::Fp32);
        let ran = simulated_with(&program, &module, &inputs(&g), |_, stats| {
            let reached = stats.global.efficiency();
            assert!(reached >= least, "{name}: {reached}\n{}", module.text);
        });
        ran.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
