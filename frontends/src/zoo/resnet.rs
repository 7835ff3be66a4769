//! ResNet: residual blocks, `relu(f(x) + x)`. Also SE-ResNet-50 (`senet`), whose blocks weigh the channels of `f(x)`: a global
//! average (squeeze), a small dense bottleneck and a sigmoid (excite). Weights are named as in torchvision.

use super::{Args, BatchNorm, Built, Conv, Net, Network, Pool, Setting, Value};
use lehr_ir::Diag;
use lehr_ir::ops::UnaryFn;

const SOURCE: &str = "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition (2015)";
const SETTINGS: &[Setting] = &[
    Setting::input(224),
    Setting::classes(1000),
    Setting::WIDTH,
    Setting::word("pool", &["max", "blur"], "the stem's pool: max, or its anti-aliased form"),
];

pub static RESNET18: Network = Network {
    name: "resnet18",
    summary: "residual blocks of two 3x3 convolutions",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, &Shape { block: Block::Basic, counts: [2, 2, 2, 2], squeeze: None }),
};

pub static RESNET50: Network = Network {
    name: "resnet50",
    summary: "residual bottlenecks: 1x1, 3x3 and 1x1 convolutions",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, &Shape { block: Block::Bottleneck, counts: [3, 4, 6, 3], squeeze: None }),
};

pub static SENET: Network = Network {
    name: "senet",
    summary: "resnet50 with squeeze and excitation: channels re-weighted by a bottleneck of their global averages",
    source: "Hu, Shen, Albanie, Sun and Wu, Squeeze-and-Excitation Networks (2017)",
    settings: &[
        Setting::input(224),
        Setting::classes(1000),
        Setting::WIDTH,
        Setting::word("pool", &["max", "blur"], "the stem's pool: max, or its anti-aliased form"),
        Setting::size("reduction", 16, 1, 1024, "channels to units of the bottleneck"),
    ],
    build: |net, args| {
        let squeeze = Some(args.size("reduction"));
        build(net, args, &Shape { block: Block::Bottleneck, counts: [3, 4, 6, 3], squeeze })
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Basic,
    /// With four times the channels at its end.
    Bottleneck,
}

struct Shape {
    block: Block,
    /// Blocks in each stage.
    counts: [usize; 4],
    /// The reduction of squeeze and excitation, if there is one.
    squeeze: Option<usize>,
}

/// The sum of a block and its shortcut would double the variance at every block; a small last scale keeps it in bounds.
const LAST: BatchNorm = BatchNorm { eps: 1e-5, gain: 0.25 };

fn build(net: &mut Net, args: &Args, shape: &Shape) -> Result<(), Diag> {
    let norm = BatchNorm::default();
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    x = net.conv("conv1", x, Conv::new(args.channels(64), 7).stride(2).pad(3).without_bias())?;
    x = net.batch_norm("bn1", x, norm)?;
    x = net.relu("relu", x)?;
    let pool = Pool::new(3, 2).pad(1);
    x = match args.word("pool") {
        "blur" => net.max_blur_pool("maxpool", x, pool, 3)?,
        _ => net.max_pool("maxpool", x, pool)?,
    };
    for (stage, count) in shape.counts.into_iter().enumerate() {
        let channels = args.channels(64 << stage);
        for k in 0..count {
            // The first stage follows a pool and does not subsample.
            let stride = if k == 0 && stage > 0 { 2 } else { 1 };
            let name = format!("layer{}.{k}", stage + 1);
            x = block(net, &name, x, channels, stride, shape)?;
        }
    }
    x = net.global_avg_pool("avgpool", x)?;
    x = net.flatten("flat", x)?;
    x = net.linear("fc", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}

fn block(net: &mut Net, name: &str, x: Value, channels: usize, stride: usize, shape: &Shape) -> Built {
    let part = |what: &str| format!("{name}.{what}");
    let norm = BatchNorm::default();
    let (first, last) = match shape.block {
        Block::Basic => (Conv::new(channels, 3).stride(stride).pad(1), channels),
        Block::Bottleneck => (Conv::new(channels, 1), 4 * channels),
    };
    let mut y = net.conv(&part("conv1"), x, first.without_bias())?;
    y = net.batch_norm(&part("bn1"), y, norm)?;
    y = net.relu(&part("relu1"), y)?;
    match shape.block {
        Block::Basic => {
            y = net.conv(&part("conv2"), y, Conv::new(last, 3).pad(1).without_bias())?;
            y = net.batch_norm(&part("bn2"), y, LAST)?;
        }
        Block::Bottleneck => {
            y = net.conv(&part("conv2"), y, Conv::new(channels, 3).stride(stride).pad(1).without_bias())?;
            y = net.batch_norm(&part("bn2"), y, norm)?;
            y = net.relu(&part("relu2"), y)?;
            y = net.conv(&part("conv3"), y, Conv::new(last, 1).without_bias())?;
            y = net.batch_norm(&part("bn3"), y, LAST)?;
        }
    }
    if let Some(reduction) = shape.squeeze {
        y = squeeze_and_excite(net, &part("se"), y, reduction)?;
    }
    let mut shortcut = x;
    if stride != 1 || net.size(x, 1)? != last {
        shortcut = net.conv(&part("downsample.0"), x, Conv::new(last, 1).stride(stride).without_bias())?;
        shortcut = net.batch_norm(&part("downsample.1"), shortcut, norm)?;
    }
    let sum = net.add(&part("add"), y, shortcut)?;
    net.relu(&part("relu"), sum)
}

/// `x * sigmoid(fc2(relu(fc1(mean of x over space))))`, per channel.
fn squeeze_and_excite(net: &mut Net, name: &str, x: Value, reduction: usize) -> Built {
    let part = |what: &str| format!("{name}.{what}");
    let channels = net.size(x, 1)?;
    let mut s = net.global_avg_pool(&part("squeeze"), x)?;
    s = net.conv(&part("fc1"), s, Conv::new((channels / reduction).max(1), 1))?;
    s = net.relu(&part("relu"), s)?;
    s = net.conv(&part("fc2"), s, Conv::new(channels, 1))?;
    s = net.activation(&part("excite"), s, UnaryFn::Sigmoid)?;
    net.mul(&part("scale"), x, s)
}
