//! The batch-reduce leaf against loops in f64 that follow the definition, on memory with a guard page on either side.

use crate::harness::{Guard, Guarded, ISAS, Random, isas, load};
use lehr_codegen::x86::*;

/// What the epilogue must do, said apart from the program: f(acc, residual, slope of the channel, scalar).
type Reference = fn(f64, [f64; 3]) -> f64;

struct Epilogue {
    program: VProg,
    reference: Reference,
}

fn epilogues(strided: Access) -> Vec<Epilogue> {
    let of = |program, reference| Epilogue { program, reference };
    vec![
        of(VProg::identity(), |x, _| x),
        of(VProg::build(|p, x| p.relu(x)), |x, _| x.max(0.0)),
        of(
            VProg::build(|p, x| {
                let r = p.operand(Access::Same);
                let y = p.add(x, r);
                p.relu(y)
            }),
            |x, o| (x + o[0]).max(0.0),
        ),
        of(
            VProg::build(|p, x| {
                let (r, c, s) = (p.operand(strided), p.operand(Access::Channel), p.operand(Access::Splat));
                let y = p.prelu(x, c);
                p.fma(y, s, r)
            }),
            |x, o| (if x < 0.0 { x * o[1] } else { x }) * o[2] + o[0],
        ),
        // Long enough to run from the stack, and with operands.
        of(
            VProg::build(|p, x| {
                let (r, c) = (p.operand(Access::Same), p.operand(Access::Channel));
                let g = p.gelu(x);
                let t = p.tanh(r);
                let y = p.fma(g, c, t);
                p.softplus(y)
            }),
            |x, o| {
                let g = 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()));
                (g * o[1] + o[0].tanh()).exp().ln_1p()
            },
        ),
    ]
}

fn index(offset: i64) -> usize {
    assert!(offset >= 0 && offset % 4 == 0);
    offset as usize / 4
}

/// Runs a spec on random data and compares; `tiles` is what the leaf is told or was built with.
fn check(isa: Isa, s: &BatchReduceGemm, tiles: u32, reference: Reference, random: &mut Random, guard: Guard) {
    check_tile(isa, s, None, tiles, reference, random, guard);
}

/// Likewise with weights that lie by strides of their own.
fn check_tile(
    isa: Isa,
    s: &BatchReduceGemm,
    right: Option<RightStrides>,
    tiles: u32,
    reference: Reference,
    random: &mut Random,
    guard: Guard,
) {
    let lanes = isa.lanes();
    let (pixels, blocks) = ((s.pixels * tiles) as usize, s.blocks as usize);
    // Offsets in the input of every step, in the order in which the weights are packed.
    let mut steps = vec![0i64];
    for r in &s.reduce {
        steps = steps.iter().flat_map(|at| (0..r.trip).map(move |i| at + i64::from(i) * i64::from(r.stride))).collect();
    }
    let per_pixel = if s.input == Input::Lanes { lanes } else { 1 };
    let valid = |n: usize| if n + 1 == blocks { s.last_lanes.map_or(lanes, |l| l as usize) } else { lanes };
    let extent = |pixel: i32, block: i32| -> usize {
        let ends =
            (0..blocks).map(|n| index((pixels as i64 - 1) * i64::from(pixel) + n as i64 * i64::from(block)) + valid(n));
        ends.max().unwrap()
    };
    let last =
        steps.iter().max().map_or(0, |m| index(*m + (pixels as i64 - 1) * i64::from(s.pixel_stride)) + per_pixel);
    let input = Guarded::new(&random.vec(last), guard);
    let weight = |k: usize, n: usize| match right {
        Some(r) => (k as i64 * i64::from(r.step) + n as i64 * i64::from(r.block)) as usize / 4,
        None => (k * blocks + n) * lanes,
    };
    let read = |n: usize| if right.is_some_and(|r| r.exact) { valid(n) } else { lanes };
    let all_weights = (0..blocks).map(|n| weight(steps.len().saturating_sub(1), n) + read(n)).max().unwrap();
    let weights = Guarded::new(&random.vec(if steps.is_empty() { 0 } else { all_weights }), guard);
    let bias = Guarded::new(&random.vec((blocks - 1) * lanes + valid(blocks - 1)), guard);
    let before = random.vec(extent(s.out_pixel_stride, s.out_block_stride));
    let out = Guarded::new(&before, guard);
    let strides: Vec<(i32, i32)> = (s.epilogue.operands().iter())
        .map(|a| match a {
            Access::Same => (s.out_pixel_stride, s.out_block_stride),
            Access::Strided { pixel, block } => (*pixel, *block),
            Access::Channel => (0, 4 * lanes as i32),
            Access::Splat => (0, 0),
        })
        .collect();
    let operands: Vec<Guarded> = (s.epilogue.operands().iter().zip(&strides))
        .map(|(a, (pixel, block))| {
            let len = if *a == Access::Splat { 1 } else { extent(*pixel, *block) };
            Guarded::new(&random.vec(len), guard)
        })
        .collect();

    let mut args = vec![input.addr(), weights.addr(), out.addr(), bias.addr(), u64::from(tiles)];
    args.extend(operands.iter().map(Guarded::addr));
    // Where vectors are packed, or the next weights are: nowhere, which a prefetch does not mind.
    let packs = right.is_some_and(|r| r.packs);
    let panel = packs.then(|| Guarded::new(&random.vec(steps.len() * blocks * lanes), guard));
    args.push(panel.as_ref().map_or(1 << 40, Guarded::addr));
    let spec = match right {
        Some(right) => LeafSpec::Matrix(MatrixTile { tile: s.clone(), right }),
        None => LeafSpec::Gemm(s.clone()),
    };
    let leaf = spec.emit(isa).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    load(&leaf).call(&args);
    if let Some(panel) = panel {
        for (i, got) in panel.slice().iter().enumerate() {
            let (k, n, lane) = (i / (blocks * lanes), i / lanes % blocks, i % lanes);
            let want = if lane < valid(n) { weights.slice()[weight(k, n) + lane] } else { 0.0 };
            assert_eq!(*got, want, "{isa:?} {s:?}: packed step {k}, block {n}, lane {lane}");
        }
    }

    let mut expected: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
    for (p, n) in (0..pixels).flat_map(|p| (0..blocks).map(move |n| (p, n))) {
        for lane in 0..valid(n) {
            let at = index(p as i64 * i64::from(s.out_pixel_stride) + n as i64 * i64::from(s.out_block_stride)) + lane;
            let mut acc = match s.init {
                Init::Zero => 0.0,
                Init::Bias => f64::from(bias.slice()[n * lanes + lane]),
                Init::Output => f64::from(before[at]),
            };
            for (k, step) in steps.iter().enumerate() {
                let from = index(step + p as i64 * i64::from(s.pixel_stride)) + if per_pixel == 1 { 0 } else { lane };
                acc += f64::from(input.slice()[from]) * f64::from(weights.slice()[weight(k, n) + lane]);
            }
            let mut o = [0.0; 3];
            for (k, (pixel, block)) in strides.iter().enumerate() {
                let from = index(p as i64 * i64::from(*pixel) + n as i64 * i64::from(*block));
                let splat = s.epilogue.operands()[k] == Access::Splat;
                o[k] = f64::from(operands[k].slice()[from + if splat { 0 } else { lane }]);
            }
            expected[at] = reference(acc, o);
        }
    }
    // Partial sums grow like the root of their length, and so does the sum of their roundings: for the largest of a hundred thousand.
    let terms = steps.len() as f64;
    let most = 2e-6 * terms.sqrt().max(1.0) + 5e-8 * terms;
    for (i, (got, want)) in out.slice().iter().zip(&expected).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= most, "{isa:?} {s:?}\n{tiles} tiles, element {i}: {got} for {want}");
    }
}

fn spec(isa: Isa, pixels: u32, blocks: u32, reduce: Vec<Reduce>) -> BatchReduceGemm {
    let vector = isa.bytes() as i32;
    BatchReduceGemm {
        pixels,
        blocks,
        input: Input::Element,
        broadcast: Broadcast::PerFma,
        pixel_stride: vector,
        reduce,
        init: Init::Zero,
        epilogue: VProg::identity(),
        out_pixel_stride: vector,
        out_block_stride: 64 * vector,
        last_lanes: None,
        tiles: Tiles::Fixed(1),
        prefetch: Prefetch::None,
    }
}

fn reduce(loops: &[(u32, i32)]) -> Vec<Reduce> {
    loops.iter().map(|(trip, stride)| Reduce { trip: *trip, stride: *stride }).collect()
}

#[test]
fn every_tile_that_fits_computes_a_convolution() {
    let mut random = Random(1);
    for isa in isas() {
        let (lanes, vector) = (isa.lanes() as u32, isa.bytes() as i32);
        for blocks in 1..=4 {
            for pixels in 1..=28 {
                let loops = reduce(&[(2, 40 * vector), (3, 12 * vector), (3, vector), (lanes, 4)]);
                let s = spec(isa, pixels, blocks, loops);
                if s.registers(isa) <= isa.registers() {
                    check(isa, &s, 1, |x, _| x, &mut random, Guard::Behind);
                }
            }
        }
    }
}

#[test]
fn random_specs_agree_with_the_definition() {
    let mut random = Random(2);
    for isa in isas() {
        let (lanes, vector) = (isa.lanes() as u32, isa.bytes() as i32);
        for round in 0..400 {
            let blocks = random.pick(&[1, 1, 2, 2, 3, 4]);
            let most = (isa.registers() - blocks - 1) / blocks;
            let pixels = 1 + random.below(u64::from(most)) as u32;
            let loops = (0..random.below(5))
                .map(|_| (random.pick(&[1, 1, 2, 3, 5, 7, 16, 17]), random.pick(&[4, 8, 64, 100, 1028])));
            let mut loops: Vec<(u32, i32)> = loops.collect();
            while loops.iter().map(|l| l.0).product::<u32>() > 3000 {
                loops.pop();
            }
            let mut s = spec(isa, pixels, blocks, reduce(&loops));
            s.pixel_stride = random.pick(&[4, 8, vector, 2 * vector, 516]);
            s.out_pixel_stride = random.pick(&[vector, 2 * vector, vector * blocks as i32 + 4]).max(vector);
            let tiles = random.pick(&[1, 1, 2, 5]);
            s.tiles = if random.below(2) == 0 { Tiles::Runtime } else { Tiles::Fixed(tiles) };
            // Either blocks lie behind the whole row, or side by side within a pixel as in a GEMM.
            if s.out_pixel_stride > vector * blocks as i32 {
                s.out_block_stride = vector;
            } else {
                s.out_block_stride = s.out_pixel_stride * (pixels * tiles) as i32 + 4 * random.below(3) as i32;
            }
            s.init = random.pick(&[Init::Zero, Init::Bias, Init::Output]);
            if blocks == 1 && random.below(3) == 0 {
                s.input = Input::Lanes;
            } else if random.below(3) == 0 {
                s.last_lanes = Some(1 + random.below(u64::from(lanes) - 1) as u32);
            }
            if s.pixels * s.blocks + s.blocks < isa.registers() {
                s.broadcast = random.pick(&[Broadcast::PerFma, Broadcast::PerPixel]);
            }
            s.prefetch =
                random.pick(&[Prefetch::None, Prefetch::Ahead(2048), Prefetch::Next(64), Prefetch::Next(20_000)]);
            let strided = Access::Strided { pixel: 4 * random.below(40) as i32, block: 4 * random.below(400) as i32 };
            let Epilogue { program, reference } = epilogues(strided).swap_remove(random.below(5) as usize);
            s.epilogue = program;
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            check(isa, &s, tiles, reference, &mut random, guard);
        }
    }
}

#[test]
fn matrices_in_place_and_blocks_apart() {
    let mut random = Random(5);
    for isa in isas() {
        let (lanes, vector) = (isa.lanes() as u32, isa.bytes() as i32);
        for round in 0..200 {
            let (inner, blocks) = (1 + random.below(70) as u32, 1 + random.below(4) as u32);
            // With AVX2 a mask takes a register.
            let most = (isa.registers() - blocks - 2) / blocks;
            let pixels = 1 + random.below(u64::from(most)) as u32;
            let mut s = spec(isa, pixels, blocks, reduce(&[(inner, random.pick(&[4, 260]))]));
            s.pixel_stride = random.pick(&[4, 4 * inner as i32]);
            s.broadcast = random.pick(&[Broadcast::PerFma, Broadcast::PerPixel]);
            s.last_lanes = (random.below(2) == 0).then(|| 1 + random.below(u64::from(lanes) - 1) as u32);
            let apart = random.below(2) == 0;
            let columns = (blocks * lanes) as i32 + random.below(20) as i32;
            let packs = !apart && random.below(2) == 0;
            let right = match apart {
                true => RightStrides {
                    step: vector,
                    block: inner as i32 * vector,
                    exact: false,
                    compact: false,
                    packs: false,
                },
                false => RightStrides { step: 4 * columns, block: vector, exact: true, compact: false, packs },
            };
            s.out_pixel_stride = 4 * columns;
            s.out_block_stride = vector;
            s.prefetch = if apart { Prefetch::Ahead(1024) } else { Prefetch::None };
            s.init = random.pick(&[Init::Zero, Init::Bias, Init::Output]);
            let tiles = if packs { 1 } else { 1 + random.below(3) as u32 };
            s.tiles = if packs { Tiles::Fixed(1) } else { Tiles::Runtime };
            let Epilogue { program, reference } = epilogues(Access::Same).swap_remove(random.below(5) as usize);
            s.epilogue = program;
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            check_tile(isa, &s, Some(right), tiles, reference, &mut random, guard);
        }
    }
}

#[test]
fn panels_are_copied_and_transposed() {
    let mut random = Random(6);
    for isa in isas() {
        let lanes = isa.lanes();
        for round in 0..200 {
            let (rows, columns) = (1 + random.below(70) as usize, 1 + random.below(70) as usize);
            let transposed = random.below(2) == 0;
            let (lines, length) = if transposed { (columns, rows) } else { (rows, columns) };
            let stride = length + random.below(5) as usize;
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            let source = Guarded::new(&random.vec((lines - 1) * stride + length), guard);
            let width = columns.next_multiple_of(lanes);
            let target = Guarded::new(&random.vec(rows * width), guard);
            let panel = Panel { rows: rows as u32, columns: columns as u32, from: 4 * stride as i32, transposed };
            let leaf = LeafSpec::Panel(panel.clone()).emit(isa).unwrap();
            load(&leaf).call(&[source.addr(), target.addr()]);
            for (k, c) in (0..rows).flat_map(|k| (0..width).map(move |c| (k, c))) {
                let at = if transposed { c * stride + k } else { k * stride + c };
                let want = if c < columns { source.slice()[at] } else { 0.0 };
                assert_eq!(target.slice()[k * width + c], want, "{isa:?} {panel:?}: row {k}, column {c}");
            }
        }
    }
}

#[test]
fn residuals_may_be_updated_in_place() {
    for isa in isas() {
        for long in [false, true] {
            let mut s = spec(isa, 4, 2, reduce(&[(3, 4)]));
            s.out_block_stride = 4 * isa.bytes() as i32;
            s.epilogue = VProg::build(|p, x| {
                let r = p.operand(Access::Same);
                let r = if long { p.softplus(r) } else { r };
                p.add(x, r)
            });
            let mut random = Random(3);
            let (input, weights) = (random.vec(3 * isa.lanes() + 3), random.vec(3 * 2 * isa.lanes()));
            let before = random.vec(8 * isa.lanes());
            let mut apart = before.clone();
            let mut within = before.clone();
            let code = load(&LeafSpec::Gemm(s).emit(isa).unwrap());
            let (i, w) = (input.as_ptr() as u64, weights.as_ptr() as u64);
            code.call(&[i, w, apart.as_mut_ptr() as u64, 0, 1, before.as_ptr() as u64]);
            let own = within.as_mut_ptr() as u64;
            code.call(&[i, w, own, 0, 1, own]);
            assert_eq!(apart, within);
            assert_ne!(apart, before);
        }
    }
}

#[test]
fn no_tiles_and_empty_reductions() {
    for isa in isas() {
        let mut s = spec(isa, 2, 1, reduce(&[(4, 4), (0, 4)]));
        s.init = Init::Bias;
        s.out_block_stride = 0;
        check(isa, &s, 1, |x, _| x, &mut Random(4), Guard::Behind);
        s.tiles = Tiles::Runtime;
        let code = load(&LeafSpec::Gemm(s).emit(isa).unwrap());
        // No pointer is followed.
        code.call(&[0, 0, 0, 0, 0]);
    }
}

#[test]
fn what_cannot_be_emitted_is_refused() {
    for isa in ISAS {
        let refuse = |s: BatchReduceGemm| LeafSpec::Gemm(s).emit(isa).map(|leaf| leaf.name).unwrap_err().to_string();
        let at = |n: u32| n * isa.registers();
        assert!(refuse(spec(isa, at(1), 1, vec![])).contains("does not fit"));
        let loops: Vec<(u32, i32)> = (0..6).map(|i| (3, 4 << i)).collect();
        assert!(refuse(spec(isa, 1, 1, reduce(&loops))).contains("loops"));
        let mut s = spec(isa, 1, 1, vec![]);
        s.epilogue = VProg::build(|p, x| {
            (0..6).fold(x, |x, _| {
                let o = p.operand(Access::Same);
                p.add(x, o)
            })
        });
        assert!(refuse(s).contains("operands"));
        let mut s = spec(isa, 4, 1, reduce(&[(2, i32::MAX)]));
        s.pixel_stride = i32::MAX;
        assert!(refuse(s).contains("32 bits"));
    }
}

#[test]
fn names_and_bytes_depend_on_the_spec_alone() {
    for isa in ISAS {
        let a = LeafSpec::Gemm(spec(isa, 3, 2, reduce(&[(8, 4)])));
        let b = LeafSpec::Gemm(spec(isa, 3, 2, reduce(&[(9, 4)])));
        assert_eq!(a.emit(isa).unwrap().code, a.clone().emit(isa).unwrap().code);
        assert_ne!(a.name(isa), b.name(isa));
        assert!(a.name(isa).starts_with(&format!("brgemm_{}_p3n2_", isa.name())));
        let text = disassemble(&a.emit(isa).unwrap().code);
        assert!(text.contains("vfmadd231ps") && text.contains("ret"), "{text}");
    }
}
