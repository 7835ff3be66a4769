//! The rewrite rules, one per file. Each opens with its equation, what it needs, and its exactness.

mod affine;
mod batch_norm_to_affine;
mod factorize_conv;
mod fold_batch_norm;
mod fold_batch_norm_before_conv;
mod fold_batch_norm_before_gemm;
mod fold_scale;
mod fuse_elementwise;
mod fuse_epilogue;
mod fusion_group;
mod matmul_to_gemm;
mod merge_pad_into_conv;
mod merge_pad_into_pool;
mod merge_pads;
mod merge_reshapes;
mod merge_transposes;
mod remove_no_op;
mod separate_conv;
mod transpose_to_reshape;

pub use batch_norm_to_affine::BATCH_NORM_TO_AFFINE;
pub use factorize_conv::FACTORIZE_CONV;
pub use fold_batch_norm::FOLD_BATCH_NORM;
pub use fold_batch_norm_before_conv::FOLD_BATCH_NORM_BEFORE_CONV;
pub use fold_batch_norm_before_gemm::FOLD_BATCH_NORM_BEFORE_GEMM;
pub use fold_scale::FOLD_SCALE;
pub use fuse_elementwise::FUSE_ELEMENTWISE;
pub use fuse_epilogue::FUSE_EPILOGUE;
pub use matmul_to_gemm::MATMUL_TO_GEMM;
pub use merge_pad_into_conv::MERGE_PAD_INTO_CONV;
pub use merge_pad_into_pool::MERGE_PAD_INTO_POOL;
pub use merge_pads::MERGE_PADS;
pub use merge_reshapes::MERGE_RESHAPES;
pub use merge_transposes::MERGE_TRANSPOSES;
pub use remove_no_op::REMOVE_NO_OP;
pub use separate_conv::SEPARATE_CONV;
pub use transpose_to_reshape::TRANSPOSE_TO_RESHAPE;
