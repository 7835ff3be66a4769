//! Mutated `.npy` files and ONNX tensors: an error or a tensor, never a panic, nor memory out of proportion to the file.

mod common;
mod mutate;

use lehr_frontends::{npy, tensor_file};
use lehr_ir::{DType, Tensor, tensor};
use mutate::{Dice, peak_kib};

const CASES: u64 = 20_000;
/// Memory of the whole test process.
const MEMORY_KIB: u64 = 256 << 10;

/// Pieces of text and varints at which readers go wrong.
const PIECES: &[&[u8]] = &[
    b"'shape': (9999999999, 9999999999)",
    b"'shape': (-1,)",
    b"'shape': (0, 4294967296)",
    b"'shape': ()",
    b"'fortran_order': True",
    b"'descr': '|V2'",
    b"'descr': '>f4'",
    b"(((",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xc3",
];

fn seeds() -> Vec<Tensor> {
    let of = |&dtype| [vec![], vec![0, 3], vec![2, 3], vec![5]].map(|shape| tensor::seeded(dtype, shape, 3));
    DType::ALL.iter().filter(|d| d.is_computable()).flat_map(of).collect()
}

#[test]
fn mutated_tensor_files_are_refused_or_read() {
    let (seeds, mut read) = (seeds(), [0, 0]);
    for case in 0..CASES {
        let dice = &mut Dice(case);
        let tensor = &seeds[dice.below(seeds.len())];
        let numpy = dice.below(2) == 0;
        let mut bytes = if numpy { npy::encode(tensor) } else { tensor_file::encode("x", tensor) };
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
                2 => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
                _ => {
                    let piece = PIECES[dice.below(PIECES.len())];
                    let to = (at + piece.len()).min(bytes.len());
                    bytes.splice(at..to, piece.iter().copied());
                }
            }
        }
        let result = if numpy { npy::parse(bytes.into()) } else { tensor_file::decode(bytes.into()).map(|(_, t)| t) };
        match result {
            Ok(tensor) => {
                read[usize::from(numpy)] += 1;
                assert_eq!(tensor.len() * tensor.dtype().size(), tensor.bytes().len(), "case {case}");
            }
            Err(why) => assert!(!why.is_empty(), "case {case}"),
        }
    }
    assert!(read.iter().all(|&n| n > CASES / 50), "mutations leave some readable: {read:?}");
    let peak = peak_kib();
    assert!(peak < MEMORY_KIB, "the process took {peak} KiB");
}
