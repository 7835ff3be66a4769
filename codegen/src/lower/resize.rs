//! Resampling by tables made at compile time: for each resized axis, the elements that make an output and their
//! weights.

use super::cx::{KernelCx, NodeCx};
use super::view::View;
use crate::kernel::{CmpOp, Expr, LoopKind, UnOp, computing_type};
use lehr_ir::ops::{Resize, ResizeMode, Sample};
use lehr_ir::{DType, Diag, Tensor};

/// Tables with more entries than this are a corrupt model's.
const MOST_ENTRIES: f64 = (1u32 << 28) as f64;

/// Tables of one axis; rows are outputs, columns taps.
struct AxisTables {
    places: View,
    weights: View,
    /// Which outputs lie outside the operand.
    outside: Option<View>,
    taps: usize,
}

impl AxisTables {
    fn new(samples: &[Sample], t: DType, cx: &mut NodeCx) -> AxisTables {
        let len = |s: &Sample| match s {
            Sample::Weighted(taps) => taps.len(),
            Sample::Outside => 1,
        };
        let taps = samples.iter().map(len).max().unwrap_or(1);
        let rows: Vec<Vec<(usize, f64)>> = samples
            .iter()
            .map(|s| {
                let mut row = match s {
                    Sample::Weighted(taps) => taps.clone(),
                    Sample::Outside => vec![],
                };
                // Rows are as long as the longest; what is added weighs nothing.
                let filler = row.last().map_or(0, |tap| tap.0);
                row.resize(taps, (filler, 0.0));
                row
            })
            .collect();
        let shape = vec![samples.len(), taps];
        let places = Tensor::from_i128(DType::I64, shape.clone(), rows.iter().flatten().map(|tap| tap.0 as i128));
        let weights = Tensor::from_f64(t, shape, rows.iter().flatten().map(|tap| tap.1));
        let beyond: Vec<bool> = samples.iter().map(|s| *s == Sample::Outside).collect();
        let outside = beyond.contains(&true).then(|| {
            let flags = Tensor::from_i128(DType::Bool, vec![beyond.len()], beyond.iter().map(|&b| b as i128));
            table(cx, &flags)
        });
        AxisTables { places: table(cx, &places), weights: table(cx, &weights), outside, taps }
    }
}

fn table(cx: &mut NodeCx, tensor: &Tensor) -> View {
    View::dense(cx.table(tensor), tensor.dtype(), tensor.shape().to_vec())
}

pub fn resize(op: &Resize, cx: &mut NodeCx) -> Result<(), Diag> {
    let (x, y) = (cx.in_shape(0), cx.out_shape(0));
    // Taps per output are a few, or under antialiasing a few times as many as inputs per output.
    let entries = |a: usize| 4.0 * y[a] as f64 * if op.antialias { 1.0 + 1.0 / f64::from(op.scales[a]) } else { 1.0 };
    if (0..y.len()).any(|a| x[a] != y[a] && entries(a) > MOST_ENTRIES) {
        return Err(cx.diag("lower.too-large", "an axis is resized to, or from, absurdly many elements"));
    }
    let dtype = cx.in_dtype(0);
    let whole = op.mode == ResizeMode::Nearest;
    // Integers are interpolated in f64 and rounded; nearest moves elements as they are.
    let t = match (whole, dtype.is_float()) {
        (true, _) | (_, true) => computing_type(dtype),
        (false, false) => DType::F64,
    };
    let weights_type = if t.is_float() { t } else { DType::F32 };
    let axes: Vec<Option<AxisTables>> = (0..x.len())
        .map(|a| op.samples(a, x[a], y[a]).map(|samples| AxisTables::new(&samples, weights_type, cx)))
        .collect();
    let taps: Vec<usize> = axes.iter().map(|a| a.as_ref().map_or(1, |a| a.taps)).collect();
    let input = cx.materialized(0);
    let cost = 4 * taps.iter().product::<usize>() as i64;
    let mut k = cx.kernel("");
    k.nest(&y, cost, LoopKind::Vector, |k, at| {
        let acc = k.mutable(Expr::number(t, 0.0));
        k.loops(&taps, |k, tap| {
            let mut weight: Option<Expr> = None;
            let mut coords = vec![];
            for (a, axis) in axes.iter().enumerate() {
                let Some(axis) = axis else {
                    coords.push(at[a].clone());
                    continue;
                };
                let entry = [at[a].clone(), tap[a].clone()];
                let place = k.load_view(&axis.places, &entry);
                coords.push(k.let_(place));
                if !whole {
                    let w = k.load_view(&axis.weights, &entry);
                    weight = Some(weight.map_or(w.clone(), |product| product * w));
                }
            }
            let v = k.load_view(&input, &coords);
            match weight {
                Some(weight) => k.set(acc, Expr::Var(acc) + Expr::cast(t, v) * weight),
                None => k.set(acc, Expr::cast(t, v)),
            }
        });
        let value = extrapolated(op, k, &axes, at, Expr::Var(acc), t);
        let value = if t == computing_type(dtype) { value } else { to_integer(k, value, dtype) };
        k.store(0, at, value);
    });
    k.finish();
    Ok(())
}

fn extrapolated(op: &Resize, k: &mut KernelCx, axes: &[Option<AxisTables>], at: &[Expr], v: Expr, t: DType) -> Expr {
    let flags = axes.iter().zip(at).filter_map(|(axis, i)| Some((axis.as_ref()?.outside.as_ref()?, i)));
    let flags: Vec<Expr> = flags.map(|(view, i)| k.load_view(view, std::slice::from_ref(i))).collect();
    match flags.into_iter().reduce(|a, b| a | b) {
        Some(outside) => Expr::select(outside, Expr::number(t, f64::from(op.extrapolation)), v),
        None => v,
    }
}

/// Rounds to even and saturates.
fn to_integer(k: &mut KernelCx, v: Expr, dtype: DType) -> Expr {
    let v = k.let_(Expr::unary(UnOp::Round, v));
    let bits = dtype.bits() as i32;
    let f = |v: f64| Expr::number(DType::F64, v);
    let (least, beyond) = match dtype.is_signed() {
        true => (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1)),
        false => (0.0, 2f64.powi(bits)),
    };
    let (least_int, most_int) = match dtype.is_signed() {
        true => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
        // Of u64, the bits.
        false => (0, (u64::MAX >> (64 - bits)) as i64),
    };
    let mut cast = Expr::cast(dtype, v.clone());
    if dtype == DType::U64 {
        // A cast goes through i64, which holds the lower half only.
        let half = 2f64.powi(63);
        let upper = Expr::cast(dtype, v.clone() - f(half)) | Expr::Int(dtype, i64::MIN);
        cast = Expr::select(Expr::compare(CmpOp::Ge, v.clone(), f(half)), upper, cast);
    }
    let below = Expr::select(Expr::compare(CmpOp::Lt, v.clone(), f(least)), Expr::Int(dtype, least_int), cast);
    Expr::select(Expr::compare(CmpOp::Ge, v, f(beyond)), Expr::Int(dtype, most_int), below)
}
