//! MobileNet (version 1): depthwise separable convolutions, a 3x3 one in each channel alone and a 1x1 one over the channels.

use super::{Args, BatchNorm, Built, Conv, Net, Network, Setting, Value};
use lehr_ir::Diag;

pub static MOBILENET: Network = Network {
    name: "mobilenet",
    summary: "depthwise separable convolutions: 3x3 in each channel, then 1x1 over them",
    source: "Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications (2017)",
    settings: &[Setting::input(224), Setting::classes(1000), Setting::WIDTH],
    build,
};

/// Output channels and stride of each separable convolution.
const LAYERS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    x = conv_norm_relu(net, "conv0", x, Conv::new(args.channels(32), 3).stride(2).pad(1))?;
    for (k, (channels, stride)) in LAYERS.into_iter().enumerate() {
        let inputs = net.size(x, 1)?;
        let depthwise = Conv::new(inputs, 3).stride(stride).pad(1).groups(inputs);
        x = conv_norm_relu(net, &format!("layers.{k}.depthwise"), x, depthwise)?;
        x = conv_norm_relu(net, &format!("layers.{k}.pointwise"), x, Conv::new(args.channels(channels), 1))?;
    }
    x = net.global_avg_pool("avgpool", x)?;
    x = net.flatten("flat", x)?;
    x = net.linear("fc", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}

fn conv_norm_relu(net: &mut Net, name: &str, x: Value, conv: Conv) -> Built {
    let x = net.conv(&format!("{name}.conv"), x, conv.without_bias())?;
    let x = net.batch_norm(&format!("{name}.bn"), x, BatchNorm::default())?;
    net.relu(&format!("{name}.relu"), x)
}
