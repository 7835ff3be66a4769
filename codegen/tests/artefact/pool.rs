//! The thread pool: whatever the extents and the number of threads, every iteration is done exactly once before the call returns.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lehr_codegen::artefact::*;
use lehr_codegen::runtime::abi::{RunCtx, dtype};
use lehr_codegen::runtime::pool::lehr_rt_parallel;
use proptest::prelude::*;

const REGIONS: usize = 6;
const SLOTS: usize = 40;

/// `main` written in Rust: one parallel region after the other, with the extents of the input, counting in the output.
extern "C" fn count(ctx: *const RunCtx) {
    // SAFETY: the runtime checked the tensors against the image below.
    let (extents, counts) = unsafe {
        let extents = std::slice::from_raw_parts((*(*ctx).inputs).cast::<i64>(), REGIONS);
        let counts = (*(*ctx).outputs).cast::<AtomicU32>();
        (extents, counts)
    };
    for (region, &extent) in extents.iter().enumerate() {
        // SAFETY: every region has its own slots.
        let args = [unsafe { counts.add(region * SLOTS) }.cast::<u8>()];
        // SAFETY: the kernel takes one pointer to `SLOTS` counters, and extents are at most that.
        unsafe { lehr_rt_parallel(ctx, add_one, args.as_ptr(), extent) };
        // SAFETY: as above. All of this region is done, and nothing beyond its extent.
        let done: u32 =
            (0..SLOTS).map(|slot| unsafe { (*counts.add(region * SLOTS + slot)).load(Ordering::Relaxed) }).sum();
        assert_eq!(done as i64, extent.max(0));
    }
}

extern "C" fn add_one(args: *const *mut u8, lo: i64, hi: i64) {
    for index in lo..hi {
        // SAFETY: `args` is the array above, and `index` is below the extent.
        unsafe { (*(*args).cast::<AtomicU32>().add(index as usize)).fetch_add(1, Ordering::Relaxed) };
    }
}

fn counting() -> Artefact {
    let io = |name: &str, dtype, dims: Vec<i64>, bytes| IoSpec { name: name.into(), dtype, dims, bytes: bytes as u64 };
    let image = ModelImage {
        name: "counting".into(),
        inputs: vec![io("extents", dtype::I64, vec![REGIONS as i64], 8 * REGIONS)],
        outputs: vec![io("counts", dtype::U32, vec![REGIONS as i64, SLOTS as i64], 4 * REGIONS * SLOTS)],
        ..ModelImage::default()
    };
    Artefact::from_jit(image, count, Box::new(())).unwrap()
}

fn counts(session: &mut Session, extents: &[i64; REGIONS]) -> Vec<u32> {
    let mut counts = vec![0u32; REGIONS * SLOTS];
    // SAFETY: integers seen as bytes.
    let (input, output) = unsafe {
        let output = std::slice::from_raw_parts_mut(counts.as_mut_ptr().cast::<u8>(), 4 * REGIONS * SLOTS);
        (std::slice::from_raw_parts(extents.as_ptr().cast::<u8>(), 8 * REGIONS), output)
    };
    let input = TensorRef { dtype: dtype::I64, dims: &[REGIONS as i64], data: input };
    let output = TensorMut { dtype: dtype::U32, dims: &[REGIONS as i64, SLOTS as i64], data: output };
    session.run(&[input], &mut [output]).unwrap();
    counts
}

fn check(session: &mut Session, extents: &[i64; REGIONS]) {
    let counts = counts(session, extents);
    for (region, &extent) in extents.iter().enumerate() {
        for slot in 0..SLOTS {
            assert_eq!(counts[region * SLOTS + slot], ((slot as i64) < extent) as u32, "{extents:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_iteration_is_done_once(
        threads in 1u32..9,
        runs in prop::collection::vec(prop::array::uniform6(-1i64..=SLOTS as i64), 1..40),
        pause in any::<bool>(),
    ) {
        let mut session = Session::new(&counting(), threads).unwrap();
        for extents in &runs {
            check(&mut session, extents);
        }
        if pause {
            // Long enough for the workers to fall asleep.
            std::thread::sleep(std::time::Duration::from_millis(2));
            check(&mut session, &runs[0]);
        }
    }
}

#[test]
fn many_regions_in_a_row() {
    let mut session = Session::new(&counting(), 2).unwrap();
    for round in 0..20_000 {
        check(&mut session, &[2, 1, 40, round % 41, 0, 3]);
    }
}

/// Sessions of one model are opened and closed while others run.
#[test]
fn sessions_come_and_go() {
    let (artefact, done) = (counting(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (artefact, done) = (&artefact, &done);
            scope.spawn(move || {
                for round in 0..100 {
                    let mut session = Session::new(artefact, 1 + (worker + round) % 4).unwrap();
                    check(&mut session, &[40, 3, 2, 17, 39, 40]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 400);
}
