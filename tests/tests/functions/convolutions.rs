//! Convolutions of every kind, against plain loops.

use lehr_frontends::layers::{Layer, conv};
use lehr_ir::DType;
use lehr_ir::ops::Conv;
use lehr_tests::plain::{FLOATS, Grid, Walk, correlated, noise, turned};
use lehr_tests::sheet::{Sheet, epsilon};

fn attributes(walk: Walk) -> Conv {
    let (strides, dilations) = (vec![walk.stride; 2], vec![walk.dilation; 2]);
    Conv { strides, pads: walk.pads.to_vec(), dilations, groups: walk.groups }
}

/// A rounding error for each of `terms` products of numbers up to 1.
fn sums(dtype: DType, terms: usize) -> impl Fn(usize, f64) -> f64 {
    move |_, _| epsilon(dtype) * (terms as f64).max(8.0)
}

#[test]
fn correlation_and_convolution_in_all_their_forms() {
    // name, input, kernels, walk
    let forms: [(&str, [usize; 4], [usize; 4], Walk); 8] = [
        ("plain", [2, 3, 9, 7], [4, 3, 3, 3], Walk::default()),
        ("1x1", [1, 16, 5, 6], [8, 16, 1, 1], Walk::default()),
        ("oblong, padded unevenly", [1, 2, 8, 8], [3, 2, 4, 2], Walk { pads: [2, 0, 1, 1], ..Walk::default() }),
        ("stride 2", [1, 4, 11, 10], [4, 4, 3, 3], Walk { stride: 2, pads: [1; 4], ..Walk::default() }),
        ("dilated", [1, 3, 12, 12], [5, 3, 3, 3], Walk { dilation: 3, pads: [3; 4], ..Walk::default() }),
        ("grouped", [2, 6, 7, 7], [4, 3, 3, 3], Walk { groups: 2, ..Walk::default() }),
        ("depthwise", [1, 16, 9, 9], [16, 1, 5, 5], Walk { groups: 16, pads: [2; 4], ..Walk::default() }),
        ("wide", [1, 32, 14, 14], [32, 32, 3, 3], Walk { pads: [1; 4], ..Walk::default() }),
    ];
    for dtype in FLOATS {
        for (name, x, w, walk) in forms {
            let mut sheet = Sheet::new(&format!("{name}, {dtype}"));
            let (x, w) = (Grid::of(&noise(dtype, &x, 1.0, 1)), Grid::of(&noise(dtype, &w, 1.0, 2)));
            let v = sheet.input("x", x.tensor(dtype));
            let mut l = Layer::new(&mut sheet.g, name);
            let k = l.constant(w.tensor(dtype));
            let correlation = l.op(attributes(walk), &[v, k]);
            let convolution = conv::convolution(&mut l, v, k, None, attributes(walk));
            let terms = w.shape[1..].iter().product();
            sheet.expect("correlation", correlation, correlated(&x, &w, walk).values, sums(dtype, terms));
            sheet.expect("convolution", convolution, correlated(&x, &turned(&w), walk).values, sums(dtype, terms));
            sheet.check();
        }
    }
}

#[test]
fn depthwise_separable() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let walk = Walk { stride: 2, pads: [1; 4], groups: 8, ..Walk::default() };
        let x = Grid::of(&noise(dtype, &[2, 8, 9, 10], 1.0, 1));
        let depth = Grid::of(&noise(dtype, &[16, 1, 3, 3], 1.0, 2));
        let point = Grid::of(&noise(dtype, &[5, 16, 1, 1], 1.0, 3));
        let want = correlated(&correlated(&x, &depth, walk), &point, Walk::default());
        let v = sheet.input("x", x.tensor(dtype));
        let mut l = Layer::new(&mut sheet.g, "separable");
        let (d, p) = (l.constant(depth.tensor(dtype)), l.constant(point.tensor(dtype)));
        let y = conv::depthwise_separable(&mut l, v, d, p, attributes(Walk { groups: 1, ..walk }));
        sheet.expect("y", y, want.values, sums(dtype, 144));
        sheet.check();
    }
}

/// Kernels whose channels are sums of outer products: two convolutions equal one, at the borders too.
#[test]
fn separable_kernels() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = Grid::of(&noise(dtype, &[1, 3, 10, 11], 1.0, 1));
        let column = Grid::of(&noise(dtype, &[4, 3, 5, 1], 1.0, 2));
        let row = Grid::of(&noise(dtype, &[6, 4, 1, 5], 1.0, 3));
        let whole = Grid::make([6, 3, 5, 5], |[o, c, u, v]| {
            (0..4).map(|m| row.at([o, m, 0, v]) * column.at([m, c, u, 0])).sum()
        });
        let v = sheet.input("x", x.tensor(dtype));
        for pads in [[0; 4], [2; 4], [1, 2, 3, 0]] {
            let want = correlated(&x, &whole, Walk { pads, ..Walk::default() });
            let mut l = Layer::new(&mut sheet.g, "separable");
            let (c, r) = (l.constant(column.tensor(dtype)), l.constant(row.tensor(dtype)));
            let y = conv::separable(&mut l, v, c, r, pads);
            sheet.expect(&format!("{pads:?}"), y, want.values, sums(dtype, 300));
        }
        sheet.check();
    }
}

/// Two 3x3 kernels are the 5x5 kernel that is their convolution over all intermediate channels; with padding up front also at the
/// borders, and with padding between not there.
#[test]
fn stacked_kernels() {
    for dtype in FLOATS {
        let mut sheet = Sheet::new(dtype.name());
        let x = Grid::of(&noise(dtype, &[1, 3, 9, 10], 1.0, 1));
        let first = Grid::of(&noise(dtype, &[4, 3, 3, 3], 1.0, 2));
        let second = Grid::of(&noise(dtype, &[5, 4, 3, 3], 1.0, 3));
        let whole = Grid::make([5, 3, 5, 5], |[o, c, y, x]| {
            let mut sum = 0.0;
            for m in 0..4 {
                for u in y.saturating_sub(2)..3.min(y + 1) {
                    for v in x.saturating_sub(2)..3.min(x + 1) {
                        sum += second.at([o, m, u, v]) * first.at([m, c, y - u, x - v]);
                    }
                }
            }
            sum
        });
        let v = sheet.input("x", x.tensor(dtype));
        for pads in [[0; 4], [2; 4], [0, 1, 2, 3]] {
            let want = correlated(&x, &whole, Walk { pads, ..Walk::default() });
            let mut l = Layer::new(&mut sheet.g, "stacked");
            let kernels = [&first, &second].map(|w| l.constant(w.tensor(dtype)));
            let y = conv::stacked(&mut l, v, &kernels, pads);
            sheet.expect(&format!("{pads:?}"), y, want.values, sums(dtype, 972));
        }
        sheet.check();
        let between = Walk { pads: [1; 4], ..Walk::default() };
        let padded_between = correlated(&correlated(&x, &first, between), &second, between);
        let front = correlated(&x, &whole, Walk { pads: [2; 4], ..Walk::default() });
        let differs = |at: [usize; 4]| (padded_between.at(at) - front.at(at)).abs() > 1e-3;
        assert!(
            !differs([0, 0, 4, 4]) && differs([0, 0, 0, 0]),
            "padding between changes the border, and nothing else"
        );
    }
}
