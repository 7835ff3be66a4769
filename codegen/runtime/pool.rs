//! A thread pool for one workspace: splits a parallel region into one contiguous chunk per thread and waits for all.
//!
//! The caller posts a job by storing one 64-bit word: a sequence number below, the number of chunks above. Worker `i` does
//! chunk `i` if there are that many, and otherwise does not touch the job, so a job waits only for those it uses. Whoever waits
//! spins for some tens of microseconds and then sleeps on a futex: nobody spins while the model is idle. The split depends
//! on the extent and the number of threads alone, and each iteration is done by exactly one thread.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::abi::{KernelFn, RunCtx};
use super::sys;

/// About 40 us on a 2.5 GHz counter: longer than the serial gaps between kernels, shorter than anyone notices.
const SPIN_CYCLES: u64 = 100_000;
/// From then on, whoever spins lets others run: threads that were put on one CPU would else wait for each other's spinning.
const ALONE_CYCLES: u64 = 10_000;
/// About 400 us.
const SHARED_CYCLES: u64 = 1_000_000;
/// The number of chunks that tells workers to end.
const STOP: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Job {
    kernel: KernelFn,
    args: *const *mut u8,
    extent: i64,
}

/// The shared state of the threads; lives in the workspace and must not move once started.
#[repr(C, align(64))]
pub struct Pool {
    /// Low half: sequence number (the futex word). High half: chunks, or [`STOP`].
    word: AtomicU64,
    sleepers: AtomicU32,
    /// Threads including the caller's.
    threads: u32,
    spin_cycles: u64,
    job: UnsafeCell<Option<Job>>,
    finish: Finish,
}

/// On a cache line of its own, since the workers write it while others still read the job.
#[repr(C, align(64))]
struct Finish {
    pending: AtomicU32,
    caller_sleeps: AtomicU32,
}

/// One thread's record, in the workspace behind the pool.
#[repr(C)]
pub struct Worker {
    pool: *const Pool,
    index: u32,
    handle: usize,
}

impl Pool {
    /// A pool that has no threads yet besides the caller's. `oversubscribed`: there are more threads than CPUs, so do not spin.
    pub fn new(oversubscribed: bool) -> Pool {
        Pool {
            word: AtomicU64::new(0),
            sleepers: AtomicU32::new(0),
            threads: 1,
            spin_cycles: if oversubscribed { 0 } else { SPIN_CYCLES },
            job: UnsafeCell::new(None),
            finish: Finish { pending: AtomicU32::new(0), caller_sleeps: AtomicU32::new(0) },
        }
    }

    /// Starts `threads - 1` workers. On failure those that were started are stopped again; the result says whether all is well.
    ///
    /// # Safety
    /// `this` is initialised, is not started, and stays where it is until [`Pool::stop`]; `workers` has room for `threads - 1`
    /// records and nobody else uses it until then.
    pub unsafe fn start(this: *mut Pool, workers: *mut Worker, threads: u32) -> bool {
        for index in 1..threads.max(1) {
            // SAFETY: `index - 1 < threads - 1`.
            let worker = unsafe { workers.add(index as usize - 1) };
            // SAFETY: in bounds, as above; no thread looks at the record yet.
            unsafe { worker.write(Worker { pool: this, index, handle: 0 }) };
            match sys::spawn(worker_main, worker as *mut c_void) {
                // SAFETY: the new thread reads only `pool` and `index`.
                Some(handle) => unsafe { (*worker).handle = handle },
                None => {
                    // SAFETY: the first `index - 1` workers run.
                    unsafe { Pool::stop(this, workers) };
                    return false;
                }
            }
            // SAFETY: workers do not read this field.
            unsafe { (*this).threads = index + 1 };
        }
        true
    }

    /// Ends and joins the workers.
    ///
    /// # Safety
    /// `this` and `workers` are those of [`Pool::start`], and no job runs.
    pub unsafe fn stop(this: *mut Pool, workers: *mut Worker) {
        // SAFETY: the pool is alive; only shared access while threads run.
        let pool = unsafe { &*this };
        pool.post(STOP);
        for index in 1..pool.threads {
            // SAFETY: records `0..threads - 1` were written by `start`.
            sys::join(unsafe { (*workers.add(index as usize - 1)).handle });
        }
        // SAFETY: the threads are gone.
        unsafe { (*this).threads = 1 };
    }

    fn post(&self, chunks: u32) {
        let sequence = (self.word.load(Ordering::Relaxed) as u32).wrapping_add(1);
        // Sequentially consistent with `sleepers`: either the worker sees the new word, or we see that it sleeps.
        self.word.store((chunks as u64) << 32 | sequence as u64, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            sys::futex_wake_all(self.futex());
        }
    }

    fn futex(&self) -> *const AtomicU32 {
        // The low half comes first in memory on the little-endian machines that we support.
        &raw const self.word as *const AtomicU32
    }

    fn run(&self, job: Job) {
        let chunks = (self.threads as u64).min(job.extent as u64) as u32;
        // SAFETY: no job is in flight: the last one waited for all of its workers, and others do not read this field.
        unsafe { *self.job.get() = Some(job) };
        self.finish.pending.store(chunks.wrapping_sub(1), Ordering::Relaxed);
        self.post(chunks);
        job.chunk(0, chunks);

        let finish = &self.finish;
        if self.spin(|| finish.pending.load(Ordering::Acquire) == 0) {
            return;
        }
        finish.caller_sleeps.store(1, Ordering::SeqCst);
        loop {
            let pending = finish.pending.load(Ordering::SeqCst);
            if pending == 0 {
                break;
            }
            sys::futex_wait(&finish.pending, pending);
        }
        finish.caller_sleeps.store(0, Ordering::Relaxed);
    }

    fn work(&self, index: u32) {
        let mut seen = 0u64;
        loop {
            let changed = || self.word.load(Ordering::Acquire) != seen;
            if !self.spin(changed) {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while self.word.load(Ordering::SeqCst) == seen {
                    sys::futex_wait(self.futex(), seen as u32);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            seen = self.word.load(Ordering::Acquire);
            let chunks = (seen >> 32) as u32;
            if chunks == STOP {
                return;
            }
            if index >= chunks {
                continue;
            }
            // SAFETY: this worker takes part, so the caller keeps the job unchanged until `pending` reaches zero.
            if let Some(job) = unsafe { *self.job.get() } {
                job.chunk(index, chunks);
            }
            let finish = &self.finish;
            if finish.pending.fetch_sub(1, Ordering::SeqCst) == 1 && finish.caller_sleeps.load(Ordering::SeqCst) != 0 {
                sys::futex_wake_all(&finish.pending);
            }
        }
    }

    /// Polls for the pool's spinning time; whether the condition came true. What others have of this CPU meanwhile does not count,
    /// up to [`SHARED_CYCLES`]: so threads that the system has put on one CPU stay ready to run, and it sees that it has to move
    /// one. Beside a thread that computes all the time it is better to sleep, for who wakes comes before it.
    fn spin(&self, done: impl Fn() -> bool) -> bool {
        let (mut start, mut spun, mut lost) = (clock(), 0u64, 0u64);
        loop {
            for _ in 0..16 {
                if done() {
                    return true;
                }
                spin_loop();
            }
            let now = clock();
            let burst = now.wrapping_sub(start);
            if spun.wrapping_add(burst) >= self.spin_cycles || lost >= SHARED_CYCLES {
                return false;
            }
            if spun.wrapping_add(burst) >= ALONE_CYCLES {
                spun = spun.wrapping_add(burst);
                sys::yield_cpu();
                start = clock();
                lost = lost.wrapping_add(start.wrapping_sub(now));
            }
        }
    }
}

impl Job {
    /// Does chunk `index` of `count`: the first `extent % count` chunks are one longer than the others.
    fn chunk(&self, index: u32, count: u32) {
        let (index, count) = (index as u64, count.max(1) as u64);
        let (size, longer) = (self.extent as u64 / count, self.extent as u64 % count);
        let low = index.wrapping_mul(size).wrapping_add(index.min(longer));
        let high = low.wrapping_add(size).wrapping_add((index < longer) as u64);
        // SAFETY: whoever called `lehr_rt_parallel` promised that the kernel may do any part of the extent.
        unsafe { (self.kernel)(self.args, low as i64, high as i64) };
    }
}

/// A counter of some gigahertz; only its order of magnitude matters.
fn clock() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: the virtual counter can be read in user mode on Linux.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
        // It runs at 25 MHz to 1 GHz; at 32 cycles a tick the spin is of the same order.
        ticks.wrapping_mul(32)
    }
}

extern "C" fn worker_main(argument: *mut c_void) -> *mut c_void {
    // SAFETY: the argument is the record that `Pool::start` wrote, which outlives the thread; `handle` is not read.
    unsafe {
        let worker = argument as *const Worker;
        (*(&raw const (*worker).pool).read()).work((&raw const (*worker).index).read());
    }
    core::ptr::null_mut()
}

/// Does the iterations `0..extent` of a kernel on the threads of the run, the caller's among them; returns when all are done.
///
/// # Safety
/// `ctx` is the context of the run, and `kernel` may be called with `args` for every part of `0..extent`, on several threads at once.
#[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
pub unsafe extern "C" fn lehr_rt_parallel(ctx: *const RunCtx, kernel: KernelFn, args: *const *mut u8, extent: i64) {
    if extent <= 0 {
        return;
    }
    // SAFETY: compiled code passes the context that it was given, which is valid during the run.
    let pool = unsafe { (*ctx).pool } as *const Pool;
    // SAFETY: a pool in a context is alive until the workspace is closed.
    match unsafe { pool.as_ref() } {
        Some(pool) if pool.threads > 1 && extent > 1 => pool.run(Job { kernel, args, extent }),
        // SAFETY: the caller's promise.
        _ => unsafe { kernel(args, 0, extent) },
    }
}
