//! SIREN: sine layers, here as an image's colours as a function of its coordinates. The first layer is uniform in +-1/n, the
//! others in +-sqrt(6/n)/omega, n being the layer's inputs: then every layer's argument is standard normal, at any depth.

use super::{Args, Init, Net, Network, Setting};
use lehr_ir::Diag;
use lehr_ir::ops::UnaryFn;

pub static SIREN: Network = Network {
    name: "siren",
    summary: "sine layers: an image as a function of coordinates in [-1, 1]",
    source: "Sitzmann, Martel, Bergman, Lindell and Wetzstein, Implicit Neural Representations with Periodic Activation Functions (2020)",
    settings: &[
        Setting::size("coordinates", 2, 1, 16, "coordinates of a point"),
        Setting::size("features", 256, 1, 1 << 14, "units of each hidden layer"),
        Setting::size("layers", 4, 1, 64, "sine layers"),
        Setting::size("outputs", 3, 1, 1 << 14, "values at a point"),
        Setting::size("omega", 30, 1, 1000, "frequency: the factor inside of the sines"),
    ],
    build,
};

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    let omega = args.size("omega") as f64;
    let mut inputs = args.size("coordinates");
    let mut x = net.input("coordinates", &[inputs]);
    for layer in 0..args.size("layers") {
        let limit = if layer == 0 { 1.0 / inputs as f64 } else { (6.0 / inputs as f64).sqrt() / omega };
        net.set_init(Init::Uniform { low: -limit, high: limit });
        inputs = args.size("features");
        x = net.linear(&format!("net.{layer}.linear"), x, inputs)?;
        x = net.scale(&format!("net.{layer}.omega"), x, omega)?;
        x = net.activation(&format!("net.{layer}.sine"), x, UnaryFn::Sin)?;
    }
    let limit = (6.0 / inputs as f64).sqrt() / omega;
    net.set_init(Init::Uniform { low: -limit, high: limit });
    x = net.linear("net.last", x, args.size("outputs"))?;
    net.output("values", x);
    Ok(())
}
