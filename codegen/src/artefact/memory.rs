//! Memory aligned as workspaces and weights must be.

use crate::runtime::abi::ALIGN;
use memmap2::{MmapMut, MmapRaw};

/// Zeroed bytes that do not move. They are whole pages, and come to exist when they are touched.
pub(super) struct AlignedBytes(MmapRaw);

// Pages are aligned better than that.
const _: () = assert!(ALIGN <= 4096);

impl AlignedBytes {
    /// `None` if there is not so much memory.
    pub fn zeroed(bytes: u64) -> Option<AlignedBytes> {
        let size = usize::try_from(bytes).ok()?.max(1);
        MmapMut::map_anon(size).ok().map(|map| AlignedBytes(map.into()))
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the block is this long, initialised, and borrowed through `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr(), self.0.len()) }
    }
}
