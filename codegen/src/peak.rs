//! The measured ceiling of one core: fused multiply-adds per second by the leaf that convolutions use, on data in
//! the first-level cache. Reports divide by it.

use crate::artefact::{Session, TensorMut, TensorRef};
use crate::compile::{CompileOptions, jit};
use crate::kernel::{Access, Blocks, Expr, KernelBuilder, LeafArg};
use crate::program::{BufferId, BufferInfo, IoInfo, Place, Program, Step};
use crate::runtime::abi;
use crate::x86::{BatchReduceGemm, Init, Input, Isa, LeafSpec, Prefetch, Reduce, Tiles, VProg, choose_tile};
use lehr_ir::DType;
use std::time::Instant;

/// Steps of the inner product: operands of 4 kB and 16 kB stay in the cache.
const STEPS: u32 = 128;
/// Calls of the leaf in one timed run, about a millisecond.
const CALLS: i64 = 1000;
const RUNS: usize = 20;

/// Operations per second of one core, in FLOP/s; `None` where there is no leaf for this CPU.
pub fn fma_peak() -> Option<f64> {
    let isa = [Isa::Avx512, Isa::Avx2].into_iter().find(|isa| isa.on_this_cpu())?;
    let tile = choose_tile(isa, 14, 2);
    let spec = BatchReduceGemm {
        pixels: tile.pixels,
        blocks: tile.blocks,
        input: Input::Element,
        broadcast: tile.broadcast,
        pixel_stride: 4 * STEPS as i32,
        reduce: vec![Reduce { trip: STEPS, stride: 4 }],
        init: Init::Zero,
        epilogue: VProg::build(|_, x| x),
        out_pixel_stride: isa.bytes() as i32,
        out_block_stride: isa.bytes() as i32 * tile.pixels as i32,
        last_lanes: None,
        tiles: Tiles::Fixed(1),
        prefetch: Prefetch::None,
    };
    let flops = spec.flops(isa) as f64 * CALLS as f64;
    let lens = [
        (tile.pixels * STEPS) as usize,
        (STEPS * tile.blocks) as usize * isa.lanes(),
        (tile.pixels * tile.blocks) as usize * isa.lanes(),
    ];
    let mut program = program(lens, spec, isa)?;
    let (artefact, _) = jit(&mut program, &CompileOptions::default()).ok()?;
    let mut session = Session::new(&artefact, 1).ok()?;
    let data = lens.map(|n| vec![0x3f80_0000u32; n]);
    let dims = lens.map(|n| [n as i64]);
    let bytes = |v: &[u32]| v.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let (a, w, mut out) = (bytes(&data[0]), bytes(&data[1]), bytes(&data[2]));
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let started = Instant::now();
        let inputs = [
            TensorRef { dtype: abi::dtype::F32, dims: &dims[0], data: &a },
            TensorRef { dtype: abi::dtype::F32, dims: &dims[1], data: &w },
        ];
        let mut outputs = [TensorMut { dtype: abi::dtype::F32, dims: &dims[2], data: &mut out }];
        session.run(&inputs, &mut outputs).ok()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Some(flops / best)
}

fn program(lens: [usize; 3], spec: BatchReduceGemm, isa: Isa) -> Option<Program> {
    let mut k = KernelBuilder::new("fma_peak");
    let params = [(lens[0], Access::Read), (lens[1], Access::Read), (lens[2], Access::Write)]
        .map(|(len, access)| k.param(DType::F32, len, access));
    k.serial(CALLS as usize, |k, _| {
        k.leaf(0, params.iter().map(|&buf| LeafArg::Address { buf, index: Expr::i64(0) }).collect());
    });
    let place = |at: usize| if at < 2 { Place::Input(at) } else { Place::Output(0) };
    let buffer = |at: usize| BufferInfo { dtype: DType::F32, len: lens[at], place: Some(place(at)), name: None };
    let io = |name: &str, at: usize| IoInfo { name: name.into(), dtype: DType::F32, dims: vec![lens[at]] };
    Some(Program {
        name: "fma_peak".into(),
        inputs: vec![io("a", 0), io("w", 1)],
        outputs: vec![io("y", 2)],
        buffers: (0..3).map(buffer).collect(),
        kernels: vec![k.finish(vec![])],
        leaves: vec![LeafSpec::Gemm(spec).emit(isa).ok()?],
        steps: vec![Step { kernel: 0, args: (0..3).map(BufferId).collect(), origins: vec![], first_fault: 0 }],
        ..Program::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_positive_number_where_there_are_leaves() {
        let has_leaves = Isa::Avx2.on_this_cpu() || Isa::Avx512.on_this_cpu();
        assert_eq!(fma_peak().is_some_and(|p| p > 1e6), has_leaves);
    }
}
