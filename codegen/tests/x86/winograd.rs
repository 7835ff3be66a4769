//! Winograd's transforms and weights together compute a convolution of a row of tiles, in f64 between the leaves, on memory
//! with a guard page on either side; and pools of what they compute.

use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// One input channel, whose lanes are as many channels of the output. Pixels and rows that belong together are `step` apart.
fn check(
    isa: Isa,
    kind: Winograd,
    (tiles, rows, cols): (usize, usize, usize),
    step: usize,
    pool: Option<Pool>,
    guard: Guard,
) {
    let (m, n, r, lanes) = (kind.outputs(), kind.points(), kind.taps(), isa.lanes());
    let (pixels, stride_of) = (kind.pixels(), kind.stride());
    let mut random = Random(7);
    let (width, points) = (((tiles - 1) * m * stride_of + pixels - 1) * step + 1, n * n);
    // The last row, and the last tile's last column, end where the buffer ends.
    let input_data = random.vec(((pixels - 1) * step + 1) * width * lanes);
    let input = Guarded::new(&input_data, guard);
    let stride = |elements: usize| (4 * elements * lanes) as i32;
    let products = Guarded::new(&vec![0.0; points * tiles * lanes], guard);
    let spec = InputTransform {
        winograd: kind,
        row: stride(step * width),
        pixel: stride(step),
        point: stride(tiles),
        tiles: tiles as u32,
    };
    load(&LeafSpec::WinogradInput(spec).emit(isa).unwrap()).call(&[input.addr(), products.addr()]);
    let kernel = random.vec(r * r);
    let weights = kind.weights(&kind.weight_rows(), &kernel);
    // Points of a single tap come last.
    let set = |axis: usize| axis.min(kind.sets() - 1);
    let of_point = |point: usize| weights[set(point / n) * kind.sets() + set(point % n)];
    let scaled: Vec<f32> =
        products.slice().iter().enumerate().map(|(i, v)| v * of_point(i / (tiles * lanes))).collect();
    let products = Guarded::new(&scaled, guard);
    let out_width = (tiles - 1) * m + cols;
    let bias = Guarded::new(&random.vec(lanes), guard);
    let residual = Guarded::new(&random.vec(rows * out_width * lanes), guard);
    let halved = |n: usize| if pool.is_some() { n.div_ceil(2) } else { n };
    let (stored_high, stored_wide) = (halved(rows), (tiles - 1) * halved(m) + halved(cols));
    let out = Guarded::new(&vec![f32::NAN; stored_high * stored_wide * lanes], guard);
    let spec = OutputTransform {
        winograd: kind,
        rows: rows as u32,
        cols: cols as u32,
        point: stride(tiles),
        pool,
        row: stride(stored_wide),
        bias: true,
        epilogue: VProg::build(|p, x| {
            let r = p.operand(Access::Strided { pixel: stride(1), block: stride(out_width) });
            let x = p.add(x, r);
            p.relu(x)
        }),
        tiles: tiles as u32,
    };
    let args = [products.addr(), out.addr(), bias.addr(), residual.addr()];
    load(&LeafSpec::WinogradOutput(spec).emit(isa).unwrap()).call(&args);
    let result = |y: usize, x: usize, lane: usize| {
        let tap = |t: usize| {
            let at = (stride_of * y + t / r) * step * width + (stride_of * x + t % r) * step;
            f64::from(kernel[t]) * f64::from(input_data[at * lanes + lane])
        };
        let sum: f64 = (0..r * r).map(tap).sum();
        let at = (y * out_width + x) * lanes + lane;
        (sum + f64::from(bias.slice()[lane]) + f64::from(residual.slice()[at])).max(0.0)
    };
    for (i, got) in out.slice().iter().enumerate() {
        let (pixel, lane) = (i / lanes, i % lanes);
        let (y, x) = (pixel / stored_wide, pixel % stored_wide);
        if cols < m && x % halved(m) >= halved(cols) {
            continue;
        }
        let window = |at: usize, end: usize| 2 * at..end.min(2 * at + 2);
        let all = || window(y, rows).flat_map(|y| window(x, out_width).map(move |x| (y, x)));
        let all = || all().map(|(y, x)| result(y, x, lane));
        let want = match pool {
            None => result(y, x, lane),
            Some(Pool::Max) => all().fold(0.0, f64::max),
            Some(Pool::Mean) => all().sum::<f64>() / all().count() as f64,
        };
        let what = format!("{isa:?} {kind:?} {pool:?} {rows}x{cols}, element {i}");
        assert!((f64::from(*got) - want).abs() < 2e-5, "{what}: {got} for {want}");
    }
}

#[test]
fn transforms_compute_convolutions_inside_their_buffers() {
    for isa in isas() {
        for kind in Winograd::ALL {
            for (guard, step) in [(Guard::Before, 1), (Guard::Behind, 1), (Guard::Before, 2), (Guard::Behind, 2)] {
                for rows in 1..=kind.outputs() {
                    check(isa, kind, (3, rows, kind.outputs()), step, None, guard);
                    (1..=kind.outputs()).for_each(|cols| check(isa, kind, (1, rows, cols), step, None, guard));
                }
            }
        }
    }
}

#[test]
fn pools_of_what_transforms_compute() {
    for isa in isas() {
        for kind in Winograd::ALL.into_iter().filter(|kind| kind.outputs().is_multiple_of(2)) {
            for pool in [Pool::Max, Pool::Mean].map(Some) {
                for guard in [Guard::Before, Guard::Behind] {
                    for rows in 1..=kind.outputs() {
                        check(isa, kind, (3, rows, kind.outputs()), 1, pool, guard);
                        (1..=kind.outputs()).for_each(|cols| check(isa, kind, (1, rows, cols), 1, pool, guard));
                    }
                }
            }
        }
    }
}

#[test]
fn pools_that_transforms_have_not() {
    let spec = |winograd: Winograd, access: Access| OutputTransform {
        winograd,
        rows: winograd.outputs() as u32,
        cols: winograd.outputs() as u32,
        point: 64,
        pool: Some(Pool::Max),
        row: 64,
        bias: false,
        epilogue: VProg::build(|p, x| {
            let other = p.operand(access);
            p.add(x, other)
        }),
        tiles: 1,
    };
    for isa in isas() {
        let emit = |s| LeafSpec::WinogradOutput(s).emit(isa).map(|_| ());
        assert!(emit(spec(Winograd::F4x3, Access::Channel)).is_ok());
        assert!(matches!(emit(spec(Winograd::F3x4, Access::Channel)), Err(LeafError::Unsupported(_))));
        assert!(matches!(emit(spec(Winograd::F4x3, Access::Same)), Err(LeafError::Unsupported(_))));
    }
}

#[test]
fn sets_of_weights_differ() {
    for kind in Winograd::ALL {
        let rows = kind.weight_rows();
        let shared = if kind.taps() == 3 && kind.stride() == 2 { kind.outputs() - 1 } else { 0 };
        assert_eq!((rows.len(), kind.sets()), (kind.sets(), kind.points() - shared), "{kind:?}");
        assert!((1..rows.len()).all(|i| !rows[..i].contains(&rows[i])), "{kind:?}: {rows:?}");
    }
}
