//! Maps that the 1x1 convolution which reads them computes: when it does, when it does not, and the results of both.

use crate::net::*;
use lehr::CompileOptions;
use lehr_codegen::layout::{Role, decide};
use lehr_ir::graph::{Graph, ValueId};
use lehr_ir::ops::*;

const CPUS: [&str; 2] = ["x86-64-v3", "x86-64-v4"];

/// Checks that so many maps are prologues on either instruction set.
fn expect(n: &Net, outputs: &[ValueId], prologues: usize) {
    let mut g = n.g.clone();
    outputs.iter().enumerate().for_each(|(i, &v)| g.add_output(&format!("y{i}"), v));
    for cpu in CPUS {
        let options = CompileOptions { cpu: cpu.into(), ..CompileOptions::default() };
        let (g, _) = lehr::optimize(g.clone(), options.level).unwrap();
        let layouts = decide(&g, &options.lowering());
        let found = g.ids().filter(|&id| layouts.role(id) == Role::Prologue).count();
        assert_eq!(found, prologues, "{cpu}:\n{}", layouts.describe(&g));
    }
}

/// A concatenation of two convolutions' results, behind which nothing can be fused.
fn concatenation(n: &mut Net, image: &[usize], channels: [usize; 2]) -> ValueId {
    let x = n.input(image);
    let kernel = vec![3; image.len() - 2];
    let x = n.conv(x, channels[0], window(&kernel).pad(&vec![1; 2 * kernel.len()]));
    let y = n.conv(x, channels[1], window(&vec![1; kernel.len()]));
    n.add(Concat { axis: 1 }, &[x, y])
}

/// A batch normalisation and a ReLU.
fn normalised(n: &mut Net, x: ValueId) -> ValueId {
    let channels = n.shape(x)[1];
    let per_channel: Vec<usize> = (0..n.shape(x).len()).map(|d| if d == 1 { channels } else { 1 }).collect();
    let (scale, shift) = (n.weights(&per_channel), n.weights(&per_channel));
    let y = n.binary(BinaryFn::Mul, x, scale);
    let y = n.binary(BinaryFn::Add, y, shift);
    n.unary(UnaryFn::Relu, y)
}

#[test]
fn maps_before_pointwise_convolutions() {
    // One chunk and several, of rows (the result has a border) and of flat tiles; parts of blocks on either instruction set.
    for (image, channels, outputs, border) in [
        (vec![2, 3, 9, 11], [32, 16], 40, false),
        (vec![2, 3, 9, 11], [24, 16], 40, true),
        (vec![2, 3, 30, 31], [24, 16], 40, false),
        (vec![2, 3, 30, 31], [40, 16], 40, true),
        (vec![1, 3, 14, 14], [13, 7], 9, false),
        (vec![1, 3, 14, 14], [64, 64], 128, false),
        (vec![3, 2, 90], [20, 3], 17, false),
        (vec![1, 2, 4, 5, 6], [17, 16], 33, false),
    ] {
        let mut n = Net::new();
        let x = concatenation(&mut n, &image, channels);
        let map = normalised(&mut n, x);
        let kernel = vec![1; image.len() - 2];
        let mut y = n.conv(map, outputs, window(&kernel));
        if border {
            y = n.conv(y, 16, window(&[3, 3]).pad(&[1, 1, 1, 1]));
        }
        expect(&n, &[y], 1);
        n.check(&[y]);
    }
}

/// What the map makes of nothing, in slots without a channel, meets weights of zero: it must not be infinite.
#[test]
fn maps_of_zero_that_are_not_zero() {
    for channels in [[24, 16], [20, 7]] {
        for infinite in [false, true] {
            let mut n = Net::new();
            let x = concatenation(&mut n, &[2, 3, 10, 11], channels);
            let map = match infinite {
                // Between 1/2 and 3/2, but for slots without a channel.
                true => {
                    let x = n.unary(UnaryFn::Sigmoid, x);
                    let x = n.add(Concat { axis: 1 }, &[x, x]);
                    n.unary(UnaryFn::Reciprocal, x)
                }
                false => {
                    let three = n.number(3.0);
                    let y = n.unary(UnaryFn::Exp, x);
                    n.binary(BinaryFn::Add, y, three)
                }
            };
            let y = n.conv(map, 24, window(&[1, 1]));
            expect(&n, &[y], 1);
            n.check(&[y]);
        }
    }
}

#[test]
fn maps_that_others_read_are_in_memory() {
    // Two convolutions, another operator, what is fused behind the convolution, the caller.
    for reader in ["conv", "pool", "sum", "output"] {
        let mut n = Net::new();
        let x = concatenation(&mut n, &[1, 3, 12, 12], [32, 16]);
        let map = normalised(&mut n, x);
        let y = n.conv(map, if reader == "sum" { 48 } else { 16 }, window(&[1, 1]));
        let other = match reader {
            "sum" => n.binary(BinaryFn::Add, y, map),
            "conv" => n.conv(map, 24, window(&[1, 1])),
            "pool" => n.g.add(max_pool(&[3, 3], &[2, 2], &[1; 4], false), &[Some(map)], vec![]).unwrap().out(0),
            _ => map,
        };
        let outputs = if reader == "sum" { vec![other] } else { vec![y, other] };
        expect(&n, &outputs, 0);
        n.check(&outputs);
    }
}

#[test]
fn what_a_prologue_reads_has_no_border() {
    let mut n = Net::new();
    let x = concatenation(&mut n, &[1, 3, 12, 12], [32, 16]);
    let map = normalised(&mut n, x);
    let y = n.conv(map, 16, window(&[1, 1]));
    expect(&n, &[y], 1);
    // The same, but for a convolution that reads the map's input with padding.
    let padded = n.conv(x, 24, window(&[3, 3]).pad(&[1, 1, 1, 1]));
    expect(&n, &[y, padded], 0);
    n.check(&[y, padded]);
}

#[test]
fn kernels_and_planes_that_have_no_prologue() {
    // A second operand of the result's shape; kernels, strides and padding; planes of too few pixels for chunks.
    let mut n = Net::new();
    let x = concatenation(&mut n, &[1, 3, 12, 12], [32, 16]);
    let other = n.input(&[1, 48, 12, 12]);
    let sum = n.binary(BinaryFn::Add, x, other);
    let outputs = [n.conv(sum, 16, window(&[1, 1]))];
    expect(&n, &outputs, 0);
    n.check(&outputs);
    for c in [window(&[3, 3]), window(&[1, 1]).stride(&[2, 2]), window(&[1, 1]).pad(&[1, 0, 0, 1])] {
        let mut n = Net::new();
        let x = concatenation(&mut n, &[1, 3, 12, 12], [32, 16]);
        let map = normalised(&mut n, x);
        let y = n.conv(map, 16, c);
        expect(&n, &[y], 0);
        n.check(&[y]);
    }
    for (size, outputs, prologues) in [(7, 128, 0), (14, 128, 1), (14, 4096, 0)] {
        let mut n = Net::new();
        let x = concatenation(&mut n, &[1, 3, size, size], [256, 256]);
        let map = normalised(&mut n, x);
        let y = n.conv(map, outputs, window(&[1, 1]));
        expect(&n, &[y], prologues);
    }
}

/// Slices of channels: whole blocks are values like others; where other channels share a block, a convolution gathers its own.
#[test]
fn maps_of_slices() {
    for (from, count, prologues) in [(16, 32, 1), (0, 20, 0), (20, 12, 0)] {
        let mut n = Net::new();
        let x = concatenation(&mut n, &[2, 3, 10, 9], [32, 32]);
        let dims = |sizes: [usize; 4]| sizes.iter().map(|&d| (d as i64).into()).collect();
        let slice = Slice { starts: dims([0, from, 0, 0]), lens: dims([2, count, 10, 9]), steps: vec![1; 4] };
        let part = n.add(slice, &[x]);
        let map = normalised(&mut n, part);
        let y = n.conv(map, 40, window(&[1, 1]));
        let all = n.unary(UnaryFn::Tanh, x);
        expect(&n, &[y, all], prologues);
        n.check(&[y, all]);
    }
}

/// Two layers of the same sizes, of which one has a prologue; both have a tuned strategy of shares of output channels.
#[test]
fn a_tuned_strategy_that_a_prologue_excludes_is_not_used_and_said() {
    let mut n = Net::new();
    let x = concatenation(&mut n, &[1, 3, 14, 14], [64, 64]);
    let map = normalised(&mut n, x);
    let y = n.conv(map, 128, window(&[1, 1]));
    let z = n.conv(y, 128, window(&[1, 1]));
    let both = |g: &Graph, options: CompileOptions| {
        let strategy = "direct tile=6x2 channels=64 share=channels/2".to_string();
        let decisions = lehr::lower(g.clone(), &options).unwrap().decisions;
        let of_both = decisions.into_iter().map(|d| d.signature).filter(|s| s.contains(" * 128x128x1x1 "));
        let mut signatures: Vec<String> = of_both.collect();
        signatures.sort_unstable();
        let [alone, with] = &signatures[..] else { panic!("{signatures:?}") };
        assert_eq!(&format!("{alone} prologue"), with);
        let options = tuned(options, signatures.iter().map(|s| (s.clone(), strategy.clone())));
        let decisions = lehr::lower(g.clone(), &options).unwrap().decisions;
        let of = |signature: &str| decisions.iter().find(|d| d.signature == signature).unwrap();
        let (alone, with) = (of(alone), of(with));
        assert_eq!((alone.chosen.strategy.to_string(), &alone.unfit), (strategy.clone(), &None));
        let unfit = with.unfit.as_ref().unwrap();
        assert_eq!(unfit.strategy.to_string(), strategy);
        assert!(unfit.why.contains("the map before it"), "{unfit:?}");
        assert!(with.chosen.strategy.to_string().contains(" share=rows/"), "{with:?}");
        options
    };
    expect(&n, &[z], 1);
    n.check_with(&[z], &both);
}
