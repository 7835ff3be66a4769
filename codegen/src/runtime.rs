//! The runtime, as a module: what jitted code calls, and the object with the same code for model.so.

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

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::abi::{LehrModel, LehrTensor, RunCtx, TensorSpec, isa};

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
            (80, 136, 184)
        );
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
