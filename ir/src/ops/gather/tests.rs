//! Tests of indexed reads and writes; several expectations are the examples in ONNX's operator texts.

use super::*;

fn try_run(op: impl OpDef, xs: &[&Tensor]) -> Result<Result<Tensor, String>, Diag> {
    let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
    let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
    let y = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out);
    Ok(y.map(|mut y| {
        assert_eq!(y[0].ty(), out[0]);
        y.remove(0)
    }))
}

fn run(op: impl OpDef, xs: &[&Tensor]) -> Tensor {
    try_run(op, xs).unwrap().unwrap()
}

fn code(op: impl OpDef, xs: &[&Tensor]) -> &'static str {
    try_run(op, xs).unwrap_err().code
}

fn count(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_i128(DType::F32, shape.to_vec(), (0..n).map(|v| v as i128))
}

fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::i64s(values).reshaped(shape.to_vec()).unwrap()
}

fn floats(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64(DType::F32, shape.to_vec(), values.iter().copied())
}

#[test]
fn gather() {
    let x = count(&[2, 3]);
    assert_eq!(run(Gather { axis: 1 }, &[&x, &ints(&[2, 1], &[-1, 0])]).to_f64(), [2.0, 0.0, 5.0, 3.0]);
    assert_eq!(run(Gather { axis: 0 }, &[&x, &ints(&[], &[1])]).shape(), [3]);
    for bad in [2, -3, i64::MAX, i64::MIN] {
        let why = try_run(Gather { axis: 0 }, &[&x, &ints(&[1], &[bad])]).unwrap().unwrap_err();
        assert_eq!(why, format!("index {bad} is outside an axis of 2 elements"));
    }
    assert!(run(Gather { axis: 0 }, &[&count(&[0, 2]), &ints(&[0], &[])]).is_empty());
    assert!(try_run(Gather { axis: 0 }, &[&count(&[0, 2]), &ints(&[1], &[0])]).unwrap().is_err());
    assert_eq!(code(Gather { axis: 2 }, &[&x, &ints(&[1], &[0])]), "gather.c2");
    assert_eq!(code(Gather { axis: 0 }, &[&x, &x]), "gather.c1");
}

#[test]
fn gather_elements() {
    let x = count(&[2, 2]);
    assert_eq!(run(GatherElements { axis: 1 }, &[&x, &ints(&[2, 2], &[0, 0, -1, 0])]).to_f64(), [0.0, 0.0, 3.0, 2.0]);
    assert_eq!(run(GatherElements { axis: 1 }, &[&x, &ints(&[1, 3], &[0, 1, 1])]).to_f64(), [0.0, 1.0, 1.0]);
    assert!(run(GatherElements { axis: 1 }, &[&x, &ints(&[2, 0], &[])]).is_empty());
    assert_eq!(code(GatherElements { axis: 0 }, &[&x, &ints(&[1, 3], &[0, 1, 1])]), "gather_elements.c3");
    assert_eq!(code(GatherElements { axis: 0 }, &[&x, &ints(&[1], &[0])]), "gather_elements.c2");
}

#[test]
fn gather_nd() {
    let x = count(&[2, 2]);
    let nd = |batch_dims| GatherNd { batch_dims };
    assert_eq!(run(nd(0), &[&x, &ints(&[2, 2], &[0, 0, 1, -1])]).to_f64(), [0.0, 3.0]);
    assert_eq!(run(nd(0), &[&x, &ints(&[2, 1], &[1, 0])]).to_f64(), [2.0, 3.0, 0.0, 1.0]);
    let x = count(&[2, 2, 2]);
    assert_eq!(run(nd(1), &[&x, &ints(&[2, 1], &[1, 0])]).to_f64(), [2.0, 3.0, 4.0, 5.0]);
    assert_eq!(code(nd(3), &[&x, &ints(&[2, 1], &[1, 0])]), "gather_nd.c2");
    assert_eq!(code(nd(0), &[&x, &ints(&[], &[1])]), "gather_nd.c2");
    assert_eq!(code(nd(0), &[&x, &ints(&[1, 4], &[0; 4])]), "gather_nd.c3");
    assert_eq!(code(nd(0), &[&x, &ints(&[1, 0], &[])]), "gather_nd.c3");
    assert!(try_run(nd(0), &[&x, &ints(&[1, 1], &[5])]).unwrap().is_err());
}

#[test]
fn scatter_elements() {
    let x = floats(&[1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let i = ints(&[1, 2], &[1, 1]);
    let u = floats(&[1, 2], &[1.1, 2.1]);
    let y = |reduction| run(ScatterElements { axis: 1, reduction }, &[&x, &i, &u]).to_f32()[1];
    assert_eq!(y(ScatterReduction::None), 2.1);
    // Rounded once, from an exact sum.
    assert_eq!(y(ScatterReduction::Add), (2.0 + 1.1f32 as f64 + 2.1f32 as f64) as f32);
    assert_eq!(y(ScatterReduction::Mul), (2.0 * 1.1f32 as f64 * 2.1f32 as f64) as f32);
    assert_eq!(y(ScatterReduction::Max), 2.1);
    assert_eq!(y(ScatterReduction::Min), 1.1);
    let op = ScatterElements { axis: 1, reduction: ScatterReduction::None };
    assert_eq!(code(op.clone(), &[&x, &i, &floats(&[1, 1], &[0.0])]), "scatter_elements.c4");
    assert_eq!(code(op.clone(), &[&x, &ints(&[2, 1], &[0, 0]), &floats(&[2, 1], &[0.0; 2])]), "scatter_elements.c3");
    assert!(try_run(op, &[&x, &ints(&[1, 2], &[0, 5]), &u]).unwrap().is_err());
}

#[test]
fn scatter_reductions_of_nan_and_of_integers() {
    let op = |reduction| ScatterElements { axis: 0, reduction };
    let nan = floats(&[1], &[f64::NAN]);
    let i = ints(&[1], &[0]);
    for reduction in [ScatterReduction::Max, ScatterReduction::Min] {
        assert!(run(op(reduction), &[&nan, &i, &floats(&[1], &[0.0])]).to_f64()[0].is_nan());
        assert!(run(op(reduction), &[&floats(&[1], &[0.0]), &i, &nan]).to_f64()[0].is_nan());
    }
    let byte = |v| Tensor::from_i128(DType::U8, vec![1], [v]);
    assert_eq!(run(op(ScatterReduction::Add), &[&byte(200), &i, &byte(100)]).to_i128(), [44]);
    assert_eq!(run(op(ScatterReduction::Max), &[&byte(200), &i, &byte(100)]).to_i128(), [200]);
    let truth = |v| Tensor::from_i128(DType::Bool, vec![1], [v]);
    assert_eq!(run(op(ScatterReduction::Add), &[&truth(1), &i, &truth(1)]).to_i128(), [1]);
}

#[test]
fn scatter_nd() {
    let x = count(&[3, 2]);
    let op = |reduction| ScatterNd { reduction };
    let u = floats(&[2, 2], &[10.0, 20.0, 30.0, 40.0]);
    let y = run(op(ScatterReduction::None), &[&x, &ints(&[2, 1], &[2, -3]), &u]);
    assert_eq!(y.to_f64(), [30.0, 40.0, 2.0, 3.0, 10.0, 20.0]);
    let y = run(op(ScatterReduction::Add), &[&x, &ints(&[2, 1], &[1, 1]), &u]);
    assert_eq!(y.to_f64(), [0.0, 1.0, 42.0, 63.0, 4.0, 5.0]);
    let y = run(op(ScatterReduction::Mul), &[&x, &ints(&[1, 2], &[2, 1]), &floats(&[1], &[3.0])]);
    assert_eq!(y.to_f64()[5], 15.0);
    assert_eq!(run(op(ScatterReduction::Min), &[&x, &ints(&[0, 1], &[]), &count(&[0, 2])]), x);
    let empty = run(op(ScatterReduction::None), &[&count(&[3, 0]), &ints(&[1, 1], &[0]), &count(&[1, 0])]);
    assert!(empty.is_empty());
    assert_eq!(code(op(ScatterReduction::None), &[&x, &ints(&[1, 1], &[2]), &u]), "scatter_nd.c3");
    assert_eq!(code(op(ScatterReduction::None), &[&x, &ints(&[], &[2]), &u]), "scatter_nd.c2");
}

#[test]
fn one_hot() {
    let op = |depth, axis| OneHot { depth: Dim::Const(depth), axis };
    let values = floats(&[2], &[0.5, 1.5]);
    let y = run(op(3, 1), &[&floats(&[3], &[1.9, -1.0, 7.0]), &values]);
    assert_eq!(y.to_f64(), [0.5, 1.5, 0.5, 0.5, 0.5, 1.5, 0.5, 0.5, 0.5]);
    let y = run(op(2, 0), &[&floats(&[2], &[f64::NAN, f64::INFINITY]), &values]);
    assert_eq!(y.to_f64(), [0.5; 4]);
    let y = run(op(2, 0), &[&ints(&[3], &[0, 1, -3]), &values]);
    assert_eq!(y.to_f64(), [1.5, 0.5, 0.5, 0.5, 1.5, 0.5]);
    assert!(run(op(0, 0), &[&ints(&[3], &[0, 1, -3]), &values]).is_empty());
    assert_eq!(code(op(2, 2), &[&ints(&[3], &[0; 3]), &values]), "one_hot.c3");
    assert_eq!(code(op(2, 0), &[&ints(&[3], &[0; 3]), &ints(&[3], &[0; 3])]), "one_hot.c2");
}
