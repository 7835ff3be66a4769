//! DenseNet-121: every layer of a block reads the outputs of all before it; transitions between blocks halve channels and
//! size. Weights are named as in torchvision.

use super::{Args, BatchNorm, Built, Conv, Net, Network, Pool, Setting, Value};
use lehr_ir::Diag;

pub static DENSENET121: Network = Network {
    name: "densenet121",
    summary: "dense blocks of bn-relu-conv layers, with transitions between them",
    source: "Huang, Liu, van der Maaten and Weinberger, Densely Connected Convolutional Networks (2016)",
    settings: &[Setting::input(224), Setting::classes(1000), Setting::WIDTH],
    build,
};

/// Layers of each block.
const BLOCKS: [usize; 4] = [6, 12, 24, 16];
/// Channels that each layer adds, times the width.
const GROWTH: usize = 32;

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let growth = args.channels(GROWTH);
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    x = net.conv("features.conv0", x, Conv::new(2 * growth, 7).stride(2).pad(3).without_bias())?;
    x = norm_relu(net, "features.norm0", "features.relu0", x)?;
    x = net.max_pool("features.pool0", x, Pool::new(3, 2).pad(1))?;
    for (b, layers) in BLOCKS.into_iter().enumerate() {
        let block = format!("features.denseblock{}", b + 1);
        for k in 1..=layers {
            let part = |what: &str| format!("{block}.denselayer{k}.{what}");
            let mut y = norm_relu(net, &part("norm1"), &part("relu1"), x)?;
            y = net.conv(&part("conv1"), y, Conv::new(4 * growth, 1).without_bias())?;
            y = norm_relu(net, &part("norm2"), &part("relu2"), y)?;
            y = net.conv(&part("conv2"), y, Conv::new(growth, 3).pad(1).without_bias())?;
            x = net.concat(&part("concat"), &[x, y])?;
        }
        if b + 1 < BLOCKS.len() {
            let part = |what: &str| format!("features.transition{}.{what}", b + 1);
            x = norm_relu(net, &part("norm"), &part("relu"), x)?;
            let half = (net.size(x, 1)? / 2).max(1);
            x = net.conv(&part("conv"), x, Conv::new(half, 1).without_bias())?;
            x = net.avg_pool(&part("pool"), x, Pool::new(2, 2))?;
        }
    }
    x = norm_relu(net, "features.norm5", "features.relu5", x)?;
    x = net.global_avg_pool("avgpool", x)?;
    x = net.flatten("flat", x)?;
    x = net.linear("classifier", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}

fn norm_relu(net: &mut Net, norm: &str, relu: &str, x: Value) -> Built {
    let x = net.batch_norm(norm, x, BatchNorm::default())?;
    net.relu(relu, x)
}
