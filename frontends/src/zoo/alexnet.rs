//! AlexNet in two forms. `two-groups` is the paper's: two halves of the channels that lived on two GPUs, as grouped
//! convolutions, and local response normalisation before pooling. `single` is the one-tower form of Krizhevsky's "One Weird Trick
//! for Parallelizing Convolutional Neural Networks" (2014), which torchvision has: fewer channels, no normalisation.

use super::{Args, Conv, Net, Network, Pool, Setting};
use lehr_ir::{Diag, ops};

pub static ALEXNET: Network = Network {
    name: "alexnet",
    summary: "five convolutions with LRN and max pooling, three dense layers with dropout",
    source: "Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks (2012)",
    settings: &[
        Setting::input(227),
        Setting::classes(1000),
        Setting::WIDTH,
        Setting::word(
            "form",
            &["two-groups", "single"],
            "the paper's two groups with LRN, or torchvision's (input=224)",
        ),
    ],
    build,
};

/// Channels, kernel, stride, padding, groups; and whether pooling follows.
type Layer = (usize, usize, usize, usize, usize, bool);

const TWO_GROUPS: [Layer; 5] = [
    (96, 11, 4, 0, 1, true),
    (256, 5, 1, 2, 2, true),
    (384, 3, 1, 1, 1, false),
    (384, 3, 1, 1, 2, false),
    (256, 3, 1, 1, 2, true),
];
const SINGLE: [Layer; 5] = [
    (64, 11, 4, 2, 1, true),
    (192, 5, 1, 2, 1, true),
    (384, 3, 1, 1, 1, false),
    (256, 3, 1, 1, 1, false),
    (256, 3, 1, 1, 1, true),
];

/// The paper's k = 2, n = 5, alpha = 1e-4, beta = 0.75; ONNX divides alpha by n.
const LRN: ops::Lrn = ops::Lrn { size: 5, alpha: 5e-4, beta: 0.75, bias: 2.0 };

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let two_groups = args.word("form") == "two-groups";
    let layers = if two_groups { TWO_GROUPS } else { SINGLE };
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    // Every layer counts, as in torchvision.
    let mut names = (0..).map(|k| format!("features.{k}"));
    let mut name = || names.next().expect("numbers do not end");
    for (i, (channels, kernel, stride, pad, groups, pooled)) in layers.into_iter().enumerate() {
        // Both halves keep the same number of channels at any width.
        let channels = 2 * args.channels(channels / 2);
        let conv = Conv::new(channels, kernel).stride(stride).pad(pad).groups(groups);
        x = net.conv(&name(), x, conv)?;
        x = net.relu(&name(), x)?;
        if two_groups && i < 2 {
            x = net.lrn(&name(), x, LRN)?;
        }
        if pooled {
            x = net.max_pool(&name(), x, Pool::new(3, 2))?;
        }
    }
    x = net.flatten("flat", x)?;
    for k in [0, 3] {
        x = net.dropout(&format!("classifier.{k}"), x)?;
        x = net.linear(&format!("classifier.{}", k + 1), x, args.channels(4096))?;
        x = net.relu(&format!("classifier.{}", k + 2), x)?;
    }
    x = net.linear("classifier.6", x, args.size("classes"))?;
    net.output("logits", x);
    Ok(())
}
