//! The gathering leaf against loops in f64 that follow the definition, on memory with a guard page on either side. Inputs of other
//! segments are infinite at times: they must not reach a lane that is not theirs.

use crate::harness::{Guard, Guarded, ISAS, Random, isas, load};
use lehr_codegen::x86::*;

/// A tile of random shape, whose blocks' lanes are split among its segments in order.
fn random_spec(isa: Isa, random: &mut Random) -> GatherGemm {
    let lanes = isa.lanes() as u64;
    let (most, blocks) = random.pick(&match isa {
        Isa::Avx512 => [(28u64, 1u32), (14, 2), (9, 3), (6, 4)],
        Isa::Avx2 => [(12, 1), (6, 2), (4, 3), (2, 4)],
    });
    let total = u64::from(blocks) * lanes;
    let mut cuts: Vec<u64> = (0..random.below(4)).map(|_| random.below(total)).collect();
    cuts.extend([0, total]);
    cuts.sort_unstable();
    cuts.dedup();
    let segment = |ends: &[u64], inputs: u32| {
        let (first, last) = (ends[0] / lanes, (ends[1] - 1) / lanes);
        let mask = |block: u64| {
            let own = (0..lanes).filter(|l| (ends[0]..ends[1]).contains(&(block * lanes + l)));
            let bits = own.fold(0u16, |m, l| m | 1 << l);
            if u64::from(bits.count_ones()) == lanes { u16::MAX } else { bits }
        };
        Segment {
            inputs,
            first: first as u32,
            blocks: (last - first + 1) as u32,
            lanes: (first..=last).map(mask).collect(),
        }
    };
    let segments = cuts.windows(2).map(|ends| segment(ends, random.pick(&[1, 2, 5, 17, 34]))).collect();
    let vector = isa.bytes() as i32;
    let tile = BatchReduceGemm {
        pixels: 1 + random.below(most) as u32,
        blocks,
        input: Input::Element,
        broadcast: random.pick(&[Broadcast::PerFma, Broadcast::PerPixel]),
        pixel_stride: random.pick(&[4, vector, 2 * vector]),
        reduce: random
            .pick(&[[(1, 0), (1, 0)], [(3, 5 * vector), (2, vector)], [(1, 0), (4, 12)]])
            .map(|(trip, stride)| Reduce { trip, stride })
            .to_vec(),
        init: random.pick(&[Init::Zero, Init::Bias]),
        epilogue: VProg::build(|p, x| {
            let r = p.operand(Access::Same);
            p.add(x, r)
        }),
        out_pixel_stride: vector,
        out_block_stride: 40 * vector,
        last_lanes: None,
        tiles: Tiles::Fixed(1 + random.below(3) as u32),
        prefetch: Prefetch::None,
    };
    GatherGemm { tile, segments }
}

fn check(isa: Isa, s: &GatherGemm, random: &mut Random, guard: Guard) {
    let (lanes, tile) = (isa.lanes(), &s.tile);
    let Tiles::Fixed(tiles) = tile.tiles else { unreachable!("specs have a fixed number of tiles") };
    let (pixels, blocks) = ((tile.pixels * tiles) as usize, tile.blocks as usize);
    let mut taps = vec![0i64];
    for r in &tile.reduce {
        taps = taps.iter().flat_map(|at| (0..r.trip).map(move |i| at + i64::from(i) * i64::from(r.stride))).collect();
    }
    // Every channel of every segment lies somewhere else.
    let inputs: usize = s.segments.iter().map(|s| s.inputs as usize).sum();
    let reach = taps.iter().max().unwrap() + (pixels as i64 - 1) * i64::from(tile.pixel_stride) + 4;
    let mut places: Vec<i64> = (0..inputs as i64).map(|i| i * reach).collect();
    (1..places.len()).rev().for_each(|i| places.swap(i, random.below(i as u64 + 1) as usize));
    let mut values = random.vec(inputs * reach as usize / 4);
    // One segment's inputs are infinite.
    let infinite = (random.below(3) == 0).then(|| random.below(s.segments.len() as u64) as usize);
    let mut first = 0;
    for (at, segment) in s.segments.iter().enumerate() {
        for place in &places[first..first + segment.inputs as usize] {
            if infinite == Some(at) {
                values[*place as usize / 4..][..reach as usize / 4].fill(f32::INFINITY);
            }
        }
        first += segment.inputs as usize;
    }
    // Weights of a segment are zero where a lane is not its own.
    let mut weights = vec![];
    for segment in &s.segments {
        for _ in 0..taps.len() * segment.inputs as usize {
            for mask in &segment.lanes {
                weights.extend((0..lanes).map(|l| if mask >> l & 1 == 1 { random.unit() } else { 0.0 }));
            }
        }
    }
    let table: Vec<f32> = places.iter().map(|p| f32::from_bits(*p as i32 as u32)).collect();
    let extent = (pixels - 1) * lanes + (blocks - 1) * 40 * lanes + lanes;
    let (input, weights, table) =
        (Guarded::new(&values, guard), Guarded::new(&weights, guard), Guarded::new(&table, guard));
    let bias = Guarded::new(&random.vec(blocks * lanes), guard);
    let (before, residual) = (random.vec(extent), Guarded::new(&random.vec(extent), guard));
    let out = Guarded::new(&before, guard);
    let args = [input.addr(), weights.addr(), out.addr(), bias.addr(), 0, residual.addr(), table.addr()];
    let leaf = LeafSpec::Gather(s.clone()).emit(isa).unwrap_or_else(|e| panic!("{s:?}: {e}"));
    load(&leaf).call(&args);

    let mut expected: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
    for (p, n, lane) in (0..pixels).flat_map(|p| (0..blocks * lanes).map(move |c| (p, c / lanes, c % lanes))) {
        let mut acc = if tile.init == Init::Bias { f64::from(bias.slice()[n * lanes + lane]) } else { 0.0 };
        let (mut w, mut entry) = (0, 0);
        for segment in &s.segments {
            let own = n.checked_sub(segment.first as usize).filter(|b| *b < segment.blocks as usize);
            for (tap, i) in taps.iter().flat_map(|t| (0..segment.inputs as usize).map(move |i| (t, i))) {
                if let Some(b) = own.filter(|b| segment.lanes[*b] >> lane & 1 == 1) {
                    let at = places[entry + i] + tap + p as i64 * i64::from(tile.pixel_stride);
                    acc += f64::from(values[at as usize / 4]) * f64::from(weights.slice()[w + b * lanes + lane]);
                }
                w += segment.blocks as usize * lanes;
            }
            entry += segment.inputs as usize;
        }
        let at = p * lanes + n * 40 * lanes + lane;
        expected[at] = acc + f64::from(residual.slice()[at]);
    }
    for (i, (got, want)) in out.slice().iter().zip(&expected).enumerate() {
        let got = f64::from(*got);
        let same = got == *want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= 2e-5;
        assert!(same, "{isa:?} {s:?}\nelement {i}: {got} for {want}");
    }
}

#[test]
fn random_tiles_gather_their_inputs() {
    let mut random = Random(7);
    for isa in isas() {
        let mut masked = 0;
        for _ in 0..300 {
            let s = random_spec(isa, &mut random);
            let masks = GatherGemm::masks(&s.segments);
            if masks > MAX_MASKS {
                continue;
            }
            masked += usize::from(masks > 0);
            let guard = random.pick(&[Guard::Behind, Guard::Before]);
            check(isa, &s, &mut random, guard);
        }
        assert!(masked > 100, "{masked} tiles with masks");
    }
}

#[test]
fn what_cannot_be_gathered_is_refused() {
    for isa in ISAS {
        let mut random = Random(3);
        let sound = random_spec(isa, &mut random);
        let refuse = |s: GatherGemm| LeafSpec::Gather(s).emit(isa).map(|leaf| leaf.name).unwrap_err().to_string();
        let mut beyond = sound.clone();
        beyond.segments[0].blocks += sound.tile.blocks;
        assert!(refuse(beyond).contains("beyond the tile"));
        let mut lanes = sound.clone();
        lanes.segments = (0..6).map(|l| Segment { inputs: 1, first: 0, blocks: 1, lanes: vec![1 << l] }).collect();
        assert!(refuse(lanes).contains("so many groups"));
        let mut vectors = sound;
        vectors.tile.input = Input::Lanes;
        assert!(refuse(vectors).contains("single elements"));
    }
}
