//! The columns leaf against f64, on memory with a guard page on either side: cells side by side, and rows that are transposed.

use super::rows::{expected, near, passes};
use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// `(x * largest + total + bias[i]) * factor`, and another matrix's element where cells lie side by side.
fn each(beside: bool) -> RowResult {
    RowResult::Each {
        own: VProg::build(|p, x| {
            let (largest, _, total) =
                (p.operand(Access::Channel), p.operand(Access::Channel), p.operand(Access::Channel));
            let bias = p.operand(Access::Channel);
            let y = p.mul(x, largest);
            let y = p.add(y, total);
            p.add(y, bias)
        }),
        epilogue: VProg::build(|p, y| {
            let factor = p.operand(Access::Splat);
            if !beside {
                return p.mul(y, factor);
            }
            let other = p.operand(Access::Same);
            p.fma(y, factor, other)
        }),
    }
}

#[test]
fn cells_see_their_own_elements_alone() {
    let mut random = Random(9);
    for isa in isas() {
        for round in 0..120 {
            let (beside, values) = (round % 2 == 0, round % 3 == 0);
            let len = 1 + random.below(70) as usize;
            let cells = if beside { 1 } else { isa.lanes() } + random.below(150) as usize;
            let guard = if round % 4 < 2 { Guard::Behind } else { Guard::Before };
            let x = Guarded::new(&random.vec(cells * len), guard);
            let mut passes = passes(len as u32);
            passes[2].keep = !values;
            let form = if beside { Cells::Beside { stride: 4 * cells as i32 } } else { Cells::Behind };
            let result = if values { RowResult::Value } else { each(beside) };
            let out = Guarded::new(&random.vec(if values { cells } else { cells * len }), guard);
            let (bias, other) = (Guarded::new(&random.vec(len), guard), Guarded::new(&random.vec(cells * len), guard));
            let factor = Guarded::new(&random.vec(1), guard);
            let spec = LeafSpec::Columns(Columns { len: len as u32, cells: form, passes, result });
            let args = [x.addr(), out.addr(), cells as u64, bias.addr(), factor.addr(), other.addr()];
            load(&spec.emit(isa).unwrap()).call(&args);
            let position = |c: usize, i: usize| if beside { i * cells + c } else { c * len + i };
            for c in 0..cells {
                let cell: Vec<f32> = (0..len).map(|i| x.slice()[position(c, i)]).collect();
                let (terms, largest, total) = expected(&cell);
                if values {
                    near("a value", out.slice()[c], total);
                    continue;
                }
                for (i, term) in terms.iter().enumerate() {
                    let y = (term * largest + total + f64::from(bias.slice()[i])) * f64::from(factor.slice()[0]);
                    let y = if beside { y + f64::from(other.slice()[position(c, i)]) } else { y };
                    near("an element", out.slice()[position(c, i)], y);
                }
            }
        }
    }
}

/// Of each fold, with a NaN in one cell: the others are right, and where NaN wins it is there.
#[test]
fn folds_of_cells_with_and_without_nan() {
    let identity = VProg::identity;
    for isa in isas() {
        for (fold, name) in [(Fold::Largest, "largest"), (Fold::Smallest, "smallest"), (Fold::Sum, "sum")] {
            for form in ["rows", "beside", "behind"] {
                let (cells, len) = (37usize, 21usize);
                let beside = form == "beside";
                let position = |c: usize, i: usize| if beside { i * cells + c } else { c * len + i };
                let mut x = Random(3).vec(cells * len);
                x[position(5, 7)] = f32::NAN;
                let passes = vec![Pass { fold, term: identity(), keep: false, value: identity() }];
                let spec = match form {
                    "rows" => LeafSpec::Rows(Rows { len: len as u32, planes: None, passes, result: RowResult::Value }),
                    _ => {
                        let cells = if beside { Cells::Beside { stride: 4 * cells as i32 } } else { Cells::Behind };
                        LeafSpec::Columns(Columns { len: len as u32, cells, passes, result: RowResult::Value })
                    }
                };
                let mut out = vec![0f32; cells];
                load(&spec.emit(isa).unwrap()).call(&[x.as_ptr() as u64, out.as_mut_ptr() as u64, cells as u64]);
                for (c, got) in out.into_iter().enumerate() {
                    let cell = (0..len).map(|i| f64::from(x[position(c, i)]));
                    let want = match fold {
                        Fold::Sum => cell.sum::<f64>(),
                        Fold::Smallest => cell.fold(f64::INFINITY, f64::min),
                        Fold::Largest | Fold::Max => cell.fold(f64::NEG_INFINITY, f64::max),
                    };
                    match c {
                        5 => assert!(got.is_nan(), "{name} of {form}"),
                        _ => near(name, got, want),
                    }
                }
            }
        }
    }
}

#[test]
fn what_columns_leaves_cannot_do_is_refused() {
    for isa in isas() {
        let refuse = |s: Columns| LeafSpec::Columns(s).emit(isa).map(|leaf| leaf.name).unwrap_err().to_string();
        let spec = |len: u32, result: RowResult| Columns { len, cells: Cells::Behind, passes: passes(len), result };
        assert!(refuse(spec(0, each(false))).contains("without elements"));
        assert!(refuse(spec(MAX_TRANSPOSED + 1, each(false))).contains("so long"));
        assert!(refuse(spec(8, each(true))).contains("lies so"));
        assert!(refuse(spec(8, RowResult::Value)).contains("kept"));
        assert!(refuse(spec(8, RowResult::Values)).contains("all values"));
    }
}
