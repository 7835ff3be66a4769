//! GoogLeNet without its auxiliary heads: nine inception modules. `inception_v1` has the modules of the paper, in which 1x1
//! convolutions reduce the channels before the 3x3 and 5x5 ones and after the pool. `inception_naive` has those of the paper's
//! figure 2(a), without the reductions: the pool hands all channels on, and the network swells to what the paper warns of.
//!
//! `form=torchvision` is torchvision's GoogLeNet: batch normalisation instead of biases, and 3x3 kernels where the paper has
//! 5x5 (a slip that its checkpoints keep).

use super::{Args, BatchNorm, Built, Conv, Net, Network, Pool, Setting, Value};
use lehr_ir::{Diag, ops};

const SOURCE: &str = "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich, Going Deeper with Convolutions (2014)";

pub static V1: Network = Network {
    name: "inception_v1",
    summary: "GoogLeNet: inception modules with 1x1 reductions",
    source: SOURCE,
    settings: &[
        Setting::input(224),
        Setting::classes(1000),
        Setting::WIDTH,
        Setting::word(
            "form",
            &["paper", "torchvision"],
            "with LRN and 5x5 kernels, or with batch normalisation and 3x3",
        ),
    ],
    build: |net, args| {
        let form = if args.word("form") == "torchvision" { Form::Torchvision } else { Form::Paper };
        build(net, args, form)
    },
};

pub static NAIVE: Network = Network {
    name: "inception_naive",
    summary: "GoogLeNet with naive inception modules: 1x1, 3x3, 5x5 and pool side by side, no reductions",
    source: SOURCE,
    settings: &[Setting::input(224), Setting::classes(1000), Setting::WIDTH],
    build: |net, args| build(net, args, Form::Naive),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Paper,
    Naive,
    Torchvision,
}

/// Channels of a module's branches: 1x1; before and of 3x3; before and of 5x5; after the pool. Table 1 of the paper.
struct Module {
    name: &'static str,
    one: usize,
    three: [usize; 2],
    five: [usize; 2],
    pool: usize,
}

const fn module(name: &'static str, one: usize, three: [usize; 2], five: [usize; 2], pool: usize) -> Module {
    Module { name, one, three, five, pool }
}

#[rustfmt::skip]
const MODULES: [Module; 9] = [
    //      name            1x1    3x3         5x5       pool
    module("inception3a",    64, [ 96, 128], [16,  32],  32),
    module("inception3b",   128, [128, 192], [32,  96],  64),
    module("inception4a",   192, [ 96, 208], [16,  48],  64),
    module("inception4b",   160, [112, 224], [24,  64],  64),
    module("inception4c",   128, [128, 256], [24,  64],  64),
    module("inception4d",   112, [144, 288], [32,  64],  64),
    module("inception4e",   256, [160, 320], [32, 128], 128),
    module("inception5a",   256, [160, 320], [32, 128], 128),
    module("inception5b",   384, [192, 384], [48, 128], 128),
];

/// The paper's layers 1 to 3 normalise as AlexNet does; its k = 1 there.
const LRN: ops::Lrn = ops::Lrn { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 };

fn build(net: &mut Net, args: &Args, form: Form) -> Result<(), Diag> {
    let lrn = form != Form::Torchvision;
    let pool = Pool::new(3, 2).ceil();
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    x = conv(net, "conv1", x, Conv::new(args.channels(64), 7).stride(2).pad(3), form)?;
    x = net.max_pool("maxpool1", x, pool)?;
    if lrn {
        x = net.lrn("norm1", x, LRN)?;
    }
    x = conv(net, "conv2", x, Conv::new(args.channels(64), 1), form)?;
    x = conv(net, "conv3", x, Conv::new(args.channels(192), 3).pad(1), form)?;
    if lrn {
        x = net.lrn("norm2", x, LRN)?;
    }
    x = net.max_pool("maxpool2", x, pool)?;
    for m in &MODULES {
        match m.name {
            "inception4a" => x = net.max_pool("maxpool3", x, pool)?,
            // torchvision's last pool has a window of two.
            "inception5a" if form == Form::Torchvision => x = net.max_pool("maxpool4", x, Pool::new(2, 2).ceil())?,
            "inception5a" => x = net.max_pool("maxpool4", x, pool)?,
            _ => {}
        }
        x = inception(net, args, x, m, form)?;
    }
    x = net.global_avg_pool("avgpool", x)?;
    x = net.flatten("flat", x)?;
    x = net.dropout("dropout", x)?;
    x = net.linear("fc", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}

fn inception(net: &mut Net, args: &Args, x: Value, m: &Module, form: Form) -> Built {
    let part = |what: &str| format!("{}.{what}", m.name);
    let one = |channels: usize| Conv::new(args.channels(channels), 1);
    let three = Conv::new(args.channels(m.three[1]), 3).pad(1);
    let five = match form {
        Form::Torchvision => Conv::new(args.channels(m.five[1]), 3).pad(1),
        Form::Paper | Form::Naive => Conv::new(args.channels(m.five[1]), 5).pad(2),
    };
    let pooled = |net: &mut Net| net.max_pool(&part("branch4.0"), x, Pool::new(3, 1).pad(1));
    let branches = if form == Form::Naive {
        [
            conv(net, &part("branch1"), x, one(m.one), form)?,
            conv(net, &part("branch2"), x, three, form)?,
            conv(net, &part("branch3"), x, five, form)?,
            pooled(net)?,
        ]
    } else {
        let a = conv(net, &part("branch1"), x, one(m.one), form)?;
        let b = conv(net, &part("branch2.0"), x, one(m.three[0]), form)?;
        let b = conv(net, &part("branch2.1"), b, three, form)?;
        let c = conv(net, &part("branch3.0"), x, one(m.five[0]), form)?;
        let c = conv(net, &part("branch3.1"), c, five, form)?;
        let d = pooled(net)?;
        let d = conv(net, &part("branch4.1"), d, one(m.pool), form)?;
        [a, b, c, d]
    };
    net.concat(m.name, &branches)
}

/// A convolution and a ReLU; torchvision's has batch normalisation between them.
fn conv(net: &mut Net, name: &str, x: Value, conv: Conv, form: Form) -> Built {
    let mut y = match form {
        Form::Torchvision => net.conv(&format!("{name}.conv"), x, conv.without_bias())?,
        Form::Paper | Form::Naive => net.conv(&format!("{name}.conv"), x, conv)?,
    };
    if form == Form::Torchvision {
        y = net.batch_norm(&format!("{name}.bn"), y, BatchNorm { eps: 1e-3, gain: 1.0 })?;
    }
    net.relu(&format!("{name}.relu"), y)
}
