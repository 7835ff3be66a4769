//! Memory aligned as workspaces and weights must be.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::runtime::abi::ALIGN;

/// Zeroed bytes, 64-byte aligned, that do not move.
pub(super) struct AlignedBytes {
    start: NonNull<u8>,
    layout: Layout,
}

impl AlignedBytes {
    /// `None` if there is not so much memory.
    pub fn zeroed(bytes: u64) -> Option<AlignedBytes> {
        let size = usize::try_from(bytes).ok()?.max(1);
        let layout = Layout::from_size_align(size, ALIGN).ok()?;
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Some(AlignedBytes { start: NonNull::new(start)?, layout })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the block is this long, initialised, and borrowed through `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `zeroed`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

// SAFETY: it owns plain bytes.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared access gives out a pointer only; who writes through it answers for it.
unsafe impl Sync for AlignedBytes {}
