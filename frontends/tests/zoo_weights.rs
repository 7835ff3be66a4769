//! Weights of zoo networks from files: by name, in any float type, and never from a file that does not fit.

use lehr_frontends::npy;
use lehr_frontends::zoo::{Net, Spec};
use lehr_ir::{DType, Op, Tensor, tensor};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::io::Write;
use std::path::Path;
use zip::write::{SimpleFileOptions, ZipWriter};

const SPEC: &str = "mlp?inputs=3,units=4,outputs=2";

type Named = Vec<(&'static str, Tensor)>;

/// The network's weights, other than those that it starts with.
fn weights() -> Named {
    let shapes: [(&str, &[usize]); 4] =
        [("hidden.weight", &[4, 3]), ("hidden.bias", &[4]), ("output.weight", &[2, 4]), ("output.bias", &[2])];
    shapes
        .into_iter()
        .zip(50..)
        .map(|((name, shape), seed)| (name, tensor::seeded(DType::F32, shape.to_vec(), seed)))
        .collect()
}

fn save_npz(path: &Path, weights: &[(&str, Tensor)]) {
    let mut zip = ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, tensor) in weights {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(&npy::encode(tensor)).unwrap();
    }
    zip.finish().unwrap();
}

fn save_safetensors(path: &Path, weights: &[(&str, Tensor)]) {
    let dtype = |t: &Tensor| match t.dtype() {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::I64,
    };
    let views =
        weights.iter().map(|(name, t)| (*name, TensorView::new(dtype(t), t.shape().to_vec(), t.bytes()).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn save(path: &Path, weights: &[(&str, Tensor)]) {
    match path.extension().unwrap().to_str() {
        Some("npz") => save_npz(path, weights),
        _ => save_safetensors(path, weights),
    }
}

fn build(path: &Path) -> Result<Net, String> {
    let spec = Spec::parse(&format!("{SPEC},weights={}", path.display())).unwrap();
    spec.build().map_err(|d| d.to_string())
}

/// The constants of the network, in the order in which it asks for them.
fn constants(net: Net) -> Vec<Tensor> {
    let graph = net.finish();
    graph
        .ids()
        .filter(|&id| matches!(graph.node(id).op, Op::Const(_)))
        .map(|id| graph.constant(id.out(0)).unwrap().tensor())
        .collect()
}

#[test]
fn weights_come_by_name_from_both_formats_and_all_float_types() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["w.npz", "w.safetensors"] {
        let path = dir.path().join(file);
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let cast = |t: &Tensor, to| Tensor::from_f64(to, t.shape().to_vec(), t.to_f64());
            let mut stored: Vec<_> = weights().into_iter().map(|(name, t)| (name, cast(&t, dtype))).collect();
            // The order in the file means nothing.
            stored.reverse();
            save(&path, &stored);
            let net = build(&path).unwrap();
            assert_eq!(net.unused_weights(), [""; 0]);
            let expected: Vec<Tensor> = stored.iter().rev().map(|(_, t)| cast(t, DType::F32)).collect();
            assert_eq!(constants(net), expected, "{file} {dtype}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["w.npz", "w.safetensors"] {
        let path = dir.path().join(file);
        let complaint = |change: &dyn Fn(&mut Named)| {
            let mut all = weights();
            change(&mut all);
            save(&path, &all);
            build(&path).unwrap_err()
        };
        let missing = complaint(&|w| w[2].0 = "outptu.weight");
        assert!(missing.contains("no weight output.weight [2, 4]") && missing.contains("outptu.weight"), "{missing}");
        let shape = complaint(&|w| w[0].1 = tensor::seeded(DType::F32, vec![3, 4], 1));
        assert!(shape.contains("hidden.weight: its shape is [3, 4], the network needs [4, 3]"), "{shape}");
        let dtype = complaint(&|w| w[3].1 = Tensor::i64s(&[1, 2]));
        assert!(dtype.contains("output.bias") && dtype.contains("f64, f32, f16 and bf16 will do"), "{dtype}");
        let mut more = weights();
        more.push(("head.weight", Tensor::i64s(&[1])));
        more.push(("bn.num_batches_tracked", Tensor::i64s(&[1])));
        save(&path, &more);
        assert_eq!(build(&path).unwrap().unused_weights(), ["head.weight"]);
    }
}

#[test]
fn a_member_that_expands_to_gigabytes_is_not_expanded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.npz");
    let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("hidden.weight.npy", options).unwrap();
    let head = npy::encode(&tensor::seeded(DType::F32, vec![4, 3], 1));
    zip.write_all(&head).unwrap();
    // 64 MiB of zeros in 64 KB: read whole, they would be kept.
    (0..64).for_each(|_| zip.write_all(&vec![0; 1 << 20]).unwrap());
    zip.finish().unwrap();
    // The first weight is read up to what it needs; the next one is missing.
    assert!(build(&path).unwrap_err().contains("no weight hidden.bias"));
}

#[test]
fn damaged_files_give_errors() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["w.npz", "w.safetensors"] {
        let path = dir.path().join(file);
        save(&path, &weights());
        let whole = std::fs::read(&path).unwrap();
        for n in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..n]).unwrap();
            assert!(build(&path).is_err(), "{file}: {n} of {} bytes", whole.len());
        }
        // Any byte changed: an error or a network, never a panic.
        let mut read = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            read += usize::from(build(&path).is_ok());
        }
        assert!(read > 0, "{file}: elements may be anything");
    }
}
