//! The operating system: futex, affinity, small files, threads. Linux only; the numbers are of the kernel's stable interface.
//! The thread functions are in libc itself since glibc 2.34, and always were in musl: so a model needs no other library.

use core::ffi::{c_char, c_int, c_long, c_void};
use core::sync::atomic::AtomicU32;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn pthread_create(
        thread: *mut usize,
        attributes: *const c_void,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: usize, result: *mut *mut c_void) -> c_int;
    fn pthread_sigmask(how: c_int, new: *const SignalSet, old: *mut SignalSet) -> c_int;
}

#[repr(C)]
struct SignalSet([u64; 16]);

const SIG_SETMASK: c_int = 2;
const FUTEX_WAIT_PRIVATE: c_long = 128;
const FUTEX_WAKE_PRIVATE: c_long = 129;
const AT_FDCWD: c_long = -100;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: i64 = 0;
    pub const CLOSE: i64 = 3;
    pub const SCHED_YIELD: i64 = 24;
    pub const MADVISE: i64 = 28;
    pub const FUTEX: i64 = 202;
    pub const SCHED_GETAFFINITY: i64 = 204;
    pub const OPENAT: i64 = 257;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: i64 = 63;
    pub const CLOSE: i64 = 57;
    pub const MADVISE: i64 = 233;
    pub const FUTEX: i64 = 98;
    pub const SCHED_GETAFFINITY: i64 = 123;
    pub const SCHED_YIELD: i64 = 124;
    pub const OPENAT: i64 = 56;
}

/// Sleeps while `*word == expected`; may return at any time.
pub fn futex_wait(word: *const AtomicU32, expected: u32) {
    // SAFETY: the kernel reads one aligned word that outlives the call; a bad address is an error code, not a fault.
    unsafe {
        syscall(number::FUTEX, word, FUTEX_WAIT_PRIVATE, expected as c_long, 0 as c_long, 0 as c_long, 0 as c_long)
    };
}

/// Wakes everyone who sleeps on `word`.
pub fn futex_wake_all(word: *const AtomicU32) {
    // SAFETY: as above; the kernel uses the address as a key only.
    unsafe {
        syscall(number::FUTEX, word, FUTEX_WAKE_PRIVATE, i32::MAX as c_long, 0 as c_long, 0 as c_long, 0 as c_long)
    };
}

/// Lets another thread that is ready run on this CPU; returns at once if there is none.
pub fn yield_cpu() {
    // SAFETY: it takes no arguments, and cannot fail.
    unsafe { syscall(number::SCHED_YIELD) };
}

/// How many CPUs this thread may run on; at least 1.
pub fn affinity_count() -> u32 {
    let mut mask = [0u64; 1024];
    // SAFETY: the kernel writes at most the stated number of bytes into the mask.
    let got =
        unsafe { syscall(number::SCHED_GETAFFINITY, 0 as c_long, size_of_val(&mask) as c_long, mask.as_mut_ptr()) };
    if got <= 0 {
        return 1;
    }
    mask.iter().map(|word| word.count_ones()).sum::<u32>().max(1)
}

/// Reads the start of a file; the number of bytes read, 0 if there is no such file. `path` ends with a zero.
pub fn read_file(path: &[u8], buffer: &mut [u8]) -> usize {
    debug_assert!(path.last() == Some(&0));
    // SAFETY: `path` is zero-terminated.
    let fd =
        unsafe { syscall(number::OPENAT, AT_FDCWD, path.as_ptr() as *const c_char, 0x80000 as c_long, 0 as c_long) };
    if fd < 0 {
        return 0;
    }
    // SAFETY: the kernel writes at most `buffer.len()` bytes.
    let got = unsafe { syscall(number::READ, fd, buffer.as_mut_ptr(), buffer.len() as c_long) };
    // SAFETY: `fd` was opened above and is not used again.
    unsafe { syscall(number::CLOSE, fd) };
    if got > 0 { (got as usize).min(buffer.len()) } else { 0 }
}

/// Bytes of a huge page, where pages have 4 KB.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Asks that whole huge pages be such pages once they are touched: fewer faults in the first run, fewer misses in all.
pub fn advise_huge_pages(start: *mut u8, bytes: u64) {
    const MADV_HUGEPAGE: c_long = 14;
    // SAFETY: advice changes no contents; the kernel refuses what it cannot follow, and nothing depends on it.
    unsafe { syscall(number::MADVISE, start, bytes as c_long, MADV_HUGEPAGE) };
}

/// Starts a thread that blocks all signals, so that the program's handlers run on its own threads. `None` if the system refuses.
pub fn spawn(start: extern "C" fn(*mut c_void) -> *mut c_void, argument: *mut c_void) -> Option<usize> {
    let all = SignalSet([u64::MAX; 16]);
    let mut old = SignalSet([0; 16]);
    let mut thread = 0usize;
    // SAFETY: the sets are as large as libc's; the mask is restored below. A new thread inherits the mask.
    let failed = unsafe {
        pthread_sigmask(SIG_SETMASK, &all, &mut old);
        let failed = pthread_create(&mut thread, core::ptr::null(), start, argument);
        pthread_sigmask(SIG_SETMASK, &old, core::ptr::null_mut());
        failed
    };
    (failed == 0).then_some(thread)
}

/// Waits for the end of a thread from [`spawn`].
pub fn join(thread: usize) {
    // SAFETY: each thread is joined once, by `Pool::stop`.
    unsafe { pthread_join(thread, core::ptr::null_mut()) };
}
