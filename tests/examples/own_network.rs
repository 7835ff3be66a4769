//! A network of one's own: built in code, compiled in this process, and written as an ONNX model.
//!
//! ```sh
//! cargo run -p lehr-tests --example own_network
//! ```

use lehr::frontends::onnx::export;
use lehr::frontends::zoo::{BatchNorm, Built, Conv, Net, Pool, Value, Weights};
use lehr::ir::{DType, Dim, tensor};
use lehr::{CompileOptions, Runner};

/// A residual block: two convolutions, and the block's input added.
fn block(net: &mut Net, name: &str, x: Value) -> Built {
    let channels = net.size(x, 1)?;
    let mut y = x;
    for k in 1..=2 {
        y = net.conv(&format!("{name}.conv{k}"), y, Conv::new(channels, 3).pad(1).without_bias())?;
        y = net.batch_norm(&format!("{name}.bn{k}"), y, BatchNorm::default())?;
        y = net.relu(&format!("{name}.relu{k}"), y)?;
    }
    net.add(name, x, y)
}

pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut net = Net::new("ten_classes", Weights::Seeded(7));
    let mut x = net.image("image", 3, 32, 32);
    x = net.conv("stem", x, Conv::new(16, 3).pad(1))?;
    for k in 1..=2 {
        x = block(&mut net, &format!("block{k}"), x)?;
        x = net.max_pool(&format!("pool{k}"), x, Pool::new(2, 2))?;
    }
    x = net.global_avg_pool("mean", x)?;
    x = net.flatten("flat", x)?;
    x = net.linear("classes", x, 10)?;
    x = net.softmax("probabilities", x)?;
    net.output("probabilities", x);
    println!("{} parameters", net.parameters());
    let graph = net.finish();

    let model = export(&graph).map_err(|diags| diags[0].to_string())?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ten_classes.onnx");
    model.write(&mut std::fs::File::create(&path)?)?;
    println!("{} bytes of ONNX", std::fs::metadata(&path)?.len());

    // The batch is a symbol until here.
    let graph = graph.bind(&|symbol| (symbol == "batch").then_some(Dim::ONE))?;
    let mut runner = Runner::jit(graph, &CompileOptions::default(), 0)?;
    let outputs = runner.run(&[tensor::seeded(DType::F32, vec![1, 3, 32, 32], 1)])?;
    for p in outputs[0].to_f64() {
        println!("{p:.6}");
    }
    Ok(())
}
