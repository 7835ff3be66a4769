//! Compact weights: what a product of them gives against f64, on memory with a guard page on either side, and what is not packed so.

use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// A tile of so many rows and blocks over a part of the inner axis.
fn leaf(rows: usize, blocks: usize, len: usize, form: &CompactForm, columns: usize, first: bool) -> LeafSpec {
    let (lanes, beyond) = (form.lanes, columns % form.lanes);
    let bytes = |n: usize| 4 * n as i32;
    let tile = BatchReduceGemm {
        pixels: rows as u32,
        blocks: blocks as u32,
        input: Input::Element,
        broadcast: Broadcast::PerPixel,
        pixel_stride: bytes(form.inner),
        reduce: vec![Reduce { trip: len as u32, stride: 4 }],
        init: if first { Init::Bias } else { Init::Output },
        epilogue: VProg::identity(),
        out_pixel_stride: bytes(columns),
        out_block_stride: bytes(lanes),
        last_lanes: (beyond != 0).then_some(beyond as u32),
        tiles: Tiles::Runtime,
        prefetch: Prefetch::Ahead(2048),
    };
    let right =
        RightStrides { step: 0, block: bytes(form.words(form.inner)), exact: false, compact: true, packs: false };
    LeafSpec::Matrix(MatrixTile { tile, right })
}

#[test]
fn products_of_compact_weights() {
    let mut random = Random(11);
    for isa in isas() {
        let lanes = isa.lanes();
        for round in 0..150 {
            let (rows, blocks) = match (isa, round % 6) {
                (Isa::Avx512, 0) => random.pick(&[(1, 8), (2, 8), (3, 8), (4, 6), (8, 3)]),
                _ => random.pick(&[(1, 1), (1, 7), (1, 3), (2, 4), (3, 3), (4, 2)]),
            };
            let inner = 1 + random.below(70) as usize;
            let phase = COMPACT_STEPS * (1 + random.below(8) as usize);
            let columns = (blocks - 1) * lanes + 1 + random.below(lanes as u64) as usize;
            let form = CompactForm { inner, phase, lanes };
            let layout = random.pick(&[MatrixLayout::Kn, MatrixLayout::Nk]);
            let plain = random.vec(inner * columns);
            let packed = form.pack(&plain, layout).expect("all weights are of one size");
            let words: Vec<f32> = packed.chunks_exact(4).map(|w| f32::from_le_bytes(w.try_into().unwrap())).collect();
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            let tiles = 1 + random.below(2) as usize;
            let weights = Guarded::new(&words, guard);
            let input = Guarded::new(&random.vec(tiles * rows * inner), guard);
            let bias = random.vec(blocks * lanes);
            let output = Guarded::new(&vec![f32::NAN; tiles * rows * columns], guard);
            for start in (0..inner).step_by(phase) {
                let len = phase.min(inner - start);
                let code = load(&leaf(rows, blocks, len, &form, columns, start == 0).emit(isa).unwrap());
                let at = |base: u64, words: usize| base + 4 * words as u64;
                code.call(&[
                    at(input.addr(), start),
                    at(weights.addr(), form.words(start)),
                    output.addr(),
                    bias.as_ptr() as u64,
                    tiles as u64,
                ]);
            }
            for (r, n) in (0..tiles * rows).flat_map(|r| (0..columns).map(move |n| (r, n))) {
                let weight = |k: usize| match layout {
                    MatrixLayout::Kn => plain[k * columns + n],
                    MatrixLayout::Nk => plain[n * inner + k],
                };
                let terms = (0..inner).map(|k| f64::from(input.slice()[r * inner + k]) * f64::from(weight(k)));
                let (sum, size) = terms.fold((f64::from(bias[n]), 1.0), |(s, a), t| (s + t, a + t.abs()));
                let got = f64::from(output.slice()[r * columns + n]);
                assert!((got - sum).abs() <= 4e-7 * size, "{isa:?} {form:?} row {r}, column {n}: {got} for {sum}");
            }
        }
    }
}

/// The weights as a leaf reads them: a product with a row of the unit matrix.
fn unpacked(isa: Isa, plain: &[f32]) -> Option<Vec<f32>> {
    let form =
        CompactForm { inner: plain.len(), phase: plain.len().next_multiple_of(COMPACT_STEPS), lanes: isa.lanes() };
    let packed = form.pack(plain, MatrixLayout::Kn)?;
    let code = load(&leaf(1, 1, plain.len(), &form, 1, true).emit(isa).unwrap());
    let row = |k: usize| {
        let mut x = vec![0f32; plain.len()];
        x[k] = 1.0;
        let (mut y, bias) = (0f32, vec![0f32; isa.lanes()]);
        let out = std::ptr::from_mut(&mut y);
        code.call(&[x.as_ptr() as u64, packed.as_ptr() as u64, out as u64, bias.as_ptr() as u64, 1]);
        // SAFETY: `y` is alive; the leaf has written it through its address.
        unsafe { out.read_volatile() }
    };
    Some((0..plain.len()).map(row).collect())
}

#[test]
fn weights_keep_25_bits() {
    for isa in isas() {
        let mut random = Random(12);
        for len in [1, 4, 5, 6, 37] {
            let plain: Vec<f32> = random.vec(len).iter().map(|w| w * 1e-3).collect();
            let kept = unpacked(isa, &plain).expect("all weights are of one size");
            let largest = plain.iter().fold(0f32, |m, w| m.max(w.abs()));
            for (got, want) in kept.iter().zip(&plain) {
                assert!((got - want).abs() <= largest / (1 << 24) as f32, "{isa:?}: {got} for {want} of {largest}");
            }
        }
        // Zeros, ends of the range, and powers of two.
        let plain = [0.0, -1.0, 1.0, 0.5, -0.25, 0.0, 1.0, -1.0, 0.0, -0.0];
        let kept = unpacked(isa, &plain).expect("all weights are of one size");
        assert!(kept.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-7), "{kept:?}");
        assert_eq!(unpacked(isa, &[0.0; 7]), Some(vec![0.0; 7]));
    }
}

#[test]
fn weights_that_would_change_are_not_packed() {
    let form = CompactForm { inner: 1000, phase: 500, lanes: 16 };
    let pack = |w: &[f32]| form.pack(w, MatrixLayout::Nk);
    let mut random = Random(13);
    let plain = random.vec(1000);
    assert!(pack(&plain).is_some());
    for odd in [f32::INFINITY, f32::NAN] {
        let mut w = plain.clone();
        w[3] = odd;
        assert!(pack(&w).is_none(), "{odd}");
    }
    // One that is larger than the others, as trained weights have them, and one that is far larger.
    let mut outlier = plain.clone();
    outlier[500] = 8.0;
    assert!(pack(&outlier).is_some());
    outlier[500] = 1e6;
    assert!(pack(&outlier).is_none());
    // Columns are judged each by itself.
    let form = CompactForm { inner: 500, phase: 500, lanes: 16 };
    let mut spread: Vec<f32> = plain[..500].iter().map(|w| w * 1e-3).collect();
    spread.extend(&plain[..500]);
    assert!(form.pack(&spread, MatrixLayout::Nk).is_some());
    spread[7] = 1.0;
    assert!(form.pack(&spread, MatrixLayout::Nk).is_none());
    assert!(form.pack(&vec![1e-30; 500], MatrixLayout::Nk).is_none());
}
