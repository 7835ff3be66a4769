//! Dropout in both modes: which elements go is SplitMix64's, written out here, and the same everywhere.

use lehr_frontends::layers::Layer;
use lehr_frontends::layers::dropout::dropout;
use lehr_ir::ops::Dropout;
use lehr_ir::tensor::seeded;
use lehr_ir::{ConstValue, DType, Dim, Graph, Tensor, TensorType};
use lehr_tests::sheet::{Sheet, compiled, everywhere};

/// Whether element `i` is kept.
fn kept(seed: i64, i: usize, p: f64) -> bool {
    let mut z = (seed as u64).wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((z >> 40) as f64) < (1.0 - p) * (1u64 << 24) as f64
}

#[test]
fn training_drops_by_the_seed_and_scales() {
    for dtype in [DType::F32, DType::F64] {
        for p in [0.0, 0.25, 0.5, 0.9, 1.0] {
            for seed in [0, 1, -7, i64::MAX] {
                let mut sheet = Sheet::new(&format!("{dtype}, p {p}, seed {seed}"));
                let x = seeded(dtype, vec![3, 5, 7], 4);
                let xs = x.to_f64();
                let x = sheet.input("x", x);
                let s = sheet.input("seed", Tensor::from_i128(DType::I64, vec![], [seed.into()]));
                let d = dropout(&mut Layer::new(&mut sheet.g, "dropout"), x, p, s).unwrap();
                let scale = if p < 1.0 { Tensor::scalar_f64(dtype, 1.0 / (1.0 - p)).to_f64()[0] } else { 0.0 };
                let mask: Vec<f64> = (0..xs.len()).map(|i| f64::from(u8::from(kept(seed, i, p)))).collect();
                let want = xs.iter().zip(&mask).map(|(x, m)| m * x * scale);
                let want = Tensor::from_f64(dtype, vec![xs.len()], want).to_f64();
                sheet.expect("y", Ok(d.y), want, |_, _| 0.0);
                sheet.expect("mask", Ok(d.mask), mask, |_, _| 0.0);
                sheet.check();
            }
        }
    }
}

/// A constant seed is folded, in part or in whole: the same elements go.
#[test]
fn a_constant_seed_drops_the_same_as_an_input() {
    let build = |constant: bool| {
        let mut g = Graph::new("dropout");
        let x = g.add_input("x", TensorType::new(DType::F32, [40, 50]));
        let seed = Tensor::from_i128(DType::I64, vec![], [99]);
        let s = match constant {
            true => g.add_const(ConstValue::Dense { tensor: seed, name: None }),
            false => g.add_input("seed", seed.ty()),
        };
        let d = dropout(&mut Layer::new(&mut g, "dropout"), x, 0.3, s).unwrap();
        g.add_output("y", d.y);
        g
    };
    let x = seeded(DType::F32, vec![40, 50], 1);
    let fixed = everywhere(&build(true), std::slice::from_ref(&x));
    let given = everywhere(&build(false), &[x, Tensor::from_i128(DType::I64, vec![], [99])]);
    for ((how, a), (_, b)) in fixed.iter().zip(&given) {
        assert_eq!(a, b, "{how}");
        assert_eq!(a, &fixed[0].1, "{how}");
    }
}

/// Rates over 100,000 elements lie within four deviations; masks of neighbouring seeds, and neighbours in a mask, are independent.
#[test]
fn the_rate_is_right_and_nothing_repeats() {
    const N: usize = 100_000;
    let mut g = Graph::new("rates");
    let x = g.add_input("x", TensorType::new(DType::F32, [N as i64]));
    let s = g.add_input("seed", TensorType::scalar(DType::I64));
    let probabilities = [0.1, 0.5, 0.8];
    for p in probabilities {
        let d = dropout(&mut Layer::new(&mut g, "dropout"), x, p, s).unwrap();
        g.add_output(&format!("mask {p}"), d.mask);
    }
    let ones = Tensor::from_f64(DType::F32, vec![N], vec![1.0; N]);
    let masks = |seed: i64| -> Vec<Vec<f64>> {
        let outputs = compiled(&g, &[ones.clone(), Tensor::from_i128(DType::I64, vec![], [seed.into()])]);
        outputs.iter().map(Tensor::to_f64).collect()
    };
    let (one, two) = (masks(1), masks(2));
    for (k, p) in probabilities.into_iter().enumerate() {
        let q = 1.0 - p;
        let near = |what: &str, count: f64, rate: f64| {
            let deviation = (N as f64 * rate * (1.0 - rate)).sqrt();
            assert!((count - N as f64 * rate).abs() < 4.0 * deviation, "p {p}, {what}: {count} of {N}, not {rate}");
        };
        near("kept", one[k].iter().sum(), q);
        near("kept by both seeds", one[k].iter().zip(&two[k]).map(|(a, b)| a * b).sum(), q * q);
        near("kept with the next", one[k].iter().zip(&one[k][1..]).map(|(a, b)| a * b).sum(), q * q);
    }
}

#[test]
fn a_symbolic_batch_has_as_long_a_mask() {
    let mut g = Graph::new("dropout");
    let x = g.add_input("x", TensorType::new(DType::F32, [Dim::symbol("batch"), 6.into()]));
    let s = g.add_input("seed", TensorType::scalar(DType::U32));
    let d = dropout(&mut Layer::new(&mut g, "dropout"), x, 0.5, s).unwrap();
    g.add_output("mask", d.mask);
    let g = g.bind(&|_| Some(Dim::Const(4))).unwrap();
    let inputs = [seeded(DType::F32, vec![4, 6], 1), Tensor::from_i128(DType::U32, vec![], [3])];
    let want: Vec<f64> = (0..24).map(|i| f64::from(u8::from(kept(3, i, 0.5)))).collect();
    assert_eq!(compiled(&g, &inputs)[0].to_f64(), want);
}

#[test]
fn inference_passes_on() {
    let mut sheet = Sheet::new("inference");
    let x = seeded(DType::F32, vec![4, 9], 1);
    let xs = x.to_f64();
    let v = sheet.input("x", x);
    let id = Layer::new(&mut sheet.g, "dropout").node(Dropout {}, &[Some(v)]).unwrap();
    sheet.expect("y", Ok(id.out(0)), xs, |_, _| 0.0);
    sheet.expect("mask", Ok(id.out(1)), vec![1.0; 36], |_, _| 0.0);
    sheet.check();
}
