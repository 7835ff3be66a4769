//! Memory beside a page that may not be touched: who reads or writes past the end of it dies.

use std::ffi::c_void;

/// Which end of the memory is at the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Before,
    Behind,
}

/// Bytes of its own mapping, right before or behind a page without access.
pub struct Guarded {
    map: *mut c_void,
    mapped: usize,
    at: usize,
    len: usize,
}

const PAGE: usize = 4096;
const READ_WRITE: i32 = 3;
const PRIVATE_ANONYMOUS: i32 = 0x22;

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut c_void;
    fn mprotect(addr: *mut c_void, len: usize, prot: i32) -> i32;
    fn munmap(addr: *mut c_void, len: usize) -> i32;
}

impl Guarded {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8], guard: Guard) -> Guarded {
        let body = bytes.len().next_multiple_of(PAGE).max(PAGE);
        let mapped = body + PAGE;
        // SAFETY: an anonymous private mapping of its own; the guard page lies within it.
        let map = unsafe {
            let map = mmap(std::ptr::null_mut(), mapped, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
            assert!(map as isize != -1, "mmap failed");
            let page = if guard == Guard::Before { map } else { map.byte_add(body) };
            assert_eq!(mprotect(page, PAGE, 0), 0, "mprotect failed");
            map
        };
        let at = if guard == Guard::Before { PAGE } else { body - bytes.len() };
        let mut memory = Guarded { map, mapped, at, len: bytes.len() };
        memory.bytes_mut().copy_from_slice(bytes);
        memory
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` mapped these bytes with access, zeroed or copied; they live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.map.byte_add(self.at).cast(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.map.byte_add(self.at).cast(), self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and its slices have ended.
        unsafe { munmap(self.map, self.mapped) };
    }
}
