//! VGG: stages of 3x3 convolutions with a max pool after each, three dense layers. `blurpool` is VGG-11 with anti-aliased pools,
//! under the same weights. Weights are named as in torchvision.

use super::{Args, Conv, Net, Network, Pool, Setting};
use lehr_ir::Diag;

const SOURCE: &str =
    "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (2014)";
const TAPS: Setting = Setting::size("taps", 3, 1, 7, "size of the binomial filter of blurred pools");
const SETTINGS: &[Setting] = &[
    Setting::input(224),
    Setting::classes(1000),
    Setting::WIDTH,
    Setting::word("pool", &["max", "blur"], "max pooling, or the anti-aliased form"),
    TAPS,
];

pub static VGG11: Network = Network {
    name: "vgg11",
    summary: "8 convolutions of 3x3, max pooling, three dense layers",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, [1, 1, 2, 2, 2]),
};

pub static VGG13: Network = Network {
    name: "vgg13",
    summary: "10 convolutions of 3x3, max pooling, three dense layers",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, [2, 2, 2, 2, 2]),
};

pub static VGG16: Network = Network {
    name: "vgg16",
    summary: "13 convolutions of 3x3, max pooling, three dense layers",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, [2, 2, 3, 3, 3]),
};

pub static VGG19: Network = Network {
    name: "vgg19",
    summary: "16 convolutions of 3x3, max pooling, three dense layers",
    source: SOURCE,
    settings: SETTINGS,
    build: |net, args| build(net, args, [2, 2, 4, 4, 4]),
};

pub static BLURPOOL: Network = Network {
    name: "blurpool",
    summary: "vgg11 with anti-aliased max pooling: the maximum everywhere, then a binomial filter of stride 2",
    source: "Zhang, Making Convolutional Networks Shift-Invariant Again (2019)",
    settings: &[
        Setting::input(224),
        Setting::classes(1000),
        Setting::WIDTH,
        Setting::word("pool", &["blur", "max"], "the anti-aliased form, or max pooling"),
        TAPS,
    ],
    build: |net, args| build(net, args, [1, 1, 2, 2, 2]),
};

const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];

fn build(net: &mut Net, args: &Args, convolutions: [usize; 5]) -> Result<(), Diag> {
    let pool = Pool::new(2, 2);
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    // Every layer counts, as in torchvision.
    let mut names = (0..).map(|k| format!("features.{k}"));
    let mut name = || names.next().expect("numbers do not end");
    for (channels, count) in CHANNELS.into_iter().zip(convolutions) {
        for _ in 0..count {
            x = net.conv(&name(), x, Conv::new(args.channels(channels), 3).pad(1))?;
            x = net.relu(&name(), x)?;
        }
        x = match args.word("pool") {
            "blur" => net.max_blur_pool(&name(), x, pool, args.size("taps"))?,
            _ => net.max_pool(&name(), x, pool)?,
        };
    }
    x = net.flatten("flat", x)?;
    for k in [0, 3] {
        x = net.linear(&format!("classifier.{k}"), x, args.channels(4096))?;
        x = net.relu(&format!("classifier.{}", k + 1), x)?;
        x = net.dropout(&format!("classifier.{}", k + 2), x)?;
    }
    x = net.linear("classifier.6", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}
