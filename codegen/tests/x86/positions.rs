//! Positions of extremes against a scan of the cell: ties, NaN, infinities and zeros of both signs among them, on memory that ends or
//! begins at a page nobody may touch.

use super::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// One of few values, so that many are equal, or one of many.
fn value(random: &mut Random, specials: bool) -> f32 {
    const SPECIAL: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX];
    match random.below(4) {
        0 if specials => SPECIAL[random.below(6) as usize],
        1 => random.below(3) as f32,
        _ => random.below(1 << 20) as f32 / 1024.0 - 512.0,
    }
}

fn expected(cell: &[f32], largest: bool, last: bool) -> u64 {
    let key = |x: f32| if largest || x.is_nan() { x } else { -x };
    let is_best = |x: f32| cell.iter().all(|&other| if x.is_nan() { true } else { key(other) <= key(x) });
    let mut best = (0..cell.len()).filter(|&i| is_best(cell[i]));
    let found = if last { best.next_back() } else { best.next() };
    found.expect("a cell has an extreme") as u64
}

#[test]
fn positions_are_those_of_a_scan() {
    let mut random = Random(4);
    for isa in isas() {
        for round in 0..400 {
            let (beside, largest, last) = (round % 2 == 0, round % 4 < 2, round % 8 < 4);
            let len = 1 + random.below(if round % 3 == 0 { 200 } else { 40 }) as usize;
            let cells = 1 + random.below(150) as usize;
            let specials = round % 5 < 2;
            let data: Vec<f32> = (0..cells * len).map(|_| value(&mut random, specials)).collect();
            let guard = if round % 16 < 8 { Guard::Behind } else { Guard::Before };
            let x = Guarded::new(&data, guard);
            // i64 as pairs of f32.
            let out = Guarded::new(&vec![f32::NAN; 2 * cells], guard);
            let form = if beside { Cells::Beside { stride: 4 * cells as i32 } } else { Cells::Behind };
            let spec = LeafSpec::Positions(Positions { len: len as u32, cells: form, largest, last });
            load(&spec.emit(isa).unwrap()).call(&[x.addr(), out.addr(), cells as u64]);
            for c in 0..cells {
                let cell: Vec<f32> = (0..len).map(|i| data[if beside { i * cells + c } else { c * len + i }]).collect();
                let [low, high] = [out.slice()[2 * c], out.slice()[2 * c + 1]].map(|word| u64::from(word.to_bits()));
                let (got, want) = (high << 32 | low, expected(&cell, largest, last));
                assert_eq!(got, want, "{isa:?} {spec:?}, cell {c} of {cells}: {cell:?}");
            }
        }
    }
}

#[test]
fn cells_that_positions_are_not_for_are_refused() {
    for isa in isas() {
        let refused = |len: u32, cells: Cells| {
            LeafSpec::Positions(Positions { len, cells, largest: true, last: false }).emit(isa).is_err()
        };
        assert!(refused(0, Cells::Beside { stride: 64 }));
        assert!(refused(0, Cells::Behind));
        assert!(refused(1 << 30, Cells::Beside { stride: 4 }));
        assert!(refused(1 << 20, Cells::Beside { stride: 1 << 20 }));
        assert!(!refused(1, Cells::Behind));
    }
}
