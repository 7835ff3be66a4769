//! Packed weights and tile choices, and that the bytes of a leaf go through an object module unchanged.

use crate::harness::ISAS;
use cranelift::prelude::{AbiParam, settings, types};
use cranelift_module::{Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use lehr_codegen::x86::*;
use object::{Object, ObjectSection, ObjectSymbol};

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn rows_split_evenly() {
    assert_eq!(split_evenly(55, 14), [14, 14, 14, 13]);
    assert_eq!(split_evenly(56, 14), [14; 4]);
    assert_eq!(split_evenly(15, 14), [8, 7]);
    assert_eq!(split_evenly(1, 14), [1]);
    assert!(split_evenly(0, 14).is_empty());
}

#[test]
fn tiles_fit_and_suit_the_row() {
    for isa in ISAS {
        for pixels in 1..=230 {
            for blocks in [1, 2, 3, 4, 5, 8, 12, 32, 64] {
                let t = choose_tile(isa, pixels, blocks);
                let broadcast = if isa == Isa::Avx2 || t.broadcast == Broadcast::PerPixel { 1 } else { 0 };
                assert!(t.pixels * t.blocks + t.blocks + broadcast <= isa.registers(), "{t:?}");
                assert!(t.pixels <= pixels && t.blocks <= blocks);
            }
        }
    }
    let shape = |isa, pixels, blocks| {
        let t = choose_tile(isa, pixels, blocks);
        (t.pixels, t.blocks)
    };
    assert_eq!(shape(Isa::Avx512, 56, 4), (14, 2));
    assert_eq!(shape(Isa::Avx512, 7, 32), (7, 3));
    assert_eq!(shape(Isa::Avx512, 56, 1), (28, 1));
    assert_eq!(shape(Isa::Avx2, 12, 8), (6, 2));
}

#[test]
fn convolution_weights_are_where_the_leaf_reads_them() {
    // Two groups of 10 outputs and 6 inputs, 2x3, in blocks of 4 channels that tiles take as 2 + 1.
    let shape = ConvWeights { outputs: 20, inputs: 6, conv_groups: 2, kh: 2, kw: 3 };
    let w: Vec<f32> = (1..=20 * 6 * 2 * 3).map(|i| i as f32).collect();
    let (lanes, groups) = (4, [2u32, 1]);
    let at = |g: usize, o: usize, i: usize, y: usize, x: usize| {
        if o < 10 && i < 6 { w[(((g * 10 + o) * 6 + i) * 2 + y) * 3 + x] } else { 0.0 }
    };
    for (input, outer, inner) in [(InputLayout::Blocked, 2, 4), (InputLayout::Plain, 6, 1)] {
        let packed = floats(&pack_conv_weights(&w, shape, input, lanes, &groups));
        let mut next = packed.iter();
        for g in 0..2 {
            for (first, blocks) in [(0, 2), (2, 1)] {
                for (ib, y, x, i) in product4(outer, 2, 3, inner) {
                    for (b, o) in (0..blocks).flat_map(|b| (0..lanes).map(move |o| (b, o))) {
                        let want = at(g, (first + b) * lanes + o, ib * inner + i, y, x);
                        assert_eq!(next.next(), Some(&want));
                    }
                }
            }
        }
        assert_eq!(next.next(), None);
    }
}

fn product4(a: usize, b: usize, c: usize, d: usize) -> Vec<(usize, usize, usize, usize)> {
    (0..a * b * c * d).map(|i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d)).collect()
}

#[test]
fn gemm_and_depthwise_weights_are_where_the_leaf_reads_them() {
    let (k, n, lanes) = (3, 11, 4);
    let b: Vec<f32> = (0..k * n).map(|i| i as f32 + 1.0).collect();
    let transposed: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
    let packed = floats(&pack_gemm_b(&b, k, n, MatrixLayout::Kn, lanes, &[2, 1]));
    assert_eq!(packed, floats(&pack_gemm_b(&transposed, k, n, MatrixLayout::Nk, lanes, &[2, 1])));
    assert_eq!(packed.len(), k * 12);
    assert_eq!(packed[..8], b[..8]);
    assert_eq!(packed[8..16], b[11..19]);
    assert_eq!(packed[24..28], [b[8], b[9], b[10], 0.0]);

    let depthwise = floats(&pack_depthwise_weights(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 1, 2, 2));
    assert_eq!(depthwise, [1.0, 3.0, 2.0, 4.0, 5.0, 0.0, 6.0, 0.0]);
}

#[test]
fn leaves_go_through_an_object_module_unchanged() {
    for isa in ISAS {
        let leaf =
            LeafSpec::Map(Map { program: VProg::build(|p, x| p.gelu(x)), past_caches: false }).emit(isa).unwrap();
        let target = cranelift::codegen::isa::lookup_by_name("x86_64-unknown-linux-gnu").unwrap();
        let target = target.finish(settings::Flags::new(settings::builder())).unwrap();
        let builder = ObjectBuilder::new(target, "leaves", default_libcall_names()).unwrap();
        let mut module = ObjectModule::new(builder);
        let mut signature = module.make_signature();
        signature.params.push(AbiParam::new(types::I64));
        let id = module.declare_function(&leaf.name, Linkage::Local, &signature).unwrap();
        module.define_function_bytes(id, 64, &leaf.code, &[]).unwrap();
        let bytes = module.finish().emit().unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file.symbols().find(|s| s.name() == Ok(&*leaf.name)).unwrap();
        let text = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let at = symbol.address() as usize;
        assert_eq!(&text.data().unwrap()[at..at + leaf.code.len()], &*leaf.code);
        assert_eq!(at % 64, 0);
        assert!(text.relocations().next().is_none());
    }
}
