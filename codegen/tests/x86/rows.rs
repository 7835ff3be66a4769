//! The rows leaf against f64, on memory with a guard page on either side.

use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// Sum of squares of what lies above the mean, times the largest element: every kind of pass. Kept terms are what the result reads.
pub(super) fn passes(len: u32) -> Vec<Pass> {
    let over_len = VProg::build(|p, total| {
        let n = p.constant(len as f32);
        p.div(total, n)
    });
    let above = VProg::build(|p, x| {
        let (_, mean) = (p.operand(Access::Channel), p.operand(Access::Channel));
        let d = p.sub(x, mean);
        let d = p.relu(d);
        p.mul(d, d)
    });
    let plain = VProg::identity;
    vec![
        Pass { fold: Fold::Max, term: plain(), keep: false, value: VProg::build(|p, x| p.abs(x)) },
        Pass { fold: Fold::Sum, term: plain(), keep: false, value: over_len },
        Pass { fold: Fold::Sum, term: above, keep: true, value: plain() },
    ]
}

pub(super) fn expected(row: &[f32]) -> (Vec<f64>, f64, f64) {
    let x: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max).abs();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let terms: Vec<f64> = x.iter().map(|x| (x - mean).max(0.0).powi(2)).collect();
    let total = terms.iter().sum();
    (terms, largest, total)
}

pub(super) fn near(what: &str, got: f32, want: f64) {
    assert!((f64::from(got) - want).abs() <= 1e-5 * want.abs().max(1.0), "{what}: {got} for {want}");
}

#[test]
fn rows_see_their_own_elements_alone() {
    let mut random = Random(7);
    for isa in isas() {
        for round in 0..60 {
            // Short rows come several in turn, and leave some over; long ones by vectors.
            let len = isa.lanes() + random.below(if round % 4 == 1 { 600 } else { 90 }) as usize;
            let rows = 1 + random.below(10) as usize;
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            let x = Guarded::new(&random.vec(rows * len), guard);
            let values = round % 3 == 0;
            let result = match values {
                true => RowResult::Value,
                false => RowResult::Each {
                    own: VProg::build(|p, x| {
                        let (largest, _, total) =
                            (p.operand(Access::Channel), p.operand(Access::Channel), p.operand(Access::Channel));
                        let bias = p.operand(Access::Channel);
                        let y = p.mul(x, largest);
                        let y = p.add(y, total);
                        p.add(y, bias)
                    }),
                    epilogue: VProg::build(|p, y| {
                        let (other, factor) = (p.operand(Access::Same), p.operand(Access::Splat));
                        p.fma(y, factor, other)
                    }),
                },
            };
            // A result that is a value alone keeps no terms: there is no room for them.
            let mut passes = passes(len as u32);
            passes[2].keep = !values;
            let out = Guarded::new(&random.vec(if values { rows } else { rows * len }), guard);
            let (bias, other) = (Guarded::new(&random.vec(len), guard), Guarded::new(&random.vec(rows * len), guard));
            let factor = Guarded::new(&random.vec(1), guard);
            let spec = LeafSpec::Rows(Rows { len: len as u32, planes: None, passes, result });
            let args = [x.addr(), out.addr(), rows as u64, bias.addr(), other.addr(), factor.addr()];
            load(&spec.emit(isa).unwrap()).call(&args);
            for (r, row) in x.slice().chunks(len).enumerate() {
                let (terms, largest, total) = expected(row);
                if values {
                    near("a value", out.slice()[r], total);
                    continue;
                }
                for (c, term) in terms.iter().enumerate() {
                    let y = term * largest + total + f64::from(bias.slice()[c]);
                    let y = y * f64::from(factor.slice()[0]) + f64::from(other.slice()[r * len + c]);
                    near("an element", out.slice()[r * len + c], y);
                }
            }
        }
    }
}

/// Means and variances: of rows shorter than a vector too, and both values of each row.
fn statistics(len: u32) -> Vec<Pass> {
    let over_len = VProg::build(|p, total| {
        let n = p.constant(len as f32);
        p.div(total, n)
    });
    let square = VProg::build(|p, x| {
        let mean = p.operand(Access::Channel);
        let d = p.sub(x, mean);
        p.mul(d, d)
    });
    vec![
        Pass { fold: Fold::Sum, term: VProg::identity(), keep: false, value: over_len.clone() },
        Pass { fold: Fold::Sum, term: square, keep: false, value: over_len },
    ]
}

fn mean_and_variance(row: &[f32]) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    (mean, row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn planes_of_a_row_have_parameters_of_their_own() {
    let mut random = Random(11);
    for isa in isas() {
        for round in 0..90 {
            // Planes shorter than a vector, of a few, and long ones; rows of one plane and of several.
            let plane = 1 + random.below([12, 40, 150, 700][round % 4]) as usize;
            let planes = 1 + random.below([1, 3, 9][round % 3]) as usize;
            let (rows, len) = (1 + random.below(10) as usize, plane * planes);
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            let x = Guarded::new(&random.vec(rows * len), guard);
            let out = Guarded::new(&random.vec(rows * len), guard);
            let other = Guarded::new(&random.vec(rows * len), guard);
            let [scale, bias] = [(); 2].map(|()| Guarded::new(&random.vec(rows * planes), guard));
            let shift = Guarded::new(&random.vec(rows * planes), guard);
            let epilogue = VProg::build(|p, y| {
                let (other, shift) = (p.operand(Access::Same), p.operand(Access::Channel));
                p.fma(y, other, shift)
            });
            // Without passes there are parameters alone.
            let has_passes = round % 5 != 0;
            let own = VProg::build(|p, x| {
                let values = has_passes.then(|| [(); 2].map(|()| p.operand(Access::Channel)));
                let (scale, bias) = (p.operand(Access::Channel), p.operand(Access::Channel));
                let Some([mean, var]) = values else { return p.fma(x, scale, bias) };
                let d = p.sub(x, mean);
                let y = p.fma(d, scale, bias);
                p.add(y, var)
            });
            let result = RowResult::Each { own, epilogue };
            let passes = if has_passes { statistics(len as u32) } else { vec![] };
            let spec = Rows { len: len as u32, planes: Some(planes as u32), passes, result };
            let leaf = load(&LeafSpec::Rows(spec).emit(isa).unwrap());
            let pointers = [&scale, &bias, &other, &shift].map(Guarded::addr);
            leaf.call(&[&[x.addr(), out.addr(), rows as u64], &pointers[..]].concat());
            for (r, row) in x.slice().chunks(len).enumerate() {
                let (mean, var) = if has_passes { mean_and_variance(row) } else { (0.0, 0.0) };
                for (c, x) in row.iter().enumerate() {
                    let [scale, bias, shift] =
                        [&scale, &bias, &shift].map(|p| f64::from(p.slice()[r * planes + c / plane]));
                    let y = (f64::from(*x) - mean) * scale + bias + var;
                    let y = y * f64::from(other.slice()[r * len + c]) + shift;
                    near("an element", out.slice()[r * len + c], y);
                }
            }
        }
    }
}

#[test]
fn rows_give_the_values_of_all_passes() {
    let mut random = Random(12);
    for isa in isas() {
        for round in 0..60 {
            let len = 1 + random.below([12, 90, 900][round % 3]) as usize;
            let rows = 1 + random.below(10) as usize;
            let guard = if round % 2 == 0 { Guard::Behind } else { Guard::Before };
            let x = Guarded::new(&random.vec(rows * len), guard);
            let out = Guarded::new(&random.vec(rows * 2), guard);
            let spec =
                Rows { len: len as u32, planes: None, passes: statistics(len as u32), result: RowResult::Values };
            load(&LeafSpec::Rows(spec).emit(isa).unwrap()).call(&[x.addr(), out.addr(), rows as u64]);
            for (row, values) in x.slice().chunks(len).zip(out.slice().chunks(2)) {
                let (mean, var) = mean_and_variance(row);
                near("a mean", values[0], mean);
                near("a variance", values[1], var);
            }
        }
    }
}

#[test]
fn what_rows_leaves_cannot_do_is_refused() {
    for isa in isas() {
        let refuse = |s: Rows| LeafSpec::Rows(s).emit(isa).map(|leaf| leaf.name).unwrap_err().to_string();
        let in_part = Rows { len: 64, planes: Some(7), passes: statistics(64), result: RowResult::Values };
        assert!(refuse(in_part).contains("planes"));
        let mut kept = passes(64);
        kept[0].keep = true;
        assert!(refuse(Rows { len: 64, planes: None, passes: kept, result: RowResult::Value }).contains("kept"));
        assert!(refuse(Rows { len: 3, planes: None, passes: passes(3), result: RowResult::Value }).contains("short"));
        assert!(
            refuse(Rows { len: 64, planes: None, passes: vec![], result: RowResult::Value }).contains("without passes")
        );
    }
}
