//! Winograd's transforms and weights together compute a convolution of a row of tiles, in f64 between the leaves, on memory
//! with a guard page on either side.

use crate::harness::{Guard, Guarded, Random, isas, load};
use lehr_codegen::x86::*;

/// One input channel, whose lanes are as many channels of the output. Pixels and rows that belong together are `step` apart.
fn check(isa: Isa, kind: Winograd, (tiles, rows, cols): (usize, usize, usize), step: usize, guard: Guard) {
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
    let scaled: Vec<f32> = products.slice().iter().enumerate().map(|(i, v)| v * weights[i / (tiles * lanes)]).collect();
    let products = Guarded::new(&scaled, guard);
    let out_width = (tiles - 1) * m + cols;
    let bias = Guarded::new(&random.vec(lanes), guard);
    let residual = Guarded::new(&random.vec(rows * out_width * lanes), guard);
    let out = Guarded::new(&vec![f32::NAN; rows * out_width * lanes], guard);
    let spec = OutputTransform {
        winograd: kind,
        rows: rows as u32,
        cols: cols as u32,
        point: stride(tiles),
        row: stride(out_width),
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
    for (i, got) in out.slice().iter().enumerate() {
        let (pixel, lane) = (i / lanes, i % lanes);
        let (y, x) = (pixel / out_width, pixel % out_width);
        if cols < m && x % m >= cols {
            continue;
        }
        let tap = |t: usize| {
            let at = (stride_of * y + t / r) * step * width + (stride_of * x + t % r) * step;
            f64::from(kernel[t]) * f64::from(input_data[at * lanes + lane])
        };
        let sum: f64 = (0..r * r).map(tap).sum();
        let want = (sum + f64::from(bias.slice()[lane]) + f64::from(residual.slice()[i])).max(0.0);
        assert!((f64::from(*got) - want).abs() < 2e-5, "{isa:?} {kind:?} {rows}x{cols}, element {i}: {got} for {want}");
    }
}

#[test]
fn transforms_compute_convolutions_inside_their_buffers() {
    for isa in isas() {
        for kind in Winograd::ALL {
            for (guard, step) in [(Guard::Before, 1), (Guard::Behind, 1), (Guard::Before, 2), (Guard::Behind, 2)] {
                for rows in 1..=kind.outputs() {
                    check(isa, kind, (3, rows, kind.outputs()), step, guard);
                    (1..=kind.outputs()).for_each(|cols| check(isa, kind, (1, rows, cols), step, guard));
                }
            }
        }
    }
}
