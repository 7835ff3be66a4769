//! Pools that Winograd's output transform computes: against the evaluator, and against the same network in which somebody else reads
//! the convolution's result, so that the pool is one of its own: the bits must be the same. And where the convolution leaves them.

use crate::net::*;
use lehr::{CompileOptions, Numerics, Runner};
use lehr_codegen::layout::{Layouts, Role, decide};
use lehr_codegen::x86::{Isa, Winograd};
use lehr_ir::eval::evaluate;
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;
use lehr_ir::{DType, Tensor};

/// Errors of Winograd's algorithm may be so large, of the largest output.
const TOLERANCE: f64 = 5e-6;

/// A 1x1 convolution makes blocks; another one is computed by Winograd's algorithm, whatever the cost model says, and pooled.
struct Case {
    n: Net,
    kind: Winograd,
    /// The convolution's result with what is fused behind, and the pool's.
    conv: ValueId,
    y: ValueId,
}

/// What is between the convolution and the pool.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Relu,
    /// Added to a value of the same shape.
    Residual,
    /// A long program, a number per channel.
    Gelu,
    /// Negative zeros where it would be less than a number.
    Ceil,
}

#[derive(Clone, Copy, Debug)]
enum Pooling {
    Max { ceil: bool },
    Mean { ceil: bool, with_pads: bool },
}

const MAX: Pooling = Pooling::Max { ceil: false };
const MEAN: Pooling = Pooling::Mean { ceil: false, with_pads: false };

impl Pooling {
    fn add(self, n: &mut Net, x: ValueId) -> ValueId {
        match self {
            Pooling::Max { ceil } => largest(n, max_pool(&[2, 2], &[2, 2], &[0; 4], ceil), x),
            Pooling::Mean { ceil, with_pads } => {
                n.add(AvgPool { ceil_mode: ceil, ..avg_pool(&[2, 2], &[2, 2], &[0; 4], with_pads) }, &[x])
            }
        }
    }
}

fn largest(n: &mut Net, pool: MaxPool, x: ValueId) -> ValueId {
    n.g.add(pool, &[Some(x)], vec![]).unwrap_or_else(|d| panic!("{d}")).out(0)
}

fn square(kind: Winograd) -> Window {
    let r = kind.taps();
    window(&[r, r]).stride(&[kind.stride(); 2]).pad(&[r / 2; 4])
}

impl Case {
    fn new(kind: Winograd, x: [usize; 4], outputs: usize, between: Between, pooling: Pooling) -> Case {
        Case::of_window(kind, square(kind), x, outputs, between, pooling)
    }

    fn of_window(kind: Winograd, w: Window, x: [usize; 4], outputs: usize, between: Between, pooling: Pooling) -> Case {
        let mut n = Net::new();
        let input = n.input(&x);
        let blocks = n.conv(input, x[1], window(&[1, 1]));
        let residual = window(&[1, 1]).stride(&w.strides);
        let mut conv = n.conv(blocks, outputs, w);
        match between {
            Between::Nothing => {}
            Between::Relu => conv = n.unary(UnaryFn::Relu, conv),
            Between::Residual => {
                let other = n.conv(blocks, outputs, residual);
                let sum = n.binary(BinaryFn::Add, conv, other);
                conv = n.unary(UnaryFn::Relu, sum);
            }
            Between::Gelu => {
                let slope = n.weights(&[outputs, 1, 1]);
                let scaled = n.binary(BinaryFn::Mul, conv, slope);
                conv = n.unary(UnaryFn::Gelu, scaled);
            }
            Between::Ceil => conv = n.unary(UnaryFn::Ceil, conv),
        }
        let y = pooling.add(&mut n, conv);
        Case { n, kind, conv, y }
    }

    fn graph(&self, outputs: &[ValueId]) -> Graph {
        let mut g = self.n.g.clone();
        outputs.iter().enumerate().for_each(|(i, &v)| g.add_output(&format!("y{i}"), v));
        g
    }

    /// The kind of transform that is under test, wherever it can be used.
    fn options(&self, g: &Graph, cpu: &str) -> CompileOptions {
        let options = CompileOptions { cpu: cpu.into(), ..CompileOptions::default() };
        let decisions = lehr::lower(g.clone(), &options).unwrap_or_else(|e| panic!("{e}")).decisions;
        let wanted = decisions.iter().filter_map(|d| {
            let all = [&d.chosen].into_iter().chain(&d.others).map(|w| w.strategy);
            let own = all.into_iter().find(|s| s.algorithm() == Some(self.kind))?;
            Some((d.signature.clone(), own.to_string()))
        });
        tuned(options, wanted)
    }

    /// The same bits with the pool in the transform and by itself, for any number of threads; and nearly the evaluator's.
    fn check(&self, what: &str) {
        let (fused, apart) = (self.graph(&[self.y]), self.graph(&[self.y, self.conv]));
        let want = evaluate(&fused, &self.n.inputs, &mut |_, _| {}).unwrap_or_else(|e| panic!("{what}: {e}")).remove(0);
        let is_finite = want.to_f64().iter().all(|x| x.is_finite());
        for (cpu, _) in CPUS.iter().filter(|c| c.1.on_this_cpu()) {
            let what = format!("{what}, {cpu}");
            let run = |g: &Graph, pooled: usize, threads: u32| {
                let options = self.options(g, cpu);
                expect(&what, g, &options, pooled);
                lehr_tests::compare::dirty_memory();
                let mut runner = Runner::jit(g.clone(), &options, threads).unwrap_or_else(|e| panic!("{what}: {e}"));
                let first = runner.run(&self.n.inputs).unwrap().remove(0);
                let second = runner.run(&self.n.inputs).unwrap().remove(0);
                assert_eq!(first.bytes(), second.bytes(), "{what}: a second run");
                first
            };
            let alone = run(&apart, 0, 1);
            for threads in 1..=3 {
                assert_eq!(run(&fused, 1, threads).bytes(), alone.bytes(), "{what}, {threads} threads");
            }
            if is_finite {
                compare(&what, &alone, &want, TOLERANCE);
            }
        }
    }
}

const CPUS: [(&str, Isa); 2] = [("x86-64-v3", Isa::Avx2), ("x86-64-v4", Isa::Avx512)];

fn layouts(g: &Graph, options: &CompileOptions) -> (Graph, Layouts) {
    let (g, _) = lehr::optimize(g.clone(), options.level).unwrap();
    let layouts = decide(&g, &options.lowering());
    (g, layouts)
}

/// Checks that so many pools are computed by the convolutions before them.
fn expect(what: &str, g: &Graph, options: &CompileOptions, pooled: usize) {
    let (g, layouts) = layouts(g, options);
    let found = g.ids().filter(|&id| layouts.role(id) == Role::Pooled).count();
    assert_eq!(found, pooled, "{what}:\n{}", layouts.describe(&g));
}

#[test]
fn maps_of_every_remainder() {
    for size in 1..=9 {
        for ceil in [false, true] {
            let x = [1, 32, size, 11 - size];
            if !ceil && (size == 1 || size == 10) {
                continue;
            }
            for pooling in [Pooling::Max { ceil }, Pooling::Mean { ceil, with_pads: size % 2 == 0 }] {
                Case::new(Winograd::F4x3, x, 32, Between::Relu, pooling).check(&format!("{x:?}, {pooling:?}"));
            }
        }
    }
    Case::new(Winograd::F4x3, [1, 32, 1, 1], 32, Between::Relu, Pooling::Max { ceil: true }).check("a single pixel");
    Case::new(Winograd::F4x3, [1, 32, 60, 33], 48, Between::Relu, MAX).check("many bands");
}

#[test]
fn transforms_of_every_kind() {
    for kind in Winograd::ALL.into_iter().filter(|kind| kind.outputs().is_multiple_of(2)) {
        let size = 22 * kind.stride();
        for (x, pooling) in [([1, 32, size, size + 3], MAX), ([2, 32, size + 1, 15 * kind.stride()], MEAN)] {
            let what = format!("{}, {x:?}, {pooling:?}", kind.name());
            Case::new(kind, x, 32, Between::Relu, pooling).check(&what);
        }
    }
}

#[test]
fn what_is_fused_between() {
    for between in [Between::Nothing, Between::Residual, Between::Gelu, Between::Ceil] {
        for pooling in [Pooling::Max { ceil: true }, Pooling::Mean { ceil: true, with_pads: true }, MAX, MEAN] {
            for kind in [Winograd::F4x3, Winograd::F2x3By2] {
                let case = Case::new(kind, [2, 37, 19, 21], 41, between, pooling);
                case.check(&format!("{}, {between:?}, {pooling:?}", kind.name()));
            }
        }
    }
}

#[test]
fn padding_groups_and_many_channels() {
    for pads in [[0; 4], [1, 0, 0, 1], [2, 1, 0, 3]] {
        let w = window(&[3, 3]).pad(&pads);
        let case = Case::of_window(Winograd::F4x3, w, [1, 32, 15, 14], 32, Between::Relu, MAX);
        case.check(&format!("{pads:?}"));
    }
    let w = square(Winograd::F4x3).groups(2);
    Case::of_window(Winograd::F4x3, w, [2, 64, 13, 13], 96, Between::Residual, MAX).check("groups");
    Case::new(Winograd::F2x3, [1, 512, 12, 12], 128, Between::Relu, MAX).check("many channels, F(2x2,3x3)");
    Case::new(Winograd::F4x3, [3, 256, 14, 14], 256, Between::Relu, MAX).check("many channels, three images");
}

/// The largest of a window with NaN is NaN, and one of two zeros stays the one it is.
#[test]
fn numbers_that_are_none() {
    let awkward = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 3e38, -3e38, 1e-42];
    for (between, pooling) in [
        (Between::Nothing, MAX),
        (Between::Relu, MAX),
        (Between::Ceil, Pooling::Max { ceil: true }),
        (Between::Residual, MEAN),
        (Between::Ceil, MEAN),
    ] {
        let mut case = Case::new(Winograd::F4x3, [1, 16, 41, 30], 24, between, pooling);
        let x = &case.n.inputs[0];
        let mut values = x.to_f32();
        values.iter_mut().step_by(97).zip(awkward.iter().cycle()).for_each(|(v, a)| *v = *a);
        case.n.inputs[0] = Tensor::from_f64(DType::F32, x.shape().to_vec(), values.into_iter().map(f64::from));
        case.check(&format!("{between:?}, {pooling:?}"));
    }
}

/// The result lies in a concatenation, has a border for the next convolution, and is pooled again.
#[test]
fn where_results_go() {
    let mut case = Case::new(Winograd::F4x3, [2, 32, 26, 18], 32, Between::Relu, MAX);
    let n = &mut case.n;
    let again = MAX.add(n, case.y);
    let beside = n.conv(case.y, 16, window(&[1, 1]));
    let both = n.add(Concat { axis: 1 }, &[case.y, beside]);
    let next = n.conv(both, 24, window(&[3, 3]).pad(&[1; 4]).stride(&[2, 2]));
    let outputs = [again, next];
    for (cpu, _) in CPUS {
        let g = case.graph(&outputs);
        expect(cpu, &g, &case.options(&g, cpu), 1);
    }
    let Case { mut n, kind, conv, y } = case;
    n.tolerance = TOLERANCE;
    let by_winograd = Case { n: n.clone(), kind, conv, y };
    n.check_with(&outputs, &|g, options| by_winograd.options(g, &options.cpu));
}

/// What the decision says of the pools of a network.
fn said(case: &Case, outputs: &[ValueId], own: impl Fn(CompileOptions) -> CompileOptions) -> Vec<String> {
    let g = case.graph(outputs);
    let options = own(case.options(&g, "x86-64-v4"));
    let (g, layouts) = layouts(&g, &options);
    let is_pool = |op: &str| op.contains("pool");
    let of_pools = g.order().into_iter().filter(|&id| {
        let node = g.node(id);
        is_pool(node.regions.first().map_or_else(|| node.op.name(), |region| region.name.as_str()))
    });
    of_pools.filter_map(|id| layouts.describe_node(id)).collect()
}

#[test]
fn pools_that_convolutions_leave_say_why() {
    let same = |options| options;
    let case = |kind| Case::new(kind, [1, 32, 28, 28], 32, Between::Relu, MAX);
    let four = || case(Winograd::F4x3);
    let c = four();
    let text =
        |why: &str| vec![format!("window, blocks of 16 -> blocks of 16, not by the convolution before it: {why}")];
    let by_it = "window, blocks of 16 -> blocks of 16, computed by the convolution before it";
    assert_eq!(said(&c, &[c.y], same), [by_it]);
    assert_eq!(said(&c, &[c.y, c.conv], same), text("others read its result"));
    let strict = |options| CompileOptions { numerics: Numerics::Strict, ..options };
    assert_eq!(said(&c, &[c.y], strict), text("it is direct"));
    let c = case(Winograd::F3x4);
    assert_eq!(said(&c, &[c.y], same), text("windows overlap its tiles of 3x3"));
    let mut c = four();
    let behind = c.n.unary(UnaryFn::Tanh, c.y);
    assert_eq!(said(&c, &[behind], same), text("something is fused behind the pool"));
    let mut c = four();
    for pool in [
        max_pool(&[3, 3], &[2, 2], &[0; 4], false),
        max_pool(&[2, 2], &[1, 1], &[0; 4], false),
        max_pool(&[2, 2], &[2, 2], &[0, 0, 1, 1], false),
        MaxPool { dilations: vec![2, 2], ..max_pool(&[2, 2], &[2, 2], &[0; 4], false) },
    ] {
        let other = largest(&mut c.n, pool, c.conv);
        assert_eq!(said(&c, &[other], same), text("its tiles are for windows of 2x2 without padding, 2 apart"));
    }
    // Somebody asks where the largest elements are: the pool is plain loops.
    let mut c = four();
    let pool = c.n.g.add(max_pool(&[2, 2], &[2, 2], &[0; 4], false), &[Some(c.conv)], vec![]).unwrap();
    assert_eq!(said(&c, &[pool.out(0), pool.out(1)], same), Vec::<String>::new());
}

#[test]
fn the_convolution_says_what_it_computes() {
    for (pooling, name) in [(MAX, "max"), (MEAN, "average")] {
        let c = Case::new(Winograd::F4x3, [1, 32, 28, 28], 32, Between::Relu, pooling);
        let g = c.graph(&[c.y]);
        let (g, layouts) = layouts(&g, &c.options(&g, "x86-64-v4"));
        let text = layouts.describe(&g);
        let line =
            format!("convolution by Winograd F(4x4,3x3), blocks of 16 -> blocks of 16, with the {name} pool behind it");
        assert!(text.contains(&line), "{text}");
    }
}

/// Nothing is stored of the convolution's result, and no memory has room for it.
#[test]
fn unpooled_results_take_no_memory() {
    let c = Case::new(Winograd::F4x3, [1, 16, 64, 64], 256, Between::Relu, MAX);
    let unpooled = 256 * 64 * 64;
    let lower = |outputs: &[ValueId]| {
        let g = c.graph(outputs);
        let mut program = lehr::lower(g.clone(), &c.options(&g, "x86-64-v4")).unwrap_or_else(|e| panic!("{e}"));
        lehr_codegen::plan::plan(&mut program);
        let used = program.steps.iter().flat_map(|step| &step.args);
        let largest = used.map(|b| program.buffers[b.0 as usize].len).max();
        (largest.is_some_and(|len| len >= unpooled), program.arena_bytes > 4 * unpooled as u64)
    };
    assert_eq!(lower(&[c.y, c.conv]), (true, true));
    assert_eq!(lower(&[c.y]), (false, false));
}
