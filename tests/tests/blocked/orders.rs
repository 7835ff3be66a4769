//! Concatenations, shuffles and slices of channels, which are places and orders.

use crate::net::*;
use lehr::CompileOptions;
use lehr_ir::graph::ValueId;
use lehr_ir::ops::*;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, Tensor};

#[test]
fn concatenations_are_places() {
    for (a, b) in [(32, 64), (48, 20), (20, 16)] {
        let mut n = Net::new();
        let x = n.input(&[2, 3, 8, 9]);
        let p = n.conv(x, a, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let q = n.conv(p, b, window(&[1, 1]));
        let q = n.unary(UnaryFn::Relu, q);
        let inner = n.add(Concat { axis: 1 }, &[p, q]);
        let r = n.conv(inner, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let outer = n.add(Concat { axis: 1 }, &[r, inner, p]);
        let s = n.conv(outer, 32, window(&[1, 1]));
        let t = n.unary(UnaryFn::Abs, outer);
        let pooled = n.g.add(max_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false), &[Some(r)], vec![]).unwrap().out(0);
        n.check(&[s, t, inner, pooled]);
    }
}

/// Channels in rows, read by columns.
fn shuffle(n: &mut Net, x: ValueId, rows: usize) -> ValueId {
    let shape = n.shape(x);
    let dims = |sizes: &[usize]| sizes.iter().map(|&d| (d as i64).into()).collect();
    let split = [&[shape[0], rows, shape[1] / rows], &shape[2..]].concat();
    let perm = [0, 2, 1].into_iter().chain(3..split.len()).collect();
    let a = n.add(Reshape { shape: dims(&split) }, &[x]);
    let b = n.add(Transpose { perm }, &[a]);
    n.add(Reshape { shape: dims(&shape) }, &[b])
}

fn channels(n: &mut Net, x: ValueId, from: usize, count: usize) -> ValueId {
    let shape = n.shape(x);
    let dim = |(d, size): (usize, &usize)| if d == 1 { count as i64 } else { *size as i64 };
    let starts = (0..shape.len()).map(|d| (if d == 1 { from as i64 } else { 0 }).into()).collect();
    let lens = shape.iter().enumerate().map(|d| dim(d).into()).collect();
    n.add(Slice { starts, lens, steps: vec![1; shape.len()] }, &[x])
}

fn depthwise(n: &mut Net, x: ValueId, stride: usize) -> ValueId {
    let groups = n.shape(x)[1];
    n.conv(x, groups, window(&[3, 3]).pad(&[1, 1, 1, 1]).stride(&[stride, stride]).groups(groups))
}

#[test]
fn groups_that_end_inside_blocks() {
    // Of a blocked input and of the graph's own.
    for (inputs, outputs, groups) in [(24, 112, 4), (136, 136, 4), (40, 60, 5), (96, 36, 3), (12, 33, 3), (64, 20, 2)] {
        for c in [
            window(&[1, 1]),
            window(&[3, 3]).pad(&[1, 1, 1, 1]),
            window(&[3, 2]).pad(&[0, 1, 2, 0]).stride(&[2, 1]).dilate(&[1, 2]),
        ] {
            let mut n = Net::new();
            let x = n.input(&[2, inputs, 7, 9]);
            let own = Window {
                kernel: c.kernel.clone(),
                strides: c.strides.clone(),
                pads: c.pads.clone(),
                ..window(&[1, 1])
            };
            let direct = n.conv(x, outputs, own.groups(groups));
            let first = n.conv(x, inputs, window(&[1, 1]));
            let y = n.conv(first, outputs, c.groups(groups));
            let y = n.unary(UnaryFn::Sigmoid, y);
            n.check(&[direct, y]);
        }
    }
    two_convs(&[1, 3, 30], 34, 102, window(&[3]).pad(&[1, 1]).groups(2));
    two_convs(&[1, 3, 4, 5, 6], 20, 30, window(&[1, 3, 3]).pad(&[0, 1, 1, 0, 1, 1]).groups(2));
    two_convs(&[1, 3, 28, 28], 136, 136, window(&[1, 1]).groups(4));
    two_convs(&[1, 3, 1, 1], 40, 40, window(&[1, 1]).groups(4));
    // More groups in a block than a leaf can tell apart.
    two_convs(&[1, 3, 6, 6], 24, 48, window(&[1, 1]).groups(24));
}

/// However a convolution that gathers its channels is shared out, it gives the same.
#[test]
fn gathering_has_strategies() {
    // Of a flat plane, and of rows.
    for (c, form) in [(window(&[1, 1]), " gathered flat"), (window(&[1, 3]).pad(&[0, 1, 0, 1]), " gathered")] {
        let c = c.groups(3);
        for at in 0..3 {
            let mut n = Net::new();
            let x = n.input(&[2, 60, 20, 11]);
            let x = n.conv(x, 60, window(&[1, 1]));
            let same = Window { kernel: c.kernel.clone(), pads: c.pads.clone(), ..window(&[1, 1]) };
            let y = n.conv(x, 36, same.groups(c.groups));
            n.check_with(&[y], &|g, options| {
                let decide = |options: &CompileOptions| {
                    let decisions = lehr::lower(g.clone(), options).unwrap().decisions;
                    decisions.into_iter().find(|d| d.signature.ends_with(form)).unwrap()
                };
                let d = decide(&options);
                assert!(d.chosen.strategy.to_string().starts_with("gathered chunks=") && d.chosen.cycles > 0.0);
                let other = d.others[at].strategy;
                let options = tuned(options, [(d.signature, other.to_string())]);
                let d = decide(&options);
                assert_eq!((d.chosen.strategy, d.unfit), (other, None));
                options
            });
        }
    }
}

#[test]
fn shuffled_channels_are_other_slots() {
    for (channels, groups) in [(136, 4), (48, 3), (64, 4)] {
        let mut n = Net::new();
        let x = n.input(&[2, channels, 14, 13]);
        let first = n.conv(x, channels, window(&[1, 1]));
        let a = n.conv(first, channels, window(&[1, 1]).groups(groups));
        let a = n.unary(UnaryFn::Relu, a);
        let b = shuffle(&mut n, a, groups);
        let c = depthwise(&mut n, b, 1);
        let d = n.conv(c, channels, window(&[1, 1]).groups(groups));
        let sum = n.binary(BinaryFn::Add, d, first);
        let y = n.unary(UnaryFn::Relu, sum);
        // Read by what knows no orders, by a dense convolution, by a mean, and in a sum with values in another order.
        let dense = n.conv(b, 24, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let mean = n.add(Reduce { f: ReduceFn::Mean, axes: vec![2, 3], keepdims: true }, &[c]);
        let scale = n.weights(&[channels, 1, 1]);
        let scaled = n.binary(BinaryFn::Mul, b, scale);
        let mixed = n.binary(BinaryFn::Sub, scaled, a);
        let other = n.input(&[2, channels, 14, 13]);
        let mixed = n.binary(BinaryFn::Max, mixed, other);
        let residual = n.conv(a, channels, window(&[1, 1]));
        let residual = n.binary(BinaryFn::Add, residual, b);
        let twice = shuffle(&mut n, b, channels / groups);
        n.check(&[y, b, dense, mean, mixed, residual, twice]);
    }
}

#[test]
fn concatenations_with_gaps_and_slices() {
    for (left, right) in [(116, 24), (58, 58), (20, 100)] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 12, 12]);
        let a = n.conv(x, left, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let b = n.conv(x, right, window(&[1, 1]));
        let b = n.g.add(max_pool(&[3, 3], &[1, 1], &[1, 1, 1, 1], false), &[Some(b)], vec![]).unwrap().out(0);
        let all = n.add(Concat { axis: 1 }, &[a, b]);
        let all = n.unary(UnaryFn::Relu, all);
        let half = (left + right) / 2;
        let (low, high) = (channels(&mut n, all, 0, half), channels(&mut n, all, half, half));
        let c = n.conv(high, half, window(&[1, 1]));
        let c = depthwise(&mut n, c, 1);
        let d = n.conv(c, half, window(&[1, 1]));
        let again = n.add(Concat { axis: 1 }, &[low, d]);
        let mixed = shuffle(&mut n, again, 2);
        let y = depthwise(&mut n, mixed, 2);
        let e = n.conv(low, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let f = depthwise(&mut n, high, 1);
        let g = n.conv(f, half, window(&[1, 1]).groups(2));
        let residual = n.binary(BinaryFn::Add, g, high);
        let dense = n.conv(all, 32, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        let bias = n.weights(&[half, 1, 1]);
        let shifted = n.binary(BinaryFn::Sub, low, bias);
        n.check(&[all, y, e, residual, dense, shifted, high]);
    }
}

/// What is infinite in one group, or in channels that a slice leaves out, stays there.
#[test]
fn groups_and_slices_read_their_own_channels_alone() {
    for groups in [1, 3] {
        let mut n = Net::new();
        let x = n.input(&[1, 3, 6, 6]);
        let a = n.conv(x, 60, window(&[1, 1]));
        let flags: Vec<f64> = (0..60).map(|c| if c < 20 { f64::INFINITY } else { 0.0 }).collect();
        let infinite = Tensor::from_f64(DType::F32, vec![60, 1, 1], flags);
        let infinite = n.g.add_const(ConstValue::Dense { tensor: infinite, name: None });
        let a = n.binary(BinaryFn::Add, a, infinite);
        let b = n.conv(a, 60, window(&[1, 1]).groups(3));
        let rest = channels(&mut n, a, 20, 40);
        let c = n.conv(rest, 40, window(&[3, 3]).pad(&[1, 1, 1, 1]).groups(if groups == 3 { 2 } else { 1 }));
        let finite = channels(&mut n, b, 20, 40);
        n.check(&[finite, c]);
    }
}
