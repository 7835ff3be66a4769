//! The runtime, as a module: what jitted code calls, and the object with the same code for model.so.

use cranelift_codegen::isa::TargetIsa;

#[path = "../runtime/mod.rs"]
mod source;

pub use source::*;

/// The relocatable object with the runtime's code, for the build's target; links into model.so.
pub static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lehr_runtime.o"));

/// The symbols that compiled code may import, with their addresses in this process: for `JITBuilder::symbol`.
pub fn runtime_symbols() -> Vec<(&'static str, *const u8)> {
    let mut all: Vec<_> = math::symbols().iter().map(|(name, address)| (*name, address())).collect();
    all.extend(half::symbols());
    all.push(("lehr_rt_parallel", pool::lehr_rt_parallel as *const u8));
    all
}

/// The [`abi::isa`] bits that code for a Cranelift target may use: the baseline, and every feature that is switched on.
pub fn required_isa(target: &dyn TargetIsa) -> u64 {
    use abi::isa::*;
    const FEATURES: [(&str, u64); 16] = [
        ("has_sse3", SSE3),
        ("has_ssse3", SSSE3),
        ("has_sse41", SSE4_1),
        ("has_sse42", SSE4_2),
        ("has_popcnt", POPCNT),
        ("has_avx", AVX),
        ("has_avx2", AVX2),
        ("has_fma", FMA),
        ("has_bmi1", BMI1),
        ("has_bmi2", BMI2),
        ("has_lzcnt", LZCNT),
        ("has_avx512bitalg", AVX512BITALG),
        ("has_avx512dq", AVX512DQ),
        ("has_avx512f", AVX512F),
        ("has_avx512vbmi", AVX512VBMI),
        ("has_avx512vl", AVX512VL),
    ];
    let baseline = match target.name() {
        "x64" => SSE2,
        "aarch64" => NEON,
        // No other target has a runtime, so nothing could run.
        _ => 0,
    };
    let enabled = |name: &str| target.isa_flags().iter().any(|flag| flag.name == name && flag.as_bool() == Some(true));
    FEATURES.iter().filter(|(name, _)| enabled(name)).fold(baseline, |bits, (_, bit)| bits | bit)
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::abi::{GpuPlan, LehrModel, LehrTensor, RunCtx, TensorSpec, isa};

    /// The numbers that other programs, compiled code and the generated header rely on.
    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(RunCtx::ARENA_OFFSET as usize, offset_of!(RunCtx, arena));
        assert_eq!(RunCtx::INPUTS_OFFSET as usize, offset_of!(RunCtx, inputs));
        assert_eq!(RunCtx::OUTPUTS_OFFSET as usize, offset_of!(RunCtx, outputs));
        assert_eq!(RunCtx::WEIGHTS_OFFSET as usize, offset_of!(RunCtx, weights));
        assert_eq!(RunCtx::FAULT_OFFSET as usize, offset_of!(RunCtx, fault));
        assert_eq!(RunCtx::POOL_OFFSET as usize, offset_of!(RunCtx, pool));
        assert_eq!(RunCtx::CPU_OFFSET as usize, offset_of!(RunCtx, cpu));
        assert_eq!(RunCtx::THREADS_OFFSET as usize, offset_of!(RunCtx, threads));
        assert_eq!((size_of::<LehrTensor>(), size_of::<TensorSpec>()), (32, 32));
        assert_eq!(
            (offset_of!(LehrModel, weights), offset_of!(LehrModel, open), size_of::<LehrModel>()),
            (80, 136, 224)
        );
        assert_eq!((offset_of!(LehrModel, run_on), offset_of!(LehrModel, device)), (192, 216));
        assert_eq!(
            (offset_of!(GpuPlan, capability), offset_of!(GpuPlan, kernels), size_of::<GpuPlan>()),
            (32, 64, 104)
        );
    }

    #[test]
    fn the_host_needs_no_more_than_it_has() {
        let host = cranelift_native::builder().unwrap();
        let host =
            host.finish(cranelift_codegen::settings::Flags::new(cranelift_codegen::settings::builder())).unwrap();
        let required = super::required_isa(&*host);
        assert!(required != 0);
        assert_eq!(required & !super::cpu::detect(), 0);
    }

    #[test]
    fn every_feature_has_its_name() {
        for (bit, name) in
            [(isa::SSE2, "SSE2"), (isa::AVX2, "AVX2"), (isa::AVX512VL, "AVX-512VL"), (isa::AMX_INT8, "AMX-INT8")]
        {
            assert_eq!(isa::NAMES[bit.trailing_zeros() as usize], name);
        }
    }
}
