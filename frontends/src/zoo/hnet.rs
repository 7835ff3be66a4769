//! A harmonic network for rotated images: orders 0 and 1 in every layer, three pairs of convolutions with pooling between
//! them, then the mean magnitude per class, which does not change when the image turns by quarter turns.

use super::harmonic::{self, Harmonic};
use super::{Args, Init, Net, Network, Pool, Setting};
use lehr_ir::Diag;

pub static HNET: Network = Network {
    name: "hnet",
    summary: "harmonic network: kernels are circular harmonics; turned images give the same logits",
    source: "Worrall, Garbin, Turmukhambetov and Brostow, Harmonic Networks: Deep Translation and Rotation Equivariance (2017)",
    settings: &[
        Setting::input(28),
        Setting::classes(10),
        Setting::WIDTH,
        Setting::size("channels", 1, 1, 64, "channels of the image"),
    ],
    build,
};

const ORDERS: &[i32] = &[0, 1];

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let input = args.size("input");
    if !input.is_multiple_of(4) {
        let why =
            format!("input={input}: two poolings halve the image, which must stay centred: a multiple of 4 is needed");
        return Err(Diag::new("load.zoo", why));
    }
    let image = net.image("image", args.size("channels"), input, input);
    let mut x = harmonic::image(image);
    for (block, channels) in [8, 16, 35].into_iter().enumerate() {
        if block > 0 {
            x = harmonic::avg_pool(net, &format!("pool{block}"), &x, Pool::new(2, 2))?;
        }
        let layer = Harmonic { channels: args.channels(channels), kernel: 5, pad: 2, orders: ORDERS };
        let [first, second] = [2 * block + 1, 2 * block + 2];
        x = harmonic::conv(net, &format!("conv{first}"), &x, layer)?;
        x = harmonic::relu(net, &format!("relu{first}"), &x)?;
        x = harmonic::conv(net, &format!("conv{second}"), &x, layer)?;
        x = harmonic::batch_norm_relu(net, &format!("bn{second}"), &x)?;
    }
    let classes = args.size("classes");
    let last = Harmonic { channels: classes, kernel: 5, pad: 2, orders: ORDERS };
    x = harmonic::conv(net, "conv7", &x, last)?;
    let sizes = x.iter().map(|x| harmonic::magnitude(net, &format!("conv7.{}", x.order), x));
    let sizes: Vec<_> = sizes.collect::<Result<_, _>>()?;
    let mut sum = sizes[0];
    for &size in &sizes[1..] {
        sum = net.add("magnitudes", sum, size)?;
    }
    let mean = net.global_avg_pool("mean", sum)?;
    let flat = net.flatten("flat", mean)?;
    let bias = net.weight("fc.bias", &[classes], Init::Normal { mean: 0.0, deviation: 0.05 })?;
    let logits = net.add("logits", flat, bias)?;
    net.output("logits", logits);
    Ok(())
}
