//! The leaf that reads memory through: it stays inside what it is given.

use crate::harness::{Guard, Guarded, isas, load};
use lehr_codegen::x86::{LeafSpec, Touch};

#[test]
fn nothing_beyond_the_rounds_is_read() {
    for isa in isas() {
        let leaf = load(&LeafSpec::Touch(Touch).emit(isa).expect("code"));
        for (rounds, guard) in [0, 1, 7].into_iter().flat_map(|n| [(n, Guard::Before), (n, Guard::Behind)]) {
            let memory = Guarded::new(&vec![1.0; rounds * Touch::ROUND / 4], guard);
            leaf.call(&[memory.addr(), rounds as u64]);
            assert!(memory.slice().iter().all(|&x| x == 1.0));
        }
        // No rounds: the address is not read.
        leaf.call(&[8, 0]);
    }
}
