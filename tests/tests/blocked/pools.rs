//! Means and average pools of many pixels, whose sums must stay short, and pools with many kinds of windows.

use crate::net::*;
use lehr_codegen::layout::Role;
use lehr_ir::graph::ValueId;
use lehr_ir::ops::*;

/// Less than what is allowed of a network, 5e-6: that is the most where all is added up one after the other.
const ACCURATE: f64 = 3e-6;

/// An image in blocks of which every pixel is the same, so that all roundings go to one side.
fn plane(n: &mut Net, spatial: &[usize], value: f64) -> ValueId {
    let x = n.input(&[&[2, 3], spatial].concat());
    let (w, b) = (n.filled(&[&[32, 3][..], &vec![1; spatial.len()]].concat(), 0.0), n.filled(&[32], value));
    let (strides, dilations) = (vec![1; spatial.len()], vec![1; spatial.len()]);
    n.add(Conv { strides, pads: vec![0; 2 * spatial.len()], dilations, groups: 1 }, &[x, w, b])
}

fn mean(n: &mut Net, x: ValueId) -> ValueId {
    let axes = (2..n.shape(x).len()).collect();
    n.add(Reduce { f: ReduceFn::Mean, axes, keepdims: true }, &[x])
}

#[test]
fn means_of_many_pixels_are_accurate() {
    for spatial in [&[112, 112][..], &[1, 5003], &[700, 3], &[20001], &[20, 17, 40], &[23, 23], &[7, 7], &[1, 1]] {
        let mut n = Net::new();
        let x = plane(&mut n, spatial, 1.1);
        let y = mean(&mut n, x);
        assert_eq!(count_role(&n, Role::Mean), 1, "{spatial:?}");
        // With a border around each line.
        let mut bordered = Net::new();
        let x = plane(&mut bordered, spatial, 1.1);
        let ones = vec![1; 2 * spatial.len()];
        let conv = bordered.conv(x, 16, window(&vec![3; spatial.len()]).pad(&ones));
        let mean = mean(&mut bordered, x);
        n.check_within(ACCURATE, &[y]);
        bordered.check_mean(mean, conv);
    }
}

impl Net {
    /// The convolution is there for its padding alone.
    fn check_mean(mut self, mean: ValueId, conv: ValueId) {
        let small = self.by_number(BinaryFn::Mul, conv, 0.0);
        self.check_within(ACCURATE, &[mean, small]);
    }
}

#[test]
fn average_pools_of_many_pixels_are_accurate() {
    // One window, many, and many to a row; those of the last are in blocks.
    for (size, kernel, stride) in [(64, 64, 1), (80, 64, 4), (70, 24, 2), (40, 20, 3)] {
        for count_include_pad in [false, true] {
            let mut n = Net::new();
            let x = plane(&mut n, &[size, size], 1.1);
            let pool = avg_pool(&[kernel, kernel], &[stride, stride], &[0; 4], count_include_pad);
            let y = n.add(pool, &[x]);
            let (means, windows) = (count_role(&n, Role::Mean), count_role(&n, Role::Window));
            assert_eq!((means, windows), (usize::from(size == kernel), usize::from(kernel == 20)), "{size} {kernel}");
            n.check_within(if windows == 1 { 5e-6 } else { ACCURATE }, &[y]);
        }
    }
    let mut n = Net::new();
    let x = plane(&mut n, &[6000], 1.1);
    let y = n.add(avg_pool(&[3000], &[500], &[0; 2], false), &[x]);
    n.check_within(ACCURATE, &[y]);
}

#[test]
fn pools_with_many_kinds_of_windows_are_plain_loops() {
    for (kernel, pads, role) in [(5, 4, 0), (3, 1, 1)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 5, 5, 5]);
        let x = n.conv(x, 16, window(&[1, 1, 1]));
        let average = n.add(avg_pool(&[kernel; 3], &[1; 3], &[pads; 6], true), &[x]);
        let largest = max_pool(&[kernel; 3], &[1; 3], &[pads; 6], false);
        let largest = n.g.add(largest, &[Some(x)], vec![]).unwrap().out(0);
        assert_eq!(count_role(&n, Role::Window), 2 * role, "{kernel}");
        n.check(&[average, largest]);
    }
}
