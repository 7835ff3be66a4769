//! The library from Rust: a network compiled in this process, and the same one written to a library and loaded.
//!
//! ```sh
//! cargo run -p lehr-tests --example facade
//! ```

use lehr::ir::{DType, Tensor};
use lehr::{CompileOptions, LoadOptions, Runner, compile_so, load};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes = LoadOptions { dims: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let model = load("zoo:lenet5", &sizes)?;
    let options = CompileOptions::default();

    let image = (0..28 * 28).map(|i| f64::from(i % 29) / 28.0 - 0.5);
    let image = Tensor::from_f64(DType::F32, vec![1, 1, 28, 28], image);
    let mut jit = Runner::jit(model.graph.clone(), &options, 0)?;
    let here = jit.run(std::slice::from_ref(&image))?;

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("lenet5.so");
    compile_so(model.graph, &options, &path)?;
    let mut library = Runner::open(&path, 1)?;
    let there = library.run(&[image])?;

    assert_eq!(here, there, "one compiler, one result");
    for p in here[0].to_f64() {
        println!("{p:.6}");
    }
    Ok(())
}
