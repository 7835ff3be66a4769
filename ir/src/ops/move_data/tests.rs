//! Tests of data movement: expectations by hand, from the operators' definitions.

use super::*;

fn run(op: impl OpDef, xs: &[&Tensor]) -> Result<Tensor, Diag> {
    let types: Vec<_> = xs.iter().map(|x| x.ty()).collect();
    let out = op.infer(In(&types.iter().map(Some).collect::<Vec<_>>()))?;
    let y = op.eval(In(&xs.iter().map(|x| Some(*x)).collect::<Vec<_>>()), &out).unwrap().remove(0);
    assert_eq!(y.ty(), out[0]);
    Ok(y)
}

fn code(op: impl OpDef, x: &Tensor) -> &'static str {
    run(op, &[x]).unwrap_err().code
}

fn count(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_i128(DType::I16, shape.to_vec(), (0..n).map(|v| v as i128))
}

fn dims(d: &[i64]) -> Vec<Dim> {
    d.iter().map(|&d| Dim::Const(d)).collect()
}

#[test]
fn concat() {
    let y = run(Concat { axis: 1 }, &[&count(&[2, 1]), &count(&[2, 0]), &count(&[2, 2])]).unwrap();
    assert_eq!(y.to_i64(), [0, 0, 1, 1, 2, 3]);
    assert_eq!(run(Concat { axis: 0 }, &[&count(&[2, 1]), &count(&[2, 2])]).unwrap_err().code, "concat.c3");
    assert_eq!(code(Concat { axis: usize::MAX }, &count(&[2])), "concat.c2");
    assert_eq!(run(Concat { axis: 0 }, &[&count(&[2]), &Tensor::i64s(&[1])]).unwrap_err().code, "concat.c1");
}

#[test]
fn slice() {
    let op = |starts: &[i64], lens: &[i64], steps: &[i64]| Slice {
        starts: dims(starts),
        lens: dims(lens),
        steps: steps.to_vec(),
    };
    let x = count(&[3, 4]);
    assert_eq!(run(op(&[2, 0], &[2, 2], &[-2, 3]), &[&x]).unwrap().to_i64(), [8, 11, 0, 3]);
    assert!(run(op(&[9, 0], &[0, 4], &[1, 1]), &[&x]).unwrap().is_empty());
    assert_eq!(code(op(&[1], &[1], &[1]), &x), "slice.c1");
    assert_eq!(code(op(&[1, 1], &[1, 1], &[1, 0]), &x), "slice.c2");
    for (start, len, step) in [(0, 5, 1), (0, -1, 1), (1, 2, -2), (i64::MAX, 2, i64::MAX), (0, i64::MAX, i64::MIN)] {
        assert_eq!(code(op(&[0, start], &[1, len], &[1, step]), &x), "slice.c3");
    }
}

#[test]
fn pad_modes() {
    let op = |before: i64, after: i64, mode| Pad { before: vec![before], after: vec![after], mode };
    let x = count(&[3]);
    let y = |before, after, mode| run(op(before, after, mode), &[&x]).unwrap().to_i64();
    assert_eq!(y(2, 1, PadMode::Constant), [0, 0, 0, 1, 2, 0]);
    assert_eq!(y(4, 4, PadMode::Edge), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
    assert_eq!(y(4, 5, PadMode::Wrap), [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]);
    assert_eq!(y(5, 5, PadMode::Reflect), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]);
    assert_eq!(y(-1, 0, PadMode::Constant), [1, 2]);
    assert_eq!(y(-1, 2, PadMode::Wrap), [1, 2, 1, 2]);
    assert_eq!(y(2, -2, PadMode::Edge), [0, 0, 0]);
    assert_eq!(run(op(1, 1, PadMode::Reflect), &[&count(&[1])]).unwrap().to_i64(), [0, 0, 0]);
    let seven = Tensor::from_i128(DType::I16, vec![], [7]);
    assert_eq!(run(op(1, 0, PadMode::Constant), &[&x, &seven]).unwrap().to_i64(), [7, 0, 1, 2]);
    assert_eq!(run(op(2, 0, PadMode::Constant), &[&count(&[0]), &seven]).unwrap().to_i64(), [7, 7]);
    assert_eq!(code(op(-2, -2, PadMode::Constant), &x), "pad.c3");
    assert_eq!(code(op(i64::MIN, i64::MIN, PadMode::Constant), &x), "pad.c3");
    assert_eq!(code(op(-3, 1, PadMode::Wrap), &x), "pad.c4");
    assert_eq!(code(op(1, 1, PadMode::Edge), &count(&[0])), "pad.c4");
    assert_eq!(code(op(1, 1, PadMode::Edge), &count(&[1, 1])), "pad.c1");
    assert_eq!(run(op(1, 0, PadMode::Constant), &[&x, &count(&[1])]).unwrap_err().code, "pad.c2");
}

#[test]
fn reshape_compares_symbolic_products() {
    let (b, h) = (Dim::symbol("b"), Dim::symbol("h"));
    let x = TensorType::new(DType::F32, [b.clone(), Dim::Const(6), h.clone()]);
    let infer = |shape: Vec<Dim>| Reshape { shape }.infer(In(&[Some(&x)]));
    assert!(infer(vec![&b * 2, &h * 3]).is_ok());
    assert_eq!(infer(vec![&(&(&b * &h) * 6) + 1]).unwrap_err().code, "reshape.c1");
    // Equal where b is 0: it shows when b is bound.
    assert!(infer(vec![b.clone(), &(&h * 6) + 1]).is_ok());
    assert_eq!(run(Reshape { shape: dims(&[3, 0]) }, &[&count(&[0, 5])]).unwrap().shape(), [3, 0]);
    assert_eq!(code(Reshape { shape: dims(&[3, 2]) }, &count(&[5])), "reshape.c1");
}

#[test]
fn transpose_expand_tile() {
    assert_eq!(run(Transpose { perm: vec![1, 0] }, &[&count(&[2, 3])]).unwrap().to_i64(), [0, 3, 1, 4, 2, 5]);
    for perm in [vec![0], vec![0, 0], vec![0, 2]] {
        assert_eq!(code(Transpose { perm }, &count(&[2, 3])), "transpose.c1");
    }
    let y = run(Expand { shape: dims(&[2, 2, 2]) }, &[&count(&[2, 1])]).unwrap();
    assert_eq!(y.to_i64(), [0, 0, 1, 1, 0, 0, 1, 1]);
    assert!(run(Expand { shape: dims(&[0]) }, &[&count(&[1])]).unwrap().is_empty());
    assert_eq!(code(Expand { shape: dims(&[2]) }, &count(&[2, 2])), "expand.c1");
    assert_eq!(code(Expand { shape: dims(&[3]) }, &count(&[2])), "expand.c1");
    assert_eq!(run(Tile { repeats: dims(&[2, 2]) }, &[&count(&[1, 2])]).unwrap().to_i64(), [0, 1, 0, 1, 0, 1, 0, 1]);
    assert!(run(Tile { repeats: dims(&[0]) }, &[&count(&[2])]).unwrap().is_empty());
    assert_eq!(code(Tile { repeats: dims(&[-1]) }, &count(&[2])), "tile.c1");
}

#[test]
fn triangles() {
    let x = count(&[2, 2, 3]);
    let y = run(Trilu { upper: true, k: 1 }, &[&x]).unwrap();
    assert_eq!(y.to_i64(), [0, 1, 2, 0, 0, 5, 0, 7, 8, 0, 0, 11]);
    let y = run(Trilu { upper: false, k: -1 }, &[&x]).unwrap();
    assert_eq!(y.to_i64(), [0, 0, 0, 3, 0, 0, 0, 0, 0, 9, 0, 0]);
    assert_eq!(run(Trilu { upper: true, k: i64::MIN }, &[&x]).unwrap(), x);
    assert_eq!(code(Trilu { upper: true, k: 0 }, &count(&[2])), "trilu.c1");
}

#[test]
fn blocks() {
    let x = count(&[1, 8, 1, 1]);
    let y = run(DepthToSpace { block: 2, order: DepthOrder::Dcr }, &[&x]).unwrap();
    assert_eq!((y.shape(), y.to_i64()), (&[1, 2, 2, 2][..], vec![0, 2, 4, 6, 1, 3, 5, 7]));
    assert_eq!(run(SpaceToDepth { block: 2 }, &[&y]).unwrap(), x);
    let y = run(DepthToSpace { block: 2, order: DepthOrder::Crd }, &[&x]).unwrap();
    assert_eq!(y.to_i64(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(code(DepthToSpace { block: 0, order: DepthOrder::Dcr }, &x), "depth_to_space.c1");
    assert_eq!(code(DepthToSpace { block: 3, order: DepthOrder::Dcr }, &x), "depth_to_space.c2");
    assert_eq!(code(DepthToSpace { block: usize::MAX, order: DepthOrder::Dcr }, &x), "depth_to_space.c2");
    assert_eq!(code(SpaceToDepth { block: 2 }, &x), "space_to_depth.c2");
    assert!(run(SpaceToDepth { block: 2 }, &[&count(&[1, 0, 2, 2])]).unwrap().is_empty());
}

#[test]
fn dropout_keeps_everything() {
    let x = Tensor::from_f64(DType::F16, vec![2], [1.5, f64::NAN]);
    let out = Dropout {}.infer(In(&[Some(&x.ty())])).unwrap();
    let ys = Dropout {}.eval(In(&[Some(&x)]), &out).unwrap();
    assert_eq!((ys[0].bytes(), ys[1].to_i64()), (x.bytes(), vec![1, 1]));
    assert_eq!(code(Dropout {}, &count(&[1])), "dropout.c1");
}
