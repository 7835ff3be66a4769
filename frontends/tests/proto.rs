//! The committed bindings are what the schema gives. After changing `proto/onnx.proto`, run this test with
//! `LEHR_BLESS=1` to write them anew.

use std::path::Path;

/// Fields of AttributeProto that hold a whole message. Inline they would make each of a model's attributes as
/// large as a graph, and a file of empty attributes 800 times its own size.
const BOXED: &[&str] = &["t", "g", "tp", "sparse_tensor"];

#[test]
fn bindings_are_those_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/onnx/proto.rs");
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile([root.join("proto/onnx.proto")], [root.join("proto")]).unwrap();
    let mut config = prost_build::Config::new();
    config.bytes(["."]).out_dir(out.path()).format(true);
    for field in BOXED {
        config.boxed(format!(".onnx.AttributeProto.{field}"));
    }
    config.compile_fds(files).unwrap();
    let generated = std::fs::read_to_string(out.path().join("onnx.rs")).unwrap();
    if std::env::var_os("LEHR_BLESS").is_some() {
        std::fs::write(&committed, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&committed).unwrap();
    assert!(committed == generated, "src/onnx/proto.rs is stale: run this test with LEHR_BLESS=1");
}
