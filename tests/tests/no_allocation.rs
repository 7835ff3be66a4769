//! A warm run allocates nothing, on any thread: neither the caller's nor the workers'. In a program of its own, because
//! the allocator counts for the whole process.

use lehr::codegen::artefact::{TensorMut, TensorRef};
use lehr::ir::{DType, tensor};
use lehr::{CompileOptions, LoadOptions, Runner, load};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_run_allocates_nothing() {
    let options = LoadOptions { dims: vec![("batch".into(), 4)], ..LoadOptions::default() };
    let graph = load("zoo:lenet5", &options).unwrap().graph;
    let x = tensor::seeded(DType::F32, vec![4, 1, 28, 28], 3);
    let input: Vec<u64> = x.bytes().chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect();
    for threads in [1, 2] {
        let jit = Runner::jit(graph.clone(), &CompileOptions::default(), threads).unwrap();
        let so = Runner::so(graph.clone(), &CompileOptions::default(), threads).unwrap();
        for mut runner in [jit, so] {
            let session = runner.session().unwrap();
            let (ins, outs) = (session.artefact().inputs().to_vec(), session.artefact().outputs().to_vec());
            let mut output = vec![0u64; (outs[0].bytes as usize).div_ceil(8)];
            let mut run = || {
                // SAFETY: plain bytes of live vectors, the output's exclusively.
                let (data, result) = unsafe {
                    let result = std::slice::from_raw_parts_mut(output.as_mut_ptr().cast(), outs[0].bytes as usize);
                    (std::slice::from_raw_parts(input.as_ptr().cast(), ins[0].bytes as usize), result)
                };
                let input = TensorRef { dtype: ins[0].dtype, dims: &ins[0].dims, data };
                let output = TensorMut { dtype: outs[0].dtype, dims: &outs[0].dims, data: result };
                session.run(&[input], &mut [output]).unwrap();
            };
            run();
            let before = ALLOCATIONS.load(Relaxed);
            (0..50).for_each(|_| run());
            assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "with {threads} threads");
            assert!(output.iter().any(|&w| w != 0));
        }
    }
}
