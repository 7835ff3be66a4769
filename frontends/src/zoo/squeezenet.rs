//! SqueezeNet: fire modules, in which a 1x1 convolution squeezes the channels for a 1x1 and a 3x3 one that expand them side by side.
//! Weights are named as in torchvision.

use super::{Args, Built, Conv, Net, Network, Pool, Setting, Value};
use lehr_ir::Diag;

pub static SQUEEZENET: Network = Network {
    name: "squeezenet",
    summary: "fire modules: squeeze by 1x1, expand by 1x1 and 3x3; no dense layer",
    source: "Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, SqueezeNet: AlexNet-level Accuracy with 50x Fewer Parameters (2016)",
    settings: &[
        Setting::input(224),
        Setting::classes(1000),
        Setting::WIDTH,
        Setting::word("version", &["1.1", "1.0"], "1.1 pools earlier: 2.4 times less arithmetic"),
    ],
    build,
};

/// Channels of the squeezed and of each expanded part of the eight modules.
const FIRES: [(usize, usize); 8] =
    [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)];

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    // The stem, and the modules before which a pool stands.
    let (stem, pools) = match args.word("version") {
        "1.1" => (Conv::new(args.channels(64), 3).stride(2), [0, 2, 4]),
        _ => (Conv::new(args.channels(96), 7).stride(2), [0, 3, 7]),
    };
    let mut x = net.image("image", 3, args.size("input"), args.size("input"));
    // Every layer counts, as in torchvision.
    let mut names = (0..).map(|k| format!("features.{k}"));
    let mut name = || names.next().expect("numbers do not end");
    x = net.conv(&name(), x, stem)?;
    x = net.relu(&name(), x)?;
    for (k, (squeezed, expanded)) in FIRES.into_iter().enumerate() {
        if pools.contains(&k) {
            x = net.max_pool(&name(), x, Pool::new(3, 2).ceil())?;
        }
        x = fire(net, &name(), x, args.channels(squeezed), args.channels(expanded))?;
    }
    x = net.dropout("classifier.0", x)?;
    x = net.conv("classifier.1", x, Conv::new(args.size("classes"), 1))?;
    x = net.relu("classifier.2", x)?;
    x = net.global_avg_pool("classifier.3", x)?;
    x = net.flatten("flat", x)?;
    net.output("logits", x);
    Ok(())
}

fn fire(net: &mut Net, name: &str, x: Value, squeezed: usize, expanded: usize) -> Built {
    let part = |what: &str| format!("{name}.{what}");
    let s = net.conv(&part("squeeze"), x, Conv::new(squeezed, 1))?;
    let s = net.relu(&part("squeeze_activation"), s)?;
    let one = net.conv(&part("expand1x1"), s, Conv::new(expanded, 1))?;
    let one = net.relu(&part("expand1x1_activation"), one)?;
    let three = net.conv(&part("expand3x3"), s, Conv::new(expanded, 3).pad(1))?;
    let three = net.relu(&part("expand3x3_activation"), three)?;
    net.concat(&part("concat"), &[one, three])
}
