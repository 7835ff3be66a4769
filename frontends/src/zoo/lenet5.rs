//! LeNet-5 in its usual modern reading: images of 28x28 padded to 32x32, a full second convolution, and a softmax at the
//! end.

use super::{Args, Conv, Init, Net, Network, Pool, Setting};
use lehr_ir::Diag;
use lehr_ir::ops::UnaryFn;

pub static LENET5: Network = Network {
    name: "lenet5",
    summary: "convolutions, average pooling and dense layers with tanh",
    source: "LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition (1998)",
    settings: &[Setting::input(28), Setting::classes(10), Setting::WIDTH],
    build,
};

fn build(net: &mut Net, args: &Args) -> Result<(), Diag> {
    net.set_init(Init::Glorot);
    let x = net.image("image", 1, args.size("input"), args.size("input"));
    let x = net.conv("c1", x, Conv::new(args.channels(6), 5).pad(2))?;
    let x = net.activation("c1/tanh", x, UnaryFn::Tanh)?;
    let x = net.avg_pool("s2", x, Pool::new(2, 2))?;
    let x = net.conv("c3", x, Conv::new(args.channels(16), 5))?;
    let x = net.activation("c3/tanh", x, UnaryFn::Tanh)?;
    let x = net.avg_pool("s4", x, Pool::new(2, 2))?;
    let x = net.flatten("flat", x)?;
    let x = net.linear("f5", x, args.channels(120))?;
    let x = net.activation("f5/tanh", x, UnaryFn::Tanh)?;
    let x = net.linear("f6", x, args.channels(84))?;
    let x = net.activation("f6/tanh", x, UnaryFn::Tanh)?;
    let x = net.linear("f7", x, args.size("classes"))?;
    let x = net.softmax("probabilities", x)?;
    net.output("probabilities", x);
    Ok(())
}
